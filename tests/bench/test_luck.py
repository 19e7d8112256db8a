"""The luck bench at smoke size: its exact figures, its simulations, and the rules behind them."""

from __future__ import annotations

import math
import random
import statistics
from itertools import islice, pairwise

import pytest
import scipy.stats

from fundops.actors.promotion.track import Reading, Track
from fundops.bench import luck
from fundops.bench.harness import Result, table
from fundops.bench.luck import Session
from fundops.wire.promotion import PromotionStage

ONE = 1 / math.sqrt(luck.YEAR)  # an annual Sharpe ratio of 1, per session
SCALED = PromotionStage.Live_Scaled


@pytest.fixture(scope="module")
def result() -> Result:
    return luck.run(0.006)


def test_the_exact_chances_are_those_of_the_readme(result: Result) -> None:
    assert result.figure("no skill: one look after 14 sessions, exact") == pytest.approx(
        41, abs=0.5
    )
    assert result.figure("Sharpe 2: one look after 14 sessions, exact") == pytest.approx(
        59, abs=0.5
    )


@pytest.mark.parametrize(("sharpe", "n"), [(2.0, 14), (-1.0, 14), (0.5, 90), (3.0, 2)])
def test_the_chance_with_skill_is_that_of_the_noncentral_t(sharpe: float, n: int) -> None:
    root = math.sqrt(n)
    expected = scipy.stats.nct.sf(ONE * root, n - 1, sharpe * ONE * root)
    assert luck.p_pass(ONE, n, sharpe) == pytest.approx(float(expected), abs=1e-6)


def test_a_simulated_look_is_as_likely_as_the_exact_one(result: Result) -> None:
    for who in ("no skill", "Sharpe 2"):
        exact = result.figure(f"{who}: one look after 14 sessions, exact")
        found = result.figure(f"{who}, normal returns: one look after 14 sessions")
        assert found == pytest.approx(exact, abs=4)  # 2,000 paths: a standard error of 1.1


def test_daily_looks_pass_72_percent_without_skill_and_three_such_gates_38_percent() -> None:
    draw = random.Random(3).gauss
    paths = 12_000
    passed = sum(
        luck.first_pass(ONE, iter(lambda: draw(0, 1), None)) is not None for _ in range(paths)
    )
    assert passed / paths == pytest.approx(0.72, abs=0.012)
    assert (passed / paths) ** 3 == pytest.approx(0.376, abs=0.02)


def test_a_path_passes_when_the_measured_sharpe_ratio_does() -> None:
    generator = random.Random(5)
    for _ in range(60):
        returns = [generator.gauss(0, 0.01) for _ in range(luck.LAST_LOOK)]
        track, equity, expected = Track().seen(Reading(1.0, 1.0, 0, 0)), 1.0, None
        for n, value in enumerate(returns, start=1):
            equity *= 1 + value
            track = track.seen(Reading(equity, 1.0, 0, 0))
            track = track.ended(str(n), measured=True, soft_drawdown=0.2, remembered=5)
            sharpe = track.sharpe(luck.YEAR)
            if expected is None and n >= luck.FIRST_LOOK and sharpe is not None and sharpe >= 1:
                expected = n
        assert luck.first_pass(ONE, iter(returns)) == expected


def test_a_session_that_loses_five_percent_is_a_hard_demotion() -> None:
    assert luck.demotion(SCALED, iter([Session(-0.01, 0.0), Session(-0.0501, 0.0)])) == "hard"
    assert luck.demotion(SCALED, iter([Session(-0.01, 0.0), Session(-0.0499, 0.0)])) is None


def test_a_drawdown_that_stays_is_a_soft_demotion_once_there_are_twenty_sessions() -> None:
    fall = [Session(-0.04, -0.04)] * 6  # 21.7% below the peak
    flat = [Session(0.0, 0.0)] * 30
    assert luck.demotion(SCALED, iter([*fall, *flat[:13]])) is None
    assert luck.demotion(SCALED, iter([*fall, *flat[:14]])) == "soft"
    assert luck.demotion(SCALED, iter([*fall, Session(-0.045, -0.045), *flat])) == "hard"


def test_the_low_of_a_normal_session_is_that_of_a_brownian_path() -> None:
    sessions = list(islice(luck._normal(0, 0.01, random.Random(2)), 20_000))
    assert all(session.low <= min(0, session.close) for session in sessions)
    # The reflection principle: the low is as likely to be below as two tails of the close.
    expected = 2 * statistics.NormalDist().cdf(-1)
    found = sum(session.low < -0.01 for session in sessions) / len(sessions)
    assert found == pytest.approx(expected, abs=0.01)


def test_real_sessions_have_the_volatility_asked_for_and_follow_on_each_other() -> None:
    sessions = list(islice(luck._sessions("real", 0.15, 1.0, random.Random(4)), 20_000))
    closes = [session.close for session in sessions]
    assert statistics.stdev(closes) * math.sqrt(luck.YEAR) == pytest.approx(0.15, rel=0.1)
    assert all(session.low <= session.close for session in sessions)
    history, mean, sd = luck._history()
    scaled = [ONE * 0.15 * ONE + 0.15 * ONE / sd * (session.close - mean) for session in history]
    order = {round(close, 12): place for place, close in enumerate(scaled)}
    places = [order[round(close, 12)] for close in closes]
    followed = sum(after == before + 1 for before, after in pairwise(places))
    assert followed / len(places) == pytest.approx(1 - 1 / luck.BLOCK, abs=0.01)


def test_one_seed_gives_one_checksum(result: Result) -> None:
    again = luck.run(0.006)
    assert [row.checksum for row in again.rows] == [row.checksum for row in result.rows]
    assert again.figures == result.figures


def test_wilder_strategies_are_demoted_more_often(result: Result) -> None:
    for kind in ("normal", "real"):
        rates = [
            sum(
                result.figure(
                    f"live-scaled, volatility {volatility:.0%}, {kind} returns: {how} demotion"
                    " within a year"
                )
                for how in ("soft", "hard")
            )
            for volatility in luck.VOLATILITIES
        ]
        assert rates == sorted(rates)
        assert rates[-1] > rates[0]
    assert "hard demotion within a year" in table(result)
