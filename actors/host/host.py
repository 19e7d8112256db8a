"""The host port: the words of the host behind one controller, with their age.

The tick asks for reports and never waits for an engine: it reads the last answer with its age. A
controller that raises, hangs or gives an invalid answer causes a `HostFault`, which names the call
and never stops the tick. The feeds, the reports to book, the statement, the acts and the stop of
all trading are objects of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from typing import Any

import trio

from ...runtime import Clock, SystemClock, VirtualClock, at_once, in_pieces
from ...wire.controller import (
    STALE_FEED_S,
    CanListCashEvents,
    CanListFills,
    CanListSettlements,
    CanStopInEmergency,
    StrategyStatus,
)
from ...wire.errors import HostFault
from ..guard.latch import KillLatch
from .acts import RESTART_DEADLINE_S, Acts
from .calls import Calls
from .feeds import Feeds
from .observe import ObserveMode
from .parts import FEATURES, lacks
from .places import InlinePlace, Place
from .questions import Asked
from .reports import BrokerStatement, Reports
from .stalls import Stalls
from .stopping import Stopping
from .tasks import Tasks
from .words import STRATEGIES_MAX, Heard, Pushed, Word, read_strategies

__all__ = ["Host"]

# Parts whose lateness recovery and the kill switch tell, each in an alert that says more.
_NAMED_ELSEWHERE = frozenset(("restart", "stop_all"))


class Host:
    """Wraps one controller. Its tasks run in `nursery`, so that no actor waits for them.

    `controller` None, or one without `strategies`: the host pushes its state into `pushed`. Beside
    one that has `strategies` no pushed status counts, and `unheard` names it.
    `place` is where the controller is called; None: on this loop.
    `latch` is read in the moment of acting. `tick_interval_s` None: the host drives the ticks.
    `restart_deadline_s` and `origin` are those of `Acts`, `stale_feed_s` that of `Feeds`.
    `observing`: no acting part is called. `watch_loop` False: no thread watches the host's loop, as
    in virtual time, where it may stand still.
    """

    def __init__(
        self,
        controller: object | None,
        nursery: trio.Nursery,
        *,
        clock: Clock | None = None,
        latch: KillLatch | None = None,
        pushed: Pushed | None = None,
        host_silent_s: float = 10.0,
        max_blind_s: float = 60.0,
        tick_interval_s: float | None = None,
        restart_deadline_s: float = RESTART_DEADLINE_S,
        origin: str = "",
        place: Place | None = None,
        observing: bool = False,
        stale_feed_s: float = STALE_FEED_S,
        watch_loop: bool = False,
    ) -> None:
        clock, latch, place = clock or SystemClock(), latch or KillLatch(), place or InlinePlace()
        tasks, observe = Tasks(nursery), ObserveMode(is_on=observing)
        calls = Calls(controller, place, tasks.start, clock, restart_deadline_s)
        turn = place.turn(trio.lowlevel.current_trio_token()) if watch_loop else None
        emergency_stop: Callable[[], object] | None = None
        if calls.can(CanStopInEmergency):
            emergency_stop = getattr(controller, "emergency_stop")  # noqa: B009
        self.acts = Acts(
            calls, tasks, latch, observe, restart_deadline_s=restart_deadline_s, origin=origin
        )
        self.stopping = Stopping(
            calls, tasks, latch, observe, emergency_stop=emergency_stop, turn=turn
        )
        self.feeds = Feeds(calls, pushed, stale_feed_s)
        self.fills = Reports("fills", CanListFills, calls)
        self.settlements = Reports("settlements", CanListSettlements, calls)
        self.cash_events = Reports("cash_events", CanListCashEvents, calls)
        self.statement = BrokerStatement(calls)
        self._controller = controller
        self._clock = clock
        self._tasks = tasks
        self._calls = calls
        self._pushed = pushed
        # None: the controller is asked for the strategies.
        self._pushed_statuses = None if hasattr(controller, "strategies") else pushed
        self._silent_after_s = max(host_silent_s, 3 * (tick_interval_s or 0.0))
        self._heartbeat_max_s = max(max_blind_s, host_silent_s)
        self._question = Asked("strategies", calls)
        self._words: Mapping[str, Word] = {}
        self._aside: Mapping[str, str] = {}
        self._heard_s = clock.monotonic_s()
        self._heard_us: int | None = None
        self._answers = 0  # of `strategies()` with a right status, since this life began
        self._stalls = Stalls(
            tick_interval_s, self._heard_s, is_virtual=isinstance(clock, VirtualClock)
        )

    # -- the port as a whole

    def missing(self) -> tuple[str, ...]:
        """The optional parts that this controller lacks, for the start-up log."""
        return tuple(filter(None, (lacks(self._controller, feature) for feature in FEATURES)))

    def can(self, part: type) -> bool:
        """Whether the controller has this optional part, one of the `Can...` Protocols."""
        return self._calls.can(part)

    def late(self) -> Mapping[str, str]:
        """The parts that are past their deadline and have not answered since, and how.

        Recovery names a restart that is late, and the kill switch a stop.
        """
        late = self._calls.late()
        return {part: text for part, text in late.items() if part not in _NAMED_ELSEWHERE}

    async def settle(self) -> None:
        """Let quick answers come in, so that they belong to the tick that asked for them."""
        await self._calls.settle()

    def spawn(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Run a coroutine function that handles its own errors beside the actors."""
        self._tasks.start(function, *arguments)

    # -- the words about strategies

    def ask(self) -> None:
        """Ask for the strategies, once a tick. A plain controller has answered on return."""
        self._stalls.tick(self._clock.monotonic_s())
        if self._pushed_statuses is None:
            self._question.ask()

    async def hear(self) -> Heard:
        """As `heard`, with a quick answer to this tick's question; a long one is read in pieces."""
        await self._calls.settle()
        return await in_pieces(self._hearing())

    def heard(self) -> Heard:
        """The last good words, with their age. Silence is measured without our own stalls."""
        return at_once(self._hearing())

    def _hearing(self) -> Generator[None, None, Heard]:
        if self._pushed_statuses is None:
            yield from self._reading()
        else:
            self._words = dict(self._pushed_statuses.words())
        words, aside = self._words, self._aside
        heard_s, heard_us = self._heard_s, self._heard_us
        now_s, now_us = self._clock.monotonic_s(), self._clock.now_us()
        statuses: list[StrategyStatus] = []
        doubts: dict[str, str] = {}
        lapsed: dict[str, str] = {}
        newest_s, said_s = math.inf, -math.inf  # age of the newest word; when one was said last
        for name, (status, doubt, at_s) in words.items():
            yield
            statuses.append(status)
            if doubt:
                doubts[name] = doubt
            newest_s = min(newest_s, self._word_age_s(at_s, status.at_us, now_s, now_us))
            said_s = max(said_s, at_s)
            if status.heartbeat_us is not None and status.state == "running":
                beat_s = (now_us - status.heartbeat_us) / 1_000_000
                if beat_s > self._heartbeat_max_s:
                    lapsed[name] = f"its last heartbeat is {beat_s:.0f} s old"
        doubts |= aside
        spoken = None if self._pushed is None else self._pushed.spoken()
        if spoken is not None:
            newest_s = min(newest_s, self._word_age_s(*spoken, now_s, now_us))
            said_s = max(said_s, spoken[0])
        if said_s < heard_s:  # an answer without a right status is a word of the host, too
            newest_s = min(newest_s, self._stalls.age_s(heard_s, now_s))
        silent = newest_s > self._silent_after_s or self._question.is_late
        found, listed = tuple(statuses), heard_us is not None
        said = self._answers if self._pushed_statuses is None else self._pushed_statuses.said
        return Heard(found, doubts, lapsed | doubts, newest_s, silent, heard_us, listed, said)

    def _word_age_s(self, at_s: float, at_us: int | None, now_s: float, now_us: int) -> float:
        """By the monotonic clock, and by the host's own instant if that makes the word older."""
        age_s = self._stalls.age_s(at_s, now_s)
        return age_s if at_us is None else max(age_s, (now_us - at_us) / 1_000_000)

    def pulse(self) -> None:
        """A second has passed."""
        self._stalls.pulse(self._clock.monotonic_s())

    async def strategies(self) -> tuple[StrategyStatus, ...]:
        """The last good statuses, after asking once more, with unique names.

        A quick answer is waited for. Raises: `HostFault` when the controller did not answer.
        """
        self.ask()
        return await self._last_strategies()

    async def strategies_now(self) -> tuple[StrategyStatus, ...]:
        """As `strategies`, after waiting for the answer. Raises: `HostFault`."""
        self.ask()
        await self._question.wait()
        return await self._last_strategies()

    async def _last_strategies(self) -> tuple[StrategyStatus, ...]:
        statuses = (await self.hear()).statuses
        problem = self.problem
        if problem is not None:
            raise problem
        return statuses

    @property
    def problem(self) -> HostFault | None:
        """Why the last question for the strategies has no answer; None: it has."""
        return None if self._pushed_statuses is not None else self._question.problem

    def _reading(self) -> Generator[None, None, None]:
        """Take the answer that has come in, if one has; the last words stand until it is read."""
        ended = self._question.take()
        if ended is None:
            return
        answer = ended.answer()
        if len(answer) > STRATEGIES_MAX:
            self._question.problem = HostFault(
                "strategies", f"{len(answer)} strategies; at most {STRATEGIES_MAX} are managed"
            )
            return
        heard_s, heard_us = ended.ended_s, ended.ended_us
        words, aside = yield from read_strategies(answer, self._words, heard_s, heard_us)
        if self._question.taken is ended:  # else a newer answer was read between two pieces
            self._words, self._aside = words, aside
            self._heard_s, self._heard_us = heard_s, heard_us
            self._answers += len(aside) < len(answer)

    def names(self) -> tuple[str, ...]:
        """The strategies of the last words, however old."""
        words = self._words if self._pushed_statuses is None else self._pushed_statuses.words()
        return tuple(words)

    @property
    def has_spoken(self) -> bool:
        """Whether the engine has named its strategies in this life, be it none."""
        return self._heard_us is not None or bool(self.names())

    @property
    def unheard(self) -> str:
        """The first strategy whose status is pushed although the controller is asked; "": none."""
        if self._pushed_statuses is not None or self._pushed is None:
            return ""
        return next(iter(self._pushed.words()), "")
