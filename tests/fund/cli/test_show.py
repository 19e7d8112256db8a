"""Figures, tables and lines as a person reads them, in any width."""

from __future__ import annotations

import io
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fundops.cli import screens, show
from fundops.cli.grammar import Verb
from fundops.cli.show import Column, amount, moment, number, pairs, print_json, table

NOWHERE = Path("nowhere.db")


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_width(columns: int) -> None:
        monkeypatch.setattr(show, "width", lambda: columns)

    return set_width


def verb(*answer: Any, effect: str = "reads") -> Verb:
    return Verb("ledger nosuch", "ledger.nosuch", effect, "socket", "", "", (), answer=answer)


def told(
    capsys: pytest.CaptureFixture[str], shape: tuple[Any, ...], answer: Any, **given: str
) -> str:
    options = {f"--{name}": value for name, value in {"asset": "EUR", **given}.items()}
    assert show.print_answer(verb(*shape), answer, NOWHERE, options) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0.00000000", "0.00"),
        ("-0.50000000", "-0.50"),
        ("1234567.80000000", "1,234,567.80"),
        ("-1000", "-1,000.00"),
        ("0.00000001", "0.00000001"),
        ("1.00005000", "1.00005"),
        ("46116860184.27387904", "46,116,860,184.27387904"),
        ("no number", "no number"),
    ],
)
def test_an_amount_has_separators_and_the_decimals_that_it_needs(text: str, shown: str) -> None:
    assert amount(text) == shown


def test_a_quantity_has_no_decimals_that_it_does_not_need() -> None:
    assert [amount(text, 0) for text in ("10.00000000", "0.5", "-1200")] == ["10", "0.5", "-1,200"]


def test_numbers_and_times_are_short() -> None:
    assert [number(value) for value in (0.0, 4.83e-06, 0.0812, 12.0, 1234.5)] == [
        *("0", "0", "0.0812", "12", "1,234.5")
    ]
    assert moment(1_500_000) == "1970-01-01 00:00:01"
    assert moment(2**62) == str(2**62)


def test_a_table_fits_by_cutting_names_in_the_middle_and_prose_at_its_end(wide: Any) -> None:
    columns = [
        Column("name", cut="middle"),
        Column("amount", right=True),
        Column("memo", cut="end"),
    ]
    rows = [["momentum_of_the_week", "1,000.00", "a long story about it"], ["a", "5.00", ""]]
    wide(80)
    assert table(columns, rows) == [
        "name                    amount  memo",
        "momentum_of_the_week  1,000.00  a long story about it",
        "a                         5.00",
    ]
    wide(40)
    assert table(columns, rows) == [
        "name                amount  memo",
        "momentum…he_week  1,000.00  a long stor…",
        "a                     5.00",
    ]
    for columns_wide in range(26, 80):
        wide(columns_wide)
        lines = table(columns, rows)
        assert max(map(len, lines)) <= columns_wide
        assert "1,000.00" in "\n".join(lines), "a figure is never cut"


def test_a_table_that_cannot_fit_becomes_pairs(wide: Any) -> None:
    columns = [Column("name", cut="middle"), Column("amount", right=True), Column("error")]
    rows = [["momentum_of_the_week", "1,000.00", ""], ["a", "5,000,000.00", ""]]
    wide(21)
    assert table(columns, rows) == [
        "name           amount",
        "mom…eek      1,000.00",
        "a        5,000,000.00",
    ], "a column without a value is left out"
    wide(16)
    assert table(columns, rows) == [
        *("name    momentu…", "amount  1,000.00", ""),
        *("name    a", "amount  5,000,000.00"),
    ], "a figure is never cut"


def test_figures_by_name_are_aligned_and_say_their_currency_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = told(capsys, ("pairs", "amount"), {"CASH": "1000.00000000", "": "-5.5", "GBP": None})
    assert text == (
        "                 EUR\nCASH        1,000.00\n(the fund)     -5.50\nGBP             none\n"
    )
    assert told(capsys, ("pairs", "whole"), {"held": 1_000}) == "held  1,000\n"
    assert told(capsys, ("pairs", "amount"), {}) == "none\n"


def test_a_figure_has_its_currency_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, ("value", "amount"), "99700.00000000") == "99,700.00 EUR\n"
    assert told(capsys, ("value", "text"), "live\x1b[2J") == "live [2J\n"


def test_a_truth_and_no_answer_are_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, ("flag", ""), True) == "yes\n"
    changes = verb("flag", "it was not paused", effect="changes")
    for answer, text in ((True, "done\n"), (False, "nothing changed: it was not paused\n")):
        show.print_answer(changes, answer, NOWHERE, {})
        assert capsys.readouterr().out == text
    assert told(capsys, ("done",), None) == "done\n"


def test_records_are_a_table_of_the_columns_that_people_want(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fields = (
        ("strategy", "text"),
        ("instrument", "text"),
        ("quantity", "amount"),
        ("cost", "amount"),
        ("at_us", "time"),
        ("legs", "nested"),
    )
    row: dict[str, Any] = {
        "strategy": None,
        "instrument": "X",
        "quantity": "10.00000000",
        "cost": "1000.00000000",
        "at_us": 0,
        "legs": [],
    }
    assert told(capsys, ("table", "Thing", fields), [row]) == (
        "in EUR\n"
        "strategy  instrument  quantity      cost  time (UTC)\n"
        "          X                 10  1,000.00  1970-01-01 00:00:00\n"
    )
    assert told(capsys, ("table", "Thing", fields), []) == "none\n"
    assert told(capsys, ("record", "Thing", fields), row) == (
        "instrument  X\nquantity    10\ncost        1,000.00 EUR\ntime (UTC)  1970-01-01 00:00:00\n"
    )


def test_json_is_one_object_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words, answer, text in (
        ("ledger nav", Decimal("1.50000000"), '{"nav":"1.50000000"}\n'),
        ("ledger nav-per-unit", Decimal(1), '{"nav_per_unit":"1"}\n'),
        ("ledger entries", (), '{"entries":[]}\n'),
        ("ledger trial", {"CASH": Decimal("0E-8")}, '{"CASH":"0.00000000"}\n'),
        ("strategy retire", None, '{"retire":null}\n'),
    ):
        assert print_json(words, answer) == 0
        assert capsys.readouterr().out == text


def test_a_terminal_without_the_ellipsis_gets_another_mark(
    monkeypatch: pytest.MonkeyPatch, wide: Any
) -> None:
    wide(16)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert pairs([("a", "b" * 40)]) == [f"a  {'b' * 12}~"]
    assert show.error_line("käse\n\x1b[2J") == "fundops: k?se  [2J"


def test_the_width_is_the_terminals_or_eighty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "132")
    assert show.width() == 80, "no terminal"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert show.width() == 132


def test_the_blockers_of_a_strategy_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    answer = {
        "strategy": "trend",
        "may_open": False,
        "may_close": True,
        "stage": "paper",
        "mode": "paper",
        "capital": "0",
        "blockers": [{"kind": "not_registered", "text": "x\ny", "lift": "fundops strategy adopt"}],
        "notes": ["recovery does not answer"],
    }
    show.print_lines(screens.why(verb(), answer, NOWHERE))
    assert capsys.readouterr().out.splitlines() == [
        "trend: stage paper, mode paper, capital 0.00",
        "real orders: may not open, may close",
        "1. not registered: x y",
        "   lifted by: fundops strategy adopt",
        "note: recovery does not answer",
    ]
    assert "no blocker" in screens.why(verb(), {**answer, "blockers": []}, NOWHERE)
