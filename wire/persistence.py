"""Persistence: statements to commit in one transaction, and the state of the storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from ..runtime import Request

__all__ = [
    "COMMIT_DEADLINE_S",
    "Commit",
    "Committed",
    "Statement",
    "StorageState",
    "StorageStatistics",
    "StorageStatus",
]

# A commit waits behind the batch that the writer is writing. That may take two waits for a lock,
# 4.5 s each.
COMMIT_DEADLINE_S = 30.0

StorageState = Literal["ok", "degraded", "failed"]


class Statement(msgspec.Struct, frozen=True):
    """One SQL statement, and the rows to run it with, in order."""

    sql: str
    rows: Sequence[tuple[Any, ...]] = ((),)  # the default runs it once without bindings


class Committed(msgspec.Struct, frozen=True):
    """The transaction is on disk."""

    batch: int  # number of requests that shared it


class Commit(Request[Committed], frozen=True):
    """Commit all of these statements or none. The answer comes once they are durable.

    Refused with: `ConstraintFailed`, `StorageDegraded`, `StorageFailed`, `OutcomeUnknown`.
    """

    statements: tuple[Statement, ...]


class StorageStatus(msgspec.Struct, frozen=True):
    """The state of the storage, and its totals since the actor started."""

    state: StorageState
    reason: str | None  # None while the state is "ok"
    commits: int
    requests: int  # several may share a commit
    wal_bytes: int  # size of the write-ahead log
    commit_ms: float | None = None  # duration of the last commit, in milliseconds; None: no commit


class StorageStatistics(Request[StorageStatus], frozen=True):
    """The state of the storage now."""
