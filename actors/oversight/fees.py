"""Management and performance fees: accrued exactly every tick, posted once per session or when
crystallised.

Management: basis points a year, ACT/365, on the NAV of the tick before. The accrual is kept as an
exact integer fraction, since a tick's share rounds to nothing. Performance: a percentage of a
unit's gain above its high-water mark, crystallised every so many days. The guard computes it in
the look that finds NAV (`performance_fee`); here it is only kept and made final.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from ...runtime import DAY_US, DAYS_MAX, Settings
from ...wire.guard import FeeTerms
from ...wire.ledger import ChargeManagementFee, ChargePerformanceFee
from ...wire.money import from_minor

__all__ = [
    "FeeSettings",
    "FeeState",
    "Owed",
    "accrue",
    "charge_of",
    "crystallise",
    "due",
    "post_management",
    "terms",
    "with_flow",
]

# Denominator of the management accrual: basis points times microseconds of a 365-day year.
_YEAR_BP_US = 10_000 * 365 * DAY_US


class FeeSettings(Settings, frozen=True):
    """The fees that the fund charges its holders; none by default."""

    management_fee_bps: Annotated[
        int, Meta(ge=0, le=10_000, description="basis points of NAV a year, accrued each tick")
    ] = 0
    performance_fee_pct: Annotated[
        float,
        Meta(ge=0, le=100, description="percent of what a unit gains above its high-water mark"),
    ] = 0.0
    crystallise_every_days: Annotated[
        float, Meta(gt=0, le=DAYS_MAX, description="days; after them the performance fee is final")
    ] = 30.0
    fee_posting: Annotated[
        Literal["session", "tick"],
        Meta(
            description="'session': the management fee is booked when a session ends; 'tick': at"
            " each tick, which makes an entry for each"
        ),
    ] = "session"


class FeeState(msgspec.Struct, frozen=True):
    """The state that must outlive the process."""

    at_us: int = 0  # of the last accrual; 0: none yet
    management_fraction: int = 0  # accrued and not posted, times _YEAR_BP_US
    performance_minor: int = 0  # accrued and not posted
    mark_per_unit: float = 1.0  # the high-water mark
    crystallised_us: int = 0  # 0: the count of days has not begun
    posted_minor: int = 0  # both fees, ever
    named_us: int = 0  # the newest instant that names a fee between two ends of sessions

    @property
    def management_minor(self) -> int:
        """Whole minor units of management fee that have accrued and are not posted."""
        return self.management_fraction // _YEAR_BP_US

    @property
    def accrued_minor(self) -> int:
        """Fees that have accrued and are not posted, in minor units."""
        return self.management_minor + self.performance_minor


class Owed(msgspec.Struct, frozen=True):
    """A fee that is final, and of which the ledger has not said yet that it is booked."""

    kind: Literal["management", "performance"]
    amount_minor: int
    session: str  # between sessions with the instant, so that the ledger's key is unique


def charge_of(fee: Owed) -> ChargeManagementFee | ChargePerformanceFee:
    """The event that books the fee. Its key is the same whenever it is asked for."""
    charge = ChargeManagementFee if fee.kind == "management" else ChargePerformanceFee
    return charge(from_minor(fee.amount_minor), key=f"fee:{fee.kind}:{fee.session}")


class Posting(NamedTuple):
    """A fee to book, and the state once it is."""

    amount_minor: int
    after: FeeState


def accrue(state: FeeState, settings: FeeSettings, now_us: int, *, nav_minor: int) -> FeeState:
    """The state after the time since the last accrual, with the management fee on `nav_minor`,
    which is NAV of the tick before.

    The first accrual only begins the count. Negative NAV and a clock that went back pay nothing.
    """
    if not state.at_us:
        begun_us = state.crystallised_us or now_us
        return msgspec.structs.replace(state, at_us=now_us, crystallised_us=begun_us)
    elapsed_us = max(0, now_us - state.at_us)
    grown = state.management_fraction + max(0, nav_minor) * settings.management_fee_bps * elapsed_us
    return msgspec.structs.replace(state, at_us=max(now_us, state.at_us), management_fraction=grown)


def terms(state: FeeState, settings: FeeSettings) -> FeeTerms:
    """The performance fee as the guard applies it."""
    return FeeTerms(settings.performance_fee_pct, state.mark_per_unit)


def with_flow(state: FeeState, flow_minor: int, *, nav_minor: int, units: float) -> Posting:
    """The state after a deposit or a withdrawal at `nav_minor`, and the fee of the units that left.

    A deposit buys units above the mark, which have gained nothing yet: the mark of all units is the
    average of what each has been charged up to. A withdrawal redeems units, and pays the fee on
    their gain.
    """
    if not flow_minor or units <= 0 or nav_minor <= 0:
        return Posting(0, state)
    if flow_minor < 0:
        leaving = min(1.0, -flow_minor / nav_minor)
        amount = int(state.performance_minor * leaving)
        after = msgspec.structs.replace(
            state,
            performance_minor=state.performance_minor - amount,
            posted_minor=state.posted_minor + amount,
        )
        return Posting(amount, after)
    grown = 1 + flow_minor / nav_minor
    mark = (state.mark_per_unit * units + flow_minor) / (units * grown)
    # Units that are bought below the mark do not lower it, and neither does rounding.
    mark = max(state.mark_per_unit, mark)
    return Posting(0, msgspec.structs.replace(state, mark_per_unit=mark))


def named(state: FeeState, now_us: int) -> tuple[str, FeeState]:
    """The name of a fee between two ends of sessions, for its key, and the state after it.

    It is the day and the instant. Several flows of one instant have a fee each, so a later name is
    a microsecond later at least.
    """
    at_us = max(now_us, state.named_us + 1)
    day = dt.datetime.fromtimestamp(at_us // 1_000_000, dt.UTC).date().isoformat()
    return f"{day}:{at_us}", msgspec.structs.replace(state, named_us=at_us)


def post_management(state: FeeState) -> Posting:
    """All whole minor units that have accrued; the fraction stays."""
    amount = state.management_minor
    left = state.management_fraction - amount * _YEAR_BP_US
    after = msgspec.structs.replace(
        state, management_fraction=left, posted_minor=state.posted_minor + amount
    )
    return Posting(amount, after)


def due(state: FeeState, settings: FeeSettings, now_us: int) -> bool:
    """Whether the performance fee is to be crystallised now."""
    return now_us - state.crystallised_us >= settings.crystallise_every_days * DAY_US


def crystallise(state: FeeState, now_us: int, *, nav_minor: int, units: float) -> Posting:
    """The performance fee as a final amount. NAV per unit after all fees becomes the mark, if it is
    higher.
    """
    per_unit = nav_minor / units if units > 0 else state.mark_per_unit
    amount = state.performance_minor
    after = msgspec.structs.replace(
        state,
        performance_minor=0,
        mark_per_unit=max(state.mark_per_unit, per_unit),
        crystallised_us=now_us,
        posted_minor=state.posted_minor + amount,
    )
    return Posting(amount, after)
