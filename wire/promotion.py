"""Promotion: stages, evaluations, and the requests to the promotion actor.

A request names a strategy by its id or by its name. Instants are int microseconds (UTC).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import msgspec

from ..runtime import Request
from .controller import StrategyStatus

__all__ = [
    "AddGate",
    "Adopt",
    "Advisories",
    "Approve",
    "CriterionResult",
    "Demote",
    "DemoteAutomatically",
    "DiscardMetrics",
    "EntitlementTerms",
    "Evaluate",
    "Evaluation",
    "EvaluationInputs",
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
    "ReadTerms",
    "RecordMetrics",
    "Register",
    "Require",
    "Retire",
    "SetCap",
    "StateAsOf",
    "StrategyState",
    "Transition",
    "Verdict",
    "Void",
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


class CriterionResult(msgspec.Struct, frozen=True, gc=False):
    """The result of one criterion of a gate."""

    name: str
    op: str  # ">=" or "<="
    limit: float  # in `unit`
    observed: float | None  # in `unit`; None: missing or undefined
    unit: str
    margin: float | None  # from the limit, in `unit`; negative: missed; None: not comparable
    verdict: Verdict
    # Why it is not a PASS, "" for a PASS. Of an INCONCLUSIVE the first word is missing, stale,
    # undefined, insufficient_n, clock, coverage or config.
    reason: str
    age_s: float | None  # of the metric; None: it has no age
    source: Literal["measured", "recorded", ""] = ""  # of `observed`; "": neither
    recorded: float | None = None  # in `unit`; shown beside a measured value; None: never recorded
    n_obs: int | None = None  # sessions or trades behind `observed`; None: unknown


class EvaluationInputs(msgspec.Struct, frozen=True, gc=False):
    """The facts beside the metrics that an evaluation rests on."""

    rev: int  # of the strategy
    active_us: int  # in the stage, without frozen time
    sessions: int  # measured in this stay in the stage
    frozen: bool
    cooldown_until_us: int | None  # None: never demoted
    streak: int  # sessions in a row at whose end the gate passed
    trials: int  # versions that the family ever had evaluated, this one included
    trial_variance: float | None  # of the Sharpe ratios of the trials, per session; None: unknown
    capital_minor: int | None  # the fund's; None: unknown
    others_minor: int  # the real capital that all other strategies are entitled to
    wanted_minor: int  # the real capital of the next stage
    entitled_minor: int = 0  # the real capital of the present stage


class Advisories(msgspec.Struct, frozen=True, gc=False):
    """How much the Sharpe ratio proves. They inform; no gate judges them.

    None where there are too few sessions, or where the Sharpe ratio is undefined.
    """

    se_sharpe: float | None = None  # standard error of the annual Sharpe ratio
    psr: float | None = None  # confidence that the true Sharpe ratio is above 0
    min_trl: float | None = None  # sessions at which `psr` reaches 0.95; None too: none suffices
    dsr: float | None = None  # `psr` against the best of `n_trials` trials without skill
    n_trials: int = 1  # versions that the family ever had evaluated
    # Chance that a strategy without skill shows the Sharpe ratio that the gate asks for, at one
    # look after this many sessions; None too: the gate asks for none.
    p_pass_without_skill: float | None = None


class Evaluation(msgspec.Struct, frozen=True, gc=False):
    """The judgement of a policy on one strategy at one instant."""

    id: str  # hash of all other fields, so equal evaluations have equal ids
    strategy: str
    version: str | None  # of the strategy's code; None: unknown
    stage: PromotionStage
    target: PromotionStage | None  # the next stage up; None: no higher stage
    episode: int  # a number for each stay in a stage
    as_of_us: int
    policy: str  # hash of the policy
    inputs: EvaluationInputs
    criteria: tuple[CriterionResult, ...]
    verdict: Verdict  # of the whole gate
    reasons: tuple[str, ...]  # why it is not a PASS, one for each criterion; (): it is
    advisories: Advisories
    would_do: Move  # "promote" and "ready": `promote` would succeed; "ready" waits for a person
    # Every reason why the policy does not promote it. The first word is gate, config, streak,
    # limit, frozen, cooldown, capital, approval or top.
    blocked_by: tuple[str, ...]
    why: str  # the blockers in one line, for a person
    # When the gate could pass, or the cooldown end, by time alone; the instant of the evaluation:
    # it passes now. None: it depends on more than time, such as trades or a person's unfreeze.
    next_possible_us: int | None


class HistoryEntry(msgspec.Struct, frozen=True):
    """One change in the history of a strategy."""

    seq: int
    strategy: str
    # register, adopt, promote, demote, void, cap, version, freeze, unfreeze, discard or retire
    kind: str
    from_stage: PromotionStage | None  # None: it was registered or adopted
    to_stage: PromotionStage
    effective_us: int
    by: str
    reason: str
    metrics: Mapping[str, float]  # at that instant
    evaluation_id: str  # of the evaluation at that instant; "": none
    rev: int  # revision of the strategy after the change
    recorded_us: int = 0  # when the row was written
    cap_before: float | None = None  # fraction of the budget; None: unknown, in older files
    cap_after: float | None = None
    policy: str = ""  # hash of the policy that decided; "": unknown, in older files
    version: str | None = None  # of the strategy, as its engine reports it; None: unknown


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
    family: str | None = None  # of variants that are judged as trials of one idea; None: its own
    version: str | None = None  # as its engine reports it; None: unknown
    cap: float | None = None  # fraction of the budget, set by a person; None: the stage's


class StrategyState(msgspec.Struct, frozen=True):
    """One strategy as it was after a line of its history."""

    strategy_id: str
    name: str
    stage: PromotionStage
    rev: int
    since_us: int  # when that line took effect
    kind: str  # of that line
    # What follows is None or empty where an older file does not tell.
    frozen: bool | None = None
    cooldown_until: int | None = None
    episode: int | None = None
    family: str | None = None
    version: str | None = None
    cap: float | None = None  # set by a person; None: the stage's
    metrics: Mapping[str, float] = {}  # at that instant


class Transition(msgspec.Struct, frozen=True):
    """A change of stage, once committed."""

    strategy: str
    kind: Literal["promote", "demote", "void"]
    from_stage: PromotionStage
    to_stage: PromotionStage
    reason: str
    hard: bool = False  # a demotion by a hard limit
    rev: int = 0  # of the strategy, after it
    seq: int = 0  # of its line of history, by which it is voided
    # Real capital in the stage before and in this one, in units of the currency; None: the
    # strategy has no budget, and the fund's capital is not known.
    capital_before: Decimal | None = None
    capital_after: Decimal | None = None


class EntitlementTerms(msgspec.Struct, frozen=True, gc=False):
    """The permission that a stage gives to a strategy."""

    name: str
    stage: PromotionStage
    mode: Literal["paper", "shadow", "live", "none"]
    real_capital_fraction: float  # of the strategy's budget, 0 to 1
    budget_minor: int | None = None  # capital at full size, minor units; None: the fund's capital
    notional_fraction: float = 0.0  # of the budget, that paper and shadow orders assume


class Register(Request[str], frozen=True):
    """Register a new strategy. Answers with its id; the same name again gives the same id.

    Refused with: `UnknownStage`, `SkipRefused`, `MetricError`, `StrategyRetired`; `Conflict` when
    the name is another strategy's id or the strategy has another budget or family.
    """

    name: str
    stage: PromotionStage = PromotionStage.Paper
    by: str = "operator"
    budget_minor: int | None = None  # capital at full size; None: the fund's capital
    family: str | None = None  # variants of one idea; None: it is alone


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
    family: str | None = None  # variants of one idea; None: it is alone


class RecordMetrics(Request[None], frozen=True):
    """Record metrics of a strategy. For each metric the newest record counts, by its instant.

    Refused with: `UnknownStrategy`, `StrategyRetired`, `MetricError`, `Conflict`.
    """

    strategy_id: str
    stage: PromotionStage  # in which they were observed; must be the current one
    metrics: Mapping[str, Any]
    as_of_us: int | None = None  # None: now
    source: str = ""  # with `as_of_us` it identifies a record, so a repeat is recorded once
    # "registration": counts and series began when the strategy was registered; None: with the
    # stage.
    cumulative_since: str | None = None


class DiscardMetrics(Request[None], frozen=True):
    """Discard the records of one instant and source in the present episode.

    Refused with: `UnknownStrategy`, `StrategyRetired`, `MetricError`.
    """

    strategy_id: str
    as_of_us: int
    source: str
    by: str
    reason: str


class Evaluate(Request[Evaluation], frozen=True):
    """Evaluate a strategy now. Changes nothing. Refused with: `UnknownStrategy`."""

    strategy_id: str


class Promote(Request[Transition], frozen=True):
    """Promote a strategy by one stage, on a gate that passes now. No request bypasses the gate.

    Refused with: `UnknownStrategy`, `StrategyRetired`, `StaleRevision`, `SkipRefused`,
    `StrategyFrozen`, `CoolingDown`, `GateNotPassed`, `CapitalExceeded`, `Conflict`.
    """

    strategy_id: str
    # None: the next stage; "live": that too, if real money trades there.
    to: PromotionStage | None = None
    by: str = "operator"
    reason: str = ""
    expected_rev: int | None = None  # refused when the strategy has another one; None: any
    request_id: str | None = None  # asked again with it, the outcome is the first one's
    cap: float | None = None  # fraction of the budget in the new stage; None: the stage's


class Approve(Request[Transition], frozen=True):
    """Carry out a promotion that is ready. The gate is evaluated again.

    Refused as `Promote`.
    """

    strategy_id: str
    by: str
    cap: float | None = None  # fraction of the budget in the new stage; None: the stage's


class SetCap(Request[None], frozen=True):
    """Set the fraction of the budget that a live strategy may use, up to its stage's.

    Refused with: `UnknownStrategy`, `StrategyRetired`, `MetricError`, `CapitalExceeded`.
    """

    strategy_id: str
    cap: float
    by: str
    reason: str


class Demote(Request[Transition], frozen=True):
    """Demote a strategy, also a frozen or cooling one. It starts no cooldown and is no strike.

    Refused with: `UnknownStrategy`, `StrategyRetired`, `StaleRevision`, `SkipRefused`,
    `UnknownStage`.
    """

    strategy_id: str
    to: PromotionStage | None = None  # None: one stage down
    by: str = "operator"
    reason: str = ""
    expected_rev: int | None = None  # refused when the strategy has another one; None: any


class DemoteAutomatically(Request[Transition | None], frozen=True):
    """A demotion that another part of the fund asks for. None: it is in the lowest stage already.

    It starts a cooldown and is a strike. Refused with: `UnknownStrategy`, `StrategyRetired`.
    """

    strategy_id: str
    # "integrity": its books do not reconcile, so it goes to paper and is frozen; "soft": one stage
    # down.
    cause: Literal["integrity", "soft"]
    by: str
    reason: str
    # A key under which it is done once at most, such as one for each episode of recovery; then a
    # repeat has the first outcome, also with another reason. None: it is done each time.
    once: str | None = None


class Void(Request[Transition], frozen=True):
    """Undo the newest transition of a strategy, once.

    Refused with: `Conflict` for any other line of history, `StrategyRetired`, `MetricError`,
    `CapitalExceeded`.
    """

    transition_seq: int
    by: str
    reason: str


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


class AddGate(Request[None], frozen=True):
    """Replace the gate of one transition, in the policy that the file stores.

    Refused with: `UnknownStage`, `PolicyError`.
    """

    gate: Any  # a `PromotionGate`


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
    # When that session ended by the calendar; None: the host names its sessions, and it ends now.
    ended_us: int | None = None


class ReadSnapshot(Request[PromotionSnapshot], frozen=True):
    """One strategy now. Refused with: `UnknownStrategy`."""

    strategy_id: str


class ReadStrategies(Request[tuple[PromotionSnapshot, ...]], frozen=True):
    """All strategies, by name."""


class PromotionHistory(Request[tuple[HistoryEntry, ...]], frozen=True):
    """The newest changes, newest first. 0 gives none, a negative limit is refused."""

    strategy_id: str | None = None  # None: of all strategies
    limit: int = 50


class StateAsOf(Request[tuple[StrategyState, ...]], frozen=True):
    """All strategies that were registered by then, as they were, by name."""

    at_us: int


class Require(Request[PromotionStage], frozen=True):
    """The current stage. Refused with: `StageTooLow`, `UnknownStage`, `UnknownStrategy`."""

    strategy_id: str
    at_least: PromotionStage


class ReadTerms(Request[EntitlementTerms], frozen=True):
    """The permission of the current stage. Refused with: `UnknownStrategy`."""

    strategy_id: str
