"""Reading an answer by plain calls: each item stands alone."""

from __future__ import annotations

from fundops import FeedStatus, StrategyStatus
from fundops.actors.host.words import Word, read_feeds, read_strategies
from fundops.runtime import at_once

WRONG = StrategyStatus("a", "running", equity="1")  # type: ignore[arg-type]
WRONG_FEED = FeedStatus("a", "now")  # type: ignore[arg-type]


def test_a_right_status_counts_although_a_wrong_one_follows() -> None:
    old, new = StrategyStatus("a", "running"), StrategyStatus("a", "paused")
    before = {"a": Word(old, "", 1.0)}
    good, aside = at_once(read_strategies([new, WRONG], before, 2.0, 0))
    assert (good["a"].status, list(aside)) == (new, ["a"])
    good, aside = at_once(read_strategies([WRONG, new], before, 2.0, 0))
    assert (good["a"].status, list(aside)) == (old, ["a"])


def test_a_feed_with_a_wrong_status_goes_back_to_its_last_good_one() -> None:
    old, new = FeedStatus("a", 1), FeedStatus("a", 2)
    for answer in ([new, WRONG_FEED], [WRONG_FEED, new]):
        good, aside = at_once(read_feeds(answer, {"a": old}))
        assert (good, list(aside)) == ({"a": old}, ["a"])


def test_an_item_without_a_name_is_named_by_its_place() -> None:
    good, aside = at_once(read_strategies([None, StrategyStatus("b", "running"), 5], {}, 2.0, 0))
    assert (list(good), list(aside)) == (["b"], ["item 1", "item 3"])
