"""The oversight loop: each tick reads the engine and informs the other actors."""

from typing import TYPE_CHECKING

from ...runtime.lazy import lazy
from .clocks import ClockWatch
from .fees import FeeSettings
from .settings import OversightSettings

# Loaded when first used: see `runtime.lazy`.
if TYPE_CHECKING:
    from .actor import OversightActor as OversightActor
else:
    __getattr__ = lazy(__name__, {"actor": ("OversightActor",)})

__all__ = ["ClockWatch", "FeeSettings", "OversightActor", "OversightSettings"]
