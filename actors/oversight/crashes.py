"""Alerts about crashed actors of the fund, kept until they are committed.

The fund gives one `CrashWatch` the events of its supervisor. Oversight commits the alerts at once,
or at its next tick when it has crashed itself or storage refuses. They are lost in no crash,
because the watch outlives every actor.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...runtime import Crashed, Event, Replaced, Restarted
from ...wire.alert import AlertDraft, Category, Level, resolved

__all__ = ["CRASHED", "CrashWatch"]

CRASHED = "crashed:"  # dedup keys are this and the actor's name

# The actor that commits.
STORAGE = "persistence"

# Of the error's text; the log has all of it.
TEXT_MAX = 500


class CrashWatch:
    """The actors that crashed and do not run again yet, and the alerts that are not committed."""

    def __init__(self) -> None:
        self.drafts: list[AlertDraft] = []
        self._down: set[str] = set()

    def hear(self, event: Event) -> bool:
        """Take an event of the supervisor; True when alerts can be committed now."""
        if isinstance(event, Crashed):
            if event.name not in self._down:
                self._down.add(event.name)
                self.drafts.append(_crashed(event))
        elif isinstance(event, Restarted | Replaced) and event.name in self._down:
            self._down.discard(event.name)
            self.drafts.append(_runs_again(event.name))
        return bool(self.ready())

    def ready(self) -> tuple[AlertDraft, ...]:
        """The alerts to commit now, oldest first; none while storage is down.

        The supervisor of storage then ends oversight too, and a commit that waits for storage would
        only delay that end, by the whole grace time of oversight.
        """
        return () if STORAGE in self._down else tuple(self.drafts)

    def resolve(self, told: Iterable[str]) -> None:
        """Resolve keys that an earlier process left open, for actors that run now."""
        names = {key.removeprefix(CRASHED) for key in told}
        # A key may be open because of a crash of this process, whose end is still to come.
        waiting = {draft.dedup_key for draft in self.drafts}
        self.drafts += [
            _runs_again(name)
            for name in sorted(names - self._down)
            if CRASHED + name not in waiting
        ]

    def committed(self, drafts: int) -> None:
        """Forget so many of the oldest drafts."""
        del self.drafts[:drafts]


def _crashed(crash: Crashed) -> AlertDraft:
    text = f"life {crash.epoch} ended with {crash.error[:TEXT_MAX]}; its supervisor starts it again"
    return AlertDraft(
        Level.WARNING,
        Category.GENERAL,
        f"Actor {crash.name} crashed",
        text,
        None,
        CRASHED + crash.name,
    )


def _runs_again(name: str) -> AlertDraft:
    return resolved(Category.GENERAL, f"Actor {name} runs again", CRASHED + name)
