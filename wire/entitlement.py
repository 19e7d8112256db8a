"""The capital that a stage gives to a strategy: its cap times the strategy's budget."""

from __future__ import annotations

from decimal import Decimal

from .money import fraction_of
from .promotion import EntitlementTerms

__all__ = ["capital_of"]


def capital_of(terms: EntitlementTerms, fund_capital_minor: int) -> Decimal:
    """The real capital that the strategy may use at most, in units of the currency.

    A strategy without a budget may use the fund's capital at full size. Rounded down once to a
    minor unit.
    """
    budget_minor = fund_capital_minor if terms.budget_minor is None else terms.budget_minor
    return fraction_of(budget_minor, terms.real_capital_fraction)
