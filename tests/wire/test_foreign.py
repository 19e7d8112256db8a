"""Values of foreign classes: read once, whatever their methods do."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from fundops.runtime import shown
from fundops.wire.foreign import field_of, fitted, plain_number, plain_text


class Text(str):
    """A subclass whose own methods are of no use."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __len__(self) -> int:
        raise RuntimeError("no length")


class Liar:
    """Says that it is a text, and raises at all else."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return str

    def __getattr__(self, name: str) -> Any:
        raise SystemExit(3)

    def __float__(self) -> float:
        raise SystemExit(3)

    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class Array:
    """As a numpy array of one element: it converts to a number, and is none."""

    def __len__(self) -> int:
        return 1

    def __float__(self) -> float:
        return 1.5


class Half:
    """As numpy.float16."""

    def __float__(self) -> float:
        return 0.5


class Shown:
    def __repr__(self) -> str:
        return Text("a\ud800")


def test_a_text_is_plain_or_none() -> None:
    plain = plain_text(Text("a"))
    assert (type(plain), plain) == (str, "a")
    assert plain_text(Liar()) is plain_text(b"a") is plain_text(None) is None


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (True, None),
        ("1", None),
        (Text("1"), None),
        (Array(), None),
        (Liar(), None),
        (None, None),
        (Half(), 0.5),
        (10**30, 10**30),
        (Decimal(1), Decimal(1)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_number_is_exact_or_none(value: Any, number: Any) -> None:
    own = plain_number(value)
    assert (type(own), own) == (type(number), number)


def test_any_value_can_be_shown_stored_and_read() -> None:
    assert fitted(Liar()) == shown(Liar()) == "some Liar"
    assert fitted(Text("a\ud800b")) == "a?b"
    assert fitted(10**5_000) == shown(10**5_000) == "some int"
    assert shown(Shown()) == "a\\ud800"
    assert field_of(Liar(), "name") is field_of(5, "name") is None
