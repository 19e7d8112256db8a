"""The real capital that a stage gives to a strategy, in minor units. Pure."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache

import msgspec

from ...wire.money import fraction_of, to_minor
from ...wire.promotion import EntitlementTerms, PromotionStage
from .facts import cap_of
from .policy import PromotionPolicy
from .strategy import Strategy

__all__ = ["Capital", "entitled_minor", "terms_of"]


class Capital(msgspec.Struct, frozen=True):
    """The fund's capital, and how much of it all strategies together may be entitled to."""

    fund_minor: int | None = None  # None: not known, and then there is no bound
    max_total_entitlement_pct: float | None = None  # None: no bound

    def room_minor(self, others_minor: int) -> int | None:
        """The real capital that the other strategies leave to one; None: there is no bound."""
        if self.fund_minor is None or self.max_total_entitlement_pct is None:
            return None
        percent = Decimal(str(self.max_total_entitlement_pct))
        return int(self.fund_minor * percent / 100) - others_minor


def terms_of(
    strategy: Strategy, policy: PromotionPolicy, stage: PromotionStage | None = None
) -> EntitlementTerms:
    """The terms of the strategy in a stage; None: in its own."""
    stage = stage or strategy.stage
    if stage is PromotionStage.Retired:
        return EntitlementTerms(strategy.name, stage, "none", 0.0, strategy.budget_minor)
    rung = policy.rung(stage)
    set_cap = cap_of(strategy) if stage is strategy.stage else None
    cap = rung.real_capital_cap if set_cap is None else min(set_cap, rung.real_capital_cap)
    return EntitlementTerms(strategy.name, stage, rung.mode, cap, strategy.budget_minor)


def entitled_minor(
    strategy: Strategy,
    policy: PromotionPolicy,
    capital: Capital,
    stage: PromotionStage | None = None,
) -> int:
    """The real capital of the strategy in a stage; None: in its own."""
    terms = terms_of(strategy, policy, stage)
    budget_minor = terms.budget_minor
    if budget_minor is None:
        budget_minor = capital.fund_minor or 0
    return _part_minor(budget_minor, terms.real_capital_fraction)


@lru_cache(maxsize=4_096)
def _part_minor(budget_minor: int, fraction: float) -> int:
    return to_minor(fraction_of(budget_minor, fraction)).minor if fraction else 0
