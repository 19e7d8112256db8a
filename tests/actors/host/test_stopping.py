"""Stopping all trading: stop_all, and emergency_stop for a host that does not react."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from fundops.actors.guard import KillLatch
from fundops.actors.host import Host, emergency
from fundops.actors.host.places import InlinePlace
from fundops.testing import FakeController
from fundops.wire.controller import StopReport
from fundops.wire.errors import HostLate
from fundops.wire.guard import KillStatus, StopEnded
from tests.actors.host.conftest import Clock, World, join_emergency_stops, make_world, settle

ENGAGED = KillStatus("ENGAGED", "r", "ann", 1)
OFF = KillStatus("OFF", "", "", None)


def _stops(world: World) -> tuple[list[StopEnded], Callable[[], bool]]:
    told: list[StopEnded] = []
    return told, lambda: world.host.stopping.start_stop_all("why", "halt", ("a",), told.append)


async def test_a_stop_is_never_called_twice_at_once(autojump_clock: Clock) -> None:
    async with make_world() as world:
        told, begin = _stops(world)
        assert begin()
        assert not begin()
        await world.place.come_back("stop_all")
        assert [ended.report for ended in told] == [StopReport(0, 0)]
        assert begin()


async def test_a_plain_stop_counts_as_any_other(autojump_clock: Clock) -> None:
    class Engine(FakeController):
        def stop_all(self, reason: str, action: str, strategies: Sequence[str]) -> StopReport:  # type: ignore[override]
            return StopReport(0, 0)

    async with make_world(Engine(), inline=True) as world:
        told, begin = _stops(world)
        assert begin()
        await trio.testing.wait_all_tasks_blocked()
        assert [ended.report for ended in told] == [StopReport(0, 0)]


async def test_a_stop_that_hangs_is_called_again_and_leaves_four_behind(
    autojump_clock: Clock,
) -> None:
    async with make_world() as world:
        told, begin = _stops(world)
        for number in range(4):
            assert begin(), number
            await trio.sleep(11)
        assert [ended.problem for ended in told] == [
            "controller.stop_all: did not answer within 10 s"
        ] * 4
        assert not begin(), "four are left behind"
        assert world.host.late() == {}, "the kill switch tells it itself"
        await world.place.come_back("stop_all", 2)
        assert told[-1].report == StopReport(0, 0), "a late report counts"
        assert begin()


async def test_a_late_stop_that_fails_is_no_news(autojump_clock: Clock) -> None:
    async with make_world() as world:
        told, begin = _stops(world)
        assert begin()
        await trio.sleep(11)
        world.engine.failures["stop_all"] = RuntimeError("no")
        await world.place.come_back("stop_all")
        assert len(told) == 1


async def test_a_stop_is_not_held_up_by_other_parts(autojump_clock: Clock) -> None:
    async with make_world() as world:
        world.host.ask()
        for call in (world.host.acts.pause("a", ""), world.host.acts.stop("a", "")):
            with pytest.raises(HostLate):
                await call
        told, begin = _stops(world)
        assert begin()
        await world.place.come_back("stop_all")
        assert [ended.report for ended in told] == [StopReport(0, 0)]


async def test_the_end_of_a_fund_waits_for_a_stop_for_its_deadline_alone(
    autojump_clock: Clock,
) -> None:
    async with make_world() as world:
        _, begin = _stops(world)
        begin()
        begun = trio.current_time()
        with trio.CancelScope() as scope:
            scope.cancel()  # as the fund's nursery is, when the fund fails
            await world.host.stopping.finish()
        assert 9 < trio.current_time() - begun <= 11


# -- emergency_stop


class Hanging(FakeController):
    """Its pause hangs."""

    async def pause(self, name: str, reason: str) -> None:
        await trio.sleep_forever()


class Deaf(FakeController):
    """Its stop_all hangs."""

    async def stop_all(self, *args: Any) -> Any:
        await trio.sleep_forever()


@asynccontextmanager
async def _host(engine: Any, **settings: Any) -> AsyncIterator[Host]:
    async with trio.open_nursery() as nursery:
        host = Host(engine, nursery, latch=KillLatch(), **settings)
        yield host
        host.acts.latch.set(OFF)
        host.stopping.watch()  # ends the thread that watches the loop
        nursery.cancel_scope.cancel()


def _emergency_stops(engine: FakeController) -> int:
    return [call[0] for call in engine.calls].count("emergency_stop")


async def test_a_call_past_its_deadline_counts_only_under_the_latch(
    autojump_clock: Clock,
) -> None:
    engine = Hanging()
    async with _host(engine) as host:
        with pytest.raises(HostLate):
            await host.acts.pause("a", "r")
        host.stopping.watch()
        assert _emergency_stops(engine) == 0
        host.acts.latch.set(ENGAGED)
        host.stopping.watch()
        assert settle(lambda: _emergency_stops(engine) == 1)
        host.stopping.watch()
        assert _emergency_stops(engine) == 1, "once, while the host does not react"


async def test_a_stop_all_past_its_deadline_is_an_emergency(
    autojump_clock: Clock,
) -> None:
    engine = Deaf()
    async with _host(engine) as host:
        host.acts.latch.set(ENGAGED)
        host.stopping.start_stop_all("r", "halt", ("a",), lambda _: None)
        await trio.sleep(9)
        host.stopping.watch()
        assert _emergency_stops(engine) == 0
        await trio.sleep(2)
        host.stopping.watch()
        assert settle(lambda: _emergency_stops(engine) == 1)


async def test_under_freeze_nothing_is_an_emergency(
    autojump_clock: Clock,
) -> None:
    engine = Deaf()
    async with _host(engine) as host:
        host.acts.latch.set(msgspec.structs.replace(ENGAGED, action="freeze"))
        host.stopping.start_stop_all("r", "freeze", ("a",), lambda _: None)
        await trio.sleep(11)
        host.stopping.watch()
        host.stopping.note_silence("silent for 60 s")
        assert _emergency_stops(engine) == 0
        host.acts.latch.set(ENGAGED)
        host.stopping.note_silence("silent for 60 s")
        assert settle(lambda: _emergency_stops(engine) == 1)


async def test_a_blocked_loop_is_an_emergency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emergency, "LOOP_TURN_S", 0.02)
    engine = FakeController()
    async with _host(engine, watch_loop=True) as host:
        host.acts.latch.set(ENGAGED)
        host.stopping.watch()
        assert settle(lambda: _emergency_stops(engine) == 1), "this test blocks its loop here"


class Loop(InlinePlace):
    """The loop of a host, which turns when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = False
        self._asked: list[Callable[[], None]] = []

    def turn(self, own: trio.lowlevel.TrioToken) -> Callable[[Callable[[], None]], object]:
        return self._turn

    def _turn(self, call: Callable[[], None]) -> None:
        self._asked.append(call)
        self.go_on()

    def go_on(self) -> None:
        while self.turns and self._asked:
            self._asked.pop()()


async def test_all_signs_of_a_host_that_does_not_react_are_one_emergency(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    monkeypatch.setattr(emergency, "LOOP_TURN_S", 0.02)
    engine = Deaf()
    async with _host(engine, watch_loop=True, place=Loop()) as host:
        host.acts.latch.set(ENGAGED)
        host.stopping.watch()
        assert settle(lambda: _emergency_stops(engine) == 1)
        host.stopping.start_stop_all("r", "halt", ("a",), lambda _: None)
        await trio.sleep(11)
        host.stopping.watch()
        host.stopping.note_silence("silent for 60 s")
        join_emergency_stops()
        host.stopping._on_stuck_loop()
        host.stopping.watch()
        join_emergency_stops()
        assert _emergency_stops(engine) == 1


async def test_a_host_that_reacted_in_between_is_in_a_new_emergency(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(emergency, "LOOP_TURN_S", 0.02)
    engine, loop = FakeController(), Loop()
    async with _host(engine, watch_loop=True, place=loop) as host:
        host.acts.latch.set(ENGAGED)
        host.stopping.watch()
        assert settle(lambda: _emergency_stops(engine) == 1)
        loop.turns = True
        loop.go_on()
        assert settle(lambda: not host.stopping._is_loop_stuck)
        host.stopping.watch()
        loop.turns = False
        assert settle(lambda: _emergency_stops(engine) == 2)


async def test_a_silence_that_ends_and_comes_again_is_a_new_emergency() -> None:
    engine = FakeController()
    async with _host(engine) as host:
        host.stopping.note_silence("silent for 60 s")
        assert settle(lambda: _emergency_stops(engine) == 1)
        host.stopping.note_silence("silent for 61 s")
        host.stopping.watch()
        join_emergency_stops()
        assert _emergency_stops(engine) == 1
        host.stopping.note_silence("")
        host.stopping.note_silence("silent for 60 s")
        assert settle(lambda: _emergency_stops(engine) == 2)


async def test_without_the_latch_it_is_called_when_it_is_asked_for() -> None:
    engine = FakeController()
    async with _host(engine) as host:
        host.stopping.note_silence("silent for 60 s")
        assert settle(lambda: _emergency_stops(engine) == 1)


async def test_mode_observe_calls_it_in_no_case(autojump_clock: Clock) -> None:
    engine = FakeController()
    async with _host(engine, observing=True) as host:
        host.acts.latch.set(ENGAGED)
        host.stopping.watch()
        host.stopping.note_silence("silent for 60 s")
        assert [act.part for act in host.acts.take_withheld()] == ["emergency_stop"]
        assert _emergency_stops(engine) == 0
