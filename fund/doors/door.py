"""What all doors share: one actor behind each, a deadline for its answers, and a refusal when it is switched off."""

from __future__ import annotations

from typing import TypeVar

from fundops.errors import SubsystemDisabled
from fundops.runtime import Ref, Request

__all__ = ["ANSWER_DEADLINE_S", "Door"]

R = TypeVar("R")

# Longer than a commit's own deadline, so that the reason arrives before we give up.
ANSWER_DEADLINE_S = 60.0


class Door:
    """Asks one actor; refuses everything when there is none."""

    def __init__(self, subsystem: str, switch: str, ref: Ref | None) -> None:
        self._subsystem = subsystem
        self._switch = switch
        self._ref = ref

    async def _ask(self, request: Request[R]) -> R:
        if self._ref is None:
            raise SubsystemDisabled(self._subsystem, self._switch)
        return await self._ref.ask(request, timeout_s=ANSWER_DEADLINE_S)
