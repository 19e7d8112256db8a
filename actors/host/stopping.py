"""Stopping all trading: `stop_all`, and `emergency_stop` for a host that does not react.

`stop_all` runs as a task and tells its end by a message, so nothing waits for the engine. It is
never called twice at once; a call that is past its deadline is left behind.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from ...runtime import ConfigError
from ...wire import border
from ...wire.controller import KillAction, StopReport
from ...wire.errors import HostFault
from ...wire.guard import StopEnded
from ..guard.latch import KillLatch
from .calls import STOP_ALL_DEADLINE_S, Call, Calls, tell_end
from .emergency import LOOP_TURN_S, Emergency, LoopWatch
from .observe import ObserveMode
from .places import Turn
from .tasks import Tasks

__all__ = ["Stopping"]

_STUCK_LOOP = f"its event loop has not turned for {LOOP_TURN_S:g} s"

TellStop = Callable[[StopEnded], None]


class Stopping:
    """Stops all strategies in scope, at the word of the guard.

    `emergency_stop` is the controller's, None: it has none. `turn` reaches the host's loop, which a
    thread watches under the kill switch; None: none watches.
    """

    def __init__(
        self,
        calls: Calls,
        tasks: Tasks,
        latch: KillLatch,
        observe: ObserveMode,
        *,
        emergency_stop: Callable[[], object] | None,
        turn: Turn | None,
    ) -> None:
        self._calls = calls
        self._tasks = tasks
        self._latch = latch
        self._observe = observe
        self._in_flight = False  # a call of stop_all, in time
        self._ended = trio.Event()
        self._emergency = None if emergency_stop is None else Emergency(emergency_stop)
        self._reactions = 0  # counts the looks at which the host reacted: each ends an emergency
        self._silence = ""  # as of the guard's last look
        self._turn = turn
        self._loop_watch: LoopWatch | None = None

    # -- stop_all

    def start_stop_all(
        self, reason: str, action: KillAction, strategies: tuple[str, ...], tell: TellStop
    ) -> bool:
        """Begin to stop these strategies and return at once; `tell` gets the end of the call.

        False: the call before has not ended, so none was begun. One that is past its deadline is
        left behind, up to four.
        """
        if self._observe.withholds("stop_all", reason, action, strategies):
            return False
        if self._in_flight or not self._calls.can_begin("stop_all"):
            return False
        self._in_flight = True
        self._tasks.start(self._stop_all, reason, action, strategies, tell, name="stop_all")
        return True

    async def _stop_all(
        self, reason: str, action: KillAction, strategies: tuple[str, ...], tell: TellStop
    ) -> None:
        engagement = self._latch.engagements
        call: Call | None = None
        try:
            call = self._calls.begin("stop_all", reason, action, strategies)
            report, problem = _stopped(await call.in_time())
        except HostFault as fault:
            report, problem = None, str(fault)
        finally:
            self._in_flight = False
            ended, self._ended = self._ended, trio.Event()
            ended.set()
        tell_end(tell, StopEnded(action, report, problem, engagement, strategies))
        if call is not None and not call.is_ended:
            # Late, and told so. Its report still counts when it comes; a failure is no news.
            await call.wait()
            with suppress(HostFault):
                report, problem = _stopped(call.answer())
                if report is not None:
                    tell_end(tell, StopEnded(action, report, problem, engagement, strategies))

    async def finish(self) -> None:
        """Wait for a `stop_all` in flight, at most for its deadline, also when cancelled."""
        self._end_loop_watch()
        with trio.move_on_after(STOP_ALL_DEADLINE_S + 1, shield=True):
            while self._in_flight:
                await self._ended.wait()

    # -- emergency_stop

    def watch(self) -> None:
        """Call `emergency_stop` when the host does not react.

        To be called when the kill switch engages or is released, and each second.
        """
        problem = self._problem()
        if problem:
            self._call_emergency(problem)
        else:
            self._reactions += 1

    def note_silence(self, why: str) -> None:
        """The host is silent for too long with real money live, and how long; "": it is not.

        It calls `emergency_stop` without the kill switch, too.
        """
        self._silence = why
        self.watch()

    def _problem(self) -> str:
        """How the host does not react; "": it does.

        Under the kill switch it does not while a call is past its deadline, or its event loop does
        not turn, which a thread watches.
        """
        if not self._latch.engaged or self._emergency is None or self._observe.is_on:
            self._end_loop_watch()
            return self._silence
        if self._turn is not None and self._loop_watch is None:
            self._loop_watch = LoopWatch(self._turn, self._on_stuck_loop)
        late = (f"controller.{part} {problem}" for part, problem in self._calls.late().items())
        return next(late, "") or self._silence or (_STUCK_LOOP if self._is_loop_stuck else "")

    @property
    def _is_loop_stuck(self) -> bool:
        return self._loop_watch is not None and self._loop_watch.is_stuck

    def _on_stuck_loop(self) -> None:
        # Called by the thread: no second passes here when the stuck loop is the fund's own.
        self._call_emergency(_STUCK_LOOP)

    def _call_emergency(self, why: str) -> None:
        if self._latch.frozen:
            return  # a person's word that the engine must touch nothing
        if self._emergency is not None and not self._observe.withholds("emergency_stop"):
            self._emergency.call((self._latch.engagements, self._reactions), why)

    def _end_loop_watch(self) -> None:
        if self._loop_watch is not None:
            self._loop_watch.end()
            self._loop_watch = None


def _stopped(answer: object) -> tuple[StopReport | None, str]:
    """The report of a `stop_all`, else the reason why its answer is none."""
    try:
        return border.stop_report(answer), ""
    except ConfigError as wrong:
        return None, f"controller.stop_all: {wrong}"
