"""The open database against its path: deleted, moved, replaced or written by another program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from fundops.actors.persistence import (
    PersistenceActor,
    Reader,
    Store,
    check_writable,
    commit_batch,
    database,
    open_database,
    store,
)
from fundops.actors.persistence.store import Answer
from fundops.file.database import MIGRATIONS
from fundops.runtime import ChildSpec, InlineWorker, Supervisor, open_supervisor
from fundops.wire.errors import OutcomeUnknown, StorageDegraded, StorageFailed
from fundops.wire.persistence import Commit, Committed, Statement, StorageStatistics


def remember(key: str) -> tuple[Statement, ...]:
    return (Statement("INSERT INTO meta VALUES (?, 'x')", ((key,),)),)


def write(opened: Store, key: str) -> Answer:
    return commit_batch(opened, [remember(key)])[0]


def keys(path: Path) -> list[str]:
    with Reader(path) as reader:
        return [key for (key,) in reader.rows("SELECT key FROM meta ORDER BY key")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "fund.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Store]:
    made = Store(path, MIGRATIONS)
    assert write(made, "before") == Committed(1)
    yield made
    made.connection.close()


def _delete(path: Path) -> None:
    path.unlink()


def _move(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def _replace(path: Path) -> None:
    shutil.copyfile(path, path.with_name("copy.db"))
    path.with_name("copy.db").replace(path)


def _delete_log(path: Path) -> None:
    path.with_name("fund.db-wal").unlink()


def _delete_index(path: Path) -> None:
    path.with_name("fund.db-shm").unlink()


def _move_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


LOSSES = [_delete, _move, _replace, _delete_log, _delete_index, _move_folder]


@pytest.mark.parametrize("lose", LOSSES)
def test_nothing_is_written_to_files_the_path_has_lost(
    path: Path, opened: Store, lose: Callable[[Path], None]
) -> None:
    lose(path)
    answer = write(opened, "after")
    assert isinstance(answer, StorageFailed)
    assert str(path) in str(answer)
    assert opened.connection.execute("SELECT key FROM meta").fetchall() == [("before",)]


@pytest.mark.parametrize("lose", LOSSES)
def test_a_commit_into_a_file_lost_meanwhile_is_not_acknowledged(
    path: Path, lose: Callable[[Path], None]
) -> None:
    lost = []

    def before_commit(_connection: apsw.Connection, mark: int) -> None:
        if mark == 2:
            lose(path)
            lost.append(mark)

    made = Store(path, MIGRATIONS, before_commit)
    assert write(made, "before") == Committed(1)
    assert isinstance(write(made, "during"), OutcomeUnknown)
    assert lost == [2]
    assert isinstance(write(made, "after"), StorageFailed)
    made.connection.close()


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[Supervisor]:
    child = ChildSpec(
        "persistence", lambda: PersistenceActor(path, MIGRATIONS, make_worker=InlineWorker)
    )
    async with open_supervisor([child]) as supervisor:
        yield supervisor


@pytest.mark.parametrize("lose", LOSSES)
async def test_a_lost_file_is_noticed_without_any_commit(
    path: Path, lose: Callable[[Path], None]
) -> None:
    async with running(path) as supervisor:
        persistence = supervisor.ref("persistence")
        await persistence.ask(Commit(remember("before")))
        lose(path)
        status = await persistence.ask(StorageStatistics())
        assert status.state == "failed"
        assert "while the fund had it open" in str(status.reason)
        with pytest.raises(StorageFailed):
            await persistence.ask(Commit(remember("after")))
        assert supervisor.tree()[0].restarts == 0


async def test_a_relative_path_means_the_folder_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    async with running(Path("fund.db")) as supervisor:
        monkeypatch.chdir(tmp_path / "other")
        await supervisor.ref("persistence").ask(Commit(remember("one")))
        assert (await supervisor.ref("persistence").ask(StorageStatistics())).wal_bytes > 0
    assert keys(tmp_path / "fund.db") == ["one"]
    assert list((tmp_path / "other").iterdir()) == []


def test_another_programs_write_is_noticed_by_the_mark(path: Path, opened: Store) -> None:
    other = Store(path, MIGRATIONS)
    assert write(other, "theirs") == Committed(1)
    answer = write(opened, "ours")
    assert isinstance(answer, StorageFailed)
    assert "another program wrote to it" in str(answer)
    other.close()
    assert keys(path) == ["before", "theirs"]


def test_a_copy_over_the_open_file_is_noticed_by_the_mark(path: Path, opened: Store) -> None:
    opened.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    backup = path.read_bytes()
    assert write(opened, "lost") == Committed(1)
    opened.close()
    again = Store(path, MIGRATIONS)
    path.write_bytes(backup)  # the same inode
    again.connection.execute("PRAGMA shrink_memory")
    assert isinstance(write(again, "after"), StorageFailed)
    again.connection.close()


# -- the place for a log elsewhere


def test_the_hook_sees_each_transaction_with_its_mark(path: Path) -> None:
    seen = []

    def before_commit(connection: apsw.Connection, mark: int) -> None:
        assert connection.in_transaction
        [(count,)] = connection.execute("SELECT count(*) FROM meta").fetchall()
        seen.append((mark, count))

    made = Store(path, MIGRATIONS, before_commit)
    assert [write(made, "a"), write(made, "b")] == [Committed(1)] * 2
    made.close()
    assert seen == [(1, 1), (2, 2)]


async def test_a_hook_that_refuses_degrades_storage_until_it_relents(path: Path) -> None:
    reachable = [False]

    def before_commit(_connection: apsw.Connection, _mark: int) -> None:
        if not reachable[0]:
            raise StorageDegraded("the log elsewhere cannot be reached")

    child = ChildSpec(
        "persistence",
        lambda: PersistenceActor(
            path, MIGRATIONS, make_worker=InlineWorker, before_commit=before_commit
        ),
    )
    async with open_supervisor([child]) as supervisor:
        persistence = supervisor.ref("persistence")
        with pytest.raises(StorageDegraded, match="cannot be reached"):
            await persistence.ask(Commit(remember("refused")))
        assert (await persistence.ask(StorageStatistics())).state == "degraded"
        assert keys(path) == []
        reachable[0] = True
        await persistence.ask(Commit(remember("taken")))
        assert (await persistence.ask(StorageStatistics())).state == "ok"
    assert keys(path) == ["taken"]


# -- locks of other programs


def test_the_waits_of_batches_behind_a_lock_do_not_add_up(
    path: Path, opened: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 30)
    monkeypatch.setattr(store, "LOCKED_OUT_WAIT_MS", 1)
    monkeypatch.setattr(
        store, "wait_for_locks", lambda _, wait_ms=None: waits.append(wait_ms or 30)
    )
    opened.connection.set_busy_timeout(30)
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    for number in range(3):
        assert isinstance(write(opened, str(number)), StorageDegraded)
    assert waits == [1, 1]  # the first had both full waits
    other.execute("ROLLBACK")
    other.close()
    assert write(opened, "healed") == Committed(1)
    assert waits == [1, 1, 1, 30]
    assert not opened.locked_out


def test_a_tool_is_told_of_the_lock_in_the_time_it_gives(path: Path, opened: Store) -> None:
    check_writable(path, 0)
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageDegraded, match="another program has held its write lock"):
        check_writable(path, 10)
    other.close()
    check_writable(path, 0)


def test_a_reader_that_never_ends_does_not_hold_up_the_close(path: Path) -> None:
    made = Store(path, MIGRATIONS)
    with Reader(path) as reader, reader.snapshot():
        reader.rows("SELECT * FROM meta")
        assert write(made, "one") == Committed(1)
        begun = time.monotonic()
        made.close()
        assert time.monotonic() - begun < 3
    assert keys(path) == ["one"]


def test_opening_a_file_again_keeps_the_locks_of_its_readers(
    path: Path, opened: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.close()
    with Reader(path) as reader, reader.snapshot():
        reader.rows("SELECT * FROM meta")
        descriptors: list[int] = []
        real_open = os.open

        def noted(file: Any, flags: int, mode: int = 0o777) -> int:
            descriptors.append(real_open(file, flags, mode))
            return descriptors[-1]

        with monkeypatch.context() as patch:  # pytest opens the folder to remove it
            patch.setattr(os, "open", noted)
            open_database(path, MIGRATIONS).close()
        # A descriptor of the database that is closed would drop every lock of this process.
        assert descriptors == []


# -- forks

FORK = """
import os, sys, traceback
from pathlib import Path
from fundops.actors.persistence import Reader, Store, commit_batch
from fundops.file.database import MIGRATIONS
from fundops.wire.errors import DatabaseError

path = Path(sys.argv[1])
store, reader = Store(path, MIGRATIONS), Reader(path)
reader.rows("SELECT * FROM meta")
child = os.fork()
if child == 0:
    try:
        for use in (
            lambda: reader.rows("SELECT 1"),
            lambda: store.connection.execute("SELECT 1"),
            lambda: commit_batch(store, [()]),
        ):
            try:
                use()
            except DatabaseError as error:
                assert f"opened by process {os.getppid()}" in str(error), error
            else:
                raise AssertionError("a parent's connection was used")
        open_files = []
        for name in os.listdir("/proc/self/fd"):
            try:
                open_files.append(os.readlink(f"/proc/self/fd/{name}"))
            except OSError:
                pass
        assert not [file for file in open_files if "fund.db" in file], open_files
        reader.close()
        store.close()
        with Reader(path) as own:
            own.rows("SELECT * FROM meta")
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    sys.exit(0)  # through the interpreter's own end
assert os.waitpid(child, 0)[1] == 0
assert commit_batch(store, [()])[0].batch == 1
assert reader.rows("SELECT number FROM commit_mark") == [(1,)]
store.close()
print("fine")
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
def test_a_forked_child_has_no_connection_and_its_parent_keeps_them(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")
