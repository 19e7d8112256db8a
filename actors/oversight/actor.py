"""The oversight actor: the tick.

One concept in a long file: the steps run in one order over one memory, and every rule that can be
stated without that memory has a file of its own beside this one.

It never trades. Each step is isolated: one that fails is counted, reported once until it works
again, and the others still run. The steps, in order: read the engine; book fills and settlements;
guard; promotion; reconcile stages; the end of sessions; recovery; remember and ask for alerts; what
ended sessions leave to others (promotion's sample, marks, fees); the broker's statement; storage;
publish.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import trio

from ...runtime import (
    DAY_US,
    ActorError,
    ChildStatus,
    Clock,
    FundopsError,
    Ref,
    Request,
    handles,
)
from ...runtime.errors import text_of
from ...wire.alert import AlertDraft, Category, ConsumeAlertRequests, Level
from ...wire.controller import CanListFills, CanListSettlements, StrategyStatus
from ...wire.entitlement import capital_of
from ...wire.errors import AmountError, HostLate, IdempotencyConflict, KillSwitchEngaged
from ...wire.guard import (
    GuardReport,
    ReadGuard,
    RenewLeases,
    RestoreGuard,
    StrategyResumed,
    Watch,
)
from ...wire.ledger import (
    ChargeManagementFee,
    ChargePerformanceFee,
    LedgerTotals,
    PostMany,
    ReadTotals,
)
from ...wire.money import from_minor, to_minor
from ...wire.oversight import (
    ConfirmClock,
    CrashesHeard,
    FundStatus,
    NavHistory,
    NavSample,
    ReadFundStatus,
    RememberGuard,
    ResumeStrategy,
    ShowStatus,
    Tick,
    TickReport,
)
from ...wire.paging import checked_limit
from ...wire.persistence import COMMIT_DEADLINE_S, Statement
from ...wire.promotion import EntitlementTerms, Observe, Transition
from ...wire.recovery import CheckFeeds, CheckStrategies, RecoveryPhase
from ...wire.status import ShowPromotion
from ...wire.stream.records import PromotionFull
from ..alert import told_keys
from ..alert.requests import alert_ref, requested, wake_alerts
from ..guard.schema import load_latch
from ..host import Host
from ..persistence import DurableActor, StorageBoard
from ..status.board import StatusBoard
from . import closing, fees, schema, shown
from .booking import Booking, entitled_again
from .breaks import BreakWatch, is_break, unmarked_minor
from .clocks import ClockWatch
from .crashes import CRASHED, CrashWatch
from .engine import LATE, Engine
from .failures import FAILED, FailureWatch
from .marks import marks_of
from .pauses import Pauses
from .reconcile import Reconciler
from .schema import Memory
from .sessions import NAMED_PERIODS_PER_YEAR, End, calendar_of
from .settings import OversightSettings
from .statements import WRONG, StatementWatch
from .storage import StorageWatch

__all__ = ["OversightActor"]

log = logging.getLogger("fundops.oversight")

R = TypeVar("R")

# A tick waits for whatever its steps wait for, such as a commit behind a busy disk.
STEP_DEADLINE_S = COMMIT_DEADLINE_S
# The reason that the supervisor gives to its children when it ends.
ORDERLY_STOP = "supervisor stopped"
_UNPRICED = "unpriced"  # dedup key
# The stream can wait for the next refresh, and the next tick cannot wait for the stream.
SHOW_DEADLINE_S = 1.0
SHOW_EVERY_S = 0.25  # the shortest time between the states of two ticks
# Gates are judged for the stream once a second at most, and for a twentieth of the time at most: a
# thousand of them take a tenth of a second.
PROMOTION_EVERY_S = 1.0
PROMOTION_SHARE = 20


class OversightActor(DurableActor):
    """Owns the tick, and the memory of guard and fees between two lives of the process."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        host: Host,
        settings: OversightSettings,
        capital_minor: int,
        tree: Callable[[], tuple[ChildStatus, ...]],
        clock_watch: ClockWatch | None = None,
        storage: StorageBoard | None = None,
        crashes: CrashWatch | None = None,
        board: StatusBoard | None = None,
        face: shown.FundFace = shown.FundFace(),  # noqa: B008  frozen
    ) -> None:
        super().__init__(path)
        self._clock = clock
        self._host = host
        self._settings = settings
        self._capital_minor = capital_minor
        self._tree = tree
        self._crashes = crashes or CrashWatch()
        self._board = board  # None: there is no stream
        self._face = face
        self._published_s = -math.inf  # on trio's clock
        self._unshown: dict[str, str] = {}  # topics that cannot be shown, and why
        self._promotion: Mapping[str, PromotionFull] | None = None  # as it is shown
        self._ask_promotion_s = -math.inf  # on trio's clock: not asked again before it
        self._nav_open: tuple[str, int | None] | None = None  # session, NAV at its end
        self._storage_board = storage or StorageBoard()
        self._booking = Booking(host, lambda request: self._ask("ledger", request))
        self._ticks = 0
        self._ticked_s: float | None = None  # monotonic end of the last tick; None: no tick yet
        self._ticked_us: int | None = None  # the domain's time of it
        self._failing: dict[str, str] = {}  # steps, and why
        self._told_steps: set[str] = set()  # those of them with an alert
        self._alerts: list[AlertDraft] = []
        self._failures = FailureWatch()  # used without self-healing, where recovery tells none
        self._memory = Memory()
        self._stored = Memory()  # the memory as it is on disk
        self._nav_lines: list[Statement] = []
        self._engine = Engine(host)
        self._pauses = Pauses(host)
        self._reconciler = Reconciler(host, capital_minor)
        # NAV at the last look, before the fees that have accrued and are not booked.
        self._gross_minor = 0
        # Deposits and P&L without a strategy, less withdrawals and posted fees, at that look.
        self._flows_minor = 0
        self._unpriced_told = False
        self._statements = self._statement_watch(())
        self._clock_watch = clock_watch or ClockWatch(clock)
        self._jumped = False  # whether the clock's jump was told
        self._calendar = calendar_of(settings.session)
        # The word that the engine gave at the tick before, and when; 0: not known.
        self._heard_before: tuple[StrategyStatus, ...] = ()
        self._heard_before_us = 0
        self._named: list[str] = []  # sessions that the host has ended and this actor has not
        self._due: tuple[End, ...] = ()  # what this tick ends
        # The engine's figures for the sessions in `Memory.ending`, as objects of this life.
        self._figures: dict[str, tuple[StrategyStatus, ...]] = {}
        self._break_watch = BreakWatch()
        self._break_told = False
        self._gap_minor: int | None = None  # the ledger's NAV less the guard's
        self._started_us = 0
        self._forget_latch: Callable[[], None] = lambda: None
        self._showing = False  # the kill switch is about to be shown
        self._terms: Mapping[str, EntitlementTerms] | None = None
        self._totals: LedgerTotals | None = None
        self._balance_sheet: Mapping[str, Any] | None = None  # as it is shown
        self._storage = StorageWatch(self._storage_board, alerts=settings.alerts_enabled)

    def load(self) -> None:
        """The memory as it is on disk. The one in hand is newer and stays."""
        self._stored = schema.load(self._reader)

    async def begin(self) -> None:
        """Hand the guard its state, and learn what the stages allow."""
        self._started_us = self._clock.now_us()
        self._memory = self._begun(self._stored)
        self._heard_before = schema.read_back(self._stored.statuses)
        self._heard_before_us = self._stored.heard_us
        if self._settings.alerts_enabled:
            self._failures = FailureWatch(told_keys(self._reader, FAILED))
            self._crashes.resolve(told_keys(self._reader, CRASHED))
            self._engine.recall(told_keys(self._reader, LATE))
            self._unpriced_told = _UNPRICED in told_keys(self._reader, _UNPRICED)
            self._statements = self._statement_watch(told_keys(self._reader, WRONG))
        stored = self._memory.guard
        guard = await self._ask("guard", RestoreGuard(stored, load_latch(self._reader)))
        flow = guard.external_minor - stored.external_minor
        if stored.units and flow:  # the guard has seen it, and the fees of this memory have not
            now_us = self._started_us
            self._memory = closing.with_flow(self._memory, self._settings, flow, now_us)
        self._memory = msgspec.structs.replace(self._memory, guard=guard)
        books = guard.strategies
        self._reconciler.recall(name for name, book in books.items() if book.above)
        # The kill switch is shown at once, and not by the next tick.
        self._forget_latch = self._host.latch.on_change(self._latch_changed)
        if self._settings.promotion_enabled:
            self._terms = (await self._ask("promotion", Observe(()))).terms

    def _statement_watch(self, told: Iterable[str]) -> StatementWatch:
        return StatementWatch(
            self._host,
            lambda request: self._ask("ledger", request),
            self._settings.break_tolerance,
            told,
        )

    def _begun(self, memory: Memory) -> Memory:
        """The memory of a fund that has started once at least."""
        fee, since_us = memory.fees, memory.since_us or memory.fees.at_us or self._started_us
        return msgspec.structs.replace(
            memory,
            since_us=since_us,
            tick_us=memory.tick_us or fee.at_us,
            statuses=(),
            heard_us=0,
            fees=msgspec.structs.replace(fee, crystallised_us=fee.crystallised_us or since_us),
        )

    async def on_stop(self, reason: str) -> None:
        """Store the record, with the engine's last word, at an orderly stop of the fund."""
        self._forget_latch()
        try:
            # In a restart of the tree persistence may be the one that is down.
            if self._ticks and reason == ORDERLY_STOP:
                await self._remember_all()
        except FundopsError as refusal:
            log.warning("the last figures are not stored: %s", refusal)
        finally:
            await super().on_stop(reason)

    async def _remember_all(self) -> None:
        guard = self._memory.guard
        with suppress(ActorError):
            guard = await self._ask("guard", ReadGuard())
        memory = msgspec.structs.replace(
            self._memory,
            guard=guard,
            statuses=schema.kept(self._heard_before),
            heard_us=self._heard_before_us,
        )
        enabled = self._settings.alerts_enabled
        alerts = requested(self._clock.now_us(), self._alerts) if enabled else ()
        await self._save((schema.remembered(memory), *self._nav_lines, *alerts))

    def _ref(self, name: str) -> Ref:
        return self.context.ref(name)

    async def _ask(self, name: str, request: Request[R]) -> R:
        return await self._ref(name).ask(request, timeout_s=STEP_DEADLINE_S)

    @asynccontextmanager
    async def _step(self, name: str) -> AsyncIterator[None]:
        """One step. What other actors refuse or crash over, and what the engine does wrong, ends
        here.
        """
        try:
            yield
        except FundopsError as error:
            if name not in self._failing:
                log.error("step %s failed: %s", name, error)
            # A part that is late has an alert by its name.
            if name not in self._told_steps and not isinstance(error, HostLate):
                self._told_steps.add(name)
                self._note(
                    Level.WARNING,
                    Category.GENERAL,
                    f"Oversight step {name} fails",
                    str(error),
                    f"step:{name}",
                )
            self._failing[name] = str(error)
        else:
            self._failing.pop(name, None)
            if name in self._told_steps:
                self._told_steps.discard(name)
                self._resolve(
                    Category.GENERAL, f"Oversight step {name} works again", f"step:{name}"
                )

    def _note(
        self,
        level: Level,
        category: Category,
        title: str,
        message: str,
        key: str,
        name: str | None = None,
    ) -> None:
        self._alerts.append(AlertDraft(level, category, title, message, name, key))

    def _resolve(self, category: Category, title: str, key: str) -> None:
        self._alerts.append(AlertDraft(Level.INFO, category, title, "", None, key, resolves=True))

    # -- the tick

    @handles(Tick)
    async def tick(self, request: Tick) -> TickReport:
        """One round. Answers when all of its commits are durable."""
        self._ticks += 1
        transitions: list[Transition] = []
        self._look_at_clock()
        async with self._step("engine"):
            await self._engine.read()
        self._begin_sessions(request.session)
        if self._due and self._settings.ledger_enabled:
            self._host.ask_statement()
        if not self._settings.self_healing_enabled and self._is_heard():
            self._alerts += self._failures.look(self._engine.statuses, self._terms)
        async with self._step("feeds"):
            await self._engine.read_feeds()
        self._alerts += self._engine.alerts()
        if self._settings.ledger_enabled:
            async with self._step("ledger"):
                await self._book()
        async with self._step("guard"):
            await self._watch()
        if self._settings.promotion_enabled:
            async with self._step("promotion"):
                transitions += await self._promote()
            if "engine" not in self._failing:
                async with self._step("reconcile"):
                    await self._reconcile()
        self._end_session()
        if self._settings.self_healing_enabled:
            async with self._step("recovery"):
                await self._recover()
        async with self._step("remember"):
            await self._remember()
        if self._settings.promotion_enabled:
            async with self._step("sample"):
                await self._sample(transitions)
        if self._settings.ledger_enabled:
            async with self._step("fees"):
                await self._charge()
            async with self._step("marks"):
                await self._mark()
            self._compare()
            async with self._step("statement"):
                await self._compare_statement()
        if self._due or self._alerts:  # consumers have taken sessions, and alerts followed
            async with self._step("remember"):
                await self._remember()
        await self._look_at_storage()
        if self._settings.alerts_enabled:
            async with self._step("alert"):
                await self._ask("alert", ConsumeAlertRequests())
        if self._totals is not None:
            self._balance_sheet = self._totals.balance_sheet
        self._ticked_s, self._ticked_us = self._clock.monotonic_s(), self._clock.now_us()
        self._publish_tick()
        promotions = sum(one.kind == "promote" for one in transitions)
        return TickReport(
            self._ticks,
            promotions,
            len(transitions) - promotions,
            tuple(self._failing),
            tuple(end.session for end in self._due),
        )

    async def _look_at_storage(self) -> None:
        """Its alerts are its own, so unlike other steps it leaves none behind here."""
        problem = await self._storage.look(self._ask, self._clock.now_us())
        if problem is None:
            self._failing.pop("storage", None)
        else:
            self._failing["storage"] = problem

    def _is_heard(self) -> bool:
        """Whether the engine's last words are news: it has answered, and is not silent.

        The words of before a silence are no evidence of today.
        """
        return "engine" not in self._failing and not self._engine.heard.silent

    async def _book(self) -> None:
        """Fees that a former life owed, then the reports of the engine; neither waits for the
        other.
        """
        terms = self._terms if self._settings.promotion_enabled else None
        try:
            await self._charge()
        finally:
            try:
                await self._booking.book(terms, self._terms_of_now)
            finally:
                self._totals = self._booking.totals or self._totals
        if self._settings.alerts_enabled:
            self._alerts += entitled_again(self._reader, terms)

    async def _terms_of_now(self) -> Mapping[str, EntitlementTerms]:
        return (await self._ask("promotion", Observe(()))).terms

    async def _watch(self) -> None:
        now_us, suspect = self._clock.now_us(), self._clock_watch.is_suspect()
        memory, totals = self._memory, self._totals
        external = self._external_minor()
        if memory.guard.units and not suspect:
            flow = external - memory.guard.external_minor
            memory = closing.with_flow(memory, self._settings, flow, now_us)
        posted, owed = memory.fees.posted_minor, 0
        if totals is not None:
            posted, owed = totals.fees_minor, sum(fee.amount_minor for fee in memory.owed)
            memory = self._earned(memory, totals)
        earned = memory.earned_minor + memory.converted_minor
        report: GuardReport = await self._ask(
            "guard",
            Watch(
                self._engine.statuses,
                self._terms,
                external,
                posted,
                memory.fees.management_minor + owed,
                blind_s=self._engine.blind_s,
                fees=fees.terms(memory.fees, self._settings.fees),
                doubts=self._engine.lapsed(),
                session=memory.session,
                listed=self._engine.heard.listed,
                earned_minor=earned,
            ),
        )
        if not report.problem:
            fee = msgspec.structs.replace(memory.fees, performance_minor=report.performance_minor)
            if not fee.at_us and not suspect:
                fee = fees.accrue(fee, self._settings.fees, now_us, nav_minor=0)
            self._memory = msgspec.structs.replace(memory, fees=fee)
            self._gross_minor = report.gross_minor
            self._flows_minor = external + earned - posted
        self._memory = msgspec.structs.replace(self._memory, guard=report.state)
        self._alerts += report.alerts
        await self._pauses.tell(report.pauses, report.state)
        if report.problem:
            raise AmountError("nav", from_minor(report.gross_minor), report.problem)

    def _external_minor(self) -> int:
        """Deposits less withdrawals; while the ledger is silent, those of the last look."""
        if self._totals is not None:
            return self._totals.external_minor
        guard = self._memory.guard
        known = self._settings.ledger_enabled and bool(guard.units)
        return guard.external_minor if known else self._capital_minor

    def _earned(self, memory: Memory, totals: LedgerTotals) -> Memory:
        """The memory with the P&L that the ledger booked without a strategy.

        An asset that was bought and has no price yet is worth nothing in the ledger. That is no
        loss that may stop the fund, so the gain of other assets then stands as it was.
        """
        converted, unpriced = totals.converted_minor, totals.converted_minor is None
        if unpriced and not self._unpriced_told:
            names = ", ".join(totals.unpriced)
            text = (
                f"{names}: the ledger's NAV does not count them, and the guard's keeps the last"
                " known value of other assets, until ledger.price(asset, value)"
            )
            self._note(Level.WARNING, Category.GENERAL, "Assets without a price", text, _UNPRICED)
        elif self._unpriced_told and not unpriced:
            self._resolve(Category.GENERAL, "All assets have a price", _UNPRICED)
        self._unpriced_told = unpriced
        return msgspec.structs.replace(
            memory,
            earned_minor=totals.earned_minor,
            converted_minor=memory.converted_minor if converted is None else converted,
        )

    async def _promote(self) -> tuple[Transition, ...]:
        evaluate = self._ticks % self._settings.promotion_every_ticks == 0
        statuses = self._engine.statuses if self._is_heard() else ()
        return await self._observe(statuses, None, evaluate=evaluate)

    async def _observe(
        self, statuses: Sequence[StrategyStatus], session: str | None, *, evaluate: bool
    ) -> tuple[Transition, ...]:
        named = self._memory.named
        observed = await self._ask(
            "promotion",
            Observe(
                statuses,
                session,
                evaluate and not self._clock_watch.is_suspect(),
                NAMED_PERIODS_PER_YEAR if named else self._calendar.periods_per_year,
            ),
        )
        before, self._terms = self._terms or {}, observed.terms
        if before != self._terms and not self._engine.blind_s:
            renewed = RenewLeases(self._engine.statuses, self._terms, self._engine.lapsed())
            await self._ask("guard", renewed)
        for name, terms in observed.terms.items():
            old = before.get(name)
            if old is not None and old.real_capital_fraction != terms.real_capital_fraction:
                self._rebalanced(name, old, terms)
        return observed.transitions

    def _rebalanced(self, name: str, before: EntitlementTerms, after: EntitlementTerms) -> None:
        old, new = (capital_of(terms, self._capital_minor) for terms in (before, after))
        text = f"capital entitlement from {old:,.2f} to {new:,.2f}"
        self._alerts.append(
            AlertDraft(Level.INFO, Category.REBALANCE, f"{name} rebalanced", text, name)
        )

    async def _reconcile(self) -> None:
        """The stage in force at the engine must be the one in the database."""
        try:
            await self._reconciler.run(self._engine.statuses, self._terms or {})
        finally:
            self._alerts += self._reconciler.alerts

    # -- the clock and the sessions

    def _look_at_clock(self) -> None:
        suspect = self._clock_watch.is_suspect()
        if suspect and not self._jumped:
            parted_s = self._clock_watch.parted_s()
            text = (
                f"the wall clock moved by {parted_s:+,.0f} s against the monotonic clock; no"
                " session ends, and fees and promotions wait until the two agree or"
                " fund.confirm_clock(by=, reason=) says that the wall clock is right"
            )
            log.warning("clock_jump: %s", text)
            self._note(Level.WARNING, Category.GENERAL, "clock_jump", text, "clock_jump")
        elif self._jumped and not suspect:
            self._resolve(Category.GENERAL, "clock_jump is over", "clock_jump")
        self._jumped = suspect

    @handles(ConfirmClock)
    def confirm_clock(self, request: ConfirmClock) -> bool:
        """Take the wall clock as right; False when it was not suspect."""
        suspect = self._clock_watch.is_suspect()
        if suspect:
            log.warning("clock confirmed by %s: %s", request.by, request.reason)
            self._clock_watch.confirm()
        return suspect

    def _begin_sessions(self, named: str | None) -> None:
        """Accrue the fees of now, and end the sessions whose end was missed."""
        now_us, memory = self._clock.now_us(), self._memory
        self._due = ()
        if named is not None:
            self._named.append(named)
        if self._clock_watch.is_suspect():
            return
        self._due = closing.ends(
            memory,
            self._calendar,
            self._named,
            now_us=now_us,
            alive_since_us=self._started_us,
            interval_s=self._settings.tick_interval_s,
        )
        if self._named:
            memory = msgspec.structs.replace(memory, named=True)
            self._named.clear()
        self._figures |= {
            end.session: self._last_known(memory, end) for end in self._due if end.missed
        }
        self._memory, lines = closing.begin(
            memory,
            self._settings,
            self._due,
            self._figures,
            now_us=now_us,
            capital_minor=self._paid_in_minor(),
        )
        self._nav_lines += lines

    def _last_known(self, memory: Memory, end: End) -> tuple[StrategyStatus, ...]:
        """The engine's figures for a session whose end was missed; () when it gave none in it."""
        if not closing.took_place(end, memory.tick_us):
            return ()
        if self._heard_before_us:
            heard = closing.took_place(end, self._heard_before_us)
            return self._heard_before if heard else ()
        # After a crash the last word is not known, and the first one since must do.
        return self._engine.statuses if self._is_heard() else ()

    def _end_session(self) -> None:
        """End the sessions that end with this tick's figures, and note the tick."""
        now_us, nav = self._clock.now_us(), self._nav_minor()
        for end in self._due:
            if end.missed:
                continue
            silent = not (self._is_heard() and closing.had_tick(self._memory, end, now_us))
            statuses = () if silent else self._engine.statuses
            self._memory, lines = closing.close(
                self._memory,
                self._settings,
                end,
                statuses,
                nav_minor=nav,
            )
            self._nav_lines += lines
            self._figures[end.session] = statuses
        if self._due:
            waiting = {ending.session for ending in self._memory.ending}
            self._figures = {key: self._figures[key] for key in waiting & self._figures.keys()}
        if self._clock_watch.is_suspect():
            return  # an instant of a wrong clock says nothing of the session it fell into
        if self._is_heard():
            self._heard_before, self._heard_before_us = self._engine.statuses, now_us
        tick_us = max(self._memory.tick_us, now_us)
        self._memory = msgspec.structs.replace(self._memory, tick_us=tick_us)

    def _durable_endings(self) -> tuple[schema.Ending, ...]:
        """The endings that consumers may take: those of which the commit is known."""
        stored = {ending.session for ending in self._stored.ending}
        return tuple(ending for ending in self._memory.ending if ending.session in stored)

    def _figures_of(self, ending: schema.Ending) -> tuple[StrategyStatus, ...]:
        found = self._figures.get(ending.session)
        return schema.read_back(ending.statuses) if found is None else found

    def _taken(self, session: str, consumer: Literal["sample", "marks"]) -> None:
        self._memory = closing.taken(self._memory, session, consumer)
        if session not in {ending.session for ending in self._memory.ending}:
            self._figures.pop(session, None)

    async def _sample(self, transitions: list[Transition]) -> None:
        """Give promotion the sample of each session, in order, until it has taken it."""
        for ending in self._durable_endings():
            if ending.sample:
                figures = self._figures_of(ending)
                transitions += await self._observe(
                    figures, ending.session, evaluate=not ending.missed and bool(figures)
                )
                self._taken(ending.session, "sample")

    async def _charge(self) -> None:
        """Book the fees that are owed, once the record says so.

        A crash after the booking then asks for the same keys and amounts again, which the ledger
        answers with the entries it has: a fee is charged neither twice nor never.
        """
        if not self._memory.owed or self._stored.owed != self._memory.owed:
            return
        for one in self._memory.owed:
            charge = ChargeManagementFee if one.kind == "management" else ChargePerformanceFee
            try:
                await self._ask(
                    "ledger",
                    charge(from_minor(one.amount_minor), key=f"fee:{one.kind}:{one.session}"),
                )
            except IdempotencyConflict as booked:
                log.warning("session %s was charged before: %s", one.session, booked)
        self._totals = await self._ask("ledger", ReadTotals())
        self._memory = msgspec.structs.replace(self._memory, owed=())

    async def _mark(self) -> None:
        """Mark the book's positions for each session, in order, until the ledger has taken it."""
        for ending in self._durable_endings():
            if not ending.marks or self._totals is None:
                continue
            marks = marks_of(self._totals.positions, self._figures_of(ending), ending.session)
            if marks:
                try:
                    await self._ask("ledger", PostMany(marks))
                except IdempotencyConflict as booked:
                    log.warning("session %s was marked before: %s", ending.session, booked)
                self._totals = await self._ask("ledger", ReadTotals())
            self._taken(ending.session, "marks")

    def _compare(self) -> None:
        """Compare the ledger's NAV with the guard's, which rest on different reports.

        Where no fills or settlements come in by themselves the book lacks what the engine trades:
        the difference is shown, and is no fault.
        """
        every = self._settings.recovery_every_ticks
        if self._totals is None or not (self._due or self._ticks % every == 0):
            return
        totals = self._totals
        unmarked = unmarked_minor(totals.positions, self._engine.statuses)
        # The book has moved on since the look, by the fees of this tick and by what people booked.
        converted = totals.converted_minor
        earned = totals.earned_minor
        earned += self._memory.converted_minor if converted is None else converted
        flows = totals.external_minor + earned - totals.fees_minor
        expected = self._gross_minor + flows - self._flows_minor
        gap = self._gap_minor = totals.nav_minor + unmarked - expected
        if not (self._host.can(CanListFills) or self._host.can(CanListSettlements)):
            return
        is_broken = is_break(gap, expected, self._settings.break_tolerance)
        stands = self._break_watch.look(is_broken, self._clock.monotonic_s())
        if stands and not self._break_told:
            self._break_told = True
            title = "Ledger and engine disagree on NAV"
            text = (
                f"ledger {from_minor(totals.nav_minor)}, with marks of {from_minor(unmarked)} still"
                f" to be booked; engine {from_minor(expected)}; difference {from_minor(gap)}"
            )
            self._note(Level.CRITICAL, Category.GENERAL, title, text, "break")
        elif self._break_told and not is_broken:
            self._break_told = False
            self._resolve(Category.GENERAL, "Ledger and engine agree on NAV", "break")

    async def _compare_statement(self) -> None:
        """Compare the broker's statement, when one has come in, with the books of its day."""
        agreed, alerts = await self._statements.look(self._clock.now_us(), self._memory.agreed)
        self._memory = msgspec.structs.replace(self._memory, agreed=agreed)
        self._alerts += alerts

    async def _recover(self) -> None:
        """Look for new failures and stale feeds at the first tick and every few ticks from then on;
        go on with the known failures at each.
        """
        killed, heard = self._host.latch.engaged, self._engine.heard
        # The age of the last word, when there is no instant of an answer: a host that was never
        # heard has listed nothing, which is no news about a strategy.
        heard_us = self._clock.now_us() - round(heard.age_s * 1_000_000)
        if heard.at_us is not None:
            heard_us = heard.at_us
        discover = (self._ticks - 1) % self._settings.recovery_every_ticks == 0
        await self._ask("recovery", CheckStrategies(heard.statuses, killed, heard_us, discover))
        if discover:
            await self._ask("recovery", CheckFeeds(self._engine.feeds))

    async def _remember(self) -> None:
        """One commit: alerts asked for, the record when it matters, the lines of ended sessions."""
        memory, statements = self._memory, list(self._nav_lines)
        must = bool(statements) or self._ticks == 1 or schema.must_remember(memory, self._stored)
        if must:
            statements.append(schema.remembered(memory))
        crashes = self._crashes.ready()
        if self._settings.alerts_enabled:
            statements += requested(self._clock.now_us(), [*crashes, *self._alerts])
        await self._save(statements)
        self._crashes.committed(len(crashes))
        if must:
            self._stored = memory
        self._nav_lines.clear()
        self._alerts.clear()

    @handles(CrashesHeard)
    async def tell_crashes(self, _: CrashesHeard) -> None:
        """Ask for the alerts about crashed actors now; what storage refuses waits for a tick."""
        crashes = self._crashes.ready()
        if not self._settings.alerts_enabled or not crashes:
            return
        refusal = await self.append(requested(self._clock.now_us(), crashes))
        if refusal is None:
            self._crashes.committed(len(crashes))
            wake_alerts(alert_ref(self.context))

    async def _save(self, statements: Sequence[Statement]) -> None:
        refusal = await self.append(statements)
        if refusal is not None:
            raise refusal

    # -- showing

    def _publish_tick(self) -> None:
        """Show the states after a tick, unless they were shown just now.

        A replay ticks a thousand times a second, and the status actor has them refreshed anyway.
        """
        if self._board is not None:
            self._board.ticked_s = self._ticked_s
            if trio.current_time() >= self._published_s + SHOW_EVERY_S:
                self._publish()

    def _publish(self, *, urgent: bool = False) -> None:
        """Show the states of now. The stream is optional, so no error of it fails a tick."""
        if self._board is None:
            return
        states = {}
        for topic, state in self._states().items():
            try:
                states[topic] = state()
            except Exception as error:  # noqa: BLE001  what is shown comes from outside in part
                text = text_of(error)
                if self._unshown.get(topic) != text:  # once, and not at every tick
                    self._unshown[topic] = text
                    log.error("status stream, topic %s: %s", topic, text)
            else:
                self._unshown.pop(topic, None)
        self._published_s = trio.current_time()
        details = None if self._promotion is None else {"promotion": self._promotion}
        self._board.ticked_s = self._ticked_s
        self._board.publish(states, details=details, urgent=urgent)

    @handles(ShowStatus)
    async def show_status(self, _: ShowStatus) -> None:
        """Show the states between two ticks, with the balances and the gates of now."""
        if self._totals is not None:
            with suppress(FundopsError):  # then those of the last tick stand
                totals = await self._ref("ledger").ask(ReadTotals(), timeout_s=SHOW_DEADLINE_S)
                self._balance_sheet = totals.balance_sheet
        await self._look_at_promotion()
        self._publish()

    async def _look_at_promotion(self) -> None:
        """Have the gates judged for the stream, at the rate that their number allows."""
        begun_s = trio.current_time()
        if not self._settings.promotion_enabled or begun_s < self._ask_promotion_s:
            return
        taken_s = time.perf_counter()
        with suppress(FundopsError):
            promotion = self._ref("promotion")
            self._promotion = await promotion.ask(ShowPromotion(), timeout_s=SHOW_DEADLINE_S)
        taken_s = time.perf_counter() - taken_s
        self._ask_promotion_s = begun_s + max(PROMOTION_EVERY_S, PROMOTION_SHARE * taken_s)

    def _latch_changed(self) -> None:
        if self._board is not None and not self._showing:
            self._showing = True
            self._host.spawn(self._show_fund)

    async def _show_fund(self) -> None:
        """Show the kill switch; the engine is told first, so this waits for its turn."""
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        self._showing = False
        self._publish(urgent=True)

    def _states(self) -> dict[str, Callable[[], Mapping[str, Any]]]:
        """How each topic is made. One that fails, for a value from outside, hides no other."""
        guard, statuses, terms = self._memory.guard, self._engine.statuses, self._terms or {}
        states: dict[str, Callable[[], Mapping[str, Any]]] = {
            "fund": self._shown_fund,
            "strategies": lambda: shown.strategies(statuses, terms, guard),
            "feeds": lambda: shown.feeds(self._engine.feeds, self._clock.now_us()),
        }
        if (balances := self._balance_sheet) is not None:
            states["balances"] = lambda: shown.texts(balances)
        if (promotion := self._promotion) is not None:
            states["promotion"] = lambda: shown.briefs(promotion)
        return states

    def _shown_fund(self) -> dict[str, Any]:
        heard = self._host.heard()
        now_us = self._clock.now_us()
        return shown.fund(
            self._fund_status(),
            self._memory.guard,
            self._face,
            self._host.latch.status,
            self._storage_board.read(),
            now_us=now_us,
            tick_us=self._ticked_us,
            data_us=now_us - round(heard.age_s * 1_000_000) if self._ticks else None,
            nav_open_minor=self._nav_at_open(),
        )

    def _nav_at_open(self) -> int | None:
        """NAV at the end of the last session that is stored; None: none is."""
        session = self._stored.session
        if self._nav_open is None or self._nav_open[0] != session:
            newest = schema.nav_history(self._reader, 1)
            minor = to_minor(newest[0].nav).minor if newest else None
            self._nav_open = (session, minor)
        return self._nav_open[1]

    @handles(ReadFundStatus)
    def fund_status(self, _: ReadFundStatus) -> FundStatus:
        """The fund as of its last tick, with the alerts and the open breakers of now."""
        return self._fund_status()

    def _fund_status(self) -> FundStatus:
        guard, fee, heard = self._memory.guard, self._memory.fees, self._host.heard()
        by_stage: dict[str, int] = {}
        for terms in (self._terms or {}).values():
            by_stage[terms.stage.value] = by_stage.get(terms.stage.value, 0) + 1
        return FundStatus(
            running=True,
            total_capital=from_minor(self._capital_minor),
            nav=from_minor(self._nav_minor()),
            drawdown_pct=round(guard.drawdown, 6),
            high_water_mark=from_minor(round(fee.mark_per_unit * guard.units)),
            running_strategies=sum(one.state == "running" for one in self._engine.statuses),
            total_fees=from_minor(fee.posted_minor + fee.accrued_minor),
            kill_switch=self._host.latch.status.state,
            mode="act",
            strategies_by_stage=by_stage,
            alerts_24h=self._count_alerts(),
            breakers_open=self._count_breakers(),
            ticks=self._ticks,
            nav_difference=None if self._gap_minor is None else from_minor(self._gap_minor),
            clock_suspect=self._clock_watch.is_suspect(),
            data_age_s=round(heard.age_s, 3) if self._ticks else None,
            stale=heard.silent and bool(guard.strategies),
            tick_age_s=self._tick_age_s(),
        )

    def _nav_minor(self) -> int:
        return closing.nav_minor(self._memory, self._paid_in_minor())

    def _paid_in_minor(self) -> int:
        return self._capital_minor if self._totals is None else self._totals.nav_minor

    def _tick_age_s(self) -> float | None:
        if self._ticked_s is None:
            return None
        return round(self._clock.monotonic_s() - self._ticked_s, 3)

    # Read from the file when they are shown: others write these rows, and a value kept here would
    # be as old as the last question.

    def _count_alerts(self) -> int:
        since_us = self._clock.now_us() - DAY_US
        query = "SELECT count(*) FROM alert WHERE at_us > ?"
        return int(self._reader.row(query, (since_us,))[0])

    def _count_breakers(self) -> int:
        if not self._settings.self_healing_enabled:
            return 0
        query = "SELECT count(*) FROM recovery_state WHERE phase = ?"
        return int(self._reader.row(query, (RecoveryPhase.OPEN.value,))[0])

    @handles(RememberGuard)
    async def remember_guard(self, _: RememberGuard) -> None:
        """Refused with what the storage refuses; the next tick then tries again."""
        memory = msgspec.structs.replace(self._memory, guard=await self._ask("guard", ReadGuard()))
        await self._save((schema.remembered(memory), *self._nav_lines))
        self._memory = self._stored = memory
        self._nav_lines.clear()

    @handles(ResumeStrategy)
    async def resume(self, request: ResumeStrategy) -> bool:
        """Waits for the engine here, as the pauses do: the guard never waits for it.

        Refused with `KillSwitchEngaged`, since the engine would run it against the switch;
        with `HostFault` when the engine does not listen. The strategy then stays paused.
        """
        guard = await self._ask("guard", ReadGuard())
        book = guard.strategies.get(request.strategy)
        if book is None or not (book.paused or book.paused_by):
            return False
        if self._host.latch.stops(request.strategy):
            raise KillSwitchEngaged(self._host.latch.status.state)
        await self._host.resume(request.strategy)
        return await self._ask(
            "guard", StrategyResumed(request.strategy, request.by, request.reason)
        )

    @handles(NavHistory)
    def nav_history(self, request: NavHistory) -> tuple[NavSample, ...]:
        """NAV and drawdown at the end of each session, newest first."""
        return schema.nav_history(self._reader, checked_limit(request.limit))
