"""The promotion bench at smoke size: every strategy is judged. No figure of speed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fundops.actors.promotion.evaluation import evaluate
from fundops.bench import promotion
from fundops.bench.harness import Result


@pytest.fixture(scope="module")
def result() -> Iterator[Result]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(promotion, "REPETITIONS", 2)
        yield promotion.run(scale=0.02)


def test_every_case_judges_every_strategy(result: Result) -> None:
    assert [row.name for row in result.rows] == [promotion.EVALUATED, promotion.LIMITS]
    assert {row.messages for row in result.rows} == {200}
    assert result.figure(promotion.ALL) > 0


def test_the_strategies_are_the_same_each_time_and_of_all_verdicts() -> None:
    subjects = promotion.strategies(500)
    assert subjects == promotion.strategies(500)
    assert {subject.stage for subject in subjects} == set(promotion.STAGES)
    found = {
        evaluate(subject, promotion.POLICY, promotion.NOW_US, capital=promotion.CAPITAL).would_do
        for subject in subjects
    }
    assert found == {"promote", "ready", "demote", "none"}
