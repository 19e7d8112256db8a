"""One life of an actor: an instance, its hooks, and the loop that serves its mailbox.

A life borrows a `Seat` from the supervisor, which owns the mailbox and everything else that outlives it. Whatever it
ends with leaves `live` as an exception or not at all; turning that into an event is the supervisor's job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import trio

from .actor import Actor, Handler
from .errors import ActorCrashed, ActorStopped, Drill, Rejected, WrongMessage
from .mailbox import NOTHING, Ask, Mailbox
from .ref import Address, Ref, current_address

__all__ = ["Drain", "Seat", "live"]

Drain = Literal["all", "in_hand", "none"]

# A life yields to the loop after this many messages: the schedule point costs ten times the dispatch.
MESSAGES_PER_SCHEDULE_POINT = 64
ON_STOP_DEADLINE_S = 5.0


class Seat:
    """What a life borrows: its address and mailbox, and where requests to end it are left."""

    def __init__(
        self,
        address: Address,
        find: Callable[[str], Ref],
        bury: Callable[[str, Any, str], None],
        note_error: Callable[[Exception], None],
    ) -> None:
        self.name = address.name
        self.address = address
        self.mailbox: Mailbox = address.mailbox
        self.drill: str | None = None
        self.stop_reason: str | None = None
        self.drain: Drain = "in_hand"
        self.interrupted = False  # whether one of the three above wants to be looked at
        self.bury = bury
        self.note_error = note_error
        self._find = find

    # -- what the actor sees of it, as its context

    @property
    def epoch(self) -> int:
        return self.address.epoch

    def ref(self, name: str) -> Ref:
        return self._find(name)

    def stop(self, reason: str = "ended") -> None:
        self.stop_reason = reason
        self.interrupt()

    # -- what the supervisor does with it

    def crash(self, reason: str) -> None:
        """Let the life end with a `Drill` before its next message."""
        self.drill = reason
        self.interrupt()

    def interrupt(self) -> None:
        self.interrupted = True
        self.mailbox.wake()

    def clear(self) -> None:
        """For the next life. A drill nobody died of yet stays."""
        self.stop_reason = None
        self.drain = "in_hand"
        self.interrupted = self.drill is not None


async def live(seat: Seat, factory: Callable[[], Actor], ready: Callable[[], None]) -> None:
    """From a fresh instance to the end of its `on_stop`. Returns when it ended as it was asked to."""
    token = current_address.set(seat.address)
    actor = factory()
    actor.context = seat
    seat.mailbox.accepts = type(actor)._handlers.keys()
    reason = "crashed"
    try:
        await actor.on_start()
        ready()
        await _serve(seat, actor)
        reason = seat.stop_reason or "ended"
    except trio.Cancelled:
        reason = seat.stop_reason or "cancelled"
        raise
    finally:
        try:
            with trio.CancelScope(shield=True), trio.move_on_after(ON_STOP_DEADLINE_S):
                await actor.on_stop(reason)
        except Exception as error:  # noqa: BLE001  reported, and never in place of what the life itself ended with
            seat.note_error(error)
        current_address.reset(token)


async def _serve(seat: Seat, actor: Actor) -> None:
    """Handle messages until asked to end. The hot loop: one message is a few attribute look-ups and one call.

    Yields to the loop every few dozen messages, and whenever there is none.
    """
    mailbox, handlers = seat.mailbox, type(actor)._handlers
    queue = mailbox.queue
    while True:
        left = MESSAGES_PER_SCHEDULE_POINT
        while left:
            if seat.interrupted and _must_end(seat):
                return
            if not queue:
                break
            left -= 1
            if len(queue) > mailbox.depth_max:  # deepest just before something is taken: the senders need not look
                mailbox.depth_max = len(queue)
            item = queue.popleft()
            if mailbox.senders:
                mailbox.admit_sender()
            if type(item) is Ask:
                if item.abandoned:
                    mailbox.expired += 1
                    continue
                item.in_hand = True
                message = item.message
            else:
                message = item
            mailbox.hand = item
            handler = handlers.get(type(message))
            if handler is None or handler.batch_max:
                await _serve_run(seat, actor, handler, item)
                continue
            try:
                answer = handler.function(actor, message)
                if handler.is_async:
                    answer = await answer
            except Rejected as refusal:
                answer = refusal
            except Exception as crash:
                _fail_in_hand(seat, crash)
                raise
            except BaseException:
                _interrupt_in_hand(seat)
                raise
            mailbox.hand = NOTHING
            mailbox.done += 1
            if item is not message or (answer is not None and isinstance(answer, Rejected)):
                _answer(seat, item, answer)
        if queue:
            await trio.lowlevel.checkpoint()
        elif seat.stop_reason is None:
            await mailbox.park()


def _must_end(seat: Seat) -> bool:
    """Raises: `Drill`, when that is what was asked for."""
    if seat.drill is not None:
        why, seat.drill = seat.drill, None
        raise Drill(why)
    return seat.stop_reason is not None and (seat.drain != "all" or not seat.mailbox.queue)


async def _serve_run(seat: Seat, actor: Actor, handler: Handler | None, first: Any) -> None:
    """A run of messages for one batch handler: from the hand to exactly one final state each."""
    mailbox = seat.mailbox
    mailbox.hand, mailbox.batch = NOTHING, [first]
    if handler is None:  # a tell sent before the first life, when the accepted types were not known yet
        _finish(seat, [WrongMessage(seat.name, type(_message_of(first)).__qualname__)])
        return
    _take_followers(mailbox, type(actor)._handlers, handler)
    try:
        answers = handler.function(actor, [_message_of(item) for item in mailbox.batch])
        if handler.is_async:
            answers = await answers
        if len(answers) != len(mailbox.batch):
            raise RuntimeError(f"batch handler answered {len(answers)} of {len(mailbox.batch)} messages")
    except Rejected as refusal:
        _finish(seat, [refusal] * len(mailbox.batch))
    except Exception as crash:
        _fail_in_hand(seat, crash)
        raise
    except BaseException:
        _interrupt_in_hand(seat)
        raise
    else:
        _finish(seat, answers)


def _take_followers(mailbox: Mailbox, handlers: Any, handler: Handler) -> None:
    """Into the hand: what follows in the queue for the same handler, up to its limit."""
    queue, batch = mailbox.queue, mailbox.batch
    while queue and len(batch) < handler.batch_max:
        item = queue[0]
        if type(item) is Ask and item.abandoned:
            mailbox.expired += 1
        elif handlers.get(type(_message_of(item))) is handler:
            if type(item) is Ask:
                item.in_hand = True
            batch.append(item)
        else:
            return
        queue.popleft()
        if mailbox.senders:
            mailbox.admit_sender()


def _message_of(item: Any) -> Any:
    return item.message if type(item) is Ask else item


# -- final states


def _finish(seat: Seat, answers: Sequence[Any]) -> None:
    mailbox = seat.mailbox
    items, mailbox.batch = mailbox.batch, []
    mailbox.done += len(items)
    for item, answer in zip(items, answers, strict=True):
        _answer(seat, item, answer)


def _answer(seat: Seat, item: Any, answer: Any) -> None:
    """Tell the asker, if there is one and it still waits; a refusal of what was told goes to the dead letters."""
    refused = isinstance(answer, Rejected | WrongMessage)
    if type(item) is not Ask:
        if refused:
            seat.bury(seat.name, item, f"refused: {answer}")
    elif item.abandoned:
        seat.mailbox.late_replies += 1
    elif refused:
        item.fail(answer)
    else:
        item.settle(answer)


def _empty_hands(mailbox: Mailbox) -> list[Any]:
    items = mailbox.batch if mailbox.hand is NOTHING else [mailbox.hand]
    mailbox.hand, mailbox.batch = NOTHING, []
    return items


def _fail_in_hand(seat: Seat, crash: Exception) -> None:
    """The askers hear of it in the same tick, before any backoff."""
    items = _empty_hands(seat.mailbox)
    seat.mailbox.crashed += len(items)
    for item in items:
        seat.bury(seat.name, _message_of(item), f"crashed: {type(crash).__name__}")
        if type(item) is Ask and not item.abandoned:
            error = ActorCrashed(seat.name, seat.epoch, type(item.message).__qualname__)
            error.__cause__ = crash
            item.fail(error)


def _interrupt_in_hand(seat: Seat) -> None:
    items = _empty_hands(seat.mailbox)
    seat.mailbox.interrupted += len(items)
    reason = seat.stop_reason or "cancelled"
    for item in items:
        seat.bury(seat.name, _message_of(item), f"interrupted: {reason}")
        if type(item) is Ask and not item.abandoned:
            item.fail(ActorStopped(seat.name, reason, outcome="unknown"))
