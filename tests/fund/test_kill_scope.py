"""The kill switch of a whole fund: its scope, its files, its release. Rows O4 to O8."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from fundops import PromotionStage, StopReport, StrategyStatus, VirtualClock
from fundops.actors.guard import actor as guard_actor
from fundops.actors.guard import core
from fundops.actors.guard.marker import Marker
from fundops.actors.oversight import OversightActor
from fundops.actors.persistence import DurableActor
from fundops.runtime import in_pieces
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.errors import BadRequest, StopNotConfirmed
from fundops.wire.guard import KillStatus
from fundops.wire.recovery import RecoveryPhase

P = PromotionStage
BOTH: dict[str, Any] = {"promotion_enabled": True, "self_healing_enabled": True}


def _stages(**stages: str) -> FakeController:
    return FakeController(
        *(
            StrategyStatus(name, "running", equity=1_000, allocated=1_000, stage=stage)
            for name, stage in stages.items()
        )
    )


async def _ticks(world: VirtualFund, count: int, seconds: float = 1) -> None:
    for _ in range(count):
        world.clock.advance(seconds)
        await world.tick()
        await trio.testing.wait_all_tasks_blocked()


async def _adopted(world: VirtualFund, **stages: PromotionStage) -> None:
    for name, stage in stages.items():
        await world.fund.promotion.adopt(name, stage, by="a", reason="r")
    await _ticks(world, 2)


async def _engage(world: VirtualFund) -> None:
    await world.fund.kill_switch.engage(reason="x", by="ann")
    await trio.testing.wait_all_tasks_blocked()


async def _state(world: VirtualFund) -> str:
    return (await world.fund.kill_switch.status()).state


def _named(world: VirtualFund) -> list[tuple[str, ...]]:
    """The strategies that each call of `stop_all` named."""
    return [call[3] for call in world.controller.calls if call[0] == "stop_all"]


# -- O4


async def test_a_marker_made_by_hand_engages_within_one_tick_and_outlives_the_process(
    tmp_path: Path,
) -> None:
    fake = _stages(a="live-small")
    async with virtual_fund(fake, db_path=tmp_path / "x.db") as world:
        await _ticks(world, 1)
        (tmp_path / "x.db.kill").touch()
        await _ticks(world, 1)
        assert not world.fund.may_trade("a")
        assert _named(world) == [("a",)]
        assert await _state(world) == "ENGAGED"
        found = Marker(tmp_path / "x.db.kill").read()
        assert found is not None
        assert found.state == "ENGAGED", "the empty file was written anew"
    async with virtual_fund(fake, db_path=tmp_path / "x.db") as world:
        assert await _state(world) == "ENGAGED"


async def test_a_marker_is_heeded_within_a_second_when_no_tick_comes(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with virtual_fund(_stages(a="live-small"), db_path=tmp_path / "x.db") as world:
        await _ticks(world, 1)
        (tmp_path / "x.db.kill").touch()
        await trio.sleep(1.1)
        assert not world.fund.may_trade("a")
        assert _named(world) == [("a",)]


# -- O5


class Answering(FakeController):
    """Its `stop_all` gives these reports in turn."""

    def __init__(self, *reports: StopReport) -> None:
        super().__init__(StrategyStatus("a", "stopped"))
        self.reports = list(reports)

    async def stop_all(self, reason: str, action: Any, strategies: Sequence[str]) -> StopReport:
        await super().stop_all(reason, action, strategies)
        return self.reports[min(len(_calls(self)), len(self.reports)) - 1]


def _calls(fake: FakeController) -> list[str]:
    return [call[2] for call in fake.calls if call[0] == "stop_all"]


@pytest.mark.parametrize(
    ("action", "states"),
    [
        ("halt", ["ENGAGED"]),
        ("flatten", ["UNCONFIRMED", "UNCONFIRMED", "ENGAGED"]),
        ("freeze", ["ENGAGED"]),
    ],
)
async def test_a_stop_is_repeated_until_its_action_is_confirmed(
    action: Any, states: list[str]
) -> None:
    fake = Answering(StopReport(0, 2), StopReport(0, 1), StopReport(0, 0))
    async with virtual_fund(fake, kill_action=action) as world:
        await _ticks(world, 1)
        await _engage(world)
        seen = [await _state(world)]
        for _ in range(3):
            await _ticks(world, 1)
            seen.append(await _state(world))
        assert seen[: len(states)] == states
        assert set(seen[len(states) :]) == {"ENGAGED"}
        assert _calls(fake) == [action] * len(states)


# -- O6


@pytest.mark.parametrize(("scope", "named"), [("live", ("a",)), ("all", ("a", "c"))])
async def test_the_scope_says_who_is_stopped_and_who_is_restarted(
    scope: Any, named: tuple[str, ...]
) -> None:
    fake = _stages(a="live-small", c="paper")
    async with virtual_fund(fake, kill_scope=scope, recovery_every_ticks=1, **BOTH) as world:
        await _adopted(world, a=P.Live_Small, c=P.Paper)
        await _engage(world)
        assert _named(world) == [named]
        fake.set("a", state="stopped")
        await _ticks(world, 4)
        spared = "c" not in named
        assert world.fund.entitlement("c").mode == ("paper" if spared else "none")
        assert world.fund.entitlement("a").mode == "reduce"
        fake.set("c", state="failed")
        await _ticks(world, 90)
        restarts = [call[1] for call in fake.calls if call[0] == "restart"]
        assert restarts == (["c"] if spared else [])
        (status,) = [one for one in await world.fund.recovery.statuses() if one.name == "c"]
        assert (status.phase is RecoveryPhase.HELD) is not spared
        assert await _state(world) == "ENGAGED"


async def test_a_paper_strategy_that_runs_on_is_not_told_to_stop() -> None:
    fake = _stages(a="live-small", c="paper")
    async with virtual_fund(fake, **BOTH) as world:
        await _adopted(world, a=P.Live_Small, c=P.Paper)
        await _engage(world)
        fake.set("a", state="stopped")
        await _ticks(world, 5)
        assert fake.statuses["c"].state == "running"
        assert await _state(world) == "ENGAGED"


async def test_a_spared_strategy_is_resumed_under_the_switch_and_a_stopped_one_is_not() -> None:
    fake = _stages(a="live-small", c="paper")
    async with virtual_fund(fake, **BOTH) as world:
        await _adopted(world, a=P.Live_Small, c=P.Paper)
        await world.fund.pause("c", by="ann", reason="a look")
        await _engage(world)
        assert await world.fund.resume("c", by="ann", reason="looked")
        assert fake.statuses["c"].state == "running"


async def test_with_promotion_off_all_trade_real_money_and_all_are_stopped() -> None:
    fake = _stages(a="live-small", c="paper")
    async with virtual_fund(fake) as world:
        await _ticks(world, 1)
        await _engage(world)
        assert _named(world) == [("a", "c")]


async def test_real_money_that_nobody_registered_is_in_scope() -> None:
    fake = _stages(a="paper", u="live-small")
    async with virtual_fund(fake, **BOTH) as world:
        await _adopted(world, a=P.Paper)
        await _engage(world)
        assert _named(world) == [("u",)]


# -- O7


@pytest.mark.parametrize(("action", "flags"), [("halt", (False, True)), ("freeze", (False, False))])
async def test_what_had_real_money_may_close_under_halt_and_not_under_freeze(
    action: Any, flags: tuple[bool, bool]
) -> None:
    fake = _stages(a="live-small", c="paper")
    async with virtual_fund(fake, kill_action=action, **BOTH) as world:
        await _adopted(world, a=P.Live_Small, c=P.Paper)
        await _engage(world)
        assert (world.fund.may_trade("a"), world.fund.may_close("a")) == flags


async def test_a_demoted_strategy_may_close_and_goes_on_as_shadow_after_its_session() -> None:
    async with virtual_fund(_stages(b="live-small"), **BOTH) as world:
        await _adopted(world, b=P.Live_Small)
        assert world.fund.may_trade("b")
        await world.fund.promotion.demote("b", to=P.Shadow, by="ann", reason="r")
        await _ticks(world, 2)
        held = world.fund.entitlement("b")
        assert (held.mode, held.may_open, held.may_close) == ("reduce", False, True)
        world.clock.advance(60)
        await world.tick("2026-01-05")
        await _ticks(world, 1)
        held = world.fund.entitlement("b")
        assert (held.mode, held.may_open, held.may_close) == ("shadow", False, True)


# -- O8


async def test_a_kept_peak_engages_again_and_the_answer_says_where() -> None:
    fake = FakeController(StrategyStatus("s", "running"))
    async with virtual_fund(fake, max_strategy_drawdown_pct=100, alert_log=True) as world:
        await _ticks(world, 1)
        fake.set("s", realized_pnl=-18_400)
        await _ticks(world, 1)
        fake.set("s", state="stopped")
        await _ticks(world, 1)
        assert await _state(world) == "ENGAGED"
        answer = await world.fund.kill_switch.release(by="ann", reason="r", rearm="keep_peak")
        assert (answer.state, answer.next_stop_nav) == ("OFF", Decimal(85_000))
        assert answer.next_stop_below_peak_pct == 15
        await _ticks(world, 1)
        assert await _state(world) == "ENGAGED"
        answer = await world.fund.kill_switch.release(by="ann", reason="r")
        assert answer.next_stop_nav == Decimal("69360")  # 85% of 81,600
        assert answer.next_stop_below_peak_pct == pytest.approx(30.64)
        await _ticks(world, 2)
        assert await _state(world) == "OFF"
        (told,) = [a for a in world.sent_alerts() if "69,360.00, 30.6% below" in a.message]
        assert told.title == "Kill switch released by ann"


async def test_an_unconfirmed_stop_is_released_only_by_accepting_what_is_open() -> None:
    fake = _stages(a="live-small")
    fake.open_orders = 1
    async with virtual_fund(fake) as world:
        await _ticks(world, 1)
        await _engage(world)
        with pytest.raises(StopNotConfirmed):
            await world.fund.kill_switch.release(by="ann", reason="r")
        assert await _state(world) == "UNCONFIRMED"
        await world.fund.kill_switch.release(by="ann", reason="r", accept_open_orders=True)
        assert await _state(world) == "OFF"


@pytest.mark.parametrize(("field", "by", "reason"), [("by", " ", "r"), ("reason", "ann", "")])
async def test_a_release_needs_a_name_and_a_reason(field: str, by: str, reason: str) -> None:
    async with virtual_fund(_stages(a="live-small")) as world:
        await _ticks(world, 1)
        await _engage(world)
        with pytest.raises(BadRequest) as refusal:
            await world.fund.kill_switch.release(by=by, reason=reason)
        assert refusal.value.field == field
        assert await _state(world) == "ENGAGED"


# -- what is told


async def test_the_alerts_say_what_is_stopped_what_is_open_what_comes_and_how_to_undo_it() -> None:
    fake = _stages(a="live-small", c="paper")
    fake.open_orders, fake.open_positions, fake.protective_orders = 2, 1, 3
    async with virtual_fund(fake, **BOTH) as world:
        await _adopted(world, a=P.Live_Small, c=P.Paper)
        await _engage(world)
        await _ticks(world, 1)
        engaged, unconfirmed = [
            alert.message for alert in world.sent_alerts() if alert.category.value == "KILL_SWITCH"
        ]
        assert engaged == (
            "x. Stopped: a. Left open: not known yet. Next automatic act: stop_all is called at"
            " each tick until the stop is confirmed. To undo: fundops kill-switch release --by NAME"
            " --reason TEXT."
        )
        assert unconfirmed == (
            "2 orders still open; engaged by ann: x. Stopped: a. Left open: 2 orders, 1 position, 3"
            " protective orders. Next automatic act: stop_all is called at each tick until the stop"
            " is confirmed. To undo: fundops kill-switch release --by NAME --reason TEXT"
            " --accept-open-orders, or without that option once the stop is confirmed."
        )
        status = await world.fund.kill_switch.status()
        assert (status.problem, status.protective_orders) == ("2 orders still open", 3)


async def test_an_unconfirmed_stop_is_told_every_minute_when_no_tick_comes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    fake = _stages(a="live-small")
    fake.open_orders = 1
    async with virtual_fund(fake, self_healing_enabled=True) as world:
        await _ticks(world, 1)
        await _engage(world)
        for _ in range(180):
            world.clock.advance(1)
            await trio.sleep(1)
        told = [a for a in world.sent_alerts() if a.title.endswith("stop not confirmed")]
        assert len(told) == 4, "at once, and at 60, 120 and 180 s"


# -- orders that rest


async def test_the_engine_is_told_each_tick_how_long_the_leases_last() -> None:
    fake = _stages(a="live-small")
    async with virtual_fund(fake, lease_s=45) as world:
        await _ticks(world, 1)
        assert fake.alive_until_us == world.clock.now_us() + 45_000_000
        fake.failures["strategies"] = RuntimeError("gone")
        before = fake.alive_until_us
        await _ticks(world, 30)
        assert fake.alive_until_us <= before + 11_000_000, "not while the host is silent"


async def test_under_the_switch_orders_are_kept_until_nothing_is_open() -> None:
    fake = _stages(a="live-small")
    fake.open_positions = 1
    async with virtual_fund(fake) as world:
        await _ticks(world, 1)
        await _engage(world)
        fake.set("a", state="stopped")
        await _ticks(world, 3)
        assert fake.alive_until_us == world.clock.now_us() + 30_000_000
        world.fund.report_stopped(StopReport(0, 0))
        await trio.testing.wait_all_tasks_blocked(0.01)
        last = fake.alive_until_us
        await _ticks(world, 3)
        assert fake.alive_until_us == last


# -- the host is gone


async def test_a_blind_fund_stops_the_engine_in_emergency_without_the_latch(
    tmp_path: Path,
) -> None:
    fake = _stages(a="live-small")
    async with virtual_fund(fake) as world:
        await _ticks(world, 1)
        fake.failures["strategies"] = RuntimeError("gone")
        await _ticks(world, 59)
        assert "emergency_stop" not in [call[0] for call in fake.calls]
        await _ticks(world, 3)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert [call[0] for call in fake.calls] == ["emergency_stop"]
        assert await _state(world) == "OFF"
        held = world.fund.entitlement("a")
        assert (held.mode, held.may_close) == ("reduce", True)


# -- files


async def test_marker_and_database_each_alone_mean_engaged(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with virtual_fund(_stages(a="live-small"), db_path=path) as world:
        await _ticks(world, 1)
        await _engage(world)
    (tmp_path / "x.db.kill").unlink()
    async with virtual_fund(_stages(a="live-small"), db_path=path) as world:
        assert await _state(world) == "ENGAGED"
        await _ticks(world, 1)
        assert (tmp_path / "x.db.kill").exists(), "the other one is made good"
        await world.fund.kill_switch.release(by="ann", reason="r", accept_open_orders=True)
    Marker(tmp_path / "x.db.kill").write(KillStatus("ENGAGED", "by hand", "bob", 1))
    async with virtual_fund(_stages(a="live-small"), db_path=path) as world:
        status = await world.fund.kill_switch.status()
        assert (status.state, status.reason, status.by) == ("ENGAGING", "by hand", "bob")
        await _ticks(world, 1)
        assert await _state(world) == "ENGAGED", "by the report of this process's stop_all"


async def test_it_engages_in_the_middle_of_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    looking, free = trio.Event(), trio.Event()

    async def held(work: Generator[None, None, Any]) -> Any:
        looking.set()
        await free.wait()
        return await in_pieces(work)

    async with virtual_fund(_stages(a="live-small")) as world:
        await _ticks(world, 1)
        monkeypatch.setattr(guard_actor, "in_pieces", held)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.tick)
            await looking.wait()
            status = await world.fund.kill_switch.engage(reason="r", by="ann")
            assert (status.state, free.is_set()) == ("ENGAGING", False)
            assert not world.fund.may_trade("a")
            free.set()
        assert not world.fund.may_trade("a"), "the look began before it"


async def test_a_release_is_durable_before_it_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.db"
    async with virtual_fund(_stages(a="live-small"), db_path=path) as world:
        await _ticks(world, 1)
        await _engage(world)
        await _ticks(world, 1)
        await world.fund.kill_switch.release(by="ann", reason="r")
        # The process ends without a tick and without an orderly stop.
        monkeypatch.setattr(OversightActor, "on_stop", DurableActor.on_stop)
    async with virtual_fund(_stages(a="live-small"), db_path=path) as world:
        assert await _state(world) == "OFF"


@pytest.mark.parametrize("record", ["{", "", '{"state":"ON"}'])
async def test_a_stored_latch_that_cannot_be_read_means_engaged(
    tmp_path: Path, record: str
) -> None:
    path = tmp_path / "x.db"
    async with virtual_fund(_stages(a="live-small"), db_path=path) as world:
        await _ticks(world, 1)
        assert world.fund.may_trade("a")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT OR REPLACE INTO kill_latch VALUES (1, ?)", (record,))
    async with virtual_fund(_stages(a="live-small"), db_path=path) as world:
        status = await world.fund.kill_switch.status()
        assert (status.state, status.reason) == ("ENGAGING", "the stored latch cannot be read")
        await _ticks(world, 1)
        assert not world.fund.may_trade("a")


# -- "freeze" with kill_scope "live"


def _acts(world: VirtualFund, part: str) -> list[str]:
    """The strategies that the engine was told about by this part."""
    return [call[1] for call in world.controller.calls if call[0] == part]


async def test_under_freeze_no_stage_of_a_live_strategy_moves_and_those_of_paper_do() -> None:
    fake = _stages(a="live-small", c="shadow")
    async with virtual_fund(fake, kill_action="freeze", **BOTH) as world:
        await _adopted(world, a=P.Live_Small, c=P.Shadow)
        await _engage(world)
        world.controller.calls.clear()
        await world.fund.promotion.demote("a", to=P.Shadow, by="ann", reason="r")
        await world.fund.promotion.demote("c", to=P.Paper, by="ann", reason="r")
        await _ticks(world, 2)
        assert set(_acts(world, "set_stage")) == {"c"}
        assert fake.statuses["a"].stage == "live-small", "the engine must touch nothing of it"
        assert (world.fund.may_trade("a"), world.fund.may_close("a")) == (False, False)
        await world.fund.kill_switch.release(by="ann", reason="r")
        await _ticks(world, 1)
        assert fake.statuses["a"].stage == "shadow"


async def test_under_freeze_the_guards_pause_of_a_live_strategy_waits_for_the_release() -> None:
    settings = {**BOTH, "max_strategy_drawdown_pct": 20}
    fake = _stages(a="live-small", c="paper")
    async with virtual_fund(fake, kill_action="freeze", **settings) as world:
        await _adopted(world, a=P.Live_Small, c=P.Paper)
        await _engage(world)
        world.controller.calls.clear()
        fake.set("a", equity=700, realized_pnl=-300)
        await _ticks(world, 2)
        assert "a paused" in [alert.title for alert in world.sent_alerts()]
        assert _acts(world, "pause") == []
        await world.fund.pause("c", by="ann", reason="r")
        await _ticks(world, 1)
        assert set(_acts(world, "pause")) == {"c"}, "the switch spares it, so a person may pause it"
        assert _acts(world, "set_stage") == [], "promotion has demoted it, and says so later"
        await world.fund.kill_switch.release(by="ann", reason="r")
        await _ticks(world, 2)
        assert _acts(world, "pause")[-1] == "a"
        assert _acts(world, "set_stage") == ["a"]


# -- what follows from it, and what does not


async def test_it_demotes_only_the_strategies_that_breached_their_own_limits() -> None:
    fake = _stages(a="live-small", b="live-small")
    async with virtual_fund(fake, **BOTH) as world:
        await _adopted(world, a=P.Live_Small, b=P.Live_Small)
        fake.set("a", realized_pnl=-20_000, equity=500)
        await _ticks(world, 3)
        assert await _state(world) == "ENGAGED"
        stages = [await world.fund.promotion.current_stage(name) for name in "ab"]
        assert stages == [P.Shadow, P.Live_Small]


async def test_a_silent_host_without_real_money_is_no_emergency() -> None:
    fake = _stages(c="paper")
    async with virtual_fund(fake, **BOTH) as world:
        await _adopted(world, c=P.Paper)
        fake.failures["strategies"] = RuntimeError("gone")
        await _ticks(world, 90)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert [call[0] for call in fake.calls if call[0] != "set_stage"] == []
        assert "Host silent with real money live" not in [a.title for a in world.sent_alerts()]


async def test_an_emergency_stop_for_silence_is_called_until_it_returned() -> None:
    fake = _stages(a="live-small")
    async with virtual_fund(fake) as world:
        await _ticks(world, 1)
        fake.failures |= {"strategies": RuntimeError("gone"), "emergency_stop": OSError("no line")}
        for tick in range(64):
            await _ticks(world, 1)
            if tick > 58:
                await trio.testing.wait_all_tasks_blocked(0.05)
        tried = [call[0] for call in fake.calls].count("emergency_stop")
        assert tried >= 3
        del fake.failures["emergency_stop"]
        for _ in range(5):
            await _ticks(world, 1)
            await trio.testing.wait_all_tasks_blocked(0.05)
        assert [call[0] for call in fake.calls].count("emergency_stop") == tried + 1


async def test_a_silence_outlives_a_restart_until_the_host_speaks(tmp_path: Path) -> None:
    path, again = tmp_path / "fund.db", "Host reports again"
    fake, clock = _stages(a="live-small"), VirtualClock(START_US)
    async with virtual_fund(fake, clock=clock, db_path=path, self_healing_enabled=True) as world:
        await _ticks(world, 1)
        fake.failures["strategies"] = RuntimeError("gone")
        await _ticks(world, 70)
        assert "Host silent with real money live" in [a.title for a in world.sent_alerts()]
    async with virtual_fund(fake, clock=clock, db_path=path, self_healing_enabled=True) as world:
        await _ticks(world, 3)
        assert again not in [alert.title for alert in world.sent_alerts()]
        fake.failures.clear()
        await _ticks(world, 3)
        assert [alert.title for alert in world.sent_alerts()].count(again) == 2


async def test_a_pause_that_the_engine_missed_outlives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "fund.db"
    status = StrategyStatus("a", "running", equity=1_000, allocated=1_000)
    fake, clock = FakeController(status), VirtualClock(START_US)
    fake.failures["pause"] = ConnectionError("no line")
    async with virtual_fund(fake, clock=clock, db_path=path) as world:
        await _ticks(world, 1)
        fake.set("a", equity=700)
        await _ticks(world, 3)
    del fake.failures["pause"]
    fake.calls.clear()
    async with virtual_fund(fake, clock=clock, db_path=path) as world:
        await _ticks(world, 3)
        assert [call[:2] for call in fake.calls] == [("pause", "a")]


async def test_each_silence_is_an_emergency_of_its_own() -> None:
    fake = _stages(a="live-small")
    async with virtual_fund(fake) as world:
        for silences in (1, 2):
            await _ticks(world, 1)
            fake.failures["strategies"] = RuntimeError("gone")
            await _ticks(world, 90)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert [call[0] for call in fake.calls] == ["emergency_stop"] * silences
            fake.failures.clear()


async def test_the_venue_hears_nothing_while_the_guards_step_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a defect")

    fake = _stages(a="live-small")
    async with virtual_fund(fake) as world:
        await _ticks(world, 1)
        until = fake.alive_until_us
        assert until is not None
        with monkeypatch.context() as patched:
            patched.setattr(core, "look", broken)
            world.clock.advance(5)
            assert "guard" in (await world.fund.tick()).failed
            await trio.testing.wait_all_tasks_blocked()
            assert fake.alive_until_us == until
        await _ticks(world, 1)
        assert fake.alive_until_us == until + 6_000_000


async def test_a_list_that_lacks_a_strategy_counts_it_as_stopped_and_keeps_its_pnl() -> None:
    fake = _stages(a="live-small", b="live-small")
    async with virtual_fund(fake) as world:
        fake.set("a", realized_pnl=-700)
        await _ticks(world, 1)
        del fake.statuses["a"]
        await _ticks(world, 1)
        status = await world.fund.status()
        assert (status.running_strategies, status.nav) == (1, Decimal(99_300))
        held = world.fund.entitlement("a")
        assert (held.mode, held.may_open, held.may_close) == ("reduce", False, True)
