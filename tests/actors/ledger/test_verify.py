"""Every way of tampering with a book is found, and the entry named."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from fundops.actors.ledger import schema, verify
from fundops.actors.ledger.book import Book, Draft
from fundops.actors.ledger.entry import GENESIS, Entry, LotImage, chain_hash
from fundops.actors.ledger.verify import FINDINGS_MAX, Anchor, Finding, anchor_of, verify_file
from fundops.actors.persistence import Reader, Rows, Store, commit_batch, open_database
from fundops.file.database import MIGRATIONS
from fundops.runtime import ConfigError
from fundops.wire.errors import DatabaseError
from fundops.wire.ledger import (
    ClosePosition,
    Deposit,
    Event,
    Mark,
    OpenPosition,
    RecordLoss,
    RecordProfit,
    Reverse,
    Withdraw,
)

DAY_US = 86_400_000_000
EVENTS: list[Event] = [
    Deposit(1_000),
    RecordProfit(50, strategy="a"),
    RecordLoss(20, strategy="b", memo="fat \u2028 finger"),
    OpenPosition("X", 10, 100, strategy="a"),
    Mark("X", 130, strategy="a"),
    ClosePosition("X", 4, 50, strategy="a"),
    Reverse(2, "not ours"),
    Withdraw(100),
    RecordProfit(7, strategy="a"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A book of nine entries over nine days."""
    path = tmp_path_factory.mktemp("book") / "fund.db"
    store = Store(path, MIGRATIONS)
    book = Book("USD")
    for number, event in enumerate(EVENTS):
        with_reader = Reader(path)
        draft = Draft(book, lambda seq, reader=with_reader: schema.find_original(reader, seq))  # type: ignore[misc]
        draft.decide(event, f"key {number}", 1_700_000_000_000_000 + number * DAY_US)
        commit_batch(store, [schema.rows_of(draft)])
        book.apply(draft)
        with_reader.close()
    store.close()
    return path


@pytest.fixture(params=[(10_000, 10**6), (4, 10**6), (10_000, 700), (1, 10**6)], ids=str)
def path(
    made: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of it, looked over in pages of all sizes."""
    monkeypatch.setattr(verify, "PAGE", request.param[0])
    monkeypatch.setattr(verify, "PAGE_BYTES", request.param[1])
    return Path(shutil.copy(made, tmp_path / "fund.db"))


def tampered(path: Path, *statements: str) -> list[Finding]:
    connection = apsw.Connection(str(path))
    for (trigger,) in connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
    ).fetchall():
        connection.execute(f"DROP TRIGGER {trigger}")
    for statement in statements:
        connection.execute(statement)
    connection.close()
    return list(verify_file(path).findings)


def test_a_book_that_is_in_order_is_found_so_at_every_level(path: Path) -> None:
    for level in (0, 1, 2):
        checked = verify_file(path, level)
        assert checked.ok
        assert (checked.level, checked.entries, checked.seq) == (level, 9, 9)
    with Reader(path) as reader:
        assert verify_file(path, 2, anchor_of(reader)).ok


def test_an_empty_book_is_in_order(tmp_path: Path) -> None:
    open_database(tmp_path / "fund.db", MIGRATIONS).close()
    checked = verify_file(tmp_path / "fund.db", 2, Anchor(0, "00" * 32))
    assert checked.ok
    assert (checked.entries, checked.seq, checked.hash) == (0, 0, "00" * 32)


@pytest.mark.parametrize(
    ("statement", "what", "seq", "words"),
    [
        (
            "UPDATE entry SET payload = replace(payload, '\"key 2\"', '\"key_2\"') WHERE seq = 3",
            "chain",
            3,
            "hash",
        ),
        (
            "UPDATE entry SET payload = substr(payload, 2) WHERE seq = 4",
            "entry",
            4,
            "cannot be read",
        ),
        ("UPDATE entry SET hash = zeroblob(32) WHERE seq = 5", "chain", 5, "hash"),
        ("UPDATE entry SET hash = zeroblob(32) WHERE seq = 9", "chain", 9, "hash"),
        ("UPDATE entry SET day = '2020-01-01' WHERE seq = 6", "entry", 6, "columns"),
        ("UPDATE entry SET strategy = NULL WHERE seq = 6", "entry", 6, "columns"),
        (
            "UPDATE posting SET amount_minor = amount_minor + 1 WHERE entry = 3 AND leg = 0",
            "posting",
            3,
            "the table says",
        ),
        (
            "UPDATE posting SET account = 'RETAINED' WHERE entry = 3 AND leg = 0",
            "posting",
            3,
            "the table says",
        ),
        ("DELETE FROM posting WHERE entry = 8", "posting", 8, "the table says []"),
        ("DELETE FROM entry WHERE seq = 5", "entry", 5, "is missing"),
        ("DELETE FROM entry WHERE seq = 1", "entry", 1, "is missing"),
        ("DELETE FROM entry WHERE seq BETWEEN 4 AND 6", "entry", 4, "is missing, and all up to 6"),
        (
            "UPDATE balance SET amount_minor = amount_minor + 1 WHERE account = 'CASH'",
            "balance",
            9,
            "CASH a USD",
        ),
        ("DELETE FROM balance WHERE account = 'EXTERNAL'", "balance", 8, "EXTERNAL"),
        (
            "UPDATE balance_day SET amount_minor = 5 WHERE account = 'CASH'",
            "balance of a day",
            1,
            "CASH  USD 2023-11-14",
        ),
        ("UPDATE lot SET quantity = 1", "lot", 4, "a X 4"),
        ("INSERT INTO lot VALUES ('z', 'Z', 1, 1, 1, 1)", "lot", 1, "z Z 1"),
    ],
)
def test_each_kind_of_tampering_is_found_and_named(
    path: Path, statement: str, what: str, seq: int | None, words: str
) -> None:
    findings = tampered(path, "PRAGMA foreign_keys = OFF", statement)
    assert any(one.what == what and one.seq == seq and words in one.problem for one in findings), (
        findings
    )
    # No other entry is accused: the consequences of a changed entry are not separate findings.
    accused = {one.seq for one in findings if one.what in ("chain", "entry")}
    assert accused <= {seq}, findings


def forged(path: Path, **fields: Any) -> list[Finding]:
    """One more entry, written by a forger who keeps the chain and all tables in order."""
    with Reader(path) as reader:
        book = schema.load_book(reader, "USD")
    day, at_us = "2023-11-26", 1_701_000_000_000_000
    plain = Entry(book.seq + 1, "forged", at_us, day, "post", None, None, "", False, "", (), ())
    entry = msgspec.structs.replace(plain, **fields)
    payload = msgspec.json.encode(entry)
    draft = Draft(book, lambda _: None)
    draft.sealed = [(entry, payload, chain_hash(book.head, payload))]
    for account, strategy, asset, amount in entry.legs:
        key = (account, strategy, asset)
        draft.balances[key] = draft.balance(key) + amount
    store = Store(path, MIGRATIONS)
    commit_batch(store, [schema.rows_of(draft)])
    store.close()
    return list(verify_file(path).findings)


FIVE = (("CASH", None, "USD", 5), ("EXTERNAL", None, "USD", -5))


@pytest.mark.parametrize(
    ("fields", "finding"),
    [
        ({"legs": FIVE, "memo": '","legs":[]'}, None),
        ({"legs": FIVE, "key": 'é"\\\u0001\x7f', "strategy": "\U0001f680/\n"}, None),
        (
            {"legs": (("CASH", None, "USD", 5),)},
            "entry 10: its legs in USD sum to 5 minor units, not to zero",
        ),
        (
            {"legs": (("CASH", None, "USD", 5), ("EXTERNAL", None, "EUR", -5))},
            "entry 10: its legs in USD sum to 5 minor units, not to zero",
        ),
        (
            {"legs": (*FIVE, ("CASH", None, "EUR", 7), ("EXTERNAL", None, "EUR", -8))},
            "entry 10: its legs in EUR sum to -1 minor units, not to zero",
        ),
        (
            {"legs": FIVE, "reverses": 4},
            "reversal at entry 10: does not negate every leg of entry 4",
        ),
        ({"legs": (("cash", None, "USD", 5), FIVE[1])}, "entry 10: there is no account 'cash'"),
        ({"legs": FIVE, "day": "2023-11-31"}, "entry 10: its day '2023-11-31' is not a date"),
        (
            {"lots": (LotImage("a", "X", 4, 1, 1, 1),)},
            "lot at entry 4: a X 4 is (600000000, 6000000000, 1800000000), but",
        ),
    ],
)
def test_an_entry_that_breaks_a_rule_is_found_however_well_it_is_chained(
    path: Path, fields: dict[str, Any], finding: str | None
) -> None:
    if "lots" in fields:  # written, and then undone where nothing guards it
        forged(path, **fields)
        found = tampered(
            path,
            "UPDATE lot SET quantity = 600000000, cost_minor = 6000000000, mark_minor = 1800000000",
        )
    else:
        found = forged(path, **fields)
    told = [str(one) for one in found if one.what != "balance"]
    assert not told if finding is None else told[0].startswith(finding), told


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text[: text.index(',"lots":[],') + 10], "cannot be read"),
        (lambda text: text[:-1], "cannot be read"),
        (
            lambda text: text.replace('"memo":"', '"memo":"\\', 1).replace(
                '","rounded"', ',"rounded"'
            ),
            "cannot be read",
        ),
        (lambda text: text.replace('"memo":"', '"memo":null,"was":"'), "cannot be read"),
        (lambda text: text.replace('"rounded":false', '"rounded":5'), "cannot be read"),
        (lambda text: text.replace('"corrects":null', '"corrects":"x"'), "cannot be read"),
        (lambda text: text.replace('"lots":[]', '"lots":[5]'), "cannot be read"),
        (
            lambda text: text.replace('"corrects"', '"legs":[["CASH","a","USD",9]],"corrects"'),
            "the table says",
        ),
    ],
)
@pytest.mark.parametrize(
    "seq", [1, 2, 7, 9]
)  # a deposit, one that is reversed, its reversal, and the last
def test_a_payload_that_cannot_be_read_is_found_though_the_chain_was_made_anew(
    path: Path, seq: int, change: Callable[[str], str], problem: str
) -> None:
    with Reader(path) as reader:
        payloads = [text for (text,) in reader.rows("SELECT payload FROM entry ORDER BY seq")]
    changed, head = change(payloads[seq - 1]), GENESIS
    assert changed != payloads[seq - 1]
    payloads[seq - 1] = changed
    connection = apsw.Connection(str(path))
    connection.execute("DROP TRIGGER entry_is_for_ever")
    for number, payload in enumerate(payloads, start=1):
        head = chain_hash(head, payload.encode())
        connection.execute(
            "UPDATE entry SET payload = ?, hash = ? WHERE seq = ?", (payload, head, number)
        )
    connection.close()
    findings = verify_file(path).findings
    assert any(one.seq == seq and problem in one.problem for one in findings), findings
    assert not [one for one in findings if one.what == "chain"]


@pytest.mark.parametrize(
    ("table", "column", "what"),
    [
        *[("entry", column, "entry") for column in ("key", "day", "kind", "strategy")],
        *[("posting", column, "posting") for column in ("account", "strategy", "asset")],
        *[("balance", column, "balance") for column in ("account", "strategy", "asset")],
        *[
            ("balance_day", column, "balance of a day")
            for column in ("account", "strategy", "asset", "day")
        ],
        *[("lot", column, "lot") for column in ("strategy", "instrument")],
    ],
)
def test_a_text_that_is_none_is_a_finding_and_no_crash(
    path: Path, table: str, column: str, what: str
) -> None:
    one = {"entry": "seq = 6", "posting": "entry = 6 AND leg = 0", "lot": "id = 4"}
    where = one.get(table, "account = 'CASH' AND strategy = 'b'")
    findings = tampered(path, f"UPDATE {table} SET {column} = CAST(x'ff41' AS TEXT) WHERE {where}")
    assert any(one.what == what and "\\xffA" in one.problem for one in findings), findings


def test_a_file_that_breaks_off_or_lacks_a_table_is_a_finding_and_no_crash(path: Path) -> None:
    for statement in ("DROP TABLE lot", "DROP TABLE posting"):
        assert any("cannot be read any further" in one.problem for one in tampered(path, statement))
    connection = apsw.Connection(str(path))
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()
    with path.open("r+b") as file:
        for page in range(2, path.stat().st_size // 4_096):
            file.seek(page * 4_096)
            file.write(b"\xff" * 64)
    assert not verify_file(path).ok


def test_a_book_that_cannot_be_exported_is_a_finding_beside_the_others(path: Path) -> None:
    tampered(path, "UPDATE entry SET payload = '' WHERE seq = 4")
    findings = verify_file(path, 3).findings
    assert {("entry", 4), ("judge", None)} <= {(one.what, one.seq) for one in findings}


@pytest.mark.parametrize("table", ["posting", "balance", "balance_day"])
def test_figures_too_large_to_be_summed_are_a_finding_and_no_crash(path: Path, table: str) -> None:
    findings = tampered(
        path, f"UPDATE {table} SET amount_minor = {2**63 - 1} WHERE account = 'CASH'"
    )
    assert findings
    assert not [one for one in findings if one.what == "file"]


@pytest.mark.parametrize("seq", [1, 4, 5, 8])
def test_an_entry_that_was_taken_out_is_missing_though_the_chain_was_made_anew(
    path: Path, seq: int
) -> None:
    tampered(
        path, f"DELETE FROM posting WHERE entry = {seq}", f"DELETE FROM entry WHERE seq = {seq}"
    )
    chain_anew(path)
    told = [str(one) for one in verify_file(path).findings]
    assert f"entry {seq}: is missing" in told
    assert not [one for one in told if one.startswith("chain")]


def chain_anew(path: Path) -> None:
    connection, head = apsw.Connection(str(path)), GENESIS
    for seq, payload in connection.execute(
        "SELECT seq, payload FROM entry ORDER BY seq"
    ).fetchall():
        head = chain_hash(head, str(payload).encode())
        connection.execute("UPDATE entry SET hash = ? WHERE seq = ?", (head, seq))
    connection.close()


def test_a_gap_as_large_as_can_be_is_one_finding_and_found_at_once(path: Path) -> None:
    findings = tampered(path, f"UPDATE entry SET seq = {2**62} WHERE seq = 9")
    assert f"entry 9: is missing, and all up to {2**62 - 1}" in [str(one) for one in findings]


def test_what_a_running_fund_books_meanwhile_is_not_looked_at(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, check_derived = Store(path, MIGRATIONS), verify._check_derived

    def and_then_one_more(rows: Rows, rebuilt: Any) -> Iterator[Finding]:
        book = schema.load_book(rows, "USD")
        draft = Draft(book, lambda _: None)
        draft.decide(RecordProfit(5), "meanwhile", 1_701_000_000_000_000)
        commit_batch(store, [schema.rows_of(draft)])
        return check_derived(rows, rebuilt)

    monkeypatch.setattr(verify, "_check_derived", and_then_one_more)
    checked = verify_file(path)
    store.close()
    assert (checked.findings, checked.seq) == ((), 9)
    with Reader(path) as reader:
        assert anchor_of(reader).seq == 10


def test_what_was_found_before_a_page_that_cannot_be_read_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Reader):
        def each(self, sql: str, bindings: tuple[Any, ...] = ()) -> Iterator[Any]:
            if bindings and bindings[0] >= 4:
                raise apsw.CorruptError("a page that is none")
            return super().each(sql, bindings)

    monkeypatch.setattr(verify, "PAGE", 4)
    monkeypatch.setattr(verify, "Reader", Failing)
    first, second = tampered(path, "UPDATE entry SET hash = x'00' WHERE seq = 4")
    assert (first.what, first.seq) == ("chain", 4)
    assert "a page that is none" in second.problem


def test_a_book_that_has_taken_the_place_of_the_one_that_was_opened_is_not_verified_for_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    other = Path(shutil.copy(path, tmp_path / "elsewhere" / path.name))
    forged(other, legs=FIVE)
    monkeypatch.chdir(tmp_path)
    with Reader(Path(path.name)) as reader:
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert verify.verify(reader).seq == 9
        tampered(other, "UPDATE entry SET hash = x'00' WHERE seq = 9")
        other.replace(path)
        with pytest.raises(DatabaseError, match="no longer the file"):
            verify.verify(reader)


def test_two_entries_that_changed_places_are_both_found(path: Path) -> None:
    findings = tampered(
        path,
        "UPDATE entry SET seq = 100, key = 'x' WHERE seq = 5",
        "UPDATE entry SET seq = 5 WHERE seq = 6",
        "UPDATE entry SET seq = 6, key = 'key 4' WHERE seq = 100",
    )
    assert {5, 6} <= {one.seq for one in findings if one.what == "entry"}


def test_a_tail_that_was_cut_off_shows_only_through_the_anchor(path: Path) -> None:
    with Reader(path) as reader:
        anchor = anchor_of(reader)
    connection = apsw.Connection(str(path))
    connection.execute("DROP TRIGGER entry_is_never_deleted")
    connection.execute("DROP TRIGGER posting_is_never_deleted")
    for table, column in (("posting", "entry"), ("entry", "seq")):
        connection.execute(f"DELETE FROM {table} WHERE {column} = 9")
    connection.execute(
        "UPDATE balance SET amount_minor = amount_minor - 700000000 "
        "WHERE account = 'CASH' AND strategy = 'a'"
    )
    connection.execute("DELETE FROM balance_day WHERE day = (SELECT max(day) FROM balance_day)")
    connection.execute(
        "UPDATE balance SET amount_minor = amount_minor + 700000000 "
        "WHERE account = 'REALIZED_PNL' AND strategy = 'a'"
    )
    connection.close()
    assert verify_file(path).ok
    (finding,) = verify_file(path, 0, anchor).findings
    assert str(finding) == "anchor at entry 9: is missing: the book ends at entry 8"


def test_a_book_written_anew_shows_through_the_anchor(path: Path) -> None:
    (finding,) = verify_file(path, 0, Anchor(4, "ab" * 32)).findings
    assert (finding.what, finding.seq) == ("anchor", 4)


def test_a_book_that_is_all_wrong_does_not_report_for_ever(tmp_path: Path) -> None:
    connection = open_database(tmp_path / "fund.db", MIGRATIONS)
    rows = [
        (n, f"k{n}", 0, "2026-01-01", "x", None, None, "{}", bytes(32)) for n in range(1, 1_000)
    ]
    connection.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    connection.close()
    assert len(verify_file(tmp_path / "fund.db").findings) == FINDINGS_MAX


@pytest.mark.parametrize("level", [-1, 4, 1.5, True, "2", None])
def test_a_level_there_is_not_is_refused(path: Path, level: Any) -> None:
    with pytest.raises(ConfigError, match="level"):
        verify_file(path, level)


def test_a_file_that_holds_no_book_is_refused(tmp_path: Path) -> None:
    make: list[Callable[[Path], object]] = [
        lambda p: None,
        lambda p: p.write_bytes(b""),
        lambda p: p.write_text("no"),
    ]
    for number, prepare in enumerate(make):
        prepare(tmp_path / str(number))
        with pytest.raises(DatabaseError):
            verify_file(tmp_path / str(number))


def test_a_page_has_no_more_entries_or_bytes_than_it_may(path: Path) -> None:
    with Reader(path) as reader:
        page = verify._entries_after(reader, 2)
    assert 1 <= len(page) <= verify.PAGE
    assert sum(len(payload) for _, payload, _ in page[:-1]) < verify.PAGE_BYTES
    assert [seq for seq, _, _ in page] == list(range(3, 3 + len(page)))
