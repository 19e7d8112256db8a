"""fundops: the operations crew of a trading fund, as one embeddable package.

Names are loaded when first used: `import fundops.runtime` must not load the whole fund.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fundops.actors.alert import AlertSettings
    from fundops.actors.promotion import Criterion, PromotionGate, PromotionSettings
    from fundops.actors.recovery import RecoverySettings
    from fundops.config import FundConfig
    from fundops.errors import DatabaseInUse, SubsystemDisabled
    from fundops.fund import Fund
    from fundops.manager import FundManager
    from fundops.promotion import PromotionManager
    from fundops.reader import FundReader, open_reader
    from fundops.runtime import Clock, ConfigError, FundopsError, SystemClock, VirtualClock
    from fundops.wire.alert import Category, Level
    from fundops.wire.controller import (
        Controller,
        FeedStatus,
        Fill,
        Settlement,
        StopReport,
        StrategyStatus,
    )
    from fundops.wire.errors import (
        AlreadyReversed,
        AmountError,
        IdempotencyConflict,
        InsufficientFunds,
        LedgerDegraded,
        LedgerFailed,
        NotRetryable,
        OutcomeUnknown,
        PeriodClosed,
        UnbalancedEntry,
        UnknownAccount,
    )
    from fundops.wire.guard import Entitlement
    from fundops.wire.ledger import Leg, OpeningPosition, Posted
    from fundops.wire.promotion import PromotionStage
    from fundops.wire.recovery import RecoveryEvent

__version__ = "0.1.0"

# Public name -> the module that has it.
_HOMES = {
    "AlertSettings": "fundops.actors.alert",
    "AlreadyReversed": "fundops.wire.errors",
    "AmountError": "fundops.wire.errors",
    "Category": "fundops.wire.alert",
    "Clock": "fundops.runtime",
    "ConfigError": "fundops.runtime",
    "Controller": "fundops.wire.controller",
    "Criterion": "fundops.actors.promotion",
    "DatabaseInUse": "fundops.errors",
    "Entitlement": "fundops.wire.guard",
    "FeedStatus": "fundops.wire.controller",
    "Fill": "fundops.wire.controller",
    "Fund": "fundops.fund",
    "FundConfig": "fundops.config",
    "FundManager": "fundops.manager",
    "FundReader": "fundops.reader",
    "FundopsError": "fundops.runtime",
    "IdempotencyConflict": "fundops.wire.errors",
    "InsufficientFunds": "fundops.wire.errors",
    "LedgerDegraded": "fundops.wire.errors",
    "LedgerFailed": "fundops.wire.errors",
    "Leg": "fundops.wire.ledger",
    "Level": "fundops.wire.alert",
    "NotRetryable": "fundops.wire.errors",
    "OpeningPosition": "fundops.wire.ledger",
    "OutcomeUnknown": "fundops.wire.errors",
    "PeriodClosed": "fundops.wire.errors",
    "Posted": "fundops.wire.ledger",
    "PromotionGate": "fundops.actors.promotion",
    "PromotionManager": "fundops.promotion",
    "PromotionSettings": "fundops.actors.promotion",
    "PromotionStage": "fundops.wire.promotion",
    "RecoveryEvent": "fundops.wire.recovery",
    "RecoverySettings": "fundops.actors.recovery",
    "Settlement": "fundops.wire.controller",
    "StopReport": "fundops.wire.controller",
    "StrategyStatus": "fundops.wire.controller",
    "SubsystemDisabled": "fundops.errors",
    "SystemClock": "fundops.runtime",
    "UnbalancedEntry": "fundops.wire.errors",
    "UnknownAccount": "fundops.wire.errors",
    "VirtualClock": "fundops.runtime",
    "open_reader": "fundops.reader",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fundops' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
