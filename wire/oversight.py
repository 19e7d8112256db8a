"""Oversight: the tick, and the state of the fund after it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

import msgspec

from ..runtime import ConfigError, Request, shown
from .guard import KillState
from .ledger import Posted, Withdraw

__all__ = [
    "AttributePnl",
    "ConfirmClock",
    "CrashesHeard",
    "FundStatus",
    "NavHistory",
    "NavSample",
    "PnlAttribution",
    "PostFees",
    "ReadFundStatus",
    "Redeem",
    "RememberGuard",
    "ResumeStrategy",
    "ShowStatus",
    "StrategyPnl",
    "Tick",
    "TickReport",
]


class TickReport(msgspec.Struct, frozen=True):
    """The results of one tick."""

    number: int
    promotions: int
    demotions: int
    failed: tuple[str, ...]  # names of the steps that failed; the others were done
    sessions: tuple[str, ...] = ()  # that this tick ended, oldest first


class Tick(Request[TickReport], frozen=True):
    """Run one round of oversight. Raises: `ConfigError` when `session` is no ISO date."""

    # The host's calendar: this tick ends that session. None: the configured calendar, until the
    # host has named a session.
    session: str | None = None

    def __post_init__(self) -> None:
        if self.session is not None and not _is_date(self.session):
            raise ConfigError("session", f"{shown(self.session)} is not an ISO date, YYYY-MM-DD")


def _is_date(text: object) -> bool:
    try:
        # Other forms of the same date would compare as texts in a wrong order.
        return isinstance(text, str) and dt.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


class ConfirmClock(Request[bool], frozen=True):
    """Take the wall clock as right after it has parted from the monotonic one.

    Answers with whether it was suspect.
    """

    by: str
    reason: str


class CrashesHeard(msgspec.Struct, frozen=True, tag=True):
    """Sent when an actor of the fund has crashed or runs again."""


class ShowStatus(msgspec.Struct, frozen=True, tag=True):
    """Publish the states for the status stream as they are now."""


class FundStatus(msgspec.Struct, frozen=True):
    """The fund as of its last tick. Money in the fund's currency."""

    running: bool
    total_capital: Decimal  # as configured
    nav: Decimal
    drawdown_pct: float
    high_water_mark: Decimal  # NAV at the last performance fee, at today's number of units
    running_strategies: int
    total_fees: Decimal  # posted and accrued
    kill_switch: KillState
    mode: str
    strategies_by_stage: Mapping[str, int]
    alerts_24h: int
    breakers_open: int
    ticks: int  # since the fund started
    # The ledger's NAV less this one, before fees that are accrued and not posted; None: no ledger.
    nav_difference: Decimal | None = None
    # The wall clock has jumped: no session ends, fees and promotions wait for `confirm_clock`.
    clock_suspect: bool = False
    data_age_s: float | None = None  # of the host's newest word; None: no tick yet
    stale: bool = False  # the host is silent, so its figures are those of that age
    tick_age_s: float | None = None  # since the end of the last tick; None: no tick yet
    # How often each step of the tick has failed since oversight started; a step that never did is
    # not listed.
    step_failures: Mapping[str, int] = {}

    def as_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return msgspec.structs.asdict(self)


class RememberGuard(Request[None], frozen=True):
    """Store the state of the guard now, instead of at the end of the next tick."""


class Redeem(Request[Posted], frozen=True):
    """Book a withdrawal, and before it the fees of the units that leave.

    Refused as the ledger refuses it.
    """

    event: Withdraw


class PostFees(Request[None], frozen=True):
    """Book the management fee that has accrued up to now."""


class ResumeStrategy(Request[bool], frozen=True):
    """Resume a strategy that a person or the guard paused; False: it was not paused.

    Refused with: `KillSwitchEngaged`; `HostFault` when the engine did not do it. It then stays
    paused.
    """

    strategy: str
    by: str
    reason: str


class ReadFundStatus(Request[FundStatus], frozen=True):
    """The fund as of its last tick."""


class NavSample(msgspec.Struct, frozen=True):
    """The NAV at the end of one session, or within one minute."""

    at_us: int
    session: str  # ISO day; of a minute: the last session that had ended, "" before the first
    nav: Decimal
    drawdown_pct: float
    missed: bool = False  # its end fell into downtime: NAV is the last known one, after fees


class NavHistory(Request[tuple[NavSample, ...]], frozen=True):
    """The NAV of the newest sessions, newest first. 0 gives none, a negative limit is refused.

    Sessions are kept without end, minutes for a month. Raises: `ConfigError` for another `every`.
    """

    limit: int = 100
    every: Literal["session", "minute"] = "session"

    def __post_init__(self) -> None:
        if self.every not in ("session", "minute"):
            raise ConfigError("every", f"{shown(self.every)} is neither 'session' nor 'minute'")


class StrategyPnl(msgspec.Struct, frozen=True):
    """The share of one strategy in the fund's P&L. Money in the fund's currency."""

    strategy: str
    pnl: Decimal  # made with real money, trading fees included
    fees: Decimal  # trading fees, as the ledger booked them; 0 without a ledger
    hypothetical_pnl: Decimal  # made on paper or as a shadow; no part of NAV


class PnlAttribution(msgspec.Struct, frozen=True):
    """The fund's P&L by its sources, as of the last tick."""

    strategies: tuple[StrategyPnl, ...]  # every one that was ever reported, by name
    other: Decimal  # that the ledger booked without a strategy
    fund_fees: Decimal  # management and performance fees, posted and accrued
    total: Decimal  # P&L of the strategies and the other, less the fund's fees


class AttributePnl(Request[PnlAttribution], frozen=True):
    """The fund's P&L by its sources."""
