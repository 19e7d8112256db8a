"""The step `guard`: NAV and drawdowns are judged, and leases renewed."""

from __future__ import annotations

from typing import ClassVar

from msgspec.structs import replace

from ....wire.alert import AlertDraft, Category, Level, resolved
from ....wire.errors import AmountError
from ....wire.guard import GuardReport, PricedFlow, Watch
from ....wire.ledger import ExternalFlow, LedgerTotals
from ....wire.money import from_minor
from .. import closing, fees
from ..round import Effects, Round
from ..schema import Memory
from .step import Ports, Step
from .totals import UNPRICED

__all__ = ["GuardStep"]


class GuardStep(Step):
    """Has the guard look. Without it the leases run out, so a person is woken at once."""

    name: ClassVar[str] = "guard"
    level: ClassVar[Level] = Level.CRITICAL
    repeat_s: ClassVar[float | None] = 60.0

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports)
        self._unpriced_told = UNPRICED in ports.told(UNPRICED)

    async def run(self, tick: Round) -> Effects:
        """One look. Raises: `ActorError`."""
        memory, totals, settings = tick.memory, tick.totals, self.ports.settings
        external = self._external_minor(tick)
        flows: tuple[PricedFlow, ...] = ()
        alerts: tuple[AlertDraft, ...] = ()
        if totals is not None:
            memory = closing.with_earned(memory, totals)
            memory, flows = closing.with_flows(
                memory,
                settings,
                [_with_conversions(flow, memory) for flow in totals.flows],
                external_minor=external,
                seq=totals.entries,
                now_us=tick.now_us,
            )
            memory = closing.with_fees(memory, totals)
            alerts = self._unpriced(totals)
        earned = closing.earned_minor(memory)
        posted = memory.fees.posted_minor + memory.by_hand_minor
        report = await self.ports.ask(
            "guard",
            Watch(
                tick.statuses,
                tick.terms,
                external,
                posted,
                memory.fees.management_minor,
                blind_s=tick.blind_s,
                fees=fees.terms(memory.fees, settings.fees),
                doubts=tick.heard.lapsed,
                session=memory.session,
                listed=tick.heard.listed,
                earned_minor=earned,
                flows=flows,
                seq=None if totals is None else totals.entries,
                said=tick.heard.said,
                opening_nav_minor=memory.opening_minor,
            ),
        )
        seen = Effects(pauses=report.pauses, alerts=(*alerts, *report.alerts))
        if report.problem:
            # NAV stands; the memory of the fees stands with it.
            fault = AmountError("nav", from_minor(report.gross_minor), report.problem)
            return replace(seen, memory=replace(tick.memory, guard=report.state), fault=fault)
        return replace(
            seen,
            memory=self._looked(memory, report, tick),
            gross_minor=report.gross_minor,
            flows_minor=external + earned - posted,
        )

    def _looked(self, memory: Memory, report: GuardReport, tick: Round) -> Memory:
        fee = replace(memory.fees, performance_minor=report.performance_minor)
        if not fee.at_us and not tick.suspect:
            fee = fees.accrue(fee, self.ports.settings.fees, tick.now_us, nav_minor=0)
        opening = report.state.nav_minor if memory.opening_minor is None else memory.opening_minor
        return replace(memory, fees=fee, guard=report.state, opening_minor=opening)

    def _external_minor(self, tick: Round) -> int:
        """Deposits less withdrawals; while the ledger is silent, those of the last look."""
        if tick.totals is not None:
            return tick.totals.external_minor
        guard = tick.memory.guard
        known = self.ports.settings.ledger_enabled and bool(guard.units)
        return guard.external_minor if known else self.ports.capital_minor

    def _unpriced(self, totals: LedgerTotals) -> tuple[AlertDraft, ...]:
        """Tell once that an asset has no price."""
        unpriced, told = totals.converted_minor is None, self._unpriced_told
        self._unpriced_told = unpriced
        if unpriced and not told:
            names = ", ".join(totals.unpriced)
            text = (
                f"{names}: the ledger's NAV does not count them, the guard's keeps the last known"
                " value of other assets, and the two are not compared until"
                " ledger.price(asset, value)"
            )
            title = "Assets without a price"
            return (AlertDraft(Level.WARNING, Category.GENERAL, title, text, None, UNPRICED),)
        if told and not unpriced:
            return (resolved(Category.GENERAL, "All assets have a price", UNPRICED),)
        return ()


def _with_conversions(flow: ExternalFlow, memory: Memory) -> ExternalFlow:
    """The flow with the P&L before it as the guard counts it, which has that of other assets."""
    converted = flow.converted_minor
    earned = flow.earned_minor + (memory.converted_minor if converted is None else converted)
    return replace(flow, earned_minor=earned, converted_minor=0)
