"""The book: pure double-entry rules. No I/O, no clock, no tasks.

Amounts are int minor units. A posting is signed, debit > 0 and credit < 0; per entry and asset the sum is zero.
`Draft` decides a run of events on top of a book without touching it; once its entries are durable the book takes them
over with `apply`. A refusal is an exception of the `Rejected` family and leaves the draft as it was.

Lots are first in, first out per strategy and instrument. `Lot.quantity` is signed, in units of 1e-8; `cost_minor` and
`mark_minor` carry the sign of the position, so a lot is worth `cost_minor + mark_minor`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import date, timedelta
from functools import cached_property, lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple, TypeGuard

import msgspec

from ...runtime import DAY_US, ConfigError
from ...wire.errors import (
    AlreadyReversed,
    AmountError,
    EntryRefused,
    InsufficientFunds,
    PeriodClosed,
    PositionMismatch,
    UnbalancedEntry,
    UnknownAccount,
    UnknownEntry,
    shown,
)
from ...wire.ledger import (
    BookFill,
    BookSettlement,
    ChargeManagementFee,
    ChargePerformanceFee,
    ClosePeriod,
    ClosePosition,
    Correct,
    Deposit,
    Event,
    Financing,
    Income,
    Leg,
    Mark,
    OpeningBalances,
    OpeningPosition,
    OpenPosition,
    PayFees,
    Post,
    RecordLoss,
    RecordProfit,
    ReopenPeriod,
    Reverse,
    Settle,
    Withdraw,
)
from ...wire.money import MINOR_MAX, MINOR_PER_UNIT, Amount, from_minor, share, to_minor, to_minors
from .accounts import (
    ACCOUNTS,
    CASH,
    EXTERNAL,
    FEES_RECEIVABLE,
    FINANCING,
    HOLDERS,
    INCOME,
    MANAGEMENT_FEES,
    MARKS,
    PERFORMANCE_FEES,
    POSITIONS,
    REALIZED_PNL,
    RETAINED,
    REVENUE,
    TRADING_FEES,
    UNITS,
    UNREALIZED_PNL,
    WORTH,
    in_asset,
    units_bought,
    units_in_issue,
    units_redeemed,
)

__all__ = [
    "BadField",
    "Book",
    "Draft",
    "Entry",
    "Lot",
    "LotImage",
    "Move",
    "Posting",
    "Rules",
    "are_moves",
    "canonical",
    "chain_hash",
    "check_fields",
    "check_text",
    "is_day",
    "is_instant",
    "is_text",
    "request_of",
    "reversal_key_of",
    "utc_day",
]

GENESIS = bytes(32)
KEY_MAX = 128
NAME_MAX = 128
MEMO_MAX = 1_024
INSTANT_MAX_US = 253_402_300_799_999_999  # the last of the year 9999

_CANONICAL = msgspec.json.Encoder(order="sorted")
_PAYLOADS = msgspec.json.Encoder()
# Entries, legs or lots that are gone through in one go: some milliseconds, where a thread and back is a quarter of one.
RUN = 1_024

LotKey = tuple[str | None, str]  # strategy, instrument
Lots = Mapping[int, "Lot"]  # by id, oldest first
BalanceKey = tuple[str, str | None, str]  # account, strategy, asset
Posting = tuple[str, str | None, str, int]  # account, strategy, asset, minor units
Balances = Mapping[BalanceKey, int]


class Rules(NamedTuple):
    """What a fund may choose. `floors`: what withdrawals, fee payments and explicit posts must leave in an account."""

    floats: str = "round"  # or "refuse"
    floors: Mapping[str, int] = MappingProxyType({})


class Close(NamedTuple):
    """A closed period: its last day, and the entry that closed it."""

    day: str
    seq: int


class Lot(NamedTuple):
    """One purchase, or short sale, that is still open; `id` is the entry that opened it."""

    id: int
    quantity: int
    cost_minor: int
    mark_minor: int


class Original(NamedTuple):
    """The entry a reversal names, and the entry that has reversed it already, if any."""

    entry: Entry
    reversed_by: int | None


class LotImage(NamedTuple):
    """A lot as it stands after an entry; quantity 0: it is closed."""

    strategy: str | None
    instrument: str
    id: int
    quantity: int
    cost_minor: int
    mark_minor: int


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One journal entry. Its encoding, stored verbatim, is what the chain hashes: never reorder these fields."""

    seq: int
    key: str
    recorded_us: int
    day: str
    kind: str
    strategy: str | None
    reverses: int | None
    memo: str
    rounded: bool  # a float was rounded to the scale
    request: str  # the canonical request, for comparing a replayed key; empty where the rest of the entry says it all
    legs: tuple[Posting, ...]
    lots: tuple[LotImage, ...]
    corrects: int | None = None
    at_us: int | None = None  # when it happened, if that is not when it was recorded


def canonical(event: Event | Correct) -> str:
    """The content of a request without its key: equal texts are the same request.

    Amounts are compared by value, so 5, "5" and Decimal("5.0") are one amount; texts as they are.
    """
    return _CANONICAL.encode(_canonical_form(event)).decode()


def request_of(entry: Entry) -> str:
    """The canonical request that the entry was booked for."""
    if entry.request:
        return entry.request
    content = {
        "amount": abs(entry.legs[0][3]),
        "at_us": entry.at_us,
        "memo": entry.memo,
        "strategy": entry.strategy,
    }
    return _CANONICAL.encode([entry.kind, content]).decode()


def _canonical_form(event: Event | Correct) -> list[object]:
    fields: dict[str, Any] = msgspec.structs.asdict(event)
    del fields["key"]
    for name, form in _forms_of(type(event)):
        fields[name] = form(fields[name])
    return [event.__struct_config__.tag, fields]


@lru_cache
def _forms_of(kind: type) -> tuple[tuple[str, Callable[[Any], object]], ...]:
    """The fields of this kind of struct that have a canonical form of their own."""
    return tuple((name, _FORMS[name]) for name in kind.__struct_fields__ if name in _FORMS)  # type: ignore[attr-defined]


def _minor_or_text(value: Amount | None) -> int | str | None:
    if value is None:
        return None
    try:
        return to_minor(value).minor
    except AmountError:
        return "none"  # it is refused anyway; a replayed key must only not be mistaken for it


def _legs_form(legs: Sequence[Leg]) -> object:
    return [[leg.account, _minor_or_text(leg.amount), leg.strategy, leg.asset] for leg in legs]


def _positions_form(positions: Sequence[OpeningPosition]) -> object:
    return [
        [one.instrument, *map(_minor_or_text, (one.quantity, one.cost, one.value)), one.strategy] for one in positions
    ]


_FORMS: dict[str, Callable[[Any], object]] = {
    **dict.fromkeys(
        ("amount", "cash", "cost", "fee", "payoff", "price", "proceeds", "quantity", "value"), _minor_or_text
    ),
    "legs": _legs_form,
    "positions": _positions_form,
    "entry": _canonical_form,
}


def reversal_key_of(key: str) -> str:
    """The key of the reversal that is half of a correction; a long one is cut to a hash, so that it fits."""
    whole = f"{key}:reversal"
    return whole if len(whole) <= KEY_MAX else f"{sha256(key.encode()).hexdigest()}:reversal"


def chain_hash(previous: bytes, payload: bytes) -> bytes:
    """SHA-256 over the hash before and the payload: one changed byte changes every hash after it."""
    return sha256(previous + payload).digest()


def utc_day(at_us: int) -> str:
    """The ISO date, UTC."""
    return _day_of(at_us // DAY_US)


@lru_cache(maxsize=16)
def _day_of(days: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=days)).isoformat()


Sealed = tuple[Entry, bytes, bytes]  # with its payload and its hash


class Book:
    """What is durable: balances, open lots, and where the journal ends."""

    def __init__(
        self,
        currency: str,
        balances: Mapping[BalanceKey, int] | None = None,
        lots: Mapping[LotKey, Sequence[Lot]] | None = None,
        seq: int = 0,
        head: bytes = GENESIS,
        closes: Sequence[Close] = (),
    ) -> None:
        self.currency = currency
        self.closes = tuple(closes)  # oldest first; up to the last one nothing is booked
        self.balances: dict[BalanceKey, int] = dict(balances or {})
        self.lots: dict[LotKey, Lots] = {key: {lot.id: lot for lot in of_key} for key, of_key in (lots or {}).items()}
        self.seq = seq
        self.head = head
        self.totals = in_asset(self.balances, currency)  # by account
        self.units = units_in_issue(self.balances)

    def apply(self, draft: Draft) -> None:
        """Take over what the draft decided, now that it is durable."""
        self.balances.update(draft.balances)
        self.totals.update(draft.totals)
        for key, lots in draft.lots.items():
            if lots:
                self.lots[key] = lots
            else:
                self.lots.pop(key, None)
        self.seq, self.closes, self.units = draft.seq, draft.closes, draft.units
        if draft.sealed:
            last, _, self.head = draft.sealed[-1]
            assert last.seq == draft.seq, "decided after it was sealed"


class Draft:
    """Decisions on top of a book, or of another draft, that are not durable yet.

    `original` looks up a durable entry for a reversal, `as_of` the durable balances at the end of a day for a close.
    """

    def __init__(
        self,
        base: Book | Draft,
        original: Callable[[int], Original | None],
        as_of: Callable[[str], Balances] = lambda _: {},
        rules: Rules = Rules(),  # noqa: B008  immutable
    ) -> None:
        self.base = base
        self.rules = rules
        self.closes: tuple[Close, ...] = base.closes
        self._original = original
        self._as_of = as_of
        self.currency: str = base.currency
        self.seq: int = base.seq
        self.units: int = base.units
        self.balances: dict[BalanceKey, int] = {}
        self.totals: dict[str, int] = {}
        self.lots: dict[LotKey, dict[int, Lot]] = {}
        self.entries: list[Entry] = []
        self._reversals: dict[int, int] = {}  # of them: what each has reversed

    # -- reading through to the base

    def total(self, account: str) -> int:
        return self.totals[account] if account in self.totals else _total_of(self.base, account)

    def balance(self, key: BalanceKey) -> int:
        return self.balances[key] if key in self.balances else _balance_of(self.base, key)

    def worth(self) -> tuple[int, int]:
        """Net asset value and units in issue."""
        return sum(self.total(account) for account in WORTH), self.units

    def open_lots(self, key: LotKey) -> Lots:
        """Oldest first."""
        return self.lots[key] if key in self.lots else _lots_of(self.base, key)

    def moved(self) -> dict[BalanceKey, int]:
        """What has been added to each balance."""
        return {key: amount - _balance_of(self.base, key) for key, amount in self.balances.items()}

    def original(self, seq: int) -> Original | None:
        """The entry to reverse, durable or decided here, and what has reversed it."""
        before = self.seq - len(self.entries)
        found = Original(self.entries[seq - before - 1], None) if before < seq <= self.seq else self._original(seq)
        reversal = self._reversals.get(seq)
        return found if found is None or reversal is None else Original(found.entry, reversal)

    def fork(self) -> Draft:
        """A draft on top of this one, to be adopted as a whole or dropped."""
        return Draft(self, self.original, self.as_of, self.rules)

    def as_of(self, day: str) -> Balances:
        """Balances at the end of `day`, with what was decided here."""
        balances = dict(self._as_of(day))
        for entry in self.entries:
            if entry.day <= day:
                for account, strategy, asset, amount in entry.legs:
                    key = (account, strategy, asset)
                    balances[key] = balances.get(key, 0) + amount
        return balances

    # -- deciding

    def decide(self, event: Event, key: str, recorded_us: int, correction: Correct | None = None) -> Entry:
        """Add the entry for one event.

        Raises: `AmountError`, `UnbalancedEntry`, `UnknownAccount`, `InsufficientFunds`, `PositionMismatch`,
        `AlreadyReversed`, `UnknownEntry`, `PeriodClosed`.
        """
        check_fields(event, key)
        day = self._day_of(event, recorded_us)
        plan = _Plan(self, event.strategy)
        _book(event, plan)
        legs, lots = plan.legs(), tuple(plan.images(self.seq + 1))
        # A lot may move for less than a minor unit: a fill of dust, a mark spread anew. A period may have been quiet, a
        # market may pay what it cost, and that be taken back.
        if legs or not (lots or isinstance(event, BookSettlement | ClosePeriod | ReopenPeriod | Reverse)):
            _check_balanced(legs)
        self._add(legs)
        said_by_entry = correction is None and type(event) in _SAID_BY_ENTRY
        entry = Entry(
            seq=self.seq + 1,
            key=key,
            recorded_us=recorded_us,
            day=day,
            kind=_name_of(type(event)),
            strategy=event.strategy,
            reverses=plan.reverses,
            memo=_memo_of(event) or (correction.memo if correction else ""),
            rounded=plan.rounded,
            request="" if said_by_entry else canonical(correction or event),
            legs=legs,
            lots=lots,
            corrects=correction.seq if correction else None,
            at_us=event.at_us,
        )
        self._take(entry)
        return entry

    def decide_moves(self, events: Sequence[Move], keys: Sequence[str], recorded_us: int) -> list[Entry] | None:
        """The entries that `decide` would add for each of these in turn, in a fraction of the time.

        None, and nothing is added, where one of them is or may be wrong: what is wrong with it, `decide` says.
        """
        try:
            return self._decide_moves(events, keys, recorded_us)
        except (AmountError, TypeError):
            return None

    def _decide_moves(self, events: Sequence[Move], keys: Sequence[str], recorded_us: int) -> list[Entry] | None:
        """Column by column. Raises: `AmountError`, `TypeError` before anything is added."""
        kinds = [type(event) for event in events]
        strategies = [event.strategy for event in events]
        memos = [event.memo for event in events]
        times = [event.at_us for event in events]
        if not (
            _are_texts(keys, KEY_MAX)
            and _are_texts(set(strategies) - {None}, NAME_MAX)
            and _are_texts(set(memos) - {""}, MEMO_MAX)
            and all(at_us is None or is_instant(at_us) for at_us in times)
        ):
            return None
        days = {at_us: utc_day(recorded_us if at_us is None else at_us) for at_us in set(times)}
        if self.closes and min(days.values()) <= self.closes[-1].day:
            return None
        minors, rounded = to_minors([event.amount for event in events], floats=self.rules.floats)
        if min(minors) < 1 or not self._add_moves(kinds, strategies, minors):
            return None
        asset, moves = self.currency, {kind: (_name_of(kind), *_MOVES[kind]) for kind in set(kinds)}
        columns = zip(keys, kinds, strategies, memos, times, minors, rounded, strict=True)
        entries = [
            Entry(
                seq,
                key,
                recorded_us,
                days[at_us],
                name,
                strategy,
                None,
                memo,
                was_rounded,
                "",
                ((debit, strategy, asset, minor), (credit, strategy, asset, -minor)),
                (),
                None,
                at_us,
            )
            for seq, (key, kind, strategy, memo, at_us, minor, was_rounded) in enumerate(columns, self.seq + 1)
            for name, debit, credit in (moves[kind],)
        ]
        self.seq += len(entries)
        self.entries += entries
        return entries

    def _add_moves(self, kinds: Sequence[type], strategies: Sequence[str | None], minors: Sequence[int]) -> bool:
        """To balances and totals; False, and nothing is added, when one of them might outgrow its column on the way."""
        moved: dict[tuple[type, str | None], int] = {}
        for kind, strategy, minor in zip(kinds, strategies, minors, strict=True):
            moved[kind, strategy] = moved.get((kind, strategy), 0) + minor
        moves = [
            (account, (account, strategy, self.currency), amount)
            for (kind, strategy), minor in moved.items()
            for account, amount in zip(_MOVES[kind], (minor, -minor), strict=True)
        ]
        room = MINOR_MAX - sum(moved.values())  # in whatever order, no balance moves by more than all of them
        if any(abs(self.balance(key)) > room or abs(self.total(account)) > room for account, key, _ in moves):
            return False
        for account, key, amount in moves:
            self.balances[key] = self.balance(key) + amount
            self.totals[account] = self.total(account) + amount
        return True

    def correct(self, event: Correct, key: str, recorded_us: int) -> Entry:
        """Reverse an entry and book another in its place: both or neither. Raises: as `decide`."""
        check_fields(event, key)
        reversal_key = reversal_key_of(key)
        at_us = self._open_time_of(event.seq) if event.at_us is None else event.at_us
        reversal = Reverse(event.seq, event.reason, key=reversal_key, strategy=event.strategy, at_us=at_us)
        fork = self.fork()
        fork.decide(reversal, reversal_key, recorded_us)
        entry = fork.decide(event.entry, key, recorded_us, correction=event)
        self.adopt(fork)
        return entry

    def _open_time_of(self, seq: int) -> int | None:
        """When the entry happened, so that its correction mends the reports of that time; None if that is closed."""
        original = self.original(seq) if 0 < seq <= self.seq else None
        if original is None or (self.closes and original.entry.day <= self.closes[-1].day):
            return None
        entry = original.entry
        # What the engine reported late was booked on another day than that on which it happened.
        late = entry.at_us is not None and utc_day(entry.at_us) != entry.day
        return entry.recorded_us if entry.at_us is None or late else entry.at_us

    def _day_of(self, event: Event, recorded_us: int) -> str:
        """The day the entry is booked on. Raises: `PeriodClosed`, `BadField`."""
        closed = self.closes[-1].day if self.closes else ""
        if isinstance(event, ReopenPeriod):
            if event.day != closed:
                raise EntryRefused(f"{event.day} was not closed last: the book is closed up to {closed or 'no day'}")
            return event.day
        day = utc_day(recorded_us if event.at_us is None else event.at_us)
        if isinstance(event, ClosePeriod):
            today, day = utc_day(recorded_us), event.day
            if day > today:
                raise BadField("day", f"{day} is not over: it is {today}")
        elif day <= closed and isinstance(event, BookFill | BookSettlement):
            day = utc_day(recorded_us)  # what the engine reports late must not hold up all that comes after it
        if day <= closed:
            raise PeriodClosed(day, closed)
        return day

    def _add(self, legs: Sequence[Posting]) -> None:
        """To balances, totals and units. Raises: `AmountError` when one would outgrow its column; then nothing is."""
        balances: dict[BalanceKey, int] = {}
        totals: dict[str, int] = {}
        units, currency = self.units, self.currency
        known, known_totals = self.balances, self.totals
        for leg in legs:
            account, _, asset, amount = leg
            key = leg[:3]
            balance = amount + (known[key] if key in known else self.balance(key))
            if not -MINOR_MAX <= amount <= MINOR_MAX >= balance >= -MINOR_MAX:
                raise AmountError("amount", from_minor(amount), f"would take {account} beyond 2^62 minor units")
            balances[key] = balance
            if asset == currency:
                before = totals if account in totals else known_totals
                totals[account] = amount + (before[account] if account in before else self.total(account))
            elif account == asset == UNITS:
                units -= amount
        # Only now: whether an entry fits does not depend on the order of its legs.
        for account, total in totals.items():
            if not -MINOR_MAX <= total <= MINOR_MAX:
                raise AmountError("amount", from_minor(total), f"would take {account} beyond 2^62 minor units")
        known.update(balances)
        known_totals.update(totals)
        self.units = units

    def _take(self, entry: Entry) -> None:
        for image in entry.lots:
            lot_key = (image.strategy, image.instrument)
            lot = Lot(image.id, image.quantity, image.cost_minor, image.mark_minor)
            if lot_key not in self.lots:  # once for each run, as there may be thousands
                self.lots[lot_key] = dict(self.open_lots(lot_key))
            if lot.quantity:
                self.lots[lot_key][lot.id] = lot
            else:
                self.lots[lot_key].pop(lot.id, None)
        if entry.kind == "period_close":
            self.closes = (*self.closes, Close(entry.day, entry.seq))
        elif entry.kind == "period_reopen":
            self.closes = self.closes[:-1]
        if entry.reverses is not None:
            self._reversals[entry.reverses] = entry.seq
        self.seq = entry.seq
        self.entries.append(entry)

    def adopt(self, draft: Draft) -> None:
        """Take over a draft made on top of this one: all of its entries."""
        self.balances.update(draft.balances)
        self.totals.update(draft.totals)
        self.lots.update(draft.lots)
        self.entries += draft.entries
        self._reversals |= draft._reversals
        self.seq, self.closes, self.units = draft.seq, draft.closes, draft.units

    @cached_property
    def sealed(self) -> list[Sealed]:
        """The entries with their payloads, chained on to the book; to be asked for when no more are to come.

        In runs: called for each entry the encoder would spend most of its time being called, and called once for a
        hundred thousand it would hold up all other threads.
        """
        assert isinstance(self.base, Book)
        head = self.base.head
        runs = [self.entries[start : start + RUN] for start in range(0, len(self.entries), RUN)]
        payloads = [payload for run in runs for payload in _PAYLOADS.encode_lines(run).splitlines()]
        hashes = [head := chain_hash(head, payload) for payload in payloads]
        return list(zip(self.entries, payloads, hashes, strict=True))


def _total_of(base: Book | Draft, account: str) -> int:
    return base.totals.get(account, 0) if isinstance(base, Book) else base.total(account)


def _balance_of(base: Book | Draft, key: BalanceKey) -> int:
    return base.balances.get(key, 0) if isinstance(base, Book) else base.balance(key)


def _lots_of(base: Book | Draft, key: LotKey) -> Lots:
    return base.lots.get(key, {}) if isinstance(base, Book) else base.open_lots(key)


class _Plan:
    """The legs and lot changes of one entry while it is being put together."""

    def __init__(self, draft: Draft, strategy: str | None) -> None:
        self.draft = draft
        self.strategy = strategy
        self.rounded = False
        self.reverses: int | None = None
        self._legs: dict[BalanceKey, int] = {}
        # By strategy, instrument and id; id 0 is the one this entry opens.
        self._lots: dict[LotKey, dict[int, Lot]] = {}

    def minor(self, value: Amount, field: str, *, at_least: int | None = None) -> int:
        minor, rounded = to_minor(value, field, floats=self.draft.rules.floats)
        self.rounded |= rounded
        if at_least is not None and minor < at_least:
            raise AmountError(field, value, "must be greater than zero" if at_least else "must not be negative")
        return minor

    def post(self, account: str, amount: int, *, strategy: str | None = None, asset: str | None = None) -> None:
        self.post_to((account, strategy or self.strategy, asset or self.draft.currency), amount)

    def post_to(self, key: BalanceKey, amount: int) -> None:
        """To exactly this balance, also when it is nobody's and the entry is a strategy's."""
        self._legs[key] = self._legs.get(key, 0) + amount

    def legs(self) -> tuple[Posting, ...]:
        return tuple([(*key, amount) for key, amount in self._legs.items() if amount])

    def lots(self, instrument: str) -> list[Lot]:
        """The open lots of this entry's strategy, oldest first."""
        key = (self.strategy, instrument)
        before, here = self.draft.open_lots(key), self._lots.get(key)
        return [lot for lot in {**before, **here}.values() if lot.quantity] if here else list(before.values())

    def side(self, instrument: str) -> int:
        """The quantity of the oldest open lot, whose sign all of them share; 0 with none."""
        before, here = self.draft.open_lots((self.strategy, instrument)), (self.strategy, instrument) in self._lots
        oldest = next(iter(self.lots(instrument) if here else before.values()), None)
        return 0 if oldest is None else oldest.quantity

    def set_lot(self, instrument: str, lot: Lot, *, strategy: str | None = None) -> None:
        self._lots.setdefault((strategy or self.strategy, instrument), {})[lot.id] = lot

    def images(self, seq: int) -> Iterator[LotImage]:
        for (strategy, instrument), lots in self._lots.items():
            for lot in lots.values():
                yield LotImage(strategy, instrument, lot.id or seq, lot.quantity, lot.cost_minor, lot.mark_minor)

    def keep_floor(self, account: str, floor: int) -> None:
        """Raises: `InsufficientFunds` when these legs would take the account below its floor."""
        taken = -sum(
            amount
            for (name, _, asset), amount in self._legs.items()
            if name == account and asset == self.draft.currency
        )
        available = self.draft.total(account) - floor
        if taken > 0 and taken > available:
            raise InsufficientFunds(account, from_minor(taken), from_minor(available))

    def keep_floors(self) -> None:
        for account, floor in self.draft.rules.floors.items():
            self.keep_floor(account, floor)


# Those that only move their amount from one account to another, and can always be booked: debit and credit.
Move = RecordProfit | RecordLoss | ChargeManagementFee | ChargePerformanceFee
_MOVES: Mapping[type, tuple[str, str]] = {
    RecordProfit: (CASH, REALIZED_PNL),
    RecordLoss: (REALIZED_PNL, CASH),
    ChargeManagementFee: (MANAGEMENT_FEES, FEES_RECEIVABLE),
    ChargePerformanceFee: (PERFORMANCE_FEES, FEES_RECEIVABLE),
}


def are_moves(events: Sequence[object]) -> TypeGuard[Sequence[Move]]:
    """Whether all of these only move their amount."""
    return _MOVES.keys() >= {type(event) for event in events}


# Those that may have more to go through than themselves: their parts, all open lots of what they are about, or entries
# of before, of any size.
_PARTS_IN: Mapping[type, str] = {OpeningBalances: "positions", Post: "legs"}
_LOTS_OF: Mapping[type, str] = {
    **dict.fromkeys((BookFill, ClosePosition, Mark, OpenPosition), "instrument"),
    Settle: "market",
}
_LOOKING_BACK = {ClosePeriod, Correct, ReopenPeriod, Reverse}
_LONG = {*_PARTS_IN, *_LOTS_OF, *_LOOKING_BACK}


def work_of(events: Sequence[Any], book: Book) -> int:
    """How many entries, legs and lots there are to go through to decide these, about."""
    work, opened = len(events), Counter[LotKey]()
    if _LONG.isdisjoint(map(type, events)):
        return work
    for event in events:
        kind = type(event)
        if kind in _PARTS_IN:
            parts = getattr(event, _PARTS_IN[kind])
            work += len(parts) if isinstance(parts, tuple | list) else 0
        elif kind in _LOTS_OF:
            key = (event.strategy, getattr(event, _LOTS_OF[kind]))
            if all(name is None or type(name) is str for name in key):
                work += len(book.lots.get(key, ())) + opened[key]
                opened[key] += 1
        elif kind in _LOOKING_BACK:
            work += RUN
    return work


# Those of which the entry says all that was asked for: the first leg is the amount.
_SAID_BY_ENTRY = {Deposit, Withdraw, PayFees, *_MOVES}


@lru_cache
def _name_of(kind: type) -> str:
    """As the journal calls it."""
    return str(kind.__struct_config__.tag)  # type: ignore[attr-defined]


def _book(event: Event, plan: _Plan) -> None:
    """What each kind of event debits and credits."""
    match event:
        case Deposit():
            amount = plan.minor(event.amount, "amount", at_least=1)
            _transfer(plan, CASH, EXTERNAL, amount)
            _issue(plan, units_bought(amount, *plan.draft.worth()))
        case Withdraw():
            amount = plan.minor(event.amount, "amount", at_least=1)
            _transfer(plan, EXTERNAL, CASH, amount)
            _issue(plan, -units_redeemed(amount, *plan.draft.worth()))
            plan.keep_floors()
            plan.keep_floor(CASH, plan.draft.rules.floors.get(CASH, 0))
        case OpenPosition():
            quantity = _quantity(plan, event.quantity)
            cost = plan.minor(event.cost, "cost", at_least=0)
            _fee(plan, plan.minor(event.fee, "fee", at_least=0))
            _open(plan, event.instrument, quantity, cost)
        case ClosePosition():
            quantity = _quantity(plan, event.quantity)
            proceeds = plan.minor(event.proceeds, "proceeds", at_least=0)
            _fee(plan, plan.minor(event.fee, "fee", at_least=0))
            _close(plan, event.instrument, quantity, proceeds)
        case Mark():
            _mark(plan, event.instrument, plan.minor(event.value, "value", at_least=0))
        case Settle():
            quantity = sum(lot.quantity for lot in plan.lots(event.market))
            if not quantity:
                raise PositionMismatch(event.market, event.strategy, "there is none to settle")
            _close(plan, event.market, quantity, plan.minor(event.payoff, "payoff", at_least=0))
        case RecordProfit() | RecordLoss() | ChargeManagementFee() | ChargePerformanceFee():
            _transfer(plan, *_MOVES[type(event)], plan.minor(event.amount, "amount", at_least=1))
        case PayFees():
            _transfer(plan, FEES_RECEIVABLE, CASH, plan.minor(event.amount, "amount", at_least=1))
            plan.keep_floors()
        case Income():
            _transfer(plan, CASH, INCOME, _not_zero(plan, event.amount, "amount"))
        case Financing():
            _transfer(plan, FINANCING, CASH, _not_zero(plan, event.amount, "amount"))
        case OpeningBalances():
            _opening(plan, event)
        case Reverse():
            _reverse(plan, event)
        case ClosePeriod():
            for (account, strategy, asset), amount in plan.draft.as_of(event.day).items():
                if account in REVENUE:
                    plan.post_to((account, strategy, asset), -amount)
                    plan.post_to((RETAINED, strategy, asset), amount)
        case ReopenPeriod():
            _negate(plan, plan.draft.closes[-1].seq)
        case Post():
            for leg in event.legs:
                if leg.account not in ACCOUNTS:
                    raise UnknownAccount(leg.account)
                plan.post(leg.account, plan.minor(leg.amount, "leg"), strategy=leg.strategy, asset=leg.asset)
            plan.keep_floors()
        case BookFill():
            _fill(plan, event)
        case BookSettlement():
            cost, payoff = plan.minor(event.cost, "cost", at_least=0), plan.minor(event.payoff, "payoff", at_least=0)
            _transfer(plan, CASH, REALIZED_PNL, payoff - cost)


def _transfer(plan: _Plan, debit: str, credit: str, amount: int) -> None:
    plan.post(debit, amount)
    plan.post(credit, -amount)


def _issue(plan: _Plan, units: int) -> None:
    """Who comes or goes does so at what a unit is worth, which therefore stays the same for those who stay.

    That is when it is booked, also if it is dated back: who could buy at a price that is over would take the
    difference from the others.
    """
    plan.post(HOLDERS, units, asset=UNITS)
    plan.post(UNITS, -units, asset=UNITS)


def _fee(plan: _Plan, fee: int) -> None:
    _transfer(plan, TRADING_FEES, CASH, fee)


def _quantity(plan: _Plan, value: Amount) -> int:
    return _not_zero(plan, value, "quantity")


def _not_zero(plan: _Plan, value: Amount, field: str) -> int:
    minor = plan.minor(value, field)
    if not minor:
        raise AmountError(field, value, "must not be zero")
    return minor


def _opening(plan: _Plan, event: OpeningBalances) -> None:
    """From the capital, which is all the book has so far, to what the fund holds; the difference was earned before."""
    draft = plan.draft
    first = draft.original(1) if draft.seq else None
    if draft.seq > 1 or (first is not None and first.entry.kind != _name_of(Deposit)):
        raise EntryRefused("opening balances come first, after the capital alone, and something else is booked already")
    change = plan.minor(event.cash, "cash") - draft.total(CASH)
    plan.post(CASH, change)
    earned = change
    seen: set[LotKey] = set()
    for one in event.positions:
        quantity = _quantity(plan, one.quantity)
        cost = plan.minor(one.cost, "cost", at_least=0)
        value = cost if one.value is None else plan.minor(one.value, "value", at_least=0)
        sign = 1 if quantity > 0 else -1
        strategy = one.strategy or event.strategy
        if (strategy, one.instrument) in seen:
            raise PositionMismatch(one.instrument, strategy, "is given twice")
        seen.add((strategy, one.instrument))
        plan.set_lot(one.instrument, Lot(0, quantity, sign * cost, sign * (value - cost)), strategy=strategy)
        plan.post(POSITIONS, sign * cost, strategy=strategy)
        plan.post(MARKS, sign * (value - cost), strategy=strategy)
        earned += sign * value
    plan.post(RETAINED, -earned)


def _open(plan: _Plan, instrument: str, quantity: int, cost: int) -> None:
    """A long pays its cost; a short receives it, and its position is worth less than nothing."""
    if plan.side(instrument) * quantity < 0:
        raise PositionMismatch(instrument, plan.strategy, "is open the other way; close it first")
    signed_cost = cost if quantity > 0 else -cost
    _transfer(plan, POSITIONS, CASH, signed_cost)
    plan.set_lot(instrument, Lot(0, quantity, signed_cost, 0))


def _close(plan: _Plan, instrument: str, quantity: int, proceeds: int) -> None:
    """Oldest lots first. Cost leaves POSITIONS, the difference is realized, the lots' marks are taken back."""
    lots = plan.lots(instrument)
    held = sum(lot.quantity for lot in lots)
    if held * quantity <= 0 or abs(quantity) > abs(held):
        have, want = from_minor(held), from_minor(quantity)
        raise PositionMismatch(instrument, plan.strategy, f"holds {have}, cannot close {want}")
    left, cost, marks = quantity, 0, 0
    for lot in lots:
        if not left:
            break
        taken = left if abs(left) < abs(lot.quantity) else lot.quantity
        # The last slice of a lot takes whatever rounding left over, so nothing is ever lost or made.
        lot_cost = share(lot.cost_minor, taken, lot.quantity)
        lot_mark = share(lot.mark_minor, taken, lot.quantity)
        cost, marks, left = cost + lot_cost, marks + lot_mark, left - taken
        rest = Lot(lot.id, lot.quantity - taken, lot.cost_minor - lot_cost, lot.mark_minor - lot_mark)
        plan.set_lot(instrument, rest)
    received = proceeds if quantity > 0 else -proceeds
    plan.post(CASH, received)
    plan.post(POSITIONS, -cost)
    plan.post(REALIZED_PNL, cost - received)
    _transfer(plan, UNREALIZED_PNL, MARKS, marks)


def _mark(plan: _Plan, instrument: str, value: int) -> None:
    """Books the change since the last mark, spread over the lots by quantity."""
    lots = plan.lots(instrument)
    held = sum(lot.quantity for lot in lots)
    if not held:
        raise PositionMismatch(instrument, plan.strategy, "there is none to mark")
    left = value if held > 0 else -value
    change = 0
    for lot in lots:
        worth = share(left, lot.quantity, held)
        left, held = left - worth, held - lot.quantity
        change += worth - lot.cost_minor - lot.mark_minor
        plan.set_lot(instrument, lot._replace(mark_minor=worth - lot.cost_minor))
    _transfer(plan, MARKS, UNREALIZED_PNL, change)


def _fill(plan: _Plan, fill: BookFill) -> None:
    quantity = _quantity(plan, fill.quantity)
    price = plan.minor(fill.price, "price", at_least=0)
    _fee(plan, plan.minor(fill.fee, "fee", at_least=0))
    value, closed, closing = _value(quantity, price), 0, 0
    if plan.side(fill.instrument) * quantity < 0:
        held = sum(lot.quantity for lot in plan.lots(fill.instrument))
        closing = quantity if abs(quantity) <= abs(held) else -held
        # One trade is rounded once: what is opened has what the closed part leaves.
        closed = share(value, closing, quantity)
        # What closes a position has the position's sign: selling 5 of a long closes +5.
        _close(plan, fill.instrument, -closing, closed)
    if quantity - closing:
        _open(plan, fill.instrument, quantity - closing, value - closed)


def _value(quantity: int, price: int) -> int:
    """Both have the scale's digits, so their product has twice as many: rounded half-even."""
    value = share(abs(quantity), price, MINOR_PER_UNIT)
    if value > MINOR_MAX:
        raise AmountError("quantity", from_minor(quantity), "times the price is larger than 2^62 minor units")
    return value


def _reverse(plan: _Plan, event: Reverse) -> None:
    original = plan.draft.original(event.seq) if 0 < event.seq <= plan.draft.seq else None
    if original is None:
        raise UnknownEntry(event.seq)
    if original.reversed_by is not None:
        raise AlreadyReversed(event.seq, original.reversed_by)
    if original.entry.kind in ("period_close", "period_reopen"):
        raise EntryRefused(f"entry {event.seq} is a {original.entry.kind}; reopen the period instead of reversing it")
    if original.entry.lots:
        raise EntryRefused(f"entry {event.seq} moved lots; book the opposite trade instead of reversing it")
    _negate(plan, event.seq)


def _negate(plan: _Plan, seq: int) -> None:
    original = plan.draft.original(seq)
    assert original is not None
    plan.reverses = seq
    for account, strategy, asset, amount in original.entry.legs:
        plan.post_to((account, strategy, asset), -amount)


def _memo_of(event: Event) -> str:
    if isinstance(event, ReopenPeriod):
        return f"{event.reason} (by {event.actor})"
    return event.reason if isinstance(event, Reverse) else event.memo


def _check_balanced(legs: Sequence[Posting]) -> None:
    if len(legs) < 2:
        raise UnbalancedEntry(f"an entry needs at least two legs that are not zero; this one has {len(legs)}")
    sums: dict[str, int] = {}
    for _, _, asset, amount in legs:
        sums[asset] = sums.get(asset, 0) + amount
    for asset, total in sums.items():
        if total:
            raise UnbalancedEntry(f"legs in {asset} sum to {from_minor(total)}, not to zero")


def is_text(value: object, limit: int) -> bool:
    """Whether `value` is a text of 1 to `limit` characters that UTF-8 can carry: half a surrogate pair cannot be."""
    if type(value) is not str or not 1 <= len(value) <= limit:  # a subclass of str nobody can encode
        return False
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _are_texts(values: Collection[Any], limit: int) -> bool:
    """Whether all of them certainly are: texts of ASCII alone."""
    return {type(value) for value in values} <= {str} and (
        all(map(str.isascii, values)) and all(1 <= length <= limit for length in set(map(len, values)))
    )


def is_instant(value: object) -> bool:
    """Whether `value` is microseconds since the epoch, up to the year 9999."""
    return type(value) is int and 0 <= value <= INSTANT_MAX_US


def is_day(value: object) -> bool:
    """Whether `value` is an ISO date in the one form that sorts as time does."""
    try:
        return isinstance(value, str) and date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def check_fields(event: Event | Correct, key: str) -> None:
    """Raises: `BadField` for a text, an instant or a part that is none, or cannot be stored."""
    check_text("key", key, KEY_MAX)
    _check_texts(event)
    more = _MORE_CHECKS.get(type(event))
    if more is not None:
        more(event)
    at_us = event.at_us
    if at_us is not None and not is_instant(at_us):
        raise BadField("at_us", f"{shown(at_us)} is not an instant between the years 1970 and 9999, in microseconds")


# Whatever is said in words. The reason of a reopening is stored with who gave it.
_TEXTS = {
    **dict.fromkeys(("account", "actor", "asset", "instrument", "market", "strategy"), NAME_MAX),
    "memo": MEMO_MAX,
    "reason": MEMO_MAX - NAME_MAX - len(" (by )"),
}
_MAY_BE_EMPTY = ("memo", "reason")


@lru_cache
def _texts_of(kind: type) -> tuple[tuple[str, int, object], ...]:
    """The texts in this kind of struct: name, longest length, and what stands for none, if anything does."""
    fields = [one for one in msgspec.structs.fields(kind) if one.name in _TEXTS]
    nothing = {one.name: None if one.default is None else msgspec.UNSET for one in fields}
    return tuple((name, _TEXTS[name], "" if name in _MAY_BE_EMPTY else none) for name, none in nothing.items())


def _check_texts(of: msgspec.Struct) -> None:
    for field, limit, none in _texts_of(type(of)):
        value = getattr(of, field)
        if value != none:
            check_text(field, value, limit, at_least=len(none) if isinstance(none, str) else 1)


def check_text(field: str, value: object, limit: int, *, at_least: int = 1) -> None:
    """Raises: `BadField`."""
    if not is_text(value, limit):
        raise BadField(field, f"{shown(value)} is not a text of {at_least} to {limit} characters")


def _check_parts(field: str, parts: object, kind: type[msgspec.Struct]) -> None:
    if not isinstance(parts, tuple | list):
        raise BadField(field, f"{shown(parts)} is not a tuple of {kind.__name__}")
    for part in parts:
        if not isinstance(part, kind):
            raise BadField(field, f"{shown(part)} is not a {kind.__name__}")
        _check_texts(part)


def _check_day(event: ClosePeriod | ReopenPeriod) -> None:
    if not is_day(event.day):
        raise BadField("day", f"{shown(event.day)} is not a date as YYYY-MM-DD")


def _check_seq(event: Correct | Reverse) -> None:
    if type(event.seq) is not int:
        raise BadField("seq", f"{shown(event.seq)} is not the number of an entry")


def _check_correction(event: Correct) -> None:
    _check_seq(event)
    if not isinstance(event.entry, Event):
        raise BadField("entry", f"{shown(event.entry)} is not an event to book")
    if event.entry.key is not None:
        raise BadField("entry.key", "must not be given: the new entry has the key of its correction")


_MORE_CHECKS: Mapping[type, Callable[[Any], None]] = {
    OpeningBalances: lambda event: _check_parts("positions", event.positions, OpeningPosition),
    Post: lambda event: _check_parts("legs", event.legs, Leg),
    ClosePeriod: _check_day,
    ReopenPeriod: _check_day,
    Reverse: _check_seq,
    Correct: _check_correction,
}


class BadField(EntryRefused, ConfigError):
    """A text is missing, too long, or not a text; or an instant is none. `field` names it."""
