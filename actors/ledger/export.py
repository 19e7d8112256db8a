"""The journal as text and back: JSON lines that carry the chain, CSV, and books for beancount, ledger and hledger.

Every export is a stream of text that ends with the entry that was the last when it began, however much is booked
meanwhile; a page of entries is in memory at a time. Amounts are decimal text with all digits of the scale. What an
entry says is read from its payload. The closing balances of a book are those of the `balance` table, so whoever adds
the book up compares the two. Nothing here changes the database it reads.

How a book names things:

* An account goes below one of the roots in `ROOTS`, with `-` for `_`: ``Assets:FEES-RECEIVABLE``. An account that is
  not in the table goes below Equity. Marks stay a part of positions: ``Assets:POSITIONS:MTM``.
* A strategy has an account of its own below: ``Assets:CASH:Strategy-mean-reversion``. So our balance of an account is
  theirs with everything below it. Letters and digits of ASCII stay, `_` becomes `-`, all else becomes ``--HEX-`` with
  the number of the character. The exact text is in the entry's `strategy`.
* An asset of capital letters, digits, `.`, `_` and `-` stays; any other is shown as near as that allows, and told apart
  by its UTF-8 in hexadecimal, or from 32 bytes on by their SHA-256: ``btc`` is ``BTC'627463``.

No two names of ours become one of theirs.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from csv import writer
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import apsw
import msgspec

from ...runtime import ConfigError, FundopsError
from ...wire.errors import shown
from ...wire.money import from_minor, text_of
from ..persistence import DatabaseError, Rows, open_database
from .accounts import (
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
    TRADING_FEES,
    UNITS,
    UNREALIZED_PNL,
)
from .core import GENESIS, BalanceKey, Book, Draft, Entry, Original, chain_hash, is_day
from .schema import rows_of

__all__ = [
    "FORMAT",
    "ROOTS",
    "VERSION",
    "Header",
    "JournalDamaged",
    "JournalEntry",
    "account_name",
    "beancount",
    "commodity_name",
    "csv",
    "import_journal",
    "import_jsonl",
    "jsonl",
    "ledger",
    "peek_header",
]

FORMAT = "fundops.journal"
VERSION = 1

ROOTS: Mapping[str, str] = {
    CASH: "Assets",
    POSITIONS: "Assets",
    MARKS: "Assets",
    FEES_RECEIVABLE: "Assets",
    MANAGEMENT_FEES: "Expenses",
    PERFORMANCE_FEES: "Expenses",
    TRADING_FEES: "Expenses",
    FINANCING: "Expenses",
    REALIZED_PNL: "Income",
    UNREALIZED_PNL: "Income",
    INCOME: "Income",
    RETAINED: "Equity",
    EXTERNAL: "Equity",
    UNITS: "Equity",
    HOLDERS: "Equity",
}

PAGE = 1_000
# ledger-cli refuses a line of more than 4,096 bytes; a memo can be three times as long once it is escaped.
LINE_MAX = 1_000
# The last day there is has no day after it.
LAST_DAY = date.max.isoformat()

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS = ["seq", "day", "recorded", "kind", "key", "strategy", "account", "asset", "amount", "memo", "reverses"]
_PLAIN_COMMODITY = re.compile(r"[A-Z][A-Z0-9._-]*[A-Z0-9]")
_RESERVED = frozenset({"TRUE", "FALSE", "NULL"})  # beancount reads them as values


class JournalDamaged(FundopsError):
    """The journal is not what was booked. `seq` names the entry, 0 the header of an export; `problem` what is wrong."""

    def __init__(self, seq: int, problem: str) -> None:
        super().__init__(f"{f'entry {seq}' if seq else 'header'}: {problem}")
        self.seq, self.problem = seq, problem


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of the JSON lines: whose journal it is and where it ends, so that a cut-off tail is seen."""

    format: str = FORMAT
    version: int = VERSION
    currency: str | None  # None, and so name and uuid: the database does not say
    name: str | None
    uuid: str | None
    seq: int  # of the last entry; 0: there is none
    hash: str  # hex, at the last entry


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seq: int
    hash: str
    payload: str


class JournalEntry(NamedTuple):
    """The stored text of an entry, and the chain's hash at it."""

    payload: str
    hash: bytes


_PAYLOAD = msgspec.json.Decoder(Entry)
_LINE = msgspec.json.Decoder(_Line)
_HEADER = msgspec.json.Decoder(Header)


# -- out: the lossless one


def jsonl(rows: Rows) -> Iterator[str]:
    """A `Header`, then a line for each entry by seq: its payload verbatim, with its hash. What `import_jsonl` reads."""
    seq, head = rows.row("SELECT seq, hash FROM entry ORDER BY seq DESC LIMIT 1") or (0, GENESIS)
    meta = _meta(rows)
    header = Header(
        currency=meta.get("currency"), name=meta.get("name"), uuid=meta.get("uuid"), seq=seq, hash=head.hex()
    )
    yield _json_line(header)
    for number, payload, at_entry in _pages(rows, seq):
        yield _json_line(_Line(number, at_entry.hex(), payload))


def _json_line(one: msgspec.Struct) -> str:
    return msgspec.json.encode(one).decode() + "\n"


# -- out: for a spreadsheet


def csv(rows: Rows) -> Iterator[str]:
    """A line with the columns' names, then a line for each posting, by seq. An entry of dust has none.

    Lines end as RFC 4180 has it, which also makes the writer quote a text with either half of such an end in it.
    """
    last = rows.row("SELECT max(seq) FROM entry")[0] or 0
    line = writer(_Echo()).writerow
    yield str(line(_COLUMNS))
    for seq, payload, _ in _pages(rows, last):
        entry = _decode(seq, payload)
        recorded = _instant(entry.recorded_us)
        for account, strategy, asset, minor in entry.legs:
            about = (entry.seq, entry.day, recorded, entry.kind, entry.key)
            yield str(line((*about, strategy, account, asset, _amount(minor), entry.memo, entry.reverses)))


class _Echo:
    """A file that hands back what is written to it, so that the writer of the csv module can stream."""

    def write(self, text: str) -> str:
        return text


# -- out: for beancount


def beancount(rows: Rows) -> Iterator[str]:
    """A beancount file, by day and then seq; ``bean-check`` passes. It ends with every balance, to the last digit.

    The balance of an account there includes what is below it. The assertions stand on the day after the last entry,
    and are left out when that is the last day of the year 9999.
    """
    closing = _closing(rows)
    meta = _meta(rows)
    yield (
        f'option "title" {_quoted(meta.get("name", ""))}\n'
        'option "inferred_tolerance_default" "*:0"\n'
        + (f'option "operating_currency" "{commodity_name(meta["currency"])}"\n' if "currency" in meta else "")
    )
    if not closing.days:
        return
    first, last = min(closing.days), max(closing.days)
    for asset in closing.assets:
        yield f"{first} commodity {commodity_name(asset)}\n  name: {_quoted(asset)}\n"
    for name in closing.names:
        yield f"{first} open {name}\n"
    for entry in _by_day(rows, closing.days):
        yield _beancount_entry(entry)
    if last == LAST_DAY:
        yield "\n; No closing balances: there is no day after the last entry.\n"
        return
    after = (date.fromisoformat(last) + timedelta(days=1)).isoformat()
    yield "\n"
    for (name, asset), minor in sorted(closing.inclusive().items()):
        # Without a tolerance of its own an assertion lets the last digit pass.
        yield f"{after} balance {name}  {_amount(minor)} ~ 0 {commodity_name(asset)}\n"


def _beancount_entry(entry: Entry) -> str:
    lines = [
        f"\n{entry.day} * {_quoted(entry.kind)} {_quoted(entry.memo)}",
        f"  seq: {entry.seq}",
        f"  key: {_quoted(entry.key)}",
        f'  recorded: "{_instant(entry.recorded_us)}"',
    ]
    if entry.strategy is not None:
        lines.append(f"  strategy: {_quoted(entry.strategy)}")
    if entry.reverses is not None:
        lines.append(f"  reverses: {entry.reverses}")
    lines += [
        f"  {account_name(account, strategy)}  {_amount(minor)} {commodity_name(asset)}"
        for account, strategy, asset, minor in entry.legs
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A beancount string on one line; a control character is shown by its number."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    if not escaped.isprintable():
        escaped = "".join(
            character if character.isprintable() else f"\\\\u{ord(character):04x}" for character in escaped
        )
    return f'"{escaped}"'


# -- out: for ledger and hledger


def ledger(rows: Rows) -> Iterator[str]:
    """One text for ledger-cli (``--pedantic``) and hledger (``check -s ordereddates``), by day and then seq.

    A transaction's code is the entry's seq. The last transaction moves nothing: it asserts every balance. Texts are
    JSON strings in ASCII, as both tools read meaning into comments and hledger needs a locale for more; a long one goes
    on in the next comment line.
    """
    closing = _closing(rows)
    meta = _meta(rows)
    yield f"; The journal of {_comment(meta.get('name', ''))}\n\n"
    for asset in closing.assets:
        # With fewer digits in the format hledger would let an imbalance in the digits after them pass.
        yield f"commodity {_symbol(asset)}\n    format 1000.{'0' * len(_amount(0)[2:])} {_symbol(asset)}\n"
    for name in closing.names:
        yield f"account {name}\n"
    for tag in ("key", "memo", "recorded", "reverses", "strategy"):
        yield f"tag {tag}\n"
    for entry in _by_day(rows, closing.days):
        yield _ledger_entry(entry)
    if closing.balances:
        yield f"\n{max(closing.days)} * closing balances\n"
        for (account, strategy, asset), minor in closing.balances.items():
            symbol = _symbol(asset)
            yield f"    {account_name(account, strategy)}    {_amount(0)} {symbol} = {_amount(minor)} {symbol}\n"


def _ledger_entry(entry: Entry) -> str:
    parts = [f"\n{entry.day} * ({entry.seq}) {entry.kind}\n", _tag("key", entry.key)]
    parts.append(_tag("recorded", _instant(entry.recorded_us)))
    if entry.strategy is not None:
        parts.append(_tag("strategy", entry.strategy))
    if entry.reverses is not None:
        parts.append(f"    ; reverses: {entry.reverses}\n")
    if entry.memo:
        parts.append(_tag("memo", entry.memo))
    parts += [
        f"    {account_name(account, strategy)}    {_amount(minor)} {_symbol(asset)}\n"
        for account, strategy, asset, minor in entry.legs
    ]
    return "".join(parts)


def _tag(name: str, text: str) -> str:
    whole = _comment(text)
    pieces = [whole[start : start + LINE_MAX] for start in range(0, len(whole), LINE_MAX)]
    return f"    ; {name}: " + "\n    ; ".join(pieces) + "\n"


# A colon makes a tag, a comma ends one, a bracket may hold a date, and a semicolon begins a comment in the comment.
_MEANINGFUL = str.maketrans({mark: f"\\u{ord(mark):04x}" for mark in ":,;[]\x7f"})


def _comment(text: str) -> str:
    return json.dumps(text).translate(_MEANINGFUL)


def _symbol(asset: str) -> str:
    name = commodity_name(asset)
    return name if name.isalpha() else f'"{name}"'


# -- what the exports share


class _Closing(NamedTuple):
    """The balances at one moment, and the entries up to it."""

    balances: dict[BalanceKey, int]
    days: dict[str, array[int]]  # the seqs of each day, ascending

    @property
    def assets(self) -> list[str]:
        return sorted({asset for _, _, asset in self.balances})

    @property
    def names(self) -> list[str]:
        """Every account to open, the ones above it too."""
        return sorted(
            {name for account, strategy, _ in self.balances for name in _path(account_name(account, strategy))}
        )

    def inclusive(self) -> dict[tuple[str, str], int]:
        """By account and asset, with all that is below the account."""
        totals: dict[tuple[str, str], int] = {}
        for (account, strategy, asset), minor in self.balances.items():
            for name in _path(account_name(account, strategy)):
                totals[name, asset] = totals.get((name, asset), 0) + minor
        return totals


def _closing(rows: Rows) -> _Closing:
    # One statement, so one moment: the balances are those after the last entry.
    found = rows.rows(
        "SELECT head.seq, account, strategy, asset, amount_minor "
        "FROM (SELECT coalesce(max(seq), 0) AS seq FROM entry) AS head LEFT JOIN balance"
    )
    balances = {
        (account, strategy or None, asset): minor for _, account, strategy, asset, minor in found if account is not None
    }
    return _Closing(balances, _days(rows, found[0][0]))


def _days(rows: Rows, last: int) -> dict[str, array[int]]:
    """Eight bytes for each entry: there is no index by day, and sorting the entries would hold all of them."""
    days: dict[str, array[int]] = {}
    seq = 0
    while page := rows.rows(
        "SELECT seq, day FROM entry WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?", (seq, last, PAGE)
    ):
        for seq, day in page:
            days.setdefault(day, array("q")).append(seq)
    return days


def _by_day(rows: Rows, days: Mapping[str, array[int]]) -> Iterator[Entry]:
    """The entries by day and then seq."""
    for day in sorted(days):
        for start in range(0, len(days[day]), PAGE):
            wanted = json.dumps(days[day][start : start + PAGE].tolist())
            page = rows.rows(
                "SELECT seq, payload FROM entry WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq", (wanted,)
            )
            for seq, payload in page:
                yield _decode(seq, payload)


def _pages(rows: Rows, last: int) -> Iterator[tuple[int, str, bytes]]:
    """Seq, payload and hash of the entries up to `last`, by seq."""
    seq = 0
    while page := rows.rows(
        "SELECT seq, payload, hash FROM entry WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?", (seq, last, PAGE)
    ):
        yield from page
        seq = page[-1][0]


def _decode(seq: int, payload: str) -> Entry:
    try:
        entry = _PAYLOAD.decode(payload)
    except msgspec.DecodeError as error:
        raise JournalDamaged(seq, f"its payload is not an entry: {error}") from error
    if entry.seq != seq:
        raise JournalDamaged(seq, f"its payload is that of entry {entry.seq}")
    return entry


def _meta(rows: Rows) -> dict[str, str]:
    return dict(rows.rows("SELECT key, value FROM meta"))


def _amount(minor: int) -> str:
    return text_of(from_minor(minor))


def _instant(at_us: int) -> str:
    """ISO, in UTC, with all six digits."""
    at = _EPOCH + timedelta(microseconds=at_us)
    return at.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


@lru_cache(maxsize=4_096)
def account_name(account: str, strategy: str | None) -> str:
    """What a book calls an account of ours, or a strategy's part of it."""
    name = ":".join((ROOTS.get(account, "Equity"), *(_component(part) for part in account.split(":"))))
    # Our accounts are all capitals, so this is none of them.
    return name if strategy is None else f"{name}:Strategy-{_component(strategy)}"


def _component(text: str) -> str:
    name = ""
    for character in text:
        if character.isascii() and character.isalnum():
            name += character
        elif character == "_" and not name.endswith("-"):  # two in a row would look like what comes next
            name += "-"
        else:
            name += f"--{ord(character):x}-"
    return name


def _path(name: str) -> list[str]:
    """The account and those above it, without the root."""
    parts = name.split(":")
    return [":".join(parts[:depth]) for depth in range(2, len(parts) + 1)]


@lru_cache(maxsize=4_096)
def commodity_name(asset: str) -> str:
    """What a book calls an asset of ours; ledger and hledger want quotes around it."""
    if _PLAIN_COMMODITY.fullmatch(asset) and asset not in _RESERVED:
        return asset
    readable = re.sub(r"[^A-Z0-9]+", "-", asset.upper())[:64].strip("-")
    exact = asset.encode()
    # ledger-cli reads 255 characters of a commodity.
    told_apart = exact if len(exact) < 32 else sha256(exact).digest()
    return f"{readable if readable[:1].isalpha() else f'X{readable}'}'{told_apart.hex().upper()}"


# -- in


def import_jsonl(lines: Iterable[str]) -> Iterator[JournalEntry]:
    """The entries of a `jsonl` export, each proved before it is handed out: it follows in the chain and balances.

    The end is proved too, once the last entry has been taken: the export ends where its header says.

    Raises: `JournalDamaged`.
    """
    source = iter(lines)
    return (JournalEntry(one.payload, one.hash) for one in _proved(source, _header(source)))


def peek_header(lines: Iterable[str]) -> tuple[Header, Iterator[str]]:
    """The header of an export, and all of its lines still to be read. Raises: `JournalDamaged`."""
    source = iter(lines)
    first = next(source, "")
    return _header(iter([first])), chain([first], source)


class _Proved(NamedTuple):
    entry: Entry
    payload: str
    hash: bytes


def _header(lines: Iterator[str]) -> Header:
    """Raises: `JournalDamaged`."""
    try:
        header = _HEADER.decode(next(lines, ""))
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise JournalDamaged(0, f"the first line is not the header of a journal: {error}") from error
    if header.format != FORMAT:
        raise JournalDamaged(0, f"the format is {header.format!r}, not {FORMAT!r}")
    if header.version != VERSION:
        raise JournalDamaged(0, f"the version is {header.version}, this fundops reads {VERSION}")
    return header


def _proved(lines: Iterator[str], header: Header) -> Iterator[_Proved]:
    seq, head = 0, GENESIS
    for text in lines:
        seq += 1
        if seq > header.seq:
            raise JournalDamaged(seq, f"it follows the last entry of the header, {header.seq}")
        line = _line(seq, text)
        head = chain_hash(head, line.payload.encode())
        if line.hash != head.hex():
            raise JournalDamaged(seq, "its hash does not follow from the hash before and its payload")
        entry = _decode(seq, line.payload)
        if not is_day(entry.day):
            raise JournalDamaged(seq, f"its day {shown(entry.day)} is not a date as YYYY-MM-DD")
        _check_sums(entry)
        yield _Proved(entry, line.payload, head)
    if seq < header.seq:
        raise JournalDamaged(seq + 1, f"it is missing: the header names {header.seq} entries, the file ends before")
    if header.hash != head.hex():
        raise JournalDamaged(seq, "its hash is not the one of the header")


def _line(seq: int, text: str) -> _Line:
    try:
        line = _LINE.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise JournalDamaged(seq, f"its line cannot be read: {error}") from error
    if line.seq != seq:
        raise JournalDamaged(seq, f"entry {line.seq} stands in its place")
    return line


def _check_sums(entry: Entry) -> None:
    """A chain can be made anew by whoever changes an amount; the sums of an entry cannot."""
    sums: dict[str, int] = {}
    for _, _, asset, minor in entry.legs:
        sums[asset] = sums.get(asset, 0) + minor
    for asset, total in sums.items():
        if total:
            raise JournalDamaged(entry.seq, f"its legs in {asset} sum to {_amount(total)}, not to zero")


def import_journal(path: Path, lines: Iterable[str], *, currency: str, migrations: Sequence[str]) -> Header:
    """Build the ledger's tables from a `jsonl` export, in a database that is new or has no entries: all or nothing.

    Entries, postings, balances, lots and the head of the chain are then those of the original. Cursors are not in the
    journal: a source is read again from its beginning, and its keys keep it from being booked twice. To whom the file
    belongs is left to the caller, who gets the header. The caller holds the owner's lock.

    Raises: `JournalDamaged`; `ConfigError` for another currency; `DatabaseError` for a file that has entries, or cannot
    be opened or written.
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


# A key or a reversal that is there twice, a leg of zero, an amount beyond 64 bits.
_OFFENCES = (apsw.ConstraintError, apsw.MismatchError, OverflowError)


def _fill(connection: apsw.Connection, path: Path, book: Book, entries: Iterator[_Proved]) -> None:
    if Rows(connection).row("SELECT 1 FROM entry LIMIT 1") is not None:
        raise DatabaseError(path, "has entries already; a journal is imported into an empty one")
    while page := list(islice(entries, PAGE)):
        try:
            _insert(connection, book, page)
        except _OFFENCES:
            for one in page:
                _insert_alone(connection, book, one)


def _insert_alone(connection: apsw.Connection, book: Book, one: _Proved) -> None:
    try:
        _insert(connection, book, [one])
    except _OFFENCES as error:
        raise JournalDamaged(one.entry.seq, f"it cannot be stored: {error}") from error


def _insert(connection: apsw.Connection, book: Book, page: Sequence[_Proved]) -> None:
    draft = Draft(book, _unasked)
    # Not decided anew: the rules of today may differ from those it was booked under.
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
    """Nothing is decided here, so no reversal looks for its original."""
    raise AssertionError(seq)
