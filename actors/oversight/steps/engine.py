"""The steps that read the engine: its last words with their age, and the alerts about wrong ones.

The last words stand, and age, while the engine is silent.
"""

from __future__ import annotations

import logging
from typing import ClassVar

from ....wire.alert import AlertDraft, Category, Level, resolved
from ..round import Effects, Round
from .step import READ_DEADLINE_S, Ports, Step

__all__ = ["LATE", "DoubtsStep", "EngineStep", "FeedsStep"]

log = logging.getLogger("fundops.oversight")

# The kinds of dedup keys, each followed by the name of a part, a strategy or a feed.
LATE = "late:"
_FAILS = "fails:"  # a part that no step waits for
_UNHEARD = "unheard:"  # a call of the host that counts for nothing
_STATUS, _FEED = "status:", "feed-status:"
# The titles of the alert and of its end.
_TITLES = {
    LATE: ("controller.{} is past its deadline", "controller.{} answers again"),
    _FAILS: ("controller.{} fails", "controller.{} works again"),
    _UNHEARD: ("{} counts for nothing", "{} is no longer called for nothing"),
    _STATUS: ("{}: its status is wrong", "{}: its status is right again"),
    _FEED: ("feed {}: its status is wrong", "feed {}: its status is right again"),
}


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
        self.ports.host.feeds.ask()
        return Effects(feeds=await self.ports.host.feeds.hear())


class DoubtsStep(Step):
    """Tells each status that is wrong or not heard, and each part that is late."""

    name: ClassVar[str] = "doubts"
    deadline_s: ClassVar[float | None] = None

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports)
        # By dedup key, the problem that was told. Problems that an earlier life told are
        # remembered, so that their ends are told too.
        self._told = {key: "" for kind in _TITLES for key in ports.told(kind)}

    async def run(self, tick: Round) -> Effects:
        """One WARNING for each status and each part in doubt, also in the log, and its end."""
        wrong = self._wrong(tick)
        alerts = [
            AlertDraft(Level.WARNING, Category.GENERAL, _title(key), text, None, key)
            for key, text in wrong.items()
            if self._told.get(key) != text
        ]
        for alert in alerts:
            log.warning("%s: %s", alert.title, alert.message)
        # Before the engine's first word no status is known to be right.
        of_status = (_STATUS, _FEED)
        silent = [key for key in self._told if key.startswith(of_status) and not tick.is_heard]
        alerts += [
            resolved(Category.GENERAL, _title(key, is_end=True), key)
            for key in self._told
            if key not in wrong and key not in silent
        ]
        self._told = {key: self._told[key] for key in silent} | wrong
        return Effects(alerts=tuple(alerts))

    def _wrong(self, tick: Round) -> dict[str, str]:
        """The problem of each wrong status, and of each part that is late or fails, by key."""
        host = self.ports.host
        wrong = {f"{_STATUS}{name}": text for name, text in tick.heard.doubts.items()}
        wrong |= {f"{_FEED}{name}": text for name, text in host.feeds.doubts.items()}
        wrong |= {
            f"{LATE}{part}": f"it {text}, and is not called again before it comes back"
            for part, text in host.late().items()
        }
        wrong |= {f"{_FAILS}{part}": f"it {text}" for part, text in host.acts.failing().items()}
        if host.unheard:
            wrong[f"{_UNHEARD}fund.report"] = (
                f"{host.unheard} is pushed, and the controller has strategies(), which alone is"
                " asked: use one of the two"
            )
        return wrong


def _title(key: str, *, is_end: bool = False) -> str:
    kind, _, name = key.partition(":")
    return _TITLES[f"{kind}:"][is_end].format(name)
