"""Money: exact in, exact out, and everything that is not an amount refused by name."""

import math
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fundops.runtime import Rejected
from fundops.wire.errors import AmountError
from fundops.wire.money import (
    MINOR_MAX,
    Minor,
    from_minor,
    minor_of_float,
    positive_minor,
    text_of,
    to_minor,
    to_minors,
    to_ratio,
)

QUANTUM = Decimal("0.00000001")
WIDE = Context(prec=1_200)
LARGEST = Decimal(MINOR_MAX).scaleb(-8, WIDE)


class Price(float):
    """What a numeric library hands out: a float that is not of the type float."""


@pytest.mark.parametrize(
    ("value", "minor"),
    [
        (1, 100_000_000),
        (-1, -100_000_000),
        (0, 0),
        ("0.00000001", 1),
        (" 12.5 ", 1_250_000_000),
        ("-1e-8", -1),
        ("1E3", 100_000_000_000),
        (Decimal("1.50"), 150_000_000),
        (Decimal("0E-20"), 0),
        ("1.000000000000", 100_000_000),
        (LARGEST, MINOR_MAX),
        (-LARGEST, -MINOR_MAX),
    ],
)
def test_int_text_and_decimal_are_taken_exactly(value: Any, minor: int) -> None:
    assert to_minor(value) == Minor(minor, rounded=False)


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        None,
        b"1",
        [1],
        1j,
        "",
        "one",
        "1,5",
        "0x10",
        "1.2.3",
        "1_000",
        "\uff11\uff12",  # digits of another alphabet
        "\u00a05",
        "nan",
        "-inf",
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        math.nan,
        math.inf,
        -math.inf,
    ],
)
def test_what_is_not_a_finite_number_is_refused_with_its_field(value: Any) -> None:
    with pytest.raises(AmountError) as refusal:
        to_minor(value, "fee")
    assert refusal.value.field == "fee"
    assert str(refusal.value).startswith("fee: ")
    assert isinstance(refusal.value, Rejected)
    assert isinstance(refusal.value, ValueError)


@pytest.mark.parametrize(
    "value",
    [
        "0.000000001",
        "1.123456789",
        Decimal("1e-9"),
        Decimal("1." + "0" * 900 + "1"),
        Decimal("-1." + "0" * 2_000 + "1"),
        "1e-1000",
        "1e-3000000",
        Decimal("1e-9999999"),
        "99999999999.999999999",
    ],
)
def test_a_digit_beyond_the_scale_is_refused_and_never_dropped(value: Any) -> None:
    with pytest.raises(AmountError, match="more than 8 decimal digits"):
        to_minor(value)


@pytest.mark.parametrize(
    "value",
    [
        LARGEST + QUANTUM,
        -LARGEST - QUANTUM,
        10**11,
        10**19,
        pytest.param(-(10**5_000), id="5000 digits"),
        pytest.param(10**100_000, id="100000 digits"),
        "1e30",
        "1e999999999",
        Decimal("9e999999"),
        1e11,
        -1e300,
        1.7976931348623157e308,
    ],
)
def test_more_than_two_to_the_62_minor_units_is_refused_at_once(value: Any) -> None:
    with pytest.raises(AmountError, match="larger than 2\\^62"):
        to_minor(value)


def test_an_endless_text_is_refused_without_being_repeated_in_the_error() -> None:
    with pytest.raises(AmountError, match="too long") as refusal:
        to_minor("1" * 1_000_000)
    assert len(str(refusal.value)) < 200


def test_a_float_is_rounded_half_to_even_and_says_so() -> None:
    assert to_minor(3.1499999999999915) == Minor(315_000_000, rounded=True)
    assert to_minor(0.1) == Minor(
        10_000_000, rounded=True
    )  # the double is a little more than a tenth
    assert to_minor(0.5) == Minor(50_000_000, rounded=False)
    # 2^-9 = 0.001953125 ends exactly between two minor units: to the even one, both ways.
    assert to_minor(2.0**-9) == Minor(195_312, rounded=True)
    assert to_minor(3 * 2.0**-9) == Minor(585_938, rounded=True)
    assert to_minor(5e-324) == Minor(0, rounded=True)


@pytest.mark.parametrize("value", [0.5, Price(0.5), Price(0.1)])
def test_a_fund_that_refuses_floats_refuses_every_kind_of_float(value: float) -> None:
    with pytest.raises(AmountError, match="float"):
        to_minor(value, floats="refuse")
    assert to_minor("0.5", floats="refuse").minor == 50_000_000


@given(st.floats(-4e10, 4e10))
@example(2.0**-9)
@example(-(2.0**-9))
@example(4.35)
def test_a_rounded_float_is_what_decimal_rounds_it_to(value: float) -> None:
    exact = Decimal(value).quantize(QUANTUM, ROUND_HALF_EVEN, WIDE)
    minor, rounded = to_minor(value)
    assert from_minor(minor) == exact
    assert rounded == (exact != Decimal(value))


@given(st.integers(-MINOR_MAX, MINOR_MAX))
def test_minor_units_survive_the_way_through_decimal_and_text(minor: int) -> None:
    amount = from_minor(minor)
    assert amount.as_tuple().exponent == -8
    assert (
        to_minor(amount)
        == to_minor(str(amount))
        == to_minor(text_of(amount))
        == Minor(minor, rounded=False)
    )
    assert "E" not in text_of(amount)


@given(
    st.text(max_size=80) | st.floats() | st.integers() | st.decimals() | st.booleans() | st.none()
)
def test_anything_at_all_is_either_an_amount_in_bounds_or_an_amount_error(value: Any) -> None:
    try:
        minor = to_minor(value).minor
    except AmountError:
        return
    assert abs(minor) <= MINOR_MAX


def outcome_of(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except AmountError as refusal:
        return str(refusal)


EDGES = [
    Decimal(edge) / 10**8 for edge in (MINOR_MAX, MINOR_MAX + 1, -MINOR_MAX, -MINOR_MAX - 1, 1)
]
ODD = [
    Decimal(one)
    for one in (
        "NaN",
        "sNaN",
        "-Infinity",
        "1E+18",
        "1E+30",
        "0E+30",
        "1E+999999",
        "1E-9",
        "1E-999999",
    )
]


@given(
    st.lists(
        st.integers()
        | st.sampled_from([True, MINOR_MAX, 46_116_860_184, 46_116_860_185, -(10**400)]),
        max_size=4,
    )
    | st.lists(
        st.decimals(allow_nan=True) | st.decimals(-9, 9, places=8) | st.sampled_from(EDGES + ODD),
        max_size=4,
    )
    | st.lists(
        st.integers(-9, 9) | st.decimals(-9, 9, places=2) | st.text(max_size=5) | st.floats(),
        max_size=4,
    ),
    st.sampled_from(["round", "refuse"]),
)
def test_many_amounts_at_once_are_what_each_is_alone(values: list[Any], floats: str) -> None:
    alone = outcome_of(lambda: [tuple(to_minor(value, floats=floats)) for value in values])
    at_once = outcome_of(lambda: [*zip(*to_minors(values, floats=floats), strict=True)])
    assert at_once == alone
    assert isinstance(alone, str) or {type(minor) for minor, _ in at_once} <= {int}


@pytest.mark.parametrize("value", [0, -1, "0.00000000", -0.0, 1e-12])
def test_zero_and_less_are_not_positive(value: Any) -> None:
    with pytest.raises(AmountError, match="greater than zero"):
        positive_minor(value)
    assert positive_minor("0.00000001").minor == 1


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("-Infinity"),
        Decimal("1e400"),
        1e300,
        10**400,
        10**30,
        "garbage",
        None,
        True,
    ],
)
def test_a_reported_figure_that_is_no_amount_is_none(value: Any) -> None:
    assert minor_of_float(value) is None


def test_a_reported_decimal_with_many_digits_is_rounded_like_a_float() -> None:
    assert minor_of_float(Decimal(100_000) / 3) == 3_333_333_333_333
    assert minor_of_float(Decimal("0.000000005")) == 0
    assert minor_of_float(Decimal("0.000000015")) == 2
    assert minor_of_float(Decimal("-1." + "9" * 1_000)) == -200_000_000
    assert minor_of_float(7) == 700_000_000
    assert minor_of_float(0.1) == 10_000_000


class Integral:
    """As numpy.int64: an integer that is no int."""

    def __index__(self) -> int:
        return 3

    def __float__(self) -> float:
        return 3.0


class Half:
    """As numpy.float32: a float that is no float."""

    def __float__(self) -> float:
        return 0.5


@pytest.mark.parametrize(("value", "minor"), [(Integral(), 3 * 10**8), (Half(), 5 * 10**7)])
def test_a_number_of_another_library_is_an_amount(value: Any, minor: int) -> None:
    assert to_minor(value) == (minor, False)
    assert to_minors([value, 1]) == ([minor, 10**8], [False, False])


def test_a_float_of_another_library_may_be_refused_too() -> None:
    with pytest.raises(AmountError, match="is a float"):
        to_minor(Half(), floats="refuse")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "ratio"), [(2, (2, 1)), ("3:2", (3, 2)), (" 1 : 10", (1, 10)), (0.5, (1, 2))]
)
def test_a_ratio_is_exact(value: Any, ratio: tuple[int, int]) -> None:
    assert to_ratio(value).as_integer_ratio() == ratio


@pytest.mark.parametrize("value", [0, -1, "1:0", "1:2:3", ":", "x", None, "1/2"])
def test_a_ratio_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(AmountError, match="ratio"):
        to_ratio(value)


@given(
    st.one_of(
        st.floats(-1e10, 1e10),
        st.integers(-(2**60), 2**60).map(lambda steps: steps / 2**30),
        # Exactly half of a minor unit beyond an even or an odd one.
        st.integers(-(10**6), 10**6).map(lambda halves: halves * 5 * 2.0**-9),
    )
)
def test_a_float_is_rounded_half_even_from_its_exact_value(value: float) -> None:
    exact = Decimal(value) * 10**8
    expected = int(exact.to_integral_value(ROUND_HALF_EVEN))
    assert to_minor(value) == (expected, exact != expected)
    assert minor_of_float(value) == expected
