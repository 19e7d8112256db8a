"""Mode observe: the books go on, the engine is told nothing, and the alerts say what would be."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio.testing

from fundops import Fill, PromotionStage, StopReport, StrategyStatus
from fundops.runtime import VirtualClock
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.errors import StopNotConfirmed

OBSERVE: dict[str, Any] = {"mode": "observe", "alert_log": True}


def _fake(**more: Any) -> FakeController:
    return FakeController(
        StrategyStatus("s", "running", **{"equity": 1_000, "allocated": 1_000, **more})
    )


async def _ticks(world: VirtualFund, count: int) -> None:
    for _ in range(count):
        world.clock.advance(1)
        assert (await world.tick()).failed == ()
        await trio.testing.wait_all_tasks_blocked()


def _titles(world: VirtualFund) -> list[str]:
    return [alert.title for alert in world.sent_alerts()]


async def test_a_breach_engages_nothing_and_is_told_once() -> None:
    fake = _fake(equity=None, allocated=0)
    async with virtual_fund(fake, **OBSERVE) as world:
        await _ticks(world, 1)
        fake.set("s", realized_pnl=-20_000)
        await _ticks(world, 5)
        assert (await world.fund.kill_switch.status()).state == "OFF"
        assert world.fund.may_trade("s")
        assert fake.calls == []
        assert _titles(world).count("Kill switch would engage") == 1
        fake.set("s", realized_pnl=-1)
        await _ticks(world, 2)
        assert _titles(world).count("Kill switch would no longer engage") == 1


async def test_a_strategy_at_its_limit_is_not_paused_and_told_once() -> None:
    fake = _fake()
    async with virtual_fund(fake, **OBSERVE) as world:
        await _ticks(world, 1)
        fake.set("s", equity=700, realized_pnl=-300)
        await _ticks(world, 5)
        assert world.fund.may_trade("s")
        assert fake.calls == []
        assert _titles(world).count("s would be paused") == 1


async def test_a_person_latches_and_ends_leases_and_hears_that_the_engine_was_not_told() -> None:
    fake = _fake()
    async with virtual_fund(fake, **OBSERVE) as world:
        await _ticks(world, 1)
        await world.fund.kill_switch.engage(reason="x", by="ann")
        assert not world.fund.may_trade("s")
        await _ticks(world, 3)
        world.fund.report_stopped(StopReport(0, 0))
        await trio.testing.wait_all_tasks_blocked(0.01)
        status = await world.fund.kill_switch.status()
        assert (status.state, status.problem) == (
            "UNCONFIRMED",
            "mode is observe, so the engine was not told to stop",
        )
        assert fake.calls == []
        (told,) = [a for a in world.sent_alerts() if a.title == "Kill switch activated"]
        assert "none: mode is observe, so a person must stop the engine" in told.message
        with pytest.raises(StopNotConfirmed):
            await world.fund.kill_switch.release(by="ann", reason="r")
        await world.fund.kill_switch.release(by="ann", reason="r", accept_open_orders=True)
        await _ticks(world, 1)
        assert world.fund.may_trade("s")


async def test_a_failed_strategy_is_not_restarted_and_its_breaker_stays_closed() -> None:
    fake = _fake()
    async with virtual_fund(
        fake, self_healing_enabled=True, recovery_every_ticks=1, **OBSERVE
    ) as world:
        await _ticks(world, 1)
        fake.set("s", state="failed")
        await _ticks(world, 400)
        assert fake.calls == []
        assert (await world.fund.status()).breakers_open == 0
        assert _titles(world).count("Mode observe: restart was not called") == 1


async def test_a_stage_that_differs_is_left_alone_and_named_once() -> None:
    fake = _fake(stage="paper")
    async with virtual_fund(fake, promotion_enabled=True, **OBSERVE) as world:
        await world.fund.promotion.adopt("s", PromotionStage.Live_Small, by="a", reason="r")
        await _ticks(world, 5)
        assert fake.calls == []
        assert _titles(world).count("Mode observe: set_stage was not called") == 1
        (told,) = [a for a in world.sent_alerts() if "set_stage" in a.title]
        assert "set_stage('s', 'live-small', Decimal('1000" in told.message


@pytest.mark.parametrize(("mode", "stage"), [("observe", "paper"), ("act", "shadow")])
async def test_a_promotion_of_the_policy_is_told_and_not_done(mode: str, stage: str) -> None:
    settings: dict[str, Any] = {**OBSERVE, "mode": mode, "promotion_enabled": True}
    green = {"sharpe": 1.5, "max_drawdown": 0.05, "n_trades": 150, "win_rate": 0.6}
    async with virtual_fund(
        _fake(stage="paper"), promotion_every_ticks=1, min_paper_days=0, **settings
    ) as world:
        await world.fund.promotion.register("s")
        await _ticks(world, 1)
        await world.fund.promotion.record_metrics("s", PromotionStage.Paper, green)
        await _ticks(world, 3)
        assert (await world.fund.promotion.current_stage("s")).value == stage
        told = _titles(world).count("Mode observe: s was not promoted")
        assert told == (mode == "observe")


async def test_a_silent_host_is_no_emergency() -> None:
    fake = _fake()
    async with virtual_fund(fake, **OBSERVE) as world:
        await _ticks(world, 1)
        fake.failures["strategies"] = RuntimeError("gone")
        for _ in range(70):
            world.clock.advance(1)
            await world.tick()
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert fake.calls == []


async def test_a_daily_loss_leaves_the_leases_alone() -> None:
    fake = _fake(equity=None, allocated=0)
    async with virtual_fund(fake, max_daily_loss_pct=2, **OBSERVE) as world:
        await _ticks(world, 1)
        fake.set("s", realized_pnl=-2_500)
        await _ticks(world, 2)
        assert world.fund.may_trade("s")
        assert _titles(world).count("Daily loss limit reached") == 1


async def test_the_venue_hears_nothing_of_the_leases() -> None:
    fake = _fake()
    async with virtual_fund(fake, **OBSERVE) as world:
        await _ticks(world, 2)
        assert fake.alive_until_us is None


async def test_books_fees_and_nav_go_on_as_ever() -> None:
    fake = _fake(equity=None, allocated=0)
    fake.fill_list = [
        Fill("1", "s", "AAPL", Decimal(10), Decimal(100), Decimal(2), START_US, cursor="1")
    ]
    settings = {"ledger_enabled": True, "management_fee_bps": 200, **OBSERVE}
    async with virtual_fund(fake, **settings) as world:
        await _ticks(world, 1)
        fake.set("s", realized_pnl=500)
        await world.advance(86_400, step_s=3_600)
        await _ticks(world, 1)
        sheet = await world.fund.ledger.balance_sheet()
        assert (sheet["TRADING_FEES"], sheet["POSITIONS"]) == (Decimal(2), Decimal(1_000))
        assert sheet["MANAGEMENT_FEES"] > 5
        status = await world.fund.status()
        assert 100_490 < status.nav < 100_496, "the gain less a day's fee"
        assert [one.session for one in await world.fund.nav_history()] == ["2026-01-05"]
        assert fake.calls == []
        assert fake.alive_until_us is None


async def test_no_acting_part_is_called_for_any_reason() -> None:
    fake = FakeController(StrategyStatus("s", "running", equity=1_000, allocated=1_000))
    settings = {"self_healing_enabled": True, "recovery_every_ticks": 1, **OBSERVE}
    async with virtual_fund(fake, **settings) as world:
        await _ticks(world, 1)
        await world.fund.pause("s", by="ann", reason="r")
        await _ticks(world, 2)
        await world.fund.resume("s", by="ann", reason="r")
        fake.set("s", state="failed")
        await _ticks(world, 90)
        await world.fund.kill_switch.engage(reason="x", by="ann")
        fake.set("s", state="running")
        await _ticks(world, 5)
        await world.fund.kill_switch.release(by="ann", reason="r", accept_open_orders=True)
        fake.failures["strategies"] = RuntimeError("gone")
        for _ in range(90):
            world.clock.advance(1)
            await world.fund.tick()
        assert fake.calls == []
        assert fake.alive_until_us is None


# -- from observe to act


async def _told_in_act(path: Path, figures: Mapping[str, float], then: float) -> list[str]:
    """The titles of a life in mode act, after one that observed a loss; `then` is P&L at first."""
    clock, fake = VirtualClock(START_US), _fake(equity=50_000, allocated=50_000)
    limits = {"max_strategy_drawdown_pct": 30.0, "max_daily_loss_pct": 5.0}
    settings = {**OBSERVE, **limits, "clock": clock, "db_path": path}
    async with virtual_fund(fake, **settings) as world:
        await _ticks(world, 1)
        fake.set("s", **figures)
        await _ticks(world, 2)
        observed = len(_titles(world))
    fake.set("s", realized_pnl=then, equity=50_000 + then)
    async with virtual_fund(fake, **{**settings, "mode": "act"}) as world:
        await _ticks(world, 2)
        fake.set("s", **figures)
        await _ticks(world, 3)
        assert not world.fund.may_trade("s")
        return _titles(world)[observed:]


@pytest.mark.parametrize("then", [-20_000.5, -1.0])
async def test_what_mode_act_does_is_told_although_mode_observe_told_that_it_would(
    tmp_path: Path, then: float
) -> None:
    loss = {"realized_pnl": -20_000.5, "equity": 29_999.5}
    told = await _told_in_act(tmp_path / "x.db", loss, then)
    for title in ("Kill switch activated", "s paused", "Daily loss limit reached"):
        assert told.count(title) == 1, title
    for title in (
        "Kill switch engages from now on, in mode act",
        "s is paused at its limit from now on, in mode act",
        "The daily loss limit is in force from now on, in mode act",
    ):
        assert told.count(title) == 1, title


async def test_the_end_of_what_would_be_ends_no_alert_of_a_persons_kill() -> None:
    fake = _fake(equity=50_000, allocated=50_000)
    async with virtual_fund(fake, **OBSERVE, max_strategy_drawdown_pct=100.0) as world:
        await _ticks(world, 1)
        fake.set("s", realized_pnl=-20_000, equity=30_000)
        await _ticks(world, 1)
        await world.fund.kill_switch.engage(reason="x", by="ann")
        fake.set("s", realized_pnl=0.01, equity=50_000)
        await _ticks(world, 3)
        over = "Kill switch would no longer engage"
        assert over not in _titles(world), "it is engaged"
        release = world.fund.kill_switch.release
        await release(reason="x", by="ann", accept_open_orders=True)
        await _ticks(world, 2)
        assert {over, "Kill switch released by ann"} <= set(_titles(world))
