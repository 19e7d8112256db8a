"""The queue between senders and one actor. The supervisor owns it, so it outlives every crash of the actor.

A deque with park and unpark instead of a trio channel: a schedule point costs ten times what the queue does, and
closing the last receiving end of a channel would wipe its buffer at each restart. What is told stands in the queue by
itself; what is asked stands there as an `Ask`, which knows who waits for the answer and until when.

Counting: ``accepted = done + crashed + interrupted + expired + undeliverable + queued + in_hand`` holds at every
instant. Messages refused at the door were never accepted; they are counted in `rejected`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from typing import Any, Literal

import msgspec
import outcome
import trio

from .errors import ActorError, ActorStopped, MailboxFull

__all__ = ["NOTHING", "Anything", "Ask", "Mailbox", "MailboxStatistics", "Overflow"]

Overflow = Literal["backpressure", "reject", "drop_oldest"]


class Ask:
    """A request and the one who waits for its answer. Settled at most once, and deaf once abandoned."""

    __slots__ = ("_error", "_task", "_value", "abandoned", "deadline", "expired", "in_hand", "message", "settled")

    def __init__(self, message: Any, deadline: float) -> None:
        self.message = message
        self.deadline = deadline  # trio time
        self.in_hand = False
        self.settled = False
        self.abandoned = False  # the asker is gone: if still queued it will never run
        self.expired = False  # the deadline passed first
        self._value: Any = None
        self._error: BaseException | None = None
        self._task: trio.lowlevel.Task | None = None

    def settle(self, value: Any) -> None:
        self.settled, self._value = True, value
        self._wake()

    def fail(self, error: BaseException) -> None:
        self.settled, self._error = True, error
        self._wake()

    def expire(self) -> None:
        """The deadline has passed: an answer from this instant on is a late one."""
        if not self.settled and not self.abandoned:
            self.abandoned = self.expired = True
            self._wake()

    def _wake(self) -> None:
        task = self._task
        if task is not None:
            self._task = None
            trio.lowlevel.reschedule(task)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        # From this instant, and not from when the asker next runs: an answer in between is a late one.
        self._task, self.abandoned = None, True
        return trio.lowlevel.Abort.SUCCEEDED

    async def wait(self) -> Any:
        """The answer. The caller looks at `expired` first: then there is none."""
        if not self.settled and not self.expired:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # the traceback would keep this frame alive in a cycle
        return self._value


class Anything(Collection[type]):
    """Accepts every type of message: what an actor accepts before its first life has told."""

    def __contains__(self, _: object) -> bool:
        return True

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


class MailboxStatistics(msgspec.Struct, frozen=True):
    """Counters since the actor was declared; `depth_max` is the deepest the queue has been."""

    accepted: int
    done: int
    crashed: int
    interrupted: int
    expired: int
    undeliverable: int
    queued: int
    in_hand: int
    rejected: int
    late_replies: int
    depth_max: int


# What the hand holds when it holds no message; None could be one.
NOTHING = object()


class Mailbox:
    """Bounded, FIFO per sender. Capacity counts queued messages, not those in hand.

    `queue`, `hand` and `batch` are the life's to work on; a message moves from the queue into the hand with no await
    in between, and leaves it for exactly one final state.
    """

    def __init__(self, name: str, capacity: int, overflow: Overflow, lost: Callable[[Any, str], None]) -> None:
        self.name = name
        self.capacity = capacity
        self.overflow = overflow
        self.accepts: Collection[type] = Anything()
        self.thread = threading.get_ident()
        self.closed: str | None = None
        self.queue: deque[Any] = deque()
        self.hand: Any = NOTHING
        self.batch: list[Any] = []
        # Senders that wait for room, oldest first. They hand over in this order, so a sender's messages stay in order.
        self.senders: OrderedDict[trio.lowlevel.Task, Any] = OrderedDict()
        self.done = self.crashed = self.interrupted = self.expired = self.undeliverable = 0
        self.accepted = self.rejected = self.late_replies = 0
        self.depth_max = 0
        self._lost = lost
        self._consumer: trio.lowlevel.Task | None = None

    def __len__(self) -> int:
        return len(self.queue)

    def statistics(self) -> MailboxStatistics:
        self.note_depth()
        return MailboxStatistics(
            accepted=self.accepted,
            done=self.done,
            crashed=self.crashed,
            interrupted=self.interrupted,
            expired=self.expired,
            undeliverable=self.undeliverable,
            queued=len(self.queue),
            in_hand=len(self.batch) + (self.hand is not NOTHING),
            rejected=self.rejected,
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
        return self.closed is None and len(self.queue) < self.capacity and not self.senders

    def put_nowait(self, item: Any) -> None:
        """Enqueue at once, or raise `MailboxFull` or `ActorStopped`."""
        queue = self.queue
        if self.closed is not None or len(queue) >= self.capacity or self.senders:
            self._make_room()
        self.accepted += 1
        queue.append(item)
        if self._consumer is not None:
            self.wake()

    def _make_room(self) -> None:
        if self.closed is not None:
            raise ActorStopped(self.name, self.closed)
        if self.overflow != "drop_oldest":
            self.rejected += 1
            raise MailboxFull(self.name, self.capacity)
        self.note_depth()
        self._undeliverable(self.queue.popleft(), "dropped: mailbox full", MailboxFull(self.name, self.capacity))

    async def put(self, item: Any) -> None:
        """Enqueue, waiting for room under backpressure. Cancelled means not enqueued."""
        if self.has_room or self.closed is not None or self.overflow != "backpressure":
            self.put_nowait(item)
            return
        task = trio.lowlevel.current_task()
        self.senders[task] = item

        def abort(_: object) -> trio.lowlevel.Abort:
            del self.senders[task]
            return trio.lowlevel.Abort.SUCCEEDED

        refused: ActorStopped | None = await trio.lowlevel.wait_task_rescheduled(abort)
        if refused is not None:
            raise refused

    # -- the actor's side

    def wake(self) -> None:
        """Let a parked consumer look again: there is mail, or a request to stop."""
        task = self._consumer
        if task is not None:
            self._consumer = None
            trio.lowlevel.reschedule(task)

    async def park(self) -> None:
        """Sleep until `wake`. The caller has just seen that nothing is there, with no await in between."""
        self._consumer = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort_park)

    def _abort_park(self, _: object) -> trio.lowlevel.Abort:
        self._consumer = None
        return trio.lowlevel.Abort.SUCCEEDED

    def admit_sender(self) -> None:
        """One has been taken: the oldest waiting sender hands its message over."""
        task, item = self.senders.popitem(last=False)
        self.accepted += 1
        self.queue.append(item)
        trio.lowlevel.reschedule(task)

    # -- the end

    def refuse(self, reason: str) -> None:
        """Take no further mail; what is queued may still be worked off. The first reason given stays."""
        self.closed = reason = self.closed or reason
        while self.senders:
            task, _ = self.senders.popitem(last=False)
            # wait_task_rescheduled returns what the outcome unwraps to: a value, so that put() raises it itself.
            trio.lowlevel.reschedule(task, outcome.Value(ActorStopped(self.name, reason)))

    def close(self, reason: str) -> None:
        """Refuse all further mail and give everything queued its final state."""
        self.refuse(reason)
        self.note_depth()
        while self.queue:
            self._undeliverable(self.queue.popleft(), reason, ActorStopped(self.name, reason))

    def _undeliverable(self, item: Any, reason: str, error: ActorError) -> None:
        asked = type(item) is Ask
        if asked and item.abandoned:
            self.expired += 1
            return
        self.undeliverable += 1
        if asked:
            item.fail(error)
        self._lost(item.message if asked else item, reason)
