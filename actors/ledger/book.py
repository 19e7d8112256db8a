"""The book and drafts on top of it: decisions first, durable second, applied third.

One file, although a long one: a draft reads through to the book, and the book applies drafts.

`Draft` decides a run of events on top of a book without touching it. Once its entries are durable,
the book takes them over with `apply`. A refusal is an exception of the `Rejected` family and leaves
the draft as it was. Amounts are int minor units; there is no I/O, no clock and no task here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import NamedTuple

from ...wire.errors import AmountError, BadField, EntryRefused, PeriodClosed
from ...wire.ledger import (
    BookFill,
    BookSettlement,
    ClosePeriod,
    Correct,
    Deposit,
    Event,
    ExternalFlow,
    Price,
    ReopenPeriod,
    Reverse,
    Withdraw,
)
from ...wire.money import MINOR_MAX, from_minor, to_minor, to_minors
from .accounts import (
    CASH,
    FEES,
    REVENUE,
    UNITS,
    WORTH,
    in_asset,
    net_asset_value,
    units_in_issue,
    worth_by_asset,
)
from .actions import ACTIONS, book_action
from .entry import (
    GENESIS,
    SELF_DESCRIBING,
    BalanceKey,
    Balances,
    Close,
    Entry,
    Lot,
    LotKey,
    Lots,
    Original,
    Posting,
    Sealed,
    amount_of,
    canonical,
    chain_hash,
    content_of,
    encode_payloads,
    kind_of,
    utc_day,
)
from .events import (
    MOVES,
    Flow,
    Move,
    Plan,
    Rules,
    book_event,
    check_balanced,
    flow_of,
    memo_of,
)
from .fields import (
    KEY_MAX,
    MEMO_MAX,
    NAME_MAX,
    are_ascii_texts,
    check_fields,
    check_time,
    is_instant,
    is_time,
)
from .flows import FLOWS_KEPT, flow_among, others_worth
from .keys import SETTLEMENT, reversal_key_of

__all__ = ["RUN", "Book", "Draft", "PriceAt", "Settled", "settled_by"]

# Entries, legs or lots that are worked on in one go. They take some milliseconds, where handing
# work to a thread and back takes a quarter of one.
RUN = 1_024

# A market may pay its cost and a period may have been quiet; a reversal may undo either. A price
# moves nothing.
_MAY_HAVE_NO_LEGS = (BookSettlement, ClosePeriod, Price, ReopenPeriod, Reverse)


class PriceAt(NamedTuple):
    """The price of an asset from an instant on."""

    at_us: int
    value: Decimal  # of one unit, in the fund's currency, with every digit that was given


class Settled(NamedTuple):
    """The settlement of a strategy's market that the engine has reported."""

    seq: int  # of its newest entry
    # When it was booked first. A later fill is of a market of the same name that trades again.
    at_us: int
    paid_minor: int  # that all its entries have paid into CASH
    # The position that they have closed, in minor units; 0: none was left of the trades. None: by
    # an earlier version, which did not note it.
    held: int | None


def settled_by(entry: Entry, before: Callable[[LotKey], Settled | None]) -> dict[LotKey, Settled]:
    """The market that an entry settles, if any; `before` gives the settlements so far."""
    if entry.kind != kind_of(BookSettlement) or not entry.key.startswith(SETTLEMENT):
        return {}
    content = content_of(entry)
    key = (entry.strategy, content["market"])
    first = None if content.get("paid") is None else before(key)
    at_us, paid_minor, held = (entry.recorded_us, 0, 0) if first is None else first[1:]
    paid_minor += sum(amount for account, _, _, amount in entry.legs if account == CASH)
    if entry.lots:
        noted = content.get("held")
        held = None if noted is None else to_minor(amount_of(noted)).minor
    return {key: Settled(entry.seq, at_us, paid_minor, held)}


class Book:
    """The durable state: balances, open lots, closed periods, and the end of the journal."""

    def __init__(
        self,
        currency: str,
        balances: Mapping[BalanceKey, int] | None = None,
        lots: Mapping[LotKey, Sequence[Lot]] | None = None,
        seq: int = 0,
        head: bytes = GENESIS,
        closes: Sequence[Close] = (),
        prices: Mapping[str, PriceAt] | None = None,
        closed: Balances | None = None,
        settled: Mapping[LotKey, Settled] | None = None,
    ) -> None:
        self.currency = currency
        # Oldest first. Nothing is booked on the day of the last one or before.
        self.closes = tuple(closes)
        self.balances: dict[BalanceKey, int] = dict(balances or {})
        self.lots: dict[LotKey, Lots] = {
            key: {lot.id: lot for lot in of_key} for key, of_key in (lots or {}).items()
        }
        self.seq = seq
        self.head = head  # the hash of the last entry
        self.totals = in_asset(self.balances, currency)  # by account
        self.units = units_in_issue(self.balances)
        # By asset other than the currency: the amount held, and its last price.
        self.worths = worth_by_asset(self.balances, currency)
        self.prices: dict[str, PriceAt] = dict(prices or {})
        # Of each revenue account, the amount that period closes have moved into RETAINED.
        self.closed: dict[BalanceKey, int] = dict(closed or {})
        self.flows: tuple[ExternalFlow, ...] = ()  # the newest ones, oldest first
        self.settled: dict[LotKey, Settled] = dict(settled or {})

    def total(self, account: str) -> int:
        """The balance of an account over all strategies, in minor units of the fund's currency."""
        return self.totals.get(account, 0)

    def balance(self, key: BalanceKey) -> int:
        """One balance, in minor units of its asset."""
        return self.balances.get(key, 0)

    def total_in(self, account: str, asset: str) -> int:
        """The balance of an account over all strategies, in minor units of an asset."""
        if asset == self.currency:
            return self.total(account)
        return in_asset(self.balances, asset).get(account, 0)

    def open_lots(self, key: LotKey) -> Lots:
        """Open lots by id, oldest first."""
        return self.lots.get(key, {})

    def settlement_of(self, key: LotKey) -> Settled | None:
        """The reported settlement of a strategy's market; None: it is not settled."""
        return self.settled.get(key)

    def holders(self, instrument: str) -> list[str | None]:
        """The strategies that have open lots of an instrument, by name; the fund itself first."""
        return sorted((owner for owner, name in self.lots if name == instrument), key=_name_order)

    def net_asset_value(self) -> int:
        """Minor units of all assets, those of other assets at their last price."""
        return net_asset_value(self.totals) + others_worth(self.worths, self.prices)

    def unpriced(self) -> tuple[str, ...]:
        """The assets that the fund has and `net_asset_value` does not count."""
        held = (asset for asset, amount in self.worths.items() if amount)
        return tuple(sorted(asset for asset in held if asset not in self.prices))

    def fees_charged(self) -> int:
        """Management and performance fees since the book began, closed periods included."""
        closed = (amount for (account, _, _), amount in self.closed.items() if account in FEES)
        return sum(self.total(account) for account in FEES) + sum(closed)

    def apply(self, draft: Draft) -> None:
        """Take over the entries of a draft, which must be durable by now."""
        self.balances.update(draft.balances)
        self.totals.update(draft.totals)
        for key, lots in draft.lots.items():
            if lots:
                self.lots[key] = lots
            else:
                self.lots.pop(key, None)
        self.settled.update(draft.settled)
        self.seq, self.closes, self.units = draft.seq, draft.closes, draft.units
        self.worths, self.prices, self.closed = draft.worths, draft.prices, draft.closed
        if draft.flows:
            self.flows = (*self.flows, *draft.flows)[-FLOWS_KEPT:]
        if draft.sealed:
            last, _, self.head = draft.sealed[-1]
            assert last.seq == draft.seq, "decided after it was sealed"


class Draft:
    """Decisions on top of a book, or of another draft, that are not durable yet.

    `original` looks up a durable entry for a reversal; `as_of` looks up the durable balances at the
    end of a day, for a close.
    """

    def __init__(
        self,
        base: Book | Draft,
        original: Callable[[int], Original | None],
        as_of: Callable[[str], Balances] = lambda _: {},
        rules: Rules = Rules(),  # noqa: B008  immutable
    ) -> None:
        self.base = base
        self.rules = rules
        self.closes: tuple[Close, ...] = base.closes
        self._original = original
        self._as_of = as_of
        self.currency: str = base.currency
        self.seq: int = base.seq
        self.units: int = base.units
        # Only the balances, totals and lots that these entries have moved, in their new state.
        self.balances: dict[BalanceKey, int] = {}
        self.totals: dict[str, int] = {}
        self.lots: dict[LotKey, dict[int, Lot]] = {}
        self.settled: dict[LotKey, Settled] = {}  # by these entries alone
        # Other assets are few, so these two are copied whole.
        self.worths: dict[str, int] = dict(base.worths)
        self.prices: dict[str, PriceAt] = dict(base.prices)
        self.closed: dict[BalanceKey, int] = base.closed  # copied by the rare entry that changes it
        self.entries: list[Entry] = []
        self.flows: list[ExternalFlow] = []  # of these entries
        self._reversals: dict[int, int] = {}  # by reversed entry: its reversal in this draft

    # -- reading through to the base

    def total(self, account: str) -> int:
        """As `Book.total`, with the entries of this draft."""
        return self.totals[account] if account in self.totals else self.base.total(account)

    def balance(self, key: BalanceKey) -> int:
        """As `Book.balance`, with the entries of this draft."""
        return self.balances[key] if key in self.balances else self.base.balance(key)

    def open_lots(self, key: LotKey) -> Lots:
        """As `Book.open_lots`, with the entries of this draft."""
        return self.lots[key] if key in self.lots else self.base.open_lots(key)

    def settlement_of(self, key: LotKey) -> Settled | None:
        """As `Book.settlement_of`, with the entries of this draft."""
        return self.settled.get(key) or self.base.settlement_of(key)

    def total_in(self, account: str, asset: str) -> int:
        """As `Book.total_in`, with the entries of this draft."""
        if asset == self.currency:
            return self.total(account)
        moved = (key for key in self.balances if key[0] == account and key[2] == asset)
        change = sum(self.balances[key] - self.base.balance(key) for key in moved)
        return self.base.total_in(account, asset) + change

    def holders(self, instrument: str) -> list[str | None]:
        """As `Book.holders`, with the entries of this draft."""
        names = {*self.base.holders(instrument), *(k[0] for k in self.lots if k[1] == instrument)}
        held = (name for name in names if self.open_lots((name, instrument)))
        return sorted(held, key=_name_order)

    def worth(self) -> tuple[int, int]:
        """Net asset value in minor units, and units in issue."""
        nav_minor = sum(self.total(account) for account in WORTH)
        if self.worths:
            nav_minor += others_worth(self.worths, self.prices)
        return nav_minor, self.units

    def moved(self) -> dict[BalanceKey, int]:
        """The change of each balance against the base."""
        return {key: amount - self.base.balance(key) for key, amount in self.balances.items()}

    def original(self, seq: int) -> Original | None:
        """An entry, durable or decided here, with its reversal, if any; None: no such entry."""
        before = self.seq - len(self.entries)
        if before < seq <= self.seq:
            found: Original | None = Original(self.entries[seq - before - 1], None)
        else:
            found = self._original(seq)
        reversal = self._reversals.get(seq)
        return found if found is None or reversal is None else Original(found.entry, reversal)

    def as_of(self, day: str) -> Balances:
        """Every balance at the end of `day`, with the entries of this draft."""
        balances = dict(self._as_of(day))
        for entry in self.entries:
            if entry.day <= day:
                for account, strategy, asset, amount in entry.legs:
                    key = (account, strategy, asset)
                    balances[key] = balances.get(key, 0) + amount
        return balances

    # -- deciding

    def fork(self) -> Draft:
        """A draft on top of this one, to be adopted as a whole or dropped."""
        return Draft(self, self.original, self.as_of, self.rules)

    def adopt(self, draft: Draft) -> None:
        """Take over all entries of a draft made by `fork`."""
        self.balances.update(draft.balances)
        self.totals.update(draft.totals)
        self.lots.update(draft.lots)
        self.settled.update(draft.settled)
        self.entries += draft.entries
        self.flows += draft.flows
        self._reversals |= draft._reversals
        self.seq, self.closes, self.units = draft.seq, draft.closes, draft.units
        self.worths, self.prices, self.closed = draft.worths, draft.prices, draft.closed

    def decide(
        self,
        event: Event,
        key: str,
        recorded_us: int,
        correction: Correct | None = None,
        *,
        reported: bool = False,
    ) -> Entry:
        """Add the entry for one event, or refuse it and leave the draft as it was.

        An event that the engine `reported` has happened already: its figures are rounded to the
        scale, no floor refuses it, and it is booked today when its day is closed.

        Raises: `BadField`, `AmountError`, `UnbalancedEntry`, `UnknownAccount`, `InsufficientFunds`,
            `PositionMismatch`, `AlreadyReversed`, `UnknownEntry`, `PeriodClosed`, `EntryRefused`.
        """
        check_fields(event, key)
        if event.at_us is not None and not reported:
            check_time(event.at_us, recorded_us)
        plan = Plan(self, event.strategy, reported=reported)
        return self._decide(event, key, recorded_us, plan, correction)

    def _decide(
        self,
        event: Event,
        key: str,
        recorded_us: int,
        plan: Plan,
        correction: Correct | None = None,
    ) -> Entry:
        """`decide` for an event whose fields are checked, with its empty plan."""
        late = plan.reported or isinstance(event, BookFill | BookSettlement)
        day = self._day_of(event, recorded_us, late=late)
        if isinstance(event, ACTIONS):
            book_action(event, plan)
        else:
            book_event(event, plan)
        legs, lots = plan.legs(), tuple(plan.images(self.seq + 1))
        # A lot may move for less than a minor unit, as in a fill of dust or a mark that is spread
        # anew; such an entry has no legs.
        if legs or not (lots or isinstance(event, _MAY_HAVE_NO_LEGS)):
            check_balanced(legs)
        kind = kind_of(type(event))
        flow = flow_among(legs, self.seq + 1, kind, self)
        self._add(legs)
        described = correction is None and type(event) in SELF_DESCRIBING
        entry = Entry(
            seq=self.seq + 1,
            key=key,
            recorded_us=recorded_us,
            day=day,
            kind=kind,
            strategy=event.strategy,
            reverses=plan.reverses,
            memo=memo_of(event) or (correction.memo if correction else ""),
            rounded=plan.rounded,
            request="" if described else canonical(correction or event),
            legs=legs,
            lots=lots,
            corrects=correction.seq if correction else None,
            at_us=event.at_us,
        )
        self._take(entry)
        if flow is not None:
            self.flows.append(flow)
        if plan.price is not None:
            self._take_price(*plan.price, recorded_us if event.at_us is None else event.at_us)
        return entry

    def correct(self, event: Correct, key: str, recorded_us: int) -> Entry:
        """Reverse an entry and book another in its place: both or neither. Raises: as `decide`."""
        check_fields(event, key)
        if event.at_us is not None:
            check_time(event.at_us, recorded_us)
        reversal_key = reversal_key_of(key)
        at_us = self._open_time_of(event.seq) if event.at_us is None else event.at_us
        reversal = Reverse(
            event.seq, event.reason, key=reversal_key, strategy=event.strategy, at_us=at_us
        )
        replaced = self._flow_replaced_by(event)
        fork = self.fork()
        # The time of the reversal is not checked: an older version took times from any year.
        check_fields(reversal, reversal_key)
        plan = Plan(fork, reversal.strategy, moves_units=replaced is None)
        fork._decide(reversal, reversal_key, recorded_us, plan)
        check_fields(event.entry, key)
        if event.entry.at_us is not None:
            check_time(event.entry.at_us, recorded_us)
        plan = Plan(fork, event.entry.strategy, replaced=replaced)
        entry = fork._decide(event.entry, key, recorded_us, plan, event)
        self.adopt(fork)
        return entry

    def _flow_replaced_by(self, event: Correct) -> Flow | None:
        """The flow that a correction replaces by another flow, priced before both; else None."""
        original = self.original(event.seq) if 0 < event.seq <= self.seq else None
        if original is None or not isinstance(event.entry, Deposit | Withdraw):
            return None
        amount = flow_of(self, original.entry)
        if amount is None:
            return None
        return Flow(amount, original.entry.strategy, self.worth())

    def _open_time_of(self, seq: int) -> int | None:
        """The time of an entry, at which its correction reverses it; None: its day is closed.

        So the reversal mends the reports of that time.
        """
        original = self.original(seq) if 0 < seq <= self.seq else None
        if original is None or (self.closes and original.entry.day <= self.closes[-1].day):
            return None
        entry = original.entry
        # A late report was booked on a later day than the one on which it happened.
        late = entry.at_us is not None and utc_day(entry.at_us) != entry.day
        return entry.recorded_us if entry.at_us is None or late else entry.at_us

    def _day_of(self, event: Event, recorded_us: int, *, late: bool) -> str:
        """The day the entry is booked on; `late` ones go to today when theirs is closed.

        Raises: `PeriodClosed`, `BadField`, `EntryRefused`."""
        closed = self.closes[-1].day if self.closes else ""
        if isinstance(event, ReopenPeriod):
            if event.day != closed:
                up_to = closed or "no day"
                raise EntryRefused(
                    f"{event.day} was not closed last: the book is closed up to {up_to}"
                )
            return event.day
        day = utc_day(recorded_us if event.at_us is None else event.at_us)
        if isinstance(event, ClosePeriod):
            today, day = utc_day(recorded_us), event.day
            if day > today:
                raise BadField("day", f"{day} is not over: it is {today}")
        elif day <= closed and late:
            day = utc_day(recorded_us)
        if day <= closed:
            raise PeriodClosed(day, closed)
        return day

    def _add(self, legs: Sequence[Posting]) -> None:
        """Add the legs to balances, totals and units, all or none.

        Raises: `AmountError` when a balance or a total would exceed 2^62 minor units.
        """
        balances: dict[BalanceKey, int] = {}
        totals: dict[str, int] = {}
        units, currency = self.units, self.currency
        others: list[tuple[str, int]] | None = None
        known, known_totals = self.balances, self.totals
        for leg in legs:
            account, _, asset, amount = leg
            key = leg[:3]
            balance = amount + (known[key] if key in known else self.balance(key))
            if not -MINOR_MAX <= amount <= MINOR_MAX >= balance >= -MINOR_MAX:
                raise _beyond(account, amount)
            balances[key] = balance
            if asset == currency:
                before = totals if account in totals else known_totals
                totals[account] = amount + (
                    before[account] if account in before else self.total(account)
                )
            elif account == asset == UNITS:
                units -= amount
            elif account in WORTH:
                others = others or []
                others.append((asset, amount))
        # After all legs: the order of its legs must not decide whether an entry fits.
        for account, total in totals.items():
            if not -MINOR_MAX <= total <= MINOR_MAX:
                raise _beyond(account, total)
        known.update(balances)
        known_totals.update(totals)
        self.units = units
        for asset, amount in others or ():
            self.worths[asset] = self.worths.get(asset, 0) + amount

    def _take_price(self, asset: str, value: Decimal, at_us: int) -> None:
        """Keep the price if it is the last one by its time; of two, the later booked one counts."""
        known = self.prices.get(asset)
        if known is None or at_us >= known.at_us:
            self.prices[asset] = PriceAt(at_us, value)

    def _take(self, entry: Entry) -> None:
        for image in entry.lots:
            lot_key = (image.strategy, image.instrument)
            lot = Lot(image.id, image.quantity, image.cost_minor, image.mark_minor)
            if lot_key not in self.lots:  # copied once per draft: there may be thousands of lots
                self.lots[lot_key] = dict(self.open_lots(lot_key))
            lots = self.lots[lot_key]
            if not lot.quantity:
                lots.pop(lot.id, None)
                continue
            # A lot that comes from another strategy or name goes to its place by age.
            out_of_order = lot.id not in lots and lot.id < next(reversed(lots), 0)
            lots[lot.id] = lot
            if out_of_order:
                self.lots[lot_key] = dict(sorted(lots.items()))
        self.settled.update(settled_by(entry, self.settlement_of))
        if entry.kind == "period_close":
            self.closes = (*self.closes, Close(entry.day, entry.seq))
        elif entry.kind == "period_reopen":
            self.closes = self.closes[:-1]
        if entry.kind in ("period_close", "period_reopen"):
            self.closed = dict(self.closed)
            for account, strategy, asset, amount in entry.legs:
                if account in REVENUE and asset == self.currency:
                    key = (account, strategy, asset)
                    self.closed[key] = self.closed.get(key, 0) - amount
        if entry.reverses is not None:
            self._reversals[entry.reverses] = entry.seq
        self.seq = entry.seq
        self.entries.append(entry)

    # -- deciding moves, column by column

    def decide_moves(
        self, events: Sequence[Move], keys: Sequence[str], recorded_us: int
    ) -> list[Entry] | None:
        """The entries that `decide` would add for each of these moves, in a fraction of the time.

        None, with nothing added, when one of them is or may be wrong: `decide` then names the
        problem.
        """
        try:
            return self._decide_moves(events, keys, recorded_us)
        except (AmountError, TypeError):
            return None

    def _decide_moves(
        self, events: Sequence[Move], keys: Sequence[str], recorded_us: int
    ) -> list[Entry] | None:
        """Raises: `AmountError`, `TypeError` before anything is added."""
        kinds = [type(event) for event in events]
        strategies = [event.strategy for event in events]
        memos = [event.memo for event in events]
        times = [event.at_us for event in events]
        if not (
            are_ascii_texts(keys, KEY_MAX)
            and are_ascii_texts(set(strategies) - {None}, NAME_MAX)
            and are_ascii_texts(set(memos) - {""}, MEMO_MAX)
            and all(
                at_us is None or (is_instant(at_us) and is_time(at_us, recorded_us))
                for at_us in times
            )
        ):
            return None
        days = {at_us: utc_day(recorded_us if at_us is None else at_us) for at_us in set(times)}
        if self.closes and min(days.values()) <= self.closes[-1].day:
            return None
        minors, rounded = to_minors([event.amount for event in events], floats=self.rules.floats)
        if min(minors) < 1 or not self._add_moves(kinds, strategies, minors):
            return None
        asset, moves = self.currency, {kind: (kind_of(kind), *MOVES[kind]) for kind in set(kinds)}
        columns = zip(keys, kinds, strategies, memos, times, minors, rounded, strict=True)
        # Positional arguments: keywords take longer, and this is the path of every bulk request.
        entries = [
            Entry(
                seq,
                key,
                recorded_us,
                days[at_us],
                name,
                strategy,
                None,
                memo,
                was_rounded,
                "",
                ((debit, strategy, asset, minor), (credit, strategy, asset, -minor)),
                (),
                None,
                at_us,
            )
            for seq, (key, kind, strategy, memo, at_us, minor, was_rounded) in enumerate(
                columns, self.seq + 1
            )
            for name, debit, credit in (moves[kind],)
        ]
        self.seq += len(entries)
        self.entries += entries
        return entries

    def _add_moves(
        self, kinds: Sequence[type], strategies: Sequence[str | None], minors: Sequence[int]
    ) -> bool:
        """Add the moves to balances and totals; False, with none added, when one might not fit."""
        moved: dict[tuple[type, str | None], int] = {}
        for kind, strategy, minor in zip(kinds, strategies, minors, strict=True):
            moved[kind, strategy] = moved.get((kind, strategy), 0) + minor
        moves = [
            (account, (account, strategy, self.currency), amount)
            for (kind, strategy), minor in moved.items()
            for account, amount in zip(MOVES[kind], (minor, -minor), strict=True)
        ]
        # In any order of the events, no balance moves by more than the sum of all amounts.
        room = MINOR_MAX - sum(moved.values())
        if any(
            abs(self.balance(key)) > room or abs(self.total(account)) > room
            for account, key, _ in moves
        ):
            return False
        for account, key, amount in moves:
            self.balances[key] = self.balance(key) + amount
            self.totals[account] = self.total(account) + amount
        return True

    # -- sealing

    @cached_property
    def sealed(self) -> list[Sealed]:
        """The entries with their payloads and hashes, chained to the book.

        Read it only when no more entries are to be decided. Entries are encoded in runs: encoding
        them one by one would spend most of the time on calls, and one call for a hundred thousand
        entries would hold up all other threads.
        """
        assert isinstance(self.base, Book)
        head = self.base.head
        runs = [self.entries[start : start + RUN] for start in range(0, len(self.entries), RUN)]
        payloads = [payload for run in runs for payload in encode_payloads(run)]
        hashes = [head := chain_hash(head, payload) for payload in payloads]
        return list(zip(self.entries, payloads, hashes, strict=True))


def _name_order(name: str | None) -> str:
    return "" if name is None else name


def _beyond(account: str, amount: int) -> AmountError:
    problem = f"would take {account} beyond 2^62 minor units"
    return AmountError("amount", from_minor(amount), problem)
