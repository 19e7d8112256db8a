"""The persistence actor: serialises every write of the fund.

Natural batching: while one transaction is being committed, requests gather in the mailbox; the next transaction takes
them all. No timer, so a lone caller waits for one commit and 64 callers share one. A storage fault is a state, not a
crash: it is answered as a typed refusal, and the next request is the probe that finds out whether it has healed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import apsw

from ...runtime import Actor, ThreadWorker, Worker, handles, handles_batch
from ...wire.persistence import (
    Commit,
    Committed,
    OutcomeUnknown,
    StorageDegraded,
    StorageFailed,
    StorageState,
    StorageStatistics,
    StorageStatus,
)
from .database import Answer, commit_batch, open_database

__all__ = ["PersistenceActor"]


def _writer_thread() -> Worker:
    return ThreadWorker("fundops-writer")


class PersistenceActor(Actor):
    """Owns the only writing connection, in a thread of its own."""

    def __init__(
        self,
        path: Path,
        migrations: Sequence[str],
        *,
        make_worker: Callable[[], Worker] = _writer_thread,
    ) -> None:
        self._path = path
        self._migrations = migrations
        self._make_worker = make_worker
        self._worker: Worker | None = None
        self._connection: apsw.Connection | None = None
        self._state: StorageState = "ok"
        self._reason: str | None = None
        self._commits = 0
        self._requests = 0

    async def on_start(self) -> None:
        self._worker = self._make_worker()
        self._connection = await self._worker.run(partial(open_database, self._path, self._migrations))

    async def on_stop(self, reason: str) -> None:
        if self._worker is None:
            return
        try:
            if self._connection is not None:
                await self._worker.run(partial(_close, self._connection))
        finally:
            self._worker.stop()

    @handles_batch(Commit)
    async def commit(self, requests: list[Commit]) -> list[Answer]:
        """One transaction for all that was waiting."""
        assert self._worker is not None
        assert self._connection is not None
        batch = [request.statements for request in requests]
        if self._state == "failed":
            return [StorageFailed(f"database failed earlier: {self._reason}") for _ in batch]
        answers = await self._worker.run(partial(commit_batch, self._connection, batch))
        self._note(answers)
        return answers

    def _note(self, answers: list[Answer]) -> None:
        self._requests += len(answers)
        self._commits += any(isinstance(answer, Committed) for answer in answers)
        first = answers[0]
        if isinstance(first, StorageDegraded):
            self._state, self._reason = "degraded", str(first)
        elif isinstance(first, StorageFailed | OutcomeUnknown):
            self._state, self._reason = "failed", str(first)
        else:
            self._state, self._reason = "ok", None

    @handles(StorageStatistics)
    def statistics(self, _: StorageStatistics) -> StorageStatus:
        wal = self._path.with_name(self._path.name + "-wal")
        return StorageStatus(
            state=self._state,
            reason=self._reason,
            commits=self._commits,
            requests=self._requests,
            wal_bytes=wal.stat().st_size if wal.exists() else 0,
        )


def _close(connection: apsw.Connection) -> None:
    try:
        connection.pragma("optimize")
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    finally:  # neither works on a full disk, or while somebody reads; what is in the WAL is safe there
        connection.close()
