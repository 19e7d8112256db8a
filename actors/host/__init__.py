"""The port to the host: every call to its controller goes through here, with a deadline."""

from __future__ import annotations

from .acts import RESTART_DEADLINE_S, Acts, each
from .host import Host
from .parts import checked_controller
from .places import AsyncioPlace, InlinePlace, Place, ThreadPlace
from .words import FEEDS_MAX, STRATEGIES_MAX, Heard, Word, check_instants

__all__ = [
    "FEEDS_MAX",
    "RESTART_DEADLINE_S",
    "STRATEGIES_MAX",
    "Acts",
    "AsyncioPlace",
    "Heard",
    "Host",
    "InlinePlace",
    "Place",
    "ThreadPlace",
    "Word",
    "check_instants",
    "checked_controller",
    "each",
]
