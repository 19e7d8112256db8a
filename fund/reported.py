"""The controller of a host that pushes: it answers with what was last reported."""

from __future__ import annotations

from fundops.runtime import ConfigError
from fundops.wire.controller import StrategyStatus

__all__ = ["Reported"]


class Reported:
    """Written from any thread, read by the tick. At most one status per name is kept."""

    def __init__(self) -> None:
        self._statuses: dict[str, StrategyStatus] = {}

    def report(self, status: StrategyStatus) -> None:
        """Raises: `ConfigError` for anything that is not a StrategyStatus."""
        if not isinstance(status, StrategyStatus):
            raise ConfigError("status", f"a {type(status).__name__} is not a StrategyStatus")
        self._statuses[status.name] = status

    def strategies(self) -> tuple[StrategyStatus, ...]:
        return tuple(self._statuses.values())
