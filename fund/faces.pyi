"""The doors of a fund in another thread, for type checkers; `python docs/generate.py` writes it."""

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, Protocol

from fundops.actors.ledger.verify import Anchor, Verification
from fundops.actors.promotion import PromotionGate
from fundops.control.commands import Command
from fundops.fund import Fund
from fundops.moments import Instant, Moment
from fundops.wire.alert import AlertPage, AlertReceipt, Category, ChannelTest, Level
from fundops.wire.controller import Fill
from fundops.wire.guard import Entitlement, KillStatus, Released
from fundops.wire.ledger import (
    AsideReport,
    Booked,
    Correct,
    Entry,
    Event,
    JournalLine,
    LedgerLot,
    LedgerPosition,
    Leg,
    OpeningPosition,
    Posted,
    Reconciliation,
    Statement,
)
from fundops.wire.money import Amount
from fundops.wire.oversight import FundStatus, NavSample, PnlAttribution, TickReport
from fundops.wire.persistence import StorageStatus
from fundops.wire.promotion import (
    Evaluation,
    HistoryEntry,
    PromotionSnapshot,
    PromotionStage,
    StrategyState,
    Transition,
)
from fundops.wire.recovery import RecoveryEvent, RecoveryStatus
from fundops.wire.why import Why

class Waits(Protocol):
    """The way into the thread of a fund: `wait` runs a function there and waits for its answer."""

    def wait(self, verb: str, function: Callable[[Fund], Awaitable[Any]]) -> Any: ...
    def now(self) -> Fund: ...

class Posts(Protocol):
    """The way into the thread of a fund from an asyncio loop."""

    async def post(self, function: Callable[[Fund], Awaitable[Any]]) -> Any: ...
    def now(self) -> Fund: ...

class Asked:
    """One call of a verb, to be made on the fund."""

    command: Command
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __init__(
        self, command: Command, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None: ...
    async def __call__(self, fund: Fund) -> Any: ...
    def named(self) -> dict[str, Any]: ...

class SyncFace:
    """One part of a fund, with its verbs as plain calls. Each waits for its answer."""

    def __init__(self, way: Waits) -> None: ...

class AsyncioFace:
    """One part of a fund, with its verbs as coroutines for an asyncio loop."""

    def __init__(self, way: Posts) -> None: ...

def sync_face(part: str, name: str) -> type[SyncFace]: ...
def asyncio_face(part: str, name: str) -> type[AsyncioFace]: ...
def plain_methods(part: str) -> tuple[str, ...]: ...

class SyncVerbs(SyncFace):
    def status(self) -> FundStatus:
        """The fund's state as of its last tick."""

    def why(self, name: str) -> Why:
        """Every blocker between a strategy and real orders, each with the command that lifts it.

        They are in the order of `fundops.wire.why.BlockerKind`. Each fact is read at this moment
        where it lives; a part of the fund that does not answer within 2 s is named in `notes`. An
        unknown name is a blocker too, with similar names.

        Raises: `ConfigError` when `name` is no name.
        """

    def nav_history(
        self, limit: int = 100, every: Literal["session", "minute"] = "session"
    ) -> tuple[NavSample, ...]:
        """NAV and drawdown at the end of each session or of each minute, newest first.

        Sessions are kept without end, minutes for a month.

        Raises: `ConfigError` for another `every`.
        """

    def pnl_attribution(self) -> PnlAttribution:
        """The fund's P&L by its sources: each strategy, the ledger, the fund's fees."""

    def storage(self) -> StorageStatus:
        """Whether the database can be written, the size of its log in bytes, and counters."""

    def status_port(self) -> int:
        """The port of the status stream. Raises: `UnknownChild` when the configuration has none."""

    def flush_alerts(self, timeout_s: float) -> bool:
        """Wait until each stored alert was delivered or given up; False after `timeout_s`."""

    def tick(self, session: dt.date | str | None = None) -> TickReport:
        """Run one round of oversight; returns once its commits are durable.

        It also ends the sessions of the configured calendar that are over. A host that keeps the
        calendar itself names with `session` the one that this tick ends, as an ISO date; the first
        name switches the configured calendar off. No session ends twice, and none before one that
        has ended.

        Raises: `ConfigError` when `session` is no ISO date.
        """

    def pause(self, name: str, *, by: str, reason: str) -> bool:
        """Pause a strategy until a person resumes it; False: a person has paused it already.

        Its lease ends before this returns: only orders that reduce its positions are allowed. The
        engine is told by a task, and the database afterwards. No promotion and no demotion ends
        the pause, and it survives a restart. It works without real money too.

        Raises: `BadRequest` without a name and a reason; `UnknownStrategy`; `ConfigError` when
            `name` is no name.
        """

    def resume(self, name: str, *, by: str, reason: str) -> bool:
        """Resume a strategy that a person or the guard paused; False when it was not paused.

        The engine is asked first. The next tick gives the lease.

        Raises: `BadRequest` without a name and a reason; `KillSwitchEngaged`; `HostFault` when the
            engine does not resume it. It then stays paused.
        """

    def confirm_clock(self, *, by: str, reason: str) -> bool:
        """Take the wall clock as right after a jump (`FundStatus.clock_suspect`).

        Sessions, fees and promotions go on from its time at the next tick. False when it was not
        suspect. `by` names a person.

        Raises: `BadRequest` without a name and a reason.
        """

    def confirm_counters(self, strategy: str, *, by: str, reason: str) -> bool:
        """Confirm that the engine's counters of a strategy restarted; False: that was not in doubt.

        Raises: `BadRequest` without a name and a reason; `ConfigError` for a strategy that is none.
        """

    def backup(self, target: str) -> dict[str, str | int]:
        """Copy the database as it is now to the new file `target`; writing goes on meanwhile.

        Raises: `ConfigError` when `target` is no absolute path; `DatabaseError`; OSError.
        """

class SyncLedger(SyncFace):
    def balance_sheet(
        self, as_of: Moment | None = None, *, strategy: str | None = None, asset: str | None = None
    ) -> dict[str, Decimal]:
        """Debits minus credits per account.

        A date counts to its end, UTC; an instant is included.
        """

    def income_statement(
        self,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        strategy: str | None = None,
        asset: str | None = None,
    ) -> dict[str, Decimal]:
        """Income positive, expense negative, both ends included; closing entries are left out."""

    def trial_balance(
        self, as_of: Moment | None = None, *, strategy: str | None = None, asset: str | None = None
    ) -> dict[str, Decimal]:
        """Debits minus credits of every account, EXTERNAL too; the values sum to zero."""

    def cash_flow(
        self, start: Moment | None = None, end: Moment | None = None, *, strategy: str | None = None
    ) -> dict[str, Decimal]:
        """Changes of CASH by their purpose; OPENING plus NET is CLOSING."""

    def nav(self, as_of: Moment | None = None, *, strategy: str | None = None) -> Decimal:
        """The net asset value by the books, with other assets at their last prices.

        An asset without a price is not counted; `prices` names it.
        """

    def nav_per_unit(self, as_of: Moment | None = None) -> Decimal:
        """The net asset value of one unit, which deposits and withdrawals do not change.

        `trial_balance(asset="UNITS")` gives the number of units.
        """

    def positions(
        self, as_of: Moment | None = None, *, strategy: str | None = None
    ) -> tuple[LedgerPosition, ...]:
        """The open positions by strategy and instrument, of now or of any time."""

    def lots(
        self, *, strategy: str | None = None, instrument: str | None = None
    ) -> tuple[LedgerLot, ...]:
        """The open lots by strategy and instrument, oldest first."""

    def realized(
        self, start: Moment | None = None, end: Moment | None = None, *, by: str = "strategy"
    ) -> dict[str, Decimal]:
        """Realized P&L by "strategy" or by "instrument", both ends included; a gain is positive.

        An empty name stands for what belongs to none. Closing entries are left out.
        """

    def prices(self, as_of: Moment | None = None) -> dict[str, Decimal | None]:
        """The last price of every other asset.

        None: the fund holds the asset, and the NAV does not count it for want of a price.
        """

    def entries(
        self,
        *,
        account: str | None = None,
        strategy: str | None = None,
        kind: str | None = None,
        after_seq: int | None = None,
        limit: int = 100,
        key: str | None = None,
        day: dt.date | str | None = None,
        instrument: str | None = None,
    ) -> tuple[Entry, ...]:
        """One page of matching entries, newest first.

        For the next page, pass the `seq` of the last entry as `after_seq`. `instrument` finds the
        entries that moved its lots or name it.

        Raises: `UnknownAccount`, `UnknownStrategy`, `BadField` for a kind that does not exist.
        """

    def entries_after(self, seq: int = 0, limit: int = 100) -> tuple[JournalLine, ...]:
        """The entries after entry `seq` as they are stored, oldest first: payload and hash.

        SHA-256 over the previous hash and the payload gives the hash; before the first entry it is
        32 zero bytes.
        """

    def recent_entries(self, limit: int = 20) -> tuple[Entry, ...]:
        """The newest entries, newest first."""

    def reports_aside(self, limit: int = 100) -> tuple[AsideReport, ...]:
        """The reports of the engine that could not be booked and wait aside, the oldest first."""

    def reconcile(
        self, statements: Sequence[Statement], *, tolerance: Amount = 0
    ) -> Reconciliation:
        """Compare the books with a broker's statements of some days, all strategies together.

        The answer names the first day on which they differ, the last one before on which the same
        figures agree, the figures, and the entries between. It tells cash and positions apart, as a
        statement may leave one of them out. Differences of CASH up to `tolerance` are none.

        Raises: `BadField`, `AmountError`.
        """

    def verify(self, level: int = 2, *, anchor: Anchor | None = None) -> Verification:
        """Check the book while booking goes on; returns the findings and repairs nothing.

        Level 0 opens the book; 1 adds SQLite's own check and the trial balance; 2 the whole hash
        chain and everything derived from it; 3 asks those of bean-check, hledger and ledger that
        are installed about the exported book.
        """

    def deposit(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book money that comes in from outside: CASH / EXTERNAL."""

    def withdraw(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book money that leaves the fund: EXTERNAL / CASH.

        Before it the fees are booked: the management fee up to now, and the performance fee of the
        units that leave. All of it is one commit.

        Raises: `InsufficientFunds`.
        """

    def record_profit(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book a realized gain: CASH / REALIZED_PNL."""

    def record_loss(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book a realized loss, given as a positive amount: REALIZED_PNL / CASH."""

    def open_position(
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
        """Book a new lot; a negative quantity is a short, whose cost is received."""

    def close_position(
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
        """Close lots, oldest first; the quantity has the sign of the position.

        Raises: `PositionMismatch`.
        """

    def mark(
        self,
        instrument: str,
        *,
        value: Amount,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Value the whole position; the change since its last mark is booked."""

    def settle(
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

    def charge_management_fee(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Charge a management fee: MANAGEMENT_FEES / FEES_RECEIVABLE."""

    def charge_performance_fee(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Charge a performance fee: PERFORMANCE_FEES / FEES_RECEIVABLE."""

    def pay_fees(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Pay out fees that were charged: FEES_RECEIVABLE / CASH.

        Raises: `InsufficientFunds` above the fees owed.
        """

    def income(
        self,
        amount: Amount,
        *,
        instrument: str | None = None,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book dividends, coupons or interest: CASH / INCOME; negative when a short pays them."""

    def financing(
        self,
        amount: Amount,
        *,
        instrument: str | None = None,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book borrow fees, funding or interest paid: FINANCING / CASH; negative when received."""

    def opening_balances(
        self,
        *,
        cash: Amount,
        positions: Sequence[OpeningPosition] = (),
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book the cash and positions of a fund that already trades, before any other entry."""

    def reverse(
        self,
        seq: int,
        *,
        reason: str,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
    ) -> Posted:
        """Book the opposite of every leg of an entry, once.

        The units of a deposit or a withdrawal are priced at today's NAV per unit instead, so that
        other holders' value does not change.

        Raises: `AlreadyReversed`, `UnknownEntry`; `EntryRefused` for a trade or a price, whose
            opposite is booked instead.
        """

    def correct(
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
        """Reverse entry `seq` and book `entry` instead, both or neither.

        Returns the new entry's `Posted`. Without `at` the reversal has the date of the entry that
        it reverses, or now if that day is closed. Where a deposit or a withdrawal replaces another,
        units are issued for the difference, at today's NAV per unit.
        """

    def close_period(self, day: dt.date | str, *, key: str | None = None, memo: str = "") -> Posted:
        """Book the revenue up to the end of `day` into RETAINED and lock that time.

        The management fee up to now is booked before it.

        Raises: `PeriodClosed`.
        """

    def reopen_period(
        self, day: dt.date | str, *, by: str, reason: str, key: str | None = None
    ) -> Posted:
        """Undo the last close, which must be of `day`.

        The journal keeps both entries, with `reason` and `by`.
        """

    def split(
        self,
        instrument: str,
        ratio: Amount,
        *,
        cash: Amount | None = None,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Multiply the quantity of every open lot of an instrument; lots keep their cost.

        `ratio` is the number of new units for an old one, also as text such as "3:2" or "1:10".
        With `cash` the fraction of a unit that is left is closed for that amount. Without
        `strategy` the lots of all strategies are split.

        Raises: `PositionMismatch` when there are none.
        """

    def rename(
        self,
        instrument: str,
        to: str,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Move every open lot of an instrument to another name, of one strategy or of all.

        Raises: `PositionMismatch` when there are none, or the other is open in the other direction.
        """

    def transfer(
        self,
        instrument: str,
        quantity: Amount,
        *,
        from_strategy: str | None,
        to_strategy: str | None,
        key: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Move the oldest lots of a strategy to another, which pays their cost: no P&L arises.

        The quantity has the sign of the position; None is the fund as a whole.

        Raises: `PositionMismatch`.
        """

    def convert(
        self,
        amount: Amount,
        asset: str,
        to_amount: Amount,
        to_asset: str,
        fee: Amount = 0,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Change cash of one asset into another; the fee is in the asset that is given away.

        Raises: `InsufficientFunds`: CASH of no asset goes below zero.
        """

    def price(
        self,
        asset: str,
        value: Amount,
        *,
        key: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Say what one unit of another asset is worth, in the fund's currency, from `at` on.

        The NAV counts the asset at its last price.
        """

    def post(
        self,
        entry: Event | Correct | Sequence[Leg],
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book an entry of explicit legs, or any event as it is.

        Raises: `UnbalancedEntry`, `UnknownAccount`.
        """

    def post_many(self, entries: Sequence[Event | Correct]) -> tuple[Posted, ...]:
        """Book all of the events in one transaction, or none.

        An error carries their keys as `keys`.
        """

    def import_fills(self, fills: Sequence[Fill]) -> Booked:
        """Book fills that come from a file, by the same checks as those of the engine.

        Each is booked once, by strategy, instrument and id. One that cannot be booked is set aside
        and named in the answer; the others are booked. Their cursors are ignored.
        """

    def skip_report(self, key: str, *, reason: str, by: str) -> AsideReport:
        """Give up a report that was set aside, so that it is not tried and not told again.

        `key` is its key, or its own id where no other report aside has that id. A report of another
        content under the same key is tried again.

        Raises: `UnknownReport`.
        """

    def new_key(self) -> str:
        """A new idempotency key. Keep it before sending, to ask again after a lost answer."""

class SyncPromotion(SyncFace):
    def strategies(self) -> tuple[PromotionSnapshot, ...]:
        """All strategies in the order of their names, without their history."""

    def snapshot(self, strategy_id: str) -> PromotionSnapshot:
        """Stage, days in it, metrics, evaluation, and the last 20 changes."""

    def current_stage(self, strategy_id: str) -> PromotionStage:
        """The strategy's current stage. Raises: `UnknownStrategy`."""

    def evaluate(self, strategy_id: str) -> Evaluation:
        """The rules' present verdict on one strategy. Nothing is written."""

    def should_promote(self, strategy_id: str) -> bool:
        """Whether `promote` would succeed now."""

    def should_demote(self, strategy_id: str) -> bool:
        """Whether a hard limit is breached, or a soft one for long enough."""

    def history(self, strategy_id: str | None = None, limit: int = 50) -> tuple[HistoryEntry, ...]:
        """Changes of one strategy, or of all of them, newest first."""

    def state_as_of(self, t: Instant) -> tuple[StrategyState, ...]:
        """All strategies as they were at an instant, in the order of their names."""

    def require(self, strategy_id: str, *, at_least: PromotionStage) -> PromotionStage:
        """The current stage, if it is `at_least` that. Raises: `StageTooLow`, `UnknownStage`."""

    def entitlement(self, strategy_id: str, budget: Amount | None = None) -> Entitlement:
        """Mode and capital of the current stage, of a full budget.

        A live stage has its part of the budget for real, paper and shadow have all of it as the
        notional that they trade with. Without `budget` it is the one that the strategy was
        registered with, or 100,000.

        Raises: `UnknownStrategy`, `AmountError` for the budget.
        """

    def register(
        self,
        strategy_name: str,
        initial_stage: PromotionStage = PromotionStage.Paper,
        *,
        family: str | None = None,
        budget: Amount | None = None,
        by: str = "operator",
    ) -> str:
        """Register a strategy and return its id; the same name again gives the same id.

        `family` names the idea of which it is a variant: its variants count as trials of one
        another. `budget` is its capital at full size, in units of the currency, of which each stage
        allows a part; None: the fund's capital.

        Raises: `SkipRefused` above shadow, `StrategyRetired`, `MetricError` for a name or `by`,
        `AmountError` for the budget; `Conflict` for another strategy's id, another family or
        another budget.
        """

    def adopt(
        self,
        name: str,
        stage: PromotionStage,
        *,
        by: str,
        reason: str,
        family: str | None = None,
        budget: Amount | None = None,
        over_capital: bool = False,
    ) -> str:
        """Register a strategy that already trades, at any stage; returns its id.

        `family` and `budget` are as in `register`. With `over_capital` the capital of all
        strategies together may exceed `max_total_entitlement_pct`.

        Raises: `Conflict`, `StrategyRetired`, `CapitalExceeded`; `MetricError` for a name, `by`
        or `reason`; `AmountError` for the budget.
        """

    def record_metrics(
        self,
        strategy_id: str,
        stage: PromotionStage,
        metrics: Mapping[str, Any],
        *,
        as_of: Instant | None = None,
        source: str = "",
        cumulative_since: Literal["registration"] | None = None,
    ) -> None:
        """Record the metrics of the current stage so far.

        `returns` or `equity` is a list with one value for each session of the stage, from which
        Sharpe ratio and drawdown are measured. A measured value counts before a recorded one. Among
        records the newest `as_of` counts for each metric, and a worst value such as `max_drawdown`
        never falls. With `cumulative_since="registration"` counts and series began when the
        strategy was registered, and the part before this stage is left out: what was last recorded
        so in the stage before, or else all of the first record in this one.

        Raises: `MetricError` naming the field, `Conflict`.
        """

    def discard_metrics(
        self, strategy_id: str, as_of: Instant, source: str, *, by: str, reason: str
    ) -> None:
        """Discard the records of one instant and source in this stage.

        The records are kept, with the person and the reason, and count no more.

        Raises: `MetricError` where there is none.
        """

    def promote(
        self,
        strategy_id: str,
        *,
        to: PromotionStage | None = None,
        by: str = "operator",
        reason: str = "",
        expected_rev: int | None = None,
        request_id: str | None = None,
        cap: float | None = None,
    ) -> Transition:
        """Promote one stage, if the gate passes now.

        `to` "live" is the next stage with real money. `cap` is the fraction of the budget that it
        may use there; None: all that the stage allows. A repeat with the same `request_id` gives
        the first outcome.

        Raises: `GateNotPassed` with the evaluation, `CapitalExceeded`, `CoolingDown`,
        `StrategyFrozen`, `StrategyRetired`, `SkipRefused`, `StaleRevision`; `Conflict` for a
        `request_id` that asked for something else; `MetricError` for the cap.
        """

    def approve(self, strategy_id: str, *, by: str, cap: float | None = None) -> Transition:
        """Carry out a promotion that is ready. The gate is evaluated again.

        `cap` is as in `promote`. The answer tells the step in real capital.

        Raises: as `promote`.
        """

    def set_cap(self, strategy_id: str, cap: float, *, by: str, reason: str) -> None:
        """Set the fraction of the budget that a strategy may use for real in its stage.

        A lower one is possible at any time, a higher one up to the cap of the stage. It ends with
        the stage.

        Raises: `MetricError` for the cap, `CapitalExceeded`, `StrategyRetired`.
        """

    def demote(
        self,
        strategy_id: str,
        *,
        to: PromotionStage | None = None,
        by: str = "operator",
        reason: str = "",
        expected_rev: int | None = None,
    ) -> Transition:
        """Demote one stage, or to the lower stage `to`. It starts no cooldown.

        Raises: `SkipRefused`, `StaleRevision`, `StrategyRetired`.
        """

    def void(self, transition_seq: int, *, by: str, reason: str) -> Transition:
        """Undo the newest transition of a strategy, once, by its number in the history.

        Stage, evidence, cooldown and the count of demotions are as before it. A record that caused
        a demotion is discarded.

        Raises: `Conflict` for any other line of history, `CapitalExceeded`, `StrategyRetired`;
        `MetricError` for `by` or `reason`.
        """

    def add_gate(self, gate: PromotionGate) -> None:
        """Replace the gate of one transition. It is stored with the policy.

        Raises: `PolicyError` for a gate that makes no sense, `UnknownStage`.
        """

    def freeze(self, strategy_id: str, *, by: str = "operator", reason: str = "") -> None:
        """Forbid promotion until `unfreeze`. Demotion still works.

        A second call changes nothing.
        """

    def unfreeze(self, strategy_id: str, *, by: str = "operator", reason: str = "") -> None:
        """Allow promotion again."""

    def retire(self, strategy_id: str, *, by: str = "operator", reason: str = "") -> None:
        """Retire the strategy. This cannot be undone."""

class SyncAlerts(SyncFace):
    def recent(self, limit: int = 50) -> AlertPage:
        """The newest alerts, newest first, with counts over the whole history."""

    def test(self) -> tuple[ChannelTest, ...]:
        """Send a test alert through each channel, past all limits, and say what became of it.

        It is not part of the history. Empty when the fund has no channel.
        """

    def send(
        self,
        level: Level | str,
        category: Category | str,
        title: str,
        message: str,
        *,
        strategy: str | None = None,
        dedup_key: str | None = None,
    ) -> AlertReceipt:
        """Store an alert; returns once it is durable and does not wait for its delivery.

        Keys of callers are apart from those of the fund's own alerts.

        Raises: `AlertRefused`, also for an unknown level or category.
        """

class SyncRecovery(SyncFace):
    def statuses(self) -> tuple[RecoveryStatus, ...]:
        """The state of recovery of every strategy."""

    def event_history(self, limit: int = 20) -> list[RecoveryEvent]:
        """The newest events, newest first."""

    def stats(self) -> dict[str, int]:
        """Counts by name.

        total_attempts = successes + failures; circuit_breakers_open is a gauge.
        """

    def check_strategies(self) -> tuple[RecoveryEvent, ...]:
        """Check all strategies now instead of at the next tick. Raises: `HostFault`."""

    def check_feeds(self) -> tuple[RecoveryEvent, ...]:
        """Check all data feeds now instead of at the next tick. Raises: `HostFault`."""

    def hold(self, name: str, *, by: str = "operator") -> bool:
        """Restart the strategy no more until `release`; False when it is held already.

        Any `by` is accepted: it is made to fit.
        """

    def release(self, name: str, *, by: str = "operator") -> bool:
        """Allow restarts again; False when the strategy was not held.

        Raises: `UnmanagedStrategy`; `BadRequest` for a `by` that is no name.
        """

    def reset(self, name: str, *, by: str = "operator") -> bool:
        """Close an open breaker; False when it was not open.

        Raises: `UnmanagedStrategy`, which is a KeyError; `BadRequest` for a `by` that is no name.
        """

class SyncKillSwitch(SyncFace):
    def status(self) -> KillStatus:
        """The state of the switch at this instant; while engaged, with its reason, its time and
        its author.
        """

    def engage(self, *, reason: str = "", by: str = "") -> KillStatus:
        """Stop all trading now; returns while the engine is being told.

        The state is ENGAGING until the engine has answered, then ENGAGED, or UNCONFIRMED when it
        did not confirm that it stopped. A switch that is engaged already keeps its first reason.
        Any two values are accepted: they are made to fit after the act.
        """

    def release(
        self,
        *,
        by: str,
        reason: str,
        rearm: Literal["from_current_nav", "keep_peak"] = "from_current_nav",
        accept_open_orders: bool = False,
    ) -> Released:
        """Allow trading again, by a person who gives a name and a reason.

        The answer states the NAV of the next stop, and its distance below the highest peak: each
        release from the present NAV allows a further loss of the whole limit.

        "from_current_nav" measures the drawdown from the present NAV; "keep_peak" keeps the peak,
        so a drawdown that is still over the limit engages the switch again at the next tick.
        Strategies that the switch stopped stay stopped until a person starts them. If the database
        cannot store the release now, the next tick tries again; a restart before that finds the
        switch engaged.

        Raises: `BadRequest` naming the field; `KillSwitchNotEngaged`; `StopNotConfirmed` while the
            engine has not confirmed its stop, unless `accept_open_orders`; `StorageDegraded`.
        """

class AsyncioVerbs(AsyncioFace):
    async def status(self) -> FundStatus:
        """The fund's state as of its last tick."""

    async def why(self, name: str) -> Why:
        """Every blocker between a strategy and real orders, each with the command that lifts it.

        They are in the order of `fundops.wire.why.BlockerKind`. Each fact is read at this moment
        where it lives; a part of the fund that does not answer within 2 s is named in `notes`. An
        unknown name is a blocker too, with similar names.

        Raises: `ConfigError` when `name` is no name.
        """

    async def nav_history(
        self, limit: int = 100, every: Literal["session", "minute"] = "session"
    ) -> tuple[NavSample, ...]:
        """NAV and drawdown at the end of each session or of each minute, newest first.

        Sessions are kept without end, minutes for a month.

        Raises: `ConfigError` for another `every`.
        """

    async def pnl_attribution(self) -> PnlAttribution:
        """The fund's P&L by its sources: each strategy, the ledger, the fund's fees."""

    async def storage(self) -> StorageStatus:
        """Whether the database can be written, the size of its log in bytes, and counters."""

    async def status_port(self) -> int:
        """The port of the status stream. Raises: `UnknownChild` when the configuration has none."""

    async def flush_alerts(self, timeout_s: float) -> bool:
        """Wait until each stored alert was delivered or given up; False after `timeout_s`."""

    async def tick(self, session: dt.date | str | None = None) -> TickReport:
        """Run one round of oversight; returns once its commits are durable.

        It also ends the sessions of the configured calendar that are over. A host that keeps the
        calendar itself names with `session` the one that this tick ends, as an ISO date; the first
        name switches the configured calendar off. No session ends twice, and none before one that
        has ended.

        Raises: `ConfigError` when `session` is no ISO date.
        """

    async def pause(self, name: str, *, by: str, reason: str) -> bool:
        """Pause a strategy until a person resumes it; False: a person has paused it already.

        Its lease ends before this returns: only orders that reduce its positions are allowed. The
        engine is told by a task, and the database afterwards. No promotion and no demotion ends
        the pause, and it survives a restart. It works without real money too.

        Raises: `BadRequest` without a name and a reason; `UnknownStrategy`; `ConfigError` when
            `name` is no name.
        """

    async def resume(self, name: str, *, by: str, reason: str) -> bool:
        """Resume a strategy that a person or the guard paused; False when it was not paused.

        The engine is asked first. The next tick gives the lease.

        Raises: `BadRequest` without a name and a reason; `KillSwitchEngaged`; `HostFault` when the
            engine does not resume it. It then stays paused.
        """

    async def confirm_clock(self, *, by: str, reason: str) -> bool:
        """Take the wall clock as right after a jump (`FundStatus.clock_suspect`).

        Sessions, fees and promotions go on from its time at the next tick. False when it was not
        suspect. `by` names a person.

        Raises: `BadRequest` without a name and a reason.
        """

    async def confirm_counters(self, strategy: str, *, by: str, reason: str) -> bool:
        """Confirm that the engine's counters of a strategy restarted; False: that was not in doubt.

        Raises: `BadRequest` without a name and a reason; `ConfigError` for a strategy that is none.
        """

    async def backup(self, target: str) -> dict[str, str | int]:
        """Copy the database as it is now to the new file `target`; writing goes on meanwhile.

        Raises: `ConfigError` when `target` is no absolute path; `DatabaseError`; OSError.
        """

class AsyncioLedger(AsyncioFace):
    async def balance_sheet(
        self, as_of: Moment | None = None, *, strategy: str | None = None, asset: str | None = None
    ) -> dict[str, Decimal]:
        """Debits minus credits per account.

        A date counts to its end, UTC; an instant is included.
        """

    async def income_statement(
        self,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        strategy: str | None = None,
        asset: str | None = None,
    ) -> dict[str, Decimal]:
        """Income positive, expense negative, both ends included; closing entries are left out."""

    async def trial_balance(
        self, as_of: Moment | None = None, *, strategy: str | None = None, asset: str | None = None
    ) -> dict[str, Decimal]:
        """Debits minus credits of every account, EXTERNAL too; the values sum to zero."""

    async def cash_flow(
        self, start: Moment | None = None, end: Moment | None = None, *, strategy: str | None = None
    ) -> dict[str, Decimal]:
        """Changes of CASH by their purpose; OPENING plus NET is CLOSING."""

    async def nav(self, as_of: Moment | None = None, *, strategy: str | None = None) -> Decimal:
        """The net asset value by the books, with other assets at their last prices.

        An asset without a price is not counted; `prices` names it.
        """

    async def nav_per_unit(self, as_of: Moment | None = None) -> Decimal:
        """The net asset value of one unit, which deposits and withdrawals do not change.

        `trial_balance(asset="UNITS")` gives the number of units.
        """

    async def positions(
        self, as_of: Moment | None = None, *, strategy: str | None = None
    ) -> tuple[LedgerPosition, ...]:
        """The open positions by strategy and instrument, of now or of any time."""

    async def lots(
        self, *, strategy: str | None = None, instrument: str | None = None
    ) -> tuple[LedgerLot, ...]:
        """The open lots by strategy and instrument, oldest first."""

    async def realized(
        self, start: Moment | None = None, end: Moment | None = None, *, by: str = "strategy"
    ) -> dict[str, Decimal]:
        """Realized P&L by "strategy" or by "instrument", both ends included; a gain is positive.

        An empty name stands for what belongs to none. Closing entries are left out.
        """

    async def prices(self, as_of: Moment | None = None) -> dict[str, Decimal | None]:
        """The last price of every other asset.

        None: the fund holds the asset, and the NAV does not count it for want of a price.
        """

    async def entries(
        self,
        *,
        account: str | None = None,
        strategy: str | None = None,
        kind: str | None = None,
        after_seq: int | None = None,
        limit: int = 100,
        key: str | None = None,
        day: dt.date | str | None = None,
        instrument: str | None = None,
    ) -> tuple[Entry, ...]:
        """One page of matching entries, newest first.

        For the next page, pass the `seq` of the last entry as `after_seq`. `instrument` finds the
        entries that moved its lots or name it.

        Raises: `UnknownAccount`, `UnknownStrategy`, `BadField` for a kind that does not exist.
        """

    async def entries_after(self, seq: int = 0, limit: int = 100) -> tuple[JournalLine, ...]:
        """The entries after entry `seq` as they are stored, oldest first: payload and hash.

        SHA-256 over the previous hash and the payload gives the hash; before the first entry it is
        32 zero bytes.
        """

    async def recent_entries(self, limit: int = 20) -> tuple[Entry, ...]:
        """The newest entries, newest first."""

    async def reports_aside(self, limit: int = 100) -> tuple[AsideReport, ...]:
        """The reports of the engine that could not be booked and wait aside, the oldest first."""

    async def reconcile(
        self, statements: Sequence[Statement], *, tolerance: Amount = 0
    ) -> Reconciliation:
        """Compare the books with a broker's statements of some days, all strategies together.

        The answer names the first day on which they differ, the last one before on which the same
        figures agree, the figures, and the entries between. It tells cash and positions apart, as a
        statement may leave one of them out. Differences of CASH up to `tolerance` are none.

        Raises: `BadField`, `AmountError`.
        """

    async def verify(self, level: int = 2, *, anchor: Anchor | None = None) -> Verification:
        """Check the book while booking goes on; returns the findings and repairs nothing.

        Level 0 opens the book; 1 adds SQLite's own check and the trial balance; 2 the whole hash
        chain and everything derived from it; 3 asks those of bean-check, hledger and ledger that
        are installed about the exported book.
        """

    async def deposit(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book money that comes in from outside: CASH / EXTERNAL."""

    async def withdraw(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book money that leaves the fund: EXTERNAL / CASH.

        Before it the fees are booked: the management fee up to now, and the performance fee of the
        units that leave. All of it is one commit.

        Raises: `InsufficientFunds`.
        """

    async def record_profit(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book a realized gain: CASH / REALIZED_PNL."""

    async def record_loss(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book a realized loss, given as a positive amount: REALIZED_PNL / CASH."""

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
        """Book a new lot; a negative quantity is a short, whose cost is received."""

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
        """Close lots, oldest first; the quantity has the sign of the position.

        Raises: `PositionMismatch`.
        """

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
        """Value the whole position; the change since its last mark is booked."""

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

    async def charge_management_fee(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Charge a management fee: MANAGEMENT_FEES / FEES_RECEIVABLE."""

    async def charge_performance_fee(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Charge a performance fee: PERFORMANCE_FEES / FEES_RECEIVABLE."""

    async def pay_fees(
        self,
        amount: Amount,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Pay out fees that were charged: FEES_RECEIVABLE / CASH.

        Raises: `InsufficientFunds` above the fees owed.
        """

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
        """Book dividends, coupons or interest: CASH / INCOME; negative when a short pays them."""

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
        """Book borrow fees, funding or interest paid: FINANCING / CASH; negative when received."""

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
        """Book the cash and positions of a fund that already trades, before any other entry."""

    async def reverse(
        self,
        seq: int,
        *,
        reason: str,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
    ) -> Posted:
        """Book the opposite of every leg of an entry, once.

        The units of a deposit or a withdrawal are priced at today's NAV per unit instead, so that
        other holders' value does not change.

        Raises: `AlreadyReversed`, `UnknownEntry`; `EntryRefused` for a trade or a price, whose
            opposite is booked instead.
        """

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
        """Reverse entry `seq` and book `entry` instead, both or neither.

        Returns the new entry's `Posted`. Without `at` the reversal has the date of the entry that
        it reverses, or now if that day is closed. Where a deposit or a withdrawal replaces another,
        units are issued for the difference, at today's NAV per unit.
        """

    async def close_period(
        self, day: dt.date | str, *, key: str | None = None, memo: str = ""
    ) -> Posted:
        """Book the revenue up to the end of `day` into RETAINED and lock that time.

        The management fee up to now is booked before it.

        Raises: `PeriodClosed`.
        """

    async def reopen_period(
        self, day: dt.date | str, *, by: str, reason: str, key: str | None = None
    ) -> Posted:
        """Undo the last close, which must be of `day`.

        The journal keeps both entries, with `reason` and `by`.
        """

    async def split(
        self,
        instrument: str,
        ratio: Amount,
        *,
        cash: Amount | None = None,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Multiply the quantity of every open lot of an instrument; lots keep their cost.

        `ratio` is the number of new units for an old one, also as text such as "3:2" or "1:10".
        With `cash` the fraction of a unit that is left is closed for that amount. Without
        `strategy` the lots of all strategies are split.

        Raises: `PositionMismatch` when there are none.
        """

    async def rename(
        self,
        instrument: str,
        to: str,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Move every open lot of an instrument to another name, of one strategy or of all.

        Raises: `PositionMismatch` when there are none, or the other is open in the other direction.
        """

    async def transfer(
        self,
        instrument: str,
        quantity: Amount,
        *,
        from_strategy: str | None,
        to_strategy: str | None,
        key: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Move the oldest lots of a strategy to another, which pays their cost: no P&L arises.

        The quantity has the sign of the position; None is the fund as a whole.

        Raises: `PositionMismatch`.
        """

    async def convert(
        self,
        amount: Amount,
        asset: str,
        to_amount: Amount,
        to_asset: str,
        fee: Amount = 0,
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Change cash of one asset into another; the fee is in the asset that is given away.

        Raises: `InsufficientFunds`: CASH of no asset goes below zero.
        """

    async def price(
        self,
        asset: str,
        value: Amount,
        *,
        key: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Say what one unit of another asset is worth, in the fund's currency, from `at` on.

        The NAV counts the asset at its last price.
        """

    async def post(
        self,
        entry: Event | Correct | Sequence[Leg],
        *,
        key: str | None = None,
        strategy: str | None = None,
        at: Instant | None = None,
        memo: str = "",
    ) -> Posted:
        """Book an entry of explicit legs, or any event as it is.

        Raises: `UnbalancedEntry`, `UnknownAccount`.
        """

    async def post_many(self, entries: Sequence[Event | Correct]) -> tuple[Posted, ...]:
        """Book all of the events in one transaction, or none.

        An error carries their keys as `keys`.
        """

    async def import_fills(self, fills: Sequence[Fill]) -> Booked:
        """Book fills that come from a file, by the same checks as those of the engine.

        Each is booked once, by strategy, instrument and id. One that cannot be booked is set aside
        and named in the answer; the others are booked. Their cursors are ignored.
        """

    async def skip_report(self, key: str, *, reason: str, by: str) -> AsideReport:
        """Give up a report that was set aside, so that it is not tried and not told again.

        `key` is its key, or its own id where no other report aside has that id. A report of another
        content under the same key is tried again.

        Raises: `UnknownReport`.
        """

    def new_key(self) -> str:
        """A new idempotency key. Keep it before sending, to ask again after a lost answer."""

class AsyncioPromotion(AsyncioFace):
    async def strategies(self) -> tuple[PromotionSnapshot, ...]:
        """All strategies in the order of their names, without their history."""

    async def snapshot(self, strategy_id: str) -> PromotionSnapshot:
        """Stage, days in it, metrics, evaluation, and the last 20 changes."""

    async def current_stage(self, strategy_id: str) -> PromotionStage:
        """The strategy's current stage. Raises: `UnknownStrategy`."""

    async def evaluate(self, strategy_id: str) -> Evaluation:
        """The rules' present verdict on one strategy. Nothing is written."""

    async def should_promote(self, strategy_id: str) -> bool:
        """Whether `promote` would succeed now."""

    async def should_demote(self, strategy_id: str) -> bool:
        """Whether a hard limit is breached, or a soft one for long enough."""

    async def history(
        self, strategy_id: str | None = None, limit: int = 50
    ) -> tuple[HistoryEntry, ...]:
        """Changes of one strategy, or of all of them, newest first."""

    async def state_as_of(self, t: Instant) -> tuple[StrategyState, ...]:
        """All strategies as they were at an instant, in the order of their names."""

    async def require(self, strategy_id: str, *, at_least: PromotionStage) -> PromotionStage:
        """The current stage, if it is `at_least` that. Raises: `StageTooLow`, `UnknownStage`."""

    async def entitlement(self, strategy_id: str, budget: Amount | None = None) -> Entitlement:
        """Mode and capital of the current stage, of a full budget.

        A live stage has its part of the budget for real, paper and shadow have all of it as the
        notional that they trade with. Without `budget` it is the one that the strategy was
        registered with, or 100,000.

        Raises: `UnknownStrategy`, `AmountError` for the budget.
        """

    async def register(
        self,
        strategy_name: str,
        initial_stage: PromotionStage = PromotionStage.Paper,
        *,
        family: str | None = None,
        budget: Amount | None = None,
        by: str = "operator",
    ) -> str:
        """Register a strategy and return its id; the same name again gives the same id.

        `family` names the idea of which it is a variant: its variants count as trials of one
        another. `budget` is its capital at full size, in units of the currency, of which each stage
        allows a part; None: the fund's capital.

        Raises: `SkipRefused` above shadow, `StrategyRetired`, `MetricError` for a name or `by`,
        `AmountError` for the budget; `Conflict` for another strategy's id, another family or
        another budget.
        """

    async def adopt(
        self,
        name: str,
        stage: PromotionStage,
        *,
        by: str,
        reason: str,
        family: str | None = None,
        budget: Amount | None = None,
        over_capital: bool = False,
    ) -> str:
        """Register a strategy that already trades, at any stage; returns its id.

        `family` and `budget` are as in `register`. With `over_capital` the capital of all
        strategies together may exceed `max_total_entitlement_pct`.

        Raises: `Conflict`, `StrategyRetired`, `CapitalExceeded`; `MetricError` for a name, `by`
        or `reason`; `AmountError` for the budget.
        """

    async def record_metrics(
        self,
        strategy_id: str,
        stage: PromotionStage,
        metrics: Mapping[str, Any],
        *,
        as_of: Instant | None = None,
        source: str = "",
        cumulative_since: Literal["registration"] | None = None,
    ) -> None:
        """Record the metrics of the current stage so far.

        `returns` or `equity` is a list with one value for each session of the stage, from which
        Sharpe ratio and drawdown are measured. A measured value counts before a recorded one. Among
        records the newest `as_of` counts for each metric, and a worst value such as `max_drawdown`
        never falls. With `cumulative_since="registration"` counts and series began when the
        strategy was registered, and the part before this stage is left out: what was last recorded
        so in the stage before, or else all of the first record in this one.

        Raises: `MetricError` naming the field, `Conflict`.
        """

    async def discard_metrics(
        self, strategy_id: str, as_of: Instant, source: str, *, by: str, reason: str
    ) -> None:
        """Discard the records of one instant and source in this stage.

        The records are kept, with the person and the reason, and count no more.

        Raises: `MetricError` where there is none.
        """

    async def promote(
        self,
        strategy_id: str,
        *,
        to: PromotionStage | None = None,
        by: str = "operator",
        reason: str = "",
        expected_rev: int | None = None,
        request_id: str | None = None,
        cap: float | None = None,
    ) -> Transition:
        """Promote one stage, if the gate passes now.

        `to` "live" is the next stage with real money. `cap` is the fraction of the budget that it
        may use there; None: all that the stage allows. A repeat with the same `request_id` gives
        the first outcome.

        Raises: `GateNotPassed` with the evaluation, `CapitalExceeded`, `CoolingDown`,
        `StrategyFrozen`, `StrategyRetired`, `SkipRefused`, `StaleRevision`; `Conflict` for a
        `request_id` that asked for something else; `MetricError` for the cap.
        """

    async def approve(self, strategy_id: str, *, by: str, cap: float | None = None) -> Transition:
        """Carry out a promotion that is ready. The gate is evaluated again.

        `cap` is as in `promote`. The answer tells the step in real capital.

        Raises: as `promote`.
        """

    async def set_cap(self, strategy_id: str, cap: float, *, by: str, reason: str) -> None:
        """Set the fraction of the budget that a strategy may use for real in its stage.

        A lower one is possible at any time, a higher one up to the cap of the stage. It ends with
        the stage.

        Raises: `MetricError` for the cap, `CapitalExceeded`, `StrategyRetired`.
        """

    async def demote(
        self,
        strategy_id: str,
        *,
        to: PromotionStage | None = None,
        by: str = "operator",
        reason: str = "",
        expected_rev: int | None = None,
    ) -> Transition:
        """Demote one stage, or to the lower stage `to`. It starts no cooldown.

        Raises: `SkipRefused`, `StaleRevision`, `StrategyRetired`.
        """

    async def void(self, transition_seq: int, *, by: str, reason: str) -> Transition:
        """Undo the newest transition of a strategy, once, by its number in the history.

        Stage, evidence, cooldown and the count of demotions are as before it. A record that caused
        a demotion is discarded.

        Raises: `Conflict` for any other line of history, `CapitalExceeded`, `StrategyRetired`;
        `MetricError` for `by` or `reason`.
        """

    async def add_gate(self, gate: PromotionGate) -> None:
        """Replace the gate of one transition. It is stored with the policy.

        Raises: `PolicyError` for a gate that makes no sense, `UnknownStage`.
        """

    async def freeze(self, strategy_id: str, *, by: str = "operator", reason: str = "") -> None:
        """Forbid promotion until `unfreeze`. Demotion still works.

        A second call changes nothing.
        """

    async def unfreeze(self, strategy_id: str, *, by: str = "operator", reason: str = "") -> None:
        """Allow promotion again."""

    async def retire(self, strategy_id: str, *, by: str = "operator", reason: str = "") -> None:
        """Retire the strategy. This cannot be undone."""

class AsyncioAlerts(AsyncioFace):
    async def recent(self, limit: int = 50) -> AlertPage:
        """The newest alerts, newest first, with counts over the whole history."""

    async def test(self) -> tuple[ChannelTest, ...]:
        """Send a test alert through each channel, past all limits, and say what became of it.

        It is not part of the history. Empty when the fund has no channel.
        """

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
        """Store an alert; returns once it is durable and does not wait for its delivery.

        Keys of callers are apart from those of the fund's own alerts.

        Raises: `AlertRefused`, also for an unknown level or category.
        """

class AsyncioRecovery(AsyncioFace):
    async def statuses(self) -> tuple[RecoveryStatus, ...]:
        """The state of recovery of every strategy."""

    async def event_history(self, limit: int = 20) -> list[RecoveryEvent]:
        """The newest events, newest first."""

    async def stats(self) -> dict[str, int]:
        """Counts by name.

        total_attempts = successes + failures; circuit_breakers_open is a gauge.
        """

    async def check_strategies(self) -> tuple[RecoveryEvent, ...]:
        """Check all strategies now instead of at the next tick. Raises: `HostFault`."""

    async def check_feeds(self) -> tuple[RecoveryEvent, ...]:
        """Check all data feeds now instead of at the next tick. Raises: `HostFault`."""

    async def hold(self, name: str, *, by: str = "operator") -> bool:
        """Restart the strategy no more until `release`; False when it is held already.

        Any `by` is accepted: it is made to fit.
        """

    async def release(self, name: str, *, by: str = "operator") -> bool:
        """Allow restarts again; False when the strategy was not held.

        Raises: `UnmanagedStrategy`; `BadRequest` for a `by` that is no name.
        """

    async def reset(self, name: str, *, by: str = "operator") -> bool:
        """Close an open breaker; False when it was not open.

        Raises: `UnmanagedStrategy`, which is a KeyError; `BadRequest` for a `by` that is no name.
        """

class AsyncioKillSwitch(AsyncioFace):
    async def status(self) -> KillStatus:
        """The state of the switch at this instant; while engaged, with its reason, its time and
        its author.
        """

    async def engage(self, *, reason: str = "", by: str = "") -> KillStatus:
        """Stop all trading now; returns while the engine is being told.

        The state is ENGAGING until the engine has answered, then ENGAGED, or UNCONFIRMED when it
        did not confirm that it stopped. A switch that is engaged already keeps its first reason.
        Any two values are accepted: they are made to fit after the act.
        """

    async def release(
        self,
        *,
        by: str,
        reason: str,
        rearm: Literal["from_current_nav", "keep_peak"] = "from_current_nav",
        accept_open_orders: bool = False,
    ) -> Released:
        """Allow trading again, by a person who gives a name and a reason.

        The answer states the NAV of the next stop, and its distance below the highest peak: each
        release from the present NAV allows a further loss of the whole limit.

        "from_current_nav" measures the drawdown from the present NAV; "keep_peak" keeps the peak,
        so a drawdown that is still over the limit engages the switch again at the next tick.
        Strategies that the switch stopped stay stopped until a person starts them. If the database
        cannot store the release now, the next tick tries again; a restart before that finds the
        switch engaged.

        Raises: `BadRequest` naming the field; `KillSwitchNotEngaged`; `StopNotConfirmed` while the
            engine has not confirmed its stop, unless `accept_open_orders`; `StorageDegraded`.
        """
