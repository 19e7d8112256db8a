"""The journal as text and back: what each format keeps, and what an import refuses; the judges are elsewhere."""

from __future__ import annotations

import csv as csv_format
import io
import json
import re
import tracemalloc
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundops.actors.ledger import export
from fundops.actors.ledger.accounts import ACCOUNTS
from fundops.actors.ledger.core import GENESIS, Book, Draft, chain_hash
from fundops.actors.ledger.export import (
    JournalDamaged,
    JournalEntry,
    account_name,
    commodity_name,
    import_journal,
    import_jsonl,
)
from fundops.actors.ledger.schema import find_original, load_book, rows_of
from fundops.actors.persistence import DatabaseError, Reader, Rows, Store, commit_batch
from fundops.file.database import MIGRATIONS
from fundops.runtime import ConfigError
from fundops.wire.ledger import (
    BookFill,
    ClosePosition,
    Deposit,
    Event,
    Leg,
    Mark,
    OpenPosition,
    Post,
    RecordLoss,
    Reverse,
)
from fundops.wire.money import MINOR_MAX
from fundops.wire.persistence import Committed

NOW_US = 1_700_000_000_123_456
BACKDATED_US = 1_600_000_000_000_000
ODD = 'say "hi" \\ bye\n; date: tomorrow, [2020-01-01]\x00 é'
STORY: tuple[Event, ...] = (
    Deposit(100_000, memo=ODD),
    OpenPosition("SPY", -2, 5_000, "0.5", strategy="short_vol"),
    OpenPosition("EUR", 3, 300, strategy="MTM"),
    Mark("SPY", "5000.00000001", strategy="short_vol"),
    ClosePosition("SPY", -1, 2_400, strategy="short_vol"),
    RecordLoss("0.00000001", at_us=BACKDATED_US, memo="late"),
    BookFill("EUR", "0.00000001", "0.1", 0, strategy="MTM"),  # dust: no legs
    Post((Leg("CASH", 1, asset="s&p"), Leg("EXTERNAL", -1, asset="s&p"))),
    Reverse(6, "twice"),
)
FORMATS = {"jsonl": export.jsonl, "csv": export.csv, "beancount": export.beancount, "ledger": export.ledger}


def write(path: Path, *events: Event, meta: bool = True) -> Book:
    """Each event durable by itself, under the keys key-1, key-2, ..."""
    store = Store(path, MIGRATIONS)
    if meta:
        store.connection.execute("INSERT INTO meta VALUES ('name', 'alpha'), ('currency', 'USD'), ('uuid', 'u-1')")
    with Reader(path) as reader:
        book = load_book(reader, "USD")
        for event in events:
            draft = Draft(book, lambda seq: find_original(reader, seq))
            draft.decide(event, f"key-{book.seq + 1}", NOW_US)
            assert isinstance(commit_batch(store, [rows_of(draft)])[0], Committed)
            book.apply(draft)
    store.close()
    return book


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    write(tmp_path / "fund.db", *STORY)
    with Reader(tmp_path / "fund.db") as one:
        yield one


def text(rows: Rows, form: str) -> str:
    return "".join(FORMATS[form](rows))


# -- what all formats share


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_ends_with_the_entry_that_was_the_last_when_it_began(form: str, tmp_path: Path) -> None:
    write(tmp_path / "fund.db", *STORY)
    with Reader(tmp_path / "fund.db") as reader:
        before = text(reader, form)
        exporting = FORMATS[form](reader)
        begun = next(exporting)
        write(tmp_path / "fund.db", Deposit(7, memo="afterwards"), meta=False)
        assert begun + "".join(exporting) == before


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_of_many_entries_holds_few_of_them(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE", 10)
    store = Store(tmp_path / "fund.db", MIGRATIONS)
    draft = Draft(Book("USD"), lambda _: None)
    for number in range(2_000):
        draft.decide(Deposit(1, memo="m" * 1_000), f"key-{number}", NOW_US)
    commit_batch(store, [rows_of(draft)])
    store.close()
    del draft
    with Reader(tmp_path / "fund.db") as reader:
        tracemalloc.start()
        size = sum(len(piece) for piece in FORMATS[form](reader))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert size > 2_000_000
    assert peak < 400_000


@pytest.mark.parametrize("form", ["csv", "beancount", "ledger"])
def test_an_export_names_the_entry_whose_payload_is_none(form: str, tmp_path: Path) -> None:
    write(tmp_path / "fund.db", *STORY)
    connection = apsw.Connection(str(tmp_path / "fund.db"))
    connection.execute("DROP TRIGGER entry_is_for_ever")
    connection.execute("UPDATE entry SET payload = '{' WHERE seq = 3")
    connection.close()
    with Reader(tmp_path / "fund.db") as reader, pytest.raises(JournalDamaged, match="entry 3: its payload") as refused:
        text(reader, form)
    assert refused.value.seq == 3


def test_every_account_has_its_root() -> None:
    assert set(export.ROOTS) >= ACCOUNTS
    assert account_name("CASH", None) == "Assets:CASH"
    assert account_name("POSITIONS:MTM", None) == "Assets:POSITIONS:MTM"
    assert account_name("POSITIONS", "MTM") == "Assets:POSITIONS:Strategy-MTM"
    assert account_name("FEES_RECEIVABLE", "mean_reversion") == "Assets:FEES-RECEIVABLE:Strategy-mean-reversion"
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
    assert all(re.fullmatch(r"[A-Z][A-Z0-9._'-]*[A-Z0-9]", name) and len(name) < 256 for name in names)


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


# -- csv


def test_csv_has_a_line_for_each_posting(reader: Reader) -> None:
    lines = list(csv_format.DictReader(io.StringIO(text(reader, "csv"), newline="")))
    postings = reader.rows("SELECT entry, account, coalesce(strategy, ''), asset, amount_minor FROM posting")
    assert [
        (int(one["seq"]), one["account"], one["strategy"], one["asset"], int(Decimal(one["amount"]).scaleb(8)))
        for one in lines
    ] == postings
    assert lines[0] == {
        "seq": "1",
        "day": "2023-11-14",
        "recorded": "2023-11-14T22:13:20.123456Z",
        "kind": "deposit",
        "key": "key-1",
        "strategy": "",
        "account": "CASH",
        "asset": "USD",
        "amount": "100000.00000000",
        "memo": ODD,
        "reverses": "",
    }
    assert {one["day"] for one in lines if one["seq"] == "6"} == {"2020-09-13"}
    assert {one["amount"] for one in lines if one["seq"] == "6"} == {"0.00000001", "-0.00000001"}
    assert {one["reverses"] for one in lines if one["seq"] == "9"} == {"6"}


@pytest.mark.parametrize("memo", ["\r", "a\rb", "a\nb", "\r\n", ",", '"', "'", "\x00", "\u2028", " ", "=1+1"])
def test_csv_gives_any_text_back(memo: str, tmp_path: Path) -> None:
    write(tmp_path / "fund.db", Deposit(1, memo=memo, strategy=memo))
    with Reader(tmp_path / "fund.db") as reader:
        lines = list(csv_format.DictReader(io.StringIO(text(reader, "csv"), newline="")))
    assert [(one["memo"], one["strategy"]) for one in lines] == [(memo, memo)] * 4


# -- the books


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
        '\n2023-11-14 * "deposit" "say \\"hi\\" \\\\ bye\\n; date: tomorrow, [2020-01-01]\\\\u0000 é"\n'
        "  seq: 1\n"
        '  key: "key-1"\n'
        '  recorded: "2023-11-14T22:13:20.123456Z"\n'
        "  Assets:CASH  100000.00000000 USD\n"
        "  Equity:EXTERNAL  -100000.00000000 USD\n"
    ) in book
    assert '  strategy: "short_vol"\n  Expenses:TRADING-FEES:Strategy-short-vol  0.50000000 USD\n' in book
    assert "  reverses: 6\n" in book


def test_every_account_of_a_beancount_book_is_opened_and_closes_with_its_balance(reader: Reader) -> None:
    book = text(reader, "beancount")
    used = set(re.findall(r"^  ([A-Z]\S+)  -?\d", book, re.MULTILINE))
    opened = set(re.findall(r"^2020-09-13 open (\S+)$", book, re.MULTILINE))
    closing = re.findall(r"^2023-11-15 balance (\S+)  (\S+) ~ 0 (\S+)$", book, re.MULTILINE)
    assert used < opened
    assert {name for name, _, _ in closing} == opened
    totals = {
        account_name(account, None): Decimal(minor).scaleb(-8)
        for account, minor in reader.rows(
            "SELECT account, sum(amount_minor) FROM balance WHERE asset = 'USD' AND account NOT LIKE 'POSITIONS%' "
            "GROUP BY account"
        )
    }
    found = {name: Decimal(amount) for name, amount, asset in closing if asset == "USD"}
    assert found | totals == found
    # Marks are a part of positions, there as in our reports.
    (positions,) = reader.row("SELECT sum(amount_minor) FROM balance WHERE account LIKE 'POSITIONS%'")
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
    assert "\n2023-11-14 * closing balances\n    Assets:CASH    0.00000000 USD = 100000.00000000 USD\n" in book


def test_every_tag_account_and_commodity_of_a_ledger_book_is_declared(reader: Reader) -> None:
    book = text(reader, "ledger")
    assert set(re.findall(r"^    ; ([a-z]+):", book, re.MULTILINE)) == set(
        re.findall(r"^tag (\S+)$", book, re.MULTILINE)
    )
    used = re.findall(r"^    ([A-Z]\S+)    -?[\d.]+ (\S+)", book, re.MULTILINE)
    assert {name for name, _ in used} < set(re.findall(r"^account (\S+)$", book, re.MULTILINE))
    assert {symbol for _, symbol in used} == set(re.findall(r"^commodity (\S+)$", book, re.MULTILINE))


@given(st.text(max_size=1_024))
def test_a_text_in_a_ledger_comment_can_be_read_back(memo: str) -> None:
    lines = export._tag("memo", memo).split("\n")
    assert lines.pop() == ""
    assert all(line.startswith("    ; ") and line.isascii() and len(line) < 2_000 for line in lines)
    assert not set(lines[0].removeprefix("    ; memo:") + "".join(line[6:] for line in lines[1:])) & set(":,;[]")
    assert json.loads("".join(line[6:] for line in lines).removeprefix("memo: ")) == memo


def test_an_empty_journal_is_exported_as_nothing_but_what_goes_before(tmp_path: Path) -> None:
    write(tmp_path / "fund.db", meta=False)
    with Reader(tmp_path / "fund.db") as reader:
        assert json.loads(text(reader, "jsonl")) == {
            "format": "fundops.journal",
            "version": 1,
            "currency": None,
            "name": None,
            "uuid": None,
            "seq": 0,
            "hash": "00" * 32,
        }
        assert text(reader, "csv") == "seq,day,recorded,kind,key,strategy,account,asset,amount,memo,reverses\r\n"
        assert text(reader, "beancount") == 'option "title" ""\noption "inferred_tolerance_default" "*:0"\n'
        assert text(reader, "ledger").startswith('; The journal of ""\n\ntag key\n')
        assert list(import_jsonl(export.jsonl(reader))) == []


# -- jsonl, out and in

TABLES = {
    "entry": "SELECT * FROM entry ORDER BY seq",
    "posting": "SELECT * FROM posting ORDER BY entry, leg",
    "balance": "SELECT * FROM balance ORDER BY account, strategy, asset",
    "lot": "SELECT * FROM lot ORDER BY strategy, instrument, id",
}


def contents(path: Path) -> dict[str, list[object]]:
    with Reader(path) as reader:
        return {table: reader.rows(sql) for table, sql in TABLES.items()}


def take_in(path: Path, lines: list[str]) -> export.Header:
    return import_journal(path, lines, currency="USD", migrations=MIGRATIONS)


@pytest.fixture
def lines(reader: Reader) -> list[str]:
    return list(export.jsonl(reader))


def test_jsonl_carries_each_payload_verbatim_with_its_hash(reader: Reader, lines: list[str]) -> None:
    header, *entries = (json.loads(line) for line in lines)
    assert (header["currency"], header["name"], header["uuid"], header["seq"]) == ("USD", "alpha", "u-1", len(STORY))
    stored = reader.rows("SELECT seq, payload, lower(hex(hash)) FROM entry ORDER BY seq")
    assert [(one["seq"], one["payload"], one["hash"]) for one in entries] == stored
    assert header["hash"] == stored[-1][2]
    assert list(import_jsonl(lines)) == [(payload, bytes.fromhex(at_entry)) for _, payload, at_entry in stored]


@pytest.mark.parametrize("page", [1, 2, 1_000])
def test_an_imported_journal_is_the_original(
    page: int, lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE", page)
    header = take_in(tmp_path / "new.db", lines)
    assert contents(tmp_path / "new.db") == contents(tmp_path / "fund.db")
    assert (header.name, header.uuid, header.seq) == ("alpha", "u-1", len(STORY))
    with Reader(tmp_path / "new.db") as copied, Reader(tmp_path / "fund.db") as original:
        # Whose file it is the caller says.
        assert copied.rows("SELECT * FROM meta") == []
        assert [*export.jsonl(copied)][1:] == [*export.jsonl(original)][1:]
        assert load_book(copied, "USD").head == load_book(original, "USD").head


def test_booking_goes_on_after_an_import(lines: list[str], tmp_path: Path) -> None:
    take_in(tmp_path / "new.db", lines)
    more = (ClosePosition("SPY", -1, 2_000, strategy="short_vol"), Deposit(1))
    assert write(tmp_path / "new.db", *more).head == write(tmp_path / "fund.db", *more, meta=False).head
    assert contents(tmp_path / "new.db") == contents(tmp_path / "fund.db")


def test_lines_may_come_without_their_ends(lines: list[str], tmp_path: Path) -> None:
    take_in(tmp_path / "new.db", [line.rstrip("\n") for line in lines])
    assert contents(tmp_path / "new.db") == contents(tmp_path / "fund.db")


def test_a_database_with_entries_is_refused(lines: list[str], tmp_path: Path) -> None:
    write(tmp_path / "new.db", Deposit(1))
    before = contents(tmp_path / "new.db")
    with pytest.raises(DatabaseError, match="has entries already"):
        take_in(tmp_path / "new.db", lines)
    assert contents(tmp_path / "new.db") == before


def test_a_journal_in_another_currency_is_refused(lines: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'EUR' is not the 'USD' of the journal"):
        import_journal(tmp_path / "new.db", lines, currency="EUR", migrations=MIGRATIONS)
    assert not (tmp_path / "new.db").exists()


# -- what an import refuses

Lines = list[dict[str, object]]


def _replace(lines: Lines, number: int, **fields: object) -> None:
    lines[number] |= fields


def _cut(number: int) -> Callable[[Lines], None]:
    def cut(lines: Lines) -> None:
        del lines[number:]

    return cut


def _change_amount(lines: Lines) -> None:
    _replace(lines, 1, payload=str(lines[1]["payload"]).replace("10000000000000]", "10000000000001]", 1))


def _chain_again(lines: Lines) -> None:
    """What somebody does who knows how the chain is made."""
    head = GENESIS
    for line in lines[1:]:
        head = chain_hash(head, str(line["payload"]).encode())
        line["hash"] = head.hex()
    lines[0]["hash"] = head.hex()


def _change_amount_and_chain(lines: Lines) -> None:
    _change_amount(lines)
    _chain_again(lines)


def _change_payload_and_chain(number: int, old: str, new: str) -> Callable[[Lines], None]:
    def change(lines: Lines) -> None:
        assert old in str(lines[number]["payload"])
        _replace(lines, number, payload=str(lines[number]["payload"]).replace(old, new, 1))
        _chain_again(lines)

    return change


DAMAGES: dict[str, tuple[Callable[[Lines], object], int, str]] = {
    "another format": (lambda lines: _replace(lines, 0, format="csv"), 0, "the format is 'csv'"),
    "a newer version": (lambda lines: _replace(lines, 0, version=2), 0, "the version is 2, this fundops reads 1"),
    "no header": (lambda lines: lines.pop(0), 0, "not the header of a journal"),
    "no seq in the header": (lambda lines: lines[0].pop("seq"), 0, "not the header of a journal"),
    "another head": (lambda lines: _replace(lines, 0, hash="00" * 32), 9, "not the one of the header"),
    "an amount": (_change_amount, 1, "hash does not follow"),
    "an amount, chained again": (_change_amount_and_chain, 1, "legs in USD sum to 0.00000001, not to zero"),
    "a hash": (lambda lines: _replace(lines, 4, hash="ab" * 32), 4, "hash does not follow"),
    "a hash that is none": (lambda lines: _replace(lines, 4, hash="?"), 4, "hash does not follow"),
    "an entry left out": (lambda lines: lines.pop(3), 3, "entry 4 stands in its place"),
    "an entry twice": (lambda lines: lines.insert(3, lines[3]), 4, "entry 3 stands in its place"),
    "two entries swapped": (lambda lines: lines.insert(5, lines.pop(4)), 4, "entry 5 stands in its place"),
    "the tail cut off": (_cut(7), 7, "missing: the header names 9 entries"),
    "all entries cut off": (_cut(1), 1, "missing"),
    "more than the header says": (
        lambda lines: _replace(lines, 0, seq=8),
        9,
        "follows the last entry of the header, 8",
    ),
    "a number changed": (lambda lines: _replace(lines, 2, seq=7), 2, "entry 7 stands in its place"),
    "a field too many": (lambda lines: _replace(lines, 2, note="?"), 2, "line cannot be read"),
    "a field missing": (lambda lines: lines[2].pop("hash"), 2, "line cannot be read"),
    "a payload that is none": (_change_payload_and_chain(3, '"kind"', '"sort"'), 3, "payload is not an entry"),
    "a day that is none": (_change_payload_and_chain(2, '"day":"2', '"day":"x'), 2, "its day 'x023-.*' is not a date"),
    "another entry's payload": (_change_payload_and_chain(3, '"seq":3', '"seq":2'), 3, "payload is that of entry 2"),
}
UNSTORABLE: dict[str, tuple[Callable[[Lines], object], int, str]] = {
    "a key twice": (_change_payload_and_chain(5, '"key-5"', '"key-4"'), 5, "cannot be stored: .*entry.key"),
    "a reversal of nothing": (_change_payload_and_chain(9, '"reverses":6', '"reverses":60'), 9, "cannot be stored"),
    "a leg of zero": (
        _change_payload_and_chain(7, '"legs":[]', '"legs":[["CASH",null,"USD",0]]'),
        7,
        "cannot be stored",
    ),
    "an amount beyond the columns": (
        _change_payload_and_chain(
            7, '"legs":[]', f'"legs":[["CASH",null,"USD",{4 * MINOR_MAX}],["CASH",null,"USD",{-4 * MINOR_MAX}]]'
        ),
        7,
        "cannot be stored",
    ),
}


def _damaged(lines: list[str], damage: Callable[[Lines], object]) -> list[str]:
    decoded = [json.loads(line) for line in lines]
    damage(decoded)
    return [json.dumps(line, ensure_ascii=False) + "\n" for line in decoded]


@pytest.mark.parametrize("damage", [*DAMAGES, *UNSTORABLE])
@pytest.mark.parametrize("page", [2, 1_000])
def test_a_damaged_journal_is_refused_by_name_and_nothing_of_it_is_kept(
    damage: str, page: int, lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE", page)
    make, seq, problem = (DAMAGES | UNSTORABLE)[damage]
    with pytest.raises(JournalDamaged, match=problem) as refused:
        take_in(tmp_path / "new.db", _damaged(lines, make))
    assert refused.value.seq == seq
    take_in(tmp_path / "new.db", lines)
    assert contents(tmp_path / "new.db") == contents(tmp_path / "fund.db")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_journal_is_read_up_to_its_damage(damage: str, lines: list[str]) -> None:
    make, seq, problem = DAMAGES[damage]
    taken: list[JournalEntry] = []

    def take_all() -> None:
        for one in import_jsonl(_damaged(lines, make)):
            taken.append(one)

    with pytest.raises(JournalDamaged, match=problem):
        take_all()
    proved = len(STORY) if damage == "another head" else max(seq - 1, 0)
    assert [one.payload for one in taken] == [json.loads(line)["payload"] for line in lines[1 : proved + 1]]


@pytest.mark.parametrize("line", ["", "\n", "{", "[]", "null", '{"seq":1}', '{"seq":"\ud800"}'])
def test_a_line_that_is_no_json_of_ours_is_named(line: str, lines: list[str]) -> None:
    with pytest.raises(JournalDamaged) as refused:
        list(import_jsonl([*lines[:4], line, *lines[5:]]))
    assert refused.value.seq == 4
    with pytest.raises(JournalDamaged) as refused:
        import_jsonl([line, *lines[1:]])
    assert refused.value.seq == 0


def test_no_lines_at_all_are_no_journal() -> None:
    with pytest.raises(JournalDamaged, match="header: the first line"):
        import_jsonl([])
