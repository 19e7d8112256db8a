"""The pure parts of the tick: marks, breaks, and the stream's texts."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from fundops import PromotionStage, StrategyStatus
from fundops.actors.oversight import shown
from fundops.actors.oversight.breaks import BreakWatch, is_break, unmarked_minor
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
        (position("5", "500", "500"), -600, D(-100)),
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
        ([position("5", "500", "500", strategy="other")], 20),
        ([position("5", "500", "500")], float("nan")),
    ],
    ids=["booked already", "no status", "no number"],
)
def test_a_position_that_cannot_be_marked_or_need_not_be_is_left(
    positions: list[LedgerPosition], unrealized: float
) -> None:
    status = StrategyStatus("mr", "running", unrealized_pnl=unrealized)
    assert marks_of(positions, [status], "2026-01-05") == ()


def test_every_open_position_is_marked_in_proportion_to_cost() -> None:
    """What is marked already counts, and no minor unit of the engine's figure is lost."""
    held = [
        LedgerPosition("mr", "X", D(5), D(500), D(530)),
        LedgerPosition("mr", "Y", D(-1), D(-100), D(-100)),
        LedgerPosition("mr", "Z", D(1), D(100), D("100.00000001")),
        LedgerPosition("other", "X", D(1), D(1), D(1)),
        LedgerPosition(None, "X", D(1), D(1), D(1)),
    ]
    status = StrategyStatus("mr", "running", unrealized_pnl=100)
    marks = marks_of(held, [status], "2026-01-05")
    assert [mark.instrument for mark in marks] == ["X", "Y", "Z"]
    x, y, z = (D(str(mark.value)) for mark in marks)
    assert (x - 500) + (100 - y) + (z - 100) == 100
    assert (x, y) == (D("579.99999999"), D(90))


def test_positions_without_cost_share_a_gain_evenly() -> None:
    held = [LedgerPosition("mr", name, D(1), D(0), D(0)) for name in "XY"]
    status = StrategyStatus("mr", "running", unrealized_pnl=5)
    assert [mark.value for mark in marks_of(held, [status], "s")] == [D("2.5"), D("2.5")]


def test_the_key_of_a_mark_fits_and_is_that_of_one_position() -> None:
    names = [("s" * 128, "i" * 128), ("a:b", "c"), ("a", "b:c")]
    marks = [
        marks_of([LedgerPosition(name, of, D(1), D(1), D(1))], [status], "2026-01-05")[0]
        for name, of in names
        for status in [StrategyStatus(name, "running", unrealized_pnl=5)]
    ]
    keys = [str(mark.key) for mark in marks]
    assert len(set(keys)) == 3
    assert max(map(len, keys)) <= 128


def test_two_navs_break_beyond_a_cent_and_a_basis_point() -> None:
    assert not is_break(1_000_000, 0, 0.01)
    assert is_break(1_000_001, 0, 0.01)
    assert not is_break(10**9, 10**13, 0.01)
    assert is_break(-(10**9) - 1, 10**13, 0.01)
    assert not is_break(500_000_000, 0, 5)


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ((0, 1, 2, 59), [False] * 4),
        ((0, 59.9, 60), [False, False, True]),
        ((0, 100), [False, False]),
        ((0, 30, 60, 90), [False, False, True, True]),
    ],
    ids=["under a minute", "third look after a minute", "two looks", "it stands"],
)
def test_a_break_is_told_after_three_looks_and_a_minute(
    times: tuple[float, ...], told: list[bool]
) -> None:
    watch = BreakWatch()
    assert [watch.look(True, at) for at in times] == told
    assert not watch.look(False, 200)
    assert [watch.look(True, 201 + at) for at in times] == told, "the count begins anew"


def test_unrealized_pnl_that_is_not_marked_yet_is_no_break() -> None:
    held = [
        position("5", "500", "520"),
        position("1", "10", "10"),
        position("1", "7", "9", strategy="x"),
    ]
    statuses = [StrategyStatus("mr", "running", unrealized_pnl=50), StrategyStatus("y", "running")]
    assert unmarked_minor(held, statuses) == 30 * 10**8
    assert unmarked_minor([], statuses) == 0
    assert unmarked_minor(held, [StrategyStatus("mr", "running", unrealized_pnl=float("nan"))]) == 0


def test_the_stream_shows_money_as_text_and_the_stage_of_the_database() -> None:
    status = StrategyStatus("mr", "running", equity=D("90071992547409.93"), stage="paper")
    terms = {"mr": EntitlementTerms("mr", PromotionStage.Live_Small, "live", 0.01)}
    row = shown.strategies([status], terms)["mr"]
    assert (row["equity"], row["stage"]) == ("90071992547409.93", "live-small")
    assert shown.strategies([status], {})["mr"]["stage"] == "paper"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e21, "1" + 21 * "0"), (10**18 + 1, "1000000000000000001"), (0.1, "0.1"), (None, None)],
)
def test_every_figure_of_a_strategy_is_shown_as_text(value: float | None, text: str) -> None:
    figures = ("equity", "allocated", "realized_pnl", "unrealized_pnl", "capital_cap")
    status = StrategyStatus("mr", "running", **dict.fromkeys((*figures, "twin_equity"), value))
    row = shown.strategies([status], {})["mr"]
    assert [row[figure] for figure in (*figures, "twin_equity")] == 6 * [text]
    money = [
        field.name
        for field in msgspec.structs.fields(StrategyStatus)
        if "Decimal" in str(field.type)
    ]
    assert sorted(money) == sorted((*figures, "twin_equity"))
