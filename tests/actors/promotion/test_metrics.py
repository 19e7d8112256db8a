"""Metrics: what may be recorded, and our own against the formulas written out over the whole
series.
"""

import itertools
import math
import statistics
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fundops.actors.promotion.metrics import Sample, Track, canonical_metrics
from fundops.wire.errors import MetricError

equities = st.lists(st.floats(1.0, 1e9), min_size=1, max_size=60)


def track_of(values: list[float], allocated: float = 100.0, before: Track = Track()) -> Track:  # noqa: B008  frozen
    for number, value in enumerate(values):
        sample = Sample(f"day {number}", value, allocated, number, number // 2)
        before = before.after(sample, soft_drawdown=0.2, remembered=5)
    return before


# -- recorded by others


def test_percent_and_fraction_of_a_drawdown_are_one_metric() -> None:
    assert canonical_metrics({"max_drawdown_pct": 8.0}) == {"max_drawdown": 0.08}
    assert canonical_metrics({"max_drawdown_pct": 8.0, "max_drawdown": 0.08}) == {
        "max_drawdown": 0.08
    }
    assert canonical_metrics({"max_drawdown_pct": 0.07 * 100, "max_drawdown": 0.07}) == {
        "max_drawdown": 0.07
    }
    with pytest.raises(MetricError, match="disagrees"):
        canonical_metrics({"max_drawdown_pct": 8.0, "max_drawdown": 0.09})


def test_none_is_missing_and_an_unknown_metric_is_kept() -> None:
    assert canonical_metrics({"sharpe": None, "n_trades": 3, "calmar": 2}) == {
        "n_trades": 3.0,
        "calmar": 2.0,
    }
    assert canonical_metrics({}) == {}


@pytest.mark.parametrize(
    ("metrics", "field"),
    [
        ({"sharpe": math.nan}, "sharpe"),
        ({"sharpe": math.inf}, "sharpe"),
        ({"sharpe": True}, "sharpe"),
        ({"sharpe": "1.2"}, "sharpe"),
        ({"sharpe": Decimal(1)}, "sharpe"),
        ({"sharpe": [1.2]}, "sharpe"),
        ({"sharpe": 10**400}, "sharpe"),
        ({"max_drawdown": -0.08}, "max_drawdown"),
        ({"max_drawdown": 8.0}, "max_drawdown"),
        ({"max_drawdown_pct": -1}, "max_drawdown"),
        ({"max_drawdown_pct": 101}, "max_drawdown"),
        ({"win_rate": 1.01}, "win_rate"),
        ({"win_rate": -0.01}, "win_rate"),
        ({"n_trades": -1}, "n_trades"),
        ({"n_trades": 1.5}, "n_trades"),
        ({"": 1}, "metrics"),
        ({"x" * 65: 1}, "metrics"),
        ({5: 1}, "metrics"),
        ([("sharpe", 1)], "metrics"),
    ],
)
def test_what_is_no_metric_is_refused_by_name(metrics: Any, field: str) -> None:
    with pytest.raises(MetricError) as refusal:
        canonical_metrics(metrics)
    assert refusal.value.field == field


def test_percent_sent_as_a_fraction_is_told_where_it_belongs() -> None:
    with pytest.raises(MetricError, match="max_drawdown_pct"):
        canonical_metrics({"max_drawdown": 8.0})


@given(
    st.dictionaries(
        st.text(max_size=70), st.floats() | st.integers() | st.booleans() | st.none(), max_size=6
    )
)
def test_whatever_is_accepted_is_finite(metrics: dict[str, Any]) -> None:
    try:
        found = canonical_metrics(metrics)
    except MetricError:
        return
    assert all(math.isfinite(value) for value in found.values())


# -- our own


@given(equities)
def test_sharpe_is_the_textbook_formula_over_all_returns(values: list[float]) -> None:
    found = track_of(values)
    series = [100.0, *values]
    returns = [after / before - 1 for before, after in itertools.pairwise(series)]
    assert found.mean == pytest.approx(statistics.fmean(returns), rel=1e-6, abs=1e-9)
    if len(returns) < 2:
        assert found.sharpe() is None
        return
    sd = statistics.stdev(returns)
    assume(not 0 < sd < 1e-9)  # rounding noise of either way
    if sd == 0:
        assert found.sharpe() is None
    else:
        assert found.sharpe() == pytest.approx(
            math.sqrt(252) * statistics.fmean(returns) / sd, rel=1e-5, abs=1e-7
        )


@given(equities)
def test_drawdown_is_the_deepest_fall_from_any_earlier_peak(values: list[float]) -> None:
    series = [100.0, *values]
    deepest = max(1 - low / max(series[: at + 1]) for at, low in enumerate(series))
    found = track_of(values)
    assert found.max_drawdown == pytest.approx(deepest, abs=1e-12)
    assert found.metrics()["max_drawdown"] == found.max_drawdown
    assert found.drawdown_at(values[-1]) == pytest.approx(1 - values[-1] / max(series), abs=1e-12)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20),
    st.integers(0, 50),
)
def test_win_rate_counts_the_trades_of_the_episode_and_break_evens_as_no_wins(
    days: list[tuple[int, int]], before: int
) -> None:
    trades, wins = before, before // 2
    found = Track().next_episode(trades, wins)
    for number, (traded, won) in enumerate(days):
        trades, wins = trades + traded, wins + min(traded, won)
        found = found.after(
            Sample(f"{number}", 100, 100, trades, wins), soft_drawdown=0.2, remembered=5
        )
    in_episode = sum(traded for traded, _ in days)
    assert found.metrics()["n_trades"] == in_episode
    if in_episode:
        assert found.metrics()["win_rate"] == sum(min(pair) for pair in days) / in_episode
    else:
        assert "win_rate" not in found.metrics()


def test_an_episode_begins_at_the_capital_allocated_to_it() -> None:
    found = track_of([95.0])
    assert found.last_return == pytest.approx(-0.05)
    assert found.max_drawdown == pytest.approx(0.05)


def test_one_session_or_constant_returns_have_no_sharpe_and_never_an_infinite_one() -> None:
    assert track_of([101.0]).sharpe() is None
    assert track_of([100.0] * 10).sharpe() is None
    assert "sharpe" not in track_of([100.0] * 10).metrics()


def test_nothing_allocated_is_no_session() -> None:
    found = Track().after(Sample("a", 5.0, 0.0, 3, 1), soft_drawdown=0.2, remembered=5)
    assert (found.sessions, found.session) == (0, "a")


def test_only_the_last_few_breaches_are_remembered_and_the_limit_itself_is_none() -> None:
    assert track_of([100, 80, 79.9, 79.9, 100, 70, 70]).breaches == (True, True, False, True, True)


def test_the_next_episode_keeps_nothing_but_the_counts_and_the_session() -> None:
    found = track_of([110, 90]).next_episode(7, 3)
    assert found == Track(session="day 1", base_trades=7, base_wins=3)


@given(equities, st.integers(0, 59))
def test_a_track_that_was_stored_halfway_goes_on_as_if_nothing_had_happened(
    values: list[float], cut: int
) -> None:
    half = track_of(values[:cut])
    again = msgspec.json.decode(msgspec.json.encode(half), type=Track)
    assert again == half
    whole = track_of(values)
    for number, value in enumerate(values[cut:], start=cut):
        sample = Sample(f"day {number}", value, 100.0, number, number // 2)
        again = again.after(sample, soft_drawdown=0.2, remembered=5)
    assert again == whole


# -- capital given and taken


@given(st.floats(-90.0, 400.0), st.lists(st.floats(0.8, 1.25), min_size=2, max_size=20))
def test_capital_given_or_taken_is_no_performance(flow: float, growth: list[float]) -> None:
    """The same returns on capital that changes half-way and on capital that does not give the
    same metrics.
    """
    steady, moved = Track(), Track()
    equity_steady = equity_moved = allocated = 100.0
    for number, factor in enumerate(growth):
        if number == len(growth) // 2:
            assume(equity_moved + flow > 1)
            equity_moved, allocated = equity_moved + flow, allocated + flow
        equity_steady, equity_moved = equity_steady * factor, equity_moved * factor
        day = f"day {number}"
        steady = steady.after(
            Sample(day, equity_steady, 100.0, 0, 0), soft_drawdown=0.2, remembered=5
        )
        moved = moved.after(
            Sample(day, equity_moved, allocated, 0, 0), soft_drawdown=0.2, remembered=5
        )
    assert moved.max_drawdown == pytest.approx(steady.max_drawdown, abs=1e-9)
    assert moved.mean == pytest.approx(steady.mean, abs=1e-9)


def test_capital_taken_within_a_session_is_no_drawdown() -> None:
    track = track_of([110.0])
    assert track.drawdown_at(track.rebased(60.0, 50.0)) == pytest.approx(0.0)
    assert track.drawdown_at(track.rebased(54.0, 50.0)) == pytest.approx(0.1)
