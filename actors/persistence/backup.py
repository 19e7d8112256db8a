"""A copy of a database while it is written, and a database made of such a copy."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import apsw
import msgspec

from ...wire.errors import DatabaseError
from .copying import copy_into, sync_folder
from .reader import Reader

__all__ = ["Copied", "backup", "beside", "restore"]

# The files that SQLite keeps beside a database. It would replay a leftover log into any database
# that gets the log's name.
_BESIDE = ("-wal", "-shm", "-journal")


class Copied(msgspec.Struct, frozen=True):
    """A copy is on disk."""

    path: Path
    schema: int  # how many migrations it has seen
    size_bytes: int


def backup(source: Path, target: Path) -> Copied:
    """Copy all committed rows into one new file with mode 0600, while the fund may be running.

    The fund's log cannot be cut back meanwhile.

    Raises: `DatabaseError` when the source is damaged or not a fundops database, or the target
    exists or cannot be written.
    """
    with Reader(source) as reader:
        copy_into(reader.rows, target)
    return _copied(target)


def restore(
    source: Path,
    target: Path,
    migrations: Sequence[str],
    *,
    replace: bool = False,
    prepare: Callable[[apsw.Connection], None] = lambda _: None,
) -> Copied:
    """Make `target` from a backup that has passed a check. The caller holds the target's lock.

    The schema keeps its version; the next process that opens the file migrates it. `prepare` may
    change the copy before it has its name, so a restore that is killed leaves either no
    database or a whole one. With `replace` an existing database is deleted; if the restore fails
    before that, the target is unchanged.

    Raises: `DatabaseError` when the source is damaged, belongs to another program or to a newer
    fundops, or when the target exists.
    """
    if not replace and any(file.exists() for file in (target, *beside(target))):
        raise DatabaseError(target, "exists already; it is overwritten only when asked to")
    part = target.with_name(target.name + ".restoring")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove(part)  # left over from a restore that was killed
    try:
        with Reader(source) as reader:
            _check_whole(reader, source, len(migrations))
            copy_into(reader.rows, part)
        _prepare(part, prepare)
        for file in beside(target):
            file.unlink(missing_ok=True)
        # The old log must be gone from the disk before the new file takes the name.
        sync_folder(target)
        os.replace(part, target)
        sync_folder(target)
    finally:
        _remove(part)
    return _copied(target)


def _prepare(part: Path, prepare: Callable[[apsw.Connection], None]) -> None:
    """Let `prepare` change the copy, which is one file again afterwards: a log keeps its name."""
    try:
        connection = apsw.Connection(str(part), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            prepare(connection)
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            connection.close()
    except apsw.Error as error:
        raise DatabaseError(part, f"cannot be written: {error}") from error


def _remove(part: Path) -> None:
    for file in (part, *beside(part)):
        file.unlink(missing_ok=True)


def beside(path: Path) -> list[Path]:
    """The files that SQLite may keep next to the database at `path`."""
    return [path.with_name(path.name + suffix) for suffix in _BESIDE]


def _check_whole(reader: Reader, path: Path, known: int) -> None:
    version = reader.row("PRAGMA user_version")[0]
    if not 0 < version <= known:
        raise DatabaseError(path, f"has schema {version}; this fundops knows 1 to {known}")
    try:
        [finding] = reader.row("PRAGMA quick_check(1)")
    except apsw.Error as error:
        raise DatabaseError(path, f"is damaged: {error}") from error
    if finding != "ok":
        raise DatabaseError(path, f"is damaged: {finding}")


def _copied(path: Path) -> Copied:
    with Reader(path) as reader:
        return Copied(path, reader.row("PRAGMA user_version")[0], path.stat().st_size)
