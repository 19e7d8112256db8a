"""Persistence: one connection, one writer thread, every transaction durable before anybody hears of it."""

from .actor import PersistenceActor
from .database import DatabaseError, open_database
from .reader import Reader

__all__ = ["DatabaseError", "PersistenceActor", "Reader", "open_database"]
