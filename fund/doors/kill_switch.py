"""The kill switch's door: stop all trading, let it start again, and the state of the switch."""

from __future__ import annotations

import logging
from typing import Literal, TypeVar

from fundops.actors.guard import KillLatch
from fundops.doors.door import ANSWER_DEADLINE_S
from fundops.runtime import ActorError, Ref, Rejected, Request
from fundops.wire.guard import EngageKillSwitch, KillStatus, Released, ReleaseKillSwitch
from fundops.wire.oversight import RememberGuard

__all__ = ["KillSwitchDoor"]

R = TypeVar("R")

log = logging.getLogger("fundops")


class KillSwitchDoor:
    """Engage and release the kill switch; the guard runs in every configuration.

    `by` names the person or program that decides, for the alerts and for the switch's status.
    """

    def __init__(self, guard: Ref, oversight: Ref, latch: KillLatch) -> None:
        self._guard = guard
        self._oversight = oversight
        self._latch = latch

    async def engage(self, *, reason: str = "", by: str = "") -> KillStatus:
        """Stop all trading now; returns while the engine is being told.

        The state is ENGAGING until the engine has answered, then ENGAGED, or UNCONFIRMED when it
        did not confirm that it stopped. A switch that is engaged already keeps its first reason.
        Any two values are accepted: they are made to fit after the act.
        """
        if self._latch.pull is not None:
            return self._latch.pull(reason, by)
        return await self._ask(self._guard, EngageKillSwitch(reason, by))

    async def release(
        self,
        *,
        by: str,
        reason: str,
        rearm: Literal["from_current_nav", "keep_peak"] = "from_current_nav",
        accept_open_orders: bool = False,
    ) -> Released:
        """Allow trading again, by a person who gives a name and a reason.

        The answer states the NAV of the next stop, and its distance below the highest peak: each
        release from the present NAV allows a further loss of the whole limit.

        "from_current_nav" measures the drawdown from the present NAV; "keep_peak" keeps the peak,
        so a drawdown that is still over the limit engages the switch again at the next tick.
        Strategies that the switch stopped stay stopped until a person starts them. If the database
        cannot store the release now, the next tick tries again; a restart before that finds the
        switch engaged.

        Raises: `BadRequest` naming the field; `KillSwitchNotEngaged`; `StopNotConfirmed` while the
            engine has not confirmed its stop, unless `accept_open_orders`; `StorageDegraded`.
        """
        request = ReleaseKillSwitch(by, reason, rearm, accept_open_orders)
        status = await self._ask(self._guard, request)
        try:
            await self._ask(self._oversight, RememberGuard())
        except (Rejected, ActorError) as refusal:
            log.warning("the release is not in the database yet: %s", refusal)
        return status

    async def status(self) -> KillStatus:
        """The state of the switch at this instant; while engaged, with its reason, its time and
        its author.
        """
        return self._latch.status

    async def _ask(self, ref: Ref, request: Request[R]) -> R:
        return await ref.ask(request, timeout_s=ANSWER_DEADLINE_S)
