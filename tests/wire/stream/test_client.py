"""The client for programs: it skips unknown messages, explains failures, and hides no error."""

from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from hashlib import sha1
from typing import NamedTuple

import pytest
import trio
import trio.lowlevel
from trio_websocket import WebSocketRequest, serve_websocket

from fundops.runtime import ConfigError
from fundops.wire.errors import StatusClosed
from fundops.wire.stream import client
from fundops.wire.stream.client import open_status, parse_url
from fundops.wire.stream.hub import Hub
from fundops.wire.stream.limits import ServerLimits
from fundops.wire.stream.protocol import SUBPROTOCOL_JSON, Heartbeat, ServerMessage
from fundops.wire.stream.server import ServerStatistics, serve_status

# No test takes near this long; a hang is to be a failure with a traceback.
PATIENCE_S = 10.0


class Served(NamedTuple):
    """A running server, and its counters."""

    port: int
    statistics: ServerStatistics

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"


@pytest.fixture
async def served(nursery: trio.Nursery) -> AsyncIterator[Served]:
    statistics = ServerStatistics()
    serve = partial(
        serve_status,
        Hub(),
        0,
        epoch="e1",
        now_us=lambda: 42,
        limits=ServerLimits(close_s=0.2),
        statistics=statistics,
    )
    with trio.fail_after(PATIENCE_S):
        yield Served(await nursery.start(serve), statistics)


async def until(met: Callable[[], bool]) -> None:
    """Let the loop run until it is so; the test's own deadline is the limit."""
    while not met():
        await trio.lowlevel.checkpoint()


async def test_the_client_skips_what_a_newer_server_says(nursery: trio.Nursery) -> None:
    async def handler(request: WebSocketRequest) -> None:
        websocket = await request.accept(subprotocol=SUBPROTOCOL_JSON)
        await websocket.get_message()
        await websocket.send_message('{"t":"merged","parts":[]}')
        await websocket.send_message('{"t":"heartbeat","server_time_us":1}')
        await websocket.aclose(1000)

    server = await nursery.start(
        partial(serve_websocket, handler, "127.0.0.1", 0, ssl_context=None)
    )
    async with open_status(f"ws://127.0.0.1:{server.port}/ws") as messages:
        assert [message async for message in messages] == [Heartbeat(1)]
    nursery.cancel_scope.cancel()


async def test_the_client_says_when_the_server_sends_nonsense(nursery: trio.Nursery) -> None:
    async def handler(request: WebSocketRequest) -> None:
        websocket = await request.accept(subprotocol=SUBPROTOCOL_JSON)
        await websocket.send_message("nonsense")
        await websocket.get_message()

    server = await nursery.start(
        partial(serve_websocket, handler, "127.0.0.1", 0, ssl_context=None)
    )
    async with open_status(f"ws://127.0.0.1:{server.port}/ws") as messages:
        with pytest.raises(StatusClosed, match="invalid message"):
            await anext(messages)
    nursery.cancel_scope.cancel()


async def test_the_client_says_why_it_was_not_let_in(served: Served) -> None:
    with pytest.raises(StatusClosed) as closed:
        async with open_status(f"ws://127.0.0.1:{served.port}/elsewhere"):
            pytest.fail("there is nothing elsewhere")
    assert closed.value.code == 404
    assert "there is only /ws here" in str(closed.value)


async def test_a_listening_client_can_be_cancelled(served: Served) -> None:
    with trio.move_on_after(0.05) as scope:
        async with open_status(served.url) as messages:
            async for _ in messages:
                pass
    assert scope.cancelled_caught
    await until(lambda: not served.statistics.connections)


@pytest.mark.parametrize("url", ["", "http://localhost:1/ws", "wss://localhost:1/ws", "ws:///ws"])
async def test_a_url_of_another_kind_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match="ws://host:port/path"):
        async with open_status(url):
            pytest.fail("there is nothing to open")


async def divide_by_zero_while_listening(url: str) -> None:
    async with open_status(url) as messages:
        await anext(messages)
        _ = 1 / 0


async def test_the_client_does_not_hide_the_errors_of_its_caller(served: Served) -> None:
    with pytest.raises(ZeroDivisionError):
        await divide_by_zero_while_listening(served.url)
    await until(lambda: not served.statistics.connections)
    assert served.statistics.closed == {1000: 1}


def test_a_url_has_a_host_and_defaults_for_the_rest() -> None:
    assert parse_url("ws://localhost:8711/ws") == ("localhost", 8711, "/ws")
    assert parse_url("ws://localhost") == ("localhost", 80, "/")


# -- servers that are none of ours


async def served_bytes(nursery: trio.Nursery, answer: bytes) -> str:
    """The URL of a server that answers each request with these bytes and hangs up."""

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            request = await stream.receive_some(8192)
            key = next(
                line.split(b": ")[1]
                for line in request.split(b"\r\n")
                if line.lower().startswith(b"sec-websocket-key")
            )
            accepted = b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            await stream.send_all(answer.replace(b"ACCEPT", accepted))
            await stream.aclose()

    listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    return f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/ws"


UPGRADE = b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
ACCEPTED = UPGRADE + b"Sec-WebSocket-Accept: ACCEPT\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\xff garbage \r\n\r\n",
        b"HTTP/1.1 502 Bad\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 502 Bad\r\nContent-Length: 20000\r\n\r\nno",
        UPGRADE + b"Sec-WebSocket-Accept: zzz\r\n\r\n",
        ACCEPTED + b"Sec-WebSocket-Protocol: zzz\r\n\r\n",
        ACCEPTED + b"Sec-WebSocket-Extensions: zzz\r\n\r\n",
        b"HTTP/1.1 101 X\r\n\r\n",
        b"",
    ],
    ids=["garbage", "chunk", "cut", "accept", "subprotocol", "extension", "bare", "nothing"],
)
async def test_a_server_that_is_no_websocket_of_ours_is_a_closed_stream(
    nursery: trio.Nursery, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "CONNECT_S", 0.2)  # for those that hang up
    url = await served_bytes(nursery, answer)
    with trio.fail_after(PATIENCE_S), pytest.raises(StatusClosed) as closed:
        async with open_status(url):
            pytest.fail("this is no handshake")
    assert (closed.value.code, closed.value.reason) == (
        1006,
        "the server did not answer the handshake",
    )
    nursery.cancel_scope.cancel()


async def all_of(url: str) -> list[ServerMessage]:
    async with open_status(url) as messages:
        return [message async for message in messages]


@pytest.mark.parametrize(
    "frames",
    [b"\x8f\x00", b"\x81\x7f" + b"\xff" * 8, b"\x81\x02\xff\xfe", b"\x88\x01\x03", b"\x89\x7e"],
    ids=["opcode", "length", "text", "close", "cut"],
)
async def test_a_server_that_breaks_the_protocol_is_a_closed_stream(
    nursery: trio.Nursery, frames: bytes
) -> None:
    url = await served_bytes(
        nursery, ACCEPTED + f"Sec-WebSocket-Protocol: {SUBPROTOCOL_JSON}\r\n\r\n".encode() + frames
    )
    with trio.fail_after(PATIENCE_S), pytest.raises(StatusClosed):
        await all_of(url)
    nursery.cancel_scope.cancel()
