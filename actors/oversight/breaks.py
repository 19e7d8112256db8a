"""The comparison of the two NAVs, the ledger's and the guard's. Pure; money in minor units."""

from __future__ import annotations

__all__ = ["is_break"]

# A cent, or a basis point of NAV if that is more.
BREAK_TOLERANCE_MINOR = 1_000_000
BREAK_TOLERANCE_FRACTION = 1e-4


def is_break(gap_minor: int, expected_minor: int) -> bool:
    """Whether the two NAVs differ by more than rounding explains."""
    return abs(gap_minor) > max(
        BREAK_TOLERANCE_MINOR, BREAK_TOLERANCE_FRACTION * abs(expected_minor)
    )
