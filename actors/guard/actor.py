"""The guard actor: acts first, reports afterwards.

It starts before the database and outlives it. Engaging ends every lease, writes the marker, and
tells the engine to stop until the engine confirms that no orders are open; only then, and whatever
happened, is anybody told.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import msgspec

from ...runtime import Actor, ActorError, Clock, handles
from ...wire.alert import Category, Level, SendAlert
from ...wire.controller import StrategyStatus
from ...wire.entitlement import capital_of
from ...wire.errors import HostFault, KillSwitchNotEngaged
from ...wire.guard import (
    EngageKillSwitch,
    Entitlement,
    GuardReport,
    GuardState,
    KillState,
    KillStatus,
    ReadGuard,
    ReadKillSwitch,
    ReleaseKillSwitch,
    RenewLeases,
    RestoreGuard,
    ResumeStrategy,
    Watch,
)
from ...wire.money import from_minor
from ...wire.promotion import EntitlementTerms
from ..host import Host
from . import core
from .core import GuardSettings
from .leases import Leases
from .marker import Marker

__all__ = ["GuardActor"]

log = logging.getLogger("fundops.guard")

_OFF = KillStatus("OFF", "", "", None)


class GuardActor(Actor):
    """Holds the latch, the leases, and the books of every strategy ever reported."""

    def __init__(
        self,
        clock: Clock,
        host: Host,
        settings: GuardSettings,
        leases: Leases,
        marker: Path,
        capital_minor: int,
    ) -> None:
        self._clock = clock
        self._host = host
        self._settings = settings
        self._leases = leases
        self._marker = Marker(marker)
        self._capital_minor = capital_minor
        self._state = GuardState()
        self._kill = _OFF
        self._marked = True  # whether the marker file agrees with `_kill`
        # Whether this life has told the engine to stop. A new life tells it again, since the engine
        # may have restarted in between.
        self._told = False

    async def on_start(self) -> None:
        found = self._marker.read()
        if found is not None:
            # A marker means engaged, whatever it says.
            self._kill = (
                found if found.state != "OFF" else msgspec.structs.replace(found, state="ENGAGED")
            )
            self._leases.end_all()
            log.critical("kill switch is engaged since before this start: %s", self._kill.reason)

    @handles(RestoreGuard)
    def restore(self, request: RestoreGuard) -> None:
        """Take over the stored state.

        The kill switch is engaged when the marker file or the stored state says so.
        """
        self._state = request.state
        if self._kill.state == "OFF" and request.state.kill_state != "OFF":
            # The database remembers what the marker lost: the careful answer wins.
            self._latch(
                KillStatus(
                    "ENGAGED", "engaged according to the database", "fundops", self._clock.now_us()
                )
            )

    @handles(Watch)
    async def watch(self, request: Watch) -> GuardReport:
        """One look at the fund. A breach stops everything before this is answered."""
        found = core.look(
            self._state,
            self._settings,
            request.statuses,
            request.terms,
            external_minor=request.external_minor,
            posted_fees_minor=request.posted_fees_minor,
            accrued_fees_minor=request.accrued_fees_minor,
            blind_s=request.blind_s,
            fees=request.fees,
        )
        self._state = found.state
        if found.kill is not None and self._kill.state == "OFF":
            await self._engage(found.kill, "guard")
        elif self._kill.state != "OFF" and (self._kill.state != "ENGAGED" or not self._told):
            await self._stop_all()
        if self._kill.state != "OFF" and not self._marked:
            self._set(self._kill)
        if not request.blind_s:  # nothing is known, so nothing is renewed: the leases run out
            self._renew_leases(request.statuses, request.terms)
        self._state = msgspec.structs.replace(self._state, kill_state=self._kill.state)
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
        """Renew the leases by these terms; strategies that are not named lose theirs."""
        self._renew_leases(request.statuses, request.terms)

    def _renew_leases(
        self,
        statuses: Sequence[StrategyStatus],
        terms_by_name: Mapping[str, EntitlementTerms] | None,
    ) -> None:
        if self._kill.state != "OFF":
            return  # they ended when it engaged
        until_us = self._clock.now_us() + int(self._settings.lease_s * 1_000_000)
        capital = from_minor(self._capital_minor)
        held: dict[str, Entitlement] = {}
        for status in statuses:
            book = self._state.strategies.get(status.name)
            if book is None or book.paused:
                held[status.name] = Entitlement(status.stage, "none", Decimal(0), until_us)
            elif terms_by_name is None:
                held[status.name] = Entitlement(None, "live", capital, until_us)
            elif (terms := terms_by_name.get(status.name)) is not None:
                share = capital_of(terms, self._capital_minor)
                held[status.name] = Entitlement(terms.stage.value, terms.mode, share, until_us)
        self._leases.replace(held)

    # -- the kill switch

    @handles(EngageKillSwitch)
    async def engage(self, request: EngageKillSwitch) -> KillStatus:
        """Stop all trading; answers after the engine was told.

        An engaged switch keeps its first reason.
        """
        if self._kill.state == "OFF":
            await self._engage(request.reason, request.by)
        return self._kill

    async def _engage(self, reason: str, by: str) -> None:
        self._latch(KillStatus("ENGAGING", reason, by, self._clock.now_us()))
        await self._stop_all()
        title = "Kill switch activated"
        if self._kill.state == "UNCONFIRMED":
            title += ", stop not confirmed"
        self._tell(Level.CRITICAL, title, reason)

    def _latch(self, status: KillStatus) -> None:
        self._leases.end_all()
        self._set(status)

    def _set(self, status: KillStatus) -> None:
        self._kill = status
        try:
            self._marker.write(status)
            self._marked = True
        except OSError as error:
            # The latch in memory, and in the database at the end of the tick, must do until the
            # next look.
            self._marked = False
            log.critical("kill switch marker cannot be written: %s", type(error).__name__)

    async def _stop_all(self) -> None:
        state: KillState = "UNCONFIRMED"
        self._told = True
        try:
            report = await self._host.stop_all(self._kill.reason, self._settings.kill_action)
            state = "ENGAGED" if not report.open_orders else "UNCONFIRMED"
        except HostFault as fault:
            log.critical("kill switch: %s", fault)
        if state != self._kill.state:
            self._set(msgspec.structs.replace(self._kill, state=state))

    @handles(ReleaseKillSwitch)
    def release(self, request: ReleaseKillSwitch) -> KillStatus:
        """Trading resumes only as the leases are renewed by the next tick."""
        if self._kill.state == "OFF":
            raise KillSwitchNotEngaged("the kill switch is not engaged")
        self._marker.remove()
        self._kill = _OFF
        state = self._state
        per_unit = state.nav_minor / state.units if state.units > 0 else 0.0
        self._state = msgspec.structs.replace(
            state, peak_per_unit=per_unit, breaches=0, warned=False, kill_state="OFF"
        )
        log.warning("kill switch released by %s: %s", request.by, request.reason)
        self._tell(
            Level.INFO, f"Kill switch released by {request.by}", request.reason, resolves=True
        )
        return self._kill

    @handles(ReadKillSwitch)
    def read(self, _: ReadKillSwitch) -> KillStatus:
        """The state of the kill switch now."""
        return self._kill

    @handles(ReadGuard)
    def read_state(self, _: ReadGuard) -> GuardState:
        """The guard's state as it is now, for oversight to store."""
        return self._state

    @handles(ResumeStrategy)
    async def resume(self, request: ResumeStrategy) -> bool:
        """Refused with `HostFault` when the engine does not listen; the strategy then stays
        paused.
        """
        book = self._state.strategies.get(request.strategy)
        if book is None or not book.paused:
            return False
        await self._host.resume(request.strategy)
        resumed = msgspec.structs.replace(book, paused=False, warned=False, peak_minor=0)
        books = {**self._state.strategies, request.strategy: resumed}
        self._state = msgspec.structs.replace(self._state, strategies=books)
        for draft in core.closed(request.strategy, f"resumed by {request.by}"):
            self._send(SendAlert(*msgspec.structs.astuple(draft)))
        return True

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
