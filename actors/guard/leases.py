"""Entitlement leases: the host asks here before it orders. Local memory, any thread, no await.

A lease runs out by itself unless the tick renews it, so a live strategy opens nothing when fundops
is gone. It lasts on monotonic time, so no step of the wall clock prolongs it. The permission to
close never runs out for a strategy that had real money.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

import msgspec

from ...runtime import Clock
from ...wire.guard import Entitlement
from .latch import KillLatch

__all__ = ["Grant", "Leases"]

_UNKNOWN = Entitlement(None, "none", Decimal(0), 0, why="no report of it was seen")


class Grant(msgspec.Struct, frozen=True):
    """The permission of one strategy as the last tick gave it."""

    stage: str | None
    mode: Literal["paper", "shadow", "live", "reduce", "none"]
    capital: Decimal
    had_real: bool  # it may close in every mode
    why: str = ""  # why it may not open


class Leases:
    """Written by the guard alone, read from any thread. A write replaces the whole mapping, so
    a read is one look-up.
    """

    def __init__(self, clock: Clock, latch: KillLatch | None = None) -> None:
        self._clock = clock
        self.latch = latch or KillLatch()
        self._grants: Mapping[str, Grant] = {}
        self._until_s = float("-inf")  # monotonic
        self._until_us = 0

    def replace(self, grants: Mapping[str, Grant], lease_s: float) -> None:
        """New permissions of all strategies, and leases that begin now."""
        self._grants = grants
        self._until_us = self._clock.now_us() + int(lease_s * 1_000_000)
        self._until_s = self._clock.monotonic_s() + lease_s

    def recall(self, grants: Mapping[str, Grant]) -> None:
        """New permissions without leases, as after a restart or under the kill switch."""
        self._grants = grants

    def end_all(self) -> None:
        """End all leases at once: the first act of the kill switch."""
        self._until_s = float("-inf")
        self._until_us = min(self._until_us, self._clock.now_us())

    def entitlement(self, name: str) -> Entitlement:
        """The permission of `name` now; mode "none" for an unknown strategy."""
        grant = self._grants.get(name)
        if grant is None:
            return _UNKNOWN
        mode, why = grant.mode, grant.why
        if self.latch.engaged:
            frozen = self.latch.status.action == "freeze"
            mode = "reduce" if grant.had_real and not frozen else "none"
            why = f"the kill switch is {self.latch.status.state}"
        elif mode == "live" and not self._valid():
            mode, why = "reduce", "its lease ran out"
        return Entitlement(
            grant.stage,
            mode,
            Decimal(0) if mode in ("reduce", "none") else grant.capital,
            self._until_us,
            mode == "live",
            grant.had_real and not self._frozen(),
            why,
        )

    def may_trade(self, name: str) -> bool:
        """Whether `name` may send real orders that add risk now."""
        grant = self._grants.get(name)
        return (
            grant is not None and grant.mode == "live" and not self.latch.engaged and self._valid()
        )

    def may_close(self, name: str) -> bool:
        """Whether `name` may send real orders that only reduce its risk."""
        grant = self._grants.get(name)
        return grant is not None and grant.had_real and not self._frozen()

    def _valid(self) -> bool:
        return self._clock.monotonic_s() <= self._until_s

    def _frozen(self) -> bool:
        return self.latch.engaged and self.latch.status.action == "freeze"
