"""One long-lived thread that runs blocking calls in order, for resources that must stay with one thread.

`InlineWorker` runs them on the spot: a virtual trio clock takes a worker thread for idleness and jumps over every
deadline, so tests in virtual time use it.
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
    """Runs one blocking call at a time, in the order asked for."""

    async def run(self, call: Callable[[], T]) -> T:
        """The call's result. Once begun the call is waited for even when cancelled: a write half-watched is a lie.

        Raises: what the call raises; `trio.ClosedResourceError` after `stop`.
        """

    def stop(self) -> None:
        """End after what is already queued. Idempotent."""


class ThreadWorker:
    """A daemon thread fed by a queue; each result returns to the trio loop in one callback."""

    def __init__(self, name: str) -> None:
        self._stopped = False
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    async def run(self, call: Callable[[], T]) -> T:
        if (
            self._stopped
        ):  # nobody would ever take the call, and the wait for it cannot be cancelled
            raise trio.ClosedResourceError("the worker is stopped")
        token = trio.lowlevel.current_trio_token()
        task = trio.lowlevel.current_task()

        def work() -> None:
            result = outcome.capture(call)
            # The run may have ended with the call in flight: then nobody is left to be told.
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(trio.lowlevel.reschedule, task, result)

        self._calls.put(work)
        return await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)  # type: ignore[no-any-return]

    def stop(self) -> None:
        self._stopped = True
        self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


class InlineWorker:
    """Runs the call in the trio thread itself."""

    def __init__(self) -> None:
        self._stopped = False

    async def run(self, call: Callable[[], T]) -> T:
        if self._stopped:
            raise trio.ClosedResourceError("the worker is stopped")
        result = call()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return result

    def stop(self) -> None:
        self._stopped = True
