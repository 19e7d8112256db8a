"""The controller: the Protocols through which fundops asks and instructs the trading engine.

The host implements them and nothing else. `Controller` is the required part. Each optional part is
a separate Protocol below, recognised by its method names; a function of fundops that needs a
missing part is disabled, and the start-up log names the missing parts. A host that pushes its state
with `fund.report` needs no `strategies`.

Each method may be a plain `def` or an `async def`, except `emergency_stop`, which is plain and has
its own thread. `Fund` calls both on its own trio loop, where a plain one must return within
1 ms, since the loop waits for it. An asyncio host is called on its own loop. `FundManager` calls in
worker threads: a plain method there may block, a coroutine runs by `asyncio.run`, and several
methods may run at once. Every call has a deadline: 1 s, for `restart`
the setting `restart_deadline_s`, for `stop_all` 10 s. A coroutine is ended at its deadline, except
`restart`. A part that is late is not called again before it comes back, except `stop_all`.

`fundops.testing.check_controller` calls every part and names its faults.

Instants are int microseconds since the Unix epoch (UTC). Money is in the fund's currency.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:  # that module needs this one
    from .ledger import Statement

__all__ = [
    "STALE_FEED_S",
    "CanGiveStatement",
    "CanKeepAlive",
    "CanListCashEvents",
    "CanListFeeds",
    "CanListFills",
    "CanListSettlements",
    "CanPause",
    "CanRestart",
    "CanSetStage",
    "CanStopAll",
    "CanStopInEmergency",
    "CashEvent",
    "CashKind",
    "Controller",
    "FeedStatus",
    "Fill",
    "KillAction",
    "Settlement",
    "StopReport",
    "StrategyState",
    "StrategyStatus",
    "stage_risk",
]

StrategyState = Literal["pending", "running", "paused", "stopped", "failed", "retired"]
KillAction = Literal["halt", "flatten", "freeze"]
CashKind = Literal[
    "funding", "interest", "dividend", "borrow", "fee", "deposit", "withdrawal", "other"
]

STALE_FEED_S = 300.0  # the default of the setting `stale_feed_s`

_RISK = {"retired": 0, "paper": 0, "shadow": 0, "live-small": 1, "live-scaled": 2, "live": 2}


def stage_risk(stage: str) -> int:
    """How much real money a stage stands for; 0: none, 3: an unknown word, hence the most."""
    return _RISK.get(stage, 3)


class StrategyStatus(msgspec.Struct, frozen=True, gc=False):
    """The engine's report about one strategy."""

    name: str  # 1 to 128 printable characters, unique
    state: StrategyState
    equity: Decimal | float | None = (
        None  # allocated plus realized and unrealized P&L; None: unknown
    )
    allocated: Decimal | float = 0  # capital given to it
    realized_pnl: Decimal | float = 0  # cumulative, after fees
    unrealized_pnl: Decimal | float = 0
    n_trades: int = 0  # closed round trips, cumulative
    n_wins: int = 0  # those with a net P&L above zero
    stage: str | None = None  # in force at the engine; None: the engine does not know stages
    capital_cap: Decimal | float | None = None  # in force at the engine; None: unlimited or unknown
    error: str | None = None  # why it failed; None: not failed, or no reason given
    retryable: bool = (
        True  # False: a restart cannot help (configuration, credentials, reconciliation)
    )
    heartbeat_us: int | None = None  # None: no heartbeats, and then "running" counts as alive
    at_us: int | None = None  # when this was true; None: now
    version: str | None = None  # hash of code and configuration; None: unknown
    run: str | None = None  # changes whenever the engine's counters start anew; None: unknown
    twin_equity: Decimal | float | None = None  # of its paper twin in live stages; None: no twin


class FeedStatus(msgspec.Struct, frozen=True):
    """The engine's report about one market-data feed."""

    name: str
    last_data_us: int | None  # None: no data yet
    # None: a feed of rare events, which is never stale. UNSET: the setting `stale_feed_s`.
    stale_after_s: float | msgspec.UnsetType | None = msgspec.UNSET

    @property
    def limit_s(self) -> float | None:
        """Seconds without data after which it is stale; None: never.

        The host port puts the setting in the place of UNSET; anywhere else UNSET is its default.
        """
        return STALE_FEED_S if self.stale_after_s is msgspec.UNSET else self.stale_after_s


class Settlement(msgspec.Struct, frozen=True):
    """A resolved market, with the cost and the payoff of the position in it."""

    id: str  # unique, 1 to 128 characters
    market: str
    strategy: str
    cost: Decimal  # ignored when the fills of the market were booked; a difference is a WARNING
    payoff: Decimal  # in total and signed: > 0 came into CASH, also for a short position
    revision: int = 0  # a higher one replaces the earlier report of the same id
    cursor: str = ""  # the position after it, for the next call of `settlements`; "": none


class Fill(msgspec.Struct, frozen=True):
    """One execution with real money.

    A fill is one by strategy, instrument and id: reported again with the same content it is booked
    once, with a higher revision it replaces the one before. Price times quantity is computed
    exactly from these figures and rounded once.
    """

    id: str  # unique for its strategy and instrument, 1 to 128 characters
    strategy: str
    instrument: str
    quantity: Decimal  # negative for a sale; 0 in a revision: the fill was busted
    price: Decimal  # per unit; may be negative, as for spreads
    fee: Decimal  # negative: a rebate
    at_us: int
    cursor: str = ""  # the position after it, for the next call of `fills`; "": none
    fee_asset: str | None = None  # the asset of the fee; None: the fund's currency
    revision: int = 0  # a higher one replaces the earlier report of the same fill


class CashEvent(msgspec.Struct, frozen=True):
    """Money that came or went without a trade, as the venue or the bank reports it."""

    id: str  # unique; booked once
    kind: CashKind
    amount: Decimal  # > 0 came into CASH; a deposit is > 0, a withdrawal < 0
    at_us: int
    asset: str | None = None  # None: the fund's currency
    strategy: str | None = None  # None: the fund as a whole
    instrument: str | None = None
    cursor: str = ""  # the position after it, for the next call of `cash_events`; "": none


class StopReport(msgspec.Struct, frozen=True):
    """The orders and positions of the strategies in scope that are open after `stop_all`."""

    open_orders: int  # those that may add risk
    open_positions: int
    protective_orders: int = 0  # reduce-only orders, which stay under "halt"


class Controller(Protocol):
    """The required part: report the strategies."""

    def strategies(self) -> Awaitable[Sequence[StrategyStatus]] | Sequence[StrategyStatus]:
        """All strategies, at most 10,000."""
        ...


@runtime_checkable
class CanRestart(Protocol):
    """The part that restarts failed strategies."""

    def restart(self, name: str, *, attempt_id: str) -> Awaitable[None] | None:
        """Return once the strategy runs; raise when it does not.

        `NotRetryable` opens the breaker at once. `attempt_id` is unique for each attempt.
        """


@runtime_checkable
class CanPause(Protocol):
    """The part that pauses, resumes and stops single strategies. All three must be idempotent."""

    def pause(self, name: str, reason: str) -> Awaitable[None] | None:
        """Pause the strategy, for example because it reached its drawdown limit."""

    def resume(self, name: str) -> Awaitable[None] | None:
        """Resume a paused strategy."""

    def stop(self, name: str, reason: str) -> Awaitable[None] | None:
        """Stop the strategy."""


@runtime_checkable
class CanStopAll(Protocol):
    """The part that the kill switch uses."""

    def stop_all(
        self, reason: str, action: KillAction, strategies: Sequence[str]
    ) -> Awaitable[StopReport] | StopReport:
        """Stop these strategies, and report their open orders and positions.

        "halt" cancels their orders that may add risk, "flatten" closes their positions too, and
        "freeze" touches nothing. Idempotent, and repeated until the report confirms the stop.
        """
        ...


@runtime_checkable
class CanStopInEmergency(Protocol):
    """The part that the kill switch uses when the host does not react."""

    def emergency_stop(self) -> None:
        """Stop all real money. It must be plain and thread-safe: its own thread calls it.

        It confirms nothing: `stop_all` or `fund.report_stopped` does.
        """


@runtime_checkable
class CanKeepAlive(Protocol):
    """The part that lets the venue cancel orders when fundops or the host is gone."""

    def keep_alive(self, until_us: int) -> Awaitable[None] | None:
        """Called each tick with the end of the leases.

        The engine sets its venue's cancel-after timer to it, for orders that may add risk only.
        """


@runtime_checkable
class CanSetStage(Protocol):
    """The part that puts promotions and demotions in force."""

    def set_stage(
        self, name: str, stage: str, capital_cap: Decimal | None
    ) -> Awaitable[None] | None:
        """Put the stage in force. Idempotent.

        `capital_cap` is the most real capital that the strategy may use; None: unlimited.
        """


@runtime_checkable
class CanListFeeds(Protocol):
    """The part that reports the market-data feeds."""

    def feeds(self) -> Awaitable[Sequence[FeedStatus]] | Sequence[FeedStatus]:
        """All feeds."""
        ...


@runtime_checkable
class CanListFills(Protocol):
    """The part that reports fills, so that the ledger books them."""

    def fills(self, after: str) -> Awaitable[Sequence[Fill]] | Sequence[Fill]:
        """The fills after this cursor, oldest first; ``""`` is the beginning.

        Reading must not remove them: the same cursor is asked for again after a crash.
        """
        ...


@runtime_checkable
class CanListSettlements(Protocol):
    """The part that reports settlements, so that the ledger books them."""

    def settlements(self, after: str) -> Awaitable[Sequence[Settlement]] | Sequence[Settlement]:
        """The settlements after this cursor, oldest first; ``""`` is the beginning.

        Reading must not remove them: the same cursor is asked for again after a crash.
        """
        ...


@runtime_checkable
class CanListCashEvents(Protocol):
    """The part that reports money without a trade, so that the ledger books it."""

    def cash_events(self, after: str) -> Awaitable[Sequence[CashEvent]] | Sequence[CashEvent]:
        """The cash events after this cursor, oldest first; ``""`` is the beginning.

        Reading must not remove them: the same cursor is asked for again after a crash.
        """
        ...


@runtime_checkable
class CanGiveStatement(Protocol):
    """The part that gives the broker's own figures, so that the books are compared with them."""

    def statement(self) -> Statement | None:
        """The broker's figures of the last closed day; None: there are none yet.

        Asked when a session ends, if the ledger is on.
        """
        ...
