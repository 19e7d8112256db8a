"""Criteria and gates: the floors and ceilings that a strategy meets before it rises.

A limit is in the canonical unit of its metric. The unit of a part is the fraction: 8 percent is
0.08. A criterion on `max_drawdown_pct` is one on `max_drawdown`, with a hundredth of its limit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from ...runtime import COUNT_MAX, DAYS_MAX, ConfigError, Settings, shown
from ...wire.errors import UnknownStage
from ...wire.promotion import PromotionStage

__all__ = [
    "DAYS",
    "DECIMALS",
    "LIVE_METRICS",
    "METRICS",
    "Approval",
    "Criterion",
    "DefaultCriteria",
    "PromotionGate",
]

Approval = Literal["auto", "manual"]

# Of limits and values in their canonical units, before they are compared and shown.
DECIMALS: Final = 9

# The criterion on time in the stage; every other one is on a metric.
DAYS: Final = "days"

# The unit of each metric that fundops knows. A policy may declare more.
METRICS: Final[Mapping[str, str]] = {
    "sharpe": "annual",
    "max_drawdown": "fraction",
    "n_trades": "trades",
    "win_rate": "fraction",
    "tracking_error": "fraction",
    "tracking_drag": "fraction",
    "daily_loss": "fraction",
    "fills": "fills",
}

# Metrics that compare real trading with its paper twin: no earlier stage can show them.
LIVE_METRICS: Final = frozenset({"tracking_error", "tracking_drag"})


class Criterion(Settings, frozen=True, forbid_unknown_fields=True):
    """A floor or a ceiling on one metric, both inclusive."""

    name: Annotated[
        str, Meta(min_length=1, max_length=64, description="as verdicts and refusals call it")
    ]
    metric: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=64,
            description="'days' in the stage, a known metric, or one that the policy declares",
        ),
    ]
    op: Annotated[Literal[">=", "<="], Meta(description="'>=' makes the limit a floor")]
    limit: Annotated[float, Meta(ge=-1e12, le=1e12, description="in the metric's unit")]
    required: Annotated[
        bool, Meta(description="False: the criterion is skipped while its metric is missing")
    ] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        limit = float(self.limit)
        if self.metric == "max_drawdown_pct":
            msgspec.structs.force_setattr(self, "metric", "max_drawdown")
            limit /= 100
        # As values are before they are compared: 0.07 * 100 is 7.000000000000001.
        msgspec.structs.force_setattr(self, "limit", round(limit, DECIMALS))

    def _called(self, field: str) -> str:
        return f"{shown(self.name)}.{field}"


class PromotionGate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The gate of one transition: the criteria that a strategy meets before it leaves a stage.

    `transition` is the stage that is left. `approval` "manual" waits for a person; None: as the
    policy has it. `streak` is the number of sessions in a row at whose end the criteria pass.

    Raises: `UnknownStage`; `ConfigError` naming the field, or the item of `criteria` that is no
        `Criterion`.
    """

    transition: PromotionStage
    criteria: tuple[Criterion, ...]
    approval: Approval | None = None
    streak: int = 1

    def __post_init__(self) -> None:
        try:
            stage = PromotionStage(self.transition)
        except ValueError:
            known = [stage.value for stage in PromotionStage]
            raise UnknownStage(self.transition, known) from None
        if not isinstance(self.criteria, Sequence) or isinstance(self.criteria, str):
            raise ConfigError("criteria", f"{shown(self.criteria)} is not a list of Criterion")
        for position, criterion in enumerate(self.criteria):
            if not isinstance(criterion, Criterion):
                raise ConfigError(f"criteria[{position}]", f"{shown(criterion)} is not a Criterion")
        if self.approval not in (None, "auto", "manual"):
            raise ConfigError("approval", f"{shown(self.approval)} is not 'auto' or 'manual'")
        if type(self.streak) is not int or not 1 <= self.streak <= COUNT_MAX:
            raise ConfigError("streak", f"{shown(self.streak)} is not a whole number >= 1")
        msgspec.structs.force_setattr(self, "transition", stage)
        msgspec.structs.force_setattr(self, "criteria", tuple(self.criteria))

    @property
    def hash(self) -> str:
        """The name of these criteria, for all that was judged by them."""
        return hashlib.blake2b(msgspec.json.encode(self.criteria), digest_size=6).hexdigest()


class DefaultCriteria(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of the five default criteria of each gate."""

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

    def criteria(self, *, win_rate_required: bool) -> tuple[Criterion, ...]:
        """The five criteria, in the order in which they are shown."""
        return (
            Criterion("min_days", DAYS, ">=", self.min_paper_days),
            Criterion("min_trades", "n_trades", ">=", self.min_trades),
            Criterion("min_sharpe", "sharpe", ">=", self.min_sharpe),
            Criterion("max_drawdown", "max_drawdown_pct", "<=", self.max_drawdown_pct),
            Criterion("min_win_rate", "win_rate", ">=", self.min_win_rate, win_rate_required),
        )
