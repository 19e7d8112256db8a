"""Page sizes: every question for "the newest N" takes them the same way."""

from __future__ import annotations

from .errors import BadLimit

__all__ = ["COUNT_MAX", "checked_limit"]

COUNT_MAX = 2**63 - 1


def checked_limit(limit: int) -> int:
    """0 gives an empty page; more than a database can count is all. Raises: `BadLimit` (a ValueError)."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise BadLimit("limit", f"{limit!r} is not a whole number >= 0")
    return min(limit, COUNT_MAX)
