"""The kill switch's latch and its scope: one shared object, written by the guard alone.

Recovery, the host port, the doors and the stream read it at the moment when they act or answer, so
all of them give the same state at once, without a tick. A write replaces one frozen value, so a
read from another thread sees either the old state or the new one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ...wire.guard import KillStatus

__all__ = ["OFF", "KillLatch"]

log = logging.getLogger("fundops.guard")

OFF = KillStatus("OFF", "", "", None)


class KillLatch:
    """The state of the kill switch now."""

    def __init__(self) -> None:
        self.status = OFF
        # A caller that saw OFF before a wait compares this after it: the switch may have been
        # engaged and released meanwhile.
        self.engagements = 0
        # The strategies that it does not stop, as of the guard's last look. A name that the guard
        # does not know is stopped.
        self.spared: frozenset[str] = frozenset()
        # Set by the guard: engages in the caller's own task and at once. A message would wait for
        # the look in hand. None: no guard runs.
        self.pull: Callable[[object, object], KillStatus] | None = None
        self._readers: list[Callable[[], None]] = []

    @property
    def engaged(self) -> bool:
        """Whether trading is stopped, confirmed by the engine or not."""
        return self.status.state != "OFF"

    def stops(self, name: str) -> bool:
        """Whether it is engaged with this strategy in its scope."""
        return self.engaged and name not in self.spared

    @property
    def frozen(self) -> bool:
        """Whether it is engaged with "freeze", under which the engine must touch nothing."""
        return self.engaged and self.status.action == "freeze"

    def freezes(self, name: str) -> bool:
        """Whether the engine must touch nothing of this strategy."""
        return self.frozen and self.stops(name)

    def set(self, status: KillStatus) -> None:
        """For the guard alone. Each reader is called after the change, and cannot prevent it."""
        was = self.engaged
        self.status = status
        self.engagements += self.engaged and not was
        for reader in tuple(self._readers):
            try:
                reader()
            except Exception as error:  # noqa: BLE001  showing it must not hold up the stop
                log.error("a reader of the kill switch failed: %r", error)

    def on_change(self, reader: Callable[[], None]) -> Callable[[], None]:
        """Call `reader` after each change, in the guard's task; it must be quick.

        Returns a function that ends the calls.
        """
        self._readers.append(reader)

        def end() -> None:
            if reader in self._readers:
                self._readers.remove(reader)

        return end
