"""Status: what the fund is doing, streamed to whoever listens."""

from .actor import StatusActor

__all__ = ["StatusActor"]
