"""Alerts: limited, deduplicated, durable before they are sent, and delivered by one actor for each
channel.

The ways of delivering are imported from `.delivery`: loading an HTTP client takes a tenth of a
second, and a tool that only commits an `alert_request` should not wait for it.
"""

from typing import TYPE_CHECKING

from ...runtime.lazy import lazy
from .core import AlertSettings
from .schema import SCHEMA, SCHEMA_4, recent, told_keys

# Loaded when first used: see `runtime.lazy`.
if TYPE_CHECKING:
    from .actor import AlertActor as AlertActor
    from .channel import ChannelActor as ChannelActor
    from .channel import Deliver as Deliver
    from .channel import DeliveryFailed as DeliveryFailed
    from .requests import alert_request as alert_request
else:
    __getattr__ = lazy(
        __name__,
        {
            "requests": ("alert_request",),
            "actor": ("AlertActor",),
            "channel": ("ChannelActor", "Deliver", "DeliveryFailed"),
        },
    )

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
