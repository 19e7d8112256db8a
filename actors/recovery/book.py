"""The records of all strategies, and the changes that one message makes to them.

A `Draft` is decided against the book without changing it, made durable, and only then applied. When
storage refuses, the draft is dropped, and the next check decides again. Nothing here does I/O,
reads a clock or starts a task. A check costs one look-up for each strategy to which nothing
happened.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ...wire.alert import AlertDraft
from ...wire.controller import StrategyState, StrategyStatus
from ...wire.recovery import (
    AttemptEnded,
    AttemptLate,
    RecoveryEvent,
    RecoveryPhase,
    RecoveryStatistics,
    RecoveryStatus,
)
from .holds import KILL_SWITCH
from .instants import moved
from .record import Input, Occasion, Record, attempt_id, classify, clean, error_of
from .settings import RecoverySettings, to_us
from .table import decide

__all__ = ["Book", "Draft", "StartOrder"]

COOLDOWN = RecoveryPhase.COOLDOWN
RESTARTING = RecoveryPhase.RESTARTING
HEALTHY = RecoveryPhase.HEALTHY
PROBATION = RecoveryPhase.PROBATION
OPEN = RecoveryPhase.OPEN
HELD = RecoveryPhase.HELD


class StartOrder(msgspec.Struct, frozen=True):
    """An order to call the controller's restart for this attempt."""

    name: str
    attempt_id: str


class Draft:
    """The changes that one message makes: first made durable, then applied, or else dropped."""

    def __init__(
        self, records: Mapping[str, Record], at_us: int, settings: RecoverySettings
    ) -> None:
        self.records: dict[str, Record] = {}
        self.events: list[RecoveryEvent] = []
        self.alerts: list[AlertDraft] = []
        self.starts: list[StartOrder] = []
        self.stops: list[str] = []
        self.withheld: list[str] = []  # strategies whose restart is due and not begun
        # Whether the kill switch is engaged, and the spared strategies; None: not from a check.
        self.kill: tuple[bool, frozenset[str]] | None = None
        self._before = records
        self.at_us = at_us
        self._settings = settings

    def __getitem__(self, name: str) -> Record:
        """The record of a strategy with the changes of this draft."""
        return self.records.get(name) or self._before[name]

    def decide(
        self,
        name: str,
        what: Input,
        *,
        error: str | None = None,
        person: str | None = None,
        seen: Input | None = None,
    ) -> bool:
        """Decide one input to one strategy and add the facts. Returns whether it has any effect."""
        before = self[name]
        decision = decide(before, Occasion(what, self.at_us, error, person, seen), self._settings)
        self.events += decision.events
        self.alerts += decision.alerts
        if decision.start:
            self.starts.append(StartOrder(name, attempt_id(decision.record)))
        if decision.stop:
            self.stops.append(name)
        if decision.record is not before:
            self.records[name] = decision.record
        return decision.stop or decision.record is not before


class Book:
    """The records of all strategies in memory. `check`, `hear` and `order` decide; `apply` changes.

    `kill`, `spared` and the states that the last check saw are observations, not facts: they are
    kept at once. `records` and `counts` are the stored ones.
    """

    def __init__(
        self,
        settings: RecoverySettings,
        records: Iterable[Record] = (),
        counts: Mapping[tuple[str, bool | None], int] | None = None,
    ) -> None:
        self.settings = settings
        self.records = {record.name: record for record in records}
        self.kill = any(record.kill for record in self.records.values())
        self.observing = False  # a restart that is due is named, and not begun
        self.spared: frozenset[str] = frozenset()  # strategies that the kill switch does not stop
        # Kill switch and spared strategies as of the last applied check; None: none yet.
        self._kill_applied: tuple[bool, frozenset[str]] | None = None
        self._counts: Counter[tuple[str, bool | None]] = Counter(counts or {})
        self._seen: dict[str, Input] = {}  # state at the last check, by strategy
        # The heartbeat that was no sign of life, by strategy. After a clock that went back it would
        # be younger than the restart.
        self._old_beats: dict[str, int] = {}
        self._errors: dict[str, str | None] = {}  # of the last failure seen, by strategy
        # While the engine reports this state, a check may skip the strategy until time moves it.
        self._calm: dict[str, StrategyState] = {}
        self._cooling: dict[str, int] = {}  # due_us of COOLDOWN
        self._proving: dict[str, int] = {}  # due_us of PROBATION
        self._restarting: set[str] = set()  # RESTARTING, also under a hold: each occupies a slot
        self._last_start_us: int | None = None
        self._statuses: tuple[RecoveryStatus, ...] | None = None  # cached until a record changes
        for record in self.records.values():
            self._index(record)

    # -- deciding

    def check(
        self,
        statuses: Sequence[StrategyStatus],
        kill: bool,
        at_us: int,
        *,
        read_us: int | None = None,
        discover: bool = True,
    ) -> Draft:
        """A check of all strategies, which begins at most `restart_concurrency` restarts.

        `read_us` is the instant when the statuses were read from the engine, for those without
        their own; None: just now. Without `discover` healthy and unknown strategies are not looked
        at: the check goes on with the failures that are known.
        """
        draft = self._draft(at_us)
        self.kill = kill
        draft.kill = kill, self.spared if kill else frozenset()
        turned = draft.kill != self._kill_applied
        if turned:
            self._calm.clear()
            for name in self.records:
                if self._stops(name):
                    draft.decide(name, Input.KILL_ENGAGED)
        for name, due_us in self._proving.items():
            if due_us <= at_us:
                self._calm.pop(name, None)
        calm = self._calm.get
        for status in statuses:
            if calm(status.name) != status.state and (discover or self._is_at_work(status.name)):
                self._look_at(draft, status, read_us)
        self._judge_unlisted(draft, statuses, at_us, read_us)
        if turned:
            for name, record in self.records.items():
                if record.kill and not self._stops(name):
                    self._decide_with_seen(draft, name, Input.KILL_RELEASED)
        self._start_due(draft, statuses, at_us)
        return draft

    def _stops(self, name: str) -> bool:
        return self.kill and name not in self.spared

    def _is_at_work(self, name: str) -> bool:
        record = self.records.get(name)
        return record is not None and record.phase is not HEALTHY

    def _look_at(self, draft: Draft, status: StrategyStatus, read_us: int | None) -> None:
        name = status.name
        if name not in self.records:
            self.records[name] = Record(name)  # an untouched record is no fact, and needs no row
            if self._stops(name):
                draft.decide(name, Input.KILL_ENGAGED)
        what = self._seen_as(draft[name], status, draft.at_us, read_us)
        if what is None:
            return
        self._seen[name] = what
        error = None
        if what in (Input.SEEN_FAILED, Input.SEEN_NOT_RETRYABLE):
            error = self._errors[name] = error_of(status)
        if not draft.decide(name, what, error=error) and not draft[name].stalled:
            self._calm[name] = status.state

    def _seen_as(
        self, record: Record, status: StrategyStatus, at_us: int, read_us: int | None
    ) -> Input | None:
        """The status as an input; None: it tells nothing about the time since the restart."""
        what = classify(record, status)
        if what is Input.SEEN_RUNNING and status.heartbeat_us is not None:
            if status.heartbeat_us == self._old_beats.get(status.name):
                what = Input.SEEN_SILENT
        elif what is Input.SEEN_SILENT and status.heartbeat_us is not None:
            self._old_beats[status.name] = status.heartbeat_us
        if record.phase is not PROBATION or record.due_us is None:
            return what
        has_failed = what in (Input.SEEN_FAILED, Input.SEEN_NOT_RETRYABLE)
        is_over = record.due_us <= at_us
        if read_us is not None:
            # The last statuses of a silent engine are repeated. Those from before the restart
            # returned show no relapse, and the end of probation is judged by newer ones.
            returned_us = record.due_us - to_us(self.settings.probation_s)
            if read_us <= returned_us or (is_over and not has_failed and read_us < record.due_us):
                return None
        if has_failed and _is_older(record, status):
            # The failure that the restart has answered, told once more.
            return Input.NO_SIGN if is_over else None
        return what

    def _judge_unlisted(
        self, draft: Draft, statuses: Sequence[StrategyStatus], at_us: int, read_us: int | None
    ) -> None:
        """End the probation of strategies that the engine no longer lists."""
        over = [
            name
            for name, due_us in self._proving.items()
            if due_us <= at_us and (read_us is None or read_us >= due_us)
        ]
        if over:
            listed = {status.name for status in statuses}
            for name in over:
                if name not in listed:
                    self._seen[name] = Input.NO_SIGN
                    draft.decide(name, Input.NO_SIGN)

    def _decide_with_seen(
        self, draft: Draft, name: str, what: Input, person: str | None = None
    ) -> bool:
        return draft.decide(
            name, what, error=self._errors.get(name), person=person, seen=self._seen.get(name)
        )

    def _start_due(self, draft: Draft, statuses: Sequence[StrategyStatus], at_us: int) -> None:
        """Restart due strategies in the order (due, name), as far as slots and spacing allow."""
        spacing_us = to_us(self.settings.restart_spacing_s)
        free = self.settings.restart_concurrency - len(self._restarting)
        if free <= 0 or (
            self._last_start_us is not None and 0 <= at_us - self._last_start_us < spacing_us
        ):
            return
        due = [
            (due_us, name)
            for name, due_us in self._cooling.items()
            if due_us <= at_us and name not in draft.records and not self._stops(name)
        ]
        for record in draft.records.values():
            if record.phase is COOLDOWN and record.due_us is not None and record.due_us <= at_us:
                due.append((record.due_us, record.name))
        if not due:
            return
        heapq.heapify(due)
        reported = {status.name for status in statuses}
        while due and free:
            _, name = heapq.heappop(due)
            # A strategy that the engine no longer lists, or is starting now, keeps its place.
            if name in reported and self._down(draft[name], at_us):
                if self.observing:
                    draft.withheld.append(name)
                    continue
                begun = len(draft.starts)
                draft.decide(name, Input.DUE)
                if len(draft.starts) > begun:
                    free = free - 1 if not spacing_us else 0

    def _down(self, record: Record, at_us: int) -> bool:
        seen = self._seen.get(record.name)
        if seen is Input.SEEN_FAILED or seen is Input.SEEN_NOT_RETRYABLE:
            return True
        if record.stalled:
            return seen in (Input.SEEN_SILENT, Input.SEEN_PENDING, Input.NO_SIGN)
        # A strategy that is being started by others keeps its place, but not without end.
        patience_us = to_us(max(self.settings.probation_s, self.settings.base_cooldown_s))
        due_us = record.due_us or 0
        return seen is Input.SEEN_PENDING and at_us >= due_us + patience_us

    def hear(self, report: AttemptEnded | AttemptLate, at_us: int) -> Draft:
        """The end, or the lateness, of a restart call.

        A report of an older attempt changes nothing.
        """
        draft = self._draft(at_us)
        record = self.records.get(report.name)
        if record is None or attempt_id(record) != report.attempt_id:
            return draft
        if self._stops(report.name):
            # Storage may have refused the check that saw the kill switch engage. The strategy must
            # be stopped nevertheless.
            draft.decide(report.name, Input.KILL_ENGAGED)
        if isinstance(report, AttemptLate):
            draft.decide(report.name, Input.LATE)
        elif report.error is None:
            draft.decide(report.name, Input.RETURNED)
        else:
            what = Input.RAISED if report.retryable else Input.RAISED_NOT_RETRYABLE
            draft.decide(report.name, what, error=clean(report.error))
        return draft

    def order(self, name: str, what: Input, person: str, at_us: int) -> tuple[Draft, bool]:
        """A person's HOLD, RELEASE or RESET, and whether it has any effect.

        Raises: `KeyError` for an unknown name.
        """
        draft = self._draft(at_us)
        if name not in self.records:
            raise KeyError(name)
        return draft, self._decide_with_seen(draft, name, what, person)

    def _draft(self, at_us: int) -> Draft:
        return Draft(self.records, at_us, self.settings)

    # -- applying

    def apply(self, draft: Draft) -> None:
        """Apply a draft. Its rows must be durable."""
        for record in draft.records.values():
            self.records[record.name] = record
            self._calm.pop(record.name, None)
            self._index(record)
        if draft.starts:
            self._last_start_us = draft.records[draft.starts[-1].name].restarted_us
        if draft.kill is not None:
            self._kill_applied = draft.kill
        self._counts.update((event.action, event.success) for event in draft.events)
        if draft.records:
            self._statuses = None

    def move(self, by_us: int) -> list[Record]:
        """Follow a wall clock that jumped by `by_us`; returns the records that hold an instant."""
        changed = [
            after
            for before in self.records.values()
            if (after := moved(before, by_us)) is not before
        ]
        for record in changed:
            self.records[record.name] = record
            self._index(record)
        if self._last_start_us is not None:
            self._last_start_us += by_us
        self._statuses = None
        return changed

    def _index(self, record: Record) -> None:
        for phase, index in ((COOLDOWN, self._cooling), (PROBATION, self._proving)):
            if record.phase is phase and record.due_us is not None:
                index[record.name] = record.due_us
            else:
                index.pop(record.name, None)
        if record.inner is RESTARTING:
            self._restarting.add(record.name)
        else:
            self._restarting.discard(record.name)

    # -- answering

    def statistics(self) -> RecoveryStatistics:
        """Totals and gauges. A strategy held over OPEN counts in both gauges."""
        records = self.records.values()
        successes = self._counts["restart_strategy", True]
        failures = self._counts["restart_strategy", False]
        return RecoveryStatistics(
            total_attempts=successes + failures,
            successes=successes,
            failures=failures,
            circuit_breakers_open=sum(record.inner is OPEN for record in records),
            confirmed=self._counts["confirmed", None],
            relapsed=self._counts["relapse", None],
            in_probation=sum(record.phase is PROBATION for record in records),
            held=sum(record.phase is HELD for record in records),
        )

    def statuses(self) -> tuple[RecoveryStatus, ...]:
        """The status of every strategy, by name."""
        if self._statuses is None or len(self._statuses) != len(self.records):
            self._statuses = tuple(_status(self.records[name]) for name in sorted(self.records))
        return self._statuses


def _is_older(record: Record, status: StrategyStatus) -> bool:
    """Whether the status was true before the restart began, and not after it."""
    started_us = record.restarted_us
    return status.at_us is not None and started_us is not None and status.at_us <= started_us


def _status(record: Record) -> RecoveryStatus:
    is_open = record.inner is OPEN
    if record.phase is not HELD:
        return RecoveryStatus(
            record.name, record.phase, record.attempts, record.due_us, record.reason, is_open
        )
    holds = [KILL_SWITCH] * record.kill + [f"held by {record.held_by}"] * (
        record.held_by is not None
    )
    reasons = ", ".join(holds)
    return RecoveryStatus(record.name, HELD, record.attempts, None, reasons, is_open)
