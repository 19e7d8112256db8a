"""The strategies as the guard counts them: P&L over all runs, drawdown, when to pause. Pure.

P&L is cumulative over all runs of the engine's counters: counters that restart are carried over and
never reset a drawdown. Paper and shadow P&L is hypothetical and no part of a fund's. Without a
denominator no drawdown is said.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence, Set
from typing import NamedTuple

from msgspec.structs import replace

from ...wire.aftermath import NOT_KNOWN, aftermath
from ...wire.alert import AlertDraft, Category, Level, resolved
from ...wire.controller import StrategyStatus
from ...wire.guard import Pause, StrategyBook
from ...wire.money import from_minor, minor_of_float
from ...wire.promotion import EntitlementTerms
from ...wire.shell import PERSON, shell_command
from .entitle import above, trades_real
from .limits import OBSERVED, OVER_BELOW, WARN_AT, percent_below
from .settings import GuardSettings

__all__ = ["Books", "closed", "counters_confirmed", "look_at_strategies", "with_leavers"]


class Books(NamedTuple):
    """The books of all strategies after a look, with the pauses and alerts that follow."""

    books: Mapping[str, StrategyBook]
    pauses: Sequence[Pause]
    alerts: Sequence[AlertDraft]
    mover: str


def look_at_strategies(
    before_by_name: Mapping[str, StrategyBook],
    settings: GuardSettings,
    statuses: Sequence[StrategyStatus],
    terms_by_name: Mapping[str, EntitlementTerms] | None,
    capital_minor: int,
    session: str,
    observing: bool,
) -> Generator[None, None, Books]:
    """The books after these statuses, a piece for each; one that is not listed keeps its book."""
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
        after = replace(
            after,
            had_real=before.had_real or before.real or real or live,
            above=bool(beyond),
            left=False,
            closing=closing,
        )
        books[name] = after
        alerts += notes
        if _is_uncounted(after) != _is_uncounted(before):
            alerts.append(_uncounted(after, status))
        if before.left:
            alerts.append(
                resolved(Category.GENERAL, f"{name} is listed again", f"left:{name}", name)
            )
        if before.would_pause and not observing:
            title = f"{name} is paused at its limit from now on, in mode act"
            alerts.append(resolved(Category.DRAWDOWN, title, f"{OBSERVED}paused:{name}", name))
        told = before.warned or before.would_pause
        lost_real = before.real and not after.real
        if not after.paused and (before.paused or (lost_real and told)):
            alerts += closed(name, "has no real money left to lose")
        pauses += [Pause(name, pause)] if pause else []
        made = after.real_pnl_minor - before.real_pnl_minor
        if made < worst:
            worst, mover = made, name
    return Books(books, pauses, alerts, mover)


def _with_base(book: StrategyBook, first: StrategyStatus) -> StrategyBook:
    """The book of a strategy that has not been reported yet, with the base of its P&L.

    With promotion P&L counts from the first status: a strategy that is adopted has traded before,
    and the capital contains its result. Without promotion it counts from 0.
    """
    figures = _figures(first)
    if figures is None:
        return book
    return replace(book, pnl_minor=figures.realized + figures.unrealized)


def with_leavers(found: Books, listed: Set[str]) -> Books:
    """Tell which strategies with real money the engine no longer lists."""
    books, alerts = dict(found.books), list(found.alerts)
    for name, book in found.books.items():
        if name not in listed and book.real and not book.left:
            books[name] = replace(book, left=True)
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


def _is_uncounted(book: StrategyBook) -> bool:
    """Whether positions that had real money are open, and their P&L no longer counts."""
    return book.unwinding and book.closing is None and book.state != "retired"


def _uncounted(book: StrategyBook, status: StrategyStatus) -> AlertDraft:
    name, key = status.name, f"uncounted:{status.name}"
    if not _is_uncounted(book):
        title = f"{name} has no uncounted real positions any more"
        return resolved(Category.GENERAL, title, key, name)
    text = (
        "it lost its real stage, and the session ended before its positions were closed: their P&L"
        " cannot be told from that of paper and no longer counts in NAV. "
    ) + aftermath(
        (),
        left_open=f"positions with an unrealized P&L of {status.unrealized_pnl:,.2f}",
        next_act="none",
        undo="close them at the engine or the venue, which fund.may_close still allows",
    )
    title = f"{name} has real positions that no longer count"
    return AlertDraft(Level.CRITICAL, Category.GENERAL, title, text, name, key)


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


def counters_confirmed(name: str, by: str) -> AlertDraft:
    """The end of the alert that the engine's counters restarted."""
    return resolved(
        Category.GENERAL,
        f"{name}: restart of the counters confirmed by {by}",
        f"counters:{name}",
        name,
    )


def closed(name: str, why: str) -> list[AlertDraft]:
    """The alerts that resolve those of a strategy; one whose key is not open stays silent."""
    return [
        resolved(Category.DRAWDOWN, f"{name} {why}", f"{topic}:{name}", name)
        for topic in ("paused", f"{OBSERVED}paused", "drawdown")
    ]


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
    # demotion until the positions are gone or the session ends: closing them costs as much as any
    # other trade. An engine reports no positions, but without any it has no unrealized P&L.
    counts = real or before.real or (before.unwinding and before.closing is not None)
    made = pnl - before.pnl_minor if counts else 0
    # Without equity and without an allocation there is nothing to measure a loss against, and the
    # figures that were known stand; also where all capital was taken away.
    worth = figures.equity
    if worth is None and figures.allocated:
        worth = figures.allocated + pnl
    empty = worth == 0 and not figures.allocated
    if empty:
        worth = None
    allocated = before.allocated_minor if worth is None else figures.allocated
    if real and live and not before.entitled:  # no word of the engine alone begins it anew
        peak = worth or 0
    elif worth is None:
        peak = before.peak_minor
    else:
        peak = max(_rescaled_peak(before, figures.allocated, worth), worth)
    after = replace(
        counted,
        pnl_minor=pnl,
        real_pnl_minor=before.real_pnl_minor + made,
        real=real,
        allocated_minor=allocated,
        worth_minor=before.worth_minor if worth is None else worth,
        peak_minor=peak,
        empty=empty or (before.empty and worth is None),
        entitled=live and (real or before.entitled),
        # A stage without real money is a way out, if promotion says so and not the engine alone.
        paused=before.paused and (real or live),
        would_pause=before.would_pause and real and observing,
        state=status.state,
        realized_minor=figures.realized,
        n_trades=status.n_trades,
        run=before.run if status.run is None else status.run,
        unwinding=(before.real or before.unwinding) and not real and figures.unrealized != 0,
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
    after = replace(before, carried_minor=carried)
    if certain or not real:
        return after, []
    text = (
        f"realized P&L went from {from_minor(before.realized_minor):,.2f} to"
        f" {from_minor(realized):,.2f}, trades from {before.n_trades:,} to {status.n_trades:,}: the"
        " old total is carried over; fund.confirm_counters says that this is right"
    )
    title, key = f"{status.name}: the engine's counters restarted", f"counters:{status.name}"
    note = AlertDraft(Level.CRITICAL, Category.GENERAL, title, text, status.name, key)
    return replace(after, restarted=True), [note]


def _rescaled_peak(before: StrategyBook, allocated: int, worth: int) -> int:
    """Capital given to a strategy or taken from it is no performance: the peak moves as the
    equity does. Where all was taken away the drawdown stays.
    """
    flow = allocated - before.allocated_minor
    if before.worth_minor <= 0 or not (flow or before.empty):
        return before.peak_minor
    moved = before.worth_minor + flow
    if before.empty or moved <= 0:
        moved = worth
    return before.peak_minor * moved // before.worth_minor


def _judge_drawdown(
    book: StrategyBook, name: str, worth: int, settings: GuardSettings
) -> tuple[StrategyBook, str | None, list[AlertDraft]]:
    drawdown = percent_below(worth, book.peak_minor)
    limit = settings.max_strategy_drawdown_pct
    key = f"drawdown:{name}"
    if not book.real:
        return replace(book, warned=False), None, []
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
        return replace(book, paused=True, warned=True), reason, [note]
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
        return replace(book, warned=True), None, [note]
    if drawdown < OVER_BELOW * limit and book.warned and not book.paused:
        note = resolved(Category.DRAWDOWN, f"{name} drawdown over", key, name)
        return replace(book, warned=False), None, [note]
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
            replace(judged, would_pause=book.would_pause and not over),
            None,
            notes,
        )
    judged = replace(judged, paused=False, would_pause=True)
    if book.would_pause:
        return judged, None, []
    text = f"{reason}; mode is observe, so its lease and the engine go on"
    key = f"{OBSERVED}paused:{name}"
    note = AlertDraft(Level.WARNING, Category.DRAWDOWN, f"{name} would be paused", text, name, key)
    return judged, None, [note]
