"""An alert that was open when the process ended is ended by the next one, and heard anew after it.

A key that stays open would keep the next alert under it from being heard for hours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fundops import FeedStatus, StrategyStatus
from fundops.actors.alert import told_keys
from fundops.actors.oversight.steps import Step
from fundops.actors.oversight.steps.guard import GuardStep
from fundops.actors.oversight.steps.ledger import LedgerStep
from fundops.actors.persistence import Reader
from fundops.runtime import FundopsError, VirtualClock
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.controller import Fill

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
    with Reader(world.fund.config.path) as reader:
        rows = reader.rows(
            "SELECT level FROM alert WHERE dedup_key = ?"
            " AND outcome IN ('QUEUED', 'NO_CHANNEL') ORDER BY id",
            (key,),
        )
    return [level for (level,) in rows]


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
