"""The kill switch's door: stop all trading, let it start again, and the state of the switch."""

from __future__ import annotations

import logging
from typing import TypeVar

from fundops.doors.door import ANSWER_DEADLINE_S
from fundops.runtime import ActorError, Ref, Rejected, Request
from fundops.wire.guard import EngageKillSwitch, KillStatus, ReadKillSwitch, ReleaseKillSwitch
from fundops.wire.oversight import RememberGuard

__all__ = ["KillSwitchDoor"]

R = TypeVar("R")

log = logging.getLogger("fundops")


class KillSwitchDoor:
    """Engage and release the kill switch; the guard runs in every configuration.

    `by` names the person or program that decides, for the alerts and for the switch's status.
    """

    def __init__(self, guard: Ref, oversight: Ref) -> None:
        self._guard = guard
        self._oversight = oversight

    async def engage(self, *, reason: str, by: str) -> KillStatus:
        """Stop all trading now; returns after the engine was told to stop.

        The state is UNCONFIRMED when the engine did not confirm that it stopped. A switch that is
        engaged already keeps its first reason.
        """
        return await self._ask(self._guard, EngageKillSwitch(reason, by))

    async def release(self, *, by: str, reason: str = "") -> KillStatus:
        """Allow trading again; from now on drawdown is measured from the present NAV.

        Strategies that the switch stopped stay stopped until a person starts them. If the database
        cannot store the release now, the next tick tries again; a restart before that finds the
        switch engaged.

        Raises: `KillSwitchNotEngaged`.
        """
        status = await self._ask(self._guard, ReleaseKillSwitch(by, reason))
        try:
            await self._ask(self._oversight, RememberGuard())
        except (Rejected, ActorError) as refusal:
            log.warning("the release is not in the database yet: %s", refusal)
        return status

    async def status(self) -> KillStatus:
        """The state of the switch now; while engaged, with its reason, its time and its author."""
        return await self._ask(self._guard, ReadKillSwitch())

    async def _ask(self, ref: Ref, request: Request[R]) -> R:
        return await ref.ask(request, timeout_s=ANSWER_DEADLINE_S)
