"""The three places in which a controller is called.

`InlinePlace` calls on the fund's own loop, `AsyncioPlace` on the asyncio loop of the host, and
`ThreadPlace` in worker threads. Each accepts plain functions and coroutine functions for every
part. An answer that is there at once is returned as it is. Otherwise a place returns an awaitable
for the fund's loop, which ends when the call has come back, also when that is after its deadline.

A coroutine is ended at its deadline. A plain function cannot be ended: the place waits for it, and
leaves it behind when the fund stops.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from time import perf_counter
from typing import Any, Final, Protocol

import outcome
import trio

from ...runtime import FOREIGN_ERRORS

__all__ = [
    "INLINE_MAX_S",
    "RAISED",
    "AsyncioPlace",
    "CutOff",
    "InlinePlace",
    "Place",
    "ThreadPlace",
    "Turn",
]

log = logging.getLogger("fundops.host")

INLINE_MAX_S = 0.001  # of a plain function on the fund's loop, which waits meanwhile
# A busy machine makes any call slow now and then. A part is named when so many in a row were slow,
# and at once when one took a second.
SLOW_IN_A_ROW = 10
SLOW_AT_ONCE_S = 1.0
# A hop to another thread and back takes about 0.1 ms. With this wait a quick answer belongs to the
# tick that asked for it; without, it would belong to the next one.
SETTLE_S = 0.02
# More calls of one part than this wait for their turn, so that an engine in trouble does not get a
# thread for each of 10,000 strategies.
THREADS_PER_PART = 16
LOOP_LOOK_S = 1.0  # between two looks whether a loop was closed during a call


# The errors that a controller may raise. SystemExit is one: a plug-in of an engine that calls
# sys.exit must not end the fund.
RAISED: Final = (*FOREIGN_ERRORS, BaseExceptionGroup)


# Has an event loop call a function at its next turn.
Turn = Callable[[Callable[[], None]], object]


class CutOff(Exception):
    """The call was ended at its deadline, or could not begin before it."""


class Place(Protocol):
    """Where calls to the controller are made."""

    # For so long a tick waits for a quick answer; 0: it yields to its own loop a few times.
    settle_s: float

    def __call__(self, part: str, call: Callable[[], Any], cut_after_s: float) -> Any:
        """The answer of `call`, or an awaitable of it for the fund's loop.

        `part` is the name of the controller's method. The context of the caller is that of the
        call. Raises, at once or from the awaitable: the error of the call; `CutOff`.
        """
        ...

    def turn(self, own: trio.lowlevel.TrioToken) -> Turn | None:
        """The way to have the host's event loop call a function, from any thread.

        `own` is the fund's loop. None: the host has no loop.
        """
        ...


class InlinePlace:
    """The fund's own loop, for hosts on trio.

    A plain function runs at once and must be quick; a coroutine function runs beside the actors.
    """

    settle_s = 0.0

    def __init__(self) -> None:
        self.slow: dict[str, int] = {}  # calls that held up the loop, by part
        self._in_a_row: dict[str, int] = {}
        self._named: set[str] = set()

    def __call__(self, part: str, call: Callable[[], Any], cut_after_s: float) -> Any:
        """See `Place`."""
        begun_s = perf_counter()
        try:
            answer = call()
        finally:
            took_s = perf_counter() - begun_s
            if took_s > INLINE_MAX_S:
                self._count_slow(part, took_s)
            else:
                self._in_a_row.pop(part, None)
        return _until(answer, cut_after_s) if inspect.isawaitable(answer) else answer

    def turn(self, own: trio.lowlevel.TrioToken) -> Turn | None:
        """See `Place`."""
        return own.run_sync_soon

    def _count_slow(self, part: str, took_s: float) -> None:
        self.slow[part] = self.slow.get(part, 0) + 1
        row = self._in_a_row[part] = self._in_a_row.get(part, 0) + 1
        if part not in self._named and (row >= SLOW_IN_A_ROW or took_s >= SLOW_AT_ONCE_S):
            self._named.add(part)
            log.warning(
                "controller.%s took %.1f ms on the fund's loop, which waits meanwhile; its slow"
                " calls are only counted from now on",
                part,
                took_s * 1_000,
            )


async def _until(answer: Awaitable[Any], cut_after_s: float) -> Any:
    with trio.move_on_after(cut_after_s):
        return await answer
    raise CutOff


class AsyncioPlace:
    """The asyncio loop of the host, in another thread. Any event loop of asyncio's interface."""

    settle_s = SETTLE_S

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __call__(self, part: str, call: Callable[[], Any], cut_after_s: float) -> Any:
        """See `Place`. Raises: RuntimeError at once when the loop is closed."""
        self._look()
        away = _Away(self._look)
        # The loop holds tasks by weak references alone, and this one until it has ended.
        context = copy_context()
        self._loop.call_soon_threadsafe(partial(away.begin, self._loop, call), context=context)
        return away.wait(cut_after_s)

    def turn(self, own: trio.lowlevel.TrioToken) -> Turn | None:
        """See `Place`."""
        return self._loop.call_soon_threadsafe

    def _look(self) -> None:
        if self._loop.is_closed():
            raise RuntimeError("the host's asyncio loop is closed")


class ThreadPlace:
    """Daemon threads, for hosts that are not async. One place serves one trio run.

    Coroutine functions run in the thread by `asyncio.run`. A call that never returns keeps its
    thread and delays neither the fund nor its stop.
    """

    settle_s = SETTLE_S

    def __init__(self) -> None:
        self._turns: dict[str, trio.CapacityLimiter] = {}

    def __call__(self, part: str, call: Callable[[], Any], cut_after_s: float) -> Any:
        """See `Place`."""
        return self._run(part, call, cut_after_s)

    def turn(self, own: trio.lowlevel.TrioToken) -> Turn | None:
        """See `Place`. A synchronous host has no loop."""
        return None

    async def _run(self, part: str, call: Callable[[], Any], cut_after_s: float) -> Any:
        turns = self._turns.setdefault(part, trio.CapacityLimiter(THREADS_PER_PART))
        away = _Away(on_end=turns.release_on_behalf_of)
        with trio.move_on_after(cut_after_s) as waiting:
            await turns.acquire_on_behalf_of(away)
        if waiting.cancelled_caught:
            raise CutOff
        context = copy_context()

        def work() -> Any:
            return context.run(away.in_thread, call)

        trio.lowlevel.start_thread_soon(work, away.end, f"fundops-controller-{part}")
        return await away.wait(max(0.0, waiting.deadline - trio.current_time()))


class _Away:
    """One call in another thread. Its end returns to the trio loop in one callback."""

    def __init__(
        self,
        look: Callable[[], None] = lambda: None,
        on_end: Callable[[_Away], None] = lambda _: None,
    ) -> None:
        self._look = look  # raises when the call can no longer come back
        self._on_end = on_end  # in the trio loop
        self._token = trio.lowlevel.current_trio_token()
        self._ended = trio.Event()
        self._result: outcome.Outcome[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cut = False

    # -- on the trio loop

    async def wait(self, cut_after_s: float) -> Any:
        """The answer, once the call has come back. A cancelled wait leaves the call behind."""
        try:
            with trio.move_on_after(cut_after_s):
                await self._until_ended()
            if not self._ended.is_set():
                self._cut_off()
                await self._until_ended()
        except trio.Cancelled:
            self._cut_off()
            raise
        assert self._result is not None
        return self._result.unwrap()

    async def _until_ended(self) -> None:
        while not self._ended.is_set():
            with trio.move_on_after(LOOP_LOOK_S):
                await self._ended.wait()
            if not self._ended.is_set():
                self._look()

    def _cut_off(self) -> None:
        # The flag first: a task that begins now either sees it or is seen here.
        self._cut = True
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                self._loop.call_soon_threadsafe(self._task.cancel)

    def _wake(self) -> None:
        self._ended.set()
        self._on_end(self)

    # -- in the other thread

    def begin(self, loop: asyncio.AbstractEventLoop, call: Callable[[], Any]) -> None:
        """In the host's loop: make the call as a task."""
        self._task = loop.create_task(self._in_host_task(call))

    async def _in_host_task(self, call: Callable[[], Any]) -> None:
        try:
            if self._cut:
                raise CutOff
            self.end(outcome.Value(await self._in_task(call)))
        except RAISED as error:
            self.end(outcome.Error(error))
        except BaseException as error:
            # An end of the loop or of its program goes on to the loop.
            self.end(outcome.Error(error))
            raise

    async def _in_task(self, call: Callable[[], Any]) -> Any:
        task = asyncio.current_task()
        assert task is not None
        self._loop, self._task = asyncio.get_running_loop(), task
        if self._cut:  # before there was a task to cancel
            task.cancel()
        answer = call()
        return await answer if inspect.isawaitable(answer) else answer

    def in_thread(self, call: Callable[[], Any]) -> Any:
        """In a worker thread: make the call, with a loop for a coroutine."""
        if self._cut:
            raise CutOff
        answer = call()
        return asyncio.run(self._in_task(lambda: answer)) if inspect.isawaitable(answer) else answer

    def end(self, result: outcome.Outcome[Any]) -> None:
        """Give the result to the trio loop."""
        if isinstance(result, outcome.Error) and not isinstance(result.error, RAISED):
            # An end of another loop or thread must not end a task of this one.
            kind = type(result.error).__name__
            ended = CutOff() if self._cut else RuntimeError(f"it was ended by {kind}")
            result = outcome.Error(ended)
        self._result = result
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._wake)
