"""The oversight actor: the tick.

It never trades. Each step is isolated: one that fails is counted, reported once until it works
again, and the others still run. The steps, in order: read the engine; guard; promotion; reconcile
stages; book fills and settlements; fees and the end of a session; recovery; remember and ask for
alerts; publish.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import trio

from ...runtime import (
    DAY_US,
    ActorError,
    ChildStatus,
    Clock,
    FundopsError,
    Ref,
    handles,
)
from ...wire.alert import AlertDraft, Category, ConsumeAlertRequests, Level
from ...wire.errors import IdempotencyConflict
from ...wire.guard import GuardReport, GuardState, ReadGuard, RenewLeases, RestoreGuard, Watch
from ...wire.ledger import (
    BookFills,
    BookSettlements,
    ChargeManagementFee,
    ChargePerformanceFee,
    LedgerPosition,
    LedgerTotals,
    PostMany,
    ReadTotals,
)
from ...wire.money import fraction_of, from_minor
from ...wire.oversight import (
    FundStatus,
    NavHistory,
    NavSample,
    ReadFundStatus,
    RememberGuard,
    Tick,
    TickReport,
)
from ...wire.paging import checked_limit
from ...wire.persistence import COMMIT_DEADLINE_S, Statement
from ...wire.promotion import EntitlementTerms, Observe, Transition
from ...wire.recovery import CheckFeeds, CheckStrategies, RecoveryPhase, RecoveryStatuses
from ...wire.status import EventsCommitted, PublishStatus
from ..alert.requests import requested
from ..guard.schema import load_latch
from ..host import Host
from ..persistence import DurableActor
from . import fees, schema, shown
from .breaks import is_break
from .engine import Engine
from .fees import Owed
from .marks import marks_of
from .pauses import Pauses
from .reconcile import Reconciler
from .schema import Memory
from .settings import OversightSettings

__all__ = ["OversightActor"]

log = logging.getLogger("fundops.oversight")

# A tick waits for whatever its steps wait for, such as a commit behind a busy disk.
STEP_DEADLINE_S = COMMIT_DEADLINE_S


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
    ) -> None:
        super().__init__(path)
        self._clock = clock
        self._host = host
        self._settings = settings
        self._capital_minor = capital_minor
        self._tree = tree
        self._ticks = 0
        self._failing: dict[str, str] = {}  # steps, and why
        self._alerts: list[AlertDraft] = []
        self._memory = Memory()
        self._stored = Memory()  # the memory as it is on disk
        self._nav_lines: list[Statement] = []
        self._engine = Engine(host)
        self._pauses = Pauses(host)
        self._reconciler = Reconciler(host, capital_minor)
        # NAV at the last look, before the fees that have accrued and are not booked.
        self._gross_minor = 0
        self._broken = False  # whether the two NAVs disagree
        self._forget_latch: Callable[[], None] = lambda: None
        self._showing = False  # the kill switch is about to be shown
        self._terms: Mapping[str, EntitlementTerms] | None = None
        self._totals: LedgerTotals | None = None
        self._breakers_open = 0
        self._alerts_24h = 0

    def load(self) -> None:
        """The memory as it is on disk. The one in hand is newer and stays."""
        self._stored = schema.load(self._reader)

    async def begin(self) -> None:
        """Hand the guard its state, and learn what the stages allow."""
        self._memory = self._stored
        await self._ask("guard", RestoreGuard(self._memory.guard, load_latch(self._reader)))
        books = self._memory.guard.strategies
        self._reconciler.recall(name for name, book in books.items() if book.above)
        # The kill switch is shown at once, and not by the next tick.
        self._forget_latch = self._host.latch.on_change(self._latch_changed)
        if self._settings.promotion_enabled:
            self._terms = (await self._ask("promotion", Observe(()))).terms

    async def on_stop(self, reason: str) -> None:
        """Show the kill switch no more, and close the reader."""
        self._forget_latch()
        await super().on_stop(reason)

    def _ref(self, name: str) -> Ref:
        return self.context.ref(name)

    async def _ask(self, name: str, request: Any) -> Any:
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
                self._note(
                    Level.WARNING,
                    Category.GENERAL,
                    f"Oversight step {name} fails",
                    str(error),
                    f"step:{name}",
                )
            self._failing[name] = str(error)
        else:
            if self._failing.pop(name, None) is not None:
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
        transitions: Sequence[Transition] = ()
        session = request.session if request.session != self._memory.session else None
        async with self._step("engine"):
            await self._engine.read()
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
                transitions = await self._promote(session)
            if "engine" not in self._failing:
                async with self._step("reconcile"):
                    await self._reconcile()
        if session is not None:
            async with self._step("session"):
                await self._end_session(session)
        if self._settings.self_healing_enabled:
            async with self._step("recovery"):
                await self._recover()
        async with self._step("remember"):
            await self._remember(session)
        if self._settings.ledger_enabled:
            async with self._step("fees"):
                await self._charge()
        if self._settings.alerts_enabled:
            async with self._step("alert"):
                await self._ask("alert", ConsumeAlertRequests())
        if self._settings.status_enabled:
            self._publish()
        promotions = sum(one.kind == "promote" for one in transitions)
        return TickReport(
            self._ticks, promotions, len(transitions) - promotions, tuple(self._failing)
        )

    async def _book(self) -> None:
        """Fees that a former life owed; fills and settlements after the stored cursors, once
        each.
        """
        await self._charge()
        self._totals = await self._ask("ledger", ReadTotals())
        cursors = self._totals.cursors
        fills = self._host.fills(cursors.get("fills", ""))
        settlements = self._host.settlements(cursors.get("settlements", ""))
        if fills:
            await self._ask("ledger", BookFills(fills))
        if settlements:
            await self._ask("ledger", BookSettlements(settlements))
        if fills or settlements:
            self._totals = await self._ask("ledger", ReadTotals())

    async def _watch(self) -> None:
        now_us = self._clock.now_us()
        guard, fee = self._memory.guard, self._memory.fees
        external, posted, owed = self._capital_minor, fee.posted_minor, 0
        if self._totals is not None:
            external, posted, owed = (
                self._totals.external_minor,
                self._totals.fees_minor,
                self._owed_minor(),
            )
        fee = msgspec.structs.replace(fee, posted_minor=posted + owed)
        gross = guard.nav_minor + fee.accrued_minor
        if guard.units:
            fee = fees.accrue(
                fee,
                self._settings.fees,
                now_us,
                nav_minor=guard.nav_minor,
                gross_minor=gross,
                units=guard.units,
            )
        report: GuardReport = await self._ask(
            "guard",
            Watch(
                self._engine.statuses,
                self._terms,
                external,
                posted,
                fee.accrued_minor + owed,
                self._engine.blind_s,
                self._engine.lapsed(),
                self._memory.session,
                self._engine.heard.listed,
            ),
        )
        self._gross_minor = report.gross_minor
        if not fee.at_us:
            fee = msgspec.structs.replace(fee, at_us=now_us, crystallised_us=now_us)
        self._memory = msgspec.structs.replace(self._memory, guard=report.state, fees=fee)
        self._alerts += report.alerts
        await self._pauses.tell(report.pauses, report.state)

    def _owed_minor(self) -> int:
        return sum(one.amount_minor for one in self._memory.owed)

    async def _promote(self, session: str | None) -> tuple[Transition, ...]:
        evaluate = self._ticks % self._settings.promotion_every_ticks == 0
        # What an engine said before it fell silent is no evidence of today.
        statuses = () if "engine" in self._failing else self._engine.statuses
        observed = await self._ask("promotion", Observe(statuses, session, evaluate))
        before, self._terms = self._terms or {}, observed.terms
        if before != self._terms and not self._engine.blind_s:
            renewed = RenewLeases(self._engine.statuses, self._terms, self._engine.lapsed())
            await self._ask("guard", renewed)
        for name, terms in observed.terms.items():
            old = before.get(name)
            if old is not None and old.real_capital_fraction != terms.real_capital_fraction:
                self._rebalanced(name, old, terms)
        transitions: tuple[Transition, ...] = observed.transitions
        return transitions

    def _rebalanced(self, name: str, before: EntitlementTerms, after: EntitlementTerms) -> None:
        old, new = (
            fraction_of(self._capital_minor, terms.real_capital_fraction)
            for terms in (before, after)
        )
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

    async def _end_session(self, session: str) -> None:
        """Marks, fees, and the comparison of the two NAVs."""
        now_us = self._clock.now_us()
        fee, guard = self._memory.fees, self._memory.guard
        gross = self._gross_minor - self._owed_minor()
        if guard.units:
            # What has accrued rests on the NAV of the tick before; what becomes final rests on this
            # one's.
            fee = fees.accrue(
                fee,
                self._settings.fees,
                now_us,
                nav_minor=guard.nav_minor,
                gross_minor=gross,
                units=guard.units,
            )
        management, fee = fees.post_management(fee)
        performance = 0
        if fees.due(fee, self._settings.fees, now_us):
            performance, fee = fees.crystallise(
                fee, now_us, gross_minor=gross - management, units=guard.units
            )
        owed = (Owed("management", management, session), Owed("performance", performance, session))
        fresh = (
            tuple(one for one in owed if one.amount_minor) if self._settings.ledger_enabled else ()
        )
        self._memory = msgspec.structs.replace(
            self._memory,
            guard=msgspec.structs.replace(
                guard, nav_minor=gross - management - performance - fee.accrued_minor
            ),
            fees=fee,
            session=session,
            owed=(*self._memory.owed, *fresh),
        )
        self._count_alerts()
        if self._totals is not None:
            await self._mark_positions(self._totals.positions, session)
            self._totals = await self._ask("ledger", ReadTotals())
            self._compare(self._totals)

    async def _charge(self) -> None:
        """Book what is owed, once it is remembered that it is.

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
        self._memory = msgspec.structs.replace(self._memory, owed=())
        self._totals = await self._ask("ledger", ReadTotals())

    async def _mark_positions(self, positions: Sequence[LedgerPosition], session: str) -> None:
        marks = marks_of(positions, self._engine.statuses, session)
        if marks:
            try:
                await self._ask("ledger", PostMany(marks))
            except IdempotencyConflict as booked:
                log.warning("session %s was marked before: %s", session, booked)

    def _compare(self, totals: LedgerTotals) -> None:
        """Compare the ledger's NAV with the guard's, which rest on different reports."""
        gap = totals.nav_minor - self._gross_minor
        before, self._broken = self._broken, is_break(gap, self._gross_minor)
        if self._broken and not before:
            title = "Ledger and engine disagree on NAV"
            text = (
                f"ledger {from_minor(totals.nav_minor)}, engine {from_minor(self._gross_minor)}, "
                f"difference {from_minor(gap)}"
            )
            self._note(Level.CRITICAL, Category.GENERAL, title, text, "break")
        elif before and not self._broken:
            self._resolve(Category.GENERAL, "Ledger and engine agree on NAV", "break")
        elif gap:
            log.info("NAV of ledger and engine differ by %s", from_minor(gap))

    async def _recover(self) -> None:
        """Every few ticks the check; a queue that is due is worked off every tick."""
        killed, heard = self._host.latch.engaged, self._engine.heard
        await self._ask("recovery", CheckStrategies(heard.statuses, killed, heard.at_us))
        if self._ticks % self._settings.recovery_every_ticks == 0:
            await self._ask("recovery", CheckFeeds(self._engine.feeds))

    async def _remember(self, session: str | None) -> None:
        """One commit: alerts asked for, the memory when it matters, the session's line of NAV."""
        now_us = self._clock.now_us()
        statements: list[Statement] = []
        memory, stored = self._memory, self._stored
        guard = memory.guard
        if session is not None:
            self._nav_lines.append(
                schema.nav_line(now_us, session, guard.nav_minor, guard.drawdown)
            )
        statements += self._nav_lines
        changed = memory.session != stored.session or _flags(guard) != _flags(stored.guard)
        if session is not None or changed or self._ticks == 1:
            statements.append(schema.remembered(memory))
            stored = memory
        if self._settings.alerts_enabled:
            statements += requested(now_us, self._alerts)
        await self._save(statements)
        self._stored = stored
        self._nav_lines.clear()
        self._alerts.clear()

    async def _save(self, statements: Sequence[Statement]) -> None:
        refusal = await self.append(statements)
        if refusal is not None:
            raise refusal

    # -- showing

    def _publish(self) -> None:
        """A stream that is behind gets the newest state later; nothing waits for it."""
        try:
            status = self._ref("status")
            status.tell_nowait(PublishStatus(self._states()))
            status.tell_nowait(EventsCommitted())
        except ActorError as error:
            log.debug("status stream: %s", error)

    def _latch_changed(self) -> None:
        if self._settings.status_enabled and not self._showing:
            self._showing = True
            self._host.spawn(self._show_fund)

    async def _show_fund(self) -> None:
        """Show the kill switch; the engine is told first, so this waits for its turn."""
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        self._showing = False
        try:
            shown_fund = shown.texts(self._fund_status().as_dict())
            self._ref("status").tell_nowait(PublishStatus({"fund": shown_fund}))
        except ActorError as error:
            log.debug("status stream: %s", error)

    def _states(self) -> dict[str, dict[str, Any]]:
        states = {
            "fund": shown.texts(self._fund_status().as_dict()),
            "strategies": shown.strategies(self._engine.statuses, self._terms or {}),
            "feeds": {feed.name: msgspec.structs.asdict(feed) for feed in self._engine.feeds},
            "actors": {child.name: msgspec.to_builtins(child) for child in self._tree()},
        }
        if self._totals is not None:
            states["balances"] = shown.texts(self._totals.balance_sheet)
        return states

    @handles(ReadFundStatus)
    async def fund_status(self, _: ReadFundStatus) -> FundStatus:
        if self._settings.self_healing_enabled:
            # While recovery is restarting, its last word stands.
            with suppress(ActorError):
                phases = await self._ask("recovery", RecoveryStatuses())
                self._breakers_open = sum(one.phase is RecoveryPhase.OPEN for one in phases)
        self._count_alerts()
        return self._fund_status()

    def _fund_status(self) -> FundStatus:
        guard, fee, heard = self._memory.guard, self._memory.fees, self._host.heard()
        by_stage: dict[str, int] = {}
        for terms in (self._terms or {}).values():
            by_stage[terms.stage.value] = by_stage.get(terms.stage.value, 0) + 1
        return FundStatus(
            running=True,
            total_capital=from_minor(self._capital_minor),
            nav=from_minor(guard.nav_minor if self._ticks or guard.units else self._capital_minor),
            drawdown_pct=round(guard.drawdown, 6),
            high_water_mark=from_minor(round(fee.mark_per_unit * guard.units)),
            running_strategies=sum(one.state == "running" for one in self._engine.statuses),
            total_fees=from_minor(fee.posted_minor + fee.accrued_minor),
            kill_switch=self._host.latch.status.state,
            mode="act",
            strategies_by_stage=by_stage,
            alerts_24h=self._alerts_24h,
            breakers_open=self._breakers_open,
            ticks=self._ticks,
            data_age_s=round(heard.age_s, 3) if self._ticks else None,
            stale=heard.silent and bool(guard.strategies),
        )

    def _count_alerts(self) -> None:
        since_us = self._clock.now_us() - DAY_US
        self._alerts_24h = self._reader.row(
            "SELECT count(*) FROM alert WHERE at_us > ?", (since_us,)
        )[0]

    @handles(RememberGuard)
    async def remember_guard(self, _: RememberGuard) -> None:
        """Refused with what the storage refuses; the next tick then tries again."""
        memory = msgspec.structs.replace(self._memory, guard=await self._ask("guard", ReadGuard()))
        await self._save((schema.remembered(memory),))
        self._memory = self._stored = memory

    @handles(NavHistory)
    def nav_history(self, request: NavHistory) -> tuple[NavSample, ...]:
        return schema.nav_history(self._reader, checked_limit(request.limit))


def _flags(guard: GuardState) -> tuple[object, ...]:
    """What must be remembered at once; figures can wait for the end of the session."""
    return (
        guard.kill_state,
        guard.warned,
        guard.silent,
        guard.blind,
        guard.external_minor,
        tuple(
            (
                name,
                book.paused,
                book.warned,
                book.real,
                book.had_real,
                book.above,
                book.left,
                book.restarted,
                book.carried_minor,
                book.run,
                book.closing,
            )
            for name, book in guard.strategies.items()
        ),
    )
