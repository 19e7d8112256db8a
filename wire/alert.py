"""Alerts: levels, categories, the requests to the alert actor, and the messages to its channels."""

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
    "ChannelTest",
    "ConsumeAlertRequests",
    "DeliverFromMemory",
    "Level",
    "OutgoingAlert",
    "PendingDeliveries",
    "RecentAlerts",
    "SendAlert",
    "TryDelivery",
    "Wake",
    "resolved",
]


class Level(enum.Enum):
    """The urgency of an alert, lowest first."""

    INFO = "INFO"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"


class Category(enum.Enum):
    """The subject of an alert. Each category has its own rate limit."""

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
    """The decision on one alert."""

    QUEUED = "QUEUED"  # stored, and queued for its channels
    RATE_SUPPRESSED = "RATE_SUPPRESSED"  # over the rate limit of its category
    DEDUPED = "DEDUPED"  # its key is open already, or not open when it resolves
    NO_CHANNEL = "NO_CHANNEL"  # stored, but no channel wants it
    UNPERSISTED = "UNPERSISTED"  # storage refused it, so it was delivered from memory


class AlertReceipt(msgspec.Struct, frozen=True):
    """The decision on one alert.

    Resolving a key that is not open stores nothing: id 0, DEDUPED, count 0.
    """

    id: int  # 0: not stored
    outcome: AlertOutcome
    count: int  # firings of its dedup key since that opened; 1 without a key


class AlertDraft(msgspec.Struct, frozen=True, gc=False):
    """An alert that an actor requests in the transaction of the fact that it reports."""

    level: Level
    category: Category
    title: str
    message: str
    strategy: str | None = None  # None: it is not about one strategy
    dedup_key: str | None = None  # None: no deduplication
    resolves: bool = False  # closes the dedup key instead of firing it


def resolved(
    category: Category, title: str, key: str, strategy: str | None = None, message: str = ""
) -> AlertDraft:
    """The end of the alert with this key; one that is not open ends silently."""
    return AlertDraft(Level.INFO, category, title, message, strategy, key, resolves=True)


class SendAlert(Request[AlertReceipt], frozen=True):
    """Decide, store and queue one alert. The answer comes after its commit and before its delivery.

    Refused with: `AlertRefused`; the refusal of storage, unless the alert is CRITICAL.
    """

    level: Level
    category: Category
    title: str
    message: str
    strategy: str | None = None  # None: it is not about one strategy
    dedup_key: str | None = None  # None: no deduplication
    resolves: bool = False  # closes the dedup key instead of firing it


class AlertsWaiting(msgspec.Struct, frozen=True, tag=True):
    """Sent after a commit that contained alert requests."""


class ConsumeAlertRequests(Request[int], frozen=True):
    """Decide all stored alert requests now. The answer is their number."""


class AlertRecord(msgspec.Struct, frozen=True):
    """One stored alert."""

    id: int
    at_us: int
    level: Level
    category: Category
    title: str
    message: str
    strategy: str | None  # None: it is not about one strategy
    outcome: AlertOutcome


class AlertPage(msgspec.Struct, frozen=True):
    """The newest alerts, newest first, with counts over the whole history."""

    alerts: tuple[AlertRecord, ...]
    by_category: Mapping[str, int]
    by_outcome: Mapping[str, int]
    suppressed_by_category: Mapping[str, int]  # the RATE_SUPPRESSED part of by_category


class RecentAlerts(Request[AlertPage], frozen=True):
    """The newest alerts. A negative limit is refused with `AlertRefused`."""

    limit: int = 50  # 0: none; above 10,000: 10,000


# -- between the alert actor and its channels


class OutgoingAlert(msgspec.Struct, frozen=True):
    """The content of an alert for a channel to deliver."""

    # Unique in the world, and the same in each attempt to deliver it: the database's uuid and the
    # alert's number.
    id: str
    at_us: int
    level: Level
    category: Category
    title: str
    message: str


class Wake(msgspec.Struct, frozen=True, tag=True):
    """Sent to a channel when rows may be waiting in its outbox."""


class DeliverFromMemory(msgspec.Struct, frozen=True, tag=True):
    """A CRITICAL alert that storage refused.

    The channel tries once to deliver it, without a row.
    """

    alert: OutgoingAlert


class TryDelivery(Request[str | None], frozen=True):
    """Try to deliver this alert now, without a row. The answer is None when it was, or why not."""

    alert: OutgoingAlert


class ChannelTest(msgspec.Struct, frozen=True):
    """The result of a test alert through one channel."""

    channel: str
    delivered: bool
    error: str | None  # None: it was delivered


class PendingDeliveries(Request[int], frozen=True):
    """The number of rows of the channel that are PENDING or SENDING.

    The answer waits for the delivery in progress, up to 10 s.
    """
