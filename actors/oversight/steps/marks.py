"""The step `marks`: the book's positions are marked at the end of each session."""

from __future__ import annotations

import logging
from typing import ClassVar

from ....runtime import FundopsError
from ....wire.errors import IdempotencyConflict
from ....wire.ledger import LedgerTotals, PostMany, ReadTotals
from .. import closing
from ..marks import marks_of
from ..round import Effects, Round, durable_endings, figures_of
from ..schema import Ending
from ..settings import OversightSettings
from .step import Step

__all__ = ["MarksStep"]

log = logging.getLogger("fundops.oversight")


class MarksStep(Step):
    """Marks the positions for each session, in order, until the ledger has taken it."""

    name: ClassVar[str] = "marks"

    @classmethod
    def serves(cls, settings: OversightSettings) -> bool:
        """Without a ledger there is no book."""
        return settings.ledger_enabled

    async def run(self, tick: Round) -> Effects:
        """The marks that are due; a fault ends them, and the rest waits for the next tick."""
        memory, totals = tick.memory, tick.totals
        if totals is None:
            return Effects()
        fault: FundopsError | None = None
        for ending in durable_endings(tick):
            if not ending.marks:
                continue
            try:
                totals = await self._mark(tick, ending, totals)
            except FundopsError as error:
                fault = error
                break
            memory = closing.taken(memory, ending.session, "marks")
        return Effects(memory=memory, totals=totals, fault=fault)

    async def _mark(self, tick: Round, ending: Ending, totals: LedgerTotals) -> LedgerTotals:
        """The totals after the marks of one session."""
        ask = self.ports.ask
        marks = marks_of(totals.positions, figures_of(tick, ending), ending.session)
        if not marks:
            return totals
        try:
            await ask("ledger", PostMany(marks))
        except IdempotencyConflict as booked:
            log.warning("session %s was marked before: %s", ending.session, booked)
        return await ask("ledger", ReadTotals())
