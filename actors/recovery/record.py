"""One strategy as recovery knows it, the inputs that can reach it, and the decision on an input.

All of it is immutable. Instants are int microseconds (`_us`).
"""

from __future__ import annotations

import enum

import msgspec

from ...runtime import shown
from ...wire.alert import AlertDraft
from ...wire.controller import StrategyStatus
from ...wire.recovery import RecoveryEvent, RecoveryPhase

__all__ = [
    "Decision",
    "Input",
    "Occasion",
    "Record",
    "attempt_id",
    "classify",
    "clean",
    "error_of",
]

ERROR_MAX = 1_000  # characters of an engine's error text that are kept


class Record(msgspec.Struct, frozen=True):
    """One strategy, as it is stored."""

    name: str
    phase: RecoveryPhase = RecoveryPhase.HEALTHY
    beneath: RecoveryPhase | None = None  # the phase under HELD; None in every other phase
    kill: bool = False  # held by the kill switch
    held_by: str | None = None  # the person who holds it; None: no person does
    episode: int = 0  # number of failure episodes so far
    since_us: int | None = None  # when the latest episode began; None: there was none
    attempts: int = 0  # begun in the current episode
    due_us: int | None = None  # COOLDOWN: the next attempt; PROBATION: its end; None otherwise
    restarted_us: int | None = None  # heartbeats are a sign of life only when later than this
    starts: tuple[int, ...] = ()  # instants of the last day's attempts, oldest first; if limited
    reason: str | None = None  # of a COOLDOWN or an OPEN
    operator: str | None = None  # the person who reset the breaker last
    # Failed although the engine reports no failure. Of a strategy that is reported running, only a
    # new heartbeat shows that it is back.
    stalled: bool = False
    stop_owed: bool = False  # the kill switch engaged during its restart: stop it when it comes up
    failure_told: bool = False  # the alert of its failure is open
    recovery_told: bool = False  # the alert of its recovery is open

    @property
    def inner(self) -> RecoveryPhase:
        """The phase, or under a hold the phase beneath it."""
        return self.phase if self.beneath is None else self.beneath


def attempt_id(record: Record) -> str:
    """The id of the latest attempt. No two attempts ever have the same one."""
    return f"{record.name}:{record.episode}:{record.attempts}"


class Input(enum.Enum):
    """Everything that can happen to a strategy."""

    # Seen by a check.
    SEEN_RUNNING = enum.auto()  # and alive: a heartbeat since the restart, or no heartbeats at all
    SEEN_SILENT = enum.auto()  # reported running, without a heartbeat since the restart
    SEEN_PENDING = enum.auto()
    SEEN_STOPPED = enum.auto()  # stopped, paused or retired, by a person or the guard
    SEEN_FAILED = enum.auto()
    SEEN_NOT_RETRYABLE = enum.auto()  # failed, and a restart cannot help
    # At the end of a probation: not listed, or reported as it was before the restart.
    NO_SIGN = enum.auto()
    DUE = enum.auto()  # a check after its due time, with a free slot for a restart

    # Heard from a restart call.
    RETURNED = enum.auto()
    RAISED = enum.auto()
    RAISED_NOT_RETRYABLE = enum.auto()
    LATE = enum.auto()  # past its deadline, and still unresolved

    # Ordered by the kill switch or a person.
    KILL_ENGAGED = enum.auto()
    KILL_RELEASED = enum.auto()
    HOLD = enum.auto()
    RELEASE = enum.auto()
    RESET = enum.auto()


class Occasion(msgspec.Struct, frozen=True):
    """One input with its circumstances."""

    input: Input
    at_us: int
    error: str | None = None
    person: str | None = None  # of HOLD, RELEASE and RESET
    seen: Input | None = None  # the state at the last check, for KILL_RELEASED, RELEASE and RESET


class Decision(msgspec.Struct, frozen=True):
    """The next record and the facts that follow. The same record object: nothing changed."""

    record: Record
    events: tuple[RecoveryEvent, ...] = ()
    alerts: tuple[AlertDraft, ...] = ()
    start: bool = False  # call the engine's restart, once this decision is durable
    stop: bool = False  # call the engine's stop at once, because safety does not wait for storage


def classify(record: Record, status: StrategyStatus) -> Input:
    """The engine's report about a strategy as an input. A state that is not known is a failure."""
    if status.state == "running":
        since = record.restarted_us
        silent = (
            since is not None and status.heartbeat_us is not None and status.heartbeat_us <= since
        )
        return Input.SEEN_SILENT if silent else Input.SEEN_RUNNING
    if status.state == "pending":
        return Input.SEEN_PENDING
    if status.state in ("paused", "stopped", "retired"):
        return Input.SEEN_STOPPED
    return Input.SEEN_FAILED if status.retryable else Input.SEEN_NOT_RETRYABLE


def error_of(status: StrategyStatus) -> str | None:
    """The reason of a failed strategy, fit to be stored."""
    if status.state == "failed":
        return clean(status.error)
    return clean(f"the engine reports an unknown state: {shown(status.state)}")


def clean(error: object) -> str | None:
    """An engine's error text, cut to its limit and encodable: a lone surrogate fails the writer."""
    if error is None:
        return None
    return str(error)[:ERROR_MAX].encode("utf-8", "replace").decode()
