"""The settings of the oversight loop."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ...runtime import Settings
from .fees import FeeSettings

__all__ = ["OversightSettings"]


class OversightSettings(Settings, frozen=True):
    """How often the tick's steps run, and which subsystems the fund has."""

    recovery_every_ticks: Annotated[
        int, Meta(ge=1, description="ticks between two looks for failed strategies and stale feeds")
    ] = 10
    promotion_every_ticks: Annotated[
        int, Meta(ge=1, description="ticks between two evaluations of the gates")
    ] = 60
    ledger_enabled: Annotated[
        bool, Meta(description="keep the double-entry ledger; without it fees are not booked")
    ] = False
    promotion_enabled: Annotated[
        bool, Meta(description="promote and demote strategies; without it all of them are real")
    ] = False
    self_healing_enabled: Annotated[
        bool, Meta(description="restart failed strategies, watch feeds")
    ] = False
    alerts_enabled: bool = False
    fees: FeeSettings = FeeSettings()
