"""emergency_stop: in a thread of its own, when the host does not react, and never otherwise."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from fundops.actors.guard import KillLatch
from fundops.actors.host import Host, checked_controller, emergency
from fundops.actors.host.emergency import Emergency, LoopWatch
from fundops.runtime import ConfigError
from fundops.testing import FakeController
from fundops.wire.errors import HostLate
from fundops.wire.guard import KillStatus


@pytest.fixture(autouse=True)
def _no_call_outlives_its_test() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == "fundops-emergency-stop":
            thread.join(5)


ENGAGED = KillStatus("ENGAGED", "r", "ann", 1)
OFF = KillStatus("OFF", "", "", None)


class Stopped:
    """Notes the threads in which it is called."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.threads: list[str] = []
        self.error = error
        self.called = threading.Event()

    def __call__(self) -> None:
        self.threads.append(threading.current_thread().name)
        self.called.set()
        if self.error is not None:
            raise self.error


def _settle(condition: Callable[[], bool]) -> bool:
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.002)
    return False


def test_it_runs_in_a_thread_of_its_own_and_once_for_each_emergency() -> None:
    stop = Stopped()
    last = Emergency(stop)
    last.call(1, "it hangs")
    assert stop.called.wait(2)
    assert stop.threads == ["fundops-emergency-stop"]
    assert _settle(lambda: not last._calling)
    last.call(1, "it hangs")
    assert len(stop.threads) == 1
    last.call(2, "it hangs again")
    assert _settle(lambda: len(stop.threads) == 2)


@pytest.mark.parametrize(
    ("error", "text"), [(None, "was called"), (RuntimeError("no"), "raised RuntimeError: no")]
)
def test_each_call_is_in_the_log_with_its_reason(
    caplog: pytest.LogCaptureFixture, error: BaseException | None, text: str
) -> None:
    Emergency(Stopped(error)).call(1, "it hangs")
    assert _settle(lambda: bool(caplog.records))
    (record,) = caplog.records
    assert record.levelname == "CRITICAL"
    assert record.getMessage() == (
        f"controller.emergency_stop {text}, since the host does not react: it hangs"
    )


@pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit(1)])
def test_one_that_raises_is_called_again(error: BaseException) -> None:
    stop = Stopped(error)
    last = Emergency(stop)
    last.call(1, "it hangs")
    assert _settle(lambda: bool(stop.threads) and not last._calling)
    last.call(1, "it hangs")
    assert _settle(lambda: len(stop.threads) == 2)


def test_two_calls_never_run_at_once() -> None:
    go_on, begun = threading.Event(), list[int]()

    def hang() -> None:
        begun.append(1)
        go_on.wait(5)

    last = Emergency(hang)
    for number in range(5):
        last.call(number, "it hangs")
    assert _settle(lambda: bool(begun))
    assert len(begun) == 1
    go_on.set()


def test_a_loop_that_does_not_turn_is_noticed_and_one_that_turns_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(emergency, "LOOP_TURN_S", 0.02)
    noticed: list[str] = []
    turns = LoopWatch(lambda call: call(), lambda: noticed.append("turns"))
    stands = LoopWatch(lambda call: None, lambda: noticed.append("stands"))
    assert _settle(lambda: "stands" in noticed)
    turns.end()
    stands.end()
    assert "turns" not in noticed


def test_a_loop_has_a_second_to_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    waits, noticed = list[float | None](), list[str]()
    paused: list[threading.Event] = []

    class Brief(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            paused.append(self)
            return super().wait(0.001)

    with monkeypatch.context() as patch:
        patch.setattr(threading, "Event", Brief)
        watch = LoopWatch(lambda call: None, lambda: noticed.append("stuck"))
        assert _settle(lambda: bool(noticed))
        watch.end()
        turns = LoopWatch(lambda call: call(), lambda: None)
        assert _settle(lambda: turns._ended in paused), "it looks again a second later"
        turns.end()
    assert set(waits) - {None} == {1.0}


def test_a_process_that_was_stopped_takes_its_own_stall_for_no_emergency(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(emergency, "LOOP_TURN_S", 0.01)
    hours = iter(range(0, 3_600_000, 3_600))
    monkeypatch.setattr(emergency, "monotonic", lambda: float(next(hours)))
    noticed, asked = list[str](), list[Callable[[], None]]()
    watch = LoopWatch(asked.append, lambda: noticed.append("stuck"))
    assert _settle(lambda: bool(asked))
    time.sleep(0.05)
    watch.end()
    assert noticed == []


def test_the_watch_ends_with_its_loop() -> None:
    def closed(call: Callable[[], None]) -> None:
        raise RuntimeError("Event loop is closed")

    LoopWatch(closed, lambda: None)
    assert _settle(
        lambda: not any(thread.name == "fundops-loop-watch" for thread in threading.enumerate())
    )


# -- the host port


class Hanging(FakeController):
    """Its pause hangs."""

    async def pause(self, name: str, reason: str) -> None:
        await trio.sleep_forever()


@asynccontextmanager
async def _host(engine: Any, **settings: Any) -> AsyncIterator[Host]:
    async with trio.open_nursery() as nursery:
        host = Host(engine, nursery, latch=KillLatch(), **settings)
        yield host
        nursery.cancel_scope.cancel()


def _stops(engine: FakeController) -> int:
    return [call[0] for call in engine.calls].count("emergency_stop")


async def test_a_call_past_its_deadline_counts_only_under_the_latch(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = Hanging()
    async with _host(engine) as host:
        with pytest.raises(HostLate):
            await host.acts.pause("a", "r")
        host.stopping.watch()
        assert _stops(engine) == 0
        host.acts.latch.set(ENGAGED)
        host.stopping.watch()
        assert _settle(lambda: _stops(engine) == 1)
        host.stopping.watch()
        assert _stops(engine) == 1, "once, while the host does not react"


async def test_a_stop_all_past_its_deadline_is_an_emergency(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Deaf(FakeController):
        async def stop_all(self, *args: Any) -> Any:
            await trio.sleep_forever()

    engine = Deaf()
    async with _host(engine) as host:
        host.acts.latch.set(ENGAGED)
        host.stopping.start_stop_all("r", "halt", ("a",), lambda _: None)
        await trio.sleep(9)
        host.stopping.watch()
        assert _stops(engine) == 0
        await trio.sleep(2)
        host.stopping.watch()
        assert _settle(lambda: _stops(engine) == 1)


async def test_under_freeze_nothing_is_an_emergency(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Deaf(FakeController):
        async def stop_all(self, *args: Any) -> Any:
            await trio.sleep_forever()

    engine = Deaf()
    async with _host(engine) as host:
        host.acts.latch.set(msgspec.structs.replace(ENGAGED, action="freeze"))
        host.stopping.start_stop_all("r", "freeze", ("a",), lambda _: None)
        await trio.sleep(11)
        host.stopping.watch()
        host.stopping.start_emergency_stop("silent for 60 s")
        assert _stops(engine) == 0
        host.acts.latch.set(ENGAGED)
        host.stopping.start_emergency_stop("silent for 60 s")
        assert _settle(lambda: _stops(engine) == 1)


async def test_a_blocked_loop_is_an_emergency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emergency, "LOOP_TURN_S", 0.02)
    engine = FakeController()
    async with _host(engine, watch_loop=True) as host:
        host.acts.latch.set(ENGAGED)
        host.stopping.watch()
        assert _settle(lambda: _stops(engine) == 1), "this test blocks its loop here"
        host.acts.latch.set(OFF)
        host.stopping.watch()


async def test_without_the_latch_it_is_called_when_it_is_asked_for() -> None:
    engine = FakeController()
    async with _host(engine) as host:
        host.stopping.start_emergency_stop("silent for 60 s")
        assert _settle(lambda: _stops(engine) == 1)


async def test_mode_observe_calls_it_in_no_case(autojump_clock: trio.testing.MockClock) -> None:
    engine = FakeController()
    async with _host(engine, observing=True) as host:
        host.acts.latch.set(ENGAGED)
        host.stopping.watch()
        host.stopping.start_emergency_stop("silent for 60 s")
        assert [act.part for act in host.acts.take_withheld()] == ["emergency_stop"]
        assert _stops(engine) == 0


def test_a_coroutine_function_is_refused() -> None:
    class Later(FakeController):
        async def emergency_stop(self) -> None:  # type: ignore[override]
            """Never called."""

    with pytest.raises(ConfigError, match="must be a plain one"):
        checked_controller(Later())


# -- keep_alive


async def test_keep_alive_is_never_called_twice_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Slow(FakeController):
        began = 0

        async def keep_alive(self, until_us: int) -> None:
            self.began += 1
            await trio.sleep(0.5)
            self.alive_until_us = until_us

    engine = Slow()
    async with _host(engine) as host:
        host.acts.start_keep_alive(7)
        await trio.testing.wait_all_tasks_blocked()
        host.acts.start_keep_alive(8)
        await trio.sleep(0.6)
        assert (engine.began, engine.alive_until_us) == (1, 7)
        host.acts.start_keep_alive(9)
        await trio.sleep(0.6)
        assert engine.alive_until_us == 9


@pytest.mark.parametrize("is_plain", [True, False])
async def test_a_keep_alive_that_raises_stops_nothing_and_is_named(is_plain: bool) -> None:
    class Plain(FakeController):
        def keep_alive(self, until_us: int) -> None:  # type: ignore[override]
            if "keep_alive" in self.failures:
                raise self.failures["keep_alive"]
            self.alive_until_us = until_us

    engine = Plain() if is_plain else FakeController()
    engine.failures["keep_alive"] = RuntimeError("no")
    async with _host(engine) as host:
        assert host.acts.failing() == {}
        for _ in range(2):
            host.acts.start_keep_alive(7)
            await trio.testing.wait_all_tasks_blocked()
            assert host.acts.failing() == {"keep_alive": "raised RuntimeError: no"}
        del engine.failures["keep_alive"]
        host.acts.start_keep_alive(8)
        await trio.testing.wait_all_tasks_blocked()
        assert (engine.alive_until_us, host.acts.failing()) == (8, {})


async def test_a_keep_alive_past_its_deadline_is_late_and_has_not_failed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Hung(FakeController):
        async def keep_alive(self, until_us: int) -> None:
            await trio.sleep_forever()

    async with _host(Hung()) as host:
        host.acts.start_keep_alive(7)
        await trio.sleep(1.2)
        assert host.late() == {"keep_alive": "did not answer within 1 s"}
        assert host.acts.failing() == {}
