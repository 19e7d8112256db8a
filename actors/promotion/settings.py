"""The settings of promotion: how stages, gates and limits differ from those of the chosen policy.

None keeps the policy's own value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from ...runtime import COUNT_MAX, DAYS_MAX, Settings
from .criteria import Approval, Criterion
from .policy import Cooldowns, Fraction, HardLimit, OnNewVersion, PeriodsPerYear, SoftWindow

__all__ = ["GateSettings", "PromotionSettings", "StageName", "StageSettings"]

StageName = Literal["paper", "shadow", "live-small", "live-scaled", "live"]


class StageSettings(Settings, frozen=True, forbid_unknown_fields=True):
    """One stage. None: as the policy has it."""

    real_capital_cap: Annotated[
        Fraction | None, Meta(description="fraction of the budget that is real at most")
    ] = None
    notional_cap: Annotated[
        Fraction | None, Meta(description="fraction of the budget that simulated orders assume")
    ] = None
    hard_drawdown: Annotated[
        HardLimit | None,
        Meta(description="fraction below the peak that demotes at once"),
    ] = None
    hard_session_loss: Annotated[
        HardLimit | None,
        Meta(description="fraction lost in one session that demotes at once"),
    ] = None
    keep_drawdown: Annotated[
        Fraction | None,
        Meta(description="fraction below the peak that demotes when it is sustained"),
    ] = None
    max_days: Annotated[
        Annotated[float, Meta(gt=0, le=DAYS_MAX)] | None,
        Meta(description="days without a PASS before a warning"),
    ] = None


class GateSettings(Settings, frozen=True, forbid_unknown_fields=True):
    """The way up from one stage. None: as the policy has it."""

    criteria: Annotated[
        tuple[Criterion, ...] | None, Meta(description="in place of the default criteria")
    ] = None
    approval: Annotated[
        Approval | None, Meta(description="'manual': a person must approve; 'auto': none must")
    ] = None
    streak: Annotated[
        int, Meta(ge=1, le=COUNT_MAX, description="sessions in a row at whose end it passes")
    ] = 1


class PromotionSettings(Settings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Changes to the chosen policy."""

    order: Annotated[
        tuple[StageName, ...] | None,
        Meta(description="the stages from the lowest to the highest; None: those of the ladder"),
    ] = None
    stages: Annotated[
        Mapping[StageName, StageSettings], Meta(description="caps and limits of single stages")
    ] = {}
    gates: Annotated[
        Mapping[StageName, GateSettings],
        Meta(description="criteria and approval of gates, by the stage each leads up from"),
    ] = {}
    soft: Annotated[SoftWindow, Meta(description="how long a soft limit must be exceeded")] = (
        SoftWindow()
    )
    cooldowns: Annotated[Cooldowns, Meta(description="how long demotion blocks promotion")] = (
        Cooldowns()
    )
    calendar: Annotated[
        str | None,
        Meta(description="'UTC day' or 'weekdays HH:MM Area/City'; None: the fund's session"),
    ] = None
    periods_per_year: Annotated[
        PeriodsPerYear | None,
        Meta(description="sessions in a year; None: those of the calendar"),
    ] = None
    metrics: Annotated[
        Mapping[str, str], Meta(description="metrics of one's own: name to unit")
    ] = {}
    on_new_version: Annotated[
        OnNewVersion, Meta(description="what a new version in a live stage does to a strategy")
    ] = "freeze"
