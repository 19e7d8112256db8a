"""The daily loss: measured on NAV per unit, told once, lifted by the next session."""

from __future__ import annotations

from typing import Any

import pytest

from fundops.actors.guard import GuardSettings
from fundops.actors.guard.core import Look, look
from fundops.runtime import ConfigError, at_once
from fundops.wire.alert import Level
from fundops.wire.controller import StrategyStatus
from fundops.wire.guard import GuardState

UNIT = 10**8


class Fund:
    """A guard's memory that is looked at by hand."""

    def __init__(self, **settings: Any) -> None:
        self.settings = GuardSettings(
            max_strategy_drawdown_pct=100, **{"max_daily_loss_pct": 2.0, **settings}
        )
        self.state = GuardState()
        self.external = 100_000

    def look(self, pnl: float = 0, session: str = "", **more: Any) -> Look:
        looking = look(
            self.state,
            self.settings,
            (StrategyStatus("s", "running", realized_pnl=pnl),),
            None,
            external_minor=self.external * UNIT,
            posted_fees_minor=0,
            accrued_fees_minor=0,
            capital_minor=100_000 * UNIT,
            session=session,
            **more,
        )
        found = at_once(looking)
        self.state = found.state
        return found

    def told(self, pnl: float, session: str = "", **more: Any) -> list[tuple[Level, bool]]:
        alerts = self.look(pnl, session, **more).alerts
        return [(alert.level, alert.resolves) for alert in alerts if alert.dedup_key == "daily"]


def test_the_limit_is_reached_at_exactly_its_percentage_and_told_once() -> None:
    fund = Fund()
    assert fund.told(0) == []
    assert fund.told(-1_999.99) == []
    assert fund.told(-2_000) == [(Level.CRITICAL, False)]
    assert fund.state.loss_session == ""
    assert fund.told(-3_000) == fund.told(5_000) == [], "it stands until the next session"


def test_the_next_session_lifts_it_and_measures_from_its_own_opening() -> None:
    fund = Fund()
    fund.look()
    fund.look(-2_000)
    assert fund.told(-2_000, "d1") == [(Level.INFO, True)]
    assert fund.state.loss_session is None
    assert fund.told(-3_959.99, "d1") == []  # 2% of 98,000 is 1,960
    assert fund.told(-3_960, "d1") == [(Level.CRITICAL, False)]


def test_the_opening_that_the_tick_gives_counts() -> None:
    fund = Fund()
    fund.look()
    fund.look(-1_500)
    opening = 99_000 * UNIT
    assert fund.told(-2_979.99, "d1", opening_nav_minor=opening) == []  # 2% of 99,000 is 1,980
    assert fund.told(-2_980, "d1", opening_nav_minor=opening) == [(Level.CRITICAL, False)]


def test_a_withdrawal_is_no_loss() -> None:
    fund = Fund()
    fund.look()
    fund.external = 50_000
    assert fund.told(0) == []
    assert fund.told(-999.99) == []
    assert fund.told(-1_000) == [(Level.CRITICAL, False)]


def test_what_mode_observe_found_holds_nothing_back_in_mode_act() -> None:
    fund = Fund()
    fund.look()
    fund.look(-2_000, observing=True)
    assert (fund.state.loss_session, fund.state.loss_observed) == ("", True)
    found = fund.look(-1)
    assert [(one.dedup_key, one.resolves) for one in found.alerts] == [("observe:daily", True)]
    assert fund.state.loss_session is None
    assert fund.told(-2_000) == [(Level.CRITICAL, False)]
    fund.look(-2_000, observing=True)
    assert fund.state.loss_session == "", "what mode act found stands"


def test_without_a_limit_nothing_is_told() -> None:
    fund = Fund(max_daily_loss_pct=None, max_fund_drawdown_pct=100)
    fund.look()
    assert fund.told(-50_000) == []
    assert fund.state.loss_session is None


def test_a_fund_that_restarts_within_the_session_remembers_its_opening() -> None:
    fund = Fund()
    fund.look()
    fund.look(-1_000)
    assert fund.told(-2_000, opening_nav_minor=99_000 * UNIT) == [(Level.CRITICAL, False)]


@pytest.mark.parametrize("limit", [0, -1, 100.5, float("nan")])
def test_a_limit_beyond_its_bounds_is_refused_by_name(limit: float) -> None:
    with pytest.raises(ConfigError) as refusal:
        GuardSettings(max_daily_loss_pct=limit)
    assert refusal.value.field == "max_daily_loss_pct"


def test_a_session_that_opens_with_nothing_or_less_has_nothing_to_lose() -> None:
    for lost in (-100_000, -100_001):
        fund = Fund(max_fund_drawdown_pct=100)
        fund.look()
        fund.look(lost)
        assert fund.told(lost, "d1", opening_nav_minor=(100_000 + lost) * UNIT) == [
            (Level.INFO, True)
        ]
        assert fund.told(lost - 50_000, "d1") == []
        assert fund.state.loss_session is None


@pytest.mark.parametrize(
    ("observing", "act"), [(False, "may only reduce"), (True, "would be allowed to reduce only")]
)
def test_the_alert_says_what_follows_in_either_mode(observing: bool, act: str) -> None:
    fund = Fund()
    fund.look()
    (alert,) = (one for one in fund.look(-2_000, observing=observing).alerts if "aily" in one.title)
    assert alert.message == (
        f"loss 2.0% of the session's opening NAV, limit 2.0%: real money {act} until the next"
        " session"
    )
