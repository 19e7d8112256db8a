"""Whether the wall clock can be believed. Pure.

Wall and monotonic time run at one rate. When they have parted, the wall clock was set by hand or by
a time server, and the process cannot tell whether it was wrong before or is wrong now.
"""

from __future__ import annotations

from ...runtime import Clock

__all__ = ["TOLERANCE_S", "ClockWatch"]

# Network time corrects a wall clock by less than this; leap seconds and summer time are no steps.
TOLERANCE_S = 60.0


class ClockWatch:
    """Compares the two clocks since it was made, or since a person confirmed the wall clock.

    It outlives the lives of the actor that asks it: a restart confirms nothing.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_s = self._now_offset_s()

    def _now_offset_s(self) -> float:
        return self._clock.now_us() / 1_000_000 - self._clock.monotonic_s()

    def parted_s(self) -> float:
        """Seconds that the wall clock has moved against the monotonic one; ahead is positive."""
        return self._now_offset_s() - self._offset_s

    def is_suspect(self) -> bool:
        """Whether they have parted by more than the tolerance."""
        return abs(self.parted_s()) > TOLERANCE_S

    def confirm(self) -> None:
        """Take the wall clock as it is now."""
        self._offset_s = self._now_offset_s()
