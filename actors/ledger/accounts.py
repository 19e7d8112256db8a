"""The chart of accounts, and the reports read off their balances.

A balance is debits minus credits, in minor units. A fund's own money is a debit of CASH; what came from outside is a
credit of EXTERNAL.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from ...wire.money import from_minor

__all__ = ["ACCOUNTS", "balance_sheet", "income_statement", "net_asset_value", "trial_balance"]

CASH = "CASH"
POSITIONS = "POSITIONS"
MARKS = "POSITIONS:MTM"
FEES_RECEIVABLE = "FEES_RECEIVABLE"
MANAGEMENT_FEES = "MANAGEMENT_FEES"
PERFORMANCE_FEES = "PERFORMANCE_FEES"
REALIZED_PNL = "REALIZED_PNL"
UNREALIZED_PNL = "UNREALIZED_PNL"
TRADING_FEES = "TRADING_FEES"
RETAINED = "RETAINED"
EXTERNAL = "EXTERNAL"

_ASSETS = (CASH, POSITIONS, FEES_RECEIVABLE)
_REVENUE = (MANAGEMENT_FEES, PERFORMANCE_FEES, REALIZED_PNL, UNREALIZED_PNL)
_ALWAYS = (*_ASSETS, *_REVENUE)
_ONCE_USED = (TRADING_FEES, RETAINED)

ACCOUNTS = frozenset((*_ALWAYS, *_ONCE_USED, MARKS, EXTERNAL))

Balances = Mapping[str, int]


def _rolled_up(balances: Balances) -> dict[str, int]:
    """Marks are part of what positions are worth."""
    totals = dict(balances)
    totals[POSITIONS] = totals.get(POSITIONS, 0) + totals.pop(MARKS, 0)
    return totals


def balance_sheet(balances: Balances) -> dict[str, Decimal]:
    """The seven accounts that always stand there, others once used, EXTERNAL never."""
    totals = _rolled_up(balances)
    shown = [*_ALWAYS, *(account for account in _ONCE_USED if account in totals)]
    return {account: from_minor(totals.get(account, 0)) for account in shown}


def income_statement(balances: Balances) -> dict[str, Decimal]:
    """Income positive, expense negative: the balances of the revenue accounts with their sign turned."""
    order = [REALIZED_PNL, UNREALIZED_PNL, MANAGEMENT_FEES, PERFORMANCE_FEES]
    order += [TRADING_FEES] if TRADING_FEES in balances else []
    return {account: from_minor(-balances.get(account, 0)) for account in order}


def trial_balance(balances: Balances) -> dict[str, Decimal]:
    """The balance sheet and EXTERNAL; the values sum to zero, or the book is broken."""
    return {**balance_sheet(balances), EXTERNAL: from_minor(balances.get(EXTERNAL, 0))}


def net_asset_value(balances: Balances) -> int:
    """Minor units of all assets, the (negative) receivable for fees included."""
    totals = _rolled_up(balances)
    return sum(totals.get(account, 0) for account in _ASSETS)
