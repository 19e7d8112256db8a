"""Commands of every part, put to a running fund, and what is left of them when none runs."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fundops import FundConfig, FundManager, StrategyStatus, open_reader
from fundops.cli import app as cli
from fundops.cli.run import existing
from fundops.testing import FakeController
from fundops.wire.errors import DatabaseError

Command = Callable[..., tuple[int, str, str]]
LONG = "a_strategy_with_a_name_that_is_far_longer_than_any_column_of_a_table"


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="fo", dir="/tmp") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setenv("FUNDOPS_HOME", str(tmp_path))
        monkeypatch.setenv("LOGNAME", "ann")
        yield


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fundops", *line.split()])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        # The path of a test is long, and neither it nor JSON is cut.
        assert max(map(len, out.splitlines()), default=0) <= 80 or "--json" in line or "/" in out
        return ended.value.code, out, err

    return run


@pytest.fixture
def fund() -> Iterator[FundManager]:
    config = FundConfig(
        total_capital=100_000,
        currency="EUR",
        ledger_enabled=True,
        promotion_enabled=True,
        self_healing_enabled=True,
        tick_interval_s=None,
    )
    engine = FakeController(
        StrategyStatus("trend", "running", equity=1_000, allocated=1_000),
        StrategyStatus(LONG, "running", equity=1_000, allocated=1_000),
    )
    with FundManager(config, engine) as running:
        yield running


def test_a_strategy_is_led_through_its_life(command: Command, fund: FundManager) -> None:
    code, out, _ = command("strategy register trend --budget 5000 --json")
    assert (code, json.loads(out)) == (
        0,
        {"register": fund.promotion.snapshot("trend").strategy_id},
    )
    adopt = f"strategy adopt {LONG} live-small --reason traded --by bob"
    assert command(adopt)[0] == 0
    assert command("strategy record trend sharpe=1.2 max_drawdown=0.08")[:2] == (0, "done\n")
    assert fund.promotion.snapshot("trend").metrics["sharpe"] == 1.2
    code, out, _ = command("strategy status")
    assert [line.split()[:3] for line in out.splitlines()] == [
        ["name", "stage", "days"],
        [out.splitlines()[1].split()[0], "live-small", "0"],
        ["trend", "paper", "0"],
    ]
    assert "…" in out.splitlines()[1]
    code, out, _ = command("strategy evaluate trend")
    assert out.startswith("trend: paper to shadow: FAIL\nnot promoted: trades: missing; 14 more")
    assert "min_days" in out
    assert "days to go" in out
    code, out, err = command("strategy promote trend --reason now")
    assert (code, out) == (1, "")
    assert err.startswith("fundops: ")
    for _ in range(2):
        assert command("strategy freeze trend --reason looks-wrong")[:2] == (0, "done\n")
    assert command("strategy unfreeze trend")[0] == 0
    assert command("strategy demote trend --to retired")[0] == 1
    assert command("strategy retire trend")[0] == 0
    assert command("strategy stage trend")[:2] == (0, "retired\n")
    code, out, _ = command("strategy show trend")
    assert "stage     retired for 0.00 days" in out
    history = json.loads(command("strategy history trend --json")[1])["history"]
    assert [line["kind"] for line in history] == ["retire", "unfreeze", "freeze", "register"], (
        "one line for each change, although it was frozen twice"
    )
    with open_reader(fund.config.path) as reader:
        rows = [(row.command.partition(".")[2], row.by) for row in reversed(reader.audit())]
    assert rows[:3] == [("register", "ann"), ("adopt", "bob"), ("record_metrics", "ann")]


def test_a_failure_is_held_and_let_go(command: Command, fund: FundManager) -> None:
    fund.tick()
    code, out, _ = command("recovery status")
    assert out.splitlines()[-1].split() == ["trend", "HEALTHY", "0"]
    assert command("recovery hold trend")[:2] == (0, "done\n")
    assert command("recovery hold trend")[:2] == (0, "nothing changed: it is held already\n")
    assert command("recovery release trend --by bob")[:2] == (0, "done\n")
    assert command("recovery reset trend")[:2] == (0, "nothing changed: it was not open\n")
    assert command("recovery check")[:2] == (0, "none\n")
    assert "held" in command("recovery stats")[1]
    events = json.loads(command("recovery events --json")[1])["events"]
    assert [(event["action"], event["by"]) for event in events] == [
        ("released", "bob"),
        ("held", "ann"),
    ]
    code, _, err = command("recovery hold nosuch")
    assert (code, "nosuch" in err) == (1, True)


def test_a_person_confirms_and_resumes(command: Command, fund: FundManager) -> None:
    fund.tick()
    assert command("confirm clock --reason looked")[:2] == (
        0,
        "nothing changed: it was not suspect\n",
    )
    assert command("confirm counters trend --reason looked")[1].startswith("nothing changed: ")
    assert command("strategy resume trend --reason calm")[1].startswith("nothing changed: ")
    assert json.loads(command("confirm clock --reason looked --json")[1]) == {"clock": False}
    assert command("confirm clock")[2] == (
        "fundops: the following arguments are required: --reason; `fundops confirm clock --help`"
        " explains it\n"
    )


def test_the_status_is_one_screen_with_a_line_for_each_strategy(
    command: Command, fund: FundManager
) -> None:
    code, out, _ = command("status")
    assert (code, "last tick       none yet" in out) == (0, True)
    fund.promotion.register("trend")
    fund.tick()
    code, out, err = command("status")
    assert (code, err) == (0, "")
    facts, strategies = out.split("\n\n")
    shown = {line[:14].strip(): line[16:] for line in facts.splitlines()}
    assert shown["fund"] == "fund"
    assert shown["NAV"] == "100,000.00 EUR"
    assert (shown["drawdown"], shown["kill switch"]) == ("0.00 %", "OFF")
    assert shown["strategies"] == "2 running; 1 paper"
    assert shown["last tick"].endswith(" s ago")
    assert shown["breakers open"] == "0"
    assert [line.split()[:3] for line in strategies.splitlines()[-1:]] == [
        ["trend", "paper", "0.0"]
    ]
    told = json.loads(command("status --json")[1])
    assert (told["nav"], told["kill_switch"]) == ("100000.00000000", "OFF")


def test_other_questions_and_the_copy_of_a_running_fund(
    command: Command, fund: FundManager, tmp_path: Path
) -> None:
    assert command("storage")[1].splitlines()[0] == "state      ok"
    assert command("nav-history")[:2] == (0, "none\n")
    assert command(f"backup {tmp_path / 'copy.db'}")[0] == 0
    assert command("alerts send WARNING GENERAL title text")[0] == 0
    assert "title" in command("alerts list")[1]
    told = command("alerts send LOUD GENERAL title text")[2]
    assert told.startswith("fundops: LEVEL: invalid choice: 'LOUD' (choose from ")


def test_with_no_fund_the_file_answers_and_the_rest_ends_with_three(
    command: Command, fund: FundManager
) -> None:
    fund.promotion.register("trend")
    fund.tick()
    fund.recovery.hold("trend")
    fund.stop()
    assert command("strategy stage trend")[:2] == (0, "paper\n")
    assert command("strategy stage nosuch") == (
        1,
        "",
        "fundops: there is no strategy 'nosuch'\n",
    )
    assert "register" in command("strategy history trend")[1]
    assert "held" in command("recovery events")[1]
    assert command("nav-history")[0] == 0
    assert command("ledger nav")[1] == "100,000.00 EUR\n"
    path = fund.config.path
    for line in (
        "status",
        "storage",
        "recovery status",
        "recovery hold trend",
        "alerts test",
        "confirm clock --reason x",
    ):
        words = line.partition(" --")[0].removesuffix(" trend")
        code, out, err = command(line)
        assert (code, out) == (3, "")
        assert err.startswith(f"fundops: no fund runs on {path}, and `fundops {words}` needs one")
    code, out, err = command("recovery hold trend --json")
    assert (code, out) == (3, err)
    assert json.loads(err)["error"]["type"] == "NobodyListens"


def test_the_way_to_a_database_is_a_command_that_a_shell_takes(tmp_path: Path) -> None:
    path = tmp_path / "my fund.db"
    with pytest.raises(DatabaseError, match=re.escape(f"begin CAPITAL --db '{path}'`")):
        existing(path)


def test_a_database_that_is_not_there_is_told_with_the_way_to_one(
    command: Command, tmp_path: Path
) -> None:
    path = tmp_path / "fund.db"
    for line in ("status", "ledger nav", "ledger deposit 5", "alerts list", "mcp", "backup x.db"):
        code, out, err = command(line)
        assert (code, out) == (1, "")
        assert err == (
            f"fundops: {path}: there is no such database;"
            f" `fundops ledger begin CAPITAL --db {path}` makes one\n"
        )
    for line in ("strategy status", "strategy register trend", "strategy record trend sharpe=1"):
        code, out, err = command(line)
        assert (code, out) == (1, "")
        assert err == (
            f"fundops: {path}: there is no such database; a fund with promotion makes one, and so"
            " does PromotionManager in Python\n"
        )
    assert list(tmp_path.iterdir()) == []


# -- a book that begins


def test_a_book_is_begun_from_a_shell_and_a_fund_goes_on_with_it(
    command: Command, tmp_path: Path
) -> None:
    code, out, err = command("ledger begin 100000.50 --name eu --currency EUR")
    path = tmp_path / "eu.db"
    said = f"{path}: the book of 'eu' begins with 100,000.50 EUR\n"
    assert (code, out, err) == (0, said, "")
    assert path.stat().st_mode & 0o777 == 0o600
    assert command(f"ledger nav --db {path}")[1] == "100,000.50 EUR\n"
    with open_reader(path) as reader:
        [row] = reader.audit()
        assert (row.command, row.by, row.arguments["key"]) == ("ledger.deposit", "ann", "opening")
    config: dict[str, Any] = {"name": "eu", "currency": "EUR", "ledger_enabled": True}
    with FundManager(FundConfig(total_capital="100000.50", **config)) as fund:
        assert len(fund.ledger.entries()) == 1
    code, _, err = command("ledger begin 5 --name eu")
    assert (code, err) == (
        1,
        f"fundops: {path}: exists already, and a book is begun only once\n",
    )
    told = json.loads(command("ledger begin 7 --json")[1])
    assert (told["name"], told["currency"], told["total_capital"]) == ("fund", "USD", "7")
    assert told["entry"]["seq"] == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ledger begin", "the following arguments are required: CAPITAL"),
        ("ledger begin many", "CAPITAL: 'many' is not a decimal number"),
        ("ledger begin 0", "CAPITAL: "),
        ("ledger begin 5 --name a/b", "--name: "),
        ("ledger begin 5 --currency UNITS", "--currency: "),
    ],
)
def test_a_book_that_cannot_be_begun_leaves_no_file(
    command: Command, tmp_path: Path, line: str, said: str
) -> None:
    code, out, err = command(line)
    assert (code, out) == (2, "")
    assert err.startswith(f"fundops: {said}")
    assert list(tmp_path.iterdir()) == []
