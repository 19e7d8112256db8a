"""Warnings about stale market-data feeds. Nothing here reconnects a feed.

The age of a feed is the age of its last *data*. A feed without data yet ages from the check that
first listed it. A feed is stale when its age reaches its threshold. As for strategies, a draft is
applied once it is durable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from ...wire.alert import AlertDraft, Category, Level
from ...wire.controller import FeedStatus
from ...wire.recovery import RecoveryEvent

__all__ = ["REPEAT_US", "Feed", "FeedDraft", "FeedWatch"]

REPEAT_US = 4 * 3_600 * 1_000_000  # between two warnings about a feed that stays stale


class Feed(msgspec.Struct, frozen=True):
    """One feed, as the checks saw it."""

    name: str
    registered_us: int  # first listed since recovery started
    warned_us: int | None = None  # the latest warning; None: fresh
    silent_since_us: int | None = None  # while stale: its last data, or its registration


class FeedDraft(msgspec.Struct, frozen=True):
    """The changes that one check of the feeds makes."""

    feeds: tuple[Feed, ...]
    events: tuple[RecoveryEvent, ...]
    alerts: tuple[AlertDraft, ...]


class FeedWatch:
    """All feeds. `stale` are those that were stale when recovery stopped."""

    def __init__(self, stale: Iterable[Feed] = ()) -> None:
        self._feeds = {feed.name: feed for feed in stale}

    def check(self, statuses: Sequence[FeedStatus], at_us: int) -> FeedDraft:
        """A check of all feeds: a WARNING when one becomes stale, an INFO when its data is back.

        The warning is repeated every four hours while the feed stays stale.
        """
        feeds: list[Feed] = []
        events: list[RecoveryEvent] = []
        alerts: list[AlertDraft] = []
        for status in statuses:
            feed = self._feeds.get(status.name)
            if feed is None:
                feed = self._feeds[status.name] = Feed(status.name, at_us)
            since_us = feed.registered_us if status.last_data_us is None else status.last_data_us
            if _is_stale(status, since_us, at_us):
                if feed.warned_us is None or at_us - feed.warned_us >= REPEAT_US:
                    problem = _problem(status, at_us - since_us)
                    feeds.append(replace(feed, warned_us=at_us, silent_since_us=since_us))
                    events.append(RecoveryEvent("stale_feed", feed.name, None, 0, problem, at_us))
                    alerts.append(_alert(Level.WARNING, feed, "stale", problem))
            elif feed.warned_us is not None:
                back_us = at_us if status.last_data_us is None else min(at_us, status.last_data_us)
                silence_us = back_us - (
                    feed.warned_us if feed.silent_since_us is None else feed.silent_since_us
                )
                feeds.append(replace(feed, warned_us=None, silent_since_us=None))
                events.append(RecoveryEvent("feed_back", feed.name, None, 0, None, at_us))
                back = _alert(
                    Level.INFO,
                    feed,
                    "back",
                    f"data again after {max(0, silence_us) / 1e6:g} s of silence",
                )
                alerts.append(replace(back, resolves=True))
        return FeedDraft(tuple(feeds), tuple(events), tuple(alerts))

    def apply(self, draft: FeedDraft) -> None:
        """Apply a draft. Its rows must be durable."""
        for feed in draft.feeds:
            self._feeds[feed.name] = feed


def _is_stale(status: FeedStatus, since_us: int, at_us: int) -> bool:
    if status.stale_after_s is None:
        return False
    # Written so that a NaN threshold makes the feed stale: a needless warning is safer than none.
    return not at_us - since_us < status.stale_after_s * 1_000_000


def _problem(status: FeedStatus, silence_us: int) -> str:
    if status.last_data_us is None:
        return f"never updated, {silence_us / 1e6:g} s after it was registered"
    return f"no data for {silence_us / 1e6:g} s"


def _alert(level: Level, feed: Feed, title: str, message: str) -> AlertDraft:
    return AlertDraft(
        level, Category.GENERAL, f"feed {feed.name}: {title}", message, None, f"feed:{feed.name}"
    )
