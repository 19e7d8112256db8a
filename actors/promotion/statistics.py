"""How much a Sharpe ratio proves: its standard error, PSR, MinTRL and DSR, and how far luck gets.

Every Sharpe ratio here is per period, as its returns are: an annual one is divided by the square
root of the periods in a year. Kurtosis is not in excess, so that of a normal distribution is 3.
Probabilities and confidences are fractions. `n` counts returns. The formulas take returns as
independent and identically distributed; correlated returns prove less than they say.

Pure functions of the standard library. An argument that has no answer raises ValueError naming it.

Sources: Lo, "The Statistics of Sharpe Ratios" (Financial Analysts Journal 58(4), 2002); Mertens,
"Comments on variance of the IID estimator in Lo" (2002); Bailey and Lopez de Prado, "The Sharpe
Ratio Efficient Frontier" (Journal of Risk 15(2), 2012; equations as numbered in SSRN 1821643 of
July 2012), here 2012, and "The Deflated Sharpe Ratio" (Journal of Portfolio Management 40(5),
2014), here 2014; NIST Digital Library of Mathematical Functions, here DLMF.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist
from typing import Final, NamedTuple

__all__ = [
    "LARGEST",
    "NO_MOMENTS",
    "Moments",
    "deflated_sharpe_ratio",
    "expected_maximum_sharpe",
    "minimum_track_record_length",
    "moments",
    "p_pass_without_skill",
    "probabilistic_sharpe_ratio",
    "sharpe_standard_error",
]

# Larger figures are no ratios of returns, and their squares could overflow.
LARGEST: Final = 1e50

# Below this, or this part of the mean, a standard deviation is rounding noise: the ratio over it
# means nothing.
_SD_FLOOR: Final = 1e-12

# How far the moments of a sample may miss Pearson's inequality by rounding, relative to kurtosis.
_ROUNDING: Final = 1e-9

_EULER_MASCHERONI: Final = 0.5772156649015329
_NORMAL: Final = NormalDist()


class Moments(NamedTuple):
    """The moments of a series of returns, which may grow by one return at a time.

    `m2`, `m3` and `m4` are sums of powers of the deviations from the mean. They are updated by the
    formulas of Pébay (Sandia report SAND2008-6212, 2008, equation 2.1 with one new value), which do
    not cancel digits away as sums of the powers themselves do.
    """

    n: int
    mean: float
    m2: float
    m3: float
    m4: float

    def after(self, value: float) -> Moments:
        """The moments with one more return. Raises: ValueError naming `returns`."""
        _check_finite(f"returns[{self.n}]", value)
        n = self.n + 1
        delta = value - self.mean
        step = delta / n
        term = delta * step * self.n
        square = step * step
        return Moments(
            n,
            self.mean + step,
            self.m2 + term,
            self.m3 + term * step * (n - 2) - 3 * step * self.m2,
            self.m4
            + term * square * (n * n - 3 * n + 3)
            + 6 * square * self.m2
            - 4 * step * self.m3,
        )

    @property
    def sd(self) -> float | None:
        """The standard deviation with n - 1, as in the Sharpe ratio; None for fewer than 2."""
        return math.sqrt(self.m2 / (self.n - 1)) if self.n > 1 else None

    @property
    def sharpe(self) -> float | None:
        """Mean over standard deviation, per period; None where it is undefined, never infinite."""
        sd = self.sd
        if sd is None or sd < _SD_FLOOR * max(1.0, abs(self.mean)):
            return None
        return self.mean / sd

    @property
    def skew(self) -> float | None:
        """The sample skewness g1 = (m3/n) / (m2/n)^1.5; None where the Sharpe ratio is.

        It is the plain ratio of sample moments and not the estimator with less bias, as in the
        numerical examples of the sources. Besides, g1 and b2 obey Pearson's inequality in every
        sample, so that the variance of a Sharpe ratio is never negative.
        """
        if self.sharpe is None:
            return None
        return self.m3 / self.n / math.pow(self.m2 / self.n, 1.5)

    @property
    def kurtosis(self) -> float | None:
        """The sample kurtosis b2 = (m4/n) / (m2/n)^2, not in excess; None where `skew` is.

        The plain ratio of sample moments, for the reasons that `skew` gives.
        """
        if self.sharpe is None:
            return None
        return self.m4 * self.n / (self.m2 * self.m2)

    @property
    def shape(self) -> tuple[float, float] | None:
        """`skew` and `kurtosis`; None where they are undefined."""
        skew, kurtosis = self.skew, self.kurtosis
        return None if skew is None or kurtosis is None else (skew, kurtosis)


NO_MOMENTS: Final = Moments(0, 0.0, 0.0, 0.0, 0.0)


def moments(returns: Iterable[float]) -> Moments:
    """The moments of a series of returns, read once.

    Raises: ValueError naming the return that is not finite, or `returns` when there are fewer than
        two.
    """
    found = NO_MOMENTS
    for value in returns:
        found = found.after(value)
    if found.n < 2:
        raise ValueError(f"returns: {found.n} of them have no standard deviation; 2 are needed")
    return found


def sharpe_standard_error(sharpe: float, n: int, skew: float = 0.0, kurtosis: float = 3.0) -> float:
    """The standard error of a Sharpe ratio that was estimated from n returns.

    Mertens (2002) with n - 1 in place of n, as in 2012, section "Probabilistic Sharpe ratio".
    Without skew and with kurtosis 3 it is the standard error of Lo (2002, section "IID returns"),
    sqrt((1 + sharpe^2 / 2) / n), for n - 1.

    Raises: ValueError naming the argument; `kurtosis` when no distribution has it beside that skew.
    """
    _check_count("n", n, 2)
    return math.sqrt(_variance(sharpe, skew, kurtosis) / (n - 1))


def probabilistic_sharpe_ratio(
    sharpe: float, benchmark: float, n: int, skew: float = 0.0, kurtosis: float = 3.0
) -> float:
    """PSR: the confidence, 0 to 1, that the true Sharpe ratio is above the benchmark.

    2012, section "Probabilistic Sharpe ratio": the normal distribution function of (sharpe -
    benchmark) / standard error, with the error at the observed Sharpe ratio.

    Raises: ValueError naming the argument.
    """
    error = sharpe_standard_error(sharpe, n, skew, kurtosis)
    _check_finite("benchmark", benchmark)
    lead = sharpe - benchmark
    if not error:  # a series of two values whose estimate does not vary
        return 0.5 if not lead else float(lead > 0)
    return 0.5 * math.erfc(-lead / error / math.sqrt(2))


def minimum_track_record_length(
    sharpe: float, benchmark: float, confidence: float, skew: float = 0.0, kurtosis: float = 3.0
) -> float:
    """MinTRL: the number of returns at which the PSR reaches the confidence, as a real number.

    2012, equation 13, the inverse of the PSR. It is infinite for a Sharpe ratio that is not above
    the benchmark, since no length proves that it is, and 1 for a confidence of at most 0.5, which
    the PSR has without any record.

    Raises: ValueError naming the argument; `confidence` outside of 0 to 1, both excluded.
    """
    variance = _variance(sharpe, skew, kurtosis)
    _check_finite("benchmark", benchmark)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: {confidence} is not between 0 and 1")
    if confidence <= 0.5:
        return 1.0
    if sharpe <= benchmark:
        return math.inf
    ratio = _NORMAL.inv_cdf(confidence) / (sharpe - benchmark)
    return 1 + variance * ratio * ratio


def expected_maximum_sharpe(variance: float, trials: int) -> float:
    """The largest Sharpe ratio to expect of independent trials without skill.

    `variance` is that of the trials' Sharpe ratios, per period. 2014, equation 1, an approximation
    for many trials: it is 8% low for 2 of them, 2.3% high for 10, and 0.9% high for 100.
    One trial selects nothing, so its expectation is 0 and its DSR is the PSR.

    Raises: ValueError naming `variance` below 0, or `trials` below 1.
    """
    _check_finite("variance", variance)
    if variance < 0:
        raise ValueError(f"variance: {variance} is negative")
    _check_count("trials", trials, 1)
    if trials == 1:
        return 0.0
    # The upper quantiles, computed in the lower tail: 1 - 1/K has fewer digits than 1/K.
    most, beyond = _NORMAL.inv_cdf(1 / trials), _NORMAL.inv_cdf(1 / (trials * math.e))
    weight = _EULER_MASCHERONI
    return -math.sqrt(variance) * ((1 - weight) * most + weight * beyond)


def deflated_sharpe_ratio(
    sharpe: float,
    n: int,
    variance: float,
    trials: int,
    skew: float = 0.0,
    kurtosis: float = 3.0,
) -> float:
    """DSR: the PSR against the best Sharpe ratio that so many trials without skill would show.

    2014, equation 2. `variance` is that of the trials' Sharpe ratios, per period.

    Raises: ValueError naming the argument.
    """
    best = expected_maximum_sharpe(variance, trials)
    return probabilistic_sharpe_ratio(sharpe, best, n, skew, kurtosis)


def p_pass_without_skill(sharpe: float, n: int) -> float:
    """The probability that a strategy without skill shows at least this Sharpe ratio.

    Without skill means a true mean of zero. Its Sharpe ratio times sqrt(n) is then Student's t with
    n - 1 degrees of freedom (Student, "The probable error of a mean", Biometrika 6(1), 1908), which
    is exact for independent normal returns. It is the chance at one look: looks at every session
    pass far more often.

    Raises: ValueError naming the argument.
    """
    _check_finite("sharpe", sharpe)
    _check_count("n", n, 2)
    square = sharpe * sharpe * n
    both = _beta_fraction((n - 1) / 2, (n - 1) / (n - 1 + square), square / (n - 1 + square))
    return both / 2 if sharpe >= 0 else 1 - both / 2


def _beta_fraction(a: float, x: float, rest: float) -> float:
    """The regularized incomplete beta function I_x(a, 1/2); `rest` is 1 - x without rounding.

    For a = df/2 and x = df/(df + t^2) it is the probability of both tails of Student's t, DLMF
    8.17.5 and 8.17.22. Each continued fraction converges fast on its own side of the maximum.
    """
    if x == 0 or rest == 0:
        return float(rest == 0)
    scale = math.lgamma(a + 0.5) - math.lgamma(a) - math.lgamma(0.5)
    front = math.exp(scale + a * math.log(x) + 0.5 * math.log(rest))
    if x < (a + 1) / (a + 2.5):
        return front / a * _continued(a, 0.5, x)
    return 1 - front / 0.5 * _continued(0.5, a, rest)


def _continued(a: float, b: float, x: float) -> float:
    """The continued fraction of DLMF 8.17.22, by the method of Lentz as modified by Thompson and
    Barnett ("Coulomb and Bessel functions", Journal of Computational Physics 64, 1986).
    """
    tiny = 1e-300  # keeps a denominator from being zero
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    value = d
    # It takes about the square root of a steps, so the bound is never met by a number of sessions.
    for m in range(1, 100_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / ((1 + term * d) or tiny)
            c = (1 + term / c) or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def _variance(sharpe: float, skew: float, kurtosis: float) -> float:
    """The variance of an estimated Sharpe ratio times the number of returns, less one."""
    for name, value in (("sharpe", sharpe), ("skew", skew), ("kurtosis", kurtosis)):
        _check_finite(name, value)
    # Pearson's inequality. It makes the variance at least (1 - skew sharpe / 2)^2.
    if kurtosis < (1 + skew * skew) * (1 - _ROUNDING):
        raise ValueError(f"kurtosis: {kurtosis} is below 1 + skew^2, which no distribution is")
    return max(0.0, 1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe * sharpe)


def _check_count(name: str, value: int, least: int) -> None:
    if not value >= least:
        raise ValueError(f"{name}: {value} is not at least {least}")
    if value > LARGEST:
        raise ValueError(f"{name}: more than {LARGEST:g}")


def _check_finite(name: str, value: float) -> None:
    if not abs(value) <= LARGEST:  # also refuses NaN
        raise ValueError(f"{name}: {value} is not a finite number of at most {LARGEST:g}")
