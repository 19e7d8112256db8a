"""Opening the database, one named function per setting. Runs in the writer thread.

apsw runs a statement lazily, row by row: each call here has one statement, or only the first would
take effect.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw
import msgspec

from ...wire.errors import DatabaseError, StorageDegraded
from .migrations import APPLICATION_ID, check_ours, migrate

__all__ = [
    "APPLICATION_ID",
    "BUSY_TIMEOUT_MS",
    "DAMAGE",
    "check_writable",
    "errors_named",
    "open_database",
    "wait_for_locks",
]

# Two waits and the answer fit into the 10 s that a caller is promised.
BUSY_TIMEOUT_MS = 4_500
JOURNAL_SIZE_LIMIT = 64 * 2**20
WAL_AUTOCHECKPOINT_PAGES = 4_096
CACHE_KIB = 64 * 2**10

# A damaged page shows as an error of SQLite, a text that is no UTF-8, or a record that is none.
DAMAGE = (apsw.Error, UnicodeDecodeError, msgspec.DecodeError)


def open_database(path: Path, migrations: Sequence[str]) -> apsw.Connection:
    """A connection for the one writer, with the schema brought up to date.

    Raises: `DatabaseError` for a file of another program, of a newer fundops, or that cannot be
    opened.
    """
    try:
        _create_private(path)
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    except (OSError, apsw.Error) as error:
        raise DatabaseError(path, f"cannot be opened: {error}") from error
    try:
        wait_for_locks(connection)
        # Before any setting: WAL mode is written into the file, and a file that is refused is left
        # as it was.
        check_ours(connection, path, len(migrations))
        for setting in _SETTINGS:
            setting(connection)
        migrate(connection, path, migrations)
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


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """A block of work on the open file: an error of SQLite or of the system, such as a damaged
    page, leaves it as a `DatabaseError` that names the file.
    """
    try:
        yield
    except (OSError, *DAMAGE) as error:
        raise DatabaseError(path, f"cannot be used: {error}") from error


def check_writable(path: Path, wait_ms: int) -> None:
    """Wait until no other program holds the write lock of the existing database at `path`.

    Raises: `StorageDegraded` when it cannot be written after `wait_ms`; `DatabaseError`.
    """
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    except apsw.Error as error:
        raise DatabaseError(path, f"cannot be opened: {error}") from error
    try:
        wait_for_locks(connection, wait_ms)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except apsw.BusyError as error:
        raise StorageDegraded(
            f"{path} cannot be written: another program has held its write lock for"
            f" {wait_ms / 1_000:g} s"
        ) from error
    except apsw.Error as error:
        raise StorageDegraded(f"{path} cannot be written: {error}") from error
    finally:
        # Closing tidies up, and must not wait for the same lock again.
        wait_for_locks(connection, 0)
        connection.close()


def _create_private(path: Path) -> None:
    """The file exists with mode 0600 before SQLite writes a byte; its -wal and -shm files
    inherit the mode.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Only a new file is opened here. Closing a descriptor of an existing one would drop the locks
    # of this process's other connections to it.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def wait_for_locks(connection: apsw.Connection, wait_ms: int | None = None) -> None:
    """Wait for a lock, which a reader's checkpoint or a tool's single write holds for a moment.

    `wait_ms` None: as long as at the opening.
    """
    connection.set_busy_timeout(BUSY_TIMEOUT_MS if wait_ms is None else wait_ms)


def _write_ahead_log(connection: apsw.Connection) -> None:
    """Readers never wait for the writer, and a commit is one fsync."""
    connection.pragma("journal_mode", "wal")


def _sync_every_commit(connection: apsw.Connection) -> None:
    """NORMAL loses acknowledged commits when the power fails; with group commit FULL costs a few
    percent.
    """
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
