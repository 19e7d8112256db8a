"""The step `totals`: the ledger's totals, which the guard's NAV rests on, are read."""

from __future__ import annotations

from typing import ClassVar

from ....wire.ledger import ReadTotals
from ..round import Effects, Round
from ..settings import OversightSettings
from .step import READ_DEADLINE_S, Step

__all__ = ["TotalsStep"]


class TotalsStep(Step):
    """Reads the ledger's totals of now; while the ledger is silent the last totals stand."""

    name: ClassVar[str] = "totals"
    deadline_s: ClassVar[float | None] = READ_DEADLINE_S

    @classmethod
    def serves(cls, settings: OversightSettings) -> bool:
        """A fund without a ledger has no totals."""
        return settings.ledger_enabled

    async def run(self, tick: Round) -> Effects:
        """Ask the ledger. Raises: `ActorError`."""
        return Effects(totals=await self.ports.ask("ledger", ReadTotals()), totals_tick=tick.number)
