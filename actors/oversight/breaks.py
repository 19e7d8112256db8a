"""The comparison of the two NAVs, the ledger's and the guard's. Pure; money in minor units.

They rest on different reports of the engine, which need not come in one moment, so only a break
that stands is one.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...wire.controller import StrategyStatus
from ...wire.ledger import LedgerPosition
from ...wire.money import MINOR_PER_UNIT, minor_of_float, to_minor

__all__ = ["BreakWatch", "is_break", "unmarked_minor"]

# A basis point of NAV, if that is more than the tolerance in money.
BREAK_TOLERANCE_FRACTION = 1e-4
BREAK_LOOKS = 3
BREAK_STANDS_S = 60.0


def is_break(gap_minor: int, expected_minor: int, tolerance: float) -> bool:
    """Whether the two NAVs differ by more than rounding explains; `tolerance` in the currency."""
    allowed = max(tolerance * MINOR_PER_UNIT, BREAK_TOLERANCE_FRACTION * abs(expected_minor))
    return bool(abs(gap_minor) > allowed)


def unmarked_minor(positions: Sequence[LedgerPosition], statuses: Sequence[StrategyStatus]) -> int:
    """Unrealized P&L of the strategies with open positions that the book has not marked yet.

    The book is marked at a session's end alone; the guard's NAV has it at each tick.
    """
    marked: dict[str, int] = {}
    for position in positions:
        gain = to_minor(position.value - position.cost).minor
        name = position.strategy or ""
        marked[name] = marked.get(name, 0) + gain
    unmarked = 0
    for status in statuses:
        if status.name in marked:
            reported = minor_of_float(status.unrealized_pnl)
            unmarked += 0 if reported is None else reported - marked[status.name]
    return unmarked


class BreakWatch:
    """The looks that saw a break, in a row."""

    def __init__(self) -> None:
        self._looks = 0
        self._since_s = 0.0

    def look(self, is_broken: bool, now_s: float) -> bool:
        """Whether the break has stood long enough to be told; `now_s` is monotonic."""
        if not is_broken:
            self._looks = 0
            return False
        if not self._looks:
            self._since_s = now_s
        self._looks += 1
        return self._looks >= BREAK_LOOKS and now_s - self._since_s >= BREAK_STANDS_S
