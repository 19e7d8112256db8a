"""The step `risk`, when a session has ended: correlated strategies and value at risk are told."""

from __future__ import annotations

from typing import ClassVar

from ....runtime import in_pieces
from ....wire.alert import AlertDraft, Category, Level, resolved
from ....wire.money import from_minor, to_minor
from .. import schema
from ..risk import Pair, Series, value_at_risk, worst_pair
from ..round import Effects, Round
from .step import Ports, Step

__all__ = ["RiskStep"]

_CORRELATION, _VAR = "corr", "var"  # dedup keys


class RiskStep(Step):
    """Keeps the P&L of the last sessions, and compares it with the limits.

    A session whose figures are not known leaves no sample.
    """

    name: ClassVar[str] = "risk"

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports)
        self._series = Series()
        for totals in schema.session_totals(ports.rows):
            self._series.add(totals.fund_minor, totals.strategies)
        self._told = {key: key in ports.told(key) for key in (_CORRELATION, _VAR)}

    def is_due(self, tick: Round) -> bool:
        """Whether a session ends with the figures of this tick."""
        return tick.is_heard and any(not end.missed for end in tick.due)

    async def run(self, tick: Round) -> Effects:
        """Take the sample of the session, and tell each figure above its limit."""
        guard, settings = tick.memory.guard, self.ports.settings
        session = next(end.session for end in reversed(tick.due) if not end.missed)
        fund = guard.nav_minor - guard.external_minor
        strategies = {
            name: book.real_pnl_minor for name, book in guard.strategies.items() if book.real
        }
        self._series.add(fund, strategies)
        pair = await in_pieces(worst_pair(self._series.strategies, settings.max_correlation))
        alerts = (*self._correlated(pair), *self._var(value_at_risk(self._series.fund)))
        totals = schema.SessionTotals(fund, strategies)
        return Effects(alerts=alerts, lines=schema.session_line(session, totals))

    def _correlated(self, pair: Pair | None) -> tuple[AlertDraft, ...]:
        limit = self.ports.settings.max_correlation
        text = ""
        if pair is not None:
            text = (
                f"{pair.first} and {pair.second}: {pair.correlation:.2f}, limit {limit:g};"
                " the worst pair of strategies with real money"
            )
        return self._edge(
            _CORRELATION,
            AlertDraft(
                Level.WARNING,
                Category.CORRELATION,
                "Strategies move together",
                text,
                None,
                _CORRELATION,
            ),
            "No two strategies move together",
            is_above=pair is not None,
        )

    def _var(self, var_minor: int | None) -> tuple[AlertDraft, ...]:
        budget = self.ports.settings.var_budget
        if budget is None:
            var_minor = None
        above = var_minor is not None and var_minor > to_minor(budget or 0).minor
        text = (
            f"{from_minor(var_minor or 0):,.2f} in a session, budget {budget or 0:,.2f}:"
            " historical, 95%"
        )
        title = "Value at risk above its budget"
        return self._edge(
            _VAR,
            AlertDraft(Level.WARNING, Category.RISK_LIMIT, title, text, None, _VAR),
            "Value at risk within its budget",
            is_above=above,
        )

    def _edge(
        self, key: str, alert: AlertDraft, end: str, *, is_above: bool
    ) -> tuple[AlertDraft, ...]:
        """The alert or its end when that changed."""
        if is_above == self._told[key]:
            return ()
        self._told[key] = is_above
        return (alert,) if is_above else (resolved(alert.category, end, key),)
