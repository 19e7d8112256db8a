"""Persistence: one connection, one writer thread, every transaction durable before anybody hears of it."""

from .actor import PersistenceActor
from .backup import Copied, backup, beside, restore
from .barrier import earlier_commits
from .copying import sync_folder
from .database import open_database
from .errors import DatabaseError
from .reader import Reader, Rows
from .store import Store, commit_batch

__all__ = [
    "Copied",
    "DatabaseError",
    "PersistenceActor",
    "Reader",
    "Rows",
    "Store",
    "backup",
    "beside",
    "commit_batch",
    "earlier_commits",
    "open_database",
    "restore",
    "sync_folder",
]
