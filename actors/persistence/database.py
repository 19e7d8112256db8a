"""Opening the database, one named function per setting, and committing a batch. Runs in the writer thread.

apsw runs a statement lazily, row by row: each call here has one statement, or only the first would take effect.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import apsw

from ...runtime import FundopsError
from ...wire.persistence import (
    Committed,
    ConstraintFailed,
    OutcomeUnknown,
    Statement,
    StorageDegraded,
    StorageFailed,
)

__all__ = ["APPLICATION_ID", "Answer", "DatabaseError", "commit_batch", "open_database"]

APPLICATION_ID = 0x66756E64  # "fund"

BUSY_TIMEOUT_MS = 5_000
JOURNAL_SIZE_LIMIT = 64 * 2**20
WAL_AUTOCHECKPOINT_PAGES = 4_096
CACHE_KIB = 64 * 2**10

Answer = Committed | ConstraintFailed | StorageDegraded | StorageFailed | OutcomeUnknown

# What a request can do wrong by its values alone: a constraint, a text for a rowid, an integer beyond 64 bits.
_OFFENCES = (apsw.ConstraintError, apsw.MismatchError, OverflowError)


class DatabaseError(FundopsError):
    """The file is not one that this version of fundops may open; `path` names it."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


def open_database(path: Path, migrations: Sequence[str]) -> apsw.Connection:
    """A connection for the one writer, with the schema brought up to date.

    Raises: `DatabaseError` for a file of another program, of a newer fundops, or that cannot be opened.
    """
    try:
        _create_private(path)
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    except (OSError, apsw.Error) as error:
        raise DatabaseError(path, f"cannot be opened: {error}") from error
    try:
        _wait_for_locks(connection)
        # Before any setting: WAL mode is written into the file, and a file that is refused is left as it was.
        _check_ours(connection, path, len(migrations))
        for setting in _SETTINGS:
            setting(connection)
        _migrate(connection, migrations)
    except apsw.NotADBError as error:
        connection.close()
        raise DatabaseError(path, "is not a SQLite database") from error
    except apsw.Error as error:
        connection.close()
        raise DatabaseError(path, f"cannot be opened: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _create_private(path: Path) -> None:
    """The file exists with mode 0600 before SQLite writes a byte; its -wal and -shm files inherit the mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _wait_for_locks(connection: apsw.Connection) -> None:
    """A reader's checkpoint or a tool's single write may hold the lock for a moment."""
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)


def _write_ahead_log(connection: apsw.Connection) -> None:
    """Readers never wait for the writer, and a commit is one fsync."""
    connection.pragma("journal_mode", "wal")


def _sync_every_commit(connection: apsw.Connection) -> None:
    """NORMAL loses acknowledged commits when the power fails; with group commit FULL costs a few percent."""
    connection.pragma("synchronous", "full")


def _enforce_references(connection: apsw.Connection) -> None:
    """SQLite checks foreign keys only when asked to, per connection."""
    connection.pragma("foreign_keys", True)


def _refuse_quoted_strings(connection: apsw.Connection) -> None:
    """A misspelt column in double quotes must be an error, not a text."""
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)


def _distrust_schema(connection: apsw.Connection) -> None:
    """Views and triggers of a file from elsewhere must not call functions with side effects."""
    connection.pragma("trusted_schema", False)


def _bound_log(connection: apsw.Connection) -> None:
    """The WAL is cut back after a checkpoint, and checkpoints come every 16 MiB."""
    connection.pragma("journal_size_limit", JOURNAL_SIZE_LIMIT)
    connection.pragma("wal_autocheckpoint", WAL_AUTOCHECKPOINT_PAGES)


def _cache(connection: apsw.Connection) -> None:
    """The hot pages of a big index stay in memory."""
    connection.pragma("cache_size", -CACHE_KIB)


_SETTINGS: tuple[Callable[[apsw.Connection], None], ...] = (
    _write_ahead_log,
    _sync_every_commit,
    _enforce_references,
    _refuse_quoted_strings,
    _distrust_schema,
    _bound_log,
    _cache,
)


def _check_ours(connection: apsw.Connection, path: Path, known: int) -> None:
    """The file is a fundops database of a version we know, or an empty one that nobody has claimed."""
    application_id = connection.pragma("application_id")
    version = connection.pragma("user_version")
    empty = next(iter(connection.execute("SELECT count(*) FROM sqlite_schema")))[0] == 0
    if application_id != APPLICATION_ID and (application_id or not empty):
        raise DatabaseError(path, f"belongs to another program (application_id {application_id:#x})")
    if version > known:
        raise DatabaseError(path, f"was written by a newer fundops (schema {version}, this one knows {known})")


def _migrate(connection: apsw.Connection, migrations: Sequence[str]) -> None:
    """Apply the migrations the file has not seen, each in one transaction with its number."""
    version = connection.pragma("user_version")
    for number, script in enumerate(migrations[version:], start=version + 1):
        with connection:
            for statement in _statements(script):
                connection.execute(statement)
            connection.pragma("application_id", APPLICATION_ID)
            connection.pragma("user_version", number)


def _statements(script: str) -> list[str]:
    """The statements of a script; a trigger's body holds semicolons, so the split asks SQLite what is complete."""
    statements, rest = [], ""
    for piece in script.split(";"):
        rest += piece + ";"
        if rest.strip(" \n;") and apsw.complete(rest):
            statements.append(rest)
            rest = ""
    return statements


def commit_batch(connection: apsw.Connection, batch: Sequence[tuple[Statement, ...]]) -> list[Answer]:
    """Run all requests of the batch in one transaction; one answer each.

    A request that breaks a constraint fails alone: the batch is rolled back and run again with a savepoint around
    each request.
    """
    try:
        return _commit(connection, batch, savepoints=False)
    except _OFFENCES:
        return _commit(connection, batch, savepoints=True)


def _commit(connection: apsw.Connection, batch: Sequence[tuple[Statement, ...]], *, savepoints: bool) -> list[Answer]:
    committing = False
    answers: list[Answer] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
        for statements in batch:
            answers.append(_run_alone(connection, statements) if savepoints else _run(connection, statements))
        committing = True
        connection.execute("COMMIT")
    except (apsw.FullError, apsw.ReadOnlyError, apsw.CantOpenError, apsw.BusyError, apsw.LockedError) as error:
        _rollback(connection)
        return [StorageDegraded(f"database cannot be written: {error}") for _ in batch]
    except (apsw.IOError, apsw.CorruptError, apsw.NotADBError) as error:
        _rollback(connection)
        if committing:
            return [OutcomeUnknown(f"commit failed, the outcome is unknown: {error}") for _ in batch]
        return [StorageFailed(f"database is damaged or its disk fails: {error}") for _ in batch]
    except BaseException:
        _rollback(connection)
        raise
    return [Committed(len(batch)) if isinstance(answer, Committed) else answer for answer in answers]


def _run(connection: apsw.Connection, statements: tuple[Statement, ...]) -> Committed:
    for statement in statements:
        connection.executemany(statement.sql, statement.rows)
    return Committed(0)


def _run_alone(connection: apsw.Connection, statements: tuple[Statement, ...]) -> Committed | ConstraintFailed:
    connection.execute("SAVEPOINT request")
    try:
        answer: Committed | ConstraintFailed = _run(connection, statements)
    except _OFFENCES as error:
        connection.execute("ROLLBACK TO request")
        answer = ConstraintFailed(str(error))
    connection.execute("RELEASE request")
    return answer


def _rollback(connection: apsw.Connection) -> None:
    # After SQLITE_FULL and some I/O errors SQLite has rolled back by itself.
    if connection.in_transaction:
        connection.execute("ROLLBACK")
