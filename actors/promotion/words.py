"""An evaluation in words for a person, and when time alone could change it. Pure."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from typing import Final

from ...runtime import DAY_US, shown
from ...wire.money import from_minor
from ...wire.promotion import CriterionResult, EvaluationInputs, PromotionStage
from .criteria import DAYS

__all__ = ["date_time", "floored", "instant", "missed_words", "next_possible_us", "why"]

_EPOCH_ORDINAL: Final = dt.date(1970, 1, 1).toordinal()
_HOUR_US: Final = 3_600_000_000
_MINUTE_US: Final = 60_000_000

# Blockers that end with time, and the person whom "ready" waits for.
_ENDS_BY_TIME: Final = ("gate", "cooldown", "approval")


def why(
    criteria: Sequence[CriterionResult],
    blocked_by: Sequence[str],
    target: PromotionStage | None,
    inputs: EvaluationInputs,
    now_us: int,
    behind_us: int,
) -> str:
    """All that stands before the next stage in one line, time last.

    For example "36 of 50 trades; 2 more days, at the earliest 2026-03-14". The days go on in
    `behind_us`.
    """
    if target is None:
        return "; ".join(map(_blocker_words, blocked_by))
    missed = [result for result in criteria if result.verdict != "PASS"]
    parts = [missed_words(result) for result in missed if not _ends(result)]
    parts += [words for blocker in blocked_by if (words := _blocker_words(blocker))]
    left_us = _left_us(missed)
    if left_us:
        earliest_us = max(now_us + behind_us + left_us, inputs.cooldown_until_us or 0)
        parts.append(f"{_more(left_us)}, at the earliest {_date(earliest_us)}")
    if parts:
        return "; ".join(parts)
    if blocked_by:
        return f"its gate passes; {target.value} waits for a person{_step(inputs)}"
    return f"its gate to {target.value} passes"


def _step(inputs: EvaluationInputs) -> str:
    """The real capital that the person decides on; "" where no budget is known."""
    if not inputs.wanted_minor:
        return ""
    old, new = from_minor(inputs.entitled_minor), from_minor(inputs.wanted_minor)
    return f": real capital from {old:,.2f} to {new:,.2f}"


def next_possible_us(
    criteria: Sequence[CriterionResult],
    blocked_by: Sequence[str],
    inputs: EvaluationInputs,
    now_us: int,
    behind_us: int,
) -> int | None:
    """When nothing but an approval could be in the way, if only time has to pass; None: more has.

    `now_us` when nothing is in the way already. The days go on in `behind_us`.
    """
    if any(_kind(blocker) not in _ENDS_BY_TIME for blocker in blocked_by):
        return None
    missed = [result for result in criteria if result.verdict != "PASS"]
    if not all(map(_ends, missed)):
        return None
    left_us = _left_us(missed)
    days_us = behind_us + left_us if left_us else 0
    return max(now_us + days_us, inputs.cooldown_until_us or now_us)


def missed_words(criterion: CriterionResult) -> str:
    """The lack of a criterion that does not pass, as "36 of 50 trades"."""
    observed, limit, unit = criterion.observed, criterion.limit, criterion.unit
    name = criterion.name.removeprefix("min_").removeprefix("max_").replace("_", " ")
    called = "Sharpe" if name == "sharpe" else name
    if observed is None or criterion.verdict == "INCONCLUSIVE":
        return f"{called}: {criterion.reason or 'no evidence'}"
    join = "of" if criterion.op == ">=" else "over"
    if unit == "trades":
        return f"{observed:.0f} {join} {limit:g} trades"
    if unit == DAYS:
        return f"{floored(observed, 1):g} {join} {limit:g} days"
    if unit == "fraction":
        return f"{called} {observed:.1%} {join} {limit * 100:.4g}%"
    return f"{called} {observed:.2f} {join} {limit:.2f}"


def floored(value: float, places: int) -> float:
    """The value without the decimals after `places`: 13.99 days are not yet 14."""
    scale = float(10**places)
    return math.floor(value * scale) / scale


def date_time(at_us: int) -> str:
    """An instant to the minute, in UTC; rounded up, so that it is over by then."""
    minutes = -(-at_us // _MINUTE_US)
    hours, minute = divmod(minutes, 60)
    return f"{_date(minutes * _MINUTE_US)} {hours % 24:02}:{minute:02}"


def instant(at_us: int) -> str:
    """Any instant that a caller gave, as it reads it: with its date, where a calendar has one."""
    try:
        return f"{at_us} ({date_time(at_us)} UTC)"
    except (OverflowError, ValueError):
        return shown(at_us)  # a huge int has no text


def _date(at_us: int) -> str:
    return dt.date.fromordinal(_EPOCH_ORDINAL + at_us // DAY_US).isoformat()


def _kind(blocker: str) -> str:
    return blocker.split(":")[0].split(" ")[0]


def _blocker_words(blocker: str) -> str:
    """The words of a blocker; "" for those that the criteria or the end of the line say."""
    if blocker in ("gate", "approval"):
        return ""
    if blocker == "frozen" or _kind(blocker) == "cooldown":
        return blocker
    return blocker.split(": ", 1)[1]


def _ends(result: CriterionResult) -> bool:
    """Whether time alone makes it pass."""
    return result.unit == DAYS and result.op == ">=" and result.margin is not None


def _left_us(missed: Sequence[CriterionResult]) -> int:
    """Time until the last of the criteria on days passes; 0: none is missed."""
    return max(
        (round(-(result.margin or 0.0) * DAY_US) for result in missed if _ends(result)), default=0
    )


def _more(left_us: int) -> str:
    for unit_us, name in ((DAY_US, "day"), (_HOUR_US, "hour")):
        if left_us > unit_us:
            return f"{-(-left_us // unit_us)} more {name}s"
    minutes = -(-left_us // _MINUTE_US)
    return f"{minutes} more minute{'s' if minutes > 1 else ''}"
