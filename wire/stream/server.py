"""The server of the status stream: trio-websocket on 127.0.0.1, with everything in the way that a client can do to it.

trio-websocket does the handshake, the framing, control frames and the close. Not its `serve_websocket`, where one
handler's exception, or a ping after our close, ends the server for all. Each connection here lives in a nursery of
its own, shielded from the server's cancellation so that it can say goodbye, and bounded by deadlines throughout.

Between the library and the socket sits `_Pipe`, our own `trio.abc.Stream`. It knows whether a frame went out whole
(a cancelled send leaves half of one on the line: nothing may follow it), gives up on clients that take no bytes, and
measures what comes in frame by frame before the library parses it.

Durations are in seconds and count on trio's clock; nothing here reads the clock of the domain but for the timestamps
it sends.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import NamedTuple, NoReturn, assert_never

import h11
import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from ...runtime import ConfigError
from .hub import Cursor, Hub
from .protocol import (
    PROTOCOL,
    SUBPROTOCOL_JSON,
    TOPICS,
    BadMessage,
    Bye,
    ClientMessage,
    CloseCode,
    Error,
    Heartbeat,
    Hello,
    Ping,
    Sub,
    Unsub,
    Welcome,
    decode_client,
    encode,
)

__all__ = ["PATH", "FrameMeter", "ServerLimits", "ServerStatistics", "serve_status"]

PATH = "/ws"

# A host name that an attacker's page can be reached by must not reach us: after DNS rebinding its own name is in the
# Host header. Any port is taken, since a forwarded one is not ours.
_OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?")

# What a client is told per topic before the hub is asked again: one that stalls halfway pins only these.
BATCH = 16
# Answers to pings and to unknown topics wait here while a client does not read; the rate limit lets no more in.
NOTICES_MAX = 16

_log = logging.getLogger("fundops.status")


class ServerLimits(msgspec.Struct, frozen=True):
    """What a client may do, and for how long the server waits for it."""

    handshake_s: float = 5.0  # from the connect to the accepted upgrade
    hello_s: float = 5.0  # from there to the hello
    send_s: float = 10.0  # for a client to take one message's bytes
    heartbeat_s: float = 5.0  # of silence, then a heartbeat
    ping_s: float = 15.0  # between websocket pings
    pong_s: float = 10.0
    close_s: float = 2.0  # for the goodbye and the closing handshake
    connections: int = 1_024
    head_bytes: int = 8_192  # of the HTTP request
    message_bytes: int = 4_096
    message_frames: int = 64  # an endless message of empty frames has no bytes to count
    messages_per_s: int = 10  # messages and control frames together; as many at once

    def __post_init__(self) -> None:
        for field in self.__struct_fields__:
            if not getattr(self, field) > 0:
                raise ConfigError(field, f"{getattr(self, field)!r} is not greater than zero")


class ServerStatistics(msgspec.Struct):
    """Counters since the server started, kept up to date in place."""

    connections: int = 0  # open now, handshakes included
    refused: int = 0  # those that ended before there was a websocket
    closed: Counter[int] = msgspec.field(default_factory=Counter)  # websockets by close code; 1006: without a word


class Verdict(NamedTuple):
    """Why the server ends a connection: a close code and a text for the client."""

    code: int
    reason: str


# -- what comes in


class FrameMeter:
    """Measures a client's frames by their headers, before anything is parsed or stored.

    trio-websocket counts only payload, in characters, and none in empty frames; so a client could fill memory with
    pieces of a message that never ends, or keep the loop busy with pings.
    """

    def __init__(self, limits: ServerLimits, now_s: float) -> None:
        self._limits = limits
        self._header = b""
        self._payload_left = 0
        self._message_bytes = 0
        self._message_frames = 0
        self._allowance = float(limits.messages_per_s)
        self._allowed_at = now_s

    def feed(self, data: bytes | bytearray, now_s: float) -> Verdict | None:
        """Take the next bytes of the line; the answer is what they break."""
        at = 0
        while at < len(data):
            if self._payload_left:
                step = min(self._payload_left, len(data) - at)
                self._payload_left -= step
                at += step
                continue
            step = _header_size(self._header) - len(self._header)
            self._header += data[at : at + step]
            at += step
            if len(self._header) == _header_size(self._header):  # the first two bytes tell how many more there are
                verdict = self._begin_frame(now_s)
                if verdict is not None:
                    return verdict
        return None

    def _begin_frame(self, now_s: float) -> Verdict | None:
        header, self._header = self._header, b""
        length = header[1] & 0x7F
        if length >= 126:
            length = int.from_bytes(header[2 : 4 if length == 126 else 10], "big")
        self._payload_left = length
        if header[0] & 0x08:  # a control frame: it may come between the pieces of a message
            return self._take_turn(now_s)
        self._message_bytes += length
        self._message_frames += 1
        if self._message_bytes > self._limits.message_bytes:
            return Verdict(CloseCode.TOO_LARGE, f"a message has more than {self._limits.message_bytes} bytes")
        if self._message_frames > self._limits.message_frames:
            return Verdict(CloseCode.TOO_LARGE, f"a message has more than {self._limits.message_frames} frames")
        if header[0] & 0x80:  # the last frame of its message
            self._message_bytes = self._message_frames = 0
            return self._take_turn(now_s)
        return None

    def _take_turn(self, now_s: float) -> Verdict | None:
        rate = self._limits.messages_per_s
        self._allowance = min(float(rate), self._allowance + (now_s - self._allowed_at) * rate) - 1
        self._allowed_at = now_s
        if self._allowance < 0:
            return Verdict(CloseCode.TOO_MANY, f"more than {rate} messages per second")
        return None


def _header_size(begun: bytes) -> int:
    """Bytes of the frame header (RFC 6455, section 5.2) that begins so; 2 until the first two are there.

    The last four are the mask: the library refuses a client that sends none.
    """
    return 2 if len(begun) < 2 else 2 + {126: 2, 127: 8}.get(begun[1] & 0x7F, 0) + 4


class _Pipe(trio.abc.Stream):
    """The socket as the library sees it. `broken` once half a frame may be on the line; `stalled` if that is why."""

    def __init__(self, stream: trio.abc.Stream, ahead: bytes, limits: ServerLimits, end: Callable[[Verdict], None]):
        self._stream = stream
        self._ahead = ahead  # already read from the socket: the HTTP request
        self._limits = limits
        self._meter = FrameMeter(limits, trio.current_time())
        self._end = end
        self.broken = False
        self.stalled = False
        self.on_close: Callable[[], None] = lambda: None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.broken:
            raise trio.BrokenResourceError("half a frame is on the line: nothing can follow it")
        await trio.lowlevel.checkpoint_if_cancelled()  # here nothing has gone out yet
        self.broken = True  # until all of it has gone out, however the send ends
        with trio.move_on_after(self._limits.send_s) as patience:
            await self._stream.send_all(data)
            self.broken = False
        if patience.cancelled_caught:
            self.stalled = True
            raise trio.BrokenResourceError(f"the client took no bytes for {self._limits.send_s:g} s")

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._ahead:
            await trio.lowlevel.checkpoint()
            taken = self._ahead[:max_bytes]
            self._ahead = self._ahead[len(taken) :]
            return taken
        data = await self._stream.receive_some(max_bytes)
        verdict = self._meter.feed(data, trio.current_time())
        if verdict is not None:
            self._end(verdict)
            # Unread bytes would turn our close into a reset, and the client would not hear why.
            while data:
                data = await self._stream.receive_some(max_bytes)
        return data

    async def aclose(self) -> None:
        self.on_close()
        await self._stream.aclose()


# -- the HTTP request


class _Request(NamedTuple):
    """A request for the stream, as far as it matters before the upgrade."""

    head: bytes
    authorization: str | None


class _Refusal(Exception):
    """The answer to a request that gets no websocket."""

    def __init__(self, status: HTTPStatus, text: str, *headers: str) -> None:
        super().__init__(status, text)
        lines = (
            f"HTTP/1.1 {status.value} {status.phrase}",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(text) + 1}",
            "Connection: close",
            *headers,
        )
        self.response = ("\r\n".join(lines) + f"\r\n\r\n{text}\n").encode("ascii")


async def _read_request(stream: trio.abc.ReceiveStream, limits: ServerLimits) -> _Request:
    """The request, allowed to become a websocket. Raises: `_Refusal`; `ConnectionResetError` when nobody asks."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
    head = b""
    while True:
        data = bytes(await stream.receive_some(limits.head_bytes))
        if not data:
            raise ConnectionResetError("the client left before its request")
        head += data
        try:
            parser.receive_data(data)
            event = parser.next_event()
        except h11.RemoteProtocolError as error:
            raise _Refusal(HTTPStatus(error.error_status_hint), "this is not HTTP as we know it") from error
        if isinstance(event, h11.Request):
            break
    if parser.trailing_data[0]:
        raise _Refusal(HTTPStatus.BAD_REQUEST, "data before the upgrade")
    _check_source(event)
    _check_upgrade(event)
    return _Request(head, next(iter(_values(event, b"authorization")), None))


def _values(request: h11.Request, name: bytes) -> list[str]:
    return [value.decode("latin-1") for found, value in request.headers if found == name]


def _check_source(request: h11.Request) -> None:
    """Only loopback names, and only pages of ours: any page of the web may try to connect to a port of its reader."""
    host = "".join(_values(request, b"host")).lower()  # h11 lets no second one through
    if not _OWN_HOST.fullmatch(host):
        raise _Refusal(HTTPStatus.MISDIRECTED_REQUEST, "the Host header must be 127.0.0.1 or localhost")
    if any(origin.lower() != f"http://{host}" for origin in _values(request, b"origin")):
        raise _Refusal(HTTPStatus.FORBIDDEN, "pages of another origin may not read this stream")


def _check_upgrade(request: h11.Request) -> None:
    if request.target.partition(b"?")[0] != PATH.encode():
        raise _Refusal(HTTPStatus.NOT_FOUND, f"there is only {PATH} here")
    if request.method != b"GET":
        raise _Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "the stream takes GET", "Allow: GET")
    if [upgrade.lower() for upgrade in _values(request, b"upgrade")] != ["websocket"]:
        raise _Refusal(HTTPStatus.UPGRADE_REQUIRED, f"{PATH} speaks websocket", "Upgrade: websocket")


# -- one client


class _Connection:
    """One client from its first byte to its last."""

    def __init__(self, server: _Server, stream: trio.SocketStream) -> None:
        self._server = server
        self._limits = server.limits
        self._stream = stream
        self._pipe: _Pipe | None = None
        self._websocket: WebSocketConnection | None = None
        self._verdict: Verdict | None = None
        self._authorized = False
        self._notices: deque[bytes] = deque(maxlen=NOTICES_MAX)
        self._talk = trio.CancelScope()

    def end(self, verdict: Verdict) -> None:
        """Stop talking, tell the client why, and be gone within `close_s`. The first verdict stands."""
        if self._verdict is None:
            self._verdict = verdict
            self._talk.cancel()

    @property
    def close_code(self) -> int | None:
        """How it ended; None when there was no websocket. 1006: without a word."""
        if self._websocket is None:
            return None
        if self._verdict is not None:
            return self._verdict.code
        return self._websocket.closed.code if self._websocket.closed is not None else 1006

    async def run(self) -> None:
        """Raises: whatever the library stumbles over, in groups; it is the caller who isolates."""
        # Shielded, so that the server's own cancellation leaves time for a goodbye; `end` is what ends it.
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:  # holds the library's reader until after the goodbye
                try:
                    with self._talk:
                        if await self._shake_hands(nursery):
                            await self._converse()
                except* ConnectionClosed:
                    if self._pipe is not None and self._pipe.stalled:
                        self.end(Verdict(CloseCode.TOO_SLOW, "bytes were not taken in time"))
                await self._say_goodbye()
                nursery.cancel_scope.cancel()

    async def _shake_hands(self, nursery: trio.Nursery) -> bool:
        with trio.move_on_after(self._limits.handshake_s) as patience:
            try:
                request = await _read_request(self._stream, self._limits)
            except _Refusal as refusal:
                await self._stream.send_all(refusal.response)
                await self._stream.send_eof()
                return False
            self._authorized = self._server.admits(_bearer(request.authorization))
            self._pipe = _Pipe(self._stream, request.head, self._limits, self.end)
            # The library refuses an incomplete upgrade by itself, and would let us wait for ever.
            self._pipe.on_close = patience.cancel
            proposal = await wrap_server_stream(nursery, self._pipe, max_message_size=self._limits.message_bytes)
            offered = proposal.proposed_subprotocols
            chosen = SUBPROTOCOL_JSON if SUBPROTOCOL_JSON in offered else None
            self._websocket = await proposal.accept(subprotocol=chosen)
            self._pipe.on_close = lambda: None
            if offered and chosen is None:
                self.end(Verdict(CloseCode.WRONG_SUBPROTOCOL, f"this server speaks {SUBPROTOCOL_JSON}"))
            return True
        return False

    async def _converse(self) -> None:
        hello = await self._expect_hello()
        server = self._server
        # Seqs of another database mean nothing here.
        since = hello.since if hello.epoch == server.epoch else None
        topics = TOPICS if hello.topics is None else hello.topics
        cursor = server.hub.attach(topics, since=since, min_level=hello.min_level)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, cursor)
                nursery.start_soon(self._ping)
                # Always receiving, whatever else happens: pongs and closes come this way too.
                while True:
                    self._handle(await self._next_message(), cursor)
        finally:
            server.hub.detach(cursor)

    # -- its side

    async def _expect_hello(self) -> Hello:
        message: ClientMessage | None = None
        with trio.move_on_after(self._limits.hello_s):
            message = await self._next_message()
        if message is None:
            await self._refuse(CloseCode.TOO_SLOW, f"no hello within {self._limits.hello_s:g} s")
        if not isinstance(message, Hello):
            await self._refuse(CloseCode.BAD_MESSAGE, "the first message must be a hello")
        if not self._authorized and not self._server.admits(message.token):
            await self._refuse(CloseCode.BAD_TOKEN, "the token is missing or wrong")
        return message

    async def _next_message(self) -> ClientMessage:
        assert self._websocket is not None
        text = await self._websocket.get_message()
        if not isinstance(text, str):
            await self._refuse(CloseCode.BAD_MESSAGE, f"{SUBPROTOCOL_JSON} has text messages only")
        try:
            return decode_client(text)
        except BadMessage as error:
            await self._refuse(CloseCode.BAD_MESSAGE, str(error))

    def _handle(self, message: ClientMessage, cursor: Cursor) -> None:
        match message:
            case Sub(topics):
                unknown = self._server.hub.follow(cursor, topics)
                if unknown:
                    self._notices.append(encode(Error(CloseCode.UNKNOWN_TOPIC, f"unknown: {', '.join(unknown)}")))
            case Unsub(topics):
                self._server.hub.unfollow(cursor, topics)
            case Ping():
                self._notices.append(self._heartbeat())
            case Hello():
                self.end(Verdict(CloseCode.CONFLICT, "there was a hello already"))
            case _:
                assert_never(message)
        cursor.wake()

    async def _refuse(self, code: int, reason: str) -> NoReturn:
        self.end(Verdict(code, reason))
        await trio.sleep_forever()  # not for ever: `end` has cancelled the talk

    # -- our side

    async def _send(self, cursor: Cursor) -> None:
        """The only task that sends messages while the talk goes on."""
        hub = self._server.hub
        messages = [encode(Welcome(PROTOCOL, self._server.epoch, self._server.now_us(), tuple(cursor.seqs)))]
        while True:
            for message in messages:
                await self._send_one(message)
            # Between this look and the wait is no await, so nothing can be published unseen.
            messages = [*self._notices, *hub.pending(cursor, limit=BATCH)]
            self._notices.clear()
            if not messages:
                with trio.move_on_after(self._limits.heartbeat_s) as quiet:
                    await cursor.wait()
                if quiet.cancelled_caught:
                    messages = [self._heartbeat()]

    async def _send_one(self, message: bytes) -> None:
        assert self._websocket is not None
        await self._websocket.send_message(message.decode())

    def _heartbeat(self) -> bytes:
        return encode(Heartbeat(self._server.now_us()))

    async def _ping(self) -> None:
        assert self._websocket is not None
        while True:
            await trio.sleep(self._limits.ping_s)
            with trio.move_on_after(self._limits.pong_s) as patience:
                await self._websocket.ping()
            if patience.cancelled_caught:
                await self._refuse(CloseCode.TOO_SLOW, f"no pong within {self._limits.pong_s:g} s")

    async def _say_goodbye(self) -> None:
        """The last message and the close, if the client is still there; on a broken line the pipe lets nothing out."""
        if self._verdict is None or self._websocket is None:
            return
        code, reason = self._verdict
        last = Bye(reason, retry_after_s=1.0) if code == CloseCode.GOING_AWAY else Error(code, reason)
        with trio.move_on_after(self._limits.close_s), suppress(ConnectionClosed):
            await self._send_one(encode(last))
            await self._websocket.aclose(code, reason)


def _bearer(authorization: str | None) -> str | None:
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


# -- all of them


class _Server:
    """What the connections share."""

    def __init__(
        self,
        hub: Hub,
        token: str | None,
        epoch: str,
        now_us: Callable[[], int],
        limits: ServerLimits,
        statistics: ServerStatistics,
    ) -> None:
        self.hub = hub
        self.epoch = epoch
        self.now_us = now_us
        self.limits = limits
        self.statistics = statistics
        self._token = token.encode() if token else None
        self._connections: set[_Connection] = set()
        self._stopping = False

    def admits(self, token: str | None) -> bool:
        """Whether whoever shows this token may listen."""
        if self._token is None:
            return True
        return token is not None and hmac.compare_digest(token.encode(), self._token)

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, and nothing that happens in it reaches the others. The caller closes the stream."""
        if self._stopping:  # accepted in the last moment, so `stop` has not seen it
            return
        if len(self._connections) >= self.limits.connections:
            self.statistics.refused += 1
            # The request is not even read: those beyond the cap may cost no more than this.
            full = _Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", "Retry-After: 5")
            with trio.move_on_after(self.limits.close_s), suppress(trio.BrokenResourceError):
                await stream.send_all(full.response)
                await stream.send_eof()
            return
        connection = _Connection(self, stream)
        self._connections.add(connection)
        self.statistics.connections += 1
        try:
            await connection.run()
        # Broad, and the only place that is: whatever a client makes the library or us raise ends that client alone.
        except* Exception as group:  # noqa: BLE001
            _log.debug("a status connection failed", exc_info=group)
        finally:
            self._connections.discard(connection)
            self.statistics.connections -= 1
            if connection.close_code is None:
                self.statistics.refused += 1
            else:
                self.statistics.closed[connection.close_code] += 1

    def stop(self) -> None:
        self._stopping = True
        for connection in self._connections:
            connection.end(Verdict(CloseCode.GOING_AWAY, "the server stops"))


async def serve_status(
    hub: Hub,
    port: int,
    *,
    token: str | None = None,
    epoch: str,
    now_us: Callable[[], int],
    limits: ServerLimits = ServerLimits(),  # noqa: B008  frozen
    statistics: ServerStatistics | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the stream on 127.0.0.1 until cancelled; `port` 0 takes a free one. Started, it reports the real port.

    Cancelled, it takes up to `limits.close_s` to say goodbye to everybody. With no `token` (None or empty) whoever
    reaches the port may listen. `statistics`, if given, is kept up to date.

    Raises: `ConfigError` when the port is none or cannot be bound; `OSError` when accepting fails for good.
    """
    if not 0 <= port <= 65_535:  # the resolver would take it modulo 65,536
        raise ConfigError("port", f"{port!r} is not between 0 and 65535")
    try:
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    except OSError as error:
        raise ConfigError("port", f"127.0.0.1:{port} cannot be bound: {error}") from error
    server = _Server(hub, token, epoch, now_us, limits, statistics or ServerStatistics())
    async with trio.open_nursery() as connections:
        try:
            task_status.started(listeners[0].socket.getsockname()[1])
            await trio.serve_listeners(server.serve, listeners, handler_nursery=connections)
        finally:
            # The listeners are closed by now. The connections are shielded, and the nursery waits for them.
            server.stop()
