"""One call in each of the three places: answers, errors, deadlines, and calls left behind."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
import uvloop

from fundops import StrategyStatus
from fundops.actors.host import Host, places
from fundops.actors.host.places import (
    THREADS_PER_PART,
    AsyncioPlace,
    CutOff,
    InlinePlace,
    Place,
    ThreadPlace,
)

SOON_S = 5.0
PLACES = ("trio", "asyncio", "threads")
WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO", default="")


@contextmanager
def _loop(
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> Iterator[asyncio.AbstractEventLoop]:
    """A running asyncio loop in another thread."""
    loop = factory()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(SOON_S)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@asynccontextmanager
async def _place(kind: str) -> AsyncIterator[Place]:
    if kind == "trio":
        yield InlinePlace()
    elif kind == "threads":
        yield ThreadPlace()
    else:
        with _loop() as loop:
            yield AsyncioPlace(loop)


async def _called(place: Place, call: Callable[[], Any], cut_after_s: float = SOON_S) -> Any:
    answer = place("part", call, cut_after_s)
    return await answer if hasattr(answer, "__await__") else answer


@pytest.mark.parametrize("kind", PLACES)
async def test_plain_functions_and_coroutines_both_answer(kind: str) -> None:
    async def slow() -> int:
        return 2

    async with _place(kind) as place:
        assert await _called(place, lambda: 1) == 1
        assert await _called(place, slow) == 2


@pytest.mark.parametrize("kind", PLACES)
async def test_each_place_has_its_own_thread_and_loop(kind: str) -> None:
    def where() -> tuple[threading.Thread, str]:
        library = ""
        if trio.lowlevel.in_trio_run():
            library = "trio"
        elif asyncio._get_running_loop() is not None:
            library = "asyncio"
        return threading.current_thread(), library

    async def where_async() -> tuple[threading.Thread, str]:
        return where()

    own = threading.current_thread()
    async with _place(kind) as place:
        plain, in_task = await _called(place, where), await _called(place, where_async)
    assert (plain[0] is own, in_task[0] is own) == (kind == "trio", kind == "trio")
    assert (plain[1], in_task[1]) == {
        "trio": ("trio", "trio"),
        "asyncio": ("asyncio", "asyncio"),
        "threads": ("", "asyncio"),
    }[kind]


@pytest.mark.parametrize("kind", PLACES)
async def test_the_library_of_the_place_works_in_a_coroutine(kind: str) -> None:
    async def nap() -> str:
        await (trio if kind == "trio" else asyncio).sleep(0)
        return "rested"

    async with _place(kind) as place:
        assert await _called(place, nap) == "rested"


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit(3)], ids=["error", "exit"])
async def test_errors_come_to_the_caller_alone(kind: str, error: BaseException) -> None:
    def plain() -> None:
        raise error

    async def later() -> None:
        raise error

    async with _place(kind) as place:
        for call in (plain, later):
            with pytest.raises(type(error)):
                await _called(place, call)
        assert await _called(place, lambda: 1) == 1, "the place goes on"


@pytest.mark.parametrize("kind", PLACES)
async def test_a_coroutine_is_ended_at_its_deadline(kind: str) -> None:
    began, ended = threading.Event(), threading.Event()

    async def hang() -> None:
        began.set()
        try:
            await (trio if kind == "trio" else asyncio).sleep(3600)
        finally:
            ended.set()

    async with _place(kind) as place:
        for deadline_s in (0.01, 0.1, 1.0):
            with trio.fail_after(SOON_S), pytest.raises(CutOff):
                await _called(place, hang, deadline_s)
            assert ended.is_set() == began.is_set()
            if began.is_set():  # on a busy machine a thread may begin after the deadline
                return
    raise AssertionError("it never began")


@pytest.mark.parametrize("kind", ["asyncio", "threads"])
async def test_a_plain_call_past_its_deadline_still_gives_its_answer(kind: str) -> None:
    async with _place(kind) as place:
        assert await _called(place, lambda: time.sleep(0.2) or "late", 0.1) == "late"  # type: ignore[func-returns-value]


@pytest.mark.parametrize("kind", ["asyncio", "threads"])
async def test_a_cancelled_wait_leaves_a_plain_call_behind(kind: str) -> None:
    go_on, done = threading.Event(), threading.Event()

    def hang() -> None:
        go_on.wait(SOON_S)
        done.set()

    async with _place(kind) as place:
        try:
            with trio.fail_after(SOON_S), trio.move_on_after(0.02):
                await _called(place, hang)
            assert not done.is_set()
        finally:
            go_on.set()
        assert await trio.to_thread.run_sync(done.wait, SOON_S)


@pytest.mark.parametrize("kind", ["asyncio", "threads"])
async def test_a_cancelled_wait_ends_a_coroutine(kind: str) -> None:
    ended = threading.Event()

    async def hang() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    async with _place(kind) as place:
        with trio.move_on_after(0.05):
            await _called(place, hang)
        assert await trio.to_thread.run_sync(ended.wait, SOON_S)


@pytest.mark.parametrize("kind", PLACES)
async def test_the_context_of_the_caller_is_that_of_the_call(kind: str) -> None:
    async def who() -> str:
        return WHO.get()

    WHO.set("host")
    async with _place(kind) as place:
        assert await _called(place, WHO.get) == "host"
        assert await _called(place, who) == "host"
        await _called(place, partial(WHO.set, "engine"))
    assert WHO.get() == ("engine" if kind == "trio" else "host"), "the host port copies it"


# -- trio


def _slow_calls(caplog: pytest.LogCaptureFixture, *took_s: float) -> tuple[InlinePlace, list[str]]:
    """A place after calls that took so long, and its log."""
    now_s = 0.0
    place = InlinePlace()

    def call(lasting_s: float) -> None:
        nonlocal now_s
        now_s += lasting_s

    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING, "fundops.host"):
        patch.setattr(places, "perf_counter", lambda: now_s)
        for lasting_s in took_s:
            place("feeds", partial(call, lasting_s), SOON_S)
    return place, caplog.messages


async def test_slow_plain_calls_are_counted_and_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    place, log = _slow_calls(caplog, *[0.002] * 25)
    assert place.slow == {"feeds": 25}
    (line,) = log
    assert line.startswith("controller.feeds took 2.0 ms on the fund's loop")


@pytest.mark.parametrize(("calls", "lines"), [(9, 0), (10, 1)])
async def test_ten_slow_calls_in_a_row_are_named(
    caplog: pytest.LogCaptureFixture, calls: int, lines: int
) -> None:
    place, log = _slow_calls(caplog, *[0.0011] * calls, *[0.0009] * 5)
    assert (place.slow, len(log)) == ({"feeds": calls}, lines)


async def test_a_plain_call_of_a_second_is_named_at_once(caplog: pytest.LogCaptureFixture) -> None:
    place, log = _slow_calls(caplog, 1.5)
    assert (place.slow, len(log)) == ({"feeds": 1}, 1)


async def test_a_call_that_is_slow_now_and_then_is_only_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    place, log = _slow_calls(caplog, *[0.002, 0.0005] * 25)
    assert (place.slow, log) == ({"feeds": 25}, [])


async def test_an_asyncio_coroutine_on_trio_is_a_plain_error() -> None:
    async with _place("trio") as place:
        with pytest.raises((RuntimeError, TypeError)):
            await _called(place, lambda: asyncio.sleep(0))


# -- asyncio


async def test_a_closed_loop_is_an_error_at_once() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="loop is closed"):
        AsyncioPlace(loop)("part", list, SOON_S)


async def test_a_loop_closed_during_the_call_is_an_error(
    autojump_clock: trio.testing.MockClock,
) -> None:
    loop = asyncio.new_event_loop()
    answer = AsyncioPlace(loop)("part", list, SOON_S)  # the loop never runs
    loop.close()
    with pytest.raises(RuntimeError, match="loop is closed"):
        await answer


async def test_a_call_that_could_not_begin_in_time_is_not_made() -> None:
    calls: list[str] = []
    loop = asyncio.new_event_loop()
    place = AsyncioPlace(loop)
    async with trio.open_nursery() as nursery:

        async def late() -> None:
            with pytest.raises(CutOff):
                await place("part", lambda: calls.append("made"), 0.001)

        nursery.start_soon(late)
        await trio.sleep(0.02)
        # The loop turns only now.
        loop.call_soon(loop.stop)
        await trio.to_thread.run_sync(loop.run_forever)
        loop.call_soon(loop.stop)
        await trio.to_thread.run_sync(loop.run_forever)
    loop.close()
    assert calls == []


async def test_tasks_cancelled_by_the_host_are_errors_of_the_call() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    async with _place("asyncio") as place:
        with pytest.raises(RuntimeError, match="ended by CancelledError"):
            await _called(place, cancelled)


async def test_another_event_loop_works_too() -> None:
    async def nap() -> str:
        await asyncio.sleep(0)
        return type(asyncio.get_running_loop()).__module__

    with _loop(uvloop.new_event_loop) as loop:
        place = AsyncioPlace(loop)
        assert (await _called(place, nap)).startswith("uvloop")
        with pytest.raises(CutOff):
            await _called(place, partial(asyncio.sleep, 3600), 0.01)


# -- threads


async def test_calls_of_one_part_share_a_bounded_number_of_threads() -> None:
    at_once, most = 0, 0
    lock, go_on, full = threading.Lock(), threading.Event(), threading.Event()

    def count() -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        if most == THREADS_PER_PART:
            full.set()
        go_on.wait(SOON_S)
        with lock:
            at_once -= 1

    place = ThreadPlace()
    async with trio.open_nursery() as nursery:
        for _ in range(THREADS_PER_PART + 4):
            nursery.start_soon(_called, place, count)
        assert await trio.to_thread.run_sync(full.wait, SOON_S)
        assert await place("other", lambda: "free", SOON_S) == "free"
        go_on.set()
    assert most == THREADS_PER_PART


async def test_a_call_that_was_cut_off_before_its_thread_began_is_not_made() -> None:
    away = places._Away()
    away._cut_off()
    with pytest.raises(CutOff):
        away.in_thread(lambda: pytest.fail("it was made"))


async def test_a_plain_function_past_its_deadline_begins_no_coroutine() -> None:
    went_on = list[str]()

    async def later() -> None:
        await asyncio.sleep(0)
        went_on.append("later")

    away = places._Away()

    def slow() -> Any:
        away._cut_off()
        return later()

    with pytest.raises(asyncio.CancelledError):
        await trio.to_thread.run_sync(away.in_thread, slow)
    assert went_on == []


async def test_a_call_without_a_turn_before_its_deadline_is_not_made() -> None:
    go_on = threading.Event()
    place = ThreadPlace()
    async with trio.open_nursery() as nursery:
        for _ in range(THREADS_PER_PART):
            nursery.start_soon(_called, place, partial(go_on.wait, SOON_S))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CutOff):
            await _called(place, lambda: pytest.fail("it was made"), 0.01)
        go_on.set()
    assert await _called(place, lambda: "free") == "free"


# -- a tick


@pytest.mark.parametrize("kind", ["asyncio", "threads"])
async def test_a_tick_waits_20_milliseconds_for_an_answer_from_another_thread(
    kind: str,
) -> None:
    go_on, answered = threading.Event(), threading.Event()

    class Engine:
        def strategies(self) -> list[StrategyStatus]:
            go_on.wait(SOON_S)
            answered.set()
            return []

    async with trio.open_nursery() as nursery, _place(kind) as place:
        host = Host(Engine(), nursery, place=place)
        host.ask()
        begun_s = time.monotonic()
        await host.settle()
        assert time.monotonic() - begun_s > 0.015
        # No longer: told without a clock, since a machine may stop for a second.
        assert (place.settle_s, answered.is_set()) == (0.02, False)
        go_on.set()
