"""Stalls of this process by plain calls: the age of a word is the time in which it ran."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from fundops.actors.host.stalls import STALLS_MAX, Stalls

Gaps = list[int]
# Whole seconds, so sums are exact; many are near the limits.
gaps = st.lists(st.integers(1, 8) | st.integers(1, 3_600), max_size=STALLS_MAX)


def _aged(tell: Callable[[float], None], stalls: Stalls, gaps_s: Gaps) -> float:
    """The age of a word at 0 after these gaps between two tellings."""
    now_s = 0.0
    for gap_s in gaps_s:
        now_s += gap_s
        tell(now_s)
    return stalls.age_s(0.0, now_s)


@given(gaps)
def test_ticks_more_than_three_intervals_apart_tell_a_stall(gaps_s: Gaps) -> None:
    stalls = Stalls(2.0, 0.0, is_virtual=False)
    ran_s = sum(2.0 if gap_s > 6 else gap_s for gap_s in gaps_s)
    assert _aged(stalls.tick, stalls, gaps_s) == ran_s


@given(gaps)
def test_pulses_more_than_three_seconds_apart_tell_a_stall(gaps_s: Gaps) -> None:
    stalls = Stalls(None, 0.0, is_virtual=False)
    ran_s = sum(1.0 if gap_s > 3 else gap_s for gap_s in gaps_s)
    assert _aged(stalls.pulse, stalls, gaps_s) == ran_s


@given(gaps)
def test_pulses_tell_no_stall_in_virtual_time_nor_beside_ticks(gaps_s: Gaps) -> None:
    for stalls in (Stalls(None, 0.0, is_virtual=True), Stalls(1.0, 0.0, is_virtual=False)):
        assert _aged(stalls.pulse, stalls, gaps_s) == sum(gaps_s)


def test_a_stall_before_a_word_takes_nothing_from_its_age() -> None:
    stalls = Stalls(None, 0.0, is_virtual=False)
    stalls.pulse(100.0)
    assert stalls.age_s(100.0, 105.0) == 5.0
    assert stalls.age_s(50.0, 105.0) == 5.0, "half of the stall lies after the word"
