"""What the guard thinks: NAV, drawdowns, and when to stop. Pure functions; money in minor units.

NAV = net external flows + real P&L - fees. Paper and shadow P&L is hypothetical and never part of
it. Drawdown is measured on NAV per unit, where a deposit buys units and a withdrawal redeems them:
neither is performance. A figure that is not a number fails closed: the strategy is paused, and its
last known P&L stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from ...runtime import Settings
from ...wire.alert import AlertDraft, Category, Level
from ...wire.controller import KillAction, StrategyStatus
from ...wire.guard import FeeTerms, GuardState, Pause, StrategyBook
from ...wire.money import from_minor, minor_of_float
from ...wire.promotion import EntitlementTerms

__all__ = ["GuardSettings", "Look", "closed", "look", "performance_fee"]

# Warn from 80% of a limit, and call it over below 75%: one alert per approach, not one per wobble.
WARN_AT = 0.80
OVER_BELOW = 0.75
# The largest amount of minor units that a column of the database holds.
INT64_MAX = 2**63 - 1


class GuardSettings(Settings, frozen=True):
    """When the guard warns, pauses and stops."""

    max_fund_drawdown_pct: Annotated[
        float, Meta(gt=0, le=100, description="percent below the peak; engages the kill switch")
    ] = 15.0
    max_strategy_drawdown_pct: Annotated[
        float, Meta(gt=0, le=100, description="percent below its peak; pauses the strategy")
    ] = 25.0
    kill_confirm_ticks: Annotated[
        int, Meta(ge=1, description="ticks in a row that must see the breach before the kill")
    ] = 1
    kill_action: Annotated[
        KillAction,
        Meta(description="'halt' cancels orders; 'flatten' also closes positions"),
    ] = "halt"
    lease_s: Annotated[
        float,
        Meta(gt=0, le=86_400, description="seconds; how long an entitlement lasts after a tick"),
    ] = 30.0
    max_blind_s: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="seconds of engine silence, with real money live, until the kill",
        ),
    ] = 60.0


class Look(msgspec.Struct, frozen=True):
    """What one look found. `kill` is the reason to stop everything, or None."""

    state: GuardState
    gross_minor: int
    kill: str | None
    pauses: tuple[Pause, ...]
    alerts: tuple[AlertDraft, ...]
    performance_minor: int = 0  # the performance fee accrued at these figures
    problem: str = ""  # why NAV could not be taken, and the one before stands; "": it was taken


def performance_fee(fees: FeeTerms, net_minor: int, units: float) -> int:
    """The performance fee on `net_minor`, the NAV after all other fees; 0 up to the mark."""
    gain = net_minor - fees.mark_per_unit * units
    return max(0, int(gain * fees.performance_pct / 100))


def look(
    state: GuardState,
    settings: GuardSettings,
    statuses: Sequence[StrategyStatus],
    terms: Mapping[str, EntitlementTerms] | None,
    *,
    external_minor: int,
    posted_fees_minor: int,
    accrued_fees_minor: int,
    blind_s: float = 0.0,
    fees: FeeTerms = FeeTerms(),  # noqa: B008  immutable
) -> Look:
    """The state after this look, and what must happen now."""
    books = dict(state.strategies)
    pauses: list[Pause] = []
    alerts: list[AlertDraft] = []
    if not blind_s:  # an engine that says nothing changes nothing: it must never look like a profit
        for status in statuses:
            before = books.get(status.name, StrategyBook())
            real = terms is None or _is_real(status, terms.get(status.name))
            after, pause, notes = _strategy(before, status, real, settings)
            books[status.name] = after
            alerts += notes
            if before.real and not after.real and (before.paused or before.warned):
                alerts += closed(status.name, "has no real money left to lose")
            pauses += [Pause(status.name, pause)] if pause else []
    gross = external_minor + sum(book.real_pnl_minor for book in books.values()) - posted_fees_minor
    fund, kill, notes, performance, problem = _worth(
        state, settings, external_minor, gross, gross - accrued_fees_minor, fees
    )
    alerts += notes
    any_live = any(book.real for book in books.values())
    if blind_s >= settings.max_blind_s and any_live:
        kill = (
            f"engine silent for {blind_s:.0f} s with live strategies,"
            f" limit {settings.max_blind_s:.0f} s"
        )
    return Look(
        msgspec.structs.replace(fund, strategies=books),
        gross,
        kill,
        tuple(pauses),
        tuple(alerts),
        performance,
        problem,
    )


def _worth(
    state: GuardState,
    settings: GuardSettings,
    external_minor: int,
    gross: int,
    net: int,
    fees: FeeTerms,
) -> tuple[GuardState, str | None, list[AlertDraft], int, str]:
    """The fund after this look: its state, why to stop, what to say, the performance fee, and why
    NAV was refused.

    The fee is taken at the same figures as NAV. A fee of the tick before would make a gain look
    larger for one tick than it is, and the peak of that tick would be a drawdown in the next.
    """
    if max(abs(gross), abs(net)) > INT64_MAX:
        # No column of the database holds it. NAV, peak and units stand as they are.
        problem = (
            f"NAV {from_minor(gross):,.2f} is beyond the largest, {from_minor(INT64_MAX):,.2f}"
        )
        return state, None, [], 0, problem
    after_flows = _with_flows(state, external_minor)
    performance = performance_fee(fees, net, after_flows.units)
    fund, kill, notes = _fund(after_flows, net - performance, settings)
    return fund, kill, notes, performance, ""


def closed(name: str, why: str) -> list[AlertDraft]:
    """What ends a strategy's alerts, so that the next ones are heard; a key that is not open
    stays silent.
    """
    return [
        AlertDraft(
            Level.INFO,
            Category.DRAWDOWN,
            f"{name} {why}",
            "",
            name,
            f"{topic}:{name}",
            resolves=True,
        )
        for topic in ("paused", "drawdown")
    ]


def _percent_below(value: float, peak: float) -> float:
    # To 9 decimals, as people read it: 1 - 0.8 is 0.19999999999999996, and 20% is 20%.
    return round(100 * (1 - value / peak), 9) if peak > 0 else 0.0


def _is_real(status: StrategyStatus, terms: EntitlementTerms | None) -> bool:
    """The stage in force at the engine decides; an engine that knows no stages is taken at the
    database's word.
    """
    if status.stage is not None:
        return status.stage.startswith("live")
    return terms is not None and terms.mode == "live"


def _strategy(
    before: StrategyBook, status: StrategyStatus, real: bool, settings: GuardSettings
) -> tuple[StrategyBook, str | None, list[AlertDraft]]:
    """The strategy's book, why to pause it (None: it may go on), and what to say."""
    figures = [
        minor_of_float(one)
        for one in (status.realized_pnl, status.unrealized_pnl, status.allocated)
    ]
    equity = minor_of_float(status.equity) if status.equity is not None else None
    realized, unrealized, allocated = figures
    if (
        realized is None
        or unrealized is None
        or allocated is None
        or (status.equity is not None and equity is None)
    ):
        return _fail_closed(before, status, real)
    pnl = realized + unrealized
    # P&L between two looks is real if it was made on either side of a change of stage: what closing
    # out of a demoted position costs is as real as the first fill after a promotion.
    made = pnl - before.pnl_minor if real or before.real else 0
    worth = equity if equity is not None else allocated + pnl
    peak = worth if real != before.real else max(_rescaled_peak(before, allocated), worth)
    after = msgspec.structs.replace(
        before,
        pnl_minor=pnl,
        real_pnl_minor=before.real_pnl_minor + made,
        real=real,
        allocated_minor=allocated,
        worth_minor=worth,
        peak_minor=peak,
        paused=before.paused and real,  # a stage without real money is a way out
    )
    return _judge_drawdown(after, status.name, worth, settings)


def _rescaled_peak(before: StrategyBook, allocated: int) -> int:
    """Capital given to a strategy or taken from it is no performance: the peak moves as the
    equity does.
    """
    flow = allocated - before.allocated_minor
    if not flow or before.worth_minor <= 0:
        return before.peak_minor
    return before.peak_minor * (before.worth_minor + flow) // before.worth_minor


def _judge_drawdown(
    book: StrategyBook, name: str, worth: int, settings: GuardSettings
) -> tuple[StrategyBook, str | None, list[AlertDraft]]:
    drawdown = _percent_below(worth, book.peak_minor)
    limit = settings.max_strategy_drawdown_pct
    key = f"drawdown:{name}"
    if not book.real:
        return msgspec.structs.replace(book, warned=False), None, []
    if drawdown >= limit and not book.paused:
        reason = f"drawdown {drawdown:.2f}% reached its limit {limit:g}%"
        note = AlertDraft(
            Level.WARNING, Category.DRAWDOWN, f"{name} paused", reason, name, f"paused:{name}"
        )
        return msgspec.structs.replace(book, paused=True, warned=True), reason, [note]
    if drawdown >= WARN_AT * limit and not book.warned:
        text = f"drawdown {drawdown:.2f}%, limit {limit:g}%"
        note = AlertDraft(
            Level.WARNING,
            Category.DRAWDOWN,
            f"{name} approaches its drawdown limit",
            text,
            name,
            key,
        )
        return msgspec.structs.replace(book, warned=True), None, [note]
    if drawdown < OVER_BELOW * limit and book.warned and not book.paused:
        note = AlertDraft(
            Level.INFO, Category.DRAWDOWN, f"{name} drawdown over", "", name, key, resolves=True
        )
        return msgspec.structs.replace(book, warned=False), None, [note]
    return book, None, []


def _fail_closed(
    before: StrategyBook, status: StrategyStatus, real: bool
) -> tuple[StrategyBook, str | None, list[AlertDraft]]:
    after = msgspec.structs.replace(before, real=real, paused=real)
    if not real or before.paused:
        return after, None, []
    reason = "reports a figure that is not a number"
    note = AlertDraft(
        Level.WARNING,
        Category.DRAWDOWN,
        f"{status.name} paused",
        reason,
        status.name,
        f"paused:{status.name}",
    )
    return after, reason, [note]


def _with_flows(state: GuardState, external_minor: int) -> GuardState:
    """Deposits buy units at the last NAV per unit, withdrawals redeem them; the first one buys
    them at 1.
    """
    flow = external_minor - state.external_minor
    if state.units <= 0:  # the first deposit, or one after everything was withdrawn
        units = max(0.0, flow / (state.peak_per_unit or 1.0))
    elif flow and state.nav_minor > 0:
        units = state.units * (1 + flow / state.nav_minor)
    else:
        units = state.units
    return msgspec.structs.replace(state, external_minor=external_minor, units=units)


def _fund(
    state: GuardState, nav: int, settings: GuardSettings
) -> tuple[GuardState, str | None, list[AlertDraft]]:
    # A fund that was withdrawn to the last unit has lost nothing.
    per_unit = nav / state.units if state.units > 0 else state.peak_per_unit
    peak = max(state.peak_per_unit, per_unit)
    drawdown = _percent_below(per_unit, peak)
    limit = settings.max_fund_drawdown_pct
    breaches = state.breaches + 1 if drawdown >= limit else 0
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
                "drawdown:fund",
            )
        ]
    elif drawdown < OVER_BELOW * limit and warned:
        warned = False
        notes = [
            AlertDraft(
                Level.INFO,
                Category.DRAWDOWN,
                "Fund drawdown over",
                "",
                None,
                "drawdown:fund",
                resolves=True,
            )
        ]
    after = msgspec.structs.replace(
        state,
        peak_per_unit=peak,
        nav_minor=nav,
        drawdown=drawdown,
        breaches=breaches,
        warned=warned,
    )
    kill = None
    if breaches >= settings.kill_confirm_ticks:
        kill = f"Fund drawdown {drawdown:.1f}% exceeded limit {limit:.1f}%"
    return after, kill, notes
