"""The steps of sessions: those whose end was missed end at the begin of a tick, the others with the
figures of the tick itself. While the wall clock is suspect none ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from msgspec.structs import replace

from ....runtime import in_pieces
from ....wire.controller import StrategyStatus
from ...calendar import End, calendar_of
from .. import closing, schema
from ..round import Effects, Round, applied, joined, nav_minor, paid_in_minor
from .step import Ports, Step
from .withdrawals import settled

__all__ = ["CloseStep", "SessionsStep"]


class SessionsStep(Step):
    """Accrues the fees up to now, and ends the sessions whose end was missed."""

    name: ClassVar[str] = "sessions"
    deadline_s: ClassVar[float | None] = None

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports)
        self._calendar = calendar_of(ports.settings.session)

    async def run(self, tick: Round) -> Effects:
        """Find the sessions that this tick ends.

        A withdrawal whose answer was lost is settled first: it is to change the fees as they were
        then. Raises: `FundopsError` while that cannot be; then no session ends.
        """
        found = await settled(self.ports, tick)
        if tick.suspect:
            return found
        tick = applied(tick, found)
        settings, memory = self.ports.settings, tick.memory
        due = closing.ends(
            memory,
            self._calendar,
            tick.named,
            now_us=tick.now_us,
            alive_since_us=self.ports.started_us,
            interval_s=settings.tick_interval_s,
        )
        if tick.named:
            memory = replace(memory, named=True)
        if due and settings.ledger_enabled:
            self.ports.host.statement.ask()
        missed = {end.session: _last_known(tick, end) for end in due if end.missed}
        kept = {session: await in_pieces(schema.kept(known)) for session, known in missed.items()}
        memory, lines = closing.begin(
            memory,
            settings,
            due,
            kept,
            now_us=tick.now_us,
            capital_minor=paid_in_minor(tick, self.ports.capital_minor),
        )
        return Effects(due=due, memory=memory, lines=lines, figures={**tick.figures, **missed})


class CloseStep(Step):
    """Ends the sessions that end with this tick's figures, and notes the tick."""

    name: ClassVar[str] = "session"
    deadline_s: ClassVar[float | None] = None

    async def run(self, tick: Round) -> Effects:
        """End the due sessions. An instant of a wrong clock notes no tick."""
        nav = nav_minor(tick, self.ports.capital_minor)
        found = Effects()
        for end in tick.due:
            if not end.missed:
                closed = await self._closed(tick, end, nav)
                found, tick = joined(found, closed), applied(tick, closed)
        if tick.due:
            found = joined(found, Effects(figures=_awaited(tick)))
        return found if tick.suspect else joined(found, _noted(tick))

    async def _closed(self, tick: Round, end: End, nav: int) -> Effects:
        silent = not (tick.is_heard and closing.had_tick(tick.memory, end, tick.now_us))
        statuses = () if silent else tick.statuses
        kept = await in_pieces(schema.kept(statuses))
        memory, lines = closing.close(tick.memory, self.ports.settings, end, kept, nav_minor=nav)
        return Effects(memory=memory, lines=lines, figures={**tick.figures, end.session: statuses})


def _last_known(tick: Round, end: End) -> tuple[StrategyStatus, ...]:
    """The engine's figures for a session whose end was missed; () when it gave none in it."""
    if not closing.took_place(end, tick.memory.tick_us):
        return ()
    if tick.heard_before_us:
        heard = closing.took_place(end, tick.heard_before_us)
        return tick.heard_before if heard else ()
    # After a crash the last word is not known, and the first one since must do.
    return tick.statuses if tick.is_heard else ()


def _awaited(tick: Round) -> Mapping[str, tuple[StrategyStatus, ...]]:
    """The figures of the sessions that a consumer has not taken."""
    waiting = {ending.session for ending in tick.memory.ending}
    return {key: tick.figures[key] for key in waiting & tick.figures.keys()}


def _noted(tick: Round) -> Effects:
    tick_us = max(tick.memory.tick_us, tick.now_us)
    # The names of sessions are forgotten here, and not before their sessions have ended.
    noted = Effects(memory=replace(tick.memory, tick_us=tick_us), named=())
    if not tick.is_heard:
        return noted
    return joined(noted, Effects(heard_before=tick.statuses, heard_before_us=tick.now_us))
