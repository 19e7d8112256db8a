"""The price reader names the line and column of every fault, and the bundled series are whole."""

import datetime
import decimal
import gzip
import itertools
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundops.replay import prices
from fundops.replay.prices import Bar, PricesError, bundled, read_csv

HEADER = "date,open,high,low,close,volume\n"
GOOD = "2020-01-02,10,12,9,11,100\n"


def write(folder: Path, content: str | bytes, name: str = "prices.csv") -> Path:
    """A file of that content."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path) -> PricesError:
    """The error that reading `path` raises."""
    with pytest.raises(PricesError) as caught:
        read_csv(path)
    assert caught.value.path == str(path)
    return caught.value


def test_a_row_becomes_a_bar_in_cents(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "2020-01-02,10.01,12.5,9,11.999,100\n")
    assert read_csv(path) == (Bar(datetime.date(2020, 1, 2), 1001, 1250, 900, 1200, 100),)


def test_a_bar_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        bundled("sp500")[0].volume = 1  # type: ignore[misc]


def test_columns_may_come_in_any_order_and_case_with_others_between(tmp_path: Path) -> None:
    path = write(
        tmp_path, " Volume ,Adj Close,CLOSE,low,High,Open,DATE\n100,nan,11,9,12,10,2020-01-02\n"
    )
    assert read_csv(path) == read_csv(write(tmp_path, HEADER + GOOD, "plain.csv"))


def test_an_ignored_column_may_appear_twice(tmp_path: Path) -> None:
    assert read_csv(write(tmp_path, "note,note," + HEADER + "x,y," + GOOD))[0].volume == 100


@pytest.mark.parametrize("written", ["2020-01-02", "1/2/2020", "01/02/2020"])
def test_days_are_iso_or_month_first(tmp_path: Path, written: str) -> None:
    assert read_csv(write(tmp_path, HEADER + GOOD.replace("2020-01-02", written)))[
        0
    ].day == datetime.date(2020, 1, 2)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_every_line_ending_is_read(tmp_path: Path, ending: str) -> None:
    assert len(read_csv(write(tmp_path, (HEADER + GOOD).replace("\n", ending)))) == 1


def test_a_byte_order_mark_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    assert len(read_csv(write(tmp_path, "\ufeff\n" + HEADER + "\n" + GOOD + " \n,,,,,\n\n"))) == 1


def test_quoted_fields_are_read(tmp_path: Path) -> None:
    assert (
        read_csv(write(tmp_path, HEADER + '"2020-01-02","10","12","9","11","100"\n'))[0].high_cents
        == 1200
    )


def test_a_gz_file_is_decompressed(tmp_path: Path) -> None:
    path = write(tmp_path, gzip.compress((HEADER + GOOD).encode()), "PRICES.CSV.GZ")
    assert len(read_csv(path)) == 1


def test_a_path_may_be_a_string(tmp_path: Path) -> None:
    assert len(read_csv(str(write(tmp_path, HEADER + GOOD)))) == 1


@pytest.mark.parametrize(
    ("written", "cents"),
    [("1248.810059", 124881), ("10.005", 1000), ("10.015", 1002), ("+1e1", 1000)],
)
def test_prices_round_half_even_to_cents(tmp_path: Path, written: str, cents: int) -> None:
    row = f"2020-01-02,{written},{written},{written},{written},0\n"
    assert read_csv(write(tmp_path, HEADER + row))[0].close_cents == cents


def test_noise_below_a_cent_is_not_a_contradiction(tmp_path: Path) -> None:
    assert (
        read_csv(write(tmp_path, HEADER + "2020-01-02,10,11.999999,9,12.000001,0\n"))[0].high_cents
        == 1200
    )


def test_the_host_s_decimal_precision_does_not_matter(tmp_path: Path) -> None:
    path = write(
        tmp_path, HEADER + "2020-01-02,12345.67,12345.67,12345.67,12345.67,9007199254740993\n"
    )
    with decimal.localcontext(prec=3):
        bar = read_csv(path)[0]
    assert (bar.close_cents, bar.volume) == (1234567, 9007199254740993)


@pytest.mark.parametrize(
    ("written", "volume"), [("0", 0), ("7.0", 7), ("1.5e3", 1500), (str(2**63 - 1), 2**63 - 1)]
)
def test_volumes_are_whole_however_written(tmp_path: Path, written: str, volume: int) -> None:
    assert (
        read_csv(write(tmp_path, HEADER + f"2020-01-02,10,12,9,11,{written}\n"))[0].volume == volume
    )


@pytest.mark.parametrize(
    ("row", "column", "problem"),
    [
        ("2020-01-03,10,12.1,9,13.0,1", "high", "12.1 is below the close 13.0"),
        ("2020-01-03,12.5,12.1,9,11,1", "high", "12.1 is below the open 12.5"),
        ("2020-01-03,10,12,10.5,11,1", "low", "10.5 is above the open 10"),
        ("2020-01-03,11,12,10.5,10,1", "low", "10.5 is above the close 10"),
        ("2020-01-03,0,12,9,11,1", "open", "0 is not positive"),
        ("2020-01-03,10,12,-9,11,1", "low", "-9 is not positive"),
        ("2020-01-03,0.004,12,0.004,11,1", "open", "0.004 rounds to no cents"),
        ("2020-01-03,10,12,9,nan,1", "close", "nan is not finite"),
        ("2020-01-03,10,-NaN,9,11,1", "high", "-NaN is not finite"),
        ("2020-01-03,10,inf,9,11,1", "high", "inf is not finite"),
        ("2020-01-03,10,12,9,11,Infinity", "volume", "Infinity is not finite"),
        ("2020-01-03,10,12,9,,1", "close", "'' is not a number"),
        ("2020-01-03,ten,12,9,11,1", "open", "'ten' is not a number"),
        ("2020-01-03,1_0,12,9,11,1", "open", "'1_0' is not a number"),
        ("2020-01-03,\u0661\u0660,12,9,11,1", "open", "'\u0661\u0660' is not a number"),
        ('2020-01-03,"1,229.22",12,9,11,1', "open", "'1,229.22' is not a number"),
        ("2020-01-03,10,1e13,9,11,1", "high", "'1e13' is above 1000000000000"),
        ("2020-01-03,10,1e999999999,9,11,1", "high", "'1e999999999' is not a number"),
        ("2020-01-03,10," + "9" * 5000 + ",9,11,1", "high", f"'{'9' * 40}...' is not a number"),
        ("2020-01-03,10,12,9,11,-1", "volume", "-1 is negative"),
        ("2020-01-03,10,12,9,11,1.5", "volume", "1.5 is not whole"),
        (f"2020-01-03,10,12,9,11,{2**63}", "volume", f"'{2**63}' is above {2**63 - 1}"),
        (
            "2020-02-30,10,12,9,11,1",
            "date",
            "2020-02-30 is not a day of the calendar (day is out of range for month)",
        ),
        (
            "13/1/2020,10,12,9,11,1",
            "date",
            "13/1/2020 is not a day of the calendar (month must be in 1..12)",
        ),
        ("20200103,10,12,9,11,1", "date", "'20200103' is not a date (YYYY-MM-DD or M/D/YYYY)"),
        (
            "2020-01-03T00:00,10,12,9,11,1",
            "date",
            "'2020-01-03T00:00' is not a date (YYYY-MM-DD or M/D/YYYY)",
        ),
        (",10,12,9,11,1", "date", "'' is not a date (YYYY-MM-DD or M/D/YYYY)"),
        ("2020-01-02,10,12,9,11,1", "date", "2020-01-02 repeats the previous row's 2020-01-02"),
        ("1/1/2020,10,12,9,11,1", "date", "2020-01-01 is before the previous row's 2020-01-02"),
        ("2020-01-03,10,12,9,11", None, "the line has 5 fields, the header 6"),
        ("2020-01-03,1,229.22,12,9,11,1", None, "the line has 7 fields, the header 6"),
        ('2020-01-03,"10,12,9,11,1', None, "the line is not CSV (unexpected end of data)"),
    ],
)
def test_a_bad_row_is_refused_with_its_line_and_column(
    tmp_path: Path, row: str, column: str | None, problem: str
) -> None:
    path = write(tmp_path, HEADER + GOOD + "\n" + row + "\n")
    error = refusal(path)
    assert (error.line, error.column, error.problem) == (4, column, problem)


def test_the_first_fault_of_several_is_the_one_named(tmp_path: Path) -> None:
    assert refusal(write(tmp_path, HEADER + GOOD + "bad\n" + "worse\n")).line == 3


@pytest.mark.parametrize("column", prices.COLUMNS)
def test_a_header_without_a_column_is_refused(tmp_path: Path, column: str) -> None:
    error = refusal(write(tmp_path, HEADER.replace(column, "other") + GOOD))
    assert (error.line, error.column, error.problem) == (1, column, "the header does not name it")


@pytest.mark.parametrize("column", prices.COLUMNS)
def test_a_header_with_a_column_twice_is_refused(tmp_path: Path, column: str) -> None:
    error = refusal(write(tmp_path, f"{column.upper()},{HEADER}"))
    assert (error.line, error.column, error.problem) == (
        1,
        column,
        "the header names it more than once",
    )


def test_data_without_a_header_is_refused(tmp_path: Path) -> None:
    assert refusal(write(tmp_path, GOOD)).column == "date"


@pytest.mark.parametrize("content", ["", "\n", " \r\n\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    assert refusal(write(tmp_path, content)).problem == "the file is empty"


def test_an_empty_gz_file_is_refused(tmp_path: Path) -> None:
    assert refusal(write(tmp_path, b"", "p.csv.gz")).problem == "the file is empty"


def test_a_header_alone_is_refused(tmp_path: Path) -> None:
    assert refusal(write(tmp_path, HEADER)).problem == "there are no rows below the header"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path / "absent.csv")
    assert (error.line, error.column) == (None, None)
    assert error.problem == "the file cannot be read (No such file or directory)"
    assert isinstance(error.__cause__, FileNotFoundError)


@pytest.mark.parametrize("name", ["folder", "folder.csv.gz"])
def test_a_directory_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert refusal(tmp_path / name).problem == "the file cannot be read (Is a directory)"


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not stop root, so the refusal of the operating system is given by hand.
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    assert refusal(tmp_path / "secret.csv").problem == "the file cannot be read (Permission denied)"


def test_a_path_no_system_can_open_is_refused() -> None:
    assert refusal(Path("a\0b")).problem == "the file cannot be read (embedded null byte)"


def test_text_that_is_not_utf_8_is_refused_with_its_line(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, (HEADER + GOOD).encode() + b"caf\xe9\n"))
    assert (error.line, error.column, error.problem) == (3, None, "the text is not UTF-8")


def test_a_gz_name_on_plain_text_is_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, HEADER + GOOD, "p.csv.gz"))
    assert error.problem == "the file is not a whole gzip archive (Not a gzipped file (b'da'))"


@pytest.mark.parametrize("cut", [5, 20, -4])
def test_a_truncated_archive_is_refused(tmp_path: Path, cut: int) -> None:
    archive = gzip.compress((HEADER + GOOD).encode())
    assert "not a whole gzip archive" in refusal(write(tmp_path, archive[:cut], "p.csv.gz")).problem


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    archive = bytearray(gzip.compress((HEADER + GOOD * 50).encode()))
    archive[12] ^= 0xFF
    assert (
        "not a whole gzip archive" in refusal(write(tmp_path, bytes(archive), "p.csv.gz")).problem
    )


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz"])
def test_a_file_over_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(prices, "BYTES_MAX", 10)
    content = (HEADER + GOOD).encode()
    path = write(tmp_path, gzip.compress(content) if name.endswith("gz") else content, name)
    assert refusal(path).problem == "the file is larger than 10 bytes"


def test_an_error_reads_as_one_line(tmp_path: Path) -> None:
    assert str(PricesError("prices.csv", 17, "high", "12.1 is below the close 13.0")) == (
        "prices.csv:17: column 'high': 12.1 is below the close 13.0"
    )
    assert str(PricesError("prices.csv", 17, None, "short")) == "prices.csv:17: short"
    assert str(PricesError("prices.csv", None, None, "gone")) == "prices.csv: gone"


def test_an_error_names_the_column_as_the_header_spells_it(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER.replace("high", " High ") + "2020-01-02,10,x,9,11,100\n")
    assert str(refusal(path)) == f"{path}:2: column 'High': 'x' is not a number"


def test_an_error_is_a_value_error_and_survives_pickling() -> None:
    error = PricesError("p.csv", 3, "low", "wrong")
    assert isinstance(error, ValueError)
    copy: object = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, PricesError)
    assert (copy.path, copy.line, copy.column, copy.problem) == ("p.csv", 3, "low", "wrong")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused_but_never_crash(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes
) -> None:
    path = write(tmp_path_factory.getbasetemp(), (HEADER + GOOD).encode() + noise, "noise.csv")
    line: int | None = None
    try:
        read_csv(path)
    except PricesError as error:
        line = error.line
    assert line is None or line >= 3


@pytest.mark.parametrize("symbol", prices.SYMBOLS)
def test_a_bundled_series_is_twenty_years_of_sessions(symbol: str) -> None:
    bars = bundled(symbol)
    assert len(bars) == 5031
    assert (bars[0].day, bars[-1].day) == (datetime.date(1999, 1, 4), datetime.date(2018, 12, 31))
    assert all(before.day < after.day for before, after in itertools.pairwise(bars))
    assert bundled(symbol) is bars


def test_the_bundled_values_are_those_of_the_source() -> None:
    first = datetime.date(1999, 1, 4)
    assert bundled("sp500")[0] == Bar(first, 122923, 124881, 121910, 122810, 877_000_000)
    assert bundled("nasdaq")[0] == Bar(first, 220754, 223357, 219268, 220805, 936_660_000)


def test_both_bundled_series_have_the_same_days() -> None:
    assert [bar.day for bar in bundled("sp500")] == [bar.day for bar in bundled("nasdaq")]


@pytest.mark.parametrize("symbol", ["SP500", "", "../rules", "dow"])
def test_an_unknown_symbol_is_refused_with_the_known_ones(symbol: str) -> None:
    with pytest.raises(ValueError, match="there are nasdaq, sp500"):
        bundled(symbol)


def test_the_licence_travels_with_the_data() -> None:
    notice = (Path(prices.__file__).parent / "data" / "NOTICE.md").read_text(encoding="utf-8")
    assert "Copyright (c) 2017 Kevin Sheppard" in notice
    assert "WITHOUT WARRANTY OF ANY KIND" in notice
