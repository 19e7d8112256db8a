"""Promotion: stages, evaluations, refusals, and what may be asked of the promotion actor."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from ..runtime import Request
from .controller import StrategyStatus

__all__ = [
    "Adopt",
    "CriterionResult",
    "Demote",
    "EntitlementTerms",
    "Evaluate",
    "Evaluation",
    "Freeze",
    "HistoryEntry",
    "Observe",
    "Observed",
    "Promote",
    "PromotionHistory",
    "PromotionSnapshot",
    "PromotionStage",
    "ReadSnapshot",
    "ReadStrategies",
    "RecordMetrics",
    "Register",
    "Retire",
    "Transition",
    "Verdict",
]


class PromotionStage(enum.Enum):
    """Where a strategy stands. `Live` is the top of the three-stage ladder, the other two of the four-stage one."""

    Paper = "paper"
    Shadow = "shadow"
    Live_Small = "live-small"
    Live_Scaled = "live-scaled"
    Live = "live"
    Retired = "retired"

    @property
    def is_live(self) -> bool:
        """Whether real money is at stake."""
        return self.value.startswith("live")


Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Move = Literal["promote", "ready", "demote", "none"]


class CriterionResult(msgspec.Struct, frozen=True):
    """One line of a gate. `limit`, `observed` and `margin` are in `unit`; a positive margin is on the good side."""

    name: str
    op: str
    limit: float
    observed: float | None
    unit: str
    margin: float | None
    verdict: Verdict
    reason: str  # why it is not a PASS; "" for one
    age_s: float | None


class Evaluation(msgspec.Struct, frozen=True):
    """What the rules say of one strategy at one instant. The id is a hash of everything else, so equal is equal."""

    id: str
    strategy: str
    stage: PromotionStage
    target: PromotionStage | None  # the next stage up; None at the top
    episode: int
    as_of_us: int
    criteria: tuple[CriterionResult, ...]
    verdict: Verdict
    would_do: Move
    blocked_by: str  # "" when nothing does


class HistoryEntry(msgspec.Struct, frozen=True):
    """One line of a strategy's history."""

    seq: int
    strategy: str
    kind: str
    from_stage: PromotionStage | None
    to_stage: PromotionStage
    effective_us: int
    actor: str
    reason: str
    metrics: Mapping[str, float]
    evaluation_id: str
    rev: int


class PromotionSnapshot(msgspec.Struct, frozen=True):
    """One strategy now. `history` holds the last 20 lines, oldest first."""

    strategy_id: str
    name: str
    stage: PromotionStage
    days_in_stage: float
    rev: int
    frozen: bool
    cooldown_until: int | None  # microseconds since the epoch
    metrics: Mapping[str, float]
    evaluation: Evaluation
    history: tuple[HistoryEntry, ...]


class Transition(msgspec.Struct, frozen=True):
    """A committed change of stage."""

    strategy: str
    kind: Literal["promote", "demote"]
    from_stage: PromotionStage
    to_stage: PromotionStage
    reason: str
    hard: bool = False


class EntitlementTerms(msgspec.Struct, frozen=True):
    """What the stage allows. `real_capital_fraction` is of the fund's capital."""

    name: str
    stage: PromotionStage
    mode: Literal["paper", "shadow", "live", "none"]
    real_capital_fraction: float


class Register(Request[str], frozen=True):
    """Answers with the strategy's id; the same name again gives the same id."""

    name: str
    stage: PromotionStage = PromotionStage.Paper
    actor: str = "operator"


class Adopt(Request[str], frozen=True):
    """Register a strategy that is already trading, at any stage; audited."""

    name: str
    stage: PromotionStage
    actor: str
    reason: str


class RecordMetrics(Request[None], frozen=True):
    strategy_id: str
    stage: PromotionStage
    metrics: Mapping[str, Any]
    as_of_us: int | None = None
    source: str = ""


class Evaluate(Request[Evaluation], frozen=True):
    strategy_id: str


class Promote(Request[Transition], frozen=True):
    strategy_id: str
    to: PromotionStage | None = None
    actor: str = "operator"
    reason: str = ""
    expected_rev: int | None = None


class Demote(Request[Transition], frozen=True):
    strategy_id: str
    to: PromotionStage | None = None
    actor: str = "operator"
    reason: str = ""
    expected_rev: int | None = None


class Freeze(Request[None], frozen=True):
    strategy_id: str
    frozen: bool
    actor: str = "operator"
    reason: str = ""


class Retire(Request[None], frozen=True):
    strategy_id: str
    actor: str = "operator"
    reason: str = ""


class Observed(msgspec.Struct, frozen=True):
    """What one look at all strategies led to."""

    transitions: tuple[Transition, ...]
    terms: Mapping[str, EntitlementTerms]


class Observe(Request[Observed], frozen=True):
    """The tick's look at all strategies. With `session` (an ISO day) it is also the end of that session."""

    statuses: Sequence[StrategyStatus]
    session: str | None = None
    evaluate: bool = False


class ReadSnapshot(Request[PromotionSnapshot], frozen=True):
    strategy_id: str


class ReadStrategies(Request[tuple[PromotionSnapshot, ...]], frozen=True):
    """All strategies, by name."""


class PromotionHistory(Request[tuple[HistoryEntry, ...]], frozen=True):
    """Newest first; of one strategy or of all."""

    strategy_id: str | None = None
    limit: int = 50
