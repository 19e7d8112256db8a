"""Fees by plain calls: exact however time is cut, only above the mark, never caused by a flow."""

import math
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundops.actors.guard.worth import performance_fee
from fundops.actors.oversight.fees import (
    FeeSettings,
    FeeState,
    Posting,
    accrue,
    crystallise,
    due,
    post_management,
    terms,
    with_flow,
)
from fundops.runtime import DAY_US, ConfigError

UNIT = 10**8
T0 = 1_700_000_000_000_000
YEAR_US = 365 * DAY_US
CAPITAL = 100_000 * UNIT
CHARGED = FeeSettings(200, 20.0)
MANAGEMENT_ONLY = FeeSettings(200, 0.0)
PERFORMANCE_ONLY = FeeSettings(0, 20.0)
BEGUN = FeeState(at_us=T0, crystallised_us=T0)


def grow(
    state: FeeState,
    now_us: int,
    gross: int,
    *,
    units: float = CAPITAL,
    settings: FeeSettings = PERFORMANCE_ONLY,
) -> FeeState:
    """One accrual at this gross value, with the performance fee that the guard finds at it."""
    after = accrue(state, settings, now_us, nav_minor=gross)
    net = gross - after.management_minor
    found = performance_fee(terms(after, settings), net, units)
    return msgspec.structs.replace(after, performance_minor=found)


def final(state: FeeState, now_us: int, gross: int, *, units: float = CAPITAL) -> Posting:
    """The performance fee made final at this gross value."""
    return crystallise(state, now_us, nav_minor=gross - state.accrued_minor, units=units)


# -- management


@given(st.lists(st.integers(0, 30 * DAY_US), max_size=40), st.integers(0, 10**17))
def test_management_is_act_365_to_the_last_fraction_however_the_ticks_fall(
    ticks: list[int], nav: int
) -> None:
    state, now_us, posted = BEGUN, T0, 0
    for number, elapsed in enumerate(ticks):
        now_us += elapsed
        state = accrue(state, MANAGEMENT_ONLY, now_us, nav_minor=nav)
        if number % 3 == 2:
            amount, state = post_management(state)
            posted += amount
    exact = Fraction(nav * 200 * (now_us - T0), 10_000 * YEAR_US)
    assert posted + state.management_minor == math.floor(exact)
    assert state.posted_minor == posted


def test_two_percent_of_a_hundred_thousand_for_a_year_is_two_thousand() -> None:
    state = accrue(BEGUN, MANAGEMENT_ONLY, T0 + YEAR_US, nav_minor=CAPITAL)
    assert state.management_minor == 2_000 * UNIT
    amount, after = post_management(state)
    assert (amount, after.management_minor, after.posted_minor) == (2_000 * UNIT, 0, 2_000 * UNIT)
    assert post_management(after).amount_minor == 0


def test_a_tick_whose_share_rounds_to_nothing_is_not_lost() -> None:
    state, now_us = BEGUN, T0
    for _ in range(1_000):
        now_us += 1_000_000
        state = accrue(state, MANAGEMENT_ONLY, now_us, nav_minor=100)
        assert state.management_minor == 0
    assert accrue(state, MANAGEMENT_ONLY, T0 + YEAR_US, nav_minor=100).management_minor == 2


def test_the_first_accrual_only_begins_the_count() -> None:
    state = accrue(FeeState(), CHARGED, T0, nav_minor=CAPITAL)
    assert state == FeeState(at_us=T0, crystallised_us=T0)
    since = accrue(FeeState(crystallised_us=T0 - DAY_US), CHARGED, T0, nav_minor=CAPITAL)
    assert since == FeeState(at_us=T0, crystallised_us=T0 - DAY_US), "days count from the start"


def test_a_negative_nav_and_a_clock_that_steps_back_cost_nothing() -> None:
    state = grow(BEGUN, T0 + DAY_US, -CAPITAL, settings=CHARGED)
    assert state.accrued_minor == 0
    back = accrue(state, CHARGED, T0, nav_minor=CAPITAL)
    assert (back.management_fraction, back.at_us) == (0, T0 + DAY_US)


# -- performance


def test_performance_is_a_share_of_what_lies_above_the_mark_and_of_nothing_else() -> None:
    for gross, fee in ((100_000, 0), (99_000, 0), (110_000, 2_000), (100_000, 0), (105_000, 1_000)):
        assert grow(BEGUN, T0, gross * UNIT).performance_minor == fee * UNIT


def test_after_crystallising_only_a_new_high_costs_again() -> None:
    state = grow(BEGUN, T0 + 1, 110_000 * UNIT)
    amount, state = final(state, T0 + 1, 110_000 * UNIT)
    assert (amount, state.performance_minor, state.posted_minor) == (2_000 * UNIT, 0, 2_000 * UNIT)
    assert state.mark_per_unit == pytest.approx(1.08)
    assert state.crystallised_us == T0 + 1
    # What was paid out is gone from gross: 108,000 is the mark.
    assert grow(state, T0 + 2, 108_000 * UNIT).performance_minor == 0
    assert grow(state, T0 + 2, 90_000 * UNIT).performance_minor == 0
    assert grow(state, T0 + 2, 109_000 * UNIT).performance_minor == pytest.approx(
        200 * UNIT, abs=10
    )


def test_a_loss_never_lowers_the_mark() -> None:
    state = grow(BEGUN, T0 + 1, 90_000 * UNIT)
    amount, after = final(state, T0 + 1, 90_000 * UNIT)
    assert (amount, after.mark_per_unit) == (0, 1.0)


def test_management_that_has_accrued_is_no_gain() -> None:
    state = accrue(BEGUN, CHARGED, T0 + YEAR_US, nav_minor=CAPITAL)
    net = 102_000 * UNIT - state.management_minor
    found = performance_fee(terms(state, CHARGED), net, CAPITAL)
    assert (state.management_minor, found) == (2_000 * UNIT, 0)


@given(
    st.lists(
        st.tuples(st.floats(-0.2, 0.25), st.integers(-60_000, 200_000), st.booleans()), max_size=25
    ),
)
def test_a_flow_changes_neither_what_a_unit_is_worth_nor_the_fee_of_those_who_stay(
    history: list[tuple[float, int, bool]],
) -> None:
    state, units, gross, now_us = BEGUN, float(CAPITAL), CAPITAL, T0
    for change, flow, ends in history:
        now_us += DAY_US
        gross = round(gross * (1 + change))
        state = grow(state, now_us, gross, units=units)
        if ends:
            amount, state = final(state, now_us, gross, units=units)
            gross -= amount
        nav, mark = gross - state.accrued_minor, state.mark_per_unit
        if nav + flow * UNIT <= 1_000 * UNIT:
            continue
        before, per_unit = state.performance_minor, nav / units
        amount, state = with_flow(state, flow * UNIT, nav_minor=nav, units=units)
        units *= 1 + flow * UNIT / nav
        gross += flow * UNIT - amount
        state = grow(state, now_us, gross, units=units)
        assert (gross - state.accrued_minor) / units == pytest.approx(per_unit, rel=1e-9)
        assert state.performance_minor == pytest.approx(before - amount, abs=1_000)
        assert state.mark_per_unit >= mark * (1 - 1e-12)
        assert state.mark_per_unit == mark or flow > 0


def test_a_deposit_at_the_mark_does_not_lower_it_by_rounding() -> None:
    state, units = msgspec.structs.replace(BEGUN, mark_per_unit=1.2625), float(CAPITAL)
    for _ in range(200):
        nav = round(1.2625 * units) + 1
        _, state = with_flow(state, UNIT, nav_minor=nav, units=units)
        units *= 1 + UNIT / nav
    assert state.mark_per_unit >= 1.2625


def test_units_that_leave_take_their_share_of_the_fee_with_them() -> None:
    half = 50_000 * UNIT
    state = grow(BEGUN, T0, 60_000 * UNIT, units=half)
    amount, after = with_flow(state, -5_800 * UNIT, nav_minor=58_000 * UNIT, units=half)
    assert (amount, after.performance_minor) == (200 * UNIT, 1_800 * UNIT)
    assert (after.posted_minor, after.mark_per_unit) == (200 * UNIT, 1.0)


def test_a_withdrawal_beyond_nav_pays_no_more_than_the_whole_fee() -> None:
    state = msgspec.structs.replace(BEGUN, performance_minor=2_000 * UNIT)
    amount, after = with_flow(state, -60_000 * UNIT, nav_minor=58_000 * UNIT, units=CAPITAL)
    assert (amount, after.performance_minor) == (2_000 * UNIT, 0)


@pytest.mark.parametrize(
    ("nav", "units"), [(0, 1.0), (-5, 1.0), (5, 0.0)], ids=["worthless", "in debt", "no unit"]
)
@pytest.mark.parametrize("flow", [5 * UNIT, -5 * UNIT], ids=["deposit", "withdrawal"])
def test_a_flow_without_a_price_charges_nothing(nav: int, units: float, flow: int) -> None:
    state = msgspec.structs.replace(BEGUN, performance_minor=UNIT)
    assert with_flow(state, flow, nav_minor=nav, units=units) == (0, state)


@pytest.mark.parametrize("nav", [90_000, 100_000], ids=["below", "at"])
def test_a_deposit_up_to_the_mark_leaves_it(nav: int) -> None:
    assert with_flow(BEGUN, 5 * UNIT, nav_minor=nav * UNIT, units=CAPITAL) == (0, BEGUN)


def test_crystallising_is_due_after_as_many_days_as_configured() -> None:
    settings = FeeSettings(crystallise_every_days=30)
    assert not due(BEGUN, settings, T0 + 30 * DAY_US - 1)
    assert due(BEGUN, settings, T0 + 30 * DAY_US)


def test_a_fund_without_units_crystallises_nothing() -> None:
    amount, after = crystallise(BEGUN, T0, nav_minor=0, units=0.0)
    assert (amount, after.mark_per_unit) == (0, 1.0)


# -- settings


def test_a_fund_charges_nothing_unless_it_says_so() -> None:
    assert (FeeSettings().management_fee_bps, FeeSettings().performance_fee_pct) == (0, 0.0)
    assert FeeSettings().crystallise_every_days == 30


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("management_fee_bps", -1),
        ("management_fee_bps", 10_001),
        ("management_fee_bps", 1.5),
        ("management_fee_bps", True),
        ("performance_fee_pct", -0.1),
        ("performance_fee_pct", 100.1),
        ("performance_fee_pct", math.nan),
        ("crystallise_every_days", 0),
        ("crystallise_every_days", math.inf),
        ("crystallise_every_days", math.nan),
    ],
)
def test_a_fee_that_makes_no_sense_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as refusal:
        FeeSettings(**{field: value})
    assert refusal.value.field == field


@given(st.integers(0, 10**30))
def test_the_exact_fraction_survives_storage(fraction: int) -> None:
    state = msgspec.structs.replace(BEGUN, management_fraction=fraction)
    assert msgspec.json.decode(msgspec.json.encode(state), type=FeeState) == state
