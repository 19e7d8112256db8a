"""The ledger's door: events to book, reports to ask for, and the check of the whole book."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fundops.actors.ledger.book import RUN
from fundops.actors.ledger.keys import new_key
from fundops.actors.ledger.verify import Anchor, Verification, verify_file
from fundops.doors.door import Door
from fundops.moments import Instant, Moment, day_of, instant_us, moment_of
from fundops.runtime import ConfigError, FundopsError, Ref, Worker, shown
from fundops.wire.controller import Fill
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
    Correct,
    Deposit,
    Entries,
    Entry,
    Event,
    Financing,
    Income,
    IncomeStatement,
    Leg,
    Mark,
    NavPerUnit,
    NetAssetValue,
    OpeningBalances,
    OpeningPosition,
    OpenPosition,
    PayFees,
    Post,
    Posted,
    PostMany,
    RecentEntries,
    RecordLoss,
    RecordProfit,
    ReopenPeriod,
    ReportsAside,
    Reverse,
    Settle,
    SkipReport,
    TrialBalance,
    Withdraw,
)
from fundops.wire.money import Amount

__all__ = ["LedgerDoor"]

R = TypeVar("R")


class LedgerDoor(Door):
    """Book events and ask for reports.

    Amounts are Decimal, int, decimal text or float; answers are Decimal.

    Every write returns `Posted` once it is durable. A `key` given twice with the same content is
    booked once. Every write may raise `AmountError`, `IdempotencyConflict`, `PeriodClosed` and
    `LedgerDegraded`.
    """

    def __init__(
        self,
        ref: Ref | None,
        now_us: Callable[[], int],
        path: Path,
        make_worker: Callable[[str], Worker],
    ) -> None:
        super().__init__("ledger", "ledger_enabled=True", ref)
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
        try:
            posted: Posted = await self._ask(event)
        except FundopsError as error:
            error.key = event.key  # type: ignore[attr-defined]
            raise
        return posted

    def _keyed(self, event: Event | Correct) -> Event | Correct:
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
        """Book money that leaves the fund: EXTERNAL / CASH. Raises: `InsufficientFunds`."""
        return await self._book(Withdraw, amount, key=key, strategy=strategy, at=at, memo=memo)

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
        """Pay out fees that were charged: FEES_RECEIVABLE / CASH. Raises: `InsufficientFunds`."""
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

        Raises: `AlreadyReversed`, `UnknownEntry`.
        """
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
        it reverses, or now if that day is closed.
        """
        return await self._book(
            Correct, seq, entry, reason, key=key, strategy=strategy, at=at, memo=memo
        )

    async def close_period(
        self, day: dt.date | str, *, key: str | None = None, memo: str = ""
    ) -> Posted:
        """Book the revenue up to the end of `day` into RETAINED and lock that time.

        Raises: `PeriodClosed`.
        """
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
        if isinstance(entry, Event | Correct):
            given = {
                "key": key,
                "strategy": strategy,
                "at_us": instant_us("at", at),
                "memo": memo or None,
            }
            changes = {name: value for name, value in given.items() if value is not None}
            return await self._send(msgspec.structs.replace(entry, **changes))
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
        """The net asset value by the books."""
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
    ) -> tuple[Entry, ...]:
        """One page of matching entries, newest first.

        For the next page, pass the `seq` of the last entry as `after_seq`.
        """
        return await self._ask(Entries(account, strategy, kind, after_seq, limit))

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
        return await self._ask(RecentEntries(limit))


def _members(
    field: str, value: object, *kinds: type[Any], at_most: int = sys.maxsize
) -> tuple[Any, ...]:
    """The members of a list.

    Raises: `ConfigError` for no list, a long one, or a member of another type.
    """
    if not isinstance(value, Iterable):
        raise ConfigError(field, f"{shown(value)} is not a list")
    members = tuple(value)
    if len(members) > at_most:
        raise ConfigError(
            field, f"{len(members):,} are more than {at_most:,} at once: give them in parts"
        )
    # Comparing the types is quick, and decides for all lists but those with members of a subclass.
    if {type(member) for member in members} <= set(kinds):
        return members
    for at, member in enumerate(members):
        if not isinstance(member, kinds):
            what = kinds[0].__name__ if len(kinds) == 1 else "an event to book"
            raise ConfigError(f"{field}[{at}]", f"{shown(member)} is not {what}")
    return members
