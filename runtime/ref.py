"""Refs, the only way to reach an actor. A ref stays valid over restarts and may be copied freely.

There are three ways to send: `tell_nowait` never waits, `tell` waits for room, `ask` waits for the
answer. A ref belongs to the trio run that made it; other threads use `tell_from_thread`. Timeouts
are in seconds of trio's clock.
"""

from __future__ import annotations

import math
from contextvars import ContextVar
from threading import get_ident
from typing import Any, TypeVar

import trio
from trio.lowlevel import wait_task_rescheduled

from .deadlines import Deadlines
from .envelope import ANSWERED, EXPIRED, Envelope
from .errors import (
    ActorStopped,
    AskCycle,
    AskTimeout,
    ConfigError,
    MailboxFull,
    WrongMessage,
    WrongThread,
)
from .mailbox import Mailbox
from .message import Request, key_of

__all__ = ["Address", "Ref", "current_address", "wait_path"]

R = TypeVar("R")

# Thirty years. A longer time is a mistake, and a whole number too large for a float would fail far
# from its origin.
SECONDS_MAX = 1e9


class Address:
    """The part of a child that refs use: its mailbox, its epoch, and the actors it waits for."""

    def __init__(self, name: str, mailbox: Mailbox, deadlines: Deadlines) -> None:
        self.name = name
        self.mailbox = mailbox
        self.deadlines = deadlines
        self.epoch = 0
        self.waiting_on: list[Address] = []
        self.token: trio.lowlevel.TrioToken | None = None
        self.task: trio.lowlevel.Task | None = None  # of the present life

    def remaining_deadline(self) -> float:
        """The latest deadline of the asks in hand; infinite when one of them is a tell.

        A nested ask inherits it, since its answer is of no use after that.
        """
        hand = self.mailbox.hand
        if type(hand) is Envelope:
            return hand.deadline
        batch = self.mailbox.batch
        if not batch or any(type(item) is not Envelope for item in batch):
            return math.inf
        return max(float(item.deadline) for item in batch)


# The actor whose handler runs in this task, or has started this task.
current_address: ContextVar[Address | None] = ContextVar("fundops_current_address", default=None)


def _caller() -> Address | None:
    """The actor that waits for what this task asks; None when no actor does.

    A task inherits the context of the handler that starts it. Only a task inside the nurseries of
    that handler is waited for: one in a nursery of others may outlive the handler, and then no
    actor waits for its asks, and no deadline of a message bounds them.
    """
    address = current_address.get()
    if address is None or address.task is None:
        return None
    task = trio.lowlevel.current_task()
    while task is not address.task:
        nursery = task.parent_nursery
        if nursery is None:
            return None
        task = nursery.parent_task
    return address


class Ref:
    """The handle of one actor of one supervision tree."""

    __slots__ = ("_address", "_mailbox")

    def __init__(self, address: Address) -> None:
        self._address = address
        self._mailbox = address.mailbox

    def __repr__(self) -> str:
        return f"<Ref {self.name} epoch={self.epoch}>"

    @property
    def name(self) -> str:
        """The actor's name, unique in its tree."""
        return self._address.name

    @property
    def epoch(self) -> int:
        """The number of the present life: 1 for the first, one more for each restart."""
        return self._address.epoch

    def tell_nowait(self, message: Any) -> None:
        """Enqueue a message without waiting.

        Raises: `MailboxFull`, `ActorStopped`, `WrongMessage`, `WrongThread`.
        """
        mailbox = self._mailbox
        if type(message) not in mailbox.accepts or get_ident() != mailbox.thread:
            self._check_control(message)
            mailbox.put_control(message)
        elif len(mailbox.queue) < mailbox.limit:
            # The same as `put_nowait`, written out to save a call per message.
            mailbox.queue.append(message)
            mailbox.accepted += 1
            if mailbox.consumer is not None:
                mailbox.wake()
        else:
            mailbox.put_nowait(message)

    async def tell(self, message: Any) -> None:
        """Enqueue a message, waiting for room.

        Returned means enqueued exactly once, cancelled means not enqueued.

        With room this is not a schedule point, which would cost ten times as much as the
        enqueueing. A sender in a tight loop still yields whenever the mailbox is full.

        Raises: `MailboxFull`, `ActorStopped`, `WrongMessage`, `WrongThread`.
        """
        mailbox = self._mailbox
        ordinary = type(message) in mailbox.accepts and get_ident() == mailbox.thread
        if not ordinary:
            self._check_control(message)
        await trio.lowlevel.checkpoint_if_cancelled()
        if not ordinary:
            mailbox.put_control(message)
        elif mailbox.has_room:
            mailbox.put_nowait(message)
        else:
            await mailbox.put(message)

    def tell_from_thread(self, message: Any) -> None:
        """Enqueue a message from another thread, as soon as the trio loop gets to it.

        A message that is then refused is counted in `rejected`, not raised.

        Raises: `WrongMessage`; `ActorStopped` before the first life and after the trio run.
        """
        if self._address.token is None:
            raise ActorStopped(self.name, "not started")
        if (
            type(message) not in self._mailbox.accepts
            and type(message) not in self._mailbox.controls
        ):
            raise WrongMessage(self.name, type(message).__qualname__)
        try:
            self._address.token.run_sync_soon(self._tell_or_count, message)
        except trio.RunFinishedError as over:
            raise ActorStopped(self.name, "its trio run is over") from over

    async def ask(self, request: Request[R], *, timeout_s: float = 5.0) -> R:
        """Enqueue a request, waiting for room, and return its answer.

        An ask made in a handler has the earlier of two deadlines: this one, and that of the message
        in hand. Cancelling or timing out an ask whose message is in hand does not undo the work.

        Raises: the refusal of the handler (`Rejected`), `ActorCrashed`, `AskTimeout`,
            `ActorStopped`, `AskCycle`, `MailboxFull`, `WrongMessage`, `WrongThread`, `ConfigError`.
        """
        if timeout_s.__class__ is bool or not 0 < timeout_s <= SECONDS_MAX:
            raise ConfigError(
                "timeout_s", f"{timeout_s!r} is not a positive, finite number of seconds"
            )
        address, mailbox = self._address, self._mailbox
        ordinary = type(request) in mailbox.accepts and get_ident() == mailbox.thread
        if not ordinary:
            self._check_control(request)
        deadlines = address.deadlines
        ask = Envelope(request, deadlines.now() + timeout_s)
        # Only an ask made by an actor can close a wait cycle or inherit a deadline.
        caller = _caller()
        if caller is not None:
            await self._ask_from(caller, ask, timeout_s)
        elif ordinary and len(mailbox.queue) < mailbox.limit:
            # The same as `_put` and `wait`, written out to save two calls per ask.
            mailbox.queue.append(ask)
            mailbox.accepted += 1
            if mailbox.consumer is not None:
                mailbox.wake()
            deadlines.add(ask, timeout_s)
            ask.asker = trio.lowlevel.current_task()
            await wait_task_rescheduled(ask.abort)
        else:
            await self._put(ask, timeout_s)
            await ask.wait()
        if ask.state == ANSWERED:
            answer: R = ask.answer
            ask.answer = ask.message = (
                None  # its lane may keep it until its deadline, and they may be large
            )
            return answer
        if ask.state == EXPIRED:
            raise self._too_late(ask, timeout_s)
        raise ask.take_error()

    async def _ask_from(self, caller: Address, ask: Envelope, timeout_s: float) -> None:
        """Make an ask for another actor, within the deadline of that actor's message in hand.

        Raises: `AskCycle` when the two would wait for each other; `AskTimeout`.
        """
        address = self._address
        _refuse_cycle(caller, address)
        ask.deadline = min(ask.deadline, caller.remaining_deadline())
        if ask.deadline <= address.deadlines.now():
            # The caller's own asker has given up already.
            raise self._too_late(ask, timeout_s)
        caller.waiting_on.append(address)
        try:
            await self._put(ask, timeout_s)
            await ask.wait()
        finally:
            caller.waiting_on.remove(address)

    async def _put(self, ask: Envelope, timeout_s: float) -> None:
        """Enqueue within the deadline. A cancel scope is made only for the rare wait for room."""
        mailbox = self._mailbox
        if type(ask.message) in mailbox.controls:
            mailbox.put_control(ask)
        elif mailbox.has_room:
            mailbox.put_nowait(ask)
        else:
            with trio.CancelScope(deadline=ask.deadline) as scope:
                await mailbox.put(ask)
            if scope.cancelled_caught:
                raise self._too_late(ask, timeout_s)
        self._address.deadlines.add_at(ask)

    def _too_late(self, ask: Envelope, timeout_s: float) -> AskTimeout:
        request = type(ask.message).__qualname__
        return AskTimeout(
            self.name, request, timeout_s, started=ask.started, key=key_of(ask.message)
        )

    def _check_control(self, message: Any) -> None:
        """Raise unless the message is a control message, sent from the thread of the trio run.

        Raises: `WrongThread`, since trio would lose the message and hang the run; `WrongMessage`.
        """
        if get_ident() != self._mailbox.thread:
            raise WrongThread(
                f"ref of {self.name!r} used outside its trio thread; use tell_from_thread"
            )
        if type(message) not in self._mailbox.controls:
            raise WrongMessage(self.name, type(message).__qualname__)

    def _tell_or_count(self, message: Any) -> None:
        mailbox = self._mailbox
        if mailbox.closed is not None:
            mailbox.rejected += 1
            return
        # This runs as a callback of the loop, where an error would end the whole trio run.
        try:
            self.tell_nowait(message)
        except MailboxFull:
            return  # counted by the mailbox
        except Exception:  # noqa: BLE001  counted; any error is possible in the host's `conflate_by`
            mailbox.rejected += 1


def _refuse_cycle(caller: Address, target: Address) -> None:
    """Raise `AskCycle` if `target` already waits for `caller`, directly or through other actors."""
    if target is not caller and not target.waiting_on:
        return
    path = wait_path(target, caller)
    if path:
        raise AskCycle([caller.name, *path])


def wait_path(start: Address, goal: Address) -> list[str]:
    """The names from `start` to `goal` if the first waits for the last, or for actors that do.

    Empty when it does not.
    """
    asked_by: dict[Address, Address | None] = {start: None}
    rest = [start]
    while rest:
        step = rest.pop()
        if step is goal:
            path: list[str] = []
            # Back along the actors by which the goal was reached.
            back: Address | None = step
            while back is not None:
                path.append(back.name)
                back = asked_by[back]
            return path[::-1]
        for asked in step.waiting_on:
            if asked not in asked_by:
                asked_by[asked] = step
                rest.append(asked)
    return []
