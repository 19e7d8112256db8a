"""The fund's P&L by its sources. Pure; it adds up to the change of NAV that is no flow."""

from __future__ import annotations

from collections.abc import Mapping

from ...wire.money import from_minor
from ...wire.oversight import PnlAttribution, StrategyPnl
from .schema import Memory

__all__ = ["attribution"]


def attribution(memory: Memory, trading_fees: Mapping[str, int]) -> PnlAttribution:
    """The P&L of each strategy ever reported; `trading_fees` in minor units, by strategy."""
    books = memory.guard.strategies
    other = memory.earned_minor + memory.converted_minor
    real = sum(book.real_pnl_minor for book in books.values())
    return PnlAttribution(
        strategies=tuple(
            StrategyPnl(
                name,
                pnl=from_minor(book.real_pnl_minor),
                fees=from_minor(trading_fees.get(name, 0)),
                hypothetical_pnl=from_minor(book.pnl_minor - book.real_pnl_minor),
            )
            for name, book in sorted(books.items())
        ),
        other=from_minor(other),
        fund_fees=from_minor(memory.fees_minor),
        total=from_minor(real + other - memory.fees_minor),
    )
