"""The recovery door: failures, restarts, and the circuit breakers."""

from __future__ import annotations

import msgspec

from fundops.actors.host import Host
from fundops.doors.door import Door
from fundops.runtime import Ref
from fundops.wire.recovery import (
    BreakerReset,
    CheckFeeds,
    CheckStrategies,
    EventHistory,
    HoldStrategy,
    RecoveryEvent,
    RecoveryStats,
    RecoveryStatus,
    RecoveryStatuses,
    ReleaseStrategy,
)

__all__ = ["RecoveryDoor"]


class RecoveryDoor(Door):
    """Failures, attempts to restart, and a person's control of the circuit breakers.

    `by` names the person who decides.
    """

    def __init__(self, ref: Ref | None, host: Host) -> None:
        super().__init__("recovery", "self_healing_enabled=True", ref)
        self._host = host

    async def check_strategies(self) -> tuple[RecoveryEvent, ...]:
        """Check all strategies now instead of at the next tick. Raises: `HostFault`."""
        return await self._ask(CheckStrategies(await self._host.strategies_now()))

    async def check_feeds(self) -> tuple[RecoveryEvent, ...]:
        """Check all data feeds now instead of at the next tick. Raises: `HostFault`."""
        return await self._ask(CheckFeeds(await self._host.feeds.now()))

    async def reset(self, name: str, *, by: str = "operator") -> bool:
        """Close an open breaker; False when it was not open.

        Raises: `UnmanagedStrategy`, which is a KeyError; `BadRequest` for a `by` that is no name.
        """
        return await self._ask(BreakerReset(name, by))

    async def hold(self, name: str, *, by: str = "operator") -> bool:
        """Restart the strategy no more until `release`; False when it is held already.

        Any `by` is accepted: it is made to fit.
        """
        return await self._ask(HoldStrategy(name, by))

    async def release(self, name: str, *, by: str = "operator") -> bool:
        """Allow restarts again; False when the strategy was not held.

        Raises: `UnmanagedStrategy`; `BadRequest` for a `by` that is no name.
        """
        return await self._ask(ReleaseStrategy(name, by))

    async def statuses(self) -> tuple[RecoveryStatus, ...]:
        """The state of recovery of every strategy."""
        return await self._ask(RecoveryStatuses())

    async def event_history(self, limit: int = 20) -> list[RecoveryEvent]:
        """The newest events, newest first."""
        events = await self._ask(EventHistory(limit))
        return list(events)

    async def stats(self) -> dict[str, int]:
        """Counts by name.

        total_attempts = successes + failures; circuit_breakers_open is a gauge.
        """
        statistics = await self._ask(RecoveryStats())
        return msgspec.structs.asdict(statistics)
