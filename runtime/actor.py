"""An actor: private state, a mailbox somebody else owns, and one handler per type of message.

    class Counter(Actor):
        def __init__(self) -> None:
            self.total = 0

        @handles(Add)
        async def add(self, message: Add) -> int:
            self.total += message.amount
            return self.total

Handlers run one at a time, so state needs no lock. A handler that raises a `Rejected` has answered; one that raises
anything else has crashed its actor, and the supervisor starts a new life with fresh state from the factory.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, ClassVar, Protocol, TypeVar, Union, get_args, get_origin

from .answers import check_answer
from .errors import ConfigError
from .message import is_control, is_idempotent
from .ref import Ref
from .timer import Timer

__all__ = ["Actor", "Context", "Handler", "handles", "handles_batch"]

F = TypeVar("F", bound=Callable[..., Any])

# A batch is bounded so that one life never holds an unbounded run of messages in hand.
BATCH_MAX = 4_096


# One row of an actor class's dispatch table: the function, whether it is awaited, and how many messages it takes at
# once (0: one, by itself). A plain tuple, because it is taken apart for every message.
Handler = tuple[Callable[..., Any], bool, int]


def handles(*types: type) -> Callable[[F], F]:
    """Mark a method as the handler of messages of exactly these types; a plain `def` is allowed too."""
    return _marked(types, batch_max=0)


def handles_batch(*types: type, limit: int = BATCH_MAX) -> Callable[[F], F]:
    """Mark a method that takes a list of consecutive messages and returns a list of answers or refusals, one each.

    This is what lets 64 callers share one fsync. A crash in the batch crashes all of it.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ConfigError("limit", f"{limit!r} is not a positive whole number of messages")
    return _marked(types, batch_max=limit)


def _marked(types: tuple[type, ...], *, batch_max: int) -> Callable[[F], F]:
    if not types or not all(isinstance(one, type) for one in types):
        raise ConfigError("handles", f"needs types of messages in brackets; got {types!r}")

    def mark(function: F) -> F:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigError(
                function.__qualname__, "is a generator, which would never run as a handler"
            )
        before, before_max = getattr(function, "__handles__", ((), batch_max))
        if before_max != batch_max:
            raise ConfigError(function.__qualname__, "handles single messages and batches")
        function.__handles__ = ((*before, *types), batch_max)  # type: ignore[attr-defined]
        return function

    return mark


class Context(Protocol):
    """What a life may know of the world around it."""

    @property
    def name(self) -> str:
        """The actor's own name."""

    @property
    def epoch(self) -> int:
        """1 for the first life, one more for each restart."""

    def ref(self, name: str) -> Ref:
        """Another actor of the same tree. Raises `UnknownChild`."""

    def after(self, seconds: float, message: Any) -> Timer:
        """Handle `message` in so many seconds, ahead of ordinary mail, if this life still serves then.

        Raises: `WrongMessage` when there is no handler for it; `ConfigError`.
        """

    def every(self, seconds: float, message: Any) -> Timer:
        """As `after`, again and again, without drift. One that comes due while the last is unread is left out."""

    def watch(self, name: str) -> None:
        """Handle one `Terminated` when that actor is gone for good; at once if it is. The next life watches anew.

        Raises: `UnknownChild`; `WrongMessage` when there is no handler for `Terminated`.
        """

    def stop(self, reason: str = "ended") -> None:
        """End this life after the message in hand: a normal exit, which restarts a permanent child and no other."""


class Actor:
    """Base of all actors. Override the hooks, mark the handlers; never call a handler from outside.

    `messages`, when declared, is the closed union the actor accepts: each member has a handler, and nothing else has.
    """

    messages: ClassVar[Any] = None
    context: Context
    _handlers: ClassVar[Mapping[type, Handler]] = {}
    _accepts: ClassVar[frozenset[type]] = frozenset()
    _controls: ClassVar[frozenset[type]] = frozenset()
    _idempotent: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._handlers = _dispatch_table(cls)
        _check_union(cls)
        _check_answers(cls)
        cls._controls = frozenset(filter(is_control, cls._handlers))
        cls._accepts = frozenset(cls._handlers) - cls._controls
        cls._idempotent = any(map(is_idempotent, cls._handlers))

    async def on_start(self) -> None:
        """Runs before the first message; mail waits meanwhile. Raising here is a failed start."""

    async def on_stop(self, reason: str) -> None:
        """Runs once at the end of every life, shielded and with a deadline, also after a crash or a failed start."""


def _dispatch_table(cls: type) -> dict[type, Handler]:
    table: dict[type, Handler] = {}
    for base in reversed(cls.__mro__):
        named: dict[type, str] = {}
        for name, member in vars(base).items():
            marked = getattr(member, "__handles__", None)
            if marked is None:
                continue
            function = getattr(
                cls, name
            )  # an override in a subclass keeps the mark of the name it overrides
            types, batch_max = marked
            # One row for all of its types: what follows for the same row joins the batch.
            # A decorator may hide that what it wraps has to be awaited.
            handler = (function, inspect.iscoroutinefunction(inspect.unwrap(function)), batch_max)
            for message_type in types:
                if named.setdefault(message_type, name) != name:
                    both = f"both {named[message_type]} and {name}"
                    raise ConfigError(
                        cls.__qualname__, f"{both} handle {message_type.__qualname__}"
                    )
                table[message_type] = handler
    return table


def _check_union(cls: type[Actor]) -> None:
    if cls.messages is None:
        return
    union = (
        get_args(cls.messages)
        if get_origin(cls.messages) in (Union, UnionType)
        else (cls.messages,)
    )
    if not all(isinstance(one, type) for one in union):
        raise ConfigError(
            cls.__qualname__,
            f"messages is {cls.messages!r}, which is no type and no union of types",
        )
    for message_type in union:
        if message_type not in cls._handlers:
            raise ConfigError(
                cls.__qualname__, f"declares {message_type.__qualname__} but has no handler for it"
            )
    for message_type in cls._handlers:
        if message_type not in union:
            raise ConfigError(
                cls.__qualname__, f"handles {message_type.__qualname__} but does not declare it"
            )


def _check_answers(cls: type[Actor]) -> None:
    handled: dict[Handler, list[type]] = {}
    for message_type, handler in cls._handlers.items():
        handled.setdefault(handler, []).append(message_type)
    for (function, _, batch_max), message_types in handled.items():
        check_answer(function, message_types, batch=batch_max > 0)
