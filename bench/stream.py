"""How many messages does the status stream deliver to its clients, against stock websocket servers?

A delivery is one message of about 1 KB at one client; a hundred clients read in another process.
STOCK is trio-websocket with a loop of `send_message`, and `websockets.broadcast` is the peer on
asyncio. All send the same bytes. The last case publishes eight messages at a time, which shows the
saving of a batch. Rates are of wall time, ratios of the server's CPU time.

The latency is that of 500 messages a second with three more clients that read nothing; it is the
time from the publishing to the reading in the other process. A healthy client that has a
gap, or lacks a message, ends the bench. The bytes are those of a fund with 40
strategies: of a first connection, and of one tick.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import trio
import trio_websocket

from fundops.wire.stream.frames import frame_of
from fundops.wire.stream.hub import RING_SIZE, Cursor, Hub
from fundops.wire.stream.limits import ServerLimits
from fundops.wire.stream.protocol import Event, Welcome, encode
from fundops.wire.stream.records import Strategy
from fundops.wire.stream.server import serve_status

from .harness import Case, Figure, Result, Stopwatch, machine, measure, percentile

__all__ = ["QUESTION", "STOCK", "run"]

QUESTION = (
    "How many messages does the status stream deliver to 100 clients, "
    "against a loop of send_message (STOCK; ratio above 1 is cheaper)?"
)
STOCK = "STOCK: trio-websocket, send_message"
BROADCAST = "websockets.broadcast"
OURS, BATCH = "stream, one by one", "stream, 8 at a time"

CLIENTS = 100
REPETITIONS = 5
BODY = "x" * 950
TOPIC = "alerts"
STALLED = 3
LATENCY_CLIENTS = 20  # of the latency's run that are measured
LATENCY_RATE_PER_S = 500
DRAIN_S = 20.0  # for the readers to take what is on its way
STRATEGIES = 40


def run(scale: float = 1.0) -> Result:
    """Run the bench; `scale` 1 takes about 40 s."""
    clients = max(4, round(CLIENTS * min(1.0, 10 * scale)))
    messages = max(16, round(1_600 * scale))
    cases = [
        Case(STOCK, messages * clients, partial(_trio, _stock, clients, 1)),
        Case(BROADCAST, messages * clients, partial(_asyncio, clients)),
        Case(OURS, messages * clients, partial(_trio, _ours, clients, 1)),
        Case(BATCH, messages * clients, partial(_trio, _ours, clients, 8)),
    ]
    rows = measure(cases, repetitions=REPETITIONS if scale >= 1 else 1, baseline=STOCK)
    by_name = {row.name: row for row in rows}
    figures = [
        Figure(
            f"{name} over {BROADCAST}",
            by_name[BROADCAST].cpu_us_per_message / by_name[name].cpu_us_per_message,
            "times",
        )
        for name in (OURS, BATCH)
    ]
    frames_per_s = _frames_per_cpu_s(clients, messages)
    figures.append(Figure("frames of 100 B, 8 per write", frames_per_s, "per CPU second"))
    figures += _latency(clients, seconds=max(0.2, 5 * scale))
    figures.append(Figure("memory per client", _memory_kib(max(20, clients)), "KiB"))
    figures += _bytes()
    return Result(QUESTION, machine(), rows, (), tuple(figures))


# -- the clients


class _Listeners:
    """The clients in their process; calls wait in a thread."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def say(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()


@contextmanager
def _listeners(port: int, clients: int, stalled: int = 0, probes: int = 0) -> Iterator[_Listeners]:
    numbers = map(str, (port, clients, stalled, probes))
    command = [sys.executable, "-m", "fundops.bench.listeners", *numbers]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield _Listeners(process)
        assert process.stdin is not None
        process.stdin.close()


def _payload(number: int, body: str = BODY) -> bytes:
    return encode(Event(TOPIC, number, {"title": body, "ns": time.monotonic_ns()}))


def _data(body: str = BODY) -> dict[str, Any]:
    return {"title": body, "ns": time.monotonic_ns()}


# -- the servers


Publish = Callable[[int], Awaitable[int]]  # sends so many messages; the bytes for one client


def _trio(
    server: Callable[..., Any], clients: int, burst: int, deliveries: int, watch: Stopwatch
) -> int:
    async def main() -> int:
        async with server(burst) as (port, publish):
            return await _timed(port, clients, publish, deliveries // clients, watch)

    return trio.run(main)


async def _timed(port: int, clients: int, publish: Publish, messages: int, watch: Stopwatch) -> int:
    with _listeners(port, clients) as listeners:
        await trio.to_thread.run_sync(listeners.line)
        await trio.sleep(0.05)  # the server is done with the handshakes
        with watch:
            sent = await publish(messages)
            listeners.say(f"count {sent * clients}")
            await trio.to_thread.run_sync(listeners.line)
    return messages * clients


@asynccontextmanager
async def _ours(
    burst: int, body: str = BODY, hub: Hub | None = None, **limits: Any
) -> AsyncIterator[tuple[int, Publish]]:
    hub = hub or Hub()
    settings: dict[str, Any] = {"heartbeat_s": 600.0, "close_s": 0.1, **limits}
    async with trio.open_nursery() as nursery:
        port = await nursery.start(
            partial(
                serve_status,
                hub,
                0,
                epoch="bench",
                now_us=lambda: 0,
                limits=ServerLimits(**settings),
            )
        )

        async def publish(messages: int) -> int:
            sent, first = 0, hub.newest_seq(TOPIC)
            for number in range(first + 1, first + messages + 1):
                hub.publish_event(TOPIC, number, _data(body))
                sent += len(frame_of(_payload(number, body)))
                if number % burst == 0:
                    await _taken(hub, number)
            await _taken(hub, first + messages)
            return sent

        yield port, publish
        nursery.cancel_scope.cancel()


async def _taken(hub: Hub, seq: int) -> None:
    """Let the loop run until every client was given the message."""
    while not all(_seq(cursor) >= seq for cursor in hub._cursors):
        await trio.lowlevel.checkpoint()


def _seq(cursor: Cursor) -> int:
    return cursor.seqs[TOPIC] or 0


@asynccontextmanager
async def _stock(burst: int) -> AsyncIterator[tuple[int, Publish]]:
    connections: list[trio_websocket.WebSocketConnection] = []

    async def handler(request: trio_websocket.WebSocketRequest) -> None:
        connection = await request.accept()
        await connection.get_message()
        await connection.send_message(encode(Welcome("bench", "", 0, (), {})).decode())
        connections.append(connection)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            partial(trio_websocket.serve_websocket, handler, "127.0.0.1", 0, ssl_context=None)
        )

        async def publish(messages: int) -> int:
            sent = 0
            for number in range(1, messages + 1):
                text = _payload(number)
                for connection in connections:
                    await connection.send_message(text.decode())
                sent += len(frame_of(text))
            return sent

        yield server.port, publish
        nursery.cancel_scope.cancel()


def _asyncio(clients: int, deliveries: int, watch: Stopwatch) -> int:
    import websockets

    async def main() -> int:
        ready: set[Any] = set()

        async def handler(connection: Any) -> None:
            await connection.recv()
            await connection.send(encode(Welcome("bench", "", 0, (), {})).decode())
            ready.add(connection)
            await connection.wait_closed()

        messages = deliveries // clients
        async with websockets.serve(handler, "127.0.0.1", 0, compression=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            with _listeners(port, clients) as listeners:
                await asyncio.to_thread(listeners.line)
                await asyncio.sleep(0.05)
                with watch:
                    sent = 0
                    for number in range(1, messages + 1):
                        text = _payload(number)
                        websockets.broadcast(ready, text.decode())
                        sent += len(frame_of(text))
                        await asyncio.sleep(0)
                    listeners.say(f"count {sent * clients}")
                    await asyncio.to_thread(listeners.line)
        return messages * clients

    return asyncio.run(main())


# -- figures


def _frames_per_cpu_s(clients: int, messages: int) -> float:
    """Small frames, which show the cost of a frame and not of its bytes."""

    async def main() -> float:
        async with _ours(8, "x" * 20) as (port, publish):
            watch = Stopwatch()
            await _timed(port, clients, publish, messages, watch)
            return messages * clients / max(watch.cpu_s, 1e-9)

    return trio.run(main)


def _latency(clients: int, seconds: float) -> list[Figure]:
    async def main() -> list[float]:
        hub = Hub()
        async with _ours(1, hub=hub, send_s=600.0) as (port, _):
            with _listeners(
                port, clients + STALLED, STALLED, min(clients, LATENCY_CLIENTS)
            ) as listeners:
                await trio.to_thread.run_sync(listeners.line)
                begun = trio.current_time()
                for number in range(round(LATENCY_RATE_PER_S * seconds)):
                    await trio.sleep_until(begun + number / LATENCY_RATE_PER_S)
                    hub.publish_event(TOPIC, hub.newest_seq(TOPIC) + 1, _data())
                published = round(LATENCY_RATE_PER_S * seconds)
                return await _ages_us(listeners, published * min(clients, LATENCY_CLIENTS))

    ages_us = trio.run(main)
    return [
        Figure(
            f"latency at {LATENCY_RATE_PER_S}/s, p{percent}",
            percentile(ages_us, percent) / 1e3,
            "ms",
        )
        for percent in (50, 99)
    ] + [Figure("messages of the latency", len(ages_us), "read")]


async def _ages_us(listeners: _Listeners, expected: int) -> list[float]:
    """The ages of the messages that the healthy clients were given, which are all of them.

    Raises: `RuntimeError` when a healthy client has a gap, or lacks a message in the end.
    """
    found: list[float] = []
    with trio.move_on_after(DRAIN_S):
        while len(found) < expected:
            await trio.sleep(0.1)
            listeners.say("latency")
            ages, gaps = json.loads(await trio.to_thread.run_sync(listeners.line))
            if gaps:
                raise RuntimeError(f"healthy clients were left behind: {gaps} gaps")
            found += ages
    if len(found) != expected:
        raise RuntimeError(f"healthy clients were given {len(found)} messages of {expected}")
    return found


def _memory_kib(clients: int) -> float:
    """Growth of the resident memory for each client that connects."""

    async def main() -> float:
        async with _ours(1) as (port, _):
            with _listeners(port, 5) as warm:
                await trio.to_thread.run_sync(warm.line)
            before = _resident_bytes()
            with _listeners(port, clients) as listeners:
                await trio.to_thread.run_sync(listeners.line)
                return (_resident_bytes() - before) / clients / 1_024

    return trio.run(main)


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:  # not on Linux
        return 0


def _bytes() -> list[Figure]:
    """The bytes for a client of a fund with 40 strategies."""
    hub = Hub()
    entry = {"seq": 1, "recorded_us": 1, "day": "2026-01-02", "kind": "fill", "legs": []}
    for seq in range(1, RING_SIZE + 1):
        hub.publish_event("journal", seq, entry)
    hub.publish_state("strategies", _strategies(0))
    sizes = {}
    for name, backlog in (("the whole ring", None), ("50 events a topic", 50)):
        cursor = hub.attach(["strategies", "journal"], backlog=backlog)
        sizes[name] = sum(map(len, hub.pending(cursor)))
    cursor = hub.attach(["strategies"])
    hub.pending(cursor)
    hub.publish_state("strategies", _strategies(1))
    changes = [change.whole() for change in hub._states["strategies"].changes.values()]
    patches = hub.pending(cursor)
    figures = [
        Figure(f"first connection, {name}", size / 1e3, "KB") for name, size in sizes.items()
    ]
    figures.append(Figure("a tick of 40 strategies, whole records", sum(map(len, changes)), "B"))
    figures.append(Figure("a tick of 40 strategies, patches", sum(map(len, patches)), "B"))
    return figures


def _strategies(tick: int) -> dict[str, Any]:
    """Two figures of each strategy change with the tick."""
    record: dict[str, Any] = {
        "state": "running",
        "stage": "shadow",
        "mode": "shadow",
        "real": False,
        "pnl": "5420.89154177",
        "allocated": "92307.69230769",
        "realized_pnl": "5420.89154177",
        "drawdown_pct": 1.35,
        "n_trades": 14,
        "n_wins": 9,
        "paused": False,
        "paused_by": "",
        "paused_why": "",
        "counters_restarted": False,
        "retryable": True,
    }
    return {
        f"strategy_{number}": Strategy(
            name=f"strategy_{number}",
            equity=f"{100_000 + number + tick}.25",
            unrealized_pnl=f"{number + tick}.25",
            **record,
        )
        for number in range(STRATEGIES)
    }
