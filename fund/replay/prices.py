"""Daily prices: the two bundled indices, and a strict reader of other price files.

Units: prices are whole cents (the sources carry float artefacts such as 1248.810059, rounded half
to even here); volumes are whole shares; days are the exchange's calendar days, strictly increasing.
Nothing is interpolated, adjusted for dividends or splits, or silently skipped: a file is read whole
or refused with the line that is wrong. This module reads files and nothing else; it holds no clock
and no state beyond a cache of the bundled series.
"""

import csv
import datetime
import functools
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import Final

import msgspec

COLUMNS: Final = ("date", "open", "high", "low", "close", "volume")
"""The columns a price file must name, in any order and any case."""

SYMBOLS: Final = ("nasdaq", "sp500")
"""The bundled NASDAQ Composite and S&P 500, 1999-01-04 to 2018-12-31, 5,031 sessions each."""

BYTES_MAX: Final = 64 * 1024 * 1024
"""Largest text read, after decompression: a thousand years of daily rows.

The bound is for a hostile archive."""

PRICE_MAX: Final = Decimal(10) ** 12
"""Highest price accepted, in currency units: above any quote, and its cents fit 64 bits."""

VOLUME_MAX: Final = 2**63 - 1
"""Highest volume accepted, in shares: the largest integer SQLite stores."""

# A plain ASCII number. Decimal itself would also take underscores, other scripts' digits, "nan" and
# "inf"; the digit limits keep hostile exponents from ever reaching the arithmetic.
_NUMBER: Final = re.compile(r"[+-]?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,2})?", re.ASCII)
_NOT_FINITE: Final = re.compile(r"[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_ISO_DAY: Final = re.compile(r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})", re.ASCII)
_US_DAY: Final = re.compile(r"(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4})", re.ASCII)
# Wide enough for every number the pattern lets through, and independent of the precision a host may
# have set.
_EXACT: Final = Context(prec=200)


class Bar(msgspec.Struct, frozen=True, gc=False):
    """One session of one instrument."""

    day: datetime.date
    """The exchange's calendar day."""
    open_cents: int
    """First price of the session, in cents, > 0."""
    high_cents: int
    """Highest price, in cents, at least the open and the close."""
    low_cents: int
    """Lowest price, in cents, at most the open and the close."""
    close_cents: int
    """Last price, in cents, > 0."""
    volume: int
    """Shares traded; 0 is a session without trades or a source that does not report them."""


class PricesError(ValueError):
    """A price file was refused.

    Attributes:
        path: the file, as given.
        line: 1-based line, or None when the fault is of the whole file.
        column: the column as the header spells it, or None when the fault is of the whole line.
        problem: the fault, as a sentence fragment.
    """

    def __init__(self, path: str, line: int | None, column: str | None, problem: str) -> None:
        super().__init__(path, line, column, problem)
        self.path = path
        self.line = line
        self.column = column
        self.problem = problem

    def __str__(self) -> str:
        where = self.path if self.line is None else f"{self.path}:{self.line}"
        return (
            f"{where}: {self.problem}"
            if self.column is None
            else f"{where}: column {self.column!r}: {self.problem}"
        )


@functools.cache
def bundled(symbol: str) -> tuple[Bar, ...]:
    """The bundled daily bars of `symbol`, oldest first; the same tuple at every call.

    Raises:
        ValueError: `symbol` is not one of `SYMBOLS`.
    """
    if symbol not in SYMBOLS:
        raise ValueError(f"no bundled prices for {symbol!r}; there are {', '.join(SYMBOLS)}")
    return read_csv(Path(__file__).parent / "data" / f"{symbol}.csv.gz")


def read_csv(path: str | os.PathLike[str]) -> tuple[Bar, ...]:
    """The bars of a CSV file, oldest first; a name ending in `.gz` is decompressed.

    The header names at least `COLUMNS`; other columns, such as `Adj Close`, are ignored, and so are
    blank lines. Days are `YYYY-MM-DD` or `M/D/YYYY` and strictly increase; prices are positive, and
    the low and the high enclose the open and the close; volumes are whole and not negative.

    Raises:
        PricesError: anything else, with the first line and column at fault.
    """
    name = os.fspath(path)
    records = _records(name, _text(name))
    head_line, header = next(records, (None, []))
    if head_line is None:
        raise PricesError(name, None, None, "the file is empty")
    row = _Row(name, header, _positions(name, head_line, header))
    bars: list[Bar] = []
    for line, fields in records:
        bar = row.bar(line, fields)
        if bars and bar.day <= bars[-1].day:
            order = "repeats" if bar.day == bars[-1].day else "is before"
            raise row.error(line, "date", f"{bar.day} {order} the previous row's {bars[-1].day}")
        bars.append(bar)
    if not bars:
        raise PricesError(name, None, None, "there are no rows below the header")
    return tuple(bars)


def _text(name: str) -> str:
    """The decoded text of the file, at most `BYTES_MAX` bytes of it."""
    data = _bytes(name)
    if len(data) > BYTES_MAX:
        raise PricesError(name, None, None, f"the file is larger than {BYTES_MAX} bytes")
    try:
        # "-sig": spreadsheets put a byte order mark in front of the header.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PricesError(name, line, None, "the text is not UTF-8") from error


def _bytes(name: str) -> bytes:
    """The file's bytes, decompressed if its name ends in .gz, at most one more than the limit."""
    try:
        with open(name, "rb") as file:
            if not name.lower().endswith(".gz"):
                return file.read(BYTES_MAX + 1)
            with gzip.GzipFile(fileobj=file) as archive:
                return archive.read(BYTES_MAX + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        # Before OSError, of which BadGzipFile is a kind.
        raise PricesError(
            name, None, None, f"the file is not a whole gzip archive ({error})"
        ) from error
    except OSError as error:
        raise PricesError(
            name, None, None, f"the file cannot be read ({error.strerror or error})"
        ) from error
    except ValueError as error:
        # A path with a NUL in it never reaches the operating system.
        raise PricesError(name, None, None, f"the file cannot be read ({error})") from error


def _records(name: str, text: str) -> Iterator[tuple[int, list[str]]]:
    """Each non-blank record with the line it starts on."""
    # newline=None makes one line ending of all three, so that line numbers are those an editor
    # shows.
    reader = csv.reader(io.StringIO(text, newline=None), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise PricesError(name, line, None, f"the line is not CSV ({error})") from error
        if any(field.strip() for field in fields):
            yield line, fields


def _positions(name: str, line: int, header: Sequence[str]) -> Mapping[str, int]:
    """Where each of `COLUMNS` stands in the header, each exactly once."""
    spelled = [field.strip().lower() for field in header]
    for column in COLUMNS:
        if column not in spelled:
            raise PricesError(name, line, column, "the header does not name it")
        if spelled.count(column) > 1:
            raise PricesError(name, line, column, "the header names it more than once")
    return {column: spelled.index(column) for column in COLUMNS}


class _Row:
    """Turns the fields of one line into a bar, or says which field is wrong."""

    __slots__ = ("_header", "_name", "_positions")

    def __init__(self, name: str, header: Sequence[str], positions: Mapping[str, int]) -> None:
        self._name = name
        self._header = header
        self._positions = positions

    def error(self, line: int, column: str, problem: str) -> PricesError:
        """The refusal of one field, with the column spelled as the header does."""
        return PricesError(self._name, line, self._header[self._positions[column]].strip(), problem)

    def bar(self, line: int, fields: Sequence[str]) -> Bar:
        """The bar of one line; ordering between lines is the caller's."""
        if len(fields) != len(self._header):
            # A longer line is refused too: an unquoted "1,229.22" shifts every column after it.
            problem = f"the line has {len(fields)} fields, the header {len(self._header)}"
            raise PricesError(self._name, line, None, problem)
        text = {column: fields[at].strip() for column, at in self._positions.items()}
        bar = Bar(
            day=self._day(line, text["date"]),
            open_cents=self._cents(line, "open", text["open"]),
            high_cents=self._cents(line, "high", text["high"]),
            low_cents=self._cents(line, "low", text["low"]),
            close_cents=self._cents(line, "close", text["close"]),
            volume=self._volume(line, text["volume"]),
        )
        self._check_range(line, bar, text)
        return bar

    def _check_range(self, line: int, bar: Bar, text: Mapping[str, str]) -> None:
        """Refuse a low or a high that does not enclose the open and the close.

        Compared in cents, not as written: a source's float noise below a cent is not a
        contradiction.
        """
        for column, cents in (("open", bar.open_cents), ("close", bar.close_cents)):
            if bar.high_cents < cents:
                raise self.error(
                    line, "high", f"{text['high']} is below the {column} {text[column]}"
                )
            if bar.low_cents > cents:
                raise self.error(line, "low", f"{text['low']} is above the {column} {text[column]}")

    def _day(self, line: int, text: str) -> datetime.date:
        parts = _ISO_DAY.fullmatch(text) or _US_DAY.fullmatch(text)
        if parts is None:
            raise self.error(line, "date", f"{_shown(text)} is not a date (YYYY-MM-DD or M/D/YYYY)")
        try:
            return datetime.date(int(parts["year"]), int(parts["month"]), int(parts["day"]))
        except ValueError as error:
            raise self.error(
                line, "date", f"{text} is not a day of the calendar ({error})"
            ) from error

    def _number(self, line: int, column: str, text: str) -> Decimal:
        if _NOT_FINITE.fullmatch(text):
            raise self.error(line, column, f"{text} is not finite")
        if not _NUMBER.fullmatch(text):
            raise self.error(line, column, f"{_shown(text)} is not a number")
        return Decimal(text)

    def _cents(self, line: int, column: str, text: str) -> int:
        price = self._number(line, column, text)
        if price <= 0:
            raise self.error(line, column, f"{text} is not positive")
        if price > PRICE_MAX:
            raise self.error(line, column, f"{_shown(text)} is above {PRICE_MAX:f}")
        cents = int(price.scaleb(2, context=_EXACT).to_integral_value(rounding=ROUND_HALF_EVEN))
        if cents == 0:
            raise self.error(line, column, f"{text} rounds to no cents")
        return cents

    def _volume(self, line: int, text: str) -> int:
        volume = self._number(line, "volume", text)
        if volume < 0:
            raise self.error(line, "volume", f"{text} is negative")
        if volume > VOLUME_MAX:
            raise self.error(line, "volume", f"{_shown(text)} is above {VOLUME_MAX}")
        if volume != volume.to_integral_value():
            raise self.error(line, "volume", f"{text} is not whole")
        return int(volume)


def _shown(text: str) -> str:
    """The field as a message quotes it: quoted, cut when huge, control characters escaped."""
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
