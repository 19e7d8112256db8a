"""The status actor on a real database and real sockets: durable first, visible second."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest
import trio
import trio.lowlevel

from fundops.actors.persistence import open_database
from fundops.actors.status import StatusActor
from fundops.actors.status import actor as status_module
from fundops.actors.status.board import StatusBoard
from fundops.runtime import (
    ChildSpec,
    InlineWorker,
    Ref,
    StartFailed,
    Supervisor,
    VirtualClock,
    open_supervisor,
)
from fundops.wire.errors import PortTaken, StatusClosed
from fundops.wire.status import StatusNews, StatusPort
from fundops.wire.stream.client import open_status
from fundops.wire.stream.hub import RING_SIZE
from fundops.wire.stream.limits import ServerLimits
from fundops.wire.stream.listening import HeldPort
from fundops.wire.stream.protocol import (
    Bye,
    Delta,
    Event,
    Gap,
    Heartbeat,
    Resumed,
    ServerMessage,
    Snapshot,
    Welcome,
)
from fundops.wire.stream.server import serve_status

NOW_US = 1_700_000_000_000_000
PATIENCE_S = 10.0
# The tables belong to other subsystems; these have the columns that the stream relies on, and more.
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
INSERT INTO meta VALUES ('uuid', 'e1');
CREATE TABLE alert (
    id INTEGER PRIMARY KEY, at_us INTEGER, level TEXT, category TEXT, title TEXT, message TEXT,
    strategy TEXT, outcome TEXT, in_budget INTEGER, dedup_key TEXT
) STRICT;
CREATE TABLE entry (
    seq INTEGER PRIMARY KEY, key TEXT, recorded_us INTEGER, day TEXT, kind TEXT, strategy TEXT,
    reverses INTEGER, payload TEXT, hash BLOB
) STRICT;
CREATE TABLE promotion_history (
    seq INTEGER PRIMARY KEY, strategy TEXT, kind TEXT, from_stage TEXT, to_stage TEXT,
    effective_us INTEGER, "by" TEXT, reason TEXT, rev INTEGER, metrics TEXT
) STRICT;
"""
RECOVERY_TABLE = """
CREATE TABLE recovery_event (
    seq INTEGER PRIMARY KEY, at_us INTEGER, action TEXT, target TEXT, success INTEGER,
    attempt INTEGER, error TEXT, "by" TEXT
) STRICT;
"""
ADD_RECOVERY = "INSERT INTO recovery_event VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


class Running(NamedTuple):
    """A status actor at work, and the connection that the rest of the fund writes with."""

    supervisor: Supervisor
    ref: Ref
    writer: apsw.Connection
    port: int
    nursery: trio.Nursery
    held: HeldPort
    board: StatusBoard

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def commit(self, sql: str, *rows: tuple[Any, ...]) -> None:
        """Rows that are durable, and the word of it."""
        write(self.writer, sql, *rows)
        await self.ref.tell(StatusNews())


def write(writer: apsw.Connection, sql: str, *rows: tuple[Any, ...]) -> None:
    with writer:
        writer.executemany(sql, rows)


def alerts(first: int, last: int, level: str = "INFO") -> list[tuple[Any, ...]]:
    return [
        (seq, NOW_US, level, "GENERAL", f"alert {seq}", "text", None, "QUEUED", 1, None)
        for seq in range(first, last + 1)
    ]


ADD_ALERT = "INSERT INTO alert VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
ADD_ENTRY = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fund.db"


@asynccontextmanager
async def running(
    path: Path, script: str = TABLES + RECOVERY_TABLE, *, port: int = 0, **options: Any
) -> AsyncIterator[Running]:
    writer = open_database(path, [script])
    try:
        with trio.fail_after(PATIENCE_S), ExitStack() as stack:
            async with trio.open_nursery() as nursery:
                held, board = HeldPort(port), StatusBoard()
                stack.callback(held.close)
                make = partial(
                    StatusActor,
                    path,
                    VirtualClock(NOW_US),
                    held,
                    nursery=nursery,
                    board=board,
                    limits=ServerLimits(close_s=0.2),
                    **options,
                )
                async with open_supervisor([ChildSpec("status", make)]) as supervisor:
                    ref = board.status = supervisor.ref("status")
                    yield Running(
                        supervisor, ref, writer, await ref.ask(StatusPort()), nursery, held, board
                    )
    finally:
        writer.close()


async def until_restarted(fund: Running) -> None:
    while fund.ref.epoch < 2 or fund.supervisor.tree()[0].state != "running":
        await trio.lowlevel.checkpoint()


async def events_of(url: str, topic: str, count: int) -> list[ServerMessage]:
    async with open_status(url, topics=[topic], backlog=RING_SIZE) as messages:
        assert isinstance(await anext(messages), Welcome)
        return [await anext(messages) for _ in range(count)]


# -- states


async def test_what_is_published_reaches_the_clients(path: Path) -> None:
    async with running(path) as fund:
        fund.board.publish({"fund": {"nav": "100.00"}, "feeds": {}})
        async with open_status(fund.url, topics=["fund"]) as messages:
            assert await anext(messages) == Welcome("fund.status.v1", "e1", NOW_US, ("fund",), {})
            assert await anext(messages) == Snapshot("fund", 1, {"nav": "100.00"})
            fund.board.publish({"fund": {"nav": "99.00"}})
            delta = await anext(messages)
            while isinstance(delta, Heartbeat):
                delta = await anext(messages)
            assert isinstance(delta, Delta)
            assert (delta.seq, delta.key, delta.value) == (2, "nav", "99.00")


# -- events


async def test_a_committed_row_becomes_an_event(path: Path) -> None:
    async with running(path) as fund, open_status(fund.url, topics=["alerts"]) as messages:
        await anext(messages)
        await fund.commit(
            ADD_ALERT,
            (1, NOW_US, "WARNING", "DRAWDOWN", "Drawdown", "10%", "alpha", "DEDUPED", 1, "dd"),
        )
        assert await anext(messages) == Event(
            "alerts",
            1,
            {
                "at_us": NOW_US,
                "level": "WARNING",
                "category": "DRAWDOWN",
                "title": "Drawdown",
                "message": "10%",
                "strategy": "alpha",
                "outcome": "DEDUPED",
                "dedup_key": "dd",
            },
        )


async def test_what_is_not_committed_is_never_seen(path: Path) -> None:
    async with running(path) as fund, open_status(fund.url, topics=["alerts"]) as messages:
        await anext(messages)
        fund.writer.execute("BEGIN IMMEDIATE")
        fund.writer.executemany(ADD_ALERT, alerts(1, 1))
        await fund.ref.tell(StatusNews())
        await fund.ref.ask(StatusPort())  # it has looked
        fund.writer.execute("ROLLBACK")
        await fund.commit(ADD_ALERT, *alerts(2, 2))
        message = await anext(messages)
        assert isinstance(message, Event)
        assert message.seq == 2


async def test_an_entry_is_lean_with_each_leg_once_as_text(path: Path) -> None:
    payload = (
        '{"legs":[["CASH","alpha","USD",9007199254740993],["REALIZED_PNL","alpha","USD",'
        '-9007199254740993],["CASH",null,"EUR",100000000]],"memo":"m","lots":[[1]]}'
    )
    async with running(path) as fund:
        await fund.commit(
            ADD_ENTRY, (1, "k1", NOW_US, "2024-01-02", "profit", "alpha", None, payload, b"\x00")
        )
        [event] = await events_of(fund.url, "journal", 1)
    assert isinstance(event, Event)
    assert event.data == {
        "recorded_us": NOW_US,
        "day": "2024-01-02",
        "kind": "profit",
        "strategy": "alpha",
        "legs": [
            ["CASH", "90071992.54740993"],
            ["REALIZED_PNL", "-90071992.54740993"],
            ["CASH", "1.00", None, "EUR"],
        ],
        "memo": "m",
    }


async def test_a_payload_that_is_no_json_is_shown_without_legs(path: Path) -> None:
    async with running(path) as fund:
        await fund.commit(
            ADD_ENTRY, (1, "k1", NOW_US, "2024-01-02", "deposit", None, 7, '{"cut off', b"")
        )
        [event] = await events_of(fund.url, "journal", 1)
    assert isinstance(event, Event)
    assert event.data["legs"] == []
    assert event.data["reverses"] == 7


async def test_moves_and_recoveries_are_sent_as_their_records(path: Path) -> None:
    async with running(path) as fund:
        move = (1, "alpha", "promote", "shadow", "live-small", NOW_US, "ann", "ok", 3, "{}")
        await fund.commit(
            "INSERT INTO promotion_history VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", move
        )
        [promotion] = await events_of(fund.url, "promotions", 1)
        await fund.commit(ADD_RECOVERY, (1, NOW_US, "restart_strategy", "alpha", 1, 2, None, None))
        [restart] = await events_of(fund.url, "recovery_events", 1)
    assert promotion == Event(
        "promotions",
        1,
        {
            "strategy": "alpha",
            "kind": "promote",
            "from_stage": "shadow",
            "to_stage": "live-small",
            "effective_us": NOW_US,
            "by": "ann",
            "reason": "ok",
            "rev": 3,
            "real": True,
        },
    )
    assert restart == Event(
        "recovery_events",
        1,
        {
            "at_us": NOW_US,
            "action": "restart_strategy",
            "target": "alpha",
            "success": True,
            "attempt": 2,
        },
    )


async def test_many_rows_are_read_page_by_page_and_all_in_order(path: Path) -> None:
    count = 2 * status_module.PAGE_ROWS + 1
    async with running(path) as fund:
        await fund.commit(ADD_ALERT, *alerts(1, count))
        events = await events_of(fund.url, "alerts", count)
    assert [event.seq for event in events if isinstance(event, Event)] == list(range(1, count + 1))


async def test_many_commits_at_once_are_one_look(path: Path) -> None:
    async with running(path) as fund, open_status(fund.url, topics=["alerts"]) as messages:
        await anext(messages)
        write(fund.writer, ADD_ALERT, *alerts(1, 3))
        for _ in range(100):
            fund.ref.tell_nowait(StatusNews())
        assert [(await anext(messages)).seq for _ in range(3)] == [1, 2, 3]  # type: ignore[union-attr]


async def test_late_clients_get_recent_history_and_the_rest_has_a_name(path: Path) -> None:
    writer = open_database(path, [TABLES + RECOVERY_TABLE])
    write(writer, ADD_ALERT, *alerts(1, RING_SIZE + 50))
    writer.close()
    async with running(path) as fund:
        [first] = await events_of(fund.url, "alerts", 1)
        assert isinstance(first, Event)
        assert first.seq == 51
        async with open_status(
            fund.url, topics=["alerts"], epoch="e1", since={"alerts": 10}
        ) as messages:
            await anext(messages)
            assert await anext(messages) == Resumed("alerts", 11, RING_SIZE + 50)
            assert await anext(messages) == Gap("alerts", 11, 50)


class CountingWorker(InlineWorker):
    """Counts the calls it runs."""

    calls = 0

    async def run(self, call: Callable[[], Any]) -> Any:
        CountingWorker.calls += 1
        return await super().run(call)


async def test_what_the_ring_cannot_hold_is_not_even_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = RING_SIZE // status_module.PAGE_ROWS
    writer = open_database(path, [TABLES + RECOVERY_TABLE])
    write(writer, ADD_ALERT, *alerts(1, 10 * RING_SIZE))
    writer.close()
    monkeypatch.setattr(CountingWorker, "calls", 0)
    async with running(path, make_worker=CountingWorker) as fund:
        [first] = await events_of(fund.url, "alerts", 1)
        assert isinstance(first, Event)
        assert first.seq == 9 * RING_SIZE + 1
        assert CountingWorker.calls < 5 * pages


async def test_a_level_of_a_newer_fundops_is_shown_to_everybody(path: Path) -> None:
    async with running(path) as fund:
        await fund.commit(ADD_ALERT, *alerts(1, 1, level="APOCALYPTIC"))
        [event] = await events_of(fund.url, "alerts", 1)
    assert isinstance(event, Event)
    assert event.data["level"] == "APOCALYPTIC"


# -- trouble


async def test_a_table_that_cannot_be_read_delays_no_other_and_is_tried_again(path: Path) -> None:
    async with running(path, TABLES) as fund:
        await fund.commit(ADD_ALERT, *alerts(1, 1))
        await events_of(fund.url, "alerts", 1)
        fund.writer.execute(RECOVERY_TABLE)
        await fund.commit(ADD_RECOVERY, (1, NOW_US, "opened", "alpha", None, 3, None, None))
        [event] = await events_of(fund.url, "recovery_events", 1)
        assert isinstance(event, Event)
        assert event.data["action"] == "opened"
        assert fund.ref.epoch == 1


async def test_a_fault_is_logged_once_and_not_at_every_commit(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(path, TABLES) as fund:
        for _ in range(3):
            await fund.ref.tell(StatusNews())
            await fund.ref.ask(StatusPort())
    assert [
        record.getMessage() for record in caplog.records if "recovery_events" in record.getMessage()
    ] == ["topic 'recovery_events' cannot be read: SQLError: no such table: recovery_event"]


async def test_a_crashed_actor_serves_again_on_its_port_and_clients_resume(path: Path) -> None:
    async with running(path) as probe:
        port = probe.port  # free a moment ago, and so it is again
    async with running(path, port=port) as fund:
        await fund.commit(ADD_ALERT, *alerts(1, 2))
        async with open_status(fund.url, topics=["alerts"]) as messages:
            welcome = await anext(messages)
            assert isinstance(welcome, Welcome)
            assert [await anext(messages) for _ in range(2)]
            fund.supervisor.drill("status")
            assert await anext(messages) == Bye("the server stops", 1.0)
        await until_restarted(fund)
        await fund.commit(ADD_ALERT, *alerts(3, 3))
        assert await fund.ref.ask(StatusPort()) == port
        async with open_status(
            fund.url, topics=["alerts"], epoch=welcome.epoch, since={"alerts": 2}
        ) as messages:
            await anext(messages)
            assert isinstance(await anext(messages), Resumed)
            event = await anext(messages)
            assert isinstance(event, Event)
            assert event.seq == 3


async def test_stopping_says_goodbye_and_leaves_no_task_behind(path: Path) -> None:
    async with running(path) as fund:
        async with open_status(fund.url, topics=[]) as messages:
            await anext(messages)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fund.supervisor.stop_child, "status")
                assert await anext(messages) == Bye("the server stops", 1.0)
        assert not fund.nursery.child_tasks
        fund.held.close()
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", fund.port)


async def test_a_listener_that_fails_ends_the_life_and_not_the_fund(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = trio.Event()
    serve = serve_status

    async def serve_until_broken(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(status_module, "serve_status", serve)
        async with trio.open_nursery() as nursery:
            await nursery.start(
                partial(serve, *args, **{**kwargs, "task_status": trio.TASK_STATUS_IGNORED})
            )
            kwargs["task_status"].started(0)
            await broken.wait()
            raise OSError("the network card is on fire")

    monkeypatch.setattr(status_module, "serve_status", serve_until_broken)
    async with running(path) as fund:
        broken.set()
        await until_restarted(fund)
        port = await fund.ref.ask(StatusPort())
        await events_of(f"ws://127.0.0.1:{port}/ws", "alerts", 0)


@pytest.mark.parametrize(
    ("script", "why"),
    [(TABLES.replace("'uuid'", "'name'"), "has no uuid"), (None, "there is no such database")],
)
async def test_without_a_database_of_a_fund_it_does_not_start(
    path: Path, script: str | None, why: str
) -> None:
    if script is not None:
        open_database(path, [script]).close()
    async with trio.open_nursery() as nursery:
        make = partial(
            StatusActor,
            path,
            VirtualClock(NOW_US),
            HeldPort(0),
            nursery=nursery,
            board=StatusBoard(),
        )
        with pytest.raises(StartFailed, match=why):
            async with open_supervisor([ChildSpec("status", make)]):
                pytest.fail("it started")


async def test_a_taken_port_is_tried_again_until_it_is_free(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_module, "RETRY_MIN_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        open_database(path, [TABLES + RECOVERY_TABLE]).close()
        held = HeldPort(port)
        async with trio.open_nursery() as nursery:
            make = partial(
                StatusActor, path, VirtualClock(NOW_US), held, nursery=nursery, board=StatusBoard()
            )
            async with open_supervisor([ChildSpec("status", make)]) as supervisor:
                ref = supervisor.ref("status")
                with pytest.raises(PortTaken, match=rf"{port} cannot be bound"):
                    await ref.ask(StatusPort())
                other.close()
                with trio.fail_after(PATIENCE_S):
                    while True:
                        try:
                            await events_of(f"ws://127.0.0.1:{port}/ws", "alerts", 0)
                            break
                        except StatusClosed:
                            await trio.sleep(0.01)
                assert await ref.ask(StatusPort()) == port
                assert ref.epoch == 1
        held.close()


async def test_a_value_that_cannot_be_sent_delays_no_other(path: Path) -> None:
    async with running(path) as fund:
        fund.board.publish({"fund": {"nav": object()}, "feeds": {"a": 1}})
        async with open_status(fund.url, topics=["feeds"]) as messages:
            await anext(messages)
            assert await anext(messages) == Snapshot("feeds", 1, {"a": 1})
        assert fund.ref.epoch == 1
