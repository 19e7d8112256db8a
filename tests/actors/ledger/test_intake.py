"""The intake by plain calls: keys, and requests that book all or none."""

from __future__ import annotations

from typing import Any

import pytest

from fundops.actors.ledger.book import RUN, Book, Draft
from fundops.actors.ledger.intake import (
    Known,
    Write,
    decide_run,
    keys_to_look_up,
    work_of,
)
from fundops.runtime import Rejected
from fundops.wire.errors import BadField, IdempotencyConflict, InsufficientFunds
from fundops.wire.ledger import (
    Correct,
    Deposit,
    Leg,
    Mark,
    OpenPosition,
    Post,
    PostMany,
    RecordProfit,
    Reverse,
    Withdraw,
)

NOW_US = 1_700_000_000_000_000


def new_draft() -> Draft:
    return Draft(Book("USD"), lambda _: None)


def decide(draft: Draft, known: Known, *requests: Write) -> list[Any]:
    return list(decide_run(requests, draft, known, lambda: NOW_US))


# -- keys


def test_a_known_key_gives_its_entry_again() -> None:
    draft, known = new_draft(), Known()
    assert decide(draft, known, Deposit(5, key="k")) == [(1, "k", False)]
    assert decide(draft, known, Deposit("5.0", key="k")) == [(1, "k", True)]
    assert len(draft.entries) == 1


def test_a_known_key_with_other_content_is_refused() -> None:
    draft, known = new_draft(), Known()
    _, refusal = decide(draft, known, Deposit(5, key="k"), Deposit(6, key="k"))
    assert isinstance(refusal, IdempotencyConflict)
    assert (refusal.key, refusal.seq) == ("k", 1)


def test_a_correction_makes_two_keys_known() -> None:
    draft, known = new_draft(), Known()
    decide(draft, known, Deposit(5, key="k"), Correct(1, Deposit(6), "typing error", key="c"))
    assert set(known) == {"k", "c", "c:reversal"}


@pytest.mark.parametrize("key", ["fill:1", "settlement:m:0", "cash_event:c"])
def test_a_caller_may_not_use_the_keys_of_reports(key: str) -> None:
    for requests in ([Deposit(5, key=key)], [RecordProfit(1, key=key), RecordProfit(2)]):
        refusal, *_ = decide(new_draft(), Known(), *requests)
        assert isinstance(refusal, BadField)


def test_only_keys_that_may_be_durable_are_looked_up() -> None:
    events: list[Any] = [
        Deposit(1, key="0005"),
        Deposit(1, key="0007"),  # minted after the newest, so it is new
        Deposit(1, key="mine"),
        Deposit(1, key="k" * 129),
        Deposit(1, key=5),  # type: ignore[arg-type]
        Deposit(1),
        Correct(1, Deposit(2), "typing error", key="c"),
    ]
    assert keys_to_look_up(events, "0006") == ["0005", "mine", "c", "c:reversal"]


# -- all or none


def test_a_refused_event_drops_those_before_it() -> None:
    draft, known = new_draft(), Known()
    many = PostMany((Deposit(5, key="a"), Withdraw(6, key="b")))
    (refusal,) = decide(draft, known, many)
    assert isinstance(refusal, InsufficientFunds)
    assert str(refusal).startswith("entries[1]: ")
    assert (draft.entries, draft.balances, known) == ([], {}, {})


def test_a_refused_request_leaves_its_neighbours_alone() -> None:
    draft = new_draft()
    first, refusal, last = decide(draft, Known(), Deposit(5), Withdraw(6), Withdraw(4))
    assert isinstance(refusal, Rejected)
    assert (first[0], last[0], draft.total("CASH")) == (1, 2, 10**8)


def test_moves_of_a_run_are_booked_once_per_key() -> None:
    draft, known = new_draft(), Known()
    moves = [RecordProfit(number, key=f"k{number}") for number in (1, 2, 3)]
    assert decide(draft, known, *moves) == [(1, "k1", False), (2, "k2", False), (3, "k3", False)]
    assert decide(draft, known, *moves) == [(1, "k1", True), (2, "k2", True), (3, "k3", True)]


# -- how much work it is


def test_work_counts_entries_parts_and_open_lots() -> None:
    draft = new_draft()
    decide(draft, Known(), OpenPosition("X", 1, 1), OpenPosition("X", 1, 1))
    book = Book("USD")
    book.apply(draft)
    assert work_of([Deposit(1), RecordProfit(1)], book) == 2
    assert work_of([Post((Leg("CASH", 1), Leg("EXTERNAL", -1)))], book) == 1 + 2
    assert work_of([Mark("X", 5), Mark("X", 6)], book) == 2 + 2 + 3  # as if the first opened a lot
    assert work_of([Reverse(1, "wrong")], book) == 1 + RUN
    assert work_of([Mark(["X"], 5)], book) == 1  # type: ignore[arg-type]
