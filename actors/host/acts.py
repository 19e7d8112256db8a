"""The acts on single strategies: pause, resume, stop, restart and the stage in force.

`keep_alive` is here too, which tells the engine that fundops lives; `stopping` has the acts that
stop all of them. An act without its part in the controller does nothing, and a restart without it
fails. In mode "observe" an act is told and not done. A restart runs as a task and reports its end
as a message, so no safety act waits for it. The kill switch's latch is read in the moment of
acting.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import trio

from ...wire.controller import CanKeepAlive, CanPause, CanRestart, CanSetStage
from ...wire.errors import HostFault, HostLate, NotRetryable
from ...wire.foreign import fitted
from ...wire.guard import Withheld
from ...wire.recovery import AttemptEnded, AttemptLate
from ..guard.latch import KillLatch
from .calls import CALL_DEADLINE_S, Call, Calls, tell_end
from .observe import ObserveMode
from .tasks import Tasks

__all__ = ["RESTART_DEADLINE_S", "Acts", "each"]

log = logging.getLogger("fundops.host")

RESTART_DEADLINE_S = 30.0  # then the restart is reported late; it is not cancelled

TellAttempt = Callable[[AttemptEnded | AttemptLate], None]


class Acts:
    """Tells the engine what to do with a strategy.

    A restart is reported late after `restart_deadline_s`, and goes on. `origin` precedes the ids of
    restart attempts, since the engine may serve several funds, or this one after a fresh start.
    """

    def __init__(
        self,
        calls: Calls,
        tasks: Tasks,
        latch: KillLatch,
        observe: ObserveMode,
        *,
        restart_deadline_s: float = RESTART_DEADLINE_S,
        origin: str = "",
    ) -> None:
        self.latch = latch
        self._calls = calls
        self._tasks = tasks
        self._observe = observe
        self._restart_deadline_s = restart_deadline_s
        self._origin = origin
        self._restarts = 0  # in flight
        self._idle = trio.Event()
        self._stopping: set[str] = set()  # strategies that a task is stopping
        self._alive: Call | None = None  # the last call of keep_alive

    # -- mode "observe"

    @property
    def observing(self) -> bool:
        """Whether no acting part of the controller is called."""
        return self._observe.is_on

    def take_withheld(self) -> tuple[Withheld, ...]:
        """The acts that were kept from the engine since the last call, each told once."""
        return self._observe.take_withheld()

    def withhold_restart(self, name: str) -> None:
        """Name the restart that recovery would begin now."""
        self._observe.withholds("restart", name, strategy=name)

    # -- acts that are waited for

    async def pause(self, name: str, reason: str) -> None:
        """Pause a strategy; nothing without that part. Raises: `HostFault`."""
        await self._do(CanPause, "pause", name, reason)

    async def resume(self, name: str) -> None:
        """Resume a strategy; nothing without that part. Raises: `HostFault`.

        Under the kill switch nothing is resumed, and a strategy that is while the switch engages is
        told to stop, as `stop` allows.
        """
        if self.latch.stops(name):
            raise HostFault("resume", "is not called, since the kill switch is engaged")
        engagements = self.latch.engagements
        is_done = await self._do(CanPause, "resume", name)
        if is_done and self._was_stopped(name, engagements):
            self.start_stop(name, "the kill switch was engaged while it resumed")
            end = "is left alone" if self.latch.freezes(name) else "is stopped again"
            raise HostFault("resume", f"returned under the kill switch, so it {end}")

    async def stop(self, name: str, reason: str) -> None:
        """Stop a strategy; nothing without that part, or where the engine must touch nothing of it.

        Raises: `HostFault`.
        """
        if not self.latch.freezes(name):
            await self._do(CanPause, "stop", name, reason)

    async def set_stage(self, name: str, stage: str, capital_cap: Decimal | None) -> None:
        """Put a stage in force; nothing without that part. Raises: `HostFault`."""
        await self._do(CanSetStage, "set_stage", name, stage, capital_cap)

    async def _do(self, needed: type, part: str, name: str, *arguments: object) -> bool:
        """Do this act in time, and tell whether it was done. Raises: `HostFault`."""
        if not self._calls.can(needed):
            return False
        if self._observe.withholds(part, name, *arguments, strategy=name):
            return False
        await self._calls.begin(part, name, *arguments).in_time()
        return True

    def _was_stopped(self, name: str, engagements: int) -> bool:
        """Whether the kill switch engaged since, with this strategy in its scope."""
        return self.latch.engagements != engagements and name not in self.latch.spared

    # -- acts that are begun

    def start_stop(self, name: str, reason: str) -> None:
        """Begin to stop one strategy and return at once; never twice at once."""
        if self._calls.can(CanPause) and name not in self._stopping:
            self._stopping.add(name)
            self._tasks.start(self._stop, name, reason, name=f"stop {name}")

    async def _stop(self, name: str, reason: str) -> None:
        try:
            await self.stop(name, reason)
        except HostFault as fault:
            log.warning("strategy %s could not be stopped: %s", name, fault)
        finally:
            self._stopping.discard(name)

    def start_keep_alive(self, until_us: int) -> None:
        """Begin to tell the engine that fundops lives, and return at once; never twice at once."""
        if not self._calls.can(CanKeepAlive) or self._observe.withholds("keep_alive"):
            return
        if self._alive is not None and not self._alive.is_ended:
            return  # past its deadline it is named as any other part
        self._alive = self._calls.begin("keep_alive", until_us)  # `failing` tells that it failed

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

    # -- restarts

    def start_restart(self, name: str, attempt_id: str, tell: TellAttempt) -> None:
        """Begin a restart and return at once; none begins under the kill switch.

        `tell` gets a message when it is late, and at its end.
        """
        self._restarts += 1
        self._tasks.start(self._restart, name, attempt_id, tell, name=f"restart {name}")

    async def idle(self) -> None:
        """Wait until no restart is running, as a replay does between two steps."""
        while self._restarts:
            await self._idle.wait()

    async def _restart(self, name: str, attempt_id: str, tell: TellAttempt) -> None:
        engagements = self.latch.engagements
        try:
            error, retryable = await self._restarted(name, attempt_id, tell)
            if error is None and self._was_stopped(name, engagements):
                # Engaged since it began, and maybe released again: it runs against a person's word.
                await self._stop(name, "the kill switch was engaged while it restarted")
        finally:
            self._restarts -= 1
            idle, self._idle = self._idle, trio.Event()
        tell_end(tell, AttemptEnded(name, attempt_id, error, retryable))
        idle.set()

    async def _restarted(
        self, name: str, attempt_id: str, tell: TellAttempt
    ) -> tuple[str | None, bool]:
        """Why the restart failed, None when it returned; and whether another attempt can help."""
        try:
            if not self._calls.can(CanRestart):
                raise HostFault("restart", "is not implemented by this controller")
            if self._observe.withholds("restart", name, strategy=name):
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

    async def _report_late(self, name: str, attempt_id: str, tell: TellAttempt) -> None:
        await trio.sleep(self._restart_deadline_s)
        tell_end(tell, AttemptLate(name, attempt_id))


async def each(act: Callable[..., Awaitable[None]], arguments: Sequence[tuple[Any, ...]]) -> None:
    """Do this act with each of the arguments, in order; a fault of one stops no other.

    When a second has passed the others are done at once, so that a part which hangs does not cost
    the tick a second for each strategy.

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
