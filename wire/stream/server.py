"""The server of the status stream: accepting, one conversation per client, shutdown.

trio-websocket does the handshake, inbound frames, control frames and the close. Its
`serve_websocket` is not used: there one handler's exception, or a ping after our close, ends the
server for every client. Its `send_message` is not used either: it frames each message for each
client, and the hub has framed them once for all. Here each connection has its own nursery. That
nursery is shielded from the server's cancellation, so that the client still gets a last message and
a close, and every wait in it has a deadline.

Durations are seconds on trio's clock. The domain's clock is read only for the timestamps that are
sent.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import NoReturn, assert_never

import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from ...runtime import ConfigError
from ..errors import BadMessage
from .frames import FrameStream, frame_of
from .http import (
    HttpRefusal,
    PlainRequest,
    UpgradeRequest,
    check_token,
    encode_answer,
    is_admitted,
    read_request,
)
from .hub import Cursor, Hub
from .limits import ServerLimits
from .listening import HeldPort
from .protocol import (
    BACKLOG,
    PROCESS_TOPICS,
    PROTOCOL,
    SUBPROTOCOL_JSON,
    TOPICS,
    Bye,
    ClientMessage,
    CloseCode,
    Error,
    Get,
    Heartbeat,
    Hello,
    Ping,
    Series,
    Sub,
    Unsub,
    Verdict,
    Welcome,
    decode_client,
    encode,
)
from .site import Site, answer

__all__ = ["ServerStatistics", "choose_subprotocol", "last_message", "serve_status"]

# Bytes that are taken from the hub at once, if no single message is larger. A client that stalls
# halfway keeps only these in memory.
BATCH_BYTES = 64 * 1024
# Connections that are pushed to before other tasks have their turn: about half a millisecond.
PUSHES_MAX = 64
# Answers to pings and to unknown topics that wait while a client does not read. The oldest beyond
# them are left out: a client may ask 10 times a second, and has 10 s to take one message.
NOTICES_MAX = 16
NOTICES_BYTES = 128 * 1024  # one long series, and some answers beside it

# Requests on one connection that are answered. A client that asks more often connects again, so
# that the cap on connections bounds its work too.
REQUESTS_MAX = 100

_ABNORMAL = 1006  # RFC 6455, section 7.1.5: the connection ended without a close frame

_log = logging.getLogger("fundops.status")


class ServerStatistics(msgspec.Struct):
    """Counters since the server started, kept up to date in place."""

    connections: int = 0  # open now, handshakes included
    refused: int = 0  # ended before they became a websocket or got an answer
    answered: int = 0  # plain requests, as for the page
    closed: Counter[int] = msgspec.field(
        default_factory=Counter
    )  # websockets by close code; 1006: no close frame
    left_out: int = 0  # answers that clients did not take in time


def choose_subprotocol(offered: Iterable[str]) -> str | None:
    """Our subprotocol if the client offers it, else None."""
    return SUBPROTOCOL_JSON if SUBPROTOCOL_JSON in offered else None


def last_message(verdict: Verdict) -> Bye | Error:
    """The message before the close: `Bye` when the server stops, else `Error`."""
    if verdict.code == CloseCode.GOING_AWAY:
        return Bye(verdict.reason, retry_after_s=1.0)
    return Error(verdict.code, verdict.reason)


# -- one client


class _Connection:
    """One client from its first byte to its last."""

    def __init__(self, server: _Server, stream: trio.SocketStream) -> None:
        self._server = server
        self._limits = server.limits
        self._stream = stream
        self._frames: FrameStream | None = None
        self._websocket: WebSocketConnection | None = None
        self._verdict: Verdict | None = None
        self._authorized = False
        self.answered = False  # a plain request was answered
        self._cursor: Cursor | None = None  # during the conversation
        self._beat: bytes | None = None  # the heartbeat that waits
        self._idle = False  # the sender waits, so `push` may send
        self._pushed = trio.Event()  # the sender is to go on
        self._notices: deque[bytes] = deque()  # framed; at most NOTICES_MAX
        self._left_out = False  # whether it was logged that an answer was left out
        self._conversation = trio.CancelScope()

    def end(self, verdict: Verdict) -> None:
        """End the conversation, tell the client why, and close within `close_s`.

        The first verdict stands.
        """
        if self._verdict is None:
            self._verdict = verdict
            self._conversation.cancel()

    @property
    def close_code(self) -> int | None:
        """The code that it ended with; None when there was no websocket.

        1006: without a close frame.
        """
        if self._websocket is None:
            return None
        if self._verdict is not None:
            return self._verdict.code
        return self._websocket.closed.code if self._websocket.closed is not None else _ABNORMAL

    async def run(self) -> None:
        """Serve the client until the connection ends.

        Raises: errors of the library, in exception groups. The caller keeps them from the other
        connections.
        """
        # Shielded, so that the server's cancellation leaves time for the last message; `end` ends
        # the conversation.
        with trio.CancelScope(shield=True):
            # This nursery runs the library's reader until after the last message.
            async with trio.open_nursery() as nursery:
                try:
                    with self._conversation:
                        if await self._shake_hands(nursery):
                            await self._converse()
                except* ConnectionClosed:
                    if self._frames is not None and self._frames.stalled:
                        self.end(Verdict(CloseCode.TOO_SLOW, "bytes were not taken in time"))
                await self._say_goodbye()
                nursery.cancel_scope.cancel()

    async def _shake_hands(self, nursery: trio.Nursery) -> bool:
        """Whether the connection became a websocket; False: it was refused, or took too long."""
        with trio.move_on_after(self._limits.handshake_s) as deadline:
            request = await self._answer_requests(deadline)
            if request is None:
                return False
            self._authorized = self._server.admits(request.token)
            self._frames = FrameStream(self._stream, request.head, self._limits, self.end)
            # The library answers an incomplete upgrade with a refusal and closes, but does not wake
            # this task.
            self._frames.on_close = deadline.cancel
            proposal = await wrap_server_stream(
                nursery, self._frames, max_message_size=self._limits.message_bytes
            )
            offered = proposal.proposed_subprotocols
            chosen = choose_subprotocol(offered)
            self._websocket = await proposal.accept(subprotocol=chosen)
            self._frames.on_close = lambda: None
            if offered and chosen is None:
                self.end(
                    Verdict(CloseCode.WRONG_SUBPROTOCOL, f"this server speaks {SUBPROTOCOL_JSON}")
                )
            return True
        return False

    async def _answer_requests(self, deadline: trio.CancelScope) -> UpgradeRequest | None:
        """Answer plain requests until one asks for the websocket; None: the connection ends."""
        site, left = self._server.site, b""
        for number in range(1, REQUESTS_MAX + 1):
            request = await read_request(
                self._stream, self._limits.head_bytes, site.hosts, begun=left
            )
            match request:
                case UpgradeRequest():
                    return request
                case HttpRefusal():
                    await _send_refusal(self._stream, request)
                    return None
                case PlainRequest(path, host, token, keeps, left, wants_body):
                    admitted = self._server.admits(token)
                    refusal = check_token(path, admitted=admitted)
                    found = None if refusal is not None else answer(site, path, host)
                    if found is None:
                        nothing = HttpRefusal(HTTPStatus.NOT_FOUND, f"there is no {path} here")
                        refusal = (refusal or nothing)._replace(has_body=wants_body)
                        await _send_refusal(self._stream, refusal)
                        return None
                    keeps = keeps and number < REQUESTS_MAX
                    self.answered = True
                    self._server.statistics.answered += 1
                    await self._stream.send_all(
                        encode_answer(found, keeps=keeps, has_body=wants_body)
                    )
                    if not keeps:
                        return None
                    deadline.deadline = trio.current_time() + self._limits.handshake_s
                case _:
                    assert_never(request)
        return None

    async def _converse(self) -> None:
        hello = await self._expect_hello()
        server = self._server
        # The seqs that a client saw in another database do not apply to this one.
        since = hello.since if hello.epoch == server.epoch else None
        topics = TOPICS if hello.topics is None else hello.topics
        cursor = server.hub.attach(
            topics, since=since, min_level=hello.min_level, backlog=hello.backlog
        )
        self._cursor = cursor
        cursor.on_wake = partial(server.ready, self)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, cursor)
                nursery.start_soon(self._ping)
                # Always receiving, because pongs and closes arrive here too.
                while True:
                    await self._handle(await self._next_message(), cursor)
        finally:
            self._cursor, self._idle = None, False
            server.hub.detach(cursor)

    # -- receiving

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

    async def _handle(self, message: ClientMessage, cursor: Cursor) -> None:
        hub = self._server.hub
        match message:
            case Sub(topics=topics, keys=keys):
                unknown = hub.follow(cursor, topics, backlog=BACKLOG) + hub.ask(cursor, keys)
                if unknown:
                    self._tell_unknown(f"unknown: {', '.join(unknown)}")
            case Unsub(topics):
                hub.unfollow(cursor, topics)
            case Get():
                series = await self._server.series(message)
                if series is None:
                    self._tell_unknown(f"no series {message.series!r} over {message.range!r}")
                else:
                    self._answer(encode(series))
            case Ping():
                self._answer(self._server.heartbeat())
            case Hello():
                self.end(Verdict(CloseCode.CONFLICT, "there was a hello already"))
            case _:
                assert_never(message)
        cursor.wake()

    def _tell_unknown(self, text: str) -> None:
        self._answer(encode(Error(CloseCode.UNKNOWN_TOPIC, text)))

    def _answer(self, notice: bytes) -> None:
        """Send it when the client takes bytes; for want of room the oldest one is left out."""
        waiting = sum(map(len, self._notices))
        while self._notices and (
            len(self._notices) >= NOTICES_MAX or waiting + len(notice) > NOTICES_BYTES
        ):
            waiting -= len(self._notices.popleft())
            if not self._left_out:
                self._left_out = True
                _log.warning(
                    "a client of the status stream asks more than it reads: answers are left out"
                )
            self._server.statistics.left_out += 1
        self._notices.append(frame_of(notice))

    async def _refuse(self, code: int, reason: str) -> NoReturn:
        self.end(Verdict(code, reason))
        await trio.sleep_forever()  # raises Cancelled at once: `end` has cancelled the conversation

    # -- sending

    async def _send(self, cursor: Cursor) -> None:
        """Send the welcome and then what `push` could not send without waiting."""
        server = self._server
        since = {
            topic: seq
            for topic, seq in cursor.seqs.items()
            if seq is not None and topic not in PROCESS_TOPICS
        }
        welcome = Welcome(PROTOCOL, server.epoch, server.now_us(), tuple(cursor.seqs), since)
        await self._send_frames(frame_of(encode(welcome)))
        while True:
            # No await between the look and the wait, so nothing is published unnoticed between
            # them.
            frames = self._pending(cursor)
            if not frames:
                self._idle = True
                await self._pushed.wait()
                self._pushed = trio.Event()
            await self._send_frames(frames)

    def _pending(self, cursor: Cursor) -> bytes:
        frames = self._server.hub.take(cursor, BATCH_BYTES)
        if not self._notices and self._beat is None:
            return frames
        frames = b"".join((*self._notices, frames, self._beat or b""))
        self._notices.clear()
        self._beat = None
        return frames

    def push(self) -> None:
        """Send pending frames as far as the socket takes them; the sender does the rest.

        A wake-up of each client's task would cost more than its write.
        """
        if not self._idle or self._cursor is None:
            return  # the sender looks again when it is done
        assert self._websocket is not None
        assert self._frames is not None
        while frames := self._pending(self._cursor):
            if self._websocket.closed is not None or not self._frames.send_now(frames):
                self._idle = False
                self._pushed.set()
                return
            if len(frames) < BATCH_BYTES and not self._cursor.details:
                return  # these were all

    async def _send_frames(self, frames: bytes) -> None:
        """Raises: `ConnectionClosed`, when the library or the socket has closed."""
        assert self._websocket is not None
        assert self._frames is not None
        if self._websocket.closed is None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._frames.send_all(frames)
                return
        raise ConnectionClosed(self._websocket.closed)

    def beat(self, frame: bytes) -> None:
        """Send this heartbeat next; one that still waits is replaced."""
        if self._cursor is not None:
            self._beat = frame
            self._cursor.wake()

    async def _ping(self) -> None:
        assert self._websocket is not None
        while True:
            await trio.sleep(self._limits.ping_s)
            with trio.move_on_after(self._limits.pong_s) as deadline:
                await self._websocket.ping()
            if deadline.cancelled_caught:
                await self._refuse(CloseCode.TOO_SLOW, f"no pong within {self._limits.pong_s:g} s")

    async def _say_goodbye(self) -> None:
        """Send the last message and the close, if the client is still there.

        After half a frame `FrameStream` refuses to send either.
        """
        if self._verdict is None or self._websocket is None:
            return
        with trio.move_on_after(self._limits.close_s), suppress(ConnectionClosed):
            await self._send_frames(frame_of(encode(last_message(self._verdict))))
            await self._websocket.aclose(self._verdict.code, self._verdict.reason)


async def _send_refusal(stream: trio.SocketStream, refusal: HttpRefusal) -> None:
    await stream.send_all(refusal.encode())
    await stream.send_eof()


# -- all clients


class _Server:
    """The state that all connections share, and the register of those that are open."""

    def __init__(
        self,
        hub: Hub,
        token: str | None,
        epoch: str,
        now_us: Callable[[], int],
        limits: ServerLimits,
        statistics: ServerStatistics,
        site: Site = Site(),  # noqa: B008  frozen
        tick_age_s: Callable[[], float | None] = lambda: None,
        series: Callable[[Get], Awaitable[Series | None]] | None = None,
    ) -> None:
        self.site = site
        self._tick_age_s = tick_age_s
        self._series = series
        self.hub = hub
        self.epoch = epoch
        self.now_us = now_us
        self.limits = limits
        self.statistics = statistics
        self._token = token
        self._connections: set[_Connection] = set()
        self._ready: dict[_Connection, None] = {}  # those with news, in order
        self._news = trio.Event()
        self._stopping = False

    def admits(self, token: str | None) -> bool:
        """Whether a client that shows this token may listen."""
        return is_admitted(token, self._token)

    async def series(self, get: Get) -> Series | None:
        """The answer to `Get`; None: there is no such series."""
        return None if self._series is None else await self._series(get)

    def heartbeat(self) -> bytes:
        """The encoded heartbeat of now."""
        return encode(Heartbeat(self.now_us(), self.hub.wall_us(), self._tick_age_s()))

    def ready(self, connection: _Connection) -> None:
        """Let the fan-out push to this connection."""
        self._ready[connection] = None
        self._news.set()

    async def fan_out(self) -> None:
        """Push to the connections with news: all of them in one turn of the loop, or in a few."""
        while True:
            await self._news.wait()
            self._news, ready, self._ready = trio.Event(), self._ready, {}
            for number, connection in enumerate(ready, start=1):
                connection.push()
                if number % PUSHES_MAX == 0:
                    await trio.lowlevel.checkpoint()

    async def beat(self) -> None:
        """Send every client the same heartbeat at each interval."""
        while True:
            await trio.sleep(self.limits.heartbeat_s)
            frame = frame_of(self.heartbeat())
            for connection in self._connections:
                connection.beat(frame)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection.

        Its errors do not reach the other connections. The caller closes the stream.
        """
        if self._stopping:  # accepted while the server stopped, so `stop` did not end it
            return
        if len(self._connections) >= self.limits.connections:
            self.statistics.refused += 1
            # The request is not read: a connection beyond the cap may cost no more than this
            # answer.
            full = HttpRefusal(
                HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", ("Retry-After: 5",)
            )
            with trio.move_on_after(self.limits.close_s), suppress(trio.BrokenResourceError):
                await _send_refusal(stream, full)
            return
        connection = _Connection(self, stream)
        self._connections.add(connection)
        self.statistics.connections += 1
        try:
            await connection.run()
        # Deliberately broad: any error that a client provokes, in the library or here, ends only
        # that client.
        except* Exception as group:  # noqa: BLE001
            _log.debug("a status connection failed", exc_info=group)
        finally:
            self._connections.discard(connection)
            self.statistics.connections -= 1
            if connection.close_code is None:
                self.statistics.refused += not connection.answered
            else:
                self.statistics.closed[connection.close_code] += 1

    def stop(self) -> None:
        """End every connection with a `Bye`, and accept no more."""
        self._stopping = True
        for connection in self._connections:
            connection.end(Verdict(CloseCode.GOING_AWAY, "the server stops"))


async def serve_status(
    hub: Hub,
    port: int | trio.SocketListener,
    *,
    token: str | None = None,
    epoch: str,
    now_us: Callable[[], int],
    limits: ServerLimits = ServerLimits(),  # noqa: B008  frozen
    statistics: ServerStatistics | None = None,
    site: Site = Site(),  # noqa: B008  frozen
    tick_age_s: Callable[[], float | None] = lambda: None,
    series: Callable[[Get], Awaitable[Series | None]] | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the stream, and the `site` beside it, on 127.0.0.1 until cancelled.

    `port` 0 takes a free one, and a listener that is given is closed at the end; `nursery.start`
    returns the real port.

    When cancelled, it takes up to `limits.close_s` to send each client a `Bye` and a close. With no
    `token` (None or empty) every client that reaches the port may listen. `now_us` gives the
    domain's time for the messages, `epoch` names the database that the event seqs belong to.
    `tick_age_s` gives the age of the fund's last tick for the heartbeats, `series` answers a `Get`
    (None: there are no series). `statistics`, if given, is kept up to date.

    Raises: `ConfigError` when the port is out of range or cannot be bound; `OSError` when the
    system refuses to accept any more connections.
    """
    if isinstance(port, trio.SocketListener):
        listener = port
    else:
        held = HeldPort(port)
        try:
            listener = held.listener()
        except OSError as error:
            raise ConfigError("port", str(error.strerror)) from error
        finally:
            held.close()
    kept = statistics or ServerStatistics()
    server = _Server(hub, token, epoch, now_us, limits, kept, site, tick_age_s, series)
    async with trio.open_nursery() as connections:
        try:
            task_status.started(listener.socket.getsockname()[1])
            connections.start_soon(server.beat)
            connections.start_soon(server.fan_out)
            await trio.serve_listeners(server.serve, [listener], handler_nursery=connections)
        finally:
            # The listener is closed now. The connections are shielded, so the nursery waits for
            # their goodbyes.
            server.stop()
