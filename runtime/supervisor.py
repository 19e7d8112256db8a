"""The supervisor: owns its children's mailboxes, runs their lives, and starts a new life when one crashes.

Vocabulary, after Erlang/OTP. A *child* is declared by a spec and lasts as long as the supervisor; a *life* is one
task running one instance of the actor, with an epoch number. `one_for_one` restarts the child that crashed;
`one_for_all` restarts everybody; `rest_for_one` restarts it and all declared after it. More than `intensity`
failures within `period_s` and the supervisor escalates: it stops the rest and raises `SupervisorEscalated`.

A supervisor can itself be a child (`SupervisorSpec`). Names are unique in the whole tree, so one `ref(name)` finds
any actor of it. The manager below is one task that works off events in order; all waiting between two attempts is
done there, interruptibly, so a stop request is served in the middle of a backoff.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec
import trio

from .actor import Actor
from .deadlines import Deadlines
from .errors import (
    ConfigError,
    StartFailed,
    SupervisorEscalated,
    UnknownChild,
)
from .groups import bare_errors, leaf_of
from .life import Drain, Seat, live
from .mailbox import Mailbox, MailboxStatistics, Overflow
from .ref import Address, Ref

__all__ = [
    "Backoff",
    "ChildSpec",
    "ChildStatus",
    "DeadLetter",
    "Supervisor",
    "SupervisorSpec",
    "open_supervisor",
]

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
Restart = Literal["permanent", "transient", "temporary"]
State = Literal["starting", "running", "restarting", "stopping", "stopped"]

DEAD_LETTERS_KEPT = 256
CRASHES_KEPT = 16


class Backoff(msgspec.Struct, frozen=True):
    """Delay before restart n (from 0): min(max_s, min_s * 2^n), less up to `jitter` of it, from its own seeded RNG."""

    min_s: float = 0.0
    max_s: float = 30.0
    jitter: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.min_s <= self.max_s < math.inf:
            raise ConfigError("backoff", f"needs 0 <= min_s <= max_s, finite; got {self.min_s!r} and {self.max_s!r}")
        if not 0 <= self.jitter <= 1:
            raise ConfigError("backoff.jitter", f"{self.jitter!r} is not between 0 and 1")

    def delay_s(self, failures: int, rng: random.Random) -> float:
        delay = min(self.max_s, self.min_s * 2.0 ** min(failures, 64))
        return delay * (1 - self.jitter * rng.random())


class ChildSpec(msgspec.Struct, frozen=True):
    """How to run one actor. `factory` makes a fresh instance for each life; `grace_s` bounds its last message."""

    name: str
    factory: Callable[[], Actor]
    restart: Restart = "permanent"
    capacity: int = 1_024
    overflow: Overflow = "backpressure"
    drain: Drain = "in_hand"
    grace_s: float = 5.0

    def __post_init__(self) -> None:
        _check_name(self.name)
        if isinstance(self.capacity, bool) or not isinstance(self.capacity, int) or self.capacity < 1:
            raise ConfigError(f"{self.name}.capacity", f"{self.capacity!r} is not a positive whole number")
        for field, allowed in (("restart", Restart), ("overflow", Overflow), ("drain", Drain)):
            _check_choice(f"{self.name}.{field}", getattr(self, field), allowed)
        if not 0 <= self.grace_s < math.inf:
            raise ConfigError(f"{self.name}.grace_s", f"{self.grace_s!r} is not finite and >= 0")


class SupervisorSpec(msgspec.Struct, frozen=True):
    """A supervisor as a child of another one; its children's mail survives its own restarts too."""

    name: str
    children: Sequence[ChildSpec | SupervisorSpec]
    strategy: Strategy = "one_for_one"
    intensity: int = 3
    period_s: float = 5.0
    backoff: Backoff = Backoff()
    max_consecutive: int = 10
    stable_after_s: float = 60.0
    restart: Restart = "permanent"

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_choice(f"{self.name}.strategy", self.strategy, Strategy)
        _check_choice(f"{self.name}.restart", self.restart, Restart)
        for field in ("intensity", "max_consecutive"):
            number = getattr(self, field)
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                raise ConfigError(f"{self.name}.{field}", f"{number!r} is not a whole number >= 0")
        for field in ("period_s", "stable_after_s"):
            if not 0 < getattr(self, field) < math.inf:
                raise ConfigError(f"{self.name}.{field}", f"{getattr(self, field)!r} is not positive and finite")


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= 128:
        raise ConfigError("name", f"{name!r} is not a text of 1 to 128 characters")


def _check_choice(field: str, value: object, allowed: Any) -> None:
    if value not in allowed.__args__:
        raise ConfigError(field, f"{value!r} is not one of {', '.join(allowed.__args__)}")


class DeadLetter(msgspec.Struct, frozen=True):
    """A message nobody will answer. Text only: a stored exception would pin whole frames."""

    at_s: float  # trio time
    actor: str
    message_type: str
    reason: str


class ChildStatus(msgspec.Struct, frozen=True):
    """One child at this instant; `children` is empty for an actor."""

    name: str
    state: State
    epoch: int
    restarts: int  # since the supervisor started
    mailbox: MailboxStatistics | None  # None for a supervisor
    waiting_on: tuple[str, ...]
    last_crash: str | None
    children: tuple[ChildStatus, ...] = ()


class _Child(Seat):
    """What outlives a life."""

    def __init__(self, spec: ChildSpec | SupervisorSpec, supervisor: Supervisor) -> None:
        root = supervisor.root
        mailbox = Mailbox(
            spec.name,
            spec.capacity if isinstance(spec, ChildSpec) else 1,
            spec.overflow if isinstance(spec, ChildSpec) else "reject",
            lost=lambda message, reason: root.bury(spec.name, message, reason),
        )
        super().__init__(Address(spec.name, mailbox, root.deadlines), root.ref, root.bury, self._note_error)
        self.spec = spec
        self.supervisor = supervisor
        self.nested = Supervisor(spec, root=root) if isinstance(spec, SupervisorSpec) else None
        factory = spec.factory if isinstance(spec, ChildSpec) else None
        if isinstance(factory, type) and issubclass(factory, Actor):
            mailbox.accepts = factory._handlers.keys()  # a factory that is no class tells with its first instance
        self.state: State = "stopped"
        self.restarts = 0
        self.failures_in_a_row = 0
        self.started_at = -math.inf
        self.last_crash: str | None = None
        self.scope = trio.CancelScope()
        self.ended = trio.Event()

    def _note_error(self, error: Exception) -> None:
        self.supervisor._record(self, error)

    def status(self) -> ChildStatus:
        return ChildStatus(
            name=self.name,
            state=self.state,
            epoch=self.epoch,
            restarts=self.restarts,
            mailbox=None if self.nested else self.mailbox.statistics(),
            waiting_on=tuple(sorted({address.name for address in self.address.waiting_on})),
            last_crash=self.last_crash,
            children=self.nested.tree() if self.nested else (),
        )

    def close_mail(self, reason: str) -> None:
        self.mailbox.close(reason)
        if self.nested is not None:
            self.nested.close_mail(reason)


class _Ready(msgspec.Struct, frozen=True):
    child: Any
    epoch: int


class _Ended(msgspec.Struct, frozen=True):
    child: Any
    epoch: int
    error: Exception | None


class _Stop(msgspec.Struct, frozen=True):
    child: Any
    reason: str
    done: trio.Event


_Event = _Ready | _Ended | _Stop | None  # None: stop the supervisor itself


class _Restarting:
    """A group that is coming back: its members still to start, in order, and when to go on."""

    def __init__(self, due: float, members: list[_Child]) -> None:
        self.due = due
        self.members = members
        self.starting: _Child | None = None


class Supervisor:
    """Made by `open_supervisor`. `ref`, `tree`, `statistics`, `stop_child` and `drill` may be called at any time."""

    def __init__(self, spec: SupervisorSpec, root: Supervisor | None = None) -> None:
        self.spec = spec
        self.root: Supervisor = root or self
        self.deadlines: Deadlines = Deadlines() if root is None else root.deadlines
        self.dead_letters: deque[DeadLetter] = deque(maxlen=DEAD_LETTERS_KEPT)
        self.dead_letter_count = 0
        self._children = {child.name: child for child in (_Child(one, self) for one in spec.children)}
        if len(self._children) != len(spec.children) or (root is None and _duplicates(self)):
            raise ConfigError(f"{spec.name}.children", "two children share a name")
        # Every actor here and below, by name: the tree is fixed once it is declared.
        self._actors = {child.name: child for child in self._walk() if child.nested is None}
        self.on_interrupt: Callable[[], None] = lambda: None  # what ends the host's block at once
        self._rng = random.Random(spec.backoff.seed)
        self._reset()

    def _reset(self) -> None:
        self._stamps: deque[float] = deque()
        self._crashes: deque[str] = deque(maxlen=CRASHES_KEPT)
        self._restarting: list[_Restarting] = []
        self._events: deque[_Event] = deque()
        self._bell = trio.Event()
        self._nursery: trio.Nursery | None = None
        # Whether the stop to come is for good: mail outlives the restarts of a nested supervisor, and nothing more.
        self._final = self.root is self
        for child in self._children.values():
            child.failures_in_a_row = 0

    # -- for everybody

    def ref(self, name: str) -> Ref:
        """The ref of an actor anywhere in the tree. Raises `UnknownChild`."""
        return Ref(self._actor(name).address)

    def tree(self) -> tuple[ChildStatus, ...]:
        """The children at this instant, in the order of declaration. A temporary child that ended is gone from it."""
        return tuple(
            child.status()
            for child in self._children.values()
            if not (child.spec.restart == "temporary" and child.state == "stopped" and child.epoch)
        )

    def statistics(self) -> dict[str, MailboxStatistics]:
        """Mailbox counters by actor, over the whole tree."""
        return {child.name: child.mailbox.statistics() for child in self._walk() if child.nested is None}

    async def stop_child(self, name: str, reason: str = "requested") -> None:
        """Stop one child for good: drain, cancel after its grace, run `on_stop`, refuse further mail."""
        child = next((one for one in self._walk() if one.name == name), None)
        if child is None:
            raise UnknownChild(name, [one.name for one in self._walk()])
        if child.supervisor._nursery is None:  # over, or waiting for its own restart: there is no life to end
            child.supervisor._forget(child, reason)
            return
        done = trio.Event()
        child.supervisor._post(_Stop(child, reason, done))
        await done.wait()

    def drill(self, name: str, reason: str = "drill") -> None:
        """Crash an actor on purpose before its next message: how a runbook, or a demo, proves that restarts work."""
        child = self._actor(name)
        child.crash(reason)

    def bury(self, actor: str, message: Any, reason: str) -> None:
        """Record a message that nobody will answer."""
        self.dead_letter_count += 1
        letter = DeadLetter(trio.current_time(), actor, type(message).__qualname__, reason)
        self.dead_letters.append(letter)

    def _walk(self) -> Iterator[_Child]:
        for child in self._children.values():
            yield child
            if child.nested is not None:
                yield from child.nested._walk()

    def _actor(self, name: str) -> _Child:
        if name not in self._actors:
            raise UnknownChild(name, list(self._actors))
        return self._actors[name]

    # -- the manager: one task, events in order

    async def run(self, ready: Callable[[], None]) -> None:
        """Start the children, call `ready`, then supervise until told to stop or cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            if self.root is self:
                nursery.start_soon(self.deadlines.run)
            try:
                if await self._start_all():
                    ready()
                    await self._manage()
            finally:
                with trio.CancelScope(shield=True):
                    await self._stop_all("supervisor stopped")
                for event in self._events:
                    if isinstance(event, _Stop):
                        self._forget(event.child, event.reason)
                        event.done.set()
                self._reset()
                if self.root is self:
                    self.deadlines.stop()

    def request_stop(self, *, final: bool = True) -> None:
        """End `run`, soon. What is still queued then has its final state, unless this is for a restart."""
        self._final = self._final or final
        self._post(None)

    def close_mail(self, reason: str) -> None:
        """After the last life: whatever is still queued, here and below, will never be answered."""
        for child in self._children.values():
            child.close_mail(reason)

    def _post(self, event: _Event) -> None:
        self._events.append(event)
        self._bell.set()

    async def _start_all(self) -> bool:
        """First start, in order, each ready before the next begins; False when told to stop meanwhile.

        A failure is raised, which undoes those before it. Whoever was stopped for good in an earlier run stays so.
        """
        for child in self._children.values():
            if self._gone(child):
                continue
            self._begin_life(child)
            if not await self._first_outcome(child):
                return False
        return True

    async def _first_outcome(self, child: _Child) -> bool:
        postponed: list[_Event] = []
        try:
            return await self._await_ready(child, postponed)
        finally:
            self._events.extendleft(reversed(postponed))

    async def _await_ready(self, child: _Child, postponed: list[_Event]) -> bool:
        while True:
            await self._ring()
            event = self._events.popleft()
            if isinstance(event, _Stop) or (isinstance(event, _Ended) and event.child is not child and not event.error):
                postponed.append(event)
            elif isinstance(event, _Ready):
                child.state = "running"
                return True
            elif isinstance(event, _Ended):  # this one, or one that was ready: the start as a whole has failed
                if isinstance(event.error, StartFailed):
                    raise event.error
                raise StartFailed(event.child.name, _text(event.error)) from event.error
            else:
                return False

    async def _ring(self) -> None:
        if not self._events:
            self._bell = trio.Event()
            await self._bell.wait()

    async def _manage(self) -> None:
        while True:
            due = min((group.due for group in self._restarting if group.starting is None), default=math.inf)
            with trio.move_on_at(due):
                await self._ring()
            while self._events:
                event = self._events.popleft()
                if event is None:
                    return
                await self._on_event(event)
            for group in [g for g in self._restarting if g.starting is None and g.due <= trio.current_time()]:
                self._start_next(group)

    async def _on_event(self, event: _Ready | _Ended | _Stop) -> None:
        child: _Child = event.child
        if isinstance(event, _Stop):
            await self._stop_for_good(child, event.reason)
            event.done.set()
        elif event.epoch != child.epoch or child.state not in ("starting", "running"):
            return  # news of a life that we ended ourselves
        elif isinstance(event, _Ready):
            child.state = "running"
            for group in [g for g in self._restarting if g.starting is child]:
                self._start_next(group)
        else:
            await self._on_ended(child, event.error)

    def _start_next(self, group: _Restarting) -> None:
        """Begin the group's next member, or forget the group when all are up."""
        if not group.members:
            self._restarting.remove(group)
            return
        group.starting = group.members.pop(0)
        self._begin_life(group.starting)

    async def _on_ended(self, child: _Child, error: Exception | None) -> None:
        failed = error is not None
        child.state = "restarting"
        if child.spec.restart == "temporary" or (child.spec.restart == "transient" and not failed):
            self._forget(child, "ended" if not failed else f"crashed: {child.last_crash}")
            return
        self._stamp(child)
        group = next((g for g in self._restarting if g.starting is child), None)
        members = await self._group_of(child, group)
        delay = self.spec.backoff.delay_s(child.failures_in_a_row - 1, self._rng)
        self._restarting.append(_Restarting(trio.current_time() + delay, members))

    def _stamp(self, child: _Child) -> None:
        """Count one failure; raise `SupervisorEscalated` when the window or the run of failures is exceeded."""
        now = trio.current_time()
        if now - child.started_at >= self.spec.stable_after_s:
            child.failures_in_a_row = 0
        child.failures_in_a_row += 1
        # The window's edge is inclusive: a stamp exactly period_s old still counts.
        while self._stamps and self._stamps[0] < now - self.spec.period_s:
            self._stamps.popleft()
        self._stamps.append(now)
        if len(self._stamps) > self.spec.intensity:
            why = f"{len(self._stamps)} failures within {self.spec.period_s:g} s, {self.spec.intensity} allowed"
        elif child.failures_in_a_row > self.spec.max_consecutive:
            why = f"{child.failures_in_a_row} failures in a row of {child.name!r}, none healthy for long enough"
        else:
            return
        raise SupervisorEscalated(self.spec.name, why, tuple(self._crashes))

    async def _group_of(self, child: _Child, failed_group: _Restarting | None) -> list[_Child]:
        """Who restarts with `child`: siblings by strategy are stopped here, last declared first."""
        order = list(self._children.values())
        if self.spec.strategy == "one_for_one":
            together = {child}
        elif self.spec.strategy == "one_for_all":
            together = set(order)
        else:
            together = set(order[order.index(child) :])
        if failed_group is not None:
            together |= set(failed_group.members)
        # Groups that overlap become one: nobody is started twice.
        for group in [g for g in self._restarting if g is failed_group or together & {*g.members, g.starting}]:
            together |= {*group.members, *((group.starting,) if group.starting else ())}
            self._restarting.remove(group)
        members = [one for one in order if one in together and (one is child or not self._gone(one))]
        for sibling in reversed(members):
            if sibling is not child and sibling.state in ("starting", "running"):
                await self._end_life(sibling, "restarting with a sibling", final=sibling.spec.restart == "temporary")
                if sibling.spec.restart == "temporary":
                    self._forget(sibling, "stopped with a sibling")
                else:
                    sibling.state = "restarting"
        return [one for one in members if not self._gone(one)]

    def _gone(self, child: _Child) -> bool:
        return child.state == "stopped" and child.mailbox.closed is not None

    def _forget(self, child: _Child, reason: str) -> None:
        child.state = "stopped"
        child.close_mail(reason)
        for group in list(self._restarting):
            if group.starting is child:
                group.starting = None
                self._start_next(group)
            elif child in group.members:
                group.members.remove(child)

    async def _stop_for_good(self, child: _Child, reason: str) -> None:
        if child.state in ("starting", "running"):
            await self._end_life(child, reason, final=True)
        if not self._gone(child):
            self._forget(child, reason)

    async def _stop_all(self, reason: str) -> None:
        """All children, last declared first. Also those being stopped already, if that was interrupted."""
        for child in reversed(self._children.values()):
            if child.state in ("starting", "running", "stopping"):
                await self._end_life(child, reason, final=self._final)
            child.state = "stopped"
            if self._final:
                child.close_mail(reason)

    # -- lives

    def _begin_life(self, child: _Child) -> None:
        child.state = "starting"
        child.address.epoch += 1
        child.address.token = trio.lowlevel.current_trio_token()
        child.restarts += child.epoch > 1
        child.started_at = trio.current_time()
        child.clear()
        if child.nested is not None:
            child.nested._reset()
        # Shielded: only its supervisor ends a life, in its turn. A cancelled host cancels us, and we stop it in order.
        child.scope = trio.CancelScope(shield=True)
        child.ended = trio.Event()
        assert self._nursery is not None
        self._nursery.start_soon(self._life, child, child.epoch, name=f"{child.name}#{child.epoch}")

    async def _life(self, child: _Child, epoch: int) -> None:
        """Run one life and turn every Exception it ends with into an event; nothing of a child reaches the nursery."""
        error: Exception | None = None
        try:
            with child.scope:
                if child.nested is not None:
                    await child.nested.run(lambda: self._post(_Ready(child, epoch)))
                else:
                    assert isinstance(child.spec, ChildSpec)
                    await live(child, child.spec.factory, lambda: self._post(_Ready(child, epoch)))
        except Exception as caught:  # noqa: BLE001  the one place where any failure of an actor becomes a fact
            error = leaf_of(caught)
            self._record(child, error)
        except BaseException:
            # An interrupt, not a crash: it ends the tree, and nobody may wait for an answer from here meanwhile.
            child.close_mail("interrupted")
            self.root.on_interrupt()
            raise
        finally:
            child.ended.set()
        self._post(_Ended(child, epoch, error))

    def _record(self, child: _Child, error: Exception) -> None:
        child.last_crash = _text(error)
        self._crashes.append(f"{child.name} (epoch {child.epoch}): {child.last_crash}")

    async def _end_life(self, child: _Child, reason: str, *, final: bool) -> None:
        """Ask a life to end, cancel it after its grace, and wait for it. Bounded by grace and on_stop's deadline.

        A `final` end closes the intake first and drains as declared; else the message in hand is finished, no more.
        """
        child.state = "stopping"
        child.stop_reason = reason
        if child.nested is not None:
            child.nested.request_stop(final=final)
            await child.ended.wait()
            return
        assert isinstance(child.spec, ChildSpec)
        if final:
            child.drain = child.spec.drain
            child.mailbox.refuse(reason)
        child.interrupt()
        if child.drain != "none":
            with trio.move_on_after(child.spec.grace_s):
                await child.ended.wait()
        child.scope.cancel()
        await child.ended.wait()


def _duplicates(supervisor: Supervisor) -> bool:
    names = [child.name for child in supervisor._walk()]
    return len(names) != len(set(names))


def _text(error: Exception | None) -> str:
    return f"{type(error).__name__}: {error}" if error is not None else "ended during the start"


@asynccontextmanager
async def open_supervisor(
    children: Sequence[ChildSpec | SupervisorSpec],
    *,
    strategy: Strategy = "one_for_one",
    intensity: int = 3,
    period_s: float = 5.0,
    backoff: Backoff = Backoff(),  # noqa: B008  frozen
    max_consecutive: int = 10,
    stable_after_s: float = 60.0,
    name: str = "root",
) -> AsyncIterator[Supervisor]:
    """Start the children in order; stop them in reverse when the block is left, however it is left.

    Raises: `StartFailed`, with what the actor raised as its cause; `SupervisorEscalated` when restarting did not help
    (the block is cancelled); `ConfigError`.
    """
    spec = SupervisorSpec(
        name,
        tuple(children),
        strategy=strategy,
        intensity=intensity,
        period_s=period_s,
        backoff=backoff,
        max_consecutive=max_consecutive,
        stable_after_s=stable_after_s,
    )
    supervisor = Supervisor(spec)

    async def supervise(task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as scope:

            def ready() -> None:
                # From here on a cancelled host ends its block first; only then are the children stopped, in order.
                # A host cancelled in this very tick never enters its block, and would not come to stop us.
                scope.shield = trio.current_effective_deadline() > -math.inf
                task_status.started()

            await supervisor.run(ready)

    try:
        with bare_errors():
            async with trio.open_nursery() as nursery:
                supervisor.on_interrupt = nursery.cancel_scope.cancel
                await nursery.start(supervise)
                try:
                    yield supervisor
                finally:
                    supervisor.request_stop()
    finally:
        supervisor.close_mail("supervisor stopped")
