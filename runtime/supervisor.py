"""The supervisor: it owns its children's mailboxes, runs their lives, and restarts what crashes.

This is one concept and one file, although a long one: a child, its present life and the manager
change each other's state within one scheduling step, so a boundary between them would have to
expose every field. The rules that need no such access have files of their own: `window` decides
when to escalate, `strategy` which children restart together, `life` how one life serves its
mailbox.

Vocabulary, after Erlang/OTP. A *child* is declared by a spec and exists as long as its supervisor.
A *life* is one task that runs one instance of the actor; lives are numbered by the *epoch*. To
*escalate* is to stop all children and raise `SupervisorEscalated`.

A supervisor can itself be a child (`SupervisorSpec`). Names are unique in the whole tree, so
`ref(name)` finds an actor at any depth. Each supervisor has one manager task, which handles events
in order. It waits out a backoff in a way that new events interrupt, so a request to stop is served
then.
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
    NeedsTrio,
    ReplaceFailed,
    StartFailed,
    SupervisorEscalated,
    UnknownChild,
    text_of,
)
from .groups import bare_errors, leaf_of
from .interrupts import undisturbed
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
from .stack import Watchdog, stack_of, traceback_of
from .strategy import Strategy, restart_together
from .window import FailureWindow

__all__ = ["Supervisor", "Watch", "open_supervisor"]

log = logging.getLogger("fundops.runtime")

# Dead letters and events kept in memory; older ones are only counted.
RECORDS_KEPT = 256
# Crash records kept for the error of an escalation.
CRASHES_KEPT = 16


class _Child(Seat):
    """The state of one child that outlives its lives: mailbox, epoch, counters, watchers."""

    def __init__(self, spec: ChildSpec | SupervisorSpec, supervisor: Supervisor) -> None:
        root = supervisor.root
        # A nested supervisor receives no mail. It takes a seat so that it can be asked to end.
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
        # The types that the mailbox accepts as soon as the present life is ready.
        self.promised: tuple[Container[type], Container[type]] = (mailbox.accepts, mailbox.controls)
        if isinstance(self.factory, type) and issubclass(self.factory, Actor):
            # Any other factory shows the accepted types only with its first instance.
            self.promise(self.factory)
            mailbox.accepts, mailbox.controls = self.promised
        self.state: State = "stopped"
        self.restarts = 0
        self.ready_at = math.inf  # trio time since when the present life has been running
        self.last_crash: str | None = None
        self.last_traceback: str | None = None
        self.replacement: _Replace | None = None
        self.scope = trio.CancelScope()
        self.task: trio.lowlevel.Task | None = None
        self.released = trio.Event()  # its life has ended, or is reported as stuck
        self.terminated: Terminated | None = None
        self.gone = trio.Event()  # set together with `terminated`
        self.followers: set[_Child] = set()  # children whose present life watches this one
        self.followed: set[_Child] = set()  # children that the present life watches

    # -- called by a life

    def promise(self, actor: type[Actor]) -> None:
        """Take over the message types of an actor, in force when its life is ready.

        Raises: `ConfigError` when the child's settings do not suit the actor.
        """
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
        log.error("actor %s (epoch %d) did not clean up: %s", self.name, self.epoch, error)
        self.say(CleanupFailed(trio.current_time(), self.name, self.epoch, error))

    def say(self, event: Event) -> None:
        """Record an event of this child in the log of the whole tree."""
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

    # -- called by its supervisor

    def crashed(self, error: Exception) -> Crashed:
        """Record that the present life, or the attempt to start it, raised an error."""
        self.last_crash, self.last_traceback = text_of(error), traceback_of(error)
        crash = Crashed(
            trio.current_time(), self.name, self.epoch, self.last_crash, self.last_traceback
        )
        if isinstance(error, SupervisorEscalated):
            # Each crash that led to it is in the log already.
            log.error("%s", crash)
        else:
            log.error("actor %s crashed\n%s", crash, self.last_traceback)
        self.say(crash)
        return crash

    def retire(self, reason: str) -> None:
        """End the child, and all below it, permanently.

        Queued messages get their final state, then watchers get a `Terminated`. Idempotent.
        """
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
        """The child at this instant."""
        mailbox = self.mailbox
        in_hand = [*mailbox.batch, *((mailbox.hand,) if mailbox.hand is not NOTHING else ())]
        actor = self.nested is None
        return ChildStatus(
            name=self.name,
            # The life has ended, but the manager is still busy with an earlier event.
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
            last_traceback=self.last_traceback,
            children=self.nested.tree() if self.nested else (),
        )


# Events for the manager. They carry the epoch, because an event of an earlier life may still be
# queued after the supervisor has ended that life itself; it is then ignored.


class _Ready(msgspec.Struct, frozen=True):
    """A life has finished its `on_start`."""

    child: Any
    epoch: int


class _Ended(msgspec.Struct, frozen=True):
    """A life has ended, with an error if it crashed or failed to start."""

    child: Any
    epoch: int
    error: Exception | None


class _Stop(msgspec.Struct, frozen=True):
    """A request to stop one child permanently; `done` is set afterwards."""

    child: Any
    reason: str
    done: trio.Event


class _Replace:
    """A request to serve a child with another factory.

    It is finished when the first life of that factory is ready, or when the old factory serves
    again.
    """

    def __init__(self, child: _Child, factory: Callable[[], Actor]) -> None:
        self.child = child
        self.factory = factory
        self.before = child.factory
        self.error: Exception | None = None
        self.done = trio.Event()

    def begin(self) -> None:
        """Let the child's next life come from the new factory."""
        self.before, self.child.factory = self.child.factory, self.factory
        self.child.replacement = self

    def roll_back(self, error: Exception) -> None:
        """Return to the old factory; the caller of `replace` will be told the error."""
        self.child.factory, self.error = self.before, error

    def finish(self) -> None:
        """Answer the caller of `replace`."""
        self.child.replacement = None
        self.done.set()


_Event = _Ready | _Ended | _Stop | _Replace | None  # None: stop the supervisor itself


class _Restarting:
    """A group of children that is being restarted, one member after the other."""

    def __init__(self, due: float, members: list[_Child]) -> None:
        self.due = due  # trio time of the first start, after the backoff
        self.members = members  # still to start, in order of declaration
        self.starting: _Child | None = None  # the member whose start is awaited

    def unfinished(self) -> set[_Child]:
        """The members that are not running yet."""
        return {*self.members, *((self.starting,) if self.starting is not None else ())}


class Watch:
    """An awaitable that gives the `Terminated` of an actor once that actor has ended permanently.

    It may be awaited late and more than once.
    """

    def __init__(self, child: _Child) -> None:
        self._child = child

    def __await__(self) -> Generator[Any, Any, Terminated]:
        return self._wait().__await__()

    async def _wait(self) -> Terminated:
        await self._child.gone.wait()
        assert self._child.terminated is not None
        return self._child.terminated


class Supervisor:
    """A running supervision tree, made by `open_supervisor`.

    Its public methods may be called at any time from the trio run that it belongs to.
    `dead_letters` holds the latest messages that will never be answered, `events` the latest
    crashes, restarts and ends of actors. Both are bounded logs with an exact total and at most one
    subscriber.
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
            child.name: child for child in (_Child(declared, self) for declared in spec.children)
        }
        if len(self._children) != len(spec.children) or (root is None and _duplicates(self)):
            raise ConfigError(f"{spec.name}.children", "two children share a name")
        # All children here and below by name. A tree does not change after its declaration.
        self._members = {child.name: child for child in self._walk()}
        self.on_interrupt: Callable[[], None] = lambda: None  # cancels the host's block
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
        # Whether the next stop is permanent. A nested supervisor may also be stopped for a restart,
        # after which its children find their queued messages again.
        self._final = self.root is self

    # -- public

    def __repr__(self) -> str:
        children = ", ".join(f"{child.name} {child.state}#{child.epoch}" for child in self.tree())
        return f"<Supervisor {self.spec.name}: {children or 'no children'}>"

    def ref(self, name: str) -> Ref:
        """The ref of an actor at any depth of the tree.

        Raises: `UnknownChild`.
        """
        return Ref(self._actor(name).address)

    def tree(self) -> tuple[ChildStatus, ...]:
        """The children at this instant, in order of declaration.

        A temporary child that has ended is left out.
        """
        return tuple(
            child.status()
            for child in self._children.values()
            if not (child.spec.restart == "temporary" and child.state == "stopped" and child.epoch)
        )

    def statistics(self) -> dict[str, MailboxStatistics]:
        """The mailbox counters of all actors of the tree, by name."""
        return {
            name: child.mailbox.statistics()
            for name, child in self._members.items()
            if child.nested is None
        }

    def watch(self, name: str) -> Watch:
        """An awaitable for the permanent end of an actor: `await supervisor.watch(name)`.

        It gives the one `Terminated` of that actor, at once if the actor has already ended. A
        restart is not an end; it appears among the `events`. An actor watches another one with
        `Context.watch`.

        Raises: `UnknownChild`.
        """
        return Watch(self._actor(name))

    async def replace(self, name: str, factory: Callable[[], Actor]) -> None:
        """Serve an actor's messages by instances of another factory, from the next message on.

        Its queued messages and its refs stay. The present life finishes its message in hand within
        its grace time. Returns when the new life is ready. If the new life does not start, the old
        factory serves again. Cancelling the caller does not stop the replacement.

        Raises: `ReplaceFailed`, caused by the error of the new actor; `ActorStopped`;
            `UnknownChild`; `ConfigError`.
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
        """Stop one child permanently: drain, cancel after its grace time, run `on_stop`.

        Returns when the child has stopped; from then on it refuses all messages. Idempotent.

        Raises: `UnknownChild`.
        """
        child = self._members.get(name)
        if child is None:
            raise UnknownChild(name, list(self._members))
        if child.supervisor._nursery is None:
            # Its supervisor has ended or waits for its own restart: the child has no life to end.
            child.supervisor._forget(child, reason)
            return
        done = trio.Event()
        child.supervisor._post(_Stop(child, reason, done))
        await done.wait()

    def drill(self, name: str, reason: str = "drill") -> None:
        """Crash an actor on purpose before its next message, to prove that restarts work.

        Raises: `UnknownChild`.
        """
        self._actor(name).crash(reason)

    # -- for the rest of the runtime

    def bury(self, actor: str, message: Any, reason: str) -> None:
        """Record a message that will never be answered."""
        letter = DeadLetter(trio.current_time(), actor, type(message).__qualname__, reason)
        # The subscriber is not told of a lost dead letter. If it forwards letters to an actor that
        # cannot take them, each letter would otherwise cause the next one, without end.
        self.dead_letters.append(letter, tell=not isinstance(message, DeadLetter))

    def failures_of(self, child: _Child) -> int:
        """Failures of the child that still count towards the intensity."""
        return self._window.count(child.name, self.deadlines.now())

    def retire(self, reason: str) -> None:
        """Give all messages still queued, here and below, their final state after the last life."""
        for child in self._children.values():
            child.retire(reason)

    def request_stop(self, *, final: bool = True) -> None:
        """Make `run` end soon. A `final` stop also gives all queued messages their final state."""
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
            # The watchdog's thread reads this while the loop may change it, so each attribute is
            # read only once.
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

    # -- the manager: one task that handles events in order

    @undisturbed
    async def run(self, ready: Callable[[], None]) -> None:
        """Start the children, call `ready`, then supervise until told to stop or cancelled.

        Raises: `StartFailed`; `SupervisorEscalated`.
        """
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
                    # Shielded, because a cancelled host also stops its children in order.
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
        """Answer the requests that were posted too late for the manager to serve."""
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
        """The first start: in order, each child ready before the next begins.

        Returns False when told to stop meanwhile. A failure is raised, and `run` then stops the
        children that have started. In a nested supervisor that starts anew, a child that was
        stopped permanently stays stopped.
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
                    return True  # the other children start without it
            elif isinstance(event, _Ready):
                self._note_ready(child)
                return True
            elif isinstance(event, _Replace) or (event.child is not child and _may_end(event)):
                # The manager serves these once all children have started.
                postponed.append(event)
            elif event.epoch == event.child.epoch and not self._gone(event.child):
                # The child itself failed, or one that was ready before: the whole start has failed.
                if isinstance(event.error, StartFailed):
                    raise event.error
                raise StartFailed(event.child.name, text_of(event.error)) from event.error

    async def _ring(self) -> None:
        """Wait until there is an event."""
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
            # The events present now, not those that handling them adds: other tasks run in between.
            for _ in range(len(self._events)):
                event = self._events.popleft()
                if event is None:
                    return
                await self._on_event(event)
            if self._restarting:
                now = trio.current_time()
                due_groups = [
                    group
                    for group in self._restarting
                    if group.starting is None and group.due <= now
                ]
                for group in due_groups:
                    self._start_next(group)
            if self._events:
                await trio.lowlevel.checkpoint()

    async def _on_event(self, event: _Ready | _Ended | _Stop | _Replace) -> None:
        child: _Child = event.child
        if isinstance(event, _Stop):
            try:
                await self._stop_permanently(child, event.reason)
            finally:
                event.done.set()
        elif isinstance(event, _Replace):
            await self._replace(event)
        elif isinstance(event, _Ended) and child.state == "stuck" and event.epoch == child.epoch:
            # A stuck life has ended after all, so the next one no longer has to wait for it.
            child.state = "restarting"
            if self._groups_starting(child):
                self._begin_again(child)
        elif event.epoch != child.epoch or child.state not in ("starting", "running"):
            return  # about a life that this supervisor has ended itself
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
            # Otherwise it waits for a restart already, which will use the new factory.

    def _begin_again(self, child: _Child) -> None:
        """Begin the next life of a child outside a group, as soon as its last life has ended."""
        if child.task is None:
            self._begin_life(child)
        elif not self._groups_starting(child):
            # The old life is stuck. A group of one remembers to begin the next life when it ends.
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
        """Begin the lives of the next members, up to one that is not ready at once.

        A group without unfinished members is dropped.
        """
        while group.members:
            child = group.starting = group.members.pop(0)
            if child.task is not None:
                return  # stuck; `_on_event` continues when the old life has ended
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
            # The old factory does not start any more either: from here on an ordinary crash.
            replacement.finish()
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
        """Count one failure.

        Raises: `SupervisorEscalated` when it is one too many.
        """
        now = trio.current_time()
        why = self._window.record(child.name, now, running_since_s=child.ready_at)
        if why is not None:
            raise SupervisorEscalated(self.spec.name, why, tuple(self._crashes))

    async def _group_of(self, child: _Child) -> list[_Child]:
        """The children that restart with `child`, in order, after stopping its siblings."""
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
                # A sibling that waits for the failed child cannot finish within its grace time: the
                # child comes back only after the sibling's own end.
                hopeless = sibling.state == "starting" or bool(
                    wait_path(sibling.address, child.address)
                )
                await self._end_life(
                    sibling, "restarting with a sibling", final=temporary, at_once=hopeless
                )
                if temporary:
                    self._forget(sibling, "stopped with a sibling")
                elif sibling.task is None:  # otherwise it stays "stuck" until its life has ended
                    sibling.state = "restarting"
        return [member for member in members if not self._gone(member)]

    def _gone(self, child: _Child) -> bool:
        """Whether the child has stopped permanently, or will as soon as its stuck life ends."""
        return child.state in ("stopped", "stuck") and child.mailbox.closed is not None

    def _end_replacement(self, child: _Child, reason: str) -> None:
        """Tell the caller of a `replace` under way that the child has stopped instead."""
        if child.replacement is not None:
            child.replacement.roll_back(ActorStopped(child.name, reason))
            child.replacement.finish()

    def _forget(self, child: _Child, reason: str) -> None:
        """Retire a child whose life has ended, and let the group that waited for it continue."""
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

    async def _stop_permanently(self, child: _Child, reason: str) -> None:
        if self._gone(child):
            return
        if child.state in ("starting", "running"):
            await self._end_life(child, reason, final=True)
        self._forget(child, reason)

    async def _stop_all(self, reason: str) -> None:
        """Stop all children, last declared first, including one whose stop was interrupted."""
        self._restarting.clear()
        interrupt: BaseException | None = None
        for child in reversed(self._children.values()):
            try:
                await self._stop_one(child, reason)
            except BaseException as error:  # noqa: BLE001  raised below, when all children are stopped
                # Nothing else would end the other lives, which are shielded.
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
        """Start a task for the child's next life.

        The child is "running" afterwards, or "starting" until `_Ready` or `_Ended` arrives.
        """
        child.state = "starting"
        child.address.epoch += 1
        child.address.token = trio.lowlevel.current_trio_token()
        child.restarts += child.epoch > 1 and child.replacement is None
        child.ready_at = math.inf
        child.clear()
        # Shielded from the host's cancellation, which reaches the manager: it stops the children in
        # order, and only it ends a life.
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
            except Exception as error:  # noqa: BLE001  counted and recorded as a failed start
                child.released.set()
                self._crashes.append(child.crashed(error))
                self._post(_Ended(child, epoch, error))
                return
            except BaseException:
                child.released.set()  # no life follows that a stop would have to wait for
                raise
            run = partial(live, child, actor, lambda: self._post(_Ready(child, epoch)))
            if starts_at_once(actor):
                self._note_ready(child)
        self._nursery.start_soon(self._life, child, epoch, run, name=f"{child.name}#{epoch}")

    @undisturbed
    async def _life(self, child: _Child, epoch: int, run: Callable[[], Awaitable[None]]) -> None:
        """Run one life and turn its end into an event; no `Exception` reaches the nursery."""
        error: Exception | None = None
        child.task = trio.lowlevel.current_task()
        try:
            with child.scope:
                await run()
        except Exception as caught:  # noqa: BLE001  any failure of an actor is recorded here
            error = leaf_of(caught)
            self._crashes.append(child.crashed(error))
        except BaseException:
            # An interrupt is not a crash. It ends the whole tree, and askers fail now because this
            # child cannot answer them while the rest is stopped.
            child.retire("interrupted")
            self.root.on_interrupt()
            raise
        finally:
            child.task = None
            child.released.set()
            if child.state == "stuck" and child.mailbox.closed is not None:
                child.state = "stopped"  # reported as stuck during a stop, and has ended after all
        if error is None or not self._restarts_at_once(child, epoch):
            self._post(_Ended(child, epoch, error))

    def _restarts_at_once(self, child: _Child, epoch: int) -> bool:
        """Restart a child that crashed without waking the manager; False when only the manager may.

        This covers the common crash: the child restarts alone, without delay, and cannot escalate.
        It saves a schedule point per crash. The manager has to be idle, since events it is handling
        or has queued come first.
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
        # In the manager's context, so that context variables set by this life end with it.
        manager.context.run(self._begin_life, child)
        return True

    async def _end_life(
        self, child: _Child, reason: str, *, final: bool, at_once: bool = False
    ) -> None:
        """Ask a life to end, cancel it after its grace time, and wait for its end.

        A `final` end closes the mailbox first and drains it as declared. Any other end lets the
        message in hand finish; with `at_once` the life is cancelled immediately. The wait is
        bounded by the grace time and the deadline of `on_stop`. A task that does not end by then is
        reported as "stuck" and no longer waited for, since nothing can end it from outside. The
        next life begins only after it has ended: two lives of one actor never run at the same time.
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
    """The deadlines of a life that was asked to end: first cancelled, then reported as stuck."""

    def __init__(self, child: _Child, *, stuck_after_s: float | None) -> None:
        self.deadline = trio.current_time() + child.settings.grace_s
        self.state = WAITING
        self._child = child
        self._stuck_after_s = stuck_after_s
        self._cancelled = False

    def expire(self) -> None:
        """Cancel the life when its grace time is over, and report it if it still has not ended."""
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
        log.critical("actor %s was cancelled and has not ended:\n%s", child.name, stack)
        fail_askers(child, "stuck")
        child.released.set()


def _may_end(event: _Ended) -> bool:
    """Whether this end of a life, while others are starting, is no failure of the start."""
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
    """A running supervision tree for the length of the `async with` block.

    The children start in order, each ready before the next begins, and stop in reverse order when
    the block is left in any way. The settings are those of `SupervisorSpec`. An actor that holds
    the loop for `stuck_after_s`, or has not ended that long after it was cancelled, is reported in
    the log and as a `Stuck` among the events; None turns these reports off.

    Raises: `StartFailed`, caused by the error of the actor; `SupervisorEscalated` when restarts did
        not help, after cancelling the block; `ConfigError`; `NeedsTrio` outside a trio task.
    """
    if not trio.lowlevel.in_trio_task():
        raise NeedsTrio("open_supervisor needs trio: call it in a task of trio.run")
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
                # From here on a cancelled host leaves its block first, and that stops the children
                # in order. A host that is already cancelled never enters its block, so nothing
                # would stop the supervisor: then it stays open to the cancellation.
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
