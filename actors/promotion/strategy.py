"""The records of promotion: a strategy, its latest metrics, and a change of its stage.

Immutable values. Instants are int microseconds, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from ...wire.promotion import Evaluation, PromotionStage
from .metrics import Track

__all__ = ["REMEMBERED_SESSIONS", "Change", "Metric", "Strategy"]

# Ends of sessions that a record keeps, to tell how many came after a value.
REMEMBERED_SESSIONS: Final = 5


class Metric(msgspec.Struct, frozen=True):
    """The value of one metric in this episode, in its canonical unit."""

    value: float
    as_of_us: int


class Strategy(msgspec.Struct, frozen=True):
    """Everything the policy knows of one strategy."""

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
