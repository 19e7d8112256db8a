"""Tables of the alert subsystem, the statements that write them, and the readers of their rows.

Rates and retention: requests, history and outbox grow by one row for each alert (the outbox by one
more for each channel) and are kept; counts, keys, suppressions and waiting alerts are bounded by
the enums, by `OPEN_KEYS_MAX` and by `WAITING_MAX`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ...runtime import shown
from ...wire.alert import AlertOutcome, AlertPage, AlertRecord, Category, Level, OutgoingAlert
from ...wire.errors import AlertRefused
from ...wire.persistence import Statement
from ..persistence import Reader, meta
from .core import (
    NO_CHANGES,
    Alert,
    AlertSettings,
    Changes,
    Decided,
    Gates,
    OpenKey,
    Suppressed,
    repaired,
)

__all__ = [
    "RECENT_MAX",
    "SCHEMA",
    "SCHEMA_4",
    "Outgoing",
    "Recorded",
    "claim",
    "expire_pending",
    "forget_sending",
    "load_cursor",
    "load_gates",
    "load_last_id",
    "load_next",
    "load_origin",
    "load_pending_count",
    "load_requests",
    "load_sending_count",
    "recent",
    "record",
    "release",
    "settle",
    "told_keys",
    "world_id",
]

RECENT_MAX = 10_000

SCHEMA = """
CREATE TABLE alert_request (
    id INTEGER PRIMARY KEY,
    at_us INTEGER NOT NULL,
    level TEXT NOT NULL CHECK (level IN ('INFO', 'WARNING', 'CRITICAL')),
    category TEXT NOT NULL CHECK (category IN (
        'KILL_SWITCH', 'STRATEGY_FAILURE', 'DRAWDOWN', 'SETTLEMENT', 'CORRELATION',
        'RISK_LIMIT', 'RECOVERY', 'PROMOTION', 'REBALANCE', 'GENERAL')),
    title TEXT NOT NULL,
    message TEXT NOT NULL,
    strategy TEXT,
    dedup_key TEXT,
    resolves INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE alert_cursor (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    request_id INTEGER NOT NULL
) STRICT;
INSERT INTO alert_cursor VALUES (1, 0);

CREATE TABLE alert (
    id INTEGER PRIMARY KEY,
    at_us INTEGER NOT NULL,
    level TEXT NOT NULL,
    category TEXT NOT NULL,
    title TEXT NOT NULL,
    message TEXT NOT NULL,
    strategy TEXT,
    dedup_key TEXT,
    outcome TEXT NOT NULL,
    in_budget INTEGER NOT NULL
) STRICT;
CREATE INDEX alert_admitted ON alert(category, level, id) WHERE in_budget = 1;

CREATE TABLE alert_count (
    category TEXT NOT NULL,
    level TEXT NOT NULL,
    outcome TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (category, level, outcome)
) STRICT, WITHOUT ROWID;

CREATE TABLE alert_key (
    dedup_key TEXT PRIMARY KEY,
    level TEXT NOT NULL,
    sent_us INTEGER NOT NULL,
    fired INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE alert_suppressed (
    category TEXT PRIMARY KEY,
    first_us INTEGER NOT NULL,
    n INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (
    alert_id INTEGER NOT NULL REFERENCES alert(id),
    channel TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN (
        'PENDING', 'SENDING', 'DELIVERED', 'FAILED', 'UNKNOWN', 'EXPIRED', 'SKIPPED')),
    critical INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    error TEXT,
    PRIMARY KEY (alert_id, channel)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_pending ON outbox(channel, critical DESC, alert_id) WHERE state = 'PENDING';
CREATE INDEX outbox_sending ON outbox(channel, alert_id) WHERE state = 'SENDING';
"""

SCHEMA_4 = """
CREATE TABLE alert_waiting (
    dedup_key TEXT PRIMARY KEY,
    at_us INTEGER NOT NULL,
    level TEXT NOT NULL,
    category TEXT NOT NULL,
    title TEXT NOT NULL,
    message TEXT NOT NULL,
    strategy TEXT,
    resolves INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
ALTER TABLE alert_suppressed ADD COLUMN levels TEXT NOT NULL DEFAULT '[0,0,0]'; -- JSON list
ALTER TABLE alert_suppressed ADD COLUMN titles TEXT NOT NULL DEFAULT '[]'; -- JSON list
"""


# -- the history


class Recorded(msgspec.Struct, frozen=True):
    """All that one transaction of the alert actor makes durable."""

    first_id: int
    decided: Sequence[Decided]
    changes: Changes
    cursor: int  # id of the last request consumed
    channels: Sequence[str]
    queue_max: int


def record(facts: Recorded) -> tuple[Statement, ...]:
    """History, counts, keys, suppressions, cursor and one outbox row for each queued alert and
    channel.
    """
    rows = list(enumerate(facts.decided, facts.first_id))
    statements = [
        Statement(
            "INSERT INTO alert(id, at_us, level, category, title, message, strategy, dedup_key,"
            " outcome, in_budget)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [_history_row(number, decided) for number, decided in rows],
        ),
        Statement(
            "INSERT INTO alert_count(category, level, outcome, n) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET n = n + excluded.n",
            [
                (*key, n)
                for key, n in Counter(_count_key(decided) for decided in facts.decided).items()
            ],
        ),
        Statement("UPDATE alert_cursor SET request_id = ?", [(facts.cursor,)]),
        *_save_changes(facts.changes),
        *_queue(rows, facts),
    ]
    return tuple(statement for statement in statements if statement.rows)


def _history_row(number: int, decided: Decided) -> tuple[Any, ...]:
    alert = decided.alert
    return (
        number,
        alert.at_us,
        alert.level.value,
        alert.category.value,
        alert.title,
        alert.message,
        alert.strategy,
        alert.dedup_key,
        decided.outcome.value,
        int(decided.in_budget),
    )


def _count_key(decided: Decided) -> tuple[str, str, str]:
    return decided.alert.category.value, decided.alert.level.value, decided.outcome.value


def _save_changes(changes: Changes) -> tuple[Statement, ...]:
    return (
        Statement(
            "INSERT INTO alert_key(dedup_key, level, sent_us, fired) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET level = excluded.level,"
            " sent_us = excluded.sent_us, fired = excluded.fired",
            [
                (key, known.level.value, known.sent_us, known.fired)
                for key, known in changes.keys.items()
                if known
            ],
        ),
        Statement(
            "DELETE FROM alert_key WHERE dedup_key = ?",
            [(key,) for key, known in changes.keys.items() if known is None],
        ),
        Statement(
            "INSERT INTO alert_suppressed(category, first_us, n, levels, titles)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET first_us = excluded.first_us,"
            " n = excluded.n, levels = excluded.levels, titles = excluded.titles",
            [
                (category.value, held.first_us, held.count, _json(held.levels), _json(held.titles))
                for category, held in changes.suppressed.items()
                if held
            ],
        ),
        Statement(
            "DELETE FROM alert_suppressed WHERE category = ?",
            [(category.value,) for category, held in changes.suppressed.items() if held is None],
        ),
        Statement(
            "INSERT OR REPLACE INTO alert_waiting(dedup_key, at_us, level, category, title,"
            " message, strategy, resolves) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [_waiting_row(key, alert) for key, alert in changes.waiting.items() if alert],
        ),
        Statement(
            "DELETE FROM alert_waiting WHERE dedup_key = ?",
            [(key,) for key, alert in changes.waiting.items() if alert is None],
        ),
    )


def _json(values: Sequence[Any]) -> str:
    return msgspec.json.encode(values).decode()


def _waiting_row(key: str, alert: Alert) -> tuple[Any, ...]:
    return (
        key,
        alert.at_us,
        alert.level.value,
        alert.category.value,
        alert.title,
        alert.message,
        alert.strategy,
        int(alert.resolves),
    )


def _queue(rows: Sequence[tuple[int, Decided]], facts: Recorded) -> tuple[Statement, ...]:
    queued = [(number, one.alert) for number, one in rows if one.outcome is AlertOutcome.QUEUED]
    if not queued:
        return ()
    return (
        Statement(
            "INSERT INTO outbox(alert_id, channel, state, critical, at_us, attempts, error)"
            " VALUES (?, ?, 'PENDING', ?, ?, 0, NULL)",
            [
                (number, channel, int(alert.level is Level.CRITICAL), alert.at_us)
                for number, alert in queued
                for channel in facts.channels
            ],
        ),
        # A dead endpoint must not grow its queue without end. 'INFO' sorts before 'WARNING'.
        Statement(
            "UPDATE outbox SET state = 'SKIPPED', error = 'queue full'"
            " WHERE channel = ?1 AND state = 'PENDING' AND alert_id IN ("
            " SELECT o.alert_id FROM outbox o JOIN alert a ON a.id = o.alert_id"
            " WHERE o.channel = ?1 AND o.state = 'PENDING' AND o.critical = 0"
            " ORDER BY a.level, o.alert_id LIMIT max(0,"
            " (SELECT count(*) FROM outbox WHERE channel = ?1 AND state = 'PENDING') - ?2))",
            [(channel, facts.queue_max) for channel in facts.channels],
        ),
    )


def recent(reader: Reader, limit: int) -> AlertPage:
    """The newest `limit` alerts, newest first, at most `RECENT_MAX`, and the counts over all of
    history.

    From another process the two may be one commit apart. Raises: `AlertRefused` for a negative
    limit.
    """
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise AlertRefused("limit", f"{shown(limit)} is not a whole number")
    if limit < 0:
        raise AlertRefused("limit", f"{limit} is negative")
    rows = reader.rows(
        "SELECT id, at_us, level, category, title, message, strategy, outcome FROM alert"
        " ORDER BY id DESC LIMIT ?",
        (min(limit, RECENT_MAX),),
    )
    by_category: Counter[str] = Counter()
    by_outcome: Counter[str] = Counter()
    suppressed: Counter[str] = Counter()
    for category, outcome, n in reader.rows("SELECT category, outcome, n FROM alert_count"):
        by_category[category] += n
        by_outcome[outcome] += n
        if outcome == AlertOutcome.RATE_SUPPRESSED.value:
            suppressed[category] += n
    alerts = tuple(_record(row) for row in rows)
    return AlertPage(alerts, dict(by_category), dict(by_outcome), dict(suppressed))


def _record(row: Any) -> AlertRecord:
    number, at_us, level, category, title, message, strategy, outcome = row
    return AlertRecord(
        number,
        at_us,
        Level(level),
        Category(category),
        title,
        message,
        strategy,
        AlertOutcome(outcome),
    )


# -- what the alert actor starts from


def load_gates(
    reader: Reader,
    settings: AlertSettings,
    unwritten: Sequence[Decided] = (),
    changes: Changes = NO_CHANGES,
) -> Gates:
    """The gates as history left them, continued by decisions and changes that are not stored
    yet.
    """
    keep = 3 * settings.per_category
    admitted: list[tuple[int, Category, Level, int]] = []
    for category in Category:
        for level in Level:
            rows = reader.rows(
                "SELECT id, at_us FROM alert WHERE category = ? AND level = ? AND in_budget = 1"
                " ORDER BY id DESC LIMIT ?",
                (category.value, level.value, keep),
            )
            admitted += [(number, category, level, at_us) for number, at_us in rows]
    gates = Gates(settings)
    gates.restore(
        [
            *(
                (category, level, at_us)
                for _, category, level, at_us in sorted(admitted, key=lambda one: one[0])
            ),
            *(
                (one.alert.category, one.alert.level, one.alert.at_us)
                for one in unwritten
                if one.in_budget
            ),
        ],
        Changes(
            {**_load_keys(reader), **changes.keys},
            {**_load_suppressed(reader), **changes.suppressed},
            {**_load_waiting(reader), **changes.waiting},
        ),
    )
    return gates


def _load_keys(reader: Reader) -> Mapping[str, OpenKey]:
    rows = reader.rows("SELECT dedup_key, level, sent_us, fired FROM alert_key ORDER BY sent_us")
    return {key: OpenKey(Level(level), sent_us, fired) for key, level, sent_us, fired in rows}


def _load_suppressed(reader: Reader) -> Mapping[Category, Suppressed]:
    rows = reader.rows("SELECT category, first_us, n, levels, titles FROM alert_suppressed")
    return {
        Category(category): Suppressed(
            first_us,
            n,
            msgspec.json.decode(levels, type=tuple[int, int, int]),
            msgspec.json.decode(titles, type=tuple[str, ...]),
        )
        for category, first_us, n, levels, titles in rows
    }


def _load_waiting(reader: Reader) -> Mapping[str, Alert]:
    rows = reader.rows(
        "SELECT 0, at_us, level, category, title, message, strategy, dedup_key, resolves"
        " FROM alert_waiting ORDER BY at_us, dedup_key"
    )
    return {row[7]: _alert(row) for row in rows}


def told_keys(reader: Reader, prefix: str) -> set[str]:
    """The keys with this prefix that were fired and not resolved, heard or still waiting."""
    rows = reader.rows(
        "SELECT dedup_key FROM alert_key WHERE substr(dedup_key, 1, length(?1)) = ?1 UNION"
        " SELECT dedup_key FROM alert_waiting"
        " WHERE substr(dedup_key, 1, length(?1)) = ?1 AND NOT resolves",
        (prefix,),
    )
    return {key for (key,) in rows}


def load_last_id(reader: Reader) -> int:
    """The id of the newest alert, 0 when there is none."""
    return int(reader.row("SELECT coalesce(max(id), 0) FROM alert")[0])


def load_cursor(reader: Reader) -> int:
    """The id of the last request consumed."""
    return int(reader.row("SELECT request_id FROM alert_cursor")[0])


def load_requests(reader: Reader, cursor: int, limit: int) -> list[tuple[int, Alert]]:
    """The next requests after the cursor, in the order of their commits."""
    rows = reader.rows(
        "SELECT id, at_us, level, category, title, message, strategy, dedup_key, resolves"
        " FROM alert_request WHERE id > ? ORDER BY id LIMIT ?",
        (cursor, limit),
    )
    return [(row[0], _alert(row)) for row in rows]


def _alert(row: Any) -> Alert:
    _, at_us, level, category, title, message, strategy, dedup_key, resolves = row
    alert = Alert(
        at_us, Level(level), Category(category), title, message, strategy, dedup_key, bool(resolves)
    )
    return repaired(alert)


# -- the outbox


class Outgoing(msgspec.Struct, frozen=True):
    """One row of the outbox with the alert it carries."""

    alert_id: int
    attempts: int  # made so far
    alert: OutgoingAlert


_OUTGOING = (
    "SELECT o.alert_id, o.attempts, a.at_us, a.level, a.category, a.title, a.message"
    " FROM outbox o JOIN alert a ON a.id = o.alert_id WHERE "
)


def load_origin(reader: Reader) -> str:
    """The uuid of the database. A restored copy has another one."""
    return meta.read(reader).get("uuid", "")


def world_id(origin: str, number: int | str) -> str:
    """The id of an alert outside of its database, for receivers that drop repeated ones."""
    return f"{origin}-{number}" if origin else str(number)


def load_next(reader: Reader, channel: str, claimed: int | None, origin: str) -> Outgoing | None:
    """The row to deliver next: CRITICAL first, then the oldest.

    `claimed` is one whose claim was refused without saying whether it was written: it comes before
    all others.
    """
    row = None
    if claimed is not None:
        row = reader.row(
            _OUTGOING + "o.alert_id = ? AND o.channel = ? AND o.state IN ('PENDING', 'SENDING')",
            (claimed, channel),
        )
    if row is None:
        row = reader.row(
            _OUTGOING
            + "o.channel = ? AND o.state = 'PENDING' ORDER BY o.critical DESC, o.alert_id LIMIT 1",
            (channel,),
        )
    if row is None:
        return None
    alert_id, attempts, at_us, level, category, title, message = row
    alert = OutgoingAlert(
        world_id(origin, alert_id), at_us, Level(level), Category(category), title, message
    )
    return Outgoing(alert_id, attempts, alert)


def claim(row: Outgoing, channel: str) -> Statement:
    """PENDING -> SENDING, before the first byte leaves."""
    return Statement(
        "UPDATE outbox SET state = 'SENDING', attempts = ? WHERE alert_id = ? AND channel = ?",
        [(row.attempts + 1, row.alert_id, channel)],
    )


def release(alert_id: int, channel: str) -> Statement:
    """SENDING -> PENDING: claimed, and certainly not sent."""
    return Statement(
        "UPDATE outbox SET state = 'PENDING', attempts = attempts - 1"
        " WHERE alert_id = ? AND channel = ? AND state = 'SENDING'",
        [(alert_id, channel)],
    )


def settle(alert_id: int, channel: str, error: str | None) -> Statement:
    """SENDING -> DELIVERED, or FAILED with an error."""
    state = "DELIVERED" if error is None else "FAILED"
    return Statement(
        "UPDATE outbox SET state = ?, error = ?"
        " WHERE alert_id = ? AND channel = ? AND state = 'SENDING'",
        [(state, error, alert_id, channel)],
    )


def forget_sending(channel: str) -> Statement:
    """SENDING -> UNKNOWN: its sender died, so the outcome cannot be known."""
    return Statement(
        "UPDATE outbox SET state = 'UNKNOWN' WHERE channel = ? AND state = 'SENDING'", [(channel,)]
    )


def expire_pending(channel: str, before_us: int, critical_before_us: int) -> Statement:
    """PENDING -> EXPIRED for rows at or before these instants: late news is worse than none."""
    return Statement(
        "UPDATE outbox SET state = 'EXPIRED' WHERE channel = ? AND state = 'PENDING'"
        " AND at_us <= CASE critical WHEN 0 THEN ? ELSE ? END",
        [(channel, before_us, critical_before_us)],
    )


def load_sending_count(reader: Reader, channel: str) -> int:
    """How many rows of the channel are SENDING."""
    return int(
        reader.row(
            "SELECT count(*) FROM outbox WHERE channel = ? AND state = 'SENDING'", (channel,)
        )[0]
    )


def load_pending_count(reader: Reader, channel: str) -> int:
    """How many rows of the channel are PENDING or SENDING."""
    pending = reader.row(
        "SELECT count(*) FROM outbox WHERE channel = ? AND state = 'PENDING'", (channel,)
    )[0]
    return int(pending) + load_sending_count(reader, channel)
