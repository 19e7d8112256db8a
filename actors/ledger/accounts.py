"""The chart of accounts, and the reports read off their balances.

A balance is debits minus credits, in minor units. A fund's own money is a debit of CASH; what came from outside is a
credit of EXTERNAL. Shares in the fund are an asset of their own: units are issued as a credit of UNITS and held by
HOLDERS.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from ...wire.money import MINOR_MAX, MINOR_PER_UNIT, from_minor, share

__all__ = [
    "ACCOUNTS",
    "REVENUE",
    "balance_sheet",
    "cash_flow",
    "in_asset",
    "income_statement",
    "nav_per_unit",
    "net_asset_value",
    "trial_balance",
    "units_bought",
    "units_in_issue",
    "units_redeemed",
]

CASH = "CASH"
POSITIONS = "POSITIONS"
MARKS = "POSITIONS:MTM"
FEES_RECEIVABLE = "FEES_RECEIVABLE"
MANAGEMENT_FEES = "MANAGEMENT_FEES"
PERFORMANCE_FEES = "PERFORMANCE_FEES"
REALIZED_PNL = "REALIZED_PNL"
UNREALIZED_PNL = "UNREALIZED_PNL"
TRADING_FEES = "TRADING_FEES"
INCOME = "INCOME"
FINANCING = "FINANCING"
RETAINED = "RETAINED"
EXTERNAL = "EXTERNAL"
UNITS = "UNITS"  # the account, and the asset
HOLDERS = "HOLDERS"

_ASSETS = (CASH, POSITIONS, FEES_RECEIVABLE)
_REVENUE_ALWAYS = (MANAGEMENT_FEES, PERFORMANCE_FEES, REALIZED_PNL, UNREALIZED_PNL)
_REVENUE_ONCE_USED = (TRADING_FEES, INCOME, FINANCING)
_ALWAYS = (*_ASSETS, *_REVENUE_ALWAYS)
_ONCE_USED = (*_REVENUE_ONCE_USED, RETAINED, HOLDERS, UNITS)

# What a period's close takes into RETAINED.
REVENUE = frozenset((*_REVENUE_ALWAYS, *_REVENUE_ONCE_USED))

ACCOUNTS = frozenset((*_ALWAYS, *_ONCE_USED, MARKS, EXTERNAL))

# What a fund's worth is made of.
WORTH = (*_ASSETS, MARKS)

Balances = Mapping[str, int]


def in_asset(
    balances: Mapping[tuple[str, str | None, str], int], asset: str, strategy: str | None = None
) -> dict[str, int]:
    """By account, of one strategy or of all; `balances` are by account, strategy and asset."""
    totals: dict[str, int] = {}
    for (account, owner, unit), amount in balances.items():
        if unit == asset and strategy in (None, owner):
            totals[account] = totals.get(account, 0) + amount
    return totals


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
    order += [account for account in _REVENUE_ONCE_USED if account in balances]
    return {account: from_minor(-balances.get(account, 0)) for account in order}


def trial_balance(balances: Balances) -> dict[str, Decimal]:
    """The balance sheet and EXTERNAL; the values sum to zero, or the book is broken."""
    return {**balance_sheet(balances), EXTERNAL: from_minor(balances.get(EXTERNAL, 0))}


def net_asset_value(balances: Balances) -> int:
    """Minor units of all assets, the (negative) receivable for fees included."""
    return sum(balances.get(account, 0) for account in WORTH)


def units_in_issue(balances: Mapping[tuple[str, str | None, str], int]) -> int:
    """Of balances by account, strategy and asset."""
    return -in_asset(balances, UNITS).get(UNITS, 0)


def nav_per_unit(nav_minor: int, units: int) -> Decimal:
    """What a unit is worth, half-even; 1 while there is none, which is what the first one costs."""
    return from_minor(share(nav_minor, MINOR_PER_UNIT, units) if units > 0 else MINOR_PER_UNIT)


def units_bought(amount: int, nav_minor: int, units: int) -> int:
    """How many units an amount buys at what one is worth, half-even.

    At 1 where that is no price: none is in issue, the fund is worth nothing, or so little that the new ones could not
    be counted. Money that has come must be booked, whatever the fund is worth.
    """
    bought = share(amount, units, nav_minor) if units > 0 and nav_minor > 0 else amount
    room = MINOR_MAX - units
    return bought if bought <= room else min(amount, room)


def units_redeemed(amount: int, nav_minor: int, units: int) -> int:
    """How many units an amount takes back, half-even; never more than there are.

    Cash may exceed what the fund is worth, which owes its fees.
    """
    worth = share(amount, units, nav_minor) if nav_minor > 0 else amount
    return min(worth, max(0, units))


_CASH_FLOWS = {
    "deposit": "DEPOSITS",
    "withdrawal": "WITHDRAWALS",
    "profit": "PROFIT_AND_LOSS",
    "loss": "PROFIT_AND_LOSS",
    "market_settlement": "PROFIT_AND_LOSS",
    "open_position": "TRADING",
    "close_position": "TRADING",
    "settlement": "TRADING",
    "fill": "TRADING",
    "fee_payment": "FEES_PAID",
    "income": "INCOME",
    "financing": "FINANCING",
}


def cash_flow(opening: int, by_kind: Mapping[str, int]) -> dict[str, Decimal]:
    """What moved CASH, by what it was for; a reversal counts for what it reverses. OPENING plus NET is CLOSING."""
    flows = dict.fromkeys([*dict.fromkeys(_CASH_FLOWS.values()), "OTHER"], 0)
    for kind, amount in by_kind.items():
        flows[_CASH_FLOWS.get(kind, "OTHER")] += amount
    net = sum(flows.values())
    lines = {"OPENING": opening, **flows, "NET": net, "CLOSING": opening + net}
    return {line: from_minor(amount) for line, amount in lines.items()}
