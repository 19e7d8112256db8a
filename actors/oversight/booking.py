"""The ledger's step of the tick: reports of the engine and its venues are booked, once each.

Fills, settlements and cash events come after their stored cursors, and are independent of each
other: a fault of one kind leaves the others alone. A report whose answer is awaited is read by a
later tick. Settlements wait for fills that are awaited or not booked yet. The ledger decides report
by report and sets
aside what cannot be booked, so nothing waits behind a bad one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ...runtime import ActorError, FundopsError
from ...wire.alert import AlertDraft, Category, resolved
from ...wire.foreign import field_of, plain_text
from ...wire.ledger import (
    REPORTS_MAX,
    BookCashEvents,
    BookFills,
    BookSettlements,
    LedgerTotals,
    ReadTotals,
)
from ...wire.promotion import EntitlementTerms
from ..host import Host
from ..persistence import Rows

__all__ = ["RUNS_PER_TICK", "UNENTITLED", "Booked", "Booking", "entitled_again"]

# Runs of one kind in a tick, so that a long report delays the rest of the tick by a second or two
# at most. The rest of it is booked in the next ticks.
RUNS_PER_TICK = 4

UNENTITLED = "unentitled:"  # dedup keys are this, the strategy and its stage


Renew = Callable[[], Awaitable[Mapping[str, EntitlementTerms]]]
# Makes the request for a run: its reports, and whether it begins and ends a report of the engine.
_Request = Callable[[Any, bool, bool], Awaitable[Any]]


class _Answer(NamedTuple):
    """An answer of the engine, or the rest of one."""

    reports: Sequence[Any]
    begins: bool  # whether the first of them is the first of the answer


class Booked(NamedTuple):
    """The ledger's totals after a step, and the first fault of it."""

    totals: LedgerTotals
    fault: FundopsError | None  # None: all kinds of reports were tried without one


class Booking:
    """Reads reports from the host and has the ledger book them.

    `ask` asks the ledger and returns its answer.
    """

    def __init__(self, host: Host, ask: Callable[[Any], Awaitable[Any]]) -> None:
        self._host = host
        self._ask = ask
        self._left: dict[str, _Answer] = {}  # by source: reports read and not yet booked

    async def book(
        self,
        terms: Mapping[str, EntitlementTerms] | None,
        renew: Renew | None = None,
        totals: LedgerTotals | None = None,
    ) -> Booked:
        """Book the new reports. `terms` are those in force; None: every strategy trades real money.

        `renew` gets the terms of now. It is called when a fill is not entitled by those given.
        `totals` are those of the ledger now; None: they are asked for.

        Raises: `ActorError` when the ledger cannot be asked.
        """
        known: LedgerTotals = await self._ask(ReadTotals()) if totals is None else totals

        async def fills(run: tuple[Any, ...], begins: bool, ends: bool) -> BookFills:
            unentitled = _unentitled(run, terms)
            if unentitled and renew is not None:
                # A strategy may have been registered or adopted since the last tick.
                with suppress(ActorError):
                    unentitled = _unentitled(run, await renew())
            return BookFills(run, unentitled, begins, ends)

        async def settlements(run: tuple[Any, ...], begins: bool, ends: bool) -> BookSettlements:
            return BookSettlements(run, begins, ends)

        async def cash_events(run: tuple[Any, ...], begins: bool, ends: bool) -> BookCashEvents:
            return BookCashEvents(run, begins, ends)

        requests: dict[str, _Request] = {
            "fills": fills,
            "settlements": settlements,
            "cash_events": cash_events,
        }
        faults = dict[str, FundopsError]()
        answers = self._read(requests, known.cursors, faults)
        awaited = [source for source, answer in answers.items() if answer is None]
        if awaited:  # asked in another thread, where a quick answer is due soon
            await self._host.settle()
            answers |= self._read(awaited, known.cursors, faults)
        fills_wait, asked = answers.get("fills", ()) is None, False
        for source, answer in answers.items():
            if answer is None:
                continue
            if source == "settlements" and (fills_wait or "fills" in self._left):
                # A settlement closes the lots of the fills before it, which would stay open
                # otherwise. Fills are awaited for their deadline at most.
                self._left[source] = answer
                continue
            asked |= bool(answer.reports)
            try:
                await self._book(source, answer, requests[source])
            except FundopsError as fault:
                # The stored cursor says how far the ledger came; the rest is read again.
                faults[source] = fault
        if asked:
            known = await self._ask(ReadTotals())
        return Booked(known, next(iter(faults.values()), None))

    def _read(
        self,
        sources: Iterable[str],
        cursors: Mapping[str, str],
        faults: dict[str, FundopsError],
    ) -> dict[str, _Answer | None]:
        """The reports to book, by source; None: their answer is awaited."""
        host = self._host
        readers = {
            "fills": host.fills,
            "settlements": host.settlements,
            "cash_events": host.cash_events,
        }
        answers: dict[str, _Answer | None] = {}
        for source in sources:
            answers[source] = self._left.pop(source, None)
            if answers[source] is None:
                try:
                    reports = readers[source].read(cursors.get(source, ""))
                except FundopsError as fault:
                    del answers[source]
                    faults[source] = fault
                else:
                    answers[source] = None if reports is None else _Answer(reports, begins=True)
        return answers

    async def _book(self, source: str, answer: _Answer, request: _Request) -> None:
        reports, begins = answer
        for _ in range(RUNS_PER_TICK):
            if not reports:
                return
            run, reports = tuple(reports[:REPORTS_MAX]), reports[REPORTS_MAX:]
            await self._ask(await request(run, begins, not reports))
            begins = False
        if reports:
            self._left[source] = _Answer(reports, begins=False)


def _unentitled(
    fills: Sequence[Any], terms: Mapping[str, EntitlementTerms] | None
) -> dict[str, str]:
    """The stage of each strategy among these fills that may not use real money."""
    if terms is None:
        return {}
    # The fills are not checked yet: a name may be anything.
    given = dict.fromkeys(plain_text(field_of(fill, "strategy")) for fill in fills)
    stages = {name: _stage_without_money(name, terms) for name in given if name is not None}
    return {name: stage for name, stage in stages.items() if stage is not None}


def _stage_without_money(name: str, terms: Mapping[str, EntitlementTerms]) -> str | None:
    """The stage of a strategy that may not use real money; None: it may."""
    entitled = terms.get(name)
    if entitled is None:
        return "unregistered"
    return None if entitled.real_capital_fraction else entitled.stage.value


def entitled_again(rows: Rows, terms: Mapping[str, EntitlementTerms] | None) -> list[AlertDraft]:
    """The end of the open alerts about strategies that may use real money by now."""
    open_keys = rows.rows(
        "SELECT dedup_key FROM alert_key WHERE dedup_key >= ? AND dedup_key < ?",
        (UNENTITLED, "unentitled;"),  # ";" is the character after ":"
    )
    named = [(key, _strategy_of(key)) for (key,) in open_keys]
    return [
        resolved(
            Category.RISK_LIMIT,
            f"{name} is entitled to real money now",
            key,
            name,
        )
        for key, name in named
        if terms is None or _stage_without_money(name, terms) is None
    ]


def _strategy_of(key: str) -> str:
    """The strategy in a key that ends in a colon and its stage."""
    return key.removeprefix(UNENTITLED).rpartition(":")[0]
