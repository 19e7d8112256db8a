"""The tables of oversight: its record, and one line of NAV per session."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from itertools import islice

import msgspec

from ...runtime import DAY_US
from ...wire.controller import StrategyStatus
from ...wire.guard import GuardState, StrategyBook
from ...wire.ledger import Compared
from ...wire.money import from_minor, to_minor
from ...wire.oversight import NavSample
from ...wire.persistence import Statement
from ..persistence import Rows
from .fees import FeeState, Owed
from .risk import LOOKBACK

__all__ = [
    "SCHEMA",
    "SCHEMA_4",
    "SCHEMA_5",
    "Ending",
    "Leaving",
    "Memory",
    "SessionTotals",
    "begun",
    "kept",
    "load",
    "minute_lines",
    "must_remember",
    "nav_history",
    "nav_line",
    "nav_minutes",
    "read_back",
    "remembered",
    "session_line",
    "session_totals",
]

SCHEMA = """
CREATE TABLE oversight (id INTEGER PRIMARY KEY CHECK (id = 1), record TEXT NOT NULL) STRICT;
CREATE TABLE nav_history (
    at_us INTEGER PRIMARY KEY,
    session TEXT NOT NULL,
    nav_minor INTEGER NOT NULL,
    drawdown_pct REAL NOT NULL
) STRICT;
"""
SCHEMA_4 = "ALTER TABLE nav_history ADD COLUMN missed INTEGER NOT NULL DEFAULT 0;\n"

# The totals of the last sessions, for risk; and NAV by the minute.
SCHEMA_5 = """
CREATE TABLE session_total (session TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;
CREATE TABLE nav_minute (
    at_us INTEGER PRIMARY KEY,
    session TEXT NOT NULL,
    nav_minor INTEGER NOT NULL,
    drawdown_pct REAL NOT NULL
) STRICT;
"""

MONTH_US = 31 * DAY_US  # how long NAV by the minute is kept

BOOKS_AT_ONCE = 500  # encoded in about 0.1 ms

# A peak is stored when it has risen by this much, so a crash never forgets more of it.
PEAK_STEP = 1.001


class Ending(msgspec.Struct, frozen=True):
    """A session that has ended, as long as a consumer has not taken it.

    NAV line and fees are part of the record's own commit. A consumer that fails is asked again at
    each tick, in the order of the sessions, also after a restart.
    """

    session: str
    missed: bool
    sample: bool  # promotion has not taken its sample
    marks: bool  # the ledger has not taken its marks
    statuses: tuple[msgspec.Raw, ...] = ()  # the engine's figures for it
    at_us: int | None = None  # when it ended; None: written by an older fundops


class Leaving(msgspec.Struct, frozen=True):
    """A withdrawal that is being booked together with the fees of the units that leave.

    The record has it before the ledger is asked. After a crash the withdrawal's key tells whether
    both are booked: they are one commit of the ledger.
    """

    key: str  # of the withdrawal
    amount_minor: int
    fees: tuple[Owed, ...]
    after: FeeState  # once they are booked


class Stated(msgspec.Struct, frozen=True):
    """One kind of figure of the broker's statements. Days are ISO dates; "": there is none."""

    agreed: str = ""  # the last day on which the books agreed
    differed: str = ""  # the last day on which they did not

    def after(self, found: Compared, day: str) -> Stated:
        """With the statement of this day; one that leaves this kind out changes nothing."""
        if not found.days:
            return self
        if found.differs is None:
            return msgspec.structs.replace(self, agreed=max(self.agreed, day))
        return msgspec.structs.replace(self, differed=max(self.differed, day))

    def is_open(self, day: str) -> bool:
        """Whether a difference on this day may still stand: nothing has agreed since."""
        return self.agreed < day <= self.differed


class Memory(msgspec.Struct, frozen=True):
    """The record."""

    guard: GuardState = GuardState()
    fees: FeeState = FeeState()
    session: str = ""  # the last one that ended; it only rises
    owed: tuple[Owed, ...] = ()
    since_us: int = 0  # the fund's first start: no session before it is ended
    tick_us: int = 0  # the newest tick; a session without one gives no sample
    ended_us: int = 0  # its end; 0: none has ended
    named: bool = False  # the host names the sessions
    ending: tuple[Ending, ...] = ()
    statuses: tuple[msgspec.Raw, ...] = ()  # the engine's last word, at an orderly stop
    heard_us: int = 0  # when it was given; 0: not known, since there was no orderly stop
    earned_minor: int = 0  # P&L that the ledger booked without a strategy
    cash: Stated = Stated()  # the broker's statements of cash, compared with the books
    positions: Stated = Stated()
    converted_minor: int = 0  # gain of other assets without a strategy, when all had a price
    opening_minor: int | None = None  # NAV when the running session began; None: not known
    leaving: Leaving | None = None  # None: no withdrawal is being booked
    # By entry: withdrawals whose fee is booked and that the guard has not seen.
    redeemed: Mapping[int, int] = {}
    by_hand_minor: int = 0  # fees that people have booked, less those that they took back

    @property
    def fees_minor(self) -> int:
        """All fees ever, with those that have accrued or are owed."""
        return self.fees.posted_minor + self.fees.accrued_minor + self.by_hand_minor


def kept(statuses: Sequence[StrategyStatus]) -> Generator[None, None, tuple[msgspec.Raw, ...]]:
    """The statuses as the record keeps them, without those that cannot be written."""
    found = []
    for status in statuses:
        yield
        try:
            found.append(msgspec.Raw(msgspec.json.encode(status)))
        except (TypeError, ValueError, OverflowError):  # a figure of a class that JSON has not
            continue
    return tuple(found)


def read_back(statuses: Sequence[msgspec.Raw]) -> tuple[StrategyStatus, ...]:
    """The statuses that the record keeps, without those that are none in this version."""
    found = []
    for status in statuses:
        try:
            found.append(msgspec.json.decode(status, type=StrategyStatus))
        except msgspec.MsgspecError:
            continue
    return tuple(found)


def begun(memory: Memory, now_us: int) -> Memory:
    """The memory of a fund that has started once at least."""
    fee, since_us = memory.fees, memory.since_us or memory.fees.at_us or now_us
    return msgspec.structs.replace(
        memory,
        since_us=since_us,
        tick_us=memory.tick_us or fee.at_us,
        statuses=(),
        heard_us=0,
        fees=msgspec.structs.replace(fee, crystallised_us=fee.crystallised_us or since_us),
    )


def must_remember(memory: Memory, stored: Memory) -> Generator[None, None, bool]:
    """Whether the record must be stored at once; figures can wait for the end of the session."""
    guard, before = memory.guard, stored.guard
    if (
        _facts(memory) != _facts(stored)
        or _flags(guard) != _flags(before)
        or guard.peak_per_unit > PEAK_STEP * before.peak_per_unit
        or _is_first_tick(memory, stored)
        or guard.strategies.keys() != before.strategies.keys()
    ):
        return True
    for name, book in guard.strategies.items():
        yield
        was = before.strategies[name]
        if book is not was and (_flags_of(book) != _flags_of(was) or _has_new_peak(book, was)):
            return True
    return False


def _is_first_tick(memory: Memory, stored: Memory) -> bool:
    """Whether this is the first tick of a session: a session without one gives no sample.

    A session that the host names has the tick that names it.
    """
    began_us = memory.ended_us or memory.since_us
    return not memory.named and memory.tick_us > began_us >= stored.tick_us


def _facts(memory: Memory) -> tuple[object, ...]:
    waiting = [(ending.session, ending.sample, ending.marks) for ending in memory.ending]
    mark = memory.fees.mark_per_unit
    stated = (memory.cash, memory.positions)
    redeemed = (memory.leaving, memory.redeemed, memory.by_hand_minor)
    facts = (memory.session, memory.since_us, memory.named, memory.owed, waiting, mark, stated)
    return (*facts, *redeemed)


def _flags(guard: GuardState) -> tuple[object, ...]:
    return (
        guard.kill_state,
        guard.warned,
        guard.silent,
        guard.blind,
        guard.external_minor,
        guard.would_kill,
        guard.loss_session,
        guard.loss_observed,
    )


def _flags_of(book: StrategyBook) -> tuple[object, ...]:
    return (
        book.paused,
        book.paused_by,
        book.would_pause,
        book.empty,
        book.warned,
        book.real,
        book.entitled,
        book.had_real,
        book.above,
        book.left,
        book.restarted,
        book.carried_minor,
        book.run,
        book.closing,
        book.unwinding,
    )


def _has_new_peak(book: StrategyBook, was: StrategyBook) -> bool:
    return book.real and book.peak_minor > PEAK_STEP * max(0, was.peak_minor)


def remembered(memory: Memory) -> Generator[None, None, Statement]:
    """The record as one row."""
    books = yield from _encoded(memory.guard.strategies)
    guard = msgspec.structs.replace(memory.guard, strategies=books)
    record = msgspec.json.encode(msgspec.structs.replace(memory, guard=guard)).decode()
    return Statement("INSERT OR REPLACE INTO oversight VALUES (1, ?)", ((record,),))


def _encoded(books: Mapping[str, StrategyBook]) -> Generator[None, None, msgspec.Raw]:
    """The books of the strategies, which are the bulk of the record, as JSON."""
    left, parts = iter(books.items()), list[bytes]()
    while some := dict(islice(left, BOOKS_AT_ONCE)):
        parts.append(msgspec.json.encode(some)[1:-1])  # without its braces
        yield
    return msgspec.Raw(b"{%s}" % b",".join(parts))


def nav_line(
    at_us: int, session: str, nav_minor: int, drawdown_pct: float, *, missed: bool = False
) -> Statement:
    """The line of one session; `at_us` rises from session to session."""
    return Statement(
        "INSERT OR REPLACE INTO nav_history(at_us, session, nav_minor, drawdown_pct, missed)"
        " VALUES (?, ?, ?, ?, ?)",
        ((at_us, session, nav_minor, drawdown_pct, int(missed)),),
    )


class SessionTotals(msgspec.Struct, frozen=True):
    """Cumulative P&L at the end of a session: of the fund, and of strategies with real money."""

    fund_minor: int
    strategies: Mapping[str, int]


def session_line(session: str, totals: SessionTotals) -> tuple[Statement, ...]:
    """The totals of one session, and the removal of those that no lookback needs."""
    record = msgspec.json.encode(totals).decode()
    return (
        Statement("INSERT OR REPLACE INTO session_total VALUES (?, ?)", ((session, record),)),
        Statement(
            "DELETE FROM session_total WHERE session <= coalesce((SELECT session FROM"
            " session_total ORDER BY session DESC LIMIT 1 OFFSET ?), '')",
            ((LOOKBACK + 1,),),
        ),
    )


def session_totals(rows: Rows) -> tuple[SessionTotals, ...]:
    """The totals of the last sessions, oldest first."""
    found = rows.rows("SELECT record FROM session_total ORDER BY session")
    return tuple(msgspec.json.decode(record, type=SessionTotals) for (record,) in found)


def minute_lines(minutes: Sequence[NavSample]) -> tuple[Statement, ...]:
    """NAV by the minute, and the removal of lines older than a month."""
    if not minutes:
        return ()
    rows = tuple(
        (sample.at_us, sample.session, to_minor(sample.nav).minor, sample.drawdown_pct)
        for sample in minutes
    )
    return (
        Statement("INSERT OR REPLACE INTO nav_minute VALUES (?, ?, ?, ?)", rows),
        Statement("DELETE FROM nav_minute WHERE at_us < ?", ((minutes[-1].at_us - MONTH_US,),)),
    )


def nav_minutes(rows: Rows, limit: int) -> tuple[NavSample, ...]:
    """NAV by the minute, newest first."""
    found = rows.rows(
        "SELECT at_us, session, nav_minor, drawdown_pct FROM nav_minute"
        " ORDER BY at_us DESC LIMIT ?",
        (limit,),
    )
    return tuple(
        NavSample(at_us, session, from_minor(nav), drawdown)
        for at_us, session, nav, drawdown in found
    )


# A close of the books empties the account; the fees before it still count.
_TRADING_FEES = """
WITH fee(strategy, minor) AS (
    SELECT strategy, amount_minor FROM balance
    WHERE account = 'TRADING_FEES' AND asset = (SELECT value FROM meta WHERE key = 'currency')
    UNION ALL
    SELECT coalesce(posting.strategy, ''), -amount_minor
    FROM entry JOIN posting ON posting.entry = entry.seq
    WHERE kind IN ('period_close', 'period_reopen') AND account = 'TRADING_FEES'
    AND asset = (SELECT value FROM meta WHERE key = 'currency')
)
SELECT strategy, sum(minor) FROM fee GROUP BY strategy
"""


def trading_fees(rows: Rows) -> dict[str, int]:
    """The trading fees that the ledger has booked in the fund's currency, by strategy."""
    return dict(rows.rows(_TRADING_FEES))


def load(rows: Rows) -> Memory:
    """The record as it is stored; an empty one before the first tick."""
    row = rows.row("SELECT record FROM oversight")
    return Memory() if row is None else msgspec.json.decode(row[0], type=Memory)


def nav_history(rows: Rows, limit: int) -> tuple[NavSample, ...]:
    """The newest lines, newest first."""
    found = rows.rows(
        "SELECT at_us, session, nav_minor, drawdown_pct, missed"
        " FROM nav_history ORDER BY at_us DESC LIMIT ?",
        (limit,),
    )
    return tuple(
        NavSample(at_us, session, from_minor(nav), drawdown, bool(missed))
        for at_us, session, nav, drawdown, missed in found
    )
