"""Exact money: int64 minor units with a frozen scale per asset (8 decimal digits), Decimal at the edges.

Whoever hands in an int, a str or a Decimal is taken at their word: a digit beyond the scale is refused. A float is
what engines compute with (3.1499999999999915), so it is rounded half-even and the caller is told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation
from typing import Any, NamedTuple

from .errors import AmountError

__all__ = [
    "MINOR_MAX",
    "MINOR_PER_UNIT",
    "SCALE_DIGITS",
    "Amount",
    "Minor",
    "from_minor",
    "minor_of_float",
    "positive_minor",
    "rounded_decimal",
    "share",
    "text_of",
    "to_minor",
    "to_minors",
]

Amount = Decimal | int | str | float

SCALE_DIGITS = 8
MINOR_PER_UNIT = 10**SCALE_DIGITS
# Half of int64: the sum of two amounts that were each let in still fits.
MINOR_MAX = 2**62

_INT_MAX = MINOR_MAX // MINOR_PER_UNIT

# Wide enough for every float and every text let in: a double has at most 767 significant digits. A Decimal may have
# more, and must not lose them unseen.
_WIDE = Context(prec=800)
_EXACT = Context(prec=800, traps=[InvalidOperation, Inexact])
_QUANTUM = Decimal(1).scaleb(-SCALE_DIGITS)


class Minor(NamedTuple):
    """An amount in minor units, and whether a float was rounded to get there."""

    minor: int
    rounded: bool


def to_minor(value: Amount, field: str = "amount", *, floats: str = "round") -> Minor:
    """Minor units of `value`, of either sign.

    Raises: `AmountError` for bool and other types, NaN, infinity, digits beyond the scale (floats are rounded
    instead, unless `floats` is ``"refuse"``), and more than 2^62 minor units.
    """
    kind = type(value)
    if kind is int and -_INT_MAX <= value <= _INT_MAX:  # the common case, by the shortest way
        return Minor(int(value) * MINOR_PER_UNIT, False)
    if kind is bool or not isinstance(value, (Decimal, int, str, float)):
        raise AmountError(field, value, "is not a number: give Decimal, int, decimal text or float")
    if floats == "refuse" and isinstance(value, float):
        raise AmountError(field, value, "is a float, which this fund refuses; give Decimal or text")
    if isinstance(value, int):
        # Never through text: Python refuses to convert absurdly long integers.
        minor = value * MINOR_PER_UNIT
        if abs(minor) > MINOR_MAX:
            raise AmountError(field, "an integer", "is larger than 2^62 minor units")
        return Minor(minor, False)
    if isinstance(value, str) and len(value) > 64:
        raise AmountError(field, value[:64] + "...", "is too long for an amount")
    if isinstance(value, str) and ("_" in value or not value.isascii()):  # Decimal takes these for digits
        raise AmountError(field, value, "is not a decimal number")
    try:
        exact = Decimal(value.strip()) if isinstance(value, str) else Decimal(value)
    except InvalidOperation:
        raise AmountError(field, value, "is not a decimal number") from None
    if not exact.is_finite():
        raise AmountError(field, value, "is not finite")
    if exact.adjusted() > 18:
        raise AmountError(field, value, "is larger than 2^62 minor units")
    try:
        scaled = exact.scaleb(SCALE_DIGITS, _EXACT)
    except Inexact:
        raise AmountError(field, value, f"has more than {SCALE_DIGITS} decimal digits") from None
    minor = int(scaled)
    rounded = minor != scaled
    if rounded:
        if not isinstance(value, float):
            raise AmountError(field, value, f"has more than {SCALE_DIGITS} decimal digits")
        minor = int(scaled.to_integral_value(ROUND_HALF_EVEN))
    if abs(minor) > MINOR_MAX:
        raise AmountError(field, value, "is larger than 2^62 minor units")
    return Minor(minor, rounded)


def to_minors(values: Sequence[Amount], *, floats: str = "round") -> tuple[list[int], list[bool]]:
    """`to_minor` of each, as columns: minor units, and whether a float was rounded. Raises: as `to_minor`."""
    minors = _all_exact(values)
    if minors is not None:
        return minors, [False] * len(minors)
    amounts = [to_minor(value, floats=floats) for value in values]
    return [minor for minor, _ in amounts], [rounded for _, rounded in amounts]


def _all_exact(values: Sequence[Any]) -> list[int] | None:
    """By a shorter way than one by one, if all of them are integers or all Decimals, and nothing is wrong with any."""
    kinds = {type(value) for value in values}
    if kinds == {int} and -_INT_MAX <= min(values) <= max(values) <= _INT_MAX:
        return [value * MINOR_PER_UNIT for value in values]
    if kinds == {Decimal} and max(map(Decimal.adjusted, values)) <= 18:
        with suppress(ArithmeticError, ValueError):  # digits too many or too small, NaN, infinity
            scaled = [value.scaleb(SCALE_DIGITS, _EXACT) for value in values]
            minors = [int(value) for value in scaled]
            if minors == scaled and -MINOR_MAX <= min(minors) <= max(minors) <= MINOR_MAX:
                return minors
    return None


def positive_minor(value: Amount, field: str = "amount", *, floats: str = "round") -> Minor:
    """As `to_minor`, and refuses zero and less."""
    amount = to_minor(value, field, floats=floats)
    if amount.minor <= 0:
        raise AmountError(field, value, "must be greater than zero")
    return amount


def from_minor(minor: int) -> Decimal:
    """The exact Decimal with all digits of the scale: ``from_minor(1) == Decimal("0.00000001")``."""
    return Decimal(minor).scaleb(-SCALE_DIGITS, _EXACT)


def share(amount: int, part: int, whole: int) -> int:
    """``amount * part / whole`` rounded half-even, in integers."""
    quotient, remainder = divmod(amount * part, whole)
    doubled = abs(2 * remainder)
    if doubled > abs(whole) or (doubled == abs(whole) and quotient % 2):
        quotient += 1
    return quotient


def text_of(amount: Decimal) -> str:
    """Plain decimal text, as JSON carries money: ``"0.00000000"``, never ``"0E-8"``."""
    return f"{amount:f}"


def rounded_decimal(value: Decimal) -> Decimal:
    """A Decimal that an engine has computed, rounded half-even to the scale; what is none comes back as it is."""
    if not isinstance(value, Decimal) or not value.is_finite() or value.adjusted() > 18:
        return value
    return value.quantize(_QUANTUM, ROUND_HALF_EVEN, _WIDE) if value.as_tuple().exponent < -SCALE_DIGITS else value  # type: ignore[operator]


def minor_of_float(value: Decimal | float) -> int | None:
    """Minor units of a reported figure, or None when it is NaN, infinite or absurd: the caller fails closed.

    A Decimal is rounded as a float is: what an engine has divided has more digits than the scale.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None
    try:
        return to_minor(value.quantize(_QUANTUM, ROUND_HALF_EVEN, _WIDE) if isinstance(value, Decimal) else value).minor
    except (AmountError, InvalidOperation):
        return None
