"""A careless or hostile caller: each command still ends in one line and with the right code."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

from fundops import FundConfig, FundManager, open_reader
from fundops.actors.guard.marker import Marker, marker_of
from fundops.cli import app as cli
from fundops.cli import show
from fundops.errors import NobodyListens
from fundops.wire.errors import DatabaseError

DEADLINE_S = 60


class Ended(NamedTuple):
    code: int
    out: str
    err: str


class Command:
    """The command in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *words: str) -> Ended:
        self._monkeypatch.setattr(sys, "argv", ["fundops", *words])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, *self._capsys.readouterr())


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUNDOPS_HOME", str(tmp_path))
    return Command(monkeypatch, capsys)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "fund.db"
    with FundManager(FundConfig(total_capital=1_000, db_path=path, ledger_enabled=True)):
        pass
    return path


def in_a_shell(line: str, *, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command after `fundops` in a shell of its own, which can close its streams."""
    return subprocess.run(
        ["sh", "-c", f'exec "{sys.executable}" -W error -m fundops {line}'],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        cwd=cwd,
        env={**os.environ, "FUNDOPS_HOME": str(cwd), "PYTHONUNBUFFERED": ""},
        check=False,
    )


# -- streams


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("ledger deposit 5 >&-", 0),
        ("ledger deposit 5 >&- 2>&- <&-", 0),
        ("ledger deposit --help >&-", 0),
        ("nosuch >&-", 2),
        ("nosuch 2>&-", 2),
        ("kill-switch engage --reason r >&- 2>&- <&-", 0),
    ],
)
def test_a_closed_stream_is_no_error(db: Path, line: str, code: int) -> None:
    done = in_a_shell(line, cwd=db.parent)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    if "deposit 5" in line:
        with open_reader(db) as reader:
            assert str(reader.nav()) == "1005.00000000"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_stream_does_not_change_what_the_code_says(db: Path) -> None:
    assert in_a_shell("nosuch 2>/dev/full", cwd=db.parent).returncode == 2
    done = in_a_shell("ledger deposit 5 >/dev/full", cwd=db.parent)
    assert (done.returncode, done.stderr) == (
        1,
        "fundops: the command is done, but stdout cannot be written: no space left on device\n",
    )


def test_an_interrupt_during_the_imports_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fundops import __main__ as entry

    class Interrupting:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "fundops.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "fundops.cli.app")
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "fundops: interrupted\n")


# -- paths


def test_a_path_that_can_be_no_database_says_why(command: Command, tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    os.mkfifo(tmp_path / "pipe.db")
    (tmp_path / "loop.db").symlink_to("loop.db")
    for words in (["ledger", "nav"], ["ledger", "deposit", "5"], ["status"], ["migrate"]):
        assert command(*words, "--db", "folder.db")[::2] == (
            1,
            "fundops: folder.db: is no file but a folder\n",
        )
        assert (
            command(*words, "--db", "pipe.db").err == "fundops: pipe.db: is no file but a device\n"
        )
        ended = command(*words, "--db", "")
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith("fundops: --db: '' is not a path; ")
    for words in (["ledger", "nav"], ["restore", "x"], ["ledger", "import", "x"]):
        ended = command(*words, "--db", "loop.db")
        assert ended.code == 1
        assert ended.err == "fundops: loop.db: too many levels of symbolic links\n"
    ended = command("ledger", "begin", "5", "--db", "loop.db")
    assert (ended.code, ended.out) == (1, "")
    assert "loop.db: " in ended.err


def test_a_newer_database_is_refused_by_those_that_read_files_themselves(
    command: Command, db: Path
) -> None:
    connection = apsw.Connection(str(db))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    for words in (["ledger", "export"], ["kill-switch", "status"], ["ledger", "deposit", "5"]):
        ended = command(*words)
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.startswith(f"fundops: {db}: was written by a newer fundops (schema 99")
    # The marker alone says that it is engaged.
    assert command("kill-switch", "engage", "--reason", "r").code == 0
    assert "ENGAGING" in command("kill-switch", "status").out


def test_a_book_that_could_not_be_made_leaves_no_file_that_is_in_its_way(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("fundops.file.database.prepare", full)
        assert command("ledger", "begin", "5").err == "fundops: no space left on device\n"
    assert not (tmp_path / "fund.db").exists()
    assert command("ledger", "begin", "5").code == 0


# -- the kill switch


def test_engaging_asks_the_fund_although_the_marker_cannot_be_written(
    command: Command, monkeypatch: pytest.MonkeyPatch, db: Path
) -> None:
    asked: list[str] = []

    def no_marker(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(marker_of(db)))

    def call(_path: Path, name: str, *_: object, **__: object) -> Any:
        asked.append(name)
        return {"state": "ENGAGED"}

    monkeypatch.setattr(Marker, "write", no_marker)
    monkeypatch.setattr("fundops.control.client.call", call)
    ended = command("kill-switch", "engage", "--reason", "r")
    assert (ended.code, asked) == (0, ["kill_switch.engage"])
    assert "ENGAGED" in ended.out

    def nobody(*_: object, **__: object) -> Any:
        raise NobodyListens("none")

    monkeypatch.setattr("fundops.control.client.call", nobody)
    ended = command("kill-switch", "engage", "--reason", "r")
    assert (ended.code, ended.err) == (1, f"fundops: {marker_of(db)}: read-only file system\n")


def test_a_marker_without_room_for_its_text_counts(
    command: Command, monkeypatch: pytest.MonkeyPatch, db: Path
) -> None:
    def full(marker: Marker, _status: object) -> None:
        marker.path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Marker, "write", full)
    ended = command("kill-switch", "engage", "--reason", "r")
    assert ended.code == 0
    assert "ENGAGING" in ended.out
    assert "the marker is written; no fund answers" in ended.out


def test_engaging_on_an_impossible_path_is_refused(command: Command, db: Path) -> None:
    ended = command("kill-switch", "engage", "--reason", "r", "--db", f"{db}/x.db")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.endswith("not a directory\n")


# -- texts and figures


@pytest.mark.parametrize("figure", ["nan", "inf", "-inf", "1e400"])
def test_a_metric_that_json_cannot_carry_is_refused(
    command: Command, db: Path, figure: str
) -> None:
    ended = command("strategy", "record", "a", f"sharpe={figure}")
    assert (ended.code, ended.err) == (
        2,
        f"fundops: METRIC=VALUE: 'sharpe={figure}' is not a finite number\n",
    )


def test_an_empty_author_is_refused(command: Command, db: Path) -> None:
    for name in ("", "  "):
        ended = command("ledger", "deposit", "5", "--by", name)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith("fundops: --by: is empty; ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["deposit", "5", "--at", "9999-12-31"], "--at: 253402"),
        (
            ["deposit", "5", "--at", "2020-01-01T00:00"],
            "--at: 2020-01-01T00:00:00 has no timezone, such as Z or +02:00",
        ),
        (["price", "X", "-1"], "VALUE: '-1' must not be negative"),
    ],
)
def test_a_refusal_shows_a_value_as_it_was_typed(
    command: Command, db: Path, words: list[str], said: str
) -> None:
    ended = command("ledger", *words)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"fundops: {said}")


def test_a_text_cannot_move_the_cursor(command: Command, db: Path) -> None:
    memo = "\x1b[31mred\nline\x07"
    assert command("ledger", "deposit", "5", "--memo", memo).code == 0
    out = command("ledger", "entries").out
    assert "\x1b" not in out
    assert " [31mred line" in out
    told = command("ledger", "entries", "--json").out
    assert json.loads(told)["entries"][0]["memo"] == memo


def test_the_log_does_not_repeat_what_the_command_says(
    command: Command, db: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("fundops"), "propagate", False)
    assert command("kill-switch", "engage", "--reason", "r").code == 0
    words = ("kill-switch", "release", "--by", "a", "--reason", "b")
    refused = command(*words)
    assert refused.code == 1
    assert "; --accept-open-orders releases it anyway" in refused.err
    released = command(*words, "--accept-open-orders")
    assert (released.code, released.err) == (0, "")
    assert released.out.split()[:2] == ["state", "OFF"]
    assert "next stop nav" in released.out


def test_a_long_text_of_a_record_is_wrapped_and_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "width", lambda: 30)
    problem = "the controller has no stop_all, so it cannot confirm the stop"
    lines = show.pairs([("state", "OFF"), ("problem", problem)], wrapped=True)
    assert max(map(len, lines)) <= 30
    assert [line[:9].strip() for line in lines] == ["state", "problem", "", "", ""]
    assert " ".join(line[9:] for line in lines[1:]) == problem


# -- files that are read


@pytest.mark.parametrize("content", [b"\xff\xfe,\n", b"x" * 200_000], ids=["no text", "long"])
@pytest.mark.parametrize("words", ["reconcile", "import-fills"])
def test_a_file_that_is_no_csv_is_refused_by_its_line(
    command: Command, db: Path, tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    ended = command("ledger", words, "x.csv")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(
        {
            "reconcile": "fundops: x.csv:1: cannot be read: ",
            "import-fills": "fundops: line 1: cannot be read: ",
        }[words]
    )


def test_a_revision_of_thousands_of_digits_is_refused(
    command: Command, db: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text(
        "id,at,strategy,instrument,quantity,price,fee,revision\n"
        f"a,2026-01-05,s,X,1,1,0,{'9' * 5_000}\n"
    )
    ended = command("ledger", "import-fills", "x.csv")
    assert (ended.code, ended.out) == (2, "")
    assert "line 2: revision '99" in ended.err


def test_an_export_to_a_folder_is_refused(command: Command, db: Path) -> None:
    for output in (".", "..", "/"):
        ended = command("ledger", "export", "--output", output)
        assert ended == (
            1,
            "",
            f"fundops: {output}: exists already, and an export never overwrites\n",
        )


def test_an_entry_without_legs_names_both_options(command: Command, db: Path) -> None:
    ended = command("ledger", "post")
    assert (ended.code, ended.err) == (2, "fundops: --debit/--credit: is missing\n")


def test_on_a_full_disk_the_marker_tells_the_state_and_the_error_the_cause(
    command: Command, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(path: Path) -> Any:
        raise DatabaseError(path, "cannot be read: disk I/O error")

    monkeypatch.setattr("fundops.file.meta.read_file", unreadable)
    monkeypatch.setattr(cli, "_is_full", lambda _folder: True)
    ended = command("kill-switch", "status")
    assert ended.code == 1
    assert ended.err.endswith(
        "disk I/O error; its disk is full, and SQLite needs room even to read\n"
    )
    marker_of(db).touch()
    ended = command("kill-switch", "status")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("state   ENGAGING\n")


# -- damaged files


def damage(db: Path, table: str) -> None:
    """Write over the page that holds the root of a table, in the file itself."""
    connection = apsw.Connection(str(db))
    connection.pragma("wal_checkpoint(TRUNCATE)")
    rows: list[Any] = connection.execute(
        "SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)
    ).fetchall()
    ((root,),) = rows
    size = connection.pragma("page_size")
    connection.close()
    with db.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * 200)


@pytest.mark.parametrize(
    "words",
    [
        "status",
        "why s",
        "kill-switch status",
        "kill-switch release --by a --reason b",
        "ledger balance-sheet",
        "ledger deposit 5",
        "ledger export",
        "strategy status",
        "strategy register s",
        "alerts list",
        "recovery status",
        "backup copy.db",
        "restore fund.db --db new.db",
    ],
)
def test_a_damaged_page_is_told_with_the_name_of_its_file(
    command: Command, db: Path, words: str
) -> None:
    for table in ("meta", "entry", "audit", "kill_latch", "strategy", "alert", "oversight"):
        with suppress(ValueError):  # no table of that name
            damage(db, table)
    ended = command(*words.split())
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith((f"fundops: {db}: ", "fundops: fund.db: "))
    assert "malformed" in ended.err or "damaged" in ended.err
    assert not (db.parent / "copy.db").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("ledger entries", b'"day":"'),
        ("ledger deposit 5", b'{"floats"'),
        ("why s", b'{"active_us"'),
        ("strategy promote s", b'{"active_us"'),
    ],
)
def test_a_damaged_record_is_told_with_the_name_of_its_file(
    command: Command, db: Path, words: str, text: bytes
) -> None:
    assert command("strategy", "register", "s").code == 0
    with apsw.Connection(str(db)) as connection:
        connection.pragma("wal_checkpoint(TRUNCATE)")
    connection.close()
    content = db.read_bytes()
    assert text in content
    db.write_bytes(content.replace(text, bytes(len(text) * "?", "ascii")))
    ended = command(*words.split())
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(f"fundops: {db}: cannot be ")


def test_a_damaged_page_keeps_no_switch_from_being_engaged(command: Command, db: Path) -> None:
    damage(db, "meta")
    ended = command("kill-switch", "engage", "--reason", "r")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("state   ENGAGING\n")
    assert "heeds it; " in ended.out
    assert marker_of(db).exists()


@pytest.mark.parametrize("words", ["status", "why s", "migrate", "ledger nav", "recovery reset s"])
def test_a_file_of_a_newer_version_is_told_by_every_command(
    command: Command, db: Path, words: str
) -> None:
    connection = apsw.Connection(str(db))
    connection.pragma("user_version", 99)
    connection.close()
    ended = command(*words.split())
    assert ended.code == 1
    assert "was written by a newer fundops (schema 99, this one knows" in ended.err


# -- encodings


def test_a_terminal_without_a_letter_gets_another_one_and_json_keeps_it(db: Path) -> None:
    deposited = in_a_shell("ledger deposit 5 --memo '🚀 ü'", cwd=db.parent)
    assert deposited.returncode == 0
    for line, said in (
        ("ledger entries --limit 1", "? ?"),
        ("ledger entries --limit 1 --json", '"memo":"\\ud83d\\ude80 \\u00fc"'),
        ("ledger export", "🚀 ü"),
        ("ledger begin 5 --name x --db 'ü.db'", "?.db: the book of 'x' begins with 5.00 USD"),
    ):
        done = subprocess.run(
            ["sh", "-c", f'exec "{sys.executable}" -W error -m fundops {line}'],
            capture_output=True,
            timeout=DEADLINE_S,
            cwd=db.parent,
            env={**os.environ, "FUNDOPS_HOME": str(db.parent), "PYTHONIOENCODING": "ascii"},
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b""), line
        assert said in done.stdout.decode()


def test_a_path_that_is_no_utf8_is_wrong_usage(
    command: Command, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (["ledger", "nav", "--db"], ["ledger", "deposit", "5", "--db"], ["backup"]):
        ended = command(*words, "\udcff.db")
        assert (ended.code, ended.out) == (2, "")
        assert "'\\udcff.db' is not a path; " in ended.err
    monkeypatch.setenv("FUNDOPS_HOME", "\udcff")
    assert command("ledger", "begin", "5").code == 2
