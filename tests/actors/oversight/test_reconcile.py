"""The order that makes the engine's stage and cap equal to the entitlement, by plain calls."""

from __future__ import annotations

from decimal import Decimal

import pytest

from fundops.actors.oversight.steps.reconcile import due
from fundops.wire.controller import StrategyStatus
from fundops.wire.promotion import EntitlementTerms, PromotionStage

CAPITAL_MINOR = 100_000 * 10**8
SMALL = EntitlementTerms("s", PromotionStage.Live_Small, "live", 0.01)
PAPER = EntitlementTerms("s", PromotionStage.Paper, "paper", 0.0)


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize(
    ("terms", "stage", "cap", "change"),
    [
        (SMALL, "live-small", 1_000, "none"),
        (SMALL, "live-small", 999.99, "raise"),
        (SMALL, "live-small", 1_000.01, "cut"),
        (SMALL, "live-scaled", 1_000, "cut"),
        (SMALL, "shadow", None, "raise"),
        (PAPER, "live-small", 1_000, "cut"),
        (PAPER, "shadow", None, "cut"),
        (PAPER, "unheard of", None, "cut"),
        (PAPER, "paper", None, "none"),
        (PAPER, None, None, "none"),
    ],
)
def test_the_engaged_switch_lets_capital_be_cut_and_never_raised(
    terms: EntitlementTerms, stage: str | None, cap: float | None, change: str, killed: bool
) -> None:
    status = StrategyStatus("s", "running", stage=stage, capital_cap=cap)
    order = due(status, terms, CAPITAL_MINOR, killed=killed)
    if change == "none" or (change == "raise" and killed):
        assert order is None
    else:
        capital = Decimal(1_000) if terms is SMALL else Decimal(0)
        assert order == ("s", terms.stage.value, capital)
