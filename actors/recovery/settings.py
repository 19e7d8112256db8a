"""The settings of recovery, and the cooldowns that follow from them. Settings are in seconds."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ...runtime import YEAR_S, ConfigError, Settings

__all__ = ["RecoverySettings", "cooldown_us", "to_us"]


class RecoverySettings(Settings, frozen=True):
    """How long recovery waits, and how often it tries."""

    probation_s: Annotated[
        float,
        Meta(
            ge=0,
            le=YEAR_S,
            description="seconds until a restart counts as recovered; 0: at once, and the attempts"
            " are forgotten",
        ),
    ] = 600.0
    max_starts_per_day: Annotated[
        int | None,
        Meta(ge=1, le=10_000, description="starts of a strategy in any 24 h; None: unlimited"),
    ] = 10
    first_attempt: Annotated[
        Literal["immediate", "after_cooldown"],
        Meta(description="'immediate': by the check that finds the failure"),
    ] = "immediate"
    base_cooldown_s: Annotated[
        float, Meta(ge=0.001, le=YEAR_S, description="seconds; the first cooldown")
    ] = 60.0
    factor: Annotated[
        float, Meta(ge=1, le=10, description="each cooldown is this many times the one before")
    ] = 2.0
    cooldown_max_s: Annotated[
        float,
        Meta(ge=0.001, le=YEAR_S, description="seconds; the longest cooldown, at least the first"),
    ] = 3_600.0
    attempts_max: Annotated[
        int, Meta(ge=1, le=100, description="failed attempts of one episode that open the breaker")
    ] = 3
    restart_deadline_s: Annotated[
        float,
        Meta(
            ge=0.001,
            le=YEAR_S,
            description="seconds; a longer restart call is a failed attempt, and is not cancelled",
        ),
    ] = 30.0
    restart_concurrency: Annotated[
        int,
        Meta(ge=1, le=10_000, description="restart calls at once; a late call no longer counts"),
    ] = 1
    restart_spacing_s: Annotated[
        float, Meta(ge=0, le=YEAR_S, description="seconds between the beginnings of two restarts")
    ] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cooldown_max_s < self.base_cooldown_s:
            raise ConfigError(
                "cooldown_max_s",
                f"{self.cooldown_max_s!r} is less than base_cooldown_s, {self.base_cooldown_s!r}",
            )


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
