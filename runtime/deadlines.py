"""The deadlines of all asks of a supervision tree, kept by one task instead of one cancel scope each.

Most asks are answered long before their deadline, and most carry one of a few timeouts. So there is one lane for each
timeout: deadlines in it only grow, answered asks are dropped from its head as new ones arrive, and a lane stays as
short as what is really open. Asks that inherited an earlier deadline from their caller go into a heap. The task sleeps
until the earliest deadline it has seen; an ask that is answered in time costs it nothing.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from itertools import count

import trio

from .mailbox import Ask

__all__ = ["Deadlines"]


class Deadlines:
    """`add` an ask; `run` expires it if its deadline passes first."""

    def __init__(self) -> None:
        self._lanes: dict[float, deque[Ask]] = {}
        self._inherited: list[tuple[float, int, Ask]] = []
        self._order = count()
        self._wake_at = math.inf
        self._sleep = trio.CancelScope()
        self._over = False

    def add(self, ask: Ask, timeout_s: float) -> None:
        """Watch an ask whose deadline is `timeout_s` from now."""
        lane = self._lanes.get(timeout_s)
        if lane is None:
            lane = self._lanes[timeout_s] = deque()
        while lane and (lane[0].settled or lane[0].abandoned):
            lane.popleft()
        lane.append(ask)
        if ask.deadline < self._wake_at:
            self._wake_earlier(ask.deadline)

    def add_inherited(self, ask: Ask) -> None:
        """Watch an ask whose deadline is its caller's."""
        heap = self._inherited
        while heap and (heap[0][2].settled or heap[0][2].abandoned):
            heapq.heappop(heap)
        heapq.heappush(heap, (ask.deadline, next(self._order), ask))
        if ask.deadline < self._wake_at:
            self._wake_earlier(ask.deadline)

    def _wake_earlier(self, at: float) -> None:
        self._wake_at = at
        self._sleep.deadline = at

    async def run(self) -> None:
        """Until `stop`, or cancelled."""
        while not self._over:
            # A scope can be entered once, and add() may have moved the deadline of this one meanwhile.
            self._sleep.deadline = self._wake_at
            with self._sleep:
                await trio.sleep_forever()
            self._sleep = trio.CancelScope()
            self._expire_due()

    def stop(self) -> None:
        self._over = True
        self._sleep.cancel()

    def _expire_due(self) -> None:
        now = trio.current_time()
        earliest = math.inf
        for timeout_s, lane in list(self._lanes.items()):
            while lane and (lane[0].settled or lane[0].deadline <= now):
                lane.popleft().expire()
            if lane:
                earliest = min(earliest, lane[0].deadline)
            else:
                del self._lanes[timeout_s]  # a host may use any number of different timeouts
        heap = self._inherited
        while heap and (heap[0][2].settled or heap[0][0] <= now):
            heapq.heappop(heap)[2].expire()
        if heap:
            earliest = min(earliest, heap[0][0])
        self._wake_at = earliest
