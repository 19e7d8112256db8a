"""The ledger's step by plain calls: runs, faults of one kind, and strategies without real money."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from fundops.actors.oversight.booking import Booking
from fundops.wire.controller import Fill
from fundops.wire.errors import HostFault, HostLate, LedgerDegraded
from fundops.wire.ledger import (
    REPORTS_MAX,
    BookCashEvents,
    Booked,
    BookFills,
    BookSettlements,
    LedgerTotals,
    ReadTotals,
)
from fundops.wire.promotion import EntitlementTerms, PromotionStage


class Source:
    """One reporting part of a host."""

    def __init__(self, host: Host, name: str) -> None:
        self._host = host
        self._name = name

    def read(self, after: str) -> Any:
        return self._host.read(self._name, after)


class Host:
    """Reports that were set, by source; an exception is raised, and None is awaited."""

    def __init__(self, **reports: Any) -> None:
        self.soon: dict[str, Any] = {}
        self.reports = reports
        self.asked: list[tuple[str, str]] = []
        self.fills = Source(self, "fills")
        self.settlements = Source(self, "settlements")
        self.cash_events = Source(self, "cash_events")

    def read(self, source: str, after: str) -> Any:
        self.asked.append((source, after))
        answer = self.reports.get(source, ())
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def settle(self) -> None:
        """What is due soon comes in: a None becomes these reports."""
        for source, answer in self.reports.items():
            if answer is None and source in self.soon:
                self.reports[source] = self.soon[source]


class Ledger:
    """Notes the requests; `refusal` is raised by the next booking."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.refusal: Exception | None = None

    async def __call__(self, request: Any) -> Any:
        if isinstance(request, ReadTotals):
            return LedgerTotals(0, 0, 0, 0, {"fills": "7"}, (), {})
        refusal, self.refusal = self.refusal, None
        if refusal is not None:
            raise refusal
        self.requests.append(request)
        return Booked(1, "8")

    def sizes(self) -> list[int]:
        return [len(request.fills) for request in self.requests]


def fill(strategy: Any) -> Fill:
    return Fill("1", strategy, "X", Decimal(1), Decimal(1), Decimal(0), 0)


def booking(**reports: Any) -> tuple[Booking, Any, Ledger]:
    host: Any = Host(**reports)
    ledger = Ledger()
    return Booking(host, ledger), host, ledger


async def test_each_kind_is_asked_after_its_stored_cursor() -> None:
    step, host, ledger = booking()
    booked = await step.book(None)
    assert host.asked == [("fills", "7"), ("settlements", ""), ("cash_events", "")]
    assert ledger.requests == []
    assert booked.fault is None


async def test_a_long_report_is_booked_in_four_runs_a_tick_and_read_once() -> None:
    step, host, ledger = booking(fills=(None,) * (4 * REPORTS_MAX + 3))
    await step.book(None)
    assert ledger.sizes() == [REPORTS_MAX] * 4
    host.reports["fills"] = ()
    await step.book(None)
    await step.book(None)
    assert ledger.sizes() == [REPORTS_MAX] * 4 + [3]
    assert [after for source, after in host.asked if source == "fills"] == ["7", "7"]


async def test_a_fault_of_one_kind_leaves_the_others_alone() -> None:
    step, _, ledger = booking(fills=HostFault("fills", "raised"), settlements=(None,))
    fault = (await step.book(None)).fault
    assert isinstance(fault, HostFault)
    assert str(fault) == "controller.fills: raised"
    assert ledger.requests == [BookSettlements((None,))]  # type: ignore[arg-type]


async def test_what_a_refusal_left_is_read_again_from_the_stored_cursor() -> None:
    step, host, ledger = booking(fills=(None,) * (4 * REPORTS_MAX + 3))
    await step.book(None)
    ledger.refusal = LedgerDegraded("full")
    assert isinstance((await step.book(None)).fault, LedgerDegraded)
    host.reports["fills"] = (None,)
    await step.book(None)
    assert ledger.sizes()[-1] == 1


async def test_an_answer_that_comes_while_settling_is_booked_by_the_same_tick() -> None:
    step, host, ledger = booking(fills=None)
    host.soon = {"fills": (None,)}
    await step.book(None)
    assert ledger.sizes() == [1]


async def test_an_answer_that_is_awaited_fails_nothing_and_is_booked_by_a_later_tick() -> None:
    step, host, ledger = booking(fills=None, cash_events=(None,))
    await step.book(None)
    assert [type(request) for request in ledger.requests] == [BookCashEvents]
    host.reports = {"fills": (None,)}
    await step.book(None)
    assert [type(request) for request in ledger.requests[1:]] == [BookFills]


async def test_settlements_wait_for_the_fills_before_them() -> None:
    step, host, ledger = booking(fills=None, settlements=(None,))
    await step.book(None)
    assert ledger.requests == []
    host.reports = {"fills": (None,)}
    await step.book(None)
    assert [type(request) for request in ledger.requests] == [BookFills, BookSettlements]
    assert [source for source, _ in host.asked].count("settlements") == 1


async def test_settlements_wait_for_the_fills_that_are_left_for_the_next_tick() -> None:
    fills = (None,) * (4 * REPORTS_MAX + 1)
    step, host, ledger = booking(fills=fills, settlements=(None,))
    await step.book(None)
    assert [type(request) for request in ledger.requests] == [BookFills] * 4
    host.reports = {}
    await step.book(None)
    assert [type(request) for request in ledger.requests[-2:]] == [BookFills, BookSettlements]


async def test_settlements_do_not_wait_for_fills_that_are_late() -> None:
    step, host, ledger = booking(fills=None, settlements=(None,))
    await step.book(None)
    host.reports = {"fills": HostLate("fills", "did not answer within 1 s")}
    assert isinstance((await step.book(None)).fault, HostLate)
    assert [type(request) for request in ledger.requests] == [BookSettlements]


async def test_strategies_without_real_money_are_named_with_their_stage() -> None:
    paper = EntitlementTerms("paper", PromotionStage.Paper, "paper", 0.0)
    live = EntitlementTerms("live", PromotionStage.Live_Small, "live", 0.01)
    names: list[Any] = ["paper", "live", "stranger", 5, ["unhashable"]]
    step, _, ledger = booking(fills=(*map(fill, names), None))
    await step.book({"paper": paper, "live": live})
    await step.book(None)
    first, second = ledger.requests
    assert isinstance(first, BookFills)
    assert first.unentitled == {"paper": "paper", "stranger": "unregistered"}
    assert second.unentitled == {}, "without promotion every strategy trades real money"
