"""The promotion door: the lifecycle of strategies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from fundops.actors.promotion import PromotionGate
from fundops.doors.door import Door
from fundops.moments import Instant, given_us, instant_us, known_us
from fundops.runtime import Ref
from fundops.wire.guard import Entitlement
from fundops.wire.money import Amount, fraction_of, positive_minor
from fundops.wire.promotion import (
    AddGate,
    Adopt,
    Approve,
    Demote,
    DiscardMetrics,
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
    ReadTerms,
    RecordMetrics,
    Register,
    Require,
    Retire,
    SetCap,
    StateAsOf,
    StrategyState,
    Transition,
    Void,
)

__all__ = ["PromotionDoor"]

BUDGET: Final = 100_000  # units of the currency; of a strategy that was registered without one
FOR_EVER_US: Final = 2**62  # a stage is no lease


class PromotionDoor(Door):
    """The lifecycle of strategies. Each method takes a strategy's id or its name."""

    def __init__(self, ref: Ref | None) -> None:
        super().__init__("promotion", "promotion_enabled=True", ref)

    async def register(
        self,
        strategy_name: str,
        initial_stage: PromotionStage = PromotionStage.Paper,
        *,
        family: str | None = None,
        budget: Amount | None = None,
        by: str = "operator",
    ) -> str:
        """Register a strategy and return its id; the same name again gives the same id.

        `family` names the idea of which it is a variant: its variants count as trials of one
        another. `budget` is its capital at full size, in units of the currency, of which each stage
        allows a part; None: the fund's capital.

        Raises: `SkipRefused` above shadow, `StrategyRetired`, `MetricError` for a name or `by`,
        `AmountError` for the budget; `Conflict` for another strategy's id, another family or
        another budget.
        """
        return await self._ask(
            Register(strategy_name, initial_stage, by, _minor_of(budget), family)
        )

    async def adopt(
        self,
        name: str,
        stage: PromotionStage,
        *,
        by: str,
        reason: str,
        family: str | None = None,
        budget: Amount | None = None,
        over_capital: bool = False,
    ) -> str:
        """Register a strategy that already trades, at any stage; returns its id.

        `family` and `budget` are as in `register`. With `over_capital` the capital of all
        strategies together may exceed `max_total_entitlement_pct`.

        Raises: `Conflict`, `StrategyRetired`, `CapitalExceeded`; `MetricError` for a name, `by`
        or `reason`; `AmountError` for the budget.
        """
        return await self._ask(
            Adopt(name, stage, by, reason, _minor_of(budget), over_capital, family)
        )

    async def record_metrics(
        self,
        strategy_id: str,
        stage: PromotionStage,
        metrics: Mapping[str, Any],
        *,
        as_of: Instant | None = None,
        source: str = "",
        cumulative_since: Literal["registration"] | None = None,
    ) -> None:
        """Record the metrics of the current stage so far.

        `returns` or `equity` is a list with one value for each session of the stage, from which
        Sharpe ratio and drawdown are measured. A measured value counts before a recorded one. Among
        records the newest `as_of` counts for each metric, and a worst value such as `max_drawdown`
        never falls. With `cumulative_since="registration"` counts and series began when the
        strategy was registered, and the part before this stage is left out: what was last recorded
        so in the stage before, or else all of the first record in this one.

        Raises: `MetricError` naming the field, `Conflict`.
        """
        as_of_us = instant_us("as_of", as_of)
        await self._ask(
            RecordMetrics(strategy_id, stage, metrics, as_of_us, source, cumulative_since)
        )

    async def discard_metrics(
        self, strategy_id: str, as_of: Instant, source: str, *, by: str, reason: str
    ) -> None:
        """Discard the records of one instant and source in this stage.

        The records are kept, with the person and the reason, and count no more.

        Raises: `MetricError` where there is none.
        """
        as_of_us = given_us("as_of", as_of)
        await self._ask(DiscardMetrics(strategy_id, as_of_us, source, by, reason))

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
        request_id: str | None = None,
        cap: float | None = None,
    ) -> Transition:
        """Promote one stage, if the gate passes now.

        `to` "live" is the next stage with real money. `cap` is the fraction of the budget that it
        may use there; None: all that the stage allows. A repeat with the same `request_id` gives
        the first outcome.

        Raises: `GateNotPassed` with the evaluation, `CapitalExceeded`, `CoolingDown`,
        `StrategyFrozen`, `StrategyRetired`, `SkipRefused`, `StaleRevision`; `Conflict` for a
        `request_id` that asked for something else; `MetricError` for the cap.
        """
        return await self._ask(Promote(strategy_id, to, by, reason, expected_rev, request_id, cap))

    async def approve(self, strategy_id: str, *, by: str, cap: float | None = None) -> Transition:
        """Carry out a promotion that is ready. The gate is evaluated again.

        `cap` is as in `promote`. The answer tells the step in real capital.

        Raises: as `promote`.
        """
        return await self._ask(Approve(strategy_id, by, cap))

    async def set_cap(self, strategy_id: str, cap: float, *, by: str, reason: str) -> None:
        """Set the fraction of the budget that a strategy may use for real in its stage.

        A lower one is possible at any time, a higher one up to the cap of the stage. It ends with
        the stage.

        Raises: `MetricError` for the cap, `CapitalExceeded`, `StrategyRetired`.
        """
        await self._ask(SetCap(strategy_id, cap, by, reason))

    async def demote(
        self,
        strategy_id: str,
        *,
        to: PromotionStage | None = None,
        by: str = "operator",
        reason: str = "",
        expected_rev: int | None = None,
    ) -> Transition:
        """Demote one stage, or to the lower stage `to`. It starts no cooldown.

        Raises: `SkipRefused`, `StaleRevision`, `StrategyRetired`.
        """
        return await self._ask(Demote(strategy_id, to, by, reason, expected_rev))

    async def void(self, transition_seq: int, *, by: str, reason: str) -> Transition:
        """Undo the newest transition of a strategy, once, by its number in the history.

        Stage, evidence, cooldown and the count of demotions are as before it. A record that caused
        a demotion is discarded.

        Raises: `Conflict` for any other line of history, `CapitalExceeded`, `StrategyRetired`;
        `MetricError` for `by` or `reason`.
        """
        return await self._ask(Void(transition_seq, by, reason))

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

    async def state_as_of(self, t: Instant) -> tuple[StrategyState, ...]:
        """All strategies as they were at an instant, in the order of their names."""
        at_us = known_us("t", t)
        return await self._ask(StateAsOf(at_us))

    # -- before a run

    async def add_gate(self, gate: PromotionGate) -> None:
        """Replace the gate of one transition. It is stored with the policy.

        Raises: `PolicyError` for a gate that makes no sense, `UnknownStage`.
        """
        await self._ask(AddGate(gate))

    async def require(self, strategy_id: str, *, at_least: PromotionStage) -> PromotionStage:
        """The current stage, if it is `at_least` that. Raises: `StageTooLow`, `UnknownStage`."""
        return await self._ask(Require(strategy_id, at_least))

    async def entitlement(self, strategy_id: str, budget: Amount | None = None) -> Entitlement:
        """Mode and capital of the current stage, of a full budget.

        A live stage has its part of the budget for real, paper and shadow have all of it as the
        notional that they trade with. Without `budget` it is the one that the strategy was
        registered with, or 100,000.

        Raises: `UnknownStrategy`, `AmountError` for the budget.
        """
        given_minor = _minor_of(budget)
        terms = await self._ask(ReadTerms(strategy_id))
        budget_minor = given_minor or terms.budget_minor or positive_minor(BUDGET).minor
        live = terms.mode == "live"
        fraction = terms.real_capital_fraction if live else terms.notional_fraction
        capital = fraction_of(budget_minor, fraction)
        opens = live and fraction > 0
        mode = "reduce" if live and not opens else terms.mode
        return Entitlement(terms.stage.value, mode, capital, FOR_EVER_US, opens, live)


def _minor_of(budget: Amount | None) -> int | None:
    return None if budget is None else positive_minor(budget, "budget").minor
