"""Single rules by plain calls: a reset, and a limit that was lowered."""

from collections.abc import Callable, Mapping

import pytest

from fundops.actors.recovery.record import Decision, Input, Record
from fundops.actors.recovery.settings import RecoverySettings
from fundops.wire.recovery import RecoveryPhase

RUNNING = Input.SEEN_RUNNING
P = RecoveryPhase
Typical = Mapping[RecoveryPhase, Record]
Occur = Callable[..., Decision]


@pytest.mark.parametrize("seen", [RUNNING, Input.SEEN_PENDING])
def test_a_reset_of_a_strategy_that_is_up_again_makes_it_healthy(
    seen: Input, typical: Typical, occur: Occur
) -> None:
    reset = occur(typical[P.OPEN], Input.RESET, seen=seen)
    assert (reset.record.phase, reset.record.attempts, reset.record.operator) == (
        P.HEALTHY,
        0,
        "ann",
    )
    assert {alert.dedup_key for alert in reset.alerts if alert.resolves} == {
        "failed:alpha",
        "recovery:alpha",
    }


def test_an_episode_begins_at_its_first_failure_and_keeps_that_instant(
    typical: Typical, occur: Occur
) -> None:
    failed = occur(typical[P.HEALTHY], Input.SEEN_FAILED, at_s=7).record
    assert (failed.episode, failed.since_us) == (typical[P.HEALTHY].episode + 1, 7_000_000)
    assert occur(failed, Input.DUE, at_s=9).record.since_us == 7_000_000
    hopeless = occur(typical[P.HEALTHY], Input.SEEN_NOT_RETRYABLE, at_s=8).record
    assert (hopeless.phase, hopeless.since_us) == (P.OPEN, 8_000_000)
    assert occur(failed, Input.SEEN_NOT_RETRYABLE, at_s=9).record.since_us == 7_000_000
    again = occur(typical[P.OPEN], Input.RESET, at_s=11).record
    assert again.since_us == 11_000_000


def test_an_attempt_is_refused_when_fewer_are_allowed_now_than_were_made(
    typical: Typical, occur: Occur
) -> None:
    decision = occur(typical[P.COOLDOWN], Input.DUE, settings=RecoverySettings(attempts_max=1))
    assert (decision.record.phase, decision.start) == (P.OPEN, False)
