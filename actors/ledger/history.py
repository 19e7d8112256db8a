"""Questions that are answered from the entries themselves: pages of them, lots, realized P&L.

An entry stores the state of each lot that it moved, so the holdings of any day are the sum of the
changes that count up to that day, whenever they were booked. Such a question goes through the
journal once and keeps one figure per lot in memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, get_args

import msgspec

from ...runtime import shown
from ...wire.errors import BadField, UnknownAccount, UnknownStrategy
from ...wire.ledger import Entry as EntryRecord
from ...wire.ledger import Event, JournalLine, LedgerLot, LedgerPosition, Leg
from ...wire.money import from_minor
from ..persistence import Rows
from .accounts import ACCOUNTS, CASH, REALIZED_PNL
from .entry import Entry, kind_of, utc_day
from .schema import Moment

__all__ = [
    "KINDS",
    "cash_changes",
    "check_account",
    "check_asset",
    "check_kind",
    "check_strategy",
    "entries",
    "entries_after",
    "entries_between",
    "lots",
    "positions",
    "quantity_changes",
    "realized",
]

# Every kind of entry there is.
KINDS = frozenset(map(kind_of, get_args(Event)))

_decode = msgspec.json.Decoder(Entry).decode

# A quote inside a text is escaped, so these find no text of a caller.
_MOVED_LOTS = """instr(payload, '"lots":[]') = 0"""
_REALIZED = """instr(payload, '["REALIZED_PNL",') > 0"""


# -- names in a question: an unknown one would be answered with zeros


def check_account(account: str) -> None:
    """Raises: `UnknownAccount`."""
    if account not in ACCOUNTS:
        raise UnknownAccount(account)


def check_kind(kind: str) -> None:
    """Raises: `BadField`."""
    if kind not in KINDS:
        raise BadField("kind", f"there is no kind {shown(kind)}; known: {', '.join(sorted(KINDS))}")


def check_strategy(rows: Rows, strategy: str) -> None:
    """Raises: `UnknownStrategy` when neither the book nor the list of strategies has it."""
    # The last place is the slowest, and asked only for a name that is in none of the others.
    for place in (
        "balance WHERE strategy = ?",
        "lot WHERE strategy = ?",
        "promotions WHERE strategy = ?",
        "entry WHERE strategy = ?",
    ):
        if rows.row(f"SELECT 1 FROM {place} LIMIT 1", (strategy,)) is not None:
            return
    raise UnknownStrategy(strategy)


def check_asset(rows: Rows, asset: str, known: frozenset[str]) -> None:
    """Raises: `BadField` when no entry has moved the asset, and it is not among the `known`."""
    moved = rows.row("SELECT 1 FROM balance WHERE asset = ? LIMIT 1", (asset,)) is not None
    if not moved and asset not in known:
        raise BadField("asset", f"the book has no asset {shown(asset)}")


# -- entries


def entries(
    rows: Rows,
    *,
    account: str | None = None,
    strategy: str | None = None,
    kind: str | None = None,
    before_seq: int | None = None,
    limit: int,
    key: str | None = None,
    day: str | None = None,
    instrument: str | None = None,
) -> tuple[EntryRecord, ...]:
    """One page of the entries that match, newest first, from those before entry `before_seq`."""
    posted = "EXISTS (SELECT 1 FROM posting WHERE entry = seq AND posting."
    terms: list[tuple[str, object]] = [
        ("seq < ?", before_seq),
        ("kind = ?", kind),
        ("key = ?", key),
        ("day = ?", day),
        (f"{posted}account = ?)", account),
    ]
    wanted = [(term, value) for term, value in terms if value is not None]
    where = ["TRUE", *(term for term, _ in wanted)]
    bindings: list[Any] = [value for _, value in wanted]
    if strategy is not None:
        where.append(f"(e.strategy = ? OR {posted}strategy = ?))")
        bindings += [strategy, strategy]
    found: list[EntryRecord] = []
    # Only the terms that are asked for: an OR with NULL would keep SQLite from using an index.
    sql = f"SELECT payload, hash FROM entry AS e WHERE {' AND '.join(where)} ORDER BY seq DESC"
    if instrument is None:
        page = rows.rows(f"{sql} LIMIT ?", (*bindings, limit))
        return tuple(_record(_decode(payload), head) for payload, head in page)
    for payload, head in rows.each(sql, tuple(bindings)) if limit else ():
        entry = _decode(payload)
        if instrument in _instruments(entry):
            found.append(_record(entry, head))
            if len(found) == limit:
                break
    return tuple(found)


def entries_after(rows: Rows, seq: int, limit: int) -> tuple[JournalLine, ...]:
    """The entries after entry `seq`, oldest first, as they are stored."""
    page = rows.rows(
        "SELECT seq, payload, hash FROM entry WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit)
    )
    return tuple(JournalLine(number, payload, head.hex()) for number, payload, head in page)


def entries_between(
    rows: Rows, after: str, to: str, limit: int
) -> tuple[tuple[EntryRecord, ...], int]:
    """The newest entries dated after one day and up to another, and how many older ones there are.

    Newest first.
    """
    count = rows.row("SELECT count(*) FROM entry WHERE day > ? AND day <= ?", (after, to))[0]
    page = rows.rows(
        "SELECT payload, hash FROM entry WHERE day > ? AND day <= ? ORDER BY seq DESC LIMIT ?",
        (after, to, limit),
    )
    return tuple(_record(_decode(payload), head) for payload, head in page), count - len(page)


def _instruments(entry: Entry) -> set[str]:
    """The instruments whose lots an entry moved, or which its request names."""
    return {image.instrument for image in entry.lots} | set(_named_in(entry.request))


def _named_in(request: str) -> Iterator[str]:
    if not request:
        return
    _, content = msgspec.json.decode(request)
    if "entry" in content:  # a correction holds the event that it books
        _, content = content["entry"]
    for field in ("instrument", "market", "to"):
        if content.get(field) is not None:
            yield content[field]


def _record(entry: Entry, head: bytes) -> EntryRecord:
    return EntryRecord(
        seq=entry.seq,
        key=entry.key,
        recorded_us=entry.recorded_us,
        day=entry.day,
        kind=entry.kind,
        strategy=entry.strategy,
        legs=tuple(
            Leg(account, from_minor(minor), strategy, asset)
            for account, strategy, asset, minor in entry.legs
        ),
        reverses=entry.reverses,
        memo=entry.memo,
        hash=head.hex(),
        corrects=entry.corrects,
    )


def _counts(entry: Entry, start: Moment, end: Moment) -> bool:
    """Whether an entry lies between two times, both inclusive."""
    at_us = entry.recorded_us if entry.at_us is None else entry.at_us
    for moment, sign in ((start, 1), (end, -1)):
        if moment is None:
            continue
        day = moment if isinstance(moment, str) else utc_day(moment)
        if entry.day != day:
            outside = (entry.day < day) if sign > 0 else (entry.day > day)
        else:
            outside = isinstance(moment, int) and sign * at_us < sign * moment
        if outside:
            return False
    return True


# -- lots and positions


def lots(rows: Rows, strategy: str | None, instrument: str | None) -> tuple[LedgerLot, ...]:
    """The open lots by strategy and instrument, oldest first."""
    found = rows.rows(
        "SELECT lot.strategy, instrument, id, day, quantity, cost_minor, mark_minor "
        "FROM lot JOIN entry ON seq = id "
        "WHERE (?1 IS NULL OR lot.strategy = ?1) AND (?2 IS NULL OR instrument = ?2) "
        "ORDER BY lot.strategy, instrument, id",
        (strategy, instrument),
    )
    return tuple(
        LedgerLot(
            owner or None, name, id_, day, from_minor(quantity), from_minor(cost),
            from_minor(cost + mark),
        )
        for owner, name, id_, day, quantity, cost, mark in found
    )  # fmt: skip


def positions(rows: Rows, as_of: Moment, strategy: str | None) -> tuple[LedgerPosition, ...]:
    """The open positions by strategy and instrument, at the end of a day or at an instant."""
    held: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for owner, instrument, figures in (
        _lots_now(rows) if as_of is None else _lot_changes(rows, as_of)
    ):
        if strategy in (None, owner):
            position = held[owner, instrument]
            for column, figure in enumerate(figures):
                position[column] += figure
    return tuple(
        LedgerPosition(
            owner or None, instrument, from_minor(quantity), from_minor(cost),
            from_minor(cost + mark),
        )
        for (owner, instrument), (quantity, cost, mark) in sorted(held.items())
        if quantity or cost or mark
    )  # fmt: skip


def _lots_now(rows: Rows) -> Iterator[tuple[str, str, tuple[int, int, int]]]:
    for owner, instrument, *figures in rows.each(
        "SELECT strategy, instrument, quantity, cost_minor, mark_minor FROM lot"
    ):
        yield owner, instrument, tuple(figures)


def _lot_changes(rows: Rows, as_of: Moment) -> Iterator[tuple[str, str, tuple[int, int, int]]]:
    for entry, owner, instrument, figures in _changes(rows):
        if _counts(entry, None, as_of):
            yield owner, instrument, figures


def _changes(rows: Rows) -> Iterator[tuple[Entry, str, str, tuple[int, int, int]]]:
    """Each change of a lot: entry, strategy or "", instrument; quantity, cost and mark."""
    open_lots: dict[tuple[str, str, int], tuple[int, int, int]] = {}
    for (payload,) in rows.each(f"SELECT payload FROM entry WHERE {_MOVED_LOTS} ORDER BY seq"):
        entry = _decode(payload)
        for strategy, instrument, id_, quantity, cost, mark in entry.lots:
            key = (strategy or "", instrument, id_)
            before = open_lots.get(key, (0, 0, 0))
            change = (quantity - before[0], cost - before[1], mark - before[2])
            if quantity:
                open_lots[key] = (quantity, cost, mark)
            else:
                open_lots.pop(key, None)
            yield entry, *key[:2], change


def quantity_changes(rows: Rows) -> dict[str, dict[str, int]]:
    """By day and instrument, how much the quantity held by all strategies changed."""
    days: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for entry, _, instrument, (quantity, _, _) in _changes(rows):
        days[entry.day][instrument] += quantity
    return days


def cash_changes(rows: Rows, currency: str) -> dict[str, int]:
    """By day, how much CASH in the fund's currency changed, in minor units."""
    days: dict[str, int] = defaultdict(int)
    for day, amount in rows.each(
        "SELECT day, amount_minor FROM balance_day WHERE account = ? AND asset = ?",
        (CASH, currency),
    ):
        days[day] += amount
    return days


# -- realized P&L


def realized(
    rows: Rows, start: Moment, end: Moment, by_instrument: bool, currency: str
) -> dict[str, Decimal]:
    """Realized P&L by strategy or by instrument, a gain positive; "" for what belongs to none."""
    totals: dict[str, int] = defaultdict(int)
    sql = f"SELECT payload FROM entry WHERE {_REALIZED} AND kind NOT LIKE 'period%' ORDER BY seq"
    for (payload,) in rows.each(sql):
        entry = _decode(payload)
        if not _counts(entry, start, end):
            continue
        instrument = _instrument_of(rows, entry) if by_instrument else ""
        for account, strategy, asset, minor in entry.legs:
            if account == REALIZED_PNL and asset == currency:
                totals[instrument if by_instrument else strategy or ""] -= minor
    return {name: from_minor(minor) for name, minor in sorted(totals.items())}


def _instrument_of(rows: Rows, entry: Entry) -> str:
    """The instrument of a trade; of a reversal, that of the entry that it reverses."""
    while entry.reverses is not None:
        entry = _decode(rows.row("SELECT payload FROM entry WHERE seq = ?", (entry.reverses,))[0])
    return min(_instruments(entry), default="")
