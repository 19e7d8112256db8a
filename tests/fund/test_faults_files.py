"""Faults of paths, forks, files and locks, as a user of the front door meets them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from fundops import (
    ConfigError,
    DatabaseInUse,
    Fund,
    FundConfig,
    FundManager,
    LedgerFailed,
    PromotionManager,
    VirtualClock,
    open_reader,
)
from fundops.actors.guard.marker import Marker
from fundops.actors.oversight.steps import storage
from fundops.control.standalone import run_command
from fundops.errors import FundNotRunning, NeedsTrio
from fundops.file.restore import restore_fund
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.errors import DatabaseError, StorageDegraded

DEADLINE_S = 60


def manager(path: str | Path, **more: Any) -> FundManager:
    settings = {"total_capital": 100_000, "ledger_enabled": True, "control_socket": False, **more}
    return FundManager(FundConfig(db_path=path, tick_interval_s=None, **settings))


def script(text: str, *arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", text, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )


# -- paths

ENGAGED_AND_KILLED = """
import os, sys
from fundops import FundConfig, FundManager
fund = FundManager(FundConfig(total_capital=1000, db_path="rel.db", control_socket=False))
fund.start()
os.chdir(sys.argv[1])
fund.kill_switch.engage(reason="drill", by="ann")
print("engaged", flush=True)
sys.stdin.read()
"""


def test_a_kill_switch_stays_engaged_over_a_chdir_and_kill_9(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with script(ENGAGED_AND_KILLED, tmp_path / "x", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "engaged\n"
        process.send_signal(signal.SIGKILL)
    assert list((tmp_path / "x").iterdir()) == []
    assert Marker(tmp_path / "rel.db.kill").read() is not None
    with manager(tmp_path / "rel.db", ledger_enabled=False, total_capital=1000) as fund:
        assert fund.kill_switch.status().state != "OFF"


def test_a_manager_means_the_folder_where_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    made = manager("rel.db", status_port=0)
    monkeypatch.chdir(tmp_path / "x")
    with made as fund:
        fund.ledger.deposit(500)
        monkeypatch.chdir(tmp_path)
        assert fund.ledger.verify().ok
        monkeypatch.chdir(tmp_path / "x")
    assert list((tmp_path / "x").iterdir()) == []
    with open_reader(tmp_path / "rel.db") as reader:
        assert reader.nav() == 100_500


async def test_the_configuration_of_a_fund_has_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with virtual_fund(db_path="rel.db") as world:
        assert world.fund.config.path == tmp_path / "rel.db"
    monkeypatch.setenv("FUNDOPS_HOME", "home")
    async with virtual_fund(db_path=None) as world:
        monkeypatch.setenv("FUNDOPS_HOME", "other")
        assert world.fund.config.path == tmp_path / "home" / "fund.db"


@pytest.mark.parametrize("name", [":memory:", "file:fund.db?mode=memory"])
def test_a_database_in_memory_is_refused_and_makes_no_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="db_path"):
        manager(name)
    assert list(tmp_path.iterdir()) == []


async def test_a_kill_switch_is_the_same_by_link_and_by_file(tmp_path: Path) -> None:
    async with virtual_fund(db_path=tmp_path / "fund.db"):
        pass
    (tmp_path / "link.db").symlink_to(tmp_path / "fund.db")
    async with virtual_fund(db_path=tmp_path / "link.db") as world:
        await world.fund.kill_switch.engage(reason="drill", by="ann")
    async with virtual_fund(db_path=tmp_path / "fund.db") as world:
        assert (await world.fund.kill_switch.status()).state != "OFF"


def test_a_promotion_manager_keeps_its_file_over_a_chdir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    promotions = PromotionManager("promotions.db", clock=VirtualClock(START_US))
    monkeypatch.chdir(tmp_path / "x")
    promotions.register("one")
    assert [one.name for one in promotions.strategies()] == ["one"]
    assert list((tmp_path / "x").iterdir()) == []


def test_a_restore_through_a_link_replaces_the_file_behind_it(tmp_path: Path) -> None:
    with manager(tmp_path / "a.db") as fund:
        fund.ledger.deposit(500)
    with manager(tmp_path / "b.db"):
        pass
    (tmp_path / "link.db").symlink_to(tmp_path / "b.db")
    restore_fund(tmp_path / "a.db", tmp_path / "link.db", START_US, replace=True)
    assert (tmp_path / "link.db").is_symlink()
    assert (tmp_path / "b.db.kill").exists()
    with open_reader(tmp_path / "b.db") as reader:
        assert reader.nav() == 100_500


RESTORED_AND_KILLED = """
import os, sys
from pathlib import Path
from fundops.file import restore
restore.open_database = lambda *_: os._exit(9)
restore.restore_fund(Path(sys.argv[1]), Path(sys.argv[2]), 1)
"""


def test_a_restore_that_was_killed_left_a_whole_database_of_its_own(tmp_path: Path) -> None:
    with manager(tmp_path / "a.db") as fund:
        fund.ledger.deposit(500)
    with script(RESTORED_AND_KILLED, tmp_path / "a.db", tmp_path / "b.db", cwd=tmp_path) as process:
        process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 9
    assert (tmp_path / "b.db.kill").exists()
    # In WAL mode from the start, or the next writer would leave a journal when it is killed.
    assert (tmp_path / "b.db").read_bytes()[18:20] == b"\x02\x02"
    with open_reader(tmp_path / "a.db") as source, open_reader(tmp_path / "b.db") as reader:
        assert reader.nav() == 100_500
        assert reader.meta()["forked_from"] == source.meta()["uuid"] != reader.meta()["uuid"]


# -- deleted and replaced while it runs


def critical(world: VirtualFund) -> list[tuple[str, str]]:
    """Titles and outcomes of CRITICAL alerts that left from memory or were stored."""
    return [(alert.level.value, alert.title) for alert in world.sent_alerts()]


async def test_a_deleted_file_is_failed_and_told_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "fund.db"
    async with virtual_fund(
        FakeController(), db_path=path, ledger_enabled=True, alert_log=True
    ) as world:
        await world.fund.ledger.deposit(1)
        await world.tick()
        path.unlink()
        for _ in range(3):
            with pytest.raises(LedgerFailed, match="was deleted or moved"):
                await world.fund.ledger.deposit(5)
        assert "storage is failed" in caplog.text
        assert "storage" in (await world.tick()).failed
        told = [line for line in caplog.messages if "The database has failed" in line]
        for _ in range(5):
            world.clock.advance(1)
            await world.tick()
        assert len(told) == 1
        assert told == [line for line in caplog.messages if "The database has failed" in line]
        assert (await world.fund.storage()).state == "failed"
    assert not path.exists()


async def test_a_tick_alone_notices_that_the_file_was_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "fund.db"
    async with virtual_fund(db_path=path, ledger_enabled=True, alert_log=True) as world:
        await world.tick()
        (tmp_path / "new.db").write_bytes(path.read_bytes())
        (tmp_path / "new.db").replace(path)
        await world.tick()
        assert "was replaced" in str((await world.fund.storage()).reason)
        assert "The database has failed" in caplog.text


async def test_a_database_that_heals_is_told_both_times(tmp_path: Path) -> None:
    path = tmp_path / "fund.db"
    async with virtual_fund(db_path=path, ledger_enabled=True) as world:
        await world.tick()
        other = apsw.Connection(str(path))
        persistence = "fundops.actors.persistence.database.BUSY_TIMEOUT_MS"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(persistence, 1)
            store = "fundops.actors.persistence.store"
            patch.setattr(f"{store}.LOCK_ATTEMPTS", 1)
            patch.setattr(f"{store}.LOCKED_OUT_WAIT_MS", 1)
            other.execute("BEGIN IMMEDIATE")
            assert "storage" in (await world.tick("2026-01-05")).failed
            assert "storage" in (await world.tick()).failed
            other.execute("ROLLBACK")
            other.close()
        for _ in range(2):
            world.clock.advance(1)
            await world.tick()
        assert (await world.fund.storage()).state == "ok"
        told = critical(world)
        assert ("CRITICAL", "The database cannot be written") in told
        assert ("INFO", "No longer: The database cannot be written") in told


async def test_a_log_that_grows_beside_a_reader_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "WAL_LARGE_BYTES", 400_000)
    path = tmp_path / "fund.db"
    async with virtual_fund(db_path=path, ledger_enabled=True) as world:
        await world.tick()
        with open_reader(path) as outside, outside.snapshot():
            outside.entry_count()
            for _ in range(60):
                await world.fund.ledger.deposit(1)
            assert (await world.fund.storage()).wal_bytes > 400_000
            for _ in range(4):
                await world.tick()
            assert critical(world) == [("WARNING", "The database's log grows")]
            begun = time.monotonic()
        monkeypatch.setattr(storage, "WAL_LARGE_BYTES", 2**40)
        await world.tick()
        assert critical(world)[1:] == [("INFO", "No longer: The database's log grows")]
    assert time.monotonic() - begun < 4


# -- forks

FORKED = """
import os, sys
from fundops import FundConfig, FundManager
from fundops.errors import FundNotRunning
fund = FundManager(FundConfig(total_capital=1000, db_path=sys.argv[1], ledger_enabled=True))
fund.start()
child = os.fork()
if child == 0:
    problem = None
    try:
        uses = (fund.status, fund.ledger.balance_sheet, fund.tick, lambda: fund.entitlement("s"))
        for use in uses:
            try:
                use()
            except FundNotRunning as error:
                assert f"process {os.getppid()}, from which this one was forked" in str(error)
            else:
                raise AssertionError(use)
        assert not fund.running
        assert not fund.may_trade("s")
        fund.stop()
        try:
            fund.start()
        except Exception as error:
            assert f"in use by pid {os.getppid()}" in str(error), error
        else:
            raise AssertionError("two owners")
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
    sys.exit(0)  # with the handlers at exit
assert os.waitpid(child, 0)[1] == 0
fund.ledger.deposit(5)
assert fund.status().running
fund.stop()
print("fine", flush=True)
"""


def test_calls_in_a_forked_child_are_a_clear_error(tmp_path: Path) -> None:
    with script(FORKED, tmp_path / "fund.db", cwd=tmp_path) as process:
        out, _ = process.communicate(timeout=DEADLINE_S)
    assert out == "fine\n"


ORPHANED = """
import os, sys
from fundops import FundConfig, FundManager
fund = FundManager(FundConfig(total_capital=1000, db_path=sys.argv[1], ledger_enabled=True))
fund.start()
if os.fork() == 0:
    print(os.getpid(), flush=True)
    sys.stdin.read()
    os._exit(0)
sys.stdin.read()
"""


def test_a_child_that_outlives_its_fund_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "fund.db"
    with script(ORPHANED, path, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE_S)
        # The lock and the socket would be the child's otherwise.
        with manager(path, total_capital=1000, control_socket=True) as fund:
            assert fund.ledger.deposit(1).seq == 2
            assert run_command(path, "ledger.nav") == "1001.00000000"


def test_a_manager_that_was_not_started_can_be_used_by_a_child(tmp_path: Path) -> None:
    text = """
import os, sys
from fundops import FundConfig, FundManager
fund = FundManager(FundConfig(total_capital=1000, db_path=sys.argv[1], ledger_enabled=True))
child = os.fork()
if child == 0:
    with fund:
        print(fund.ledger.nav().normalize(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    with script(text, tmp_path / "fund.db", cwd=tmp_path) as process:
        out, _ = process.communicate(timeout=DEADLINE_S)
    assert out == "1E+3\n"


# -- two owners


async def test_a_second_fund_through_a_hard_link_is_refused(tmp_path: Path) -> None:
    async with virtual_fund(db_path=tmp_path / "fund.db"):
        (tmp_path / "link.db").hardlink_to(tmp_path / "fund.db")
        with pytest.raises(DatabaseInUse) as caught:
            async with virtual_fund(db_path=tmp_path / "link.db"):
                pass
    assert caught.value.owner == "this process"


OWNER = """
import sys
from fundops import FundConfig, FundManager
config = FundConfig(total_capital=100_000, db_path=sys.argv[1], control_socket=False)
with FundManager(config):
    print("runs", flush=True)
    sys.stdin.read()
"""


@contextmanager
def owner(path: Path) -> Iterator[subprocess.Popen[str]]:
    with script(OWNER, path, cwd=path.parent) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        yield process
        process.communicate("")


def test_another_programs_fund_is_named_by_its_pid_by_any_name(tmp_path: Path) -> None:
    with owner(tmp_path / "fund.db") as process:
        (tmp_path / "hard.db").hardlink_to(tmp_path / "fund.db")
        (tmp_path / "soft.db").symlink_to(tmp_path / "fund.db")
        for name in ("fund.db", "hard.db", "soft.db"):
            with pytest.raises(DatabaseInUse, match=f"pid {process.pid};"):
                manager(tmp_path / name).start()


# -- asyncio


def test_a_fund_opened_under_asyncio_is_refused_by_name(tmp_path: Path) -> None:
    config = FundConfig(total_capital=1_000, db_path=tmp_path / "new" / "fund.db")

    async def host() -> None:
        async with Fund.open(config):
            pass

    with pytest.raises(NeedsTrio, match=r"this is asyncio; AsyncioFund\.open"):
        asyncio.run(host())
    assert list(tmp_path.iterdir()) == []


def test_a_fund_opened_outside_any_loop_says_so(tmp_path: Path) -> None:
    config = FundConfig(total_capital=1_000, db_path=tmp_path / "fund.db")
    opening = Fund.open(config).__aenter__()
    with pytest.raises(NeedsTrio, match="needs a trio run, and there is none"):
        opening.send(None)
    assert list(tmp_path.iterdir()) == []


# -- locked, full and read-only


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def test_a_deposit_beside_another_writer_answers_within_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fund.db"
    with manager(path):
        pass
    monkeypatch.setattr("fundops.control.standalone.LOCK_WAIT_S", 0.1)
    with write_lock(path):
        begun = time.monotonic()
        with pytest.raises(StorageDegraded, match="another program has held its write lock"):
            run_command(path, "ledger.deposit", {"amount": "5"})
        assert time.monotonic() - begun < 5
        with open_reader(path) as reader:
            assert reader.audit() == ()
    assert run_command(path, "ledger.deposit", {"amount": "5"})["seq"] == 2


def test_a_first_write_that_fails_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise apsw.FullError("database or disk is full")

    monkeypatch.setattr("fundops.file.database.meta.write", full)
    with pytest.raises(DatabaseError, match="cannot be used: database or disk is full"):
        manager(tmp_path / "fund.db").start()


@pytest.mark.skipif(os.getuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(DatabaseError, match="closed"):
        manager(tmp_path / "closed" / "fund.db").start()


def test_the_child_of_a_stopped_fund_says_that_it_is_not_running(tmp_path: Path) -> None:
    fund = manager(tmp_path / "fund.db")
    fund.start()
    fund.stop()
    with pytest.raises(FundNotRunning, match="call start"):
        fund.status()
