"""Read-only connections: any number of them, from any process, without blocking the writer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import apsw

from ...wire.errors import DatabaseError
from .database import APPLICATION_ID, BUSY_TIMEOUT_MS, DAMAGE
from .files import OpenFiles, keep_from_children

__all__ = ["Reader", "Rows"]


class Rows:
    """Questions to any connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection

    def rows(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[Any]:
        """All rows as tuples. Each call is its own short read transaction."""
        return self.connection.execute(sql, bindings).fetchall()

    def each(self, sql: str, bindings: tuple[Any, ...] = ()) -> Iterator[Any]:
        """The rows one by one, each read when it is taken: for a caller that may stop early."""
        yield from self.connection.execute(sql, bindings)

    def row(self, sql: str, bindings: tuple[Any, ...] = ()) -> Any:
        """The first row, or None."""
        return next(iter(self.rows(sql, bindings)), None)


class Reader(Rows):
    """Rows of the last committed state. Use from one thread at a time; close it, or use it as a
    context manager, whose block may handle SQLite's own errors.

    Raises: `DatabaseError` when the file is missing or not a fundops database, and for an error of
        SQLite that leaves the block, such as a damaged page.
    """

    def __init__(self, path: Path) -> None:
        path = path.absolute()
        if not path.is_file():
            raise DatabaseError(path, "there is no such database")
        try:
            super().__init__(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY))
        except apsw.Error as error:
            raise DatabaseError(path, f"cannot be opened: {error}") from error
        self.path = path
        try:
            self.connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            application_id = self.connection.pragma("application_id")
            self.files = OpenFiles(path)
        except (OSError, apsw.Error) as error:
            self.close()
            raise DatabaseError(path, _why_unreadable(error)) from error
        if application_id != APPLICATION_ID:
            self.close()
            raise DatabaseError(path, "is not a fundops database")
        keep_from_children(self)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All reads in the block see one state. Keep it short: it keeps the log from being cut."""
        self.connection.execute("BEGIN")
        try:
            yield
        finally:
            # On a damaged file the rollback fails too; nothing was written.
            with suppress(apsw.Error):
                self.connection.execute("ROLLBACK")

    def close(self) -> None:
        """Idempotent."""
        self.connection.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if isinstance(error, DAMAGE):
            raise DatabaseError(self.path, _why_unreadable(error)) from error


def _why_unreadable(error: Exception) -> str:
    if isinstance(error, apsw.CantOpenError):
        # A reader shares two files with a writer. Reading without them is right only where no
        # writer can be, and that cannot be told from here.
        return "cannot be read where nothing can be written: read a copy of it"
    if getattr(error, "extendedresult", 0) == apsw.SQLITE_READONLY_ROLLBACK:
        # A process was killed while it changed the file, and SQLite undoes that at the next look.
        return (
            "holds a change that was cut off, which a reader cannot undo: start its fund once, or"
            " restore it again"
        )
    return f"cannot be read: {error}"
