"""Workers that run blocking calls in order, for resources that must stay with one thread.

`ThreadWorker` runs them in one long-lived thread, `InlineWorker` in the trio thread itself. Tests
in virtual time need the second: trio's `MockClock` takes a busy worker thread for idleness and
jumps over every deadline.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

import outcome
import trio

__all__ = ["InlineWorker", "ThreadWorker", "Worker"]

T = TypeVar("T")


class Worker(Protocol):
    """Runs blocking calls, one at a time, in the order in which they were requested."""

    async def run(self, call: Callable[[], T]) -> T:
        """The result of the call.

        Not cancellable once started, so the caller always learns whether the write happened.

        Raises: the error of the call; `trio.ClosedResourceError` after `stop`.
        """
        ...

    def stop(self) -> None:
        """End after the calls that are already queued. Idempotent."""
        ...


class ThreadWorker:
    """Runs calls in a daemon thread; each result returns to the trio loop in one callback."""

    def __init__(self, name: str) -> None:
        self._stopped = False
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    async def run(self, call: Callable[[], T]) -> T:
        """The result of the call. Not cancellable once started; see `Worker.run`."""
        # After the stop no thread would take the call, and the wait below cannot be cancelled.
        if self._stopped:
            raise trio.ClosedResourceError("the worker is stopped")
        token = trio.lowlevel.current_trio_token()
        task = trio.lowlevel.current_task()

        def work() -> None:
            result = outcome.capture(call)
            # The trio run may have ended during the call; then no caller is left to get the result.
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(trio.lowlevel.reschedule, task, result)

        self._calls.put(work)
        return await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)  # type: ignore[no-any-return]

    def stop(self) -> None:
        """End the thread after the calls that are already queued. Idempotent."""
        self._stopped = True
        self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


class InlineWorker:
    """Runs calls in the trio thread itself, for tests in virtual time."""

    def __init__(self) -> None:
        self._stopped = False

    async def run(self, call: Callable[[], T]) -> T:
        """The result of the call, which blocks the trio loop while it runs."""
        if self._stopped:
            raise trio.ClosedResourceError("the worker is stopped")
        result = call()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return result

    def stop(self) -> None:
        """Refuse further calls. Idempotent."""
        self._stopped = True
