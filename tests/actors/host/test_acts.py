"""The acts on single strategies, their restarts, keep_alive, and mode observe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing

from fundops import VirtualClock
from fundops.actors.host import Host, each
from fundops.actors.host.places import CutOff
from fundops.testing import FakeController
from fundops.wire.errors import HostFault, HostLate
from fundops.wire.guard import KillStatus
from fundops.wire.recovery import AttemptEnded, AttemptLate
from tests.actors.host.conftest import RUNNING, Clock, HandPlace, make_world


async def test_an_act_that_is_late_is_not_repeated_before_it_comes_back(
    autojump_clock: Clock,
) -> None:
    async with make_world() as world:
        with pytest.raises(HostLate, match=r"controller\.pause: did not answer within 1 s"):
            await world.host.acts.pause("a", "why")
        begun = trio.current_time()
        with pytest.raises(HostLate, match="has not come back"):
            await world.host.acts.pause("a", "why")
        assert trio.current_time() == begun, "refused at once"
        assert world.place.made == ["pause"]
        await world.place.come_back("pause")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.host.acts.pause, "a", "why")
            await world.place.come_back("pause")
        assert world.place.made == ["pause", "pause"]
        assert world.host.late() == {}


async def test_two_acts_of_one_part_may_be_in_flight_in_time(autojump_clock: Clock) -> None:
    async with make_world() as world, trio.open_nursery() as nursery:
        nursery.start_soon(world.host.acts.stop, "a", "why")
        nursery.start_soon(world.host.acts.stop, "b", "why")
        await world.place.come_back("stop")
        await world.place.come_back("stop")
        assert sorted(world.engine.calls) == [("stop", "a", "why"), ("stop", "b", "why")]


async def test_mode_observe_makes_no_act_and_tells_each_once() -> None:
    class Engine(FakeController):
        async def keep_alive(self, until_us: int) -> None:
            self._called("keep_alive", until_us)

    engine = Engine(RUNNING)
    async with trio.open_nursery() as nursery:
        host = Host(engine, nursery, clock=VirtualClock(1_000_000), observing=True)
        told = list[AttemptEnded | AttemptLate]()
        for _ in range(2):
            await host.acts.pause("a", "r")
            await host.acts.resume("a")
            await host.acts.stop("a", "r")
            await host.acts.set_stage("a", "paper", None)
            host.acts.start_keep_alive(7)
            assert not host.stopping.start_stop_all("r", "halt", ("a",), lambda _: None)
            host.stopping.note_silence("silent")
            host.acts.start_restart("a", "1", told.append)
            await host.acts.idle()
        assert engine.calls == []
        withheld = [(act.part, act.strategy, act.call) for act in host.acts.take_withheld()]
        assert withheld == [
            ("pause", "a", "pause('a', 'r')"),
            ("resume", "a", "resume('a')"),
            ("stop", "a", "stop('a', 'r')"),
            ("set_stage", "a", "set_stage('a', 'paper', None)"),
            ("keep_alive", "", "keep_alive()"),
            ("stop_all", "", "stop_all('r', 'halt', ('a',))"),
            ("emergency_stop", "", "emergency_stop()"),
            ("restart", "a", "restart('a')"),
        ]
        assert [ended.error for ended in told if isinstance(ended, AttemptEnded)] == [
            "HostFault: controller.restart: is not called in mode observe"
        ] * 2
        await host.acts.pause("a", "r")
        assert host.acts.take_withheld() == ()


async def test_acts_are_done_in_order_and_a_fault_stops_no_other(autojump_clock: Clock) -> None:
    done: list[str] = []

    async def act(name: str) -> None:
        done.append(name)
        if name == "b":
            raise HostFault("pause", "raised")

    with pytest.raises(HostFault, match="raised"):
        await each(act, [("a",), ("b",), ("c",)])
    assert done == ["a", "b", "c"]


async def test_a_part_that_hangs_costs_many_acts_two_seconds(autojump_clock: Clock) -> None:
    class Engine(FakeController):
        async def pause(self, name: str, reason: str) -> None:
            if name != "z":
                await trio.sleep_forever()
            await super().pause(name, reason)

    async with make_world(Engine(), inline=True) as world:
        begun = trio.current_time()
        with pytest.raises(HostLate):
            await each(world.host.acts.pause, [(name, "") for name in "abcdefgz"])
        assert trio.current_time() - begun == pytest.approx(2, abs=0.1)
        assert world.engine.calls == [("pause", "z", "")]


async def test_one_strategy_is_never_told_twice_at_once_to_stop(autojump_clock: Clock) -> None:
    async with make_world() as world:
        for _ in range(3):
            world.host.acts.start_stop("a", "r")
            world.host.acts.start_stop("b", "r")
            await trio.testing.wait_all_tasks_blocked()
        assert world.place.made == ["stop", "stop"]
        for _ in range(2):  # in any order
            await world.place.come_back("stop")
        world.host.acts.start_stop("a", "r")
        await trio.testing.wait_all_tasks_blocked()
        assert world.place.made == ["stop"] * 3


async def test_a_call_that_the_place_cut_off_is_late(autojump_clock: Clock) -> None:
    class Cutting(HandPlace):
        async def _wait(self, part: str, call: Callable[[], Any]) -> Any:
            raise CutOff

    async with trio.open_nursery() as nursery:
        host = Host(FakeController(), nursery, place=Cutting())
        with pytest.raises(HostLate, match="did not answer within 1 s"):
            await host.acts.pause("a", "")
        assert host.late() == {"pause": "did not answer within 1 s"}


# -- restarts


async def test_a_restart_that_is_late_goes_on_and_holds_up_no_other_strategy(
    autojump_clock: Clock,
) -> None:
    async with make_world() as world:
        told: list[Any] = []
        world.host.acts.start_restart("a", "1", told.append)
        await trio.sleep(31)
        assert told == [AttemptLate("a", "1")]
        assert world.host.late() == {}, "recovery tells it itself"
        world.host.acts.start_restart("b", "2", told.append)
        await world.place.come_back("restart", 1)
        await world.place.come_back("restart")
        assert told[1:] == [AttemptEnded("b", "2", None, True), AttemptEnded("a", "1", None, True)]
        await world.host.acts.idle()


@pytest.mark.parametrize("act", ["restart", "resume"])
@pytest.mark.parametrize(("spared", "refused"), [((), True), (("a",), False)])
async def test_under_the_kill_switch_nothing_is_restarted_or_resumed_in_its_scope(
    act: str, spared: Sequence[str], refused: bool
) -> None:
    async with make_world(inline=True) as world:
        errors = list[object]()
        world.host.acts.latch.spared = frozenset(spared)
        world.host.acts.latch.set(KillStatus("ENGAGED", "r", "ann", 0, action="halt"))
        if act == "restart":
            world.host.acts.start_restart(
                "a", "1", lambda told: errors.append(getattr(told, "error", "late"))
            )
            await world.host.acts.idle()
        else:
            try:
                errors.append(await world.host.acts.resume("a"))  # type: ignore[func-returns-value]
            except HostFault as fault:
                errors.append(fault)
        (error,) = errors
        assert (error is not None, world.engine.calls == []) == (refused, refused)


@pytest.mark.parametrize("act", ["restart", "resume"])
@pytest.mark.parametrize(("spared", "stops"), [((), 1), (("a",), 0), (("b",), 1)])
async def test_what_returns_under_the_kill_switch_is_stopped_in_its_scope_alone(
    autojump_clock: Clock, act: str, spared: Sequence[str], stops: int
) -> None:
    async with make_world() as world, trio.open_nursery() as nursery:
        host = world.host

        async def resume() -> None:
            with suppress(HostFault):
                await host.acts.resume("a")

        if act == "restart":
            host.acts.start_restart("a", "1", lambda _: None)
        else:
            nursery.start_soon(resume)
        await trio.testing.wait_all_tasks_blocked()
        host.acts.latch.spared = frozenset(spared)
        host.acts.latch.set(KillStatus("ENGAGED", "r", "ann", 0, action="halt"))
        await world.place.come_back(act)
        assert world.place.made == [act, *["stop"] * stops]
        nursery.cancel_scope.cancel()


async def test_the_error_of_a_restart_is_that_of_the_engine(autojump_clock: Clock) -> None:
    async with make_world() as world:
        told: list[Any] = []
        world.engine.failures["restart"] = ValueError("bad key")
        world.host.acts.start_restart("a", "1", told.append)
        await world.place.come_back("restart")
        assert told == [AttemptEnded("a", "1", "ValueError: bad key", True)]


# -- keep_alive


async def test_keep_alive_is_never_called_twice_at_once(
    autojump_clock: Clock,
) -> None:
    class Slow(FakeController):
        began = 0

        async def keep_alive(self, until_us: int) -> None:
            self.began += 1
            await trio.sleep(0.5)
            self.alive_until_us = until_us

    engine = Slow()
    async with make_world(engine, inline=True) as world:
        world.host.acts.start_keep_alive(7)
        await trio.testing.wait_all_tasks_blocked()
        world.host.acts.start_keep_alive(8)
        await trio.sleep(0.6)
        assert (engine.began, engine.alive_until_us) == (1, 7)
        world.host.acts.start_keep_alive(9)
        await trio.sleep(0.6)
        assert engine.alive_until_us == 9


@pytest.mark.parametrize("is_plain", [True, False])
async def test_a_keep_alive_that_raises_stops_nothing_and_is_named(is_plain: bool) -> None:
    class Plain(FakeController):
        def keep_alive(self, until_us: int) -> None:  # type: ignore[override]
            if "keep_alive" in self.failures:
                raise self.failures["keep_alive"]
            self.alive_until_us = until_us

    engine = Plain() if is_plain else FakeController()
    engine.failures["keep_alive"] = RuntimeError("no")
    async with make_world(engine, inline=True) as world:
        assert world.host.acts.failing() == {}
        for _ in range(2):
            world.host.acts.start_keep_alive(7)
            await trio.testing.wait_all_tasks_blocked()
            assert world.host.acts.failing() == {"keep_alive": "raised RuntimeError: no"}
        del engine.failures["keep_alive"]
        world.host.acts.start_keep_alive(8)
        await trio.testing.wait_all_tasks_blocked()
        assert (engine.alive_until_us, world.host.acts.failing()) == (8, {})


async def test_a_keep_alive_past_its_deadline_is_late_and_has_not_failed(
    autojump_clock: Clock,
) -> None:
    class Hung(FakeController):
        async def keep_alive(self, until_us: int) -> None:
            await trio.sleep_forever()

    async with make_world(Hung(), inline=True) as world:
        world.host.acts.start_keep_alive(7)
        await trio.sleep(1.2)
        assert world.host.late() == {"keep_alive": "did not answer within 1 s"}
        assert world.host.acts.failing() == {}
