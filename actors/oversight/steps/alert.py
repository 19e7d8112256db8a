"""The step `alert`: the alerts that the tick's commits asked for are decided before it ends."""

from __future__ import annotations

from typing import ClassVar

from ....wire.alert import ConsumeAlertRequests
from ..round import Effects, Round
from ..settings import OversightSettings
from .step import Step

__all__ = ["AlertStep"]


class AlertStep(Step):
    """Has the alert actor read the requests."""

    name: ClassVar[str] = "alert"

    @classmethod
    def serves(cls, settings: OversightSettings) -> bool:
        """A fund without channels and subsystems has no alerts."""
        return settings.alerts_enabled

    async def run(self, tick: Round) -> Effects:
        """Wait until they are decided. Raises: `FundopsError`."""
        await self.ports.ask("alert", ConsumeAlertRequests())
        return Effects()
