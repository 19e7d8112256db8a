"""The server over real loopback sockets: good clients are served, and bad ones harm no other."""

import socket
import struct
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec
import pytest
import trio
import trio.lowlevel
import trio.testing
import websockets
import websockets.sync.client
from websockets.frames import Frame, Opcode

from fundops.runtime import ConfigError
from fundops.wire.alert import Level
from fundops.wire.errors import StatusClosed
from fundops.wire.stream.client import open_status
from fundops.wire.stream.frames import FrameStream
from fundops.wire.stream.hub import Hub
from fundops.wire.stream.limits import ServerLimits
from fundops.wire.stream.protocol import (
    SUBPROTOCOL_JSON,
    TOPICS,
    Bye,
    CloseCode,
    Delta,
    Error,
    Event,
    Gap,
    Get,
    Heartbeat,
    Resumed,
    Series,
    ServerMessage,
    Snapshot,
    Verdict,
    Welcome,
    decode_server,
)
from fundops.wire.stream.server import (
    NOTICES_MAX,
    REQUESTS_MAX,
    ServerStatistics,
    _Server,
    choose_subprotocol,
    last_message,
    serve_status,
)
from fundops.wire.stream.site import Readiness, Site

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
# No test takes near this long; a hang is to be a failure with a traceback.
PATIENCE_S = 10.0
QUIET_S = 600.0  # no heartbeat comes between the messages of a test
M = TypeVar("M")


class Served(NamedTuple):
    """A server that runs, from outside and inside."""

    port: int
    hub: Hub
    statistics: ServerStatistics
    stop: Callable[[], None]

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"


@asynccontextmanager
async def serving(
    token: str | None = None,
    hub: Hub | None = None,
    site: Site | None = None,
    series: Any = None,
    tick_age_s: Callable[[], float | None] = lambda: None,
    **limits: Any,
) -> AsyncIterator[Served]:
    hub, statistics = hub or Hub(wall_us=lambda: 0), ServerStatistics()
    serve = partial(
        serve_status,
        hub,
        0,
        token=token,
        epoch="e1",
        now_us=lambda: 42,
        limits=ServerLimits(**{"close_s": 0.2, "heartbeat_s": QUIET_S} | limits),
        statistics=statistics,
        site=site or Site(),
        series=series,
        tick_age_s=tick_age_s,
    )
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def stoppable(*, task_status: trio.TaskStatus[int]) -> None:
                with scope:
                    await serve(task_status=task_status)

            port = await nursery.start(stoppable)
            yield Served(port, hub, statistics, scope.cancel)
            scope.cancel()


async def until(met: Callable[[], bool]) -> None:
    """Let the loop run until it is so; the test's own deadline is the limit."""
    while not met():
        await trio.lowlevel.checkpoint()


async def serves(served: Served) -> None:
    """The server still welcomes a new client; a busy machine may miss some handshakes' deadline."""
    welcomed = False
    while not welcomed:
        with trio.move_on_after(1):
            async with open_status(served.url, token="secret", topics=["fund"]) as messages:
                assert isinstance(await anext(messages), Welcome)
                assert isinstance(await anext(messages), Snapshot)
                welcomed = True


class Raw:
    """A client without a library: bytes on a socket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.data = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def send_frame(self, opcode: int, payload: bytes = b"", *, last: bool = True) -> None:
        await self.send(frame(opcode, payload, last=last))

    async def rest(self) -> bytes:
        """Everything until the server ends the connection, be it with a reset."""
        with suppress(trio.BrokenResourceError):
            while data := await self.stream.receive_some():
                self.data += data
        return self.data

    async def take(self, count: int) -> bytes:
        while len(self.data) < count:
            data = await self.stream.receive_some()
            assert data, "the server ended the connection too early"
            self.data += data
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    async def next_frame(self) -> tuple[int, bytes]:
        first, second = await self.take(2)
        length = second & 0x7F
        if length >= 126:
            length = int.from_bytes(await self.take(2 if length == 126 else 8), "big")
        return first & 0x0F, await self.take(length)

    async def upgrade(self, *headers: str, path: str = "/ws") -> bytes:
        """Ask for the websocket; the answer is the head of the response."""
        await self.send(request(*headers, path=path))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await self.take(1)
        return head

    async def next_message(self, kind: type[M]) -> M:
        opcode, payload = await self.next_frame()
        assert opcode == TEXT
        message = decode_server(payload)
        assert isinstance(message, kind)
        return message

    async def closing(self) -> tuple[ServerMessage | None, int]:
        """The last message and the code of the close frame; other frames are passed over."""
        last = None
        while True:
            opcode, payload = await self.next_frame()
            if opcode == CLOSE:
                return last, int.from_bytes(payload[:2], "big")
            if opcode == TEXT:
                last = decode_server(payload)

    async def hello(self, text: str = '{"t":"hello","topics":["fund"]}') -> None:
        assert b"101" in (await self.upgrade()).partition(b"\r\n")[0]
        await self.send_frame(TEXT, text.encode())


def frame(opcode: int, payload: bytes = b"", *, last: bool = True) -> bytes:
    """A client's frame."""
    return Frame(Opcode(opcode), payload, fin=last).serialize(mask=True)


def request(*headers: str, path: str = "/ws") -> bytes:
    named = {line.partition(":")[0].lower() for line in headers}
    lines = [
        f"GET {path} HTTP/1.1",
        *(() if "host" in named else ("Host: localhost",)),
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@asynccontextmanager
async def raw(served: Served, *, receive_buffer: int | None = None) -> AsyncIterator[Raw]:
    sock = trio.socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await sock.connect(("127.0.0.1", served.port))
    async with trio.SocketStream(sock) as stream:
        yield Raw(stream)


# -- what a good client gets


async def test_a_client_is_welcomed_and_gets_snapshots_deltas_and_events() -> None:
    async with serving() as served:
        served.hub.publish_state("fund", {"nav": "100.00"})
        served.hub.publish_event("alerts", 7, {"title": "first"})
        async with open_status(served.url, topics=["fund", "alerts"]) as messages:
            assert await anext(messages) == Welcome(
                "fund.status.v1", "e1", 42, ("fund", "alerts"), {"alerts": 0}
            )
            assert await anext(messages) == Snapshot("fund", 1, {"nav": "100.00"})
            assert await anext(messages) == Event("alerts", 7, {"title": "first"})
            served.hub.publish_state("fund", {"nav": "101.00"})
            assert await anext(messages) == Delta("fund", 2, "nav", "101.00")
            served.hub.publish_event("alerts", 8, {"title": "second"})
            assert await anext(messages) == Event("alerts", 8, {"title": "second"})
        await until(lambda: not served.hub.clients)


async def test_without_a_wish_a_client_gets_all_topics() -> None:
    async with serving() as served, open_status(served.url) as messages:
        welcome = await anext(messages)
        assert isinstance(welcome, Welcome)
        assert welcome.topics == TOPICS


async def test_topics_the_server_does_not_know_are_missing_from_the_welcome() -> None:
    async with serving() as served, open_status(served.url, topics=["weather", "fund"]) as messages:
        welcome = await anext(messages)
        assert isinstance(welcome, Welcome)
        assert welcome.topics == ("fund",)


async def test_a_client_resumes_its_events_when_the_epoch_is_the_same() -> None:
    async with serving(hub=Hub(ring_size=2, wall_us=lambda: 0)) as served:
        for seq in range(1, 6):
            served.hub.publish_event("journal", seq, seq)
        async with open_status(
            served.url, topics=["journal"], epoch="e1", since={"journal": 4}
        ) as messages:
            await anext(messages)
            assert await anext(messages) == Resumed("journal", 5, 5)
            assert await anext(messages) == Event("journal", 5, 5)
        async with open_status(
            served.url, topics=["journal"], epoch="e1", since={"journal": 1}
        ) as messages:
            await anext(messages)
            assert await anext(messages) == Resumed("journal", 2, 5)
            assert await anext(messages) == Gap("journal", 2, 3)
        async with open_status(
            served.url, topics=["journal"], epoch="e0", since={"journal": 4}
        ) as messages:
            await anext(messages)
            assert await anext(messages) == Event("journal", 4, 4)


async def test_a_client_can_leave_out_the_quiet_alerts() -> None:
    async with serving() as served:
        served.hub.publish_event("alerts", 1, "quiet", level=Level.INFO)
        served.hub.publish_event("alerts", 2, "loud", level=Level.CRITICAL)
        async with open_status(served.url, topics=["alerts"], min_level=Level.WARNING) as messages:
            await anext(messages)
            assert await anext(messages) == Event("alerts", 2, "loud")


async def test_a_client_changes_its_topics_on_the_way() -> None:
    async with serving() as served, raw(served) as client:
        await client.hello()
        await client.next_message(Welcome)
        await client.next_message(Snapshot)
        await client.send_frame(TEXT, b'{"t":"sub","topics":["feeds","weather"]}')
        assert await client.next_message(Error) == Error(
            CloseCode.UNKNOWN_TOPIC, "unknown: weather"
        )
        assert await client.next_message(Snapshot) == Snapshot("feeds", 0, {})
        await client.send_frame(TEXT, b'{"t":"unsub","topics":["fund"]}')
        await client.send_frame(TEXT, b'{"t":"ping"}')
        assert await client.next_message(Heartbeat) == Heartbeat(42)
        served.hub.publish_state("fund", {"a": 1})
        served.hub.publish_state("feeds", {"b": 2})
        assert await client.next_message(Delta) == Delta("feeds", 1, "b", 2)


async def test_a_client_asks_for_full_records_by_name() -> None:
    async with serving() as served, raw(served) as client:
        brief = {"a": {"n": 1}, "b": {"n": 2}}
        served.hub.publish_state("promotion", brief, details={"a": {"n": 1, "x": 1}})
        await client.hello('{"t":"hello","topics":["promotion"]}')
        await client.next_message(Welcome)
        assert await client.next_message(Snapshot) == Snapshot("promotion", 3, brief)
        await client.send_frame(TEXT, b'{"t":"sub","keys":{"promotion":["a"],"fund":["b"]}}')
        assert await client.next_message(Error) == Error(CloseCode.UNKNOWN_TOPIC, "unknown: fund")
        assert await client.next_message(Delta) == Delta("promotion", 3, "a", {"n": 1, "x": 1})


async def test_a_series_is_answered_and_an_unknown_one_named() -> None:
    answer = Series("nav", "all", (1, 2), ("1.00", "2.00"), (0.0, 0.5))

    async def series(get: Get) -> Series | None:
        return answer if get.series == "nav" else None

    async with serving(series=series) as served, raw(served) as client:
        await client.hello('{"t":"hello","topics":[]}')
        await client.next_message(Welcome)
        await client.send_frame(TEXT, b'{"t":"get","series":"nav"}')
        assert await client.next_message(Series) == answer
        await client.send_frame(TEXT, b'{"t":"get","series":"weather"}')
        assert await client.next_message(Error) == Error(
            CloseCode.UNKNOWN_TOPIC, "no series 'weather' over 'all'"
        )


async def test_a_heartbeat_says_both_times_and_the_age_of_the_tick() -> None:
    hub = Hub(wall_us=lambda: 7)
    async with (
        serving(hub=hub, heartbeat_s=0.01, tick_age_s=lambda: 0.4) as served,
        open_status(served.url, topics=[]) as messages,
    ):
        await anext(messages)
        assert await anext(messages) == Heartbeat(42, 7, 0.4)


async def test_a_busy_client_gets_its_heartbeats_too() -> None:
    async with (
        serving(heartbeat_s=0.02) as served,
        open_status(served.url, topics=["fund"]) as messages,
    ):
        beats = 0
        number = 0
        while beats < 3:
            number += 1
            served.hub.publish_state("fund", {"n": number})
            beats += isinstance(await anext(messages), Heartbeat)


async def test_a_new_client_gets_fifty_events_unless_it_asks_for_more() -> None:
    async with serving() as served:
        for seq in range(1, 101):
            served.hub.publish_event("alerts", seq, seq)
        async with open_status(served.url, topics=["alerts"]) as messages:
            await anext(messages)
            assert await anext(messages) == Event("alerts", 51, 51)
        async with open_status(served.url, topics=["alerts"], backlog=1) as messages:
            await anext(messages)
            assert await anext(messages) == Event("alerts", 100, 100)


async def test_changes_of_one_moment_leave_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    send_now = FrameStream.send_now

    def counted(self: FrameStream, data: bytes) -> bool:
        writes.append(len(data))
        return send_now(self, data)

    async with serving() as served, open_status(served.url, topics=["fund", "alerts"]) as messages:
        await anext(messages)
        await anext(messages)
        await trio.testing.wait_all_tasks_blocked()
        monkeypatch.setattr(FrameStream, "send_now", counted)
        served.hub.publish_state("fund", {str(key): key for key in range(40)})
        for seq in range(1, 11):
            served.hub.publish_event("alerts", seq, seq)
        for _ in range(50):
            await anext(messages)
        assert len(writes) == 1


async def test_what_the_socket_does_not_take_at_once_follows_whole() -> None:
    size, count = 100_000, 40
    async with serving() as served, raw(served, receive_buffer=4_096) as client:
        await client.hello('{"t":"hello","topics":["alerts"]}')
        await client.next_message(Welcome)
        for seq in range(1, count + 1):
            served.hub.publish_event("alerts", seq, f"{seq:06}" + "x" * size)
            await trio.lowlevel.checkpoint()
        await client.send_frame(PING, b"still there")
        pongs = 0
        seen: list[int] = []
        while len(seen) < count or not pongs:
            opcode, payload = await client.next_frame()
            if opcode == PONG:
                pongs += 1
                continue
            assert opcode == TEXT
            event = decode_server(payload)
            assert isinstance(event, Event)
            seen.append(int(event.data[:6]))
        assert seen == list(range(1, count + 1))


async def test_a_page_that_fails_ends_only_its_own_request() -> None:
    def broken() -> bytes:
        raise OSError("no such file")

    async with serving(site=Site(page=broken)) as served:
        async with open_status(served.url, topics=[]) as messages, raw(served) as client:
            await anext(messages)
            await client.send(get("/"))
            assert await client.rest() == b""
        await serves(served)


async def test_a_series_that_takes_long_starves_no_other_client() -> None:
    never = trio.Event()

    async def series(_: Get) -> Series | None:
        await never.wait()
        return None

    async with serving(series=series) as served, raw(served) as asking:
        await asking.hello()
        await asking.next_message(Welcome)
        await asking.next_message(Snapshot)
        await asking.send_frame(TEXT, b'{"t":"get","series":"nav"}')
        served.hub.publish_state("fund", {"a": 1})
        assert await asking.next_message(Delta) == Delta("fund", 1, "a", 1)
        await serves(served)


async def test_the_library_sends_each_frame_of_its_own_in_one_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pieces: list[bytes] = []
    send_all = FrameStream.send_all

    async def kept(self: FrameStream, data: bytes) -> None:
        pieces.append(bytes(data))
        await send_all(self, data)

    monkeypatch.setattr(FrameStream, "send_all", kept)
    async with serving(ping_s=0.01, pong_s=PATIENCE_S) as served, raw(served) as client:
        await client.hello()
        await client.send_frame(PING, b"x")
        await until(lambda: len(pieces) >= 5)
    # The handshake, our batches, and whole pings, pongs and closes: so frames never mix.
    assert pieces[0].endswith(b"\r\n\r\n")
    for piece in pieces[1:]:
        if piece[0] & 0x0F != TEXT:
            assert piece[0] & 0x80
            assert len(piece) == 2 + piece[1]


async def test_silence_is_filled_with_heartbeats() -> None:
    async with serving(heartbeat_s=0.01) as served, open_status(served.url, topics=[]) as messages:
        await anext(messages)
        assert await anext(messages) == Heartbeat(42)
        assert await anext(messages) == Heartbeat(42)


async def test_a_client_that_answers_pings_stays() -> None:
    async with (
        serving(ping_s=0.01, pong_s=PATIENCE_S, messages_per_s=1_000) as served,
        raw(served) as client,
    ):
        await client.hello()
        for _ in range(2):
            await client.next_frame()
        for _ in range(3):
            opcode, payload = await client.next_frame()
            assert opcode == PING
            await client.send_frame(PONG, payload)
        served.hub.publish_state("fund", {"a": 1})
        while (await client.next_frame())[0] != TEXT:
            pass


async def test_the_websockets_library_reads_the_stream_too() -> None:
    def listen(url: str) -> list[Any]:
        with websockets.sync.client.connect(
            url,
            subprotocols=[websockets.Subprotocol(SUBPROTOCOL_JSON)],
            proxy=None,
            open_timeout=PATIENCE_S,
        ) as connection:
            assert connection.subprotocol == SUBPROTOCOL_JSON
            connection.send('{"t":"hello","token":"secret","topics":["fund","alerts"]}')
            return [msgspec.json.decode(connection.recv(PATIENCE_S)) for _ in range(5)]

    async with serving(token="secret") as served:
        served.hub.publish_state("fund", {"nav": "100.00"})
        served.hub.publish_event("alerts", 1, {"title": "first"})

        async def go_on() -> None:
            await until(lambda: bool(served.hub.clients))
            cursor = next(iter(served.hub._cursors))
            await until(lambda: cursor.seqs == {"fund": 1, "alerts": 1})
            served.hub.publish_state("fund", {"nav": "99.50", "halted": True})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(go_on)
            messages = await trio.to_thread.run_sync(listen, served.url)
    assert messages == [
        {
            "t": "welcome",
            "protocol": "fund.status.v1",
            "epoch": "e1",
            "server_time_us": 42,
            "topics": ["fund", "alerts"],
            "since": {"alerts": 0},
        },
        {"t": "snapshot", "topic": "fund", "seq": 1, "state": {"nav": "100.00"}},
        {"t": "event", "topic": "alerts", "seq": 1, "data": {"title": "first"}},
        {"t": "delta", "topic": "fund", "seq": 2, "key": "nav", "value": "99.50", "wall_us": 0},
        {"t": "delta", "topic": "fund", "seq": 3, "key": "halted", "value": True, "wall_us": 0},
    ]


# -- who may listen


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:8711", "127.0.0.1:1"])
async def test_loopback_names_are_let_in(host: str) -> None:
    async with serving() as served, raw(served) as client:
        assert (await client.upgrade(f"Host: {host}")).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "127.0.0.1:",
        "0.0.0.0",
        "a@localhost",
    ],
)
async def test_another_host_name_is_misdirected(host: str) -> None:
    async with serving() as served:
        async with raw(served) as client:
            await client.send(request(f"Host: {host}"))
            assert (await client.rest()).startswith(b"HTTP/1.1 421 ")
        await serves(served)
        assert served.statistics.refused == 1


async def test_a_page_of_our_own_origin_is_let_in() -> None:
    async with serving() as served, raw(served) as client:
        head = await client.upgrade("Host: localhost:8711", "Origin: http://localhost:8711")
        assert head.startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost:3000",
        "https://localhost:8711",
        "http://localhost",
        "",
    ],
)
async def test_a_page_of_another_origin_is_forbidden(origin: str) -> None:
    async with serving() as served, raw(served) as client:
        await client.send(request("Host: localhost:8711", f"Origin: {origin}"))
        assert (await client.rest()).startswith(b"HTTP/1.1 403 ")


async def test_the_token_opens_the_stream() -> None:
    async with (
        serving(token="secret") as served,
        open_status(served.url, token="secret", topics=[]) as messages,
    ):
        assert isinstance(await anext(messages), Welcome)


@pytest.mark.parametrize("token", [None, "", "wrong", "secret ", "sécret"])
async def test_a_wrong_token_is_refused(token: str | None) -> None:
    async with serving(token="secret") as served:
        async with open_status(served.url, token=token) as messages:
            error = await anext(messages)
            assert isinstance(error, Error)
            assert error.code == CloseCode.BAD_TOKEN
            assert "secret" not in error.message
            with pytest.raises(StatusClosed) as closed:
                await anext(messages)
            assert closed.value.code == 4401
        await until(lambda: served.statistics.closed == {4401: 1})
        await serves(served)


@pytest.mark.parametrize(
    ("header", "welcome"), [("Bearer secret", True), ("bearer secret", True), ("Bearer no", False)]
)
async def test_the_token_may_come_in_the_authorization_header(header: str, welcome: bool) -> None:
    async with serving(token="secret") as served, raw(served) as client:
        await client.upgrade(f"Authorization: {header}")
        await client.send_frame(TEXT, b'{"t":"hello"}')
        if welcome:
            await client.next_message(Welcome)
        else:
            await client.next_message(Error)


@pytest.mark.parametrize("token", [None, ""])
async def test_without_a_token_whoever_is_here_may_listen(token: str | None) -> None:
    async with serving(token=token) as served:
        await serves(served)


async def test_the_wanted_subprotocol_is_chosen_among_several() -> None:
    async with serving() as served, raw(served) as client:
        head = await client.upgrade(f"Sec-WebSocket-Protocol: other, {SUBPROTOCOL_JSON}")
        assert f"sec-websocket-protocol: {SUBPROTOCOL_JSON}".encode() in head.lower()


async def test_an_offer_without_our_subprotocol_is_refused() -> None:
    async with serving() as served:
        async with raw(served) as client:
            head = await client.upgrade("Sec-WebSocket-Protocol: fund.status.v9+json")
            assert b"sec-websocket-protocol" not in head.lower()
            last, code = await client.closing()
            assert isinstance(last, Error)
            assert code == last.code == 4406
        await serves(served)


# -- what is no websocket


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello, TLS\r\n\r\n", 400),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", 400),
        (b"GET /ws HTTP/1.1\r\n\r\n", 400),
        (b"GET /ws HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /ws HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000, 431),
        (b"GET /ws HTTP/1.0\r\n\r\n", 421),
        (b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n", 426),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"POST /ws HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 405),
        (request(path="/other"), 404),
        (request() + frame(TEXT, b"too early"), 400),
        (request().replace(b"Sec-WebSocket-Key", b"X-Key"), 400),
        (request().replace(b"Version: 13", b"Version: 8"), 426),
    ],
    ids=[
        "tls",
        "ssh",
        "no-host",
        "two-hosts",
        "long-head",
        "http-1.0",
        "no-upgrade",
        "root",
        "post",
        "other-path",
        "early-frame",
        "no-key",
        "old-version",
    ],
)
async def test_what_is_no_upgrade_gets_an_answer_at_once_and_harms_no_client(
    data: bytes, status: int
) -> None:
    async with serving() as served:
        async with raw(served) as client:
            await client.send(data)
            assert (await client.rest()).startswith(b"HTTP/1.1 %d " % status)
            # Long before the handshake's deadline.
            with trio.fail_after(2):
                await until(lambda: not served.statistics.connections)
        await serves(served)


async def test_silence_on_the_port_is_ended_by_the_handshake_deadline() -> None:
    async with serving(handshake_s=0.05) as served:
        async with raw(served) as client:
            assert await client.rest() == b""
        await serves(served)


async def test_a_request_that_dribbles_in_is_ended_by_the_handshake_deadline() -> None:
    async with serving(handshake_s=0.05) as served:
        async with raw(served) as client:
            await client.send(request()[:-1])
            assert await client.rest() == b""
        await serves(served)


async def test_a_client_that_leaves_before_its_request_is_forgotten() -> None:
    async with serving() as served:
        async with raw(served) as client:
            await client.send(request()[:20])
            await client.stream.send_eof()
            assert await client.rest() == b""
        await until(lambda: not served.statistics.connections)
        await serves(served)


async def test_connections_beyond_the_cap_are_refused_and_room_is_reused() -> None:
    async with serving(connections=1) as served:
        async with open_status(served.url, topics=[]) as messages:
            await anext(messages)
            async with raw(served) as client:
                response = await client.rest()
                assert response.startswith(b"HTTP/1.1 503 ")
                assert b"Retry-After" in response
            assert served.statistics.connections == 1
        await until(lambda: not served.statistics.connections)
        await serves(served)


# -- the site


def get(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def answered(client: Raw) -> tuple[bytes, bytes]:
    """Head and body of one answer."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await client.take(1)
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head, await client.take(length)


async def test_one_connection_gets_page_health_and_then_the_stream() -> None:
    async with serving(site=Site(page=lambda: b"<p>hi")) as served, raw(served) as client:
        await client.send(get("/") + get("/healthz"))
        head, body = await answered(client)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"Content-Security-Policy: default-src 'none'" in head
        assert body == b"<p>hi"
        assert (await answered(client))[1] == b"ok\n"
        await client.hello()
        await client.next_message(Welcome)
        assert served.statistics.answered == 2
        assert served.statistics.refused == 0


async def test_a_fund_that_is_not_ready_answers_503_and_keeps_the_connection() -> None:
    site = Site(readiness=lambda: Readiness(False, {}, "failed", None, "OFF", ("storage",)))
    async with serving(site=site) as served, raw(served) as client:
        for _ in range(2):
            await client.send(get("/readyz"))
            head, body = await answered(client)
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b'"problems":["storage"]' in body


async def test_the_schema_is_given_for_the_token_in_the_header_alone() -> None:
    async with serving(token="secret") as served:
        async with raw(served) as client:
            await client.send(get("/schema.json"))
            assert (await client.rest()).startswith(b"HTTP/1.1 401 ")
        async with raw(served) as client:
            await client.send(get("/schema.json", "Authorization: Bearer secret"))
            assert b'"$defs"' in (await answered(client))[1]


async def test_a_token_in_the_url_is_refused_even_when_it_is_right() -> None:
    async with serving(token="secret") as served, raw(served) as client:
        await client.send(request(path="/ws?token=secret"))
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"secret" not in answer


async def test_a_reader_that_takes_no_page_is_ended_by_the_deadline() -> None:
    site = Site(page=lambda: b"x" * 20_000_000)
    async with serving(site=site, handshake_s=0.2) as served:
        async with raw(served, receive_buffer=4_096) as client:
            await client.send(get("/"))
            await until(lambda: served.statistics.answered == 1)
            await until(lambda: not served.statistics.connections)
        await serves(served)


async def test_a_flood_of_upgrades_without_a_hello_leaves_room_again() -> None:
    async with serving(connections=20, hello_s=0.1) as served:
        async with trio.open_nursery() as nursery:

            async def idle() -> None:
                async with raw(served) as client:
                    with suppress(trio.BrokenResourceError):
                        await client.send(request())
                    await client.rest()

            for _ in range(60):
                nursery.start_soon(idle)
        await serves(served)


async def test_an_idle_connection_is_closed_by_the_handshake_deadline() -> None:
    async with serving(handshake_s=0.05) as served, raw(served) as client:
        await client.send(get("/healthz"))
        assert (await answered(client))[1] == b"ok\n"
        assert await client.rest() == b""


async def test_requests_on_one_connection_have_an_end() -> None:
    async with serving() as served, raw(served) as client:
        await client.send(get("/healthz") * (REQUESTS_MAX + 1))
        answers = await client.rest()
        assert answers.count(b"HTTP/1.1 200 ") == REQUESTS_MAX
        assert answers.count(b"Connection: close") == 1


# -- what a websocket may not say


async def test_a_client_without_a_hello_is_closed_as_too_slow() -> None:
    async with serving(hello_s=0.05) as served:
        async with raw(served) as client:
            await client.upgrade()
            last, code = await client.closing()
            assert isinstance(last, Error)
            assert code == last.code == 4408
        await serves(served)


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (frame(TEXT, b"nonsense"), b"", 4400),
        (frame(TEXT, b'{"t":"ping"}'), b"", 4400),
        (frame(2, b'{"t":"hello"}'), b"", 4400),
        (frame(TEXT, b'{"t":"hello","x":' + b"[" * 4_000), b"", 4400),
        (frame(TEXT, b'{"t":"hello"}'), frame(TEXT, b'{"t":"order","side":"buy"}'), 4400),
        (frame(TEXT, b'{"t":"hello"}'), frame(TEXT, b'{"t":"hello"}'), 4409),
        (frame(TEXT, b'{"t":"hello"}'), frame(TEXT, b'{"t":"ping"}') * 10, 4429),
        (frame(TEXT, b'{"t":"hello"}'), frame(PING) * 10, 4429),
        (frame(TEXT, b'{"t":"hello"}'), frame(PONG) * 1_000, 4429),
        (frame(TEXT, b"x" * 4_097), b"", 4413),
        (frame(TEXT, b"x" * 2_000_000), b"", 4413),
        (frame(TEXT, "€".encode() * 1_366), b"", 4413),
        (frame(TEXT, b"x" * 4_000, last=False) + frame(0, b"x" * 97), b"", 4413),
        (frame(TEXT, b"", last=False) + frame(0, b"", last=False) * 100_000, b"", 4413),
        (frame(TEXT, b'{"t":"hello"}'), b"\x01\xff\x7f" + b"\xff" * 7 + bytes(4), 4413),
    ],
    ids=[
        "no-json",
        "no-hello-first",
        "bytes",
        "deep-brackets",
        "unknown-tag",
        "second-hello",
        "too-many-messages",
        "ping-flood",
        "pong-flood",
        "large",
        "huge",
        "large-in-bytes-only",
        "large-in-pieces",
        "empty-frame-flood",
        "endless-length",
    ],
)
async def test_what_breaks_the_rules_ends_its_own_connection_with_a_code(
    first: bytes, second: bytes, code: int
) -> None:
    async with serving() as served:
        async with open_status(served.url, topics=["fund"]) as messages, raw(served) as client:
            await anext(messages)
            await client.upgrade()
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    # The server stops reading in the middle; the rest has nowhere to go.
                    with suppress(trio.BrokenResourceError):
                        await client.send(first + second)

                nursery.start_soon(send)
                _, closed = await client.closing()
                assert closed == code
                await client.rest()
                nursery.cancel_scope.cancel()
            assert isinstance(await anext(messages), Snapshot)
        await serves(served)


@pytest.mark.parametrize(
    ("data", "code"),
    [(frame(TEXT, b"\xff\xfe"), 1007), (b"\xff" * 14, 1002)],
    ids=["no-utf-8", "no-frame"],
)
async def test_broken_framing_is_cut_off(data: bytes, code: int) -> None:
    async with serving() as served:
        async with raw(served) as client:
            await client.upgrade()
            await client.send(data)
            assert await client.rest() == b""
        await until(lambda: served.statistics.closed == {code: 1})
        await serves(served)


async def test_a_message_of_exactly_the_limit_is_taken() -> None:
    async with serving() as served, raw(served) as client:
        text = b'{"t":"hello","topics":["fund"],"x":"%s"}'
        await client.hello((text % (b"x" * (4_096 + 2 - len(text)))).decode())
        await client.next_message(Welcome)


async def test_a_ping_after_our_close_harms_no_client() -> None:
    async with serving() as served:
        async with raw(served) as client:
            await client.hello("nonsense")
            _, code = await client.closing()
            assert code == 4400
            await client.send_frame(PING, b"still there?")
            await client.rest()
        await until(lambda: not served.statistics.connections)
        await serves(served)


async def test_a_client_that_is_told_off_and_leaves_is_forgotten_at_once() -> None:
    async with serving(close_s=PATIENCE_S) as served:
        async with raw(served) as client:
            await client.upgrade()
            await client.send(frame(TEXT, b"x" * 100_000))
            assert (await client.closing())[1] == 4413
        with trio.fail_after(2):
            await until(lambda: not served.statistics.connections)


async def test_the_first_reason_to_end_is_the_one_that_counts() -> None:
    async with serving(close_s=PATIENCE_S) as served:
        async with raw(served) as client:
            await client.hello("nonsense")
            assert (await client.closing())[1] == 4400
            served.stop()
            await trio.testing.wait_all_tasks_blocked()
        await until(lambda: served.statistics.closed == {4400: 1})


async def test_a_client_that_does_not_close_in_return_is_cut_off() -> None:
    async with serving(close_s=0.05) as served:
        async with raw(served) as client:
            await client.hello("nonsense")
            await client.closing()
            await client.rest()
        await serves(served)


async def test_a_client_that_resets_the_connection_is_forgotten() -> None:
    async with serving() as served:
        async with raw(served) as client:
            await client.hello()
            await client.next_message(Welcome)
            client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: not served.statistics.connections)
        assert served.hub.clients == 0
        assert served.statistics.closed == {1006: 1}
        await serves(served)


async def test_a_client_that_answers_no_pings_is_evicted() -> None:
    async with serving(ping_s=0.02, pong_s=0.05) as served:
        async with raw(served) as client:
            await client.hello()
            last, code = await client.closing()
            assert isinstance(last, Error)
            assert code == last.code == 4408
        await until(lambda: served.statistics.closed == {4408: 1})


async def test_a_stalled_reader_is_evicted_while_the_others_see_everything() -> None:
    rounds, size = 150, 50_000
    async with serving(send_s=0.5) as served:
        async with (
            raw(served, receive_buffer=4_096) as stalled,
            open_status(served.url, topics=["fund"]) as messages,
        ):
            await stalled.hello()
            await until(lambda: served.hub.clients == 2)
            await anext(messages)
            tracemalloc.start()
            try:
                for number in range(rounds):
                    served.hub.publish_state(
                        "fund", {"n": number, "bulk": f"{number:06}" + "x" * size}
                    )
                    while (
                        not isinstance(message := await anext(messages), Delta)
                        or message.value != number
                    ):
                        pass
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            # 7.5 MB went past the stalled client; only one batch is held for it, and no queue.
            assert peak < 30 * size
            await until(lambda: served.hub.clients == 1)
            await until(lambda: served.statistics.closed == {4408: 1})
            # It had half a frame on the line, so not even a close may follow.
            received = await stalled.rest()
            assert b"4408" not in received
            assert struct.pack("!H", 4408) not in received
        await serves(served)


async def test_answers_that_a_client_does_not_take_are_counted_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(messages_per_s=1_000) as served, raw(served, receive_buffer=4_096) as asking:
        await asking.hello()
        await until(lambda: served.hub.clients == 1)
        served.hub.publish_state("fund", {"bulk": "x" * 10_000_000})
        await asking.take(1)  # the sender is in the middle of the bulk from here on
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(NOTICES_MAX + 5):
            await asking.send_frame(TEXT, b'{"t":"ping"}')
        await until(lambda: served.statistics.left_out == 5)
        assert [one.levelname for one in caplog.records if "left out" in one.getMessage()] == [
            "WARNING"
        ]
        await serves(served)


# -- start and stop


async def test_a_stopping_server_says_goodbye_and_is_gone_in_time() -> None:
    async with serving(close_s=0.2) as served:
        async with (
            open_status(served.url, topics=[]) as messages,
            raw(served) as silent,
            raw(served) as listening,
        ):
            await anext(messages)
            await listening.hello()
            await until(lambda: served.statistics.connections == 3)
            served.stop()
            assert await anext(messages) == Bye("the server stops", 1.0)
            assert [message async for message in messages] == []
            last, code = await listening.closing()
            assert isinstance(last, Bye)
            assert code == 1001
            assert await silent.rest() == b""
            await until(lambda: not served.statistics.connections)
        with pytest.raises(StatusClosed, match="cannot be reached"):
            await serves(served)


async def test_a_connection_accepted_in_the_last_moment_is_not_begun() -> None:
    statistics = ServerStatistics()
    server = _Server(Hub(), None, "e1", lambda: 42, ServerLimits(), statistics)
    server.stop()
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with (
        listener,
        await trio.testing.open_stream_to_socket_listener(listener),
        await listener.accept() as stream,
    ):
        with trio.fail_after(1):
            await server.serve(stream)
    assert statistics == ServerStatistics()


async def test_a_port_that_is_taken_is_a_config_error() -> None:
    async with serving() as served:
        with pytest.raises(ConfigError, match="cannot be bound"):
            await serve_status(Hub(), served.port, epoch="e", now_us=lambda: 0)


@pytest.mark.parametrize("port", [-1, 70_000])
async def test_a_port_that_cannot_be_is_a_config_error(port: int) -> None:
    with pytest.raises(ConfigError, match="not between 0 and 65535"), trio.fail_after(PATIENCE_S):
        await serve_status(Hub(), port, epoch="e", now_us=lambda: 0)


async def test_only_loopback_is_bound() -> None:
    async with serving() as served:
        listening = [line.split()[1] for line in _tcp_table() if line.split()[3] == "0A"]
        assert f"0100007F:{served.port:04X}" in listening
        assert f"00000000:{served.port:04X}" not in listening


def _tcp_table() -> list[str]:
    try:
        with open("/proc/net/tcp") as table:
            return table.read().splitlines()[1:]
    except FileNotFoundError:
        pytest.skip("this system has no /proc/net/tcp")


# -- the pure parts


def test_only_our_subprotocol_is_chosen() -> None:
    assert choose_subprotocol(["other", SUBPROTOCOL_JSON]) == SUBPROTOCOL_JSON
    assert choose_subprotocol(["fund.status.v9+json"]) is None
    assert choose_subprotocol([]) is None


def test_the_last_message_tells_a_stop_from_a_broken_rule() -> None:
    assert last_message(Verdict(CloseCode.GOING_AWAY, "later")) == Bye("later", 1.0)
    assert last_message(Verdict(CloseCode.TOO_SLOW, "no pong")) == Error(4408, "no pong")
