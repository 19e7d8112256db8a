"""The ledger against an oracle: any order of requests, and after each of them both must say the
same.

`Oracle` is the contract written the slowest and plainest way: exact fractions of whole units, one
dict of balances, one list of lots for each strategy and instrument, a copy of everything before
each try. It shares no code with the ledger. `Ledger` is the real actor with the real persistence on
a real file, in one trio run of its own that is driven a step at a time from outside, so that
hypothesis can decide each step by what came before.

A refusal is compared by its type and its facts. Several things may be wrong with one request and
the contract does not say which is named first, so the oracle answers with all of them.

A new event is added in three places: a `case` of `Oracle._legs`, a strategy of `EVENTS`, a rule of
`Anything`. What may not be booked at all, such as a day that is closed, is asked in
`Oracle._check`. A correction is no event: it is two of them, which `Oracle._correct` puts one after
the other.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import cache, partial
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from fundops.actors.ledger import LedgerActor
from fundops.actors.ledger.reports import Reports
from fundops.actors.persistence import PersistenceActor, Reader, open_database
from fundops.file.database import MIGRATIONS
from fundops.runtime import (
    ChildSpec,
    ConfigError,
    InlineWorker,
    Rejected,
    Supervisor,
    VirtualClock,
    open_supervisor,
)
from fundops.wire.controller import CashEvent, Fill, Settlement
from fundops.wire.errors import (
    AlreadyReversed,
    AmountError,
    EntryRefused,
    IdempotencyConflict,
    InsufficientFunds,
    PeriodClosed,
    PositionMismatch,
    UnbalancedEntry,
    UnknownAccount,
    UnknownEntry,
)
from fundops.wire.ledger import (
    BalanceSheet,
    BookCashEvents,
    Booked,
    BookFill,
    BookFills,
    BookSettlement,
    BookSettlements,
    ChargeManagementFee,
    ChargePerformanceFee,
    ClosePeriod,
    ClosePosition,
    Convert,
    Correct,
    Deposit,
    Entry,
    Event,
    Financing,
    Income,
    IncomeStatement,
    LedgerTotals,
    Leg,
    Mark,
    NavPerUnit,
    OpeningBalances,
    OpeningPosition,
    OpenPosition,
    PayFees,
    Post,
    Posted,
    PostMany,
    Price,
    ReadTotals,
    RecentEntries,
    RecordLoss,
    RecordProfit,
    Rename,
    ReopenPeriod,
    Reverse,
    Settle,
    Split,
    Transfer,
    TrialBalance,
    Withdraw,
)

START_US = 1_700_000_000_000_000
MINOR = Fraction(1, 10**8)
LIMIT = 2**62 * MINOR

Write = Event | Correct
Request = Write | PostMany | BookFills | BookSettlements | BookCashEvents
Report = Fill | Settlement | CashEvent
Balance = tuple[str, str | None, str]  # account, strategy, asset
Fault = tuple[Any, ...]  # the type of a refusal, and its facts


# -- the oracle

SEVEN = (
    "CASH",
    "POSITIONS",
    "FEES_RECEIVABLE",
    "MANAGEMENT_FEES",
    "PERFORMANCE_FEES",
    "REALIZED_PNL",
    "UNREALIZED_PNL",
)
MARKS = "POSITIONS:MTM"
ONCE_USED = (
    "TRADING_FEES",
    "INCOME",
    "FINANCING",
    "RETAINED",
    "CONVERSIONS",
    "HOLDERS",
    "UNITS",
)
WORTH = ("CASH", "POSITIONS", MARKS, "FEES_RECEIVABLE")
LONG_AGO_US = 631_152_000_000_000  # 1990
REVENUE = {"MANAGEMENT_FEES", "PERFORMANCE_FEES", "REALIZED_PNL", "UNREALIZED_PNL", *ONCE_USED[:3]}
KNOWN = {*SEVEN, MARKS, *ONCE_USED, "EXTERNAL"}
AMOUNTS = {
    "amount",
    "cash",
    "cost",
    "fee",
    "paid",
    "payoff",
    "price",
    "proceeds",
    "quantity",
    "to_amount",
    "value",
}


class Refused(Exception):
    """Everything that is wrong with a request."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = set(faults)


def nowhere(before: int, fault: Fault) -> Fault:
    """A key that is taken, or an entry reversed, within the same request is so by no entry: none
    of them will be.
    """
    within = fault[0] in (AlreadyReversed, IdempotencyConflict) and fault[2] > before
    return (*fault[:2], None) if within else fault


class Lot(NamedTuple):
    id: int
    quantity: Fraction
    cost: Fraction
    mark: Fraction


PNL = {"REALIZED_PNL", "UNREALIZED_PNL", "TRADING_FEES", "INCOME", "FINANCING"}


@dataclass(frozen=True)
class Line:
    """One line of the oracle's journal."""

    seq: int
    key: str
    kind: str
    day: str
    at_us: int  # an instant of that day
    strategy: str | None
    reverses: int | None
    memo: str
    legs: dict[Balance, Fraction]
    moved_lots: bool
    content: object
    event: Any
    corrects: int | None = None
    # By strategy and instrument: how much quantity, cost and value changed.
    moved: dict[tuple[str | None, str], tuple[Fraction, ...]] = field(default_factory=dict)


def is_paid(settlement: Line) -> bool:
    """Whether an earlier entry has paid a part of it."""
    return settlement.event.paid is not None


def rounded(value: Fraction) -> Fraction:
    """To the scale, half to even."""
    return round(value / MINOR) * MINOR


def summed(values: Iterable[Fraction]) -> Fraction:
    return sum(values, Fraction(0))


def exact(value: Any) -> Fraction | None:
    """The amount, or None when it is none."""
    if isinstance(value, bool) or not isinstance(value, int | str | float | Decimal):
        return None
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        amount = rounded(Fraction(value))
    else:
        try:
            amount = Fraction(value)
        except (ValueError, OverflowError):
            return None
    return amount if amount == rounded(amount) and abs(amount) <= LIMIT else None


def factor(value: Any) -> Fraction | None:
    """A factor of a product, with all of its digits, or None when it is none. A float is the number
    that it is written as.
    """
    if isinstance(value, bool) or not isinstance(value, int | str | float | Decimal):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    try:
        return Fraction(repr(value) if isinstance(value, float) else value)
    except (ValueError, OverflowError):
        return None


def ratio_of(value: Any) -> Fraction | None:
    parts = [exact(part) for part in (value.split(":") if isinstance(value, str) else [value])]
    amounts = [part for part in parts if part is not None and part > 0]
    if not len(amounts) == len(parts) <= 2:
        return None
    return amounts[0] / amounts[1] if len(amounts) == 2 else amounts[0]


def content_of(request: msgspec.Struct) -> object:
    """What makes two requests the same: everything but the key, amounts by what they are worth."""
    factors = {BookFill: ("price", "quantity"), Price: ("value",)}.get(type(request), ())

    def plain(name: str, value: Any) -> object:
        if isinstance(value, tuple):
            return [content_of(part) for part in value]
        if isinstance(value, msgspec.Struct):
            return content_of(value)
        measure = factor if name in factors else exact
        amount = measure(value) if name in AMOUNTS else None
        if amount is None and isinstance(value, Decimal):
            amount = factor(value)  # a reported figure of many digits
        if name == "ratio":
            amount = ratio_of(value)
        return (name, repr(value) if amount is None else amount)

    return type(request), [
        plain(name, getattr(request, name)) for name in request.__struct_fields__ if name != "key"
    ]


class Oracle:
    """What the ledger ought to be. Methods either change it and answer, or raise `Refused` and
    leave a wreck.
    """

    def __init__(self) -> None:
        self.journal: list[Line] = []
        self.balances: dict[Balance, Fraction] = defaultdict(Fraction)
        self.lots: dict[tuple[str | None, str], list[Lot]] = {}
        self.cursors: dict[str, str] = {}
        self.aside: list[tuple[str, Report]] = []  # reports that could not be booked, by source
        self._reported = False  # what is being booked has happened already
        self.prices: dict[str, tuple[int, Fraction]] = {}  # since when, and how much

    def copy(self) -> Oracle:
        other = Oracle()
        other.journal = self.journal.copy()
        other.balances = self.balances.copy()
        other.lots = {key: lots.copy() for key, lots in self.lots.items()}
        other.cursors = self.cursors.copy()
        other.aside = self.aside.copy()
        other.prices = self.prices.copy()
        return other

    # -- requests

    def answer(self, request: Request, now_us: int, fresh: Sequence[str]) -> Any:
        """The same as the ledger, but for hashes. `fresh` are the keys it minted, in order."""
        match request:
            case PostMany():
                keys, before = chain(fresh, map("key {}".format, count())), len(self.journal)
                try:
                    return tuple(
                        self.book(one, next(keys) if one.key is None else one.key, now_us)
                        for one in request.events
                    )
                except Refused as refused:
                    raise Refused(nowhere(before, fault) for fault in refused.faults) from None
            case BookFills():
                return self._reports("fills", request.fills, self._report_fill, now_us)
            case BookSettlements():
                reports = request.settlements
                return self._reports("settlements", reports, self._report_settlement, now_us)
            case BookCashEvents():
                return self._reports("cash_events", request.events, self._report_cash, now_us)
            case _:
                key = next(iter(fresh), "key") if request.key is None else request.key
                return self.book(request, key, now_us)

    def _reports(
        self, source: str, reports: Sequence[Any], book: Callable[[Any, int], None], now_us: int
    ) -> tuple[int, str, list[str]]:
        """How many entries are new, the cursor, and the ids of what could not be booked.

        What is wrong is left out alone; what was left out before is not tried again. Of two words
        about one report the later one counts.
        """
        before, aside = len(self.journal), dict[str, str]()  # ids by key
        right = set[str]()  # keys
        for one in reports:
            kept = self.copy()
            self.cursors[source] = one.cursor or self.cursors.get(source, "")
            if not self.cursors[source]:
                del self.cursors[source]
            said = (source, msgspec.structs.replace(one, cursor=""))
            mine = key_of_report(one)
            try:
                if said in self.aside or wrong_report(one):
                    raise Refused([])
                book(one, now_us)
            except Refused:
                self.journal, self.balances, self.lots = kept.journal, kept.balances, kept.lots
                # What a key was left out with is forgotten for what it is left out with now.
                self.aside = [other for other in self.aside if key_of_report(other[1]) != mine] + [
                    said
                ]
                aside[mine] = one.id
                right.discard(mine)
            else:
                right.add(mine)
                aside.pop(mine, None)
                for _, late in kept.aside:
                    if (source, late) not in self.aside:
                        aside.pop(key_of_report(late), None)
        # What the engine has put right may be tried as it was before, should it say that again.
        self.aside = [other for other in self.aside if key_of_report(other[1]) not in right]
        return len(self.journal) - before, self.cursors.get(source, ""), sorted(set(aside.values()))

    def _of_report(self, prefixes: Sequence[str]) -> dict[int, Line]:
        """The lines of one report by revision."""
        return {
            int(line.key.removeprefix(prefix)): line
            for prefix in prefixes
            for line in self.journal
            if line.key.startswith(prefix) and line.key.removeprefix(prefix).isdecimal()
        }

    def _report_fill(self, fill: Fill, now_us: int) -> None:
        prefix = key_of_fill(fill)
        booked = self._of_report([prefix])
        latest = max(booked, default=-1)
        event = BookFill(
            fill.instrument,
            fill.quantity,
            fill.price,
            fill.fee,
            fee_asset=fill.fee_asset,
            strategy=fill.strategy,
            at_us=fill.at_us,
        )
        if fill.revision < latest:
            return
        before = booked.get(latest)
        if before is not None and fill.revision == latest:
            bust = before.event.takes_back is not None
            if (not fill.quantity) if bust else (before.content == content_of(event)):
                return
            raise Refused([(IdempotencyConflict, before.key, before.seq)])
        key = f"{prefix}{fill.revision}"
        if before is not None and before.event.takes_back is None:
            old = before.event
            back = msgspec.structs.replace(
                old, quantity=-old.quantity, fee=-old.fee, takes_back=before.seq, at_us=fill.at_us
            )
            self._trade(back, f"{key}:reversal" if fill.quantity else key, now_us)
        if fill.quantity or before is None:
            self._trade(event, key, now_us)
        if before is None:
            self._bust_late(prefix, fill, event, now_us)

    def _bust_late(self, prefix: str, fill: Fill, event: BookFill, now_us: int) -> None:
        """The busts that came before their fill; those of older revisions are done with."""
        waiting = [
            (late.revision, said)
            for said in self.aside
            if isinstance(late := said[1], Fill)
            and key_of_fill(late) == prefix
            and late.revision
            and not wrong_report(late)
            and not late.quantity
        ]
        (seq,) = (line.seq for line in self.journal if line.key == f"{prefix}{fill.revision}")
        length = len(self.journal)
        for revision, said in sorted(waiting, key=lambda one: one[0]):
            if revision > fill.revision and len(self.journal) == length:
                back = msgspec.structs.replace(
                    event, quantity=-fill.quantity, fee=-fill.fee, takes_back=seq
                )
                self._trade(back, f"{prefix}{revision}", now_us)
            self.aside.remove(said)

    def _settlements(self, market: str, strategy: str | None) -> list[Line]:
        """The reported settlements of a market, with those that fills have brought about."""
        return [
            line
            for line in self.journal
            if line.key.startswith("settlement:")
            and isinstance(line.event, BookSettlement)
            and (line.event.market, line.event.strategy) == (market, strategy)
        ]

    def _trade(self, event: BookFill, key: str, now_us: int) -> None:
        """Book a trade, and settle it when its market is settled: all trades here are older."""
        settled = self._settlements(event.instrument, event.strategy)
        held = bool(self.lots.get((event.strategy, event.instrument)))
        self.book(event, key, now_us, reported=True)
        if not settled or held or self._reversal_of(settled[-1].seq) is not None:
            return
        old = settled[-1].event
        counted = settled[-1].moved_lots or is_paid(settled[-1])
        cost, payoff = (
            of_minor(int(rounded(Fraction(amount)) / MINOR)) for amount in (old.cost, old.payoff)
        )
        paid = payoff if counted else payoff - cost
        again = BookSettlement(old.market, cost, payoff, paid, strategy=old.strategy)
        self.book(again, f"settlement:{key}:late", now_us, reported=True)

    def _report_settlement(self, one: Settlement, now_us: int) -> None:
        booked = self._of_report([f"settlement:{one.id}:"])
        latest = max(booked, default=-1)
        event = BookSettlement(one.market, one.cost, one.payoff, strategy=one.strategy)
        if one.revision < latest:
            return
        before = booked.get(latest)
        if before is not None and one.revision == latest:
            said = msgspec.structs.replace(event, paid=before.event.paid)
            if before.content == content_of(said):
                return
            raise Refused([(IdempotencyConflict, before.key, before.seq)])
        key = f"settlement:{one.id}:{one.revision}"
        if before is not None:
            newest = self._settlements(before.event.market, before.event.strategy)[-1]
            if before.moved_lots or is_paid(before) or is_paid(newest):
                old = before.event
                if (old.market, old.strategy) != (one.market, one.strategy):
                    raise Refused([(EntryRefused,)])
                event = msgspec.structs.replace(event, paid=old.payoff)
            elif self._reversal_of(before.seq) is None:
                reason = f"settlement {one.id} revised to {one.revision}"
                back = Reverse(before.seq, reason, strategy=one.strategy)
                self.book(back, f"{key}:reversal", now_us, reported=True)
        self.book(event, key, now_us, reported=True)

    def _report_cash(self, one: CashEvent, now_us: int) -> None:
        key = key_of_report(one)
        amount = of_minor(int(rounded(Fraction(one.amount)) / MINOR))
        about: dict[str, Any] = {
            "strategy": one.strategy,
            "at_us": one.at_us,
            "memo": f"{one.kind} {one.id}",
        }
        event: Event
        match one.kind:
            case "deposit":
                event = Deposit(amount, **about)
            case "withdrawal":
                event = Withdraw(-amount, **about)
            case "interest" | "dividend":
                event = Income(amount, one.instrument, **about)
            case "funding" | "borrow" | "fee":
                event = Financing(-amount, one.instrument, **about)
            case _:
                event = (
                    RecordProfit(amount, **about) if amount > 0 else RecordLoss(-amount, **about)
                )
        self.book(event, key, now_us, reported=True)

    def _reversal_of(self, seq: int) -> Line | None:
        return next((line for line in self.journal if line.reverses == seq), None)

    def book(
        self, event: Write, key: str, now_us: int, *, reported: bool = False
    ) -> tuple[int, str, bool]:
        """Sequence number, key and whether it was there already.

        What is `reported` has happened: no floor refuses it, and its figures are rounded.
        """
        self._reported = reported
        line = next((line for line in self.journal if line.key == key), None)
        if line is not None:
            faults = set(text_faults(event, key))
            if line.content != content_of(event):
                faults.add((IdempotencyConflict, key, line.seq))
            if faults:
                raise Refused(faults)
            return line.seq, key, True
        if isinstance(event, Correct):
            self._correct(event, key, now_us)
        else:
            self._append(event, key, now_us)
        return len(self.journal), key, False

    def _correct(self, event: Correct, key: str, now_us: int) -> None:
        """The mistake is taken back, and only then the entry in its place is looked at; it is
        the one with the key.
        """
        faults, reversal_key = set(text_faults(event, key)), f"{key}:reversal"
        if len(reversal_key) > 128:
            reversal_key = f"{hashlib.sha256(key.encode()).hexdigest()}:reversal"
        faults |= {
            (IdempotencyConflict, reversal_key, line.seq)
            for line in self.journal
            if line.key == reversal_key
        }
        at_us = self._instant_of(event.seq) if event.at_us is None else event.at_us
        replaced = self._replaced_flow(event)
        try:
            self._append(
                Reverse(event.seq, event.reason, strategy=event.strategy, at_us=at_us),
                reversal_key,
                now_us,
                any_time=event.at_us is None,
                moves_units=replaced is None,
            )
            self._append(event.entry, key, now_us, replaced=replaced)
        except Refused as refused:
            faults |= refused.faults
        if faults:
            raise Refused(faults)
        line = self.journal[-1]
        memo = line.memo or event.memo
        self.journal[-1] = replace(line, corrects=event.seq, content=content_of(event), memo=memo)

    def _instant_of(self, seq: int) -> int | None:
        """That of the entry, so that what takes it back has its day; none if that day is closed."""
        last = self._closed()
        closed = last.day if last else ""
        return next(
            (line.at_us for line in self.journal if line.seq == seq and line.day > closed), None
        )

    def _replaced_flow(self, event: Correct) -> Replaced | None:
        """The flow that another flow replaces, and what the fund is worth before both."""
        if not 1 <= event.seq <= len(self.journal):
            return None
        line = self.journal[event.seq - 1]
        amount = self._flow(line)
        if amount is None or not isinstance(event.entry, Deposit | Withdraw):
            return None
        return Replaced(amount, line.strategy, self.nav(), self._in_issue())

    def _flow(self, line: Line) -> Fraction | None:
        """What came in from outside, if the entry, or the one it takes back, is for that."""
        source = line
        while source.kind == "reversal" and source.reverses is not None:
            source = self.journal[source.reverses - 1]
        if source.kind not in ("deposit", "withdrawal"):
            return None
        outside = (key for key in line.legs if (key[0], key[2]) == ("EXTERNAL", "USD"))
        return -summed(line.legs[key] for key in outside)

    def _append(
        self,
        event: Event,
        key: str,
        now_us: int,
        *,
        any_time: bool = False,
        moves_units: bool = True,
        replaced: Replaced | None = None,
    ) -> None:
        self._faults: set[Fault] = set(text_faults(event, key))
        self._event = event
        self._moves_units, self._replaced = moves_units, replaced
        at_us = now_us if event.at_us is None or any_time else event.at_us
        if not LONG_AGO_US <= at_us <= now_us + 300_000_000:
            self._faults.add((ConfigError,))
        before = self.positions()
        day = self._day(event, now_us)
        self._entry: dict[Balance, Fraction] = defaultdict(Fraction)
        self._moved = False
        self._legs(event)
        legs = {name: amount for name, amount in self._entry.items() if amount}
        if not self._faults:
            self._check(legs)
        if self._faults:
            raise Refused(self._faults)
        for name, amount in legs.items():
            self.balances[name] += amount
        if isinstance(event, Price):
            at_us = now_us if event.at_us is None else event.at_us
            if event.asset not in self.prices or self.prices[event.asset][0] <= at_us:
                self.prices[event.asset] = (at_us, factor(event.value) or Fraction(0))
        after, nothing = self.positions(), (Fraction(0),) * 3
        moved = {
            key: tuple(
                new - old
                for new, old in zip(after.get(key, nothing), before.get(key, nothing), strict=True)
            )
            for key in {*before, *after}
        }
        self.journal.append(
            Line(
                seq=len(self.journal) + 1,
                key=key,
                kind=str(event.__struct_config__.tag),
                day=day,
                at_us=event.at_us
                if event.at_us is not None and day_of(event.at_us) == day
                else now_us,
                strategy=event.strategy,
                reverses=self._reverses(event),
                memo=self._memo(event),
                legs=legs,
                moved_lots=self._moved,
                content=content_of(event),
                event=event,
                moved={key: change for key, change in moved.items() if any(change)},
            )
        )

    def _closed(self) -> Line | None:
        """The last close that nobody has taken back."""
        closes = (
            line
            for line in self.journal
            if line.kind == "period_close" and not self._reversal_of(line.seq)
        )
        return max(closes, key=lambda line: line.day, default=None)

    def _day(self, event: Event, now_us: int) -> str:
        last, today = self._closed(), day_of(now_us)
        closed = last.day if last else ""
        if isinstance(event, ReopenPeriod):
            if event.day != closed:
                self._faults.add((EntryRefused,))
            return event.day
        if isinstance(event, ClosePeriod):
            day = event.day
            if day > today:
                self._faults.add((ConfigError,))
        else:
            possible = (
                event.at_us is not None and 0 <= event.at_us < 253_402_300_800_000_000
            )  # else a fault noted already
            day = day_of(event.at_us if possible and event.at_us is not None else now_us)
            if (self._reported or isinstance(event, BookFill | BookSettlement)) and day <= closed:
                day = today
        if day <= closed:
            self._faults.add((PeriodClosed, day, closed))
        return day

    def _reverses(self, event: Event) -> int | None:
        if isinstance(event, ReopenPeriod):
            last = self._closed()
            assert last is not None
            return last.seq
        return event.seq if isinstance(event, Reverse) else None

    def _memo(self, event: Event) -> str:
        if isinstance(event, ReopenPeriod):
            return f"{event.reason} (by {event.by})"
        return event.reason if isinstance(event, Reverse) else event.memo

    def _close_revenue(self, day: str) -> None:
        """What the revenue accounts have by the end of the day, each to RETAINED of its own
        strategy and asset.
        """
        for line in self.journal:
            for (account, strategy, asset), amount in line.legs.items() if line.day <= day else ():
                if account in REVENUE:
                    self._entry[account, strategy, asset] -= amount
                    self._entry["RETAINED", strategy, asset] += amount

    def _check(self, legs: dict[Balance, Fraction]) -> None:
        """Two legs at least, unless only lots moved; each asset to zero; nothing beyond 2^62."""
        sums: dict[str, Fraction] = defaultdict(Fraction)
        totals: dict[str, Fraction] = defaultdict(Fraction)
        for (account, strategy, asset), amount in legs.items():
            sums[asset] += amount
            totals[account] += amount if asset == "USD" else 0
            if max(abs(amount), abs(self.balances[account, strategy, asset] + amount)) > LIMIT:
                self._faults.add((AmountError,))
        quiet = self._moved or isinstance(
            self._event, BookSettlement | ClosePeriod | Price | ReopenPeriod | Reverse
        )
        if any(sums.values()) or (len(legs) < 2 and not (quiet and not legs)):
            self._faults.add((UnbalancedEntry,))
        if any(abs(self.total(account) + amount) > LIMIT for account, amount in totals.items()):
            self._faults.add((AmountError,))

    # -- events

    def _legs(self, event: Event) -> None:
        match event:
            case Deposit():
                amount = self._amount(event.amount, MINOR)
                self._move("CASH", "EXTERNAL", amount)
                self._price_flow(amount)
            case Withdraw():
                amount = self._amount(event.amount, MINOR)
                if amount > self.total("CASH") and not self._reported:
                    self._faults.add((InsufficientFunds, "CASH", amount, self.total("CASH")))
                self._move("EXTERNAL", "CASH", amount)
                self._price_flow(-amount)
            case RecordProfit():
                self._move("CASH", "REALIZED_PNL", self._amount(event.amount, MINOR))
            case RecordLoss():
                self._move("REALIZED_PNL", "CASH", self._amount(event.amount, MINOR))
            case ChargeManagementFee():
                self._move("MANAGEMENT_FEES", "FEES_RECEIVABLE", self._amount(event.amount, MINOR))
            case ChargePerformanceFee():
                self._move("PERFORMANCE_FEES", "FEES_RECEIVABLE", self._amount(event.amount, MINOR))
            case PayFees():
                amount, owed = self._amount(event.amount, MINOR), -self.total("FEES_RECEIVABLE")
                owed = max(owed, Fraction(0))
                if amount > owed:
                    self._faults.add((InsufficientFunds, "FEES_RECEIVABLE", amount, owed))
                self._move("FEES_RECEIVABLE", "CASH", amount)
            case Income():
                self._move("CASH", "INCOME", self._quantity(event.amount))
            case Financing():
                self._move("FINANCING", "CASH", self._quantity(event.amount))
            case ClosePeriod():
                self._close_revenue(event.day)
            case ReopenPeriod():
                last = self._closed()
                for name, amount in last.legs.items() if last and last.day == event.day else ():
                    self._entry[name] -= amount
            case OpenPosition():
                cost, quantity = self._amount(event.cost), self._quantity(event.quantity)
                self._move("TRADING_FEES", "CASH", self._amount(event.fee))
                self._open(event.instrument, quantity, cost)
            case ClosePosition():
                proceeds, quantity = self._amount(event.proceeds), self._quantity(event.quantity)
                self._move("TRADING_FEES", "CASH", self._amount(event.fee))
                self._close(event.instrument, quantity, proceeds)
            case Settle():
                payoff, held = self._amount(event.payoff), self._held(event.market)
                if not held:
                    self._faults.add((PositionMismatch, event.market, event.strategy))
                self._close(event.market, held, payoff)
            case Mark():
                self._mark(event.instrument, self._amount(event.value, -LIMIT))
            case BookFill():
                self._fill(event)
            case BookSettlement():
                cost, payoff = self._amount(event.cost), self._amount(event.payoff)
                # An earlier revision has closed the lots and paid so much.
                paid = None if event.paid is None else self._amount(event.paid)
                held = self._held(event.market)
                if held:
                    received = payoff - (paid or 0)
                    self._close(event.market, held, received if held > 0 else -received)
                else:
                    self._move("CASH", "REALIZED_PNL", payoff - (cost if paid is None else paid))
            case OpeningBalances():
                self._opening(event)
            case Reverse():
                self._reverse(event)
            case Post():
                for leg in event.legs:
                    if leg.account not in KNOWN:
                        self._faults.add((UnknownAccount, leg.account))
                    amount = self._amount(leg.amount, -LIMIT)
                    self._entry[
                        leg.account, leg.strategy or event.strategy, leg.asset or "USD"
                    ] += amount
                for asset in ("USD", "EUR"):
                    if self._moving("EXTERNAL", asset) > 0:
                        self._leave_cash(asset)
                paid = self._moving("FEES_RECEIVABLE", "USD")
                owed = max(-self.total("FEES_RECEIVABLE"), Fraction(0))
                if self._moving("CASH", "USD") < 0 and paid > owed:
                    self._faults.add((InsufficientFunds, "FEES_RECEIVABLE", paid, owed))
            case Split():
                self._split(event)
            case Rename():
                self._rename(event)
            case Transfer():
                self._transfer(event)
            case Convert():
                self._convert(event)
            case Price():
                price = factor(event.value)
                if price is None or not 0 <= price <= LIMIT:
                    self._faults.add((AmountError,))
                if event.asset in ("USD", "UNITS"):
                    self._faults.add((ConfigError,))

    # -- corporate actions, moves between strategies, other assets

    def _moving(self, account: str, asset: str) -> Fraction:
        return summed(
            amount for key, amount in self._entry.items() if (key[0], key[2]) == (account, asset)
        )

    def _leave_cash(self, asset: str) -> None:
        taken = -self._moving("CASH", asset)
        there = summed(
            amount for key, amount in self.balances.items() if (key[0], key[2]) == ("CASH", asset)
        )
        if taken > max(there, Fraction(0)):
            self._faults.add((InsufficientFunds, "CASH", taken, there))

    def _owners(self, instrument: str, strategy: str | None) -> list[str | None]:
        owners = [
            owner
            for (owner, name), lots in self.lots.items()
            if name == instrument and lots and strategy in (None, owner)
        ]
        if not owners:
            self._faults.add((PositionMismatch, instrument, strategy))
        return owners

    def _split(self, event: Split) -> None:
        ratio, owners = ratio_of(event.ratio), self._owners(event.instrument, event.strategy)
        cash = None if event.cash is None else self._amount(event.cash)
        if ratio is None or (cash is not None and len(owners) > 1):
            self._faults.add((AmountError,))
            return
        for owner in owners:
            key = (owner, event.instrument)
            held = summed(lot.quantity for lot in self.lots[key])
            left, lots = rounded(held * ratio), list[Lot]()
            whole = left - left % 1 if left > 0 else left - left % -1
            if cash is not None and left == whole:
                self._faults.add((AmountError,))
            if abs(left) > LIMIT:
                self._faults.add((AmountError,))
            for lot in self.lots[key]:
                quantity = rounded(left * lot.quantity / held)
                if not quantity:
                    self._faults.add((AmountError,))
                    return
                left, held = left - quantity, held - lot.quantity
                lots.append(lot._replace(quantity=quantity))
            self.lots[key], self._moved = lots, True
            if cash is not None:
                # The legs are those of the strategy that holds it, which the event need not name.
                wanted = self._event
                self._event = msgspec.structs.replace(wanted, strategy=owner)
                self._close(event.instrument, self._held(event.instrument) - whole, cash)
                self._event = wanted

    def _rename(self, event: Rename) -> None:
        if event.to == event.instrument:
            self._faults.add((ConfigError,))
            return
        for owner in self._owners(event.instrument, event.strategy):
            self._moved = True
            self._take_in(owner, event.to, self.lots.pop((owner, event.instrument)))

    def _take_in(self, owner: str | None, instrument: str, lots: list[Lot]) -> None:
        """Lots keep their age; two parts of one are one again."""
        here = {lot.id: lot for lot in self.lots.get((owner, instrument), [])}
        for lot in lots:
            if any(lot.quantity * other.quantity < 0 for other in here.values()):
                self._faults.add((PositionMismatch, instrument, owner))
            same = here.get(lot.id)
            figures = lot[1:] if same is None else map(sum, zip(same[1:], lot[1:], strict=True))
            here[lot.id] = Lot(lot.id, *figures)
            if abs(here[lot.id].quantity) > LIMIT:
                self._faults.add((AmountError,))
        self.lots[owner, instrument] = [here[number] for number in sorted(here)]

    def _transfer(self, event: Transfer) -> None:
        giver, taker = event.from_strategy, event.to_strategy
        if giver == taker:
            self._faults.add((ConfigError,))
            return
        quantity = self._quantity(event.quantity)
        lots = self.lots.setdefault((giver, event.instrument), [])
        held = summed(lot.quantity for lot in lots)
        if not quantity:
            return
        if not (0 < quantity <= held or held <= quantity < 0):
            self._faults.add((PositionMismatch, event.instrument, giver))
            return
        gone, self._moved = list[Lot](), True
        while quantity:
            lot = lots.pop(0)
            part = min(Fraction(1), quantity / lot.quantity)
            taken = Lot(
                lot.id, lot.quantity * part, rounded(lot.cost * part), rounded(lot.mark * part)
            )
            gone.append(taken)
            quantity -= taken.quantity
            if part < 1:
                rest = (whole - away for whole, away in zip(lot[1:], taken[1:], strict=True))
                lots.insert(0, Lot(lot.id, *rest))
        cost, mark = summed(lot.cost for lot in gone), summed(lot.mark for lot in gone)
        for owner, sign in ((giver, -1), (taker, 1)):
            self._entry["POSITIONS", owner, "USD"] += sign * cost
            self._entry["CASH", owner, "USD"] -= sign * cost
            self._entry[MARKS, owner, "USD"] += sign * mark
            self._entry["UNREALIZED_PNL", owner, "USD"] -= sign * mark
        self._take_in(taker, event.instrument, gone)

    def _convert(self, event: Convert) -> None:
        if event.asset == event.to_asset or "UNITS" in (event.asset, event.to_asset):
            self._faults.add((ConfigError,))
        owner, fee = event.strategy, self._amount(event.fee, -LIMIT)
        given, got = self._amount(event.amount, MINOR), self._amount(event.to_amount, MINOR)
        for account, asset, amount in (
            ("CASH", event.asset, -given - fee),
            ("CONVERSIONS", event.asset, given),
            ("TRADING_FEES", event.asset, fee),
            ("CASH", event.to_asset, got),
            ("CONVERSIONS", event.to_asset, -got),
        ):
            self._entry[account, owner, asset] += amount
        self._leave_cash(event.asset)

    def _amount(self, value: object, least: Fraction = -LIMIT) -> Fraction:
        amount = exact(value)
        if amount is None and self._reported and isinstance(value, Decimal):
            amount = rounded(factor(value) or Fraction(0))
        if amount is None or amount < least:
            self._faults.add((AmountError,))
            return Fraction(0)
        return amount

    def _quantity(self, value: object) -> Fraction:
        quantity = self._amount(value, -LIMIT)
        if not quantity:
            self._faults.add((AmountError,))
        return quantity

    def _move(self, debit: str, credit: str, amount: Fraction) -> None:
        self._entry[debit, self._event.strategy, "USD"] += amount
        self._entry[credit, self._event.strategy, "USD"] -= amount

    def _issue(self, owner: str | None, units: Fraction) -> None:
        self._entry["HOLDERS", owner, "UNITS"] += units
        self._entry["UNITS", owner, "UNITS"] -= units

    def _price_flow(self, amount: Fraction) -> None:
        """Those of the difference, where it replaces another flow."""
        owner, before = self._event.strategy, self._replaced
        if before is None:
            self._issue(owner, units_for(amount, self.nav(), self._in_issue()))
            return
        moved = units_for(before.amount, before.worth, before.units)
        if before.strategy != owner:
            self._issue(before.strategy, -moved)
            self._issue(owner, moved)
        self._issue(owner, units_for(amount - before.amount, before.worth, before.units))

    def _in_issue(self) -> Fraction:
        of_account = (key for key in self.balances if (key[0], key[2]) == ("UNITS", "UNITS"))
        return -summed(self.balances[key] for key in of_account)

    def _lots(self, instrument: str) -> list[Lot]:
        return self.lots.setdefault((self._event.strategy, instrument), [])

    def _held(self, instrument: str) -> Fraction:
        return summed(lot.quantity for lot in self._lots(instrument))

    def _open(self, instrument: str, quantity: Fraction, cost: Fraction) -> None:
        """A short is paid for by the buyer: its cost is negative."""
        if self._held(instrument) * quantity < 0:
            self._faults.add((PositionMismatch, instrument, self._event.strategy))
        paid = cost if quantity > 0 else -cost
        self._move("POSITIONS", "CASH", paid)
        self._moved = True
        self._lots(instrument).append(Lot(len(self.journal) + 1, quantity, paid, Fraction(0)))

    def _close(self, instrument: str, quantity: Fraction, proceeds: Fraction) -> None:
        """Lot by lot, oldest first; what is taken off a lot costs its share, and takes its share
        of the mark along.
        """
        if not quantity:  # a fault that is noted already
            return
        held = self._held(instrument)
        if not (0 < quantity <= held or held <= quantity < 0):
            self._faults.add((PositionMismatch, instrument, self._event.strategy))
            return
        received = proceeds if quantity > 0 else -proceeds
        self._move("CASH", "REALIZED_PNL", received)
        self._moved = True
        lots = self._lots(instrument)
        while quantity:
            lot = lots.pop(0)
            part = min(Fraction(1), quantity / lot.quantity)
            taken = Lot(
                lot.id, lot.quantity * part, rounded(lot.cost * part), rounded(lot.mark * part)
            )
            quantity -= taken.quantity
            self._move("REALIZED_PNL", "POSITIONS", taken.cost)
            self._move("UNREALIZED_PNL", MARKS, taken.mark)
            if part < 1:
                rest = (whole - gone for whole, gone in zip(lot[1:], taken[1:], strict=True))
                lots.insert(0, Lot(lot.id, *rest))

    def _mark(self, instrument: str, value: Fraction) -> None:
        """Every lot is worth its share of the value; the last one what the others have left."""
        lots, left = self._lots(instrument), self._held(instrument)
        if not lots:
            self._faults.add((PositionMismatch, instrument, self._event.strategy))
            return
        worth_left = value if left > 0 else -value
        self._moved = True
        for number, lot in enumerate(lots):
            worth = rounded(worth_left * lot.quantity / left)
            left, worth_left = left - lot.quantity, worth_left - worth
            lots[number] = lot._replace(mark=worth - lot.cost)
            self._move(MARKS, "UNREALIZED_PNL", lots[number].mark - lot.mark)

    def _fill(self, fill: BookFill) -> None:
        """First against what is held the other way, then into a lot of its own; rounded as the
        one trade that it is.
        """
        price, whole = factor(fill.price), factor(fill.quantity)
        if price is None or whole is None or not rounded(whole) or abs(rounded(whole)) > LIMIT:
            self._faults.add((AmountError,))
            price, whole = Fraction(0), Fraction(1)
        quantity = rounded(whole)
        fee, asset = self._amount(fill.fee), fill.fee_asset or "USD"
        if asset == "UNITS":
            self._faults.add((EntryRefused,))
        self._entry["TRADING_FEES", fill.strategy, asset] += fee
        self._entry["CASH", fill.strategy, asset] -= fee
        held = self._held(fill.instrument)
        closing = Fraction(0)
        if held * quantity < 0:
            closing = max(quantity, -held) if quantity < 0 else min(quantity, -held)
        opening = quantity - closing
        value = rounded(abs(whole) * price)
        if abs(value) > LIMIT:
            self._faults.add((AmountError,))
        closed = rounded(value * closing / quantity) if closing else Fraction(0)
        self._close(fill.instrument, -closing, closed)
        if opening:
            self._open(fill.instrument, opening, value - closed)

    def _opening(self, event: OpeningBalances) -> None:
        """The fund has this cash and these positions, whatever the book says; what is not in it
        was earned before.
        """
        if len(self.journal) > 1 or any(line.kind != "deposit" for line in self.journal):
            self._faults.add((EntryRefused,))
        self._move("CASH", "RETAINED", self._amount(event.cash, -LIMIT) - self.total("CASH"))
        given = []
        for one in event.positions:
            owner = one.strategy or event.strategy
            quantity, cost = self._quantity(one.quantity), self._amount(one.cost)
            value = cost if one.value is None else self._amount(one.value)
            if quantity < 0:
                cost, value = -cost, -value
            if (owner, one.instrument) in given:
                self._faults.add((PositionMismatch, one.instrument, owner))
            given.append((owner, one.instrument))
            self.lots.setdefault((owner, one.instrument), []).append(
                Lot(len(self.journal) + 1, quantity, cost, value - cost)
            )
            self._moved = True
            self._entry["POSITIONS", owner, "USD"] += cost
            self._entry[MARKS, owner, "USD"] += value - cost
            self._entry["RETAINED", event.strategy, "USD"] -= value

    def _reverse(self, event: Reverse) -> None:
        if not 1 <= event.seq <= len(self.journal):
            self._faults.add((UnknownEntry, event.seq))
            return
        original, reversal = self.journal[event.seq - 1], self._reversal_of(event.seq)
        if reversal is not None:
            self._faults.add((AlreadyReversed, event.seq, reversal.seq))
        if original.moved_lots or original.kind in ("period_close", "period_reopen", "price"):
            self._faults.add((EntryRefused,))
        flow = self._flow(original)
        for name, amount in original.legs.items():
            if flow is None or name[2] != "UNITS":
                self._entry[name] -= amount
        if flow is not None and self._moves_units:
            self._issue(original.strategy, units_for(-flow, self.nav(), self._in_issue()))

    # -- reports

    def total(self, account: str) -> Fraction:
        of_account = (key for key in self.balances if (key[0], key[2]) == (account, "USD"))
        return summed(self.balances[key] for key in of_account)

    def _used(self, account: str) -> bool:
        return any(
            (name, asset) == (account, "USD")
            for line in self.journal
            for name, _, asset in line.legs
        )

    def balance_sheet(self) -> dict[str, Fraction]:
        sheet = {
            account: self.total(account) for account in (*SEVEN, *filter(self._used, ONCE_USED))
        }
        sheet["POSITIONS"] += self.total(MARKS)
        return sheet

    def income_statement(self) -> dict[str, Fraction]:
        revenue = ["REALIZED_PNL", "UNREALIZED_PNL", "MANAGEMENT_FEES", "PERFORMANCE_FEES"]
        earned: dict[str, Fraction] = defaultdict(Fraction)
        for line in self.journal:
            for (account, _, asset), amount in line.legs.items():
                if asset == "USD" and line.kind not in ("period_close", "period_reopen"):
                    earned[account] -= amount
        return {
            account: earned[account] for account in (*revenue, *filter(self._used, ONCE_USED[:3]))
        }

    def trial_balance(self) -> dict[str, Fraction]:
        return {**self.balance_sheet(), "EXTERNAL": self.total("EXTERNAL")}

    def nav(self) -> Fraction:
        return summed(
            self.balance_sheet()[account] for account in ("CASH", "POSITIONS", "FEES_RECEIVABLE")
        ) + summed(
            rounded(amount * self.prices[asset][1])
            for asset, amount in self.others().items()
            if asset in self.prices
        )

    def others(self, *owners: str | None) -> dict[str, Fraction]:
        """What the fund, or these owners, have of each other asset."""
        worth: dict[str, Fraction] = defaultdict(Fraction)
        for (account, owner, asset), amount in self.balances.items():
            if account in WORTH and asset not in ("USD", "UNITS") and owner in (owners or [owner]):
                worth[asset] += amount
        return worth

    def _ever(self, accounts: set[str], *owners: str | None) -> Fraction:
        """All that was booked there, but for the entries that closed a period."""
        return summed(
            amount
            for line in self.journal
            if line.kind not in ("period_close", "period_reopen")
            for (account, owner, asset), amount in line.legs.items()
            if account in accounts and asset == "USD" and owner in (owners or [owner])
        )

    def fees(self) -> Fraction:
        return self._ever({"MANAGEMENT_FEES", "PERFORMANCE_FEES"})

    def earned(self) -> Fraction:
        return -self._ever(PNL, None)

    def flows(self) -> list[tuple[int, Fraction, Fraction]]:
        """The newest 100 flows: entry, amount, and the P&L without a strategy before it."""
        found, earned = list[tuple[int, Fraction, Fraction]](), Fraction(0)
        for line in self.journal:
            paid = -sum(
                amount
                for (account, _, asset), amount in line.legs.items()
                if (account, asset) == ("EXTERNAL", "USD")
            )
            if paid:
                found.append((line.seq, Fraction(paid), earned))
            if "period" not in line.kind:
                earned -= sum(
                    amount
                    for (account, strategy, asset), amount in line.legs.items()
                    if account in PNL and strategy is None and asset == "USD"
                )
        return found[-100:]

    def converted(self) -> Fraction | None:
        gain = -self._ever({"CONVERSIONS"}, None)
        for asset, amount in self.others(None).items():
            if asset in self.prices:
                gain += rounded(amount * self.prices[asset][1])
            elif amount and self.balances["CONVERSIONS", None, asset]:
                return None
        return gain

    def nav_per_unit(self) -> Fraction:
        units = self._in_issue()
        return rounded(self.nav() / units) if units > 0 else Fraction(1)

    def positions(self) -> dict[tuple[str | None, str], tuple[Fraction, Fraction, Fraction]]:
        """Quantity, cost and value."""
        answer = {}
        for key, lots in self.lots.items():
            quantity, cost = summed(lot.quantity for lot in lots), summed(lot.cost for lot in lots)
            if lots:
                answer[key] = (quantity, cost, cost + summed(lot.mark for lot in lots))
        return answer


class Replaced(NamedTuple):
    """A flow that is corrected, and what the fund was worth before."""

    amount: Fraction
    strategy: str | None
    worth: Fraction
    units: Fraction


def units_for(amount: Fraction, worth: Fraction, units: Fraction) -> Fraction:
    """At NAV per unit; at 1 when there is nothing to divide, or more than can be counted. A
    withdrawal takes no more than there are.
    """
    if amount < 0:
        return -min(
            rounded(-amount * units / worth) if worth > 0 else -amount, max(Fraction(0), units)
        )
    room = LIMIT - units
    if units > 0 and worth > 0 and rounded(amount * units / worth) <= room:
        return rounded(amount * units / worth)
    return min(amount, room)


def day_of(at_us: int) -> str:
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).date().isoformat()


def events_of(request: Request) -> tuple[Write, ...]:
    match request:
        case PostMany():
            return request.events
        case BookFills() | BookSettlements() | BookCashEvents():
            return ()
        case _:
            return (request,)


def key_of_fill(fill: Fill) -> str:
    three = json.dumps([fill.strategy, fill.instrument, fill.id]).encode()
    return f"fill:{hashlib.sha256(three).hexdigest()}:"


def key_of_report(report: Report) -> str:
    match report:
        case Fill():
            return f"{key_of_fill(report)}{report.revision}"
        case Settlement():
            return f"settlement:{report.id}:{report.revision}"
        case _:
            return f"cash_event:{hashlib.sha256(report.id.encode()).hexdigest()}"


def wrong_report(report: Report) -> bool:
    """Whether a field of it cannot be taken. Of all that may be wrong, these are drawn."""
    figures = ("quantity", "price", "fee", "cost", "payoff", "amount")
    if any(
        not isinstance(figure, Decimal) or not figure.is_finite()
        for figure in (getattr(report, name) for name in figures if hasattr(report, name))
    ):
        return True
    if isinstance(report, CashEvent):
        return (report.kind == "deposit" and report.amount < 0) or (
            report.kind == "withdrawal" and report.amount > 0
        )
    return not report.strategy or getattr(report, "at_us", START_US) < START_US


def text_faults(event: Write, key: str) -> Iterable[Fault]:
    """Texts have 1 to 128 characters, instants lie between 1970 and 9999, what corrects has no
    key of its own.
    """
    texts = [
        key,
        event.strategy,
        getattr(event, "instrument", None),
        getattr(event, "market", None),
        *(
            getattr(event, name, None)
            for name in ("asset", "fee_asset", "to", "to_asset", "from_strategy", "to_strategy")
        ),
    ]
    texts += [text for leg in getattr(event, "legs", ()) for text in (leg.strategy, leg.asset)]
    texts += [
        text for one in getattr(event, "positions", ()) for text in (one.strategy, one.instrument)
    ]
    if isinstance(event, Correct) and event.entry.key is not None:
        yield (ConfigError,)
    if any(text is not None and not 1 <= len(text) <= 128 for text in texts):
        yield (ConfigError,)
    if len(event.memo) > 1_024 or len(getattr(event, "reason", "")) > 1_024:
        yield (ConfigError,)
    if event.at_us is not None and not 0 <= event.at_us < 253_402_300_800_000_000:
        yield (ConfigError,)


def fault_of(refusal: Rejected) -> Fault:
    """A refusal of the ledger as the oracle would name it."""
    match refusal:
        case InsufficientFunds():
            return (
                InsufficientFunds,
                refusal.account,
                Fraction(refusal.requested),
                Fraction(refusal.available),
            )
        case IdempotencyConflict():
            return IdempotencyConflict, refusal.key, refusal.seq
        case PeriodClosed():
            return PeriodClosed, refusal.day, refusal.closed
        case AlreadyReversed():
            return AlreadyReversed, refusal.seq, refusal.by
        case UnknownEntry():
            return UnknownEntry, refusal.seq
        case UnknownAccount():
            return UnknownAccount, refusal.account
        case PositionMismatch():
            return PositionMismatch, refusal.instrument, refusal.strategy
        case ConfigError():
            return (ConfigError,)
        case _:
            return (type(refusal),)


# -- the ledger


class View(NamedTuple):
    """What the ledger says of itself."""

    totals: LedgerTotals
    balance_sheet: dict[str, Decimal]
    income_statement: dict[str, Decimal]
    trial_balance: dict[str, Decimal]
    nav_per_unit: Decimal
    entries: tuple[Entry, ...]


class Ledger:
    """The real one, in a trio run of its own."""

    def __init__(self, path: Path, clock: VirtualClock) -> None:
        self._path, self._clock = path, clock
        self._up, self._down = threading.Event(), trio.Event()
        self._threads = ThreadPoolExecutor(1)
        self._run: Future[None] = self._threads.submit(
            partial(trio.run, self._live, clock=MockClock(autojump_threshold=0))
        )
        self._up.wait()
        if self._run.done():
            self._run.result()

    async def _live(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        children = [
            ChildSpec(
                "persistence",
                lambda: PersistenceActor(self._path, MIGRATIONS, make_worker=InlineWorker),
            ),
            ChildSpec(
                "ledger",
                lambda: LedgerActor(self._path, self._clock, "USD", make_worker=InlineWorker),
            ),
        ]
        try:
            async with open_supervisor(children) as supervisor:
                self._supervisor: Supervisor = supervisor
                self._ref = supervisor.ref("ledger")
                self._up.set()
                await self._down.wait()
        finally:
            self._up.set()

    def _call(self, step: Callable[..., Any], *arguments: Any) -> Any:
        return trio.from_thread.run(step, *arguments, trio_token=self._token)

    def close(self) -> None:
        """Raises: whatever ended the run before its time."""
        try:
            if not self._run.done():
                trio.from_thread.run_sync(self._down.set, trio_token=self._token)
            self._run.result()
        finally:
            self._threads.shutdown()

    def crash(self) -> None:
        """The actor dies between two messages; its next life reads the file."""
        self._call(self._crash)

    async def _crash(self) -> None:
        self._supervisor.drill("ledger")
        await wait_all_tasks_blocked()

    def ask(self, requests: Sequence[Request], newest: int) -> tuple[list[Any], View]:
        """The answer or refusal of each, and what it looks like after the last.

        More than one are asked at once, in this order.
        """
        return self._call(self._ask, requests, newest)  # type: ignore[no-any-return]

    async def _ask(self, requests: Sequence[Request], newest: int) -> tuple[list[Any], View]:
        questions: list[Any] = list(requests)
        answers: list[Any] = [None] * len(requests)

        async def ask(number: int, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()  # and is in the mailbox before anybody else runs
            try:
                answers[number] = await self._ref.ask(questions[number], timeout_s=60)
            except Rejected as refusal:
                answers[number] = refusal

        async with trio.open_nursery() as nursery:
            for number in range(len(requests)):
                await nursery.start(ask, number)
        return answers, await self._view(newest)

    def view(self, newest: int) -> View:
        """With the newest of its entries."""
        return self._call(self._view, newest)  # type: ignore[no-any-return]

    async def _view(self, newest: int) -> View:
        questions: list[Any] = [
            ReadTotals(),
            BalanceSheet(),
            IncomeStatement(),
            TrialBalance(),
            NavPerUnit(),
        ]
        return View(
            *[await self._ref.ask(question) for question in (*questions, RecentEntries(newest))]
        )


# A file system in memory, where there is one: what a power cut leaves is asked elsewhere.
FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None


@cache
def empty_file() -> bytes:
    """A migrated database, to begin with: making one takes longer than most histories."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        path = Path(folder) / "fund.db"
        open_database(path, MIGRATIONS).close()
        return path.read_bytes()


# -- what is asked

STRATEGIES = st.sampled_from([None, None, "mm", "mm", "arb"])
INSTRUMENTS = st.sampled_from(["X", "X", "X", "X", "Y"])
DAY_US = 86_400_000_000


def often(
    usual: st.SearchStrategy[Any], rare: st.SearchStrategy[Any], one_in: int
) -> st.SearchStrategy[Any]:
    return st.integers(1, one_in).flatmap(lambda number: rare if number == one_in else usual)


def of_minor(minor: int) -> Decimal:
    return Decimal(minor).scaleb(-8)


SENSIBLE = (
    st.integers(1, 2_000)
    | st.integers(1, 10**13).map(of_minor)
    | st.integers(1, 9).map(of_minor)
    | st.integers(1, 10**13).map(lambda minor: str(of_minor(minor)))
    | st.floats(0.01, 2_000)
)
HUGE = st.sampled_from(
    [Decimal(2**62).scaleb(-8), "46116860184.27387903", 30_000_000_000, 46_116_860_185]
)
SENSELESS = st.sampled_from(
    [0, -1, "-0.00000001", "0.000000001", float("nan"), float("-inf"), True, None, "x", ""]
)
AMOUNT = often(SENSIBLE, SENSELESS | HUGE, 15)
FEE = often(st.sampled_from([0, 0, "0.00000003", 2, 0.1]), SENSELESS, 20)
QUANTITY = often(
    st.sampled_from([1, 3, -1, -3, 10, -10, "2.5", "-2.5", "0.00000001", "-0.00000007", 0.3, -0.3]),
    st.sampled_from([0, float("nan"), "0.000000001", True, 30_000_000_000, -30_000_000_000]),
    20,
)
PRICE = often(
    st.sampled_from([10, "0.5", "0.33333333", 7.77, "0.00000001", 0, 120]), SENSELESS | HUGE, 20
)
FEE_ASSETS = often(st.sampled_from([None, None, "EUR", "USD"]), st.sampled_from(["UNITS", ""]), 30)
COMMON = st.fixed_dictionaries(
    {
        # The key of a correction's reversal may be taken, and must fit.
        "key": often(st.none(), st.sampled_from(["a", "a:reversal", "b", "c", "d", "k" * 120]), 5),
        "strategy": often(STRATEGIES, st.sampled_from(["", "s" * 129]), 60),
        "at_us": often(
            st.sampled_from([None, None, None, START_US, START_US + 300_000_000, LONG_AGO_US]),
            st.sampled_from([-1, 0, START_US // 1_000, START_US + DAY_US, 253_402_300_800_000_000]),
            30,
        ),
        "memo": often(st.sampled_from(["", "", "why"]), st.just("m" * 1_025), 60),
    }
)
ACCOUNT = often(st.sampled_from(sorted(KNOWN)), st.just("SLUSH"), 40)
ASSETS = st.sampled_from([None, None, "EUR"])


def common(kind: type[Any], *content: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Events of one kind, with these fields first."""
    named = st.fixed_dictionaries(dict(zip(kind.__struct_fields__, content, strict=False)))

    # hypothesis describes each rule by its strategies: those of a function it describes by name.
    @st.composite
    def events(draw: st.DrawFn) -> Any:
        return kind(**draw(named), **draw(COMMON))

    return events()


def legs_of(
    parts: list[tuple[str, Any, str | None]], asset: str | None, last: str, balanced: bool
) -> tuple[Leg, ...]:
    legs = [Leg(account, amount, strategy, asset) for account, amount, strategy in parts]
    amounts = [exact(leg.amount) for leg in legs]
    if balanced and None not in amounts:
        left = summed(amount for amount in amounts if amount is not None)
        legs.append(Leg(last, of_minor(int(-left / MINOR)), None, asset))
    return tuple(legs)


PARTS = st.lists(
    st.tuples(ACCOUNT, SENSIBLE | st.integers(-500, -1) | AMOUNT, STRATEGIES), max_size=3
)
LEGS = st.builds(legs_of, PARTS, ASSETS, ACCOUNT, often(st.just(True), st.just(False), 8))

DAYS = st.integers(-1, 3).map(lambda days: day_of(START_US + days * DAY_US))
PERIODS = st.builds(ClosePeriod, DAYS) | st.builds(
    ReopenPeriod, DAYS, st.just("late"), st.just("ann")
)

HELD_BEFORE = st.builds(
    OpeningPosition,
    often(INSTRUMENTS, st.sampled_from(["", "i" * 129]), 60),
    QUANTITY,
    AMOUNT,
    st.none() | AMOUNT | st.just(0),
    often(STRATEGIES, st.sampled_from(["", "s" * 129]), 60),
)
# The strategy of the whole request may still make two of them the same.
HELD_ONCE = st.lists(
    HELD_BEFORE, min_size=1, max_size=4, unique_by=lambda one: (one.instrument, one.strategy)
)
HOLDINGS = often(HELD_ONCE, st.lists(HELD_BEFORE, max_size=4), 5).map(tuple)

RATIO = often(
    st.sampled_from([2, "3:2", "1:10", "0.5", 1.5, "1:3", "7 : 3"]),
    st.sampled_from([0, -1, "1:0", "1:2:3", "x", float("nan"), "0.00000001", 30_000_000_000]),
    10,
)
MONEY = often(st.sampled_from(["USD", "EUR", "EUR"]), st.sampled_from(["UNITS", "", "JPY"]), 15)

EVENTS: dict[type[Any], st.SearchStrategy[Any]] = {
    Deposit: common(Deposit, AMOUNT),
    Withdraw: common(Withdraw, AMOUNT),
    RecordProfit: common(RecordProfit, AMOUNT),
    RecordLoss: common(RecordLoss, AMOUNT),
    OpenPosition: common(OpenPosition, INSTRUMENTS, QUANTITY, AMOUNT, FEE),
    ClosePosition: common(ClosePosition, INSTRUMENTS, QUANTITY, AMOUNT, FEE),
    Mark: common(Mark, INSTRUMENTS, AMOUNT | st.just(0)),
    Income: common(Income, QUANTITY),
    Financing: common(Financing, QUANTITY),
    Settle: common(Settle, INSTRUMENTS, AMOUNT | st.just(0)),
    ChargeManagementFee: common(ChargeManagementFee, AMOUNT),
    ChargePerformanceFee: common(ChargePerformanceFee, AMOUNT),
    PayFees: common(PayFees, AMOUNT),
    OpeningBalances: common(OpeningBalances, AMOUNT | st.integers(-500, 0), HOLDINGS),
    Reverse: common(Reverse, st.integers(-1, 25), st.sampled_from(["wrong", ""])),
    Post: common(Post, LEGS),
    Split: common(Split, INSTRUMENTS, RATIO, often(st.none(), FEE | SENSIBLE, 3)),
    Rename: common(Rename, INSTRUMENTS, INSTRUMENTS),
    Transfer: common(Transfer, INSTRUMENTS, QUANTITY, STRATEGIES, STRATEGIES),
    Convert: common(Convert, AMOUNT, MONEY, AMOUNT, MONEY, FEE),
    Price: common(Price, MONEY | st.just("EUR"), AMOUNT | st.just(0)),
    BookFill: common(BookFill, INSTRUMENTS, QUANTITY, PRICE, FEE, FEE_ASSETS),
    BookSettlement: common(
        BookSettlement, INSTRUMENTS, AMOUNT, AMOUNT, often(st.none(), AMOUNT, 6)
    ),
}
MOSTLY_BOOKED = [
    EVENTS[kind]
    for kind in (Deposit, RecordProfit, RecordLoss, OpenPosition, BookFill, BookSettlement)
]
IN_ITS_PLACE = often(st.one_of(MOSTLY_BOOKED) | st.one_of(list(EVENTS.values())), PERIODS, 20)
EVENTS[Correct] = common(
    Correct,
    st.integers(-1, 25),
    # A key inside is refused.
    often(
        IN_ITS_PLACE.map(lambda event: msgspec.structs.replace(event, key=None)), IN_ITS_PLACE, 20
    ),
    st.sampled_from(["typo", ""]),
)
ANY_EVENT = st.one_of(list(EVENTS.values()))
MOVES = st.one_of(
    [EVENTS[kind] for kind in (RecordProfit, RecordLoss, ChargeManagementFee, ChargePerformanceFee)]
)
WAYS = st.sampled_from(["one by one", "at once", "all or none"])
# A run of trades in one position, most of which make sense.
TRADES = st.lists(
    EVENTS[OpenPosition]
    | EVENTS[OpenPosition]
    | EVENTS[BookFill]
    | EVENTS[ClosePosition]
    | EVENTS[Mark],
    min_size=2,
    max_size=6,
)
FILLS = st.lists(
    st.builds(
        Fill,
        id=st.integers(1, 4).map(lambda number: f"f{number}"),
        strategy=often(st.sampled_from(["mm", "arb"]), st.just(""), 20),
        instrument=INSTRUMENTS,
        quantity=st.sampled_from(
            ["1", "-1", "2.5", "-10", "0.00000007", "1.123456789", "4e10", "0", "1e-9"]
        ).map(Decimal),
        price=st.sampled_from(["10", "0.33333333", "7.77", "0.333333333", "4e-9", "-3.5"]).map(
            Decimal
        ),
        fee=often(st.sampled_from(["0", "0.00000003", "-0.5"]).map(Decimal), st.none(), 20),
        at_us=often(st.just(START_US), st.just(0), 20),
        cursor=st.integers(0, 12).map(lambda number: str(number or "")),
        fee_asset=st.sampled_from([None, None, "EUR"]),
        revision=st.sampled_from([0, 0, 0, 1, 2]),
    ),
    max_size=4,
).map(tuple)
SETTLEMENTS = st.lists(
    st.builds(
        Settlement,
        id=st.sampled_from(["m", "m:1"]),
        market=INSTRUMENTS,
        strategy=st.sampled_from(["mm", "arb"]),
        cost=st.sampled_from(["5", "8", "-1"]).map(Decimal),
        payoff=often(
            st.sampled_from(["0", "5", "8.5", "-1", "0.333333333"]).map(Decimal),
            st.just(Decimal("NaN")),
            20,
        ),
        revision=st.integers(0, 6),
        cursor=st.sampled_from(["", "1", "2"]),
    ),
    max_size=3,
).map(tuple)

CASH_EVENTS = st.lists(
    st.builds(
        CashEvent,
        id=st.integers(1, 6).map(lambda number: f"c{number}"),
        kind=st.sampled_from(
            ["funding", "interest", "dividend", "borrow", "fee", "deposit", "withdrawal", "other"]
        ),
        amount=st.sampled_from(["5", "-5", "0.123456789", "-800", "0", "1e-9"]).map(Decimal),
        at_us=st.just(START_US),
        strategy=STRATEGIES,
        instrument=st.none() | INSTRUMENTS,
        cursor=st.sampled_from(["", "1", "2"]),
    ),
    max_size=3,
).map(tuple)


def in_position(event: Any, strategy: str | None, side: int) -> Event:
    """The same trade as one of this strategy in X, long or short."""
    changes: dict[str, Any] = {"strategy": strategy, "instrument": "X", "key": None}
    quantity = exact(getattr(event, "quantity", None))
    if quantity and not isinstance(event, BookFill):
        changes["quantity"] = of_minor(side * int(abs(quantity) / MINOR))
    return msgspec.structs.replace(event, **changes)  # type: ignore[no-any-return]


def respelt(request: Any, spelling: Callable[[Fraction], Any]) -> Any:
    """The same request, or part of one, with its amounts written another way."""
    changes: dict[str, Any] = {}
    for name in request.__struct_fields__:
        value = getattr(request, name)
        if isinstance(value, tuple):
            changes[name] = tuple(respelt(part, spelling) for part in value)
        elif isinstance(value, msgspec.Struct):
            changes[name] = respelt(value, spelling)
        elif name in AMOUNTS and exact(value) is not None:
            changes[name] = spelling(exact(value) or Fraction(0))
    return msgspec.structs.replace(request, **changes)


def nearly(event: Write, inside: bool, memo: str, strategy: str | None) -> Write:
    """The same request in other words, or with other words in a part of it."""
    words: dict[str, Any] = {"memo": memo, "strategy": strategy}
    match event:
        case Correct() if inside:
            words = {"entry": msgspec.structs.replace(event.entry, **words)}
        case OpeningBalances() if inside:
            positions = event.positions
            words = {
                "positions": tuple(
                    msgspec.structs.replace(one, strategy=strategy) for one in positions
                )
            }
        case Post() if inside:
            words = {
                "legs": tuple(msgspec.structs.replace(leg, strategy=strategy) for leg in event.legs)
            }
    return msgspec.structs.replace(event, **words)


SPELLINGS: list[Callable[[Fraction], Any]] = [
    lambda amount: of_minor(int(amount / MINOR)),
    lambda amount: f" {of_minor(int(amount / MINOR)):f}",
    lambda amount: (
        float(amount)
        if rounded(Fraction(float(amount))) == amount
        else str(of_minor(int(amount / MINOR)))
    ),
]


# -- any order of requests


NEWEST = (
    8  # entries that are compared after each step: more than one step books, but for the largest
)


class Anything(RuleBasedStateMachine):
    """Each rule asks both, and compares what they answer and everything that can be seen of them
    then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=FOLDER)
        self.path = Path(self.folder.name) / "fund.db"
        self.path.write_bytes(empty_file())
        self.clock = VirtualClock(START_US)
        self.oracle = Oracle()
        self.booked: list[Write] = []  # with the keys they were booked under
        self.hashes: dict[int, str] = {}
        self.crashed = False
        self.ledger = Ledger(self.path, self.clock)
        self.reader = Reader(self.path)

    def teardown(self) -> None:
        self.reader.close()
        self.ledger.close()
        self.folder.cleanup()

    def mistakes(self) -> list[Line]:
        """What may be corrected."""
        reversed_already = {line.reverses for line in self.oracle.journal}
        return [
            line
            for line in self.oracle.journal
            if not line.moved_lots
            and line.seq not in reversed_already
            and line.kind not in ("period_close", "period_reopen", "price")
        ]

    # -- comparing

    def ask(self, *requests: Request) -> None:
        answers, view = self.ledger.ask(requests, NEWEST)
        for request, answer in zip(requests, answers, strict=True):
            self.judge(request, answer)
        self.compare(view, NEWEST)

    def ask_in(self, how: str, requests: Sequence[Write]) -> None:
        """One of `WAYS`."""
        match how:
            case "one by one":
                for request in requests:
                    self.ask(request)
            case "at once":
                self.ask(*requests)
            case _:
                self.ask(PostMany(tuple(requests)))

    def judge(self, request: Request, answer: Any) -> None:
        posted = (
            answer if isinstance(answer, tuple) else (answer,) if isinstance(answer, Posted) else ()
        )
        events = events_of(request)
        fresh = [one.key for event, one in zip(events, posted, strict=False) if event.key is None]
        trial = self.oracle.copy()
        try:
            expected = trial.answer(request, self.clock.now_us(), fresh)
        except Refused as refused:
            expected = refused.faults
        if isinstance(expected, set):
            assert isinstance(answer, Rejected), (request, answer, expected)
            assert fault_of(answer) in expected, (request, answer, expected)
            return
        assert not isinstance(answer, Rejected), (request, answer)
        if isinstance(answer, Booked):
            ids = sorted({report.id for report in answer.aside})
            assert (answer.new, answer.cursor, ids) == expected, (request, answer)
        else:
            told = tuple((one.seq, one.key, one.replayed) for one in posted)
            assert told == (expected if isinstance(answer, tuple) else (expected,)), request
            for event, one in zip(events, posted, strict=True):
                assert self.hashes.setdefault(one.seq, one.hash) == one.hash
                if not one.replayed:
                    self.booked.append(msgspec.structs.replace(event, key=one.key))
        self.oracle = trial

    def compare_all(self) -> None:
        """With every entry."""
        newest = len(self.oracle.journal) + 1
        self.compare(self.ledger.view(newest), newest)
        self.compare_history()

    def compare_history(self) -> None:
        """The holdings of every day, and P&L by strategy."""
        reports = Reports(self.reader, "USD")
        lines, nothing = self.oracle.journal, (Fraction(0),) * 3
        for day in {line.day for line in lines}:
            held: dict[Any, tuple[Fraction, ...]] = {}
            for line in lines:
                for key, change in line.moved.items() if line.day <= day else ():
                    before = held.get(key, nothing)
                    held[key] = tuple(a + b for a, b in zip(before, change, strict=True))
            assert {
                (one.strategy, one.instrument): tuple(
                    map(Fraction, (one.quantity, one.cost, one.value))
                )
                for one in reports.positions(day)
            } == {key: figures for key, figures in held.items() if any(figures)}
        gains: dict[str, Fraction] = defaultdict(Fraction)
        for line in lines:
            for (account, strategy, asset), amount in line.legs.items():
                if (account, asset) == ("REALIZED_PNL", "USD") and "period" not in line.kind:
                    gains[strategy or ""] -= amount
        assert reports.realized() == gains

    def compare(self, view: View, newest: int) -> None:
        oracle = self.oracle
        assert view.balance_sheet == oracle.balance_sheet()
        assert view.income_statement == oracle.income_statement()
        assert view.trial_balance == oracle.trial_balance()
        assert sum(view.trial_balance.values()) == 0
        assert view.nav_per_unit == oracle.nav_per_unit()
        totals = view.totals
        assert totals.balance_sheet == view.balance_sheet
        assert totals.nav_minor * MINOR == oracle.nav()
        assert totals.external_minor * MINOR == -oracle.total("EXTERNAL")
        assert totals.fees_minor * MINOR == oracle.fees()
        assert totals.earned_minor * MINOR == oracle.earned()
        assert [
            (flow.seq, flow.amount_minor * MINOR, flow.earned_minor * MINOR)
            for flow in totals.flows
        ] == oracle.flows()
        converted = totals.converted_minor
        assert oracle.converted() == (None if converted is None else converted * MINOR)
        unpriced = [name for name, amount in oracle.others().items() if amount]
        assert list(totals.unpriced) == sorted(set(unpriced) - oracle.prices.keys())
        assert totals.entries == len(oracle.journal)
        assert totals.cursors == oracle.cursors
        positions: dict[Any, Any] = {
            (one.strategy, one.instrument): (one.quantity, one.cost, one.value)
            for one in totals.positions
        }
        assert positions == oracle.positions()
        self.compare_entries(view.entries, oracle.journal[: -newest - 1 : -1])
        self.compare_tables()

    def compare_entries(self, entries: Sequence[Entry], lines: Sequence[Line]) -> None:
        for entry, line in zip(entries, lines, strict=True):
            legs = {(leg.account, leg.strategy, str(leg.asset)): leg.amount for leg in entry.legs}
            assert len(legs) == len(entry.legs)
            assert (entry.seq, entry.key, entry.kind, entry.day) == (
                line.seq,
                line.key,
                line.kind,
                line.day,
            ), entry
            assert (entry.strategy, entry.reverses, entry.memo) == (
                line.strategy,
                line.reverses,
                line.memo,
            )
            assert entry.corrects == line.corrects, entry
            assert legs == line.legs, (entry, line)
            assert self.hashes.setdefault(entry.seq, entry.hash) == entry.hash

    def compare_tables(self) -> None:
        """What a restart would read."""
        balances = {
            (account, strategy or None, asset): amount * MINOR
            for account, strategy, asset, amount in self.reader.rows(
                "SELECT * FROM balance WHERE amount_minor <> 0"
            )
        }
        assert balances == {name: amount for name, amount in self.oracle.balances.items() if amount}
        lots: dict[tuple[str | None, str], list[Lot]] = defaultdict(list)
        for strategy, instrument, number, *figures in self.reader.rows(
            "SELECT strategy, instrument, id, quantity, cost_minor, mark_minor FROM lot ORDER BY id"
        ):
            lots[strategy or None, instrument].append(
                Lot(number, *(figure * MINOR for figure in figures))
            )
        assert lots == {key: lots for key, lots in self.oracle.lots.items() if lots}

    # -- how it begins

    @initialize(
        first=st.sampled_from(
            [None, Deposit(1_000), Deposit("0.00000001"), OpenPosition("X", 3, 30)]
        ),
        strategy=STRATEGIES,
        openings=often(st.lists(EVENTS[OpeningBalances], min_size=1, max_size=3), st.just([]), 3),
        at_once=st.booleans(),
        correction=st.none() | EVENTS[Correct],
    )
    def the_fund_may_have_traded_before(
        self,
        first: Deposit | OpenPosition | None,
        strategy: str | None,
        openings: list[OpeningBalances],
        at_once: bool,
        correction: Correct | None,
    ) -> None:
        """After the first entry, if there is one: what it held, once more should that be
        refused, and a correction.
        """
        if not openings:
            return
        before = () if first is None else (msgspec.structs.replace(first, strategy=strategy),)
        for request in (*([PostMany((*before, openings[0]))] if at_once else before), *openings):
            self.ask(request)
        if correction is not None:
            self.ask(msgspec.structs.replace(correction, seq=len(self.oracle.journal)))

    @precondition(lambda self: len(self.oracle.journal) <= 2)
    @rule(event=EVENTS[OpeningBalances])
    def opening_balances(self, event: OpeningBalances) -> None:
        self.ask(event)

    # -- one event each

    @rule(event=EVENTS[Deposit])
    def deposit(self, event: Deposit) -> None:
        self.ask(event)

    @rule(event=EVENTS[Withdraw])
    def withdraw(self, event: Withdraw) -> None:
        self.ask(event)

    @rule(event=EVENTS[Withdraw], short=st.sampled_from([0, 0, 1]))
    def withdraw_everything(self, event: Withdraw, short: int) -> None:
        """To the last minor unit, or one more than there is."""
        cash = int(self.oracle.total("CASH") / MINOR)
        self.ask(msgspec.structs.replace(event, amount=of_minor(cash + short)))

    @rule(event=EVENTS[RecordProfit])
    def profit(self, event: RecordProfit) -> None:
        self.ask(event)

    @rule(event=EVENTS[RecordLoss])
    def loss(self, event: RecordLoss) -> None:
        self.ask(event)

    @rule(event=EVENTS[OpenPosition])
    def open_position(self, event: OpenPosition) -> None:
        self.ask(event)

    @rule(event=EVENTS[ClosePosition])
    def close_position(self, event: ClosePosition) -> None:
        self.ask(event)

    @precondition(lambda self: self.oracle.positions())
    @rule(
        event=EVENTS[ClosePosition], which=st.integers(0, 9), part=st.sampled_from([1, 1, 2, 3, 7])
    )
    def close_part_of_what_is_held(self, event: ClosePosition, which: int, part: int) -> None:
        (strategy, instrument), (held, *_) = self.one_of(
            sorted(self.oracle.positions().items(), key=str), which
        )
        quantity = of_minor(int(held / part / MINOR))
        self.ask(
            msgspec.structs.replace(
                event, strategy=strategy, instrument=instrument, quantity=quantity
            )
        )

    @rule(trades=TRADES, strategy=STRATEGIES, side=st.sampled_from([1, -1]))
    def trade_one_after_the_other(self, trades: list[Any], strategy: str | None, side: int) -> None:
        for trade in trades:
            self.ask(in_position(trade, strategy, side))

    @rule(trades=TRADES, strategy=STRATEGIES, side=st.sampled_from([1, -1]))
    def trade_all_or_none(self, trades: list[Any], strategy: str | None, side: int) -> None:
        self.ask(PostMany(tuple(in_position(trade, strategy, side) for trade in trades[:3])))

    @rule(event=EVENTS[Mark])
    def mark(self, event: Mark) -> None:
        self.ask(event)

    @precondition(lambda self: self.oracle.positions())
    @rule(event=EVENTS[Mark], which=st.integers(0, 9))
    def mark_what_is_held(self, event: Mark, which: int) -> None:
        strategy, instrument = self.one_of(sorted(self.oracle.positions(), key=str), which)
        self.ask(msgspec.structs.replace(event, strategy=strategy, instrument=instrument))

    @rule(event=EVENTS[Settle])
    def settle(self, event: Settle) -> None:
        self.ask(event)

    @rule(event=EVENTS[ChargeManagementFee] | EVENTS[ChargePerformanceFee])
    def charge_a_fee(self, event: Event) -> None:
        self.ask(event)

    @rule(event=EVENTS[PayFees])
    def pay_fees(self, event: PayFees) -> None:
        self.ask(event)

    @rule(event=EVENTS[Income] | EVENTS[Financing])
    def income_or_financing(self, event: Event) -> None:
        self.ask(event)

    @rule(back=st.sampled_from([-1, 0, 1, 1, 2, 3]), reopened=st.sampled_from([None, 0, 0, 1]))
    def a_period_is_closed_and_perhaps_reopened(self, back: int, reopened: int | None) -> None:
        """That of some days ago or of today, or of tomorrow; and the same one taken back, or
        another.
        """
        now_us = self.clock.now_us()
        self.ask(ClosePeriod(day_of(now_us - back * DAY_US)))
        if reopened is not None:
            self.ask(ReopenPeriod(day_of(now_us - (back + reopened) * DAY_US), "late", "ann"))

    @rule(event=EVENTS[Reverse])
    def reverse(self, event: Reverse) -> None:
        self.ask(event)

    @precondition(lambda self: self.oracle.journal)
    @rule(event=EVENTS[Correct], which=st.integers(0, 60))
    def correct_any_entry(self, event: Correct, which: int) -> None:
        self.ask(msgspec.structs.replace(event, seq=self.one_of(self.oracle.journal, which).seq))

    @precondition(lambda self: self.mistakes())
    @rule(event=EVENTS[Correct], which=st.integers(0, 60))
    def correct_what_may_be_corrected(self, event: Correct, which: int) -> None:
        self.ask(
            msgspec.structs.replace(event, seq=self.one_of(self.mistakes(), which).seq, at_us=None)
        )

    @precondition(lambda self: self.mistakes())
    @rule(
        event=EVENTS[Correct],
        which=st.integers(0, 60),
        days=st.integers(0, 1),
        closed=st.booleans(),
        reopened=st.booleans(),
    )
    def correct_an_entry_of_another_day(
        self, event: Correct, which: int, days: int, closed: bool, reopened: bool
    ) -> None:
        """Of one that is open or closed, and perhaps opened again."""
        mistake = self.one_of(self.mistakes(), which)
        self.clock.advance(days * 86_400)
        if closed:
            self.ask(ClosePeriod(mistake.day))
        self.ask(msgspec.structs.replace(event, seq=mistake.seq, at_us=None))
        if reopened:
            self.ask(ReopenPeriod(mistake.day, "late", "ann"))

    @rule(event=EVENTS[BookSettlement], correction=EVENTS[Correct], days=st.integers(0, 1))
    def correct_a_settlement_that_came_late(
        self, event: BookSettlement, correction: Correct, days: int
    ) -> None:
        """It has the day it came on, which is open: so has its reversal, though it happened on
        one that is closed.
        """
        at_us = self.clock.now_us()
        self.clock.advance(86_400)
        self.ask(ClosePeriod(day_of(at_us)))
        self.ask(msgspec.structs.replace(event, at_us=at_us))
        self.clock.advance(days * 86_400)
        self.ask(msgspec.structs.replace(correction, seq=len(self.oracle.journal), at_us=None))

    @rule(
        first=EVENTS[RecordProfit],
        corrections=st.lists(
            st.tuples(EVENTS[Correct], st.sampled_from([0, 0, 0, 1, 2])), min_size=2, max_size=3
        ),
        how=WAYS,
    )
    def correct_a_correction(
        self, first: RecordProfit, corrections: list[tuple[Correct, int]], how: str
    ) -> None:
        """Each that of the one before, or its reversal, or the mistake once more."""
        seq = len(self.oracle.journal) + 1
        requests: list[Write] = [first]
        for number, (event, back) in enumerate(corrections):
            requests.append(msgspec.structs.replace(event, seq=seq + 2 * number - back, key=None))
        self.ask_in(how, requests)

    @rule(event=EVENTS[Post])
    def post(self, event: Post) -> None:
        self.ask(event)

    @rule(event=EVENTS[Split] | EVENTS[Rename] | EVENTS[Transfer])
    def corporate_action(self, event: Event) -> None:
        self.ask(event)

    @precondition(lambda self: self.oracle.positions())
    @rule(
        event=EVENTS[Split] | EVENTS[Rename] | EVENTS[Transfer],
        which=st.integers(0, 9),
        part=st.sampled_from([1, 2, 7]),
        back=st.booleans(),
    )
    def corporate_action_on_what_is_held(
        self, event: Any, which: int, part: int, back: bool
    ) -> None:
        """A part of a lot may meet the rest of it again."""
        (strategy, instrument), (held, *_) = self.one_of(
            sorted(self.oracle.positions().items(), key=str), which
        )
        changes: dict[str, Any] = {"instrument": instrument}
        if isinstance(event, Transfer):
            other = event.to_strategy if event.to_strategy != strategy else "other"
            quantity = of_minor(int(held / part / MINOR))
            changes |= {"from_strategy": strategy, "to_strategy": other, "quantity": quantity}
        else:
            changes["strategy"] = strategy
        event = msgspec.structs.replace(event, **changes)
        self.ask(event)
        if back and isinstance(event, Transfer):
            self.ask(
                msgspec.structs.replace(
                    event,
                    key=None,
                    from_strategy=event.to_strategy,
                    to_strategy=event.from_strategy,
                )
            )

    @rule(event=EVENTS[Convert] | EVENTS[Price])
    def other_asset(self, event: Event) -> None:
        self.ask(event)

    @rule(
        first=EVENTS[Deposit],
        profit=EVENTS[RecordProfit] | EVENTS[RecordLoss],
        correction=EVENTS[Correct],
        flow=EVENTS[Deposit] | EVENTS[Withdraw],
        again=st.booleans(),
    )
    def correct_a_flow_by_another(
        self, first: Event, profit: Event, correction: Correct, flow: Event, again: bool
    ) -> None:
        """Before and after it, what the fund is worth changes; the price is that of the end."""
        seq = len(self.oracle.journal) + 1
        self.ask(first)
        self.ask(profit)
        entry = msgspec.structs.replace(flow, key=None)
        self.ask(msgspec.structs.replace(correction, seq=seq, entry=entry, at_us=None))
        if again:
            self.ask(Reverse(len(self.oracle.journal), "wrong"))

    @rule(event=EVENTS[BookFill])
    def fill(self, event: BookFill) -> None:
        self.ask(event)

    @rule(event=EVENTS[BookSettlement])
    def settle_a_market(self, event: BookSettlement) -> None:
        self.ask(event)

    # -- several

    @rule(events=st.lists(ANY_EVENT, max_size=5).map(tuple))
    def all_or_none(self, events: tuple[Write, ...]) -> None:
        self.ask(PostMany(events))

    @rule(
        requests=st.lists(
            ANY_EVENT | st.lists(ANY_EVENT, max_size=3).map(tuple).map(PostMany),
            min_size=2,
            max_size=6,
        )
    )
    def at_once(self, requests: list[Write | PostMany]) -> None:
        """They gather while the first is being booked, and share a commit."""
        self.ask(*requests)

    @rule(moves=st.lists(MOVES, min_size=2, max_size=8), how=WAYS)
    def plain_moves(self, moves: list[Event], how: str) -> None:
        """Those are decided together."""
        self.ask_in(how, moves)

    @rule(fills=FILLS)
    def the_engine_reports_fills(self, fills: tuple[Fill, ...]) -> None:
        self.ask(BookFills(fills))

    @rule(settlements=SETTLEMENTS)
    def the_engine_reports_settlements(self, settlements: tuple[Settlement, ...]) -> None:
        self.ask(BookSettlements(settlements))

    @rule(events=CASH_EVENTS)
    def the_engine_reports_cash_events(self, events: tuple[CashEvent, ...]) -> None:
        self.ask(BookCashEvents(events))

    # -- the same key again

    def one_of(self, of: Sequence[Any], which: int) -> Any:
        return of[which % len(of)]

    def with_parts(self) -> list[Write]:
        return [event for event in self.booked if isinstance(event, Correct | OpeningBalances)]

    @precondition(lambda self: self.booked)
    @rule(which=st.integers(0, 60), spelling=st.sampled_from(SPELLINGS))
    def the_same_again(self, which: int, spelling: Callable[[Fraction], Any]) -> None:
        before = len(self.oracle.journal)
        self.ask(respelt(self.one_of(self.booked, which), spelling))
        assert len(self.oracle.journal) == before

    @precondition(lambda self: self.booked)
    @rule(which=st.integers(0, 60), other=ANY_EVENT)
    def another_request_under_a_key_in_use(self, which: int, other: Write) -> None:
        """That of a correction's reversal is in use as well."""
        keys = [
            line.key
            for line in self.oracle.journal
            if not line.key.startswith(("fill:", "settlement:", "cash_event:"))
        ]
        self.ask(msgspec.structs.replace(other, key=self.one_of(keys, which)))

    @precondition(lambda self: self.booked)
    @rule(
        which=st.integers(0, 60),
        inside=st.booleans(),
        memo=st.sampled_from(["", "why", "changed"]),
        strategy=STRATEGIES,
    )
    def nearly_the_same_again(
        self, which: int, inside: bool, memo: str, strategy: str | None
    ) -> None:
        self.ask(nearly(self.one_of(self.booked, which), inside, memo, strategy))

    @precondition(lambda self: self.with_parts())
    @rule(
        which=st.integers(0, 60),
        spelling=st.sampled_from(SPELLINGS),
        memo=st.sampled_from(["", "why", "changed"]),
        strategy=STRATEGIES,
    )
    def what_has_parts_is_asked_again(
        self, which: int, spelling: Callable[[Fraction], Any], memo: str, strategy: str | None
    ) -> None:
        """The same, with a part that says something else, and a correction of another entry or
        with a key inside.
        """
        event = self.one_of(self.with_parts(), which)
        others = [respelt(event, spelling), nearly(event, True, memo, strategy)]
        if isinstance(event, Correct):
            keyed = msgspec.structs.replace(event.entry, key="inside")
            others += [
                msgspec.structs.replace(event, seq=event.seq + 1),
                msgspec.structs.replace(event, entry=keyed),
            ]
        before = len(self.oracle.journal)
        for other in others:
            self.ask(other)
        assert len(self.oracle.journal) == before

    @rule(event=ANY_EVENT, other=ANY_EVENT)
    def one_key_in_several_requests_at_once(self, event: Write, other: Write) -> None:
        key = f"several {len(self.oracle.journal)}"
        event, other = (msgspec.structs.replace(one, key=key) for one in (event, other))
        self.ask(Deposit(1), PostMany((Deposit(2), event)), event, PostMany((event, event)), other)

    @precondition(lambda self: self.mistakes())
    @rule(
        event=EVENTS[Correct],
        which=st.integers(0, 60),
        other=ANY_EVENT,
        later=st.booleans(),
        how=WAYS,
    )
    def the_key_of_a_reversal_is_wanted_by_another_request(
        self, event: Correct, which: int, other: Write, later: bool, how: str
    ) -> None:
        key, seq = f"wanted {len(self.oracle.journal)}", self.one_of(self.mistakes(), which).seq
        event = msgspec.structs.replace(event, key=key, seq=seq, at_us=None)
        other = msgspec.structs.replace(other, key=f"{key}:reversal")
        self.ask_in(how, [Deposit(1), event, other] if later else [Deposit(1), other, event])

    # -- time and trouble

    @rule(days=st.sampled_from([0.3, 1.0, 40.0]))
    def time_passes(self, days: float) -> None:
        self.clock.advance(days * 86_400)

    @precondition(lambda self: not self.crashed)
    @rule()
    def the_actor_crashes(self) -> None:
        self.crashed = True
        self.ledger.crash()
        self.compare_all()

    @rule()
    def the_fund_is_closed_and_opened_again(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.path, self.clock)
        self.crashed = False
        self.compare_all()

    @rule(trades=TRADES, strategy=STRATEGIES, side=st.sampled_from([1, -1]))
    def half_of_a_position_is_closed_after_a_restart(
        self, trades: list[Any], strategy: str | None, side: int
    ) -> None:
        """The lots read from the file leave in the order they came."""
        self.trade_one_after_the_other(trades, strategy, side)
        self.the_fund_is_closed_and_opened_again()
        held, *_ = self.oracle.positions().get((strategy, "X"), (Fraction(0),))
        self.ask(ClosePosition("X", of_minor(int(held / MINOR / 2)), 5, strategy=strategy))


def explore(examples: int, steps: int, phases: Sequence[Phase], *, derandomize: bool) -> None:
    run_state_machine_as_test(
        Anything,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            phases=phases,
            derandomize=derandomize,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_ledger_says_what_the_oracle_says_after_any_request() -> None:
    """Always the same histories. One that fails is shown as it is: making it short would take
    minutes.
    """
    explore(16, 40, [Phase.generate], derandomize=True)


@pytest.mark.soak
def test_the_ledger_says_what_the_oracle_says_in_a_thousand_long_histories() -> None:
    """Others each time, and the shortest one that fails."""
    explore(1_000, 60, [Phase.generate, Phase.shrink], derandomize=False)
