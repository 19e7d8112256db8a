"""The guard: what it is shown each tick, what it answers, and the kill switch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from ..runtime import Request
from .alert import AlertDraft
from .controller import StrategyStatus
from .promotion import EntitlementTerms

__all__ = [
    "EngageKillSwitch",
    "Entitlement",
    "GuardReport",
    "GuardState",
    "KillState",
    "KillStatus",
    "Pause",
    "ReadGuard",
    "ReadKillSwitch",
    "ReleaseKillSwitch",
    "RenewLeases",
    "RestoreGuard",
    "ResumeStrategy",
    "StrategyBook",
    "Watch",
]

KillState = Literal["OFF", "ENGAGING", "ENGAGED", "UNCONFIRMED"]


class Entitlement(msgspec.Struct, frozen=True):
    """What a strategy may do, and until when. Mode "none" and "live" with a lapsed lease mean: send no order."""

    stage: str | None
    mode: Literal["paper", "shadow", "live", "none"]
    capital: Decimal
    valid_until_us: int


class StrategyBook(msgspec.Struct, frozen=True):
    """What the guard remembers of one strategy. Money in minor units."""

    pnl_minor: int = 0  # as last reported, cumulative
    real_pnl_minor: int = 0  # of it, made with real money
    real: bool = False  # at the last look
    allocated_minor: int = 0
    worth_minor: int = 0  # equity at the last look
    peak_minor: int = 0  # of equity, scaled by what was given or taken
    warned: bool = False
    paused: bool = False


class GuardState(msgspec.Struct, frozen=True):
    """All that must outlive the process, as one record. `units` make NAV comparable over deposits and withdrawals."""

    external_minor: int = 0
    units: float = 0.0
    peak_per_unit: float = 0.0
    nav_minor: int = 0
    drawdown: float = 0.0
    breaches: int = 0  # ticks in a row at or above the limit
    warned: bool = False
    kill_state: KillState = "OFF"
    strategies: Mapping[str, StrategyBook] = {}


class Pause(msgspec.Struct, frozen=True):
    strategy: str
    reason: str


class GuardReport(msgspec.Struct, frozen=True):
    """One look. `gross_minor` is NAV before fees that have accrued but are not posted."""

    state: GuardState
    gross_minor: int
    pauses: tuple[Pause, ...]
    alerts: tuple[AlertDraft, ...]


class Watch(Request[GuardReport], frozen=True):
    """The tick's look. `terms` None: promotion is off, so every strategy trades real money by the host's own say."""

    statuses: Sequence[StrategyStatus]
    terms: Mapping[str, EntitlementTerms] | None
    external_minor: int
    posted_fees_minor: int
    accrued_fees_minor: int
    blind_s: float = 0.0  # how long the engine has been silent


class RenewLeases(Request[None], frozen=True):
    """Entitlements have changed since the tick's look: what was taken away ends now."""

    statuses: Sequence[StrategyStatus]
    terms: Mapping[str, EntitlementTerms]


class ReadGuard(Request[GuardState], frozen=True):
    """All that must outlive the process, as it is now."""


class RestoreGuard(Request[None], frozen=True):
    """Told once at the start of oversight: what the database remembers. An engaged kill switch stays engaged."""

    state: GuardState


class KillStatus(msgspec.Struct, frozen=True):
    state: KillState
    reason: str
    actor: str
    at_us: int | None


class EngageKillSwitch(Request[KillStatus], frozen=True):
    reason: str
    actor: str


class ReleaseKillSwitch(Request[KillStatus], frozen=True):
    """By a person only. The drawdown starts anew from the NAV of this moment."""

    actor: str
    reason: str


class ReadKillSwitch(Request[KillStatus], frozen=True):
    """The latch now."""


class ResumeStrategy(Request[bool], frozen=True):
    """A person lets a paused strategy go on; False: it was not paused."""

    strategy: str
    actor: str
