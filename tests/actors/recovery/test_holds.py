"""The rules of holds by plain calls: both kinds, their release, and stops that are owed."""

from collections.abc import Callable, Mapping

import pytest
from msgspec.structs import replace

from fundops.actors.recovery.record import Decision, Input, Record
from fundops.wire.recovery import RecoveryPhase

SECOND = 1_000_000
RUNNING, STOPPED = Input.SEEN_RUNNING, Input.SEEN_STOPPED
FAILED, NOT_RETRYABLE = Input.SEEN_FAILED, Input.SEEN_NOT_RETRYABLE
P = RecoveryPhase
Typical = Mapping[RecoveryPhase, Record]
Occur = Callable[..., Decision]


@pytest.mark.parametrize(
    ("phase", "seen", "after", "due_s"),
    [
        (P.HEALTHY, RUNNING, P.HEALTHY, None),
        (P.HEALTHY, None, P.HEALTHY, None),
        (P.HEALTHY, FAILED, P.COOLDOWN, 1_060),
        (P.HEALTHY, NOT_RETRYABLE, P.OPEN, None),
        (P.COOLDOWN, FAILED, P.COOLDOWN, 1_060),
        (P.RESTARTING, FAILED, P.RESTARTING, None),
        (P.RESTARTING_LATE, FAILED, P.RESTARTING_LATE, None),
        (P.PROBATION, RUNNING, P.PROBATION, 500),
        (P.PROBATION, FAILED, P.COOLDOWN, 1_060),
        (P.OPEN, FAILED, P.OPEN, None),
        (P.UNMANAGED, STOPPED, P.UNMANAGED, None),
    ],
)
@pytest.mark.parametrize("by_kill", [True, False])
def test_a_release_gives_the_phase_back_and_a_failure_meanwhile_waits_one_cooldown(
    phase: RecoveryPhase,
    seen: Input | None,
    after: RecoveryPhase,
    due_s: int | None,
    by_kill: bool,
    typical: Typical,
    occur: Occur,
) -> None:
    held = occur(typical[phase], Input.KILL_ENGAGED if by_kill else Input.HOLD).record
    released = occur(held, Input.KILL_RELEASED if by_kill else Input.RELEASE, seen=seen)
    assert released.record.phase is after
    assert released.record.attempts == typical[phase].attempts
    assert released.record.due_us == (due_s and due_s * SECOND)
    assert released.events[0].action == "released"
    assert not any(event.action == "relapse" for event in released.events)


def test_a_cooldown_longer_than_the_hold_stays_as_it_was(typical: Typical, occur: Occur) -> None:
    cooling = replace(typical[P.COOLDOWN], due_us=9_000 * SECOND)
    held = occur(cooling, Input.HOLD).record
    assert occur(held, Input.RELEASE).record.due_us == 9_000 * SECOND


def test_both_holds_must_be_released_and_either_may_be_first(
    typical: Typical, occur: Occur
) -> None:
    for first, second in (
        (Input.RELEASE, Input.KILL_RELEASED),
        (Input.KILL_RELEASED, Input.RELEASE),
    ):
        half = occur(typical[P.HELD], first).record
        assert half.phase is P.HELD
        assert occur(half, first).record is half
        assert occur(half, second).record.phase is P.COOLDOWN


def test_a_breaker_can_be_reset_under_a_hold(typical: Typical, occur: Occur) -> None:
    held = occur(typical[P.OPEN], Input.HOLD).record
    reset = occur(held, Input.RESET)
    assert (reset.record.phase, reset.record.beneath, reset.record.attempts) == (
        P.HELD,
        P.COOLDOWN,
        0,
    )


def test_a_stop_that_is_owed_stays_owed_when_the_kill_switch_engages_again(
    typical: Typical, occur: Occur
) -> None:
    owed = replace(typical[P.UNMANAGED], stop_owed=True)
    held = occur(owed, Input.KILL_ENGAGED).record
    assert occur(held, RUNNING).stop


@pytest.mark.parametrize("phase", [P.HEALTHY, P.PROBATION])
def test_a_first_failure_under_a_hold_begins_an_episode_at_its_release(
    phase: RecoveryPhase, typical: Typical, occur: Occur
) -> None:
    held = occur(replace(typical[phase], attempts=0), Input.HOLD).record
    released = occur(held, Input.RELEASE)
    assert (released.record.episode, released.record.attempts) == (2, 0)
    assert [alert.dedup_key for alert in released.alerts] == ["failed:alpha"]
