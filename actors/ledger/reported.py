"""From reports of the engine to a draft: fills, settlements and cash events, one by one.

The three kinds stand in one long file, since they are one procedure with a few steps that differ.

A report that is wrong is set aside by name, and all others are booked. Each report is checked at
the border first (`wire.border_reports`), then compared with the entries under its key: the same
content is booked once, a higher revision takes the one before back. Plain functions over a draft
and a look into the file; they never wait, and make nothing durable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence, Set
from decimal import Decimal
from hashlib import sha256
from shlex import quote
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from ...runtime import Rejected
from ...wire.alert import AlertDraft, Category, Level, resolved
from ...wire.border_reports import (
    Floats,
    Problem,
    checked_cash_event,
    checked_fill,
    checked_settlement,
    content_of,
    cursor_of,
    id_of,
    identity_of,
)
from ...wire.controller import CashEvent, Fill, Settlement
from ...wire.errors import EntryRefused, IdempotencyConflict
from ...wire.ledger import (
    AsideReport,
    BookFill,
    BookSettlement,
    Deposit,
    Event,
    Financing,
    Income,
    Leg,
    Post,
    RecordLoss,
    RecordProfit,
    ReportKind,
    Reverse,
    Withdraw,
)
from ...wire.money import from_minor, rounded_decimal, text_of
from .accounts import CASH, FINANCING, INCOME, POSITIONS, REALIZED_PNL, UNITS
from .book import Draft, Settled
from .entry import Entry, amount_of, canonical, request_of
from .entry import content_of as request_content
from .keys import (
    cash_event_key,
    fill_prefix,
    late_settlement_key,
    old_fill_key,
    settlement_prefixes,
)

__all__ = ["CashEvents", "Fills", "Outcome", "Reports", "Settlements", "Stored", "aside_alert_key"]

R = TypeVar("R", Fill, Settlement, CashEvent)
Revisions = dict[int, Entry]  # the newest entry of each revision of one report

# Alerts of one run about reports set aside. More than these mean that a whole feed is wrong, which
# the last alert says with the number of the others.
TOLD_ONE_BY_ONE_MAX = 50


class Stored(Protocol):
    """The look into the file."""

    def revisions_of(self, prefixes: Iterable[str]) -> Mapping[str, Revisions]:
        """The durable entries by the prefix of their keys, then by revision."""
        ...

    def entries_by_key(self, keys: Iterable[str]) -> Mapping[str, Entry]:
        """The durable entries that have these keys."""
        ...

    def asides_by_key(self, keys: Iterable[str]) -> Mapping[str, AsideReport]:
        """The reports set aside that have these keys."""
        ...

    def asides_by_prefix(self, prefixes: Iterable[str]) -> Sequence[AsideReport]:
        """The reports set aside, and not given up, whose keys are one of these and a revision."""
        ...


def aside_alert_key(key: str) -> str:
    """The dedup key of the alert about a report set aside."""
    return f"aside:{key}"


class Outcome:
    """The decisions about a run of reports, to be made durable together."""

    def __init__(self) -> None:
        self.cursor: str | None = None  # the newest one in the run; None: none was given
        self.asides: dict[str, AsideReport] = {}  # by key: set aside by this run
        self.cleared: list[str] = []  # keys that were aside and are booked now
        self.waiting: dict[str, AsideReport] = {}  # by key: all of these reports that are aside
        self.new: set[str] = set()  # keys that are booked by this run
        self.alerts: list[AlertDraft] = []


class Reports(ABC, Generic[R]):
    """How one kind of report is checked, found again and booked.

    One object decides one run. It knows the entries booked before, in the file and in this run.
    """

    kind: ReportKind
    name: str  # in the texts for people

    def __init__(self, draft: Draft, stored: Stored, now_us: int) -> None:
        self.draft = draft
        self._stored = stored
        self._now_us = now_us
        floats: Any = draft.rules.floats  # one of the two, or the fund had not started
        self._floats: Floats = floats
        self._outcome = Outcome()

    # -- different for each kind

    @abstractmethod
    def check(self, report: object) -> R | Problem:
        """The report in exact types, or its problem."""

    @abstractmethod
    def key_of(self, report: R) -> str:
        """The key under which this revision of the report is booked."""

    @abstractmethod
    def key_of_bad(self, report: object) -> str | None:
        """The key of a report with another wrong field; None: it cannot be read either."""

    @abstractmethod
    def look_up(self, reports: Sequence[R]) -> None:
        """Find the entries of these reports that were booked before."""

    @abstractmethod
    def book(self, report: R) -> Sequence[Entry]:
        """Add the entries of a report to the draft; none when it is booked already.

        Raises: a refusal, with nothing added.
        """

    def tell(self, report: R, booked: Sequence[Entry]) -> Iterable[AlertDraft]:
        """The alerts about a report that was booked."""
        return ()

    def complete(self, report: R) -> Iterable[AsideReport]:
        """Book the reports that were set aside because this one had not come yet."""
        return ()

    # -- the same for all kinds

    def decide(self, reports: Sequence[object], seen: Set[str] = frozenset()) -> Outcome:
        """Decide each report by itself, in their order.

        `seen` has the keys that earlier runs of the same report have booked.
        """
        outcome = self._outcome
        checked = [self.check(report) for report in reports]
        good = [value for value in checked if not isinstance(value, Problem)]
        self.look_up(good)
        keys = [
            self._key_of_bad(report) if isinstance(value, Problem) else self.key_of(value)
            for report, value in zip(reports, checked, strict=True)
        ]
        asides = dict(self._stored.asides_by_key(keys))
        new, repeated = outcome.new, set[str]()
        # By key, the reports that were aside and are booked now: of two words the later one counts.
        right = dict[str, AsideReport]()
        for report, value, key in zip(reports, checked, keys, strict=True):
            cursor = cursor_of(report)
            if cursor:
                outcome.cursor = cursor
            before = asides.get(key)
            if before is not None and before.content == content_of(report):
                right.pop(key, None)
                if before.skipped_by is None:
                    outcome.waiting[key] = before
                continue
            if isinstance(value, Problem):
                asides[key] = self._set_aside(report, key, str(value))
                right.pop(key, None)
                continue
            try:
                booked = self.book(value)
            except Rejected as refusal:
                asides[key] = self._set_aside(report, key, str(refusal))
                right.pop(key, None)
                continue
            if booked:
                new.add(key)
                outcome.alerts += self.tell(value, booked)
                for aside in self.complete(value):
                    for known in (asides, outcome.asides, outcome.waiting):
                        known.pop(aside.key, None)
                    right[aside.key] = aside
            elif (key in new or key in seen) and key not in repeated:
                repeated.add(key)
                outcome.alerts.append(self._repeated(value, key))
            # A content that a person gave up stays given up, also when another one is booked.
            if before is not None and before.skipped_by is None:
                right[key] = before
                for known in (asides, outcome.asides, outcome.waiting):
                    known.pop(key, None)
        # A report that the engine has put right is done with.
        for key in sorted(right):
            outcome.cleared.append(key)
            outcome.alerts.append(self._resolved(right[key]))
        return outcome

    def refuse(self, report: object, reason: str) -> Outcome:
        """Set one report aside for a reason found later than here, with nothing booked."""
        value = self.check(report)
        key = self._key_of_bad(report) if isinstance(value, Problem) else self.key_of(value)
        self._set_aside(report, key, reason)
        self._outcome.cursor = cursor_of(report) or None
        return self._outcome

    def _key_of_bad(self, report: object) -> str:
        """The key of a report that is wrong, so that it is found again when it was put right.

        Where its identity cannot be read, the content stands for it.
        """
        key = self.key_of_bad(report)
        return key or f"{self.kind}:{sha256(content_of(report).encode()).hexdigest()[:32]}"

    def _set_aside(self, report: object, key: str, reason: str) -> AsideReport:
        aside = AsideReport(self.kind, key, id_of(report), content_of(report), reason, self._now_us)
        self._outcome.asides[key] = self._outcome.waiting[key] = aside
        return aside

    def alerts(self) -> list[AlertDraft]:
        """The alerts of the run, those about reports set aside first."""
        told = [
            AlertDraft(
                Level.CRITICAL,
                Category.GENERAL,
                f"{self.name} {aside.id} is set aside",
                f"{aside.reason}. It is not booked, later reports are. It is tried again when its "
                f"content changes; to give it up: fundops ledger skip-report {quote(aside.key)} "
                "--reason ...",
                dedup_key=aside_alert_key(aside.key),
            )
            for aside in self._outcome.asides.values()
        ]
        if len(told) > TOLD_ONE_BY_ONE_MAX:
            more = len(told) - TOLD_ONE_BY_ONE_MAX
            told[TOLD_ONE_BY_ONE_MAX:] = [
                AlertDraft(
                    Level.CRITICAL,
                    Category.GENERAL,
                    f"{more:,} more reports of this kind are set aside: {self.name}",
                    "All of them: fundops ledger reports-aside",
                )
            ]
        return told + self._outcome.alerts

    def _repeated(self, report: R, key: str) -> AlertDraft:
        return AlertDraft(
            Level.WARNING,
            Category.GENERAL,
            f"{self.name} {report.id} came twice in one report",
            "Both have the same content, and it was booked once. If they are two events, their ids "
            "must differ.",
            dedup_key=f"repeated:{key}",
        )

    def _resolved(self, aside: AsideReport) -> AlertDraft:
        return resolved(
            Category.GENERAL,
            f"{self.name} {aside.id} is no longer set aside",
            aside_alert_key(aside.key),
            message="The engine has put it right.",
        )


# -- fills

# The end of the reason why a bust waits for its fill. It is stored, so it stays as it is.
_WAITS_FOR_ITS_FILL = "is busted, but was never booked"


class Fills(Reports[Fill]):
    """Fills: one by strategy, instrument and id; a revision books the opposite of the one before.

    `unentitled` has the stage of each strategy that may not use real money.
    """

    kind = "fill"
    name = "Fill"

    def __init__(
        self, draft: Draft, stored: Stored, now_us: int, unentitled: Mapping[str, str]
    ) -> None:
        super().__init__(draft, stored, now_us)
        self._unentitled = unentitled
        self._revisions: dict[str, Revisions] = {}  # by prefix
        self._prefixes: dict[tuple[str, str, str], str] = {}
        self._told: set[str] = set()  # strategies
        # Busts that came before their fill and are set aside, by prefix, then by revision.
        self._busts: dict[str, dict[int, AsideReport]] = {}

    def check(self, report: object) -> Fill | Problem:
        return checked_fill(report, self._now_us, floats=self._floats)

    def key_of(self, report: Fill) -> str:
        return f"{self._prefix(report)}{report.revision}"

    def key_of_bad(self, report: object) -> str | None:
        identity = identity_of(report, "strategy", "instrument", "id")
        if identity is None:
            return None
        (strategy, instrument, fill_id), revision = identity
        return f"{fill_prefix(strategy, instrument, fill_id)}{revision}"

    def _prefix(self, fill: Fill) -> str:
        three = (fill.strategy, fill.instrument, fill.id)
        if three not in self._prefixes:
            self._prefixes[three] = fill_prefix(*three)
        return self._prefixes[three]

    def look_up(self, reports: Sequence[Fill]) -> None:
        prefixes = {self._prefix(fill) for fill in reports}
        self._revisions.update(self._stored.revisions_of(prefixes))
        for aside in self._stored.asides_by_prefix(prefixes):
            self._note_bust(aside)
        old = self._stored.entries_by_key({old_fill_key(fill.id) for fill in reports})
        for fill in reports:
            entry = old.get(old_fill_key(fill.id))
            if entry is not None and _is_of(entry, fill):
                self._revisions.setdefault(self._prefix(fill), {}).setdefault(0, entry)

    def book(self, report: Fill) -> Sequence[Entry]:
        revisions = self._revisions.setdefault(self._prefix(report), {})
        latest = max(revisions, default=-1)
        if report.revision < latest:
            return ()
        event, key = _fill_event(report), self.key_of(report)
        if report.revision == latest:
            _check_same_fill(report, event, revisions[latest])
            return ()
        if latest < 0:
            if not report.quantity and report.revision:
                raise EntryRefused(f"fill {report.id!r} {_WAITS_FOR_ITS_FILL}")
            booked = [self._decide(self.draft, event, key)]
        else:
            booked = self._replace(revisions[latest], report, event, key)
        if booked:
            revisions[report.revision] = booked[-1]
        return booked

    def _set_aside(self, report: object, key: str, reason: str) -> AsideReport:
        aside = super()._set_aside(report, key, reason)
        self._note_bust(aside)
        return aside

    def _note_bust(self, aside: AsideReport) -> None:
        prefix, _, revision = aside.key.rpartition(":")
        busts = self._busts.setdefault(f"{prefix}:", {})
        if aside.reason.endswith(_WAITS_FOR_ITS_FILL):
            busts[int(revision)] = aside
        elif revision.isdecimal():
            busts.pop(int(revision), None)

    def complete(self, report: Fill) -> Iterable[AsideReport]:
        prefix = self._prefix(report)
        revisions = self._revisions[prefix]
        for revision, aside in sorted(self._busts.pop(prefix, {}).items()):
            before = revisions[max(revisions)]
            # A bust of an older revision is replaced by this fill, and needs no entry.
            if revision > report.revision and not _takes_back(before):
                try:
                    # The fill was never held, so it is taken back at its own time.
                    entry = self._decide(self.draft, _opposite(before, report.at_us), aside.key)
                except Rejected:
                    continue
                revisions[revision] = entry
            yield aside

    def _replace(self, before: Entry, fill: Fill, event: BookFill, key: str) -> list[Entry]:
        """Take the revision before back, and book the new one; a bust only takes back."""
        fork, booked = self.draft.fork(), list[Entry]()
        if not _takes_back(before):
            back_key = f"{key}:reversal" if fill.quantity else key
            booked.append(self._decide(fork, _opposite(before, fill.at_us), back_key))
        if fill.quantity:
            booked.append(self._decide(fork, event, key))
        self.draft.adopt(fork)
        return booked

    def _decide(self, draft: Draft, event: BookFill, key: str) -> Entry:
        """Add a trade; in a market that is settled already, its lot is settled at once.

        So the books end the same whether a fill comes before the settlement or after it.
        """
        settled = _settled_before(draft, event)
        if settled is None:
            return draft.decide(event, key, self._now_us, reported=True)
        fork = draft.fork()
        entry = fork.decide(event, key, self._now_us, reported=True)
        settlement = _late_for(fork, event, settled)
        fork.decide(settlement, late_settlement_key(key), self._now_us, reported=True)
        draft.adopt(fork)
        return entry

    def tell(self, report: Fill, booked: Sequence[Entry]) -> Iterable[AlertDraft]:
        stage = self._unentitled.get(report.strategy)
        if stage is None or report.strategy in self._told:
            return
        # An entry that opened no lot has only reduced a position.
        if any(image.id == entry.seq for entry in booked for image in entry.lots):
            self._told.add(report.strategy)
            yield AlertDraft(
                Level.CRITICAL,
                Category.RISK_LIMIT,
                f"{report.strategy} traded real money without entitlement",
                f"Its stage is {stage}. Fill {report.id} of {text_of(report.quantity)} "
                f"{report.instrument} at {text_of(report.price)} is booked under its name.",
                report.strategy,
                dedup_key=f"unentitled:{report.strategy}:{stage}",
            )


def _fill_event(fill: Fill) -> BookFill:
    return BookFill(
        fill.instrument,
        fill.quantity,
        fill.price,
        fill.fee,
        fee_asset=fill.fee_asset,
        strategy=fill.strategy,
        at_us=fill.at_us,
    )


def _is_of(entry: Entry, fill: Fill) -> bool:
    """Whether an entry with an old key, which has the id alone, is of this very fill."""
    content = request_content(entry)
    return (content.get("strategy"), content.get("instrument")) == (fill.strategy, fill.instrument)


def _takes_back(entry: Entry) -> bool:
    """Whether the entry is the opposite of a fill, so that nothing of the fill is left."""
    return request_content(entry).get("takes_back") is not None


def _check_same_fill(fill: Fill, event: BookFill, entry: Entry) -> None:
    """Raises: `IdempotencyConflict` when this revision was booked with another content."""
    if _takes_back(entry):
        same = not fill.quantity
    elif entry.key == old_fill_key(fill.id):
        # Earlier versions have rounded these figures before they booked them.
        rounded = msgspec.structs.replace(
            event,
            quantity=rounded_decimal(fill.quantity),
            price=rounded_decimal(fill.price),
            fee=rounded_decimal(fill.fee),
        )
        same = request_of(entry) == canonical(rounded)
    else:
        same = request_of(entry) == canonical(event)
    if not same:
        raise IdempotencyConflict(entry.key, entry.seq)


def _opposite(entry: Entry, at_us: int) -> BookFill:
    """The trade that takes a booked fill back, with the same figures and the opposite sign."""
    content = request_content(entry)
    return BookFill(
        content["instrument"],
        -amount_of(content["quantity"]),
        amount_of(content["price"]),
        -amount_of(content["fee"]),
        fee_asset=content.get("fee_asset"),
        takes_back=entry.seq,
        strategy=content["strategy"],
        at_us=at_us,
    )


# -- settlements


def _is_paid(entry: Entry) -> bool:
    """Whether an earlier entry has paid a part of this settlement."""
    return request_content(entry).get("paid") is not None


def _is_closed(entry: Entry) -> bool:
    """Whether a settlement has closed lots, and its cost is booked as theirs."""
    return bool(entry.lots) or _is_paid(entry)


def _settled_before(draft: Draft, fill: BookFill) -> Settled | None:
    """The settlement of the fill's market that was booked before it, where it counts for it."""
    lot_key = (fill.strategy, fill.instrument)
    settled = draft.settlement_of(lot_key)
    # Lots that are open, and later trades, are those of a market that trades again.
    if settled is None or draft.open_lots(lot_key):
        return None
    traded_us = fill.at_us
    if fill.takes_back is not None and (taken := draft.original(fill.takes_back)) is not None:
        traded_us = taken.entry.at_us
    newest = draft.original(settled.seq)
    if traded_us is None or traded_us > settled.at_us:
        return None
    return None if newest is None or newest.reversed_by is not None else settled


def _late_for(draft: Draft, fill: BookFill, settled: Settled) -> BookSettlement:
    """The settlement of the lot that a late trade has opened.

    All entries of the settlement together pay the payoff, and where no position is left of the
    trades, the payoff less the cost, as a settlement without any trade does.
    """
    newest = draft.original(settled.seq)
    assert newest is not None
    content = request_content(newest.entry)
    cost, payoff = (rounded_decimal(amount_of(content[name])) for name in ("cost", "payoff"))
    paid, held = from_minor(settled.paid_minor), None
    if settled.held is not None:
        held = from_minor(settled.held) + _held(draft, fill.strategy, fill.instrument)
        paid += 0 if held else cost
    return BookSettlement(fill.instrument, cost, payoff, paid, held, strategy=fill.strategy)


def _held(draft: Draft, strategy: str | None, market: str) -> Decimal:
    """The open position of a strategy in a market."""
    lots = draft.open_lots((strategy, market)).values()
    return from_minor(sum(lot.quantity for lot in lots))


class Settlements(Reports[Settlement]):
    """Settlements: one by id; a revision books the difference to the one before."""

    kind = "settlement"
    name = "Settlement"

    def __init__(self, draft: Draft, stored: Stored, now_us: int) -> None:
        super().__init__(draft, stored, now_us)
        self._revisions: dict[str, Revisions] = {}  # by id

    def check(self, report: object) -> Settlement | Problem:
        return checked_settlement(report, floats=self._floats)

    def key_of(self, report: Settlement) -> str:
        return f"{settlement_prefixes(report.id)[0]}{report.revision}"

    def key_of_bad(self, report: object) -> str | None:
        identity = identity_of(report, "id")
        if identity is None:
            return None
        (settlement_id,), revision = identity
        return f"{settlement_prefixes(settlement_id)[0]}{revision}"

    def look_up(self, reports: Sequence[Settlement]) -> None:
        prefixes = {report.id: settlement_prefixes(report.id) for report in reports}
        found = self._stored.revisions_of([one for of_id in prefixes.values() for one in of_id])
        for settlement_id, of_id in prefixes.items():
            self._revisions[settlement_id] = {}
            for prefix in of_id:
                self._revisions[settlement_id].update(found.get(prefix, {}))

    def book(self, report: Settlement) -> Sequence[Entry]:
        revisions = self._revisions[report.id]
        latest = max(revisions, default=-1)
        if report.revision < latest:
            return ()
        event = BookSettlement(report.market, report.cost, report.payoff, strategy=report.strategy)
        if report.revision == latest:
            _check_same_settlement(event, revisions[latest])
            return ()
        fork, key, booked = self.draft.fork(), self.key_of(report), list[Entry]()
        if latest >= 0:
            event, reversal = self._after(revisions[latest], event, report)
            if reversal is not None:
                booked.append(self._decide(fork, reversal, f"{key}:reversal"))
        held = _held(fork, event.strategy, event.market)
        if held:
            event = msgspec.structs.replace(event, held=held)
        booked.append(self._decide(fork, event, key))
        self.draft.adopt(fork)
        revisions[report.revision] = booked[-1]
        return booked

    def _decide(self, draft: Draft, event: Event, key: str) -> Entry:
        return draft.decide(event, key, self._now_us, reported=True)

    def _after(
        self, before: Entry, event: BookSettlement, report: Settlement
    ) -> tuple[BookSettlement, Reverse | None]:
        """The event of a revision, and the reversal of the one before, if it is to be reversed."""
        content = request_content(before)
        settled = self.draft.settlement_of((content["strategy"], content["market"]))
        newest = None if settled is None else self.draft.original(settled.seq)
        if _is_closed(before) or (newest is not None and _is_paid(newest.entry)):
            # Lots that are closed stay closed: only the rest of the payoff moves.
            if (content["market"], content["strategy"]) != (event.market, event.strategy):
                raise EntryRefused(
                    f"settlement {report.id!r} closed the lots of {content['strategy']!r} in "
                    f"{content['market']!r}; a revision cannot move it"
                )
            paid = rounded_decimal(amount_of(content["payoff"]))
            if settled is not None and settled.held == 0:
                paid += rounded_decimal(report.cost) - rounded_decimal(amount_of(content["cost"]))
            return msgspec.structs.replace(event, paid=paid), None
        original = self.draft.original(before.seq)
        # A person may have reversed the revision before already.
        if original is None or original.reversed_by is not None:
            return event, None
        reason = f"settlement {report.id} revised to {report.revision}"
        return event, Reverse(before.seq, reason, strategy=report.strategy)

    def tell(self, report: Settlement, booked: Sequence[Entry]) -> Iterable[AlertDraft]:
        yield AlertDraft(
            Level.INFO,
            Category.SETTLEMENT,
            f"Settlement booked: {report.market}",
            f"{report.strategy}: cost {report.cost}, payoff {report.payoff}",
            report.strategy,
        )
        entry = booked[-1]
        if not entry.lots or _is_paid(entry):
            return
        cost = from_minor(self._cost_minor(entry))
        if cost != rounded_decimal(report.cost):
            yield AlertDraft(
                Level.WARNING,
                Category.SETTLEMENT,
                f"Settlement of {report.market} names another cost than its fills",
                f"{report.strategy}: the fills booked cost {text_of(cost)}, the settlement says "
                f"{text_of(report.cost)}, which is ignored.",
                report.strategy,
            )

    def _cost_minor(self, entry: Entry) -> int:
        return -sum(amount for account, _, _, amount in entry.legs if account == POSITIONS)


def _check_same_settlement(event: BookSettlement, entry: Entry) -> None:
    """Raises: `IdempotencyConflict` when this revision was booked with another content."""
    content = request_content(entry)
    noted = {
        name: amount_of(content[name]) for name in ("paid", "held") if content.get(name) is not None
    }
    same = msgspec.structs.replace(event, **noted)
    if request_of(entry) != canonical(same):
        raise IdempotencyConflict(entry.key, entry.seq)


# -- cash events

_ACCOUNTS = {
    "interest": INCOME,
    "dividend": INCOME,
    "funding": FINANCING,
    "borrow": FINANCING,
    "fee": FINANCING,
    "other": REALIZED_PNL,
}


class CashEvents(Reports[CashEvent]):
    """Cash events: one by id. They are booked as the events that people book by hand."""

    kind = "cash_event"
    name = "Cash event"

    def __init__(self, draft: Draft, stored: Stored, now_us: int) -> None:
        super().__init__(draft, stored, now_us)
        self._known: dict[str, Entry] = {}

    def check(self, report: object) -> CashEvent | Problem:
        return checked_cash_event(report, self._now_us, floats=self._floats)

    def key_of(self, report: CashEvent) -> str:
        return cash_event_key(report.id)

    def key_of_bad(self, report: object) -> str | None:
        identity = identity_of(report, "id")
        return None if identity is None else cash_event_key(identity[0][0])

    def look_up(self, reports: Sequence[CashEvent]) -> None:
        self._known.update(self._stored.entries_by_key({self.key_of(report) for report in reports}))

    def book(self, report: CashEvent) -> Sequence[Entry]:
        key, event = self.key_of(report), self._event(report)
        known = self._known.get(key)
        if known is not None:
            if request_of(known) != canonical(event):
                raise IdempotencyConflict(key, known.seq)
            return ()
        entry = self.draft.decide(event, key, self._now_us, reported=True)
        self._known[key] = entry
        return (entry,)

    def _event(self, event: CashEvent) -> Event:
        """The event to book. Raises: `EntryRefused`."""
        amount = rounded_decimal(event.amount)
        if event.asset == UNITS:
            raise EntryRefused(f"asset: {UNITS!r} are the fund's own shares, no cash")
        about: dict[str, Any] = {
            "strategy": event.strategy,
            "at_us": event.at_us,
            "memo": f"{event.kind} {event.id}",
        }
        foreign = event.asset not in (None, self.draft.currency)
        if event.kind in ("deposit", "withdrawal"):
            if foreign:
                raise EntryRefused(
                    f"a {event.kind} of {event.asset} has no value in {self.draft.currency}, by "
                    "which units are issued; book it by hand with its value"
                )
            if event.kind == "deposit":
                return Deposit(amount, **about)
            return Withdraw(-amount, **about)
        account = _ACCOUNTS[event.kind]
        if foreign:
            legs = (Leg(CASH, amount, asset=event.asset), Leg(account, -amount, asset=event.asset))
            return Post(legs, **about)
        if account == INCOME:
            return Income(amount, event.instrument, **about)
        if account == FINANCING:
            return Financing(-amount, event.instrument, **about)
        return RecordProfit(amount, **about) if amount > 0 else RecordLoss(-amount, **about)
