"""One journal entry: its legs and lots, the canonical form of its request, and the hash chain.

Amounts are int minor units (1e-8). A posting is signed, debit > 0 and credit < 0; per entry and
asset the sum is zero. `Lot.quantity` is signed, in units of 1e-8; `cost_minor` and `mark_minor`
carry the sign of the position, so a lot is worth `cost_minor + mark_minor`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Context, Decimal
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from ...runtime import DAY_US
from ...wire.errors import AmountError
from ...wire.ledger import (
    BookFill,
    ChargeManagementFee,
    ChargePerformanceFee,
    Correct,
    Deposit,
    Event,
    Leg,
    OpeningPosition,
    PayFees,
    Price,
    RecordLoss,
    RecordProfit,
    Withdraw,
)
from ...wire.money import Amount, exact_decimal, from_minor, to_minor, to_ratio

__all__ = [
    "GENESIS",
    "SELF_DESCRIBING",
    "BalanceKey",
    "Balances",
    "Close",
    "Entry",
    "Lot",
    "LotImage",
    "LotKey",
    "Lots",
    "Original",
    "Posting",
    "Sealed",
    "amount_of",
    "canonical",
    "chain_hash",
    "encode_payloads",
    "kind_of",
    "request_of",
    "utc_day",
]

# The hash before the first entry.
GENESIS = bytes(32)

LotKey = tuple[str | None, str]  # strategy, instrument
Lots = Mapping[int, "Lot"]  # by id, oldest first
BalanceKey = tuple[str, str | None, str]  # account, strategy, asset
Balances = Mapping[BalanceKey, int]
Posting = tuple[str, str | None, str, int]  # account, strategy, asset, minor units


class Lot(NamedTuple):
    """One purchase, or short sale, that is still open."""

    id: int  # seq of the entry that opened it
    quantity: int
    cost_minor: int
    mark_minor: int


class LotImage(NamedTuple):
    """The state of a lot after an entry; quantity 0 means that the lot is closed."""

    strategy: str | None
    instrument: str
    id: int
    quantity: int
    cost_minor: int
    mark_minor: int


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One journal entry. Never reorder these fields: the chain hashes their stored encoding."""

    seq: int
    key: str
    recorded_us: int
    day: str  # ISO date, UTC
    kind: str
    strategy: str | None
    reverses: int | None  # seq of the entry that this one negates
    memo: str
    rounded: bool  # a figure was rounded to the scale
    # The canonical request, compared when a key comes again; empty for `SELF_DESCRIBING` kinds.
    request: str
    legs: tuple[Posting, ...]
    lots: tuple[LotImage, ...]
    corrects: int | None = None  # seq of the entry that this one replaces
    at_us: int | None = None  # when it happened; None: when it was recorded


Sealed = tuple[Entry, bytes, bytes]  # an entry with its payload and its hash


class Original(NamedTuple):
    """An entry that a reversal names, with the entry that has reversed it already, if any."""

    entry: Entry
    reversed_by: int | None


class Close(NamedTuple):
    """A closed period: its last day, and the seq of the entry that closed it."""

    day: str
    seq: int


@lru_cache
def kind_of(event_type: type) -> str:
    """The name of an event type in the journal, such as ``"deposit"``."""
    return str(event_type.__struct_config__.tag)  # type: ignore[attr-defined]


def utc_day(at_us: int) -> str:
    """The ISO date (UTC) of an instant in microseconds."""
    return _day_of(at_us // DAY_US)


# Entries come by the thousand on few days, and the text of a date is slow to make.
@lru_cache(maxsize=16)
def _day_of(days: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=days)).isoformat()


# -- the canonical form of a request

# Events whose entry holds the whole request, since its first leg is their amount. Their entries
# keep no second copy of it.
SELF_DESCRIBING = frozenset(
    (
        Deposit,
        Withdraw,
        PayFees,
        RecordProfit,
        RecordLoss,
        ChargeManagementFee,
        ChargePerformanceFee,
    )
)

_ALL_DIGITS = Context(prec=200)
_CANONICAL = msgspec.json.Encoder(order="sorted")


def canonical(event: Event | Correct) -> str:
    """The content of a request without its key: equal texts mean the same request.

    Amounts are compared by value, so 5, "5" and Decimal("5.0") are one amount; texts as they are.
    """
    return _CANONICAL.encode(_canonical_form(event)).decode()


def amount_of(canonical_amount: int | str) -> Decimal:
    """An amount as `canonical` writes it: minor units, or text where it has more digits."""
    if isinstance(canonical_amount, int):
        return from_minor(canonical_amount)
    return Decimal(canonical_amount)


def request_of(entry: Entry) -> str:
    """The canonical request that the entry was booked for."""
    if entry.request:
        return entry.request
    content = {
        "amount": abs(entry.legs[0][3]),
        "at_us": entry.at_us,
        "memo": entry.memo,
        "strategy": entry.strategy,
    }
    return _CANONICAL.encode([entry.kind, content]).decode()


def content_of(entry: Entry) -> dict[str, Any]:
    """The fields of the request that an entry was booked for, amounts as in `canonical`."""
    content: dict[str, Any] = msgspec.json.decode(request_of(entry))[1]
    return content


def _canonical_form(event: Event | Correct) -> list[object]:
    fields: dict[str, Any] = msgspec.structs.asdict(event)
    del fields["key"]
    for name in _ADDED_LATER:
        if fields.get(name, "") is None:
            del fields[name]
    for name, form in _forms_of(type(event)):
        if name in fields:
            fields[name] = form(fields[name])
    return [event.__struct_config__.tag, fields]


@lru_cache
def _forms_of(kind: type) -> tuple[tuple[str, Callable[[Any], object]], ...]:
    """The fields of this kind of struct whose canonical form differs from their value."""
    names: tuple[str, ...] = kind.__struct_fields__  # type: ignore[attr-defined]
    forms = {**_FORMS, **_FACTORS_OF.get(kind, {})}
    return tuple((name, forms[name]) for name in names if name in forms)


# Fields that older entries do not have. Left out where they are not used, so that a request has the
# content that it had then.
_ADDED_LATER = ("fee_asset", "takes_back", "paid")


def _minor_or_text(value: Amount | None) -> int | str | None:
    if value is None:
        return None
    try:
        return to_minor(value).minor
    except AmountError:
        # A report may have more digits than the scale. Any other such request is refused; it must
        # only not equal an entry whose key it repeats.
        return _factor_form(value) if isinstance(value, Decimal) else "none"


def _factor_form(value: Amount) -> int | str:
    """A factor with all of its digits: minor units where they suffice, else decimal text."""
    try:
        exact = exact_decimal(value) if isinstance(value, float) else value
        return to_minor(exact).minor
    except AmountError:
        pass
    try:
        return str(exact_decimal(value).normalize(_ALL_DIGITS))
    except AmountError:
        return "none"


def _paid_form(value: Amount) -> str:
    """The text that entries have for `paid` since there is one: all digits of the scale."""
    try:
        return str(from_minor(to_minor(value).minor))
    except AmountError:
        return "none"  # refused in any case, as in `_minor_or_text`


def _ratio_or_text(value: Amount) -> str:
    try:
        return str(to_ratio(value))
    except AmountError:
        return "none"  # refused in any case, as in `_minor_or_text`


def _legs_form(legs: Sequence[Leg]) -> object:
    return [[leg.account, _minor_or_text(leg.amount), leg.strategy, leg.asset] for leg in legs]


def _positions_form(positions: Sequence[OpeningPosition]) -> object:
    return [
        [
            position.instrument,
            *map(_minor_or_text, (position.quantity, position.cost, position.value)),
            position.strategy,
        ]
        for position in positions
    ]


_FACTORS_OF: Mapping[type, dict[str, Callable[[Any], object]]] = {
    BookFill: dict.fromkeys(("quantity", "price"), _factor_form),
    Price: {"value": _factor_form},
}
_FORMS: dict[str, Callable[[Any], object]] = {
    **dict.fromkeys(
        (
            "amount",
            "cash",
            "cost",
            "fee",
            "payoff",
            "price",
            "proceeds",
            "quantity",
            "to_amount",
            "value",
        ),
        _minor_or_text,
    ),
    "paid": _paid_form,
    "ratio": _ratio_or_text,
    "legs": _legs_form,
    "positions": _positions_form,
    "entry": _canonical_form,
}


# -- the chain

_PAYLOADS = msgspec.json.Encoder()


def encode_payloads(entries: Sequence[Entry]) -> list[bytes]:
    """The stored text of each entry.

    One call for many entries: single calls would spend most of the time on calling.
    """
    return _PAYLOADS.encode_lines(entries).splitlines()


def chain_hash(previous: bytes, payload: bytes) -> bytes:
    """SHA-256 over the previous hash and the payload: a changed byte changes every later hash."""
    return sha256(previous + payload).digest()
