"""The feeds: the last good word about each, asked for or pushed."""

from __future__ import annotations

from collections.abc import Generator, Mapping

from msgspec import UNSET

from ...runtime import in_pieces
from ...wire.controller import CanListFeeds, FeedStatus
from .calls import Calls
from .questions import Asked
from .words import Pushed, read_feeds

__all__ = ["Feeds"]


class Feeds:
    """Asks the controller for its feeds and adds those of `pushed`, if the host pushes any.

    `stale_after_s` is the limit of a feed without its own.
    """

    def __init__(self, calls: Calls, pushed: Pushed | None, stale_after_s: float) -> None:
        self._calls = calls
        self._pushed = pushed
        self._stale_after_s = stale_after_s
        self._question = Asked("feeds", calls)
        self._words: Mapping[str, FeedStatus] = {}
        self.doubts: Mapping[str, str] = {}  # feeds that were set aside, and why

    def ask(self) -> None:
        """Ask for the feeds, once a tick; nothing without that part."""
        if self._calls.can(CanListFeeds):
            self._question.ask()

    async def hear(self) -> tuple[FeedStatus, ...]:
        """The last good status of each feed, read in pieces.

        A feed with a wrong status is named in `doubts`, and its last good one stands.

        Raises: `HostFault` when the last question has no answer.
        """
        await self._calls.settle()
        await in_pieces(self._reading())
        problem = self._question.problem
        if problem is not None:
            raise problem
        words = dict(self._words)
        if self._pushed is not None:
            words |= self._pushed.feeds()
        return tuple(self._with_limit(feed) for feed in words.values())

    async def now(self) -> tuple[FeedStatus, ...]:
        """As `hear`, after asking and waiting for the answer. Raises: `HostFault`."""
        self.ask()
        await self._question.wait()
        return await self.hear()

    def _reading(self) -> Generator[None, None, None]:
        """Take the answer that has come in, if one has; the last words stand until it is read."""
        ended = self._question.take()
        if ended is None:
            return
        words, doubts = yield from read_feeds(ended.answer(), self._words)
        if self._question.taken is ended:  # else a newer answer was read between two pieces
            self._words, self.doubts = words, doubts

    def _with_limit(self, feed: FeedStatus) -> FeedStatus:
        if feed.stale_after_s is not UNSET:
            return feed
        return FeedStatus(feed.name, feed.last_data_us, self._stale_after_s)
