"""A week of a fund's life with restarts, crashes, steps of the clock, a silent engine and a locked
database at random points: each session ends exactly once, with the fees, the line of NAV and the
sample that a plain model of the calendar gives it.
"""

from __future__ import annotations

import random
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import apsw
import pytest

from fundops import PromotionStage
from fundops.actors.calendar import calendar_of
from fundops.actors.persistence import Reader, database
from fundops.runtime import VirtualClock
from fundops.testing import FakeController, VirtualFund, virtual_fund
from fundops.wire.controller import StrategyStatus

MONDAY_US = 1_767_571_200_000_000  # 2026-01-05 00:00 UTC
WEEK_US = 7 * 86_400_000_000
YEAR_BP_US = 10_000 * 365 * 86_400_000_000
CAPITAL = 100_000
FEE_BPS = 365  # 10 a day
CALENDARS = ("UTC day", "weekdays 16:00 America/New_York", "weekdays 17:30 Europe/London")


class SteppedClock(VirtualClock):
    """A virtual clock whose wall time can be set; its monotonic time goes on."""

    def step(self, seconds: float) -> None:
        self._now_us += round(seconds * 1_000_000)
        self._start_us += round(seconds * 1_000_000)


class Line(NamedTuple):
    session: str
    missed: bool
    nav: float
    fee: float


class Model:
    """The sessions of the contract, as plainly as they can be said; money as floats."""

    def __init__(self, session: str, now_us: int) -> None:
        self.calendar = calendar_of(session)
        self.cursor = self.calendar.newest(now_us).session
        self.accrued_us: int | None = None
        self.accrued, self.posted, self.pnl = 0.0, 0.0, 0.0
        self.base: float | None = None
        self.ticks: list[int] = []
        self.word: tuple[int, float] | None = None  # when, and the equity
        self.lines: list[Line] = []
        self.samples: list[tuple[str, float]] = []

    @property
    def nav(self) -> float:
        return CAPITAL + self.pnl - self.posted - self.accrued

    def _accrue(self, until_us: int, basis: float) -> None:
        if self.accrued_us is not None and until_us > self.accrued_us:
            self.accrued += basis * FEE_BPS * (until_us - self.accrued_us) / YEAR_BP_US
            self.accrued_us = until_us

    def tick(
        self, now_us: int, *, since_us: int, suspect: bool, figures: tuple[float, float] | None
    ) -> None:
        """One tick; `figures` are P&L and equity, None when the engine is silent."""
        basis, fresh = self.nav, []
        due = [] if suspect else list(self.calendar.after(self.cursor, now_us))
        for end in due:
            self._accrue(end.at_us, basis)
            fee, self.accrued = self.accrued, 0.0
            self.posted += fee
            self.cursor = end.session
            if end.at_us >= since_us and now_us - end.at_us <= 60_000_000:
                fresh.append((end, fee))
                continue
            self.lines.append(Line(end.session, True, self.nav, fee))
            if any(end.began_us < tick <= end.at_us for tick in self.ticks):
                if self.word is None:
                    self._sample(end.session, figures)
                elif end.began_us < self.word[0] <= end.at_us:
                    self.samples.append((end.session, self.word[1]))
        if not suspect:
            self._accrue(now_us, basis)
            self.accrued_us = self.accrued_us or now_us
        if figures is not None:
            if self.base is None:  # adopted with these figures
                self.base = figures[0]
            self.pnl = figures[0] - self.base
        for end, fee in fresh:
            self.lines.append(Line(end.session, False, self.nav, fee))
            if now_us == end.at_us or any(end.began_us < tick <= end.at_us for tick in self.ticks):
                self._sample(end.session, figures)
        if suspect:
            return
        if figures is not None:
            self.word = now_us, figures[1]
        self.ticks.append(now_us)

    def _sample(self, session: str, figures: tuple[float, float] | None) -> None:
        if figures is not None:
            self.samples.append((session, figures[1]))


class Life:
    """The fund and everything that befalls it, from one seed."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.folder, self.lives = folder, 0
        self.path = folder / "fund-0.db"
        self.session = self.rng.choice(CALENDARS)
        self.clock = SteppedClock(MONDAY_US + self.rng.randrange(86_400) * 1_000_000)
        self.model = Model(self.session, self.clock.now_us())
        self.engine = FakeController()
        self.pnl = 1.0
        self.offset_s = 0.0

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[VirtualFund]:
        self.since_us, self.offset_s = self.clock.now_us(), 0.0
        async with virtual_fund(
            self.engine,
            clock=self.clock,
            db_path=self.path,
            total_capital=CAPITAL,
            session=self.session,
            management_fee_bps=FEE_BPS,
            ledger_enabled=True,
            promotion_enabled=True,
            max_blind_s=86_400,
        ) as world:
            yield world

    def step_clock(self, seconds: float) -> None:
        self.clock.step(seconds)
        self.offset_s += seconds

    async def tick(self, world: VirtualFund) -> None:
        silent = "strategies" in self.engine.failures
        suspect, now_us = abs(self.offset_s) > 60, self.clock.now_us()
        if not silent and not suspect and [*self.model.calendar.after(self.model.cursor, now_us)]:
            # Figures change at the tick that ends a session, whose commit a crash cannot undo.
            self.pnl += self.rng.choice((-400, -100, 150, 300))
        if not silent:
            figures = {"realized_pnl": self.pnl, "equity": CAPITAL + self.pnl}
            self.engine.set("s", allocated=CAPITAL, stage="live-scaled", **figures)
        before = len(self.model.lines)
        self.model.tick(
            now_us,
            since_us=self.since_us,
            suspect=suspect,
            figures=None if silent else (self.pnl, CAPITAL + self.pnl),
        )
        report = await world.tick()
        ended = tuple(line.session for line in self.model.lines[before:])
        assert report.sessions == ended

    async def live(self, world: VirtualFund) -> bool:
        """Until this life ends; True for a crash."""
        while self.clock.now_us() < MONDAY_US + WEEK_US:
            match self.rng.choice(
                ("tick",) * 12 + ("step", "jump", "lock", "silence", "stop", "crash")
            ):
                case "tick":
                    self.clock.advance(self.rng.choice((1, 30, 600, 3_600, 3_600, 7_200)))
                    await self.tick(world)
                case "step":
                    self.step_clock(self.rng.choice((-20, -2, 2, 20)))
                    if abs(self.offset_s) > 60:
                        assert await world.fund.confirm_clock(by="ann", reason="looked")
                        self.offset_s = 0.0
                case "jump":
                    await self._jump(world)
                case "lock":
                    await self._locked_out(world)
                case "silence":
                    await self._silence(world)
                case "stop":
                    return False
                case "crash":
                    return True
        return False

    async def _jump(self, world: VirtualFund) -> None:
        jump_s = self.rng.choice((-7_200, 7_200))
        self.step_clock(jump_s)
        for _ in range(3):
            self.clock.advance(600)
            await self.tick(world)
        if self.rng.random() < 0.5:
            self.step_clock(-jump_s)
        else:
            assert await world.fund.confirm_clock(by="ann", reason="looked")
            self.offset_s = 0.0
        await self.tick(world)

    async def _locked_out(self, world: VirtualFund) -> None:
        other = apsw.Connection(str(self.path))
        other.execute("BEGIN IMMEDIATE")
        for _ in range(self.rng.randrange(1, 4)):
            self.clock.advance(self.rng.choice((20, 3_600, 40_000)))
            await self.tick(world)
        other.close()
        self.clock.advance(1)
        await self.tick(world)

    async def _silence(self, world: VirtualFund) -> None:
        self.engine.failures["strategies"] = RuntimeError("silent")
        for _ in range(self.rng.randrange(1, 4)):
            self.clock.advance(self.rng.choice((20, 3_600, 20_000)))
            await self.tick(world)
        del self.engine.failures["strategies"]
        await self.tick(world)

    async def run(self) -> None:
        crashed = False
        while self.clock.now_us() < MONDAY_US + WEEK_US:
            async with self.opened() as world:
                if not self.lives:
                    stage = PromotionStage.Live_Scaled
                    await world.fund.promotion.adopt("s", stage, by="ann", reason="test")
                self.lives += 1
                await self.tick(world)
                crashed = await self.live(world)
                if crashed:  # the next life finds the files as they are now
                    copy = self.folder / f"fund-{self.lives}.db"
                    for ending in ("", "-wal"):
                        shutil.copy(f"{self.path}{ending}", f"{copy}{ending}")
            if crashed:
                self.path, self.model.word = copy, None
            self.clock.advance(self.rng.choice((1, 60, 1_200, 40_000, 130_000)))
        async with self.opened() as world:
            self.clock.advance(1)
            await self.tick(world)
            await self.tick(world)
            await self._check(world)

    async def _check(self, world: VirtualFund) -> None:
        history = list(reversed(await world.fund.nav_history(100)))
        assert [line.at_us for line in history] == sorted({line.at_us for line in history})
        expected = [(line.session, line.missed) for line in self.model.lines]
        assert [(line.session, line.missed) for line in history] == expected
        assert [float(line.nav) for line in history] == pytest.approx(
            [line.nav for line in self.model.lines], abs=0.05
        )
        # A fee that a stop posted between two ends has its instant as the last part of its key.
        fees: defaultdict[str, float] = defaultdict(float)
        for entry in await world.fund.ledger.recent_entries(1_000):
            if not entry.key.startswith("fee:"):
                continue
            kind, session, *instant = entry.key.removeprefix("fee:").split(":")
            assert kind == "management"
            if instant:
                after = [line.session for line in history if line.at_us >= int(instant[0])]
                session = after[0] if after else "the running one"
            fees[session] += max(float(leg.amount) for leg in entry.legs)
        booked = [fees[line.session] for line in self.model.lines]
        assert booked == pytest.approx([line.fee for line in self.model.lines], abs=0.02)
        assert fees.keys() - {line.session for line in self.model.lines} <= {"the running one"}
        with Reader(self.path) as reader:
            found = reader.rows("SELECT session, equity FROM promotion_sample ORDER BY session")
        assert found == self.model.samples


async def _week(seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Life:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 0)
    life = Life(seed, folder)
    life.engine.statuses["s"] = StrategyStatus("s", "running")
    await life.run()
    return life


@pytest.mark.parametrize("seed", range(6))
async def test_a_week_of_trouble_ends_each_session_exactly_once(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = await _week(seed, tmp_path, monkeypatch)
    assert len(life.model.lines) >= 5


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(6, 206))
async def test_many_weeks_of_trouble_end_each_session_exactly_once(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _week(seed, tmp_path, monkeypatch)
