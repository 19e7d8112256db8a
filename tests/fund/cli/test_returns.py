"""Returns from a CSV file: forms that are read, refusals with their line and column."""

from __future__ import annotations

import datetime as dt
import io
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundops.actors.promotion.track import Reading, Track
from fundops.cli.returns import EQUITY_MAX, LINE_MAX, Row, Series, read_returns, returns_of
from fundops.replay.prices import bundled
from fundops.runtime import ConfigError

BARS = bundled("sp500")[-60:]
DAYS = [bar.day for bar in BARS]
EQUITY = [bar.close_cents / 100 for bar in BARS]
RETURNS = [after / before - 1 for before, after in pairwise(EQUITY)]


def read(text: str | bytes) -> Series:
    return read_returns(io.BytesIO(text.encode() if isinstance(text, str) else text), "r.csv")


def column(*lines: str) -> str:
    return "\n".join(lines) + "\n"


# -- what is read


@pytest.mark.parametrize("head", [[], ["return"], ["Returns"], ["\ufeffdaily return"]])
def test_one_column_of_returns_is_read_with_and_without_a_name(head: list[str]) -> None:
    found = read(column(*head, *map(repr, RETURNS)))
    assert found == read(column(*map(repr, RETURNS)))
    assert (found.moments.n, found.rows, found.first, found.span_days) == (59, 59, None, None)


@pytest.mark.parametrize("head", [[], ["date,return"], ["Date,trend"], [",0"]])
def test_dates_with_returns_are_read_with_and_without_names(head: list[str]) -> None:
    rows = [f"{day},{value!r}" for day, value in zip(DAYS[1:], RETURNS, strict=True)]
    found = read(column(*head, *rows))
    assert (found.first, found.last) == (DAYS[1], DAYS[-1])
    assert (found.moments.n, found.rows, found.weekends) == (59, 59, 0)
    assert found.span_days == (DAYS[-1] - DAYS[1]).days


def test_an_equity_gives_the_returns_between_its_rows() -> None:
    rows = [f"{day},{value},x" for day, value in zip(DAYS, EQUITY, strict=True)]
    found = read(column("date,equity,note", *rows))
    plain = read(column(*map(repr, RETURNS)))
    assert (found.moments, found.max_drawdown) == (plain.moments, plain.max_drawdown)
    assert (found.first, found.rows) == (DAYS[0], 60)


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-02 00:00:00,0.01\n2024-01-03 00:00:00+00:00,0.02\n",
        '"2024-01-02T16:00:00Z" , "0.01"\r\n\r\n2024-01-03,  2e-2 \r\n\r\n',
        "return,other,date\n0.01,x,2024-01-02\n.02,,2024-01-03",
    ],
)
def test_times_spaces_quotes_blank_lines_and_other_columns_do_no_harm(text: str) -> None:
    text = text.replace('" , "', '","')
    found = read(text)
    assert found.moments == read("0.01\n0.02\n").moments
    assert (found.first, found.last) == (dt.date(2024, 1, 2), dt.date(2024, 1, 3))


def test_the_rows_of_a_file_are_read_one_by_one() -> None:
    file = io.BytesIO(b"date,equity\n2024-01-02,100\n2024-01-03,101\n2024-01-04,x\n")
    rows = returns_of(file, "r.csv")
    assert next(rows) == Row(dt.date(2024, 1, 2), None)
    assert next(rows) == Row(dt.date(2024, 1, 3), 101 / 100 - 1)
    with pytest.raises(ConfigError, match=r"r\.csv:4: column 'equity': 'x' is not a number"):
        next(rows)


def test_weekends_are_counted() -> None:
    days = [dt.date(2024, 1, 1) + dt.timedelta(days=number) for number in range(14)]
    assert read(column(*(f"{day},0.01" for day in days))).weekends == 4


@settings(deadline=None)
@given(st.lists(st.floats(-0.9, 2), min_size=2, max_size=30))
def test_sharpe_and_drawdown_are_those_that_fundops_measures(returns: list[float]) -> None:
    series, track, equity = Series(), Track().seen(Reading(1.0, 1.0, 0, 0)), 1.0
    for number, value in enumerate(returns):
        series = series.after(value)
        equity *= 1 + value
        track = track.seen(Reading(equity, 1.0, 0, 0))
        track = track.ended(str(number), measured=True, soft_drawdown=0.2, remembered=5)
    assert series.max_drawdown == pytest.approx(track.max_drawdown, abs=1e-9)
    ratio = track.sharpe(1)
    sd = series.moments.sd
    assert sd is not None
    if sd > 1e-6:
        assert ratio is not None
        assert series.moments.sharpe == pytest.approx(ratio, rel=1e-6, abs=1e-9)


def test_a_total_loss_is_a_drawdown_of_all_of_it() -> None:
    assert read("0.5\n-1\n0.5\n").max_drawdown == 1


# -- what is refused

FEW = "of the 2 returns that a gate needs at least"
NOT_FIRST = "; the first price has no return, so leave its row out"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "r.csv: is empty"),
        ("\n\n", "r.csv: is empty"),
        ("return\n", f"r.csv: has 0 {FEW}"),
        ("0.01\n", f"r.csv: has 1 {FEW}"),
        ("equity\n100\n101\n", f"r.csv: has 1 {FEW}"),
        ("0.01\nabc\n", "r.csv:2: column 1: 'abc' is not a number"),
        ("0.01\n1_0\n", "r.csv:2: column 1: '1_0' is not a number"),
        ("0.01\n١\n", "r.csv:2: column 1: '١' is not a number"),
        ("0.01\n1.5%\n", "r.csv:2: column 1: '1.5%' is not a number"),
        ("0.01\n\n0.02\nnan\n", "r.csv:4: column 1: nan is not finite"),
        ("0.01\n-inf\n", "r.csv:2: column 1: -inf is not finite"),
        ("NaN\n0.01\n", f"r.csv:1: column 1: NaN is not finite{NOT_FIRST}"),
        ("date,return\n2024-01-02,\n", f"r.csv:2: column 'return': is empty{NOT_FIRST}"),
        (
            "date,return\n2024-01-02,0.1\n2024-01-03,\n",
            "r.csv:3: column 'return': is empty",
        ),
        ("0.01\n-1.01\n", "r.csv:2: column 1: a return of -1.01 is not between -1 and 10; 1% is"),
        ("100\n101\n", "r.csv:1: column 1: a return of 100 is not between -1 and 10; 1% is 0.01"),
        ("equity\n100\n0\n", "r.csv:3: column 'equity': an equity of '0' is not above 0"),
        ("equity\n1e999\n", "r.csv:2: column 'equity': an equity of '1e999' is not above 0"),
        ("nav\n1\n100\n", "r.csv:3: column 'nav': a return of 99 is not between -1 and 10"),
        ("2024-01-02,0.1\n2024-01-02,0.2\n", "r.csv:2: column 1: 2024-01-02 repeats the date of"),
        (
            "day,return\n2024-01-03,0.1\n2024-01-02,0.2\n",
            "r.csv:3: column 'day': 2024-01-02 is before 2024-01-03, the date of the row above",
        ),
        ("2024-01-02,0.1\n2024-02-30,0.2\n", "r.csv:2: column 1: '2024-02-30' is not a date"),
        ("2024-01-02,0.1\n3.1.2024,0.2\n", "r.csv:2: column 1: '3.1.2024' is not a date, YYYY-"),
        (",return\n0,0.1\n", "r.csv:2: column 1: '0' is not a date"),
        ("0.1\n0.2,0.3\n", "r.csv:2: has 2 columns, the first line 1"),
        ("date,return\n2024-01-02,0.1,\n", "r.csv:2: has 3 columns, the first line 2"),
        ("2024-01-02,1,2\n", "r.csv:1: has 3 columns and no names; call the one to read return"),
        ("1,2\n", "r.csv:1: has 2 columns and no names"),
        (
            "price\n1\n",
            "r.csv:1: names no columns to read; exactly one must be of: return, returns",
        ),
        ("return,equity\n", "r.csv:1: names 2 columns to read"),
        ("date,day,return\n", "r.csv:1: names 2 columns of dates; keep one"),
        ('0.1\n"0.2\n', "r.csv:2: is not CSV: unexpected end of data"),
        (b"0.1\n\xff\n", "r.csv:2: is not UTF-8"),
        ("0.1\n" + "1" * LINE_MAX + "\n", f"r.csv:2: is longer than {LINE_MAX:,} bytes"),
    ],
)
def test_what_is_wrong_is_named_with_its_line_and_column(text: str | bytes, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(text)
    assert str(refused.value).startswith(said)
    assert str(refused.value).endswith(NOT_FIRST) == said.endswith(NOT_FIRST)


@settings(deadline=None)
@given(st.text(alphabet='0123456789.,-e\n"dateruniqy ', max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ConfigError):
        found = read(text)
        assert found.moments.n >= 2
        assert 0 <= found.max_drawdown <= 1


def test_an_equity_up_to_its_limit_is_read() -> None:
    assert read(f"equity\n{EQUITY_MAX:.0f}\n{EQUITY_MAX / 2:.0f}\n{EQUITY_MAX / 2:.0f}\n").rows == 3


class Endless(io.BytesIO):
    """A file of many rows, of which none is kept."""

    def __init__(self, rows: Iterator[bytes]) -> None:
        super().__init__()
        self._rows = rows

    def readline(self, size: int | None = -1, /) -> bytes:
        return next(self._rows, b"")


def test_a_long_file_is_not_held_in_memory() -> None:
    rows = 40_000  # as a list of floats they would take 1.3 MB
    tracemalloc.start()
    try:
        found = read_returns(Endless(b"0.0%d\n" % (row % 7) for row in range(rows)), "r.csv")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.moments.n == rows
    # CPython keeps up to 2,000 freed tuples of a size for later ones.
    assert most < 500_000
