"""Workers: one call at a time, in order, waited for even when cancelled."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fundops.runtime import InlineWorker, ThreadWorker, Worker


@pytest.fixture(params=[InlineWorker, lambda: ThreadWorker("books")], ids=["inline", "thread"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    made: Worker = request.param()
    yield made
    made.stop()


async def test_a_call_gives_back_its_result(worker: Worker) -> None:
    assert await worker.run(lambda: 6 * 7) == 42


async def test_a_call_that_raises_raises_at_its_caller_and_spoils_nothing(worker: Worker) -> None:
    def fail() -> None:
        raise LookupError("no such row")

    with pytest.raises(LookupError, match="no such row"):
        await worker.run(fail)
    assert await worker.run(lambda: "fine") == "fine"


async def test_calls_run_one_at_a_time_in_the_order_asked_for(worker: Worker) -> None:
    log: list[int] = []
    running = threading.Lock()

    def call(number: int) -> None:
        assert running.acquire(blocking=False)
        log.append(number)
        running.release()

    asked: list[int] = []

    async def ask(number: int) -> None:
        asked.append(number)
        await worker.run(lambda: call(number))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, number)
    assert log == asked
    assert sorted(log) == list(range(20))


async def test_a_call_is_a_schedule_point(worker: Worker) -> None:
    log: list[str] = []

    async def other() -> None:
        log.append("other")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await worker.run(lambda: None)
        await worker.run(lambda: None)
        assert log == ["other"]


async def test_a_call_once_begun_is_waited_for_even_when_cancelled(worker: Worker) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await worker.run(lambda: "written") == "written"
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught


async def test_a_stopped_worker_refuses_calls_and_may_be_stopped_again(worker: Worker) -> None:
    worker.stop()
    worker.stop()
    with pytest.raises(trio.ClosedResourceError):
        await worker.run(lambda: None)


async def test_all_calls_of_a_thread_worker_run_in_its_one_thread() -> None:
    worker = ThreadWorker("books")
    threads = {await worker.run(threading.current_thread) for _ in range(5)}
    [thread] = threads
    assert thread.name == "books"
    assert thread is not threading.current_thread()
    worker.stop()
    thread.join()


async def test_a_thread_worker_leaves_the_loop_free_while_it_works() -> None:
    worker = ThreadWorker("books")
    gate = threading.Event()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            assert await worker.run(gate.wait)

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        gate.set()
    worker.stop()


async def test_a_thread_worker_ends_after_what_is_already_queued() -> None:
    worker = ThreadWorker("books")
    gate = threading.Event()
    log: list[int] = []

    async def ask(number: int) -> None:
        def call() -> None:
            gate.wait()
            log.append(number)

        await worker.run(call)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(ask, number)
        await wait_all_tasks_blocked()
        worker.stop()
        gate.set()
    assert sorted(log) == [0, 1, 2]


def test_a_result_that_comes_after_the_run_has_ended_harms_nobody() -> None:
    worker = ThreadWorker("books")
    gate = threading.Event()

    async def leave() -> None:
        # A coroutine stepped by hand stands for a run torn down with the call in flight.
        call = worker.run(gate.wait)
        call.send(None)
        call.close()

    trio.run(leave)
    gate.set()

    async def again() -> str:
        return await worker.run(lambda: "still working")

    assert trio.run(again) == "still working"
    worker.stop()
