"""The step `breaks`: the ledger's NAV is compared with the guard's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ....wire.alert import AlertDraft, Category, Level, resolved
from ....wire.controller import CanListFills, CanListSettlements
from ....wire.money import from_minor
from ..breaks import BreakWatch, is_break, unmarked_minor
from ..round import Effects, Round
from ..settings import OversightSettings
from .step import Ports, Step

__all__ = ["BreaksStep"]

_KEY = "break"


class BreaksStep(Step):
    """Compares the two NAVs, which rest on different reports.

    Without reports of fills or settlements the book lacks the engine's trades: the difference is
    shown, and is no fault. While an asset has no price there is none to compare.
    """

    name: ClassVar[str] = "breaks"
    tells: ClassVar[Mapping[str, Category]] = {_KEY: Category.GENERAL}

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports)
        self._watch = BreakWatch()
        self._told = _KEY in ports.told(_KEY)

    @classmethod
    def serves(cls, settings: OversightSettings) -> bool:
        """Without a ledger there is one NAV."""
        return settings.ledger_enabled

    @property
    def every(self) -> int:
        """As often as recovery looks for failures."""
        return self.ports.settings.recovery_every_ticks

    async def run(self, tick: Round) -> Effects:
        """One look at the difference."""
        totals = tick.totals
        if totals is None or totals.converted_minor is None:
            return Effects(gap_minor=None)
        unmarked = unmarked_minor(totals.positions, tick.statuses)
        # The book has moved on since the look, by the fees of this tick and by what people booked.
        earned = totals.earned_minor + totals.converted_minor
        flows = totals.external_minor + earned - totals.fees_minor
        expected = tick.gross_minor + flows - tick.flows_minor
        gap = totals.nav_minor + unmarked - expected
        host = self.ports.host
        if not (host.can(CanListFills) or host.can(CanListSettlements)):
            return Effects(gap_minor=gap)
        is_broken = is_break(gap, expected, self.ports.settings.break_tolerance)
        text = (
            f"ledger {from_minor(totals.nav_minor)}, with marks of {from_minor(unmarked)} still"
            f" to be booked; engine {from_minor(expected)}; difference {from_minor(gap)}"
        )
        return Effects(gap_minor=gap, alerts=self._judged(is_broken, text, tick.now_s))

    def _judged(self, is_broken: bool, text: str, now_s: float) -> tuple[AlertDraft, ...]:
        stands = self._watch.look(is_broken, now_s)
        if stands and not self._told:
            self._told = True
            title = "Ledger and engine disagree on NAV"
            return (AlertDraft(Level.CRITICAL, Category.GENERAL, title, text, None, _KEY),)
        if self._told and not is_broken:
            self._told = False
            return (resolved(Category.GENERAL, "Ledger and engine agree on NAV", _KEY),)
        return ()
