"""The judgement of a policy on one strategy at one instant. Pure: equal inputs give equal bytes.

A dry run and the evaluation behind a promotion are the same value.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from ...wire.money import from_minor
from ...wire.promotion import Evaluation, EvaluationInputs, Move, PromotionStage, Verdict
from .advisories import advisories_of
from .capital import Capital, entitled_minor
from .criteria import PromotionGate
from .limits import breach
from .policy import PromotionPolicy
from .strategy import Strategy
from .verdicts import NO_PROOF, judge, reasons_of, verdict_of
from .words import date_time, next_possible_us, why

__all__ = ["evaluate"]

# Of a strategy at the top of its ladder, or retired.
_NO_GATE: Final = PromotionGate(PromotionStage.Retired, ())


def evaluate(
    strategy: Strategy,
    policy: PromotionPolicy,
    now_us: int,
    *,
    capital: Capital,
    others_minor: int = 0,
    trials: int = 1,
    trial_variance: float | None = None,
    suspect: bool = False,
) -> Evaluation:
    """The verdict of the gate, the move that the policy would make now, and each blocker.

    `others_minor` is the real capital that all other strategies are entitled to. `trials` counts
    the versions that the strategy's family ever had evaluated, and `trial_variance` is that of
    their Sharpe ratios, per session. `suspect`: the wall clock has jumped, so days are not known.
    """
    stage = strategy.stage
    target = None if stage is PromotionStage.Retired else policy.above(stage)
    gate = (policy.rung(stage).gate if target else None) or _NO_GATE
    judged = [judge(criterion, strategy, policy, now_us) for criterion in gate.criteria]
    criteria = tuple([result for result in judged if result is not None])
    proves = any(criterion.required for criterion in gate.criteria)
    verdict = verdict_of(criteria, proves=proves)
    inputs = EvaluationInputs(
        rev=strategy.rev,
        active_us=strategy.active_us(now_us),
        sessions=strategy.episode.track.sessions,
        frozen=strategy.frozen,
        cooldown_until_us=strategy.cooldown_until_us,
        streak=strategy.passed_in_a_row(gate),
        trials=trials,
        trial_variance=trial_variance,
        capital_minor=capital.fund_minor,
        others_minor=others_minor,
        wanted_minor=entitled_minor(strategy, policy, capital, target) if target else 0,
        entitled_minor=entitled_minor(strategy, policy, capital),
    )
    down = breach(strategy, policy)
    blocked_by: tuple[str, ...] = () if down is None else (f"limit: {down.reason}",)
    if target is None:
        blocked_by += ("top: no higher stage",)
    else:
        blocked_by += _gate_blockers(gate, verdict, inputs, proves=proves)
        if suspect:
            blocked_by += ("clock: the wall clock is suspect; fundops confirm clock accepts it",)
        blocked_by += _other_blockers(policy, stage, inputs, capital, now_us)
    behind_us = strategy.behind_us(now_us)
    unsigned = Evaluation(
        id="",
        strategy=strategy.name,
        version=strategy.version,
        stage=stage,
        target=target,
        episode=strategy.episode.number,
        as_of_us=now_us,
        policy=policy.hash,
        inputs=inputs,
        criteria=criteria,
        verdict=verdict,
        reasons=reasons_of(criteria, proves=proves or target is None),
        advisories=advisories_of(strategy, policy, gate, trials, trial_variance),
        would_do=_move(blocked_by, demote=down is not None),
        blocked_by=blocked_by,
        why=why(criteria, blocked_by, target, inputs, now_us, behind_us),
        next_possible_us=next_possible_us(criteria, blocked_by, inputs, now_us, behind_us),
    )
    digest = hashlib.blake2b(msgspec.json.encode(unsigned), digest_size=12).hexdigest()
    return msgspec.structs.replace(unsigned, id=digest)


def _gate_blockers(
    gate: PromotionGate, verdict: Verdict, inputs: EvaluationInputs, *, proves: bool
) -> tuple[str, ...]:
    found: tuple[str, ...] = ()
    if verdict != "PASS":
        found = ("gate",) if proves else (NO_PROOF,)
    if gate.streak > 1 and inputs.streak < gate.streak:
        found += (f"streak: {inputs.streak} of {gate.streak} sessions in a row passed",)
    return found


def _other_blockers(
    policy: PromotionPolicy,
    stage: PromotionStage,
    inputs: EvaluationInputs,
    capital: Capital,
    now_us: int,
) -> tuple[str, ...]:
    found: tuple[str, ...] = ("frozen",) if inputs.frozen else ()
    until_us, wanted_minor = inputs.cooldown_until_us, inputs.wanted_minor
    if until_us is not None and now_us < until_us:
        found += (f"cooldown until {date_time(until_us)}",)
    room_minor = capital.room_minor(inputs.others_minor) if wanted_minor else None
    if room_minor is not None and wanted_minor > room_minor:
        wanted, left = from_minor(wanted_minor), from_minor(max(room_minor, 0))
        found += (f"capital: {wanted:,.2f} wanted, the other strategies leave {left:,.2f}",)
    if policy.rung(stage).approval == "manual":
        found += ("approval",)
    return found


def _move(blocked_by: tuple[str, ...], *, demote: bool) -> Move:
    if demote:
        return "demote"
    if blocked_by == ("approval",):
        return "ready"
    return "none" if blocked_by else "promote"
