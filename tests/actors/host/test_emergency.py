"""The thread that calls emergency_stop, and the one that watches the loop of the host."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from fundops.actors.host import emergency
from fundops.actors.host.emergency import Emergency, LoopWatch
from tests.actors.host.conftest import settle


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


def test_it_runs_in_a_thread_of_its_own_and_once_for_each_emergency() -> None:
    stop = Stopped()
    last = Emergency(stop)
    last.call(1, "it hangs")
    assert stop.called.wait(2)
    assert stop.threads == ["fundops-emergency-stop"]
    assert settle(lambda: not last._calling)
    last.call(1, "it hangs")
    assert len(stop.threads) == 1
    last.call(2, "it hangs again")
    assert settle(lambda: len(stop.threads) == 2)


@pytest.mark.parametrize(
    ("error", "text"), [(None, "was called"), (RuntimeError("no"), "raised RuntimeError: no")]
)
def test_each_call_is_in_the_log_with_its_reason(
    caplog: pytest.LogCaptureFixture, error: BaseException | None, text: str
) -> None:
    Emergency(Stopped(error)).call(1, "it hangs")
    assert settle(lambda: bool(caplog.records))
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
    assert settle(lambda: bool(stop.threads) and not last._calling)
    last.call(1, "it hangs")
    assert settle(lambda: len(stop.threads) == 2)


def test_two_calls_never_run_at_once() -> None:
    go_on, begun = threading.Event(), list[int]()

    def hang() -> None:
        begun.append(1)
        go_on.wait(5)

    last = Emergency(hang)
    for number in range(5):
        last.call(number, "it hangs")
    assert settle(lambda: bool(begun))
    assert len(begun) == 1
    go_on.set()


def test_a_loop_that_does_not_turn_is_noticed_and_one_that_turns_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(emergency, "LOOP_TURN_S", 0.02)
    noticed: list[str] = []
    turns = LoopWatch(lambda call: call(), lambda: noticed.append("turns"))
    stands = LoopWatch(lambda call: None, lambda: noticed.append("stands"))
    assert settle(lambda: "stands" in noticed)
    assert (turns.is_stuck, stands.is_stuck) == (False, True)
    turns.end()
    stands.end()
    assert "turns" not in noticed


def test_a_loop_that_turns_again_is_not_stuck_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emergency, "LOOP_TURN_S", 0.02)
    asked: list[Callable[[], None]] = []
    watch = LoopWatch(asked.append, lambda: None)
    assert settle(lambda: watch.is_stuck)
    asked.pop()()
    assert settle(lambda: not watch.is_stuck)
    watch.end()


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
        assert settle(lambda: bool(noticed))
        watch.end()
        turns = LoopWatch(lambda call: call(), lambda: None)
        assert settle(lambda: turns._ended in paused), "it looks again a second later"
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
    assert settle(lambda: bool(asked))
    time.sleep(0.05)
    watch.end()
    assert noticed == []


def test_the_watch_ends_with_its_loop() -> None:
    def closed(call: Callable[[], None]) -> None:
        raise RuntimeError("Event loop is closed")

    LoopWatch(closed, lambda: None)
    assert settle(
        lambda: not any(thread.name == "fundops-loop-watch" for thread in threading.enumerate())
    )
