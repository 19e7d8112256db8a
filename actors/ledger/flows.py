"""The newest deposits and withdrawals, each with the P&L that was booked before it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from ...wire.ledger import ExternalFlow
from .accounts import EXTERNAL, FEES, REVENUE
from .entry import Posting

__all__ = ["EARNED", "FLOWS_KEPT", "Moved", "flows_of"]

# A reader that comes after more of them sees the older ones as one sum.
FLOWS_KEPT: Final = 100
# The accounts of the fund's own P&L, without its fees.
EARNED: Final = REVENUE - FEES


class Moved(NamedTuple):
    """The part of an entry that is of interest here."""

    seq: int
    kind: str
    legs: Iterable[Posting]


def flows_of(
    newest_first: Iterable[Moved], currency: str, earned_minor: int
) -> tuple[ExternalFlow, ...]:
    """The flows among these entries, oldest first. `earned_minor` is the P&L without a strategy
    after the newest entry.
    """
    found: list[ExternalFlow] = []
    for seq, kind, legs in newest_first:
        if len(found) == FLOWS_KEPT:
            break
        paid_in = 0
        for account, strategy, asset, amount in legs:
            if asset != currency:
                continue
            if account == EXTERNAL:
                paid_in -= amount
            elif account in EARNED and strategy is None and not kind.startswith("period_"):
                earned_minor += amount  # a profit is a credit, which is negative
        if paid_in:
            found.append(ExternalFlow(seq, paid_in, earned_minor))
    return tuple(reversed(found))
