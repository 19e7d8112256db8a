"""What stands in a mailbox when there is more to a message than itself."""

from __future__ import annotations

import math
from typing import Any

import trio
from trio.lowlevel import reschedule, wait_task_rescheduled

__all__ = ["ANSWERED", "EXPIRED", "FAILED", "GIVEN_UP", "WAITING", "Envelope"]

# Where the asker stands. Up to FAILED the message is worth handling; from GIVEN_UP on, nobody wants it any more.
WAITING, ANSWERED, FAILED, GIVEN_UP, EXPIRED = range(5)


class Envelope:
    """A message with someone who waits for its answer until a deadline, or with attempts behind it.

    The asker is settled with at most once, and deaf from the instant it gives up or its deadline passes.
    """

    __slots__ = ("answer", "asker", "attempts", "deadline", "message", "started", "state")

    def __init__(self, message: Any, deadline: float = math.inf, state: int = WAITING) -> None:
        self.message = message
        self.deadline = deadline  # trio time
        self.state = state
        self.started = False  # a handler has, or once had, the message in hand
        self.attempts = 0  # lives that crashed on it
        self.asker: trio.lowlevel.Task | None = None  # parked until the state is no longer WAITING

    @classmethod
    def unasked(cls, message: Any) -> Envelope:
        """Nobody waits for an answer."""
        return cls(message, state=ANSWERED)

    def settle(self, answer: Any) -> None:
        self.state = ANSWERED
        self.answer = answer
        asker = self.asker
        if asker is not None:
            self.asker = None
            reschedule(asker)

    def fail(self, error: BaseException) -> None:
        self.settle(error)
        self.state = FAILED

    def give_up(self) -> None:
        """If still queued it will never run."""
        self.state = GIVEN_UP

    def expire(self) -> None:
        """The deadline has passed: an answer from this instant on is a late one."""
        if self.state == WAITING:
            self.settle(None)
            self.state = EXPIRED

    def abort(self, _: object) -> trio.lowlevel.Abort:
        # From this instant, and not from when the asker next runs: an answer in between is a late one.
        self.asker, self.state = None, GIVEN_UP
        return trio.lowlevel.Abort.SUCCEEDED

    async def wait(self) -> None:
        """Until there is an answer, an error, or no hope of either."""
        if self.state == WAITING:
            self.asker = trio.lowlevel.current_task()
            await wait_task_rescheduled(self.abort)

    def take_error(self) -> BaseException:
        """What the asker is to raise. Its traceback would keep this envelope alive in a cycle."""
        error: BaseException = self.answer
        self.answer = None
        return error
