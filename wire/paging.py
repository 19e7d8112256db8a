"""The page size: every question for the newest entries checks its `limit` here."""

from __future__ import annotations

from ..runtime import shown
from .errors import BadLimit
from .foreign import plain_number

__all__ = ["COUNT_MAX", "checked_limit"]

COUNT_MAX = 2**63 - 1  # the largest integer that SQLite takes


def checked_limit(limit: int) -> int:
    """The page size that `limit` asks for, at most `COUNT_MAX`. 0 gives an empty page.

    Raises: `BadLimit` (a ValueError) when it is negative or not a whole number.
    """
    own = plain_number(limit)
    if type(own) is not int or own < 0:
        raise BadLimit("limit", f"{shown(limit)} is not a whole number >= 0")
    return min(own, COUNT_MAX)
