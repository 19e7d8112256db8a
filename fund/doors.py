"""What a host calls: one small class of async methods per subsystem.

The synchronous front door offers the same methods by name, so what is added here is there too.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fundops.actors.host import Host
from fundops.actors.ledger.actor import new_key
from fundops.actors.ledger.core import RUN
from fundops.actors.ledger.verify import Anchor, Verification, verify_file
from fundops.moments import Instant, Moment, day_of, instant_us, moment_of
from fundops.runtime import ConfigError, FundopsError, Ref, Request, Worker
from fundops.wire.alert import AlertPage, AlertReceipt, Category, Level, RecentAlerts, SendAlert
from fundops.wire.errors import shown
from fundops.wire.ledger import (
    BOOKABLE,
    EVENTS_MAX,
    BalanceSheet,
    CashFlow,
    ChargeManagementFee,
    ChargePerformanceFee,
    ClosePeriod,
    ClosePosition,
    Correct,
    Deposit,
    Entries,
    Entry,
    Event,
    Financing,
    Income,
    IncomeStatement,
    Leg,
    Mark,
    NavPerUnit,
    NetAssetValue,
    OpeningBalances,
    OpeningPosition,
    OpenPosition,
    PayFees,
    Post,
    Posted,
    PostMany,
    RecentEntries,
    RecordLoss,
    RecordProfit,
    ReopenPeriod,
    Reverse,
    Settle,
    TrialBalance,
    Withdraw,
)
from fundops.wire.money import Amount
from fundops.wire.promotion import (
    Adopt,
    Demote,
    Evaluate,
    Evaluation,
    Freeze,
    HistoryEntry,
    Promote,
    PromotionHistory,
    PromotionSnapshot,
    PromotionStage,
    ReadSnapshot,
    ReadStrategies,
    RecordMetrics,
    Register,
    Retire,
    Transition,
)
from fundops.wire.recovery import (
    BreakerReset,
    CheckFeeds,
    CheckStrategies,
    EventHistory,
    HoldStrategy,
    RecoveryEvent,
    RecoveryStats,
    RecoveryStatus,
    RecoveryStatuses,
    ReleaseStrategy,
)

__all__ = ["AlertDoor", "LedgerDoor", "PromotionDoor", "RecoveryDoor", "SubsystemDisabled"]

R = TypeVar("R")

# Longer than a commit's own deadline, so that the reason arrives before we give up.
ANSWER_DEADLINE_S = 60.0


class SubsystemDisabled(FundopsError):
    """The subsystem is switched off; `switch` is the setting that turns it on."""

    def __init__(self, subsystem: str, switch: str) -> None:
        super().__init__(f"{subsystem} is disabled; set {switch} in FundConfig")
        self.subsystem, self.switch = subsystem, switch


class _Door:
    """Asks one actor; refuses everything when there is none."""

    def __init__(self, subsystem: str, switch: str, ref: Ref | None) -> None:
        self._subsystem = subsystem
        self._switch = switch
        self._ref = ref

    async def _ask(self, request: Request[R]) -> R:
        if self._ref is None:
            raise SubsystemDisabled(self._subsystem, self._switch)
        return await self._ref.ask(request, timeout_s=ANSWER_DEADLINE_S)


def _members(field: str, value: object, *kinds: type[Any], at_most: int = sys.maxsize) -> tuple[Any, ...]:
    """Raises: `ConfigError` naming the field when this is no list, too long, or one of it is something else."""
    if not isinstance(value, Iterable):
        raise ConfigError(field, f"{shown(value)} is not a list")
    members = tuple(value)
    if len(members) > at_most:
        raise ConfigError(field, f"{len(members):,} are more than {at_most:,} at once: give them in parts")
    if {type(one) for one in members} <= set(kinds):  # as good as always
        return members
    for at, one in enumerate(members):
        if not isinstance(one, kinds):
            what = kinds[0].__name__ if len(kinds) == 1 else "an event to book"
            raise ConfigError(f"{field}[{at}]", f"{shown(one)} is not {what}")
    return members


class LedgerDoor(_Door):
    """Book events, ask for reports. Amounts may be Decimal, int, decimal text or float; answers are Decimal.

    Every write answers with `Posted` once it is on disk. A `key` given twice with the same content is booked once.
    """

    def __init__(
        self, ref: Ref | None, now_us: Callable[[], int], path: Path, make_worker: Callable[[str], Worker]
    ) -> None:
        super().__init__("ledger", "ledger_enabled=True", ref)
        self._now_us = now_us
        self._path = path
        self._make_worker = make_worker

    async def _aside(self, name: str, call: Callable[[], R]) -> R:
        """In a thread of its own: the loop belongs to everybody."""
        worker = self._make_worker(name)
        try:
            return await worker.run(call)
        finally:
            worker.stop()

    def new_key(self) -> str:
        """A fresh idempotency key, to keep before sending."""
        return new_key(self._now_us())

    async def _book(
        self, kind: type[Any], *content: Any, key: str | None, strategy: str | None, at: Instant | None, memo: str
    ) -> Posted:
        return await self._send(kind(*content, key=key, strategy=strategy, at_us=instant_us("at", at), memo=memo))

    async def _send(self, event: Event | Correct) -> Posted:
        # The key is minted before sending, so that an answer that got lost can be asked for again.
        event = self._keyed(event)
        try:
            posted: Posted = await self._ask(event)
        except FundopsError as error:
            error.key = event.key  # type: ignore[attr-defined]
            raise
        return posted

    def _keyed(self, event: Event | Correct) -> Event | Correct:
        return msgspec.structs.replace(event, key=self.new_key()) if event.key is None else event

    async def deposit(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Money from outside: CASH / EXTERNAL."""
        return await self._book(Deposit, amount, key=key, strategy=strategy, at=at, memo=memo)

    async def withdraw(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Money to outside: EXTERNAL / CASH. Raises: `InsufficientFunds`."""
        return await self._book(Withdraw, amount, key=key, strategy=strategy, at=at, memo=memo)

    async def record_profit(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """A realized gain: CASH / REALIZED_PNL."""
        return await self._book(RecordProfit, amount, key=key, strategy=strategy, at=at, memo=memo)

    async def record_loss(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """A realized loss, as a positive amount: REALIZED_PNL / CASH."""
        return await self._book(RecordLoss, amount, key=key, strategy=strategy, at=at, memo=memo)

    async def open_position(
        self,
        instrument: str,
        *,
        quantity: Amount,
        cost: Amount,
        fee: Amount = 0,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """A new lot; a negative quantity is a short, whose cost is received."""
        return await self._book(
            OpenPosition, instrument, quantity, cost, fee, key=key, strategy=strategy, at=at, memo=memo
        )

    async def close_position(
        self,
        instrument: str,
        *,
        quantity: Amount,
        proceeds: Amount,
        fee: Amount = 0,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Close lots, oldest first; the quantity has the position's sign. Raises: `PositionMismatch`."""
        return await self._book(
            ClosePosition, instrument, quantity, proceeds, fee, key=key, strategy=strategy, at=at, memo=memo
        )

    async def mark(
        self,
        instrument: str,
        *,
        value: Amount,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """What the whole position is worth now; the change since the last mark is booked."""
        return await self._book(Mark, instrument, value, key=key, strategy=strategy, at=at, memo=memo)

    async def settle(
        self,
        market: str,
        *,
        strategy: str | None,
        payoff: Amount,
        key: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Close the whole position in a resolved market at its payoff."""
        return await self._book(Settle, market, payoff, key=key, strategy=strategy, at=at, memo=memo)

    async def charge_management_fee(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """MANAGEMENT_FEES / FEES_RECEIVABLE."""
        return await self._book(ChargeManagementFee, amount, key=key, strategy=strategy, at=at, memo=memo)

    async def charge_performance_fee(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """PERFORMANCE_FEES / FEES_RECEIVABLE."""
        return await self._book(ChargePerformanceFee, amount, key=key, strategy=strategy, at=at, memo=memo)

    async def pay_fees(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Charged fees leave the fund: FEES_RECEIVABLE / CASH."""
        return await self._book(PayFees, amount, key=key, strategy=strategy, at=at, memo=memo)

    async def income(
        self,
        amount: Amount,
        *,
        instrument: str | None = None,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Dividends, coupons, interest: CASH / INCOME. Negative: what a short position had to pay."""
        return await self._book(Income, amount, instrument, key=key, strategy=strategy, at=at, memo=memo)

    async def financing(
        self,
        amount: Amount,
        *,
        instrument: str | None = None,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Borrow fees, funding, interest paid: FINANCING / CASH. Negative: what was received."""
        return await self._book(Financing, amount, instrument, key=key, strategy=strategy, at=at, memo=memo)

    async def opening_balances(
        self,
        *,
        cash: Amount,
        positions: Sequence[OpeningPosition] = (),
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Start the book of a fund that already trades: its cash and positions, before anything else is booked."""
        held = _members("positions", positions, OpeningPosition)
        return await self._book(OpeningBalances, cash, held, key=key, strategy=strategy, at=at, memo=memo)

    async def reverse(
        self, seq: int, *, reason: str, key: str | None = None, strategy: str | None = None, at: Instant | None = None
    ) -> Posted:
        """Negate every leg of an entry, once. Raises: `AlreadyReversed`, `UnknownEntry`."""
        return await self._book(Reverse, seq, reason, key=key, strategy=strategy, at=at, memo="")

    async def correct(
        self,
        seq: int,
        entry: Event,
        *,
        reason: str,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Reverse entry `seq` and book `entry` in its place, both or neither; the answer is the new entry's.

        The reversal is dated as the entry it takes back, or now if that day is closed, unless `at` says otherwise.
        """
        return await self._book(Correct, seq, entry, reason, key=key, strategy=strategy, at=at, memo=memo)

    async def close_period(self, day: dt.date | str, *, key: str | None = None, memo: str = "") -> Posted:
        """Take the revenue up to the end of `day` into RETAINED, and lock all of it. Raises: `PeriodClosed`."""
        return await self._book(ClosePeriod, day_of("day", day), key=key, strategy=None, at=None, memo=memo)

    async def reopen_period(self, day: dt.date | str, reason: str, actor: str, *, key: str | None = None) -> Posted:
        """Undo the last close, which was of `day`; the journal keeps both, with who did it and why."""
        return await self._book(
            ReopenPeriod, day_of("day", day), reason, actor, key=key, strategy=None, at=None, memo=""
        )

    async def post(
        self,
        entry: Event | Correct | Sequence[Leg],
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """An entry of explicit legs, or any event as it is. Raises: `UnbalancedEntry`, `UnknownAccount`."""
        if isinstance(entry, Event | Correct):
            given = {"key": key, "strategy": strategy, "at_us": instant_us("at", at), "memo": memo or None}
            changes = {name: value for name, value in given.items() if value is not None}
            return await self._send(msgspec.structs.replace(entry, **changes))
        return await self._book(Post, _members("entry", entry, Leg), key=key, strategy=strategy, at=at, memo=memo)

    async def post_many(self, entries: Sequence[Event | Correct]) -> tuple[Posted, ...]:
        """All of the events in one transaction, or none. An error carries the keys of all of them as `keys`."""
        events = _members("entries", entries, *BOOKABLE, at_most=EVENTS_MAX)

        def with_keys() -> tuple[Event | Correct, ...]:
            return tuple([self._keyed(event) for event in events])

        keyed = with_keys() if len(events) <= RUN else await self._aside("fundops-keys", with_keys)
        try:
            return await self._ask(PostMany(keyed))
        except FundopsError as error:
            error.keys = tuple(event.key for event in keyed)  # type: ignore[attr-defined]
            raise

    async def balance_sheet(
        self, as_of: Moment | None = None, *, strategy: str | None = None, asset: str | None = None
    ) -> dict[str, Decimal]:
        """Debits minus credits per account. A date counts to its end, UTC; an instant is included."""
        return await self._ask(BalanceSheet(moment_of("as_of", as_of), strategy, asset))

    async def income_statement(
        self,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        strategy: str | None = None,
        asset: str | None = None,
    ) -> dict[str, Decimal]:
        """Income positive, expense negative, both ends included; what closed a period is left out."""
        return await self._ask(IncomeStatement(moment_of("start", start), moment_of("end", end), strategy, asset))

    async def cash_flow(
        self, start: Moment | None = None, end: Moment | None = None, *, strategy: str | None = None
    ) -> dict[str, Decimal]:
        """What moved CASH, by what it was for; OPENING plus NET is CLOSING."""
        return await self._ask(CashFlow(moment_of("start", start), moment_of("end", end), strategy))

    async def trial_balance(
        self, as_of: Moment | None = None, *, strategy: str | None = None, asset: str | None = None
    ) -> dict[str, Decimal]:
        """Every account; the values sum to zero."""
        return await self._ask(TrialBalance(moment_of("as_of", as_of), strategy, asset))

    async def nav(self, as_of: Moment | None = None, *, strategy: str | None = None) -> Decimal:
        """What the fund is worth by its books."""
        return await self._ask(NetAssetValue(moment_of("as_of", as_of), strategy))

    async def nav_per_unit(self, as_of: Moment | None = None) -> Decimal:
        """What a unit is worth, which deposits and withdrawals do not change; the units are the asset UNITS."""
        return await self._ask(NavPerUnit(moment_of("as_of", as_of)))

    async def entries(
        self,
        *,
        account: str | None = None,
        strategy: str | None = None,
        kind: str | None = None,
        after_seq: int | None = None,
        limit: int = 100,
    ) -> tuple[Entry, ...]:
        """One page of what matches, newest first; for the next one give the last entry's `seq` as `after_seq`."""
        return await self._ask(Entries(account, strategy, kind, after_seq, limit))

    async def verify(self, level: int = 2, *, anchor: Anchor | None = None) -> Verification:
        """Look the book over, beside whatever is being booked; nothing is repaired.

        0: it opens; 1: SQLite's own check and the trial balance; 2: the whole chain, and all that is derived from it;
        3: also what bean-check, hledger and ledger make of the exported book, those that are installed.
        """
        if anchor is not None and not (isinstance(anchor, Anchor) and [*map(type, anchor)] == [int, str]):
            raise ConfigError("anchor", f"{shown(anchor)} is not an Anchor: an entry and its hash")
        return await self._aside("fundops-verify", partial(verify_file, self._path, level, anchor))

    async def recent_entries(self, limit: int = 20) -> tuple[Entry, ...]:
        """The newest entries, newest first."""
        return await self._ask(RecentEntries(limit))


class PromotionDoor(_Door):
    """The lifecycle of strategies. A strategy may be named by its id or by its name."""

    def __init__(self, ref: Ref | None) -> None:
        super().__init__("promotion", "promotion_enabled=True", ref)

    async def register(self, strategy_name: str, initial_stage: PromotionStage = PromotionStage.Paper) -> str:
        """The strategy's id; the same name again gives the same id."""
        return await self._ask(Register(strategy_name, initial_stage))

    async def adopt(self, name: str, stage: PromotionStage, *, actor: str, reason: str) -> str:
        """Take over a strategy that is already trading, at any stage."""
        return await self._ask(Adopt(name, stage, actor, reason))

    async def record_metrics(
        self,
        strategy_id: str,
        stage: PromotionStage,
        metrics: Mapping[str, Any],
        *,
        as_of: Instant | None = None,
        source: str = "",
    ) -> None:
        """Metrics of the running stage so far. Raises: `MetricError` naming the field, `Conflict`."""
        await self._ask(RecordMetrics(strategy_id, stage, metrics, instant_us("as_of", as_of), source))

    async def evaluate(self, strategy_id: str) -> Evaluation:
        """What the rules say now; writes nothing."""
        return await self._ask(Evaluate(strategy_id))

    async def should_promote(self, strategy_id: str) -> bool:
        """Whether `promote` would go through now."""
        return (await self.evaluate(strategy_id)).would_do in ("promote", "ready")

    async def should_demote(self, strategy_id: str) -> bool:
        """Whether a hard limit is breached, or a soft one for long enough."""
        return (await self.evaluate(strategy_id)).would_do == "demote"

    async def promote(
        self,
        strategy_id: str,
        *,
        to: PromotionStage | None = None,
        actor: str = "operator",
        reason: str = "",
        expected_rev: int | None = None,
    ) -> Transition:
        """One stage up, on a current PASS. Raises: `GateNotPassed` with the evaluation, and other refusals."""
        return await self._ask(Promote(strategy_id, to, actor, reason, expected_rev))

    async def demote(
        self,
        strategy_id: str,
        *,
        to: PromotionStage | None = None,
        actor: str = "operator",
        reason: str = "",
        expected_rev: int | None = None,
    ) -> Transition:
        """One stage down, or to the lower one named."""
        return await self._ask(Demote(strategy_id, to, actor, reason, expected_rev))

    async def freeze(self, strategy_id: str, *, actor: str = "operator", reason: str = "") -> None:
        """No promotion until unfrozen; demotion still works."""
        await self._ask(Freeze(strategy_id, True, actor, reason))

    async def unfreeze(self, strategy_id: str, *, actor: str = "operator", reason: str = "") -> None:
        await self._ask(Freeze(strategy_id, False, actor, reason))

    async def retire(self, strategy_id: str, *, actor: str = "operator", reason: str = "") -> None:
        """For good."""
        await self._ask(Retire(strategy_id, actor, reason))

    async def current_stage(self, strategy_id: str) -> PromotionStage:
        return (await self.snapshot(strategy_id)).stage

    async def snapshot(self, strategy_id: str) -> PromotionSnapshot:
        """Stage, days in it, metrics, evaluation, and the last 20 lines of history."""
        return await self._ask(ReadSnapshot(strategy_id))

    async def strategies(self) -> tuple[PromotionSnapshot, ...]:
        """All of them, by name, without their history."""
        return await self._ask(ReadStrategies())

    async def history(self, strategy_id: str | None = None, limit: int = 50) -> tuple[HistoryEntry, ...]:
        """Newest first."""
        return await self._ask(PromotionHistory(strategy_id, limit))


class AlertDoor(_Door):
    """Send alerts, read what was sent."""

    def __init__(self, ref: Ref | None) -> None:
        super().__init__("alerts", "alert_webhook_url or any subsystem", ref)

    async def send(
        self,
        level: Level | str,
        category: Category | str,
        title: str,
        message: str,
        *,
        strategy: str | None = None,
        dedup_key: str | None = None,
    ) -> AlertReceipt:
        """Answers when it is stored, never waits for its delivery. Raises: ValueError for an unknown enum."""
        return await self._ask(SendAlert(Level(level), Category(category), title, message, strategy, dedup_key))

    async def recent(self, limit: int = 50) -> AlertPage:
        """Newest first, with counts over all of history."""
        return await self._ask(RecentAlerts(limit))


class RecoveryDoor(_Door):
    """What failed, what was tried, and a person's hand on the breaker."""

    def __init__(self, ref: Ref | None, host: Host) -> None:
        super().__init__("recovery", "self_healing_enabled=True", ref)
        self._host = host

    async def check_strategies(self) -> tuple[RecoveryEvent, ...]:
        """Look now, instead of at the next tick. Raises: `HostFault`."""
        return await self._ask(CheckStrategies(self._host.strategies()))

    async def check_feeds(self) -> tuple[RecoveryEvent, ...]:
        return await self._ask(CheckFeeds(self._host.feeds()))

    async def reset(self, name: str, actor: str = "operator") -> bool:
        """Close an open breaker; False when it was not open. Raises: `UnmanagedStrategy` (a KeyError)."""
        return await self._ask(BreakerReset(name, actor))

    async def hold(self, name: str, actor: str = "operator") -> bool:
        """No restarts until released."""
        return await self._ask(HoldStrategy(name, actor))

    async def release(self, name: str, actor: str = "operator") -> bool:
        return await self._ask(ReleaseStrategy(name, actor))

    async def statuses(self) -> tuple[RecoveryStatus, ...]:
        return await self._ask(RecoveryStatuses())

    async def event_history(self, limit: int = 20) -> list[RecoveryEvent]:
        """Newest first."""
        events = await self._ask(EventHistory(limit))
        return list(events)

    async def stats(self) -> dict[str, int]:
        """total_attempts = successes + failures; circuit_breakers_open is a gauge."""
        statistics = await self._ask(RecoveryStats())
        return msgspec.structs.asdict(statistics)
