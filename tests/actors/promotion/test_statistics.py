"""The statistics of a Sharpe ratio against published figures, and against scipy on any input."""

from __future__ import annotations

import math
import random
import re
import statistics
from collections.abc import Callable
from typing import Any

import pytest
import scipy.integrate
import scipy.stats
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fundops.actors.promotion.statistics import (
    NO_MOMENTS,
    Moments,
    deflated_sharpe_ratio,
    expected_maximum_sharpe,
    minimum_track_record_length,
    moments,
    p_pass_without_skill,
    probabilistic_sharpe_ratio,
    sharpe_standard_error,
)

SHARPES = st.floats(-3, 3)
LENGTHS = st.integers(2, 100_000)
SKEWS = st.floats(-4, 4)
# By how much kurtosis exceeds its least value beside a skew.
EXCESSES = st.floats(0, 50)
RETURNS = st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=60)


def kurtosis_of(skew: float, excess: float) -> float:
    return 1 + skew * skew + excess


# -- published figures


def test_the_psr_is_that_of_the_published_example() -> None:
    # 2012: a hedge fund index of 24 months, and the same under normal returns.
    assert probabilistic_sharpe_ratio(0.458, 0, 24, -2.448, 10.164) == pytest.approx(
        0.913361, abs=5e-7
    )
    assert probabilistic_sharpe_ratio(0.458, 0, 24) == pytest.approx(0.981675, abs=5e-7)


@pytest.mark.parametrize(
    ("periods", "skew", "kurtosis", "years"),
    [(252, 0, 3, 2.73), (52, 0, 3, 2.83), (12, 0, 3, 3.24), (12, -0.72, 5.78, 4.99)],
)
def test_the_minimum_track_record_is_that_of_the_published_table(
    periods: int, skew: float, kurtosis: float, years: float
) -> None:
    # 2012: to tell an annual 2 from 1 with a confidence of 95%, by daily, weekly, monthly returns.
    annual = math.sqrt(periods)
    length = minimum_track_record_length(2 / annual, 1 / annual, 0.95, skew, kurtosis)
    assert length / periods == pytest.approx(years, abs=0.005)


@pytest.mark.parametrize(
    ("sharpe", "sessions", "error"),
    [(0.5, 12, 0.306), (0.5, 60, 0.137), (1.0, 24, 0.250), (1.0, 500, 0.055), (3.0, 36, 0.391)],
)
def test_the_standard_error_is_that_of_the_published_table(
    sharpe: float, sessions: int, error: float
) -> None:
    # Lo (2002), table 1, divides by n where this one divides by n - 1.
    assert sharpe_standard_error(sharpe, sessions + 1) == pytest.approx(error, abs=0.0005)


@pytest.mark.parametrize(
    ("trials", "skew", "kurtosis", "deflated"),
    [(100, -3, 10, 0.900397), (46, -3, 10, 0.950502), (88, 0, 3, 0.950491)],
)
def test_the_dsr_is_that_of_the_published_example(
    trials: int, skew: float, kurtosis: float, deflated: float
) -> None:
    # 2014: an annual 2.5 from five years of days, the trials' annual Sharpes with variance 1/2.
    found = deflated_sharpe_ratio(2.5 / math.sqrt(250), 1_250, 0.5 / 250, trials, skew, kurtosis)
    assert found == pytest.approx(deflated, abs=5e-7)


def test_the_expected_maximum_is_that_of_the_published_examples() -> None:
    # 2014, and Bailey et al., "Pseudo-mathematics and financial charlatanism" (2014).
    assert expected_maximum_sharpe(0.5 / 250, 100) == pytest.approx(0.1132, abs=5e-5)
    assert expected_maximum_sharpe(1, 10) == pytest.approx(1.57, abs=0.005)


def test_a_strategy_without_skill_passes_an_annual_one_after_14_sessions_with_41_percent() -> None:
    assert p_pass_without_skill(1 / math.sqrt(252), 14) == pytest.approx(0.4087, abs=5e-5)


# -- against scipy


@given(SHARPES, SHARPES, LENGTHS, SKEWS, EXCESSES)
@example(0.0, 0.0, 2, 0.0, 2.0)
def test_the_psr_is_the_normal_probability_of_the_lead_in_standard_errors(
    sharpe: float, benchmark: float, n: int, skew: float, excess: float
) -> None:
    kurtosis = kurtosis_of(skew, excess)
    variance = 1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe**2
    assume(variance > 1e-9)
    expected = scipy.stats.norm.cdf((sharpe - benchmark) * math.sqrt((n - 1) / variance))
    found = probabilistic_sharpe_ratio(sharpe, benchmark, n, skew, kurtosis)
    assert found == pytest.approx(float(expected), rel=1e-7, abs=1e-300)


@given(SHARPES, LENGTHS)
@example(1 / math.sqrt(252), 14)
@example(0.0, 2)
@example(1e-200, 100_000)
def test_the_chance_without_skill_is_that_of_students_t(sharpe: float, n: int) -> None:
    # scipy takes another way where t is tiny, and is off by 1e-9 there.
    expected = float(scipy.stats.t.sf(sharpe * math.sqrt(n), n - 1))
    assert p_pass_without_skill(sharpe, n) == pytest.approx(expected, rel=1e-8, abs=1e-250)


@given(SHARPES, LENGTHS)
def test_the_chances_of_a_sharpe_and_of_its_opposite_add_up_to_one(sharpe: float, n: int) -> None:
    both = p_pass_without_skill(sharpe, n) + p_pass_without_skill(-sharpe, n)
    assert both == pytest.approx(1, abs=1e-12)


@given(st.floats(0.01, 3), st.floats(0.01, 3), st.floats(0.51, 0.999), SKEWS, EXCESSES)
def test_the_psr_reaches_its_confidence_at_the_minimum_track_record(
    benchmark: float, lead: float, confidence: float, skew: float, excess: float
) -> None:
    kurtosis, sharpe = kurtosis_of(skew, excess), benchmark + lead
    assume(1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe**2 > 1e-6)
    length = minimum_track_record_length(sharpe, benchmark, confidence, skew, kurtosis)
    before, after = max(2, math.ceil(length) - 1), max(2, math.ceil(length))
    reached = probabilistic_sharpe_ratio(sharpe, benchmark, after, skew, kurtosis)
    assert reached >= confidence - 1e-9
    if length > 2:
        assert probabilistic_sharpe_ratio(sharpe, benchmark, before, skew, kurtosis) < (
            confidence + 1e-9
        )


@pytest.mark.parametrize(
    ("trials", "off"), [(2, -0.08), (3, 0.008), (10, 0.0235), (100, 0.0095), (1_000_000, 0.0015)]
)
def test_the_expected_maximum_is_as_far_from_the_exact_one_as_it_says(
    trials: int, off: float
) -> None:
    def weighted(value: float) -> float:
        density = scipy.stats.norm.logpdf(value) + (trials - 1) * scipy.stats.norm.logcdf(value)
        return float(value * trials * math.exp(density))

    exact = scipy.integrate.quad(weighted, -10, 12, points=[0, 2, 5], limit=400)[0]
    found = expected_maximum_sharpe(1, trials) / exact - 1
    assert min(0, off) <= found <= max(0, off)
    assert abs(found) > abs(off) * 0.5  # the documented figure is no mere bound


def test_the_expected_maximum_is_what_trials_without_skill_show() -> None:
    draw = random.Random(7).gauss
    best = [max(draw(0, 0.1) for _ in range(50)) for _ in range(4_000)]
    assert statistics.fmean(best) == pytest.approx(expected_maximum_sharpe(0.01, 50), rel=0.02)


@given(RETURNS)
@example([0.01, 0.02])
def test_the_moments_are_those_of_the_plain_formulas(returns: list[float]) -> None:
    found = moments(returns)
    assert found.n == len(returns)
    assert found.mean == pytest.approx(statistics.fmean(returns), abs=1e-12)
    assert found.sd == pytest.approx(statistics.stdev(returns), abs=1e-9)
    assume(statistics.stdev(returns) > 1e-4)
    assert found.skew == pytest.approx(float(scipy.stats.skew(returns)), abs=1e-6)
    expected = float(scipy.stats.kurtosis(returns, fisher=False))
    assert found.kurtosis == pytest.approx(expected, abs=1e-6, rel=1e-6)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6))
@example([0.0, 1.0])
@example([0.0, 0.0, 1.0])
def test_every_series_has_a_standard_error_and_no_series_breaks_pearsons_inequality(
    returns: list[float],
) -> None:
    found = moments(returns)
    if found.sharpe is None:
        assert (found.skew, found.kurtosis) == (None, None)
        return
    assert found.skew is not None
    assert found.kurtosis is not None
    assert sharpe_standard_error(found.sharpe, found.n, found.skew, found.kurtosis) >= 0
    assert (
        0 <= probabilistic_sharpe_ratio(found.sharpe, 0, found.n, found.skew, found.kurtosis) <= 1
    )


# -- at the edges


def test_moments_grow_by_one_return_at_a_time() -> None:
    returns = [0.01, -0.02, 0.015, 0.0, 0.03]
    assert moments(returns[:3]).after(returns[3]).after(returns[4]) == moments(iter(returns))
    assert NO_MOMENTS.after(0.01) == Moments(1, 0.01, 0.0, 0.0, 0.0)


def test_moments_keep_their_digits_far_from_zero() -> None:
    # Sums of powers would have lost all of them: 1e8 squared is 1e16.
    found = moments([1e8 + value for value in (1.0, 2.0, 3.0, 5.0, 4.0)])
    assert found.sd == pytest.approx(statistics.stdev([1, 2, 3, 5, 4]))
    assert found.skew == pytest.approx(0, abs=1e-6)


def test_a_series_that_varies_by_rounding_alone_has_no_sharpe_ratio_however_large_its_mean() -> (
    None
):
    found = moments(1e5 + (number % 3) * 1.5e-11 for number in range(30))
    assert found.sd is not None
    assert found.sd > 1e-12
    assert (found.sharpe, found.shape) == (None, None)


def test_a_constant_series_has_no_sharpe_ratio_and_no_shape() -> None:
    found = moments([0.01] * 20)
    assert (found.sharpe, found.skew, found.kurtosis) == (None, None, None)
    assert found.sd == pytest.approx(0, abs=1e-15)


def test_a_single_return_has_no_standard_deviation() -> None:
    assert NO_MOMENTS.after(0.01).sd is None
    assert NO_MOMENTS.after(0.01).sharpe is None
    with pytest.raises(ValueError, match=r"returns: 1 of them .* 2 are needed"):
        moments([0.01])


def test_an_estimate_that_cannot_vary_is_certain() -> None:
    # Two values of which the rarer is high: its Sharpe is 2 / skew, and its variance is zero.
    assert sharpe_standard_error(1, 10, 2, 5) == 0
    assert probabilistic_sharpe_ratio(1, 0.5, 10, 2, 5) == 1
    assert probabilistic_sharpe_ratio(1, 1, 10, 2, 5) == 0.5
    assert probabilistic_sharpe_ratio(1, 2, 10, 2, 5) == 0


def test_no_length_proves_a_sharpe_that_is_not_above_its_benchmark() -> None:
    assert minimum_track_record_length(0.1, 0.1, 0.95) == math.inf
    assert minimum_track_record_length(0.05, 0.1, 0.95) == math.inf


def test_a_confidence_of_a_half_needs_no_record() -> None:
    assert minimum_track_record_length(0.1, 0.2, 0.5) == 1
    assert minimum_track_record_length(0.1, 0.0, 0.3) == 1


def test_one_trial_selects_nothing() -> None:
    assert expected_maximum_sharpe(0.5, 1) == 0
    assert deflated_sharpe_ratio(0.1, 100, 0.5, 1) == probabilistic_sharpe_ratio(0.1, 0, 100)


def test_more_trials_never_raise_the_dsr() -> None:
    found = [deflated_sharpe_ratio(0.2, 250, 0.01, 10**power) for power in range(20)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.99
    assert found[-1] < 0.01


NAN = math.nan


@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (probabilistic_sharpe_ratio, (0.1, 0, 1), "n: 1"),
        (probabilistic_sharpe_ratio, (0.1, 0, NAN), "n: nan"),
        (probabilistic_sharpe_ratio, (NAN, 0, 10), "sharpe: nan"),
        (probabilistic_sharpe_ratio, (0.1, NAN, 10), "benchmark: nan"),
        (probabilistic_sharpe_ratio, (0.1, 0, 10, NAN), "skew: nan"),
        (probabilistic_sharpe_ratio, (0.1, 0, 10, 0, NAN), "kurtosis: nan"),
        (probabilistic_sharpe_ratio, (0.1, 0, 10, 2, 4.9), "kurtosis: 4.9 is below 1 + skew^2"),
        (sharpe_standard_error, (math.inf, 10), "sharpe: inf"),
        (sharpe_standard_error, (1e200, 10), "sharpe: 1e+200"),
        (sharpe_standard_error, (0.1, 0), "n: 0"),
        (minimum_track_record_length, (0.1, 0, 0), "confidence: 0"),
        (minimum_track_record_length, (0.1, 0, 1), "confidence: 1"),
        (minimum_track_record_length, (0.1, 0, NAN), "confidence: nan"),
        (minimum_track_record_length, (0.1, -math.inf, 0.9), "benchmark: -inf"),
        (expected_maximum_sharpe, (-0.1, 10), "variance: -0.1"),
        (expected_maximum_sharpe, (NAN, 10), "variance: nan"),
        (expected_maximum_sharpe, (0.1, 0), "trials: 0"),
        (expected_maximum_sharpe, (0.1, NAN), "trials: nan"),
        (deflated_sharpe_ratio, (0.1, 10, -1, 5), "variance: -1"),
        (deflated_sharpe_ratio, (0.1, 1, 0.1, 5), "n: 1"),
        (p_pass_without_skill, (NAN, 10), "sharpe: nan"),
        (p_pass_without_skill, (0.1, 1), "n: 1"),
        (moments, ([0.1, NAN],), "returns[1]: nan"),
        (moments, ([math.inf, 0.1],), "returns[0]: inf"),
        (moments, ([],), "returns: 0"),
    ],
)
def test_an_argument_without_an_answer_is_named(
    function: Callable[..., Any], arguments: tuple[Any, ...], named: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(named)}"):
        function(*arguments)


@pytest.mark.parametrize("count", [10**51, 10**310, math.inf])
def test_a_count_without_sense_is_refused_by_name(count: Any) -> None:
    with pytest.raises(ValueError, match=r"^trials: more than 1e\+50"):
        expected_maximum_sharpe(1.0, count)
    with pytest.raises(ValueError, match=r"^n: more than 1e\+50"):
        p_pass_without_skill(0.1, count)
