"""The parts of a tick that do not run at each one."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from fundops import FeedStatus, PromotionStage, StrategyStatus
from fundops.testing import FakeController, VirtualFund, virtual_fund
from fundops.wire.controller import Fill

D = Decimal
DAY_S = 86_400
GREEN = {"sharpe": 1.5, "max_drawdown": 0.05, "n_trades": 150, "win_rate": 0.6}


def engine(**figures: Any) -> FakeController:
    return FakeController(StrategyStatus("s", "running", 10_000, 10_000, **figures))


async def ticks(world: VirtualFund, count: int = 1) -> None:
    for _ in range(count):
        world.clock.advance(1)
        await world.tick()


@pytest.mark.parametrize("every", [1, 6, 60])
async def test_gates_are_judged_every_few_ticks(every: int) -> None:
    settings: dict[str, Any] = {
        "promotion_enabled": True,
        "promotion_every_ticks": every,
        "min_paper_days": 0,
    }
    async with virtual_fund(engine(stage="paper"), **settings) as world:
        promotion = world.fund.promotion
        await promotion.register("s")
        await ticks(world, every)
        await promotion.record_metrics("s", PromotionStage.Paper, GREEN)
        await ticks(world, every - 1)
        assert await promotion.current_stage("s") is PromotionStage.Paper
        await ticks(world)
        assert await promotion.current_stage("s") is PromotionStage.Shadow


async def test_gates_are_judged_when_a_session_ends() -> None:
    async with virtual_fund(
        engine(stage="paper"),
        promotion_enabled=True,
        min_paper_days=2.5,
        min_trades=0,
        min_sharpe=-99,
        min_win_rate=0,
    ) as world:
        promotion = world.fund.promotion
        await promotion.register("s")
        for equity in (10_010, 10_030, 10_040):
            world.controller.set("s", equity=equity)
            world.clock.advance(DAY_S - 10)
            await ticks(world, 9)
            assert await promotion.current_stage("s") is PromotionStage.Paper
            await ticks(world)
        assert await promotion.current_stage("s") is PromotionStage.Shadow
        assert (await world.fund.status()).ticks < 60


async def test_stale_feeds_are_looked_for_every_few_ticks() -> None:
    async with virtual_fund(
        engine(), self_healing_enabled=True, recovery_every_ticks=10, stale_feed_s=60
    ) as world:
        world.controller.feed_statuses = [FeedStatus("f", world.clock.now_us())]
        await ticks(world)
        world.clock.advance(61)
        await ticks(world, 9)
        assert world.sent_alerts() == []
        await ticks(world)
        assert [alert.level.value for alert in world.sent_alerts()] == ["WARNING"]


async def test_a_strategy_at_its_limit_is_paused_before_it_is_demoted() -> None:
    async with virtual_fund(engine(stage="live-small"), promotion_enabled=True) as world:
        await world.fund.promotion.adopt("s", PromotionStage.Live_Small, by="ann", reason="r")
        await ticks(world, 2)
        world.controller.calls.clear()
        world.controller.set("s", equity=5_000, realized_pnl=-5_000)
        await ticks(world)
        assert [call[0] for call in world.controller.calls] == ["pause", "set_stage"]
        assert await world.fund.promotion.current_stage("s") is not PromotionStage.Live_Small


async def test_the_two_navs_are_compared_every_few_ticks_and_when_a_session_ends() -> None:
    async with virtual_fund(engine(), ledger_enabled=True, recovery_every_ticks=10) as world:
        world.controller.set("s", realized_pnl=1)
        await ticks(world, 9)
        assert (await world.fund.status()).nav_difference is None
        await ticks(world)
        assert (await world.fund.status()).nav_difference == -1
        world.controller.set("s", realized_pnl=2)
        await ticks(world, 3)
        assert (await world.fund.status()).nav_difference == -1
        await world.tick("2026-01-05")
        assert (await world.fund.status()).nav_difference == -2


async def test_a_fill_of_the_tick_that_demotes_was_made_under_the_stage_of_before() -> None:
    settings: dict[str, Any] = {"promotion_enabled": True, "ledger_enabled": True}
    async with virtual_fund(engine(stage="live-small"), **settings) as world:
        await world.fund.promotion.adopt("s", PromotionStage.Live_Small, by="ann", reason="r")
        await ticks(world, 2)
        world.controller.set("s", equity=5_000, realized_pnl=-5_000)
        now_us = world.clock.now_us()
        world.controller.fill_list = [Fill("f", "s", "X", D(1), D(1), D(0), now_us, "1")]
        await ticks(world)
        assert await world.fund.promotion.current_stage("s") is not PromotionStage.Live_Small
        assert len(await world.fund.ledger.positions()) == 1
        titles = [alert.title for alert in world.sent_alerts()]
        assert not [title for title in titles if "without entitlement" in title]
