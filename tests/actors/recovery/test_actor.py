"""The recovery actor on a real database, in virtual time: durability, restarts, crashes."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio
from trio.testing import MockClock

from fundops.actors.host import Host
from fundops.actors.persistence import PersistenceActor, Reader
from fundops.actors.persistence import schema as persistence_schema
from fundops.actors.recovery import (
    SCHEMA,
    SCHEMA_3,
    SCHEMA_5,
    RecoveryActor,
    RecoverySettings,
    schema,
)
from fundops.actors.recovery.actor import calls_of
from fundops.actors.recovery.feeds import Feed
from fundops.actors.recovery.record import Record
from fundops.runtime import (
    Actor,
    ActorCrashed,
    AskTimeout,
    ChildSpec,
    InlineWorker,
    Ref,
    VirtualClock,
    handles,
    open_supervisor,
)
from fundops.wire.alert import AlertsWaiting
from fundops.wire.controller import FeedStatus, StrategyState, StrategyStatus
from fundops.wire.errors import (
    BadLimit,
    ConstraintFailed,
    HostFault,
    NotRetryable,
    OutcomeUnknown,
    StorageDegraded,
    UnmanagedStrategy,
)
from fundops.wire.persistence import COMMIT_DEADLINE_S, Commit, StorageStatistics
from fundops.wire.recovery import (
    AttemptEnded,
    AttemptLate,
    BreakerReset,
    CheckFeeds,
    CheckStrategies,
    EventHistory,
    HoldStrategy,
    RecoveryAction,
    RecoveryEvent,
    RecoveryPhase,
    RecoveryStatistics,
    RecoveryStats,
    RecoveryStatus,
    RecoveryStatuses,
    ReleaseStrategy,
)

SECOND = 1_000_000
P = RecoveryPhase

ALERT_SCHEMA = """
CREATE TABLE alert_request (
    id INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, level TEXT NOT NULL, category TEXT NOT NULL,
    title TEXT NOT NULL, message TEXT NOT NULL, strategy TEXT, dedup_key TEXT,
    resolves INTEGER NOT NULL
) STRICT;
"""


class Engine:
    """The acts, with restarts that follow a script, and the strategies that it would report."""

    def __init__(self, restart: Callable[[int], str | None] | None = None) -> None:
        self.restart = restart  # None: a call hangs until `end` is called
        self.states: dict[str, StrategyState] = {"alpha": "failed"}
        self.retryable = True
        self.attempts: list[str] = []
        self.stopped: list[str] = []
        self.stop_fails = False
        self._tell: dict[str, Callable[[AttemptEnded | AttemptLate], None]] = {}

    observing = False

    def withhold_restart(self, name: str) -> None:
        raise AssertionError("nothing is withheld")

    def start_restart(
        self, name: str, attempt_id: str, tell: Callable[[AttemptEnded | AttemptLate], None]
    ) -> None:
        self.attempts.append(attempt_id)
        self._tell[attempt_id] = tell
        if self.restart is not None:
            self.end(attempt_id, self.restart(len(self.attempts)))

    def end(self, attempt_id: str, error: str | None, *, retryable: bool = True) -> None:
        name = attempt_id.split(":")[0]
        if error is None:
            self.states[name] = "running"
        self._tell.pop(attempt_id)(AttemptEnded(name, attempt_id, error, retryable))

    def late(self, attempt_id: str) -> None:
        self._tell[attempt_id](AttemptLate(attempt_id.split(":")[0], attempt_id))

    async def stop(self, name: str, reason: str) -> None:
        self.stopped.append(name)
        if self.stop_fails:
            raise HostFault("stop", "did not answer")
        self.states[name] = "stopped"

    def statuses(self) -> list[StrategyStatus]:
        return [
            StrategyStatus(name, state, error="boom", retryable=self.retryable)
            for name, state in self.states.items()
        ]


class MoodyPersistence(PersistenceActor):
    """Refuses, or crashes, when told to."""

    def __init__(self, path: Path, mood: dict[str, Any]) -> None:
        super().__init__(
            path,
            (persistence_schema.SCHEMA, SCHEMA + SCHEMA_3 + SCHEMA_5, ALERT_SCHEMA),
            make_worker=InlineWorker,
        )
        self._mood = mood

    async def commit(self, requests: list[Commit]) -> list[Any]:
        if (gate := self._mood.get("gate")) is not None:
            await gate.wait()
        refusal: Exception | None = self._mood.get("refusal")
        if self._mood.get("after"):
            await super().commit(requests)
        if isinstance(refusal, StorageDegraded | OutcomeUnknown | ConstraintFailed):
            return [refusal] * len(requests)
        if refusal is not None:
            self._mood.clear()
            raise refusal
        return list(await super().commit(requests))


class Listener(Actor):
    """In the alert actor's place: counts how often it is woken."""

    woken = 0

    @handles(AlertsWaiting)
    def wake(self, _: AlertsWaiting) -> None:
        Listener.woken += 1


class World:
    """One tree over one database, and its clock."""

    def __init__(
        self, path: Path, engine: Any, clock: VirtualClock, settings: RecoverySettings
    ) -> None:
        self.path, self.engine, self.clock, self.settings = path, engine, clock, settings
        self.mood: dict[str, Any] = {}
        self.supervisor: Any = None
        self.ref: Ref

    async def check(
        self, *, kill: bool = False, statuses: Sequence[StrategyStatus] | None = None
    ) -> Any:
        found = self.engine.statuses() if statuses is None else statuses
        events = await self.ref.ask(CheckStrategies(found, kill))
        await self.settle()
        return events

    async def settle(self) -> None:
        """Reports are told before or during a check; statistics queue up behind them."""
        await self.ref.ask(RecoveryStats())

    async def poll(self, seconds: int) -> list[tuple[int, str]]:
        """Check now and each second after it; the times, from now, and names of all attempts."""
        start_us = self.clock.now_us()
        begun: list[tuple[int, str]] = []
        for second in range(seconds + 1):
            self.clock.advance_to(start_us + second * SECOND)
            known = len(self.engine.attempts)
            await self.check()
            begun += [(second, attempt) for attempt in self.engine.attempts[known:]]
        return begun

    async def stats(self) -> RecoveryStatistics:
        return await self.ref.ask(RecoveryStats())

    async def status(self, name: str = "alpha") -> RecoveryStatus:
        [status] = [row for row in await self.ref.ask(RecoveryStatuses()) if row.name == name]
        return status

    async def history(self, limit: int = 1_000) -> tuple[RecoveryEvent, ...]:
        return await self.ref.ask(EventHistory(limit))

    async def actions(self) -> list[str]:
        return [event.action for event in reversed(await self.history())]

    def alerts(self) -> list[tuple[Any, ...]]:
        with Reader(self.path) as reader:
            return reader.rows(
                "SELECT level, category, dedup_key, resolves FROM alert_request ORDER BY id"
            )

    async def commits(self) -> int:
        return int((await self.supervisor.ref("persistence").ask(StorageStatistics())).commits)


@asynccontextmanager
async def recovery(
    path: Path,
    engine: Any,
    clock: VirtualClock | None = None,
    *,
    settings: RecoverySettings | None = None,
    alert: bool = True,
) -> AsyncIterator[World]:
    """A tree of persistence, an alert actor's stand-in, and recovery."""
    world = World(path / "fund.db", engine, clock or VirtualClock(), settings or RecoverySettings())
    children = [
        ChildSpec("persistence", lambda: MoodyPersistence(world.path, world.mood)),
        *([ChildSpec("alert", Listener)] if alert else []),
        ChildSpec(
            "recovery", lambda: RecoveryActor(world.path, world.clock, world.engine, world.settings)
        ),
    ]
    async with open_supervisor(children, strategy="rest_for_one", intensity=100) as supervisor:
        world.supervisor, world.ref = supervisor, supervisor.ref("recovery")
        yield world


def always_raises(_: int) -> str | None:
    return "RuntimeError: no"


def always_returns(_: int) -> str | None:
    return None


# -- the worked cases


@pytest.mark.parametrize(
    ("settings", "times"),
    [
        (RecoverySettings(), [0, 60, 180]),
        (RecoverySettings(first_attempt="after_cooldown"), [60, 180, 420]),
    ],
)
async def test_r1_a_breaker_opens_after_three_attempts_and_stays_open(
    tmp_path: Path, settings: RecoverySettings, times: list[int]
) -> None:
    async with recovery(tmp_path, Engine(always_raises), settings=settings) as world:
        begun = await world.poll(10_000)
        assert begun == [(time, f"alpha:1:{n}") for n, time in enumerate(times, 1)]
        assert tuple((await world.stats()).four().values()) == (3, 0, 3, 1)
        assert await world.actions() == ["restart_strategy"] * 3 + ["opened"]
        assert (await world.history(1))[0].at_us == times[-1] * SECOND
        assert await world.commits() < 10


async def test_a_check_answers_with_its_events_after_their_commit(tmp_path: Path) -> None:
    engine = Engine(always_raises)
    engine.retryable = False
    async with recovery(tmp_path, engine) as world:
        [opened] = await world.check()
        assert (opened.action, opened.target, opened.success, opened.attempt) == (
            "opened",
            "alpha",
            None,
            0,
        )
        assert await world.history() == (opened,)
        assert await world.check() == ()
        assert engine.attempts == []  # R11


async def test_r4_and_r5_in_the_log_attempts_count_within_their_episode(tmp_path: Path) -> None:
    engine = Engine(always_returns)
    async with recovery(tmp_path, engine) as world:
        await world.poll(599)
        assert (await world.status()).phase is P.PROBATION
        world.clock.advance(1)
        assert [event.action for event in await world.check()] == ["confirmed"]
        for time in (700, 765, 890):  # from here on each restart crashes after five seconds
            world.clock.advance_to(time * SECOND)
            engine.states["alpha"] = "failed"
            await world.check()
            world.clock.advance(5)
            engine.states["alpha"] = "failed"
            await world.check()
        restarts = [
            event.attempt for event in await world.history() if event.action == "restart_strategy"
        ]
        assert restarts == [3, 2, 1, 1]
        assert (await world.status()).phase is P.OPEN
        statistics = await world.stats()
        assert (statistics.confirmed, statistics.relapsed, statistics.successes) == (1, 3, 4)


async def test_r8_ten_restarts_a_day_and_no_more(tmp_path: Path) -> None:
    engine = Engine(always_returns)
    async with recovery(tmp_path, engine) as world:
        for time in range(0, 7_001, 50):
            world.clock.advance_to(time * SECOND)
            if time % 700 == 0:
                engine.states["alpha"] = "failed"
            await world.check()
        assert len(engine.attempts) == 10
        assert (await world.status()).reason == "intensity: 10 restarts within 24 h"


async def test_r12_a_cooldown_goes_on_while_the_process_is_down(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with recovery(tmp_path, Engine(always_raises), clock) as world:
        await world.poll(20)
    clock.advance(20)
    engine = Engine(always_raises)
    async with recovery(tmp_path, engine, clock) as world:
        assert await world.poll(20) == [(20, "alpha:1:2")]


async def test_r14_an_open_breaker_survives_a_restart_of_the_process(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with recovery(tmp_path, Engine(always_raises), clock) as world:
        await world.poll(200)
        before = await world.status(), await world.stats(), await world.history()
    engine = Engine(always_raises)
    async with recovery(tmp_path, engine, clock) as world:
        assert (await world.status(), await world.stats(), await world.history()) == before
        await world.poll(1_000)
        assert engine.attempts == []
        assert (await world.status()).phase is P.OPEN


async def test_r15_a_restart_in_hand_when_the_process_died_counts_as_failed(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with recovery(tmp_path, Engine(), clock) as world:
        await world.check()
        assert (await world.status()).phase is P.RESTARTING
    clock.advance(7)
    engine = Engine(always_raises)
    async with recovery(tmp_path, engine, clock) as world:
        status = await world.status()
        assert (status.phase, status.attempts, status.due_us) == (P.COOLDOWN, 1, 67 * SECOND)
        [event] = await world.history()
        assert (event.success, event.error) == (False, "interrupted: fundops was restarted")
        assert await world.poll(60) == [(60, "alpha:1:2")]


async def test_a_late_restart_in_hand_when_the_process_died_is_not_counted_twice(
    tmp_path: Path,
) -> None:
    clock, engine = VirtualClock(), Engine()
    async with recovery(tmp_path, engine, clock) as world:
        await world.check()
        engine.late("alpha:1:1")
        await world.settle()
    async with recovery(tmp_path, Engine(), clock) as world:
        assert (await world.status()).phase is P.COOLDOWN
        assert (await world.stats()).failures == 1


async def test_r16_a_reset_closes_an_open_breaker_and_nothing_else(tmp_path: Path) -> None:
    engine = Engine(always_raises)
    engine.states["beta"] = "running"
    async with recovery(tmp_path, engine) as world:
        await world.poll(200)
        with pytest.raises(UnmanagedStrategy) as unknown:
            await world.ref.ask(BreakerReset("gamma"))
        assert isinstance(unknown.value, KeyError)
        assert await world.ref.ask(BreakerReset("beta")) is False
        assert await world.ref.ask(BreakerReset("alpha", "ann")) is True
        assert await world.ref.ask(BreakerReset("alpha", "ann")) is False
        status = await world.status()
        assert (status.phase, status.attempts, status.due_us) == (
            P.COOLDOWN,
            0,
            world.clock.now_us(),
        )
        [reset] = await world.history(1)
        assert (reset.action, reset.by) == ("reset", "ann")
        await world.check()
        assert engine.attempts[-1] == "alpha:2:1"


async def test_r18_a_strategy_restarted_under_the_kill_switch_is_stopped_at_once(
    tmp_path: Path,
) -> None:
    engine = Engine()
    async with recovery(tmp_path, engine) as world:
        before = await world.commits()
        await world.check()
        await world.check(kill=True)
        assert (await world.status()).phase is P.HELD
        engine.end("alpha:1:1", None)
        await world.settle()
        assert engine.stopped == ["alpha"]
        await world.check(kill=True)
        status = await world.status()
        assert (status.phase, status.reason) == (P.HELD, "kill switch")
        assert await world.actions() == ["held", "restart_strategy"]
        assert await world.commits() == before + 4  # begun, held, stopped, and seen to have stopped


async def test_a_stop_does_not_wait_for_storage_and_is_repeated_until_it_works(
    tmp_path: Path,
) -> None:
    engine = Engine()
    engine.stop_fails = True
    async with recovery(tmp_path, engine) as world:
        await world.check()
        world.mood["refusal"] = StorageDegraded("full")
        with pytest.raises(StorageDegraded):
            await world.check(kill=True)
        engine.end("alpha:1:1", None)
        await world.settle()
        assert engine.stopped == ["alpha"]
        world.mood.clear()
        await world.check(kill=True)
        engine.stop_fails = False
        await world.check(kill=True)
        assert engine.states["alpha"] == "stopped"
        stops = len(engine.stopped)
        await world.check(kill=True)
        assert len(engine.stopped) == stops
        assert (await world.status()).phase is P.HELD
        assert (await world.stats()).successes == 1


async def test_a_hold_keeps_everything_still_until_its_release(tmp_path: Path) -> None:
    engine = Engine(always_raises)
    async with recovery(tmp_path, engine) as world:
        await world.poll(10)
        assert await world.ref.ask(HoldStrategy("alpha", "ann")) is True
        assert await world.ref.ask(HoldStrategy("alpha", "bob")) is False
        await world.poll(500)
        status = await world.status()
        assert (status.phase, status.reason, status.attempts) == (P.HELD, "held by ann", 1)
        assert len(engine.attempts) == 1
        assert await world.ref.ask(ReleaseStrategy("alpha", "bob")) is True
        assert await world.ref.ask(ReleaseStrategy("alpha", "bob")) is False
        assert (await world.poll(60))[0][0] == 60
        with pytest.raises(UnmanagedStrategy):
            await world.ref.ask(HoldStrategy("nobody"))


async def test_holds_survive_a_restart_of_the_process(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with recovery(tmp_path, Engine(always_raises), clock) as world:
        await world.check()
        await world.ref.ask(HoldStrategy("alpha", "ann"))
        await world.check(kill=True)
    engine = Engine(always_raises)
    async with recovery(tmp_path, engine, clock) as world:
        assert (await world.status()).reason == "kill switch, held by ann"
        await world.poll(100)  # the kill switch is off; the person's hold stays
        assert (await world.status()).reason == "held by ann"
        assert engine.attempts == []


async def test_stopped_and_paused_strategies_are_not_restarted(tmp_path: Path) -> None:
    engine = Engine(always_raises)
    async with recovery(tmp_path, engine) as world:
        await world.check()
        engine.states["alpha"] = "paused"
        await world.poll(500)
        assert len(engine.attempts) == 1
        assert (await world.status()).phase is P.UNMANAGED


async def test_r30_the_history_is_newest_first_and_the_totals_add_up_after_a_restart(
    tmp_path: Path,
) -> None:
    clock = VirtualClock()
    engine = Engine(lambda n: None if n % 3 else "no")
    engine.states = {f"s{n:03}": "failed" for n in range(200)}
    settings = RecoverySettings(
        restart_concurrency=200, restart_spacing_s=0, max_starts_per_day=None
    )
    async with recovery(tmp_path, engine, clock, settings=settings) as world:
        for _ in range(10):
            await world.check()
            clock.advance(1_000)
            engine.states = dict.fromkeys(engine.states, "failed")
        before = await world.stats()
    async with recovery(tmp_path, engine, clock) as world:
        assert await world.stats() == before
        everything = await world.history(1_000_000)
        assert len(everything) > 1_000
        assert [event.seq for event in everything] == list(range(len(everything), 0, -1))
        assert await world.history(20) == everything[:20]
        assert len(await world.ref.ask(EventHistory())) == 20
        restarts = [event for event in everything if event.action == "restart_strategy"]
        assert before.total_attempts == len(restarts) == len(engine.attempts)
        assert before.successes == sum(event.success is True for event in restarts)
        assert before.failures == sum(event.success is False for event in restarts)


async def test_a_limit_of_zero_gives_nothing_and_a_negative_one_is_a_value_error(
    tmp_path: Path,
) -> None:
    async with recovery(tmp_path, Engine(always_raises)) as world:
        await world.check()
        assert await world.history(0) == ()
        for limit in (-1, True, 2.5):
            with pytest.raises(BadLimit) as refused:
                await world.ref.ask(EventHistory(limit))  # type: ignore[arg-type]
            assert isinstance(refused.value, ValueError)
        assert len(await world.history(2**100)) == 1


class SlowController:
    """Restarts take 45 s."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def strategies(self) -> Sequence[StrategyStatus]:
        return [StrategyStatus("alpha", "failed")]

    async def restart(self, name: str, *, attempt_id: str) -> None:
        self.calls.append(attempt_id)
        await trio.sleep(45)


async def test_r31_through_the_real_port_a_call_of_45_seconds_is_late_at_30_and_on_probation_at_45(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    controller = SlowController()
    async with trio.open_nursery() as nursery:
        acts = Host(controller, nursery).acts
        async with recovery(tmp_path, acts) as world:
            phases: list[RecoveryPhase] = []
            for _ in range(92):
                await world.check(statuses=controller.strategies() if len(phases) < 90 else ())
                phases.append((await world.status()).phase)
                await trio.sleep(0.5)
                world.clock.advance(0.5)
            assert phases[59] is P.RESTARTING
            assert phases[61] is P.RESTARTING_LATE
            assert phases[89] is P.RESTARTING_LATE
            assert phases[91] is P.PROBATION
            assert controller.calls == ["alpha:1:1"]
            [event] = await world.history()
            assert (event.success, event.error) == (False, "no answer within 30 s")


class RefusingController(SlowController):
    async def restart(self, name: str, *, attempt_id: str) -> None:
        raise NotRetryable("the key was revoked")


async def test_an_engine_that_says_not_retryable_is_not_asked_again(tmp_path: Path) -> None:
    controller = RefusingController()
    async with trio.open_nursery() as nursery:
        acts = Host(controller, nursery).acts
        async with recovery(tmp_path, acts) as world:
            await world.check(statuses=controller.strategies())
            await acts.idle()
            status = await world.status()
            assert status.phase is P.OPEN
            assert status.reason == "not retryable: NotRetryable: the key was revoked"


# -- feeds


async def test_r24_stale_feeds_are_stored_told_and_resolved(tmp_path: Path) -> None:
    async with recovery(tmp_path, Engine()) as world:
        for time in (0, 299, 300, 301, 14_699):
            world.clock.advance_to(time * SECOND)
            events = await world.ref.ask(
                CheckFeeds([FeedStatus("ticks", 0), FeedStatus("news", None, None)])
            )
            assert [event.action for event in events] == (["stale_feed"] if time == 300 else [])
        world.clock.advance_to(14_800 * SECOND)
        await world.ref.ask(CheckFeeds([FeedStatus("ticks", 14_800 * SECOND)]))
        assert await world.actions() == ["stale_feed", "feed_back"]
        assert world.alerts() == [
            ("WARNING", "GENERAL", "feed:ticks", 0),
            ("INFO", "GENERAL", "feed:ticks", 1),
        ]
        assert (await world.stats()).total_attempts == 0


async def test_a_stale_feed_is_known_after_a_restart_and_resolved_then(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with recovery(tmp_path, Engine(), clock) as world:
        for time in (0, 300, 400, 700):
            clock.advance_to(time * SECOND)
            data_us = 400 * SECOND if time >= 400 else 0
            await world.ref.ask(CheckFeeds([FeedStatus("ticks", data_us)]))
        assert await world.actions() == ["stale_feed", "feed_back", "stale_feed"]
    async with recovery(tmp_path, Engine(), clock) as world:
        clock.advance(10)
        assert await world.ref.ask(CheckFeeds([FeedStatus("ticks", 400 * SECOND)])) == ()
        [back] = await world.ref.ask(CheckFeeds([FeedStatus("ticks", 709 * SECOND)]))
        assert (back.action, back.seq) == ("feed_back", 4)


async def test_a_feed_warning_that_storage_refused_is_given_at_the_next_check(
    tmp_path: Path,
) -> None:
    async with recovery(tmp_path, Engine()) as world:
        feeds = CheckFeeds([FeedStatus("ticks", 0)])
        world.clock.advance(300)
        world.mood["refusal"] = StorageDegraded("full")
        with pytest.raises(StorageDegraded):
            await world.ref.ask(feeds)
        world.mood.clear()
        assert len(await world.ref.ask(feeds)) == 1


# -- alerts


async def test_alerts_are_requested_in_the_transaction_of_their_facts(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    Listener.woken = 0
    async with recovery(tmp_path, Engine(always_raises)) as world:
        await world.poll(200)
        attempt, failed = (
            ("INFO", "RECOVERY", "recovery:alpha", 0),
            ("WARNING", "RECOVERY", "recovery:alpha", 0),
        )
        assert world.alerts() == [
            ("WARNING", "STRATEGY_FAILURE", "failed:alpha", 0),
            *[attempt, failed] * 3,
            ("CRITICAL", "RECOVERY", "recovery:alpha", 0),
        ]
        await trio.sleep(1)
        assert Listener.woken == 6
        await world.ref.ask(BreakerReset("alpha"))
        assert world.alerts()[-1] == ("INFO", "RECOVERY", "recovery:alpha", 1)


async def test_without_an_alert_actor_no_requests_are_written(tmp_path: Path) -> None:
    async with recovery(tmp_path, Engine(always_raises), alert=False) as world:
        await world.poll(200)
        assert world.alerts() == []
        assert (await world.status()).phase is P.OPEN


async def test_r23_a_stopped_alert_actor_changes_nothing(tmp_path: Path) -> None:
    async with recovery(tmp_path, Engine(always_raises)) as world:
        await world.supervisor.stop_child("alert")
        await world.poll(200)
        assert tuple((await world.stats()).four().values()) == (3, 0, 3, 1)
        assert len(world.alerts()) == 8


# -- storage and crashes


async def test_a_check_without_news_commits_nothing(tmp_path: Path) -> None:
    engine = Engine(always_raises)
    engine.states |= {f"s{n}": "running" for n in range(1_000)}
    async with recovery(tmp_path, engine) as world:
        await world.check()
        before = await world.commits()
        await world.poll(59)
        assert await world.commits() == before


async def test_when_storage_refuses_nothing_is_started_and_the_next_check_tries_again(
    tmp_path: Path,
) -> None:
    engine = Engine(always_raises)
    async with recovery(tmp_path, engine) as world:
        world.mood["refusal"] = StorageDegraded("full")
        for _ in range(3):
            with pytest.raises(StorageDegraded):
                await world.check()
            world.clock.advance(1)
        assert engine.attempts == []
        assert (await world.stats()).total_attempts == 0
        world.mood.clear()
        await world.check()
        assert engine.attempts == ["alpha:1:1"]


@pytest.mark.parametrize("error", [None, "no"])
async def test_the_end_of_a_restart_that_storage_refused_is_noted_at_the_next_check(
    tmp_path: Path, error: str | None
) -> None:
    engine = Engine()
    async with recovery(tmp_path, engine) as world:
        await world.check()
        world.mood["refusal"] = StorageDegraded("full")
        engine.end("alpha:1:1", error)
        await world.settle()
        assert (await world.status()).phase is P.RESTARTING
        with pytest.raises(StorageDegraded):
            await world.check()
        world.mood.clear()
        [event] = await world.check()
        assert (event.action, event.success) == ("restart_strategy", error is None)
        assert (await world.status()).phase is (P.PROBATION if error is None else P.COOLDOWN)
        assert engine.attempts == ["alpha:1:1"]


async def test_reports_that_storage_refused_are_noted_in_their_order(tmp_path: Path) -> None:
    engine = Engine()
    async with recovery(tmp_path, engine) as world:
        await world.check()
        world.mood["refusal"] = StorageDegraded("full")
        engine.late("alpha:1:1")
        engine.end("alpha:1:1", None)
        await world.settle()
        world.mood.clear()
        world.supervisor.drill("recovery")
        await world.check()
        assert (await world.status()).phase is P.PROBATION
        assert ((await world.stats()).failures, (await world.stats()).successes) == (1, 0)


async def test_a_kill_switch_heard_before_the_end_of_a_restart_is_noted_stops_the_strategy(
    tmp_path: Path,
) -> None:
    engine = Engine()
    async with recovery(tmp_path, engine) as world:
        await world.check()
        world.mood["refusal"] = StorageDegraded("full")
        engine.end("alpha:1:1", None)
        await world.settle()
        world.mood.clear()
        await world.check(kill=True)
        assert set(engine.stopped) == {"alpha"}
        assert (await world.status()).phase is P.HELD
        assert (await world.stats()).held == 1


async def test_statuses_read_before_the_restart_came_back_are_no_relapse(tmp_path: Path) -> None:
    engine = Engine(always_returns)
    async with recovery(tmp_path, engine) as world:
        read_us, statuses = world.clock.now_us(), engine.statuses()
        await world.check()
        world.clock.advance(1)
        await world.ref.ask(CheckStrategies(statuses, at_us=read_us))
        assert (await world.status()).phase is P.PROBATION


async def test_a_check_that_knows_nothing_of_the_kill_switch_does_not_release_it(
    tmp_path: Path,
) -> None:
    clock, engine = VirtualClock(), Engine(always_raises)
    async with recovery(tmp_path, engine, clock) as world:
        await world.check(kill=True)
        await world.ref.ask(CheckStrategies(engine.statuses()))
        assert (await world.status()).phase is P.HELD
    async with recovery(tmp_path, engine, clock) as world:
        await world.ref.ask(CheckStrategies(engine.statuses()))
        assert (await world.status()).phase is P.HELD
        assert engine.attempts == []


@pytest.mark.parametrize("written", [True, False])
async def test_after_a_commit_of_unknown_outcome_memory_is_read_from_disk(
    tmp_path: Path, written: bool
) -> None:
    engine = Engine(always_returns)
    async with recovery(tmp_path, engine) as world:
        world.mood |= {"refusal": OutcomeUnknown("COMMIT failed"), "after": written}
        with pytest.raises(OutcomeUnknown):
            await world.check()
        assert engine.attempts == []
        world.mood.clear()
        world.clock.advance(1)
        await world.check()
        # If the row was written, an attempt that was never made is counted. One too many is safe.
        assert engine.attempts == ([] if written else ["alpha:1:1"])
        assert (await world.status()).attempts == 1
        assert (await world.stats()).failures == int(written)


@pytest.mark.parametrize("when", range(0, 200, 10))
async def test_a_crash_of_the_actor_at_any_time_loses_nothing(tmp_path: Path, when: int) -> None:
    async with recovery(tmp_path, Engine(always_raises)) as world:
        begun = await world.poll(when)
        world.supervisor.drill("recovery")
        world.clock.advance(1)
        begun += [(when + 1 + second, name) for second, name in await world.poll(400)]
        assert world.ref.epoch == 2
        assert begun == [(0, "alpha:1:1"), (60, "alpha:1:2"), (180, "alpha:1:3")]
        assert tuple((await world.stats()).four().values()) == (3, 0, 3, 1)
        assert await world.actions() == ["restart_strategy"] * 3 + ["opened"]


@pytest.mark.parametrize("error", [None, "no"])
@pytest.mark.parametrize("late", [True, False])
async def test_a_call_that_outlives_its_actor_is_waited_for_and_its_end_is_heard(
    tmp_path: Path, error: str | None, late: bool
) -> None:
    engine = Engine()
    async with recovery(tmp_path, engine) as world:
        await world.check()
        world.supervisor.drill("recovery")
        await world.poll(200)
        assert (await world.status()).phase is P.RESTARTING
        if late:
            engine.late("alpha:1:1")
            await world.settle()
            world.supervisor.drill("recovery")
        engine.end("alpha:1:1", error)
        await world.settle()
        assert (await world.status()).phase is (P.PROBATION if error is None else P.COOLDOWN)
        assert engine.attempts == ["alpha:1:1"]
        assert (await world.stats()).failures == int(late or error is not None)


async def test_the_end_of_a_call_in_the_hand_of_a_crashing_actor_is_not_lost(
    tmp_path: Path,
) -> None:
    engine = Engine()
    async with recovery(tmp_path, engine) as world:
        await world.check()
        world.mood["refusal"] = RuntimeError("the writer died")
        engine.end("alpha:1:1", None)
        await world.settle()
        await world.check()
        assert (await world.status()).phase is P.PROBATION
        assert (await world.stats()).successes == 1


async def test_an_attempt_written_by_a_crashing_writer_and_never_begun_counts_as_failed(
    tmp_path: Path,
) -> None:
    engine = Engine(always_returns)
    async with recovery(tmp_path, engine) as world:
        world.mood |= {"refusal": RuntimeError("the writer died after COMMIT"), "after": True}
        with pytest.raises(OutcomeUnknown):
            await world.check()
        await world.check()
        status = await world.status()
        assert (status.phase, status.attempts) == (P.COOLDOWN, 1)
        assert engine.attempts == []
        assert await world.poll(60) == [(60, "alpha:1:2")]


async def test_a_commit_left_in_flight_is_waited_for_before_the_next_decision(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    engine = Engine(always_returns)
    async with recovery(tmp_path, engine) as world:
        gate = world.mood["gate"] = trio.Event()
        with pytest.raises(AskTimeout):
            await world.ref.ask(CheckStrategies(engine.statuses()), timeout_s=1)
        await trio.sleep(COMMIT_DEADLINE_S)
        gate.set()
        await world.settle()
        await world.check()
        assert world.ref.epoch == 1
        status = await world.status()
        assert (status.phase, status.attempts, engine.attempts) == (P.COOLDOWN, 1, [])


async def test_rows_that_break_a_constraint_make_the_actor_start_again_from_disk(
    tmp_path: Path,
) -> None:
    engine = Engine(always_returns)
    async with recovery(tmp_path, engine) as world:
        world.mood["refusal"] = ConstraintFailed("UNIQUE constraint failed: recovery_event.seq")
        with pytest.raises(ActorCrashed):
            await world.check()
        world.mood.clear()
        await world.check()
        assert engine.attempts == ["alpha:1:1"]


RECORDS = [
    Record("plain"),
    Record(
        "full",
        phase=P.HELD,
        beneath=P.COOLDOWN,
        kill=True,
        held_by="ann",
        episode=3,
        since_us=4,
        attempts=2,
        due_us=17,
        restarted_us=5,
        starts=(1, 5),
        reason="boom",
        operator="bob",
    ),
    Record("stalled", phase=P.OPEN, stalled=True),
    Record("owed", phase=P.UNMANAGED, stop_owed=True),
    Record("told", phase=P.PROBATION, due_us=1, failure_told=True),
    Record("asked", phase=P.RESTARTING, recovery_told=True),
]


async def test_a_record_is_read_as_it_was_saved_and_replaces_the_one_before(tmp_path: Path) -> None:
    async with recovery(tmp_path, Engine()) as world:
        persistence = world.supervisor.ref("persistence")
        await persistence.ask(
            Commit((schema.save_records([Record(record.name) for record in RECORDS]),))
        )
        await persistence.ask(Commit((schema.save_records(RECORDS),)))
        with Reader(world.path) as reader:
            assert sorted(schema.records(reader), key=str) == sorted(RECORDS, key=str)


def test_an_episode_of_before_the_migration_began_with_its_first_event() -> None:
    connection = apsw.Connection(":memory:")
    connection.execute(SCHEMA + SCHEMA_3)
    for name in ("open", "reset", "well"):
        connection.execute(
            "INSERT INTO recovery_state VALUES"
            " (?, 'OPEN', NULL, 0, NULL, 1, 3, NULL, NULL, '[]', 'x', NULL, 0, 0, 0, 0)",
            (name,),
        )
    log = ["open restart_strategy", "open opened", "reset opened", "reset reset", "reset opened"]
    for number, line in enumerate(log, 1):
        name, action = line.split()
        connection.execute(
            "INSERT INTO recovery_event VALUES (?, ?, ?, ?, NULL, 1, NULL, NULL)",
            (number, number * 10, action, name),
        )
    connection.execute(SCHEMA_5)
    found = connection.execute("SELECT name, since_us FROM recovery_state ORDER BY name").fetchall()
    assert found == [("open", 10), ("reset", 50), ("well", None)]


async def test_only_feeds_whose_last_word_was_a_warning_are_found_stale(tmp_path: Path) -> None:
    log: list[tuple[str, RecoveryAction]] = [
        ("a", "stale_feed"),
        ("b", "stale_feed"),
        ("a", "feed_back"),
        ("b", "stale_feed"),
        ("c", "stale_feed"),
    ]
    log += [("c", "feed_back"), ("c", "stale_feed"), ("c", "stale_feed")]
    events = [
        RecoveryEvent(action, name, None, 0, None, 10 * n, seq=n)
        for n, (name, action) in enumerate(log, 1)
    ]
    async with recovery(tmp_path, Engine()) as world:
        await world.supervisor.ref("persistence").ask(Commit((schema.add_events(events),)))
        with Reader(world.path) as reader:
            found = schema.stale_feeds(reader, 99)
    assert found == [
        Feed("b", 99, warned_us=40, silent_since_us=20),
        Feed("c", 99, warned_us=80, silent_since_us=70),
    ]


async def test_a_call_that_has_ended_is_forgotten_once_its_end_is_stored(tmp_path: Path) -> None:
    engine = Engine()
    async with recovery(tmp_path, engine) as world:
        await world.check()
        assert calls_of(engine).in_flight == {"alpha:1:1"}
        engine.end("alpha:1:1", None)
        await world.settle()
        assert not calls_of(engine).in_flight
        assert not calls_of(engine).reports


async def test_events_can_be_neither_changed_nor_deleted(tmp_path: Path) -> None:
    async with recovery(tmp_path, Engine(always_raises)) as world:
        await world.check()
        connection = apsw.Connection(str(world.path))
        for sql in ("UPDATE recovery_event SET success = 1", "DELETE FROM recovery_event"):
            with pytest.raises(apsw.ConstraintError):
                connection.execute(sql)
        connection.close()
