"""Supervised actors on trio: mailboxes that survive restarts, typed asks, ordered start and stop. Knows no funds."""

from .actor import Actor, Context, handles, handles_batch
from .clock import DAY_US, Clock, SystemClock, VirtualClock
from .errors import (
    ActorCrashed,
    ActorError,
    ActorStopped,
    AskCycle,
    AskTimeout,
    ConfigError,
    Drill,
    FundopsError,
    MailboxFull,
    Outcome,
    Rejected,
    StartFailed,
    SupervisorEscalated,
    UnknownChild,
    WrongMessage,
    WrongThread,
)
from .groups import bare_errors, leaf_of
from .mailbox import MailboxStatistics
from .message import Request
from .ref import Ref
from .supervisor import (
    Backoff,
    ChildSpec,
    ChildStatus,
    DeadLetter,
    Supervisor,
    SupervisorSpec,
    open_supervisor,
)
from .worker import InlineWorker, ThreadWorker, Worker

__all__ = [
    "DAY_US",
    "Actor",
    "ActorCrashed",
    "ActorError",
    "ActorStopped",
    "AskCycle",
    "AskTimeout",
    "Backoff",
    "ChildSpec",
    "ChildStatus",
    "Clock",
    "ConfigError",
    "Context",
    "DeadLetter",
    "Drill",
    "FundopsError",
    "InlineWorker",
    "MailboxFull",
    "MailboxStatistics",
    "Outcome",
    "Ref",
    "Rejected",
    "Request",
    "StartFailed",
    "Supervisor",
    "SupervisorEscalated",
    "SupervisorSpec",
    "SystemClock",
    "ThreadWorker",
    "UnknownChild",
    "VirtualClock",
    "Worker",
    "WrongMessage",
    "WrongThread",
    "bare_errors",
    "handles",
    "handles_batch",
    "leaf_of",
    "open_supervisor",
]
