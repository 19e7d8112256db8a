"""The steps that read the engine: its last words with their age, and the alerts about wrong ones.

The last words stand, and age, while the engine is silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ....wire.alert import AlertDraft, Category, Level
from ..round import Effects, Round
from .step import READ_DEADLINE_S, Ports, Step, over

__all__ = ["LATE", "DoubtsStep", "EngineStep", "FeedsStep"]

LATE = "late:"  # and the part: the key of an alert that it is past its deadline
_STATUS, _FEED = "status:", "feed-status:"  # and whose status is wrong


class EngineStep(Step):
    """Asks the controller for its strategies and takes its last answer."""

    name: ClassVar[str] = "engine"
    deadline_s: ClassVar[float | None] = READ_DEADLINE_S

    async def run(self, tick: Round) -> Effects:
        """Read the engine; without an answer the last words stand."""
        host = self.ports.host
        host.ask()
        heard, problem = await host.hear(), host.problem
        return Effects(heard=heard, answered=problem is None, fault=problem)


class FeedsStep(Step):
    """Asks the controller for its feeds and takes its last answer."""

    name: ClassVar[str] = "feeds"
    deadline_s: ClassVar[float | None] = READ_DEADLINE_S

    async def run(self, tick: Round) -> Effects:
        """Read the feeds. Raises: `HostFault`; the last ones then stand."""
        self.ports.host.ask_feeds()
        return Effects(feeds=await self.ports.host.hear_feeds())


class DoubtsStep(Step):
    """Tells each status that is wrong and each part that is late."""

    name: ClassVar[str] = "doubts"
    deadline_s: ClassVar[float | None] = None

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports)
        # By dedup key, the problem that was told. What an earlier life told is remembered, so that
        # its end is told too.
        self._told = {key: "" for kind in (LATE, _STATUS, _FEED) for key in ports.told(kind)}

    async def run(self, tick: Round) -> Effects:
        """One WARNING for each wrong status and late part, and its end."""
        late = {f"{LATE}{part}": (part, text) for part, text in self.ports.host.late().items()}
        wrong = {**self._wrong(tick), **late}
        alerts = [
            _late(key, name, text) if key in late else _warning(key, name, text)
            for key, (name, text) in wrong.items()
            if self._told.get(key) != text
        ]
        # Before the engine's first word no status is known to be right.
        silent = [key for key in self._told if not key.startswith(LATE) and not tick.is_heard]
        alerts += [_over(key) for key in self._told if key not in wrong and key not in silent]
        kept = {key: self._told[key] for key in silent}
        self._told = kept | {key: text for key, (_, text) in wrong.items()}
        return Effects(alerts=tuple(alerts))

    def _wrong(self, tick: Round) -> Mapping[str, tuple[str, str]]:
        """The wrong statuses by key: whose it is, and the problem."""
        wrong = {f"{_STATUS}{name}": (name, text) for name, text in tick.heard.doubts.items()}
        for name, text in self.ports.host.feed_doubts.items():
            wrong[f"{_FEED}{name}"] = (f"feed {name}", text)
        return wrong


def _warning(key: str, name: str, text: str) -> AlertDraft:
    return AlertDraft(
        Level.WARNING, Category.GENERAL, f"{name}: its status is wrong", text, None, key
    )


def _late(key: str, part: str, text: str) -> AlertDraft:
    title = f"controller.{part} is past its deadline"
    more = f"it {text}, and is not called again before it comes back"
    return AlertDraft(Level.WARNING, Category.GENERAL, title, more, None, key)


def _over(key: str) -> AlertDraft:
    if key.startswith(LATE):
        return over(Category.GENERAL, f"controller.{key.removeprefix(LATE)} answers again", key)
    return over(Category.GENERAL, f"{key.partition(':')[2]}: its status is right again", key)
