"""The step `statement`: the broker's statement is compared with the books of its day."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from msgspec.structs import replace

from ....wire.alert import Category
from ..round import Effects, Round
from ..settings import OversightSettings
from ..statements import WRONG, StatementWatch
from .step import Ports, Step

__all__ = ["StatementStep"]


class StatementStep(Step):
    """Has the ledger compare a statement that has come in."""

    name: ClassVar[str] = "statement"
    tells: ClassVar[Mapping[str, Category]] = {WRONG: Category.GENERAL}

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports)
        self._watch = StatementWatch(
            ports.host,
            lambda request: ports.ask("ledger", request),
            ports.settings.break_tolerance,
            ports.told(WRONG),
        )

    @classmethod
    def serves(cls, settings: OversightSettings) -> bool:
        """Without a ledger there are no books."""
        return settings.ledger_enabled

    async def run(self, tick: Round) -> Effects:
        """One comparison. Raises: a fault of the ledger; the statement is kept."""
        memory = tick.memory
        (cash, positions), alerts = await self._watch.look(
            tick.now_us, (memory.cash, memory.positions)
        )
        memory = replace(memory, cash=cash, positions=positions)
        return Effects(memory=memory, alerts=tuple(alerts))
