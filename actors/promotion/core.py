"""The rules of promotion: pure functions over one strategy's record. No I/O, no clock, no tasks.

Only observations of the running *episode* count: days, trades, Sharpe and drawdown start anew at
every transition. No data never counts as good: what is missing, stale or undefined is INCONCLUSIVE,
and that is not a PASS.

Precedence within one look: hard demotion, soft demotion, frozen, cooldown, promotion; at most one
transition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

import msgspec

from ...runtime import DAY_US
from ...wire.errors import (
    CoolingDown,
    GateNotPassed,
    MetricError,
    SkipRefused,
    StaleRevision,
    StrategyFrozen,
    StrategyRetired,
    UnknownStage,
)
from ...wire.promotion import (
    CriterionResult,
    Evaluation,
    HistoryEntry,
    Move,
    PromotionSnapshot,
    PromotionStage,
    Transition,
    Verdict,
)
from .ladder import (
    METRICS,
    Criterion,
    Ladder,
    PromotionGate,
    default_criteria,
    ladder,
)
from .metrics import Sample, Track, canonical_metrics
from .settings import PromotionSettings

__all__ = [
    "Change",
    "Metric",
    "Rules",
    "Strategy",
    "breach",
    "check_evidence",
    "check_name",
    "demoted",
    "evaluate",
    "promoted",
    "registered",
    "snapshot",
    "transition_of",
    "with_metrics",
    "with_sample",
]

# How far the clock of whoever records metrics may differ from ours.
CLOCK_TOLERANCE_US = 300_000_000


class Rules:
    """Settings, ladder and gates, ready to use."""

    def __init__(self, settings: PromotionSettings, gates: tuple[PromotionGate, ...] = ()) -> None:
        self.settings = settings
        self.ladder: Ladder = ladder(settings.ladder)
        criteria = default_criteria(
            min_days=settings.min_paper_days,
            min_trades=settings.min_trades,
            min_sharpe=settings.min_sharpe,
            max_drawdown_pct=settings.max_drawdown_pct,
            min_win_rate=settings.min_win_rate,
            win_rate_required=settings.ladder == "three-stage",
        )
        self._gates = {rung.stage: criteria for rung in self.ladder.rungs} | {
            gate.stage: gate.criteria for gate in gates
        }

    def criteria(self, stage: PromotionStage) -> tuple[Criterion, ...]:
        """The criteria that a strategy must meet to leave this stage upwards."""
        return self._gates[stage]

    def stage(self, value: object) -> PromotionStage:
        """A stage of this ladder, from the enum or its value. Raises: `UnknownStage`."""
        try:
            found = PromotionStage(value)
            self.ladder.rank(found)
        except ValueError:
            raise UnknownStage(value, self.ladder.names()) from None
        return found


class Metric(msgspec.Struct, frozen=True):
    """The latest value of one metric in this episode, in its canonical unit."""

    value: float
    as_of_us: int


class Strategy(msgspec.Struct, frozen=True):
    """Everything the rules know of one strategy."""

    id: str
    name: str
    stage: PromotionStage
    registered_us: int
    entered_us: int  # the stage
    episode: int = 1
    rev: int = 1
    frozen: bool = False
    frozen_since_us: int | None = None
    frozen_us: int = 0  # spent frozen in this episode; it does not count as days in stage
    cooldown_until_us: int | None = None
    demotions_us: tuple[int, ...] = ()
    ready_alerted: bool = False  # "ready and waiting for a person" was said in this episode
    metrics: Mapping[str, Metric] = {}
    undefined: tuple[
        str, ...
    ] = ()  # metrics that were computed and have no value, such as a Sharpe of constant returns
    track: Track = Track()

    def active_us(self, now_us: int) -> int:
        """Time in the stage, frozen time excluded."""
        frozen_now = now_us - self.frozen_since_us if self.frozen_since_us is not None else 0
        return now_us - self.entered_us - self.frozen_us - frozen_now


class Change(msgspec.Struct, frozen=True):
    """A decided change: the record after it, and the line of history that says why."""

    after: Strategy
    kind: Literal["register", "adopt", "promote", "demote", "freeze", "unfreeze", "retire"]
    from_stage: PromotionStage | None
    at_us: int
    by: str
    reason: str
    evaluation: Evaluation | None = None
    metrics: Mapping[str, float] = {}  # at that moment, of the episode that ends
    hard: bool = False  # a demotion by a hard limit


# -- registering and recording


def check_name(name: object) -> str:
    """Raises: `MetricError` naming the field."""
    if not isinstance(name, str) or not 1 <= len(name) <= 128 or not name.isprintable():
        raise MetricError("strategy_name", name, "is not a printable text of 1 to 128 characters")
    return name


def registered(
    name: str, stage: PromotionStage, now_us: int, *, by: str, adopt: bool, reason: str = ""
) -> Change:
    """A new strategy. Only an adopted one may begin where real money is.

    Raises: `SkipRefused`, `MetricError`.
    """
    check_name(name)
    if not adopt and stage not in (PromotionStage.Paper, PromotionStage.Shadow):
        raise SkipRefused(
            f"{name} cannot be registered at {stage.value}: start in paper or shadow, or adopt it"
        )
    identity = hashlib.blake2b(name.encode(), digest_size=6).hexdigest()
    strategy = Strategy(
        f"{now_us:016x}-{identity}", name, stage, registered_us=now_us, entered_us=now_us
    )
    return Change(strategy, "adopt" if adopt else "register", None, now_us, by, reason)


def check_evidence(strategy: Strategy, stage: PromotionStage, as_of_us: int, now_us: int) -> None:
    """Whether something observed at `as_of_us` in `stage` may be recorded. Raises:
    `StrategyRetired`, `MetricError`.
    """
    if strategy.stage is PromotionStage.Retired:
        raise StrategyRetired(f"{strategy.name} is retired")
    if stage is not strategy.stage:
        raise MetricError("stage", stage.value, f"is not the current stage, {strategy.stage.value}")
    if as_of_us > now_us + CLOCK_TOLERANCE_US:
        raise MetricError("as_of", as_of_us, "lies in the future")
    if as_of_us < min(strategy.entered_us, now_us) - CLOCK_TOLERANCE_US:
        raise MetricError("as_of", as_of_us, "lies before the strategy entered its stage")


def with_metrics(strategy: Strategy, metrics: Mapping[str, object], as_of_us: int) -> Strategy:
    """The record with these metrics; the last record wins, metric by metric. Raises:
    `MetricError`.
    """
    fresh = {name: Metric(value, as_of_us) for name, value in canonical_metrics(metrics).items()}
    return msgspec.structs.replace(strategy, metrics={**strategy.metrics, **fresh})


def with_sample(
    strategy: Strategy, sample: Sample, as_of_us: int, settings: PromotionSettings
) -> Strategy:
    """The record after one session: its own metrics are computed and take the place of recorded
    ones.
    """
    track = strategy.track.after(
        sample, soft_drawdown=settings.max_drawdown_pct / 100, remembered=settings.soft_sessions
    )
    metrics = {name: Metric(value, as_of_us) for name, value in track.metrics().items()}
    undefined = tuple(name for name in ("sharpe", "win_rate") if name not in metrics)
    kept = {name: metric for name, metric in strategy.metrics.items() if name not in undefined}
    return msgspec.structs.replace(
        strategy, track=track, metrics={**kept, **metrics}, undefined=undefined
    )


# -- evaluating


def evaluate(strategy: Strategy, rules: Rules, now_us: int) -> Evaluation:
    """What the rules say now. Pure: a dry run and the real thing are the same bytes."""
    retired = strategy.stage is PromotionStage.Retired
    target = None if retired else rules.ladder.above(strategy.stage)
    criteria = () if target is None else rules.criteria(strategy.stage)
    results = tuple(
        _judge(criterion, strategy, rules.settings, now_us)
        for criterion in criteria
        if criterion.required or criterion.metric in strategy.metrics
    )
    verdict = _gate_verdict(results, proves=any(criterion.required for criterion in criteria))
    demotion = breach(strategy, rules)
    would_do, blocked_by = _move(strategy, rules, target, verdict, demotion is not None, now_us)
    unsigned = Evaluation(
        id="",
        strategy=strategy.name,
        stage=strategy.stage,
        target=target,
        episode=strategy.episode,
        as_of_us=now_us,
        criteria=results,
        verdict=verdict,
        would_do=would_do,
        blocked_by=blocked_by,
    )
    digest = hashlib.blake2b(msgspec.json.encode(unsigned), digest_size=12).hexdigest()
    return msgspec.structs.replace(unsigned, id=digest)


def _judge(
    criterion: Criterion, strategy: Strategy, settings: PromotionSettings, now_us: int
) -> CriterionResult:
    if criterion.metric == "days":
        active_us = strategy.active_us(now_us)
        if active_us < 0:
            return _result(
                criterion,
                "days",
                None,
                "INCONCLUSIVE",
                "clock: now lies before the stage was entered",
            )
        return _compare(criterion, "days", active_us / DAY_US, None)
    unit = METRICS[criterion.metric]
    metric = strategy.metrics.get(criterion.metric)
    if metric is None:
        why = "undefined" if criterion.metric in strategy.undefined else "missing"
        return _result(criterion, unit, None, "INCONCLUSIVE", why)
    age_s = (now_us - metric.as_of_us) / 1_000_000
    if age_s > settings.metric_max_age_s:
        return _result(criterion, unit, metric.value, "INCONCLUSIVE", "stale", age_s)
    return _compare(criterion, unit, metric.value, age_s)


def _compare(
    criterion: Criterion, unit: str, observed: float, age_s: float | None
) -> CriterionResult:
    # Both sides to 9 decimals, compared and shown so: 0.07 * 100 is 7.000000000000001.
    value, limit = round(observed, 9), round(criterion.limit, 9)
    margin = round(value - limit if criterion.op == ">=" else limit - value, 9)
    verdict: Verdict = "PASS" if margin >= 0 else "FAIL"
    why = "" if verdict == "PASS" else f"{value:g} is not {criterion.op} {limit:g}"
    return CriterionResult(
        criterion.name, criterion.op, limit, value, unit, margin, verdict, why, age_s
    )


def _result(
    criterion: Criterion,
    unit: str,
    observed: float | None,
    verdict: Verdict,
    why: str,
    age_s: float | None = None,
) -> CriterionResult:
    return CriterionResult(
        criterion.name, criterion.op, criterion.limit, observed, unit, None, verdict, why, age_s
    )


def _gate_verdict(results: tuple[CriterionResult, ...], *, proves: bool) -> Verdict:
    """Any FAIL is FAIL; else any INCONCLUSIVE; a gate without a required criterion proves
    nothing.
    """
    verdicts = {result.verdict for result in results}
    if "FAIL" in verdicts:
        return "FAIL"
    return "PASS" if proves and verdicts == {"PASS"} else "INCONCLUSIVE"


def _move(
    strategy: Strategy,
    rules: Rules,
    target: PromotionStage | None,
    verdict: Verdict,
    demote: bool,
    now_us: int,
) -> tuple[Move, str]:
    if demote:
        return "demote", ""
    if target is None:
        return "none", "no higher stage"
    if verdict != "PASS":
        return "none", "gate"
    if strategy.frozen:
        return "none", "frozen"
    if strategy.cooldown_until_us is not None and now_us < strategy.cooldown_until_us:
        return "none", "cooldown"
    if rules.settings.policy == "guarded" and target.is_live:
        return "ready", "waits for a person: more real money"
    return "promote", ""


def breach(
    strategy: Strategy, rules: Rules, equity: float | None = None
) -> tuple[str, bool] | None:
    """Why the strategy must go down, and whether at once (a hard limit); None: it may stay.

    `equity`, when given, is what the strategy is worth right now, within the session.
    """
    if strategy.stage is PromotionStage.Retired or rules.ladder.below(strategy.stage) is None:
        return None
    rung, track, settings = rules.ladder.rung(strategy.stage), strategy.track, rules.settings
    recorded = strategy.metrics.get("max_drawdown")
    drawdown = max(
        recorded.value if recorded else 0.0,
        track.drawdown_at(equity) if equity is not None else 0.0,
    )
    if rung.hard_drawdown is not None and round(drawdown, 9) >= rung.hard_drawdown:
        return f"drawdown {drawdown:.2%} reached its hard limit {rung.hard_drawdown:.0%}", True
    loss = max(0.0, -track.last_return)
    if (
        rung.hard_session_loss is not None
        and track.sessions
        and round(loss, 9) >= rung.hard_session_loss
    ):
        return f"session loss {loss:.2%} reached its hard limit {rung.hard_session_loss:.0%}", True
    if (
        track.sessions >= settings.soft_min_sessions
        and sum(track.breaches) >= settings.soft_breaches
    ):
        limit, seen = settings.max_drawdown_pct, len(track.breaches)
        return (
            f"drawdown above {limit:g}% on {sum(track.breaches)} of the last {seen} sessions",
            False,
        )
    return None


# -- transitions


def _check_movable(strategy: Strategy, expected_rev: int | None) -> None:
    if strategy.stage is PromotionStage.Retired:
        raise StrategyRetired(f"{strategy.name} is retired")
    if expected_rev is not None and expected_rev != strategy.rev:
        raise StaleRevision(expected_rev, strategy.rev)


def promoted(
    strategy: Strategy,
    rules: Rules,
    now_us: int,
    *,
    to: PromotionStage | None = None,
    by: str,
    reason: str = "",
    expected_rev: int | None = None,
) -> Change:
    """One stage up, on a current PASS. There is no way around the gate.

    Raises: `StrategyRetired`, `StaleRevision`, `SkipRefused`, `StrategyFrozen`, `CoolingDown`,
    `GateNotPassed`.
    """
    _check_movable(strategy, expected_rev)
    target = rules.ladder.above(strategy.stage)
    if target is None:
        raise SkipRefused(f"{strategy.name} is at the top stage, {strategy.stage.value}")
    if to is not None and rules.stage(to) is not target:
        raise SkipRefused(
            f"{strategy.name} can go from {strategy.stage.value} to {target.value},"
            f" not to {to.value}"
        )
    if strategy.frozen:
        raise StrategyFrozen(f"{strategy.name} is frozen")
    if strategy.cooldown_until_us is not None and now_us < strategy.cooldown_until_us:
        raise CoolingDown(strategy.name, strategy.cooldown_until_us)
    evaluation = evaluate(strategy, rules, now_us)
    if evaluation.verdict != "PASS" or evaluation.would_do == "demote":
        raise GateNotPassed(evaluation)
    after = _moved(strategy, target, now_us)
    return Change(
        after, "promote", strategy.stage, now_us, by, reason, evaluation, _values(strategy)
    )


def demoted(
    strategy: Strategy,
    rules: Rules,
    now_us: int,
    *,
    to: PromotionStage | None = None,
    by: str,
    reason: str,
    hard: bool = False,
    expected_rev: int | None = None,
) -> Change:
    """Down to `to`, or where the rules send it; frozen and cooling strategies too.

    A hard demotion from real money goes to shadow, any other one stage down. Each demotion starts a
    cooldown, which doubles with each one in the window, and too many of them freeze the strategy
    until a person acts.

    Raises: `StrategyRetired`, `StaleRevision`, `SkipRefused`, `UnknownStage`.
    """
    _check_movable(strategy, expected_rev)
    settings = rules.settings
    below = rules.ladder.below(strategy.stage)
    if below is None:
        raise SkipRefused(f"{strategy.name} is in the lowest stage, {strategy.stage.value}")
    target = below
    if to is not None:
        target = rules.stage(to)
        if rules.ladder.rank(target) >= rules.ladder.rank(strategy.stage):
            raise SkipRefused(
                f"{target.value} is not below {strategy.stage.value}, where {strategy.name} is"
            )
    elif hard and strategy.stage.is_live:
        target = PromotionStage.Shadow
    window_us = int(settings.freeze_window_days * DAY_US)
    recent = tuple(at for at in strategy.demotions_us if at > now_us - window_us)
    days = settings.hard_cooldown_days if hard else settings.soft_cooldown_days
    days = min(settings.cooldown_max_days, days * 2 ** len(recent))
    freeze = len(recent) + 1 >= settings.freeze_after_demotions
    after = msgspec.structs.replace(
        _moved(strategy, target, now_us),
        # A second demotion never shortens what the first one ordered.
        cooldown_until_us=max(strategy.cooldown_until_us or 0, now_us + int(days * DAY_US)),
        demotions_us=(*recent, now_us),
        frozen=strategy.frozen or freeze,
        frozen_since_us=now_us if strategy.frozen or freeze else None,
    )
    return Change(
        after, "demote", strategy.stage, now_us, by, reason, None, _values(strategy), hard
    )


def transition_of(change: Change) -> Transition:
    """A promotion or a demotion as callers hear of it, once it is committed."""
    assert change.from_stage is not None
    assert change.kind in ("promote", "demote")
    return Transition(
        change.after.name,
        change.kind,
        change.from_stage,
        change.after.stage,
        change.reason,
        change.hard,
    )


def frozen(strategy: Strategy, now_us: int, *, freeze: bool, by: str, reason: str) -> Change:
    """Frozen blocks promotion only, and its time does not count as days in stage. Raises:
    `StrategyRetired`.
    """
    _check_movable(strategy, None)
    spent = (
        now_us - strategy.frozen_since_us
        if strategy.frozen_since_us is not None and not freeze
        else 0
    )
    after = msgspec.structs.replace(
        strategy,
        frozen=freeze,
        frozen_since_us=(strategy.frozen_since_us or now_us) if freeze else None,
        frozen_us=strategy.frozen_us + spent,
        rev=strategy.rev + 1,
    )
    return Change(after, "freeze" if freeze else "unfreeze", strategy.stage, now_us, by, reason)


def retired(strategy: Strategy, now_us: int, *, by: str, reason: str) -> Change:
    """The retirement of a strategy, which cannot be undone. Raises: `StrategyRetired`."""
    _check_movable(strategy, None)
    after = _moved(strategy, PromotionStage.Retired, now_us)
    return Change(after, "retire", strategy.stage, now_us, by, reason, None, _values(strategy))


def _moved(strategy: Strategy, stage: PromotionStage, now_us: int) -> Strategy:
    """A new episode: nothing observed before it counts any more."""
    track = strategy.track
    return msgspec.structs.replace(
        strategy,
        stage=stage,
        entered_us=now_us,
        episode=strategy.episode + 1,
        rev=strategy.rev + 1,
        frozen_since_us=now_us if strategy.frozen else None,
        frozen_us=0,
        ready_alerted=False,
        metrics={},
        undefined=(),
        track=track.next_episode(track.base_trades + track.trades, track.base_wins + track.wins),
    )


def _values(strategy: Strategy) -> dict[str, float]:
    return {name: metric.value for name, metric in strategy.metrics.items()}


# -- showing


def snapshot(
    strategy: Strategy, rules: Rules, now_us: int, history: tuple[HistoryEntry, ...]
) -> PromotionSnapshot:
    """The record as people see it. Days in stage exclude frozen time."""
    return PromotionSnapshot(
        strategy_id=strategy.id,
        name=strategy.name,
        stage=strategy.stage,
        days_in_stage=max(0.0, strategy.active_us(now_us) / DAY_US),
        rev=strategy.rev,
        frozen=strategy.frozen,
        cooldown_until=strategy.cooldown_until_us,
        metrics=_values(strategy),
        evaluation=evaluate(strategy, rules, now_us),
        history=history,
    )
