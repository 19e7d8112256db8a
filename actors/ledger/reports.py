"""Reports of a book, from its file: as of any time, of one strategy or of all, in one asset.

`as_of`, `start` and `end` are included: an ISO date (UTC) to its end, an instant in microseconds; None: no bound. The
ledger actor and whoever only reads ask the same questions here.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from ...wire.ledger import Entry
from ...wire.money import from_minor
from ...wire.paging import checked_limit
from ..persistence import Rows
from . import accounts, schema
from .core import BadField, is_day
from .schema import Moment

__all__ = ["Reports"]


class Reports:
    """Answers about the book in `rows`, whose currency is `currency`. Raises: `BadField` for a time that is none."""

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
        balances = schema.balances_as_of(self._rows, _checked("as_of", as_of))
        worth = accounts.net_asset_value(accounts.in_asset(balances, self._currency))
        return accounts.nav_per_unit(worth, accounts.units_in_issue(accounts.in_asset(balances, accounts.UNITS)))

    def _totals(self, as_of: Moment, strategy: str | None, asset: str | None) -> Mapping[str, int]:
        return schema.totals_as_of(self._rows, _checked("as_of", as_of), strategy, asset or self._currency)

    def income_statement(
        self, start: Moment = None, end: Moment = None, strategy: str | None = None, asset: str | None = None
    ) -> dict[str, Decimal]:
        start, end = _checked("start", start), _checked("end", end)
        return accounts.income_statement(
            schema.income_between(self._rows, start, end, strategy, asset or self._currency)
        )

    def cash_flow(self, start: Moment = None, end: Moment = None, strategy: str | None = None) -> dict[str, Decimal]:
        start, end = _checked("start", start), _checked("end", end)
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
        return schema.entries(self._rows, account, strategy, kind, after_seq, checked_limit(limit))


def _checked(field: str, moment: Moment) -> Moment:
    if moment is None or is_day(moment) or (isinstance(moment, int) and not isinstance(moment, bool)):
        return moment
    raise BadField(field, f"{moment!r} is neither a date as YYYY-MM-DD nor an instant in microseconds")
