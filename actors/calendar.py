"""The calendar of sessions: when each one ends, and which have ended. Pure; instants in
microseconds since the Unix epoch.

A session is named by the ISO date that it closes. "UTC day" closes each date at the midnight after
it; "weekdays HH:MM Area/City" closes Monday to Friday at that local time, so the instant moves with
daylight saving time. A host that keeps the calendar itself names each session that it ends.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from ..runtime import ConfigError, shown

__all__ = ["NAMED_PERIODS_PER_YEAR", "Calendar", "End", "calendar_of"]

# Trading days in a year: of weekday calendars, and of hosts that name their sessions.
NAMED_PERIODS_PER_YEAR = 252

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_DAY = dt.timedelta(days=1)
_FRIDAY = 4


class End(NamedTuple):
    """The end of one session."""

    session: str  # ISO date
    began_us: int  # the end of the session before it
    at_us: int
    missed: bool = False  # no tick came near it


class Calendar:
    """The sessions of one setting."""

    def __init__(
        self, close: dt.time, zone: dt.tzinfo, *, weekdays: bool, periods_per_year: int
    ) -> None:
        self.periods_per_year = periods_per_year
        self._close = close
        self._zone = zone
        self._weekdays = weekdays

    def newest(self, at_us: int) -> End:
        """The last session that had ended at that instant."""
        day = (_EPOCH + dt.timedelta(microseconds=at_us)).astimezone(self._zone).date()
        ended = [found for found in self._days_before(day) if found[1] <= at_us]
        (_, began_us), (newest, ended_us) = ended[-2:]
        return End(newest.isoformat(), began_us, ended_us)

    def ended_between(self, since_us: int, until_us: int) -> int:
        """The number of sessions that ended after the first instant, up to the second."""
        return self._number(self.newest(until_us)) - self._number(self.newest(since_us))

    def after(self, session: str, until_us: int) -> Iterator[End]:
        """The sessions after this one that had ended at `until_us`, oldest first."""
        day = dt.date.fromisoformat(session)
        began_us = self._end_us(day)
        while True:
            day += _DAY
            if not self._has(day):
                continue
            ended_us = self._end_us(day)
            if ended_us > until_us:
                return
            yield End(day.isoformat(), began_us, ended_us)
            began_us = ended_us

    def _days_before(self, day: dt.date) -> Iterator[tuple[dt.date, int]]:
        # Six days hold at least two closes that are over: a weekend, and today's still to come.
        for back in range(6, -1, -1):
            if self._has(day - back * _DAY):
                yield day - back * _DAY, self._end_us(day - back * _DAY)

    def _number(self, end: End) -> int:
        """The position of a session among all sessions of the calendar."""
        day = dt.date.fromisoformat(end.session).toordinal()
        if not self._weekdays:
            return day
        # Ordinal 1 was a Monday, so that Monday to Friday have the remainders 0 to 4.
        weeks, weekday = divmod(day - 1, 7)
        return 5 * weeks + weekday

    def _has(self, day: dt.date) -> bool:
        return not self._weekdays or day.weekday() <= _FRIDAY

    def _end_us(self, day: dt.date) -> int:
        closes = day if self._weekdays else day + _DAY
        at = dt.datetime.combine(closes, self._close, self._zone)
        return (at - _EPOCH) // dt.timedelta(microseconds=1)


@lru_cache
def calendar_of(session: str) -> Calendar:
    """The calendar that the setting `session` names. Raises: `ConfigError`."""
    if session == "UTC day":
        return Calendar(dt.time(), dt.UTC, weekdays=False, periods_per_year=365)
    match session.split(" "):
        case ["weekdays", close, zone]:
            return Calendar(
                _time_of(close, session),
                _zone_of(zone, session),
                weekdays=True,
                periods_per_year=NAMED_PERIODS_PER_YEAR,
            )
    raise ConfigError(
        "session", f"{shown(session)} is neither 'UTC day' nor 'weekdays HH:MM Area/City'"
    )


def _time_of(text: str, session: str) -> dt.time:
    try:
        found = dt.time.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or f"{found:%H:%M}" != text:
        raise ConfigError("session", f"{shown(session)}: {shown(text)} is not a time HH:MM")
    return found


def _zone_of(name: str, session: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    # A folder of the zone database is an OSError, a name with ".." a ValueError.
    except (KeyError, OSError, ValueError):
        raise ConfigError(
            "session", f"{shown(session)}: this system knows no time zone {shown(name)}"
        ) from None
