"""The ledger: events to book, the refusals, and the questions.

An event is a request for one balanced journal entry. Amounts may be Decimal, int, decimal text or float; they are
checked by the ledger before anything is written. `key` is the idempotency key: the same key with the same content
gives the first entry again, so asking twice is always safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import get_args

import msgspec

from ..runtime import Request
from .controller import Fill, Settlement
from .money import Amount

__all__ = [
    "BOOKABLE",
    "EVENTS_MAX",
    "BalanceSheet",
    "BookFill",
    "BookFills",
    "BookSettlement",
    "BookSettlements",
    "Booked",
    "CashFlow",
    "ChargeManagementFee",
    "ChargePerformanceFee",
    "ClosePeriod",
    "ClosePosition",
    "Correct",
    "Deposit",
    "Entries",
    "Entry",
    "Event",
    "Financing",
    "Income",
    "IncomeStatement",
    "LedgerPosition",
    "LedgerTotals",
    "Leg",
    "Mark",
    "NavPerUnit",
    "NetAssetValue",
    "OpenPosition",
    "OpeningBalances",
    "OpeningPosition",
    "PayFees",
    "Post",
    "PostMany",
    "Posted",
    "ReadTotals",
    "RecentEntries",
    "RecordLoss",
    "RecordProfit",
    "ReopenPeriod",
    "Reverse",
    "Settle",
    "TrialBalance",
    "Withdraw",
]


class Posted(msgspec.Struct, frozen=True, gc=False):
    """The entry is on disk. `replayed`: it was there already, under the same key."""

    seq: int
    key: str
    replayed: bool
    hash: str  # hex of the chain's hash at this entry


class Leg(msgspec.Struct, frozen=True, gc=False):
    """One posting: debit > 0, credit < 0."""

    account: str
    amount: Amount
    strategy: str | None = None
    asset: str | None = None  # None: the fund's currency


class _Event(Request[Posted], frozen=True, kw_only=True):
    key: str | None = None  # None: the ledger makes one
    strategy: str | None = None
    at_us: int | None = None  # when it happened; None: now
    memo: str = ""


class Deposit(_Event, frozen=True, tag="deposit"):
    """Issues units at what one is worth, as a withdrawal redeems them: neither changes it."""

    amount: Amount


class Withdraw(_Event, frozen=True, tag="withdrawal"):
    amount: Amount


class RecordProfit(_Event, frozen=True, tag="profit"):
    amount: Amount


class RecordLoss(_Event, frozen=True, tag="loss"):
    amount: Amount


class OpenPosition(_Event, frozen=True, tag="open_position"):
    """`quantity` is signed (a short is negative); `cost` is the total, never negative."""

    instrument: str
    quantity: Amount
    cost: Amount
    fee: Amount = 0


class ClosePosition(_Event, frozen=True, tag="close_position"):
    """`quantity` has the sign of the position; `proceeds` is the total received, or paid to buy a short back."""

    instrument: str
    quantity: Amount
    proceeds: Amount
    fee: Amount = 0


class Mark(_Event, frozen=True, tag="mark"):
    """`value`: what the whole position is worth now, as a positive total."""

    instrument: str
    value: Amount


class Settle(_Event, frozen=True, tag="settlement"):
    """Closes the whole position in a resolved market at its payoff."""

    market: str
    payoff: Amount


class ChargeManagementFee(_Event, frozen=True, tag="management_fee"):
    amount: Amount


class ChargePerformanceFee(_Event, frozen=True, tag="performance_fee"):
    amount: Amount


class PayFees(_Event, frozen=True, tag="fee_payment"):
    amount: Amount


class Income(_Event, frozen=True, tag="income"):
    """Dividends, coupons, interest received: CASH / INCOME. Negative: what a short position had to pay."""

    amount: Amount
    instrument: str | None = None


class Financing(_Event, frozen=True, tag="financing"):
    """Borrow fees, funding, interest paid: FINANCING / CASH. Negative: what was received."""

    amount: Amount
    instrument: str | None = None


class OpeningPosition(msgspec.Struct, frozen=True):
    """A position from before the book began. `value`: what it is worth as a positive total; None: its cost."""

    instrument: str
    quantity: Amount
    cost: Amount
    value: Amount | None = None
    strategy: str | None = None


class OpeningBalances(_Event, frozen=True, tag="opening_balances"):
    """What a fund that already trades holds: the first entry after the capital. Earlier P&L goes to RETAINED."""

    cash: Amount
    positions: tuple[OpeningPosition, ...] = ()


class Reverse(_Event, frozen=True, tag="reversal"):
    """Negates every leg of entry `seq`; at most once per entry, and never of an entry that moved lots."""

    seq: int
    reason: str


class ClosePeriod(_Event, frozen=True, tag="period_close"):
    """The revenue accounts as of the end of `day` (ISO date, UTC) go into RETAINED; up to then nothing is booked."""

    day: str


class ReopenPeriod(_Event, frozen=True, tag="period_reopen"):
    """Takes the last close back; `day` is the day it closed."""

    day: str
    reason: str
    actor: str


class Post(_Event, frozen=True, tag="post"):
    """Explicit legs: at least two, zero sum per asset, known accounts."""

    legs: tuple[Leg, ...]


class BookFill(_Event, frozen=True, tag="fill"):
    """One execution: closes what opposes it first in, first out, and opens the rest."""

    instrument: str
    quantity: Amount
    price: Amount
    fee: Amount


class BookSettlement(_Event, frozen=True, tag="market_settlement"):
    """A resolved market as the engine reports it, for a position that was never booked here: payoff less cost."""

    market: str
    cost: Amount
    payoff: Amount


Event = (
    Deposit
    | Withdraw
    | RecordProfit
    | RecordLoss
    | OpenPosition
    | ClosePosition
    | Mark
    | Settle
    | ChargeManagementFee
    | ChargePerformanceFee
    | PayFees
    | Income
    | Financing
    | OpeningBalances
    | Reverse
    | ClosePeriod
    | ReopenPeriod
    | Post
    | BookFill
    | BookSettlement
)


class Correct(_Event, frozen=True, tag="correction"):
    """Reverses entry `seq` and books `entry` in its place, both or neither. `key` is that of the new entry."""

    seq: int
    entry: Event
    reason: str


BOOKABLE: tuple[type, ...] = (*get_args(Event), Correct)


# What can be decided and written well within the time that a caller waits.
EVENTS_MAX = 100_000


class PostMany(Request[tuple[Posted, ...]], frozen=True):
    """All of the events or none; at most `EVENTS_MAX`."""

    events: tuple[Event | Correct, ...]


class Booked(msgspec.Struct, frozen=True):
    """How many were new, and the cursor now stored."""

    new: int
    cursor: str


class BookFills(Request[Booked], frozen=True):
    """Book fills once each (the key is the fill's id) and store the cursor of the last in the same transaction."""

    fills: tuple[Fill, ...]


class BookSettlements(Request[Booked], frozen=True):
    """As `BookFills`; the key is id and revision, and a new revision first reverses the one before."""

    settlements: tuple[Settlement, ...]


class BalanceSheet(Request[dict[str, Decimal]], frozen=True):
    """Debits minus credits per account; EXTERNAL is left out, marks are rolled up into POSITIONS.

    `as_of` here and below: to the end of that ISO date (UTC), or to that instant in microseconds; None: now. `asset`
    None: the fund's currency.
    """

    as_of: str | int | None = None
    strategy: str | None = None
    asset: str | None = None


class IncomeStatement(Request[dict[str, Decimal]], frozen=True):
    """Income positive, expense negative, per revenue account, from `start` to `end`, both included."""

    start: str | int | None = None
    end: str | int | None = None
    strategy: str | None = None
    asset: str | None = None


class CashFlow(Request[dict[str, Decimal]], frozen=True):
    """What moved CASH from `start` to `end`, both included, by what it was for; with OPENING, NET and CLOSING."""

    start: str | int | None = None
    end: str | int | None = None
    strategy: str | None = None


class NetAssetValue(Request[Decimal], frozen=True):
    """All assets by the books."""

    as_of: str | int | None = None
    strategy: str | None = None


class NavPerUnit(Request[Decimal], frozen=True):
    """What a unit is worth: 1 while there is none."""

    as_of: str | int | None = None


class TrialBalance(Request[dict[str, Decimal]], frozen=True):
    """Every account, EXTERNAL too; the values sum to zero."""

    as_of: str | int | None = None
    strategy: str | None = None
    asset: str | None = None


class Entry(msgspec.Struct, frozen=True, gc=False):
    seq: int
    key: str
    recorded_us: int
    day: str  # ISO date, UTC
    kind: str
    strategy: str | None
    legs: tuple[Leg, ...]
    reverses: int | None
    memo: str
    hash: str
    corrects: int | None = None  # the entry in whose place this one was booked


class RecentEntries(Request[tuple[Entry, ...]], frozen=True):
    """Newest first; 0 gives none, a negative limit is refused."""

    limit: int = 20


class Entries(Request[tuple[Entry, ...]], frozen=True):
    """One page, newest first, of what matches; the next page is `after_seq` the last one's `seq`."""

    account: str | None = None
    strategy: str | None = None
    kind: str | None = None
    after_seq: int | None = None
    limit: int = 100


class LedgerTotals(msgspec.Struct, frozen=True):
    """What the tick needs: net asset value, net external flows and fees charged, in minor units, with the cursors."""

    nav_minor: int
    external_minor: int
    fees_minor: int
    entries: int
    cursors: Mapping[str, str]
    positions: tuple[LedgerPosition, ...]
    balance_sheet: Mapping[str, Decimal]


class LedgerPosition(msgspec.Struct, frozen=True):
    strategy: str | None
    instrument: str
    quantity: Decimal
    cost: Decimal
    value: Decimal  # cost plus marks


class ReadTotals(Request[LedgerTotals], frozen=True):
    """The totals now."""
