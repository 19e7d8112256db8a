"""The status actor: streams published states and durable events to the clients.

Nothing that it streams arrives as a message. States of oversight stand on a board, where a newer
one takes the place of an older one; the actors and their mailboxes are read from the tree; recovery
and the channels are read from the database. Events are rows: after each commit the actor gets
`StatusNews`, and reads the new rows of the tables behind the event topics itself, page by page. So
no client sees an event before its transaction committed, and none is lost on the way here.

States are published once a second at most, so a fund that ticks a thousand times a second costs its
clients no more than others do. Urgent ones, as the kill switch, leave at once. They are refreshed
after commits and once a second, so they are as of now without a tick.

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
from typing import Any, TypeVar

import apsw
import msgspec
import trio

from ...runtime import (
    Actor,
    ActorError,
    ChildStatus,
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
from ...wire.oversight import ShowStatus
from ...wire.status import StatusNews, StatusPort
from ...wire.stream.hub import RING_SIZE, Hub
from ...wire.stream.limits import ServerLimits
from ...wire.stream.listening import HeldPort
from ...wire.stream.protocol import EventTopic, Get, Series
from ...wire.stream.records import AlertEvent, NavEvent
from ...wire.stream.server import ServerStatistics, serve_status
from ...wire.stream.site import Readiness, Site
from ..persistence import Reader, Rows, meta
from .attention import Known, attention
from .board import StatusBoard
from .face import StatusFace
from .rows import (
    SOURCES,
    Outbox,
    Source,
    aside,
    channels,
    delivery_events,
    outbox,
    recovery,
    series_of,
)
from .tree import flat

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

# States leave at this interval at most, unless they are urgent.
PUBLISH_MIN_S = 1.0

# A fund is not ready when the last tick is older than so many intervals, and than this.
TICKS_MISSED_MAX, TICK_AGE_MAX_S = 3, 10.0

_FROM_BOARD = ("fund", "strategies", "promotion", "feeds")
_LEVELS = {level.value: level for level in Level}

_log = logging.getLogger("fundops.status")

T = TypeVar("T")


class _Refresh(msgspec.Struct, frozen=True):
    """Have the states published as they are now."""


class _Due(msgspec.Struct, frozen=True):
    """Publish the states that wait for their interval."""


class _Listen(msgspec.Struct, frozen=True):
    """Try to take the port and to serve."""


def _reader_thread() -> Worker:
    return ThreadWorker("fundops-status-reader")


class StatusActor(Actor):
    """Owns the hub, a reading connection to the database, and the running server.

    `nursery`, `board` and `port` must outlive the actor. With `token` None or empty every client
    that reaches the port may listen. The database must have its uuid in `meta` when the actor
    starts. `tree` gives the actors of the fund, `face` the settings that the stream needs. `hosts`
    are accepted in the Host header beside the loopback names.
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
        tree: Callable[[], tuple[ChildStatus, ...]] = tuple,
        face: StatusFace = StatusFace(),  # noqa: B008  frozen
        page: Callable[[], bytes] | None = None,
        hosts: frozenset[str] = frozenset(),
        limits: ServerLimits = ServerLimits(),  # noqa: B008  frozen
        make_worker: Callable[[], Worker] = _reader_thread,
    ) -> None:
        self._path = path
        self._clock = clock
        self._port = port
        self._token = token
        self._nursery = nursery
        self._board = board
        self._tree = tree
        self._face = face
        self._site = Site(page, self.readiness, hosts)
        self._limits = limits
        self._make_worker = make_worker
        self._worker: Worker | None = None
        self._reader: Reader | None = None
        self._hub = Hub()
        self._begun: set[str] = set()  # event topics whose table was read
        self._faults: dict[str, str] = {}  # by topic; "": of the port
        self._published: dict[str, Mapping[str, Any]] = {}
        self._known = Known()
        self._outbox = Outbox({}, {})
        self._crashes = 0  # those that were published
        self._nav: tuple[str, float] | None = None  # of the newest point
        self._soon: Timer | None = None
        self._later: Timer | None = None
        self._shown_s = -math.inf
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
        await self._read_states()
        self._publish_states()
        await self._catch_up()
        # The states change without a tick too, as the queues of the actors do.
        self.context.every(REFRESH_EVERY_S, _Refresh())
        self._ask_oversight()
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
        """Publish all new rows, and the states when they are due; have them refreshed soon."""
        self._show_states()
        await self._catch_up()
        # A commit changes the figures of the states. A busy fund commits a thousand times a
        # second, so they are refreshed a few times a second at most.
        if self._soon is None or not self._soon.active:
            self._soon = self.context.after(REFRESH_MIN_S, _Refresh())
        return [None] * len(messages)

    @handles(_Refresh)
    async def refresh(self, _: _Refresh) -> None:
        """Read the states of the database, and have oversight publish its own as they are now."""
        self._ask_oversight()
        await self._read_states()
        self._show_states()

    def _ask_oversight(self) -> None:
        now_s = trio.current_time()
        unanswered = self._asked_at_shown == self._board.shown
        if unanswered and now_s < self._asked_s + ANSWER_S:
            return
        with suppress(ActorError):  # a tree without oversight, or one that is stopping
            self.context.ref("oversight").tell_nowait(ShowStatus())
            self._asked_s, self._asked_at_shown = now_s, self._board.shown

    # -- the states

    def _show_states(self) -> None:
        """Publish the states, or see to it that they are when they are due."""
        states, now_s = self._board.read(), trio.current_time()
        due_s = self._shown_s + PUBLISH_MIN_S
        # A first state of a topic is no repetition: it waits for nothing.
        if self._board.is_urgent() or now_s >= due_s or states.keys() - self._published.keys():
            self._publish_states()
        elif self._later is None or not self._later.active:
            self._later = self.context.after(due_s - now_s, _Due())

    @handles(_Due)
    def show_when_due(self, _: _Due) -> None:
        """Publish the states that have waited for their interval."""
        self._later = None
        self._show_states()

    def _publish_states(self) -> None:
        self._shown_s = trio.current_time()
        for topic, values in self._board.read().items():
            if self._published.get(topic) is not values:
                self._published[topic] = values
                self._publish(topic, values, self._board.details(topic))
        tree = self._tree()
        actors, mailboxes = flat(tree)
        self._publish("actors", actors)
        self._publish("mailboxes", mailboxes)
        from_board: dict[str, Any] = {
            topic: self._published.get(topic, {}) for topic in _FROM_BOARD
        }
        self._known = self._known._replace(**from_board, actors=actors)
        self._publish("recovery", self._known.recovery)
        self._publish("channels", self._known.channels)
        self._publish_attention()
        self._publish_nav()
        self._publish_crashes()

    def _publish(
        self, topic: str, values: Mapping[str, Any], details: Mapping[str, Any] | None = None
    ) -> None:
        try:
            self._hub.publish_state(topic, values, details=details)
        except Exception as error:  # noqa: BLE001  a value from outside may fail in any way
            self._note(topic, f"cannot be sent: {text_of(error)}")
        else:
            self._forgive(topic)

    def _publish_attention(self) -> None:
        now_us = self._clock.now_us()
        try:
            rows = attention(self._known, self._board.waiting_since_us, now_us)
        except Exception as error:  # noqa: BLE001  a value from outside may fail in any way
            self._note("attention", f"cannot be made: {text_of(error)}")
            return
        self._board.waiting_since_us = {key: row.since_us or now_us for key, row in rows.items()}
        self._publish("attention", rows)

    def _publish_nav(self) -> None:
        fund = self._known.fund
        at_us = fund.get("tick_us")
        if at_us is None:
            return
        point = (str(fund["nav"]), round(float(fund["drawdown_pct"]), 4))
        if point != self._nav:
            self._nav = point
            self._publish_event("nav", NavEvent(at_us, *point))

    def _publish_crashes(self) -> None:
        for crash in self._board.crashes_after(self._crashes):
            self._publish_event("restarts", crash)
        self._crashes = self._board.crashes

    def _publish_event(self, topic: EventTopic, data: msgspec.Struct) -> None:
        """An event without a row: its number is of this life alone."""
        self._hub.publish_event(topic, self._hub.newest_seq(topic) + 1, data)

    async def _read_states(self) -> None:
        """Read the states that are rows. They are published with the others."""
        if self._face.attempts_max is not None:
            attempts_max = self._face.attempts_max
            found = await self._query("recovery", partial(recovery, attempts_max=attempts_max))
            if found is not None:
                self._known = self._known._replace(recovery=found)
        if self._face.channels:
            now = await self._query("channels", outbox)
            if now is not None:
                for event in delivery_events(self._outbox, now):
                    self._publish_event("deliveries", event)
                self._outbox = now
                self._known = self._known._replace(channels=channels(now, self._face.channels))
        if self._face.ledger:
            waiting = await self._query("attention", aside)
            if waiting is not None:
                self._known = self._known._replace(aside=waiting)

    async def _query(self, topic: str, query: Callable[[Rows], T]) -> T | None:
        """The answer of a query in the reader thread; None when it failed, which is logged."""
        assert self._worker is not None
        assert self._reader is not None
        try:
            answer = await self._worker.run(partial(query, self._reader))
        except apsw.Error as error:
            self._note(f"rows of {topic}", f"cannot be read: {type(error).__name__}: {error}")
            return None
        self._forgive(f"rows of {topic}")
        return answer

    # -- questions

    def readiness(self) -> Readiness:
        """Whether the fund works, with every reason why not. The kill switch is none."""
        actors, _ = flat(self._tree())
        states = {path: actor.state for path, actor in actors.items() if actor.kind == "actor"}
        problems = [
            f"actor {path} is {state}" for path, state in states.items() if state != "running"
        ]
        fund = self._board.read().get("fund", {})
        storage, kill, age_s = fund.get("storage"), fund.get("kill"), self._tick_age_s()
        storage_state = (storage.state if storage is not None else None) or "unknown"
        if storage_state != "ok":
            problems.append(f"storage is {storage_state}")
        interval_s = self._face.tick_interval_s
        if interval_s is not None:
            most_s = max(TICKS_MISSED_MAX * interval_s, TICK_AGE_MAX_S)
            if age_s is None:
                problems.append("no tick yet")
            elif age_s > most_s:
                problems.append(f"the last tick is {age_s:.0f} s old")
        return Readiness(
            not problems,
            states,
            storage_state,
            age_s,
            "OFF" if kill is None else kill.state,
            tuple(problems),
        )

    def _tick_age_s(self) -> float | None:
        ticked_s = self._board.ticked_s
        if ticked_s is None:
            return None
        return round(max(0.0, self._clock.monotonic_s() - ticked_s), 3)

    async def series(self, get: Get) -> Series | None:
        """The answer to a client's `Get`; None when there is no such series, or it cannot be
        read.
        """
        return await self._query("series", partial(series_of, get=get, now_us=self._clock.now_us()))

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
            self._forgive("")
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
                    site=self._site,
                    tick_age_s=self._tick_age_s,
                    series=self.series,
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
        for source in SOURCES:
            try:
                await self._read_new(source)
            except apsw.Error as error:
                self._note(source.topic, f"cannot be read: {type(error).__name__}: {error}")
            else:
                self._forgive(source.topic)

    def _note(self, topic: str, fault: str) -> None:
        # Logged once per fault: each commit reads again, and a busy fund commits a thousand times a
        # second.
        if self._faults.get(topic) != fault:
            self._faults[topic] = fault
            what = f"topic {topic!r}" if topic else "the status stream"
            _log.warning("%s %s", what, fault)

    def _forgive(self, topic: str) -> None:
        self._faults.pop(topic, None)

    async def _read_new(self, source: Source) -> None:
        assert self._worker is not None
        assert self._reader is not None
        if source.topic not in self._begun:
            newest = await self._worker.run(partial(_newest, self._reader, source))
            # Clients that connect later still get recent history: as much as the ring holds.
            self._hub.begin_events(source.topic, max(0, newest - RING_SIZE))
            self._begun.add(source.topic)
        query, more = source.page_sql(PAGE_ROWS), True
        while more:
            after = self._hub.newest_seq(source.topic)
            rows = await self._worker.run(partial(self._reader.rows, query, (after,)))
            for seq, *values in rows:
                self._publish_row(source, seq, tuple(values))
            more = len(rows) == PAGE_ROWS

    def _publish_row(self, source: Source, seq: int, row: tuple[Any, ...]) -> None:
        record = source.record(row, self._face.currency)
        # None for a level that only a newer fundops knows: every client gets such an alert.
        level = _LEVELS.get(record.level) if isinstance(record, AlertEvent) else None
        self._hub.publish_event(source.topic, seq, record, level=level)


def _uuid(reader: Reader, path: Path) -> str:
    uuid = meta.read(reader).get("uuid")
    if uuid is None:
        raise DatabaseError(path, "has no uuid; it was not opened by a fund before")
    return uuid


def _newest(reader: Reader, source: Source) -> int:
    """The newest seq of the table; 0 when it is empty."""
    (newest,) = reader.row(f'SELECT max("{source.seq}") FROM "{source.table}"')
    return newest or 0
