"""The words of a host that pushes its state."""

from __future__ import annotations

from collections.abc import Mapping

from fundops.actors.host import STRATEGIES_MAX, Word, refuse_future
from fundops.runtime import Clock, ConfigError
from fundops.wire import border
from fundops.wire.controller import StrategyStatus

__all__ = ["Reported"]


class Reported:
    """The last status of each strategy, written from any thread and read by the tick."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._words: dict[str, Word] = {}

    def report(self, status: StrategyStatus) -> None:
        """Keep the status in place of an older one, with the instant at which it was given.

        Raises: `ConfigError` naming the field that is wrong; the older status then stands.
        """
        checked = border.strategy_status(status)
        refuse_future(checked.status, self._clock.now_us())
        name = checked.status.name
        if len(self._words) >= STRATEGIES_MAX and name not in self._words:
            raise ConfigError("name", f"at most {STRATEGIES_MAX} strategies are managed")
        self._words[name] = Word(checked.status, checked.doubt, self._clock.monotonic_s())

    def words(self) -> Mapping[str, Word]:
        """The last word about each strategy, in the order of the first ones."""
        return self._words.copy()
