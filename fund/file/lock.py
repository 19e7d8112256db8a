"""One owner per database: a flock on a file beside it that holds the owner's pid.

A registry in this process refuses a second owner here, since flock is per open file and would let
it in.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

from fundops.errors import DatabaseInUse
from fundops.wire.errors import DatabaseError

__all__ = ["OwnerLock"]

_held: set[Path] = set()
_guard = threading.Lock()

_POLL_S = 0.02


class OwnerLock:
    """The right to write one database, from `acquire` to `release` or the end of the process."""

    def __init__(self, database: Path) -> None:
        # A link is another name of the same database and must not admit a second owner.
        self._database = database.resolve()
        self._path = self._database.with_name(self._database.name + ".lock")
        self._descriptor: int | None = None

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

    def _try(self) -> str | None:
        """The present owner, or None once this lock is held."""
        with _guard:
            if self._database in _held:
                return "this process"
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                owner = os.read(descriptor, 32).decode(errors="replace").strip()
                os.close(descriptor)
                return f"pid {owner}" if owner else "another process"
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            self._descriptor = descriptor
            _held.add(self._database)
            return None

    def release(self) -> None:
        """Give the database up. Idempotent."""
        with _guard:
            if self._descriptor is not None:
                os.ftruncate(self._descriptor, 0)
                os.close(self._descriptor)
                self._descriptor = None
                _held.discard(self._database)

    def __enter__(self) -> OwnerLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
