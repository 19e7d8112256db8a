"""What a stage allows of a budget: one figure, wherever it is asked for."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundops.wire.money import fraction_of

BUDGETS = st.integers(min_value=1, max_value=2**63 - 1)


@pytest.mark.parametrize(
    ("budget", "fraction", "capital"),
    [
        ("100000", 0.01, "1000.00000000"),
        ("100.00000033", 0.01, "1.00000000"),
        ("100.00000199", 0.01, "1.00000001"),
        ("92233720368.54775807", 1.0, "92233720368.54775807"),
        ("92233720368.54775807", 0.1, "9223372036.85477580"),
        ("100000", 0.0, "0.00000000"),
    ],
)
def test_a_stages_capital_is_rounded_down_once(budget: str, fraction: float, capital: str) -> None:
    minor = int(Decimal(budget).scaleb(8))
    assert fraction_of(minor, fraction) == Decimal(capital)


@given(BUDGETS, st.decimals(min_value=0, max_value=1, places=4).map(float))
def test_capital_never_exceeds_its_fraction_and_misses_it_by_less_than_a_minor_unit(
    budget: int, fraction: float
) -> None:
    exact = budget * Fraction(str(fraction))
    found = Fraction(fraction_of(budget, fraction)) * 10**8
    assert exact - 1 < found <= exact
