"""The limits that demote a strategy. Pure.

A hard limit demotes on one observation and is reached at equality: it holds at every status of the
episode and for every record. A soft limit demotes when it was exceeded in enough sessions, as the
policy's window counts them. A short-window Sharpe ratio never demotes.
"""

from __future__ import annotations

from typing import NamedTuple

from ...wire.promotion import PromotionStage
from .criteria import DECIMALS
from .policy import PromotionPolicy
from .strategy import Strategy

__all__ = ["Breach", "breach", "without_money", "worst"]


class Breach(NamedTuple):
    """A limit that is breached, and where that leads."""

    reason: str  # for a person
    hard: bool
    limit: str  # drawdown, session_loss or keep_drawdown
    to: PromotionStage


def breach(strategy: Strategy, policy: PromotionPolicy) -> Breach | None:
    """Why the strategy must go down, the hardest limit first; None: it may stay."""
    if strategy.stage is PromotionStage.Retired:
        return None
    below = policy.below(strategy.stage)
    if below is None:
        return None
    rung, track = policy.rung(strategy.stage), strategy.episode.track
    hard = rung.hard
    drawdown = worst(strategy, "max_drawdown")
    if hard.drawdown is not None and _reaches(drawdown, hard.drawdown):
        reason = f"drawdown {drawdown:.2%} reached its hard limit {hard.drawdown * 100:.4g}%"
        return Breach(reason, True, "drawdown", without_money(strategy.stage, policy))
    loss = worst(strategy, "daily_loss")
    if hard.session_loss is not None and _reaches(loss, hard.session_loss):
        reason = f"session loss {loss:.2%} reached its hard limit {hard.session_loss * 100:.4g}%"
        return Breach(reason, True, "session_loss", without_money(strategy.stage, policy))
    keep, window, breached = rung.keep.drawdown, policy.soft, sum(track.breaches)
    if keep is None or track.sessions < window.min_sessions or breached < window.breaches:
        return None
    sessions = len(track.breaches)
    reason = f"drawdown above {keep * 100:.4g}% on {breached} of the last {sessions} sessions"
    return Breach(reason, False, "keep_drawdown", below)


def worst(strategy: Strategy, metric: str) -> float:
    """The worst drawdown, or loss of a session, that was seen or recorded in the episode."""
    episode = strategy.episode
    seen = episode.track.max_drawdown if metric == "max_drawdown" else episode.track.loss
    told = (known.get(metric) for known in (episode.recorded, episode.measured))
    return max([seen, *(value.value for value in told if value is not None)])


def _reaches(value: float, limit: float) -> bool:
    return round(value, DECIMALS) >= round(limit, DECIMALS)


def without_money(stage: PromotionStage, policy: PromotionPolicy) -> PromotionStage:
    """The highest lower stage without real money, which every ladder has at its bottom."""
    lower = policy.rungs[: policy.rank(stage)]
    return next(rung.stage for rung in reversed(lower) if rung.mode != "live")
