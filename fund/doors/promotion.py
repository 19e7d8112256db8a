"""The promotion door: the lifecycle of strategies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fundops.doors.door import Door
from fundops.moments import Instant, instant_us
from fundops.runtime import Ref
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
    """The lifecycle of strategies. A strategy may be named by its id or by its name."""

    def __init__(self, ref: Ref | None) -> None:
        super().__init__("promotion", "promotion_enabled=True", ref)

    async def register(
        self, strategy_name: str, initial_stage: PromotionStage = PromotionStage.Paper
    ) -> str:
        """The strategy's id; the same name again gives the same id."""
        return await self._ask(Register(strategy_name, initial_stage))

    async def adopt(self, name: str, stage: PromotionStage, *, actor: str, reason: str) -> str:
        """Take over a strategy that is already trading, at any stage."""
        return await self._ask(Adopt(name, stage, actor, reason))

    async def record_metrics(
        self,
        strategy_id: str,
        stage: PromotionStage,
        metrics: Mapping[str, Any],
        *,
        as_of: Instant | None = None,
        source: str = "",
    ) -> None:
        """Metrics of the running stage so far. Raises: `MetricError` naming the field, `Conflict`."""
        await self._ask(
            RecordMetrics(strategy_id, stage, metrics, instant_us("as_of", as_of), source)
        )

    async def evaluate(self, strategy_id: str) -> Evaluation:
        """What the rules say now; writes nothing."""
        return await self._ask(Evaluate(strategy_id))

    async def should_promote(self, strategy_id: str) -> bool:
        """Whether `promote` would go through now."""
        return (await self.evaluate(strategy_id)).would_do in ("promote", "ready")

    async def should_demote(self, strategy_id: str) -> bool:
        """Whether a hard limit is breached, or a soft one for long enough."""
        return (await self.evaluate(strategy_id)).would_do == "demote"

    async def promote(
        self,
        strategy_id: str,
        *,
        to: PromotionStage | None = None,
        actor: str = "operator",
        reason: str = "",
        expected_rev: int | None = None,
    ) -> Transition:
        """One stage up, on a current PASS. Raises: `GateNotPassed` with the evaluation, and other refusals."""
        return await self._ask(Promote(strategy_id, to, actor, reason, expected_rev))

    async def demote(
        self,
        strategy_id: str,
        *,
        to: PromotionStage | None = None,
        actor: str = "operator",
        reason: str = "",
        expected_rev: int | None = None,
    ) -> Transition:
        """One stage down, or to the lower one named."""
        return await self._ask(Demote(strategy_id, to, actor, reason, expected_rev))

    async def freeze(self, strategy_id: str, *, actor: str = "operator", reason: str = "") -> None:
        """No promotion until unfrozen; demotion still works."""
        await self._ask(Freeze(strategy_id, True, actor, reason))

    async def unfreeze(
        self, strategy_id: str, *, actor: str = "operator", reason: str = ""
    ) -> None:
        await self._ask(Freeze(strategy_id, False, actor, reason))

    async def retire(self, strategy_id: str, *, actor: str = "operator", reason: str = "") -> None:
        """For good."""
        await self._ask(Retire(strategy_id, actor, reason))

    async def current_stage(self, strategy_id: str) -> PromotionStage:
        return (await self.snapshot(strategy_id)).stage

    async def snapshot(self, strategy_id: str) -> PromotionSnapshot:
        """Stage, days in it, metrics, evaluation, and the last 20 lines of history."""
        return await self._ask(ReadSnapshot(strategy_id))

    async def strategies(self) -> tuple[PromotionSnapshot, ...]:
        """All of them, by name, without their history."""
        return await self._ask(ReadStrategies())

    async def history(
        self, strategy_id: str | None = None, limit: int = 50
    ) -> tuple[HistoryEntry, ...]:
        """Newest first."""
        return await self._ask(PromotionHistory(strategy_id, limit))
