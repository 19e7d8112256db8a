"""Persistence: one connection and one writer thread; an answer means that the commit is on disk."""

from typing import TYPE_CHECKING

from ...runtime.lazy import lazy
from .backup import Copied, backup, beside, restore
from .copying import sync_folder
from .database import check_writable, errors_named, open_database
from .reader import Reader, Rows

# Loaded when first used: see `runtime.lazy`.
if TYPE_CHECKING:
    from .actor import PersistenceActor as PersistenceActor
    from .board import StorageBoard as StorageBoard
    from .store import Store as Store
    from .store import commit_batch as commit_batch
    from .writer import DurableActor as DurableActor
    from .writer import Refusal as Refusal
    from .writer import StateDiverged as StateDiverged
    from .writer import Writer as Writer
else:
    __getattr__ = lazy(
        __name__,
        {
            "actor": ("PersistenceActor",),
            "board": ("StorageBoard",),
            "store": ("Store", "commit_batch"),
            "writer": ("DurableActor", "Refusal", "StateDiverged", "Writer"),
        },
    )

__all__ = [
    "Copied",
    "DurableActor",
    "PersistenceActor",
    "Reader",
    "Refusal",
    "Rows",
    "StateDiverged",
    "StorageBoard",
    "Store",
    "Writer",
    "backup",
    "beside",
    "check_writable",
    "commit_batch",
    "errors_named",
    "open_database",
    "restore",
    "sync_folder",
]
