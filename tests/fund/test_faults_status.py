"""Faults of what a fund shows: crashed actors, the status stream, its port and its values."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fundops.runtime import ActorError
from fundops.testing import FakeController, VirtualFund, virtual_fund
from fundops.wire.alert import AlertRecord, Category, Level, SendAlert
from fundops.wire.controller import FeedStatus, StrategyStatus
from fundops.wire.errors import PortTaken, StatusClosed
from fundops.wire.oversight import ShowStatus
from fundops.wire.stream.client import open_status
from fundops.wire.stream.protocol import Delta, Patch, Snapshot
from fundops.wire.stream.records import JournalEvent


def about_crashes(fund: VirtualFund) -> list[AlertRecord]:
    return [alert for alert in fund.sent_alerts() if alert.title.startswith("Actor ")]


@pytest.mark.parametrize("actor", ["ledger", "recovery", "alert", "oversight", "persistence"])
async def test_a_crashed_actor_is_logged_and_told(
    actor: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with virtual_fund(FakeController(), self_healing_enabled=True, ledger_enabled=True) as w:
        await w.tick()
        w.fund.drill(actor)
        await wait_all_tasks_blocked()
        await w.tick()
        told = about_crashes(w)
        assert [(one.level.value, one.category.value, one.title) for one in told] == [
            ("WARNING", "GENERAL", f"Actor {actor} crashed"),
            ("INFO", "GENERAL", f"Actor {actor} runs again"),
        ]
        assert "Drill: drill" in told[0].message
        logged = [one for one in caplog.records if one.name == "fundops.runtime"]
        assert len(logged) == 1
        assert "Traceback" in logged[0].getMessage()


async def test_a_crash_is_told_without_a_tick() -> None:
    async with virtual_fund(FakeController(), ledger_enabled=True) as w:
        w.fund.drill("ledger")
        await wait_all_tasks_blocked()
        assert about_crashes(w)[0].title == "Actor ledger crashed"


async def test_a_crash_of_an_earlier_process_is_resolved(tmp_path: Path) -> None:
    file = tmp_path / "fund.db"
    async with virtual_fund(FakeController(), ledger_enabled=True, db_path=file) as w:
        # As a process leaves it that ends before the actor runs again.
        crash = SendAlert(
            Level.WARNING, Category.GENERAL, "Actor ledger crashed", "", None, "crashed:ledger"
        )
        await w.fund._supervisor.ref("alert").ask(crash)
    async with virtual_fund(FakeController(), ledger_enabled=True, db_path=file) as w:
        await w.tick()
        assert [one.title for one in about_crashes(w)][-1] == "Actor ledger runs again"


# -- values as they are when they are shown


async def messages_of(w: VirtualFund, topic: str) -> AsyncGenerator[Any, None]:
    url = f"ws://127.0.0.1:{await w.fund.status_port()}/ws"
    async with open_status(url, token=w.fund.status_token, topics=[topic]) as messages:
        async for message in messages:
            yield message


async def first_of(w: VirtualFund, topic: str) -> Any:
    """The first message about a topic, after the welcome."""
    with trio.fail_after(10):
        async with aclosing(messages_of(w, topic)) as messages:
            await anext(messages)
            return await anext(messages)


async def test_open_breakers_are_published_without_a_question() -> None:
    c = FakeController(StrategyStatus("s", "running", equity=1000, allocated=1000))
    async with virtual_fund(c, self_healing_enabled=True, status_port=0) as w:
        await w.tick()
        c.set("s", state="failed", retryable=False)
        for _ in range(12):
            w.clock.advance(1)
            await w.tick()
        await until(w, "fund", lambda fund: fund.get("breakers_open") == 1)
        alerts = (await w.fund.status()).alerts_24h
        assert alerts > 0
        await until(w, "fund", lambda fund: fund.get("alerts_24h") == alerts)


async def test_a_feed_is_stale_or_fresh_as_of_the_last_tick() -> None:
    c = FakeController()
    async with virtual_fund(c, self_healing_enabled=True, status_port=0) as w:
        c.feed_statuses = [FeedStatus("ticks", w.clock.now_us())]
        await w.tick()
        await until(w, "feeds", lambda feeds: "ticks" in feeds)
        # A replay moves its clock by days between two ticks, and a question may come in between.
        w.clock.advance(86_400)
        await w.fund._supervisor.ref("oversight").tell(ShowStatus())
        await until(w, "fund", lambda fund: fund.get("now_us") == w.clock.now_us())
        assert "stale" not in (await first_of(w, "feeds")).state["ticks"]
        await w.tick()
        await until(w, "feeds", lambda feeds: feeds.get("ticks", {}).get("stale", False))


async def test_figures_of_strategies_are_decimal_text_whatever_the_engine_reports() -> None:
    c = FakeController(StrategyStatus("s", "running", equity=1_000, allocated=0.1))
    async with virtual_fund(c, status_port=0) as w:
        await w.tick()
        await until(w, "strategies", lambda rows: "s" in rows)
        row = (await first_of(w, "strategies")).state["s"]
        assert (row["equity"], row["allocated"], row["realized_pnl"]) == ("1000", "0.1", "0")
        assert ("capital_cap" in row, row["n_trades"]) == (False, 0)


async def test_amounts_of_the_journal_are_decimal_text() -> None:
    async with virtual_fund(FakeController(), ledger_enabled=True, status_port=0) as w:
        await w.fund.ledger.open_position("X", quantity=2, cost=Decimal("10.5"), fee=1)
        await w.tick()
        with trio.fail_after(10):
            async with aclosing(messages_of(w, "journal")) as messages:
                await anext(messages)
                opening, position = await anext(messages), await anext(messages)
        assert ["CASH", "100000.00"] in opening.data["legs"]
        record = msgspec.convert(position.data, JournalEvent)
        assert (record.cash, record.result) == (Decimal("-11.50"), Decimal("-1.00"))
        assert ["POSITIONS", "10.50"] in position.data["legs"]


# -- the port, and an optional viewer


async def serves(w: VirtualFund, port: int) -> None:
    """Wait until the stream answers on this port."""
    with trio.fail_after(10):
        while True:
            try:
                assert await w.fund.status_port() == port
                async with aclosing(messages_of(w, "fund")) as messages:
                    await anext(messages)
                return
            except (StatusClosed, PortTaken, ActorError):
                await trio.sleep(0.01)


@pytest.mark.parametrize("actor", ["status", "persistence", "oversight"])
async def test_the_port_stays_while_actors_crash(actor: str) -> None:
    async with virtual_fund(FakeController(), status_port=0) as w:
        port = await w.fund.status_port()
        w.fund.drill(actor)
        for _ in range(20):
            # At no instant can another socket take it.
            with pytest.raises(OSError, match="in use"):
                socket.create_server(("127.0.0.1", port))
            await trio.lowlevel.checkpoint()
        await serves(w, port)


async def test_a_port_taken_before_the_start_is_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        async with virtual_fund(FakeController(), status_port=port) as w:
            assert (await w.tick()).failed == ()
            with pytest.raises(PortTaken):
                await w.fund.status_port()
            other.close()
            await serves(w, port)


async def test_the_port_is_free_when_the_fund_has_stopped() -> None:
    async with virtual_fund(FakeController(), status_port=0) as w:
        port = await w.fund.status_port()
    socket.create_server(("127.0.0.1", port)).close()


async def test_crashes_of_the_stream_never_end_the_fund(autojump_clock: MockClock) -> None:
    async with virtual_fund(FakeController(), status_port=0) as w:
        for _ in range(30):
            w.fund.drill("status")
            await trio.sleep(0.5)
            await w.tick()
        await trio.sleep(100)
        tree = {child.name: child for child in w.fund.tree()}
        assert tree["viewers"].children[0].restarts >= 10
        assert tree["viewers"].children[0].state == "running"
        assert tree["viewers"].restarts == 0


# -- published without a tick


async def until(w: VirtualFund, topic: str, found: Callable[[Any], bool]) -> None:
    """Wait until the stream says it."""
    state: dict[str, Any] = {}
    with trio.fail_after(10):
        async with aclosing(messages_of(w, topic)) as messages:
            async for message in messages:
                match message:
                    case Snapshot():
                        state.update(message.state)
                    case Delta():
                        state[message.key] = message.value
                    case Patch():
                        state[message.key] = {**state[message.key], **message.value}
                if found(state):
                    return


async def test_the_tree_is_refreshed_without_a_tick() -> None:
    async with virtual_fund(FakeController(), ledger_enabled=True, status_port=0) as w:
        await w.tick()
        w.fund.drill("ledger")

        def restarted(actors: Any) -> bool:
            ledger = actors.get("subsystems/ledger")
            return ledger is not None and ledger["epoch"] == 2

        await until(w, "actors", restarted)


async def test_a_booking_is_published_at_its_commit() -> None:
    async with virtual_fund(FakeController(), ledger_enabled=True, status_port=0) as w:
        await w.tick()
        await w.fund.ledger.deposit(5)
        await until(w, "balances", lambda sheet: Decimal(sheet.get("CASH", 0)) == 100_005)
        with trio.fail_after(10):
            async with aclosing(messages_of(w, "journal")) as messages:
                while getattr(await anext(messages), "seq", 0) < 2:
                    pass


async def test_a_replay_leaves_no_dead_letters() -> None:
    async with virtual_fund(FakeController(), ledger_enabled=True, status_port=0) as w:
        async with aclosing(messages_of(w, "fund")) as messages:
            await anext(messages)
            for _ in range(1_500):
                w.clock.advance(1)
                await w.tick()
        assert w.fund._supervisor.dead_letters.total == 0
        assert w.fund._supervisor.statistics()["status"].depth_max < 10


async def test_a_value_that_cannot_be_sent_ends_nothing() -> None:
    c = FakeController(StrategyStatus("s", "running", equity=1000, allocated=1000))
    c.feed_statuses = [FeedStatus("x", object())]  # type: ignore[arg-type]
    async with virtual_fund(c, status_port=0) as w:
        for _ in range(8):
            w.clock.advance(1)
            await w.tick()
        await until(w, "fund", lambda fund: fund.get("ticks") == 8)
        assert w.fund._supervisor.ref("status").epoch == 1
