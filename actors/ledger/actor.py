"""The ledger actor: decides a run of requests on a draft, commits it at once, then applies it.

Durable first, visible second: every reply waits for the commit. When storage refuses, the draft is
dropped and each request that would have booked something new gets that refusal. When the outcome of
a commit is unknown, the book is read again from disk, so that memory and disk always agree.

The event loop is shared with all other actors, the kill switch among them. So long work, such as a
large run or a question to the file, runs in one thread, one piece after the other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
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
from ...wire.alert import AlertDraft, Category, resolved
from ...wire.errors import (
    AmountError,
    BadField,
    LedgerDegraded,
    LedgerFailed,
    StorageDegraded,
    StorageFailed,
    UnknownReport,
)
from ...wire.ledger import (
    BOOKABLE,
    REPORTS_MAX,
    AsideReport,
    BalanceSheet,
    BookCashEvents,
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
    ReportsAside,
    SkipReport,
    TrialBalance,
)
from ...wire.ledger import Entry as EntryRecord
from ...wire.money import from_minor
from ...wire.paging import checked_limit
from ...wire.persistence import Statement
from ..alert.requests import alert_ref, requested, wake_alerts
from ..persistence import DurableActor, Reader, StateDiverged
from . import accounts, schema
from .book import RUN, Book, Draft
from .entry import Balances, Entry, Original
from .events import Rules
from .fields import KEY_MAX, MEMO_MAX, NAME_MAX, check_text
from .flows import converted_by_fund, earned_by_fund
from .intake import (
    Decided,
    Decision,
    Known,
    Write,
    decide_run,
    events_of,
    keys_to_look_up,
    work_of,
)
from .keys import MINTED_BELOW
from .prices import prices_as_of
from .reported import CashEvents, Fills, Outcome, Settlements, aside_alert_key
from .reports import Reports

__all__ = ["LedgerActor"]

log = logging.getLogger("fundops.ledger")

Decider = Fills | Settlements | CashEvents
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
        # By source, while a report comes in several requests: the keys that it has booked.
        self._seen: dict[str, set[str]] = {}
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
        if refusal is not None:
            return _of_ledger(refusal)
        self._book.apply(draft)
        minted = [entry.key for entry in draft.entries if entry.key < MINTED_BELOW]
        self._newest_minted = max([self._newest_minted, *minted])
        return None

    # -- booking reports of the engine

    @handles(BookFills)
    async def book_fills(self, request: BookFills) -> Booked:
        """Book the fills that are new, and set aside those that cannot be booked."""
        return await self._book_reports(
            "fills",
            request,
            request.fills,
            lambda draft: Fills(draft, self._file(), self._clock.now_us(), request.unentitled),
        )

    @handles(BookSettlements)
    async def book_settlements(self, request: BookSettlements) -> Booked:
        """Book settlements as `book_fills` books fills, and announce each new one."""
        return await self._book_reports(
            "settlements",
            request,
            request.settlements,
            lambda draft: Settlements(draft, self._file(), self._clock.now_us()),
        )

    @handles(BookCashEvents)
    async def book_cash_events(self, request: BookCashEvents) -> Booked:
        """Book cash events as `book_fills` books fills."""
        return await self._book_reports(
            "cash_events",
            request,
            request.events,
            lambda draft: CashEvents(draft, self._file(), self._clock.now_us()),
        )

    def _file(self) -> _File:
        return _File(self._reader)

    async def _book_reports(
        self,
        source: str,
        part: BookFills | BookSettlements | BookCashEvents,
        reports: Sequence[object],
        decider: Callable[[Draft], Decider],
    ) -> Booked:
        """Book the reports in runs of bounded size, each in one commit with its newest cursor.

        Raises: the refusal of storage; the runs before it are booked.
        """
        earlier = self._seen.pop(source, set())
        seen = set[str]() if part.begins else earlier
        runs = [
            await self._book_run(source, reports[start : start + REPORTS_MAX], decider, seen)
            for start in range(0, len(reports), REPORTS_MAX)
        ]
        if not part.ends:
            self._seen[source] = seen
        return self._in_all(source, runs)

    def _in_all(self, source: str, runs: Sequence[Booked]) -> Booked:
        aside = {report.key: report for run in runs for report in run.aside}
        new, cursor = sum(run.new for run in runs), self._cursors.get(source, "")
        return Booked(new, cursor, tuple(aside.values()))

    async def _book_run(
        self,
        source: str,
        reports: Sequence[object],
        decider: Callable[[Draft], Decider],
        seen: set[str],
    ) -> Booked:
        draft = self._draft()
        work = len(reports) * LOOKUP + sum(map(len, self._book.lots.values()))
        decisions = decider(draft)
        outcome = await self._in_thread(work, lambda: decisions.decide(reports, seen))
        refusal = await self._append_run(source, draft, work, decisions, outcome)
        if isinstance(refusal, AmountError):
            # One report is too large for a column: halve the run until that one is alone.
            if len(reports) > 1:
                half = len(reports) // 2
                parts = (reports[:half], reports[half:])
                runs = [await self._book_run(source, part, decider, seen) for part in parts]
                return self._in_all(source, runs)
            draft = self._draft()
            decisions = decider(draft)
            outcome = decisions.refuse(reports[0], str(refusal))
            refusal = await self._append_run(source, draft, work, decisions, outcome)
        if refusal is not None:
            raise refusal
        seen |= outcome.new
        cursor = self._cursors.get(source, "")
        return Booked(len(draft.entries), cursor, tuple(outcome.waiting.values()))

    async def _append_run(
        self, source: str, draft: Draft, work: int, decisions: Decider, outcome: Outcome
    ) -> Rejected | None:
        """Make the decisions about a run durable, with the cursor and the alerts about them."""
        cursor = outcome.cursor
        extra = [
            schema.set_aside(outcome.asides.values()),
            schema.no_longer_aside(outcome.cleared),
        ]
        if cursor is not None and cursor != self._cursors.get(source, ""):
            extra.append(schema.set_cursor(source, cursor))
        alerts = self._requested(decisions.alerts())
        refusal = await self._append(draft, work, *extra, *alerts)
        if refusal is None:
            if cursor is not None:
                self._cursors[source] = cursor
            if alerts:
                wake_alerts(self._alert)
        return refusal

    def _requested(self, alerts: Sequence[AlertDraft]) -> list[Statement]:
        """The rows that ask for these alerts; none in a tree without the alert actor."""
        return [] if self._alert is None else requested(self._clock.now_us(), alerts)

    @handles(SkipReport)
    async def skip_report(self, request: SkipReport) -> AsideReport:
        """Give up a report that was set aside. Raises: `UnknownReport`, `BadField`."""
        check_text("key", request.key, KEY_MAX)
        check_text("reason", request.reason, MEMO_MAX)
        check_text("by", request.by, NAME_MAX)
        silence = await self.load_again()
        if silence is not None:
            raise silence
        aside = schema.aside_named(self._reader, request.key)
        if aside is None:
            raise UnknownReport(request.key)
        text = f"Given up by {request.by}: {request.reason}"
        told = resolved(
            Category.GENERAL,
            f"{aside.kind} {aside.id} was given up",
            aside_alert_key(aside.key),
            message=text,
        )
        now_us = self._clock.now_us()
        skipped = schema.skip_aside(aside.key, request.by, request.reason, now_us)
        refusal = await self.append((skipped, *self._requested((told,))))
        if refusal is not None:
            raise _of_ledger(refusal)
        wake_alerts(self._alert)
        return msgspec.structs.replace(aside, skipped_by=request.by)

    @handles(ReportsAside)
    async def reports_aside(self, request: ReportsAside) -> tuple[AsideReport, ...]:
        """The reports that wait aside, the oldest first."""
        limit = checked_limit(request.limit)
        return await self._worker.run(lambda: schema.reports_aside(self._reader, limit))

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
            lambda: self._reports.reconcile(request.statements, request.tolerance, request.agreed)
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
            fees_minor=self._book.fees_charged(),
            earned_minor=earned_by_fund(self._book),
            converted_minor=converted_by_fund(self._book),
            entries=self._book.seq,
            flows=self._book.flows,
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


def _of_ledger(refusal: Rejected) -> Rejected:
    """A refusal of storage as one of the ledger."""
    if isinstance(refusal, StorageDegraded):
        return LedgerDegraded(str(refusal))
    if isinstance(refusal, StorageFailed):
        return LedgerFailed(str(refusal))
    return refusal


class _File:
    """The look into the file that the decisions about reports need."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def revisions_of(self, prefixes: Iterable[str]) -> dict[str, dict[int, Entry]]:
        return schema.revisions_of(self._reader, prefixes)

    def entries_by_key(self, keys: Iterable[str]) -> dict[str, Entry]:
        return schema.entries_by_key(self._reader, keys)

    def asides_by_key(self, keys: Iterable[str]) -> dict[str, AsideReport]:
        return schema.asides_by_key(self._reader, keys)

    def asides_by_prefix(self, prefixes: Iterable[str]) -> list[AsideReport]:
        return schema.asides_by_prefix(self._reader, prefixes)


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
