"""The step `minutes`: NAV is noted once a minute."""

from __future__ import annotations

from typing import ClassVar

from ....wire.money import from_minor
from ....wire.oversight import NavSample
from ..round import Effects, Round, nav_minor
from .step import Step

__all__ = ["MinutesStep"]

_MINUTE_US = 60_000_000


class MinutesStep(Step):
    """Takes the figures of the first tick in each minute. They wait for a commit of other facts."""

    name: ClassVar[str] = "minutes"
    deadline_s: ClassVar[float | None] = None

    def is_due(self, tick: Round) -> bool:
        """Whether a minute has begun since the last sample; a wrong clock names no minute."""
        newest_us = tick.minutes[-1].at_us if tick.minutes else tick.minute_us
        return not tick.suspect and tick.now_us // _MINUTE_US > newest_us // _MINUTE_US

    async def run(self, tick: Round) -> Effects:
        """Note NAV and drawdown."""
        nav = from_minor(nav_minor(tick, self.ports.capital_minor))
        guard, session = tick.memory.guard, tick.memory.session
        sample = NavSample(tick.now_us, session, nav, guard.drawdown)
        return Effects(minutes=(sample,), minute_us=tick.now_us)
