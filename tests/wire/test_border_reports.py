"""The border for reports: exact types come out, or a problem that names the field."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from fundops.wire.border_reports import (
    Problem,
    checked_cash_event,
    checked_fill,
    checked_settlement,
    content_of,
    cursor_of,
    id_of,
    identity_of,
)
from fundops.wire.controller import CashEvent, Fill, Settlement

NOW_US = 1_700_000_000_000_000
FILL = Fill("1", "s", "X", Decimal(1), Decimal(10), Decimal(0), NOW_US, "7")


class Index:
    """As numpy's integers: a number by its `__index__`."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Floating:
    """As numpy's float32: a number by its `__float__`."""

    def __float__(self) -> float:
        return 0.5


class Double(float):
    """As numpy's float64: a subclass, which cannot be encoded."""


class Text(str):
    """As numpy's text: a subclass, which cannot be encoded."""


class bool_:  # the name that numpy's truth values have
    def __index__(self) -> int:
        return 1


class Hostile:
    def __float__(self) -> float:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")


def fill(**changes: Any) -> Fill | Problem:
    return checked_fill(msgspec.structs.replace(FILL, **changes), NOW_US)


@pytest.mark.parametrize(
    ("given", "exact"),
    [
        (5, Decimal(5)),
        (Index(5), Decimal(5)),
        (Floating(), Decimal("0.5")),
        (Double(0.1), Decimal("0.1")),
        (3.1499999999999915, Decimal("3.1499999999999915")),
        (Decimal("1e-20"), Decimal("1e-20")),
        (10**30, Decimal(10**30)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_number_of_any_kind_becomes_an_exact_decimal(given: Any, exact: Decimal) -> None:
    taken = fill(price=given)
    assert isinstance(taken, Fill)
    assert type(taken.price) is Decimal
    assert taken.price == exact


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("5", "is text, not a number"),
        (b"5", "is text, not a number"),
        (True, "is a truth value, not a number"),
        (bool_(), "is a truth value, not a number"),
        (None, "is not a number"),
        (float("nan"), "is not finite"),
        (Decimal("sNaN"), "is not finite"),
        (Decimal("1e50"), "is too large"),
        (10**50, "is too large"),
        (Decimal("1." + "1" * 200), "has more than 128 digits"),
        (Decimal("1e-99999999999"), "has more than 128 decimals"),
        (Decimal("0e-99999999999"), "has more than 128 decimals"),
        (1e-200, "has more than 128 decimals"),
        (Hostile(), "fee: some Hostile is not a number"),
        ([1], "is not a number"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_number_is_named(given: Any, problem: str) -> None:
    refused = fill(fee=given)
    assert isinstance(refused, Problem)
    assert problem in str(refused)


@pytest.mark.parametrize("field", ["id", "strategy", "instrument", "cursor", "fee_asset"])
@pytest.mark.parametrize(
    "bad", [5, "x" * 129, "\ud800", b"x", Hostile()], ids=lambda bad: type(bad).__name__
)
def test_a_text_that_cannot_be_stored_is_named(field: str, bad: Any) -> None:
    refused = fill(**{field: bad})
    assert isinstance(refused, Problem)
    assert refused.field == field


def test_texts_become_plain_texts() -> None:
    taken = fill(id=Text("é" * 128), strategy=Text("s"))
    assert isinstance(taken, Fill)
    assert (type(taken.id), type(taken.strategy)) == (str, str)


@pytest.mark.parametrize(
    ("at_us", "problem"),
    [
        (NOW_US // 1_000, "it looks like milliseconds"),
        (NOW_US // 1_000_000, "it looks like seconds"),
        (NOW_US * 1_000, "it looks like nanoseconds"),
        (NOW_US + 300_000_001, "more than 5 minutes ahead"),
        (0, "before the year 1990"),
        (-5, "before the year 1990"),
        (NOW_US + 0.5, "is not a whole number"),
        ("now", "is text"),
        (True, "is a truth value"),
    ],
)
def test_an_instant_that_cannot_be_is_named(at_us: Any, problem: str) -> None:
    refused = fill(at_us=at_us)
    assert isinstance(refused, Problem)
    assert problem in str(refused)


def test_whole_numbers_of_any_kind_become_ints() -> None:
    taken = fill(at_us=float(NOW_US), revision=Index(3))
    assert isinstance(taken, Fill)
    assert (type(taken.at_us), taken.at_us) == (int, NOW_US)
    assert (type(taken.revision), taken.revision) == (int, 3)


@pytest.mark.parametrize("revision", [-1, 10**18 + 1, 0.5, None, "1"])
def test_a_revision_out_of_bounds_is_named(revision: Any) -> None:
    refused = fill(revision=revision)
    assert isinstance(refused, Problem)
    assert refused.field == "revision"


def test_a_report_of_another_type_is_named() -> None:
    for report in (None, "a fill", Settlement("a", "M", "s", Decimal(1), Decimal(1)), Hostile()):
        refused = checked_fill(report, NOW_US)
        assert isinstance(refused, Problem)
        assert refused.field == "report"


def test_a_fund_that_refuses_floats_refuses_foreign_ones_too() -> None:
    for given in (0.5, Double(0.5), Floating()):
        refused = checked_fill(msgspec.structs.replace(FILL, price=given), NOW_US, floats="refuse")
        assert isinstance(refused, Problem)
        assert "which this fund refuses" in str(refused)
    whole = checked_fill(msgspec.structs.replace(FILL, price=Index(5)), NOW_US, floats="refuse")
    assert isinstance(whole, Fill)


def test_settlements_and_cash_events_are_checked_alike() -> None:
    settlement = Settlement("a", "M", "s", Double(5), Index(8))  # type: ignore[arg-type]
    taken = checked_settlement(settlement)
    assert taken == Settlement("a", "M", "s", Decimal(5), Decimal(8))
    event = CashEvent("a", "fee", Index(-5), NOW_US)  # type: ignore[arg-type]
    assert checked_cash_event(event, NOW_US) == CashEvent("a", "fee", Decimal(-5), NOW_US)
    odd: Any = msgspec.structs.replace(event, kind="coupon")
    refused = checked_cash_event(odd, NOW_US)
    assert isinstance(refused, Problem)
    assert "'coupon' is not one of funding, " in str(refused)


def test_content_ignores_the_cursor_and_survives_anything() -> None:
    assert content_of(FILL) == content_of(msgspec.structs.replace(FILL, cursor="8"))
    assert content_of(FILL) != content_of(msgspec.structs.replace(FILL, fee=Decimal(1)))
    long = msgspec.structs.replace(FILL, id=400 * "x")
    longer = msgspec.structs.replace(FILL, id=400 * "x" + "y")
    assert content_of(long) != content_of(longer), "behind what is shown of them"
    assert len(content_of(long)) == len(content_of(longer)) < 400
    for odd in (Hostile(), "\ud800", msgspec.structs.replace(FILL, id="\ud800", fee=Hostile())):
        assert content_of(odd).encode()
        assert id_of(odd).encode()
    assert cursor_of(FILL) == "7"
    assert [cursor_of(odd) for odd in (None, "7", msgspec.structs.replace(FILL, cursor=7))] == [
        "",
        "",
        "",
    ]


def test_the_identity_is_read_whatever_else_is_wrong() -> None:
    odd = msgspec.structs.replace(FILL, fee=None, at_us="now")
    assert identity_of(odd, "strategy", "id") == (("s", "1"), 0)
    assert identity_of(msgspec.structs.replace(FILL, id=7), "id") is None
    assert identity_of(None, "id") is None
