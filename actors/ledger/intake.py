"""From requests to a draft: idempotency, and requests that book all or none.

Plain functions over a draft and the entries that are known by their keys. They never wait, and make
nothing durable. `now_us` is called once per event, or once for a whole run of plain moves; it gives
microseconds since the epoch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...runtime import Rejected, shown
from ...wire.errors import AlreadyReversed, BadField, IdempotencyConflict
from ...wire.ledger import (
    BOOKABLE,
    EVENTS_MAX,
    BookFill,
    BookSettlement,
    ClosePeriod,
    ClosePosition,
    Correct,
    Event,
    Mark,
    OpeningBalances,
    OpenPosition,
    Post,
    PostMany,
    Rename,
    ReopenPeriod,
    Reverse,
    Settle,
    Split,
    Transfer,
)
from .book import RUN, Book, Draft
from .entry import Entry, LotKey, canonical, request_of
from .events import are_moves
from .fields import KEY_MAX, check_fields, check_text, is_text
from .keys import MINTED_BELOW, RESERVED, new_key, reversal_key_of

__all__ = [
    "Decided",
    "Decision",
    "Known",
    "Write",
    "decide_run",
    "events_of",
    "keys_to_look_up",
    "work_of",
]

Known = dict[str, Entry]  # by idempotency key: durable entries, and those decided in this run
Decided = tuple[int, str, bool]  # seq, key, and whether the entry was there already
Decision = Decided | list[Decided] | Rejected
Write = Event | Correct | PostMany
Now = Callable[[], int]


def events_of(request: Write) -> tuple[Event | Correct, ...]:
    """The events of a request: one, or all of a `PostMany`."""
    return request.events if isinstance(request, PostMany) else (request,)


# -- how much work it is

# Events whose cost depends on their parts, on the open lots of their instrument, or on earlier
# entries of any size.
_PARTS_IN: Mapping[type, str] = {OpeningBalances: "positions", Post: "legs"}
_LOTS_OF: Mapping[type, str] = {
    **dict.fromkeys((BookFill, ClosePosition, Mark, OpenPosition), "instrument"),
    **dict.fromkeys((BookSettlement, Settle), "market"),
}
_LOOKING_BACK = {ClosePeriod, Correct, Rename, ReopenPeriod, Reverse, Split, Transfer}
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


# -- requests


def keys_to_look_up(events: Sequence[Write], newest_minted: str) -> list[str]:
    """The keys given with these events that a durable entry may have.

    `newest_minted` is the newest durable key below `MINTED_BELOW`. A minted key after it is new;
    looking each of those up would cost more than hashing all of their entries.
    """
    keys = [getattr(event, "key", None) for event in events]
    texts = [key for key in keys if type(key) is str and not newest_minted < key < MINTED_BELOW]
    given = [key for key in texts if is_text(key, KEY_MAX)]
    corrected = [event.key for event in events if isinstance(event, Correct)]
    reversals = [
        reversal_key_of(key) for key in corrected if key is not None and is_text(key, KEY_MAX)
    ]
    return given + reversals


def decide_run(
    requests: Sequence[Write], draft: Draft, known: Known, now_us: Now
) -> Sequence[Decision]:
    """Decide each request on top of those before it; a refused one leaves the draft as it was.

    New entries are added to `known`, so a key that comes twice in the run is booked once.
    """
    moves = _decide_moves(requests, draft, known, now_us)
    if moves is not None:
        return moves
    return [_decide(request, draft, known, now_us) for request in requests]


def _decide(request: Write, draft: Draft, known: Known, now_us: Now) -> Decision:
    try:
        if isinstance(request, PostMany):
            return _decide_all(request.events, draft, known, now_us)
        return _decide_given(request, draft, known, now_us)
    except Rejected as refusal:
        return refusal


def _decide_all(
    events: Sequence[Event | Correct], draft: Draft, known: Known, now_us: Now
) -> list[Decided]:
    """All or none: when one is refused, draft and `known` keep no trace of those before it."""
    if len(events) > EVENTS_MAX:
        raise BadField(
            "events", f"{len(events):,} are more than {EVENTS_MAX:,} at once: give them in parts"
        )
    moves = _decide_moves(events, draft, known, now_us)
    if moves is not None:
        return moves
    fork, learnt, decided = draft.fork(), known.copy(), list[Decided]()
    for number, event in enumerate(events):
        try:
            decided.append(_decide_given(event, fork, learnt, now_us))
        except Rejected as refusal:
            raise _of_several(refusal, number, draft.seq) from None
    draft.adopt(fork)
    known.update(learnt)
    return decided


def _decide_moves(
    events: Sequence[Write], draft: Draft, known: Known, now_us: Now
) -> list[Decided] | None:
    """Decide all of them in one go if they are plain moves with new keys; else None."""
    if len(events) < 2 or not are_moves(events):
        return None
    recorded_us = now_us()
    keys = [new_key(recorded_us) if event.key is None else event.key for event in events]
    if not _are_new(keys, known):
        return None
    entries = draft.decide_moves(events, keys, recorded_us)
    if entries is None:
        return None
    known.update(zip(keys, entries, strict=True))
    return [(entry.seq, entry.key, False) for entry in entries]


def _are_new(keys: Sequence[str], known: Known) -> bool:
    """Whether these are different texts that a caller may use and that no known entry has."""
    if {type(key) for key in keys} != {str} or len(set(keys)) < len(keys):
        return False
    return known.keys().isdisjoint(keys) and not [key for key in keys if key.startswith(RESERVED)]


def _decide_given(event: Event | Correct, draft: Draft, known: Known, now_us: Now) -> Decided:
    """Decide an event of a caller, who may not use the keys of reports."""
    if not isinstance(event, BOOKABLE):
        raise BadField("events", f"{shown(event)} is not an event to book")
    if event.key is not None:
        check_text("key", event.key, KEY_MAX)
        if event.key.startswith(RESERVED):
            prefixes = " or ".join(map(repr, RESERVED))
            raise BadField(
                "key",
                f"{event.key!r} begins with {prefixes}, which the ledger reserves for reports",
            )
    return _decide_event(event, draft, known, now_us)


def _decide_event(event: Event | Correct, draft: Draft, known: Known, now_us: Now) -> Decided:
    """Decide one event, unless its key is known: then its content must be that of the entry."""
    recorded_us = now_us()
    key = new_key(recorded_us) if event.key is None else event.key
    if key in known:
        check_fields(event, key)
        entry = known[key]
        if request_of(entry) != canonical(event):
            raise IdempotencyConflict(key, entry.seq)
        return entry.seq, key, True
    if isinstance(event, Correct):
        taken = known.get(reversal_key_of(key))
        if taken is not None:
            raise IdempotencyConflict(taken.key, taken.seq)
        entry = draft.correct(event, key, recorded_us)
        known[reversal_key_of(key)] = draft.entries[-2]
    else:
        entry = draft.decide(event, key, recorded_us)
    known[key] = entry
    return entry.seq, key, False


def _of_several(refusal: Rejected, number: int, last: int) -> Rejected:
    """The refusal of one event of a request, with the number of that event.

    Entries after `last` were decided by this request and are dropped with it, so none is named.
    """
    if isinstance(refusal, IdempotencyConflict) and refusal.seq is not None and refusal.seq > last:
        refusal = IdempotencyConflict(refusal.key, None)
    elif isinstance(refusal, AlreadyReversed) and refusal.by is not None and refusal.by > last:
        refusal = AlreadyReversed(refusal.seq, None)
    refusal.args = (f"entries[{number}]: {refusal}",)
    return refusal
