"""The returns of a strategy from a CSV file, reduced to their figures line by line.

The file has one column of returns, or dates and returns, or a column `equity`; a return is a
fraction, so that 1% is 0.01. Each row is one session. The first line may name the columns. No more
than one line is held in memory, so a file may have any length.
"""

from __future__ import annotations

import csv
import datetime as dt
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import BinaryIO, Final, NamedTuple

from fundops.actors.promotion.statistics import NO_MOMENTS, Moments
from fundops.runtime import ConfigError, shown

__all__ = ["Row", "Series", "read_returns", "returns_of"]

# A longer line is no row of such a file, and would have to be held whole.
LINE_MAX: Final = 65_536  # bytes

# A larger return is taken for another unit: percent, or an equity without a name.
RETURN_MAX: Final = 10.0

EQUITY_MAX: Final = 1e18

# Names of columns, in small letters and with _ for a space.
_DATES: Final = ("date", "day", "datetime", "timestamp", "time", "session", "index", "")
_RETURNS: Final = ("return", "returns", "ret", "daily_return", "daily_returns", "pct_change")
_EQUITY: Final = ("equity", "nav")

# A plain ASCII number: float() would also take underscores and the digits of other scripts.
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_NOT_FINITE: Final = re.compile(r"[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
# ISO 8601 in the form that programs write, with or without a time.
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d([T ].*)?", re.ASCII)


class Series(NamedTuple):
    """The figures of a series of returns, which grows by one session at a time."""

    moments: Moments = NO_MOMENTS
    level: float = 1.0  # of equity, as a fraction of its peak
    max_drawdown: float = 0.0  # fraction
    first: dt.date | None = None  # None: the file has no dates
    last: dt.date | None = None
    weekends: int = 0  # rows that are dated on a Saturday or Sunday
    rows: int = 0  # of an equity, one more than there are returns

    def after(self, value: float) -> Series:
        """The series with one more return."""
        level = min(1.0, self.level * (1 + value))
        return self._replace(
            moments=self.moments.after(value),
            level=level,
            max_drawdown=max(self.max_drawdown, 1 - level),
        )

    def on(self, day: dt.date | None) -> Series:
        """The series with the date of one more row."""
        if day is None:
            return self._replace(rows=self.rows + 1)
        return self._replace(
            first=self.first or day,
            last=day,
            weekends=self.weekends + (day.weekday() >= 5),
            rows=self.rows + 1,
        )

    @property
    def span_days(self) -> int | None:
        """The days from the first date to the last one; None: the file has no dates."""
        return None if self.first is None or self.last is None else (self.last - self.first).days


class Row(NamedTuple):
    """One row of a file: one session."""

    day: dt.date | None  # None: the file has no dates
    change: float | None  # the return; None: the first row of an equity, which has none


class _Layout(NamedTuple):
    """Where a file has its dates and its values."""

    width: int  # columns
    value: int
    date: int | None = None  # None: there are no dates
    equity: bool = False  # the values are equity, and no returns
    names: Sequence[str] = ()  # of the columns; none without a header

    def called(self, column: int) -> str:
        """The column as an error names it."""
        name = self.names[column].strip() if self.names else ""
        return f"column {shown(name) if name else column + 1}"


def read_returns(file: BinaryIO, name: str) -> Series:
    """The figures of a file's returns. `name` is the file's, for errors.

    Raises: `ConfigError` naming the line and the column that is wrong, or the file when it has
        fewer than two returns; OSError.
    """
    series = Series()
    for row in returns_of(file, name):
        series = series.on(row.day)
        if row.change is not None:
            series = series.after(row.change)
    if series.moments.n < 2:
        raise ConfigError(
            name, f"has {series.moments.n} of the 2 returns that a gate needs at least"
        )
    return series


def returns_of(file: BinaryIO, name: str) -> Iterator[Row]:
    """The rows of a file, read one by one. `name` is the file's, for errors.

    Raises: `ConfigError` naming the line and the column that is wrong; OSError.
    """
    rows: Iterator[tuple[int, list[str]]] = _rows(file, name)
    line, cells = next(rows, (0, []))
    if not line:
        raise ConfigError(name, "is empty")
    layout = _layout(f"{name}:{line}", cells)
    if not layout.names:
        rows = chain([(line, cells)], rows)
    last: dt.date | None = None
    before: float | None = None
    for line, cells in rows:
        where = f"{name}:{line}"
        if len(cells) != layout.width:
            raise ConfigError(where, f"has {len(cells)} columns, the first line {layout.width}")
        last = _day(where, layout, cells, last)
        value = _value(where, layout, cells, is_first=before is None)
        change = _change(where, layout, before, value) if layout.equity else value
        before = value
        yield Row(last, change)


# -- lines


def _lines(file: BinaryIO, name: str) -> Iterator[str]:
    number = 0
    while line := file.readline(LINE_MAX + 1):
        number += 1
        where = f"{name}:{number}"
        if len(line) > LINE_MAX:
            raise ConfigError(where, f"is longer than {LINE_MAX:,} bytes")
        try:
            # "-sig": spreadsheets put a byte order mark in front of the first line.
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise ConfigError(where, "is not UTF-8") from None


def _rows(file: BinaryIO, name: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, with the number of its last line."""
    rows = csv.reader(_lines(file, name), strict=True)
    while True:
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise ConfigError(f"{name}:{rows.line_num}", f"is not CSV: {error}") from None
        if any(cell.strip() for cell in cells):
            yield rows.line_num, [cell.strip() for cell in cells]


# -- columns


def _layout(where: str, cells: list[str]) -> _Layout:
    """The columns of a file by its first line, which is a header unless it begins with data."""
    if not _is_data(cells[0]):
        return _headed(where, cells)
    if len(cells) == 1:
        return _Layout(1, 0)
    if len(cells) == 2 and _DATE.fullmatch(cells[0]):
        return _Layout(2, 1, 0)
    raise ConfigError(
        where, f"has {len(cells)} columns and no names; call the one to read return or equity"
    )


def _headed(where: str, cells: list[str]) -> _Layout:
    names = [cell.lower().replace(" ", "_") for cell in cells]
    dates = [at for at, name in enumerate(names) if name in _DATES]
    values = [at for at, name in enumerate(names) if name in (*_RETURNS, *_EQUITY)]
    # Between a date and the end there is only one column to read, so it may have any name.
    if not values and len(names) == 2 and dates == [0]:
        values = [1]
    if len(values) != 1:
        known = ", ".join((*_RETURNS, *_EQUITY))
        raise ConfigError(
            where, f"names {len(values) or 'no'} columns to read; exactly one must be of: {known}"
        )
    if len(dates) > 1:
        raise ConfigError(where, f"names {len(dates)} columns of dates; keep one")
    return _Layout(
        len(names), values[0], dates[0] if dates else None, names[values[0]] in _EQUITY, cells
    )


def _is_data(cell: str) -> bool:
    return any(form.fullmatch(cell) for form in (_NUMBER, _NOT_FINITE, _DATE))


# -- cells


def _day(where: str, layout: _Layout, cells: list[str], last: dt.date | None) -> dt.date | None:
    if layout.date is None:
        return None
    text, column = cells[layout.date], layout.called(layout.date)
    try:
        if not _DATE.fullmatch(text):
            raise ValueError(text)
        # The time of a session is of no use here, and its day must be one of the calendar.
        day = dt.datetime.fromisoformat(text).date()
    except ValueError:
        raise ConfigError(where, f"{column}: {shown(text)} is not a date, YYYY-MM-DD") from None
    if last is not None and day <= last:
        problem = "repeats the date of" if day == last else f"is before {last}, the date of"
        raise ConfigError(where, f"{column}: {day} {problem} the row above")
    return day


def _value(where: str, layout: _Layout, cells: list[str], *, is_first: bool) -> float:
    text, column = cells[layout.value], layout.called(layout.value)
    problem = ""
    if not text:
        problem = "is empty"
    elif _NOT_FINITE.fullmatch(text):
        problem = f"{text} is not finite"
    elif not _NUMBER.fullmatch(text):
        problem = f"{shown(text)} is not a number"
    if problem:
        if is_first and (not text or text.lower() == "nan"):
            problem += "; the first price has no return, so leave its row out"
        raise ConfigError(where, f"{column}: {problem}")
    value = float(text)
    if layout.equity and not 0 < value <= EQUITY_MAX:
        raise ConfigError(where, f"{column}: an equity of {shown(text)} is not above 0")
    if not layout.equity:
        _check_return(where, column, value)
    return value


def _change(where: str, layout: _Layout, before: float | None, value: float) -> float | None:
    if before is None:
        return None
    change = value / before - 1
    _check_return(where, layout.called(layout.value), change)
    return change


def _check_return(where: str, column: str, value: float) -> None:
    if not -1 <= value <= RETURN_MAX:
        raise ConfigError(
            where,
            f"{column}: a return of {value:g} is not between -1 and {RETURN_MAX:g}; 1% is 0.01,"
            " and a column of equity must be called equity",
        )
