"""The calendar by plain calls: when sessions end, and how many ended between two instants."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundops.actors.calendar import End, calendar_of
from fundops.runtime import DAY_US, ConfigError

NEW_YORK = "weekdays 16:00 America/New_York"


def us(text: str) -> int:
    """Microseconds of an ISO instant, UTC."""
    return int(dt.datetime.fromisoformat(f"{text}+00:00").timestamp()) * 1_000_000


def test_a_utc_day_ends_at_the_midnight_after_it() -> None:
    calendar = calendar_of("UTC day")
    [end] = calendar.after("2026-03-01", us("2026-03-03 00:00:00"))
    assert end == End("2026-03-02", us("2026-03-02 00:00:00"), us("2026-03-03 00:00:00"))
    assert calendar.newest(us("2026-03-03 00:00:00")) == end
    assert calendar.newest(us("2026-03-03 00:00:00") - 1).session == "2026-03-01"
    assert calendar.periods_per_year == 365


def test_a_weekday_close_moves_with_daylight_saving_time() -> None:
    calendar = calendar_of(NEW_YORK)
    found = list(calendar.after("2026-03-04", us("2026-03-10 00:00:00")))
    assert [(end.session, end.at_us) for end in found] == [
        ("2026-03-05", us("2026-03-05 21:00:00")),
        ("2026-03-06", us("2026-03-06 21:00:00")),
        ("2026-03-09", us("2026-03-09 20:00:00")),
    ]
    assert found[2].began_us == found[1].at_us, "no session lies at the weekend"
    assert calendar.newest(us("2026-03-09 12:00:00")) == found[1]
    assert calendar.periods_per_year == 252


@given(st.integers(0, 20_000 * 1_440), st.sampled_from(("UTC day", NEW_YORK)))
def test_sessions_follow_each_other_without_a_gap(minute: int, session: str) -> None:
    at_us, calendar = minute * 60_000_000, calendar_of(session)
    newest = calendar.newest(at_us)
    following = list(calendar.after(newest.session, at_us + 5 * DAY_US))
    assert newest.at_us <= at_us < following[0].at_us
    edges = [newest, *following]
    assert all(
        one.at_us == two.began_us and one.session < two.session for one, two in pairwise(edges)
    )
    assert calendar.ended_between(newest.at_us, edges[-1].at_us) == len(following)
    assert calendar.ended_between(newest.at_us - 1, newest.at_us) == 1


@pytest.mark.parametrize(
    "session",
    [
        "",
        "utc day",
        "weekdays",
        "weekdays 16:00",
        "weekdays 16:00 Mars/Olympus",
        "weekdays 16:00 America",
        "weekdays 16:00 ../etc/passwd",
        "weekdays 16 America/New_York",
        "weekdays 24:00 America/New_York",
        "weekdays 16:00:30 America/New_York",
        "weekdays 4:00 America/New_York",
        "weekdays  16:00 America/New_York",
        "weekends 16:00 America/New_York",
    ],
)
def test_a_calendar_that_does_not_exist_is_refused_by_name(session: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        calendar_of(session)
    assert refusal.value.field == "session"
