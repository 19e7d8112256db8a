"""The alerts' door: send an alert, read the recent ones."""

from __future__ import annotations

from fundops.doors.door import Door
from fundops.runtime import Ref
from fundops.wire.alert import AlertPage, AlertReceipt, Category, Level, RecentAlerts, SendAlert

__all__ = ["AlertDoor"]


class AlertDoor(Door):
    """Send alerts and read those that were sent."""

    def __init__(self, ref: Ref | None) -> None:
        super().__init__("alerts", "alert_webhook_url or any subsystem", ref)

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

        Raises: `AlertRefused`; ValueError for an unknown level or category.
        """
        return await self._ask(
            SendAlert(Level(level), Category(category), title, message, strategy, dedup_key)
        )

    async def recent(self, limit: int = 50) -> AlertPage:
        """The newest alerts, newest first, with counts over the whole history."""
        return await self._ask(RecentAlerts(limit))
