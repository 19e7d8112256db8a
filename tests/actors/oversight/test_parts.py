"""The pure parts of the tick: marks, breaks, and the stream's texts."""

from __future__ import annotations

from decimal import Decimal

import pytest

from fundops import PromotionStage, StrategyStatus
from fundops.actors.oversight import shown
from fundops.actors.oversight.breaks import is_break
from fundops.actors.oversight.marks import marks_of
from fundops.wire.ledger import LedgerPosition
from fundops.wire.promotion import EntitlementTerms

D = Decimal


def position(
    quantity: str, cost: str, value: str, *, strategy: str | None = "mr"
) -> LedgerPosition:
    return LedgerPosition(strategy, "X", D(quantity), D(cost), D(value))


@pytest.mark.parametrize(
    ("held", "unrealized", "value"),
    [
        (position("5", "500", "500"), 20, D(520)),
        (position("5", "500", "500"), -600, D(0)),
        (position("-5", "-500", "-500"), 20, D(480)),
        (position("-5", "-500", "-500"), -20, D(520)),
    ],
)
def test_a_mark_brings_a_position_to_the_engines_figure(
    held: LedgerPosition, unrealized: float, value: Decimal
) -> None:
    status = StrategyStatus("mr", "running", unrealized_pnl=unrealized)
    [mark] = marks_of([held], [status], "2026-01-05")
    assert (mark.value, mark.strategy, mark.key) == (value, "mr", "mark:mr:X:2026-01-05")


@pytest.mark.parametrize(
    ("positions", "unrealized"),
    [
        ([position("5", "500", "520")], 20),
        ([position("5", "500", "500"), position("1", "10", "10")], 20),
        ([position("5", "500", "500", strategy="other")], 20),
        ([position("5", "500", "500")], float("nan")),
    ],
    ids=["booked already", "two positions", "no status", "no number"],
)
def test_a_position_that_cannot_be_marked_or_need_not_be_is_left(
    positions: list[LedgerPosition], unrealized: float
) -> None:
    status = StrategyStatus("mr", "running", unrealized_pnl=unrealized)
    assert marks_of(positions, [status], "2026-01-05") == ()


def test_two_navs_break_beyond_a_cent_and_a_basis_point() -> None:
    assert not is_break(1_000_000, 0)
    assert is_break(1_000_001, 0)
    assert not is_break(10**9, 10**13)
    assert is_break(-(10**9) - 1, 10**13)


def test_the_stream_shows_money_as_text_and_the_stage_of_the_database() -> None:
    status = StrategyStatus("mr", "running", equity=D("90071992547409.93"), stage="paper")
    terms = {"mr": EntitlementTerms("mr", PromotionStage.Live_Small, "live", 0.01)}
    row = shown.strategies([status], terms)["mr"]
    assert (row["equity"], row["stage"]) == ("90071992547409.93", "live-small")
    assert shown.strategies([status], {})["mr"]["stage"] == "paper"
