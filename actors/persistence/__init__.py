"""Persistence: one connection and one writer thread; an answer means that the commit is on disk."""

from .actor import PersistenceActor
from .backup import Copied, backup, beside, restore
from .board import StorageBoard
from .copying import sync_folder
from .database import check_writable, open_database
from .reader import Reader, Rows
from .store import Store, commit_batch
from .writer import DurableActor, Refusal, StateDiverged, Writer

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
    "open_database",
    "restore",
    "sync_folder",
]
