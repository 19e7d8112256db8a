"""Tells what happens in a replay as it happens: moves between stages, breakers, the kill switch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fundops.fund import Fund
from fundops.replay.figures import Happening
from fundops.replay.prices import Bar
from fundops.wire.oversight import TickReport
from fundops.wire.promotion import HistoryEntry

__all__ = ["Events"]


class Events:
    """Looks at the fund after each tick, and keeps and tells each happening once.

    It asks the fund only where the tick's own report names a move, and at a session's end for
    breakers and the kill switch.
    """

    def __init__(
        self, fund: Fund, window: Sequence[Bar], tell: Callable[[Happening], None]
    ) -> None:
        self._fund = fund
        self._window = window
        self._tell = tell
        self._seen_seq = 0
        self._open: set[str] = set()
        self._killed = False
        self.happenings: list[Happening] = []

    @property
    def open_breakers(self) -> tuple[str, ...]:
        """The strategies whose breaker is open, by name."""
        return tuple(sorted(self._open))

    async def look(self, session: int, report: TickReport) -> None:
        """Look after one tick of a session (from 0)."""
        if report.promotions or report.demotions:
            await self._moves(session, report.promotions + report.demotions)
        if report.sessions:
            await self._switches(session)

    async def _moves(self, session: int, count: int) -> None:
        newest = await self._fund.promotion.history(limit=2 * count)
        for line in sorted(newest, key=lambda line: line.seq):
            if line.seq > self._seen_seq and line.kind in ("promote", "demote"):
                self._seen_seq = line.seq
                self._add(self._move(session, line))

    def _move(self, session: int, line: HistoryEntry) -> Happening:
        return Happening(
            session,
            self._window[session].day.isoformat(),
            "promote" if line.kind == "promote" else "demote",
            line.strategy,
            "" if line.from_stage is None else line.from_stage.value,
            line.to_stage.value,
            line.reason,
        )

    async def _switches(self, session: int) -> None:
        status = await self._fund.status()
        day = self._window[session].day.isoformat()
        if status.breakers_open != len(self._open):
            statuses = await self._fund.recovery.statuses()
            found = {
                strategy.name: strategy.reason for strategy in statuses if strategy.breaker_open
            }
            for name in sorted(found.keys() - self._open):
                self._add(Happening(session, day, "breaker", name, reason=found[name] or ""))
            self._open = {*found}
        killed = status.kill_switch != "OFF"
        if killed and not self._killed:
            latch = await self._fund.kill_switch.status()
            self._add(Happening(session, day, "kill switch", reason=latch.reason))
        self._killed = killed

    def _add(self, happening: Happening) -> None:
        self.happenings.append(happening)
        self._tell(happening)
