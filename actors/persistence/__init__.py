"""Persistence: one connection, one writer thread, every transaction durable before anybody hears of it."""

from .actor import PersistenceActor
from .barrier import earlier_commits
from .database import DatabaseError, commit_batch, open_database
from .reader import Reader, Rows

__all__ = ["DatabaseError", "PersistenceActor", "Reader", "Rows", "commit_batch", "earlier_commits", "open_database"]
