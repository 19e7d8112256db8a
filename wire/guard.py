"""The guard: its look at each tick, its leases, and the kill switch.

Fields that end in `_minor` are money in minor units; instants are int microseconds (UTC).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from ..runtime import Request
from .alert import AlertDraft
from .controller import KillAction, StopReport, StrategyStatus
from .promotion import EntitlementTerms

__all__ = [
    "ChangeGrants",
    "ConfirmCounters",
    "EngageKillSwitch",
    "Entitlement",
    "FeeTerms",
    "GuardReport",
    "GuardState",
    "KillState",
    "KillStatus",
    "LatchStored",
    "Pause",
    "PauseStrategy",
    "PricedFlow",
    "ReadGuard",
    "ReadKillSwitch",
    "ReleaseKillSwitch",
    "Released",
    "RestoreGuard",
    "SecondPassed",
    "StopEnded",
    "StopReported",
    "StrategyBook",
    "StrategyResumed",
    "Watch",
    "Withheld",
]

KillState = Literal["OFF", "ENGAGING", "ENGAGED", "UNCONFIRMED"]


class Entitlement(msgspec.Struct, frozen=True, gc=False):
    """The permission of one strategy now. Both flags speak of real orders.

    "live" may open and close, "reduce" may only close. The other modes send no real order, but a
    strategy that had real money may close its open positions in every mode.
    """

    stage: str | None  # None: promotion is off, or the stage is unknown
    mode: Literal["paper", "shadow", "live", "reduce", "none"]
    capital: Decimal  # the most real capital that it may use; 0 in the modes reduce and none
    valid_until_us: int  # the end of its lease as wall time, for display
    may_open: bool = False  # orders that add risk
    may_close: bool = False  # orders that only reduce risk
    why: str = ""  # why it may not open; "": it may


class StrategyBook(msgspec.Struct, frozen=True, gc=False):
    """The guard's memory of one strategy."""

    pnl_minor: int = 0  # as last reported, cumulative over all runs of the engine's counters
    real_pnl_minor: int = 0  # the part of it made with real money
    real: bool = False  # traded real money at the last look
    allocated_minor: int = 0  # as last reported
    worth_minor: int = 0  # equity at the last look; 0 also when it is unknown
    peak_minor: int = 0  # highest equity, scaled when capital was given or taken
    warned: bool = False  # of a drawdown near its limit
    paused: bool = False  # by the guard
    would_pause: bool = False  # mode observe: it was told that the guard would pause it
    empty: bool = False  # all its capital was taken away; worth and peak are those of before
    paused_by: str = ""  # the person who paused it; "": no person did
    paused_why: str = ""  # the reason that the person gave
    entitled: bool = False  # has traded real money in the stage that it is entitled to
    had_real: bool = False  # traded, or was allowed to trade, real money at any time
    above: bool = False  # in force at the engine is more than it is entitled to
    left: bool = False  # the engine lists it no more, and it had real money in force
    state: str = ""  # as last reported
    realized_minor: int = 0  # as last reported
    n_trades: int = 0  # as last reported
    carried_minor: int = 0  # realized by earlier runs of the engine's counters
    run: str | None = None  # of the counters, as last reported
    restarted: bool = False  # the counters seem to have restarted; a person has not confirmed it
    closing: str | None = None  # lost its real stage when this was the last session that ended
    unwinding: bool = False  # real positions are still open; they count while `closing` is set


class GuardState(msgspec.Struct, frozen=True):
    """The guard's memory that must survive the process, as one record."""

    external_minor: int = 0  # deposits less withdrawals
    units: float = 0.0  # deposits buy and withdrawals redeem them, so NAV per unit is comparable
    per_unit: float = 0.0  # NAV per unit; 0 also when money was lost without a unit in issue
    price: float = 0.0  # NAV per unit when one was in issue last; 0: none ever was
    peak_per_unit: float = 0.0  # highest NAV per unit
    nav_minor: int = 0
    drawdown: float = 0.0  # of NAV per unit below its peak, in percent
    breaches: int = 0  # ticks in a row at or above the limit
    warned: bool = False  # of a drawdown near the limit
    kill_state: KillState = "OFF"
    silent: bool = False  # the host's silence was told
    blind: bool = False  # and that it lasts too long with real money live
    limit_pct: float = 0.0  # of the fund's drawdown, as of the last look; 0: no look yet
    highest_per_unit: float = 0.0  # NAV per unit at its highest; no release lowers it
    would_kill: bool = False  # mode observe: it was told that the kill switch would engage
    opening_session: str | None = None  # the last one that ended when `opening_per_unit` was taken
    opening_per_unit: float = 0.0  # NAV per unit when the session that runs now began
    loss_session: str | None = None  # the daily loss was reached when this was the last that ended
    loss_observed: bool = False  # mode observe told it, and held nothing back
    earned_minor: int = 0  # P&L that the ledger had booked without a strategy
    seq: int | None = None  # the ledger's last entry at the last look; None: not known
    strategies: Mapping[str, StrategyBook] = {}


class PricedFlow(msgspec.Struct, frozen=True):
    """A deposit, or less than 0 a withdrawal, with NAV before it, in minor units."""

    amount_minor: int
    nav_minor: int
    seq: int  # the ledger's entry


class FeeTerms(msgspec.Struct, frozen=True):
    """The performance fee as a rule: the guard applies it to the figures of its look."""

    performance_pct: float = 0.0  # percent of a unit's gain above the mark
    mark_per_unit: float = 1.0  # the high-water mark


class Pause(msgspec.Struct, frozen=True):
    """An order to pause one strategy."""

    strategy: str
    reason: str


class GuardReport(msgspec.Struct, frozen=True):
    """The results of one look."""

    state: GuardState
    gross_minor: int  # NAV before fees that are accrued but not posted
    pauses: tuple[Pause, ...]
    alerts: tuple[AlertDraft, ...]
    performance_minor: int = 0  # the performance fee accrued at the figures of this look
    problem: str = ""  # why NAV could not be taken, and the one before stands; "": it was taken


class Watch(Request[GuardReport], frozen=True):
    """The look of one tick: judge drawdowns, keep the kill switch in force, renew leases."""

    statuses: Sequence[StrategyStatus]
    terms: Mapping[str, EntitlementTerms] | None  # None: promotion is off, all trade real money
    external_minor: int  # deposits less withdrawals
    posted_fees_minor: int
    accrued_fees_minor: int  # without the performance fee, which is a matter of NAV: see `fees`
    blind_s: float = 0.0  # age of the host's last word when it is silent; 0: it is not silent
    fees: FeeTerms = FeeTerms()
    doubts: Mapping[str, str] = {}  # strategies that get no lease now, and why
    session: str = ""  # the last one that ended
    listed: bool = True  # the statuses are a whole list, so a missing strategy has left it
    earned_minor: int = 0  # P&L that the ledger booked without a strategy
    # The flows since the last look, in order; others than these are priced at NAV of that look.
    flows: tuple[PricedFlow, ...] = ()
    seq: int | None = None  # the ledger's last entry; None: the ledger is silent, or there is none
    said: int | None = None  # rises with each word of the engine; None: all are news
    opening_nav_minor: int | None = None  # NAV when the session that runs now began; None: unknown


class ChangeGrants(Request[None], frozen=True):
    """Grant anew after a change of entitlements, so that one that was withdrawn ends now.

    The leases end as before: a look alone renews them.
    """

    statuses: Sequence[StrategyStatus]
    terms: Mapping[str, EntitlementTerms]
    doubts: Mapping[str, str] = {}  # strategies that get no lease now, and why


class ReadGuard(Request[GuardState], frozen=True):
    """The guard's memory as it is now."""


class RestoreGuard(Request[GuardState], frozen=True):
    """Restore the stored memory, once at the start of the guard. Answers the memory in force.

    A guard that has taken one keeps its own, which is newer than anything stored. An engaged kill
    switch stays engaged.
    """

    state: GuardState
    latch: KillStatus | None = None  # the switch as it is stored; None: never stored
    told: bool = False  # the alert that it was engaged has been sent, and not resolved


class KillStatus(msgspec.Struct, frozen=True):
    """The kill switch: its state, and by whom, why and when it was engaged."""

    state: KillState
    reason: str
    by: str
    at_us: int | None  # None: it was never engaged
    open_orders: int | None = None  # by the engine's last report; None: not known yet
    open_positions: int | None = None
    problem: str = ""  # why the stop is not confirmed; "": it is, or has not been answered yet
    # The one in force now; "flatten" may begin as "halt". None: as the fund is configured.
    action: KillAction | None = None
    protective_orders: int | None = None  # reduce-only ones, which stay under "halt"


class Released(KillStatus, frozen=True):
    """The kill switch after its release, with the next stop of the guard.

    Each release from the current NAV allows a further loss of the whole limit, so the next stop
    lies deeper below the peak.
    """

    next_stop_nav: Decimal | None = None  # NAV at which it engages again; None: no tick yet
    next_stop_below_peak_pct: float | None = None  # that NAV below the highest one per unit


class EngageKillSwitch(Request[KillStatus], frozen=True):
    """Engage the kill switch: end all leases and stop all trading. Again: no change.

    Any two objects are accepted: they are made to fit after the act.
    """

    reason: object
    by: object


class StopEnded(msgspec.Struct, frozen=True, tag=True):
    """Sent by the host port when a call of `stop_all` ended."""

    action: KillAction  # of the call
    report: StopReport | None  # None: it failed, was late, or was no report
    problem: str = ""  # why there is no report
    engagement: int = 0  # number of the engagement under which the call began
    strategies: tuple[str, ...] = ()  # that the call named


class StopReported(msgspec.Struct, frozen=True, tag=True):
    """Sent when a host that pushes its state reports its open orders and positions."""

    report: StopReport
    engagement: int  # number of the engagement that was the newest as it was pushed


class SecondPassed(msgspec.Struct, frozen=True, tag=True):
    """Sent by the guard to itself each second."""


class Withheld(msgspec.Struct, frozen=True):
    """An act that mode "observe" kept from the engine."""

    part: str  # of the controller
    strategy: str  # "": the act is for no single one
    call: str  # as it would have been made


class LatchStored(msgspec.Struct, frozen=True, tag=True):
    """Sent when the commit of the latch ended."""

    status: KillStatus
    problem: str | None  # None: it is on disk


class ReleaseKillSwitch(Request[Released], frozen=True):
    """Release the kill switch. Only a person does.

    Refused with: `BadRequest` naming the field, `KillSwitchNotEngaged`, `StopNotConfirmed`, and
    `StorageDegraded` when the marker cannot be removed.
    """

    by: str
    reason: str
    rearm: Literal["from_current_nav", "keep_peak"] = "from_current_nav"
    accept_open_orders: bool = (
        False  # release although the engine has not confirmed that it stopped
    )


class ReadKillSwitch(Request[KillStatus], frozen=True):
    """The state of the kill switch now."""


class ConfirmCounters(Request[bool], frozen=True):
    """A person confirms that the engine's counters restarted; False: nothing was in doubt."""

    strategy: str
    by: str
    reason: str


class PauseStrategy(Request[bool], frozen=True):
    """A person pauses a strategy until `ResumeStrategy`; False: a person has paused it already.

    Refused with: `BadRequest` naming the field; `UnknownStrategy`.
    """

    strategy: str
    by: str
    reason: str
    known: bool = False  # the caller knows the name, so it is accepted though the guard does not


class StrategyResumed(Request[bool], frozen=True):
    """The engine has resumed a strategy that a person or the guard paused; False: it was not."""

    strategy: str
    by: str
    reason: str
