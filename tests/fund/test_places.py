"""A fund whose controller is called in each of the three places: on the fund's trio loop, on the
host's asyncio loop, and in worker threads.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from fundops import Fill, Fund, FundConfig, FundManager, KillStatus, StrategyStatus, VirtualClock
from fundops.actors.host import AsyncioPlace
from fundops.bridge import Bridge
from fundops.runtime import ConfigError
from fundops.testing import START_US, FakeController, virtual_fund
from fundops.wire.controller import StopReport

SOON_S = 10.0
RUNNING = StrategyStatus("a", "running")
WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO", default="")
HALT = {"reason": "test", "by": "ann"}


class AsyncioWorld:
    """A fund in a trio thread beside a running asyncio loop, as an asyncio host has it."""

    def __init__(self, bridge: Bridge[Fund], clock: VirtualClock) -> None:
        self._bridge = bridge
        self.clock = clock

    async def call(self, function: Callable[[Fund], Awaitable[Any]]) -> Any:
        return await asyncio.to_thread(self._bridge.call, function)

    async def until(self, done: Callable[[Any], bool], function: Callable[[Fund], Any]) -> Any:
        """Tick until an answer of the fund is as it must be."""
        end_s = time.monotonic() + SOON_S
        while True:
            await self.call(lambda fund: fund.tick())
            answer = await self.call(function)
            if done(answer) or time.monotonic() > end_s:
                return answer
            await asyncio.sleep(0.005)


def _in_asyncio(
    path: Path, engine: Any, test: Callable[[AsyncioWorld], Awaitable[None]], **settings: Any
) -> None:
    """Run the test in an asyncio loop, whose fund calls the engine in that loop."""

    async def main() -> None:
        place, clock = AsyncioPlace(asyncio.get_running_loop()), VirtualClock(START_US)
        config = _config(path, **settings)
        bridge = Bridge(lambda: Fund.open(config, engine, clock=clock, place=place))
        await asyncio.to_thread(bridge.start)
        try:
            await test(AsyncioWorld(bridge, clock))
        finally:
            await asyncio.to_thread(bridge.stop, SOON_S)

    asyncio.run(asyncio.wait_for(main(), 3 * SOON_S))


def _config(path: Path, **settings: Any) -> FundConfig:
    defaults = {
        "total_capital": 100_000,
        "tick_interval_s": None,
        "db_path": path / "fund.db",
        "control_socket": False,
    }
    return FundConfig(**{**defaults, **settings})


@contextmanager
def _manager(path: Path, engine: Any, **settings: Any) -> Iterator[FundManager]:
    clock = VirtualClock(START_US)
    with FundManager(_config(path, **settings), engine, clock=clock) as fund:
        yield fund


def _tick_until(fund: FundManager, done: Callable[[], bool]) -> None:
    end_s = time.monotonic() + SOON_S
    while True:
        fund.tick()
        if done():
            return
        assert time.monotonic() < end_s
        time.sleep(0.005)


class OnAsyncio:
    """Every part a coroutine of asyncio that really waits; `loops` are those it ran on."""

    def __init__(self) -> None:
        self.status = RUNNING
        self.loops: set[Any] = set()
        self.calls: list[str] = []

    async def _called(self, part: str) -> None:
        await asyncio.sleep(0)
        self.calls.append(part)
        self.loops.add(asyncio.get_running_loop())

    async def strategies(self) -> list[StrategyStatus]:
        await self._called("strategies")
        return [self.status]

    async def fills(self, after: str) -> list[Fill]:
        await self._called("fills")
        one = Decimal(1)
        fills = [
            Fill(str(n), "a", "X", one, one, Decimal(0), START_US, str(n)) for n in range(1, 8)
        ]
        # Two at a time, so that the cursor has to move.
        return fills[int(after or 0) :][:2]

    async def stop_all(self, reason: str, action: str, strategies: Sequence[str]) -> StopReport:
        await self._called("stop_all")
        return StopReport(0, 0)


class Hung(FakeController):
    """A stop that never comes back."""

    def __init__(self) -> None:
        super().__init__(RUNNING)
        self.begun = threading.Event()

    async def stop_all(self, reason: str, action: str, strategies: Sequence[str]) -> StopReport:
        self.begun.set()
        if trio.lowlevel.in_trio_run():
            await trio.sleep_forever()
        await asyncio.sleep(3600)
        raise AssertionError


# -- the kill switch does not wait for a stop that hangs


async def test_engage_answers_at_once_though_the_stop_hangs_on_trio(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with virtual_fund(Hung()) as world:
        begun = trio.current_time()
        status = await world.fund.kill_switch.engage(**HALT)
        assert (status.state, trio.current_time() - begun) == ("ENGAGING", 0)


def test_engage_answers_at_once_though_the_stop_hangs_on_asyncio(tmp_path: Path) -> None:
    async def test(world: AsyncioWorld) -> None:
        begun_s = time.monotonic()
        status = await world.call(lambda fund: fund.kill_switch.engage(**HALT))
        assert (status.state, time.monotonic() - begun_s < 5) == ("ENGAGING", True)
        assert await asyncio.to_thread(engine.begun.wait, SOON_S)

    engine = Hung()
    # At its end a fund waits for a stop, so the host ends this one.
    with _stop_deadline(0.2):
        _in_asyncio(tmp_path, engine, test)


def test_engage_answers_at_once_though_the_stop_blocks_a_thread(tmp_path: Path) -> None:
    go_on, begun = threading.Event(), threading.Event()

    class Blocked(FakeController):
        def stop_all(self, reason: str, action: str, strategies: Sequence[str]) -> StopReport:  # type: ignore[override]
            begun.set()
            go_on.wait(SOON_S)
            return StopReport(0, 0)

    with _manager(tmp_path, Blocked(RUNNING)) as fund:
        status = fund.kill_switch.engage(**HALT)
        assert status.state == "ENGAGING"
        assert begun.wait(SOON_S)
        assert fund.status().kill_switch == "ENGAGING", "the fund answers meanwhile"
        go_on.set()
        _tick_until(fund, lambda: fund.kill_switch.status().state == "ENGAGED")


@contextmanager
def _stop_deadline(seconds: float) -> Iterator[None]:
    from fundops.actors.host import calls, stopping

    patch = pytest.MonkeyPatch()
    for module in (calls, stopping):
        patch.setattr(module, "STOP_ALL_DEADLINE_S", seconds)
    try:
        yield
    finally:
        patch.undo()


def test_a_stop_that_bridges_to_the_loop_of_the_caller_is_no_deadlock(tmp_path: Path) -> None:
    """`engage` called by a synchronous door in the very loop that the stop needs."""

    async def main() -> KillStatus:
        loop = asyncio.get_running_loop()

        class Bridging(FakeController):
            def stop_all(self, reason: str, action: str, strategies: Sequence[str]) -> StopReport:  # type: ignore[override]
                return asyncio.run_coroutine_threadsafe(self._stop(), loop).result(SOON_S)

            async def _stop(self) -> StopReport:
                return StopReport(0, 0)

        with _manager(tmp_path, Bridging(RUNNING)) as fund:
            await asyncio.to_thread(fund.tick)
            with pytest.warns(RuntimeWarning, match="blocks the event loop"):
                assert fund.kill_switch.engage(**HALT).state == "ENGAGING"
            for _ in range(400):
                await asyncio.sleep(0.01)
                status: KillStatus = fund.kill_switch.status()
                if status.state == "ENGAGED":
                    return status
        raise AssertionError("it was not confirmed")

    assert asyncio.run(main()).problem == ""


# -- asyncio


def test_an_asyncio_engine_is_called_on_its_own_loop(tmp_path: Path) -> None:
    engine = OnAsyncio()

    async def test(world: AsyncioWorld) -> None:
        status = await world.until(lambda found: found.running_strategies, lambda f: f.status())
        assert status.running_strategies == 1
        await world.call(lambda fund: fund.kill_switch.engage(**HALT))
        status = await world.until(
            lambda found: found.kill_switch == "ENGAGED", lambda fund: fund.status()
        )
        assert status.kill_switch == "ENGAGED"
        assert engine.loops == {asyncio.get_running_loop()}

    _in_asyncio(tmp_path, engine, test)


def test_fills_come_by_message_and_each_is_booked_once(tmp_path: Path) -> None:
    engine = OnAsyncio()

    async def test(world: AsyncioWorld) -> None:
        for _ in range(3):  # further ticks book nothing twice
            positions = await world.until(
                lambda found: found and found[0].quantity == 7, lambda f: f.ledger.positions()
            )
            assert [position.quantity for position in positions] == [7]

    _in_asyncio(tmp_path, engine, test, ledger_enabled=True)


def test_a_host_that_blocks_its_loop_makes_its_parts_late_and_not_the_fund(tmp_path: Path) -> None:
    engine = OnAsyncio()

    async def test(world: AsyncioWorld) -> None:
        await world.until(lambda found: found.running_strategies, lambda f: f.status())
        ticked = threading.Thread(
            target=lambda: [world._bridge.call(lambda fund: fund.tick()) for _ in range(3)]
        )
        begun_s = time.monotonic()
        ticked.start()
        ticked.join(SOON_S)  # the loop does not turn meanwhile
        assert not ticked.is_alive()
        assert time.monotonic() - begun_s < 5

    _in_asyncio(tmp_path, engine, test)


def test_a_loop_that_was_closed_is_a_fault_and_no_hang(tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    place = AsyncioPlace(loop)

    async def main() -> None:
        async with Fund.open(_config(tmp_path), OnAsyncio(), place=place) as fund:
            assert (await fund.tick()).failed == ("engine",)
            assert (await fund.kill_switch.engage(**HALT)).state == "ENGAGING"
            await trio.testing.wait_all_tasks_blocked()
            status = await fund.kill_switch.status()
            assert status.state == "UNCONFIRMED"
            assert "loop is closed" in status.problem

    trio.run(main)


# -- threads


def test_a_synchronous_engine_is_called_in_other_threads(tmp_path: Path) -> None:
    names = set[str]()

    class Engine(FakeController):
        def strategies(self) -> list[StrategyStatus]:
            names.add(threading.current_thread().name)
            return super().strategies()

        async def stop_all(self, reason: str, action: str, strategies: Sequence[str]) -> StopReport:
            await asyncio.sleep(0)  # in a loop of its own
            return StopReport(0, 0)

    with _manager(tmp_path, Engine(RUNNING)) as fund:
        _tick_until(fund, lambda: fund.status().running_strategies == 1)
        fund.kill_switch.engage(**HALT)
        _tick_until(fund, lambda: fund.kill_switch.status().state == "ENGAGED")
    assert names.isdisjoint({"fundops", "MainThread"})


def test_a_part_that_blocks_delays_neither_ticks_nor_the_stop_of_the_fund(tmp_path: Path) -> None:
    go_on = threading.Event()

    class Engine(FakeController):
        def feeds(self) -> Any:
            go_on.wait(SOON_S)
            return []

    try:
        with _manager(tmp_path, Engine(RUNNING), self_healing_enabled=True) as fund:
            begun_s = time.monotonic()
            _tick_until(fund, lambda: fund.status().running_strategies == 1)
            for _ in range(3):
                assert fund.tick().failed == ()
            assert time.monotonic() - begun_s < 5
        assert time.monotonic() - begun_s < 8
    finally:
        go_on.set()


def test_the_context_of_the_start_is_that_of_the_controller(tmp_path: Path) -> None:
    heard = set[str]()

    class Engine(FakeController):
        def strategies(self) -> list[StrategyStatus]:
            heard.add(WHO.get())
            return []

    WHO.set("host")
    try:
        with _manager(tmp_path, Engine()) as fund:
            _tick_until(fund, lambda: bool(heard))
    finally:
        WHO.set("")
    assert heard == {"host"}


async def test_a_task_that_a_plain_part_begins_may_ask_the_fund() -> None:
    """It inherits the context of the host, and not that of the actor that asks the part."""
    answers = list[int]()

    class Engine(FakeController):
        def strategies(self) -> list[StrategyStatus]:
            if not answers:
                nursery.start_soon(ask)
            return super().strategies()

    async def ask() -> None:
        answers.append((await world.fund.status()).running_strategies)

    async with virtual_fund(Engine(RUNNING)) as world, trio.open_nursery() as nursery:
        await world.tick()
    assert answers == [1]


# -- late parts are told once


async def test_a_part_past_its_deadline_is_one_alert_until_it_answers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Engine(FakeController):
        hangs = True

        async def strategies(self) -> list[StrategyStatus]:  # type: ignore[override]
            if self.hangs:
                await trio.sleep_forever()
            return [RUNNING]

    engine = Engine()
    async with virtual_fund(engine, alert_log=True) as world:
        for _ in range(4):
            await world.tick()
            await trio.sleep(1.5)
            world.clock.advance(1.5)
        assert _told(world) == [("WARNING", "controller.strategies is past its deadline")]
        assert (await world.tick()).failed == ("engine",)
        await trio.sleep(1.5)
        engine.hangs = False
        await world.tick()
        assert (await world.tick()).failed == ()
        assert _told(world)[1:] == [("INFO", "controller.strategies answers again")]


async def test_the_end_of_a_late_part_is_told_by_the_next_life(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    class Engine(FakeController):
        async def feeds(self) -> Any:  # type: ignore[override]
            await trio.sleep_forever()

    settings: dict[str, Any] = {"alert_log": True, "db_path": tmp_path / "fund.db"}
    async with virtual_fund(Engine(RUNNING), **settings) as world:
        await world.tick()
        await trio.sleep(1.5)
        await world.tick()
        assert _told(world) == [("WARNING", "controller.feeds is past its deadline")]
    async with virtual_fund(FakeController(RUNNING), **settings) as world:
        world.clock.advance(60)
        await world.tick()
        assert _told(world)[1:] == [("INFO", "controller.feeds answers again")]


async def test_a_step_that_fails_after_it_was_late_is_told_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Engine(FakeController):
        hangs = True

        async def strategies(self) -> list[StrategyStatus]:  # type: ignore[override]
            if self.hangs:
                await trio.sleep_forever()
            raise RuntimeError("no")

    engine = Engine()
    async with virtual_fund(engine, alert_log=True) as world:
        await world.tick()
        await trio.sleep(1.5)
        await world.tick()
        engine.hangs = False
        await trio.sleep(1.5)
        await world.tick()
        await world.tick()
        assert [title for _, title in _told(world)] == [
            "controller.strategies is past its deadline",
            "Oversight step engine fails",
            "controller.strategies answers again",
        ]


async def test_a_keep_alive_that_raises_is_one_alert_until_it_works() -> None:
    engine = FakeController(RUNNING)
    async with virtual_fund(engine, alert_log=True) as world:
        engine.failures["keep_alive"] = RuntimeError("no")
        for _ in range(4):
            world.clock.advance(1)
            assert (await world.tick()).failed == ()
        assert world.fund.may_trade("a")
        assert _told(world) == [("WARNING", "controller.keep_alive fails")]
        engine.failures.clear()
        for _ in range(3):
            world.clock.advance(1)
            await world.tick()
        assert _told(world)[1:] == [("INFO", "controller.keep_alive works again")]


def _told(world: Any) -> list[tuple[str, str]]:
    return [(alert.level.name, alert.title) for alert in world.sent_alerts()]


# -- looked at once


async def test_a_wrong_controller_is_refused_before_a_file_is_made(tmp_path: Path) -> None:
    class Wrong(FakeController):
        async def stop_all(self, reason: str) -> StopReport:  # type: ignore[override]
            return StopReport(0, 0)

    for controller in (Wrong(), FakeController, object()):
        with pytest.raises(ConfigError, match="controller: "):
            async with Fund.open(_config(tmp_path), controller):  # type: ignore[arg-type]
                pytest.fail("it opened")
    assert not (tmp_path / "fund.db").exists()


async def test_what_is_off_is_named_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    class Small:
        def strategies(self) -> list[StrategyStatus]:
            return []

        def pause(self, name: str, reason: str) -> None: ...

    with caplog.at_level(logging.INFO, "fundops"):
        async with virtual_fund(Small()):  # type: ignore[arg-type]
            pass
    (named,) = [text for text in caplog.messages if "the controller lacks" in text]
    assert "resume and stop" in named
    warned = [text for _, level, text in caplog.record_tuples if level == logging.WARNING]
    assert any("the controller has no stop_all" in text for text in warned)


async def test_a_plain_stop_is_confirmed_and_not_asked_again() -> None:
    calls: list[str] = []

    class Plain(FakeController):
        def stop_all(self, reason: str, action: str, strategies: Sequence[str]) -> StopReport:  # type: ignore[override]
            calls.append(action)
            return StopReport(0, 0)

    engine = Plain()
    async with virtual_fund(engine) as world:
        await world.tick()
        await world.fund.kill_switch.engage(**HALT)
        with trio.fail_after(SOON_S):
            while (await world.fund.kill_switch.status()).state != "ENGAGED":
                await trio.lowlevel.checkpoint()
        for _ in range(5):
            await world.tick()
        assert (await world.fund.kill_switch.status()).state == "ENGAGED"
    assert calls == ["halt"]
