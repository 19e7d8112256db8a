"""The books compared with a broker's statements: on which day, and by how much, they part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...runtime import shown
from ...wire.errors import BadField
from ...wire.ledger import Break, Reconciliation, Statement
from ...wire.money import Amount, from_minor, to_minor
from ..persistence import Rows
from . import history
from .accounts import CASH
from .fields import NAME_MAX, check_text, is_day

__all__ = ["reconcile"]

# Entries that an answer carries; it says how many more there are.
ENTRIES_MAX = 1_000


def reconcile(
    rows: Rows,
    statements: Sequence[Statement],
    currency: str,
    tolerance: Amount = 0,
    agreed: str | None = None,
) -> Reconciliation:
    """Compare the end of each stated day with the books of that day, all strategies together.

    `agreed` is the last day on which an earlier statement agreed, if there is one.

    Raises: `BadField`, `AmountError` naming the statement that cannot be read.
    """
    stated = _checked(statements)
    slack = to_minor(tolerance, "tolerance").minor
    cash = history.cash_changes(rows, currency)
    quantities = history.quantity_changes(rows)
    days = sorted({*stated, *cash, *quantities})
    held_cash, held = 0, dict[str, int]()
    breaks: dict[str, tuple[Break, ...]] = {}
    for day in days:
        held_cash += cash.get(day, 0)
        for instrument, change in quantities.get(day, {}).items():
            held[instrument] = held.get(instrument, 0) + change
        if day in stated:
            breaks[day] = tuple(_breaks(stated[day], held_cash, held, slack))
    return _answer(rows, breaks, agreed)


_Stated = tuple[int | None, Mapping[str, int] | None]  # cash, and quantities by instrument


def _checked(statements: Sequence[Statement]) -> dict[str, _Stated]:
    stated: dict[str, _Stated] = {}
    for number, statement in enumerate(statements):
        if not isinstance(statement, Statement):
            raise BadField(f"statements[{number}]", f"{shown(statement)} is not a Statement")
        day = statement.day
        if not is_day(day):
            raise BadField("day", f"{shown(day)} is not a date as YYYY-MM-DD")
        if day in stated:
            raise BadField("day", f"{day} is stated twice")
        cash = None if statement.cash is None else to_minor(statement.cash, f"{day} cash").minor
        stated[day] = (cash, _quantities(day, statement.positions))
    return stated


def _quantities(day: str, positions: Mapping[str, Amount] | None) -> Mapping[str, int] | None:
    if positions is None:
        return None
    if not isinstance(positions, Mapping):
        raise BadField("positions", f"{shown(positions)} is not a mapping of quantities")
    for instrument in positions:
        check_text("instrument", instrument, NAME_MAX)
    return {
        instrument: to_minor(quantity, f"{day} {instrument}").minor
        for instrument, quantity in positions.items()
    }


def _breaks(stated: _Stated, cash: int, held: Mapping[str, int], slack: int) -> list[Break]:
    stated_cash, stated_quantities = stated
    found = []
    if stated_cash is not None and abs(cash - stated_cash) > slack:
        found.append(Break(CASH, from_minor(cash), from_minor(stated_cash)))
    if stated_quantities is not None:
        for instrument in sorted({*held, *stated_quantities}):
            books, statement = held.get(instrument, 0), stated_quantities.get(instrument, 0)
            if books != statement:
                found.append(Break(instrument, from_minor(books), from_minor(statement)))
    return found


def _answer(
    rows: Rows, breaks: Mapping[str, tuple[Break, ...]], known: str | None
) -> Reconciliation:
    days = sorted(breaks)
    differing = [day for day in days if breaks[day]]
    if not differing:
        return Reconciliation(len(days), days[-1] if days else None, None)
    first = differing[0]
    before = [day for day in (*days, known) if day is not None and day < first]
    agreed = max(before, default=None)
    between, left_out = history.entries_between(rows, agreed or "", first, ENTRIES_MAX)
    return Reconciliation(
        len(days), agreed, first, breaks[first], between, left_out, tuple(differing[1:])
    )
