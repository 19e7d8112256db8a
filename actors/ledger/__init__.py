"""The double-entry ledger: every financial event once, balanced, chained, for ever."""

from .actor import LedgerActor

__all__ = ["LedgerActor"]
