"""The ledger's tables, and the SQL that writes and reads them.

Table `entry` is the source of truth: it holds each payload verbatim, and the chain hashes that
text. All other tables are derived from it and can be rebuilt. Where a strategy is part of a primary
key, an empty text stands for "no strategy".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import date, timedelta
from itertools import groupby

import msgspec

from ...wire.errors import AmountError
from ...wire.ledger import AsideReport
from ...wire.money import from_minor
from ...wire.persistence import Statement
from ..persistence import Reader, Rows
from .accounts import CASH, EXTERNAL, REVENUE, in_asset
from .book import Book, Draft, Settled, settled_by
from .entry import GENESIS, BalanceKey, Close, Entry, Lot, LotKey, Original, utc_day
from .flows import EARNED, Moved, flows_of

__all__ = [
    "SCHEMA",
    "SCHEMA_2",
    "SCHEMA_4",
    "Moment",
    "aside_named",
    "asides_by_key",
    "asides_by_prefix",
    "balances_as_of",
    "cash_flows",
    "cursors",
    "entries_by_key",
    "find_original",
    "hash_of",
    "income_between",
    "load_book",
    "newest_key",
    "no_longer_aside",
    "outgrown_day",
    "reports_aside",
    "revisions_of",
    "rows_of",
    "set_aside",
    "set_cursor",
    "skip_aside",
    "totals_as_of",
]

SCHEMA = """
CREATE TABLE entry (
    seq INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    recorded_us INTEGER NOT NULL,
    day TEXT NOT NULL,
    kind TEXT NOT NULL,
    strategy TEXT,
    reverses INTEGER UNIQUE REFERENCES entry (seq),
    payload TEXT NOT NULL,
    hash BLOB NOT NULL
) STRICT;
CREATE TABLE posting (
    entry INTEGER NOT NULL REFERENCES entry (seq),
    leg INTEGER NOT NULL,
    account TEXT NOT NULL,
    strategy TEXT,
    asset TEXT NOT NULL,
    amount_minor INTEGER NOT NULL CHECK (amount_minor <> 0),
    PRIMARY KEY (entry, leg)
) STRICT, WITHOUT ROWID;
CREATE TABLE balance (
    account TEXT NOT NULL,
    strategy TEXT NOT NULL,
    asset TEXT NOT NULL,
    amount_minor INTEGER NOT NULL,
    PRIMARY KEY (account, strategy, asset)
) STRICT, WITHOUT ROWID;
CREATE TABLE lot (
    strategy TEXT NOT NULL,
    instrument TEXT NOT NULL,
    id INTEGER NOT NULL REFERENCES entry (seq),
    quantity INTEGER NOT NULL,
    cost_minor INTEGER NOT NULL,
    mark_minor INTEGER NOT NULL,
    PRIMARY KEY (strategy, instrument, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE cursor (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TRIGGER entry_is_for_ever BEFORE UPDATE ON entry
BEGIN SELECT raise(ABORT, 'journal entries are never changed'); END;
CREATE TRIGGER entry_is_never_deleted BEFORE DELETE ON entry
BEGIN SELECT raise(ABORT, 'journal entries are never deleted'); END;
CREATE TRIGGER posting_is_for_ever BEFORE UPDATE ON posting
BEGIN SELECT raise(ABORT, 'postings are never changed'); END;
CREATE TRIGGER posting_is_never_deleted BEFORE DELETE ON posting
BEGIN SELECT raise(ABORT, 'postings are never deleted'); END;
"""

# Deltas per day: a backdated entry rewrites nothing, and a balance as of a day is one sum.
SCHEMA_2 = """
CREATE TABLE balance_day (
    account TEXT NOT NULL,
    strategy TEXT NOT NULL,
    asset TEXT NOT NULL,
    day TEXT NOT NULL,
    amount_minor INTEGER NOT NULL,
    PRIMARY KEY (account, strategy, asset, day)
) STRICT, WITHOUT ROWID;
INSERT INTO balance_day
    SELECT account, coalesce(posting.strategy, ''), asset, day, sum(amount_minor)
    FROM posting JOIN entry ON seq = entry GROUP BY 1, 2, 3, 4;
CREATE INDEX entry_day ON entry (day, seq);
CREATE INDEX entry_close ON entry (day) WHERE kind IN ('period_close', 'period_reopen');
"""

# Reports of the engine that could not be booked, one row per key, until they are booked. One that a
# person gave up stays, since the engine may report it again.
SCHEMA_4 = """
CREATE TABLE report_aside (
    key TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('fill', 'settlement', 'cash_event')),
    id TEXT NOT NULL,
    content TEXT NOT NULL,
    reason TEXT NOT NULL,
    since_us INTEGER NOT NULL,
    skipped_by TEXT,
    skip_reason TEXT,
    skipped_us INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX report_waits ON report_aside (since_us, key) WHERE skipped_by IS NULL;
"""

_INSERT_ENTRY = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_POSTING = "INSERT INTO posting VALUES (?, ?, ?, ?, ?, ?)"
_SET_BALANCE = (
    "INSERT INTO balance VALUES (?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET amount_minor = excluded.amount_minor"
)
_ADD_TO_DAY = (
    "INSERT INTO balance_day VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET amount_minor = amount_minor + excluded.amount_minor"
)
_SET_LOT = "INSERT OR REPLACE INTO lot VALUES (?, ?, ?, ?, ?, ?)"
_DROP_LOT = "DELETE FROM lot WHERE strategy = ? AND instrument = ? AND id = ?"
_SET_CURSOR = "INSERT INTO cursor VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"


def rows_of(draft: Draft) -> tuple[Statement, ...]:
    """The statements that make a draft's entries durable, to be run in one transaction."""
    entries = [
        (
            entry.seq,
            entry.key,
            entry.recorded_us,
            entry.day,
            entry.kind,
            entry.strategy,
            entry.reverses,
            payload.decode(),
            head,
        )
        for entry, payload, head in draft.sealed
    ]
    postings = [
        (entry.seq, number, *leg)
        for entry, _, _ in draft.sealed
        for number, leg in enumerate(entry.legs)
    ]
    # The last image of a lot is its state after all of these entries.
    lots = {
        (image.strategy or "", image.instrument, image.id): image
        for entry, _, _ in draft.sealed
        for image in entry.lots
    }
    balances = [
        (account, strategy or "", asset, amount)
        for (account, strategy, asset), amount in draft.balances.items()
    ]
    days = [
        (account, strategy or "", asset, day, amount)
        for day, moved in _moved_by_day(draft).items()
        for (account, strategy, asset), amount in moved.items()
    ]
    open_lots = [
        (*key, lot.quantity, lot.cost_minor, lot.mark_minor)
        for key, lot in lots.items()
        if lot.quantity
    ]
    closed_lots = [key for key, lot in lots.items() if not lot.quantity]
    statements = (
        Statement(_INSERT_ENTRY, entries),
        Statement(_INSERT_POSTING, postings),
        Statement(_SET_BALANCE, balances),
        Statement(_ADD_TO_DAY, days),
        Statement(_SET_LOT, open_lots),
        Statement(_DROP_LOT, closed_lots),
    )
    return tuple(statement for statement in statements if statement.rows)


def _moved_by_day(draft: Draft) -> dict[str, dict[BalanceKey, int]]:
    days = {entry.day for entry, _, _ in draft.sealed}
    if len(days) == 1:  # the usual case, and much faster
        return {days.pop(): draft.moved()}
    moved: dict[str, dict[BalanceKey, int]] = {day: defaultdict(int) for day in days}
    for entry, _, _ in draft.sealed:
        for account, strategy, asset, amount in entry.legs:
            moved[entry.day][account, strategy, asset] += amount
    return moved


def outgrown_day(reader: Rows, draft: Draft) -> AmountError | None:
    """The refusal of a draft whose delta of some day its column cannot hold; None: all of them fit.

    Balances are limited when entries are decided. But large amounts that move a balance up and down
    on different days may add up on one day of the past.
    """
    for day, moved in _moved_by_day(draft).items():
        for (account, strategy, asset), amount in moved.items():
            key = (account, strategy or "", asset, day)
            row = reader.row(
                "SELECT amount_minor FROM balance_day "
                "WHERE (account, strategy, asset, day) = (?, ?, ?, ?)",
                key,
            )
            if not -(2**63) <= amount + (row[0] if row else 0) < 2**63:
                problem = f"would move {account} by more than 2^63 minor units on {day}"
                return AmountError("amount", from_minor(amount), problem)
    return None


def set_cursor(name: str, value: str) -> Statement:
    """The statement that stores how far a source of reports has been booked.

    It belongs into the transaction that books those reports.
    """
    return Statement(_SET_CURSOR, ((name, value),))


def cursors(reader: Reader) -> dict[str, str]:
    """The stored cursor of each source of reports."""
    return dict(reader.rows("SELECT name, value FROM cursor"))


# The halves are summed apart, as in `_SUM`.
_CLOSED = """
SELECT account, coalesce(p.strategy, ''), sum(amount_minor >> 32), sum(amount_minor & 4294967295)
FROM entry AS e JOIN posting AS p ON p.entry = e.seq
WHERE kind IN ('period_close', 'period_reopen') AND asset = ? GROUP BY 1, 2
"""

# A look that missed more entries than these takes the flows before them as one sum.
ENTRIES_WITH_FLOWS = 10_000
_MOVED = f"""
SELECT seq, kind, account, p.strategy, asset, amount_minor
FROM entry AS e JOIN posting AS p ON p.entry = e.seq
WHERE seq > ? AND asset = ? AND account IN ({", ".join(map(repr, sorted((EXTERNAL, *EARNED))))})
ORDER BY seq DESC
"""


# Found by their keys, which have an index; ";" is the character after ":".
_SETTLEMENTS = """
SELECT payload FROM entry WHERE key >= 'settlement:' AND key < 'settlement;' ORDER BY seq
"""


def load_book(reader: Rows, currency: str) -> Book:
    """The book as it is on disk; `closes` holds the closes that were not taken back."""
    balances: dict[BalanceKey, int] = {
        (account, strategy or None, asset): amount
        for account, strategy, asset, amount in reader.rows("SELECT * FROM balance")
    }
    lots: dict[LotKey, list[Lot]] = {}
    for strategy, instrument, *lot in reader.rows(
        "SELECT * FROM lot ORDER BY strategy, instrument, id"
    ):
        lots.setdefault((strategy or None, instrument), []).append(Lot(*lot))
    seq, head = reader.row("SELECT seq, hash FROM entry ORDER BY seq DESC LIMIT 1") or (0, GENESIS)
    closes = reader.rows(
        "SELECT day, seq FROM entry AS e WHERE kind = 'period_close' "
        "AND NOT EXISTS (SELECT 1 FROM entry WHERE reverses = e.seq) ORDER BY seq"
    )
    closed = {
        (account, strategy or None, currency): -_whole(high, low)
        for account, strategy, high, low in reader.rows(_CLOSED, (currency,))
        if account in REVENUE
    }
    of_days = [Close(*close) for close in closes]
    settled: dict[LotKey, Settled] = {}
    for (payload,) in reader.each(_SETTLEMENTS):
        settled |= settled_by(_decode(payload), settled.get)
    book = Book(currency, balances, lots, seq, head, of_days, closed=closed, settled=settled)
    rows = reader.rows(_MOVED, (seq - ENTRIES_WITH_FLOWS, currency))
    moved = (
        Moved(entry, kind, [leg[2:] for leg in legs])
        for (entry, kind), legs in groupby(rows, key=lambda row: row[:2])
    )
    book.flows = flows_of(moved, book)
    return book


# -- as of a time

# An ISO date (UTC) counts as a whole day, an instant in microseconds takes in a part of its day.

Moment = str | int | None

_AT_US = "coalesce(json_extract(e.payload, '$.at_us'), e.recorded_us)"


# Days are not in the order of booking, so a sum over days may need more than 64 bits on the way,
# which SQLite refuses. The two halves of the numbers are summed apart, and joined in Python.
_SUM = "sum(amount_minor >> 32), sum(amount_minor & 4294967295)"


def _whole(high: int, low: int) -> int:
    return (high << 32) + low


_DAYS = "SELECT account, strategy, asset, amount_minor FROM balance_day WHERE day <= ?"


def _between(start: Moment, end: Moment) -> tuple[str, tuple[str | int, ...]]:
    """An SQL condition on entries `e` and its bindings; both ends are inclusive."""
    terms, values = ["TRUE"], list[str | int]()
    for moment, order in ((start, ">"), (end, "<")):
        if isinstance(moment, str):
            terms.append(f"e.day {order}= ?")
            values.append(moment)
        elif moment is not None:
            terms.append(f"(e.day {order} ? OR e.day = ? AND {_AT_US} {order}= ?)")
            values += [utc_day(moment), utc_day(moment), moment]
    return " AND ".join(terms), tuple(values)


def _before(start: str | int) -> str | int:
    """The last moment before `start`; no entry is older than 1970."""
    if isinstance(start, int):
        return start - 1
    return (date.fromisoformat(max(start, "1970-01-01")) - timedelta(days=1)).isoformat()


def balances_as_of(reader: Rows, as_of: Moment) -> dict[BalanceKey, int]:
    """Every balance at the end of that day, or at that instant."""
    deltas = _DAYS
    bindings: tuple[str | int, ...] = ("9999-12-31" if as_of is None else as_of,)
    if isinstance(as_of, int):
        part, values = _between(utc_day(as_of), as_of)
        deltas = (
            f"{_DAYS} UNION ALL SELECT account, coalesce(p.strategy, ''), asset, amount_minor "
            f"FROM entry AS e JOIN posting AS p ON p.entry = e.seq WHERE {part}"
        )
        bindings = (_before(utc_day(as_of)), *values)
    rows = reader.rows(
        f"SELECT account, strategy, asset, {_SUM} FROM ({deltas}) GROUP BY 1, 2, 3", bindings
    )
    return {
        (account, strategy or None, asset): _whole(high, low)
        for account, strategy, asset, high, low in rows
    }


def totals_as_of(reader: Rows, as_of: Moment, strategy: str | None, asset: str) -> dict[str, int]:
    """Balances in one asset by account, of one strategy or of all, as of a time."""
    return in_asset(balances_as_of(reader, as_of), asset, strategy)


def income_between(
    reader: Rows, start: Moment, end: Moment, strategy: str | None, asset: str
) -> dict[str, int]:
    """The change of each revenue account from `start` to `end`, both inclusive.

    The entries that closed or reopened a period are left out.
    """
    totals = totals_as_of(reader, end, strategy, asset)
    if start is not None:
        for account, amount in totals_as_of(reader, _before(start), strategy, asset).items():
            totals[account] = totals.get(account, 0) - amount
    within, values = _between(start, end)
    closing = reader.rows(
        f"SELECT account, {_SUM} FROM entry AS e JOIN posting AS p ON p.entry = e.seq "
        f"WHERE kind IN ('period_close', 'period_reopen') AND {within} "
        "AND asset = ? AND (? IS NULL OR p.strategy = ?) GROUP BY 1",
        (*values, asset, strategy, strategy),
    )
    for account, high, low in closing:
        totals[account] -= _whole(high, low)
    return totals


def cash_flows(
    reader: Rows, start: Moment, end: Moment, strategy: str | None, asset: str
) -> tuple[int, dict[str, int]]:
    """CASH before `start`, and its changes up to `end` by kind of entry.

    A reversal counts under the kind of the entry that it reverses.
    """
    opening = (
        0 if start is None else totals_as_of(reader, _before(start), strategy, asset).get(CASH, 0)
    )
    within, values = _between(start, end)
    rows = reader.rows(
        f"SELECT coalesce(r.kind, e.kind), {_SUM} FROM entry AS e "
        "JOIN posting AS p ON p.entry = e.seq LEFT JOIN entry AS r ON r.seq = e.reverses "
        f"WHERE {within} AND p.account = ? AND p.asset = ? AND (? IS NULL OR p.strategy = ?) "
        "GROUP BY 1",
        (*values, CASH, asset, strategy, strategy),
    )
    return opening, {kind: _whole(high, low) for kind, high, low in rows}


def entries_by_key(reader: Reader, keys: Iterable[str]) -> dict[str, Entry]:
    """The durable entries with these idempotency keys, by key."""
    rows = reader.rows(
        "SELECT payload FROM entry WHERE key IN (SELECT value FROM json_each(?))",
        (_json_list(keys),),
    )
    return {entry.key: entry for entry in (_decode(payload) for (payload,) in rows)}


def newest_key(reader: Reader, below: str) -> str:
    """The greatest durable idempotency key below `below`; an empty text when there is none."""
    newest: str | None = reader.row("SELECT max(key) FROM entry WHERE key < ?", (below,))[0]
    return newest or ""


def hash_of(reader: Reader, seq: int) -> bytes:
    """The chain's hash at a durable entry."""
    head: bytes = reader.row("SELECT hash FROM entry WHERE seq = ?", (seq,))[0]
    return head


def revisions_of(reader: Reader, prefixes: Iterable[str]) -> dict[str, dict[int, Entry]]:
    """The durable entries of reports by the prefix of their keys, then by revision.

    A prefix ends in a colon, and a revision number completes the key. Other keys that begin with
    it, such as those of reversals, are left out.
    """
    # ";" is the character after ":", so the range holds exactly the keys with this prefix.
    rows = reader.rows(
        "SELECT p.value, e.key, e.payload FROM json_each(?) AS p CROSS JOIN entry AS e "
        "WHERE e.key >= p.value AND e.key < substr(p.value, 1, length(p.value) - 1) || ';'",
        (_json_list(prefixes),),
    )
    found: dict[str, dict[int, Entry]] = {}
    for prefix, key, payload in rows:
        revision = key.removeprefix(prefix)
        if revision.isdecimal():
            found.setdefault(prefix, {})[int(revision)] = _decode(payload)
    return found


def _json_list(texts: Iterable[str]) -> str:
    return msgspec.json.encode(list(texts)).decode()


# -- reports set aside

_ASIDE = "kind, key, id, content, reason, since_us, skipped_by"


def asides_by_key(reader: Reader, keys: Iterable[str]) -> dict[str, AsideReport]:
    """The reports set aside, given up or not, that have these keys."""
    # Usually there are none at all, which is quick to see.
    if reader.row("SELECT 1 FROM report_aside LIMIT 1") is None:
        return {}
    rows = reader.rows(
        f"SELECT {_ASIDE} FROM report_aside WHERE key IN (SELECT value FROM json_each(?))",
        (_json_list(keys),),
    )
    return {row[1]: AsideReport(*row) for row in rows}


def asides_by_prefix(reader: Reader, prefixes: Iterable[str]) -> list[AsideReport]:
    """The waiting reports whose keys are one of these prefixes, which end in a colon, and more."""
    if reader.row("SELECT 1 FROM report_aside WHERE skipped_by IS NULL LIMIT 1") is None:
        return []
    rows = reader.rows(
        f"SELECT {', '.join(f'a.{column}' for column in _ASIDE.split(', '))} "
        "FROM json_each(?) AS p CROSS JOIN report_aside AS a "
        "WHERE a.key >= p.value AND a.key < substr(p.value, 1, length(p.value) - 1) || ';' "
        "AND skipped_by IS NULL ORDER BY a.key",
        (_json_list(prefixes),),
    )
    return [AsideReport(*row) for row in rows]


def reports_aside(reader: Rows, limit: int) -> tuple[AsideReport, ...]:
    """The reports that wait aside and were not given up, the oldest first."""
    rows = reader.rows(
        f"SELECT {_ASIDE} FROM report_aside WHERE skipped_by IS NULL "
        "ORDER BY since_us, key LIMIT ?",
        (limit,),
    )
    return tuple(AsideReport(*row) for row in rows)


def aside_named(reader: Reader, name: str) -> AsideReport | None:
    """The waiting report of this key, or else the only one with this id; None: there is none."""
    rows = reader.rows(
        f"SELECT {_ASIDE} FROM report_aside WHERE skipped_by IS NULL AND (key = ?1 OR id = ?1) "
        "ORDER BY key = ?1 DESC LIMIT 2",
        (name,),
    )
    named = [AsideReport(*row) for row in rows]
    if named and (named[0].key == name or len(named) == 1):
        return named[0]
    return None


def set_aside(reports: Iterable[AsideReport]) -> Statement:
    """The statement that stores reports aside; a key that is there gets the new content."""
    rows = tuple(
        (report.kind, report.key, report.id, report.content, report.reason, report.since_us)
        for report in reports
    )
    return Statement(
        f"INSERT OR REPLACE INTO report_aside ({_ASIDE}) VALUES (?, ?, ?, ?, ?, ?, NULL)", rows
    )


def no_longer_aside(keys: Iterable[str]) -> Statement:
    """The statement that forgets reports that were booked after all."""
    return Statement("DELETE FROM report_aside WHERE key = ?", tuple((key,) for key in keys))


def skip_aside(key: str, by: str, reason: str, at_us: int) -> Statement:
    """The statement that notes by whom, when and why a report was given up."""
    return Statement(
        "UPDATE report_aside SET skipped_by = ?, skip_reason = ?, skipped_us = ? WHERE key = ?",
        ((by, reason, at_us, key),),
    )


def find_original(reader: Reader, seq: int) -> Original | None:
    """A durable entry with the seq of its reversal, if any; None: no such entry."""
    row = reader.row(
        "SELECT payload, (SELECT r.seq FROM entry AS r WHERE r.reverses = e.seq) "
        "FROM entry AS e WHERE seq = ?",
        (seq,),
    )
    return None if row is None else Original(_decode(row[0]), row[1])


def _decode(payload: str) -> Entry:
    return msgspec.json.decode(payload, type=Entry)
