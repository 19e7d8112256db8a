"""The client for programs: it skips unknown messages, explains failures, and hides no error."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import NamedTuple

import pytest
import trio
import trio.lowlevel
from trio_websocket import WebSocketRequest, serve_websocket

from fundops.runtime import ConfigError
from fundops.wire.errors import StatusClosed
from fundops.wire.stream.client import open_status, parse_url
from fundops.wire.stream.hub import Hub
from fundops.wire.stream.limits import ServerLimits
from fundops.wire.stream.protocol import SUBPROTOCOL_JSON, Heartbeat
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
