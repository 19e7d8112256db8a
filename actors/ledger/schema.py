"""The ledger's tables. `entry` is the truth, its payload verbatim what the chain hashes; the rest can be rebuilt.

An empty text stands for "no strategy" where a column is part of a key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from ...wire.ledger import Entry as EntryRecord
from ...wire.ledger import Leg
from ...wire.money import from_minor
from ...wire.persistence import Statement
from ..persistence import Reader
from .core import GENESIS, BalanceKey, Book, Draft, Entry, Lot, LotKey, Original

__all__ = [
    "SCHEMA",
    "account_totals",
    "cursors",
    "entries_by_key",
    "find_original",
    "load_book",
    "recent_entries",
    "rows_of",
    "set_cursor",
    "settlement_revisions",
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

_INSERT_ENTRY = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_POSTING = "INSERT INTO posting VALUES (?, ?, ?, ?, ?, ?)"
_SET_BALANCE = "INSERT INTO balance VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET amount_minor = excluded.amount_minor"
_SET_LOT = "INSERT OR REPLACE INTO lot VALUES (?, ?, ?, ?, ?, ?)"
_DROP_LOT = "DELETE FROM lot WHERE strategy = ? AND instrument = ? AND id = ?"
_SET_CURSOR = "INSERT INTO cursor VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"


def rows_of(draft: Draft) -> tuple[Statement, ...]:
    """Everything that makes the draft's entries durable."""
    entries, postings = [], []
    lots = {}
    for entry, payload, head in draft.entries:
        entries.append(
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
        )
        postings += [(entry.seq, number, *posting) for number, posting in enumerate(entry.legs)]
        lots.update({(image.strategy or "", image.instrument, image.id): image for image in entry.lots})
    balances = [
        (account, strategy or "", asset, amount) for (account, strategy, asset), amount in draft.balances.items()
    ]
    open_lots = [(*key, lot.quantity, lot.cost_minor, lot.mark_minor) for key, lot in lots.items() if lot.quantity]
    closed_lots = [key for key, lot in lots.items() if not lot.quantity]
    statements = (
        Statement(_INSERT_ENTRY, entries),
        Statement(_INSERT_POSTING, postings),
        Statement(_SET_BALANCE, balances),
        Statement(_SET_LOT, open_lots),
        Statement(_DROP_LOT, closed_lots),
    )
    return tuple(statement for statement in statements if statement.rows)


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
    return Book(currency, balances, lots, seq, head)


def account_totals(reader: Reader, asset: str) -> Mapping[str, int]:
    """Balances by account over all strategies, in one asset: what the reports are made of."""
    return dict(
        reader.rows("SELECT account, sum(amount_minor) FROM balance WHERE asset = ? GROUP BY account", (asset,))
    )


def entries_by_key(reader: Reader, keys: Iterable[str]) -> dict[str, tuple[Entry, bytes]]:
    """The durable entries among these idempotency keys, with their hashes."""
    wanted = msgspec.json.encode(list(keys)).decode()
    rows = reader.rows("SELECT payload, hash FROM entry WHERE key IN (SELECT value FROM json_each(?))", (wanted,))
    found = ((_decode(payload), head) for payload, head in rows)
    return {entry.key: (entry, head) for entry, head in found}


def settlement_revisions(reader: Reader, prefix: str) -> dict[int, int]:
    """The entry of each durable revision of one settlement, whose keys begin with `prefix`, which ends in a colon."""
    rows = reader.rows("SELECT key, seq FROM entry WHERE key >= ? AND key < ?", (prefix, prefix[:-1] + ";"))
    numbers = ((key.removeprefix(prefix), seq) for key, seq in rows)
    return {int(number): seq for number, seq in numbers if number.isdecimal()}


def find_original(reader: Reader, seq: int) -> Original | None:
    """A durable entry and the entry that reversed it, for a reversal to look at."""
    row = reader.row(
        "SELECT payload, (SELECT r.seq FROM entry AS r WHERE r.reverses = e.seq) FROM entry AS e WHERE seq = ?", (seq,)
    )
    return None if row is None else Original(_decode(row[0]), row[1])


def recent_entries(reader: Reader, limit: int) -> tuple[EntryRecord, ...]:
    """The newest entries, newest first."""
    rows = reader.rows("SELECT payload, hash FROM entry ORDER BY seq DESC LIMIT ?", (limit,))
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
        legs=tuple(Leg(leg.account, from_minor(leg.amount_minor), leg.strategy, leg.asset) for leg in entry.legs),
        reverses=entry.reverses,
        memo=entry.memo,
        hash=head.hex(),
    )
