"""A ref: the only way to reach an actor. It stays valid over restarts and may be copied freely.

Three ways of sending: `tell_nowait` never awaits, `tell` waits for room, `ask` waits for the answer. Refs belong to
the trio run that made them; from any other thread use `tell_from_thread`.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, TypeVar

import trio

from .errors import ActorStopped, AskCycle, AskTimeout, ConfigError, MailboxFull, WrongMessage, WrongThread
from .mailbox import Envelope, Mailbox, Reply
from .message import Request

__all__ = ["Address", "Ref", "current_address"]

R = TypeVar("R")


class Address:
    """The part of a child that refs touch: its mailbox, its epoch, and whom it waits for right now."""

    def __init__(self, name: str, mailbox: Mailbox, accepts: Collection[type] | None) -> None:
        self.name = name
        self.mailbox = mailbox
        self.accepts = accepts  # None: not known before the first life
        self.epoch = 0
        self.waiting_on: Counter[Address] = Counter()
        self.thread = threading.get_ident()
        self.token: trio.lowlevel.TrioToken | None = None

    def remaining_deadline(self) -> float:
        """The earliest deadline among the messages in hand: a nested ask may not outlive its caller's patience."""
        return min((envelope.deadline for envelope in self.mailbox.in_hand), default=math.inf)


# The actor whose handler is running in this task, or in a task it started.
current_address: ContextVar[Address | None] = ContextVar("fundops_current_address", default=None)


class Ref:
    """Reaches one actor of one supervision tree."""

    __slots__ = ("_address",)

    def __init__(self, address: Address) -> None:
        self._address = address

    def __repr__(self) -> str:
        return f"<Ref {self.name} epoch={self.epoch}>"

    @property
    def name(self) -> str:
        return self._address.name

    @property
    def epoch(self) -> int:
        """Which life is serving: 1 is the first."""
        return self._address.epoch

    def tell_nowait(self, message: Any) -> None:
        """Enqueue without waiting.

        Raises: `MailboxFull`, `ActorStopped`, `WrongMessage`, `WrongThread`.
        """
        self._check(message)
        self._address.mailbox.put_nowait(Envelope(message))

    async def tell(self, message: Any) -> None:
        """Enqueue, waiting for room. Returned means enqueued exactly once; cancelled means not enqueued."""
        self._check(message)
        await self._address.mailbox.put(Envelope(message))

    def tell_from_thread(self, message: Any) -> None:
        """Enqueue from any other thread, soon. Overflow and a stopped actor are counted, not raised.

        Raises: `WrongMessage`; `ActorStopped` before the first life and after the trio run.
        """
        if self._address.token is None:
            raise ActorStopped(self.name, "not started")
        self._check_type(message)
        try:
            self._address.token.run_sync_soon(self._tell_or_count, message)
        except trio.RunFinishedError as over:
            raise ActorStopped(self.name, "its trio run is over") from over

    async def ask(self, request: Request[R], *, timeout_s: float = 5.0) -> R:
        """Enqueue, waiting for room, and wait for the answer.

        A nested ask inherits the earlier of its own and its caller's deadline. Cancelling or timing out an ask whose
        message is in hand does not undo the work.

        Raises: what the handler refused with (`Rejected`), `ActorCrashed`, `AskTimeout`, `ActorStopped`, `AskCycle`,
        `MailboxFull`, `WrongMessage`, `WrongThread`.
        """
        if isinstance(timeout_s, bool) or not 0 < timeout_s < math.inf:
            raise ConfigError("timeout_s", f"{timeout_s!r} is not a positive, finite number of seconds")
        self._check(request)
        address, caller = self._address, current_address.get()
        deadline = trio.current_time() + timeout_s
        if caller is not None:
            _refuse_cycle(caller, address)
            deadline = min(deadline, caller.remaining_deadline())
            caller.waiting_on[address] += 1
        reply = Reply()
        envelope = Envelope(request, reply, deadline)
        try:
            with trio.CancelScope(deadline=deadline):
                await address.mailbox.put(envelope)
                answer: R = await reply.wait()
                return answer
        finally:
            reply.abandoned = True
            if caller is not None:
                caller.waiting_on[address] -= 1
                if not caller.waiting_on[address]:
                    del caller.waiting_on[address]
        raise AskTimeout(self.name, type(request).__qualname__, timeout_s, started=envelope.in_hand)

    def _check(self, message: Any) -> None:
        # trio would lose an item sent from a foreign thread and hang the run.
        if threading.get_ident() != self._address.thread:
            raise WrongThread(f"ref of {self.name!r} used outside its trio thread; use tell_from_thread")
        self._check_type(message)

    def _check_type(self, message: Any) -> None:
        accepts = self._address.accepts
        if accepts is not None and type(message) not in accepts:
            raise WrongMessage(self.name, type(message).__qualname__)

    def _tell_or_count(self, message: Any) -> None:
        mailbox = self._address.mailbox
        if mailbox.closed is not None:
            mailbox.rejected += 1
            return
        # An error here would end the whole run; the mailbox has counted it.
        with suppress(MailboxFull):
            mailbox.put_nowait(Envelope(message))


def _refuse_cycle(caller: Address, target: Address) -> None:
    """Raise `AskCycle` if `target` already waits, over any number of others, for `caller`."""
    path = _path(target, caller, ())
    if path:
        raise AskCycle([caller.name, *path])


def _path(start: Address, goal: Address, seen: tuple[Address, ...]) -> list[str]:
    if start is goal:
        return [goal.name]
    for step in start.waiting_on:
        if step not in seen:
            rest = _path(step, goal, (*seen, start))
            if rest:
                return [start.name, *rest]
    return []
