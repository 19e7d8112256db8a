"""The guard actor: acts first, reports afterwards.

It starts before the database and outlives it. `switch` decides each move of the kill switch; this
actor sets the shared latch and carries out the acts. Engaging happens in this order: the latch in
memory, the end of the leases, the marker on disk, the start of `stop_all` beside the actors, the
answer to the caller, the latch in the database, the alert. No text is formatted before the leases
have ended, and nothing waits for the engine: its report arrives as a message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol, assert_never

from msgspec.structs import astuple, replace

from ...runtime import Actor, ActorError, Clock, FundopsError, Ref, UnknownChild, handles, in_pieces
from ...wire import border
from ...wire.alert import AlertDraft, SendAlert
from ...wire.controller import CanStopAll, KillAction, StrategyStatus
from ...wire.errors import (
    BadRequest,
    HostFault,
    StorageDegraded,
    UnknownStrategy,
)
from ...wire.foreign import fitted, plain_text
from ...wire.guard import (
    ChangeGrants,
    ConfirmCounters,
    EngageKillSwitch,
    GuardReport,
    GuardState,
    KillStatus,
    LatchStored,
    PauseStrategy,
    ReadGuard,
    ReadKillSwitch,
    Released,
    ReleaseKillSwitch,
    RestoreGuard,
    SecondPassed,
    StopEnded,
    StopReported,
    StrategyBook,
    StrategyResumed,
    Watch,
    Withheld,
)
from ...wire.oversight import RememberGuard
from ...wire.persistence import COMMIT_DEADLINE_S
from ...wire.promotion import EntitlementTerms
from ...wire.why import Reason
from ..persistence import Writer
from . import alerts, core, schema, switch
from .entitle import after_pause, after_resume, grant, in_order, stops
from .leases import Grant, Leases
from .marker import Marker
from .scope import spared
from .settings import GuardSettings
from .strategies import closed, counters_confirmed
from .switch import Switch, SwitchRules

__all__ = ["GuardActor", "GuardHost"]

log = logging.getLogger("fundops.guard")

LOOK_S = 1.0  # between two looks at marker and stop, however rarely the host drives the ticks


class GuardActs(Protocol):
    """The acts on single strategies that the guard needs. `Acts` implements it."""

    @property
    def observing(self) -> bool:
        """Whether no acting part of the controller is called."""
        ...

    def take_withheld(self) -> tuple[Withheld, ...]:
        """The acts that mode observe kept from the engine since the last call."""
        ...

    def start_keep_alive(self, until_us: int) -> None:
        """Begin to tell the engine until when the leases last, and return at once."""

    def start_stop(self, name: str, reason: str) -> None:
        """Begin to stop one strategy and return at once."""

    async def pause(self, name: str, reason: str) -> None:
        """Pause a strategy. Raises: `HostFault`."""

    async def resume(self, name: str) -> None:
        """Resume a strategy. Raises: `HostFault`."""


class GuardStopping(Protocol):
    """The acts that stop all trading. `Stopping` implements it."""

    def watch(self) -> None:
        """Begin to call `emergency_stop` when the host does not react, and return at once."""

    def note_silence(self, why: str) -> None:
        """The host is silent for too long with real money live, and how long; "": it is not."""

    def start_stop_all(
        self,
        reason: str,
        action: KillAction,
        strategies: tuple[str, ...],
        tell: Callable[[StopEnded], None],
    ) -> bool:
        """Begin to stop all trading and return at once; False: the call before has not ended."""
        ...


class GuardHost(Protocol):
    """The part of the host port that the guard needs. `Host` implements it."""

    @property
    def acts(self) -> GuardActs:
        """The acts on single strategies."""
        ...

    @property
    def stopping(self) -> GuardStopping:
        """The acts that stop all trading."""
        ...

    @property
    def has_spoken(self) -> bool:
        """Whether the engine has named its strategies in this life, be it none."""
        ...

    def can(self, part: type) -> bool:
        """Whether the controller has this optional part."""
        ...

    def pulse(self) -> None:
        """A second has passed."""

    def names(self) -> tuple[str, ...]:
        """The strategies of the host's last words."""
        ...

    def spawn(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Run a coroutine function that handles its own errors beside the actors."""


class GuardActor(Actor):
    """Writes the latch and the leases, and keeps the books of every strategy ever reported."""

    def __init__(
        self,
        clock: Clock,
        host: GuardHost,
        settings: GuardSettings,
        leases: Leases,
        marker: Path,
        capital_minor: int,
    ) -> None:
        self._clock = clock
        self._host = host
        self._acts = host.acts
        self._stopping = host.stopping
        self._settings = settings
        self._leases = leases
        self._latch = leases.latch
        self._marker = Marker(marker)
        self._capital_minor = capital_minor
        self._state = GuardState()
        self._restored = False  # this life has taken its stored memory
        self._own: Ref
        self._rules = SwitchRules(
            settings.kill_action,
            settings.flatten_confirm_ticks,
            host.can(CanStopAll),
            self._acts.observing,
        )
        # The latch outlives this actor.
        self._switch = Switch(self._rules, self._latch.status, self._latch.engagements)
        self._stopped: tuple[str, ...] = ()  # the strategies in scope, as they were named last
        self._mover = ""  # the strategy that lowered NAV most when the switch engaged; "": none
        self._warned_undivided = False
        self._session = ""  # the last one that ended, as of the last look
        self._registered: frozenset[str] = frozenset()  # with promotion, as of the last look
        self._said: int | None = None  # the count of the engine's words at the last look
        self._pausing: set[str] = set()  # strategies that the engine is being told to pause

    @property
    def _kill(self) -> KillStatus:
        return self._switch.status

    async def on_start(self) -> None:
        self._own = self.context.ref(self.context.name)
        found = self._marker.read()
        if found is not None:  # a marker means engaged, also one that cannot be read
            self._move(switch.Found(found))
        if self._latch.engaged:
            log.critical("kill switch is engaged since before this start: %s", self._kill.reason)
        self.context.every(LOOK_S, SecondPassed())
        self._latch.pull = self._pull

    async def on_stop(self, reason: str) -> None:
        self._latch.pull = None

    @handles(RestoreGuard)
    def restore(self, request: RestoreGuard) -> GuardState:
        """Take the stored memory. The careful answer wins: any source that says engaged.

        Oversight restarts alone, and then brings a memory that is older than this one: a peak may
        have risen since, a person may have paused a strategy or released the kill switch.
        """
        if self._restored:
            return self._state
        self._restored = True
        self._state = self._with_pauses(request.state)
        stored = request.latch
        self._switch = replace(self._switch, stored=stored)
        if stored is not None and stored.state != "OFF":
            self._move(switch.Found(stored))
        elif request.state.kill_state != "OFF":
            text = "engaged according to the database"
            found = KillStatus("ENGAGED", text, "fundops", self._clock.now_us())
            self._move(switch.Found(found))
        if request.told:
            self._switch = replace(self._switch, untold=False)
        if self._latch.engaged:
            self._pass()
        no_tick = Reason("lease", "no tick has renewed its lease")
        remembered = {
            name: Grant(
                None,
                "reduce" if real else "none",
                Decimal(0),
                real,
                in_order(*stops(book), no_tick),
            )
            for name, book in self._state.strategies.items()
            if (real := book.had_real) or book.paused_by
        }
        self._leases.replace(remembered)
        return self._state

    def _with_pauses(self, stored: GuardState) -> GuardState:
        """The stored memory with the pauses by people that came before it."""
        books = dict(stored.strategies)
        for name, book in self._state.strategies.items():
            if book.paused_by:
                books[name] = replace(
                    books.get(name, StrategyBook()),
                    paused_by=book.paused_by,
                    paused_why=book.paused_why,
                )
        return replace(stored, strategies=books)

    @property
    def _memory(self) -> GuardState:
        """The memory, with the kill switch as it is now."""
        return replace(self._state, kill_state=self._kill.state)

    # -- the look of each tick

    @handles(Watch)
    async def watch(self, request: Watch) -> GuardReport:
        """One look at the fund. A breach has stopped everything before this is answered.

        It goes in pieces, and a person may engage the kill switch between two of them.
        """
        self._pass()
        looking = core.look(
            self._memory,
            self._settings,
            request.statuses,
            request.terms,
            external_minor=request.external_minor,
            earned_minor=request.earned_minor,
            posted_fees_minor=request.posted_fees_minor,
            accrued_fees_minor=request.accrued_fees_minor,
            blind_s=request.blind_s,
            fees=request.fees,
            capital_minor=self._capital_minor,
            flows=request.flows,
            news=request.said is None or request.said != self._said,
            session=request.session,
            listed=request.listed,
            aside=request.doubts.keys(),
            opening_nav_minor=request.opening_nav_minor,
            observing=self._acts.observing,
        )
        found = await in_pieces(looking)
        self._said = request.said
        seq = self._state.seq if found.problem or request.seq is None else request.seq
        self._state = replace(found.state, seq=seq)
        if not request.blind_s:
            self._rescope(request.terms)  # before a kill, which stops those of this look
        if not self._latch.engaged:
            if found.kill is not None:
                self._engage(found.kill, "guard", mover=found.mover, by_itself=True)
        else:
            self._keep_stopped(request)
        self._stopping.note_silence(found.emergency)
        if not request.blind_s:  # nothing is known, so nothing is renewed: the leases run out
            await self._grant_all(request.statuses, request.terms, request.doubts, request.session)
            self._leases.renew(self._settings.lease_s)
            self._keep_paused(request.statuses)
            self._keep_alive()
        self._state = self._memory
        return GuardReport(
            self._state,
            found.gross_minor,
            found.pauses,
            (*found.alerts, *(alerts.withheld(act) for act in self._acts.take_withheld())),
            found.performance_minor,
            found.problem,
        )

    def _keep_alive(self) -> None:
        """Resting orders live as long as the leases; under the kill switch, while any are open."""
        kill = self._kill
        closed = kill.open_orders == 0 and kill.open_positions == 0
        if not self._leases.is_over and not (self._latch.engaged and closed):
            lease_us = int(self._settings.lease_s * 1_000_000)
            self._acts.start_keep_alive(self._clock.now_us() + lease_us)

    @handles(ChangeGrants)
    async def change_grants(self, request: ChangeGrants) -> None:
        """Grant by the new terms, between two looks."""
        self._rescope(request.terms)
        await self._grant_all(request.statuses, request.terms, request.doubts, self._session)

    def _rescope(self, terms_by_name: Mapping[str, EntitlementTerms] | None) -> None:
        """Tell the latch which strategies the kill switch spares."""
        self._registered = frozenset(terms_by_name or ())
        now_spared = spared(self._settings.kill_scope, self._state.strategies, terms_by_name)
        if now_spared != self._latch.spared:
            self._latch.spared = now_spared

    async def _grant_all(
        self,
        statuses: Sequence[StrategyStatus],
        terms_by_name: Mapping[str, EntitlementTerms] | None,
        doubts: Mapping[str, str],
        session: str,
    ) -> None:
        self._session = session
        if terms_by_name is None and len(statuses) > 1 and not self._warned_undivided:
            self._warned_undivided = True
            log.warning(
                "promotion is off: each of the %d strategies may use the whole capital, which the"
                " host must divide",
                len(statuses),
            )
        granting = self._granting(statuses, terms_by_name, doubts, session)
        self._leases.replace(await in_pieces(granting))

    def _granting(
        self,
        statuses: Sequence[StrategyStatus],
        terms_by_name: Mapping[str, EntitlementTerms] | None,
        doubts: Mapping[str, str],
        session: str,
    ) -> Generator[None, None, dict[str, Grant]]:
        by_name = {status.name: status for status in statuses}
        lost = self._state.loss_session == session and not self._acts.observing
        grants: dict[str, Grant] = {}
        for name in (*by_name, *(name for name in self._state.strategies if name not in by_name)):
            grants[name] = grant(
                self._state.strategies.get(name, StrategyBook()),
                by_name.get(name),
                None if terms_by_name is None else terms_by_name.get(name),
                promotion=terms_by_name is not None,
                capital_minor=self._capital_minor,
                doubt=doubts.get(name),
                session=session,
                daily_loss=lost,
            )
            yield
        return grants

    # -- the kill switch

    @handles(EngageKillSwitch)
    def engage(self, request: EngageKillSwitch) -> KillStatus:
        """Stop all trading. Reason and name may be any objects."""
        return self._pull(request.reason, request.by)

    def _pull(self, reason: object, by: object) -> KillStatus:
        self._engage(reason, by)
        return self._kill

    def _engage(
        self, reason: object, by: object, *, mover: str = "", by_itself: bool = False
    ) -> None:
        self._mover, self._stopped = mover, ()
        self._move(switch.Engage(self._clock.now_us(), by_itself))
        self._move(switch.Worded(fitted(reason, border.REASON_MAX), fitted(by, border.NAME_MAX)))
        self._stopping.watch()

    def _keep_stopped(self, request: Watch) -> None:
        """Repeat the stop until it is confirmed, and stop strategies that were started again."""
        running = tuple(
            status.name
            for status in request.statuses
            if status.state == "running" and self._latch.stops(status.name)
        )
        silent = bool(request.blind_s)
        self._move(switch.Looked(self._in_scope(), running, self._state.breaches, silent))

    @handles(SecondPassed)
    def hear_second(self, _: SecondPassed) -> None:
        """Look for a marker, and keep a stop going, also when no tick comes."""
        self._host.pulse()
        self._pass()

    def _pass(self) -> None:
        self._move(switch.Passed(self._marker.exists()))
        self._stopping.watch()

    @handles(StopEnded)
    def hear_stop(self, ended: StopEnded) -> None:
        """The end of one call of `stop_all`."""
        self._move(ended)

    @handles(StopReported)
    def hear_report(self, told: StopReported) -> None:
        """A pushing host reports the open orders and positions."""
        self._move(told)

    @handles(LatchStored)
    def hear_stored(self, stored: LatchStored) -> None:
        """The end of a commit of the latch; a refused one is tried again a second later."""
        if stored.problem is not None:
            log.error("the kill switch is not in the database yet: %s", stored.problem)
        self._move(stored)

    def _move(self, event: switch.Event) -> None:
        """The latch first: the engine may ask in the same moment whether it may trade."""
        before = self._kill.state
        self._switch, acts = switch.decide(self._switch, event, self._clock.monotonic_s())
        if self._latch.status is not self._kill:
            self._latch.set(self._kill)
        for act in acts:
            self._carry_out(act)
        if before != self._kill.state == "UNCONFIRMED":
            log.critical("kill switch: the stop is not confirmed: %s", self._kill.problem)

    def _carry_out(self, act: switch.Act) -> None:
        match act:
            case switch.EndLeases():
                self._leases.end_in_scope()
            case switch.WriteMarker():
                self._write_marker()
            case switch.ReadMarker():
                self._read_marker()
            case switch.StopAll(action):
                self._stop_all(action)
            case switch.StopStrategies(names):
                for name in names:
                    self._acts.start_stop(name, "the kill switch is engaged")
            case switch.Commit():
                self._commit()
            case switch.TellEngaged():
                self._send(alerts.engaged(self._kill, self._rules, self._named(), self._mover))
            case switch.TellUnconfirmed():
                self._send(alerts.unconfirmed(self._kill, self._rules, self._named()))
            case switch.TellConfirmed():
                log.warning("kill switch: the stop is confirmed")
                self._send(alerts.confirmed(self._kill, self._rules, self._named()))
            case _:
                assert_never(act)

    def _write_marker(self) -> None:
        try:
            self._marker.write(self._kill)
        except OSError as error:
            # The latch in memory and in the database must do until it can be written.
            if self._switch.marked:
                log.critical("kill switch marker cannot be written: %s", type(error).__name__)
            self._move(switch.Marked(done=False))
        else:
            self._move(switch.Marked(done=True))

    def _read_marker(self) -> None:
        """A marker made by hand, or by the command line of a fund that does not answer, counts."""
        found = self._marker.read()
        if found is not None:
            self._engage(found.reason or "the marker file was made", found.by or "marker file")

    def _stop_all(self, action: KillAction) -> None:
        names, told = self._in_scope(), self._own.tell_nowait
        if self._stopping.start_stop_all(self._kill.reason, action, names, told):
            self._move(switch.Asked(frozenset(names), self._host.has_spoken))

    def _in_scope(self) -> tuple[str, ...]:
        """The strategies that the switch stops, with those that the host has named just now."""
        known = dict.fromkeys((*self._state.strategies, *self._registered, *self._host.names()))
        goes_on = self._latch.spared
        self._stopped = tuple(name for name in known if name not in goes_on)
        return self._stopped

    def _named(self) -> tuple[str, ...]:
        """The same as of the last look or call; ten thousand names take some milliseconds."""
        return self._stopped or self._in_scope()

    def _commit(self) -> None:
        """Commit the latch beside the actors: a database that hangs must not keep the guard."""
        try:
            writer = Writer(self.context.ref("persistence"))
        except UnknownChild as missing:
            self._move(LatchStored(self._kill, str(missing)))
        else:
            self._host.spawn(self._append, writer, self._kill)

    async def _append(self, writer: Writer, status: KillStatus) -> None:
        problem: str | None = None
        try:
            refusal = await writer.append((schema.latched(status),))
            problem = None if refusal is None else str(refusal)
        except (FundopsError, RuntimeError) as error:
            problem = f"{type(error).__name__}: {error}"
        with suppress(ActorError):
            self._own.tell_nowait(LatchStored(status, problem))

    # -- releasing

    @handles(ReleaseKillSwitch)
    def release(self, request: ReleaseKillSwitch) -> Released:
        """Trading resumes only as the leases are renewed by the next tick."""
        by, reason = border.given(request.by, "by"), border.reason(request.reason)
        rearm = plain_text(request.rearm)
        if rearm not in ("from_current_nav", "keep_peak"):
            raise BadRequest("rearm", "is neither 'from_current_nav' nor 'keep_peak'")
        accepted, before = request.accept_open_orders is True, self._kill
        refusal = switch.release_refusal(before, accept_open_orders=accepted)
        if refusal is not None:
            raise refusal
        try:
            self._marker.remove()
        except OSError as error:
            # A marker that stays would engage it again at the next look.
            raise StorageDegraded(
                f"the marker {self._marker.path} cannot be removed: {error}"
            ) from error
        self._move(switch.Released())
        self._stopping.watch()
        self._state = core.rearmed(self._state, keep_peak=rearm == "keep_peak")
        answer = core.released(self._state, self._kill)
        log.warning("kill switch released by %s: %s", by, reason)
        self._send(alerts.released(answer, before, by, reason))
        return answer

    # -- questions and a person's words

    @handles(ReadKillSwitch)
    def read(self, _: ReadKillSwitch) -> KillStatus:
        """The latch now."""
        return self._kill

    @handles(ReadGuard)
    def read_state(self, _: ReadGuard) -> GuardState:
        """The memory now."""
        return self._memory

    @handles(PauseStrategy)
    def pause(self, request: PauseStrategy) -> bool:
        """Pause a strategy at a person's word, with or without real money.

        Its lease ends at once. The engine is told by a task, and again at each look while it
        reports the strategy running; the commit follows. Neither is waited for.
        """
        by, reason = border.given(request.by, "by"), border.reason(request.reason)
        name = request.strategy
        book = self._book(name)
        if book is None:
            if not (request.known or self._leases.knows(name) or name in self._registered):
                raise UnknownStrategy(name)
            book = StrategyBook()
        if book.paused_by:
            return False
        paused = replace(book, paused_by=by, paused_why=reason)
        self._leases.change(name, after_pause(self._leases.grant(name), stops(paused)[0]))
        self._keep(name, paused)
        self._pause_engine(name, reason)
        self._host.spawn(self._remember)
        log.warning("strategy %s paused by %s: %s", name, by, reason)
        observing = self._acts.observing
        self._send(alerts.paused_by_person(name, by, reason, observing=observing))
        return True

    def _keep_paused(self, statuses: Sequence[StrategyStatus]) -> None:
        """Tell the engine again of each pause by a person that it does not obey."""
        books = self._state.strategies
        for status in statuses:
            if status.state in ("pending", "running"):
                book = books.get(status.name)
                if book is not None and book.paused_by:
                    self._pause_engine(status.name, book.paused_why)

    def _pause_engine(self, name: str, reason: str) -> None:
        if name not in self._pausing and not self._latch.freezes(name):
            self._pausing.add(name)
            self._host.spawn(self._tell_pause, name, reason)

    async def _tell_pause(self, name: str, reason: str) -> None:
        try:
            if not self._is_paused(name):  # resumed before this task began
                return
            await self._acts.pause(name, reason)
            if not self._is_paused(name):  # resumed meanwhile, and the engine heard that first
                await self._acts.resume(name)
        except HostFault as fault:
            log.warning("strategy %s could not be paused at the engine: %s", name, fault)
        finally:
            self._pausing.discard(name)

    def _is_paused(self, name: str) -> bool:
        book = self._state.strategies.get(name)
        return book is not None and bool(book.paused or book.paused_by)

    async def _remember(self) -> None:
        """Commit the memory now. If storage refuses, the next tick commits it."""
        try:
            oversight = self.context.ref("oversight")
            await oversight.ask(RememberGuard(), timeout_s=COMMIT_DEADLINE_S)
        except (FundopsError, RuntimeError) as refusal:
            log.warning("a pause is not in the database yet: %s", refusal)

    @handles(StrategyResumed)
    def hear_resumed(self, request: StrategyResumed) -> bool:
        """End the pause of a strategy, whether a person or the guard ordered it.

        After a pause by the guard its peak begins anew at the next look, or the old drawdown would
        pause it again.
        """
        name = request.strategy
        book = self._book(name)
        if book is None or not (book.paused or book.paused_by):
            return False
        if book.paused_by:
            self._send(alerts.resumed(name, request.by, request.reason))
        resumed = replace(book, paused_by="", paused_why="")
        if book.paused:
            resumed = replace(resumed, paused=False, warned=False, peak_minor=0)
            for draft in closed(name, f"resumed by {request.by}"):
                self._send(draft)
        self._keep(name, resumed)
        self._leases.change(name, after_resume(self._leases.grant(name)))
        self._host.spawn(self._remember)
        log.warning("strategy %s resumed by %s: %s", name, request.by, request.reason)
        return True

    @handles(ConfirmCounters)
    def confirm_counters(self, request: ConfirmCounters) -> bool:
        """A person says that the counters did restart; refused without a name and a reason."""
        by, reason = border.given(request.by, "by"), border.reason(request.reason)
        book = self._book(request.strategy)
        if book is None or not book.restarted:
            return False
        self._keep(request.strategy, replace(book, restarted=False))
        log.warning("counters of %s confirmed by %s: %s", request.strategy, by, reason)
        self._send(counters_confirmed(request.strategy, by))
        return True

    def _book(self, name: object) -> StrategyBook | None:
        return self._state.strategies.get(name) if isinstance(name, str) else None

    def _keep(self, name: str, book: StrategyBook) -> None:
        self._state = replace(self._state, strategies={**self._state.strategies, name: book})

    # -- alerts

    def _send(self, alert: AlertDraft) -> None:
        """A CRITICAL leaves even when the database cannot be written; and nothing here waits for
        it.
        """
        with suppress(ActorError):
            self.context.ref("alert").tell_nowait(SendAlert(*astuple(alert)))
