"""Reports of a book, from its file: as of any time, of one strategy or of all, in one asset.

`as_of`, `start` and `end` are included: an ISO date (UTC) to its end, an instant in microseconds; None: no bound. The
ledger actor and whoever only reads ask the same questions here.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from ...wire.errors import shown
from ...wire.ledger import Entry
from ...wire.money import from_minor
from ...wire.paging import COUNT_MAX, checked_limit
from ..persistence import Rows
from . import accounts, schema
from .core import NAME_MAX, BadField, check_text, is_day, is_instant
from .schema import Moment

__all__ = ["Reports"]


class Reports:
    """Answers about the book in `rows`, whose currency is `currency`.

    Raises: `BadField` for a time or a name that is none.
    """

    def __init__(self, rows: Rows, currency: str) -> None:
        self._rows = rows
        self._currency = currency

    def balance_sheet(
        self, as_of: Moment = None, strategy: str | None = None, asset: str | None = None
    ) -> dict[str, Decimal]:
        return accounts.balance_sheet(self._totals(as_of, strategy, asset))

    def trial_balance(
        self, as_of: Moment = None, strategy: str | None = None, asset: str | None = None
    ) -> dict[str, Decimal]:
        return accounts.trial_balance(self._totals(as_of, strategy, asset))

    def nav(self, as_of: Moment = None, strategy: str | None = None) -> Decimal:
        return from_minor(accounts.net_asset_value(self._totals(as_of, strategy, None)))

    def nav_per_unit(self, as_of: Moment = None) -> Decimal:
        balances = schema.balances_as_of(self._rows, _moment("as_of", as_of))
        worth = accounts.net_asset_value(accounts.in_asset(balances, self._currency))
        return accounts.nav_per_unit(worth, accounts.units_in_issue(balances))

    def _totals(self, as_of: Moment, strategy: str | None, asset: str | None) -> Mapping[str, int]:
        as_of, strategy = _moment("as_of", as_of), _name("strategy", strategy)
        return schema.totals_as_of(self._rows, as_of, strategy, _name("asset", asset) or self._currency)

    def income_statement(
        self, start: Moment = None, end: Moment = None, strategy: str | None = None, asset: str | None = None
    ) -> dict[str, Decimal]:
        start, end, strategy = _moment("start", start), _moment("end", end), _name("strategy", strategy)
        asset = _name("asset", asset) or self._currency
        return accounts.income_statement(schema.income_between(self._rows, start, end, strategy, asset))

    def cash_flow(self, start: Moment = None, end: Moment = None, strategy: str | None = None) -> dict[str, Decimal]:
        start, end, strategy = _moment("start", start), _moment("end", end), _name("strategy", strategy)
        return accounts.cash_flow(*schema.cash_flows(self._rows, start, end, strategy, self._currency))

    def recent_entries(self, limit: int = 20) -> tuple[Entry, ...]:
        """Newest first."""
        return self.entries(limit=limit)

    def entries(
        self,
        account: str | None = None,
        strategy: str | None = None,
        kind: str | None = None,
        after_seq: int | None = None,
        limit: int = 100,
    ) -> tuple[Entry, ...]:
        """One page, newest first, of those before entry `after_seq`."""
        account, strategy, kind = _name("account", account), _name("strategy", strategy), _name("kind", kind)
        if after_seq is not None and (type(after_seq) is not int or abs(after_seq) > COUNT_MAX):
            raise BadField("after_seq", f"{shown(after_seq)} is not the number of an entry")
        return schema.entries(self._rows, account, strategy, kind, after_seq, checked_limit(limit))


def _moment(field: str, moment: Moment) -> Moment:
    if moment is None or is_day(moment) or is_instant(moment):
        return moment
    raise BadField(
        field, f"{shown(moment)} is neither a date as YYYY-MM-DD nor an instant of 1970 to 9999, in microseconds"
    )


def _name(field: str, name: str | None) -> str | None:
    if name is not None:
        check_text(field, name, NAME_MAX)
    return name
