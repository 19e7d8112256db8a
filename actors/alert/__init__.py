"""Alerts: limited, deduplicated, durable before they are sent, and delivered by one actor for each
channel.

The ways of delivering are imported from `.delivery`: loading an HTTP client takes a tenth of a
second, and a tool that only commits an `alert_request` should not wait for it.
"""

from .actor import AlertActor
from .channel import ChannelActor, Deliver, DeliveryFailed
from .core import AlertSettings
from .requests import alert_request
from .schema import SCHEMA, SCHEMA_4, recent, told_keys

__all__ = [
    "SCHEMA",
    "SCHEMA_4",
    "AlertActor",
    "AlertSettings",
    "ChannelActor",
    "Deliver",
    "DeliveryFailed",
    "alert_request",
    "recent",
    "told_keys",
]
