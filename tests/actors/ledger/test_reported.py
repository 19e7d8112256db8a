"""Reports of the engine by plain calls: each decided by itself, found again, revised, set aside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundops.actors.ledger.book import Book, Draft
from fundops.actors.ledger.entry import Entry, Original
from fundops.actors.ledger.events import Rules
from fundops.actors.ledger.keys import cash_event_key, fill_prefix, settlement_prefixes
from fundops.actors.ledger.reported import CashEvents, Fills, Outcome, Settlements
from fundops.wire.controller import CashEvent, Fill, Settlement
from fundops.wire.ledger import (
    AsideReport,
    BookFill,
    ClosePeriod,
    Deposit,
    OpenPosition,
    RecordProfit,
    Reverse,
)

D = Decimal
NOW_US = 1_700_000_000_000_000
MINOR = 10**8


class World:
    """A book in memory, with the look into its journal and the reports set aside."""

    def __init__(self, **rules: Any) -> None:
        self.book = Book("USD")
        self.journal: list[Entry] = []
        self.asides: dict[str, AsideReport] = {}
        self.rules = Rules(**rules)

    def revisions_of(self, prefixes: Iterable[str]) -> dict[str, dict[int, Entry]]:
        found: dict[str, dict[int, Entry]] = {}
        for prefix in prefixes:
            for entry in self.journal:
                number = entry.key.removeprefix(prefix)
                if entry.key.startswith(prefix) and number.isdecimal():
                    found.setdefault(prefix, {})[int(number)] = entry
        return found

    def entries_by_key(self, keys: Iterable[str]) -> dict[str, Entry]:
        wanted = set(keys)
        return {entry.key: entry for entry in self.journal if entry.key in wanted}

    def asides_by_key(self, keys: Iterable[str]) -> dict[str, AsideReport]:
        return {key: self.asides[key] for key in keys if key in self.asides}

    def asides_by_prefix(self, prefixes: Iterable[str]) -> list[AsideReport]:
        return [
            aside
            for key, aside in sorted(self.asides.items())
            if f"{key.rpartition(':')[0]}:" in set(prefixes) and aside.skipped_by is None
        ]

    def draft(self) -> Draft:
        return Draft(self.book, self._original, rules=self.rules)

    def _original(self, seq: int) -> Original | None:
        reversals = {entry.reverses: entry.seq for entry in self.journal}
        return Original(self.journal[seq - 1], reversals.get(seq))

    def post(self, event: Any, key: str) -> None:
        draft = self.draft()
        draft.decide(event, key, NOW_US)
        self.take(draft)

    def take(self, draft: Draft) -> None:
        assert draft.sealed is not None
        self.journal += draft.entries
        self.book.apply(draft)

    def report(self, *reports: object, unentitled: dict[str, str] | None = None) -> Outcome:
        kinds: dict[type[object], type[Settlements] | type[CashEvents]] = {
            Settlement: Settlements,
            CashEvent: CashEvents,
        }
        draft = self.draft()
        kind = kinds.get(type(reports[0]))
        decider: Any = (
            Fills(draft, self, NOW_US, unentitled or {})
            if kind is None
            else kind(draft, self, NOW_US)
        )
        outcome: Outcome = decider.decide(reports)
        outcome.alerts = decider.alerts()
        self.take(draft)
        self.asides.update(outcome.asides)
        for key in outcome.cleared:
            self.asides.pop(key, None)
        return outcome

    def total(self, account: str) -> Decimal:
        return Decimal(self.book.totals.get(account, 0)) / MINOR

    def lots(self) -> list[tuple[Decimal, Decimal]]:
        return [
            (Decimal(lot.quantity) / MINOR, Decimal(lot.cost_minor) / MINOR)
            for lots in self.book.lots.values()
            for lot in lots.values()
        ]

    def keys(self) -> list[str]:
        return [entry.key for entry in self.journal]


def fill(fill_id: str, quantity: str, price: str, /, **more: Any) -> Fill:
    plain = Fill(fill_id, "s", "X", Decimal(quantity), Decimal(price), Decimal(0), NOW_US, fill_id)
    return msgspec.structs.replace(plain, **more)


def settlement(payoff: int, revision: int = 0, /, **more: Any) -> Settlement:
    plain = Settlement("m", "M", "s", Decimal(5), Decimal(payoff), revision, "")
    return msgspec.structs.replace(plain, **more)


def cash(event_id: str, kind: Any, amount: str, /, **more: Any) -> CashEvent:
    return msgspec.structs.replace(CashEvent(event_id, kind, Decimal(amount), NOW_US), **more)


def titles(outcome: Outcome) -> list[str]:
    return [f"{alert.level.value} {alert.title}" for alert in outcome.alerts]


# -- products


@pytest.mark.parametrize(
    ("quantity", "price", "cost"),
    [
        ("40000000000", "0.000000004", "160"),
        ("1000000000", "0.0000012345", "1234.5"),
        ("3", "0.333333333333", "1"),
        ("1", "-37.63", "-37.63"),
        ("2", "0.1234567850000000000000000001", "0.24691357"),
    ],
)
def test_a_product_is_exact_and_rounded_once(quantity: str, price: str, cost: str) -> None:
    world = World()
    world.report(fill("1", quantity, price))
    assert world.total("POSITIONS") == Decimal(cost)
    assert world.total("CASH") == -Decimal(cost)


def test_the_profit_of_dust_prices_is_kept() -> None:
    world = World()
    world.report(fill("1", "40000000000", "0.000000004"))
    world.report(fill("2", "-40000000000", "0.0000000049"))
    assert world.total("REALIZED_PNL") == -36
    assert world.lots() == []


def test_the_payload_keeps_the_factors_as_they_came() -> None:
    world = World()
    world.report(fill("1", "40000000000", "0.000000004"), fill("2", "1", "0.123456789"))
    first, second = world.journal
    assert '"price":"4E-9"' in first.request
    assert not first.rounded
    assert '"price":"0.123456789"' in second.request
    assert second.rounded


def test_a_float_counts_as_the_number_that_it_is_written_as() -> None:
    world = World()
    world.report(fill("1", "1", "1", quantity=3.0, price=0.1, fee=3.1499999999999915))
    assert world.total("POSITIONS") == Decimal("0.3")
    assert world.total("TRADING_FEES") == Decimal("3.15")
    assert world.journal[0].rounded


def test_a_fund_that_refuses_floats_sets_them_aside() -> None:
    world = World(floats="refuse")
    outcome = world.report(fill("1", "1", "1", price=0.1), fill("2", "1", "1"))
    assert len(world.journal) == 1
    (aside,) = outcome.asides.values()
    assert aside.reason.startswith("price: 0.1 is a float")


# -- fees


def test_a_negative_fee_is_a_rebate() -> None:
    world = World()
    world.report(fill("1", "1", "10", fee=Decimal("-0.5")))
    assert (world.total("CASH"), world.total("TRADING_FEES")) == (Decimal("-9.5"), Decimal("-0.5"))


def test_a_fee_in_another_asset_has_legs_of_it() -> None:
    world = World()
    world.report(fill("1", "1", "10", fee=Decimal("0.001"), fee_asset="BNB"))
    assert world.total("CASH") == -10
    assert world.book.balance(("CASH", "s", "BNB")) == -100_000
    assert world.book.balance(("TRADING_FEES", "s", "BNB")) == 100_000
    again = world.report(fill("1", "1", "10", fee=Decimal("0.001"), fee_asset="BNB"))
    assert not again.asides
    other = world.report(fill("1", "1", "10", fee=Decimal("0.001"), fee_asset="ETH"))
    assert len(other.asides) == 1


# -- one by one


BAD: list[Any] = [
    fill("2", "1", "10", fee=None),
    fill("2", "0", "10"),
    fill("2", "100000000000", "10"),
    fill("2", "1.23e-16", "10"),
    fill("2", "1", "10", id="i" * 129),
    fill("2", "1", "10", id=""),
    fill("2", "1", "10", id=7),
    fill("2", "1", "10", instrument=""),
    fill("2", "1", "10", strategy=None),
    fill("2", "1", "10", strategy="\ud800"),
    fill("2", "1", "10", price="10"),
    fill("2", "1", "NaN"),
    fill("2", "1", "1e30"),
    fill("2", "1", "10", at_us=NOW_US // 1_000),
    fill("2", "1", "10", at_us=NOW_US + 301_000_000),
    fill("2", "1", "10", at_us="now"),
    fill("2", "1", "10", revision=-1),
    fill("2", "0", "10", revision=1),
    fill("2", "1", "10", fee_asset="UNITS"),
    fill("2", "1", "10", cursor="c" * 129),
    None,
    "a fill",
    cash("2", "fee", "1"),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: repr(bad)[:90])
def test_a_bad_fill_is_set_aside_and_its_neighbours_are_booked(bad: Any) -> None:
    world = World()
    outcome = world.report(fill("1", "1", "10"), bad, fill("3", "1", "10"))
    assert world.total("POSITIONS") == 20
    assert outcome.cursor == "3"
    (aside,) = outcome.asides.values()
    assert aside.reason
    assert outcome.alerts[0].level.value == "CRITICAL"
    assert aside.key in outcome.alerts[0].message


def test_bad_reports_with_different_long_ids_are_each_set_aside() -> None:
    world = World()
    first, second = (fill("x" * 400 + end, "1", "10") for end in "ab")
    outcome = world.report(first, second)
    assert len(outcome.asides) == len(outcome.alerts) == 2
    again = world.report(second)
    assert (again.asides, len(again.waiting)) == ({}, 1)


def test_a_report_aside_is_told_once_and_tried_again_when_it_changes() -> None:
    world = World()
    bad = fill("2", "1", "10", fee=None)
    assert len(world.report(bad).alerts) == 1
    again = world.report(bad)
    assert (again.alerts, again.asides, len(again.waiting)) == ([], {}, 1)
    still = world.report(fill("2", "1", "10", fee="free"))
    assert len(still.asides) == 1
    mended = world.report(fill("2", "1", "10"))
    assert titles(mended) == ["INFO Fill 2 is no longer set aside"]
    assert mended.alerts[0].resolves
    assert world.asides == {}
    assert world.total("POSITIONS") == 10


def test_a_report_that_a_person_gave_up_stays_given_up() -> None:
    world = World()
    good, bad = fill("1", "1", "10"), fill("1", "1", "10", fee=Decimal(1))
    world.report(good, bad)
    (key,) = world.asides
    world.asides[key] = msgspec.structs.replace(world.asides[key], skipped_by="ann")
    for _ in range(2):
        outcome = world.report(good, bad)
        assert (outcome.alerts, outcome.waiting) == ([], {})
    assert world.asides[key].skipped_by == "ann"


def test_very_many_bad_reports_are_counted_in_one_alert() -> None:
    world = World()
    outcome = world.report(*[fill(str(number), "0", "10") for number in range(60)])
    assert len(outcome.asides) == 60
    assert len(outcome.alerts) == 51
    assert outcome.alerts[-1].title == "10 more reports of this kind are set aside: Fill"


# -- identity


def test_a_fill_is_one_by_strategy_instrument_and_id() -> None:
    world = World()
    same = fill("7", "1", "10")
    outcome = world.report(
        same,
        msgspec.structs.replace(same, instrument="Y"),
        msgspec.structs.replace(same, strategy="t"),
    )
    assert not outcome.asides
    assert world.total("POSITIONS") == 30
    world.report(same)
    assert world.total("POSITIONS") == 30


@pytest.mark.parametrize("other", [{"fee": Decimal(1)}, {"at_us": NOW_US + 1_000}], ids=str)
def test_a_booked_fill_with_another_content_is_set_aside(other: dict[str, Any]) -> None:
    world = World()
    world.report(fill("1", "1", "10"))
    outcome = world.report(fill("1", "1", "10", **other), fill("2", "1", "10"))
    (aside,) = outcome.asides.values()
    assert "whose content differs" in aside.reason
    assert world.total("POSITIONS") == 20


def test_an_id_that_comes_twice_in_one_report_is_booked_once_and_told() -> None:
    world = World()
    twice = (fill("1", "5", "0.32"), fill("1", "5", "0.32", cursor="2"), fill("1", "5", "0.32"))
    outcome = world.report(*twice)
    assert world.total("POSITIONS") == Decimal("1.6")
    assert titles(outcome) == ["WARNING Fill 1 came twice in one report"]
    assert world.report(*twice).alerts == []


@pytest.mark.parametrize(
    ("price", "booked"), [("0.33", "0.33"), ("0.123456789", "0.12345679")], ids=str
)
def test_a_fill_booked_under_an_old_key_is_recognised(price: str, booked: str) -> None:
    """Earlier versions keyed a fill by its id alone, and rounded its figures first."""
    world = World()
    world.post(BookFill("X", 2, booked, 0, strategy="s", at_us=NOW_US), "fill:1")
    outcome = world.report(fill("1", "2", price), fill("1", "2", price, instrument="Y"))
    assert not outcome.asides
    assert world.keys() == ["fill:1", fill_prefix("s", "Y", "1") + "0"]
    world.report(fill("1", "3", price, revision=1))
    assert sorted(lot for lot, _ in world.lots()) == [2, 3]


# -- revisions


def test_a_higher_revision_books_the_opposite_and_the_new_fill() -> None:
    world = World()
    prefix = fill_prefix("s", "X", "1")
    world.report(fill("1", "10", "2", fee=Decimal(1)))
    world.report(fill("1", "8", "3", revision=4))
    assert world.keys() == [f"{prefix}0", f"{prefix}4:reversal", f"{prefix}4"]
    assert world.lots() == [(D(8), D(24))]
    assert (world.total("CASH"), world.total("TRADING_FEES")) == (D(-24), D(0))
    for known in (
        fill("1", "8", "3", revision=4),
        fill("1", "1", "1"),
        fill("1", "1", "1", revision=3),
    ):
        assert not world.report(known).asides
    assert len(world.journal) == 3


def test_a_bust_takes_the_fill_back_and_may_be_revised() -> None:
    world = World()
    bust = fill("1", "0", "2", revision=1)
    world.report(fill("1", "-10", "2", fee=Decimal("-0.5")))
    assert world.report(bust, bust).asides == {}
    assert (world.lots(), world.total("CASH"), len(world.journal)) == ([], D(0), 2)
    assert world.report(bust).asides == {}
    assert len(world.report(fill("1", "1", "2", revision=1)).asides) == 1
    world.report(fill("1", "3", "2", revision=2))
    assert (world.lots(), len(world.journal)) == ([(D(3), D(6))], 3)


def bust(revision: int = 1, **more: Any) -> Fill:
    return fill("1", "0", "2", revision=revision, **more)


def test_a_bust_waits_for_its_fill_and_takes_it_back() -> None:
    world = World()
    first = world.report(bust(), fill("2", "1", "10", instrument="Y"))
    assert titles(first) == ["CRITICAL Fill 1 is set aside"]
    second = world.report(fill("1", "5", "2", fee=D(1)))
    assert (world.asides, second.asides, second.waiting) == ({}, {}, {})
    assert titles(second) == ["INFO Fill 1 is no longer set aside"]
    assert (world.lots(), world.total("CASH"), len(world.journal)) == ([(D(1), D(10))], D(-10), 3)
    for again in (bust(), bust(price=D(9)), fill("1", "5", "2", fee=D(1))):
        assert not world.report(again).asides
    assert len(world.journal) == 3


def test_a_bust_before_its_fill_in_one_report_is_never_told() -> None:
    world = World()
    outcome = world.report(bust(), fill("1", "5", "2"), bust())
    assert (outcome.asides, outcome.waiting, world.lots()) == ({}, {}, [])
    assert [alert for alert in outcome.alerts if alert.level.value == "CRITICAL"] == []


def test_a_bust_that_waits_is_done_with_when_a_higher_revision_comes() -> None:
    world = World()
    world.report(bust(1), bust(5))
    world.report(fill("1", "5", "2", revision=3))
    assert (world.asides, world.lots()) == ({}, [])
    assert [entry.key.rpartition(":")[2] for entry in world.journal] == ["3", "5"]
    world.report(fill("1", "6", "2", revision=7))
    assert world.lots() == [(D(6), D(12))]


def test_a_revision_in_the_place_of_a_waiting_bust_is_booked() -> None:
    world = World()
    world.report(bust())
    outcome = world.report(fill("1", "6", "2", revision=1))
    assert (world.asides, world.lots()) == ({}, [(D(6), D(12))])
    assert titles(outcome) == ["INFO Fill 1 is no longer set aside"]


def test_a_bust_that_is_wrong_again_after_its_fill_is_set_aside() -> None:
    world = World()
    outcome = world.report(bust(), fill("1", "5", "2"), fill("1", "0", "NaN", revision=1))
    assert (len(world.asides), outcome.cleared, world.lots()) == (1, [], [])


def test_a_bust_that_a_person_gave_up_takes_nothing_back() -> None:
    world = World()
    (key,) = world.report(bust()).asides
    world.asides[key] = msgspec.structs.replace(world.asides[key], skipped_by="ann")
    world.report(fill("1", "5", "2"))
    assert (world.lots(), list(world.asides)) == ([(D(5), D(10))], [key])


def test_revisions_in_one_report_are_booked_in_their_order() -> None:
    world = World()
    world.report(fill("1", "1", "2"), fill("1", "2", "2", revision=1), fill("1", "9", "2"))
    assert world.lots() == [(D(2), D(4))]


# -- entitlement


def test_a_fill_of_a_strategy_without_real_money_is_booked_and_told_once() -> None:
    world = World()
    outcome = world.report(
        fill("1", "1", "10"),
        fill("2", "1", "10"),
        fill("3", "1", "10", strategy="live"),
        unentitled={"s": "paper"},
    )
    (alert,) = outcome.alerts
    assert (alert.level.value, alert.category.value) == ("CRITICAL", "RISK_LIMIT")
    assert (alert.strategy, alert.dedup_key) == ("s", "unentitled:s:paper")
    assert "Its stage is paper" in alert.message
    assert world.total("POSITIONS") == 30


def test_a_fill_that_reduces_a_position_needs_no_entitlement() -> None:
    world = World()
    world.report(fill("1", "5", "10"))
    assert world.report(fill("2", "-3", "10"), unentitled={"s": "shadow"}).alerts == []
    assert world.report(fill("1", "5", "10"), unentitled={"s": "shadow"}).alerts == []
    assert len(world.report(fill("3", "-3", "10"), unentitled={"s": "shadow"}).alerts) == 1


# -- settlements


def test_a_settlement_closes_the_lots_of_its_market_at_the_payoff() -> None:
    world = World()
    world.report(fill("1", "60", "0.4", instrument="M"), fill("2", "40", "0.4", instrument="M"))
    outcome = world.report(settlement(100, cost=Decimal(40)))
    assert (world.total("CASH"), world.total("POSITIONS"), world.lots()) == (D(60), D(0), [])
    assert titles(outcome) == ["INFO Settlement booked: M"]


def test_a_settlement_of_a_short_position_pays_by_its_sign() -> None:
    world = World()
    world.report(fill("1", "-100", "0.4", instrument="M"))
    world.report(settlement(-100, cost=Decimal(-40)))
    assert (world.total("CASH"), world.total("REALIZED_PNL"), world.lots()) == (D(-60), D(60), [])


def test_a_settlement_with_another_cost_than_its_fills_is_told() -> None:
    world = World()
    world.report(fill("1", "100", "0.4", instrument="M"))
    outcome = world.report(settlement(100))
    assert titles(outcome)[1:] == ["WARNING Settlement of M names another cost than its fills"]
    assert world.total("CASH") == 60


def test_lots_of_other_strategies_and_markets_stay() -> None:
    world = World()
    world.report(fill("1", "1", "10", instrument="M", strategy="t"), fill("2", "1", "10"))
    world.report(settlement(8))
    assert len(world.lots()) == 2
    assert world.total("CASH") == -20 + 3


def test_a_revision_of_a_settlement_that_closed_lots_books_the_difference() -> None:
    world = World()
    world.report(fill("1", "100", "0.4", instrument="M"))
    for payoff, revision, in_cash in ((100, 0, 60), (0, 1, -40), (70, 3, 30)):
        world.report(settlement(payoff, revision, cost=Decimal(40)))
        assert (world.total("CASH"), world.total("POSITIONS")) == (D(in_cash), D(0))
        assert not world.report(settlement(payoff, revision, cost=Decimal(40))).asides
    assert len(world.report(settlement(1, 4, market="N")).asides) == 1


def same_books(world: World) -> tuple[Decimal, ...]:
    return tuple(map(world.total, ("CASH", "POSITIONS", "REALIZED_PNL", "TRADING_FEES")))


@given(
    quantities=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    busted=st.sets(st.integers(0, 4)),
    side=st.sampled_from([1, -1]),
    order=st.randoms(use_true_random=False),
    again=st.booleans(),
)
def test_fills_busts_and_their_settlement_give_one_book_in_any_order(
    quantities: list[int], busted: set[int], side: int, order: Random, again: bool
) -> None:
    fills = [
        fill(str(number), str(side * quantity), f"0.{number + 1}", instrument="M", fee=D("0.1"))
        for number, quantity in enumerate(quantities)
    ]
    kept = [one for number, one in enumerate(fills) if number not in busted]
    busts = [
        msgspec.structs.replace(one, quantity=D(0), revision=1) for one in fills if one not in kept
    ]
    cost = sum((one.quantity * one.price for one in kept or fills), D(0))
    paid = settlement(side * 70, cost=cost)
    in_order, shuffled = World(), World()
    for group in (fills, busts, [paid]):
        if group:
            in_order.report(*group)
    reports = [*fills, *busts, paid] * (1 + again)
    order.shuffle(reports)
    for report in reports:
        shuffled.report(report)
    assert not shuffled.asides
    assert same_books(shuffled) == same_books(in_order)
    assert (shuffled.lots(), shuffled.total("CASH")) == (
        [],
        D(side * 70) - cost - D("0.1") * len(kept),
    )


@pytest.mark.parametrize("first", ["fill", "settlement"])
def test_a_bust_of_the_only_fill_after_its_settlement_leaves_what_a_settlement_alone_does(
    first: str,
) -> None:
    world, alone = World(), World()
    bought, paid = fill("1", "100", "0.4", instrument="M"), settlement(100, cost=D(40))
    reports: list[Fill | Settlement] = [bought, paid]
    for report in reports if first == "fill" else reversed(reports):
        world.report(report)
    world.report(fill("1", "0", "0.4", instrument="M", revision=1))
    alone.report(paid)
    assert same_books(world) == same_books(alone) == (D(60), D(0), D(-60), D(0))
    for again, in_cash in (
        (settlement(90, 1, cost=D(30)), 60),
        (settlement(80, 2, cost=D(30)), 50),
    ):
        for either in (world, alone):
            either.report(again)
            assert (either.total("CASH"), either.total("POSITIONS")) == (D(in_cash), D(0))
    world.report(fill("1", "100", "0.2", instrument="M", revision=2))
    assert (world.total("CASH"), world.total("POSITIONS"), world.lots()) == (D(60), D(0), [])


def test_a_fill_that_comes_after_its_settlement_is_settled_at_once() -> None:
    world = World()
    world.report(settlement(100, cost=D(40)))
    world.report(fill("1", "100", "0.4", instrument="M"))
    assert (world.total("CASH"), world.total("POSITIONS"), world.lots()) == (D(60), D(0), [])
    world.report(settlement(90, 1, cost=D(39)))
    assert (world.total("CASH"), world.total("POSITIONS")) == (D(50), D(0))


def test_a_fill_revised_after_its_settlement_leaves_no_position() -> None:
    world = World()
    world.report(fill("1", "100", "0.4", instrument="M"))
    world.report(settlement(100, cost=D(40)))
    later = NOW_US + 1
    world.report(fill("1", "100", "0.3", instrument="M", revision=1))
    assert (world.total("CASH"), world.total("POSITIONS"), world.lots()) == (D(70), D(0), [])
    world.report(fill("1", "0", "0.3", instrument="M", revision=2, at_us=later))
    assert (world.total("CASH"), world.total("POSITIONS"), world.lots()) == (D(60), D(0), [])


def test_a_market_that_trades_again_is_open_again() -> None:
    world = World()
    world.report(settlement(8))
    world.report(fill("1", "10", "1", instrument="M", at_us=NOW_US + 1))
    assert world.lots() == [(D(10), D(10))]
    world.report(fill("2", "10", "1", instrument="M"))
    assert world.lots() == [(D(10), D(10)), (D(10), D(10))]


def test_a_settlement_that_a_person_reversed_settles_no_fill() -> None:
    world = World()
    world.report(settlement(8))
    world.post(Reverse(1, "wrong"), "by hand")
    world.report(fill("1", "10", "1", instrument="M"))
    assert (world.total("CASH"), world.lots()) == (D(-10), [(D(10), D(10))])


def test_a_fill_that_cannot_be_settled_is_not_booked_either() -> None:
    world = World()
    most = D(2**62) / MINOR
    world.report(settlement(0, cost=most, payoff=most))
    outcome = world.report(fill("1", "1", str(-most), instrument="M"))
    assert (len(outcome.asides), len(world.journal)) == (1, 1)


def test_a_new_revision_reverses_the_one_before() -> None:
    world = World()
    world.report(settlement(8), settlement(6, revision=2))
    assert world.keys() == ["settlement:m:0", "settlement:m:2:reversal", "settlement:m:2"]
    assert world.total("CASH") == 1


def test_an_older_revision_books_nothing_and_the_same_one_must_agree() -> None:
    world = World()
    world.report(settlement(8, revision=1), settlement(7))
    assert len(world.journal) == 1
    outcome = world.report(settlement(9, revision=1))
    assert ["whose content differs" in aside.reason for aside in outcome.asides.values()] == [True]


def test_a_revision_that_a_person_reversed_is_not_reversed_again() -> None:
    world = World()
    world.report(settlement(8))
    world.post(Reverse(1, "wrong"), "by hand")
    world.report(settlement(6, revision=1))
    assert [entry.kind for entry in world.journal] == [
        "market_settlement",
        "reversal",
        "market_settlement",
    ]
    assert world.total("CASH") == 1


@pytest.mark.parametrize("length", [64, 65, 128])
def test_a_settlement_id_of_any_allowed_length_can_be_revised(length: int) -> None:
    world = World()
    name = "i" * length
    world.report(settlement(8, id=name), settlement(9, 10**18, id=name))
    assert world.total("CASH") == 4


def test_a_long_settlement_id_booked_under_its_plain_key_is_recognised() -> None:
    world = World()
    name = "i" * 100
    world.report(settlement(8, id=name))
    (entry,) = world.journal
    world.journal[0] = msgspec.structs.replace(entry, key=f"settlement:{name}:0")
    world.report(settlement(8, id=name))
    assert len(world.journal) == 1
    assert settlement_prefixes(name)[1] == f"settlement:{name}:"


BAD_SETTLEMENTS: list[Any] = [
    settlement(8, id=""),
    settlement(8, market=""),
    settlement(8, payoff=None),
    settlement(8, cost=float("nan")),
    settlement(8, revision=-1),
    settlement(8, payoff=Decimal(10) ** 12),
]


@pytest.mark.parametrize("bad", BAD_SETTLEMENTS, ids=lambda bad: repr(bad)[:80])
def test_a_bad_settlement_is_set_aside_and_its_neighbours_are_booked(bad: Any) -> None:
    world = World()
    outcome = world.report(settlement(6, id="a"), bad, settlement(6, id="b"))
    assert world.total("CASH") == 2
    assert len(outcome.asides) == 1


# -- cash events


@pytest.mark.parametrize(
    ("kind", "amount", "account"),
    [
        ("deposit", "50", "EXTERNAL"),
        ("withdrawal", "-50", "EXTERNAL"),
        ("interest", "5", "INCOME"),
        ("dividend", "-5", "INCOME"),
        ("funding", "-5", "FINANCING"),
        ("borrow", "-5", "FINANCING"),
        ("fee", "5", "FINANCING"),
        ("other", "5", "REALIZED_PNL"),
        ("other", "-5", "REALIZED_PNL"),
    ],
)
def test_a_cash_event_moves_cash_against_the_account_of_its_kind(
    kind: str, amount: str, account: str
) -> None:
    world = World()
    for _ in range(2):
        assert not world.report(cash("c", kind, amount)).asides
    assert world.total("CASH") == Decimal(amount)
    assert world.total(account) == -Decimal(amount)
    assert world.keys() == [cash_event_key("c")]


def test_deposits_and_withdrawals_of_the_bank_move_units() -> None:
    world = World()
    world.report(cash("a", "deposit", "100"))
    world.post(RecordProfit(100), "profit")
    world.report(cash("b", "withdrawal", "-50"))
    assert world.book.units == 75 * MINOR


def test_a_withdrawal_that_has_happened_is_booked_below_zero() -> None:
    world = World()
    world.post(Deposit(10), "capital")
    world.post(OpenPosition("X", 1, 10), "open")
    world.report(cash("a", "withdrawal", "-5"))
    assert world.total("CASH") == -5


def test_interest_in_another_asset_stays_in_that_asset() -> None:
    world = World()
    assert not world.report(cash("a", "interest", "5", asset="EUR")).asides
    assert world.book.balance(("CASH", None, "EUR")) == 5 * MINOR
    assert world.total("CASH") == 0


BAD_CASH: list[Any] = [
    cash("x", "deposit", "-5"),
    cash("x", "withdrawal", "5"),
    cash("x", "deposit", "5", asset="EUR"),
    cash("x", "interest", "5", asset="UNITS"),
    cash("x", "coupon", "5"),
    cash("x", "interest", "0"),
    cash("x", "interest", "0.000000001"),
    cash("x", "interest", "5", amount="5"),
    cash("x", "interest", "5", at_us=0),
    cash("", "interest", "5"),
]


@pytest.mark.parametrize("bad", BAD_CASH, ids=lambda bad: repr(bad)[:80])
def test_a_bad_cash_event_is_set_aside_and_its_neighbours_are_booked(bad: Any) -> None:
    world = World()
    outcome = world.report(cash("a", "interest", "1"), bad, cash("b", "interest", "1"))
    assert world.total("CASH") == 2
    assert len(outcome.asides) == 1


def test_a_cash_event_of_another_content_is_set_aside() -> None:
    world = World()
    outcome = world.report(cash("a", "interest", "1"), cash("a", "interest", "2"))
    assert (world.total("CASH"), len(outcome.asides)) == (D(1), 1)


# -- closed days


def test_a_late_report_is_booked_today() -> None:
    reports: Sequence[Any] = (
        fill("1", "1", "10", at_us=NOW_US - 3 * 86_400_000_000),
        cash("c", "deposit", "5", at_us=NOW_US - 3 * 86_400_000_000),
    )
    for report in reports:
        world = World()
        world.post(ClosePeriod("2023-11-13"), "close")
        assert not world.report(report).asides
        assert world.journal[-1].day == "2023-11-14"
