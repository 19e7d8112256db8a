"""Times as callers give them, turned into ISO dates and microseconds since the epoch, UTC."""

from __future__ import annotations

import datetime as dt
import operator
from typing import SupportsIndex

from fundops.runtime import ConfigError, shown

__all__ = ["Instant", "Moment", "day_of", "instant_us", "moment_of"]

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

Instant = int | dt.datetime | dt.date
Moment = Instant | str


def instant_us(field: str, at: Instant | None) -> int | None:
    """Microseconds since the epoch; a date counts as its start, UTC, an int is returned as it is.

    Raises: `ConfigError`.
    """
    if at is None:
        return at
    if isinstance(at, SupportsIndex) and not isinstance(at, bool):
        return operator.index(at)  # also an integer of another library, such as numpy
    if isinstance(at, dt.datetime):
        if at.tzinfo is None:
            raise ConfigError(field, f"{shown(at)} has no timezone")
        return (at - _EPOCH) // dt.timedelta(microseconds=1)
    if isinstance(at, dt.date):
        return instant_us(field, dt.datetime(at.year, at.month, at.day, tzinfo=dt.UTC))
    raise ConfigError(
        field, f"{shown(at)} is not a date, an aware datetime, or microseconds since the epoch"
    )


def day_of(field: str, day: dt.date | str) -> str:
    """The ISO date. A text is returned unchecked: its receiver parses it. Raises: `ConfigError`."""
    if isinstance(day, str):
        return day
    if isinstance(day, dt.date) and not isinstance(day, dt.datetime):
        return day.isoformat()
    raise ConfigError(field, f"{shown(day)} is not a date")


def moment_of(field: str, moment: Moment | None) -> str | int | None:
    """A date as ISO text, which counts to its end, or an instant in microseconds.

    Raises: `ConfigError`.
    """
    if isinstance(moment, str) or (
        isinstance(moment, dt.date) and not isinstance(moment, dt.datetime)
    ):
        return day_of(field, moment)
    return instant_us(field, moment)
