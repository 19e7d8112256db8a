"""The step `pauses`: the engine is told which strategies the guard has paused."""

from __future__ import annotations

from typing import ClassVar

from ..round import Effects, Round
from .step import Ports, Step

__all__ = ["PausesStep"]


class PausesStep(Step):
    """Tells the engine, again in each tick until it has heard."""

    name: ClassVar[str] = "pauses"

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports)
        self._owed: dict[str, str] = {}  # strategies, and why

    async def run(self, tick: Round) -> Effects:
        """Tell the new pauses and those still owed. Raises: `HostFault`, after all were told."""
        self._owed |= {pause.strategy: pause.reason for pause in tick.pauses}
        host, books = self.ports.host, tick.memory.guard.strategies

        async def tell(name: str, reason: str) -> None:
            if host.latch.freezes(name):
                return  # the pause stays owed
            if books[name].paused:
                await host.pause(name, reason)
            del self._owed[name]

        await host.each(tell, tuple(self._owed.items()))
        return Effects()
