"""The settings of promotion: how stages, gates and limits differ from those of the chosen policy.

Stage names are closed, so each stage is a field. None keeps the policy's own value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from ...runtime import COUNT_MAX, DAYS_MAX, Settings
from ...wire.promotion import PromotionStage
from .criteria import Approval, Criterion
from .policy import Cooldowns, Fraction, HardLimit, OnNewVersion, SoftWindow

__all__ = ["GateSettings", "Gates", "PromotionSettings", "StageName", "StageSettings", "Stages"]

StageName = Literal["paper", "shadow", "live-small", "live-scaled", "live"]


class StageSettings(Settings, frozen=True, forbid_unknown_fields=True):
    """One stage. None: as the policy has it."""

    real_capital_cap: Annotated[
        Fraction | None, Meta(description="fraction of the budget that is real at most")
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


class Stages(Settings, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """The stages, by name."""

    paper: StageSettings = StageSettings()
    shadow: StageSettings = StageSettings()
    live_small: StageSettings = StageSettings()
    live_scaled: StageSettings = StageSettings()
    live: StageSettings = StageSettings()

    def of(self, stage: PromotionStage) -> StageSettings:
        """The settings of one stage."""
        found = getattr(self, stage.value.replace("-", "_"))
        assert isinstance(found, StageSettings)
        return found


class Gates(Settings, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """The gates, by the stage that they lead up from."""

    paper: GateSettings = GateSettings()
    shadow: GateSettings = GateSettings()
    live_small: GateSettings = GateSettings()
    live_scaled: GateSettings = GateSettings()
    live: GateSettings = GateSettings()

    def of(self, stage: PromotionStage) -> GateSettings:
        """The gate that leads up from one stage."""
        found = getattr(self, stage.value.replace("-", "_"))
        assert isinstance(found, GateSettings)
        return found


class PromotionSettings(Settings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What differs from the chosen policy."""

    order: Annotated[
        tuple[StageName, ...] | None,
        Meta(description="the stages from the lowest to the highest; None: those of the ladder"),
    ] = None
    stages: Annotated[Stages, Meta(description="caps and limits of single stages")] = Stages()
    gates: Annotated[Gates, Meta(description="criteria and approval of single gates")] = Gates()
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
        Annotated[float, Meta(gt=0, le=100_000)] | None,
        Meta(description="sessions in a year; None: those of the calendar"),
    ] = None
    metrics: Annotated[
        Mapping[str, str], Meta(description="metrics of one's own: name to unit")
    ] = {}
    on_new_version: Annotated[
        OnNewVersion, Meta(description="what a new version in a live stage does to a strategy")
    ] = "freeze"
