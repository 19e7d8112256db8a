"""Whether a policy makes sense: each refusal names the place, as "gates.paper.criteria[0]"."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from ...runtime import ConfigError, shown
from ...wire.errors import PolicyError
from ...wire.promotion import PromotionStage
from ..calendar import calendar_of
from .criteria import DAYS, LIVE_METRICS, METRICS, Criterion
from .policy import PromotionPolicy, Rung

__all__ = ["entry_ceiling", "lint"]

# Series and other names that are recorded and are no figure of their own.
_SERIES: Final = ("returns", "equity")


def lint(policy: PromotionPolicy) -> None:
    """Refuse a policy whose parts contradict each other. Raises: `PolicyError` naming the place."""
    _check_ladder(policy)
    _check_metrics(policy)
    if policy.soft.breaches > policy.soft.sessions:
        raise PolicyError(
            "soft.breaches", f"{policy.soft.breaches} of {policy.soft.sessions} sessions never come"
        )
    for rank, rung in enumerate(policy.rungs):
        below = policy.rungs[rank - 1] if rank else None
        _check_limits(rung, below)
        for number, criterion in enumerate(rung.gate.criteria if rung.gate else ()):
            place = f"gates.{rung.stage.value}.criteria[{number}]"
            problem = _problem_of(criterion, policy, rung)
            if problem is not None:
                raise PolicyError(place, f"{criterion.name}: {problem}")


def entry_ceiling(rung: Rung) -> float | None:
    """The drawdown with which a strategy may leave this rung upwards; None: any."""
    criteria = rung.gate.criteria if rung.gate else ()
    limits = [
        criterion.limit
        for criterion in criteria
        if criterion.metric == "max_drawdown" and criterion.op == "<="
    ]
    return min(limits, default=None)


def _check_ladder(policy: PromotionPolicy) -> None:
    stages = [rung.stage for rung in policy.rungs]
    if len(stages) < 2:
        raise PolicyError("order", "a ladder has two stages or more")
    if PromotionStage.Retired in stages:
        raise PolicyError("order", "retired is no stage of a ladder")
    for stage in stages:
        if stages.count(stage) > 1:
            raise PolicyError("order", f"{stage.value} is there twice")
    if policy.rungs[0].mode == "live":
        raise PolicyError("order", f"{stages[0].value} is the lowest stage, and has real money")
    for rung in policy.rungs:
        place = f"stages.{rung.stage.value}"
        if rung.gate is not None and rung.gate.transition != rung.stage:
            other = shown(rung.gate.transition.value)
            raise PolicyError(f"gates.{rung.stage.value}", f"is the gate of {other}")
        if rung.mode != "live" and rung.real_capital_cap:
            raise PolicyError(f"{place}.real_capital_cap", f"{rung.mode} has no real capital")
        if rung.mode == "live" and rung.notional_cap:
            raise PolicyError(f"{place}.notional_cap", f"{rung.stage.value} simulates no orders")
    if policy.on_new_version == "shadow" and PromotionStage.Shadow not in stages:
        raise PolicyError("on_new_version", "the ladder has no shadow for it")
    for lower, higher in pairwise(policy.rungs):
        if higher.real_capital_cap < lower.real_capital_cap:
            raise PolicyError(
                f"stages.{higher.stage.value}.real_capital_cap",
                f"{higher.real_capital_cap:g} is less than the {lower.real_capital_cap:g} of"
                f" {lower.stage.value}, which is below it",
            )


def _check_metrics(policy: PromotionPolicy) -> None:
    try:
        calendar_of(policy.calendar)
    except ConfigError as error:
        raise PolicyError("calendar", error.problem) from None
    for name in policy.metrics:
        if name in METRICS or name in _SERIES or name in (DAYS, "max_drawdown_pct"):
            raise PolicyError(f"metrics.{name}", "is a metric of fundops already")


def _check_limits(rung: Rung, below: Rung | None) -> None:
    place, hard = f"stages.{rung.stage.value}", rung.hard.drawdown
    if below is None:
        return
    entry = entry_ceiling(below)
    if entry is not None and rung.keep.drawdown is not None and rung.keep.drawdown > entry:
        raise PolicyError(
            f"{place}.keep_drawdown",
            f"{rung.keep.drawdown:.4g} is looser than the ceiling of the gate into"
            f" {rung.stage.value}, {entry:.4g}",
        )
    if entry is not None and hard is not None and hard < entry:
        raise PolicyError(
            f"{place}.hard_drawdown",
            f"{hard:.4g} is below the ceiling of the gate into {rung.stage.value}, {entry:.4g};"
            " equal is allowed",
        )


def _problem_of(criterion: Criterion, policy: PromotionPolicy, rung: Rung) -> str | None:
    """Why the criterion can never be met in its stage, or judged at all; None: it can."""
    metric = criterion.metric
    if metric in _SERIES:
        return f"{metric} is a series; its figures are sharpe and max_drawdown"
    unit = METRICS.get(metric) or policy.metrics.get(metric)
    if metric != DAYS and unit is None:
        known = ", ".join((DAYS, *METRICS, *policy.metrics))
        return f"there is no metric {shown(metric)}; there are {known}"
    if metric in LIVE_METRICS and rung.mode != "live":
        return f"{metric} needs real trading, which {rung.stage.value} lacks"
    if metric == "fills" and rung.mode == "paper":
        return f"{metric} are counted from shadow on, not in {rung.stage.value}"
    if unit == "fraction" and not -1 <= criterion.limit <= 1:
        hint = "; percent goes into max_drawdown_pct" if metric == "max_drawdown" else ""
        return f"{criterion.limit:g} is no fraction{hint}"
    return None
