"""The four sentences at the end of an alert."""

from __future__ import annotations

from fundops.wire.aftermath import NAMES_MAX, aftermath, names_of

UNDO = "fundops kill-switch release --by NAME --reason TEXT"


def test_before_a_report_of_the_engine_nothing_is_known_of_what_is_open() -> None:
    assert aftermath(stopped=["a", "b"], next_act="stop_all is asked again", undo=UNDO) == (
        "Stopped: a, b. Open orders and positions: not known yet. Next by itself: stop_all is asked"
        f" again. To undo: {UNDO}."
    )


def test_what_the_engine_reported_is_counted() -> None:
    text = aftermath(
        stopped="all with real money",
        open_orders=0,
        open_positions=1,
        protective_orders=1_200,
        next_act="none",
        undo=UNDO,
    )
    assert text.startswith(
        "Stopped: all with real money. Open: 0 orders, 1 position, 1,200 protective orders. "
    )


def test_one_unknown_count_makes_neither_known() -> None:
    assert "not known yet" in aftermath(
        stopped=(), open_orders=0, open_positions=None, next_act="none", undo=UNDO
    )


def test_of_many_strategies_the_first_are_named() -> None:
    assert names_of([]) == "none"
    assert names_of(["a"] * NAMES_MAX) == ", ".join(["a"] * NAMES_MAX)
    assert names_of([f"s{number}" for number in range(1_234)]).endswith("s9 and 1,224 more")
