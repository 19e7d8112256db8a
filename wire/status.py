"""The status actor: the messages that it takes, and those that others are asked for its states.

The stream that it serves is in `wire/stream/`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..runtime import Request
from .stream.records import PromotionFull

__all__ = ["ShowPromotion", "StatusNews", "StatusPort"]


class StatusNews(msgspec.Struct, frozen=True, tag=True):
    """Sent when states or committed events may be new; the actor then looks for all of them."""


class StatusPort(Request[int], frozen=True):
    """The port that the stream is served on.

    Refused with: `PortTaken` while the port cannot be bound.
    """


class ShowPromotion(Request[Mapping[str, PromotionFull]], frozen=True):
    """Every strategy as the stream shows its promotion, by name. Asked of the promotion actor."""
