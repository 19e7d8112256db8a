"""The judgement of the guard: NAV, drawdowns, when to stop. Pure functions, money in minor units.

NAV = net external flows + real P&L + P&L that the ledger booked without a strategy - fees. Paper
and shadow P&L is hypothetical and never part of it. Drawdown is measured on NAV per unit, where a
deposit buys units and a withdrawal redeems them: neither is performance. P&L is cumulative over all
runs of the engine's counters: counters that restart are carried over and never reset a drawdown.
Without a denominator no drawdown is said.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence, Set
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from ...runtime import COUNT_MAX, Settings
from ...wire.aftermath import NOT_KNOWN, aftermath
from ...wire.alert import AlertDraft, Category, Level
from ...wire.controller import KillAction, StrategyStatus
from ...wire.guard import (
    FeeTerms,
    GuardState,
    KillStatus,
    Pause,
    PricedFlow,
    Released,
    StrategyBook,
)
from ...wire.money import from_minor, minor_of_float
from ...wire.promotion import EntitlementTerms
from ...wire.shell import PERSON, shell_command
from .daily import judge_daily_loss, opened
from .entitle import above, trades_real
from .scope import KillScope
from .units import after_flow

__all__ = [
    "GuardSettings",
    "Look",
    "closed",
    "counters_confirmed",
    "look",
    "performance_fee",
    "rearmed",
    "released",
]

# Warn from 80% of a limit, and call it over below 75%: one alert per approach, not one per wobble.
WARN_AT = 0.80
OVER_BELOW = 0.75
# The part of the configured capital that a fund without units may owe and has lost nothing.
SPARED_OF_CAPITAL = 1e-6
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
        int,
        Meta(
            ge=1,
            le=COUNT_MAX,
            description="ticks in a row that must see the breach before the kill",
        ),
    ] = 1
    kill_action: Annotated[
        KillAction,
        Meta(
            description="'halt' cancels orders; 'flatten' also closes positions; 'freeze' touches"
            " nothing"
        ),
    ] = "halt"
    kill_scope: Annotated[
        KillScope,
        Meta(
            description="'live' stops strategies with real money, and paper and shadow go on;"
            " 'all' stops all"
        ),
    ] = "live"
    flatten_confirm_ticks: Annotated[
        int,
        Meta(
            ge=1,
            le=COUNT_MAX,
            description="ticks in a row with the breach before 'flatten' closes positions",
        ),
    ] = 3
    lease_s: Annotated[
        float,
        Meta(gt=0, le=86_400, description="seconds; how long an entitlement lasts after a tick"),
    ] = 30.0
    host_silent_s: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="seconds without a word of the host, and at least 3 ticks, until it is"
            " silent",
        ),
    ] = 10.0
    max_blind_s: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="seconds without a word of the host, with real money live, until on_blind",
        ),
    ] = 60.0
    on_blind: Annotated[
        Literal["reduce", "kill"],
        Meta(description="'reduce' lets the leases run out; 'kill' engages the kill switch"),
    ] = "reduce"
    max_daily_loss_pct: Annotated[
        float | None,
        Meta(
            gt=0,
            le=100,
            description="percent of the NAV at the session's opening; no new risk until the next"
            " session; None: off",
        ),
    ] = None


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


class _Books(NamedTuple):
    """The books of all strategies after a look, with the pauses and alerts that follow."""

    books: Mapping[str, StrategyBook]
    pauses: Sequence[Pause]
    alerts: Sequence[AlertDraft]
    mover: str


def performance_fee(fees: FeeTerms, net_minor: int, units: float) -> int:
    """The performance fee on `net_minor`, the NAV after all other fees; 0 up to the mark."""
    if units <= 0:
        return 0
    gain = net_minor - fees.mark_per_unit * units
    return max(0, int(gain * fees.performance_pct / 100))


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
        found = _Books(state.strategies, (), (), "")
    else:
        found = yield from _look_at_all(
            state.strategies, settings, statuses, terms, capital_minor, session, observing
        )
        if listed:
            found = _with_leavers(found, aside | {status.name for status in statuses})
    books = found.books
    earned = earned_minor + sum(book.real_pnl_minor for book in books.values())
    gross = external_minor + earned - posted_fees_minor
    before = _with_flows(state, external_minor, flows)
    # P&L in the books is news, too. Fees accrue by themselves and confirm nothing.
    news = news or earned_minor != state.earned_minor
    fund, kill, fund_notes, performance, problem = _worth(
        before, settings, gross, gross - accrued_fees_minor, fees, capital_minor, news=news
    )
    if problem:
        fund = state
    else:
        per_unit = fund.per_unit
        opening = opened(state, session, opening_nav_minor, per_unit)
        fund = msgspec.structs.replace(
            fund,
            earned_minor=earned_minor,
            opening_session=opening.opening_session,
            opening_per_unit=opening.opening_per_unit,
        )
        limit_pct = settings.max_daily_loss_pct
        daily = judge_daily_loss(fund, per_unit, session, limit_pct, observing=observing)
        fund, fund_notes = daily.state, [*fund_notes, *daily.alerts]
    any_live = any(book.real and not book.left for book in books.values())
    # A fund without strategies, such as one that keeps books alone, misses no word of a host.
    silent_s = blind_s if books else 0.0
    spoken = listed or bool(statuses)
    told, silence_notes = _silence(fund, settings, silent_s, any_live=any_live, spoken=spoken)
    emergency = ""
    if told.blind and silent_s:
        limit_s = settings.max_blind_s
        why = f"host silent for {blind_s:.0f} s with real money live, limit {limit_s:.0f} s"
        if settings.on_blind == "kill":
            kill = why
        else:
            emergency = why
    if observing:
        told, kill, kill_notes = _would_kill(told, kill)
        silence_notes += kill_notes
    return Look(
        msgspec.structs.replace(
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
        performance,
        problem,
        emergency,
    )


def _would_kill(state: GuardState, kill: str | None) -> tuple[GuardState, None, list[AlertDraft]]:
    """Mode observe: tell once that the kill switch would engage, and once that it no more would."""
    if (kill is not None) == state.would_kill:
        return state, None, []
    note = (
        _over(Category.KILL_SWITCH, "Kill switch would no longer engage", None, "kill")
        if kill is None
        else AlertDraft(
            Level.CRITICAL,
            Category.KILL_SWITCH,
            "Kill switch would engage",
            f"{kill}; mode is observe, so the leases and the engine go on",
            None,
            "kill",
        )
    )
    return msgspec.structs.replace(state, would_kill=kill is not None), None, [note]


def rearmed(state: GuardState, *, keep_peak: bool) -> GuardState:
    """The memory after a release: the drawdown begins anew, or the peak stays."""
    peak = state.peak_per_unit if keep_peak else state.per_unit
    return msgspec.structs.replace(
        state, peak_per_unit=peak, breaches=0, warned=False, kill_state="OFF"
    )


def released(state: GuardState, status: KillStatus) -> Released:
    """The answer to a release: the NAV of the next stop, and how far it is below the peak."""
    fields = msgspec.structs.asdict(status)
    highest = max(state.highest_per_unit, state.peak_per_unit)
    if state.units <= 0 or highest <= 0 or not state.limit_pct:
        return Released(**fields)
    stop_per_unit = state.peak_per_unit * (1 - state.limit_pct / 100)
    return Released(
        **fields,
        next_stop_nav=from_minor(round(stop_per_unit * state.units)),
        next_stop_below_peak_pct=round(_percent_below(stop_per_unit, highest), 6),
    )


def _worth(
    state: GuardState,
    settings: GuardSettings,
    gross: int,
    net: int,
    fees: FeeTerms,
    capital_minor: int,
    *,
    news: bool,
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
    performance = performance_fee(fees, net, state.units)
    fund, kill, notes = _fund(state, settings, net - performance, capital_minor, news=news)
    return fund, kill, notes, performance, ""


def _look_at_all(
    before_by_name: Mapping[str, StrategyBook],
    settings: GuardSettings,
    statuses: Sequence[StrategyStatus],
    terms_by_name: Mapping[str, EntitlementTerms] | None,
    capital_minor: int,
    session: str,
    observing: bool,
) -> Generator[None, None, _Books]:
    books = dict(before_by_name)
    pauses: list[Pause] = []
    alerts: list[AlertDraft] = []
    worst, mover = 0, ""
    for status in statuses:
        yield
        name = status.name
        terms = None if terms_by_name is None else terms_by_name.get(name)
        before = books.get(name, StrategyBook())
        if terms_by_name is not None and not before.state:
            before = _with_base(before, status)
        real = trades_real(status, terms_by_name)
        live = terms_by_name is None or (terms is not None and terms.mode == "live")
        after, pause, notes = _strategy(
            before, status, real, settings, live=live, observing=observing
        )
        closing = _closing(before, real=after.real, session=session)
        beyond = above(status, terms, capital_minor) if terms is not None else ""
        after = msgspec.structs.replace(
            after,
            had_real=before.had_real or before.real or real or live,
            above=bool(beyond),
            left=False,
            closing=closing,
            unwinding=after.unwinding and closing is not None,
        )
        books[name] = after
        alerts += notes
        if before.left:
            alerts.append(_over(Category.GENERAL, f"{name} is listed again", name, f"left:{name}"))
        told = before.warned or before.would_pause
        lost_real = before.real and not after.real
        if not after.paused and (before.paused or (lost_real and told)):
            alerts += closed(name, "has no real money left to lose")
        pauses += [Pause(name, pause)] if pause else []
        made = after.real_pnl_minor - before.real_pnl_minor
        if made < worst:
            worst, mover = made, name
    return _Books(books, pauses, alerts, mover)


def _with_base(book: StrategyBook, first: StrategyStatus) -> StrategyBook:
    """The book of a strategy that has not been reported yet, with the base of its P&L.

    With promotion P&L counts from the first status: a strategy that is adopted has traded before,
    and the capital contains its result. Without promotion it counts from 0.
    """
    figures = _figures(first)
    if figures is None:
        return book
    return msgspec.structs.replace(book, pnl_minor=figures.realized + figures.unrealized)


def _with_leavers(found: _Books, listed: Set[str]) -> _Books:
    """Tell which strategies with real money the engine no longer lists."""
    books, alerts = dict(found.books), list(found.alerts)
    for name, book in found.books.items():
        if name not in listed and book.real and not book.left:
            books[name] = msgspec.structs.replace(book, left=True)
            if book.state not in ("stopped", "retired"):
                alerts.append(_left(name))
    return found._replace(books=books, alerts=alerts)


def _closing(before: StrategyBook, *, real: bool, session: str) -> str | None:
    """The session in which its real stage was lost, while that session runs; else None."""
    if real:
        return None
    if before.real:
        return session
    return before.closing if before.closing == session else None


def _left(name: str) -> AlertDraft:
    text = "it had real money; it counts as stopped, and its P&L stands"
    return AlertDraft(
        Level.CRITICAL,
        Category.GENERAL,
        f"{name} left the engine's list",
        text,
        name,
        f"left:{name}",
    )


def _over(category: Category, title: str, name: str | None, key: str) -> AlertDraft:
    return AlertDraft(Level.INFO, category, title, "", name, key, resolves=True)


def counters_confirmed(name: str, by: str) -> AlertDraft:
    """The end of the alert that the engine's counters restarted."""
    return _over(
        Category.GENERAL,
        f"{name}: restart of the counters confirmed by {by}",
        name,
        f"counters:{name}",
    )


def _silence(
    state: GuardState, settings: GuardSettings, blind_s: float, *, any_live: bool, spoken: bool
) -> tuple[GuardState, list[AlertDraft]]:
    """Tell a silence once, that it lasts too long once, and its end.

    A silence of before a restart goes on until the host has `spoken`.
    """
    blind = blind_s >= settings.max_blind_s and any_live
    notes: list[AlertDraft] = []
    if blind_s and not state.silent:
        text = f"its last word is {blind_s:.0f} s old; no lease is renewed and NAV stands still"
        notes.append(
            AlertDraft(Level.WARNING, Category.GENERAL, "Host silent", text, None, "silent")
        )
    if blind and not state.blind:
        act = (
            "the kill switch engages" if settings.on_blind == "kill" else "only reducing is allowed"
        )
        text = f"no word for {blind_s:.0f} s, limit {settings.max_blind_s:.0f} s: {act}"
        notes.append(
            AlertDraft(
                Level.CRITICAL,
                Category.GENERAL,
                "Host silent with real money live",
                text,
                None,
                "blind",
            )
        )
    over = not blind_s and spoken
    if over:
        if state.silent:
            notes.append(_over(Category.GENERAL, "Host reports again", None, "silent"))
        if state.blind:
            notes.append(_over(Category.GENERAL, "Host reports again", None, "blind"))
    silent_told = bool(blind_s) or (state.silent and not over)
    blind_told = blind or (state.blind and not over)
    return msgspec.structs.replace(state, silent=silent_told, blind=blind_told), notes


def closed(name: str, why: str) -> list[AlertDraft]:
    """The alerts that resolve those of a strategy; one whose key is not open stays silent."""
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


class _Figures(NamedTuple):
    """A status in minor units."""

    realized: int
    unrealized: int
    allocated: int
    equity: int | None  # None: not reported


def _figures(status: StrategyStatus) -> _Figures | None:
    """None when one of them is no amount: then none of them is taken."""
    realized = minor_of_float(status.realized_pnl)
    unrealized = minor_of_float(status.unrealized_pnl)
    allocated = minor_of_float(status.allocated)
    equity = None if status.equity is None else minor_of_float(status.equity)
    if realized is None or unrealized is None or allocated is None:
        return None
    if status.equity is not None and equity is None:
        return None
    return _Figures(realized, unrealized, allocated, equity)


def _strategy(
    before: StrategyBook,
    status: StrategyStatus,
    real: bool,
    settings: GuardSettings,
    *,
    live: bool,
    observing: bool,
) -> tuple[StrategyBook, str | None, list[AlertDraft]]:
    """The strategy's book, why to pause it (None: it may go on), and what to say.

    `live`: it is entitled to real money, whatever stage the engine names.
    """
    figures = _figures(status)
    if figures is None:  # the border lets no such status in; the last good figures stand
        return before, None, []
    counted, notes = _counted(before, status, figures.realized, real=real)
    pnl = counted.carried_minor + figures.realized + figures.unrealized
    # P&L between two looks is real if it was made on either side of a change of stage, and after a
    # demotion until the positions are gone: closing them costs as much as any other trade. An
    # engine reports no positions, but without any it has no unrealized P&L.
    was_real = before.real or before.unwinding
    made = pnl - before.pnl_minor if real or was_real else 0
    # Without equity and without an allocation there is nothing to measure a loss against, and the
    # figures that were known stand.
    worth = figures.equity
    if worth is None and figures.allocated:
        worth = figures.allocated + pnl
    allocated = before.allocated_minor if worth is None else figures.allocated
    if real and live and not before.entitled:  # no word of the engine alone begins it anew
        peak = worth or 0
    elif worth is None:
        peak = before.peak_minor
    else:
        peak = max(_rescaled_peak(before, figures.allocated), worth)
    after = msgspec.structs.replace(
        counted,
        pnl_minor=pnl,
        real_pnl_minor=before.real_pnl_minor + made,
        real=real,
        allocated_minor=allocated,
        worth_minor=before.worth_minor if worth is None else worth,
        peak_minor=peak,
        entitled=live and (real or before.entitled),
        # A stage without real money is a way out, if promotion says so and not the engine alone.
        paused=before.paused and (real or live),
        would_pause=before.would_pause and real and observing,
        state=status.state,
        realized_minor=figures.realized,
        n_trades=status.n_trades,
        run=before.run if status.run is None else status.run,
        unwinding=was_real and not real and figures.unrealized != 0,
    )
    if worth is None:
        return after, None, notes
    judge = _judge_unacted if observing else _judge_drawdown
    judged, pause, drawdown_notes = judge(after, status.name, worth, settings)
    return judged, pause, [*notes, *drawdown_notes]


def _counted(
    before: StrategyBook, status: StrategyStatus, realized: int, *, real: bool
) -> tuple[StrategyBook, list[AlertDraft]]:
    """The book with what earlier runs of the engine's counters realized.

    A new `run` says that they restarted. Without one a jump of P&L to exactly 0 or a fall of the
    number of trades is taken for a restart, and a person is asked: read as a loss or a gain it
    could hide a drawdown, or make one up. Where P&L did not move, the count alone was corrected.
    """
    if before.run is not None and status.run is not None:
        restarted, certain = status.run != before.run, True
    else:
        moved = realized != before.realized_minor
        restarted, certain = moved and (realized == 0 or status.n_trades < before.n_trades), False
    if not restarted:
        return before, []
    carried = before.carried_minor + before.realized_minor
    after = msgspec.structs.replace(before, carried_minor=carried)
    if certain or not real:
        return after, []
    text = (
        f"realized P&L went from {from_minor(before.realized_minor):,.2f} to"
        f" {from_minor(realized):,.2f}, trades from {before.n_trades:,} to {status.n_trades:,}: the"
        " old total is carried over; fund.confirm_counters says that this is right"
    )
    title, key = f"{status.name}: the engine's counters restarted", f"counters:{status.name}"
    note = AlertDraft(Level.CRITICAL, Category.GENERAL, title, text, status.name, key)
    return msgspec.structs.replace(after, restarted=True), [note]


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
        text = f"{reason}. " + aftermath(
            (name,),
            left_open=NOT_KNOWN,
            next_act="the engine is told to pause it; promotion may demote it at its next look",
            undo=shell_command("strategy resume", name, PERSON),
        )
        note = AlertDraft(
            Level.WARNING, Category.DRAWDOWN, f"{name} paused", text, name, f"paused:{name}"
        )
        return msgspec.structs.replace(book, paused=True, warned=True), reason, [note]
    if drawdown >= WARN_AT * limit and not (book.warned or book.paused):
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


def _judge_unacted(
    book: StrategyBook, name: str, worth: int, settings: GuardSettings
) -> tuple[StrategyBook, str | None, list[AlertDraft]]:
    """As `_judge_drawdown` in mode observe: it tells once what would be done, and does nothing."""
    judged, reason, notes = _judge_drawdown(book, name, worth, settings)
    if reason is None:
        over = book.would_pause and not judged.warned
        notes = closed(name, "would no longer be paused") if over else notes
        return (
            msgspec.structs.replace(judged, would_pause=book.would_pause and not over),
            None,
            notes,
        )
    judged = msgspec.structs.replace(judged, paused=False, would_pause=True)
    if book.would_pause:
        return judged, None, []
    text = f"{reason}; mode is observe, so its lease and the engine go on"
    note = AlertDraft(
        Level.WARNING, Category.DRAWDOWN, f"{name} would be paused", text, name, f"paused:{name}"
    )
    return judged, None, [note]


def _with_flows(state: GuardState, external_minor: int, flows: Sequence[PricedFlow]) -> GuardState:
    """The memory with the external change since the look before; that of no flow comes first.

    A flow is taken once, also when the answer to that look was lost and it is told again.
    """
    new = [flow for flow in flows if state.seq is None or flow.seq > state.seq]
    rest = external_minor - state.external_minor - sum(flow.amount_minor for flow in new)
    units = after_flow(state.units, state.nav_minor, state.price, rest)
    for flow in new:
        units = after_flow(units, flow.nav_minor, state.price, flow.amount_minor)
    return msgspec.structs.replace(state, external_minor=external_minor, units=units)


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
    drawdown = _percent_below(per_unit, peak)
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
