"""Mode "observe": no acting part of the controller is called, and each act is told instead."""

from __future__ import annotations

from ...runtime import shown
from ...wire.guard import Withheld

__all__ = ["ObserveMode"]


class ObserveMode:
    """Keeps the acts from the engine while it is on: the one place that refuses them."""

    def __init__(self, *, is_on: bool) -> None:
        self.is_on = is_on
        self._withheld: dict[tuple[str, str], Withheld] = {}  # not taken yet
        self._told: set[str] = set()

    def withholds(self, part: str, *arguments: object, strategy: str = "") -> bool:
        """Whether this act is kept from the engine; it is noted then.

        `strategy` is the one it would have been done on; "": it concerns the engine as a whole.
        """
        if not self.is_on:
            return False
        call = f"{part}({', '.join(map(shown, arguments))})"
        if call not in self._told:
            self._told.add(call)
            self._withheld[part, strategy] = Withheld(part, strategy, call)
        return True

    def take_withheld(self) -> tuple[Withheld, ...]:
        """The acts that were kept from the engine since the last call, each told once."""
        taken = tuple(self._withheld.values())
        self._withheld.clear()
        return taken
