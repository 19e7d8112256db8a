"""A limit that is looser than at the last start is told, and so is live money nobody is told of."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from fundops.actors.alert import told_keys
from fundops.actors.persistence import Reader
from fundops.config import FundConfig
from fundops.fund import Fund
from fundops.limits import Loosened, limits_of, loosened
from fundops.runtime import Clock, InlineWorker, VirtualClock, Worker
from fundops.testing import START_US, FakeController, virtual_fund
from fundops.wire.controller import StrategyStatus

# More of them than alerts of one category leave in a minute.
FIGURES = [
    "max_fund_drawdown_pct",
    "max_strategy_drawdown_pct",
    "max_daily_loss_pct",
    "max_total_entitlement_pct",
    "var_budget",
    "break_tolerance",
    "host_silent_s",
    "max_blind_s",
]


def _limits(**settings: Any) -> dict[str, Any]:
    return limits_of(FundConfig(total_capital=1, **settings))


# A strict and a loose value of each limit.
SIDES: dict[str, tuple[Any, Any]] = {
    "max_fund_drawdown_pct": (10.0, 20.0),
    "max_strategy_drawdown_pct": (20.0, 25.0),
    "max_daily_loss_pct": (2.0, None),
    "max_total_entitlement_pct": (100.0, None),
    "max_correlation": (0.8, 0.9),
    "var_budget": (300.0, None),
    "break_tolerance": (0.01, 1.0),
    "kill_confirm_ticks": (1, 2),
    "flatten_confirm_ticks": (2, 3),
    "lease_s": (10.0, 60.0),
    "host_silent_s": (5.0, 20.0),
    "max_blind_s": (30.0, 90.0),
    "stale_feed_s": (60.0, 600.0),
    "max_drawdown_pct": (10.0, 15.0),
    "min_paper_days": (30, 14),
    "min_trades": (50, 0),
    "min_sharpe": (1.5, 1.0),
    "min_win_rate": (0.5, 0.4),
    "on_blind": ("kill", "reduce"),
    "kill_scope": ("all", "live"),
    "promotion_policy": ("guarded", "literal"),
    "mode": ("observe", "act"),
}


def test_each_limit_has_its_two_sides_here() -> None:
    assert _limits().keys() == SIDES.keys()


@pytest.mark.parametrize("setting", SIDES)
def test_a_limit_is_loosened_on_one_side_only(setting: str) -> None:
    strict, loose = SIDES[setting]
    tight, wide = _limits(**{setting: strict}), _limits(**{setting: loose})
    assert loosened(tight, wide) == (Loosened(setting, strict, loose),)
    assert loosened(wide, tight) == ()
    assert loosened(tight, tight) == ()


def test_what_was_stored_by_another_version_is_no_limit() -> None:
    now = _limits()
    assert loosened({}, now) == ()
    assert loosened(dict.fromkeys(now, "nonsense"), now) == ()
    assert loosened({"gone": 1}, now) == ()


async def test_a_loosened_limit_is_one_warning_that_the_next_start_ends(tmp_path: Path) -> None:
    clock = VirtualClock(START_US)
    settings: dict[str, Any] = {"db_path": tmp_path / "x.db", "alert_log": True, "clock": clock}
    told: list[list[str]] = []
    for limit in (15, 15, 18, 21, 21, 12):
        clock.advance(61)  # past the limit of alerts in a minute
        async with virtual_fund(max_fund_drawdown_pct=limit, **settings) as world:
            before = sum(map(len, told))
            await world.tick()
            sent = [alert for alert in world.sent_alerts() if alert.title.startswith("Limit ")]
            told.append([f"{alert.level.value} {alert.message}" for alert in sent[before:]])
        with Reader(tmp_path / "x.db") as reader:
            is_open = "limit:max_fund_drawdown_pct" in told_keys(reader, "")
        assert is_open == any("WARNING" in text for text in told[-1])
    assert told == [
        [],
        [],
        ["WARNING from 15 to 18 since the last start"],
        ["INFO ", "WARNING from 18 to 21 since the last start"],
        ["INFO "],
        [],
    ]


async def test_more_loosened_limits_than_leave_in_a_minute_are_all_heard(tmp_path: Path) -> None:
    strict: dict[str, Any] = dict.fromkeys(FIGURES, 50.0)
    loose: dict[str, Any] = dict.fromkeys(FIGURES, 51.0)
    for limits in (strict, loose):
        async with virtual_fund(db_path=tmp_path / "x.db", alert_log=True, **limits) as world:
            await world.tick()
            await world.advance(180, step_s=10)
            titles = [alert.title for alert in world.sent_alerts()]
    heard = [name for name in FIGURES if f"Limit {name} was loosened" in titles]
    assert heard == FIGURES


@pytest.mark.parametrize(
    ("channels", "warnings"),
    [({}, 1), ({"alert_log": True}, 1), ({"alert_webhook_url": "https://example.org/x"}, 0)],
)
async def test_real_money_that_no_channel_tells_a_person_of_is_logged_once(
    caplog: pytest.LogCaptureFixture, channels: dict[str, Any], warnings: int
) -> None:
    engine = FakeController()
    async with virtual_fund(engine, **channels) as world:
        await world.tick()
        assert "no alert reaches a person" not in caplog.text
        engine.statuses["s"] = StrategyStatus("s", "running", 1, 1)
        for _ in range(3):
            await world.tick()
        assert caplog.text.count("no alert reaches a person") == warnings


def _inline(name: str) -> Worker:
    return InlineWorker()


@pytest.mark.parametrize(
    ("policy", "controller", "clock", "warnings"),
    [
        ("literal", FakeController(), None, 1),
        ("guarded", FakeController(), None, 0),
        ("literal", None, None, 0),
        ("literal", FakeController(), VirtualClock(START_US), 0),
    ],
    ids=["literal", "guarded", "without a controller", "in virtual time"],
)
async def test_a_literal_policy_with_a_real_controller_is_logged(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    policy: Any,
    controller: FakeController | None,
    clock: Clock | None,
    warnings: int,
) -> None:
    config = FundConfig(
        total_capital=1,
        db_path=tmp_path / "x.db",
        promotion_policy=policy,
        tick_interval_s=None,
        control_socket=False,
    )
    with caplog.at_level(logging.WARNING, "fundops"):
        async with Fund.open(config, controller, clock=clock, make_worker=_inline):
            pass
    assert caplog.text.count("with a real controller") == warnings


@pytest.mark.parametrize("mode", ["act", "observe"])
async def test_the_status_says_whether_the_fund_acts(mode: str) -> None:
    async with virtual_fund(mode=mode) as world:
        await world.tick()
        assert (await world.fund.status()).mode == mode
