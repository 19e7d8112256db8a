"""Instants that a host gives: int microseconds since the Unix epoch, UTC, near the fund's clock."""

from __future__ import annotations

from decimal import Decimal

from ..runtime import shown

__all__ = ["AHEAD_MAX_US", "fault_of"]

AHEAD_MAX_US = 300_000_000  # the clocks of two machines differ by less
YEAR_1990_US = 631_152_000_000_000

# Instants of our time in other units are mistaken for microseconds.
_OTHER_UNITS: tuple[tuple[Decimal | int, str], ...] = (
    (10**3, "nanoseconds"),
    (Decimal("1e-3"), "milliseconds"),
    (Decimal("1e-6"), "seconds"),
)


def fault_of(at_us: int, now_us: int) -> str:
    """Why this is no instant of a report that comes in now, with the unit it may have; "": it is.

    Under a clock that is before 1990 itself, as in virtual time, any past instant is one.
    """
    earliest_us = YEAR_1990_US if now_us >= YEAR_1990_US else 0
    latest_us = now_us + AHEAD_MAX_US
    if earliest_us <= at_us <= latest_us:
        return ""
    looks = next(
        (
            f"; it looks like {unit}"
            for factor, unit in _OTHER_UNITS
            if earliest_us * factor <= at_us <= latest_us * factor
        ),
        "",
    )
    when = "before the year 1990" if at_us < earliest_us else "more than 5 minutes ahead"
    return f"{shown(at_us)} is {when}, in microseconds{looks}"
