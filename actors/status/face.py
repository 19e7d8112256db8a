"""The settings of a fund that its status actor needs."""

from __future__ import annotations

import msgspec

__all__ = ["StatusFace"]


class StatusFace(msgspec.Struct, frozen=True):
    """Which parts the fund has."""

    currency: str = "USD"
    tick_interval_s: float | None = None  # None: the host calls the ticks, so none is missed
    attempts_max: int | None = None  # of recovery; None: there is no self-healing
    channels: tuple[str, ...] = ()  # of alerts, by name
    ledger: bool = False
