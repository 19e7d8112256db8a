"""The persistence actor: durable before answered, one commit for many, and a fault that is an
answer, not a crash.
"""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import apsw
import pytest
import trio
from trio.testing import MockClock

from fundops.actors.persistence import (
    PersistenceActor,
    Reader,
    Store,
    commit_batch,
    database,
    open_database,
    store,
)
from fundops.actors.persistence import schema as persistence_schema
from fundops.actors.persistence.actor import PROBE_EVERY_S
from fundops.actors.persistence.database import APPLICATION_ID
from fundops.file.database import MIGRATIONS
from fundops.runtime import (
    ActorCrashed,
    ChildSpec,
    InlineWorker,
    Ref,
    StartFailed,
    Supervisor,
    open_supervisor,
)
from fundops.wire.errors import (
    ConstraintFailed,
    DatabaseError,
    OutcomeUnknown,
    StorageDegraded,
    StorageFailed,
)
from fundops.wire.persistence import Commit, Committed, Statement, StorageStatistics, StorageStatus

SCHEMA = (
    persistence_schema.SCHEMA
    + """
CREATE TABLE fact (
    id INTEGER PRIMARY KEY,
    value TEXT NOT NULL CHECK (value <> 'bad'),
    of INTEGER REFERENCES fact (id)
) STRICT;
CREATE TABLE note (of INTEGER NOT NULL REFERENCES fact (id)) STRICT;
"""
)
INSERT = "INSERT INTO fact(id, value) VALUES (?, ?)"


class TappedWorker(InlineWorker):
    """The writer, with its connection in reach and a gate in front of each commit."""

    def __init__(self) -> None:
        super().__init__()
        self.connection: apsw.Connection
        self.commits = 0
        self.delay_s = 0.0
        self.ended = False

    async def run(self, call: Callable[[], Any]) -> Any:
        if isinstance(call, partial) and call.func is commit_batch:
            self.commits += 1
            self.connection = call.args[0].connection
            await trio.sleep(self.delay_s)
        return await super().run(call)

    def stop(self) -> None:
        self.ended = True
        super().stop()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fund.db"


@pytest.fixture
def worker() -> TappedWorker:
    return TappedWorker()


@asynccontextmanager
async def opened(
    path: Path, worker: InlineWorker | None = None, migrations: Sequence[str] = (SCHEMA,)
) -> AsyncIterator[Supervisor]:
    make = InlineWorker if worker is None else lambda: worker
    child = ChildSpec("persistence", lambda: PersistenceActor(path, migrations, make_worker=make))
    async with open_supervisor([child]) as supervisor:
        yield supervisor


def insert(number: int, value: str = "good") -> Commit:
    return Commit((Statement(INSERT, ((number, value),)),))


def stored(path: Path) -> list[int]:
    with Reader(path) as reader:
        return [number for (number,) in reader.rows("SELECT id FROM fact ORDER BY id")]


async def statistics(supervisor: Supervisor) -> StorageStatus:
    return await supervisor.ref("persistence").ask(StorageStatistics())


async def outcomes(ref: Ref, requests: Sequence[Commit]) -> list[Any]:
    """The answer or refusal of each, all of them asked at the same time."""
    answers: list[Any] = [None] * len(requests)

    async def ask(number: int) -> None:
        try:
            answers[number] = await ref.ask(requests[number], timeout_s=60)
        except Exception as refusal:  # noqa: BLE001  it is the result
            answers[number] = refusal

    async with trio.open_nursery() as nursery:
        for number in range(len(requests)):
            nursery.start_soon(ask, number)
    return answers


# -- committing


async def test_what_is_answered_is_on_disk(path: Path) -> None:
    async with opened(path) as supervisor:
        assert await supervisor.ref("persistence").ask(insert(1)) == Committed(1)
        assert stored(path) == [1]


async def test_callers_that_wait_together_share_one_commit(
    path: Path, worker: TappedWorker
) -> None:
    async with opened(path, worker) as supervisor:
        answers = await outcomes(
            supervisor.ref("persistence"), [insert(number) for number in range(64)]
        )
        assert all(isinstance(one, Committed) for one in answers)
        assert worker.commits <= 4
        assert max(one.batch for one in answers) >= 32
        status = await statistics(supervisor)
        assert (status.state, status.requests, status.commits) == ("ok", 64, worker.commits)
        assert status.wal_bytes > 0
    assert stored(path) == list(range(64))


async def test_a_broken_constraint_fails_its_own_request_and_no_other(path: Path) -> None:
    async with opened(path) as supervisor:
        requests = [insert(number, "bad" if number in (3, 7) else "good") for number in range(10)]
        answers = await outcomes(supervisor.ref("persistence"), requests)
        refused = [
            number for number, one in enumerate(answers) if isinstance(one, ConstraintFailed)
        ]
        assert refused == [3, 7]
        assert all(
            isinstance(one, Committed)
            for number, one in enumerate(answers)
            if number not in refused
        )
        assert stored(path) == [number for number in range(10) if number not in refused]
        assert (await statistics(supervisor)).state == "ok"
        assert answers[3].outcome == "not_executed"


@pytest.mark.parametrize(
    "offence",
    [
        Statement(INSERT, ((2, "bad"),)),
        Statement(INSERT, ((1, "twice"),)),
        Statement("INSERT INTO note VALUES (?)", ((99,),)),
        Statement(INSERT, ((2, b"not a text"),)),
        Statement(INSERT, (("not a number", "good"),)),
        Statement(INSERT, ((2**70, "good"),)),
        Statement(INSERT, ((2, "\ud800"),)),
        Statement(INSERT, ((2, ValueError("good")),)),
    ],
    ids=["check", "unique", "reference", "type", "rowid", "overflow", "surrogate", "object"],
)
async def test_all_statements_of_one_request_are_stored_or_none(
    path: Path, offence: Statement
) -> None:
    async with opened(path) as supervisor:
        request = Commit(
            (
                Statement(INSERT, ((1, "good"), (5, "good"))),
                offence,
                Statement(INSERT, ((6, "good"),)),
            )
        )
        answers = await outcomes(supervisor.ref("persistence"), [insert(10), request, insert(11)])
        assert [type(one) for one in answers] == [Committed, ConstraintFailed, Committed]
        assert stored(path) == [10, 11]


async def test_an_empty_request_is_answered_after_those_before_it(path: Path) -> None:
    async with opened(path) as supervisor:
        answers = await outcomes(supervisor.ref("persistence"), [insert(1), Commit(())])
        assert [type(one) for one in answers] == [Committed, Committed]


async def test_a_reader_sees_nothing_of_a_transaction_before_its_commit(path: Path) -> None:
    connection = open_database(path, (SCHEMA,))
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(INSERT, (1, "good"))
    assert stored(path) == []
    connection.execute("COMMIT")
    assert stored(path) == [1]
    connection.close()


async def test_nobody_is_answered_before_the_commit(
    path: Path, worker: TappedWorker, autojump_clock: MockClock
) -> None:
    worker.delay_s = 3.0
    async with opened(path, worker) as supervisor:
        with trio.move_on_after(2.9) as early:
            await supervisor.ref("persistence").ask(insert(1))
        assert early.cancelled_caught
        assert stored(path) == []
        await supervisor.ref("persistence").ask(insert(2), timeout_s=60)
        assert stored(path) == [1, 2]  # a caller who left does not undo what was in hand


async def test_a_reader_needs_a_database_of_ours(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to have a header" * 10)
    foreign(tmp_path / "foreign")
    for name in ("missing", ".", "text", "foreign"):
        with pytest.raises(DatabaseError):
            Reader(tmp_path / name)


async def test_a_reader_cannot_write(path: Path) -> None:
    async with opened(path):
        with Reader(path) as reader, pytest.raises(apsw.ReadOnlyError):
            reader.rows("INSERT INTO fact(id, value) VALUES (1, 'good')")


# -- the file


async def test_the_file_belongs_to_its_owner_alone(path: Path) -> None:
    async with opened(path) as supervisor:
        await supervisor.ref("persistence").ask(insert(1))
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
        assert {file.name for file in path.parent.iterdir()} == {
            "fund.db",
            "fund.db-wal",
            "fund.db-shm",
        }


async def test_a_missing_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    async with opened(tmp_path / "deep" / "home" / "fund.db"):
        assert stat.S_IMODE((tmp_path / "deep" / "home").stat().st_mode) == 0o700


async def test_the_settings_are_in_force(path: Path, worker: TappedWorker) -> None:
    async with opened(path, worker) as supervisor:
        await supervisor.ref("persistence").ask(insert(1))
        settings = {
            name: worker.connection.pragma(name)
            for name in (
                "journal_mode",
                "synchronous",
                "foreign_keys",
                "trusted_schema",
                "journal_size_limit",
                "wal_autocheckpoint",
                "cache_size",
                "busy_timeout",
                "application_id",
                "user_version",
            )
        }
        assert settings == {
            "journal_mode": "wal",
            "synchronous": 2,  # FULL
            "foreign_keys": 1,
            "trusted_schema": 0,
            "journal_size_limit": 64 * 2**20,
            "wal_autocheckpoint": 4_096,
            "cache_size": -64 * 2**10,
            "busy_timeout": 4_500,
            "application_id": APPLICATION_ID,
            "user_version": 1,
        }
        with pytest.raises(apsw.SQLError, match="no such column"):
            worker.connection.execute('SELECT "misspelt" FROM fact').fetchall()


async def test_stopping_leaves_one_file_that_holds_everything(path: Path) -> None:
    async with opened(path) as supervisor:
        await supervisor.ref("persistence").ask(insert(1))
    assert [file.name for file in path.parent.iterdir()] == ["fund.db"]
    assert stored(path) == [1]


async def test_a_reader_that_holds_the_log_does_not_keep_the_writer_from_closing(
    path: Path, worker: TappedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 0)
    outside: apsw.Connection
    async with opened(path, worker) as supervisor:
        await outcomes(supervisor.ref("persistence"), [insert(1), insert(2)])
        outside = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        reading = iter(outside.execute("SELECT id FROM fact"))
        next(reading)
        await supervisor.ref("persistence").ask(insert(3))
    assert worker.ended
    with pytest.raises(apsw.ConnectionClosedError):
        worker.connection.pragma("user_version")
    outside.close(True)
    assert stored(path) == [1, 2, 3]


# -- opening what is not ours


def foreign(path: Path, *, tables: bool = True) -> None:
    connection = apsw.Connection(str(path))
    connection.pragma("application_id", 0x12345678)
    if tables:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()


def unclaimed(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()


def newer(path: Path) -> None:
    connection = open_database(path, (SCHEMA,))
    connection.pragma("user_version", 7)
    connection.close()


def text(path: Path) -> None:
    path.write_text("this is not a database " * 100)


def torn(path: Path) -> None:
    open_database(path, (SCHEMA,)).close()
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\xff" * (len(whole) - 100))


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (foreign, "belongs to another program \\(application_id 0x12345678\\)"),
        (partial(foreign, tables=False), "belongs to another program"),
        (unclaimed, "belongs to another program \\(application_id 0x0\\)"),
        (newer, "newer fundops \\(schema 7, this one knows 1\\)"),
        (text, "is not a SQLite database"),
        (torn, "cannot be opened"),
        (Path.mkdir, "cannot be opened"),
    ],
    ids=["foreign", "foreign and empty", "unclaimed", "newer", "text", "torn", "folder"],
)
async def test_a_file_that_is_not_ours_is_refused_and_left_as_it_was(
    path: Path, make: Callable[[Path], None], problem: str
) -> None:
    make(path)
    before = content(path)
    with pytest.raises(StartFailed) as failed:
        async with opened(path):
            pass
    assert isinstance(failed.value.__cause__, DatabaseError)
    assert failed.value.__cause__.path == path
    with pytest.raises(DatabaseError, match=problem):
        open_database(path, (SCHEMA,))
    assert content(path) == before


def test_a_file_that_another_program_holds_is_refused_with_its_path(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 0)
    other = apsw.Connection(str(path))
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DatabaseError, match="cannot be opened"):
        open_database(path, (SCHEMA,))
    other.close(True)


def test_each_migration_runs_once_and_a_broken_one_leaves_the_version_before(path: Path) -> None:
    second = "CREATE TABLE second (id INTEGER PRIMARY KEY) STRICT;"
    third = "CREATE TABLE third (id INTEGER PRIMARY KEY) STRICT;"
    broken = f"{third} {third}"
    open_database(path, (SCHEMA,)).close()
    connection = open_database(path, (SCHEMA, second))
    assert connection.pragma("user_version") == 2
    connection.close()
    with pytest.raises(DatabaseError, match="already exists"):
        open_database(path, (SCHEMA, second, broken))
    connection = open_database(path, (SCHEMA, second))
    assert connection.pragma("user_version") == 2
    assert connection.execute(
        "SELECT count(*) FROM sqlite_schema WHERE name = 'third'"
    ).fetchall() == [(0,)]
    connection.close()


def test_the_schema_of_a_fund_can_be_made_and_opened_again(path: Path) -> None:
    for _ in range(2):
        connection = open_database(path, MIGRATIONS)
        assert connection.pragma("user_version") == len(MIGRATIONS)
        assert connection.pragma("integrity_check") == "ok"
        connection.close()


# -- faults


async def test_a_full_disk_is_a_refusal_and_reads_go_on_until_it_heals(
    path: Path, worker: TappedWorker
) -> None:
    async with opened(path, worker) as supervisor:
        ref = supervisor.ref("persistence")
        await ref.ask(insert(0))
        pages = worker.connection.pragma("page_count")
        worker.connection.pragma("max_page_count", pages)
        big = Commit((Statement(INSERT, ((1, "x" * 100_000),)),))
        answers = await outcomes(ref, [insert(2), big, insert(3)])
        assert [type(one) for one in answers] == [StorageDegraded] * 3
        assert answers[0].outcome == "not_executed"
        assert stored(path) == [0]
        status = await statistics(supervisor)
        assert status.state == "degraded"
        assert "full" in (status.reason or "")

        worker.connection.pragma("max_page_count", 1_000_000)
        assert isinstance(await ref.ask(big), Committed)
        assert stored(path) == [0, 1]
        assert (await statistics(supervisor)).state == "ok"
        assert supervisor.tree()[0].restarts == 0


async def test_a_file_that_cannot_be_written_now_is_a_refusal_and_heals_with_the_next_request(
    path: Path, worker: TappedWorker
) -> None:
    async with opened(path, worker) as supervisor:
        ref = supervisor.ref("persistence")
        await ref.ask(insert(1))
        worker.connection.pragma("query_only", True)
        with pytest.raises(StorageDegraded, match="cannot be written"):
            await ref.ask(insert(2))
        worker.connection.pragma("query_only", False)
        assert isinstance(await ref.ask(insert(4)), Committed)
        assert stored(path) == [1, 4]


async def test_a_degraded_database_is_probed_until_it_heals_and_no_longer(
    path: Path, worker: TappedWorker, autojump_clock: MockClock
) -> None:
    async with opened(path, worker) as supervisor:
        ref = supervisor.ref("persistence")
        await ref.ask(insert(1))
        worker.connection.pragma("query_only", True)
        with pytest.raises(StorageDegraded):
            await ref.ask(insert(2))
        tried = worker.commits
        await trio.sleep(2.5 * PROBE_EVERY_S)
        assert worker.commits == tried + 2
        assert (await statistics(supervisor)).state == "degraded"
        worker.connection.pragma("query_only", False)
        await trio.sleep(PROBE_EVERY_S)
        status = await statistics(supervisor)
        assert (status.state, status.reason, status.requests, status.commits) == ("ok", None, 2, 1)
        await trio.sleep(10 * PROBE_EVERY_S)
        assert worker.commits == tried + 3
        assert stored(path) == [1]


class Disk:
    """Stands in for the connection of a store: an action at one statement, and a count of all
    that are run.
    """

    def __init__(
        self, connection: apsw.Connection, at: str, action: Callable[[Callable[[], Any]], Any]
    ) -> None:
        self._connection, self._at, self._action = connection, at, action
        self.executed: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, bindings: Any = ()) -> Any:
        self.executed.append(sql)
        run = partial(self._connection.execute, sql, bindings)
        return self._action(run) if sql == self._at else run()

    def executemany(self, sql: str, rows: Any) -> Any:
        self.executed.append(sql)
        run = partial(self._connection.executemany, sql, rows)
        return self._action(run) if sql == self._at else run()


def fails(error: Exception, *, afterwards: bool = False) -> Callable[[Callable[[], Any]], Any]:
    def action(run: Callable[[], Any]) -> None:
        if afterwards:
            run()
        raise error

    return action


@pytest.fixture
def opened_store(path: Path) -> Iterator[Store]:
    opened = Store(path, (SCHEMA,))
    yield opened
    opened.close()


def sabotage(opened_store: Store, at: str, action: Callable[[Callable[[], Any]], Any]) -> Disk:
    disk = Disk(opened_store.connection, at, action)
    opened_store.connection = cast("apsw.Connection", disk)
    return disk


@pytest.mark.parametrize(
    "error", [apsw.IOError("disk"), apsw.CorruptError("disk"), apsw.InternalError("?")], ids=repr
)
@pytest.mark.parametrize("lands", [True, False], ids=["there", "not there"])
def test_a_commit_that_raised_is_looked_up_and_acknowledged_or_run_again(
    path: Path, opened_store: Store, error: apsw.Error, lands: bool
) -> None:
    commit_batch(opened_store, [insert(0).statements])
    disk = sabotage(opened_store, "COMMIT", fails(error, afterwards=lands))
    batch = [insert(1).statements, insert(2).statements]
    assert commit_batch(opened_store, batch) == [Committed(2)] * 2
    assert disk.executed.count("COMMIT") == 1, "the rest happened on a fresh connection"
    assert stored(path) == [0, 1, 2]
    assert commit_batch(opened_store, [insert(3).statements]) == [Committed(1)]
    assert stored(path) == [0, 1, 2, 3]


@pytest.mark.parametrize("lands", [True, False], ids=["there", "not there"])
def test_refusals_within_a_batch_whose_commit_raised_stay_refusals(
    path: Path, opened_store: Store, lands: bool
) -> None:
    commits = []

    def second(run: Callable[[], Any]) -> None:
        commits.append(run)
        if lands:
            run()
        raise apsw.IOError("disk")

    sabotage(opened_store, "COMMIT", second)
    answers = commit_batch(
        opened_store, [insert(1).statements, insert(2, "bad").statements, insert(3).statements]
    )
    assert [type(one) for one in answers] == [Committed, ConstraintFailed, Committed]
    assert len(commits) == 1
    assert stored(path) == [1, 3]


@pytest.mark.parametrize("lands", [True, False], ids=["there", "not there"])
def test_an_outcome_is_unknown_only_when_the_database_cannot_be_opened_again(
    path: Path, opened_store: Store, lands: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        raise DatabaseError(path, "cannot be opened: no such device")

    monkeypatch.setattr(store, "open_database", gone)
    sabotage(opened_store, "COMMIT", fails(apsw.IOError("disk"), afterwards=lands))
    answers = commit_batch(opened_store, [insert(1).statements, insert(2).statements])
    assert [type(one) for one in answers] == [OutcomeUnknown] * 2
    for one in answers:
        assert isinstance(one, OutcomeUnknown)
        assert one.outcome == "unknown"
        assert "commit failed: disk" in str(one)
        assert "no such device" in str(one)
    assert stored(path) == ([1, 2] if lands else [])


@pytest.mark.parametrize("instead", [False, True], ids=["nothing", "another"])
def test_a_missing_database_is_an_unknown_outcome_and_its_replacement_stays_unwritten(
    path: Path, opened_store: Store, instead: bool
) -> None:
    def unplugged(_: Callable[[], Any]) -> None:
        for file in path.parent.iterdir():
            file.unlink()
        if instead:
            open_database(path, (SCHEMA,)).close()
        raise apsw.IOError("disk")

    for number in range(2):
        commit_batch(opened_store, [insert(number).statements])
    sabotage(opened_store, "COMMIT", unplugged)
    (answer,) = commit_batch(opened_store, [insert(2).statements])
    assert isinstance(answer, OutcomeUnknown)
    if instead:
        assert "another file" in str(answer)
        assert stored(path) == []
    else:
        assert "is gone" in str(answer)
        assert not path.exists()


def test_a_commit_that_raises_again_is_an_unknown_outcome(
    path: Path, opened_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sabotaged(*arguments: Any) -> Any:
        return Disk(open_database(*arguments), "COMMIT", fails(apsw.IOError("again")))

    monkeypatch.setattr(store, "open_database", sabotaged)
    sabotage(opened_store, "COMMIT", fails(apsw.IOError("disk")))
    (answer,) = commit_batch(opened_store, [insert(1).statements])
    assert isinstance(answer, OutcomeUnknown)
    assert "again" in str(answer)
    assert stored(path) == []


@pytest.mark.parametrize("at", ["BEGIN IMMEDIATE", INSERT])
@pytest.mark.parametrize("error", [apsw.IOError("disk"), apsw.CorruptError("disk")], ids=repr)
def test_a_fault_of_the_disk_before_the_commit_means_that_nothing_was_written(
    path: Path, opened_store: Store, at: str, error: apsw.Error
) -> None:
    disk = sabotage(opened_store, at, fails(error))
    (answer,) = commit_batch(opened_store, [insert(1).statements])
    assert isinstance(answer, StorageFailed)
    assert "COMMIT" not in disk.executed
    assert not opened_store.connection.in_transaction
    assert stored(path) == []


@pytest.mark.parametrize("error", [apsw.FullError("full"), apsw.BusyError("busy")], ids=repr)
def test_a_commit_that_found_no_room_or_a_lock_has_certainly_not_happened(
    path: Path, opened_store: Store, error: apsw.Error
) -> None:
    disk = sabotage(opened_store, "COMMIT", fails(error))
    (answer,) = commit_batch(opened_store, [insert(1).statements])
    assert isinstance(answer, StorageDegraded)
    assert cast("Disk", opened_store.connection) is disk, "no need to open it again"
    assert stored(path) == []


def test_what_sqlite_has_rolled_back_itself_is_not_rolled_back_again(opened_store: Store) -> None:
    def rolls_back(_: Callable[[], Any]) -> None:
        disk._connection.execute("ROLLBACK")
        raise apsw.FullError("full")

    disk = sabotage(opened_store, INSERT, rolls_back)
    (answer,) = commit_batch(opened_store, [insert(1).statements])
    assert isinstance(answer, StorageDegraded)
    assert "ROLLBACK" not in disk.executed


def test_a_rollback_that_fails_changes_nothing_about_the_answer(
    path: Path, opened_store: Store
) -> None:
    inner = sabotage(opened_store, "ROLLBACK", fails(apsw.IOError("disk")))
    sabotage(opened_store, INSERT, fails(apsw.IOError("disk")))
    (answer,) = commit_batch(opened_store, [insert(1).statements])
    assert isinstance(answer, StorageFailed)
    assert inner.executed[-1] == "ROLLBACK"
    assert stored(path) == []
    inner._connection.execute("ROLLBACK")


@pytest.mark.parametrize("releases", [True, False], ids=["released", "held"])
def test_a_lock_is_waited_for_a_bounded_number_of_times(
    path: Path, opened_store: Store, releases: bool
) -> None:
    attempts = []

    def locked(run: Callable[[], Any]) -> Any:
        attempts.append(run)
        if releases and len(attempts) == store.LOCK_ATTEMPTS:
            return run()
        raise apsw.BusyError("database is locked")

    sabotage(opened_store, "BEGIN IMMEDIATE", locked)
    (answer,) = commit_batch(opened_store, [insert(1).statements])
    assert isinstance(answer, Committed if releases else StorageDegraded)
    assert len(attempts) == store.LOCK_ATTEMPTS
    assert stored(path) == ([1] if releases else [])


def test_every_transaction_raises_the_mark_by_one_and_one_that_is_rolled_back_does_not(
    opened_store: Store,
) -> None:
    def mark() -> Any:
        return next(iter(opened_store.connection.execute(persistence_schema.READ_MARK)))[0]

    assert (mark(), opened_store.mark) == (0, 0)
    commit_batch(opened_store, [insert(1).statements, insert(2).statements])
    commit_batch(opened_store, [()])
    commit_batch(opened_store, [insert(1).statements])
    assert (mark(), opened_store.mark) == (3, 3)
    sabotage(opened_store, INSERT, fails(apsw.IOError("disk")))
    commit_batch(opened_store, [insert(4).statements])
    assert (mark(), opened_store.mark) == (3, 3)


async def test_after_an_unknown_outcome_nothing_more_is_written_until_a_restart(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Faulty(InlineWorker):
        async def run(self, call: Callable[[], Any]) -> Any:
            if isinstance(call, partial) and call.func is commit_batch:
                sabotage(call.args[0], "COMMIT", fails(apsw.IOError("disk")))
                monkeypatch.setattr(
                    store,
                    "open_database",
                    lambda _, migrations: open_database(path.parent, migrations),
                )
            return await super().run(call)

    async with opened(path, Faulty()) as supervisor:
        ref = supervisor.ref("persistence")
        with pytest.raises(OutcomeUnknown):
            await ref.ask(insert(1))
        with pytest.raises(StorageFailed, match="failed earlier"):
            await ref.ask(insert(2))
        assert (await statistics(supervisor)).state == "failed"
        assert stored(path) == []
    monkeypatch.undo()
    async with opened(path) as supervisor:
        await supervisor.ref("persistence").ask(insert(2))
    assert stored(path) == [2]


async def test_a_statement_that_is_nonsense_crashes_the_writer_which_comes_back(path: Path) -> None:
    async with opened(path) as supervisor:
        ref = supervisor.ref("persistence")
        with pytest.raises(ActorCrashed) as crash:
            await ref.ask(Commit((Statement("INSERT INTO nowhere VALUES (1)"),)))
        assert crash.value.outcome == "unknown"
        await ref.ask(insert(1))
        assert ref.epoch == 2
        assert stored(path) == [1]


async def test_a_crash_of_the_writer_loses_nothing_that_was_answered(path: Path) -> None:
    async with opened(path) as supervisor:
        ref = supervisor.ref("persistence")
        for number in range(3):
            supervisor.drill("persistence")
            await ref.ask(insert(number))
        assert stored(path) == [0, 1, 2]
        assert ref.epoch > 1


# -- kill -9

WRITER = """
import sys
from pathlib import Path
import trio
from fundops.actors.persistence import PersistenceActor
from fundops.runtime import ChildSpec, open_supervisor
from fundops.wire.persistence import Commit, Statement

path, schema, base = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

async def write(ref, lane):
    number = base + lane
    while True:
        fact = Statement("INSERT INTO fact(id, value) VALUES (?, 'good')", ((number,),))
        await ref.ask(Commit((fact,)))
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
        number += 8

async def main():
    child = ChildSpec("persistence", lambda: PersistenceActor(path, (schema,)))
    async with open_supervisor([child]) as supervisor, trio.open_nursery() as nursery:
        for lane in range(8):
            nursery.start_soon(write, supervisor.ref("persistence"), lane)

trio.run(main)
"""


def test_kill_9_loses_nothing_that_was_acknowledged(path: Path) -> None:
    acknowledged: list[int] = []
    for turn in range(3):
        command = [sys.executable, "-c", WRITER, str(path), SCHEMA, str(turn * 1_000_000)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(40 + 37 * turn):
                acknowledged.append(int(writer.stdout.readline()))
            os.kill(writer.pid, signal.SIGKILL)
            acknowledged += [
                int(line) for line in writer.stdout.read().splitlines(keepends=True) if "\n" in line
            ]
        assert writer.returncode == -signal.SIGKILL
        connection = open_database(path, (SCHEMA,))
        assert connection.pragma("integrity_check") == "ok"
        rows = {number for (number,) in connection.execute("SELECT id FROM fact")}
        connection.close()
        assert rows.issuperset(acknowledged)
    assert len(acknowledged) >= 231
