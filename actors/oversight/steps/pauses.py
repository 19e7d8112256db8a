"""The step `pauses`: the engine is told which strategies the guard has paused."""

from __future__ import annotations

from typing import ClassVar

from ...host import each
from ..round import Effects, Round
from .step import Step

__all__ = ["PausesStep"]

# The reason in a call that repeats a pause of an earlier tick.
_BEFORE = "its drawdown reached its limit"


class PausesStep(Step):
    """Tells the engine, again in each tick until it no longer reports the strategy running.

    The pauses are read from the guard's durable memory, so a restart forgets none.
    """

    name: ClassVar[str] = "pauses"

    async def run(self, tick: Round) -> Effects:
        """Tell the pauses that the engine does not obey. Raises: `HostFault`, after all of them."""
        acts, books = self.ports.host.acts, tick.memory.guard.strategies
        reasons = {pause.strategy: pause.reason for pause in tick.pauses}
        owed = [
            (name, reasons.get(name, _BEFORE))
            for name, state in ((status.name, status.state) for status in tick.statuses)
            if name in books
            and books[name].paused
            and (name in reasons or (tick.is_heard and state in ("pending", "running")))
        ]

        async def tell(name: str, reason: str) -> None:
            if not acts.latch.freezes(name):  # a frozen engine is not touched
                await acts.pause(name, reason)

        await each(tell, owed)
        return Effects()
