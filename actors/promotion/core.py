"""The rules of promotion: pure functions over one strategy's record. No I/O, no clock, no tasks.

Only observations of the running *episode* count: days, trades, Sharpe and drawdown start anew at
every transition, from the first status of the episode. No data never counts as good: what is
missing, stale or undefined is INCONCLUSIVE, and that is not a PASS. A value that fundops measured
beats a recorded one; among records the newest counts, by its instant and not by its arrival.

Precedence within one look: hard demotion, soft demotion, frozen, cooldown, promotion; at most one
transition.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final, Literal

import msgspec

from ...runtime import DAY_US, shown
from ...wire.entitlement import capital_of
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
    UnknownStage,
)
from ...wire.money import from_minor, to_minor
from ...wire.promotion import (
    CriterionResult,
    EntitlementTerms,
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
from .metrics import WORST, Reading, Track, canonical_metrics
from .settings import PromotionSettings

__all__ = [
    "Change",
    "Metric",
    "Rules",
    "Strategy",
    "breach",
    "check_evidence",
    "check_name",
    "check_on_ladder",
    "demoted",
    "evaluate",
    "frozen",
    "latest",
    "promoted",
    "registered",
    "repeated",
    "retired",
    "seen",
    "session_ended",
    "snapshot",
    "terms_of",
    "transition_of",
    "with_metrics",
]

# How far the clock of the program that records metrics may differ from ours.
CLOCK_TOLERANCE_US: Final = 300_000_000

# Sessions that end after a value before it is stale, and how many ends are remembered.
STALE_SESSIONS: Final = 2
REMEMBERED_SESSIONS: Final = 5
# Older values are stale although no session ended since: no exchange that trades on weekdays
# closes for longer, so the sessions were not seen.
SESSIONS_UNSEEN_S: Final = 7 * 86_400.0

BY_MAX: Final = 128  # characters
REASON_MAX: Final = 4_096
_ISO_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")


class Rules:
    """Settings, ladder and gates, ready to use.

    `capital_minor` is the fund's capital; None: it is not known, and then entitlements have no
    bound.
    """

    def __init__(
        self,
        settings: PromotionSettings,
        gates: tuple[PromotionGate, ...] = (),
        capital_minor: int | None = None,
    ) -> None:
        self.settings = settings
        self._capital_minor = capital_minor
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

    def entitled_minor(self, strategy: Strategy, stage: PromotionStage | None = None) -> int:
        """The real capital of the strategy in a stage; None: in its own."""
        terms = terms_of(strategy, self, stage)
        return to_minor(capital_of(terms, self._capital_minor or 0)).minor

    def room_minor(self, others_minor: int) -> int | None:
        """The real capital that the other strategies leave to one; None: there is no bound."""
        percent = self.settings.max_total_entitlement_pct
        if self._capital_minor is None or percent is None:
            return None
        return int(self._capital_minor * Decimal(str(percent)) / 100) - others_minor


class Metric(msgspec.Struct, frozen=True):
    """The value of one metric in this episode, in its canonical unit."""

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
    metrics: Mapping[str, Metric] = {}  # recorded by others in this episode
    undefined: tuple[
        str, ...
    ] = ()  # metrics that were computed and have no value, such as a Sharpe of constant returns
    track: Track = Track()
    measured: Mapping[str, Metric] = {}  # by fundops at the last session's end
    closes_us: tuple[int, ...] = ()  # when the last few sessions ended, in any episode
    budget_minor: int | None = None  # capital at full size; None: the fund's capital

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
    strategy: Strategy, stage: PromotionStage, rules: Rules, others_minor: int
) -> None:
    """Whether the fund's capital allows the stage beside the others. Raises: `CapitalExceeded`."""
    room_minor = rules.room_minor(others_minor)
    wanted_minor = rules.entitled_minor(strategy, stage)
    if room_minor is not None and wanted_minor and wanted_minor > room_minor:
        raise CapitalExceeded(
            strategy.name, stage.value, from_minor(wanted_minor), from_minor(room_minor)
        )


def check_on_ladder(strategies: Iterable[Strategy], rules: Rules) -> None:
    """Whether each strategy stands on a stage of the ladder. Raises: `PolicyError`."""
    stages = {rung.stage for rung in rules.ladder.rungs} | {PromotionStage.Retired}
    for strategy in strategies:
        if strategy.stage not in stages:
            raise PolicyError(
                "promotion_ladder",
                f"{strategy.name} is in {strategy.stage.value}, which {rules.ladder.name!r} lacks;"
                f" its stages are {', '.join(rules.ladder.names())}",
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
    settings: PromotionSettings,
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
    track = strategy.track.ended(
        session,
        measured=measured,
        soft_drawdown=settings.max_drawdown_pct / 100,
        remembered=settings.soft_sessions,
    )
    after = msgspec.structs.replace(
        strategy, track=track, closes_us=(*strategy.closes_us, now_us)[-REMEMBERED_SESSIONS:]
    )
    if track.sessions == strategy.track.sessions:
        return after
    values = track.metrics(periods_per_year)
    return msgspec.structs.replace(
        after,
        measured={name: Metric(value, now_us) for name, value in values.items()},
        undefined=tuple(name for name in ("sharpe", "win_rate") if name not in values),
    )


def latest(strategy: Strategy, name: str) -> Metric | None:
    """The value of one metric that counts: the measured one, or else the recorded one.

    A worst value is the worse of both, and includes the running session.
    """
    if name in strategy.undefined:
        return None
    measured, recorded = strategy.measured.get(name), strategy.metrics.get(name)
    if name not in WORST:
        return measured or recorded
    found = [metric for metric in (measured, recorded) if metric is not None]
    if not found:
        return None
    values = [metric.value for metric in found]
    if name == "max_drawdown":
        values.append(min(1.0, strategy.track.max_drawdown))
    return Metric(max(values), max(metric.as_of_us for metric in found))


# -- evaluating


def evaluate(strategy: Strategy, rules: Rules, now_us: int, others_minor: int = 0) -> Evaluation:
    """The verdict of the rules now. Pure: a dry run and the real evaluation are the same bytes.

    `others_minor` is the real capital that all other strategies are entitled to.
    """
    retired = strategy.stage is PromotionStage.Retired
    target = None if retired else rules.ladder.above(strategy.stage)
    criteria = () if target is None else rules.criteria(strategy.stage)
    results = tuple(
        _judge(criterion, strategy, rules.settings, now_us)
        for criterion in criteria
        if criterion.required or latest(strategy, criterion.metric) is not None
    )
    verdict = _gate_verdict(results, proves=any(criterion.required for criterion in criteria))
    demotion = breach(strategy, rules)
    would_do, blocked_by = _move(
        strategy, rules, target, verdict, demotion is not None, now_us, others_minor
    )
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
        return _days(criterion, active_us)
    unit = METRICS[criterion.metric]
    metric = latest(strategy, criterion.metric)
    if metric is None:
        why = "undefined" if criterion.metric in strategy.undefined else "missing"
        result = _result(criterion, unit, None, "INCONCLUSIVE", why)
    else:
        age_s = (now_us - metric.as_of_us) / 1_000_000
        stale = _staleness(strategy, metric, age_s, settings)
        if stale:
            result = _result(criterion, unit, metric.value, "INCONCLUSIVE", stale, age_s)
        else:
            result = _compare(criterion, unit, metric.value, age_s)
    measured, recorded = (
        known.get(criterion.metric) for known in (strategy.measured, strategy.metrics)
    )
    is_measured = measured is not None or criterion.metric in strategy.undefined
    return msgspec.structs.replace(
        result,
        source="measured" if is_measured else "recorded" if recorded else "",
        recorded=recorded.value if recorded else None,
    )


def _staleness(
    strategy: Strategy, metric: Metric, age_s: float, settings: PromotionSettings
) -> str:
    """Why the value is too old to count; "": it is not.

    Age is counted in sessions, since a strategy of weekdays has no newer value on a Monday. Where
    no session ever ended, as in a file without a fund, it is counted in hours.
    """
    if not strategy.closes_us:
        return "stale" if age_s > settings.metric_max_age_s else ""
    missed = sum(ended_us > metric.as_of_us for ended_us in strategy.closes_us)
    if missed >= STALE_SESSIONS:
        return f"stale: {missed} sessions ended since"
    too_old = age_s > max(SESSIONS_UNSEEN_S, settings.metric_max_age_s)
    return f"stale: {age_s / 86_400:.1f} days old" if too_old else ""


def _days(criterion: Criterion, active_us: int) -> CriterionResult:
    """Compared in microseconds: rounded as days, 43 us too few would pass."""
    limit_us = round(criterion.limit * DAY_US)
    margin_us = active_us - limit_us if criterion.op == ">=" else limit_us - active_us
    result = _result(criterion, "days", active_us / DAY_US, "PASS" if margin_us >= 0 else "FAIL")
    why = ""
    if margin_us < 0:
        why = f"{-margin_us / DAY_US:.7g} days too many"
    if margin_us < 0 and criterion.op == ">=":
        left_s = f"{-margin_us / 1_000_000:.6f}".rstrip("0").rstrip(".")
        why = (
            f"{-margin_us / DAY_US:.7g} days to go"
            if -margin_us >= DAY_US
            else f"{left_s} seconds to go"
        )
    return msgspec.structs.replace(result, margin=margin_us / DAY_US, reason=why)


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
    why: str = "",
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
    others_minor: int,
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
    room_minor, wanted_minor = (
        rules.room_minor(others_minor),
        rules.entitled_minor(strategy, target),
    )
    if room_minor is not None and wanted_minor and wanted_minor > room_minor:
        wanted, left = from_minor(wanted_minor), from_minor(max(room_minor, 0))
        return "none", f"capital: {wanted:,.2f} wanted, the other strategies leave {left:,.2f}"
    if rules.settings.policy == "guarded" and target.is_live:
        return "ready", "waits for a person: more real money"
    return "promote", ""


def breach(strategy: Strategy, rules: Rules) -> tuple[str, bool] | None:
    """Why the strategy must go down, and whether at once (a hard limit); None: it may stay.

    Hard limits hold at every status of the episode, so the worst one of the running session counts,
    and at every record.
    """
    if strategy.stage is PromotionStage.Retired or rules.ladder.below(strategy.stage) is None:
        return None
    rung, track, settings = rules.ladder.rung(strategy.stage), strategy.track, rules.settings
    drawdown = max(_recorded(strategy, "max_drawdown"), track.max_drawdown)
    if rung.hard_drawdown is not None and round(drawdown, 9) >= rung.hard_drawdown:
        return f"drawdown {drawdown:.2%} reached its hard limit {rung.hard_drawdown:.0%}", True
    loss = max(_recorded(strategy, "daily_loss"), track.loss)
    if rung.hard_session_loss is not None and round(loss, 9) >= rung.hard_session_loss:
        return f"session loss {loss:.2%} reached its hard limit {rung.hard_session_loss:.0%}", True
    if (
        track.sessions >= settings.soft_min_sessions
        and sum(track.breaches) >= settings.soft_breaches
    ):
        limit, sessions = settings.max_drawdown_pct, len(track.breaches)
        return (
            f"drawdown above {limit:g}% on {sum(track.breaches)} of the last {sessions} sessions",
            False,
        )
    return None


def _recorded(strategy: Strategy, name: str) -> float:
    metric = strategy.metrics.get(name)
    return metric.value if metric else 0.0


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
    others_minor: int = 0,
) -> Change:
    """One stage up, on a current PASS. There is no way around the gate.

    Raises: `StrategyRetired`, `StaleRevision`, `SkipRefused`, `StrategyFrozen`, `CoolingDown`,
    `GateNotPassed`, `CapitalExceeded`; `MetricError` for `by` or `reason`.
    """
    by, reason = _allowing(by, reason)
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
    evaluation = evaluate(strategy, rules, now_us, others_minor)
    if evaluation.verdict != "PASS" or evaluation.would_do == "demote":
        raise GateNotPassed(evaluation)
    check_capital(strategy, target, rules, others_minor)
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
    by, reason = _tightening(by, reason)
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
    found = {
        name: latest(strategy, name) for name in sorted({*strategy.metrics, *strategy.measured})
    }
    return {name: metric.value for name, metric in found.items() if metric is not None}


# -- showing


def terms_of(
    strategy: Strategy, rules: Rules, stage: PromotionStage | None = None
) -> EntitlementTerms:
    """The terms of the strategy in a stage; None: in its own."""
    stage = stage or strategy.stage
    if stage is PromotionStage.Retired:
        return EntitlementTerms(strategy.name, stage, "none", 0.0, strategy.budget_minor)
    rung = rules.ladder.rung(stage)
    return EntitlementTerms(
        strategy.name, stage, rung.mode, rung.real_capital, strategy.budget_minor
    )


def snapshot(
    strategy: Strategy,
    rules: Rules,
    now_us: int,
    history: tuple[HistoryEntry, ...],
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
        evaluation=evaluate(strategy, rules, now_us, others_minor),
        history=history,
    )
