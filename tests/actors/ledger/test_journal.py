"""The journal as JSON lines and CSV, and the faults that an import of it refuses."""

from __future__ import annotations

import csv as csv_format
import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from fundops.actors.ledger import journal
from fundops.actors.ledger.book import Book
from fundops.actors.ledger.entry import GENESIS, chain_hash
from fundops.actors.ledger.journal import JournalEntry, import_journal, import_jsonl
from fundops.actors.ledger.schema import load_book
from fundops.actors.persistence import Reader
from fundops.file.database import MIGRATIONS
from fundops.runtime import ConfigError
from fundops.wire.errors import DatabaseError, JournalDamaged
from fundops.wire.ledger import ClosePosition, Deposit, Event
from fundops.wire.money import MINOR_MAX

Write = Callable[..., Book]


# -- csv


def test_csv_has_a_line_for_each_posting(reader: Reader, story: tuple[Event, ...]) -> None:
    lines = list(csv_format.DictReader(io.StringIO("".join(journal.csv(reader)), newline="")))
    postings = reader.rows(
        "SELECT entry, account, coalesce(strategy, ''), asset, amount_minor FROM posting"
    )
    assert [
        (
            int(one["seq"]),
            one["account"],
            one["strategy"],
            one["asset"],
            int(Decimal(one["amount"]).scaleb(8)),
        )
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
        "memo": story[0].memo,
        "reverses": "",
    }
    assert {one["day"] for one in lines if one["seq"] == "6"} == {"2020-09-13"}
    assert {one["amount"] for one in lines if one["seq"] == "6"} == {"0.00000001", "-0.00000001"}
    assert {one["reverses"] for one in lines if one["seq"] == "9"} == {"6"}


@pytest.mark.parametrize(
    "memo",
    ["\r", "a\rb", "a\nb", "\r\n", ",", '"', "'", "\x00", "\u2028", " ", "=1+1", "-", "+", "@x"],
)
def test_csv_gives_any_text_back(memo: str, tmp_path: Path, write: Write) -> None:
    write(tmp_path / "fund.db", Deposit(1, memo=memo, strategy=memo))
    with Reader(tmp_path / "fund.db") as reader:
        lines = list(csv_format.DictReader(io.StringIO("".join(journal.csv(reader)), newline="")))
    shown = f"'{memo}" if memo[0] in "=+-@\t\r\n'" else memo  # one quote off again is the text
    assert [(one["memo"], one["strategy"]) for one in lines] == [(shown, shown)] * 4


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


def take_in(path: Path, lines: list[str]) -> journal.Header:
    return import_journal(path, lines, currency="USD", migrations=MIGRATIONS)


@pytest.fixture
def lines(reader: Reader) -> list[str]:
    return list(journal.jsonl(reader))


def test_jsonl_carries_each_payload_verbatim_with_its_hash(
    reader: Reader, lines: list[str], story: tuple[Event, ...]
) -> None:
    header, *entries = (json.loads(line) for line in lines)
    assert (header["currency"], header["name"], header["uuid"], header["seq"]) == (
        "USD",
        "alpha",
        "u-1",
        len(story),
    )
    stored = reader.rows("SELECT seq, payload, lower(hex(hash)) FROM entry ORDER BY seq")
    assert [(one["seq"], one["payload"], one["hash"]) for one in entries] == stored
    assert header["hash"] == stored[-1][2]
    assert list(import_jsonl(lines)) == [
        (payload, bytes.fromhex(at_entry)) for _, payload, at_entry in stored
    ]


@pytest.mark.parametrize("page", [1, 2, 1_000])
def test_an_imported_journal_is_the_original(
    page: int,
    lines: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    story: tuple[Event, ...],
) -> None:
    monkeypatch.setattr(journal, "PAGE", page)
    header = take_in(tmp_path / "new.db", lines)
    assert contents(tmp_path / "new.db") == contents(tmp_path / "fund.db")
    assert (header.name, header.uuid, header.seq) == ("alpha", "u-1", len(story))
    with Reader(tmp_path / "new.db") as copied, Reader(tmp_path / "fund.db") as original:
        # Whose file it is the caller says.
        assert copied.rows("SELECT * FROM meta") == []
        assert [*journal.jsonl(copied)][1:] == [*journal.jsonl(original)][1:]
        assert load_book(copied, "USD").head == load_book(original, "USD").head


def test_booking_goes_on_after_an_import(lines: list[str], tmp_path: Path, write: Write) -> None:
    take_in(tmp_path / "new.db", lines)
    more = (ClosePosition("SPY", -1, 2_000, strategy="short_vol"), Deposit(1))
    assert (
        write(tmp_path / "new.db", *more).head
        == write(tmp_path / "fund.db", *more, meta=False).head
    )
    assert contents(tmp_path / "new.db") == contents(tmp_path / "fund.db")


def test_lines_may_come_without_their_ends(lines: list[str], tmp_path: Path) -> None:
    take_in(tmp_path / "new.db", [line.rstrip("\n") for line in lines])
    assert contents(tmp_path / "new.db") == contents(tmp_path / "fund.db")


def test_a_database_with_entries_is_refused(lines: list[str], tmp_path: Path, write: Write) -> None:
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
    _replace(
        lines, 1, payload=str(lines[1]["payload"]).replace("10000000000000]", "10000000000001]", 1)
    )


def _chain_again(lines: Lines) -> None:
    """The work of a forger who knows how the chain is made."""
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
    "a newer version": (
        lambda lines: _replace(lines, 0, version=2),
        0,
        "the version is 2, but this fundops reads version 1",
    ),
    "no header": (lambda lines: lines.pop(0), 0, "not the header of a journal"),
    "no seq in the header": (lambda lines: lines[0].pop("seq"), 0, "not the header of a journal"),
    "another head": (
        lambda lines: _replace(lines, 0, hash="00" * 32),
        9,
        "not the one of the header",
    ),
    "an amount": (_change_amount, 1, "hash does not follow"),
    "an amount, chained again": (
        _change_amount_and_chain,
        1,
        "legs in USD sum to 0.00000001, not to zero",
    ),
    "a hash": (lambda lines: _replace(lines, 4, hash="ab" * 32), 4, "hash does not follow"),
    "a hash that is none": (lambda lines: _replace(lines, 4, hash="?"), 4, "hash does not follow"),
    "an entry left out": (lambda lines: lines.pop(3), 3, "holds entry 4"),
    "an entry twice": (lambda lines: lines.insert(3, lines[3]), 4, "holds entry 3"),
    "two entries swapped": (lambda lines: lines.insert(5, lines.pop(4)), 4, "holds entry 5"),
    "the tail cut off": (_cut(7), 7, "missing: the header names 9 entries"),
    "all entries cut off": (_cut(1), 1, "missing"),
    "more than the header says": (
        lambda lines: _replace(lines, 0, seq=8),
        9,
        "comes after entry 8, the last one",
    ),
    "a number changed": (lambda lines: _replace(lines, 2, seq=7), 2, "holds entry 7"),
    "a field too many": (lambda lines: _replace(lines, 2, note="?"), 2, "line cannot be read"),
    "a field missing": (lambda lines: lines[2].pop("hash"), 2, "line cannot be read"),
    "a payload that is none": (
        _change_payload_and_chain(3, '"kind"', '"sort"'),
        3,
        "payload is not an entry",
    ),
    "a day that is none": (
        _change_payload_and_chain(2, '"day":"2', '"day":"x'),
        2,
        "its day 'x023-.*' is not a date",
    ),
    "another entry's payload": (
        _change_payload_and_chain(3, '"seq":3', '"seq":2'),
        3,
        "payload is that of entry 2",
    ),
}
UNSTORABLE: dict[str, tuple[Callable[[Lines], object], int, str]] = {
    "a key twice": (
        _change_payload_and_chain(5, '"key-5"', '"key-4"'),
        5,
        "cannot be stored: .*entry.key",
    ),
    "a reversal of nothing": (
        _change_payload_and_chain(9, '"reverses":6', '"reverses":60'),
        9,
        "cannot be stored",
    ),
    "a leg of zero": (
        _change_payload_and_chain(7, '"legs":[]', '"legs":[["CASH",null,"USD",0]]'),
        7,
        "cannot be stored",
    ),
    "an amount beyond the columns": (
        _change_payload_and_chain(
            7,
            '"legs":[]',
            f'"legs":[["CASH",null,"USD",{4 * MINOR_MAX}],["CASH",null,"USD",{-4 * MINOR_MAX}]]',
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
    monkeypatch.setattr(journal, "PAGE", page)
    make, seq, problem = (DAMAGES | UNSTORABLE)[damage]
    with pytest.raises(JournalDamaged, match=problem) as refused:
        take_in(tmp_path / "new.db", _damaged(lines, make))
    assert refused.value.seq == seq
    take_in(tmp_path / "new.db", lines)
    assert contents(tmp_path / "new.db") == contents(tmp_path / "fund.db")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_journal_is_read_up_to_its_damage(
    damage: str, lines: list[str], story: tuple[Event, ...]
) -> None:
    make, seq, problem = DAMAGES[damage]
    taken: list[JournalEntry] = []

    def take_all() -> None:
        for one in import_jsonl(_damaged(lines, make)):
            taken.append(one)

    with pytest.raises(JournalDamaged, match=problem):
        take_all()
    proved = len(story) if damage == "another head" else max(seq - 1, 0)
    assert [one.payload for one in taken] == [
        json.loads(line)["payload"] for line in lines[1 : proved + 1]
    ]


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
