"""`fundops kill-switch`: with a fund that runs, and with none."""

from __future__ import annotations

import json
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from fundops import Fund, FundConfig, StrategyStatus
from fundops.actors.guard.marker import marker_of
from fundops.actors.persistence import backup
from fundops.cli import app as cli
from fundops.cli import kill_switch
from fundops.control import client
from fundops.control.rendezvous import Peer
from fundops.runtime import InlineWorker
from fundops.testing import FakeController
from tests.fund.cli.test_misuse import damage


class Command:
    """The command in this process."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], db: Path
    ) -> None:
        self._monkeypatch, self._capsys, self.db = monkeypatch, capsys, db

    def __call__(self, *arguments: str) -> tuple[int, Any]:
        argv = ["fundops", "kill-switch", *arguments, "--db", str(self.db), "--json"]
        self._monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, json.loads(out.splitlines()[0]) if out else err


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    return Command(monkeypatch, capsys, tmp_path / "x.db")


def _config(db: Path) -> FundConfig:
    return FundConfig(total_capital=100_000, tick_interval_s=None, db_path=db)


def _open(db: Path, fake: FakeController) -> Any:
    return Fund.open(_config(db), fake, make_worker=lambda _: InlineWorker())


async def test_with_no_fund_it_engages_by_the_marker_and_releases_by_the_files(
    command: Command,
) -> None:
    fake = FakeController(StrategyStatus("s", "running"))
    async with _open(command.db, fake) as fund:
        await fund.tick()
    assert command("status")[1]["state"] == "OFF"
    code, answer = command("engage", "--reason", "margin call", "--by", "ann")
    assert (code, answer["state"], answer["reason"]) == (0, "ENGAGING", "margin call")
    async with _open(command.db, fake) as fund:
        assert (await fund.kill_switch.status()).reason == "margin call"
        await fund.tick()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await fund.kill_switch.status()).state == "ENGAGED"
    assert command("status")[1]["state"] == "ENGAGED"
    code, said = command("release", "--by", "", "--reason", "well")
    assert code != 0
    assert said["error"]["text"].startswith("--by: ")
    code, answer = command("release", "--by", "ann", "--reason", "well")
    assert (code, answer["state"]) == (0, "OFF")
    async with _open(command.db, fake) as fund:
        assert (await fund.kill_switch.status()).state == "OFF"


def test_a_path_without_a_database_is_told(command: Command) -> None:
    code, said = command("status")
    assert (code, "there is no such database" in said["error"]["text"]) == (1, True)
    code, said = command("release", "--by", "ann", "--reason", "well")
    assert (code, "there is no such database" in said["error"]["text"]) == (1, True)
    command("engage", "--reason", "x")
    assert command("status")[1]["state"] == "ENGAGING", "by the marker"


async def test_a_link_to_the_database_engages_the_fund_of_the_file(command: Command) -> None:
    async with _open(command.db, FakeController()):
        pass
    link = command.db.with_name("linked") / "other.db"
    link.parent.mkdir()
    link.symlink_to(command.db)
    file, command.db = command.db, link
    command("engage", "--reason", "x")
    async with _open(file, FakeController()) as fund:
        assert (await fund.kill_switch.status()).reason == "x"


async def test_with_no_fund_an_unconfirmed_stop_is_not_released_by_default(
    command: Command,
) -> None:
    async with _open(command.db, FakeController()):
        pass
    command("engage", "--reason", "x")
    code, said = command("release", "--by", "ann", "--reason", "well")
    assert (code, "--accept-open-orders" in said["error"]["text"]) == (1, True)
    code, answer = command("release", "--by", "ann", "--reason", "well", "--accept-open-orders")
    assert (code, answer["state"]) == (0, "OFF")


async def test_a_marker_made_by_hand_confirms_no_stop(command: Command) -> None:
    async with _open(command.db, FakeController()):
        pass
    command.db.with_name(command.db.name + ".kill").touch()
    assert command("status")[1]["state"] == "ENGAGING"
    code, said = command("release", "--by", "ann", "--reason", "well")
    assert (code, "--accept-open-orders" in said["error"]["text"]) == (1, True)
    code, answer = command("release", "--by", "ann", "--reason", "well", "--accept-open-orders")
    assert (code, answer["state"]) == (0, "OFF")


async def test_a_running_fund_is_asked_after_the_marker_is_written(command: Command) -> None:
    fake = FakeController(StrategyStatus("s", "running"))
    async with _open(command.db, fake) as fund:
        await fund.tick()
        code, answer = await trio.to_thread.run_sync(command, "engage", "--reason", "x")
        assert (code, answer["reason"]) == (0, "x")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not fund.may_trade("s")
        assert [call[0] for call in fake.calls] == ["stop_all"]
        code, answer = await trio.to_thread.run_sync(command, "status")
        assert answer["state"] == "ENGAGED"
        code, answer = await trio.to_thread.run_sync(
            command, "release", "--by", "ann", "--reason", "well"
        )
        assert (code, answer["state"]) == (0, "OFF")
        assert (await fund.kill_switch.status()).state == "OFF"


ENGAGE = ("engage", "--reason", "x")
RELEASE = ("release", "--by", "ann", "--reason", "well", "--accept-open-orders")


async def test_a_copy_of_a_running_funds_file_engages_and_releases_no_fund(
    command: Command,
) -> None:
    db = command.db
    async with _open(db, FakeController()) as fund:
        await fund.tick()
        backup(db, db.with_name("copy.db"))
        command.db = db.with_name("copy.db")
        for words in (ENGAGE, RELEASE, ("status",)):
            code, said = await trio.to_thread.run_sync(command, *words)
            text = said["error"]["text"]
            assert (code, f"{db}, not {command.db}, its copy" in text) == (1, True), words
        assert command.db.with_name("copy.db.kill").exists(), "engaged where it could be"
        await fund.tick()
        assert (await fund.kill_switch.status()).state == "OFF"


async def test_a_fund_is_found_by_its_damaged_file_among_others_that_listen(
    command: Command,
) -> None:
    others = [command.db.with_name(f"{name}.db") for name in "abc"]
    async with AsyncExitStack() as funds:
        for db in others:
            await funds.enter_async_context(_open(db, FakeController()))
        fund = await funds.enter_async_context(_open(command.db, FakeController()))
        damage(command.db, "meta")
        code, answer = await trio.to_thread.run_sync(command, *ENGAGE)
        assert (code, answer["reason"]) == (0, "x")
        assert (await fund.kill_switch.status()).reason == "x", "at once, without a tick"
        assert not any(marker_of(db).exists() for db in others)


async def test_the_marker_is_not_said_to_stop_the_fund_of_another_user(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _open(command.db, FakeController()):
        monkeypatch.setattr(client, "peer_of", lambda _: Peer(os.getuid() + 1, 5))
        code, said = await trio.to_thread.run_sync(command, *ENGAGE)
        assert (code, "the marker is written, but" in said["error"]["text"]) == (1, True)
        assert "listens in place of this fund" in said["error"]["text"]
        assert command.db.with_name("x.db.kill").exists()


async def test_a_fund_whose_loop_is_stuck_is_engaged_by_the_marker_and_not_released(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kill_switch, "ANSWER_S", 0.01)
    fake = FakeController(StrategyStatus("s", "running"))
    async with _open(command.db, fake) as fund:
        await fund.tick()
        code, answer = command(*ENGAGE)  # in the fund's own thread, so its loop stands still
        assert (code, answer["state"], answer["reason"]) == (0, "ENGAGING", "x")
        assert command("status")[1]["reason"] == "x", "by the marker"
        code, said = command(*RELEASE)
        assert (code, said["error"]["outcome"]) == (1, "unknown")
        assert said["error"]["text"].startswith("no answer to kill_switch.release")
        await fund.tick()
