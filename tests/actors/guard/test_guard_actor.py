"""The guard actor: it acts first, forgets nothing, and lets go only for a person."""

import os
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from fundops.actors.guard import GuardActor, GuardSettings, KillLatch, Leases
from fundops.actors.guard.marker import Marker
from fundops.actors.host import Host
from fundops.runtime import Actor, ChildSpec, Supervisor, VirtualClock, handles, open_supervisor
from fundops.wire.alert import Level, SendAlert
from fundops.wire.controller import KillAction, StopReport, StrategyStatus
from fundops.wire.errors import (
    BadRequest,
    KillSwitchNotEngaged,
    StopNotConfirmed,
    StorageDegraded,
)
from fundops.wire.guard import (
    EngageKillSwitch,
    Entitlement,
    GuardReport,
    GuardState,
    KillStatus,
    PauseStrategy,
    ReadKillSwitch,
    ReleaseKillSwitch,
    RestoreGuard,
    StrategyBook,
    StrategyResumed,
    Watch,
)
from fundops.wire.promotion import EntitlementTerms, PromotionStage

T0 = 1_700_000_000_000_000
UNIT = 10**8
CAPITAL_MINOR = 100_000 * UNIT
LIVE = EntitlementTerms("mm", PromotionStage.Live_Small, "live", 0.01)
PAPER = EntitlementTerms("mm", PromotionStage.Paper, "paper", 0.0)


class Engine:
    """The host's engine: stops when told to, or does not."""

    def __init__(self) -> None:
        self.open_orders: Any = 0
        self.open_positions = 3
        self.stops: list[tuple[str, str]] = []
        self.calls: list[tuple[str, str, tuple[str, ...]]] = []
        self.stopped: list[str] = []
        self.alive: list[int] = []
        self.on_stop: Callable[[], None] = lambda: None
        self.mood = "works"

    def strategies(self) -> list[StrategyStatus]:
        return []

    async def _behave(self) -> None:
        if self.mood == "hangs":
            await trio.sleep_forever()
        if self.mood == "raises":
            raise RuntimeError("no")

    async def stop_all(self, reason: str, action: KillAction, strategies: Sequence[str]) -> Any:
        self.stops.append((reason, action))
        self.calls.append((reason, action, tuple(strategies)))
        self.on_stop()
        await self._behave()
        report = StopReport(self.open_orders, self.open_positions)
        return report if self.mood != "babbles" else "stopped, sort of"

    async def pause(self, name: str, reason: str) -> None:
        raise AssertionError("the tick's to do")

    async def resume(self, name: str) -> None:
        raise AssertionError("oversight's to do")

    async def stop(self, name: str, reason: str) -> None:
        self.stopped.append(name)

    def keep_alive(self, until_us: int) -> None:
        self.alive.append(until_us)


class Mute:
    """A controller that can be asked for its strategies and nothing else."""

    def strategies(self) -> list[StrategyStatus]:
        return []


class Inbox(Actor):
    """In the alert actor's place."""

    sent: list[SendAlert] = []  # noqa: RUF012  emptied for each test

    @handles(SendAlert)
    def take(self, message: SendAlert) -> Any:  # told here, never asked
        self.sent.append(message)


class Tree:
    """A running guard."""

    def __init__(self, supervisor: Supervisor, clock: VirtualClock, leases: Leases) -> None:
        self.supervisor, self.clock, self.leases = supervisor, clock, leases
        self.engine_state: Any = "running"
        self.allocated = 1_000
        self.doubts: dict[str, str] = {}
        self.guard = supervisor.ref("guard")

    async def ask(self, request: Any) -> Any:
        return await self.guard.ask(request, timeout_s=60)

    async def watch(
        self, pnl: Any = 0, terms: Any = None, blind_s: float = 0.0, **more: Any
    ) -> GuardReport:
        one = StrategyStatus("mm", self.engine_state, None, self.allocated, pnl, **more)
        report: GuardReport = await self.ask(
            Watch((one,), terms, CAPITAL_MINOR, 0, 0, blind_s, doubts=self.doubts)
        )
        await trio.testing.wait_all_tasks_blocked()
        return report

    async def engage(self, reason: Any = "r", by: Any = "owner") -> KillStatus:
        """Engage, and let the engine answer."""
        begun: KillStatus = await self.ask(EngageKillSwitch(reason, by))
        assert begun.state in ("ENGAGING", "UNCONFIRMED")
        await trio.testing.wait_all_tasks_blocked()
        return self.leases.latch.status

    async def state(self) -> str:
        return str((await self.ask(ReadKillSwitch())).state)

    async def alerts(self) -> list[tuple[Level, str, str, bool]]:
        await trio.testing.wait_all_tasks_blocked()
        found = [(one.level, one.title, one.message, one.resolves) for one in Inbox.sent]
        Inbox.sent.clear()
        return found


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "fund.db.kill"


@pytest.fixture
def engine() -> Engine:
    return Engine()


@asynccontextmanager
async def opened(
    marker: Path,
    controller: Any = None,
    settings: GuardSettings = GuardSettings(),  # noqa: B008  frozen
    clock: VirtualClock | None = None,
) -> AsyncIterator[Tree]:
    clock = clock or VirtualClock(T0)
    leases = Leases(clock, KillLatch())
    Inbox.sent.clear()
    async with trio.open_nursery() as nursery:
        host = Host(controller or Engine(), nursery, clock=clock, latch=leases.latch)
        await host.strategies_now()  # a stop of an engine that has said nothing is not confirmed
        children = [
            ChildSpec(
                "guard", lambda: GuardActor(clock, host, settings, leases, marker, CAPITAL_MINOR)
            ),
            ChildSpec("alert", Inbox),
        ]
        async with open_supervisor(children) as supervisor:
            yield Tree(supervisor, clock, leases)


# -- leases


async def test_a_lease_lets_a_live_strategy_trade_and_runs_out_by_itself(marker: Path) -> None:
    async with opened(marker) as tree:
        assert not tree.leases.may_trade("mm")
        await tree.watch(terms={"mm": LIVE})
        assert tree.leases.may_trade("mm")
        assert tree.leases.entitlement("mm") == Entitlement(
            "live-small", "live", Decimal(1_000), T0 + 30_000_000, True, True
        )
        tree.clock.advance(30)
        assert tree.leases.may_trade("mm")
        tree.clock.advance(0.000001)
        assert not tree.leases.may_trade("mm")
        await tree.watch(terms={"mm": LIVE})
        assert tree.leases.may_trade("mm")


async def test_only_what_the_stage_says_may_trade(marker: Path) -> None:
    async with opened(marker) as tree:
        await tree.watch(terms={"mm": PAPER})
        assert not tree.leases.may_trade("mm")
        assert tree.leases.entitlement("mm").mode == "paper"
        await tree.watch(terms={})  # nobody registered it
        held = tree.leases.entitlement("mm")
        assert (held.mode, held.capital, held.may_open, held.may_close) == (
            "none",
            Decimal(0),
            False,
            False,
        )
        await tree.watch(terms=None)  # promotion is off: the host's own say
        assert tree.leases.may_trade("mm")
        assert tree.leases.entitlement("mm").capital == 100_000
        assert not tree.leases.may_trade("somebody else")


async def test_a_silent_engine_renews_no_lease(marker: Path) -> None:
    async with opened(marker) as tree:
        await tree.watch(terms={"mm": LIVE})
        tree.clock.advance(20)
        await tree.watch(terms={"mm": LIVE}, blind_s=20)
        assert tree.leases.may_trade("mm")
        tree.clock.advance(10.1)
        assert not tree.leases.may_trade("mm")


async def test_a_look_after_the_end_of_the_fund_renews_no_lease_and_keeps_no_order_alive(
    marker: Path, engine: Engine
) -> None:
    async with opened(marker, engine) as tree:
        await tree.watch(terms={"mm": LIVE})
        assert engine.alive == [T0 + 30_000_000]
        tree.leases.end_all()
        await tree.watch(terms={"mm": LIVE})
        assert tree.leases.entitlement("mm").mode == "reduce"
        assert len(engine.alive) == 1


async def test_a_paused_strategy_holds_no_lease_until_a_person_resumes_it(
    marker: Path, engine: Engine
) -> None:
    async with opened(marker, engine) as tree:
        await tree.watch(terms={"mm": LIVE})
        report = await tree.watch(-300, {"mm": LIVE})
        assert [one.strategy for one in report.pauses] == ["mm"]
        await tree.watch(-1, {"mm": LIVE})
        assert not tree.leases.may_trade("mm")
        assert tree.leases.entitlement("mm").mode == "reduce"
        assert tree.leases.may_close("mm")
        assert await tree.ask(StrategyResumed("mm", "owner", "checked"))
        await tree.watch(-1, {"mm": LIVE})
        assert tree.leases.may_trade("mm")
        resolved = [one.dedup_key for one in Inbox.sent if one.resolves]
        assert resolved == ["paused:mm", "observe:paused:mm", "drawdown:mm"]
        assert not await tree.ask(StrategyResumed("mm", "owner", "checked"))
        assert not await tree.ask(StrategyResumed("nobody", "owner", "checked"))


# -- engaging


async def test_engaging_ends_leases_and_writes_the_marker_before_the_engine_is_told(
    marker: Path, engine: Engine
) -> None:
    async with opened(marker, engine) as tree:
        await tree.watch(terms={"mm": LIVE})
        seen: list[Any] = []
        engine.on_stop = lambda: seen.extend(
            [tree.leases.may_trade("mm"), Marker(marker).read()],
        )
        status = await tree.engage("bad feeling")
        assert (status.state, status.reason, status.by, status.at_us) == (
            "ENGAGED",
            "bad feeling",
            "owner",
            T0,
        )
        may_trade, then = seen
        assert not may_trade
        assert (then.state, then.reason) == ("ENGAGING", "bad feeling")
        assert engine.stops == [("bad feeling", "halt")]
        told, confirmed = await tree.alerts()
        assert told == (
            Level.CRITICAL,
            "Kill switch activated",
            "bad feeling. Stopped: mm. Left open: not known yet. Next automatic act: stop_all is"
            " called at each tick until the stop is confirmed. To undo: fundops kill-switch release"
            " --by NAME --reason TEXT.",
            False,
        )
        assert confirmed == (
            Level.INFO,
            "Kill switch: stop confirmed",
            "Stopped: mm. Left open: 0 orders, 3 positions, 0 protective orders. Next automatic"
            " act: none. To undo: fundops kill-switch release --by NAME --reason TEXT.",
            False,
        )
        assert stat.S_IMODE(os.stat(marker).st_mode) == 0o600
        again: KillStatus = await tree.ask(EngageKillSwitch("another", "guard"))
        assert again == status
        assert len(engine.stops) == 1
        tree.engine_state = "stopped"
        await tree.watch(terms={"mm": LIVE})
        assert not tree.leases.may_trade("mm")
        assert len(engine.stops) == 1


async def test_the_limit_engages_before_the_look_is_answered(marker: Path, engine: Engine) -> None:
    settings = GuardSettings(kill_confirm_ticks=2, max_strategy_drawdown_pct=100)
    async with opened(marker, engine, settings) as tree:
        tree.allocated = 1_000_000
        await tree.watch()
        assert (await tree.watch(-15_200)).state.kill_state == "OFF"
        assert tree.leases.may_trade("mm")
        assert (await tree.watch(-15_200)).state.kill_state == "ENGAGING"
        assert tree.leases.latch.status.state == "ENGAGED"
        assert engine.stops == [("Fund drawdown 15.2% reached its limit 15.0%", "halt")]
        assert not tree.leases.may_trade("mm")
        level, title, message, _ = (await tree.alerts())[-2]
        assert (level, title) == (Level.CRITICAL, "Kill switch activated")
        assert message.startswith("Fund drawdown 15.2% reached its limit 15.0%. Stopped: mm. ")


async def test_the_alert_names_the_strategy_that_lowered_nav(marker: Path, engine: Engine) -> None:
    async with opened(marker, engine) as tree:
        await tree.watch()
        await tree.watch(-15_200)
        message = (await tree.alerts())[-2][2]
        assert message.startswith(
            "Fund drawdown 15.2% reached its limit 15.0%; mm lowered NAV most at that look. "
        )


async def test_a_bad_print_halts_and_sells_nothing(marker: Path, engine: Engine) -> None:
    async with opened(marker, engine, GuardSettings(kill_action="flatten")) as tree:
        await tree.watch()
        await tree.watch(-20_000)
        tree.engine_state = "stopped"
        for _ in range(5):
            await tree.watch(-1)
        assert {action for _, action in engine.stops} == {"halt"}
        assert await tree.state() == "ENGAGED"


async def test_a_breach_that_stands_for_three_looks_flattens(marker: Path, engine: Engine) -> None:
    async with opened(marker, engine, GuardSettings(kill_action="flatten")) as tree:
        engine.open_positions = 0
        await tree.watch()
        await tree.watch(-20_000)
        tree.engine_state = "stopped"
        await tree.watch(-20_000)
        assert [action for _, action in engine.stops] == ["halt"]
        await tree.watch(-20_000)
        assert [action for _, action in engine.stops] == ["halt", "flatten"]
        assert await tree.state() == "ENGAGED"


async def test_a_person_flattens_at_once_and_until_no_position_is_open(
    marker: Path, engine: Engine
) -> None:
    async with opened(marker, engine, GuardSettings(kill_action="flatten")) as tree:
        engine.open_positions = 1
        status = await tree.engage()
        assert engine.stops == [("r", "flatten")]
        assert (status.state, status.open_positions) == ("UNCONFIRMED", 1)
        assert status.problem == "1 positions still open"
        engine.open_positions = 0
        await tree.watch()
        assert await tree.state() == "ENGAGED"


async def test_a_blind_engine_with_live_strategies_is_a_reason_to_stop(
    marker: Path, engine: Engine
) -> None:
    async with opened(marker, engine, GuardSettings(on_blind="kill")) as tree:
        await tree.watch(terms={"mm": LIVE})
        assert (await tree.watch(terms={"mm": LIVE}, blind_s=59.9)).state.kill_state == "OFF"
        assert (await tree.watch(terms={"mm": LIVE}, blind_s=60)).state.kill_state == "ENGAGING"


async def test_open_orders_leave_it_unconfirmed_and_each_look_tries_again(
    marker: Path, engine: Engine
) -> None:
    async with opened(marker, engine) as tree:
        await tree.watch()
        engine.open_orders = 2
        assert (await tree.engage()).state == "UNCONFIRMED"
        assert (await tree.alerts())[-1][1] == "Kill switch activated, stop not confirmed"
        tree.engine_state = "stopped"
        for tries in (2, 3):
            assert (await tree.watch()).state.kill_state == "UNCONFIRMED"
            assert len(engine.stops) == tries
            assert not tree.leases.may_trade("mm")
        engine.open_orders = 0
        await tree.watch()
        assert await tree.state() == "ENGAGED"
        await tree.watch()
        assert len(engine.stops) == 4
        found = Marker(marker).read()
        assert found is not None
        assert found.state == "ENGAGED"


@pytest.mark.parametrize("mood", ["raises", "hangs", "babbles"])
async def test_an_engine_that_does_not_stop_still_loses_its_leases(
    marker: Path, engine: Engine, mood: str, autojump_clock: MockClock
) -> None:
    async with opened(marker, engine) as tree:
        await tree.watch()
        engine.mood = mood
        await tree.engage()
        assert not tree.leases.may_trade("mm")
        assert trio.current_time() == 0, "nothing waits for the engine"
        assert await tree.state() == ("ENGAGING" if mood == "hangs" else "UNCONFIRMED")
        await trio.sleep(11)
        assert await tree.state() == "UNCONFIRMED"
        assert (await tree.alerts())[-1][0] is Level.CRITICAL
        engine.mood, tree.engine_state = "works", "stopped"
        await tree.watch()
        assert await tree.state() == "ENGAGED"
        assert tree.guard.epoch == 1


async def test_a_controller_that_cannot_stop_is_never_confirmed(marker: Path) -> None:
    async with opened(marker, Mute()) as tree:
        await tree.watch()
        assert (await tree.engage()).state == "UNCONFIRMED"
        assert not tree.leases.may_trade("mm")


async def test_a_marker_that_cannot_be_written_does_not_keep_it_from_engaging(
    tmp_path: Path, engine: Engine
) -> None:
    async with opened(tmp_path / "gone" / "fund.kill", engine) as tree:
        await tree.watch()
        assert (await tree.engage()).state == "ENGAGED"
        assert not tree.leases.may_trade("mm")
        assert engine.stops == [("r", "halt")]


@pytest.mark.parametrize(
    ("by", "action", "asked"), [("ann", None, "flatten"), ("fundops", None, "halt")]
)
async def test_a_person_that_engaged_without_a_fund_gets_the_configured_action(
    marker: Path, engine: Engine, by: str, action: Any, asked: str
) -> None:
    Marker(marker).write(KillStatus("ENGAGING", "r", by, T0, action=action))
    async with opened(marker, engine, GuardSettings(kill_action="flatten")) as tree:
        await tree.watch()
        assert engine.stops == [("r", asked)]


# -- remembering


async def test_it_stays_engaged_over_a_restart_and_a_crash(marker: Path, engine: Engine) -> None:
    async with opened(marker, engine) as tree:
        before = await tree.engage()
        tree.supervisor.drill("guard")
        assert await tree.ask(ReadKillSwitch()) == before
        assert tree.guard.epoch == 2
    async with opened(marker, engine) as tree:
        assert await tree.ask(ReadKillSwitch()) == before
        tree.engine_state = "stopped"
        await tree.watch()
        assert not tree.leases.may_trade("mm")
        assert (await tree.watch()).state.kill_state == "ENGAGED"
        # Before its first look a new process knows no name; the look brings one.
        assert [names for *_, names in engine.calls[1:]] == [(), ("mm",)]


async def test_a_crash_before_the_stop_was_confirmed_tries_again(
    marker: Path, engine: Engine
) -> None:
    Marker(marker).write(KillStatus("ENGAGING", "r", "owner", T0))
    async with opened(marker, engine) as tree:
        assert await tree.state() == "ENGAGING"
        await tree.watch()
        assert await tree.state() == "ENGAGED"
        assert engine.stops == [("r", "halt")]


def unreadable_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x00\xff garbage"),
        lambda path: path.write_bytes(b'{"state":"PERHAPS","reason":"","by":"","at_us":null}'),
        lambda path: path.write_bytes(b'{"state":"OFF"'),
        unreadable_folder,
    ],
    ids=["empty", "garbage", "unknown state", "torn", "folder"],
)
async def test_a_marker_that_cannot_be_read_means_engaged(
    marker: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(marker)
    async with opened(marker) as tree:
        status = await tree.ask(ReadKillSwitch())
        assert status.state == "ENGAGING", "the file does not say what the engine has confirmed"
        assert "cannot be read" in status.reason
        await tree.watch()
        assert not tree.leases.may_trade("mm")


def test_a_marker_is_never_seen_half_written(marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, seen, sync = KillStatus("ENGAGING", "loss", "ann", 1), [], os.fsync
    synced: list[bool] = []  # whether it was a folder

    def look(descriptor: int) -> None:
        seen.append(Marker(marker).read())
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        # Another process writes it too, such as the command line beside a fund that heeds it.
        other = [path for path in marker.parent.iterdir() if path != marker]
        assert all(str(os.getpid()) in path.name for path in other)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    Marker(marker).write(status)
    assert seen[0] in (None, status)
    assert seen[-1] == status
    assert synced == [False, True], "the words before the name, and the name before the answer"
    Marker(marker).remove()
    assert [*marker.parent.iterdir()] == []


async def test_the_database_remembers_what_the_marker_lost(marker: Path) -> None:
    async with opened(marker) as tree:
        await tree.ask(RestoreGuard(GuardState(kill_state="UNCONFIRMED", units=1.0)))
        status = await tree.ask(ReadKillSwitch())
        assert (status.state, status.by) == ("ENGAGING", "fundops")
        found = Marker(marker).read()
        assert found is not None
        assert (found.state, found.reason) == (status.state, status.reason)
        await tree.watch()
        assert not tree.leases.may_trade("mm")


async def test_the_memory_of_a_living_guard_wins_over_an_older_stored_one(marker: Path) -> None:
    async with opened(marker) as tree:
        stored = await tree.ask(RestoreGuard(GuardState()))
        assert stored == GuardState()
        risen = (await tree.watch(50, {"mm": LIVE})).state
        assert await tree.ask(RestoreGuard(stored)) == risen
        await tree.engage()
        await tree.ask(ReleaseKillSwitch("owner", "looked"))
        engaged = KillStatus("ENGAGED", "r", "owner", 1)
        await tree.ask(RestoreGuard(stored, engaged))  # the release is not stored yet
        assert await tree.state() == "OFF"


async def test_a_pause_of_before_the_stored_memory_stands_beside_it(marker: Path) -> None:
    async with opened(marker) as tree:
        await tree.ask(PauseStrategy("mm", "ann", "night", known=True))
        stored = GuardState(strategies={"mm": StrategyBook(had_real=True, pnl_minor=7)})
        book = (await tree.ask(RestoreGuard(stored))).strategies["mm"]
        assert (book.paused_by, book.paused_why, book.pnl_minor) == ("ann", "night", 7)


async def test_a_database_that_remembers_nothing_does_not_release_it(marker: Path) -> None:
    async with opened(marker) as tree:
        await tree.engage()
        await tree.ask(RestoreGuard(GuardState()))
        assert await tree.state() == "ENGAGED"
        assert (await tree.watch()).state.kill_state == "ENGAGED"


async def test_the_books_go_on_where_the_database_left_them(marker: Path) -> None:
    async with opened(marker) as tree:
        await tree.watch()
        remembered = (await tree.watch(-5_000, {"mm": LIVE})).state
        peak = remembered.peak_per_unit
    async with opened(marker) as tree:
        await tree.ask(
            RestoreGuard(msgspec.json.decode(msgspec.json.encode(remembered), type=GuardState))
        )
        report = await tree.watch(-10_000, {"mm": LIVE})
        assert report.state.drawdown == pytest.approx(10.0)
        assert report.state.peak_per_unit == peak
        assert report.state.nav_minor == 90_000 * UNIT


# -- releasing


@pytest.mark.parametrize(("field", "by", "reason"), [("by", "", "r"), ("reason", "owner", None)])
async def test_nothing_is_released_without_a_name_and_a_reason(
    marker: Path, field: str, by: Any, reason: Any
) -> None:
    async with opened(marker) as tree:
        await tree.engage()
        with pytest.raises(BadRequest) as refusal:
            await tree.ask(ReleaseKillSwitch(by, reason))
        assert refusal.value.field == field
        assert await tree.state() == "ENGAGED"


async def test_nothing_is_released_before_the_engine_has_answered(
    marker: Path, engine: Engine
) -> None:
    async with opened(marker, engine) as tree:
        engine.open_orders = 1
        await tree.engage()
        with pytest.raises(StopNotConfirmed) as refusal:
            await tree.ask(ReleaseKillSwitch("owner", "r"))
        assert (refusal.value.state, refusal.value.problem) == (
            "UNCONFIRMED",
            "1 orders still open",
        )
        accepted = ReleaseKillSwitch("owner", "r", accept_open_orders=True)
        assert (await tree.ask(accepted)).state == "OFF"


async def test_a_marker_that_cannot_be_removed_refuses_the_release_and_crashes_nothing(
    marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(self: Marker) -> None:
        raise OSError(30, "Read-only file system")

    async with opened(marker) as tree:
        await tree.engage()
        with monkeypatch.context() as broken:
            broken.setattr(Marker, "remove", stuck)
            with pytest.raises(StorageDegraded, match="cannot be removed"):
                await tree.ask(ReleaseKillSwitch("owner", "r"))
        assert (await tree.state(), tree.guard.epoch) == ("ENGAGED", 1)


async def test_only_a_person_releases_it_and_the_drawdown_begins_anew(
    marker: Path, engine: Engine
) -> None:
    async with opened(marker, engine) as tree:
        tree.allocated = 1_000_000
        await tree.watch()
        await tree.watch(-20_000)
        assert await tree.state() == "ENGAGED"
        tree.engine_state = "stopped"
        for _ in range(3):  # a drawdown that shrinks releases nothing
            assert (await tree.watch(-1)).state.kill_state == "ENGAGED"
        await tree.watch(-20_000)
        await tree.alerts()
        status = await tree.ask(ReleaseKillSwitch("owner", "understood"))
        assert status.state == "OFF"
        assert Marker(marker).read() is None
        assert not tree.leases.may_trade("mm")  # not before the next look
        assert (status.next_stop_nav, status.next_stop_below_peak_pct) == (68_000, 32.0)
        ((level, title, message, resolves),) = await tree.alerts()
        assert (level, title, resolves) == (Level.INFO, "Kill switch released by owner", True)
        assert message.startswith(
            "understood. The next stop is at NAV 68,000.00, 32.0% below the peak. Stopped: none. "
        )
        tree.engine_state = "running"
        report = await tree.watch(-20_000)
        assert (report.state.kill_state, report.state.drawdown) == ("OFF", 0)
        assert tree.leases.may_trade("mm")
        assert (await tree.watch(-31_999)).state.kill_state == "OFF"
        assert (await tree.watch(-32_000)).state.kill_state == "ENGAGING"  # 15% of 80,000
        status = await tree.ask(ReleaseKillSwitch("owner", "again"))
        assert (status.next_stop_nav, status.next_stop_below_peak_pct) == (57_800, 42.2)
        with pytest.raises(KillSwitchNotEngaged):
            await tree.ask(ReleaseKillSwitch("owner", "and again"))


async def test_a_released_switch_is_off_after_a_restart(marker: Path) -> None:
    async with opened(marker) as tree:
        await tree.engage()
        await tree.ask(ReleaseKillSwitch("owner", "fine"))
    async with opened(marker) as tree:
        assert await tree.state() == "OFF"


async def test_a_marker_that_could_not_be_written_is_written_at_the_next_look(
    marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Marker, status: KillStatus) -> None:
        raise OSError(28, "No space left on device")

    async with opened(marker) as tree:
        with monkeypatch.context() as broken:
            broken.setattr(Marker, "write", full)
            await tree.engage()
            tree.engine_state = "stopped"
            await tree.watch()
            assert Marker(marker).read() is None
        await tree.watch()
        assert Marker(marker).read() == await tree.ask(ReadKillSwitch())
        assert (await tree.ask(ReadKillSwitch())).state == "ENGAGED"


def test_a_marker_that_cannot_be_looked_for_counts_as_one(tmp_path: Path) -> None:
    assert not Marker(tmp_path / "fund.db.kill").exists()
    (tmp_path / "file").touch()
    marker = Marker(tmp_path / "file" / "fund.db.kill")
    assert marker.exists()
    found = marker.read()
    assert found is not None
    assert found.state == "ENGAGED"


def test_a_marker_is_written_whole_and_leaves_no_draft_behind(marker: Path) -> None:
    status = KillStatus("ENGAGED", "r" * 10_000, "owner", T0)
    Marker(marker).write(status)
    Marker(marker).write(status)
    assert Marker(marker).read() == status
    assert [one.name for one in marker.parent.iterdir()] == [marker.name]
    Marker(marker).remove()
    Marker(marker).remove()
    assert Marker(marker).read() is None


def test_a_book_that_was_stored_by_an_older_version_can_still_be_read() -> None:
    assert msgspec.json.decode(b'{"strategies":{"mm":{}}}', type=GuardState).strategies == {
        "mm": StrategyBook()
    }


async def test_a_breach_stops_the_real_money_of_the_same_look(marker: Path, engine: Engine) -> None:
    async with opened(marker, engine) as tree:
        tree.allocated = 1_000_000
        await tree.watch(terms={"mm": PAPER})
        assert tree.leases.latch.spared == {"mm"}
        await tree.watch(-20_000, {"mm": LIVE})
        assert tree.leases.latch.spared == frozenset()
        assert [names for *_, names in engine.calls] == [("mm",)]


async def test_a_silent_ledger_leaves_the_last_known_entry(marker: Path) -> None:
    async with opened(marker) as tree:
        seen = []
        for seq in (7, None, 9):
            report = await tree.ask(Watch((), None, CAPITAL_MINOR, 0, 0, seq=seq))
            seen.append(report.state.seq)
        assert seen == [7, 7, 9]
