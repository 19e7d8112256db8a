"""FundManager: the same front door for hosts that are not async.

    fund = FundManager(FundConfig(total_capital=100_000, ledger_enabled=True))
    fund.ledger.deposit("2500")
    fund.stop()

Every method of `Fund` and of its parts has the same name here, without await. Each may be called
from any thread and waits for its answer. The first call starts the fund, unless `start` did.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Awaitable, Callable
from signal import Signals
from types import TracebackType
from typing import Any

from fundops.actors.host import ThreadPlace
from fundops.bridge import Bridge, running_loop
from fundops.config import FundConfig
from fundops.errors import FundClosed
from fundops.faces import (
    SyncAlerts,
    SyncKillSwitch,
    SyncLedger,
    SyncPromotion,
    SyncRecovery,
    SyncVerbs,
)
from fundops.fund import Fund
from fundops.hosted import Hosted
from fundops.runtime import Clock, SupervisorEscalated
from fundops.signals import signal_here
from fundops.wire.controller import Controller

__all__ = ["FundManager"]


class FundManager(Hosted, SyncVerbs):
    """A fund in a dedicated thread. As a context manager it starts and stops the fund."""

    def __init__(
        self,
        config: FundConfig,
        controller: Controller | None = None,
        *,
        clock: Clock | None = None,
        transport: Any = None,
        on_fund_lost: Callable[[SupervisorEscalated], None] | None = None,
    ) -> None:
        """`on_fund_lost` is called in the fund's thread, as `Fund.open` describes it."""
        # Located now: `start` may come after a change of the working folder.
        config = FundConfig.checked(config)
        bridge: Bridge[Fund] = Bridge(
            lambda: Fund.open(
                config,
                controller,
                clock=clock,
                transport=transport,
                place=ThreadPlace(),
                on_fund_lost=on_fund_lost,
            )
        )
        Hosted.__init__(self, config, bridge)
        SyncVerbs.__init__(self, self)
        self.ledger = SyncLedger(self)
        self.promotion = SyncPromotion(self)
        self.alerts = SyncAlerts(self)
        self.recovery = SyncRecovery(self)
        self.kill_switch = SyncKillSwitch(self)
        self._starting = threading.Lock()
        self._warned = False  # that a call blocks an event loop

    def start(self) -> None:
        """Start the fund; returns once all actors run. Idempotent.

        Raises: `DatabaseInUse`, `DatabaseError`, `ConfigError`.
        """
        with self._starting:
            self._bridge.start()
            self._last = self._bridge.get()

    def stop(self, timeout_s: float = 30) -> None:
        """Stop the fund in order. Idempotent.

        Raises: `FundClosed` if the fund had stopped by itself; TimeoutError after `timeout_s`.
        """
        self._bridge.stop(timeout_s)

    def run_until_signal(self) -> Signals:
        """Run the fund until SIGTERM or SIGINT, stop it in order, and return that signal.

        A second signal ends the program at once. To be called in the main thread.

        Raises: as `start` and `stop`; `FundClosed` when the fund stopped by itself.
        """
        self.start()
        heard = signal_here(self.now)
        self.stop()
        return heard

    def __enter__(self) -> FundManager:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except FundClosed as closed:
            if error is None:
                raise
            # The error of the block is the one that its author must see.
            error.add_note(f"{closed}: {closed.__cause__}")

    def wait(self, verb: str, function: Callable[[Fund], Awaitable[Any]]) -> Any:
        """Run a function of the fund in its thread and wait for its answer.

        `verb` names it in the warning that a call from a running event loop gives, once.

        Raises: `FundNotRunning` after `stop`, `FundClosed`, and the errors of `function`.
        """
        if not self._warned and running_loop() == "asyncio":
            self._warned = True
            warnings.warn(
                f"FundManager.{verb.removeprefix('fund.')} blocks the event loop that runs here;"
                " AsyncioFund does not",
                RuntimeWarning,
                stacklevel=3,
            )
        if self._last is None and not self._bridge.inherited:
            self.start()
        return self._bridge.call(function)
