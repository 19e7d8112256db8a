"""The test tools for embedders: they act as told, and never by themselves."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from fundops import FeedStatus, Fill, Settlement, StrategyStatus, VirtualClock, testing
from fundops.runtime import ConfigError
from fundops.testing import START_US, FakeController, virtual_fund
from fundops.wire.controller import (
    CanGiveStatement,
    CanListCashEvents,
    CanListFeeds,
    CanListFills,
    CanListSettlements,
    CanPause,
    CanRestart,
    CanSetStage,
    CanStopAll,
)


def test_the_fake_controller_has_every_part_a_controller_can_have() -> None:
    engine = FakeController()
    for part in (
        CanGiveStatement,
        CanRestart,
        CanPause,
        CanStopAll,
        CanSetStage,
        CanListCashEvents,
        CanListFeeds,
        CanListFills,
        CanListSettlements,
    ):
        assert isinstance(engine, part)


async def test_the_fake_controller_does_as_it_is_told_and_writes_it_down() -> None:
    engine = FakeController(StrategyStatus("a", "failed", error="boom"))
    engine.set("b", state="paused")
    await engine.restart("a", attempt_id="1")
    await engine.resume("b")
    await engine.pause("b", "why")
    await engine.stop("b", "enough")
    await engine.set_stage("a", "shadow", Decimal(5))
    engine.open_orders = 2
    report = await engine.stop_all("kill", "flatten", ("a",))
    assert (report.open_orders, report.open_positions) == (2, 0)
    assert [status.state for status in engine.strategies()] == ["running", "stopped"]
    assert engine.statuses["a"] == StrategyStatus(
        "a", "running", stage="shadow", capital_cap=Decimal(5)
    )
    assert [call[0] for call in engine.calls] == [
        "restart",
        "resume",
        "pause",
        "stop",
        "set_stage",
        "stop_all",
    ]


async def test_every_call_of_the_fake_controller_can_be_made_to_fail() -> None:
    engine = FakeController(StrategyStatus("a", "running"))
    error = RuntimeError("no")
    engine.failures = dict.fromkeys(
        ("strategies", "restart", "pause", "resume", "stop", "stop_all", "set_stage"), error
    )
    calls: tuple[Any, ...] = (
        lambda: engine.restart("a", attempt_id="1"),
        lambda: engine.pause("a", ""),
        lambda: engine.resume("a"),
        lambda: engine.stop("a", ""),
        lambda: engine.stop_all("", "halt", ()),
        lambda: engine.set_stage("a", "paper", None),
    )
    for call in calls:
        with pytest.raises(RuntimeError, match="no"):
            await call()
    with pytest.raises(RuntimeError):
        engine.strategies()
    assert engine.statuses["a"].state == "running"


def test_fills_and_settlements_are_given_after_the_cursor() -> None:
    engine = FakeController()
    engine.fill_list = [
        Fill(str(number), "a", "X", Decimal(1), Decimal(1), Decimal(0), 0, str(number))
        for number in range(1, 12)
    ]
    engine.settlement_list = [Settlement("s", "M", "a", Decimal(1), Decimal(2), cursor="9")]
    assert len(engine.fills("")) == 11
    assert [fill.id for fill in engine.fills("9")] == ["10", "11"]
    assert engine.settlements("9") == []
    assert len(engine.settlements("8")) == 1


async def test_time_stands_still_until_it_is_told_to_move() -> None:
    async with virtual_fund(FakeController(StrategyStatus("a", "running"))) as world:
        assert world.clock.now_us() == START_US
        await world.tick()
        assert world.clock.now_us() == START_US
        await world.advance(90, step_s=60)
        assert world.clock.now_us() == START_US + 90_000_000
        assert (await world.fund.status()).ticks == 3


async def test_the_example_of_the_module_works_as_it_is_written(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        await world.fund.ledger.deposit(500)
        await world.advance(3600)
        assert world.sent_alerts() == []
    assert trio.current_time() == 0, "no real time passes either"


async def test_the_database_is_deleted_at_the_end_unless_it_was_given(tmp_path: Path) -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        path = world.fund.config.path
        assert path.is_file()
    assert not path.parent.exists()
    async with virtual_fund(db_path=tmp_path / "mine.db"):
        pass
    assert (tmp_path / "mine.db").is_file()


async def test_settings_and_a_clock_of_ones_own_are_taken() -> None:
    clock = VirtualClock(1_000_000)
    async with virtual_fund(
        clock=clock, total_capital=5, name="mine", ledger_enabled=True
    ) as world:
        assert world.clock is clock
        assert (world.fund.config.total_capital, world.fund.config.name) == (5, "mine")
        assert await world.fund.ledger.nav() == 5
    with pytest.raises(ConfigError, match="min_trades"):
        async with virtual_fund(min_trades=-1):
            pytest.fail("it opened")


async def test_sent_alerts_are_those_that_went_out_oldest_first() -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        for number in range(8):
            await world.fund.alerts.send("INFO", "GENERAL", str(number), "")
        assert [one.title for one in world.sent_alerts()] == ["0", "1", "2", "3", "4"]
        assert [one.title for one in world.sent_alerts(limit=4)] == ["4"]


async def test_a_tick_waits_for_the_restarts_it_began(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Slow(FakeController):
        async def restart(self, name: str, *, attempt_id: str) -> None:
            await trio.sleep(5)
            await super().restart(name, attempt_id=attempt_id)

    engine = Slow(StrategyStatus("a", "failed"))
    async with virtual_fund(engine, self_healing_enabled=True, recovery_every_ticks=1) as world:
        await world.tick()
        assert engine.statuses["a"].state == "running"


def test_a_status_is_changed_field_by_field_and_unknown_fields_are_refused() -> None:
    engine = FakeController()
    engine.set("a", n_trades=5)
    engine.set("a", n_wins=3)
    assert engine.statuses["a"] == StrategyStatus("a", "running", n_trades=5, n_wins=3)
    with pytest.raises(TypeError):
        engine.set("a", n_lost=1)


async def test_a_feed_that_is_listed_is_seen() -> None:
    engine = FakeController()
    engine.feed_statuses = [FeedStatus("prices", START_US, stale_after_s=10)]
    async with virtual_fund(engine, self_healing_enabled=True, recovery_every_ticks=1) as world:
        await world.advance(20, step_s=20)
        assert [one.title for one in world.sent_alerts()] != []


def test_the_public_names_are_what_embedders_are_told() -> None:
    assert set(testing.__all__) == {
        *("FakeController", "VirtualFund", "check_controller", "virtual_fund")
    }
    assert issubclass(StrategyStatus, msgspec.Struct)
