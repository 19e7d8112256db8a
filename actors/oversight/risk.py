"""Risk of a session's end: value at risk of the fund, and strategies whose results move together.

Pure; money in minor units. Value at risk is historical: of the last sessions the k-th worst one,
with k = 5% of them, rounded up. Correlation is Pearson's, of the P&L per session of two strategies
with real money, over the sessions that both of them have.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from operator import add, mul
from typing import NamedTuple

__all__ = ["LOOKBACK", "SAMPLES_MIN", "Pair", "Series", "value_at_risk", "worst_pair"]

LOOKBACK = 100  # sessions
SAMPLES_MIN = 20
TAIL_PERCENT = 5
# Pairs grow with the square of the strategies. Of more than these the ones with the largest P&L are
# compared.
CORRELATED_MAX = 500
# The part of the sessions that settles most pairs: those in which the strategies moved most.
HEAD_PART = 3
# Pairs between two yields: a third of a millisecond.
PAIRS_AT_ONCE = 128
SERIES_AT_ONCE = 8


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
    units = yield from _units(known, length)
    # Pairs of two longer series are compared over more sessions.
    exact, longer = [unit for unit in units if unit.exact], [u for u in units if not u.exact]
    found: Pair | None = None
    done = 0
    for place, first in enumerate(exact):
        others = [*exact[place + 1 :], *longer]
        done += len(others)
        if done >= PAIRS_AT_ONCE:
            done = 0
            yield
        head, rest = first.head, first.rest
        products = [sum(map(mul, head, other.head)) for other in others]
        for other, product in zip(others, products, strict=True):
            # The tails add no more than the product of their lengths, which settles most pairs.
            if product + rest * other.rest > above:
                correlation = product + sum(map(mul, first.tail, other.tail))
                if correlation > above:
                    above, found = correlation, Pair(first.name, other.name, min(1.0, correlation))
    return found


def _units(known: Mapping[str, Sequence[int]], length: int) -> Generator[None, None, list[_Unit]]:
    """The series that have so many sessions, each with its largest sessions first."""
    centred: dict[str, list[float]] = {}
    energy = [0.0] * length  # of each session, over all strategies
    for done, (name, pnl) in enumerate(known.items(), 1):
        if not done % SERIES_AT_ONCE:
            yield
        if len(pnl) < length:
            continue
        newest = pnl[-length:]
        mean = sum(newest) / length
        around = [value - mean for value in newest]
        size = math.hypot(*around)
        if size > 0:
            centred[name] = [value / size for value in around]
            energy = list(map(add, energy, map(mul, centred[name], centred[name])))
    order = sorted(range(length), key=lambda session: -energy[session])
    cut = length // HEAD_PART
    units: list[_Unit] = []
    for name, values in centred.items():
        if not len(units) % SERIES_AT_ONCE:
            yield
        ordered = [values[session] for session in order]
        head, tail = tuple(ordered[:cut]), tuple(ordered[cut:])
        exact = len(known[name]) == length
        units.append(_Unit(name, exact, head, tail, math.hypot(*tail)))
    return units
