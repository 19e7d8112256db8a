"""Calls of a controller's parts, each with a deadline on trio's clock.

A call runs beside the actors. One that is past its deadline is late: its askers hear so at once,
and its part is not called again before it comes back, since a second call would hang behind it. A
late answer that comes counts as any other.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from functools import partial
from typing import Any, Final

import trio

from ...runtime import ActorError, Clock, leaf_of
from ...wire.errors import HostFault, HostLate
from ...wire.foreign import fitted
from .parts import FEATURES, offers
from .places import RAISED, CutOff, Place

__all__ = [
    "CALL_DEADLINE_S",
    "LISTS",
    "STOP_ALL_DEADLINE_S",
    "STOP_ALL_LATE_MAX",
    "Call",
    "Calls",
    "NotAList",
    "answer_of",
    "tell_end",
]

log = logging.getLogger("fundops.host")

# The parts that answer with a list.
LISTS: Final = ("strategies", "feeds", "fills", "settlements", "cash_events")
CALL_DEADLINE_S = 1.0
STOP_ALL_DEADLINE_S = 10.0
# Of stop_all, which is called again while earlier calls hang: a later one may reach the venue.
STOP_ALL_LATE_MAX = 4
# A call that is cut off at its deadline comes back within this time, and its part is free again.
CUT_S = 0.05


def _fault_of(part: str, error: BaseException) -> HostFault:
    """The fault that this error is. Raises: the error when it is the loop's or the user's."""
    if isinstance(error, BaseExceptionGroup):
        ours, _ = error.split((trio.Cancelled, KeyboardInterrupt, GeneratorExit))
        if ours is not None:
            raise error
    leaf = leaf_of(error)
    if isinstance(leaf, NotAList):
        return HostFault(part, str(leaf))
    fault = HostFault(part, f"raised {type(leaf).__name__}: {fitted(leaf)}")
    fault.__cause__ = leaf
    return fault


class Call:
    """One call of a part, in flight or ended."""

    def __init__(self, part: str, deadline_s: float, clock: Clock) -> None:
        self.part = part
        self.deadline_s = deadline_s
        self.begun_s = trio.current_time()
        self.settled = False  # a tick has waited for it
        # When it ended, on the domain's clocks.
        self.ended_s = 0.0
        self.ended_us = 0
        self._clock = clock
        self._answer: Any = None
        self._fault: HostFault | None = None
        self._ended = trio.Event()

    @property
    def is_ended(self) -> bool:
        """Whether the call has come back."""
        return self._ended.is_set()

    @property
    def is_late(self) -> bool:
        """Whether the call is in flight past its deadline."""
        return not self.is_ended and trio.current_time() >= self.begun_s + self.deadline_s

    def answer(self) -> Any:
        """The answer of an ended call. Raises: `HostFault`."""
        if self._fault is not None:
            raise self._fault
        return self._answer

    async def wait(self) -> None:
        """Wait until the call has come back."""
        if not self.is_ended:
            await self._ended.wait()

    async def in_time(self) -> Any:
        """The answer. Raises: `HostFault`, which is `HostLate` past the deadline."""
        if not self.is_ended:
            with trio.move_on_at(self.begun_s + self.deadline_s + CUT_S):
                await self._ended.wait()
        if not self.is_ended:
            raise self.lateness()
        return self.answer()

    def lateness(self) -> HostLate:
        """The fault of a call that is past its deadline."""
        return HostLate(self.part, f"did not answer within {self.deadline_s:g} s")

    def end(self, answer: Any) -> None:
        """For `Calls`: the call has this answer."""
        self._answer = answer
        self._end()

    def fail(self, fault: HostFault) -> None:
        """For `Calls`: the call has no answer."""
        self._fault = fault
        self._end()

    def _end(self) -> None:
        self.ended_s, self.ended_us = self._clock.monotonic_s(), self._clock.now_us()
        self._ended.set()


class Calls:
    """Makes the calls of one controller in its place. `start` begins a task beside the actors.

    `restart_deadline_s` is that of restart, which is late then and is not cut off.
    """

    def __init__(
        self,
        controller: object | None,
        place: Place,
        start: Callable[..., None],
        clock: Clock,
        restart_deadline_s: float,
    ) -> None:
        self._controller = controller
        self._parts = frozenset(feature.part for feature in FEATURES if offers(controller, feature))
        self._place = place
        self._start = start
        self._clock = clock
        self._deadlines_s = {"stop_all": STOP_ALL_DEADLINE_S, "restart": restart_deadline_s}
        # That of the host: a call must not ask the fund in the context of one of our handlers.
        self._context = copy_context()
        self._in_flight: dict[str, list[Call]] = {}
        self._cut: dict[str, str] = {}  # parts whose last call to end was cut off, and how

    def can(self, part: type) -> bool:
        """Whether the controller has this optional part, one of the `Can...` Protocols."""
        return part in self._parts

    def begin(self, part: str, *args: Any, **kwargs: Any) -> Call:
        """Begin a call; it has ended on return when its answer was there at once.

        The answer of a part in `LISTS` is a tuple. Raises: `HostLate` when an earlier call of the
        part is late and has not come back.
        """
        late = [call for call in self._in_flight.get(part, ()) if call.is_late]
        if len(late) >= _late_max(part):
            waited_s = trio.current_time() - late[0].begun_s
            raise HostLate(part, f"has not come back from a call {waited_s:.0f} s ago")
        attempt = partial(answer_of, self._controller, part, *args, **kwargs)
        call = Call(part, self._deadlines_s.get(part, CALL_DEADLINE_S), self._clock)
        # A restart that takes long may still succeed, so it is not cut off.
        cut_after_s = math.inf if part == "restart" else call.deadline_s
        try:
            answer = self._context.copy().run(self._place, part, attempt, cut_after_s)
            later = inspect.isawaitable(answer)
        except RAISED as error:
            self._cut.pop(part, None)
            call.fail(_fault_of(part, error))
            return call
        if later:
            self._in_flight.setdefault(part, []).append(call)
            self._start(self._finish, call, answer, name=part)
        else:
            self._cut.pop(part, None)
            call.end(answer)
        return call

    async def _finish(self, call: Call, answer: Any) -> None:
        fault: HostFault | None = None
        value = None
        try:
            value = await answer
        except CutOff:
            fault = call.lateness()
        except RAISED as error:
            fault = _fault_of(call.part, error)
        # An error of this loop, such as the end of the fund, leaves the call open: its askers end
        # with the fund, too.
        self._in_flight[call.part].remove(call)
        self._cut.pop(call.part, None)
        if fault is None:
            call.end(value)
            return
        if isinstance(fault, HostLate):
            self._cut[call.part] = fault.problem
        call.fail(fault)

    def can_begin(self, part: str) -> bool:
        """Whether the part may be called now, by the number of its late calls."""
        return sum(call.is_late for call in self._in_flight.get(part, ())) < _late_max(part)

    async def settle(self) -> None:
        """Let an answer of `LISTS` come in that takes no waiting, so that a quick call in any place
        belongs to the tick that began it. A call is waited for once.
        """
        begun = [
            call for part in LISTS for call in self._in_flight.get(part, ()) if not call.settled
        ]
        for call in begun:
            call.settled = True
        if self._place.settle_s:
            with trio.move_on_after(self._place.settle_s):
                for call in begun:
                    await call.wait()
            return
        for _ in range(3):
            if all(call.is_ended for call in begun):
                return
            await trio.lowlevel.checkpoint()

    def late(self) -> Mapping[str, str]:
        """The parts that are past a deadline and have not answered since, and how."""
        in_flight = {
            part: call.lateness().problem
            for part, calls in self._in_flight.items()
            for call in calls
            if call.is_late
        }
        return self._cut | in_flight


def _late_max(part: str) -> float:
    """The number of late calls of this part with which it is not called again."""
    if part == "stop_all":
        return STOP_ALL_LATE_MAX
    # Recovery restarts a strategy only after the attempt before has ended. A restart that hangs
    # must not open the breakers of other strategies.
    return math.inf if part == "restart" else 1


def answer_of(controller: Any, part: str, *args: Any, **kwargs: Any) -> Any:
    """Call this part. The answer of one in `LISTS` is a tuple, or an awaitable of it.

    A generator runs here, in the call's place.
    """
    answer = getattr(controller, part)(*args, **kwargs)
    if part not in LISTS:
        return answer
    return _listing_later(answer) if inspect.isawaitable(answer) else _list_of(answer)


async def _listing_later(answer: Any) -> tuple[Any, ...]:
    return _list_of(await answer)


def _list_of(answer: Any) -> tuple[Any, ...]:
    if not isinstance(answer, Iterable) or isinstance(answer, str | bytes | Mapping):
        raise NotAList(f"answered a {type(answer).__name__}, not a list")
    return tuple(answer)


class NotAList(Exception):
    """The answer of a part that must give a list is none."""


def tell_end(tell: Callable[[Any], None], message: Any) -> None:
    """Give the end of a call to the actor that began it, which may have ended itself."""
    try:
        tell(message)
    except ActorError as error:
        log.warning("the end of a call to the controller was not heard: %s", error)
