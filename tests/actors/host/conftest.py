"""The host port in virtual time, with a place whose calls end when the test says so."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from fundops import StrategyStatus, VirtualClock
from fundops.actors.host import Host
from fundops.testing import FakeController

Clock = trio.testing.MockClock

RUNNING = StrategyStatus("a", "running")


@pytest.fixture(autouse=True)
def _no_call_outlives_its_test() -> Iterator[None]:
    yield
    join_emergency_stops()


def join_emergency_stops() -> None:
    """Wait until the calls of `emergency_stop` that have begun are over."""
    for thread in threading.enumerate():
        if thread.name == "fundops-emergency-stop":
            thread.join(5)


class HandPlace:
    """A place in which calls wait until `come_back`. They cannot be cut off, as in a thread."""

    settle_s = 0.0

    def turn(self, own: trio.lowlevel.TrioToken) -> None:
        """No loop to watch."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, Callable[[], Any], trio.Event]] = []
        self.made: list[str] = []

    def __call__(self, part: str, call: Callable[[], Any], cut_after_s: float) -> Any:
        self.made.append(part)
        return self._wait(part, call)

    async def _wait(self, part: str, call: Callable[[], Any]) -> Any:
        go_on = trio.Event()
        self.waiting.append((part, call, go_on))
        await go_on.wait()
        answer = call()
        return await answer if hasattr(answer, "__await__") else answer

    async def come_back(self, part: str, nth: int = 0) -> None:
        """Let the oldest call of this part, or a later one, answer."""
        await trio.testing.wait_all_tasks_blocked()
        found = [waiting for waiting in self.waiting if waiting[0] == part][nth]
        self.waiting.remove(found)
        found[2].set()
        await trio.testing.wait_all_tasks_blocked()


class World:
    def __init__(self, nursery: trio.Nursery, engine: Any, place: Any) -> None:
        self.engine, self.place, self.clock = engine, place, VirtualClock(1_000_000)
        self.host = Host(engine, nursery, clock=self.clock, place=place)


@asynccontextmanager
async def make_world(engine: Any = None, *, inline: bool = False) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        place = None if inline else HandPlace()
        yield World(nursery, engine or FakeController(RUNNING), place)
        nursery.cancel_scope.cancel()


def settle(condition: Callable[[], bool]) -> bool:
    """Wait for a condition that a thread makes true; False: it stays false for a second."""
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.002)
    return False
