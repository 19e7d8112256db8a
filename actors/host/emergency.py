"""The last way to stop an engine that does not react: `emergency_stop`, in its own thread.

It stops all real money and confirms nothing. A call that returned is not made again in the same
emergency; one that raised is.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from time import monotonic

from ...runtime import FOREIGN_ERRORS
from ...wire.foreign import fitted

__all__ = ["LOOP_TURN_S", "Emergency", "LoopWatch"]

log = logging.getLogger("fundops.host")

LOOP_TURN_S = 1.0  # an event loop that takes longer to turn does not react


class Emergency:
    """Calls `stop`, the controller's plain and thread-safe `emergency_stop`."""

    def __init__(self, stop: Callable[[], object]) -> None:
        self._stop = stop
        self._lock = threading.Lock()
        self._calling = False
        self._answered: Hashable = None  # the last emergency in which a call returned

    def call(self, emergency: Hashable, why: str) -> None:
        """Begin the call and return at once; callable from any thread.

        Nothing happens while a call is in flight, or when one has returned in this emergency.
        """
        with self._lock:
            if self._calling or self._answered == emergency:
                return
            self._calling = True
        # Logged by the thread: a handler that hangs must not hold up the stop.
        threading.Thread(
            target=self._call, args=(emergency, why), name="fundops-emergency-stop", daemon=True
        ).start()

    def _call(self, emergency: Hashable, why: str) -> None:
        try:
            self._stop()
        except FOREIGN_ERRORS as error:
            text = f"raised {type(error).__name__}: {fitted(error)}"
            answered = False
        else:
            text, answered = "was called", True
        with self._lock:
            self._calling = False
            if answered:
                self._answered = emergency
        log.critical("controller.emergency_stop %s, since the host does not react: %s", text, why)


class LoopWatch:
    """A thread that watches whether an event loop turns.

    `turn` asks the loop, from any thread, to call a function; it raises when the loop is closed.
    `stuck` is called, in that thread, each time that a turn takes longer than `LOOP_TURN_S`.
    """

    def __init__(
        self, turn: Callable[[Callable[[], None]], object], stuck: Callable[[], None]
    ) -> None:
        self._turn = turn
        self._stuck = stuck
        self.is_stuck = False  # the turn that is asked for has taken longer
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="fundops-loop-watch", daemon=True).start()

    def end(self) -> None:
        """End the watch, without waiting for it."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.is_set():
            turned = threading.Event()
            try:
                self._turn(turned.set)
            except RuntimeError:
                return  # the loop has ended, and the fund with it
            begun_s = monotonic()
            while not turned.wait(LOOP_TURN_S):
                if self._ended.is_set():
                    return
                waited_s, begun_s = monotonic() - begun_s, monotonic()
                # A process that was stopped wakes with this wait long over, and its loop is fine.
                if waited_s < 2 * LOOP_TURN_S:
                    self.is_stuck = True
                    self._stuck()
            self.is_stuck = False
            self._ended.wait(LOOP_TURN_S)
