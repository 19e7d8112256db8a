"""The ledger actor: decides a run of requests on a draft, commits it at once, then applies it.

Durable first, visible second: every reply waits for the commit. When storage refuses, the draft is
dropped and each request that would have booked something new gets that refusal. When the outcome of
a commit is unknown, the book is read again from disk, so that memory and disk always agree.

The event loop is shared with all other actors, the kill switch among them. So long work, such as a
large run or a question to the file, runs in one thread, one piece after the other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import msgspec

from ...runtime import (
    Clock,
    Ref,
    Rejected,
    ThreadWorker,
    Worker,
    handles,
    handles_batch,
)
from ...wire.alert import Category, Level
from ...wire.controller import Settlement
from ...wire.errors import (
    AmountError,
    BadField,
    LedgerDegraded,
    LedgerFailed,
    StorageDegraded,
    StorageFailed,
)
from ...wire.ledger import (
    BOOKABLE,
    BalanceSheet,
    Booked,
    BookFills,
    BookSettlements,
    CashFlow,
    Entries,
    EntriesAfter,
    IncomeStatement,
    JournalLine,
    LedgerLot,
    LedgerPosition,
    LedgerTotals,
    Lots,
    NavPerUnit,
    NetAssetValue,
    Positions,
    Posted,
    PostMany,
    Prices,
    ReadTotals,
    Realized,
    RecentEntries,
    Reconcile,
    Reconciliation,
    TrialBalance,
)
from ...wire.ledger import Entry as EntryRecord
from ...wire.money import from_minor
from ...wire.persistence import Statement
from ..alert.requests import alert_ref, alert_request, wake_alerts
from ..persistence import DurableActor, StateDiverged
from . import accounts, schema
from .book import RUN, Book, Draft
from .entry import Balances, Original
from .events import Rules
from .intake import (
    Decided,
    Decision,
    Known,
    Write,
    decide_events,
    decide_run,
    decide_settlements,
    events_of,
    fill_event,
    keys_to_look_up,
    work_of,
)
from .keys import MINTED_BELOW
from .prices import prices_as_of
from .reports import Reports

__all__ = ["LedgerActor"]

log = logging.getLogger("fundops.ledger")

Answer = Posted | tuple[Posted, ...] | Rejected
T = TypeVar("T")

# The work of a look into the file, counted in decided entries.
LOOKUP = 16


def _ledger_thread() -> Worker:
    return ThreadWorker("fundops-ledger")


class LedgerActor(DurableActor):
    """Books events and answers questions about the book. Its state is the book as it is on disk."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        currency: str,
        rules: Rules = Rules(),  # noqa: B008  immutable
        *,
        make_worker: Callable[[], Worker] = _ledger_thread,
    ) -> None:
        super().__init__(path)
        self._clock = clock
        self._currency = currency
        self._rules = rules
        self._make_worker = make_worker
        self._worker: Worker
        self._reports: Reports
        self._book: Book
        self._cursors: dict[str, str]
        self._newest_minted: str  # the newest durable key below MINTED_BELOW
        self._alert: Ref | None = None

    async def begin(self) -> None:
        """Start the thread of long work; at the end it stops before the reader closes."""
        self._alert = alert_ref(self.context)
        self._reports = Reports(self._reader, self._currency)
        self._worker = self._make_worker()
        self._resources.callback(self._worker.stop)
        self._resources.callback(self._log_anchor)

    def _log_anchor(self) -> None:
        # Kept outside the file, the anchor detects a truncated journal.
        log.info("ledger anchor %d %s", self._book.seq, self._book.head.hex())

    def load(self) -> None:
        """The book and the cursors, as they are on disk."""
        self._book = schema.load_book(self._reader, self._currency)
        self._book.prices = prices_as_of(self._reader)
        self._cursors = schema.cursors(self._reader)
        self._newest_minted = schema.newest_key(self._reader, MINTED_BELOW)

    async def _in_thread(self, work: int, call: Callable[[], T]) -> T:
        """The result of a call, made in the thread when it is long.

        `work` is about how many entries, legs or lots the call goes through.
        """
        return call() if work <= RUN else await self._worker.run(call)

    # -- booking

    @handles_batch(*BOOKABLE, PostMany)
    async def post(self, requests: list[Write]) -> list[Answer]:
        """Book a run of requests in one commit; each gets its own answer or refusal."""
        silence = await self.load_again()
        if silence is not None:
            return [silence] * len(requests)
        draft, durable = self._draft(), self._book.seq
        events = [event for request in requests for event in events_of(request)]
        work = work_of(events, self._book)
        decisions = await self._in_thread(work, lambda: self._decide_run(requests, events, draft))
        refusal = await self._append(draft, work)
        # One request is too large for its column: halve the run until that one is alone.
        if isinstance(refusal, AmountError) and len(requests) > 1:
            half = len(requests) // 2
            return [*await self.post(requests[:half]), *await self.post(requests[half:])]
        answers = await self._in_thread(
            work, lambda: [self._answer(decision, draft, durable) for decision in decisions]
        )
        if refusal is None:
            return answers
        return [answer if _stands_alone(answer, durable) else refusal for answer in answers]

    def _decide_run(
        self, requests: Sequence[Write], events: Sequence[Write], draft: Draft
    ) -> Sequence[Decision]:
        return decide_run(requests, draft, self._known(events), self._clock.now_us)

    def _known(self, events: Sequence[Write]) -> Known:
        """The durable entries whose keys these events repeat."""
        keys = keys_to_look_up(events, self._newest_minted)
        return schema.entries_by_key(self._reader, keys) if keys else {}

    def _draft(self) -> Draft:
        return Draft(self._book, self._original, self._as_of, self._rules)

    def _original(self, seq: int) -> Original | None:
        return schema.find_original(self._reader, seq)

    def _as_of(self, day: str) -> Balances:
        return schema.balances_as_of(self._reader, day)

    def _answer(self, decision: Decision, draft: Draft, durable: int) -> Answer:
        """The answer to a decision, with hashes; it seals the draft.

        Entries up to `durable` were on disk before this run.
        """
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
                (
                    sealed[seq - first][2] if seq >= first else schema.hash_of(self._reader, seq)
                ).hex(),
            )
            for seq, key, replayed in decided
        ]

    async def _append(self, draft: Draft, work: int, *extra: Statement) -> Rejected | None:
        """Make the draft durable and apply it; or the refusal, with nothing applied."""
        rows = await self._in_thread(work, lambda: schema.rows_of(draft))
        try:
            refusal = await self.append((*rows, *extra))
        except StateDiverged:
            too_large = await self._in_thread(
                work, lambda: schema.outgrown_day(self._reader, draft)
            )
            if too_large is None:
                raise
            return too_large
        if isinstance(refusal, StorageDegraded):
            return LedgerDegraded(str(refusal))
        if isinstance(refusal, StorageFailed):
            return LedgerFailed(str(refusal))
        if refusal is not None:
            return refusal
        self._book.apply(draft)
        minted = [entry.key for entry in draft.entries if entry.key < MINTED_BELOW]
        self._newest_minted = max([self._newest_minted, *minted])
        return None

    # -- booking reports of the engine

    @handles(BookFills)
    async def book_fills(self, request: BookFills) -> Booked:
        """Book all fills that are new, and the cursor of the last, in one commit.

        Raises: the refusal of the first fill that cannot be booked; then none of them is.
        """
        events = [fill_event(fill) for fill in request.fills]
        draft, work = self._draft(), work_of(events, self._book)
        await self._in_thread(
            work, lambda: decide_events(events, draft, self._known(events), self._clock.now_us)
        )
        cursor = request.fills[-1].cursor if request.fills else self._cursors.get("fills", "")
        return await self._book_all(draft, work, "fills", cursor)

    @handles(BookSettlements)
    async def book_settlements(self, request: BookSettlements) -> Booked:
        """Book settlements as `book_fills` books fills, and announce each new one."""
        draft, settlements = self._draft(), request.settlements
        work = len(settlements) * LOOKUP
        notes = await self._in_thread(work, lambda: self._decide_settlements(settlements, draft))
        cursor = settlements[-1].cursor if settlements else self._cursors.get("settlements", "")
        return await self._book_all(draft, work, "settlements", cursor, *notes)

    def _decide_settlements(
        self, settlements: Sequence[Settlement], draft: Draft
    ) -> list[Statement]:
        """The announcements of the settlements that were decided."""
        booked = decide_settlements(
            settlements,
            draft,
            self._clock.now_us,
            lambda prefix: schema.settlement_revisions(self._reader, prefix),
        )
        return [self._announce(settlement) for settlement in booked]

    def _announce(self, settlement: Settlement) -> Statement:
        return alert_request(
            self._clock.now_us(),
            Level.INFO,
            Category.SETTLEMENT,
            f"Settlement booked: {settlement.market}",
            f"{settlement.strategy}: cost {settlement.cost}, payoff {settlement.payoff}",
            strategy=settlement.strategy,
        )

    async def _book_all(
        self, draft: Draft, work: int, source: str, cursor: str, *notes: Statement
    ) -> Booked:
        announcements = notes if self._alert is not None else ()
        moved = cursor != self._cursors.get(source, "")
        if moved:
            refusal = await self._append(
                draft, work, schema.set_cursor(source, cursor), *announcements
            )
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
        """Debits minus credits by account, as `BalanceSheet` describes."""
        if request == BalanceSheet():
            return accounts.balance_sheet(self._book.totals)
        return await self._worker.run(
            lambda: self._reports.balance_sheet(request.as_of, request.strategy, request.asset)
        )

    @handles(TrialBalance)
    async def trial_balance(self, request: TrialBalance) -> dict[str, Decimal]:
        """The balance sheet and EXTERNAL; the values sum to zero."""
        if request == TrialBalance():
            return accounts.trial_balance(self._book.totals)
        return await self._worker.run(
            lambda: self._reports.trial_balance(request.as_of, request.strategy, request.asset)
        )

    @handles(NetAssetValue)
    async def net_asset_value(self, request: NetAssetValue) -> Decimal:
        """Net asset value in the fund's currency."""
        if request == NetAssetValue():
            return from_minor(self._book.net_asset_value())
        return await self._worker.run(lambda: self._reports.nav(request.as_of, request.strategy))

    @handles(NavPerUnit)
    async def nav_per_unit(self, request: NavPerUnit) -> Decimal:
        """Net asset value per unit; 1 while there are no units."""
        return await self._worker.run(lambda: self._reports.nav_per_unit(request.as_of))

    @handles(IncomeStatement)
    async def income_statement(self, request: IncomeStatement) -> dict[str, Decimal]:
        """Income and expense by revenue account, closing entries left out."""
        if request == IncomeStatement() and not self._book.closes:
            return accounts.income_statement(self._book.totals)
        return await self._worker.run(
            lambda: self._reports.income_statement(
                request.start, request.end, request.strategy, request.asset
            )
        )

    @handles(CashFlow)
    async def cash_flow(self, request: CashFlow) -> dict[str, Decimal]:
        """The changes of CASH by purpose, as `CashFlow` describes."""
        return await self._worker.run(
            lambda: self._reports.cash_flow(request.start, request.end, request.strategy)
        )

    @handles(Entries)
    async def entries(self, request: Entries) -> tuple[EntryRecord, ...]:
        """One page of the entries that match, newest first."""
        return await self._worker.run(
            lambda: self._reports.entries(**msgspec.structs.asdict(request))
        )

    @handles(EntriesAfter)
    async def entries_after(self, request: EntriesAfter) -> tuple[JournalLine, ...]:
        """The entries after one, oldest first, as they are stored."""
        return await self._worker.run(
            lambda: self._reports.entries_after(request.seq, request.limit)
        )

    @handles(Positions)
    async def positions(self, request: Positions) -> tuple[LedgerPosition, ...]:
        """The open positions by strategy and instrument."""
        return await self._worker.run(
            lambda: self._reports.positions(request.as_of, request.strategy)
        )

    @handles(Lots)
    async def lots(self, request: Lots) -> tuple[LedgerLot, ...]:
        """The open lots, oldest first."""
        return await self._worker.run(
            lambda: self._reports.lots(request.strategy, request.instrument)
        )

    @handles(Realized)
    async def realized(self, request: Realized) -> dict[str, Decimal]:
        """Realized P&L by strategy or by instrument."""
        return await self._worker.run(
            lambda: self._reports.realized(request.start, request.end, request.by)
        )

    @handles(Prices)
    async def prices(self, request: Prices) -> dict[str, Decimal | None]:
        """The last price of every other asset; None for one that is held and has none."""
        return await self._worker.run(lambda: self._reports.prices(request.as_of))

    @handles(Reconcile)
    async def reconcile(self, request: Reconcile) -> Reconciliation:
        """The books compared with a broker's statements."""
        return await self._worker.run(
            lambda: self._reports.reconcile(request.statements, request.tolerance)
        )

    @handles(RecentEntries)
    async def recent_entries(self, request: RecentEntries) -> tuple[EntryRecord, ...]:
        """The newest entries, newest first."""
        return await self._worker.run(lambda: self._reports.recent_entries(request.limit))

    @handles(ReadTotals)
    async def totals(self, _: ReadTotals) -> LedgerTotals:
        """The figures for the tick, all of the same moment."""
        return await self._in_thread(sum(map(len, self._book.lots.values())), self._totals)

    def _totals(self) -> LedgerTotals:
        totals = self._book.totals
        return LedgerTotals(
            nav_minor=self._book.net_asset_value(),
            unpriced=self._book.unpriced(),
            external_minor=-totals.get(accounts.EXTERNAL, 0),
            fees_minor=totals.get(accounts.MANAGEMENT_FEES, 0)
            + totals.get(accounts.PERFORMANCE_FEES, 0),
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
                # By the text of the key: None, for no strategy, does not compare with names.
                for (strategy, instrument), lots in sorted(
                    ((key, lots.values()) for key, lots in self._book.lots.items()),
                    key=lambda position: str(position[0]),
                )
            ),
        )


def _stands_alone(answer: Answer, durable: int) -> bool:
    """Whether an answer holds although the commit of its run failed.

    Entries that were on disk before do hold, and so do faults of a request itself. Any other
    refusal may rest on entries that were dropped: there was no money left, since an earlier request
    of the same run had withdrawn it.
    """
    if isinstance(answer, Rejected):
        return isinstance(answer, BadField)
    posted = answer if isinstance(answer, tuple) else (answer,)
    return all(entry.seq <= durable for entry in posted)
