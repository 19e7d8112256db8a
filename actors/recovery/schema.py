"""Recovery's tables: the state of each strategy, replaced in place, and the append-only event log.

A strategy to which nothing happened yet has no row. The stale feeds are not stored: they follow
from the log.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ...wire.persistence import Statement
from ...wire.recovery import RecoveryEvent, RecoveryPhase
from ..persistence import Reader
from .feeds import Feed
from .record import Record

__all__ = [
    "SCHEMA",
    "SCHEMA_3",
    "add_events",
    "event_counts",
    "last_seq",
    "newest_events",
    "records",
    "save_records",
    "stale_feeds",
]

SCHEMA = """
CREATE TABLE recovery_state (
    name TEXT PRIMARY KEY,
    phase TEXT NOT NULL,
    beneath TEXT CHECK ((beneath IS NOT NULL) = (phase = 'HELD')),
    kill INTEGER NOT NULL,
    held_by TEXT,
    episode INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    due_us INTEGER,
    restarted_us INTEGER,
    starts TEXT NOT NULL, -- JSON list of instants
    reason TEXT,
    operator TEXT,
    stalled INTEGER NOT NULL,
    stop_owed INTEGER NOT NULL,
    failure_told INTEGER NOT NULL,
    recovery_told INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE recovery_event (
    seq INTEGER PRIMARY KEY,
    at_us INTEGER NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    success INTEGER,
    attempt INTEGER NOT NULL,
    error TEXT,
    actor TEXT
) STRICT;
CREATE TRIGGER recovery_event_is_for_ever BEFORE UPDATE ON recovery_event
BEGIN SELECT raise(ABORT, 'recovery events are never changed'); END;
CREATE TRIGGER recovery_event_is_never_deleted BEFORE DELETE ON recovery_event
BEGIN SELECT raise(ABORT, 'recovery events are never deleted'); END;
"""

SCHEMA_3 = 'ALTER TABLE recovery_event RENAME COLUMN actor TO "by";'

# An episode that is already open began with the first event since the strategy was last well.
SCHEMA_5 = """
ALTER TABLE recovery_state ADD COLUMN since_us INTEGER;
UPDATE recovery_state SET since_us = (
    SELECT min(at_us) FROM recovery_event WHERE target = name AND seq > (
        SELECT coalesce(max(seq), 0) FROM recovery_event
        WHERE target = name AND action IN ('confirmed', 'reset')
    )
);
"""

_COLUMNS = (
    "name, phase, beneath, kill, held_by, episode, attempts, due_us, restarted_us, starts, reason,"
    " operator, stalled, stop_owed, failure_told, recovery_told, since_us"
)
_SAVE = (
    f"INSERT OR REPLACE INTO recovery_state({_COLUMNS})"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ADD = (
    'INSERT INTO recovery_event(seq, at_us, action, target, success, attempt, error, "by")'
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_NEWEST = (
    'SELECT action, target, success, attempt, error, at_us, seq, "by" FROM recovery_event'
    " ORDER BY seq DESC LIMIT ?"
)
_STALE = """
WITH back AS (
    SELECT target, max(seq) AS seq FROM recovery_event WHERE action = 'feed_back' GROUP BY target
)
SELECT warning.target, min(warning.at_us), max(warning.at_us)
FROM recovery_event AS warning LEFT JOIN back ON back.target = warning.target
WHERE warning.action = 'stale_feed' AND warning.seq > coalesce(back.seq, 0)
GROUP BY warning.target
"""


# -- writing


def save_records(changed: Iterable[Record]) -> Statement:
    """The statement that stores these records, each in place of its strategy's row."""
    return Statement(_SAVE, tuple(_row(record) for record in changed))


def _row(record: Record) -> tuple[object, ...]:
    return (
        record.name,
        record.phase.value,
        record.beneath.value if record.beneath else None,
        int(record.kill),
        record.held_by,
        record.episode,
        record.attempts,
        record.due_us,
        record.restarted_us,
        msgspec.json.encode(record.starts).decode(),
        record.reason,
        record.operator,
        int(record.stalled),
        int(record.stop_owed),
        int(record.failure_told),
        int(record.recovery_told),
        record.since_us,
    )


def add_events(events: Iterable[RecoveryEvent]) -> Statement:
    """The statement that appends these events. They carry their `seq` already.

    The recovery actor numbers them, as the only writer of this table.
    """
    return Statement(
        _ADD,
        tuple(
            (
                event.seq,
                event.at_us,
                event.action,
                event.target,
                None if event.success is None else int(event.success),
                event.attempt,
                event.error,
                event.by,
            )
            for event in events
        ),
    )


# -- reading


def records(reader: Reader) -> list[Record]:
    """All stored records."""
    return [_record(*row) for row in reader.rows(f"SELECT {_COLUMNS} FROM recovery_state")]


def _record(
    name: str,
    phase: str,
    beneath: str | None,
    kill: int,
    held_by: str | None,
    episode: int,
    attempts: int,
    due_us: int | None,
    restarted_us: int | None,
    starts: str,
    reason: str | None,
    operator: str | None,
    stalled: int,
    stop_owed: int,
    failure_told: int,
    recovery_told: int,
    since_us: int | None,
) -> Record:
    return Record(
        name=name,
        phase=RecoveryPhase(phase),
        beneath=RecoveryPhase(beneath) if beneath is not None else None,
        kill=bool(kill),
        held_by=held_by,
        episode=episode,
        attempts=attempts,
        due_us=due_us,
        restarted_us=restarted_us,
        starts=msgspec.json.decode(starts, type=tuple[int, ...]),
        reason=reason,
        operator=operator,
        stalled=bool(stalled),
        stop_owed=bool(stop_owed),
        failure_told=bool(failure_told),
        recovery_told=bool(recovery_told),
        since_us=since_us,
    )


def event_counts(reader: Reader) -> dict[tuple[str, bool | None], int]:
    """Number of events by action and success, since the database was made."""
    rows = reader.rows(
        "SELECT action, success, count(*) FROM recovery_event GROUP BY action, success"
    )
    return {
        (action, None if success is None else bool(success)): count
        for action, success, count in rows
    }


def last_seq(reader: Reader) -> int:
    """The seq of the newest event; 0 when the log is empty."""
    return int(reader.row("SELECT coalesce(max(seq), 0) FROM recovery_event")[0])


def stale_feeds(reader: Reader, now_us: int) -> list[Feed]:
    """The feeds whose newest event is a warning.

    The log does not tell their last data, so their silence counts from the first warning.
    """
    return [
        Feed(name, now_us, warned_us=last_us, silent_since_us=first_us)
        for name, first_us, last_us in reader.rows(_STALE)
    ]


def newest_events(reader: Reader, limit: int) -> tuple[RecoveryEvent, ...]:
    """The newest events, newest first."""
    return tuple(
        RecoveryEvent(action, target, None if success is None else bool(success), *rest)
        for action, target, success, *rest in reader.rows(_NEWEST, (min(limit, 2**63 - 1),))
    )
