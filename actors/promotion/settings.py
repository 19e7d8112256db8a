"""The settings of promotion: the default criteria of the gates, and how demotion works."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ...runtime import COUNT_MAX, DAYS_MAX, YEAR_S, Settings
from .ladder import LadderName, Policy

__all__ = ["PromotionSettings"]


class PromotionSettings(Settings, frozen=True):
    """The default criteria of every gate, and how demotion works."""

    ladder: Annotated[
        LadderName,
        Meta(description="paper, shadow, live-small, live-scaled; or paper, shadow, live"),
    ] = "four-stage"
    policy: Annotated[
        Policy,
        Meta(description="'guarded': more real money waits for a person; 'literal': it does not"),
    ] = "guarded"
    min_paper_days: Annotated[
        float, Meta(ge=0, le=DAYS_MAX, description="days that a strategy stays in a stage at least")
    ] = 14
    min_trades: Annotated[
        int,
        Meta(ge=0, le=COUNT_MAX, description="closed round trips that a stage needs at least"),
    ] = 50
    min_sharpe: Annotated[
        float, Meta(ge=-1_000, le=1_000, description="annual Sharpe ratio of the stage at least")
    ] = 1.0
    max_drawdown_pct: Annotated[
        float, Meta(ge=0, le=100, description="percent; drawdown within the stage at most")
    ] = 20.0
    min_win_rate: Annotated[
        float, Meta(ge=0, le=1, description="fraction of round trips that were won at least")
    ] = 0.45
    max_total_entitlement_pct: Annotated[
        float | None,
        Meta(
            gt=0,
            le=1_000_000,
            description="percent of the fund's capital that all strategies together are entitled"
            " to at most; None: no bound",
        ),
    ] = 100.0
    metric_max_age_s: Annotated[
        float,
        Meta(
            ge=0,
            le=YEAR_S,
            description="seconds; a metric older than this blocks, where no sessions are counted;"
            " where they are, two sessions that ended since it do",
        ),
    ] = 172_800.0
    soft_sessions: Annotated[
        int, Meta(ge=0, le=COUNT_MAX, description="sessions that the soft limits look back over")
    ] = 5
    soft_breaches: Annotated[
        int, Meta(ge=0, le=COUNT_MAX, description="breached sessions among them that demote")
    ] = 3
    soft_min_sessions: Annotated[
        int, Meta(ge=0, le=COUNT_MAX, description="sessions in a stage before the soft limits hold")
    ] = 20
    soft_cooldown_days: Annotated[
        float, Meta(ge=0, le=DAYS_MAX, description="days without promotion after a soft demotion")
    ] = 7
    hard_cooldown_days: Annotated[
        float, Meta(ge=0, le=DAYS_MAX, description="days without promotion after a hard demotion")
    ] = 30
    cooldown_max_days: Annotated[
        float, Meta(ge=0, le=DAYS_MAX, description="days; the longest that a cooldown grows to")
    ] = 90
    freeze_after_demotions: Annotated[
        int,
        Meta(ge=0, le=COUNT_MAX, description="demotions within the window that freeze a strategy"),
    ] = 3
    freeze_window_days: Annotated[
        float, Meta(ge=0, le=DAYS_MAX, description="days; that window")
    ] = 180
