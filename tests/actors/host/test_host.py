"""The host port in virtual time, with a place whose calls end when the test says so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from typing import Any, get_args

import pytest
import trio
import trio.testing

from fundops import FeedStatus, Fill, StrategyStatus, VirtualClock
from fundops.actors.host import Host, each
from fundops.actors.host.places import CutOff
from fundops.reported import Reported
from fundops.runtime import pieces
from fundops.testing import FakeController
from fundops.wire.controller import StopReport, StrategyState
from fundops.wire.errors import HostFault, HostLate
from fundops.wire.guard import KillStatus, StopEnded
from fundops.wire.recovery import AttemptEnded, AttemptLate

RUNNING = StrategyStatus("a", "running")


class HandPlace:
    """A place in which calls wait until `come_back`. They cannot be cut off, as in a thread."""

    settle_s = 0.0

    def turn(self, own: trio.lowlevel.TrioToken) -> None:
        """No loop to watch."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, Callable[[], Any], trio.Event]] = []
        self.made: list[str] = []

    def __call__(self, part: str, call: Callable[[], Any], cut_after_s: float) -> Any:
        self.made.append(part)
        return self._wait(part, call)

    async def _wait(self, part: str, call: Callable[[], Any]) -> Any:
        go_on = trio.Event()
        self.waiting.append((part, call, go_on))
        await go_on.wait()
        answer = call()
        return await answer if hasattr(answer, "__await__") else answer

    async def come_back(self, part: str, nth: int = 0) -> None:
        """Let the oldest call of this part, or a later one, answer."""
        await trio.testing.wait_all_tasks_blocked()
        found = [waiting for waiting in self.waiting if waiting[0] == part][nth]
        self.waiting.remove(found)
        found[2].set()
        await trio.testing.wait_all_tasks_blocked()


Clock = trio.testing.MockClock


class World:
    def __init__(self, nursery: trio.Nursery, engine: Any, place: Any) -> None:
        self.engine, self.place, self.clock = engine, place, VirtualClock(1_000_000)
        self.host = Host(engine, nursery, clock=self.clock, place=place)


@asynccontextmanager
async def _world(engine: Any = None, *, inline: bool = False) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        place = None if inline else HandPlace()
        yield World(nursery, engine or FakeController(RUNNING), place)
        nursery.cancel_scope.cancel()


# -- questions


async def test_an_answer_made_inline_is_there_at_once(autojump_clock: Clock) -> None:
    async with _world(inline=True) as world:
        assert await world.host.strategies() == (RUNNING,)


async def test_a_coroutine_that_only_computes_is_there_after_settling(
    autojump_clock: Clock,
) -> None:
    class Engine:
        async def strategies(self) -> list[StrategyStatus]:
            return [RUNNING]

        async def feeds(self) -> list[FeedStatus]:
            return [FeedStatus("f", 1)]

    async with _world(Engine(), inline=True) as world:
        world.host.ask()
        world.host.feeds.ask()
        assert (await world.host.hear()).statuses == (RUNNING,)
        assert await world.host.feeds.hear() == (FeedStatus("f", 1, 300.0),)


async def test_an_answer_that_comes_later_has_the_age_of_its_coming(autojump_clock: Clock) -> None:
    async with _world() as world:
        world.host.ask()
        assert world.host.heard().statuses == ()
        world.clock.advance(3)
        await world.place.come_back("strategies")
        world.clock.advance(5)
        heard = world.host.heard()
        assert (heard.statuses, heard.age_s) == ((RUNNING,), 5)


async def test_a_question_is_not_asked_again_while_it_is_awaited(autojump_clock: Clock) -> None:
    async with _world() as world:
        for _ in range(3):
            world.host.ask()
            await world.host.hear()
        assert world.place.made == ["strategies"]
        assert world.host.problem is None
        await world.place.come_back("strategies")
        world.host.ask()
        assert world.place.made == ["strategies"] * 2


async def test_a_late_part_is_silent_and_named_until_it_answers(autojump_clock: Clock) -> None:
    async with _world() as world:
        world.host.ask()
        await trio.sleep(0.9)
        assert world.host.late() == {}
        await trio.sleep(0.2)
        assert world.host.late() == {"strategies": "did not answer within 1 s"}
        assert isinstance(world.host.problem, HostLate)
        assert world.host.heard().silent
        world.host.ask()
        assert world.place.made == ["strategies"], "not called again before it comes back"
        await world.place.come_back("strategies")
        assert world.host.late() == {}
        heard = world.host.heard()
        assert (heard.statuses, heard.silent) == ((RUNNING,), False), "a late answer counts"
        assert world.host.problem is None


async def test_a_coroutine_that_hangs_is_ended_and_asked_again(autojump_clock: Clock) -> None:
    class Engine(FakeController):
        hangs = True

        async def strategies(self) -> list[StrategyStatus]:  # type: ignore[override]
            if self.hangs:
                await trio.sleep_forever()
            return [RUNNING]

    engine = Engine()
    async with _world(engine, inline=True) as world:
        world.host.ask()
        await trio.sleep(1.1)
        assert world.host.late() == {"strategies": "did not answer within 1 s"}
        assert world.host.heard().silent
        engine.hangs = False
        world.host.ask()
        await world.host.hear()
        assert world.host.late() == {}
        assert not world.host.heard().silent


async def test_a_coroutine_that_will_not_end_is_late_and_keeps_only_its_part(
    autojump_clock: Clock,
) -> None:
    class Engine(FakeController):
        async def strategies(self) -> list[StrategyStatus]:  # type: ignore[override]
            with trio.CancelScope(shield=True):
                await trio.sleep(60)
            return [RUNNING]

    async with _world(Engine(), inline=True) as world:
        world.host.ask()
        await trio.sleep(2)
        assert world.host.heard().silent
        await world.host.acts.pause("a", "why")
        assert world.engine.calls == [("pause", "a", "why")]
        await trio.sleep(60)
        assert world.host.heard().statuses == (RUNNING,)


async def test_a_hang_of_one_part_stops_no_other(autojump_clock: Clock) -> None:
    async with _world() as world:
        world.host.ask()
        await trio.sleep(2)
        world.host.feeds.ask()
        assert world.host.fills.read("") is None
        await world.place.come_back("feeds")
        await world.place.come_back("fills")
        assert await world.host.feeds.hear() == ()
        assert world.host.fills.read("") == ()


async def test_a_person_who_asks_waits_for_the_answer(autojump_clock: Clock) -> None:
    async with _world() as world, trio.open_nursery() as nursery:
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await world.host.strategies_now())
            answers.append(await world.host.feeds.now())

        nursery.start_soon(ask)
        await world.place.come_back("strategies")
        await world.place.come_back("feeds")
        assert answers == [(RUNNING,), ()]


async def test_a_person_who_asks_hears_that_a_part_is_late(autojump_clock: Clock) -> None:
    async with _world() as world:
        with pytest.raises(HostLate, match=r"controller\.strategies: did not answer within 1 s"):
            await world.host.strategies_now()


async def test_a_person_who_asks_a_part_that_is_late_hears_it_at_once(
    autojump_clock: Clock,
) -> None:
    async with _world() as world:
        world.host.ask()
        await trio.sleep(100)
        begun = trio.current_time()
        with pytest.raises(HostLate):
            await world.host.strategies_now()
        assert trio.current_time() == pytest.approx(begun, abs=0.1)


@pytest.mark.parametrize("answer", ["a", b"a", {}, None, 5])
async def test_an_answer_that_is_no_list_is_named_by_its_type(
    autojump_clock: Clock, answer: Any
) -> None:
    class Engine:
        def fills(self, after: str) -> Any:
            return answer

        def strategies(self) -> Any:
            return answer

    async with _world(Engine(), inline=True) as world:
        text = f"answered a {type(answer).__name__}, not a list"
        with pytest.raises(HostFault, match=text):
            world.host.fills.read("")
        with pytest.raises(HostFault, match=text):
            await world.host.strategies()


async def test_an_answer_with_too_many_strategies_is_refused_and_the_last_words_stand() -> None:
    def some(count: int) -> dict[str, StrategyStatus]:
        return {f"s{number}": StrategyStatus(f"s{number}", "running") for number in range(count)}

    async with _world(inline=True) as world:
        world.engine.statuses = some(10_000)
        assert len(await world.host.strategies()) == 10_000
        world.engine.statuses = some(10_001)
        with pytest.raises(HostFault, match="10001 strategies; at most 10000 are managed"):
            await world.host.strategies()
        assert len(world.host.heard().statuses) == 10_000


async def test_the_last_good_status_of_one_set_aside_keeps_its_place() -> None:
    a, b = StrategyStatus("a", "running", equity=1), StrategyStatus("b", "paused", equity=2)
    wrong = StrategyStatus("a", "running", equity="1")  # type: ignore[arg-type]
    new = StrategyStatus("c", "running")

    class Engine:
        answer: Sequence[object] = ()

        def strategies(self) -> Sequence[object]:
            return self.answer

    async with _world(Engine(), inline=True) as world:
        for answer, doubtful in (
            ([a, b], []),
            ([wrong, b], ["a"]),
            ([a, b, a], ["a"]),
            ([wrong, b, a, wrong], ["a"]),
            ([a, b, new, new], ["c"]),  # of which no good one is known
            ([a, b], []),
        ):
            world.engine.answer = answer
            assert await world.host.strategies() == (a, b)
            assert list(world.host.heard().doubts) == doubtful


@pytest.mark.parametrize("state", get_args(StrategyState))
async def test_a_heartbeat_is_expected_of_a_running_strategy_alone(state: StrategyState) -> None:
    async with _world(inline=True) as world:
        now_us = world.clock.now_us()
        world.engine.set("a", state=state, heartbeat_us=now_us)
        world.clock.advance(60)
        await world.host.strategies()
        assert world.host.heard().lapsed == {}
        world.clock.advance(1)
        text = {"a": "its last heartbeat is 61 s old"} if state == "running" else {}
        assert world.host.heard().lapsed == text


async def test_a_feed_is_well_again_with_its_answer(autojump_clock: Clock) -> None:
    async with _world() as world:
        world.engine.feeds = lambda: 1 / 0
        world.host.feeds.ask()
        await world.place.come_back("feeds")
        with pytest.raises(HostFault, match="ZeroDivisionError"):
            await world.host.feeds.hear()
        del world.engine.feeds
        world.host.feeds.ask()
        await world.place.come_back("feeds")
        assert await world.host.feeds.hear() == ()


@pytest.mark.parametrize("part", ["strategies", "feeds"])
async def test_an_answer_that_is_still_being_read_never_replaces_a_newer_one(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(pieces, "PIECE_S", 0.0)
    async with _world(inline=True) as world:
        engine, host = world.engine, world.host

        def say(figure: int, count: int) -> None:
            names = [f"s{number}" for number in range(count)]
            engine.statuses = {name: StrategyStatus(name, "running", figure) for name in names}
            engine.feed_statuses = [FeedStatus(name, figure) for name in names]

        async def asked() -> None:
            await (host.strategies_now() if part == "strategies" else host.feeds.now())

        say(1, 50)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asked)
            for _ in range(20):  # it is at some item between the first and the last
                await trio.lowlevel.checkpoint()
            say(2, 1)
            await asked()
        statuses, feeds = host.heard().statuses, await host.feeds.hear()
        assert [status.equity for status in statuses] == ([2] if part == "strategies" else [])
        assert [feed.last_data_us for feed in feeds] == ([2] if part == "feeds" else [])


async def test_the_last_good_status_of_a_feed_set_aside_stands_and_its_name_is_told() -> None:
    good = [FeedStatus("a", 1, 5.0), FeedStatus("b", 2, 5.0)]
    wrong = FeedStatus("a", "now", 5.0)  # type: ignore[arg-type]
    new = FeedStatus("c", 3, 5.0)
    async with _world(inline=True) as world:
        for answer, doubtful in (
            (good, []),
            ([wrong, good[1]], ["a"]),
            ([*good, good[0]], ["a"]),
            ([*good, None], ["item 3"]),
            ([*good, new, new], ["c"]),  # of which no good one is known
            (good, []),
        ):
            world.engine.feed_statuses = answer
            assert await world.host.feeds.now() == tuple(good)
            assert list(world.host.feeds.doubts) == doubtful


# -- reports after a cursor


def _fill(number: int) -> Fill:
    one = Decimal(1)
    return Fill(str(number), "a", "X", one, one, Decimal(0), 0, str(number))


async def test_an_answer_belongs_to_the_cursor_it_was_asked_with(autojump_clock: Clock) -> None:
    async with _world() as world:
        world.engine.fill_list = [_fill(1), _fill(2)]
        assert world.host.fills.read("") is None
        await world.place.come_back("fills")
        assert world.host.fills.read("1") is None, "the answer held the first fill again"
        await world.place.come_back("fills")
        assert world.host.fills.read("1") == (_fill(2),)


async def test_an_answer_in_flight_for_an_old_cursor_is_dropped_when_it_comes(
    autojump_clock: Clock,
) -> None:
    async with _world() as world:
        world.engine.fill_list = [_fill(1), _fill(2)]
        assert world.host.fills.read("") is None
        assert world.host.fills.read("1") is None
        assert world.place.made == ["fills"], "never twice at once"
        await world.place.come_back("fills")
        assert world.host.fills.read("1") is None
        await world.place.come_back("fills")
        assert world.host.fills.read("1") == (_fill(2),)


async def test_an_answer_is_given_once(autojump_clock: Clock) -> None:
    async with _world() as world:
        assert world.host.fills.read("") is None
        await world.place.come_back("fills")
        assert world.host.fills.read("") == ()
        assert world.host.fills.read("") is None
        assert world.place.made == ["fills", "fills"]


async def test_reports_that_are_late_are_a_fault_until_they_come(autojump_clock: Clock) -> None:
    async with _world() as world:
        assert world.host.fills.read("") is None
        await trio.sleep(1.5)
        for _ in range(2):
            with pytest.raises(HostLate, match="did not answer within 1 s"):
                world.host.fills.read("")
        assert world.host.late() == {"fills": "did not answer within 1 s"}
        await world.place.come_back("fills")
        assert world.host.fills.read("") == ()


async def test_an_error_of_a_report_is_raised_once_and_asked_anew(autojump_clock: Clock) -> None:
    async with _world() as world:
        world.engine.fill_list = [_fill(1)]
        world.engine.fills = lambda after: 1 / 0
        assert world.host.fills.read("") is None
        await world.place.come_back("fills")
        with pytest.raises(HostFault, match="ZeroDivisionError"):
            world.host.fills.read("")
        del world.engine.fills
        assert world.host.fills.read("") is None
        await world.place.come_back("fills")
        assert world.host.fills.read("") == (_fill(1),)


# -- acts


async def test_an_act_that_is_late_is_not_repeated_before_it_comes_back(
    autojump_clock: Clock,
) -> None:
    async with _world() as world:
        with pytest.raises(HostLate, match=r"controller\.pause: did not answer within 1 s"):
            await world.host.acts.pause("a", "why")
        begun = trio.current_time()
        with pytest.raises(HostLate, match="has not come back"):
            await world.host.acts.pause("a", "why")
        assert trio.current_time() == begun, "refused at once"
        assert world.place.made == ["pause"]
        await world.place.come_back("pause")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.host.acts.pause, "a", "why")
            await world.place.come_back("pause")
        assert world.place.made == ["pause", "pause"]
        assert world.host.late() == {}


async def test_two_acts_of_one_part_may_be_in_flight_in_time(autojump_clock: Clock) -> None:
    async with _world() as world, trio.open_nursery() as nursery:
        nursery.start_soon(world.host.acts.stop, "a", "why")
        nursery.start_soon(world.host.acts.stop, "b", "why")
        await world.place.come_back("stop")
        await world.place.come_back("stop")
        assert sorted(world.engine.calls) == [("stop", "a", "why"), ("stop", "b", "why")]


async def test_mode_observe_makes_no_act_and_tells_each_once() -> None:
    class Engine(FakeController):
        async def keep_alive(self, until_us: int) -> None:
            self._called("keep_alive", until_us)

    engine = Engine(RUNNING)
    async with trio.open_nursery() as nursery:
        host = Host(engine, nursery, clock=VirtualClock(1_000_000), observing=True)
        told = list[AttemptEnded | AttemptLate]()
        for _ in range(2):
            await host.acts.pause("a", "r")
            await host.acts.resume("a")
            await host.acts.stop("a", "r")
            await host.acts.set_stage("a", "paper", None)
            host.acts.start_keep_alive(7)
            assert not host.stopping.start_stop_all("r", "halt", ("a",), lambda _: None)
            host.stopping.start_emergency_stop("silent")
            host.acts.start_restart("a", "1", told.append)
            await host.acts.idle()
        assert engine.calls == []
        withheld = [(act.part, act.strategy, act.call) for act in host.acts.take_withheld()]
        assert withheld == [
            ("pause", "a", "pause('a', 'r')"),
            ("resume", "a", "resume('a')"),
            ("stop", "a", "stop('a', 'r')"),
            ("set_stage", "a", "set_stage('a', 'paper', None)"),
            ("keep_alive", "", "keep_alive()"),
            ("stop_all", "", "stop_all('r', 'halt', ('a',))"),
            ("emergency_stop", "", "emergency_stop()"),
            ("restart", "a", "restart('a')"),
        ]
        assert [ended.error for ended in told if isinstance(ended, AttemptEnded)] == [
            "HostFault: controller.restart: is not called in mode observe"
        ] * 2
        await host.acts.pause("a", "r")
        assert host.acts.take_withheld() == ()


async def test_acts_are_done_in_order_and_a_fault_stops_no_other(autojump_clock: Clock) -> None:
    done: list[str] = []

    async def act(name: str) -> None:
        done.append(name)
        if name == "b":
            raise HostFault("pause", "raised")

    with pytest.raises(HostFault, match="raised"):
        await each(act, [("a",), ("b",), ("c",)])
    assert done == ["a", "b", "c"]


async def test_a_part_that_hangs_costs_many_acts_two_seconds(autojump_clock: Clock) -> None:
    class Engine(FakeController):
        async def pause(self, name: str, reason: str) -> None:
            if name != "z":
                await trio.sleep_forever()
            await super().pause(name, reason)

    async with _world(Engine(), inline=True) as world:
        begun = trio.current_time()
        with pytest.raises(HostLate):
            await each(world.host.acts.pause, [(name, "") for name in "abcdefgz"])
        assert trio.current_time() - begun == pytest.approx(2, abs=0.1)
        assert world.engine.calls == [("pause", "z", "")]


# -- stop_all


def _stops(world: World) -> tuple[list[StopEnded], Callable[[], bool]]:
    told: list[StopEnded] = []
    return told, lambda: world.host.stopping.start_stop_all("why", "halt", ("a",), told.append)


async def test_a_stop_is_never_called_twice_at_once(autojump_clock: Clock) -> None:
    async with _world() as world:
        told, begin = _stops(world)
        assert begin()
        assert not begin()
        await world.place.come_back("stop_all")
        assert [ended.report for ended in told] == [StopReport(0, 0)]
        assert begin()


async def test_a_plain_stop_counts_as_any_other(autojump_clock: Clock) -> None:
    class Engine(FakeController):
        def stop_all(self, reason: str, action: str, strategies: Sequence[str]) -> StopReport:  # type: ignore[override]
            return StopReport(0, 0)

    async with _world(Engine(), inline=True) as world:
        told, begin = _stops(world)
        assert begin()
        await trio.testing.wait_all_tasks_blocked()
        assert [ended.report for ended in told] == [StopReport(0, 0)]


async def test_a_stop_that_hangs_is_called_again_and_leaves_four_behind(
    autojump_clock: Clock,
) -> None:
    async with _world() as world:
        told, begin = _stops(world)
        for number in range(4):
            assert begin(), number
            await trio.sleep(11)
        assert [ended.problem for ended in told] == [
            "controller.stop_all: did not answer within 10 s"
        ] * 4
        assert not begin(), "four are left behind"
        assert world.host.late() == {}, "the kill switch tells it itself"
        await world.place.come_back("stop_all", 2)
        assert told[-1].report == StopReport(0, 0), "a late report counts"
        assert begin()


async def test_a_late_stop_that_fails_is_no_news(autojump_clock: Clock) -> None:
    async with _world() as world:
        told, begin = _stops(world)
        assert begin()
        await trio.sleep(11)
        world.engine.failures["stop_all"] = RuntimeError("no")
        await world.place.come_back("stop_all")
        assert len(told) == 1


async def test_a_stop_is_not_held_up_by_other_parts(autojump_clock: Clock) -> None:
    async with _world() as world:
        world.host.ask()
        for call in (world.host.acts.pause("a", ""), world.host.acts.stop("a", "")):
            with pytest.raises(HostLate):
                await call
        told, begin = _stops(world)
        assert begin()
        await world.place.come_back("stop_all")
        assert [ended.report for ended in told] == [StopReport(0, 0)]


async def test_the_end_of_a_fund_waits_for_a_stop_for_its_deadline_alone(
    autojump_clock: Clock,
) -> None:
    async with _world() as world:
        _, begin = _stops(world)
        begin()
        begun = trio.current_time()
        with trio.CancelScope() as scope:
            scope.cancel()  # as the fund's nursery is, when the fund fails
            await world.host.stopping.finish()
        assert 9 < trio.current_time() - begun <= 11


async def test_one_strategy_is_never_told_twice_at_once_to_stop(autojump_clock: Clock) -> None:
    async with _world() as world:
        for _ in range(3):
            world.host.acts.start_stop("a", "r")
            world.host.acts.start_stop("b", "r")
            await trio.testing.wait_all_tasks_blocked()
        assert world.place.made == ["stop", "stop"]
        for _ in range(2):  # in any order
            await world.place.come_back("stop")
        world.host.acts.start_stop("a", "r")
        await trio.testing.wait_all_tasks_blocked()
        assert world.place.made == ["stop"] * 3


# -- restarts


async def test_a_restart_that_is_late_goes_on_and_holds_up_no_other_strategy(
    autojump_clock: Clock,
) -> None:
    async with _world() as world:
        told: list[Any] = []
        world.host.acts.start_restart("a", "1", told.append)
        await trio.sleep(31)
        assert told == [AttemptLate("a", "1")]
        assert world.host.late() == {}, "recovery tells it itself"
        world.host.acts.start_restart("b", "2", told.append)
        await world.place.come_back("restart", 1)
        await world.place.come_back("restart")
        assert told[1:] == [AttemptEnded("b", "2", None, True), AttemptEnded("a", "1", None, True)]
        await world.host.acts.idle()


@pytest.mark.parametrize("act", ["restart", "resume"])
@pytest.mark.parametrize(("spared", "refused"), [((), True), (("a",), False)])
async def test_under_the_kill_switch_nothing_is_restarted_or_resumed_in_its_scope(
    act: str, spared: Sequence[str], refused: bool
) -> None:
    async with _world(inline=True) as world:
        errors = list[object]()
        world.host.acts.latch.spared = frozenset(spared)
        world.host.acts.latch.set(KillStatus("ENGAGED", "r", "ann", 0, action="halt"))
        if act == "restart":
            world.host.acts.start_restart(
                "a", "1", lambda told: errors.append(getattr(told, "error", "late"))
            )
            await world.host.acts.idle()
        else:
            try:
                errors.append(await world.host.acts.resume("a"))  # type: ignore[func-returns-value]
            except HostFault as fault:
                errors.append(fault)
        (error,) = errors
        assert (error is not None, world.engine.calls == []) == (refused, refused)


@pytest.mark.parametrize("act", ["restart", "resume"])
@pytest.mark.parametrize(("spared", "stops"), [((), 1), (("a",), 0), (("b",), 1)])
async def test_what_returns_under_the_kill_switch_is_stopped_in_its_scope_alone(
    autojump_clock: Clock, act: str, spared: Sequence[str], stops: int
) -> None:
    async with _world() as world, trio.open_nursery() as nursery:
        host = world.host

        async def resume() -> None:
            with suppress(HostFault):
                await host.acts.resume("a")

        if act == "restart":
            host.acts.start_restart("a", "1", lambda _: None)
        else:
            nursery.start_soon(resume)
        await trio.testing.wait_all_tasks_blocked()
        host.acts.latch.spared = frozenset(spared)
        host.acts.latch.set(KillStatus("ENGAGED", "r", "ann", 0, action="halt"))
        await world.place.come_back(act)
        assert world.place.made == [act, *["stop"] * stops]
        nursery.cancel_scope.cancel()


async def test_the_error_of_a_restart_is_that_of_the_engine(autojump_clock: Clock) -> None:
    async with _world() as world:
        told: list[Any] = []
        world.engine.failures["restart"] = ValueError("bad key")
        world.host.acts.start_restart("a", "1", told.append)
        await world.place.come_back("restart")
        assert told == [AttemptEnded("a", "1", "ValueError: bad key", True)]


async def test_a_call_that_the_place_cut_off_is_late(autojump_clock: Clock) -> None:
    class Cutting(HandPlace):
        async def _wait(self, part: str, call: Callable[[], Any]) -> Any:
            raise CutOff

    async with trio.open_nursery() as nursery:
        host = Host(FakeController(), nursery, place=Cutting())
        with pytest.raises(HostLate, match="did not answer within 1 s"):
            await host.acts.pause("a", "")
        assert host.late() == {"pause": "did not answer within 1 s"}


# -- silence


class Wall:
    """A system clock that is moved by hand: time in it is not virtual for the host port."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def now_us(self) -> int:
        return int(self.now_s * 1_000_000)

    def monotonic_s(self) -> float:
        return self.now_s


@pytest.mark.parametrize(("gap_s", "aged_s"), [(2.0, 2.0), (3.0, 3.0), (3.5, 1.0), (60.0, 1.0)])
async def test_more_than_three_ticks_without_one_were_a_stall_of_ours(
    gap_s: float, aged_s: float
) -> None:
    clock, engine = VirtualClock(1_000_000), FakeController(RUNNING)
    async with trio.open_nursery() as nursery:
        host = Host(engine, nursery, clock=clock, tick_interval_s=1.0)
        host.ask()
        assert host.heard().age_s == 0
        engine.failures["strategies"] = ConnectionError("gone")
        for stalls in range(1, 18):
            clock.advance(gap_s)
            host.ask()
            if stalls <= 16:  # as many as are remembered
                assert host.heard().age_s == pytest.approx(stalls * aged_s)
        assert host.heard().silent


async def test_a_jump_of_virtual_time_is_no_stall() -> None:
    async with _world(inline=True) as world:
        world.host.ask()
        world.clock.advance(60)
        world.host.pulse()
        assert world.host.heard().age_s == 60


async def test_a_late_pulse_is_no_stall_where_the_ticks_are_ours() -> None:
    wall, engine = Wall(), FakeController(RUNNING)
    async with trio.open_nursery() as nursery:
        host = Host(engine, nursery, clock=wall, tick_interval_s=60.0)
        host.ask()
        wall.now_s += 50
        host.pulse()
        assert host.heard().age_s == pytest.approx(50)


async def test_a_stall_of_ours_is_no_silence_of_a_host_that_drives_the_ticks() -> None:
    wall = Wall()
    async with trio.open_nursery() as nursery:
        host = Host(FakeController(), nursery, clock=wall)
        host.ask()
        for _ in range(5):
            wall.now_s += 1
            host.pulse()
        assert host.heard().age_s == pytest.approx(5)
        wall.now_s += 3_600  # the machine was suspended
        host.pulse()
        assert host.heard().age_s == pytest.approx(6)
        assert not host.heard().silent
        for _ in range(5):
            wall.now_s += 1
            host.pulse()
        assert host.heard().silent


async def test_a_pushed_word_about_a_feed_counts_as_a_word_of_the_host() -> None:
    clock = VirtualClock(1_000_000_000)
    reported = Reported(clock)
    async with trio.open_nursery() as nursery:
        host = Host(None, nursery, clock=clock, pushed=reported)
        reported.report(RUNNING)
        clock.advance(20)
        assert host.heard().silent
        reported.report_feed("prices")
        assert (host.heard().silent, host.heard().age_s) == (False, 0)
        reported.report_feed("prices", clock.now_us() - 15_000_000)
        assert host.heard().silent, "its own instant makes it older"
