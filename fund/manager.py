"""FundManager: the same front door for hosts that are not async.

    fund = FundManager(FundConfig(total_capital=100_000, ledger_enabled=True))
    fund.start()
    fund.ledger.deposit("2500")
    fund.stop()

Every method of `Fund` and of its parts has the same name here, without await. Each may be called
from any thread and waits for its answer.
"""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from fundops.bridge import Bridge
from fundops.config import FundConfig
from fundops.doors import AlertDoor, KillSwitchDoor, LedgerDoor, PromotionDoor, RecoveryDoor
from fundops.errors import FundClosed
from fundops.fund import Fund
from fundops.runtime import ChildStatus, Clock
from fundops.wire.controller import Controller, StopReport, StrategyStatus
from fundops.wire.guard import Entitlement
from fundops.wire.oversight import FundStatus, NavSample, TickReport
from fundops.wire.persistence import StorageStatus
from fundops.wire.why import Why

__all__ = ["FundManager", "SyncDoor"]

_PARTS: Final[dict[str, type]] = {
    "ledger": LedgerDoor,
    "promotion": PromotionDoor,
    "alerts": AlertDoor,
    "recovery": RecoveryDoor,
    "kill_switch": KillSwitchDoor,
}


class SyncDoor:
    """One part of the fund, with its coroutines as plain calls under the same names."""

    def __init__(self, bridge: Bridge[Fund], part: str) -> None:
        self._bridge = bridge
        self._part = part

    def __dir__(self) -> list[str]:
        return [name for name in dir(_PARTS[self._part]) if not name.startswith("_")]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        kind, part, bridge = _PARTS[self._part], self._part, self._bridge
        method = getattr(kind, name, None) if not name.startswith("_") else None
        if method is None:
            raise AttributeError(f"fund.{part} has no {name!r}; it offers {', '.join(dir(self))}")

        def call(*args: Any, **kwargs: Any) -> Any:
            if not inspect.iscoroutinefunction(method):
                return getattr(getattr(bridge.get(), part), name)(*args, **kwargs)

            async def run(fund: Fund) -> Any:
                return await getattr(getattr(fund, part), name)(*args, **kwargs)

            return bridge.call(run)

        call.__name__, call.__doc__ = name, method.__doc__
        call.__signature__ = _without_self(method)  # type: ignore[attr-defined]
        return call


def _without_self(method: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(method)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


class FundManager:
    """A fund in a dedicated thread. As a context manager it starts and stops the fund."""

    def __init__(
        self,
        config: FundConfig,
        controller: Controller | None = None,
        *,
        clock: Clock | None = None,
        transport: Any = None,
    ) -> None:
        # Located now: `start` may come after a change of the working folder.
        self.config = config = config.located()
        self._bridge: Bridge[Fund] = Bridge(
            lambda: Fund.open(config, controller, clock=clock, transport=transport)
        )
        self._last: Fund | None = None  # the fund of the last start, for what outlives it
        self.ledger = SyncDoor(self._bridge, "ledger")
        self.promotion = SyncDoor(self._bridge, "promotion")
        self.alerts = SyncDoor(self._bridge, "alerts")
        self.recovery = SyncDoor(self._bridge, "recovery")
        self.kill_switch = SyncDoor(self._bridge, "kill_switch")

    def start(self) -> None:
        """Start the fund; returns once all actors run.

        Raises: `DatabaseInUse`, `DatabaseError`, `ConfigError`.
        """
        self._bridge.start()
        self._last = self._bridge.get()

    def stop(self, timeout_s: float = 30) -> None:
        """Stop the fund in order. Idempotent.

        Raises: `FundClosed` if the fund had stopped by itself; TimeoutError after `timeout_s`.
        """
        self._bridge.stop(timeout_s)

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

    @property
    def running(self) -> bool:
        """Whether the fund runs."""
        return self._bridge.running

    # -- any thread, no waiting

    def report(self, status: StrategyStatus) -> None:
        """Push one strategy's status; the newest one counts at the next tick, and ages from now.

        Raises: `ConfigError` naming the field that is wrong.
        """
        self._bridge.get().report(status)

    def report_stopped(self, report: StopReport) -> None:
        """Push what is still open under the kill switch, which confirms the stop when nothing is.

        Raises: `ConfigError` naming the count that is no whole number.
        """
        self._bridge.get().report_stopped(report)

    def may_trade(self, name: str) -> bool:
        """Whether the strategy `name` may send real orders that add risk now; False when no fund
        runs.
        """
        return self._bridge.running and self._bridge.get().may_trade(name)

    def may_close(self, name: str) -> bool:
        """Whether the strategy `name` may send real orders that only reduce its risk now.

        It does not expire with the fund: what had real money may close after the fund has stopped.
        False before the first start, and in a forked child.
        """
        if self._last is None or self._bridge.inherited:
            return False
        return self._last.may_close(name)

    def entitlement(self, name: str) -> Entitlement:
        """Stage, mode and capital of the strategy `name`, and the instant until which they hold.

        After the fund has stopped it tells what may still be closed.

        Raises: `FundNotRunning` before the first start, and in a forked child.
        """
        if self._last is None or self._bridge.inherited:
            return self._bridge.get().entitlement(name)
        return self._last.entitlement(name)

    def tree(self) -> tuple[ChildStatus, ...]:
        """The supervision tree at this instant."""

        async def run(fund: Fund) -> tuple[ChildStatus, ...]:
            return fund.tree()

        return self._bridge.call(run)

    def drill(self, actor: str) -> None:
        """Crash one actor before its next message, to see it restart. Raises: `UnknownChild`."""

        async def run(fund: Fund) -> None:
            fund.drill(actor)

        self._bridge.call(run)

    # -- the fund as a whole

    def tick(self, session: dt.date | str | None = None) -> TickReport:
        """Run one round of oversight; returns once its commits are durable.

        It also ends the sessions of the configured calendar that are over. A host that keeps the
        calendar itself names with `session` the one that this tick ends, as an ISO date; the first
        name switches the configured calendar off.

        Raises: `ConfigError` when `session` is no ISO date.
        """
        return self._bridge.call(lambda fund: fund.tick(session))

    def confirm_clock(self, *, by: str, reason: str) -> bool:
        """Take the wall clock as right after a jump; False when it was not suspect.

        Raises: `ConfigError` for an empty `by` or `reason`.
        """
        return self._bridge.call(lambda fund: fund.confirm_clock(by=by, reason=reason))

    def status(self) -> FundStatus:
        """The fund's state as of its last tick."""
        return self._bridge.call(lambda fund: fund.status())

    def storage(self) -> StorageStatus:
        """Whether the database can be written, the size of its log in bytes, and counters."""
        return self._bridge.call(lambda fund: fund.storage())

    def nav_history(self, limit: int = 100) -> tuple[NavSample, ...]:
        """NAV and drawdown at the end of each session, newest first."""
        return self._bridge.call(lambda fund: fund.nav_history(limit))

    def why(self, name: str) -> Why:
        """Every blocker between a strategy and real orders, each with the command that lifts it."""
        return self._bridge.call(lambda fund: fund.why(name))

    def pause(self, name: str, *, by: str, reason: str) -> bool:
        """Pause a strategy until a person resumes it; False: a person has paused it already.

        Raises: `BadRequest` without a name and a reason; `UnknownStrategy`.
        """
        return self._bridge.call(lambda fund: fund.pause(name, by=by, reason=reason))

    def resume(self, name: str, *, by: str, reason: str) -> bool:
        """Resume a strategy that a person or the guard paused; False when it was not paused.

        Raises: `BadRequest` without a name and a reason; `KillSwitchEngaged`; `HostFault`.
        """
        return self._bridge.call(lambda fund: fund.resume(name, by=by, reason=reason))

    def confirm_counters(self, strategy: str, *, by: str, reason: str) -> bool:
        """Confirm that the engine's counters of a strategy restarted; False: that was not in doubt.

        Raises: `BadRequest` without a name and a reason.
        """
        return self._bridge.call(lambda fund: fund.confirm_counters(strategy, by=by, reason=reason))

    def status_port(self) -> int:
        """The port of the status stream. Raises: `UnknownChild` when the configuration has none."""
        return self._bridge.call(lambda fund: fund.status_port())

    @property
    def status_token(self) -> str:
        """The token that clients of the status stream must show; "" when none is needed."""
        return self._bridge.get().status_token

    def flush_alerts(self, timeout_s: float) -> bool:
        """Wait until each stored alert was delivered or given up; False after `timeout_s`."""
        return self._bridge.call(lambda fund: fund.flush_alerts(timeout_s))
