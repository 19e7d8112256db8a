"""How each door ends where it cannot go on: a named error, nothing lost, and no hang."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from fundops import FundConfig, FundManager, open_reader

DEADLINE_S = 60

HEAD = """
import asyncio, sys
from pathlib import Path
import trio
from fundops import AsyncioFund, Fund, FundConfig, FundManager, FundopsError
config = FundConfig(total_capital=1000, ledger_enabled=True, db_path=Path(sys.argv[1]))
"""

# Each opens a fund, books 5, says so, and stays until it is interrupted.
DOORS = {
    "trio": """
async def main():
    async with Fund.open(config) as fund:
        await fund.ledger.deposit(5, key="five")
        print("open", flush=True)
        await trio.sleep(60)
run = lambda: trio.run(main)
""",
    "asyncio": """
async def main():
    async with AsyncioFund.open(config) as fund:
        await fund.ledger.deposit(5, key="five")
        print("open", flush=True)
        await asyncio.sleep(60)
run = lambda: asyncio.run(main())
""",
    "sync": """
def run():
    with FundManager(config) as fund:
        fund.ledger.deposit(5, key="five")
        print("open", flush=True)
        import time
        time.sleep(60)
""",
}
TAIL = """
try:
    run()
except FundopsError as error:
    print(type(error).__name__, error)
except KeyboardInterrupt:
    print("interrupted")
    sys.exit(130)
"""


@pytest.fixture(params=DOORS)
def program(request: pytest.FixtureRequest) -> list[str]:
    return [sys.executable, "-W", "error", "-c", HEAD + DOORS[request.param] + TAIL]


def _ended(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_second_owner_is_told_who_has_the_file(program: list[str], tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    config = FundConfig(total_capital=1000, ledger_enabled=True, db_path=path)
    with FundManager(config) as fund:
        told = _ended([*program, str(path)])
        assert told.startswith("DatabaseInUse ")
        assert str(os.getpid()) in told
        assert fund.ledger.nav() == 1_000


def test_a_database_of_a_newer_version_is_left_as_it_is(program: list[str], tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with FundManager(FundConfig(total_capital=1000, ledger_enabled=True, db_path=path)):
        pass
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", 99)
    connection.close()
    before = path.read_bytes()
    told = _ended([*program, str(path)])
    assert told.startswith("DatabaseError ")
    assert "newer fundops (schema 99" in told
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_named(program: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    # Root writes into any folder, but not into a read-only file system.
    mounted = f'mount -t tmpfs -o ro tmpfs "{folder}" || exit 77; exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mounted, "sh", *program, str(folder / "x.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    assert (done.returncode, done.stderr) == (0, "")
    assert str(folder) in done.stdout
    assert "read-only" in done.stdout.lower()


def test_ctrl_c_stops_the_fund_in_order(program: list[str], tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with subprocess.Popen(
        [*program, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "open\n"
        process.send_signal(signal.SIGINT)
        told, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, told, errors) == (130, "interrupted\n", "")
    with open_reader(path) as reader:
        assert reader.verify().ok
        assert reader.nav() == 1_005
    with FundManager(FundConfig(total_capital=1000, ledger_enabled=True, db_path=path)) as again:
        assert again.ledger.deposit(5, key="five").replayed


def test_a_killed_fund_has_lost_nothing_that_it_acknowledged(
    program: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "x.db"
    with subprocess.Popen([*program, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        process.kill()
        process.wait(DEADLINE_S)
    with FundManager(FundConfig(total_capital=1000, ledger_enabled=True, db_path=path)) as again:
        assert again.ledger.deposit(5, key="five").replayed
        assert again.ledger.nav() == 1_005


def test_a_closed_pipe_ends_a_command_quietly(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with FundManager(FundConfig(total_capital=1000, ledger_enabled=True, db_path=path)) as fund:
        for _ in range(3):
            fund.ledger.deposit(5)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fundops", "ledger", "entries", "--db", str(path)],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
