"""Recovery: restarts what failed, with patience that grows, and gives up aloud."""

from .actor import RecoveryActor
from .rules import RecoverySettings
from .schema import SCHEMA

__all__ = ["SCHEMA", "RecoveryActor", "RecoverySettings"]
