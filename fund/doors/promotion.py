"""The promotion door: the lifecycle of strategies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fundops.doors.door import Door
from fundops.moments import Instant, instant_us
from fundops.runtime import Ref
from fundops.wire.money import Amount, positive_minor
from fundops.wire.promotion import (
    Adopt,
    Demote,
    Evaluate,
    Evaluation,
    Freeze,
    HistoryEntry,
    Promote,
    PromotionHistory,
    PromotionSnapshot,
    PromotionStage,
    ReadSnapshot,
    ReadStrategies,
    RecordMetrics,
    Register,
    Retire,
    Transition,
)

__all__ = ["PromotionDoor"]


class PromotionDoor(Door):
    """The lifecycle of strategies. Each method takes a strategy's id or its name."""

    def __init__(self, ref: Ref | None) -> None:
        super().__init__("promotion", "promotion_enabled=True", ref)

    async def register(
        self,
        strategy_name: str,
        initial_stage: PromotionStage = PromotionStage.Paper,
        *,
        budget: Amount | None = None,
    ) -> str:
        """Register a strategy and return its id; the same name again gives the same id.

        `budget` is its capital at full size, in units of the currency, of which each stage allows a
        part; None: the fund's capital.

        Raises: `SkipRefused` above shadow, `StrategyRetired`, `MetricError` for the name,
        `AmountError` for the budget; `Conflict` for another strategy's id or another budget.
        """
        return await self._ask(
            Register(strategy_name, initial_stage, budget_minor=_minor_of(budget))
        )

    async def adopt(
        self,
        name: str,
        stage: PromotionStage,
        *,
        by: str,
        reason: str,
        budget: Amount | None = None,
        over_capital: bool = False,
    ) -> str:
        """Register a strategy that already trades, at any stage; returns its id.

        `budget` is as in `register`. With `over_capital` the capital of all strategies together may
        exceed `max_total_entitlement_pct`.

        Raises: `Conflict`, `StrategyRetired`, `CapitalExceeded`; `MetricError` for the name, `by`
        or `reason`; `AmountError` for the budget.
        """
        return await self._ask(Adopt(name, stage, by, reason, _minor_of(budget), over_capital))

    async def record_metrics(
        self,
        strategy_id: str,
        stage: PromotionStage,
        metrics: Mapping[str, Any],
        *,
        as_of: Instant | None = None,
        source: str = "",
    ) -> None:
        """Record the metrics of the current stage so far.

        A value that the fund measures itself counts before a recorded one. Among records the newest
        `as_of` counts for each metric, and a worst value such as `max_drawdown` never falls.

        Raises: `MetricError` naming the field, `Conflict`.
        """
        await self._ask(
            RecordMetrics(strategy_id, stage, metrics, instant_us("as_of", as_of), source)
        )

    async def evaluate(self, strategy_id: str) -> Evaluation:
        """The rules' present verdict on one strategy. Nothing is written."""
        return await self._ask(Evaluate(strategy_id))

    async def should_promote(self, strategy_id: str) -> bool:
        """Whether `promote` would succeed now."""
        return (await self.evaluate(strategy_id)).would_do in ("promote", "ready")

    async def should_demote(self, strategy_id: str) -> bool:
        """Whether a hard limit is breached, or a soft one for long enough."""
        return (await self.evaluate(strategy_id)).would_do == "demote"

    async def promote(
        self,
        strategy_id: str,
        *,
        to: PromotionStage | None = None,
        by: str = "operator",
        reason: str = "",
        expected_rev: int | None = None,
    ) -> Transition:
        """Promote one stage, if the gate passes now.

        Raises: `GateNotPassed` with the evaluation, `CapitalExceeded`, `CoolingDown`,
        `StrategyFrozen`, `StrategyRetired`, `SkipRefused`, `StaleRevision`.
        """
        return await self._ask(Promote(strategy_id, to, by, reason, expected_rev))

    async def demote(
        self,
        strategy_id: str,
        *,
        to: PromotionStage | None = None,
        by: str = "operator",
        reason: str = "",
        expected_rev: int | None = None,
    ) -> Transition:
        """Demote one stage, or to the lower stage `to`.

        Raises: `SkipRefused`, `StaleRevision`, `StrategyRetired`.
        """
        return await self._ask(Demote(strategy_id, to, by, reason, expected_rev))

    async def freeze(self, strategy_id: str, *, by: str = "operator", reason: str = "") -> None:
        """Forbid promotion until `unfreeze`. Demotion still works.

        A second call changes nothing.
        """
        await self._ask(Freeze(strategy_id, True, by, reason))

    async def unfreeze(self, strategy_id: str, *, by: str = "operator", reason: str = "") -> None:
        """Allow promotion again."""
        await self._ask(Freeze(strategy_id, False, by, reason))

    async def retire(self, strategy_id: str, *, by: str = "operator", reason: str = "") -> None:
        """Retire the strategy. This cannot be undone."""
        await self._ask(Retire(strategy_id, by, reason))

    async def current_stage(self, strategy_id: str) -> PromotionStage:
        """The strategy's current stage. Raises: `UnknownStrategy`."""
        return (await self.snapshot(strategy_id)).stage

    async def snapshot(self, strategy_id: str) -> PromotionSnapshot:
        """Stage, days in it, metrics, evaluation, and the last 20 changes."""
        return await self._ask(ReadSnapshot(strategy_id))

    async def strategies(self) -> tuple[PromotionSnapshot, ...]:
        """All strategies in the order of their names, without their history."""
        return await self._ask(ReadStrategies())

    async def history(
        self, strategy_id: str | None = None, limit: int = 50
    ) -> tuple[HistoryEntry, ...]:
        """Changes of one strategy, or of all of them, newest first."""
        return await self._ask(PromotionHistory(strategy_id, limit))


def _minor_of(budget: Amount | None) -> int | None:
    return None if budget is None else positive_minor(budget, "budget").minor
