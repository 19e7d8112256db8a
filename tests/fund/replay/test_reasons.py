"""The sentence beside each strategy, from the limits of the ladder and its own figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
import pytest

from fundops import FundConfig, PromotionStage
from fundops.actors.promotion import Capital, policy_of
from fundops.actors.promotion.evaluation import evaluate
from fundops.actors.promotion.strategy import Episode, Strategy
from fundops.replay.reasons import limit_pct_of, reason_of
from fundops.wire.promotion import CriterionResult, PromotionSnapshot

Op = Literal[">=", "<="]


def _snapshot(
    *criteria: CriterionResult,
    target: PromotionStage | None = PromotionStage.Shadow,
    blocked_by: tuple[str, ...] = ("gate",),
    metrics: Mapping[str, float] | None = None,
) -> PromotionSnapshot:
    stage = PromotionStage.Paper
    evaluation = msgspec.structs.replace(
        evaluate(
            Strategy("id", "trend", stage, 0, Episode(1, 0)), policy_of(), 0, capital=Capital()
        ),
        target=target,
        criteria=criteria,
        blocked_by=blocked_by,
    )
    return PromotionSnapshot(
        "id", "trend", stage, 20.0, 1, False, None, metrics or {}, evaluation, ()
    )


def _missed(
    name: str, op: Op, limit: float, observed: float | None, reason: str = "x"
) -> CriterionResult:
    margin = None if observed is None else -1.0
    return CriterionResult(name, op, limit, observed, "", margin, "FAIL", reason, None)


SHARPE = _missed("min_sharpe", ">=", 1.0, -0.41)


def _reason(
    snapshot: PromotionSnapshot,
    *,
    limit_pct: float | None = None,
    demoted: str = "",
    breaker_open: bool = False,
) -> str:
    return reason_of(snapshot, limit_pct=limit_pct, demoted=demoted, breaker_open=breaker_open)


def test_every_missed_criterion_is_said_with_its_limit() -> None:
    snapshot = _snapshot(
        _missed("min_days", ">=", 14, 9),
        _missed("min_trades", ">=", 50, 12),
        SHARPE,
        _missed("max_drawdown", "<=", 0.2, 0.224),
        _missed("min_win_rate", ">=", 0.45, 0.4),
    )
    assert _reason(snapshot) == (
        "9 of 14 days, 12 of 50 trades, Sharpe −0.41 of 1.00, drawdown 22.4% over 20%,"
        " win rate 40.0% of 45%"
    )


def test_a_metric_without_a_value_says_why() -> None:
    snapshot = _snapshot(_missed("min_sharpe", ">=", 1.0, None, "needs two sessions"))
    assert _reason(snapshot) == "Sharpe: needs two sessions"


def test_the_demotion_that_led_to_the_stage_comes_first() -> None:
    assert _reason(_snapshot(SHARPE), demoted="drawdown 11% reached its hard limit 10%") == (
        "drawdown 11% reached its hard limit 10%; now Sharpe −0.41 of 1.00"
    )


def test_a_gate_that_passes_says_what_else_it_waits_for() -> None:
    assert _reason(_snapshot(blocked_by=("cooling down",))) == "cooling down"
    assert _reason(_snapshot(blocked_by=())) == "passes its gate"


def test_an_open_breaker_comes_before_everything_else() -> None:
    assert "a person must reset it" in _reason(_snapshot(SHARPE), breaker_open=True)


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (
            {"sharpe": -0.41, "max_drawdown": 0.169},
            "Sharpe −0.41 does not demote, drawdown does: 16.9% of 20%, 3.1 points left",
        ),
        ({"sharpe": 1.2, "max_drawdown": 0.05}, "drawdown 5.0% of 20%, 15.0 points left"),
        ({"max_drawdown": 0.05}, "drawdown 5.0% of 20%, 15.0 points left"),
        ({"sharpe": 1.2, "max_drawdown": 0.21}, "drawdown 21.0%, over its 20%"),
    ],
)
def test_the_top_stage_names_the_limit_and_the_way_to_it(
    metrics: Mapping[str, float], said: str
) -> None:
    assert _reason(_snapshot(target=None, metrics=metrics), limit_pct=20.0) == said


def test_the_lowest_limit_of_real_money_counts() -> None:
    config = FundConfig(total_capital=1)
    limits = {
        rung.stage.value: limit_pct_of(rung, config) for rung in config.promotion_rules().rungs
    }
    assert limits == {"paper": None, "shadow": None, "live-small": 20.0, "live-scaled": 20.0}
