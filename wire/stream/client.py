"""The status stream for programs: connect, say hello, iterate over decoded messages.

    async with open_status("ws://127.0.0.1:8711/ws", topics=["fund", "alerts"]) as messages:
        async for message in messages:
            match message:
                case Snapshot("fund", state=state): ...
                case Event("alerts", data=data): ...

It does not reconnect by itself: only the program knows whether it must not miss an event. To go on where it was, it
keeps the last seq of each event topic and hands them in with the epoch of its last `Welcome`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream
from wsproto.utilities import LocalProtocolError

from ...runtime import ConfigError, FundopsError
from ..alert import Level
from .protocol import SUBPROTOCOL_JSON, BadMessage, CloseCode, Hello, ServerMessage, decode_server, encode

__all__ = ["StatusClosed", "open_status"]

CONNECT_S = 10.0
CLOSE_S = 2.0
# A snapshot has every strategy of the fund; 10,000 of them come to a few MiB.
MESSAGE_MAX_BYTES = 64 * 2**20

_NORMAL = 1000
_LOST = 1006


class StatusClosed(FundopsError):
    """The stream is not there, or ended other than by a normal close. `code` is an HTTP status or a close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"status stream: {reason} ({code})")
        self.code, self.reason = code, reason


@asynccontextmanager
async def open_status(
    url: str,
    *,
    token: str | None = None,
    topics: Iterable[str] | None = None,
    epoch: str | None = None,
    since: Mapping[str, int] | None = None,
    min_level: Level | None = None,
) -> AsyncIterator[AsyncIterator[ServerMessage]]:
    """Yield the server's messages, beginning with its `Welcome`; those with tags of a newer server are skipped.

    `topics` None: all. The iteration ends when the server says a normal goodbye.

    Raises: `StatusClosed` when connecting fails, and from the iteration when the server ends it for a reason;
    `ConfigError` for a URL that is not ``ws://host:port/path``.
    """
    host, port, path = _parse(url)
    hello = Hello(token, epoch, since or {}, None if topics is None else tuple(topics), min_level)
    from_caller: BaseException | None = None
    try:
        # Not the library's open_websocket: it leaves the socket open when the server closes first.
        async with await _connect(url, host, port) as stream, trio.open_nursery() as nursery:
            with trio.fail_after(CONNECT_S):
                websocket = await wrap_client_stream(
                    nursery,
                    stream,
                    f"{host}:{port}",
                    path,
                    subprotocols=[SUBPROTOCOL_JSON],
                    max_message_size=MESSAGE_MAX_BYTES,
                )
                await websocket.send_message(encode(hello).decode())
            try:
                yield _Messages(websocket)
            except BaseException as error:
                from_caller = error
                raise
            finally:
                with trio.move_on_after(CLOSE_S):
                    await websocket.aclose()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if from_caller is not None:  # it has nothing to do with the nursery, and gets out as it came
            raise from_caller from from_caller.__cause__
        # A ping that crosses our close on its way makes the library's reader raise this, after all is said and done.
        _, errors = group.split(LocalProtocolError)
        if errors is not None:
            raise _explained(errors) from errors


def _parse(url: str) -> tuple[str, int, str]:
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


def _explained(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """What went wrong while connecting, in words; anything unforeseen as it is."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    match error:
        case ConnectionRejected():
            text = (error.body or b"").decode("utf-8", "replace").strip()
            return StatusClosed(error.status_code, text or "the server refused the connection")
        case ConnectionClosed() | trio.TooSlowError():
            return StatusClosed(_LOST, "the server did not answer the handshake")
        case _:
            return error


class _Messages:
    """The iterator; a class and not a generator, since nobody would close a generator left halfway."""

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
                raise StatusClosed(code, reason or "the connection was lost") from closed
            except BadMessage as error:
                raise StatusClosed(CloseCode.BAD_MESSAGE, f"the server sent nonsense: {error}") from error
            if message is not None:
                return message
