"""The verdict on one criterion, and on a gate. Pure.

Floors and ceilings are inclusive. Missing, stale or undefined is INCONCLUSIVE and never a PASS.
"""

from __future__ import annotations

from typing import Final

from ...runtime import DAY_US
from ...wire.promotion import CriterionResult, Verdict
from .criteria import DAYS, DECIMALS, METRICS, Criterion
from .evidence import CLOCK_TOLERANCE_US
from .observation import Observation, observe, stale
from .policy import PromotionPolicy
from .strategy import Strategy

__all__ = ["NO_PROOF", "judge", "reasons_of", "verdict_of"]

# The reason of a gate that asks for nothing.
NO_PROOF: Final = "config: no criterion is required"


def judge(
    criterion: Criterion, strategy: Strategy, policy: PromotionPolicy, now_us: int
) -> CriterionResult | None:
    """The result of one criterion; None: it is optional, and its metric was never seen."""
    seen = observe(criterion, strategy, now_us)
    if criterion.metric == DAYS:
        return _days(criterion, seen)
    if seen.value is None:
        # A win rate of no trades was never measured; a Sharpe ratio of constant returns was.
        if not criterion.required and (not seen.undefined or seen.n == 0):
            return None
        why = "undefined" if seen.undefined else "missing"
        return _result(criterion, policy, seen, None, None, "INCONCLUSIVE", why)
    assert seen.age_us is not None
    # The limit was rounded when its criterion was made.
    value, limit = round(seen.value, DECIMALS), criterion.limit
    if seen.age_us < -CLOCK_TOLERANCE_US:
        why = "clock: now lies before the instant of its value"
        return _result(criterion, policy, seen, value, None, "INCONCLUSIVE", why)
    too_old = stale(seen.age_us, strategy, policy, now_us)
    if too_old:
        return _result(criterion, policy, seen, value, None, "INCONCLUSIVE", too_old)
    margin = round(value - limit if criterion.op == ">=" else limit - value, DECIMALS)
    if margin >= 0:
        return _result(criterion, policy, seen, value, margin, "PASS", "")
    why = f"{value:g} is not {criterion.op} {limit:g}"
    return _result(criterion, policy, seen, value, margin, "FAIL", why)


def _days(criterion: Criterion, seen: Observation) -> CriterionResult:
    """Compared in microseconds: rounded as days, 43 us too few would pass."""
    if seen.value is None:
        why = "clock: now lies before the stage was entered"
        return CriterionResult(
            criterion.name,
            criterion.op,
            criterion.limit,
            None,
            DAYS,
            None,
            "INCONCLUSIVE",
            why,
            None,
        )
    limit_us = round(criterion.limit * DAY_US)
    floor = criterion.op == ">="
    margin_us = round(seen.value) - limit_us if floor else limit_us - round(seen.value)
    why = "" if margin_us >= 0 else _days_missed(-margin_us, floor=floor)
    return CriterionResult(
        criterion.name,
        criterion.op,
        criterion.limit,
        seen.value / DAY_US,
        DAYS,
        margin_us / DAY_US,
        "FAIL" if why else "PASS",
        why,
        None,
    )


def _days_missed(missed_us: int, *, floor: bool) -> str:
    if not floor:
        return f"{missed_us / DAY_US:.7g} days too many"
    if missed_us >= DAY_US:
        return f"{missed_us / DAY_US:.7g} days to go"
    left_s = f"{missed_us / 1_000_000:.6f}".rstrip("0").rstrip(".")
    return f"{left_s} seconds to go"


def _result(
    criterion: Criterion,
    policy: PromotionPolicy,
    seen: Observation,
    value: float | None,
    margin: float | None,
    verdict: Verdict,
    why: str,
) -> CriterionResult:
    return CriterionResult(
        criterion.name,
        criterion.op,
        criterion.limit,
        value,
        METRICS.get(criterion.metric) or policy.metrics.get(criterion.metric, ""),
        margin,
        verdict,
        why,
        None if seen.age_us is None else seen.age_us / 1_000_000,
        seen.source,
        seen.recorded,
        seen.n,
    )


def verdict_of(criteria: tuple[CriterionResult, ...], *, proves: bool) -> Verdict:
    """Any FAIL is FAIL; else any INCONCLUSIVE. A gate without a required criterion proves
    nothing.
    """
    verdicts = {result.verdict for result in criteria}
    if "FAIL" in verdicts:
        return "FAIL"
    return "PASS" if proves and "INCONCLUSIVE" not in verdicts else "INCONCLUSIVE"


def reasons_of(criteria: tuple[CriterionResult, ...], *, proves: bool) -> tuple[str, ...]:
    """Why the gate does not pass, with each criterion by name; (): it passes."""
    missed = [f"{result.name}: {result.reason}" for result in criteria if result.reason]
    return tuple(missed if proves else [*missed, NO_PROOF])
