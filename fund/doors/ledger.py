"""The ledger's door: events to book, reports to ask for, and the check of the whole book.

One class and one file, although a long one: it is the list of the ledger's events and questions,
one short method each, and a host looks for all of them on one object.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from fundops.actors.ledger.book import RUN
from fundops.actors.ledger.keys import new_key
from fundops.actors.ledger.verify import Anchor, Verification, verify_file
from fundops.doors.door import ANSWER_DEADLINE_S, Door
from fundops.doors.inert import inert
from fundops.moments import Instant, Moment, day_of, instant_us, moment_of
from fundops.runtime import (
    FOREIGN_ERRORS,
    ConfigError,
    FundopsError,
    Ref,
    Request,
    Worker,
    shown,
)
from fundops.wire.controller import Fill
from fundops.wire.foreign import plain_number, plain_text
from fundops.wire.ledger import (
    BOOKABLE,
    EVENTS_MAX,
    AsideReport,
    BalanceSheet,
    Booked,
    BookFills,
    CashFlow,
    ChargeManagementFee,
    ChargePerformanceFee,
    ClosePeriod,
    ClosePosition,
    Convert,
    Correct,
    Deposit,
    Entries,
    EntriesAfter,
    Entry,
    Event,
    Financing,
    Income,
    IncomeStatement,
    JournalLine,
    LedgerLot,
    LedgerPosition,
    Leg,
    Lots,
    Mark,
    NavPerUnit,
    NetAssetValue,
    OpeningBalances,
    OpeningPosition,
    OpenPosition,
    PayFees,
    Positions,
    Post,
    Posted,
    PostMany,
    Price,
    Prices,
    Realized,
    RecentEntries,
    Reconcile,
    Reconciliation,
    RecordLoss,
    RecordProfit,
    Rename,
    ReopenPeriod,
    ReportsAside,
    Reverse,
    Settle,
    SkipReport,
    Split,
    Statement,
    Transfer,
    TrialBalance,
    Withdraw,
)
from fundops.wire.money import Amount
from fundops.wire.oversight import PostFees, Redeem

__all__ = ["LedgerDoor"]

R = TypeVar("R")
E = TypeVar("E", bound=Event | Correct)


class LedgerDoor(Door):
    """Book events and ask for reports.

    Amounts are Decimal, int, decimal text or float; answers are Decimal.

    Every write returns `Posted` once it is durable. A `key` given twice with the same content is
    booked once. Every write may raise `AmountError`, `IdempotencyConflict`, `PeriodClosed` and
    `LedgerDegraded`.
    """

    _strict = True  # a text is part of an entry's hash, so it is taken as it is or not at all

    def __init__(
        self,
        ref: Ref | None,
        now_us: Callable[[], int],
        path: Path,
        make_worker: Callable[[str], Worker],
        fees: Ref | None = None,
    ) -> None:
        super().__init__("ledger", "ledger_enabled=True", ref)
        self._fees = fees  # the actor that books the fund's fees; None: it charges none
        self._now_us = now_us
        self._path = path
        self._make_worker = make_worker

    async def _in_thread(self, name: str, call: Callable[[], R]) -> R:
        """Run `call` in a new thread: in the event loop a long one would hold up the whole fund."""
        worker = self._make_worker(name)
        try:
            return await worker.run(call)
        finally:
            worker.stop()

    def new_key(self) -> str:
        """A new idempotency key. Keep it before sending, to ask again after a lost answer."""
        return new_key(self._now_us())

    async def _book(
        self,
        kind: type[Any],
        *content: Any,
        key: str | None,
        strategy: str | None,
        at: Instant | None,
        memo: str,
    ) -> Posted:
        return await self._send(
            kind(*content, key=key, strategy=strategy, at_us=instant_us("at", at), memo=memo)
        )

    async def _send(self, event: Event | Correct) -> Posted:
        # The key is made before sending, so that a caller whose answer got lost can ask again with
        # it.
        event = self._keyed(event)
        return await self._keeping(event.key, self._ask(event))

    async def _keeping(self, key: str | None, answer: Awaitable[Posted]) -> Posted:
        """The answer; an error of it carries the key to ask again with."""
        try:
            return await answer
        except FundopsError as error:
            error.key = key  # type: ignore[attr-defined]
            raise

    async def _ask_fees(self, request: Request[R]) -> R:
        assert self._fees is not None
        return await self._fees.ask(inert(request), timeout_s=ANSWER_DEADLINE_S)

    def _keyed(self, event: E) -> E:
        return msgspec.structs.replace(event, key=self.new_key()) if event.key is None else event

    async def deposit(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book money that comes in from outside: CASH / EXTERNAL."""
        return await self._book(Deposit, amount, key=key, strategy=strategy, at=at, memo=memo)

    async def withdraw(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book money that leaves the fund: EXTERNAL / CASH.

        Before it the fees are booked: the management fee up to now, and the performance fee of the
        units that leave. All of it is one commit.

        Raises: `InsufficientFunds`.
        """
        event = self._keyed(
            Withdraw(amount, key=key, strategy=strategy, at_us=instant_us("at", at), memo=memo)
        )
        if self._fees is None:
            return await self._send(event)
        return await self._keeping(event.key, self._ask_fees(Redeem(event)))

    async def record_profit(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book a realized gain: CASH / REALIZED_PNL."""
        return await self._book(RecordProfit, amount, key=key, strategy=strategy, at=at, memo=memo)

    async def record_loss(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book a realized loss, given as a positive amount: REALIZED_PNL / CASH."""
        return await self._book(RecordLoss, amount, key=key, strategy=strategy, at=at, memo=memo)

    async def open_position(
        self,
        instrument: str,
        *,
        quantity: Amount,
        cost: Amount,
        fee: Amount = 0,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book a new lot; a negative quantity is a short, whose cost is received."""
        return await self._book(
            OpenPosition,
            instrument,
            quantity,
            cost,
            fee,
            key=key,
            strategy=strategy,
            at=at,
            memo=memo,
        )

    async def close_position(
        self,
        instrument: str,
        *,
        quantity: Amount,
        proceeds: Amount,
        fee: Amount = 0,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Close lots, oldest first; the quantity has the sign of the position.

        Raises: `PositionMismatch`.
        """
        return await self._book(
            ClosePosition,
            instrument,
            quantity,
            proceeds,
            fee,
            key=key,
            strategy=strategy,
            at=at,
            memo=memo,
        )

    async def mark(
        self,
        instrument: str,
        *,
        value: Amount,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Value the whole position; the change since its last mark is booked."""
        return await self._book(
            Mark, instrument, value, key=key, strategy=strategy, at=at, memo=memo
        )

    async def settle(
        self,
        market: str,
        *,
        strategy: str | None,
        payoff: Amount,
        key: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Close the whole position in a resolved market at its payoff."""
        return await self._book(
            Settle, market, payoff, key=key, strategy=strategy, at=at, memo=memo
        )

    async def charge_management_fee(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Charge a management fee: MANAGEMENT_FEES / FEES_RECEIVABLE."""
        return await self._book(
            ChargeManagementFee, amount, key=key, strategy=strategy, at=at, memo=memo
        )

    async def charge_performance_fee(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Charge a performance fee: PERFORMANCE_FEES / FEES_RECEIVABLE."""
        return await self._book(
            ChargePerformanceFee, amount, key=key, strategy=strategy, at=at, memo=memo
        )

    async def pay_fees(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Pay out fees that were charged: FEES_RECEIVABLE / CASH.

        Raises: `InsufficientFunds` above the fees owed.
        """
        return await self._book(PayFees, amount, key=key, strategy=strategy, at=at, memo=memo)

    async def income(
        self,
        amount: Amount,
        *,
        instrument: str | None = None,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book dividends, coupons or interest: CASH / INCOME; negative when a short pays them."""
        return await self._book(
            Income, amount, instrument, key=key, strategy=strategy, at=at, memo=memo
        )

    async def financing(
        self,
        amount: Amount,
        *,
        instrument: str | None = None,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book borrow fees, funding or interest paid: FINANCING / CASH; negative when received."""
        return await self._book(
            Financing, amount, instrument, key=key, strategy=strategy, at=at, memo=memo
        )

    async def opening_balances(
        self,
        *,
        cash: Amount,
        positions: Sequence[OpeningPosition] = (),
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book the cash and positions of a fund that already trades, before any other entry."""
        held = _members("positions", positions, OpeningPosition)
        return await self._book(
            OpeningBalances, cash, held, key=key, strategy=strategy, at=at, memo=memo
        )

    async def reverse(
        self,
        seq: int,
        *,
        reason: str,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
    ) -> Posted:
        """Book the opposite of every leg of an entry, once.

        The units of a deposit or a withdrawal are priced at today's NAV per unit instead, so that
        other holders' value does not change.

        Raises: `AlreadyReversed`, `UnknownEntry`; `EntryRefused` for a trade or a price, whose
            opposite is booked instead.
        """
        seq = _whole(seq)
        return await self._book(Reverse, seq, reason, key=key, strategy=strategy, at=at, memo="")

    async def correct(
        self,
        seq: int,
        entry: Event,
        *,
        reason: str,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Reverse entry `seq` and book `entry` instead, both or neither.

        Returns the new entry's `Posted`. Without `at` the reversal has the date of the entry that
        it reverses, or now if that day is closed. Where a deposit or a withdrawal replaces another,
        units are issued for the difference, at today's NAV per unit.
        """
        return await self._book(
            Correct, _whole(seq), entry, reason, key=key, strategy=strategy, at=at, memo=memo
        )

    async def close_period(
        self, day: dt.date | str, *, key: str | None = None, memo: str = ""
    ) -> Posted:
        """Book the revenue up to the end of `day` into RETAINED and lock that time.

        The management fee up to now is booked before it.

        Raises: `PeriodClosed`.
        """
        if self._fees is not None:
            await self._ask_fees(PostFees())
        return await self._book(
            ClosePeriod, day_of("day", day), key=key, strategy=None, at=None, memo=memo
        )

    async def reopen_period(
        self, day: dt.date | str, *, by: str, reason: str, key: str | None = None
    ) -> Posted:
        """Undo the last close, which must be of `day`.

        The journal keeps both entries, with `reason` and `by`.
        """
        return await self._book(
            ReopenPeriod,
            day_of("day", day),
            reason,
            by,
            key=key,
            strategy=None,
            at=None,
            memo="",
        )

    async def split(
        self,
        instrument: str,
        ratio: Amount,
        *,
        cash: Amount | None = None,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Multiply the quantity of every open lot of an instrument; lots keep their cost.

        `ratio` is the number of new units for an old one, also as text such as "3:2" or "1:10".
        With `cash` the fraction of a unit that is left is closed for that amount. Without
        `strategy` the lots of all strategies are split.

        Raises: `PositionMismatch` when there are none.
        """
        return await self._book(
            Split, instrument, ratio, cash, key=key, strategy=strategy, at=at, memo=memo
        )

    async def rename(
        self,
        instrument: str,
        to: str,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Move every open lot of an instrument to another name, of one strategy or of all.

        Raises: `PositionMismatch` when there are none, or the other is open in the other direction.
        """
        return await self._book(
            Rename, instrument, to, key=key, strategy=strategy, at=at, memo=memo
        )

    async def transfer(
        self,
        instrument: str,
        quantity: Amount,
        *,
        from_strategy: str | None,
        to_strategy: str | None,
        key: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Move the oldest lots of a strategy to another, which pays their cost: no P&L arises.

        The quantity has the sign of the position; None is the fund as a whole.

        Raises: `PositionMismatch`.
        """
        content = (instrument, quantity, from_strategy, to_strategy)
        return await self._book(Transfer, *content, key=key, strategy=None, at=at, memo=memo)

    async def convert(
        self,
        amount: Amount,
        asset: str,
        to_amount: Amount,
        to_asset: str,
        fee: Amount = 0,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Change cash of one asset into another; the fee is in the asset that is given away.

        Raises: `InsufficientFunds`: CASH of no asset goes below zero.
        """
        content = (amount, asset, to_amount, to_asset, fee)
        return await self._book(Convert, *content, key=key, strategy=strategy, at=at, memo=memo)

    async def price(
        self,
        asset: str,
        value: Amount,
        *,
        key: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Say what one unit of another asset is worth, in the fund's currency, from `at` on.

        The NAV counts the asset at its last price.
        """
        return await self._book(Price, asset, value, key=key, strategy=None, at=at, memo=memo)

    async def post(
        self,
        entry: Event | Correct | Sequence[Leg],
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book an entry of explicit legs, or any event as it is.

        Raises: `UnbalancedEntry`, `UnknownAccount`.
        """
        if issubclass(type(entry), Event | Correct):
            given = {
                "key": key,
                "strategy": strategy,
                "at_us": instant_us("at", at),
                "memo": None if plain_text(memo) == "" else memo,
            }
            changes = {name: value for name, value in given.items() if value is not None}
            return await self._send(msgspec.structs.replace(cast(Event, entry), **changes))
        return await self._book(
            Post, _members("entry", entry, Leg), key=key, strategy=strategy, at=at, memo=memo
        )

    async def post_many(self, entries: Sequence[Event | Correct]) -> tuple[Posted, ...]:
        """Book all of the events in one transaction, or none.

        An error carries their keys as `keys`.
        """
        events = _members("entries", entries, *BOOKABLE, at_most=EVENTS_MAX)

        def with_keys() -> tuple[Event | Correct, ...]:
            return tuple([self._keyed(event) for event in events])

        keyed = (
            with_keys() if len(events) <= RUN else await self._in_thread("fundops-keys", with_keys)
        )
        try:
            return await self._ask(PostMany(keyed))
        except FundopsError as error:
            error.keys = tuple(event.key for event in keyed)  # type: ignore[attr-defined]
            raise

    async def import_fills(self, fills: Sequence[Fill]) -> Booked:
        """Book fills that come from a file, by the same checks as those of the engine.

        Each is booked once, by strategy, instrument and id. One that cannot be booked is set aside
        and named in the answer; the others are booked. Their cursors are ignored.
        """
        given = _members("fills", fills, Fill, at_most=EVENTS_MAX)
        return await self._ask(
            BookFills(tuple(msgspec.structs.replace(fill, cursor="") for fill in given))
        )

    async def reports_aside(self, limit: int = 100) -> tuple[AsideReport, ...]:
        """The reports of the engine that could not be booked and wait aside, the oldest first."""
        return await self._ask(ReportsAside(limit))

    async def skip_report(self, key: str, *, reason: str, by: str) -> AsideReport:
        """Give up a report that was set aside, so that it is not tried and not told again.

        `key` is its key, or its own id where no other report aside has that id. A report of another
        content under the same key is tried again.

        Raises: `UnknownReport`.
        """
        return await self._ask(SkipReport(key, reason, by))

    async def balance_sheet(
        self, as_of: Moment | None = None, *, strategy: str | None = None, asset: str | None = None
    ) -> dict[str, Decimal]:
        """Debits minus credits per account.

        A date counts to its end, UTC; an instant is included.
        """
        return await self._ask(BalanceSheet(moment_of("as_of", as_of), strategy, asset))

    async def income_statement(
        self,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        strategy: str | None = None,
        asset: str | None = None,
    ) -> dict[str, Decimal]:
        """Income positive, expense negative, both ends included; closing entries are left out."""
        return await self._ask(
            IncomeStatement(moment_of("start", start), moment_of("end", end), strategy, asset)
        )

    async def cash_flow(
        self, start: Moment | None = None, end: Moment | None = None, *, strategy: str | None = None
    ) -> dict[str, Decimal]:
        """Changes of CASH by their purpose; OPENING plus NET is CLOSING."""
        return await self._ask(CashFlow(moment_of("start", start), moment_of("end", end), strategy))

    async def trial_balance(
        self, as_of: Moment | None = None, *, strategy: str | None = None, asset: str | None = None
    ) -> dict[str, Decimal]:
        """Debits minus credits of every account, EXTERNAL too; the values sum to zero."""
        return await self._ask(TrialBalance(moment_of("as_of", as_of), strategy, asset))

    async def nav(self, as_of: Moment | None = None, *, strategy: str | None = None) -> Decimal:
        """The net asset value by the books, with other assets at their last prices.

        An asset without a price is not counted; `prices` names it.
        """
        return await self._ask(NetAssetValue(moment_of("as_of", as_of), strategy))

    async def nav_per_unit(self, as_of: Moment | None = None) -> Decimal:
        """The net asset value of one unit, which deposits and withdrawals do not change.

        `trial_balance(asset="UNITS")` gives the number of units.
        """
        return await self._ask(NavPerUnit(moment_of("as_of", as_of)))

    async def entries(
        self,
        *,
        account: str | None = None,
        strategy: str | None = None,
        kind: str | None = None,
        after_seq: int | None = None,
        limit: int = 100,
        key: str | None = None,
        day: dt.date | str | None = None,
        instrument: str | None = None,
    ) -> tuple[Entry, ...]:
        """One page of matching entries, newest first.

        For the next page, pass the `seq` of the last entry as `after_seq`. `instrument` finds the
        entries that moved its lots or name it.

        Raises: `UnknownAccount`, `UnknownStrategy`, `BadField` for a kind that does not exist.
        """
        dated = None if day is None else day_of("day", day)
        return await self._ask(
            Entries(
                account, strategy, kind, _whole(after_seq), _whole(limit), key, dated, instrument
            )
        )

    async def entries_after(self, seq: int = 0, limit: int = 100) -> tuple[JournalLine, ...]:
        """The entries after entry `seq` as they are stored, oldest first: payload and hash.

        SHA-256 over the previous hash and the payload gives the hash; before the first entry it is
        32 zero bytes.
        """
        return await self._ask(EntriesAfter(_whole(seq), _whole(limit)))

    async def positions(
        self, as_of: Moment | None = None, *, strategy: str | None = None
    ) -> tuple[LedgerPosition, ...]:
        """The open positions by strategy and instrument, of now or of any time."""
        return await self._ask(Positions(moment_of("as_of", as_of), strategy))

    async def lots(
        self, *, strategy: str | None = None, instrument: str | None = None
    ) -> tuple[LedgerLot, ...]:
        """The open lots by strategy and instrument, oldest first."""
        return await self._ask(Lots(strategy, instrument))

    async def realized(
        self, start: Moment | None = None, end: Moment | None = None, *, by: str = "strategy"
    ) -> dict[str, Decimal]:
        """Realized P&L by "strategy" or by "instrument", both ends included; a gain is positive.

        An empty name stands for what belongs to none. Closing entries are left out.
        """
        return await self._ask(Realized(moment_of("start", start), moment_of("end", end), by))

    async def prices(self, as_of: Moment | None = None) -> dict[str, Decimal | None]:
        """The last price of every other asset.

        None: the fund holds the asset, and the NAV does not count it for want of a price.
        """
        return await self._ask(Prices(moment_of("as_of", as_of)))

    async def reconcile(
        self, statements: Sequence[Statement], *, tolerance: Amount = 0
    ) -> Reconciliation:
        """Compare the books with a broker's statements of some days, all strategies together.

        The answer names the first day on which they differ, the last one before on which the same
        figures agree, the figures, and the entries between. It tells cash and positions apart, as a
        statement may leave one of them out. Differences of CASH up to `tolerance` are none.

        Raises: `BadField`, `AmountError`.
        """
        stated = _members("statements", statements, Statement)
        return await self._ask(Reconcile(stated, tolerance))

    async def verify(self, level: int = 2, *, anchor: Anchor | None = None) -> Verification:
        """Check the book while booking goes on; returns the findings and repairs nothing.

        Level 0 opens the book; 1 adds SQLite's own check and the trial balance; 2 the whole hash
        chain and everything derived from it; 3 asks those of bean-check, hledger and ledger that
        are installed about the exported book.
        """
        if anchor is not None and not (
            isinstance(anchor, Anchor) and [*map(type, anchor)] == [int, str]
        ):
            raise ConfigError("anchor", f"{shown(anchor)} is not an Anchor: an entry and its hash")
        return await self._in_thread(
            "fundops-verify", partial(verify_file, self._path, level, anchor)
        )

    async def recent_entries(self, limit: int = 20) -> tuple[Entry, ...]:
        """The newest entries, newest first."""
        return await self._ask(RecentEntries(_whole(limit)))


def _whole(value: Any) -> Any:
    """An integer of another library, such as numpy, as an int; anything else as it is."""
    number = plain_number(value)
    return number if type(number) is int else value


def _members(
    field: str, value: Any, *kinds: type[Any], at_most: int = sys.maxsize
) -> tuple[Any, ...]:
    """The members of a list.

    Raises: `ConfigError` for no list, a long one, or a member of another type.
    """
    try:
        members = tuple(value)
    except FOREIGN_ERRORS:
        raise ConfigError(field, f"{shown(value)} is not a list") from None
    if len(members) > at_most:
        raise ConfigError(
            field, f"{len(members):,} are more than {at_most:,} at once: give them in parts"
        )
    # Comparing the types is quick, and decides for all lists but those with members of a subclass.
    if {type(member) for member in members} <= set(kinds):
        return members
    for at, member in enumerate(members):
        if not issubclass(type(member), kinds):
            what = kinds[0].__name__ if len(kinds) == 1 else "an event to book"
            raise ConfigError(f"{field}[{at}]", f"{shown(member)} is not {what}")
    return members
