"""The way of a request into a draft: how much work it is, and what it is decided to be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ...wire.ledger import (
    BookFill,
    ClosePeriod,
    ClosePosition,
    Correct,
    Mark,
    OpeningBalances,
    OpenPosition,
    Post,
    ReopenPeriod,
    Reverse,
    Settle,
)
from .book import RUN, Book
from .entry import LotKey

__all__ = ["work_of"]

# Events whose cost depends on their parts, on the open lots of their instrument, or on earlier
# entries of any size.
_PARTS_IN: Mapping[type, str] = {OpeningBalances: "positions", Post: "legs"}
_LOTS_OF: Mapping[type, str] = {
    **dict.fromkeys((BookFill, ClosePosition, Mark, OpenPosition), "instrument"),
    Settle: "market",
}
_LOOKING_BACK = {ClosePeriod, Correct, ReopenPeriod, Reverse}
_LONG = {*_PARTS_IN, *_LOTS_OF, *_LOOKING_BACK}


def work_of(events: Sequence[Any], book: Book) -> int:
    """About how many entries, legs and lots must be gone through to decide these events."""
    work, opened = len(events), Counter[LotKey]()
    if _LONG.isdisjoint(map(type, events)):
        return work
    for event in events:
        kind = type(event)
        if kind in _PARTS_IN:
            parts = getattr(event, _PARTS_IN[kind])
            work += len(parts) if isinstance(parts, tuple | list) else 0
        elif kind in _LOTS_OF:
            key = (event.strategy, getattr(event, _LOTS_OF[kind]))
            # The fields are not checked yet: a value of another type may not even be hashable.
            if all(name is None or type(name) is str for name in key):
                work += len(book.open_lots(key)) + opened[key]
                opened[key] += 1
        elif kind in _LOOKING_BACK:
            work += RUN
    return work
