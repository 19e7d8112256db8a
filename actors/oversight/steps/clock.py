"""The step `clock`: a wall clock that jumped is told, until it is right or a person confirms it."""

from __future__ import annotations

import logging
from typing import ClassVar

from ....wire.alert import AlertDraft, Category, Level, resolved
from ..round import Effects, Round
from .step import Ports, Step

__all__ = ["ClockStep"]

log = logging.getLogger("fundops.oversight")

_KEY = "clock_jump"


class ClockStep(Step):
    """Compares the wall clock with the monotonic one."""

    name: ClassVar[str] = "clock"
    deadline_s: ClassVar[float | None] = None

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports)
        self._told = _KEY in ports.told(_KEY)

    async def run(self, tick: Round) -> Effects:
        """Find whether the wall clock can be believed in this tick."""
        watch = self.ports.clock_watch
        suspect = watch.is_suspect()
        alerts: tuple[AlertDraft, ...] = ()
        if suspect and not self._told:
            text = (
                f"the wall clock moved by {watch.parted_s():+,.0f} s against the monotonic clock;"
                " no session ends, and fees and promotions wait until the two agree or"
                " fund.confirm_clock(by=, reason=) says that the wall clock is right"
            )
            log.warning("clock_jump: %s", text)
            alerts = (AlertDraft(Level.WARNING, Category.GENERAL, _KEY, text, None, _KEY),)
        elif self._told and not suspect:
            alerts = (resolved(Category.GENERAL, "clock_jump is over", _KEY),)
        self._told = suspect
        return Effects(suspect=suspect, alerts=alerts)
