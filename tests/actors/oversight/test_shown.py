"""The topic `fund` and its neighbours as they are shown: money exact, limits in money."""

from decimal import Decimal
from typing import Any

from fundops.actors.oversight import shown
from fundops.runtime import DAY_US
from fundops.wire.controller import FeedStatus, StrategyStatus
from fundops.wire.guard import GuardState, KillStatus, StrategyBook
from fundops.wire.oversight import FundStatus
from fundops.wire.persistence import StorageStatus
from fundops.wire.stream.records import Fund, Kill, Storage

OFF = KillStatus("OFF", "", "", None)
MINOR = 10**8


def status(nav: str = "85000", **changed: Any) -> FundStatus:
    fields: dict[str, Any] = {
        "running": True,
        "total_capital": Decimal(100_000),
        "nav": Decimal(nav),
        "drawdown_pct": 15.0,
        "high_water_mark": Decimal(100_000),
        "running_strategies": 1,
        "total_fees": Decimal(0),
        "kill_switch": "OFF",
        "mode": "act",
        "strategies_by_stage": {"paper": 1},
        "alerts_24h": 0,
        "breakers_open": 0,
        "ticks": 1,
    }
    return FundStatus(**(fields | changed))


def fund(found: FundStatus, guard: GuardState = GuardState(), **changed: Any) -> dict[str, Any]:  # noqa: B008
    options: dict[str, Any] = {"now_us": 9, "tick_us": 8, "data_us": 7, "nav_open_minor": None}
    storage = StorageStatus("ok", None, 1, 1, 0, 0.7)
    return shown.fund(found, guard, shown.FundFace(), OFF, storage, **(options | changed))


def test_every_field_of_the_record_is_shown() -> None:
    topic = fund(status(), nav_open_minor=86_000 * MINOR)
    assert tuple(topic) == Fund.__struct_fields__
    assert (topic["nav"], topic["nav_open"]) == ("85000", "86000.00000000")
    assert (topic["kill"], topic["storage"]) == (
        Kill("OFF", "", "", None),
        Storage("ok", None, 0.7),
    )


def test_the_headroom_is_the_money_until_the_kill_switch() -> None:
    guard = GuardState(units=1.0, peak_per_unit=100_000.0 * MINOR)
    topic = fund(status("90000.01"), guard)
    assert Decimal(topic["peak_nav"]) == 100_000
    assert Decimal(topic["headroom"]) == Decimal("5000.01")
    assert Decimal(fund(status("80000"), guard)["headroom"]) == 0


def test_before_the_first_look_nav_is_its_own_peak() -> None:
    topic = fund(status("100000"))
    assert Decimal(topic["peak_nav"]) == 100_000
    assert Decimal(topic["headroom"]) == 15_000


def test_money_beyond_the_floats_of_javascript_is_exact() -> None:
    assert fund(status("90071992547409.93"))["nav"] == "90071992547409.93"


def test_a_strategy_shows_the_books_of_the_guard() -> None:
    book = StrategyBook(
        pnl_minor=-5 * MINOR,
        real=True,
        worth_minor=75 * MINOR,
        peak_minor=100 * MINOR,
        paused_by="ann",
        paused_why="news",
        restarted=True,
    )
    guard = GuardState(strategies={"a": book})
    row = shown.strategies([StrategyStatus("a", "paused")], {}, guard)["a"]
    assert Decimal(row["pnl"]) == -5
    assert (row["real"], row["drawdown_pct"]) == (True, 25.0)
    assert (row["paused"], row["paused_by"], row["paused_why"]) == (True, "ann", "news")
    assert row["counters_restarted"]


def test_a_strategy_that_the_guard_does_not_know_has_no_drawdown() -> None:
    reported = StrategyStatus("a", "running", realized_pnl=1, unrealized_pnl=0.5)
    row = shown.strategies([reported], {})["a"]
    assert (row["pnl"], row["drawdown_pct"], row["mode"]) == ("1.5", None, None)


def test_a_feed_is_stale_by_its_own_limit() -> None:
    now_us = DAY_US
    found = shown.feeds(
        [
            FeedStatus("old", now_us - 301_000_000),
            FeedStatus("new", now_us - 299_000_000),
            FeedStatus("rare", None, None),
            FeedStatus("silent", None),
        ],
        now_us,
    )
    assert {name: feed.stale for name, feed in found.items()} == {
        "old": True,
        "new": False,
        "rare": False,
        "silent": True,
    }
