"""The state of the storage as a shared object, for readers that must not wait behind a commit."""

from __future__ import annotations

from collections.abc import Callable

from ...wire.persistence import StorageStatus

__all__ = ["StorageBoard"]


class StorageBoard:
    """Set up by the persistence actor, read by others in the same trio run.

    A question to the actor would wait for the commit in progress, up to the wait for a lock.
    """

    def __init__(self) -> None:
        self._look: Callable[[], StorageStatus] | None = None

    def show(self, look: Callable[[], StorageStatus] | None) -> None:
        """Read the state by `look` from now on; None: there is none to be read."""
        self._look = look

    def read(self) -> StorageStatus | None:
        """The state at this instant; None while persistence does not run."""
        return None if self._look is None else self._look()
