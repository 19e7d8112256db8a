"""Recovery: the states of a managed strategy, what happened to it, and what may be asked."""

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
    HEALTHY = "HEALTHY"
    COOLDOWN = "COOLDOWN"
    RESTARTING = "RESTARTING"
    RESTARTING_LATE = "RESTARTING_LATE"
    PROBATION = "PROBATION"
    OPEN = "OPEN"
    HELD = "HELD"
    UNMANAGED = "UNMANAGED"


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
]


class RecoveryEvent(msgspec.Struct, frozen=True):
    """One thing that happened. `attempt` counts within the failure episode; `success` None: neither."""

    action: RecoveryAction
    target: str
    success: bool | None
    attempt: int
    error: str | None
    at_us: int
    seq: int = 0  # 0 until stored
    actor: str | None = None  # whose doing: of reset, held and released


class RecoveryStatus(msgspec.Struct, frozen=True):
    name: str
    phase: RecoveryPhase
    attempts: int  # in the running episode
    due_us: int | None  # of the next attempt, or the end of probation
    reason: str | None


class CheckStrategies(Request[tuple[RecoveryEvent, ...]], frozen=True):
    """Look at all strategies, start what is due; answers with the events of this check, after their commit."""

    statuses: Sequence[StrategyStatus]
    kill_engaged: bool | None = None  # None: not known here, so as the last check that knew was told
    at_us: int | None = None  # when the statuses were read from the engine; None: just now


class CheckFeeds(Request[tuple[RecoveryEvent, ...]], frozen=True):
    feeds: Sequence[FeedStatus]


class AttemptEnded(msgspec.Struct, frozen=True, tag=True):
    """Told by the host port when a restart call came back; `error` None: it returned."""

    name: str
    attempt_id: str
    error: str | None
    retryable: bool


class AttemptLate(msgspec.Struct, frozen=True, tag=True):
    """Told by the host port when a restart call has not come back within its deadline."""

    name: str
    attempt_id: str


class BreakerReset(Request[bool], frozen=True):
    """Close an open breaker by a person's hand; False when it was not open. Refused: `UnmanagedStrategy`."""

    name: str
    actor: str = "operator"


class HoldStrategy(Request[bool], frozen=True):
    name: str
    actor: str = "operator"


class ReleaseStrategy(Request[bool], frozen=True):
    name: str
    actor: str = "operator"


class EventHistory(Request[tuple[RecoveryEvent, ...]], frozen=True):
    """Newest first; 0 gives none, a negative limit is refused."""

    limit: int = 20


class RecoveryStatistics(msgspec.Struct, frozen=True):
    """total_attempts = successes + failures count restart_strategy alone; the last four are gauges or counts beside."""

    total_attempts: int
    successes: int
    failures: int
    circuit_breakers_open: int
    confirmed: int
    relapsed: int
    in_probation: int
    held: int

    def four(self) -> Mapping[str, int]:
        """The four figures of the report."""
        return {
            "total_attempts": self.total_attempts,
            "successes": self.successes,
            "failures": self.failures,
            "circuit_breakers_open": self.circuit_breakers_open,
        }


class RecoveryStats(Request[RecoveryStatistics], frozen=True):
    """Totals since the database was made."""


class RecoveryStatuses(Request[tuple[RecoveryStatus, ...]], frozen=True):
    """Every strategy recovery knows, by name."""
