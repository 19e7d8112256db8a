"""Entitlement leases: the host asks here before it orders. Local memory, any thread, no await.

A lease runs out by itself unless the tick renews it, so a live strategy opens nothing when fundops
is gone. It lasts on monotonic time, so no step of the wall clock prolongs it. The permission to
close never runs out for a strategy that had real money.

The guard writes the permissions, and the promotion actor the limits: a demotion lowers the limit
before it is committed, and so acts at once, also while a tick works with the terms of before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

import msgspec

from ...runtime import Clock
from ...wire.foreign import plain_text
from ...wire.guard import Entitlement
from ...wire.why import Reason, rank
from .latch import KillLatch

__all__ = ["Grant", "Leases", "with_reason"]

_RAN_OUT = Reason("lease", "its lease ran out")
_DEMOTED = Reason("stage", "it was demoted since the last tick")
_SOME = Decimal(1)


class Grant(msgspec.Struct, frozen=True, gc=False):
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
    """Read from any thread. A write replaces a whole mapping, so a read is one look-up."""

    def __init__(self, clock: Clock, latch: KillLatch | None = None) -> None:
        self._clock = clock
        self.latch = latch or KillLatch()
        self._grants: Mapping[str, Grant] = {}
        # The most real capital of each strategy; of one without an entry its permission says it.
        self._limits: Mapping[str, Decimal] = {}
        self._until_s = float("-inf")  # monotonic
        self._until_us = 0
        # The kill switch ended the leases in its scope, and no tick without it has renewed them.
        self._ended = False
        self.is_over = False  # the fund has stopped, and a look in hand renews no lease

    def replace(self, grants: Mapping[str, Grant]) -> None:
        """New permissions of all strategies; the leases end as the last look said."""
        self._grants = grants

    def renew(self, lease_s: float) -> None:
        """For a look of the guard alone: the leases begin now.

        Under the kill switch the strategies in its scope get none.
        """
        if self.is_over:
            return
        self._ended = self.latch.engaged
        self._until_us = self._clock.now_us() + int(lease_s * 1_000_000)
        self._until_s = self._clock.monotonic_s() + lease_s

    def change(self, name: str, grant: Grant) -> None:
        """A new permission of one strategy between two ticks, such as a pause."""
        self._grants = {**self._grants, name: grant}

    def limit(self, limits: Mapping[str, Decimal]) -> None:
        """For promotion alone: the most real capital of these strategies from now on.

        0 ends a live lease at once.
        """
        self._limits = {**self._limits, **limits}

    def grant(self, name: str) -> Grant:
        """The permission of `name` as it was given last, whether or not it still holds."""
        return self._grants.get(name, _UNKNOWN)

    def knows(self, name: str) -> bool:
        """Whether the strategy was reported at any time."""
        return name in self._grants

    def names(self) -> tuple[str, ...]:
        """The strategies that were reported at any time."""
        return tuple(self._grants)

    def end_in_scope(self) -> None:
        """End the leases in the kill switch's scope at once: its first act."""
        self._ended = True

    def end_all(self) -> None:
        """End all leases for good, as the fund stops."""
        self.is_over = True
        self._until_s = float("-inf")
        self._until_us = min(self._until_us, self._clock.now_us())

    def entitlement(self, name: str) -> Entitlement:
        """The permission of `name` now; mode "none" for an unknown strategy."""
        grant = self._grant_of(name)
        mode = grant.mode
        if self._stops(name):
            mode = "reduce" if grant.had_real and not self._frozen(name) else "none"
        elif mode == "live" and not (self._valid(name) and self._is_allowed(name)):
            mode = "reduce"
        reasons = self.reasons(name)
        return Entitlement(
            grant.stage,
            mode,
            Decimal(0) if mode in ("reduce", "none") else self._capital(name, grant),
            self._until_us if grant is not _UNKNOWN else 0,
            mode == "live",
            grant.had_real and not self._frozen(name),
            reasons[0].text if reasons else "",
        )

    def reasons(self, name: str) -> tuple[Reason, ...]:
        """Why `name` may not open now, in the order of `BlockerKind`; empty: it may.

        The first one is `Entitlement.why`.
        """
        grant = self._grant_of(name)
        reasons = grant.reasons
        if self._stops(name):  # it has ended the lease, which is no reason beside it
            text = f"the kill switch is {self.latch.status.state}"
            return (Reason("kill_switch", text), *reasons)
        if grant.mode == "live" and not self._is_allowed(name):
            reasons = with_reason(reasons, _DEMOTED)
        if grant is _UNKNOWN or self._valid(name) or any(kind == "lease" for kind, _ in reasons):
            return reasons
        return with_reason(reasons, _RAN_OUT)

    def may_trade(self, name: str) -> bool:
        """Whether `name` may send real orders that add risk now; False also for no name at all."""
        return (
            self._grant_of(name).mode == "live"
            and not self._stops(name)
            and self._valid(name)
            and self._is_allowed(name)
        )

    def may_close(self, name: str) -> bool:
        """Whether `name` may send real orders that only reduce its risk."""
        return self._grant_of(name).had_real and not self._frozen(name)

    def _grant_of(self, name: object) -> Grant:
        # A host may ask with anything, such as a list, which no mapping can look up.
        text = plain_text(name)
        return _UNKNOWN if text is None else self._grants.get(text, _UNKNOWN)

    def _is_allowed(self, name: str) -> bool:
        return self._limits.get(name, _SOME) > 0

    def _capital(self, name: str, grant: Grant) -> Decimal:
        return min(grant.capital, self._limits.get(name, grant.capital))

    def _valid(self, name: str) -> bool:
        if self._clock.monotonic_s() > self._until_s:
            return False
        return not self._ended or name in self.latch.spared

    def _stops(self, name: object) -> bool:
        return self.latch.engaged and plain_text(name) not in self.latch.spared

    def _frozen(self, name: object) -> bool:
        return self.latch.status.action == "freeze" and self._stops(name)
