"""The one connection that writes, and committing a batch through it. Runs in the writer thread.

The meaning of each fault is decided here. The lock is taken: wait, a bounded time. The file cannot
be written now: refused, nothing written. The disk fails or the file is damaged, was deleted or was
replaced: refused, until a person has looked. COMMIT itself fails: the database is opened again to
see whether the transaction is there, and the batch is acknowledged or run once more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path

import apsw

from ...wire.errors import (
    ConstraintFailed,
    DatabaseError,
    OutcomeUnknown,
    StorageDegraded,
    StorageFailed,
)
from ...wire.persistence import Committed, Statement
from .database import open_database, wait_for_locks
from .files import OpenFiles, keep_from_children
from .schema import RAISE_MARK, READ_MARK

__all__ = ["Answer", "BeforeCommit", "Store", "commit_batch", "no_log_elsewhere"]

Answer = Committed | ConstraintFailed | StorageDegraded | StorageFailed | OutcomeUnknown
Batch = Sequence[tuple[Statement, ...]]
_Run = Callable[[apsw.Connection, tuple[Statement, ...]], ConstraintFailed | None]
# Called with the connection and the new mark, in the transaction, just before COMMIT. It may refuse
# with `StorageDegraded`; then nothing of the transaction is written.
BeforeCommit = Callable[[apsw.Connection, int], None]

# Each attempt waits for the busy timeout. All of them and one reopening fit well into the deadline
# of a commit.
LOCK_ATTEMPTS = 2
# The wait of a batch that follows one refused for a lock. Its callers have waited behind that one
# already, and full waits would add up to minutes.
LOCKED_OUT_WAIT_MS = 200
# At the end of the process: neither an outside reader nor an outside writer holds it up for longer.
CLOSE_WAIT_MS = 500
# One statement per row costs nearly as much again as the rows themselves; 64 rows gain nothing
# over 32.
ROWS_PER_INSERT = 32

# Errors that a request's values alone can cause: a broken constraint, a text for a rowid, an
# integer beyond 64 bits, a text that cannot be encoded, an object of a type that no column has.
_OFFENCES = (
    apsw.ConstraintError,
    apsw.MismatchError,
    OverflowError,
    UnicodeEncodeError,
    TypeError,
)
# None of these comes after the end of a transaction was written: SQLite rolls back a transaction
# that does not fit.
_UNWRITABLE = (
    apsw.FullError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.BusyError,
    apsw.LockedError,
)
_DAMAGED = (apsw.IOError, apsw.CorruptError, apsw.NotADBError)


def no_log_elsewhere(_connection: apsw.Connection, _mark: int) -> None:
    """The default `BeforeCommit`: the database is the only place that a transaction goes to."""


class Store:
    """A database open for writing.

    Raises: `DatabaseError`.
    """

    def __init__(
        self,
        path: Path,
        migrations: Sequence[str],
        before_commit: BeforeCommit = no_log_elsewhere,
    ) -> None:
        self._path = path.absolute()
        self._migrations = migrations
        self.before_commit = before_commit
        self.locked_out = False  # whether the last batch was refused for a lock
        self.connection = open_database(self._path, migrations)
        try:
            self.mark = self._read_mark()  # of the last transaction known to be on disk
            self.files = OpenFiles(self._path)
        except (OSError, apsw.Error) as error:
            self.connection.close()
            raise DatabaseError(path, f"cannot be opened: {error}") from error
        keep_from_children(self)

    def _read_mark(self) -> int:
        return int(next(iter(self.connection.execute(READ_MARK)))[0])

    def reopen(self) -> bool:
        """After a COMMIT that raised: whether its transaction is on disk. The answer is final.

        A failed sync may leave pages in the system's cache that count as written, so rows that can
        be read back may not be on the disk. The checkpoint writes them again, into the database
        itself, and empties the log, from which a transaction that is missing now could come back.

        Raises: `DatabaseError`, `apsw.Error`.
        """
        # The last connection to close tidies up, on the disk that has just failed.
        with suppress(apsw.Error):
            self.connection.close(True)
        # If the disk is gone, opening would make a new file in its place.
        if not self._path.exists():
            raise DatabaseError(self._path, "is gone")
        self.connection = open_database(self._path, self._migrations)
        before_files, self.files = self.files, OpenFiles(self._path)
        if not self.files.same_database(before_files):
            raise DatabaseError(self._path, "is another file than the one that was open")
        self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        before, self.mark = self.mark, self._read_mark()
        if self.mark not in (before, before + 1):
            raise DatabaseError(
                self._path,
                f"is at mark {self.mark}, not at {before} or the one after: another file",
            )
        return self.mark > before

    def close(self) -> None:
        """Leave one tidy file if possible. Idempotent."""
        # Nothing of this works on a full disk, beside a reader, or in a forked child. Rows in the
        # WAL are safe there.
        with suppress(apsw.Error, DatabaseError):
            wait_for_locks(self.connection, CLOSE_WAIT_MS)
            self.connection.pragma("optimize")
            self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        with suppress(apsw.Error):
            self.connection.close()


class _AnotherWriter(Exception):
    """The file holds another mark than that of our last transaction."""

    def __init__(self, path: Path, mark: int) -> None:
        super().__init__(
            f"{path} is not at mark {mark}, where this writer left it: another program wrote to it,"
            " or another file was copied over it; nothing more is written"
        )


class _CommitRaised(Exception):
    """COMMIT raised the cause; `answers` are those that a success would have given."""

    def __init__(self, answers: list[Answer]) -> None:
        super().__init__()
        self.answers = answers


def commit_batch(store: Store, batch: Batch) -> list[Answer]:
    """Run all requests of the batch in one transaction; one answer each.

    A request that breaks a constraint fails alone: the batch is rolled back and run again with a
    savepoint around each request. Nothing is written to files that the path does not lead to, and
    nothing that went into such files is acknowledged.
    """
    try:
        problem = store.files.problem()
    except OSError as error:
        return [StorageDegraded(f"database cannot be looked at: {error}") for _ in batch]
    if problem is not None:
        return [StorageFailed(problem) for _ in batch]
    try:
        answers = _commit(store, batch)
    except _CommitRaised as raised:
        answers = _settle(store, batch, raised)
    if not any(isinstance(answer, Committed) for answer in answers):
        return answers
    # The files may have gone meanwhile, before COMMIT or after it.
    try:
        problem = store.files.problem()
    except OSError as error:
        problem = f"database cannot be looked at: {error}"
    if problem is None:
        return answers
    return [OutcomeUnknown(f"the outcome is unknown: {problem}") for _ in batch]


def _settle(store: Store, batch: Batch, raised: _CommitRaised) -> list[Answer]:
    """Find out whether the batch is on disk, and run it once more if it is not."""
    try:
        if not store.reopen():
            return _commit(store, batch)
        # The log begins anew: its end is set by this commit's sync, not left by the failed one.
        _transaction(store, (), savepoints=False)
        return raised.answers
    except (
        _CommitRaised,
        _AnotherWriter,
        StorageDegraded,
        DatabaseError,
        OSError,
        apsw.Error,
    ) as error:
        reason = f"commit failed: {raised.__cause__}; and again: {error.__cause__ or error}"
        return [OutcomeUnknown(f"the outcome is unknown, {reason}") for _ in batch]


def _commit(store: Store, batch: Batch) -> list[Answer]:
    try:
        try:
            return _transaction(store, batch, savepoints=False)
        except _OFFENCES:
            return _transaction(store, batch, savepoints=True)
    except StorageDegraded as refusal:
        return [refusal for _ in batch]
    except _AnotherWriter as error:
        return [StorageFailed(str(error)) for _ in batch]
    except _UNWRITABLE as error:
        return [StorageDegraded(f"database cannot be written: {error}") for _ in batch]
    except _DAMAGED as error:
        return [StorageFailed(f"database is damaged or its disk fails: {error}") for _ in batch]


def _transaction(store: Store, batch: Batch, *, savepoints: bool) -> list[Answer]:
    connection, committed = store.connection, Committed(len(batch))
    run: _Run = _run_alone if savepoints else _run
    try:
        _begin(store)
        answers: list[Answer] = [run(connection, statements) or committed for statements in batch]
        connection.execute(RAISE_MARK, (store.mark,))
        if not connection.changes():
            raise _AnotherWriter(store.files.database, store.mark)
        store.before_commit(connection, store.mark + 1)
        _end(connection, answers)
    except BaseException:
        _rollback(connection)
        raise
    store.mark += 1
    return answers


def _begin(store: Store) -> None:
    connection = store.connection
    if store.locked_out:
        wait_for_locks(connection, LOCKED_OUT_WAIT_MS)
    try:
        for _ in range(0 if store.locked_out else LOCK_ATTEMPTS - 1):
            with suppress(apsw.BusyError):
                connection.execute("BEGIN IMMEDIATE")
                return
        connection.execute("BEGIN IMMEDIATE")
    except apsw.BusyError:
        store.locked_out = True
        raise
    if store.locked_out:
        store.locked_out = False
        wait_for_locks(connection)


def _end(connection: apsw.Connection, answers: list[Answer]) -> None:
    try:
        connection.execute("COMMIT")
    except (*_OFFENCES, *_UNWRITABLE):
        raise
    except apsw.Error as error:
        raise _CommitRaised(answers) from error


def _rollback(connection: apsw.Connection) -> None:
    # After SQLITE_FULL and some I/O errors SQLite has rolled back by itself. A rollback that fails
    # leaves a connection that cannot begin again. The next batch crashes the actor, and its next
    # life opens a new connection.
    with suppress(apsw.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _run(connection: apsw.Connection, statements: tuple[Statement, ...]) -> None:
    for statement in statements:
        sql, rows, done = _of_many_rows(statement.sql), statement.rows, 0
        if sql is not None:
            done = len(rows) - len(rows) % ROWS_PER_INSERT
            starts = range(0, done, ROWS_PER_INSERT)
            connection.executemany(
                sql, (tuple(chain(*rows[start : start + ROWS_PER_INSERT])) for start in starts)
            )
        connection.executemany(statement.sql, rows[done:])


@lru_cache
def _of_many_rows(sql: str) -> str | None:
    """The same INSERT for several rows at once; None if the statement is no INSERT of one row."""
    values = re.search(r"(?<=VALUES )\([?, ]+\)", sql)
    return (
        None if values is None else sql.replace(values[0], ", ".join([values[0]] * ROWS_PER_INSERT))
    )


def _run_alone(
    connection: apsw.Connection, statements: tuple[Statement, ...]
) -> ConstraintFailed | None:
    refusal = None
    connection.execute("SAVEPOINT request")
    try:
        _run(connection, statements)
    except _OFFENCES as error:
        connection.execute("ROLLBACK TO request")
        refusal = ConstraintFailed(str(error))
    connection.execute("RELEASE request")
    return refusal
