"""The restart strategies by plain calls: which children restart together."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundops.runtime.strategy import Strategy, restart_together

ORDER = "abcde"


@pytest.mark.parametrize(
    ("strategy", "together"),
    [("one_for_one", "c"), ("one_for_all", "abcde"), ("rest_for_one", "cde")],
)
def test_each_strategy_restarts_its_own_neighbours(strategy: Strategy, together: str) -> None:
    assert restart_together(strategy, ORDER, "c", []) == [*together]


@pytest.mark.parametrize(
    ("strategy", "failed", "under_way", "together"),
    [
        # Its own group, which it failed to start with, goes on with it.
        ("one_for_one", "b", ["bd"], "bd"),
        ("one_for_one", "b", ["cd"], "b"),
        ("rest_for_one", "d", ["bc"], "de"),
        ("rest_for_one", "c", ["be", "a"], "bcde"),
        ("one_for_all", "a", ["c", "de"], "abcde"),
    ],
)
def test_groups_with_a_common_member_become_one(
    strategy: Strategy, failed: str, under_way: list[str], together: str
) -> None:
    assert restart_together(strategy, ORDER, failed, under_way) == [*together]


@st.composite
def situations(draw: st.DrawFn) -> tuple[Strategy, list[int], int, list[set[int]]]:
    order = draw(st.permutations(range(draw(st.integers(1, 8)))))
    group_of = draw(st.lists(st.integers(0, 3), min_size=len(order), max_size=len(order)))
    # Group 0 holds the children that are not restarting.
    groups = [{child for child in order if group_of[child] == number} for number in (1, 2, 3)]
    strategy: Strategy = draw(st.sampled_from(get_args(Strategy)))
    return strategy, order, draw(st.sampled_from(order)), groups


@given(situations())
def test_a_child_never_belongs_to_two_groups(
    situation: tuple[Strategy, list[int], int, list[set[int]]],
) -> None:
    strategy, order, failed, under_way = situation
    together = restart_together(strategy, order, failed, under_way)
    assert failed in together
    assert together == sorted(set(together), key=order.index)
    for group in under_way:
        assert group.isdisjoint(together) or group.issubset(together)


@given(situations())
def test_only_the_strategy_and_merged_groups_add_children(
    situation: tuple[Strategy, list[int], int, list[set[int]]],
) -> None:
    strategy, order, failed, under_way = situation
    alone = restart_together(strategy, order, failed, [])
    together = restart_together(strategy, order, failed, under_way)
    assert set(alone) <= set(together)
    for child in set(together) - set(alone):
        [group] = [group for group in under_way if child in group]
        assert not group.isdisjoint(alone)
