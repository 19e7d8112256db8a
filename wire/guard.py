"""The guard: its look at each tick, its leases, and the kill switch.

Fields that end in `_minor` are money in minor units; instants are int microseconds (UTC).
"""

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
    "FeeTerms",
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
    """The permission of one strategy, and the end of its lease.

    With mode "none", or "live" after the end of the lease, the strategy must send no order.
    """

    stage: str | None  # None: promotion is off, or the stage is unknown
    mode: Literal["paper", "shadow", "live", "none"]
    capital: Decimal  # the most real capital that it may use
    valid_until_us: int


class StrategyBook(msgspec.Struct, frozen=True):
    """The guard's memory of one strategy."""

    pnl_minor: int = 0  # as last reported, cumulative
    real_pnl_minor: int = 0  # the part of it made with real money
    real: bool = False  # traded real money at the last look
    allocated_minor: int = 0  # as last reported
    worth_minor: int = 0  # equity at the last look
    peak_minor: int = 0  # highest equity, scaled when capital was given or taken
    warned: bool = False  # of a drawdown near its limit
    paused: bool = False  # by the guard


class GuardState(msgspec.Struct, frozen=True):
    """The guard's memory that must survive the process, as one record."""

    external_minor: int = 0  # deposits less withdrawals
    units: float = 0.0  # deposits buy and withdrawals redeem them, so NAV per unit is comparable
    peak_per_unit: float = 0.0  # highest NAV per unit
    nav_minor: int = 0
    drawdown: float = 0.0  # of NAV per unit below its peak, in percent
    breaches: int = 0  # ticks in a row at or above the limit
    warned: bool = False  # of a drawdown near the limit
    kill_state: KillState = "OFF"
    strategies: Mapping[str, StrategyBook] = {}


class FeeTerms(msgspec.Struct, frozen=True):
    """The performance fee as a rule: the guard applies it to the figures of its own look."""

    performance_pct: float = 0.0  # percent of what a unit gains above the mark
    mark_per_unit: float = 1.0  # the high-water mark


class Pause(msgspec.Struct, frozen=True):
    """An order to pause one strategy."""

    strategy: str
    reason: str


class GuardReport(msgspec.Struct, frozen=True):
    """The results of one look."""

    state: GuardState
    gross_minor: int  # NAV before fees that are accrued but not posted
    pauses: tuple[Pause, ...]
    alerts: tuple[AlertDraft, ...]
    performance_minor: int = 0  # the performance fee accrued at the figures of this look
    problem: str = ""  # why NAV could not be taken, and the one before stands; "": it was taken


class Watch(Request[GuardReport], frozen=True):
    """The look of one tick: judge drawdowns, keep the kill switch in force, renew leases."""

    statuses: Sequence[StrategyStatus]
    terms: Mapping[str, EntitlementTerms] | None  # None: promotion is off, all trade real money
    external_minor: int  # deposits less withdrawals
    posted_fees_minor: int
    accrued_fees_minor: int  # without the performance fee, which is a matter of NAV: see `fees`
    blind_s: float = 0.0  # seconds since the engine last reported; 0: it has just reported
    fees: FeeTerms = FeeTerms()


class RenewLeases(Request[None], frozen=True):
    """Renew the leases after a change of entitlements, so that a withdrawn one ends now."""

    statuses: Sequence[StrategyStatus]
    terms: Mapping[str, EntitlementTerms]


class ReadGuard(Request[GuardState], frozen=True):
    """The guard's memory as it is now."""


class RestoreGuard(Request[None], frozen=True):
    """Restore the stored memory, once at the start. An engaged kill switch stays engaged."""

    state: GuardState


class KillStatus(msgspec.Struct, frozen=True):
    """The kill switch: its state, and by whom, why and when it was engaged."""

    state: KillState
    reason: str
    by: str
    at_us: int | None  # None: it was never engaged


class EngageKillSwitch(Request[KillStatus], frozen=True):
    """Engage the kill switch: end all leases and stop all trading. Again: no change."""

    reason: str
    by: str


class ReleaseKillSwitch(Request[KillStatus], frozen=True):
    """Release the kill switch. Only a person does; drawdown then counts from the NAV of now.

    Refused with: `KillSwitchNotEngaged`.
    """

    by: str
    reason: str


class ReadKillSwitch(Request[KillStatus], frozen=True):
    """The state of the kill switch now."""


class ResumeStrategy(Request[bool], frozen=True):
    """Resume a strategy that the guard paused; False: it was not paused."""

    strategy: str
    by: str
