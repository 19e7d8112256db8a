"""The capital of a stage: its cap times the strategy's budget, and the bound of all together.

A promotion or adoption beyond the bound is refused. Where a new policy or a new bound leaves more
in force than it allows, the strategies that entered their stage last have no real capital until all
fit.

Real capital is in minor units of the fund's currency. Caps are fractions of a budget.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from decimal import Decimal

import msgspec

from ...wire.errors import CapitalExceeded, MetricError
from ...wire.money import from_minor, part_minor
from ...wire.promotion import EntitlementTerms, PromotionStage
from .metrics import figure_of
from .policy import PromotionPolicy
from .strategy import Strategy

__all__ = [
    "Capital",
    "beyond_bound",
    "cap_of",
    "check_capital",
    "checked_cap",
    "entitled_minor",
    "excess_minor",
    "kept_within",
    "terms_of",
]


class Capital(msgspec.Struct, frozen=True):
    """The fund's capital, and how much of it all strategies together are entitled to.

    It is not part of the policy: the same rules serve a larger fund.
    """

    fund_minor: int | None = None  # None: not known, and then there is no bound
    max_total_entitlement_pct: float | None = None  # None: there is no bound

    def room_minor(self, others_minor: int) -> int | None:
        """The real capital that the other strategies leave to one; None: there is no bound."""
        percent = self.max_total_entitlement_pct
        if self.fund_minor is None or percent is None:
            return None
        return int(self.fund_minor * Decimal(str(percent)) / 100) - others_minor


def cap_of(strategy: Strategy, policy: PromotionPolicy) -> float:
    """The fraction of its budget that the strategy may use for real: its rung's, or less."""
    if strategy.stage is PromotionStage.Retired:
        return 0.0
    rung = policy.rung(strategy.stage)
    return (
        rung.real_capital_cap if strategy.cap is None else min(strategy.cap, rung.real_capital_cap)
    )


def terms_of(
    strategy: Strategy,
    policy: PromotionPolicy,
    stage: PromotionStage | None = None,
    *,
    beyond: Collection[str] = (),
) -> EntitlementTerms:
    """The terms of the strategy in a stage; None: in its own, with the cap that was set for it.

    `beyond` has the ids of those without real capital.
    """
    if stage is not None and stage is not strategy.stage:
        strategy = msgspec.structs.replace(strategy, stage=stage, cap=None)
    if strategy.stage is PromotionStage.Retired:
        return EntitlementTerms(strategy.name, strategy.stage, "none", 0.0, strategy.budget_minor)
    rung = policy.rung(strategy.stage)
    return EntitlementTerms(
        strategy.name,
        strategy.stage,
        rung.mode,
        0.0 if strategy.id in beyond else cap_of(strategy, policy),
        strategy.budget_minor,
        rung.notional_cap,
    )


def entitled_minor(
    strategy: Strategy,
    policy: PromotionPolicy,
    capital: Capital,
    stage: PromotionStage | None = None,
) -> int:
    """The real capital of the strategy in a stage; None: in its own."""
    if stage is None or stage is strategy.stage:
        cap = cap_of(strategy, policy)
    else:
        cap = policy.rung(stage).real_capital_cap
    budget_minor = strategy.budget_minor
    if budget_minor is None:
        budget_minor = capital.fund_minor or 0
    return part_minor(budget_minor, cap) if cap else 0


def beyond_bound(
    strategies: Iterable[Strategy], policy: PromotionPolicy, capital: Capital
) -> frozenset[str]:
    """The ids of those that have no real capital, so that the others are within the bound.

    They are the newest in their stage. Capital that a person allowed by name beyond this bound or
    a lower one does not count.
    """
    bound_minor = capital.room_minor(0)
    if bound_minor is None:
        return frozenset()
    # Of one instant by name, so that each start finds the same ones.
    newest_first = sorted(
        strategies, key=lambda known: (known.episode.entered_us, known.name), reverse=True
    )
    counted = {}
    for known in newest_first:
        over_minor = known.over_minor if bound_minor >= known.over_bound_minor else 0
        counted[known.id] = max(0, entitled_minor(known, policy, capital) - over_minor)
    beyond_minor, found = sum(counted.values()) - bound_minor, set()
    for strategy_id, minor in counted.items():
        if beyond_minor > 0 and minor:
            beyond_minor -= minor
            found.add(strategy_id)
    return frozenset(found)


def excess_minor(
    after: Strategy, policy: PromotionPolicy, capital: Capital, others_minor: int
) -> int:
    """The real capital of the strategy that the others leave no room for, in minor units."""
    room_minor = capital.room_minor(others_minor)
    if room_minor is None:
        return 0
    return max(0, entitled_minor(after, policy, capital) - max(0, room_minor))


def kept_within(
    after: Strategy, policy: PromotionPolicy, capital: Capital, others_minor: int
) -> Strategy:
    """The record, with no more allowed beyond the bound than it needs for its capital now."""
    excess = excess_minor(after, policy, capital, others_minor)
    return msgspec.structs.replace(after, over_minor=min(after.over_minor, excess))


def check_capital(
    before: Strategy | None,
    after: Strategy,
    policy: PromotionPolicy,
    capital: Capital,
    others_minor: int,
) -> None:
    """Whether the fund's capital allows this beside the others; what raises nothing is allowed.

    Raises: `CapitalExceeded`.
    """
    room_minor = capital.room_minor(others_minor)
    wanted_minor = entitled_minor(after, policy, capital)
    known_minor = 0 if before is None else entitled_minor(before, policy, capital)
    if room_minor is not None and wanted_minor > max(room_minor, known_minor):
        raise CapitalExceeded(
            after.name, after.stage.value, from_minor(wanted_minor), from_minor(room_minor)
        )


def checked_cap(cap: object, stage: PromotionStage, policy: PromotionPolicy) -> float:
    """A cap for this stage: above 0, at most the rung's. Raises: `MetricError`."""
    highest = policy.rung(stage).real_capital_cap
    if not highest:
        raise MetricError("cap", cap, f"is of no use: {stage.value} has no real capital")
    fraction = figure_of(cap)
    if fraction is None or not 0 < fraction <= highest:
        raise MetricError(
            "cap", cap, f"is not a fraction of the budget above 0, at most {highest:g}"
        )
    return fraction
