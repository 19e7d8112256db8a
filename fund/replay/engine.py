"""A small paper engine on real daily prices.

It implements the controller, so a fund can run beside it.

A session is ten ticks a minute apart. After the first tick, orders decided on the closes before it
are filled at the open. Before the last tick, session rules leave at the close, and all positions
are marked there. Paper and shadow fills are hypothetical; `fills` reports those of a live stage.
Entries with real money need the fund's entitlement; exits are always allowed, since they reduce the
risk.

All money is int minor units of 1e-8, prices int cents, quantities int units of 1e-4, so the
engine's books and the ledger's agree to the last digit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import NamedTuple

import msgspec

from fundops.replay.lineup import COST_BP_PER_SIDE, Strategy
from fundops.replay.prices import Bar
from fundops.runtime import FundopsError
from fundops.wire.controller import (
    FeedStatus,
    Fill,
    KillAction,
    StopReport,
    StrategyState,
    StrategyStatus,
)
from fundops.wire.money import from_minor, to_minor

__all__ = [
    "TICKS_PER_SESSION",
    "Crash",
    "ReplayEngine",
    "Result",
    "Script",
    "session_open_us",
]

TICKS_PER_SESSION = 10
TICK_US = 60_000_000
OPEN_UTC = time(14, 30)

_MINOR_PER_CENT_LOT = 100  # one cent times 1e-4 units is 1e-6, in 1e-8
_COST_PARTS = round(COST_BP_PER_SIDE * 1_000)  # of 10,000,000: basis points to a thousandth


class Crash(msgspec.Struct, frozen=True):
    """A strategy that fails on purpose: at this session (from 0) and tick (from 1)."""

    strategy: str
    session: int
    tick: int
    recovers: bool


class Script(msgspec.Struct, frozen=True):
    """The planned troubles: crashes, and one feed that is silent for some sessions."""

    crashes: tuple[Crash, ...] = ()
    silent_feed: str | None = None
    silent_from: int = 0
    silent_sessions: int = 0


class Result(NamedTuple):
    """The cumulative P&L of one strategy after the costs of its fills, in minor units."""

    real_minor: int
    """Made with real money."""
    full_size_minor: int
    """Of every session, in each stage, as if its whole share had been real from the first one."""


class RestartRefused(FundopsError):
    """The strategy is broken on purpose and never restarts."""


def session_open_us(bar: Bar) -> int:
    """The instant of a session's first tick."""
    return int(datetime.combine(bar.day, OPEN_UTC, UTC).timestamp()) * 1_000_000


class _Book:
    """One strategy at the engine."""

    def __init__(self, strategy: Strategy, capital_minor: int) -> None:
        self.name = strategy.name
        self.symbol = strategy.symbol
        self.rule = strategy.rule
        self.state: StrategyState = "running"
        self.error: str | None = None
        self.stage = "paper"
        self.full_minor = capital_minor  # the largest allocation of the strategy
        self.allocated_minor = capital_minor
        self.base_minor = 0  # cumulative P&L at the start of the stage
        self.realized_minor = 0
        self.quantity = 0
        self.entry_minor = 0  # signed cost of the open position
        self.mark_cents = 0
        self.entry_fee_minor = 0
        self.target = 0.0
        self.n_trades = 0
        self.n_wins = 0
        self.comes_back = True
        self.counted_minor = 0  # cumulative P&L that `count` has seen
        self.real_minor = 0  # its part made with real money
        self.full_size_minor = 0  # all of it, as if the allocation had always been the full one

    @property
    def live(self) -> bool:
        return self.stage.startswith("live")

    @property
    def unrealized_minor(self) -> int:
        return self.quantity * self.mark_cents * _MINOR_PER_CENT_LOT - self.entry_minor

    @property
    def equity_minor(self) -> int:
        return self.allocated_minor + self.realized_minor + self.unrealized_minor - self.base_minor

    def count(self) -> None:
        """Credit the P&L since the last count to the present stage and allocation."""
        pnl_minor = self.realized_minor + self.unrealized_minor
        gain, self.counted_minor = pnl_minor - self.counted_minor, pnl_minor
        if self.live:
            self.real_minor += gain
        if self.allocated_minor:
            self.full_size_minor += gain * self.full_minor // self.allocated_minor

    def status(self) -> StrategyStatus:
        return StrategyStatus(
            name=self.name,
            state=self.state,
            equity=from_minor(self.equity_minor),
            allocated=from_minor(self.allocated_minor),
            realized_pnl=from_minor(self.realized_minor),
            unrealized_pnl=from_minor(self.unrealized_minor),
            n_trades=self.n_trades,
            n_wins=self.n_wins,
            stage=self.stage,
            error=self.error,
        )


class ReplayEngine:
    """Trades a line-up over a window of bars. Set `may_trade` to the fund's method of that name."""

    def __init__(
        self,
        line_up: Sequence[Strategy],
        bars: Mapping[str, Sequence[Bar]],
        first: int,
        capital_minor: int,
        now_us: Callable[[], int],
        script: Script = Script(),  # noqa: B008  frozen
    ) -> None:
        self._share_minor = capital_minor // max(1, len(line_up))
        self._books = {strategy.name: _Book(strategy, self._share_minor) for strategy in line_up}
        self._bars = bars
        self._first = first
        self._now_us = now_us
        self._script = script
        self._fills: list[Fill] = []
        self._feeds = dict.fromkeys(bars, 0)
        self.may_trade: Callable[[str], bool] = lambda _: False
        self.alive_until_us: int | None = None  # as `keep_alive` said last

    @property
    def share(self) -> Decimal:
        """Each strategy's equal part of the capital: its allocation at full size."""
        return from_minor(self._share_minor)

    # -- time

    def before_tick(self, session: int, tick: int) -> None:
        """Move the market to this tick (from 1).

        Data arrives, positions are marked, and session rules leave at the close.
        """
        for symbol, bars in self._bars.items():
            if not self._silent(symbol, session):
                self._feeds[symbol] = self._now_us()
            bar = bars[self._first + session]
            last = tick == TICKS_PER_SESSION
            for book in self._of(symbol):
                book.mark_cents = bar.close_cents if last else bar.open_cents
                if last and book.rule.flat_at_close:
                    self._close(book)
        for crash in self._script.crashes:
            if (crash.session, crash.tick) == (session, tick):
                book = self._books[crash.strategy]
                book.state, book.error = "failed", "ZeroDivisionError: division by zero"
                book.comes_back = crash.recovers

    def after_tick(self, session: int, tick: int) -> None:
        """Fill the orders that were decided on the closes before this session, at its open."""
        if tick != 1:
            return
        for symbol, bars in self._bars.items():
            index = self._first + session
            for book in self._of(symbol):
                target = book.rule.target(bars[max(0, index - book.rule.warmup) : index])
                if book.state == "running" and (book.rule.flat_at_close or target != book.target):
                    self._close(book)
                    self._enter(book, target)

    def _of(self, symbol: str) -> Iterable[_Book]:
        return (book for book in self._books.values() if book.symbol == symbol)

    def _silent(self, symbol: str, session: int) -> bool:
        script = self._script
        return (
            symbol == script.silent_feed
            and 0 <= session - script.silent_from < script.silent_sessions
        )

    # -- fills

    def _enter(self, book: _Book, target: float) -> None:
        if book.live and not self.may_trade(book.name):
            target = 0.0
        book.target = target
        size = int(book.equity_minor * abs(target)) // (book.mark_cents * _MINOR_PER_CENT_LOT)
        if size <= 0:
            return
        quantity = size if target > 0 else -size
        book.quantity = quantity
        book.entry_minor = quantity * book.mark_cents * _MINOR_PER_CENT_LOT
        book.entry_fee_minor = self._pay(book, quantity)

    def _close(self, book: _Book) -> None:
        if not book.quantity:
            book.target = 0.0
            return
        gain = book.unrealized_minor
        quantity, book.quantity = book.quantity, 0
        book.entry_minor, book.target = 0, 0.0
        book.realized_minor += gain
        fee = self._pay(book, -quantity)
        book.n_trades += 1
        book.n_wins += gain - fee - book.entry_fee_minor > 0

    def _pay(self, book: _Book, quantity: int) -> int:
        """The costs of one fill, in minor units; a real fill is also added to `fills`."""
        notional = abs(quantity) * book.mark_cents * _MINOR_PER_CENT_LOT
        fee = (2 * notional * _COST_PARTS + 10_000_000) // 20_000_000
        book.realized_minor -= fee
        if book.live:
            number = len(self._fills)
            self._fills.append(
                Fill(
                    id=f"{number:08d}",
                    strategy=book.name,
                    instrument=book.symbol,
                    quantity=Decimal(quantity).scaleb(-4),
                    price=Decimal(book.mark_cents).scaleb(-2),
                    fee=from_minor(fee),
                    at_us=self._now_us(),
                    cursor=str(number + 1),
                )
            )
        return fee

    # -- results

    def results(self) -> Mapping[str, Result]:
        """The cumulative P&L of each strategy by its name, positions at their last mark."""
        for book in self._books.values():
            book.count()
        return {
            name: Result(book.real_minor, book.full_size_minor)
            for name, book in self._books.items()
        }

    # -- the controller

    @property
    def fill_count(self) -> int:
        """The number of real fills so far; the ledger must have booked all of them."""
        return len(self._fills)

    def strategies(self) -> tuple[StrategyStatus, ...]:
        """The status of every strategy."""
        return tuple(book.status() for book in self._books.values())

    def feeds(self) -> tuple[FeedStatus, ...]:
        """The time of the last price of every symbol."""
        return tuple(FeedStatus(symbol, at_us or None) for symbol, at_us in self._feeds.items())

    def fills(self, after: str) -> Sequence[Fill]:
        """Real fills after this cursor, oldest first; "" for all."""
        return self._fills[int(after or "0") :]

    async def restart(self, name: str, *, attempt_id: str) -> None:
        """Set the strategy running. Raises: `RestartRefused` for one that is broken on purpose."""
        book = self._books[name]
        if not book.comes_back:
            raise RestartRefused(f"{name} fails again at once ({attempt_id})")
        book.state, book.error = "running", None

    async def pause(self, name: str, reason: str) -> None:
        """Pause the strategy and close its position."""
        self._books[name].state = "paused"
        self._close(self._books[name])

    async def resume(self, name: str) -> None:
        """Set the strategy running."""
        self._books[name].state = "running"

    async def stop(self, name: str, reason: str) -> None:
        """Stop the strategy and close its position."""
        self._books[name].state = "stopped"
        self._close(self._books[name])

    async def stop_all(
        self, reason: str, action: KillAction, strategies: Sequence[str]
    ) -> StopReport:
        """Send no more orders of these strategies; with "flatten" close their positions."""
        books = [self._books[name] for name in strategies if name in self._books]
        for book in books:
            if action != "freeze" and book.state == "running":
                book.state = "stopped"
            if action == "flatten":
                self._close(book)
        return StopReport(open_orders=0, open_positions=sum(bool(book.quantity) for book in books))

    def emergency_stop(self) -> None:
        """Send no more orders of live strategies; called from a thread of fundops."""
        for book in tuple(self._books.values()):
            if book.live and book.state == "running":
                book.state = "stopped"

    def keep_alive(self, until_us: int) -> None:
        """Keep `alive_until_us`; orders are filled at once, so none rests that it could cancel."""
        self.alive_until_us = until_us

    async def set_stage(self, name: str, stage: str, capital_cap: Decimal | None) -> None:
        """Begin the stage flat: a real position is sold, a hypothetical one ends at its mark."""
        book = self._books[name]
        if stage == book.stage:
            return
        if book.live:
            self._close(book)
        else:
            book.realized_minor += book.unrealized_minor
            book.quantity, book.entry_minor, book.target = 0, 0, 0.0
        book.count()
        book.stage = stage
        book.base_minor = book.realized_minor
        book.allocated_minor = book.full_minor
        if book.live and capital_cap is not None:
            book.allocated_minor = min(book.full_minor, to_minor(capital_cap).minor)
