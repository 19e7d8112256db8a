"""The records of promotion: a strategy, its latest metrics, a change of its stage, and the rules.

Immutable values. Instants are int microseconds, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, Literal

import msgspec

from ...wire.entitlement import capital_of
from ...wire.errors import (
    UnknownStage,
)
from ...wire.money import to_minor
from ...wire.promotion import (
    EntitlementTerms,
    Evaluation,
    PromotionStage,
)
from .ladder import (
    Criterion,
    Ladder,
    PromotionGate,
    default_criteria,
    ladder,
)
from .metrics import Track
from .settings import PromotionSettings

__all__ = ["REMEMBERED_SESSIONS", "Change", "Metric", "Rules", "Strategy", "terms_of"]

# Ends of sessions that a record keeps, to tell how many came after a value.
REMEMBERED_SESSIONS: Final = 5


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
