"""Strategies that fail at once are one alert."""

from __future__ import annotations

from typing import Any

import pytest

from fundops.actors.oversight.many import AtOnce, ManyWatch, limit_of
from fundops.config import FundConfig
from fundops.runtime import ConfigError
from fundops.testing import FakeController, VirtualFund, virtual_fund
from fundops.wire.controller import StrategyState, StrategyStatus


def _engine(count: int) -> FakeController:
    return FakeController(*(StrategyStatus(f"s{i}", "running", 10, 10) for i in range(count)))


def _told(world: VirtualFund) -> list[tuple[str, str]]:
    return [
        (alert.level.value, alert.title)
        for alert in world.sent_alerts()
        if alert.category.value == "STRATEGY_FAILURE"
    ]


@pytest.mark.parametrize(
    ("setting", "counts"),
    [
        ("max(3, 5%)", {0: 3, 60: 3, 61: 4, 100: 5, 1_000: 50}),
        ("max(1, 12.5%)", {4: 1, 8: 1, 9: 2}),
        (4, {0: 4, 10_000: 4}),
    ],
)
def test_many_are_a_number_or_a_share(setting: str | int, counts: dict[int, int]) -> None:
    rule = limit_of(setting)
    assert rule is not None
    assert {strategies: rule.of(strategies) for strategies in counts} == counts


@pytest.mark.parametrize("setting", [0, -1, "", "3", "max(3,5%)", "max(0, 5%)", "max(3, 101%)"])
def test_another_rule_is_refused_with_the_field(setting: str | int) -> None:
    with pytest.raises(ConfigError) as refusal:
        FundConfig(total_capital=1, max_failed_strategies=setting)
    assert refusal.value.field == "max_failed_strategies"


def _statuses(*failed: str, count: int = 10) -> list[StrategyStatus]:
    names = [f"s{number}" for number in range(count)]
    return [StrategyStatus(n, "failed" if n in failed else "running") for n in names]


def test_failures_within_thirty_seconds_count_together() -> None:
    watch = ManyWatch(AtOnce(3, 5), told=False)
    assert watch.look(_statuses(), 0) == []
    assert watch.look(_statuses("s0"), 1) == []
    assert watch.look(_statuses("s0", "s1"), 20) == []
    assert watch.look(_statuses("s0", "s1", "s2"), 31.5) == []
    (alert,) = watch.look(_statuses("s0", "s1", "s2", "s3"), 50)
    assert alert.message == "3 of 10 within 30 s: s1, s2, s3"
    assert watch.named == {"s1", "s2", "s3"}
    assert watch.look(_statuses("s0", "s1", "s2", "s3", "s4", "s5"), 51) == [], "one alert"
    assert watch.look(_statuses("s0", "s3"), 60) == []
    (end,) = watch.look(_statuses("s0"), 61)
    assert end.resolves


@pytest.mark.parametrize(
    ("state", "counts"),
    [("pending", True), ("running", True), ("failed", True)]
    + [(state, False) for state in ("paused", "stopped", "retired")],
)
def test_the_share_is_of_those_that_run_are_about_to_or_have_failed(
    state: StrategyState, counts: bool
) -> None:
    watch = ManyWatch(AtOnce(1, 60), told=False)
    other = StrategyStatus("other", state)
    watch.look([other, StrategyStatus("s", "running")], 0)
    # One of one is many by this rule, and one of two is not.
    found = watch.look([other, StrategyStatus("s", "failed")], 1)
    assert bool(found) is not counts


def test_what_had_failed_before_the_start_is_no_news() -> None:
    watch = ManyWatch(AtOnce(3, 5), told=False)
    assert watch.look(_statuses("s0", "s1", "s2"), 0) == []
    told = ManyWatch(AtOnce(3, 5), told=True)
    assert told.look(_statuses("s0"), 0) == []
    assert [alert.resolves for alert in told.look(_statuses(), 1)] == [True]


@pytest.mark.parametrize("settings", [{}, {"self_healing_enabled": True}])
async def test_those_that_one_alert_names_get_none_of_their_own(settings: dict[str, Any]) -> None:
    engine = _engine(10)
    engine.failures["restart"] = RuntimeError("no")
    async with virtual_fund(engine, alert_log=True, recovery_every_ticks=1, **settings) as world:
        await world.tick()
        for name in ("s0", "s1", "s2"):
            engine.set(name, state="failed", error="no link")
        world.clock.advance(1)
        await world.tick()
        many = ("CRITICAL", "Many strategies have failed at once")
        assert _told(world) == [many]
        engine.set("s7", state="failed", error="late")
        world.clock.advance(1)
        await world.tick()
        assert [title for _, title in _told(world)] == [many[1], "s7: failed"]
        for name in ("s0", "s1", "s2"):
            engine.set(name, state="running", error=None)
        world.clock.advance(1)
        await world.tick()
        assert ("INFO", "None of the strategies that failed at once is failed") in _told(world)


async def test_switched_off_each_strategy_is_told() -> None:
    engine = _engine(4)
    async with virtual_fund(engine, alert_log=True, max_failed_strategies=None) as world:
        await world.tick()
        for name in engine.statuses:
            engine.set(name, state="failed")
        await world.tick()
        assert [title for _, title in _told(world)] == [f"s{i}: failed" for i in range(4)]
