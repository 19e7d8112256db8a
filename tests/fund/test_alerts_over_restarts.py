"""An alert that was open when the process ended is ended by the next one, and heard anew after it.

A key that stays open would keep the next alert under it from being heard for hours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fundops import FeedStatus, PromotionStage, StrategyStatus
from fundops.actors.alert import told_keys
from fundops.actors.oversight.steps import Step
from fundops.actors.oversight.steps.guard import GuardStep
from fundops.actors.oversight.steps.ledger import LedgerStep
from fundops.actors.persistence import Reader
from fundops.runtime import FundopsError, VirtualClock
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.controller import Fill
from fundops.wire.ledger import Statement

D = Decimal
Scene = Callable[[VirtualFund], Awaitable[None]]


class SteppedClock(VirtualClock):
    """A wall clock that can be set while monotonic time goes on."""

    stepped_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.stepped_us


def running() -> StrategyStatus:
    return StrategyStatus("s", "running", 10_000, 10_000)


async def ticks(world: VirtualFund, count: int = 1, seconds: float = 1) -> None:
    for _ in range(count):
        world.clock.advance(seconds)
        await world.tick()


def heard(world: VirtualFund, key: str) -> list[str]:
    """The levels of the alerts under this key that were let out, oldest first."""
    return [level for level, _ in levels_and_categories(world, key)]


def levels_and_categories(world: VirtualFund, key: str) -> list[tuple[str, str]]:
    """The same alerts with their categories."""
    with Reader(world.fund.config.path) as reader:
        return reader.rows(
            "SELECT level, category FROM alert WHERE dedup_key = ?"
            " AND outcome IN ('QUEUED', 'NO_CHANNEL') ORDER BY id",
            (key,),
        )


def open_keys(path: Path) -> set[str]:
    with Reader(path) as reader:
        return told_keys(reader, "")


async def wrong_status(world: VirtualFund) -> None:
    world.controller.set("s", n_trades=-1)
    await ticks(world)


async def wrong_feed(world: VirtualFund) -> None:
    world.controller.feed_statuses = [FeedStatus("f", -5)]
    await ticks(world)


async def book_break(world: VirtualFund) -> None:
    world.controller.set("s", realized_pnl=-50)
    await ticks(world, 5, 30)


async def gone(world: VirtualFund) -> None:
    world.controller.statuses.pop("s", None)
    await ticks(world)


async def silent(world: VirtualFund) -> None:
    world.controller.failures["strategies"] = RuntimeError("no")
    await ticks(world, 7, 10)


async def broken(self: Step, tick: Any) -> None:
    raise FundopsError("no")


async def failing_ledger(world: VirtualFund) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LedgerStep, "run", broken)
        await ticks(world)


async def failing_guard(world: VirtualFund) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GuardStep, "run", broken)
        await ticks(world)


ROWS: dict[str, tuple[Scene, str]] = {
    "status:s": (wrong_status, "WARNING"),
    "feed-status:f": (wrong_feed, "WARNING"),
    "break": (book_break, "CRITICAL"),
    "left:s": (gone, "CRITICAL"),
    "silent": (silent, "WARNING"),
    "blind": (silent, "CRITICAL"),
    "step:engine": (silent, "WARNING"),
    "step:ledger": (failing_ledger, "WARNING"),
    "step:guard": (failing_guard, "CRITICAL"),
}


@pytest.mark.parametrize("key", ROWS)
async def test_the_next_process_ends_an_open_alert_and_hears_the_next(
    key: str, tmp_path: Path
) -> None:
    scene, level = ROWS[key]
    path, clock, engine = tmp_path / "x.db", VirtualClock(START_US), FakeController(running())
    settings: dict[str, Any] = {"ledger_enabled": True, "recovery_every_ticks": 1, "db_path": path}
    async with virtual_fund(engine, clock=clock, **settings) as world:
        engine.fill_list = [Fill("f", "s", "X", D(1), D(1), D(0), clock.now_us(), "1")]
        await ticks(world, 2)
        await scene(world)
        assert heard(world, key) == [level]
    engine.failures.clear()
    engine.feed_statuses = []
    engine.statuses["s"] = StrategyStatus("s", "running", 10_000, 10_000, realized_pnl=-1)
    async with virtual_fund(engine, clock=clock, **settings) as world:
        await ticks(world, 5, 30)
        assert heard(world, key) == [level, "INFO"]
        assert key not in open_keys(path)
        await scene(world)
        assert heard(world, key) == [level, "INFO", level]


async def test_a_status_that_is_wrong_stays_told_until_the_engine_speaks_again(
    tmp_path: Path,
) -> None:
    path, clock, engine = tmp_path / "x.db", VirtualClock(START_US), FakeController(running())
    async with virtual_fund(engine, clock=clock, db_path=path, ledger_enabled=True) as world:
        await ticks(world)
        await wrong_status(world)
    engine.failures["strategies"] = RuntimeError("no")
    async with virtual_fund(engine, clock=clock, db_path=path, ledger_enabled=True) as world:
        await ticks(world, 3)
        assert heard(world, "status:s") == ["WARNING"]
        engine.failures.clear()
        await ticks(world, 3)
        assert heard(world, "status:s") == ["WARNING"], "it is wrong still, and told"
        assert heard(world, "left:s") == [], "the engine lists it, with a wrong status"
        engine.statuses["s"] = running()
        await ticks(world, seconds=61)  # past the limit of alerts in a minute
        assert heard(world, "status:s") == ["WARNING", "INFO"]


@pytest.mark.parametrize("restart", ["actor", "process"])
async def test_a_suspect_clock_is_over_although_who_told_it_has_ended(
    restart: str, tmp_path: Path
) -> None:
    path, clock, engine = tmp_path / "x.db", SteppedClock(START_US), FakeController(running())
    async with virtual_fund(engine, clock=clock, db_path=path, ledger_enabled=True) as world:
        await ticks(world)
        clock.stepped_us = 3_600_000_000
        await ticks(world)
        assert heard(world, "clock_jump") == ["WARNING"]
        if restart == "actor":
            world.fund.drill("oversight")
            clock.stepped_us = 0
            await ticks(world, 3)
            assert heard(world, "clock_jump") == ["WARNING", "INFO"]
    if restart == "process":
        async with virtual_fund(engine, clock=clock, db_path=path, ledger_enabled=True) as world:
            await ticks(world)
            assert heard(world, "clock_jump") == ["WARNING", "INFO"]


async def above_entitlement(world: VirtualFund) -> None:
    await world.fund.promotion.adopt("s", PromotionStage.Paper, by="ann", reason="r")
    world.controller.set("s", stage="live-small")
    world.controller.failures["set_stage"] = RuntimeError("no")
    await ticks(world, 2)


async def unentitled_fill(world: VirtualFund) -> None:
    fill = Fill("g", "s", "X", D(1), D(1), D(0), world.clock.now_us(), "2")
    world.controller.fill_list = [*world.controller.fill_list, fill]
    await ticks(world, 2)


async def broker_differs(world: VirtualFund) -> None:
    world.controller.broker_statement = Statement("2026-01-05", D(1), {})
    await world.tick("2026-01-05")
    await ticks(world, 2)


async def asset_without_a_price(world: VirtualFund) -> None:
    await world.fund.ledger.convert(100, "USD", 1, "EUR")
    await ticks(world, 2)


LEDGER_ON: dict[str, Any] = {"ledger_enabled": True, "recovery_every_ticks": 1}
PROMOTION_ON: dict[str, Any] = {"promotion_enabled": True}

# The key, the settings of the first start alone, the scene, and the category of the alert.
SWITCHED_OFF: dict[str, tuple[dict[str, Any], Scene, str]] = {
    "step:ledger": (LEDGER_ON, failing_ledger, "GENERAL"),
    "break": (LEDGER_ON, book_break, "GENERAL"),
    "statement:2026-01-05": (LEDGER_ON, broker_differs, "GENERAL"),
    "unpriced": (LEDGER_ON, asset_without_a_price, "GENERAL"),
    "unentitled:s:unregistered": (LEDGER_ON | PROMOTION_ON, unentitled_fill, "RISK_LIMIT"),
    "entitled:s": (PROMOTION_ON, above_entitlement, "RISK_LIMIT"),
    "unregistered:s": (PROMOTION_ON, ticks, "GENERAL"),
}


@pytest.mark.parametrize("key", SWITCHED_OFF)
async def test_an_alert_of_a_part_that_is_switched_off_ends_at_the_next_start(
    key: str, tmp_path: Path
) -> None:
    settings, scene, category = SWITCHED_OFF[key]
    path, clock, engine = tmp_path / "x.db", VirtualClock(START_US), FakeController(running())
    always: dict[str, Any] = {"clock": clock, "db_path": path, "alert_log": True}
    async with virtual_fund(engine, **always, **settings) as world:
        engine.fill_list = [Fill("f", "s", "X", D(1), D(1), D(0), clock.now_us(), "1")]
        await ticks(world, 2)
        clock.advance(61)  # past the limit of alerts in a minute
        await scene(world)
        assert key in open_keys(path)
    for _ in range(2):
        async with virtual_fund(engine, **always) as world:
            await ticks(world, 2)
            assert key not in open_keys(path)
            [_, *ends] = levels_and_categories(world, key)
            assert ends == [("INFO", category)]
