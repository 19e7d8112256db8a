"""The status actor: the messages that it takes. The stream that it serves is in `wire/stream/`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..runtime import Request

__all__ = ["EventsCommitted", "PublishStatus", "StatusPort"]


class PublishStatus(msgspec.Struct, frozen=True, tag=True):
    """Replace the named state topics.

    A key that is missing, or whose value is None, is removed from its topic.

    Topics that are not named stay as they are. A value may be of any type that msgspec encodes;
    money must be Decimal or text, never float.
    """

    states: Mapping[str, Mapping[str, Any]]  # topic -> key -> value


class EventsCommitted(msgspec.Struct, frozen=True, tag=True):
    """Sent after a commit: the tables behind the event topics may have new rows."""


class StatusPort(Request[int], frozen=True):
    """The port that the stream is served on.

    Refused with: `PortTaken` while the port cannot be bound.
    """
