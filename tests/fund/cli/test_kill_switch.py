"""`fundops kill-switch`: with a fund that runs, and with none."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from fundops import Fund, FundConfig, StrategyStatus
from fundops.cli import app as cli
from fundops.runtime import InlineWorker
from fundops.testing import FakeController


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
