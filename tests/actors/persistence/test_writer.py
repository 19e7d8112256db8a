"""The one way to commit: each outcome mapped once, and no decision on a state that may be wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from fundops.actors.persistence import DurableActor, Refusal, StateDiverged, Store, Writer
from fundops.runtime import (
    Actor,
    ActorCrashed,
    ChildSpec,
    Ref,
    Request,
    Supervisor,
    handles,
    open_supervisor,
)
from fundops.wire.errors import ConstraintFailed, OutcomeUnknown, StorageDegraded, StorageFailed
from fundops.wire.persistence import Commit, Committed, Statement

MIGRATIONS = (
    "CREATE TABLE commit_mark (id INTEGER PRIMARY KEY, number INTEGER NOT NULL) STRICT;"
    "INSERT INTO commit_mark VALUES (1, 0);"
    "CREATE TABLE tally (number INTEGER PRIMARY KEY) STRICT;",
)


class Mood(msgspec.Struct):
    """What the fake persistence does with the next commits."""

    refusal: BaseException | None = None
    written: bool = False  # whether it writes before it refuses
    wait_s: float = 0.0


class Persistence(Actor):
    """Writes through a real store, and fails as it is told."""

    def __init__(self, path: Path, mood: Mood) -> None:
        self._store = Store(path, MIGRATIONS)
        self._mood = mood

    @handles(Commit)
    async def commit(self, request: Commit) -> Committed:
        if request.statements:
            await trio.sleep(self._mood.wait_s)
        if self._mood.refusal is None or self._mood.written:
            with self._store.connection as connection:
                for statement in request.statements:
                    connection.executemany(statement.sql, statement.rows)
        if self._mood.refusal is not None and request.statements:
            raise self._mood.refusal
        return Committed(1)

    async def on_stop(self, reason: str) -> None:
        self._store.close()


class Count(Request[int], frozen=True):
    """Add one row; the number of rows."""


class Counter(DurableActor):
    """The smallest durable actor: its state is how many rows there are."""

    append_deadline_s = 5.0

    def load(self) -> None:
        self.number: int = self._reader.row("SELECT count(*) FROM tally")[0]

    @handles(Count)
    async def count(self, _: Count) -> int:
        number = self.number + 1
        refusal = await self.append([Statement("INSERT INTO tally VALUES (?)", ((number,),))])
        if refusal is not None:
            raise refusal
        self.number = number
        return number


class World(msgspec.Struct):
    supervisor: Supervisor
    mood: Mood

    @property
    def counter(self) -> Ref:
        return self.supervisor.ref("counter")

    async def count(self) -> int:
        return int(await self.counter.ask(Count(), timeout_s=60))


@asynccontextmanager
async def world(path: Path) -> AsyncIterator[World]:
    mood = Mood()
    children = [
        ChildSpec("persistence", lambda: Persistence(path, mood)),
        ChildSpec("counter", lambda: Counter(path)),
    ]
    async with open_supervisor(children) as supervisor:
        yield World(supervisor, mood)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tally.db"


@pytest.mark.parametrize(
    "refusal",
    [StorageDegraded("disk full"), StorageFailed("damaged"), OutcomeUnknown("COMMIT raised")],
    ids=lambda refusal: type(refusal).__name__,
)
async def test_a_refusal_of_storage_is_answered_as_it_is(path: Path, refusal: Refusal) -> None:
    async with world(path) as tree:
        tree.mood.refusal = refusal
        with pytest.raises(type(refusal)) as refused:
            await tree.count()
        assert str(refused.value) == str(refusal)
        tree.mood.refusal = None
        assert await tree.count() == 1
        assert tree.counter.epoch == 1


async def test_after_an_unknown_outcome_the_state_is_the_files(path: Path) -> None:
    async with world(path) as tree:
        tree.mood.refusal, tree.mood.written = OutcomeUnknown("COMMIT raised"), True
        with pytest.raises(OutcomeUnknown):
            await tree.count()
        tree.mood.refusal = None
        assert await tree.count() == 2


async def test_a_commit_that_outlives_its_deadline_is_loaded_before_the_next(
    path: Path, autojump_clock: MockClock
) -> None:
    async with world(path) as tree:
        tree.mood.wait_s = 20.0
        with pytest.raises(OutcomeUnknown, match="storage does not answer") as unknown:
            await tree.count()
        assert unknown.value.outcome == "unknown"
        # The row is on its way to the disk: a decision on the old state must not be written.
        with pytest.raises(StorageDegraded, match="before an earlier outcome was known"):
            await tree.count()
        tree.mood.wait_s = 0.0
        assert await tree.count() == 2
        assert tree.counter.epoch == 1


async def test_storage_that_stays_silent_refuses_and_crashes_no_one(
    path: Path, autojump_clock: MockClock
) -> None:
    async with world(path) as tree:
        tree.mood.wait_s = 100.0
        for _ in range(3):
            with pytest.raises(OutcomeUnknown, match="storage does not answer"):
                await tree.count()
        assert tree.counter.epoch == 1
        tree.mood.wait_s = 0.0


async def test_a_commit_that_was_never_begun_is_not_executed(
    path: Path, autojump_clock: MockClock
) -> None:
    async with world(path) as tree:
        tree.mood.wait_s = 20.0
        other = Statement("INSERT INTO tally VALUES (?)", ((99,),))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Writer(tree.supervisor.ref("persistence")).append, [other])
            await trio.sleep(1)
            with pytest.raises(StorageDegraded, match="storage did not take it") as degraded:
                await tree.count()
        assert degraded.value.outcome == "not_executed"
        tree.mood.wait_s = 0.0
        assert await tree.count() == 1


async def test_a_broken_constraint_crashes_and_the_next_life_loads_afresh(path: Path) -> None:
    async with world(path) as tree:
        tree.mood.refusal = ConstraintFailed("UNIQUE constraint failed: tally.number")
        with pytest.raises(ActorCrashed) as crash:
            await tree.count()
        assert isinstance(crash.value.__cause__, StateDiverged)
        tree.mood.refusal = None
        assert await tree.count() == 1
        assert tree.counter.epoch == 2


async def test_a_crashed_writer_leaves_the_outcome_unknown(path: Path) -> None:
    async with world(path) as tree:
        tree.mood.refusal, tree.mood.written = RuntimeError("the writer died after COMMIT"), True
        with pytest.raises(OutcomeUnknown):
            await tree.count()
        tree.mood.refusal = None
        with pytest.raises(StorageDegraded):
            await tree.count()
        assert await tree.count() == 2


async def test_statements_without_rows_ask_for_nothing(path: Path) -> None:
    async with world(path) as tree:
        tree.mood.refusal = StorageFailed("damaged")
        writer = Writer(tree.supervisor.ref("persistence"))
        assert await writer.append([]) is None
        assert await writer.append([Statement("INSERT INTO tally VALUES (?)", ())]) is None


async def test_earlier_commits_are_over_even_when_nothing_can_be_written(path: Path) -> None:
    async with world(path) as tree:
        tree.mood.refusal = StorageDegraded("disk full")
        writer: Any = Writer(tree.supervisor.ref("persistence"))
        assert await writer.earlier_commits() is None
