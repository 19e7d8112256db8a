"""The fund as a whole: the host's reports, the right to trade, the tick, the actors' state."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeVar

import trio

from fundops.actors.guard import Leases
from fundops.config import FundConfig
from fundops.doors.door import ANSWER_DEADLINE_S
from fundops.doors.ledger import LedgerDoor
from fundops.reported import Reported
from fundops.runtime import ActorError, ChildStatus, Clock, Rejected, Request, Supervisor
from fundops.wire import border
from fundops.wire.alert import PendingDeliveries
from fundops.wire.controller import StopReport, StrategyStatus
from fundops.wire.guard import ConfirmCounters, Entitlement, ResumeStrategy, StopReported
from fundops.wire.oversight import (
    FundStatus,
    NavHistory,
    NavSample,
    ReadFundStatus,
    Tick,
    TickReport,
)
from fundops.wire.status import StatusPort

__all__ = ["FundDoor"]

R = TypeVar("R")

log = logging.getLogger("fundops")

TICK_DEADLINE_S = 120.0
FLUSH_POLL_S = 0.02


class FundDoor:
    """The methods of a running fund that belong to no single subsystem."""

    def __init__(
        self,
        config: FundConfig,
        supervisor: Supervisor,
        leases: Leases,
        clock: Clock,
        reported: Reported,
        ledger: LedgerDoor,
        channels: Sequence[str],
    ) -> None:
        self.config = config
        self.clock = clock
        self.ledger = ledger
        self._supervisor = supervisor
        self._leases = leases
        self._reported = reported
        self._channels = channels
        self._loop = trio.lowlevel.current_trio_token()
        self._last_day = _utc_day(clock)

    async def _ask(self, actor: str, request: Request[R]) -> R:
        return await self._supervisor.ref(actor).ask(request, timeout_s=ANSWER_DEADLINE_S)

    # -- the host's side: callable from any thread, without await

    def report(self, status: StrategyStatus) -> None:
        """Push one strategy's status; the newest one counts at the next tick, and ages from now.

        Raises: `ConfigError` naming the field that is wrong; the older status then stands.
        """
        self._reported.report(status)

    def report_stopped(self, report: StopReport) -> None:
        """Push what is still open under the kill switch, which confirms the stop when nothing is.

        Raises: `ConfigError` naming the count that is no whole number.
        """
        told = StopReported(border.stop_report(report))
        self._loop.run_sync_soon(self._tell_guard, told)

    def _tell_guard(self, told: StopReported) -> None:
        try:
            self._supervisor.ref("guard").tell_nowait(told)
        except ActorError as error:
            log.warning("a pushed StopReport was not heard: %s", error)

    def may_trade(self, name: str) -> bool:
        """Whether the strategy `name` may send real orders that add risk now."""
        return self._leases.may_trade(name)

    def may_close(self, name: str) -> bool:
        """Whether the strategy `name` may send real orders that only reduce its risk now.

        It never expires for a strategy that had real money.
        """
        return self._leases.may_close(name)

    def entitlement(self, name: str) -> Entitlement:
        """Stage, mode and capital of the strategy `name`, and the instant until which they hold."""
        return self._leases.entitlement(name)

    # -- the tick

    async def tick(self, session: str | None = None) -> TickReport:
        """Run one round of oversight; returns once its commits are durable.

        For hosts that drive time themselves. `session` names the session that this tick ends, as an
        ISO date; None: no session ends.
        """
        report = await self._supervisor.ref("oversight").ask(
            Tick(session), timeout_s=TICK_DEADLINE_S
        )
        if session is not None and self.config.ledger_enabled:
            await self._log_anchor()
        return report

    async def _log_anchor(self) -> None:
        """Log the newest entry's hash.

        Only a copy outside the file can betray a truncated journal.
        """
        try:
            newest = await self.ledger.recent_entries(1)
        except (Rejected, ActorError) as refusal:
            log.warning("the ledger's anchor is not known: %s", refusal)
        else:
            for entry in newest:
                log.info("ledger anchor %d %s", entry.seq, entry.hash)

    async def tick_now(self) -> TickReport:
        """Run a tick that also ends the UTC day if one has passed since the last `tick_now`."""
        today = _utc_day(self.clock)
        ended, self._last_day = self._last_day, today
        return await self.tick(ended if ended != today else None)

    async def status(self) -> FundStatus:
        """The fund's state as of its last tick."""
        return await self._ask("oversight", ReadFundStatus())

    async def nav_history(self, limit: int = 100) -> tuple[NavSample, ...]:
        """NAV and drawdown at the end of each session, newest first."""
        return await self._ask("oversight", NavHistory(limit))

    async def resume(self, strategy: str, *, by: str) -> bool:
        """Resume a strategy that the guard paused; False when it was not paused.

        `by` names the person who decides.
        """
        return await self._ask("guard", ResumeStrategy(strategy, by))

    async def confirm_counters(self, strategy: str, *, by: str, reason: str) -> bool:
        """Confirm that the engine's counters of a strategy restarted; False: that was not in doubt.

        Raises: `BadRequest` without a name and a reason.
        """
        return await self._ask("guard", ConfirmCounters(strategy, by, reason))

    # -- the actors

    def tree(self) -> tuple[ChildStatus, ...]:
        """The supervision tree at this instant."""
        return self._supervisor.tree()

    def drill(self, actor: str) -> None:
        """Crash one actor before its next message, to see it restart. Raises: `UnknownChild`."""
        self._supervisor.drill(actor)

    async def status_port(self) -> int:
        """The port of the status stream. Raises: `UnknownChild` when the configuration has none."""
        return await self._ask("status", StatusPort())

    async def flush_alerts(self, timeout_s: float) -> bool:
        """Wait until each stored alert was delivered or given up; False after `timeout_s`."""
        with trio.move_on_after(timeout_s):
            for name in self._channels:
                ref = self._supervisor.ref(f"channel.{name}")
                while await ref.ask(PendingDeliveries(), timeout_s=ANSWER_DEADLINE_S):  # noqa: ASYNC110  another task's
                    await trio.sleep(FLUSH_POLL_S)
            return True
        return False


def _utc_day(clock: Clock) -> str:
    return datetime.fromtimestamp(clock.now_us() // 1_000_000, UTC).date().isoformat()
