"""The step `fees`: the fees that are owed are booked, once the record says so."""

from __future__ import annotations

import logging
from typing import ClassVar

from msgspec.structs import replace

from ....wire.errors import IdempotencyConflict
from ....wire.ledger import ReadTotals
from ..fees import charge_of
from ..round import Effects, Round
from ..settings import OversightSettings
from .step import Step

__all__ = ["FeesStep"]

log = logging.getLogger("fundops.oversight")


class FeesStep(Step):
    """Books the owed fees, after the commit of the record that lists them.

    A crash after the booking asks for the same keys and amounts again, which the ledger answers
    with the entries it has: a fee is charged neither twice nor never.
    """

    name: ClassVar[str] = "fees"

    @classmethod
    def serves(cls, settings: OversightSettings) -> bool:
        """Without a ledger fees are not booked."""
        return settings.ledger_enabled

    async def run(self, tick: Round) -> Effects:
        """Book those fees that the record on disk lists. Raises: `FundopsError`; they stay owed."""
        memory = tick.memory
        # Fees that this tick added wait for its commit; those of an earlier life do not wait for
        # them, since the ledger's totals may have them already.
        due = tuple(fee for fee in memory.owed if fee in tick.stored.owed)
        if not due or tick.suspect:  # the entry would have an instant of a wrong clock
            return Effects()
        for fee in due:
            try:
                await self.ports.ask("ledger", charge_of(fee))
            except IdempotencyConflict as booked:
                log.warning("session %s was charged before: %s", fee.session, booked)
        totals = await self.ports.ask("ledger", ReadTotals())
        left = tuple(fee for fee in memory.owed if fee not in due)
        return Effects(totals=totals, memory=replace(memory, owed=left))
