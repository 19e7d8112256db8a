"""The strategies of a fund that does not run, and their capital, as its file has them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Final

from fundops.actors.persistence import Rows
from fundops.actors.promotion import Capital, PromotionPolicy, schema
from fundops.actors.promotion.capital import beyond_bound, entitled_minor
from fundops.actors.promotion.evidence import variance_of
from fundops.actors.promotion.strategy import Strategy
from fundops.config import FundConfig
from fundops.file import meta
from fundops.limits import decoded
from fundops.wire.border import NAME_MAX
from fundops.wire.errors import UnknownStrategy
from fundops.wire.foreign import fitted

__all__ = ["FileBook", "capital_in"]

_BOUND: Final = "max_total_entitlement_pct"


def capital_in(rows: Rows) -> Capital:
    """The capital of the fund to which the file belongs, with the bound of its last run.

    The file of a manager alone has neither.
    """
    known = meta.read(rows)
    if "total_capital" not in known:
        return Capital()
    limits = decoded(known.get("limits"))
    # A fund that never ran has the default bound.
    given = {name: limits[name] for name in (_BOUND,) if name in limits}
    return FundConfig(total_capital=known["total_capital"], **given).promotion_capital()


class FileBook:
    """The strategies as the file has them."""

    def __init__(self, rows: Rows, policy: PromotionPolicy, capital: Capital) -> None:
        self.rows = rows
        self._policy = policy
        self._capital = capital
        self._variances: dict[str, float | None] = {}  # by family, for one call

    def by_name(self) -> list[Strategy]:
        """All of them, in the order of their names."""
        return schema.load_all(self.rows)

    def known(self, name: str) -> Strategy | None:
        """The strategy that has this name or this id."""
        # A lone surrogate is in no name, and no parameter of a query.
        return schema.find(self.rows, name) if fitted(name) == name else None

    def find(self, id_or_name: object) -> Strategy:
        """As `known`. Raises: `UnknownStrategy`."""
        found = self.known(id_or_name) if isinstance(id_or_name, str) else None
        if found is None:
            raise UnknownStrategy(fitted(id_or_name, NAME_MAX))
        return found

    def others_minor(self, strategy: Strategy) -> int:
        """The real capital that all other strategies are entitled to; 0 where no capital is known,
        since none is shared.
        """
        if self._capital.fund_minor is None:
            return 0
        return sum(self._entitled.values()) - self._entitled.get(strategy.id, 0)

    @cached_property
    def _entitled(self) -> Mapping[str, int]:
        """The real capital of each strategy, by id."""
        return {
            strategy.id: entitled_minor(strategy, self._policy, self._capital)
            for strategy in self.by_name()
        }

    @property
    def beyond(self) -> frozenset[str]:
        """The ids of those that have no real capital, since all together are beyond the bound."""
        return self._beyond

    @cached_property
    def _beyond(self) -> frozenset[str]:
        return beyond_bound(self.by_name(), self._policy, self._capital)

    @cached_property
    def _families(self) -> Mapping[str, int]:
        return schema.versions_by_family(self.rows)

    def trials(self, strategy: Strategy) -> int:
        """The versions of its family that were ever evaluated."""
        if strategy.family is None:
            return strategy.versions
        return self._families.get(strategy.family, strategy.versions)

    def trial_variance(self, strategy: Strategy, periods_per_year: float) -> float | None:
        """The variance of the Sharpe ratios of its family, per session; None: unknown."""
        family = strategy.family
        if family is None:
            return None
        if family not in self._variances:
            trials = schema.family(self.rows, family)
            self._variances[family] = variance_of(trials, periods_per_year)
        return self._variances[family]
