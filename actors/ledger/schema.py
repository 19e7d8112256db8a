"""The ledger's tables. `entry` is the truth, its payload verbatim what the chain hashes; the rest can be rebuilt.

An empty text stands for "no strategy" where a column is part of a key.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import date, timedelta

import msgspec

from ...wire.errors import AmountError
from ...wire.ledger import Entry as EntryRecord
from ...wire.ledger import Leg
from ...wire.money import from_minor
from ...wire.persistence import Statement
from ..persistence import Reader, Rows
from .accounts import CASH, in_asset
from .core import GENESIS, BalanceKey, Book, Close, Draft, Entry, Lot, LotKey, Original, utc_day

__all__ = [
    "SCHEMA",
    "SCHEMA_2",
    "Moment",
    "balances_as_of",
    "cash_flows",
    "cursors",
    "entries",
    "entries_by_key",
    "find_original",
    "hash_of",
    "income_between",
    "load_book",
    "newest_key",
    "outgrown_day",
    "rows_of",
    "set_cursor",
    "settlement_revisions",
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

# Deltas per day: an entry of an earlier day rewrites nothing, and a balance as of a day is one sum.
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

_INSERT_ENTRY = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_POSTING = "INSERT INTO posting VALUES (?, ?, ?, ?, ?, ?)"
_SET_BALANCE = "INSERT INTO balance VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET amount_minor = excluded.amount_minor"
_ADD_TO_DAY = (
    "INSERT INTO balance_day VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET amount_minor = amount_minor + excluded.amount_minor"
)
_SET_LOT = "INSERT OR REPLACE INTO lot VALUES (?, ?, ?, ?, ?, ?)"
_DROP_LOT = "DELETE FROM lot WHERE strategy = ? AND instrument = ? AND id = ?"
_SET_CURSOR = "INSERT INTO cursor VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"


def rows_of(draft: Draft) -> tuple[Statement, ...]:
    """Everything that makes the draft's entries durable."""
    entries = [
        (one.seq, one.key, one.recorded_us, one.day, one.kind, one.strategy, one.reverses, payload.decode(), head)
        for one, payload, head in draft.sealed
    ]
    postings = [(one.seq, number, *leg) for one, _, _ in draft.sealed for number, leg in enumerate(one.legs)]
    lots = {
        (image.strategy or "", image.instrument, image.id): image for one, _, _ in draft.sealed for image in one.lots
    }
    balances = [
        (account, strategy or "", asset, amount) for (account, strategy, asset), amount in draft.balances.items()
    ]
    days = [
        (account, strategy or "", asset, day, amount)
        for day, moved in _moved_by_day(draft).items()
        for (account, strategy, asset), amount in moved.items()
    ]
    open_lots = [(*key, lot.quantity, lot.cost_minor, lot.mark_minor) for key, lot in lots.items() if lot.quantity]
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
    if len(days) == 1:  # nearly always
        return {days.pop(): draft.moved()}
    moved: dict[str, dict[BalanceKey, int]] = {day: defaultdict(int) for day in days}
    for entry, _, _ in draft.sealed:
        for account, strategy, asset, amount in entry.legs:
            moved[entry.day][account, strategy, asset] += amount
    return moved


def outgrown_day(reader: Rows, draft: Draft) -> AmountError | None:
    """Why the draft cannot be stored, if that is a day whose delta its column cannot hold.

    Balances are kept from growing so far, but what moves one to and fro may gather on one day of the past.
    """
    for day, moved in _moved_by_day(draft).items():
        for (account, strategy, asset), amount in moved.items():
            key = (account, strategy or "", asset, day)
            row = reader.row(
                "SELECT amount_minor FROM balance_day WHERE (account, strategy, asset, day) = (?, ?, ?, ?)", key
            )
            if not -(2**63) <= amount + (row[0] if row else 0) < 2**63:
                return AmountError(
                    "amount", from_minor(amount), f"would move {account} by more than 2^63 minor units on {day}"
                )
    return None


def set_cursor(name: str, value: str) -> Statement:
    """How far an outside source has been booked, in the transaction that books it."""
    return Statement(_SET_CURSOR, ((name, value),))


def cursors(reader: Reader) -> dict[str, str]:
    return dict(reader.rows("SELECT name, value FROM cursor"))


def load_book(reader: Reader, currency: str) -> Book:
    """The book as it is on disk."""
    balances: dict[BalanceKey, int] = {
        (account, strategy or None, asset): amount
        for account, strategy, asset, amount in reader.rows("SELECT * FROM balance")
    }
    lots: dict[LotKey, list[Lot]] = {}
    for strategy, instrument, *lot in reader.rows("SELECT * FROM lot ORDER BY strategy, instrument, id"):
        lots.setdefault((strategy or None, instrument), []).append(Lot(*lot))
    seq, head = reader.row("SELECT seq, hash FROM entry ORDER BY seq DESC LIMIT 1") or (0, GENESIS)
    closes = reader.rows(
        "SELECT day, seq FROM entry AS e WHERE kind = 'period_close' "
        "AND NOT EXISTS (SELECT 1 FROM entry WHERE reverses = e.seq) ORDER BY seq"
    )
    return Book(currency, balances, lots, seq, head, [Close(*close) for close in closes])


# -- as of a time: a day (ISO date, UTC) counts as a whole, an instant in microseconds takes in part of its day

Moment = str | int | None

_AT_US = "coalesce(json_extract(e.payload, '$.at_us'), e.recorded_us)"


# Days are not in the order of booking: what they sum up to on the way may need more than 64 bits, which SQLite refuses.
_SUM = "sum(amount_minor >> 32), sum(amount_minor & 4294967295)"


def _whole(high: int, low: int) -> int:
    return (high << 32) + low


_DAYS = "SELECT account, strategy, asset, amount_minor FROM balance_day WHERE day <= ?"


def _between(start: Moment, end: Moment) -> tuple[str, tuple[str | int, ...]]:
    """A condition on entries `e`, and what it is about; both ends are included."""
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
    """The last moment that `start` leaves out; no entry is older than 1970."""
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
    rows = reader.rows(f"SELECT account, strategy, asset, {_SUM} FROM ({deltas}) GROUP BY 1, 2, 3", bindings)
    return {(account, strategy or None, asset): _whole(high, low) for account, strategy, asset, high, low in rows}


def totals_as_of(reader: Rows, as_of: Moment, strategy: str | None, asset: str) -> dict[str, int]:
    """Balances by account, of one strategy or of all."""
    return in_asset(balances_as_of(reader, as_of), asset, strategy)


def income_between(reader: Rows, start: Moment, end: Moment, strategy: str | None, asset: str) -> dict[str, int]:
    """What the revenue accounts moved by; what closed or reopened a period is left out."""
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
    """CASH before `start`, and what moved it since, by kind of entry; a reversal has the kind of what it reverses."""
    opening = 0 if start is None else totals_as_of(reader, _before(start), strategy, asset).get(CASH, 0)
    within, values = _between(start, end)
    rows = reader.rows(
        f"SELECT coalesce(r.kind, e.kind), {_SUM} FROM entry AS e "
        "JOIN posting AS p ON p.entry = e.seq LEFT JOIN entry AS r ON r.seq = e.reverses "
        f"WHERE {within} AND p.account = ? AND p.asset = ? AND (? IS NULL OR p.strategy = ?) GROUP BY 1",
        (*values, CASH, asset, strategy, strategy),
    )
    return opening, {kind: _whole(high, low) for kind, high, low in rows}


def entries_by_key(reader: Reader, keys: Iterable[str]) -> dict[str, Entry]:
    """The durable entries among these idempotency keys."""
    wanted = msgspec.json.encode(list(keys)).decode()
    rows = reader.rows("SELECT payload FROM entry WHERE key IN (SELECT value FROM json_each(?))", (wanted,))
    return {entry.key: entry for entry in (_decode(payload) for (payload,) in rows)}


def newest_key(reader: Reader, below: str) -> str:
    """The last of the durable idempotency keys that come before `below`; empty with none."""
    newest: str | None = reader.row("SELECT max(key) FROM entry WHERE key < ?", (below,))[0]
    return newest or ""


def hash_of(reader: Reader, seq: int) -> bytes:
    """The chain's hash at a durable entry."""
    head: bytes = reader.row("SELECT hash FROM entry WHERE seq = ?", (seq,))[0]
    return head


def settlement_revisions(reader: Reader, prefix: str) -> dict[int, int]:
    """The entry of each durable revision of one settlement, whose keys begin with `prefix`, which ends in a colon."""
    rows = reader.rows("SELECT key, seq FROM entry WHERE key >= ? AND key < ?", (prefix, prefix[:-1] + ";"))
    numbers = {key.removeprefix(prefix): seq for key, seq in rows}
    return {int(number): seq for number, seq in numbers.items() if number.isdecimal()}


def find_original(reader: Reader, seq: int) -> Original | None:
    """A durable entry and the entry that reversed it, for a reversal to look at."""
    row = reader.row(
        "SELECT payload, (SELECT r.seq FROM entry AS r WHERE r.reverses = e.seq) FROM entry AS e WHERE seq = ?", (seq,)
    )
    return None if row is None else Original(_decode(row[0]), row[1])


def entries(
    reader: Rows, account: str | None, strategy: str | None, kind: str | None, after_seq: int | None, limit: int
) -> tuple[EntryRecord, ...]:
    """One page of those that match, newest first: the ones before entry `after_seq`."""
    rows = reader.rows(
        "SELECT payload, hash FROM entry AS e WHERE (?1 IS NULL OR seq < ?1) AND (?2 IS NULL OR kind = ?2) "
        "AND (?3 IS NULL OR strategy = ?3 OR EXISTS (SELECT 1 FROM posting WHERE entry = seq AND strategy = ?3)) "
        "AND (?4 IS NULL OR EXISTS (SELECT 1 FROM posting WHERE entry = seq AND account = ?4)) "
        "ORDER BY seq DESC LIMIT ?5",
        (after_seq, kind, strategy, account, limit),
    )
    return tuple(_record(_decode(payload), head) for payload, head in rows)


def _decode(payload: str) -> Entry:
    return msgspec.json.decode(payload, type=Entry)


def _record(entry: Entry, head: bytes) -> EntryRecord:
    return EntryRecord(
        seq=entry.seq,
        key=entry.key,
        recorded_us=entry.recorded_us,
        day=entry.day,
        kind=entry.kind,
        strategy=entry.strategy,
        legs=tuple(Leg(account, from_minor(minor), strategy, asset) for account, strategy, asset, minor in entry.legs),
        reverses=entry.reverses,
        memo=entry.memo,
        hash=head.hex(),
        corrects=entry.corrects,
    )
