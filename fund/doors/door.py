"""The base of all doors: the actor behind it, the deadline, the refusal of a disabled subsystem."""

from __future__ import annotations

from typing import TypeVar

from fundops.doors.inert import inert
from fundops.errors import SubsystemDisabled
from fundops.runtime import Ref, Request

__all__ = ["ANSWER_DEADLINE_S", "Door"]

R = TypeVar("R")

# Longer than a commit's own deadline: its error names the cause, a timeout of ours would not.
ANSWER_DEADLINE_S = 60.0


class Door:
    """Asks one actor.

    Without an actor every question is a `SubsystemDisabled` naming the setting.
    """

    _strict = False  # whether a subclass of text is refused, as by `inert`

    def __init__(self, subsystem: str, switch: str, ref: Ref | None) -> None:
        self._subsystem = subsystem
        self._switch = switch
        self._ref = ref

    async def _ask(self, request: Request[R]) -> R:
        if self._ref is None:
            raise SubsystemDisabled(self._subsystem, self._switch)
        return await self._ref.ask(inert(request, strict=self._strict), timeout_s=ANSWER_DEADLINE_S)
