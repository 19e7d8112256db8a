"""The events and alerts that the rules announce.

An alert stays open until it is resolved. `failure_told` and `recovery_told` of the record say which
alerts of a strategy are open.
"""

from __future__ import annotations

from msgspec.structs import replace

from ...wire.alert import AlertDraft, Category, Level
from ...wire.recovery import RecoveryAction, RecoveryEvent
from .record import Occasion, Record

__all__ = [
    "NO_REASON",
    "event",
    "failed_alert",
    "failure_over",
    "recovery_alert",
    "recovery_over",
]

NO_REASON = "the engine gave no reason"


def event(
    action: RecoveryAction,
    record: Record,
    occasion: Occasion,
    *,
    success: bool | None = None,
    error: str | None = None,
    by: str | None = None,
) -> RecoveryEvent:
    """The event of an action on this strategy; `actor` is the person or switch that caused it."""
    return RecoveryEvent(
        action, record.name, success, record.attempts, error, occasion.at_us, by=by
    )


def recovery_alert(level: Level, record: Record, title: str, message: str) -> AlertDraft:
    """An alert about the recovery of this strategy."""
    key = f"recovery:{record.name}"
    return AlertDraft(
        level, Category.RECOVERY, f"{record.name}: {title}", message, record.name, key
    )


def failed_alert(record: Record, error: str | None) -> AlertDraft:
    """That this strategy has failed; with real money the actor makes it CRITICAL."""
    return AlertDraft(
        Level.WARNING,
        Category.STRATEGY_FAILURE,
        f"{record.name}: failed",
        error or NO_REASON,
        record.name,
        f"failed:{record.name}",
    )


def failure_over(record: Record, title: str) -> tuple[AlertDraft, ...]:
    """The resolution of `failed_alert`, if that is open."""
    if not record.failure_told:
        return ()
    alert = failed_alert(record, title)
    return (replace(alert, level=Level.INFO, title=f"{record.name}: {title}", resolves=True),)


def recovery_over(record: Record, title: str) -> tuple[AlertDraft, ...]:
    """The resolution of `recovery_alert`, if that is open."""
    if not record.recovery_told:
        return ()
    return (replace(recovery_alert(Level.INFO, record, title, title), resolves=True),)
