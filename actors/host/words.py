"""The words of a host about its strategies and feeds, and how an answer of the controller is read.

Pure: no clock and no calls. An answer of thousands is read in pieces, so the readers are
generators. Within an answer each item stands alone: one that is wrong is set aside by name, the
last good word about it stands, and the others count.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from ...runtime import ConfigError, shown
from ...wire import border
from ...wire.controller import FeedStatus, StrategyStatus
from ...wire.foreign import field_of, fitted, plain_text
from ...wire.instants import fault_of

__all__ = [
    "FEEDS_MAX",
    "STRATEGIES_MAX",
    "Heard",
    "Pushed",
    "Word",
    "Words",
    "check_instants",
    "read_feeds",
    "read_strategies",
]

STRATEGIES_MAX = 10_000
FEEDS_MAX = 10_000


W = TypeVar("W")


class Word(NamedTuple):
    """One strategy's last good status, and the monotonic instant at which it was given."""

    status: StrategyStatus
    doubt: str  # names its unknown words; "": none
    at_s: float


class Words(NamedTuple, Generic[W]):
    """The words of an answer, by name of their strategy or feed."""

    good: Mapping[str, W]  # the last good one of each that is listed
    aside: Mapping[str, str]  # names, or places, of the items that were set aside, and why


class Heard(NamedTuple):
    """The host's last words."""

    statuses: tuple[StrategyStatus, ...]  # the last good ones
    doubts: Mapping[str, str]  # strategies that were set aside or use unknown words, and why
    lapsed: Mapping[str, str]  # all that get no lease: those, and those without a heartbeat
    age_s: float  # of the newest word
    silent: bool
    at_us: int | None  # wall time of the last answer; None: none yet, or the host pushes
    listed: bool  # the statuses are a whole list, so a strategy that is missing has left it
    said: int  # rises with each answer that has a right status, or pushed status


class Pushed(Protocol):
    """The words of a host that pushes its state."""

    said: int  # rises with each status

    def feeds(self) -> Mapping[str, FeedStatus]:
        """The last word about each feed."""
        ...

    def spoken(self) -> tuple[float, int | None] | None:
        """The last word that is no status: its monotonic instant, and the host's own instant."""
        ...

    def words(self) -> Mapping[str, Word]:
        """The last word about each strategy, in the order of the first ones."""
        ...


def read_strategies(
    answer: Sequence[Any], before: Mapping[str, Word], at_s: float, at_us: int
) -> Generator[None, None, Words[Word]]:
    """Read an answer that came at these instants; `before` are the last good words."""
    good: dict[str, Word] = {}
    aside: dict[str, str] = {}
    for place, item in enumerate(answer):
        yield
        try:
            status, doubt = border.strategy_status(item)
            check_instants(status, at_us)
        except ConfigError as wrong:
            name = _name_of(item, place)
            aside[name] = fitted(str(wrong))
            # Its place is kept by the last good status, below.
            if name in before and name not in good:
                good[name] = before[name]
            continue
        if status.name in good or status.name in aside:
            aside.setdefault(status.name, "it is reported twice")
            _restore(good, before, status.name)
            continue
        good[status.name] = Word(status, doubt, at_s)
    return Words(good, aside)


def read_feeds(
    answer: Sequence[Any], before: Mapping[str, FeedStatus]
) -> Generator[None, None, Words[FeedStatus]]:
    """Read an answer; `before` are the last good words."""
    good: dict[str, FeedStatus] = {}
    aside: dict[str, str] = {}
    for place, item in enumerate(answer):
        yield
        try:
            feed = border.feed_status(item)
            if feed.name in good or feed.name in aside:
                raise ConfigError("name", f"{shown(feed.name)} is reported twice")
        except ConfigError as wrong:
            name = _name_of(item, place)
            aside[name] = fitted(str(wrong))
            _restore(good, before, name)
            continue
        good[feed.name] = feed
    return Words(good, aside)


def _restore(good: dict[str, W], before: Mapping[str, W], name: str) -> None:
    """Put the last good word in place of one that is set aside; without one it is left out."""
    if name in before:
        good[name] = before[name]
    else:
        good.pop(name, None)


def check_instants(status: StrategyStatus | FeedStatus, now_us: int) -> None:
    """Refuse an instant that lies ahead, or has another unit: no age could be said by it.

    Raises: `ConfigError`.
    """
    instants: tuple[tuple[str, int | None], ...] = (
        (("at_us", status.last_data_us),)
        if isinstance(status, FeedStatus)
        else (("at_us", status.at_us), ("heartbeat_us", status.heartbeat_us))
    )
    for field, at_us in instants:
        if at_us is not None and (fault := fault_of(at_us, now_us)):
            raise ConfigError(field, fault)


def _name_of(item: Any, place: int) -> str:
    """The name of an item that is set aside, else its place in the answer."""
    given = plain_text(field_of(item, "name"))
    return fitted(given, border.NAME_MAX) if given else f"item {place + 1}"
