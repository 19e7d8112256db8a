"""The messages of the ledger: events to book, questions about the book, and their answers.

A long file that is one list: each message is a struct of a few fields, and an event, its canonical
form and its union stand together.

An event is a request for one balanced journal entry. Amounts may be Decimal, int, decimal text or
float; the ledger checks them before anything is written. `key` is the idempotency key: the same key
with the same content gives the first entry again, so it is always safe to ask again. In a posting a
debit is > 0 and a credit < 0. Instants are microseconds since the epoch, days are ISO dates in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal, get_args

import msgspec

from ..runtime import Request
from .controller import CashEvent, Fill, Settlement
from .money import Amount

__all__ = [
    "BOOKABLE",
    "EVENTS_MAX",
    "REPORTS_MAX",
    "AsideReport",
    "BalanceSheet",
    "BookCashEvents",
    "BookFill",
    "BookFills",
    "BookSettlement",
    "BookSettlements",
    "Booked",
    "Break",
    "CashFlow",
    "ChargeManagementFee",
    "ChargePerformanceFee",
    "ClosePeriod",
    "ClosePosition",
    "Compared",
    "Convert",
    "Correct",
    "Deposit",
    "Entries",
    "EntriesAfter",
    "Entry",
    "Event",
    "ExternalFlow",
    "Financing",
    "Income",
    "IncomeStatement",
    "JournalLine",
    "LedgerLot",
    "LedgerPosition",
    "LedgerTotals",
    "Leg",
    "Lots",
    "Mark",
    "NavPerUnit",
    "NetAssetValue",
    "OpenPosition",
    "OpeningBalances",
    "OpeningPosition",
    "PayFees",
    "Positions",
    "Post",
    "PostMany",
    "Posted",
    "Price",
    "Prices",
    "ReadTotals",
    "Realized",
    "RecentEntries",
    "Reconcile",
    "Reconciliation",
    "RecordLoss",
    "RecordProfit",
    "Rename",
    "ReopenPeriod",
    "ReportKind",
    "ReportsAside",
    "Reverse",
    "Settle",
    "SkipReport",
    "Split",
    "Statement",
    "Transfer",
    "TrialBalance",
    "Withdraw",
]


class Posted(msgspec.Struct, frozen=True, gc=False):
    """An entry that is durable."""

    seq: int  # its number in the journal, from 1
    key: str
    replayed: bool  # it was booked before, under the same key
    hash: str  # hex of the chain's hash at this entry


class Leg(msgspec.Struct, frozen=True, gc=False):
    """One posting: debit > 0, credit < 0."""

    account: str
    amount: Amount
    strategy: str | None = None  # None: that of the event, if it has one
    asset: str | None = None  # None: the fund's currency


class _Event(Request[Posted], frozen=True, kw_only=True):
    """The fields that all events have."""

    key: str | None = None  # None: the ledger mints one
    strategy: str | None = None  # None: the fund as a whole
    at_us: int | None = None  # when it happened; None: now
    memo: str = ""


class Deposit(_Event, frozen=True, tag="deposit"):
    """Money from outside comes in: CASH / EXTERNAL.

    Units are issued at the current NAV per unit, which therefore stays the same.
    """

    amount: Amount


class Withdraw(_Event, frozen=True, tag="withdrawal"):
    """Money goes out: EXTERNAL / CASH, never below the floor of CASH.

    Units are redeemed at the current NAV per unit, which therefore stays the same.
    """

    amount: Amount


class RecordProfit(_Event, frozen=True, tag="profit"):
    """A realized profit: CASH / REALIZED_PNL."""

    amount: Amount


class RecordLoss(_Event, frozen=True, tag="loss"):
    """A realized loss: REALIZED_PNL / CASH. It can always be booked."""

    amount: Amount


class OpenPosition(_Event, frozen=True, tag="open_position"):
    """Opens a position, or adds to one: POSITIONS / CASH, and the fee to TRADING_FEES."""

    instrument: str
    quantity: Amount  # signed: a short is negative
    cost: Amount  # the total; for a short the amount received; negative at a negative price
    fee: Amount = 0  # negative: a rebate


class ClosePosition(_Event, frozen=True, tag="close_position"):
    """Closes a position or a part of it, first in, first out; the difference is realized."""

    instrument: str
    quantity: Amount  # with the sign of the position
    proceeds: Amount  # the total received, or paid to buy a short back; may be negative
    fee: Amount = 0  # negative: a rebate


class Mark(_Event, frozen=True, tag="mark"):
    """The change of a position's value since its last mark: POSITIONS:MTM / UNREALIZED_PNL."""

    instrument: str
    value: Amount  # of the whole position now; for a short the cost of buying it back


class Settle(_Event, frozen=True, tag="settlement"):
    """Closes the whole position in a resolved market at its payoff."""

    market: str
    payoff: Amount  # in total; for a short the amount paid


class ChargeManagementFee(_Event, frozen=True, tag="management_fee"):
    """A management fee that the fund owes from now on: MANAGEMENT_FEES / FEES_RECEIVABLE."""

    amount: Amount


class ChargePerformanceFee(_Event, frozen=True, tag="performance_fee"):
    """A performance fee that the fund owes from now on: PERFORMANCE_FEES / FEES_RECEIVABLE."""

    amount: Amount


class PayFees(_Event, frozen=True, tag="fee_payment"):
    """Pays owed fees: FEES_RECEIVABLE / CASH, never more than is owed."""

    amount: Amount


class Income(_Event, frozen=True, tag="income"):
    """Dividends, coupons or interest received: CASH / INCOME."""

    amount: Amount  # negative: paid on a short position
    instrument: str | None = None


class Financing(_Event, frozen=True, tag="financing"):
    """Borrow fees, funding or interest paid: FINANCING / CASH."""

    amount: Amount  # negative: received
    instrument: str | None = None


class OpeningPosition(msgspec.Struct, frozen=True):
    """A position from before the book began."""

    instrument: str
    quantity: Amount  # signed: a short is negative
    cost: Amount  # the total; for a short the amount received
    value: Amount | None = None  # its value now, in the same sense; None: its cost
    strategy: str | None = None  # None: that of the event, if it has one


class OpeningBalances(_Event, frozen=True, tag="opening_balances"):
    """The holdings of a fund that already trades: the first entry after the capital.

    Profit or loss from before goes to RETAINED.
    """

    cash: Amount  # in total, including the capital
    positions: tuple[OpeningPosition, ...] = ()


class Reverse(_Event, frozen=True, tag="reversal"):
    """Negates every leg of entry `seq`, at most once; an entry that moved lots is refused.

    The units of a deposit or a withdrawal are an exception: they are priced at the current NAV per
    unit, which therefore stays the same.
    """

    seq: int
    reason: str


class ClosePeriod(_Event, frozen=True, tag="period_close"):
    """Moves the revenue accounts up to `day` into RETAINED, and locks the book up to that day."""

    day: str  # ISO date, UTC; not in the future


class ReopenPeriod(_Event, frozen=True, tag="period_reopen"):
    """Takes the last close back."""

    day: str  # the day of that close
    reason: str
    by: str  # the person or program that reopens it


class Post(_Event, frozen=True, tag="post"):
    """Explicit legs: at least two, of known accounts, whose sum is zero per asset."""

    legs: tuple[Leg, ...]


class BookFill(_Event, frozen=True, tag="fill"):
    """One execution: closes an opposite position first in, first out, and opens with the rest.

    Quantity and price may have any number of digits. Their product is exact, and rounded once.
    """

    instrument: str
    quantity: Amount  # signed: a sale is negative
    price: Amount  # per unit; may be negative
    fee: Amount  # negative: a rebate
    fee_asset: str | None = None  # the asset of the fee; None: the fund's currency
    takes_back: int | None = None  # the entry of the fill whose opposite this is; None: a trade


class BookSettlement(_Event, frozen=True, tag="market_settlement"):
    """A resolved market as the engine reports it.

    It closes the strategy's open lots whose instrument is the market, at the payoff. Without lots
    the position was not booked in this ledger, and payoff less cost is booked.
    """

    market: str
    cost: Amount
    payoff: Amount  # in total and signed: > 0 came into CASH
    # Paid by its earlier entries, which closed the lots: the rest alone is booked. None: none.
    paid: Amount | None = None
    # The position that it closes, with that of its earlier entries. None: none, or not noted.
    held: Amount | None = None


class Split(_Event, frozen=True, tag="split"):
    """Multiplies the quantity of every open lot of an instrument; lots keep their cost.

    `strategy` None: the lots of all strategies.
    """

    instrument: str
    # New units for one old one: a number, or text such as "3:2"; exact, never rounded before it
    # is multiplied.
    ratio: Amount
    # Received for the fraction of a unit that is left, or paid when short; None: fractions stay.
    cash: Amount | None = None


class Rename(_Event, frozen=True, tag="rename"):
    """Moves every open lot of an instrument to another name; `strategy` None: of all strategies."""

    instrument: str
    to: str


class Transfer(_Event, frozen=True, tag="transfer"):
    """Moves the oldest lots of one strategy to another, which pays their cost: no P&L arises."""

    instrument: str
    quantity: Amount  # with the sign of the position
    from_strategy: str | None = None  # None, here and below: the fund as a whole
    to_strategy: str | None = None


class Convert(_Event, frozen=True, tag="conversion"):
    """Changes cash of one asset into another: both against CONVERSIONS, so each asset balances."""

    amount: Amount  # given away, without the fee
    asset: str
    to_amount: Amount  # received
    to_asset: str
    fee: Amount = 0  # in `asset`


class Price(_Event, frozen=True, tag="price"):
    """The price of an asset from `at_us` on; it moves no money, and the NAV is counted by it."""

    asset: str
    value: Amount  # of one unit of the asset, in the fund's currency; never negative


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
    | Split
    | Rename
    | Transfer
    | Convert
    | Price
    | BookFill
    | BookSettlement
)


class Correct(_Event, frozen=True, tag="correction"):
    """Reverses entry `seq` and books `entry` in its place, both or neither.

    The new entry gets the `key` of this request; the reversal gets a key derived from it. Where
    both are deposits or withdrawals, units are issued for the difference at the current NAV per
    unit, in the new entry.
    """

    seq: int
    entry: Event  # without a key
    reason: str


# The types of all requests that book an entry.
BOOKABLE: tuple[type, ...] = (*get_args(Event), Correct)

# So many events are decided and written well within the time that a caller waits.
EVENTS_MAX = 100_000


class PostMany(Request[tuple[Posted, ...]], frozen=True):
    """Books all of the events or none, in one commit; at most `EVENTS_MAX`."""

    events: tuple[Event | Correct, ...]


# Reports that are booked in one commit: a quarter of a second of work.
REPORTS_MAX = 5_000

ReportKind = Literal["fill", "settlement", "cash_event"]


class AsideReport(msgspec.Struct, frozen=True):
    """A report that could not be booked. It is tried again when its content changes."""

    kind: ReportKind
    key: str  # names it to `SkipReport`
    id: str  # the report's own id, as far as it can be read
    content: str
    reason: str
    since_us: int
    skipped_by: str | None = None  # who gave it up; None: it still waits


class Booked(msgspec.Struct, frozen=True):
    """Reports that are durable now."""

    new: int  # how many entries were booked; 0: all reports were known
    cursor: str  # the cursor now stored
    aside: tuple[AsideReport, ...] = ()  # of these reports: those set aside, now or earlier


class BookFills(Request[Booked], frozen=True):
    """Books each fill once, by strategy, instrument and id; a higher revision replaces it.

    Each fill is decided by itself: one that cannot be booked is set aside, all others are booked,
    in commits of at most `REPORTS_MAX` with the newest cursor of each.
    """

    fills: tuple[Fill, ...]
    # By strategy that may not use real money: its stage. A fill that adds to a position of one of
    # them is booked, and told in a CRITICAL alert.
    unentitled: Mapping[str, str] = msgspec.field(default_factory=dict)
    # Whether this is the first, and the last, part of one report of the engine: an id that comes
    # twice in one report is told.
    begins: bool = True
    ends: bool = True


class BookSettlements(Request[Booked], frozen=True):
    """Books each settlement once, by id and revision, as `BookFills` books fills.

    A new revision takes back the one before it.
    """

    settlements: tuple[Settlement, ...]
    begins: bool = True  # as in `BookFills`
    ends: bool = True


class BookCashEvents(Request[Booked], frozen=True):
    """Books each cash event once, by its id, as `BookFills` books fills."""

    events: tuple[CashEvent, ...]
    begins: bool = True  # as in `BookFills`
    ends: bool = True


class ReportsAside(Request[tuple[AsideReport, ...]], frozen=True):
    """The reports that wait aside, the oldest first."""

    limit: int = 100


class SkipReport(Request[AsideReport], frozen=True):
    """Gives a report up that was set aside: with this content it is not tried or told again.

    Refused with: `UnknownReport`, `BadField`.
    """

    key: str
    reason: str
    by: str  # who gives it up


class BalanceSheet(Request[dict[str, Decimal]], frozen=True):
    """Debits minus credits per account, without EXTERNAL; marks are included in POSITIONS.

    In this and the other questions `as_of`, `start` and `end` are inclusive: an ISO date (UTC)
    counts to its end, an int is an instant in microseconds, None means no bound. `strategy` None
    means all strategies, `asset` None the fund's currency.
    """

    as_of: str | int | None = None
    strategy: str | None = None
    asset: str | None = None


class IncomeStatement(Request[dict[str, Decimal]], frozen=True):
    """Income positive, expense negative, per revenue account, from `start` to `end`."""

    start: str | int | None = None
    end: str | int | None = None
    strategy: str | None = None
    asset: str | None = None


class CashFlow(Request[dict[str, Decimal]], frozen=True):
    """The changes of CASH from `start` to `end` by purpose, with OPENING, NET and CLOSING."""

    start: str | int | None = None
    end: str | int | None = None
    strategy: str | None = None


class NetAssetValue(Request[Decimal], frozen=True):
    """All assets at their book value, less owed fees, in the fund's currency.

    Another asset counts at its last price; without one it is left out, and `Prices` names it.
    """

    as_of: str | int | None = None
    strategy: str | None = None


class NavPerUnit(Request[Decimal], frozen=True):
    """Net asset value per unit; 1 while there are no units."""

    as_of: str | int | None = None


class TrialBalance(Request[dict[str, Decimal]], frozen=True):
    """Debits minus credits per account, including EXTERNAL; the values sum to zero."""

    as_of: str | int | None = None
    strategy: str | None = None
    asset: str | None = None


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One journal entry, as questions answer it."""

    seq: int
    key: str
    recorded_us: int  # when it was booked
    day: str  # the ISO date (UTC) on which it counts
    kind: str  # the tag of its event, such as "deposit"
    strategy: str | None
    legs: tuple[Leg, ...]
    reverses: int | None  # the entry that this one negates
    memo: str
    hash: str  # hex of the chain's hash at this entry
    corrects: int | None = None  # the entry that this one replaces


class RecentEntries(Request[tuple[Entry, ...]], frozen=True):
    """The newest entries, newest first; limit 0 gives none, a negative one is refused."""

    limit: int = 20


class Entries(Request[tuple[Entry, ...]], frozen=True):
    """One page of the entries that match, newest first."""

    account: str | None = None
    strategy: str | None = None
    kind: str | None = None
    after_seq: int | None = None  # for the next page: the seq of the last entry of this one
    limit: int = 100
    key: str | None = None
    day: str | None = None  # ISO date
    instrument: str | None = None  # whose lots it moved, or which it names


class JournalLine(msgspec.Struct, frozen=True, gc=False):
    """One entry as it is stored: the text that was hashed, and the chain's hash at it."""

    seq: int
    payload: str  # JSON, verbatim
    hash: str  # hex of SHA-256 over the previous hash and the payload


class EntriesAfter(Request[tuple[JournalLine, ...]], frozen=True):
    """The entries after entry `seq`, oldest first, as they are stored; 0: from the first one."""

    seq: int = 0
    limit: int = 100


class LedgerLot(msgspec.Struct, frozen=True):
    """One open lot; quantity, cost and value have the sign of the position."""

    strategy: str | None
    instrument: str
    opened: int  # the seq of the entry that opened it
    day: str  # the ISO date of that entry
    quantity: Decimal
    cost: Decimal
    value: Decimal  # cost plus marks


class Lots(Request[tuple[LedgerLot, ...]], frozen=True):
    """The open lots, by strategy and instrument, oldest first."""

    strategy: str | None = None
    instrument: str | None = None


class Positions(Request["tuple[LedgerPosition, ...]"], frozen=True):
    """The open positions by strategy and instrument, as of a time."""

    as_of: str | int | None = None
    strategy: str | None = None


class Realized(Request[dict[str, Decimal]], frozen=True):
    """Realized P&L from `start` to `end`, by strategy or by instrument; a gain is positive.

    An empty name stands for what belongs to none.
    """

    start: str | int | None = None
    end: str | int | None = None
    by: str = "strategy"  # or "instrument"


class Prices(Request["dict[str, Decimal | None]"], frozen=True):
    """The last price of every other asset that the fund holds or that was ever priced.

    None: the asset is held and has no price, so the NAV does not count it.
    """

    as_of: str | int | None = None


class Statement(msgspec.Struct, frozen=True):
    """The broker's word at the end of one day.

    All three fields are required: one that was forgotten would pass for one that agrees.
    """

    day: str  # ISO date
    cash: Amount | None  # in the fund's currency; None: not compared
    # Signed quantities by instrument; one that is not named is not held. None: not compared.
    positions: Mapping[str, Amount] | None


class Break(msgspec.Struct, frozen=True):
    """One figure that differs between the books and the broker's statement."""

    name: str  # "CASH", or an instrument
    books: Decimal
    statement: Decimal

    @property
    def difference(self) -> Decimal:
        """The books less the statement."""
        return self.books - self.statement

    def __str__(self) -> str:
        return (
            f"{self.name}: books {self.books:f}, statement {self.statement:f}, "
            f"difference {self.difference:+f}"
        )


class Compared(msgspec.Struct, frozen=True):
    """The days on which a broker stated one kind of figure: its cash, or its positions."""

    days: int = 0  # how many they are; 0: this kind was not compared
    agreed: str | None = None  # the last one before `differs` that agrees; None: there is none
    differs: str | None = None  # the first one that does not; None: they all agree


class Reconciliation(msgspec.Struct, frozen=True):
    """The books compared with a broker's statements, day by day.

    A statement may leave cash or positions out, so both are told apart in `cash` and `positions`.
    """

    days: int  # how many days were compared
    # The last day before `differs` on which the figures that differ agree; None: there is none.
    agreed: str | None
    differs: str | None  # the first day on which they do not; None: they agree on all days
    breaks: tuple[Break, ...] = ()  # the figures that differ on that day
    entries: tuple[Entry, ...] = ()  # dated after `agreed`, up to `differs`; newest first
    entries_left_out: int = 0  # older ones of these that are not in `entries`
    later: tuple[str, ...] = ()  # the days after `differs` that differ too
    cash: Compared = Compared()
    positions: Compared = Compared()

    @property
    def ok(self) -> bool:
        """Whether anything was compared, and books and statements agree on all of it."""
        return self.differs is None and self.days > 0

    @property
    def scope(self) -> str:
        """The figures that were compared, where they are not all of each day; "" where they are."""
        if self.cash.days == self.positions.days == self.days > 0:
            return ""
        return (
            f"compared: cash of {_days(self.cash.days)}, positions of {_days(self.positions.days)}"
        )

    def __str__(self) -> str:
        scope = self.scope and f"; {self.scope}"
        if self.differs is None:
            agree = f"books and statements agree on all {self.days} days"
            return f"{agree if self.days else 'nothing is stated'}{scope}"
        agreed = "on no day before" if self.agreed is None else f"last on {self.agreed}"
        between = len(self.entries) + self.entries_left_out
        return (
            f"books and statement differ on {self.differs} and agreed {agreed}: "
            f"{'; '.join(map(str, self.breaks))}; {between} entries between{scope}"
        )


def _days(count: int) -> str:
    return f"{count} day" if count == 1 else f"{count or 'no'} days"


class Reconcile(Request[Reconciliation], frozen=True):
    """Compares the books with the statements of a broker."""

    statements: tuple[Statement, ...]
    tolerance: Amount = 0  # differences of CASH up to this amount are none
    # The last days on which cash and positions of earlier statements agreed; "": not known.
    agreed: tuple[str, str] = ("", "")


class LedgerTotals(msgspec.Struct, frozen=True):
    """The figures of the book that each tick needs, all of the same moment."""

    nav_minor: int  # net asset value
    external_minor: int  # deposits minus withdrawals
    fees_minor: int  # management and performance fees charged, those of closed periods included
    entries: int  # number of entries in the journal
    cursors: Mapping[str, str]  # by source of reports: how far it has been booked
    positions: tuple[LedgerPosition, ...]
    balance_sheet: Mapping[str, Decimal]
    unpriced: tuple[str, ...] = ()  # assets that the fund holds and `nav_minor` does not count
    # P&L without a strategy, in the fund's currency: cash events, income, financing, profit, loss.
    earned_minor: int = 0
    # Gain of other assets without a strategy; None: one that was converted has no price yet.
    converted_minor: int | None = 0
    flows: tuple[ExternalFlow, ...] = ()  # the newest ones, oldest first


class ExternalFlow(msgspec.Struct, frozen=True):
    """Money that an entry brought into the fund or took out of it, and the P&L before it.

    The order of a flow and of P&L decides what the money buys: after a loss a unit is cheaper.
    """

    seq: int  # of the entry
    amount_minor: int  # less than 0: a withdrawal
    # As those of `LedgerTotals`, before the entry.
    earned_minor: int
    converted_minor: int | None = 0
    reverses: bool = False  # it takes an earlier flow back


class LedgerPosition(msgspec.Struct, frozen=True):
    """An open position of one strategy; all figures have the sign of the position."""

    strategy: str | None
    instrument: str
    quantity: Decimal
    cost: Decimal
    value: Decimal  # cost plus marks


class ReadTotals(Request[LedgerTotals], frozen=True):
    """The totals of the book now."""
