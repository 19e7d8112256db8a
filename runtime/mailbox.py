"""The queue between senders and one actor. The supervisor owns it, so it outlives every crash of the actor.

A deque with park and unpark instead of a trio channel: a schedule point costs ten times what the queue does, and
closing the last receiving end of a channel would wipe its buffer at each restart.

Counting: ``accepted = done + crashed + interrupted + expired + undeliverable + queued + in_hand`` holds at every
instant. Messages refused at the door were never accepted; they are counted in `rejected`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import outcome
import trio

from .errors import ActorError, ActorStopped, MailboxFull

__all__ = ["Envelope", "Mailbox", "MailboxStatistics", "Overflow", "Reply"]

Overflow = Literal["backpressure", "reject", "drop_oldest"]


class Reply:
    """Where one asker waits for one answer; settled at most once, and deaf once abandoned."""

    __slots__ = ("_error", "_task", "_value", "abandoned", "settled")

    def __init__(self) -> None:
        self.settled = False
        self.abandoned = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._task: trio.lowlevel.Task | None = None

    def settle(self, value: Any) -> None:
        self.settled, self._value = True, value
        self._wake()

    def fail(self, error: BaseException) -> None:
        self.settled, self._error = True, error
        self._wake()

    def _wake(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    async def wait(self) -> Any:
        if not self.settled:
            self._task = trio.lowlevel.current_task()

            def abort(_: object) -> trio.lowlevel.Abort:
                # From this instant, and not from when the asker next runs: an answer in between is a late one.
                self._task, self.abandoned = None, True
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # the traceback would keep this frame alive in a cycle
        return self._value


class Envelope:
    """A message on its way: what is said, who waits for the answer, until when."""

    __slots__ = ("deadline", "in_hand", "message", "reply")

    def __init__(self, message: Any, reply: Reply | None = None, deadline: float = float("inf")) -> None:
        self.message = message
        self.reply = reply
        self.deadline = deadline
        self.in_hand = False


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


class Mailbox:
    """Bounded, FIFO per sender. Capacity counts queued messages, not the one in hand."""

    def __init__(self, name: str, capacity: int, overflow: Overflow, lost: Callable[[Envelope, str], None]) -> None:
        self.name = name
        self.capacity = capacity
        self.overflow = overflow
        self.closed: str | None = None
        self.in_hand: list[Envelope] = []
        self.done = self.crashed = self.interrupted = self.expired = self.undeliverable = 0
        self.accepted = self.rejected = self.late_replies = self.depth_max = 0
        self._lost = lost
        self._queue: deque[Envelope] = deque()
        # Senders that wait for room, oldest first. They hand over in this order, so a sender's messages stay in order.
        self._senders: OrderedDict[trio.lowlevel.Task, Envelope] = OrderedDict()
        self._consumer: trio.lowlevel.Task | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def statistics(self) -> MailboxStatistics:
        return MailboxStatistics(
            accepted=self.accepted,
            done=self.done,
            crashed=self.crashed,
            interrupted=self.interrupted,
            expired=self.expired,
            undeliverable=self.undeliverable,
            queued=len(self._queue),
            in_hand=len(self.in_hand),
            rejected=self.rejected,
            late_replies=self.late_replies,
            depth_max=self.depth_max,
        )

    # -- the senders' side

    def put_nowait(self, envelope: Envelope) -> None:
        """Enqueue at once, or raise `MailboxFull` or `ActorStopped`."""
        if self.closed is not None:
            raise ActorStopped(self.name, self.closed)
        if len(self._queue) >= self.capacity or self._senders:
            if self.overflow != "drop_oldest":
                self.rejected += 1
                raise MailboxFull(self.name, self.capacity)
            self._undeliverable(self._queue.popleft(), "dropped: mailbox full", MailboxFull(self.name, self.capacity))
        self._accept(envelope)

    async def put(self, envelope: Envelope) -> None:
        """Enqueue, waiting for room under backpressure. Cancelled means not enqueued.

        With room this is no schedule point: it would cost ten times the enqueueing, and a sender that never rests
        still yields whenever the mailbox fills up.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        full = len(self._queue) >= self.capacity or bool(self._senders)
        if self.closed is not None or not full or self.overflow != "backpressure":
            self.put_nowait(envelope)
            return
        task = trio.lowlevel.current_task()
        self._senders[task] = envelope

        def abort(_: object) -> trio.lowlevel.Abort:
            del self._senders[task]
            return trio.lowlevel.Abort.SUCCEEDED

        refused: ActorStopped | None = await trio.lowlevel.wait_task_rescheduled(abort)
        if refused is not None:
            raise refused

    def _accept(self, envelope: Envelope) -> None:
        self.accepted += 1
        self._queue.append(envelope)
        self.depth_max = max(self.depth_max, len(self._queue))
        self.wake()

    # -- the actor's side

    def wake(self) -> None:
        """Let a parked consumer look again: there is mail, or a request to stop."""
        if self._consumer is not None:
            task, self._consumer = self._consumer, None
            trio.lowlevel.reschedule(task)

    async def park(self) -> None:
        """Sleep until `wake`. The caller has just seen that nothing is there, with no await in between."""
        self._consumer = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._consumer = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def take(self) -> Envelope | None:
        """Move the next live message into the hand, with no await between queue and hand."""
        envelope = self.peek()
        if envelope is not None:
            self._queue.popleft()
            self._admit_sender()
            envelope.in_hand = True
            self.in_hand.append(envelope)
        return envelope

    def peek(self) -> Envelope | None:
        """The next live message; those whose askers have given up are passed over and never run."""
        while self._queue:
            envelope = self._queue[0]
            if envelope.reply is None or not envelope.reply.abandoned:
                return envelope
            self._queue.popleft()
            self._admit_sender()
            self.expired += 1
        return None

    def _admit_sender(self) -> None:
        if self._senders:
            task, envelope = self._senders.popitem(last=False)
            self._accept(envelope)
            trio.lowlevel.reschedule(task)

    # -- the end

    def refuse(self, reason: str) -> None:
        """Take no further mail; what is queued may still be worked off. The first reason given stays."""
        self.closed = reason = self.closed or reason
        while self._senders:
            task, _ = self._senders.popitem(last=False)
            # wait_task_rescheduled returns what the outcome unwraps to: a value, so that put() raises it itself.
            trio.lowlevel.reschedule(task, outcome.Value(ActorStopped(self.name, reason)))

    def close(self, reason: str) -> None:
        """Refuse all further mail and give everything queued its final state."""
        self.refuse(reason)
        while self._queue:
            self._undeliverable(self._queue.popleft(), reason, ActorStopped(self.name, reason))

    def _undeliverable(self, envelope: Envelope, reason: str, error: ActorError) -> None:
        if envelope.reply is not None and envelope.reply.abandoned:
            self.expired += 1
            return
        self.undeliverable += 1
        if envelope.reply is not None:
            envelope.reply.fail(error)
        self._lost(envelope, reason)
