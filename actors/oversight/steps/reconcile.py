"""The step `reconcile`: stage and capital cap in force at the engine are made equal to the
entitlement.

A strategy with more in force than it is entitled to is told once, and again after it was equal.
The guard keeps it from opening meanwhile.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from decimal import Decimal
from typing import ClassVar, NamedTuple

from ....runtime import in_pieces
from ....wire.alert import AlertDraft, Category, Level, resolved
from ....wire.controller import StrategyStatus, stage_risk
from ....wire.entitlement import capital_minor_of, capital_of
from ....wire.errors import HostFault
from ....wire.money import minor_of_float
from ....wire.promotion import EntitlementTerms
from ...guard.entitle import above
from ...host import each
from ..round import Effects, Round
from ..settings import OversightSettings
from .step import Ports, Step

__all__ = ["ReconcileStep", "due"]

_ABOVE = "entitled:"  # dedup keys are this and the strategy's name
_UNREGISTERED = "unregistered:"

Order = tuple[str, str, Decimal]  # strategy, stage, cap


class _Compared(NamedTuple):
    """The strategies whose engine and entitlement differ."""

    above: dict[str, str]  # beyond their entitlement, and how
    unregistered: list[str]
    unequal: list[tuple[StrategyStatus, EntitlementTerms]]  # an order makes them equal

    @property
    def is_equal(self) -> bool:
        """Whether there is nothing to order or to tell."""
        return not any(self)


class ReconcileStep(Step):
    """Orders the stages, and tells strategies above their entitlement and unregistered ones."""

    name: ClassVar[str] = "reconcile"
    tells: ClassVar[Mapping[str, Category]] = {
        _ABOVE: Category.RISK_LIMIT,
        _UNREGISTERED: Category.GENERAL,
    }

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports)
        self._above = self._recalled(_ABOVE)  # strategies that are above their entitlement
        self._unregistered = self._recalled(_UNREGISTERED)

    def _recalled(self, prefix: str) -> set[str]:
        """Strategies that an earlier life told of, so that the end of it is told too."""
        return {key.removeprefix(prefix) for key in self.ports.told(prefix)}

    @classmethod
    def serves(cls, settings: OversightSettings) -> bool:
        """Without promotion every strategy has the stage that the engine gives it."""
        return settings.promotion_enabled

    async def run(self, tick: Round) -> Effects:
        """Order what differs. Without an answer of the engine nothing is known to differ."""
        terms, host = tick.terms or {}, self.ports.host
        if not tick.answered:
            return Effects()
        is_told = self._above or self._unregistered
        if not is_told and (await in_pieces(self._compared(tick.statuses, terms))).is_equal:
            return Effects()
        # As it is now: this tick may have changed it.
        now = await in_pieces(self._compared(await host.strategies(), terms))
        alerts = (*self._told_above(now.above), *self._told_unregistered(now.unregistered, terms))
        try:
            await each(self._order, now.unequal)
        except HostFault as fault:
            return Effects(alerts=alerts, fault=fault)
        return Effects(alerts=alerts)

    async def _order(self, status: StrategyStatus, entitled: EntitlementTerms) -> None:
        # Decided anew: the kill switch may have been engaged since the comparison.
        latch = self.ports.host.acts.latch
        order = due(status, entitled, self.ports.capital_minor, killed=latch.engaged)
        if order is not None and not latch.freezes(status.name):
            await self.ports.host.acts.set_stage(*order)

    def _compared(
        self, statuses: Sequence[StrategyStatus], terms: Mapping[str, EntitlementTerms]
    ) -> Generator[None, None, _Compared]:
        found = _Compared({}, [], [])
        killed, capital = self.ports.host.acts.latch.engaged, self.ports.capital_minor
        for status in statuses:
            yield
            entitled = terms.get(status.name)
            if entitled is None:
                found.unregistered.append(status.name)
                continue
            if text := above(status, entitled, capital):
                found.above[status.name] = text
            if due(status, entitled, capital, killed=killed) is not None:
                found.unequal.append((status, entitled))
        return found

    def _told_above(self, above: Mapping[str, str]) -> list[AlertDraft]:
        """Tell each strategy that is above its entitlement, and each that is within it again."""
        alerts = [
            AlertDraft(
                Level.CRITICAL,
                Category.RISK_LIMIT,
                f"{name} is above its entitlement",
                f"{text}; it may only reduce until both are equal",
                name,
                f"{_ABOVE}{name}",
            )
            for name, text in above.items()
            if name not in self._above
        ]
        alerts += [
            resolved(
                Category.RISK_LIMIT,
                f"{name} is within its entitlement again",
                f"{_ABOVE}{name}",
                name,
            )
            for name in sorted(self._above - above.keys())
        ]
        self._above = set(above)
        return alerts

    def _told_unregistered(
        self, found: Sequence[str], terms: Mapping[str, EntitlementTerms]
    ) -> list[AlertDraft]:
        """Name each strategy once that is not registered, and the end of it."""
        alerts = [
            AlertDraft(
                Level.WARNING,
                Category.GENERAL,
                f"{name} is not registered",
                "it is entitled to no real money; register or adopt it",
                name,
                f"{_UNREGISTERED}{name}",
            )
            for name in found
            if name not in self._unregistered
        ]
        alerts += [
            resolved(
                Category.GENERAL,
                f"{name} is {'registered now' if name in terms else 'gone from the engine'}",
                f"{_UNREGISTERED}{name}",
                name,
            )
            for name in sorted(self._unregistered.difference(found))
        ]
        self._unregistered = set(found)
        return alerts


def due(
    status: StrategyStatus, entitled: EntitlementTerms, capital_minor: int, *, killed: bool
) -> Order | None:
    """The order that makes both equal; None: they are, or the kill switch forbids to raise them."""
    if status.stage is None:
        return None  # an engine that knows no stages
    stage = entitled.stage.value
    equal, raises = status.stage == stage, stage_risk(stage) > stage_risk(status.stage)
    if equal and entitled.mode == "live" and status.capital_cap is not None:
        in_force = minor_of_float(status.capital_cap)
        wanted = capital_minor_of(entitled, capital_minor)
        assert in_force is not None
        equal, raises = in_force == wanted, wanted > in_force
    if equal or (killed and raises):
        return None
    return status.name, stage, capital_of(entitled, capital_minor)
