"""The step `ledger`: reports of the engine and its venues are booked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ....wire.alert import Category
from ....wire.promotion import EntitlementTerms, Observe
from ..booking import UNENTITLED, Booking, entitled_again
from ..round import Effects, Round
from ..settings import OversightSettings
from .step import Ports, Step

__all__ = ["LedgerStep"]


class LedgerStep(Step):
    """Has the ledger book fills, settlements and cash events.

    It runs before promotion: a fill of this tick was made under the stages of before.
    """

    name: ClassVar[str] = "ledger"
    tells: ClassVar[Mapping[str, Category]] = {UNENTITLED: Category.RISK_LIMIT}

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports)
        self._booking = Booking(ports.host, lambda request: ports.ask("ledger", request))

    @classmethod
    def serves(cls, settings: OversightSettings) -> bool:
        """A fund without a ledger books nothing."""
        return settings.ledger_enabled

    async def run(self, tick: Round) -> Effects:
        """Book the reports; one kind of them that fails leaves the others alone."""
        terms, settings = tick.terms, self.ports.settings
        known = tick.totals if tick.totals_tick == tick.number else None
        totals, fault = await self._booking.book(terms, self._terms_of_now, known)
        again = entitled_again(self.ports.rows, terms) if settings.alerts_enabled else ()
        return Effects(totals=totals, alerts=tuple(again), fault=fault)

    async def _terms_of_now(self) -> Mapping[str, EntitlementTerms]:
        return (await self.ports.ask("promotion", Observe(()))).terms
