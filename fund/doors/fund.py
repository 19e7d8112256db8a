"""The fund as a whole: the host's reports, the right to trade, the tick, the actors' state."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from typing import TypeVar

import trio

from fundops.actors.guard import Leases
from fundops.config import FundConfig
from fundops.doors.door import ANSWER_DEADLINE_S
from fundops.doors.inert import inert
from fundops.doors.ledger import LedgerDoor
from fundops.moments import day_of
from fundops.reported import Reported
from fundops.runtime import (
    ActorError,
    ChildStatus,
    Clock,
    ConfigError,
    Rejected,
    Request,
    Supervisor,
    shown,
)
from fundops.wire import border
from fundops.wire.alert import PendingDeliveries
from fundops.wire.controller import StopReport, StrategyStatus
from fundops.wire.foreign import plain_text
from fundops.wire.guard import ConfirmCounters, Entitlement, StopReported
from fundops.wire.oversight import (
    ConfirmClock,
    FundStatus,
    NavHistory,
    NavSample,
    ReadFundStatus,
    ResumeStrategy,
    Tick,
    TickReport,
)
from fundops.wire.persistence import StorageStatistics, StorageStatus
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

    async def _ask(self, actor: str, request: Request[R]) -> R:
        return await self._supervisor.ref(actor).ask(inert(request), timeout_s=ANSWER_DEADLINE_S)

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

    async def tick(self, session: dt.date | str | None = None) -> TickReport:
        """Run one round of oversight; returns once its commits are durable.

        It also ends the sessions of the configured calendar that are over. A host that keeps the
        calendar itself names with `session` the one that this tick ends, as an ISO date; the first
        name switches the configured calendar off. No session ends twice, and none before one that
        has ended.

        Raises: `ConfigError` when `session` is no ISO date.
        """
        named = None if session is None else day_of("session", session)
        report = await self._supervisor.ref("oversight").ask(Tick(named), timeout_s=TICK_DEADLINE_S)
        if report.sessions and self.config.ledger_enabled:
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

    async def confirm_clock(self, *, by: str, reason: str) -> bool:
        """Take the wall clock as right after a jump (`FundStatus.clock_suspect`).

        Sessions, fees and promotions go on from its time at the next tick. False when it was not
        suspect. `by` names the person who has looked.

        Raises: `ConfigError` for an empty `by` or `reason`.
        """
        for field, text in (("by", by), ("reason", reason)):
            if not (plain_text(text) or "").strip():
                raise ConfigError(field, f"{shown(text)} says nothing; a person confirms a clock")
        return await self._ask("oversight", ConfirmClock(by, reason))

    async def status(self) -> FundStatus:
        """The fund's state as of its last tick."""
        return await self._ask("oversight", ReadFundStatus())

    async def storage(self) -> StorageStatus:
        """Whether the database can be written, the size of its log in bytes, and counters."""
        return await self._ask("persistence", StorageStatistics())

    async def nav_history(self, limit: int = 100) -> tuple[NavSample, ...]:
        """NAV and drawdown at the end of each session, newest first."""
        return await self._ask("oversight", NavHistory(limit))

    async def resume(self, strategy: str, *, by: str) -> bool:
        """Resume a strategy that the guard paused; False when it was not paused.

        `by` names the person who decides.

        Raises: `BadRequest` without a name; `ConfigError` for a strategy that is none; `HostFault`
        when the engine did not do it, and under the kill switch. The strategy then stays paused.
        """
        name = border.name(strategy, "strategy")
        return await self._ask("oversight", ResumeStrategy(name, border.given(by, "by")))

    async def confirm_counters(self, strategy: str, *, by: str, reason: str) -> bool:
        """Confirm that the engine's counters of a strategy restarted; False: that was not in doubt.

        Raises: `BadRequest` without a name and a reason; `ConfigError` for a strategy that is none.
        """
        name = border.name(strategy, "strategy")
        return await self._ask("guard", ConfirmCounters(name, by, reason))

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
