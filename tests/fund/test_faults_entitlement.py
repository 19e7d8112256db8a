"""Freshness, leases and entitlements as outsiders found them at fault."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from fundops import Fund, FundConfig, PromotionStage, StrategyStatus, VirtualClock
from fundops.actors.oversight.steps.guard import GuardStep
from fundops.fund import started_title
from fundops.reader import open_reader
from fundops.runtime import ActorError, InlineWorker
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.errors import BadRequest, HostFault, KillSwitchEngaged

HEAL: dict[str, Any] = {"self_healing_enabled": True}
PROMO: dict[str, Any] = {"promotion_enabled": True}
NO_FEES: dict[str, Any] = {"management_fee_bps": 0, "performance_fee_pct": 0}
P, D = PromotionStage, Decimal


def _fake(**more: Any) -> FakeController:
    return FakeController(
        StrategyStatus("s", "running", **{"equity": 1000, "allocated": 1000, **more})
    )


async def _ticks(world: VirtualFund, count: int, seconds: float = 1) -> None:
    for _ in range(count):
        world.clock.advance(seconds)
        await world.tick()


async def _adopt(world: VirtualFund, stage: PromotionStage) -> None:
    await world.fund.promotion.adopt("s", stage, by="a", reason="r")


def _held(world: VirtualFund) -> tuple[str, bool, bool]:
    held = world.fund.entitlement("s")
    assert (held.may_open, held.may_close) == (
        world.fund.may_trade("s"),
        world.fund.may_close("s"),
    )
    return held.mode, held.may_open, held.may_close


def _told(world: VirtualFund, title: str) -> list[str]:
    return [a.level.value for a in world.sent_alerts() if title in a.title]


class Pushing:
    """A fund whose host pushes its state."""

    def __init__(self, fund: Fund, clock: VirtualClock) -> None:
        self.fund, self.clock = fund, clock

    def say(self, **more: Any) -> None:
        self.fund.report(StrategyStatus("m", "running", equity=1000, allocated=1000, **more))

    async def ticks(self, count: int, seconds: float = 1) -> None:
        for _ in range(count):
            self.clock.advance(seconds)
            assert (await self.fund.tick()).failed == ()

    def told(self) -> list[tuple[str, str]]:
        with open_reader(self.fund.config.path) as reader:
            page = reader.recent_alerts(100)
        return [
            (alert.level.value, alert.title)
            for alert in reversed(page.alerts)
            if alert.title != started_title("fund")
        ]


@asynccontextmanager
async def _pushing(folder: Path, **settings: Any) -> AsyncIterator[Pushing]:
    defaults = {
        "total_capital": 100_000,
        "tick_interval_s": None,
        "db_path": folder / "x.db",
        "control_socket": False,
        "self_healing_enabled": True,
    }
    clock = VirtualClock(START_US)
    config = FundConfig(**{**defaults, **settings})
    async with Fund.open(config, clock=clock, make_worker=lambda _: InlineWorker()) as fund:
        yield Pushing(fund, clock)


# -- freshness


async def test_a_cached_word_grows_old(tmp_path: Path) -> None:
    async with _pushing(tmp_path) as host:
        host.say()
        await host.ticks(1, 0)
        assert host.fund.may_trade("m")
        await host.ticks(10)
        assert host.told() == []
        await host.ticks(1)
        assert host.told() == [("WARNING", "Host silent")]
        status = await host.fund.status()
        assert (status.stale, status.data_age_s, status.running_strategies) == (True, 11.0, 1)
        await host.ticks(28)
        assert host.fund.may_trade("m"), "renewed up to 10 s, ended by 40 s"
        await host.ticks(2)
        assert not host.fund.may_trade("m")
        assert host.fund.may_close("m")
        await host.ticks(200, 50)
        assert host.told()[1:] == [("CRITICAL", "Host silent with real money live")]
        assert (await host.fund.kill_switch.status()).state == "OFF"
        host.say()
        await host.ticks(1)
        assert host.fund.may_trade("m")
        assert host.told()[2:] == [("INFO", "Host reports again")] * 2
        assert not (await host.fund.status()).stale


async def test_a_silent_host_is_a_kill_where_it_is_asked_for(tmp_path: Path) -> None:
    async with _pushing(tmp_path, on_blind="kill") as host:
        host.say()
        await host.ticks(59)
        assert (await host.fund.kill_switch.status()).state == "OFF"
        await host.ticks(2)
        assert (await host.fund.kill_switch.status()).state == "UNCONFIRMED"


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("at_us", ["Host silent", "Host silent with real money live"]),
        ("heartbeat_us", []),  # a sign of life of that strategy alone
    ],
)
async def test_the_hosts_own_instants_age_its_words(
    tmp_path: Path, field: str, told: list[str]
) -> None:
    async with _pushing(tmp_path) as host:
        for _ in range(110):  # said again and again, and the same each time
            host.say(**{field: START_US})
            await host.ticks(1)
        assert not host.fund.may_trade("m")
        assert [title for _, title in host.told()] == told


async def test_a_clock_of_the_wall_that_jumps_prolongs_no_lease() -> None:
    class Jumping(VirtualClock):
        jump_us = 0

        def now_us(self) -> int:
            return super().now_us() + self.jump_us

    clock = Jumping(START_US)
    async with virtual_fund(_fake(), clock=clock) as world:
        await _ticks(world, 1)
        clock.jump_us = -3_600_000_000
        assert world.fund.may_trade("s")
        clock.advance(31)
        assert not world.fund.may_trade("s")
        assert world.fund.may_close("s")


async def test_our_own_stall_is_not_the_hosts_silence(tmp_path: Path) -> None:
    async with _pushing(tmp_path, tick_interval_s=1.0) as host:
        host.say()
        await host.fund.tick()
        host.clock.advance(3_600)  # a suspended machine: no tick, and no word
        await host.fund.tick()
        assert host.told() == []
        assert host.fund.may_trade("m")
        for _ in range(11):
            host.clock.advance(1)
            await host.fund.tick()
        assert host.told() == [("WARNING", "Host silent")]


async def test_strategies_that_raise_are_shown_as_stale() -> None:
    async with virtual_fund(_fake(), **HEAL) as world:
        await _ticks(world, 1)
        world.controller.failures["strategies"] = ConnectionError()
        await _ticks(world, 45)
        status = await world.fund.status()
        assert (status.running_strategies, status.stale, status.data_age_s) == (1, True, 45.0)


async def test_an_answer_of_which_every_status_is_wrong_is_a_word_of_the_host() -> None:
    async with virtual_fund(_fake(), **HEAL) as world:
        await _ticks(world, 1)
        world.controller.set("s", equity="10")
        await _ticks(world, 70)
        status = await world.fund.status()
        assert (status.nav, status.stale, status.data_age_s) == (D(100_000), False, 0.0)
        assert not world.fund.may_trade("s")
        told = [(alert.level.value, alert.title) for alert in world.sent_alerts()]
        assert told == [("WARNING", "s: its status is wrong")]
        assert ("emergency_stop",) not in world.controller.calls
        # By an older instant of its own a good status makes the host as old.
        old_us = world.clock.now_us() - 20_000_000
        world.controller.set("s", equity=1000, at_us=old_us)
        await _ticks(world, 1)
        assert (await world.fund.status()).data_age_s == 21.0


async def test_a_strategies_that_hangs_makes_the_host_silent_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Hanging(FakeController):
        hangs = False

        async def strategies(self) -> Any:  # type: ignore[override]
            if self.hangs:
                await trio.sleep_forever()
            return super().strategies()

    fake = Hanging(StrategyStatus("s", "running", equity=1000, allocated=1000))
    async with virtual_fund(fake, **HEAL) as world:
        await _ticks(world, 1)
        fake.hangs = True
        await _ticks(world, 1)
        assert _told(world, "Host silent") == []
        await trio.sleep(1.1)
        await _ticks(world, 1)
        assert _told(world, "Host silent") == ["WARNING"]
        fake.hangs = False
        await trio.sleep(1.1)
        await _ticks(world, 1)
        assert world.fund.may_trade("s")


# -- entitlements


async def test_the_table_of_entitlements_with_promotion_off() -> None:
    async with virtual_fund(_fake()) as world:
        assert _held(world) == ("none", False, False)
        await _ticks(world, 1)
        assert _held(world) == ("live", True, True)
        for state in ("paused", "failed", "stopped", "retired"):
            world.controller.set("s", state=state)
            await _ticks(world, 1)
            assert _held(world) == ("reduce", False, True), state
        world.controller.set("s", state="pending")
        await _ticks(world, 1)
        assert _held(world) == ("live", True, True)
        world.clock.advance(31)
        assert _held(world) == ("reduce", False, True)
        await _ticks(world, 1)
        await world.fund.kill_switch.engage(reason="x", by="me")
        assert _held(world) == ("reduce", False, True)
        assert world.fund.entitlement("s").capital == 0
    assert _held(world) == ("reduce", False, True), "the fund has stopped"


async def test_the_memory_of_real_money_outlives_the_process(tmp_path: Path) -> None:
    fake = _fake(stage="live-small")
    async with virtual_fund(fake, db_path=tmp_path / "x.db", **PROMO) as world:
        await _adopt(world, P.Live_Small)
        await _ticks(world, 2)
        assert _held(world) == ("live", True, True)
    async with virtual_fund(fake, db_path=tmp_path / "x.db", **PROMO) as world:
        assert _held(world) == ("reduce", False, True)


async def test_a_demoted_strategy_closes_until_its_session_ends() -> None:
    async with virtual_fund(_fake(stage="live-small"), **PROMO) as world:
        await _adopt(world, P.Live_Small)
        await _ticks(world, 2)
        await world.fund.promotion.demote("s", to=P.Shadow, reason="r")
        await _ticks(world, 2)
        assert _held(world) == ("reduce", False, True)
        world.clock.advance(60)
        await world.tick("2026-01-05")
        await _ticks(world, 1)
        assert _held(world) == ("shadow", False, True)


async def test_what_never_had_real_money_closes_nothing() -> None:
    async with virtual_fund(_fake(stage="paper"), **PROMO) as world:
        await _ticks(world, 1)
        assert _held(world) == ("none", False, False)
        await world.fund.promotion.register("s")
        await _ticks(world, 2)
        assert _held(world) == ("paper", False, False)


async def test_real_money_that_is_not_registered_may_only_close() -> None:
    async with virtual_fund(_fake(stage="live"), **PROMO) as world:
        await _ticks(world, 1)
        assert _held(world) == ("reduce", False, True)


@pytest.mark.parametrize(
    "in_force",
    [
        {"stage": "live-scaled"},
        {"stage": "live-small", "capital_cap": 100_000},
        {"stage": "live-small", "allocated": 50_000, "equity": 50_000},
    ],
)
async def test_above_its_entitlement_it_may_only_close_until_equal(in_force: Any) -> None:
    async with virtual_fund(_fake(stage="live-small"), **PROMO) as world:
        await _adopt(world, P.Live_Small)
        await _ticks(world, 2)
        assert _held(world) == ("live", True, True)
        world.controller.failures["set_stage"] = RuntimeError()
        for incident in (1, 2):
            world.controller.set("s", **in_force)
            await _ticks(world, 5)
            assert _held(world) == ("reduce", False, True)
            assert _told(world, "s is above its entitlement") == ["CRITICAL"] * incident
            equal = {"stage": "live-small", "capital_cap": 1000, "allocated": 1000}
            world.controller.set("s", equity=1000, **equal)
            await _ticks(world, 1)
            assert _held(world) == ("live", True, True)
            assert _told(world, "s is within its entitlement again") == ["INFO"] * incident


async def test_a_cap_that_differs_is_set_right() -> None:
    async with virtual_fund(_fake(stage="live-small"), **PROMO) as world:
        await _adopt(world, P.Live_Small)
        world.controller.set("s", capital_cap=100_000)
        await _ticks(world, 2)
        assert ("set_stage", "s", "live-small", 1_000) in world.controller.calls
        assert _held(world) == ("live", True, True)


async def test_under_the_switch_no_stage_is_raised() -> None:
    async with virtual_fund(_fake(stage="paper"), **PROMO) as world:
        await world.fund.kill_switch.engage(reason="x", by="me")
        await _adopt(world, P.Live_Small)
        await _ticks(world, 3)
        assert not any(call[0] == "set_stage" for call in world.controller.calls)


async def test_under_freeze_the_engine_is_told_nothing() -> None:
    fake = _fake(stage="live-scaled")
    async with virtual_fund(fake, kill_action="freeze", **PROMO) as world:
        await _adopt(world, P.Live_Small)
        await world.fund.kill_switch.engage(reason="x", by="me")
        fake.set("s", equity=100)
        await _ticks(world, 3)
        assert {call[0] for call in fake.calls} == {"stop_all"}


async def test_a_live_strategy_that_leaves_the_list_is_told() -> None:
    async with virtual_fund(_fake(), **HEAL) as world:
        await _ticks(world, 1)
        gone = world.controller.statuses.pop("s")
        await _ticks(world, 30, 60)
        assert _told(world, "s left the engine's list") == ["CRITICAL"]
        assert _held(world) == ("reduce", False, True)
        world.controller.statuses["s"] = gone
        await _ticks(world, 1)
        assert _told(world, "s is listed again") == ["INFO"]
        assert _held(world) == ("live", True, True)


async def test_a_pushing_host_that_starts_again_has_lost_no_strategy(tmp_path: Path) -> None:
    async with _pushing(tmp_path) as host:
        host.say()
        await host.ticks(2)
    async with _pushing(tmp_path) as host:
        await host.ticks(5)
        assert host.fund.may_close("m")
        host.say()
        await host.ticks(1)
        assert host.told() == []
        assert host.fund.may_trade("m")


async def test_a_controller_that_fails_at_the_start_has_lost_no_strategy(tmp_path: Path) -> None:
    fake = _fake()
    async with virtual_fund(fake, db_path=tmp_path / "x.db", **HEAL) as world:
        await _ticks(world, 1)
    fake.failures["strategies"] = ConnectionError()
    async with virtual_fund(fake, db_path=tmp_path / "x.db", **HEAL) as world:
        await _ticks(world, 5)
        assert _told(world, "left the engine's list") == []


async def test_a_fund_without_strategies_misses_no_word(tmp_path: Path) -> None:
    async with _pushing(tmp_path, self_healing_enabled=False, ledger_enabled=True) as host:
        await host.ticks(100, 50)
        assert host.told() == []
        assert not (await host.fund.status()).stale


async def test_an_engine_that_has_never_answered_is_silent() -> None:
    fake = _fake()
    fake.failures["strategies"] = ConnectionError()
    async with virtual_fund(fake) as world:
        await _ticks(world, 11)
        assert (await world.fund.status()).stale
        fake.failures.clear()
        await _ticks(world, 1)
        assert not (await world.fund.status()).stale


# -- resuming


class Stubborn(FakeController):
    """Resumes as its mood lets it."""

    mood = "works"

    async def resume(self, name: str) -> None:
        if self.mood == "hangs":
            await trio.sleep_forever()
        if self.mood == "raises":
            raise RuntimeError("no")
        await super().resume(name)


async def _paused(world: VirtualFund) -> None:
    await _ticks(world, 1)
    world.controller.set("s", equity=700)
    await _ticks(world, 1)
    world.controller.set("s", equity=1000)
    await _ticks(world, 1)
    assert _held(world) == ("reduce", False, True)


def _stubborn() -> Stubborn:
    return Stubborn(StrategyStatus("s", "running", equity=1000, allocated=1000))


@pytest.mark.parametrize("mood", ["raises", "hangs"])
async def test_an_engine_that_will_not_resume_leaves_the_strategy_paused(
    autojump_clock: trio.testing.MockClock, mood: str
) -> None:
    fake = _stubborn()
    async with virtual_fund(fake, **HEAL) as world:
        await _paused(world)
        fake.mood = mood
        with pytest.raises(HostFault, match="resume"):
            await world.fund.resume("s", by="ann", reason="r")
        fake.set("s", state="running")
        await _ticks(world, 1)
        assert _held(world) == ("reduce", False, True)
        fake.mood = "works"
        assert await world.fund.resume("s", by="ann", reason="r")
        await _ticks(world, 1)
        assert _held(world) == ("live", True, True)


async def test_the_kill_switch_waits_for_no_resume_and_outlasts_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Slow(FakeController):
        async def resume(self, name: str) -> None:
            await trio.sleep(0.5)
            await super().resume(name)

    fake = Slow(StrategyStatus("s", "running", equity=1000, allocated=1000))
    async with virtual_fund(fake, **HEAL) as world, trio.open_nursery() as nursery:
        await _paused(world)

        async def resume() -> None:
            with pytest.raises(HostFault, match="stopped again"):
                await world.fund.resume("s", by="ann", reason="r")

        nursery.start_soon(resume)
        await trio.testing.wait_all_tasks_blocked()
        began_s = trio.current_time()
        await world.fund.kill_switch.engage(reason="x", by="me")
        assert trio.current_time() == began_s
        await trio.sleep(1)
        assert ("stop", "s", "the kill switch was engaged while it resumed") in fake.calls
        with pytest.raises(KillSwitchEngaged):
            await world.fund.resume("s", by="ann", reason="r")
        assert [call[0] for call in fake.calls].count("resume") == 1


@pytest.mark.parametrize("by", [None, "", " ", 5])
async def test_only_a_person_with_a_name_resumes(by: Any) -> None:
    async with virtual_fund(_fake(), **HEAL) as world:
        await _paused(world)
        with pytest.raises(BadRequest, match="by"):
            await world.fund.resume("s", by=by, reason="r")
        assert not any(call[0] == "resume" for call in world.controller.calls)


# -- counters that restart


async def test_a_loss_before_and_after_a_restart_of_the_counters_adds_up() -> None:
    settings = {"max_strategy_drawdown_pct": 100, **NO_FEES}
    for runs in (("a", "b"), (None, None)):
        async with virtual_fund(FakeController(), **settings) as world:
            world.controller.set("s", run=runs[0])
            await _ticks(world, 1)
            world.controller.set("s", realized_pnl=-14_000)
            await _ticks(world, 1)
            world.controller.set("s", realized_pnl=0, run=runs[1])
            await _ticks(world, 1)
            assert (await world.fund.status()).drawdown_pct == 14
            world.controller.set("s", realized_pnl=-10_000)
            await _ticks(world, 1)
            assert (await world.fund.status()).drawdown_pct == 24
            assert (await world.fund.kill_switch.status()).state != "OFF"


async def test_a_count_of_trades_that_falls_is_a_restart_of_the_counters() -> None:
    # The engine is not seen at 0: it has lost 10,000 again before the next look.
    async with virtual_fund(FakeController(), **HEAL, **NO_FEES) as world:
        world.controller.set("s", n_trades=40)
        await _ticks(world, 1)
        world.controller.set("s", realized_pnl=-14_000)
        await _ticks(world, 1)
        world.controller.set("s", realized_pnl=-10_000, n_trades=3)
        await _ticks(world, 1)
        status = await world.fund.status()
        assert (status.nav, status.drawdown_pct, status.kill_switch) == (D(76_000), 24, "ENGAGED")
        assert _told(world, "s: the engine's counters restarted") == ["CRITICAL"]
        assert await world.fund.confirm_counters("s", by="ann", reason="it was restarted")


async def test_a_count_of_trades_that_is_corrected_carries_nothing_over() -> None:
    async with virtual_fund(FakeController(), **HEAL, **NO_FEES) as world:
        world.controller.set("s", n_trades=40, realized_pnl=5_000)
        await _ticks(world, 1)
        world.controller.set("s", n_trades=39)
        await _ticks(world, 2)
        assert (await world.fund.status()).nav == 105_000
        assert world.sent_alerts() == []


async def test_a_gain_that_restarts_from_zero_is_no_drawdown() -> None:
    async with virtual_fund(FakeController(), **HEAL, **NO_FEES) as world:
        world.controller.set("s", realized_pnl=20_000)
        await _ticks(world, 1)
        world.controller.set("s", realized_pnl=0)
        await _ticks(world, 2)
        status = await world.fund.status()
        assert (status.nav, status.drawdown_pct, status.kill_switch) == (
            D(120_000),
            0.0,
            "OFF",
        )
        assert _told(world, "s: the engine's counters restarted") == ["CRITICAL"]
        with pytest.raises(BadRequest, match="by"):
            await world.fund.confirm_counters("s", by="", reason="r")
        assert await world.fund.confirm_counters("s", by="ann", reason="it was restarted")
        assert not await world.fund.confirm_counters("s", by="ann", reason="it was restarted")
        await _ticks(world, 1)
        assert _told(world, "s: restart of the counters confirmed by ann") == ["INFO"]


async def test_a_new_run_is_carried_over_without_a_word() -> None:
    async with virtual_fund(FakeController(), **HEAL, **NO_FEES) as world:
        world.controller.set("s", realized_pnl=20_000, run="a")
        await _ticks(world, 1)
        world.controller.set("s", realized_pnl=500, run="b")
        await _ticks(world, 1)
        assert (await world.fund.status()).nav == 120_500
        assert world.sent_alerts() == []


@pytest.mark.parametrize("fee_bps", [0, 200])
async def test_one_bad_print_and_then_silence_sells_nothing(fee_bps: int) -> None:
    fake = _fake(equity=None, allocated=0)
    settings: dict[str, Any] = {"kill_action": "flatten", "management_fee_bps": fee_bps}
    async with virtual_fund(fake, **settings, **HEAL) as world:
        await _ticks(world, 1)
        fake.set("s", unrealized_pnl=-90_000)
        await _ticks(world, 1)
        fake.failures["strategies"] = ConnectionError()
        await _ticks(world, 5)
        assert {call[2] for call in fake.calls if call[0] == "stop_all"} == {"halt"}
        del fake.failures["strategies"]
        await _ticks(world, 2)
        assert {call[2] for call in fake.calls if call[0] == "stop_all"} == {"halt", "flatten"}


async def test_a_host_that_ticks_more_often_than_it_reports_is_counted_by_its_reports(
    tmp_path: Path,
) -> None:
    async with _pushing(tmp_path, kill_confirm_ticks=3) as host:
        for pnl in (0, -90_000, -90_000):
            host.say(realized_pnl=pnl)
            await host.ticks(4)
        assert (await host.fund.status()).kill_switch == "OFF"
        host.say(realized_pnl=-90_000)
        await host.ticks(1)
        assert (await host.fund.status()).kill_switch != "OFF"


async def test_a_bad_print_halts_and_flattens_nothing() -> None:
    fake = _fake(equity=None, allocated=0)
    async with virtual_fund(fake, kill_action="flatten", **HEAL) as world:
        await _ticks(world, 1)
        fake.set("s", unrealized_pnl=-20_000)
        await _ticks(world, 1)
        fake.set("s", unrealized_pnl=0)
        await _ticks(world, 10)
        actions = {call[2] for call in fake.calls if call[0] == "stop_all"}
        assert actions == {"halt"}
        (alert,) = [a for a in world.sent_alerts() if a.title == "Kill switch activated"]
        assert "; s lowered NAV most at that look. Stopped: s. " in alert.message


# -- who renews the leases


async def test_a_demotion_prolongs_no_lease_of_others_while_the_guards_step_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = _fake()
    fake.statuses["b"] = StrategyStatus("b", "running", equity=1_000, allocated=1_000)
    async with virtual_fund(fake, **PROMO) as world:
        await _adopt(world, P.Live_Small)
        await world.fund.promotion.adopt("b", P.Live_Small, by="a", reason="r")
        await _ticks(world, 9)

        async def failing(self: GuardStep, tick: Any) -> Any:
            raise ValueError("no look")

        monkeypatch.setattr(GuardStep, "run", failing)
        await _ticks(world, 20)
        await world.fund.promotion.demote("b", by="a", reason="r")
        await _ticks(world, 9)
        assert (world.fund.may_trade("s"), world.fund.may_trade("b")) == (True, False)
        await _ticks(world, 3)
        assert not world.fund.may_trade("s"), "30 s after the last look"


@pytest.mark.parametrize("turns", [2, 3, 5, 8])
async def test_a_tick_in_hand_gives_no_lease_to_a_fund_that_has_stopped(turns: int) -> None:
    statuses = (StrategyStatus(f"s{n}", "running", equity=100, allocated=100) for n in range(300))
    fake = FakeController(*statuses)

    async def last_tick(world: VirtualFund) -> None:
        with suppress(ActorError):
            await world.fund.tick()

    async with trio.open_nursery() as nursery:
        async with virtual_fund(fake) as world:
            await _ticks(world, 1)
            assert world.fund.may_trade("s0")
            world.clock.advance(1)
            nursery.start_soon(last_tick, world)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
        assert not world.fund.may_trade("s0")
        assert world.fund.entitlement("s0").mode == "reduce"
