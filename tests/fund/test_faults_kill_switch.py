"""The kill switch as outsiders found it at fault: told by polling, formatted before the act."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from fundops import Fund, FundConfig, StopReport, StrategyStatus, VirtualClock
from fundops.actors.guard.marker import Marker, marker_of
from fundops.actors.guard.switch import NOT_NAMED
from fundops.file.release import release_stored
from fundops.runtime import InlineWorker
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.errors import BadRequest, HostFault, StopNotConfirmed
from fundops.wire.guard import KillStatus
from fundops.wire.recovery import RecoveryPhase
from fundops.wire.stream.client import open_status
from fundops.wire.stream.protocol import Delta, Patch, Snapshot, Welcome

HEAL: dict[str, Any] = {"self_healing_enabled": True}


def _fake() -> FakeController:
    return FakeController(StrategyStatus("s", "running", equity=1000, allocated=1000))


async def _kill(world: VirtualFund, reason: Any = "x", by: Any = "me") -> str:
    answer = await world.fund.kill_switch.engage(reason=reason, by=by)
    return answer.state


async def _ticks(world: VirtualFund, count: int, seconds: float = 1) -> None:
    for _ in range(count):
        world.clock.advance(seconds)
        await world.fund.tick()
        await trio.testing.wait_all_tasks_blocked()


async def _state(world: VirtualFund) -> str:
    return (await world.fund.kill_switch.status()).state


def _calls(world: VirtualFund, call: str) -> int:
    return [name for name, *_ in world.controller.calls].count(call)


def _kill_alerts(world: VirtualFund) -> list[tuple[str, str]]:
    return [
        (alert.level.value, alert.title)
        for alert in world.sent_alerts()
        if alert.category.value == "KILL_SWITCH"
    ]


class SlowRestart(FakeController):
    """Its restart waits for an event, and its stop_all for another."""

    def __init__(self) -> None:
        super().__init__(StrategyStatus("s", "running", equity=1000, allocated=1000))
        self.up, self.stopped = trio.Event(), trio.Event()
        self.stopped.set()

    async def restart(self, name: str, *, attempt_id: str) -> None:
        await self.up.wait()
        await super().restart(name, attempt_id=attempt_id)

    async def stop_all(self, reason: str, action: Any, strategies: Sequence[str]) -> StopReport:
        report = await super().stop_all(reason, action, strategies)
        await self.stopped.wait()
        return report


async def _restarting(world: VirtualFund) -> None:
    world.controller.set("s", state="failed")
    await _ticks(world, 1)
    for _ in range(200):
        statuses = await world.fund.recovery.statuses()
        if any(status.phase is RecoveryPhase.RESTARTING for status in statuses):
            return
        await _ticks(world, 1, 60)
    raise AssertionError("no restart began")


# -- a safety fact travels by polling


async def test_a_restart_that_returns_under_the_switch_is_stopped() -> None:
    fake = SlowRestart()
    async with virtual_fund(fake, **HEAL) as world:
        await _restarting(world)
        await _kill(world)
        fake.up.set()
        await trio.testing.wait_all_tasks_blocked()
        assert "stop" in [name for name, *_ in fake.calls], "as soon as it returns"
        assert fake.statuses["s"].state == "stopped"
        await _ticks(world, 5)
        assert await _state(world) == "ENGAGED"
        (status,) = await world.fund.recovery.statuses()
        assert status.phase is RecoveryPhase.HELD


async def test_a_restart_that_returns_while_stop_all_is_awaited_is_stopped() -> None:
    fake = SlowRestart()
    fake.stopped = trio.Event()
    async with virtual_fund(fake, **HEAL) as world:
        fake.set("other", realized_pnl=0, equity=50_000, allocated=50_000)
        await _restarting(world)
        fake.set("other", realized_pnl=-20_000, equity=30_000)
        await _ticks(world, 1)
        assert await _state(world) == "ENGAGING"
        fake.up.set()
        await trio.testing.wait_all_tasks_blocked()
        assert fake.statuses["s"].state == "stopped"
        fake.stopped.set()


async def test_a_restart_is_stopped_when_the_switch_was_released_meanwhile() -> None:
    fake = SlowRestart()
    async with virtual_fund(fake, **HEAL) as world:
        await _restarting(world)
        await _kill(world)
        await _ticks(world, 1)
        await world.fund.kill_switch.release(by="ann", reason="a drill")
        fake.up.set()
        await trio.testing.wait_all_tasks_blocked()
        assert fake.statuses["s"].state == "stopped"


async def test_no_restart_begins_under_the_switch() -> None:
    async with virtual_fund(_fake(), **HEAL) as world:
        await _ticks(world, 1)
        await _kill(world)
        world.controller.set("s", state="failed")
        await _ticks(world, 30, 60)
        assert _calls(world, "restart") == 0


async def test_a_strategy_that_the_engine_starts_by_itself_is_stopped_again() -> None:
    async with virtual_fund(_fake(), **HEAL) as world:
        await _ticks(world, 1)
        await _kill(world)
        world.controller.set("s", state="stopped")
        await _ticks(world, 1)
        assert await _state(world) == "ENGAGED"
        world.controller.set("s", state="running")
        await _ticks(world, 1)
        assert world.controller.statuses["s"].state == "stopped"
        status = await world.fund.kill_switch.status()
        assert (status.state, status.problem) == (
            "UNCONFIRMED",
            "s running under the kill switch",
        )
        await _ticks(world, 9)
        assert await _state(world) == "ENGAGED"
        assert _kill_alerts(world) == [
            ("CRITICAL", "Kill switch activated"),
            ("INFO", "Kill switch: stop confirmed"),
            ("CRITICAL", "Kill switch activated, stop not confirmed"),
            ("INFO", "Kill switch: stop confirmed"),
        ]


async def test_a_strategy_that_does_not_obey_is_told_each_tick() -> None:
    class Deaf(FakeController):
        async def stop(self, name: str, reason: str) -> None:
            self._called("stop", name, reason)

    fake = Deaf(StrategyStatus("s", "running", equity=1000, allocated=1000))
    async with virtual_fund(fake) as world:
        await _ticks(world, 1)
        await _kill(world)
        await _ticks(world, 10)
        assert _calls(world, "stop") == 10
        assert await _state(world) == "UNCONFIRMED"


async def test_all_doors_give_the_same_state_at_once() -> None:
    async with virtual_fund(_fake(), status_port=0) as world:
        await _ticks(world, 1)
        await _kill(world)
        assert (await world.fund.status()).kill_switch != "OFF"
        await trio.testing.wait_all_tasks_blocked()
        assert (await world.fund.status()).kill_switch == await _state(world) == "ENGAGED"


async def test_the_stream_shows_the_switch_without_a_tick() -> None:
    async with virtual_fund(_fake(), status_port=0) as world:
        await world.fund.tick()
        url = f"ws://127.0.0.1:{await world.fund.status_port()}/ws"
        token = world.fund.status_token
        async with open_status(url, token=token, topics=["fund"]) as messages:
            assert isinstance(await anext(messages), Welcome)
            snapshot = await anext(messages)
            assert isinstance(snapshot, Snapshot)
            assert snapshot.state["kill"]["state"] == "OFF"
            await _kill(world)
            with trio.fail_after(10):
                async for message in messages:
                    if isinstance(message, Delta | Patch) and message.key == "kill":
                        assert message.value["state"] in ("ENGAGING", "ENGAGED")
                        break


async def test_the_stop_does_not_queue_behind_a_question(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Hanging(FakeController):
        async def strategies(self) -> Any:  # type: ignore[override]
            await trio.sleep_forever()

    async with virtual_fund(Hanging()) as world, trio.open_nursery() as nursery:
        nursery.start_soon(world.fund.tick)
        await trio.testing.wait_all_tasks_blocked()
        begun = trio.current_time()
        assert await _kill(world) == "ENGAGING"
        await trio.testing.wait_all_tasks_blocked()
        assert _calls(world, "stop_all") == 1
        assert trio.current_time() == begun


async def test_a_stop_all_that_hangs_leaves_it_engaging_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    fake = SlowRestart()
    fake.stopped = trio.Event()
    async with virtual_fund(fake) as world:
        await _ticks(world, 1)
        assert await _kill(world) == "ENGAGING"
        assert (await world.fund.status()).kill_switch == "ENGAGING"
        await _ticks(world, 3)
        assert trio.current_time() == 0, "neither the caller nor the tick waits"
        assert _calls(world, "stop_all") == 1, "never twice at once"
        assert not world.fund.may_trade("s")
        await trio.sleep(11)
        assert await _state(world) == "UNCONFIRMED"
        fake.stopped.set()
        await _ticks(world, 1)
        assert await _state(world) == "ENGAGED"


async def test_a_stop_all_that_hangs_is_told_by_alert_and_stream_at_once() -> None:
    fake = SlowRestart()
    fake.stopped = trio.Event()
    async with virtual_fund(fake, status_port=0, **HEAL) as world:
        await _ticks(world, 1)
        assert await _kill(world) == "ENGAGING"
        await trio.testing.wait_all_tasks_blocked()
        assert _kill_alerts(world) == [("CRITICAL", "Kill switch activated")]
        url = f"ws://127.0.0.1:{await world.fund.status_port()}/ws"
        token = world.fund.status_token
        async with open_status(url, token=token, topics=["fund"]) as messages:
            assert isinstance(await anext(messages), Welcome)
            snapshot = await anext(messages)
            assert isinstance(snapshot, Snapshot)
            assert snapshot.state["kill"]["state"] == "ENGAGING"
        fake.stopped.set()


# -- words are formatted before the act


async def test_any_two_objects_engage_it_and_are_told() -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    for reason, by, text in (
        (ValueError("margin call"), "bot", "margin call"),
        (None, None, "no reason given"),
        ("lone \ud800 surrogate", "bot", "lone ? surrogate"),
        ("x" * 100_000, "b" * 100_000, "x" * 500),
        (Hostile(), Hostile(), "some Hostile"),
    ):
        async with virtual_fund(_fake(), **HEAL) as world:
            await _ticks(world, 1)
            assert await _kill(world, reason, by) == "ENGAGING"
            assert not world.fund.may_trade("s")
            await trio.testing.wait_all_tasks_blocked()
            assert _calls(world, "stop_all") == 1
            status = await world.fund.kill_switch.status()
            assert (status.state, status.reason) == ("ENGAGED", text)
            found = Marker(Path(f"{world.fund.config.path}.kill")).read()
            assert found is not None
            assert found.reason == text
            (alert,) = [a for a in world.sent_alerts() if a.level.value == "CRITICAL"]
            assert text in alert.message


async def test_it_is_not_released_while_the_stop_is_not_confirmed() -> None:
    async with virtual_fund(_fake()) as world:
        world.controller.open_orders = 2
        await _ticks(world, 1)  # the strategies are known, so the stop names them
        await _kill(world)
        await _ticks(world, 1)
        with pytest.raises(StopNotConfirmed, match="2 orders still open"):
            await world.fund.kill_switch.release(by="ann", reason="well")
        assert await _state(world) == "UNCONFIRMED"
        released = await world.fund.kill_switch.release(
            by="ann", reason="well", accept_open_orders=True
        )
        assert released.state == "OFF"


async def test_a_kept_peak_engages_again_at_the_next_tick() -> None:
    async with virtual_fund(_fake(), max_strategy_drawdown_pct=100) as world:
        await _ticks(world, 1)
        world.controller.set("s", realized_pnl=-18_400)
        await _ticks(world, 1)
        world.controller.set("s", state="stopped")
        await _ticks(world, 1)
        await world.fund.kill_switch.release(by="ann", reason="well", rearm="keep_peak")
        assert await _state(world) == "OFF"
        await _ticks(world, 1)
        assert await _state(world) == "ENGAGED"


# -- the stop's confirmation


async def test_an_unconfirmed_stop_is_told_every_minute_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with virtual_fund(_fake(), **HEAL) as world:
        world.controller.open_orders = 1
        await _ticks(world, 1)
        await _kill(world)
        await _ticks(world, 300)
        told = _kill_alerts(world)
        title = "Kill switch activated, stop not confirmed"
        assert 5 <= told.count(("CRITICAL", title)) <= 6
        logged = [record for record in caplog.records if "not confirmed" in record.message]
        assert len(logged) == 1
        world.controller.open_orders = 0
        await _ticks(world, 1)
        assert await _state(world) == "ENGAGED"
        await _ticks(world, 120)
        assert _kill_alerts(world)[-1] == ("INFO", "Kill switch: stop confirmed")


@pytest.mark.parametrize("count", [-1, 0.0, None, "0", True])
async def test_a_count_that_is_no_whole_number_confirms_nothing(count: Any) -> None:
    async with virtual_fund(_fake()) as world:
        world.controller.open_orders = count
        await _kill(world)
        await _ticks(world, 2)
        status = await world.fund.kill_switch.status()
        assert status.state == "UNCONFIRMED"
        assert "open_orders" in status.problem


async def test_a_plain_stop_all_confirms_too() -> None:
    class Plain(FakeController):
        def stop_all(self, reason: str, action: Any, strategies: Sequence[str]) -> StopReport:  # type: ignore[override]
            self._called("stop_all", reason, action)
            return StopReport(0, 0)

    async with virtual_fund(Plain(StrategyStatus("s", "running")), **HEAL) as world:
        await _ticks(world, 1)
        await _kill(world)
        await _ticks(world, 5)
        assert await _state(world) == "ENGAGED"


async def test_sys_exit_in_stop_all_is_an_unconfirmed_stop() -> None:
    fake = _fake()
    fake.failures["stop_all"] = SystemExit(3)  # type: ignore[assignment]
    async with virtual_fund(fake) as world:
        await _kill(world)
        await _ticks(world, 2)
        assert await _state(world) == "UNCONFIRMED"


async def test_a_pushing_host_confirms_the_stop_by_its_report(tmp_path: Path) -> None:
    config = FundConfig(
        total_capital=100_000,
        tick_interval_s=None,
        db_path=tmp_path / "x.db",
        control_socket=False,
    )
    clock = VirtualClock(START_US)
    async with Fund.open(config, clock=clock, make_worker=lambda _: InlineWorker()) as fund:
        fund.report(StrategyStatus("s", "running"))
        await fund.tick()
        status = await fund.kill_switch.engage(reason="x", by="me")
        assert (status.state, status.problem) == (
            "UNCONFIRMED",
            "the controller has no stop_all, so it cannot confirm the stop",
        )
        with pytest.raises(ValueError, match="open_orders"):
            fund.report_stopped(StopReport(-1, 0))
        await trio.to_thread.run_sync(fund.report_stopped, StopReport(2, 0))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await fund.kill_switch.status()).open_orders == 2
        fund.report_stopped(StopReport(0, 3))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await fund.kill_switch.status()).state == "ENGAGED"
        await fund.tick()
        assert (await fund.kill_switch.status()).state == "ENGAGED"


async def test_before_the_engines_first_word_nothing_confirms_its_stop() -> None:
    async with virtual_fund(_fake()) as world:
        assert await _kill(world) == "ENGAGING"
        await trio.testing.wait_all_tasks_blocked()
        assert _calls(world, "stop_all") == 1
        assert await _state(world) == "ENGAGING"
        await _ticks(world, 1)
        assert await _state(world) == "ENGAGED"


async def test_freeze_touches_nothing_and_takes_may_close_away() -> None:
    async with virtual_fund(_fake(), kill_action="freeze") as world:
        world.controller.open_orders = 7
        await _ticks(world, 1)
        assert world.fund.may_close("s")
        await _kill(world)
        await _ticks(world, 3)
        assert await _state(world) == "ENGAGED"
        assert _calls(world, "stop") == 0
        held = world.fund.entitlement("s")
        assert (held.mode, held.may_open, held.may_close) == ("none", False, False)
        assert not world.fund.may_close("s")


async def test_a_restart_that_returns_under_freeze_is_left_alone() -> None:
    fake = SlowRestart()
    async with virtual_fund(fake, kill_action="freeze", **HEAL) as world:
        await _restarting(world)
        await _kill(world)
        fake.up.set()
        await trio.testing.wait_all_tasks_blocked()
        await _ticks(world, 3)
        assert fake.statuses["s"].state == "running"
        assert _calls(world, "stop") == 0
        held = world.fund.entitlement("s")
        assert (held.mode, held.may_open, held.may_close) == ("none", False, False)
        (status,) = await world.fund.recovery.statuses()
        assert status.phase is RecoveryPhase.HELD


async def test_a_restart_that_freeze_was_engaged_and_released_over_is_stopped() -> None:
    fake = SlowRestart()
    async with virtual_fund(fake, kill_action="freeze", **HEAL) as world:
        await _restarting(world)
        await _kill(world)
        await _ticks(world, 1)
        await world.fund.kill_switch.release(by="ann", reason="a drill")
        fake.up.set()
        await trio.testing.wait_all_tasks_blocked()
        assert fake.statuses["s"].state == "stopped"


@pytest.mark.parametrize(("action", "stops"), [("halt", 1), ("freeze", 0)])
async def test_a_resume_that_returns_under_the_switch_is_refused(action: str, stops: int) -> None:
    class SlowResume(FakeController):
        up = trio.Event()

        async def resume(self, name: str) -> None:
            await self.up.wait()
            await super().resume(name)

    fake = SlowResume(StrategyStatus("s", "running", equity=1000, allocated=1000))
    async with virtual_fund(fake, kill_action=action) as world, trio.open_nursery() as nursery:
        await _ticks(world, 1)
        await world.fund.pause("s", by="ann", reason="r")
        await _ticks(world, 1)
        heard: list[str] = []

        async def resume() -> None:
            with pytest.raises(HostFault, match="returned under the kill switch") as fault:
                await world.fund.resume("s", by="ann", reason="r")
            heard.append(str(fault.value))

        nursery.start_soon(resume)
        await trio.testing.wait_all_tasks_blocked()
        await _kill(world)
        fake.up.set()
        await trio.testing.wait_all_tasks_blocked()
        assert _calls(world, "stop") == stops
        assert ("is stopped again" in heard[0]) is (action == "halt")
        assert not world.fund.may_trade("s")
        assert (await world.fund.why("s")).blockers[1].kind == "operator", "the pause stands"


async def test_a_strategy_that_runs_without_a_part_to_stop_it_is_a_stop_all_each_tick() -> None:
    asked: list[tuple[str, ...]] = []

    class Small:
        def strategies(self) -> list[StrategyStatus]:
            return [StrategyStatus("s", "running", equity=1000, allocated=1000)]

        def stop_all(self, reason: str, action: str, strategies: Sequence[str]) -> StopReport:
            asked.append(tuple(strategies))
            return StopReport(0, 0)

    async with virtual_fund(Small()) as world:  # type: ignore[arg-type]
        await _ticks(world, 1)
        await _kill(world)
        await _ticks(world, 2)
        asked.clear()
        await _ticks(world, 5)
        assert asked == [("s",)] * 5
        status = await world.fund.kill_switch.status()
        assert (status.state, status.problem) == ("UNCONFIRMED", "s running under the kill switch")


async def test_an_emergency_stop_confirms_nothing(autojump_clock: trio.testing.MockClock) -> None:
    fake = SlowRestart()
    fake.stopped = trio.Event()
    async with virtual_fund(fake) as world:
        await _ticks(world, 1)
        await _kill(world)
        await trio.sleep(13)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert _calls(world, "emergency_stop") == 1
        assert await _state(world) == "UNCONFIRMED"
        fake.stopped.set()


async def test_no_rate_limit_refuses_it_or_hides_it() -> None:
    fake = _fake()
    fake.set("s", state="stopped")
    async with virtual_fund(fake) as world:
        await _ticks(world, 1)
        for number in range(1, 41):
            assert await _kill(world) == "ENGAGING"
            await trio.testing.wait_all_tasks_blocked()
            assert (await _state(world), _calls(world, "stop_all")) == ("ENGAGED", number)
            await world.fund.kill_switch.release(by="ann", reason="a drill")


async def test_it_is_rearmed_in_no_other_way() -> None:
    async with virtual_fund(_fake()) as world:
        await _ticks(world, 1)
        await _kill(world)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(BadRequest, match="rearm") as refusal:
            await world.fund.kill_switch.release(by="a", reason="r", rearm="x")  # type: ignore[arg-type]
        assert refusal.value.field == "rearm"
        assert await _state(world) == "ENGAGED"


async def test_no_time_and_no_recovery_of_nav_releases_it() -> None:
    fake = FakeController(StrategyStatus("s", "running"))
    async with virtual_fund(fake) as world:
        await _ticks(world, 1)
        fake.set("s", realized_pnl=-16_000)
        await _ticks(world, 1)
        fake.set("s", state="stopped", realized_pnl=50_000)
        await _ticks(world, 60, 86_400)
        status = await world.fund.status()
        assert (status.kill_switch, status.drawdown_pct) == ("ENGAGED", 0.0)


# -- the marker and the database


async def test_a_marker_made_by_hand_is_heeded_while_it_runs(tmp_path: Path) -> None:
    async with virtual_fund(_fake(), db_path=tmp_path / "x.db") as world:
        await _ticks(world, 1)
        (tmp_path / "x.db.kill").touch()
        await _ticks(world, 1)
        assert await _state(world) == "ENGAGED"
        assert _calls(world, "stop_all") == 1
        assert not world.fund.may_trade("s")
    async with virtual_fund(_fake(), db_path=tmp_path / "x.db") as world:
        assert await _state(world) == "ENGAGED"


async def test_the_latch_is_committed_without_a_tick(tmp_path: Path) -> None:
    async with virtual_fund(_fake(), db_path=tmp_path / "x.db") as world:
        await _ticks(world, 1)
        await _kill(world)
        await trio.testing.wait_all_tasks_blocked()
    (tmp_path / "x.db.kill").unlink()
    async with virtual_fund(_fake(), db_path=tmp_path / "x.db") as world:
        status = await world.fund.kill_switch.status()
        assert (status.state, status.reason, status.by) == ("ENGAGED", "x", "me")


async def test_a_mute_engine_that_answers_stop_all_is_told_to_be_unconfirmed_each_minute() -> None:
    fake = _fake()
    fake.failures["strategies"] = ConnectionError()
    async with virtual_fund(fake, **HEAL) as world:
        await _kill(world)
        await _ticks(world, 9)
        assert await _state(world) == "ENGAGING", "its first word may still come"
        await _ticks(world, 2)
        status = await world.fund.kill_switch.status()
        assert (status.state, status.problem) == ("UNCONFIRMED", NOT_NAMED)
        await _ticks(world, 120)
        told = [title for _, title in _kill_alerts(world) if title.endswith("not confirmed")]
        assert len(told) == 3, "at once, and at 60 and 120 s"
        fake.failures.clear()
        await _ticks(world, 2)
        assert await _state(world) == "ENGAGED"


# -- told whatever was told before


async def _breach(world: VirtualFund, pnl: float) -> None:
    fake = world.controller
    fake.set("s", state="running", realized_pnl=pnl, equity=50_000 + pnl)
    await _ticks(world, 1)
    fake.set("s", state="stopped")
    await _ticks(world, 2)
    assert await _state(world) == "ENGAGED"


async def test_a_kill_after_a_release_without_a_fund_is_told(tmp_path: Path) -> None:
    clock, path = VirtualClock(START_US), tmp_path / "x.db"
    fake = FakeController(StrategyStatus("s", "running", equity=50_000, allocated=50_000))
    settings: dict[str, Any] = {**HEAL, "max_strategy_drawdown_pct": 100, "clock": clock}
    async with virtual_fund(fake, **settings, db_path=path) as world:
        await _ticks(world, 1)
        await _breach(world, -16_000)
    words = {"by": "ann", "reason": "well", "rearm": "from_current_nav"}
    release_stored(path, **words, accept_open_orders=False)
    async with virtual_fund(fake, **settings, db_path=path) as world:
        await _ticks(world, 1)
        assert _kill_alerts(world)[-1] == ("INFO", "Kill switch released by ann")
        clock.advance(3_600)  # within the time in which an open key is not told again
        await _breach(world, -32_000)
        assert _kill_alerts(world)[-2:] == [
            ("CRITICAL", "Kill switch activated"),
            ("INFO", "Kill switch: stop confirmed"),
        ]


async def test_a_fund_that_starts_on_a_marker_of_the_command_line_tells_the_kill(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.db"
    Marker(marker_of(path)).write(KillStatus("ENGAGING", "fire", "ann", START_US))
    for _ in range(2):
        async with virtual_fund(_fake(), **HEAL, db_path=path) as world:
            await _ticks(world, 3)
            assert await _state(world) == "ENGAGED"
            assert _kill_alerts(world) == [
                ("CRITICAL", "Kill switch activated"),
                ("INFO", "Kill switch: stop confirmed"),
            ]


async def test_a_drawdown_after_a_release_is_warned_of_anew() -> None:
    fake = FakeController(StrategyStatus("s", "running", equity=50_000, allocated=50_000))
    async with virtual_fund(fake, **HEAL, max_strategy_drawdown_pct=100) as world:
        await _ticks(world, 1)
        await _breach(world, -16_000)
        await world.fund.kill_switch.release(by="ann", reason="well")
        fake.set("s", state="running")
        await _ticks(world, 1)
        world.clock.advance(3_600)
        fake.set("s", realized_pnl=-27_000, equity=23_000)  # 13.1% of 84,000, limit 15%
        await _ticks(world, 1)
        titles = [alert.title for alert in world.sent_alerts()]
        assert titles.count("Fund approaches its drawdown limit") == 2
