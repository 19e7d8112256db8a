"""The kill switch when nothing else works: at its limit, over a killed process, beside broken
subsystems, and pulled from a shell while the fund's loop is stuck.
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fundops import StrategyStatus
from fundops.actors.guard.marker import Marker
from fundops.actors.persistence import store
from fundops.runtime import pieces
from fundops.testing import FakeController, virtual_fund
from fundops.wire.errors import StorageDegraded

DEADLINE_S = 10
CAPITAL = 100_000
WEBHOOK = "https://hooks.example.com/services/secret"


def _engine() -> FakeController:
    return FakeController(StrategyStatus("a", "running", equity=50_000, allocated=50_000))


def _told(engine: FakeController, call: str) -> int:
    return [name for name, *_ in engine.calls].count(call)


# -- the limit


@pytest.mark.parametrize("deposit", [0, 60_000])
@pytest.mark.parametrize(
    ("drawdown_pct", "engages"), [(14.999, False), (14.99999, False), (15.0, True), (15.001, True)]
)
async def test_it_engages_within_one_tick_at_its_limit_and_not_below(
    deposit: int, drawdown_pct: float, engages: bool
) -> None:
    engine = _engine()
    settings: dict[str, Any] = {"max_strategy_drawdown_pct": 100.0, "ledger_enabled": True}
    async with virtual_fund(engine, **settings) as world:
        await world.tick()
        if deposit:
            await world.fund.ledger.deposit(deposit)
            await world.tick()
        engine.set("a", realized_pnl=-(CAPITAL + deposit) * drawdown_pct / 100)
        assert world.fund.may_trade("a")
        await world.fund.tick()
        assert ((await world.fund.kill_switch.status()).state != "OFF") is engages
        assert world.fund.may_trade("a") is not engages
        await wait_all_tasks_blocked()
        assert _told(engine, "stop_all") == engages


async def test_it_engages_at_the_last_of_the_ticks_in_a_row_that_are_asked_for() -> None:
    engine = _engine()
    settings: dict[str, Any] = {"max_strategy_drawdown_pct": 100.0, "kill_confirm_ticks": 3}
    async with virtual_fund(engine, **settings) as world:
        await world.tick()
        for losses in ((15_000, 15_000, 1_000), (15_000, 15_000, 15_000)):
            for loss in losses:
                assert (await world.fund.kill_switch.status()).state == "OFF"
                engine.set("a", realized_pnl=-loss)
                await world.tick()
        assert (await world.fund.kill_switch.status()).state != "OFF"


# -- in the middle of a tick


async def test_a_person_engages_it_between_two_pieces_of_a_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pieces, "PIECE_S", 0.0)
    engine = FakeController(*(StrategyStatus(f"s{number}", "running") for number in range(100)))
    settings: dict[str, Any] = {"self_healing_enabled": True}  # so there are alerts
    async with virtual_fund(engine, **settings) as world, trio.open_nursery() as nursery:
        await world.fund.tick()
        ended = False

        async def tick() -> None:
            nonlocal ended
            await world.fund.tick()
            ended = True

        nursery.start_soon(tick)
        for _ in range(150):  # the engine's answer is read, and the guard looks
            await trio.lowlevel.checkpoint()
        assert not ended
        await world.fund.kill_switch.engage(reason="now", by="ann")
        assert not ended, "it waited for no tick"
        assert not any(world.fund.may_trade(name) for name in engine.statuses)
        while not _told(engine, "stop_all"):
            await trio.lowlevel.checkpoint()
        assert not ended
        while not ended:
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert not any(world.fund.may_trade(name) for name in engine.statuses)
        assert (await world.fund.kill_switch.status()).state == "ENGAGED"
        (kill,) = [alert for alert in world.sent_alerts() if alert.level.value == "CRITICAL"]
        assert "now" in kill.message


# -- everything else is broken


@pytest.fixture
def broken_database(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Neither the database nor the marker can be written while the list is not empty."""
    broken: list[bool] = []
    opened, written = store.Store.__init__, Marker.write

    def refuse(*_: Any) -> None:
        if broken:
            raise StorageDegraded("the disk is full")

    def open_store(self: store.Store, path: Path, migrations: Any, *_: Any) -> None:
        opened(self, path, migrations, refuse)

    def write(marker: Marker, status: Any) -> None:
        if broken:
            raise OSError(28, "no space left on device")
        written(marker, status)

    monkeypatch.setattr(store.Store, "__init__", open_store)
    monkeypatch.setattr(Marker, "write", write)
    return broken


@pytest.mark.parametrize("by", ["a person", "the guard"])
async def test_it_works_with_alerts_ledger_and_database_all_broken_at_once(
    by: str, broken_database: list[bool], autojump_clock: MockClock
) -> None:
    async def unreachable(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("no route to host")

    engine = _engine()
    async with virtual_fund(
        engine,
        ledger_enabled=True,
        max_strategy_drawdown_pct=100.0,
        alert_webhook_url=WEBHOOK,
        transport=httpx2.MockTransport(unreachable),
    ) as world:
        await world.tick()
        broken_database.append(True)
        # Each crashes before its next message, which is one of the stop itself or of its tick.
        for actor in ("alert", "ledger"):
            world.fund.drill(actor)
        if by == "a person":
            state = (await world.fund.kill_switch.engage(reason="a drill", by="ann")).state
            assert state == "ENGAGING"
        else:
            engine.set("a", realized_pnl=-15_000)
            await world.fund.tick()
        assert (await world.fund.kill_switch.status()).state != "OFF"
        assert not world.fund.may_trade("a")
        assert world.fund.may_close("a")
        await wait_all_tasks_blocked()
        assert _told(engine, "stop_all") == 1
        assert (await world.fund.kill_switch.status()).state == "ENGAGED"
        await trio.sleep(5)
        for _ in range(3):
            world.clock.advance(1)
            await world.fund.tick()
            assert (await world.fund.kill_switch.status()).state == "ENGAGED"
            assert not world.fund.may_trade("a")
        broken_database.clear()
        await trio.sleep(10)
        world.clock.advance(1)
        await world.fund.tick()
        await wait_all_tasks_blocked()
        found = Marker(Path(f"{world.fund.config.path}.kill")).read()
        assert found is not None
        assert found.state == "ENGAGED", "what could not be written is written as soon as it can be"


async def test_its_alert_leaves_although_the_database_cannot_be_written(
    broken_database: list[bool], autojump_clock: MockClock
) -> None:
    posted: list[dict[str, Any]] = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        posted.append(json.loads(request.content))
        return httpx2.Response(204)

    async with virtual_fund(
        _engine(), alert_webhook_url=WEBHOOK, transport=httpx2.MockTransport(answer)
    ) as world:
        await world.tick()
        broken_database.append(True)
        await world.fund.kill_switch.engage(reason="margin call", by="ann")
        await trio.sleep(1)
        (kill,) = [alert for alert in posted if alert["category"] == "KILL_SWITCH"]
        assert kill["level"] == "CRITICAL"
        assert "margin call" in kill["message"]


# -- processes

FUND = """
import os, sys, threading, time
from pathlib import Path
import trio
from fundops import Fund, FundConfig, StopReport, StrategyStatus
from fundops.testing import FakeController

folder = Path(sys.argv[1])

def say(*words):
    os.write(1, (" ".join(map(str, words)) + chr(10)).encode())

class Engine(FakeController):
    def strategies(self):
        if (folder / "stuck").exists():
            say("stuck")
            while (folder / "stuck").exists():
                time.sleep(0.005)
        return super().strategies()

    async def stop_all(self, *order):
        say("stop_all")
        for name in self.statuses:
            self.set(name, state="stopped")
        return StopReport(0, 0)

def watch(fund):
    # The host's own thread, which asks before each order.
    while not fund.may_trade("a"):
        time.sleep(0.005)
    say("trades")
    while fund.may_trade("a"):
        time.sleep(0.005)
    say("trades no more")

async def main():
    config = FundConfig(
        total_capital=1_000, db_path=folder / "fund.db", tick_interval_s=0.05, lease_s=0.3,
        host_silent_s=60, max_blind_s=120,
    )
    engine = Engine(StrategyStatus("a", "running"))
    async with Fund.open(config, engine) as fund:
        threading.Thread(target=watch, args=(fund,), daemon=True).start()
        say((await fund.kill_switch.status()).state)
        await trio.sleep_forever()

trio.run(main)
"""

# The command as a shell runs it, but that a fund which does not answer is given up sooner.
COMMAND = (
    "import fundops.cli.kill_switch as door; door.ANSWER_S = 0.3;"
    " from fundops.__main__ import main; main()"
)


class Process:
    """A fund in another process, and the lines that it prints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", FUND, str(folder)], stdout=subprocess.PIPE, text=True
        )
        self._said: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(line.strip())

    def hear(self, *lines: str) -> None:
        """Wait until it has said these lines, in any order."""
        awaited = list(lines)
        while awaited:
            said = self._said.get(timeout=DEADLINE_S)
            if said in awaited:
                awaited.remove(said)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        self._process.kill()
        self._process.wait(DEADLINE_S)
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def running(folder: Path) -> Iterator[Process]:
    process = Process(folder)
    try:
        yield process
    finally:
        process.end()


def command(folder: Path, *words: str) -> Any:
    """Run `fundops kill-switch` in a shell's place; its answer, which must be a success."""
    done = subprocess.run(
        [
            *(sys.executable, "-c", COMMAND, "kill-switch", *words),
            *("--db", str(folder / "fund.db"), "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return json.loads(done.stdout.splitlines()[0])


def test_it_is_pulled_from_a_shell_while_the_loop_is_stuck(tmp_path: Path) -> None:
    with running(tmp_path) as fund:
        fund.hear("trades")
        (tmp_path / "stuck").touch()
        fund.hear("stuck")
        answer = command(tmp_path, "engage", "--reason", "it hangs", "--by", "ann")
        assert (answer["state"], answer["reason"]) == ("ENGAGING", "it hangs")
        assert Marker(tmp_path / "fund.db.kill").read() is not None
        fund.hear("trades no more")  # the lease ran out by itself
        (tmp_path / "stuck").unlink()
        fund.hear("stop_all")
        assert command(tmp_path, "status")["reason"] == "it hangs"


def test_it_is_pulled_from_a_shell_while_the_process_is_stopped(tmp_path: Path) -> None:
    with running(tmp_path) as fund:
        fund.hear("trades")
        fund.send(signal.SIGSTOP)
        try:
            assert command(tmp_path, "engage", "--reason", "it hangs")["state"] == "ENGAGING"
            assert command(tmp_path, "status")["reason"] == "it hangs", "by the marker"
        finally:
            fund.send(signal.SIGCONT)
        fund.hear("stop_all", "trades no more")


def test_it_survives_the_end_of_the_process_and_tells_the_engine_anew(tmp_path: Path) -> None:
    with running(tmp_path) as fund:
        fund.hear("OFF")
        fund.hear("trades")
        command(tmp_path, "engage", "--reason", "margin call", "--by", "ann")
        fund.hear("stop_all")
    # Killed: a new process finds the marker or the database, and its engine may have started anew.
    with running(tmp_path) as fund:
        fund.hear("stop_all")
        status = command(tmp_path, "status")
        assert (status["state"], status["reason"], status["by"]) == (
            "ENGAGED",
            "margin call",
            "ann",
        )
        command(tmp_path, "release", "--by", "ann", "--reason", "it was paid")
    with running(tmp_path) as fund:
        fund.hear("OFF")
        fund.hear("trades")
