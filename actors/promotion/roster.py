"""All strategies in memory, with the sums over them that every judgement needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from ...wire.border import NAME_MAX
from ...wire.errors import UnknownStrategy
from ...wire.foreign import fitted
from ...wire.promotion import EntitlementTerms
from ..persistence import Rows
from .capital import Capital, beyond_bound, entitled_minor, terms_of
from .evidence import variance_of
from .policy import PromotionPolicy
from .strategy import Strategy

__all__ = ["Roster"]


class Roster:
    """The strategies of one file, by id and by name: a `Book` that reads no row for them.

    A record here may be newer than on disk: `saved` tells how it is stored.
    """

    def __init__(self, rows: Rows, policy: PromotionPolicy, capital: Capital) -> None:
        self.rows = rows
        self._policy = policy
        self._capital = capital
        self._strategies: dict[str, Strategy] = {}  # by id
        self._saved: dict[str, Strategy] = {}  # by id, as they are on disk
        self._ids: dict[str, str] = {}  # by name
        self._entitled_minor: dict[str, int] = {}  # by id; only those with real capital
        self._total_minor = 0
        self._terms: dict[str, EntitlementTerms] = {}  # by name, as if all were within the bound
        self._beyond: frozenset[str] | None = None  # None: not found yet
        self._versions: Counter[str] = Counter()  # by family
        self._families: dict[str, set[str]] = {}  # the ids of each family
        self._variances: dict[str, float | None] = {}  # by family, until a record changes
        self.reported: Collection[str] = ()  # names in the engine's last report

    def __iter__(self) -> Iterator[Strategy]:
        return iter(tuple(self._strategies.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._ids

    def by_name(self) -> list[Strategy]:
        """All of them, in the order of their names."""
        return [self._strategies[self._ids[name]] for name in sorted(self._ids)]

    def known(self, name: str) -> Strategy | None:
        """The strategy that has this name or this id."""
        return self._strategies.get(self._ids.get(name, name))

    def find(self, id_or_name: object) -> Strategy:
        """As `known`. Raises: `UnknownStrategy`."""
        if not isinstance(id_or_name, str):  # a list would crash the look-up, and the actor
            raise UnknownStrategy(fitted(id_or_name, NAME_MAX))
        strategy = self.known(id_or_name)
        if strategy is None:
            raise UnknownStrategy(id_or_name, reports=id_or_name in self.reported)
        return strategy

    def terms(self) -> dict[str, EntitlementTerms]:
        """The terms of each strategy's stage, by name."""
        beyond = (self._strategies[known] for known in self.beyond)
        cut = {known.name: terms_of(known, self._policy, beyond=self.beyond) for known in beyond}
        return {**self._terms, **cut}

    @property
    def beyond(self) -> frozenset[str]:
        """The ids of those that have no real capital, since all together are beyond the bound."""
        if self._beyond is None:
            room_minor = self._capital.room_minor(self._total_minor)
            fits = room_minor is None or room_minor >= 0
            held = () if fits else self._strategies.values()
            self._beyond = beyond_bound(held, self._policy, self._capital)
        return self._beyond

    @property
    def total_minor(self) -> int:
        """The real capital that all strategies together are entitled to."""
        return self._total_minor

    def others_minor(self, strategy: Strategy) -> int:
        """The real capital that all other strategies are entitled to."""
        return self._total_minor - self._entitled_minor.get(strategy.id, 0)

    def trials(self, strategy: Strategy) -> int:
        """The versions of its family that were ever evaluated."""
        if strategy.family is None:
            return strategy.versions
        return max(strategy.versions, self._versions[strategy.family])

    def trial_variance(self, strategy: Strategy, periods_per_year: float) -> float | None:
        """The variance of the Sharpe ratios of its family, per session; None: unknown."""
        family = strategy.family
        if family is None:
            return None
        if family not in self._variances:
            trials = [self._strategies[known] for known in self._families.get(family, ())]
            self._variances[family] = variance_of(trials, periods_per_year)
        return self._variances[family]

    def saved(self, strategy_id: str) -> Strategy:
        """The record as it is on disk."""
        return self._saved[strategy_id]

    def apply(self, strategy: Strategy) -> None:
        """Keep a record that is on disk now."""
        self._saved[strategy.id] = strategy
        self._ids[strategy.name] = strategy.id
        self.take(strategy)

    def take(self, strategy: Strategy) -> None:
        """Keep a record in memory."""
        before = self._strategies.get(strategy.id)
        if before is strategy:
            return
        if before is None or (before.stage, before.cap) != (strategy.stage, strategy.cap):
            self._beyond = None
            self._terms[strategy.name] = terms_of(strategy, self._policy)
            self._total_minor -= self._entitled_minor.pop(strategy.id, 0)
            minor = entitled_minor(strategy, self._policy, self._capital)
            if minor:
                self._entitled_minor[strategy.id] = minor
                self._total_minor += minor
        if strategy.family is not None:
            versions = 0 if before is None else before.versions
            self._versions[strategy.family] += strategy.versions - versions
            self._families.setdefault(strategy.family, set()).add(strategy.id)
            self._variances.pop(strategy.family, None)
        self._strategies[strategy.id] = strategy
