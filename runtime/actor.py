"""Actors: private state, a mailbox that the supervisor owns, and one handler per type of message.

    class Counter(Actor):
        def __init__(self) -> None:
            self.total = 0

        @handles(Add)
        async def add(self, message: Add) -> int:
            self.total += message.amount
            return self.total

Handlers run one at a time, so state needs no lock. A handler that raises a `Rejected` has answered
with a refusal. One that raises any other error has crashed its actor, and the supervisor starts a
new life with fresh state from the factory.
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

# A bound on the messages that one life has in hand, since a crash crashes all of them.
BATCH_MAX = 4_096


# One row of an actor class's dispatch table: the function, whether it is awaited, and the largest
# batch it takes (0 for a handler of single messages). A plain tuple, because unpacking one is
# cheaper than reading attributes, and it is unpacked for every message.
Handler = tuple[Callable[..., Any], bool, int]


def handles(*types: type) -> Callable[[F], F]:
    """Mark a method as the handler of messages of exactly these types.

    The method may be an `async def` or a plain `def`, which is cheaper. Its annotated answer has to
    be that of its requests.

    Raises: `ConfigError`.
    """
    return _marked(types, batch_max=0)


def handles_batch(*types: type, limit: int = BATCH_MAX) -> Callable[[F], F]:
    """Mark a method that handles a list of consecutive messages of these types at once.

    It returns a list with one answer or refusal for each message, so that 64 callers can share one
    fsync. A crash in the batch crashes all of its messages. `limit` is the largest batch, in
    messages.

    Raises: `ConfigError`.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ConfigError("limit", f"{limit!r} is not a positive whole number of messages")
    return _marked(types, batch_max=limit)


def _marked(types: tuple[type, ...], *, batch_max: int) -> Callable[[F], F]:
    if not types or not all(isinstance(message_type, type) for message_type in types):
        raise ConfigError("handles", f"needs types of messages in brackets; got {types!r}")

    def mark(function: F) -> F:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigError(
                function.__qualname__, "is a generator, which cannot run as a handler"
            )
        before, before_max = getattr(function, "__handles__", ((), batch_max))
        if before_max != batch_max:
            raise ConfigError(function.__qualname__, "handles single messages and batches")
        function.__handles__ = ((*before, *types), batch_max)  # type: ignore[attr-defined]
        return function

    return mark


class Context(Protocol):
    """The view that an actor has of its present life and of the tree around it."""

    @property
    def name(self) -> str:
        """The actor's own name."""
        ...

    @property
    def epoch(self) -> int:
        """The number of this life: 1 for the first, one more for each restart."""
        ...

    def ref(self, name: str) -> Ref:
        """The ref of another actor of the same tree.

        Raises: `UnknownChild`.
        """
        ...

    def after(self, seconds: float, message: Any) -> Timer:
        """Handle `message` once, in so many seconds, ahead of ordinary messages.

        The timer ends with this life.

        Raises: `WrongMessage` when the actor has no handler for the message; `ConfigError`.
        """
        ...

    def every(self, seconds: float, message: Any) -> Timer:
        """Handle `message` repeatedly at this interval, without drift, ahead of ordinary messages.

        A message that comes due while the previous one is still unread is left out. The timer ends
        with this life.

        Raises: `WrongMessage` when the actor has no handler for the message; `ConfigError`.
        """
        ...

    def watch(self, name: str) -> None:
        """Handle one `Terminated` when that actor ends permanently, at once if it has already.

        The watch ends with this life; the next life has to watch again.

        Raises: `UnknownChild`; `WrongMessage` when the actor has no handler for `Terminated`.
        """
        ...

    def stop(self, reason: str = "ended") -> None:
        """End this life normally after the message in hand.

        A permanent child is then restarted; a transient or temporary one is not.
        """
        ...


class Actor:
    """Base of all actors. Subclasses override the hooks and mark their handlers with `handles`.

    A handler is only ever called by the runtime. `messages`, when declared, is the closed union of
    the message types that the actor accepts: each member needs a handler, and no other type may
    have one.
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
        """Runs before the first message, while messages wait. An error here is a failed start."""

    async def on_stop(self, reason: str) -> None:
        """Runs once at the end of every life, also after a crash or a failed start.

        It is shielded from cancellation and has a deadline (`ChildSpec.on_stop_deadline_s`).
        """


def _dispatch_table(cls: type) -> dict[type, Handler]:
    """The handler of each message type; that of a subclass replaces one of its bases."""
    table: dict[type, Handler] = {}
    for base in reversed(cls.__mro__):
        named: dict[type, str] = {}
        for name, member in vars(base).items():
            marked = getattr(member, "__handles__", None)
            if marked is None:
                continue
            # Looked up in `cls`, since an override in a subclass need not be marked again.
            function = getattr(cls, name)
            types, batch_max = marked
            # A decorator may hide that the function inside it is a coroutine function.
            is_async = inspect.iscoroutinefunction(inspect.unwrap(function))
            # One row for all types of a handler, because messages with the same row share a batch.
            handler = (function, is_async, batch_max)
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
    if not all(isinstance(message_type, type) for message_type in union):
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
