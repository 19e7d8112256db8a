"""Promotion in a whole fund: evidence of one stage alone, and a bound on what all may trade with.

Each test is a way in which a fund once promoted, demoted or entitled a strategy wrongly.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fundops import (
    ConfigError,
    FundConfig,
    PromotionManager,
    PromotionPolicy,
    PromotionStage,
    policy_of,
)
from fundops.actors.alert import told_keys
from fundops.actors.persistence import Reader
from fundops.actors.promotion import desk, evaluation, evidence
from fundops.fund import Fund
from fundops.runtime import VirtualClock
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.controller import StrategyStatus
from fundops.wire.errors import (
    AmountError,
    CapitalExceeded,
    Conflict,
    GateNotPassed,
    MetricError,
    PolicyError,
    PromotionDefect,
    StrategyRetired,
    UnknownStrategy,
)

P = PromotionStage
DAYS = [f"2026-{1 + day // 28:02}-{1 + day % 28:02}" for day in range(336)]
PROMO: dict[str, Any] = {"promotion_enabled": True}
GOOD = {"sharpe": 1.2, "max_drawdown": 0.08, "n_trades": 150}
ALL_GOOD = {"sharpe": 3.0, "max_drawdown": 0.01, "n_trades": 100, "win_rate": 0.6}


def _controller(**figures: Any) -> FakeController:
    fields = {"equity": 1000, "allocated": 1000, **figures}
    return FakeController(StrategyStatus("s", "running", **fields))


async def _adopt(world: VirtualFund, stage: PromotionStage, name: str = "s", **more: Any) -> str:
    return await world.fund.promotion.adopt(name, stage, by="ann", reason="it trades", **more)


async def _days(world: VirtualFund, first: int, equities: Sequence[float], **figures: Any) -> None:
    """One session a day, each ending at one of these equities."""
    for number, equity in enumerate(equities, start=first):
        world.controller.set("s", equity=equity, **figures)
        world.clock.advance(86_400)
        await world.tick(DAYS[number])


async def _ticks(world: VirtualFund, count: int = 1) -> None:
    for _ in range(count):
        world.clock.advance(1)
        await world.tick()


async def _stage(world: VirtualFund, name: str = "s") -> PromotionStage:
    return await world.fund.promotion.current_stage(name)


# -- a figure without the base of its interval


async def test_profits_and_trades_before_registration_are_no_evidence() -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        world.controller.set("s", stage="paper", equity=1500, n_trades=5000, n_wins=3000)
        await world.fund.promotion.register("s")
        await _ticks(world)
        await _days(world, 0, [1500 + (-1) ** day for day in range(16)])
        world.clock.advance(60)
        await _ticks(world, 60)
        snapshot = await world.fund.promotion.snapshot("s")
        assert snapshot.stage is P.Paper
        assert snapshot.metrics["n_trades"] == 0
        assert abs(snapshot.metrics["sharpe"]) < 1


async def test_the_profit_of_paper_is_no_evidence_in_shadow() -> None:
    async with virtual_fund(_controller(), min_trades=0, min_sharpe=-99, **PROMO) as world:
        await world.fund.promotion.register("s")
        await _ticks(world)
        path = [1000 * 1.2 ** (day / 14) + (day % 2) for day in range(1, 15)]
        await _days(world, 0, path)
        assert await _stage(world) is P.Shadow
        await _days(world, 14, [1200 + 0.01 * (-1) ** day for day in range(20)])
        sharpe = (await world.fund.promotion.snapshot("s")).metrics["sharpe"]
        assert abs(sharpe) < 1


async def test_a_loss_before_adoption_demotes_no_one() -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        await _adopt(world, P.Live_Scaled)
        await _days(world, 0, [900, 900, 900], allocated=1000)
        assert await _stage(world) is P.Live_Scaled


async def test_one_loss_demotes_once() -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        await _adopt(world, P.Live_Scaled)
        await _ticks(world)
        await _days(world, 0, [700] * 5)
        snapshot = await world.fund.promotion.snapshot("s")
        assert snapshot.stage is P.Shadow
        assert snapshot.cooldown_until == START_US + 1_000_000 + 86_400_000_000 * 31


@pytest.mark.parametrize(("equity", "stage"), [(951, P.Live_Scaled), (940, P.Shadow)])
async def test_a_hard_limit_holds_within_the_session(equity: int, stage: PromotionStage) -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        await _adopt(world, P.Live_Scaled)
        await _ticks(world)
        world.controller.set("s", equity=equity)
        await _ticks(world)
        assert await _stage(world) is stage


@pytest.mark.parametrize(("equity", "stage"), [(1141, P.Live_Small), (1140, P.Shadow)])
async def test_the_first_session_of_an_adopted_strategy_has_its_limit(
    equity: int, stage: PromotionStage
) -> None:
    async with virtual_fund(_controller(equity=1200), **PROMO) as world:
        await _adopt(world, P.Live_Small)
        await _ticks(world)
        world.controller.set("s", equity=equity)
        await _ticks(world)
        assert await _stage(world) is stage


async def test_a_count_that_restarts_in_a_new_stage_is_never_negative() -> None:
    async with virtual_fund(
        _controller(n_trades=60, n_wins=40), min_sharpe=-99, min_paper_days=0, **PROMO
    ) as world:
        await world.fund.promotion.register("s", P.Shadow)
        await _ticks(world)
        world.controller.set("s", n_trades=3, n_wins=1)
        await _days(world, 0, [1001])
        metrics = (await world.fund.promotion.snapshot("s")).metrics
        assert metrics["n_trades"] == 3
        assert metrics["win_rate"] == pytest.approx(1 / 3)


async def test_new_capital_does_not_hide_a_fall_of_the_same_session() -> None:
    async with virtual_fund(_controller(equity=100, allocated=100), **PROMO) as world:
        await world.fund.promotion.register("s")
        await _ticks(world)
        world.controller.set("s", equity=50)
        await _ticks(world)
        await _days(world, 0, [9950], allocated=10_000)
        metrics = (await world.fund.promotion.snapshot("s")).metrics
        assert metrics["max_drawdown"] == pytest.approx(0.5)


async def test_a_fall_at_noon_counts_though_the_close_recovers() -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        await world.fund.promotion.register("s")
        await _ticks(world)
        for day in range(3):
            world.controller.set("s", equity=400)
            await _ticks(world)
            await _days(world, day, [1000])
        metrics = (await world.fund.promotion.snapshot("s")).metrics
        assert metrics["max_drawdown"] == pytest.approx(0.6)


async def test_an_engine_in_the_former_stage_is_no_base_of_the_new_one() -> None:
    settings = {**PROMO, "min_paper_days": 0, "min_trades": 0, "min_sharpe": -99}
    async with virtual_fund(_controller(equity=100_000, allocated=100_000), **settings) as world:
        await world.fund.promotion.register("s", P.Shadow)
        world.controller.set("s", stage="shadow")
        await _ticks(world)
        await _days(world, 0, [100_500, 101_200])
        await world.fund.promotion.promote("s")
        # The engine was asked, and its report is still that of shadow.
        world.controller.set("s", stage="shadow", capital_cap=None)
        world.controller.failures["set_stage"] = RuntimeError("later")
        await _ticks(world)
        world.controller.failures.clear()
        world.controller.set("s", stage="live-small", equity=1000, allocated=1000)
        await _ticks(world, 3)
        assert await _stage(world) is P.Live_Small


async def test_the_base_of_an_episode_outlives_a_crash(tmp_path: Path) -> None:
    clock = VirtualClock(START_US)
    config = FundConfig(
        total_capital=100_000, db_path=tmp_path / "f.db", tick_interval_s=None, **PROMO
    )
    controller = _controller(n_trades=7, n_wins=3)
    async with Fund.open(config, controller, clock=clock) as fund:
        await fund.promotion.register("s")
        await fund.tick()
    controller.set("s", equity=1100, n_trades=9, n_wins=4)
    clock.advance(60)
    async with Fund.open(config, controller, clock=clock) as fund:
        await fund.tick(DAYS[0])
        metrics = (await fund.promotion.snapshot("s")).metrics
        assert (metrics["n_trades"], metrics["win_rate"]) == (2, 0.5)


# -- sources of one fact


async def test_a_measured_value_beats_a_recorded_one_and_shows_it() -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        await world.fund.promotion.register("s")
        await _ticks(world)
        await _days(world, 0, [990, 985, 970, 969])
        await world.fund.promotion.record_metrics("s", P.Paper, {"sharpe": 3.0})
        evaluation = await world.fund.promotion.evaluate("s")
        sharpe = next(line for line in evaluation.criteria if line.name == "min_sharpe")
        assert sharpe.observed is not None
        assert sharpe.observed < 0
        assert (sharpe.source, sharpe.recorded, sharpe.verdict) == ("measured", 3.0, "FAIL")


async def test_a_recorded_fall_stands_beside_a_measured_calm() -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        await world.fund.promotion.register("s")
        await _ticks(world)
        await world.fund.promotion.record_metrics("s", P.Paper, {"max_drawdown": 0.5})
        await _days(world, 0, [1000, 1001])
        assert (await world.fund.promotion.snapshot("s")).metrics["max_drawdown"] == 0.5


async def _after_evidence(world: VirtualFund, *records: tuple[dict[str, float], int]) -> bool:
    """Whether it may be promoted after these records, each as of so many seconds ago."""
    await world.fund.promotion.register("s")
    world.clock.advance(20 * 86_400)
    for metrics, ago_s in records:
        at = dt.datetime.fromtimestamp(world.clock.now_us() // 1_000_000 - ago_s, dt.UTC)
        await world.fund.promotion.record_metrics("s", P.Paper, metrics, as_of=at)
    return await world.fund.promotion.should_promote("s")


@pytest.mark.parametrize(
    ("records", "passes"),
    [
        ([(ALL_GOOD, 0)], True),
        ([({"sharpe": 0.1, "max_drawdown": 0.30}, 0), (ALL_GOOD, 3_600)], False),
        ([(ALL_GOOD, 0), (ALL_GOOD, 4 * 86_400)], True),
        ([(ALL_GOOD, 4 * 86_400)], False),
        ([({**ALL_GOOD, "max_drawdown": 0.5}, 1), ({"max_drawdown": 0.01}, 0)], False),
        ([({**ALL_GOOD, "max_drawdown": 0.5}, 3_600), (ALL_GOOD, 0)], False),
        ([(ALL_GOOD, 0), ({"max_drawdown": 0.5}, 3_600)], False),
    ],
)
async def test_of_several_records_the_newest_counts_and_the_worst_fall(
    records: list[tuple[dict[str, float], int]], passes: bool
) -> None:
    async with virtual_fund(FakeController(), **PROMO) as world:
        assert await _after_evidence(world, *records) is passes


async def test_a_recorded_daily_loss_demotes_at_the_next_tick() -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        await _adopt(world, P.Live_Small)
        await world.fund.promotion.record_metrics("s", P.Live_Small, {"daily_loss": 0.049})
        await _ticks(world)
        assert await _stage(world) is P.Live_Small
        await world.fund.promotion.record_metrics("s", P.Live_Small, {"daily_loss": 0.05})
        assert await world.fund.promotion.should_demote("s")
        await _ticks(world)
        assert await _stage(world) is P.Shadow


# -- values from outside


class Whole:
    """A whole number of another library, as numpy's are."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value

    def __float__(self) -> float:
        return float(self.value)


async def test_numbers_of_another_library_are_sampled() -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        await world.fund.promotion.register("s")
        await _ticks(world)
        await _days(world, 0, [1001], n_trades=Whole(60), n_wins=Whole(30))
        assert (await world.fund.promotion.snapshot("s")).metrics["n_trades"] == 60


async def test_numbers_of_another_library_can_be_recorded() -> None:
    class Index:
        def __index__(self) -> int:
            return 60

    class Float32:
        def __float__(self) -> float:
            return 0.5

    async with virtual_fund(_controller(), **PROMO) as world:
        await world.fund.promotion.register("s")
        given = {"n_trades": Index(), "win_rate": Float32(), "max_drawdown": Decimal("0.1")}
        await world.fund.promotion.record_metrics("s", P.Paper, given)
        metrics = (await world.fund.promotion.snapshot("s")).metrics
        assert metrics == {"n_trades": 60, "win_rate": 0.5, "max_drawdown": 0.1}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("daily_loss", 6.0),
        ("daily_loss", -0.06),
        ("tracking_error", -1),
        ("tracking_error", Decimal("-0.1")),
        ("max_drawdown", 8),
        ("win_rate", 45),
        ("n_trades", 1.5),
        ("n_trades", True),
        ("fills", -1),
        ("fills", 1.5),
        ("sharpe", "1"),
        ("sharpe", float("nan")),
        ("other", float("inf")),
    ],
)
async def test_a_metric_that_cannot_be_true_is_refused_by_name(field: str, value: Any) -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        await world.fund.promotion.register("s")
        with pytest.raises(MetricError) as refusal:
            await world.fund.promotion.record_metrics("s", P.Paper, {field: value, "sharpe_2": 1})
        assert refusal.value.field == field
        assert (await world.fund.promotion.snapshot("s")).metrics == {}


@pytest.mark.parametrize("source", [None, 5, "\ud800", "x" * 1_025])
async def test_a_source_that_cannot_be_kept_is_refused_by_name(source: Any) -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        await world.fund.promotion.register("s")
        with pytest.raises(MetricError, match="source"):
            await world.fund.promotion.record_metrics("s", P.Paper, {"sharpe": 1}, source=source)


@pytest.mark.parametrize("rev", ["1", Decimal("sNaN"), -1, 1.5])
async def test_a_revision_that_is_no_number_is_refused_by_name(rev: Any) -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        await world.fund.promotion.register("s")
        for move in (world.fund.promotion.promote, world.fund.promotion.demote):
            with pytest.raises(MetricError, match="expected_rev"):
                await move("s", expected_rev=rev)


async def test_a_history_longer_than_any_file_is_clamped() -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        await world.fund.promotion.register("s")
        assert len(await world.fund.promotion.history(limit=10**30)) == 1


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("by", {"by": None}),
        ("by", {"by": " "}),
        ("by", {"by": "a\ud800"}),
        ("reason", {"reason": None}),
        ("reason", {"reason": " "}),
        ("reason", {"reason": "\ud800"}),
        ("budget", {"budget": 0}),
        ("budget", {"budget": "much"}),
        ("strategy_name", {"name": "s "}),
        ("strategy_name", {"name": " s"}),
    ],
)
async def test_an_adoption_refuses_a_wrong_field_by_name(field: str, more: dict[str, Any]) -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        given: dict[str, Any] = {"name": "s", "by": "ann", "reason": "it trades", **more}
        with pytest.raises((MetricError, AmountError)) as refusal:
            await world.fund.promotion.adopt(given.pop("name"), P.Live_Small, **given)
        assert isinstance(refusal.value, MetricError | AmountError)
        assert refusal.value.field == field
        assert await world.fund.promotion.strategies() == ()


async def test_no_wrong_text_stops_a_demotion() -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        await _adopt(world, P.Live_Scaled)
        await world.fund.promotion.demote("s", by=None, reason="\ud800")  # type: ignore[arg-type]
        await world.fund.promotion.retire("s", by=5, reason=None)  # type: ignore[arg-type]
        assert await _stage(world) is P.Retired
        with pytest.raises(MetricError, match="by"):
            await world.fund.promotion.unfreeze("s", by="")


# -- names


@pytest.mark.parametrize("name", [[], {}, None, 5])
async def test_a_name_that_is_no_text_is_unknown_and_crashes_no_actor(name: Any) -> None:
    async with virtual_fund(promotion_enabled=True) as world:
        promotion = world.fund.promotion
        for act in (promotion.freeze, promotion.demote, promotion.retire):
            with pytest.raises(UnknownStrategy):
                await act(name, by="ann", reason="r")
        assert world.fund._supervisor.ref("promotion").epoch == 1


async def test_a_name_is_one_strategy_for_ever() -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        promotion = world.fund.promotion
        identity = await promotion.register("s")
        assert await promotion.register("s") == identity
        with pytest.raises(Conflict, match="is the id of s"):
            await promotion.register(identity)
        with pytest.raises(Conflict, match="is the id of s"):
            await _adopt(world, P.Live_Small, identity)
        with pytest.raises(MetricError, match="space"):
            await promotion.register("s ")
        await promotion.retire("s")
        with pytest.raises(StrategyRetired):
            await promotion.register("s")
        with pytest.raises(StrategyRetired):
            await _adopt(world, P.Live_Small)


async def test_freezing_twice_is_one_line_of_history() -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        promotion = world.fund.promotion
        await promotion.register("s")
        for _ in range(2):
            await promotion.freeze("s", by="ann")
        for _ in range(2):
            await promotion.unfreeze("s", by="ann")
        kinds = [line.kind for line in await promotion.history()]
        assert kinds == ["unfreeze", "freeze", "register"]


# -- capital


async def test_the_capital_of_all_strategies_together_is_bounded() -> None:
    async with virtual_fund(FakeController(), **PROMO) as world:
        await _adopt(world, P.Live_Scaled, "a")
        with pytest.raises(CapitalExceeded, match=r"b in live-scaled .* 100,000.00; .* leave 0.00"):
            await _adopt(world, P.Live_Scaled, "b")
        await _adopt(world, P.Shadow, "c")
        await _adopt(world, P.Live_Scaled, "b", over_capital=True)
        with pytest.raises(CapitalExceeded):
            await _adopt(world, P.Live_Small, "d", budget="0.01")
        await world.fund.promotion.demote("a", to=P.Shadow)
        with pytest.raises(CapitalExceeded):
            await _adopt(world, P.Live_Small, "d")


def _five() -> tuple[list[str], FakeController]:
    names = [f"s{number}" for number in range(5)]
    figures: dict[str, Any] = {"equity": 1, "stage": "live-small", "capital_cap": 1000}
    engine = (StrategyStatus(name, "running", **figures) for name in names)
    return names, FakeController(*engine)


async def test_a_looser_policy_never_entitles_all_to_more_than_the_bound(tmp_path: Path) -> None:
    names, controller = _five()
    settings: dict[str, Any] = {"db_path": tmp_path / "fund.db", **PROMO}
    clock = VirtualClock(START_US)
    async with virtual_fund(controller, clock=clock, **settings) as world:
        for name in names:
            clock.advance(1)
            await _adopt(world, P.Live_Small, name)
    whole = PromotionPolicy.from_toml("[stages.live-small]\nreal_capital_cap = 0.4\n")
    async with virtual_fund(controller, clock=clock, promotion=whole, **settings) as world:
        fund = world.fund
        await _ticks(world, 3)
        capitals = [fund.entitlement(name).capital for name in names]
        assert capitals == [40_000, 40_000, 0, 0, 0]
        assert [fund.may_trade(name) for name in names] == [True, True, False, False, False]
        assert fund.may_close("s4")
        assert "no room" in fund.entitlement("s4").why
        assert [controller.statuses[name].capital_cap for name in names] == capitals
        assert (await fund.promotion.snapshot("s4")).cap == 0
        assert not (await fund.promotion.entitlement("s4")).may_open
        told = [alert for alert in world.sent_alerts() if "more than" in alert.title]
        assert [alert.level.value for alert in told] == ["CRITICAL"]
        assert "200,000.00 of 100,000.00" in told[0].message
        assert "Stopped: s2, s3, s4." in told[0].message

        await fund.promotion.demote("s0", to=P.Shadow)
        await _ticks(world, 3)
        assert [fund.may_trade(name) for name in names[1:]] == [True, True, False, False]
        await fund.promotion.set_cap("s3", 0.1, by="ann", reason="it fits")
        await _ticks(world)
        await fund.promotion.retire("s4")
        await _ticks(world, 3)
        assert [fund.may_trade(name) for name in names[1:]] == [True, True, True, False]
        assert any(alert.message.startswith("130,000.00 of") for alert in world.sent_alerts())
        assert world.sent_alerts()[-1].title.endswith("counted anew: they fit")
    manager = PromotionManager(settings["db_path"], clock=clock)
    assert manager.entitlement("s3").may_open


async def test_an_adoption_that_was_allowed_beyond_the_bound_opens_after_a_restart(
    tmp_path: Path,
) -> None:
    names, controller = _five()
    settings: dict[str, Any] = {"db_path": tmp_path / "fund.db", **PROMO}
    clock = VirtualClock(START_US)
    async with virtual_fund(controller, clock=clock, **settings) as world:
        for name in names[:4]:
            await _adopt(world, P.Live_Small, name)
        await _adopt(world, P.Live_Scaled, "s4", over_capital=True)
    for pct, open_ones in ((100.0, names), (3.0, names[:3])):
        settings["max_total_entitlement_pct"] = pct
        async with virtual_fund(controller, clock=clock, **settings) as world:
            await _ticks(world, 3)
            assert [name for name in names if world.fund.may_trade(name)] == open_ones


@pytest.mark.parametrize("stays", [True, False], ids=["b stays", "b leaves"])
@pytest.mark.parametrize(
    ("pct", "opens"), [(100.0, True), (150.0, True), (99.9, False), (50.0, False), (1.0, False)]
)
async def test_what_was_allowed_beyond_one_bound_is_not_allowed_beyond_a_lower_one(
    tmp_path: Path, stays: bool, pct: float, opens: bool
) -> None:
    figures: dict[str, Any] = {"equity": 1, "stage": "live-scaled", "capital_cap": 100_000}
    controller = FakeController(*(StrategyStatus(name, "running", **figures) for name in "ab"))
    settings: dict[str, Any] = {"db_path": tmp_path / "fund.db", **PROMO}
    clock = VirtualClock(START_US)
    async with virtual_fund(controller, clock=clock, **settings) as world:
        await _adopt(world, P.Live_Scaled, "b")
        clock.advance(1)
        await _adopt(world, P.Live_Scaled, "a", over_capital=True)
        if not stays:
            await world.fund.promotion.demote("b", to=P.Shadow)
    settings["max_total_entitlement_pct"] = pct
    async with virtual_fund(controller, clock=clock, **settings) as world:
        await _ticks(world, 3)
        assert world.fund.may_trade("a") is opens
        assert world.fund.entitlement("a").capital == (100_000 if opens else 0)
        told = [alert for alert in world.sent_alerts() if "more than" in alert.title]
        assert bool(told) is not opens


async def test_without_a_bound_every_strategy_may_have_all_capital() -> None:
    async with virtual_fund(FakeController(), max_total_entitlement_pct=None, **PROMO) as world:
        for name in "abcde":
            await _adopt(world, P.Live_Scaled, name)


async def test_a_promotion_beyond_the_capital_waits_and_says_the_figures() -> None:
    settings = {**PROMO, "promotion_policy": "literal", "min_paper_days": 0}
    async with virtual_fund(FakeController(), **settings) as world:
        promotion = world.fund.promotion
        await _adopt(world, P.Live_Scaled, "a", budget=60_000)
        await _adopt(world, P.Live_Small, "b", budget="40000.01")
        world.controller.set("b", equity=None)
        await promotion.record_metrics("b", P.Live_Small, GOOD)
        evaluation = await promotion.evaluate("b")
        assert (evaluation.verdict, evaluation.would_do) == ("PASS", "none")
        assert evaluation.blocked_by == (
            "capital: 40,000.01 wanted, the other strategies leave 40,000.00",
        )
        assert not await promotion.should_promote("b")
        with pytest.raises(CapitalExceeded):
            await promotion.promote("b")
        await _ticks(world, 60)
        assert await _stage(world, "b") is P.Live_Small
        await promotion.retire("a")
        await promotion.record_metrics("b", P.Live_Small, GOOD)
        assert (await promotion.promote("b")).to_stage is P.Live_Scaled


async def test_two_that_pass_in_one_look_share_the_room_that_is_left() -> None:
    settings = {**PROMO, "promotion_policy": "literal", "min_paper_days": 0}
    controller = FakeController(StrategyStatus("a", "running"), StrategyStatus("b", "running"))
    async with virtual_fund(controller, promotion_every_ticks=1, **settings) as world:
        for name in "ab":
            await _adopt(world, P.Live_Small, name, budget=60_000)
            await world.fund.promotion.record_metrics(name, P.Live_Small, GOOD)
        await _ticks(world)
        stages = {await _stage(world, name) for name in "ab"}
        assert stages == {P.Live_Small, P.Live_Scaled}


async def test_a_budget_is_the_capital_that_a_stage_is_a_part_of() -> None:
    controller = FakeController(StrategyStatus("a", "running"), StrategyStatus("b", "running"))
    async with virtual_fund(controller, **PROMO) as world:
        await _adopt(world, P.Live_Scaled, "a", budget="33333.33333333")
        await _adopt(world, P.Live_Small, "b", budget="33333.33333333")
        await _ticks(world, 2)
        entitled = {name: world.fund.entitlement(name).capital for name in "ab"}
        assert entitled == {"a": Decimal("33333.33333333"), "b": Decimal("333.33333333")}
        await world.fund.promotion.demote("a")
        assert ("set_stage", "a", "live-small", Decimal("333.33333333")) in controller.calls
        with pytest.raises(Conflict, match="another budget"):
            await world.fund.promotion.register("a", budget=5)


# -- alerts


async def test_changes_in_the_file_of_a_stopped_fund_are_told_at_its_start(tmp_path: Path) -> None:
    controller, path = _controller(stage="shadow", equity=None), tmp_path / "fund.db"
    clock = VirtualClock(START_US)
    settings: dict[str, Any] = {"db_path": path, "clock": clock, "promotion_every_ticks": 1}
    settings |= {"min_paper_days": 0, **PROMO}
    async with virtual_fund(controller, **settings) as world:
        await _adopt(world, P.Live_Scaled, "a", budget=50_000)
        await world.fund.promotion.register("s", P.Shadow)
        await world.fund.promotion.record_metrics("s", P.Shadow, ALL_GOOD)
        await _ticks(world, 2)
        assert world.sent_alerts()[-1].title == "s is ready for live-small"
    manager = PromotionManager(path, clock=clock)
    manager.demote("a", by="ann", reason="it loses")
    manager.retire("s", by="ann", reason="it is old")
    async with virtual_fund(controller, **settings) as world:
        await _ticks(world, 2)
        told = {(alert.level.value, alert.title) for alert in world.sent_alerts()}
    assert ("CRITICAL", "a demoted to live-small") in told
    assert ("INFO", "s is no longer ready for more real money") in told
    with Reader(path) as reader:
        assert told_keys(reader, "promotion:") == set()


def test_a_file_without_a_fund_asks_for_no_alerts(tmp_path: Path) -> None:
    manager = PromotionManager(tmp_path / "p.db", clock=VirtualClock(START_US))
    manager.adopt("a", P.Live_Scaled, by="ann", reason="it trades")
    manager.demote("a", by="ann", reason="it loses")
    with Reader(tmp_path / "p.db") as reader:
        assert reader.rows("SELECT * FROM alert_request") == []


async def test_a_demotion_from_real_money_is_heard_after_six_promotions() -> None:
    names = [f"s{number}" for number in range(6)]
    controller = FakeController(
        StrategyStatus("s", "running", equity=1000, allocated=1000),
        *(StrategyStatus(name, "running") for name in names),
    )
    async with virtual_fund(
        controller, min_paper_days=0, promotion_every_ticks=1, **PROMO
    ) as world:
        await _adopt(world, P.Live_Scaled)
        for name in names:
            await world.fund.promotion.register(name)
            await world.fund.promotion.record_metrics(name, P.Paper, GOOD)
        assert (await world.tick()).promotions == 6
        world.clock.advance(10)
        world.controller.set("s", equity=700)
        await world.tick()
        (alert,) = [
            alert
            for alert in world.sent_alerts()
            if alert.category.value == "PROMOTION" and alert.level.value == "CRITICAL"
        ]
        assert alert.title == "s demoted to shadow"


async def test_many_that_lose_real_money_at_once_are_named_in_one_alert() -> None:
    names = [f"s{number}" for number in range(9)]
    controller = FakeController(
        *(StrategyStatus(name, "running", equity=100, allocated=100) for name in names)
    )
    async with virtual_fund(controller, **PROMO) as world:
        for name in names:
            await _adopt(world, P.Live_Scaled, name, budget=10_000)
        await _ticks(world)
        for name in names:
            world.controller.set(name, equity=90)
        await _ticks(world)
        (alert,) = [
            alert
            for alert in world.sent_alerts()
            if alert.category.value == "PROMOTION" and alert.level.value == "CRITICAL"
        ]
        assert alert.title == "9 strategies demoted from real money"
        assert all(name in alert.message for name in names)


# -- a ladder without the stage


async def test_a_ladder_without_a_strategys_stage_is_refused_before_any_actor_starts(
    tmp_path: Path,
) -> None:
    path = tmp_path / "f.db"
    manager = PromotionManager(path)
    manager.adopt("mm", P.Live_Small, by="ann", reason="it trades")
    manager.adopt("old", P.Live_Small, by="ann", reason="it trades")
    manager.retire("old")
    config = FundConfig(
        total_capital=100_000,
        db_path=path,
        tick_interval_s=None,
        promotion_ladder="three-stage",
        **PROMO,
    )
    with pytest.raises(PolicyError, match="mm is in live-small") as refusal:
        async with Fund.open(config, FakeController()):
            pass
    assert refusal.value.field == "promotion_ladder"
    with pytest.raises(PolicyError, match="mm is in live-small"):
        PromotionManager(path, policy=policy_of(ladder="three-stage"))


# -- sessions


async def test_a_session_that_ends_twice_is_sampled_once() -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        await world.fund.promotion.register("s")
        await _ticks(world)
        await _days(world, 1, [1100])
        for day, equity in ((0, 600), (1, 600), (0, 1000)):  # a clock that steps back
            await _days(world, day, [equity])
        snapshot = await world.fund.promotion.snapshot("s")
        assert "sharpe" not in snapshot.metrics
        assert (await world.tick()).failed == ()
        await _days(world, 2, [1100])
        assert "sharpe" in (await world.fund.promotion.snapshot("s")).metrics


@pytest.mark.parametrize(("short_us", "verdict"), [(43, "FAIL"), (0, "PASS")])
async def test_days_in_a_stage_are_compared_in_microseconds(short_us: int, verdict: str) -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        await world.fund.promotion.register("s")
        world.clock.advance_to(START_US + 14 * 86_400_000_000 - short_us)
        evaluation = await world.fund.promotion.evaluate("s")
        [days] = [line for line in evaluation.criteria if line.name == "min_days"]
        assert days.verdict == verdict


async def test_fridays_value_is_fresh_on_monday_and_stale_after_two_sessions() -> None:
    settings = {**PROMO, "min_paper_days": 0, "min_trades": 0, "min_sharpe": -99}
    async with virtual_fund(_controller(), **settings) as world:
        await world.fund.promotion.register("s")
        await world.fund.promotion.freeze("s")  # or a session's end would promote it
        await _ticks(world)
        await _days(world, 0, [1001, 1003])
        world.clock.advance(65 * 3_600)
        assert (await world.fund.promotion.evaluate("s")).verdict == "PASS"
        world.controller.failures["strategies"] = RuntimeError("silent")
        world.clock.advance(7 * 3_600)
        await world.tick(DAYS[2])
        assert (await world.fund.promotion.evaluate("s")).verdict == "PASS"
        world.clock.advance(86_400)
        await world.tick(DAYS[3])
        evaluation = await world.fund.promotion.evaluate("s")
        assert evaluation.verdict == "INCONCLUSIVE"
        reasons = {line.reason for line in evaluation.criteria if line.reason}
        assert reasons == {"stale: 2 sessions ended since"}


# -- figures beyond all reason


async def test_an_equity_below_the_smallest_amount_stops_no_other_strategy() -> None:
    fake = FakeController(
        StrategyStatus("s", "running", equity=1e-60, allocated=1000),
        StrategyStatus("o", "running", equity=1000, allocated=1000),
    )
    async with virtual_fund(fake, promotion_enabled=True) as world:
        await world.fund.promotion.register("s")
        await _adopt(world, PromotionStage.Live_Small, "o")
        await _ticks(world, 2)
        fake.set("s", equity=1000)
        fake.set("o", equity=500)
        world.clock.advance(86_400)
        report = await world.tick()
        assert (report.failed, len(report.sessions)) == ((), 1)
        assert await _stage(world, "o") is PromotionStage.Shadow


async def test_no_recorded_figure_of_a_family_stops_a_hard_limit_of_another() -> None:
    names = ("a", "b", "o")
    fake = FakeController(
        *(StrategyStatus(name, "running", equity=1000, allocated=1000) for name in names)
    )
    async with virtual_fund(fake, promotion_enabled=True) as world:
        await _adopt(world, PromotionStage.Live_Small, "o")
        for name, sharpe in (("a", 1e50), ("b", -1e50)):
            await world.fund.promotion.register(name, family="f")
            await world.fund.promotion.record_metrics(
                name, PromotionStage.Paper, {"sharpe": sharpe}
            )
        await _ticks(world, 2)
        fake.set("o", equity=500)
        await _ticks(world)
        assert await _stage(world, "o") is PromotionStage.Shadow


@pytest.mark.parametrize("at", [2**70, -(2**70), -1])
async def test_an_instant_that_no_file_can_hold_is_refused_by_name(at: int) -> None:
    async with virtual_fund(_controller(), promotion_enabled=True) as world:
        with pytest.raises(ConfigError, match=r"^t: .* is no time from the year 1970 to 9999$"):
            await world.fund.promotion.state_as_of(at)


# -- losses that a base does not show


@pytest.mark.parametrize(("after", "later"), [(1_000, 940), (-4_000, -4_001)])
async def test_capital_cut_below_the_losses_leaves_the_hard_limits_on(
    after: int, later: int
) -> None:
    fake = _controller(equity=100_000, allocated=100_000, stage="live-scaled")
    async with virtual_fund(fake, promotion_enabled=True) as world:
        await _adopt(world, PromotionStage.Live_Scaled)
        await _ticks(world, 2)
        await _days(world, 0, (98_000, 97_000, 96_000, 95_000))
        await world.fund.promotion.set_cap("s", 0.01, by="ann", reason="smaller")
        fake.set("s", allocated=1_000, equity=after)
        await _ticks(world, 2)
        world.clock.advance(86_400)
        await world.tick(DAYS[4])
        await _ticks(world, 2)
        assert await _stage(world) is PromotionStage.Live_Scaled
        fake.set("s", equity=later)
        await _ticks(world)
        assert await _stage(world) is PromotionStage.Shadow


async def test_a_loss_that_brings_the_pnl_of_a_run_to_zero_is_no_new_run() -> None:
    fake = _controller(realized_pnl=0, n_trades=5, run="r1")
    async with virtual_fund(fake, promotion_enabled=True) as world:
        await _adopt(world, PromotionStage.Live_Small)
        await _ticks(world, 2)
        fake.set("s", equity=1_500, realized_pnl=500, n_trades=6)
        await _ticks(world, 2)
        fake.set("s", equity=1_000, realized_pnl=0, n_trades=7)
        await _ticks(world)
        assert await _stage(world) is PromotionStage.Shadow


# -- a clock that has jumped


class SteppedClock(VirtualClock):
    """A wall clock that can be set while monotonic time goes on."""

    stepped_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.stepped_us


async def test_a_person_promotes_nothing_while_the_clock_is_suspect() -> None:
    clock = SteppedClock(START_US)
    async with virtual_fund(_controller(stage="shadow"), clock=clock, **PROMO) as world:
        promotion = world.fund.promotion
        await promotion.register("s", P.Shadow)
        await _ticks(world, 2)
        clock.stepped_us = 365 * 86_400_000_000  # from here on, and not from the next tick
        await promotion.record_metrics("s", P.Shadow, ALL_GOOD)
        assert (await promotion.evaluate("s")).verdict == "PASS"  # by days that have not passed
        assert not await promotion.should_promote("s")
        for raising in (promotion.promote("s", by="ann"), promotion.approve("s", by="ann")):
            with pytest.raises(GateNotPassed, match="the wall clock is suspect"):
                await raising
        await promotion.demote("s", by="ann", reason="what allows less waits for no clock")
        await world.fund.confirm_clock(by="ann", reason="the time was wrong before")
        blockers = (await promotion.evaluate("s")).blocked_by
        assert not any("clock" in blocker for blocker in blockers)


def _recorded_ahead(tmp_path: Path, days: int) -> tuple[PromotionManager, str, VirtualClock]:
    """A manager of a file to which a clock that ran ahead gave a good record."""
    path, ahead, clock = tmp_path / "x.db", VirtualClock(START_US), VirtualClock(START_US)
    manager = PromotionManager(path, clock=clock)
    strategy_id = manager.register("s")
    ahead.advance(days * 86_400)
    PromotionManager(path, clock=ahead).record_metrics(strategy_id, P.Paper, ALL_GOOD)
    return manager, strategy_id, clock


def test_a_value_of_an_instant_to_come_is_no_evidence(tmp_path: Path) -> None:
    manager, strategy_id, clock = _recorded_ahead(tmp_path, 60)
    clock.advance(20 * 86_400)
    found = manager.evaluate(strategy_id)
    assert found.verdict == "INCONCLUSIVE"
    assert "clock: now lies before the instant of its value" in found.why
    with pytest.raises(GateNotPassed):
        manager.promote(strategy_id, by="ann", reason="it looks good")


def test_any_record_is_newer_than_one_of_an_instant_to_come(tmp_path: Path) -> None:
    manager, strategy_id, clock = _recorded_ahead(tmp_path, 60)
    clock.advance(20 * 86_400)
    manager.record_metrics(strategy_id, P.Paper, {"sharpe": -3.0, "n_trades": 5})
    seen = {one.name: one for one in manager.evaluate(strategy_id).criteria}
    assert (seen["min_sharpe"].observed, seen["min_sharpe"].verdict) == (-3.0, "FAIL")
    assert seen["min_win_rate"].reason.startswith("stale"), "it was not recorded again"
    manager.record_metrics(strategy_id, P.Paper, {"returns": [0.01, -0.02, 0.01]})
    manager.record_metrics(strategy_id, P.Paper, {"max_drawdown": 0.05})
    seen = {one.name: one for one in manager.evaluate(strategy_id).criteria}
    assert seen["max_drawdown"].age_s == 0
    at_us = START_US + 60 * 86_400_000_000
    manager.discard_metrics(strategy_id, at_us, "", by="ann", reason="its clock was wrong")
    assert manager.evaluate(strategy_id).verdict == "FAIL"


def test_after_a_step_back_the_promised_day_is_the_one_on_which_the_days_are_over(
    tmp_path: Path,
) -> None:
    path, clock, behind = tmp_path / "x.db", VirtualClock(START_US), VirtualClock(START_US)
    manager = PromotionManager(path, clock=clock)
    strategy_id = manager.register("s")
    clock.advance(10 * 86_400)
    manager.record_metrics(strategy_id, P.Paper, ALL_GOOD)
    behind.advance(3 * 86_400)
    later = PromotionManager(path, clock=behind)
    later.record_metrics(strategy_id, P.Paper, ALL_GOOD)
    found = later.evaluate(strategy_id)
    assert found.next_possible_us == START_US + 14 * 86_400_000_000
    assert found.why == "4 more days, at the earliest 2026-01-19"
    behind.advance(11 * 86_400)
    later.record_metrics(strategy_id, P.Paper, ALL_GOOD)
    assert later.evaluate(strategy_id).verdict == "PASS"


# -- a defect at one strategy


def _failing_at_bad(whole: Callable[..., Any]) -> Callable[..., Any]:
    def failing(strategy: Any, *args: Any, **more: Any) -> Any:
        if strategy.name == "bad":
            raise OverflowError("too large")
        return whole(strategy, *args, **more)

    return failing


@pytest.mark.parametrize("part", ["evaluate", "seen"])
async def test_a_defect_at_one_strategy_stops_no_limit_of_another(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {"evaluate": desk, "seen": evidence}[part]
    names = ("bad", "good")
    controller = FakeController(
        *(StrategyStatus(name, "running", equity=100, allocated=100) for name in names)
    )
    async with virtual_fund(controller, promotion_every_ticks=1, **PROMO) as world:

        async def stage(name: str) -> PromotionStage:
            (newest,) = await world.fund.promotion.history(name, limit=1)
            return newest.to_stage

        for name in names:
            await _adopt(world, P.Live_Small, name)
        await _ticks(world, 2)
        with monkeypatch.context() as patch:
            patch.setattr(module, part, _failing_at_bad(getattr(module, part)))
            await _ticks(world, 3)
            for name in names:
                controller.set(name, equity=50)
            await _ticks(world, 3)
            assert await stage("good") is P.Shadow
            hard = part == "evaluate"  # the evaluation explains a demotion, and is not its cause
            assert await stage("bad") is (P.Shadow if hard else P.Live_Small)
            titles = [alert.title for alert in world.sent_alerts()]
            assert titles.count("promotion cannot judge 1 of the strategies") == 1
        await _ticks(world, 3)
        assert await stage("bad") is P.Shadow
        titles = [alert.title for alert in world.sent_alerts()]
        assert titles.count("the strategies set aside by promotion are others now: none") == 1


async def test_a_question_that_cannot_be_answered_is_refused_for_its_caller_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with virtual_fund(_controller(), **PROMO) as world:
        promotion = world.fund.promotion
        for name in ("bad", "good"):
            await promotion.register(name)
        monkeypatch.setattr(desk, "evaluate", _failing_at_bad(evaluation.evaluate))
        for ask in (
            promotion.snapshot,
            promotion.evaluate,
            promotion.should_promote,
            promotion.should_demote,
            promotion.promote,
        ):
            with pytest.raises(PromotionDefect, match="OverflowError: too large"):
                await ask("bad")
            assert (await promotion.snapshot("good")).name == "good"
        assert "too large" in str((await world.fund.why("bad")).notes)
        assert await world.fund.pause("bad", by="ann", reason="it is not judged")
