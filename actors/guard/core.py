"""The judgement of the guard: NAV, drawdowns, when to stop. Pure functions, money in minor units.

NAV = net external flows + real P&L + P&L that the ledger booked without a strategy - fees.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence, Set

import msgspec
from msgspec.structs import asdict, replace

from ...wire.alert import AlertDraft, Category, Level, resolved
from ...wire.controller import StrategyStatus
from ...wire.guard import FeeTerms, GuardState, KillStatus, Pause, PricedFlow, Released
from ...wire.money import from_minor
from ...wire.promotion import EntitlementTerms
from .daily import judge_daily_loss, opened
from .limits import OBSERVED, percent_below
from .settings import GuardSettings
from .silence import judge_silence
from .strategies import Books, look_at_strategies, with_leavers
from .worth import judge_worth

__all__ = ["Look", "look", "rearmed", "released"]


class Look(msgspec.Struct, frozen=True):
    """The findings of one look. `kill` is the reason to stop everything, or None."""

    state: GuardState
    gross_minor: int
    kill: str | None
    pauses: tuple[Pause, ...]
    alerts: tuple[AlertDraft, ...]
    mover: str = ""  # the strategy whose figures lowered NAV most at this look; "": none
    performance_minor: int = 0  # the performance fee accrued at these figures
    problem: str = ""  # why NAV could not be taken, and the one before stands; "": it was taken
    emergency: str = ""  # why the engine must be stopped without the kill switch; "": it must not


def look(
    state: GuardState,
    settings: GuardSettings,
    statuses: Sequence[StrategyStatus],
    terms: Mapping[str, EntitlementTerms] | None,
    *,
    external_minor: int,
    earned_minor: int = 0,
    posted_fees_minor: int,
    accrued_fees_minor: int,
    blind_s: float = 0.0,
    fees: FeeTerms = FeeTerms(),  # noqa: B008  immutable
    capital_minor: int,
    flows: Sequence[PricedFlow] = (),
    news: bool = True,
    session: str = "",
    listed: bool = True,
    aside: Set[str] = frozenset(),
    opening_nav_minor: int | None = None,
    observing: bool = False,
) -> Generator[None, None, Look]:
    """The state after this look, and the acts that it demands; a piece for each strategy.

    `blind_s` is the age of the host's last word while it is silent, else 0; `news`: it has said
    something since the look before. `session` is the last session that ended; `earned_minor` the
    P&L of no strategy. `flows` are those since the look before, each with NAV before it; an
    external change beside them is priced as of that look. `listed` False: the statuses are no whole
    list, so none has left it; those `aside` are listed with a status that is wrong. `observing`:
    nothing is paused or stopped, and the alerts say that it would be.
    """
    if blind_s:  # a host that says nothing changes nothing: it must never look like a profit
        found = Books(state.strategies, (), (), "")
    else:
        found = yield from look_at_strategies(
            state.strategies, settings, statuses, terms, capital_minor, session, observing
        )
        if listed:
            found = with_leavers(found, aside | {status.name for status in statuses})
    books = found.books
    earned = earned_minor + sum(book.real_pnl_minor for book in books.values())
    gross = external_minor + earned - posted_fees_minor
    worth = judge_worth(
        state,
        settings,
        gross_minor=gross,
        accrued_fees_minor=accrued_fees_minor,
        external_minor=external_minor,
        flows=flows,
        fees=fees,
        capital_minor=capital_minor,
        # P&L in the books is news, too. Fees accrue by themselves and confirm nothing.
        news=news or earned_minor != state.earned_minor,
    )
    fund, kill, fund_notes = worth.state, worth.kill, [*worth.alerts]
    if not worth.problem:
        per_unit = fund.per_unit
        opening = opened(state, session, opening_nav_minor, per_unit)
        fund = replace(
            fund,
            earned_minor=earned_minor,
            opening_session=opening.opening_session,
            opening_per_unit=opening.opening_per_unit,
        )
        limit_pct = settings.max_daily_loss_pct
        daily = judge_daily_loss(fund, per_unit, session, limit_pct, observing=observing)
        fund = daily.state
        fund_notes += daily.alerts
    any_live = any(book.real and not book.left for book in books.values())
    # A fund without strategies, such as one that keeps books alone, misses no word of a host.
    silent_s = blind_s if books else 0.0
    spoken = listed or bool(statuses)
    told, silence_notes = judge_silence(fund, settings, silent_s, any_live=any_live, spoken=spoken)
    emergency = ""
    if told.blind and silent_s:
        limit_s = settings.max_blind_s
        why = f"host silent for {blind_s:.0f} s with real money live, limit {limit_s:.0f} s"
        if settings.on_blind == "kill":
            kill = why
        else:
            emergency = why
    if not observing or state.kill_state == "OFF":  # else it is engaged, by a person
        told, kill_notes = _would_kill(told, kill if observing else None, observing=observing)
        silence_notes += kill_notes
    if observing:
        kill = None
    return Look(
        replace(
            told,
            strategies=books,
            limit_pct=settings.max_fund_drawdown_pct,
            highest_per_unit=max(state.highest_per_unit, told.peak_per_unit),
        ),
        gross,
        kill,
        tuple(found.pauses),
        (*found.alerts, *fund_notes, *silence_notes),
        found.mover,
        worth.performance_minor,
        worth.problem,
        emergency,
    )


def _would_kill(
    state: GuardState, kill: str | None, *, observing: bool
) -> tuple[GuardState, list[AlertDraft]]:
    """Tell once that mode observe kept the kill switch from engaging, and once that it no more
    does. `kill` None: nothing would engage it, or it does.
    """
    if (kill is not None) == state.would_kill:
        return state, []
    key = f"{OBSERVED}kill"
    if kill is None:
        title = "would no longer engage" if observing else "engages from now on, in mode act"
        note = resolved(Category.KILL_SWITCH, f"Kill switch {title}", key)
    else:
        text = f"{kill}; mode is observe, so the leases and the engine go on"
        title = "Kill switch would engage"
        note = AlertDraft(Level.CRITICAL, Category.KILL_SWITCH, title, text, None, key)
    return replace(state, would_kill=kill is not None), [note]


def rearmed(state: GuardState, *, keep_peak: bool) -> GuardState:
    """The memory after a release: the drawdown begins anew, or the peak stays."""
    peak = state.peak_per_unit if keep_peak else state.per_unit
    return replace(state, peak_per_unit=peak, breaches=0, kill_state="OFF")


def released(state: GuardState, status: KillStatus) -> Released:
    """The answer to a release: the NAV of the next stop, and how far it is below the peak."""
    fields = asdict(status)
    highest = max(state.highest_per_unit, state.peak_per_unit)
    if state.units <= 0 or highest <= 0 or not state.limit_pct:
        return Released(**fields)
    stop_per_unit = state.peak_per_unit * (1 - state.limit_pct / 100)
    return Released(
        **fields,
        next_stop_nav=from_minor(round(stop_per_unit * state.units)),
        next_stop_below_peak_pct=round(percent_below(stop_per_unit, highest), 6),
    )
