"""The words of a host about its strategies: questions, late answers, and silence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import pytest
import trio
import trio.testing

from fundops import FeedStatus, StrategyStatus, VirtualClock
from fundops.actors.host import Host
from fundops.reported import Reported
from fundops.runtime import pieces
from fundops.testing import FakeController
from fundops.wire.controller import StrategyState
from fundops.wire.errors import HostFault, HostLate
from tests.actors.host.conftest import RUNNING, Clock, make_world


async def test_an_answer_made_inline_is_there_at_once(autojump_clock: Clock) -> None:
    async with make_world(inline=True) as world:
        assert await world.host.strategies() == (RUNNING,)


async def test_a_coroutine_that_only_computes_is_there_after_settling(
    autojump_clock: Clock,
) -> None:
    class Engine:
        async def strategies(self) -> list[StrategyStatus]:
            return [RUNNING]

        async def feeds(self) -> list[FeedStatus]:
            return [FeedStatus("f", 1)]

    async with make_world(Engine(), inline=True) as world:
        world.host.ask()
        world.host.feeds.ask()
        assert (await world.host.hear()).statuses == (RUNNING,)
        assert await world.host.feeds.hear() == (FeedStatus("f", 1, 300.0),)


async def test_an_answer_that_comes_later_has_the_age_of_its_coming(autojump_clock: Clock) -> None:
    async with make_world() as world:
        world.host.ask()
        assert world.host.heard().statuses == ()
        world.clock.advance(3)
        await world.place.come_back("strategies")
        world.clock.advance(5)
        heard = world.host.heard()
        assert (heard.statuses, heard.age_s) == ((RUNNING,), 5)


async def test_a_question_is_not_asked_again_while_it_is_awaited(autojump_clock: Clock) -> None:
    async with make_world() as world:
        for _ in range(3):
            world.host.ask()
            await world.host.hear()
        assert world.place.made == ["strategies"]
        assert world.host.problem is None
        await world.place.come_back("strategies")
        world.host.ask()
        assert world.place.made == ["strategies"] * 2


async def test_a_late_part_is_silent_and_named_until_it_answers(autojump_clock: Clock) -> None:
    async with make_world() as world:
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
    async with make_world(engine, inline=True) as world:
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

    async with make_world(Engine(), inline=True) as world:
        world.host.ask()
        await trio.sleep(2)
        assert world.host.heard().silent
        await world.host.acts.pause("a", "why")
        assert world.engine.calls == [("pause", "a", "why")]
        await trio.sleep(60)
        assert world.host.heard().statuses == (RUNNING,)


async def test_a_hang_of_one_part_stops_no_other(autojump_clock: Clock) -> None:
    async with make_world() as world:
        world.host.ask()
        await trio.sleep(2)
        world.host.feeds.ask()
        assert world.host.fills.read("") is None
        await world.place.come_back("feeds")
        await world.place.come_back("fills")
        assert await world.host.feeds.hear() == ()
        assert world.host.fills.read("") == ()


async def test_a_person_who_asks_waits_for_the_answer(autojump_clock: Clock) -> None:
    async with make_world() as world, trio.open_nursery() as nursery:
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await world.host.strategies_now())
            answers.append(await world.host.feeds.now())

        nursery.start_soon(ask)
        await world.place.come_back("strategies")
        await world.place.come_back("feeds")
        assert answers == [(RUNNING,), ()]


async def test_a_person_who_asks_hears_that_a_part_is_late(autojump_clock: Clock) -> None:
    async with make_world() as world:
        with pytest.raises(HostLate, match=r"controller\.strategies: did not answer within 1 s"):
            await world.host.strategies_now()


async def test_a_person_who_asks_a_part_that_is_late_hears_it_at_once(
    autojump_clock: Clock,
) -> None:
    async with make_world() as world:
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

    async with make_world(Engine(), inline=True) as world:
        text = f"answered a {type(answer).__name__}, not a list"
        with pytest.raises(HostFault, match=text):
            world.host.fills.read("")
        with pytest.raises(HostFault, match=text):
            await world.host.strategies()


async def test_an_answer_with_too_many_strategies_is_refused_and_the_last_words_stand() -> None:
    def some(count: int) -> dict[str, StrategyStatus]:
        return {f"s{number}": StrategyStatus(f"s{number}", "running") for number in range(count)}

    async with make_world(inline=True) as world:
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

    async with make_world(Engine(), inline=True) as world:
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
    async with make_world(inline=True) as world:
        now_us = world.clock.now_us()
        world.engine.set("a", state=state, heartbeat_us=now_us)
        world.clock.advance(60)
        await world.host.strategies()
        assert world.host.heard().lapsed == {}
        world.clock.advance(1)
        text = {"a": "its last heartbeat is 61 s old"} if state == "running" else {}
        assert world.host.heard().lapsed == text


@pytest.mark.parametrize("part", ["strategies", "feeds"])
async def test_an_answer_that_is_still_being_read_never_replaces_a_newer_one(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(pieces, "PIECE_S", 0.0)
    async with make_world(inline=True) as world:
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
    async with make_world(inline=True) as world:
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
