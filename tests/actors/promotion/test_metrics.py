"""Metrics: what may be recorded, and our own against the formulas written out over the whole
series.
"""

import itertools
import math
import statistics
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fundops.actors.promotion.metrics import (
    canonical_metrics,
    count_of,
    drawdown_of,
    figure_of,
)
from fundops.actors.promotion.track import Reading, Track
from fundops.wire.errors import MetricError

equities = st.lists(st.floats(1.0, 1e9), min_size=1, max_size=60)


def ended(track: Track, name: str) -> Track:
    return track.ended(name, measured=True, soft_drawdown=0.2, remembered=5)


def track_of(values: list[float], base: float = 100.0) -> Track:
    """Sessions that end at these equities, from a base, on 100 allocated."""
    track = Track().seen(Reading(base, 100.0, 0, 0))
    for number, value in enumerate(values):
        track = ended(track.seen(Reading(value, 100.0, number, number // 2)), f"day {number}")
    return track


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
        ({"sharpe": Decimal("NaN")}, "sharpe"),
        ({"sharpe": Decimal("sNaN")}, "sharpe"),
        ({"sharpe": 1j}, "sharpe"),
        ({"daily_loss": 6.0}, "daily_loss"),
        ({"daily_loss": -0.06}, "daily_loss"),
        ({"tracking_error": -1}, "tracking_error"),
        ({"tracking_error": 2.0}, "tracking_error"),
        ({"a\ud800": 1}, "metrics"),
        ({"sharpe": [1.2]}, "sharpe"),
        ({"sharpe": 10**400}, "sharpe"),
        ({"sharpe": 1e51}, "sharpe"),
        ({"of_mine": -1e51}, "of_mine"),
        ({"returns": [0.01, 1e51]}, "returns[1]"),
        ({"equity": [1e-9, 1.0]}, "equity[0]"),
        ({"max_drawdown": -0.08}, "max_drawdown"),
        ({"max_drawdown": 8.0}, "max_drawdown"),
        ({"max_drawdown_pct": -1}, "max_drawdown"),
        ({"max_drawdown_pct": 101}, "max_drawdown"),
        ({"win_rate": 1.01}, "win_rate"),
        ({"win_rate": -0.01}, "win_rate"),
        ({"n_trades": -1}, "n_trades"),
        ({"n_trades": 1.5}, "n_trades"),
        ({"fills": -1}, "fills"),
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


def test_a_series_of_huge_gains_still_has_its_drawdown() -> None:
    assert drawdown_of([1e49] * 100 + [-0.25, 0.1]) == 0.25


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
    assert all(isinstance(value, float) and math.isfinite(value) for value in found.values())


# -- our own


@given(equities)
def test_sharpe_is_the_textbook_formula_over_all_returns(values: list[float]) -> None:
    found = track_of(values)
    series = [100.0, *values]
    returns = [after / before - 1 for before, after in itertools.pairwise(series)]
    assert found.mean == pytest.approx(statistics.fmean(returns), rel=1e-6, abs=1e-9)
    if len(returns) < 2:
        assert found.sharpe(252) is None
        return
    sd = statistics.stdev(returns)
    assume(not 0 < sd < 1e-9)  # rounding noise of either way
    if sd == 0:
        assert found.sharpe(252) is None
    else:
        assert found.sharpe(252) == pytest.approx(
            math.sqrt(252) * statistics.fmean(returns) / sd, rel=1e-5, abs=1e-7
        )


@given(equities)
def test_drawdown_is_the_deepest_fall_from_any_earlier_peak(values: list[float]) -> None:
    series = [100.0, *values]
    deepest = max(1 - low / max(series[: at + 1]) for at, low in enumerate(series))
    found = track_of(values)
    assert found.max_drawdown == pytest.approx(deepest, abs=1e-12)
    assert found.metrics(252)["max_drawdown"] == found.max_drawdown


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20),
    st.integers(0, 50),
)
def test_win_rate_counts_the_trades_of_the_episode_and_break_evens_as_no_wins(
    days: list[tuple[int, int]], before: int
) -> None:
    trades, wins = before, before // 2
    found = Track().seen(Reading(100, 100, trades, wins))
    for number, (traded, won) in enumerate(days):
        trades, wins = trades + traded, wins + min(traded, won)
        found = ended(found.seen(Reading(100, 100, trades, wins)), f"{number}")
    in_episode = sum(traded for traded, _ in days)
    assert found.metrics(252)["n_trades"] == in_episode
    if in_episode:
        assert found.metrics(252)["win_rate"] == sum(min(pair) for pair in days) / in_episode
    else:
        assert "win_rate" not in found.metrics(252)


def test_an_episode_begins_at_its_first_status_and_not_at_its_allocation() -> None:
    found = track_of([142.5], base=150.0)
    assert found.last_return == pytest.approx(-0.05)
    assert found.max_drawdown == found.loss == pytest.approx(0.05)
    assert (found.base_equity, found.base_allocated) == (150.0, 100.0)


def test_the_base_of_an_episode_is_its_first_status() -> None:
    first = Reading(1_500.0, 1_000.0, 5_000, 4_000, 400.0, 100.0, "run 7", at_us=9)
    track = Track(session="2026-01-02").seen(first)
    assert (track.base_equity, track.base_allocated, track.base_realized) == (1_500, 1_000, 400)
    assert (track.base_trades, track.base_wins, track.base_us) == (5_000, 4_000, 9)
    assert (track.trades, track.wins, track.session) == (0, 0, "2026-01-02")


def test_one_session_or_constant_returns_have_no_sharpe_and_never_an_infinite_one() -> None:
    assert track_of([101.0]).sharpe(252) is None
    assert track_of([100.0] * 10).sharpe(252) is None
    assert "sharpe" not in track_of([100.0] * 10).metrics(252)


def test_the_status_of_the_base_is_one_only_until_a_session_has_ended() -> None:
    base = Reading(100.0, 100.0, 0, 0)
    assert track_of([]).is_base(base)
    assert not track_of([]).is_base(Reading(101.0, 100.0, 0, 0))
    assert not track_of([]).seen(Reading(100.0, 100.0, 1, 0)).is_base(base)
    assert not track_of([100.0]).is_base(base)


def test_a_session_without_a_status_gives_no_sample() -> None:
    found = track_of([101.0]).missed("later")
    assert (found.sessions, found.session) == (1, "later")
    assert Track().missed("later") == Track(session="later")


def test_the_first_status_after_a_missed_session_opens_the_running_one() -> None:
    track = track_of([100.0]).missed("day 1").missed("day 2").seen(Reading(110.0, 100.0, 0, 0))
    assert track.loss == 0.0
    track = track.seen(Reading(100.0, 100.0, 0, 0))
    assert track.opening == 110.0
    assert track.loss == pytest.approx(1 / 11)


def test_a_fall_in_a_missed_session_is_no_loss_of_the_next_and_belongs_to_its_return() -> None:
    track = track_of([100.0]).missed("day 1").seen(Reading(94.0, 100.0, 0, 0))
    # Capital that is given is no performance, in the missed session neither.
    track = track.seen(Reading(188.0, 194.0, 0, 0))
    assert track.loss == 0.0
    assert track.max_drawdown == pytest.approx(0.06)
    track = ended(track.seen(Reading(190.0, 194.0, 0, 0)), "day 2")
    assert track.last_return == pytest.approx(0.95 - 1)
    track = ended(track.seen(Reading(190.0, 194.0, 0, 0)), "day 3")
    assert (track.sessions, track.last_return) == (3, 0.0)


def test_a_session_that_ended_in_another_stage_was_missed_in_this_one() -> None:
    track, elsewhere = track_of([100.0]), Track(session="day 1")
    assert track.seen(Reading(96.0, 100.0, 0, 0)).loss == pytest.approx(0.04)
    track = track.seen(Reading(96.0, 100.0, 0, 0)).interrupted(elsewhere)
    track = track.seen(Reading(48.0, 50.0, 0, 0)).seen(Reading(47.0, 50.0, 0, 0))
    assert track.opening == 48.0
    assert track.loss == pytest.approx(1 / 48)
    assert track.max_drawdown == pytest.approx(1 - 0.96 * 47 / 48)


def test_the_loss_of_a_session_goes_on_after_a_time_in_another_stage() -> None:
    track = track_of([100.0]).seen(Reading(96.0, 100.0, 0, 0)).interrupted(Track(session="day 0"))
    track = track.seen(Reading(48.0, 50.0, 0, 0)).seen(Reading(47.0, 50.0, 0, 0))
    assert track.loss == pytest.approx(1 - 0.96 * 47 / 48)


def test_the_return_of_a_missed_session_leaves_out_the_time_in_another_stage() -> None:
    track = track_of([100.0]).missed("day 1").seen(Reading(90.0, 100.0, 0, 0))
    track = track.interrupted(Track(session="day 1")).seen(Reading(45.0, 50.0, 0, 0))
    assert ended(track, "day 2").last_return == pytest.approx(-0.1)


def test_an_episode_that_goes_on_leaves_out_the_trades_of_another_stage() -> None:
    track = Track().seen(Reading(1_000.0, 1_000.0, 10, 5, 0.0, None, "a"))
    track = track.seen(Reading(1_100.0, 1_000.0, 14, 8, 100.0, None, "a")).interrupted(Track())
    resumed = track.seen(Reading(1_300.0, 1_000.0, 30, 20, 300.0, 0.0, "b"))
    assert (resumed.trades, resumed.wins) == (4, 3)
    track = resumed.seen(Reading(1_300.0, 1_000.0, 32, 21, 300.0, 0.0, "b"))
    assert (track.trades, track.wins) == (6, 4)
    # A restart forgets the profit that was made in the other stage, too.
    track = resumed.seen(Reading(1_000.0, 1_000.0, 1, 1, 0.0, 0.0, "c"))
    assert (track.trades, track.wins, track.max_drawdown) == (5, 4, 0.0)


def test_an_opening_that_was_seen_late_outlives_a_crash() -> None:
    saved = track_of([100.0]).missed("day 1")
    assert saved.seen(Reading(100.0, 100.0, 0, 0)).is_worth_saving(saved)


@pytest.mark.parametrize(
    ("equity", "worth"), [(40.0, False), (39.99, False), (39.9, True), (80.2, False), (100.2, True)]
)
def test_a_loss_of_the_session_or_a_peak_outlives_a_crash_from_a_tenth_of_a_percent(
    equity: float, worth: bool
) -> None:
    # The drawdown was deeper in an earlier session.
    track = track_of([20.0, 40.0]).seen(Reading(40.0, 100.0, 1, 0))
    assert track.seen(Reading(equity, 100.0, 1, 0)).is_worth_saving(track) is worth


def test_an_episode_goes_on_from_an_equity_of_nothing() -> None:
    track = Track().seen(Reading(0.0, 0.0, 0, 0)).interrupted(Track())
    track = track.seen(Reading(50.0, 50.0, 0, 0)).seen(Reading(45.0, 50.0, 0, 0))
    assert (track.opening, track.loss) == pytest.approx((50.0, 0.1))
    resumed = ended(Track().seen(Reading(0.0, 0.0, 0, 0)).interrupted(Track()), "day 0")
    resumed = ended(resumed.seen(Reading(50.0, 50.0, 0, 0)), "day 1")
    assert (resumed.last_return, resumed.breaches) == (0.0, (False,))


def test_a_total_loss_in_a_session_that_began_with_nothing_ends_with_it() -> None:
    track = Track().seen(Reading(0.0, 0.0, 0, 0)).seen(Reading(-5.0, 0.0, 0, 0))
    assert track.loss == 1.0
    assert ended(track, "day 0").seen(Reading(100.0, 100.0, 0, 0)).loss == 0.0


@given(st.lists(st.floats(0.5, 1.5), max_size=9))
def test_a_small_equity_is_measured_as_a_large_one(values: list[float]) -> None:
    def of(scale: float) -> Track:
        track = Track().seen(Reading(scale, scale, 0, 0))
        for number, value in enumerate(values):
            track = track.seen(Reading(value * scale, scale, 0, 0))
            track = ended(track, f"{number}") if number % 2 else track.interrupted(track)
        return track

    small, large = of(1e-3), of(1e6)
    assert small.max_drawdown == pytest.approx(large.max_drawdown)
    assert (small.loss, small.mean) == pytest.approx((large.loss, large.mean))
    assert small.breaches == large.breaches


@pytest.mark.parametrize("measured", [False, True])
def test_a_session_without_a_sample_has_ended_too(measured: bool) -> None:
    before = Track() if measured else track_of([101.0])
    after = before.ended("later", measured=measured, soft_drawdown=None, remembered=5)
    assert after == msgspec.structs.replace(before, session="later")


def test_a_session_that_began_with_nothing_has_no_return() -> None:
    track = ended(Track().seen(Reading(0.0, 0.0, 0, 0)), "day 0")
    assert (track.sessions, track.session) == (0, "day 0")
    track = track.seen(Reading(100.0, 100.0, 0, 0)).seen(Reading(110.0, 100.0, 0, 0))
    assert ended(track, "day 1").last_return == pytest.approx(0.1)


def test_only_the_last_few_breaches_are_remembered_and_the_limit_itself_is_none() -> None:
    assert track_of([100, 80, 79.9, 79.9, 100, 70, 70]).breaches == (True, True, False, True, True)


def test_the_next_episode_keeps_nothing_but_the_session() -> None:
    found = track_of([110, 90]).next_episode()
    assert found == Track(session="day 1")
    assert not found.is_begun


@given(equities, st.integers(0, 59))
def test_a_track_that_was_stored_halfway_goes_on_as_if_nothing_had_happened(
    values: list[float], cut: int
) -> None:
    half = track_of(values[:cut])
    again = msgspec.json.decode(msgspec.json.encode(half), type=Track)
    assert again == half
    whole = track_of(values)
    for number, value in enumerate(values[cut:], start=cut):
        again = ended(again.seen(Reading(value, 100.0, number, number // 2)), f"day {number}")
    assert again == whole


# -- capital given and taken


@given(st.floats(-90.0, 400.0), st.lists(st.floats(0.8, 1.25), min_size=2, max_size=20))
def test_capital_given_or_taken_is_no_performance(flow: float, growth: list[float]) -> None:
    """The same returns on capital that changes half-way and on capital that does not give the
    same metrics.
    """
    steady = moved = Track().seen(Reading(100.0, 100.0, 0, 0))
    equity_steady = equity_moved = allocated = 100.0
    for number, factor in enumerate(growth):
        if number == len(growth) // 2:
            assume(equity_moved + flow > 1)
            equity_moved, allocated = equity_moved + flow, allocated + flow
        equity_steady, equity_moved = equity_steady * factor, equity_moved * factor
        day = f"day {number}"
        steady = ended(steady.seen(Reading(equity_steady, 100.0, 0, 0)), day)
        moved = ended(moved.seen(Reading(equity_moved, allocated, 0, 0)), day)
    assert moved.max_drawdown == pytest.approx(steady.max_drawdown, abs=1e-9)
    assert moved.mean == pytest.approx(steady.mean, abs=1e-9)


def test_capital_taken_within_a_session_is_no_drawdown() -> None:
    track = track_of([110.0])
    assert track.seen(Reading(60.0, 50.0, 0, 0)).max_drawdown == pytest.approx(0.0)
    assert track.seen(Reading(54.0, 50.0, 0, 0)).max_drawdown == pytest.approx(0.1)


def test_capital_that_comes_after_a_fall_does_not_hide_it() -> None:
    track = track_of([100.0]).seen(Reading(50.0, 100.0, 0, 0))
    track = ended(track.seen(Reading(9_950.0, 10_000.0, 0, 0)), "day 9")
    assert track.max_drawdown == pytest.approx(0.5)
    assert track.last_return == pytest.approx(-0.5)


def test_new_capital_after_a_total_loss_begins_anew() -> None:
    track = track_of([100.0]).seen(Reading(-5.0, 100.0, 0, 0))
    track = track.seen(Reading(95.0, 200.0, 0, 0))
    assert (track.opening, track.peak) == (95.0, 95.0)
    assert track.max_drawdown > 1
    assert track.metrics(252)["max_drawdown"] == 1.0


# -- within a session


def test_the_worst_moment_of_a_session_counts_though_it_recovers() -> None:
    track = track_of([])
    for _ in range(3):
        track = track.seen(Reading(40.0, 100.0, 0, 0))
        track = ended(track.seen(Reading(100.0, 100.0, 0, 0)), f"day {track.sessions}")
    assert track.max_drawdown == pytest.approx(0.6)
    assert track.last_return == 0.0


def test_the_loss_of_a_session_is_its_worst_and_ends_with_it() -> None:
    track = track_of([]).seen(Reading(94.0, 100.0, 0, 0)).seen(Reading(99.0, 100.0, 0, 0))
    assert track.loss == pytest.approx(0.06)
    track = ended(track.seen(Reading(94.0, 100.0, 0, 0)), "day 0")
    assert track.loss == pytest.approx(0.06)
    assert track.seen(Reading(94.0, 100.0, 0, 0)).loss == 0.0


def test_a_status_that_says_nothing_new_is_the_same_track() -> None:
    track = track_of([]).seen(Reading(101.0, 100.0, 3, 2))
    assert track.seen(Reading(101.0, 100.0, 3, 2)) is track


# -- counters that start anew


def test_a_count_of_trades_that_falls_is_carried_over() -> None:
    track = Track().seen(Reading(100.0, 100.0, 0, 0))
    for n_trades, n_wins in ((40, 30), (3, 1), (13, 6)):
        track = track.seen(Reading(100.0, 100.0, n_trades, n_wins))
        assert 0 <= track.wins <= track.trades
    assert (track.trades, track.wins) == (53, 36)


def test_a_new_run_counts_from_zero_though_its_count_is_higher() -> None:
    track = Track().seen(Reading(100.0, 100.0, 5, 1, run="a"))
    track = track.seen(Reading(100.0, 100.0, 9, 3, run="a"))
    track = track.seen(Reading(100.0, 100.0, 10, 4, run="b"))
    assert (track.trades, track.wins) == (14, 6)
    track = track.seen(Reading(100.0, 100.0, 11, 4, run=None))
    assert track.trades == 15
    assert track.seen(Reading(100.0, 100.0, 12, 5, run="c")).trades == 27


def test_a_count_of_wins_that_falls_alone_is_a_correction() -> None:
    track = Track().seen(Reading(100.0, 100.0, 0, 0)).seen(Reading(100.0, 100.0, 10, 8))
    track = track.seen(Reading(100.0, 100.0, 11, 7))
    assert (track.trades, track.wins) == (11, 8)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), max_size=30))
def test_counters_that_restart_at_any_moment_lose_no_trade_that_was_seen(
    steps: list[tuple[int, int, bool]],
) -> None:
    track, trades, wins, run, total = Track().seen(Reading(9.0, 9.0, 0, 0, run="0")), 0, 0, 0, 0
    for traded, won, restarts in steps:
        if restarts:
            trades, wins, run = 0, 0, run + 1
        trades, wins, total = trades + traded, wins + min(traded, won), total + traded
        track = track.seen(Reading(9.0, 9.0, trades, wins, run=str(run)))
        assert track.trades == total
        assert 0 <= track.wins <= track.trades


@pytest.mark.parametrize(("run", "n_trades"), [("b", 9), ("b", 0), (None, 0)])
def test_profit_that_a_restarted_engine_forgets_is_no_loss(run: str | None, n_trades: int) -> None:
    track = Track().seen(Reading(1_000.0, 1_000.0, 0, 0, 0.0, 0.0, "a"))
    track = track.seen(Reading(1_200.0, 1_000.0, 9, 5, 200.0, 0.0, "a"))
    track = track.seen(Reading(1_000.0, 1_000.0, n_trades, 0, 0.0, 0.0, run))
    assert track.max_drawdown == pytest.approx(0)
    assert track.loss == pytest.approx(0)
    assert ended(track, "day 0").last_return == pytest.approx(0.2)


@pytest.mark.parametrize(("run", "n_trades"), [("a", 0), ("a", 10), (None, 9), (None, 10)])
def test_a_loss_of_exactly_the_profit_is_a_loss(run: str | None, n_trades: int) -> None:
    """Without a run, fewer trades tell a restart; with one, it alone does."""
    track = Track().seen(Reading(1_000.0, 1_000.0, 0, 0, 0.0, 0.0, run))
    track = track.seen(Reading(1_500.0, 1_000.0, 9, 5, 500.0, 0.0, run))
    track = track.seen(Reading(1_000.0, 1_000.0, n_trades, 0, 0.0, 0.0, run))
    assert track.max_drawdown == pytest.approx(1 / 3)


def test_loss_that_a_restarted_engine_forgets_stays_a_loss() -> None:
    track = Track().seen(Reading(1_000.0, 1_000.0, 0, 0, 0.0, 0.0))
    track = track.seen(Reading(860.0, 1_000.0, 0, 0, -140.0, 0.0))
    track = track.seen(Reading(1_000.0, 1_000.0, 0, 0, 0.0, 0.0))
    assert track.seen(Reading(900.0, 1_000.0, 0, 0, -100.0, 0.0)).max_drawdown == pytest.approx(
        1 - 0.86 * 0.9
    )


def test_an_equity_of_a_broker_does_not_forget_with_the_counters() -> None:
    track = Track().seen(Reading(1_300.0, 1_000.0, 9, 5, 200.0, 0.0, "a"))
    track = track.seen(Reading(1_300.0, 1_000.0, 0, 0, 0.0, 0.0, "b"))
    assert (track.max_drawdown, track.peak) == (0.0, 1_300.0)
    # Nor does one whose figures added up by chance before.
    track = Track().seen(Reading(1_200.0, 1_000.0, 9, 5, 200.0, 0.0, "a"))
    track = track.seen(Reading(1_250.0, 1_000.0, 0, 0, 0.0, 0.0, "b"))
    assert (track.max_drawdown, track.peak) == (0.0, 1_250.0)


def test_a_fall_at_a_restart_counts_with_an_equity_of_a_broker() -> None:
    track = Track().seen(Reading(1_200.0, 1_000.0, 9, 5, 200.0, 0.0, "a"))
    track = track.seen(Reading(1_150.0, 1_000.0, 0, 0, 0.0, 0.0, "b"))
    assert track.max_drawdown == pytest.approx(50 / 1_200)


@pytest.mark.parametrize(
    ("before", "added_up"), [(100.0, True), (0.0, False)], ids=["now it does", "now it does not"]
)
def test_the_last_status_tells_whether_the_equity_adds_up(before: float, added_up: bool) -> None:
    base = 1_000.0 + before
    track = Track().seen(Reading(base, 1_000.0, 0, 0, 0.0, 0.0, "a"))
    profit = 200.0 if added_up else 300.0
    track = track.seen(Reading(1_000.0 + profit, 1_000.0, 9, 5, 200.0, 0.0, "a"))
    track = track.seen(Reading(1_000.0, 1_000.0, 0, 0, 0.0, 0.0, "b"))
    assert track.max_drawdown == pytest.approx(0.0 if added_up else 300 / 1_300)


def test_a_restart_right_after_the_first_status_is_one() -> None:
    track = Track().seen(Reading(1_200.0, 1_000.0, 9, 5, 200.0, 0.0, "a"))
    track = track.seen(Reading(1_050.0, 1_000.0, 10, 6, 50.0, 0.0, "b"))
    assert (track.trades, track.wins, track.max_drawdown) == (10, 6, 0.0)


def test_a_profit_is_known_as_realized_though_the_equity_stays() -> None:
    track = Track().seen(Reading(1_100.0, 1_000.0, 9, 5, 0.0, 100.0, "a"))
    track = track.seen(Reading(1_100.0, 1_000.0, 9, 5, 100.0, 0.0, "a"))
    track = track.seen(Reading(1_000.0, 1_000.0, 9, 5, 0.0, 0.0, "b"))
    assert track.max_drawdown == 0.0


@pytest.mark.parametrize(
    ("realized", "unrealized", "adds_up"),
    [(40.0, 60.0, True), (40.0, 61.0, False), (None, 60.0, False), (40.0, None, False)],
)
def test_an_equity_adds_up_to_figures_that_are_all_known(
    realized: float | None, unrealized: float | None, adds_up: bool
) -> None:
    assert Reading(1_100.0, 1_000.0, 0, 0, realized, unrealized).adds_up is adds_up


# -- records of earlier versions


def test_a_track_of_an_earlier_version_goes_on_from_its_last_session() -> None:
    old = msgspec.json.decode(
        b'{"sessions":2,"session":"day 1","mean":0.05,"m2":0.0001,"equity":110.0,"allocated":100.0,'
        b'"peak":110.0,"base_trades":7,"base_wins":3,"trades":5,"wins":2}',
        type=Track,
    )
    assert old.is_begun
    track = ended(old.seen(Reading(99.0, 100.0, 14, 6)), "day 2")
    assert (track.sessions, track.trades, track.wins) == (3, 7, 3)
    assert track.last_return == track.max_drawdown * -1 == pytest.approx(-0.1)


# -- figures from outside


class Scalar:
    """A number of another library, as numpy's scalars are."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __float__(self) -> float:
        return float(self.value)

    def __index__(self) -> int:
        return int(self.value)


class Rude:
    def __float__(self) -> float:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_numbers_of_other_libraries_are_numbers() -> None:
    metrics = {"sharpe": Decimal("1.5"), "n_trades": Scalar(60), "win_rate": Scalar(0.5)}
    assert canonical_metrics(metrics) == {"sharpe": 1.5, "n_trades": 60.0, "win_rate": 0.5}
    assert figure_of(Scalar(2.5)) == figure_of(Decimal("2.5")) == 2.5
    assert count_of(Scalar(3)) == 3


@pytest.mark.parametrize(
    "value", ["10", b"1", None, True, math.nan, -math.inf, 1e30, Rude(), [1.0]]
)
def test_anything_else_is_no_figure(value: Any) -> None:
    assert figure_of(value) is None
    assert count_of(value) is None


@pytest.mark.parametrize("value", [1.5, -1, 2**70])
def test_a_count_is_whole_and_bounded(value: Any) -> None:
    assert count_of(value) is None


def test_a_number_that_raises_is_refused_by_name() -> None:
    with pytest.raises(MetricError, match="sharpe"):
        canonical_metrics({"sharpe": Rude()})


class Array:
    """As an array of numpy: no sequence of Python, but it gives one."""

    def __init__(self, *values: object) -> None:
        self._values = values

    def tolist(self) -> list[object]:
        return list(self._values)


class Raising(list[float]):
    def __iter__(self) -> Iterator[float]:
        raise RuntimeError("not now")


@pytest.mark.parametrize("series", [[0.01, -0.02], (0.01, -0.02), Array(0.01, -0.02)])
def test_a_series_is_any_list_of_numbers(series: Any) -> None:
    assert canonical_metrics({"returns": series}) == {"returns": [0.01, -0.02]}


@pytest.mark.parametrize(
    "series",
    ["0.01", {0.01}, 0.01, [], Array(), Array([0.01]), Array(True), Raising([0.01]), Array],
)
def test_what_is_no_series_is_refused_by_name(series: Any) -> None:
    with pytest.raises(MetricError, match="returns"):
        canonical_metrics({"returns": series})
