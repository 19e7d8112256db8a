"""The controller of a host that pushes its state: it answers with the last report."""

from __future__ import annotations

from fundops.runtime import ConfigError
from fundops.wire.controller import StrategyStatus

__all__ = ["Reported"]


class Reported:
    """The last status of each strategy, written from any thread and read by the tick."""

    def __init__(self) -> None:
        self._statuses: dict[str, StrategyStatus] = {}

    def report(self, status: StrategyStatus) -> None:
        """Keep the status in place of an older one. Raises: `ConfigError` for another type."""
        if not isinstance(status, StrategyStatus):
            raise ConfigError("status", f"a {type(status).__name__} is not a StrategyStatus")
        self._statuses[status.name] = status

    def strategies(self) -> tuple[StrategyStatus, ...]:
        """The last status of each strategy, in the order of their first reports."""
        return tuple(self._statuses.values())
