"""The chart of accounts, and the reports computed from their balances.

A balance is debits minus credits, in minor units (1e-8). Money in the fund is a debit of CASH;
money from outside is a credit of EXTERNAL. Shares in the fund are a separate asset, UNITS: issued
as a credit of the account UNITS, and held as a debit of HOLDERS.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from ...wire.money import MINOR_MAX, MINOR_PER_UNIT, from_minor, share

__all__ = [
    "ACCOUNTS",
    "FEES",
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
    "units_of_flow",
    "units_redeemed",
    "worth_at",
    "worth_by_asset",
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
CONVERSIONS = "CONVERSIONS"  # against it, cash of one asset becomes cash of another
EXTERNAL = "EXTERNAL"
UNITS = "UNITS"  # the account, and the asset
HOLDERS = "HOLDERS"

_ASSETS = (CASH, POSITIONS, FEES_RECEIVABLE)
_REVENUE_ALWAYS = (MANAGEMENT_FEES, PERFORMANCE_FEES, REALIZED_PNL, UNREALIZED_PNL)
_REVENUE_ONCE_USED = (TRADING_FEES, INCOME, FINANCING)
_ALWAYS = (*_ASSETS, *_REVENUE_ALWAYS)
_ONCE_USED = (*_REVENUE_ONCE_USED, RETAINED, CONVERSIONS, HOLDERS, UNITS)

# The accounts that a period close moves into RETAINED.
REVENUE = frozenset((*_REVENUE_ALWAYS, *_REVENUE_ONCE_USED))
# Those of them with the fund's own fees.
FEES = frozenset((MANAGEMENT_FEES, PERFORMANCE_FEES))

ACCOUNTS = frozenset((*_ALWAYS, *_ONCE_USED, MARKS, EXTERNAL))

# The accounts whose sum is the net asset value.
WORTH = (*_ASSETS, MARKS)

Balances = Mapping[str, int]


def in_asset(
    balances: Mapping[tuple[str, str | None, str], int], asset: str, strategy: str | None = None
) -> dict[str, int]:
    """The balances in one asset by account, of one strategy or of all."""
    totals: dict[str, int] = {}
    for (account, owner, unit), amount in balances.items():
        if unit == asset and strategy in (None, owner):
            totals[account] = totals.get(account, 0) + amount
    return totals


def _rolled_up(balances: Balances) -> dict[str, int]:
    """Balances with the marks added to POSITIONS."""
    totals = dict(balances)
    totals[POSITIONS] = totals.get(POSITIONS, 0) + totals.pop(MARKS, 0)
    return totals


def balance_sheet(balances: Balances) -> dict[str, Decimal]:
    """Balances by account, without EXTERNAL.

    Seven accounts are always there, others once they are used.
    """
    totals = _rolled_up(balances)
    lines = [*_ALWAYS, *(account for account in _ONCE_USED if account in totals)]
    return {account: from_minor(totals.get(account, 0)) for account in lines}


def income_statement(balances: Balances) -> dict[str, Decimal]:
    """Income positive, expense negative, by revenue account.

    These are the balances of the revenue accounts with the opposite sign.
    """
    order = [REALIZED_PNL, UNREALIZED_PNL, MANAGEMENT_FEES, PERFORMANCE_FEES]
    order += [account for account in _REVENUE_ONCE_USED if account in balances]
    return {account: from_minor(-balances.get(account, 0)) for account in order}


def trial_balance(balances: Balances) -> dict[str, Decimal]:
    """The balance sheet and EXTERNAL; in a sound book the values sum to zero."""
    return {**balance_sheet(balances), EXTERNAL: from_minor(balances.get(EXTERNAL, 0))}


def net_asset_value(balances: Balances) -> int:
    """Minor units of all assets, including the (negative) receivable for fees."""
    return sum(balances.get(account, 0) for account in WORTH)


def worth_by_asset(
    balances: Mapping[tuple[str, str | None, str], int], currency: str, strategy: str | None = None
) -> dict[str, int]:
    """The fund's, or one strategy's, amount of each other asset, in minor units of that asset."""
    worth: dict[str, int] = {}
    for (account, owner, asset), amount in balances.items():
        if account in WORTH and asset not in (currency, UNITS) and strategy in (None, owner):
            worth[asset] = worth.get(asset, 0) + amount
    return worth


def worth_at(worth: Balances, prices: Mapping[str, Decimal]) -> int:
    """Amounts of other assets at their prices, in minor units of the fund's currency.

    Each product is rounded once, half-even. An asset without a price is not counted.
    """
    return sum(
        share(amount, *prices[asset].as_integer_ratio())
        for asset, amount in worth.items()
        if asset in prices
    )


def units_in_issue(balances: Mapping[tuple[str, str | None, str], int]) -> int:
    """Units held by all holders, in minor units of UNITS."""
    return -in_asset(balances, UNITS).get(UNITS, 0)


def nav_per_unit(nav_minor: int, units: int) -> Decimal:
    """Net asset value per unit, rounded half-even; 1, the price of the first one, without units."""
    return from_minor(share(nav_minor, MINOR_PER_UNIT, units) if units > 0 else MINOR_PER_UNIT)


def units_bought(amount: int, nav_minor: int, units: int) -> int:
    """The units that an amount buys at the NAV per unit, rounded half-even.

    The price is 1 when there is no usable one: no unit is in issue, the fund is worth nothing, or
    so little that the new units would exceed an integer. A deposit that has arrived must be
    bookable at any value of the fund.
    """
    bought = share(amount, units, nav_minor) if units > 0 and nav_minor > 0 else amount
    room = MINOR_MAX - units
    return bought if bought <= room else min(amount, room)


def units_redeemed(amount: int, nav_minor: int, units: int) -> int:
    """The units that an amount redeems at the NAV per unit, rounded half-even; at most all units.

    A withdrawal may exceed the fund's value, since the fund owes fees that are still in its cash.
    """
    redeemed = share(amount, units, nav_minor) if nav_minor > 0 else amount
    return min(redeemed, max(0, units))


def units_of_flow(amount: int, nav_minor: int, units: int) -> int:
    """The units that a deposit of `amount` issues; negative: that a withdrawal redeems."""
    if amount >= 0:
        return units_bought(amount, nav_minor, units)
    return -units_redeemed(-amount, nav_minor, units)


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
    "split": "TRADING",
    "transfer": "TRADING",
    "conversion": "TRADING",
    "fee_payment": "FEES_PAID",
    "income": "INCOME",
    "financing": "FINANCING",
}


def cash_flow(opening: int, by_kind: Mapping[str, int]) -> dict[str, Decimal]:
    """The changes of CASH by purpose, in the order of the report; OPENING plus NET is CLOSING.

    `by_kind` has the change per kind of entry, a reversal under the kind of the entry it reverses.
    """
    flows = dict.fromkeys([*dict.fromkeys(_CASH_FLOWS.values()), "OTHER"], 0)
    for kind, amount in by_kind.items():
        flows[_CASH_FLOWS.get(kind, "OTHER")] += amount
    net = sum(flows.values())
    lines = {"OPENING": opening, **flows, "NET": net, "CLOSING": opening + net}
    return {line: from_minor(amount) for line, amount in lines.items()}
