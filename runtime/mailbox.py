"""The queue between senders and one actor. The supervisor owns it, so it outlives every crash.

It is a deque with park and unpark instead of a trio channel, for two reasons. A schedule point
costs ten times as much as the queue. And closing the last receiving end of a channel would wipe its
buffer at each restart. A told message stands in the queue by itself; one that was asked, retried or
conflated stands there in an `Envelope`.

Two lanes are read before the queue. The own lane holds messages of a life to itself (timers, the
ends of watched actors), which are dropped when that life ends. Messages in the control lane are
never dropped; a full control lane refuses new ones.

Counting: ``accepted = done + crashed + interrupted + expired + quarantined + undeliverable + queued
+ in_hand`` holds at every instant. Messages refused at sending were never accepted; they are
counted in `rejected`.
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

# Control messages are rare, so this bound only stops a sender that floods the lane.
CONTROL_CAPACITY = 1_024
CONFLATED = "conflated: a newer one came"

# The value of an empty hand. None would not do, since it can be a message.
NOTHING = object()


def message_of(item: Any) -> Any:
    """The message in an item of a mailbox, without its envelope."""
    return item.message if type(item) is Envelope else item


class Anything(Container[type]):
    """Contains every type of message, for an actor whose accepted types are not known yet."""

    def __contains__(self, _: object) -> bool:
        return True


class MailboxStatistics(msgspec.Struct, frozen=True):
    """The counters of one mailbox, in messages, since its actor was declared."""

    accepted: int  # the sum of the eight counters below
    done: int  # handled, which includes refused
    crashed: int  # in hand when the handler raised
    interrupted: int  # in hand when the life was cancelled
    expired: int  # the asker gave up, or the life ended, before the message was handled
    quarantined: int  # idempotent, and crashed each of its attempts
    undeliverable: int  # dropped, conflated, or queued when the actor stopped
    queued: int  # now waiting, in all lanes
    in_hand: int  # now being handled
    rejected: int  # refused at sending, so never accepted
    retried: int  # returned to the head of the queue for another life
    late_replies: int  # answers that came after their askers had given up
    depth_max: int  # the most messages that the queue has held
    blocked: int = 0  # refused, because the handler met the full mailbox of another actor


class Mailbox:
    """A bounded queue, first in first out for each sender. The capacity excludes messages in hand.

    The life takes messages from the lanes into `hand` or `batch`, with no await in between. From
    there each message goes to exactly one final state, or back to the head of the queue.
    """

    __slots__ = (
        "_conflate_by",
        "_lost",
        "_newest",
        "accepted",
        "accepts",
        "batch",
        "blocked",
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
        self.urgent = False  # another lane may have messages, or the life is asked to end
        self.hand: Any = NOTHING
        self.hand_since = math.inf  # trio time; kept only while a handler may await
        self.batch: list[Any] = []
        # Senders that wait for room, oldest first. They hand over in this order, so a sender's
        # messages stay in order. While there are any the queue is full, because taking a message
        # admits a sender in the same step.
        self.senders: OrderedDict[trio.lowlevel.Task, Any] = OrderedDict()
        self.done = self.crashed = self.interrupted = self.expired = self.quarantined = (
            self.undeliverable
        ) = 0
        self.accepted = self.rejected = self.retried = self.late_replies = self.blocked = 0
        self.depth_max = 0
        # Below this many queued messages a sender appends without further checks. It is zero for a
        # closed or conflating mailbox, which always needs them.
        self.limit = 0 if overflow == "conflate" else capacity
        self._lost = lost
        self._conflate_by = conflate_by
        self._newest: dict[Hashable, Envelope] = {}
        self.consumer: trio.lowlevel.Task | None = None  # parked until `wake`

    def __len__(self) -> int:
        return len(self.queue) + len(self.control) + len(self.own)

    def statistics(self) -> MailboxStatistics:
        """The counters at this instant."""
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
            blocked=self.blocked,
        )

    def note_depth(self) -> None:
        """Update `depth_max`. Called before messages are taken, when the queue is deepest."""
        if len(self.queue) > self.depth_max:
            self.depth_max = len(self.queue)

    # -- the senders' side

    @property
    def has_room(self) -> bool:
        """Whether `put_nowait` accepts a message without further checks."""
        return len(self.queue) < self.limit

    def put_nowait(self, item: Any) -> None:
        """Enqueue at once. Raises: `MailboxFull`; `ActorStopped`."""
        if len(self.queue) < self.limit or self._make_room(item):
            self.queue.append(item)
            self.accepted += 1
        if self.consumer is not None:
            self.wake()

    def _make_room(self, item: Any) -> bool:
        """Whether the caller still has to append the item, and count it.

        False when the item has taken the place of an older one. Raises: `MailboxFull`;
        `ActorStopped`.
        """
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
        """Give a told message the place of the queued one with its key, or a new place.

        False when the caller has to go on as for an ordinary message. An ask is never conflated,
        since its asker waits for an answer to this very message.
        """
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
        # Keys of messages that were handled long ago stay in the table until it is swept.
        if len(self._newest) >= 2 * self.capacity:
            self._newest = {k: queued for k, queued in self._newest.items() if not queued.started}
        self._newest[key] = place = Envelope.unasked(item)
        self.queue.append(place)
        self.accepted += 1
        return True

    async def put(self, item: Any) -> None:
        """Enqueue, waiting for room under backpressure. Cancelled means not enqueued.

        Raises: `MailboxFull`; `ActorStopped`.
        """
        if self.overflow != "backpressure" or self.has_room or self.closed is not None:
            self.put_nowait(item)
            # A schedule point, or a sender in a tight loop would keep the actor from making room.
            # Shielded, because the message is enqueued already and cancelled has to mean that it is
            # not.
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
        """Enqueue ahead of all ordinary messages. Raises: `MailboxFull`; `ActorStopped`."""
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
        """Enqueue a message of the present life to itself."""
        self.own.append(item)
        self.accepted += 1
        self.hurry()

    def forget_own(self) -> None:
        """Drop the own lane of a life that is over, whose timers mean nothing to the next life."""
        self.expired += len(self.own)
        self.own.clear()

    def put_back(self, items: list[Envelope]) -> None:
        """Return messages to the head of their lanes, in their order, for the next life."""
        control = [item for item in items if type(item.message) in self.controls]
        ordinary = [item for item in items if type(item.message) not in self.controls]
        self.control.extendleft(reversed(control))
        self.queue.extendleft(reversed(ordinary))
        self.urgent |= bool(control)
        self.note_depth()

    def hurry(self) -> None:
        """Let the life look at the other lanes and at requests to end before its next message."""
        self.urgent = True
        self.wake()

    def wake(self) -> None:
        """Resume a parked consumer: there is a message, or a request to end."""
        task = self.consumer
        if task is not None:
            self.consumer = None
            reschedule(task)

    def abort_park(self, _: object) -> trio.lowlevel.Abort:
        """Let a parked consumer be cancelled."""
        self.consumer = None
        return trio.lowlevel.Abort.SUCCEEDED

    def first_lane(self) -> deque[Any]:
        """The lane of the next message; an empty one when there is none."""
        return self.own or self.control or self.queue

    def admit_sender(self) -> None:
        """Take over the message of the oldest waiting sender, after a message was taken."""
        if len(self.queue) >= self.limit:
            return  # messages that were put back at the head have used up the room
        task, item = self.senders.popitem(last=False)
        self.accepted += 1
        self.queue.append(item)
        reschedule(task)

    # -- the end

    def refuse(self, reason: str) -> None:
        """Refuse new messages; those queued may still be handled. The first reason given stays."""
        self.closed = reason = self.closed or reason
        self.limit = 0
        while self.senders:
            task, _ = self.senders.popitem(last=False)
            # Passed as a value and raised by put(), so that its traceback starts there.
            reschedule(task, outcome.Value(ActorStopped(self.name, reason)))

    def close(self, reason: str) -> None:
        """Refuse new messages and give every queued one its final state."""
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
