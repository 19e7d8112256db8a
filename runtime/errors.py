"""Every error of the package has one root here, so that a host can catch `FundopsError` and nothing else.

Facts are attributes; texts are lower case, carry the values, and say whose doing it was. An error that an asker can
see carries `outcome`: ``"done"`` (the request ran and was refused), ``"not_executed"`` (it never ran and never will)
or ``"unknown"`` (it may have run: ask again with the same idempotency key, which the error carries as `key` when the
message had one).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

__all__ = [
    "ActorCrashed",
    "ActorError",
    "ActorStopped",
    "AskCycle",
    "AskTimeout",
    "ConfigError",
    "Drill",
    "FundopsError",
    "MailboxFull",
    "Outcome",
    "Rejected",
    "ReplaceFailed",
    "StartFailed",
    "SupervisorEscalated",
    "UnknownChild",
    "WrongMessage",
    "WrongThread",
    "text_of",
]

Outcome = Literal["done", "not_executed", "unknown"]


def text_of(error: BaseException | None) -> str:
    """Type and text, also of an error whose own text fails: nothing that reports an error may raise one."""
    if error is None:
        return "ended during the start"
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  whatever somebody's __str__ does
        return f"{type(error).__name__} (its text cannot be told)"


class FundopsError(Exception):
    """Root of all errors that fundops raises on purpose."""


class ConfigError(FundopsError, ValueError):
    """A setting or argument is not acceptable; `field` names it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class Rejected(FundopsError):
    """Base of refusals: a handler that raises one answers its asker, and its actor lives on."""

    outcome: Outcome = "done"


class ActorError(FundopsError):
    """Base of everything that the runtime itself can tell a sender."""

    outcome: Outcome = "not_executed"


class ActorCrashed(ActorError):
    """The handler raised something it does not declare; the cause is chained."""

    outcome: Outcome = "unknown"

    def __init__(self, name: str, epoch: int, message_type: str, *, key: str | None = None) -> None:
        super().__init__(
            f"actor {name!r} (epoch {epoch}) crashed while handling {message_type}{_again(key)}"
        )
        self.name, self.epoch, self.message_type, self.key = name, epoch, message_type, key


class ActorStopped(ActorError):
    """The actor is gone for good, or was stopped with the message in hand (`outcome` is then ``"unknown"``)."""

    def __init__(
        self, name: str, reason: str, *, outcome: Outcome = "not_executed", key: str | None = None
    ) -> None:
        super().__init__(f"actor {name!r} stopped: {reason}{_again(key)}")
        self.name, self.reason, self.outcome, self.key = name, reason, outcome, key


class StartFailed(ActorError):
    """A first start went wrong, which is not retried; what the actor raised, if it did, is chained."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"actor {name!r} did not start: {reason}")
        self.name, self.reason = name, reason


class AskTimeout(ActorError):
    """No answer within the deadline. `started` tells whether the handler had the message in hand."""

    def __init__(
        self,
        name: str,
        message_type: str,
        timeout_s: float,
        *,
        started: bool,
        key: str | None = None,
    ) -> None:
        state = (
            f"in hand, and goes on{_again(key)}" if started else "still queued, and will never run"
        )
        super().__init__(
            f"no answer from actor {name!r} to {message_type} within {timeout_s:g} s; it was {state}"
        )
        self.name, self.message_type, self.timeout_s, self.started, self.key = (
            name,
            message_type,
            timeout_s,
            started,
            key,
        )
        self.outcome = "unknown" if started else "not_executed"


class AskCycle(ActorError):
    """The ask would wait for itself; `path` lists the actors from the asker back to it."""

    def __init__(self, path: Sequence[str]) -> None:
        super().__init__(f"ask would close a wait cycle: {' -> '.join(path)}")
        self.path = tuple(path)


class MailboxFull(ActorError):
    """The mailbox is at capacity and its policy, or the way of sending, does not wait."""

    def __init__(self, name: str, capacity: int) -> None:
        super().__init__(f"mailbox of actor {name!r} is full ({capacity} messages)")
        self.name, self.capacity = name, capacity


class UnknownChild(ActorError, KeyError):
    """No child of that name is in the supervision tree."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"no actor {name!r}; known: {', '.join(known) or 'none'}")
        self.name, self.known = name, tuple(known)

    __str__ = Exception.__str__  # KeyError would show the repr of the text


class WrongMessage(ActorError, TypeError):
    """The actor does not accept messages of this exact type."""

    def __init__(self, name: str, message_type: str) -> None:
        super().__init__(f"actor {name!r} does not accept {message_type}")
        self.name, self.message_type = name, message_type


class WrongThread(ActorError, RuntimeError):
    """A ref was used outside the trio run that owns it; `Ref.tell_from_thread` is the way in."""


class ReplaceFailed(ActorError):
    """The new actor did not start, so the old one serves again; what the new one raised is chained."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"actor {name!r} was not replaced: {reason}")
        self.name, self.reason = name, reason


class SupervisorEscalated(ActorError):
    """Too many failures: the supervisor gave up. `crashes` holds the records of the latest, oldest first."""

    def __init__(self, name: str, reason: str, crashes: Sequence[object]) -> None:
        super().__init__(
            f"supervisor {name!r} gave up: {reason}; last crash: {crashes[-1] if crashes else 'none'}"
        )
        self.name, self.reason, self.crashes = name, reason, tuple(crashes)


class Drill(Exception):
    """What an actor dies of when `Supervisor.drill` crashes it on purpose."""


def _again(key: str | None) -> str:
    return "" if key is None else f"; ask again with key {key!r}"
