"""Books for other tools: names, texts and balances. The tools judge them in tests/judges."""

from __future__ import annotations

import json
import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundops.actors.ledger import books
from fundops.actors.ledger.accounts import ACCOUNTS
from fundops.actors.ledger.books import account_name, commodity_name
from fundops.actors.persistence import Reader, Rows

FORMATS = {"beancount": books.beancount, "ledger": books.ledger}


def text(rows: Rows, form: str) -> str:
    return "".join(FORMATS[form](rows))


# -- names


def test_every_account_has_its_root() -> None:
    assert set(books.ROOTS) >= ACCOUNTS
    assert account_name("CASH", None) == "Assets:CASH"
    assert account_name("POSITIONS:MTM", None) == "Assets:POSITIONS:MTM"
    assert account_name("POSITIONS", "MTM") == "Assets:POSITIONS:Strategy-MTM"
    assert (
        account_name("FEES_RECEIVABLE", "mean_reversion")
        == "Assets:FEES-RECEIVABLE:Strategy-mean-reversion"
    )
    assert account_name("SOMETHING_NEW", "a-b") == "Equity:SOMETHING-NEW:Strategy-a--2d-b"


@given(st.text("ab_-2dDß:\n", max_size=12) | st.text())
def test_the_name_of_a_strategy_can_be_read_back(strategy: str) -> None:
    name = account_name("CASH", strategy)
    assert re.fullmatch(r"Assets:CASH:Strategy-[A-Za-z0-9-]*", name)
    read = re.sub(
        r"--([0-9a-f]+)-|-",
        lambda found: chr(int(found[1], 16)) if found[1] else "_",
        name.removeprefix("Assets:CASH:Strategy-"),
    )
    assert read == strategy


@given(st.text(min_size=1), st.text(min_size=1))
def test_no_two_assets_have_one_name_and_every_name_is_legal(one: str, other: str) -> None:
    names = [commodity_name(asset) for asset in (one, one.upper(), other)]
    assert len(set(names)) == len({one, one.upper(), other})
    assert all(
        re.fullmatch(r"[A-Z][A-Z0-9._'-]*[A-Z0-9]", name) and len(name) < 256 for name in names
    )


@pytest.mark.parametrize(
    ("asset", "name"),
    [
        ("USD", "USD"),
        ("BRK.B", "BRK.B"),
        ("btc", "BTC'627463"),
        ("TRUE", "TRUE'54525545"),
        ("X", "X'58"),
        ("3M", "X3M'334D"),
        ("金", "X'E98791"),
        ("s&p", "S-P'732670"),
    ],
)
def test_an_asset_stays_legible(asset: str, name: str) -> None:
    assert commodity_name(asset) == name


# -- texts


@pytest.mark.parametrize("form", ["beancount", "ledger"])
def test_a_book_is_by_day_and_then_seq(reader: Reader, form: str) -> None:
    seqs = re.findall(r"^  seq: (\d+)$|^\S+ \* \((\d+)\)", text(reader, form), re.MULTILINE)
    assert [int(one or other) for one, other in seqs] == [6, 1, 2, 3, 4, 5, 7, 8, 9]


def test_a_beancount_entry_in_full(reader: Reader) -> None:
    book = text(reader, "beancount")
    assert book.startswith(
        'option "title" "alpha"\n'
        'option "inferred_tolerance_default" "*:0"\n'
        'option "operating_currency" "USD"\n'
        '2020-09-13 commodity UNITS\n  name: "UNITS"\n'
        '2020-09-13 commodity USD\n  name: "USD"\n'
        '2020-09-13 commodity S-P\'732670\n  name: "s&p"\n'
        "2020-09-13 open Assets:CASH\n"
    )
    assert (
        '\n2023-11-14 * "deposit" '
        '"say \\"hi\\" \\\\ bye\\n; date: tomorrow, [2020-01-01]\\\\u0000 é"\n'
        "  seq: 1\n"
        '  key: "key-1"\n'
        '  recorded: "2023-11-14T22:13:20.123456Z"\n'
        "  Assets:CASH  100000.00000000 USD\n"
        "  Equity:EXTERNAL  -100000.00000000 USD\n"
    ) in book
    assert (
        '  strategy: "short_vol"\n  Expenses:TRADING-FEES:Strategy-short-vol  0.50000000 USD\n'
        in book
    )
    assert "  reverses: 6\n" in book


def test_every_account_of_a_beancount_book_is_opened_and_closes_with_its_balance(
    reader: Reader,
) -> None:
    book = text(reader, "beancount")
    used = set(re.findall(r"^  ([A-Z]\S+)  -?\d", book, re.MULTILINE))
    opened = set(re.findall(r"^2020-09-13 open (\S+)$", book, re.MULTILINE))
    closing = re.findall(r"^2023-11-15 balance (\S+)  (\S+) ~ 0 (\S+)$", book, re.MULTILINE)
    assert used < opened
    assert {name for name, _, _ in closing} == opened
    totals = {
        account_name(account, None): Decimal(minor).scaleb(-8)
        for account, minor in reader.rows(
            "SELECT account, sum(amount_minor) FROM balance "
            "WHERE asset = 'USD' AND account NOT LIKE 'POSITIONS%' "
            "GROUP BY account"
        )
    }
    found = {name: Decimal(amount) for name, amount, asset in closing if asset == "USD"}
    assert found | totals == found
    # Marks are a part of positions, there as in our reports.
    (positions,) = reader.row(
        "SELECT sum(amount_minor) FROM balance WHERE account LIKE 'POSITIONS%'"
    )
    assert found["Assets:POSITIONS"] == Decimal(positions).scaleb(-8)


def test_a_ledger_entry_in_full(reader: Reader) -> None:
    book = text(reader, "ledger")
    assert "commodity USD\n    format 1000.00000000 USD\n" in book
    assert 'commodity "S-P\'732670"\n    format 1000.00000000 "S-P\'732670"\n' in book
    assert (
        "\n2023-11-14 * (1) deposit\n"
        '    ; key: "key-1"\n'
        '    ; recorded: "2023-11-14T22\\u003a13\\u003a20.123456Z"\n'
        '    ; memo: "say \\"hi\\" \\\\ bye\\n'
        '\\u003b date\\u003a tomorrow\\u002c \\u005b2020-01-01\\u005d\\u0000 \\u00e9"\n'
        "    Assets:CASH    100000.00000000 USD\n"
        "    Equity:EXTERNAL    -100000.00000000 USD\n"
    ) in book
    assert "    ; reverses: 6\n" in book
    assert (
        "\n2023-11-14 * closing balances\n    Assets:CASH    0.00000000 USD = 100000.00000000 USD\n"
        in book
    )


def test_every_tag_account_and_commodity_of_a_ledger_book_is_declared(reader: Reader) -> None:
    book = text(reader, "ledger")
    assert set(re.findall(r"^    ; ([a-z]+):", book, re.MULTILINE)) == set(
        re.findall(r"^tag (\S+)$", book, re.MULTILINE)
    )
    used = re.findall(r"^    ([A-Z]\S+)    -?[\d.]+ (\S+)", book, re.MULTILINE)
    assert {name for name, _ in used} < set(re.findall(r"^account (\S+)$", book, re.MULTILINE))
    assert {symbol for _, symbol in used} == set(
        re.findall(r"^commodity (\S+)$", book, re.MULTILINE)
    )


@given(st.text(max_size=1_024))
def test_a_text_in_a_ledger_comment_can_be_read_back(memo: str) -> None:
    lines = books._tag("memo", memo).split("\n")
    assert lines.pop() == ""
    assert all(line.startswith("    ; ") and line.isascii() and len(line) < 2_000 for line in lines)
    assert not set(
        lines[0].removeprefix("    ; memo:") + "".join(line[6:] for line in lines[1:])
    ) & set(":,;[]")
    assert json.loads("".join(line[6:] for line in lines).removeprefix("memo: ")) == memo
