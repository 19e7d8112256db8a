"""The recovery actor: checks strategies and feeds, restarts failed strategies, and alerts.

Each message goes decide -> append (state, events and alert requests in one transaction) -> apply ->
act. If storage refuses, nothing is applied and nothing is started; the next check decides again.
Only a stop that the kill switch owes does not wait for storage.

A restart call can outlive the actor that began it, when the actor is restarted. So the calls in
flight, and their reports that are not yet durable, belong to the host port and not to one life of
the actor: a new life neither forgets a call nor counts a running one as lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from weakref import WeakKeyDictionary

from msgspec.structs import replace

from ...runtime import Clock, Ref, Rejected, handles
from ...wire.alert import AlertDraft, Category, Level
from ...wire.border import NAME_MAX, given
from ...wire.errors import HostFault, UnmanagedStrategy
from ...wire.foreign import fitted
from ...wire.paging import checked_limit
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
)
from ..alert.requests import alert_ref, requested, wake_alerts
from ..guard.latch import KillLatch
from ..persistence import DurableActor
from . import schema
from .book import Book, Draft
from .feeds import FeedWatch
from .instants import ALERTED_JUMP_US, WallWatch, bounded
from .record import Input, Record, attempt_id
from .settings import RecoverySettings

__all__ = ["Calls", "RecoveryActor", "RecoveryActs", "calls_of"]

log = logging.getLogger("fundops.recovery")

Report = AttemptEnded | AttemptLate


class RecoveryActs(Protocol):
    """The acts that recovery needs. `Acts` implements it. Hashable by identity."""

    @property
    def observing(self) -> bool:
        """Whether nothing is restarted."""
        ...

    def withhold_restart(self, name: str) -> None:
        """Name a restart that would begin."""

    def start_restart(self, name: str, attempt_id: str, tell: Callable[[Report], None]) -> None:
        """Begin the restart call and return at once; `tell` gets its lateness and its end."""

    async def stop(self, name: str, reason: str) -> None:
        """Stop the strategy. Raises: `HostFault`."""


class Calls:
    """The restart calls of one controller."""

    def __init__(self) -> None:
        self.in_flight: set[str] = set()  # attempt ids, until their end is durable
        self.reports: list[Report] = []  # received, not yet durable, oldest first


_CALLS: WeakKeyDictionary[RecoveryActs, Calls] = WeakKeyDictionary()


def calls_of(acts: RecoveryActs) -> Calls:
    """The calls that these acts began, shared by all lives of the actor."""
    return _CALLS.setdefault(acts, Calls())


class RecoveryActor(DurableActor):
    """Restarts failed strategies and watches feeds.

    Its state is the book and the feeds, as on disk.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        acts: RecoveryActs,
        settings: RecoverySettings,
        *,
        latch: KillLatch | None = None,
    ) -> None:
        super().__init__(path)
        self._clock = clock
        self._acts = acts
        self._settings = settings
        self._latch = latch or KillLatch()
        self._calls = calls_of(acts)
        self._wall = WallWatch(clock)
        self._jumps: list[RecoveryEvent] = []  # of the wall clock, not yet durable
        self._book: Book
        self._feeds: FeedWatch
        self._last_seq = 0
        self._own: Ref
        self._alert: Ref | None = None

    async def begin(self) -> None:
        """Make durable what restart calls of an earlier life have said."""
        self._own = self.context.ref(self.context.name)
        self._alert = alert_ref(self.context)
        # Start even when the database cannot be written now: the next check tries again.
        with suppress(Rejected):
            await self._work_off()

    def load(self) -> None:
        """The book and the feeds, as they are on disk."""
        now_us = self._clock.now_us()
        records = [
            bounded(record, now_us, self._settings) for record in schema.records(self._reader)
        ]
        self._book = Book(self._settings, records, schema.event_counts(self._reader))
        self._feeds = FeedWatch(schema.stale_feeds(self._reader, now_us))
        self._last_seq = schema.last_seq(self._reader)
        for record in self._book.records.values():
            if record.inner in (RecoveryPhase.RESTARTING, RecoveryPhase.RESTARTING_LATE):
                self._count_lost_call(record)

    def _count_lost_call(self, record: Record) -> None:
        """Count a restart that was running when the process died as a failed attempt."""
        attempt = attempt_id(record)
        if attempt not in self._calls.in_flight:
            self._calls.in_flight.add(attempt)
            self._calls.reports.append(
                AttemptEnded(record.name, attempt, "interrupted: fundops was restarted", True)
            )

    # -- time

    def _now_us(self) -> int:
        """The present instant. The state follows the wall clock first, if that has jumped."""
        jump_us = self._wall.jump_us()
        now_us = self._clock.now_us()
        if jump_us:
            self._book.move(jump_us)
            self._feeds.move(jump_us)
            log.warning("the wall clock jumped by %g s", jump_us / 1e6)
        if abs(jump_us) > ALERTED_JUMP_US:
            seconds = f"{jump_us / 1e6:g}"
            self._jumps.append(RecoveryEvent("clock_jump", "clock", None, 0, seconds, now_us))
        return now_us

    async def _note_jumps(self) -> tuple[RecoveryEvent, ...]:
        """Make large jumps of the wall clock durable, with the instants that moved."""
        self._now_us()
        if not self._jumps:
            return ()
        jumps = tuple(self._jumps)
        waiting = [record for record in self._book.records.values() if record.due_us is not None]
        events = await self._save(waiting, jumps, ())
        del self._jumps[: len(jumps)]
        return events

    # -- strategies

    @handles(CheckStrategies)
    async def check_strategies(self, request: CheckStrategies) -> tuple[RecoveryEvent, ...]:
        """Check all strategies and restart the due ones. Answers with the events, once durable.

        Raises: the refusal of storage; nothing was started then.
        """
        refusal = await self.load_again()
        if refusal is not None:
            raise refusal
        if request.kill_engaged is not None:
            # Before the reports: a restart that returned under the kill switch must be stopped.
            self._book.kill = request.kill_engaged
        self._read_latch()
        events = await self._note_jumps()
        events += await self._work_off()
        now_us = self._now_us()
        draft = self._book.check(
            request.statuses,
            self._book.kill,
            now_us,
            read_us=request.at_us,
            discover=request.discover,
        )
        for name in draft.withheld:
            self._acts.withhold_restart(name)
        draft.alerts = [
            _levelled(alert, request.real)
            for alert in draft.alerts
            if not (_is_failure(alert) and alert.strategy in request.told)
        ]
        return events + await self._carry_out(draft)

    @handles(AttemptEnded, AttemptLate)
    async def hear(self, report: AttemptEnded | AttemptLate) -> None:
        """Note the end, or the lateness, of a restart call; kept until it is durable."""
        self._calls.reports.append(report)
        self._read_latch()
        try:
            await self._work_off()
        except Rejected as refusal:
            # A told message has no asker to refuse. The report is kept for the next check.
            log.warning("the end of restart %s is not stored yet: %s", report.attempt_id, refusal)

    def _read_latch(self) -> None:
        """See the kill switch as it is now, and not as the last check was told."""
        self._book.kill = self._book.kill or self._latch.engaged
        self._book.spared = self._latch.spared
        self._book.observing = self._acts.observing

    async def _work_off(self) -> tuple[RecoveryEvent, ...]:
        """Make the pending reports of restart calls durable, oldest first."""
        events: tuple[RecoveryEvent, ...] = ()
        while self._calls.reports:
            report = self._calls.reports[0]
            events += await self._carry_out(self._book.hear(report, self._now_us()))
            del self._calls.reports[0]
            if isinstance(report, AttemptEnded):
                self._calls.in_flight.discard(report.attempt_id)
        return events

    @handles(BreakerReset)
    async def reset(self, request: BreakerReset) -> bool:
        """Close an open breaker; False: it was not open.

        Raises: `UnmanagedStrategy`; `BadRequest` without a name of a person.
        """
        return await self._order(request.name, Input.RESET, given(request.by, "by"))

    @handles(HoldStrategy)
    async def hold(self, request: HoldStrategy) -> bool:
        """Hold a strategy; False: a person holds it already. Raises: `UnmanagedStrategy`."""
        # It tightens, so no wrong text may stop it.
        person = fitted(request.by, NAME_MAX).strip() or "unknown"
        return await self._order(request.name, Input.HOLD, person)

    @handles(ReleaseStrategy)
    async def release(self, request: ReleaseStrategy) -> bool:
        """End a person's hold; False: no person holds it.

        Raises: `UnmanagedStrategy`; `BadRequest` without a name of a person.
        """
        person = given(request.by, "by")
        return await self._order(request.name, Input.RELEASE, person)

    async def _order(self, name: object, what: Input, person: str) -> bool:
        if not isinstance(name, str):
            raise UnmanagedStrategy(fitted(name, NAME_MAX))
        try:
            draft, done = self._book.order(name, what, person, self._now_us())
        except KeyError:
            raise UnmanagedStrategy(name) from None
        await self._carry_out(draft)
        return done

    async def _carry_out(self, draft: Draft) -> tuple[RecoveryEvent, ...]:
        for name in draft.stops:
            await self._stop(name)
        events = await self._save(draft.records.values(), draft.events, draft.alerts)
        self._book.apply(draft)
        for order in draft.starts:
            self._acts.start_restart(order.name, order.attempt_id, self._own.tell_nowait)
            self._calls.in_flight.add(order.attempt_id)
        return events

    async def _stop(self, name: str) -> None:
        try:
            await self._acts.stop(name, "the kill switch was engaged while it restarted")
        except HostFault as fault:
            # The stop stays owed: the next check that sees the strategy running stops it again.
            log.warning("strategy %s could not be stopped: %s", name, fault)

    # -- feeds

    @handles(CheckFeeds)
    async def check_feeds(self, request: CheckFeeds) -> tuple[RecoveryEvent, ...]:
        """Check all feeds. Answers with the events, once durable.

        Raises: the refusal of storage; the next check decides again.
        """
        events = await self._note_jumps()
        draft = self._feeds.check(request.feeds, self._now_us())
        events += await self._save((), draft.events, draft.alerts)
        self._feeds.apply(draft)
        return events

    # -- storage

    async def _save(
        self,
        records: Iterable[Record],
        events: Sequence[RecoveryEvent],
        alerts: Sequence[AlertDraft],
    ) -> tuple[RecoveryEvent, ...]:
        """Append all of it or nothing, in one transaction. Returns the events with their seqs."""
        numbered = tuple(
            replace(event, seq=self._last_seq + place) for place, event in enumerate(events, 1)
        )
        requests = requested(self._clock.now_us(), alerts) if self._alert is not None else []
        rows = [schema.save_records(records), schema.add_events(numbered), *requests]
        refusal = await self.append(rows)
        if refusal is not None:
            raise refusal
        self._last_seq += len(numbered)
        if requests:
            wake_alerts(self._alert)
        return numbered

    # -- questions

    @handles(EventHistory)
    def event_history(self, request: EventHistory) -> tuple[RecoveryEvent, ...]:
        """The newest events, newest first. Raises: `BadLimit` (a ValueError)."""
        limit = checked_limit(request.limit)
        return schema.newest_events(self._reader, limit)

    @handles(RecoveryStats)
    def stats(self, _: RecoveryStats) -> RecoveryStatistics:
        """Totals since the database was made, and gauges of now."""
        return self._book.statistics()

    @handles(RecoveryStatuses)
    def statuses(self, _: RecoveryStatuses) -> tuple[RecoveryStatus, ...]:
        """The status of every strategy that recovery knows, by name."""
        return self._book.statuses()


def _is_failure(alert: AlertDraft) -> bool:
    return alert.category is Category.STRATEGY_FAILURE and not alert.resolves


def _levelled(alert: AlertDraft, real: Set[str]) -> AlertDraft:
    """The alert; the failure of a strategy with real money is CRITICAL."""
    if _is_failure(alert) and alert.strategy in real:
        return replace(alert, level=Level.CRITICAL)
    return alert
