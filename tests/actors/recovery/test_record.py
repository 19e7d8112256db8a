"""The engine's reports as inputs, and its error texts as they are stored."""

from typing import Any

import pytest

from fundops.actors.recovery.record import Input, Record, classify, clean, error_of
from fundops.wire.controller import StrategyState, StrategyStatus


def test_heartbeats_count_only_after_the_restart_and_only_where_there_are_any() -> None:
    record = Record("alpha", restarted_us=100)
    for heartbeat_us, expected in (
        (None, Input.SEEN_RUNNING),
        (100, Input.SEEN_SILENT),
        (101, Input.SEEN_RUNNING),
    ):
        assert (
            classify(record, StrategyStatus("alpha", "running", heartbeat_us=heartbeat_us))
            is expected
        )
    states: dict[StrategyState, Input] = {
        "pending": Input.SEEN_PENDING,
        "paused": Input.SEEN_STOPPED,
        "stopped": Input.SEEN_STOPPED,
        "retired": Input.SEEN_STOPPED,
        "failed": Input.SEEN_FAILED,
    }
    for state, expected in states.items():
        assert classify(record, StrategyStatus("alpha", state)) is expected
    assert (
        classify(record, StrategyStatus("alpha", "failed", retryable=False))
        is Input.SEEN_NOT_RETRYABLE
    )


def test_an_error_text_is_cut_and_made_fit_to_be_stored() -> None:
    assert clean(None) is None
    assert clean("\ud800boom") == "?boom"
    assert clean(ValueError("x")) == "x"
    assert len(clean("x" * 5_000) or "") == 1_000


@pytest.mark.parametrize("state", ["error", "FAILED", "crashed", "runing", None, 5])
def test_a_state_that_is_not_known_counts_as_failed(state: Any) -> None:
    status = StrategyStatus("alpha", state)
    assert classify(Record("alpha"), status) is Input.SEEN_FAILED
    assert error_of(status) == f"the engine reports an unknown state: {state!r}"
