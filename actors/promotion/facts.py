"""The facts of a strategy that the judgement reads, each by one name."""

from __future__ import annotations

from collections.abc import Mapping

from .metrics import Track
from .statistics import Moments
from .strategy import Metric, Strategy

__all__ = [
    "cap_of",
    "count_behind",
    "episode_number",
    "measured_of",
    "moments_of",
    "recorded_of",
    "streak_of",
    "track_of",
    "undefined_of",
    "version_of",
]


def episode_number(strategy: Strategy) -> int:
    """The number of the running stay in a stage."""
    return strategy.episode


def track_of(strategy: Strategy) -> Track:
    """The measurements of the episode."""
    return strategy.track


def measured_of(strategy: Strategy) -> Mapping[str, Metric]:
    """The metrics that fundops measured in the episode."""
    return strategy.measured


def recorded_of(strategy: Strategy) -> Mapping[str, Metric]:
    """The metrics that others recorded in the episode."""
    return strategy.metrics


def undefined_of(strategy: Strategy) -> tuple[str, ...]:
    """The metrics that were computed and have no value."""
    return strategy.undefined


def version_of(_strategy: Strategy) -> str | None:
    """The version of the strategy's code; None: unknown."""
    return None


def streak_of(_strategy: Strategy) -> int:
    """Sessions in a row at whose end the gate passed."""
    return 0


def cap_of(_strategy: Strategy) -> float | None:
    """The fraction of the budget that a person set for this stage; None: the stage's own."""
    return None


def count_behind(_metric: Metric) -> int | None:
    """Sessions behind a recorded value; None: unknown."""
    return None


def moments_of(track: Track) -> Moments:
    """The moments of the session returns of the episode."""
    n = track.sessions
    # Third and fourth power as of a normal distribution: the track does not keep them.
    return Moments(n, track.mean, track.m2, 0.0, 3 * track.m2 * track.m2 / max(n, 1))
