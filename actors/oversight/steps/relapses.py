"""The step `relapses`: a live strategy that recovery gives up, or that failed again, is demoted."""

from __future__ import annotations

from typing import ClassVar

from ....wire.promotion import DemoteAutomatically
from ..round import Effects, Round
from ..settings import OversightSettings
from .step import Ports, Step

__all__ = ["RelapsesStep"]

_UNFINISHED = """
SELECT coalesce(min(seq), 1) - 1 FROM recovery_event WHERE at_us >= (
    SELECT min(since_us) FROM recovery_state WHERE phase <> 'HEALTHY'
)
"""
_NEWS = """
SELECT event.seq, event.target, state.episode, event.action, event.error
FROM recovery_event AS event JOIN recovery_state AS state ON state.name = event.target
WHERE event.seq > ? AND event.action IN ('opened', 'relapse') ORDER BY event.seq
"""
_WORDS = {"opened": "recovery gave it up", "relapse": "it failed again after a restart"}


class RelapsesStep(Step):
    """Asks promotion for one soft demotion in each episode of recovery of a live strategy.

    The events are on disk, and promotion does it once for each episode, so a crash loses none.
    """

    name: ClassVar[str] = "relapses"

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports)
        # The last event that was told. A life begins with those of the episodes still open.
        self._seq: int | None = None

    @classmethod
    def serves(cls, settings: OversightSettings) -> bool:
        """Recovery finds them, and promotion demotes; mode observe does neither."""
        return (
            settings.self_healing_enabled and settings.promotion_enabled and settings.mode == "act"
        )

    async def run(self, tick: Round) -> Effects:
        """Tell promotion the news. Raises: `FundopsError`; the rest then waits for a later tick."""
        rows, terms = self.ports.rows, tick.terms or {}
        if self._seq is None:
            self._seq = int(rows.row(_UNFINISHED)[0])
        for seq, name, episode, action, error in rows.rows(_NEWS, (self._seq,)):
            if name in terms and terms[name].mode == "live":
                reason = f"{_WORDS[action]}: {error or 'no reason given'}"
                request = DemoteAutomatically(
                    name, "soft", "recovery", reason, once=f"recovery:{name}:{episode}"
                )
                await self.ports.ask("promotion", request)
            self._seq = seq
        return Effects()
