"""The oversight loop: one tick, and what the fund looks like after it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from ..runtime import Request
from .guard import KillState

__all__ = ["FundStatus", "NavHistory", "NavSample", "ReadFundStatus", "RememberGuard", "Tick", "TickReport"]


class TickReport(msgspec.Struct, frozen=True):
    """What one tick did. `failed` names the steps that could not be done."""

    number: int
    promotions: int
    demotions: int
    failed: tuple[str, ...]


class Tick(Request[TickReport], frozen=True):
    """One round of oversight. `session`, an ISO day: this tick is the end of that session."""

    session: str | None = None


class FundStatus(msgspec.Struct, frozen=True):
    """The fund at its last tick."""

    running: bool
    total_capital: Decimal
    nav: Decimal
    drawdown_pct: float
    high_water_mark: Decimal  # NAV at which a performance fee was last crystallised, at today's number of units
    running_strategies: int
    total_fees: Decimal
    kill_switch: KillState
    mode: str
    strategies_by_stage: Mapping[str, int]
    alerts_24h: int
    breakers_open: int
    ticks: int

    def as_dict(self) -> dict[str, Any]:
        return msgspec.structs.asdict(self)


class RememberGuard(Request[None], frozen=True):
    """Store the guard's state now, instead of at the end of the next tick."""


class ReadFundStatus(Request[FundStatus], frozen=True):
    """The fund now."""


class NavSample(msgspec.Struct, frozen=True):
    at_us: int
    session: str
    nav: Decimal
    drawdown_pct: float


class NavHistory(Request[tuple[NavSample, ...]], frozen=True):
    """Newest first."""

    limit: int = 100
