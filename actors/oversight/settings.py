"""The settings of the oversight loop."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ...runtime import COUNT_MAX, Settings
from ..calendar import calendar_of
from .fees import FeeSettings
from .many import limit_of

__all__ = ["OversightSettings"]


class OversightSettings(Settings, frozen=True):
    """How often the tick's steps run, and which subsystems the fund has."""

    tick_interval_s: Annotated[
        float | None,
        Meta(ge=0.01, le=43_200, description="seconds; None: the host calls tick()"),
    ] = 1.0
    session: Annotated[
        str,
        Meta(
            description="'UTC day', or 'weekdays HH:MM Area/City' (the close, Monday to Friday);"
            " the first tick(session=...) of the host switches it off"
        ),
    ] = "UTC day"
    break_tolerance: Annotated[
        float,
        Meta(
            ge=0,
            le=1e12,
            description="units of the currency, or 1 bp of NAV if that is more; by so much may"
            " the NAV of the ledger and of the engine differ",
        ),
    ] = 0.01
    max_correlation: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="of the P&L per session of two strategies; a higher one is told; 1: off",
        ),
    ] = 0.85
    var_budget: Annotated[
        float | None,
        Meta(
            ge=0,
            le=1e12,
            description="units of the currency; a higher value at risk of a session (historical,"
            " 95%) is told; None: off",
        ),
    ] = None
    max_failed_strategies: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)] | str | None,
        Meta(
            description="so many that fail within 30 s are one alert: a number, or 'max(3, 5%)' of"
            " those pending, running or failed; None: off"
        ),
    ] = "max(3, 5%)"
    recovery_every_ticks: Annotated[
        int,
        Meta(
            ge=1,
            le=COUNT_MAX,
            description="ticks between two looks for failed strategies and stale feeds",
        ),
    ] = 10
    promotion_every_ticks: Annotated[
        int, Meta(ge=1, le=COUNT_MAX, description="ticks between two evaluations of the gates")
    ] = 60
    ledger_enabled: Annotated[
        bool, Meta(description="keep the double-entry ledger; without it fees are not booked")
    ] = False
    promotion_enabled: Annotated[
        bool, Meta(description="promote and demote strategies; without it all of them are real")
    ] = False
    self_healing_enabled: Annotated[
        bool, Meta(description="restart failed strategies, watch feeds")
    ] = False
    mode: Literal["act", "observe"] = "act"
    alerts_enabled: bool = False
    reaches_a_person: bool = True  # a channel of the alerts
    fees: FeeSettings = FeeSettings()

    def __post_init__(self) -> None:
        super().__post_init__()
        calendar_of(self.session)
        limit_of(self.max_failed_strategies)
