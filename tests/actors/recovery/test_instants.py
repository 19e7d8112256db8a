"""The wall clock is set while recovery runs, and while it does not."""

from collections.abc import Callable, Mapping

import pytest
from msgspec.structs import replace

from fundops.actors.recovery.instants import WallWatch, bounded, moved
from fundops.actors.recovery.record import Decision, Record
from fundops.actors.recovery.settings import RecoverySettings
from fundops.runtime import VirtualClock
from fundops.wire.recovery import RecoveryPhase as P

SECOND = 1_000_000
DEFAULT = RecoverySettings()
Typical = Mapping[P, Record]
Occur = Callable[..., Decision]


class SteppedClock(VirtualClock):
    """A clock whose wall time can be set."""

    step_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.step_us


def test_a_jump_is_measured_once_and_a_drift_is_none() -> None:
    clock = SteppedClock()
    watch = WallWatch(clock)
    clock.advance(100_000)
    assert watch.jump_us() == 0
    clock.step_us = 999_999
    assert watch.jump_us() == 0
    clock.step_us = -3_600 * SECOND
    assert [watch.jump_us(), watch.jump_us()] == [-3_600 * SECOND, 0]


def test_a_record_without_instants_is_not_moved(typical: Typical) -> None:
    record = Record("alpha")
    assert moved(record, SECOND) is record
    after = moved(typical[P.COOLDOWN], -SECOND)
    assert (after.due_us, after.restarted_us, after.starts) == (
        499 * SECOND,
        99 * SECOND,
        (99 * SECOND,),
    )


@pytest.mark.parametrize(
    ("phase", "attempts", "longest_s"),
    [(P.COOLDOWN, 0, 60), (P.COOLDOWN, 2, 120), (P.PROBATION, 1, 600), (P.HELD, 2, 120)],
)
def test_a_clock_set_back_while_down_prolongs_at_most_to_the_full_length(
    phase: P, attempts: int, longest_s: int, typical: Typical
) -> None:
    stored = replace(typical[phase], attempts=attempts, due_us=5_000 * SECOND, restarted_us=None)
    found = bounded(replace(stored, starts=()), 1_000 * SECOND, DEFAULT)
    assert found.due_us == (1_000 + longest_s) * SECOND


def test_nothing_that_happened_lies_in_the_future(typical: Typical) -> None:
    found = bounded(typical[P.RESTARTING], 50 * SECOND, DEFAULT)
    assert (found.restarted_us, found.starts) == (50 * SECOND, (50 * SECOND,))
    assert bounded(typical[P.RESTARTING], 100 * SECOND, DEFAULT) is typical[P.RESTARTING]
