"""The guard actor: acts first, reports afterwards.

It starts before the database and outlives it. Engaging happens in this order: the latch in memory,
the end of every lease, the marker on disk, the start of `stop_all` beside the actors, the answer to
the caller, the latch in the database, the alert. No text is formatted before the leases have ended,
and nothing waits for the engine: its report arrives as a message, and until it confirms the stop it
is asked again at each look.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from msgspec.structs import astuple, replace

from ...runtime import Actor, ActorError, Clock, FundopsError, Ref, UnknownChild, handles
from ...wire.alert import Category, Level, SendAlert
from ...wire.controller import CanPause, CanStopAll, KillAction, StopReport, StrategyStatus
from ...wire.errors import (
    BadRequest,
    HostFault,
    KillSwitchNotEngaged,
    StopNotConfirmed,
    StorageDegraded,
    UnknownStrategy,
)
from ...wire.foreign import fitted, plain_text
from ...wire.guard import (
    ConfirmCounters,
    EngageKillSwitch,
    GuardReport,
    GuardState,
    KillStatus,
    LatchStored,
    PauseStrategy,
    ReadGuard,
    ReadKillSwitch,
    ReleaseKillSwitch,
    RenewLeases,
    RestoreGuard,
    StopEnded,
    StopReported,
    StrategyBook,
    StrategyResumed,
    Watch,
)
from ...wire.oversight import RememberGuard
from ...wire.persistence import COMMIT_DEADLINE_S
from ...wire.promotion import EntitlementTerms
from ...wire.why import Reason
from ..persistence import Writer
from . import core, schema
from .core import GuardSettings
from .entitle import after_pause, after_resume, grant, in_order, stops
from .latch import OFF
from .leases import Grant, Leases
from .marker import Marker

__all__ = ["GuardActor", "GuardHost"]

log = logging.getLogger("fundops.guard")

REPEAT_S = 60.0  # between two alerts that a stop is not confirmed
REASON_MAX = 500  # characters
BY_MAX = 128


class GuardHost(Protocol):
    """The part of the host port that the guard needs. `Host` implements it."""

    def can(self, part: type) -> bool:
        """Whether the controller has this optional part."""
        ...

    def start_stop_all(
        self, reason: str, action: KillAction, tell: Callable[[StopEnded], None]
    ) -> bool:
        """Begin to stop all trading and return at once; False: the call before has not ended."""
        ...

    def start_stop(self, name: str, reason: str) -> None:
        """Begin to stop one strategy and return at once."""

    async def pause(self, name: str, reason: str) -> None:
        """Pause a strategy. Raises: `HostFault`."""

    async def resume(self, name: str) -> None:
        """Resume a strategy. Raises: `HostFault`."""

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
        self._settings = settings
        self._leases = leases
        self._latch = leases.latch
        self._marker = Marker(marker)
        self._capital_minor = capital_minor
        self._state = GuardState()
        self._restored = False  # this life has taken its stored memory
        self._own: Ref
        # False: the last write of the marker failed, so the next look writes it again.
        self._marked = True
        self._asked = False  # this life has told the engine to stop: it may have started anew since
        self._told_s: float | None = None  # when it was told last that the stop is not confirmed
        self._stored: KillStatus | None = None  # the latch as it is in the database
        self._storing = False
        # Strategies that were seen, and told to stop, since the switch engaged; and those of them
        # that were seen running again.
        self._seen: set[str] = set()
        self._running: tuple[str, ...] = ()
        self._warned_undivided = False
        self._session = ""  # the last one that ended, as of the last look
        self._registered: frozenset[str] = frozenset()  # with promotion, as of the last look
        self._pausing: set[str] = set()  # strategies that the engine is being told to pause

    @property
    def _kill(self) -> KillStatus:
        return self._latch.status

    async def on_start(self) -> None:
        self._own = self.context.ref(self.context.name)
        found = self._marker.read()
        if found is not None and not self._latch.engaged:
            # A marker means engaged, also one that cannot be read.
            self._latch.set(self._with_action(found))
        if self._latch.engaged:
            self._leases.end_all()
            log.critical("kill switch is engaged since before this start: %s", self._kill.reason)

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
        self._stored = request.latch
        stored = request.latch
        if not self._latch.engaged and stored is not None and stored.state != "OFF":
            self._engaged(self._with_action(stored))
        elif not self._latch.engaged and request.state.kill_state != "OFF":
            text = "engaged according to the database"
            status = KillStatus("ENGAGED", text, "fundops", self._clock.now_us())
            self._engaged(self._with_action(status))
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
            if (real := book.had_real or book.real) or book.paused_by
        }
        self._leases.recall(remembered)
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

    # -- the look of each tick

    @handles(Watch)
    def watch(self, request: Watch) -> GuardReport:
        """One look at the fund. A breach has stopped everything before this is answered."""
        self._heed_marker()
        found = core.look(
            self._state,
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
            session=request.session,
            listed=request.listed,
        )
        self._state = found.state
        if not self._latch.engaged:
            if found.kill is not None:
                mover = f"; {found.mover} lowered NAV most at that look" if found.mover else ""
                self._engage(found.kill, "guard", more=mover, by_itself=True)
        else:
            self._keep_stopped(request)
        if not request.blind_s:  # nothing is known, so nothing is renewed: the leases run out
            self._renew_leases(request.statuses, request.terms, request.doubts, request.session)
            self._keep_paused(request.statuses)
        self._state = replace(self._state, kill_state=self._kill.state)
        return GuardReport(
            self._state,
            found.gross_minor,
            found.pauses,
            found.alerts,
            found.performance_minor,
            found.problem,
        )

    @handles(RenewLeases)
    def renew(self, request: RenewLeases) -> None:
        """Grant by the new terms, between two looks."""
        self._renew_leases(request.statuses, request.terms, request.doubts, self._session)

    def _renew_leases(
        self,
        statuses: Sequence[StrategyStatus],
        terms_by_name: Mapping[str, EntitlementTerms] | None,
        doubts: Mapping[str, str],
        session: str,
    ) -> None:
        self._session = session
        self._registered = frozenset(terms_by_name or ())
        if terms_by_name is None and len(statuses) > 1 and not self._warned_undivided:
            self._warned_undivided = True
            log.warning(
                "promotion is off: each of the %d strategies may use the whole capital, which the"
                " host must divide",
                len(statuses),
            )
        by_name = {status.name: status for status in statuses}
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
            )
        if self._latch.engaged:
            self._leases.recall(grants)
        else:
            self._leases.replace(grants, self._settings.lease_s)

    # -- engaging

    def _with_action(self, found: KillStatus) -> KillStatus:
        """A switch found engaged, with the action in force. A person's "flatten" is one at once;
        what fundops itself concluded sells nothing.
        """
        action = found.action
        if action is None:
            configured = self._settings.kill_action
            by_itself = found.by == "fundops" and configured == "flatten"
            action = "halt" if by_itself else configured
        state = "ENGAGED" if found.state == "OFF" else found.state
        return replace(found, state=state, action=action)

    @handles(EngageKillSwitch)
    def engage(self, request: EngageKillSwitch) -> KillStatus:
        """Stop all trading. Reason and name may be any objects."""
        if not self._latch.engaged:
            self._engage(request.reason, request.by)
        return self._kill

    def _engage(
        self, reason: object, by: object, *, more: str = "", by_itself: bool = False
    ) -> None:
        # By itself it flattens only when the breach stands: one bad print must not sell the book.
        action = self._settings.kill_action
        begun: KillAction = "halt" if action == "flatten" and by_itself else action
        self._latch.set(KillStatus("ENGAGING", "", "", self._clock.now_us(), action=begun))
        self._leases.end_all()
        status = replace(
            self._kill,
            reason=fitted(reason, REASON_MAX) or "no reason given",
            by=fitted(by, BY_MAX) or "unknown",
        )
        self._engaged(status)
        self._tell(Level.CRITICAL, "Kill switch activated", f"{status.reason}{more}")
        if self._kill.state == "UNCONFIRMED":
            self._tell_unconfirmed()

    def _engaged(self, status: KillStatus) -> None:
        """The latch with its texts: end the leases, write the marker, tell the engine, store it."""
        self._leases.end_all()
        self._seen, self._running, self._told_s, self._asked = set(), (), None, False
        self._set(status)
        self._stop_all()

    def _set(self, status: KillStatus) -> None:
        before = self._kill
        self._latch.set(status)
        if (before.state, before.action, before.reason) != (
            status.state,
            status.action,
            status.reason,
        ):
            self._write_marker()
            self._store()

    def _write_marker(self) -> None:
        try:
            self._marker.write(self._kill)
            self._marked = True
        except OSError as error:
            # The latch in memory and in the database must do until the next look.
            self._marked = False
            log.critical("kill switch marker cannot be written: %s", type(error).__name__)

    def _heed_marker(self) -> None:
        """A marker made by hand, or by the command line of a fund that does not answer, counts."""
        there = self._marker.exists()
        if there and not self._latch.engaged:
            found = self._marker.read()
            if found is not None:
                self._engage(found.reason or "the marker file was made", found.by or "marker file")
        elif self._latch.engaged and not (there and self._marked):
            self._write_marker()
        if self._stored != self._kill and (self._latch.engaged or self._stored is not None):
            self._store()

    def _stop_all(self) -> None:
        if not self._host.can(CanStopAll):
            if self._kill.state == "ENGAGING":
                problem = "the controller has no stop_all, so it cannot confirm the stop"
                self._set(replace(self._kill, state="UNCONFIRMED", problem=problem))
            return
        self._asked = True
        action = self._kill.action or self._settings.kill_action
        self._host.start_stop_all(self._kill.reason, action, self._own.tell_nowait)

    @handles(StopEnded)
    def hear_stop(self, ended: StopEnded) -> None:
        """The end of one call of `stop_all`."""
        if ended.engagement != self._latch.engagements or ended.action != self._kill.action:
            return  # of an earlier engagement, or of the halt before a flatten
        if not self._latch.engaged:
            return
        if ended.report is None:
            self._unconfirmed(ended.problem)
        else:
            self._judge(ended.report)

    @handles(StopReported)
    def hear_report(self, told: StopReported) -> None:
        """A pushing host reports the open orders and positions."""
        if self._latch.engaged:
            self._judge(told.report)

    def _judge(self, report: StopReport) -> None:
        action = self._kill.action
        counted = replace(
            self._kill, open_orders=report.open_orders, open_positions=report.open_positions
        )
        still_open = []
        if action != "freeze" and report.open_orders:
            still_open.append(f"{report.open_orders} orders")
        if action == "flatten" and report.open_positions:
            still_open.append(f"{report.open_positions} positions")
        if still_open:
            self._latch.set(counted)
            self._unconfirmed(f"{' and '.join(still_open)} still open")
        elif self._running:
            self._latch.set(counted)
        else:
            self._confirmed(counted, report.protective_orders)

    def _confirmed(self, status: KillStatus, protective: int) -> None:
        was = self._kill.state
        self._set(replace(status, state="ENGAGED", problem=""))
        if was == "UNCONFIRMED":
            kept = f"; {protective} protective orders stay" if protective else ""
            log.warning("kill switch: the stop is confirmed%s", kept)
            text = f"{status.open_orders} orders and {status.open_positions} positions open{kept}"
            self._send(
                SendAlert(Level.INFO, Category.KILL_SWITCH, "Kill switch: stop confirmed", text)
            )
        self._told_s = None

    def _unconfirmed(self, problem: str) -> None:
        if self._kill.state != "UNCONFIRMED":
            log.critical("kill switch: the stop is not confirmed: %s", problem)
        self._set(replace(self._kill, state="UNCONFIRMED", problem=problem))
        self._tell_unconfirmed()

    def _tell_unconfirmed(self) -> None:
        """At once and every 60 s, without a key: no gate may drop it as told already."""
        now_s = self._clock.monotonic_s()
        if self._told_s is not None and now_s - self._told_s < REPEAT_S:
            return
        self._told_s = now_s
        text = f"{self._kill.problem}; engaged by {self._kill.by}: {self._kill.reason}"
        title = "Kill switch activated, stop not confirmed"
        self._send(SendAlert(Level.CRITICAL, Category.KILL_SWITCH, title, text))

    def _keep_stopped(self, request: Watch) -> None:
        """Repeat the stop until it is confirmed, and stop strategies that were started again."""
        kill, settings = self._kill, self._settings
        stands = self._state.breaches >= settings.flatten_confirm_ticks
        if settings.kill_action == "flatten" and kill.action == "halt" and stands:
            self._set(replace(kill, state="ENGAGING", action="flatten", problem=""))
        if not request.blind_s and self._kill.action != "freeze":
            self._stop_running(request.statuses)
        if self._kill.state != "ENGAGED" or not self._asked:
            self._stop_all()
        if self._kill.state == "UNCONFIRMED":
            self._tell_unconfirmed()

    def _stop_running(self, statuses: Sequence[StrategyStatus]) -> None:
        """A halted engine may call its strategies running: each is told to stop once. One that
        runs after that was started again, or does not obey.
        """
        running = [status.name for status in statuses if status.state == "running"]
        again = tuple(name for name in running if name in self._seen)
        for name in running:
            self._host.start_stop(name, "the kill switch is engaged")
        self._seen.update(status.name for status in statuses)
        fresh = set(again) - set(self._running)
        self._running = again
        if again:
            if fresh:
                self._told_s = None  # news, whenever the last alert was
            self._unconfirmed(f"{', '.join(again)} running under the kill switch")
            if not self._host.can(CanPause):
                self._stop_all()

    # -- the latch in the database

    def _store(self) -> None:
        """Commit the latch beside the actors: a database that hangs must not keep the guard."""
        if self._storing:
            return  # when this commit ends, a later change is stored
        try:
            writer = Writer(self.context.ref("persistence"))
        except UnknownChild:
            return
        self._storing = True
        self._host.spawn(self._commit, writer, self._kill)

    async def _commit(self, writer: Writer, status: KillStatus) -> None:
        problem: str | None = None
        try:
            refusal = await writer.append((schema.latched(status),))
            problem = None if refusal is None else str(refusal)
        except (FundopsError, RuntimeError) as error:
            problem = f"{type(error).__name__}: {error}"
        with suppress(ActorError):
            self._own.tell_nowait(LatchStored(status, problem))

    @handles(LatchStored)
    def hear_stored(self, stored: LatchStored) -> None:
        """The end of a commit of the latch; a refused one is tried again at the next look."""
        self._storing = False
        if stored.problem is not None:
            log.error("the kill switch is not in the database yet: %s", stored.problem)
            return
        self._stored = stored.status
        if stored.status != self._kill:
            self._store()

    # -- releasing

    @handles(ReleaseKillSwitch)
    def release(self, request: ReleaseKillSwitch) -> KillStatus:
        """Trading resumes only as the leases are renewed by the next tick."""
        by, reason = _required("by", request.by), _required("reason", request.reason)
        rearm = plain_text(request.rearm)
        if rearm not in ("from_current_nav", "keep_peak"):
            raise BadRequest("rearm", "is neither 'from_current_nav' nor 'keep_peak'")
        if not self._latch.engaged:
            raise KillSwitchNotEngaged("the kill switch is not engaged")
        if self._kill.state != "ENGAGED" and request.accept_open_orders is not True:
            raise StopNotConfirmed(self._kill.state, self._kill.problem)
        try:
            self._marker.remove()
        except OSError as error:
            # A marker that stays would engage it again at the next look.
            raise StorageDegraded(
                f"the marker {self._marker.path} cannot be removed: {error}"
            ) from error
        self._latch.set(OFF)
        self._store()
        state = self._state
        if rearm == "from_current_nav":
            per_unit = state.nav_minor / state.units if state.units > 0 else 0.0
            state = replace(state, peak_per_unit=per_unit)
        self._state = replace(state, breaches=0, warned=False, kill_state="OFF")
        log.warning("kill switch released by %s: %s", by, reason)
        self._tell(Level.INFO, f"Kill switch released by {by}", reason, resolves=True)
        return self._kill

    # -- questions and a person's words

    @handles(ReadKillSwitch)
    def read(self, _: ReadKillSwitch) -> KillStatus:
        """The latch now."""
        return self._kill

    @handles(ReadGuard)
    def read_state(self, _: ReadGuard) -> GuardState:
        """The memory now."""
        return replace(self._state, kill_state=self._kill.state)

    @handles(PauseStrategy)
    def pause(self, request: PauseStrategy) -> bool:
        """Pause a strategy at a person's word, with or without real money.

        Its lease ends at once. The engine is told by a task, and again at each look while it
        reports the strategy running; the commit follows. Neither is waited for.
        """
        by, reason = _required("by", request.by, BY_MAX), _required("reason", request.reason)
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
        frozen = self._latch.engaged and self._kill.action == "freeze"
        if name not in self._pausing and not frozen:  # under "freeze" it must touch nothing
            self._pausing.add(name)
            self._host.spawn(self._tell_pause, name, reason)

    async def _tell_pause(self, name: str, reason: str) -> None:
        try:
            if not self._is_paused(name):  # resumed before this task began
                return
            await self._host.pause(name, reason)
            if not self._is_paused(name):  # resumed meanwhile, and the engine heard that first
                await self._host.resume(name)
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
        resumed = replace(book, paused_by="", paused_why="")
        if book.paused:
            resumed = replace(resumed, paused=False, warned=False, peak_minor=0)
            for draft in core.closed(name, f"resumed by {request.by}"):
                self._send(SendAlert(*astuple(draft)))
        self._keep(name, resumed)
        self._leases.change(name, after_resume(self._leases.grant(name)))
        self._host.spawn(self._remember)
        log.warning("strategy %s resumed by %s: %s", name, request.by, request.reason)
        return True

    @handles(ConfirmCounters)
    def confirm_counters(self, request: ConfirmCounters) -> bool:
        """A person says that the counters did restart; refused without a name and a reason."""
        by, reason = _required("by", request.by), _required("reason", request.reason)
        book = self._book(request.strategy)
        if book is None or not book.restarted:
            return False
        self._keep(request.strategy, replace(book, restarted=False))
        log.warning("counters of %s confirmed by %s: %s", request.strategy, by, reason)
        self._send(SendAlert(*astuple(core.counters_confirmed(request.strategy, by))))
        return True

    def _book(self, name: object) -> StrategyBook | None:
        return self._state.strategies.get(name) if isinstance(name, str) else None

    def _keep(self, name: str, book: StrategyBook) -> None:
        self._state = replace(self._state, strategies={**self._state.strategies, name: book})

    # -- alerts

    def _tell(self, level: Level, title: str, message: str, *, resolves: bool = False) -> None:
        self._send(
            SendAlert(
                level, Category.KILL_SWITCH, title, message, dedup_key="kill", resolves=resolves
            )
        )

    def _send(self, alert: SendAlert) -> None:
        """A CRITICAL leaves even when the database cannot be written; and nothing here waits for
        it.
        """
        with suppress(ActorError):
            self.context.ref("alert").tell_nowait(alert)


def _required(field: str, value: object, most: int = REASON_MAX) -> str:
    """A person's name or reason, as text. Raises: `BadRequest`."""
    text = fitted(plain_text(value), most).strip()
    if not text:
        raise BadRequest(field, "is missing: a person's name and a reason are needed")
    return text
