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
from ...wire.why import Reason, rank
from .latch import KillLatch

__all__ = ["Grant", "Leases", "with_reason"]

_RAN_OUT = Reason("lease", "its lease ran out")


class Grant(msgspec.Struct, frozen=True):
    """The permission of one strategy as the last tick gave it."""

    stage: str | None
    mode: Literal["paper", "shadow", "live", "reduce", "none"]
    capital: Decimal
    had_real: bool  # it may close in every mode
    reasons: tuple[Reason, ...] = ()  # why it may not open, in order; empty in mode live

    def with_reasons(self, reasons: tuple[Reason, ...]) -> Grant:
        """The same permission for other reasons; a live one becomes one to reduce."""
        mode = "reduce" if self.mode == "live" and reasons else self.mode
        capital = Decimal(0) if mode == "reduce" else self.capital
        return Grant(self.stage, mode, capital, self.had_real, reasons)


_UNKNOWN = Grant(None, "none", Decimal(0), False, (Reason("unknown", "no report of it was seen"),))


def with_reason(reasons: tuple[Reason, ...], added: Reason) -> tuple[Reason, ...]:
    """The reasons with one more in its place; it replaces one of its kind."""
    place = rank(added.kind)
    before = [reason for reason in reasons if rank(reason.kind) < place]
    after = [reason for reason in reasons if rank(reason.kind) > place]
    return (*before, added, *after)


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

    def change(self, name: str, grant: Grant) -> None:
        """A new permission of one strategy between two ticks, such as a pause."""
        self._grants = {**self._grants, name: grant}

    def grant(self, name: str) -> Grant:
        """The permission of `name` as it was given last, whether or not it still holds."""
        return self._grants.get(name, _UNKNOWN)

    def knows(self, name: str) -> bool:
        """Whether the strategy was reported at any time."""
        return name in self._grants

    def names(self) -> tuple[str, ...]:
        """The strategies that were reported at any time."""
        return tuple(self._grants)

    def end_all(self) -> None:
        """End all leases at once: the first act of the kill switch."""
        self._until_s = float("-inf")
        self._until_us = min(self._until_us, self._clock.now_us())

    def entitlement(self, name: str) -> Entitlement:
        """The permission of `name` now; mode "none" for an unknown strategy."""
        grant = self._grants.get(name, _UNKNOWN)
        mode = grant.mode
        if self.latch.engaged:
            mode = "reduce" if grant.had_real and not self._frozen() else "none"
        elif mode == "live" and not self._valid():
            mode = "reduce"
        reasons = self._reasons(grant)
        return Entitlement(
            grant.stage,
            mode,
            Decimal(0) if mode in ("reduce", "none") else grant.capital,
            self._until_us if grant is not _UNKNOWN else 0,
            mode == "live",
            grant.had_real and not self._frozen(),
            reasons[0].text if reasons else "",
        )

    def reasons(self, name: str) -> tuple[Reason, ...]:
        """Why `name` may not open now, in the order of `BlockerKind`; empty: it may.

        The first one is `Entitlement.why`.
        """
        return self._reasons(self._grants.get(name, _UNKNOWN))

    def _reasons(self, grant: Grant) -> tuple[Reason, ...]:
        reasons = grant.reasons
        if self.latch.engaged:  # it has ended all leases, which is no reason beside it
            text = f"the kill switch is {self.latch.status.state}"
            return (Reason("kill_switch", text), *reasons)
        if grant is _UNKNOWN or self._valid() or any(kind == "lease" for kind, _ in reasons):
            return reasons
        return with_reason(reasons, _RAN_OUT)

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
