"""The alerts' door: send an alert, try the channels, read the recent alerts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast
from uuid import uuid4

from fundops.doors.door import Door
from fundops.runtime import ActorError, Ref, shown
from fundops.wire.alert import (
    AlertPage,
    AlertReceipt,
    Category,
    ChannelTest,
    Level,
    OutgoingAlert,
    RecentAlerts,
    SendAlert,
    TryDelivery,
)
from fundops.wire.errors import AlertRefused
from fundops.wire.foreign import plain_text

__all__ = ["AlertDoor"]


# Dedup keys of callers begin with this, those of the fund itself never do: a caller's key "kill"
# must not silence the kill switch.
CALLER = "caller:"

# A channel may be busy with a delivery of 10 s before it begins with the test.
TEST_DEADLINE_S = 30.0


E = TypeVar("E", Level, Category)


class AlertDoor(Door):
    """Send alerts, try their channels, and read those that were sent.

    `channels` are the channels' actors by name.
    """

    def __init__(
        self, ref: Ref | None, channels: Mapping[str, Ref], now_us: Callable[[], int]
    ) -> None:
        super().__init__("alerts", "alert_webhook_url or any subsystem", ref)
        self._channels = dict(channels)
        self._now_us = now_us

    async def send(
        self,
        level: Level | str,
        category: Category | str,
        title: str,
        message: str,
        *,
        strategy: str | None = None,
        dedup_key: str | None = None,
    ) -> AlertReceipt:
        """Store an alert; returns once it is durable and does not wait for its delivery.

        Keys of callers are apart from those of the fund's own alerts.

        Raises: `AlertRefused`, also for an unknown level or category.
        """
        key: Any = dedup_key
        if plain_text(key):
            key = CALLER + cast(str, plain_text(key))
        return await self._ask(
            SendAlert(
                _one_of(Level, level, "level"),
                _one_of(Category, category, "category"),
                title,
                message,
                strategy,
                key,
            )
        )

    async def recent(self, limit: int = 50) -> AlertPage:
        """The newest alerts, newest first, with counts over the whole history."""
        return await self._ask(RecentAlerts(limit))

    async def test(self) -> tuple[ChannelTest, ...]:
        """Send a test alert through each channel, past all limits, and say what became of it.

        It is not part of the history. Empty when the fund has no channel.
        """
        number = f"test-{uuid4()}"  # a receiver that drops repeated ids must take each test
        alert = OutgoingAlert(
            number,
            self._now_us(),
            Level.INFO,
            Category.GENERAL,
            "Test alert",
            "A person asked for this test. Alerts of this fund arrive through this channel.",
        )
        return tuple([await self._tested(name, alert) for name in self._channels])

    async def _tested(self, name: str, alert: OutgoingAlert) -> ChannelTest:
        try:
            error = await self._channels[name].ask(TryDelivery(alert), timeout_s=TEST_DEADLINE_S)
        except ActorError as lost:
            error = f"the channel does not answer: {lost}"
        return ChannelTest(name, error is None, error)


def _one_of(kind: type[E], value: Any, field: str) -> E:
    """The level or category of this name. Raises: `AlertRefused`, naming the field."""
    try:
        member: E = value if type(value) is kind else kind(plain_text(value))
    except ValueError:
        known = ", ".join(member.value for member in kind)
        raise AlertRefused(field, f"{shown(value)} is not one of {known}") from None
    return member
