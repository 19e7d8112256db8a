"""How far does luck get through the gates, and how often do the limits demote skill?

Without skill a strategy's mean return is zero; a Sharpe ratio that is named is the true one, annual
at 252 sessions. The first question is put to the criterion `min_sharpe` alone: one look after 14
sessions, or a look at the end of each session from the 14th to the 90th, which passes when any of
them does. Each stage judges new evidence, so three gates in a row are three independent ones.

The second question is put to the rules themselves: paths of 252 sessions with a true Sharpe ratio
of 1 go through `evidence.seen`, `evidence.session_ended` and `limits.breach` of promotion under its
default policy, and end at the first demotion. Each session has two statuses, its low and its close.

Normal returns are independent, with the low of a Brownian path that ends at the close. Real returns
are those of the bundled S&P 500 of 1999 to 2018, close to close, with the low of the day. They are
drawn in blocks of 20 sessions on average (the stationary bootstrap of Politis and Romano, Journal
of the American Statistical Association 89, 1994), which keeps fat tails and calm and wild weeks
together, and scaled to the mean and the volatility asked for.

Figures are percent of the paths. A message of the table is one path; the checksum is made of what
became of each, and one seed gives one checksum.
"""

from __future__ import annotations

import math
import random
import statistics
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import islice, pairwise
from typing import Final, NamedTuple

from fundops.actors.promotion.core import registered
from fundops.actors.promotion.criteria import DefaultCriteria
from fundops.actors.promotion.evidence import seen, session_ended
from fundops.actors.promotion.limits import breach
from fundops.actors.promotion.policies import policy_of
from fundops.actors.promotion.policy import PromotionPolicy
from fundops.actors.promotion.statistics import p_pass_without_skill
from fundops.actors.promotion.strategy import Strategy
from fundops.actors.promotion.track import Reading
from fundops.replay.prices import bundled
from fundops.runtime import DAY_US
from fundops.wire.promotion import PromotionStage

from .harness import Figure, Result, Row, Stopwatch, machine

__all__ = ["QUESTION", "YEAR", "Session", "demotion", "first_pass", "p_pass", "run"]

QUESTION = "How far does luck get through the gates, and how often do the limits demote skill?"

YEAR: Final = 252  # sessions
FIRST_LOOK: Final = 14  # sessions
LAST_LOOK: Final = 90
BLOCK: Final = 20  # sessions, on average
SEED: Final = 1
# Paths at full size. They leave a standard error of 0.1 points in the looks, 1 in the demotions.
LOOKS: Final = 200_000
REAL_LOOKS: Final = 40_000
YEARS: Final = 2_000
VOLATILITIES: Final = (0.10, 0.15, 0.20)  # annual
# Where returns come from: `_SOURCES`.
NORMAL: Final = "normal"
REAL: Final = "real"


class Session(NamedTuple):
    """The returns of one session since the close before it."""

    low: float
    close: float


def run(scale: float = 1.0) -> Result:
    """The chances of luck, exact and simulated, and the rates of demotion."""
    limit = DefaultCriteria().min_sharpe / math.sqrt(YEAR)
    rows: list[Row] = []
    figures = [
        _percent("no skill: one look after 14 sessions, exact", p_pass(limit, FIRST_LOOK, 0)),
        _percent("Sharpe 2: one look after 14 sessions, exact", p_pass(limit, FIRST_LOOK, 2)),
    ]
    for sharpe, returns, paths in (
        (0.0, NORMAL, LOOKS),
        (2.0, NORMAL, LOOKS),
        (0.0, REAL, REAL_LOOKS),
    ):
        who = f"{f'Sharpe {sharpe:g}' if sharpe else 'no skill'}, {returns} returns"
        passed = _simulated(
            rows, f"looks: {who}", _scaled(paths, scale), partial(_look, limit, sharpe, returns)
        )
        first = passed[FIRST_LOOK] / passed.total()
        ever = 1 - passed[None] / passed.total()
        figures += [
            _percent(f"{who}: one look after 14 sessions", first),
            _percent(f"{who}: a look each session up to the 90th", ever),
        ]
        if not sharpe:
            figures.append(_percent(f"{who}: three such gates in a row", ever**3))
    for stage in (PromotionStage.Live_Scaled, PromotionStage.Live_Small):
        for volatility in VOLATILITIES:
            for returns in (NORMAL, REAL):
                who = f"{stage.value}, volatility {volatility:.0%}, {returns} returns"
                fates = _simulated(
                    rows,
                    f"a year: {who}",
                    _scaled(YEARS, scale),
                    partial(_year, stage, volatility, returns),
                )
                figures += [
                    _percent(f"{who}: {kind} demotion within a year", fates[kind] / fates.total())
                    for kind in ("soft", "hard")
                ]
    return Result(QUESTION, machine(), tuple(rows), figures=tuple(figures))


def _scaled(paths: int, scale: float) -> int:
    return max(10, round(paths * scale))


def _percent(name: str, fraction: float) -> Figure:
    return Figure(name, 100 * fraction, "%")


def _simulated(
    rows: list[Row], name: str, paths: int, fate: Callable[[random.Random], object]
) -> Counter[object]:
    """How often each fate came, with a row for the time that it took."""
    # One generator for each case: its figures do not depend on the cases before it.
    generator = random.Random(f"{SEED} {name}")
    watch = Stopwatch()
    with watch:
        fates = [fate(generator) for _ in range(paths)]
    cpu_us = watch.cpu_s / paths * 1e6
    checksum = zlib.crc32(repr(fates).encode())
    rows.append(Row(name, paths, 1, paths / watch.wall_s, cpu_us, cpu_us, None, checksum))
    return Counter(fates)


# -- how far luck gets


def p_pass(limit: float, n: int, sharpe: float) -> float:
    """The probability that a strategy of this annual Sharpe ratio passes one look after n sessions.

    `limit` is per session. With skill sqrt(n) times the observed ratio has the noncentral t
    distribution, here a normal probability averaged over the chi distribution of the standard
    deviation by Simpson's rule.
    """
    if not sharpe:
        return p_pass_without_skill(limit, n)
    degrees, true = n - 1, sharpe / math.sqrt(YEAR)
    scale = math.log(2) + degrees / 2 * math.log(degrees / 2) - math.lgamma(degrees / 2)

    def weighted(sd: float) -> float:
        density = math.exp(scale - degrees * sd * sd / 2) * math.pow(sd, degrees - 1)
        return density * 0.5 * math.erfc((limit * sd - true) * math.sqrt(n / 2))

    steps, end = 2_000, 6.0
    width = end / steps
    inner = sum((2 + 2 * (step % 2)) * weighted(step * width) for step in range(1, steps))
    return width / 3 * (weighted(0) + inner + weighted(end))


def first_pass(limit: float, returns: Iterator[float]) -> int | None:
    """The first session from the 14th to the 90th at which mean/sd reaches the limit; None: none.

    It is `Track.sharpe` without its record, which a test compares with it.
    """
    total = squares = 0.0
    for n, value in enumerate(islice(returns, LAST_LOOK), start=1):
        total += value
        squares += value * value
        if n < FIRST_LOOK or total <= 0:
            continue
        variance = (squares - total * total / n) / (n - 1)
        if total / n >= limit * math.sqrt(variance):
            return n
    return None


def _look(limit: float, sharpe: float, kind: str, generator: random.Random) -> int | None:
    sessions = _sessions(kind, 1.0, sharpe, generator)
    return first_pass(limit, (session.close for session in sessions))


# -- how often skill is demoted


def _year(
    stage: PromotionStage, volatility: float, kind: str, generator: random.Random
) -> str | None:
    return demotion(stage, islice(_sessions(kind, volatility, 1.0, generator), YEAR))


def demotion(stage: PromotionStage, sessions: Iterator[Session]) -> str | None:
    """The first demotion by the default rules, "soft" or "hard"; None: the strategy stays."""
    policy = _policy()
    strategy = _entered(stage)
    equity = 1.0
    strategy = seen(strategy, Reading(equity, 1.0, 0, 0))
    for number, session in enumerate(sessions, start=1):
        for change in session:
            strategy = seen(strategy, Reading(equity * (1 + change), 1.0, 0, 0))
        equity *= 1 + session.close
        strategy = session_ended(
            strategy,
            str(number),
            number * DAY_US,
            policy,
            measured=True,
            periods_per_year=YEAR,
        )
        broken = breach(strategy, policy)
        if broken is not None:
            return "hard" if broken.hard else "soft"
    return None


@cache
def _policy() -> PromotionPolicy:
    return policy_of()


@cache
def _entered(stage: PromotionStage) -> Strategy:
    return registered("skilled", stage, 0, by="bench", adopt=True, reason="bench").after


# -- sessions


def _sessions(
    kind: str, volatility: float, sharpe: float, generator: random.Random
) -> Iterator[Session]:
    """Sessions without end, of an annual volatility and a true annual Sharpe ratio."""
    sd = volatility / math.sqrt(YEAR)
    mean = sharpe / math.sqrt(YEAR) * sd
    return _SOURCES[kind](mean, sd, generator)


def _normal(mean: float, sd: float, generator: random.Random) -> Iterator[Session]:
    while True:
        close = generator.gauss(mean, sd)
        # The low of a Brownian path that is known to end at `close`, by the reflection principle.
        fall = -2 * sd * sd * math.log(1 - generator.random())
        yield Session((close - math.sqrt(close * close + fall)) / 2, close)


def _resampled(mean: float, sd: float, generator: random.Random) -> Iterator[Session]:
    history, own_mean, own_sd = _history()
    factor = sd / own_sd
    at = 0
    while True:
        # A block ends with this chance at each session, and at the end of the history.
        if at == 0 or generator.random() < 1 / BLOCK:
            at = generator.randrange(len(history))
        low, close = history[at]
        yield Session(mean + factor * (low - own_mean), mean + factor * (close - own_mean))
        at = (at + 1) % len(history)


_SOURCES: Final[dict[str, Callable[[float, float, random.Random], Iterator[Session]]]] = {
    NORMAL: _normal,
    REAL: _resampled,
}


@cache
def _history() -> tuple[tuple[Session, ...], float, float]:
    """The sessions of the S&P 500, with mean and standard deviation of their returns."""
    sessions = tuple(
        Session(bar.low_cents / before.close_cents - 1, bar.close_cents / before.close_cents - 1)
        for before, bar in pairwise(bundled("sp500"))
    )
    closes = [session.close for session in sessions]
    return sessions, statistics.fmean(closes), statistics.stdev(closes)
