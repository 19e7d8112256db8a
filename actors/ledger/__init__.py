"""The double-entry ledger: every financial event once, balanced and chained by hashes."""

from typing import TYPE_CHECKING

from ...runtime.lazy import lazy

# Loaded when first used: see `runtime.lazy`.
if TYPE_CHECKING:
    from .actor import LedgerActor as LedgerActor
else:
    __getattr__ = lazy(__name__, {"actor": ("LedgerActor",)})

__all__ = ["LedgerActor"]
