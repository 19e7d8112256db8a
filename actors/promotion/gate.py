"""The verdict of a gate, and the limits that demote. Pure functions over one strategy's record.

No data never counts as good: a missing, stale or undefined value is INCONCLUSIVE, which is not a
PASS. A value that fundops measured beats a recorded one; among records the newest counts, by its
instant and not by its arrival.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from ...runtime import DAY_US
from ...wire.money import from_minor
from ...wire.promotion import (
    CriterionResult,
    Evaluation,
    Move,
    PromotionStage,
    Verdict,
)
from .ladder import (
    METRICS,
    Criterion,
)
from .metrics import WORST
from .settings import PromotionSettings
from .strategy import Metric, Rules, Strategy

__all__ = ["breach", "evaluate", "latest"]

# Sessions that end after a value before it is stale.
STALE_SESSIONS: Final = 2

# Older values are stale although no session ended since: no exchange that trades on weekdays
# closes for longer, so the sessions were not seen.
SESSIONS_UNSEEN_S: Final = 7 * 86_400.0


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
