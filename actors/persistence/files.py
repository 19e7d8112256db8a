"""The files of an open database: whether its path still leads to them, and their fate in a fork.

SQLite opens a path once and then works on the file that it found there. After a `rm` or a `mv` it
goes on writing into a file that no later start of the fund can find, so the writer compares the
path with the open file around every commit. A forked child inherits the open files and none of the
locks on them: it lets them go at once, and its parent's connections raise in it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakSet

import apsw

from ...wire.errors import DatabaseError

__all__ = ["FileId", "OpenFiles", "id_of", "keep_from_children"]

FileId = tuple[int, int]  # device and inode

# The log and its index. A commit goes into the log first, so it is lost with the log as well.
_LOGS = ("-wal", "-shm")


def id_of(path: Path) -> FileId | None:
    """Device and inode of the file at `path`; None: there is none. Raises: OSError."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


class OpenFiles:
    """A database and its log as they were found when the database was opened."""

    def __init__(self, path: Path) -> None:
        self.database = path
        self._opened = {file: id_of(file) for file in (path, *_logs_of(path))}

    def problem(self) -> str | None:
        """Why the open files are not those at the path any more; None: they are.

        Raises: OSError when the path cannot be looked at.
        """
        for file, opened in self._opened.items():
            found = id_of(file)
            if opened is not None and found != opened:
                became = "was deleted or moved" if found is None else "was replaced"
                return f"{file} {became} while the fund had it open; nothing more is written"
        return None

    def same_database(self, other: OpenFiles) -> bool:
        """Whether both are openings of one file."""
        ours = self._opened[self.database]
        return ours is not None and ours == other._opened[other.database]

    def ids(self) -> set[FileId]:
        """Device and inode of each file that was there."""
        return {found for found in self._opened.values() if found is not None}


def _logs_of(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in _LOGS]


# -- forks


class _Holder(Protocol):
    """An object with a connection that belongs to the process that opened it."""

    files: OpenFiles
    connection: Any  # an apsw.Connection, and in a forked child an `_Inherited`


class _Inherited:
    """In a forked child, the place of a connection of its parent."""

    def __init__(self, path: Path, parent: int) -> None:
        self._path = path
        self._parent = parent

    def close(self, _force: bool = False) -> None:
        """Nothing is open."""

    def __getattr__(self, name: str) -> Any:
        raise DatabaseError(
            self._path,
            f"was opened by process {self._parent}, from which this one was forked;"
            " open it again here",
        )


_holders: WeakSet[_Holder] = WeakSet()


def keep_from_children(holder: _Holder) -> None:
    """Take the holder's connection away from processes that are forked later."""
    _holders.add(holder)


def _let_go() -> None:
    """Called in a forked child, which has the one thread that forked."""
    holders = [holder for holder in _holders if isinstance(holder.connection, apsw.Connection)]
    if not holders:
        return
    inherited: set[FileId] = set()
    for holder in holders:
        inherited |= holder.files.ids()
        _leak(holder.connection)
        holder.connection = _Inherited(holder.files.database, os.getppid())
    _close_files(inherited)


def _leak(connection: apsw.Connection) -> None:
    # A thread of the parent may have held the connection's mutex during the fork. It is held
    # without end in the child, so not even closing the connection is safe: the object must outlive
    # the interpreter.
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _close_files(inherited: set[FileId]) -> None:
    """Close the descriptors of these files.

    Each number is taken by the null device: SQLite in this child still has the numbers noted, and
    must not write through them into files that get them later.
    """
    names: list[str] = []
    with suppress(OSError):  # a container may lack it; the descriptors then stay, unused
        names = os.listdir("/dev/fd")
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        for name in names:
            with suppress(OSError):
                found = os.fstat(int(name))
                if (found.st_dev, found.st_ino) in inherited:
                    os.dup2(null, int(name), inheritable=False)
    finally:
        os.close(null)


os.register_at_fork(after_in_child=_let_go)
