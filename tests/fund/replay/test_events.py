"""Happenings of a replay are told once each, in the session in which they happen."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any

from fundops.replay.events import Events
from fundops.replay.figures import Happening
from fundops.replay.prices import Bar
from fundops.wire.oversight import TickReport
from fundops.wire.promotion import HistoryEntry, PromotionStage
from fundops.wire.recovery import RecoveryPhase, RecoveryStatus

WINDOW = [Bar(dt.date(2026, 1, 5) + dt.timedelta(days=day), 1, 1, 1, 1, 1) for day in range(3)]


class _Fund:
    """The doors that `Events` asks, with answers that a test sets; it counts the questions."""

    def __init__(self) -> None:
        self.lines: list[HistoryEntry] = []
        self.statuses: list[RecoveryStatus] = []
        self.latch = SimpleNamespace(state="OFF", reason="")
        self.asked = 0
        self.promotion = SimpleNamespace(history=self._history)
        self.recovery = SimpleNamespace(statuses=self._statuses)
        self.kill_switch = SimpleNamespace(status=self._latch)

    async def _history(self, limit: int) -> tuple[HistoryEntry, ...]:
        self.asked += 1
        return tuple(sorted(self.lines, key=lambda line: -line.seq)[:limit])

    async def _statuses(self) -> tuple[RecoveryStatus, ...]:
        self.asked += 1
        return tuple(self.statuses)

    async def _latch(self) -> Any:
        return self.latch

    async def status(self) -> Any:
        self.asked += 1
        breakers = sum(status.breaker_open for status in self.statuses)
        return SimpleNamespace(breakers_open=breakers, kill_switch=self.latch.state)

    def move(self, kind: str, strategy: str, reason: str = "") -> None:
        """Add a change of stage between paper and shadow."""
        stages = (PromotionStage.Paper, PromotionStage.Shadow)
        before, after = stages if kind == "promote" else reversed(stages)
        seq = len(self.lines) + 1
        self.lines.append(
            HistoryEntry(seq, strategy, kind, before, after, 0, "promotion", reason, {}, "", seq)
        )


def _events() -> tuple[_Fund, Events, list[Happening]]:
    fund, told = _Fund(), list[Happening]()
    door: Any = fund
    return fund, Events(door, WINDOW, told.append), told


def _tick(promotions: int = 0, demotions: int = 0, *, ends: bool = False) -> TickReport:
    return TickReport(1, promotions, demotions, (), ("2026-01-05",) if ends else ())


async def test_moves_are_told_in_the_tick_that_made_them() -> None:
    fund, events, told = _events()
    fund.move("promote", "a")
    fund.move("promote", "b")
    await events.look(0, _tick(promotions=2))
    fund.move("demote", "a", "drawdown 11%")
    await events.look(1, _tick(demotions=1))
    assert told == [
        Happening(0, "2026-01-05", "promote", "a", "paper", "shadow"),
        Happening(0, "2026-01-05", "promote", "b", "paper", "shadow"),
        Happening(1, "2026-01-06", "demote", "a", "shadow", "paper", "drawdown 11%"),
    ]
    assert events.happenings == told


async def test_a_tick_without_news_asks_nothing() -> None:
    fund, events, told = _events()
    await events.look(0, _tick())
    assert (fund.asked, told) == (0, [])


async def test_a_breaker_is_told_once_and_again_after_a_reset() -> None:
    fund, events, told = _events()
    opened = RecoveryStatus("a", RecoveryPhase.OPEN, 3, None, "3 failed attempts", True)
    fund.statuses = [opened]
    for session in (0, 1):
        await events.look(session, _tick(ends=True))
    assert told == [Happening(0, "2026-01-05", "breaker", "a", reason="3 failed attempts")]
    assert events.open_breakers == ("a",)
    fund.statuses = []
    await events.look(1, _tick(ends=True))
    assert not events.open_breakers
    fund.statuses = [opened]
    await events.look(2, _tick(ends=True))
    assert [happening.session for happening in told] == [0, 2]


async def test_the_kill_switch_is_told_with_its_reason() -> None:
    fund, events, told = _events()
    fund.latch = SimpleNamespace(state="ENGAGED", reason="drawdown 15.2%")
    for session in (0, 1):
        await events.look(session, _tick(ends=True))
    assert told == [Happening(0, "2026-01-05", "kill switch", reason="drawdown 15.2%")]
