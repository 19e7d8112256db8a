"""PromotionManager: the lifecycle without a fund around it, one file and any number of
processes.
"""

from __future__ import annotations

import inspect
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from fundops import (
    ConfigError,
    Criterion,
    DatabaseInUse,
    Fund,
    FundConfig,
    PromotionGate,
    PromotionManager,
    PromotionStage,
    VirtualClock,
    open_reader,
    policy_of,
)
from fundops.actors.promotion import PromotionSettings, StageSettings, schema
from fundops.doors import PromotionDoor
from fundops.file.database import prepare
from fundops.file.lock import OwnerLock
from fundops.file.meta import identity
from fundops.wire.errors import (
    CapitalExceeded,
    Conflict,
    DatabaseError,
    GateNotPassed,
    MetricError,
    SkipRefused,
    StageTooLow,
    StaleRevision,
    StrategyFrozen,
    StrategyRetired,
    UnknownStage,
    UnknownStrategy,
)

START_US = 1_767_571_200_000_000
DAY_S = 86_400.0
DEADLINE_S = 60
Paper, Shadow = PromotionStage.Paper, PromotionStage.Shadow
Small, Scaled = PromotionStage.Live_Small, PromotionStage.Live_Scaled
GOOD = {"sharpe": 1.2, "max_drawdown": 0.08, "n_trades": 150}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNDOPS_HOME", str(tmp_path / "home"))


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START_US)


@pytest.fixture
def manager(tmp_path: Path, clock: VirtualClock) -> PromotionManager:
    return PromotionManager(tmp_path / "p.db", clock=clock)


def _ready(
    manager: PromotionManager, clock: VirtualClock, name: str = "a", stage: PromotionStage = Paper
) -> str:
    """A strategy whose gate passes now."""
    strategy = (
        manager.register(name)
        if stage is Paper
        else manager.adopt(name, stage, by="ann", reason="test")
    )
    clock.advance(14 * DAY_S)
    manager.record_metrics(strategy, stage, GOOD)
    return strategy


# -- as in the documentation


def test_the_first_example_of_the_documentation_works_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    clock = VirtualClock(START_US)
    mgr = PromotionManager(
        db_path="promotions.db",
        clock=clock,
    )
    strat_id = mgr.register(
        strategy_name="bollinger_mr_w20",
        initial_stage=PromotionStage.Paper,
    )
    clock.advance(20 * DAY_S)
    mgr.record_metrics(
        strategy_id=strat_id,
        stage=PromotionStage.Paper,
        metrics={
            "sharpe": 1.2,
            "max_drawdown": 0.08,
            "n_trades": 150,
        },
    )
    if mgr.should_promote(strat_id):
        mgr.promote(strat_id)
        print(f"Promoted to {mgr.current_stage(strat_id).value}")  # noqa: T201  as it is written there
    assert capsys.readouterr().out == "Promoted to shadow\n"
    if mgr.should_demote(strat_id):
        mgr.demote(strat_id, reason="drawdown breach")
    snapshot = mgr.snapshot(strat_id)
    assert (snapshot.stage, snapshot.days_in_stage, snapshot.strategy_id) == (Shadow, 0.0, strat_id)
    assert [(line.kind, line.from_stage, line.to_stage) for line in snapshot.history] == [
        ("register", None, Paper),
        ("promote", Paper, Shadow),
    ]
    assert snapshot.history[1].metrics == GOOD
    clock.advance(3.5 * DAY_S)
    assert mgr.snapshot(strat_id).days_in_stage == 3.5
    assert Path("promotions.db").is_file()


def test_the_second_example_of_the_documentation_works_as_it_is_written(tmp_path: Path) -> None:
    clock = VirtualClock(START_US)
    mgr = PromotionManager(clock=clock)
    strat_id = mgr.register("my_strategy", initial_stage=PromotionStage.Paper)
    for _ in range(30):
        clock.advance(DAY_S)
        mgr.record_metrics(
            strat_id, PromotionStage.Paper, {"sharpe": 1.5, "max_drawdown": 0.05, "n_trades": 60}
        )
    if mgr.should_promote(strat_id):
        mgr.promote(strat_id)
    assert mgr.current_stage(strat_id) == PromotionStage.Shadow
    assert (tmp_path / "home" / "promotion.db").stat().st_mode & 0o777 == 0o600


def test_without_a_clock_of_ones_own_it_lives_in_the_present(tmp_path: Path) -> None:
    mgr = PromotionManager(tmp_path / "p.db")
    strategy = mgr.register("a")
    mgr.record_metrics(strategy, Paper, GOOD)
    assert not mgr.should_promote(strategy), "fourteen days have not passed"
    assert 0 <= mgr.snapshot(strategy).days_in_stage < 1


def test_it_offers_what_the_funds_promotion_offers() -> None:
    ours = {name for name in dir(PromotionManager) if not name.startswith("_")}
    theirs = {name for name in dir(PromotionDoor) if not name.startswith("_")}
    assert ours == theirs
    for name in theirs:
        parameters = (
            inspect.signature(getattr(kind, name)).parameters
            for kind in (PromotionManager, PromotionDoor)
        )
        assert list(next(parameters).values()) == list(next(parameters).values()), name


# -- registering


def test_the_same_name_is_the_same_strategy_and_either_finds_it(manager: PromotionManager) -> None:
    strategy = manager.register("a")
    assert manager.register("a") == strategy
    assert manager.register("a", Shadow) == strategy
    assert manager.current_stage("a") is manager.current_stage(strategy) is Paper
    assert [one.name for one in manager.strategies()] == ["a"]


def test_real_money_is_not_where_a_strategy_begins_unless_it_is_adopted(
    manager: PromotionManager,
) -> None:
    for stage in (Small, Scaled):
        with pytest.raises(SkipRefused, match=stage.value):
            manager.register("a", stage)
    manager.adopt("a", Scaled, by="ann", reason="it traded before")
    with pytest.raises(Conflict):
        manager.adopt("a", Paper, by="ann", reason="again")
    (line,) = manager.history()
    assert (line.kind, line.to_stage, line.by, line.reason) == (
        "adopt",
        Scaled,
        "ann",
        "it traded before",
    )


@pytest.mark.parametrize("name", ["", "x" * 129, None, 5, b"a", "a\nb", "a\x00"], ids=repr)
def test_a_name_that_is_none_is_refused(manager: PromotionManager, name: Any) -> None:
    with pytest.raises(MetricError) as caught:
        manager.register(name)
    assert caught.value.field == "strategy_name"
    assert isinstance(caught.value, ConfigError)
    assert manager.strategies() == ()


@pytest.mark.parametrize(
    "stage", ["livescaled", None, 3, PromotionStage.Live, PromotionStage.Retired, ""]
)
def test_a_stage_that_is_not_on_the_ladder_is_refused_everywhere(
    manager: PromotionManager, stage: Any
) -> None:
    manager.register("a")
    asks: tuple[Callable[[], Any], ...] = (
        lambda: manager.register("b", stage),
        lambda: manager.adopt("b", stage, by="ann", reason="x"),
        lambda: manager.record_metrics("a", stage, GOOD),
        # Without a stage, demote goes one stage down.
        *((lambda: manager.demote("a", to=stage),) if stage is not None else ()),
        lambda: manager.require("a", at_least=stage),
        lambda: manager.add_gate(PromotionGate(stage, ())),
    )
    for ask in asks:
        with pytest.raises(UnknownStage):
            ask()


def test_a_stage_may_be_given_by_its_value(manager: PromotionManager) -> None:
    manager.register("a", "shadow")  # type: ignore[arg-type]
    assert manager.current_stage("a") is Shadow


def test_a_strategy_that_nobody_registered_is_refused_by_name_everywhere(
    manager: PromotionManager,
) -> None:
    asks: tuple[Callable[[str], Any], ...] = (
        manager.current_stage,
        manager.snapshot,
        manager.evaluate,
        manager.should_promote,
        manager.should_demote,
        manager.promote,
        manager.demote,
        manager.freeze,
        manager.unfreeze,
        manager.retire,
        manager.history,
        manager.entitlement,
        lambda name: manager.record_metrics(name, Paper, GOOD),
        lambda name: manager.require(name, at_least=Paper),
    )
    for ask in asks:
        with pytest.raises(UnknownStrategy, match="nobody") as caught:
            ask("nobody")
        assert isinstance(caught.value, KeyError)


# -- metrics


@pytest.mark.parametrize(
    ("metrics", "field"),
    [
        ({"sharpe": math.nan}, "sharpe"),
        ({"sharpe": math.inf}, "sharpe"),
        ({"sharpe": "1.2"}, "sharpe"),
        ({"sharpe": True}, "sharpe"),
        ({"sharpe": 10**400}, "sharpe"),
        ({"max_drawdown": 8.0}, "max_drawdown"),
        ({"max_drawdown": -0.1}, "max_drawdown"),
        ({"max_drawdown": 0.08, "max_drawdown_pct": 9.0}, "max_drawdown_pct"),
        ({"win_rate": 45}, "win_rate"),
        ({"n_trades": 1.5}, "n_trades"),
        ({"n_trades": -1}, "n_trades"),
        ({"": 1.0}, "metrics"),
        ({5: 1.0}, "metrics"),
        ([("sharpe", 1.0)], "metrics"),
        (None, "metrics"),
    ],
    ids=str,
)
def test_a_metric_that_cannot_be_true_is_refused_by_name_and_nothing_is_recorded(
    manager: PromotionManager, metrics: Any, field: str
) -> None:
    manager.register("a")
    with pytest.raises(MetricError) as caught:
        manager.record_metrics("a", Paper, metrics)
    assert caught.value.field == field
    assert manager.snapshot("a").metrics == {}


def test_percent_and_fraction_are_one_metric_and_none_is_missing(manager: PromotionManager) -> None:
    manager.register("a")
    manager.record_metrics("a", Paper, {"max_drawdown_pct": 8, "sharpe": None})
    assert manager.snapshot("a").metrics == {"max_drawdown": 0.08}


def test_metrics_of_another_stage_or_of_the_future_are_refused(
    manager: PromotionManager, clock: VirtualClock
) -> None:
    manager.register("a")
    with pytest.raises(MetricError, match="paper"):
        manager.record_metrics("a", Shadow, GOOD)
    with pytest.raises(MetricError, match=r"2026-01-05 00:10 UTC\) lies in the future"):
        manager.record_metrics("a", Paper, GOOD, as_of=clock.now_us() + 600_000_000)
    with pytest.raises(MetricError, match=f"^as_of: {2**80} lies in the future"):
        manager.record_metrics("a", Paper, GOOD, as_of=2**80)


def test_the_same_instant_and_source_recorded_twice_is_once_and_other_content_a_conflict(
    manager: PromotionManager, clock: VirtualClock
) -> None:
    manager.register("a")
    instant = clock.now_us()
    manager.record_metrics("a", Paper, GOOD, as_of=instant, source="nightly")
    manager.record_metrics("a", Paper, GOOD, as_of=instant, source="nightly")
    with pytest.raises(Conflict, match="nightly"):
        manager.record_metrics("a", Paper, {**GOOD, "sharpe": 9.0}, as_of=instant, source="nightly")
    manager.record_metrics("a", Paper, {"sharpe": 1.3}, as_of=instant, source="other")


@pytest.mark.parametrize(
    "instant", [date(2026, 1, 5), datetime(2026, 1, 5, tzinfo=UTC), START_US], ids=repr
)
def test_an_instant_may_be_a_date_an_aware_datetime_or_microseconds(
    manager: PromotionManager, instant: Any
) -> None:
    manager.register("a")
    manager.record_metrics("a", Paper, GOOD, as_of=instant)
    assert manager.snapshot("a").metrics["sharpe"] == 1.2


@pytest.mark.parametrize("instant", [datetime(2026, 1, 5), "2026-01-05", 1.5, True], ids=repr)  # noqa: DTZ001
def test_an_instant_without_a_timezone_or_of_another_kind_is_refused(
    manager: PromotionManager, instant: Any
) -> None:
    manager.register("a")
    with pytest.raises(ConfigError, match="as_of"):
        manager.record_metrics("a", Paper, GOOD, as_of=instant)


def test_an_instant_that_is_needed_is_not_none(manager: PromotionManager) -> None:
    manager.register("a")
    none: Any = None
    with pytest.raises(ConfigError, match=r"^as_of: None is not a date"):
        manager.discard_metrics("a", none, "nightly", by="ann", reason="wrong")
    with pytest.raises(ConfigError, match=r"^t: None is not a date"):
        manager.state_as_of(none)


def test_stale_metrics_block_and_never_pass(manager: PromotionManager, clock: VirtualClock) -> None:
    strategy = _ready(manager, clock)
    assert manager.should_promote(strategy)
    clock.advance(2 * DAY_S + 1)
    assert not manager.should_promote(strategy)
    reasons = {one.reason for one in manager.evaluate(strategy).criteria}
    assert "stale: 2 sessions ended since" in reasons


# -- up and down


def test_a_gate_that_does_not_pass_refuses_with_every_reason(manager: PromotionManager) -> None:
    strategy = manager.register("a")
    manager.record_metrics(strategy, Paper, {"sharpe": 0.5, "n_trades": 3})
    with pytest.raises(GateNotPassed) as caught:
        manager.promote(strategy)
    verdicts = {one.name: one.verdict for one in caught.value.evaluation.criteria}
    assert verdicts == {
        "min_days": "FAIL",
        "min_trades": "FAIL",
        "min_sharpe": "FAIL",
        "max_drawdown": "INCONCLUSIVE",
    }
    assert all(name in str(caught.value) for name in verdicts)
    assert manager.current_stage(strategy) is Paper
    assert len(manager.history()) == 1


def test_every_stage_needs_its_own_evidence(manager: PromotionManager, clock: VirtualClock) -> None:
    strategy = _ready(manager, clock)
    for above in (Shadow, Small, Scaled):
        assert manager.promote(strategy, by="ann").to_stage is above
        assert manager.snapshot(strategy).metrics == {}
        with pytest.raises((GateNotPassed, SkipRefused)):
            manager.promote(strategy)
        if above is not Scaled:
            clock.advance(14 * DAY_S)
            manager.record_metrics(strategy, above, GOOD)
    with pytest.raises(SkipRefused, match="top stage"):
        manager.promote(strategy)


def test_nobody_skips_a_stage(manager: PromotionManager, clock: VirtualClock) -> None:
    strategy = _ready(manager, clock)
    for stage in (Small, Scaled, Paper):
        with pytest.raises(SkipRefused, match="shadow"):
            manager.promote(strategy, to=stage)
    assert manager.promote(strategy, to=Shadow).from_stage is Paper


def test_down_goes_one_stage_or_to_the_lower_one_named(manager: PromotionManager) -> None:
    manager.adopt("a", Scaled, by="ann", reason="test")
    assert manager.demote("a", reason="drawdown breach").to_stage is Small
    with pytest.raises(SkipRefused):
        manager.demote("a", to=Scaled)
    with pytest.raises(SkipRefused):
        manager.demote("a", to=Small)
    assert manager.demote("a", to=Paper).to_stage is Paper
    with pytest.raises(SkipRefused, match="lowest"):
        manager.demote("a")
    assert manager.history()[1].reason == "drawdown breach"


def test_a_persons_demotion_starts_no_cooldown_and_is_no_strike(
    manager: PromotionManager, clock: VirtualClock
) -> None:
    strategy = _ready(manager, clock, stage=Shadow)
    for _ in range(3):
        manager.demote(strategy, reason="holiday")
        snapshot = manager.snapshot(strategy)
        assert (snapshot.cooldown_until, snapshot.frozen) == (None, False)
        clock.advance(14 * DAY_S)
        manager.record_metrics(strategy, Paper, GOOD)
        manager.promote(strategy, by="ann")


def test_a_hard_limit_asks_for_a_demotion(manager: PromotionManager) -> None:
    manager.adopt("a", Small, by="ann", reason="test")
    manager.record_metrics("a", Small, {"max_drawdown": 0.19})
    assert not manager.should_demote("a")
    manager.record_metrics("a", Small, {"max_drawdown": 0.20})
    assert manager.should_demote("a")
    assert not manager.should_promote("a")


def test_a_frozen_strategy_does_not_rise_and_its_days_do_not_count(
    manager: PromotionManager, clock: VirtualClock
) -> None:
    strategy = _ready(manager, clock)
    manager.freeze(strategy, by="ann", reason="holiday")
    with pytest.raises(StrategyFrozen):
        manager.promote(strategy)
    clock.advance(10 * DAY_S)
    snapshot = manager.snapshot(strategy)
    assert (snapshot.frozen, snapshot.days_in_stage) == (True, 14.0)
    manager.unfreeze(strategy)
    manager.record_metrics(strategy, Paper, GOOD)
    manager.promote(strategy)


def test_a_frozen_strategy_can_still_be_demoted(manager: PromotionManager) -> None:
    manager.adopt("a", Small, by="ann", reason="test")
    manager.freeze("a")
    assert manager.demote("a").to_stage is Shadow


def test_a_retired_strategy_takes_nothing_any_more(manager: PromotionManager) -> None:
    strategy = manager.register("a")
    manager.retire(strategy, reason="enough")
    asks: tuple[Callable[[], Any], ...] = (
        lambda: manager.promote(strategy),
        lambda: manager.demote(strategy),
        lambda: manager.freeze(strategy),
        lambda: manager.retire(strategy),
        lambda: manager.record_metrics(strategy, Paper, GOOD),
    )
    for ask in asks:
        with pytest.raises(StrategyRetired):
            ask()
    assert manager.current_stage(strategy) is PromotionStage.Retired
    assert not manager.should_promote(strategy)
    assert not manager.should_demote(strategy)
    assert manager.entitlement(strategy).mode == "none"
    with pytest.raises(StrategyRetired):
        manager.register("a")


def test_a_revision_that_is_no_longer_current_is_refused(
    manager: PromotionManager, clock: VirtualClock
) -> None:
    strategy = _ready(manager, clock)
    rev = manager.snapshot(strategy).rev
    manager.promote(strategy, expected_rev=rev)
    with pytest.raises(StaleRevision) as caught:
        manager.demote(strategy, expected_rev=rev)
    assert (caught.value.expected, caught.value.current) == (rev, rev + 1)


# -- gates, and as a check before a run


def test_a_gate_of_ones_own_replaces_the_criteria_of_its_stage(manager: PromotionManager) -> None:
    manager.add_gate(PromotionGate(Paper, (Criterion("enough_trades", "n_trades", ">=", 10),)))
    strategy = manager.register("a")
    assert manager.evaluate(strategy).verdict == "INCONCLUSIVE"
    manager.record_metrics(strategy, Paper, {"n_trades": 9})
    assert not manager.should_promote(strategy)
    manager.record_metrics(strategy, Paper, {"n_trades": 10})
    assert manager.should_promote(strategy)
    manager.promote(strategy)
    assert {one.name for one in manager.evaluate(strategy).criteria} == {
        "min_days",
        "min_trades",
        "min_sharpe",
        "max_drawdown",
    }


def test_a_gate_without_criteria_proves_nothing(
    manager: PromotionManager, clock: VirtualClock
) -> None:
    strategy = _ready(manager, clock)
    manager.add_gate(PromotionGate(Paper, ()))
    with pytest.raises(GateNotPassed):
        manager.promote(strategy)


@pytest.mark.parametrize(
    ("metric", "limit"), [("", 1.0), ("sharpe", math.nan), ("sharpe", math.inf)]
)
def test_a_criterion_that_cannot_be_judged_is_refused(metric: Any, limit: float) -> None:
    with pytest.raises(ConfigError, match="mine"):
        Criterion("mine", metric, ">=", limit)
    with pytest.raises(ConfigError, match="name"):
        Criterion("", "sharpe", ">=", 1)


@pytest.mark.parametrize("gate", [None, 5, "paper", (Paper, ())])
def test_a_gate_that_is_none_is_refused_by_name(manager: PromotionManager, gate: Any) -> None:
    with pytest.raises(ConfigError, match="is not a PromotionGate"):
        manager.add_gate(gate)


def test_settings_of_ones_own_change_the_gate_and_bad_ones_are_refused(tmp_path: Path) -> None:
    manager = PromotionManager(tmp_path / "p.db", policy=policy_of(min_paper_days=0, min_trades=1))
    strategy = manager.register("a")
    manager.record_metrics(strategy, Paper, {"sharpe": 1.0, "max_drawdown": 0.2, "n_trades": 1})
    assert manager.should_promote(strategy)
    with pytest.raises(ConfigError, match="min_win_rate"):
        policy_of(min_win_rate=45)


def test_the_three_stage_ladder_ends_in_live(tmp_path: Path) -> None:
    policy = policy_of(ladder="three-stage", min_paper_days=0, min_trades=0, min_win_rate=0)
    manager = PromotionManager(tmp_path / "p.db", policy=policy)
    strategy = manager.register("a")
    for stage in (Paper, Shadow):
        manager.record_metrics(strategy, stage, {**GOOD, "win_rate": 0.5})
        manager.promote(strategy)
    assert manager.current_stage(strategy) is PromotionStage.Live
    assert manager.entitlement(strategy).capital == 100_000


def test_require_lets_through_what_is_high_enough(manager: PromotionManager) -> None:
    manager.adopt("a", Small, by="ann", reason="test")
    assert manager.require("a", at_least=Paper) is Small
    assert manager.require("a", at_least=Small) is Small
    with pytest.raises(StageTooLow, match=r"live-small.*live-scaled"):
        manager.require("a", at_least=Scaled)
    manager.retire("a")
    with pytest.raises(StageTooLow):
        manager.require("a", at_least=Paper)


@pytest.mark.parametrize(
    ("stage", "mode", "capital"),
    [
        (Paper, "paper", 100_000),
        (Shadow, "shadow", 100_000),
        (Small, "live", 1_000),
        (Scaled, "live", 100_000),
    ],
)
def test_entitlement_is_the_budget_of_the_documentation(
    manager: PromotionManager, stage: PromotionStage, mode: str, capital: int
) -> None:
    manager.adopt("a", stage, by="ann", reason="test")
    held = manager.entitlement("a")
    assert (held.stage, held.mode, held.capital) == (stage.value, mode, Decimal(capital))
    assert manager.entitlement("a", "50000.50").capital == Decimal("50000.50") * capital / 100_000


def test_a_policy_says_how_much_of_a_budget_simulated_orders_assume(tmp_path: Path) -> None:
    settings = PromotionSettings(stages={"shadow": StageSettings(notional_cap=0.25)})
    manager = PromotionManager(tmp_path / "q.db", policy=policy_of(settings=settings))
    manager.register("a", Shadow)
    held = manager.entitlement("a", 1_000)
    assert (held.mode, held.capital, held.may_open) == ("shadow", Decimal(250), False)


@pytest.mark.parametrize("budget", [-1, "x", math.nan, math.inf, True], ids=repr)
def test_a_budget_that_is_none_is_refused(manager: PromotionManager, budget: Any) -> None:
    manager.register("a")
    with pytest.raises(ValueError, match="budget"):
        manager.entitlement("a", budget)


def test_history_is_newest_first_and_paged(manager: PromotionManager) -> None:
    for name in ("a", "b", "c"):
        manager.register(name)
    assert [line.strategy for line in manager.history()] == ["c", "b", "a"]
    assert [line.strategy for line in manager.history(limit=1)] == ["c"]
    assert [line.strategy for line in manager.history("b")] == ["b"]
    assert manager.history(limit=0) == ()
    with pytest.raises(ValueError, match="limit"):
        manager.history(limit=-1)


def test_the_state_of_then_is_read_by_any_process(
    manager: PromotionManager, clock: VirtualClock, tmp_path: Path
) -> None:
    strategy = _ready(manager, clock)
    before_us = clock.now_us()
    clock.advance(1)
    manager.promote(strategy, by="ann")
    with open_reader(tmp_path / "p.db") as reader:
        for at_us, stage in ((before_us, Paper), (clock.now_us(), Shadow)):
            (state,) = reader.state_as_of(at_us)
            assert (state.name, state.stage) == ("a", stage)
            assert manager.state_as_of(at_us) == (state,)


# -- the file


def test_another_manager_sees_everything_and_goes_on(tmp_path: Path, clock: VirtualClock) -> None:
    first = PromotionManager(tmp_path / "p.db", clock=clock)
    strategy = _ready(first, clock)
    first.promote(strategy)
    second = PromotionManager(str(tmp_path / "p.db"), clock=clock)
    assert second.snapshot(strategy) == first.snapshot(strategy)
    assert second.history() == first.history()
    second.demote("a", reason="from the other one")
    assert first.current_stage("a") is Paper


def test_a_file_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.db").write_bytes(b"no database" * 100)
    with pytest.raises(DatabaseError):
        PromotionManager(tmp_path / "p.db")


def test_threads_share_one_manager(manager: PromotionManager) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda number: manager.register(f"s{number % 10}"), range(40)))
    assert len(set(ids)) == len(manager.strategies()) == 10
    assert len(manager.history()) == 10


def test_a_write_waits_for_another_tools_and_gives_up_with_the_owners_name(
    manager: PromotionManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fundops.promotion.LOCK_WAIT_S", 0.05)
    with OwnerLock(tmp_path / "p.db"), pytest.raises(DatabaseInUse, match="this process"):
        manager.register("a")
    monkeypatch.setattr("fundops.promotion.LOCK_WAIT_S", DEADLINE_S)
    done = threading.Event()

    def register() -> None:
        manager.register("a")
        done.set()

    thread = threading.Thread(target=register)
    with OwnerLock(tmp_path / "p.db"):
        thread.start()
        assert not done.is_set()
    assert done.wait(DEADLINE_S)
    thread.join(DEADLINE_S)


RACE = """
import sys
from fundops import PromotionManager
from fundops.wire.errors import StaleRevision
manager = PromotionManager(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    manager.promote("a", by=sys.argv[2], expected_rev=int(sys.argv[3]))
except StaleRevision as stale:
    print("stale", stale.expected, stale.current)
else:
    print("won")
"""


def test_of_two_processes_promoting_at_once_one_wins_and_the_other_is_told(tmp_path: Path) -> None:
    path = tmp_path / "p.db"
    manager = PromotionManager(path, policy=policy_of(min_paper_days=0))
    gate = "from fundops import PromotionGate, Criterion, PromotionStage\n"
    gate += "criterion = Criterion('t', 'n_trades', '>=', 1)\n"
    gate += "manager.add_gate(PromotionGate(PromotionStage.Paper, (criterion,)))\n"
    program = RACE.replace('print("ready"', gate + 'print("ready"', 1)
    manager.register("a")
    manager.record_metrics("a", Paper, GOOD)
    rev = manager.snapshot("a").rev
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path), name, str(rev)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = sorted(racer.communicate(timeout=DEADLINE_S)[0].strip() for racer in racers)
    assert said == [f"stale {rev} {rev + 1}", "won"]
    assert [line.kind for line in manager.history()] == ["promote", "register"]
    assert manager.current_stage("a") is Shadow


OWN = """
import sys, trio
from fundops import Fund, FundConfig
async def main():
    config = FundConfig(
        total_capital=5, db_path=sys.argv[1], promotion_enabled=True, tick_interval_s=None
    )
    async with Fund.open(config) as fund:
        await fund.promotion.register("a")
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
trio.run(main)
"""


def test_where_a_running_fund_owns_the_file_it_carries_out_the_writes(tmp_path: Path) -> None:
    path = tmp_path / "fund.db"
    manager = PromotionManager(path)
    with subprocess.Popen(
        [sys.executable, "-c", OWN, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdin is not None
        assert owner.stdout.readline() == "ready\n"
        assert manager.current_stage("a") is Paper
        assert manager.register("b", family="mm", budget=12.5) == manager.snapshot("b").strategy_id
        manager.record_metrics("a", Paper, {**GOOD, "returns": [0.01, 0.02, -0.01]})
        assert manager.snapshot("a").metrics["n_trades"] == 150
        manager.add_gate(PromotionGate(Paper, (Criterion("t", "n_trades", ">=", 100),)))
        moved = manager.promote("a", by="ann", request_id="r1")
        assert (moved.from_stage, moved.to_stage, moved.rev) == (Paper, Shadow, 2)
        with pytest.raises(GateNotPassed) as refusal:
            manager.promote("a", by="ann")
        assert refusal.value.evaluation.stage is Shadow
        assert manager.promote("a", by="ann", request_id="r1") == moved
        owner.communicate("", DEADLINE_S)
    assert [line.kind for line in manager.history("a")] == ["promote", "register"]
    with open_reader(path) as reader:
        doors = {row.command: (row.door, row.by) for row in reader.audit()}
    assert doors["promotion.promote"] == ("control", "ann")


class Whole:
    """A whole number of another library, as numpy's are."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


def test_values_mean_the_same_with_and_without_a_running_fund(tmp_path: Path) -> None:
    path = tmp_path / "fund.db"
    manager = PromotionManager(path)

    def check() -> None:
        revision: Any = Whole(manager.snapshot("b").rev)
        less: Any = Decimal("0.005")
        manager.set_cap("b", less, by="ann", reason="less")
        as_before: Any = Fraction(1, 100)
        manager.set_cap("b", as_before, by="ann", reason="as before")
        with pytest.raises(StaleRevision):
            manager.demote("b", by="ann", expected_rev=revision)
        nowhere: Any = "nowhere"
        for ask in (
            lambda: manager.demote("b", to=nowhere),
            lambda: manager.promote("b", to=nowhere),
            lambda: manager.register("c", nowhere),
            lambda: manager.record_metrics("b", nowhere, {}),
        ):
            with pytest.raises(UnknownStage, match="paper, shadow, live-small, live-scaled"):
                ask()

    manager.adopt("b", PromotionStage.Live_Small, by="ann", reason="it trades", budget=100)
    check()
    with subprocess.Popen(
        [sys.executable, "-c", OWN, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        check()
        owner.communicate("", DEADLINE_S)


async def test_in_the_loop_of_a_fund_of_this_process_a_write_is_refused_at_once(
    tmp_path: Path,
) -> None:
    config = FundConfig(
        total_capital=5, db_path=tmp_path / "f.db", promotion_enabled=True, tick_interval_s=None
    )
    async with Fund.open(config):
        with pytest.raises(DatabaseInUse, match="this process"):
            PromotionManager(tmp_path / "f.db").register("a")


def test_a_manager_can_be_made_on_a_file_that_a_running_fund_owns(tmp_path: Path) -> None:
    """Several processes read consistent state: also one that begins while the fund runs."""
    path = tmp_path / "fund.db"
    with subprocess.Popen(
        [sys.executable, "-c", OWN, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        assert PromotionManager(path).current_stage("a") is Paper
        owner.communicate("", DEADLINE_S)


async def test_a_fund_goes_on_where_a_manager_left_off(tmp_path: Path) -> None:
    manager = PromotionManager(tmp_path / "f.db")
    manager.adopt("a", Small, by="ann", reason="test")
    config = FundConfig(
        total_capital=5, db_path=tmp_path / "f.db", promotion_enabled=True, tick_interval_s=None
    )
    async with Fund.open(config) as fund:
        assert await fund.promotion.current_stage("a") is Small
        await fund.promotion.demote("a", reason="by the fund")
    assert manager.history()[0].reason == "by the fund"
    with open_reader(tmp_path / "f.db") as reader:
        assert reader.stages() == {"a": Shadow}


async def _fund_was_there(path: Path, **settings: Any) -> None:
    """A fund with a strategy of its whole capital, of 100,000, that has stopped."""
    config = FundConfig(
        total_capital=100_000,
        db_path=path,
        promotion_enabled=True,
        tick_interval_s=None,
        **settings,
    )
    async with Fund.open(config) as fund:
        await fund.promotion.adopt("all", Scaled, by="ann", reason="it trades")


async def test_the_capital_of_a_stopped_fund_bounds_what_a_manager_allows(
    tmp_path: Path, clock: VirtualClock
) -> None:
    await _fund_was_there(tmp_path / "f.db")
    manager = PromotionManager(tmp_path / "f.db", clock=clock)
    with pytest.raises(CapitalExceeded, match=r"1,?000\.00"):
        manager.adopt("more", Small, by="ann", reason="it trades too")
    manager.adopt("more", Small, by="ann", reason="it trades too", over_capital=True)
    inputs = manager.evaluate("more").inputs
    assert (inputs.capital_minor, inputs.others_minor) == (10**13, 10**13)
    assert inputs.entitled_minor == 10**11
    manager.register("third", Shadow)
    clock.advance(14 * DAY_S)
    manager.record_metrics("third", Shadow, GOOD)
    assert any("capital" in reason for reason in manager.evaluate("third").blocked_by)
    with pytest.raises(CapitalExceeded):
        manager.promote("third")
    manager.retire("all")
    assert manager.promote("third").capital_after == 1_000


@pytest.mark.parametrize(("percent", "fits"), [(None, True), (101.0, True), (100.5, False)])
async def test_a_manager_takes_the_bound_of_the_funds_last_run(
    tmp_path: Path, clock: VirtualClock, percent: float | None, fits: bool
) -> None:
    await _fund_was_there(tmp_path / "f.db", max_total_entitlement_pct=percent)
    manager = PromotionManager(tmp_path / "f.db", clock=clock)
    if fits:
        manager.adopt("more", Small, by="ann", reason="it trades too")
        return
    with pytest.raises(CapitalExceeded):
        manager.adopt("more", Small, by="ann", reason="it trades too")


def test_a_fund_that_never_ran_has_the_bound_of_a_new_one(
    tmp_path: Path, clock: VirtualClock
) -> None:
    prepare(tmp_path / "f.db", identity("fund", "USD", 10**13))
    manager = PromotionManager(tmp_path / "f.db", clock=clock)
    manager.adopt("all", Scaled, by="ann", reason="it trades")
    with pytest.raises(CapitalExceeded):
        manager.adopt("more", Small, by="ann", reason="it trades too")


def test_the_docstring_names_the_files_and_nothing_of_this_machine() -> None:
    text = PromotionManager.__doc__ or ""
    assert not re.search(re.escape(os.sep) + r"(home|root|tmp)\b", text)


# -- what a caller cannot mean


@pytest.mark.parametrize(
    "db_path", [":memory:", "", Path(":memory:"), Path(), "file:x", "a\0b", "\ud800", 5]
)
def test_a_path_that_is_no_files_is_refused(db_path: Any) -> None:
    with pytest.raises(ConfigError, match="db_path"):
        PromotionManager(db_path)
    with pytest.raises(ConfigError, match="db_path"):
        FundConfig(total_capital=1, db_path=db_path).located()


@pytest.mark.parametrize("policy", ["guarded", {}, FundConfig])
def test_a_policy_that_is_none_is_refused(tmp_path: Path, policy: Any) -> None:
    with pytest.raises(ConfigError, match=r"^policy: .* is no PromotionPolicy; policy_of"):
        PromotionManager(tmp_path / "p.db", policy=policy)


def test_a_relative_path_stays_the_same_file_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    manager = PromotionManager("p.db")
    manager.register("a")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert manager.current_stage("a") is Paper


def test_a_history_longer_than_any_file_is_clamped(manager: PromotionManager) -> None:
    manager.register("a")
    assert len(manager.history(limit=10**30)) == 1


def test_freezing_twice_writes_one_line(manager: PromotionManager) -> None:
    manager.register("a")
    for act in (manager.freeze, manager.freeze, manager.unfreeze, manager.unfreeze):
        act("a", by="ann")
    assert [line.kind for line in manager.history()] == ["unfreeze", "freeze", "register"]


@pytest.mark.parametrize(
    ("given", "field"),
    [({"by": None}, "by"), ({"by": ""}, "by"), ({"reason": ""}, "reason")],
)
def test_an_adoption_names_a_person_and_a_reason(
    manager: PromotionManager, given: dict[str, Any], field: str
) -> None:
    with pytest.raises(MetricError) as refusal:
        manager.adopt("a", Small, **{"by": "ann", "reason": "it trades", **given})
    assert refusal.value.field == field
    assert manager.strategies() == ()


def test_a_name_is_no_other_strategys_id_and_is_never_used_again(
    manager: PromotionManager,
) -> None:
    strategy = manager.register("b")
    with pytest.raises(Conflict):
        manager.register(strategy)
    with pytest.raises(MetricError, match="space"):
        manager.register("b ")
    manager.retire("b")
    with pytest.raises(StrategyRetired):
        manager.adopt("b", Small, by="ann", reason="again")


def test_metrics_out_of_their_range_are_refused_and_a_loss_demotes(
    manager: PromotionManager,
) -> None:
    strategy = manager.adopt("a", Small, by="ann", reason="it trades")
    bad: tuple[dict[str, Any], ...] = (
        {"daily_loss": 6.0},
        {"daily_loss": -0.06},
        {"tracking_error": -1},
    )
    for metrics in bad:
        with pytest.raises(MetricError):
            manager.record_metrics(strategy, Small, metrics)
    manager.record_metrics(strategy, Small, {"daily_loss": Decimal("0.049")})
    assert not manager.should_demote(strategy)
    manager.record_metrics(strategy, Small, {"daily_loss": 0.20})
    assert manager.should_demote(strategy)


def test_a_budget_of_its_own_is_the_measure_of_a_strategys_entitlement(
    manager: PromotionManager,
) -> None:
    manager.adopt("a", Small, by="ann", reason="it trades", budget="12345.67")
    assert manager.entitlement("a").capital == Decimal("123.4567")
    assert manager.entitlement("a", 500).capital == 5
    manager.register("b", budget=700)
    assert manager.entitlement("b").capital == 700
    manager.adopt("c", Scaled, by="ann", reason="the manager knows no capital")
    manager.adopt("d", Scaled, by="ann", reason="so it has no bound")


def test_records_count_by_their_instant(manager: PromotionManager, clock: VirtualClock) -> None:
    strategy = _ready(manager, clock)
    now_us = clock.now_us()
    manager.record_metrics(strategy, Paper, GOOD, as_of=now_us - 4 * 86_400_000_000)
    assert manager.should_promote(strategy)
    manager.record_metrics(strategy, Paper, {"sharpe": 0.1, "max_drawdown": 0.3}, as_of=now_us)
    manager.record_metrics(strategy, Paper, GOOD, as_of=now_us - 3_600_000_000)
    assert not manager.should_promote(strategy)


def test_the_trials_of_a_family_count_for_each_of_its_variants(manager: PromotionManager) -> None:
    for name, sharpe in (("s0", 1.0), ("s1", 3.0)):
        manager.register(name, family="variants")
        manager.record_metrics(name, Paper, {"sharpe": sharpe})
    manager.register("alone")
    manager.retire("s1")
    inputs = manager.evaluate("s0").inputs
    assert inputs.trials == 2, "a retired one was a trial too"
    manager.register("s2", family="variants")
    manager.record_metrics("s2", Paper, {"sharpe": 2.0})
    assert manager.evaluate("s2").inputs.trials == 3
    # Of ratios per session; the retired one has left its evidence behind.
    assert manager.evaluate("s2").inputs.trial_variance == pytest.approx(0.5 / 365)
    assert manager.evaluate("alone").inputs.trials == 1


def test_a_family_is_read_once_for_all_its_strategies(
    manager: PromotionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        manager.register(f"s{number}", family="variants")
    read: list[str] = []
    family = schema.family

    def counted(rows: Any, name: str) -> Any:
        read.append(name)
        return family(rows, name)

    monkeypatch.setattr(schema, "family", counted)
    assert len(manager.strategies()) == 5
    assert read == ["variants"]


class Speechless:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def test_a_name_that_cannot_be_told_is_unknown(manager: PromotionManager) -> None:
    with pytest.raises(UnknownStrategy):
        manager.current_stage(Speechless())  # type: ignore[arg-type]
