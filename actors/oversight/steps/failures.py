"""The step `failures`: failed strategies are told, where no recovery does."""

from __future__ import annotations

from typing import ClassVar

from ...alert import told_keys
from ..failures import FAILED, FailureWatch
from ..round import Effects, Round
from ..settings import OversightSettings
from .step import READ_DEADLINE_S, Ports, Step

__all__ = ["FailuresStep"]


class FailuresStep(Step):
    """Tells the strategies that have failed, and their end."""

    name: ClassVar[str] = "failures"
    deadline_s: ClassVar[float] = READ_DEADLINE_S

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports)
        told = told_keys(ports.rows, FAILED) if ports.settings.alerts_enabled else ()
        self._watch = FailureWatch(told)

    @classmethod
    def serves(cls, settings: OversightSettings) -> bool:
        """Recovery tells them itself."""
        return not settings.self_healing_enabled

    async def run(self, tick: Round) -> Effects:
        """Look at the engine's words, when they are news."""
        if not tick.is_heard:
            return Effects()
        return Effects(alerts=tuple(self._watch.look(tick.statuses, tick.terms)))
