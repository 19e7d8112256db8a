"""Corporate actions, moves between strategies, and other assets: how each of them is booked.

A lot keeps its id wherever it goes, so it keeps its place in the order of booking. Where two parts
of one lot meet again, they become one lot. Nothing is changed here: an action only fills its
`Plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from ...wire.errors import AmountError, BadField, PositionMismatch
from ...wire.ledger import Convert, Price, Rename, Split, Transfer
from ...wire.money import MINOR_MAX, MINOR_PER_UNIT, from_minor, share, to_ratio
from .accounts import CASH, CONVERSIONS, MARKS, POSITIONS, TRADING_FEES, UNITS, UNREALIZED_PNL
from .entry import Lot
from .events import Plan, close, not_zero, transfer

# The largest price, in the fund's currency.
PRICE_MAX = from_minor(MINOR_MAX)

__all__ = ["ACTIONS", "Action", "book_action"]

Action = Split | Rename | Transfer | Convert | Price
# The same as a tuple, which is quicker to ask for.
ACTIONS = (Split, Rename, Transfer, Convert, Price)


def book_action(event: Action, plan: Plan) -> None:
    """Fill the plan with the legs and lots of an event.

    Raises: `AmountError`, `BadField`, `InsufficientFunds`, `PositionMismatch`.
    """
    match event:
        case Split():
            _split(plan, event)
        case Rename():
            _rename(plan, event)
        case Transfer():
            _transfer(plan, event)
        case Convert():
            _convert(plan, event)
        case Price():
            _check_other("asset", event.asset, plan)
            value = plan.factor(event.value, "value")
            if not 0 <= value <= PRICE_MAX:
                problem = "must not be negative" if value < 0 else "is larger than 2^62 minor units"
                raise AmountError("value", value, problem)
            plan.price = (event.asset, value)


# -- corporate actions


def _holders(plan: Plan, instrument: str, strategy: str | None) -> list[str | None]:
    """The strategies that an action is about: the one that it names, or all that have lots."""
    holders = plan.state.holders(instrument)
    holders = holders if strategy is None else [name for name in holders if name == strategy]
    if not holders:
        raise PositionMismatch(instrument, strategy, "there is none")
    return holders


def _split(plan: Plan, event: Split) -> None:
    holders = _holders(plan, event.instrument, event.strategy)
    ratio = to_ratio(event.ratio, floats=plan.state.rules.floats)
    if event.cash is not None and len(holders) > 1:
        problem = "is paid to one strategy, but several hold the instrument: name one by strategy"
        raise AmountError("cash", event.cash, problem)
    for strategy in holders:
        plan.strategy = strategy
        lots = list(plan.lots(event.instrument))
        held = sum(lot.quantity for lot in lots)
        left = _multiplied(held, ratio, event)
        if event.cash is not None:
            _check_fraction(left, event)
        for lot in lots:
            # The last lot takes what rounding left over, so the position is rounded once.
            quantity = share(left, lot.quantity, held)
            if not quantity:
                problem = "would leave a lot of less than 0.00000001"
                raise AmountError("ratio", event.ratio, problem)
            left, held = left - quantity, held - lot.quantity
            plan.set_lot(event.instrument, lot._replace(quantity=quantity))
    if event.cash is not None:
        cash = plan.minor(event.cash, "cash", at_least=0)
        held = sum(lot.quantity for lot in plan.lots(event.instrument))
        whole = abs(held) // MINOR_PER_UNIT * MINOR_PER_UNIT
        close(plan, event.instrument, held - (whole if held > 0 else -whole), cash)


def _multiplied(held: int, ratio: Fraction, event: Split) -> int:
    quantity = share(held, ratio.numerator, ratio.denominator)
    if abs(quantity) > MINOR_MAX:
        problem = "would make a quantity of more than 2^62 minor units"
        raise AmountError("ratio", event.ratio, problem)
    return quantity


def _check_fraction(held: int, event: Split) -> None:
    if not held % MINOR_PER_UNIT:
        problem = "is for the fraction of a unit, and none is left"
        raise AmountError("cash", event.cash, problem)


def _rename(plan: Plan, event: Rename) -> None:
    if event.to == event.instrument:
        raise BadField("to", f"{event.to!r} is the name that it has")
    for strategy in _holders(plan, event.instrument, event.strategy):
        plan.strategy = strategy
        moved = {lot.id: lot for lot in plan.lots(event.instrument)}
        for lot in moved.values():
            plan.set_lot(event.instrument, Lot(lot.id, 0, 0, 0))
        _take_in(plan, event.to, moved)


def _take_in(plan: Plan, instrument: str, moved: Mapping[int, Lot]) -> None:
    """Add lots to those that the plan's strategy has of an instrument."""
    side = plan.side(instrument)
    if any(side * lot.quantity < 0 for lot in moved.values()):
        raise PositionMismatch(
            instrument, plan.strategy, "is open in the other direction; close it first"
        )
    here = {lot.id: lot for lot in plan.lots(instrument)}
    for lot in moved.values():
        same = here.get(lot.id, Lot(lot.id, 0, 0, 0))
        quantity = same.quantity + lot.quantity
        if abs(quantity) > MINOR_MAX:
            problem = "would make a lot of more than 2^62 minor units"
            raise AmountError("quantity", from_minor(lot.quantity), problem)
        whole = Lot(
            lot.id, quantity, same.cost_minor + lot.cost_minor, same.mark_minor + lot.mark_minor
        )
        plan.set_lot(instrument, whole)


# -- between strategies


def _transfer(plan: Plan, event: Transfer) -> None:
    """The oldest lots move with their cost, which their new strategy pays; their marks move too."""
    if event.from_strategy == event.to_strategy:
        raise BadField("to_strategy", f"{event.to_strategy!r} is the strategy that has the lots")
    wanted = not_zero(plan, event.quantity, "quantity")
    plan.strategy = event.from_strategy
    lots = plan.lots(event.instrument)
    held = sum(lot.quantity for lot in lots)
    if held * wanted <= 0 or abs(wanted) > abs(held):
        problem = f"holds {from_minor(held):f}, cannot give {from_minor(wanted):f}"
        raise PositionMismatch(event.instrument, event.from_strategy, problem)
    moved: dict[int, Lot] = {}
    for lot in lots:
        if not wanted:
            break
        quantity = wanted if abs(wanted) < abs(lot.quantity) else lot.quantity
        part = Lot(
            lot.id,
            quantity,
            share(lot.cost_minor, quantity, lot.quantity),
            share(lot.mark_minor, quantity, lot.quantity),
        )
        rest = [whole - taken for whole, taken in zip(lot[1:], part[1:], strict=True)]
        plan.set_lot(event.instrument, Lot(lot.id, *rest))
        moved[lot.id] = part
        wanted -= quantity
    cost = sum(lot.cost_minor for lot in moved.values())
    mark = sum(lot.mark_minor for lot in moved.values())
    for strategy, sign in ((event.from_strategy, -1), (event.to_strategy, 1)):
        plan.strategy = strategy
        transfer(plan, POSITIONS, CASH, sign * cost)
        transfer(plan, MARKS, UNREALIZED_PNL, sign * mark)
    _take_in(plan, event.instrument, moved)


# -- other assets


def _convert(plan: Plan, event: Convert) -> None:
    if event.asset == event.to_asset:
        raise BadField("to_asset", f"{event.to_asset!r} is the asset that is given away")
    for field in ("asset", "to_asset"):
        _check_money(field, getattr(event, field))
    given = plan.minor(event.amount, "amount", at_least=1)
    received = plan.minor(event.to_amount, "to_amount", at_least=1)
    fee = plan.minor(event.fee, "fee")
    for asset, amount in ((event.asset, -given), (event.to_asset, received)):
        plan.post(CASH, amount, asset=asset)
        plan.post(CONVERSIONS, -amount, asset=asset)
    plan.post(TRADING_FEES, fee, asset=event.asset)
    plan.post(CASH, -fee, asset=event.asset)
    plan.keep_floors()
    plan.keep_floor(CASH, plan.floor(CASH, event.asset), event.asset)


def _check_money(field: str, asset: str) -> None:
    if asset == UNITS:
        raise BadField(field, f"{asset!r} are shares in the fund, which only flows move")


def _check_other(field: str, asset: str, plan: Plan) -> None:
    _check_money(field, asset)
    if asset == plan.state.currency:
        raise BadField(field, f"{asset!r} is the fund's currency, whose price is always 1")
