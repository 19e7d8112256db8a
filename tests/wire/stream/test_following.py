"""The client that connects again: no event twice or never, states in step, refusals final."""

import random
from functools import partial
from typing import Any

import pytest
import trio
from trio_websocket import WebSocketRequest, serve_websocket

from fundops import StatusClient
from fundops.runtime import ConfigError
from fundops.wire.errors import BadMessage, StatusClosed
from fundops.wire.stream import following
from fundops.wire.stream.following import merged, retry_s
from fundops.wire.stream.hub import Hub
from fundops.wire.stream.limits import ServerLimits
from fundops.wire.stream.listening import HeldPort
from fundops.wire.stream.protocol import (
    SUBPROTOCOL_JSON,
    Delta,
    Event,
    Gap,
    Patch,
    Resumed,
    ServerMessage,
    Snapshot,
    Welcome,
    encode,
)
from fundops.wire.stream.records import AlertEvent
from fundops.wire.stream.server import serve_status

PATIENCE_S = 10.0
ALERT = {"id": 1, "at_us": 2, "level": "WARNING", "category": "GENERAL", "title": "t"}


class Fund:
    """A server that stops and starts again on its port, as in a restart of the fund."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery, self.held, self.hub = nursery, HeldPort(0), Hub()
        self.scope = trio.CancelScope()
        self.url = f"ws://127.0.0.1:{self.held.take()}/ws"

    async def start(self, hub: Hub | None = None, epoch: str = "e1", **options: Any) -> None:
        self.hub, self.scope = hub or Hub(), trio.CancelScope()
        serve = partial(
            serve_status,
            self.hub,
            self.held.listener(),
            epoch=epoch,
            now_us=lambda: 42,
            limits=ServerLimits(close_s=0.1, heartbeat_s=60),
            **options,
        )

        async def stoppable(scope: trio.CancelScope, *, task_status: trio.TaskStatus[int]) -> None:
            with scope:
                await serve(task_status=task_status)

        await self.nursery.start(stoppable, self.scope)


@pytest.fixture
async def fund(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(following, "RETRY_MIN_S", 0.01)
    monkeypatch.setattr(following, "RETRY_MAX_S", 0.01)
    found = Fund(nursery)
    try:
        with trio.fail_after(PATIENCE_S):
            yield found
    finally:
        found.held.close()


async def next_of(client: StatusClient, kind: Any) -> Any:
    async for message in client:
        if isinstance(message, kind):
            return message
    raise AssertionError("the stream ended")


async def test_states_follow_the_messages_and_events_are_records(fund: Fund) -> None:
    await fund.start()
    fund.hub.publish_state("strategies", {"a": {"n": 1, "m": 2}})
    fund.hub.publish_event("alerts", 1, ALERT)
    async with StatusClient(fund.url, topics=["strategies", "alerts"]) as client:
        await next_of(client, Snapshot)
        assert client.states["strategies"] == {"a": {"n": 1, "m": 2}}
        event = await next_of(client, Event)
        assert event.data == AlertEvent(2, "WARNING", "GENERAL", "t")
        fund.hub.publish_state("strategies", {"a": {"n": 1, "m": 3}, "b": {"n": 0, "m": 0}})
        await next_of(client, Patch)
        await next_of(client, Delta)
        assert client.states["strategies"] == {"a": {"n": 1, "m": 3}, "b": {"n": 0, "m": 0}}


async def test_a_restart_costs_no_event_and_repeats_none(fund: Fund) -> None:
    await fund.start()
    fund.hub.publish_event("journal", 1, 1)
    async with StatusClient(fund.url, topics=["journal", "alerts"]) as client:
        assert (await next_of(client, Event)).seq == 1
        fund.scope.cancel()
        hub = Hub()
        for seq in (1, 2, 3):
            hub.publish_event("journal", seq, seq)
        hub.publish_event("alerts", 1, ALERT)
        await fund.start(hub)
        messages: list[ServerMessage] = [await anext(client) for _ in range(7)]
        resumed = [message for message in messages if isinstance(message, Resumed)]
        assert {message.topic: message.from_seq for message in resumed} == {
            "journal": 2,
            "alerts": 1,
        }
        events = [(one.topic, one.seq) for one in messages if isinstance(one, Event)]
        assert sorted(events) == [("alerts", 1), ("journal", 2), ("journal", 3)]
        assert client.connections == 2


@pytest.mark.parametrize("backlog", [0, 1])
async def test_an_event_of_the_time_without_a_connection_is_given_whatever_the_backlog(
    fund: Fund, backlog: int
) -> None:
    hub = Hub()
    for seq in (1, 2, 3):
        hub.publish_event("journal", seq, seq)
    await fund.start(hub)
    async with StatusClient(fund.url, topics=["journal"], backlog=backlog) as client:
        assert (await next_of(client, Welcome)).since == {"journal": 3 - backlog}
        fund.scope.cancel()
        hub.publish_event("journal", 4, 4)
        await fund.start(hub)
        given = [(await next_of(client, Event)).seq for _ in range(1 + backlog)]
        assert given == [3, 4][1 - backlog :]


async def test_a_client_without_backlog_is_told_of_the_gap(fund: Fund) -> None:
    await fund.start()
    async with StatusClient(fund.url, topics=["journal"], backlog=0) as client:
        await next_of(client, Welcome)
        fund.scope.cancel()
        hub = Hub()
        hub.begin_events("journal", 5)
        await fund.start(hub)
        assert await next_of(client, Gap) == Gap("journal", 1, 5)


async def test_another_database_begins_anew(fund: Fund) -> None:
    await fund.start()
    fund.hub.publish_state("fund", {"nav": "1"})
    fund.hub.publish_event("journal", 9, 9)
    async with StatusClient(fund.url, topics=["fund", "journal"]) as client:
        await next_of(client, Event)
        fund.scope.cancel()
        hub = Hub()
        hub.publish_event("journal", 1, 1)
        await fund.start(hub, epoch="e2")
        assert (await next_of(client, Welcome)).epoch == "e2"
        assert client.states == {}
        assert (await next_of(client, Event)).seq == 1


async def test_a_gap_is_given_once(fund: Fund) -> None:
    await fund.start()
    fund.hub.publish_event("journal", 1, 1)
    async with StatusClient(fund.url, topics=["journal"]) as client:
        await next_of(client, Event)
        for _ in range(2):
            fund.scope.cancel()
            hub = Hub(ring_size=2)
            for seq in range(1, 6):
                hub.publish_event("journal", seq, seq)
            await fund.start(hub)
            await next_of(client, Resumed)
            if client.connections == 2:
                assert await next_of(client, Gap) == Gap("journal", 2, 3)
                assert [(await next_of(client, Event)).seq for _ in range(2)] == [4, 5]


async def test_a_wrong_token_is_final(fund: Fund) -> None:
    await fund.start(token="secret")
    async with StatusClient(fund.url, token="wrong") as client:
        with pytest.raises(StatusClosed) as closed:
            await next_of(client, Welcome)
        assert closed.value.code == 4401
        with pytest.raises(StopAsyncIteration):
            await anext(client)
        assert not client.connected


async def test_changed_fields_of_no_record_end_the_stream(nursery: trio.Nursery) -> None:
    async def handler(request: WebSocketRequest) -> None:
        websocket = await request.accept(subprotocol=SUBPROTOCOL_JSON)
        await websocket.get_message()
        await websocket.send_message(encode(Delta("fund", 1, "nav", "5")).decode())
        await websocket.send_message(encode(Patch("fund", 2, "nav", {"x": 1})).decode())
        await websocket.aclose()

    server = await nursery.start(
        partial(serve_websocket, handler, "127.0.0.1", 0, ssl_context=None)
    )
    async with StatusClient(f"ws://127.0.0.1:{server.port}/ws") as client:
        with pytest.raises(StatusClosed, match="fields of 'nav', which is no record") as closed:
            await next_of(client, Patch)
    assert closed.value.code == 4400
    nursery.cancel_scope.cancel()


async def test_a_server_that_is_not_there_yet_is_awaited(fund: Fund) -> None:
    # The port is held, and no server answers yet.
    async with StatusClient(fund.url, topics=["fund"]) as client:
        await trio.sleep(0.05)
        await fund.start()
        assert isinstance(await next_of(client, Welcome), Welcome)


async def test_the_callers_own_error_is_raised_as_it_is(fund: Fund) -> None:
    await fund.start()

    async def body() -> None:
        async with StatusClient(fund.url) as client:
            await next_of(client, Welcome)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await body()


async def test_leaving_ends_the_connection(fund: Fund) -> None:
    await fund.start()
    async with StatusClient(fund.url) as client:
        await next_of(client, Welcome)
        assert client.connected
    assert not client.connected
    while fund.hub.clients:
        await trio.lowlevel.checkpoint()


def test_the_wait_grows_to_fifteen_seconds_and_is_half_random() -> None:
    rng = random.Random(1)
    for attempt, most in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 15), (500, 15)]:
        waits = [retry_s(attempt, rng) for _ in range(100)]
        assert most / 2 <= min(waits) < max(waits) <= most


def test_a_url_of_another_form_is_refused_at_once() -> None:
    with pytest.raises(ConfigError):
        StatusClient("http://127.0.0.1/")


def test_messages_change_a_copy_of_the_state() -> None:
    before = {"a": {"x": 1}, "b": 2}
    assert merged(before, Delta("t", 1, "b", None)) == {"a": {"x": 1}}
    assert merged(before, Patch("t", 1, "a", {"y": 3})) == {"a": {"x": 1, "y": 3}, "b": 2}
    assert merged(before, Patch("t", 1, "a", {"x": None})) == {"a": {}, "b": 2}
    assert merged(before, Snapshot("t", 1, {})) == {}
    with pytest.raises(BadMessage, match="fields of 'b', which is no record"):
        merged(before, Patch("t", 1, "b", {"x": 1}))
    assert before == {"a": {"x": 1}, "b": 2}
