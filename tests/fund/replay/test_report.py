"""The demo's report says on which terms its figures were made."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from rich.console import Group

from fundops.replay.report import render


def test_the_report_says_which_fees_the_demo_charges() -> None:
    nothing: dict[str, Any] = {}
    report: Any = SimpleNamespace(
        sessions=1,
        first="2014-01-02",
        last="2014-01-02",
        seed=1,
        wall_s=1.0,
        status=SimpleNamespace(
            total_capital=Decimal(1),
            nav=Decimal(1),
            drawdown_pct=0.0,
            total_fees=Decimal(0),
            kill_switch="OFF",
        ),
        strategies=(),
        history=(),
        balance_sheet=nothing,
        income_statement=nothing,
        alerts=SimpleNamespace(by_category=nothing, suppressed_by_category=nothing, by_outcome={}),
        delivered=0,
        recovery={"total_attempts": 0},
        tree=(),
        trial_balance=Decimal(0),
        entries=1,
        fills=0,
        fills_booked=0,
        drilled=("ledger",),
        actor_restarts=1,
    )
    rendered = render(report)
    assert isinstance(rendered, Group)
    text = str(rendered.renderables[0])
    assert "fees of 2% a year and 20% of gains" in text
