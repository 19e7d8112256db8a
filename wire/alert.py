"""Alerts: levels, categories, and what may be asked of the alert actor."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from ..runtime import Request

__all__ = [
    "AlertOutcome",
    "AlertPage",
    "AlertReceipt",
    "AlertRecord",
    "AlertsWaiting",
    "Category",
    "ConsumeAlertRequests",
    "Level",
    "RecentAlerts",
    "SendAlert",
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
    QUEUED = "QUEUED"
    RATE_SUPPRESSED = "RATE_SUPPRESSED"
    DEDUPED = "DEDUPED"
    NO_CHANNEL = "NO_CHANNEL"
    UNPERSISTED = "UNPERSISTED"


class AlertReceipt(msgspec.Struct, frozen=True):
    """What became of one alert. `count` is how often its dedup key has fired while open (1 without a key)."""

    id: int  # 0 when it could not be stored
    outcome: AlertOutcome
    count: int


class SendAlert(Request[AlertReceipt], frozen=True):
    """Decide, store and queue one alert; answered after its commit, never after its delivery."""

    level: Level
    category: Category
    title: str
    message: str
    strategy: str | None = None
    dedup_key: str | None = None


class AlertsWaiting(msgspec.Struct, frozen=True):
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


class RecentAlerts(Request[AlertPage], frozen=True):
    """`limit` 0 gives none; a negative one is refused."""

    limit: int = 50
