"""A trio run in a dedicated thread, for hosts that are synchronous or run on asyncio.

Calls are posted through a deque with one wake for all that wait in it. Each runs as a task of the
trio thread, in the context variables of its caller, and its outcome is delivered once. When the run
ends, for any reason, each call that is still open fails with `FundClosed`, so no caller hangs.

A forked child has no such thread: there a bridge is as if it had never been started, and says so.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import copy_context
from typing import Any, Final, Generic, Literal, TypeVar
from weakref import WeakSet

import trio

from fundops.errors import FundClosed, FundNotRunning

__all__ = ["Bridge", "Call", "running_loop"]

# How long a program that ends without calling `stop` waits for the fund to stop.
EXIT_S: Final = 10.0
# Calls that are begun at once. The trio thread then serves its actors before it begins more.
BURST: Final = 64

T = TypeVar("T")
F = TypeVar("F")

Deliver = Callable[[Any, BaseException | None], None]


class Call:
    """A call on its way into the trio thread, and back."""

    __slots__ = ("context", "deliver", "function", "scope")

    def __init__(self, function: Callable[[Any], Awaitable[Any]], deliver: Deliver) -> None:
        self.function = function
        self.deliver = deliver  # called once with the value or the error, in any thread
        self.context = copy_context()
        self.scope = trio.CancelScope()


class Bridge(Generic[F]):
    """Opens an async context in a trio thread and runs calls against it, from any other thread."""

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[F]]) -> None:
        self._opening = opening
        self._forget_run()
        self._error: BaseException | None = None
        self._parent: int | None = None  # in a forked child: the process that the fund runs in
        _bridges.add(self)

    def _forget_run(self) -> None:
        self._thread: threading.Thread | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop: trio.Event | None = None
        self._nursery: trio.Nursery | None = None
        self._opened: F | None = None
        self._posted: deque[Call] = deque()
        self._open_calls: set[Call] = set()  # posted or running, with their outcome to come
        self._woken = False
        self._was_open = False
        self._over = True  # no outcome will be delivered by the run any more

    @property
    def running(self) -> bool:
        """Whether the context is open."""
        return self._opened is not None

    @property
    def inherited(self) -> bool:
        """Whether the context is open in the process from which this one was forked."""
        return self._parent is not None

    # -- the life of the run

    def launch(self, ready: Callable[[], None], ended: Callable[[], None]) -> bool:
        """Begin to open the context in a new thread; False when one runs already.

        `ready` is called in that thread once the context is open or could not be opened, then
        `ended` when the run has ended. `check_opened` tells which.
        """
        if self._thread is not None and self._thread.is_alive():
            return False
        self._forget_run()
        self._error = self._parent = None
        self._over = False
        # In the caller's context, which is the host's, and so that of the controller's calls.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run, ready, ended), name="fundops", daemon=True
        )
        self._thread.start()
        return True

    def check_opened(self) -> None:
        """Take note that `ready` was called. Raises: the error of the opening."""
        if self._opened is None and self._error is not None:
            assert self._thread is not None
            self._thread.join()
            error, self._error, self._thread = self._error, None, None
            raise error
        # A thread that is no daemon would keep a program that forgot to stop alive. At exit the
        # fund still stops in order.
        atexit.register(self._stop_at_exit)

    def start(self) -> None:
        """Open the context; returns once it is open. Raises: the error of the opening."""
        ready = threading.Event()
        if self.launch(ready.set, lambda: None):
            ready.wait()
            self.check_opened()

    def ask_to_stop(self) -> bool:
        """Begin to close the context; False when there is none."""
        if self._thread is None:
            return False
        atexit.unregister(self._stop_at_exit)
        if self._token is not None and self._stop is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._stop.set)
        return True

    def check_stopped(self, timeout_s: float) -> None:
        """Wait for the thread's end. Raises: `FundClosed` with the cause, TimeoutError."""
        thread = self._thread
        if thread is None:
            return
        thread.join(timeout_s)
        if thread.is_alive():
            raise TimeoutError(f"the fund did not stop within {timeout_s:g} s")
        self._thread = None
        if self._error is not None:
            raise FundClosed("the fund had stopped by itself") from self._error

    def stop(self, timeout_s: float) -> None:
        """Close the context. Idempotent.

        Raises: `FundClosed` with the cause if it had stopped by itself; TimeoutError after
        `timeout_s`.
        """
        if self.ask_to_stop():
            self.check_stopped(timeout_s)

    def _stop_at_exit(self) -> None:
        # At interpreter exit no caller is left to report errors to.
        with suppress(FundClosed, TimeoutError):
            self.stop(EXIT_S)

    def _forget(self) -> None:
        """In a forked child: the thread and the open context are the parent's."""
        if self._thread is None:
            return
        atexit.unregister(self._stop_at_exit)
        # Kept: what would clean up after them here belongs to the parent.
        _inherited.append(dict(vars(self)))
        self._forget_run()
        self._error = None
        self._parent = os.getppid()

    # -- calls

    def call(self, function: Callable[[F], Awaitable[T]]) -> T:
        """Run `function` in the trio thread and wait for its result.

        Raises: `FundNotRunning`, `FundClosed`, and the errors of `function`.
        """
        answered = threading.Lock()
        answered.acquire()
        outcome: list[Any] = []

        def deliver(value: Any, error: BaseException | None) -> None:
            outcome.extend((value, error))
            answered.release()

        call = self.post(function, deliver)
        try:
            answered.acquire()
        except BaseException:  # Ctrl-C, most likely
            self.cancel(call)
            raise
        value, error = outcome
        if error is not None:
            raise error
        result: T = value
        return result

    def post(self, function: Callable[[F], Awaitable[Any]], deliver: Deliver) -> Call:
        """Begin to run `function` in the trio thread; `deliver` gets its outcome, in any thread.

        Raises: `FundNotRunning`, `FundClosed`.
        """
        self.get()
        if threading.current_thread() is self._thread:
            raise FundNotRunning("a call from the fund's own thread would wait for itself")
        call = Call(function, deliver)
        self._open_calls.add(call)
        self._posted.append(call)
        self._wake()
        if self._over:  # since `get`
            self._fail_open_calls()
        return call

    def cancel(self, call: Call) -> None:
        """Cancel a call whose caller waits no longer."""
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(call.scope.cancel)

    def get(self) -> F:
        """The open context's value. Raises: `FundNotRunning`, `FundClosed`."""
        opened = self._opened
        if opened is None:
            if self._error is not None:
                raise FundClosed("the fund stopped by itself") from self._error
            if self._parent is not None:
                raise FundNotRunning(
                    f"the fund runs in process {self._parent}, from which this one was forked;"
                    " call it there, or by its control socket"
                )
            raise FundNotRunning("the fund is not running; call start() first")
        return opened

    def _wake(self) -> None:
        if self._woken or self._token is None:
            return
        self._woken = True
        with suppress(trio.RunFinishedError):  # `_run` then fails the open calls
            self._token.run_sync_soon(self._begin_posted)

    # -- in the trio thread

    def _begin_posted(self) -> None:
        # Cleared first: a call that is posted from here on wakes again, or is taken below.
        self._woken = False
        for _ in range(BURST):
            try:
                call = self._posted.popleft()
            except IndexError:
                return
            if self._nursery is not None:
                call.context.run(self._nursery.start_soon, self._serve, call)
        self._wake()

    async def _serve(self, call: Call) -> None:
        value, error = None, None
        try:
            with call.scope:
                value = await call.function(self._opened)
        except Exception as raised:  # noqa: BLE001  the caller's
            error = raised
        # A task that was cancelled from outside does not come here: its caller is told the reason
        # when the run has ended.
        self._close(call, value, error)

    def _close(self, call: Call, value: Any, error: BaseException | None) -> None:
        try:
            self._open_calls.remove(call)
        except KeyError:
            return  # delivered already
        call.deliver(value, error)

    def _run(self, ready: Callable[[], None], ended: Callable[[], None]) -> None:
        try:
            trio.run(self._main, ready)
        except BaseException as error:  # noqa: BLE001  kept for the next caller
            self._error = error
        finally:
            self._over = True
            if not self._was_open:
                ready()
            self._fail_open_calls()
            ended()

    async def _main(self, ready: Callable[[], None]) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stop = trio.Event()
        async with self._opening() as opened, trio.open_nursery() as nursery:
            self._opened, self._nursery, self._was_open = opened, nursery, True
            ready()
            try:
                await self._stop.wait()
            finally:
                # No call begins from here on. Those that run are cut off.
                self._opened = self._nursery = None
                nursery.cancel_scope.cancel()

    def _fail_open_calls(self) -> None:
        for call in tuple(self._open_calls):
            closed = FundClosed("the fund stopped during the call")
            closed.__cause__ = self._error
            self._close(call, None, closed)


def running_loop() -> Literal["trio", "asyncio"] | None:
    """The event loop that runs the caller; None: it is synchronous code, or in a worker thread.

    It does not load asyncio to say so.
    """
    if trio.lowlevel.in_trio_run():
        return "trio"
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return None
    return "asyncio"


_bridges: WeakSet[Bridge[Any]] = WeakSet()
_inherited: list[object] = []


def _forget_all() -> None:
    for bridge in _bridges:
        bridge._forget()


os.register_at_fork(after_in_child=_forget_all)
