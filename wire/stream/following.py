"""A client of the status stream that connects again by itself and loses no durable event.

    async with StatusClient("ws://127.0.0.1:8711/ws", token=token) as client:
        async for message in client:
            match message:
                case Event(topic="alerts", data=AlertEvent() as alert): ...
                case Snapshot() | Delta() | Patch(): print(client.fund())

Events of the topics that have rows in the database come once each and in order, also across
restarts of the fund: the client resumes after the last one it gave. A `Gap` names those that the
server no longer holds. Events of `nav`, `deliveries` and `restarts` are never resumed: after each
connection the newest of them come again. Durations are seconds on trio's clock.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any

import msgspec
import trio

from ..alert import Level
from ..errors import BadMessage, StatusClosed
from .client import open_status, parse_url, sent_nonsense
from .protocol import (
    BACKLOG,
    PROCESS_TOPICS,
    Bye,
    CloseCode,
    Delta,
    Event,
    Gap,
    Patch,
    ServerMessage,
    Snapshot,
    Welcome,
)
from .records import EVENTS, STATES, Fund

__all__ = ["StatusClient", "merged", "retry_s"]

RETRY_MIN_S, RETRY_MAX_S = 1.0, 15.0
# Messages that wait for the program. When it is full the client reads no more, and the server
# conflates states meanwhile.
QUEUE_MAX = 64

# Trying again would get the same answer.
_FINAL = frozenset(
    {
        400,
        401,
        403,
        404,
        421,
        CloseCode.BAD_MESSAGE,
        CloseCode.BAD_TOKEN,
        CloseCode.WRONG_SUBPROTOCOL,
        CloseCode.CONFLICT,
    }
)


def retry_s(attempt: int, rng: random.Random) -> float:
    """The wait before this attempt to connect again, 1 for the first: 1, 2, 4, 8, 15 s.

    Half of it is random, so that the clients of a fund do not all come back at once.
    """
    most: float = min(RETRY_MAX_S, RETRY_MIN_S * 2 ** min(attempt - 1, 10))
    return most * rng.uniform(0.5, 1.0)


def merged(state: Mapping[str, Any], message: Snapshot | Delta | Patch) -> dict[str, Any]:
    """The copy of a state topic after a message about it.

    Raises: `BadMessage` for changed fields of a value that is no record.
    """
    match message:
        case Snapshot(state=whole):
            return dict(whole)
        case Delta(key=key, value=None):
            return {name: value for name, value in state.items() if name != key}
        case Delta(key=key, value=value):
            return {**state, key: value}
        case Patch(key=key, value=fields):
            before = state.get(key, {})
            if not isinstance(before, Mapping):
                raise BadMessage(f"fields of {key!r}, which is no record")
            record = {**before, **fields}
            # A null gives the field its default, as if it had been left out.
            return {
                **state,
                key: {name: value for name, value in record.items() if value is not None},
            }


class StatusClient:
    """An async iterator over the messages of the stream, which survives lost connections.

    `states` are the client's copies of the state topics as of the message given last. The data of
    an event is its record of `records.py`; a record that this version cannot read stays as it came.
    The parameters are those of `open_status`.

    Raises: `ConfigError` for a URL that is not ``ws://host:port/path``; from the iteration
    `StatusClosed` when the server refuses the client and would refuse it again, or sends
    what makes no sense.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        topics: Iterable[str] | None = None,
        min_level: Level | None = None,
        backlog: int = BACKLOG,
        rng: random.Random | None = None,
    ) -> None:
        parse_url(url)
        self._url = url
        self._token = token
        self._topics = None if topics is None else tuple(topics)
        self._min_level = min_level
        self._backlog = backlog
        self._rng = rng or random.Random()
        self._stack = AsyncExitStack()
        self._inbox: trio.MemoryReceiveChannel[ServerMessage | StatusClosed] | None = None
        self._since: dict[str, int] = {}  # the last seq taken from the server, by event topic
        self._retry_after_s = 0.0
        self.epoch: str | None = None  # of the database; None: never connected
        self.connected = False
        self.connections = 0  # since the start
        self.states: dict[str, dict[str, Any]] = {}

    async def __aenter__(self) -> StatusClient:
        nursery = await self._stack.enter_async_context(trio.open_nursery())
        self._stack.callback(nursery.cancel_scope.cancel)
        outbox, self._inbox = trio.open_memory_channel[ServerMessage | StatusClosed](QUEUE_MAX)
        nursery.start_soon(self._run, outbox)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._stack.__aexit__(None, None, None)
        finally:
            self.connected = False

    def __aiter__(self) -> StatusClient:
        return self

    async def __anext__(self) -> ServerMessage:
        assert self._inbox is not None, "use it in `async with`"
        try:
            message = await self._inbox.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        match message:
            case StatusClosed():
                raise message
            case Welcome(epoch=epoch):
                if epoch != self.epoch:
                    self.states = {}
                self.epoch = epoch
            case Snapshot(topic=topic) | Delta(topic=topic) | Patch(topic=topic):
                try:
                    self.states[topic] = merged(self.states.get(topic, {}), message)
                except BadMessage as error:
                    raise sent_nonsense(error) from error
            case _:
                pass
        return message

    def record(self, topic: str, key: str) -> Any:
        """The typed record of a key of a state topic; None: there is no such key.

        Raises: `msgspec.ValidationError` when a newer server sends what this version cannot read.
        """
        value = self.states.get(topic, {}).get(key)
        return None if value is None else msgspec.convert(value, STATES[topic])

    def fund(self) -> Fund | None:
        """The topic `fund`; None before its first snapshot. Raises: as `record`."""
        state = self.states.get("fund")
        return None if not state else msgspec.convert(state, Fund)

    # -- the connection

    async def _run(self, outbox: trio.MemorySendChannel[ServerMessage | StatusClosed]) -> None:
        async with outbox:
            await self._follow(outbox)

    async def _follow(self, outbox: trio.MemorySendChannel[ServerMessage | StatusClosed]) -> None:
        epoch: str | None = None
        failures = 0
        while True:
            self._retry_after_s = 0.0
            try:
                async with open_status(
                    self._url,
                    token=self._token,
                    topics=self._topics,
                    epoch=epoch,
                    since=self._since,
                    min_level=self._min_level,
                    backlog=self._backlog,
                ) as messages:
                    async for message in messages:
                        if isinstance(message, Welcome):
                            self.connected, failures = True, 0
                            self.connections += 1
                            epoch, self._since = message.epoch, dict(message.since)
                        await outbox.send(self._noted(message))
            except StatusClosed as closed:
                if closed.code in _FINAL:
                    await outbox.send(closed)
                    return
            finally:
                self.connected = False
            failures += 1
            await trio.sleep(max(self._retry_after_s, retry_s(failures, self._rng)))

    def _noted(self, message: ServerMessage) -> ServerMessage:
        match message:
            case Event(topic=topic, seq=seq, data=data):
                if topic not in PROCESS_TOPICS:
                    self._since[topic] = seq
                return Event(topic, seq, _typed(topic, data))
            case Gap(topic=topic, to_seq=to_seq):
                self._since[topic] = to_seq
            case Bye(retry_after_s=retry_after_s):
                self._retry_after_s = min(RETRY_MAX_S, retry_after_s)
            case _:
                pass
        return message


def _typed(topic: str, data: Any) -> Any:
    try:
        return msgspec.convert(data, EVENTS[topic]) if topic in EVENTS else data
    except msgspec.ValidationError:
        return data
