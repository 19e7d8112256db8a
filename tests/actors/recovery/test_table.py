"""The whole grid by plain calls: every phase times every input, and the phase beneath a hold."""

from collections.abc import Callable, Mapping

import pytest

from fundops.actors.recovery.record import Decision, Input, Record
from fundops.actors.recovery.table import TABLE
from fundops.wire.recovery import RecoveryPhase

RUNNING, SILENT, STOPPED = Input.SEEN_RUNNING, Input.SEEN_SILENT, Input.SEEN_STOPPED
FAILED, NOT_RETRYABLE = Input.SEEN_FAILED, Input.SEEN_NOT_RETRYABLE
P = RecoveryPhase
Typical = Mapping[RecoveryPhase, Record]
Occur = Callable[..., Decision]

# Where each phase goes. An input that is not listed is ignored: no change, no fact.
GRID: dict[RecoveryPhase, dict[Input, tuple[RecoveryPhase, tuple[str, ...]]]] = {
    P.HEALTHY: {
        STOPPED: (P.UNMANAGED, ()),
        FAILED: (P.COOLDOWN, ()),
        NOT_RETRYABLE: (P.OPEN, ("opened",)),
        Input.KILL_ENGAGED: (P.HELD, ("held",)),
        Input.HOLD: (P.HELD, ("held",)),
    },
    P.COOLDOWN: {
        RUNNING: (P.PROBATION, ()),
        SILENT: (P.PROBATION, ()),
        STOPPED: (P.UNMANAGED, ()),
        Input.DUE: (P.RESTARTING, ()),
        Input.KILL_ENGAGED: (P.HELD, ("held",)),
        Input.HOLD: (P.HELD, ("held",)),
    },
    P.RESTARTING: {
        Input.RETURNED: (P.PROBATION, ("restart_strategy",)),
        Input.RAISED: (P.COOLDOWN, ("restart_strategy",)),
        Input.RAISED_NOT_RETRYABLE: (P.OPEN, ("restart_strategy", "opened")),
        Input.LATE: (P.RESTARTING_LATE, ("restart_strategy",)),
        Input.KILL_ENGAGED: (P.HELD, ("held",)),
        Input.HOLD: (P.HELD, ("held",)),
    },
    P.RESTARTING_LATE: {
        Input.RETURNED: (P.PROBATION, ()),
        Input.RAISED: (P.COOLDOWN, ()),
        Input.RAISED_NOT_RETRYABLE: (P.OPEN, ("opened",)),
        Input.KILL_ENGAGED: (P.HELD, ("held",)),
        Input.HOLD: (P.HELD, ("held",)),
    },
    P.PROBATION: {
        RUNNING: (P.HEALTHY, ("confirmed",)),
        SILENT: (P.COOLDOWN, ("relapse",)),
        Input.SEEN_PENDING: (P.COOLDOWN, ("relapse",)),
        Input.NO_SIGN: (P.COOLDOWN, ("relapse",)),
        STOPPED: (P.UNMANAGED, ()),
        FAILED: (P.COOLDOWN, ("relapse",)),
        NOT_RETRYABLE: (P.OPEN, ("opened",)),
        Input.KILL_ENGAGED: (P.HELD, ("held",)),
        Input.HOLD: (P.HELD, ("held",)),
    },
    P.OPEN: {
        RUNNING: (P.PROBATION, ()),
        SILENT: (P.PROBATION, ()),
        STOPPED: (P.UNMANAGED, ()),
        Input.KILL_ENGAGED: (P.HELD, ("held",)),
        Input.HOLD: (P.HELD, ("held",)),
        Input.RESET: (P.COOLDOWN, ("reset",)),
    },
    P.HELD: {  # by the kill switch and by a person: one release does not free it
        RUNNING: (P.HELD, ()),
        SILENT: (P.HELD, ()),
        STOPPED: (P.HELD, ()),
        Input.KILL_RELEASED: (P.HELD, ("released",)),
        Input.RELEASE: (P.HELD, ("released",)),
    },
    P.UNMANAGED: {
        RUNNING: (P.PROBATION, ()),
        SILENT: (P.PROBATION, ()),
        Input.KILL_ENGAGED: (P.HELD, ("held",)),
        Input.HOLD: (P.HELD, ("held",)),
    },
}


def test_the_table_has_a_rule_for_every_phase_and_input() -> None:
    assert set(TABLE) == set(RecoveryPhase)
    for rules in TABLE.values():
        assert set(rules) == set(Input)


@pytest.mark.parametrize("phase", RecoveryPhase)
@pytest.mark.parametrize("what", Input)
def test_every_phase_answers_every_input_as_the_grid_says(
    phase: RecoveryPhase, what: Input, typical: Typical, occur: Occur
) -> None:
    before = typical[phase]
    decision = occur(before, what)
    if what not in GRID[phase]:
        assert decision.record is before
        assert decision == Decision(before)
        return
    after, actions = GRID[phase][what]
    assert decision.record.phase is after
    assert decision.record != before
    assert tuple(event.action for event in decision.events) == actions
    assert decision.start is (what is Input.DUE)
    assert not decision.stop


BENEATH: dict[RecoveryPhase, dict[Input, RecoveryPhase]] = {
    P.HEALTHY: {STOPPED: P.UNMANAGED},
    P.COOLDOWN: {RUNNING: P.PROBATION, SILENT: P.PROBATION, STOPPED: P.UNMANAGED},
    P.RESTARTING: {
        Input.RETURNED: P.PROBATION,
        Input.RAISED: P.COOLDOWN,
        Input.RAISED_NOT_RETRYABLE: P.OPEN,
        Input.LATE: P.RESTARTING_LATE,
    },
    P.RESTARTING_LATE: {
        Input.RETURNED: P.PROBATION,
        Input.RAISED: P.COOLDOWN,
        Input.RAISED_NOT_RETRYABLE: P.OPEN,
    },
    P.PROBATION: {STOPPED: P.UNMANAGED},
    P.OPEN: {
        RUNNING: P.PROBATION,
        SILENT: P.PROBATION,
        STOPPED: P.UNMANAGED,
        Input.RESET: P.COOLDOWN,
    },
    P.UNMANAGED: {RUNNING: P.PROBATION, SILENT: P.PROBATION},
}
HOLDS = (Input.KILL_ENGAGED, Input.KILL_RELEASED, Input.HOLD, Input.RELEASE)


@pytest.mark.parametrize("phase", BENEATH)
@pytest.mark.parametrize("what", [what for what in Input if what not in HOLDS])
def test_under_a_hold_calls_end_and_people_act_but_nothing_fails_or_starts(
    phase: RecoveryPhase, what: Input, typical: Typical, occur: Occur
) -> None:
    held = occur(typical[phase], Input.HOLD).record
    decision = occur(held, what)
    assert decision.record.phase is P.HELD
    assert decision.record.beneath is BENEATH[phase].get(what, phase)
    assert not decision.start
    if what not in BENEATH[phase]:
        assert decision.record is held
