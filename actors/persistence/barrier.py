"""Waiting for the commits of an earlier life."""

from __future__ import annotations

from contextlib import suppress

from ...runtime import Ref
from ...wire.errors import OutcomeUnknown, StorageDegraded, StorageFailed
from ...wire.persistence import COMMIT_DEADLINE_S, Commit

__all__ = ["earlier_commits"]


async def earlier_commits(persistence: Ref) -> None:
    """Return when every commit that was asked for before has ended, one way or the other.

    A life that was cut off may have left one in flight, and whoever reads the database before it ends reads a past
    that is about to change. Persistence works in order, so its answer to an empty commit comes after all of them.
    """
    with suppress(StorageDegraded, StorageFailed, OutcomeUnknown):
        await persistence.ask(Commit(()), timeout_s=COMMIT_DEADLINE_S)
