"""The oversight loop: each tick reads the engine and tells the other actors what they need."""

from .actor import OversightActor
from .fees import FeeSettings
from .settings import OversightSettings

__all__ = ["FeeSettings", "OversightActor", "OversightSettings"]
