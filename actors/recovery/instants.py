"""Instants when the wall clock is set: they keep their distance in monotonic time.

Records and feeds hold wall time, because downtime counts and other programs read it. While the
process runs, each jump of the wall clock moves them by the same amount, so a cooldown, a probation
or an age never changes its length. A jump while the process was down cannot be measured; then a due
instant is brought down to its full length, and no past event lies in the future.
"""

from __future__ import annotations

from msgspec.structs import replace

from ...runtime import Clock
from ...wire.recovery import RecoveryPhase
from .record import Record
from .settings import RecoverySettings, cooldown_us, to_us

__all__ = ["ALERTED_JUMP_US", "WallWatch", "bounded", "moved"]

# Clocks that are slewed drift apart by some milliseconds an hour, which is no jump.
JUMP_US = 1_000_000
# A jump above this is an event in the log.
ALERTED_JUMP_US = 60_000_000


class WallWatch:
    """Measures the jumps of the wall clock against the monotonic one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_us = self._measured_us()

    def _measured_us(self) -> int:
        return self._clock.now_us() - round(self._clock.monotonic_s() * 1_000_000)

    def jump_us(self) -> int:
        """Microseconds by which the wall clock jumped since the last call; 0: by under a second."""
        jump_us = self._measured_us() - self._offset_us
        if abs(jump_us) < JUMP_US:
            return 0
        self._offset_us += jump_us
        return jump_us


def moved(record: Record, by_us: int) -> Record:
    """The record after the wall clock jumped by `by_us`; the same object when it holds no time."""
    if record.due_us is None and record.restarted_us is None and not record.starts:
        return record
    return replace(
        record,
        due_us=None if record.due_us is None else record.due_us + by_us,
        restarted_us=None if record.restarted_us is None else record.restarted_us + by_us,
        starts=tuple(at_us + by_us for at_us in record.starts),
    )


def bounded(record: Record, now_us: int, settings: RecoverySettings) -> Record:
    """The stored record at the start of a life, if the wall clock went back meanwhile."""
    if record.inner is RecoveryPhase.PROBATION:
        longest_us = to_us(settings.probation_s)
    else:
        # A release from a hold waits for the first cooldown at any attempt.
        longest_us = max(cooldown_us(settings, record.attempts), to_us(settings.base_cooldown_s))
    latest_us = now_us + longest_us
    if (
        (record.due_us or 0) <= latest_us
        and (record.restarted_us or 0) <= now_us
        and all(at_us <= now_us for at_us in record.starts)
    ):
        return record
    return replace(
        record,
        due_us=None if record.due_us is None else min(record.due_us, latest_us),
        restarted_us=None if record.restarted_us is None else min(record.restarted_us, now_us),
        starts=tuple(min(at_us, now_us) for at_us in record.starts),
    )
