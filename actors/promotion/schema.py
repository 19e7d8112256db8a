"""Promotion's tables: one row per strategy, its history without end, and the samples behind its
metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ...wire.persistence import Statement
from ...wire.promotion import HistoryEntry, PromotionStage
from ..persistence import Reader, Rows
from .core import check_on_ladder
from .metrics import Sample
from .policy import PromotionPolicy
from .strategy import Change, Strategy

__all__ = [
    "SCHEMA",
    "SCHEMA_3",
    "changed",
    "check_stages",
    "find",
    "history",
    "load_all",
    "move_of",
    "recorded",
    "recorded_before",
    "sampled",
    "saved",
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

_SAVE = "INSERT OR REPLACE INTO promotions VALUES (?, ?, ?, ?, ?, ?)"
_HISTORY = (
    "INSERT INTO promotion_history (strategy_id, strategy, kind, from_stage, to_stage,"
    ' effective_us, "by", reason, metrics, evaluation, rev)'
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_METRICS = (
    "INSERT INTO promotion_metrics (strategy_id, episode, as_of_us, source, explicit, metrics)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)
# A session is sampled once: a sample that is there already stands.
_SAMPLE = "INSERT OR IGNORE INTO promotion_sample VALUES (?, ?, ?, ?, ?, ?, ?)"


def _text(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def saved(strategies: Iterable[Strategy]) -> Statement:
    """The current rows."""
    rows = [
        (
            strategy.id,
            strategy.name,
            strategy.stage.value,
            strategy.rev,
            strategy.entered_us,
            _text(strategy),
        )
        for strategy in strategies
    ]
    return Statement(_SAVE, rows)


def changed(changes: Iterable[Change]) -> Statement:
    """The lines of history."""
    rows = [
        (
            change.after.id,
            change.after.name,
            change.kind,
            change.from_stage.value if change.from_stage else None,
            change.after.stage.value,
            change.at_us,
            change.by,
            change.reason,
            _text(change.metrics),
            _text(change.evaluation) if change.evaluation else None,
            change.after.rev,
        )
        for change in changes
    ]
    return Statement(_HISTORY, rows)


def recorded(
    strategy: Strategy, metrics: Mapping[str, float], as_of_us: int, source: str, *, explicit: bool
) -> Statement:
    """One record of metrics. With an explicit `as_of` it is unique within the episode."""
    return Statement(
        _METRICS,
        ((strategy.id, strategy.episode, as_of_us, source, int(explicit), _text(metrics)),),
    )


def recorded_before(
    rows: Rows, strategy: Strategy, as_of_us: int, source: str
) -> dict[str, float] | None:
    """The metrics recorded under the same key, or None."""
    row = rows.row(
        "SELECT metrics FROM promotion_metrics"
        " WHERE strategy_id = ? AND episode = ? AND as_of_us = ? AND source = ? AND explicit = 1",
        (strategy.id, strategy.episode, as_of_us, source),
    )
    return None if row is None else msgspec.json.decode(row[0], type=dict[str, float])


def sampled(samples: Iterable[tuple[Strategy, Sample]]) -> Statement:
    """The evidence of one session."""
    return Statement(
        _SAMPLE,
        [
            (strategy.id, strategy.episode, *msgspec.structs.astuple(sample))
            for strategy, sample in samples
        ],
    )


def load_all(rows: Rows) -> list[Strategy]:
    """Every strategy, by name."""
    records = rows.rows("SELECT record FROM promotions ORDER BY strategy")
    return [msgspec.json.decode(record, type=Strategy) for (record,) in records]


def check_stages(path: Path, policy: PromotionPolicy) -> None:
    """Whether the ladder has the stage of each strategy in the file. Raises: `PolicyError`."""
    with Reader(path) as reader:
        check_on_ladder(load_all(reader), policy)


def find(rows: Rows, id_or_name: str) -> Strategy | None:
    """One strategy by its id or its name."""
    row = rows.row(
        "SELECT record FROM promotions WHERE strategy_id = ?1 OR strategy = ?1", (id_or_name,)
    )
    return None if row is None else msgspec.json.decode(row[0], type=Strategy)


def history(rows: Rows, strategy_id: str | None, limit: int) -> tuple[HistoryEntry, ...]:
    """The newest lines, newest first, of one strategy or of all."""
    found = rows.rows(
        'SELECT seq, strategy, kind, from_stage, to_stage, effective_us, "by", reason, metrics,'
        " evaluation, rev FROM promotion_history WHERE ?1 IS NULL OR strategy_id = ?1"
        " ORDER BY seq DESC LIMIT ?2",
        (strategy_id, limit),
    )
    return tuple(_line(*row) for row in found)


def move_of(rows: Rows, strategy: Strategy) -> HistoryEntry | None:
    """The line of history that made the strategy's present revision; None: it is not stored."""
    row = rows.row(
        'SELECT seq, strategy, kind, from_stage, to_stage, effective_us, "by", reason, metrics,'
        " evaluation, rev FROM promotion_history WHERE strategy_id = ? AND rev = ?",
        (strategy.id, strategy.rev),
    )
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
    evaluation: str | None,
    rev: int,
) -> HistoryEntry:
    return HistoryEntry(
        seq=seq,
        strategy=strategy,
        kind=kind,
        from_stage=PromotionStage(from_stage) if from_stage else None,
        to_stage=PromotionStage(to_stage),
        effective_us=effective_us,
        by=by,
        reason=reason,
        metrics=msgspec.json.decode(metrics, type=dict[str, float]),
        evaluation_id=msgspec.json.decode(evaluation)["id"] if evaluation else "",
        rev=rev,
    )
