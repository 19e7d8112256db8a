"""Limits of an event's texts and instants, and the checks that refuse any others.

A request may carry anything that its sender put into it, so each field is checked before an entry
is decided: a text must fit its limit and be storable as UTF-8, an instant must lie between 1970 and
9999 (microseconds since the epoch), a list must hold the right parts. Amounts are checked in
`wire.money`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import date
from functools import lru_cache
from typing import Any

import msgspec

from ...runtime import shown
from ...wire.errors import BadField
from ...wire.ledger import (
    BookFill,
    ClosePeriod,
    Correct,
    Event,
    Leg,
    OpeningBalances,
    OpeningPosition,
    Post,
    ReopenPeriod,
    Reverse,
)

__all__ = [
    "are_ascii_texts",
    "check_fields",
    "check_text",
    "check_time",
    "is_day",
    "is_instant",
    "is_text",
    "is_time",
    "likely_unit",
]

# Longest texts, in characters.
KEY_MAX = 128
NAME_MAX = 128
MEMO_MAX = 1_024
INSTANT_MAX_US = 253_402_300_799_999_999  # the last microsecond of the year 9999
EARLIEST_US = 631_152_000_000_000  # 1990: no event is older, but seconds and milliseconds are
AHEAD_MAX_US = 300 * 1_000_000  # the clocks of a fund and its engine may differ by so much
# From 1990 to 2100 in each unit that may be mistaken for microseconds.
_LIKELY_UNITS = {
    unit: range(EARLIEST_US // divisor, 4_102_444_800_000_000 // divisor)
    for unit, divisor in (("seconds", 1_000_000), ("milliseconds", 1_000))
} | {"nanoseconds": range(EARLIEST_US * 1_000, 4_102_444_800_000_000 * 1_000)}


def is_text(value: object, limit: int) -> bool:
    """Whether `value` is a text of 1 to `limit` characters that can be encoded as UTF-8."""
    # An exact type check: msgspec refuses to encode a subclass of str.
    if type(value) is not str or not 1 <= len(value) <= limit:
        return False
    # UTF-8 has no encoding for one half of a surrogate pair.
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def are_ascii_texts(values: Collection[Any], limit: int) -> bool:
    """Whether all values are ASCII texts of 1 to `limit` characters: a fast, stricter `is_text`."""
    return {type(value) for value in values} <= {str} and (
        all(map(str.isascii, values))
        and all(1 <= length <= limit for length in set(map(len, values)))
    )


def is_instant(value: object) -> bool:
    """Whether `value` is an int of microseconds since the epoch, up to the end of the year 9999."""
    return type(value) is int and 0 <= value <= INSTANT_MAX_US


def likely_unit(at_us: int) -> str | None:
    """The unit that an instant seems to have by mistake; None: it may be microseconds."""
    return next((unit for unit, years in _LIKELY_UNITS.items() if at_us in years), None)


def is_time(at_us: int, now_us: int) -> bool:
    """Whether an event may have this time: 1990 or later, at most 5 minutes ahead of the clock."""
    return EARLIEST_US <= at_us <= now_us + AHEAD_MAX_US


def check_time(at_us: int, now_us: int) -> None:
    """Check that an event may have this time, as `is_time`. Raises: `BadField`."""
    if is_time(at_us, now_us):
        return
    unit = likely_unit(at_us)
    if unit is not None:
        problem = f"looks like {unit}; an instant is in microseconds"
    elif at_us < EARLIEST_US:
        problem = "lies before the year 1990"
    else:
        problem = f"is more than 5 minutes ahead of the clock, which says {now_us}"
    raise BadField("at_us", f"{at_us} {problem}")


def is_day(value: object) -> bool:
    """Whether `value` is a date as YYYY-MM-DD, the one ISO form whose text order is time order."""
    try:
        return isinstance(value, str) and date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def check_text(field: str, value: object, limit: int, *, at_least: int = 1) -> None:
    """Check that `value` is a text of 1 to `limit` characters.

    `at_least` changes only the message, for fields that may also be empty. Raises: `BadField`.
    """
    if not is_text(value, limit):
        raise BadField(field, f"{shown(value)} is not a text of {at_least} to {limit} characters")


def check_fields(event: Event | Correct, key: str) -> None:
    """Check every text, instant and part of an event, and its idempotency key.

    Raises: `BadField` naming the first field that is malformed or cannot be stored.
    """
    check_text("key", key, KEY_MAX)
    _check_texts(event)
    more = _MORE_CHECKS.get(type(event))
    if more is not None:
        more(event)
    at_us = event.at_us
    if at_us is not None and not is_instant(at_us):
        unit = likely_unit(at_us) if type(at_us) is int else None
        hint = "" if unit is None else f"; it looks like {unit}"
        raise BadField(
            "at_us",
            f"{shown(at_us)} is not an instant between the years 1970 and 9999, in microseconds"
            f"{hint}",
        )


# The text fields of all events. The reason of a reopening is stored together with who gave it, as
# "reason (by actor)", so the two together must fit a memo.
_TEXTS = {
    **dict.fromkeys(
        (
            "account",
            "asset",
            "by",
            "fee_asset",
            "from_strategy",
            "instrument",
            "market",
            "strategy",
            "to",
            "to_asset",
            "to_strategy",
        ),
        NAME_MAX,
    ),
    "memo": MEMO_MAX,
    "reason": MEMO_MAX - NAME_MAX - len(" (by )"),
}
_MAY_BE_EMPTY = ("memo", "reason")


@lru_cache
def _texts_of(kind: type) -> tuple[tuple[str, int, object], ...]:
    """The text fields of a kind of struct: name, longest length, and its value for "none"."""
    texts = [field for field in msgspec.structs.fields(kind) if field.name in _TEXTS]
    # UNSET equals no value: a text without the default None must be given.
    none_of = {text.name: None if text.default is None else msgspec.UNSET for text in texts}
    return tuple(
        (name, _TEXTS[name], "" if name in _MAY_BE_EMPTY else none)
        for name, none in none_of.items()
    )


def _check_texts(struct: msgspec.Struct) -> None:
    for field, limit, none in _texts_of(type(struct)):
        value = getattr(struct, field)
        # By type first: an array compares to an array, and a caller's class may raise.
        if value is not none and not (type(value) is str and value == none):
            check_text(field, value, limit, at_least=len(none) if isinstance(none, str) else 1)


def _check_parts(field: str, parts: object, kind: type[msgspec.Struct]) -> None:
    if not isinstance(parts, tuple | list):
        raise BadField(field, f"{shown(parts)} is not a tuple of {kind.__name__}")
    for part in parts:
        if not isinstance(part, kind):
            raise BadField(field, f"{shown(part)} is not a {kind.__name__}")
        _check_texts(part)


def _check_day(event: ClosePeriod | ReopenPeriod) -> None:
    if not is_day(event.day):
        raise BadField("day", f"{shown(event.day)} is not a date as YYYY-MM-DD")


def _check_seq(event: Correct | Reverse) -> None:
    if type(event.seq) is not int:
        raise BadField("seq", f"{shown(event.seq)} is not the number of an entry")


def _check_fill(event: BookFill) -> None:
    if event.takes_back is not None and type(event.takes_back) is not int:
        raise BadField("takes_back", f"{shown(event.takes_back)} is not the number of an entry")


def _check_correction(event: Correct) -> None:
    _check_seq(event)
    if not isinstance(event.entry, Event):
        raise BadField("entry", f"{shown(event.entry)} is not an event to book")
    if event.entry.key is not None:
        raise BadField(
            "entry.key", "must not be given: the new entry takes the key of its correction"
        )


_MORE_CHECKS: Mapping[type, Callable[[Any], None]] = {
    BookFill: _check_fill,
    OpeningBalances: lambda event: _check_parts("positions", event.positions, OpeningPosition),
    Post: lambda event: _check_parts("legs", event.legs, Leg),
    ClosePeriod: _check_day,
    ReopenPeriod: _check_day,
    Reverse: _check_seq,
    Correct: _check_correction,
}
