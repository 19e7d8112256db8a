"""Recovery: phases of a strategy, events, and the requests to the recovery actor."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from ..runtime import Request
from .controller import FeedStatus, StrategyStatus

__all__ = [
    "AttemptEnded",
    "AttemptLate",
    "BreakerReset",
    "CheckFeeds",
    "CheckStrategies",
    "EventHistory",
    "HoldStrategy",
    "RecoveryAction",
    "RecoveryEvent",
    "RecoveryPhase",
    "RecoveryStatistics",
    "RecoveryStats",
    "RecoveryStatus",
    "RecoveryStatuses",
    "ReleaseStrategy",
]


class RecoveryPhase(enum.Enum):
    """The phase of a strategy in recovery."""

    HEALTHY = "HEALTHY"
    COOLDOWN = "COOLDOWN"  # failed, waiting for the next attempt
    RESTARTING = "RESTARTING"  # a restart call is running
    RESTARTING_LATE = "RESTARTING_LATE"  # the call is past its deadline
    PROBATION = "PROBATION"  # runs again, not yet confirmed
    OPEN = "OPEN"  # the circuit breaker is open: no more attempts until a person resets it
    HELD = "HELD"  # by the kill switch or a person
    UNMANAGED = "UNMANAGED"  # stopped by a person or the guard


RecoveryAction = Literal[
    "restart_strategy",
    "confirmed",
    "relapse",
    "opened",
    "reset",
    "held",
    "released",
    "aborted",
    "stale_feed",
    "feed_back",
    "clock_jump",  # the target is "clock", the seconds stand in `error`
]


class RecoveryEvent(msgspec.Struct, frozen=True):
    """One event of recovery."""

    action: RecoveryAction
    target: str  # the name of the strategy or feed; "clock" of a clock_jump
    success: bool | None  # of restart_strategy; None for every other action
    attempt: int  # within the failure episode
    error: str | None = None  # None: no error
    at_us: int = 0  # 0: at no known time, as of an event that a caller made
    seq: int = 0  # 0: not stored yet
    by: str | None = None  # who caused a reset, held or released; None for other actions


class RecoveryStatus(msgspec.Struct, frozen=True):
    """The recovery of one strategy now."""

    name: str
    phase: RecoveryPhase
    attempts: int  # in the current episode
    due_us: int | None  # the next attempt, or the end of probation; None: neither is due
    reason: str | None  # of COOLDOWN, OPEN and HELD
    breaker_open: bool = False  # in phase OPEN, or HELD over it


class CheckStrategies(Request[tuple[RecoveryEvent, ...]], frozen=True):
    """Check all strategies and restart the due ones. Answers with the events, once durable."""

    statuses: Sequence[StrategyStatus]
    kill_engaged: bool | None = None  # None: unknown to the caller, so as in the last check
    at_us: int | None = None  # when the statuses were read from the engine; None: just now
    discover: bool = True  # False: go on with the failures that are known, and look for no new one
    told: frozenset[str] = frozenset()  # strategies whose failure an alert has named already
    real: frozenset[str] = frozenset()  # strategies that trade real money


class CheckFeeds(Request[tuple[RecoveryEvent, ...]], frozen=True):
    """Check all feeds. Answers with the events, once durable."""

    feeds: Sequence[FeedStatus]


class AttemptEnded(msgspec.Struct, frozen=True, tag=True):
    """Sent by the host port when a restart call ends."""

    name: str
    attempt_id: str
    error: str | None  # None: it returned, so the strategy runs
    retryable: bool  # False: another attempt cannot help


class AttemptLate(msgspec.Struct, frozen=True, tag=True):
    """Sent by the host port when a restart call is past its deadline and still running."""

    name: str
    attempt_id: str


class BreakerReset(Request[bool], frozen=True):
    """Close an open breaker; False: it was not open. Refused with: `UnmanagedStrategy`."""

    name: str
    by: str = "operator"


class HoldStrategy(Request[bool], frozen=True):
    """Hold a strategy: nothing restarts it until `ReleaseStrategy`.

    False: a person holds it already. Refused with: `UnmanagedStrategy`.
    """

    name: str
    by: str = "operator"


class ReleaseStrategy(Request[bool], frozen=True):
    """End a person's hold; False: no person holds it. Refused with: `UnmanagedStrategy`."""

    name: str
    by: str = "operator"


class EventHistory(Request[tuple[RecoveryEvent, ...]], frozen=True):
    """The newest events, newest first. 0 gives none, a negative limit is refused."""

    limit: int = 20


class RecoveryStatistics(msgspec.Struct, frozen=True):
    """Totals since the database was made, and gauges of now.

    Attempts, successes and failures count the action restart_strategy alone.
    """

    total_attempts: int  # successes + failures
    successes: int
    failures: int
    circuit_breakers_open: int  # now
    confirmed: int  # restarts that passed their probation
    relapsed: int  # failures during probation
    in_probation: int  # now
    held: int  # now

    def four(self) -> Mapping[str, int]:
        """The first four figures by name, as reports show them."""
        return {
            "total_attempts": self.total_attempts,
            "successes": self.successes,
            "failures": self.failures,
            "circuit_breakers_open": self.circuit_breakers_open,
        }


class RecoveryStats(Request[RecoveryStatistics], frozen=True):
    """The totals and gauges of recovery."""


class RecoveryStatuses(Request[tuple[RecoveryStatus, ...]], frozen=True):
    """The status of every strategy that recovery knows, by name."""
