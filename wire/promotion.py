"""Promotion: stages, evaluations, and the requests to the promotion actor.

A request names a strategy by its id or by its name. Instants are int microseconds (UTC).
"""

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
    """A stage of a strategy.

    `Live` is the top of the three-stage ladder; `Live_Small` and `Live_Scaled` are the top of the
    four-stage one.
    """

    Paper = "paper"
    Shadow = "shadow"
    Live_Small = "live-small"
    Live_Scaled = "live-scaled"
    Live = "live"
    Retired = "retired"

    @property
    def is_live(self) -> bool:
        """Whether strategies in this stage trade real money."""
        return self.value.startswith("live")


Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Move = Literal["promote", "ready", "demote", "none"]


class CriterionResult(msgspec.Struct, frozen=True):
    """The result of one criterion of a gate."""

    name: str
    op: str  # ">=" or "<="
    limit: float  # in `unit`
    observed: float | None  # in `unit`; None: missing or undefined
    unit: str
    margin: float | None  # from the limit, in `unit`; negative: missed; None: not comparable
    verdict: Verdict
    reason: str  # why it is not a PASS; "" for a PASS
    age_s: float | None  # of the metric; None: it has no age
    source: Literal["measured", "recorded", ""] = ""  # of `observed`; "": neither
    recorded: float | None = None  # in `unit`; shown beside a measured value; None: never recorded


class Evaluation(msgspec.Struct, frozen=True):
    """The judgement of the rules on one strategy at one instant."""

    id: str  # hash of all other fields, so equal evaluations have equal ids
    strategy: str
    stage: PromotionStage
    target: PromotionStage | None  # the next stage up; None: no higher stage
    episode: int  # a number for each stay in a stage
    as_of_us: int
    criteria: tuple[CriterionResult, ...]
    verdict: Verdict  # of the whole gate
    would_do: Move  # "ready": waits for a person
    blocked_by: str  # why it is not promoted, such as "gate" or "capital: ..."; "": not blocked


class HistoryEntry(msgspec.Struct, frozen=True):
    """One change in the history of a strategy."""

    seq: int
    strategy: str
    kind: str  # register, adopt, promote, demote, freeze, unfreeze or retire
    from_stage: PromotionStage | None  # None: it was registered or adopted
    to_stage: PromotionStage
    effective_us: int
    by: str
    reason: str
    metrics: Mapping[str, float]  # at that instant
    evaluation_id: str  # of the evaluation behind a promotion; "": none
    rev: int  # revision of the strategy after the change


class PromotionSnapshot(msgspec.Struct, frozen=True):
    """One strategy now."""

    strategy_id: str
    name: str
    stage: PromotionStage
    days_in_stage: float  # without frozen time
    rev: int  # rises with each change
    frozen: bool
    cooldown_until: int | None  # in microseconds; may be past; None: never demoted
    metrics: Mapping[str, float]  # the latest of this stay in the stage
    evaluation: Evaluation
    history: tuple[HistoryEntry, ...]  # the last 20, oldest first


class Transition(msgspec.Struct, frozen=True):
    """A promotion or demotion, once committed."""

    strategy: str
    kind: Literal["promote", "demote"]
    from_stage: PromotionStage
    to_stage: PromotionStage
    reason: str
    hard: bool = False  # a demotion by a hard limit


class EntitlementTerms(msgspec.Struct, frozen=True):
    """The permission that a stage gives to a strategy."""

    name: str
    stage: PromotionStage
    mode: Literal["paper", "shadow", "live", "none"]
    real_capital_fraction: float  # of the strategy's budget, 0 to 1
    budget_minor: int | None = None  # capital at full size, minor units; None: the fund's capital


class Register(Request[str], frozen=True):
    """Register a new strategy. Answers with its id; the same name again gives the same id.

    Refused with: `UnknownStage`, `SkipRefused`, `MetricError`, `StrategyRetired`; `Conflict` when
    the name is another strategy's id or the strategy has another budget.
    """

    name: str
    stage: PromotionStage = PromotionStage.Paper
    by: str = "operator"
    budget_minor: int | None = None  # capital at full size; None: the fund's capital


class Adopt(Request[str], frozen=True):
    """Register a strategy that trades already, at any stage. Answers with its id; audited.

    Refused with: `UnknownStage`, `MetricError`, `StrategyRetired`, `Conflict`, `CapitalExceeded`.
    """

    name: str
    stage: PromotionStage
    by: str
    reason: str
    budget_minor: int | None = None  # capital at full size; None: the fund's capital
    over_capital: bool = False  # adopt beyond `max_total_entitlement_pct` too


class RecordMetrics(Request[None], frozen=True):
    """Record metrics of a strategy. For each metric the newest record counts, by its instant.

    Refused with: `UnknownStrategy`, `StrategyRetired`, `MetricError`, `Conflict`.
    """

    strategy_id: str
    stage: PromotionStage  # in which they were observed; must be the current one
    metrics: Mapping[str, Any]
    as_of_us: int | None = None  # None: now
    source: str = ""  # with `as_of_us` it identifies a record, so a repeat is recorded once


class Evaluate(Request[Evaluation], frozen=True):
    """Evaluate a strategy now. Changes nothing. Refused with: `UnknownStrategy`."""

    strategy_id: str


class Promote(Request[Transition], frozen=True):
    """Promote a strategy by one stage, on a gate that passes now. No request bypasses the gate.

    Refused with: `UnknownStrategy`, `StrategyRetired`, `StaleRevision`, `SkipRefused`,
    `StrategyFrozen`, `CoolingDown`, `GateNotPassed`, `CapitalExceeded`.
    """

    strategy_id: str
    to: PromotionStage | None = None  # None: the next stage
    by: str = "operator"
    reason: str = ""
    expected_rev: int | None = None  # refused when the strategy has another one; None: any


class Demote(Request[Transition], frozen=True):
    """Demote a strategy, also a frozen or cooling one.

    Refused with: `UnknownStrategy`, `StrategyRetired`, `StaleRevision`, `SkipRefused`,
    `UnknownStage`.
    """

    strategy_id: str
    to: PromotionStage | None = None  # None: one stage down
    by: str = "operator"
    reason: str = ""
    expected_rev: int | None = None  # refused when the strategy has another one; None: any


class Freeze(Request[None], frozen=True):
    """Freeze a strategy, which blocks its promotion, or unfreeze it."""

    strategy_id: str
    frozen: bool
    by: str = "operator"
    reason: str = ""


class Retire(Request[None], frozen=True):
    """Retire a strategy. This cannot be undone."""

    strategy_id: str
    by: str = "operator"
    reason: str = ""


class Observed(msgspec.Struct, frozen=True):
    """The results of one look at all strategies."""

    transitions: tuple[Transition, ...]
    terms: Mapping[str, EntitlementTerms]


class Observe(Request[Observed], frozen=True):
    """The look of one tick at all strategies: record, demote, and promote."""

    statuses: Sequence[StrategyStatus]
    session: str | None = None  # ISO day: this look ends that session; None: within one
    evaluate: bool = False  # whether gates are evaluated for promotions
    periods_per_year: float = 252  # sessions in a year, for the Sharpe ratio
    act: bool = True  # False: an engine is only observed, so evidence is kept and nothing moves


class ReadSnapshot(Request[PromotionSnapshot], frozen=True):
    """One strategy now. Refused with: `UnknownStrategy`."""

    strategy_id: str


class ReadStrategies(Request[tuple[PromotionSnapshot, ...]], frozen=True):
    """All strategies, by name."""


class PromotionHistory(Request[tuple[HistoryEntry, ...]], frozen=True):
    """The newest changes, newest first. 0 gives none, a negative limit is refused."""

    strategy_id: str | None = None  # None: of all strategies
    limit: int = 50
