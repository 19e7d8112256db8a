"""The recovery actor: looks at the strategies, has them restarted in order, and says so.

Each message goes decide -> commit (state, events and alert requests in one transaction) -> apply -> act. If storage
refuses, nothing is applied and nothing is started; the next check decides again. Only a stop that the kill switch is
owed does not wait for storage.

A restart call outlives the life of the actor that began it. So what is in flight, and what calls have said that is not
yet durable, is kept per host port and not per life: a new life neither forgets a call nor takes one for lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from weakref import WeakKeyDictionary

from msgspec.structs import replace

from ...runtime import Actor, Clock, Ref, Rejected, handles
from ...wire.alert import AlertDraft
from ...wire.paging import checked_limit
from ...wire.persistence import COMMIT_DEADLINE_S, Commit, ConstraintFailed, OutcomeUnknown
from ...wire.recovery import (
    AttemptEnded,
    AttemptLate,
    BreakerReset,
    CheckFeeds,
    CheckStrategies,
    EventHistory,
    HoldStrategy,
    RecoveryEvent,
    RecoveryPhase,
    RecoveryStatistics,
    RecoveryStats,
    RecoveryStatus,
    RecoveryStatuses,
    ReleaseStrategy,
    UnmanagedStrategy,
)
from ..alert.requests import alert_ref, requested, wake_alerts
from ..host import HostFault
from ..persistence import Reader, earlier_commits
from . import schema
from .book import Book, Plan
from .feeds import FeedWatch
from .rules import Input, Record, RecoverySettings, attempt_id

__all__ = ["Calls", "RecoveryActor", "RecoveryHost", "calls_of"]

log = logging.getLogger("fundops.recovery")

Report = AttemptEnded | AttemptLate


class RecoveryHost(Protocol):
    """The part of the host port that recovery needs; `Host` is the real one. It is hashable by identity."""

    def start_restart(self, name: str, attempt_id: str, tell: Callable[[Report], None]) -> None:
        """Begin the call and return at once; `tell` hears that it is late, and that it has ended."""

    async def stop(self, name: str, reason: str) -> None:
        """Raises: `HostFault`."""


class Calls:
    """The restart calls of one host port."""

    def __init__(self) -> None:
        self.in_flight: set[str] = set()  # attempt ids, until their end is durable
        self.reports: list[Report] = []  # heard, and not durable yet


_CALLS: WeakKeyDictionary[RecoveryHost, Calls] = WeakKeyDictionary()


def calls_of(host: RecoveryHost) -> Calls:
    """The one record of this host port's calls, over all lives of all actors."""
    return _CALLS.setdefault(host, Calls())


class RecoveryActor(Actor):
    """The one that restarts. State: the book and the feeds, as they are on disk."""

    def __init__(self, path: Path, clock: Clock, host: RecoveryHost, settings: RecoverySettings) -> None:
        self._path = path
        self._clock = clock
        self._host = host
        self._settings = settings
        self._calls = calls_of(host)
        self._reader: Reader | None = None
        self._book: Book
        self._feeds: FeedWatch
        self._last_seq = 0
        self._own: Ref
        self._persistence: Ref
        self._alert: Ref | None = None

    async def on_start(self) -> None:
        self._own = self.context.ref(self.context.name)
        self._persistence = self.context.ref("persistence")
        self._alert = alert_ref(self.context)
        await earlier_commits(self._persistence)
        self._reader = Reader(self._path)
        self._load()
        # A database that cannot be written now is no reason not to start: the next check tries again.
        with suppress(Rejected):
            await self._work_off()

    async def on_stop(self, reason: str) -> None:
        if self._reader is not None:
            self._reader.close()

    def _load(self) -> None:
        assert self._reader is not None
        self._book = Book(self._settings, schema.records(self._reader), schema.event_counts(self._reader))
        self._feeds = FeedWatch(schema.stale_feeds(self._reader, self._clock.now_us()))
        self._last_seq = schema.last_seq(self._reader)
        for record in self._book.records.values():
            if record.inner in (RecoveryPhase.RESTARTING, RecoveryPhase.RESTARTING_LATE):
                self._count_lost_call(record)

    def _count_lost_call(self, record: Record) -> None:
        """A restart that was in hand when the process died counts as a failed attempt."""
        attempt = attempt_id(record)
        if attempt not in self._calls.in_flight:
            self._calls.in_flight.add(attempt)
            self._calls.reports.append(AttemptEnded(record.name, attempt, "interrupted: fundops was restarted", True))

    # -- strategies

    @handles(CheckStrategies)
    async def check_strategies(self, request: CheckStrategies) -> tuple[RecoveryEvent, ...]:
        """Raises: the refusal of storage; nothing was started then."""
        if request.kill_engaged is not None:
            # Before the reports: a restart that returned under the kill switch is stopped, and not taken for well.
            self._book.kill = request.kill_engaged
        events = await self._work_off()
        now_us = self._clock.now_us()
        plan = self._book.check(request.statuses, self._book.kill, now_us, read_us=request.at_us)
        return events + await self._carry_out(plan)

    @handles(AttemptEnded, AttemptLate)
    async def hear(self, report: AttemptEnded | AttemptLate) -> None:
        self._calls.reports.append(report)
        try:
            await self._work_off()
        except Rejected as refusal:
            # Nobody waits for an answer here; the report is kept, and the next check works it off.
            log.warning("the end of restart %s is not stored yet: %s", report.attempt_id, refusal)

    async def _work_off(self) -> tuple[RecoveryEvent, ...]:
        """Make durable what restart calls have said, oldest first."""
        events: tuple[RecoveryEvent, ...] = ()
        while self._calls.reports:
            report = self._calls.reports[0]
            events += await self._carry_out(self._book.hear(report, self._clock.now_us()))
            del self._calls.reports[0]
            if isinstance(report, AttemptEnded):
                self._calls.in_flight.discard(report.attempt_id)
        return events

    @handles(BreakerReset)
    async def reset(self, request: BreakerReset) -> bool:
        return await self._order(request.name, Input.RESET, request.actor)

    @handles(HoldStrategy)
    async def hold(self, request: HoldStrategy) -> bool:
        return await self._order(request.name, Input.HOLD, request.actor)

    @handles(ReleaseStrategy)
    async def release(self, request: ReleaseStrategy) -> bool:
        return await self._order(request.name, Input.RELEASE, request.actor)

    async def _order(self, name: str, what: Input, person: str) -> bool:
        try:
            plan, done = self._book.order(name, what, person, self._clock.now_us())
        except KeyError:
            raise UnmanagedStrategy(name) from None
        await self._carry_out(plan)
        return done

    async def _carry_out(self, plan: Plan) -> tuple[RecoveryEvent, ...]:
        for name in plan.stops:
            await self._stop(name)
        events = await self._commit(plan.records.values(), plan.events, plan.alerts)
        self._book.apply(plan)
        for order in plan.starts:
            self._host.start_restart(order.name, order.attempt_id, self._own.tell_nowait)
            self._calls.in_flight.add(order.attempt_id)
        return events

    async def _stop(self, name: str) -> None:
        try:
            await self._host.stop(name, "the kill switch was engaged while it restarted")
        except HostFault as fault:
            # Still owed: the next check that sees it running asks again.
            log.warning("strategy %s could not be stopped: %s", name, fault)

    # -- feeds

    @handles(CheckFeeds)
    async def check_feeds(self, request: CheckFeeds) -> tuple[RecoveryEvent, ...]:
        """Raises: the refusal of storage; the next check says it again."""
        plan = self._feeds.check(request.feeds, self._clock.now_us())
        events = await self._commit((), plan.events, plan.alerts)
        self._feeds.apply(plan)
        return events

    # -- storage

    async def _commit(
        self, records: Iterable[Record], events: Sequence[RecoveryEvent], alerts: Sequence[AlertDraft]
    ) -> tuple[RecoveryEvent, ...]:
        """All of it or nothing, in one transaction; the events with their numbers."""
        numbered = tuple(replace(event, seq=self._last_seq + place) for place, event in enumerate(events, 1))
        requests = requested(self._clock.now_us(), alerts) if self._alert is not None else []
        statements = [schema.save_records(records), schema.add_events(numbered), *requests]
        statements = [statement for statement in statements if statement.rows]
        if not statements:
            return ()
        try:
            await self._persistence.ask(Commit(tuple(statements)), timeout_s=COMMIT_DEADLINE_S)
        except OutcomeUnknown:
            self._load()
            raise
        except ConstraintFailed as broken:
            # These rows cannot break a constraint unless memory and disk have parted: start again from disk.
            raise RuntimeError(f"recovery's memory is not what is stored: {broken}") from broken
        self._last_seq += len(numbered)
        if requests:
            wake_alerts(self._alert)
        return numbered

    # -- questions

    @handles(EventHistory)
    def event_history(self, request: EventHistory) -> tuple[RecoveryEvent, ...]:
        """Raises: `BadLimit` (a ValueError)."""
        limit = checked_limit(request.limit)
        assert self._reader is not None
        return schema.newest_events(self._reader, limit)

    @handles(RecoveryStats)
    def stats(self, _: RecoveryStats) -> RecoveryStatistics:
        return self._book.statistics()

    @handles(RecoveryStatuses)
    def statuses(self, _: RecoveryStatuses) -> tuple[RecoveryStatus, ...]:
        return self._book.statuses()
