"""The queue between senders and one actor. The supervisor owns it, so it outlives every crash of the actor.

A deque with park and unpark instead of a trio channel: a schedule point costs ten times what the queue does, and
closing the last receiving end of a channel would wipe its buffer at each restart. What is told stands in the queue by
itself; what is asked, retried or conflated stands there in an `Envelope`.

Two lanes go first. What a life has left for itself (timers, news of those it watches) ends with that life. Control
messages are never dropped; their lane is bounded by refusing.

Counting: ``accepted = done + crashed + interrupted + expired + quarantined + undeliverable + queued + in_hand`` holds
at every instant. Messages refused at the door were never accepted; they are counted in `rejected`.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Container, Hashable
from typing import Any, Literal

import msgspec
import outcome
import trio
from trio.lowlevel import reschedule

from .envelope import GIVEN_UP, Envelope
from .errors import ActorError, ActorStopped, MailboxFull

__all__ = ["NOTHING", "Anything", "Mailbox", "MailboxStatistics", "Overflow", "message_of"]

Overflow = Literal["backpressure", "reject", "drop_oldest", "conflate"]

CONTROL_CAPACITY = 1_024
CONFLATED = "conflated: a newer one came"

# What the hand holds when it holds no message; None could be one.
NOTHING = object()


def message_of(item: Any) -> Any:
    """What the handler gets of an item in a mailbox."""
    return item.message if type(item) is Envelope else item


class Anything(Container[type]):
    """Accepts every type of message: what an actor accepts before its first life has told."""

    def __contains__(self, _: object) -> bool:
        return True


class MailboxStatistics(msgspec.Struct, frozen=True):
    """Counters since the actor was declared; `depth_max` is the deepest the queue has been."""

    accepted: int
    done: int
    crashed: int
    interrupted: int
    expired: int
    quarantined: int
    undeliverable: int
    queued: int
    in_hand: int
    rejected: int
    retried: int
    late_replies: int
    depth_max: int


class Mailbox:
    """Bounded, FIFO per sender. Capacity counts queued messages, not those in hand.

    The lanes, `hand` and `batch` are the life's to work on; a message moves from a lane into the hand with no await in
    between, and leaves it for exactly one final state, or for the head of the queue.
    """

    __slots__ = (
        "_conflate_by",
        "_lost",
        "_newest",
        "accepted",
        "accepts",
        "batch",
        "capacity",
        "closed",
        "consumer",
        "control",
        "controls",
        "crashed",
        "depth_max",
        "done",
        "expired",
        "hand",
        "hand_since",
        "interrupted",
        "late_replies",
        "limit",
        "name",
        "overflow",
        "own",
        "quarantined",
        "queue",
        "rejected",
        "retried",
        "senders",
        "thread",
        "undeliverable",
        "urgent",
    )

    def __init__(
        self,
        name: str,
        capacity: int,
        overflow: Overflow,
        lost: Callable[[Any, str], None],
        conflate_by: Callable[[Any], Hashable] | None = None,
    ) -> None:
        self.name = name
        self.capacity = capacity
        self.overflow = overflow
        self.accepts: Container[type] = Anything()
        self.controls: Container[type] = ()
        self.thread = threading.get_ident()
        self.closed: str | None = None
        self.queue: deque[Any] = deque()
        self.control: deque[Any] = deque()
        self.own: deque[Envelope] = deque()
        self.urgent = False  # a lane that goes first may have mail, or the life is asked to end
        self.hand: Any = NOTHING
        self.hand_since = (
            math.inf
        )  # trio time; only kept for what may stay in hand over a schedule point
        self.batch: list[Any] = []
        # Senders that wait for room, oldest first. They hand over in this order, so a sender's messages stay in order.
        # Whenever there are any the queue is full: who makes room admits one in the same step.
        self.senders: OrderedDict[trio.lowlevel.Task, Any] = OrderedDict()
        self.done = self.crashed = self.interrupted = self.expired = self.quarantined = (
            self.undeliverable
        ) = 0
        self.accepted = self.rejected = self.retried = self.late_replies = 0
        self.depth_max = 0
        # Up to this many queued messages a sender need not think; closed and conflating mailboxes always do.
        self.limit = 0 if overflow == "conflate" else capacity
        self._lost = lost
        self._conflate_by = conflate_by
        self._newest: dict[Hashable, Envelope] = {}
        self.consumer: trio.lowlevel.Task | None = None  # parked until `wake`

    def __len__(self) -> int:
        return len(self.queue) + len(self.control) + len(self.own)

    def statistics(self) -> MailboxStatistics:
        self.note_depth()
        return MailboxStatistics(
            accepted=self.accepted,
            done=self.done,
            crashed=self.crashed,
            interrupted=self.interrupted,
            expired=self.expired,
            quarantined=self.quarantined,
            undeliverable=self.undeliverable,
            queued=len(self),
            in_hand=len(self.batch) + (self.hand is not NOTHING),
            rejected=self.rejected,
            retried=self.retried,
            late_replies=self.late_replies,
            depth_max=self.depth_max,
        )

    def note_depth(self) -> None:
        """The queue is deepest just before something is taken from it, so whoever takes or reads notes it."""
        if len(self.queue) > self.depth_max:
            self.depth_max = len(self.queue)

    # -- the senders' side

    @property
    def has_room(self) -> bool:
        """Whether `put_nowait` takes anything at once, with no second thought."""
        return len(self.queue) < self.limit

    def put_nowait(self, item: Any) -> None:
        """Enqueue at once, or raise `MailboxFull` or `ActorStopped`."""
        if len(self.queue) < self.limit or self._make_room(item):
            self.queue.append(item)
            self.accepted += 1
        if self.consumer is not None:
            self.wake()

    def _make_room(self, item: Any) -> bool:
        """Whether the item is still to be appended, and counted; it may have taken the place of an older one."""
        if self.closed is not None:
            raise ActorStopped(self.name, self.closed)
        if self.overflow == "conflate" and self._conflate(item):
            return False
        if len(self.queue) < self.capacity:
            return True
        if self.overflow != "drop_oldest":
            self.rejected += 1
            raise MailboxFull(self.name, self.capacity)
        self.note_depth()
        self._undeliverable(
            self.queue.popleft(), "dropped: mailbox full", MailboxFull(self.name, self.capacity)
        )
        return True

    def _conflate(self, item: Any) -> bool:
        """Put a message in the place of the queued one with its key; what is asked stands for itself."""
        if type(item) is Envelope:
            return False
        assert self._conflate_by is not None
        key = self._conflate_by(item)
        if key is None:
            return False
        place = self._newest.get(key)
        if place is not None and not place.started and place.state < GIVEN_UP:
            older, place.message = place.message, item
            self.accepted += 1
            self.undeliverable += 1
            self._lost(older, CONFLATED)
            return True
        if len(self.queue) >= self.capacity:
            return False
        if (
            len(self._newest) >= 2 * self.capacity
        ):  # keys come and go; only those still queued matter
            self._newest = {k: one for k, one in self._newest.items() if not one.started}
        self._newest[key] = place = Envelope.unasked(item)
        self.queue.append(place)
        self.accepted += 1
        return True

    async def put(self, item: Any) -> None:
        """Enqueue, waiting for room under backpressure. Cancelled means not enqueued."""
        if self.overflow != "backpressure" or self.has_room or self.closed is not None:
            self.put_nowait(item)
            # Or a sender that never rests would keep the actor from ever making room. It is in: too late to cancel.
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        task = trio.lowlevel.current_task()
        self.senders[task] = item

        def abort(_: object) -> trio.lowlevel.Abort:
            del self.senders[task]
            return trio.lowlevel.Abort.SUCCEEDED

        refused: ActorStopped | None = await trio.lowlevel.wait_task_rescheduled(abort)
        if refused is not None:
            raise refused

    def put_control(self, item: Any) -> None:
        """Enqueue ahead of all ordinary mail, or raise `MailboxFull` or `ActorStopped`."""
        if self.closed is not None:
            raise ActorStopped(self.name, self.closed)
        if len(self.control) >= CONTROL_CAPACITY:
            self.rejected += 1
            raise MailboxFull(self.name, CONTROL_CAPACITY)
        self.control.append(item)
        self.accepted += 1
        self.hurry()

    # -- the actor's side

    def put_own(self, item: Envelope) -> None:
        """What the present life has left for itself."""
        self.own.append(item)
        self.accepted += 1
        self.hurry()

    def forget_own(self) -> None:
        """The life is over: its timers mean nothing to the next one."""
        self.expired += len(self.own)
        self.own.clear()

    def put_back(self, items: list[Envelope]) -> None:
        """To the head of where they came from, in their order, for the next life."""
        control = [one for one in items if type(one.message) in self.controls]
        self.control.extendleft(reversed(control))
        self.queue.extendleft(
            one for one in reversed(items) if type(one.message) not in self.controls
        )
        self.urgent |= bool(control)
        self.note_depth()

    def hurry(self) -> None:
        self.urgent = True
        self.wake()

    def wake(self) -> None:
        """Let a parked consumer look again: there is mail, or a request to stop."""
        task = self.consumer
        if task is not None:
            self.consumer = None
            reschedule(task)

    def abort_park(self, _: object) -> trio.lowlevel.Abort:
        self.consumer = None
        return trio.lowlevel.Abort.SUCCEEDED

    def first_lane(self) -> deque[Any]:
        """Where the next message is taken from; empty when there is none."""
        return self.own or self.control or self.queue

    def admit_sender(self) -> None:
        """One has been taken: the oldest waiting sender hands its message over."""
        if len(self.queue) >= self.limit:
            return  # what was put back at the head has used the room up
        task, item = self.senders.popitem(last=False)
        self.accepted += 1
        self.queue.append(item)
        reschedule(task)

    # -- the end

    def refuse(self, reason: str) -> None:
        """Take no further mail; what is queued may still be worked off. The first reason given stays."""
        self.closed = reason = self.closed or reason
        self.limit = 0
        while self.senders:
            task, _ = self.senders.popitem(last=False)
            # wait_task_rescheduled returns what the outcome unwraps to: a value, so that put() raises it itself.
            reschedule(task, outcome.Value(ActorStopped(self.name, reason)))

    def close(self, reason: str) -> None:
        """Refuse all further mail and give everything queued its final state."""
        self.refuse(reason)
        self.note_depth()
        for lane in (self.own, self.control, self.queue):
            while lane:
                self._undeliverable(lane.popleft(), reason, ActorStopped(self.name, reason))

    def _undeliverable(self, item: Any, reason: str, error: ActorError) -> None:
        asked = type(item) is Envelope
        if asked and item.state >= GIVEN_UP:
            self.expired += 1
            return
        self.undeliverable += 1
        if asked:
            item.fail(error)
        self._lost(item.message if asked else item, reason)
