"""Totals since the registration, and the part of them that an episode earned. Pure functions.

A total is a count, or the number of sessions in a series, from the registration on. What an episode
earned is the rise from the total as it began to the newest one. Without a total of right before,
the first one in the episode takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from ...wire.errors import MetricError
from .metrics import Metrics

__all__ = ["FROM_REGISTRATION", "Stay", "earned", "totals_of", "with_totals"]


class Stay(msgspec.Struct, frozen=True):
    """A stretch of time in a stage, and the totals recorded in it."""

    base: Mapping[str, float] = {}  # the totals as it began; one that is missing is not known
    first: Mapping[str, float] = {}  # recorded in it
    newest: Mapping[str, tuple[float, int]] = {}  # recorded in it, each with its instant

    def begin_of(self, name: str) -> float | None:
        """The total from which it counts; None: it has none yet."""
        return self.base.get(name, self.first.get(name))

    def next_base(self) -> dict[str, float]:
        """The totals from which a stay that follows counts."""
        totals = {name: total for name, (total, _) in self.newest.items()}
        # Trades came since whose wins are not known.
        stale = totals.get("n_rated") != totals.get("n_trades")
        unknown = ("n_wins", "n_rated") if stale else ()
        return {name: total for name, total in totals.items() if name not in unknown}


# A registration begins with nothing. Wins and the trades of which they are go together.
FROM_REGISTRATION: Final = Stay(
    dict.fromkeys(("n_trades", "fills", "n_wins", "n_rated", "sessions"), 0.0)
)


def totals_of(metrics: Metrics) -> dict[str, float]:
    """The totals among metrics since the registration, whose series are returns.

    Raises: `MetricError` for a metric of which no part can be told.
    """
    totals: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, list):
            totals["sessions"] = float(len(value))
        elif name in ("n_trades", "fills"):
            totals[name] = value
        elif name != "win_rate" or "n_trades" not in metrics:
            problem = "cannot be counted since the registration: no part of it is of this stage"
            raise MetricError(name, value, problem)
    rate, n_trades = metrics.get("win_rate"), totals.get("n_trades")
    if isinstance(rate, float) and n_trades is not None:
        totals |= {"n_wins": float(round(rate * n_trades)), "n_rated": n_trades}
    return totals


def with_totals(stay: Stay, totals: Mapping[str, float], as_of_us: int) -> Stay:
    """The stay with these totals as well. Raises: `MetricError` for one below its begin."""
    newest = dict(stay.newest)
    for name, total in totals.items():
        begin = stay.begin_of(name)
        if begin is not None and total < begin:
            raise MetricError(name, total, f"is below {begin:g}, from which this stage counts")
        if name not in newest or as_of_us >= newest[name][1]:
            newest[name] = (total, as_of_us)
    return msgspec.structs.replace(stay, first={**totals, **stay.first}, newest=newest)


def earned(stay: Stay, metrics: Metrics, totals: Mapping[str, float]) -> Metrics:
    """The part of the metrics that the stay earned; these are their totals, which it has."""
    begins = {name: stay.begin_of(name) or 0.0 for name in totals}
    counts = {name: total - begins[name] for name, total in totals.items()}
    own: dict[str, float | list[float]] = {}
    for name, value in metrics.items():
        if isinstance(value, list):
            own[name] = value[int(begins["sessions"]) :]
        elif name != "win_rate":
            own[name] = counts[name]
        elif counts["n_rated"] > 0:
            own[name] = min(1.0, counts["n_wins"] / counts["n_rated"])
    return own
