"""Ladders and gates as data: which stages there are, what each allows, what it takes to leave
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ...runtime import ConfigError, Settings, shown
from ...wire.errors import PolicyError, UnknownStage
from ...wire.promotion import PromotionStage

__all__ = [
    "METRICS",
    "Criterion",
    "Ladder",
    "Policy",
    "PromotionGate",
    "Rung",
    "default_criteria",
    "ladder",
]

LadderName = Literal["four-stage", "three-stage"]
Policy = Literal["guarded", "literal"]
Mode = Literal["paper", "shadow", "live"]

MetricName = Literal[
    "sharpe",
    "max_drawdown",
    "n_trades",
    "win_rate",
    "tracking_error",
    "tracking_drag",
    "daily_loss",
]
# The unit of each metric that a criterion can name. As a fraction, 8 percent is 0.08.
METRICS: dict[MetricName, str] = {
    "sharpe": "annual",
    "max_drawdown": "fraction",
    "n_trades": "trades",
    "win_rate": "fraction",
    "tracking_error": "fraction",
    "tracking_drag": "fraction",
    "daily_loss": "fraction",
}


class Rung(msgspec.Struct, frozen=True):
    """One stage of a ladder. `real_capital` is the fraction of a strategy's budget that it may use
    at most.
    """

    stage: PromotionStage
    mode: Mode
    real_capital: float
    # Hard limits demote on one observation; None: there is none. Fractions, inclusive.
    hard_drawdown: float | None = None
    hard_session_loss: float | None = None


class Ladder(msgspec.Struct, frozen=True):
    """Stages from the lowest to the highest."""

    name: LadderName
    rungs: tuple[Rung, ...]

    def rung(self, stage: PromotionStage) -> Rung:
        """The rung of a stage. Raises: ValueError for a stage that is not on this ladder."""
        return self.rungs[self.rank(stage)]

    def rank(self, stage: PromotionStage) -> int:
        """Raises: `PolicyError` (a ValueError) for a stage that is not on this ladder."""
        for position, rung in enumerate(self.rungs):
            if rung.stage is stage:
                return position
        raise PolicyError("promotion_ladder", f"{self.name!r} has no stage {stage.value}")

    def above(self, stage: PromotionStage) -> PromotionStage | None:
        """The next higher stage; None at the top."""
        rank = self.rank(stage) + 1
        return self.rungs[rank].stage if rank < len(self.rungs) else None

    def below(self, stage: PromotionStage) -> PromotionStage | None:
        """The next lower stage; None at the bottom."""
        rank = self.rank(stage)
        return self.rungs[rank - 1].stage if rank else None

    def names(self) -> list[str]:
        """The values of the stages, from the lowest to the highest."""
        return [rung.stage.value for rung in self.rungs]


_PAPER = Rung(PromotionStage.Paper, "paper", 0.0)
_SHADOW = Rung(PromotionStage.Shadow, "shadow", 0.0, hard_drawdown=0.25)
_FOUR = Ladder(
    "four-stage",
    (
        _PAPER,
        _SHADOW,
        Rung(PromotionStage.Live_Small, "live", 0.01, hard_drawdown=0.10, hard_session_loss=0.05),
        Rung(PromotionStage.Live_Scaled, "live", 1.0, hard_drawdown=0.25, hard_session_loss=0.05),
    ),
)
_THREE = Ladder(
    "three-stage",
    (
        _PAPER,
        _SHADOW,
        Rung(PromotionStage.Live, "live", 1.0, hard_drawdown=0.25, hard_session_loss=0.05),
    ),
)


def ladder(name: LadderName) -> Ladder:
    """Raises: `ConfigError`."""
    known = {one.name: one for one in (_FOUR, _THREE)}
    if name not in known:
        raise ConfigError("promotion_ladder", f"{name!r} is not one of {', '.join(known)}")
    return known[name]


class Criterion(Settings, frozen=True):
    """A floor or a ceiling on one metric, both inclusive."""

    name: Annotated[
        str, Meta(min_length=1, max_length=64, description="as verdicts and refusals call it")
    ]
    metric: Annotated[
        Literal["days"] | MetricName, Meta(description="'days' in the stage, or a recorded metric")
    ]
    op: Annotated[Literal[">=", "<="], Meta(description="'>=' makes the limit a floor")]
    limit: Annotated[float, Meta(ge=-1e12, le=1e12, description="in the metric's unit")]
    required: Annotated[
        bool, Meta(description="False: the criterion is skipped while its metric is missing")
    ] = True

    def _called(self, field: str) -> str:
        return f"{shown(self.name)}.{field}"


class PromotionGate(msgspec.Struct, frozen=True):
    """A named gate for one transition: what must hold before a strategy leaves `stage` upwards.

    Raises: `UnknownStage`; `ConfigError` naming the item of `criteria` that is no `Criterion`.
    """

    stage: PromotionStage
    criteria: tuple[Criterion, ...]

    def __post_init__(self) -> None:
        try:
            stage = PromotionStage(self.stage)
        except ValueError:
            raise UnknownStage(self.stage, [known.value for known in PromotionStage]) from None
        if not isinstance(self.criteria, Sequence) or isinstance(self.criteria, str):
            raise ConfigError("criteria", f"{shown(self.criteria)} is not a list of Criterion")
        for position, criterion in enumerate(self.criteria):
            if not isinstance(criterion, Criterion):
                raise ConfigError(f"criteria[{position}]", f"{shown(criterion)} is not a Criterion")
        msgspec.structs.force_setattr(self, "stage", stage)
        msgspec.structs.force_setattr(self, "criteria", tuple(self.criteria))


def default_criteria(
    *,
    min_days: float,
    min_trades: int,
    min_sharpe: float,
    max_drawdown_pct: float,
    min_win_rate: float,
    win_rate_required: bool,
) -> tuple[Criterion, ...]:
    """The five criteria that guard every transition."""
    return (
        Criterion("min_days", "days", ">=", min_days),
        Criterion("min_trades", "n_trades", ">=", min_trades),
        Criterion("min_sharpe", "sharpe", ">=", min_sharpe),
        Criterion("max_drawdown", "max_drawdown", "<=", max_drawdown_pct / 100),
        Criterion("min_win_rate", "win_rate", ">=", min_win_rate, required=win_rate_required),
    )
