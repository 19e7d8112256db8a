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

import logging
import math
import random
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Generator,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import trio

from .actor import Actor
from .deadlines import Deadlines
from .envelope import ANSWERED, WAITING
from .errors import (
    ActorStopped,
    ConfigError,
    ReplaceFailed,
    StartFailed,
    SupervisorEscalated,
    UnknownChild,
    text_of,
)
from .groups import bare_errors, leaf_of
from .life import Seat, fail_askers, live, starts_at_once
from .mailbox import NOTHING, Mailbox, MailboxStatistics, message_of
from .message import key_of
from .records import (
    ChildStatus,
    CleanupFailed,
    Crashed,
    DeadLetter,
    Event,
    Log,
    Quarantined,
    Replaced,
    Restarted,
    State,
    Stuck,
    Terminated,
)
from .ref import Address, Ref, wait_path
from .spec import Backoff, ChildSpec, SupervisorSpec, check_attempts
from .stack import Watchdog, stack_of
from .strategy import Strategy, restart_together
from .window import FailureWindow

__all__ = ["Supervisor", "Watch", "open_supervisor"]

log = logging.getLogger("fundops.runtime")

RECORDS_KEPT = 256
CRASHES_KEPT = 16


class _Child(Seat):
    """What outlives a life."""

    def __init__(self, spec: ChildSpec | SupervisorSpec, supervisor: Supervisor) -> None:
        root = supervisor.root
        # A supervisor has no mail; what it needs of a seat is a way to be asked to end.
        settings = (
            spec if isinstance(spec, ChildSpec) else ChildSpec(spec.name, Actor, overflow="reject")
        )
        mailbox = Mailbox(
            spec.name, settings.capacity, settings.overflow, self.bury, settings.conflate_by
        )
        super().__init__(
            Address(spec.name, mailbox, root.deadlines),
            max_attempts=settings.max_attempts,
            messages_per_turn=settings.messages_per_turn,
            on_stop_deadline_s=settings.on_stop_deadline_s,
        )
        self.spec = spec
        self.settings = settings
        self.supervisor = supervisor
        self.nested = Supervisor(spec, root=root) if isinstance(spec, SupervisorSpec) else None
        self.factory = settings.factory
        # What the mailbox is to accept once the present life is ready.
        self.promised: tuple[Container[type], Container[type]] = (mailbox.accepts, mailbox.controls)
        if isinstance(self.factory, type) and issubclass(self.factory, Actor):
            self.promise(self.factory)  # a factory that is no class tells with its first instance
            mailbox.accepts, mailbox.controls = self.promised
        self.state: State = "stopped"
        self.restarts = 0
        self.ready_at = math.inf  # trio time; since when its present life has been running
        self.last_crash: str | None = None
        self.replacement: _Replace | None = None
        self.scope = trio.CancelScope()
        self.task: trio.lowlevel.Task | None = None
        self.released = trio.Event()  # its life has ended, or is not waited for any longer
        self.terminated: Terminated | None = None
        self.gone = trio.Event()
        self.followers: set[_Child] = set()
        self.followed: set[_Child] = set()

    # -- what a life says

    def promise(self, actor: type[Actor]) -> None:
        """Raises: `ConfigError` when the child's settings do not suit the actor."""
        check_attempts(self.settings, actor, self.supervisor.spec.intensity)
        self.handlers = actor._handlers
        self.promised = (actor._accepts, actor._controls)

    def ref(self, name: str) -> Ref:
        return self.supervisor.root.ref(name)

    def bury(self, message: Any, reason: str) -> None:
        self.supervisor.root.bury(self.name, message, reason)

    def quarantine(self, message: Any, attempts: int) -> None:
        kind = type(message).__qualname__
        self.say(Quarantined(trio.current_time(), self.name, kind, attempts, key_of(message)))

    def note_cleanup(self, error: str) -> None:
        self.last_crash = error
        self.say(CleanupFailed(trio.current_time(), self.name, self.epoch, error))

    def say(self, event: Event) -> None:
        self.supervisor.root.events.append(event)

    def follow(self, name: str) -> None:
        other = self.supervisor.root._actor(name)
        if other.terminated is not None:
            self.hear_of(other.terminated)
        else:
            other.followers.add(self)
            self.followed.add(other)

    def unfollow(self) -> None:
        for other in self.followed:
            other.followers.discard(self)
        self.followed.clear()

    # -- what becomes of it

    def crashed(self, error: Exception) -> Crashed:
        self.last_crash = text_of(error)
        crash = Crashed(trio.current_time(), self.name, self.epoch, self.last_crash)
        self.say(crash)
        return crash

    def retire(self, reason: str) -> None:
        """Gone for good, here and below: what is queued has its final state, and who watches is told. Idempotent."""
        self.mailbox.close(reason)
        if self.nested is not None:
            self.nested.retire(reason)
        elif self.terminated is None:
            self.terminated = Terminated(
                trio.current_time(), self.name, self.mailbox.closed or reason
            )
            self.gone.set()
            self.say(self.terminated)
            for follower in tuple(self.followers):
                follower.followed.discard(self)
                follower.hear_of(self.terminated)
            self.followers.clear()

    def status(self) -> ChildStatus:
        mailbox = self.mailbox
        in_hand = [*mailbox.batch, *((mailbox.hand,) if mailbox.hand is not NOTHING else ())]
        actor = self.nested is None
        return ChildStatus(
            name=self.name,
            # Its end may wait to be looked at while another one is being stopped.
            state="restarting"
            if self.state in ("starting", "running") and self.released.is_set()
            else self.state,
            epoch=self.epoch,
            restarts=self.restarts,
            restarts_in_window=self.supervisor.failures_of(self),
            capacity=mailbox.capacity if actor else None,
            mailbox=mailbox.statistics() if actor else None,
            in_hand=type(message_of(in_hand[0])).__qualname__ if in_hand else None,
            in_hand_s=max(0.0, self.address.deadlines.now() - mailbox.hand_since)
            if in_hand
            else None,
            waiting_on=tuple(sorted({address.name for address in self.address.waiting_on})),
            last_crash=self.last_crash,
            children=self.nested.tree() if self.nested else (),
        )


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


class _Replace:
    """A request to go on with another factory, until its first life is ready or the old factory serves again."""

    def __init__(self, child: _Child, factory: Callable[[], Actor]) -> None:
        self.child = child
        self.factory = factory
        self.before = child.factory
        self.error: Exception | None = None
        self.done = trio.Event()

    def begin(self) -> None:
        self.before, self.child.factory = self.child.factory, self.factory
        self.child.replacement = self

    def roll_back(self, error: Exception) -> None:
        self.child.factory, self.error = self.before, error

    def finish(self) -> None:
        self.child.replacement = None
        self.done.set()


_Event = _Ready | _Ended | _Stop | _Replace | None  # None: stop the supervisor itself


class _Restarting:
    """A group that is coming back: its members still to start, in order, and when to go on."""

    def __init__(self, due: float, members: list[_Child]) -> None:
        self.due = due
        self.members = members
        self.starting: _Child | None = None

    def unfinished(self) -> set[_Child]:
        """Its members that are not up yet."""
        return {*self.members, *((self.starting,) if self.starting is not None else ())}


class Watch:
    """`await` it for the `Terminated` of an actor. It may be awaited late, and more than once."""

    def __init__(self, child: _Child) -> None:
        self._child = child

    def __await__(self) -> Generator[Any, Any, Terminated]:
        return self._wait().__await__()

    async def _wait(self) -> Terminated:
        await self._child.gone.wait()
        assert self._child.terminated is not None
        return self._child.terminated


class Supervisor:
    """Made by `open_supervisor`. All that is public may be called at any time from the trio run it belongs to.

    `dead_letters` are the messages nobody will answer, `events` what became of the actors: both bounded, with an exact
    count and at most one subscriber.
    """

    def __init__(
        self,
        spec: SupervisorSpec,
        root: Supervisor | None = None,
        *,
        stuck_after_s: float | None = None,
    ) -> None:
        self.spec = spec
        self.root: Supervisor = root or self
        self.stuck_after_s: float | None = root.stuck_after_s if root else stuck_after_s
        self.deadlines: Deadlines = root.deadlines if root else Deadlines()
        self.dead_letters: Log[DeadLetter] = root.dead_letters if root else Log(RECORDS_KEPT)
        self.events: Log[Event] = root.events if root else Log(RECORDS_KEPT)
        self._children = {
            child.name: child for child in (_Child(one, self) for one in spec.children)
        }
        if len(self._children) != len(spec.children) or (root is None and _duplicates(self)):
            raise ConfigError(f"{spec.name}.children", "two children share a name")
        # Everybody here and below, by name: the tree is fixed once it is declared.
        self._members = {child.name: child for child in self._walk()}
        self.on_interrupt: Callable[[], None] = lambda: None  # what ends the host's block at once
        self.down = trio.Event()  # all children have ended, or are reported as stuck
        self._rng = random.Random(spec.backoff.seed)
        self._window = FailureWindow(
            intensity=spec.intensity,
            period_s=spec.period_s,
            max_consecutive=spec.max_consecutive,
            stable_after_s=spec.stable_after_s,
        )
        self._reset()

    def _reset(self) -> None:
        self._window.clear()
        self._crashes: deque[Crashed] = deque(maxlen=CRASHES_KEPT)
        self._restarting: list[_Restarting] = []
        self._events: deque[_Event] = deque()
        self._bell = trio.Event()
        self._idle: trio.lowlevel.Task | None = None  # the manager, while it has nothing to do
        self._nursery: trio.Nursery | None = None
        # Whether the stop to come is for good: mail outlives the restarts of a nested supervisor, and nothing more.
        self._final = self.root is self

    # -- for everybody

    def __repr__(self) -> str:
        children = ", ".join(f"{one.name} {one.state}#{one.epoch}" for one in self.tree())
        return f"<Supervisor {self.spec.name}: {children or 'no children'}>"

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
        return {
            name: child.mailbox.statistics()
            for name, child in self._members.items()
            if child.nested is None
        }

    def watch(self, name: str) -> Watch:
        """`await supervisor.watch(name)` gives the one `Terminated` of that actor, at once if it is gone already.

        A restart is no end; it is one of the `events`. An actor watches another with `Context.watch`.

        Raises: `UnknownChild`.
        """
        return Watch(self._actor(name))

    async def replace(self, name: str, factory: Callable[[], Actor]) -> None:
        """Serve `name` by what another factory makes, from the next message on; its mail and its refs stay.

        The present life finishes its message in hand within its grace. Returns when the new one is ready. If that does
        not start, the old factory serves again. Cancelling the caller does not stop the replacement.

        Raises: `ReplaceFailed`, with what the new actor raised as its cause; `ActorStopped`; `UnknownChild`;
        `ConfigError`.
        """
        child = self._actor(name)
        if not callable(factory):
            raise ConfigError("factory", f"{factory!r} cannot be called")
        if child.terminated is not None:
            raise ActorStopped(name, child.terminated.reason)
        if child.supervisor._nursery is None:
            raise ReplaceFailed(name, "its supervisor is not running")
        request = _Replace(child, factory)
        child.supervisor._post(request)
        await request.done.wait()
        if isinstance(request.error, ActorStopped | ReplaceFailed):
            raise request.error
        if request.error is not None:
            raise ReplaceFailed(name, text_of(request.error)) from request.error

    async def stop_child(self, name: str, reason: str = "requested") -> None:
        """Stop one child for good: drain, cancel after its grace, run `on_stop`, refuse further mail."""
        child = self._members.get(name)
        if child is None:
            raise UnknownChild(name, list(self._members))
        if (
            child.supervisor._nursery is None
        ):  # over, or waiting for its own restart: there is no life to end
            child.supervisor._forget(child, reason)
            return
        done = trio.Event()
        child.supervisor._post(_Stop(child, reason, done))
        await done.wait()

    def drill(self, name: str, reason: str = "drill") -> None:
        """Crash an actor on purpose before its next message: how a runbook, or a demo, proves that restarts work."""
        self._actor(name).crash(reason)

    # -- for the rest of the runtime

    def bury(self, actor: str, message: Any, reason: str) -> None:
        """Record a message that nobody will answer."""
        letter = DeadLetter(trio.current_time(), actor, type(message).__qualname__, reason)
        # A letter about a letter would come back for ever.
        self.dead_letters.append(letter, tell=not isinstance(message, DeadLetter))

    def failures_of(self, child: _Child) -> int:
        """Failures of the child that still count towards the intensity."""
        return self._window.count(child.name, self.deadlines.now())

    def retire(self, reason: str) -> None:
        """After the last life: whatever is still queued, here and below, will never be answered."""
        for child in self._children.values():
            child.retire(reason)

    def request_stop(self, *, final: bool = True) -> None:
        """End `run`, soon. What is still queued then has its final state, unless this is for a restart."""
        self._final = self._final or final
        self._post(None)

    def _walk(self) -> Iterator[_Child]:
        for child in self._children.values():
            yield child
            if child.nested is not None:
                yield from child.nested._walk()

    def _actor(self, name: str) -> _Child:
        child = self._members.get(name)
        if child is None or child.nested is not None:
            raise UnknownChild(
                name, [one.name for one in self._members.values() if one.nested is None]
            )
        return child

    def _watchdog(self) -> Watchdog | None:
        if self.root is not self or self.stuck_after_s is None:
            return None

        def running() -> Iterator[tuple[str, trio.lowlevel.Task, object]]:
            # Read from another thread: each attribute once, as the loop may change it at any time.
            for child in self._members.values():
                task = child.task
                if task is not None and child.nested is None:
                    mailbox = child.mailbox
                    yield (
                        child.name,
                        task,
                        (child.epoch, mailbox.done, id(mailbox.hand), mailbox.batch),
                    )

        def report(name: str, for_s: float, stack: str) -> None:
            child = self._members[name]
            child.say(Stuck(trio.current_time(), name, child.epoch, for_s, stack))

        return Watchdog(self.stuck_after_s, running, report)

    # -- the manager: one task, events in order

    async def run(self, ready: Callable[[], None]) -> None:
        """Start the children, call `ready`, then supervise until told to stop or cancelled."""
        watchdog = self._watchdog()
        reason = "supervisor stopped"
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            if self.root is self:
                nursery.start_soon(self.deadlines.run)
            try:
                if await self._start_all():
                    ready()
                    await self._manage()
            except SupervisorEscalated:
                reason = "supervisor escalated"
                raise
            finally:
                try:
                    with trio.CancelScope(shield=True):
                        await self._stop_all(reason)
                finally:
                    self.down.set()
                    self._refuse_requests()
                    self._reset()
                    if self.root is self:
                        self.deadlines.stop()
                    if watchdog is not None:
                        watchdog.stop()

    def _refuse_requests(self) -> None:
        """There is no manager any more to serve what has been asked of it."""
        for event in self._events:
            if isinstance(event, _Stop):
                self._forget(event.child, event.reason)
                event.done.set()
            elif isinstance(event, _Replace):
                event.error = ReplaceFailed(event.child.name, "its supervisor has stopped")
                event.done.set()

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
            if child.state == "starting" and not await self._first_outcome(child):
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
            if event is None:
                return False
            if isinstance(event, _Stop):
                await self._on_event(event)
                if event.child is child:
                    return True  # the others start without it
            elif isinstance(event, _Ready):
                self._note_ready(child)
                return True
            elif isinstance(event, _Replace) or (event.child is not child and _may_end(event)):
                postponed.append(event)
            elif event.epoch == event.child.epoch and not self._gone(event.child):
                # This one, or one that was ready: the start as a whole has failed.
                if isinstance(event.error, StartFailed):
                    raise event.error
                raise StartFailed(event.child.name, text_of(event.error)) from event.error

    async def _ring(self) -> None:
        if not self._events:
            self._bell = trio.Event()
            await self._bell.wait()

    async def _manage(self) -> None:
        while True:
            if self._restarting:
                due = min(
                    (group.due for group in self._restarting if group.starting is None),
                    default=math.inf,
                )
                with trio.move_on_at(due):
                    await self._ring()
            else:
                self._idle = trio.lowlevel.current_task()
                try:
                    await self._ring()
                finally:
                    self._idle = None
            for _ in range(len(self._events)):
                event = self._events.popleft()
                if event is None:
                    return
                await self._on_event(event)
            if self._restarting:
                now = trio.current_time()
                for group in [g for g in self._restarting if g.starting is None and g.due <= now]:
                    self._start_next(group)
            if self._events:  # what this has led to at once; others have their turn first
                await trio.lowlevel.checkpoint()

    async def _on_event(self, event: _Ready | _Ended | _Stop | _Replace) -> None:
        child: _Child = event.child
        if isinstance(event, _Stop):
            try:
                await self._stop_for_good(child, event.reason)
            finally:
                event.done.set()
        elif isinstance(event, _Replace):
            await self._replace(event)
        elif isinstance(event, _Ended) and child.state == "stuck" and event.epoch == child.epoch:
            child.state = "restarting"
            if self._groups_starting(child):
                self._begin_again(child)
        elif event.epoch != child.epoch or child.state not in ("starting", "running"):
            return  # news of a life that we ended ourselves
        elif isinstance(event, _Ready):
            self._note_ready(child)
            self._go_on_after(child)
        else:
            await self._on_ended(child, event.error)

    def _note_ready(self, child: _Child) -> None:
        child.state = "running"
        child.ready_at = now = trio.current_time()
        child.mailbox.accepts, child.mailbox.controls = child.promised
        if child.epoch == 1:
            return
        replacement = child.replacement
        if replacement is None:
            child.say(Restarted(now, child.name, child.epoch))
        else:
            if replacement.error is None:
                child.say(Replaced(now, child.name, child.epoch))
            replacement.finish()

    async def _replace(self, request: _Replace) -> None:
        child = request.child
        if self._gone(child):
            request.error = ActorStopped(child.name, child.mailbox.closed or "stopped")
            request.done.set()
        elif child.replacement is not None:
            request.error = ReplaceFailed(child.name, "another replacement is under way")
            request.done.set()
        else:
            request.begin()
            if child.state in ("starting", "running"):
                await self._end_life(
                    child, "replaced", final=False, at_once=child.state == "starting"
                )
                self._begin_again(child)
            # Else it waits for its restart, and starts in its turn.

    def _begin_again(self, child: _Child) -> None:
        """A life in the place of one that has just ended; a group that waits for the child goes on if it is up."""
        if child.task is None:
            self._begin_life(child)
        elif not self._groups_starting(
            child
        ):  # stuck: its next life begins when this one ends, if it ever does
            group = _Restarting(trio.current_time(), [])
            group.starting = child
            self._restarting.append(group)
        if child.state == "running":
            self._go_on_after(child)

    def _groups_starting(self, child: _Child) -> list[_Restarting]:
        return [group for group in self._restarting if group.starting is child]

    def _go_on_after(self, child: _Child) -> None:
        for group in self._groups_starting(child):
            self._start_next(group)

    def _start_next(self, group: _Restarting) -> None:
        """Begin the group's next members, up to one that takes its time; forget the group when all are up."""
        while group.members:
            child = group.starting = group.members.pop(0)
            if child.task is not None:
                return  # stuck: until its old life has ended
            self._begin_life(child)
            if child.state == "starting":
                return
        self._restarting.remove(group)

    async def _on_ended(self, child: _Child, error: Exception | None) -> None:
        failed = error is not None
        replacement = child.replacement
        if replacement is not None and error is not None and child.state == "starting":
            if replacement.error is None:
                replacement.roll_back(error)
                self._begin_again(child)
                return
            replacement.finish()  # the old one does not start any more either: from here on it is an ordinary crash
        child.state = "restarting"
        if child.spec.restart == "temporary" or (child.spec.restart == "transient" and not failed):
            self._forget(child, "ended" if not failed else f"crashed: {child.last_crash}")
            return
        self._stamp(child)
        members = await self._group_of(child)
        delay = self.spec.backoff.delay_s(self._window.in_a_row(child.name) - 1, self._rng)
        if not delay and members == [child]:
            self._begin_life(child)
        else:
            self._restarting.append(_Restarting(trio.current_time() + delay, members))

    def _stamp(self, child: _Child) -> None:
        """Count one failure; raise `SupervisorEscalated` when the window or the run of failures is exceeded."""
        now = trio.current_time()
        why = self._window.record(child.name, now, running_since_s=child.ready_at)
        if why is not None:
            raise SupervisorEscalated(self.spec.name, why, tuple(self._crashes))

    async def _group_of(self, child: _Child) -> list[_Child]:
        """The children that restart with `child`. Its siblings among them are stopped here, last declared first."""
        strategy = self.spec.strategy
        if strategy == "one_for_one" and not self._restarting:
            return [child]  # the common case, without a walk over all children
        order = list(self._children.values())
        under_way = [group.unfinished() for group in self._restarting]
        together = restart_together(strategy, order, child, under_way)
        self._restarting = [
            group
            for group, unfinished in zip(self._restarting, under_way, strict=True)
            if unfinished.isdisjoint(together)
        ]
        members = [member for member in together if member is child or not self._gone(member)]
        for sibling in reversed(members):
            if sibling is not child and sibling.state in ("starting", "running"):
                temporary = sibling.spec.restart == "temporary"
                # What it waits for comes up again only after its own end: its grace would be spent in vain.
                hopeless = sibling.state == "starting" or bool(
                    wait_path(sibling.address, child.address)
                )
                await self._end_life(
                    sibling, "restarting with a sibling", final=temporary, at_once=hopeless
                )
                if temporary:
                    self._forget(sibling, "stopped with a sibling")
                elif (
                    sibling.task is None
                ):  # else it is stuck, and stays so until its life has ended
                    sibling.state = "restarting"
        return [member for member in members if not self._gone(member)]

    def _gone(self, child: _Child) -> bool:
        return child.state in ("stopped", "stuck") and child.mailbox.closed is not None

    def _end_replacement(self, child: _Child, reason: str) -> None:
        if child.replacement is not None:
            child.replacement.roll_back(ActorStopped(child.name, reason))
            child.replacement.finish()

    def _forget(self, child: _Child, reason: str) -> None:
        if child.state != "stuck":
            child.state = "stopped"
        child.retire(reason)
        self._end_replacement(child, reason)
        for group in list(self._restarting):
            if group.starting is child:
                group.starting = None
                self._start_next(group)
            elif child in group.members:
                group.members.remove(child)

    async def _stop_for_good(self, child: _Child, reason: str) -> None:
        if self._gone(child):
            return
        if child.state in ("starting", "running"):
            await self._end_life(child, reason, final=True)
        self._forget(child, reason)

    async def _stop_all(self, reason: str) -> None:
        """All children, last declared first. Also those being stopped already, if that was interrupted."""
        self._restarting.clear()
        interrupt: BaseException | None = None
        for child in reversed(self._children.values()):
            try:
                await self._stop_one(child, reason)
            except BaseException as error:  # noqa: BLE001  raised when all are stopped: a shielded life has nobody else
                child.scope.cancel()
                interrupt = interrupt or error
        if interrupt is not None:
            raise interrupt

    async def _stop_one(self, child: _Child, reason: str) -> None:
        if child.state in ("starting", "running", "stopping"):
            await self._end_life(child, reason, final=self._final)
        self._end_replacement(child, reason)
        if child.task is None:
            child.state = "stopped"
        if self._final:
            child.retire(reason)

    # -- lives

    def _begin_life(self, child: _Child) -> None:
        """Afterwards it is running, or starting: then news of it will come as an event."""
        child.state = "starting"
        child.address.epoch += 1
        child.address.token = trio.lowlevel.current_trio_token()
        child.restarts += child.epoch > 1 and child.replacement is None
        child.ready_at = math.inf
        child.clear()
        # Shielded: only its supervisor ends a life, in its turn. A cancelled host cancels us, and we stop it in order.
        child.scope = trio.CancelScope(shield=True)
        child.released = trio.Event()
        epoch = child.epoch
        assert self._nursery is not None
        if child.nested is not None:
            child.nested._reset()
            child.nested.down = trio.Event()
            run = partial(child.nested.run, lambda: self._post(_Ready(child, epoch)))
        else:
            try:
                actor = child.factory()
                child.promise(type(actor))
            except Exception as error:  # noqa: BLE001  a start that failed like any other
                child.released.set()
                self._crashes.append(child.crashed(error))
                self._post(_Ended(child, epoch, error))
                return
            except BaseException:
                child.released.set()  # there is no life to wait for
                raise
            run = partial(live, child, actor, lambda: self._post(_Ready(child, epoch)))
            if starts_at_once(actor):
                self._note_ready(child)
        self._nursery.start_soon(self._life, child, epoch, run, name=f"{child.name}#{epoch}")

    async def _life(self, child: _Child, epoch: int, run: Callable[[], Awaitable[None]]) -> None:
        """Run one life and turn every Exception it ends with into an event; nothing of a child reaches the nursery."""
        error: Exception | None = None
        child.task = trio.lowlevel.current_task()
        try:
            with child.scope:
                await run()
        except Exception as caught:  # noqa: BLE001  the one place where any failure of an actor becomes a fact
            error = leaf_of(caught)
            self._crashes.append(child.crashed(error))
        except BaseException:
            # An interrupt, not a crash: it ends the tree, and nobody may wait for an answer from here meanwhile.
            child.retire("interrupted")
            self.root.on_interrupt()
            raise
        finally:
            child.task = None
            child.released.set()
            if child.state == "stuck" and child.mailbox.closed is not None:
                child.state = "stopped"
        if error is None or not self._restarts_at_once(child, epoch):
            self._post(_Ended(child, epoch, error))

    def _restarts_at_once(self, child: _Child, epoch: int) -> bool:
        """The common crash, of a child that comes back alone and without delay, costs no turn of the manager's.

        Only while the manager has nothing to do: whatever it is doing, or was asked to do, comes first. In every other
        case the crash is an event like any other.
        """
        manager, spec = self._idle, self.spec
        if (
            manager is None
            or self._events
            or (child.state, child.epoch) != ("running", epoch)
            or child.replacement is not None
            or child.spec.restart == "temporary"
            or spec.strategy != "one_for_one"
            or spec.backoff.min_s
            or self._window.next_may_escalate(child.name)
        ):
            return False
        self._stamp(child)
        # In the manager's context: what the handlers of this life have set there ends with it.
        manager.context.run(self._begin_life, child)
        return True

    async def _end_life(
        self, child: _Child, reason: str, *, final: bool, at_once: bool = False
    ) -> None:
        """Ask a life to end, cancel it after its grace, and wait for it. Bounded by grace and on_stop's deadline.

        A `final` end closes the intake first and drains as declared; else the message in hand is finished, no more,
        and not even that `at_once`.
        A task that does not end is reported, as "stuck", and not waited for: nothing can be done about it. Its next
        life begins when it has ended, for two lives of one actor are never up together.
        """
        child.state = "stopping"
        child.stop_reason = reason
        if child.nested is not None:
            child.nested.request_stop(final=final)
            await (child.nested.down if final else child.released).wait()
            return
        settings = child.settings
        if final:
            child.drain = settings.drain
            child.mailbox.refuse(reason)
        child.mailbox.hurry()
        patience = _Patience(child, stuck_after_s=self.stuck_after_s)
        if at_once or child.drain == "none":
            patience.expire()
        else:
            self.deadlines.add_at(patience)
        if not child.released.is_set():
            await child.released.wait()
        patience.state = ANSWERED


class _Patience:
    """With a life that was asked to end: first its grace, then it is cancelled, and at last it is reported as stuck."""

    def __init__(self, child: _Child, *, stuck_after_s: float | None) -> None:
        self.deadline = trio.current_time() + child.settings.grace_s
        self.state = WAITING
        self._child = child
        self._stuck_after_s = stuck_after_s
        self._cancelled = False

    def expire(self) -> None:
        child = self._child
        if not self._cancelled:
            self._cancelled = True
            child.scope.cancel()
            if self._stuck_after_s is not None:
                self.deadline = (
                    trio.current_time() + child.settings.on_stop_deadline_s + self._stuck_after_s
                )
                child.address.deadlines.add_at(self)
        elif child.task is not None:
            self._report_stuck(child, child.task)

    def _report_stuck(self, child: _Child, task: trio.lowlevel.Task) -> None:
        stack = stack_of(task)
        for_s = child.settings.on_stop_deadline_s + (self._stuck_after_s or 0.0)
        child.state = "stuck"
        child.say(Stuck(trio.current_time(), child.name, child.epoch, for_s, stack))
        log.critical("actor %s was cancelled and does not end:\n%s", child.name, stack)
        fail_askers(child, "stuck")
        child.released.set()


def _may_end(event: _Ended) -> bool:
    return event.error is None or event.child.spec.restart == "temporary"


def _duplicates(supervisor: Supervisor) -> bool:
    names = [child.name for child in supervisor._walk()]
    return len(names) != len(set(names))


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
    stuck_after_s: float | None = 5.0,
    name: str = "root",
) -> AsyncIterator[Supervisor]:
    """Start the children in order; stop them in reverse when the block is left, however it is left.

    An actor that holds the loop for `stuck_after_s`, or does not end so long after it was cancelled, is reported: in
    the log, and as a `Stuck` among the events. None: never.

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
    if stuck_after_s is not None and not 0 < stuck_after_s < math.inf:
        raise ConfigError(
            "stuck_after_s", f"{stuck_after_s!r} is not a positive, finite number of seconds"
        )
    supervisor = Supervisor(spec, stuck_after_s=stuck_after_s)

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
        supervisor.retire("supervisor stopped")
