"""Times as callers give them, turned into ISO dates and microseconds since the epoch, UTC."""

from __future__ import annotations

import datetime as dt
from typing import Any

from fundops.runtime import FOREIGN_ERRORS, ConfigError, shown
from fundops.wire.foreign import plain_number, plain_text

__all__ = ["Instant", "Moment", "day_of", "given_us", "instant_us", "known_us", "moment_of"]

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LAST_US = 253_402_300_799_999_999  # of the year 9999

Instant = int | dt.datetime | dt.date
Moment = Instant | str


def instant_us(field: str, at: Instant | None) -> int | None:
    """Microseconds since the epoch; a date counts as its start, UTC, an int is returned as it is.

    Raises: `ConfigError`.
    """
    return None if at is None else given_us(field, at)


def given_us(field: str, at: Instant) -> int:
    """As `instant_us`, of an instant that must be given. Raises: `ConfigError`."""
    number, given = plain_number(at), _time_of(at)
    if type(number) is int:
        return number  # also an integer of another library, such as numpy
    if type(given) is dt.date:
        given = dt.datetime(given.year, given.month, given.day, tzinfo=dt.UTC)
    if given is None:
        raise ConfigError(
            field, f"{shown(at)} is not a date, an aware datetime, or microseconds since the epoch"
        )
    if given.tzinfo is None:
        text = at.isoformat() if type(at) is dt.datetime else shown(at)
        raise ConfigError(field, f"{text} has no timezone, such as Z or +02:00")
    since: dt.timedelta = given - _EPOCH
    return since // dt.timedelta(microseconds=1)


def known_us(field: str, at: Instant) -> int:
    """As `given_us`, of an instant that a file can hold. Raises: `ConfigError`."""
    at_us = given_us(field, at)
    if not 0 <= at_us <= _LAST_US:
        raise ConfigError(field, f"{shown(at)} is no time from the year 1970 to 9999")
    return at_us


def day_of(field: str, day: dt.date | str) -> str:
    """The ISO date. A text is returned unchecked: its receiver parses it. Raises: `ConfigError`."""
    text, given = plain_text(day), _time_of(day)
    if text is not None:
        return text
    if type(given) is dt.date:
        return given.isoformat()
    raise ConfigError(field, f"{shown(day)} is not a date")


def moment_of(field: str, moment: Moment | None) -> str | int | None:
    """A date as ISO text, which counts to its end, or an instant in microseconds.

    Raises: `ConfigError`.
    """
    given: Any = moment
    if plain_text(given) is not None or type(_time_of(given)) is dt.date:
        return day_of(field, given)
    return instant_us(field, given)


def _time_of(value: Any) -> Any:
    """A date or datetime, also of a subclass such as pandas's, as an exact one; else None."""
    kind = type(value)
    if not issubclass(kind, dt.date):
        return None
    try:
        if not issubclass(kind, dt.datetime):
            return dt.date(value.year, value.month, value.day)
        if value.tzinfo is None:
            return dt.datetime(1970, 1, 1)  # noqa: DTZ001  refused for want of a zone
        return _EPOCH + (value - _EPOCH)
    except FOREIGN_ERRORS:
        return None
