"""The oversight loop: one tick reads the engine and tells every other actor what it needs to
know.
"""

from .actor import OversightActor, OversightSettings
from .fees import FeeSettings

__all__ = ["FeeSettings", "OversightActor", "OversightSettings"]
