"""The step `reach`: real money without an alert channel that reaches a person is logged."""

from __future__ import annotations

import logging
from typing import ClassVar

from ..round import Effects, Round
from ..settings import OversightSettings
from .step import Ports, Step

__all__ = ["ReachStep"]

log = logging.getLogger("fundops.oversight")


class ReachStep(Step):
    """Warns once in each life, at the first sight of real money."""

    name: ClassVar[str] = "reach"
    deadline_s: ClassVar[float | None] = None

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports)
        self._warned = False

    @classmethod
    def serves(cls, settings: OversightSettings) -> bool:
        """A webhook reaches a person, a log does not."""
        return not settings.reaches_a_person

    def is_due(self, tick: Round) -> bool:
        """Whether nothing was said yet."""
        return not self._warned

    async def run(self, tick: Round) -> Effects:
        """Look at the strategies with real money."""
        books = tick.memory.guard.strategies.values()
        live = sum(book.real and not book.left for book in books)
        if live:
            self._warned = True
            log.warning(
                "%d strategies trade real money, and no alert reaches a person:"
                " set alert_webhook_url",
                live,
            )
        return Effects()
