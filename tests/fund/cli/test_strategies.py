"""The verbs of a strategy on the file of a manager alone, and metrics as words or as a file."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fundops import PromotionManager, open_reader, policy_of
from fundops.cli import app as cli
from fundops.cli.given import figures_of
from fundops.cli.grammar import UsageError
from fundops.wire.promotion import PromotionStage

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PromotionManager:
    monkeypatch.setenv("FUNDOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USER", "ann")
    made = PromotionManager(tmp_path / "p.db")
    made.register("mm")
    return made


@pytest.fixture
def command(
    manager: PromotionManager,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    def run(*words: str) -> tuple[int, str, str]:
        line = ["fundops", "strategy", *words, "--db", str(tmp_path / "p.db")]
        monkeypatch.setattr(sys, "argv", line)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return run


def test_metrics_are_recorded_as_words(command: Command, manager: PromotionManager) -> None:
    assert command("record", "mm", "sharpe=1.2", "n_trades=60")[:2] == (0, "done\n")
    assert manager.snapshot("mm").metrics == {"sharpe": 1.2, "n_trades": 60}


@pytest.mark.parametrize(
    "text",
    ["0.01\n-0.02\n\n0.015\n", "date,return\n2026-01-05,0.01\n2026-01-06,-0.02\n2026-01-07,0.015"],
)
def test_a_file_of_returns_is_measured(
    command: Command, manager: PromotionManager, tmp_path: Path, text: str
) -> None:
    (tmp_path / "r.csv").write_text(text)
    assert command("record", "mm", "--returns", str(tmp_path / "r.csv"))[0] == 0
    assert manager.snapshot("mm").metrics["max_drawdown"] == pytest.approx(0.02)


def test_a_file_without_returns_is_refused_by_its_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("0.01\nx\n")
    for name, text in (
        ("r.csv", "r.csv:2: column 1: 'x' is not a number"),
        ("none", "cannot be read"),
    ):
        code, out, err = command("record", "mm", "--returns", str(tmp_path / name))
        assert (code, out) == (2, "")
        assert text in err


def test_a_record_without_metrics_is_wrong_usage(command: Command) -> None:
    code, _, err = command("record", "mm")
    assert code == 2
    assert err.startswith("fundops: METRIC=VALUE: give a metric")


@pytest.mark.parametrize("text", ["date,return\n", "equity\n100\n"])
def test_a_file_with_a_heading_or_a_first_price_alone_has_no_returns(
    command: Command, tmp_path: Path, text: str
) -> None:
    (tmp_path / "r.csv").write_text(text)
    code, out, err = command("record", "mm", "--returns", str(tmp_path / "r.csv"))
    assert (code, out, err) == (2, "", f"fundops: {tmp_path / 'r.csv'}: has no returns\n")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--stage", "shadow"), "--stage: 'shadow' is not the current stage, paper"),
        (("--as-of", "2999-01-01"), "(2999-01-01 00:00 UTC) lies in the future"),
    ],
)
def test_metrics_of_another_stage_or_of_the_future_are_refused(
    command: Command, manager: PromotionManager, words: tuple[str, ...], text: str
) -> None:
    code, out, err = command("record", "mm", "sharpe=1.2", *words)
    assert (code, out) == (2, "")
    assert text in err
    assert manager.snapshot("mm").metrics == {}


def test_counts_since_registration_count_in_the_present_stage(
    command: Command, manager: PromotionManager
) -> None:
    manager.adopt("old", PromotionStage.Shadow, by="ann", reason="it ran elsewhere")
    assert command("record", "old", "n_trades=60", "--since-registration")[0] == 0
    assert command("demote", "old", "--to", "paper", "--reason", "investigate")[0] == 0
    assert command("record", "old", "n_trades=75", "--since-registration")[0] == 0
    assert manager.snapshot("old").metrics == {"n_trades": 15}


def test_metrics_have_a_source_and_the_audit_names_who_recorded_them(
    command: Command, manager: PromotionManager, tmp_path: Path
) -> None:
    now = dt.datetime.now(dt.UTC).isoformat()
    of_desk = ("--as-of", now, "--source", "desk", "--stage", "paper")
    assert command("record", "mm", "n_trades=5", *of_desk, "--by", "bob", "--json")[1] == (
        '{"record":null}\n'
    )
    assert command("record", "mm", "n_trades=5", *of_desk)[0] == 0, "the same again"
    assert command("record", "mm", "n_trades=6", *of_desk)[0] == 1
    assert command("record", "mm", "n_trades=6", "--as-of", now, "--source", "lab")[0] == 0
    assert manager.snapshot("mm").metrics == {"n_trades": 6}
    with open_reader(tmp_path / "p.db") as reader:
        told = [(row.command, row.by) for row in reader.audit()]
    assert ("promotion.record_metrics", "bob") in told


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["sharpe"], "'sharpe' is not NAME=NUMBER"),
        (["s=x"], "'s=x' is not NAME=NUMBER"),
        (["s=1", "s=2"], "'s' is given twice"),
    ],
)
def test_a_figure_that_is_none_is_named(words: list[str], text: str) -> None:
    with pytest.raises(UsageError) as refusal:
        figures_of("METRIC=VALUE", words)
    assert str(refusal.value) == f"METRIC=VALUE: {text}"


@pytest.mark.parametrize(("by", "name"), [((), "ann"), (("--by", "bob"), "bob")])
def test_history_and_audit_name_the_person_who_registers(
    command: Command, manager: PromotionManager, tmp_path: Path, by: tuple[str, ...], name: str
) -> None:
    assert command("register", "new", *by)[0] == 0
    assert manager.history("new")[0].by == name
    with open_reader(tmp_path / "p.db") as reader:
        assert reader.audit()[0].by == name


def test_the_planned_words_lead_a_strategy_up_and_down(
    command: Command, manager: PromotionManager, tmp_path: Path
) -> None:
    code, _, err = command("promote", "mm", "--to", "shadow")
    assert code == 1
    assert "does not pass its gate" in err
    code, _, err = command("promote", "mm", "--to", "live", "--cap", "0.01")
    assert code == 1
    assert "from paper to shadow, not to live-small" in err
    assert command("adopt", "old", "live-small", "--reason", "it trades")[0] == 0
    assert command("set-cap", "old", "0.005", "--reason", "careful")[0] == 0
    assert manager.snapshot("old").cap == 0.005
    assert command("demote", "old", "--to", "paper", "--reason", "investigate")[0] == 0
    assert manager.current_stage("old") is PromotionStage.Paper
    history = json.loads(command("history", "old", "--json")[1])["history"]
    assert [(line["kind"], line["by"], line["reason"]) for line in history] == [
        ("demote", "ann", "investigate"),
        ("cap", "ann", "careful"),
        ("adopt", "ann", "it trades"),
    ]
    assert command("void", str(history[0]["seq"]), "--reason", "a slip")[0] == 0
    assert manager.current_stage("old") is PromotionStage.Live_Small
    with open_reader(tmp_path / "p.db") as reader:
        rows = [(row.door, row.command, row.by) for row in reader.audit()]
    assert rows[0] == ("standalone", "promotion.void", "ann")
    assert rows[-1] == ("manager", "promotion.register", "")


def test_an_approval_shows_the_step_before_and_after_and_takes_a_cap(
    command: Command, tmp_path: Path
) -> None:
    path = tmp_path / "p.db"
    quick = PromotionManager(path, policy=policy_of("guarded", min_paper_days=0))
    quick.adopt("old", PromotionStage.Live_Small, by="ann", reason="it trades", budget=100_000)
    command("record", "old", "sharpe=1.2", "n_trades=60", "max_drawdown=0.05")
    step = "live-scaled waits for a person: real capital from 1,000.00 to 100,000.00"
    assert step in command("evaluate", "old")[1]
    assert json.loads(command("evaluate", "old", "--json")[1])["why"].endswith(step)
    code, _, err = command("approve", "old", "--cap", "1.5")
    assert code == 2
    assert err.startswith("fundops: --cap: 1.5 is not a fraction of the budget above 0, at most 1")
    code, out, _ = command("approve", "old", "--cap", "0.25")
    assert code == 0
    assert "capital before  1,000.00" in out
    assert "capital after   25,000.00" in out


def test_the_status_is_a_table_with_the_reasons(command: Command) -> None:
    code, out, _ = command("status")
    assert code == 0
    assert out.splitlines()[0].split() == ["name", "stage", "days", "why"]
    assert "trades: missing" in out
    (row,) = json.loads(command("status", "--json")[1])["status"]
    assert row["evaluation"]["would_do"] == "none"
