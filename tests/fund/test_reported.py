"""The words of a host that pushes its state: how many, and when they are too old."""

from __future__ import annotations

from typing import Any

import pytest
import trio.testing

from fundops import ConfigError, FeedStatus, StopReport, StrategyStatus, VirtualClock
from fundops.actors.host import FEEDS_MAX, STRATEGIES_MAX
from fundops.reported import Reported
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund


class Silent:
    """A controller that has acting parts alone, so the host pushes."""

    def pause(self, name: str, reason: str) -> None: ...
    def resume(self, name: str) -> None: ...
    def stop(self, name: str, reason: str) -> None: ...


async def _ticks(world: VirtualFund, count: int, seconds: float = 1) -> None:
    for _ in range(count):
        world.clock.advance(seconds)
        assert (await world.tick()).failed == ()


async def _stale(world: VirtualFund) -> bool:
    return (await world.fund.status()).stale


def test_one_strategy_or_feed_too_many_is_refused_by_name_and_known_ones_go_on() -> None:
    assert STRATEGIES_MAX == FEEDS_MAX == 10_000
    reported = Reported(VirtualClock(START_US))
    for number in range(10_000):
        reported.report(StrategyStatus(f"s{number}", "running"))
        reported.report_feed(f"f{number}")
    with pytest.raises(ConfigError, match="at most 10000 strategies") as refusal:
        reported.report(StrategyStatus("one more", "running"))
    assert refusal.value.field == "name"
    with pytest.raises(ConfigError, match="at most 10000 feeds"):
        reported.report_feed("one more")
    reported.report(StrategyStatus("s7", "failed"))
    reported.report_feed("f7", START_US - 1)
    assert reported.words()["s7"].status.state == "failed"
    assert reported.feeds()["f7"] == FeedStatus("f7", START_US - 1)
    assert len(reported.words()) == len(reported.feeds()) == 10_000


async def test_one_word_for_any_strategy_counts_for_the_host() -> None:
    async with virtual_fund(Silent()) as world:  # type: ignore[arg-type]
        world.fund.report(StrategyStatus("quiet", "running"))
        for _ in range(60):
            world.fund.report(StrategyStatus("busy", "running"))
            await _ticks(world, 1)
        assert not await _stale(world)
        assert world.fund.may_trade("quiet"), "its own sign of life would be heartbeat_us"


@pytest.mark.parametrize("asked", [True, False])
async def test_a_status_pushed_beside_strategies_counts_for_nothing_and_is_named_once(
    asked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    controller: Any = FakeController() if asked else Silent()
    async with virtual_fund(controller) as world:
        await _ticks(world, 1)
        for _ in range(3):
            for name in ("pushed", "another"):
                world.fund.report(StrategyStatus(name, "running"))
            await _ticks(world, 1)
        assert world.fund.may_trade("pushed") is not asked
        title = "fund.report counts for nothing"
        assert [line.message for line in caplog.records if title in line.message] == asked * [
            f"{title}: pushed is pushed, and the controller has strategies(), which alone is asked:"
            " use one of the two"
        ]


async def test_a_pushed_stop_report_is_a_word_of_the_host() -> None:
    async with virtual_fund(Silent()) as world:  # type: ignore[arg-type]
        world.fund.report(StrategyStatus("s", "running"))
        await _ticks(world, 11)
        assert await _stale(world)
        world.fund.report_stopped(StopReport(0, 0))
        await _ticks(world, 1)
        assert not await _stale(world)


async def test_a_report_pushed_before_the_kill_switch_engaged_confirms_nothing() -> None:
    async with virtual_fund(Silent()) as world:  # type: ignore[arg-type]
        switch = world.fund.kill_switch
        world.fund.report(StrategyStatus("s", "running"))
        await _ticks(world, 1)
        world.fund.report_stopped(StopReport(0, 0))  # the guard hears of it after the engagement
        assert (await switch.engage(reason="x", by="me")).state == "UNCONFIRMED"
        await trio.testing.wait_all_tasks_blocked()
        assert (await switch.status()).state == "UNCONFIRMED"
        world.fund.report_stopped(StopReport(0, 0))
        await trio.testing.wait_all_tasks_blocked()
        assert (await switch.status()).state == "ENGAGED"


@pytest.mark.parametrize(
    ("settings", "silent_s"),
    [
        ({"tick_interval_s": None}, 10),
        ({"tick_interval_s": 1.0}, 10),
        ({"tick_interval_s": 5.0}, 15),
        ({"tick_interval_s": 5.0, "host_silent_s": 40}, 40),
        ({"tick_interval_s": None, "host_silent_s": 2}, 2),
    ],
)
async def test_a_host_is_silent_after_three_ticks_or_its_limit_whichever_is_longer(
    settings: dict[str, float | None], silent_s: int
) -> None:
    async with virtual_fund(Silent(), **settings) as world:  # type: ignore[arg-type]
        world.fund.report(StrategyStatus("s", "running"))
        await world.tick()
        await _ticks(world, silent_s)
        assert not await _stale(world), "exactly the limit is not beyond it"
        await _ticks(world, 1)
        assert await _stale(world)
