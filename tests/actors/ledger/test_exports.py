"""The common promises of all exports: their end, their memory, and the entry named in a fault."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from fundops.actors.ledger import books, journal
from fundops.actors.ledger.book import Book, Draft
from fundops.actors.ledger.journal import import_jsonl
from fundops.actors.ledger.schema import rows_of
from fundops.actors.persistence import Reader, Rows, Store, commit_batch
from fundops.file.database import MIGRATIONS
from fundops.wire.errors import JournalDamaged
from fundops.wire.ledger import Deposit, Event

NOW_US = 1_700_000_000_000_000
FORMATS = {
    "jsonl": journal.jsonl,
    "csv": journal.csv,
    "beancount": books.beancount,
    "ledger": books.ledger,
}
Write = Callable[..., Book]


def text(rows: Rows, form: str) -> str:
    return "".join(FORMATS[form](rows))


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_ends_with_the_entry_that_was_the_last_when_it_began(
    form: str, tmp_path: Path, write: Write, story: tuple[Event, ...]
) -> None:
    write(tmp_path / "fund.db", *story)
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
    for module in (journal, books):
        monkeypatch.setattr(module, "PAGE", 10)
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
def test_an_export_names_the_entry_whose_payload_is_none(
    form: str, tmp_path: Path, write: Write, story: tuple[Event, ...]
) -> None:
    write(tmp_path / "fund.db", *story)
    connection = apsw.Connection(str(tmp_path / "fund.db"))
    connection.execute("DROP TRIGGER entry_is_for_ever")
    connection.execute("UPDATE entry SET payload = '{' WHERE seq = 3")
    connection.close()
    with (
        Reader(tmp_path / "fund.db") as reader,
        pytest.raises(JournalDamaged, match="entry 3: its payload") as refused,
    ):
        text(reader, form)
    assert refused.value.seq == 3


def test_an_empty_journal_is_exported_as_nothing_but_what_goes_before(
    tmp_path: Path, write: Write
) -> None:
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
        assert (
            text(reader, "csv")
            == "seq,day,recorded,kind,key,strategy,account,asset,amount,memo,reverses\r\n"
        )
        assert (
            text(reader, "beancount")
            == 'option "title" ""\noption "inferred_tolerance_default" "*:0"\n'
        )
        assert text(reader, "ledger").startswith('; The journal of ""\n\ntag key\n')
        assert list(import_jsonl(journal.jsonl(reader))) == []
