"""The step `failures`: failed strategies are told, many at once in one alert."""

from __future__ import annotations

from typing import ClassVar

from ....wire.alert import AlertDraft
from ..failures import FAILED, FailureWatch
from ..many import MANY, ManyWatch, limit_of
from ..round import Effects, Round
from .step import Ports, Step

__all__ = ["FailuresStep"]


class FailuresStep(Step):
    """Tells the strategies that have failed, and their end.

    With self-healing on, recovery tells each of them; many at once are told here, and recovery is
    given their names.
    """

    name: ClassVar[str] = "failures"
    deadline_s: ClassVar[float | None] = None

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports)
        told = ports.told(FAILED)
        rule = limit_of(ports.settings.max_failed_strategies)
        self._many = ManyWatch(rule, told=MANY in told)
        self._watch = FailureWatch(told - {MANY})

    async def run(self, tick: Round) -> Effects:
        """Look at the engine's words, when they are news."""
        if not tick.is_heard:
            return Effects()
        alerts: list[AlertDraft] = self._many.look(tick.statuses, tick.now_s)
        named = self._many.named
        if not self.ports.settings.self_healing_enabled:
            alerts += self._watch.look(tick.statuses, tick.terms, named)
        return Effects(alerts=tuple(alerts), failed_together=named)
