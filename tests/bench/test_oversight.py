"""The oversight bench at smoke size: ticks, sessions and the replay run. No figure of speed."""

from __future__ import annotations

import pytest

from fundops.bench import oversight
from fundops.bench.harness import Result, table


@pytest.fixture(scope="module")
def result() -> Result:
    return oversight.run(0.005)


def test_no_step_of_a_measured_tick_failed(result: Result) -> None:
    assert [row.name for row in result.rows] == ["tick of 10 strategies", "tick of 50 strategies"]
    assert {row.checksum for row in result.rows} == {0}


def test_a_session_ended_and_the_window_was_replayed(result: Result) -> None:
    assert result.figure("end of a session, 10 strategies") > 0
    assert result.figure("replay of 25 sessions") > 0
    assert "replay of 25 sessions" in table(result)
