"""The changes of promotion: pure functions over one strategy's record. No I/O, no clock.

Each function gives the record after the change and the line of history that says why, or raises
the refusal. Every transition begins a new episode, so no evidence of the stage before counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

from ...runtime import DAY_US
from ...wire.errors import (
    Conflict,
    CoolingDown,
    GateNotPassed,
    MetricError,
    PolicyError,
    SkipRefused,
    StaleRevision,
    StrategyFrozen,
    StrategyRetired,
)
from ...wire.promotion import Evaluation, PromotionStage
from .capital import Capital, cap_of, check_capital, checked_cap, kept_within
from .metrics import count_of
from .policy import PromotionPolicy
from .strategy import Change, Episode, Kind, Strategy
from .texts import check_family, check_name, loosening, tightening
from .totals import FROM_REGISTRATION

__all__ = [
    "capped",
    "check_on_ladder",
    "demoted",
    "demoted_automatically",
    "frozen",
    "movable",
    "newly_versioned",
    "noted",
    "promoted",
    "registered",
    "repeated",
    "retired",
    "voided",
]

_BEGINNINGS: Final = (PromotionStage.Paper, PromotionStage.Shadow)


# -- registering


def registered(
    name: str,
    stage: PromotionStage,
    now_us: int,
    *,
    by: str,
    adopt: bool,
    reason: str = "",
    family: str | None = None,
    budget_minor: int | None = None,
) -> Change:
    """A new strategy. Only an adopted one may begin where real money is.

    Raises: `SkipRefused`, `MetricError`.
    """
    check_name(name)
    by, reason = loosening(by, reason, why=adopt)
    if not adopt and stage not in _BEGINNINGS:
        raise SkipRefused(
            f"{name} cannot be registered at {stage.value}: start in paper or shadow, or adopt it"
        )
    identity = hashlib.blake2b(name.encode(), digest_size=6).hexdigest()
    strategy = Strategy(
        f"{now_us:016x}-{identity}",
        name,
        stage,
        registered_us=now_us,
        episode=Episode(1, now_us, stays=(FROM_REGISTRATION,)),
        family=check_family(family),
        budget_minor=budget_minor,
    )
    return Change(strategy, "adopt" if adopt else "register", None, now_us, by, reason)


def repeated(known: Strategy, name: str, family: str | None, budget_minor: int | None) -> str:
    """The id of a strategy that is registered again.

    Raises: `Conflict` for a name that is another strategy's id, another family or another budget;
        `StrategyRetired`.
    """
    if known.name != name:
        raise Conflict(f"{name} is the id of {known.name}; a strategy's name must differ from it")
    if known.stage is PromotionStage.Retired:
        raise StrategyRetired(f"{name} is retired; its name is not used again")
    if budget_minor is not None and budget_minor != known.budget_minor:
        before = "the fund's capital" if known.budget_minor is None else "another budget"
        raise Conflict(f"{name} is registered already, with {before}")
    if family is not None and family != known.family:
        raise Conflict(f"{name} is registered already, in family {known.family!r}")
    return known.id


def check_on_ladder(strategies: Iterable[Strategy], policy: PromotionPolicy) -> None:
    """Whether each strategy stands on a stage of the ladder. Raises: `PolicyError`."""
    stages = {rung.stage for rung in policy.rungs} | {PromotionStage.Retired}
    for strategy in strategies:
        if strategy.stage not in stages:
            raise PolicyError(
                "promotion_ladder",
                f"{strategy.name} is in {strategy.stage.value}, which {policy.ladder!r} of policy"
                f" {policy.name!r} lacks; its stages are {', '.join(policy.names())}",
            )


# -- transitions


def movable(strategy: Strategy, expected_rev: int | None = None) -> Strategy:
    """The strategy, if it can change. Raises: `StrategyRetired`, `StaleRevision`, `MetricError`."""
    if strategy.stage is PromotionStage.Retired:
        raise StrategyRetired(f"{strategy.name} is retired")
    if expected_rev is None:
        return strategy
    if count_of(expected_rev) is None:
        raise MetricError("expected_rev", expected_rev, "is not a whole number >= 0")
    if count_of(expected_rev) != strategy.rev:
        raise StaleRevision(expected_rev, strategy.rev)
    return strategy


def promoted(
    strategy: Strategy,
    policy: PromotionPolicy,
    evaluation: Evaluation,
    now_us: int,
    *,
    capital: Capital,
    others_minor: int = 0,
    to: PromotionStage | None = None,
    by: str,
    reason: str = "",
    expected_rev: int | None = None,
    cap: float | None = None,
) -> Change:
    """One stage up, on a PASS of this evaluation of now. There is no way around the gate.

    Raises: `StrategyRetired`, `StaleRevision`, `SkipRefused`, `StrategyFrozen`, `CoolingDown`,
    `GateNotPassed`, `CapitalExceeded`; `MetricError` for `by`, `reason` or `cap`.
    """
    by, reason = loosening(by, reason)
    movable(strategy, expected_rev)
    target = policy.above(strategy.stage)
    if target is None:
        raise SkipRefused(f"{strategy.name} is at the top stage, {strategy.stage.value}")
    if to is not None and policy.stage(to) is not target:
        raise SkipRefused(
            f"{strategy.name} can go from {strategy.stage.value} to {target.value},"
            f" not to {to.value}"
        )
    cap = None if cap is None else checked_cap(cap, target, policy)
    if strategy.frozen:
        raise StrategyFrozen(f"{strategy.name} is frozen: it is not promoted before an unfreeze")
    if strategy.cooldown_until_us is not None and now_us < strategy.cooldown_until_us:
        raise CoolingDown(strategy.name, strategy.cooldown_until_us)
    waits = any(blocker.startswith(("clock", "streak")) for blocker in evaluation.blocked_by)
    if evaluation.verdict != "PASS" or evaluation.would_do == "demote" or waits:
        raise GateNotPassed(evaluation)
    after = msgspec.structs.replace(_moved(strategy, target, now_us), cap=cap)
    check_capital(strategy, after, policy, capital, others_minor)
    return Change(after, "promote", strategy, now_us, by, reason, evaluation)


def demoted(
    strategy: Strategy,
    policy: PromotionPolicy,
    now_us: int,
    *,
    to: PromotionStage | None = None,
    by: str,
    reason: str,
    expected_rev: int | None = None,
) -> Change:
    """Down by a person, one stage or to `to`; frozen and cooling strategies too. It starts no
    cooldown and is no strike.

    Raises: `StrategyRetired`, `StaleRevision`, `SkipRefused`, `UnknownStage`.
    """
    by, reason = tightening(by, reason)
    movable(strategy, expected_rev)
    target = policy.below(strategy.stage)
    if target is None:
        raise SkipRefused(f"{strategy.name} is in the lowest stage, {strategy.stage.value}")
    if to is not None:
        target = policy.stage(to)
        if policy.rank(target) >= policy.rank(strategy.stage):
            raise SkipRefused(
                f"{target.value} is not below {strategy.stage.value}, where {strategy.name} is"
            )
    return Change(_moved(strategy, target, now_us), "demote", strategy, now_us, by, reason)


def demoted_automatically(
    strategy: Strategy,
    policy: PromotionPolicy,
    now_us: int,
    *,
    to: PromotionStage,
    hard: bool,
    by: str,
    reason: str,
    freeze: bool = False,
    evaluation: Evaluation | None = None,
) -> Change:
    """Down by the rules. It starts a cooldown, which doubles with each one in the window, and too
    many of them freeze the strategy until a person acts; `freeze` does so at once.

    Raises: `StrategyRetired`.
    """
    by, reason = tightening(by, reason)
    movable(strategy)
    rules = policy.cooldowns
    window_us = int(rules.freeze_window_days * DAY_US)
    recent = tuple(at for at in strategy.demotions_us if at > now_us - window_us)
    days = rules.hard_days if hard else rules.soft_days
    # The power is bounded: a window that holds many demotions would overflow a float.
    days = min(rules.max_days, days * 2 ** min(len(recent), 32))
    freeze = strategy.frozen or freeze or len(recent) + 1 >= rules.freeze_after
    after = msgspec.structs.replace(
        _moved(strategy, to, now_us),
        # A second demotion never shortens the cooldown of the first one.
        cooldown_until_us=max(strategy.cooldown_until_us or 0, now_us + int(days * DAY_US)),
        demotions_us=(*recent, now_us),
        frozen=freeze,
        frozen_since_us=now_us if freeze else None,
    )
    return Change(after, "demote", strategy, now_us, by, reason, evaluation, hard)


def voided(
    strategy: Strategy,
    earlier: Strategy,
    policy: PromotionPolicy,
    now_us: int,
    *,
    moved_us: int,
    after_record: int,
    seq: int,
    frozen: bool,
    capital: Capital,
    others_minor: int,
    by: str,
    reason: str,
) -> Change:
    """The strategy as it was before its newest transition, which was at `moved_us`.

    `earlier` is the record of then. The time since does not count as time in the stage, and the
    results of that time are no evidence; `after_record` is the id of the newest record of metrics.
    The version is that of then, too: one that came since is new to the stage. `frozen` is that of
    then, or of now where a freeze or its end came since.

    Raises: `StrategyRetired`, `CapitalExceeded`, `PolicyError`; `MetricError` for `by` or `reason`.
    """
    by, reason = loosening(by, reason, why=True)
    movable(strategy)
    stopped_us = moved_us if earlier.frozen_since_us is None else earlier.frozen_since_us
    episode = msgspec.structs.replace(
        earlier.stored(moved_us).left_out(stopped_us, now_us),
        track=earlier.episode.track.interrupted(strategy.episode.track),
        stays=(*earlier.episode.stays, strategy.episode.stays[-1].next_stay(after_record)),
        ready=False,
    )
    after = msgspec.structs.replace(
        strategy,
        stage=earlier.stage,
        episode=episode,
        rev=strategy.rev + 1,
        version=earlier.version,
        frozen=frozen,
        frozen_since_us=now_us if frozen else None,
        cooldown_until_us=earlier.cooldown_until_us,
        demotions_us=earlier.demotions_us,
        cap=earlier.cap,
        over_minor=earlier.over_minor,
        streak=earlier.streak,
        streak_gate=earlier.streak_gate,
    )
    check_capital(strategy, after, policy, capital, others_minor)
    after = kept_within(after, policy, capital, others_minor)
    return Change(after, "void", strategy, now_us, by, reason, voids=seq)


def retired(strategy: Strategy, now_us: int, *, by: str, reason: str) -> Change:
    """The strategy retired, which cannot be undone. Raises: `StrategyRetired`."""
    by, reason = tightening(by, reason)
    movable(strategy)
    after = _moved(strategy, PromotionStage.Retired, now_us)
    return Change(after, "retire", strategy, now_us, by, reason)


def _moved(strategy: Strategy, stage: PromotionStage, now_us: int) -> Strategy:
    """The strategy in another stage, with a new episode; a cap ends with its stage."""
    return _new_episode(
        msgspec.structs.replace(
            strategy, stage=stage, cap=None, over_minor=0, rev=strategy.rev + 1
        ),
        now_us,
    )


def _new_episode(strategy: Strategy, now_us: int) -> Strategy:
    """Nothing observed before it counts any more."""
    number = strategy.episodes + 1  # no number comes twice, not even after a void
    episode = Episode(
        number,
        now_us,
        track=strategy.episode.track.next_episode(),
        stays=(strategy.episode.stays[-1].next_stay(),),
    )
    return msgspec.structs.replace(
        strategy,
        episode=episode,
        episodes=number,
        frozen_since_us=now_us if strategy.frozen else None,
        streak=0,
    )


# -- within a stage


def noted(
    kind: Kind, strategy: Strategy, after: Strategy, now_us: int, *, by: str, reason: str
) -> Change:
    """A change of the evidence, told by a line of history."""
    return Change(
        msgspec.structs.replace(after, rev=strategy.rev + 1), kind, strategy, now_us, by, reason
    )


def frozen(strategy: Strategy, now_us: int, *, freeze: bool, by: str, reason: str) -> Change | None:
    """Frozen blocks promotion only, and its time does not count as days in stage. None: the
    strategy is so already.

    Raises: `StrategyRetired`; `MetricError` for `by` or `reason` of an unfreeze.
    """
    by, reason = tightening(by, reason) if freeze else loosening(by, reason)
    movable(strategy)
    if strategy.frozen == freeze:
        return None
    after = msgspec.structs.replace(_with_frozen(strategy, now_us, freeze), rev=strategy.rev + 1)
    return Change(after, "freeze" if freeze else "unfreeze", strategy, now_us, by, reason)


def _with_frozen(strategy: Strategy, now_us: int, freeze: bool) -> Strategy:
    since_us = strategy.frozen_since_us
    return msgspec.structs.replace(
        strategy,
        frozen=freeze,
        frozen_since_us=(since_us or now_us) if freeze else None,
        episode=strategy.episode if freeze else strategy.left_out(since_us, now_us),
    )


def capped(
    strategy: Strategy,
    cap: object,
    policy: PromotionPolicy,
    now_us: int,
    *,
    capital: Capital,
    others_minor: int,
    by: str,
    reason: str,
) -> Change | None:
    """The strategy with another cap, which ends with the stage. None: it has it already.

    Lower is possible at any time, higher up to the rung's cap and the fund's capital. Raises:
    `StrategyRetired`, `MetricError`, `CapitalExceeded`.
    """
    movable(strategy)
    fraction = checked_cap(cap, strategy.stage, policy)
    before = cap_of(strategy, policy)
    if fraction == before:
        return None
    raises = fraction > before
    by, reason = loosening(by, reason, why=True) if raises else tightening(by, reason)
    after = msgspec.structs.replace(strategy, cap=fraction, rev=strategy.rev + 1)
    check_capital(strategy, after, policy, capital, others_minor)
    after = kept_within(after, policy, capital, others_minor)
    return Change(after, "cap", strategy, now_us, by, reason)


def newly_versioned(
    strategy: Strategy, version: str, policy: PromotionPolicy, now_us: int, *, is_new: bool
) -> Change | Strategy:
    """The strategy with another version, as its engine reports it.

    The first known version is no new one. In paper and shadow a new version begins a new episode;
    in a live stage it freezes the strategy, and the episode goes on; or it goes to shadow, where
    the policy says so. `is_new`: it was never seen before, so it is one more trial of the family.
    """
    known = msgspec.structs.replace(strategy, version=version)
    if strategy.version is None:
        return known
    known = msgspec.structs.replace(
        known, versions=strategy.versions + is_new, rev=strategy.rev + 1
    )
    reason = f"version {version} after {strategy.version}"
    if not strategy.stage.is_live:
        after = _new_episode(known, now_us)
    elif policy.on_new_version == "shadow":
        moved = msgspec.structs.replace(known, stage=PromotionStage.Shadow, cap=None, over_minor=0)
        reason, after = f"superseded: {reason}", _new_episode(moved, now_us)
    else:
        after = _with_frozen(known, now_us, freeze=True)
    return Change(after, "version", strategy, now_us, "promotion", reason)
