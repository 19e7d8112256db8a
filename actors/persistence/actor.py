"""The persistence actor: serialises every write of the fund.

Requests that arrive while a transaction is being committed gather in the mailbox, and the next
transaction takes them all. There is no timer: a lone caller waits for one commit, and 64 callers
share one. A storage fault is a state and not a crash: it is answered with a typed refusal. While
the database cannot be written, each request tries again, and so does a probe every 5 s, so that the
state is right without traffic too. Each question for the state compares the open files with those
at the path.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import assert_never

import msgspec

from ...runtime import Actor, ThreadWorker, Timer, Worker, handles, handles_batch
from ...wire.errors import ConstraintFailed, OutcomeUnknown, StorageDegraded, StorageFailed
from ...wire.persistence import (
    Commit,
    Committed,
    Statement,
    StorageState,
    StorageStatistics,
    StorageStatus,
)
from .board import StorageBoard
from .store import Answer, BeforeCommit, Store, commit_batch, no_log_elsewhere

__all__ = ["PersistenceActor"]

log = logging.getLogger("fundops.persistence")

PROBE_EVERY_S = 5.0


class _Probe(msgspec.Struct, frozen=True):
    """Try whether the database can be written again."""


def _writer_thread() -> Worker:
    return ThreadWorker("fundops-writer")


class PersistenceActor(Actor):
    """Owns the only writing connection, which lives in a separate thread.

    `on_commit` is called after each transaction that wrote something.
    """

    def __init__(
        self,
        path: Path,
        migrations: Sequence[str],
        *,
        make_worker: Callable[[], Worker] = _writer_thread,
        before_commit: BeforeCommit = no_log_elsewhere,
        board: StorageBoard | None = None,
        on_commit: Callable[[], object] = lambda: None,
    ) -> None:
        self._path = path.absolute()
        self._migrations = migrations
        self._before_commit = before_commit
        self._board = board or StorageBoard()
        self._committing = False
        self._make_worker = make_worker
        self._on_commit = on_commit
        self._worker: Worker | None = None
        self._store: Store | None = None
        self._state: StorageState = "ok"
        self._reason: str | None = None
        self._probing: Timer | None = None  # while degraded
        self._commits = 0
        self._requests = 0
        self._commit_ms: float | None = None

    async def on_start(self) -> None:
        """Open the database in the writer thread. Raises: `DatabaseError`."""
        self._worker = self._make_worker()
        self._store = await self._worker.run(
            partial(Store, self._path, self._migrations, self._before_commit)
        )
        self._board.show(self._status)

    async def on_stop(self, reason: str) -> None:
        """Leave one tidy file, then end the thread."""
        self._board.show(None)
        if self._worker is None:
            return
        try:
            if self._store is not None:
                await self._worker.run(self._store.close)
        finally:
            self._worker.stop()

    @handles_batch(Commit)
    async def commit(self, requests: list[Commit]) -> list[Answer]:
        """Write all waiting requests in one transaction."""
        if self._state == "failed":
            return [StorageFailed(f"database failed earlier: {self._reason}") for _ in requests]
        answers = await self._commit([request.statements for request in requests])
        self._requests += len(answers)
        if any(isinstance(answer, Committed) for answer in answers):
            self._commits += 1
            self._on_commit()
        return answers

    @handles(_Probe)
    async def probe(self, _: _Probe) -> None:
        """Commit an empty transaction: it raises the mark, so it too must reach the disk."""
        await self._commit([()])

    async def _commit(self, batch: list[tuple[Statement, ...]]) -> list[Answer]:
        assert self._worker is not None
        assert self._store is not None
        self._committing = True
        begun_s = time.perf_counter()
        answers = await self._worker.run(partial(commit_batch, self._store, batch))
        self._commit_ms = round((time.perf_counter() - begun_s) * 1_000, 3)
        self._committing = False
        # A storage fault is the same for the whole batch.
        self._note(answers[0])
        return answers

    def _note(self, answer: Answer) -> None:
        before = self._state
        match answer:
            case StorageDegraded():
                self._state, self._reason = "degraded", str(answer)
            case StorageFailed() | OutcomeUnknown():
                self._state, self._reason = "failed", str(answer)
            case Committed() | ConstraintFailed():
                self._state, self._reason = "ok", None
            case _:
                assert_never(answer)
        if self._state != before:
            level = logging.WARNING if self._state == "ok" else logging.CRITICAL
            log.log(level, "storage is %s: %s", self._state, self._reason or "it can be written")
        if self._state == "degraded" and self._probing is None:
            self._probing = self.context.every(PROBE_EVERY_S, _Probe())
        elif self._state != "degraded" and self._probing is not None:
            self._probing.cancel()
            self._probing = None

    @handles(StorageStatistics)
    def statistics(self, _: StorageStatistics) -> StorageStatus:
        """The state, the counters and the size of the log."""
        return self._status()

    def _status(self) -> StorageStatus:
        self._look()
        try:
            wal_bytes = self._path.with_name(self._path.name + "-wal").stat().st_size
        except OSError:
            wal_bytes = 0
        return StorageStatus(
            state=self._state,
            reason=self._reason,
            commits=self._commits,
            requests=self._requests,
            wal_bytes=wal_bytes,
            commit_ms=self._commit_ms,
        )

    def _look(self) -> None:
        """A deleted or replaced file is noticed without a commit too."""
        # A commit looks by itself, and it may just be opening the files again.
        if self._store is None or self._state == "failed" or self._committing:
            return
        try:
            problem = self._store.files.problem()
        except OSError:
            return  # the next commit finds out whether it passes
        if problem is not None:
            self._note(StorageFailed(problem))
