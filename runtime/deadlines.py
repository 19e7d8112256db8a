"""Everything of a supervision tree that waits for a time, kept by one task instead of one cancel scope each.

Most asks are answered long before their deadline, and most carry one of a few timeouts. So there is one lane for each
timeout: deadlines in it only grow, answered asks are dropped from its head as new ones arrive, and a lane stays as
short as what is really open. Timers, and asks that inherited an earlier deadline from their caller, go into a heap.
The task sleeps until the earliest time it has seen; an ask that is answered in time costs it nothing.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from itertools import count
from typing import Protocol

import trio

from .envelope import WAITING, Envelope

__all__ = ["Deadlines", "Due"]

SWEEP_MIN = 64
LANES_MAX = 64


class Due(Protocol):
    """Waits for its deadline as long as its state is WAITING."""

    deadline: float  # trio time
    state: int

    def expire(self) -> None:
        """The deadline has come. Must not raise."""


class _Lane(deque[Envelope]):
    """Asks of one timeout, in the order of their deadlines."""

    sweep_at = SWEEP_MIN

    def sweep(self) -> None:
        """Forget those nobody waits for; again when there are twice as many as are left."""
        waiting = [ask for ask in self if ask.state == WAITING]
        self.clear()
        self.extend(waiting)
        self.sweep_at = max(SWEEP_MIN, 2 * len(waiting))


class Deadlines:
    """`add` what waits; `run` expires it if its deadline comes first."""

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
            if len(self._lanes) >= LANES_MAX:  # a host that gives each ask a timeout of its own
                self.add_at(ask)
                return
            lane = self._lanes[timeout_s] = _Lane()
        while lane and lane[0].state != WAITING:
            lane.popleft()
        lane.append(ask)
        if len(lane) >= lane.sweep_at:  # behind one that is open for long
            lane.sweep()
        if ask.deadline < self._wake_at:
            self._wake_earlier(ask.deadline)

    def add_at(self, due: Due) -> None:
        """Watch what has a deadline of its own."""
        heap = self._heap
        if len(heap) >= self._sweep_at:  # those no longer waited for lie anywhere in it
            self._heap = heap = [entry for entry in heap if entry[2].state == WAITING]
            heapq.heapify(heap)
            self._sweep_at = max(SWEEP_MIN, 2 * len(heap))
        heapq.heappush(heap, (due.deadline, next(self._order), due))
        if due.deadline < self._wake_at:
            self._wake_earlier(due.deadline)

    def _wake_earlier(self, at: float) -> None:
        self._wake_at = at
        self._sleep.deadline = at

    async def run(self) -> None:
        """Until `stop`: also while the tree comes down, as that has its deadlines too."""
        self.now = trio.lowlevel.current_clock().current_time  # the same, without the way there
        while not self._over:
            # A scope can be entered once, and add() may have moved the deadline of this one meanwhile.
            self._sleep.deadline = self._wake_at
            with self._sleep:
                await trio.sleep_forever()
            self._sleep = trio.CancelScope(shield=True)
            self._expire_due()

    def stop(self) -> None:
        self._over = True
        self._sleep.cancel()

    def _expire_due(self) -> None:
        now = trio.current_time()
        for timeout_s, lane in list(self._lanes.items()):
            while lane and (lane[0].state != WAITING or lane[0].deadline <= now):
                lane.popleft().expire()
            if not lane:
                del self._lanes[timeout_s]  # a host may use any number of different timeouts
        # What is due now may add itself again, for later.
        while self._heap and (self._heap[0][2].state != WAITING or self._heap[0][0] <= now):
            due = heapq.heappop(self._heap)[2]
            if due.state == WAITING:
                due.expire()
        earliest = min((lane[0].deadline for lane in self._lanes.values()), default=math.inf)
        self._wake_at = min(earliest, self._heap[0][0]) if self._heap else earliest
