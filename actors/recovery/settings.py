"""The settings of recovery, and the cooldowns that follow from them. Settings are in seconds."""

from __future__ import annotations

import math
from typing import Literal, get_args

import msgspec

from ...runtime import ConfigError

__all__ = ["RecoverySettings", "cooldown_us", "to_us"]

FirstAttempt = Literal["immediate", "after_cooldown"]


class RecoverySettings(msgspec.Struct, frozen=True):
    """How long recovery waits, and how often it tries. Raises: `ConfigError` naming the field."""

    probation_s: float = (
        600.0  # until a restart counts as recovered; 0: at once, attempts forgotten
    )
    max_starts_per_day: int | None = 10  # per strategy, in any 24 h; None: unlimited
    first_attempt: FirstAttempt = "immediate"  # "immediate": by the check that finds the failure
    base_cooldown_s: float = 60.0  # the first cooldown
    factor: float = 2.0  # each cooldown is this many times the one before; 1 to 10
    cooldown_max_s: float = 3_600.0
    attempts_max: int = 3  # failed attempts of one episode that open the breaker; 1 to 100
    restart_deadline_s: float = (
        30.0  # for texts only: the host port measures it and reports a late call
    )
    restart_concurrency: int = 1  # restart calls at once; a late call no longer counts
    restart_spacing_s: float = 1.0  # between the beginnings of two restarts; 0: none

    def __post_init__(self) -> None:
        _check_number("probation_s", self.probation_s, 0, math.inf)
        _check_number("base_cooldown_s", self.base_cooldown_s, 0.001, math.inf)
        _check_number("factor", self.factor, 1, 10)
        _check_number("cooldown_max_s", self.cooldown_max_s, self.base_cooldown_s, math.inf)
        _check_number("restart_deadline_s", self.restart_deadline_s, 0.001, math.inf)
        _check_number("restart_spacing_s", self.restart_spacing_s, 0, math.inf)
        _check_count("attempts_max", self.attempts_max, 100)
        _check_count("restart_concurrency", self.restart_concurrency, 10_000)
        if self.max_starts_per_day is not None:
            _check_count("max_starts_per_day", self.max_starts_per_day, 10_000)
        if self.first_attempt not in get_args(FirstAttempt):
            raise ConfigError(
                "first_attempt", f"{self.first_attempt!r} is not immediate or after_cooldown"
            )


def _check_number(field: str, value: object, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(field, f"{value!r} is not a finite number")
    if not least <= value <= most:
        raise ConfigError(field, f"{value!r} is not between {least:g} and {most:g}")


def _check_count(field: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigError(field, f"{value!r} is not a whole number from 1 to {most}")


def cooldown_us(settings: RecoverySettings, attempts: int) -> int:
    """Microseconds from the end of failed attempt number `attempts` to the next attempt.

    With `attempts` 0: from the failure itself to the first attempt.
    """
    doublings = attempts if settings.first_attempt == "after_cooldown" else attempts - 1
    if doublings < 0:
        return 0
    return to_us(
        min(settings.cooldown_max_s, settings.base_cooldown_s * settings.factor**doublings)
    )


def to_us(seconds: float) -> int:
    """Seconds in microseconds."""
    return round(seconds * 1_000_000)
