"""The domain's clocks: wall time in microseconds, and monotonic seconds."""

from __future__ import annotations

import time

import pytest

from fundops.runtime import DAY_US, Clock, ConfigError, SystemClock, VirtualClock


def test_the_system_clock_tells_the_time_of_the_machine() -> None:
    clock: Clock = SystemClock()
    before = time.time_ns() // 1_000
    assert before <= clock.now_us() <= time.time_ns() // 1_000


def test_the_system_clock_never_runs_backwards() -> None:
    clock = SystemClock()
    readings = [clock.monotonic_s() for _ in range(1_000)]
    assert readings == sorted(readings)


def test_a_virtual_clock_stands_still_until_it_is_moved() -> None:
    clock: Clock = VirtualClock(5 * DAY_US)
    assert (clock.now_us(), clock.monotonic_s()) == (5 * DAY_US, 0.0)
    assert (clock.now_us(), clock.monotonic_s()) == (5 * DAY_US, 0.0)


def test_wall_and_monotonic_time_of_a_virtual_clock_advance_together() -> None:
    clock = VirtualClock(1_000)
    clock.advance(1.5)
    assert (clock.now_us(), clock.monotonic_s()) == (1_501_000, 1.5)
    clock.advance_to(DAY_US + 1_000)
    assert clock.monotonic_s() == 86_400.0
    clock.advance(0)
    clock.advance_to(clock.now_us())
    assert clock.now_us() == DAY_US + 1_000


def test_a_virtual_clock_is_exact_over_years_of_small_steps() -> None:
    clock = VirtualClock()
    for _ in range(100_000):
        clock.advance(0.1)
    assert clock.now_us() == 10_000_000_000


def test_a_virtual_clock_refuses_to_run_backwards() -> None:
    clock = VirtualClock(1_000)
    with pytest.raises(ConfigError, match="lies before the clock's 1000"):
        clock.advance_to(999)
    with pytest.raises(ConfigError, match="time does not run backwards"):
        clock.advance(-0.001)
    assert clock.now_us() == 1_000
