"""AsyncioFund: the same front door for hosts that run on asyncio, on any of its loops.

async with AsyncioFund.open(FundConfig(total_capital=100_000, ledger_enabled=True)) as fund:
    await fund.ledger.deposit("2500")

The fund runs on trio in another thread, so a host that blocks its loop does not stop it. A
call is posted to that thread and awaited; cancelling the caller cancels it there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from signal import Signals
from typing import Any, Final

from fundops.actors.host import AsyncioPlace
from fundops.bridge import Bridge, running_loop
from fundops.config import FundConfig
from fundops.errors import FundClosed, NeedsAsyncio, WrongLoop
from fundops.faces import (
    AsyncioAlerts,
    AsyncioKillSwitch,
    AsyncioLedger,
    AsyncioPromotion,
    AsyncioRecovery,
    AsyncioVerbs,
)
from fundops.fund import Fund
from fundops.hosted import Hosted
from fundops.runtime import Clock, SupervisorEscalated
from fundops.signals import signal_on_asyncio
from fundops.wire.controller import Controller

__all__ = ["AsyncioFund"]

STOP_S: Final = 30.0

Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]


class AsyncioFund(Hosted, AsyncioVerbs):
    """A running fund, made by `AsyncioFund.open`, for the event loop that opened it.

    Its parts are `ledger`, `promotion`, `alerts`, `recovery` and `kill_switch`. Methods that are
    no coroutines may be called from any thread.
    """

    def __init__(self, config: FundConfig, bridge: Bridge[Fund]) -> None:
        Hosted.__init__(self, config, bridge)
        AsyncioVerbs.__init__(self, self)
        self.ledger = AsyncioLedger(self)
        self.promotion = AsyncioPromotion(self)
        self.alerts = AsyncioAlerts(self)
        self.recovery = AsyncioRecovery(self)
        self.kill_switch = AsyncioKillSwitch(self)
        self._last = bridge.get()
        self._loop = asyncio.get_running_loop()
        # Outcomes on their way to the loop, which is woken once for all of them.
        self._outcomes: deque[Outcome] = deque()
        self._woken = False

    @staticmethod
    def open(
        config: FundConfig,
        controller: Controller | None = None,
        *,
        clock: Clock | None = None,
        transport: Any = None,
        on_fund_lost: Callable[[SupervisorEscalated], None] | None = None,
    ) -> AbstractAsyncContextManager[AsyncioFund]:
        """Start a fund, and stop it in order when the block is left.

        Arguments are those of `Fund.open`. The controller's methods and `on_fund_lost` are called
        on this loop: plain ones inline, coroutines as tasks.

        Raises: `NeedsAsyncio` outside an asyncio loop; `ConfigError`, `DatabaseInUse`,
        `DatabaseError`; `PolicyError`; out of the block `FundClosed` with its cause when the fund
        has stopped by itself.
        """
        return _open(config, controller, clock, transport, on_fund_lost)

    async def run_until_signal(self) -> Signals:
        """The first SIGTERM or SIGINT; leave the block then, which stops the fund in order.

        A second signal ends the program at once. To be awaited in the main thread.
        """
        return await signal_on_asyncio()

    async def post(self, function: Callable[[Fund], Awaitable[Any]]) -> Any:
        """Run a function of the fund in its thread; cancelling the caller cancels it there.

        Raises: `WrongLoop`, `FundNotRunning`, `FundClosed`, and the errors of `function`.
        """
        if asyncio.get_running_loop() is not self._loop:
            raise WrongLoop("this fund was opened on another event loop; open one on each")
        future = self._loop.create_future()

        def deliver(value: Any, error: BaseException | None) -> None:
            self._outcomes.append((future, value, error))
            if not self._woken:
                self._woken = True
                with suppress(RuntimeError):  # the loop is closed, so no one waits
                    self._loop.call_soon_threadsafe(self._tell_outcomes)

        call = self._bridge.post(function, deliver)
        try:
            return await future
        except asyncio.CancelledError:
            self._bridge.cancel(call)
            raise

    def _tell_outcomes(self) -> None:
        # Cleared first: an outcome that comes from here on wakes again, or is taken below.
        self._woken = False
        while self._outcomes:
            future, value, error = self._outcomes.popleft()
            if future.done():  # its caller was cancelled
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)


@asynccontextmanager
async def _open(
    config: FundConfig,
    controller: Controller | None,
    clock: Clock | None,
    transport: Any,
    on_fund_lost: Callable[[SupervisorEscalated], None] | None,
) -> AsyncIterator[AsyncioFund]:
    _check_runs_on_asyncio()
    located = FundConfig.checked(config)
    loop = asyncio.get_running_loop()
    bridge: Bridge[Fund] = Bridge(
        lambda: Fund.open(
            located,
            controller,
            clock=clock,
            transport=transport,
            place=AsyncioPlace(loop),
            on_fund_lost=None if on_fund_lost is None else _on_loop(loop, on_fund_lost),
        )
    )
    opened, ended = asyncio.Event(), asyncio.Event()
    bridge.launch(_setter(loop, opened), _setter(loop, ended))
    broken: BaseException | None = None
    try:
        await opened.wait()
        bridge.check_opened()
        yield AsyncioFund(located, bridge)
    except BaseException as error:
        broken = error
        raise
    finally:
        await _stopped(bridge, ended, broken)


def _setter(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> Callable[[], None]:
    def set_it() -> None:
        with suppress(RuntimeError):  # the loop is closed, so no one waits
            loop.call_soon_threadsafe(event.set)

    return set_it


def _on_loop(
    loop: asyncio.AbstractEventLoop, tell: Callable[[SupervisorEscalated], None]
) -> Callable[[SupervisorEscalated], None]:
    def tell_it(lost: SupervisorEscalated) -> None:
        with suppress(RuntimeError):  # the loop is closed, so no one waits
            loop.call_soon_threadsafe(tell, lost)

    return tell_it


async def _stopped(
    bridge: Bridge[Fund], ended: asyncio.Event, broken: BaseException | None
) -> None:
    """Stop the fund and wait for its end, also when cancelled.

    Raises: `FundClosed` when it had stopped by itself, unless the block is `broken` by an error,
    which is the one that its author must see.
    """
    if not bridge.ask_to_stop():
        return
    waiting = asyncio.ensure_future(asyncio.wait_for(ended.wait(), STOP_S))
    cancelled: asyncio.CancelledError | None = None
    while not waiting.done():
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError as error:
            cancelled = error
        except TimeoutError:
            break
    try:
        bridge.check_stopped(1.0 if ended.is_set() else 0.0)
    except FundClosed as closed:
        if broken is None:
            raise
        broken.add_note(f"{closed}: {closed.__cause__}")
    if cancelled is not None:
        raise cancelled


def _check_runs_on_asyncio() -> None:
    """Raises: `NeedsAsyncio`, before anything was started or a file was made."""
    loop = running_loop()
    if loop != "asyncio":
        instead = "use Fund on trio" if loop == "trio" else "use FundManager in synchronous code"
        raise NeedsAsyncio(f"AsyncioFund.open needs a running asyncio loop; {instead}")
