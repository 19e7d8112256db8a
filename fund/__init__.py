"""fundops: the operations crew of a trading fund, as one embeddable package.

Names are loaded when first used, so that `import fundops.runtime` does not load the whole fund.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Type checkers read these imports, and editors complete from them; the table below is what runs.
if TYPE_CHECKING:
    from fundops.actors.alert import AlertSettings as AlertSettings
    from fundops.actors.promotion import Cooldowns as Cooldowns
    from fundops.actors.promotion import Criterion as Criterion
    from fundops.actors.promotion import GateSettings as GateSettings
    from fundops.actors.promotion import PromotionGate as PromotionGate
    from fundops.actors.promotion import PromotionPolicy as PromotionPolicy
    from fundops.actors.promotion import PromotionSettings as PromotionSettings
    from fundops.actors.promotion import SoftWindow as SoftWindow
    from fundops.actors.promotion import StageSettings as StageSettings
    from fundops.actors.promotion import policy_of as policy_of
    from fundops.actors.recovery import RecoverySettings as RecoverySettings
    from fundops.asyncio_fund import AsyncioFund as AsyncioFund
    from fundops.config import FundConfig as FundConfig
    from fundops.errors import ControlError as ControlError
    from fundops.errors import DatabaseInUse as DatabaseInUse
    from fundops.errors import FundClosed as FundClosed
    from fundops.errors import FundNotRunning as FundNotRunning
    from fundops.errors import SubsystemDisabled as SubsystemDisabled
    from fundops.fund import Fund as Fund
    from fundops.manager import FundManager as FundManager
    from fundops.promotion import PromotionManager as PromotionManager
    from fundops.reader import FundReader as FundReader
    from fundops.reader import open_reader as open_reader
    from fundops.runtime import Clock as Clock
    from fundops.runtime import ConfigError as ConfigError
    from fundops.runtime import FundopsError as FundopsError
    from fundops.runtime import SystemClock as SystemClock
    from fundops.runtime import VirtualClock as VirtualClock
    from fundops.wire.alert import Category as Category
    from fundops.wire.alert import Level as Level
    from fundops.wire.controller import CashEvent as CashEvent
    from fundops.wire.controller import Controller as Controller
    from fundops.wire.controller import FeedStatus as FeedStatus
    from fundops.wire.controller import Fill as Fill
    from fundops.wire.controller import Settlement as Settlement
    from fundops.wire.controller import StopReport as StopReport
    from fundops.wire.controller import StrategyStatus as StrategyStatus
    from fundops.wire.errors import AlreadyReversed as AlreadyReversed
    from fundops.wire.errors import AmountError as AmountError
    from fundops.wire.errors import BadField as BadField
    from fundops.wire.errors import DatabaseError as DatabaseError
    from fundops.wire.errors import HostFault as HostFault
    from fundops.wire.errors import IdempotencyConflict as IdempotencyConflict
    from fundops.wire.errors import InsufficientFunds as InsufficientFunds
    from fundops.wire.errors import LedgerDegraded as LedgerDegraded
    from fundops.wire.errors import LedgerFailed as LedgerFailed
    from fundops.wire.errors import NotRetryable as NotRetryable
    from fundops.wire.errors import OutcomeUnknown as OutcomeUnknown
    from fundops.wire.errors import PeriodClosed as PeriodClosed
    from fundops.wire.errors import UnbalancedEntry as UnbalancedEntry
    from fundops.wire.errors import UnknownAccount as UnknownAccount
    from fundops.wire.guard import Entitlement as Entitlement
    from fundops.wire.guard import KillStatus as KillStatus
    from fundops.wire.ledger import Leg as Leg
    from fundops.wire.ledger import OpeningPosition as OpeningPosition
    from fundops.wire.ledger import Posted as Posted
    from fundops.wire.ledger import Statement as Statement
    from fundops.wire.promotion import PromotionStage as PromotionStage
    from fundops.wire.recovery import RecoveryEvent as RecoveryEvent
    from fundops.wire.stream.following import StatusClient as StatusClient
    from fundops.wire.why import Blocker as Blocker
    from fundops.wire.why import Why as Why

__version__ = "0.1.0"

__all__ = [
    "AlertSettings",
    "AlreadyReversed",
    "AmountError",
    "AsyncioFund",
    "BadField",
    "Blocker",
    "CashEvent",
    "Category",
    "Clock",
    "ConfigError",
    "ControlError",
    "Controller",
    "Cooldowns",
    "Criterion",
    "DatabaseError",
    "DatabaseInUse",
    "Entitlement",
    "FeedStatus",
    "Fill",
    "Fund",
    "FundClosed",
    "FundConfig",
    "FundManager",
    "FundNotRunning",
    "FundReader",
    "FundopsError",
    "GateSettings",
    "HostFault",
    "IdempotencyConflict",
    "InsufficientFunds",
    "KillStatus",
    "LedgerDegraded",
    "LedgerFailed",
    "Leg",
    "Level",
    "NotRetryable",
    "OpeningPosition",
    "OutcomeUnknown",
    "PeriodClosed",
    "Posted",
    "PromotionGate",
    "PromotionManager",
    "PromotionPolicy",
    "PromotionSettings",
    "PromotionStage",
    "RecoveryEvent",
    "RecoverySettings",
    "Settlement",
    "SoftWindow",
    "StageSettings",
    "StopReport",
    "StrategyStatus",
    "SubsystemDisabled",
    "SystemClock",
    "UnbalancedEntry",
    "UnknownAccount",
    "VirtualClock",
    "Why",
    "__version__",
    "open_reader",
    "policy_of",
]

# The module of each public name.
_HOMES = {
    "AlertSettings": "fundops.actors.alert",
    "AlreadyReversed": "fundops.wire.errors",
    "AmountError": "fundops.wire.errors",
    "AsyncioFund": "fundops.asyncio_fund",
    "BadField": "fundops.wire.errors",
    "Blocker": "fundops.wire.why",
    "CashEvent": "fundops.wire.controller",
    "Category": "fundops.wire.alert",
    "Clock": "fundops.runtime",
    "ConfigError": "fundops.runtime",
    "ControlError": "fundops.errors",
    "Controller": "fundops.wire.controller",
    "Cooldowns": "fundops.actors.promotion",
    "Criterion": "fundops.actors.promotion",
    "DatabaseError": "fundops.wire.errors",
    "DatabaseInUse": "fundops.errors",
    "Entitlement": "fundops.wire.guard",
    "FeedStatus": "fundops.wire.controller",
    "Fill": "fundops.wire.controller",
    "Fund": "fundops.fund",
    "FundClosed": "fundops.errors",
    "FundConfig": "fundops.config",
    "FundManager": "fundops.manager",
    "FundNotRunning": "fundops.errors",
    "FundopsError": "fundops.runtime",
    "FundReader": "fundops.reader",
    "GateSettings": "fundops.actors.promotion",
    "HostFault": "fundops.wire.errors",
    "IdempotencyConflict": "fundops.wire.errors",
    "InsufficientFunds": "fundops.wire.errors",
    "KillStatus": "fundops.wire.guard",
    "LedgerDegraded": "fundops.wire.errors",
    "LedgerFailed": "fundops.wire.errors",
    "Leg": "fundops.wire.ledger",
    "Level": "fundops.wire.alert",
    "NotRetryable": "fundops.wire.errors",
    "open_reader": "fundops.reader",
    "OpeningPosition": "fundops.wire.ledger",
    "OutcomeUnknown": "fundops.wire.errors",
    "PeriodClosed": "fundops.wire.errors",
    "policy_of": "fundops.actors.promotion",
    "Posted": "fundops.wire.ledger",
    "PromotionGate": "fundops.actors.promotion",
    "PromotionManager": "fundops.promotion",
    "PromotionPolicy": "fundops.actors.promotion",
    "PromotionSettings": "fundops.actors.promotion",
    "PromotionStage": "fundops.wire.promotion",
    "RecoveryEvent": "fundops.wire.recovery",
    "RecoverySettings": "fundops.actors.recovery",
    "Settlement": "fundops.wire.controller",
    "SoftWindow": "fundops.actors.promotion",
    "StageSettings": "fundops.actors.promotion",
    "Statement": "fundops.wire.ledger",
    "StatusClient": "fundops.wire.stream.following",
    "StopReport": "fundops.wire.controller",
    "StrategyStatus": "fundops.wire.controller",
    "SubsystemDisabled": "fundops.errors",
    "SystemClock": "fundops.runtime",
    "UnbalancedEntry": "fundops.wire.errors",
    "UnknownAccount": "fundops.wire.errors",
    "VirtualClock": "fundops.runtime",
    "Why": "fundops.wire.why",
}


# Hidden from type checkers: to them a module with a `__getattr__` has every name, so a misspelt
# import would pass.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'fundops' has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
