"""The status actor: streams published states and durable events to the clients.

Nothing that it streams arrives as a message. States stand on a board, where a newer one takes the
place of an older one. Events are rows: after each commit the actor gets `StatusNews`, and reads the
new rows of the tables behind the event topics itself, page by page. So no client sees an event
before its transaction committed, and none is lost on the way here.

It has the states refreshed after commits and once a second, so they are as of now without a tick.

The stream's server runs in a nursery of the owner that outlives the actor, on a port that the owner
holds. A port that is taken, a read that fails and a value that cannot be sent do not crash the
actor: it tries again, at growing intervals, at the next commit and with the next value.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import msgspec
import trio

from ...runtime import (
    Actor,
    ActorError,
    Clock,
    ThreadWorker,
    Timer,
    Worker,
    handles,
    handles_batch,
    undisturbed,
)
from ...runtime.errors import text_of
from ...wire.alert import Level
from ...wire.errors import DatabaseError, PortTaken
from ...wire.money import from_minor
from ...wire.oversight import ShowStatus
from ...wire.status import StatusNews, StatusPort
from ...wire.stream.hub import RING_SIZE, Hub
from ...wire.stream.limits import ServerLimits
from ...wire.stream.listening import HeldPort
from ...wire.stream.protocol import EventTopic
from ...wire.stream.server import ServerStatistics, serve_status
from ..persistence import Reader, meta
from .board import StatusBoard

__all__ = ["PAGE_ROWS", "StatusActor"]

# Rows per page. A page is encoded in about half a millisecond; a longer burst would delay the
# loop's other tasks too much.
PAGE_ROWS = 256

# Between two attempts to take the port; each waits twice as long as the one before.
RETRY_MIN_S, RETRY_MAX_S = 0.5, 30.0

# States are refreshed at this interval, and after a commit at most at the shorter one.
REFRESH_EVERY_S, REFRESH_MIN_S = 1.0, 0.2
# Oversight may crash over the question. Then it is asked again.
ANSWER_S = 5.0

_JSON_COLUMNS = frozenset({"payload", "metrics", "evaluation"})
_LEVELS = {level.value: level for level in Level}

_log = logging.getLogger("fundops.status")


class _Refresh(msgspec.Struct, frozen=True):
    """Have the states published as they are now."""


class _Listen(msgspec.Struct, frozen=True):
    """Try to take the port and to serve."""


class _Figures(msgspec.Struct):
    """The fields of a journal payload that hold amounts, as the ledger stores them."""

    # account, strategy, asset, minor units
    legs: list[tuple[str, str | None, str, int]]
    # strategy, instrument, id, then quantity, cost and mark in units of 1e-8
    lots: list[tuple[str | None, str, int, int, int, int]] = []


_FIGURES = msgspec.json.Decoder(_Figures)


class _Source(NamedTuple):
    """The table behind an event topic."""

    topic: EventTopic
    table: str
    seq: str  # the rowid's column
    columns: tuple[str, ...] | None = None  # None: all that the table has


_SOURCES = (
    _Source(
        "alerts",
        "alert",
        "id",
        ("id", "at_us", "level", "category", "title", "message", "strategy", "outcome"),
    ),
    _Source(
        "journal",
        "entry",
        "seq",
        ("seq", "key", "recorded_us", "day", "kind", "strategy", "payload"),
    ),
    _Source("promotions", "promotion_history", "seq"),
    _Source("recovery_events", "recovery_event", "seq"),
)


class _Feed(NamedTuple):
    """A source whose columns were read from the database."""

    source: _Source
    columns: tuple[str, ...]

    @property
    def page_sql(self) -> str:
        """The query for the page of rows after a seq, oldest first."""
        table, seq = self.source.table, self.source.seq
        names = ", ".join(f'"{name}"' for name in (seq, *self.columns))
        return f'SELECT {names} FROM "{table}" WHERE "{seq}" > ? ORDER BY 1 LIMIT {PAGE_ROWS}'


def _reader_thread() -> Worker:
    return ThreadWorker("fundops-status-reader")


class StatusActor(Actor):
    """Owns the hub, a reading connection to the database, and the running server.

    `nursery`, `board` and `port` must outlive the actor. With `token` None or empty every client
    that reaches the port may listen. The database must have its uuid in `meta` when the actor
    starts.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        port: HeldPort,
        token: str | None = None,
        *,
        nursery: trio.Nursery,
        board: StatusBoard,
        limits: ServerLimits = ServerLimits(),  # noqa: B008  frozen
        make_worker: Callable[[], Worker] = _reader_thread,
    ) -> None:
        self._path = path
        self._clock = clock
        self._port = port
        self._token = token
        self._nursery = nursery
        self._board = board
        self._limits = limits
        self._make_worker = make_worker
        self._worker: Worker | None = None
        self._reader: Reader | None = None
        self._hub = Hub()
        self._feeds: dict[str, _Feed] = {}
        self._faults: dict[str, str] = {}  # by topic; "": of the port
        self._published: dict[str, Mapping[str, Any]] = {}
        self._soon: Timer | None = None
        self._asked_s = -math.inf
        self._asked_at_shown = -1
        self._epoch = ""
        self._retry_s = RETRY_MIN_S
        self._serving = trio.CancelScope()
        self._served: trio.Event | None = None  # set when the server ends; None: never started
        self.statistics = ServerStatistics()

    async def on_start(self) -> None:
        """Open the database, read recent events, and start the server if the port is free.

        Raises: `DatabaseError` when the database has no uuid.
        """
        self._worker = self._make_worker()
        self._reader = await self._worker.run(partial(Reader, self._path))
        self._epoch = await self._worker.run(partial(_uuid, self._reader, self._path))
        # Before the first client can ask.
        self._publish_states()
        await self._catch_up()
        # The states change without a tick too, as the queues of the actors do.
        self.context.every(REFRESH_EVERY_S, _Refresh())
        await self.listen(_Listen())

    async def on_stop(self, reason: str) -> None:
        """Stop the server, with a goodbye to its clients, and close the database."""
        self._serving.cancel()
        if self._served is not None:
            await self._served.wait()
        if self._worker is not None:
            if self._reader is not None:
                await self._worker.run(self._reader.close)
            self._worker.stop()

    @handles_batch(StatusNews)
    async def look(self, messages: list[StatusNews]) -> list[None]:
        """Publish the states that changed and all new rows, and have the states refreshed soon."""
        self._publish_states()
        await self._catch_up()
        # A commit changes what the states are made of. A busy fund commits a thousand times a
        # second, so they are refreshed a few times a second at most.
        if self._soon is None or not self._soon.active:
            self._soon = self.context.after(REFRESH_MIN_S, _Refresh())
        return [None] * len(messages)

    @handles(_Refresh)
    def refresh(self, _: _Refresh) -> None:
        """Have oversight publish the states as they are now, unless it is asked already."""
        now_s = trio.current_time()
        unanswered = self._asked_at_shown == self._board.shown
        if unanswered and now_s < self._asked_s + ANSWER_S:
            return
        with suppress(ActorError):  # a tree without oversight, or one that is stopping
            self.context.ref("oversight").tell_nowait(ShowStatus())
            self._asked_s, self._asked_at_shown = now_s, self._board.shown

    def _publish_states(self) -> None:
        for topic, values in self._board.read().items():
            if self._published.get(topic) is values:
                continue
            self._published[topic] = values
            try:
                self._hub.publish_state(topic, values)
            except Exception as error:  # noqa: BLE001  a value from outside may fail in any way
                self._note(topic, f"cannot be sent: {text_of(error)}")
            else:
                self._faults.pop(topic, None)

    @handles(StatusPort)
    def port(self, _: StatusPort) -> int:
        """The port that the server listens on."""
        try:
            return self._port.take()
        except OSError as error:
            raise PortTaken(str(error.strerror)) from error

    # -- the server

    @handles(_Listen)
    async def listen(self, _: _Listen) -> None:
        """Start the server; when its port is taken, try again later."""
        try:
            listener = self._port.listener()
        except OSError as error:
            self._note("", str(error.strerror))
            self.context.after(self._retry_s, _Listen())
            self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)
        else:
            self._faults.pop("", None)
            self._retry_s = RETRY_MIN_S
            await self._nursery.start(self._serve, listener)

    @undisturbed
    async def _serve(
        self, listener: trio.SocketListener, *, task_status: trio.TaskStatus[int]
    ) -> None:
        served = self._served = trio.Event()
        try:
            with self._serving:
                await serve_status(
                    self._hub,
                    listener,
                    token=self._token,
                    epoch=self._epoch,
                    now_us=self._clock.now_us,
                    limits=self._limits,
                    statistics=self.statistics,
                    task_status=task_status,
                )
        # In the owner's nursery any error would end the fund. Stop this actor instead: its next
        # life serves again.
        except* Exception as group:  # noqa: BLE001
            _log.warning("the status stream stopped accepting: %s", text_of(group.exceptions[0]))
            self.context.stop("the status stream stopped accepting")
        finally:
            served.set()

    # -- the events

    async def _catch_up(self) -> None:
        for source in _SOURCES:
            try:
                await self._read_new(source)
            except apsw.Error as error:
                self._note(source.topic, f"cannot be read: {type(error).__name__}: {error}")
            else:
                self._faults.pop(source.topic, None)

    def _note(self, topic: str, fault: str) -> None:
        # Logged once per fault: each commit reads again, and a busy fund commits a thousand times a
        # second.
        if self._faults.get(topic) != fault:
            self._faults[topic] = fault
            what = f"topic {topic!r}" if topic else "the status stream"
            _log.warning("%s %s", what, fault)

    async def _read_new(self, source: _Source) -> None:
        assert self._worker is not None
        assert self._reader is not None
        if source.topic not in self._feeds:
            feed, newest = await self._worker.run(partial(_open_feed, self._reader, source))
            # Clients that connect later still get recent history: as much as the ring holds.
            self._hub.begin_events(source.topic, max(0, newest - RING_SIZE))
            self._feeds[source.topic] = feed
        feed = self._feeds[source.topic]
        more = True
        while more:
            after = self._hub.newest_seq(source.topic)
            rows = await self._worker.run(partial(self._reader.rows, feed.page_sql, (after,)))
            for seq, *values in rows:
                self._publish_row(source.topic, seq, dict(zip(feed.columns, values, strict=True)))
            more = len(rows) == PAGE_ROWS

    def _publish_row(self, topic: str, seq: int, row: Mapping[str, Any]) -> None:
        # None for a level that only a newer fundops knows: every client gets such an alert.
        level = _LEVELS.get(row["level"]) if topic == "alerts" else None
        data = dict(_on_the_wire(*item) for item in row.items())
        self._hub.publish_event(topic, seq, data, level=level)


def _uuid(reader: Reader, path: Path) -> str:
    uuid = meta.read(reader).get("uuid")
    if uuid is None:
        raise DatabaseError(path, "has no uuid; it was not opened by a fund before")
    return uuid


def _open_feed(reader: Reader, source: _Source) -> tuple[_Feed, int]:
    """The feed of a source, and the newest seq of its table (0 when it is empty)."""
    columns = source.columns
    if columns is None:
        names = reader.rows("SELECT name FROM pragma_table_info(?) ORDER BY cid", (source.table,))
        columns = tuple(name for (name,) in names)
    (newest,) = reader.row(f'SELECT max("{source.seq}") FROM "{source.table}"')
    return _Feed(source, columns), newest or 0


def _on_the_wire(column: str, value: Any) -> tuple[str, Any]:
    """The name and value to send: money as decimal text, hashes as hex, stored JSON unchanged."""
    if column.endswith("_minor"):
        return column.removesuffix("_minor"), None if value is None else _decimal(value)
    if column in _JSON_COLUMNS and isinstance(value, str):
        # Invalid JSON would break the message, so it is sent as text. A crash would repeat at every
        # start.
        with suppress(msgspec.DecodeError):
            if column == "payload":
                return column, _payload(value)
            return column, msgspec.json.decode(value, type=msgspec.Raw)
    return column, value.hex() if isinstance(value, bytes) else value


def _payload(text: str) -> Any:
    """A journal payload with the amounts of its legs and lots as decimal text.

    A reader in JavaScript has no integers above 2**53, which is 90,071,992.54 in minor units.
    """
    raw: msgspec.Raw = msgspec.json.decode(text, type=msgspec.Raw)
    with suppress(msgspec.ValidationError):
        figures = _FIGURES.decode(text)
        fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        legs = [(*place, _decimal(minor)) for *place, minor in figures.legs]
        lots = [(*lot[:3], *map(_decimal, lot[3:])) for lot in figures.lots]
        return {**fields, "legs": legs, "lots": lots}
    return raw


def _decimal(minor: int) -> str:
    return f"{from_minor(minor):f}"
