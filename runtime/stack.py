"""Stacks for people: of an error that crashed an actor, and of a task that does not end.

Nothing can end such a task from outside, so a person has to see where it is.
"""

from __future__ import annotations

import linecache
import logging
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache

import trio

from .errors import encodable, text_of

__all__ = ["TRACEBACK_BYTES", "Watchdog", "stack_of", "traceback_of"]

# The end of a traceback says most: it holds the error and the frames next to it.
TRACEBACK_BYTES = 16 * 1024
# Of one error, innermost; more do not fit into the bytes.
FRAMES_MAX = 256
# Errors that led to one another; the chain could be a ring.
CHAIN_MAX = 16

log = logging.getLogger("fundops.runtime")


def stack_of(task: trio.lowlevel.Task) -> str:
    """The stack of a parked task, outermost frame first."""
    return "".join(traceback.StackSummary.extract(task.iter_await_frames()).format())


def traceback_of(error: BaseException) -> str:
    """The traceback of an error with its causes, as text; the last 16 KiB of a longer one.

    It never raises, even when the error's own text cannot be told.
    """
    try:
        text = encodable("".join(_traceback(error)))
    except Exception:  # noqa: BLE001  the error of a host may raise anything when it is shown
        text = "".join(_frames(error)) + text_of(error)
    if len(text) <= TRACEBACK_BYTES // 4:
        return text  # no text of this length has more bytes
    return text.encode()[-TRACEBACK_BYTES:].decode(errors="ignore")


def _traceback(error: BaseException) -> Iterator[str]:
    """The parts of the text that Python prints, without the marks under a part of a line.

    To find those marks costs more than the whole restart of an actor.
    """
    chain = [error]
    if isinstance(error, BaseExceptionGroup):
        # A group is a tree of errors, which is rare enough for the slow way.
        yield from traceback.format_exception(error)
        return
    links: list[str] = []
    while len(chain) < CHAIN_MAX:
        cause, context = chain[-1].__cause__, chain[-1].__context__
        if cause is not None:
            earlier, link = cause, "\nwhich was the direct cause of:\n\n"
        elif context is not None and not chain[-1].__suppress_context__:
            earlier, link = context, "\nduring whose handling there was:\n\n"
        else:
            break
        chain.append(earlier)
        links.append(link)
    for earlier, link in zip(reversed(chain), [*reversed(links), ""], strict=True):
        yield "Traceback (most recent call last):\n"
        yield from _frames(earlier)
        yield from traceback.format_exception_only(earlier)
        yield link


def _frames(error: BaseException) -> list[str]:
    """The lines of the last frames of an error, outermost first."""
    lines: deque[str] = deque(maxlen=FRAMES_MAX)
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        lines.append(_frame_text(code.co_filename, step.tb_lineno, code.co_name))
        step = step.tb_next
    return list(lines)


@lru_cache(maxsize=1024)
def _frame_text(file: str, line: int, name: str) -> str:
    source = linecache.getline(file, line).strip()
    place = f'  File "{file}", line {line}, in {name}\n'
    return f"{place}    {source}\n" if source else place


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
