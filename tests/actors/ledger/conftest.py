"""A small book with every odd thing that a journal or a book for other tools must carry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fundops.actors.ledger.book import Book, Draft
from fundops.actors.ledger.schema import find_original, load_book, rows_of
from fundops.actors.persistence import Reader, Store, commit_batch
from fundops.file.database import MIGRATIONS
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


def write(path: Path, *events: Event, meta: bool = True) -> Book:
    """Each event durable by itself, under the keys key-1, key-2, ..."""
    store = Store(path, MIGRATIONS)
    if meta:
        store.connection.execute(
            "INSERT INTO meta VALUES ('name', 'alpha'), ('currency', 'USD'), ('uuid', 'u-1')"
        )
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
def story() -> tuple[Event, ...]:
    """The events of the book that `reader` reads; the memo of the first is the odd one."""
    return STORY


@pytest.fixture(name="write")
def writer() -> Callable[..., Book]:
    """Books events in a database, under the keys key-1, key-2, ... by their numbers."""
    return write


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader of the story, in fund.db."""
    write(tmp_path / "fund.db", *STORY)
    with Reader(tmp_path / "fund.db") as story_reader:
        yield story_reader
