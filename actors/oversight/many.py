"""Many strategies that fail at once: one alert that names them. Pure; seconds are monotonic."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...runtime import ConfigError, shown
from ...wire.aftermath import listed
from ...wire.alert import AlertDraft, Category, Level, resolved
from ...wire.controller import StrategyStatus

__all__ = ["MANY", "AtOnce", "ManyWatch", "limit_of"]

MANY = "failed:many"  # dedup key
WITHIN_S = 30.0

_RULE = re.compile(r"max\((\d{1,6}), (\d{1,3}(?:\.\d{1,6})?)%\)")


class AtOnce(NamedTuple):
    """The number of failures that are many: a number, or a share of all strategies if larger."""

    least: int
    percent: float

    def of(self, strategies: int) -> int:
        """Of so many strategies that are pending, running or failed."""
        return max(self.least, math.ceil(round(strategies * self.percent / 100, 9)))


def limit_of(setting: str | int | None) -> AtOnce | None:
    """The rule of `max_failed_strategies`; None: it is off. Raises: `ConfigError`."""
    if setting is None:
        return None
    if isinstance(setting, int):
        return AtOnce(setting, 0.0)
    found = _RULE.fullmatch(setting)
    if found is None or int(found[1]) < 1 or float(found[2]) > 100:
        raise ConfigError(
            "max_failed_strategies",
            f"{shown(setting)} is neither a number nor of the form 'max(3, 5%)'",
        )
    return AtOnce(int(found[1]), float(found[2]))


class ManyWatch:
    """The strategies that have failed, and since when.

    `told`: the alert of an earlier life is open. Of a strategy that was failed when this life
    began no instant is known, so it is no news.
    """

    def __init__(self, rule: AtOnce | None, *, told: bool) -> None:
        self._rule = rule
        self._told = told
        self._named: frozenset[str] = frozenset()
        self._failed_s: Mapping[str, float] | None = None  # None: no look yet

    @property
    def named(self) -> frozenset[str]:
        """The strategies that the open alert names; they need none of their own."""
        return self._named

    def look(self, statuses: Sequence[StrategyStatus], now_s: float) -> list[AlertDraft]:
        """The alert when many have failed at once; its end when none of those is failed."""
        failed = {status.name for status in statuses if status.state == "failed"}
        before = dict.fromkeys(failed, -math.inf) if self._failed_s is None else self._failed_s
        self._failed_s = {name: before.get(name, now_s) for name in sorted(failed)}
        if self._told:
            return self._ended(failed)
        recent = [name for name, at_s in self._failed_s.items() if now_s - at_s <= WITHIN_S]
        active = sum(status.state in ("pending", "running", "failed") for status in statuses)
        if self._rule is None or len(recent) < self._rule.of(active):
            return []
        self._told, self._named = True, frozenset(recent)
        text = f"{len(recent):,} of {active:,} within {WITHIN_S:g} s: {listed(recent)}"
        title = "Many strategies have failed at once"
        return [AlertDraft(Level.CRITICAL, Category.STRATEGY_FAILURE, title, text, None, MANY)]

    def _ended(self, failed: set[str]) -> list[AlertDraft]:
        # Of an alert of an earlier life the names are not known.
        if failed & self._named if self._named else failed:
            return []
        self._told, self._named = False, frozenset()
        title = "None of the strategies that failed at once is failed"
        return [resolved(Category.STRATEGY_FAILURE, title, MANY)]
