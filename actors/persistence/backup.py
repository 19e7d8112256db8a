"""A copy of a database while it is written, and a database made of such a copy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import apsw
import msgspec

from .copying import copy_into, sync_folder
from .errors import DatabaseError
from .reader import Reader

__all__ = ["Copied", "backup", "beside", "restore"]

# What SQLite keeps beside a database. A log that is left over would be replayed into whatever has its name.
_BESIDE = ("-wal", "-shm", "-journal")


class Copied(msgspec.Struct, frozen=True):
    """A copy is on disk."""

    path: Path
    schema: int  # its version: how many migrations it has seen
    size_bytes: int


def backup(source: Path, target: Path) -> Copied:
    """Everything committed so far, in one new file for its owner alone. The fund may be running, and goes on.

    Its log cannot be cut back meanwhile.

    Raises: `DatabaseError` when the source is not a fundops database, or the target exists or cannot be written.
    """
    with Reader(source) as reader:
        copy_into(reader.rows, target)
    return _copied(target)


def restore(
    source: Path, target: Path, migrations: Sequence[str], *, replace: bool = False
) -> Copied:
    """Make `target` of a backup, once it is found to be whole. The caller holds the owner's lock of the target.

    It keeps the version of its schema: migrating it is for whoever opens it. With `replace` an existing database is
    given up. When this fails before that, the target is as it was.

    Raises: `DatabaseError` when the source is damaged, not ours or of a newer fundops; when the target exists.
    """
    if not replace and any(file.exists() for file in (target, *beside(target))):
        raise DatabaseError(target, "exists already; it is overwritten only when asked to")
    part = target.with_name(target.name + ".restoring")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part.unlink(missing_ok=True)
    try:
        with Reader(source) as reader:
            _check_whole(reader, source, len(migrations))
            copy_into(reader.rows, part)
        for file in beside(target):
            file.unlink(missing_ok=True)
        sync_folder(target)  # before the new file has the name: it must never meet the old log
        os.replace(part, target)
        sync_folder(target)
    finally:
        part.unlink(missing_ok=True)
    return _copied(target)


def beside(path: Path) -> list[Path]:
    """What SQLite may keep next to the database at `path`."""
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
