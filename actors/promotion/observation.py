"""The observation of a strategy for one criterion: the value that counts, its age, its source.

A value that fundops measured beats a recorded one, which is shown beside it. Of a worst value, such
as the drawdown, the worse of both counts. Pure; instants in microseconds. No data is never a value:
it is an observation without one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal, NamedTuple

from ..calendar import End, calendar_of
from .criteria import DAYS, Criterion
from .metrics import WORST
from .policy import PromotionPolicy
from .strategy import Metric, Strategy

__all__ = ["Observation", "observe", "stale", "value_of"]

# Sessions that end after a value before it is stale.
STALE_SESSIONS: Final = 2

# Where the ends of sessions were seen, older values are stale although none ended since: no
# exchange closes for longer, so the ends were not seen.
SESSIONS_UNSEEN_US: Final = 7 * 86_400_000_000


class Observation(NamedTuple):
    """The value for one criterion, in the unit of its metric; days are in microseconds."""

    value: float | None  # None: missing or undefined
    n: int | None  # sessions or trades behind it; None: unknown
    age_us: int | None  # None: it has no age, as days have none
    undefined: bool  # it was computed and has no value
    source: Literal["measured", "recorded", ""]  # "": neither
    recorded: float | None = None  # beside a measured value; None: never recorded


_NOTHING: Final = Observation(None, None, None, False, "")


def observe(criterion: Criterion, strategy: Strategy, now_us: int) -> Observation:
    """The observation for one criterion; days are in microseconds."""
    if criterion.metric == DAYS:
        return _days(strategy, now_us)
    return _metric(criterion.metric, strategy, now_us)


def value_of(name: str, strategy: Strategy) -> float | None:
    """The value of one metric that counts; None: it is missing or undefined."""
    return _metric(name, strategy, now_us=0).value  # whatever its age


def _metric(name: str, strategy: Strategy, now_us: int) -> Observation:
    recorded = strategy.episode.recorded.get(name)
    measured = strategy.episode.measured.get(name)
    if measured is None and name not in strategy.episode.undefined:
        return _NOTHING if recorded is None else _recorded(recorded, now_us)
    if name in WORST and measured is not None:
        return _worst(name, strategy, measured, recorded, now_us)
    return _measured(name, strategy, measured, recorded, now_us)


def _days(strategy: Strategy, now_us: int) -> Observation:
    """Active time in the stage, in microseconds; no value while now lies before its beginning."""
    early = now_us < strategy.episode.entered_us
    return Observation(None if early else strategy.active_us(now_us), None, None, False, "")


def _measured(
    name: str, strategy: Strategy, measured: Metric | None, recorded: Metric | None, now_us: int
) -> Observation:
    track = strategy.episode.track
    n = None if measured is None else measured.n
    if n is None:
        n = track.trades if name in ("n_trades", "win_rate") else track.sessions or None
    return Observation(
        None if measured is None else measured.value,
        n,
        None if measured is None else now_us - measured.as_of_us,
        measured is None,
        "measured",
        None if recorded is None else recorded.value,
    )


def _recorded(recorded: Metric, now_us: int) -> Observation:
    return Observation(
        recorded.value,
        recorded.n,
        now_us - recorded.as_of_us,
        False,
        "recorded",
        recorded.value,
    )


def _worst(
    name: str, strategy: Strategy, measured: Metric, recorded: Metric | None, now_us: int
) -> Observation:
    """The worse of the measured and the recorded value, the running session included."""
    track = strategy.episode.track
    worst, as_of_us = measured.value, measured.as_of_us
    if name == "max_drawdown":
        worst = max(worst, track.max_drawdown)
    if recorded is not None:
        worst, as_of_us = max(worst, recorded.value), max(as_of_us, recorded.as_of_us)
    return Observation(
        min(1.0, worst),
        track.sessions if measured.n is None else measured.n,
        now_us - as_of_us,
        False,
        "measured",
        None if recorded is None else recorded.value,
    )


def stale(age_us: int, strategy: Strategy, policy: PromotionPolicy, now_us: int) -> str:
    """Why a value of this age does not count any more; "": it does.

    Age is counted in sessions, since a strategy of weekdays has no newer value on a Monday. Where
    the host names no sessions, the policy's calendar has them.
    """
    as_of_us, closes_us = now_us - age_us, strategy.closes_us
    if closes_us:
        if len(closes_us) >= STALE_SESSIONS and closes_us[-STALE_SESSIONS] > as_of_us:
            missed = sum(ended_us > as_of_us for ended_us in closes_us)
            return f"stale: {missed} sessions ended since"
        unseen = age_us > SESSIONS_UNSEEN_US
        return f"stale: {age_us / 86_400_000_000:.1f} days old" if unseen else ""
    if as_of_us >= _newest(policy.calendar, now_us).began_us:
        return ""
    missed = calendar_of(policy.calendar).ended_between(as_of_us, now_us)
    return f"stale: {missed} sessions ended since"


@lru_cache(maxsize=64)
def _newest(calendar: str, now_us: int) -> End:
    """The last session that had ended; it began at the end of the one before."""
    return calendar_of(calendar).newest(now_us)
