"""The half that FundManager and AsyncioFund share: a fund in another thread.

Its methods may be called from any thread and wait for nothing but, at most, one turn of the fund's
loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from msgspec import UNSET, UnsetType

from fundops.bridge import Bridge
from fundops.config import FundConfig
from fundops.fund import Fund
from fundops.runtime import ChildStatus
from fundops.wire.controller import StopReport, StrategyStatus
from fundops.wire.guard import Entitlement

__all__ = ["Hosted"]

T = TypeVar("T")


class Hosted:
    """A fund in another thread."""

    def __init__(self, config: FundConfig, bridge: Bridge[Fund]) -> None:
        self.config = config
        self._bridge = bridge
        self._last: Fund | None = None  # the fund of the last start, for what outlives it

    def now(self) -> Fund:
        """The running fund, for what may be called in any thread.

        Raises: `FundNotRunning`, `FundClosed`.
        """
        return self._bridge.get()

    @property
    def running(self) -> bool:
        """Whether the fund runs."""
        return self._bridge.running

    @property
    def status_token(self) -> str:
        """The token that clients of the status stream must show; "" when none is needed."""
        return self.now().status_token

    # -- the host's side: any thread, no waiting

    def report(self, status: StrategyStatus) -> None:
        """Push one strategy's status; the newest one counts at the next tick, and ages from now.

        Beside a controller with `strategies()` none counts, and one WARNING says so.

        Raises: `ConfigError` naming the field that is wrong; the older status then stands.
        """
        self.now().report(status)

    def report_stopped(self, report: StopReport) -> None:
        """Push the open orders and positions under the kill switch; none of them confirms the stop.

        Raises: `ConfigError` naming the count that is no whole number.
        """
        self.now().report_stopped(report)

    def report_feed(
        self, name: str, at_us: int | None = None, stale_after_s: float | UnsetType | None = UNSET
    ) -> None:
        """Push the instant of a feed's newest data; None: now.

        `stale_after_s` UNSET: the setting `stale_feed_s`; None: it brings rare events, and is never
        stale.

        Raises: `ConfigError` naming the field that is wrong; the older word then stands.
        """
        self.now().report_feed(name, at_us, stale_after_s)

    def may_trade(self, name: str) -> bool:
        """Whether the strategy `name` may send real orders that add risk now.

        False when no fund runs.
        """
        return self._bridge.running and self.now().may_trade(name)

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
            return self.now().entitlement(name)
        return self._last.entitlement(name)

    # -- the actors: one turn of the fund's loop

    def tree(self) -> tuple[ChildStatus, ...]:
        """The supervision tree at this instant."""
        return self._bridge.call(_inline(lambda fund: fund.tree()))

    def drill(self, actor: str) -> None:
        """Crash one actor before its next message, to see it restart. Raises: `UnknownChild`."""
        self._bridge.call(_inline(lambda fund: fund.drill(actor)))


def _inline(function: Callable[[Fund], T]) -> Callable[[Fund], Awaitable[T]]:
    async def run(fund: Any) -> T:
        return function(fund)

    return run
