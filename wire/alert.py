"""Alerts: levels, categories, and what may be asked of the alert actor."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from ..runtime import Request

__all__ = [
    "AlertDraft",
    "AlertOutcome",
    "AlertPage",
    "AlertReceipt",
    "AlertRecord",
    "AlertsWaiting",
    "Category",
    "ConsumeAlertRequests",
    "DeliverFromMemory",
    "Level",
    "OutgoingAlert",
    "PendingDeliveries",
    "RecentAlerts",
    "SendAlert",
    "Wake",
]


class Level(enum.Enum):
    INFO = "INFO"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"


class Category(enum.Enum):
    KILL_SWITCH = "KILL_SWITCH"
    STRATEGY_FAILURE = "STRATEGY_FAILURE"
    DRAWDOWN = "DRAWDOWN"
    SETTLEMENT = "SETTLEMENT"
    CORRELATION = "CORRELATION"
    RISK_LIMIT = "RISK_LIMIT"
    RECOVERY = "RECOVERY"
    PROMOTION = "PROMOTION"
    REBALANCE = "REBALANCE"
    GENERAL = "GENERAL"


class AlertOutcome(enum.Enum):
    """QUEUED and NO_CHANNEL are stored; an UNPERSISTED one left from memory, since storage refused it."""

    QUEUED = "QUEUED"
    RATE_SUPPRESSED = "RATE_SUPPRESSED"
    DEDUPED = "DEDUPED"
    NO_CHANNEL = "NO_CHANNEL"
    UNPERSISTED = "UNPERSISTED"


class AlertReceipt(msgspec.Struct, frozen=True):
    """What became of one alert. `count` is how often its dedup key has fired while open (1 without a key).

    Resolving a key that is not open does and stores nothing: id 0, DEDUPED, count 0.
    """

    id: int  # 0 when it is not stored
    outcome: AlertOutcome
    count: int


class AlertDraft(msgspec.Struct, frozen=True):
    """An alert to ask for, in the transaction of the fact it is about. With `resolves` it closes its key."""

    level: Level
    category: Category
    title: str
    message: str
    strategy: str | None = None
    dedup_key: str | None = None
    resolves: bool = False


class SendAlert(Request[AlertReceipt], frozen=True):
    """Decide, store and queue one alert; answered after its commit, never after its delivery.

    Refused with: `AlertRefused`; unless it is CRITICAL, also with what storage refused its commit with.
    """

    level: Level
    category: Category
    title: str
    message: str
    strategy: str | None = None
    dedup_key: str | None = None
    resolves: bool = False  # closes the dedup key instead of firing it


class AlertsWaiting(msgspec.Struct, frozen=True, tag=True):
    """Told after a commit that contained alert requests."""


class ConsumeAlertRequests(Request[int], frozen=True):
    """Decide all stored alert requests now; the answer is how many there were."""


class AlertRecord(msgspec.Struct, frozen=True):
    id: int
    at_us: int
    level: Level
    category: Category
    title: str
    message: str
    strategy: str | None
    outcome: AlertOutcome


class AlertPage(msgspec.Struct, frozen=True):
    """The newest alerts first; the counts are over all of history."""

    alerts: tuple[AlertRecord, ...]
    by_category: Mapping[str, int]
    by_outcome: Mapping[str, int]
    suppressed_by_category: Mapping[str, int]  # the RATE_SUPPRESSED part of by_category


class RecentAlerts(Request[AlertPage], frozen=True):
    """`limit` 0 gives none, and at most 10,000 are given; a negative one is refused with `AlertRefused`."""

    limit: int = 50


# -- between the alert actor and its channels


class OutgoingAlert(msgspec.Struct, frozen=True):
    """What a channel delivers."""

    id: str  # unique for each alert, the same for each attempt
    at_us: int
    level: Level
    category: Category
    title: str
    message: str


class Wake(msgspec.Struct, frozen=True, tag=True):
    """Told to a channel when rows may be waiting in its outbox."""


class DeliverFromMemory(msgspec.Struct, frozen=True, tag=True):
    """A CRITICAL alert that storage refused; the channel delivers it once, and keeps no row of it."""

    alert: OutgoingAlert


class PendingDeliveries(Request[int], frozen=True):
    """How many rows of the channel are PENDING or SENDING. It waits for the delivery in flight: up to 10 s."""
