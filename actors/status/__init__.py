"""Status: the live state and the events of the fund, streamed to its clients."""

from .actor import StatusActor

__all__ = ["StatusActor"]
