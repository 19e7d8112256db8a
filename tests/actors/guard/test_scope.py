"""The scope of the kill switch: it spares only what is known to have no real money."""

from __future__ import annotations

import pytest

from fundops.actors.guard.scope import spared
from fundops.wire.guard import StrategyBook
from fundops.wire.promotion import EntitlementTerms, PromotionStage

PAPER = EntitlementTerms("s", PromotionStage.Paper, "paper", 0.0)
LIVE = EntitlementTerms("s", PromotionStage.Live_Small, "live", 0.01)


@pytest.mark.parametrize(
    ("book", "terms", "is_spared"),
    [
        (StrategyBook(), PAPER, True),
        (None, PAPER, True),
        (StrategyBook(had_real=True), PAPER, True),
        (StrategyBook(real=True), PAPER, False),
        (StrategyBook(had_real=True, closing="2026-01-05"), PAPER, False),
        (StrategyBook(), LIVE, False),
        (None, LIVE, False),
        (StrategyBook(real=True), None, False),
        (StrategyBook(), None, True),
    ],
)
def test_real_money_at_the_engine_or_by_the_stage_is_in_scope(
    book: StrategyBook | None, terms: EntitlementTerms | None, is_spared: bool
) -> None:
    books = {} if book is None else {"s": book}
    by_name = {} if terms is None else {"s": terms}
    assert ("s" in spared("live", books, by_name)) is is_spared


def test_all_or_promotion_off_spares_none() -> None:
    books = {"s": StrategyBook()}
    assert spared("all", books, {"s": PAPER}) == frozenset()
    assert spared("live", books, None) == frozenset()
