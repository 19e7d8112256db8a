"""The capital that a stage gives to a strategy: its cap times the strategy's budget."""

from __future__ import annotations

from decimal import Decimal

from .money import from_minor, part_minor
from .promotion import EntitlementTerms

__all__ = ["capital_minor_of", "capital_of"]


def capital_of(terms: EntitlementTerms, fund_capital_minor: int) -> Decimal:
    """The real capital that the strategy may use at most, in units of the currency."""
    return from_minor(capital_minor_of(terms, fund_capital_minor))


def capital_minor_of(terms: EntitlementTerms, fund_capital_minor: int) -> int:
    """The real capital that the strategy may use at most, in minor units.

    A strategy without a budget may use the fund's capital at full size. Rounded down once to a
    minor unit.
    """
    budget_minor = fund_capital_minor if terms.budget_minor is None else terms.budget_minor
    return part_minor(budget_minor, terms.real_capital_fraction)
