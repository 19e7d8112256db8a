"""Metrics that others record, checked where they enter, and the figures of engines.

One canonical unit, the fraction: `max_drawdown` 0.08 and `max_drawdown_pct` 8.0 are the same
metric. None means missing, never zero. `returns` and `equity` are series, one value a session, from
which fundops measures by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ...runtime import FOREIGN_ERRORS
from ...wire.errors import MetricError
from ...wire.foreign import plain_list, plain_number, plain_text
from .statistics import LARGEST, Moments

__all__ = [
    "SERIES",
    "WORST",
    "Metrics",
    "amount_of",
    "canonical_metrics",
    "count_of",
    "drawdown_of",
    "figure_of",
    "sharpe_of",
]

# Canonical values by name; a series is a list.
Metrics = Mapping[str, float | list[float]]

# Metrics of which only the worst value of an episode counts: a loss is not undone by a later day.
WORST: Final = frozenset({"max_drawdown", "daily_loss"})
# One value for each session of the stage: its return, from the base on; the equity at its end,
# after the one at the beginning.
SERIES: Final = ("returns", "equity")

_FRACTIONS: Final = frozenset({"max_drawdown", "win_rate", "daily_loss", "tracking_error"})
_COUNTS: Final = frozenset({"n_trades", "fills"})
_FIGURE_MAX: Final = 1e18  # of equity; beyond it a float is no amount of money
_FIGURE_MIN: Final = 1e-8  # above 0; below it is less than the smallest amount of money
_COUNT_MAX: Final = 2**62
_SERIES_MAX: Final = 10_000  # sessions: forty years of them


def canonical_metrics(metrics: Mapping[str, Any]) -> dict[str, float | list[float]]:
    """The recorded metrics in canonical units, missing ones left out.

    Raises: `MetricError` naming the field, with nothing recorded.
    """
    given = _given(metrics)
    figures: dict[str, float] = {}
    series: dict[str, list[float]] = {}
    for key, value in given.items():
        name = _name(key)
        if value is None:
            continue
        if name in SERIES:
            series[name] = list(_series(name, value))
        else:
            figures[name] = _number(name, value)
    if "max_drawdown_pct" in figures:
        fraction = round(figures.pop("max_drawdown_pct") / 100, 12)
        if round(figures.setdefault("max_drawdown", fraction) - fraction, 9):
            raise MetricError(
                "max_drawdown_pct", given["max_drawdown_pct"], "disagrees with max_drawdown"
            )
    for name, figure in figures.items():
        _check_range(name, figure)
    if len(series) > 1:
        raise MetricError("equity", "", "and returns are the same evidence; give one of them")
    return {**figures, **series}


def _given(metrics: Mapping[str, Any]) -> dict[Any, Any]:
    try:
        if issubclass(type(metrics), Mapping):
            return dict(metrics.items())
    except FOREIGN_ERRORS:
        pass
    raise MetricError("metrics", metrics, "is not a mapping of names to numbers")


def _name(key: object) -> str:
    name = plain_text(key)
    if name is None or not 1 <= len(name) <= 64 or not name.isprintable():
        raise MetricError("metrics", key, "is not a metric's name of 1 to 64 characters")
    return name


def _check_range(name: str, figure: float) -> None:
    if name in _FRACTIONS and not 0 <= figure <= 1:
        percent = name == "max_drawdown" and figure > 1
        hint = "; percent goes into max_drawdown_pct" if percent else ""
        raise MetricError(name, figure, f"is not a fraction between 0 and 1{hint}")
    if name in _COUNTS and (figure < 0 or figure != int(figure)):
        raise MetricError(name, figure, "is not a whole number >= 0")


def _series(name: str, given: object) -> Iterator[float]:
    values = plain_list(given)
    if values is None or not 1 <= len(values) <= _SERIES_MAX:
        raise MetricError(name, given, f"is not a list of 1 to {_SERIES_MAX} numbers")
    for place, value in enumerate(values):
        field = f"{name}[{place}]"
        figure = _number(field, value)
        if name == "returns" and figure < -1:
            raise MetricError(field, figure, "is less than -1, which loses more than everything")
        if name == "equity" and not _FIGURE_MIN <= figure <= _FIGURE_MAX:
            raise MetricError(field, figure, "is no equity: returns from it are undefined")
        yield figure


def _number(name: str, value: object) -> float:
    own = plain_number(value)
    if own is None:
        raise MetricError(name, value, "is not a number")
    number = figure_of(value, limit=LARGEST)
    if number is None:
        huge = "a huge integer" if type(own) is int else value
        raise MetricError(name, huge, f"is not a finite number of at most {LARGEST:g}")
    return number


def figure_of(value: object, *, limit: float = _FIGURE_MAX) -> float | None:
    """A figure from outside as a float; None when it is no number, not finite or too large."""
    own = plain_number(value, methods=("__float__", "__index__"))
    if own is None:
        return None
    try:
        number = float(own)
    except (OverflowError, ValueError):  # a huge int; a signalling NaN
        return None
    return number if math.isfinite(number) and abs(number) <= limit else None


def amount_of(value: object) -> float | None:
    """As `figure_of`, of money: less than the smallest amount is none, and no base of a return."""
    amount = figure_of(value)
    return 0.0 if amount is not None and abs(amount) < _FIGURE_MIN else amount


def count_of(value: object) -> int | None:
    """A count from outside as an int; None when it is no whole number >= 0."""
    count = plain_number(value)
    return count if type(count) is int and 0 <= count < _COUNT_MAX else None


def sharpe_of(moments: Moments, periods_per_year: float) -> float | None:
    """sqrt(periods a year) mean/sd of session returns, sd with n - 1; None where it is undefined,
    never infinite.
    """
    sharpe = moments.sharpe
    return None if sharpe is None else math.sqrt(periods_per_year) * sharpe


def drawdown_of(returns: list[float]) -> float:
    """The largest fall below a peak that these returns make, from a base of 1 on."""
    of_peak = 1.0  # equity; large gains in a row would be no float
    worst = 0.0
    for change in returns:
        of_peak = min(1.0, of_peak * (1 + change))
        worst = max(worst, 1 - of_peak)
    return worst
