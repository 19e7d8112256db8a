"""Supervised actors on trio: mailboxes that survive restarts, typed asks, ordered start and stop.

This package knows nothing of funds and can be used alone.
"""

from typing import TYPE_CHECKING

from .clock import DAY_US, Clock, SystemClock, VirtualClock
from .errors import (
    FOREIGN_ERRORS,
    ActorCrashed,
    ActorError,
    ActorStopped,
    AskCycle,
    AskTimeout,
    ConfigError,
    Drill,
    FundopsError,
    MailboxFull,
    NeedsTrio,
    Outcome,
    Rejected,
    ReplaceFailed,
    StartFailed,
    SupervisorEscalated,
    UnknownChild,
    WrongMessage,
    WrongThread,
)
from .lazy import lazy
from .message import Request
from .settings import (
    COUNT_MAX,
    DAYS_MAX,
    SECRET,
    YEAR_S,
    Setting,
    Settings,
    settings_of,
    shown,
)

# Loaded when first used: see `runtime.lazy`.
if TYPE_CHECKING:
    from .actor import Actor as Actor
    from .actor import Context as Context
    from .actor import handles as handles
    from .actor import handles_batch as handles_batch
    from .groups import bare_errors as bare_errors
    from .groups import leaf_of as leaf_of
    from .interrupts import run_undisturbed as run_undisturbed
    from .interrupts import undisturbed as undisturbed
    from .mailbox import MailboxStatistics as MailboxStatistics
    from .pieces import at_once as at_once
    from .pieces import in_pieces as in_pieces
    from .records import ChildStatus as ChildStatus
    from .records import CleanupFailed as CleanupFailed
    from .records import Crashed as Crashed
    from .records import DeadLetter as DeadLetter
    from .records import Event as Event
    from .records import Log as Log
    from .records import Quarantined as Quarantined
    from .records import Replaced as Replaced
    from .records import Restarted as Restarted
    from .records import Stuck as Stuck
    from .records import Terminated as Terminated
    from .ref import Ref as Ref
    from .spec import Backoff as Backoff
    from .spec import ChildSpec as ChildSpec
    from .spec import SupervisorSpec as SupervisorSpec
    from .supervisor import Supervisor as Supervisor
    from .supervisor import Watch as Watch
    from .supervisor import open_supervisor as open_supervisor
    from .timer import Timer as Timer
    from .worker import InlineWorker as InlineWorker
    from .worker import ThreadWorker as ThreadWorker
    from .worker import Worker as Worker
else:
    __getattr__ = lazy(
        __name__,
        {
            "actor": ("Actor", "Context", "handles", "handles_batch"),
            "groups": ("bare_errors", "leaf_of"),
            "interrupts": ("run_undisturbed", "undisturbed"),
            "mailbox": ("MailboxStatistics",),
            "pieces": ("at_once", "in_pieces"),
            "records": (
                "ChildStatus",
                "CleanupFailed",
                "Crashed",
                "DeadLetter",
                "Event",
                "Log",
                "Quarantined",
                "Replaced",
                "Restarted",
                "Stuck",
                "Terminated",
            ),
            "ref": ("Ref",),
            "spec": ("Backoff", "ChildSpec", "SupervisorSpec"),
            "supervisor": ("Supervisor", "Watch", "open_supervisor"),
            "timer": ("Timer",),
            "worker": ("InlineWorker", "ThreadWorker", "Worker"),
        },
    )

__all__ = [
    "COUNT_MAX",
    "DAYS_MAX",
    "DAY_US",
    "FOREIGN_ERRORS",
    "SECRET",
    "YEAR_S",
    "Actor",
    "ActorCrashed",
    "ActorError",
    "ActorStopped",
    "AskCycle",
    "AskTimeout",
    "Backoff",
    "ChildSpec",
    "ChildStatus",
    "CleanupFailed",
    "Clock",
    "ConfigError",
    "Context",
    "Crashed",
    "DeadLetter",
    "Drill",
    "Event",
    "FundopsError",
    "InlineWorker",
    "Log",
    "MailboxFull",
    "MailboxStatistics",
    "NeedsTrio",
    "Outcome",
    "Quarantined",
    "Ref",
    "Rejected",
    "ReplaceFailed",
    "Replaced",
    "Request",
    "Restarted",
    "Setting",
    "Settings",
    "StartFailed",
    "Stuck",
    "Supervisor",
    "SupervisorEscalated",
    "SupervisorSpec",
    "SystemClock",
    "Terminated",
    "ThreadWorker",
    "Timer",
    "UnknownChild",
    "VirtualClock",
    "Watch",
    "Worker",
    "WrongMessage",
    "WrongThread",
    "at_once",
    "bare_errors",
    "handles",
    "handles_batch",
    "in_pieces",
    "leaf_of",
    "open_supervisor",
    "run_undisturbed",
    "settings_of",
    "shown",
    "undisturbed",
]
