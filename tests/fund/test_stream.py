"""The stream of a fund, from its parts to a client: every topic, restarts, the page's answers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fundops import StatusClient, page
from fundops.testing import FakeController, VirtualFund, virtual_fund
from fundops.wire.controller import FeedStatus, StrategyStatus
from fundops.wire.stream import following
from fundops.wire.stream.client import open_status
from fundops.wire.stream.protocol import (
    Delta,
    Event,
    Get,
    Heartbeat,
    Patch,
    Series,
    ServerMessage,
    Snapshot,
    encode,
)
from fundops.wire.stream.records import (
    EVENTS,
    STATES,
    Attention,
    Fund,
    PromotionFull,
    RestartEvent,
)
from fundops.wire.stream.site import content_security_policy

ALL: dict[str, Any] = {
    "ledger_enabled": True,
    "promotion_enabled": True,
    "self_healing_enabled": True,
    "alert_log": True,
    "status_port": 0,
}
PATIENCE_S = 20.0


def running(name: str = "s") -> StrategyStatus:
    return StrategyStatus(name, "running", equity=1_000, allocated=1_000)


async def url_of(world: VirtualFund) -> str:
    return f"ws://127.0.0.1:{await world.fund.status_port()}/ws"


async def client_of(world: VirtualFund, *topics: str) -> StatusClient:
    url = await url_of(world)
    return StatusClient(url, token=world.fund.status_token, topics=topics or None)


async def until(client: StatusClient, found: Callable[[StatusClient, ServerMessage], bool]) -> None:
    """Read until it is so."""
    with trio.fail_after(PATIENCE_S):
        async for message in client:
            if found(client, message):
                return


async def test_every_topic_is_made_of_its_record() -> None:
    engine = FakeController(running("a"), running("b"))
    engine.feed_statuses = [FeedStatus("prices", 1)]
    async with virtual_fund(engine, **ALL) as world:
        await world.fund.promotion.register("a")
        await world.tick()
        engine.set("b", state="failed", retryable=False)
        for _ in range(12):
            await world.advance(1)
        events: dict[str, Any] = {}

        def complete(client: StatusClient, message: ServerMessage) -> bool:
            if isinstance(message, Event):
                events[message.topic] = message.data
            filled = {topic for topic, state in client.states.items() if state}
            if "breaker:b" not in client.states.get("attention", {}):
                return False
            return filled >= {*STATES} and {"alerts", "journal", "recovery_events"} <= events.keys()

        async with await client_of(world) as client:
            await until(client, complete)
            for topic in STATES.keys() - {"fund"}:
                for key in client.states[topic]:
                    assert client.record(topic, key) is not None
            fund = client.fund()
            assert isinstance(fund, Fund)
            assert (fund.name, fund.currency, fund.clock) == ("fund", "USD", "driven")
            assert (fund.kill.state, fund.storage.state) == ("OFF", "ok")
            assert client.record("recovery", "b").breaker_open
            assert client.record("promotion", "a").stage == "paper"
            assert client.record("attention", "breaker:b").command.startswith("fundops recovery")
            assert "subsystems/ledger" in client.states["actors"]
            assert client.states["channels"]["log"]["state"] == "ok"
        for topic, data in events.items():
            assert isinstance(data, EVENTS[topic])


async def test_the_kill_switch_is_at_the_client_without_a_tick() -> None:
    async with virtual_fund(FakeController(running()), **ALL) as world:
        await world.tick()
        async with await client_of(world, "fund", "attention") as client:
            await until(client, lambda found, _: "kill" in found.states.get("fund", {}))
            begun = trio.current_time()
            await world.fund.kill_switch.engage(reason="margin call", by="ann")

            def told(found: StatusClient, _: ServerMessage) -> bool:
                return "kill_switch" in found.states.get("attention", {})

            await until(client, told)
            assert trio.current_time() - begun < 1
            assert client.states["fund"]["kill"]["state"] != "OFF"
            row = client.record("attention", "kill_switch")
            assert isinstance(row, Attention)
            assert "margin call" in row.why


@pytest.mark.parametrize("actor", ["persistence", "status"])
async def test_a_client_that_was_away_ends_with_the_events_of_one_that_was_not(
    actor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "RETRY_MIN_S", 0.05)
    durable = ("alerts", "journal", "promotions", "recovery_events")
    async with virtual_fund(FakeController(running("a")), **ALL) as world:
        await world.tick()
        await world.fund.ledger.deposit(1)
        seen: dict[str, list[tuple[str, int]]] = {"stayed": [], "away": []}

        async def read(name: str, client: StatusClient, last: int) -> None:
            def collected(_: StatusClient, message: ServerMessage) -> bool:
                if isinstance(message, Event):
                    seen[name].append((message.topic, message.seq))
                return ("journal", last) in seen[name]

            await until(client, collected)

        async with await client_of(world, *durable) as away:
            await read("away", away, 2)
            world.fund.drill(actor)  # its connection ends with the life of the status actor
            for number in range(3, 8):
                await deposit(world, number)
            await read("away", away, 7)
            assert away.connections == 2
            await world.tick()
            await drained(away, seen["away"])
            async with await client_of(world, *durable) as stayed:
                await read("stayed", stayed, 7)
                await drained(stayed, seen["stayed"])
            await drained(away, seen["away"])
        assert len(seen["away"]) == len(set(seen["away"])), "no event came twice"
        assert sorted(seen["away"]) == sorted(seen["stayed"])
        for topic in durable:
            numbers = [seq for name, seq in seen["away"] if name == topic]
            assert numbers == sorted(numbers)


async def drained(client: StatusClient, seen: list[tuple[str, int]]) -> None:
    def beat(_: StatusClient, message: ServerMessage) -> bool:
        if isinstance(message, Event):
            seen.append((message.topic, message.seq))
        return isinstance(message, Heartbeat)

    await until(client, beat)


async def deposit(world: VirtualFund, number: int) -> None:
    """Book it, however often the ledger restarts meanwhile."""
    with trio.fail_after(PATIENCE_S):
        while True:
            try:
                await world.fund.ledger.deposit(1, key=f"deposit:{number}")
            except Exception:  # noqa: BLE001  the tree restarts: the key makes it one deposit
                await trio.sleep(0.02)
            else:
                return


async def test_the_nav_of_the_sessions_is_a_series() -> None:
    async with virtual_fund(FakeController(running()), **ALL) as world:
        for _ in range(3):
            await world.advance(86_400, step_s=3_600)
            await world.tick()
        samples = await world.fund.nav_history()
        async with open_status(
            await url_of(world), token=world.fund.status_token, topics=[]
        ) as raw:
            await anext(raw)
            await raw._websocket.send_message(encode(Get("nav")).decode())  # type: ignore[attr-defined]
            with trio.fail_after(PATIENCE_S):
                async for message in raw:
                    if isinstance(message, Series):
                        break
        assert isinstance(message, Series)
        assert message.at_us == tuple(sample.at_us for sample in reversed(samples))
        assert len(message.nav) == len(message.drawdown_pct) == len(samples) > 0


async def test_full_records_come_by_name() -> None:
    async with virtual_fund(FakeController(running("a")), **ALL) as world:
        await world.fund.promotion.register("a")
        await world.tick()
        async with open_status(
            await url_of(world), token=world.fund.status_token, topics=["promotion"]
        ) as raw:
            await anext(raw)
            await raw._websocket.send_message(  # type: ignore[attr-defined]
                '{"t":"sub","keys":{"promotion":["a"]}}'
            )
            with trio.fail_after(PATIENCE_S):
                async for message in raw:
                    if isinstance(message, Delta) and "criteria" in (message.value or {}):
                        break
        assert isinstance(message, Delta)
        full = msgspec.convert(message.value, PromotionFull)
        assert len(full.criteria) == len(full.segments)
        assert full.last_move is not None
        assert full.last_move.kind == "register"


async def test_a_crash_is_an_event_of_the_process() -> None:
    async with virtual_fund(FakeController(running()), **ALL) as world:
        await world.tick()
        world.fund.drill("ledger")
        await wait_all_tasks_blocked()
        found: list[Any] = []

        def crashed(_: StatusClient, message: ServerMessage) -> bool:
            if isinstance(message, Event):
                found.append(message.data)
            return bool(found)

        async with await client_of(world, "restarts") as client:
            await until(client, crashed)
        assert isinstance(found[0], RestartEvent)
        assert (found[0].actor, found[0].epoch) == ("ledger", 1)


async def test_deliveries_of_alerts_are_told() -> None:
    async with virtual_fund(FakeController(running()), **ALL) as world:
        await world.tick()
        states: list[tuple[int, str]] = []

        def delivered(_: StatusClient, message: ServerMessage) -> bool:
            if isinstance(message, Event):
                states.append((message.data.alert_id, message.data.state))
            return any(state == "DELIVERED" for _, state in states)

        async with await client_of(world, "deliveries") as client:
            await world.fund.alerts.test()
            await world.fund.kill_switch.engage(reason="x", by="ann")
            await until(client, delivered)


async def http(world: VirtualFund, path: str, *headers: str) -> tuple[int, bytes]:
    stream = await trio.open_tcp_stream("127.0.0.1", await world.fund.status_port())
    named = any(header.lower().startswith("host:") for header in headers)
    host = () if named else ("Host: localhost",)
    lines = [f"GET {path} HTTP/1.1", *host, "Connection: close", *headers]
    async with stream:
        await stream.send_all(("\r\n".join(lines) + "\r\n\r\n").encode())
        data = b""
        with trio.fail_after(PATIENCE_S):
            while part := await stream.receive_some():
                data += part
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def until_ready(world: VirtualFund) -> None:
    with trio.fail_after(PATIENCE_S):
        for wait_s in (0.02,) * 1_000:
            if (await http(world, "/readyz"))[0] == 200:
                return
            await trio.sleep(wait_s)


async def test_a_fund_is_ready_when_its_parts_are_and_the_switch_does_not_matter() -> None:
    async with virtual_fund(FakeController(running()), **ALL) as world:
        await world.tick()
        await world.fund.kill_switch.engage(reason="x", by="ann")
        await until_ready(world)
        _, body = await http(world, "/readyz")
        found = msgspec.json.decode(body)
        assert found["ready"] is True
        assert found["problems"] == []
        assert found["storage"] == "ok"
        assert found["kill_switch"] != "OFF"
        assert found["actors"]["subsystems/ledger"] == "running"
        assert (await http(world, "/healthz"))[0] == 200


async def test_a_fund_whose_ticks_stopped_is_not_ready() -> None:
    async with virtual_fund(
        FakeController(running()), tick_interval_s=3600.0, lease_s=7200.0, status_port=0
    ) as world:
        await until_ready(world)
        world.clock.advance(3 * 3600 + 1)
        status, body = await http(world, "/readyz")
        assert status == 503
        assert b"the last tick is 10801 s old" in body


async def test_the_page_is_served_with_a_policy_for_its_own_script() -> None:
    async with virtual_fund(FakeController(running()), **ALL) as world:
        status, body = await http(world, "/")
        assert (status, body) == (200, page.html())
        policy = content_security_policy(body, "localhost")
        assert "script-src 'sha256-" in policy
        assert "style-src 'sha256-" in policy


async def test_the_schema_needs_the_token() -> None:
    async with virtual_fund(FakeController(running()), **ALL) as world:
        assert (await http(world, "/schema.json"))[0] == 401
        bearer = f"Authorization: Bearer {world.fund.status_token}"
        status, body = await http(world, "/schema.json", bearer)
        assert status == 200
        assert b"fund.status.v1" in body


async def test_a_replay_sends_states_once_a_second_and_not_at_every_tick() -> None:
    async with virtual_fund(FakeController(running()), **ALL) as world:
        await world.tick()
        counted = 0
        async with await client_of(world, "fund") as client:
            await until(client, lambda found, _: bool(found.states.get("fund")))
            begun = trio.current_time()
            for _ in range(300):
                world.clock.advance(1)
                await world.tick()
            taken_s = trio.current_time() - begun

            def settled(found: StatusClient, message: ServerMessage) -> bool:
                nonlocal counted
                counted += isinstance(message, Snapshot | Delta | Patch) and message.topic == "fund"
                return bool(found.states["fund"]["ticks"] == 301)

            await until(client, settled)
        fields = len(Fund.__struct_fields__)
        assert counted <= fields * (taken_s + 3)


async def test_a_proxy_offers_the_port_under_its_own_names_and_no_other() -> None:
    async with virtual_fund(status_hosts=("fund.example",), **ALL) as world:
        page_of = "Host: fund.example"
        assert (await http(world, "/", page_of))[0] == 200
        assert (await http(world, "/", page_of, "Origin: https://fund.example"))[0] == 200
        assert (await http(world, "/", page_of, "Origin: https://evil.example"))[0] == 403
        assert (await http(world, "/", "Host: evil.example"))[0] == 421
        assert (await http(world, "/"))[0] == 200


async def test_the_port_is_bound_to_the_address_that_was_given() -> None:
    async with virtual_fund(status_host="127.0.0.2", **ALL) as world:
        port = await world.fund.status_port()
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", port)
        stream = await trio.open_tcp_stream("127.0.0.2", port)
        await stream.aclose()


async def test_the_port_may_have_an_address_of_ipv6() -> None:
    async with virtual_fund(status_host="::1", **ALL) as world:
        port = await world.fund.status_port()
        url = f"ws://[::1]:{port}/ws"
        async with StatusClient(url, token=world.fund.status_token, topics=["fund"]) as client:
            await until(client, lambda found, _: "kill" in found.states.get("fund", {}))


async def test_a_head_has_the_headers_of_the_page_and_no_body() -> None:
    async with virtual_fund(**ALL) as world:
        status, page = await http(world, "/")
        assert status == 200
        async with await trio.open_tcp_stream(
            "127.0.0.1", await world.fund.status_port()
        ) as stream:
            head = "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n"
            asks = head + head.replace("HEAD /", "GET /healthz").replace(
                "\r\n\r\n", "\r\nConnection: close\r\n\r\n"
            )
            await stream.send_all(asks.encode())
            answer = b""
            with trio.fail_after(PATIENCE_S):
                async for part in stream:
                    answer += part
        first, second, third = answer.split(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 200 ")
        assert f"Content-Length: {len(page)}".encode() in first
        assert second.startswith(b"HTTP/1.1 200 ")
        assert third == b"ok\n"


async def test_a_client_follows_one_fund_over_its_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "RETRY_MIN_S", 0.05)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    seen: list[int] = []
    url = f"ws://127.0.0.1:{port}/ws"

    async def booked(client: StatusClient, last: int) -> None:
        def collected(_: StatusClient, message: ServerMessage) -> bool:
            if isinstance(message, Event):
                seen.append(message.seq)
            return seen[-1:] == [last]

        await until(client, collected)

    def opened() -> Any:
        settings: dict[str, Any] = {**ALL, "status_port": port, "status_token": "t"}
        return virtual_fund(FakeController(running("a")), db_path=tmp_path / "x.db", **settings)

    async with StatusClient(url, token="t", topics=["journal"]) as client:
        async with opened() as world:
            await world.fund.ledger.deposit(1)
            await booked(client, 2)
            epoch = client.epoch
        async with opened() as world:
            for _ in range(3):
                await world.fund.ledger.deposit(1)
            await booked(client, 5)
        assert client.epoch == epoch
        assert client.connections == 2
    assert seen == [1, 2, 3, 4, 5]


async def test_what_waits_keeps_its_instant_over_the_lives_of_the_status_actor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "RETRY_MIN_S", 0.05)
    engine = FakeController(running("a"), running("b"))
    async with virtual_fund(engine, **ALL) as world:
        for name in "ab":
            await world.fund.promotion.register(name)
        engine.set("a", state="failed", retryable=False)
        await world.tick()
        await world.fund.pause("b", by="ann", reason="news")
        keys = {"breaker:a", "paused:b"}
        async with await client_of(world, "attention", "recovery") as client:
            await until(
                client,
                lambda found, _: (
                    keys <= found.states.get("attention", {}).keys()
                    and bool(found.states.get("recovery"))
                ),
            )
            before = {key: client.record("attention", key).since_us for key in keys}
            assert client.record("recovery", "a").since_us == before["breaker:a"]
            await world.advance(3_600)
            world.fund.drill("status")
            await until(
                client,
                lambda found, message: (
                    found.connections == 2
                    and isinstance(message, Snapshot)
                    and keys <= found.states["attention"].keys()
                ),
            )
            assert {key: client.record("attention", key).since_us for key in keys} == before
