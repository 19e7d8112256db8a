"""The transitions of promotion: pure functions over one strategy's record. No I/O, no clock.

Only observations of the running *episode* count: days, trades, Sharpe and drawdown start anew at
every transition, from the first status of the episode. `gate` says what a gate makes of them.

Precedence within one look: hard demotion, soft demotion, frozen, cooldown, promotion; at most one
transition.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from ...runtime import DAY_US, shown
from ...wire.errors import (
    CapitalExceeded,
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
from ...wire.foreign import plain_text
from ...wire.money import from_minor
from ...wire.promotion import (
    HistoryEntry,
    PromotionSnapshot,
    PromotionStage,
    Transition,
)
from .capital import Capital, entitled_minor
from .evaluation import evaluate
from .limits import without_money
from .metrics import WORST, Reading, canonical_metrics, count_of
from .observation import value_of
from .policy import PromotionPolicy
from .strategy import REMEMBERED_SESSIONS, Change, Metric, Strategy

__all__ = [
    "check_evidence",
    "check_name",
    "check_on_ladder",
    "check_source",
    "demoted",
    "frozen",
    "promoted",
    "registered",
    "repeated",
    "retired",
    "seen",
    "session_ended",
    "snapshot",
    "transition_of",
    "with_metrics",
]

# How far the clock of the program that records metrics may differ from ours.
CLOCK_TOLERANCE_US: Final = 300_000_000


BY_MAX: Final = 128  # characters
REASON_MAX: Final = 4_096
SOURCE_MAX: Final = 1_024
_ISO_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")


# -- what people give


def check_name(name: object) -> str:
    """Raises: `MetricError` naming the field."""
    if not isinstance(name, str) or not 1 <= len(name) <= 128 or not name.isprintable():
        raise MetricError("strategy_name", name, "is not a printable text of 1 to 128 characters")
    if name != name.strip():
        raise MetricError("strategy_name", name, "begins or ends with a space")
    return name


def _allowing(by: object, reason: object, *, why: bool = False) -> tuple[str, str]:
    """The person and the reason of an act that allows more. With `why` a reason must be given.

    Raises: `MetricError` naming the field.
    """
    if not isinstance(by, str) or not by.strip() or len(by) > BY_MAX or not by.isprintable():
        raise MetricError("by", by, f"is not a printable text of 1 to {BY_MAX} characters")
    if not isinstance(reason, str) or len(reason) > REASON_MAX or _repaired(reason) != reason:
        raise MetricError("reason", reason, f"is not a text of at most {REASON_MAX} characters")
    if why and not reason.strip():
        raise MetricError("reason", reason, "is empty; say why")
    return by, reason


def _tightening(by: object, reason: object) -> tuple[str, str]:
    """The person and the reason of an act that allows less, which no wrong text may stop."""
    return _repaired(by)[:BY_MAX], _repaired(reason)[:REASON_MAX]


def _repaired(text: object) -> str:
    if not isinstance(text, str):
        text = "" if text is None else shown(text)
    return text.encode("utf-8", "replace").decode()


def check_source(source: object) -> str:
    """The name of the program that records metrics. Raises: `MetricError`."""
    text = plain_text(source)
    if text is None or len(text) > SOURCE_MAX or _repaired(text) != text:
        raise MetricError("source", source, f"is not a text of at most {SOURCE_MAX} characters")
    return text


# -- registering and recording


def registered(
    name: str,
    stage: PromotionStage,
    now_us: int,
    *,
    by: str,
    adopt: bool,
    reason: str = "",
    budget_minor: int | None = None,
) -> Change:
    """A new strategy. Only an adopted one may begin where real money is.

    Raises: `SkipRefused`, `MetricError`.
    """
    check_name(name)
    by, reason = _allowing(by, reason, why=adopt)
    if not adopt and stage not in (PromotionStage.Paper, PromotionStage.Shadow):
        raise SkipRefused(
            f"{name} cannot be registered at {stage.value}: start in paper or shadow, or adopt it"
        )
    identity = hashlib.blake2b(name.encode(), digest_size=6).hexdigest()
    strategy = Strategy(
        f"{now_us:016x}-{identity}",
        name,
        stage,
        registered_us=now_us,
        entered_us=now_us,
        budget_minor=budget_minor,
    )
    return Change(strategy, "adopt" if adopt else "register", None, now_us, by, reason)


def repeated(known: Strategy, name: str, budget_minor: int | None) -> str:
    """The id of a strategy that is registered again.

    Raises: `Conflict` for a name that is another strategy's id, or another budget;
        `StrategyRetired`.
    """
    if known.name != name:
        raise Conflict(f"{name} is the id of {known.name}; a strategy's name must differ from it")
    if known.stage is PromotionStage.Retired:
        raise StrategyRetired(f"{name} is retired; its name is not used again")
    if budget_minor is not None and budget_minor != known.budget_minor:
        before = "the fund's capital" if known.budget_minor is None else "another budget"
        raise Conflict(f"{name} is registered already, with {before}")
    return known.id


def check_capital(
    strategy: Strategy,
    stage: PromotionStage,
    policy: PromotionPolicy,
    capital: Capital,
    others_minor: int,
) -> None:
    """Whether the fund's capital allows the stage beside the others. Raises: `CapitalExceeded`."""
    room_minor = capital.room_minor(others_minor)
    wanted_minor = entitled_minor(strategy, policy, capital, stage)
    if room_minor is not None and wanted_minor and wanted_minor > room_minor:
        raise CapitalExceeded(
            strategy.name, stage.value, from_minor(wanted_minor), from_minor(room_minor)
        )


def check_on_ladder(strategies: Iterable[Strategy], policy: PromotionPolicy) -> None:
    """Whether each strategy stands on a stage of the ladder. Raises: `PolicyError`."""
    stages = {rung.stage for rung in policy.rungs} | {PromotionStage.Retired}
    for strategy in strategies:
        if strategy.stage not in stages:
            raise PolicyError(
                "promotion_ladder",
                f"{strategy.name} is in {strategy.stage.value}, which {policy.ladder!r} lacks;"
                f" its stages are {', '.join(policy.names())}",
            )


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
    """The record with these metrics. For each the newest instant counts, the later arrival among
    equals; a worst value never falls. Raises: `MetricError`.
    """
    known = dict(strategy.metrics)
    for name, value in canonical_metrics(metrics).items():
        before = known.get(name)
        if before is None:
            known[name] = Metric(value, as_of_us)
        elif name in WORST:
            known[name] = Metric(max(value, before.value), max(as_of_us, before.as_of_us))
        elif as_of_us >= before.as_of_us:
            known[name] = Metric(value, as_of_us)
    return msgspec.structs.replace(strategy, metrics=known)


def seen(strategy: Strategy, reading: Reading) -> Strategy:
    """The record after one status of the engine; the same object when it says nothing new."""
    track = strategy.track.seen(reading)
    return strategy if track is strategy.track else msgspec.structs.replace(strategy, track=track)


def session_ended(
    strategy: Strategy,
    session: str,
    now_us: int,
    policy: PromotionPolicy,
    *,
    measured: bool,
    periods_per_year: float,
) -> Strategy:
    """The record at the end of a session, once for each session.

    Not `measured`: the engine said nothing of the strategy, so the session gives no sample, and
    the earlier ones age by one.
    """
    last = strategy.track.session
    both_dated = _ISO_DATE.fullmatch(session) and _ISO_DATE.fullmatch(last)
    # Sessions only go forward: a clock that stepped back must not end yesterday again.
    if session <= last if both_dated else session == last:
        return strategy
    keep = policy.rung(strategy.stage).keep.drawdown
    track = strategy.track.ended(
        session,
        measured=measured,
        soft_drawdown=1.0 if keep is None else keep,
        remembered=policy.soft.sessions,
    )
    after = msgspec.structs.replace(
        strategy, track=track, closes_us=(*strategy.closes_us, now_us)[-REMEMBERED_SESSIONS:]
    )
    if track.sessions == strategy.track.sessions:
        return after
    values = track.metrics(policy.periods_per_year or periods_per_year)
    return msgspec.structs.replace(
        after,
        measured={name: Metric(value, now_us) for name, value in values.items()},
        undefined=tuple(name for name in ("sharpe", "win_rate") if name not in values),
    )


# -- evaluating


# -- transitions


def _check_movable(strategy: Strategy, expected_rev: int | None) -> None:
    if strategy.stage is PromotionStage.Retired:
        raise StrategyRetired(f"{strategy.name} is retired")
    if expected_rev is None:
        return
    if count_of(expected_rev) is None:
        raise MetricError("expected_rev", expected_rev, "is not a whole number >= 0")
    if count_of(expected_rev) != strategy.rev:
        raise StaleRevision(expected_rev, strategy.rev)


def promoted(
    strategy: Strategy,
    policy: PromotionPolicy,
    now_us: int,
    *,
    to: PromotionStage | None = None,
    by: str,
    reason: str = "",
    expected_rev: int | None = None,
    capital: Capital = Capital(),  # noqa: B008  frozen
    others_minor: int = 0,
) -> Change:
    """One stage up, on a current PASS. There is no way around the gate.

    Raises: `StrategyRetired`, `StaleRevision`, `SkipRefused`, `StrategyFrozen`, `CoolingDown`,
    `GateNotPassed`, `CapitalExceeded`; `MetricError` for `by` or `reason`.
    """
    by, reason = _allowing(by, reason)
    _check_movable(strategy, expected_rev)
    target = policy.above(strategy.stage)
    if target is None:
        raise SkipRefused(f"{strategy.name} is at the top stage, {strategy.stage.value}")
    if to is not None and policy.stage(to) is not target:
        raise SkipRefused(
            f"{strategy.name} can go from {strategy.stage.value} to {target.value},"
            f" not to {to.value}"
        )
    if strategy.frozen:
        raise StrategyFrozen(f"{strategy.name} is frozen")
    if strategy.cooldown_until_us is not None and now_us < strategy.cooldown_until_us:
        raise CoolingDown(strategy.name, strategy.cooldown_until_us)
    evaluation = evaluate(strategy, policy, now_us, capital=capital, others_minor=others_minor)
    if evaluation.verdict != "PASS" or evaluation.would_do == "demote":
        raise GateNotPassed(evaluation)
    check_capital(strategy, target, policy, capital, others_minor)
    if evaluation.would_do == "none":
        raise GateNotPassed(evaluation)
    after = _moved(strategy, target, now_us)
    return Change(
        after, "promote", strategy.stage, now_us, by, reason, evaluation, _values(strategy)
    )


def demoted(
    strategy: Strategy,
    policy: PromotionPolicy,
    now_us: int,
    *,
    to: PromotionStage | None = None,
    by: str,
    reason: str,
    hard: bool = False,
    expected_rev: int | None = None,
) -> Change:
    """Down to `to`, or one stage; frozen and cooling strategies too.

    A hard demotion leaves real money, any other one goes one stage down. Each demotion starts a
    cooldown, which doubles with each one in the window, and too many of them freeze the strategy
    until a person acts.

    Raises: `StrategyRetired`, `StaleRevision`, `SkipRefused`, `UnknownStage`.
    """
    by, reason = _tightening(by, reason)
    _check_movable(strategy, expected_rev)
    cooldowns = policy.cooldowns
    below = policy.below(strategy.stage)
    if below is None:
        raise SkipRefused(f"{strategy.name} is in the lowest stage, {strategy.stage.value}")
    target = without_money(strategy.stage, policy) if hard else below
    if to is not None:
        target = policy.stage(to)
        if policy.rank(target) >= policy.rank(strategy.stage):
            raise SkipRefused(
                f"{target.value} is not below {strategy.stage.value}, where {strategy.name} is"
            )
    window_us = int(cooldowns.freeze_window_days * DAY_US)
    recent = tuple(at for at in strategy.demotions_us if at > now_us - window_us)
    days = cooldowns.hard_days if hard else cooldowns.soft_days
    days = min(cooldowns.max_days, days * 2 ** len(recent))
    freeze = len(recent) + 1 >= cooldowns.freeze_after
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


def frozen(strategy: Strategy, now_us: int, *, freeze: bool, by: str, reason: str) -> Change | None:
    """Frozen blocks promotion only, and its time does not count as days in stage. None: the
    strategy is so already.

    Raises: `StrategyRetired`; `MetricError` for `by` or `reason` of an unfreeze.
    """
    by, reason = _tightening(by, reason) if freeze else _allowing(by, reason)
    _check_movable(strategy, None)
    if strategy.frozen == freeze:
        return None
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
    """The strategy retired, which cannot be undone. Raises: `StrategyRetired`."""
    by, reason = _tightening(by, reason)
    _check_movable(strategy, None)
    after = _moved(strategy, PromotionStage.Retired, now_us)
    return Change(after, "retire", strategy.stage, now_us, by, reason, None, _values(strategy))


def _moved(strategy: Strategy, stage: PromotionStage, now_us: int) -> Strategy:
    """A new episode: nothing observed before it counts any more."""
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
        measured={},
        undefined=(),
        track=strategy.track.next_episode(),
    )


def _values(strategy: Strategy) -> dict[str, float]:
    names = sorted({*strategy.metrics, *strategy.measured})
    found = {name: value_of(name, strategy) for name in names}
    return {name: value for name, value in found.items() if value is not None}


# -- showing


def snapshot(
    strategy: Strategy,
    policy: PromotionPolicy,
    now_us: int,
    history: tuple[HistoryEntry, ...],
    capital: Capital = Capital(),  # noqa: B008  frozen
    others_minor: int = 0,
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
        evaluation=evaluate(strategy, policy, now_us, capital=capital, others_minor=others_minor),
        history=history,
    )
