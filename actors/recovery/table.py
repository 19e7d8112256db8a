"""The transitions of recovery: one rule for each phase of a strategy and each input.

    HEALTHY --failed--> COOLDOWN --due--> RESTARTING --returned--> PROBATION --ended--> HEALTHY
                            ^                 |                        |
                            +---- raised -----+----- failed again -----+

    instead of another COOLDOWN, once all attempts are used: OPEN --reset--> COOLDOWN

* A failure is a level, not an edge: every check reports it until it ends. So a strategy in COOLDOWN
  or OPEN does not change when it is seen failed again.
* While a restart call is unresolved (RESTARTING, and RESTARTING_LATE past its deadline), the
  engine's reports about the strategy are ignored: the end of the call decides. No second call
  starts before that end, or two instances of the strategy could trade.
* A restart that returned is only confirmed after its PROBATION. Its attempts stay counted until
  then. At its end the strategy runs and gives a sign of life, or the attempt has failed: silence
  has an end too.
* UNMANAGED is a strategy that a person or the guard stopped. Recovery leaves it alone until it is
  seen running again.
* HELD lies over another phase and keeps it. Beneath it calls still end, and people still start and
  stop strategies; but no failure counts and nothing is started. The kill switch and a person can
  both hold a strategy; it is free when the last of the two has released it.

The table is total: an input that changes nothing is written out as `ignored`. `decide` looks up one
rule. Nothing here reads a clock, writes a row, or calls the engine.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from ...wire.recovery import RecoveryPhase
from . import holds, rules
from .holds import Beneath
from .record import Decision, Input, Occasion, Record
from .rules import Rule, ignored
from .settings import RecoverySettings

__all__ = ["TABLE", "decide"]

TABLE: Mapping[RecoveryPhase, Mapping[Input, Rule | Beneath]] = {
    RecoveryPhase.HEALTHY: {
        Input.SEEN_RUNNING: ignored,
        Input.SEEN_SILENT: ignored,
        Input.SEEN_PENDING: ignored,
        Input.SEEN_STOPPED: rules.unmanage,
        Input.SEEN_FAILED: rules.first_failure,
        Input.SEEN_NOT_RETRYABLE: rules.not_retryable,
        Input.NO_SIGN: ignored,
        Input.DUE: ignored,
        Input.RETURNED: ignored,
        Input.RAISED: ignored,
        Input.RAISED_NOT_RETRYABLE: ignored,
        Input.LATE: ignored,
        Input.KILL_ENGAGED: holds.held_by_kill,
        Input.KILL_RELEASED: ignored,
        Input.HOLD: holds.held_by_person,
        Input.RELEASE: ignored,
        Input.RESET: ignored,
    },
    RecoveryPhase.COOLDOWN: {
        Input.SEEN_RUNNING: rules.seen_back,
        Input.SEEN_SILENT: rules.seen_back_unless_stalled,
        Input.SEEN_PENDING: ignored,
        Input.SEEN_STOPPED: rules.unmanage,
        Input.SEEN_FAILED: ignored,
        Input.SEEN_NOT_RETRYABLE: ignored,  # after a reset, a person wants a try in spite of it
        Input.NO_SIGN: ignored,
        Input.DUE: rules.begin_attempt,
        Input.RETURNED: ignored,
        Input.RAISED: ignored,
        Input.RAISED_NOT_RETRYABLE: ignored,
        Input.LATE: ignored,
        Input.KILL_ENGAGED: holds.held_by_kill,
        Input.KILL_RELEASED: ignored,
        Input.HOLD: holds.held_by_person,
        Input.RELEASE: ignored,
        Input.RESET: ignored,
    },
    RecoveryPhase.RESTARTING: {
        Input.SEEN_RUNNING: ignored,
        Input.SEEN_SILENT: ignored,
        Input.SEEN_PENDING: ignored,
        Input.SEEN_STOPPED: ignored,
        Input.SEEN_FAILED: ignored,
        Input.SEEN_NOT_RETRYABLE: ignored,
        Input.NO_SIGN: ignored,
        Input.DUE: ignored,
        Input.RETURNED: rules.returned,
        Input.RAISED: rules.raised,
        Input.RAISED_NOT_RETRYABLE: rules.raised_not_retryable,
        Input.LATE: rules.late,
        Input.KILL_ENGAGED: holds.held_by_kill,
        Input.KILL_RELEASED: ignored,
        Input.HOLD: holds.held_by_person,
        Input.RELEASE: ignored,
        Input.RESET: ignored,
    },
    RecoveryPhase.RESTARTING_LATE: {
        Input.SEEN_RUNNING: ignored,
        Input.SEEN_SILENT: ignored,
        Input.SEEN_PENDING: ignored,
        Input.SEEN_STOPPED: ignored,
        Input.SEEN_FAILED: ignored,
        Input.SEEN_NOT_RETRYABLE: ignored,
        Input.NO_SIGN: ignored,
        Input.DUE: ignored,
        Input.RETURNED: rules.late_returned,
        Input.RAISED: rules.late_raised,
        Input.RAISED_NOT_RETRYABLE: rules.late_raised_not_retryable,
        Input.LATE: ignored,
        Input.KILL_ENGAGED: holds.held_by_kill,
        Input.KILL_RELEASED: ignored,
        Input.HOLD: holds.held_by_person,
        Input.RELEASE: ignored,
        Input.RESET: ignored,
    },
    RecoveryPhase.PROBATION: {
        Input.SEEN_RUNNING: rules.running_on_probation,
        Input.SEEN_SILENT: rules.silent_on_probation,
        Input.SEEN_PENDING: rules.silent_on_probation,
        Input.SEEN_STOPPED: rules.unmanage,
        Input.SEEN_FAILED: rules.relapsed,
        Input.SEEN_NOT_RETRYABLE: rules.not_retryable,
        Input.NO_SIGN: rules.silent_on_probation,
        Input.DUE: ignored,
        Input.RETURNED: ignored,
        Input.RAISED: ignored,
        Input.RAISED_NOT_RETRYABLE: ignored,
        Input.LATE: ignored,
        Input.KILL_ENGAGED: holds.held_by_kill,
        Input.KILL_RELEASED: ignored,
        Input.HOLD: holds.held_by_person,
        Input.RELEASE: ignored,
        Input.RESET: ignored,
    },
    RecoveryPhase.OPEN: {
        Input.SEEN_RUNNING: rules.seen_back,
        Input.SEEN_SILENT: rules.seen_back_unless_stalled,
        Input.SEEN_PENDING: ignored,
        Input.SEEN_STOPPED: rules.unmanage,
        Input.SEEN_FAILED: ignored,
        Input.SEEN_NOT_RETRYABLE: ignored,
        Input.NO_SIGN: ignored,
        Input.DUE: ignored,
        Input.RETURNED: ignored,
        Input.RAISED: ignored,
        Input.RAISED_NOT_RETRYABLE: ignored,
        Input.LATE: ignored,
        Input.KILL_ENGAGED: holds.held_by_kill,
        Input.KILL_RELEASED: ignored,
        Input.HOLD: holds.held_by_person,
        Input.RELEASE: ignored,
        Input.RESET: rules.reset,
    },
    RecoveryPhase.HELD: {
        Input.SEEN_RUNNING: Beneath.EXCEPT_PROBATION,
        Input.SEEN_SILENT: Beneath.EXCEPT_PROBATION,
        Input.SEEN_PENDING: ignored,
        Input.SEEN_STOPPED: Beneath.ANY,
        Input.SEEN_FAILED: ignored,
        Input.SEEN_NOT_RETRYABLE: ignored,
        Input.NO_SIGN: ignored,
        Input.DUE: ignored,
        Input.RETURNED: Beneath.ANY,
        Input.RAISED: Beneath.ANY,
        Input.RAISED_NOT_RETRYABLE: Beneath.ANY,
        Input.LATE: Beneath.ANY,
        Input.KILL_ENGAGED: holds.kill_on_held,
        Input.KILL_RELEASED: holds.kill_released,
        Input.HOLD: holds.person_on_held,
        Input.RELEASE: holds.person_released,
        Input.RESET: Beneath.ANY,
    },
    RecoveryPhase.UNMANAGED: {
        Input.SEEN_RUNNING: rules.seen_back_unless_stop_owed,
        Input.SEEN_SILENT: rules.seen_back_unless_stop_owed,
        Input.SEEN_PENDING: ignored,
        Input.SEEN_STOPPED: rules.stopped_as_owed,
        Input.SEEN_FAILED: ignored,  # the person who stopped it may not want it back
        Input.SEEN_NOT_RETRYABLE: ignored,
        Input.NO_SIGN: ignored,
        Input.DUE: ignored,
        Input.RETURNED: ignored,
        Input.RAISED: ignored,
        Input.RAISED_NOT_RETRYABLE: ignored,
        Input.LATE: ignored,
        Input.KILL_ENGAGED: holds.held_by_kill,
        Input.KILL_RELEASED: ignored,
        Input.HOLD: holds.held_by_person,
        Input.RELEASE: ignored,
        Input.RESET: ignored,
    },
}


def decide(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """The decision on one input to one strategy."""
    rule = TABLE[record.phase][occasion.input]
    if not isinstance(rule, Beneath):
        return rule(record, occasion, settings)
    if rule is Beneath.EXCEPT_PROBATION and record.beneath is RecoveryPhase.PROBATION:
        return Decision(record)
    return _decide_beneath(record, occasion, settings)


def _decide_beneath(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    inner = replace(record, phase=record.inner, beneath=None)
    after = decide(inner, occasion, settings)
    if after.record is inner:
        return replace(after, record=record)
    held = replace(after.record, phase=RecoveryPhase.HELD, beneath=after.record.phase)
    return replace(after, record=held)
