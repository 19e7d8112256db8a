"""Reports read from the file of a book: as of any time, of one strategy or of all, in one asset.

`as_of`, `start` and `end` are inclusive: an ISO date (UTC) counts to its end, an instant is in
microseconds since the epoch, None means no bound. The ledger actor and read-only readers both use
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from ...runtime import shown
from ...wire.errors import BadField
from ...wire.ledger import Entry
from ...wire.money import from_minor
from ...wire.paging import COUNT_MAX, checked_limit
from ..persistence import Rows
from . import accounts, schema
from .fields import NAME_MAX, check_text, is_day, is_instant
from .schema import Moment

__all__ = ["Reports"]


class Reports:
    """Answers about the book in `rows`; `asset` None means the fund's `currency`.

    Raises: `BadField` for a malformed time or name, on every question.
    """

    def __init__(self, rows: Rows, currency: str) -> None:
        self._rows = rows
        self._currency = currency

    def balance_sheet(
        self, as_of: Moment = None, strategy: str | None = None, asset: str | None = None
    ) -> dict[str, Decimal]:
        """Debits minus credits by account, without EXTERNAL."""
        return accounts.balance_sheet(self._totals(as_of, strategy, asset))

    def trial_balance(
        self, as_of: Moment = None, strategy: str | None = None, asset: str | None = None
    ) -> dict[str, Decimal]:
        """The balance sheet and EXTERNAL; the values sum to zero."""
        return accounts.trial_balance(self._totals(as_of, strategy, asset))

    def nav(self, as_of: Moment = None, strategy: str | None = None) -> Decimal:
        """Net asset value in the fund's currency."""
        return from_minor(accounts.net_asset_value(self._totals(as_of, strategy, None)))

    def nav_per_unit(self, as_of: Moment = None) -> Decimal:
        """Net asset value per unit; 1 while there are no units."""
        balances = schema.balances_as_of(self._rows, _moment("as_of", as_of))
        nav_minor = accounts.net_asset_value(accounts.in_asset(balances, self._currency))
        return accounts.nav_per_unit(nav_minor, accounts.units_in_issue(balances))

    def _totals(self, as_of: Moment, strategy: str | None, asset: str | None) -> Mapping[str, int]:
        as_of, strategy = _moment("as_of", as_of), _name("strategy", strategy)
        return schema.totals_as_of(
            self._rows, as_of, strategy, _name("asset", asset) or self._currency
        )

    def income_statement(
        self,
        start: Moment = None,
        end: Moment = None,
        strategy: str | None = None,
        asset: str | None = None,
    ) -> dict[str, Decimal]:
        """Income positive, expense negative, by revenue account; closing entries are left out."""
        start, end = _moment("start", start), _moment("end", end)
        strategy, asset = _name("strategy", strategy), _name("asset", asset) or self._currency
        return accounts.income_statement(
            schema.income_between(self._rows, start, end, strategy, asset)
        )

    def cash_flow(
        self, start: Moment = None, end: Moment = None, strategy: str | None = None
    ) -> dict[str, Decimal]:
        """The changes of CASH by purpose, with OPENING, NET and CLOSING."""
        start, end = _moment("start", start), _moment("end", end)
        strategy = _name("strategy", strategy)
        return accounts.cash_flow(
            *schema.cash_flows(self._rows, start, end, strategy, self._currency)
        )

    def recent_entries(self, limit: int = 20) -> tuple[Entry, ...]:
        """The newest entries first; 0 gives none. Raises: `ValueError` for a negative limit."""
        return self.entries(limit=limit)

    def entries(
        self,
        account: str | None = None,
        strategy: str | None = None,
        kind: str | None = None,
        after_seq: int | None = None,
        limit: int = 100,
    ) -> tuple[Entry, ...]:
        """One page of the entries that match, newest first, from those before entry `after_seq`.

        Raises: `ValueError` for a negative limit.
        """
        account, strategy, kind = (
            _name("account", account),
            _name("strategy", strategy),
            _name("kind", kind),
        )
        if after_seq is not None and (type(after_seq) is not int or abs(after_seq) > COUNT_MAX):
            raise BadField("after_seq", f"{shown(after_seq)} is not the number of an entry")
        return schema.entries(self._rows, account, strategy, kind, after_seq, checked_limit(limit))


def _moment(field: str, moment: Moment) -> Moment:
    if moment is None or is_day(moment) or is_instant(moment):
        return moment
    raise BadField(
        field,
        f"{shown(moment)} is neither a date as YYYY-MM-DD nor an instant in microseconds "
        "between the years 1970 and 9999",
    )


def _name(field: str, name: str | None) -> str | None:
    if name is not None:
        check_text(field, name, NAME_MAX)
    return name
