"""Recovery: restarts failed strategies with growing cooldowns, and alerts when it gives up."""

from .actor import RecoveryActor
from .schema import SCHEMA, SCHEMA_3
from .settings import RecoverySettings

__all__ = ["SCHEMA", "SCHEMA_3", "RecoveryActor", "RecoverySettings"]
