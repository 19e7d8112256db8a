"""Timers of a life: messages to itself at a later time. They end with the life.

A timer that comes due while its previous message is still unread is left out: the actor is late
already, and another message would make it later still.
"""

from __future__ import annotations

import math
from typing import Any

import trio

from .deadlines import Deadlines
from .envelope import ANSWERED, GIVEN_UP, WAITING, Envelope
from .mailbox import Mailbox

__all__ = ["Timer"]


class Timer:
    """A running timer, made by `Context.after` or `Context.every`."""

    __slots__ = (
        "_deadlines",
        "_mailbox",
        "_message",
        "_timers",
        "_unread",
        "deadline",
        "every_s",
        "state",
    )

    def __init__(
        self,
        mailbox: Mailbox,
        deadlines: Deadlines,
        timers: set[Timer],
        message: Any,
        after_s: float,
        every_s: float,
    ) -> None:
        self.deadline = trio.current_time() + after_s
        self.every_s = every_s  # infinite for a timer that comes due once
        self.state = WAITING
        self._mailbox = mailbox
        self._deadlines = deadlines
        self._timers = timers  # the active timers of the life
        self._message = message
        self._unread: Envelope | None = None
        timers.add(self)
        deadlines.add_at(self)

    @property
    def active(self) -> bool:
        """Whether the timer will come due again."""
        return self.state == WAITING

    def cancel(self) -> None:
        """Stop the timer, and drop its message if that is still unread. Idempotent."""
        self.state = GIVEN_UP
        self._timers.discard(self)
        if self._unread is not None and not self._unread.started:
            self._unread.give_up()

    def expire(self) -> None:
        """Called at the deadline: enqueue the message, and set the next deadline."""
        if self._mailbox.closed is None and (self._unread is None or self._unread.started):
            self._unread = Envelope.unasked(self._message)
            self._mailbox.put_own(self._unread)
        if self.every_s == math.inf:
            self.state = ANSWERED
            self._timers.discard(self)
            return
        # Counted from the time when it was due, so that it does not drift. Beats that were missed
        # while the loop was blocked are left out.
        missed = max(0.0, (trio.current_time() - self.deadline) // self.every_s)
        self.deadline += self.every_s * (missed + 1)
        self._deadlines.add_at(self)
