"""The clock of the domain: wall time in int microseconds since the Unix epoch (UTC), and seconds.

Cadences, cooldowns, rate windows, leases and days in stage read this clock, so that a replay can
run years in seconds. Deadlines of I/O and of asks never read it; they use trio's own clock.
"""

from __future__ import annotations

import time
from typing import Protocol

from .errors import ConfigError

__all__ = ["DAY_US", "Clock", "SystemClock", "VirtualClock"]

# Days of the domain are 24 hours long: UTC has no daylight saving time.
DAY_US = 86_400_000_000


class Clock(Protocol):
    """Wall time and monotonic time. Implementations are safe to read from any thread."""

    def now_us(self) -> int:
        """Wall time: microseconds since 1970-01-01T00:00Z."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never run backwards, from an arbitrary origin."""
        ...


class SystemClock:
    """The clocks of the machine. Monotonic time includes suspend where the system counts it."""

    # On Linux only CLOCK_BOOTTIME counts suspended time; on macOS CLOCK_MONOTONIC does.
    _MONOTONIC_ID = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def now_us(self) -> int:
        """Wall time: microseconds since 1970-01-01T00:00Z."""
        return time.time_ns() // 1_000

    def monotonic_s(self) -> float:
        """Seconds that never run backwards, from an arbitrary origin."""
        return time.clock_gettime(self._MONOTONIC_ID)


class VirtualClock:
    """A clock for tests and replays that moves only when told to.

    Wall and monotonic time advance together.
    """

    def __init__(self, start_us: int = 0) -> None:
        self._start_us = start_us
        self._now_us = start_us

    def now_us(self) -> int:
        """Wall time: microseconds since 1970-01-01T00:00Z."""
        return self._now_us

    def monotonic_s(self) -> float:
        """Seconds since the start of this clock."""
        return (self._now_us - self._start_us) / 1_000_000

    def advance(self, seconds: float) -> None:
        """Move ahead by `seconds`, which must not be negative.

        Raises: `ConfigError`.
        """
        self.advance_to(self._now_us + round(seconds * 1_000_000))

    def advance_to(self, at_us: int) -> None:
        """Move ahead to the instant `at_us`, which must not lie in the past.

        Raises: `ConfigError`.
        """
        if at_us < self._now_us:
            raise ConfigError(
                "at_us",
                f"{at_us} lies before the clock's {self._now_us}; time does not run backwards",
            )
        self._now_us = at_us
