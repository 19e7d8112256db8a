"""The oversight loop: each tick reads the engine and tells the other actors what they need."""

from .actor import OversightActor
from .clocks import ClockWatch
from .fees import FeeSettings
from .sessions import calendar_of
from .settings import OversightSettings

__all__ = ["ClockWatch", "FeeSettings", "OversightActor", "OversightSettings", "calendar_of"]
