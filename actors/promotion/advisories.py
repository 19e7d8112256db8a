"""How much a strategy's Sharpe ratio proves, beside the verdict of its gate. Pure.

The ratio is the one that counts in the episode. Of a recorded ratio the returns behind it are not
known: it has no advisories. Those of an older record of a series count as normally distributed.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, NamedTuple

from ...wire.promotion import Advisories
from .criteria import PromotionGate
from .policy import PromotionPolicy
from .statistics import (
    deflated_sharpe_ratio,
    minimum_track_record_length,
    p_pass_without_skill,
    probabilistic_sharpe_ratio,
    sharpe_standard_error,
)
from .strategy import Strategy

__all__ = ["CONFIDENCE", "advisories_of"]

# At which a track record counts as long enough.
CONFIDENCE: Final = 0.95

_NORMAL_SHAPE: Final = (0.0, 3.0)


class _Sample(NamedTuple):
    sharpe: float  # per session
    n: int
    skew: float
    kurtosis: float


def advisories_of(
    strategy: Strategy,
    policy: PromotionPolicy,
    gate: PromotionGate,
    trials: int,
    trial_variance: float | None,
) -> Advisories:
    """The advisories on the strategy's Sharpe ratio in its gate.

    Without `trial_variance` the trials count as having no skill: then their Sharpe ratios differ by
    chance alone, with a variance of 1 / (n - 1).
    """
    root = math.sqrt(policy.sessions_per_year)
    sample = _sample(strategy, root)
    if sample is None:
        return Advisories(n_trials=trials)
    sharpe, n, skew, kurtosis = sample
    try:
        psr = probabilistic_sharpe_ratio(sharpe, 0.0, n, skew, kurtosis)
        length = minimum_track_record_length(sharpe, 0.0, CONFIDENCE, skew, kurtosis)
        variance = 1 / (n - 1) if trial_variance is None else trial_variance
        return Advisories(
            se_sharpe=root * sharpe_standard_error(sharpe, n, skew, kurtosis),
            psr=psr,
            min_trl=length if math.isfinite(length) else None,
            dsr=psr
            if trials == 1
            else deflated_sharpe_ratio(sharpe, n, variance, trials, skew, kurtosis),
            n_trials=trials,
            p_pass_without_skill=_luck(_asked(gate), root, n),
        )
    except ValueError:  # figures that no returns have, such as a recorded Sharpe ratio of 1e60
        return Advisories(n_trials=trials)


def _sample(strategy: Strategy, root: float) -> _Sample | None:
    episode = strategy.episode
    if "sharpe" in episode.undefined:
        return None
    measured = episode.measured.get("sharpe")
    if measured is None:
        return None
    if measured.source == "engine":
        found = episode.track.moments
        if found.sharpe is None or found.shape is None:
            return None
        return _Sample(found.sharpe, found.n, *found.shape)
    if measured.n is None or measured.n < 2:
        return None
    return _Sample(measured.value / root, measured.n, *(measured.shape or _NORMAL_SHAPE))


def _asked(gate: PromotionGate) -> float | None:
    """The annual Sharpe ratio that the gate asks for; None: it asks for none."""
    floors = [
        criterion.limit
        for criterion in gate.criteria
        if criterion.metric == "sharpe" and criterion.op == ">="
    ]
    return max(floors, default=None)


@lru_cache(maxsize=1_024)
def _luck(asked: float | None, root: float, n: int) -> float | None:
    return None if asked is None else p_pass_without_skill(asked / root, n)
