"""The worked rows of promotion, one test each, through the doors that users have.

A row needs nothing but its own figures: capital is 100,000 unless said, stages are those of the
four-stage ladder, and time moves only by `advance`.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import numpy as np
import pytest

from fundops import (
    Criterion,
    PromotionGate,
    PromotionManager,
    PromotionStage,
    VirtualClock,
)
from fundops.actors.persistence import Reader
from fundops.actors.promotion import policy_of
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.controller import StrategyStatus
from fundops.wire.errors import (
    CapitalExceeded,
    Conflict,
    GateNotPassed,
    MetricError,
    PolicyError,
    SkipRefused,
    StaleRevision,
    StrategyFrozen,
)
from fundops.wire.promotion import CriterionResult, Evaluation

DAY_S = 86_400
Paper, Shadow = PromotionStage.Paper, PromotionStage.Shadow
Small, Scaled = PromotionStage.Live_Small, PromotionStage.Live_Scaled
AT_LIMIT = {"sharpe": 1.0, "max_drawdown": 0.2, "n_trades": 50, "win_rate": 0.45}
GOOD = {"sharpe": 1.2, "max_drawdown": 0.08, "n_trades": 150}
PROMO: dict[str, Any] = {"promotion_enabled": True, "promotion_every_ticks": 1}
HOOK = "https://hooks.example.com/alerts"


class Desk:
    """A manager and its clock, with one strategy in paper."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "promotion.db"
        self.clock = VirtualClock(START_US)
        self.manager = PromotionManager(self.path, clock=self.clock)
        self.name = self.manager.register("s")

    def evaluate(self) -> Evaluation:
        return self.manager.evaluate("s")

    def criterion(self, name: str) -> CriterionResult:
        return criterion(self.evaluate(), name)

    def record(self, metrics: dict[str, Any], stage: PromotionStage = Paper, **more: Any) -> None:
        self.manager.record_metrics("s", stage, metrics, **more)

    def passes(self) -> None:
        """Fourteen days later, with figures that pass the gate of the present stage."""
        self.clock.advance(14 * DAY_S)
        self.record(GOOD, self.manager.current_stage("s"))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def criterion(evaluation: Evaluation, name: str) -> CriterionResult:
    return next(one for one in evaluation.criteria if one.name == name)


def rows_of(path: Path) -> dict[str, int]:
    """The number of rows of each of promotion's tables."""
    with Reader(path) as reader:
        tables = reader.rows(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'promotion%'"
        )
        return {name: reader.row(f"SELECT count(*) FROM {name}")[0] for (name,) in tables}


@asynccontextmanager
async def trading(
    stage: PromotionStage = Small, *, equity: float = 1_000, **settings: Any
) -> AsyncIterator[VirtualFund]:
    """A fund whose engine trades "s" in this stage with 1,000 allocated."""
    engine = FakeController(StrategyStatus("s", "running", equity=equity, allocated=1_000))
    async with virtual_fund(engine, **{**PROMO, **settings}) as world:
        await world.fund.promotion.adopt("s", stage, by="ann", reason="it trades")
        await world.tick()
        yield world


async def tick_at(world: VirtualFund, equity: float, **changes: Any) -> PromotionStage:
    """The stage one second and one tick later, with this equity."""
    world.controller.set("s", equity=equity, **changes)
    world.clock.advance(1)
    await world.tick()
    return await world.fund.promotion.current_stage("s")


async def sessions(world: VirtualFund, equities: Sequence[float], **changes: Any) -> None:
    """One session for each equity, which is seen at its end."""
    for equity in equities:
        world.controller.set("s", equity=equity, **changes)
        world.clock.advance(DAY_S)
        await world.tick()
        changes = {}


def events_of(world: VirtualFund, title: str) -> list[str]:
    """The levels of the alerts with this in their title."""
    return [alert.level.name for alert in world.sent_alerts() if title in alert.title]


# -- verdicts


def test_case_1_all_five_criteria_exactly_at_their_limits_pass(desk: Desk) -> None:
    desk.clock.advance(14 * DAY_S)
    desk.record(AT_LIMIT)
    found = desk.evaluate()
    assert found.verdict == "PASS"
    assert [(one.name, one.verdict, one.margin) for one in found.criteria] == [
        ("min_days", "PASS", 0),
        ("min_trades", "PASS", 0),
        ("min_sharpe", "PASS", 0),
        ("max_drawdown", "PASS", 0),
        ("min_win_rate", "PASS", 0),
    ]


def test_case_2_a_second_less_than_fourteen_days_fails_by_that_second(desk: Desk) -> None:
    desk.clock.advance(14 * DAY_S - 1)
    desk.record(AT_LIMIT)
    found = desk.evaluate()
    assert found.verdict == "FAIL"
    assert [one.name for one in found.criteria if one.verdict != "PASS"] == ["min_days"]
    days = criterion(found, "min_days")
    assert days.verdict == "FAIL"
    assert days.margin is not None
    assert days.margin * DAY_S == pytest.approx(-1, abs=1e-6)


def test_case_3_a_sharpe_that_is_no_number_is_refused_and_missing(desk: Desk) -> None:
    desk.clock.advance(14 * DAY_S)
    with pytest.raises(MetricError) as refused:
        desk.record({**AT_LIMIT, "sharpe": math.nan})
    assert refused.value.field == "sharpe"
    assert desk.criterion("min_trades").reason == "missing", "nothing of it is stored"
    desk.record({name: value for name, value in AT_LIMIT.items() if name != "sharpe"})
    found = desk.evaluate()
    assert found.verdict == "INCONCLUSIVE"
    sharpe = criterion(found, "min_sharpe")
    assert (sharpe.verdict, sharpe.reason, sharpe.observed) == ("INCONCLUSIVE", "missing", None)


@pytest.mark.parametrize("value", [-0.08, 8.0])  # the sign; percent sent as a fraction
def test_cases_4_and_5_a_drawdown_that_is_no_fraction_is_refused(desk: Desk, value: float) -> None:
    with pytest.raises(MetricError) as refused:
        desk.record({"max_drawdown": value})
    assert (refused.value.field, refused.value.value) == ("max_drawdown", value)
    assert desk.criterion("max_drawdown").reason == "missing"


def test_case_7_constant_returns_prove_no_sharpe(desk: Desk) -> None:
    desk.clock.advance(14 * DAY_S)
    desk.record({**GOOD, "returns": [0.001] * 14})
    found = desk.evaluate()
    assert found.verdict == "INCONCLUSIVE"
    sharpe = criterion(found, "min_sharpe")
    assert (sharpe.verdict, sharpe.observed) == ("INCONCLUSIVE", None)
    assert sharpe.reason.startswith("undefined")


async def test_case_7_constant_growth_that_the_engine_reports_proves_no_sharpe() -> None:
    async with trading(Paper) as world:
        await sessions(world, [1_000 * 1.001**day for day in range(1, 16)])
        found = await world.fund.promotion.evaluate("s")
        assert criterion(found, "min_sharpe").reason.startswith("undefined")
        assert criterion(found, "min_sharpe").verdict == "INCONCLUSIVE"


def test_case_8_a_fail_dominates_and_both_reasons_are_listed(desk: Desk) -> None:
    desk.clock.advance(14 * DAY_S)
    desk.record({"n_trades": 49, "max_drawdown": 0.1})
    found = desk.evaluate()
    assert found.verdict == "FAIL"
    assert [(one.name, one.verdict) for one in found.criteria if one.verdict != "PASS"] == [
        ("min_trades", "FAIL"),
        ("min_sharpe", "INCONCLUSIVE"),
    ]
    assert len(found.reasons) == 2
    assert any("trades" in reason for reason in found.reasons)
    assert any("missing" in reason for reason in found.reasons)


def test_case_9_a_gate_without_criteria_proves_nothing(desk: Desk) -> None:
    desk.manager.add_gate(PromotionGate(Paper, ()))
    desk.passes()
    found = desk.evaluate()
    assert (found.verdict, found.would_do) == ("INCONCLUSIVE", "none")
    assert any(reason.startswith("config") for reason in found.blocked_by)
    with pytest.raises(GateNotPassed):
        desk.manager.promote("s")


def test_case_10_a_misspelt_metric_in_a_gate_is_refused_as_it_is_loaded(desk: Desk) -> None:
    before = desk.evaluate()
    with pytest.raises(PolicyError, match="sharp_ratio"):
        desk.manager.add_gate(PromotionGate(Paper, (Criterion("x", "sharp_ratio", ">=", 1.0),)))
    assert desk.evaluate() == before


async def test_case_11_fridays_value_is_fresh_on_monday_and_stale_after_tuesdays_close() -> None:
    async with virtual_fund(**PROMO, session="weekdays 17:30 Europe/London") as world:
        await world.fund.promotion.register("s")
        # From Monday 2026-01-05 to Friday 2026-01-23, 18:00 London.
        world.clock.advance(18 * DAY_S + 18 * 3_600)
        await world.fund.promotion.record_metrics("s", Paper, GOOD)

        async def sharpe() -> CriterionResult:
            return criterion(await world.fund.promotion.evaluate("s"), "min_sharpe")

        world.clock.advance(3 * DAY_S)  # Monday 18:00, after one close
        assert (await sharpe()).verdict == "PASS"
        world.clock.advance(DAY_S - 3_600)  # Tuesday 17:00
        assert (await sharpe()).verdict == "PASS"
        world.clock.advance(3_600)  # Tuesday 18:00, after two closes
        stale = await sharpe()
        assert stale.verdict == "INCONCLUSIVE"
        assert stale.reason.startswith("stale")
        assert "2 sessions" in stale.reason


# -- transitions


@pytest.mark.parametrize("by", ["operator", "ann", "promotion"])
def test_case_13_no_one_skips_a_stage(desk: Desk, by: str) -> None:
    desk.passes()
    with pytest.raises(SkipRefused):
        desk.manager.promote("s", to=Small, by=by)
    assert [line.kind for line in desk.manager.history("s")] == ["register"]


async def test_case_13_no_one_skips_a_stage_of_a_fund() -> None:
    async with virtual_fund(**PROMO) as world:
        await world.fund.promotion.register("s")
        world.clock.advance(14 * DAY_S)
        await world.fund.promotion.record_metrics("s", Paper, GOOD)
        with pytest.raises(SkipRefused):
            await world.fund.promotion.promote("s", to=Small, by="ann")
        assert await world.fund.promotion.current_stage("s") is Paper


def test_case_14_of_two_promotions_of_one_revision_the_second_is_stale(desk: Desk) -> None:
    desk.passes()
    other = PromotionManager(desk.path, clock=desk.clock)
    desk.manager.promote("s", expected_rev=1)
    with pytest.raises(StaleRevision) as refused:
        other.promote("s", expected_rev=1)
    assert refused.value.current == 2
    assert [line.kind for line in other.history("s")] == ["promote", "register"]


def test_case_15_a_request_id_has_one_outcome(desk: Desk) -> None:
    desk.passes()
    first = desk.manager.promote("s", by="ann", reason="good", request_id="r1")
    desk.clock.advance(DAY_S)
    assert desk.manager.promote("s", by="ann", reason="good", request_id="r1") == first
    with pytest.raises(Conflict):
        desk.manager.promote("s", by="bob", reason="good", request_id="r1")
    assert [line.kind for line in desk.manager.history("s")] == ["promote", "register"]


async def test_case_15_a_fund_repeats_the_outcome_with_its_capital() -> None:
    async with trading(Shadow) as world:
        promotion = world.fund.promotion
        world.clock.advance(14 * DAY_S)
        await promotion.record_metrics("s", Shadow, {**GOOD, "sharpe": 2.0})
        first = await promotion.promote("s", by="ann", request_id="r1")
        assert (first.capital_before, first.capital_after) == (Decimal(0), Decimal(1_000))
        world.clock.advance(DAY_S)
        assert await promotion.promote("s", by="ann", request_id="r1") == first


def test_case_15_a_refusal_does_not_use_a_request_id_up(desk: Desk) -> None:
    with pytest.raises(GateNotPassed):
        desk.manager.promote("s", request_id="r1")
    desk.passes()
    assert desk.manager.promote("s", request_id="r1").to_stage is Shadow


def test_case_16_a_frozen_strategy_is_not_promoted_and_can_be_demoted(desk: Desk) -> None:
    desk.passes()
    desk.manager.promote("s")
    desk.passes()
    assert desk.evaluate().verdict == "PASS"
    desk.manager.freeze("s", by="ann")
    with pytest.raises(StrategyFrozen):
        desk.manager.promote("s")
    assert desk.manager.demote("s", by="ann").to_stage is Paper


async def test_case_18_a_hard_drawdown_demotes_a_frozen_strategy_in_that_tick() -> None:
    """Without any metric but the equity, and frozen; the alert is told after the commit."""
    async with trading(Scaled) as world:
        await world.fund.promotion.freeze("s", by="ann")
        # Less than 5% in each session, so that the limit of a session is not the one reached.
        for equity in (960, 922, 886, 851, 817, 785, 754):
            await sessions(world, [equity])
            assert await world.fund.promotion.current_stage("s") is Scaled
        assert await tick_at(world, 750) is Shadow
        assert events_of(world, "demoted to shadow") == ["CRITICAL"]
        [line, *_] = await world.fund.promotion.history("s")
        assert (line.kind, line.by) == ("demote", "promotion")


async def test_case_18_a_hard_drawdown_demotes_within_a_cooldown() -> None:
    async with trading(Small) as world:
        assert await tick_at(world, 940) is Shadow
        cooling = await world.fund.promotion.snapshot("s")
        assert cooling.cooldown_until == world.clock.now_us() + 30 * DAY_S * 1_000_000
        await tick_at(world, 1_000, stage="shadow")
        assert await tick_at(world, 750) is Paper


@pytest.mark.parametrize(("equity", "stage"), [(1_141, Small), (1_140, Shadow)])
async def test_case_18a_an_adopted_strategy_has_its_limit_from_its_first_tick(
    equity: float, stage: PromotionStage
) -> None:
    async with trading(Small, equity=1_200) as world:
        assert await tick_at(world, equity) is stage
        lines = await world.fund.promotion.history("s")
        assert len(lines) == (1 if stage is Small else 2)
        assert stage is Small or "session" in lines[0].reason


@pytest.mark.parametrize(("equity", "stage"), [(951, Scaled), (950, Shadow)])
async def test_case_18b_a_loss_of_five_percent_within_a_session_is_hard(
    equity: float, stage: PromotionStage
) -> None:
    async with trading(Scaled) as world:
        await sessions(world, [1_030, 1_000])  # this session began at 1,000
        assert await tick_at(world, equity) is stage


async def test_case_19_two_soft_breaches_stay_and_three_go_one_stage_down() -> None:
    async with trading(Scaled) as world:
        # More than 20% below the peak, by less than 5% a session: 1,000 to about 790.
        await sessions(world, [1_000.0] * 18)
        await sessions(world, [960, 920, 885, 850, 815, 790])
        assert await world.fund.promotion.current_stage("s") is Scaled, "once below 800"
        await sessions(world, [791])
        assert await world.fund.promotion.current_stage("s") is Scaled, "twice"
        await sessions(world, [792])
        assert await world.fund.promotion.current_stage("s") is Small
        [line, *_] = await world.fund.promotion.history("s")
        assert "3 of the last 5 sessions" in line.reason
        snapshot = await world.fund.promotion.snapshot("s")
        assert snapshot.cooldown_until == line.effective_us + 7 * DAY_S * 1_000_000


async def test_case_20_a_demoted_strategy_that_is_green_next_day_waits_for_its_cooldown() -> None:
    async with virtual_fund(FakeController(StrategyStatus("s", "running")), **PROMO) as world:
        promotion = world.fund.promotion
        await promotion.adopt("s", Small, by="ann", reason="it trades")
        await promotion.record_metrics("s", Small, {"daily_loss": 0.06})
        await world.tick()
        until_us = world.clock.now_us() + 30 * DAY_S * 1_000_000
        world.clock.advance(14 * DAY_S)
        await promotion.record_metrics("s", Shadow, GOOD)
        found = await promotion.evaluate("s")
        assert (found.verdict, found.would_do) == ("PASS", "none")
        [reason] = [one for one in found.blocked_by if one.startswith("cooldown")]
        assert "2026-02-04" in reason  # 30 days after 2026-01-05
        assert found.next_possible_us == until_us


# -- versions


async def test_case_24_a_new_version_freezes_a_live_strategy_and_its_episode_goes_on() -> None:
    async with trading(Scaled) as world:
        await tick_at(world, 1_000, version="v1")
        before = await world.fund.promotion.snapshot("s")
        await tick_at(world, 1_000, version="v2")
        after = await world.fund.promotion.snapshot("s")
        assert (after.frozen, after.stage, after.version) == (True, Scaled, "v2")
        assert after.evaluation.episode == before.evaluation.episode
        assert after.evaluation.inputs.trials == before.evaluation.inputs.trials + 1
        assert "WARNING" in [alert.level.name for alert in world.sent_alerts()]


async def test_case_24_a_new_version_in_paper_begins_a_new_episode() -> None:
    async with trading(Paper) as world:
        await tick_at(world, 1_000, version="v1", n_trades=10)
        await sessions(world, [1_010, 1_005])
        before = await world.fund.promotion.snapshot("s")
        await tick_at(world, 1_000, version="v2")
        after = await world.fund.promotion.snapshot("s")
        assert (after.frozen, after.stage, after.days_in_stage) == (False, Paper, 0)
        assert after.evaluation.episode == before.evaluation.episode + 1
        assert after.evaluation.inputs.trials == before.evaluation.inputs.trials + 1


# -- history


def test_case_25_the_state_as_of_any_instant_matches_the_history(desk: Desk) -> None:
    desk.passes()
    desk.manager.promote("s")
    desk.clock.advance(DAY_S)
    desk.manager.demote("s", by="ann", reason="drill")
    desk.passes()
    desk.manager.promote("s")
    lines = list(reversed(desk.manager.history("s")))
    assert [line.kind for line in lines] == ["register", "promote", "demote", "promote"]
    for line, following in zip(lines, [*lines[1:], None], strict=True):
        end_us = desk.clock.now_us() + 1 if following is None else following.effective_us - 1
        for at_us in (line.effective_us, end_us):
            [state] = desk.manager.state_as_of(at_us)
            assert (state.stage, state.rev) == (line.to_stage, line.rev)
    assert tuple(desk.manager.state_as_of(START_US - 1)) == ()


def test_case_27_a_dry_run_writes_nothing_and_is_the_evaluation_of_that_instant(
    desk: Desk,
) -> None:
    desk.passes()
    before = rows_of(desk.path)
    dry = desk.evaluate()
    assert msgspec.json.encode(desk.evaluate()) == msgspec.json.encode(dry)
    assert desk.manager.should_promote("s")
    assert rows_of(desk.path) == before
    desk.manager.promote("s")
    [line, _] = desk.manager.history("s")
    assert line.evaluation_id == dry.id
    with Reader(desk.path) as reader:
        [stored] = reader.row("SELECT evaluation FROM promotion_history WHERE seq = ?", (line.seq,))
    assert json.loads(stored) == json.loads(msgspec.json.encode(dry))


async def test_case_28_a_transition_commits_although_its_alert_cannot_be_sent() -> None:
    tried: list[httpx2.Request] = []

    def down(request: httpx2.Request) -> httpx2.Response:
        tried.append(request)
        return httpx2.Response(500 if len(tried) < 3 else 200)

    async with trading(
        Small, alert_webhook_url=HOOK, transport=httpx2.MockTransport(down)
    ) as world:
        assert await tick_at(world, 900) is Shadow
        for _ in range(50):
            world.clock.advance(1)
            await world.tick()
        [line, *_] = await world.fund.promotion.history("s")
        assert (line.kind, line.to_stage) == ("demote", Shadow)
        assert await world.fund.promotion.current_stage("s") is Shadow


# -- evidence of this stage alone


async def test_case_29_profit_and_trades_before_the_registration_prove_nothing() -> None:
    status = StrategyStatus(
        "s", "running", equity=1_500, allocated=1_000, n_trades=5_000, n_wins=3_000
    )
    async with virtual_fund(FakeController(status), **PROMO) as world:
        await world.fund.promotion.register("s")
        await world.tick()
        await sessions(world, [1_500] * 14)
        found = await world.fund.promotion.evaluate("s")
        assert found.verdict == "FAIL"
        assert criterion(found, "min_sharpe").verdict == "INCONCLUSIVE"
        assert criterion(found, "min_trades").observed == 0
        assert criterion(found, "max_drawdown").observed == 0
        assert await world.fund.promotion.current_stage("s") is Paper


async def test_case_31_a_recorded_sharpe_stands_beside_the_measured_one() -> None:
    # Sessions of m +- s alternating, with m / sd * sqrt(365) = -2.
    step, sessions_n = 0.01, 20
    sd = step * math.sqrt(sessions_n / (sessions_n - 1))
    mean = -2 * sd / math.sqrt(365)
    equities, equity = [], 1_000.0
    for number in range(sessions_n):
        equity *= 1 + mean + (step if number % 2 else -step)
        equities.append(equity)
    async with trading(Paper) as world:
        await sessions(world, equities, n_trades=60, n_wins=40)
        await world.fund.promotion.record_metrics("s", Paper, {"sharpe": 3.0})
        sharpe = criterion(await world.fund.promotion.evaluate("s"), "min_sharpe")
        assert sharpe.observed == pytest.approx(-2.0, abs=1e-6)
        assert (sharpe.source, sharpe.recorded, sharpe.verdict) == ("measured", 3.0, "FAIL")


def test_case_32_a_persons_demotions_leave_no_cooldown_and_no_strike(desk: Desk) -> None:
    desk.passes()
    desk.manager.promote("s")
    for _ in range(3):
        desk.clock.advance(DAY_S)
        desk.manager.demote("s", by="ann", reason="investigate")
        desk.passes()
        snapshot = desk.manager.snapshot("s")
        assert (snapshot.cooldown_until, snapshot.frozen) == (None, False)
        assert snapshot.evaluation.would_do == "promote"
        assert desk.manager.promote("s").to_stage is Shadow


async def test_case_33_a_count_that_restarts_at_the_engine_is_carried_over() -> None:
    async with trading(Paper) as world:
        observed = []
        for n_trades in (40, 3, 13):
            await sessions(world, [1_000], n_trades=n_trades)
            found = await world.fund.promotion.evaluate("s")
            observed.append(criterion(found, "min_trades").observed)
        assert observed == [40, 43, 53]


async def test_case_34_a_ladder_without_a_strategys_stage_starts_nothing(tmp_path: Path) -> None:
    path, clock = tmp_path / "fund.db", VirtualClock(START_US)
    async with virtual_fund(clock=clock, db_path=path, **PROMO) as world:
        await world.fund.promotion.adopt("s", Small, by="ann", reason="it trades")
    engine = FakeController()
    with pytest.raises(PolicyError) as refused:
        async with virtual_fund(
            engine, clock=clock, db_path=path, promotion_ladder="three-stage", **PROMO
        ):
            raise AssertionError("it started")
    assert engine.calls == []
    for word in ("three-stage", "'s'", "live-small"):
        assert word.strip("'") in str(refused.value)


def test_case_34_a_manager_refuses_such_a_ladder_too(tmp_path: Path) -> None:
    path = tmp_path / "promotion.db"
    PromotionManager(path).adopt("s", Small, by="ann", reason="it trades")
    three = policy_of("guarded", ladder="three-stage")
    with pytest.raises(PolicyError) as refused:
        PromotionManager(path, policy=three)
    for word in ("three-stage", "live-small"):
        assert word in str(refused.value)


async def test_case_35_ready_is_told_resolved_and_told_again() -> None:
    async with virtual_fund(FakeController(StrategyStatus("s", "running")), **PROMO) as world:
        promotion = world.fund.promotion
        await promotion.register("s", Shadow)

        async def told() -> list[str]:
            world.clock.advance(60)
            await world.tick()
            return [alert.title for alert in world.sent_alerts() if "ready" in alert.title]

        world.clock.advance(14 * DAY_S)
        await promotion.record_metrics("s", Shadow, GOOD)
        assert len(await told()) == 1
        await promotion.record_metrics("s", Shadow, {"sharpe": 0.5})
        assert (await promotion.evaluate("s")).would_do == "none"
        assert len(await told()) == 2
        assert len(await told()) == 2
        await promotion.record_metrics("s", Shadow, {"sharpe": 1.5})
        fired, resolved, again = await told()
        assert fired == again != resolved


async def test_case_37_an_approval_beyond_the_capital_is_blocked_with_the_figures(
    tmp_path: Path,
) -> None:
    path = tmp_path / "fund.db"
    async with virtual_fund(db_path=path, **PROMO) as world:
        promotion = world.fund.promotion
        await promotion.adopt("s", Small, by="ann", reason="it trades")
        await promotion.adopt("other", Scaled, by="ann", reason="it trades", budget=99_000)
        world.clock.advance(14 * DAY_S)
        await promotion.record_metrics("s", Small, GOOD)
        found = await promotion.evaluate("s")
        [reason] = [one for one in found.blocked_by if one.startswith("capital")]
        assert "100,000.00" in reason
        assert "1,000.00" in reason
        before = rows_of(path)
        with pytest.raises(CapitalExceeded):
            await promotion.approve("s", by="ann")
        assert rows_of(path) == before
        assert await promotion.current_stage("s") is Small


async def test_case_38_new_capital_after_a_fall_does_not_hide_it() -> None:
    async with virtual_fund(
        FakeController(StrategyStatus("s", "running", equity=100, allocated=100)), **PROMO
    ) as world:
        await world.fund.promotion.register("s")
        await world.tick()
        await tick_at(world, 50)
        # 9,900 more at equity 50, and a close at 9,950.
        await sessions(world, [9_950], allocated=10_000)
        found = await world.fund.promotion.evaluate("s")
        assert criterion(found, "max_drawdown").observed == 0.5


# -- the clock


class SteppingClock(VirtualClock):
    """A clock whose wall time can be set back."""

    def step_back(self, seconds: int) -> None:
        self._start_us -= seconds * 1_000_000
        self._now_us -= seconds * 1_000_000


def test_case_30_days_never_fall_below_what_was_stored(tmp_path: Path) -> None:
    clock = SteppingClock(START_US)
    manager = PromotionManager(tmp_path / "promotion.db", clock=clock)
    manager.register("s")
    clock.advance(10 * DAY_S)
    manager.record_metrics("s", Paper, GOOD)
    clock.step_back(3_600)
    assert manager.snapshot("s").days_in_stage == 10
    clock.advance(1_800)
    assert manager.snapshot("s").days_in_stage == 10
    clock.advance(3_600)
    assert manager.snapshot("s").days_in_stage == pytest.approx(10 + 1_800 / DAY_S)


def test_case_30_a_clock_before_the_stage_is_inconclusive(tmp_path: Path) -> None:
    clock = SteppingClock(START_US)
    manager = PromotionManager(tmp_path / "promotion.db", clock=clock)
    manager.register("s")
    clock.step_back(3_600)
    days = criterion(manager.evaluate("s"), "min_days")
    assert days.verdict == "INCONCLUSIVE"
    assert days.reason.startswith("clock")
    assert manager.snapshot("s").days_in_stage == 0


# -- sessions that are told late


async def test_sessions_that_are_told_late_ended_before_the_values_of_today() -> None:
    """No tick for two weeks: their sessions ended then, not at the tick that hears of them."""
    async with virtual_fund(FakeController(StrategyStatus("s", "running")), **PROMO) as world:
        promotion = world.fund.promotion
        await promotion.register("s", Shadow)
        world.clock.advance(14 * DAY_S)
        await promotion.record_metrics("s", Shadow, GOOD)
        world.clock.advance(3_600)
        await world.tick()
        assert (await promotion.evaluate("s")).verdict == "PASS"
        world.clock.advance(2 * DAY_S - 3_601)
        await world.tick()
        assert (await promotion.evaluate("s")).verdict == "PASS"
        world.clock.advance(1)
        await world.tick()
        sharpe = criterion(await promotion.evaluate("s"), "min_sharpe")
        assert sharpe.reason.startswith("stale: 2 sessions")


async def test_a_value_is_stale_although_no_tick_told_of_the_sessions_since() -> None:
    async with virtual_fund(FakeController(StrategyStatus("s", "running")), **PROMO) as world:
        promotion = world.fund.promotion
        await promotion.register("s", Shadow)
        world.clock.advance(14 * DAY_S)
        await world.tick()
        await promotion.record_metrics("s", Shadow, GOOD)
        assert (await promotion.evaluate("s")).verdict == "PASS"
        world.clock.advance(2 * DAY_S)
        with pytest.raises(GateNotPassed, match="2 sessions"):
            await promotion.promote("s", by="ann")


# -- series


async def test_a_fall_that_a_series_shows_is_a_hard_limit_too() -> None:
    async with virtual_fund(FakeController(StrategyStatus("s", "running")), **PROMO) as world:
        promotion = world.fund.promotion
        await promotion.adopt("s", Scaled, by="ann", reason="it trades")
        await promotion.record_metrics("s", Scaled, {"returns": np.array([0.01, -0.3, 0.004])})
        assert await promotion.should_demote("s")
        await world.tick()
        assert await promotion.current_stage("s") is Shadow
        [line, *_] = await promotion.history("s")
        await promotion.void(line.seq, by="ann", reason="a wrong file")
        await world.tick()
        assert await promotion.current_stage("s") is Scaled, "the record is discarded with it"
