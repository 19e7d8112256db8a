"""Feeds: the threshold, the repetition of warnings, and the return of data."""

import math

import pytest

from fundops.actors.recovery.feeds import Feed, FeedDraft, FeedWatch
from fundops.wire.alert import Category, Level
from fundops.wire.controller import FeedStatus

SECOND = 1_000_000


def check(
    watch: FeedWatch,
    at_s: float,
    last_data_s: float | None = None,
    stale_after_s: float | None = 300.0,
) -> FeedDraft:
    last_data_us = None if last_data_s is None else round(last_data_s * SECOND)
    draft = watch.check([FeedStatus("ticks", last_data_us, stale_after_s)], round(at_s * SECOND))
    watch.apply(draft)
    return draft


def actions(draft: FeedDraft) -> list[str]:
    return [event.action for event in draft.events]


def test_r24_a_feed_is_stale_from_its_threshold_on_and_named_again_after_four_hours() -> None:
    watch = FeedWatch()
    assert not check(watch, 0, 0).events
    assert not check(watch, 299.999, 0).events
    warned = check(watch, 300.0, 0)
    [event] = warned.events
    assert (event.action, event.target, event.success, event.at_us) == (
        "stale_feed",
        "ticks",
        None,
        300 * SECOND,
    )
    [alert] = warned.alerts
    assert (alert.level, alert.category, alert.dedup_key) == (
        Level.WARNING,
        Category.GENERAL,
        "feed:ticks",
    )
    assert not alert.resolves
    for at_s in range(301, 14_700, 7):
        assert not check(watch, at_s, 0).events
    assert not check(watch, 14_699.999999, 0).events
    assert actions(check(watch, 14_700, 0)) == ["stale_feed"]


def test_r24_data_that_comes_back_is_announced_with_the_length_of_the_silence() -> None:
    watch = FeedWatch()
    for at_s in (0, 300):
        check(watch, at_s, 0)
    back = check(watch, 1_001, 1_000)
    assert actions(back) == ["feed_back"]
    [alert] = back.alerts
    assert (alert.level, alert.resolves, alert.dedup_key) == (Level.INFO, True, "feed:ticks")
    assert "1000 s" in alert.message
    assert not check(watch, 1_002, 1_000).events
    assert actions(check(watch, 1_300, 1_000)) == ["stale_feed"]


def test_the_silence_does_not_end_in_the_future() -> None:
    watch = FeedWatch()
    for at_s in (0, 300):
        check(watch, at_s, 0)
    assert "400 s" in check(watch, 400, 9_000).alerts[0].message


def test_r25_a_feed_that_never_had_data_ages_from_its_registration() -> None:
    watch = FeedWatch()
    assert not check(watch, 1_000).events
    assert not check(watch, 1_299.999).events
    [event] = check(watch, 1_300).events
    assert event.error is not None
    assert event.error.startswith("never updated")


def test_an_event_only_feed_is_never_stale() -> None:
    watch = FeedWatch()
    for at_s in (0, 10_000, 10**9):
        assert not check(watch, at_s, None, None).events


def test_a_feed_that_becomes_event_only_is_no_longer_stale() -> None:
    watch = FeedWatch()
    for at_s in (0, 300):
        check(watch, at_s, 0)
    assert actions(check(watch, 301, 0, None)) == ["feed_back"]


def test_each_feed_has_its_own_threshold() -> None:
    watch = FeedWatch()
    statuses = [FeedStatus("fast", 0, 5.0), FeedStatus("slow", 0, 60.0)]
    stale = []
    for at_s in (0, 5, 30, 60):
        draft = watch.check(statuses, at_s * SECOND)
        watch.apply(draft)
        stale += [(at_s, event.target) for event in draft.events]
    assert stale == [(5, "fast"), (60, "slow")]


def test_data_from_the_future_is_fresh() -> None:
    assert not check(FeedWatch(), 0, 1_000).events


@pytest.mark.parametrize("threshold", [math.nan, 0, -1])
def test_a_threshold_that_makes_no_sense_makes_noise(threshold: float) -> None:
    assert actions(check(FeedWatch(), 0, 0, threshold)) == ["stale_feed"]


def test_what_was_planned_and_not_applied_is_planned_again() -> None:
    watch = FeedWatch()
    for _ in range(2):
        assert watch.check([FeedStatus("ticks", 0)], 300 * SECOND).events


def test_a_feed_that_a_former_life_left_stale_is_not_warned_of_again_but_comes_back() -> None:
    left = Feed("ticks", 400 * SECOND, warned_us=300 * SECOND, silent_since_us=300 * SECOND)
    watch = FeedWatch([left])
    assert not check(watch, 400, 0).events
    [alert] = check(watch, 500, 500).alerts
    assert "200 s" in alert.message


# -- reports that make no sense, and clocks that are set


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (FeedStatus("x", "12:00"), "x"),  # type: ignore[arg-type]
        (FeedStatus("x", 1.5), "x"),  # type: ignore[arg-type]
        (FeedStatus("x", True), "x"),
        (FeedStatus("x", 0, "soon"), "x"),  # type: ignore[arg-type]
        (FeedStatus(5, 0), "5"),  # type: ignore[arg-type]
        (FeedStatus("", 0), "''"),
        (FeedStatus("good", 0), "good (listed twice)"),
    ],
)
def test_one_wrong_feed_is_named_once_and_touches_no_other(wrong: FeedStatus, named: str) -> None:
    watch = FeedWatch()
    told = []
    for at_s in range(0, 400, 10):
        draft = watch.check([FeedStatus("good", at_s * SECOND), wrong], at_s * SECOND)
        watch.apply(draft)
        told += [(alert.level, alert.title) for alert in draft.alerts]
    assert told == [(Level.WARNING, f"feed {named}: stale")]


def test_a_wrong_feed_that_reports_well_again_is_back() -> None:
    watch = FeedWatch()
    watch.apply(watch.check([FeedStatus("x", "12:00")], 0))  # type: ignore[arg-type]
    draft = watch.check([FeedStatus("x", 9 * SECOND)], 10 * SECOND)
    assert actions(draft) == ["feed_back"]
    assert [alert.resolves for alert in draft.alerts] == [True]


@pytest.mark.parametrize("jump_s", [3_600, -3_600])
def test_a_jump_of_the_wall_clock_changes_no_verdict(jump_s: int) -> None:
    watch = FeedWatch()
    for at_s in range(10_000, 10_100, 10):
        draft = watch.check(
            [FeedStatus("ticks", at_s * SECOND), FeedStatus("dead", 10_000 * SECOND)],
            at_s * SECOND,
        )
        assert not draft.events
        watch.apply(draft)
    watch.move(jump_s * SECOND)
    stale = []
    for at_s in range(10_100 + jump_s, 10_400 + jump_s, 10):
        # The first data after the jump came before it, and has the old time.
        data_s = 10_095 if at_s == 10_100 + jump_s else at_s
        draft = watch.check(
            [FeedStatus("ticks", data_s * SECOND), FeedStatus("dead", 10_000 * SECOND)],
            at_s * SECOND,
        )
        watch.apply(draft)
        stale += [(at_s - jump_s, event.target) for event in draft.events]
    assert stale == [(10_300, "dead")]


def test_a_time_stamp_in_the_future_keeps_no_feed_fresh() -> None:
    watch = FeedWatch()
    found = [(at_s, actions(check(watch, at_s, 10**9))) for at_s in (0, 299, 300)]
    assert found == [(0, []), (299, []), (300, ["stale_feed"])]


def test_a_feed_that_leaves_the_list_is_named_once() -> None:
    watch = FeedWatch()
    check(watch, 0, 0)
    told = []
    for at_s in (299, 300, 20_000, 40_000):
        draft = watch.check([], at_s * SECOND)
        watch.apply(draft)
        told += [(at_s, event.error) for event in draft.events]
    assert told == [(300, "no data for 300 s; the engine no longer lists it")]
    assert actions(check(watch, 40_001, 40_001)) == ["feed_back"]
