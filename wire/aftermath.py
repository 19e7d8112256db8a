"""The four sentences that end an alert of a kill, pause, open breaker, demotion or release.

They answer the first questions of the person on call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["NOT_KNOWN", "aftermath", "listed"]

NAMES_MAX: Final = 10  # told by name; the others are counted
NOT_KNOWN: Final = "not known yet"


def aftermath(stopped: Sequence[str], *, left_open: str, next_act: str, undo: str) -> str:
    """Four sentences: the stopped strategies, what stays open, the next automatic act, the undoing.

    `undo` is the command that a person types, or a sentence that says how.
    """
    return (
        f"Stopped: {listed(stopped)}. Left open: {left_open}. Next automatic act: {next_act}."
        f" To undo: {undo}."
    )


def listed(names: Sequence[str]) -> str:
    """The first names, and the number of the others; "none" for no name."""
    if len(names) > NAMES_MAX:
        return f"{', '.join(names[:NAMES_MAX])} and {len(names) - NAMES_MAX:,} more"
    return ", ".join(names) or "none"
