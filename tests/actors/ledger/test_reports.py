"""Questions about the book in its file: of any time, and refused where a name is unknown."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from fundops.actors.ledger.book import Book
from fundops.actors.ledger.reports import Reports
from fundops.actors.persistence import Reader
from fundops.wire.errors import AmountError, BadField, UnknownAccount, UnknownStrategy
from fundops.wire.ledger import (
    BookSettlement,
    ClosePeriod,
    ClosePosition,
    Compared,
    Convert,
    Deposit,
    Income,
    Mark,
    OpenPosition,
    Price,
    RecordProfit,
    Rename,
    Reverse,
    Statement,
    Transfer,
)

D = Decimal
DAY_US = 86_400_000_000
NOON_US = 1_699_963_200_000_000  # 2023-11-14
FIRST, SECOND, THIRD = "2023-11-12", "2023-11-13", "2023-11-14"


def at(day: int, hour: int = 12) -> int:
    """An hour of the first, second or third day."""
    return NOON_US + (day - 3) * DAY_US + (hour - 12) * 3_600_000_000


STORY = (
    Deposit(1_000, at_us=at(1)),
    OpenPosition("X", 10, 100, strategy="a", at_us=at(1, 13)),
    OpenPosition("Y", -2, 50, strategy="b", at_us=at(2)),
    Mark("X", 150, strategy="a", at_us=at(2, 13)),
    ClosePosition("X", 4, 80, strategy="a", at_us=at(3)),
    OpenPosition("X", 1, 5, strategy="a", at_us=at(1)),  # booked late
    Rename("Y", "Z", at_us=at(3, 13)),
    RecordProfit(7, strategy="b", at_us=at(3)),
    BookSettlement("M", 5, 8, strategy="a", at_us=at(2)),
    Reverse(9, "revised", at_us=at(3)),
    Income(3, "DIV", at_us=at(3)),
)


@pytest.fixture
def reports(tmp_path: Path, write: Callable[..., Book]) -> Iterator[Reports]:
    write(tmp_path / "fund.db", *STORY)
    with Reader(tmp_path / "fund.db") as reader:
        yield Reports(reader, "USD")


def held(reports: Reports, **asked: Any) -> dict[tuple[str | None, str], tuple[Decimal, ...]]:
    return {
        (one.strategy, one.instrument): (one.quantity, one.cost, one.value)
        for one in reports.positions(**asked)
    }


def figures(quantity: int, cost: int, value: int) -> tuple[Decimal, ...]:
    return D(quantity), D(cost), D(value)


def test_positions_are_those_of_any_time(reports: Reports) -> None:
    assert held(reports) == {("a", "X"): figures(7, 65, 95), ("b", "Z"): figures(-2, -50, -50)}
    assert held(reports, as_of=FIRST) == {("a", "X"): figures(11, 105, 105)}
    assert held(reports, as_of=at(1, 12)) == {("a", "X"): figures(1, 5, 5)}
    assert held(reports, as_of=SECOND) == {
        ("a", "X"): figures(11, 105, 155),
        ("b", "Y"): figures(-2, -50, -50),
    }
    assert held(reports, as_of=THIRD) == held(reports)
    assert held(reports, as_of="2023-11-11") == {}
    assert held(reports, strategy="b") == {("b", "Z"): figures(-2, -50, -50)}


def test_lots_come_oldest_first_with_their_day(reports: Reports) -> None:
    [first, second] = reports.lots(strategy="a")
    assert (first.opened, first.day, first.quantity, first.value) == (2, FIRST, D(6), D(90))
    assert (second.opened, second.quantity, second.cost) == (6, D(1), D(5))
    assert [lot.strategy for lot in reports.lots(instrument="Z")] == ["b"]


def test_realized_gains_come_by_strategy_or_instrument(reports: Reports) -> None:
    assert reports.realized() == {"a": 40, "b": 7}
    assert reports.realized(by="instrument") == {"": 7, "M": 0, "X": 40}
    assert reports.realized(SECOND, SECOND) == {"a": 3}
    assert reports.realized(start=at(3), by="instrument") == {"": 7, "M": -3, "X": 40}
    with pytest.raises(BadField, match="by"):
        reports.realized(by="asset")


def test_a_closed_period_leaves_realized_gains_alone(
    tmp_path: Path, write: Callable[..., Book]
) -> None:
    write(tmp_path / "x.db", RecordProfit(5, at_us=at(1)), ClosePeriod(FIRST))
    with Reader(tmp_path / "x.db") as reader:
        assert Reports(reader, "USD").realized() == {"": 5}


def test_entries_are_found_by_key_day_and_instrument(reports: Reports) -> None:
    def found(**asked: Any) -> list[int]:
        return [entry.seq for entry in reports.entries(**asked)]

    assert found(key="key-3") == [3]
    assert found(key="none") == []
    assert found(day=FIRST) == [6, 2, 1]
    assert found(instrument="X") == [6, 5, 4, 2]
    assert found(instrument="X", limit=2) == [6, 5]
    assert found(instrument="X", after_seq=5, kind="mark") == [4]
    assert found(instrument="Z") == found(instrument="Y", limit=1) == [7]
    assert found(instrument="M") == [9]
    assert found(instrument="DIV") == [11]
    assert found(instrument="X", limit=0) == []
    assert found(strategy="b", account="CASH") == [8, 3]


def test_entries_after_one_read_forwards_with_their_chain(reports: Reports) -> None:
    head = bytes(32)
    for line in reports.entries_after(0, 100):
        head = sha256(head + line.payload.encode()).digest()
        assert line.hash == head.hex()
    assert [line.seq for line in reports.entries_after(3, 2)] == [4, 5]
    assert reports.entries_after(11) == reports.entries_after(0, 0) == ()


@pytest.mark.parametrize(
    ("question", "asked", "error", "text"),
    [
        *[
            (question, {"strategy": "nobody"}, UnknownStrategy, "there is no strategy 'nobody'")
            for question in (
                "balance_sheet", "trial_balance", "nav", "income_statement", "cash_flow",
                "entries", "positions", "lots",
            )
        ],
        *[
            (question, {"asset": "EUR"}, BadField, "the book has no asset 'EUR'")
            for question in ("balance_sheet", "trial_balance", "income_statement")
        ],
        ("entries", {"account": "SLUSH"}, UnknownAccount, "there is no account 'SLUSH'"),
        ("entries", {"kind": "deposits"}, BadField, "there is no kind 'deposits'"),
        ("entries", {"day": "12.11.2023"}, BadField, "is not a date"),
        ("balance_sheet", {"as_of": 1_700_000_000}, BadField, "looks like seconds"),
        ("nav", {"as_of": 1_700_000_000_000}, BadField, "looks like milliseconds"),
        ("positions", {"as_of": 1_700_000_000 * 10**9}, BadField, "looks like nanoseconds"),
        ("entries_after", {"seq": "1"}, BadField, "is not the number of an entry"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_refused_and_not_answered_with_zeros(
    reports: Reports, question: str, asked: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        getattr(reports, question)(**asked)


def test_a_registered_strategy_without_entries_has_reports(
    tmp_path: Path, write: Callable[..., Book]
) -> None:
    write(tmp_path / "x.db", Deposit(1), Price("JPY", "0.01"))
    with Reader(tmp_path / "x.db") as reader:
        reports = Reports(reader, "USD")
        with pytest.raises(UnknownStrategy):
            reports.nav(strategy="new")
        assert reports.balance_sheet(asset="JPY")["CASH"] == 0  # priced, so known


def test_other_assets_count_at_the_price_of_the_time(
    tmp_path: Path, write: Callable[..., Book]
) -> None:
    write(
        tmp_path / "x.db",
        Deposit(1_000, at_us=at(1)),
        Convert(100, "USD", 90, "EUR", strategy="fx", at_us=at(1)),
        Price("EUR", 1, at_us=at(2)),
        Price("EUR", 2, at_us=at(3)),
    )
    with Reader(tmp_path / "x.db") as reader:
        reports = Reports(reader, "USD")
        assert [reports.nav(as_of=day) for day in (FIRST, SECOND, THIRD)] == [900, 990, 1_080]
        assert reports.nav(at(3, 11)) == 990
        assert reports.nav(strategy="fx") == 80
        assert reports.prices(FIRST) == {"EUR": None}
        assert reports.nav_per_unit(SECOND) == D("0.99")


# -- reconciliation


def test_books_and_statements_agree_day_by_day(reports: Reports) -> None:
    answer = reports.reconcile(
        [
            Statement(SECOND, "948", {"X": 11, "Y": -2}),
            Statement(FIRST, 895, {"X": 11}),
            Statement(THIRD, D(1_035), {"X": 7, "Z": "-2"}),
        ]
    )
    assert (answer.ok, answer.agreed, answer.days) == (True, THIRD, 3), str(answer)
    assert str(answer) == "books and statements agree on all 3 days"


def test_a_difference_names_days_figures_and_the_entries_between(reports: Reports) -> None:
    answer = reports.reconcile(
        [
            Statement(FIRST, 895, {"X": 11}),
            Statement(SECOND, "947.5", {"X": 11, "W": 1}),
            Statement(THIRD, 0, None),
        ]
    )
    assert (answer.ok, answer.agreed, answer.differs, answer.later) == (
        False,
        FIRST,
        SECOND,
        (THIRD,),
    )
    assert [(one.name, one.difference) for one in answer.breaks] == [
        ("CASH", D("0.5")),
        ("W", -1),
        ("Y", -2),
    ]
    assert [entry.seq for entry in answer.entries] == [9, 4, 3]
    assert "CASH: books 948.00000000, statement 947.50000000, difference +0.50000000" in str(answer)
    assert f"differ on {SECOND} and agreed last on {FIRST}" in str(answer)


def test_a_statement_may_be_silent_about_a_part(reports: Reports) -> None:
    assert reports.reconcile([Statement(THIRD, None, None), Statement(FIRST, 895, None)]).ok
    assert reports.reconcile([]).agreed is None
    assert reports.reconcile([Statement(FIRST, "895.01", None)], "0.01").ok
    assert not reports.reconcile([Statement(FIRST, "895.02", None)], "0.01").ok


@pytest.mark.parametrize(
    ("statements", "error"),
    [
        ([Statement("soon", 1, None)], BadField),
        ([Statement(FIRST, 1, None), Statement(FIRST, 1, None)], BadField),
        ([Statement(FIRST, "x", None)], AmountError),
        ([Statement(FIRST, 1, {"X": None})], AmountError),  # type: ignore[dict-item]
        ([Statement(FIRST, 1, {"": 1})], BadField),
        ([Statement(FIRST, 1, [("X", 1)])], BadField),  # type: ignore[arg-type]
        ([dt.date(2023, 1, 1)], BadField),
    ],
)
def test_a_statement_that_cannot_be_read_is_refused(
    reports: Reports, statements: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        reports.reconcile(statements)


def test_a_transfer_between_strategies_is_no_difference(
    tmp_path: Path, write: Callable[..., Book]
) -> None:
    write(
        tmp_path / "x.db",
        Deposit(100, at_us=at(1)),
        OpenPosition("X", 2, 10, strategy="a", at_us=at(1)),
        Transfer("X", 1, "a", "b", at_us=at(2)),
    )
    with Reader(tmp_path / "x.db") as reader:
        assert Reports(reader, "USD").reconcile([Statement(SECOND, 90, {"X": 2})]).ok


def test_an_agreement_is_of_what_the_statements_say(reports: Reports) -> None:
    silent = reports.reconcile([Statement(THIRD, None, None)])
    assert (silent.ok, silent.days, silent.agreed) == (False, 0, None)
    assert str(silent).startswith("nothing is stated")
    answer = reports.reconcile([Statement(THIRD, None, None), Statement(FIRST, 895, None)])
    assert (answer.ok, answer.days, answer.agreed) == (True, 1, FIRST)
    assert (answer.cash, answer.positions) == (Compared(1, FIRST), Compared())
    assert str(answer).endswith("; compared: cash of 1 day, positions of no days")


def test_the_last_agreement_is_that_of_the_figures_that_differ(reports: Reports) -> None:
    answer = reports.reconcile(
        [
            Statement(FIRST, None, {"X": 11}),
            Statement(SECOND, 948, None),
            Statement(THIRD, 1_035, {"X": 1}),
        ]
    )
    assert (answer.agreed, answer.differs) == (FIRST, THIRD), "cash of the second day says nothing"
    assert answer.cash == Compared(2, THIRD)
    assert answer.positions == Compared(2, FIRST, THIRD)
    assert [entry.day for entry in answer.entries if entry.day <= FIRST] == []
    assert {entry.day for entry in answer.entries} == {SECOND, THIRD}
    later = reports.reconcile([Statement(THIRD, 1_035, {"X": 1})], 0, (SECOND, ""))
    assert (later.agreed, later.cash.agreed) == (None, THIRD)
