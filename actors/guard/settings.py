"""The settings of the guard: when it warns, pauses and stops."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ...runtime import COUNT_MAX, Settings
from ...wire.controller import KillAction
from .scope import KillScope

__all__ = ["GuardSettings"]


class GuardSettings(Settings, frozen=True):
    """When the guard warns, pauses and stops."""

    max_fund_drawdown_pct: Annotated[
        float, Meta(gt=0, le=100, description="percent below the peak; engages the kill switch")
    ] = 15.0
    max_strategy_drawdown_pct: Annotated[
        float, Meta(gt=0, le=100, description="percent below its peak; pauses the strategy")
    ] = 25.0
    kill_confirm_ticks: Annotated[
        int,
        Meta(
            ge=1,
            le=COUNT_MAX,
            description="ticks in a row that must see the breach before the kill",
        ),
    ] = 1
    kill_action: Annotated[
        KillAction,
        Meta(
            description="'halt' cancels orders; 'flatten' also closes positions; 'freeze' touches"
            " nothing"
        ),
    ] = "halt"
    kill_scope: Annotated[
        KillScope,
        Meta(
            description="'live' stops strategies with real money, and paper and shadow go on;"
            " 'all' stops all"
        ),
    ] = "live"
    flatten_confirm_ticks: Annotated[
        int,
        Meta(
            ge=1,
            le=COUNT_MAX,
            description="ticks in a row with the breach before 'flatten' closes positions",
        ),
    ] = 3
    lease_s: Annotated[
        float,
        Meta(gt=0, le=86_400, description="seconds; how long an entitlement lasts after a tick"),
    ] = 30.0
    host_silent_s: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="seconds without a word of the host, and at least 3 ticks, until it is"
            " silent",
        ),
    ] = 10.0
    max_blind_s: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="seconds without a word of the host, with real money live, until on_blind",
        ),
    ] = 60.0
    on_blind: Annotated[
        Literal["reduce", "kill"],
        Meta(description="'reduce' lets the leases run out; 'kill' engages the kill switch"),
    ] = "reduce"
    max_daily_loss_pct: Annotated[
        float | None,
        Meta(
            gt=0,
            le=100,
            description="percent of the NAV at the session's opening; no new risk until the next"
            " session; None: off",
        ),
    ] = None
