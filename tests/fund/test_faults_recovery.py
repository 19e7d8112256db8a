"""Recovery in a whole fund: states without an end, clocks that are set, feeds that lie."""

from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from fundops.actors.recovery import RecoverySettings
from fundops.config import FundConfig
from fundops.fund import Fund
from fundops.runtime import ConfigError, InlineWorker, VirtualClock
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.alert import Category, Level
from fundops.wire.controller import FeedStatus, StrategyStatus
from fundops.wire.errors import BadRequest, UnknownStrategy, UnmanagedStrategy
from fundops.wire.promotion import PromotionStage
from fundops.wire.recovery import RecoveryPhase, RecoveryStatus

SECOND = 1_000_000
P = RecoveryPhase


class SteppedClock(VirtualClock):
    """A clock whose wall time can be set."""

    step_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.step_us


class Restarts(FakeController):
    """A controller with one strategy whose restarts do what a test says."""

    def __init__(self) -> None:
        super().__init__(StrategyStatus("s", "running", equity=1000, allocated=1000))
        self.restarts = 0

    def restarted(self, name: str) -> None:
        self.set(name, state="running", error=None)

    async def restart(self, name: str, *, attempt_id: str) -> None:
        self.restarts += 1
        self.restarted(name)


async def ticks(world: VirtualFund, count: int, seconds: float = 1) -> None:
    for _ in range(count):
        world.clock.advance(seconds)
        await world.tick()


async def status(world: VirtualFund, name: str = "s") -> RecoveryStatus:
    [found] = [one for one in await world.fund.recovery.statuses() if one.name == name]
    return found


def titles(world: VirtualFund, level: Level) -> list[str]:
    return [alert.title for alert in world.sent_alerts() if alert.level is level]


# -- what people give


@pytest.mark.parametrize("by", [ValueError("x"), "\ud800", None, "", 5, "b" * 100_000])
async def test_a_hold_takes_any_name_and_can_be_released(by: Any) -> None:
    controller = Restarts()
    async with virtual_fund(controller, self_healing_enabled=True) as world:
        await ticks(world, 1)
        assert await world.fund.recovery.hold("s", by=by)
        assert (await status(world)).phase is P.HELD
        controller.set("s", state="failed")
        await ticks(world, 5)
        assert controller.restarts == 0
        assert await world.fund.recovery.release("s", by="ann")
        assert (await status(world)).phase is not P.HELD


@pytest.mark.parametrize("by", [ValueError("x"), "", "  ", None, 5])
async def test_what_loosens_is_refused_without_a_name(by: Any) -> None:
    async with virtual_fund(Restarts(), self_healing_enabled=True) as world:
        await ticks(world, 1)
        await world.fund.recovery.hold("s", by="ann")
        world.controller.set("other", equity=1_000, allocated=1_000)
        await ticks(world, 1)
        world.controller.set("other", equity=500)
        await ticks(world, 1)
        for loosening in (
            world.fund.recovery.release("s", by=by),
            world.fund.recovery.reset("s", by=by),
            world.fund.resume("other", by=by, reason="r"),
        ):
            with pytest.raises(BadRequest) as refusal:
                await loosening
            assert refusal.value.field == "by"
        assert (await status(world)).phase is P.HELD
        assert world.controller.statuses["other"].state == "paused"


@pytest.mark.parametrize("name", [[], 5, None, "\ud800"])
async def test_a_name_that_is_none_crashes_no_actor(name: Any) -> None:
    async with virtual_fund(Restarts(), self_healing_enabled=True) as world:
        await ticks(world, 1)
        for order in (world.fund.recovery.hold, world.fund.recovery.release):
            with pytest.raises(UnmanagedStrategy):
                await order(name, by="ann")
        with pytest.raises(ConfigError, match=r"^(name|strategy): "):
            await world.fund.resume(name, by="ann", reason="r")
        with pytest.raises(ConfigError, match=r"^(name|strategy): "):
            await world.fund.confirm_counters(name, by="ann", reason="r")
        assert (await world.tick()).failed == ()


# -- a half-open state has an end


async def test_a_restart_that_leaves_a_strategy_pending_ends_in_an_open_breaker() -> None:
    class Pending(Restarts):
        def restarted(self, name: str) -> None:
            self.set(name, state="pending", error=None)

    controller = Pending()
    async with virtual_fund(controller, self_healing_enabled=True) as world:
        controller.set("s", state="failed")
        await ticks(world, 11, 60)
        assert (await status(world)).phase is P.COOLDOWN
        await ticks(world, 1_429, 60)
        assert (await status(world)).phase is P.OPEN
        assert controller.restarts == 3
        assert titles(world, Level.CRITICAL)[:2] == ["s: failed", "s: given up, breaker open"]


async def test_a_live_strategy_that_is_given_up_is_demoted_once_in_that_episode(
    tmp_path: Path,
) -> None:
    controller, path = FakeController(), tmp_path / "x.db"
    controller.failures["restart"] = RuntimeError("no")
    both: dict[str, Any] = {
        "promotion_enabled": True,
        "self_healing_enabled": True,
        "db_path": path,
    }
    async with virtual_fund(controller, **both) as world:
        await world.fund.promotion.adopt("s", PromotionStage.Live_Scaled, by="ann", reason="r")
        await world.fund.promotion.adopt("p", PromotionStage.Paper, by="ann", reason="r")
        for name in ("s", "p"):
            controller.set(name, state="failed", error="boom")
        await ticks(world, 30, 60)
        assert (await status(world)).phase is P.OPEN
        found = await world.fund.promotion.snapshot("s")
        assert found.stage is PromotionStage.Live_Small
        line = found.history[-1]
        assert (line.kind, line.by, line.reason.split(":")[0]) == (
            "demote",
            "recovery",
            "recovery gave it up",
        )
        assert found.cooldown_until is not None
        assert await world.fund.promotion.current_stage("p") is PromotionStage.Paper
        critical = titles(world, Level.CRITICAL)
        assert "s demoted to live-small" in critical
    async with virtual_fund(controller, clock=world.clock, **both) as world:
        await ticks(world, 3, 60)
        assert await world.fund.promotion.current_stage("s") is PromotionStage.Live_Small, (
            "the same episode"
        )
        await world.fund.recovery.reset("s", by="ann")
        await ticks(world, 30, 60)
        assert (await status(world)).phase is P.OPEN
        assert await world.fund.promotion.current_stage("s") is PromotionStage.Shadow, (
            "a new episode"
        )


async def test_a_crash_while_the_restart_call_runs_counts_as_a_failed_attempt() -> None:
    class Crashing(Restarts):
        clock: Any = None

        def restarted(self, name: str) -> None:
            started_us = self.clock.now_us()
            self.clock.advance(2)
            self.set(name, state="failed", at_us=started_us + SECOND)

    controller = Crashing()
    async with virtual_fund(controller, self_healing_enabled=True) as world:
        controller.clock = world.clock
        controller.set("s", state="failed")
        await ticks(world, 600, 10)
        assert (await status(world)).phase is P.OPEN
        assert controller.restarts == 3


@pytest.mark.parametrize("state", ["error", "FAILED", "crashed", "runing"])
async def test_a_state_that_no_one_knows_is_restarted_and_told(state: Any) -> None:
    controller = Restarts()
    async with virtual_fund(controller, self_healing_enabled=True) as world:
        controller.set("s", state=state)
        await ticks(world, 3)
        assert controller.restarts == 1
        assert "s: failed" in titles(world, Level.CRITICAL), "promotion is off: its money is real"


# -- clocks that are set


@pytest.mark.parametrize("jump_s", [3_600, -3_600])
async def test_a_wall_clock_that_jumps_changes_no_verdict_and_is_one_event(jump_s: int) -> None:
    clock, controller = SteppedClock(START_US), Restarts()
    async with virtual_fund(controller, clock=clock, self_healing_enabled=True) as world:
        for second in range(400):
            if second == 200:
                clock.step_us = jump_s * SECOND
            clock.advance(1)
            if second % 3 == 0:
                controller.feed_statuses = [FeedStatus("ticks", clock.now_us())]
            await world.tick()
        found = await world.fund.recovery.event_history()
        assert [(one.action, one.target, one.error) for one in found] == [
            ("clock_jump", "clock", str(jump_s))
        ]


async def test_a_cooldown_of_a_minute_lasts_one_when_the_clock_goes_back() -> None:
    class Raising(Restarts):
        def restarted(self, name: str) -> None:
            raise RuntimeError("no")

    clock, controller = SteppedClock(START_US), Raising()
    async with virtual_fund(controller, clock=clock, self_healing_enabled=True) as world:
        controller.set("s", state="failed")
        await ticks(world, 10)
        clock.step_us = -3_600 * SECOND
        await ticks(world, 50)
        assert controller.restarts == 1
        await ticks(world, 2)
        assert controller.restarts == 2
        assert (await status(world)).due_us == clock.now_us() + 119 * SECOND


# -- feeds


async def test_one_wrong_feed_is_named_and_recovery_lives_on() -> None:
    controller = Restarts()
    async with virtual_fund(controller, self_healing_enabled=True) as world:
        wrong: Any = "12:00"
        for _ in range(30):
            world.clock.advance(10)
            controller.feed_statuses = [
                FeedStatus("x", wrong),
                FeedStatus("good", world.clock.now_us()),
            ]
            report = await world.tick()
            assert report.failed == ()
        assert titles(world, Level.WARNING) == ["feed x: its status is wrong"]
        assert "last_data_us: '12:00'" in world.sent_alerts()[0].message


# -- the restart call


async def test_the_restart_deadline_that_was_set_is_the_one_that_is_kept(
    autojump_clock: MockClock,
) -> None:
    class Slow(Restarts):
        async def restart(self, name: str, *, attempt_id: str) -> None:
            await trio.sleep(100)
            self.set(name, state="running", error=None)

    controller = Slow()
    settings = RecoverySettings(restart_deadline_s=70)
    async with virtual_fund(controller, self_healing_enabled=True, recovery=settings) as world:
        controller.set("s", state="failed")
        world.clock.advance(1)
        await world.fund.tick()
        phases = []
        for _ in range(4):
            phases.append((await status(world)).phase)
            await trio.sleep(34.5)
        assert phases == [P.RESTARTING, P.RESTARTING, P.RESTARTING, P.PROBATION]
        [late] = await world.fund.recovery.event_history()
        assert late.error == "no answer within 70 s"


async def test_recovery_answers_a_question_from_inside_its_restart_call() -> None:
    class Asking(Restarts):
        world: Any = None

        async def restart(self, name: str, *, attempt_id: str) -> None:
            assert [one.name for one in await self.world.fund.recovery.statuses()] == ["s"]
            assert await self.world.fund.recovery.hold(name)
            assert await self.world.fund.recovery.release(name)
            await super().restart(name, attempt_id=attempt_id)

    controller = Asking()
    async with virtual_fund(controller, self_healing_enabled=True) as world:
        controller.world = world
        controller.set("s", state="failed")
        await ticks(world, 2)
        assert (await status(world)).phase is P.PROBATION


async def test_the_attempts_of_two_funds_at_one_engine_have_different_ids(tmp_path: Path) -> None:
    ids: list[str] = []

    class Noting(Restarts):
        async def restart(self, name: str, *, attempt_id: str) -> None:
            ids.append(attempt_id)
            self.restarted(name)

    controller = Noting()
    for number in range(2):
        config = FundConfig(
            total_capital=1,
            db_path=tmp_path / f"{number}.db",
            tick_interval_s=None,
            control_socket=False,
            self_healing_enabled=True,
        )
        controller.set("s", state="failed")
        async with Fund.open(config, controller, make_worker=lambda name: InlineWorker()) as fund:
            await fund.tick()
            await fund.host.acts.idle()
    assert [one.rpartition("-")[2] for one in ids] == ["s:1:1", "s:1:1"]
    assert len(set(ids)) == 2


@pytest.mark.parametrize("by", [None, "", "\ud800", 5, [], "x" * 5_000])
async def test_no_value_of_by_stops_a_hold_and_only_a_name_ends_it(by: Any) -> None:
    async with virtual_fund(Restarts(), self_healing_enabled=True) as world:
        await ticks(world, 1)
        assert await world.fund.recovery.hold("s", by=by)
        if not isinstance(by, str) or not by:
            for end in (world.fund.recovery.release, world.fund.recovery.reset):
                with pytest.raises(BadRequest, match="by"):
                    await end("s", by=by)
        assert await world.fund.recovery.release("s", by="ann")
        assert all(child.restarts == 0 for child in world.fund.tree())


async def test_a_name_that_is_no_text_is_refused_and_no_actor_crashes() -> None:
    async with virtual_fund(Restarts(), promotion_enabled=True, self_healing_enabled=True) as world:
        await ticks(world, 1)
        fund, name = world.fund, cast(Any, [])
        for asked in (
            fund.recovery.hold(name),
            fund.recovery.reset(name),
            fund.promotion.snapshot(name),
            fund.promotion.demote(name),
            fund.promotion.record_metrics(name, PromotionStage.Paper, {}),
            fund.promotion.history(name),
        ):
            with pytest.raises((UnmanagedStrategy, UnknownStrategy)):
                await asked
        for asked_of_guard in (
            fund.resume(name, by="ann", reason="r"),
            fund.confirm_counters(name, by="ann", reason="r"),
        ):
            with pytest.raises(ConfigError, match=r"^(name|strategy): "):
                await asked_of_guard
        assert all(child.restarts == 0 for child in fund.tree())


# -- a setting does what it says


async def test_new_failures_are_looked_for_every_few_ticks_and_known_ones_at_each() -> None:
    controller = Restarts()
    async with virtual_fund(
        controller, self_healing_enabled=True, recovery_every_ticks=10
    ) as world:
        await ticks(world, 1)
        controller.set("s", state="failed")
        await ticks(world, 9)
        assert controller.restarts == 0
        await ticks(world, 1)
        assert controller.restarts == 1
        # It runs again, and relapses within its probation: that is seen at the next tick.
        await ticks(world, 1)
        controller.set("s", state="failed")
        await ticks(world, 1)
        assert (await status(world)).phase is P.COOLDOWN


async def test_a_failure_before_the_first_tick_is_found_by_it() -> None:
    controller = Restarts()
    controller.set("s", state="failed")
    async with virtual_fund(
        controller, self_healing_enabled=True, recovery_every_ticks=1_000
    ) as world:
        await ticks(world, 1)
        assert controller.restarts == 1


@pytest.mark.parametrize("healing", [True, False])
@pytest.mark.parametrize(
    ("stage", "level"), [("live-small", Level.CRITICAL), ("paper", Level.WARNING)]
)
async def test_the_failure_of_a_strategy_with_real_money_is_critical(
    stage: str, level: Level, healing: bool
) -> None:
    fake = FakeController(StrategyStatus("s", "running", 1_000, 1_000, stage=stage))
    async with virtual_fund(
        fake, promotion_enabled=True, self_healing_enabled=healing, recovery_every_ticks=1
    ) as world:
        await world.fund.promotion.adopt("s", PromotionStage(stage), by="a", reason="r")
        await ticks(world, 2)
        fake.set("s", state="failed", error="boom")
        await ticks(world, 1)
        [told] = [alert for alert in world.sent_alerts() if alert.title == "s: failed"]
        assert (told.level, told.category) == (level, Category.STRATEGY_FAILURE)
        fake.set("s", state="running", error=None)
        await ticks(world, 1)
        assert "s: running again" in titles(world, Level.INFO)
