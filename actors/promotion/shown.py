"""Promotion as the status stream shows it. Pure functions over one strategy and its evaluation.

Figures are rounded as a person reads them, so that a value is published only when that changes.
"""

from __future__ import annotations

import math

from ...runtime import DAY_US
from ...wire.promotion import CriterionResult, Evaluation, HistoryEntry, PromotionStage
from ...wire.stream.records import Criterion, KeepLimit, Move, PromotionFull
from .limits import worst
from .policy import PromotionPolicy
from .strategy import Strategy
from .words import floored, missed_words

__all__ = ["full", "nearest", "segment"]


def full(
    strategy: Strategy,
    evaluation: Evaluation,
    policy: PromotionPolicy,
    now_us: int,
    last_move: HistoryEntry | None,
) -> PromotionFull:
    """The full record; the brief one is its first part."""
    criteria = evaluation.criteria
    cooldown_us = strategy.cooldown_until_us
    return PromotionFull(
        stage=strategy.stage.value,
        target=None if evaluation.target is None else evaluation.target.value,
        verdict=evaluation.verdict,
        passed=sum(criterion.verdict == "PASS" for criterion in criteria),
        segments=tuple(map(segment, criteria)),
        nearest=nearest(criteria),
        missed=sum(criterion.verdict != "PASS" for criterion in criteria),
        would_do=evaluation.would_do,
        blocked_by=evaluation.blocked_by,
        why=evaluation.why,
        until_us=None if cooldown_us is None or cooldown_us <= now_us else cooldown_us,
        frozen=strategy.frozen,
        days_in_stage=floored(strategy.active_us(now_us) / DAY_US, 2),
        rev=strategy.rev,
        criteria=tuple(map(_criterion, criteria)),
        keep_limits=_keep_limits(strategy, policy),
        last_move=None if last_move is None else _move(last_move),
    )


def segment(criterion: CriterionResult) -> float | None:
    """How far the criterion is met: 1 when it passes, None without evidence."""
    if criterion.verdict == "PASS":
        return 1.0
    observed, limit = criterion.observed, criterion.limit
    if criterion.verdict == "INCONCLUSIVE" or observed is None:
        return None
    part, whole = (observed, limit) if criterion.op == ">=" else (limit, observed)
    if not (part > 0 and whole > 0):
        return 0.0
    return min(0.99, floored(part / whole, 2))


def nearest(criteria: tuple[CriterionResult, ...]) -> str:
    """The criterion that lacks the least, in words; "": nothing is missed."""
    missed = [criterion for criterion in criteria if criterion.verdict != "PASS"]
    if not missed:
        return ""
    # Without evidence a criterion is as far away as it can be.
    return missed_words(max(missed, key=lambda criterion: segment(criterion) or 0.0))


def _criterion(criterion: CriterionResult) -> Criterion:
    return Criterion(
        name=criterion.name,
        op=criterion.op,
        limit=_figure(criterion.limit),
        observed=_optional(criterion.observed),
        unit=criterion.unit,
        margin=_optional(criterion.margin),
        verdict=criterion.verdict,
        reason=criterion.reason,
        age_s=None if criterion.age_s is None else math.floor(criterion.age_s),
        source=criterion.source,
        recorded=_optional(criterion.recorded),
    )


def _figure(value: float) -> float:
    return round(value, 4)


def _optional(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else _figure(value)


def _keep_limits(strategy: Strategy, policy: PromotionPolicy) -> tuple[KeepLimit, ...]:
    """The hard limits of the stage, with the worst values of this stay in it."""
    if strategy.stage is PromotionStage.Retired:
        return ()
    rung = policy.rung(strategy.stage)
    limits = (
        ("drawdown", rung.hard.drawdown, "max_drawdown"),
        ("session_loss", rung.hard.session_loss, "daily_loss"),
    )
    return tuple(
        KeepLimit(name, _figure(limit * 100), _optional(worst(strategy, metric) * 100))
        for name, limit, metric in limits
        if limit is not None
    )


def _move(entry: HistoryEntry) -> Move:
    return Move(
        kind=entry.kind,
        from_stage=None if entry.from_stage is None else entry.from_stage.value,
        to_stage=entry.to_stage.value,
        at_us=entry.effective_us,
        by=entry.by,
        reason=entry.reason,
    )
