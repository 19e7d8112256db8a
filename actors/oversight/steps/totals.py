"""The step `totals`: the ledger's totals, which the guard's NAV rests on, are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ....wire.alert import Category
from ....wire.ledger import ReadTotals
from ..round import Effects, Round
from ..settings import OversightSettings
from .step import READ_DEADLINE_S, Step

__all__ = ["UNPRICED", "TotalsStep"]

UNPRICED = "unpriced"  # dedup key of the alert about assets without a price


class TotalsStep(Step):
    """Reads the ledger's totals of now; while the ledger is silent the last totals stand."""

    name: ClassVar[str] = "totals"
    deadline_s: ClassVar[float | None] = READ_DEADLINE_S
    tells: ClassVar[Mapping[str, Category]] = {UNPRICED: Category.GENERAL}

    @classmethod
    def serves(cls, settings: OversightSettings) -> bool:
        """A fund without a ledger has no totals."""
        return settings.ledger_enabled

    async def run(self, tick: Round) -> Effects:
        """Ask the ledger. Raises: `ActorError`."""
        return Effects(totals=await self.ports.ask("ledger", ReadTotals()), totals_tick=tick.number)
