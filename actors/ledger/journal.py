"""The journal as text and back: JSON lines that carry the hash chain, and CSV for spreadsheets.

An export is a stream of text that ends with the entry that was the last when it began; one page of
entries is in memory at a time. Amounts are decimal text with all digits of the scale. Entries are
read from their payloads. An export never changes the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from csv import writer
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import apsw
import msgspec

from ...runtime import ConfigError, shown
from ...wire.errors import DatabaseError, JournalDamaged
from ...wire.money import from_minor, text_of
from ..persistence import Rows, meta, open_database
from .book import Book, Draft
from .entry import GENESIS, Entry, Original, chain_hash
from .fields import is_day
from .schema import rows_of

__all__ = [
    "FORMAT",
    "PAGE",
    "VERSION",
    "Header",
    "JournalEntry",
    "amount_text",
    "csv",
    "decode_entry",
    "import_journal",
    "import_jsonl",
    "instant_text",
    "jsonl",
    "peek_header",
]

FORMAT = "fundops.journal"
VERSION = 1

# Entries in memory at a time.
PAGE = 1_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS = [
    "seq",
    "day",
    "recorded",
    "kind",
    "key",
    "strategy",
    "account",
    "asset",
    "amount",
    "memo",
    "reverses",
]


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a JSON lines export.

    It names the last entry, so a truncated export is detected.
    """

    format: str = FORMAT
    version: int = VERSION
    currency: str | None  # None, as for name and uuid: the database does not know it
    name: str | None
    uuid: str | None
    seq: int  # of the last entry; 0: there is none
    hash: str  # hex, at the last entry


class JournalEntry(NamedTuple):
    """The stored text of an entry, and the chain's hash at it."""

    payload: str
    hash: bytes


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seq: int
    hash: str
    payload: str


_PAYLOAD = msgspec.json.Decoder(Entry)
_LINE = msgspec.json.Decoder(_Line)
_HEADER = msgspec.json.Decoder(Header)


# -- export


def jsonl(rows: Rows) -> Iterator[str]:
    """A `Header`, then one line per entry by seq: its payload verbatim, and its hash.

    `import_jsonl` and `import_journal` read it.
    """
    seq, head = rows.row("SELECT seq, hash FROM entry ORDER BY seq DESC LIMIT 1") or (0, GENESIS)
    identity = meta.read(rows)
    header = Header(
        currency=identity.get("currency"),
        name=identity.get("name"),
        uuid=identity.get("uuid"),
        seq=seq,
        hash=head.hex(),
    )
    yield _json_line(header)
    for number, payload, at_entry in _pages(rows, seq):
        yield _json_line(_Line(number, at_entry.hex(), payload))


def _json_line(line: msgspec.Struct) -> str:
    return msgspec.json.encode(line).decode() + "\n"


def csv(rows: Rows) -> Iterator[str]:
    """A line with the names of the columns, then one line per posting, by seq.

    An entry without legs has no line. A text that a spreadsheet would run as a formula begins with
    a quote. Lines end with CR LF (RFC 4180), which makes the writer quote
    any text that contains a CR or an LF.
    """
    last = rows.row("SELECT max(seq) FROM entry")[0] or 0
    line = writer(_Echo()).writerow
    yield str(line(_COLUMNS))
    for seq, payload, _ in _pages(rows, last):
        entry = decode_entry(seq, payload)
        about = (entry.seq, entry.day, instant_text(entry.recorded_us), entry.kind)
        key, memo = _as_text(entry.key), _as_text(entry.memo)
        for account, strategy, asset, minor in entry.legs:
            owner = None if strategy is None else _as_text(strategy)
            posting = (owner, account, _as_text(asset), amount_text(minor), memo, entry.reverses)
            yield str(line((*about, key, *posting)))


# A spreadsheet takes a cell that begins with one of these for a formula and runs it; a tab or a
# line end before it does not help.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def _as_text(cell: str) -> str:
    """A text that came from outside, in the form that every spreadsheet shows as a text.

    A quote goes before it, also before a quote that is there, so that one can be taken off again.
    """
    return f"'{cell}" if cell.startswith((*_FORMULA, "'")) else cell


class _Echo:
    """A file that returns each written text, so that the csv writer can be used as a stream."""

    def write(self, text: str) -> str:
        return text


def _pages(rows: Rows, last: int) -> Iterator[tuple[int, str, bytes]]:
    """Seq, payload and hash of the entries up to `last`, by seq."""
    seq = 0
    while page := rows.rows(
        "SELECT seq, payload, hash FROM entry WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
        (seq, last, PAGE),
    ):
        yield from page
        seq = page[-1][0]


# -- shared with the books for other tools


def decode_entry(seq: int, payload: str) -> Entry:
    """The entry `seq` from its payload. Raises: `JournalDamaged`."""
    try:
        entry = _PAYLOAD.decode(payload)
    except msgspec.DecodeError as error:
        raise JournalDamaged(seq, f"its payload is not an entry: {error}") from error
    if entry.seq != seq:
        raise JournalDamaged(seq, f"its payload is that of entry {entry.seq}")
    return entry


def amount_text(minor: int) -> str:
    """Decimal text of minor units, with all digits of the scale."""
    return text_of(from_minor(minor))


def instant_text(at_us: int) -> str:
    """ISO text of an instant, in UTC, with all six digits of the second."""
    at = _EPOCH + timedelta(microseconds=at_us)
    return at.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


# -- import


def import_jsonl(lines: Iterable[str]) -> Iterator[JournalEntry]:
    """The entries of a `jsonl` export, each after a check of its chain and its sums.

    After the last entry the end is checked too: the export must end where its header says.

    Raises: `JournalDamaged`.
    """
    source = iter(lines)
    return (JournalEntry(line.payload, line.hash) for line in _proved(source, _header(source)))


def peek_header(lines: Iterable[str]) -> tuple[Header, Iterator[str]]:
    """The header of an export, and all of its lines, still to be read. Raises: `JournalDamaged`."""
    source = iter(lines)
    first = next(source, "")
    return _header(iter([first])), chain([first], source)


def import_journal(
    path: Path, lines: Iterable[str], *, currency: str, migrations: Sequence[str]
) -> Header:
    """Build the ledger's tables from a `jsonl` export, all or nothing; the header comes back.

    The database at `path` is new or has no entries. Its entries, postings, balances, lots and the
    head of the chain are then those of the original. Cursors are not in a journal: the engine's
    reports are read again from the beginning, and their keys keep them from being booked twice. The
    caller holds the owner's lock, and records the owner of the file.

    Raises: `JournalDamaged`; `ConfigError` for another currency; `DatabaseError` for a file that
        has entries, or cannot be opened or written.
    """
    source = iter(lines)
    header = _header(source)
    if header.currency not in (None, currency):
        raise ConfigError("currency", f"{currency!r} is not the {header.currency!r} of the journal")
    connection = open_database(path, migrations)
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            _fill(connection, path, Book(currency), _proved(source, header))
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    except apsw.Error as error:
        raise DatabaseError(path, f"cannot be written: {error}") from error
    finally:
        connection.close()
    return header


class _Proved(NamedTuple):
    """An entry that follows in the chain and balances, with its payload and its hash."""

    entry: Entry
    payload: str
    hash: bytes


def _header(lines: Iterator[str]) -> Header:
    """Raises: `JournalDamaged`."""
    try:
        header = _HEADER.decode(next(lines, ""))
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise JournalDamaged(
            0, f"the first line is not the header of a journal: {error}"
        ) from error
    if header.format != FORMAT:
        raise JournalDamaged(0, f"the format is {header.format!r}, not {FORMAT!r}")
    if header.version != VERSION:
        raise JournalDamaged(
            0, f"the version is {header.version}, but this fundops reads version {VERSION}"
        )
    return header


def _proved(lines: Iterator[str], header: Header) -> Iterator[_Proved]:
    seq, head = 0, GENESIS
    for text in lines:
        seq += 1
        if seq > header.seq:
            raise JournalDamaged(
                seq, f"it comes after entry {header.seq}, the last one according to the header"
            )
        line = _line(seq, text)
        head = chain_hash(head, line.payload.encode())
        if line.hash != head.hex():
            raise JournalDamaged(
                seq, "its hash does not follow from its payload and the previous hash"
            )
        entry = decode_entry(seq, line.payload)
        if not is_day(entry.day):
            raise JournalDamaged(seq, f"its day {shown(entry.day)} is not a date as YYYY-MM-DD")
        _check_sums(entry)
        yield _Proved(entry, line.payload, head)
    if seq < header.seq:
        raise JournalDamaged(
            seq + 1, f"it is missing: the header names {header.seq} entries, the file ends before"
        )
    if header.hash != head.hex():
        raise JournalDamaged(seq, "its hash is not the one of the header")


def _line(seq: int, text: str) -> _Line:
    try:
        line = _LINE.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise JournalDamaged(seq, f"its line cannot be read: {error}") from error
    if line.seq != seq:
        raise JournalDamaged(seq, f"its line holds entry {line.seq}")
    return line


def _check_sums(entry: Entry) -> None:
    """A forger can chain changed entries anew, but cannot hide a sum that is not zero."""
    sums: dict[str, int] = {}
    for _, _, asset, minor in entry.legs:
        sums[asset] = sums.get(asset, 0) + minor
    for asset, total in sums.items():
        if total:
            raise JournalDamaged(
                entry.seq, f"its legs in {asset} sum to {amount_text(total)}, not to zero"
            )


# A key or a reversal that comes twice, a leg of zero, an amount beyond 64 bits.
_OFFENCES = (apsw.ConstraintError, apsw.MismatchError, OverflowError)


def _fill(connection: apsw.Connection, path: Path, book: Book, entries: Iterator[_Proved]) -> None:
    if Rows(connection).row("SELECT 1 FROM entry LIMIT 1") is not None:
        raise DatabaseError(
            path, "has entries already; import a journal into a new or empty database"
        )
    while page := list(islice(entries, PAGE)):
        try:
            _insert(connection, book, page)
        except _OFFENCES:
            # Again one by one, to name the entry at fault.
            for proved in page:
                _insert_alone(connection, book, proved)


def _insert_alone(connection: apsw.Connection, book: Book, proved: _Proved) -> None:
    try:
        _insert(connection, book, [proved])
    except _OFFENCES as error:
        raise JournalDamaged(proved.entry.seq, f"it cannot be stored: {error}") from error


def _insert(connection: apsw.Connection, book: Book, page: Sequence[_Proved]) -> None:
    draft = Draft(book, _unasked)
    # Not decided again: the rules may have changed since the entries were booked.
    draft.sealed = [(entry, payload.encode(), head) for entry, payload, head in page]
    for entry, _, _ in page:
        for account, strategy, asset, minor in entry.legs:
            key = (account, strategy, asset)
            draft.balances[key] = draft.balance(key) + minor
        draft.seq = entry.seq
    with connection:
        for statement in rows_of(draft):
            connection.executemany(statement.sql, statement.rows)
    book.apply(draft)


def _unasked(seq: int) -> Original | None:
    """Nothing is decided in an import, so no reversal looks up its original."""
    raise AssertionError(seq)
