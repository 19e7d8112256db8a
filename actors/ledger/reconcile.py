"""The books compared with a broker's statements: on which day, and by how much, they part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...runtime import shown
from ...wire.errors import BadField
from ...wire.ledger import Break, Compared, Reconciliation, Statement
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
    agreed: tuple[str, str] = ("", ""),
) -> Reconciliation:
    """Compare the end of each stated day with the books of that day, all strategies together.

    `agreed` are the last days on which cash and positions of earlier statements agreed; "": none.

    Raises: `BadField`, `AmountError` naming the statement that cannot be read.
    """
    stated = _checked(statements)
    slack = to_minor(tolerance, "tolerance").minor
    cash = history.cash_changes(rows, currency)
    quantities = history.quantity_changes(rows)
    days = sorted({*stated, *cash, *quantities})
    held_cash, held = 0, dict[str, int]()
    found = dict[str, _Found]()
    for day in days:
        held_cash += cash.get(day, 0)
        for instrument, change in quantities.get(day, {}).items():
            held[instrument] = held.get(instrument, 0) + change
        if day in stated:
            stated_cash, stated_positions = stated[day]
            found[day] = _Found(
                _cash_breaks(held_cash, stated_cash, slack),
                _position_breaks(held, stated_positions),
            )
    return _answer(rows, found, agreed)


class _Found(NamedTuple):
    """The differences of one day, by kind; None for a kind that is not stated."""

    cash: list[Break] | None
    positions: list[Break] | None


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


def _cash_breaks(books: int, stated: int | None, slack: int) -> list[Break] | None:
    if stated is None:
        return None
    if abs(books - stated) <= slack:
        return []
    return [Break(CASH, from_minor(books), from_minor(stated))]


def _position_breaks(
    held: Mapping[str, int], stated: Mapping[str, int] | None
) -> list[Break] | None:
    if stated is None:
        return None
    return [
        Break(instrument, from_minor(books), from_minor(statement))
        for instrument in sorted({*held, *stated})
        if (books := held.get(instrument, 0)) != (statement := stated.get(instrument, 0))
    ]


def _compared(found: Mapping[str, list[Break] | None], known: str) -> Compared:
    stated = {day: breaks for day, breaks in found.items() if breaks is not None}
    differs = min((day for day, breaks in stated.items() if breaks), default=None)
    agreeing = (known, *(day for day, breaks in stated.items() if not breaks))
    agreed = max(day for day in ("", *agreeing) if differs is None or day < differs)
    return Compared(len(stated), agreed or None, differs)


def _answer(rows: Rows, found: Mapping[str, _Found], known: tuple[str, str]) -> Reconciliation:
    kinds = (
        _compared({day: one.cash for day, one in found.items()}, known[0]),
        _compared({day: one.positions for day, one in found.items()}, known[1]),
    )
    breaks = {
        day: [*(one.cash or ()), *(one.positions or ())]
        for day, one in found.items()
        if one != (None, None)
    }
    differing = [day for day, figures in breaks.items() if figures]
    if not differing:
        agreed = max((kind.agreed or "" for kind in kinds if kind.days), default="")
        return Reconciliation(len(breaks), agreed or None, None, cash=kinds[0], positions=kinds[1])
    first, *later = differing
    # Of the kinds that differ: the others say nothing of the entries to look at.
    agreed = min(kind.agreed or "" for kind in kinds if kind.differs == first)
    between, left_out = history.entries_between(rows, agreed, first, ENTRIES_MAX)
    return Reconciliation(
        len(breaks),
        agreed or None,
        first,
        tuple(breaks[first]),
        between,
        left_out,
        tuple(later),
        *kinds,
    )
