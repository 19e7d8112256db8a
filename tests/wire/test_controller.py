"""The reports of an engine: the fields that outsiders fill in, in order, with their defaults."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from fundops.wire import controller
from fundops.wire.controller import (
    CashEvent,
    FeedStatus,
    Fill,
    Settlement,
    StopReport,
    StrategyState,
    StrategyStatus,
)
from fundops.wire.ledger import Statement

NOTHING = msgspec.NODEFAULT
FIELDS: dict[type[msgspec.Struct], dict[str, object]] = {
    StrategyStatus: {
        "name": NOTHING,
        "state": NOTHING,
        "equity": None,
        "allocated": 0,
        "realized_pnl": 0,
        "unrealized_pnl": 0,
        "n_trades": 0,
        "n_wins": 0,
        "stage": None,
        "capital_cap": None,
        "error": None,
        "retryable": True,
        "heartbeat_us": None,
        "at_us": None,
        "version": None,
        "run": None,
        "twin_equity": None,
    },
    FeedStatus: {"name": NOTHING, "last_data_us": NOTHING, "stale_after_s": msgspec.UNSET},
    Settlement: {
        "id": NOTHING,
        "market": NOTHING,
        "strategy": NOTHING,
        "cost": NOTHING,
        "payoff": NOTHING,
        "revision": 0,
        "cursor": "",
    },
    Fill: {
        "id": NOTHING,
        "strategy": NOTHING,
        "instrument": NOTHING,
        "quantity": NOTHING,
        "price": NOTHING,
        "fee": NOTHING,
        "at_us": NOTHING,
        "cursor": "",
        "fee_asset": None,
        "revision": 0,
    },
    CashEvent: {
        "id": NOTHING,
        "kind": NOTHING,
        "amount": NOTHING,
        "at_us": NOTHING,
        "asset": None,
        "strategy": None,
        "instrument": None,
        "cursor": "",
    },
    # Required: one that the engine forgot must not pass for one that agrees.
    Statement: {"day": NOTHING, "cash": NOTHING, "positions": NOTHING},
    StopReport: {"open_orders": NOTHING, "open_positions": NOTHING, "protective_orders": 0},
}


@pytest.mark.parametrize("report", FIELDS, ids=lambda report: report.__name__)
def test_a_report_begins_with_the_documented_fields_and_defaults(
    report: type[msgspec.Struct],
) -> None:
    found = {field.name: field.default for field in msgspec.structs.fields(report)}
    documented = FIELDS[report]
    # In this order, since reports are made by position too; later fields may follow.
    assert list(found.items())[: len(documented)] == list(documented.items())
    assert NOTHING not in list(found.values())[len(documented) :]


def test_the_words_of_a_report_are_the_documented_ones() -> None:
    assert get_args(StrategyState) == (
        *("pending", "running", "paused", "stopped", "failed", "retired"),
    )
    assert get_args(controller.KillAction) == ("halt", "flatten", "freeze")
    kinds = {field.name: field.type for field in msgspec.structs.fields(CashEvent)}["kind"]
    assert set(get_args(kinds)) == {
        *("funding", "interest", "dividend", "borrow"),
        *("fee", "deposit", "withdrawal", "other"),
    }
