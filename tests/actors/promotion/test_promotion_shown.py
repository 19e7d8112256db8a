"""Promotion as the stream shows it: segments, the nearest miss in words, limits that demote."""

import msgspec
import pytest

from fundops.actors.promotion import Capital, policy_of, shown
from fundops.actors.promotion.evaluation import evaluate
from fundops.actors.promotion.strategy import Episode, Metric, Strategy
from fundops.runtime import DAY_US
from fundops.wire.promotion import CriterionResult, PromotionStage

POLICY = policy_of()


def result(
    name: str, op: str, limit: float, observed: float | None, unit: str, verdict: str = "FAIL"
) -> CriterionResult:
    return CriterionResult(name, op, limit, observed, unit, None, verdict, "missing", None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("criterion", "part", "words"),
    [
        (result("min_trades", ">=", 50, 14, "trades"), 0.28, "14 of 50 trades"),
        (result("min_days", ">=", 14, 13.9983, "days"), 0.99, "13.9 of 14 days"),
        (result("min_sharpe", ">=", 1, -1.03, "annual"), 0.0, "Sharpe -1.03 of 1.00"),
        (
            result("max_drawdown", "<=", 0.2, 0.25, "fraction"),
            0.8,
            "drawdown 25.0% over 20%",
        ),
        (result("min_win_rate", ">=", 0.45, 0.4, "fraction"), 0.88, "win rate 40.0% of 45%"),
        (
            result("min_sharpe", ">=", 1, None, "annual", "INCONCLUSIVE"),
            None,
            "Sharpe: missing",
        ),
    ],
)
def test_a_missed_criterion_is_a_part_and_words(
    criterion: CriterionResult, part: float | None, words: str
) -> None:
    assert shown.segment(criterion) == part
    assert shown.nearest((criterion,)) == words


def test_the_nearest_miss_is_the_one_that_lacks_the_least() -> None:
    trades = result("min_trades", ">=", 50, 14, "trades")
    days = result("min_days", ">=", 14, 12, "days")
    unknown = result("min_sharpe", ">=", 1, None, "annual", "INCONCLUSIVE")
    passed = result("max_drawdown", "<=", 0.2, 0.1, "fraction", "PASS")
    assert shown.nearest((trades, days, unknown, passed)) == "12 of 14 days"
    assert shown.segment(passed) == 1.0
    assert shown.nearest((passed,)) == ""


def made(stage: PromotionStage, now_us: int, **recorded: float) -> Strategy:
    metrics = {name: Metric(value, now_us) for name, value in recorded.items()}
    return Strategy("id", "a", stage, 0, Episode(1, 0, recorded=metrics))


def test_a_record_has_the_gate_and_the_limits_that_demote() -> None:
    now_us = 20 * DAY_US
    strategy = msgspec.structs.replace(
        made(PromotionStage.Live_Small, now_us, max_drawdown=0.07), cooldown_until_us=now_us + 1
    )
    found = evaluate(strategy, POLICY, now_us, capital=Capital())
    record = shown.full(strategy, found, POLICY, now_us, None)
    assert (record.stage, record.target) == ("live-small", "live-scaled")
    assert len(record.segments) == len(record.criteria) == record.passed + record.missed
    assert record.until_us == now_us + 1
    assert record.days_in_stage == 20.0
    assert (record.blocked_by, record.why) == (found.blocked_by, found.why)
    assert [(limit.name, limit.limit_pct, limit.observed_pct) for limit in record.keep_limits] == [
        ("drawdown", 20.0, 7.0),
        ("session_loss", 5.0, 0.0),
    ]


def test_a_retired_strategy_has_no_gate_and_no_limits() -> None:
    strategy = made(PromotionStage.Retired, 1)
    found = evaluate(strategy, POLICY, 1, capital=Capital())
    record = shown.full(strategy, found, POLICY, 1, None)
    assert (record.target, record.segments, record.keep_limits) == (None, (), ())
