"""One owner per database: a flock on a file beside it that holds the owner's pid.

Two names can lead to one file (a hard link), and the lock file can be deleted, so the owner also
locks the database's inode: by a file in the user's own folder whose name is made of device and
inode. A registry in this process refuses a second owner here, since flock is per open file and
would let it in. A forked child owns nothing: it closes the descriptors that it inherited, or the
database would stay locked until the child ends too.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

from fundops.actors.persistence.files import FileId, id_of
from fundops.errors import DatabaseInUse
from fundops.file.private import made_folder, shared_folder
from fundops.wire.errors import DatabaseError

__all__ = ["OwnerLock"]

log = logging.getLogger("fundops")

_held: set[Path] = set()
_held_files: set[FileId] = set()
_locks: WeakSet[OwnerLock] = WeakSet()
_guard = threading.Lock()

# Short beside a write: an owner that writes all the time leaves the lock for moments only.
_POLL_S = 0.001
_THIS_PROCESS = "this process"


class OwnerLock:
    """The right to write one database, from `acquire` to `release` or the end of the process."""

    def __init__(self, database: Path) -> None:
        # A link is another name of the same database and must not admit a second owner. A loop of
        # links, for which `Path.resolve` raises a RuntimeError, fails when the file is opened.
        self._database = Path(os.path.realpath(database))
        self._path = self._database.with_name(self._database.name + ".lock")
        self._descriptor: int | None = None
        self._file: FileId | None = None  # of the database, once it is locked as a file
        self._file_descriptor: int | None = None  # None also where the user has no safe folder
        _locks.add(self)

    def acquire(self, wait_s: float = 0.0) -> None:
        """Become the owner, waiting up to `wait_s` seconds.

        Raises: `DatabaseInUse` when another owner still holds it then; `DatabaseError` when the
        file cannot be locked.
        """
        deadline = time.monotonic() + wait_s
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            while (owner := self._try()) is not None:
                if time.monotonic() >= deadline:
                    raise DatabaseInUse(self._database, owner)
                time.sleep(_POLL_S)
        except OSError as error:
            raise DatabaseError(self._database, f"cannot be locked: {error}") from error

    def claim_file(self) -> None:
        """Lock the database as a file too. `acquire` does it for a file that was there already.

        Raises: `DatabaseInUse`, `DatabaseError`.
        """
        try:
            with _guard:
                owner = self._try_file()
        except OSError as error:
            raise DatabaseError(self._database, f"cannot be locked: {error}") from error
        if owner is not None:
            raise DatabaseInUse(self._database, owner)

    def _try(self) -> str | None:
        """The present owner, or None once this lock is held."""
        with _guard:
            # Before anything is opened: one process never opens a lock that it holds already.
            if self._database in _held or id_of(self._database) in _held_files:
                return _THIS_PROCESS
            descriptor = _open(self._path)
            owner = _locked(descriptor)
            if owner is not None:
                return owner
            self._descriptor = descriptor
            _held.add(self._database)
            owner = self._try_file()
            if owner is not None:
                self._let_go()
            return owner

    def _try_file(self) -> str | None:
        if self._file is not None:
            return None
        file = id_of(self._database)
        if file is None:
            return None  # no second name can lead to a file that is not there yet
        if file in _held_files:
            return _THIS_PROCESS
        folder = shared_folder()
        problem = made_folder(folder)
        if problem is not None:
            log.warning(
                "%s %s: a second owner by another name of %s would not be noticed",
                folder,
                problem,
                self._database,
            )
        else:
            path = _path_for(file)
            while True:
                descriptor = _open(path)
                owner = _locked(descriptor)
                if owner is not None:
                    return owner
                # The last owner may have removed the file between our opening and our lock.
                if id_of(path) == _id_of_open(descriptor):
                    break
                os.close(descriptor)
            self._file_descriptor = descriptor
        self._file = file
        _held_files.add(file)
        return None

    def release(self) -> None:
        """Give the database up. Idempotent."""
        with _guard:
            self._let_go()

    def _let_go(self) -> None:
        if self._file is not None:
            if self._file_descriptor is not None:
                _path_for(self._file).unlink(missing_ok=True)
                os.close(self._file_descriptor)
            _held_files.discard(self._file)
            self._file = self._file_descriptor = None
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None
            _held.discard(self._database)

    def _forget(self) -> None:
        """In a forked child: the lock stays with the parent."""
        for descriptor in (self._descriptor, self._file_descriptor):
            if descriptor is not None:
                os.close(descriptor)
        self._descriptor = self._file_descriptor = self._file = None

    def __enter__(self) -> OwnerLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _path_for(file: FileId) -> Path:
    return shared_folder() / f"{file[0]:x}-{file[1]:x}.lock"


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _locked(descriptor: int) -> str | None:
    """Lock the open file and write our pid into it; or close it and return its owner."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        return f"pid {owner}" if owner else "another process"
    # The lock is what counts: on a full disk it has no pid in it.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    return None


def _id_of_open(descriptor: int) -> FileId:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _forget_all() -> None:
    # Another thread of the parent may have held the guard during the fork.
    global _guard
    _guard = threading.Lock()
    for lock in _locks:
        lock._forget()
    _held.clear()
    _held_files.clear()


os.register_at_fork(after_in_child=_forget_all)
