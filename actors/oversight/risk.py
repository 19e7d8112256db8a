"""Risk of a session's end: value at risk of the fund, and strategies whose results move together.

Pure; money in minor units. Value at risk is historical: of the last sessions the k-th worst one,
with k = 5% of them, rounded up. Correlation is Pearson's, of the P&L per session of two strategies
with real money, over the sessions that both of them have.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from itertools import combinations
from operator import mul
from typing import NamedTuple

__all__ = ["LOOKBACK", "SAMPLES_MIN", "Pair", "Series", "value_at_risk", "worst_pair"]

LOOKBACK = 100  # sessions
SAMPLES_MIN = 20
TAIL_PERCENT = 5
# Pairs grow with the square of the strategies. Of more than these the ones with the largest P&L are
# compared.
CORRELATED_MAX = 500
# Pairs between two yields: a third of a millisecond.
PAIRS_AT_ONCE = 128


class Pair(NamedTuple):
    """Two strategies and the correlation of their P&L per session."""

    first: str
    second: str
    correlation: float


class Series:
    """The P&L of each session, of the fund and of each strategy, as differences of totals."""

    def __init__(self) -> None:
        self.fund: list[int] = []  # oldest first
        self.strategies: dict[str, list[int]] = {}  # those in the newest session
        self._fund_total: int | None = None  # None: no session yet
        self._totals: Mapping[str, int] = {}

    def add(self, fund_total: int, totals: Mapping[str, int]) -> None:
        """Take the totals at the end of a session.

        A strategy that was not in the one before begins anew: there is no P&L of this session.
        """
        if self._fund_total is not None:
            self.fund = [*self.fund, fund_total - self._fund_total][-LOOKBACK:]
        self.strategies = {
            name: [*self.strategies.get(name, ()), total - self._totals[name]][-LOOKBACK:]
            if name in self._totals
            else []
            for name, total in totals.items()
        }
        self._fund_total, self._totals = fund_total, totals


def value_at_risk(pnl: Sequence[int]) -> int | None:
    """The loss of the k-th worst session, 0 when that one made money; None: too few sessions."""
    if len(pnl) < SAMPLES_MIN:
        return None
    worst = -(-len(pnl) * TAIL_PERCENT // 100)
    return max(0, -sorted(pnl)[worst - 1])


def worst_pair(
    series: Mapping[str, Sequence[int]], above: float
) -> Generator[None, None, Pair | None]:
    """The pair with the highest correlation above this figure; None: there is none.

    It yields after each piece of its work, so that the caller can let others run.
    """
    known = {name: pnl for name, pnl in series.items() if len(pnl) >= SAMPLES_MIN and any(pnl)}
    if len(known) > CORRELATED_MAX:
        largest = sorted(known, key=lambda name: -sum(map(abs, known[name])))
        known = {name: known[name] for name in sorted(largest[:CORRELATED_MAX])}
    found: Pair | None = None
    lengths = sorted({len(pnl) for pnl in known.values()})
    for length in lengths:
        yield
        least = above if found is None else found.correlation
        better = yield from _worst_of(known, length, least)
        found = better or found
    return found


class _Unit(NamedTuple):
    """A series around its mean, of length 1: the product of two is their correlation."""

    name: str
    exact: bool  # the strategy has no more sessions than these
    head: tuple[float, ...]  # of the sessions in which the strategies moved most
    tail: tuple[float, ...]
    rest: float  # length of the tail


def _worst_of(
    known: Mapping[str, Sequence[int]], length: int, above: float
) -> Generator[None, None, Pair | None]:
    """The worst pair of which the shorter series has this length."""
    units = _units(known, length)
    found: Pair | None = None
    for done, (first, second) in enumerate(combinations(units, 2), 1):
        if not done % PAIRS_AT_ONCE:
            yield
        if not (first.exact or second.exact):
            continue  # compared over more sessions
        correlation = sum(map(mul, first.head, second.head))
        # The tails add no more than the product of their lengths, which settles most pairs.
        if correlation + first.rest * second.rest <= above:
            continue
        correlation += sum(map(mul, first.tail, second.tail))
        if correlation > above:
            above, found = correlation, Pair(first.name, second.name, min(1.0, correlation))
    return found


def _units(known: Mapping[str, Sequence[int]], length: int) -> list[_Unit]:
    """The series that have so many sessions, each with its largest sessions first."""
    centred: dict[str, list[float]] = {}
    for name, pnl in known.items():
        if len(pnl) < length:
            continue
        newest = pnl[-length:]
        mean = sum(newest) / length
        around = [value - mean for value in newest]
        size = math.hypot(*around)
        if size > 0:
            centred[name] = [value / size for value in around]
    energy = [sum(value * value for value in column) for column in zip(*centred.values())]  # noqa: B905  equal
    order = sorted(range(len(energy)), key=lambda session: -energy[session])
    cut = length // 4
    units = []
    for name, values in centred.items():
        ordered = tuple(values[session] for session in order)
        head, tail = ordered[:cut], ordered[cut:]
        exact = len(known[name]) == length
        units.append(_Unit(name, exact, head, tail, math.hypot(*tail)))
    return units
