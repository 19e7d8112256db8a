"""The status actor: the messages that it takes. The stream that it serves is in `wire/stream/`."""

from __future__ import annotations

import msgspec

from ..runtime import Request

__all__ = ["StatusNews", "StatusPort"]


class StatusNews(msgspec.Struct, frozen=True, tag=True):
    """Sent when states or committed events may be new; the actor then looks for all of them."""


class StatusPort(Request[int], frozen=True):
    """The port that the stream is served on.

    Refused with: `PortTaken` while the port cannot be bound.
    """
