"""The stalls of this process: a suspended machine, a stopped process, a loop that was blocked.

While it stood still the host may have spoken to no one, so no stall counts towards the age of a
word. All instants are monotonic seconds. Pure: the caller gives the time.
"""

from __future__ import annotations

__all__ = ["Stalls"]

PULSE_S = 1.0  # between two calls of `pulse`
STALL_S = 3.0  # a pulse so late was delayed by a suspended machine or a stopped process
STALLS_MAX = 16  # remembered; a word older than so many stalls is silent anyway


class Stalls:
    """Spans in which this process did not run.

    They are told by the ticks of the fund, `interval_s` apart, or by `pulse` each second where the
    host drives the ticks (`interval_s` None). In virtual time (`is_virtual`) pulses tell none,
    since it passes in jumps of any length.
    """

    def __init__(self, interval_s: float | None, now_s: float, *, is_virtual: bool) -> None:
        self._interval_s = interval_s
        self._is_virtual = is_virtual
        self._ticked_s = self._pulsed_s = now_s
        self._spans: list[tuple[float, float]] = []

    def tick(self, now_s: float) -> None:
        """A tick begins. One that is three intervals late follows a stall."""
        before_s, self._ticked_s = self._ticked_s, now_s
        if self._interval_s is not None and now_s - before_s > 3 * self._interval_s:
            self._add(before_s + self._interval_s, now_s)

    def pulse(self, now_s: float) -> None:
        """A second has passed."""
        before_s, self._pulsed_s = self._pulsed_s, now_s
        driven = self._interval_s is None and not self._is_virtual
        if driven and now_s - before_s > STALL_S:
            self._add(before_s + PULSE_S, now_s)

    def _add(self, begin_s: float, end_s: float) -> None:
        self._spans = [*self._spans, (begin_s, end_s)][-STALLS_MAX:]

    def age_s(self, at_s: float, now_s: float) -> float:
        """The age of a word that was given at `at_s`, without the stalls since."""
        if not self._spans:  # as at most times, and for each of thousands of words
            return now_s - at_s
        stalled_s = sum(
            max(0.0, min(now_s, end_s) - max(at_s, begin_s)) for begin_s, end_s in self._spans
        )
        return now_s - at_s - stalled_s
