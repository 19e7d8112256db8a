"""The demo in a separate process: its report, its stream, its interruptions and its death."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from fundops import open_reader
from fundops.file.lock import OwnerLock

DEADLINE_S = 120.0
SOAK_DEADLINE_S = 900.0
SUBPROTOCOL = Subprotocol("fund.status.v1+json")
DEMO = [sys.executable, "-m", "fundops", "demo"]

ROOT = Path(__file__).parents[2]

STRATEGIES = 13
# The keys that a report promises, and those of its parts.
REPORT = {
    "sessions",
    "strategies",
    "promotions",
    "demotions",
    "alerts",
    "recovery",
    "balance_sheet",
    "income_statement",
    "trial_balance",
    "actor_restarts",
    "wall_s",
}
RECOVERY = {"total_attempts", "successes", "failures", "circuit_breakers_open"}
# The tables of facts, each in the order of its rows. Deliveries to the webhook happen in real time
# and are left out.
FACTS = (
    "meta",
    "entry",
    "posting",
    "promotion_history",
    "recovery_event",
    "alert",
    "nav_history",
    "oversight",
)


class Ended(NamedTuple):
    """A demo that ran to its end."""

    code: int
    out: str
    err: str
    db: Path

    @property
    def report(self) -> dict[str, Any]:
        assert self.code == 0, self.err
        decoded: dict[str, Any] = json.loads(self.out)
        return decoded


def _facts(path: Path) -> dict[str, list[Any]]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return {
            table: list(connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2"))
            for table in FACTS
        }
    finally:
        connection.close()


def _check(path: Path) -> None:
    """The database is whole, balanced and without an owner, so it can be used again."""
    connection = apsw.Connection(str(path))
    try:
        assert connection.pragma("integrity_check") == "ok"
        assert list(connection.execute("PRAGMA foreign_key_check")) == []
    finally:
        connection.close()
    with open_reader(path) as reader:
        assert sum(reader.trial_balance().values()) == 0
    with OwnerLock(path):
        pass


@contextmanager
def _demo(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A running demo, which has ended after the block in any case."""
    pipes: dict[str, Any] = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "stdin": subprocess.DEVNULL,
    }
    with subprocess.Popen([*DEMO, *arguments], text=True, **{**pipes, **options}) as process:
        try:
            yield process
        finally:
            process.kill()


# -- the report


ENDED = {
    "one": "--seed 1 --sessions 60 --json",
    "again": "--seed 1 --sessions 60 --json",
    "other": "--seed 2 --sessions 70",
}


@pytest.fixture(scope="session")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """Three demos: the same seed twice, and another one, which tells its story.

    The processes of one test run share them.
    """
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "ended"
    folder.mkdir(exist_ok=True)
    stored = folder / "ended.json"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stored.exists():
            stored.write_text(json.dumps(_run_demos(folder)))
    return {
        name: Ended(code, out, err, folder / f"{name}.db")
        for name, (code, out, err) in json.loads(stored.read_text()).items()
    }


def _run_demos(folder: Path) -> dict[str, tuple[int, str, str]]:
    """The code, the output and the messages of each, all run at once."""
    processes = {
        name: subprocess.Popen(
            [*DEMO, *options.split(), "--db", str(folder / f"{name}.db"), "--no-serve"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "COLUMNS": "80"},
            text=True,
        )
        for name, options in ENDED.items()
    }
    found = {}
    for name, process in processes.items():
        out, err = process.communicate(timeout=DEADLINE_S)
        found[name] = (process.returncode, out, err)
    return found


def test_the_report_has_everything_it_promises(ended: dict[str, Ended]) -> None:
    report = ended["one"].report
    assert report.keys() >= REPORT
    assert report["sessions"] == 60
    assert [*report["strategies"][0]][:3] == ["name", "stage", "days_in_stage"]
    assert len({one["name"] for one in report["strategies"]}) == STRATEGIES
    assert report["alerts"].keys() >= {"sent", "suppressed", "by_category"}
    assert report["recovery"].keys() == RECOVERY
    assert (
        report["recovery"]["total_attempts"]
        == report["recovery"]["successes"] + report["recovery"]["failures"]
    )
    assert {len(column) for column in report["nav_history"].values()} == {60}
    assert report["nav_history"]["nav"][-1] == report["nav"]
    assert report["actor_restarts"] >= 2
    assert report["wall_s"] > 0
    assert report["fills"] == report["fills_booked"]


def test_the_report_is_the_only_thing_on_stdout_and_all_money_is_plain_decimal_text(
    ended: dict[str, Ended],
) -> None:
    one = ended["one"]
    assert len(one.out.splitlines()) == 1
    report = one.report
    sheet, income = report["balance_sheet"], report["income_statement"]
    for amount in (*sheet.values(), *income.values(), report["trial_balance"], report["nav"]):
        assert re.fullmatch(r"-?\d+\.\d{8}", amount), amount
    assert Decimal(report["trial_balance"]) == 0
    seven = {
        "CASH",
        "POSITIONS",
        "FEES_RECEIVABLE",
        "MANAGEMENT_FEES",
        "PERFORMANCE_FEES",
        "REALIZED_PNL",
    }
    assert sheet.keys() >= {*seven, "UNREALIZED_PNL"}


def test_the_report_is_what_the_database_says(ended: dict[str, Ended]) -> None:
    one = ended["one"]
    report = one.report
    with open_reader(one.db) as reader:
        assert {
            name: Decimal(amount) for name, amount in report["balance_sheet"].items()
        } == reader.balance_sheet()
        assert {one["name"]: one["stage"] for one in report["strategies"]} == {
            name: stage.value for name, stage in reader.stages().items()
        }
        assert report["entries"] == reader.entry_count()
    _check(one.db)


def test_a_database_that_was_asked_for_is_kept_and_named(ended: dict[str, Ended]) -> None:
    assert ended["one"].err == f"database kept: {ended['one'].db}\n"


def test_the_same_seed_makes_the_same_report_and_the_same_database(ended: dict[str, Ended]) -> None:
    one, again = ended["one"], ended["again"]
    assert {**one.report, "wall_s": 0} == {**again.report, "wall_s": 0}
    first, second = _facts(one.db), _facts(again.db)
    for table in FACTS:
        assert first[table] == second[table], table
        assert first[table] or table == "promotion_history", table


def test_another_seed_makes_another_database(ended: dict[str, Ended]) -> None:
    with open_reader(ended["one"].db) as one, open_reader(ended["other"].db) as other:
        assert one.meta()["uuid"] != other.meta()["uuid"]
    assert _facts(ended["one"].db)["recovery_event"] != _facts(ended["other"].db)["recovery_event"]


# -- options


def test_prices_of_ones_own_are_traded_from_their_first_day(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    rows = [
        f"2024-{month:02}-{day:02},{100 + day},{103 + day},{99 + day},{101 + day},1000"
        for month in (1, 2, 3)
        for day in range(1, 21)
    ]
    path.write_text("\n".join(["Date,Open,High,Low,Close,Volume", *rows]) + "\n")
    with _demo("--prices", str(path), "--sessions", "25", "--no-serve", "--json") as process:
        out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (0, "")
    report = json.loads(out)
    assert (report["first_session"], report["last_session"], report["sessions"]) == (
        "2024-01-01",
        "2024-02-05",
        25,
    )
    assert len(report["strategies"]) == STRATEGIES
    assert Decimal(report["trial_balance"]) == 0


def test_a_temporary_database_is_deleted_unless_it_is_to_be_kept(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with _demo("--sessions", "1", "--no-serve", "--json", env=environment) as process:
        _, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err, list(tmp_path.iterdir())) == (0, "", [])
    with _demo("--sessions", "1", "--no-serve", "--json", "--keep", env=environment) as process:
        _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    kept = Path(err.removeprefix("database kept: ").strip())
    assert kept.is_relative_to(tmp_path)
    _check(kept)


def test_the_report_for_people_has_every_part(tmp_path: Path) -> None:
    html = tmp_path / "demo.html"
    with _demo(
        "--sessions", "3", "--no-serve", "--html", str(html), env={**os.environ, "COLUMNS": "120"}
    ) as process:
        out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert "broken stays down" in err
    for part in ("trial balance 0.00", "NAV ", "PAPER 13", "BOOKS", "Alerts", "Recovery"):
        assert part in out
    assert out.index("trial balance") < out.index("NAV ") < out.index("PAPER")
    assert "\x1b[" not in out, "no colours in a pipe"
    assert html.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_happenings_are_told_as_they_happen_also_in_a_pipe(ended: dict[str, Ended]) -> None:
    assert ended["other"].code == 0
    *lines, kept = ended["other"].err.splitlines()
    assert kept == f"database kept: {ended['other'].db}"
    assert [line[:10] for line in lines] == sorted(line[:10] for line in lines)
    assert any(line.endswith("▲ session_above_w50 paper → shadow") for line in lines)
    assert sum("■ broken stays down: 3 failed attempts" in line for line in lines) == 1
    assert all(len(line) <= 80 for line in lines)


def test_a_page_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    html = tmp_path / "demo.html"
    html.write_text("precious")
    with _demo("--sessions", "1", "--no-serve", "--html", str(html)) as process:
        out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (2, "")
    assert err == f"fundops: --html: {html}: exists; the demo makes a new file\n"
    assert html.read_text() == "precious"


def test_a_page_without_its_folder_is_refused_before_the_replay(tmp_path: Path) -> None:
    html = tmp_path / "nosuch" / "demo.html"
    with _demo("--no-serve", "--html", str(html)) as process:
        _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2
    assert err == f"fundops: --html: {html}: its folder is missing\n"


# -- the stream


class Served(NamedTuple):
    """A demo that serves its stream."""

    process: subprocess.Popen[str]
    url: str
    token: str

    @contextmanager
    def hello(self, **more: Any) -> Iterator[ClientConnection]:
        # Without a bound on its queue it goes on reading while we do not, and so hears the server's
        # goodbye.
        unbounded: dict[str, Any] = {
            "max_size": None,
            "max_queue": None,
            "open_timeout": DEADLINE_S,
        }
        with connect(self.url, subprotocols=[SUBPROTOCOL], **unbounded) as connection:
            connection.send(json.dumps({"t": "hello", "token": self.token, **more}))
            yield connection


@contextmanager
def _served(db: Path, sessions: int) -> Iterator[Served]:
    with _demo(
        "--hold", "--port", "0", "--sessions", str(sessions), "--db", str(db), "--json"
    ) as process:
        assert process.stderr is not None
        page = process.stderr.readline()
        assert re.fullmatch(r"status page: http://127\.0\.0\.1:\d+/#token=\S+\n", page), page
        line = process.stderr.readline()
        match = re.fullmatch(r"status stream: (ws://127\.0\.0\.1:\d+/ws) token (\S+)\n", line)
        assert match, line
        yield Served(process, match[1], match[2])


def _receive(connection: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(connection.recv(timeout=DEADLINE_S))
    return message


def test_the_stream_shows_the_fund_and_what_was_seen_on_it_outlives_a_kill(tmp_path: Path) -> None:
    db = tmp_path / "x.db"
    journal: dict[int, dict[str, Any]] = {}
    alerts: dict[int, dict[str, Any]] = {}
    snapshots: dict[str, Any] = {}
    deltas: set[str] = set()
    with _served(db, sessions=2_000) as served, served.hello() as connection:
        welcome = _receive(connection)
        assert (welcome["t"], welcome["protocol"]) == ("welcome", "fund.status.v1")
        assert {"fund", "strategies", "balances", "actors", "alerts", "journal"} <= {
            *welcome["topics"]
        }
        # About half-way: fills, fees and troubles have been booked by then.
        while (
            len(journal) < 25 or len(alerts) < 3 or len(snapshots) < 4 or "balances" not in deltas
        ):
            message = _receive(connection)
            match message["t"]:
                case "snapshot":
                    snapshots[message["topic"]] = message["state"]
                case "delta" | "patch":
                    deltas.add(message["topic"])
                case "event" if message["topic"] == "journal":
                    journal[message["seq"]] = message["data"]
                case "event" if message["topic"] == "alerts":
                    alerts[message["seq"]] = message["data"]
                case "gap":
                    pytest.fail(f"a healthy client was left behind: {message}")
        served.process.send_signal(signal.SIGKILL)
        served.process.wait(DEADLINE_S)
    assert served.process.returncode == -signal.SIGKILL
    assert {"fund", "strategies", "balances", "actors"} <= snapshots.keys()
    assert {"fund", "strategies"} <= deltas
    assert sorted(journal) == list(range(min(journal), max(journal) + 1)), "nothing was left out"
    _acknowledged_is_stored(db, journal, alerts)
    with open_reader(db) as reader:
        assert reader.meta()["uuid"] == welcome["epoch"]
    _check(db)


def _as_shown(payload: str, strategy: str | None) -> list[list[Any]]:
    """The legs of a stored payload as they are on the stream, with amounts as numbers."""
    return [
        [
            account,
            Decimal(minor).scaleb(-8),
            None if owner == strategy else owner,
            None if asset == "USD" else asset,
        ]
        for account, owner, asset, minor in json.loads(payload)["legs"]
    ]


def _acknowledged_is_stored(
    db: Path, journal: dict[int, dict[str, Any]], alerts: dict[int, dict[str, Any]]
) -> None:
    connection = apsw.Connection(str(db))
    try:
        stored = {
            seq: (kind, day, strategy, _as_shown(payload, strategy))
            for seq, kind, day, strategy, payload in connection.execute(
                "SELECT seq, kind, day, strategy, payload FROM entry"
            )
        }
        titles = dict(connection.execute("SELECT id, title FROM alert"))
    finally:
        connection.close()
    assert journal
    for seq, seen in journal.items():
        legs = [
            [account, Decimal(amount), *of, *(None,) * (2 - len(of))]
            for account, amount, *of in seen["legs"]
        ]
        assert (seen["kind"], seen["day"], seen.get("strategy"), legs) == stored[seq]
    assert {seq: seen["title"] for seq, seen in alerts.items()} == {
        seq: titles[seq] for seq in alerts
    }


def test_the_stream_is_closed_to_whoever_does_not_know_the_token(tmp_path: Path) -> None:
    with _served(tmp_path / "x.db", sessions=1) as served:
        stranger = served._replace(token="wrong")
        with stranger.hello() as connection:
            message = _receive(connection)
        assert (message["t"], message["code"]) == ("error", 4401)
        assert served.token not in json.dumps(message)


def test_at_the_end_it_stays_up_until_it_is_interrupted(tmp_path: Path) -> None:
    with _served(tmp_path / "x.db", sessions=1) as served:
        assert served.process.stderr is not None
        assert served.process.stdout is not None
        assert json.loads(served.process.stdout.readline())["sessions"] == 1
        assert "Ctrl-C" in served.process.stderr.readline()
        with served.hello() as connection:
            assert _receive(connection)["t"] == "welcome"
            served.process.send_signal(signal.SIGINT)
            served.process.wait(DEADLINE_S)
            last = [json.loads(text)["t"] for text in connection][-1]
            assert (last, connection.close_code) == ("bye", 1001)
        assert served.process.returncode == 0
        assert "Traceback" not in served.process.stderr.read()
    _check(tmp_path / "x.db")


def test_a_piped_demo_serves_by_default_and_ends_by_itself(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with _demo("--port", str(port), "--sessions", "1", "--json") as process:
            out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, json.loads(out)["sessions"]) == (0, 1)
    said, page, stream = err.splitlines()
    assert said == (
        f"fundops: --port {port}: address already in use, so the status page takes a free port"
    )
    assert page.startswith("status page: http://127.0.0.1:")
    assert stream.startswith("status stream: ws://127.0.0.1:")
    assert f":{port}/" not in page


def test_a_demo_on_a_terminal_stays_up_until_ctrl_c(tmp_path: Path) -> None:
    """On a pseudo-terminal, as a person runs it who wants no colours."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "TMPDIR": str(tmp_path)}
    environment["NO_COLOR"] = "1"
    with _demo(
        *("--port", "0", "--sessions", "2"),
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
        env=environment,
    ) as process:
        os.close(theirs)
        said = ""
        while "Ctrl-C ends it" not in said:
            said += os.read(ours, 4096).decode()
        assert "PAPER 13" in said
        assert "■ broken stays down" in said
        assert not re.search(r"\x1b\[[0-9;]*\b3[0-7]\b", said), "no colours"
        assert len([*tmp_path.iterdir()]) == 1, "its temporary database is there"
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0
    os.close(ours)
    assert [*tmp_path.iterdir()] == []


# -- interruptions


def test_ctrl_c_in_the_middle_ends_it_in_order(tmp_path: Path) -> None:
    db = tmp_path / "x.db"
    with _served(db, sessions=2_000) as served:
        with served.hello(topics=["journal"]) as connection:
            while _receive(connection).get("seq", 0) < 5:
                pass
        served.process.send_signal(signal.SIGINT)
        out, err = served.process.communicate(timeout=DEADLINE_S)
    assert served.process.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines() == [f"database kept: {db}", "fundops: interrupted"]
    assert out == ""
    assert not db.with_name("x.db-wal").exists(), "the writer closed the file"
    assert db.with_name("x.db.lock").read_text() == ""
    _check(db)


@pytest.mark.parametrize("arguments", [["--json"], []], ids=["json", "drawn"])
def test_a_reader_that_leaves_early_is_no_reason_for_a_traceback(arguments: list[str]) -> None:
    with _demo("--sessions", "3", "--no-serve", *arguments) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        process.wait(DEADLINE_S)
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert process.returncode in (0, 1)


@pytest.mark.parametrize("size", ["1m", "200k", "40k"])
def test_a_full_disk_ends_it_with_the_reason(size: str, tmp_path: Path) -> None:
    """On a separate file system in a separate mount namespace, so nothing is left afterwards."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare here, so no small file system can be made")
    mount = f"mount -t tmpfs -o size={size} tmpfs {tmp_path}"
    inside = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    tried = subprocess.run(
        [*inside, mount], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    if tried.returncode:
        pytest.skip(f"no small file system can be mounted: {tried.stderr.strip()}")
    options = ["--sessions", "400", "--no-serve", "--json", "--db", str(tmp_path / "x.db")]
    command = " ".join([*DEMO, *options])
    done = subprocess.run(
        [*inside, f"{mount} && exec {command}"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
    assert "disk is full" in done.stderr
    assert done.stderr.splitlines()[-1] == done.stdout.strip()
    assert set(json.loads(done.stdout)) == {"error"}, "no report is made of half a replay"


# -- all of it


@pytest.mark.soak
def test_the_default_demo_shows_the_whole_life_of_a_strategy(tmp_path: Path) -> None:
    db = tmp_path / "x.db"
    with _demo("--no-serve", "--json", "--db", str(db)) as process:
        out, err = process.communicate(timeout=SOAK_DEADLINE_S)
    assert process.returncode == 0, err
    report = json.loads(out)
    stored = json.loads((ROOT / "tests" / "fund" / "replay" / "demo.json").read_text())
    assert {**report, "wall_s": 0} == stored, "run `python docs/picture.py --replay`"
    assert report["sessions"] == 1_000
    assert sum(one["stage"] == "live-scaled" for one in report["strategies"]) >= 2
    assert report["demotions"] >= 1
    assert report["recovery"]["circuit_breakers_open"] == 1
    assert report["actor_restarts"] >= 2
    assert Decimal(report["trial_balance"]) == 0
    assert report["fills"] == report["fills_booked"] > 0
    facts = _facts(db)
    assert any("stale" in str(row).lower() for row in facts["alert"])
    with open_reader(db) as reader:
        assert any(
            line.kind == "demote" and line.by == "promotion"
            for line in reader.promotion_history(1_000)
        )
    _check(db)
