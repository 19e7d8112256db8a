"""Warnings about stale market-data feeds. Nothing here reconnects a feed.

The age of a feed is the time since a check saw new *data*, so that neither a jump of the wall clock
nor a time stamp in the future changes it. A feed without data yet ages from the check that first
listed it. A feed is stale when its age reaches its threshold. A report that makes no sense counts
as a stale feed and touches no other feed. As for strategies, a draft is applied once it is durable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from ...runtime import shown
from ...wire.alert import AlertDraft, Category, Level
from ...wire.controller import FeedStatus
from ...wire.recovery import RecoveryEvent

__all__ = ["REPEAT_US", "Feed", "FeedDraft", "FeedWatch"]

REPEAT_US = 4 * 3_600 * 1_000_000  # between two warnings about a feed that stays stale
NAME_MAX = 128  # characters


class Feed(msgspec.Struct, frozen=True):
    """One feed, as the checks saw it."""

    name: str
    registered_us: int  # first listed since recovery started
    warned_us: int | None = None  # the latest warning; None: fresh
    silent_since_us: int | None = None  # while stale: its last data, or its registration
    reported_us: int | None = None  # `last_data_us` as the engine last told it
    data_us: int | None = None  # when that data came, by our clock; None: no data yet
    stale_after_s: float | None = None  # as last told; None: never stale
    fault: str | None = None  # why its last report makes no sense; None: it does


class FeedDraft(msgspec.Struct, frozen=True):
    """The changes that one check of the feeds makes."""

    feeds: tuple[Feed, ...]
    events: tuple[RecoveryEvent, ...]
    alerts: tuple[AlertDraft, ...]


class FeedWatch:
    """All feeds. `stale` are those that were stale when recovery stopped."""

    def __init__(self, stale: Iterable[Feed] = ()) -> None:
        self._feeds = {feed.name: feed for feed in stale}
        self._checked_us: int | None = None  # the latest check; None: none yet

    def check(self, statuses: Sequence[FeedStatus], at_us: int) -> FeedDraft:
        """A check of all feeds: a WARNING when one becomes stale, an INFO when its data is back.

        The warning is repeated every four hours while the feed stays stale. A feed that the engine
        lists no more becomes stale like a silent one, and is named once.
        """
        feeds: list[Feed] = []
        events: list[RecoveryEvent] = []
        alerts: list[AlertDraft] = []
        listed: set[str] = set()
        gone: list[str] = []
        for status in statuses:
            name, fault = _named(status, listed)
            listed.add(name)
            # An observation is no decision, so it is kept at once.
            feed = self._feeds[name] = self._seen(name, status, fault, at_us)
        for feed in self._feeds.values():
            since_us = feed.registered_us if feed.data_us is None else feed.data_us
            problem = _problem(feed, at_us - since_us)
            if problem is not None:
                if feed.name not in listed:
                    problem += "; the engine no longer lists it"
                if _is_due(feed, at_us, repeated=feed.name in listed):
                    feeds.append(replace(feed, warned_us=at_us, silent_since_us=since_us))
                    events.append(RecoveryEvent("stale_feed", feed.name, None, 0, problem, at_us))
                    alerts.append(_alert(Level.WARNING, feed, "stale", problem))
            elif feed.warned_us is not None and feed.name in listed:
                back_us = at_us if feed.data_us is None else feed.data_us
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
            elif feed.name not in listed and feed.stale_after_s is None:
                gone.append(feed.name)  # never stale, so there is nothing to tell
        for name in gone:
            del self._feeds[name]
        self._checked_us = at_us
        return FeedDraft(tuple(feeds), tuple(events), tuple(alerts))

    def _seen(self, name: str, status: FeedStatus, fault: str | None, at_us: int) -> Feed:
        feed = self._feeds.get(name) or Feed(name, at_us)
        if fault is not None:
            return replace(feed, fault=fault)
        told_us, after_s = status.last_data_us, status.limit_s
        if told_us == feed.reported_us:
            return replace(feed, stale_after_s=after_s, fault=None)
        data_us = feed.data_us
        if told_us is not None:
            # New data came since the last check, even if its time stamp says otherwise. The first
            # report of a feed says how old its data is already.
            earliest_us = self._checked_us if feed.reported_us is not None else None
            data_us = min(at_us, told_us if earliest_us is None else max(told_us, earliest_us))
        return replace(
            feed, reported_us=told_us, data_us=data_us, stale_after_s=after_s, fault=None
        )

    def apply(self, draft: FeedDraft) -> None:
        """Apply a draft. Its rows must be durable."""
        for feed in draft.feeds:
            self._feeds[feed.name] = feed

    def move(self, by_us: int) -> None:
        """Follow a wall clock that jumped by `by_us`. No age and no verdict changes."""
        for feed in self._feeds.values():
            self._feeds[feed.name] = replace(
                feed,
                registered_us=feed.registered_us + by_us,
                warned_us=None if feed.warned_us is None else feed.warned_us + by_us,
                silent_since_us=(
                    None if feed.silent_since_us is None else feed.silent_since_us + by_us
                ),
                data_us=None if feed.data_us is None else feed.data_us + by_us,
            )
        if self._checked_us is not None:
            self._checked_us += by_us


def _is_due(feed: Feed, at_us: int, *, repeated: bool) -> bool:
    if feed.warned_us is None:
        return True
    return repeated and at_us - feed.warned_us >= REPEAT_US


def _named(status: FeedStatus, listed: set[str]) -> tuple[str, str | None]:
    """The name under which a report is kept, and why it makes no sense; None: it does."""
    name = status.name
    if not isinstance(name, str) or not 1 <= len(name) <= NAME_MAX or not name.isprintable():
        return shown(name)[:NAME_MAX], f"its name is not 1 to {NAME_MAX} printable characters"
    if name in listed:
        return f"{name} (listed twice)", "another feed of the list has its name"
    if status.last_data_us is not None and not _is_number(status.last_data_us, int):
        return name, f"last_data_us {shown(status.last_data_us)} is no count of microseconds"
    if status.limit_s is not None and not _is_number(status.limit_s, int | float):
        return name, f"stale_after_s {shown(status.limit_s)} is no number of seconds"
    return name, None


def _is_number(value: object, kind: type | object) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)  # type: ignore[arg-type]


def _problem(feed: Feed, silence_us: int) -> str | None:
    """Why the feed is stale; None: it is fresh."""
    if feed.fault is not None:
        return f"its report makes no sense: {feed.fault}"
    # Written so that a NaN threshold makes the feed stale: a needless warning is safer than none.
    if feed.stale_after_s is None or silence_us < feed.stale_after_s * 1_000_000:
        return None
    if feed.data_us is None:
        return f"never updated, {silence_us / 1e6:g} s after it was registered"
    return f"no data for {silence_us / 1e6:g} s"


def _alert(level: Level, feed: Feed, title: str, message: str) -> AlertDraft:
    return AlertDraft(
        level, Category.GENERAL, f"feed {feed.name}: {title}", message, None, f"feed:{feed.name}"
    )
