"""The command line: its help, its answers to wrong usage, and no traceback in any case."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apsw
import pytest

import fundops
from fundops import FundConfig, FundManager, open_reader
from fundops.actors.persistence import open_database
from fundops.cli import app as cli
from fundops.control import standalone
from fundops.file.database import MIGRATIONS

DEADLINE_S = 120


def _fundops(
    *arguments: str, cwd: Path | None = None, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "fundops", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        stdin=subprocess.DEVNULL,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", **(variables or {})},
        check=False,
    )


class Command:
    """The command in this process: half a second faster than in a new one."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cwd: Path
    ) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.chdir(cwd)
        monkeypatch.setenv("COLUMNS", "200")

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        self._monkeypatch.setattr(sys, "argv", ["fundops", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess([*arguments], ended.value.code, out, err)


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    return Command(monkeypatch, capsys, tmp_path)


def _one_line(done: subprocess.CompletedProcess[str], code: int, *said: str) -> None:
    """It ended with this code and one line of text that says why, without the frame around it."""
    spoken = f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in spoken
    assert done.returncode == code, spoken
    lines = [
        line.strip("│ ") for line in spoken.splitlines() if any(letter.isalpha() for letter in line)
    ]
    lines = [line for line in lines if not line.startswith("╭")]
    assert len(lines) == 1, lines
    for part in said:
        assert part in lines[0]


def _csv(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["date,open,high,low,close,volume", *rows]) + "\n")
    return path


# -- help


def test_help_names_every_command_and_each_has_help_of_its_own(command: Command) -> None:
    shown = command("--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    for name in ("demo", "mcp", "bench"):
        assert name in shown.stdout
        help_of_it = command(name, "--help")
        assert (help_of_it.returncode, help_of_it.stderr) == (0, "")
        assert f"Usage: fundops {name}" in help_of_it.stdout


def test_every_option_of_the_demo_is_explained(command: Command) -> None:
    shown = command("demo", "--help").stdout
    for option in (
        "--start",
        "--sessions",
        "--seed",
        "--db",
        "--keep",
        "--prices",
        "--no-serve",
        "--hold",
        "--port",
        "--html",
    ):
        assert option in shown


def test_without_a_command_it_shows_its_help(command: Command) -> None:
    assert "Usage: fundops" in command().stdout


def test_the_version_is_the_packages() -> None:
    done = _fundops("--version")
    assert (done.returncode, done.stdout.strip()) == (0, fundops.__version__)


def test_the_installed_command_is_the_same_one() -> None:
    command = Path(sys.executable).with_name("fundops")
    done = subprocess.run(
        [command, "--version"], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )
    assert done.stdout.strip() == fundops.__version__


# -- wrong usage


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "nosuch"),
        (["demo", "--nosuch"], "--nosuch"),
        (["demo", "surplus"], "surplus"),
        (["demo", "--sessions", "0"], "--sessions"),
        (["demo", "--sessions", "-3"], "--sessions"),
        (["demo", "--sessions", "many"], "--sessions"),
        (["demo", "--sessions", "1.5"], "--sessions: '1.5' is not a whole number"),
        (["demo", "--sessions"], "--sessions"),
        (["demo", "--start", "2009-13-01"], "--start"),
        (["demo", "--start", "yesterday"], "--start"),
        (["demo", "--start", "2050-01-01", "--port", "0"], "2018-12-31"),
        (["demo", "--seed", "x"], "--seed"),
        (["demo", "--port", "99999", "--sessions", "1"], "--port: 99999"),
        (["demo", "--port", "-1", "--sessions", "1"], "--port: -1"),
        (["demo", "--hold", "--no-serve"], "--no-serve"),
        (["demo", "--prices", "nosuch.csv"], "nosuch.csv"),
        (["bench", "nosuch"], "nosuch"),
        (["bench", "--scale", "0"], "--scale"),
        (["bench", "--scale", "nan"], "--scale"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_ends_with_two_and_one_line_that_says_what(
    command: Command, arguments: list[str], said: str, tmp_path: Path
) -> None:
    _one_line(command(*arguments), 2, said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("row", "column", "problem"),
    [
        ("2026-01-06,1,2,0.5,x,10", "close", "'x' is not a number"),
        ("2026-01-06,1,2,0.5,nan,10", "close", "not finite"),
        ("2026-01-06,0,2,0.5,1,10", "open", "not positive"),
        ("2026-01-06,1,0.9,0.5,1,10", "high", "below the open"),
        ("2026-02-30,1,2,0.5,1,10", "date", "calendar"),
        ("2026-01-05,1,2,0.5,1,10", "date", "repeats"),
        ("2026-01-06,1,2,0.5,1,-1", "volume", "negative"),
    ],
)
def test_a_price_that_is_none_is_named_by_line_and_column(
    command: Command, tmp_path: Path, row: str, column: str, problem: str
) -> None:
    path = _csv(tmp_path / "mine.csv", "2026-01-05,1,2,0.5,1,10", row)
    _one_line(command("demo", "--prices", str(path)), 2, f"{path}:3: column '{column}'", problem)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "empty"),
        ("date,open,high,low,close,volume\n", "no rows"),
        ("date,open,high,low,volume\n", "'close'"),
        ("a,b\n1,2\n", "'date'"),
        ("\x00\x01\x02", "date"),
    ],
)
def test_a_price_file_that_is_none_is_refused_as_a_whole(
    command: Command, tmp_path: Path, content: str, problem: str
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(content)
    _one_line(command("demo", "--prices", str(path)), 2, "mine.csv", problem)


def test_a_folder_for_prices_is_refused(command: Command, tmp_path: Path) -> None:
    _one_line(command("demo", "--prices", str(tmp_path)), 2, "cannot be read")


def test_a_database_that_exists_is_never_overwritten(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "mine.db"
    path.write_bytes(b"precious")
    _one_line(command("demo", "--db", str(path), "--sessions", "1"), 2, "--db", "exists")
    assert path.read_bytes() == b"precious"
    assert [one.name for one in tmp_path.iterdir()] == ["mine.db"]
    _one_line(command("demo", "--db", str(tmp_path), "--sessions", "1"), 2, "exists")


def test_a_link_to_nowhere_is_not_followed_into_a_new_database(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "missing" / "target.db")
    done = command(
        "demo", "--db", str(tmp_path / "link.db"), "--sessions", "1", "--no-serve", "--json"
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1, 2)


def test_a_place_where_no_database_can_be_made_is_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    _one_line(
        command("demo", "--db", str(tmp_path / "file" / "x.db"), "--no-serve", "--sessions", "1"),
        1,
        "x.db",
    )


def test_a_full_device_for_stdout_is_one_line_and_no_traceback() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    with full.open("w") as out:
        done = subprocess.run(
            [sys.executable, "-m", "fundops", "demo", "--sessions", "1", "--no-serve"],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("fundops: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "variables", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"TERM": "dumb", "COLUMNS": "20"}]
)
def test_the_report_is_drawn_on_any_terminal(variables: dict[str, str]) -> None:
    done = _fundops("demo", "--sessions", "2", "--no-serve", variables=variables)
    assert done.returncode == 0
    [breaker] = done.stderr.splitlines()
    assert breaker.startswith("2009-03-02 ")
    assert "CASH" in done.stdout


def test_an_export_onto_an_existing_file_says_so_in_words(command: Command, tmp_path: Path) -> None:
    with FundManager(_config(tmp_path)):
        pass
    (tmp_path / "out.jsonl").write_text("mine")
    ended = command("ledger", "export", "--db", "fund.db", "--output", "out.jsonl")
    assert ended.returncode == 1
    assert ended.stderr == "fundops: out.jsonl: exists already, and an export never overwrites\n"
    assert (tmp_path / "out.jsonl").read_text() == "mine"


def test_a_refusal_of_the_system_is_worded_without_its_number(
    command: Command, tmp_path: Path
) -> None:
    with FundManager(_config(tmp_path)):
        pass
    ended = command("ledger", "export", "--db", "fund.db", "--output", "no/out.jsonl")
    assert ended.returncode == 1
    assert ended.stderr == "fundops: no/out.jsonl.part: no such file or directory\n"


def test_the_mcp_server_refuses_a_missing_database_at_its_start(command: Command) -> None:
    ended = command("mcp", "--db", "nope.db")
    assert ended.returncode == 1
    assert "nope.db: there is no such database" in ended.stderr


def test_a_refusal_is_json_where_json_was_asked_for(command: Command, tmp_path: Path) -> None:
    with FundManager(_config(tmp_path)):
        pass
    ended = command("ledger", "withdraw", "500000", "--db", "fund.db", "--key", "k", "--json")
    assert ended.returncode == 1
    assert ended.stdout == ended.stderr
    told = json.loads(ended.stdout)["error"]
    assert told["text"].startswith("CASH has 1000")
    assert (told["type"], told["key"], told["outcome"]) == ("InsufficientFunds", "k", "done")


def test_a_wrong_usage_is_json_where_json_was_asked_for(command: Command) -> None:
    for words in (["nosuch"], ["ledger", "deposit"], ["ledger", "nav", "--as-of"]):
        ended = command(*words, "--json")
        assert (ended.returncode, ended.stdout) == (2, ended.stderr)
        assert ended.stdout.count("\n") == 1
        told = json.loads(ended.stdout)["error"]
        assert [*told] == ["type", "text", "key", "outcome"]
        assert told["type"] == "UsageError"


def test_more_sessions_than_there_are_prices_are_said(command: Command, tmp_path: Path) -> None:
    rows = [f"2026-01-{day:02},1,2,0.5,1,10" for day in (5, 6, 7)]
    path = _csv(tmp_path / "mine.csv", *rows)
    done = command("demo", "--prices", str(path), "--sessions", "100000", "--no-serve", "--json")
    assert (done.returncode, json.loads(done.stdout)["sessions"]) == (0, 3)
    assert done.stderr == (
        "fundops: the prices have 3 sessions from 2026-01-05 on, so 3 are replayed and not"
        " 100,000\n"
    )


def test_a_reader_that_closes_its_end_is_no_error(tmp_path: Path) -> None:
    with FundManager(_config(tmp_path)):
        pass
    with subprocess.Popen(
        [sys.executable, "-m", "fundops", "ledger", "trial", "--db", str(tmp_path / "fund.db")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as asking:
        assert asking.stdout is not None
        assert asking.stderr is not None
        asking.stdout.close()
        said = asking.stderr.read()
    assert (asking.returncode, said) == (0, "")


def test_a_closed_output_is_no_error(tmp_path: Path) -> None:
    with FundManager(_config(tmp_path)):
        pass
    ask = f"{sys.executable} -m fundops ledger trial --db {tmp_path / 'fund.db'}"
    for closed, code in ((">&-", 0), (">&- 2>&-", 0)):
        done = subprocess.run(
            ["sh", "-c", f"{ask} {closed}"],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_an_interrupt_is_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("fundops.cli.run.run", interrupted)
    ended = command("ledger", "nav")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "fundops: interrupted\n")


def test_a_database_of_a_newer_version_is_refused_in_one_line(
    command: Command, tmp_path: Path
) -> None:
    with FundManager(_config(tmp_path)):
        pass
    connection = apsw.Connection(str(tmp_path / "fund.db"))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    for words in (["ledger", "nav"], ["ledger", "deposit", "5"], ["migrate"], ["alerts", "list"]):
        ended = command(*words, "--db", "fund.db")
        _one_line(ended, 1, "fund.db: was written by a newer fundops (schema 99, this one knows")


def test_a_question_that_an_older_file_cannot_answer_names_the_way_to_a_newer_one(
    command: Command, tmp_path: Path
) -> None:
    connection = open_database(tmp_path / "old.db", MIGRATIONS[:1])
    connection.execute("INSERT INTO meta VALUES ('uuid', '0')")
    connection.close()
    assert command("alerts", "list", "--db", "old.db").stdout == "none\n"
    ended = command("nav-history", "--db", "old.db")
    _one_line(ended, 1, "old.db: cannot be read: ", "`fundops migrate --db old.db`")


def test_a_folder_that_cannot_be_written_is_named_in_one_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FundManager(_config(tmp_path)):
        pass
    opened = os.open

    def read_only(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and str(path).endswith(".lock"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", read_only)
    ended = command("ledger", "deposit", "5", "--db", "fund.db")
    _one_line(ended, 1, "fund.db: cannot be locked: Permission denied: ")


def test_a_deposit_beside_another_writer_is_refused_in_time(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FundManager(_config(tmp_path)):
        pass
    # Both waits together are within the 10 s that a caller is promised.
    assert 2 * standalone.LOCK_WAIT_S < 10
    monkeypatch.setattr("fundops.control.standalone.LOCK_WAIT_S", 0.05)
    other = apsw.Connection(str(tmp_path / "fund.db"))
    other.execute("BEGIN IMMEDIATE")
    try:
        ended = command("ledger", "deposit", "5", "--db", "fund.db")
    finally:
        other.execute("ROLLBACK")
        other.close()
    _one_line(ended, 1, "another program has held its write lock")
    with open_reader(tmp_path / "fund.db") as reader:
        assert reader.audit() == ()


def test_a_terminated_demo_removes_its_temporary_database(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "fundops", "demo", "--hold", "--port", "0"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "200"},
    ) as demo:
        assert demo.stderr is not None
        assert "status page" in demo.stderr.readline()  # the fund runs
        assert "status stream" in demo.stderr.readline()
        assert len(list(tmp_path.glob("fundops-*/demo.db"))) == 1
        demo.terminate()
        rest = demo.stderr.read()
    assert demo.returncode == 128 + signal.SIGTERM
    assert rest.endswith("fundops: terminated\n")
    assert list(tmp_path.iterdir()) == []


def _config(folder: Path) -> FundConfig:
    return FundConfig(
        total_capital=1_000, db_path=folder / "fund.db", ledger_enabled=True, control_socket=False
    )
