"""NAV of the fund, and its drawdown. Pure, money in minor units.

Drawdown is measured on NAV per unit, where a deposit buys units and a withdrawal redeems them:
neither is performance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from ...wire.alert import AlertDraft, Category, Level, resolved
from ...wire.guard import FeeTerms, GuardState, PricedFlow
from ...wire.money import from_minor
from .limits import OVER_BELOW, WARN_AT, percent_below
from .settings import GuardSettings
from .units import after_flow

__all__ = ["Worth", "judge_worth", "performance_fee"]

KEY: Final = "drawdown:fund"
# The part of the configured capital that a fund without units may owe and has lost nothing.
SPARED_OF_CAPITAL: Final = 1e-6
# The largest amount of minor units that a column of the database holds.
INT64_MAX: Final = 2**63 - 1


def performance_fee(fees: FeeTerms, net_minor: int, units: float) -> int:
    """The performance fee on `net_minor`, the NAV after all other fees; 0 up to the mark."""
    if units <= 0:
        return 0
    gain = net_minor - fees.mark_per_unit * units
    return max(0, int(gain * fees.performance_pct / 100))


class Worth(NamedTuple):
    """The fund after a look, and what follows."""

    state: GuardState
    kill: str | None = None  # why everything must stop
    alerts: Sequence[AlertDraft] = ()
    performance_minor: int = 0  # the performance fee accrued at these figures
    problem: str = ""  # why NAV could not be taken, and `state` is the one before; "": it was


def judge_worth(
    before: GuardState,
    settings: GuardSettings,
    *,
    gross_minor: int,
    accrued_fees_minor: int,
    external_minor: int,
    flows: Sequence[PricedFlow],
    fees: FeeTerms,
    capital_minor: int,
    news: bool,
) -> Worth:
    """NAV and drawdown at this look; the arguments are those of `core.look`.

    The performance fee is taken at the same figures as NAV. A fee of the tick before would make a
    gain look larger for one tick than it is, and the peak of that tick would be a drawdown in the
    next.
    """
    net = gross_minor - accrued_fees_minor
    if max(abs(gross_minor), abs(net)) > INT64_MAX:
        # No column of the database holds it. NAV, peak and units stand as they are.
        nav, largest = from_minor(gross_minor), from_minor(INT64_MAX)
        problem = f"NAV {nav:,.2f} is beyond the largest, {largest:,.2f}"
        return Worth(before, problem=problem)
    state = _with_flows(before, external_minor, flows)
    performance = performance_fee(fees, net, state.units)
    after, kill, alerts = _fund(state, settings, net - performance, capital_minor, news=news)
    return Worth(after, kill, alerts, performance)


def _with_flows(state: GuardState, external_minor: int, flows: Sequence[PricedFlow]) -> GuardState:
    """The memory with the external change since the look before; that of no flow comes first.

    A flow is taken once, also when the answer to that look was lost and it is told again.
    """
    new = [flow for flow in flows if state.seq is None or flow.seq > state.seq]
    rest = external_minor - state.external_minor - sum(flow.amount_minor for flow in new)
    units = after_flow(state.units, state.nav_minor, state.price, rest)
    for flow in new:
        units = after_flow(units, flow.nav_minor, state.price, flow.amount_minor)
    return replace(state, external_minor=external_minor, units=units)


def _per_unit(state: GuardState, nav: int, capital_minor: int) -> float:
    """NAV per unit. Without a unit in issue it stands, and a loss is a total one.

    The fees of a tick are no loss: they accrue on the NAV before the last withdrawal.
    """
    if state.units > 0:
        return nav / state.units
    owned = state.units * state.price
    return 0.0 if nav < owned - capital_minor * SPARED_OF_CAPITAL else state.price


def _fund(
    state: GuardState, settings: GuardSettings, nav: int, capital_minor: int, *, news: bool
) -> tuple[GuardState, str | None, list[AlertDraft]]:
    per_unit = _per_unit(state, nav, capital_minor)
    peak = max(state.peak_per_unit, per_unit)
    drawdown = percent_below(per_unit, peak)
    limit = settings.max_fund_drawdown_pct
    # A word that was counted is not counted again: it says nothing new.
    counts = news or not state.breaches
    breaches = state.breaches + counts if drawdown >= limit else 0
    warned, notes = state.warned, []
    if drawdown >= WARN_AT * limit and not warned:
        warned = True
        text = f"fund drawdown {drawdown:.1f}%, limit {limit:.1f}%"
        notes = [
            AlertDraft(
                Level.WARNING,
                Category.DRAWDOWN,
                "Fund approaches its drawdown limit",
                text,
                None,
                KEY,
            )
        ]
    elif drawdown < OVER_BELOW * limit and warned:
        warned = False
        notes = [resolved(Category.DRAWDOWN, "Fund drawdown over", KEY)]
    after = replace(
        state,
        per_unit=per_unit,
        price=per_unit if state.units > 0 else state.price,
        peak_per_unit=peak,
        nav_minor=nav,
        drawdown=drawdown,
        breaches=breaches,
        warned=warned,
    )
    kill = None
    if breaches >= settings.kill_confirm_ticks:
        kill = f"Fund drawdown {drawdown:.1f}% reached its limit {limit:.1f}%"
    return after, kill, notes
