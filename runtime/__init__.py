"""Supervised actors on trio: mailboxes that survive restarts, typed asks, ordered start and stop.

This package knows nothing of funds and can be used alone.
"""

from .actor import Actor, Context, handles, handles_batch
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
from .groups import bare_errors, leaf_of
from .mailbox import MailboxStatistics
from .message import Request
from .records import (
    ChildStatus,
    CleanupFailed,
    Crashed,
    DeadLetter,
    Event,
    Log,
    Quarantined,
    Replaced,
    Restarted,
    Stuck,
    Terminated,
)
from .ref import Ref
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
from .spec import Backoff, ChildSpec, SupervisorSpec
from .supervisor import Supervisor, Watch, open_supervisor
from .timer import Timer
from .worker import InlineWorker, ThreadWorker, Worker

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
    "bare_errors",
    "handles",
    "handles_batch",
    "leaf_of",
    "open_supervisor",
    "settings_of",
    "shown",
]
