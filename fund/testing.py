"""For the tests of programs that embed fundops: a fund in virtual time and a scripted controller.

async with virtual_fund(ledger_enabled=True) as world:
    await world.fund.ledger.deposit(500)
    await world.advance(3600)
    assert world.sent_alerts() == []

assert check_controller(MyEngine(...)) == ()
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from fundops.config import FundConfig
from fundops.conformance import check_controller
from fundops.file.database import migrate_fund
from fundops.fund import Fund, started_title
from fundops.reader import open_reader
from fundops.runtime import InlineWorker, VirtualClock, Worker
from fundops.wire.alert import AlertRecord
from fundops.wire.controller import (
    CashEvent,
    FeedStatus,
    Fill,
    KillAction,
    Settlement,
    StopReport,
    StrategyStatus,
)
from fundops.wire.ledger import Statement
from fundops.wire.oversight import TickReport
from fundops.wire.paging import checked_limit

__all__ = ["FakeController", "VirtualFund", "check_controller", "virtual_fund"]

# 2026-01-05 00:00 UTC, a Monday.
START_US = 1_767_571_200_000_000


class FakeController:
    """A controller in memory with all optional parts.

    Set `statuses`; read `calls`; put an exception into `failures[name]` to make that call raise it.
    """

    def __init__(self, *statuses: StrategyStatus) -> None:
        self.statuses: dict[str, StrategyStatus] = {status.name: status for status in statuses}
        self.calls: list[tuple[Any, ...]] = []
        self.failures: dict[str, Exception] = {}
        self.open_orders = 0
        self.open_positions = 0
        self.protective_orders = 0
        self.alive_until_us: int | None = None  # as `keep_alive` said last
        self.feed_statuses: list[FeedStatus] = []
        self.fill_list: list[Fill] = []
        self.settlement_list: list[Settlement] = []
        self.cash_event_list: list[CashEvent] = []
        self.broker_statement: Statement | None = None

    def set(self, name: str, **changes: Any) -> None:
        """Change fields of one strategy's status; a new name begins as running."""
        before = self.statuses.get(name, StrategyStatus(name, "running"))
        self.statuses[name] = msgspec.structs.replace(before, **changes)

    def _called(self, call: str, *facts: Any) -> None:
        self.calls.append((call, *facts))
        if call in self.failures:
            raise self.failures[call]

    def strategies(self) -> list[StrategyStatus]:
        """The statuses that were set."""
        if "strategies" in self.failures:
            raise self.failures["strategies"]
        return list(self.statuses.values())

    def feeds(self) -> list[FeedStatus]:
        """The feeds in `feed_statuses`."""
        return list(self.feed_statuses)

    def fills(self, after: str) -> list[Fill]:
        """Fills with a cursor after this one; "" for all."""
        return [fill for fill in self.fill_list if not after or int(fill.cursor) > int(after)]

    def settlements(self, after: str) -> list[Settlement]:
        """Settlements with a cursor after this one; "" for all."""
        return [
            settlement
            for settlement in self.settlement_list
            if not after or int(settlement.cursor) > int(after)
        ]

    def cash_events(self, after: str) -> list[CashEvent]:
        """Cash events with a cursor after this one; "" for all."""
        return [
            event for event in self.cash_event_list if not after or int(event.cursor) > int(after)
        ]

    def statement(self) -> Statement | None:
        """The statement in `broker_statement`."""
        if "statement" in self.failures:
            raise self.failures["statement"]
        return self.broker_statement

    async def restart(self, name: str, *, attempt_id: str) -> None:
        """Note the call and set the strategy running."""
        self._called("restart", name, attempt_id)
        self.set(name, state="running", error=None)

    async def pause(self, name: str, reason: str) -> None:
        """Note the call and set the strategy paused."""
        self._called("pause", name, reason)
        self.set(name, state="paused")

    async def resume(self, name: str) -> None:
        """Note the call and set the strategy running."""
        self._called("resume", name)
        self.set(name, state="running")

    async def stop(self, name: str, reason: str) -> None:
        """Note the call and set the strategy stopped."""
        self._called("stop", name, reason)
        self.set(name, state="stopped")

    async def stop_all(
        self, reason: str, action: KillAction, strategies: Sequence[str]
    ) -> StopReport:
        """Note the call and report `open_orders`, `open_positions` and `protective_orders`, which
        are those of the strategies in scope.
        """
        self._called("stop_all", reason, action, tuple(strategies))
        if not strategies:
            return StopReport(0, 0)
        return StopReport(self.open_orders, self.open_positions, self.protective_orders)

    def emergency_stop(self) -> None:
        """Note the call."""
        self._called("emergency_stop")

    async def keep_alive(self, until_us: int) -> None:
        """Keep `alive_until_us`. It is called each tick, so it is not noted in `calls`."""
        if "keep_alive" in self.failures:
            raise self.failures["keep_alive"]
        self.alive_until_us = until_us

    async def set_stage(self, name: str, stage: str, capital_cap: Decimal | None) -> None:
        """Note the call and set the strategy's stage and capital cap."""
        self._called("set_stage", name, stage, capital_cap)
        self.set(name, stage=stage, capital_cap=capital_cap)


class VirtualFund:
    """A running fund with its controller and its clock."""

    def __init__(self, fund: Fund, controller: FakeController, clock: VirtualClock) -> None:
        self.fund = fund
        self.controller = controller
        self.clock = clock

    async def tick(self, session: dt.date | str | None = None) -> TickReport:
        """Run one tick and wait for the restarts that it began."""
        report = await self.fund.tick(session)
        await self.fund.host.acts.idle()
        return report

    async def advance(self, seconds: float, *, step_s: float = 60.0) -> None:
        """Let `seconds` pass in steps of `step_s`, with a tick after each."""
        left = seconds
        while left > 0:
            self.clock.advance(min(step_s, left))
            left -= step_s
            await self.fund.tick()
            await self.fund.host.acts.idle()

    def sent_alerts(self, limit: int = 1_000) -> list[AlertRecord]:
        """The alerts that passed the rate limits, oldest first, without those of a start."""
        with open_reader(self.fund.config.path) as reader:
            page = reader.recent_alerts(checked_limit(limit))
        return [
            alert
            for alert in reversed(page.alerts)
            if alert.outcome.value in ("QUEUED", "NO_CHANNEL")
            and alert.title != started_title(self.fund.config.name)
        ]


def _inline(name: str) -> Worker:
    return InlineWorker()


@cache
def _new_file() -> bytes:
    """A migrated database that no fund has opened. It is copied faster than it is migrated."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fund.db"
        migrate_fund(path)
        return path.read_bytes()


def _new_database(folder: Path) -> Path:
    path = folder / "fund.db"
    path.touch(mode=0o600)
    path.write_bytes(_new_file())
    return path


@asynccontextmanager
async def virtual_fund(
    controller: FakeController | None = None,
    *,
    clock: VirtualClock | None = None,
    transport: Any = None,
    **settings: Any,
) -> AsyncIterator[VirtualFund]:
    """A fund whose time moves only by `advance`, on a database that is deleted afterwards.

    `settings` are those of `FundConfig`. By default the capital is 100,000, the host drives the
    ticks, and there is no control socket, since its clients live in real time. Nothing runs in a
    thread, so it works under trio's MockClock.
    """
    fake, time = controller or FakeController(), clock or VirtualClock(START_US)
    with tempfile.TemporaryDirectory() as folder:
        defaults: dict[str, Any] = {
            "total_capital": 100_000,
            "tick_interval_s": None,
            "control_socket": False,
        }
        if "db_path" not in settings:
            defaults["db_path"] = _new_database(Path(folder))
        config = FundConfig(**{**defaults, **settings})
        async with Fund.open(
            config, fake, clock=time, transport=transport, make_worker=_inline, seed=0
        ) as fund:
            yield VirtualFund(fund, fake, time)
