"""Drives a fund and a replay engine through a window of sessions, in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from fundops.fund import Fund
from fundops.replay.engine import TICK_US, TICKS_PER_SESSION, ReplayEngine, session_open_us
from fundops.replay.prices import Bar
from fundops.runtime import FundopsError, VirtualClock
from fundops.wire.oversight import TickReport

__all__ = ["replay"]


async def _no_look(_session: int, _report: TickReport) -> None:
    """Look at nothing."""


async def replay(
    fund: Fund,
    engine: ReplayEngine,
    clock: VirtualClock,
    window: Sequence[Bar],
    *,
    drills: dict[int, str] | None = None,
    on_tick: Callable[[int, TickReport], Awaitable[None]] = _no_look,
    on_session: Callable[[int], None] = lambda _: None,
) -> None:
    """Run every session of the window, ten ticks each.

    `drills` maps a session (from 0) to an actor to crash at its start. `on_tick` hears of each tick
    with its session (from 0), `on_session` of each session that is done with its number (from 1).

    Each tick waits for its own commits and for the restarts it began, so the same inputs give the
    same database.

    Raises: `FundopsError` when a step of a tick fails, since the rest would no longer be a replay
    of the inputs.
    """
    engine.may_trade = fund.may_trade
    for session, bar in enumerate(window):
        if drills and session in drills:
            fund.drill(drills[session])
        opened_us = session_open_us(bar)
        for tick in range(1, TICKS_PER_SESSION + 1):
            clock.advance_to(opened_us + (tick - 1) * TICK_US)
            engine.before_tick(session, tick)
            report = await fund.tick(bar.day.isoformat() if tick == TICKS_PER_SESSION else None)
            if report.failed:
                failed = ", ".join(report.failed)
                raise FundopsError(f"replay stopped on {bar.day}, tick {tick}: cannot do {failed}")
            await fund.host.acts.idle()
            engine.after_tick(session, tick)
            await on_tick(session, report)
        on_session(session + 1)
