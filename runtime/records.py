"""What a supervisor has to say: one frozen record for each fact, and bounded logs of them.

Times are trio's, in seconds. Errors are texts: a stored exception would pin whole frames.
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

# "stuck": cancelled, and does not end.
State = Literal["starting", "running", "restarting", "stopping", "stuck", "stopped"]

T = TypeVar("T")


class DeadLetter(msgspec.Struct, frozen=True, tag=True):
    """A message nobody will answer."""

    at_s: float
    actor: str
    message_type: str
    reason: str


class Crashed(msgspec.Struct, frozen=True, tag=True):
    """A life ended with an error, while starting or later."""

    at_s: float
    name: str
    epoch: int
    error: str

    def __str__(self) -> str:
        return f"{self.name} (epoch {self.epoch}): {self.error}"


class Restarted(msgspec.Struct, frozen=True, tag=True):
    """A new life is ready."""

    at_s: float
    name: str
    epoch: int


class Replaced(msgspec.Struct, frozen=True, tag=True):
    """A life made by another factory is ready."""

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
    key: str | None


class Stuck(msgspec.Struct, frozen=True, tag=True):
    """A task has not ended although cancelled, or holds the loop without yielding; nothing can end it from outside."""

    at_s: float
    name: str
    epoch: int
    for_s: float
    stack: str


class Terminated(msgspec.Struct, frozen=True, tag=True):
    """An actor is gone for good. Exactly one of its watchers' messages; a restart is none."""

    at_s: float
    name: str
    reason: str


Event = Crashed | Restarted | Replaced | CleanupFailed | Quarantined | Stuck | Terminated


class ChildStatus(msgspec.Struct, frozen=True):
    """One child at this instant; `children` is empty for an actor."""

    name: str
    state: State
    epoch: int
    restarts: int  # since the supervisor started
    restarts_in_window: (
        int  # failures of this child that still count towards its supervisor's intensity
    )
    capacity: int | None  # None for a supervisor
    mailbox: MailboxStatistics | None  # None for a supervisor
    in_hand: str | None  # type of the message in hand, the first of a batch
    in_hand_s: float | None  # how long it has been; None with no message in hand
    waiting_on: tuple[str, ...]
    last_crash: str | None
    children: tuple[ChildStatus, ...] = ()


class Log(Sequence[T], Generic[T]):
    """The latest records, the `total` of all there ever were, and at most one subscriber.

    The subscriber is called at once, in the task of whatever happened. What it raises is counted in `failures` and
    harms nobody; what happens because of it is recorded and not told to it.
    """

    def __init__(self, kept: int) -> None:
        self.total = 0
        self.failures = 0
        self._kept: deque[T] = deque(maxlen=kept)
        self._subscriber: Callable[[T], object] | None = None
        self._telling = False

    def subscribe(self, subscriber: Callable[[T], object]) -> None:
        """Call `subscriber` with every record from now on; a ref's `tell_nowait` will do. Raises `ConfigError`."""
        if self._subscriber is not None:
            raise ConfigError("subscriber", "there is one already, and only one is allowed")
        if not callable(subscriber) or inspect.iscoroutinefunction(subscriber):
            raise ConfigError("subscriber", f"{subscriber!r} is not a plain function")
        self._subscriber = subscriber

    def unsubscribe(self) -> None:
        """Idempotent."""
        self._subscriber = None

    def append(self, record: T, *, tell: bool = True) -> None:
        self.total += 1
        self._kept.append(record)
        if self._subscriber is None or self._telling or not tell:
            return
        self._telling = True
        try:
            self._subscriber(record)
        except Exception:  # noqa: BLE001  a listener may not harm what it listens to
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
