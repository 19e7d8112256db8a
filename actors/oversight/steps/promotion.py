"""The steps of promotion: its look at each tick, and its sample of each session that has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from ....runtime import FundopsError
from ....wire.alert import AlertDraft, Category, Level
from ....wire.controller import StrategyStatus
from ....wire.entitlement import capital_of
from ....wire.guard import ChangeGrants
from ....wire.promotion import EntitlementTerms, Observe
from ...calendar import NAMED_PERIODS_PER_YEAR, calendar_of
from .. import closing
from ..round import Effects, Round, applied, durable_endings, figures_of, joined
from ..settings import OversightSettings
from .step import Step

__all__ = ["PromotionStep", "SampleStep"]


class _Observing(Step):
    """A step that has promotion look."""

    @classmethod
    def serves(cls, settings: OversightSettings) -> bool:
        """Without promotion all strategies are real."""
        return settings.promotion_enabled

    async def observe(
        self,
        tick: Round,
        statuses: Sequence[StrategyStatus],
        session: str | None,
        *,
        evaluate: bool,
        ended_us: int | None = None,
    ) -> Effects:
        """The transitions of one look, with permissions by the terms after it."""
        ports = self.ports
        calendar = calendar_of(ports.settings.session)
        named = tick.memory.named
        observed = await ports.ask(
            "promotion",
            Observe(
                statuses,
                session,
                evaluate and not tick.suspect,
                NAMED_PERIODS_PER_YEAR if named else calendar.periods_per_year,
                act=ports.settings.mode == "act",
                ended_us=ended_us,
            ),
        )
        before, terms = tick.terms or {}, observed.terms
        found = Effects(
            terms=terms,
            transitions=observed.transitions,
            alerts=_rebalanced(before, terms, ports.capital_minor),
        )
        if before != terms and not tick.blind_s:
            try:
                await ports.ask("guard", ChangeGrants(tick.statuses, terms, tick.heard.lapsed))
            except FundopsError as fault:
                return joined(found, Effects(fault=fault))
        return found


class PromotionStep(_Observing):
    """Has promotion demote at each tick, and evaluate the gates every few ticks."""

    name: ClassVar[str] = "promotion"

    async def run(self, tick: Round) -> Effects:
        """One look. Raises: `FundopsError`."""
        evaluate = tick.number % self.ports.settings.promotion_every_ticks == 0
        statuses = tick.statuses if tick.is_heard else ()
        return await self.observe(tick, statuses, None, evaluate=evaluate)


class SampleStep(_Observing):
    """Gives promotion the sample of each session, in order, until it has taken it."""

    name: ClassVar[str] = "sample"

    async def run(self, tick: Round) -> Effects:
        """The samples that are due; a fault ends them, and the rest waits for the next tick."""
        found = Effects()
        for ending in durable_endings(tick):
            if not ending.sample:
                continue
            figures = figures_of(tick, ending)
            evaluate = not ending.missed and bool(figures)
            try:
                taken = await self.observe(
                    tick,
                    figures,
                    ending.session,
                    evaluate=evaluate,
                    ended_us=None if tick.memory.named else ending.at_us,
                )
            except FundopsError as fault:
                return joined(found, Effects(fault=fault))
            memory = closing.taken(tick.memory, ending.session, "sample")
            taken = joined(taken, Effects(memory=memory))
            found, tick = joined(found, taken), applied(tick, taken)
        return found


def _rebalanced(
    before: Mapping[str, EntitlementTerms], after: Mapping[str, EntitlementTerms], capital: int
) -> tuple[AlertDraft, ...]:
    """Tell each change of the capital that a strategy is entitled to."""
    alerts = []
    for name, terms in after.items():
        known = before.get(name)
        if known is not None and known.real_capital_fraction != terms.real_capital_fraction:
            old, new = capital_of(known, capital), capital_of(terms, capital)
            text = f"capital entitlement from {old:,.2f} to {new:,.2f}"
            alerts.append(
                AlertDraft(Level.INFO, Category.REBALANCE, f"{name} rebalanced", text, name)
            )
    return tuple(alerts)
