"""Asking for durability: statements to commit in one transaction, and the ways that can be refused."""

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

# A commit waits behind whatever the writer has in hand; two waits for a lock, 5 s each, are within it.
COMMIT_DEADLINE_S = 30.0

StorageState = Literal["ok", "degraded", "failed"]


class Statement(msgspec.Struct, frozen=True):
    """One SQL statement and the rows to run it with, in order. No rows: it runs once without bindings."""

    sql: str
    rows: Sequence[tuple[Any, ...]] = ((),)


class Committed(msgspec.Struct, frozen=True):
    """The transaction is on disk. `batch` is how many requests shared it."""

    batch: int


class Commit(Request[Committed], frozen=True):
    """All of these statements or none, durable before the answer.

    Refused with: `ConstraintFailed`, `StorageDegraded`, `StorageFailed`, `OutcomeUnknown`.
    """

    statements: tuple[Statement, ...]


class StorageStatus(msgspec.Struct, frozen=True):
    state: StorageState
    reason: str | None
    commits: int
    requests: int
    wal_bytes: int


class StorageStatistics(Request[StorageStatus], frozen=True):
    """How the database is doing."""
