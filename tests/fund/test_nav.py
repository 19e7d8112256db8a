"""NAV, drawdown and sessions of a whole fund."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

from fundops.runtime import VirtualClock
from fundops.testing import FakeController, virtual_fund
from fundops.wire.controller import StrategyStatus

D = Decimal


def us(text: str) -> int:
    """Microseconds of this instant of UTC."""
    return round(dt.datetime.fromisoformat(f"{text}+00:00").timestamp() * 1_000_000)


async def test_a_deposit_is_no_performance_and_a_drawdown_is_of_nav_per_unit() -> None:
    engine = FakeController(StrategyStatus("s", "running", 40_000, 40_000))
    async with virtual_fund(
        engine, total_capital=40_000, ledger_enabled=True, max_strategy_drawdown_pct=100
    ) as world:
        await world.tick()
        found: list[tuple[float, Decimal, str]] = []
        for pnl, deposit in ((10_000, 0), (10_000, 25_000), (-500, 0), (-1_250, 0)):
            if deposit:
                await world.fund.ledger.deposit(deposit)
            world.controller.set("s", realized_pnl=pnl)
            await world.tick()
            status = await world.fund.status()
            found.append((round(status.drawdown_pct, 6), status.nav, status.kill_switch))
        assert found[:2] == [(0, D(50_000), "OFF"), (0, D(75_000), "OFF")]
        assert found[2] == (14.0, D(64_500), "OFF")
        assert found[3][:2] == (15.0, D(63_750))
        assert found[3][2] == "ENGAGED"
        told = [
            (alert.level.value, alert.category.value)
            for alert in world.sent_alerts()
            if alert.category.value in ("DRAWDOWN", "KILL_SWITCH") and alert.level.value != "INFO"
        ]
        assert told == [("WARNING", "DRAWDOWN"), ("CRITICAL", "KILL_SWITCH")]


async def test_weekday_sessions_end_at_the_close_of_new_york() -> None:
    clock = VirtualClock(us("2026-03-05 12:00"))
    ended: list[tuple[str, int]] = []
    async with virtual_fund(clock=clock, session="weekdays 16:00 America/New_York") as world:
        await world.tick()
        while clock.now_us() < us("2026-03-10 00:00"):
            clock.advance(600)
            report = await world.tick()
            ended += [(session, clock.now_us()) for session in report.sessions]
    assert ended == [
        ("2026-03-05", us("2026-03-05 21:00")),
        ("2026-03-06", us("2026-03-06 21:00")),
        ("2026-03-09", us("2026-03-09 20:00")),
    ]
