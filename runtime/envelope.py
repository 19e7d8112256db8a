"""What stands in a mailbox when there is more to a message than itself."""

from __future__ import annotations

import math
from typing import Any

import trio

__all__ = ["GIVEN_UP", "WAITING", "Envelope"]

# Where the asker stands. Up to FAILED the message is worth handling; from GIVEN_UP on, nobody wants it any more.
WAITING, ANSWERED, FAILED, GIVEN_UP, EXPIRED = range(5)


class Envelope:
    """A message with someone who waits for its answer until a deadline, or with attempts behind it.

    The asker is settled with at most once, and deaf from the instant it gives up or its deadline passes.
    """

    __slots__ = ("_answer", "_task", "attempts", "deadline", "message", "started", "state")

    def __init__(self, message: Any, deadline: float = math.inf, state: int = WAITING) -> None:
        self.message = message
        self.deadline = deadline  # trio time
        self.state = state
        self.started = False  # a handler has, or once had, the message in hand
        self.attempts = 0  # lives that crashed on it
        self._answer: Any = None
        self._task: trio.lowlevel.Task | None = None

    @classmethod
    def unasked(cls, message: Any) -> Envelope:
        """Nobody waits for an answer."""
        return cls(message, state=ANSWERED)

    def settle(self, answer: Any) -> None:
        self.state, self._answer = ANSWERED, answer
        self._wake()

    def fail(self, error: BaseException) -> None:
        self.state, self._answer = FAILED, error
        self._wake()

    def give_up(self) -> None:
        """If still queued it will never run."""
        self.state = GIVEN_UP

    def expire(self) -> None:
        """The deadline has passed: an answer from this instant on is a late one."""
        if self.state == WAITING:
            self.state = EXPIRED
            self._wake()

    @property
    def expired(self) -> bool:
        return self.state == EXPIRED

    def _wake(self) -> None:
        task = self._task
        if task is not None:
            self._task = None
            trio.lowlevel.reschedule(task)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        # From this instant, and not from when the asker next runs: an answer in between is a late one.
        self._task, self.state = None, GIVEN_UP
        return trio.lowlevel.Abort.SUCCEEDED

    async def wait(self) -> Any:
        """The answer. The caller looks at `expired` first: then there is none."""
        if self.state == WAITING:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self.state == FAILED:
            try:
                raise self._answer
            finally:
                self._answer = None  # the traceback would keep this frame alive in a cycle
        return self._answer
