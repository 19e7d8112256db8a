"""Reports of tasks that do not end, with their stacks.

Nothing can end such a task from outside, so a person has to see where it is.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress

import trio

__all__ = ["Watchdog", "stack_of"]

log = logging.getLogger("fundops.runtime")


def stack_of(task: trio.lowlevel.Task) -> str:
    """The stack of a parked task, outermost frame first."""
    return "".join(traceback.StackSummary.extract(task.iter_await_frames()).format())


class Watchdog:
    """A thread that notices a task which holds the loop, as no task of that loop could.

    `running` gives the name of each actor, its task, and a mark that changes whenever the actor
    makes progress. A task that is found running with the same mark, while the loop does not answer
    for `after_s`, is logged at once. `report` is called with it as soon as the loop runs again.
    """

    def __init__(
        self,
        after_s: float,
        running: Callable[[], Iterable[tuple[str, trio.lowlevel.Task, object]]],
        report: Callable[[str, float, str], None],
    ) -> None:
        self._after_s = after_s
        self._running = running
        self._report = report
        self._over = threading.Event()
        self._answered = threading.Event()
        self._watched = threading.get_ident()
        self._token = trio.lowlevel.current_trio_token()
        threading.Thread(target=self._watch, name="fundops watchdog", daemon=True).start()

    def stop(self) -> None:
        """End the thread, soon."""
        self._over.set()

    def _watch(self) -> None:
        seen: tuple[str, object] | None = None
        since, told = 0.0, False
        # Two looks per `after_s`, so a report comes at most half of it late.
        while not self._over.wait(self._after_s / 2):
            now = self._busy()
            if now is None or now != seen or self._answered.is_set():
                seen, since, told = now, time.monotonic(), False
                self._knock()
            elif not told and time.monotonic() - since >= self._after_s:
                told = True
                self._tell(now[0], time.monotonic() - since)

    def _knock(self) -> None:
        """Ask the loop for an answer.

        A task that is running at every look may still let others run in between; then the loop
        answers.
        """
        self._answered.clear()
        if self._busy() is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._answered.set)

    def _busy(self) -> tuple[str, object] | None:
        """The actor whose task is running at this instant, with its mark."""
        for name, task, mark in self._running():
            # True for one task at most: the one that executes code at this instant.
            if task.coro.cr_running:
                return name, mark
        return None

    def _tell(self, name: str, for_s: float) -> None:
        # A running coroutine does not show its stack, and the thread that runs it does.
        frame = sys._current_frames().get(self._watched)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        log.critical(
            "actor %s has held the loop for %.1f s without yielding:\n%s", name, for_s, stack
        )
        # The log has it now; the record follows when the loop runs again, if it ever does.
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._report, name, for_s, stack)
