"""The records of the stream `fund.status.v1`: the values of its state topics and its events.

A state topic maps a key to a record. The key is named at each record. The topics `fund` and
`balances` map each of their fields to its value: `Fund` is the whole of `fund`. A field that has
its default is left out, in a state, an event and a leg; most defaults are None. A null in a patch
gives a field its default again. The seq of an event is its number, and stands in no record.

Money is decimal text in the fund's currency, with a minus sign below zero. Instants are int
microseconds since the Unix epoch (`_us`, UTC), durations and ages seconds (`_s`), percentages end
in `_pct`: 15 is 15 %. None is not known, or does not apply; it is never zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from decimal import Decimal
from typing import Literal

import msgspec

from ..guard import KillState
from ..persistence import StorageState

__all__ = [
    "EVENTS",
    "RESULT_ACCOUNTS",
    "STATES",
    "ActorLine",
    "AlertEvent",
    "Attention",
    "Channel",
    "Criterion",
    "DeliveryEvent",
    "Feed",
    "Fund",
    "JournalEvent",
    "KeepLimit",
    "Kill",
    "Leg",
    "Mailbox",
    "Move",
    "NavEvent",
    "PromotionBrief",
    "PromotionEvent",
    "PromotionFull",
    "Recovery",
    "RecoveryEventRow",
    "RestartEvent",
    "Storage",
    "Strategy",
]

Level = Literal["INFO", "WARNING", "CRITICAL"]
Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]

# The accounts of income and expenses: the result of an entry is what it credits them.
RESULT_ACCOUNTS = frozenset(
    {
        "FINANCING",
        "INCOME",
        "MANAGEMENT_FEES",
        "PERFORMANCE_FEES",
        "REALIZED_PNL",
        "TRADING_FEES",
        "UNREALIZED_PNL",
    }
)


class _Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """The base of all records."""


# -- state topics


class Kill(_Record, frozen=True):
    """The kill switch; the field `kill` of the topic `fund`."""

    state: KillState
    reason: str  # "" while OFF
    by: str  # the person or the part that engaged it; "" while OFF
    at_us: int | None = None  # when it was engaged; None: it was never engaged
    problem: str = ""  # why the stop is not confirmed; "": it is, or is not answered yet
    open_orders: int | None = None  # by the engine's last report
    open_positions: int | None = None  # by the engine's last report


class Storage(_Record, frozen=True):
    """The database; the field `storage` of the topic `fund`."""

    state: StorageState | None = None  # None: its actor is not running
    reason: str | None = None  # None while it is "ok"
    commit_ms: float | None = None  # duration of the last commit, in milliseconds


class Fund(_Record, frozen=True, kw_only=True):
    """The whole topic `fund`: the key is the name of the field, the value is its value."""

    name: str
    mode: str  # "act": the fund acts by itself
    currency: str
    clock: Literal["system", "driven"]  # "driven": a replay moves the time
    host_ticks: bool  # the host calls the ticks, so a missing tick is not a stale fund
    now_us: int  # the domain's time when the topic was published
    tick_us: int | None = None  # the domain's time of the last tick; None: no tick yet
    data_us: int | None = None  # of the engine's newest word; None: no tick yet
    tick_age_s: float | None = None  # since the end of the last tick, when the topic was published
    tick_interval_s: float | None = None  # None: the host calls the ticks
    lease_s: float  # the leases of real money end so long after the last good tick
    ticks: int  # since the fund started
    running: bool
    stale: bool  # the engine is silent: its figures are those of `data_us`
    data_age_s: float | None = None
    clock_suspect: bool  # the wall clock jumped: fees and promotions wait
    total_capital: str  # as configured
    nav: str
    nav_open: str | None = None  # NAV at the end of the last session; None: no session has ended
    high_water_mark: str  # NAV at the last performance fee, at today's number of units
    peak_nav: str  # the NAV from which the drawdown is measured, at today's number of units
    drawdown_pct: float  # below `peak_nav`
    kill_limit_pct: float  # the drawdown at which the kill switch engages
    warn_pct: float  # the drawdown at which the guard warns
    strategy_limit_pct: float  # the drawdown at which the guard pauses a strategy
    headroom: str  # money that NAV can lose before the kill switch engages
    total_fees: str  # posted and accrued
    ledger_gap: str | None = None  # the ledger's NAV less the guard's; None: not compared
    kill: Kill
    storage: Storage
    strategies_by_stage: Mapping[str, int]
    running_strategies: int
    alerts_24h: int
    breakers_open: int


class Strategy(_Record, frozen=True, kw_only=True):
    """Topic `strategies`; the key is the name of the strategy. The engine's word and ours."""

    name: str
    state: str  # pending, running, paused, stopped, failed or retired
    stage: str | None = None  # in the database; None: promotion is off and the engine names none
    # Of its entitlement: paper, shadow, live or none; None: promotion is off.
    mode: str | None = None
    real: bool  # it traded real money at the last tick
    pnl: str | None = None  # realized and unrealized, over all runs of the engine's counters
    equity: str | None = None
    allocated: str | None = None
    realized_pnl: str | None = None
    unrealized_pnl: str | None = None
    capital_cap: str | None = None  # in force at the engine; None: unlimited or not known
    twin_equity: str | None = None  # of its paper twin; None: it has none
    drawdown_pct: float | None = None  # below its highest equity; None: not known
    n_trades: int  # closed round trips
    n_wins: int  # those above zero
    paused: bool  # by the guard or a person
    paused_by: str  # the person; "": none paused it
    paused_why: str
    counters_restarted: bool  # the engine's counters seem to have restarted; a person must confirm
    error: str | None = None  # why it failed
    retryable: bool  # False: a restart cannot help
    heartbeat_us: int | None = None
    at_us: int | None = None  # when the engine's word was true; None: at the tick
    version: str | None = None  # of its code
    run: str | None = None  # of the engine's counters


class PromotionBrief(_Record, frozen=True, kw_only=True):
    """Topic `promotion`; the key is the name of the strategy."""

    stage: str
    target: str | None = None  # the next stage up; None: no higher stage
    verdict: Verdict  # of the whole gate
    passed: int  # criteria that pass
    # Of each criterion, in the gate's order. 1: passes; less: part of the way; None: no evidence.
    segments: tuple[float | None, ...]
    nearest: str  # the criterion that lacks the least, as "14 of 50 trades"; "": nothing is missed
    missed: int  # criteria that do not pass, the nearest one included
    would_do: str  # promote, ready (waits for a person), demote or none
    # Every reason why it is not promoted, such as "gate", "frozen" or "capital: ..."; (): none.
    blocked_by: tuple[str, ...] = ()
    # The same in one line, as "36 of 50 trades; 2 more days, at the earliest 2026-03-14".
    why: str = ""
    until_us: int | None = None  # end of the cooldown; None: it is not cooling down
    frozen: bool = False
    days_in_stage: float  # without frozen time
    rev: int  # rises with each change


class Criterion(_Record, frozen=True, kw_only=True):
    """One line of a gate."""

    name: str
    op: str  # ">=" or "<="
    limit: float  # in `unit`
    observed: float | None = None  # in `unit`; None: missing or undefined
    unit: str
    margin: float | None = None  # in `unit`; below zero: missed; None: not comparable
    verdict: Verdict
    reason: str  # why it does not pass; "" for a pass
    age_s: float | None = None  # None: it has no age
    source: str = ""  # measured, recorded or ""
    recorded: float | None = None  # shown beside a measured value


class KeepLimit(_Record, frozen=True):
    """A limit that demotes when it is reached."""

    name: str  # drawdown or session_loss
    limit_pct: float
    observed_pct: float | None = None


class Move(_Record, frozen=True, kw_only=True):
    """One change in the history of a strategy."""

    kind: str  # register, adopt, promote, demote, freeze, unfreeze or retire
    from_stage: str | None = None  # None: it was registered or adopted
    to_stage: str
    at_us: int
    by: str
    reason: str


class PromotionFull(PromotionBrief, frozen=True, kw_only=True):
    """A brief record and its details; sent for the names in `sub.keys`."""

    criteria: tuple[Criterion, ...]
    keep_limits: tuple[KeepLimit, ...]
    last_move: Move | None = None


class Recovery(_Record, frozen=True):
    """Topic `recovery`; the key is the name of the strategy."""

    phase: str  # one of `RecoveryPhase`
    attempts: int  # in this episode
    max: int  # attempts until the breaker opens
    due_us: int | None = None  # the next attempt, or the end of the probation
    reason: str | None = None
    episode: int = 0  # number of failure episodes so far
    since_us: int | None = None  # when this episode began; None: it is healthy, or never failed
    breaker_open: bool = False
    held_by: str | None = None  # the person who holds it


class Feed(_Record, frozen=True):
    """Topic `feeds`; the key is the name of the feed."""

    name: str
    last_data_us: int | None = None  # None: no data yet
    stale_after_s: float | None = None  # None: it is never stale
    stale: bool = False


class ActorLine(_Record, frozen=True):
    """Topic `actors`; the key is the path, as "subsystems/ledger". Parents come before children."""

    state: str  # of the runtime: "running" is the good one
    epoch: int  # number of its life
    restarts: int
    last_crash: str | None = None  # type and text of its latest error
    in_hand: str | None = None  # type of a message that has been in hand for over 1 s
    kind: Literal["actor", "supervisor"] = "actor"


class Mailbox(_Record, frozen=True):
    """Topic `mailboxes`; the key is the path of the actor."""

    queued: int  # messages that wait
    peak: int  # the most that it has held
    capacity: int
    oldest_s: float | None = None  # age of the message in hand; None: none is in hand
    rejected: int = 0  # messages refused since the start, as the mailbox was full


class Channel(_Record, frozen=True):
    """Topic `channels`; the key is the name of the channel, as "webhook"."""

    state: Literal["ok", "failing"]
    pending: int  # alerts that wait
    error: str | None = None  # of the last delivery; None: it arrived, or there was none
    delivered: int = 0  # alerts, since the database was made
    failed: int = 0  # alerts that did not arrive, or of which it is not known


class Attention(_Record, frozen=True):
    """Topic `attention`: one thing that waits for a person; the key is its id, as "kill_switch"."""

    level: Level
    title: str
    why: str
    command: str  # to copy into a shell; "": there is none, `why` says what to do
    since_us: int | None = None
    strategy: str | None = None


STATES: Mapping[str, type] = {
    "fund": Fund,
    "strategies": Strategy,
    "promotion": PromotionBrief,
    "recovery": Recovery,
    "feeds": Feed,
    "actors": ActorLine,
    "mailboxes": Mailbox,
    "channels": Channel,
    "attention": Attention,
}
"""The record of each state topic; `balances` has none: it maps accounts to decimal text."""


# -- event topics


class AlertEvent(_Record, frozen=True):
    """Topic `alerts`; seq is the number of the alert."""

    at_us: int
    level: Level
    category: str
    title: str
    message: str = ""
    strategy: str | None = None
    outcome: str = "QUEUED"  # one of `AlertOutcome`
    dedup_key: str | None = None  # the same for an alert and for the one that says it is over


class Leg(_Record, frozen=True, array_like=True):
    """One leg of an entry, on the wire a list: account, amount, strategy, asset.

    Trailing defaults are left out of the list.
    """

    account: str
    amount: str  # debit above zero, credit below
    strategy: str | None = None  # None: as of the entry
    asset: str | None = None  # None: the fund's currency


class JournalEvent(_Record, frozen=True):
    """Topic `journal`; seq is the number of the entry. Every amount is in one leg alone."""

    recorded_us: int
    day: str  # ISO date, UTC
    kind: str
    legs: tuple[Leg, ...]
    strategy: str | None = None
    memo: str = ""
    reverses: int | None = None  # the entry that it negates

    @property
    def cash(self) -> Decimal:
        """The change of CASH in the fund's currency."""
        return self._total({"CASH"})

    @property
    def result(self) -> Decimal:
        """Income less expenses in the fund's currency."""
        return -self._total(RESULT_ACCOUNTS)

    def _total(self, accounts: Set[str]) -> Decimal:
        ours = (leg for leg in self.legs if leg.asset is None and leg.account in accounts)
        return sum((Decimal(leg.amount) for leg in ours), Decimal(0))


class PromotionEvent(_Record, frozen=True):
    """Topic `promotions`; seq is the number of the row."""

    strategy: str
    kind: str  # register, adopt, promote, demote, freeze, unfreeze or retire
    to_stage: str
    effective_us: int
    by: str
    from_stage: str | None = None
    reason: str = ""
    rev: int = 0
    real: bool = False  # a move to, from or between stages of real money


class RecoveryEventRow(_Record, frozen=True):
    """Topic `recovery_events`; seq is the number of the row."""

    at_us: int
    action: str  # one of `RecoveryAction`
    target: str  # the strategy or feed; "clock" of a clock_jump
    success: bool | None = None  # of restart_strategy; None for every other action
    attempt: int = 0
    error: str | None = None
    by: str | None = None


class NavEvent(_Record, frozen=True):
    """Topic `nav`, at most one a second; numbered anew by each process."""

    at_us: int
    nav: str
    drawdown_pct: float


class DeliveryEvent(_Record, frozen=True):
    """Topic `deliveries`: a delivery of an alert has a new state; numbered anew by each process."""

    alert_id: int
    channel: str
    state: str  # PENDING, SENDING, DELIVERED, FAILED, UNKNOWN, EXPIRED or SKIPPED
    attempts: int
    error: str | None = None
    next_us: int | None = None  # when it is tried again; None: it is not


class RestartEvent(_Record, frozen=True):
    """Topic `restarts`: an actor crashed; numbered anew by each process."""

    actor: str  # its name
    epoch: int  # number of the life that ended
    error: str
    at_us: int


EVENTS: Mapping[str, type] = {
    "alerts": AlertEvent,
    "journal": JournalEvent,
    "promotions": PromotionEvent,
    "recovery_events": RecoveryEventRow,
    "nav": NavEvent,
    "deliveries": DeliveryEvent,
    "restarts": RestartEvent,
}
"""The record of each event topic."""
