"""The promotion bench at smoke size: all are judged, moved and raced for. No figure of speed."""

from __future__ import annotations

import pytest

from fundops.bench import promotion
from fundops.bench.harness import Result, table


@pytest.fixture(scope="module")
def result() -> Result:
    return promotion.run(0.005)


def test_every_strategy_is_judged_by_both(result: Result) -> None:
    assert [row.name for row in result.rows] == [promotion.EVALUATE, promotion.LOOK]
    assert {row.messages for row in result.rows} == {50}
    assert {row.checksum for row in result.rows} == {50}


def test_the_figures_say_what_they_are_of(result: Result) -> None:
    assert result.figure("transition over bare commit, p50") > 0
    assert result.figure("transition p50") <= result.figure("transition p99")
    assert result.figure("piece of a look p99") <= result.figure("piece of a look, longest")
    assert result.figure("start, memory") > 0
    assert result.figure("race of two for 10 promotions") > 0
    assert "start with 50 strategies" in table(result)
