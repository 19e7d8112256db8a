"""The border for reports of the engine: fills, settlements, cash events, the broker's statement.

A report may hold anything that its sender put into it. Here it becomes a report of exact types of
our own (`str`, `int`, `Decimal`), or a `Problem` that names the field. numpy scalars are numbers,
by their ``__index__`` or ``__float__``; text is not. Every digit of a figure is kept. Nothing in
this file raises: one bad report must never stop the reports beside it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from hashlib import sha256
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from ..runtime import FOREIGN_ERRORS, shown
from .controller import CashEvent, CashKind, Fill, Settlement
from .errors import AmountError
from .foreign import field_of, fitted, plain_number, plain_text
from .instants import fault_of
from .ledger import Statement
from .money import exact_decimal, rounded_decimal

__all__ = [
    "TEXT_MAX",
    "Problem",
    "checked_cash_event",
    "checked_fill",
    "checked_settlement",
    "checked_statement",
    "content_of",
    "cursor_of",
    "id_of",
    "identity_of",
]

Floats = Literal["round", "refuse"]
R = TypeVar("R")

TEXT_MAX = 128  # characters of an id, a name, an asset or a cursor
REVISION_MAX = 10**18
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class Problem(NamedTuple):
    """The reason why a report cannot be taken: the field, and its fault."""

    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.field}: {self.text}"


class _Wrong(Exception):
    def __init__(self, field: str, text: str) -> None:
        self.problem = Problem(field, text)


def checked_fill(report: object, now_us: int, *, floats: Floats = "round") -> Fill | Problem:
    """The fill in exact types. `floats` is "round", or "refuse" for a fund that takes no floats."""
    return _checked(report, Fill, lambda fill: _fill(fill, now_us, floats))


def checked_settlement(report: object, *, floats: Floats = "round") -> Settlement | Problem:
    """The settlement in exact types; `floats` as in `checked_fill`."""
    return _checked(report, Settlement, lambda settlement: _settlement(settlement, floats))


def checked_cash_event(
    report: object, now_us: int, *, floats: Floats = "round"
) -> CashEvent | Problem:
    """The cash event in exact types; `floats` as in `checked_fill`."""
    return _checked(report, CashEvent, lambda event: _cash_event(event, now_us, floats))


def checked_statement(report: object) -> Statement | Problem:
    """The broker's statement in exact types, its figures rounded to the scale of the books."""
    return _checked(report, Statement, _statement)


def cursor_of(report: object) -> str:
    """The report's cursor; an empty text when it has none, or one that cannot be stored."""
    cursor = plain_text(field_of(report, "cursor")) if _is_report(report) else None
    return cursor if cursor is not None and _is_storable(cursor) else ""


def id_of(report: object) -> str:
    """The report's id for a person to read, of any type; at most 128 characters."""
    value = field_of(report, "id") if _is_report(report) else report
    text = plain_text(value)
    return fitted(_shown(value) if text is None else text, TEXT_MAX)


def identity_of(report: object, *fields: str) -> tuple[tuple[str, ...], int] | None:
    """These texts of a report and its revision; None when one of them is wrong.

    The other fields are not looked at.
    """
    try:
        texts = tuple(_text(field, getattr(report, field)) for field in fields)
        return texts, _revision(getattr(report, "revision", 0))
    except FOREIGN_ERRORS:
        return None


def content_of(report: object) -> str:
    """The content of the report as text, without its cursor.

    Two reports with equal texts have the same content. A changed text means that the sender has
    changed its report.
    """
    if not _is_report(report):
        return _told(report)
    kind: Any = type(report)
    fields = [name for name in kind.__struct_fields__ if name != "cursor"]
    told = ", ".join(f"{name}={_told(field_of(report, name))}" for name in fields)
    return f"{kind.__name__}({told})"


def _shown(value: object, most: int = TEXT_MAX) -> str:
    """The value as text, without the address of an object: the same report must give the same
    text each time it is read, and its objects may be made anew.
    """
    return _ADDRESS.sub("", shown(value, most))


def _told(value: object) -> str:
    """As `_shown`. A text that is cut ends with a hash of the whole, since two that differ behind
    the cut are two.
    """
    whole = _shown(value, sys.maxsize)
    if len(whole) <= TEXT_MAX:
        return whole
    return f"{whole[:TEXT_MAX]}... ({sha256(whole.encode()).hexdigest()[:16]})"


# -- one kind each


def _fill(fill: Fill, now_us: int, floats: Floats) -> Fill:
    return Fill(
        id=_text("id", fill.id),
        strategy=_text("strategy", fill.strategy),
        instrument=_text("instrument", fill.instrument),
        quantity=_number("quantity", fill.quantity, floats),
        price=_number("price", fill.price, floats),
        fee=_number("fee", fill.fee, floats),
        at_us=_instant(fill.at_us, now_us),
        cursor=_cursor(fill.cursor),
        fee_asset=_text_or_none("fee_asset", fill.fee_asset),
        revision=_revision(fill.revision),
    )


def _settlement(settlement: Settlement, floats: Floats) -> Settlement:
    return Settlement(
        id=_text("id", settlement.id),
        market=_text("market", settlement.market),
        strategy=_text("strategy", settlement.strategy),
        cost=_number("cost", settlement.cost, floats),
        payoff=_number("payoff", settlement.payoff, floats),
        revision=_revision(settlement.revision),
        cursor=_cursor(settlement.cursor),
    )


def _cash_event(event: CashEvent, now_us: int, floats: Floats) -> CashEvent:
    kind: Any = _text("kind", event.kind)
    if kind not in get_args(CashKind):
        raise _Wrong("kind", f"{shown(kind)} is not one of {', '.join(get_args(CashKind))}")
    amount = _number("amount", event.amount, floats)
    if (kind == "deposit" and amount < 0) or (kind == "withdrawal" and amount > 0):
        raise _Wrong("amount", f"{amount} is not a {kind}: what comes into CASH is positive")
    return CashEvent(
        id=_text("id", event.id),
        kind=kind,
        amount=amount,
        at_us=_instant(event.at_us, now_us),
        asset=_text_or_none("asset", event.asset),
        strategy=_text_or_none("strategy", event.strategy),
        instrument=_text_or_none("instrument", event.instrument),
        cursor=_cursor(event.cursor),
    )


def _statement(statement: Statement) -> Statement:
    cash, held = statement.cash, statement.positions
    if not (held is None or isinstance(held, Mapping)):
        raise _Wrong("positions", f"{shown(held)} is not a mapping of quantities")
    return Statement(
        _day(statement.day),
        None if cash is None else rounded_decimal(_number("cash", cash, "round")),
        None
        if held is None
        else {
            _text("positions", instrument): rounded_decimal(
                _number(f"positions of {shown(instrument)}", quantity, "round")
            )
            for instrument, quantity in held.items()
        },
    )


def _checked(report: object, kind: type[R], convert: Callable[[R], R]) -> R | Problem:
    if not issubclass(type(report), kind):
        return Problem("report", f"{shown(report)} is not a {kind.__name__}")
    try:
        return convert(report)  # type: ignore[arg-type]
    except _Wrong as wrong:
        return wrong.problem
    except FOREIGN_ERRORS as error:
        return Problem("report", f"it cannot be read: {type(error).__name__}")


def _is_report(value: object) -> bool:
    return issubclass(type(value), Fill | Settlement | CashEvent)


# -- the fields


def _is_storable(value: str) -> bool:
    """Whether a text has a length that is allowed, and can be encoded as UTF-8."""
    return 1 <= len(value) <= TEXT_MAX and (
        value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
    )


def _text(field: str, value: object) -> str:
    text = plain_text(value)
    if text is None:
        raise _Wrong(field, f"{_shown(value)} is not a text")
    if not _is_storable(text):
        raise _Wrong(field, f"{shown(text)} is not a valid text of 1 to {TEXT_MAX} characters")
    return text


def _day(value: object) -> str:
    text = _text("day", value)
    try:
        if date.fromisoformat(text).isoformat() == text:
            return text
    except ValueError:
        pass
    raise _Wrong("day", f"{shown(value)} is not a date as YYYY-MM-DD")


def _text_or_none(field: str, value: object) -> str | None:
    return None if value is None else _text(field, value)


def _cursor(value: object) -> str:
    return "" if plain_text(value) == "" else _text("cursor", value)


def _plain_number(field: str, value: Any) -> Decimal | int | float:
    """The number as one of three exact types."""
    number = plain_number(value)
    if number is not None:
        return number
    if issubclass(type(value), str | bytes):
        raise _Wrong(field, f"{shown(value)} is text, not a number")
    if type(value).__name__.startswith("bool"):
        raise _Wrong(field, f"{shown(value)} is a truth value, not a number")
    raise _Wrong(field, f"{_shown(value)} is not a number")


def _number(field: str, value: object, floats: Floats) -> Decimal:
    try:
        return exact_decimal(_plain_number(field, value), field, floats=floats)
    except AmountError as wrong:
        raise _Wrong(field, f"{shown(wrong.value)} {wrong.problem}") from None


def _whole(field: str, value: object) -> int:
    number = _plain_number(field, value)
    if isinstance(number, int):
        return number
    exact = _number(field, number, "round")
    if exact != exact.to_integral_value():
        raise _Wrong(field, f"{shown(value)} is not a whole number")
    return int(exact)


def _revision(value: object) -> int:
    if type(value) is int and value == 0:  # the usual case
        return 0
    revision = _whole("revision", value)
    if revision < 0:
        raise _Wrong("revision", f"{revision} is negative")
    if revision > REVISION_MAX:
        raise _Wrong("revision", f"{shown(revision)} is larger than 10^18")
    return revision


def _instant(value: object, now_us: int) -> int:
    at_us = _whole("at_us", value)
    fault = fault_of(at_us, now_us)
    if fault:
        raise _Wrong("at_us", fault)
    return at_us
