"""The newest states for the status stream, written by oversight and read by the status actor.

They are not messages. A fund that ticks faster than the stream publishes would fill the mailbox
with states that nobody sees any more, and lose the events of commits among them. Here a newer state
takes the place of an older one, and at most one wake-up is on its way.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ...runtime import ActorError, Ref
from ...wire.status import StatusNews

__all__ = ["StatusBoard"]


class StatusBoard:
    """Outlives the actors on both sides, so a new life of the status actor finds every state."""

    def __init__(self) -> None:
        self.status: Ref | None = None  # set once the tree was declared; until then nothing is told
        self.shown = 0  # how often states were published; tells whether a refresh was answered
        self._states: dict[str, Mapping[str, Any]] = {}
        self._told = False

    def publish(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the named topics, and tell the status actor.

        Topics that are not named stay as they are. In a topic, a key that is missing, or whose
        value is None, is removed. Money must be Decimal or text, never float.
        """
        self._states.update(states)
        self.shown += 1
        self.tell()

    def tell(self) -> None:
        """Tell the status actor that states or committed events may be new."""
        if self._told or self.status is None:
            return
        # An actor that is restarting finds the message, and one that has stopped needs none.
        with suppress(ActorError):
            self.status.tell_nowait(StatusNews())
            self._told = True

    def read(self) -> Mapping[str, Mapping[str, Any]]:
        """All states. The next change tells the status actor again."""
        self._told = False
        return dict(self._states)
