"""Verification of a book from its file alone: it names the entries at fault, and never repairs.

Level 0: the file opens and holds a book. Level 1: SQLite's quick_check, and a trial balance of the
stored balances. Level 2: the whole chain, every posting against its entry, and all derived tables
against the journal. Level 3: the installed outside tools judge the exported book. An anchor, kept
outside the file, detects a truncated journal; nothing inside the file can.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import msgspec

from ...runtime import ConfigError, FundopsError
from ...wire.errors import DatabaseError
from ...wire.paging import COUNT_MAX
from ..persistence import Reader, Rows
from .accounts import ACCOUNTS, EXTERNAL, UNITS
from .entry import GENESIS, Entry, Posting, chain_hash
from .fields import is_day
from .judges import judge, judges

__all__ = ["LEVELS", "Anchor", "Finding", "Verification", "anchor_of", "verify", "verify_file"]

LEVELS = (0, 1, 2, 3)
# A file that is all wrong has millions of findings; more than these tell nothing new.
FINDINGS_MAX = 100
# Bounds of a page: entries, and bytes of their payloads. The payload of an entry that moves many
# lots has some hundred kilobytes.
PAGE = 8_000
PAGE_BYTES = 8 * 2**20


class Anchor(NamedTuple):
    """The end of the chain at some time: the seq of the entry, and its hash in hex."""

    seq: int
    hash: str


class Finding(msgspec.Struct, frozen=True):
    """One fault of a book.

    `seq` is the entry at fault, or for a balance the last entry that moved it; None: no single
    entry.
    """

    # "chain", "entry", "posting", "balance", "balance of a day", "lot", "reversal", "file",
    # "anchor" or "judge".
    what: str
    seq: int | None
    problem: str

    def __str__(self) -> str:
        if self.seq is None:
            return f"{self.what}: {self.problem}"
        return (
            f"{'' if self.what == 'entry' else f'{self.what} at '}entry {self.seq}: {self.problem}"
        )


class Verification(msgspec.Struct, frozen=True):
    """The result of a verification: its extent and its findings.

    `seq` and `hash` are the anchor of the book as it is; keep them outside the file.
    """

    level: int
    entries: int
    seq: int
    hash: str
    findings: tuple[Finding, ...]
    judges: tuple[str, ...] = ()  # the outside tools that were asked

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


_decode = msgspec.json.Decoder(Entry).decode


def anchor_of(rows: Rows) -> Anchor:
    """The end of the chain now; entry 0 when there are no entries."""
    seq, head = rows.row("SELECT seq, hash FROM entry ORDER BY seq DESC LIMIT 1") or (0, GENESIS)
    return Anchor(seq, head.hex())


def verify_file(path: Path, level: int = 2, anchor: Anchor | None = None) -> Verification:
    """`verify` the file at this path in a snapshot. Raises: `DatabaseError`, `ConfigError`."""
    with Reader(path) as reader, reader.snapshot():
        return verify(reader, level, anchor)


def verify(reader: Reader, level: int = 2, anchor: Anchor | None = None) -> Verification:
    """Check the book up to a level of 0 to 3, and the anchor if one is given.

    Call it within one snapshot of the reader: otherwise an entry that a running fund books
    meanwhile becomes a finding.

    Raises: `ConfigError` for another level; `DatabaseError` when the reader's file is no longer at
        its path.
    """
    if isinstance(level, bool) or level not in LEVELS:
        raise ConfigError("level", f"{level!r} is not one of {', '.join(map(str, LEVELS))}")
    found: list[Finding] = []
    end, entries = Anchor(0, ""), 0
    try:
        end = anchor_of(reader)
        entries = reader.row("SELECT count(*) FROM entry")[0]
        found += islice(_look(reader, level, anchor), FINDINGS_MAX)
    except apsw.Error as error:  # a damaged page, a missing table
        found.append(Finding("file", None, f"it cannot be read any further: {error}"))
    return Verification(
        level, entries, end.seq, end.hash, tuple(found), judges() if level >= 3 else ()
    )


def _look(rows: Reader, level: int, anchor: Anchor | None) -> Iterator[Finding]:
    if anchor is not None:
        yield from _check_anchor(rows, anchor)
    if level >= 1:
        for (problem,) in rows.rows("PRAGMA quick_check"):
            if problem != "ok":
                yield Finding("file", None, problem)
        totals: dict[str, int] = defaultdict(int)
        for asset, amount in _texts(rows, "SELECT CAST(asset AS BLOB), amount_minor FROM balance"):
            totals[asset] += amount  # not by SQL: the sum may need more than 64 bits
        for asset, total in totals.items():
            if total:
                yield Finding(
                    "balance",
                    None,
                    f"all balances in {asset} sum to {total} minor units, not to zero",
                )
    if level >= 2:
        with closing(_twin(rows)) as twin:
            yield from _check_journal(rows, twin)
    if level >= 3:
        if not judges():
            yield Finding("judge", None, "none of bean-check, hledger and ledger is installed")
        try:
            for problem in judge(rows):
                yield Finding("judge", None, problem)
        except (FundopsError, ValueError) as error:
            yield Finding("judge", None, f"the book cannot be exported: {error}")


def _twin(reader: Reader) -> Reader:
    """Another connection to the same book. Raises: `DatabaseError` when the file was replaced."""
    twin = Reader(reader.path)
    if any(_check_anchor(twin, anchor_of(reader))):
        twin.close()
        raise DatabaseError(reader.path, "is no longer the file that was opened")
    return twin


def _texts(rows: Rows, sql: str, bindings: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Rows whose texts are selected as blobs, so that invalid UTF-8 is shown and does not crash."""
    for row in rows.rows(sql, bindings):
        yield tuple(
            value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
            for value in row
        )


def _check_anchor(rows: Rows, anchor: Anchor) -> Iterator[Finding]:
    stored = rows.row("SELECT hash FROM entry WHERE seq = ?", (min(anchor.seq, COUNT_MAX),))
    if anchor.seq and stored is None:
        yield Finding(
            "anchor", anchor.seq, f"is missing: the book ends at entry {anchor_of(rows).seq}"
        )
    elif anchor.seq and stored[0].hex() != anchor.hash:
        problem = f"has the hash {stored[0].hex()}, but the anchor says {anchor.hash}"
        yield Finding("anchor", anchor.seq, problem)


class _Rebuilt:
    """The derived tables as the journal alone gives them, and the position in the chain."""

    def __init__(self, wanted: set[int]) -> None:
        self.wanted = wanted  # entries that a later one reverses
        self.days: dict[tuple[str, str, str, str], int] = defaultdict(int)
        self.lots: dict[tuple[str, str, int], tuple[int, int, int]] = {}
        self.legs_of: dict[int, Sequence[Posting]] = {}  # of the wanted entries
        self.reversed_by: dict[int, int] = {}
        self.last = 0
        # The hashes that the next entry may follow. After a wrong hash there are two, the stored
        # and the computed one. After a gap there is none, and the next entry is not checked.
        self.heads: tuple[bytes, ...] = (GENESIS,)

    def take(self, entry: Entry) -> Iterator[Finding]:
        """Take over an entry that is in its place; check its sums, and its reversal of another."""
        yield from _check_sums(entry.seq, entry.legs)
        if entry.reverses is not None:
            yield from _check_reversal(entry.seq, entry.reverses, entry.legs, self)
        if entry.seq in self.wanted:
            self.legs_of[entry.seq] = entry.legs
        for strategy, instrument, lot, quantity, cost, mark in entry.lots:
            self.lots[strategy or "", instrument, lot] = (quantity, cost, mark)


# One query checks a page inside SQLite: whether the text of each payload begins with the columns of
# its entry and contains its legs as they would be written from the tables. It also lists the
# entries that need a closer look, since they reverse another, have several assets, or do not
# balance.
_LOOK = """
SELECT
    count(*),
    sum(begins AND instr(payload, legs)),
    json_group_array(seq) FILTER (WHERE more)
FROM (
    SELECT
        seq,
        payload,
        instr(
            payload,
            '{"seq":' || seq || ',"key":' || json_quote(key) || ',"recorded_us":' || recorded_us
            || ',"day":' || json_quote(day) || ',"kind":' || json_quote(kind)
            || ',"strategy":' || json_quote(entry.strategy)
            || ',"reverses":' || json_quote(reverses) || ',"memo":"'
        ) = 1 AS begins,
        ',"legs":' || json_group_array(json_array(account, posting.strategy, asset, amount_minor))
            FILTER (WHERE leg IS NOT NULL) || ',"lots":[' AS legs,
        reverses IS NOT NULL OR sum(amount_minor) <> 0 OR min(asset) <> max(asset) AS more
    FROM entry LEFT JOIN posting ON posting.entry = seq WHERE seq BETWEEN ? AND ? GROUP BY seq
)
"""
# The rest of such a payload when it moves no lots. Any other payload is decoded.
_TEXT = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_PLAIN = re.compile(
    rb',"memo":%(text)b,"rounded":(?:true|false),"request":%(text)b,'
    rb'"legs":\[(?:\[%(text)b,(?:null|%(text)b),%(text)b,-?\d+\],?)*\],"lots":\[\],'
    rb'"corrects":(?:null|\d+),"at_us":(?:null|\d+)\}' % {b"text": _TEXT},
)
_PAGE = "SELECT seq, CAST(payload AS BLOB), hash FROM entry WHERE seq > ? ORDER BY seq LIMIT ?"
_MOVED = """
SELECT account, coalesce(posting.strategy, ''), asset, day, sum(amount_minor)
FROM posting JOIN entry ON seq = entry WHERE entry BETWEEN ? AND ? GROUP BY 1, 2, 3, 4
"""


class _Said(NamedTuple):
    """The answer of SQLite about a page."""

    entries: int
    agreeing: int
    more: list[int]  # seqs of the entries that need a closer look
    moved: list[tuple[str, str, str, str, int]]


class _Page(NamedTuple):
    """Seq, payload and hash of each entry; the first and the last seq."""

    entries: list[tuple[int, bytes, bytes]]
    bounds: tuple[int, int]
    said: Future[_Said | None]


def _check_journal(rows: Rows, twin: Rows) -> Iterator[Finding]:
    """Check the book page by page, since it may be larger than memory.

    A page in order is accepted as a whole; any other is gone through entry by entry.
    """
    wanted = rows.rows("SELECT reverses FROM entry WHERE reverses IS NOT NULL")
    rebuilt = _Rebuilt({seq for (seq,) in wanted})
    with ThreadPoolExecutor(1, "fundops-verify") as thread:
        for page in _pages(rows, twin, thread):
            entries = _in_order(page, rebuilt)
            if entries is None:
                yield from _explain(rows, page.bounds, rebuilt)
                continue
            for entry in entries:
                yield from rebuilt.take(entry)
    for (seq,) in rows.rows(
        "SELECT DISTINCT entry FROM posting WHERE entry NOT IN (SELECT seq FROM entry)"
    ):
        yield Finding("posting", seq, "belongs to no entry")
    yield from _check_derived(rows, rebuilt)


def _pages(rows: Rows, twin: Rows, thread: ThreadPoolExecutor) -> Iterator[_Page]:
    """The pages of the book with the answer of SQLite about each, computed one page ahead.

    SQLite works without the interpreter's lock, while the page before is hashed here. It uses a
    second connection, outside the snapshot: the entries of a page never change.
    """
    ahead: list[_Page] = []
    last = 0
    while True:
        try:
            entries = _entries_after(rows, last)
        except apsw.Error:
            yield from ahead
            raise
        if not entries:
            yield from ahead
            return
        bounds = (entries[0][0], entries[-1][0])
        last = bounds[1]
        page = _Page(entries, bounds, thread.submit(_ask, twin, bounds))
        yield from ahead
        ahead = [page]


def _entries_after(rows: Rows, last: int) -> list[tuple[int, bytes, bytes]]:
    entries, size = [], 0
    for entry in rows.each(_PAGE, (last, PAGE)):
        entries.append(entry)
        size += len(entry[1])
        if size >= PAGE_BYTES:
            break
    return entries


def _ask(rows: Rows, bounds: tuple[int, int]) -> _Said | None:
    try:
        entries, agreeing, more = rows.row(_LOOK, bounds)
        return _Said(entries, agreeing, msgspec.json.decode(more), rows.rows(_MOVED, bounds))
    except (apsw.SQLError, UnicodeDecodeError):  # sums beyond 64 bits, texts that are no UTF-8
        return None


def _in_order(page: _Page, rebuilt: _Rebuilt) -> list[Entry] | None:
    """The entries that need a closer look, if the page is complete, chained and as the tables say.

    None: something is wrong in this page.
    """
    first, last = page.bounds
    if (
        first != rebuilt.last + 1
        or last - first + 1 != len(page.entries)
        or len(rebuilt.heads) != 1
    ):
        return None
    [previous] = rebuilt.heads
    decoded = rebuilt.wanted.intersection(range(first, last + 1))
    for seq, payload, head in page.entries:
        if chain_hash(previous, payload) != head:
            return None
        previous = head
        if not _PLAIN.fullmatch(payload, payload.find(b',"memo":"')):
            decoded.add(seq)
    said = page.said.result()
    if said is None or not said.entries == said.agreeing == len(page.entries):
        return None
    payloads = [page.entries[seq - first][1] for seq in sorted(decoded.union(said.more))]
    # Of several "legs" a decoder takes the last, but SQLite may have matched any of them.
    if any(payload.count(b',"legs":') > 1 for payload in payloads):
        return None
    try:
        entries = [_decode(payload) for payload in payloads]
    except msgspec.DecodeError:
        return None
    for account, strategy, asset, day, amount in said.moved:
        rebuilt.days[account, strategy, asset, day] += amount
    rebuilt.last, rebuilt.heads = last, (previous,)
    return entries


def _explain(rows: Rows, bounds: tuple[int, int], rebuilt: _Rebuilt) -> Iterator[Finding]:
    """Check a page entry by entry, against the decoded payload of each."""
    legs_of: dict[int, list[Posting]] = defaultdict(list)
    for seq, *leg in _texts(
        rows,
        "SELECT entry, CAST(account AS BLOB), CAST(strategy AS BLOB), CAST(asset AS BLOB), "
        "amount_minor FROM posting WHERE entry BETWEEN ? AND ? ORDER BY entry, leg",
        bounds,
    ):
        legs_of[seq].append(tuple(leg))
    entries = rows.rows(
        "SELECT CAST(payload AS BLOB), hash FROM entry WHERE seq BETWEEN ? AND ? ORDER BY seq",
        bounds,
    )
    of_columns = _texts(
        rows,
        "SELECT seq, CAST(key AS BLOB), recorded_us, CAST(day AS BLOB), CAST(kind AS BLOB), "
        "CAST(strategy AS BLOB), reverses FROM entry WHERE seq BETWEEN ? AND ? ORDER BY seq",
        bounds,
    )
    for columns, (payload, head) in zip(of_columns, entries, strict=True):
        seq = columns[0]
        if seq != rebuilt.last + 1:
            until = "" if seq == rebuilt.last + 2 else f", and all up to {seq - 1}"
            yield Finding("entry", rebuilt.last + 1, f"is missing{until}")
            rebuilt.heads = ()
        rebuilt.last = seq
        expected = [chain_hash(previous, payload) for previous in rebuilt.heads]
        rebuilt.heads = (head,)
        if expected and head not in expected:
            yield Finding(
                "chain", seq, "its hash is not that of its payload and the hash before it"
            )
            rebuilt.heads = (head, expected[0])
        try:
            entry = _decode(payload)
        except msgspec.DecodeError as error:
            yield Finding("entry", seq, f"its payload cannot be read: {error}")
            continue
        said = (
            entry.seq,
            entry.key,
            entry.recorded_us,
            entry.day,
            entry.kind,
            entry.strategy,
            entry.reverses,
        )
        if said != columns:
            yield Finding("entry", seq, f"its columns say {columns} and its payload {said}")
        if list(entry.legs) != legs_of[seq]:
            yield Finding(
                "posting", seq, f"the table says {legs_of[seq]} and the payload {list(entry.legs)}"
            )
        for account, strategy, asset, amount in entry.legs:
            rebuilt.days[account, strategy or "", asset, entry.day] += amount
        yield from rebuilt.take(entry)


def _check_sums(seq: int, legs: Sequence[Posting]) -> Iterator[Finding]:
    sums: dict[str, int] = {}
    for _, _, asset, amount in legs:
        sums[asset] = sums.get(asset, 0) + amount
    for asset, total in sums.items():
        if total:
            yield Finding(
                "entry", seq, f"its legs in {asset} sum to {total} minor units, not to zero"
            )


def _check_reversal(
    seq: int, original: int, reversal: Sequence[Posting], rebuilt: _Rebuilt
) -> Iterator[Finding]:
    if original in rebuilt.reversed_by:
        yield Finding(
            "reversal",
            seq,
            f"entry {original} was reversed already by entry {rebuilt.reversed_by[original]}",
        )
    rebuilt.reversed_by[original] = seq
    legs = rebuilt.legs_of.get(original)
    if legs is None:
        yield Finding("reversal", seq, f"there is no entry {original} before it")
    elif not _negates(reversal, legs):
        yield Finding("reversal", seq, f"does not negate every leg of entry {original}")


def _negates(reversal: Sequence[Posting], legs: Sequence[Posting]) -> bool:
    """Whether the legs of a reversal are those of the original, negated.

    The units of a flow are priced anew when it is reversed, so they may differ.
    """
    if Counter((*balance, -amount) for *balance, amount in legs) == Counter(reversal):
        return True
    money, back = (
        Counter((*balance, sign * amount) for *balance, amount in side if balance[2] != UNITS)
        for side, sign in ((legs, -1), (reversal, 1))
    )
    return money == back and any(account == EXTERNAL for account, *_ in legs)


def _last_of(rows: Rows, what: str, key: tuple[Any, ...]) -> int | None:
    """The last entry that moved a balance, or the entry that opened a lot."""
    if what == "lot":
        return int(key[2])
    of_day = (
        "JOIN entry ON seq = entry WHERE day = ?4 AND" if what == "balance of a day" else "WHERE"
    )
    sql = (
        f"SELECT max(entry) FROM posting AS p {of_day} account = ?1 "
        "AND coalesce(p.strategy, '') = ?2 AND asset = ?3"
    )
    last: int | None = rows.row(sql, key)[0]
    return last


def _check_derived(rows: Rows, rebuilt: _Rebuilt) -> Iterator[Finding]:
    for account in sorted({account for account, _, _, _ in rebuilt.days} - ACCOUNTS):
        seq = rows.row("SELECT min(entry) FROM posting WHERE account = ?", (account,))[0]
        yield Finding("entry", seq, f"there is no account {account!r}")
    for day in sorted({day for _, _, _, day in rebuilt.days if not is_day(day)}):
        seq = rows.row("SELECT min(seq) FROM entry WHERE day = ?", (day,))[0]
        yield Finding("entry", seq, f"its day {day!r} is not a date")
    balances: dict[tuple[str, str, str], int] = defaultdict(int)
    for (account, strategy, asset, _), amount in rebuilt.days.items():
        balances[account, strategy, asset] += amount
    lots = {key: lot for key, lot in rebuilt.lots.items() if lot[0]}
    of_balance = "CAST(account AS BLOB), CAST(strategy AS BLOB), CAST(asset AS BLOB)"
    of_lot = (
        "CAST(strategy AS BLOB), CAST(instrument AS BLOB), id, quantity, cost_minor, mark_minor"
    )
    of_day = f"{of_balance}, CAST(day AS BLOB)"
    sql = f"SELECT {of_balance}, amount_minor FROM balance"
    yield from _check_table(rows, "balance", sql, 3, balances)
    sql = f"SELECT {of_day}, amount_minor FROM balance_day"
    yield from _check_table(rows, "balance of a day", sql, 4, rebuilt.days)
    yield from _check_table(rows, "lot", f"SELECT {of_lot} FROM lot", 3, lots)


def _check_table(
    rows: Rows, what: str, sql: str, width: int, expected: Mapping[Any, object]
) -> Iterator[Finding]:
    """Compare a derived table with the journal. The key is the first `width` columns of a row."""
    stored = {
        row[:width]: row[width] if len(row) == width + 1 else row[width:]
        for row in _texts(rows, sql)
    }
    for key in sorted({*stored, *expected}):
        has, should = stored.get(key, "nothing"), expected.get(key, "nothing")
        if has != should:
            problem = f"{' '.join(map(str, key))} is {has}, but the journal says {should}"
            yield Finding(what, _last_of(rows, what, key), problem)
