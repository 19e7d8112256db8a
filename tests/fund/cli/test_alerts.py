"""`fundops alerts`: the history from the file, and a test of the channels of a running fund."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fundops import FundConfig, FundManager
from fundops.cli import app as cli

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="fo", dir="/tmp") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setenv("FUNDOPS_HOME", str(tmp_path))
        yield


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process, on the default database: exit code, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fundops", "alerts", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return run


def fund(*, alert_log: bool) -> FundManager:
    return FundManager(FundConfig(total_capital=100, tick_interval_s=None, alert_log=alert_log))


def test_the_newest_alerts_are_read_from_the_file(command: Command) -> None:
    with fund(alert_log=True) as running:
        for number in range(7):
            running.alerts.send("WARNING", "GENERAL", f"alert {number}", "m")
        code, out, err = command("list", "--limit", "3")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["time", "(UTC)", "level", "category", "outcome", "title"]
    assert [line[-7:] for line in lines[1:4]] == ["alert 6", "alert 5", "alert 4"]
    assert "RATE_SUPPRESSED" in lines[1]
    assert lines[4].endswith(", of the whole history: 2 alerts")
    code, out, _ = command("list", "--json")
    assert code == 0
    assert [alert["title"] for alert in json.loads(out)["alerts"]][-1] == "alert 0"


def test_a_negative_limit_is_refused(command: Command) -> None:
    with fund(alert_log=True):
        code, out, err = command("list", "--limit", "-1")
    assert (code, out) == (2, "")
    assert "limit" in err


def test_a_test_alert_goes_through_each_channel_of_the_running_fund(command: Command) -> None:
    with fund(alert_log=True):
        assert command("test") == (
            0,
            "channel  result     error\nlog      delivered\n",
            "",
        )
        code, out, _ = command("test", "--json")
    assert code == 0
    assert json.loads(out) == {"test": [{"channel": "log", "delivered": True, "error": None}]}


def test_a_fund_without_a_channel_fails_the_test(command: Command) -> None:
    config = FundConfig(total_capital=100, tick_interval_s=None, ledger_enabled=True)
    with FundManager(config):
        code, out, _ = command("test")
    assert code == 1
    assert out == "the fund has no channel; set alert_webhook_url or alert_log\n"


def test_without_a_running_fund_there_is_nothing_to_test(command: Command) -> None:
    with fund(alert_log=True):
        pass
    code, out, err = command("test")
    assert (code, out) == (3, "")
    assert err.startswith("fundops: no fund runs on ")
    assert "`fundops alerts test` needs one" in err
