"""A limit that is looser than at the last start is told, and so is live money nobody is told of."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from fundops.config import FundConfig
from fundops.fund import Fund
from fundops.limits import Loosened, limits_of, loosened
from fundops.runtime import InlineWorker, Worker
from fundops.testing import FakeController, virtual_fund
from fundops.wire.controller import StrategyStatus


def _limits(**settings: Any) -> dict[str, Any]:
    return limits_of(FundConfig(total_capital=1, **settings))


@pytest.mark.parametrize(
    ("setting", "strict", "loose"),
    [
        ("max_fund_drawdown_pct", 10.0, 20.0),
        ("max_total_entitlement_pct", 100.0, None),
        ("var_budget", 300.0, None),
        ("min_sharpe", 1.5, 1.0),
        ("min_trades", 50, 0),
        ("on_blind", "kill", "reduce"),
        ("promotion_policy", "guarded", "literal"),
        ("mode", "observe", "act"),
    ],
)
def test_a_limit_is_loosened_on_one_side_only(setting: str, strict: Any, loose: Any) -> None:
    tight, wide = _limits(**{setting: strict}), _limits(**{setting: loose})
    assert loosened(tight, wide) == (Loosened(setting, strict, loose),)
    assert loosened(wide, tight) == ()
    assert loosened(tight, tight) == ()


def test_what_was_stored_by_another_version_is_no_limit() -> None:
    now = _limits()
    assert loosened({}, now) == ()
    assert loosened(dict.fromkeys(now, "nonsense"), now) == ()
    assert loosened({"gone": 1}, now) == ()


async def test_a_limit_that_was_loosened_between_two_starts_is_one_warning(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {"db_path": tmp_path / "x.db", "alert_log": True}
    told: list[list[str]] = []
    for limit in (15, 15, 18, 18, 12):
        async with virtual_fund(max_fund_drawdown_pct=limit, **settings) as world:
            before = len(told) and sum(map(len, told))
            await world.tick()
            alerts = [
                f"{alert.level.value} {alert.title}: {alert.message}"
                for alert in world.sent_alerts()
                if "loosened" in alert.title
            ]
            told.append(alerts[before:])
    assert told == [
        [],
        [],
        [
            "WARNING Limit max_fund_drawdown_pct was loosened: from 15 to 18 since the last start",
        ],
        [],
        [],
    ]


@pytest.mark.parametrize(("webhook", "warnings"), [(None, 1), ("https://example.org/x", 0)])
async def test_real_money_that_no_channel_tells_a_person_of_is_logged_once(
    caplog: pytest.LogCaptureFixture, webhook: str | None, warnings: int
) -> None:
    engine = FakeController()
    async with virtual_fund(engine, alert_webhook_url=webhook) as world:
        await world.tick()
        assert "no alert reaches a person" not in caplog.text
        engine.statuses["s"] = StrategyStatus("s", "running", 1, 1)
        for _ in range(3):
            await world.tick()
        assert caplog.text.count("no alert reaches a person") == warnings


def _inline(name: str) -> Worker:
    return InlineWorker()


@pytest.mark.parametrize(("policy", "warnings"), [("literal", 1), ("guarded", 0)])
async def test_a_literal_policy_with_a_real_controller_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, policy: Any, warnings: int
) -> None:
    config = FundConfig(
        total_capital=1,
        db_path=tmp_path / "x.db",
        promotion_policy=policy,
        tick_interval_s=None,
        control_socket=False,
    )
    with caplog.at_level(logging.WARNING, "fundops"):
        async with Fund.open(config, FakeController(), make_worker=_inline):
            pass
    assert caplog.text.count("with a real controller") == warnings


@pytest.mark.parametrize("mode", ["act", "observe"])
async def test_the_status_says_whether_the_fund_acts(mode: str) -> None:
    async with virtual_fund(mode=mode) as world:
        await world.tick()
        assert (await world.fund.status()).mode == mode
