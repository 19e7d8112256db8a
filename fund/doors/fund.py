"""The fund as a whole: the host's reports, the right to trade, the tick, the actors' state."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import trio
from msgspec import UNSET, UnsetType

from fundops.actors.guard import Leases
from fundops.actors.host import Heard, Host
from fundops.actors.persistence import backup as copy_database
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
from fundops.why import Facts, HostFacts, close_names, why_of
from fundops.wire import border
from fundops.wire.alert import PendingDeliveries
from fundops.wire.controller import StopReport, StrategyStatus
from fundops.wire.errors import UnknownStrategy
from fundops.wire.guard import ConfirmCounters, Entitlement, PauseStrategy, StopReported
from fundops.wire.oversight import (
    AttributePnl,
    ConfirmClock,
    FundStatus,
    NavHistory,
    NavSample,
    PnlAttribution,
    ReadFundStatus,
    ResumeStrategy,
    Tick,
    TickReport,
)
from fundops.wire.persistence import StorageStatistics, StorageStatus
from fundops.wire.promotion import (
    PromotionHistory,
    PromotionSnapshot,
    ReadSnapshot,
    ReadTerms,
)
from fundops.wire.recovery import RecoveryStatus, RecoveryStatuses
from fundops.wire.status import StatusPort
from fundops.wire.why import Why

__all__ = ["FundDoor"]

R = TypeVar("R")

log = logging.getLogger("fundops")

TICK_DEADLINE_S = 120.0
FLUSH_POLL_S = 0.02
# A person waits for `why`, and a part that is busy for longer is named in the answer.
WHY_DEADLINE_S = 2.0
# Changes of promotion whose names are compared with an unknown one.
NAMES_LOOKED_AT = 1_000
# Names compared between two checkpoints: about 0.4 ms.
NAMES_AT_ONCE = 20


class FundDoor:
    """The methods of a running fund that belong to no single subsystem."""

    def __init__(
        self,
        config: FundConfig,
        supervisor: Supervisor,
        host: Host,
        leases: Leases,
        clock: Clock,
        reported: Reported,
        ledger: LedgerDoor,
        channels: Sequence[str],
    ) -> None:
        self.config = config
        self.clock = clock
        self.ledger = ledger
        self.host = host
        self._supervisor = supervisor
        self._leases = leases
        self._reported = reported
        self._channels = channels
        self._loop = trio.lowlevel.current_trio_token()

    async def _ask(
        self, actor: str, request: Request[R], timeout_s: float = ANSWER_DEADLINE_S
    ) -> R:
        return await self._supervisor.ref(actor).ask(inert(request), timeout_s=timeout_s)

    # -- the host's side: callable from any thread, without await

    def report(self, status: StrategyStatus) -> None:
        """Push one strategy's status; the newest one counts at the next tick, and ages from now.

        Beside a controller with `strategies()` none counts, and one WARNING says so.

        Raises: `ConfigError` naming the field that is wrong; the older status then stands.
        """
        self._reported.report(status)

    def report_feed(
        self, name: str, at_us: int | None = None, stale_after_s: float | UnsetType | None = UNSET
    ) -> None:
        """Push the instant of a feed's newest data; None: now.

        `stale_after_s` UNSET: the setting `stale_feed_s`; None: it brings rare events, and is never
        stale.

        Raises: `ConfigError` naming the field that is wrong; the older word then stands.
        """
        self._reported.report_feed(name, at_us, stale_after_s)

    def report_stopped(self, report: StopReport) -> None:
        """Push the open orders and positions under the kill switch; none of them confirms the stop.

        Raises: `ConfigError` naming the count that is no whole number.
        """
        told = StopReported(border.stop_report(report), self._leases.latch.engagements)
        self._reported.speak()
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
        suspect. `by` names a person.

        Raises: `BadRequest` without a name and a reason.
        """
        request = ConfirmClock(border.given(by, "by"), border.reason(reason))
        return await self._ask("oversight", request)

    async def status(self) -> FundStatus:
        """The fund's state as of its last tick."""
        return await self._ask("oversight", ReadFundStatus())

    async def storage(self) -> StorageStatus:
        """Whether the database can be written, the size of its log in bytes, and counters."""
        return await self._ask("persistence", StorageStatistics())

    async def nav_history(
        self, limit: int = 100, every: Literal["session", "minute"] = "session"
    ) -> tuple[NavSample, ...]:
        """NAV and drawdown at the end of each session or of each minute, newest first.

        Sessions are kept without end, minutes for a month.

        Raises: `ConfigError` for another `every`.
        """
        return await self._ask("oversight", NavHistory(limit, every))

    async def pnl_attribution(self) -> PnlAttribution:
        """The fund's P&L by its sources: each strategy, the ledger, the fund's fees."""
        return await self._ask("oversight", AttributePnl())

    async def why(self, name: str) -> Why:
        """Every blocker between a strategy and real orders, each with the command that lifts it.

        They are in the order of `fundops.wire.why.BlockerKind`. Each fact is read at this moment
        where it lives; a part of the fund that does not answer within 2 s is named in `notes`. An
        unknown name is a blocker too, with similar names.

        Raises: `ConfigError` when `name` is no name.
        """
        name = border.name(name, "name")
        notes: list[str] = []
        snapshot = await self._snapshot(name, notes)
        if snapshot is not None:
            name = snapshot.name  # it may be the strategy's id
        by_recovery = await self._recovery_statuses(notes)
        heard = self.host.heard()
        reported = {status.name: status for status in heard.statuses}
        status = reported.get(name)
        recovery = next((known for known in by_recovery if known.name == name), None)
        known = (
            snapshot is not None
            or recovery is not None
            or name in reported
            or name in heard.doubts
            or self._leases.knows(name)
        )
        close: tuple[str, ...] = ()
        if not known:
            names = {*self._leases.names(), *reported, *heard.doubts}
            names |= {other.name for other in by_recovery} | await self._registered_names(notes)
            close = await _close_names(name, names)
        config, lapsed = self.config, heard.lapsed.get(name, "")
        # No await from here on, so that all of it is of one moment.
        return why_of(
            Facts(
                name,
                self.clock.now_us(),
                self._leases.entitlement(name),
                self._leases.reasons(name),
                self._leases.latch.status,
                HostFacts(
                    None if status is None else status.state,
                    heard.silent,
                    heard.age_s,
                    _is_pushed(heard, self.host),
                    config.tick_interval_s is None,
                    "" if status is None else status.error or "",
                    heard.doubts.get(name, ""),
                    lapsed,
                ),
                snapshot,
                config.promotion_every_ticks,
                recovery,
                config.self_healing_enabled,
                known,
                close,
                notes,
            )
        )

    async def _snapshot(self, name: str, notes: list[str]) -> PromotionSnapshot | None:
        """The strategy as promotion knows it; None: it does not, it is off or does not answer."""
        if not self.config.promotion_enabled:
            return None
        try:
            return await self._ask("promotion", ReadSnapshot(name), WHY_DEADLINE_S)
        except UnknownStrategy:
            return None
        except (Rejected, ActorError) as problem:
            notes.append(f"promotion does not answer: {problem}")
            return None

    async def _recovery_statuses(self, notes: list[str]) -> tuple[RecoveryStatus, ...]:
        if not self.config.self_healing_enabled:
            return ()
        try:
            return await self._ask("recovery", RecoveryStatuses(), WHY_DEADLINE_S)
        except (Rejected, ActorError) as problem:
            notes.append(f"recovery does not answer: {problem}")
            return ()

    async def _registered_names(self, notes: list[str]) -> set[str]:
        """Names of strategies that promotion has changed lately."""
        if not self.config.promotion_enabled or notes:
            return set()
        try:
            request = PromotionHistory(None, NAMES_LOOKED_AT)
            changes = await self._ask("promotion", request, WHY_DEADLINE_S)
        except (Rejected, ActorError) as problem:
            notes.append(f"promotion does not answer: {problem}")
            return set()
        return {change.strategy for change in changes}

    async def pause(self, name: str, *, by: str, reason: str) -> bool:
        """Pause a strategy until a person resumes it; False: a person has paused it already.

        Its lease ends before this returns: only orders that reduce its positions are allowed. The
        engine is told by a task, and the database afterwards. No promotion and no demotion ends
        the pause, and it survives a restart. It works without real money too.

        Raises: `BadRequest` without a name and a reason; `UnknownStrategy`; `ConfigError` when
            `name` is no name.
        """
        name = border.name(name, "name")
        heard = self.host.heard()
        known = name in heard.doubts or any(status.name == name for status in heard.statuses)
        try:
            return await self._ask("guard", PauseStrategy(name, by, reason, known))
        except UnknownStrategy:
            if not self.config.promotion_enabled:
                raise
        # Registered, and not reported yet.
        terms = await self._ask("promotion", ReadTerms(name))
        return await self._ask("guard", PauseStrategy(terms.name, by, reason, known=True))

    async def resume(self, name: str, *, by: str, reason: str) -> bool:
        """Resume a strategy that a person or the guard paused; False when it was not paused.

        The engine is asked first. The next tick gives the lease.

        Raises: `BadRequest` without a name and a reason; `KillSwitchEngaged`; `HostFault` when the
            engine does not resume it. It then stays paused.
        """
        name = border.name(name, "name")
        request = ResumeStrategy(name, border.given(by, "by"), border.reason(reason))
        return await self._ask("oversight", request)

    async def confirm_counters(self, strategy: str, *, by: str, reason: str) -> bool:
        """Confirm that the engine's counters of a strategy restarted; False: that was not in doubt.

        Raises: `BadRequest` without a name and a reason; `ConfigError` for a strategy that is none.
        """
        name = border.name(strategy, "strategy")
        return await self._ask("guard", ConfirmCounters(name, by, reason))

    async def backup(self, target: str) -> dict[str, str | int]:
        """Copy the database as it is now to the new file `target`; writing goes on meanwhile.

        Raises: `ConfigError` when `target` is no absolute path; `DatabaseError`; OSError.
        """
        try:
            path = Path(target)
        except TypeError:
            raise ConfigError("target", f"{shown(target)} is not the path of a file") from None
        if not path.is_absolute():
            problem = f"{target!r} is not absolute, and this fund may run in another folder"
            raise ConfigError("target", problem)
        copied = await trio.to_thread.run_sync(copy_database, self.config.path, path)
        return {"target": str(path), "schema": copied.schema, "size_bytes": copied.size_bytes}

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


def _is_pushed(heard: Heard, host: Host) -> bool:
    """Whether the host pushes its state: it was never asked, or has no part to ask."""
    return not heard.listed and host.problem is None


async def _close_names(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """Similar names, found in pieces, since a comparison of thousands takes too long at once."""
    ordered, found = sorted(names), list[str]()
    for start in range(0, len(ordered), NAMES_AT_ONCE):
        found += close_names(name, ordered[start : start + NAMES_AT_ONCE])
        await trio.lowlevel.checkpoint()
    return close_names(name, found)
