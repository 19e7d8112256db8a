"""Evidence of an episode: recorded values and measured ones. Pure functions.

Only the running episode counts. Among records of a metric the newest instant counts, the later
arrival among equals, and a worst value never falls. A value that fundops measures, from the
engine's reports or from a recorded series, is kept beside the recorded one.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from itertools import pairwise
from typing import Final

import msgspec

from ...wire.errors import MetricError, StrategyRetired
from ...wire.promotion import PromotionStage
from .metrics import SERIES, WORST, Metrics, drawdown_of, sharpe_of
from .observation import value_of
from .policy import PromotionPolicy
from .statistics import NO_MOMENTS, Moments
from .strategy import REMEMBERED_SESSIONS, Episode, Metric, Strategy
from .totals import Stay, check_totals, earned, totals_of, with_totals
from .track import Reading
from .words import instant

__all__ = [
    "Record",
    "StoredRecord",
    "check_evidence",
    "refolded",
    "seen",
    "session_ended",
    "values_of",
    "variance_of",
    "with_record",
    "worst_of",
]

# How far the clock of the program that records metrics may differ from ours.
CLOCK_TOLERANCE_US: Final = 300_000_000
# The metrics that a session's end measures, or finds undefined.
_MAY_BE_UNDEFINED: Final = ("sharpe", "win_rate")
_ISO_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")


class Record(msgspec.Struct, frozen=True):
    """One record of metrics, in canonical units."""

    metrics: Metrics
    as_of_us: int
    source: str = ""
    cumulative: bool = False  # its counts and series began when the strategy was registered


class StoredRecord(msgspec.Struct, frozen=True):
    """One record of metrics as it is stored."""

    id: int
    record: Record


def check_evidence(strategy: Strategy, stage: PromotionStage, as_of_us: int, now_us: int) -> None:
    """Whether something observed at `as_of_us` in `stage` may be recorded. Raises:
    `StrategyRetired`, `MetricError`.
    """
    if strategy.stage is PromotionStage.Retired:
        raise StrategyRetired(f"{strategy.name} is retired")
    if stage is not strategy.stage:
        raise MetricError("stage", stage.value, f"is not the current stage, {strategy.stage.value}")
    if as_of_us > now_us + CLOCK_TOLERANCE_US:
        raise MetricError("as_of", as_of_us, "lies in the future", shown_as=instant(as_of_us))
    if as_of_us < min(strategy.episode.entered_us, now_us) - CLOCK_TOLERANCE_US:
        problem = "lies before the strategy entered its stage"
        raise MetricError("as_of", as_of_us, problem, shown_as=instant(as_of_us))


# -- records


def with_record(
    strategy: Strategy, record: Record, periods_per_year: float, now_us: int
) -> Strategy:
    """The strategy with one more record. Raises: `MetricError`."""
    if record.cumulative:
        check_totals(strategy.episode.stays[-1], record.metrics)
    episode = _put_back(strategy.episode, now_us)
    return _with(msgspec.structs.replace(strategy, episode=episode), record, periods_per_year)


def _put_back(episode: Episode, now_us: int) -> Episode:
    """The episode whose values of instants to come are as old as itself: a clock that ran ahead
    gave them, and any record that arrives now is newer. A worst value stays one.
    """

    def back(known: Mapping[str, Metric]) -> dict[str, Metric]:
        return {
            name: msgspec.structs.replace(
                metric, as_of_us=_instant_of(metric.as_of_us, episode, now_us)
            )
            for name, metric in known.items()
        }

    *earlier, stay = episode.stays
    newest = {
        name: (total, _instant_of(as_of_us, episode, now_us))
        for name, (total, as_of_us) in stay.newest.items()
    }
    return msgspec.structs.replace(
        episode,
        recorded=back(episode.recorded),
        measured=back(episode.measured),
        stays=(*earlier, msgspec.structs.replace(stay, newest=newest)),
    )


def _instant_of(as_of_us: int, episode: Episode, now_us: int) -> int:
    is_ahead = as_of_us > now_us + CLOCK_TOLERANCE_US
    return min(episode.entered_us, now_us) if is_ahead else as_of_us


def _with(strategy: Strategy, record: Record, periods_per_year: float) -> Strategy:
    episode = strategy.episode
    metrics: Metrics = {
        name: _returns(name, value) if isinstance(value, list) else value
        for name, value in record.metrics.items()
    }
    if record.cumulative:
        totals = totals_of(record.metrics)
        *earlier, stay = episode.stays
        stays = (*earlier, with_totals(stay, totals, record.as_of_us))
        episode = msgspec.structs.replace(episode, stays=stays)
        metrics = earned(stays, metrics, totals)
    return msgspec.structs.replace(
        strategy, episode=_folded(episode, metrics, record, periods_per_year)
    )


def refolded(
    strategy: Strategy, records: Sequence[StoredRecord], periods_per_year: float, now_us: int
) -> Strategy:
    """The strategy with these records alone, in the order of their arrival."""
    bare = msgspec.structs.replace(
        strategy.episode, recorded={}, measured={}, undefined=(), stays=()
    )
    known = strategy.episode.measured.values()
    measured_us = next((metric.as_of_us for metric in known if metric.source == "engine"), None)
    if measured_us is not None:
        bare = _measured(bare, measured_us, periods_per_year)
    found = msgspec.structs.replace(strategy, episode=bare)
    stays = strategy.episode.stays
    ends = (*(stay.after for stay in stays[1:]), math.inf)
    for stay, end in zip(stays, ends, strict=True):
        begun = (*found.episode.stays, Stay(stay.base, stay.after))
        found = msgspec.structs.replace(
            found, episode=msgspec.structs.replace(found.episode, stays=begun)
        )
        for stored in records:
            if stay.after < stored.id <= end:
                as_of_us = _instant_of(stored.record.as_of_us, found.episode, now_us)
                record = msgspec.structs.replace(stored.record, as_of_us=as_of_us)
                found = _with(found, record, periods_per_year)
    return found


def _folded(episode: Episode, metrics: Metrics, record: Record, periods_per_year: float) -> Episode:
    recorded = dict(episode.recorded)
    for name, value in metrics.items():
        if not isinstance(value, list):
            metric = Metric(value, record.as_of_us, record.source)
            recorded[name] = _newer(name, recorded.get(name), metric)
    folded = msgspec.structs.replace(episode, recorded=recorded)
    for name in SERIES:
        returns = metrics.get(name)
        if isinstance(returns, list) and returns:
            folded = _with_returns(folded, name, returns, record.as_of_us, periods_per_year)
    return folded


def _newer(name: str, before: Metric | None, after: Metric) -> Metric:
    if before is None:
        return after
    if name in WORST:
        worst = max(before, after, key=lambda metric: metric.value)
        return msgspec.structs.replace(worst, as_of_us=max(before.as_of_us, after.as_of_us))
    return after if after.as_of_us >= before.as_of_us else before


def _with_returns(
    episode: Episode, name: str, returns: list[float], as_of_us: int, periods_per_year: float
) -> Episode:
    """Measured from the series, where the engine's reports measure nothing."""
    found = reduce(Moments.after, returns, NO_MOMENTS)
    values = {"sharpe": sharpe_of(found, periods_per_year), "max_drawdown": drawdown_of(returns)}
    measured, undefined = dict(episode.measured), set(episode.undefined)
    for metric_name in ("sharpe", "max_drawdown"):
        before = measured.get(metric_name)
        of_engine = episode.track.sessions > 0 and metric_name == "sharpe"
        if of_engine or (before is not None and before.as_of_us > as_of_us):
            continue
        value = values[metric_name]
        if value is None:
            measured.pop(metric_name, None)
            undefined.add(metric_name)
            continue
        undefined.discard(metric_name)
        shape = found.shape if metric_name == "sharpe" else None
        metric = Metric(value, as_of_us, name, found.n, shape)
        measured[metric_name] = _newer(metric_name, before, metric)
    return msgspec.structs.replace(episode, measured=measured, undefined=tuple(sorted(undefined)))


def _returns(name: str, series: list[float]) -> list[float]:
    return series if name == "returns" else [b / a - 1 for a, b in pairwise(series)]


def worst_of(record: Record, name: str) -> float:
    """The worst drawdown or daily loss that one record shows; 0: it shows none."""
    value = record.metrics.get(name)
    found = [value] if isinstance(value, float) else []
    if name == "max_drawdown":
        series = ((known, record.metrics.get(known)) for known in SERIES)
        found += [drawdown_of(_returns(known, it)) for known, it in series if isinstance(it, list)]
    return max(found, default=0.0)


# -- what the engine reports


def seen(strategy: Strategy, reading: Reading) -> Strategy:
    """The record after one status of the engine; the same object when it says nothing new."""
    episode = strategy.episode
    track = episode.track.seen(reading)
    if track is episode.track:
        return strategy
    return msgspec.structs.replace(strategy, episode=msgspec.structs.replace(episode, track=track))


def session_ended(
    strategy: Strategy,
    session: str,
    ended_us: int,
    policy: PromotionPolicy,
    *,
    measured: bool,
    begins: bool = False,
    named: bool = True,
    periods_per_year: float,
) -> Strategy:
    """The record at the end of a session, once for each session.

    `named`: the host names its sessions, so that no calendar tells how many ended since a value.
    Not `measured`: the engine said nothing of the strategy, so the session gives no sample, and
    the earlier ones age by one. `begins`: nor does one that ends with the first status.
    """
    episode, last = strategy.episode, strategy.episode.track.session
    both_dated = _ISO_DATE.fullmatch(session) and _ISO_DATE.fullmatch(last)
    # Sessions only go forward: a clock that stepped back must not end yesterday again.
    if session <= last if both_dated else session == last:
        return strategy
    if measured:
        track = episode.track.ended(
            session,
            measured=not begins,
            soft_drawdown=policy.rung(strategy.stage).keep.drawdown,
            remembered=policy.soft.sessions,
        )
    else:
        track = episode.track.missed(session)
    # The calendar knows when its own sessions ended.
    closes_us = (*strategy.closes_us, ended_us)[-REMEMBERED_SESSIONS:] if named else ()
    ended = msgspec.structs.replace(episode, track=track)
    if track.sessions != episode.track.sessions:
        ended = _measured(ended, ended_us, periods_per_year)
    return msgspec.structs.replace(strategy, episode=ended, closes_us=closes_us)


def _measured(episode: Episode, at_us: int, periods_per_year: float) -> Episode:
    """Measured from the track, which tells more than a series; but a fall that a series shows
    stays.
    """
    track = episode.track
    values = {
        name: Metric(value, at_us, "engine", track.sessions)
        for name, value in track.metrics(periods_per_year).items()
    }
    fall = episode.measured.get("max_drawdown")
    if fall is not None:
        values["max_drawdown"] = _newer("max_drawdown", fall, values["max_drawdown"])
    undefined = tuple(name for name in _MAY_BE_UNDEFINED if name not in values)
    return msgspec.structs.replace(episode, measured=values, undefined=undefined)


def variance_of(trials: Iterable[Strategy], periods_per_year: float) -> float | None:
    """The variance of the trials' Sharpe ratios, per session; None for fewer than two of them, and
    where it is too large to be one.
    """
    found = [value_of("sharpe", strategy) for strategy in trials]
    sharpes = [value / math.sqrt(periods_per_year) for value in found if value is not None]
    # Exact, so that the order of the trials makes no difference.
    try:
        return statistics.variance(sharpes) if len(sharpes) > 1 else None
    except OverflowError:
        return None


def values_of(strategy: Strategy) -> dict[str, float]:
    """The values that count in the episode, by name."""
    names = sorted({*strategy.episode.recorded, *strategy.episode.measured})
    found = {name: value_of(name, strategy) for name in names}
    return {name: value for name, value in found.items() if value is not None}
