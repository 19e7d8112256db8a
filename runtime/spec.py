"""The settings of children and of supervisors, checked when they are made.

Times are in seconds and names end in `_s`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, Literal

import msgspec

from .actor import Actor
from .errors import ConfigError
from .life import Drain
from .mailbox import Overflow
from .ref import SECONDS_MAX
from .strategy import Strategy

__all__ = ["Backoff", "ChildSpec", "Restart", "SupervisorSpec", "check_attempts"]

Restart = Literal["permanent", "transient", "temporary"]


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= 128:
        raise ConfigError("name", f"{name!r} is not a text of 1 to 128 characters")


def _check_choice(field: str, value: object, allowed: Any) -> None:
    if value not in allowed.__args__:
        raise ConfigError(field, f"{value!r} is not one of {', '.join(allowed.__args__)}")


def _check_whole(field: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(field, f"{value!r} is not a whole number >= {least}")


def _check_seconds(field: str, value: Any, *, zero: bool) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (0 <= value <= SECONDS_MAX) or (value == 0 and not zero):
        raise ConfigError(
            field, f"{value!r} is not a finite number of seconds {'>=' if zero else '>'} 0"
        )


class Backoff(msgspec.Struct, frozen=True):
    """The delay before a restart.

    Before restart n of a row of failures, counted from 0, it is min(max_s, min_s * 2^n), less a
    random part of at most `jitter` of it. Each supervisor draws from its own generator, so the same
    `seed` gives the same delays.
    """

    min_s: float = 0.0
    max_s: float = 30.0
    jitter: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        _check_seconds("backoff.min_s", self.min_s, zero=True)
        _check_seconds("backoff.max_s", self.max_s, zero=True)
        if self.min_s > self.max_s:
            raise ConfigError("backoff", f"min_s {self.min_s!r} is more than max_s {self.max_s!r}")
        if (
            isinstance(self.jitter, bool)
            or not isinstance(self.jitter, int | float)
            or not 0 <= self.jitter <= 1
        ):
            raise ConfigError("backoff.jitter", f"{self.jitter!r} is not between 0 and 1")

    def delay_s(self, failures: int, rng: random.Random) -> float:
        """The delay in seconds after so many earlier failures in a row."""
        # Past 2^64 the delay is max_s anyway, and the power of a large number would overflow.
        delay = min(self.max_s, self.min_s * 2.0 ** min(failures, 64))
        return delay * (1 - self.jitter * rng.random())


class ChildSpec(msgspec.Struct, frozen=True):
    """The settings of one actor.

    `factory` makes a fresh instance for each life. A life that is asked to end has `grace_s` to
    finish its message in hand, or to drain. `conflate_by` gives the key of a message for the
    overflow policy "conflate": a newer message takes the place of a queued one with the same key,
    and one whose key is None keeps its own place. `max_attempts` is the number of lives that an
    idempotent message may crash before it is quarantined.
    """

    name: str
    factory: Callable[[], Actor]
    restart: Restart = "permanent"
    capacity: int = 1_024
    overflow: Overflow = "backpressure"
    conflate_by: Callable[[Any], Hashable] | None = None
    drain: Drain = "in_hand"
    grace_s: float = 5.0
    on_stop_deadline_s: float = 5.0
    max_attempts: int = 3
    # Messages handled before other tasks have a turn. A schedule point costs as much as ten
    # messages.
    messages_per_turn: int = 64

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not callable(self.factory):
            raise ConfigError(f"{self.name}.factory", f"{self.factory!r} cannot be called")
        for field in ("capacity", "max_attempts", "messages_per_turn"):
            _check_whole(f"{self.name}.{field}", getattr(self, field), least=1)
        for field, allowed in (("restart", Restart), ("overflow", Overflow), ("drain", Drain)):
            _check_choice(f"{self.name}.{field}", getattr(self, field), allowed)
        if (self.overflow == "conflate") != (self.conflate_by is not None):
            raise ConfigError(
                f"{self.name}.conflate_by",
                "is needed for the overflow policy 'conflate', and for no other",
            )
        _check_seconds(f"{self.name}.grace_s", self.grace_s, zero=True)
        _check_seconds(f"{self.name}.on_stop_deadline_s", self.on_stop_deadline_s, zero=True)


class SupervisorSpec(msgspec.Struct, frozen=True):
    """The settings of a supervisor that is a child of another one.

    It escalates, which is one failure in the window of its parent, after more than `intensity`
    failures within `period_s`, or `max_consecutive` failures of one child in a row without
    `stable_after_s` of running. The messages queued for its children also survive its own restarts.
    """

    name: str
    children: Sequence[ChildSpec | SupervisorSpec]
    strategy: Strategy = "one_for_one"
    intensity: int = 3
    period_s: float = 5.0
    backoff: Backoff = Backoff()
    max_consecutive: int = 10
    stable_after_s: float = 60.0
    restart: Restart = "permanent"

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_choice(f"{self.name}.strategy", self.strategy, Strategy)
        _check_choice(f"{self.name}.restart", self.restart, Restart)
        _check_whole(f"{self.name}.intensity", self.intensity, least=0)
        _check_whole(f"{self.name}.max_consecutive", self.max_consecutive, least=1)
        for field in ("period_s", "stable_after_s"):
            _check_seconds(f"{self.name}.{field}", getattr(self, field), zero=False)
        for child in self.children:
            if not isinstance(child, ChildSpec | SupervisorSpec):
                raise ConfigError(
                    f"{self.name}.children",
                    f"{child!r} is neither a ChildSpec nor a SupervisorSpec",
                )
            if isinstance(child, ChildSpec) and (actor := _actor_of(child.factory)) is not None:
                check_attempts(child, actor, self.intensity)


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
