"""Every event by plain calls: its legs, lots first in first out, refusals that leave no trace."""

import hashlib
import json
from collections import defaultdict, deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundops.actors.ledger import accounts, schema
from fundops.actors.ledger.book import Book, Draft
from fundops.actors.ledger.entry import Entry, Original
from fundops.actors.persistence import Reader, Store, commit_batch
from fundops.file.database import MIGRATIONS
from fundops.runtime import DAY_US, ConfigError, Rejected
from fundops.wire.errors import (
    AlreadyReversed,
    AmountError,
    EntryRefused,
    InsufficientFunds,
    PositionMismatch,
    UnbalancedEntry,
    UnknownAccount,
    UnknownEntry,
)
from fundops.wire.ledger import (
    BookFill,
    BookSettlement,
    ChargeManagementFee,
    ChargePerformanceFee,
    ClosePosition,
    Deposit,
    Event,
    Leg,
    Mark,
    OpeningBalances,
    OpeningPosition,
    OpenPosition,
    PayFees,
    Post,
    RecordLoss,
    RecordProfit,
    Reverse,
    Settle,
    Withdraw,
)
from fundops.wire.money import MINOR_MAX, Amount, from_minor

UNIT = 10**8
DAY_1_US = 1_700_000_000_000_000
LONG_AGO_US = 631_152_000_000_000  # the first instant that an event may have
GOLDEN = (
    Deposit(100_000),
    RecordProfit(2_000),
    RecordLoss(500),
    Withdraw(1_500),
    OpenPosition("AAPL", 50, 5_000),
    ChargeManagementFee(200),
    ChargePerformanceFee(100),
)


class Journal:
    """A book with its entries and their payloads, as the actor keeps them."""

    def __init__(self) -> None:
        self.book = Book("USD")
        self.entries: list[tuple[Entry, bytes, bytes]] = []
        self.events: list[Event] = []

    def original(self, seq: int) -> Original | None:
        if not 1 <= seq <= len(self.entries):
            return None
        by = next((one.seq for one, _, _ in self.entries if one.reverses == seq), None)
        return Original(self.entries[seq - 1][0], by)

    def draft(self) -> Draft:
        return Draft(self.book, self.original)

    def post(self, *events: Event, now_us: int = DAY_1_US) -> Entry:
        """Each event durable by itself; the last entry."""
        for event in events:
            draft = self.draft()
            entry = draft.decide(event, event.key or f"key-{self.book.seq + 1}", now_us)
            self.keep(draft)
            self.events.append(event)
        return entry

    def keep(self, draft: Draft) -> None:
        self.book.apply(draft)
        self.entries += draft.sealed

    def legs(self, *events: Event) -> dict[str, Decimal]:
        """The legs of the last of these events, by account."""
        return {account: from_minor(minor) for account, _, _, minor in self.post(*events).legs}

    def lots(
        self, instrument: str = "X", strategy: str | None = None
    ) -> list[tuple[float, float, float]]:
        """Quantity, cost and mark of the open lots, in whole units."""
        lots = self.book.lots.get((strategy, instrument), {}).values()
        return [(one.quantity / UNIT, one.cost_minor / UNIT, one.mark_minor / UNIT) for one in lots]

    @property
    def sheet(self) -> dict[str, Decimal]:
        return accounts.balance_sheet(self.book.totals)

    @property
    def income(self) -> dict[str, Decimal]:
        return accounts.income_statement(self.book.totals)

    @property
    def nav(self) -> Decimal:
        return from_minor(accounts.net_asset_value(self.book.totals))

    @property
    def per_unit(self) -> Decimal:
        return accounts.nav_per_unit(accounts.net_asset_value(self.book.totals), self.book.units)

    def units_of(self, *events: Event, now_us: int = DAY_1_US) -> Decimal:
        """The units that the last of these events issues; negative: redeems."""
        legs = self.post(*events, now_us=now_us).legs
        assert {asset for account, _, asset, _ in legs if account in ("HOLDERS", "UNITS")} <= {
            "UNITS"
        }
        return from_minor(sum(minor for account, _, _, minor in legs if account == "HOLDERS"))


@pytest.fixture
def journal() -> Journal:
    return Journal()


# -- reports


def test_the_golden_script_gives_both_examples_of_the_documentation(journal: Journal) -> None:
    journal.post(*GOLDEN)
    assert journal.sheet == {
        "CASH": 95_000,
        "POSITIONS": 5_000,
        "FEES_RECEIVABLE": -300,
        "MANAGEMENT_FEES": 200,
        "PERFORMANCE_FEES": 100,
        "REALIZED_PNL": -1_500,
        "UNREALIZED_PNL": 0,
    }
    assert journal.income == {
        "REALIZED_PNL": 1_500,
        "UNREALIZED_PNL": 0,
        "MANAGEMENT_FEES": -200,
        "PERFORMANCE_FEES": -100,
    }
    trial = accounts.trial_balance(journal.book.totals)
    assert trial == {**journal.sheet, "EXTERNAL": -98_500}
    assert sum(trial.values()) == 0
    assert journal.nav == 99_700


def test_a_mark_of_250_raises_positions_and_income_and_nav_by_250(journal: Journal) -> None:
    journal.post(*GOLDEN, Mark("AAPL", 5_250))
    assert journal.sheet["POSITIONS"] == 5_250
    assert journal.sheet["UNREALIZED_PNL"] == -250
    assert journal.income["UNREALIZED_PNL"] == 250
    assert journal.nav == 99_950
    assert sum(accounts.trial_balance(journal.book.totals).values()) == 0


def test_an_empty_book_shows_its_seven_accounts_at_zero(journal: Journal) -> None:
    assert set(journal.sheet) == {
        "CASH",
        "POSITIONS",
        "FEES_RECEIVABLE",
        "MANAGEMENT_FEES",
        "PERFORMANCE_FEES",
        "REALIZED_PNL",
        "UNREALIZED_PNL",
    }
    assert set(journal.sheet.values()) == {Decimal(0)}
    assert journal.nav == 0


def test_trading_fees_join_the_reports_once_used(journal: Journal) -> None:
    journal.post(Deposit(1_000), OpenPosition("X", 1, 100))
    assert "TRADING_FEES" not in journal.sheet | journal.income
    journal.post(ClosePosition("X", 1, 110, fee=1))
    assert journal.sheet["TRADING_FEES"] == 1
    assert journal.income["TRADING_FEES"] == -1
    assert journal.income["REALIZED_PNL"] == 10
    assert journal.nav == 1_009


@pytest.mark.parametrize(
    "first",
    [
        OpenPosition("X", 3, 30),
        OpeningBalances(5),
        OpeningBalances(0, (OpeningPosition("X", 3, 30),)),
        RecordProfit(1),
    ],
)
def test_opening_balances_lie_on_nothing_but_the_capital(journal: Journal, first: Event) -> None:
    """Otherwise a position would be there twice, or open in both directions."""
    journal.post(first)
    with pytest.raises(EntryRefused, match="come first"):
        journal.post(OpeningBalances(0, (OpeningPosition("X", -1, 10),)))
    assert len(journal.entries) == 1


def test_a_settlement_without_legs_can_be_reversed_once(journal: Journal) -> None:
    even = journal.post(BookSettlement("M", 5, 5))
    assert journal.legs(Reverse(even.seq, "other market")) == {}
    with pytest.raises(AlreadyReversed):
        journal.post(Reverse(even.seq, "again"))


# -- units


def test_the_first_unit_costs_one_and_later_ones_the_nav_per_unit(journal: Journal) -> None:
    assert journal.per_unit == 1
    assert journal.units_of(Deposit(100)) == 100
    assert journal.units_of(RecordProfit(100), Deposit(50)) == 25
    assert journal.units_of(Withdraw(30)) == -15
    assert (journal.per_unit, from_minor(journal.book.units)) == (Decimal(2), Decimal(110))


def test_marks_and_owed_fees_count_in_the_nav_per_unit(journal: Journal) -> None:
    journal.post(Deposit(100), OpenPosition("X", 1, 50), Mark("X", 80), ChargeManagementFee(5))
    assert journal.per_unit == Decimal("1.25")
    assert journal.units_of(Deposit(10)) == 8


def test_after_all_units_are_redeemed_the_next_costs_one(
    journal: Journal,
) -> None:
    assert journal.units_of(Deposit(100), RecordProfit(20), Withdraw(120)) == -100
    assert (journal.book.units, journal.per_unit) == (0, Decimal(1))
    assert journal.units_of(Deposit(7)) == 7


def test_no_more_units_are_redeemed_than_there_are(journal: Journal) -> None:
    """While fees are owed the cash exceeds the value of the fund, and all of it may be paid out."""
    assert journal.units_of(Deposit(100), ChargeManagementFee(10), Withdraw(100)) == -100
    assert journal.book.units == 0


@pytest.mark.parametrize("loss", [100, 150, "99.99999999"])
def test_a_deposit_into_a_worthless_fund_is_booked_at_one(journal: Journal, loss: Amount) -> None:
    """At 1, also when a unit is worth so little that the new units would exceed an integer."""
    assert journal.units_of(Deposit(100), RecordLoss(loss), Deposit(1_000_000)) == 1_000_000


def test_a_backdated_flow_is_priced_when_it_is_booked(
    journal: Journal,
) -> None:
    later_us = DAY_1_US + DAY_US
    journal.post(Deposit(100), RecordProfit(100))
    assert journal.units_of(Deposit(50, at_us=DAY_1_US), now_us=later_us) == 25
    assert journal.units_of(Withdraw(10, at_us=DAY_1_US - DAY_US), now_us=later_us) == -5
    assert journal.per_unit == 2


def test_a_fund_with_the_most_units_still_takes_deposits(journal: Journal) -> None:
    """At a NAV per unit of 1e-8 a deposit of 461 issues nearly all possible units."""
    assert (
        journal.units_of(Deposit(1), RecordLoss("0.99999999"), Deposit("461.16860183"))
        == 46_116_860_183
    )
    left = from_minor(MINOR_MAX - journal.book.units)
    assert journal.units_of(Deposit(1)) == min(left, 1)
    journal.post(*[Deposit(1)] * 3)
    assert from_minor(journal.book.units) <= from_minor(MINOR_MAX)


def test_a_nearly_worthless_fund_redeems_all_of_its_units(journal: Journal) -> None:
    assert journal.units_of(Deposit(100), ChargeManagementFee("99.99999999"), Withdraw(50)) == -100


def test_a_reversed_deposit_takes_its_units_back(journal: Journal) -> None:
    deposit = journal.post(Deposit(100), RecordProfit(100), Deposit(50))
    assert journal.units_of(Reverse(deposit.seq, "twice")) == -25
    assert (journal.per_unit, from_minor(journal.book.units)) == (Decimal(2), Decimal(100))


def test_units_can_be_booked_explicitly_and_not_out_of_nothing(journal: Journal) -> None:
    journal.post(
        Deposit(100), Post((Leg("HOLDERS", 100, asset="UNITS"), Leg("UNITS", -100, asset="UNITS")))
    )
    assert (journal.per_unit, from_minor(journal.book.units)) == (Decimal("0.5"), Decimal(200))
    with pytest.raises(UnbalancedEntry):
        journal.post(Post((Leg("HOLDERS", 1, asset="UNITS"), Leg("UNITS", -1))))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([Deposit, Withdraw, RecordProfit, RecordLoss]), st.integers(1, 10**13)
        ),
        max_size=20,
    )
)
def test_deposits_and_withdrawals_never_move_the_nav_per_unit(
    moves: list[tuple[Any, int]],
) -> None:
    """Except by the rounding of the units, half a minor unit each time."""
    journal = Journal()
    journal.post(Deposit(1_000))
    for kind, minor in moves:
        worth, units = Fraction(journal.nav), journal.book.units
        try:
            journal.post(kind(from_minor(minor)))
        except InsufficientFunds:
            continue
        after = journal.book.units
        assert after == -sum(
            amount for (account, *_), amount in journal.book.balances.items() if account == "UNITS"
        )
        if kind in (RecordProfit, RecordLoss):
            assert after == units
        elif (
            worth > 0 < units and after and minor * units <= worth * UNIT * (MINOR_MAX - units)
        ):  # else at 1
            assert abs(Fraction(journal.nav) * units - worth * after) <= worth / 2


# -- the legs of each event


@pytest.mark.parametrize(
    ("before", "event", "legs"),
    [
        ((), Deposit(5), {"CASH": 5, "EXTERNAL": -5, "HOLDERS": 5, "UNITS": -5}),
        ((), Withdraw(5), {"EXTERNAL": 5, "CASH": -5, "HOLDERS": -5, "UNITS": 5}),
        ((), RecordProfit(5), {"CASH": 5, "REALIZED_PNL": -5}),
        ((), RecordLoss(5), {"REALIZED_PNL": 5, "CASH": -5}),
        ((), ChargeManagementFee(5), {"MANAGEMENT_FEES": 5, "FEES_RECEIVABLE": -5}),
        ((), ChargePerformanceFee(5), {"PERFORMANCE_FEES": 5, "FEES_RECEIVABLE": -5}),
        ((ChargeManagementFee(5),), PayFees(5), {"FEES_RECEIVABLE": 5, "CASH": -5}),
        ((), OpenPosition("X", 10, 5), {"POSITIONS": 5, "CASH": -5}),
        ((), OpenPosition("X", 10, 5, fee=1), {"POSITIONS": 5, "CASH": -6, "TRADING_FEES": 1}),
        ((), OpenPosition("X", -10, 5, fee=1), {"POSITIONS": -5, "CASH": 4, "TRADING_FEES": 1}),
        (
            (OpenPosition("X", 10, 5),),
            ClosePosition("X", 10, 7),
            {"CASH": 7, "POSITIONS": -5, "REALIZED_PNL": -2},
        ),
        ((OpenPosition("X", 10, 5),), ClosePosition("X", 10, 5), {"CASH": 5, "POSITIONS": -5}),
        (
            (OpenPosition("X", 10, 5),),
            ClosePosition("X", 10, 0),
            {"POSITIONS": -5, "REALIZED_PNL": 5},
        ),
        (
            (OpenPosition("X", 10, 5),),
            ClosePosition("X", 10, 7, fee=1),
            {"CASH": 6, "POSITIONS": -5, "REALIZED_PNL": -2, "TRADING_FEES": 1},
        ),
        (
            (OpenPosition("X", -10, 5),),
            ClosePosition("X", -10, 7),
            {"CASH": -7, "POSITIONS": 5, "REALIZED_PNL": 2},
        ),
        (
            (OpenPosition("X", 10, 5),),
            Settle("X", 8),
            {"CASH": 8, "POSITIONS": -5, "REALIZED_PNL": -3},
        ),
        ((OpenPosition("X", 10, 5),), Settle("X", 0), {"POSITIONS": -5, "REALIZED_PNL": 5}),
        ((OpenPosition("X", 10, 5),), Mark("X", 8), {"POSITIONS:MTM": 3, "UNREALIZED_PNL": -3}),
        (
            (OpenPosition("X", 10, 5), Mark("X", 8)),
            Mark("X", 2),
            {"POSITIONS:MTM": -6, "UNREALIZED_PNL": 6},
        ),
        ((OpenPosition("X", -10, 5),), Mark("X", 8), {"POSITIONS:MTM": -3, "UNREALIZED_PNL": 3}),
        (
            (OpenPosition("X", 10, 5), Mark("X", 8)),
            Settle("X", 8),
            {
                "CASH": 8,
                "POSITIONS": -5,
                "REALIZED_PNL": -3,
                "POSITIONS:MTM": -3,
                "UNREALIZED_PNL": 3,
            },
        ),
        ((), BookFill("X", 10, "0.5", 1), {"POSITIONS": 5, "CASH": -6, "TRADING_FEES": 1}),
        ((), BookFill("X", -10, "0.5", 0), {"POSITIONS": -5, "CASH": 5}),
        ((), BookSettlement("M", 5, 8), {"CASH": 3, "REALIZED_PNL": -3}),
        ((), BookSettlement("M", 5, 0), {"CASH": -5, "REALIZED_PNL": 5}),
        (
            (),
            Post((Leg("RETAINED", 5), Leg("REALIZED_PNL", -5))),
            {"RETAINED": 5, "REALIZED_PNL": -5},
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, dict | tuple) else "",
)
def test_an_event_debits_and_credits_what_its_table_says(
    journal: Journal, before: tuple[Event, ...], event: Event, legs: dict[str, int]
) -> None:
    assert journal.legs(Deposit(1_000), *before, event) == legs
    assert sum(accounts.trial_balance(journal.book.totals).values()) == 0


def test_a_position_that_was_marked_and_closed_leaves_no_mark_behind(journal: Journal) -> None:
    journal.post(
        Deposit(1_000), OpenPosition("X", 10, 100), Mark("X", 150), ClosePosition("X", 10, 140)
    )
    assert journal.sheet["POSITIONS"] == 0
    assert journal.sheet["UNREALIZED_PNL"] == 0
    assert journal.income["REALIZED_PNL"] == 40
    assert journal.book.lots == {}
    assert journal.nav == 1_040


def test_a_reversal_negates_every_leg_and_names_its_entry(journal: Journal) -> None:
    journal.post(Deposit(1_000), RecordProfit(30, strategy="mm"))
    entry = journal.post(Reverse(2, "booked twice"))
    assert {(account, strategy): minor for account, strategy, _, minor in entry.legs} == {
        ("CASH", "mm"): -30 * UNIT,
        ("REALIZED_PNL", "mm"): 30 * UNIT,
    }
    assert (entry.reverses, entry.memo, entry.kind) == (2, "booked twice", "reversal")
    assert journal.nav == 1_000


def test_an_entry_carries_day_kind_strategy_and_whether_a_float_was_rounded(
    journal: Journal,
) -> None:
    entry = journal.post(
        Deposit(3.1499999999999915, strategy="mm", at_us=LONG_AGO_US, memo="first")
    )
    assert (entry.day, entry.kind, entry.strategy, entry.memo, entry.recorded_us) == (
        "1990-01-01",
        "deposit",
        "mm",
        "first",
        DAY_1_US,
    )
    assert entry.rounded
    assert journal.nav == Decimal("3.15")
    assert not journal.post(Deposit(0.5)).rounded


def test_legs_of_the_same_account_are_one_posting_and_other_assets_balance_by_themselves(
    journal: Journal,
) -> None:
    entry = journal.post(
        Post(
            (
                Leg("CASH", 10),
                Leg("CASH", "2.5"),
                Leg("EXTERNAL", "-12.5"),
                Leg("CASH", 3, asset="EUR"),
                Leg("EXTERNAL", -3, asset="EUR", strategy="mm"),
            )
        )
    )
    assert list(entry.legs) == [
        ("CASH", None, "USD", 1_250_000_000),
        ("EXTERNAL", None, "USD", -1_250_000_000),
        ("CASH", None, "EUR", 300_000_000),
        ("EXTERNAL", "mm", "EUR", -300_000_000),
    ]
    assert journal.nav == Decimal("12.5")


# -- lots


def test_lots_leave_first_in_first_out(journal: Journal) -> None:
    journal.post(Deposit(10_000), OpenPosition("X", 10, 100), OpenPosition("X", 10, 300))
    assert journal.legs(ClosePosition("X", 15, 300)) == {
        "CASH": 300,
        "POSITIONS": -250,
        "REALIZED_PNL": -50,
    }
    assert journal.lots() == [(5, 150, 0)]
    assert journal.legs(ClosePosition("X", 5, 150)) == {"CASH": 150, "POSITIONS": -150}
    assert journal.lots() == []


def test_a_short_is_bought_back_first_in_first_out(journal: Journal) -> None:
    journal.post(Deposit(10_000), OpenPosition("X", -10, 100), OpenPosition("X", -10, 300))
    assert journal.sheet["POSITIONS"] == -400
    assert journal.nav == 10_000
    assert journal.legs(ClosePosition("X", -15, 400)) == {
        "CASH": -400,
        "POSITIONS": 250,
        "REALIZED_PNL": 150,
    }
    assert journal.lots() == [(-5, -150, 0)]


def test_a_partial_close_takes_back_its_share_of_the_mark(journal: Journal) -> None:
    journal.post(Deposit(10_000), OpenPosition("X", 10, 100), Mark("X", 140))
    assert journal.legs(ClosePosition("X", 4, 60)) == {
        "CASH": 60,
        "POSITIONS": -40,
        "REALIZED_PNL": -20,
        "POSITIONS:MTM": -16,
        "UNREALIZED_PNL": 16,
    }
    assert journal.lots() == [(6, 60, 24)]


def test_rounding_of_partial_closes_neither_loses_nor_makes_a_minor_unit(journal: Journal) -> None:
    journal.post(Deposit(10), OpenPosition("X", 3, "0.00000010"))
    parts = [journal.legs(ClosePosition("X", 1, "0.00000001"))["POSITIONS"] for _ in range(3)]
    assert sum(parts) == Decimal("-0.00000010")
    assert sorted(parts) == [Decimal("-0.00000004"), Decimal("-0.00000003"), Decimal("-0.00000003")]
    assert journal.book.lots == {}


def test_a_mark_is_spread_over_the_lots_by_quantity(journal: Journal) -> None:
    journal.post(
        Deposit(10_000), OpenPosition("X", 10, 100), OpenPosition("X", 30, 500), Mark("X", 800)
    )
    assert journal.lots() == [(10, 100, 100), (30, 500, 100)]


def test_a_mark_that_moves_lots_against_each_other_needs_no_legs(journal: Journal) -> None:
    journal.post(Deposit(10_000), OpenPosition("X", 10, 100), OpenPosition("X", 10, 300))
    assert journal.legs(Mark("X", 400)) == {}
    assert journal.lots() == [(10, 100, 100), (10, 300, -100)]
    assert journal.legs(ClosePosition("X", 10, 200)) == {
        "CASH": 200,
        "POSITIONS": -100,
        "REALIZED_PNL": -100,
        "POSITIONS:MTM": -100,
        "UNREALIZED_PNL": 100,
    }


def test_the_same_mark_twice_is_no_error(journal: Journal) -> None:
    journal.post(Deposit(10_000), OpenPosition("X", 10, 100), Mark("X", 140))
    assert journal.legs(Mark("X", 140)) == {}
    assert journal.nav == 10_040


def test_strategies_do_not_share_lots(journal: Journal) -> None:
    journal.post(
        Deposit(10_000),
        OpenPosition("X", 10, 100, strategy="a"),
        OpenPosition("X", -10, 90, strategy="b"),
    )
    assert journal.lots(strategy="a") == [(10, 100, 0)]
    assert journal.lots(strategy="b") == [(-10, -90, 0)]
    with pytest.raises(PositionMismatch):
        journal.post(ClosePosition("X", 1, 10))


def test_a_fill_that_flips_a_position_closes_all_of_it_and_opens_the_rest(journal: Journal) -> None:
    journal.post(Deposit(10_000), BookFill("X", 10, 10, 0), BookFill("X", 5, 20, 0))
    assert journal.legs(BookFill("X", -25, 12, 3)) == {
        "CASH": 25 * 12 - 3,
        "TRADING_FEES": 3,
        "POSITIONS": -200 - 120,
        "REALIZED_PNL": 200 - 180,
    }
    assert journal.lots() == [(-10, -120, 0)]
    assert journal.legs(BookFill("X", 12, 10, 0)) == {
        "CASH": -120,
        "POSITIONS": 120 + 20,
        "REALIZED_PNL": -20,
    }
    assert journal.lots() == [(2, 20, 0)]


def test_a_fill_that_flips_a_position_is_rounded_once(journal: Journal) -> None:
    """Two halves of 1.5 minor units each are 3 together, not 4."""
    quantity, half = Decimal("0.00000003"), Decimal("0.5")
    legs = journal.legs(BookFill("X", quantity, half, 0), BookFill("X", -2 * quantity, half, 0))
    assert legs["CASH"] == Decimal("0.00000003")


def test_a_fill_worth_less_than_a_minor_unit_still_moves_its_lot(journal: Journal) -> None:
    assert journal.legs(BookFill("X", "0.00000001", "0.1", 0)) == {}
    assert journal.lots() == [(1e-8, 0, 0)]
    assert journal.legs(BookFill("X", "-0.00000001", "0.1", 0)) == {}
    assert journal.lots() == []
    assert journal.legs(OpenPosition("GIFT", 5, 0)) == {}
    assert journal.legs(Settle("GIFT", 7)) == {"CASH": 7, "REALIZED_PNL": -7}


# -- refusals


def books_of_everything() -> Journal:
    journal = Journal()
    journal.post(
        Deposit(1_000),
        RecordProfit(5),
        OpenPosition("X", 10, 100, strategy="mm"),
        Reverse(2, "wrong"),
    )
    return journal


BIG = from_minor(MINOR_MAX)
NO_AMOUNTS: tuple[Any, ...] = (
    *(0, -1, "0.000000001", float("nan"), float("inf"), True, None, 10**11, "x"),
)
REFUSED: list[tuple[Event, type[Exception]]] = [
    *[
        (kind(amount), AmountError)
        for kind in (
            Deposit,
            Withdraw,
            RecordProfit,
            RecordLoss,
            ChargeManagementFee,
            ChargePerformanceFee,
            PayFees,
        )
        for amount in NO_AMOUNTS
    ],
    (Withdraw("905.00000001"), InsufficientFunds),
    (OpenPosition("X", 0, 5), AmountError),
    (OpenPosition("X", float("nan"), 5), AmountError),
    (OpenPosition("X", -1, 5, strategy="mm"), PositionMismatch),
    (ClosePosition("X", 11, 5, strategy="mm"), PositionMismatch),
    (ClosePosition("X", -1, 5, strategy="mm"), PositionMismatch),
    (ClosePosition("X", 1, 5), PositionMismatch),
    (Mark("X", 5), PositionMismatch),
    (Settle("X", 5), PositionMismatch),
    (BookFill("X", 0, 5, 0), AmountError),
    (BookFill("X", BIG, BIG, 0), AmountError),
    (BookFill("X", 10**11, 5, 0), AmountError),
    (BookFill("X", "0.000000001", 5, 0), AmountError),
    (BookFill("X", 1, 5, 1, fee_asset="UNITS"), EntryRefused),
    (BookFill("X", 1, 5, 1, fee_asset=""), ConfigError),
    (BookFill("X", 1, 5, 1, takes_back="1"), ConfigError),  # type: ignore[arg-type]
    (BookFill("X", 1, "1e50", 0), AmountError),
    (BookFill("X", -11, float("nan"), 0, strategy="mm"), AmountError),
    (Reverse(2, "again"), AlreadyReversed),
    (Reverse(3, "lots"), Rejected),
    (Reverse(99, "none"), UnknownEntry),
    (Reverse(0, "none"), UnknownEntry),
    (Reverse(-1, "none"), UnknownEntry),
    (Reverse(2**80, "none"), UnknownEntry),
    (Post(()), UnbalancedEntry),
    (Post((Leg("CASH", 5),)), UnbalancedEntry),
    (Post((Leg("CASH", 5), Leg("CASH", -5))), UnbalancedEntry),
    (Post((Leg("CASH", 0), Leg("EXTERNAL", 0))), UnbalancedEntry),
    (Post((Leg("CASH", 5), Leg("EXTERNAL", -4))), UnbalancedEntry),
    (Post((Leg("CASH", 5), Leg("EXTERNAL", -5, asset="EUR"))), UnbalancedEntry),
    (Post((Leg("CASH", 5), Leg("SLUSH", -5))), UnknownAccount),
    (
        Post((Leg("CASH", BIG), Leg("CASH", BIG), Leg("EXTERNAL", -BIG), Leg("EXTERNAL", -BIG))),
        AmountError,
    ),
    (Post((Leg("CASH", 5), Leg("EXTERNAL", -5, strategy="s" * 129))), ConfigError),
    (Post((Leg("CASH", 5, asset=""), Leg("EXTERNAL", -5, asset="E" * 129))), ConfigError),
    (Deposit(BIG), AmountError),  # with the balance before
    (Deposit(5, strategy=""), ConfigError),
    (Deposit(5, strategy="s" * 129), ConfigError),
    (Deposit(5, memo="m" * 1_025), ConfigError),
    (Deposit(5, memo="\ud800"), ConfigError),
    (Deposit(5, key=""), ConfigError),
    (Deposit(5, key="k" * 129), ConfigError),
    (Deposit(5, at_us=-1), ConfigError),
    (Deposit(5, at_us=10**20), ConfigError),
    (Deposit(5, at_us=True), ConfigError),
    (OpenPosition("", 1, 5), ConfigError),
    (OpenPosition("i" * 129, 1, 5), ConfigError),
    (Settle("", 1), ConfigError),
    (Reverse(1, "r" * 1_025), ConfigError),
]


@pytest.mark.parametrize(
    ("event", "error"), REFUSED, ids=lambda value: getattr(value, "__name__", str(value))[:60]
)
def test_a_refusal_leaves_book_and_draft_untouched(event: Event, error: type[Exception]) -> None:
    journal = books_of_everything()
    draft = journal.draft()
    draft.decide(Deposit(5), "first", DAY_1_US)
    before = (
        dict(draft.balances),
        dict(draft.totals),
        dict(draft.lots),
        list(draft.entries),
        draft.seq,
    )
    with pytest.raises(error) as refusal:
        draft.decide(event, "second" if event.key is None else event.key, DAY_1_US)
    assert isinstance(refusal.value, Rejected), "anything else would crash the actor"
    assert before == (draft.balances, draft.totals, draft.lots, draft.entries, draft.seq)
    assert draft.decide(Deposit(1), "third", DAY_1_US).seq == journal.book.seq + 2


def test_insufficient_funds_name_the_requested_and_available_amounts(journal: Journal) -> None:
    journal.post(Deposit(100), OpenPosition("X", 1, "99.5"))
    with pytest.raises(InsufficientFunds) as refusal:
        journal.post(Withdraw(1))
    assert (refusal.value.account, refusal.value.requested, refusal.value.available) == (
        "CASH",
        Decimal(1),
        Decimal("0.5"),
    )
    journal.post(Withdraw("0.5"))
    assert journal.sheet["CASH"] == 0


def test_a_loss_a_fee_and_a_settlement_can_always_be_booked(journal: Journal) -> None:
    journal.post(
        OpenPosition("X", -1, 5),
        RecordLoss(100),
        ChargeManagementFee(7),
        PayFees(7),
        ChargeManagementFee(3),
        Settle("X", 50),
    )
    assert journal.sheet["CASH"] == 5 - 100 - 7 - 50


def test_balances_end_at_two_to_the_62_and_not_in_an_overflow(journal: Journal) -> None:
    journal.post(Deposit(BIG))
    with pytest.raises(AmountError, match="2\\^62"):
        journal.post(Deposit("0.00000001"))
    journal.post(Withdraw("0.00000001"), Deposit("0.00000001"))
    assert journal.sheet["CASH"] == BIG


# -- properties: random histories against a simple oracle, and against what their payloads rebuild


class Oracle:
    """The same fund the slow way: queues of lots, split by exact fractions."""

    def __init__(self) -> None:
        self.cash = self.realized = self.external = self.fees = self.receivable = self.trading = 0
        self.lots: dict[str, deque[list[int]]] = defaultdict(deque)  # quantity, cost, mark

    def held(self, instrument: str) -> int:
        return sum(quantity for quantity, _, _ in self.lots[instrument])

    def open(self, instrument: str, quantity: int, cost: int, fee: int) -> None:
        side = 1 if quantity > 0 else -1
        self.cash -= side * cost + fee
        self.trading += fee
        self.lots[instrument].append([quantity, side * cost, 0])

    def close(self, instrument: str, quantity: int, proceeds: int, fee: int) -> None:
        side = 1 if quantity > 0 else -1
        self.cash += side * proceeds - fee
        self.trading += fee
        gone, left = 0, abs(quantity)
        while left:
            lot = self.lots[instrument][0]
            taken = min(left, abs(lot[0]))
            cost, mark = (round(Fraction(lot[at] * taken, abs(lot[0]))) for at in (1, 2))
            gone, left = gone + cost, left - taken
            lot[0], lot[1], lot[2] = lot[0] - side * taken, lot[1] - cost, lot[2] - mark
            if not lot[0]:
                self.lots[instrument].popleft()
        self.realized += side * proceeds - gone

    def mark(self, instrument: str, value: int) -> None:
        held = self.held(instrument)
        left = value if held > 0 else -value
        for lot in self.lots[instrument]:
            worth = round(Fraction(left * lot[0], held))
            left, held = left - worth, held - lot[0]
            lot[2] = worth - lot[1]

    def nav(self) -> int:
        return (
            self.cash
            + self.receivable
            + sum(c + m for lots in self.lots.values() for _, c, m in lots)
        )


amounts = st.integers(1, 10**14).map(from_minor) | st.sampled_from(
    [Decimal("0.00000001"), Decimal(3), Decimal(100)]
)
quantities = st.sampled_from(
    [Decimal(1), Decimal(3), Decimal("0.00000007"), Decimal(10), Decimal("2.5")]
)
steps = st.tuples(
    st.sampled_from(
        ["deposit", "withdraw", "profit", "loss", "trade", "close", "mark", "fee", "pay", "settle"]
    ),
    st.sampled_from(["A", "B"]),
    st.booleans(),
    quantities,
    amounts,
    st.sampled_from([Decimal(0), Decimal("0.00000003"), Decimal(2)]),
)


def play(
    journal: Journal, oracle: Oracle, step: tuple[str, str, bool, Decimal, Decimal, Decimal]
) -> None:
    """Take one random step in book and oracle; the book must refuse a step that makes no sense."""
    kind, name, short, quantity, amount, fee = step
    minor, fee_minor = int(amount * UNIT), int(fee * UNIT)
    held = oracle.held(name)
    sign = -1 if short else 1

    def attempt(event: Event, allowed: bool, consequence: Callable[[], object]) -> None:
        if allowed:
            journal.post(event)
            consequence()
        else:
            with pytest.raises(Rejected):
                journal.post(event)

    def change(**changes: int) -> None:
        for field, by in changes.items():
            setattr(oracle, field, getattr(oracle, field) + by)

    match kind:
        case "deposit":
            attempt(Deposit(amount), True, lambda: change(cash=minor, external=minor))
        case "withdraw":
            attempt(
                Withdraw(amount), minor <= oracle.cash, lambda: change(cash=-minor, external=-minor)
            )
        case "profit":
            attempt(RecordProfit(amount), True, lambda: change(cash=minor, realized=minor))
        case "loss":
            attempt(RecordLoss(amount), True, lambda: change(cash=-minor, realized=-minor))
        case "fee":
            attempt(
                ChargeManagementFee(amount), True, lambda: change(receivable=-minor, fees=minor)
            )
        case "pay":
            attempt(
                PayFees(amount),
                minor <= -oracle.receivable,
                lambda: change(receivable=minor, cash=-minor),
            )
        case "trade":
            signed = int(quantity * UNIT) * sign
            attempt(
                OpenPosition(name, from_minor(signed), amount, fee=fee),
                held * signed >= 0,
                lambda: oracle.open(name, signed, minor, fee_minor),
            )
        case "close":
            signed = int(quantity * UNIT) * sign
            attempt(
                ClosePosition(name, from_minor(signed), amount, fee=fee),
                held * signed > 0 and abs(signed) <= abs(held),
                lambda: oracle.close(name, signed, minor, fee_minor),
            )
        case "settle":
            attempt(Settle(name, amount), held != 0, lambda: oracle.close(name, held, minor, 0))
        case "mark":
            attempt(Mark(name, amount), held != 0, lambda: oracle.mark(name, minor))


def rebuilt(
    journal: Journal,
) -> tuple[dict[Any, int], dict[Any, dict[int, tuple[int, ...]]], bytes]:
    """Balances, lots and the head of the chain, rebuilt from payloads by the standard library."""
    balances: dict[Any, int] = defaultdict(int)
    lots: dict[Any, dict[int, tuple[int, ...]]] = defaultdict(dict)
    head = bytes(32)
    for number, (_, payload, stored) in enumerate(journal.entries, start=1):
        head = hashlib.sha256(head + payload).digest()
        assert head == stored
        entry = json.loads(payload)
        assert entry["seq"] == number
        sums: dict[str, int] = defaultdict(int)
        for account, strategy, asset, amount in entry["legs"]:
            assert amount != 0
            balances[account, strategy, asset] += amount
            sums[asset] += amount
        assert not any(sums.values())
        for strategy, instrument, lot, *image in entry["lots"]:
            lots[strategy, instrument][lot] = tuple(image)
            if not image[0]:
                del lots[strategy, instrument][lot]
    return balances, {key: value for key, value in lots.items() if value}, head


@settings(max_examples=120)
@given(st.lists(steps, max_size=40))
def test_any_history_agrees_with_oracle_and_payloads(history: list[Any]) -> None:
    journal, oracle = Journal(), Oracle()
    for step in history:
        play(journal, oracle, step)
        assert sum(journal.book.totals.values()) == 0
    totals = journal.book.totals
    assert accounts.net_asset_value(totals) == oracle.nav()
    assert totals.get("CASH", 0) == oracle.cash
    assert -totals.get("EXTERNAL", 0) == oracle.external
    assert -totals.get("REALIZED_PNL", 0) == oracle.realized
    assert totals.get("MANAGEMENT_FEES", 0) == oracle.fees
    assert totals.get("TRADING_FEES", 0) == oracle.trading
    for name in ("A", "B"):
        lots = list(journal.book.lots.get((None, name), {}).values())
        assert [[one.quantity, one.cost_minor, one.mark_minor] for one in lots] == list(
            oracle.lots[name]
        )
    balances, lots_again, head = rebuilt(journal)
    assert balances == journal.book.balances
    assert lots_again == {
        key: {lot.id: tuple(lot)[1:] for lot in lots.values()}
        for key, lots in journal.book.lots.items()
    }
    assert head == journal.book.head


@settings(max_examples=15)
@given(st.lists(steps, max_size=30), st.integers(1, 7))
def test_the_tables_hold_the_same_book_however_the_entries_were_batched(
    history: list[Any], size: int
) -> None:
    journal, oracle = Journal(), Oracle()
    for step in history:
        play(journal, oracle, step)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "fund.db"
        store = Store(path, MIGRATIONS)
        again = Book("USD")
        for start in range(0, len(journal.events), size):
            draft = Draft(again, lambda _: None)
            for number, event in enumerate(journal.events[start : start + size], start=start + 1):
                draft.decide(event, f"key-{number}", DAY_1_US)
            assert commit_batch(store, [schema.rows_of(draft)])
            again.apply(draft)
        store.connection.close()
        with Reader(path) as reader:
            stored = schema.load_book(reader, "USD")
            assert reader.rows("SELECT total(amount_minor) FROM posting") == [(0.0,)]
    for book in (again, stored):
        assert (book.balances, book.lots, book.seq, book.head) == (
            journal.book.balances,
            journal.book.lots,
            journal.book.seq,
            journal.book.head,
        )
    assert {account: total for account, total in stored.totals.items() if total} == {
        account: total for account, total in journal.book.totals.items() if total
    }
