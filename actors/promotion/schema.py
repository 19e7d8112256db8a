"""Promotion's tables: one row per strategy, its history without end, and the records and samples
behind its metrics. The policy that judges them is stored beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ...wire.persistence import Statement
from ...wire.promotion import HistoryEntry, PromotionStage, StrategyState, Transition
from ..persistence import Rows
from .capital import cap_of
from .evidence import Record, StoredRecord, values_of
from .policy import PromotionPolicy
from .strategy import Change, Strategy
from .track import Sample

__all__ = [
    "SCHEMA",
    "SCHEMA_3",
    "SCHEMA_5",
    "Line",
    "StoredPolicy",
    "changed",
    "discarded",
    "family",
    "find",
    "history",
    "line",
    "load_all",
    "move_of",
    "newest_move",
    "newest_record",
    "next_seq",
    "policy_stored",
    "record_of",
    "recorded",
    "records",
    "requested",
    "sampled",
    "saved",
    "saved_row",
    "saved_rows",
    "state_as_of",
    "stored_policy",
    "versions_by_family",
    "voided_already",
    "was_version",
]

SCHEMA = """
CREATE TABLE promotions (
    strategy_id TEXT PRIMARY KEY,
    strategy TEXT NOT NULL UNIQUE,
    stage TEXT NOT NULL,
    rev INTEGER NOT NULL,
    entered_us INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE promotion_history (
    seq INTEGER PRIMARY KEY,
    strategy_id TEXT NOT NULL,
    strategy TEXT NOT NULL,
    kind TEXT NOT NULL,
    from_stage TEXT,
    to_stage TEXT NOT NULL,
    effective_us INTEGER NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    metrics TEXT NOT NULL,
    evaluation TEXT,
    rev INTEGER NOT NULL,
    UNIQUE (strategy_id, rev)
) STRICT;
CREATE TABLE promotion_metrics (
    id INTEGER PRIMARY KEY,
    strategy_id TEXT NOT NULL,
    episode INTEGER NOT NULL,
    as_of_us INTEGER NOT NULL,
    source TEXT NOT NULL,
    explicit INTEGER NOT NULL,
    metrics TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX promotion_metrics_once
ON promotion_metrics (strategy_id, episode, as_of_us, source)
WHERE explicit = 1;
CREATE TABLE promotion_sample (
    strategy_id TEXT NOT NULL,
    episode INTEGER NOT NULL,
    session TEXT NOT NULL,
    equity REAL NOT NULL,
    allocated REAL NOT NULL,
    n_trades INTEGER NOT NULL,
    n_wins INTEGER NOT NULL,
    PRIMARY KEY (strategy_id, episode, session)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER promotion_history_is_for_ever BEFORE UPDATE ON promotion_history
BEGIN SELECT raise(ABORT, 'promotion history is never changed'); END;
CREATE TRIGGER promotion_history_is_never_deleted BEFORE DELETE ON promotion_history
BEGIN SELECT raise(ABORT, 'promotion history is never deleted'); END;
"""

SCHEMA_3 = 'ALTER TABLE promotion_history RENAME COLUMN actor TO "by";'

# A record of before holds the evidence in the strategy itself; from here on it is the episode's.
SCHEMA_5 = """
ALTER TABLE promotion_history ADD COLUMN recorded_us INTEGER;
ALTER TABLE promotion_history ADD COLUMN cap_before REAL;
ALTER TABLE promotion_history ADD COLUMN cap_after REAL;
ALTER TABLE promotion_history ADD COLUMN policy TEXT;
ALTER TABLE promotion_history ADD COLUMN version TEXT;
ALTER TABLE promotion_history ADD COLUMN record TEXT;
ALTER TABLE promotion_history ADD COLUMN before TEXT;
ALTER TABLE promotion_history ADD COLUMN hard INTEGER NOT NULL DEFAULT 0;
ALTER TABLE promotion_history ADD COLUMN voids INTEGER;
ALTER TABLE promotion_history ADD COLUMN request_id TEXT;
ALTER TABLE promotion_history ADD COLUMN request TEXT;
ALTER TABLE promotion_history ADD COLUMN outcome TEXT;
CREATE UNIQUE INDEX promotion_history_request ON promotion_history (request_id)
WHERE request_id IS NOT NULL;
CREATE UNIQUE INDEX promotion_history_voids ON promotion_history (voids) WHERE voids IS NOT NULL;
ALTER TABLE promotion_metrics ADD COLUMN cumulative INTEGER NOT NULL DEFAULT 0;
ALTER TABLE promotion_metrics ADD COLUMN discarded_us INTEGER;
ALTER TABLE promotion_metrics ADD COLUMN discarded_by TEXT;
ALTER TABLE promotion_metrics ADD COLUMN discarded_reason TEXT;
DROP INDEX promotion_metrics_once;
CREATE UNIQUE INDEX promotion_metrics_once
ON promotion_metrics (strategy_id, episode, as_of_us, source)
WHERE explicit = 1 AND discarded_us IS NULL;
CREATE INDEX promotion_metrics_episode ON promotion_metrics (strategy_id, episode);
CREATE TABLE promotion_policy (
    hash TEXT PRIMARY KEY,
    policy TEXT NOT NULL,
    base TEXT NOT NULL,
    stored_us INTEGER NOT NULL,
    current INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
UPDATE promotions SET record = json_remove(
    json_set(
        record,
        '$.episodes', coalesce(json_extract(record, '$.episode'), 1),
        '$.episode', json_object(
            'number', coalesce(json_extract(record, '$.episode'), 1),
            'entered_us', json_extract(record, '$.entered_us'),
            'frozen_us', coalesce(json_extract(record, '$.frozen_us'), 0),
            'track', json(coalesce(json_extract(record, '$.track'), '{}')),
            'recorded', json(coalesce(json_extract(record, '$.metrics'), '{}')),
            'measured', json(coalesce(json_extract(record, '$.measured'), '{}')),
            'undefined', json(coalesce(json_extract(record, '$.undefined'), '[]'))
        )
    ),
    '$.entered_us', '$.frozen_us', '$.metrics', '$.measured', '$.undefined', '$.track',
    '$.ready_alerted'
);
"""

_SAVE = "INSERT OR REPLACE INTO promotions VALUES (?, ?, ?, ?, ?, ?)"
_HISTORY = (
    "INSERT INTO promotion_history (seq, strategy_id, strategy, kind, from_stage, to_stage,"
    ' effective_us, "by", reason, metrics, evaluation, rev, recorded_us, cap_before, cap_after,'
    " policy, version, record, before, hard, voids, request_id, request,"
    " outcome)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_METRICS = (
    "INSERT INTO promotion_metrics"
    " (strategy_id, episode, as_of_us, source, explicit, metrics, cumulative)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
# A session is sampled once: a sample that is there already stands.
_SAMPLE = "INSERT OR IGNORE INTO promotion_sample VALUES (?, ?, ?, ?, ?, ?, ?)"
_LINE = (
    'SELECT seq, strategy, kind, from_stage, to_stage, effective_us, "by", reason, metrics,'
    " json_extract(evaluation, '$.id'), rev, coalesce(recorded_us, effective_us), cap_before,"
    " cap_after, coalesce(policy, ''), version FROM promotion_history"
)
# Kinds of lines that keep the record before them too.
_TOLD_WITH_BEFORE = ("promote", "demote", "version")
# Kinds of lines that a person can undo.
_MOVES = "('promote', 'demote')"


def _text(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


# -- strategies


def saved(strategies: Iterable[Strategy]) -> Statement:
    """The current rows."""
    return saved_rows([saved_row(strategy) for strategy in strategies])


def saved_rows(rows: Sequence[tuple[Any, ...]]) -> Statement:
    """As `saved`, of rows that are made already."""
    return Statement(_SAVE, rows)


def saved_row(strategy: Strategy) -> tuple[Any, ...]:
    """The current row of one strategy."""
    return (
        strategy.id,
        strategy.name,
        strategy.stage.value,
        strategy.rev,
        strategy.episode.entered_us,
        _text(strategy),
    )


def load_all(rows: Rows) -> list[Strategy]:
    """Every strategy, by name."""
    decoder = msgspec.json.Decoder(Strategy)
    return [
        decoder.decode(record)
        for (record,) in rows.each("SELECT record FROM promotions ORDER BY strategy")
    ]


def find(rows: Rows, id_or_name: str) -> Strategy | None:
    """One strategy by its id or its name."""
    row = rows.row(
        "SELECT record FROM promotions WHERE strategy_id = ?1 OR strategy = ?1", (id_or_name,)
    )
    return None if row is None else msgspec.json.decode(row[0], type=Strategy)


def family(rows: Rows, name: str) -> list[Strategy]:
    """The strategies of one family, retired ones too."""
    found = rows.rows(
        "SELECT record FROM promotions WHERE json_extract(record, '$.family') = ?", (name,)
    )
    return [msgspec.json.decode(record, type=Strategy) for (record,) in found]


def versions_by_family(rows: Rows) -> dict[str, int]:
    """The versions of each family that were ever evaluated, those of retired strategies too."""
    found = rows.rows(
        "SELECT json_extract(record, '$.family'), sum(json_extract(record, '$.versions'))"
        " FROM promotions WHERE json_extract(record, '$.family') IS NOT NULL GROUP BY 1"
    )
    return dict(found)


# -- history


def next_seq(rows: Rows) -> int:
    """The number of the next line of history; none is ever deleted."""
    return int(rows.row("SELECT coalesce(max(seq), 0) + 1 FROM promotion_history")[0])


def changed(
    changes: Sequence[Change], policy: PromotionPolicy, first_seq: int, now_us: int
) -> Statement:
    """The lines of history, numbered from `first_seq` on."""
    return Statement(
        _HISTORY,
        [
            _history_row(change, policy, first_seq + place, now_us)
            for place, change in enumerate(changes)
        ],
    )


def _history_row(change: Change, policy: PromotionPolicy, seq: int, now_us: int) -> tuple[Any, ...]:
    before, after = change.before, change.after
    return (
        seq,
        after.id,
        after.name,
        change.kind,
        None if before is None else before.stage.value,
        after.stage.value,
        change.at_us,
        change.by,
        change.reason,
        _text({} if before is None else values_of(before)),
        None if change.evaluation is None else _text(change.evaluation),
        after.rev,
        now_us,
        None if before is None else cap_of(before, policy),
        cap_of(after, policy),
        policy.hash,
        after.version,
        _text(after),
        # Before a transition the track is longer than in the line before: `void` returns to it.
        _text(change.undone or before) if change.kind in _TOLD_WITH_BEFORE else None,
        int(change.hard),
        change.voids,
        change.request_id,
        change.request or None,
        None if change.outcome is None else _text(change.outcome),
    )


def history(rows: Rows, strategy_id: str | None, limit: int) -> tuple[HistoryEntry, ...]:
    """The newest lines, newest first, of one strategy or of all."""
    found = rows.rows(
        f"{_LINE} WHERE ?1 IS NULL OR strategy_id = ?1 ORDER BY seq DESC LIMIT ?2",
        (strategy_id, limit),
    )
    return tuple(_line(*row) for row in found)


def move_of(rows: Rows, strategy: Strategy) -> HistoryEntry | None:
    """The line of history that made the strategy's present revision; None: it is not stored."""
    row = rows.row(f"{_LINE} WHERE strategy_id = ? AND rev = ?", (strategy.id, strategy.rev))
    return None if row is None else _line(*row)


def _line(
    seq: int,
    strategy: str,
    kind: str,
    from_stage: str | None,
    to_stage: str,
    effective_us: int,
    by: str,
    reason: str,
    metrics: str,
    evaluation_id: str | None,
    *rest: Any,
) -> HistoryEntry:
    return HistoryEntry(
        seq,
        strategy,
        kind,
        PromotionStage(from_stage) if from_stage else None,
        PromotionStage(to_stage),
        effective_us,
        by,
        reason,
        msgspec.json.decode(metrics, type=dict[str, float]),
        evaluation_id or "",
        *rest,
    )


def state_as_of(rows: Rows, at_us: int) -> tuple[StrategyState, ...]:
    """Every strategy that was registered by then, as its newest line of then says, by name."""
    found = rows.rows(
        "SELECT strategy_id, strategy, to_stage, rev, effective_us, kind, record"
        " FROM promotion_history WHERE seq IN (SELECT max(seq) FROM promotion_history"
        " WHERE effective_us <= ? GROUP BY strategy_id) ORDER BY strategy",
        (at_us,),
    )
    return tuple(_state(*row) for row in found)


def _state(
    strategy_id: str, name: str, stage: str, rev: int, since_us: int, kind: str, record: str | None
) -> StrategyState:
    told = StrategyState(strategy_id, name, PromotionStage(stage), rev, since_us, kind)
    if record is None:
        return told
    strategy = msgspec.json.decode(record, type=Strategy)
    return msgspec.structs.replace(
        told,
        frozen=strategy.frozen,
        cooldown_until=strategy.cooldown_until_us,
        episode=strategy.episode.number,
        family=strategy.family,
        version=strategy.version,
        cap=strategy.cap,
        metrics=values_of(strategy),
    )


def requested(rows: Rows, request_id: str) -> tuple[str, Transition] | None:
    """The digest of the request with this id, and its outcome; None: the id was not used."""
    row = rows.row(
        "SELECT request, outcome FROM promotion_history WHERE request_id = ?", (request_id,)
    )
    return None if row is None else (row[0], msgspec.json.decode(row[1], type=Transition))


class Line(msgspec.Struct, frozen=True):
    """A transition that may be undone."""

    seq: int
    strategy_id: str
    kind: str
    effective_us: int
    by: str
    hard: bool
    before: Strategy | None  # None: an older file does not tell


def line(rows: Rows, seq: object) -> Line | None:
    """The line of history with this number, if it is a transition."""
    row = rows.row(
        'SELECT seq, strategy_id, kind, effective_us, "by", hard, before'
        f" FROM promotion_history WHERE seq = ? AND kind IN {_MOVES}",
        (seq,),
    )
    if row is None:
        return None
    number, strategy_id, kind, effective_us, by, hard, before = row
    record = None if before is None else msgspec.json.decode(before, type=Strategy)
    return Line(number, strategy_id, kind, effective_us, by, bool(hard), record)


def newest_move(rows: Rows, strategy_id: str) -> int | None:
    """The number of the strategy's newest transition; None: it has none. One that a new version
    brought about is among them, although no person can undo it.
    """
    row = rows.row(
        "SELECT max(seq) FROM promotion_history WHERE strategy_id = ?"
        f" AND (kind IN {_MOVES} OR (kind = 'version' AND from_stage <> to_stage))",
        (strategy_id,),
    )
    return None if row is None else row[0]


def voided_already(rows: Rows, seq: int) -> bool:
    """Whether a later line undoes this one."""
    return rows.row("SELECT 1 FROM promotion_history WHERE voids = ?", (seq,)) is not None


def freeze_changed_since(rows: Rows, line: Line) -> bool:
    """Whether the strategy was frozen or unfrozen by a line after this one."""
    row = rows.row(
        "SELECT 1 FROM promotion_history WHERE strategy_id = ? AND seq > ?"
        " AND kind IN ('freeze', 'unfreeze') LIMIT 1",
        (line.strategy_id, line.seq),
    )
    return row is not None


def was_version(rows: Rows, strategy: Strategy, version: str) -> bool:
    """Whether the strategy had this version before."""
    row = rows.row(
        "SELECT 1 FROM promotion_history WHERE strategy_id = ?1"
        " AND (version = ?2 OR json_extract(before, '$.version') = ?2) LIMIT 1",
        (strategy.id, version),
    )
    return row is not None


# -- metrics


def recorded(strategy: Strategy, record: Record, *, explicit: bool) -> Statement:
    """One record of metrics. With an explicit `as_of` it is unique within the episode."""
    row = (
        strategy.id,
        strategy.episode.number,
        record.as_of_us,
        record.source,
        int(explicit),
        _text(record.metrics),
        int(record.cumulative),
    )
    return Statement(_METRICS, (row,))


def records(rows: Rows, strategy: Strategy, episode: int) -> list[StoredRecord]:
    """The records of an episode that were not discarded, in the order of their arrival."""
    found = rows.rows(
        "SELECT id, metrics, as_of_us, source, cumulative FROM promotion_metrics"
        " WHERE strategy_id = ? AND episode = ? AND discarded_us IS NULL ORDER BY id",
        (strategy.id, episode),
    )
    return [
        StoredRecord(
            number,
            Record(
                msgspec.json.decode(metrics, type=dict[str, float | list[float]]),
                as_of_us,
                source,
                bool(cumulative),
            ),
        )
        for number, metrics, as_of_us, source, cumulative in found
    ]


def newest_record(rows: Rows, strategy: Strategy) -> int:
    """The id of the newest record of the strategy's metrics; 0: there is none."""
    row = rows.row(
        "SELECT coalesce(max(id), 0) FROM promotion_metrics WHERE strategy_id = ?", (strategy.id,)
    )
    assert row is not None
    return int(row[0])


def record_of(rows: Rows, strategy: Strategy, as_of_us: int, source: str) -> Record | None:
    """The record under the same key, if its instant was given; None: there is none."""
    row = rows.row(
        "SELECT metrics, cumulative FROM promotion_metrics WHERE strategy_id = ? AND episode = ?"
        " AND as_of_us = ? AND source = ? AND explicit = 1 AND discarded_us IS NULL",
        (strategy.id, strategy.episode.number, as_of_us, source),
    )
    if row is None:
        return None
    metrics = msgspec.json.decode(row[0], type=dict[str, float | list[float]])
    return Record(metrics, as_of_us, source, bool(row[1]))


def discarded(found: Iterable[StoredRecord], now_us: int, by: str, reason: str) -> Statement:
    """Records that count no more. They are kept, with who discarded them and why."""
    return Statement(
        "UPDATE promotion_metrics SET discarded_us = ?, discarded_by = ?, discarded_reason = ?"
        " WHERE id = ?",
        [(now_us, by, reason, stored.id) for stored in found],
    )


def sampled(samples: Iterable[tuple[Strategy, Sample]]) -> Statement:
    """The evidence of one session."""
    return Statement(
        _SAMPLE,
        [
            (strategy.id, strategy.episode.number, *msgspec.structs.astuple(sample))
            for strategy, sample in samples
        ],
    )


# -- the policy


class StoredPolicy(msgspec.Struct, frozen=True):
    """The policy in force when the file was written last.

    `base` is the hash of the one that was given at open, before gates were added to it.
    """

    policy: PromotionPolicy
    base: str

    def comes_from(self, given: PromotionPolicy) -> bool:
        """Whether it is the given policy, or that one with gates added."""
        return given.hash in (self.policy.hash, self.base)


def stored_policy(rows: Rows) -> StoredPolicy | None:
    """The policy in force; None: none was stored.

    Raises: `PolicyError` for one that this program cannot read.
    """
    row = rows.row("SELECT policy, base FROM promotion_policy WHERE current = 1")
    return None if row is None else StoredPolicy(PromotionPolicy.decode(row[0]), row[1])


def policy_stored(policy: PromotionPolicy, base: str, now_us: int) -> tuple[Statement, ...]:
    """The policy in force from now on. Earlier ones are kept, since history names them."""
    return (
        Statement("UPDATE promotion_policy SET current = 0 WHERE current = 1"),
        Statement(
            "INSERT INTO promotion_policy VALUES (?, ?, ?, ?, 1) ON CONFLICT (hash)"
            " DO UPDATE SET current = 1, policy = excluded.policy, base = excluded.base,"
            " stored_us = excluded.stored_us",
            ((policy.hash, policy.encode().decode(), base, now_us),),
        ),
    )
