"""The check of a host's controller: calls every part and names each fault in a sentence.

The calls are made as a fund makes them, in a thread of their own with a trio or an asyncio loop, so
the check can be called from any test. Time is real.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from contextvars import copy_context
from decimal import Decimal
from functools import partial
from typing import Any, Final, Literal, Protocol

import outcome
import trio

from fundops.actors.host import (
    RESTART_DEADLINE_S,
    STRATEGIES_MAX,
    check_instants,
    checked_controller,
)
from fundops.actors.host.calls import (
    CALL_DEADLINE_S,
    STOP_ALL_DEADLINE_S,
    NotAList,
    answer_of,
)
from fundops.actors.host.parts import FEATURES, lacks
from fundops.runtime import ConfigError, SystemClock
from fundops.wire import border, border_reports
from fundops.wire.controller import KillAction, StopReport, StrategyStatus
from fundops.wire.foreign import fitted
from fundops.wire.instants import fault_of

__all__ = ["Runner", "check_controller"]

Runner = Literal["trio", "asyncio"]

_DEADLINES_S: Final = {"restart": RESTART_DEADLINE_S, "stop_all": STOP_ALL_DEADLINE_S}
_CUT_S = 0.2  # within which a coroutine that is cancelled must end
_REPEAT_S = 0.01  # between two calls of stop_all, which a fund repeats while orders are open
_MADE_UP = "check-controller"  # a strategy's name for a controller that lists none
# A restart may be refused; these errors are mistakes in its code.
_MISTAKES = (TypeError, AttributeError, NameError, NotImplementedError)
_RAISED = (Exception, SystemExit, KeyboardInterrupt, BaseExceptionGroup, asyncio.CancelledError)


def check_controller(
    controller: object, *, runner: Runner = "trio", deadline_s: float | None = None
) -> tuple[str, ...]:
    """The faults of a controller, a sentence each; () means that it is conformant.

    Give a controller that was made for the test, with a strategy or more, and some fills if it has
    that part: every part is called, the idempotent ones twice, and at the end all trading is
    stopped and flattened. A missing part is named with the effect of its absence.

    `runner` is the loop that the controller's coroutines need: "trio" as under `Fund`, or "asyncio"
    as under an asyncio host and `FundManager`. Plain methods are called on the same loop.
    `deadline_s` replaces the deadlines of a fund (restart 30 s, stop_all 10 s, others 1 s).

    It checks that

    * the signatures take what a fund gives, and the answers have the right types, names and
      figures;
    * each call answers in time, and the idempotent parts answer a second time;
    * a cursor gives the same reports again, and never one that it has passed;
    * a strategy runs after its restart has returned;
    * `stop_all` counts the orders and positions of the strategies that it is given, leaves no order
      open, and under "flatten" no position.

    Never raises for a wrong controller. A call that cannot be ended is left behind in its thread.
    """
    try:
        checked_controller(controller)
    except ConfigError as wrong:
        return (wrong.problem,)
    check = _Check(controller, runner, deadline_s)
    try:
        check.run()
    finally:
        check.line.close()
    return tuple(check.faults)


class _Check:
    def __init__(self, controller: object, runner: Runner, deadline_s: float | None) -> None:
        self._controller = controller
        self._runner: Runner = runner
        self._deadline_s = deadline_s
        self._late: set[str] = set()  # parts that are not called again
        self.faults: list[str] = []
        self.line = _Line(runner)

    def run(self) -> None:
        for feature in FEATURES:
            missing = lacks(self._controller, feature)
            if missing:
                self._fault("it", f"has no {missing}: {feature.without}")
        statuses = self._check_strategies()
        self._check_feeds()
        now_us = SystemClock().now_us()
        self._check_reports("fills", lambda row: border_reports.checked_fill(row, now_us))
        self._check_reports("settlements", border_reports.checked_settlement)
        self._check_reports(
            "cash_events", lambda row: border_reports.checked_cash_event(row, now_us)
        )
        self._check_statement()
        self._check_acts(statuses)
        self._check_restart(statuses)
        self._check_stop_all(statuses)

    def _fault(self, part: str, text: str) -> None:
        sentence = f"{part} {text}" if part == "it" else f"{part}: {text}"
        if sentence not in self.faults:
            self.faults.append(sentence)

    # -- one call

    def _has(self, part: str) -> bool:
        return hasattr(self._controller, part)

    def _call(self, part: str, *args: Any, **kwargs: Any) -> outcome.Outcome[Any] | None:
        """The outcome of a call; None when the part is missing or late."""
        if not self._has(part) or part in self._late:
            return None
        deadline_s = self._deadline_s or _DEADLINES_S.get(part, CALL_DEADLINE_S)
        call = partial(answer_of, self._controller, part, *args, **kwargs)
        line = _in_thread if part == "emergency_stop" else self.line.call
        result = line(call, deadline_s)
        if result is None:
            self._late.add(part)
            self._fault(part, f"it did not answer within {deadline_s:g} s")
            if self.line.is_blocked:
                self._fault(part, "it cannot be ended, and would hold up what calls it")
                self.line.close()
                self.line = _Line(self._runner)
        return result

    def _answer(self, part: str, *args: Any, why: str = "") -> Iterator[Any]:
        """The answer of a call, if it gave one; an error is a fault."""
        result = self._call(part, *args)
        if isinstance(result, outcome.Error):
            self._raised(part, result.error, why)
        elif result is not None:
            yield result.unwrap()

    def _raised(self, part: str, error: BaseException, why: str = "") -> None:
        text = f"it raised {type(error).__name__}: {fitted(error)}"
        if isinstance(error, NotAList):
            text = f"it {error}"
        self._fault(part, f"{text}{why}{_hint(self._runner, error)}")

    def _list(self, part: str, *args: Any) -> list[Any] | None:
        """The items of the answer; None when it gave no list."""
        for answer in self._answer(part, *args):
            return list(answer)
        return None

    # -- questions

    def _check_strategies(self) -> list[StrategyStatus]:
        if not self._has("strategies"):
            self._fault("it", "has no strategies: the host must push its state with fund.report")
            return []
        statuses = self._statuses()
        again = {status.name for status in self._statuses()}
        lost = [status.name for status in statuses if status.name not in again]
        if lost and "strategies" not in self._late:
            self._fault("strategies", f"the second time it left out {', '.join(lost)}")
        return statuses

    def _statuses(self) -> list[StrategyStatus]:
        items = self._list("strategies") or []
        if len(items) > STRATEGIES_MAX:
            self._fault(
                "strategies", f"it lists {len(items)}; at most {STRATEGIES_MAX} are managed"
            )
        statuses = dict[str, StrategyStatus]()
        for number, item in enumerate(items[:STRATEGIES_MAX], 1):
            try:
                status, doubt = border.strategy_status(item)
                check_instants(status, SystemClock().now_us())
            except ConfigError as wrong:
                self._fault("strategies", f"item {number} is set aside: {wrong}")
                continue
            if doubt:
                self._fault("strategies", f"{status.name} {doubt}")
            if status.name in statuses:
                self._fault("strategies", f"{status.name} is listed twice")
            statuses[status.name] = status
        return list(statuses.values())

    def _check_feeds(self) -> None:
        seen = set[str]()
        for number, item in enumerate(self._list("feeds") or [], 1):
            try:
                feed = border.feed_status(item)
            except ConfigError as wrong:
                self._fault("feeds", f"item {number} is set aside: {wrong}")
                continue
            if feed.name in seen:
                self._fault("feeds", f"{feed.name} is listed twice")
            seen.add(feed.name)
            last_us = feed.last_data_us
            if last_us is not None and (fault := fault_of(last_us, SystemClock().now_us())):
                self._fault("feeds", f"{feed.name}: last_data_us: {fault}")

    def _check_statement(self) -> None:
        for answer in self._answer("statement"):
            if answer is None:  # the broker has no closed day yet
                continue
            checked = border_reports.checked_statement(answer)
            if isinstance(checked, border_reports.Problem):
                self._fault("statement", f"{checked.field}: {checked.text}")

    def _check_reports(self, part: str, checked: Callable[[Any], Any]) -> None:
        rows = self._list(part, "")
        if rows is None:
            return
        for number, row in enumerate(rows, 1):
            problem = checked(row)
            if isinstance(problem, border_reports.Problem):
                self._fault(part, f"row {number} cannot be booked: {problem}")
        keys = list(map(_key, rows))
        again = self._list(part, "")
        if again is not None and list(map(_key, again))[: len(keys)] != keys:
            self._fault(
                part, "the same cursor gave other rows the second time; reading must remove none"
            )
            return
        if not rows:
            return
        cursors = list(map(border_reports.cursor_of, rows))
        if not cursors[-1]:
            self._fault(part, "its last row has no cursor, so every tick reads all rows again")
        for cursor in dict.fromkeys((cursors[0], cursors[-1])):
            if cursor:
                self._check_cursor(part, keys, cursors, cursor)

    def _check_cursor(self, part: str, keys: list[Any], cursors: list[str], cursor: str) -> None:
        passed = len(cursors) - cursors[::-1].index(cursor)  # rows up to the last one with it
        rest = self._list(part, cursor)
        if rest is None:
            return
        found = list(map(_key, rest))
        if set(keys[:passed]) & set(found):
            self._fault(
                part, f"after the cursor {cursor!r} it gives rows again that were before it"
            )
        elif found[: len(keys) - passed] != keys[passed:]:
            self._fault(part, f"after the cursor {cursor!r} it leaves out rows that come after it")

    # -- acts

    def _check_acts(self, statuses: Sequence[StrategyStatus]) -> None:
        """Each act twice, on a running strategy if there is one."""
        running = [status.name for status in statuses if status.state == "running"]
        name = next(iter((*running, *(status.name for status in statuses), _MADE_UP)))
        why = "" if statuses else "; it lists no strategy that could be named"
        soon_us = SystemClock().now_us() + 30_000_000
        acts: tuple[tuple[Any, ...], ...] = (
            ("keep_alive", soon_us),
            ("pause", name, "a check"),
            ("resume", name),
            ("set_stage", name, "paper", None),
            ("set_stage", name, "live-small", Decimal(1_000)),
            ("stop", name, "a check"),
            ("emergency_stop",),
        )
        for part, *args in acts:
            for _ in self._answer(part, *args, why=why):
                second = f" when it was called a second time{why}"
                for _ in self._answer(part, *args, why=second):
                    pass

    def _check_restart(self, statuses: Sequence[StrategyStatus]) -> None:
        """Of a failed strategy if there is one. It may refuse, but not return without running."""
        failed = [status.name for status in statuses if status.state == "failed"]
        name = next(iter((*failed, *(status.name for status in statuses), _MADE_UP)))
        result = self._call("restart", name, attempt_id="check-1")
        if isinstance(result, outcome.Error):
            if isinstance(result.error, _MISTAKES) or _hint(self._runner, result.error):
                self._raised("restart", result.error)
        elif result is not None and self._has("strategies"):
            states = [status.state for status in self._statuses() if status.name == name]
            if statuses and "strategies" not in self._late and states != ["running"]:
                now = states[0] if states else "not listed"
                self._fault("restart", f"it returned, and {name} is {now}, not running")

    def _check_stop_all(self, statuses: Sequence[StrategyStatus]) -> None:
        counted = _open(self._stop_all("freeze", ()), "flatten")
        if counted:
            self._fault("stop_all", f"it was given no strategy, and counts {counted}")
        names = tuple(status.name for status in statuses)
        actions: tuple[KillAction, ...] = ("freeze", "halt", "flatten")
        for action in actions:
            self._stop_all(action, names)
            if action != "freeze":
                self._check_stopped(action, names)
        self._stop_all("flatten", names)
        self._stop_all("halt", ())

    def _stop_all(self, action: KillAction, names: tuple[str, ...]) -> StopReport:
        """The report; one of nothing where the answer is none, which is named by itself."""
        for answer in self._answer("stop_all", "a check", action, names):
            try:
                return border.stop_report(answer)
            except ConfigError as wrong:
                self._fault("stop_all", str(wrong))
        return StopReport(0, 0)

    def _check_stopped(self, action: KillAction, names: tuple[str, ...]) -> None:
        """A fund repeats the call while something is open; here for the deadline of one call."""
        until_s = time.monotonic() + (self._deadline_s or STOP_ALL_DEADLINE_S)
        while left := _open(self._stop_all(action, names), action):
            if time.monotonic() > until_s:
                self._fault("stop_all", f'it leaves {left} open under "{action}"')
                return
            time.sleep(_REPEAT_S)


def _open(report: StopReport, action: KillAction) -> str:
    """The orders and positions that keep this action from being confirmed; "": there are none."""
    positions = report.open_positions if action == "flatten" else 0
    counts = ((report.open_orders, "order"), (positions, "position"))
    return " and ".join(f"{n} {what}{'s' * (n != 1)}" for n, what in counts if n)


def _in_thread(call: Callable[[], Any], deadline_s: float) -> outcome.Outcome[Any] | None:
    """The outcome of a call in a thread of its own; None after its deadline."""
    results: queue.SimpleQueue[outcome.Outcome[Any]] = queue.SimpleQueue()
    _begun(lambda: results.put(outcome.capture(call)))
    with suppress(queue.Empty):
        return results.get(timeout=deadline_s)
    return None


def _key(row: object) -> tuple[str, str]:
    """The content of a report, compared without its own methods, which may raise."""
    return border_reports.content_of(row), border_reports.cursor_of(row)


def _hint(runner: Runner, error: BaseException) -> str:
    """The other loop, if the error says that the controller needs it."""
    text = str(error)
    if runner == "trio" and ("event loop" in text or "unrecognized yield" in text):
        return '; for a controller on asyncio pass runner="asyncio"'
    if runner == "asyncio" and ("async context" in text or "bad yield" in text):
        return '; for a controller on trio pass runner="trio"'
    return ""


# -- the thread in which calls are made


class _Loop(Protocol):
    """A running loop in another thread."""

    def submit(self, job: _Job) -> None:
        """Begin the job."""

    def close(self) -> None:
        """End the loop, without waiting for it."""


class _Job:
    """One call on its way to a loop."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self.results: queue.SimpleQueue[outcome.Outcome[Any]] = queue.SimpleQueue()
        self.cancel: Callable[[], object] = lambda: None  # in any thread

    async def run(self) -> None:
        try:
            answer = self._call()
            if inspect.isawaitable(answer):
                answer = await answer
            self.results.put(outcome.Value(answer))
        except _RAISED as error:
            self.results.put(outcome.Error(error))


class _Line:
    """Makes calls one after the other, in a loop that the caller need not be in."""

    def __init__(self, runner: Runner) -> None:
        self._loop: _Loop = _TrioLoop() if runner == "trio" else _AsyncioLoop()
        self.is_blocked = False  # the last call neither answered nor ended when it was cancelled

    def call(self, call: Callable[[], Any], deadline_s: float) -> outcome.Outcome[Any] | None:
        """The outcome of the call; None after its deadline."""
        job = _Job(call)
        self._loop.submit(job)
        with suppress(queue.Empty):
            return job.results.get(timeout=deadline_s)
        job.cancel()
        try:
            job.results.get(timeout=_CUT_S)
        except queue.Empty:
            self.is_blocked = True
        return None

    def close(self) -> None:
        """End the loop. A call that cannot be ended keeps its thread."""
        self._loop.close()


class _TrioLoop:
    def __init__(self) -> None:
        self._ready = threading.Event()
        self._token: trio.lowlevel.TrioToken
        self._nursery: trio.Nursery
        self._thread = _begun(partial(trio.run, self._serve))
        self._ready.wait()

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as self._nursery:
            self._ready.set()
            await trio.sleep_forever()

    def submit(self, job: _Job) -> None:
        self._token.run_sync_soon(self._nursery.start_soon, self._run, job)

    async def _run(self, job: _Job) -> None:
        with trio.CancelScope() as scope:
            job.cancel = lambda: self._token.run_sync_soon(scope.cancel)
            await job.run()
        if scope.cancelled_caught:
            job.results.put(outcome.Error(TimeoutError()))

    def close(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._nursery.cancel_scope.cancel)
        self._thread.join(_CUT_S)


class _AsyncioLoop:
    def __init__(self) -> None:
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._done: asyncio.Event
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = _begun(lambda: asyncio.run(self._serve()))
        self._ready.wait()

    async def _serve(self) -> None:
        self._loop, self._done = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await self._done.wait()

    def submit(self, job: _Job) -> None:
        self._loop.call_soon_threadsafe(self._run, job)

    def _run(self, job: _Job) -> None:
        task = self._loop.create_task(job.run())
        self._tasks.add(task)  # the loop itself holds it weakly
        task.add_done_callback(self._tasks.discard)
        job.cancel = lambda: self._loop.call_soon_threadsafe(task.cancel)

    def close(self) -> None:
        with suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(_CUT_S)


def _begun(run: Callable[[], Any]) -> threading.Thread:
    """A daemon thread, so that a call which never returns does not keep the program alive."""
    thread = threading.Thread(
        target=copy_context().run, args=(run,), name="fundops-check", daemon=True
    )
    thread.start()
    return thread
