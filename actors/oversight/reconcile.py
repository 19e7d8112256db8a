"""The step that makes stage and capital cap in force at the engine equal to the entitlement.

A strategy with more in force than it is entitled to is told once, and again after it was equal.
The guard keeps it from opening meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from ...wire.alert import AlertDraft, Category, Level
from ...wire.controller import StrategyStatus, stage_risk
from ...wire.entitlement import capital_of
from ...wire.money import minor_of_float
from ...wire.promotion import EntitlementTerms
from ..guard.entitle import above
from ..host import Host

__all__ = ["Reconciler", "due"]

Order = tuple[str, str, Decimal]  # strategy, stage, cap


class Reconciler:
    """Orders the stages, and alerts on strategies above their entitlement."""

    def __init__(self, host: Host, capital_minor: int) -> None:
        self._host = host
        self._capital_minor = capital_minor
        self._named: set[str] = set()  # strategies that nobody registered, named once
        self._told: set[str] = set()  # strategies that are above their entitlement
        self.alerts: list[AlertDraft] = []  # of the last run

    def recall(self, told: Iterable[str]) -> None:
        """Strategies that an earlier life told of, so that the end of it is told too."""
        self._told = set(told)

    async def run(
        self, statuses: tuple[StrategyStatus, ...], terms: Mapping[str, EntitlementTerms]
    ) -> None:
        """Raises: `HostFault`, after all were told."""
        self.alerts = []
        if not self._unequal(statuses, terms):
            return
        known: list[tuple[StrategyStatus, EntitlementTerms]] = []
        for status in self._host.strategies():  # as it is now: this tick may have changed it
            entitled = terms.get(status.name)
            if entitled is None:
                self._name(status.name)
                continue
            self._compare(status, entitled)
            known.append((status, entitled))
        await self._host.each(self._order, known)

    async def _order(self, status: StrategyStatus, entitled: EntitlementTerms) -> None:
        latch = self._host.latch
        order = due(status, entitled, self._capital_minor, killed=latch.engaged)
        # Under "freeze" the engine must touch nothing.
        frozen = latch.engaged and latch.status.action == "freeze"
        if order is not None and not frozen:
            await self._host.set_stage(*order)

    def _unequal(
        self, statuses: tuple[StrategyStatus, ...], terms: Mapping[str, EntitlementTerms]
    ) -> bool:
        killed = self._host.latch.engaged
        return any(
            (entitled := terms.get(status.name)) is None
            or status.name in self._told
            or above(status, entitled, self._capital_minor)
            or due(status, entitled, self._capital_minor, killed=killed) is not None
            for status in statuses
        )

    def _compare(self, status: StrategyStatus, entitled: EntitlementTerms) -> None:
        name, key = status.name, f"entitled:{status.name}"
        beyond = above(status, entitled, self._capital_minor)
        if beyond and name not in self._told:
            self._told.add(name)
            text = f"{beyond}; it may only reduce until both are equal"
            title = f"{name} is above its entitlement"
            self.alerts.append(
                AlertDraft(Level.CRITICAL, Category.RISK_LIMIT, title, text, name, key)
            )
        elif not beyond and name in self._told:
            self._told.discard(name)
            title = f"{name} is within its entitlement again"
            self.alerts.append(
                AlertDraft(Level.INFO, Category.RISK_LIMIT, title, "", name, key, resolves=True)
            )

    def _name(self, name: str) -> None:
        if name not in self._named:
            self._named.add(name)
            text = "it is entitled to no real money; register or adopt it"
            title, key = f"{name} is not registered", f"unregistered:{name}"
            self.alerts.append(
                AlertDraft(Level.WARNING, Category.PROMOTION, title, text, name, key)
            )


def due(
    status: StrategyStatus, entitled: EntitlementTerms, capital_minor: int, *, killed: bool
) -> Order | None:
    """The order that makes both equal; None: they are, or the kill switch forbids to raise them."""
    if status.stage is None:
        return None  # an engine that knows no stages
    stage, cap = entitled.stage.value, capital_of(entitled, capital_minor)
    raises = stage_risk(stage) > stage_risk(status.stage)
    equal = status.stage == stage
    if equal and entitled.mode == "live" and status.capital_cap is not None:
        in_force = minor_of_float(status.capital_cap)
        wanted = minor_of_float(cap)
        assert in_force is not None
        assert wanted is not None
        equal, raises = in_force == wanted, wanted > in_force
    if equal or (killed and raises):
        return None
    return status.name, stage, cap
