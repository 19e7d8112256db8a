"""A disk that fails, fills up or is locked, under the real actors: an answer that is true, and a
book in order.
"""

from __future__ import annotations

import math
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio
from trio.testing import MockClock

from fundops.actors.guard.marker import Marker
from fundops.actors.ledger.verify import verify_file
from fundops.actors.persistence import Reader, backup, database, store
from fundops.actors.persistence.actor import PROBE_EVERY_S
from fundops.file.database import MIGRATIONS
from fundops.file.restore import restore_fund
from fundops.runtime import Supervisor, ThreadWorker
from fundops.wire.errors import (
    DatabaseError,
    InsufficientFunds,
    OutcomeUnknown,
    StorageDegraded,
    StorageFailed,
)
from fundops.wire.guard import KillStatus
from fundops.wire.ledger import BalanceSheet, Deposit, Posted, Withdraw
from fundops.wire.persistence import Committed, Statement, StorageStatistics, StorageStatus

FOR_EVER = 1_000_000


async def deposit(supervisor: Supervisor, key: str | None = None) -> Posted:
    return await supervisor.ref("ledger").ask(Deposit(1_000, key=key), timeout_s=60)


async def deposit_without_end(supervisor: Supervisor, posted: list[Posted]) -> None:
    while True:
        posted.append(await deposit(supervisor))


async def status(supervisor: Supervisor) -> StorageStatus:
    return await supervisor.ref("persistence").ask(StorageStatistics(), timeout_s=60)


async def cash(supervisor: Supervisor) -> int:
    sheet = await supervisor.ref("ledger").ask(BalanceSheet(), timeout_s=60)
    return int(sheet["CASH"])


# -- COMMIT itself fails


@pytest.mark.parametrize("call", ["xSync", "xWrite"])
async def test_a_commit_that_failed_once_is_acknowledged_truthfully_and_survives_the_power_going(
    path: Path, disk: Any, running: Any, checked: Any, tmp_path: Path, call: str
) -> None:
    """What was written before the failed sync is lost, though the system's cache still shows it."""
    async with running(path) as supervisor:
        posted = [await deposit(supervisor, "before")]
        disk.fail(call, "-wal", apsw.IOError("disk I/O error"))
        posted.append(await deposit(supervisor, "ghost"))
        cut = len(disk.events)
        assert (await status(supervisor)).state == "ok"
        again = await deposit(supervisor, "ghost")
        assert (again.seq, again.replayed) == (posted[1].seq, True)
        posted.append(await deposit(supervisor, "after"))
        assert await cash(supervisor) == 3_000
        assert all(child.restarts == 0 for child in supervisor.tree())
    assert checked(path, posted) == 3
    (tmp_path / "cut").mkdir()
    for damage in ("dropped", "kept", "thinned", "torn 512"):
        for seed in range(5):
            for name, content in disk.image(cut, damage, random.Random(seed)).items():
                (tmp_path / "cut" / name).write_bytes(content)
            assert checked(tmp_path / "cut" / "fund.db", posted[:2]) == 2
            for file in (tmp_path / "cut").iterdir():
                file.unlink()


def test_a_commit_that_only_the_cache_has_is_on_the_disk_before_it_is_acknowledged(
    path: Path, disk: Any, tmp_path: Path
) -> None:
    """The log cannot be synced at closing either, so it is read again, from a cache that shows
    more than there is.
    """
    opened = store.Store(path, MIGRATIONS)
    for number in range(3):
        assert store.commit_batch(opened, [remember(number)]) == [Committed(1)]
    disk.fail("xSync", "-wal", apsw.IOError("disk I/O error"), times=2)
    assert store.commit_batch(opened, [remember(3)]) == [Committed(1)]
    for name, content in disk.image(len(disk.events), "dropped", random.Random(0)).items():
        (tmp_path / name).write_bytes(content)
    opened.close()
    left = apsw.Connection(str(tmp_path / "fund.db"), vfs="unix")
    assert left.execute("SELECT key FROM meta ORDER BY key").fetchall() == [
        ("0",),
        ("1",),
        ("2",),
        ("3",),
    ]
    assert left.pragma("integrity_check") == "ok"
    left.close()


def remember(number: int) -> tuple[Statement, ...]:
    return (Statement("INSERT INTO meta VALUES (?, 'x')", ((str(number),),)),)


async def test_a_commit_that_raised_although_it_is_there_is_acknowledged_and_not_run_twice(
    path: Path, running: Any, checked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(*_: Any) -> int:
        raise apsw.IOError("disk I/O error")

    opened: list[apsw.Connection] = []

    def opening(*arguments: Any) -> apsw.Connection:
        opened.append(database.open_database(*arguments))
        return opened[-1]

    monkeypatch.setattr(store, "open_database", opening)
    async with running(path) as supervisor:
        posted = [await deposit(supervisor, "before")]
        opened[-1].set_wal_hook(raises)  # called when the transaction is there already
        posted.append(await deposit(supervisor, "there"))
        posted.append(await deposit(supervisor, "after"))
        assert len(opened) == 2
        assert not any(one.replayed for one in posted)
        assert (await status(supervisor)).state == "ok"
    assert checked(path, posted) == 3


async def test_a_disk_that_goes_on_failing_is_an_unknown_outcome_and_then_a_refusal_until_a_restart(
    path: Path, disk: Any, running: Any, checked: Any
) -> None:
    async with running(path) as supervisor:
        posted = [await deposit(supervisor, "before")]
        for suffix in (".db", "-wal"):
            disk.fail("xSync", suffix, apsw.IOError("disk I/O error"), FOR_EVER)
        with pytest.raises(OutcomeUnknown) as unknown:
            await deposit(supervisor, "ghost")
        assert unknown.value.outcome == "unknown"
        with pytest.raises(StorageFailed) as failed:
            await deposit(supervisor, "refused")
        assert failed.value.outcome == "not_executed"
        assert (await status(supervisor)).state == "failed"
        assert await cash(supervisor) in (1_000, 2_000), "reads go on"
        disk.heal()
        with pytest.raises(StorageFailed):
            await deposit(supervisor, "still refused")
    async with running(path) as supervisor:
        posted.append(await deposit(supervisor, "ghost"))
        assert await cash(supervisor) == 2_000
    assert checked(path, posted) == 2


@pytest.mark.parametrize("call", ["xSync", "xWrite"])
async def test_a_checkpoint_that_fails_fails_no_commit(
    path: Path, disk: Any, running: Any, checked: Any, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """It comes after the commit. SQLite keeps its failure to itself; apsw raises what our disk
    raised all the same.
    """
    monkeypatch.setattr(database, "WAL_AUTOCHECKPOINT_PAGES", 1)
    async with running(path) as supervisor:
        disk.fail(call, ".db", apsw.IOError("disk I/O error"))
        posted = [await deposit(supervisor, str(number)) for number in range(5)]
        assert not any(one.replayed for one in posted)
        assert (await status(supervisor)).state == "ok"
    assert checked(path, posted) == 5


# -- the database cannot be written


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("xWrite", apsw.FullError("database or disk is full")),
        ("xWrite", apsw.ReadOnlyError("read-only")),
    ],
    ids=["full", "read-only"],
)
async def test_a_full_or_read_only_disk_is_refused_read_and_healed_without_traffic(
    path: Path,
    disk: Any,
    running: Any,
    checked: Any,
    autojump_clock: MockClock,
    call: str,
    error: apsw.Error,
) -> None:
    async with running(path) as supervisor:
        posted = [await deposit(supervisor, "before")]
        disk.fail(call, "-wal", error, FOR_EVER)
        for _ in range(2):
            with pytest.raises(StorageDegraded) as refused:
                await deposit(supervisor, "refused")
            assert refused.value.outcome == "not_executed"
        await trio.sleep(3 * PROBE_EVERY_S)
        assert (await status(supervisor)).state == "degraded"
        assert await cash(supervisor) == 1_000, "reads go on"
        disk.heal()
        await trio.sleep(1.5 * PROBE_EVERY_S)
        assert (await status(supervisor)).state == "ok"
        posted.append(await deposit(supervisor, "refused"))
        assert not posted[-1].replayed
        assert all(child.restarts == 0 for child in supervisor.tree())
    assert checked(path, posted) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB, where we may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    try:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True
        )
    except OSError as error:
        pytest.skip(f"there is no mount: {error}")
    if made.returncode:
        pytest.skip(f"may not mount: {made.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_a_disk_that_is_really_full_refuses_and_heals(
    small_disk: Path, running: Any, checked: Any, autojump_clock: MockClock
) -> None:
    path = small_disk / "fund.db"
    posted: list[Posted] = []
    async with running(path) as supervisor:
        (small_disk / "ballast").write_bytes(bytes(1_000_000))
        with pytest.raises(StorageDegraded, match="full"):
            await deposit_without_end(supervisor, posted)
        assert posted
        assert await cash(supervisor) == 1_000 * len(posted)
        (small_disk / "ballast").unlink()
        await trio.sleep(1.5 * PROBE_EVERY_S)
        assert (await status(supervisor)).state == "ok"
        posted.append(await deposit(supervisor))
        assert all(child.restarts == 0 for child in supervisor.tree())
    assert checked(path, posted) == len(posted)


HOLDER = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


@contextmanager
def held_elsewhere(path: Path) -> Iterator[None]:
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield
        holder.communicate(b"")


async def test_a_lock_that_another_process_keeps_is_refused_in_bounded_time_and_healed_from(
    path: Path,
    running: Any,
    checked: Any,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)
    async with running(path) as supervisor:
        posted = [await deposit(supervisor, "before")]
        with held_elsewhere(path):
            begun = time.monotonic()
            with pytest.raises(StorageDegraded, match="locked"):
                await deposit(supervisor, "locked")
            took_s = time.monotonic() - begun
            assert 0.05 * store.LOCK_ATTEMPTS * 0.5 < took_s < 5
        await trio.sleep(1.5 * PROBE_EVERY_S)
        assert (await status(supervisor)).state == "ok"
        posted.append(await deposit(supervisor, "locked"))
    assert checked(path, posted) == 2


# -- the same money twice


async def test_of_two_callers_who_withdraw_the_same_money_exactly_one_gets_it(
    path: Path, running: Any, checked: Any
) -> None:
    async with running(path, lambda: ThreadWorker("writer")) as supervisor:
        ledger = supervisor.ref("ledger")
        posted = [await deposit(supervisor, "money")]
        for turn in range(20):
            got: list[Posted | InsufficientFunds] = []

            async def withdraw(key: str, got: list[Posted | InsufficientFunds] = got) -> None:
                try:
                    got.append(await ledger.ask(Withdraw(600, key=key)))
                except InsufficientFunds as refusal:
                    got.append(refusal)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(withdraw, f"one-{turn}")
                await trio.sleep(0 if turn % 2 else math.nextafter(0, 1))
                nursery.start_soon(withdraw, f"other-{turn}")
            assert sorted(type(one).__name__ for one in got) == ["InsufficientFunds", "Posted"]
            posted += [one for one in got if isinstance(one, Posted)]
            assert await cash(supervisor) == 400
            posted.append(await ledger.ask(Deposit(600)))
    assert checked(path, posted) == 41


# -- a copy while it is written


async def test_a_backup_of_a_ledger_that_is_being_written_is_a_book_in_order(
    path: Path, running: Any, checked: Any, tmp_path: Path
) -> None:
    async with running(path, lambda: ThreadWorker("writer")) as supervisor:
        posted: list[Posted] = []

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(deposit_without_end, supervisor, posted)
            beside_writes, number = 0, 0
            while beside_writes < 3:  # a small file in memory may be copied between two commits
                number += 1
                assert number <= 50, "the ledger waits for each backup"
                await deposit(supervisor, f"own-{number}")
                acknowledged = list(posted)
                target = tmp_path / f"backup-{number}.db"
                await trio.to_thread.run_sync(backup, path, target)
                beside_writes += len(posted) > len(acknowledged)
                assert checked(target, acknowledged) >= len(acknowledged)
            nursery.cancel_scope.cancel()
    with Reader(path) as reader:
        assert reader.row("PRAGMA quick_check") == ("ok",)


def test_a_kill_switch_engaged_on_a_full_disk_is_engaged_ever_after(small_disk: Path) -> None:
    marker = Marker(small_disk / "fund.db.kill")
    with suppress(OSError):
        (small_disk / "ballast").write_bytes(bytes(4_000_000))
    status = KillStatus("ENGAGED", "enough", "owner", 5)
    with pytest.raises(OSError, match="No space left"):
        marker.write(status)
    found = marker.read()
    assert found is not None
    assert found.state == "ENGAGED"
    (small_disk / "ballast").unlink()
    marker.write(status)
    assert marker.read() == status
    assert names(small_disk) == ["fund.db.kill"]


def names(folder: Path) -> list[str]:
    return [one.name for one in folder.iterdir()]


async def test_a_restore_that_finds_no_room_for_its_marker_leaves_none(
    small_disk: Path, running: Any, tmp_path: Path
) -> None:
    async with running(tmp_path / "source.db") as supervisor:
        await deposit(supervisor)
    with suppress(OSError):
        (small_disk / "ballast").write_bytes(bytes(4_000_000))
    with pytest.raises(OSError, match="No space left"):
        restore_fund(tmp_path / "source.db", small_disk / "fund.db", 5)
    assert names(small_disk) == ["ballast"]


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


async def test_a_book_where_nothing_can_be_written_is_refused_rather_than_read_without_its_log(
    small_disk: Path, running: Any, tmp_path: Path
) -> None:
    path = small_disk / "fund.db"
    async with running(path) as supervisor:
        await deposit(supervisor)
    make_read_only(small_disk)
    with pytest.raises(DatabaseError, match="read a copy of it"):
        Reader(path)
    (tmp_path / "copy.db").write_bytes(path.read_bytes())
    assert verify_file(tmp_path / "copy.db").ok
