"""Idempotency keys: how they are minted and derived, and which of them the ledger reserves."""

from __future__ import annotations

import json
import secrets
from hashlib import sha256

from .fields import KEY_MAX

__all__ = [
    "MINTED_BELOW",
    "RESERVED",
    "SETTLEMENT",
    "cash_event_key",
    "fill_prefix",
    "late_settlement_key",
    "new_key",
    "old_fill_key",
    "reversal_key_of",
    "settlement_prefixes",
]

# Minted keys begin with the time in hexadecimal digits, whose first one stays 0 for more than
# 30,000 years. So all of them sort below this text.
MINTED_BELOW = "1"

SETTLEMENT = "settlement:"
# Prefixes of the keys of reported fills, settlements and cash events. A caller that took such a key
# would block the report that comes later.
RESERVED = ("fill:", SETTLEMENT, "cash_event:")

# Ids up to this length stand in a key as they are: a revision of up to 19 digits and the words
# around them fit beside it.
PLAIN_ID_MAX = 64


def new_key(now_us: int) -> str:
    """A fresh idempotency key that sorts by time.

    Random keys would cost a big index eight times as much.
    """
    return f"{now_us:016x}-{secrets.token_hex(8)}"


def reversal_key_of(key: str) -> str:
    """The key of the reversal inside a correction; hashed when the plain form would be too long."""
    whole = f"{key}:reversal"
    return whole if len(whole) <= KEY_MAX else f"{sha256(key.encode()).hexdigest()}:reversal"


def fill_prefix(strategy: str, instrument: str, fill_id: str) -> str:
    """The beginning of the keys of one reported fill; its revision number completes a key.

    Ids are unique for a strategy and an instrument only, and too long together for a key.
    """
    # JSON quotes the three, so that no character in one of them can shift the border.
    three = json.dumps([strategy, instrument, fill_id]).encode()
    return f"fill:{sha256(three).hexdigest()}:"


def old_fill_key(fill_id: str) -> str:
    """The key under which earlier versions have booked a fill."""
    return f"fill:{fill_id}"


def settlement_prefixes(settlement_id: str) -> tuple[str, ...]:
    """The beginnings of the keys of one reported settlement; its revision number completes a key.

    The first one is for new entries. A long id is hashed, so that the longest key of a settlement
    fits; earlier versions have booked it under the plain id.
    """
    plain = f"{SETTLEMENT}{settlement_id}:"
    if len(settlement_id) <= PLAIN_ID_MAX:
        return (plain,)
    return f"{SETTLEMENT}{sha256(settlement_id.encode()).hexdigest()}:", plain


def late_settlement_key(fill_key: str) -> str:
    """The key of the entry that settles a fill which came after the settlement of its market.

    It ends in no number, so it is never taken for the revision of a settlement.
    """
    return f"{SETTLEMENT}{fill_key}:late"


def cash_event_key(event_id: str) -> str:
    """The key under which a reported cash event is booked."""
    return f"cash_event:{sha256(event_id.encode()).hexdigest()}"
