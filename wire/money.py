"""Exact money: int64 minor units of 1e-8 for every asset, and Decimal at the edges.

An int, a str or a Decimal is strict: a digit beyond the scale is refused. A float comes from an
engine's computation (3.1499999999999915), so it is rounded half-even and the caller is told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from .errors import AmountError
from .foreign import plain_number, plain_text

__all__ = [
    "MINOR_MAX",
    "MINOR_PER_UNIT",
    "SCALE_DIGITS",
    "Amount",
    "Minor",
    "exact_decimal",
    "fraction_of",
    "from_minor",
    "minor_of_float",
    "part_minor",
    "positive_minor",
    "product_minor",
    "rounded_decimal",
    "share",
    "text_of",
    "to_minor",
    "to_minors",
    "to_ratio",
]

Amount = Decimal | int | str | float

SCALE_DIGITS = 8
MINOR_PER_UNIT = 10**SCALE_DIGITS
# Half of the range of int64: the sum of two amounts below it still fits.
MINOR_MAX = 2**62

_INT_MAX = MINOR_MAX // MINOR_PER_UNIT
_NO_NUMBER = "is not a number: give Decimal, int, decimal text or float"

# Wide enough for every float and every text accepted here: a double has at most 767 significant
# digits. A Decimal may have more, and losing them must be an error.
_WIDE = Context(prec=800)
_EXACT = Context(prec=800, traps=[InvalidOperation, Inexact])
# Bounds of a factor, so that the product of two of them is exact in `_WIDE`. The longest decimal
# number that a program computes by itself has 28 digits.
_FACTOR_DIGITS_MAX = 128
_FACTOR_EXPONENT_MAX = 40
_QUANTUM = Decimal(1).scaleb(-SCALE_DIGITS)


class Minor(NamedTuple):
    """An amount in minor units, and whether a float was rounded to get there."""

    minor: int
    rounded: bool


def to_minor(value: Amount, field: str = "amount", *, floats: str = "round") -> Minor:
    """Minor units of `value`, of either sign.

    `floats` is ``"round"`` to the scale or ``"refuse"``.

    Raises: `AmountError` for bool and other types, NaN, infinity, digits beyond the scale (except
        in floats), and more than 2^62 minor units.
    """
    # The usual case, in the shortest way.
    if type(value) is int and -_INT_MAX <= value <= _INT_MAX:
        return Minor(value * MINOR_PER_UNIT, False)
    if type(value) is float and floats == "round" and -_INT_MAX <= value <= _INT_MAX:
        return _minor_of_binary(value)
    value = _own_number(value, field, floats)
    if isinstance(value, int):
        # Not by way of text: Python refuses to convert very long integers.
        minor = value * MINOR_PER_UNIT
        if abs(minor) > MINOR_MAX:
            raise AmountError(field, "an integer", "is larger than 2^62 minor units")
        return Minor(minor, False)
    exact = _finite(value, field)
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


def _minor_of_binary(value: float) -> Minor:
    """Minor units of a finite float's exact value, half-even. Integers take a third of the time of
    decimals, and each tick converts the figures of all strategies.
    """
    above, below = value.as_integer_ratio()
    minor, rest = divmod(above * MINOR_PER_UNIT, below)
    twice = 2 * rest
    if twice > below or (twice == below and minor & 1):
        minor += 1
    return Minor(minor, rest != 0)


def _own_number(value: Any, field: str, floats: str) -> Any:
    """The value as an int, text, Decimal or float. Raises: `AmountError`."""
    own: Any = plain_text(value)
    if own is None:
        own = plain_number(value)
    if own is None:
        raise AmountError(field, value, _NO_NUMBER)
    if floats == "refuse" and type(own) is float:
        raise AmountError(field, value, "is a float, which this fund refuses; give Decimal or text")
    return own


def _finite(value: Amount, field: str) -> Decimal:
    """The exact value; a float counts as its binary value. Raises: `AmountError`."""
    if isinstance(value, str) and len(value) > 64:
        raise AmountError(field, value[:64] + "...", "is too long for an amount")
    if isinstance(value, str) and (
        "_" in value or not value.isascii()
    ):  # Decimal accepts these in numbers
        raise AmountError(field, value, "is not a decimal number")
    try:
        exact = Decimal(value.strip()) if isinstance(value, str) else Decimal(value)
    except InvalidOperation:
        raise AmountError(field, value, "is not a decimal number") from None
    if not exact.is_finite():
        raise AmountError(field, value, "is not finite")
    return exact


def exact_decimal(value: Amount, field: str = "amount", *, floats: str = "round") -> Decimal:
    """A factor of a product, with every digit that was given, of either sign.

    A price may have more digits than the scale: rounded before it is multiplied, 40,000,000,000 at
    0.000000004 would cost nothing. A float counts as the shortest decimal number that names it.

    Raises: `AmountError` unless it is a finite number below 10^41 with at most 128 digits and
        decimals.
    """
    if (
        type(value) is Decimal
        and value.is_finite()
        and -_FACTOR_DIGITS_MAX <= value.adjusted() <= _FACTOR_EXPONENT_MAX
        and len(str(value)) <= _FACTOR_DIGITS_MAX
    ):  # the usual case, in the shortest way
        return value
    value = _own_number(value, field, floats)
    if isinstance(value, int) and abs(value) >= 10 ** (_FACTOR_EXPONENT_MAX + 1):
        raise AmountError(field, "an integer", "is too large")
    exact = _finite(repr(float(value)) if isinstance(value, float) else value, field)
    if exact and exact.adjusted() > _FACTOR_EXPONENT_MAX:
        raise AmountError(field, value, "is too large")
    # Written out it would be as long as its exponent says.
    if exact.adjusted() < -_FACTOR_DIGITS_MAX:
        raise AmountError(field, value, f"has more than {_FACTOR_DIGITS_MAX} decimals")
    if len(exact.as_tuple().digits) > _FACTOR_DIGITS_MAX:
        raise AmountError(field, value, f"has more than {_FACTOR_DIGITS_MAX} digits")
    return exact


def product_minor(quantity: Decimal, price: Decimal) -> Minor:
    """Quantity times price in minor units: multiplied exactly, then rounded half-even once.

    Both come from `exact_decimal`. Raises: `AmountError` for more than 2^62 minor units.
    """
    product = _WIDE.multiply(quantity, price)
    if not product or product.adjusted() <= 18:
        scaled = product.scaleb(SCALE_DIGITS, _WIDE)
        minor = int(scaled.to_integral_value(ROUND_HALF_EVEN))
        if abs(minor) <= MINOR_MAX:
            return Minor(minor, minor != scaled)
    raise AmountError("quantity", quantity, "times the price is larger than 2^62 minor units")


def to_ratio(value: Amount, field: str = "ratio", *, floats: str = "round") -> Fraction:
    """The exact ratio, above zero, of a number or of text such as ``"3:2"``.

    Raises: `AmountError`.
    """
    text = plain_text(value)
    parts = [value] if text is None else text.split(":")
    if len(parts) > 2:
        raise AmountError(field, value, "is not a number, or two numbers such as 3:2")
    minors = [positive_minor(part, field, floats=floats).minor for part in parts]
    return Fraction(minors[0], minors[1] if len(minors) > 1 else MINOR_PER_UNIT)


def to_minors(values: Sequence[Amount], *, floats: str = "round") -> tuple[list[int], list[bool]]:
    """Minor units of each value, and whether it was rounded, as two lists.

    Raises: as `to_minor`.
    """
    minors = _all_exact(values)
    if minors is not None:
        return minors, [False] * len(minors)
    amounts = [to_minor(value, floats=floats) for value in values]
    return [minor for minor, _ in amounts], [rounded for _, rounded in amounts]


def _all_exact(values: Sequence[Any]) -> list[int] | None:
    """Minor units of all values, faster than one by one; None when it cannot be done so.

    All values must be ints or all Decimals, and all must be valid.
    """
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
    """Minor units of `value`, which must be greater than zero. Raises: as `to_minor`."""
    amount = to_minor(value, field, floats=floats)
    if amount.minor <= 0:
        raise AmountError(field, value, "must be greater than zero")
    return amount


def fraction_of(minor: int, fraction: float) -> Decimal:
    """As `part_minor`, in units."""
    return from_minor(part_minor(minor, fraction))


def part_minor(minor: int, fraction: float) -> int:
    """The part of an amount >= 0 that a stage may use, rounded down once to a minor unit.

    The fraction counts as the decimal number it is written as: 0.01 is a hundredth exactly.
    """
    part, whole = _written_ratio(fraction)
    return minor * part // whole


# A policy has a few fractions, and each tick takes one of them for every strategy.
@lru_cache(maxsize=64)
def _written_ratio(fraction: float) -> tuple[int, int]:
    return Fraction(str(fraction)).as_integer_ratio()


def from_minor(minor: int) -> Decimal:
    """The exact Decimal with all digits of the scale: 1 becomes ``Decimal("0.00000001")``."""
    return Decimal(minor).scaleb(-SCALE_DIGITS, _EXACT)


def share(amount: int, part: int, whole: int) -> int:
    """``amount * part / whole`` in integers, rounded half-even."""
    quotient, remainder = divmod(amount * part, whole)
    doubled = abs(2 * remainder)
    if doubled > abs(whole) or (doubled == abs(whole) and quotient % 2):
        quotient += 1
    return quotient


def text_of(amount: Decimal) -> str:
    """Decimal text without an exponent, for JSON: ``"0.00000000"``, never ``"0E-8"``."""
    return f"{amount:f}"


def rounded_decimal(value: Decimal) -> Decimal:
    """A Decimal from an engine's computation, rounded half-even to the scale.

    A value of another type, not finite or too large comes back unchanged, to be refused by name
    later.
    """
    if not isinstance(value, Decimal) or not value.is_finite() or value.adjusted() > 18:
        return value
    # The exponent of a finite Decimal is an int.
    if value.as_tuple().exponent >= -SCALE_DIGITS:  # type: ignore[operator]
        return value
    return value.quantize(_QUANTUM, ROUND_HALF_EVEN, _WIDE)


def minor_of_float(value: Decimal | float) -> int | None:
    """Minor units of a reported figure; None when it is NaN, infinite or too large.

    None must make the caller fail closed. A Decimal is rounded like a float, since the result of a
    division has more digits than the scale.
    """
    if type(value) is float and -_INT_MAX <= value <= _INT_MAX:
        return _minor_of_binary(value).minor
    if isinstance(value, float) and not math.isfinite(value):
        return None
    try:
        if not isinstance(value, Decimal):
            return to_minor(value).minor
        if not value.is_finite():
            return None
        minor = int(value.quantize(_QUANTUM, ROUND_HALF_EVEN, _WIDE).scaleb(SCALE_DIGITS, _WIDE))
    except (AmountError, InvalidOperation):
        return None
    return minor if abs(minor) <= MINOR_MAX else None
