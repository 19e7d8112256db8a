"""The failure window by plain calls: which failures count, and when a supervisor escalates."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundops.runtime.window import FailureWindow

NEVER = 1_000
FAILED_EARLY = math.inf  # before it was ready


def window(
    *,
    intensity: int = NEVER,
    period_s: float = 5.0,
    max_consecutive: int = NEVER,
    stable_after_s: float = 60.0,
) -> FailureWindow:
    return FailureWindow(
        intensity=intensity,
        period_s=period_s,
        max_consecutive=max_consecutive,
        stable_after_s=stable_after_s,
    )


def test_one_failure_more_than_the_intensity_escalates() -> None:
    failures = window(intensity=2)
    assert failures.record("a", 0.0, running_since_s=0.0) is None
    assert failures.record("b", 1.0, running_since_s=0.0) is None
    assert failures.record("a", 2.0, running_since_s=0.0) == (
        "3 failures within period_s=5, more than intensity=2 allows"
    )


def test_at_intensity_zero_the_first_failure_escalates() -> None:
    assert window(intensity=0).record("a", 0.0, running_since_s=FAILED_EARLY) == (
        "1 failure within period_s=5, more than intensity=0 allows"
    )


@pytest.mark.parametrize(("third_s", "escalates"), [(5.0, True), (5.001, False)])
def test_a_failure_exactly_one_period_old_counts(third_s: float, escalates: bool) -> None:
    failures = window(intensity=2)
    failures.record("a", 0.0, running_since_s=0.0)
    failures.record("a", 2.0, running_since_s=0.0)
    assert (failures.count("a", third_s) == 2) is escalates
    assert (failures.record("a", third_s, running_since_s=0.0) is not None) is escalates


def test_failures_in_a_row_escalate_however_far_apart() -> None:
    failures = window(max_consecutive=3)
    assert failures.record("a", 0.0, running_since_s=FAILED_EARLY) is None
    assert failures.record("a", 1_000.0, running_since_s=FAILED_EARLY) is None
    assert failures.record("a", 2_000.0, running_since_s=1_990.0) == (
        "3 failures in a row of 'a' reached max_consecutive=3 without stable_after_s=60 of running"
    )


@pytest.mark.parametrize(("ran_s", "in_a_row"), [(59.9, 3), (60.0, 1)])
def test_a_stable_run_begins_a_new_row(ran_s: float, in_a_row: int) -> None:
    failures = window()
    failures.record("a", 0.0, running_since_s=FAILED_EARLY)
    failures.record("a", 1.0, running_since_s=FAILED_EARLY)
    failures.record("a", 1.0 + ran_s, running_since_s=1.0)
    assert failures.in_a_row("a") == in_a_row


def test_children_have_rows_of_their_own_in_one_window() -> None:
    failures = window(max_consecutive=2)
    assert failures.record("a", 0.0, running_since_s=FAILED_EARLY) is None
    assert failures.record("b", 0.0, running_since_s=FAILED_EARLY) is None
    assert (failures.in_a_row("a"), failures.in_a_row("b"), failures.in_a_row("c")) == (1, 1, 0)
    assert (failures.count("a", 0.0), failures.count("c", 0.0)) == (1, 0)


def test_a_cleared_window_has_forgotten_every_failure() -> None:
    failures = window(intensity=1, max_consecutive=2)
    failures.record("a", 0.0, running_since_s=FAILED_EARLY)
    failures.clear()
    assert (failures.in_a_row("a"), failures.count("a", 0.0)) == (0, 0)
    assert failures.record("a", 0.0, running_since_s=FAILED_EARLY) is None


stories = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from([0.0, 0.5, 1.0, 5.0, 61.0]),  # since the failure before
        st.sampled_from([0.0, 1.0, 60.0, -math.inf]),  # how long the child had been running
    ),
    max_size=30,
)


@given(stories, st.integers(0, 4), st.integers(1, 4))
def test_the_window_agrees_with_the_whole_history(
    story: list[tuple[str, float, float]], intensity: int, max_consecutive: int
) -> None:
    failures = window(intensity=intensity, max_consecutive=max_consecutive)
    history: list[tuple[str, float]] = []
    rows: dict[str, int] = {}
    now_s = 0.0
    for name, pause_s, ran_s in story:
        now_s += pause_s
        suspected = failures.next_may_escalate(name)
        reason = failures.record(name, now_s, running_since_s=now_s - ran_s)
        history.append((name, now_s))
        rows[name] = 1 if ran_s >= 60.0 else rows.get(name, 0) + 1
        recent = [failed for failed, at_s in history if now_s - at_s <= 5.0]
        assert failures.count(name, now_s) == recent.count(name)
        assert failures.in_a_row(name) == rows[name]
        assert (reason is not None) == (len(recent) > intensity or rows[name] >= max_consecutive)
        # The cheap look may suspect too much, and must never miss an escalation.
        assert suspected or reason is None
