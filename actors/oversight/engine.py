"""The step that reads the engine: its last words, their age, and the alerts about wrong ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...wire.alert import AlertDraft, Category, Level
from ...wire.controller import FeedStatus, StrategyStatus
from ..host import Heard, Host

__all__ = ["LATE", "Engine"]

LATE = "late:"  # and the part: the key of an alert that it is past its deadline


class Engine:
    """The last words of the engine. They stand, and age, while it is silent."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.heard: Heard = host.heard()
        self.feeds: tuple[FeedStatus, ...] = ()
        self._told: dict[str, str] = {}  # by dedup key, the problem that was told

    @property
    def statuses(self) -> tuple[StrategyStatus, ...]:
        """The last good status of each strategy."""
        return self.heard.statuses

    @property
    def blind_s(self) -> float:
        """The age of the host's last word while it is silent, else 0."""
        return max(1e-6, self.heard.age_s) if self.heard.silent else 0.0

    async def read(self) -> None:
        """Ask the controller and take its last answer.

        Raises: `HostFault`; the last words then stand.
        """
        self._host.ask()
        await self._host.settle()
        self.heard = self._host.heard()
        problem = self._host.problem
        if problem is not None:
            raise problem

    async def read_feeds(self) -> None:
        """As `read`, for the feeds."""
        self._host.ask_feeds()
        await self._host.settle()
        self.feeds = self._host.feeds_heard()

    def recall(self, told: Iterable[str]) -> None:
        """Keys of late parts that an earlier life told of, so that the end of it is told too."""
        self._told |= dict.fromkeys(told, "")

    def alerts(self) -> list[AlertDraft]:
        """One WARNING for each status that is wrong and each part that is late, and its end."""
        late = {f"{LATE}{part}": (part, text) for part, text in self._host.late().items()}
        wrong = {f"status:{name}": (name, text) for name, text in self.heard.doubts.items()}
        for name, text in self._host.feed_doubts.items():
            wrong[f"feed-status:{name}"] = (f"feed {name}", text)
        wrong |= late
        alerts = [
            _late(key, name, text) if key in late else _warning(key, name, text)
            for key, (name, text) in wrong.items()
            if self._told.get(key) != text
        ]
        alerts += [_over(key) for key in self._told if key not in wrong]
        self._told = {key: text for key, (_, text) in wrong.items()}
        return alerts

    def lapsed(self) -> Mapping[str, str]:
        """The strategies that get no lease now, and why."""
        return self.heard.lapsed


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
        title = f"controller.{key.removeprefix(LATE)} answers again"
        return AlertDraft(Level.INFO, Category.GENERAL, title, "", None, key, resolves=True)
    title = f"{key.partition(':')[2]}: its status is right again"
    return AlertDraft(Level.INFO, Category.GENERAL, title, "", None, key, resolves=True)
