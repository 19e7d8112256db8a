"""Looks a book over, from the file alone. It reports and never repairs, and names the entry.

Level 0: the file opens and holds a book. 1: SQLite's own check, and the trial balance of what is derived. 2: the whole
chain, every posting against its entry, and everything derived built anew and compared. 3: what outside tools make of
the exported book, those that are installed. An anchor, kept outside of the file, shows a tail that was cut off, which
nothing inside can.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ...runtime import ConfigError
from ..persistence import Reader, Rows
from .accounts import ACCOUNTS
from .core import GENESIS
from .judges import judge, judges

__all__ = ["LEVELS", "Anchor", "Finding", "Verification", "anchor_of", "verify", "verify_file"]

LEVELS = (0, 1, 2, 3)
# More of them say nothing new, and a file that is all wrong has millions.
FINDINGS_MAX = 100
PAGE = 10_000


Leg = tuple[str, str | None, str, int]  # account, strategy, asset, minor units


class Anchor(NamedTuple):
    """Where the chain ended at some time: the entry, and the hex of its hash."""

    seq: int
    hash: str


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it should be. `seq`: the entry it is about, if it is one's."""

    what: str  # "chain", "entry", "posting", "balance", "lot", "reversal", "file", "anchor", "judge"
    seq: int | None
    problem: str

    def __str__(self) -> str:
        return (
            f"{self.what}: {self.problem}" if self.seq is None else f"{self.what} of entry {self.seq}: {self.problem}"
        )


class Verification(msgspec.Struct, frozen=True):
    """What was looked at, and what was found. `seq` and `hash` are the anchor of the book as it is."""

    level: int
    entries: int
    seq: int
    hash: str
    findings: tuple[Finding, ...]
    judges: tuple[str, ...] = ()  # the outside tools that were asked

    @property
    def ok(self) -> bool:
        return not self.findings


class _Slim(msgspec.Struct):
    """What of a payload is compared; the decoder skips the rest."""

    seq: int
    key: str
    recorded_us: int
    day: str
    kind: str
    strategy: str | None
    reverses: int | None
    legs: list[Leg]
    lots: list[tuple[str | None, str, int, int, int, int]]


_decode = msgspec.json.Decoder(_Slim).decode


def anchor_of(rows: Rows) -> Anchor:
    """Where the chain ends now; entry 0 with no entries."""
    seq, head = rows.row("SELECT seq, hash FROM entry ORDER BY seq DESC LIMIT 1") or (0, GENESIS)
    return Anchor(seq, head.hex())


def verify_file(path: Path, level: int = 2, anchor: Anchor | None = None) -> Verification:
    """`verify` on a connection and in a snapshot of its own. Raises: `DatabaseError`, `ConfigError`."""
    with Reader(path) as reader, reader.snapshot():
        return verify(reader, level, anchor)


def verify(rows: Rows, level: int = 2, anchor: Anchor | None = None) -> Verification:
    """Look the book over. Read within one snapshot, or a running fund's next entry is a finding.

    Raises: `ConfigError` for another level.
    """
    if isinstance(level, bool) or level not in LEVELS:
        raise ConfigError("level", f"{level!r} is not one of {', '.join(map(str, LEVELS))}")
    found: list[Finding] = []
    for finding in _look(rows, level, anchor):
        found.append(finding)
        if len(found) == FINDINGS_MAX:
            break
    end = anchor_of(rows)
    entries = rows.row("SELECT count(*) FROM entry")[0]
    return Verification(level, entries, end.seq, end.hash, tuple(found), judges() if level >= 3 else ())


def _look(rows: Rows, level: int, anchor: Anchor | None) -> Iterator[Finding]:
    if anchor is not None:
        yield from _check_anchor(rows, anchor)
    if level >= 1:
        for (problem,) in rows.rows("PRAGMA quick_check"):
            if problem != "ok":
                yield Finding("file", None, problem)
        for asset, total in rows.rows(
            "SELECT asset, sum(amount_minor) FROM balance GROUP BY asset HAVING sum(amount_minor)"
        ):
            yield Finding("balance", None, f"all balances in {asset} sum to {total} minor units, not to zero")
    if level >= 2:
        yield from _check_journal(rows)
    if level >= 3:
        if not judges():
            yield Finding("judge", None, "none of bean-check, hledger and ledger is installed")
        for problem in judge(rows):
            yield Finding("judge", None, problem)


def _check_anchor(rows: Rows, anchor: Anchor) -> Iterator[Finding]:
    there = rows.row("SELECT hash FROM entry WHERE seq = ?", (anchor.seq,))
    if anchor.seq and there is None:
        yield Finding("anchor", anchor.seq, f"is not there: the book ends at entry {anchor_of(rows).seq}")
    elif anchor.seq and there[0].hex() != anchor.hash:
        yield Finding("anchor", anchor.seq, f"has the hash {there[0].hex()}, and had {anchor.hash}")


class _Rebuilt:
    """What the journal alone says the derived tables hold."""

    def __init__(self) -> None:
        self.days: dict[tuple[str, str, str, str], int] = {}
        self.lots: dict[tuple[str, str, int], tuple[int, int, int]] = {}
        self.legs_of: dict[int, list[Leg]] = {}  # of entries that a later one reverses
        self.reversed_by: dict[int, int] = {}


def _check_journal(rows: Rows) -> Iterator[Finding]:
    """The hot loop of level 2: what is in order is found so in a few comparisons, and explained only if it is not."""
    rebuilt = _Rebuilt()
    wanted = {seq for (seq,) in rows.rows("SELECT reverses FROM entry WHERE reverses IS NOT NULL")}
    before: tuple[bytes, ...] = (GENESIS,)  # after a wrong hash two could be meant: what is stored, what should be
    last = 0
    for row, postings in _entries(rows):
        seq, payload, head = row[0], row[7], row[8]
        if seq != last + 1:
            yield Finding(
                "entry", last + 1, "is missing" if seq == last + 2 else f"is missing, and all up to {seq - 1}"
            )
            before = ()  # what it was nobody can say
        last = seq
        if before and head != hashlib.sha256(before[0] + payload).digest():
            expected = [hashlib.sha256(previous + payload).digest() for previous in before]
            if head not in expected:
                yield Finding("chain", seq, "its hash is not that of its payload and the hash before it")
                before = (head, expected[0])
            else:
                before = (head,)
        else:
            before = (head,)
        try:
            entry = _decode(payload)
        except msgspec.DecodeError as error:
            yield Finding("entry", seq, f"its payload cannot be read: {error}")
            continue
        legs = entry.legs
        columns = (entry.seq, entry.key, entry.recorded_us, entry.day, entry.kind, entry.strategy, entry.reverses)
        if columns != row[:7]:
            yield Finding("entry", seq, f"its columns say {row[:7]} and its payload {columns}")
        if legs != postings:
            yield Finding("posting", seq, f"the table says {postings} and the payload {legs}")
        if len(legs) != 2 or legs[0][3] + legs[1][3] or legs[0][2] != legs[1][2]:
            yield from _check_sums(seq, legs)
        if entry.reverses is not None:
            yield from _check_reversal(seq, entry.reverses, legs, rebuilt)
        if seq in wanted:
            rebuilt.legs_of[seq] = legs
        yield from _add(rebuilt, entry)
    for (seq,) in rows.rows("SELECT DISTINCT entry FROM posting WHERE entry NOT IN (SELECT seq FROM entry)"):
        yield Finding("posting", seq, "belongs to no entry")
    yield from _check_derived(rows, rebuilt)


def _entries(rows: Rows) -> Iterator[tuple[tuple[Any, ...], list[Leg]]]:
    """Every entry with its postings, in pages: a book may be larger than memory."""
    after = 0
    while True:
        page = rows.rows(
            "SELECT seq, key, recorded_us, day, kind, strategy, reverses, CAST(payload AS BLOB), hash "
            "FROM entry WHERE seq > ? ORDER BY seq LIMIT ?",
            (after, PAGE),
        )
        if not page:
            return
        postings: dict[int, list[Leg]] = {row[0]: [] for row in page}
        of_page = rows.rows(
            "SELECT entry, account, strategy, asset, amount_minor FROM posting "
            "WHERE entry > ? AND entry <= ? ORDER BY entry, leg",
            (after, page[-1][0]),
        )
        for posting in of_page:
            if posting[0] in postings:
                postings[posting[0]].append(posting[1:])
        for row in page:
            yield row, postings[row[0]]
        after = page[-1][0]


def _check_sums(seq: int, legs: list[Leg]) -> Iterator[Finding]:
    sums: dict[str, int] = {}
    for _, _, asset, amount in legs:
        sums[asset] = sums.get(asset, 0) + amount
    for asset, total in sums.items():
        if total:
            yield Finding("entry", seq, f"its legs in {asset} sum to {total} minor units, not to zero")


def _check_reversal(seq: int, original: int, reversal: list[Leg], rebuilt: _Rebuilt) -> Iterator[Finding]:
    if original in rebuilt.reversed_by:
        yield Finding(
            "reversal", seq, f"entry {original} was reversed already by entry {rebuilt.reversed_by[original]}"
        )
    rebuilt.reversed_by[original] = seq
    legs = rebuilt.legs_of.get(original)
    if legs is None:
        yield Finding("reversal", seq, f"there is no entry {original} before it")
    elif Counter((*balance, -amount) for *balance, amount in legs) != Counter(reversal):
        yield Finding("reversal", seq, f"is not entry {original} with every sign turned")


def _add(rebuilt: _Rebuilt, entry: _Slim) -> Iterator[Finding]:
    days, day = rebuilt.days, entry.day
    for account, strategy, asset, amount in entry.legs:
        key = (account, strategy or "", asset, day)
        if key in days:
            days[key] += amount
            continue
        days[key] = amount
        if account not in ACCOUNTS:
            yield Finding("entry", entry.seq, f"there is no account {account!r}")
    for strategy, instrument, lot, quantity, cost, mark in entry.lots:
        rebuilt.lots[strategy or "", instrument, lot] = (quantity, cost, mark)


def _check_derived(rows: Rows, rebuilt: _Rebuilt) -> Iterator[Finding]:
    balances: dict[tuple[str, str, str], int] = {}
    for (account, strategy, asset, _), amount in rebuilt.days.items():
        balances[account, strategy, asset] = balances.get((account, strategy, asset), 0) + amount
    lots = {key: lot for key, lot in rebuilt.lots.items() if lot[0]}
    for what, sql, width, expected in (
        ("balance", "SELECT * FROM balance", 3, balances),
        ("balance of a day", "SELECT * FROM balance_day", 4, rebuilt.days),
        ("lot", "SELECT * FROM lot", 3, lots),
    ):
        stored = {row[:width]: row[width] if len(row) == width + 1 else row[width:] for row in rows.rows(sql)}
        for key in sorted({*stored, *expected}):
            if stored.get(key) != expected.get(key):
                has, should = stored.get(key, "nothing"), expected.get(key, "nothing")
                yield Finding(what, None, f"{' '.join(map(str, key))} is {has}, and the journal says {should}")
