"""Marks at the end of a session: unrealized P&L that the engine reports, booked on its positions.

Pure functions. The engine reports one figure per strategy, so its part that is not marked yet is
spread over all open positions of the strategy, in proportion to their cost. The ledger spreads the
value of a position over its lots.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from hashlib import sha256

from ...wire.controller import StrategyStatus
from ...wire.ledger import LedgerPosition, Mark
from ...wire.money import from_minor, minor_of_float, share, to_minor

__all__ = ["marks_of"]

KEY_MAX = 128


def marks_of(
    positions: Sequence[LedgerPosition], statuses: Sequence[StrategyStatus], session: str
) -> tuple[Mark, ...]:
    """The marks that bring the book's positions to the engine's figures.

    There is none for a position whose value stays.
    """
    unrealized = {status.name: minor_of_float(status.unrealized_pnl) for status in statuses}
    held: dict[str, list[LedgerPosition]] = {}
    for position in positions:
        if position.strategy is not None and unrealized.get(position.strategy) is not None:
            held.setdefault(position.strategy, []).append(position)
    marks = []
    for strategy, of_strategy in held.items():
        marked = sum(_minor(position.value - position.cost) for position in of_strategy)
        gain = (unrealized[strategy] or 0) - marked
        for position, part in zip(of_strategy, _spread(gain, of_strategy), strict=True):
            if part:
                value = position.value + from_minor(part)
                # The value of a position is a total that does not know its side.
                total = value if position.quantity > 0 else -value
                key = _key(strategy, position.instrument, session)
                marks.append(Mark(position.instrument, total, key=key, strategy=strategy))
    return tuple(marks)


def _spread(gain: int, positions: Sequence[LedgerPosition]) -> list[int]:
    """The part of the gain for each position; the last one takes what rounding left over."""
    costs = [abs(_minor(position.cost)) for position in positions]
    if not any(costs):
        costs = [1] * len(positions)
    left, weight, parts = gain, sum(costs), []
    for cost in costs:
        part = share(left, cost, weight) if weight else 0
        left, weight = left - part, weight - cost
        parts.append(part)
    return parts


def _minor(amount: Decimal) -> int:
    return to_minor(amount).minor


def _key(strategy: str, instrument: str, session: str) -> str:
    """The key of a mark; hashed when it would be too long, or the same as that of another pair."""
    whole = f"mark:{strategy}:{instrument}:{session}"
    if len(whole) <= KEY_MAX and ":" not in strategy + instrument:
        return whole
    names = f"{len(strategy)}:{strategy}{instrument}"
    return f"mark:{sha256(names.encode()).hexdigest()}:{session}"
