"""Timers of a life: a message to itself, later. They end with the life, and never pile up.

A timer that comes due while its last message is still unread is not counted twice: the actor is late already, and more
of the same would make it later.
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
    """Made by `Context.after` and `Context.every`."""

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
        self.every_s = every_s  # infinite: once
        self.state = WAITING
        self._mailbox = mailbox
        self._deadlines = deadlines
        self._timers = timers  # the life's, of those that will still come due
        self._message = message
        self._unread: Envelope | None = None
        timers.add(self)
        deadlines.add_at(self)

    @property
    def active(self) -> bool:
        """Whether it will still come due."""
        return self.state == WAITING

    def cancel(self) -> None:
        """Not again; and what has come due and was not read yet will not be. Idempotent."""
        self.state = GIVEN_UP
        self._timers.discard(self)
        if self._unread is not None and not self._unread.started:
            self._unread.give_up()

    def expire(self) -> None:
        if self._mailbox.closed is None and (self._unread is None or self._unread.started):
            self._unread = Envelope.unasked(self._message)
            self._mailbox.put_own(self._unread)
        if self.every_s == math.inf:
            self.state = ANSWERED
            self._timers.discard(self)
            return
        # From the time it was due, so that it does not drift; what a blocked loop has missed is left out.
        missed = max(0.0, (trio.current_time() - self.deadline) // self.every_s)
        self.deadline += self.every_s * (missed + 1)
        self._deadlines.add_at(self)
