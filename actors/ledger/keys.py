"""Idempotency keys: how they are minted and derived, and which of them the ledger reserves."""

from __future__ import annotations

import secrets
from hashlib import sha256

from .fields import KEY_MAX

__all__ = [
    "MINTED_BELOW",
    "RESERVED",
    "fill_key",
    "new_key",
    "reversal_key_of",
    "settlement_prefix",
]

# Minted keys begin with the time in hexadecimal digits, whose first one stays 0 for more than
# 30,000 years. So all of them sort below this text.
MINTED_BELOW = "1"

# Prefixes of the keys of reported fills and settlements. A caller that took such a key would block
# the report that comes later.
RESERVED = ("fill:", "settlement:")


def new_key(now_us: int) -> str:
    """A fresh idempotency key that sorts by time.

    Random keys would cost a big index eight times as much.
    """
    return f"{now_us:016x}-{secrets.token_hex(8)}"


def reversal_key_of(key: str) -> str:
    """The key of the reversal inside a correction; hashed when the plain form would be too long."""
    whole = f"{key}:reversal"
    return whole if len(whole) <= KEY_MAX else f"{sha256(key.encode()).hexdigest()}:reversal"


def fill_key(fill_id: str) -> str:
    """The key under which a reported fill is booked."""
    return f"fill:{fill_id}"


def settlement_prefix(settlement_id: str) -> str:
    """The beginning of the keys of one reported settlement; its revision number completes a key."""
    return f"settlement:{settlement_id}:"
