"""The records of a supervisor: one frozen Struct for each kind of fact, and bounded logs of them.

Times (`at_s`) are trio's, in seconds. Errors are texts, because a stored exception would keep all
frames of its traceback alive. `epoch` is the number of the life concerned.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Literal, TypeVar, overload

import msgspec

from .errors import ConfigError
from .mailbox import MailboxStatistics

__all__ = [
    "ChildStatus",
    "CleanupFailed",
    "Crashed",
    "DeadLetter",
    "Event",
    "Log",
    "Quarantined",
    "Replaced",
    "Restarted",
    "State",
    "Stuck",
    "Terminated",
]

# "stuck": cancelled, and has not ended since.
State = Literal["starting", "running", "restarting", "stopping", "stuck", "stopped"]

T = TypeVar("T")


class DeadLetter(msgspec.Struct, frozen=True, tag=True):
    """A message that will never be answered, with the reason."""

    at_s: float
    actor: str
    message_type: str
    reason: str


class Crashed(msgspec.Struct, frozen=True, tag=True):
    """A life ended with an error, during its start or later."""

    at_s: float
    name: str
    epoch: int
    error: str  # type and text of the exception
    traceback: str = ""  # at most 16 KiB, the end of a longer one

    def __str__(self) -> str:
        return f"{self.name} (epoch {self.epoch}): {self.error}"


class Restarted(msgspec.Struct, frozen=True, tag=True):
    """A new life is ready after a restart."""

    at_s: float
    name: str
    epoch: int


class Replaced(msgspec.Struct, frozen=True, tag=True):
    """The first life of another factory is ready; see `Supervisor.replace`."""

    at_s: float
    name: str
    epoch: int


class CleanupFailed(msgspec.Struct, frozen=True, tag=True):
    """`on_stop` raised or overran its deadline."""

    at_s: float
    name: str
    epoch: int
    error: str


class Quarantined(msgspec.Struct, frozen=True, tag=True):
    """An idempotent message crashed every life that tried it, and will not be tried again."""

    at_s: float
    name: str
    message_type: str
    attempts: int
    key: str | None  # the message's idempotency key; None without one


class Stuck(msgspec.Struct, frozen=True, tag=True):
    """A task has not ended although cancelled, or holds the loop without yielding.

    Nothing can end such a task from outside.
    """

    at_s: float
    name: str
    epoch: int
    for_s: float  # seconds since the cancellation, or since the task last yielded
    stack: str  # where the task is


class Terminated(msgspec.Struct, frozen=True, tag=True):
    """An actor has ended permanently. Each watcher gets this once; a restart does not send it."""

    at_s: float
    name: str
    reason: str


Event = Crashed | Restarted | Replaced | CleanupFailed | Quarantined | Stuck | Terminated


class ChildStatus(msgspec.Struct, frozen=True):
    """One child of a supervisor at this instant."""

    name: str
    state: State
    epoch: int  # 0 before the first life
    restarts: int  # since the supervisor started; a replacement does not count
    restarts_in_window: int  # its failures that still count towards the intensity
    capacity: int | None  # in messages; None for a supervisor
    mailbox: MailboxStatistics | None  # None for a supervisor
    in_hand: str | None  # type of the message in hand, or of the first of a batch; None without one
    in_hand_s: float | None  # age of the message in hand, in seconds; None without one
    waiting_on: tuple[str, ...]  # the actors that its handler waits for, in alphabetical order
    last_crash: str | None  # type and text of its latest error; None without one
    children: tuple[ChildStatus, ...] = ()  # empty for an actor
    last_traceback: str | None = None  # of its latest crash; None without one


class Log(Sequence[T], Generic[T]):
    """The latest records of one kind, oldest first, with at most one subscriber.

    `total` counts all records, also those no longer kept. The subscriber is called at once, in the
    task that appends the record. An error that it raises is counted in `failures` and goes no
    further. A record that it causes itself is kept, and not passed to it, so it cannot call itself
    without end.
    """

    def __init__(self, kept: int) -> None:
        self.total = 0
        self.failures = 0
        self._kept: deque[T] = deque(maxlen=kept)
        self._subscriber: Callable[[T], object] | None = None
        self._telling = False

    def subscribe(self, subscriber: Callable[[T], object]) -> None:
        """Call `subscriber`, a plain function, with every record from now on.

        The `tell_nowait` of a ref is one.

        Raises: `ConfigError` when there is a subscriber already, or it is a coroutine function.
        """
        if self._subscriber is not None:
            raise ConfigError("subscriber", "there is one already, and only one is allowed")
        if not callable(subscriber) or inspect.iscoroutinefunction(subscriber):
            raise ConfigError("subscriber", f"{subscriber!r} is not a plain function")
        self._subscriber = subscriber

    def unsubscribe(self) -> None:
        """Stop calling the subscriber. Idempotent."""
        self._subscriber = None

    def append(self, record: T, *, tell: bool = True) -> None:
        """Add a record, and pass it to the subscriber if `tell` is true."""
        self.total += 1
        self._kept.append(record)
        if self._subscriber is None or self._telling or not tell:
            return
        self._telling = True
        try:
            self._subscriber(record)
        except Exception:  # noqa: BLE001  counted; a subscriber must not crash the actor it hears of
            self.failures += 1
        finally:
            self._telling = False

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[T]:
        return iter(self._kept)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self._kept[index] if isinstance(index, int) else list(self._kept)[index]

    def __repr__(self) -> str:
        return f"<Log of {self.total}, the latest {len(self)}: {list(self._kept)!r}>"
