"""The ledger actor: decides a run of requests against a draft, makes it durable in one commit, then applies it.

Durable first, visible second: nobody is answered before the commit. When storage refuses, the draft is dropped and
every request that would have been new is answered with that refusal. When the outcome of a commit is unknown the book
is read again from disk, so that memory and disk cannot part.

The loop belongs to everybody, the kill switch among them: what takes long, a large run or a question to the file, is
done in a thread, one thing at a time.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from ...runtime import Actor, AskTimeout, Clock, Ref, Rejected, ThreadWorker, Worker, handles, handles_batch
from ...wire.alert import Category, Level
from ...wire.controller import Fill, Settlement
from ...wire.errors import (
    AlreadyReversed,
    AmountError,
    ConstraintFailed,
    IdempotencyConflict,
    LedgerDegraded,
    LedgerFailed,
    OutcomeUnknown,
    StorageDegraded,
    StorageFailed,
    shown,
)
from ...wire.ledger import (
    BOOKABLE,
    EVENTS_MAX,
    BalanceSheet,
    Booked,
    BookFill,
    BookFills,
    BookSettlement,
    BookSettlements,
    CashFlow,
    Correct,
    Entries,
    Event,
    IncomeStatement,
    LedgerPosition,
    LedgerTotals,
    NavPerUnit,
    NetAssetValue,
    Posted,
    PostMany,
    ReadTotals,
    RecentEntries,
    Reverse,
    TrialBalance,
)
from ...wire.ledger import Entry as EntryRecord
from ...wire.money import from_minor, rounded_decimal
from ...wire.persistence import COMMIT_DEADLINE_S, Commit, Statement
from ..alert.requests import alert_ref, alert_request, wake_alerts
from ..persistence import Reader, earlier_commits
from . import accounts, schema
from .core import (
    KEY_MAX,
    RUN,
    BadField,
    Balances,
    Book,
    Draft,
    Entry,
    Original,
    Rules,
    are_moves,
    canonical,
    check_fields,
    check_text,
    is_text,
    request_of,
    reversal_key_of,
    work_of,
)
from .reports import Reports

__all__ = ["LedgerActor", "new_key"]

log = logging.getLogger("fundops.ledger")

Known = dict[str, Entry]
Decided = tuple[int, str, bool]  # sequence number, key, whether it was there already
Decision = Decided | list[Decided] | Rejected
Answer = Posted | tuple[Posted, ...] | Rejected
Write = Event | Correct | PostMany
T = TypeVar("T")


def new_key(now_us: int) -> str:
    """A fresh idempotency key, time-ordered: random keys cost a big index eight times as much."""
    return f"{now_us:016x}-{secrets.token_hex(8)}"


def _ledger_thread() -> Worker:
    return ThreadWorker("fundops-ledger")


class LedgerActor(Actor):
    """The one that books. State: the book as it is on disk."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        currency: str,
        rules: Rules = Rules(),  # noqa: B008  immutable
        *,
        make_worker: Callable[[], Worker] = _ledger_thread,
    ) -> None:
        self._path = path
        self._clock = clock
        self._currency = currency
        self._rules = rules
        self._make_worker = make_worker
        self._worker: Worker
        self._reader: Reader
        self._reports: Reports
        self._book: Book
        self._cursors: dict[str, str]
        self._newest_minted: str  # of all keys that begin as minted ones do
        self._persistence: Ref
        self._alert: Ref | None = None

    async def on_start(self) -> None:
        self._persistence = self.context.ref("persistence")
        self._alert = alert_ref(self.context)
        await earlier_commits(self._persistence)
        self._worker = self._make_worker()
        self._reader = Reader(self._path)
        self._reports = Reports(self._reader, self._currency)
        self._load()

    async def on_stop(self, reason: str) -> None:
        if hasattr(self, "_book"):
            # Outside the file, where a journal whose end was cut off cannot hide it.
            log.info("ledger anchor %d %s", self._book.seq, self._book.head.hex())
        if hasattr(self, "_worker"):
            self._worker.stop()
        if hasattr(self, "_reader"):
            self._reader.close()

    def _load(self) -> None:
        self._book = schema.load_book(self._reader, self._currency)
        self._cursors = schema.cursors(self._reader)
        self._newest_minted = schema.newest_key(self._reader, MINTED_BELOW)

    async def _beside(self, work: int, call: Callable[[], T]) -> T:
        """The call's result; `work` is how many entries, legs or lots it goes through, about."""
        return call() if work <= RUN else await self._worker.run(call)

    # -- booking

    @handles_batch(*BOOKABLE, PostMany)
    async def post(self, requests: list[Write]) -> list[Answer]:
        """One commit for the whole run; one answer or refusal each."""
        draft, durable = self._draft(), self._book.seq
        events = [event for request in requests for event in _events_of(request)]
        work = work_of(events, self._book)
        decisions = await self._beside(work, lambda: self._decide_run(requests, events, draft))
        refusal = await self._append(draft, work)
        if isinstance(refusal, AmountError) and len(requests) > 1:  # one of them is too large, not all
            half = len(requests) // 2
            return [*await self.post(requests[:half]), *await self.post(requests[half:])]
        answers = await self._beside(work, lambda: [self._answer(one, draft, durable) for one in decisions])
        if refusal is None:
            return answers
        return [answer if _stands_alone(answer, durable) else refusal for answer in answers]

    def _decide_run(self, requests: list[Write], events: Sequence[Write], draft: Draft) -> Sequence[Decision]:
        known = self._known(events)
        moves = self._decide_moves(requests, draft, known)
        return [self._decide(request, draft, known) for request in requests] if moves is None else moves

    def _draft(self) -> Draft:
        return Draft(self._book, self._original, self._as_of, self._rules)

    def _original(self, seq: int) -> Original | None:
        return schema.find_original(self._reader, seq)

    def _as_of(self, day: str) -> Balances:
        return schema.balances_as_of(self._reader, day)

    def _known(self, events: Sequence[Write]) -> Known:
        """The entries that the callers' own keys name already."""
        keys = [getattr(event, "key", None) for event in events]
        # A key that was minted after the newest on disk is new; looking each up would cost more than hashing them all.
        newest = self._newest_minted
        texts = [key for key in keys if type(key) is str and not newest < key < MINTED_BELOW]
        given = [key for key in texts if is_text(key, KEY_MAX)]
        corrected = [event.key for event in events if isinstance(event, Correct)]
        given += [reversal_key_of(key) for key in corrected if key is not None and is_text(key, KEY_MAX)]
        return schema.entries_by_key(self._reader, given) if given else {}

    def _decide(self, request: Write, draft: Draft, known: Known) -> Decision:
        try:
            if isinstance(request, PostMany):
                return self._decide_all(request.events, draft, known)
            return self._decide_given(request, draft, known)
        except Rejected as refusal:
            return refusal

    def _decide_all(self, events: Sequence[Event | Correct], draft: Draft, known: Known) -> list[Decided]:
        """All or none: what one of them refuses must leave no trace of those before it."""
        if len(events) > EVENTS_MAX:
            raise BadField("events", f"{len(events):,} are more than {EVENTS_MAX:,} at once: give them in parts")
        moves = self._decide_moves(events, draft, known)
        if moves is not None:
            return moves
        fork, learnt, decided = draft.fork(), known.copy(), list[Decided]()
        for number, event in enumerate(events):
            try:
                decided.append(self._decide_given(event, fork, learnt))
            except Rejected as refusal:
                raise _of_several(refusal, number, draft.seq) from None
        draft.adopt(fork)
        known.update(learnt)
        return decided

    def _decide_moves(self, events: Sequence[Write], draft: Draft, known: Known) -> list[Decided] | None:
        """All of them at once, if they are plain moves of an amount and nothing about them is unusual; else None."""
        if len(events) < 2 or not are_moves(events):
            return None
        now_us = self._clock.now_us()
        keys = [new_key(now_us) if event.key is None else event.key for event in events]
        if not _are_new(keys, known):
            return None
        entries = draft.decide_moves(events, keys, now_us)
        if entries is None:
            return None
        known.update(zip(keys, entries, strict=True))
        return [(entry.seq, entry.key, False) for entry in entries]

    def _decide_given(self, event: Event | Correct, draft: Draft, known: Known) -> Decided:
        """What a caller asks for, under a key that a caller may take."""
        if not isinstance(event, BOOKABLE):
            raise BadField("events", f"{shown(event)} is not an event to book")
        if event.key is not None:
            check_text("key", event.key, KEY_MAX)
            if event.key.startswith(_OWN_KEYS):
                raise BadField("key", f"{event.key!r} begins as the ledger's own keys do: {', '.join(_OWN_KEYS)}")
        return self._decide_one(event, draft, known)

    def _decide_one(self, event: Event | Correct, draft: Draft, known: Known) -> Decided:
        now_us = self._clock.now_us()
        key = new_key(now_us) if event.key is None else event.key
        if key in known:
            check_fields(event, key)
            entry = known[key]
            if request_of(entry) != canonical(event):
                raise IdempotencyConflict(key, entry.seq)
            return entry.seq, key, True
        if isinstance(event, Correct):
            taken = known.get(reversal_key_of(key))
            if taken is not None:
                raise IdempotencyConflict(taken.key, taken.seq)
            entry = draft.correct(event, key, now_us)
            known[reversal_key_of(key)] = draft.entries[-2]
        else:
            entry = draft.decide(event, key, now_us)
        known[key] = entry
        return entry.seq, key, False

    def _answer(self, decision: Decision, draft: Draft, durable: int) -> Answer:
        """With the hashes, once the draft is sealed; those of entries up to `durable` are on disk."""
        if isinstance(decision, Rejected):
            return decision
        if isinstance(decision, tuple):
            return self._posted([decision], draft, durable)[0]
        return tuple(self._posted(decision, draft, durable))

    def _posted(self, decided: Sequence[Decided], draft: Draft, durable: int) -> list[Posted]:
        sealed, first = draft.sealed, durable + 1
        return [
            Posted(
                seq,
                key,
                replayed,
                (sealed[seq - first][2] if seq >= first else schema.hash_of(self._reader, seq)).hex(),
            )
            for seq, key, replayed in decided
        ]

    async def _append(self, draft: Draft, work: int, *extra: Statement) -> Rejected | None:
        """Make the draft durable and apply it; or the refusal, with nothing applied."""
        rows = await self._beside(work, lambda: schema.rows_of(draft))
        statements = (*rows, *extra)
        if not statements:
            return None
        try:
            await self._persistence.ask(Commit(statements), timeout_s=COMMIT_DEADLINE_S)
        except OutcomeUnknown as unknown:
            self._load()
            return unknown
        except ConstraintFailed as broken:
            too_large = await self._beside(work, lambda: schema.outgrown_day(self._reader, draft))
            if too_large is not None:
                return too_large
            # Nobody else writes these tables, so our idea of them is wrong: the next life reads them afresh.
            raise RuntimeError("the journal is not what this actor believes") from broken
        except StorageDegraded as refusal:
            return LedgerDegraded(str(refusal))
        except AskTimeout as late:
            if late.started:  # what has become of it, the next life finds on disk
                raise
            return LedgerDegraded(f"the time was up before it could be written: {late}")
        except StorageFailed as refusal:
            return LedgerFailed(str(refusal))
        except Rejected as refusal:
            return refusal
        self._book.apply(draft)
        minted = [entry.key for entry in draft.entries if entry.key < MINTED_BELOW]
        self._newest_minted = max([self._newest_minted, *minted])
        return None

    # -- booking what the engine reports

    @handles(BookFills)
    async def book_fills(self, request: BookFills) -> Booked:
        """Raises: the refusal of the first fill that cannot be booked; then none of them is."""
        events: list[Event] = [
            BookFill(
                fill.instrument,
                rounded_decimal(fill.quantity),
                rounded_decimal(fill.price),
                rounded_decimal(fill.fee),
                key=f"fill:{fill.id}",
                strategy=fill.strategy,
                at_us=fill.at_us,
            )
            for fill in request.fills
        ]
        for fill in request.fills:
            _check_report(fill)
        draft, work = self._draft(), work_of(events, self._book)
        await self._beside(work, lambda: self._decide_each(events, draft))
        cursor = request.fills[-1].cursor if request.fills else self._cursors.get("fills", "")
        return await self._book_all(draft, work, "fills", cursor)

    def _decide_each(self, events: Sequence[Event], draft: Draft) -> None:
        known = self._known(events)
        for event in events:
            self._decide_one(event, draft, known)

    @handles(BookSettlements)
    async def book_settlements(self, request: BookSettlements) -> Booked:
        """As `book_fills`; each new one is also announced."""
        draft, settlements = self._draft(), request.settlements
        work = len(settlements) * LOOKUP
        notes = await self._beside(work, lambda: self._decide_settlements(settlements, draft))
        cursor = settlements[-1].cursor if settlements else self._cursors.get("settlements", "")
        return await self._book_all(draft, work, "settlements", cursor, *notes)

    def _decide_settlements(self, settlements: Sequence[Settlement], draft: Draft) -> list[Statement]:
        """What there is to announce."""
        known = Known()
        booked: dict[str, dict[int, int]] = {}  # by id and revision: the entry
        notes: list[Statement] = []
        for settlement in settlements:
            _check_report(settlement)
            for event in self._settlement_events(settlement, draft, booked):
                seq, *_ = self._decide_one(event, draft, known)
                if isinstance(event, BookSettlement):
                    booked[settlement.id][settlement.revision] = seq
                    notes.append(self._announce(settlement))
        return notes

    def _settlement_events(
        self, settlement: Settlement, draft: Draft, booked: dict[str, dict[int, int]]
    ) -> list[Event]:
        """Nothing when this revision or a later one is booked; else the reversal of the one before, and the settlement.

        A person may have reversed that already.
        """
        if settlement.revision < 0:
            raise BadField("revision", f"{settlement.revision} of settlement {settlement.id!r} is negative")
        prefix = f"settlement:{settlement.id}:"
        if settlement.id not in booked:
            booked[settlement.id] = schema.settlement_revisions(self._reader, prefix)
        latest = max(booked[settlement.id], default=-1)
        if settlement.revision <= latest:
            return []
        key, strategy = f"{prefix}{settlement.revision}", settlement.strategy
        events: list[Event] = []
        previous = draft.original(booked[settlement.id][latest]) if latest >= 0 else None
        if previous is not None and previous.reversed_by is None:
            reason = f"settlement {settlement.id} revised to {settlement.revision}"
            events.append(Reverse(previous.entry.seq, reason, key=f"{key}:reversal", strategy=strategy))
        market = BookSettlement(settlement.market, settlement.cost, settlement.payoff, key=key, strategy=strategy)
        return [*events, market]

    def _announce(self, settlement: Settlement) -> Statement:
        return alert_request(
            self._clock.now_us(),
            Level.INFO,
            Category.SETTLEMENT,
            f"Settlement booked: {settlement.market}",
            f"{settlement.strategy}: cost {settlement.cost}, payoff {settlement.payoff}",
            strategy=settlement.strategy,
        )

    async def _book_all(self, draft: Draft, work: int, source: str, cursor: str, *notes: Statement) -> Booked:
        announcements = notes if self._alert is not None else ()
        moved = cursor != self._cursors.get(source, "")
        if moved:
            refusal = await self._append(draft, work, schema.set_cursor(source, cursor), *announcements)
        else:
            refusal = await self._append(draft, work, *announcements)
        if refusal is not None:
            raise refusal
        if moved:
            self._cursors[source] = cursor
        if announcements:
            wake_alerts(self._alert)
        return Booked(len(draft.entries), cursor)

    # -- questions

    @handles(BalanceSheet)
    async def balance_sheet(self, request: BalanceSheet) -> dict[str, Decimal]:
        if request == BalanceSheet():
            return accounts.balance_sheet(self._book.totals)
        return await self._worker.run(
            lambda: self._reports.balance_sheet(request.as_of, request.strategy, request.asset)
        )

    @handles(TrialBalance)
    async def trial_balance(self, request: TrialBalance) -> dict[str, Decimal]:
        if request == TrialBalance():
            return accounts.trial_balance(self._book.totals)
        return await self._worker.run(
            lambda: self._reports.trial_balance(request.as_of, request.strategy, request.asset)
        )

    @handles(NetAssetValue)
    async def net_asset_value(self, request: NetAssetValue) -> Decimal:
        if request == NetAssetValue():
            return from_minor(accounts.net_asset_value(self._book.totals))
        return await self._worker.run(lambda: self._reports.nav(request.as_of, request.strategy))

    @handles(NavPerUnit)
    async def nav_per_unit(self, request: NavPerUnit) -> Decimal:
        return await self._worker.run(lambda: self._reports.nav_per_unit(request.as_of))

    @handles(IncomeStatement)
    async def income_statement(self, request: IncomeStatement) -> dict[str, Decimal]:
        if request == IncomeStatement() and not self._book.closes:
            return accounts.income_statement(self._book.totals)
        return await self._worker.run(
            lambda: self._reports.income_statement(request.start, request.end, request.strategy, request.asset)
        )

    @handles(CashFlow)
    async def cash_flow(self, request: CashFlow) -> dict[str, Decimal]:
        return await self._worker.run(lambda: self._reports.cash_flow(request.start, request.end, request.strategy))

    @handles(Entries)
    async def entries(self, request: Entries) -> tuple[EntryRecord, ...]:
        return await self._worker.run(
            lambda: self._reports.entries(
                request.account, request.strategy, request.kind, request.after_seq, request.limit
            )
        )

    @handles(RecentEntries)
    async def recent_entries(self, request: RecentEntries) -> tuple[EntryRecord, ...]:
        return await self._worker.run(lambda: self._reports.recent_entries(request.limit))

    @handles(ReadTotals)
    async def totals(self, _: ReadTotals) -> LedgerTotals:
        return await self._beside(sum(map(len, self._book.lots.values())), self._totals)

    def _totals(self) -> LedgerTotals:
        totals = self._book.totals
        return LedgerTotals(
            nav_minor=accounts.net_asset_value(totals),
            external_minor=-totals.get(accounts.EXTERNAL, 0),
            fees_minor=totals.get(accounts.MANAGEMENT_FEES, 0) + totals.get(accounts.PERFORMANCE_FEES, 0),
            entries=self._book.seq,
            cursors=dict(self._cursors),
            balance_sheet=accounts.balance_sheet(totals),
            positions=tuple(
                LedgerPosition(
                    strategy,
                    instrument,
                    from_minor(sum(lot.quantity for lot in lots)),
                    from_minor(sum(lot.cost_minor for lot in lots)),
                    from_minor(sum(lot.cost_minor + lot.mark_minor for lot in lots)),
                )
                for (strategy, instrument), lots in sorted(
                    ((key, of_key.values()) for key, of_key in self._book.lots.items()), key=lambda one: str(one[0])
                )
            ),
        )


# What a look into the file takes, in entries decided.
LOOKUP = 16
# Minted keys begin with the time in hexadecimal, which begins with a zero for many thousand years.
MINTED_BELOW = "1"
# An engine's own words, which it alone reads again.
CURSOR_MAX = 65_536

# The ledger's own, made of what the engine reports: nobody else may take the key of a fill or settlement to come.
_OWN_KEYS = ("fill:", "settlement:")


def _check_report(report: Fill | Settlement) -> None:
    """Raises: `BadField` for an id or a cursor that cannot be stored."""
    check_text("id", report.id, KEY_MAX)
    if report.cursor != "":
        check_text("cursor", report.cursor, CURSOR_MAX)


def _are_new(keys: Sequence[str], known: Known) -> bool:
    """Whether these are texts, each of them once, that no entry has and that a caller may take."""
    if {type(key) for key in keys} != {str} or len(set(keys)) < len(keys):
        return False
    return known.keys().isdisjoint(keys) and not [key for key in keys if key.startswith(_OWN_KEYS)]


def _events_of(request: Write) -> tuple[Event | Correct, ...]:
    return request.events if isinstance(request, PostMany) else (request,)


def _of_several(refusal: Rejected, number: int, last: int) -> Rejected:
    """The refusal of one event of a request, with its number; entries after `last` will never be."""
    if isinstance(refusal, IdempotencyConflict) and refusal.seq is not None and refusal.seq > last:
        refusal = IdempotencyConflict(refusal.key, None)
    elif isinstance(refusal, AlreadyReversed) and refusal.by is not None and refusal.by > last:
        refusal = AlreadyReversed(refusal.seq, None)
    refusal.args = (f"entries[{number}]: {refusal}",)
    return refusal


def _stands_alone(answer: Answer, durable: int) -> bool:
    """Whether this answer is true without the commit that it waited for.

    What was on disk already is, and what is wrong with a request by itself. Any other refusal may be that of a fund
    which has never been: there was no money, as somebody had just taken it.
    """
    if isinstance(answer, Rejected):
        return isinstance(answer, BadField)
    return all(one.seq <= durable for one in (answer if isinstance(answer, tuple) else (answer,)))
