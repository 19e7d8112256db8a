"""The errors of the runtime, and `FundopsError`, the root of every error of the package.

Facts are attributes. Texts are lower case, carry the values, and say which side caused the error.
An error that an asker can see carries `outcome`: ``"done"`` (the request ran and was refused),
``"not_executed"`` (it never ran and never will) or ``"unknown"`` (it may have run: ask again with
the same idempotency key, which the error carries as `key` when the message had one).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .records import Crashed

__all__ = [
    "FOREIGN_ERRORS",
    "ActorCrashed",
    "ActorError",
    "ActorStopped",
    "AskCycle",
    "AskTimeout",
    "ConfigError",
    "Drill",
    "FundopsError",
    "MailboxFull",
    "NeedsTrio",
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

# Raised by foreign classes when a value is read. A class of a plug-in that calls sys.exit must not
# end the fund.
FOREIGN_ERRORS = (Exception, SystemExit)


def text_of(error: BaseException | None) -> str:
    """The type and the text of an error. It never raises, even when the error's `__str__` does.

    The text can be encoded: a half of a surrogate pair, which has no UTF-8, is escaped.
    """
    if error is None:
        return "ended during the start"
    try:
        return encodable(f"{type(error).__name__}: {error}")
    except FOREIGN_ERRORS:
        return f"{type(error).__name__} (its text cannot be told)"


def encodable(text: str) -> str:
    """The text with each half of a surrogate pair escaped."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class FundopsError(Exception):
    """The root of all errors that fundops raises on purpose."""


class ConfigError(FundopsError, ValueError):
    """A setting or argument is not acceptable; `field` names it and `problem` says why."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class Rejected(FundopsError):
    """Base of refusals. A handler that raises one has answered, and its actor lives on."""

    outcome: Outcome = "done"


class ActorError(FundopsError):
    """Base of the errors that the runtime itself raises to a sender or a host."""

    outcome: Outcome = "not_executed"


class ActorCrashed(ActorError):
    """The handler raised an error that is no refusal; it is the `__cause__` of this one."""

    outcome: Outcome = "unknown"

    def __init__(self, name: str, epoch: int, message_type: str, *, key: str | None = None) -> None:
        super().__init__(
            f"actor {name!r} (epoch {epoch}) crashed while handling {message_type}{_again(key)}"
        )
        self.name, self.epoch, self.message_type, self.key = name, epoch, message_type, key


class ActorStopped(ActorError):
    """The actor has ended permanently, or was stopped with the message in hand.

    In the second case `outcome` is ``"unknown"``.
    """

    def __init__(
        self, name: str, reason: str, *, outcome: Outcome = "not_executed", key: str | None = None
    ) -> None:
        super().__init__(f"actor {name!r} stopped: {reason}{_again(key)}")
        self.name, self.reason, self.outcome, self.key = name, reason, outcome, key


class StartFailed(ActorError):
    """The first start of an actor failed, which is not retried.

    An error that the actor raised is the `__cause__`.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"actor {name!r} did not start: {reason}")
        self.name, self.reason = name, reason


class AskTimeout(ActorError):
    """No answer came within the deadline. `started`: the handler had the message in hand."""

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
            f"no answer from actor {name!r} to {message_type} within {timeout_s:g} s; "
            f"it was {state}"
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
    """The ask would wait for itself. `path` names the actors from the asker back to itself."""

    def __init__(self, path: Sequence[str]) -> None:
        super().__init__(f"ask would close a wait cycle: {' -> '.join(path)}")
        self.path = tuple(path)


class MailboxFull(ActorError):
    """The mailbox is full, and its overflow policy or the kind of send does not wait for room.

    An asker also gets it when the handler of its request met a full mailbox and did not catch this
    error. `outcome` is then ``"unknown"``, and `handler` says which actor handled which message.
    """

    def __init__(
        self, name: str, capacity: int, *, handler: str | None = None, key: str | None = None
    ) -> None:
        text = f"mailbox of actor {name!r} is full ({capacity} messages)"
        if handler is not None:
            text = f"{text}; it was needed by {handler}{_again(key)}"
        super().__init__(text)
        self.name, self.capacity, self.handler, self.key = name, capacity, handler, key
        self.outcome = "not_executed" if handler is None else "unknown"


class UnknownChild(ActorError, KeyError):
    """The supervision tree has no child of this name; `known` lists the names it has."""

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
    """A ref was used outside its trio run. Other threads use `Ref.tell_from_thread`."""


class NeedsTrio(ActorError, RuntimeError):
    """Actors were to be run outside a trio task, for example in an asyncio loop."""


class ReplaceFailed(ActorError):
    """The new actor did not start, so the old one serves again.

    An error that the new actor raised is the `__cause__`.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"actor {name!r} was not replaced: {reason}")
        self.name, self.reason = name, reason


class SupervisorEscalated(ActorError):
    """The supervisor gave up after too many failures and has stopped all its children.

    `reason` names the setting that decided it. `crashes` holds the latest crash records, oldest
    first.
    """

    def __init__(self, name: str, reason: str, crashes: Sequence[Any]) -> None:
        last = crashes[-1] if crashes else "none"
        super().__init__(f"supervisor {name!r} gave up: {reason}; last crash: {last}")
        self.name, self.reason = name, reason
        # Declared here and not in the signature, whose hints are read at run time too: `records`
        # imports this module.
        self.crashes: tuple[Crashed, ...] = tuple(crashes)


class Drill(Exception):
    """The error with which `Supervisor.drill` crashes an actor on purpose."""


def _again(key: str | None) -> str:
    return "" if key is None else f"; ask again with key {key!r}"
