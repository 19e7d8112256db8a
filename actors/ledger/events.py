"""How each kind of event is booked: the legs it debits and credits, and the lots it moves.

A long file that is one table in code: one case for each kind of event, over the same `Plan`.

Lots are used first in, first out per strategy and instrument, by the order of booking. A refusal is
an exception of the `Rejected` family; nothing is changed here, an event only fills its `Plan`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeGuard

from ...wire.errors import (
    AlreadyReversed,
    AmountError,
    EntryRefused,
    InsufficientFunds,
    PositionMismatch,
    UnbalancedEntry,
    UnknownAccount,
    UnknownEntry,
)
from ...wire.ledger import (
    BookFill,
    BookSettlement,
    ChargeManagementFee,
    ChargePerformanceFee,
    ClosePeriod,
    ClosePosition,
    Deposit,
    Event,
    Financing,
    Income,
    Mark,
    OpeningBalances,
    OpenPosition,
    PayFees,
    Post,
    Price,
    RecordLoss,
    RecordProfit,
    ReopenPeriod,
    Reverse,
    Settle,
    Withdraw,
)
from ...wire.money import (
    Amount,
    exact_decimal,
    from_minor,
    product_minor,
    rounded_decimal,
    share,
    to_minor,
)
from .accounts import (
    ACCOUNTS,
    CASH,
    EXTERNAL,
    FEES_RECEIVABLE,
    FINANCING,
    HOLDERS,
    INCOME,
    MANAGEMENT_FEES,
    MARKS,
    PERFORMANCE_FEES,
    POSITIONS,
    REALIZED_PNL,
    RETAINED,
    REVENUE,
    TRADING_FEES,
    UNITS,
    UNREALIZED_PNL,
    units_of_flow,
)
from .entry import (
    BalanceKey,
    Balances,
    Close,
    Entry,
    Lot,
    LotImage,
    LotKey,
    Lots,
    Original,
    Posting,
    kind_of,
)

__all__ = [
    "MOVES",
    "Flow",
    "Move",
    "Plan",
    "Rules",
    "State",
    "are_moves",
    "book_event",
    "check_balanced",
    "close",
    "flow_of",
    "memo_of",
    "not_zero",
    "transfer",
]


class Rules(NamedTuple):
    """Booking rules that a fund may choose."""

    floats: str = "round"  # "round" to the scale, or "refuse"
    # By account: the minor units that a withdrawal, a fee payment or an explicit post must leave in
    # it.
    floors: Mapping[str, int] = MappingProxyType({})


class State(Protocol):
    """The state of the book that an event is decided on."""

    @property
    def currency(self) -> str:
        """The fund's currency, in which amounts without an asset are."""
        ...

    @property
    def rules(self) -> Rules:
        """The rules of this book."""
        ...

    @property
    def seq(self) -> int:
        """The number of the newest entry; 0 in an empty book."""
        ...

    @property
    def closes(self) -> tuple[Close, ...]:
        """The closed periods, oldest first."""
        ...

    def total(self, account: str) -> int:
        """The balance of an account over all strategies, in minor units of the fund's currency."""
        ...

    def total_in(self, account: str, asset: str) -> int:
        """The balance of an account over all strategies, in minor units of an asset."""
        ...

    def worth(self) -> tuple[int, int]:
        """Net asset value in minor units, and units in issue."""
        ...

    def open_lots(self, key: LotKey) -> Lots:
        """Open lots by id, oldest first."""
        ...

    def holders(self, instrument: str) -> list[str | None]:
        """The strategies that have open lots of an instrument."""
        ...

    def original(self, seq: int) -> Original | None:
        """The entry with this seq, for a reversal."""
        ...

    def as_of(self, day: str) -> Balances:
        """Every balance at the end of `day`."""
        ...


class Flow(NamedTuple):
    """A deposit, or a withdrawal when negative, and the worth of the fund that prices it."""

    amount: int
    strategy: str | None
    worth: tuple[int, int]  # net asset value in minor units, and units in issue


class Plan:
    """The legs and lot changes of one entry while it is being decided."""

    def __init__(
        self,
        state: State,
        strategy: str | None,
        *,
        reported: bool = False,
        replaced: Flow | None = None,
        moves_units: bool = True,
    ) -> None:
        self.state = state
        # Whose lots and legs are meant where none is named. An event about several strategies sets
        # it to one after the other.
        self.strategy = strategy
        # A reported event has happened already: its figures are rounded, no floor refuses it.
        self.reported = reported
        # In a correction of a flow by a flow, the new entry moves the units for the difference
        # and the reversal moves none.
        self.replaced = replaced
        self.moves_units = moves_units
        self.price: tuple[str, Decimal] | None = None  # of one unit of an asset
        self.rounded = False  # a figure was rounded to the scale
        self.reverses: int | None = None
        self._legs: dict[BalanceKey, int] = {}
        # By strategy and instrument, then by id. Id 0 is the lot that this entry opens: its seq is
        # not known yet.
        self._lots: dict[LotKey, dict[int, Lot]] = {}

    def minor(self, value: Amount, field: str, *, at_least: int | None = None) -> int:
        """Minor units of an amount, which is > 0 when `at_least` is 1. Raises: `AmountError`."""
        if self.reported and isinstance(value, Decimal):
            exact, value = value, rounded_decimal(value)
            self.rounded |= value != exact
        minor, rounded = to_minor(value, field, floats=self.state.rules.floats)
        self.rounded |= rounded
        if at_least is not None and minor < at_least:
            raise AmountError(field, value, "must be greater than zero")
        return minor

    def factor(self, value: Amount, field: str) -> Decimal:
        """A factor of a product, with every digit that was given. Raises: `AmountError`."""
        return exact_decimal(value, field, floats=self.state.rules.floats)

    def post(
        self, account: str, amount: int, *, strategy: str | None = None, asset: str | None = None
    ) -> None:
        """Add a leg, by default of the entry's strategy and in the fund's currency."""
        self.post_to((account, strategy or self.strategy, asset or self.state.currency), amount)

    def post_to(self, key: BalanceKey, amount: int) -> None:
        """Add a leg to exactly this balance, even when it has no strategy and the entry has one."""
        self._legs[key] = self._legs.get(key, 0) + amount

    def legs(self) -> tuple[Posting, ...]:
        """The legs that are not zero, one per balance."""
        return tuple([(*key, amount) for key, amount in self._legs.items() if amount])

    def lots(self, instrument: str) -> list[Lot]:
        """The open lots of this entry's strategy, oldest first."""
        key = (self.strategy, instrument)
        before, here = self.state.open_lots(key), self._lots.get(key)
        if not here:
            return list(before.values())
        return [lot for lot in {**before, **here}.values() if lot.quantity]

    def side(self, instrument: str) -> int:
        """The quantity of the oldest open lot, or 0: all open lots have its sign."""
        key = (self.strategy, instrument)
        lots = self.lots(instrument) if key in self._lots else self.state.open_lots(key).values()
        oldest = next(iter(lots), None)
        return 0 if oldest is None else oldest.quantity

    def set_lot(self, instrument: str, lot: Lot, *, strategy: str | None = None) -> None:
        """Put a lot into its new state; id 0 opens one, quantity 0 closes it."""
        self._lots.setdefault((strategy or self.strategy, instrument), {})[lot.id] = lot

    def images(self, seq: int) -> Iterator[LotImage]:
        """The new state of every lot that this entry, whose number is `seq`, has moved."""
        for (strategy, instrument), lots in self._lots.items():
            for lot in lots.values():
                yield LotImage(
                    strategy,
                    instrument,
                    lot.id or seq,
                    lot.quantity,
                    lot.cost_minor,
                    lot.mark_minor,
                )

    def keep_floor(self, account: str, floor: int, asset: str | None = None) -> None:
        """Raises: `InsufficientFunds` when these legs would take the account below its floor.

        The account is that of the fund's currency, or of another asset.
        """
        asset = asset or self.state.currency
        taken = -self.moved(account, asset)
        available = self.state.total_in(account, asset) - floor
        if taken > 0 and taken > available:
            raise InsufficientFunds(account, from_minor(taken), from_minor(available))

    def moved(self, account: str, asset: str) -> int:
        """The sum of the legs of an account in an asset."""
        return sum(
            amount
            for (name, _, unit), amount in self._legs.items()
            if name == account and unit == asset
        )

    def keep_cash(self) -> None:
        """`keep_floor` of CASH, in each asset that these legs take out of the fund."""
        for asset in {asset for account, _, asset in self._legs if account == EXTERNAL}:
            if self.moved(EXTERNAL, asset) > 0:
                self.keep_floor(CASH, self.floor(CASH, asset), asset)

    def keep_owed(self) -> None:
        """Raises: `InsufficientFunds` when these legs pay more fees out of CASH than are owed."""
        currency = self.state.currency
        paid = self.moved(FEES_RECEIVABLE, currency)
        if paid <= 0 or self.moved(CASH, currency) >= 0:
            return
        owed = max(0, -self.state.total(FEES_RECEIVABLE))
        if paid > owed:
            raise InsufficientFunds(FEES_RECEIVABLE, from_minor(paid), from_minor(owed))

    def floor(self, account: str, asset: str) -> int:
        """The least that a withdrawal must leave, in minor units of the asset."""
        # The rules of a fund are about its own currency.
        return self.state.rules.floors.get(account, 0) if asset == self.state.currency else 0

    def keep_floors(self) -> None:
        """`keep_floor` for each floor of the fund's rules."""
        for account, floor in self.state.rules.floors.items():
            self.keep_floor(account, floor)


# Events that only move their amount from one account to another, which is always possible.
Move = RecordProfit | RecordLoss | ChargeManagementFee | ChargePerformanceFee
MOVES: Mapping[type, tuple[str, str]] = {  # debit, credit
    RecordProfit: (CASH, REALIZED_PNL),
    RecordLoss: (REALIZED_PNL, CASH),
    ChargeManagementFee: (MANAGEMENT_FEES, FEES_RECEIVABLE),
    ChargePerformanceFee: (PERFORMANCE_FEES, FEES_RECEIVABLE),
}


def are_moves(events: Sequence[object]) -> TypeGuard[Sequence[Move]]:
    """Whether all of these events only move their amount."""
    return MOVES.keys() >= {type(event) for event in events}


def book_event(event: Event, plan: Plan) -> None:
    """Fill the plan with the legs and lots of an event.

    Raises: `AmountError`, `UnknownAccount`, `InsufficientFunds`, `PositionMismatch`,
        `AlreadyReversed`, `UnknownEntry`, `EntryRefused`.
    """
    match event:
        case Deposit():
            amount = plan.minor(event.amount, "amount", at_least=1)
            transfer(plan, CASH, EXTERNAL, amount)
            _price_flow(plan, amount)
        case Withdraw():
            amount = plan.minor(event.amount, "amount", at_least=1)
            transfer(plan, EXTERNAL, CASH, amount)
            _price_flow(plan, -amount)
            if not plan.reported:
                plan.keep_floors()
                plan.keep_cash()
        case OpenPosition():
            quantity = _quantity(plan, event.quantity)
            cost = plan.minor(event.cost, "cost")
            _fee(plan, plan.minor(event.fee, "fee"))
            _open(plan, event.instrument, quantity, cost)
        case ClosePosition():
            quantity = _quantity(plan, event.quantity)
            proceeds = plan.minor(event.proceeds, "proceeds")
            _fee(plan, plan.minor(event.fee, "fee"))
            close(plan, event.instrument, quantity, proceeds)
        case Mark():
            _mark(plan, event.instrument, plan.minor(event.value, "value"))
        case Settle():
            quantity = sum(lot.quantity for lot in plan.lots(event.market))
            if not quantity:
                raise PositionMismatch(event.market, event.strategy, "there is none to settle")
            payoff = plan.minor(event.payoff, "payoff")
            close(plan, event.market, quantity, payoff)
        case RecordProfit() | RecordLoss() | ChargeManagementFee() | ChargePerformanceFee():
            transfer(plan, *MOVES[type(event)], plan.minor(event.amount, "amount", at_least=1))
        case PayFees():
            amount = plan.minor(event.amount, "amount", at_least=1)
            owed = max(0, -plan.state.total(FEES_RECEIVABLE))
            if amount > owed:
                raise InsufficientFunds(FEES_RECEIVABLE, from_minor(amount), from_minor(owed))
            transfer(plan, FEES_RECEIVABLE, CASH, amount)
            plan.keep_floors()
        case Income():
            transfer(plan, CASH, INCOME, not_zero(plan, event.amount, "amount"))
        case Financing():
            transfer(plan, FINANCING, CASH, not_zero(plan, event.amount, "amount"))
        case OpeningBalances():
            _opening(plan, event)
        case Reverse():
            _reverse(plan, event)
        case ClosePeriod():
            for (account, strategy, asset), amount in plan.state.as_of(event.day).items():
                if account in REVENUE:
                    plan.post_to((account, strategy, asset), -amount)
                    plan.post_to((RETAINED, strategy, asset), amount)
        case ReopenPeriod():
            _negate(plan, plan.state.closes[-1].seq)
        case Post():
            for leg in event.legs:
                if leg.account not in ACCOUNTS:
                    raise UnknownAccount(leg.account)
                amount = plan.minor(leg.amount, "leg")
                plan.post(leg.account, amount, strategy=leg.strategy, asset=leg.asset)
            plan.keep_floors()
            plan.keep_cash()
            plan.keep_owed()
        case BookFill():
            _fill(plan, event)
        case BookSettlement():
            _market_settlement(plan, event)


def memo_of(event: Event) -> str:
    """The memo of the event's entry: for a reversal or a reopening, its reason."""
    if isinstance(event, ReopenPeriod):
        return f"{event.reason} (by {event.by})"
    return event.reason if isinstance(event, Reverse) else event.memo


def check_balanced(legs: Sequence[Posting]) -> None:
    """Check that there are at least two legs, whose sum is zero per asset.

    Raises: `UnbalancedEntry`.
    """
    if len(legs) < 2:
        raise UnbalancedEntry(
            f"an entry needs at least two legs that are not zero; this one has {len(legs)}"
        )
    sums: dict[str, int] = {}
    for _, _, asset, amount in legs:
        sums[asset] = sums.get(asset, 0) + amount
    for asset, total in sums.items():
        if total:
            raise UnbalancedEntry(f"legs in {asset} sum to {from_minor(total)}, not to zero")


# -- the parts that events share


def transfer(plan: Plan, debit: str, credit: str, amount: int) -> None:
    """Add the two legs that move an amount of the fund's currency between two accounts."""
    plan.post(debit, amount)
    plan.post(credit, -amount)


def _fee(plan: Plan, fee: int, asset: str | None = None) -> None:
    """A fee that was paid, in the fund's currency by default; a negative one was received."""
    if asset == UNITS:
        raise EntryRefused(f"fee_asset: {UNITS!r} are the fund's own shares, which pay no fee")
    plan.post(TRADING_FEES, fee, asset=asset)
    plan.post(CASH, -fee, asset=asset)


def _price_flow(plan: Plan, amount: int) -> None:
    """Issue the units of a deposit, or redeem those of a withdrawal, whose amount is negative.

    Both are priced at the current NAV per unit, so other holders' value does not change. A
    backdated flow is priced when it is booked too: at a price of the past it would take the
    difference from the other holders. For the same reason a flow that replaces another moves the
    units of the difference alone.
    """
    replaced = plan.replaced
    if replaced is None:
        _issue(plan, plan.strategy, units_of_flow(amount, *plan.state.worth()))
        return
    if replaced.strategy != plan.strategy:
        units = units_of_flow(replaced.amount, *replaced.worth)
        _issue(plan, replaced.strategy, -units)
        _issue(plan, plan.strategy, units)
    _issue(plan, plan.strategy, units_of_flow(amount - replaced.amount, *replaced.worth))


def _issue(plan: Plan, strategy: str | None, units: int) -> None:
    """Issue units, or redeem them when negative."""
    plan.post_to((HOLDERS, strategy, UNITS), units)
    plan.post_to((UNITS, strategy, UNITS), -units)


def _quantity(plan: Plan, value: Amount) -> int:
    return not_zero(plan, value, "quantity")


def not_zero(plan: Plan, value: Amount, field: str) -> int:
    """Minor units of `value`, of either sign. Raises: `AmountError`."""
    minor = plan.minor(value, field)
    if not minor:
        raise AmountError(field, value, "must not be zero")
    return minor


# -- positions


def _opening(plan: Plan, event: OpeningBalances) -> None:
    """Take the book from the capital to the fund's holdings.

    The difference was earned before the book began, so it goes to RETAINED.
    """
    state = plan.state
    first = state.original(1) if state.seq else None
    if state.seq > 1 or (first is not None and first.entry.kind != kind_of(Deposit)):
        raise EntryRefused(
            "opening balances come first, after the capital alone: "
            f"the book already ends at entry {state.seq}"
        )
    change = plan.minor(event.cash, "cash") - state.total(CASH)
    plan.post(CASH, change)
    earned = change
    seen: set[LotKey] = set()
    for position in event.positions:
        quantity = _quantity(plan, position.quantity)
        cost = plan.minor(position.cost, "cost")
        value = cost
        if position.value is not None:
            value = plan.minor(position.value, "value")
        sign = 1 if quantity > 0 else -1
        strategy = position.strategy or event.strategy
        if (strategy, position.instrument) in seen:
            raise PositionMismatch(position.instrument, strategy, "is given twice")
        seen.add((strategy, position.instrument))
        lot = Lot(0, quantity, sign * cost, sign * (value - cost))
        plan.set_lot(position.instrument, lot, strategy=strategy)
        plan.post(POSITIONS, lot.cost_minor, strategy=strategy)
        plan.post(MARKS, lot.mark_minor, strategy=strategy)
        earned += sign * value
    plan.post(RETAINED, -earned)


def _open(plan: Plan, instrument: str, quantity: int, cost: int) -> None:
    """A long position pays its cost; a short one receives it, and has the opposite value."""
    if plan.side(instrument) * quantity < 0:
        raise PositionMismatch(
            instrument, plan.strategy, "is open in the other direction; close it first"
        )
    signed_cost = cost if quantity > 0 else -cost
    transfer(plan, POSITIONS, CASH, signed_cost)
    plan.set_lot(instrument, Lot(0, quantity, signed_cost, 0))


def close(plan: Plan, instrument: str, quantity: int, proceeds: int) -> None:
    """Close the oldest lots first.

    Their cost leaves POSITIONS, the difference to the proceeds is realized, their marks are
    reversed.
    """
    lots = plan.lots(instrument)
    held = sum(lot.quantity for lot in lots)
    if held * quantity <= 0 or abs(quantity) > abs(held):
        have, want = from_minor(held), from_minor(quantity)
        raise PositionMismatch(instrument, plan.strategy, f"holds {have}, cannot close {want}")
    left, cost, marks = quantity, 0, 0
    for lot in lots:
        if not left:
            break
        taken = left if abs(left) < abs(lot.quantity) else lot.quantity
        # The last slice of a lot takes all that rounding left over, so no minor unit is lost or
        # made.
        lot_cost = share(lot.cost_minor, taken, lot.quantity)
        lot_mark = share(lot.mark_minor, taken, lot.quantity)
        cost, marks, left = cost + lot_cost, marks + lot_mark, left - taken
        rest = Lot(
            lot.id, lot.quantity - taken, lot.cost_minor - lot_cost, lot.mark_minor - lot_mark
        )
        plan.set_lot(instrument, rest)
    received = proceeds if quantity > 0 else -proceeds
    plan.post(CASH, received)
    plan.post(POSITIONS, -cost)
    plan.post(REALIZED_PNL, cost - received)
    transfer(plan, UNREALIZED_PNL, MARKS, marks)


def _mark(plan: Plan, instrument: str, value: int) -> None:
    """Book the change since the last mark; the value is spread over the lots by quantity."""
    lots = plan.lots(instrument)
    held = sum(lot.quantity for lot in lots)
    if not held:
        raise PositionMismatch(instrument, plan.strategy, "there is none to mark")
    left = value if held > 0 else -value
    change = 0
    for lot in lots:
        worth = share(left, lot.quantity, held)
        left, held = left - worth, held - lot.quantity
        change += worth - lot.cost_minor - lot.mark_minor
        plan.set_lot(instrument, lot._replace(mark_minor=worth - lot.cost_minor))
    transfer(plan, MARKS, UNREALIZED_PNL, change)


def _fill(plan: Plan, fill: BookFill) -> None:
    """Close the opposite position as far as the fill goes, and open a position with the rest."""
    exact, price = plan.factor(fill.quantity, "quantity"), plan.factor(fill.price, "price")
    quantity = _units(plan, exact)
    _fee(plan, plan.minor(fill.fee, "fee"), fill.fee_asset)
    value, rounded = product_minor(abs(exact), price)
    plan.rounded |= rounded
    closed, closing = 0, 0
    if plan.side(fill.instrument) * quantity < 0:
        held = sum(lot.quantity for lot in plan.lots(fill.instrument))
        closing = quantity if abs(quantity) <= abs(held) else -held
        # A trade is rounded once: the opened part gets the value that the closed part leaves.
        closed = share(value, closing, quantity)
        # A close has the sign of the position: selling 5 of a long closes +5.
        close(plan, fill.instrument, -closing, closed)
    if quantity - closing:
        _open(plan, fill.instrument, quantity - closing, value - closed)


def _units(plan: Plan, quantity: Decimal) -> int:
    """The quantity that the lots count: rounded to the scale, and not zero."""
    if not quantity:
        raise AmountError("quantity", quantity, "must not be zero")
    if quantity.adjusted() > 18:
        raise AmountError("quantity", quantity, "is larger than 2^62 minor units")
    rounded = rounded_decimal(quantity)
    plan.rounded |= rounded != quantity
    if not rounded:
        raise AmountError("quantity", quantity, "is less than the smallest unit, 0.00000001")
    return to_minor(rounded, "quantity").minor


def _market_settlement(plan: Plan, event: BookSettlement) -> None:
    cost, payoff = plan.minor(event.cost, "cost"), plan.minor(event.payoff, "payoff")
    received = payoff if event.paid is None else payoff - plan.minor(event.paid, "paid")
    held = sum(lot.quantity for lot in plan.lots(event.market))
    if held:
        # The payoff is signed like CASH, the proceeds of a close like the position.
        close(plan, event.market, held, received if held > 0 else -received)
    elif event.paid is not None:
        transfer(plan, CASH, REALIZED_PNL, received)
    else:
        transfer(plan, CASH, REALIZED_PNL, payoff - cost)


# -- reversals


def _reverse(plan: Plan, event: Reverse) -> None:
    original = plan.state.original(event.seq) if 0 < event.seq <= plan.state.seq else None
    if original is None:
        raise UnknownEntry(event.seq)
    if original.reversed_by is not None:
        raise AlreadyReversed(event.seq, original.reversed_by)
    kind = original.entry.kind
    if kind in ("period_close", "period_reopen"):
        raise EntryRefused(
            f"entry {event.seq} is a {kind}; reopen the period instead of reversing it"
        )
    if kind == kind_of(Price):
        raise EntryRefused(
            f"entry {event.seq} is a price; book another price of that time instead of reversing it"
        )
    if original.entry.lots:
        raise EntryRefused(
            f"entry {event.seq} moved lots; book the opposite trade instead of reversing it"
        )
    amount = flow_of(plan.state, original.entry)
    if amount is None:
        _negate(plan, event.seq)
        return
    plan.reverses = event.seq
    for account, strategy, asset, minor in original.entry.legs:
        if asset != UNITS:
            plan.post_to((account, strategy, asset), -minor)
    if plan.moves_units:
        units = units_of_flow(-amount, *plan.state.worth())
        _issue(plan, original.entry.strategy, units)


def flow_of(state: State, entry: Entry) -> int | None:
    """The amount that an entry brought in from outside; negative: that it paid out.

    None for an entry that is neither a deposit nor a withdrawal, nor the reversal of one.
    """
    source: Entry | None = entry
    while source is not None and source.kind == kind_of(Reverse) and source.reverses is not None:
        original = state.original(source.reverses)
        source = None if original is None else original.entry
    if source is None or source.kind not in (kind_of(Deposit), kind_of(Withdraw)):
        return None
    return -sum(
        amount
        for account, _, asset, amount in entry.legs
        if account == EXTERNAL and asset == state.currency
    )


def _negate(plan: Plan, seq: int) -> None:
    original = plan.state.original(seq)
    assert original is not None
    plan.reverses = seq
    for account, strategy, asset, amount in original.entry.legs:
        plan.post_to((account, strategy, asset), -amount)
