"""A queued message with its asker, deadline and attempt count. A tell is queued without one."""

from __future__ import annotations

import math
from typing import Any

import trio
from trio.lowlevel import reschedule, wait_task_rescheduled

__all__ = ["ANSWERED", "EXPIRED", "FAILED", "GIVEN_UP", "WAITING", "Envelope"]

# The states of the asker. Up to FAILED the message is still handled; from GIVEN_UP on it is not.
WAITING, ANSWERED, FAILED, GIVEN_UP, EXPIRED = range(5)


class Envelope:
    """A queued message with its asker, deadline and attempt count.

    The asker gets at most one answer or error, and none after it has given up or its deadline has
    passed.
    """

    __slots__ = ("answer", "asker", "attempts", "deadline", "message", "started", "state")

    answer: Any  # the answer, or the error to raise; unset while the state is WAITING

    def __init__(self, message: Any, deadline: float = math.inf, state: int = WAITING) -> None:
        self.message = message
        self.deadline = deadline  # trio time
        self.state = state
        self.started = False  # a handler has, or once had, the message in hand
        self.attempts = 0  # lives that crashed while handling it
        self.asker: trio.lowlevel.Task | None = None  # parked until the state is no longer WAITING

    @classmethod
    def unasked(cls, message: Any) -> Envelope:
        """An envelope without an asker."""
        return cls(message, state=ANSWERED)

    def settle(self, answer: Any) -> None:
        """Hand the answer over and resume the asker."""
        self.state = ANSWERED
        self.answer = answer
        asker = self.asker
        if asker is not None:
            self.asker = None
            reschedule(asker)

    def fail(self, error: BaseException) -> None:
        """Resume the asker, which will raise the error."""
        self.settle(error)
        self.state = FAILED

    def give_up(self) -> None:
        """Make sure that the message never runs if it is still queued."""
        self.state = GIVEN_UP

    def expire(self) -> None:
        """Let the asker time out: any answer from this instant on is too late."""
        if self.state == WAITING:
            self.settle(None)
            self.state = EXPIRED

    def abort(self, _: object) -> trio.lowlevel.Abort:
        """Let the asker be cancelled."""
        # The state changes here and not when the asker next runs: an answer in between is too late.
        self.asker, self.state = None, GIVEN_UP
        return trio.lowlevel.Abort.SUCCEEDED

    async def wait(self) -> None:
        """Wait until the asker is answered, has failed, or has timed out."""
        if self.state == WAITING:
            self.asker = trio.lowlevel.current_task()
            await wait_task_rescheduled(self.abort)

    def take_error(self) -> BaseException:
        """The error for the asker to raise, removed from here.

        Its traceback would otherwise keep this envelope alive in a reference cycle.
        """
        error: BaseException = self.answer
        self.answer = None
        return error
