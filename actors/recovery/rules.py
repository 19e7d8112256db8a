"""The rules of recovery: one immutable record per strategy, and one table of every phase times every input.

Instants are int microseconds (`_us`), settings are seconds (`_s`). `step` answers one input with the next record and
the facts that follow from it. Nothing here reads a clock, writes a row, or calls the engine.

A failure is reported as a level, on every check, and not as an edge; so a failed strategy that is waiting or given up
changes nothing by being seen failed again. While a restart call is unresolved what the engine reports about the
strategy says nothing either: the end of the call will tell.

HELD lies over the phase beneath it: calls still end there and people still start and stop strategies, but no failure
counts and nothing is started.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import msgspec
from msgspec.structs import replace

from ...runtime import DAY_US, ConfigError
from ...wire.alert import AlertDraft, Category, Level
from ...wire.controller import StrategyStatus
from ...wire.recovery import RecoveryAction, RecoveryEvent, RecoveryPhase

__all__ = [
    "KILL_SWITCH",
    "NO_PROGRESS",
    "TABLE",
    "Decision",
    "Input",
    "Occasion",
    "Record",
    "RecoverySettings",
    "attempt_id",
    "classify",
    "clean",
    "cooldown_us",
    "step",
    "to_us",
]

NO_PROGRESS = "no progress"
KILL_SWITCH = "kill switch"
ERROR_MAX = 1_000  # characters of an engine's error text that are kept

HEALTHY = RecoveryPhase.HEALTHY
COOLDOWN = RecoveryPhase.COOLDOWN
RESTARTING = RecoveryPhase.RESTARTING
RESTARTING_LATE = RecoveryPhase.RESTARTING_LATE
PROBATION = RecoveryPhase.PROBATION
OPEN = RecoveryPhase.OPEN
HELD = RecoveryPhase.HELD
UNMANAGED = RecoveryPhase.UNMANAGED

_IN_CALL = (RESTARTING, RESTARTING_LATE)

FirstAttempt = Literal["immediate", "after_cooldown"]


class RecoverySettings(msgspec.Struct, frozen=True):
    """How patient recovery is. Raises: `ConfigError` naming the field."""

    probation_s: float = 600.0  # a restart is believed after this long; 0: at once, and the attempts are forgotten
    max_starts_per_day: int | None = 10  # per strategy, in any 24 h; None: unlimited
    first_attempt: FirstAttempt = "immediate"  # "immediate": by the check that finds the failure
    base_cooldown_s: float = 60.0
    factor: float = 2.0  # each cooldown is this many times the one before; 1 to 10
    cooldown_max_s: float = 3_600.0
    attempts_max: int = 3  # failed attempts of one episode that open the breaker; 1 to 100
    restart_deadline_s: float = 30.0  # kept by the host port, which reports a late call; here it is only named
    restart_concurrency: int = 1  # restart calls at once; a late call gives its slot back
    restart_spacing_s: float = 1.0  # between the beginnings of two restarts; 0: none

    def __post_init__(self) -> None:
        _check_number("probation_s", self.probation_s, 0, math.inf)
        _check_number("base_cooldown_s", self.base_cooldown_s, 0.001, math.inf)
        _check_number("factor", self.factor, 1, 10)
        _check_number("cooldown_max_s", self.cooldown_max_s, self.base_cooldown_s, math.inf)
        _check_number("restart_deadline_s", self.restart_deadline_s, 0.001, math.inf)
        _check_number("restart_spacing_s", self.restart_spacing_s, 0, math.inf)
        _check_count("attempts_max", self.attempts_max, 100)
        _check_count("restart_concurrency", self.restart_concurrency, 10_000)
        if self.max_starts_per_day is not None:
            _check_count("max_starts_per_day", self.max_starts_per_day, 10_000)
        if self.first_attempt not in get_args(FirstAttempt):
            raise ConfigError("first_attempt", f"{self.first_attempt!r} is not immediate or after_cooldown")


def _check_number(field: str, value: object, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(field, f"{value!r} is not a finite number")
    if not least <= value <= most:
        raise ConfigError(field, f"{value!r} is not between {least:g} and {most:g}")


def _check_count(field: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigError(field, f"{value!r} is not a whole number from 1 to {most}")


def cooldown_us(settings: RecoverySettings, attempts: int) -> int:
    """From the end of failed attempt number `attempts` (0: from the failure itself) to the next attempt."""
    doublings = attempts if settings.first_attempt == "after_cooldown" else attempts - 1
    if doublings < 0:
        return 0
    return to_us(min(settings.cooldown_max_s, settings.base_cooldown_s * settings.factor**doublings))


def to_us(seconds: float) -> int:
    """Seconds in microseconds."""
    return round(seconds * 1_000_000)


# -- what is known of one strategy


class Record(msgspec.Struct, frozen=True):
    """One strategy, as it is stored."""

    name: str
    phase: RecoveryPhase = HEALTHY
    beneath: RecoveryPhase | None = None  # what HELD lies over; None in every other phase
    kill: bool = False  # held by the kill switch
    held_by: str | None = None  # the person who holds it; None: nobody
    episode: int = 0  # failure episodes so far; with `attempts` it names an attempt for ever
    attempts: int = 0  # begun in the running episode
    due_us: int | None = None  # COOLDOWN: the next attempt; PROBATION: its end; None otherwise
    restarted_us: int | None = None  # heartbeats count as a sign of life only when later than this
    starts: tuple[int, ...] = ()  # instants of the last day's attempts, oldest first; kept while they are limited
    reason: str | None = None  # of a COOLDOWN or an OPEN
    operator: str | None = None  # who closed the breaker last
    stalled: bool = False  # failed while reported running: only a fresh heartbeat shows that it is back
    stop_owed: bool = False  # the kill switch engaged during its restart: stop it when it comes up
    failure_told: bool = False  # the alert "failed" fires, unresolved
    recovery_told: bool = False  # so does the one about its recovery

    @property
    def inner(self) -> RecoveryPhase:
        """The phase, seen through a hold."""
        return self.phase if self.beneath is None else self.beneath


def attempt_id(record: Record) -> str:
    """Names the latest attempt, for ever."""
    return f"{record.name}:{record.episode}:{record.attempts}"


class Input(enum.Enum):
    """All that can happen to a strategy."""

    SEEN_RUNNING = enum.auto()  # alive: the engine has no heartbeats, or there was one since the restart
    SEEN_SILENT = enum.auto()  # said to run, but without a heartbeat since the restart
    SEEN_PENDING = enum.auto()
    SEEN_STOPPED = enum.auto()  # stopped, paused or retired: a person or the guard wants it so
    SEEN_FAILED = enum.auto()
    SEEN_FAILED_FOR_GOOD = enum.auto()  # not retryable
    DUE = enum.auto()  # a check past its due time, with a slot free
    RETURNED = enum.auto()
    RAISED = enum.auto()
    RAISED_FOR_GOOD = enum.auto()  # not retryable
    LATE = enum.auto()  # the call is past its deadline, and unresolved
    KILL_ENGAGED = enum.auto()
    KILL_RELEASED = enum.auto()
    HOLD = enum.auto()  # by a person
    RELEASE = enum.auto()
    RESET = enum.auto()


class Occasion(msgspec.Struct, frozen=True):
    """One input with its circumstances."""

    input: Input
    at_us: int
    error: str | None = None
    person: str | None = None  # who holds, releases, resets
    seen: Input | None = None  # the state at the last check, for RELEASE, KILL_RELEASED and RESET; None: not seen yet


class Decision(msgspec.Struct, frozen=True):
    """The next record, and what follows. The same record object: nothing changed."""

    record: Record
    events: tuple[RecoveryEvent, ...] = ()
    alerts: tuple[AlertDraft, ...] = ()
    start: bool = False  # call the engine's restart, once this is durable
    stop: bool = False  # call the engine's stop, at once: safety does not wait for storage


Rule = Callable[[Record, Occasion, RecoverySettings], Decision]


def step(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """What this input does to this strategy."""
    return TABLE[record.phase][occasion.input](record, occasion, settings)


def classify(record: Record, status: StrategyStatus) -> Input:
    """The engine's word for a strategy as an input."""
    if status.state == "running":
        since = record.restarted_us
        silent = since is not None and status.heartbeat_us is not None and status.heartbeat_us <= since
        return Input.SEEN_SILENT if silent else Input.SEEN_RUNNING
    if status.state == "failed":
        return Input.SEEN_FAILED if status.retryable else Input.SEEN_FAILED_FOR_GOOD
    return Input.SEEN_PENDING if status.state == "pending" else Input.SEEN_STOPPED


def clean(error: object) -> str | None:
    """An engine's error text, made fit to be stored: a lone surrogate would break the writer."""
    if error is None:
        return None
    return str(error)[:ERROR_MAX].encode("utf-8", "replace").decode()


# -- facts


def _event(
    action: RecoveryAction,
    record: Record,
    occasion: Occasion,
    *,
    success: bool | None = None,
    error: str | None = None,
    actor: str | None = None,
) -> RecoveryEvent:
    return RecoveryEvent(action, record.name, success, record.attempts, error, occasion.at_us, actor=actor)


def _recovery_alert(level: Level, record: Record, title: str, message: str) -> AlertDraft:
    key = f"recovery:{record.name}"
    return AlertDraft(level, Category.RECOVERY, f"{record.name}: {title}", message, record.name, key)


def _failed_alert(record: Record, error: str | None) -> AlertDraft:
    return AlertDraft(
        Level.WARNING,
        Category.STRATEGY_FAILURE,
        f"{record.name}: failed",
        error or "the engine gave no reason",
        record.name,
        f"failed:{record.name}",
    )


def _failure_over(record: Record, title: str) -> tuple[AlertDraft, ...]:
    if not record.failure_told:
        return ()
    order = _failed_alert(record, title)
    return (replace(order, level=Level.INFO, title=f"{record.name}: {title}", resolves=True),)


def _recovery_over(record: Record, title: str) -> tuple[AlertDraft, ...]:
    if not record.recovery_told:
        return ()
    return (replace(_recovery_alert(Level.INFO, record, title, title), resolves=True),)


# -- rules: failing


def _ignored(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """Written out wherever nothing happens."""
    return Decision(record)


def _begin_episode(record: Record) -> Record:
    """Attempts are counted from 0 only under a new episode number, so that no attempt's id ever comes twice."""
    return replace(record, episode=record.episode + 1, attempts=0)


def _failed(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """A first failure: the check that found it will attempt a restart, or wait one cooldown, as configured."""
    alerts = () if record.failure_told else (_failed_alert(record, occasion.error),)
    cooling = replace(
        _begin_episode(record),
        phase=COOLDOWN,
        due_us=occasion.at_us + cooldown_us(settings, 0),
        reason=occasion.error,
        failure_told=True,
    )
    return Decision(cooling, (), alerts)


def _failed_for_good(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """Trying again cannot help: no attempt."""
    alerts = () if record.failure_told or record.attempts else (_failed_alert(record, occasion.error),)
    opened = _open(replace(record, failure_told=True), occasion, _not_retryable(occasion.error))
    return replace(opened, alerts=(*alerts, *opened.alerts))


def _not_retryable(error: str | None) -> str:
    return f"not retryable: {error or 'the engine gave no reason'}"


def _relapsed(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """A restart that succeeded and did not hold is no success: its attempt stays counted."""
    relapse = _event("relapse", record, occasion, error=occasion.error)
    if not record.attempts:  # it came into probation without us: this failure is the first of its episode
        failed = _failed(record, occasion, settings)
        return replace(failed, events=(relapse,))
    warning = _recovery_alert(
        Level.WARNING, record, "failed again after a restart", occasion.error or "the engine gave no reason"
    )
    setback = _set_back(replace(record, recovery_told=True), occasion, settings)
    return replace(setback, events=(relapse, *setback.events), alerts=(warning, *setback.alerts))


def _set_back(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """After a failed attempt: wait longer, or give up."""
    if record.attempts >= settings.attempts_max:
        reason = f"{record.attempts} failed attempts; the last: {occasion.error or 'the engine gave no reason'}"
        return _open(record, occasion, reason)
    due_us = occasion.at_us + cooldown_us(settings, record.attempts)
    return Decision(replace(record, phase=COOLDOWN, due_us=due_us, reason=occasion.error))


def _open(record: Record, occasion: Occasion, reason: str) -> Decision:
    return Decision(
        replace(record, phase=OPEN, due_us=None, reason=reason, recovery_told=True),
        (_event("opened", record, occasion, error=reason),),
        (_recovery_alert(Level.CRITICAL, record, "given up, breaker open", f"{reason}; reset it to try again"),),
    )


# -- rules: attempts


def _begin_attempt(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """Counted before the call is made, so that a crash between the two can only count too many."""
    if record.attempts >= settings.attempts_max:  # more were allowed when the last one was made
        return _open(record, occasion, f"{record.attempts} failed attempts; the last: {record.reason}")
    starts: tuple[int, ...] = ()
    if settings.max_starts_per_day is not None:
        starts = tuple(at_us for at_us in record.starts if at_us > occasion.at_us - DAY_US)
        if len(starts) >= settings.max_starts_per_day:
            return _open(record, occasion, f"intensity: {len(starts)} restarts within 24 h")
        starts = (*starts, occasion.at_us)
    restarting = replace(
        record,
        phase=RESTARTING,
        attempts=record.attempts + 1,
        due_us=None,
        restarted_us=occasion.at_us,
        starts=starts,
        recovery_told=True,
    )
    title = f"restart attempt {restarting.attempts} of {settings.attempts_max}"
    message = f"after: {record.reason or 'a failure without a reason'}"
    return Decision(restarting, (), (_recovery_alert(Level.INFO, restarting, title, message),), start=True)


def _returned(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    up = _late_returned(record, occasion, settings)
    success = _event("restart_strategy", record, occasion, success=True)
    return replace(up, events=(success, *up.events))


def _late_returned(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """The attempt is in the log as failed already; the strategy runs all the same."""
    if record.stop_owed:
        # UNMANAGED, and not PROBATION: we stop it ourselves, and must not take that for a relapse.
        return replace(_unmanage(record, occasion, settings), stop=True)
    return _come_up(record, occasion, settings)


def _come_up(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    alerts = _failure_over(record, "running again")
    up = replace(record, due_us=None, reason=None, stalled=False, failure_told=False)
    if settings.probation_s > 0:
        until_us = occasion.at_us + to_us(settings.probation_s)
        return Decision(replace(up, phase=PROBATION, due_us=until_us), (), alerts)
    alerts += _recovery_over(record, "recovered")
    return Decision(replace(up, phase=HEALTHY, attempts=0, recovery_told=False), (), alerts)


def _raised(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    failure, warning = _attempt_failed(record, occasion, occasion.error)
    setback = _late_raised(record, occasion, settings)
    return replace(setback, events=(failure, *setback.events), alerts=(warning, *setback.alerts))


def _raised_for_good(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    failure, warning = _attempt_failed(record, occasion, occasion.error)
    opened = _late_raised_for_good(record, occasion, settings)
    return replace(opened, events=(failure, *opened.events), alerts=(warning, *opened.alerts))


def _late(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """Failed, but no new attempt before the call is resolved: two instances of one strategy would trade."""
    error = f"no answer within {settings.restart_deadline_s:g} s"
    failure, warning = _attempt_failed(record, occasion, error)
    return Decision(replace(record, phase=RESTARTING_LATE, reason=error), (failure,), (warning,))


def _attempt_failed(record: Record, occasion: Occasion, error: str | None) -> tuple[RecoveryEvent, AlertDraft]:
    failure = _event("restart_strategy", record, occasion, success=False, error=error)
    title = f"restart attempt {record.attempts} failed"
    return failure, _recovery_alert(Level.WARNING, record, title, error or "the engine gave no reason")


def _late_raised(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    return _set_back(replace(record, stop_owed=False), occasion, settings)


def _late_raised_for_good(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    return _open(replace(record, stop_owed=False), occasion, _not_retryable(occasion.error))


# -- rules: what others did


def _seen_back(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """A person started it: no attempt is used, and none forgiven before probation is over."""
    return _come_up(replace(record, restarted_us=occasion.at_us), occasion, settings)


def _seen_back_unless_stalled(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    return Decision(record) if record.stalled else _seen_back(record, occasion, settings)


def _seen_back_unless_stop_owed(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """Still running although the kill switch wants it stopped: stop it again."""
    return Decision(record, stop=True) if record.stop_owed else _seen_back(record, occasion, settings)


def _unmanage(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """It is a person's now. Attempts stay counted until it has run through a probation."""
    alerts = (*_failure_over(record, "no longer managed"), *_recovery_over(record, "no longer managed"))
    left = replace(
        record, phase=UNMANAGED, due_us=None, reason=None, stalled=False, failure_told=False, recovery_told=False
    )
    return Decision(left, (), alerts)


def _stopped_as_owed(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    return Decision(replace(record, stop_owed=False) if record.stop_owed else record)


def _on_probation(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    assert record.due_us is not None
    if occasion.at_us < record.due_us:
        return Decision(record)
    confirmed = _event("confirmed", record, occasion)
    alerts = _recovery_over(record, "recovered")
    return Decision(replace(record, phase=HEALTHY, attempts=0, due_us=None, recovery_told=False), (confirmed,), alerts)


def _silent_on_probation(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    assert record.due_us is not None
    if occasion.at_us < record.due_us:
        return Decision(record)
    return _relapsed(replace(record, stalled=True), replace(occasion, error=NO_PROGRESS), settings)


# -- rules: holding and resetting


def _held_by_kill(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    owed = record.stop_owed or record.inner in _IN_CALL
    return _hold(replace(record, kill=True, stop_owed=owed), occasion, KILL_SWITCH)


def _held_by_person(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    return _hold(replace(record, held_by=occasion.person), occasion, occasion.person)


def _hold(record: Record, occasion: Occasion, actor: str | None) -> Decision:
    held = _event("held", record, occasion, actor=actor)
    return Decision(replace(record, phase=HELD, beneath=record.inner), (held,))


def _kill_on_held(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    return Decision(record) if record.kill else _held_by_kill(record, occasion, settings)


def _person_on_held(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    return Decision(record) if record.held_by is not None else _held_by_person(record, occasion, settings)


def _kill_released(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    if not record.kill:
        return Decision(record)
    # A call that began before the kill switch is stopped when it returns, even if the switch is off again by then.
    free = replace(record, kill=False, stop_owed=record.stop_owed and record.inner in _IN_CALL)
    return _let_go(free, occasion, settings, KILL_SWITCH)


def _person_released(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    if record.held_by is None:
        return Decision(record)
    return _let_go(replace(record, held_by=None), occasion, settings, occasion.person)


def _let_go(record: Record, occasion: Occasion, settings: RecoverySettings, actor: str | None) -> Decision:
    """Back to the phase beneath, unless the other hold stays; what has failed meanwhile waits one cooldown."""
    event = _event("released", record, occasion, actor=actor)
    if record.kill or record.held_by is not None:
        return Decision(record, (event,))
    freed = replace(record, phase=record.inner, beneath=None)
    after = Decision(freed)
    patience_us = occasion.at_us + to_us(settings.base_cooldown_s)
    if freed.phase in (HEALTHY, PROBATION):
        if occasion.seen is Input.SEEN_FAILED_FOR_GOOD:
            after = _failed_for_good(freed, occasion, settings)
        elif occasion.seen is Input.SEEN_FAILED:
            # Attempts made before stay counted, but a failure under a hold is nobody's relapse.
            failed = freed if freed.attempts else _begin_episode(freed)
            alerts = () if freed.failure_told or freed.attempts else (_failed_alert(freed, occasion.error),)
            failed = replace(failed, phase=COOLDOWN, due_us=patience_us, reason=occasion.error, failure_told=True)
            after = Decision(failed, (), alerts)
    elif freed.phase is COOLDOWN:
        assert freed.due_us is not None
        after = Decision(replace(freed, due_us=max(freed.due_us, patience_us)))
    return replace(after, events=(event, *after.events))


def _reset(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """A clean slate: the day's starts are forgotten too, or an intensity breaker would open again at once."""
    event = _event("reset", record, occasion, actor=occasion.person)
    alerts = _recovery_over(record, f"breaker reset by {occasion.person}")
    closed = replace(record, starts=(), operator=occasion.person, recovery_told=False)
    if occasion.seen in (Input.SEEN_RUNNING, Input.SEEN_PENDING):
        alerts = (*_failure_over(record, "running again"), *alerts)
        healthy = replace(
            closed, phase=HEALTHY, attempts=0, due_us=None, reason=None, stalled=False, failure_told=False
        )
        return Decision(healthy, (event,), alerts)
    cooling = replace(_begin_episode(closed), phase=COOLDOWN, due_us=occasion.at_us)
    return Decision(cooling, (event,), alerts)


def _beneath(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """The hold stays; the phase under it goes its way."""
    inner = replace(record, phase=record.inner, beneath=None)
    after = step(inner, occasion, settings)
    if after.record is inner:
        return replace(after, record=record)
    return replace(after, record=replace(after.record, phase=HELD, beneath=after.record.phase))


def _beneath_unless_on_probation(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """Probation is judged after the hold: nothing is confirmed, and nothing fails, while nobody may act on it."""
    return Decision(record) if record.beneath is PROBATION else _beneath(record, occasion, settings)


TABLE: Mapping[RecoveryPhase, Mapping[Input, Rule]] = {
    HEALTHY: {
        Input.SEEN_RUNNING: _ignored,
        Input.SEEN_SILENT: _ignored,
        Input.SEEN_PENDING: _ignored,
        Input.SEEN_STOPPED: _unmanage,
        Input.SEEN_FAILED: _failed,
        Input.SEEN_FAILED_FOR_GOOD: _failed_for_good,
        Input.DUE: _ignored,
        Input.RETURNED: _ignored,
        Input.RAISED: _ignored,
        Input.RAISED_FOR_GOOD: _ignored,
        Input.LATE: _ignored,
        Input.KILL_ENGAGED: _held_by_kill,
        Input.KILL_RELEASED: _ignored,
        Input.HOLD: _held_by_person,
        Input.RELEASE: _ignored,
        Input.RESET: _ignored,
    },
    COOLDOWN: {
        Input.SEEN_RUNNING: _seen_back,
        Input.SEEN_SILENT: _seen_back_unless_stalled,
        Input.SEEN_PENDING: _ignored,
        Input.SEEN_STOPPED: _unmanage,
        Input.SEEN_FAILED: _ignored,
        Input.SEEN_FAILED_FOR_GOOD: _ignored,  # after a reset the engine still says so, and the person wants a try
        Input.DUE: _begin_attempt,
        Input.RETURNED: _ignored,
        Input.RAISED: _ignored,
        Input.RAISED_FOR_GOOD: _ignored,
        Input.LATE: _ignored,
        Input.KILL_ENGAGED: _held_by_kill,
        Input.KILL_RELEASED: _ignored,
        Input.HOLD: _held_by_person,
        Input.RELEASE: _ignored,
        Input.RESET: _ignored,
    },
    RESTARTING: {
        Input.SEEN_RUNNING: _ignored,
        Input.SEEN_SILENT: _ignored,
        Input.SEEN_PENDING: _ignored,
        Input.SEEN_STOPPED: _ignored,
        Input.SEEN_FAILED: _ignored,
        Input.SEEN_FAILED_FOR_GOOD: _ignored,
        Input.DUE: _ignored,
        Input.RETURNED: _returned,
        Input.RAISED: _raised,
        Input.RAISED_FOR_GOOD: _raised_for_good,
        Input.LATE: _late,
        Input.KILL_ENGAGED: _held_by_kill,
        Input.KILL_RELEASED: _ignored,
        Input.HOLD: _held_by_person,
        Input.RELEASE: _ignored,
        Input.RESET: _ignored,
    },
    RESTARTING_LATE: {
        Input.SEEN_RUNNING: _ignored,
        Input.SEEN_SILENT: _ignored,
        Input.SEEN_PENDING: _ignored,
        Input.SEEN_STOPPED: _ignored,
        Input.SEEN_FAILED: _ignored,
        Input.SEEN_FAILED_FOR_GOOD: _ignored,
        Input.DUE: _ignored,
        Input.RETURNED: _late_returned,
        Input.RAISED: _late_raised,
        Input.RAISED_FOR_GOOD: _late_raised_for_good,
        Input.LATE: _ignored,
        Input.KILL_ENGAGED: _held_by_kill,
        Input.KILL_RELEASED: _ignored,
        Input.HOLD: _held_by_person,
        Input.RELEASE: _ignored,
        Input.RESET: _ignored,
    },
    PROBATION: {
        Input.SEEN_RUNNING: _on_probation,
        Input.SEEN_SILENT: _silent_on_probation,
        Input.SEEN_PENDING: _ignored,
        Input.SEEN_STOPPED: _unmanage,
        Input.SEEN_FAILED: _relapsed,
        Input.SEEN_FAILED_FOR_GOOD: _failed_for_good,
        Input.DUE: _ignored,
        Input.RETURNED: _ignored,
        Input.RAISED: _ignored,
        Input.RAISED_FOR_GOOD: _ignored,
        Input.LATE: _ignored,
        Input.KILL_ENGAGED: _held_by_kill,
        Input.KILL_RELEASED: _ignored,
        Input.HOLD: _held_by_person,
        Input.RELEASE: _ignored,
        Input.RESET: _ignored,
    },
    OPEN: {
        Input.SEEN_RUNNING: _seen_back,
        Input.SEEN_SILENT: _seen_back_unless_stalled,
        Input.SEEN_PENDING: _ignored,
        Input.SEEN_STOPPED: _unmanage,
        Input.SEEN_FAILED: _ignored,
        Input.SEEN_FAILED_FOR_GOOD: _ignored,
        Input.DUE: _ignored,
        Input.RETURNED: _ignored,
        Input.RAISED: _ignored,
        Input.RAISED_FOR_GOOD: _ignored,
        Input.LATE: _ignored,
        Input.KILL_ENGAGED: _held_by_kill,
        Input.KILL_RELEASED: _ignored,
        Input.HOLD: _held_by_person,
        Input.RELEASE: _ignored,
        Input.RESET: _reset,
    },
    HELD: {
        Input.SEEN_RUNNING: _beneath_unless_on_probation,
        Input.SEEN_SILENT: _beneath_unless_on_probation,
        Input.SEEN_PENDING: _ignored,
        Input.SEEN_STOPPED: _beneath,
        Input.SEEN_FAILED: _ignored,
        Input.SEEN_FAILED_FOR_GOOD: _ignored,
        Input.DUE: _ignored,
        Input.RETURNED: _beneath,
        Input.RAISED: _beneath,
        Input.RAISED_FOR_GOOD: _beneath,
        Input.LATE: _beneath,
        Input.KILL_ENGAGED: _kill_on_held,
        Input.KILL_RELEASED: _kill_released,
        Input.HOLD: _person_on_held,
        Input.RELEASE: _person_released,
        Input.RESET: _beneath,
    },
    UNMANAGED: {
        Input.SEEN_RUNNING: _seen_back_unless_stop_owed,
        Input.SEEN_SILENT: _seen_back_unless_stop_owed,
        Input.SEEN_PENDING: _ignored,
        Input.SEEN_STOPPED: _stopped_as_owed,
        Input.SEEN_FAILED: _ignored,  # whoever stopped it may not want it back
        Input.SEEN_FAILED_FOR_GOOD: _ignored,
        Input.DUE: _ignored,
        Input.RETURNED: _ignored,
        Input.RAISED: _ignored,
        Input.RAISED_FOR_GOOD: _ignored,
        Input.LATE: _ignored,
        Input.KILL_ENGAGED: _held_by_kill,
        Input.KILL_RELEASED: _ignored,
        Input.HOLD: _held_by_person,
        Input.RELEASE: _ignored,
        Input.RESET: _ignored,
    },
}
