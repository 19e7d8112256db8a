"""The canonical form of a request: equal requests, and the copy that an entry keeps."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from fundops.actors.ledger.book import Book, Draft
from fundops.actors.ledger.entry import Entry, canonical, request_of
from fundops.wire.ledger import (
    BookSettlement,
    ChargeManagementFee,
    ChargePerformanceFee,
    Deposit,
    Event,
    Income,
    Leg,
    OpenPosition,
    PayFees,
    Post,
    RecordLoss,
    RecordProfit,
    Reverse,
    Settle,
    Withdraw,
)

DAY_1_US = 1_700_000_000_000_000


def entry_of(*events: Event) -> Entry:
    """The entry of the last of these events, in a book that holds 100."""
    draft = Draft(Book("USD"), lambda _: None)
    entries = [
        draft.decide(event, f"key {number}", DAY_1_US)
        for number, event in enumerate([Deposit(100), *events])
    ]
    return entries[-1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Deposit(5), Deposit("5.0", key="k")),
        (Deposit(5), Deposit(Decimal("5.00000000"))),
        (Deposit(0.1), Deposit("0.1")),
        (
            Post((Leg("CASH", 5), Leg("EXTERNAL", -5))),
            Post((Leg("CASH", "5"), Leg("EXTERNAL", -5.0))),
        ),
    ],
)
def test_equal_amounts_are_the_same_request_in_any_form(one: Event, other: Event) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Deposit(5), Deposit(6)),
        (Deposit(5), Withdraw(5)),
        (Deposit(5), Deposit(5, strategy="mm")),
        (Deposit(5), Deposit(5, at_us=DAY_1_US)),
        (Deposit(5, at_us=5), Deposit(5, at_us=DAY_1_US)),
        (Deposit(5, memo="5"), Deposit(5, memo="5.0")),
        (Deposit(5, strategy="1"), Deposit(5, strategy="01")),
        (Settle("100", 5), Settle("1e2", 5)),
        (OpenPosition("7", 1, 5), OpenPosition("7.0", 1, 5)),
        (Reverse(1, "1"), Reverse(1, "1.0")),
        (Post((Leg("CASH", 5, "1"),)), Post((Leg("CASH", 5, "1.0"),))),
        (Post((Leg("CASH", 5, None, "1"),)), Post((Leg("CASH", 5, None, "1.0"),))),
    ],
)
def test_any_other_difference_makes_another_request(one: Event, other: Event) -> None:
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize(
    "kind",
    [
        Deposit,
        Withdraw,
        PayFees,
        RecordProfit,
        RecordLoss,
        ChargeManagementFee,
        ChargePerformanceFee,
    ],
)
def test_a_self_describing_entry_keeps_no_copy_of_its_request(kind: Any) -> None:
    event = kind(0.1, strategy="é", memo='"', at_us=DAY_1_US)
    owed = [ChargeManagementFee(1)] if kind is PayFees else []
    entry = entry_of(*owed, event)
    assert (entry.request, request_of(entry)) == ("", canonical(event))
    # As it was stored before.
    assert request_of(msgspec.structs.replace(entry, request="a text")) == "a text"


@pytest.mark.parametrize(
    "event", [Income(5, instrument="X"), Post((Leg("CASH", 5), Leg("EXTERNAL", -5)))]
)
def test_any_other_entry_keeps_its_request(event: Event) -> None:
    entry = entry_of(event)
    assert entry.request == request_of(entry) == canonical(event)


def test_what_was_paid_before_is_compared_by_value() -> None:
    forms = {
        canonical(BookSettlement("M", 1, 2, paid=paid, strategy="s"))
        for paid in (Decimal("0.00000178"), 0.00000178, "0.00000178")
    }
    assert len(forms) == 1
    # As entries of earlier versions have it.
    assert '"paid":"0.00000178"' in forms.pop()
    assert '"paid":"40.00000000"' in canonical(BookSettlement("M", 1, 2, paid=40, strategy="s"))
