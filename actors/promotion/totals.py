"""Totals since the registration, and the part of them that an episode earned. Pure functions.

A total is a count, or the number of sessions in a series, from the registration on. An episode has
earned the rise from the total as it began to the newest one. Without a total of right before, the
first one in the episode takes its place. A void takes the episode up again and leaves out the
earnings of the voided one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final

import msgspec

from ...wire.errors import MetricError
from .metrics import Metrics

__all__ = ["FROM_REGISTRATION", "Stay", "check_totals", "earned", "totals_of", "with_totals"]


class Stay(msgspec.Struct, frozen=True, gc=False):
    """A stretch of time in an episode, and the totals recorded in it. A void begins another."""

    base: Mapping[str, float] = {}  # the totals as it began; one that is missing is not known
    after: int = 0  # the id of the newest record as it began
    first: Mapping[str, float] = {}  # recorded in it
    newest: Mapping[str, tuple[float, int]] = {}  # recorded in it, each with its instant

    def begin_of(self, name: str, total: float) -> float:
        """The total from which it counts, which is this one where none was known before."""
        return self.base.get(name, self.first.get(name, total))

    def next_stay(self, after: int = 0) -> Stay:
        """The stay that follows, in this episode or in another one."""
        totals = {name: total for name, (total, _) in self.newest.items()}
        # Trades came since whose wins are not known.
        stale = totals.get("n_rated") != totals.get("n_trades")
        unknown = ("n_wins", "n_rated") if stale else ()
        base = {name: total for name, total in totals.items() if name not in unknown}
        return Stay(base, after)


# A registration begins with nothing. Wins and the trades of which they are go together.
FROM_REGISTRATION: Final = Stay(
    dict.fromkeys(("n_trades", "fills", "n_wins", "n_rated", "sessions"), 0.0)
)


def totals_of(metrics: Metrics) -> dict[str, float]:
    """The totals among metrics since the registration.

    Raises: `MetricError` for a metric of which no part can be told.
    """
    totals: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, list):
            # The first equity is that of the beginning.
            totals["sessions"] = float(len(value) - (name == "equity"))
        elif name in ("n_trades", "fills"):
            totals[name] = value
        elif name != "win_rate" or "n_trades" not in metrics:
            problem = "cannot be counted since the registration: no part of it is of this stage"
            raise MetricError(name, value, problem)
    rate, n_trades = metrics.get("win_rate"), totals.get("n_trades")
    if isinstance(rate, float) and n_trades is not None:
        totals |= {"n_wins": float(round(rate * n_trades)), "n_rated": n_trades}
    return totals


def check_totals(stay: Stay, metrics: Metrics) -> None:
    """Whether each total among them can be told, and none is below its begin.

    Raises: `MetricError` naming the metric.
    """
    series = next((name for name, value in metrics.items() if isinstance(value, list)), "")
    told_by = {"sessions": series, "n_wins": "win_rate", "n_rated": "n_trades"}
    for name, total in totals_of(metrics).items():
        begin = stay.begin_of(name, total)
        if total < begin:
            what = {"sessions": " sessions", "n_wins": " wins"}.get(name, "")
            problem = f"is below the {begin:g}{what} from which this stage counts"
            raise MetricError(told_by.get(name, name), total, problem)


def with_totals(stay: Stay, totals: Mapping[str, float], as_of_us: int) -> Stay:
    """The stay with these totals as well."""
    newest = dict(stay.newest)
    for name, total in totals.items():
        if name not in newest or as_of_us >= newest[name][1]:
            newest[name] = (total, as_of_us)
    return msgspec.structs.replace(stay, first={**totals, **stay.first}, newest=newest)


def earned(stays: Sequence[Stay], metrics: Metrics, totals: Mapping[str, float]) -> Metrics:
    """The part of the metrics, whose series are returns, that these stays earned, the last one up
    to these totals.
    """
    spans = {name: _spans(stays, name, total) for name, total in totals.items()}
    counts = {name: sum(end - begin for begin, end in found) for name, found in spans.items()}
    own: dict[str, float | list[float]] = {}
    for name, value in metrics.items():
        if isinstance(value, list):
            parts = (value[int(begin) : int(end)] for begin, end in spans["sessions"])
            own[name] = list(chain.from_iterable(parts))
        elif name != "win_rate":
            own[name] = counts[name]
        elif counts["n_rated"] > 0:
            own[name] = min(1.0, counts["n_wins"] / counts["n_rated"])
    return own


def _spans(stays: Sequence[Stay], name: str, total: float) -> list[tuple[float, float]]:
    """From which total to which each of the stays counts, where one was recorded in it."""
    *earlier, last = stays
    ends = [(stay, stay.newest[name][0]) for stay in earlier if name in stay.newest]
    found = [(stay.begin_of(name, end), end) for stay, end in (*ends, (last, total))]
    # A record may fall below the begin once an earlier one was discarded; it counts nothing.
    return [(begin, max(begin, end)) for begin, end in found]
