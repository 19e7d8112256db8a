"""The rules of holds: by the kill switch and by a person, one, the other, or both at once.

HELD keeps the phase beneath it in the record. A strategy is free again when the last hold ends.
"""

from __future__ import annotations

import enum

from msgspec.structs import replace

from ...wire.recovery import RecoveryPhase
from .facts import event, failed_alert
from .record import Decision, Input, Occasion, Record
from .rules import begin_episode, not_retryable
from .settings import RecoverySettings, to_us

__all__ = [
    "KILL_SWITCH",
    "Beneath",
    "held_by_kill",
    "held_by_person",
    "kill_on_held",
    "kill_released",
    "person_on_held",
    "person_released",
]

KILL_SWITCH = "kill switch"

COOLDOWN = RecoveryPhase.COOLDOWN

_IN_CALL = (RecoveryPhase.RESTARTING, RecoveryPhase.RESTARTING_LATE)


class Beneath(enum.Enum):
    """In the row of HELD, instead of a rule: the phase beneath decides, and the hold stays."""

    ANY = enum.auto()
    # Probation is judged after the hold: no restart is confirmed, and none fails, while recovery
    # may not act on it.
    EXCEPT_PROBATION = enum.auto()


def held_by_kill(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """The kill switch holds the strategy; a restart in progress is stopped when it returns."""
    owed = record.stop_owed or record.inner in _IN_CALL
    return _hold(replace(record, kill=True, stop_owed=owed), occasion, KILL_SWITCH)


def held_by_person(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """A person holds the strategy."""
    return _hold(replace(record, held_by=occasion.person), occasion, occasion.person)


def _hold(record: Record, occasion: Occasion, by: str | None) -> Decision:
    held = event("held", record, occasion, by=by)
    return Decision(replace(record, phase=RecoveryPhase.HELD, beneath=record.inner), (held,))


def kill_on_held(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """The kill switch holds a strategy that is held already."""
    return Decision(record) if record.kill else held_by_kill(record, occasion, settings)


def person_on_held(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """A person holds a strategy that is held already. The first person stays the holder."""
    return (
        Decision(record)
        if record.held_by is not None
        else held_by_person(record, occasion, settings)
    )


def kill_released(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """The kill switch no longer holds the strategy."""
    if not record.kill:
        return Decision(record)
    # A restart that began before the kill switch is stopped even if it returns after the release.
    free = replace(record, kill=False, stop_owed=record.stop_owed and record.inner in _IN_CALL)
    return _release(free, occasion, settings, KILL_SWITCH)


def person_released(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """No person holds the strategy any more."""
    if record.held_by is None:
        return Decision(record)
    return _release(replace(record, held_by=None), occasion, settings, occasion.person)


def _release(
    record: Record, occasion: Occasion, settings: RecoverySettings, by: str | None
) -> Decision:
    released = event("released", record, occasion, by=by)
    if record.kill or record.held_by is not None:
        return Decision(record, (released,))
    after = _free(replace(record, phase=record.inner, beneath=None), occasion, settings)
    return replace(after, events=(released, *after.events))


def _free(record: Record, occasion: Occasion, settings: RecoverySettings) -> Decision:
    """Back to the phase beneath. A strategy that failed under the hold waits one cooldown."""
    due_us = occasion.at_us + to_us(settings.base_cooldown_s)
    if record.phase is COOLDOWN:
        assert record.due_us is not None
        return Decision(replace(record, due_us=max(record.due_us, due_us)))
    if record.phase not in (RecoveryPhase.HEALTHY, RecoveryPhase.PROBATION):
        return Decision(record)
    if occasion.seen is Input.SEEN_NOT_RETRYABLE:
        return not_retryable(record, occasion, settings)
    if occasion.seen is not Input.SEEN_FAILED:
        return Decision(record)
    # Earlier attempts stay counted; but recovery could not act under the hold, so this is no
    # relapse.
    failed = record if record.attempts else begin_episode(record, occasion)
    told = record.failure_told or record.attempts
    alerts = () if told else (failed_alert(record, occasion.error),)
    cooling = replace(
        failed, phase=COOLDOWN, due_us=due_us, reason=occasion.error, failure_told=True
    )
    return Decision(cooling, (), alerts)
