"""The status stream for programs: connect, say hello, iterate over decoded messages.

    async with open_status("ws://127.0.0.1:8711/ws", topics=["fund", "alerts"]) as messages:
        async for message in messages:
            match message:
                case Snapshot("fund", state=state): ...
                case Event("alerts", data=data): ...

The stream does not reconnect by itself, because only the program knows whether it may miss events.
To resume, a program keeps `since` of its last `Welcome`, puts the seq of each event that it takes
in its topic's place, and passes it with that welcome's `epoch`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import h11
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketConnection,
    wrap_client_stream,
)
from wsproto.utilities import ProtocolError

from ...runtime import ConfigError
from ..alert import Level
from ..errors import BadMessage, StatusClosed
from .protocol import (
    BACKLOG,
    SUBPROTOCOL_JSON,
    CloseCode,
    Hello,
    ServerMessage,
    decode_server,
    encode,
)

__all__ = ["open_status", "parse_url", "sent_nonsense"]

CONNECT_S = 10.0
CLOSE_S = 2.0
# A snapshot lists every strategy of the fund; 10,000 strategies take a few MiB.
MESSAGE_MAX_BYTES = 64 * 2**20

_NORMAL = 1000  # RFC 6455, section 7.4.1
_LOST = 1006  # the connection ended without a close frame
_LOST_TEXT = "the connection was lost"
# A server that breaks the protocol ends the library's reader with one of them.
_BROKEN = (ProtocolError, h11.ProtocolError)


@asynccontextmanager
async def open_status(
    url: str,
    *,
    token: str | None = None,
    topics: Iterable[str] | None = None,
    epoch: str | None = None,
    since: Mapping[str, int] | None = None,
    min_level: Level | None = None,
    backlog: int = BACKLOG,
) -> AsyncIterator[AsyncIterator[ServerMessage]]:
    """An iterator over the server's messages, beginning with its `Welcome`.

    Unknown tags are skipped.

    `topics` None: all. `since` holds the last seq seen, by event topic, and counts when `epoch` is
    still the server's. An event topic that is not resumed begins with its `backlog` newest events.
    Alerts below `min_level` are left out. The iteration ends with a normal close by the server.

    Raises: `StatusClosed` when connecting fails, and from the iteration or the block when the
    connection ends otherwise; `ConfigError` for a URL that is not ``ws://host:port/path``.
    """
    host, port, path = parse_url(url)
    wanted = None if topics is None else tuple(topics)
    hello = Hello(token, epoch, since or {}, wanted, min_level, backlog)
    from_caller: BaseException | None = None
    complete, problem = False, "the server did not answer the handshake"
    try:
        # The library's own open_websocket leaves the socket open when the server closes first.
        async with await _connect(url, host, port) as stream, trio.open_nursery() as nursery:
            with trio.fail_after(CONNECT_S):
                websocket = await wrap_client_stream(
                    nursery,
                    stream,
                    f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
                    path,
                    subprotocols=[SUBPROTOCOL_JSON],
                    max_message_size=MESSAGE_MAX_BYTES,
                )
                await websocket.send_message(encode(hello).decode())
            problem = _LOST_TEXT
            try:
                yield _Messages(websocket)
                complete = True
            except BaseException as error:
                from_caller = error
                raise
            finally:
                with trio.move_on_after(CLOSE_S):
                    await websocket.aclose()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if from_caller is not None and not isinstance(from_caller, trio.Cancelled):
            # Raised by the body of the caller's `async with`: not wrapped in a group.
            raise from_caller from from_caller.__cause__
        _, others = group.split(_BROKEN)
        if others is not None:
            raise _explained(others, problem) from others
        # The library's reader also ends so when a ping crosses our close. The conversation is
        # complete by then.
        if not complete:
            raise StatusClosed(_LOST, problem) from group


def parse_url(url: str) -> tuple[str, int, str]:
    """Host, port (80 when missing) and path (``/`` when missing) of a websocket URL.

    Raises: `ConfigError`.
    """
    parts = urlsplit(url)
    if parts.scheme != "ws" or not parts.hostname:
        raise ConfigError("url", f"{url!r} is not of the form ws://host:port/path")
    return parts.hostname, parts.port or 80, parts.path or "/"


async def _connect(url: str, host: str, port: int) -> trio.SocketStream:
    try:
        with trio.fail_after(CONNECT_S):
            return await trio.open_tcp_stream(host, port)
    except (OSError, trio.TooSlowError) as error:
        raise StatusClosed(_LOST, f"{url} cannot be reached") from error


def _explained(errors: BaseExceptionGroup[BaseException], problem: str) -> BaseException:
    """The `StatusClosed` for a failed connection; an unforeseen error is returned unchanged."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    match error:
        case ConnectionRejected():
            text = (error.body or b"").decode("utf-8", "replace").strip()
            return StatusClosed(error.status_code, text or "the server refused the connection")
        case ConnectionClosed() | trio.TooSlowError():
            return StatusClosed(_LOST, problem)
        case _:
            return error


def sent_nonsense(error: BadMessage) -> StatusClosed:
    """The end of a stream whose server sent an invalid message."""
    return StatusClosed(CloseCode.BAD_MESSAGE, f"the server sent an invalid message: {error}")


class _Messages:
    """The iterator.

    Not a generator: an abandoned one would be closed by the garbage collector, outside trio.
    """

    def __init__(self, websocket: WebSocketConnection) -> None:
        self._websocket = websocket

    def __aiter__(self) -> _Messages:
        return self

    async def __anext__(self) -> ServerMessage:
        while True:
            try:
                message = decode_server(await self._websocket.get_message())
            except ConnectionClosed as closed:
                code = closed.reason.code if closed.reason is not None else _LOST
                if code in (_NORMAL, CloseCode.GOING_AWAY):
                    raise StopAsyncIteration from None
                reason = closed.reason.reason if closed.reason is not None else None
                raise StatusClosed(code, reason or _LOST_TEXT) from closed
            except BadMessage as error:
                raise sent_nonsense(error) from error
            if message is not None:
                return message
