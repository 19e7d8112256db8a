"""The failure window: the arithmetic that decides when a supervisor gives up.

Pure: it is told each time and never reads a clock. Times are trio's, in seconds.

Two rules apply, and either is enough to escalate. More than `intensity` failures of all children
within `period_s` are a burst. `max_consecutive` failures of one child in a row, with no
`stable_after_s` of running between them, are a slow crash loop, which the first rule misses when
the backoff is longer than the period.
"""

from __future__ import annotations

from collections import deque

__all__ = ["FailureWindow"]


class FailureWindow:
    """The failures of one supervisor's children that still count."""

    def __init__(
        self, *, intensity: int, period_s: float, max_consecutive: int, stable_after_s: float
    ) -> None:
        self._intensity = intensity
        self._period_s = period_s
        self._max_consecutive = max_consecutive
        self._stable_after_s = stable_after_s
        self._stamps: deque[tuple[float, str]] = deque()  # time and child, oldest first
        self._in_a_row: dict[str, int] = {}

    def record(self, name: str, at_s: float, *, running_since_s: float) -> str | None:
        """Count one failure of a child; a text when the supervisor has to give up, and why.

        `running_since_s` is infinite for a child that failed before it was ready.
        """
        stable = at_s - running_since_s >= self._stable_after_s
        in_a_row = self._in_a_row[name] = 1 if stable else self.in_a_row(name) + 1
        stamps = self._stamps
        # The edge is inclusive, as in Erlang/OTP: a failure exactly `period_s` old still counts.
        while stamps and stamps[0][0] < at_s - self._period_s:
            stamps.popleft()
        stamps.append((at_s, name))
        if len(stamps) > self._intensity:
            return (
                f"{_failures(len(stamps))} within period_s={self._period_s:g}, "
                f"more than intensity={self._intensity} allows"
            )
        if in_a_row >= self._max_consecutive:
            return (
                f"{_failures(in_a_row)} in a row of {name!r} reached "
                f"max_consecutive={self._max_consecutive} "
                f"without stable_after_s={self._stable_after_s:g} of running"
            )
        return None

    def next_may_escalate(self, name: str) -> bool:
        """Whether the child's next failure could be one too many.

        A cheap look without the time: stamps that have left the window may still be counted, so
        True may be wrong and False never is.
        """
        if len(self._stamps) >= self._intensity:
            return True
        return self.in_a_row(name) + 1 >= self._max_consecutive

    def in_a_row(self, name: str) -> int:
        """Failures of the child since it last ran for `stable_after_s`."""
        return self._in_a_row.get(name, 0)

    def count(self, name: str, at_s: float) -> int:
        """Failures of the child that still count towards `intensity`."""
        if not self._stamps:
            return 0
        since_s = at_s - self._period_s
        return sum(failed == name and stamp_s >= since_s for stamp_s, failed in self._stamps)

    def clear(self) -> None:
        """Forget all failures, for a supervisor that starts afresh."""
        self._stamps.clear()
        self._in_a_row.clear()


def _failures(count: int) -> str:
    return "1 failure" if count == 1 else f"{count} failures"
