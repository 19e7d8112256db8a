"""One life of an actor: an instance, its hooks, and the loop that serves its mailbox.

A life borrows a `Seat` from the supervisor, which owns the mailbox and everything else that outlives it. Whatever it
ends with leaves `live` as an exception or not at all; turning that into an event is the supervisor's job.
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
from .errors import ActorCrashed, ActorStopped, ConfigError, Drill, Rejected, WrongMessage, text_of
from .mailbox import NOTHING, Mailbox, message_of
from .message import is_idempotent, key_of
from .records import Terminated
from .ref import SECONDS_MAX, Address, Ref, current_address
from .timer import Timer

__all__ = ["Drain", "Seat", "fail_askers", "live", "starts_at_once"]

Drain = Literal["all", "in_hand", "none"]

TIMER_MIN_S = 0.001


class Seat(ABC):
    """What a life borrows: its address and mailbox, and where requests to end it are left.

    To the actor it is its context; the abstract methods are the supervisor's.
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
        """Record a message that nobody will answer."""

    @abstractmethod
    def quarantine(self, message: Any, attempts: int) -> None:
        """Record a message that has crashed all of its attempts."""

    @abstractmethod
    def note_cleanup(self, error: str) -> None:
        """Record that `on_stop` failed."""

    @abstractmethod
    def ref(self, name: str) -> Ref:
        """Another actor of the tree."""

    @abstractmethod
    def follow(self, name: str) -> None:
        """Have `hear_of` called with one `Terminated` of that actor, unless this life ends before."""

    @abstractmethod
    def unfollow(self) -> None:
        """This life has ended and hears of nobody any more."""

    # -- what the actor sees of it, as its context

    @property
    def epoch(self) -> int:
        return self.address.epoch

    def stop(self, reason: str = "ended") -> None:
        self.stop_reason = reason
        self.mailbox.hurry()

    def after(self, seconds: float, message: Any) -> Timer:
        if not 0 <= seconds <= SECONDS_MAX:
            raise ConfigError("seconds", f"{seconds!r} is not a finite number >= 0")
        return self._timer(message, seconds, math.inf)

    def every(self, seconds: float, message: Any) -> Timer:
        if not TIMER_MIN_S <= seconds <= SECONDS_MAX:
            raise ConfigError("seconds", f"{seconds!r} is not a finite number >= {TIMER_MIN_S:g}")
        return self._timer(message, seconds, seconds)

    def watch(self, name: str) -> None:
        self._check_handled(Terminated)
        self.follow(name)

    def _timer(self, message: Any, after_s: float, every_s: float) -> Timer:
        self._check_handled(type(message))
        return Timer(self.mailbox, self.address.deadlines, self.timers, message, after_s, every_s)

    def _check_handled(self, message_type: type) -> None:
        if message_type not in self.handlers:
            raise WrongMessage(self.name, message_type.__qualname__)

    # -- what the supervisor does with it

    def hear_of(self, terminated: Terminated) -> None:
        if self.mailbox.closed is None:
            self.mailbox.put_own(Envelope.unasked(terminated))

    def crash(self, reason: str) -> None:
        """Let the life end with a `Drill` before its next message."""
        self.drill = reason
        self.mailbox.hurry()

    def clear(self) -> None:
        """For the next life. A drill nobody died of yet stays."""
        self.stop_reason = None
        self.drain = "in_hand"
        self.mailbox.urgent = True

    def end(self) -> None:
        """A life is over, and with it all that it had left for itself."""
        for timer in tuple(self.timers):
            timer.cancel()
        self.mailbox.forget_own()
        self.unfollow()


def starts_at_once(actor: Actor) -> bool:
    """Whether it has nothing to do before its first message."""
    return type(actor).on_start is Actor.on_start


async def live(seat: Seat, actor: Actor, ready: Callable[[], None]) -> None:
    """From a fresh instance to the end of its `on_stop`. Returns when it ended as it was asked to."""
    token = current_address.set(seat.address)
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
            current_address.reset(token)


async def _clean_up(seat: Seat, actor: Actor, reason: str) -> None:
    """`on_stop` within its deadline. What goes wrong is reported, and never hides what the life itself ended with."""
    try:
        with trio.CancelScope(
            shield=True, deadline=trio.current_time() + seat.on_stop_deadline_s
        ) as scope:
            await actor.on_stop(reason)
    except Exception as error:  # noqa: BLE001  reported
        seat.note_cleanup(text_of(error))
    else:
        if scope.cancelled_caught:
            seat.note_cleanup(f"on_stop took longer than {seat.on_stop_deadline_s:g} s")


async def _serve(seat: Seat, actor: Actor) -> None:
    """Handle messages until asked to end. The hot loop: one message is a few attribute look-ups and one call.

    Yields to the loop every few dozen messages, and whenever there is none.
    """
    mailbox, handlers = seat.mailbox, type(actor)._handlers
    queue = mailbox.queue
    task = trio.lowlevel.current_task()
    now = trio.lowlevel.current_clock().current_time
    while True:
        # The queue is deepest when others have just had their turn.
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
                if (
                    item.state == WAITING and item.deadline <= now()
                ):  # its time has passed while others held the loop
                    item.expire()
                if item.state >= GIVEN_UP:
                    mailbox.expired += 1
                    continue
                item.started = True
                message = item.message
            mailbox.hand = item
            try:
                function, is_async, batch_max = handlers[type(message)]
            except (
                KeyError
            ):  # a tell from before the first life, when the accepted types were not known yet
                mailbox.hand = NOTHING
                mailbox.done += 1
                _answer(seat, item, WrongMessage(seat.name, type(message).__qualname__))
                continue
            if batch_max:
                mailbox.hand_since = now()
                await _serve_run(seat, actor, item)
                mailbox.hand_since = math.inf
                break  # a run of messages is a turn
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
                _crash_in_hand(seat, crash)
                raise
            except BaseException:
                _interrupt_in_hand(seat)
                raise
            else:
                mailbox.hand = NOTHING
                mailbox.done += 1
                if item is message:
                    continue
                if item.state == WAITING and not isinstance(answer, Rejected):
                    item.settle(answer)
                else:
                    _answer(seat, item, answer)
        if queue or mailbox.urgent:
            await trio.lowlevel.checkpoint()
        else:
            mailbox.consumer = task
            item = message = answer = (
                None  # not kept for as long as nobody writes: they may be large
            )
            await trio.lowlevel.wait_task_rescheduled(mailbox.abort_park)


def _must_end(seat: Seat) -> bool:
    """Raises: `Drill`, when that is what was asked for."""
    mailbox = seat.mailbox
    if seat.drill is not None:
        why, seat.drill = seat.drill, None
        raise Drill(why)
    ending = seat.stop_reason is not None
    if ending and (seat.drain != "all" or not len(mailbox)):
        return True
    # Looked at again only as long as there is something to look at.
    mailbox.urgent = ending or bool(mailbox.own or mailbox.control)
    return False


async def _serve_run(seat: Seat, actor: Actor, first: Any) -> None:
    """A run of messages for one batch handler: from the hand to exactly one final state each."""
    mailbox, handlers = seat.mailbox, type(actor)._handlers
    handler = handlers[type(message_of(first))]
    mailbox.hand, mailbox.batch = NOTHING, [first]
    _take_followers(mailbox, handlers, handler, seat.address.deadlines.now())
    function, is_async, _ = handler
    try:
        answers = function(actor, [message_of(item) for item in mailbox.batch])
        if is_async:
            answers = await answers
        answers = list(answers)
        if len(answers) != len(mailbox.batch):
            raise RuntimeError(
                f"batch handler answered {len(answers)} of {len(mailbox.batch)} messages"
            )
    except Rejected as refusal:
        _finish(seat, [refusal] * len(mailbox.batch))
    except Exception as crash:
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
    """Into the hand: what follows in the queue for the same handler, up to its limit.

    What has crashed a life before goes alone: it must not take its neighbours with it again.
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
    """Tell the asker, if there is one and it still waits; a refusal of what nobody asked goes to the dead letters."""
    refused = isinstance(answer, Rejected | WrongMessage)
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


def _crash_in_hand(seat: Seat, crash: Exception) -> None:
    """The askers hear of it in the same tick, before any backoff; what may run twice waits for the next life.

    First every message has its place and its asker an answer, then it is told: whoever is told looks at books in order.
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
    for one in tell:
        one()


def _interrupt_in_hand(seat: Seat) -> None:
    """The life was cancelled. What may run twice waits for the next one, if there is to be one."""
    mailbox = seat.mailbox
    again: list[Envelope] = []
    lost: list[Any] = []
    reason = seat.stop_reason or "cancelled"
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
    """Who waits for what is in hand cannot know whether it ran."""
    mailbox = seat.mailbox
    for item in (*mailbox.batch, mailbox.hand):
        if _waited_for(item):
            item.fail(ActorStopped(seat.name, reason, outcome="unknown", key=key_of(item.message)))


def _waited_for(item: Any) -> bool:
    return type(item) is Envelope and item.state == WAITING


def _unasked(message: Any, attempts: int) -> Envelope:
    # A new envelope: the asker of the old one has its error there, and may not have read it yet.
    again = Envelope.unasked(message)
    again.attempts = attempts
    return again


def _put_back(mailbox: Mailbox, again: list[Envelope]) -> None:
    mailbox.retried += len(again)
    mailbox.put_back(again)
