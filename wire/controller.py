"""The host's side: what fundops asks of the engine that trades. Outsiders implement this and nothing else.

`Controller` lists the required part; every optional part is a Protocol of its own below, found by its method names.
An absent part disables what needs it, and the start-up log names what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal, Protocol, runtime_checkable

import msgspec

__all__ = [
    "CanListFeeds",
    "CanListFills",
    "CanListSettlements",
    "CanPause",
    "CanRestart",
    "CanSetStage",
    "CanStopAll",
    "Controller",
    "FeedStatus",
    "Fill",
    "KillAction",
    "Settlement",
    "StopReport",
    "StrategyState",
    "StrategyStatus",
]

StrategyState = Literal["pending", "running", "paused", "stopped", "failed", "retired"]
KillAction = Literal["halt", "flatten"]


class StrategyStatus(msgspec.Struct, frozen=True):
    """One strategy as the engine knows it."""

    name: str  # 1 to 128 characters, unique
    state: StrategyState
    equity: Decimal | float | None = None  # capital allocated plus realized and unrealized P&L; None: unknown
    allocated: Decimal | float = 0  # capital given to it
    realized_pnl: Decimal | float = 0  # cumulative, fees included
    unrealized_pnl: Decimal | float = 0
    n_trades: int = 0  # closed round trips, cumulative
    n_wins: int = 0  # of them, with net P&L > 0
    stage: str | None = None  # in force at the engine; None: the engine does not know stages
    capital_cap: Decimal | float | None = None
    error: str | None = None  # of a failed one
    retryable: bool = True  # False: configuration, credentials, reconciliation
    heartbeat_us: int | None = None  # None: the engine has no heartbeats; running then counts as alive
    at_us: int | None = None  # None: now


class FeedStatus(msgspec.Struct, frozen=True):
    """One market-data feed. `stale_after_s` None: an event-only feed, never stale."""

    name: str
    last_data_us: int | None
    stale_after_s: float | None = 300.0


class Settlement(msgspec.Struct, frozen=True):
    """A market that resolved: what the position had cost, and what it pays."""

    id: str
    market: str
    strategy: str
    cost: Decimal
    payoff: Decimal
    revision: int = 0
    cursor: str = ""


class Fill(msgspec.Struct, frozen=True):
    """One execution with real money. `quantity` is signed: a sale is negative."""

    id: str
    strategy: str
    instrument: str
    quantity: Decimal
    price: Decimal
    fee: Decimal
    at_us: int
    cursor: str = ""


class StopReport(msgspec.Struct, frozen=True):
    """What is still open after `stop_all`; it is called again until no orders are."""

    open_orders: int
    open_positions: int


class Controller(Protocol):
    """The required part: report the strategies when asked."""

    def strategies(self) -> Sequence[StrategyStatus]:
        """All of them, at most 10,000; under 1 ms."""


@runtime_checkable
class CanRestart(Protocol):
    async def restart(self, name: str, *, attempt_id: str) -> None:
        """Return when running, raise when not; `NotRetryable` opens the breaker at once."""


@runtime_checkable
class CanPause(Protocol):
    """All three are idempotent."""

    async def pause(self, name: str, reason: str) -> None: ...

    async def resume(self, name: str) -> None: ...

    async def stop(self, name: str, reason: str) -> None: ...


@runtime_checkable
class CanStopAll(Protocol):
    async def stop_all(self, reason: str, action: KillAction) -> StopReport: ...


@runtime_checkable
class CanSetStage(Protocol):
    async def set_stage(self, name: str, stage: str, capital_cap: Decimal | None) -> None:
        """Idempotent. `capital_cap` is the most real capital the strategy may use; None: unlimited."""


@runtime_checkable
class CanListFeeds(Protocol):
    def feeds(self) -> Sequence[FeedStatus]: ...


@runtime_checkable
class CanListFills(Protocol):
    def fills(self, after: str) -> Sequence[Fill]:
        """Those after the cursor, oldest first; never destructive. ``""`` is the beginning."""


@runtime_checkable
class CanListSettlements(Protocol):
    def settlements(self, after: str) -> Sequence[Settlement]:
        """Those after the cursor, oldest first; never destructive. ``""`` is the beginning."""
