"""The oversight actor: the tick.

It runs the list of steps (`steps`) over one frozen round, applies the effects of each, and keeps
the round for the next tick. It never trades.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from ...runtime import ActorError, Clock, FundopsError, Request, handles, in_pieces
from ...wire.errors import KillSwitchEngaged
from ...wire.guard import ReadGuard, RestoreGuard, StrategyResumed
from ...wire.ledger import Posted
from ...wire.oversight import (
    AttributePnl,
    ConfirmClock,
    CrashesHeard,
    FundStatus,
    NavHistory,
    NavSample,
    PnlAttribution,
    PostFees,
    ReadFundStatus,
    Redeem,
    RememberGuard,
    ResumeStrategy,
    ShowStatus,
    Tick,
    TickReport,
)
from ...wire.paging import checked_limit
from ...wire.persistence import COMMIT_DEADLINE_S, Statement
from ...wire.promotion import Observe
from ..alert.requests import alert_ref, requested, wake_alerts
from ..guard.alerts import ENGAGED_KEY
from ..guard.schema import load_latch
from ..host import Host
from ..persistence import DurableActor, StorageBoard
from ..status.board import StatusBoard
from . import closing, schema, shown
from .attribution import attribution
from .clocks import ClockWatch
from .crashes import CRASHED, CrashWatch
from .round import Round, applied
from .runner import STEP, Runner
from .schema import Memory
from .settings import OversightSettings
from .showing import Showing
from .steps import Ports, Step, over_without_step, steps_of
from .steps.fees import FeesStep
from .steps.withdrawals import withdrawn

__all__ = ["OversightActor"]

log = logging.getLogger("fundops.oversight")

R = TypeVar("R")

# The reason that the supervisor gives to its children when it ends.
ORDERLY_STOP = "supervisor stopped"


class OversightActor(DurableActor):
    """Owns the tick, and the memory of guard and fees between two lives of the process."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        host: Host,
        settings: OversightSettings,
        capital_minor: int,
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
        self._clock_watch = clock_watch or ClockWatch(clock)
        self._storage = storage or StorageBoard()
        self._crashes = crashes or CrashWatch()
        self._board = board  # None: there is no stream
        self._face = face
        self._runner = Runner()
        self._round = Round(heard=host.heard())
        self._steps: tuple[Step, ...] = ()
        self._of_life: Ports
        self._showing: Showing
        self._forget_latch: Callable[[], None] = lambda: None

    def load(self) -> None:
        """The memory as it is on disk. The one in hand is newer and stays.

        Within a tick the step that commits reads it, since a round does not change beside its
        steps.
        """
        self._round = replace(self._round, stored=schema.load(self._reader))

    async def begin(self) -> None:
        """Hand the guard its state, and ask promotion for the entitlements."""
        started_us = self._clock.now_us()
        ports = self._ports(started_us)
        self._steps, self._of_life = steps_of(ports), ports
        self._showing = Showing(
            ports, self._board, self._face, lambda: self._round, lambda: self._runner.counts
        )
        self._crashes.resolve(ports.told(CRASHED))
        self._runner.recall(ports.told(STEP))
        stored = self._round.stored
        memory = schema.begun(stored, started_us)
        latch, told = load_latch(self._reader), ENGAGED_KEY in ports.told(ENGAGED_KEY)
        guard = await self._ask("guard", RestoreGuard(stored.guard, latch, told))
        # Flows that the guard has seen, and the fees here have not.
        memory, _ = closing.with_flows(
            memory,
            self._settings,
            (),
            external_minor=guard.external_minor,
            seq=guard.seq or 0,
            now_us=started_us,
        )
        self._round = replace(
            self._round,
            memory=replace(memory, guard=guard),
            heard_before=schema.read_back(stored.statuses),
            heard_before_us=stored.heard_us,
            alerts=over_without_step(ports),
        )
        # The kill switch is shown at once, and not by the next tick.
        self._forget_latch = self._host.acts.latch.on_change(self._showing.latch_changed)
        if self._settings.promotion_enabled:
            terms = (await self._ask("promotion", Observe(()))).terms
            self._round = replace(self._round, terms=terms)

    def _ports(self, started_us: int) -> Ports:
        return Ports(
            ask=self._ask,
            append=self.append,
            rows=self._reader,
            host=self._host,
            clock=self._clock,
            settings=self._settings,
            capital_minor=self._capital_minor,
            started_us=started_us,
            clock_watch=self._clock_watch,
            crashes=self._crashes,
            storage=self._storage,
        )

    async def on_stop(self, reason: str) -> None:
        """Store the record, with the engine's last word, at an orderly stop of the fund."""
        self._forget_latch()
        try:
            # In a restart of the tree persistence may be the one that is down.
            if self._round.number and reason == ORDERLY_STOP:
                await self._remember_all()
        except FundopsError as refusal:
            log.warning("the last figures are not stored: %s", refusal)
        finally:
            await super().on_stop(reason)

    async def _remember_all(self) -> None:
        self._post_management()
        tick = self._round
        guard = tick.memory.guard
        with suppress(ActorError):
            guard = await self._ask("guard", ReadGuard())
        memory = replace(
            tick.memory,
            guard=guard,
            statuses=await in_pieces(schema.kept(tick.heard_before)),
            heard_us=tick.heard_before_us,
        )
        enabled = self._settings.alerts_enabled
        alerts = requested(self._clock.now_us(), tick.alerts) if enabled else ()
        lines = (*tick.lines, *schema.minute_lines(tick.minutes))
        await self._remember(memory, *lines, *alerts)
        # A fee that is not booked now stays owed, and the next life books it under the same key.
        self._round = replace(tick, memory=memory, stored=memory)
        await self._charge()

    async def _ask(self, name: str, request: Request[R]) -> R:
        # As long as a commit may take behind a busy disk.
        return await self.context.ref(name).ask(request, timeout_s=COMMIT_DEADLINE_S)

    async def _remember(self, memory: Memory, *more: Statement) -> None:
        """Commit this record with more. Raises: as storage refuses it."""
        record = await in_pieces(schema.remembered(memory))
        refusal = await self.append((record, *more))
        if refusal is not None:
            raise refusal

    # -- the tick

    @handles(Tick)
    async def tick(self, request: Tick) -> TickReport:
        """One round. Answers when all of its commits are durable."""
        self._round = self._begun(request.session)
        for step in self._steps:
            if step.is_due(self._round):
                self._round = await self._runner.run(step, self._round)
        self._showing.ticked()
        tick = self._round
        promotions = sum(transition.kind == "promote" for transition in tick.transitions)
        return TickReport(
            tick.number,
            promotions,
            len(tick.transitions) - promotions,
            self._runner.failing,
            # One whose end failed is due again at the next tick.
            tuple(end.session for end in tick.due if end.session <= tick.memory.session),
        )

    def _begun(self, session: str | None) -> Round:
        """The round at the begin of a tick."""
        tick = self._round
        return replace(
            tick,
            number=tick.number + 1,
            now_us=self._clock.now_us(),
            now_s=self._clock.monotonic_s(),
            answered=False,
            due=(),
            pauses=(),
            transitions=(),
            named=tick.named if session is None else (*tick.named, session),
        )

    # -- requests between two ticks

    @handles(ConfirmClock)
    def confirm_clock(self, request: ConfirmClock) -> bool:
        """Take the wall clock as right; False when it was not suspect."""
        suspect = self._clock_watch.is_suspect()
        if suspect:
            log.warning("clock confirmed by %s: %s", request.by, request.reason)
            self._clock_watch.confirm()
        return suspect

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

    @handles(ShowStatus)
    async def show_status(self, _: ShowStatus) -> None:
        """Show the states between two ticks, with the balances and the gates of now."""
        await self._showing.refresh()

    @handles(ReadFundStatus)
    def fund_status(self, _: ReadFundStatus) -> FundStatus:
        """The fund as of its last tick, with the alerts and the open breakers of now."""
        return self._showing.status()

    # -- fees between two ticks

    @handles(Redeem)
    async def redeem(self, request: Redeem) -> Posted:
        """Book a withdrawal after the fees of the units that leave, in one commit of the ledger.

        Refused as by the ledger; nothing is then booked.
        """
        posted, effects = await withdrawn(self._of_life, self._round, request.event)
        self._round = applied(self._round, effects)
        if isinstance(posted, FundopsError):
            raise posted
        return posted

    @handles(PostFees)
    async def post_fees(self, _: PostFees) -> None:
        """Book the management fee up to now. Refused as storage or ledger refuses it."""
        self._post_management()
        memory = self._round.memory
        await self._remember(memory)
        self._round = replace(self._round, stored=memory)
        await self._charge()

    async def _charge(self) -> None:
        if self._settings.ledger_enabled:
            effects = await FeesStep(self._of_life).run(self._round)
            self._round = applied(self._round, effects)

    def _post_management(self) -> None:
        if self._clock_watch.is_suspect():
            return  # an instant of a wrong clock is no end of an accrual
        now_us = self._clock.now_us()
        memory = closing.with_management(self._round.memory, self._settings, now_us)
        self._round = replace(self._round, memory=memory)

    @handles(RememberGuard)
    async def remember_guard(self, _: RememberGuard) -> None:
        """Refused as storage refuses it; the next tick then tries again."""
        guard = await self._ask("guard", ReadGuard())
        memory = replace(self._round.memory, guard=guard)
        await self._remember(memory, *self._round.lines)
        self._round = replace(self._round, memory=memory, stored=memory, lines=())

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
        if self._host.acts.latch.stops(request.strategy):
            raise KillSwitchEngaged(self._host.acts.latch.status.state)
        await self._host.acts.resume(request.strategy)
        return await self._ask(
            "guard", StrategyResumed(request.strategy, request.by, request.reason)
        )

    @handles(NavHistory)
    def nav_history(self, request: NavHistory) -> tuple[NavSample, ...]:
        """NAV and drawdown at the end of each session, or of each minute, newest first."""
        limit = checked_limit(request.limit)
        if request.every == "session":
            return schema.nav_history(self._reader, limit)
        waiting = self._round.minutes[::-1]
        return (*waiting, *schema.nav_minutes(self._reader, limit))[:limit]

    @handles(AttributePnl)
    def attribute_pnl(self, _: AttributePnl) -> PnlAttribution:
        """The P&L of each strategy as of the last tick, with its trading fees as booked."""
        return attribution(self._round.memory, schema.trading_fees(self._reader))
