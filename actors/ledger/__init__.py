"""The double-entry ledger: every financial event once, balanced and chained by hashes."""

from .actor import LedgerActor

__all__ = ["LedgerActor"]
