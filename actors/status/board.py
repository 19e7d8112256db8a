"""The newest states for the status stream, written by oversight and read by the status actor.

They are not messages. A fund that ticks faster than the stream publishes would fill the mailbox
with outdated states, and lose the events of commits among them. Here a newer state
takes the place of an older one, and at most one wake-up is on its way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ...runtime import ActorError, Ref
from ...wire.status import StatusNews
from ...wire.stream.records import RestartEvent

__all__ = ["StatusBoard"]

# Crashes that are kept for a status actor that was itself down.
CRASHES_MAX = 256


class StatusBoard:
    """Outlives the actors on both sides, so a new life of the status actor finds every state."""

    def __init__(self) -> None:
        self.status: Ref | None = None  # set once the tree was declared; until then nothing is told
        self.shown = 0  # how often states were published; tells whether a refresh was answered
        self.ticked_s: float | None = None  # monotonic end of the last tick; None: no tick yet
        # When each row of attention was first seen; a new life of the actor goes on with it.
        self.waiting_since_us: Mapping[str, int] = {}
        self.crashes = 0  # since the process started
        self._kept_crashes: deque[RestartEvent] = deque(maxlen=CRASHES_MAX)
        self._states: dict[str, Mapping[str, Any]] = {}
        self._details: dict[str, Mapping[str, Any]] = {}
        self._told = False
        self._urgent = False

    def publish(
        self,
        states: Mapping[str, Mapping[str, Any]],
        *,
        details: Mapping[str, Mapping[str, Any]] | None = None,
        urgent: bool = False,
    ) -> None:
        """Replace the named topics, and tell the status actor.

        Topics that are not named stay as they are. In a topic, a key that is missing, or whose
        value is None, is removed. Money must be Decimal or text, never float. `details` are the
        full records of topics. With `urgent` the status actor does not wait for its next interval.
        """
        self._states.update(states)
        self._details.update(details or {})
        self._urgent = self._urgent or urgent
        self.shown += 1
        self.tell()

    def crashed(self, crash: RestartEvent) -> None:
        """Show that an actor crashed."""
        self._kept_crashes.append(crash)
        self.crashes += 1
        self.tell()

    def crashes_after(self, count: int) -> list[RestartEvent]:
        """The crashes after so many, oldest first; those that are no longer kept are left out."""
        fresh = self.crashes - count
        return list(self._kept_crashes)[-fresh:] if fresh > 0 else []

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

    def details(self, topic: str) -> Mapping[str, Any] | None:
        """The full records of a topic; None: it has none."""
        return self._details.get(topic)

    def is_urgent(self) -> bool:
        """Whether states are to be shown at once. Asking again says no."""
        urgent, self._urgent = self._urgent, False
        return urgent
