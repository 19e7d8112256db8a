"""The border: what is let in, what it becomes, and what is refused by name."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundops.runtime import ConfigError
from fundops.wire import border
from fundops.wire.controller import FeedStatus, StopReport, StrategyStatus
from fundops.wire.foreign import fitted


class Text(str):
    """A subclass, as pandas and numpy have one."""


class Hostile:
    """Raises at every question."""

    def __float__(self) -> float:
        raise RuntimeError("no number")

    def __index__(self) -> int:
        raise RuntimeError("no number")

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


OUR_OWN = {str, int, float, Decimal, bool, type(None)}
ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.text(max_size=3)
    | st.complex_numbers()
    | st.builds(Hostile)
    | st.lists(st.integers(), max_size=2)
)


@given(ANYTHING)
def test_a_number_is_finite_and_of_our_own_type_or_refused(value: Any) -> None:
    refused: list[str] = []
    try:
        own = border.number(value, "equity")
        assert type(own) in (int, float, Decimal)
        assert math.isfinite(own)
    except ConfigError as refusal:
        refused.append(refusal.field)
    assert set(refused) <= {"equity"}


@given(ANYTHING, st.integers(min_value=0, max_value=8))
def test_no_value_in_any_field_raises_anything_but_a_named_refusal(value: Any, at: int) -> None:
    fields = StrategyStatus.__struct_fields__
    for field in (fields[at], fields[at + 8]):
        status: Any = StrategyStatus(**{"name": "s", "state": "running", field: value})
        refused: list[str] = []
        try:
            own = border.strategy_status(status).status
            assert own.state in border.STATES
            assert {type(kept) for kept in msgspec.structs.astuple(own)} <= OUR_OWN
            assert msgspec.json.decode(msgspec.json.encode(own))["name"] == own.name
        except ConfigError as refusal:
            refused.append(refusal.field)
        assert set(refused) <= {field, "n_wins"}


@pytest.mark.parametrize("field", ["equity", "capital_cap", "twin_equity"])
@pytest.mark.parametrize("value", [math.nan, math.inf, "10", True, Hostile(), 1e300])
def test_an_optional_figure_is_a_finite_number_or_refused(field: str, value: Any) -> None:
    status = StrategyStatus(**{"name": "s", "state": "running", field: value})
    with pytest.raises(ConfigError) as refusal:
        border.strategy_status(status)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("value", "is_retryable"),
    [(False, False), (0, False), (True, True), ("", True), (Hostile(), True)],
)
def test_only_a_value_that_says_so_makes_a_failure_final(value: Any, is_retryable: bool) -> None:
    status = StrategyStatus("s", "failed", retryable=value)
    assert border.strategy_status(status).status.retryable is is_retryable


def test_types_of_the_host_become_our_own() -> None:
    status = StrategyStatus(Text("s"), Text("running"), stage=Text("live"))  # type: ignore[arg-type]
    own = border.strategy_status(status).status
    assert own == StrategyStatus("s", "running", stage="live")
    assert {type(own.name), type(own.state), type(own.stage)} == {str, str, str}


@pytest.mark.parametrize("name", ["", " s", "s ", "a\nb", "\ud800", "x" * 129, None, 5, b"s"])
def test_a_name_that_could_be_mistaken_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match=r"^name: "):
        border.name(name, "name")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), ("a\ud800b", "a?b"), (ValueError("x"), "x"), (Hostile(), "some Hostile")],
)
def test_a_free_text_is_repaired_and_never_refused(value: Any, text: str) -> None:
    assert fitted(value) == text
    assert fitted("x" * 5_000, 10) == "x" * 10


@pytest.mark.parametrize("count", [-1, 1.0, "1", None, True, Hostile(), 2**63])
@pytest.mark.parametrize("field", ["open_orders", "open_positions", "protective_orders"])
def test_a_stop_report_counts_in_whole_numbers(count: Any, field: str) -> None:
    report = StopReport(**{"open_orders": 0, "open_positions": 0, field: count})
    with pytest.raises(ConfigError) as refusal:
        border.stop_report(report)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("field", "feed"),
    [
        ("name", FeedStatus("", None)),
        ("last_data_us", FeedStatus("x", "12:00")),  # type: ignore[arg-type]
        ("last_data_us", FeedStatus("x", 1.5)),  # type: ignore[arg-type]
        ("stale_after_s", FeedStatus("x", 1, math.nan)),
        ("stale_after_s", FeedStatus("x", 1, 0)),
        ("feed", "x"),
    ],
)
def test_a_feed_is_refused_by_the_field_that_is_wrong(field: str, feed: Any) -> None:
    with pytest.raises(ConfigError) as refusal:
        border.feed_status(feed)
    assert refusal.value.field == field
