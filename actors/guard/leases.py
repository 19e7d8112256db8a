"""Entitlement leases: the host asks here before it orders. Local memory, any thread, no await.

A lease runs out by itself unless the tick renews it, so a live strategy stops trading when fundops
is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from ...runtime import Clock
from ...wire.guard import Entitlement

__all__ = ["Leases"]

_NOTHING = Entitlement(None, "none", Decimal(0), 0)


class Leases:
    """Written by the guard alone, read by everybody. A write replaces the whole mapping, so a
    read is one look-up.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: Mapping[str, Entitlement] = {}

    def replace(self, held: Mapping[str, Entitlement]) -> None:
        """Replace all leases. A strategy without one may not trade."""
        self._held = held

    def end_all(self) -> None:
        """At once, for everybody: the first thing a kill switch does."""
        self._held = {}

    def entitlement(self, name: str) -> Entitlement:
        """What `name` may do; mode "none" for a strategy nobody knows."""
        return self._held.get(name, _NOTHING)

    def may_trade(self, name: str) -> bool:
        """Whether `name` may send real orders now."""
        held = self._held.get(name)
        return (
            held is not None and held.mode == "live" and self._clock.now_us() <= held.valid_until_us
        )
