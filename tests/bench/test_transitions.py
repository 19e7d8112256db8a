"""The transitions bench at smoke size: all are judged, moved and raced for. No figure of speed."""

from __future__ import annotations

import pytest

from fundops.bench import transitions
from fundops.bench.harness import Result, table


@pytest.fixture(scope="module")
def result() -> Result:
    return transitions.run(0.005)


def test_a_look_judges_every_strategy(result: Result) -> None:
    assert [(row.name, row.messages, row.checksum) for row in result.rows] == [
        (transitions.LOOK, 50, 50)
    ]


def test_the_figures_say_what_they_are_of(result: Result) -> None:
    assert result.figure("transition over bare commit, p50") > 0
    assert result.figure("transition p50") <= result.figure("transition p99")
    assert result.figure("piece of a look p99") <= result.figure("piece of a look, longest")
    assert result.figure("start, CPU") > 0
    assert result.figure("start, memory") > 0
    assert result.figure("race of two for 10 promotions") > 0
    assert "start with 50 strategies" in table(result)
