"""The pauses that the guard ordered, and that the engine has not been told yet."""

from __future__ import annotations

from collections.abc import Sequence

from ...wire.guard import GuardState, Pause
from ..host import Host

__all__ = ["Pauses"]


class Pauses:
    """Tells the engine, again in each tick until it has heard."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._owed: dict[str, str] = {}  # strategies, and why

    async def tell(self, fresh: Sequence[Pause], guard: GuardState) -> None:
        """Pause these and those still owed. Raises: `HostFault`, after all were told."""
        self._owed |= {pause.strategy: pause.reason for pause in fresh}

        async def tell(name: str, reason: str) -> None:
            latch = self._host.latch
            if latch.engaged and latch.status.action == "freeze":
                return  # the engine must touch nothing; the pauses stay owed
            if guard.strategies[name].paused:
                await self._host.pause(name, reason)
            del self._owed[name]

        await self._host.each(tell, tuple(self._owed.items()))
