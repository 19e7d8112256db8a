"""Copying a whole database into one new file, while others read and write it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import apsw

from ...wire.errors import DatabaseError

__all__ = ["copy_into", "sync_folder"]


def copy_into(execute: Callable[[str, tuple[str]], object], target: Path) -> None:
    """Copy all committed rows into `target`; its bytes and its name are on disk on return.

    `execute` runs one statement on a connection to the database. SQLite's backup API is not used:
    stepped from a connection that is not the writer's, it begins anew at every commit and never
    ends under load.

    Raises: `DatabaseError` when the target exists or cannot be written; `apsw.CorruptError` when
        the database is damaged. Then nothing is left of the target.
    """
    try:
        # The file gets its mode before SQLite writes a byte. SQLite takes an empty file as new.
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError as error:
        raise DatabaseError(target, "exists already, and a copy never overwrites") from error
    except OSError as error:
        raise DatabaseError(target, f"cannot be made: {error}") from error
    try:
        execute("VACUUM INTO ?", (str(target),))
        _sync(target)
        sync_folder(target)
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, OSError | apsw.Error) and not isinstance(error, apsw.CorruptError):
            raise DatabaseError(target, f"cannot be written: {error}") from error
        raise


def sync_folder(file: Path) -> None:
    """Make the file's name durable: a synced file can still lose its name in a power cut."""
    _sync(file.absolute().parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
