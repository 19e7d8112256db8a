"""The deadlines of a whole supervision tree, kept by one task.

A cancel scope for each ask would cost about 3 us more. Most asks are answered long before their
deadline, and most carry one of a few timeouts. So there is one lane for each timeout: its deadlines
only grow, answered asks are dropped from its head as new ones arrive, and it stays about as long as
the number of open asks. Timers, and asks that inherited an earlier deadline from their caller, go
into a heap. The task sleeps until the earliest deadline it has seen; an ask that is answered in
time never wakes it. Times are trio's, in seconds.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from itertools import count
from typing import Protocol

import trio

from .envelope import WAITING, Envelope
from .interrupts import undisturbed

__all__ = ["Deadlines", "Due"]

# A lane or heap below this length is not worth a sweep.
SWEEP_MIN = 64
# Every wake-up looks at each lane, so their number is bounded for a host that varies its timeouts.
LANES_MAX = 64


class Due(Protocol):
    """An object with a deadline, which matters as long as its state is WAITING."""

    deadline: float  # trio time
    state: int

    def expire(self) -> None:
        """Called once the deadline has come. Must not raise."""
        ...


class _Lane(deque[Envelope]):
    """Asks of one timeout, in the order of their deadlines."""

    sweep_at = SWEEP_MIN

    def sweep(self) -> None:
        """Drop the asks that are no longer open.

        The next sweep follows when the lane has doubled, so the cost per ask stays constant.
        """
        waiting = [ask for ask in self if ask.state == WAITING]
        self.clear()
        self.extend(waiting)
        self.sweep_at = max(SWEEP_MIN, 2 * len(waiting))


class Deadlines:
    """Keeps the deadlines given to `add` and `add_at`; `run` expires those still open in time."""

    def __init__(self) -> None:
        self._lanes: dict[float, _Lane] = {}
        self._heap: list[tuple[float, int, Due]] = []
        self._sweep_at = SWEEP_MIN
        self._order = count()
        self.now = trio.current_time
        self._wake_at = math.inf
        self._sleep = trio.CancelScope(shield=True)
        self._over = False

    def add(self, ask: Envelope, timeout_s: float) -> None:
        """Watch an ask whose deadline is `timeout_s` from now."""
        lane = self._lanes.get(timeout_s)
        if lane is None:
            if len(self._lanes) >= LANES_MAX:
                self.add_at(ask)
                return
            lane = self._lanes[timeout_s] = _Lane()
        while lane and lane[0].state != WAITING:
            lane.popleft()
        lane.append(ask)
        if len(lane) >= lane.sweep_at:
            # Answered asks have gathered behind one that stays open for long.
            lane.sweep()
        if ask.deadline < self._wake_at:
            self._wake_earlier(ask.deadline)

    def add_at(self, due: Due) -> None:
        """Watch an object by the deadline that it names itself."""
        heap = self._heap
        if len(heap) >= self._sweep_at:
            # Entries that are no longer open may be anywhere in a heap.
            self._heap = heap = [entry for entry in heap if entry[2].state == WAITING]
            heapq.heapify(heap)
            self._sweep_at = max(SWEEP_MIN, 2 * len(heap))
        heapq.heappush(heap, (due.deadline, next(self._order), due))
        if due.deadline < self._wake_at:
            self._wake_earlier(due.deadline)

    def _wake_earlier(self, at: float) -> None:
        self._wake_at = at
        self._sleep.deadline = at

    @undisturbed
    async def run(self) -> None:
        """Expire deadlines until `stop`, also while the tree itself is stopping."""
        self.now = (
            trio.lowlevel.current_clock().current_time
        )  # the same, without a look-up per call
        while not self._over:
            # A scope can be entered only once, so each sleep has a new one. `add` may have found an
            # earlier deadline before it is entered.
            self._sleep.deadline = self._wake_at
            with self._sleep:
                await trio.sleep_forever()
            self._sleep = trio.CancelScope(shield=True)
            self._expire_due()

    def stop(self) -> None:
        """End `run`."""
        self._over = True
        self._sleep.cancel()

    def _expire_due(self) -> None:
        now = trio.current_time()
        for timeout_s, lane in list(self._lanes.items()):
            while lane and (lane[0].state != WAITING or lane[0].deadline <= now):
                lane.popleft().expire()
            if not lane:
                del self._lanes[timeout_s]  # makes room for another timeout
        # An entry that expires may add itself again with a later deadline.
        while self._heap and (self._heap[0][2].state != WAITING or self._heap[0][0] <= now):
            due = heapq.heappop(self._heap)[2]
            if due.state == WAITING:
                due.expire()
        earliest = min((lane[0].deadline for lane in self._lanes.values()), default=math.inf)
        self._wake_at = min(earliest, self._heap[0][0]) if self._heap else earliest
