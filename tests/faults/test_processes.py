"""Processes that are killed, forked or robbed of their file in the middle of their work."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fundops import FundConfig, FundManager, open_reader
from fundops.actors.guard.marker import Marker
from fundops.actors.persistence import open_database
from fundops.file.database import MIGRATIONS, migrate_fund
from fundops.file.restore import restore_fund
from fundops.testing import START_US
from fundops.wire.errors import DatabaseError

DEADLINE_S = 60
ENTRIES = 2_000

PRELUDE = """
import os, sys, threading
from pathlib import Path
from fundops import FundConfig, FundManager
folder = Path(sys.argv[1])

def manager(path, **more):
    settings = {"ledger_enabled": True, "tick_interval_s": 0.05, "control_socket": False, **more}
    return FundManager(FundConfig(total_capital=1000, db_path=path, **settings))

def say(*words):
    os.write(1, (" ".join(map(str, words)) + chr(10)).encode())

"""

START_AND_STOP = """
while True:
    with manager(folder / "fund.db") as fund:
        say(fund.ledger.deposit(1).seq)
"""
BACKUP = """
from fundops.actors.persistence import backup
say("begins")
backup(folder / "source.db", folder / "copy.db")
say("done")
sys.stdin.read()
"""
RESTORE = """
from fundops.file.restore import restore_fund
say("begins")
restore_fund(folder / "source.db", folder / "fund.db", 1, replace=True)
say("done")
sys.stdin.read()
"""
IMPORT = """
from fundops.file.restore import import_book
say("begins")
import_book(folder / "new.db", (folder / "book.jsonl").open())
say("done")
sys.stdin.read()
"""
MIGRATE = """
from fundops.file.database import migrate_fund
say("begins")
migrate_fund(folder / "old.db")
say("done")
sys.stdin.read()
"""
ENGAGE = """
with manager(folder / "fund.db") as fund:
    while True:
        fund.kill_switch.engage(reason="drill", by="ann")
        say("engaged")
        say("releasing")
        fund.kill_switch.release(reason="drill", by="ann")
"""


def killed_during(text: str, folder: Path, delay_s: float) -> list[str]:
    """Run the script and kill it `delay_s` after its first line; the lines that it wrote."""
    with subprocess.Popen(
        [sys.executable, "-c", PRELUDE + text, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        assert lines[0], "it ended before it began"
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    return [line.strip() for line in lines]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A book that takes some milliseconds to copy."""
    from fundops.wire.ledger import Deposit

    path = tmp_path_factory.mktemp("source") / "source.db"
    config = FundConfig(
        total_capital=1_000,
        db_path=path,
        ledger_enabled=True,
        tick_interval_s=None,
        control_socket=False,
    )
    with FundManager(config) as fund:
        fund.ledger.post_many([Deposit(1)] * (ENTRIES - 1))
    return path


def entries(path: Path) -> int:
    """The number of entries of a book that is in order."""
    with open_reader(path) as reader:
        assert reader.verify(2).ok
        return reader.entry_count()


LOOPS = [3, pytest.param(60, marks=pytest.mark.soak)]


def delays(loops: int) -> list[float]:
    rng = random.Random(loops)
    return [rng.uniform(0, 0.06) for _ in range(loops)]


@pytest.mark.parametrize("loops", LOOPS)
def test_kill_9_while_a_fund_starts_or_stops(tmp_path: Path, loops: int) -> None:
    acknowledged: list[int] = []
    for delay_s in delays(loops):
        acknowledged += map(int, killed_during(START_AND_STOP, tmp_path, 5 * delay_s))
        assert max(acknowledged) <= entries(tmp_path / "fund.db")
    assert len(set(acknowledged)) == len(acknowledged)


@pytest.mark.parametrize("loops", LOOPS)
def test_kill_9_during_a_backup_leaves_no_half_book(
    tmp_path: Path, source: Path, loops: int
) -> None:
    (tmp_path / "source.db").write_bytes(source.read_bytes())
    for delay_s in delays(loops):
        done = "done" in killed_during(BACKUP, tmp_path, delay_s)
        try:
            restore_fund(tmp_path / "copy.db", tmp_path / "new.db", START_US)
        except DatabaseError:
            assert not done
            assert not (tmp_path / "new.db").exists()
        else:
            assert entries(tmp_path / "new.db") == ENTRIES
        for left in (*tmp_path.glob("copy.db*"), *tmp_path.glob("new.db*")):
            left.unlink()


@pytest.mark.parametrize("loops", LOOPS)
def test_kill_9_during_a_restore_leaves_one_whole_book_and_the_latch(
    tmp_path: Path, source: Path, loops: int
) -> None:
    (tmp_path / "source.db").write_bytes(source.read_bytes())
    config = FundConfig(
        total_capital=1_000,
        db_path=tmp_path / "fund.db",
        ledger_enabled=True,
        tick_interval_s=None,
        control_socket=False,
    )
    for delay_s in delays(loops):
        for left in tmp_path.glob("fund.db*"):
            left.unlink()
        with FundManager(config):
            pass
        killed_during(RESTORE, tmp_path, delay_s)
        # A journal that the kill left is rolled back by a writer; a reader may not write.
        open_database(tmp_path / "fund.db", MIGRATIONS).close()
        found = entries(tmp_path / "fund.db")
        assert found in (1, ENTRIES)
        assert found == 1 or Marker(tmp_path / "fund.db.kill").read() is not None


@pytest.mark.parametrize("loops", LOOPS)
def test_kill_9_during_an_import_leaves_no_half_book(
    tmp_path: Path, source: Path, loops: int
) -> None:
    from fundops.actors.ledger.journal import jsonl
    from fundops.actors.persistence import Reader

    with Reader(source) as rows:
        (tmp_path / "book.jsonl").write_text("".join(f"{line.rstrip()}\n" for line in jsonl(rows)))
    for delay_s in delays(loops):
        done = "done" in killed_during(IMPORT, tmp_path, 3 * delay_s)
        assert (tmp_path / "new.db").exists() or not done
        if (tmp_path / "new.db").exists():
            assert entries(tmp_path / "new.db") == ENTRIES
        for left in tmp_path.glob("new.db*"):
            left.unlink()


@pytest.mark.parametrize("loops", LOOPS)
def test_kill_9_during_a_migration_leaves_a_file_of_one_version(tmp_path: Path, loops: int) -> None:
    for delay_s in delays(loops):
        open_database(tmp_path / "old.db", MIGRATIONS[:1]).close()
        killed_during(MIGRATE, tmp_path, delay_s / 3)
        migrate_fund(tmp_path / "old.db")
        assert entries(tmp_path / "old.db") == 0
        for left in tmp_path.glob("old.db*"):
            left.unlink()


@pytest.mark.parametrize("loops", LOOPS)
def test_kill_9_never_loses_an_engaged_kill_switch(tmp_path: Path, loops: int) -> None:
    for delay_s in delays(loops):
        lines = killed_during(ENGAGE, tmp_path, 5 * delay_s)
        if lines[-1] == "engaged":
            assert Marker(tmp_path / "fund.db.kill").read() is not None


FORK_UNDER_LOAD = """
from fundops.errors import FundNotRunning
acknowledged, over = [], threading.Event()

def deposit(fund):
    while not over.is_set():
        acknowledged.append(fund.ledger.deposit(1).seq)

with manager(folder / "fund.db") as fund:
    callers = [threading.Thread(target=deposit, args=(fund,)) for _ in range(4)]
    for caller in callers:
        caller.start()
    for _ in range(int(sys.argv[2])):
        child = os.fork()
        if child == 0:
            try:
                fund.ledger.balance_sheet()
            except FundNotRunning:
                os._exit(7)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 7 << 8
    over.set()
    for caller in callers:
        caller.join()
assert len(set(acknowledged)) == len(acknowledged)
say(max(acknowledged), len(acknowledged))
"""


@pytest.mark.parametrize("forks", [20, pytest.param(1_000, marks=pytest.mark.soak)])
def test_forks_under_load_neither_hang_nor_lose_an_entry(tmp_path: Path, forks: int) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            PRELUDE + FORK_UNDER_LOAD,
            str(tmp_path),
            str(forks),
        ],
        capture_output=True,
        text=True,
        timeout=10 * DEADLINE_S,
        check=False,
    )
    assert done.stderr == ""
    newest, acknowledged = map(int, done.stdout.split())
    assert newest == acknowledged + 1 == entries(tmp_path / "fund.db")


LOSS_UNDER_LOAD = """
import logging, time
from fundops import LedgerFailed, OutcomeUnknown
logging.getLogger("fundops").setLevel(logging.CRITICAL + 1)
path, lost = folder / "fund.db", threading.Event()
wrong, refused = [], []

def deposit(fund):
    for _ in range(100_000):
        late = lost.is_set()
        try:
            posted = fund.ledger.deposit(1)
        except (LedgerFailed, OutcomeUnknown) as refusal:
            refused.append(refusal)
            return
        if late:
            wrong.append(posted)

with manager(path) as fund:
    callers = [threading.Thread(target=deposit, args=(fund,)) for _ in range(4)]
    for caller in callers:
        caller.start()
    time.sleep(float(sys.argv[2]))
    lose(path)
    lost.set()
    for caller in callers:
        caller.join()
    assert fund.storage().state == "failed"
say(len(wrong), len(refused))
"""


def lose_file() -> str:
    return "def lose(path): path.unlink()\n"


def lose_log() -> str:
    return "def lose(path): path.with_name(path.name + '-wal').unlink()\n"


def lose_to_a_copy() -> str:
    return (
        "def lose(path):\n"
        "    path.with_name('copy.db').write_bytes(path.read_bytes())\n"
        "    path.with_name('copy.db').replace(path)\n"
    )


@pytest.mark.parametrize("lose", [lose_file, lose_log, lose_to_a_copy])
def test_no_entry_is_acknowledged_once_its_file_is_lost(
    tmp_path: Path, lose: Callable[[], str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + lose() + LOSS_UNDER_LOAD, str(tmp_path), "0.2"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert (done.stdout, done.stderr) == ("0 4\n", "")
