"""Recovery: restarts failed strategies with growing cooldowns, and alerts when it gives up."""

from typing import TYPE_CHECKING

from ...runtime.lazy import lazy
from .schema import SCHEMA, SCHEMA_3, SCHEMA_5
from .settings import RecoverySettings

# Loaded when first used: see `runtime.lazy`.
if TYPE_CHECKING:
    from .actor import RecoveryActor as RecoveryActor
else:
    __getattr__ = lazy(__name__, {"actor": ("RecoveryActor",)})

__all__ = ["SCHEMA", "SCHEMA_3", "SCHEMA_5", "RecoveryActor", "RecoverySettings"]
