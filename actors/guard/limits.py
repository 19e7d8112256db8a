"""The limits of the guard: how far a loss is, and how it is told."""

from __future__ import annotations

from typing import Final

__all__ = ["OBSERVED", "OVER_BELOW", "WARN_AT", "percent_below"]

# Warn from 80% of a limit, and call it over below 75%: one alert per approach, not one per wobble.
WARN_AT: Final = 0.80
OVER_BELOW: Final = 0.75
# Before the dedup keys of acts that mode observe did not carry out.
OBSERVED: Final = "observe:"


def percent_below(value: float, peak: float) -> float:
    """How far `value` lies below `peak`; 0 without a peak."""
    # To 9 decimals, as people read it: 1 - 0.8 is 0.19999999999999996, and 20% is 20%.
    return round(100 * (1 - value / peak), 9) if peak > 0 else 0.0
