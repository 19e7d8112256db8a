"""The words of a host that pushes its state: its strategies, and its feeds."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET, UnsetType

from fundops.actors.host import FEEDS_MAX, STRATEGIES_MAX, Word, check_instants
from fundops.runtime import Clock, ConfigError
from fundops.wire import border
from fundops.wire.controller import FeedStatus, StrategyStatus

__all__ = ["Reported"]


class Reported:
    """The last status of each strategy, written from any thread and read by the tick."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._words: dict[str, Word] = {}
        self._feeds: dict[str, FeedStatus] = {}
        self._spoken: tuple[float, int | None] | None = None
        self.said = 0  # rises with each status

    def report(self, status: StrategyStatus) -> None:
        """Keep the status in place of an older one, with the instant at which it was given.

        Raises: `ConfigError` naming the field that is wrong; the older status then stands.
        """
        checked = border.strategy_status(status)
        check_instants(checked.status, self._clock.now_us())
        name = checked.status.name
        if len(self._words) >= STRATEGIES_MAX and name not in self._words:
            raise ConfigError("name", f"at most {STRATEGIES_MAX} strategies are managed")
        self._words[name] = Word(checked.status, checked.doubt, self._clock.monotonic_s())
        self.said += 1  # two threads may add one alone, which is news as well

    def words(self) -> Mapping[str, Word]:
        """The last word about each strategy, in the order of the first ones."""
        return self._words.copy()

    def report_feed(
        self, name: str, at_us: int | None = None, stale_after_s: float | UnsetType | None = UNSET
    ) -> None:
        """Keep the word about a feed; `at_us` is that of its newest data, None: now.

        Raises: `ConfigError` naming the field that is wrong; the older word then stands.
        """
        now_us = self._clock.now_us()
        feed = border.feed_status(
            FeedStatus(name, now_us if at_us is None else at_us, stale_after_s)
        )
        check_instants(feed, now_us)
        if len(self._feeds) >= FEEDS_MAX and feed.name not in self._feeds:
            raise ConfigError("name", f"at most {FEEDS_MAX} feeds are watched")
        self._feeds[feed.name] = feed
        self.speak(at_us)

    def speak(self, at_us: int | None = None) -> None:
        """The host has said something that is no status, at its own instant `at_us`; None: now."""
        self._spoken = self._clock.monotonic_s(), at_us

    def spoken(self) -> tuple[float, int | None] | None:
        """The last word that is no status: its monotonic instant, and the host's own instant."""
        return self._spoken

    def feeds(self) -> Mapping[str, FeedStatus]:
        """The last word about each feed, in the order of the first ones."""
        return self._feeds.copy()
