"""Marks at the end of a session: unrealized P&L that the engine reports, booked on its position.

Pure functions. The engine reports one figure per strategy, so a strategy is marked only when it has
a single open position.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from ...wire.controller import StrategyStatus
from ...wire.ledger import LedgerPosition, Mark
from ...wire.money import from_minor, minor_of_float

__all__ = ["marks_of"]


def marks_of(
    positions: Sequence[LedgerPosition], statuses: Sequence[StrategyStatus], session: str
) -> tuple[Mark, ...]:
    """The marks that bring the book's positions to the engine's figures.

    A mark that would change nothing is left out.
    """
    held = Counter(position.strategy for position in positions)
    unrealized = {status.name: minor_of_float(status.unrealized_pnl) for status in statuses}
    marks = []
    for position in positions:
        gain = unrealized.get(position.strategy or "")
        if held[position.strategy] != 1 or gain is None:
            continue
        worth = position.cost + from_minor(gain)
        value = max(Decimal(0), worth if position.quantity > 0 else -worth)
        if value != abs(position.value):
            key = f"mark:{position.strategy}:{position.instrument}:{session}"
            marks.append(Mark(position.instrument, value, key=key, strategy=position.strategy))
    return tuple(marks)
