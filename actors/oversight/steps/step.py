"""The shape of a step of the tick, and the ports through which steps act."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeVar

from ....runtime import Clock, Request
from ....wire.alert import AlertDraft, Category, Level
from ....wire.persistence import COMMIT_DEADLINE_S, Statement
from ...alert import told_keys
from ...host import Host
from ...persistence import Reader, Refusal, StorageBoard
from ..clocks import ClockWatch
from ..crashes import CrashWatch
from ..round import Effects, Round
from ..settings import OversightSettings

__all__ = ["READ_DEADLINE_S", "STEP", "STEP_DEADLINE_S", "Ask", "Ports", "Step"]

R = TypeVar("R")

# The deadline of a commit behind a busy disk comes first.
STEP_DEADLINE_S = COMMIT_DEADLINE_S + 5.0
# Of a step that runs before the guard and only reads. The leases last longer.
READ_DEADLINE_S = 5.0

STEP = "step:"  # dedup keys of alerts that a step fails are this and its name


class Ask(Protocol):
    """Ask an actor by its name. Raises: its refusal; `ActorError`."""

    async def __call__(self, name: str, request: Request[R]) -> R:
        """The answer."""
        ...


@dataclass(frozen=True)
class Ports:
    """The means and settings that the steps share."""

    ask: Ask
    append: Callable[[Sequence[Statement]], Awaitable[Refusal | None]]
    rows: Reader  # the database, to read
    host: Host
    clock: Clock
    settings: OversightSettings
    capital_minor: int
    started_us: int  # when this life began
    clock_watch: ClockWatch
    crashes: CrashWatch
    storage: StorageBoard
    # CRITICAL alerts that left from memory, since storage refused them.
    sent: set[AlertDraft] = field(default_factory=set)

    def told(self, prefix: str) -> set[str]:
        """The open dedup keys that begin so. Told by an earlier life, they are ended by this one:
        an open key would keep the next alert under it from being heard.
        """
        return told_keys(self.rows, prefix) if self.settings.alerts_enabled else set()


class Step(ABC):
    """One step of the tick. It is made anew in each life of the actor.

    Beside the alerts that it has told, a step keeps no state that must survive a tick.
    """

    name: ClassVar[str]
    # A step that takes longer is cancelled, and counts as failed; None: it waits for nothing.
    deadline_s: ClassVar[float | None] = STEP_DEADLINE_S
    # Of the alert that it fails.
    level: ClassVar[Level] = Level.WARNING
    # Seconds after which that alert is repeated; None: it is told once until the step works again.
    repeat_s: ClassVar[float | None] = None
    # The step has sent its own alert about a fault that it returns or raises.
    tells_itself: ClassVar[bool] = False
    # The alerts that it alone ends: the beginnings of their dedup keys, with the category.
    tells: ClassVar[Mapping[str, Category]] = {}

    def __init__(self, ports: Ports) -> None:
        self.ports = ports

    @classmethod
    def serves(cls, settings: OversightSettings) -> bool:
        """Whether a fund with these settings has this step."""
        return True

    @property
    def every(self) -> int:
        """The step runs at each tick whose number is a multiple, and when a session ends."""
        return 1

    def is_due(self, tick: Round) -> bool:
        """Whether the step runs in this tick."""
        return tick.number % self.every == 0 or bool(tick.due)

    @abstractmethod
    async def run(self, tick: Round) -> Effects:
        """Do the step. Raises: `FundopsError` when nothing of it was done."""
