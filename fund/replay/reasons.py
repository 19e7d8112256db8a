"""One sentence for each strategy: why it is where it is, and how far the next limit is."""

from __future__ import annotations

from fundops.actors.promotion.policy import Rung
from fundops.config import FundConfig
from fundops.wire.promotion import CriterionResult, PromotionSnapshot

__all__ = ["limit_pct_of", "reason_of", "signed"]

# How a person calls the metric of a criterion.
_NAMES = {
    "min_days": "days",
    "min_trades": "trades",
    "min_sharpe": "Sharpe",
    "max_drawdown": "drawdown",
    "min_win_rate": "win rate",
}
_FRACTIONS = ("max_drawdown", "min_win_rate")


def limit_pct_of(rung: Rung, config: FundConfig) -> float | None:
    """The lowest drawdown that takes a strategy out of this stage, in percent; None: none does."""
    if rung.hard.drawdown is None or not rung.real_capital_cap:
        return None
    return min(rung.hard.drawdown * 100, config.max_drawdown_pct, config.max_strategy_drawdown_pct)


def reason_of(
    snapshot: PromotionSnapshot, *, limit_pct: float | None, demoted: str, breaker_open: bool
) -> str:
    """The sentence. `demoted` is the reason of the demotion that led to this stage, or ""."""
    if breaker_open:
        return "its restarts failed and the breaker is open: a person must reset it"
    evaluation = snapshot.evaluation
    if evaluation.target is None:
        return _kept(snapshot, limit_pct)
    missed = [_missed(result) for result in evaluation.criteria if result.reason]
    lacks = ", ".join(missed) or "; ".join(evaluation.blocked_by) or "passes its gate"
    return f"{demoted}; now {lacks}" if demoted else lacks


def _kept(snapshot: PromotionSnapshot, limit_pct: float | None) -> str:
    """Why it keeps the top stage, though its Sharpe ratio may have fallen."""
    if limit_pct is None:
        return "top of the ladder"
    drawdown_pct = snapshot.metrics.get("max_drawdown", 0.0) * 100
    left = limit_pct - drawdown_pct
    room = (
        f"{drawdown_pct:.1f}% of {limit_pct:g}%, {left:.1f} points left"
        if left > 0
        else f"{drawdown_pct:.1f}%, over its {limit_pct:g}%"
    )
    wanted = next(
        (result.limit for result in snapshot.evaluation.criteria if result.name == "min_sharpe"),
        1.0,
    )
    sharpe = snapshot.metrics.get("sharpe")
    if sharpe is None or sharpe >= wanted:
        return f"drawdown {room}"
    return f"Sharpe {signed(sharpe)} does not demote, drawdown does: {room}"


def _missed(result: CriterionResult) -> str:
    name = _NAMES.get(result.name, result.name)
    if result.observed is None or result.margin is None:
        return f"{name}: {result.reason}"
    if result.name in _FRACTIONS:
        word = "over" if result.op == "<=" else "of"
        return f"{name} {result.observed:.1%} {word} {result.limit:.0%}"
    if result.name == "min_sharpe":
        return f"Sharpe {signed(result.observed)} of {result.limit:.2f}"
    return f"{result.observed:g} of {result.limit:g} {name}"


def signed(value: float) -> str:
    """Two decimals, with the minus of printed figures."""
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
