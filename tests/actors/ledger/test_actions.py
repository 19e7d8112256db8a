"""Splits, renames, transfers, conversions and prices, decided by plain calls."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fundops.actors.ledger.book import Book, Draft
from fundops.actors.ledger.entry import Entry, Original, canonical
from fundops.actors.ledger.prices import price_of, prices_as_of
from fundops.actors.ledger.reports import Reports
from fundops.actors.ledger.schema import load_book
from fundops.actors.persistence import Reader
from fundops.wire.errors import (
    AmountError,
    BadField,
    EntryRefused,
    InsufficientFunds,
    PositionMismatch,
)
from fundops.wire.ledger import (
    ClosePosition,
    Convert,
    Correct,
    Deposit,
    Event,
    Leg,
    Mark,
    OpeningBalances,
    OpeningPosition,
    OpenPosition,
    Post,
    Price,
    RecordProfit,
    Rename,
    Reverse,
    Split,
    Transfer,
    Withdraw,
)
from fundops.wire.money import from_minor

NOW_US = 1_700_000_000_000_000
DAY_US = 86_400_000_000
UNIT = 10**8


class Journal:
    """A book whose every entry is applied at once."""

    def __init__(self, *events: Event) -> None:
        self.book = Book("USD")
        self.entries: list[Entry] = []
        self.post(Deposit(1_000), *events)

    def original(self, seq: int) -> Original | None:
        return Original(self.entries[seq - 1], None) if 0 < seq <= len(self.entries) else None

    def post(self, *events: Event) -> Entry:
        for event in events:
            draft = Draft(self.book, self.original)
            entry = draft.decide(event, f"key {self.book.seq}", NOW_US)
            self.book.apply(draft)
            self.entries.append(entry)
        return self.entries[-1]

    def legs(self, *events: Event) -> dict[tuple[str, str | None, str], Decimal]:
        legs = self.post(*events).legs
        return {(account, owner, asset): from_minor(minor) for account, owner, asset, minor in legs}

    def lots(self, instrument: str = "X", strategy: str | None = None) -> list[tuple[float, ...]]:
        """Id, quantity, cost and mark of the open lots."""
        lots = self.book.open_lots((strategy, instrument)).values()
        return [(lot.id, *(figure / UNIT for figure in lot[1:])) for lot in lots]

    @property
    def nav(self) -> Decimal:
        return from_minor(self.book.net_asset_value())


# -- splits


def test_a_split_multiplies_every_lot_at_its_cost() -> None:
    journal = Journal(
        OpenPosition("X", 10, 100),
        OpenPosition("X", 5, 60, strategy="a"),
        OpenPosition("X", 4, 40),
        Mark("X", 150),
        OpenPosition("Y", 1, 1),
    )
    before = journal.nav
    assert journal.legs(Split("X", "3:2")) == {}
    assert [lot[1:3] for lot in journal.lots()] == [(15, 100), (6, 40)]
    assert journal.lots(strategy="a") == [(3, 7.5, 60, 0)]
    assert journal.lots("Y") == [(6, 1, 1, 0)]
    assert journal.nav == before


def test_a_split_of_one_strategy_leaves_the_others() -> None:
    journal = Journal(OpenPosition("X", 1, 5), OpenPosition("X", 1, 5, strategy="a"))
    journal.post(Split("X", 2, strategy="a"))
    assert (journal.lots()[0][1], journal.lots(strategy="a")[0][1]) == (1, 2)


def test_cash_for_a_fraction_closes_it_at_its_cost() -> None:
    journal = Journal(OpenPosition("X", 101, 101, strategy="a"))
    legs = journal.legs(Split("X", "1:10", cash="1.5"))
    about: Any = pytest.approx(100, abs=2)
    assert journal.lots(strategy="a") == [(2, 10, about, 0)]
    cost = -legs["POSITIONS", "a", "USD"]
    assert legs == {
        ("CASH", "a", "USD"): Decimal("1.5"),
        ("POSITIONS", "a", "USD"): -cost,
        ("REALIZED_PNL", "a", "USD"): cost - Decimal("1.5"),
    }
    assert cost == Decimal("1")  # 0.1 of 10.1 units


def test_a_short_pays_for_the_fraction_of_its_split() -> None:
    journal = Journal(OpenPosition("X", -5, 50))
    legs = journal.legs(Split("X", "1:2", cash=10))
    assert legs["CASH", None, "USD"] == -10
    assert journal.lots() == [(2, -2, -40, 0)]


def test_rounding_of_a_split_is_that_of_the_position() -> None:
    journal = Journal(*[OpenPosition("X", 1, 1)] * 3)
    journal.post(Split("X", "1:3"))
    assert sum(lot.quantity for lot in journal.book.open_lots((None, "X")).values()) == UNIT


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (Split("Z", 2), PositionMismatch),
        (Split("X", 2, strategy="b"), PositionMismatch),
        (Split("X", 0), AmountError),
        (Split("X", "-1:2"), AmountError),
        (Split("X", "1:0"), AmountError),
        (Split("X", "1:2:3"), AmountError),
        (Split("X", "two"), AmountError),
        (Split("X", 2, cash=1, strategy="a"), AmountError),  # no fraction is left
        (Split("X", "1:3", cash=1), AmountError),  # two strategies hold it
        (Split("X", "1:3", cash=-1, strategy="a"), AmountError),
        (Split("X", "1:1000000000", strategy="a"), AmountError),  # nothing is left of a lot
        (Split("X", 40_000_000_000, strategy="a"), AmountError),
        (Rename("Z", "Y"), PositionMismatch),
        (Rename("X", "X"), BadField),
        (Rename("X", ""), BadField),
        (Rename("X", "S", strategy="a"), PositionMismatch),  # long into short
        (Transfer("X", 3, "a", "b"), PositionMismatch),
        (Transfer("X", -1, "a", "b"), PositionMismatch),
        (Transfer("X", 0, "a", "b"), AmountError),
        (Transfer("X", 1, "a", "a"), BadField),
        (Transfer("S", -1, "a", "c"), PositionMismatch),
        (Convert(1, "USD", 1, "USD"), BadField),
        (Convert(1, "UNITS", 1, "USD"), BadField),
        (Convert(1, "USD", 1, "UNITS"), BadField),
        (Convert(1, "EUR", 1, "USD"), InsufficientFunds),
        (Convert(10_000, "USD", 1, "EUR"), InsufficientFunds),
        (Convert(0, "USD", 1, "EUR"), AmountError),
        (Convert(1, "USD", 0, "EUR"), AmountError),
        (Price("USD", 1), BadField),
        (Price("UNITS", 1), BadField),
        (Price("EUR", -1), AmountError),
        (Price("", 1), BadField),
    ],
)
def test_a_refused_action_leaves_the_book_as_it_was(event: Event, error: type[Exception]) -> None:
    journal = Journal(
        OpenPosition("X", 2, 20, strategy="a"),
        OpenPosition("X", 1, 10),
        OpenPosition("S", -1, 5, strategy="a"),
        OpenPosition("S", 1, 5, strategy="c"),
    )
    before = (journal.book.balances.copy(), str(journal.book.lots), journal.book.prices)
    with pytest.raises(error):
        journal.post(event)
    assert (journal.book.balances, str(journal.book.lots), journal.book.prices) == before


# -- renames and transfers


def test_a_rename_moves_all_lots_and_keeps_their_age() -> None:
    journal = Journal(
        OpenPosition("OLD", 1, 10),
        OpenPosition("NEW", 1, 20),
        OpenPosition("OLD", 1, 30, strategy="a"),
        Rename("OLD", "NEW"),
    )
    assert journal.lots("OLD") == journal.lots("OLD", "a") == []
    assert [lot[0] for lot in journal.lots("NEW")] == [2, 3]
    # The oldest lot is closed first, though it came last under this name.
    assert journal.legs(ClosePosition("NEW", 1, 10))["POSITIONS", None, "USD"] == -10


def test_lots_of_one_entry_that_meet_become_one() -> None:
    """Opening balances open several positions under one number."""
    book = Book("USD")
    held = (OpeningPosition("OLD", 1, 10, 12), OpeningPosition("NEW", 2, 30))
    draft = Draft(book, lambda _: None)
    draft.decide(OpeningBalances(100, held), "a", NOW_US)
    draft.decide(Rename("OLD", "NEW"), "b", NOW_US)
    [lot] = draft.open_lots((None, "NEW")).values()
    assert [figure / UNIT for figure in lot[1:]] == [3, 40, 2]


def test_a_transfer_is_paid_at_cost_and_makes_no_profit() -> None:
    journal = Journal(
        OpenPosition("X", 10, 100, strategy="a"),
        OpenPosition("X", 10, 200, strategy="a"),
        Mark("X", 400, strategy="a"),
    )
    legs = journal.legs(Transfer("X", 15, "a", "b"))
    assert {key[:2]: amount for key, amount in legs.items()} == {
        ("POSITIONS", "a"): -200,
        ("CASH", "a"): 200,
        ("POSITIONS:MTM", "a"): -100,
        ("UNREALIZED_PNL", "a"): 100,
        ("POSITIONS", "b"): 200,
        ("CASH", "b"): -200,
        ("POSITIONS:MTM", "b"): 100,
        ("UNREALIZED_PNL", "b"): -100,
    }
    assert journal.lots(strategy="a") == [(3, 5, 100, 0)]
    assert [lot[:3] for lot in journal.lots(strategy="b")] == [(2, 10, 100), (3, 5, 100)]


def test_a_lot_that_comes_back_is_whole_again() -> None:
    journal = Journal(OpenPosition("X", 3, 10, strategy="a"), Mark("X", 11, strategy="a"))
    before = journal.lots(strategy="a")
    journal.post(Transfer("X", 1, "a", "b"), Transfer("X", 1, "b", "a"))
    assert journal.lots(strategy="a") == before
    assert journal.lots(strategy="b") == []


# -- other assets


def test_a_conversion_balances_in_each_asset() -> None:
    journal = Journal()
    assert journal.legs(Convert(100, "USD", 90, "EUR", fee=1)) == {
        ("CASH", None, "USD"): -101,
        ("CONVERSIONS", None, "USD"): 100,
        ("TRADING_FEES", None, "USD"): 1,
        ("CASH", None, "EUR"): 90,
        ("CONVERSIONS", None, "EUR"): -90,
    }
    with pytest.raises(InsufficientFunds, match="90"):
        journal.post(Convert(90, "EUR", 100, "USD", fee="0.00000001"))
    journal.post(Convert(90, "EUR", 100, "USD"))


def test_a_price_may_take_the_place_of_a_mistake() -> None:
    book = Book("USD")
    draft = Draft(book, lambda _: None)
    draft.decide(Deposit(100), "a", NOW_US)
    draft.decide(RecordProfit(100), "b", NOW_US)
    draft.correct(Correct(2, Price("EUR", 2), "it was a price"), "c", NOW_US)
    assert price_of(draft.entries[-1].request) == ("EUR", Decimal(2))
    assert draft.prices["EUR"].value == 2


def test_the_nav_counts_an_asset_at_its_last_price() -> None:
    journal = Journal(Convert(100, "USD", 90, "EUR"))
    assert (journal.nav, journal.book.unpriced()) == (Decimal(900), ("EUR",))
    assert journal.post(Price("EUR", "1.1", at_us=NOW_US - DAY_US)).legs == ()
    assert (journal.nav, journal.book.unpriced()) == (Decimal(999), ())
    journal.post(Price("EUR", 2))
    journal.post(Price("EUR", 5, at_us=NOW_US - 2 * DAY_US))  # older than the last one
    assert journal.nav == 1_080
    units = journal.legs(Deposit(1_080))["HOLDERS", None, "UNITS"]
    assert units == 1_000


def test_a_price_is_not_reversed_but_followed() -> None:
    journal = Journal(Price("EUR", 2))
    with pytest.raises(EntryRefused, match="book another price"):
        journal.post(Reverse(2, "wrong"))


@pytest.mark.parametrize("asset", ["EUR", None])
def test_no_withdrawal_takes_cash_of_any_asset_below_zero(asset: str | None) -> None:
    journal = Journal(Post((Leg("CASH", 5, asset="EUR"), Leg("EXTERNAL", -5, asset="EUR"))))
    cash = 5 if asset else 1_000
    over = Post((Leg("CASH", -cash - 1, asset=asset), Leg("EXTERNAL", cash + 1, asset=asset)))
    with pytest.raises(InsufficientFunds):
        journal.post(over)
    journal.post(Post((Leg("CASH", -cash, asset=asset), Leg("EXTERNAL", cash, asset=asset))))
    with pytest.raises(InsufficientFunds):
        journal.post(Withdraw(1_001))


# -- identity, and what the file keeps


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Split("X", "3:2"), Split("X", 1.5), True),
        (Split("X", "3:2"), Split("X", " 6 : 4"), True),
        (Split("X", "3:2"), Split("X", "2:3"), False),
        (Split("X", 2, cash=1), Split("X", 2), False),
        (Convert(1, "USD", 2, "EUR"), Convert("1.0", "USD", Decimal(2), "EUR"), True),
        (Convert(1, "USD", 2, "EUR"), Convert(1, "USD", 3, "EUR"), False),
        (Price("EUR", 1), Price("EUR", "1.00"), True),
        (Transfer("X", 1, "a", "b"), Transfer("X", 1, "b", "a"), False),
    ],
)
def test_the_same_action_has_the_same_canonical_form(one: Any, other: Any, same: bool) -> None:
    assert (canonical(one) == canonical(other)) is same


def test_the_file_keeps_lots_and_prices_of_actions(
    tmp_path: Path, write: Callable[..., Book]
) -> None:
    book = write(
        tmp_path / "fund.db",
        Deposit(1_000),
        OpenPosition("X", 3, 30, strategy="a"),
        OpenPosition("Z", 1, 7, strategy="b"),
        Split("X", "1:3"),
        Transfer("X", "0.5", "a", "b"),
        Rename("X", "Z"),
        Convert(10, "USD", 9, "EUR"),
        Price("EUR", "1.2"),
    )
    with Reader(tmp_path / "fund.db") as reader:
        again = load_book(reader, "USD")
        assert again.lots == book.lots
        assert [list(lots) for lots in again.lots.values()] == [
            list(book.lots[key]) for key in again.lots
        ]
        assert prices_as_of(reader) == book.prices
        reports = Reports(reader, "USD")
        assert reports.nav() == from_minor(book.net_asset_value()) == Decimal("1000.8")
        assert reports.prices() == {"EUR": Decimal("1.2")}
        assert reports.nav_per_unit() == Decimal("1.0008")
        plan = " ".join(
            row[3]
            for row in reader.rows("EXPLAIN QUERY PLAN SELECT 1 FROM entry WHERE kind = 'price'")
        )
        assert "entry_price" in plan
