"""Six acts and faults in a row, from one seed, against a whole fund under the kill switch.

From engaging on no strategy with real money is told to run or entitled to open, and the engine is
asked to stop until it confirms. The engine may lie or hang, the database may be locked or full, and
the process may be killed: it then leaves its files as they are, and the next one starts from them.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import apsw
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fundops import PromotionStage, StopReport, VirtualClock
from fundops.actors.guard import marker as marker_file
from fundops.actors.persistence import database, store
from fundops.runtime import FundopsError
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.controller import stage_risk
from fundops.wire.errors import StorageDegraded

ACTS = 6
CAPITAL = 100_000.0
LIMIT_PCT = 15.0
STOP_ALL_DEADLINE_S = 10.0
ABANDONED_MAX = 4
NO_SPACE = 28  # errno.ENOSPC

Answer = Literal["obeys", "orders", "positions", "raises", "hangs", "late", "lies"]


class Engine(FakeController):
    """An engine with scripted answers, which notes every call."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: Answer = "obeys"
        self.restart_s = 0.0
        self.in_flight: list[float] = []  # when each unfinished call of stop_all began
        self.confirmed = False  # a report since the last engagement confirmed the stop

    async def stop_all(self, reason: str, action: Any, *scope: Any) -> StopReport:
        self.calls.append(("stop_all", reason, action, *scope))
        begun_s = trio.current_time()
        self.in_flight.append(begun_s)
        try:
            return await self._stopped(action)
        finally:
            self.in_flight.remove(begun_s)

    async def _stopped(self, action: str) -> StopReport:
        match self.answer:
            case "raises":
                raise RuntimeError("the venue is down")
            case "hangs":
                await trio.sleep_forever()
            case "late":
                await trio.sleep(STOP_ALL_DEADLINE_S + 1)
            case "lies":
                return StopReport(-1, 0)
        report = {"orders": StopReport(2, 1), "positions": StopReport(0, 1)}.get(
            self.answer, StopReport(0, 0)
        )
        if self.answer in ("obeys", "late") and action != "freeze":
            for name in self.statuses:
                self.set(name, state="stopped")
        still_open = {
            "halt": report.open_orders,
            "flatten": report.open_orders + report.open_positions,
            "freeze": 0,
        }
        self.confirmed = self.confirmed or not still_open[action]
        return report

    async def restart(self, name: str, *, attempt_id: str) -> None:
        self.calls.append(("restart", name, attempt_id))
        await trio.sleep(self.restart_s)
        self.set(name, state="running", error=None)

    def told(self, *calls: str) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] in calls]


class Killed(Exception):
    """The process is gone: the next life starts from the files as they are now."""


class Life:
    """The fund and everything that befalls it, from one seed."""

    def __init__(self, seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.path, self.lives = folder / "fund-0.db", 0
        self.clock = VirtualClock(START_US)
        self.engine = Engine()
        self.settings: dict[str, Any] = {
            "promotion_enabled": self.rng.random() < 0.6,
            "self_healing_enabled": self.rng.random() < 0.7,
            "ledger_enabled": self.rng.random() < 0.3,
            "kill_action": self.rng.choice(("halt", "halt", "flatten", "freeze")),
            "max_strategy_drawdown_pct": 100.0,
            "max_total_entitlement_pct": None,
            "recovery_every_ticks": 1,
            "promotion_every_ticks": 1,
        }
        self.latched = False
        self.unsaved = False  # a release is not in the database: a restart may engage again
        self.silent = False
        self.full = False
        self.lock: apsw.Connection | None = None
        self._break_disk(monkeypatch)
        self._seen = 0  # calls that were made before the switch engaged
        self.acts: list[str] = []  # for the text of a failure
        # The model of the drawdown; all flows of money are P&L, so NAV stands for NAV per unit.
        self.nav = self.peak = CAPITAL
        self.loss = 0.0
        self.kept: tuple[Path, float, float] | None = None  # a backup, and the model at that time

    # -- lives

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[VirtualFund]:
        async with virtual_fund(
            self.engine, clock=self.clock, db_path=self.path, **self.settings
        ) as world:
            yield world

    async def run(self) -> None:
        self.engine.set("a", allocated=50_000, equity=50_000, stage="live-small")
        self.engine.set("b", allocated=1_000, equity=1_000, stage="paper")
        left = ACTS
        while True:
            with suppress(Killed):
                async with self.opened() as world:
                    await self._begin(world)
                    while left:
                        left -= 1
                        await self._act(world)
                        await self._check(world)
                    await self._end(world)
                    return
            self._healed()
            self.engine.calls.clear()

    async def _begin(self, world: VirtualFund) -> None:
        self.lives += 1
        if self.lives == 1:
            if self.settings["promotion_enabled"]:
                stage = PromotionStage.Live_Small
                await world.fund.promotion.adopt("a", stage, by="ann", reason="it traded before")
                await world.fund.promotion.adopt(
                    "b", PromotionStage.Paper, by="ann", reason="it traded before"
                )
                self.engine.set("a", capital_cap=50_000)
            await self._tick(world)
            await self._tick(world)
            self._keep()
        elif self.latched:
            await self._check(world)
            await self._tick(world)
            # The engine may have started anew since it confirmed the stop to the earlier process.
            assert self.engine.told("stop_all"), "a process that starts engaged asks anew"

    async def _end(self, world: VirtualFund) -> None:
        """All faults are over: the stop is confirmed, and told."""
        self._healed()
        self.engine.answer = "obeys"
        for _ in range(4):
            await self._tick(world, 12.0)
        await self._check(world)
        if self.latched:
            assert (await world.fund.kill_switch.status()).state == "ENGAGED"
            # A row of kill_latch and the marker: each alone would engage the next life.
            assert self._marker().exists()
            assert self._row() not in (None, "OFF")
        elif not self.unsaved:
            assert not self._marker().exists()
            assert self._row() in (None, "OFF")

    def _healed(self) -> None:
        self.full = False
        if self.lock is not None:
            self.lock.close()
            self.lock = None
        self.silent = False
        self.engine.failures.clear()

    # -- the files

    def _marker(self) -> Path:
        return self.path.with_name(self.path.name + ".kill")

    def _row(self) -> str | None:
        """The state in the database, read past every layer of the package."""
        with closing_connection(self.path) as connection:
            row = connection.execute(
                "SELECT json_extract(record, '$.state') FROM kill_latch"
            ).fetchone()
        return None if row is None else str(row[0])

    def _copy(self, target: Path) -> None:
        for ending in ("", "-wal"):
            source = Path(f"{self.path}{ending}")
            if source.exists():
                shutil.copy(source, f"{target}{ending}")

    def _keep(self) -> None:
        kept = self.folder / "kept.db"
        for ending in ("", "-wal"):
            Path(f"{kept}{ending}").unlink(missing_ok=True)
        self._copy(kept)
        self.kept = (kept, self.nav, self.peak)

    def _killed(self, *, old: bool, marker: Literal["kept", "lost", "damaged"]) -> None:
        """The next life finds the files of this moment, or some that a person put there."""
        source = self.path
        target = self.folder / f"fund-{self.lives}.db"
        if old and self.kept is not None:
            kept, nav, peak = self.kept
            for ending in ("", "-wal"):
                if Path(f"{kept}{ending}").exists():
                    shutil.copy(f"{kept}{ending}", f"{target}{ending}")
            self.nav, self.peak = nav, peak
        else:
            self._copy(target)
        was_marked = self._marker().exists()
        self.path = target
        if was_marked and marker != "lost":
            shutil.copy(f"{source}.kill", self._marker())
            if marker == "damaged":
                self._marker().write_bytes(b"\x00{")
        self.latched = self._marker().exists() or self._row() not in (None, "OFF")
        self.unsaved = False
        raise Killed

    def _break_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """While the disk is full, neither the database nor the marker can be written."""
        monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 0)
        # Only a power cut loses unsynced writes, and no test here has one.
        monkeypatch.setattr(os, "fsync", lambda _: None)
        opened, written = store.Store.__init__, marker_file.Marker.write

        def refuse(*_: Any) -> None:
            if self.full:
                raise StorageDegraded("the disk is full")

        def open_store(self: store.Store, path: Path, migrations: Any, *_: Any) -> None:
            opened(self, path, migrations, refuse)
            self.connection.pragma("synchronous", "off")

        def write(marker: marker_file.Marker, status: Any) -> None:
            if self.full:
                raise OSError(NO_SPACE, "no space left on device")
            written(marker, status)

        monkeypatch.setattr(store.Store, "__init__", open_store)
        monkeypatch.setattr(marker_file.Marker, "write", write)

    # -- one act

    async def _act(self, world: VirtualFund) -> None:
        act = self.rng.choice(ACTS_TO_CHOOSE)
        self.acts.append(act.__name__.removeprefix("act_"))
        await act(self, world)

    async def act_engage(self, world: VirtualFund) -> None:
        if not self.latched:
            self.engine.confirmed = False
        await world.fund.kill_switch.engage(reason="a drill", by="ann")
        self.latched = True
        # Before a loop's turn is over; the rest is checked when all tasks have come to rest.
        self._check_leases(world)

    async def act_release(self, world: VirtualFund) -> None:
        rearm: Any = self.rng.choice(("from_current_nav", "from_current_nav", "keep_peak"))
        accept = self.rng.random() < 0.5
        state = (await world.fund.kill_switch.status()).state
        try:
            await world.fund.kill_switch.release(
                by="bob", reason="a drill", rearm=rearm, accept_open_orders=accept
            )
        except FundopsError:
            return
        assert state == "ENGAGED" or accept, "refused while the stop is not confirmed"
        self.latched = False
        self.unsaved = self.lock is not None or self.full
        if rearm == "from_current_nav":
            self.peak = self.nav
        if not self.unsaved:
            await wait_all_tasks_blocked()
            self.unsaved = self._row() not in (None, "OFF")
        await self._started_by_a_person(world)

    async def _started_by_a_person(self, world: VirtualFund) -> None:
        """A released switch starts nothing; a person does."""
        for name in self.engine.statuses:
            self.engine.set(name, state="running")

    async def act_tick(self, world: VirtualFund) -> None:
        await self._tick(world, self.rng.choice((1.0, 1.0, 12.0)))

    async def act_breach(self, world: VirtualFund) -> None:
        """A loss of 16% of the NAV: the next tick that hears of it engages."""
        if "a" not in self._real():
            return  # demoted: its loss is hypothetical
        self.loss += 0.16 * (CAPITAL - self.loss)
        self.engine.set("a", realized_pnl=-self.loss, equity=1_000.0 + max(0.0, 49_000 - self.loss))
        await self._tick(world)

    async def act_answer(self, world: VirtualFund) -> None:
        answers: tuple[Answer, ...] = ("orders", "positions", "raises", "hangs", "late", "lies")
        self.engine.answer = self.rng.choice(answers)
        await self._tick(world)

    async def act_obey(self, world: VirtualFund) -> None:
        self.engine.answer = "obeys"
        await self._tick(world, 12.0)

    async def act_silence(self, world: VirtualFund) -> None:
        self.silent = not self.silent
        if self.silent:
            self.engine.failures["strategies"] = RuntimeError("silent")
        else:
            del self.engine.failures["strategies"]
        await self._tick(world, self.rng.choice((1.0, 12.0, 61.0)))

    async def act_fail(self, world: VirtualFund) -> None:
        """A strategy fails, so recovery may want to restart it, quickly or slowly."""
        self.engine.restart_s = self.rng.choice((0.0, 5.0))
        self.engine.set(self.rng.choice("ab"), state="failed", error="boom")
        await self._tick(world)

    async def act_rise(self, world: VirtualFund) -> None:
        """The engine starts a strategy by itself."""
        self.engine.set(self.rng.choice("ab"), state="running", error=None)
        await self._tick(world)

    async def act_person(self, world: VirtualFund) -> None:
        """People want a strategy to run, not knowing of the switch."""
        with suppress(FundopsError):
            await world.fund.resume("a", by="bob", reason="it looks well")
        if self.settings["promotion_enabled"]:
            with suppress(FundopsError):
                await world.fund.promotion.adopt(
                    "b", PromotionStage.Live_Small, by="bob", reason="it is good"
                )
        if self.settings["self_healing_enabled"]:
            with suppress(FundopsError):
                await world.fund.recovery.reset("a")
        await self._tick(world)

    async def act_lock(self, world: VirtualFund) -> None:
        if self.lock is None:
            self.lock = apsw.Connection(str(self.path))
            try:
                self.lock.execute("BEGIN IMMEDIATE")
            except apsw.Error:
                self.lock.close()
                self.lock = None
        else:
            self.lock.close()
            self.lock = None
        await self._tick(world)

    async def act_disk(self, world: VirtualFund) -> None:
        self.full = not self.full
        await self._tick(world)

    async def act_marker(self, world: VirtualFund) -> None:
        """A person makes the marker, or the command line does for a fund that does not answer."""
        if self.full:
            return
        if not self.latched:
            self.engine.confirmed = False
        self._marker().touch()
        await self._tick(world)
        self.latched = True

    async def act_unmark(self, world: VirtualFund) -> None:
        """Removing the marker is no release."""
        self._marker().unlink(missing_ok=True)
        await self._tick(world)

    async def act_crash(self, world: VirtualFund) -> None:
        """One actor crashes. Depending on the seed it is the guard itself."""
        actors = [child.name for child in world.fund.tree() if child.name != "subsystems"]
        actor = self.rng.choice((*actors, "guard"))
        world.fund.drill(actor)
        await trio.sleep(2)
        if self.unsaved and (await world.fund.kill_switch.status()).state != "OFF":
            self.latched = True  # the careful answer of an older database
        await self._tick(world)

    async def act_backup(self, world: VirtualFund) -> None:
        self._keep()

    async def act_kill(self, world: VirtualFund) -> None:
        self._killed(old=False, marker=self.rng.choice(("kept", "lost", "damaged")))

    async def act_restore(self, world: VirtualFund) -> None:
        self._killed(old=True, marker="kept")

    # -- one tick

    async def _tick(self, world: VirtualFund, seconds: float = 1.0) -> None:
        self.clock.advance(seconds)
        await trio.sleep(seconds)
        await wait_all_tasks_blocked()
        before = (await world.fund.kill_switch.status()).state
        asked = len(self.engine.told("stop_all"))
        told = len(self.engine.calls)
        running = [name for name in self._real() if self.engine.statuses[name].state == "running"]
        if not self.silent:
            self.nav = CAPITAL - self.loss
            self.peak = max(self.peak, self.nav)
        if not self.latched and 100 * (1 - self.nav / self.peak) >= LIMIT_PCT:
            self.latched = True
            if before == "OFF":  # else a marker has engaged it in the second before this tick
                self.engine.confirmed = False
        await world.fund.tick()
        await wait_all_tasks_blocked()
        status = await world.fund.kill_switch.status()
        if before not in ("OFF", "ENGAGED"):
            assert len(self.engine.told("stop_all")) > asked or self._waits(), "asked at each tick"
        if before != "OFF" and not self.silent and status.action != "freeze":
            stopped = {call[1] for call in self.engine.calls[told:] if call[0] == "stop"}
            again = len(self.engine.told("stop_all")) > asked
            assert again or set(running) <= stopped, "what runs under the switch is stopped"

    def _waits(self) -> bool:
        """Whether a call of stop_all is awaited: never twice at once, and at most 4 are left."""
        now_s = trio.current_time()
        young = any(now_s - begun_s < STOP_ALL_DEADLINE_S for begun_s in self.engine.in_flight)
        return young or len(self.engine.in_flight) >= ABANDONED_MAX

    def _real(self) -> list[str]:
        """The strategies with real money."""
        if not self.settings["promotion_enabled"]:
            return list(self.engine.statuses)
        return [
            name
            for name, status in self.engine.statuses.items()
            if status.stage is not None and stage_risk(status.stage) > 0
        ]

    # -- the invariant

    async def _check(self, world: VirtualFund) -> None:
        await wait_all_tasks_blocked()
        status = await world.fund.kill_switch.status()
        assert (status.state != "OFF") == self.latched, status
        assert (await world.fund.status()).kill_switch == status.state
        if not self.latched:
            self._seen = len(self.engine.calls)
            return
        self._check_leases(world)
        self._check_orders()
        if status.state == "ENGAGED" and self.engine.told("stop_all"):
            assert self.engine.confirmed or self.lives > 1, "only the engine confirms"
        if not self.full:
            assert self._marker().exists(), "the marker is on disk before the caller hears"

    def _check_leases(self, world: VirtualFund) -> None:
        frozen = self.settings["kill_action"] == "freeze"
        for name in self._real():
            assert not world.fund.may_trade(name)
            held = world.fund.entitlement(name)
            assert (held.may_open, held.capital) == (False, Decimal(0))
            assert held.mode in (("none",) if frozen else ("reduce", "none"))
            assert not (frozen and held.may_close)

    def _check_orders(self) -> None:
        """No strategy with real money was told to run since the switch engaged."""
        since = self.engine.calls[self._seen :]
        real = self._real()
        for call in since:
            assert call[0] not in ("restart", "resume") or call[1] not in real, call
            assert call[0] != "set_stage" or not stage_risk(call[2]) or call[1] == "a", call


_USUAL = (Life.act_engage, Life.act_engage, Life.act_kill, Life.act_release)
_OTHERS = tuple(method for name, method in vars(Life).items() if name.startswith("act_"))
ACTS_TO_CHOOSE = (*_USUAL, *_USUAL, *_OTHERS)


@contextmanager
def closing_connection(path: Path) -> Iterator[apsw.Connection]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        yield connection
    finally:
        connection.close()


async def _live(seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(seed, folder, monkeypatch)
    try:
        await life.run()
    except BaseException as error:
        error.add_note(f"after {life.acts} with {life.settings}, answer {life.engine.answer}")
        raise


@pytest.mark.parametrize("seed", range(50))
async def test_six_acts_and_faults_never_let_real_money_run_under_the_switch(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    await _live(seed, tmp_path, monkeypatch)


@pytest.mark.soak
@pytest.mark.parametrize(
    "block",
    [pytest.param(0, id="first_hundred"), *(pytest.param(n, id=str(n)) for n in range(1, 20))],
)
async def test_two_thousand_sequences_never_let_real_money_run_under_the_switch(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    for seed in range(50 + 100 * block, 150 + 100 * block):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with monkeypatch.context() as patches:
            await _live(seed, folder, patches)
        shutil.rmtree(folder)
