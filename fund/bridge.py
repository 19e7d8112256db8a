"""A trio run in a dedicated thread, for hosts that are not async.

A forked child has no such thread: there a bridge is as if it had never been started, and says so.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import copy_context
from typing import Any, Generic, TypeVar
from weakref import WeakSet

import trio

from fundops.errors import FundClosed, FundNotRunning

__all__ = ["Bridge"]

# How long a program that ends without calling `stop` waits for the fund to stop.
EXIT_S = 10.0

T = TypeVar("T")
F = TypeVar("F")


class Bridge(Generic[F]):
    """Opens an async context in a trio thread and runs calls against it, from any other thread."""

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[F]]) -> None:
        self._opening = opening
        self._thread: threading.Thread | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop: trio.Event | None = None
        self._opened: F | None = None
        self._error: BaseException | None = None
        self._ready = threading.Event()
        self._parent: int | None = None  # in a forked child: the process that the fund runs in
        _bridges.add(self)

    @property
    def running(self) -> bool:
        """Whether the context is open."""
        return self._opened is not None

    @property
    def inherited(self) -> bool:
        """Whether the context is open in the process from which this one was forked."""
        return self._parent is not None

    def start(self) -> None:
        """Open the context; returns once it is open. Raises: the error of the opening."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._ready.clear()
        self._error = self._parent = None
        # In the caller's context, which is the host's, and so that of the controller's calls.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name="fundops", daemon=True
        )
        self._thread.start()
        self._ready.wait()
        if self._opened is None and self._error is not None:
            self._thread.join()
            error, self._error, self._thread = self._error, None, None
            raise error
        # A thread that is no daemon would keep a program that forgot to stop alive. At exit the
        # fund still stops in order.
        atexit.register(self._stop_at_exit)

    def stop(self, timeout_s: float) -> None:
        """Close the context. Idempotent.

        Raises: `FundClosed` with the cause if it had stopped by itself; TimeoutError after
        `timeout_s`.
        """
        thread, token, stop = self._thread, self._token, self._stop
        if thread is None:
            return
        atexit.unregister(self._stop_at_exit)
        if token is not None and stop is not None and thread.is_alive():
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(stop.set)
        thread.join(timeout_s)
        if thread.is_alive():
            raise TimeoutError(f"the fund did not stop within {timeout_s:g} s")
        self._thread = None
        if self._error is not None:
            raise FundClosed("the fund had stopped by itself") from self._error

    def _stop_at_exit(self) -> None:
        # At interpreter exit no caller is left to report errors to.
        with suppress(FundClosed, TimeoutError):
            self.stop(EXIT_S)

    def call(self, function: Callable[[F], Awaitable[T]]) -> T:
        """Run `function` in the trio thread and wait for its result.

        Raises: `FundNotRunning`, `FundClosed`, and the errors of `function`.
        """
        opened = self.get()
        if threading.current_thread() is self._thread:
            raise FundNotRunning(
                "a synchronous call from the fund's own thread would wait for itself"
            )
        try:
            return trio.from_thread.run(function, opened, trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled) as over:
            raise FundClosed("the fund stopped during the call") from (self._error or over)

    def get(self) -> F:
        """The open context's value. Raises: `FundNotRunning`, `FundClosed`."""
        if self._opened is None:
            if self._error is not None:
                raise FundClosed("the fund stopped by itself") from self._error
            if self._parent is not None:
                raise FundNotRunning(
                    f"the fund runs in process {self._parent}, from which this one was forked;"
                    " call it there, or by its control socket"
                )
            raise FundNotRunning("the fund is not running; call start() first")
        return self._opened

    def _forget(self) -> None:
        """In a forked child: the thread and the open context are the parent's."""
        if self._thread is None:
            return
        atexit.unregister(self._stop_at_exit)
        # Kept: what would clean up after them here belongs to the parent.
        _inherited.append((self._opened, self._thread, self._token, self._stop))
        self._thread = self._token = self._stop = self._opened = self._error = None
        self._ready = threading.Event()
        self._parent = os.getppid()

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:  # noqa: BLE001  kept for the next caller
            self._error = error
        finally:
            self._opened = None
            self._ready.set()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stop = trio.Event()
        async with self._opening() as opened:
            self._opened = opened
            self._ready.set()
            await self._stop.wait()
            self._opened = None


_bridges: WeakSet[Bridge[Any]] = WeakSet()
_inherited: list[object] = []


def _forget_all() -> None:
    for bridge in _bridges:
        bridge._forget()


os.register_at_fork(after_in_child=_forget_all)
