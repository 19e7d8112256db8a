"""The settings of children and of supervisors, checked when they are made.

Times are in seconds and names end in `_s`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from msgspec import Meta

from .actor import Actor
from .errors import ConfigError
from .life import Drain
from .mailbox import Overflow
from .ref import SECONDS_MAX
from .settings import Settings
from .strategy import Strategy

__all__ = ["Backoff", "ChildSpec", "Restart", "SupervisorSpec", "check_attempts"]

Restart = Literal["permanent", "transient", "temporary"]


Name = Annotated[str, Meta(min_length=1, max_length=128, description="unique in the whole tree")]


class Backoff(Settings, frozen=True):
    """The delay before a restart.

    Before restart n of a row of failures, counted from 0, it is min(max_s, min_s * 2^n), less a
    random part of at most `jitter` of it. Each supervisor draws from its own generator, so the same
    `seed` gives the same delays.
    """

    min_s: Annotated[float, Meta(ge=0, le=SECONDS_MAX, description="seconds; the first delay")] = (
        0.0
    )
    max_s: Annotated[
        float, Meta(ge=0, le=SECONDS_MAX, description="seconds; the longest delay")
    ] = 30.0
    jitter: Annotated[
        float, Meta(ge=0, le=1, description="fraction that chance may take off a delay")
    ] = 0.0
    seed: Annotated[int, Meta(description="of that chance")] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_s > self.max_s:
            raise ConfigError("backoff", f"min_s {self.min_s!r} is more than max_s {self.max_s!r}")

    def _called(self, field: str) -> str:
        return f"backoff.{field}"

    def delay_s(self, failures: int, rng: random.Random) -> float:
        """The delay in seconds after so many earlier failures in a row."""
        # Past 2^64 the delay is max_s anyway, and the power of a large number would overflow.
        delay = min(self.max_s, self.min_s * 2.0 ** min(failures, 64))
        return delay * (1 - self.jitter * rng.random())


class ChildSpec(Settings, frozen=True):
    """The settings of one actor."""

    name: Name
    factory: Annotated[Callable[[], Actor], Meta(description="a fresh instance for each life")]
    restart: Annotated[
        Restart, Meta(description="always, after a crash alone ('transient'), or never")
    ] = "permanent"
    capacity: Annotated[int, Meta(ge=1, description="messages that its mailbox holds")] = 1_024
    overflow: Annotated[
        Overflow, Meta(description="the policy for a message that finds the mailbox full")
    ] = "backpressure"
    conflate_by: Annotated[
        Callable[[Any], Hashable] | None,
        Meta(
            description="the key of a message, for the policy 'conflate': a newer message takes the"
            " place of a queued one with its key; one whose key is None keeps its own place"
        ),
    ] = None
    drain: Annotated[
        Drain, Meta(description="messages that are still handled when it is asked to end")
    ] = "in_hand"
    grace_s: Annotated[
        float,
        Meta(ge=0, le=SECONDS_MAX, description="seconds that it then has before it is cancelled"),
    ] = 5.0
    on_stop_deadline_s: Annotated[
        float, Meta(ge=0, le=SECONDS_MAX, description="seconds that its `on_stop` may take")
    ] = 5.0
    max_attempts: Annotated[
        int,
        Meta(ge=1, description="lives that an idempotent message may crash before its quarantine"),
    ] = 3
    messages_per_turn: Annotated[
        int,
        Meta(
            ge=1,
            description="messages handled before other tasks have a turn; a schedule point costs as"
            " much as ten messages",
        ),
    ] = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.overflow == "conflate") != (self.conflate_by is not None):
            raise ConfigError(
                f"{self.name}.conflate_by",
                "is needed for the overflow policy 'conflate', and for no other",
            )

    def _called(self, field: str) -> str:
        return field if field == "name" else f"{self.name}.{field}"


class SupervisorSpec(Settings, frozen=True):
    """The settings of a supervisor that is a child of another one.

    When it escalates, that is one failure in the window of its parent. The messages queued for its
    children also survive its own restarts.
    """

    name: Name
    children: Annotated[
        Sequence[ChildSpec | SupervisorSpec],
        Meta(description="started in this order, stopped in the reverse"),
    ]
    strategy: Annotated[
        Strategy, Meta(description="the children that restart together after one has failed")
    ] = "one_for_one"
    intensity: Annotated[
        int, Meta(ge=0, description="failures of all children in the window without escalation")
    ] = 3
    period_s: Annotated[
        float, Meta(gt=0, le=SECONDS_MAX, description="seconds; length of that window")
    ] = 5.0
    backoff: Annotated[Backoff, Meta(description="delay before a restart")] = Backoff()
    max_consecutive: Annotated[
        int, Meta(ge=1, description="failures of one child in a row that escalate")
    ] = 10
    stable_after_s: Annotated[
        float, Meta(gt=0, le=SECONDS_MAX, description="seconds of running that end such a row")
    ] = 60.0
    restart: Annotated[
        Restart, Meta(description="always, after a crash alone ('transient'), or never")
    ] = "permanent"

    def __post_init__(self) -> None:
        super().__post_init__()
        for child in self.children:
            if isinstance(child, ChildSpec) and (actor := _actor_of(child.factory)) is not None:
                check_attempts(child, actor, self.intensity)

    def _called(self, field: str) -> str:
        return field if field == "name" else f"{self.name}.{field}"


def _actor_of(factory: Callable[[], Actor]) -> type[Actor] | None:
    """The class of the actors that a factory makes; None when only its first actor can tell."""
    made_by: object = factory
    while isinstance(made_by, partial):
        made_by = made_by.func
    return made_by if isinstance(made_by, type) and issubclass(made_by, Actor) else None


def check_attempts(child: ChildSpec, actor: type[Actor], intensity: int) -> None:
    """Refuse settings with which a supervisor gives up before a poisonous message is quarantined.

    Raises: `ConfigError`.
    """
    if actor._idempotent and child.max_attempts > intensity:
        field = f"{child.name}.max_attempts"
        raise ConfigError(
            field, f"{child.max_attempts} is more than its supervisor's intensity of {intensity}"
        )
