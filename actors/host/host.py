"""The host port: asks and instructs one controller, and knows the age of its words.

One class in one file: its questions, acts and stops share the controller and the ages of its words.

The tick asks for reports and never waits for an engine: it reads the last answer with its age.
Restarts and stops run as separate tasks and report their end as a message, so no safety act waits
for a question. A controller that raises, hangs or gives an invalid answer causes a `HostFault`,
which names the call and never stops the tick. Within an answer each item stands alone: one that is
wrong is set aside by name, and the others count.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Generator, Hashable, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from decimal import Decimal
from typing import Any

import trio
from msgspec import UNSET

from ...runtime import (
    ActorError,
    Clock,
    ConfigError,
    SystemClock,
    VirtualClock,
    at_once,
    in_pieces,
    run_undisturbed,
    shown,
)
from ...wire import border
from ...wire.border_reports import Problem, checked_statement
from ...wire.controller import (
    STALE_FEED_S,
    CanGiveStatement,
    CanKeepAlive,
    CanListCashEvents,
    CanListFeeds,
    CanListFills,
    CanListSettlements,
    CanPause,
    CanRestart,
    CanSetStage,
    CanStopInEmergency,
    CashEvent,
    FeedStatus,
    Fill,
    KillAction,
    Settlement,
    StopReport,
    StrategyStatus,
)
from ...wire.errors import HostFault, HostLate, NotRetryable
from ...wire.foreign import fitted
from ...wire.guard import StopEnded, Withheld
from ...wire.ledger import Statement
from ...wire.recovery import AttemptEnded, AttemptLate
from ..guard.latch import KillLatch
from .calls import CALL_DEADLINE_S, STOP_ALL_DEADLINE_S, Call, Calls
from .emergency import LOOP_TURN_S, Emergency, LoopWatch
from .parts import FEATURES, lacks
from .places import InlinePlace, Place
from .questions import Asked, Listed, Reports
from .stalls import Stalls
from .words import STRATEGIES_MAX, Heard, Pushed, Word, read_feeds, read_strategies

__all__ = [
    "RESTART_DEADLINE_S",
    "Host",
]

log = logging.getLogger("fundops.host")

RESTART_DEADLINE_S = 30.0  # then the restart is reported late; it is not cancelled

# Parts whose lateness recovery and the kill switch tell, each in an alert that says more.
_NAMED_ELSEWHERE = frozenset(("restart", "stop_all"))


class Host:
    """Wraps one controller. Restarts and stops run in `nursery`, so that no actor waits for them.

    `controller` None, or one without `strategies`: the host pushes its state into `pushed`. Beside
    one that has `strategies` no pushed status counts, and `unheard` names it.
    `place` is where the controller is called; None: on this loop.
    `latch` is read in the moment of acting. `tick_interval_s` None: the host drives the ticks. A
    restart is reported late after `restart_deadline_s`, and goes on. `origin` precedes the ids of
    restart attempts, since the engine may serve several funds, or this one after a fresh start.
    `observing`: no acting part is called. `stale_feed_s` is the limit of a feed without its own.
    `watch_loop` False: no thread watches the host's loop, as in virtual time, where it may stand
    still.
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
        self.observing = observing
        self._controller = controller
        self._nursery = nursery
        self._restart_deadline_s = restart_deadline_s
        self._origin = origin
        # That of the host: the handler that begins a task does not ask the task's questions.
        self._context = copy_context()
        self._clock = clock or SystemClock()
        self._place = place or InlinePlace()
        self._calls = Calls(controller, self._place, self._start, self._clock, restart_deadline_s)
        self.latch = latch or KillLatch()
        self._pushed_feeds = pushed
        self._stale_feed_s = stale_feed_s
        self._emergency: Emergency | None = None
        if self._calls.can(CanStopInEmergency):
            stop: Callable[[], object] = getattr(controller, "emergency_stop")  # noqa: B009
            self._emergency = Emergency(stop)
        self._reacts = True  # no call was late at the last look under the kill switch
        self._emergencies = 0  # counts the times that the host ceased to react
        own = trio.lowlevel.current_trio_token()
        self._turn = self._place.turn(own) if watch_loop else None
        self._loop_watch: LoopWatch | None = None
        self._alive: Call | None = None  # the last call of keep_alive
        self._withheld: dict[tuple[str, str], Withheld] = {}  # not taken yet
        self._told_withheld: set[str] = set()
        self._pushed = pushed if not hasattr(controller, "strategies") else None
        self._silent_after_s = max(host_silent_s, 3 * (tick_interval_s or 0.0))
        self._heartbeat_max_s = max(max_blind_s, host_silent_s)
        self._in_flight = 0
        self._idle = trio.Event()
        self._stopping = False
        self._stopped = trio.Event()
        self._stopping_names: set[str] = set()
        self._strategies = Listed("strategies", self._calls)
        self._feeds = Listed("feeds", self._calls)
        self._statement = Asked("statement", self._calls)
        self._reports = {
            part: Reports(part, self._calls) for part in ("fills", "settlements", "cash_events")
        }
        self._words: Mapping[str, Word] = {}
        self._aside: Mapping[str, str] = {}
        self._feed_words: Mapping[str, FeedStatus] = {}
        self.feed_doubts: Mapping[str, str] = {}
        self._heard_s = self._clock.monotonic_s()
        self._stalls = Stalls(
            tick_interval_s,
            self._heard_s,
            is_virtual=isinstance(self._clock, VirtualClock),
        )
        self._heard_us: int | None = None
        self._answers = 0  # of `strategies()` with a right status, since this life began

    def _start(self, function: Callable[..., Any], *arguments: Any, name: str) -> None:
        """Run a coroutine function as a task beside the actors."""

        def begin() -> None:
            self._nursery.start_soon(run_undisturbed, function, *arguments, name=name)

        self._context.copy().run(begin)

    @property
    def unheard(self) -> str:
        """The first strategy whose status is pushed although the controller is asked; "": none."""
        if self._pushed is not None or self._pushed_feeds is None:
            return ""
        return next(iter(self._pushed_feeds.words()), "")

    def missing(self) -> tuple[str, ...]:
        """The optional parts that this controller lacks, for the start-up log."""
        return tuple(filter(None, (lacks(self._controller, feature) for feature in FEATURES)))

    def can(self, part: type) -> bool:
        """Whether the controller has this optional part, one of the `Can...` Protocols."""
        return self._calls.can(part)

    # -- reports

    def ask(self) -> None:
        """Ask for the strategies, once a tick. A plain controller has answered on return."""
        self._stalls.tick(self._clock.monotonic_s())
        if self._pushed is None:
            self._strategies.ask()

    async def hear(self) -> Heard:
        """As `heard`, with a quick answer to this tick's question; a long one is read in pieces."""
        await self.settle()
        return await in_pieces(self._hearing())

    async def settle(self) -> None:
        """See `Calls.settle`."""
        await self._calls.settle()

    def heard(self) -> Heard:
        """The last good words, with their age. Silence is measured without our own stalls."""
        return at_once(self._hearing())

    def _hearing(self) -> Generator[None, None, Heard]:
        if self._pushed is None:
            yield from self._reading()
        else:
            self._words = dict(self._pushed.words())
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
        spoken = None if self._pushed_feeds is None else self._pushed_feeds.spoken()
        if spoken is not None:
            newest_s = min(newest_s, self._word_age_s(*spoken, now_s, now_us))
            said_s = max(said_s, spoken[0])
        if said_s < heard_s:  # an answer without a right status is a word of the host, too
            newest_s = min(newest_s, self._stalls.age_s(heard_s, now_s))
        silent = newest_s > self._silent_after_s or self._strategies.is_late
        found, listed = tuple(statuses), heard_us is not None
        said = self._answers if self._pushed is None else self._pushed.said
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
        await self._strategies.wait()
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
        return None if self._pushed is not None else self._strategies.problem

    def _reading(self) -> Generator[None, None, None]:
        """Take the answer that has come in, if one has; the last words stand until it is read."""
        ended = self._strategies.take()
        if ended is None:
            return
        answer = ended.answer()
        if len(answer) > STRATEGIES_MAX:
            self._strategies.problem = HostFault(
                "strategies", f"{len(answer)} strategies; at most {STRATEGIES_MAX} are managed"
            )
            return
        heard_s, heard_us = ended.ended_s, ended.ended_us
        words, aside = yield from read_strategies(answer, self._words, heard_s, heard_us)
        if self._strategies.taken is ended:  # else a newer answer was read between two pieces
            self._words, self._aside = words, aside
            self._heard_s, self._heard_us = heard_s, heard_us
            self._answers += len(aside) < len(answer)

    def ask_feeds(self) -> None:
        """Ask for the feeds, once a tick; nothing without that part."""
        if self.can(CanListFeeds):
            self._feeds.ask()

    async def hear_feeds(self) -> tuple[FeedStatus, ...]:
        """The last good status of each feed, asked for or pushed, read in pieces.

        A feed with a wrong status is named in `feed_doubts`, and its last good one stands.

        Raises: `HostFault` when the last question has no answer.
        """
        await self.settle()
        await in_pieces(self._reading_feeds())
        problem = self._feeds.problem
        if problem is not None:
            raise problem
        words = dict(self._feed_words)
        if self._pushed_feeds is not None:
            words |= self._pushed_feeds.feeds()
        return tuple(self._with_threshold(feed) for feed in words.values())

    def _reading_feeds(self) -> Generator[None, None, None]:
        """As `_reading`, for the feeds."""
        ended = self._feeds.take()
        if ended is None:
            return
        words, doubts = yield from read_feeds(ended.answer(), self._feed_words)
        if self._feeds.taken is ended:
            self._feed_words, self.feed_doubts = words, doubts

    def _with_threshold(self, feed: FeedStatus) -> FeedStatus:
        if feed.stale_after_s is not UNSET:
            return feed
        return FeedStatus(feed.name, feed.last_data_us, self._stale_feed_s)

    async def feeds_now(self) -> tuple[FeedStatus, ...]:
        """As `hear_feeds`, after asking and waiting for the answer. Raises: `HostFault`."""
        self.ask_feeds()
        await self._feeds.wait()
        return await self.hear_feeds()

    def fills(self, after: str) -> Sequence[Fill] | None:
        """The fills after this cursor, oldest first; empty without that part.

        None: the answer is awaited, and a later call with the same cursor gives it. The items of
        this answer and of the next two are as the engine gave them: the ledger checks each by
        itself. Raises: `HostFault`.
        """
        return self._reports["fills"].read(after) if self.can(CanListFills) else ()

    def settlements(self, after: str) -> Sequence[Settlement] | None:
        """The settlements after this cursor, as `fills`. Raises: `HostFault`."""
        return self._reports["settlements"].read(after) if self.can(CanListSettlements) else ()

    def cash_events(self, after: str) -> Sequence[CashEvent] | None:
        """The cash events after this cursor, as `fills`. Raises: `HostFault`."""
        return self._reports["cash_events"].read(after) if self.can(CanListCashEvents) else ()

    def late(self) -> Mapping[str, str]:
        """The parts that are past their deadline and have not answered since, and how.

        Recovery names a restart that is late, and the kill switch a stop.
        """
        late = self._calls.late()
        return {part: text for part, text in late.items() if part not in _NAMED_ELSEWHERE}

    def failing(self) -> Mapping[str, str]:
        """The parts that no step waits for and whose last call failed, and how."""
        if self._alive is None or not self._alive.is_ended:
            return {}
        try:
            self._alive.answer()
        except HostLate:
            return {}  # `late` names it
        except HostFault as fault:
            return {self._alive.part: fault.problem}
        return {}

    def ask_statement(self) -> None:
        """Ask for the broker's statement; nothing without that part."""
        if self.can(CanGiveStatement):
            self._statement.ask()

    def statement(self) -> Statement | None:
        """The statement that has come in since the last call; None: none, or the broker has none.

        Raises: `HostFault` once when there is no answer; `ConfigError` for one that is wrong.
        """
        problem = self._statement.take_problem()
        if problem is not None:
            raise problem
        taken = self._statement.take()
        answer = None if taken is None else taken.answer()
        if answer is None:
            return None
        checked = checked_statement(answer)
        if isinstance(checked, Problem):
            raise ConfigError(checked.field, checked.text)
        return checked

    # -- orders

    def _withholds(self, part: str, *args: object, name: str = "") -> bool:
        """Whether mode "observe" keeps this act from the engine: the one place that refuses it."""
        if not self.observing:
            return False
        call = f"{part}({', '.join(map(shown, args))})"
        if call not in self._told_withheld:
            self._told_withheld.add(call)
            self._withheld[part, name] = Withheld(part, name, call)
        return True

    def withhold_restart(self, name: str) -> None:
        """Name the restart that recovery would begin now."""
        self._withholds("restart", name, name=name)

    def take_withheld(self) -> tuple[Withheld, ...]:
        """The acts that were kept from the engine since the last call, each told once."""
        taken = tuple(self._withheld.values())
        self._withheld.clear()
        return taken

    async def pause(self, name: str, reason: str) -> None:
        """Pause a strategy; nothing without that part. Raises: `HostFault`."""
        if self.can(CanPause) and not self._withholds("pause", name, reason, name=name):
            await self._calls.begin("pause", name, reason).in_time()

    async def resume(self, name: str) -> None:
        """Resume a strategy; nothing without that part. Raises: `HostFault`.

        Under the kill switch nothing is resumed, and a strategy that is while the switch engages is
        told to stop, as `stop` allows.
        """
        if self.latch.stops(name):
            raise HostFault("resume", "is not called, since the kill switch is engaged")
        if not self.can(CanPause) or self._withholds("resume", name, name=name):
            return
        engagements = self.latch.engagements
        await self._calls.begin("resume", name).in_time()
        if self._was_stopped(name, engagements):
            self.start_stop(name, "the kill switch was engaged while it resumed")
            end = "is left alone" if self.latch.freezes(name) else "is stopped again"
            raise HostFault("resume", f"returned under the kill switch, so it {end}")

    def _was_stopped(self, name: str, engagements: int) -> bool:
        """Whether the kill switch engaged since, with this strategy in its scope."""
        return self.latch.engagements != engagements and name not in self.latch.spared

    async def stop(self, name: str, reason: str) -> None:
        """Stop a strategy; nothing without that part, or where the engine must touch nothing of it.

        Raises: `HostFault`.
        """
        if self.latch.freezes(name):
            return
        if self.can(CanPause) and not self._withholds("stop", name, reason, name=name):
            await self._calls.begin("stop", name, reason).in_time()

    async def set_stage(self, name: str, stage: str, capital_cap: Decimal | None) -> None:
        """Put a stage in force; nothing without that part. Raises: `HostFault`."""
        if self.can(CanSetStage) and not self._withholds(
            "set_stage", name, stage, capital_cap, name=name
        ):
            await self._calls.begin("set_stage", name, stage, capital_cap).in_time()

    def start_keep_alive(self, until_us: int) -> None:
        """Begin to tell the engine that fundops lives, and return at once; never twice at once."""
        if not self.can(CanKeepAlive) or self._withholds("keep_alive"):
            return
        if self._alive is not None and not self._alive.is_ended:
            return  # past its deadline it is named as any other part
        self._alive = self._calls.begin("keep_alive", until_us)  # `failing` tells that it failed

    async def each(
        self, act: Callable[..., Awaitable[None]], arguments: Sequence[tuple[Any, ...]]
    ) -> None:
        """Do this act with each of the arguments, in order; a fault of one stops no other.

        When a second has passed the others are done at once, so that a part which hangs does not
        cost the tick a second for each strategy.

        Raises: the last `HostFault`, after all were done.
        """
        if not arguments:
            return  # as at most ticks: a nursery costs a turn of the loop, also an empty one
        faults: list[HostFault] = []

        async def do(*argument: Any) -> None:
            try:
                await act(*argument)
            except HostFault as fault:
                faults.append(fault)

        until_s = trio.current_time() + CALL_DEADLINE_S
        async with trio.open_nursery() as nursery:
            for argument in arguments:
                if trio.current_time() < until_s:
                    await do(*argument)
                else:
                    nursery.start_soon(do, *argument)
        if faults:
            raise faults[-1]

    # -- stops

    def names(self) -> tuple[str, ...]:
        """The strategies of the last words, however old."""
        words = self._words if self._pushed is None else self._pushed.words()
        return tuple(words)

    @property
    def has_spoken(self) -> bool:
        """Whether the engine has named its strategies in this life, be it none."""
        return self._heard_us is not None or bool(self.names())

    def start_stop_all(
        self,
        reason: str,
        action: KillAction,
        strategies: tuple[str, ...],
        tell: Callable[[StopEnded], None],
    ) -> bool:
        """Begin to stop these strategies and return at once; `tell` gets the end of the call.

        False: the call before has not ended, so none was begun. One that is past its deadline is
        left behind, up to four.
        """
        if self._withholds("stop_all", reason, action, strategies):
            return False
        if self._stopping or not self._calls.can_begin("stop_all"):
            return False
        self._stopping = True
        self._start(self._stop_all, reason, action, strategies, tell, name="stop_all")
        return True

    async def _stop_all(
        self,
        reason: str,
        action: KillAction,
        strategies: tuple[str, ...],
        tell: Callable[[StopEnded], None],
    ) -> None:
        engagement = self.latch.engagements
        call: Call | None = None
        try:
            call = self._calls.begin("stop_all", reason, action, strategies)
            report, problem = _stopped(await call.in_time())
        except HostFault as fault:
            report, problem = None, str(fault)
        finally:
            self._stopping = False
            stopped, self._stopped = self._stopped, trio.Event()
            stopped.set()
        _told(tell, StopEnded(action, report, problem, engagement, strategies))
        if call is not None and not call.is_ended:
            # Late, and told so. Its report still counts when it comes; a failure is no news.
            await call.wait()
            with suppress(HostFault):
                report, problem = _stopped(call.answer())
                if report is not None:
                    _told(tell, StopEnded(action, report, problem, engagement, strategies))

    def watch_stop(self) -> None:
        """Call `emergency_stop` when the host does not react under the kill switch.

        To be called when the switch engages and each second. It does not react while a call is past
        its deadline, or its event loop does not turn, which a thread watches.
        """
        if not self.latch.engaged or self._emergency is None or self.observing:
            self._end_loop_watch()
            return
        if self._turn is not None and self._loop_watch is None:
            self._loop_watch = LoopWatch(self._turn, self._on_stuck_loop)
        late = self._calls.late()
        if late:
            part, problem = next(iter(late.items()))
            self._emergencies += self._reacts
            self._call_emergency(self._emergencies, f"controller.{part} {problem}")
        self._reacts = not late

    def _on_stuck_loop(self) -> None:
        self._call_emergency("loop", f"its event loop has not turned for {LOOP_TURN_S:g} s")

    def start_emergency_stop(self, why: str, *, again: bool = False) -> None:
        """Call `emergency_stop` without the kill switch, if the engine has it.

        `again`: the emergency is the one of before, in which a call that returned is enough.
        """
        if self._emergency is not None:
            self._emergencies += not again
            self._call_emergency(self._emergencies, why)

    def _call_emergency(self, cause: Hashable, why: str) -> None:
        if self.latch.frozen:
            return  # a person's word that the engine must touch nothing
        if self._emergency is not None and not self._withholds("emergency_stop"):
            self._emergency.call((self.latch.engagements, cause), why)

    def _end_loop_watch(self) -> None:
        if self._loop_watch is not None:
            self._loop_watch.end()
            self._loop_watch = None

    async def finish_stop(self) -> None:
        """Wait for a `stop_all` in flight, at most for its deadline, also when cancelled."""
        self._end_loop_watch()
        with trio.move_on_after(STOP_ALL_DEADLINE_S + 1, shield=True):
            while self._stopping:
                await self._stopped.wait()

    def start_stop(self, name: str, reason: str) -> None:
        """Begin to stop one strategy and return at once; never twice at once."""
        if self.can(CanPause) and name not in self._stopping_names:
            self._stopping_names.add(name)
            self._start(self._stop, name, reason, name=f"stop {name}")

    async def _stop(self, name: str, reason: str) -> None:
        try:
            await self.stop(name, reason)
        except HostFault as fault:
            log.warning("strategy %s could not be stopped: %s", name, fault)
        finally:
            self._stopping_names.discard(name)

    def spawn(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Run a coroutine function that handles its own errors beside the actors."""
        self._start(function, *arguments, name=function.__qualname__)

    # -- restarts

    def start_restart(
        self, name: str, attempt_id: str, tell: Callable[[AttemptEnded | AttemptLate], None]
    ) -> None:
        """Begin a restart and return at once; none begins under the kill switch.

        `tell` gets a message when it is late, and at its end.
        """
        self._in_flight += 1
        self._start(self._restart, name, attempt_id, tell, name=f"restart {name}")

    async def idle(self) -> None:
        """Wait until no restart is running, as a replay does between two steps."""
        while self._in_flight:
            await self._idle.wait()

    async def _restart(
        self, name: str, attempt_id: str, tell: Callable[[AttemptEnded | AttemptLate], None]
    ) -> None:
        engagements = self.latch.engagements
        try:
            error, retryable = await self._restarted(name, attempt_id, tell)
            if error is None and self._was_stopped(name, engagements):
                # Engaged since it began, and maybe released again: it runs against a person's word.
                await self._stop(name, "the kill switch was engaged while it restarted")
        finally:
            self._in_flight -= 1
            idle, self._idle = self._idle, trio.Event()
        _told(tell, AttemptEnded(name, attempt_id, error, retryable))
        idle.set()

    async def _restarted(
        self, name: str, attempt_id: str, tell: Callable[[AttemptEnded | AttemptLate], None]
    ) -> tuple[str | None, bool]:
        """Why the restart failed, None when it returned; and whether another attempt can help."""
        try:
            if not self.can(CanRestart):
                raise HostFault("restart", "is not implemented by this controller")
            if self._withholds("restart", name, name=name):
                raise HostFault("restart", "is not called in mode observe")
            if self.latch.stops(name):
                raise HostFault("restart", "is not called, since the kill switch is engaged")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._report_late, name, attempt_id, tell)
                world_id = f"{self._origin}-{attempt_id}" if self._origin else attempt_id
                call = self._calls.begin("restart", name, attempt_id=world_id)
                await call.wait()
                nursery.cancel_scope.cancel()
            call.answer()
        except HostFault as fault:
            leaf = fault.__cause__ or fault
            error = f"{type(leaf).__name__}: {fitted(leaf)}"
            return error, not isinstance(leaf, NotRetryable)
        return None, True

    async def _report_late(
        self, name: str, attempt_id: str, tell: Callable[[AttemptEnded | AttemptLate], None]
    ) -> None:
        await trio.sleep(self._restart_deadline_s)
        _told(tell, AttemptLate(name, attempt_id))


def _told(tell: Callable[[Any], None], message: Any) -> None:
    try:
        tell(message)
    except ActorError as error:
        log.warning("the end of a call to the controller was not heard: %s", error)


def _stopped(answer: object) -> tuple[StopReport | None, str]:
    """The report of a `stop_all`, else the reason why its answer is none."""
    try:
        return border.stop_report(answer), ""
    except ConfigError as wrong:
        return None, f"controller.stop_all: {wrong}"
