"""One life of an actor: an instance, its hooks, and the loop that serves its mailbox.

A life borrows a `Seat` from its supervisor, which owns the mailbox and everything else that
outlives the life. `live` returns after a normal end and raises after a crash; the supervisor turns
both into events.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import trio

from .actor import Actor, Handler
from .envelope import ANSWERED, GIVEN_UP, WAITING, Envelope
from .errors import (
    ActorCrashed,
    ActorStopped,
    ConfigError,
    Drill,
    MailboxFull,
    Rejected,
    WrongMessage,
    text_of,
)
from .groups import leaf_of
from .mailbox import NOTHING, Mailbox, message_of
from .message import is_idempotent, key_of
from .records import Terminated
from .ref import SECONDS_MAX, Address, Ref, current_address
from .timer import Timer

__all__ = ["Drain", "Seat", "fail_askers", "live", "starts_at_once"]

Drain = Literal["all", "in_hand", "none"]

# Timers of a shorter period would keep the loop busy.
TIMER_MIN_S = 0.001


class Seat(ABC):
    """The place of an actor in the tree, which each of its lives borrows in turn.

    It holds the address and the mailbox, and takes requests to end the present life. The actor sees
    it as its `Context`. The supervisor's subclass implements the abstract methods.
    """

    def __init__(
        self,
        address: Address,
        *,
        max_attempts: int,
        messages_per_turn: int,
        on_stop_deadline_s: float,
    ):
        self.name = address.name
        self.address = address
        self.mailbox: Mailbox = address.mailbox
        self.max_attempts = max_attempts
        self.messages_per_turn = messages_per_turn
        self.on_stop_deadline_s = on_stop_deadline_s
        self.drill: str | None = None
        self.stop_reason: str | None = None
        self.drain: Drain = "in_hand"
        self.handlers: Mapping[type, Handler] = {}
        self.timers: set[Timer] = set()

    @abstractmethod
    def bury(self, message: Any, reason: str) -> None:
        """Record a message that will never be answered."""

    @abstractmethod
    def quarantine(self, message: Any, attempts: int) -> None:
        """Record a message of which every attempt crashed."""

    @abstractmethod
    def note_cleanup(self, error: str) -> None:
        """Record that `on_stop` failed."""

    @abstractmethod
    def ref(self, name: str) -> Ref:
        """The ref of another actor of the tree. Raises: `UnknownChild`."""

    @abstractmethod
    def follow(self, name: str) -> None:
        """Call `hear_of` with the `Terminated` of that actor, unless this life ends first."""

    @abstractmethod
    def unfollow(self) -> None:
        """Cancel all calls of `follow`, since this life has ended."""

    # -- the actor's Context, documented there

    @property
    def epoch(self) -> int:
        """The number of the present life, from 1 on."""
        return self.address.epoch

    def stop(self, reason: str = "ended") -> None:
        """End the present life after the message in hand."""
        self.stop_reason = reason
        self.mailbox.hurry()

    def after(self, seconds: float, message: Any) -> Timer:
        """Handle `message` once, in so many seconds."""
        if not 0 <= seconds <= SECONDS_MAX:
            raise ConfigError("seconds", f"{seconds!r} is not a finite number >= 0")
        return self._timer(message, seconds, math.inf)

    def every(self, seconds: float, message: Any) -> Timer:
        """Handle `message` at this interval."""
        if not TIMER_MIN_S <= seconds <= SECONDS_MAX:
            raise ConfigError("seconds", f"{seconds!r} is not a finite number >= {TIMER_MIN_S:g}")
        return self._timer(message, seconds, seconds)

    def watch(self, name: str) -> None:
        """Handle one `Terminated` when that actor has ended permanently."""
        self._check_handled(Terminated)
        self.follow(name)

    def _timer(self, message: Any, after_s: float, every_s: float) -> Timer:
        self._check_handled(type(message))
        return Timer(self.mailbox, self.address.deadlines, self.timers, message, after_s, every_s)

    def _check_handled(self, message_type: type) -> None:
        if message_type not in self.handlers:
            raise WrongMessage(self.name, message_type.__qualname__)

    # -- called by the supervisor

    def hear_of(self, terminated: Terminated) -> None:
        """Leave the present life a message about an actor that it watches."""
        if self.mailbox.closed is None:
            self.mailbox.put_own(Envelope.unasked(terminated))

    def crash(self, reason: str) -> None:
        """Make the life crash with a `Drill` before its next message."""
        self.drill = reason
        self.mailbox.hurry()

    def clear(self) -> None:
        """Prepare for the next life. A drill that has not crashed a life yet stays in force."""
        self.stop_reason = None
        self.drain = "in_hand"
        self.mailbox.urgent = True

    def end(self) -> None:
        """Drop the timers, the unread messages to itself and the watches of a life that is over."""
        for timer in tuple(self.timers):
            timer.cancel()
        self.mailbox.forget_own()
        self.unfollow()


def starts_at_once(actor: Actor) -> bool:
    """Whether the actor has no `on_start`, so its life is ready without a schedule point."""
    return type(actor).on_start is Actor.on_start


async def live(seat: Seat, actor: Actor, ready: Callable[[], None]) -> None:
    """Run one life, from a fresh instance to the end of its `on_stop`.

    Calls `ready` once `on_start` has finished. Returns when the life was asked to end.

    Raises: the error that crashed the actor, or failed its start.
    """
    token = current_address.set(seat.address)
    seat.address.task = trio.lowlevel.current_task()
    actor.context = seat
    reason = "crashed"
    try:
        if not starts_at_once(actor):
            await actor.on_start()
            ready()
        await _serve(seat, actor)
        reason = seat.stop_reason or "ended"
    except trio.Cancelled:
        reason = seat.stop_reason or "cancelled"
        raise
    finally:
        try:
            if type(actor).on_stop is not Actor.on_stop:
                await _clean_up(seat, actor, reason)
        finally:
            seat.end()
            seat.address.task = None
            current_address.reset(token)


async def _clean_up(seat: Seat, actor: Actor, reason: str) -> None:
    """Run `on_stop` within its deadline.

    Its errors are recorded and not raised, so they never hide the error that ended the life.
    """
    try:
        with trio.CancelScope(
            shield=True, deadline=trio.current_time() + seat.on_stop_deadline_s
        ) as scope:
            await actor.on_stop(reason)
    except Exception as error:  # noqa: BLE001  recorded
        seat.note_cleanup(text_of(error))
    else:
        if scope.cancelled_caught:
            seat.note_cleanup(f"on_stop took longer than {seat.on_stop_deadline_s:g} s")


async def _serve(seat: Seat, actor: Actor) -> None:
    """Handle messages until asked to end.

    This is the hot loop: a message costs a few attribute look-ups and one call. It yields to other
    tasks after `messages_per_turn` messages, and whenever the mailbox is empty.
    """
    mailbox, handlers = seat.mailbox, type(actor)._handlers
    queue = mailbox.queue
    task = trio.lowlevel.current_task()
    now = trio.lowlevel.current_clock().current_time
    while True:
        # Other tasks have just had their turn, so the queue is at its deepest now.
        mailbox.note_depth()
        for _ in range(seat.messages_per_turn):
            lane = queue
            if mailbox.urgent:
                if _must_end(seat):
                    return
                lane = mailbox.first_lane()
            if not lane:
                break
            item = lane.popleft()
            if mailbox.senders:
                mailbox.admit_sender()
            message = item
            if type(item) is Envelope:
                # While other tasks held the loop, the task that keeps the deadlines could not run.
                if item.state == WAITING and item.deadline <= now():
                    item.expire()
                if item.state >= GIVEN_UP:
                    mailbox.expired += 1
                    continue
                item.started = True
                message = item.message
            # No await since the message left its lane, so a cancellation cannot lose it.
            mailbox.hand = item
            try:
                function, is_async, batch_max = handlers[type(message)]
            except KeyError:
                # Told before the first life, when the accepted types were not known yet.
                mailbox.hand = NOTHING
                mailbox.done += 1
                _answer(seat, item, WrongMessage(seat.name, type(message).__qualname__))
                continue
            if batch_max:
                mailbox.hand_since = now()
                await _serve_run(seat, actor, item)
                mailbox.hand_since = math.inf
                break  # one batch is one turn
            try:
                answer = function(actor, message)
                if is_async:
                    mailbox.hand_since = now()
                    answer = await answer
                    mailbox.hand_since = math.inf
                    mailbox.note_depth()
            except Rejected as refusal:
                mailbox.hand, mailbox.hand_since = NOTHING, math.inf
                mailbox.done += 1
                _answer(seat, item, refusal)
            except Exception as crash:
                if _refused_for_room(seat, crash):
                    continue
                _crash_in_hand(seat, crash)
                raise
            except BaseException:
                # A cancellation or an interrupt, neither of which is the handler's fault.
                _interrupt_in_hand(seat)
                raise
            else:
                mailbox.hand = NOTHING
                mailbox.done += 1
                if item is message:
                    continue  # a tell, which nothing waits for
                if item.state == WAITING and not isinstance(answer, Rejected):
                    item.settle(answer)
                else:
                    _answer(seat, item, answer)
        if queue or mailbox.urgent:
            await trio.lowlevel.checkpoint()
        else:
            mailbox.consumer = task
            # Released before parking, since they may be large and parking may last long.
            item = message = answer = None
            await trio.lowlevel.wait_task_rescheduled(mailbox.abort_park)


def _must_end(seat: Seat) -> bool:
    """Whether the life has to end before its next message.

    Raises: `Drill` when the life was asked to crash.
    """
    mailbox = seat.mailbox
    if seat.drill is not None:
        why, seat.drill = seat.drill, None
        raise Drill(why)
    ending = seat.stop_reason is not None
    if ending and (seat.drain != "all" or not len(mailbox)):
        return True
    # Keeps the hot loop from calling this again before there is a reason to.
    mailbox.urgent = ending or bool(mailbox.own or mailbox.control)
    return False


async def _serve_run(seat: Seat, actor: Actor, first: Any) -> None:
    """Serve a run of messages by one batch handler, and give each exactly one final state."""
    mailbox, handlers = seat.mailbox, type(actor)._handlers
    handler = handlers[type(message_of(first))]
    # The batch takes over as the place of the message in hand.
    mailbox.hand, mailbox.batch = NOTHING, [first]
    _take_followers(mailbox, handlers, handler, seat.address.deadlines.now())
    function, is_async, _ = handler
    try:
        answers = function(actor, [message_of(item) for item in mailbox.batch])
        if is_async:
            answers = await answers
        # Any iterable is accepted, and its length is only known once it is a list.
        answers = list(answers)
        if len(answers) != len(mailbox.batch):
            raise RuntimeError(
                f"batch handler answered {len(answers)} of {len(mailbox.batch)} messages"
            )
    except Rejected as refusal:
        # One refusal for the whole batch.
        _finish(seat, [refusal] * len(mailbox.batch))
    except Exception as crash:
        if _refused_for_room(seat, crash):
            return
        _crash_in_hand(seat, crash)
        raise
    except BaseException:
        _interrupt_in_hand(seat)
        raise
    else:
        _finish(seat, answers)


def _take_followers(
    mailbox: Mailbox, handlers: Mapping[type, Handler], handler: Handler, now: float
) -> None:
    """Take the next queued messages of the same handler into the hand, up to its limit.

    A message that has crashed a life before is served alone, so that it cannot crash others again.
    """
    queue, batch = mailbox.queue, mailbox.batch
    batch_max = handler[2]
    if _tried_before(batch[0]):
        return
    while queue and len(batch) < batch_max:
        item = queue[0]
        if type(item) is Envelope and item.state == WAITING and item.deadline <= now:
            item.expire()
        if type(item) is Envelope and item.state >= GIVEN_UP:
            mailbox.expired += 1
        elif handlers.get(type(message_of(item))) is handler and not _tried_before(item):
            if type(item) is Envelope:
                item.started = True
            batch.append(item)
        else:
            return
        queue.popleft()
        if mailbox.senders:
            mailbox.admit_sender()


def _tried_before(item: Any) -> bool:
    return type(item) is Envelope and item.attempts > 0


# -- final states


def _finish(seat: Seat, answers: Sequence[Any]) -> None:
    mailbox = seat.mailbox
    items, mailbox.batch = mailbox.batch, []
    mailbox.done += len(items)
    for item, answer in zip(items, answers, strict=True):
        _answer(seat, item, answer)


def _answer(seat: Seat, item: Any, answer: Any) -> None:
    """Give the asker its answer if it still waits. A refused tell becomes a dead letter."""
    refused = isinstance(answer, Rejected | WrongMessage | MailboxFull)
    if type(item) is not Envelope or item.state == ANSWERED:
        if refused:
            seat.bury(message_of(item), f"refused: {text_of(answer)}")
    elif item.state != WAITING:
        seat.mailbox.late_replies += 1
    elif refused:
        item.fail(answer)
    else:
        item.settle(answer)


def _empty_hands(mailbox: Mailbox) -> list[Any]:
    items = mailbox.batch if mailbox.hand is NOTHING else [mailbox.hand]
    mailbox.hand, mailbox.batch, mailbox.hand_since = NOTHING, [], math.inf
    return items


def _refused_for_room(seat: Seat, error: Exception) -> bool:
    """Whether a handler was ended by the full mailbox of another actor, which is no fault of its.

    The messages in hand are then refused: each asker gets the `MailboxFull`. Its outcome is
    unknown, because the handler had begun. None is tried again, and the life goes on.
    """
    leaf = leaf_of(error)
    if not isinstance(leaf, MailboxFull):
        return False
    mailbox = seat.mailbox
    items = _empty_hands(mailbox)
    mailbox.done += len(items)
    mailbox.blocked += len(items)
    for item in items:
        message = message_of(item)
        full = MailboxFull(
            leaf.name,
            leaf.capacity,
            handler=f"{seat.name!r} while handling {type(message).__qualname__}",
            key=key_of(message),
        )
        full.__cause__ = leaf
        _answer(seat, item, full)
    return True


def _crash_in_hand(seat: Seat, crash: Exception) -> None:
    """Give the messages in hand their state after a crash: crashed, queued again, or quarantined.

    Their askers fail in the same tick, before any backoff. Subscribers are told only after all
    counters are updated, because a subscriber called here must see consistent statistics.
    """
    mailbox = seat.mailbox
    again: list[Envelope] = []
    tell: list[Callable[[], None]] = []
    for item in _empty_hands(mailbox):
        message = message_of(item)
        attempts = 1 + (item.attempts if type(item) is Envelope else 0)
        if not is_idempotent(type(message)):
            mailbox.crashed += 1
            tell.append(partial(seat.bury, message, f"crashed: {type(crash).__name__}"))
        elif attempts < seat.max_attempts:
            again.append(_unasked(message, attempts))
        else:
            mailbox.quarantined += 1
            reason = f"quarantined after {attempts} attempts: {type(crash).__name__}"
            tell += [
                partial(seat.bury, message, reason),
                partial(seat.quarantine, message, attempts),
            ]
        if _waited_for(item):
            error = ActorCrashed(
                seat.name, seat.epoch, type(message).__qualname__, key=key_of(message)
            )
            error.__cause__ = crash
            item.fail(error)
    _put_back(mailbox, again)
    for tell_subscriber in tell:
        tell_subscriber()


def _interrupt_in_hand(seat: Seat) -> None:
    """Give the messages in hand their state after a cancellation: interrupted, or queued again.

    An idempotent message is queued for the next life unless the mailbox is closed. Its attempt does
    not count.
    """
    mailbox = seat.mailbox
    again: list[Envelope] = []
    lost: list[Any] = []
    reason = seat.stop_reason or "cancelled"
    # Before the hand is emptied, since this looks for askers there.
    fail_askers(seat, reason)
    for item in _empty_hands(mailbox):
        message = message_of(item)
        if is_idempotent(type(message)) and mailbox.closed is None:
            again.append(_unasked(message, item.attempts if type(item) is Envelope else 0))
        else:
            mailbox.interrupted += 1
            lost.append(message)
    _put_back(mailbox, again)
    for message in lost:
        seat.bury(message, f"interrupted: {reason}")


def fail_askers(seat: Seat, reason: str) -> None:
    """Fail those who wait for a message in hand. Their outcome is unknown: it may have run."""
    mailbox = seat.mailbox
    for item in (*mailbox.batch, mailbox.hand):
        if _waited_for(item):
            item.fail(ActorStopped(seat.name, reason, outcome="unknown", key=key_of(item.message)))


def _waited_for(item: Any) -> bool:
    return type(item) is Envelope and item.state == WAITING


def _unasked(message: Any, attempts: int) -> Envelope:
    # A new envelope, because the old one holds the error that its asker may not have read yet.
    again = Envelope.unasked(message)
    again.attempts = attempts
    return again


def _put_back(mailbox: Mailbox, again: list[Envelope]) -> None:
    mailbox.retried += len(again)
    mailbox.put_back(again)
