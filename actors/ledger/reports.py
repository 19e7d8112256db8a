"""Reports read from the file of a book: as of any time, of one strategy or of all, in one asset.

`as_of`, `start` and `end` are inclusive: an ISO date (UTC) counts to its end, an instant is in
microseconds since the epoch, None means no bound. The ledger actor and read-only readers both use
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from ...runtime import shown
from ...wire.errors import BadField
from ...wire.ledger import (
    Entry,
    JournalLine,
    LedgerLot,
    LedgerPosition,
    Reconciliation,
    Statement,
)
from ...wire.money import Amount, from_minor
from ...wire.paging import COUNT_MAX, checked_limit
from ..persistence import Rows
from . import accounts, history, schema
from .entry import BalanceKey
from .fields import NAME_MAX, check_text, is_day, is_instant, likely_unit
from .prices import prices_as_of
from .reconcile import reconcile
from .schema import Moment

__all__ = ["Reports"]


class Reports:
    """Answers about the book in `rows`; `asset` None means the fund's `currency`.

    Raises: on every question, `BadField` for a malformed time or name; `UnknownStrategy`,
        `UnknownAccount` or `BadField` for a name that the book does not know, which is never
        answered with zeros.
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
        """Net asset value in the fund's currency, with other assets at their last prices."""
        as_of, strategy = _moment("as_of", as_of), self._strategy(strategy)
        balances = schema.balances_as_of(self._rows, as_of)
        own = accounts.net_asset_value(accounts.in_asset(balances, self._currency, strategy))
        return from_minor(own + self._others_worth(balances, as_of, strategy))

    def nav_per_unit(self, as_of: Moment = None) -> Decimal:
        """Net asset value per unit; 1 while there are no units."""
        as_of = _moment("as_of", as_of)
        balances = schema.balances_as_of(self._rows, as_of)
        nav_minor = accounts.net_asset_value(accounts.in_asset(balances, self._currency))
        nav_minor += self._others_worth(balances, as_of, None)
        return accounts.nav_per_unit(nav_minor, accounts.units_in_issue(balances))

    def _totals(self, as_of: Moment, strategy: str | None, asset: str | None) -> Mapping[str, int]:
        as_of, strategy = _moment("as_of", as_of), self._strategy(strategy)
        return schema.totals_as_of(self._rows, as_of, strategy, self._asset(asset))

    def income_statement(
        self,
        start: Moment = None,
        end: Moment = None,
        strategy: str | None = None,
        asset: str | None = None,
    ) -> dict[str, Decimal]:
        """Income positive, expense negative, by revenue account; closing entries are left out."""
        start, end = _moment("start", start), _moment("end", end)
        strategy, asset = self._strategy(strategy), self._asset(asset)
        return accounts.income_statement(
            schema.income_between(self._rows, start, end, strategy, asset)
        )

    def cash_flow(
        self, start: Moment = None, end: Moment = None, strategy: str | None = None
    ) -> dict[str, Decimal]:
        """The changes of CASH by purpose, with OPENING, NET and CLOSING."""
        start, end = _moment("start", start), _moment("end", end)
        strategy = self._strategy(strategy)
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
        key: str | None = None,
        day: str | None = None,
        instrument: str | None = None,
    ) -> tuple[Entry, ...]:
        """One page of the entries that match, newest first, from those before entry `after_seq`.

        Raises: `ValueError` for a negative limit; `UnknownAccount`, `UnknownStrategy`, `BadField`.
        """
        account, kind = _name("account", account), _name("kind", kind)
        if account is not None:
            history.check_account(account)
        if kind is not None:
            history.check_kind(kind)
        if day is not None and not is_day(day):
            raise BadField("day", f"{shown(day)} is not a date as YYYY-MM-DD")
        return history.entries(
            self._rows,
            account=account,
            strategy=self._strategy(strategy),
            kind=kind,
            before_seq=None if after_seq is None else _seq("after_seq", after_seq),
            limit=checked_limit(limit),
            key=_name("key", key),
            day=day,
            instrument=_name("instrument", instrument),
        )

    def entries_after(self, seq: int = 0, limit: int = 100) -> tuple[JournalLine, ...]:
        """The entries after entry `seq`, oldest first, as they are stored."""
        return history.entries_after(self._rows, _seq("seq", seq), checked_limit(limit))

    def positions(
        self, as_of: Moment = None, strategy: str | None = None
    ) -> tuple[LedgerPosition, ...]:
        """The open positions by strategy and instrument."""
        as_of, strategy = _moment("as_of", as_of), self._strategy(strategy)
        return history.positions(self._rows, as_of, strategy)

    def lots(
        self, strategy: str | None = None, instrument: str | None = None
    ) -> tuple[LedgerLot, ...]:
        """The open lots by strategy and instrument, oldest first."""
        strategy = self._strategy(strategy)
        return history.lots(self._rows, strategy, _name("instrument", instrument))

    def realized(
        self, start: Moment = None, end: Moment = None, by: str = "strategy"
    ) -> dict[str, Decimal]:
        """Realized P&L by strategy or by instrument, in the fund's currency; a gain is positive."""
        if by not in ("strategy", "instrument"):
            raise BadField("by", f'{shown(by)} is neither "strategy" nor "instrument"')
        start, end = _moment("start", start), _moment("end", end)
        return history.realized(self._rows, start, end, by == "instrument", self._currency)

    def prices(self, as_of: Moment = None) -> dict[str, Decimal | None]:
        """The last price of every other asset; None for one that is held and has none."""
        as_of = _moment("as_of", as_of)
        known = prices_as_of(self._rows, as_of)
        balances = schema.balances_as_of(self._rows, as_of)
        held = accounts.worth_by_asset(balances, self._currency)
        missing = {asset for asset, amount in held.items() if amount} - known.keys()
        return {
            asset: None if asset in missing else known[asset].value
            for asset in sorted({*known, *missing})
        }

    def reconcile(
        self,
        statements: Sequence[Statement],
        tolerance: Amount = 0,
        agreed: tuple[str, str] = ("", ""),
    ) -> Reconciliation:
        """Compare the books with a broker's statements, day by day.

        `agreed` are the last days on which cash and positions of earlier statements agreed.
        """
        return reconcile(self._rows, statements, self._currency, tolerance, agreed)

    def _strategy(self, strategy: str | None) -> str | None:
        """The strategy, which must be known. Raises: `UnknownStrategy`, `BadField`."""
        if strategy is not None:
            check_text("strategy", strategy, NAME_MAX)
            history.check_strategy(self._rows, strategy)
        return strategy

    def _asset(self, asset: str | None) -> str:
        """The asset, or the currency; it must be known. Raises: `BadField`."""
        if asset is None or asset in (self._currency, accounts.UNITS):
            return asset or self._currency
        check_text("asset", asset, NAME_MAX)
        history.check_asset(self._rows, asset, frozenset(prices_as_of(self._rows)))
        return asset

    def _others_worth(
        self, balances: Mapping[BalanceKey, int], as_of: Moment, strategy: str | None
    ) -> int:
        """The other assets held, at the last prices of that time."""
        worth = accounts.worth_by_asset(balances, self._currency, strategy)
        if not worth:
            return 0
        prices = prices_as_of(self._rows, as_of)
        return accounts.worth_at(worth, {asset: price.value for asset, price in prices.items()})


def _seq(field: str, seq: int) -> int:
    if type(seq) is not int or abs(seq) > COUNT_MAX:
        raise BadField(field, f"{shown(seq)} is not the number of an entry")
    return seq


def _moment(field: str, moment: Moment) -> Moment:
    if type(moment) is int:
        unit = likely_unit(moment)
        if unit is not None:  # it would be answered with the zeros of 1970
            raise BadField(field, f"{moment} looks like {unit}; an instant is in microseconds")
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
