"""Rows of the database as records of the stream, and the queries for them.

The status actor runs the queries in its reader thread. Every one is bounded, or counts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from ...runtime import DAY_US
from ...wire.money import from_minor, text_of
from ...wire.promotion import PromotionStage
from ...wire.recovery import RecoveryPhase
from ...wire.stream.protocol import EventTopic, Get, Series
from ...wire.stream.records import (
    AlertEvent,
    Channel,
    DeliveryEvent,
    PromotionEvent,
    Recovery,
    RecoveryEventRow,
)
from ..persistence import Rows
from .attention import Aside

__all__ = [
    "SOURCES",
    "LeanEntry",
    "Outbox",
    "Source",
    "aside",
    "channels",
    "delivery_events",
    "lean_entry",
    "outbox",
    "recovery",
    "series_of",
    "thinned",
]

# Alerts whose deliveries are watched. An older one is delivered or given up.
WATCHED_ALERTS = 256


class Source(NamedTuple):
    """The table behind an event topic, and how a row of it becomes a record."""

    topic: EventTopic
    table: str
    seq: str  # the rowid's column
    columns: tuple[str, ...]  # without `seq`
    record: Callable[[tuple[Any, ...], str], msgspec.Struct]  # of a row and the fund's currency

    def page_sql(self, rows: int) -> str:
        """The query for the page of rows after a seq, oldest first."""
        names = ", ".join(f'"{name}"' for name in (self.seq, *self.columns))
        return f'SELECT {names} FROM "{self.table}" WHERE "{self.seq}" > ? ORDER BY 1 LIMIT {rows}'


# -- events


def _alert(row: tuple[Any, ...], _: str) -> AlertEvent:
    at_us, level, category, title, message, strategy, outcome, dedup_key = row
    # msgspec compares a field with its default by identity.
    outcome = sys.intern(outcome)
    return AlertEvent(at_us, level, category, title, message, strategy, outcome, dedup_key)


class _Payload(msgspec.Struct):
    """The fields of a stored entry that the stream shows."""

    # account, strategy, asset, minor units
    legs: list[tuple[str, str | None, str, int]] = []
    memo: str = ""


_payload = msgspec.json.Decoder(_Payload)


class LeanEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A `JournalEvent` as it is sent: a leg is the list of its fields, without trailing None."""

    recorded_us: int
    day: str
    kind: str
    legs: tuple[tuple[str | None, ...], ...]
    strategy: str | None = None
    memo: str = ""
    reverses: int | None = None


def lean_entry(row: tuple[Any, ...], currency: str) -> LeanEntry:
    """An entry with decimal text for its amounts: minor units pass what JavaScript can hold.

    A payload that this version cannot read has no legs; the rest of the entry is shown.
    """
    recorded_us, day, kind, strategy, reverses, text = row
    try:
        payload = _payload.decode(text)
    except (msgspec.MsgspecError, UnicodeError):
        payload = _Payload()
    legs = tuple(
        _lean_leg(
            account,
            _short(minor),
            None if owner == strategy else owner,
            None if asset == currency else asset,
        )
        for account, owner, asset, minor in payload.legs
    )
    return LeanEntry(recorded_us, day, kind, legs, strategy, payload.memo, reverses)


def _lean_leg(
    account: str, amount: str, owner: str | None, asset: str | None
) -> tuple[str | None, ...]:
    if asset is not None:
        return (account, amount, owner, asset)
    return (account, amount) if owner is None else (account, amount, owner)


def _short(minor: int) -> str:
    """Decimal text with the places that it needs, two at least; 0 is "0"."""
    if not minor:
        return "0"
    whole, _, places = text_of(from_minor(minor)).partition(".")
    return f"{whole}.{places.rstrip('0'):0<2}"


def _promotion(row: tuple[Any, ...], _: str) -> PromotionEvent:
    strategy, kind, from_stage, to_stage, effective_us, by, reason, rev = row
    real = any(_is_real(stage) for stage in (from_stage, to_stage))
    return PromotionEvent(strategy, kind, to_stage, effective_us, by, from_stage, reason, rev, real)


def _is_real(stage: str | None) -> bool:
    return stage is not None and stage.startswith(PromotionStage.Live.value)


def _recovery_event(row: tuple[Any, ...], _: str) -> RecoveryEventRow:
    at_us, action, target, success, attempt, error, by = row
    told = None if success is None else bool(success)
    return RecoveryEventRow(at_us, action, target, told, attempt, error, by)


SOURCES = (
    Source(
        "alerts",
        "alert",
        "id",
        ("at_us", "level", "category", "title", "message", "strategy", "outcome", "dedup_key"),
        _alert,
    ),
    Source(
        "journal",
        "entry",
        "seq",
        ("recorded_us", "day", "kind", "strategy", "reverses", "payload"),
        lean_entry,
    ),
    Source(
        "promotions",
        "promotion_history",
        "seq",
        ("strategy", "kind", "from_stage", "to_stage", "effective_us", "by", "reason", "rev"),
        _promotion,
    ),
    Source(
        "recovery_events",
        "recovery_event",
        "seq",
        ("at_us", "action", "target", "success", "attempt", "error", "by"),
        _recovery_event,
    ),
)


# -- states


def recovery(rows: Rows, attempts_max: int) -> dict[str, Recovery]:
    """The recovery of every strategy to which something happened, by name."""
    found = rows.rows(
        "SELECT name, phase, beneath, episode, since_us, attempts, due_us, reason, held_by"
        " FROM recovery_state ORDER BY name"
    )
    opened = RecoveryPhase.OPEN.value
    return {
        name: Recovery(
            phase,
            attempts,
            attempts_max,
            due_us,
            reason,
            episode,
            None if phase == RecoveryPhase.HEALTHY.value else since_us,
            opened in (phase, beneath),
            held_by,
        )
        for name, phase, beneath, episode, since_us, attempts, due_us, reason, held_by in found
    }


class Outbox(NamedTuple):
    """The deliveries of the newest alerts, and the totals of each channel."""

    newest: Mapping[tuple[int, str], tuple[str, int, str | None]]  # state, attempts, error
    totals: Mapping[tuple[str, str], int]  # by channel and state


def outbox(rows: Rows) -> Outbox:
    """The outbox as it is now."""
    newest = rows.rows(
        "SELECT alert_id, channel, state, attempts, error FROM outbox"
        " WHERE alert_id > (SELECT coalesce(max(alert_id), 0) FROM outbox) - ?"
        " ORDER BY alert_id, channel",
        (WATCHED_ALERTS,),
    )
    totals = rows.rows("SELECT channel, state, count(*) FROM outbox GROUP BY 1, 2")
    return Outbox(
        {(alert, channel): (state, tries, error) for alert, channel, state, tries, error in newest},
        {(channel, state): count for channel, state, count in totals},
    )


_LOST = ("FAILED", "UNKNOWN", "EXPIRED")
_WAITING = ("PENDING", "SENDING")


def channels(found: Outbox, names: tuple[str, ...]) -> dict[str, Channel]:
    """The topic `channels`. A channel fails while its last delivery that ended did not arrive."""
    last: dict[str, tuple[str, int, str | None]] = {}
    for (_, channel), delivery in found.newest.items():
        if delivery[0] in (*_LOST, "DELIVERED"):
            last[channel] = delivery

    def total(name: str, *states: str) -> int:
        return sum(found.totals.get((name, state), 0) for state in states)

    shown = {}
    for name in names:
        state, _, error = last.get(name, ("DELIVERED", 0, None))
        failing = state in _LOST
        shown[name] = Channel(
            "failing" if failing else "ok",
            total(name, *_WAITING),
            (error or state.lower()) if failing else None,
            total(name, "DELIVERED"),
            total(name, *_LOST),
        )
    return shown


def delivery_events(before: Outbox, after: Outbox) -> list[DeliveryEvent]:
    """The deliveries whose state has changed. A failed one is not tried again."""
    return [
        DeliveryEvent(alert, channel, state, attempts, error)
        for (alert, channel), (state, attempts, error) in after.newest.items()
        if before.newest.get((alert, channel)) != (state, attempts, error)
    ]


def aside(rows: Rows) -> Aside:
    """The reports that wait for a person."""
    waiting = " FROM report_aside WHERE skipped_by IS NULL"
    (count,) = rows.row(f"SELECT count(*){waiting}")
    if not count:
        return Aside()
    query = f"SELECT key, reason, since_us{waiting} ORDER BY since_us, key LIMIT 1"
    return Aside(count, *rows.row(query))


# -- series


def series_of(rows: Rows, get: Get, now_us: int) -> Series | None:
    """The NAV of the sessions in the range, thinned to `get.points`; None: there is no such one."""
    since_us = _since_us(get.range, now_us)
    if get.series != "nav" or since_us is None:
        return None
    found = rows.rows(
        "SELECT at_us, nav_minor, drawdown_pct FROM nav_history WHERE at_us >= ? ORDER BY at_us",
        (since_us,),
    )
    points = thinned(found, get.points)
    return Series(
        "nav",
        get.range,
        tuple(at_us for at_us, _, _ in points),
        tuple(text_of(from_minor(nav)) for _, nav, _ in points),
        tuple(round(drawdown, 4) for _, _, drawdown in points),
    )


def _since_us(text: str, now_us: int) -> int | None:
    if text == "all":
        return 0
    days = text.removesuffix("d")
    if text == days or not days.isascii() or not days.isdigit() or len(days) > 6:
        return None
    return now_us - int(days) * DAY_US


Point = tuple[int, int, float]


def thinned(points: list[Point], most: int) -> list[Point]:
    """At most so many of the points: of each stretch the lowest and the highest NAV.

    The first and the last point always stay, so the figure beside the chart is on it.
    """
    if len(points) <= most:
        return points
    if most < 4:
        return points[-most:]
    inner, buckets = points[1:-1], (most - 2) // 2
    kept = [points[0]]
    for number in range(buckets):
        bucket = inner[number * len(inner) // buckets : (number + 1) * len(inner) // buckets]
        low, high = min(bucket, key=_nav), max(bucket, key=_nav)
        kept += sorted({low, high})
    return [*kept, points[-1]]


def _nav(point: Point) -> int:
    return point[1]
