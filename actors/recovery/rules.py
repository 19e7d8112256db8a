"""The rules that the transition table names: each turns a record and an input into a decision.

A rule is a pure function. It is called only for the phases and inputs under which `table.py` lists
it. The rules of holds are in `holds.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from ...runtime import DAY_US
from ...wire.aftermath import NOT_KNOWN, aftermath
from ...wire.alert import AlertDraft, Level
from ...wire.recovery import RecoveryEvent, RecoveryPhase
from ...wire.shell import shell_command
from .facts import NO_REASON, event, failed_alert, failure_over, recovery_alert, recovery_over
from .record import Decision, Input, Occasion, Record
from .settings import RecoverySettings, cooldown_us, to_us

__all__ = [
    "NO_PROGRESS",
    "Rule",
    "begin_attempt",
    "begin_episode",
    "first_failure",
    "ignored",
    "late",
    "late_raised",
    "late_raised_not_retryable",
    "late_returned",
    "not_retryable",
    "raised",
    "raised_not_retryable",
    "relapsed",
    "reset",
    "returned",
    "running_on_probation",
    "seen_back",
    "seen_back_unless_stalled",
    "seen_back_unless_stop_owed",
    "silent_on_probation",
    "stopped_as_owed",
    "unmanage",
]

NO_PROGRESS = "no progress"

COOLDOWN = RecoveryPhase.COOLDOWN
HEALTHY = RecoveryPhase.HEALTHY
OPEN = RecoveryPhase.OPEN
PROBATION = RecoveryPhase.PROBATION
RESTARTING = RecoveryPhase.RESTARTING
RESTARTING_LATE = RecoveryPhase.RESTARTING_LATE
UNMANAGED = RecoveryPhase.UNMANAGED

Rule = Callable[[Record, Occasion, RecoverySettings], Decision]


def ignored(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """The input changes nothing in this phase."""
    return Decision(record)


# -- failing


def begin_episode(record: Record, occasion: Occasion) -> Record:
    """The record under a new episode number, with no attempts.

    Attempts count from 0 only under a new number, so that no attempt id is used twice.
    """
    return replace(record, episode=record.episode + 1, since_us=occasion.at_us, attempts=0)


def first_failure(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """The first failure of an episode.

    The check that found it attempts a restart, or waits one cooldown, as `first_attempt` says.
    """
    alerts = () if record.failure_told else (failed_alert(record, occasion.error),)
    cooling = replace(
        begin_episode(record, occasion),
        phase=COOLDOWN,
        due_us=occasion.at_us + cooldown_us(settings, 0),
        reason=occasion.error,
        failure_told=True,
    )
    return Decision(cooling, (), alerts)


def not_retryable(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """A failure that a restart cannot help: the breaker opens without an attempt."""
    alerts = (
        () if record.failure_told or record.attempts else (failed_alert(record, occasion.error),)
    )
    known = record.attempts or record.phase is COOLDOWN
    since_us = record.since_us if known else occasion.at_us
    opened = _open(
        replace(record, failure_told=True, since_us=since_us),
        occasion,
        _not_retryable_reason(occasion.error),
    )
    return replace(opened, alerts=(*alerts, *opened.alerts))


def _not_retryable_reason(error: str | None) -> str:
    return f"not retryable: {error or NO_REASON}"


def relapsed(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """A failure during probation: the restart did not last, so its attempt stays counted."""
    relapse = event("relapse", record, occasion, error=occasion.error)
    if not record.attempts:  # a person started it, so this failure is the first of its episode
        failed = first_failure(record, occasion, settings)
        return replace(failed, events=(relapse,))
    warning = recovery_alert(
        Level.WARNING, record, "failed again after a restart", occasion.error or NO_REASON
    )
    setback = _set_back(replace(record, recovery_told=True), occasion, settings)
    return replace(setback, events=(relapse, *setback.events), alerts=(warning, *setback.alerts))


def _set_back(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """After a failed attempt: wait one cooldown, or open the breaker when none is left."""
    if record.attempts >= settings.attempts_max:
        last = occasion.error or NO_REASON
        return _open(record, occasion, f"{record.attempts} failed attempts; the last: {last}")
    due_us = occasion.at_us + cooldown_us(settings, record.attempts)
    return Decision(replace(record, phase=COOLDOWN, due_us=due_us, reason=occasion.error))


def _open(record: Record, occasion: Occasion, reason: str) -> Decision:
    text = aftermath(
        (record.name,),
        left_open=NOT_KNOWN,
        next_act="none; it is not restarted by itself",
        undo=shell_command("recovery reset", record.name, "--by NAME"),
    )
    alert = recovery_alert(Level.CRITICAL, record, "given up, breaker open", f"{reason}. {text}")
    return Decision(
        replace(record, phase=OPEN, due_us=None, reason=reason, recovery_told=True),
        (event("opened", record, occasion, error=reason),),
        (alert,),
    )


# -- attempts


def begin_attempt(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """Start a restart, unless the limits open the breaker.

    It is counted before the call is made, so a crash between the two can only count one too many.
    """
    if record.attempts >= settings.attempts_max:  # the limit was higher at the last attempt
        return _open(
            record, occasion, f"{record.attempts} failed attempts; the last: {record.reason}"
        )
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
    alert = recovery_alert(Level.INFO, restarting, title, message)
    return Decision(restarting, (), (alert,), start=True)


def returned(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """The restart call returned in time: a success."""
    up = late_returned(record, occasion, settings)
    success = event("restart_strategy", record, occasion, success=True)
    return replace(up, events=(success, *up.events))


def late_returned(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """The late restart call returned.

    Its attempt is in the log as failed, but the strategy runs.
    """
    if record.stop_owed:
        # UNMANAGED instead of PROBATION, so that our own stop does not count as a relapse.
        return replace(unmanage(record, occasion, settings), stop=True)
    return _come_up(record, occasion, settings)


def _come_up(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    alerts = failure_over(record, "running again")
    up = replace(record, due_us=None, reason=None, stalled=False, failure_told=False)
    if settings.probation_s > 0:
        until_us = occasion.at_us + to_us(settings.probation_s)
        return Decision(replace(up, phase=PROBATION, due_us=until_us), (), alerts)
    alerts += recovery_over(record, "recovered")
    return Decision(replace(up, phase=HEALTHY, attempts=0, recovery_told=False), (), alerts)


def raised(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """The restart call raised: a failed attempt."""
    failure, warning = _attempt_failed(record, occasion, occasion.error)
    setback = late_raised(record, occasion, settings)
    return replace(setback, events=(failure, *setback.events), alerts=(warning, *setback.alerts))


def raised_not_retryable(
    record: Record, occasion: Occasion, settings: RecoverySettings
) -> Decision:
    """The restart call raised `NotRetryable`: a failed attempt, and the breaker opens."""
    failure, warning = _attempt_failed(record, occasion, occasion.error)
    opened = late_raised_not_retryable(record, occasion, settings)
    return replace(opened, events=(failure, *opened.events), alerts=(warning, *opened.alerts))


def late(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """The restart call is past its deadline: a failed attempt.

    No new attempt starts before the call ends, or two instances of the strategy could trade.
    """
    error = f"no answer within {settings.restart_deadline_s:g} s"
    failure, warning = _attempt_failed(record, occasion, error)
    return Decision(replace(record, phase=RESTARTING_LATE, reason=error), (failure,), (warning,))


def _attempt_failed(
    record: Record, occasion: Occasion, error: str | None
) -> tuple[RecoveryEvent, AlertDraft]:
    failure = event("restart_strategy", record, occasion, success=False, error=error)
    title = f"restart attempt {record.attempts} failed"
    return failure, recovery_alert(Level.WARNING, record, title, error or NO_REASON)


def late_raised(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """The late restart call raised. Its attempt is in the log as failed already."""
    return _set_back(replace(record, stop_owed=False), occasion, settings)


def late_raised_not_retryable(
    record: Record, occasion: Occasion, settings: RecoverySettings
) -> Decision:
    """The late restart call raised `NotRetryable`: the breaker opens."""
    return _open(replace(record, stop_owed=False), occasion, _not_retryable_reason(occasion.error))


# -- started and stopped by others


def seen_back(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """A person started it: no attempt is used, and used ones count until probation ends."""
    return _come_up(replace(record, restarted_us=occasion.at_us), occasion, settings)


def seen_back_unless_stalled(
    record: Record, occasion: Occasion, settings: RecoverySettings
) -> Decision:
    """As `seen_back`.

    A stalled strategy was reported running all along; only a heartbeat counts.
    """
    return Decision(record) if record.stalled else seen_back(record, occasion, settings)


def seen_back_unless_stop_owed(
    record: Record, occasion: Occasion, settings: RecoverySettings
) -> Decision:
    """As `seen_back`; but stop it again when the kill switch wanted it stopped."""
    return (
        Decision(record, stop=True) if record.stop_owed else seen_back(record, occasion, settings)
    )


def unmanage(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """A person or the guard stopped it. Used attempts count until it has passed a probation."""
    title = "no longer managed"
    alerts = (*failure_over(record, title), *recovery_over(record, title))
    left = replace(
        record,
        phase=UNMANAGED,
        due_us=None,
        reason=None,
        stalled=False,
        failure_told=False,
        recovery_told=False,
    )
    return Decision(left, (), alerts)


def stopped_as_owed(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """It is stopped, so a stop that the kill switch wanted is no longer owed."""
    return Decision(replace(record, stop_owed=False) if record.stop_owed else record)


# -- probation


def running_on_probation(
    record: Record, occasion: Occasion, settings: RecoverySettings
) -> Decision:
    """At the end of its probation a running strategy is healthy."""
    assert record.due_us is not None
    if occasion.at_us < record.due_us:
        return Decision(record)
    healthy = replace(record, phase=HEALTHY, attempts=0, due_us=None, recovery_told=False)
    confirmed = event("confirmed", record, occasion)
    return Decision(healthy, (confirmed,), recovery_over(record, "recovered"))


def silent_on_probation(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """At the end of its probation a strategy without a sign of life has failed: no progress."""
    assert record.due_us is not None
    if occasion.at_us < record.due_us:
        return Decision(record)
    return relapsed(replace(record, stalled=True), replace(occasion, error=NO_PROGRESS), settings)


# -- resetting


def reset(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """A person closes the breaker: attempts count from 0 again.

    The day's starts are forgotten too, or a breaker opened by their limit would open again at once.
    """
    closing = event("reset", record, occasion, by=occasion.person)
    alerts = recovery_over(record, f"breaker reset by {occasion.person}")
    closed = replace(record, starts=(), operator=occasion.person, recovery_told=False)
    starting = occasion.seen is Input.SEEN_PENDING and not record.stalled
    if occasion.seen is Input.SEEN_RUNNING or starting:
        alerts = (*failure_over(record, "running again"), *alerts)
        healthy = replace(
            closed,
            phase=HEALTHY,
            attempts=0,
            due_us=None,
            reason=None,
            stalled=False,
            failure_told=False,
        )
        return Decision(healthy, (closing,), alerts)
    cooling = replace(begin_episode(closed, occasion), phase=COOLDOWN, due_us=occasion.at_us)
    return Decision(cooling, (closing,), alerts)
