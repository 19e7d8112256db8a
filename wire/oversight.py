"""Oversight: the tick, and the state of the fund after it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from ..runtime import Request
from .guard import KillState

__all__ = [
    "FundStatus",
    "NavHistory",
    "NavSample",
    "ReadFundStatus",
    "RememberGuard",
    "Tick",
    "TickReport",
]


class TickReport(msgspec.Struct, frozen=True):
    """The results of one tick."""

    number: int
    promotions: int
    demotions: int
    failed: tuple[str, ...]  # names of the steps that failed; the others were done


class Tick(Request[TickReport], frozen=True):
    """Run one round of oversight."""

    session: str | None = None  # ISO day: this tick ends that trading session; None: within one


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
    data_age_s: float | None = None  # of the host's newest word; None: no tick yet
    stale: bool = False  # the host is silent, so its figures are those of that age

    def as_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return msgspec.structs.asdict(self)


class RememberGuard(Request[None], frozen=True):
    """Store the state of the guard now, instead of at the end of the next tick."""


class ReadFundStatus(Request[FundStatus], frozen=True):
    """The fund as of its last tick."""


class NavSample(msgspec.Struct, frozen=True):
    """The NAV at the end of one session."""

    at_us: int
    session: str  # ISO day
    nav: Decimal
    drawdown_pct: float


class NavHistory(Request[tuple[NavSample, ...]], frozen=True):
    """The NAV of the newest sessions, newest first. 0 gives none, a negative limit is refused."""

    limit: int = 100
