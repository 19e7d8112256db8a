"""Drafts on a book by plain calls: forks, dropped drafts, and moves decided together."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundops.actors.ledger.book import Book, Draft
from fundops.actors.ledger.entry import Close, Lot
from fundops.actors.ledger.events import are_moves
from fundops.actors.ledger.fields import AHEAD_MAX_US
from fundops.runtime import DAY_US, Rejected
from fundops.wire.errors import AlreadyReversed, InsufficientFunds
from fundops.wire.ledger import (
    ChargeManagementFee,
    ChargePerformanceFee,
    ClosePosition,
    Deposit,
    Event,
    OpenPosition,
    PayFees,
    Post,
    RecordLoss,
    RecordProfit,
    Reverse,
    Withdraw,
)
from fundops.wire.money import MINOR_MAX

UNIT = 10**8
DAY_1_US = 1_700_000_000_000_000


def new_draft(book: Book) -> Draft:
    return Draft(book, lambda _: None)


def book_of(*events: Event) -> Book:
    """A book with these events, each durable by itself."""
    book = Book("USD")
    for event in events:
        draft = new_draft(book)
        draft.decide(event, f"key-{book.seq + 1}", DAY_1_US)
        book.apply(draft)
    return book


# -- drafts


def test_a_draft_sees_its_own_entries_and_the_book_does_not() -> None:
    book = book_of(Deposit(100))
    draft = new_draft(book)
    draft.decide(Withdraw(60), "a", DAY_1_US)
    with pytest.raises(InsufficientFunds):
        draft.decide(Withdraw(60), "b", DAY_1_US)
    assert book.total("CASH") == 100 * UNIT
    book.apply(draft)
    assert book.total("CASH") == 40 * UNIT


def test_a_dropped_fork_changes_nothing_and_an_adopted_one_everything() -> None:
    draft = new_draft(book_of(Deposit(100)))
    fork = draft.fork()
    fork.decide(OpenPosition("X", 1, 10), "a", DAY_1_US)
    fork.decide(RecordProfit(1), "b", DAY_1_US)
    assert draft.entries == []
    assert draft.open_lots((None, "X")) == {}
    draft.adopt(fork)
    assert [entry.seq for entry in draft.entries] == [2, 3]
    assert draft.open_lots((None, "X")) == {2: Lot(2, UNIT, 10 * UNIT, 0)}


def test_a_draft_reverses_what_it_decided_itself_once() -> None:
    draft = new_draft(Book("USD"))
    draft.decide(Deposit(100), "a", DAY_1_US)
    fork = draft.fork()
    fork.decide(Reverse(1, "wrong"), "b", DAY_1_US)
    with pytest.raises(AlreadyReversed):
        fork.decide(Reverse(1, "wrong"), "c", DAY_1_US)
    draft.adopt(fork)
    with pytest.raises(AlreadyReversed):
        draft.decide(Reverse(1, "wrong"), "d", DAY_1_US)


def test_a_dropped_draft_leaves_the_lots_of_its_book() -> None:
    book = book_of(OpenPosition("X", 3, 30), OpenPosition("X", 2, 30))
    before = {key: dict(lots) for key, lots in book.lots.items()}
    draft = new_draft(book)
    draft.decide(ClosePosition("X", 4, 50), "a", DAY_1_US)
    fork = draft.fork()
    fork.decide(OpenPosition("X", 1, 5), "b", DAY_1_US)
    assert [lot.id for lot in draft.open_lots((None, "X")).values()] == [2]
    assert [lot.id for lot in fork.open_lots((None, "X")).values()] == [2, 4]
    assert book.lots == before


# -- moves, decided column by column

MOVES = (RecordProfit, RecordLoss, ChargeManagementFee, ChargePerformanceFee)
CLOSED = "2023-11-13"
right: dict[str, st.SearchStrategy[Any]] = {
    "amount": st.sampled_from([1, 5, "2.5", Decimal("0.1"), 0.1, 1 / 3]),
    "key": st.none(),
    "strategy": st.sampled_from([None, "a", "b"]),
    "memo": st.sampled_from(["", "why"]),
    "at_us": st.sampled_from([None, DAY_1_US, DAY_1_US + AHEAD_MAX_US]),
}
wrong: dict[str, st.SearchStrategy[Any]] = {
    "amount": st.sampled_from(
        [0, -1, True, None, "x", float("nan"), "0.000000001", MINOR_MAX // 10**8, [5]]
    ),
    "key": st.sampled_from(["", "k" * 129, "\ud800", 5, ["k"]]),
    "strategy": st.sampled_from(["", "s" * 129, "\ud800", 5, ["a"]]),
    "memo": st.sampled_from(["m" * 1_025, "\ud800", None, 5, []]),
    "at_us": st.sampled_from(
        [DAY_1_US - DAY_US, DAY_1_US + DAY_US, 0, -1, 2**63, True, float(DAY_1_US), "now"]
    ),
}


@st.composite
def moves_of(draw: st.DrawFn, *, with_wrong_ones: bool) -> list[tuple[Any, Any]]:
    """Events, and the keys to decide them under."""
    moves = []
    for number in range(draw(st.integers(1, 6))):
        fields = {name: draw(values) for name, values in right.items()}
        if with_wrong_ones and draw(st.integers(0, 3)) == 0:
            field = draw(st.sampled_from(sorted(wrong)))
            fields[field] = draw(wrong[field])
        key = f"key {number}" if fields["key"] is None else fields["key"]
        moves.append((draw(st.sampled_from(MOVES))(**fields), key))
    return moves


def draft_on_a_closed_book(room: int = MINOR_MAX) -> Draft:
    """Each balance may move by so much before it is full."""
    full = MINOR_MAX - room
    balances = {("CASH", None, "USD"): full, ("REALIZED_PNL", "a", "USD"): -full}
    return Draft(Book("USD", balances, seq=1, closes=[Close(CLOSED, 1)]), lambda _: None)


def one_by_one(draft: Draft, moves: list[tuple[Any, Any]]) -> Draft | None:
    try:
        for event, key in moves:
            draft.decide(event, key, DAY_1_US)
    except Rejected:
        return None
    return draft


@given(moves_of(with_wrong_ones=True), st.sampled_from([MINOR_MAX, 10 * UNIT, 3 * UNIT]))
@settings(max_examples=300)
def test_moves_are_decided_together_as_they_are_one_by_one(
    moves: list[tuple[Any, Any]], room: int
) -> None:
    """Or not at all, and then nothing is left of them."""
    together, expected = (
        draft_on_a_closed_book(room),
        one_by_one(draft_on_a_closed_book(room), moves),
    )
    entries = together.decide_moves(
        [event for event, _ in moves], [key for _, key in moves], DAY_1_US
    )
    if entries is None:
        assert (together.entries, together.balances, together.totals, together.seq) == (
            [],
            {},
            {},
            1,
        )
        return
    assert expected is not None
    assert entries == together.entries
    assert together.sealed == expected.sealed
    assert (together.balances, together.totals) == (expected.balances, expected.totals)
    assert (together.seq, together.moved()) == (expected.seq, expected.moved())


@given(moves_of(with_wrong_ones=False))
def test_moves_with_plain_fields_are_decided_together(moves: list[tuple[Any, Any]]) -> None:
    events, keys = [event for event, _ in moves], [key for _, key in moves]
    assert are_moves(events)
    assert draft_on_a_closed_book().decide_moves(events, keys, DAY_1_US) is not None


def test_events_other_than_moves_are_told_apart() -> None:
    for event in (Deposit(5), Withdraw(5), PayFees(5), Post(()), Reverse(1, "")):
        assert not are_moves([RecordProfit(5), event])
