"""Value at risk, and the worst pair of strategies."""

from __future__ import annotations

import statistics
from collections.abc import Generator, Mapping, Sequence
from itertools import combinations
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundops.actors.oversight import risk
from fundops.actors.oversight.risk import Series, value_at_risk, worst_pair
from fundops.testing import FakeController, VirtualFund, virtual_fund
from fundops.wire.controller import StrategyStatus

R = TypeVar("R")


def done(work: Generator[None, None, R]) -> R:
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: R = end.value
            return result


def naive(series: Mapping[str, Sequence[int]], above: float) -> tuple[str, str] | None:
    """The worst pair, by the formula of the standard library."""
    best, found = above, None
    for (first, a), (second, b) in combinations(series.items(), 2):
        length = min(len(a), len(b))
        if length < 20 or len(set(a[-length:])) == 1 or len(set(b[-length:])) == 1:
            continue
        correlation = statistics.correlation(a[-length:], b[-length:])
        if correlation > best + 1e-9:
            best, found = correlation, (first, second)
    return found


def test_value_at_risk_is_the_loss_of_the_worst_twentieth_rounded_up() -> None:
    pnl = [-900, -310, -305, *[0, 120] * 18, 7]
    assert len(pnl) == 40
    assert value_at_risk(pnl) == 310
    assert value_at_risk([*pnl, 5]) == 305, "41 sessions: the third worst"
    assert value_at_risk(pnl[:19]) is None
    assert value_at_risk(pnl[:20]) == 900
    assert value_at_risk([3] * 20) == 0


values = st.integers(-20, 20)


@given(st.lists(st.lists(values, min_size=18, max_size=30), max_size=6), st.floats(-0.5, 0.95))
def test_the_worst_pair_is_that_of_the_textbook(pnl: list[list[int]], above: float) -> None:
    series = {f"s{number}": row for number, row in enumerate(pnl)}
    expected, found = naive(series, above), done(worst_pair(series, above))
    if expected is None:
        assert found is None or found.correlation <= above + 1e-6
    else:
        assert found is not None
        length = min(len(series[found.first]), len(series[found.second]))
        exact = statistics.correlation(
            series[found.first][-length:], series[found.second][-length:]
        )
        assert found.correlation == pytest.approx(exact, abs=1e-9)
        best = statistics.correlation(
            *(series[name][-min(len(series[name]) for name in expected) :] for name in expected)
        )
        assert exact == pytest.approx(best, abs=1e-6)


def test_of_very_many_strategies_the_largest_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(risk, "CORRELATED_MAX", 2)
    rising = list(range(30))
    series = {"small": rising, "large": [900 * value for value in rising], "b": [900, -900] * 15}
    assert done(worst_pair(series, 0.5)) is None
    series["z"] = [1_000 * value for value in rising]
    found = done(worst_pair(series, 0.5))
    assert found is not None
    assert {found.first, found.second} == {"large", "z"}
    del series["z"]
    monkeypatch.setattr(risk, "CORRELATED_MAX", 3)
    found = done(worst_pair(series, 0.5))
    assert found is not None
    assert {found.first, found.second} == {"small", "large"}


def test_equal_results_in_all_sessions_correlate_with_nothing() -> None:
    series = {"flat": [7] * 20, "also flat": [7] * 20, "idle": [0] * 20, "rising": list(range(20))}
    assert done(worst_pair(series, -2.0)) is None


def test_the_pairs_are_compared_in_pieces() -> None:
    series = {f"s{number}": [number, 1, -1] * 10 for number in range(100)}
    pieces = len(list(worst_pair(series, 2.0)))
    assert pieces > 100 * 99 / 2 / risk.PAIRS_AT_ONCE


def test_a_strategy_that_was_away_begins_anew_and_old_sessions_are_forgotten() -> None:
    series = Series()
    for session in range(120):
        series.add(session, {"a": session} if session == 50 else {"a": session, "b": 2 * session})
    assert series.fund == series.strategies["a"] == [1] * 100
    assert series.strategies["b"] == [2] * 68


def _alerts(world: VirtualFund, category: str) -> list[tuple[str, str]]:
    return [
        (alert.level.value, alert.title)
        for alert in world.sent_alerts()
        if alert.category.value == category
    ]


@pytest.mark.parametrize(("budget", "told"), [(309, 1), (310, 0)])
async def test_value_at_risk_above_its_budget_is_told_once(budget: float, told: int) -> None:
    engine = FakeController(StrategyStatus("s", "running", 50_000, 50_000))
    async with virtual_fund(engine, ledger_enabled=True, var_budget=budget) as world:
        total = 0
        await world.advance(86_400, step_s=86_400)
        for pnl in (-900, -310, -305, *[0, 120] * 18, 7):
            total += pnl
            engine.set("s", realized_pnl=total)
            world.clock.advance(86_400)
            await world.tick()
        alerts = _alerts(world, "RISK_LIMIT")
        # With fewer sessions the worst one counts, so the smaller budget was passed before.
        assert alerts.count(("WARNING", "Value at risk above its budget")) == 1
        over = ("INFO", "Value at risk within its budget")
        assert (over in alerts) is not bool(told)


async def test_a_missed_session_leaves_no_sample_of_risk() -> None:
    engine = FakeController(StrategyStatus("s", "running", 50_000, 50_000))
    async with virtual_fund(engine, ledger_enabled=True, var_budget=0) as world:
        await world.advance(86_400, step_s=86_400)
        for session in range(19):
            engine.set("s", realized_pnl=-session)
            world.clock.advance(86_400)
            await world.tick()
        engine.set("s", realized_pnl=-900)
        world.clock.advance(86_400 + 3_600)
        assert (await world.tick()).failed == ()
        assert (await world.fund.nav_history(limit=1))[0].missed
        assert _alerts(world, "RISK_LIMIT") == []
        world.clock.advance(86_400 - 3_600)
        await world.tick()
        assert _alerts(world, "RISK_LIMIT") == [("WARNING", "Value at risk above its budget")]


async def test_the_worst_pair_is_told_once_until_no_pair_is_above_the_limit() -> None:
    engine = FakeController(
        *(StrategyStatus(name, "running", 50_000, 50_000) for name in ("a", "b", "c"))
    )
    async with virtual_fund(engine, ledger_enabled=True) as world:
        for session in range(130):
            for name, sign in (("a", 1), ("b", 1 if session < 60 else -1), ("c", 0)):
                swing = (session * 7919 % 100) - 50
                pnl = engine.statuses[name].realized_pnl
                engine.set(name, realized_pnl=float(pnl) + sign * swing)
            world.clock.advance(86_400)
            await world.tick()
            if session == 40:
                assert _alerts(world, "CORRELATION") == [("WARNING", "Strategies move together")]
                world.fund.drill("oversight")
        assert _alerts(world, "CORRELATION") == [
            ("WARNING", "Strategies move together"),
            ("INFO", "No two strategies move together"),
        ]
