"""The records of all strategies, and what one message changes in them.

A `Plan` is decided against the book without changing it, made durable, and only then applied; or dropped, and decided
again. No I/O, no clock, no tasks. A check of strategies that nothing happened to costs one look-up each.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ...wire.alert import AlertDraft
from ...wire.controller import StrategyState, StrategyStatus
from ...wire.recovery import AttemptEnded, AttemptLate, RecoveryEvent, RecoveryPhase, RecoveryStatistics, RecoveryStatus
from .rules import (
    KILL_SWITCH,
    Input,
    Occasion,
    Record,
    RecoverySettings,
    attempt_id,
    classify,
    clean,
    step,
    to_us,
)

__all__ = ["Book", "Plan", "StartOrder"]

COOLDOWN = RecoveryPhase.COOLDOWN
RESTARTING = RecoveryPhase.RESTARTING
PROBATION = RecoveryPhase.PROBATION
OPEN = RecoveryPhase.OPEN
HELD = RecoveryPhase.HELD


class StartOrder(msgspec.Struct, frozen=True):
    """Call the engine's restart for this attempt."""

    name: str
    attempt_id: str


class Plan:
    """What one message changes in the book: made durable first, applied after, or dropped."""

    def __init__(self, records: Mapping[str, Record], at_us: int, settings: RecoverySettings) -> None:
        self.records: dict[str, Record] = {}
        self.events: list[RecoveryEvent] = []
        self.alerts: list[AlertDraft] = []
        self.starts: list[StartOrder] = []
        self.stops: list[str] = []
        self.kill: bool | None = None  # what a check was told of the kill switch; None: no check
        self._before = records
        self._at_us = at_us
        self._settings = settings

    def __getitem__(self, name: str) -> Record:
        return self.records.get(name) or self._before[name]

    def step(
        self,
        name: str,
        what: Input,
        *,
        error: str | None = None,
        person: str | None = None,
        seen: Input | None = None,
    ) -> bool:
        """Whether this input did anything."""
        before = self[name]
        decision = step(before, Occasion(what, self._at_us, error, person, seen), self._settings)
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
    """The records of all strategies in memory. `check`, `hear` and the others plan; `apply` alone changes records.

    `kill` and what the last check saw are observations, not facts: they are noted at once.
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
        self._kill_applied: bool | None = None  # None: not one check yet
        self._counts: Counter[tuple[str, bool | None]] = Counter(counts or {})
        self._seen: dict[str, Input] = {}
        self._errors: dict[str, str | None] = {}  # of those last seen failed
        # A strategy whose engine state is still this one needs no second look before time moves it.
        self._calm: dict[str, StrategyState] = {}
        self._cooling: dict[str, int] = {}  # due_us of COOLDOWN
        self._proving: dict[str, int] = {}  # due_us of PROBATION
        self._restarting: set[str] = set()  # RESTARTING, also under a hold: each takes a slot
        self._last_start_us: int | None = None
        self._statuses: tuple[RecoveryStatus, ...] | None = None  # the answer as long as nothing changes
        for record in self.records.values():
            self._index(record)

    # -- planning

    def check(self, statuses: Sequence[StrategyStatus], kill: bool, at_us: int, *, read_us: int | None = None) -> Plan:
        """One look at all strategies, and at most `restart_concurrency` new restarts.

        `read_us` is when the statuses were read from the engine, where they do not say it; None: just now.
        """
        plan = self._plan(at_us)
        self.kill = plan.kill = kill
        turned = kill is not self._kill_applied
        if turned:
            self._calm.clear()
            if kill:
                for name in self.records:
                    plan.step(name, Input.KILL_ENGAGED)
        for name, due_us in self._proving.items():
            if due_us <= at_us:
                self._calm.pop(name, None)
        calm = self._calm.get
        for status in statuses:
            if calm(status.name) != status.state:
                self._look_at(plan, status, read_us)
        if turned and not kill:
            for name, record in self.records.items():
                if record.kill:
                    self._step_with_seen(plan, name, Input.KILL_RELEASED)
        if not kill:
            self._start_due(plan, statuses, at_us)
        return plan

    def _look_at(self, plan: Plan, status: StrategyStatus, read_us: int | None) -> None:
        name = status.name
        if name not in self.records:
            self.records[name] = Record(name)  # to know a name is no fact, and needs no row
            if self.kill:
                plan.step(name, Input.KILL_ENGAGED)
        if self._is_older_than_probation(plan[name], status, read_us):
            return
        what = classify(plan[name], status)
        self._seen[name] = what
        error = None
        if status.state == "failed":
            error = self._errors[name] = clean(status.error)
        if not plan.step(name, what, error=error) and not plan[name].stalled:
            self._calm[name] = status.state

    def _is_older_than_probation(self, record: Record, status: StrategyStatus, read_us: int | None) -> bool:
        """ "failed" read before the restart came back is no relapse; nor is the last word of an engine gone silent."""
        told_us = read_us if status.at_us is None else status.at_us
        if told_us is None or record.phase is not PROBATION or record.due_us is None:
            return False
        return told_us <= record.due_us - to_us(self.settings.probation_s)

    def _step_with_seen(self, plan: Plan, name: str, what: Input, person: str | None = None) -> bool:
        return plan.step(name, what, error=self._errors.get(name), person=person, seen=self._seen.get(name))

    def _start_due(self, plan: Plan, statuses: Sequence[StrategyStatus], at_us: int) -> None:
        """Restart what is due, in the order (due, name), as far as slots and spacing allow."""
        spacing_us = to_us(self.settings.restart_spacing_s)
        free = self.settings.restart_concurrency - len(self._restarting)
        if free <= 0 or (self._last_start_us is not None and 0 <= at_us - self._last_start_us < spacing_us):
            return
        due = [(due_us, name) for name, due_us in self._cooling.items() if due_us <= at_us and name not in plan.records]
        for record in plan.records.values():
            if record.phase is COOLDOWN and record.due_us is not None and record.due_us <= at_us:
                due.append((record.due_us, record.name))
        if not due:
            return
        heapq.heapify(due)
        reported = {status.name for status in statuses}
        while due and free:
            _, name = heapq.heappop(due)
            # One that the engine no longer lists, or that somebody is starting just now, keeps its turn.
            if name in reported and self._down(plan[name]):
                begun = len(plan.starts)
                plan.step(name, Input.DUE)
                if len(plan.starts) > begun:
                    free = free - 1 if not spacing_us else 0

    def _down(self, record: Record) -> bool:
        seen = self._seen.get(record.name)
        failed = seen is Input.SEEN_FAILED or seen is Input.SEEN_FAILED_FOR_GOOD
        return failed or (record.stalled and seen is Input.SEEN_SILENT)

    def hear(self, report: AttemptEnded | AttemptLate, at_us: int) -> Plan:
        """A restart call ended, or is late. One that is not the strategy's latest attempt changes nothing."""
        plan = self._plan(at_us)
        record = self.records.get(report.name)
        if record is None or attempt_id(record) != report.attempt_id:
            return plan
        if self.kill:
            # A check may have said so while storage refused to note it; the strategy is stopped all the same.
            plan.step(report.name, Input.KILL_ENGAGED)
        if isinstance(report, AttemptLate):
            plan.step(report.name, Input.LATE)
        elif report.error is None:
            plan.step(report.name, Input.RETURNED)
        else:
            what = Input.RAISED if report.retryable else Input.RAISED_FOR_GOOD
            plan.step(report.name, what, error=clean(report.error))
        return plan

    def order(self, name: str, what: Input, person: str, at_us: int) -> tuple[Plan, bool]:
        """A person's HOLD, RELEASE or RESET, and whether it did anything. Raises `KeyError` for an unknown name."""
        plan = self._plan(at_us)
        if name not in self.records:
            raise KeyError(name)
        return plan, self._step_with_seen(plan, name, what, person)

    def _plan(self, at_us: int) -> Plan:
        return Plan(self.records, at_us, self.settings)

    # -- applying

    def apply(self, plan: Plan) -> None:
        """After the plan's rows are durable."""
        for record in plan.records.values():
            self.records[record.name] = record
            self._calm.pop(record.name, None)
            self._index(record)
        if plan.starts:
            self._last_start_us = plan.records[plan.starts[-1].name].restarted_us
        if plan.kill is not None:
            self._kill_applied = plan.kill
        self._counts.update((event.action, event.success) for event in plan.events)
        if plan.records:
            self._statuses = None

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
        """A breaker under a hold is still open, so the gauges for OPEN and HELD may count one strategy twice."""
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
        """By name."""
        if self._statuses is None or len(self._statuses) != len(self.records):
            self._statuses = tuple(_status(self.records[name]) for name in sorted(self.records))
        return self._statuses


def _status(record: Record) -> RecoveryStatus:
    if record.phase is not HELD:
        return RecoveryStatus(record.name, record.phase, record.attempts, record.due_us, record.reason)
    holds = [KILL_SWITCH] * record.kill + [f"held by {record.held_by}"] * (record.held_by is not None)
    return RecoveryStatus(record.name, HELD, record.attempts, None, ", ".join(holds))
