"""The fund's P&L without a strategy, and the newest deposits and withdrawals with the P&L that was
booked before each. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final, NamedTuple, Protocol

from ...wire.ledger import ExternalFlow, Reverse
from .accounts import CONVERSIONS, EXTERNAL, FEES, REVENUE, WORTH, worth_at
from .entry import BalanceKey, Posting, kind_of

__all__ = [
    "EARNED",
    "FLOWS_KEPT",
    "Moved",
    "Priced",
    "converted_by_fund",
    "earned_by_fund",
    "flow_among",
    "flows_of",
    "others_worth",
]

# A reader that comes after more of them sees the older ones as one sum.
FLOWS_KEPT: Final = 100
# The accounts of the fund's own P&L, without its fees.
EARNED: Final = REVENUE - FEES
REVERSAL: Final = kind_of(Reverse)


class Priced(Protocol):
    """The last price of an asset."""

    @property
    def value(self) -> Decimal:
        """Of one unit, in the fund's currency."""
        ...


class Balanced(Protocol):
    """A book, or a draft on one."""

    currency: str
    closed: dict[BalanceKey, int]
    worths: dict[str, int]

    @property
    def prices(self) -> Mapping[str, Priced]:
        """By asset other than the currency."""
        ...

    def balance(self, key: BalanceKey) -> int:
        """Debits minus credits, in minor units."""
        ...


def earned_by_fund(book: Balanced) -> int:
    """The fund's P&L without a strategy since the book began, closed periods included.

    Without fees and other assets. Opening balances in RETAINED were earned before and do not count.
    """
    keys = [(account, None, book.currency) for account in EARNED]
    return -sum(book.balance(key) + book.closed.get(key, 0) for key in keys)


def converted_by_fund(book: Balanced) -> int | None:
    """The gain of other assets that belong to no strategy, over the currency paid for them.

    None while one of those that were converted has no price: it would count as lost.
    """
    held: dict[str, int] = {}
    for asset in book.worths:
        held[asset] = sum(book.balance((account, None, asset)) for account in WORTH)
        converted = book.balance((CONVERSIONS, None, asset))
        if held[asset] and converted and asset not in book.prices:
            return None
    paid = book.balance((CONVERSIONS, None, book.currency))
    return others_worth(held, book.prices) - paid


def others_worth(worths: Mapping[str, int], prices: Mapping[str, Priced]) -> int:
    """The worth of other assets in the fund's currency; those without a price count for nothing."""
    return worth_at(worths, {asset: price.value for asset, price in prices.items()})


def flow_among(
    legs: Iterable[Posting], seq: int, kind: str, before: Balanced
) -> ExternalFlow | None:
    """The flow among the legs of entry `seq`, which `before` does not have yet; None: no flow."""
    amount = _paid_in(legs, before.currency)
    if not amount:
        return None
    earned, converted = earned_by_fund(before), converted_by_fund(before)
    return ExternalFlow(seq, amount, earned, converted, kind == REVERSAL)


class Moved(NamedTuple):
    """The part of a stored entry that is of interest here."""

    seq: int
    kind: str
    legs: list[Posting]


def flows_of(newest_first: Iterable[Moved], after: Balanced) -> tuple[ExternalFlow, ...]:
    """The flows among the entries that led to `after`, oldest first.

    A file does not say what other assets had gained by then, so it is taken as of now.
    """
    found: list[ExternalFlow] = []
    earned, converted = earned_by_fund(after), converted_by_fund(after)
    for seq, kind, legs in newest_first:
        if len(found) == FLOWS_KEPT:
            break
        if not kind.startswith("period_"):  # a close moves P&L that was booked before
            earned += sum(
                amount
                for account, strategy, asset, amount in legs
                if account in EARNED and strategy is None and asset == after.currency
            )
        amount = _paid_in(legs, after.currency)
        if amount:
            found.append(ExternalFlow(seq, amount, earned, converted, kind == REVERSAL))
    return tuple(reversed(found))


def _paid_in(legs: Iterable[Posting], currency: str) -> int:
    return -sum(
        amount for account, _, asset, amount in legs if account == EXTERNAL and asset == currency
    )
