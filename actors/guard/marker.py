"""The kill switch's latch as a file beside the database: durable without SQLite, and readable by a
person.

Unknown means engaged: a marker that exists but cannot be read still counts.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from ...wire.guard import KillStatus

__all__ = ["Marker", "marker_of"]

BYTES_MAX: Final = 65_536  # reason and name are a tenth of it at most


def marker_of(database: Path) -> Path:
    """The path of the marker: beside the file itself, whichever link leads to it."""
    # A fund opens the file that the links lead to, and looks for the marker there.
    real = Path(os.path.realpath(database))
    return real.with_name(real.name + ".kill")


class Marker:
    """One small JSON file, written whole and fsynced with its folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> KillStatus | None:
        """None only when there certainly is no marker."""
        try:
            return msgspec.json.decode(self._bytes(), type=KillStatus)
        except (OSError, msgspec.DecodeError) as error:
            if not self.exists():
                return None
            return KillStatus(
                "ENGAGED",
                f"marker {self.path.name} cannot be read: {type(error).__name__}",
                "fundops",
                None,
            )

    def _bytes(self) -> bytes:
        # Reading from a pipe without a writer would block the guard.
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return os.read(descriptor, BYTES_MAX)
        finally:
            os.close(descriptor)

    def exists(self) -> bool:
        """Whether there is a marker, by one stat; True also when the stat fails.

        A link is one wherever it leads.
        """
        try:
            os.lstat(self.path)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def write(self, status: KillStatus) -> None:
        """Durable on return. Raises: OSError; on a full disk an empty marker may exist then."""
        # Named by the process: the command line may write beside a fund that heeds the marker, and
        # neither may read the other's draft, which would lose a person's words.
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        try:
            with os.fdopen(
                os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
            ) as file:
                file.write(msgspec.json.encode(status))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
        except OSError:
            draft.unlink(missing_ok=True)
            if not self.exists():
                os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600))
            raise
        finally:
            self._sync_folder()

    def remove(self) -> None:
        """Durable on return. Raises: OSError."""
        self.path.unlink(missing_ok=True)
        self._sync_folder()

    def _sync_folder(self) -> None:
        descriptor = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
