"""The port to the host: every call to its controller goes through here, with a deadline.

Plain methods are called inline in the fund's trio thread. Coroutines get a deadline in seconds. A
restart may take half a minute, so it runs as a separate task and reports its end as a message. A
controller that raises, hangs or gives an invalid answer causes a `HostFault`, which names the call
and never stops the tick.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar

import trio

from ..runtime import leaf_of
from ..wire.controller import (
    CanListCashEvents,
    CanListFeeds,
    CanListFills,
    CanListSettlements,
    CanPause,
    CanRestart,
    CanSetStage,
    CanStopAll,
    CashEvent,
    Controller,
    FeedStatus,
    Fill,
    KillAction,
    Settlement,
    StopReport,
    StrategyStatus,
)
from ..wire.errors import HostFault, NotRetryable
from ..wire.recovery import AttemptEnded, AttemptLate

__all__ = ["CALL_DEADLINE_S", "RESTART_DEADLINE_S", "STOP_ALL_DEADLINE_S", "Host"]

CALL_DEADLINE_S = 1.0
RESTART_DEADLINE_S = 30.0  # then the restart is reported late; it is not cancelled
STOP_ALL_DEADLINE_S = 10.0
STRATEGIES_MAX = 10_000

T = TypeVar("T")

# The optional parts of a controller, and their names in the start-up log.
_PARTS: tuple[tuple[type, str], ...] = (
    (CanRestart, "restart"),
    (CanPause, "pause, resume and stop"),
    (CanStopAll, "stop_all"),
    (CanSetStage, "set_stage"),
    (CanListFeeds, "feeds"),
    (CanListFills, "fills"),
    (CanListSettlements, "settlements"),
    (CanListCashEvents, "cash_events"),
)


class Host:
    """Wraps one controller. Restarts run in `nursery`, so that no actor waits for them."""

    def __init__(
        self,
        controller: Controller,
        nursery: trio.Nursery,
        restart_deadline_s: float = RESTART_DEADLINE_S,
        origin: str = "",
    ) -> None:
        self._controller: Any = controller
        self._parts = frozenset(part for part, _ in _PARTS if isinstance(controller, part))
        self._nursery = nursery
        self._restart_deadline_s = restart_deadline_s
        # The database's uuid: the engine may serve several funds, or this one after a fresh start.
        self._origin = origin
        # That of the host. The handler that begins a restart is not the caller of what it asks.
        self._context = copy_context()
        self._in_flight = 0
        self._idle = trio.Event()

    def missing(self) -> tuple[str, ...]:
        """The optional parts that this controller lacks, for the start-up log."""
        return tuple(name for part, name in _PARTS if part not in self._parts)

    def can(self, part: type) -> bool:
        """Whether the controller has this optional part, one of the `Can...` Protocols."""
        return part in self._parts

    # -- reports

    def strategies(self) -> tuple[StrategyStatus, ...]:
        """The reports about all strategies, with unique names. Raises: `HostFault`."""
        statuses = self._list("strategies", StrategyStatus)
        if len(statuses) > STRATEGIES_MAX:
            raise HostFault(
                "strategies", f"{len(statuses)} strategies; at most {STRATEGIES_MAX} are managed"
            )
        seen: set[str] = set()
        for status in statuses:
            if (
                not isinstance(status.name, str)
                or not 1 <= len(status.name) <= 128
                or not status.name.isprintable()
            ):
                raise HostFault(
                    "strategies", f"{status.name!r} is not a name of 1 to 128 printable characters"
                )
            if status.stage is not None and not isinstance(status.stage, str):
                raise HostFault(
                    "strategies", f"stage {status.stage!r} of {status.name!r} is not a text"
                )
            if status.name in seen:
                raise HostFault("strategies", f"{status.name!r} is reported twice")
            seen.add(status.name)
        return statuses

    def feeds(self) -> tuple[FeedStatus, ...]:
        """The reports about all feeds; empty without that part. Raises: `HostFault`."""
        return self._list("feeds", FeedStatus) if self.can(CanListFeeds) else ()

    def fills(self, after: str) -> tuple[Fill, ...]:
        """The fills after this cursor, oldest first; empty without that part.

        The items of this answer and of the next two are as the engine gave them: the ledger checks
        each by itself. Raises: `HostFault`.
        """
        return self._answer("fills", after) if self.can(CanListFills) else ()

    def settlements(self, after: str) -> tuple[Settlement, ...]:
        """The settlements after this cursor, oldest first; empty without that part.

        Raises: `HostFault`.
        """
        return self._answer("settlements", after) if self.can(CanListSettlements) else ()

    def cash_events(self, after: str) -> tuple[CashEvent, ...]:
        """The cash events after this cursor, oldest first; empty without that part.

        Raises: `HostFault`.
        """
        return self._answer("cash_events", after) if self.can(CanListCashEvents) else ()

    def _list(self, call: str, kind: type[T], *arguments: str) -> tuple[T, ...]:
        answer = self._answer(call, *arguments)
        for item in answer:
            if not isinstance(item, kind):
                raise HostFault(call, f"answered a {type(item).__name__}, not a {kind.__name__}")
        return answer

    def _answer(self, call: str, *arguments: str) -> tuple[Any, ...]:
        try:
            return tuple(getattr(self._controller, call)(*arguments))
        except Exception as error:
            raise HostFault(call, f"raised {type(error).__name__}: {error}") from error

    # -- orders

    async def pause(self, name: str, reason: str) -> None:
        """Pause a strategy; nothing without that part. Raises: `HostFault`."""
        if self.can(CanPause):
            await self._call("pause", CALL_DEADLINE_S, lambda: self._controller.pause(name, reason))

    async def resume(self, name: str) -> None:
        """Resume a strategy; nothing without that part. Raises: `HostFault`."""
        if self.can(CanPause):
            await self._call("resume", CALL_DEADLINE_S, lambda: self._controller.resume(name))

    async def stop(self, name: str, reason: str) -> None:
        """Stop a strategy; nothing without that part. Raises: `HostFault`."""
        if self.can(CanPause):
            await self._call("stop", CALL_DEADLINE_S, lambda: self._controller.stop(name, reason))

    async def set_stage(self, name: str, stage: str, capital_cap: Decimal | None) -> None:
        """Put a stage in force; nothing without that part. Raises: `HostFault`."""
        if self.can(CanSetStage):
            await self._call(
                "set_stage",
                CALL_DEADLINE_S,
                lambda: self._controller.set_stage(name, stage, capital_cap),
            )

    async def stop_all(self, reason: str, action: KillAction) -> StopReport:
        """Stop all trading, and report the orders and positions that are still open.

        Raises: `HostFault`, also when the controller lacks that part.
        """
        if not self.can(CanStopAll):
            raise HostFault("stop_all", "is not implemented by this controller")
        report = await self._call(
            "stop_all", STOP_ALL_DEADLINE_S, lambda: self._controller.stop_all(reason, action)
        )
        if not isinstance(report, StopReport):
            raise HostFault("stop_all", f"answered a {type(report).__name__}, not a StopReport")
        return report

    async def _call(self, call: str, deadline_s: float, begin: Callable[[], Awaitable[T]]) -> T:
        try:
            with trio.fail_after(deadline_s):
                return await begin()
        except trio.TooSlowError:
            raise HostFault(call, f"did not answer within {deadline_s:g} s") from None
        except Exception as error:
            raise HostFault(call, f"raised {type(error).__name__}: {error}") from error

    # -- restarts

    def start_restart(
        self, name: str, attempt_id: str, tell: Callable[[AttemptEnded | AttemptLate], None]
    ) -> None:
        """Begin a restart and return at once.

        `tell` gets a message when it is late, and at its end.
        """
        self._in_flight += 1
        begin = partial(self._nursery.start_soon, name=f"restart {name}")
        self._context.copy().run(begin, self._restart, name, attempt_id, tell)

    async def idle(self) -> None:
        """Wait until no restart is running, as a replay does between two steps."""
        while self._in_flight:
            await self._idle.wait()

    async def _restart(
        self, name: str, attempt_id: str, tell: Callable[[AttemptEnded | AttemptLate], None]
    ) -> None:
        error: str | None = None
        retryable = True
        try:
            if not self.can(CanRestart):
                raise HostFault("restart", "is not implemented by this controller")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._report_late, name, attempt_id, tell)
                world_id = f"{self._origin}-{attempt_id}" if self._origin else attempt_id
                await self._controller.restart(name, attempt_id=world_id)
                nursery.cancel_scope.cancel()
        except Exception as caught:  # noqa: BLE001  a controller may raise anything
            leaf = leaf_of(caught)
            error, retryable = f"{type(leaf).__name__}: {leaf}", not isinstance(leaf, NotRetryable)
        finally:
            self._in_flight -= 1
            idle, self._idle = self._idle, trio.Event()
        tell(AttemptEnded(name, attempt_id, error, retryable))
        idle.set()

    async def _report_late(
        self, name: str, attempt_id: str, tell: Callable[[AttemptEnded | AttemptLate], None]
    ) -> None:
        await trio.sleep(self._restart_deadline_s)
        tell(AttemptLate(name, attempt_id))
