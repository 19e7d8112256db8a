"""The ledger through its door: periods, corrections, opening balances, reports as of any time."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from fundops import (
    AlreadyReversed,
    AmountError,
    ConfigError,
    FundConfig,
    IdempotencyConflict,
    InsufficientFunds,
    Leg,
    OpeningPosition,
    PeriodClosed,
    open_reader,
)
from fundops.actors.ledger.verify import Anchor
from fundops.doors import LedgerDoor
from fundops.runtime import DAY_US, Worker
from fundops.testing import START_US, VirtualFund, virtual_fund
from fundops.wire.controller import Fill
from fundops.wire.errors import EntryRefused, PositionMismatch
from fundops.wire.ledger import (
    EVENTS_MAX,
    BookSettlement,
    ClosePeriod,
    Correct,
    Deposit,
    OpenPosition,
    Post,
    RecordLoss,
    RecordProfit,
    Withdraw,
)


class Text(str):
    """A text to look at, which no encoder takes for one."""


class Mute:
    """Cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


ODD = Text("a")
VAST = 10**5_000


def untyped(value: Any) -> Any:
    """The value for a parameter of another type: a caller without a type checker may pass it."""
    return value


TEXTS = ("key", "strategy", "memo")

GOLDEN_SHEET = {
    "CASH": 95_000,
    "POSITIONS": 5_000,
    "FEES_RECEIVABLE": -300,
    "MANAGEMENT_FEES": 200,
    "PERFORMANCE_FEES": 100,
    "REALIZED_PNL": -1_500,
    "UNREALIZED_PNL": 0,
}
TODAY = "2026-01-05"


@asynccontextmanager
async def book(**settings: Any) -> AsyncIterator[tuple[VirtualFund, LedgerDoor]]:
    """A fund of 100,000, whose database is verified at the end."""
    async with virtual_fund(
        **{"total_capital": 100_000, "ledger_enabled": True, **settings}
    ) as world:
        yield world, world.fund.ledger
        checked = await world.fund.ledger.verify()
        assert checked.ok, [str(one) for one in checked.findings]


async def play_golden(ledger: LedgerDoor) -> None:
    await ledger.record_profit(2_000)
    await ledger.record_loss(500)
    await ledger.withdraw(1_500)
    await ledger.open_position("AAPL", quantity=50, cost=5_000)
    await ledger.charge_management_fee(200)
    await ledger.charge_performance_fee(100)


async def test_the_golden_script_gives_its_numbers_to_the_last_digit() -> None:
    async with book() as (_, ledger):
        await play_golden(ledger)
        assert await ledger.balance_sheet() == GOLDEN_SHEET
        assert await ledger.income_statement() == {
            "REALIZED_PNL": 1_500,
            "UNREALIZED_PNL": 0,
            "MANAGEMENT_FEES": -200,
            "PERFORMANCE_FEES": -100,
        }
        trial = await ledger.trial_balance()
        assert trial == {**GOLDEN_SHEET, "EXTERNAL": -98_500}
        assert sum(trial.values()) == 0
        assert await ledger.nav() == 99_700
        await ledger.mark("AAPL", value=5_250)
        assert await ledger.nav() == 99_950
        assert (await ledger.income_statement())["UNREALIZED_PNL"] == 250


async def test_reports_as_of_a_day_an_instant_and_now_agree_where_they_must() -> None:
    async with book() as (world, ledger):
        await ledger.record_profit(10, key="monday")
        world.clock.advance(86_400)
        await ledger.record_loss(4, key="tuesday")
        await ledger.record_profit(100, at=dt.date(2026, 1, 3), key="backdated")
        cash = [
            (await ledger.balance_sheet(day))["CASH"]
            for day in ("2026-01-02", "2026-01-03", TODAY, "2026-01-06")
        ]
        assert cash == [0, 100, 100_110, 100_106]
        assert await ledger.balance_sheet() == await ledger.balance_sheet("2026-01-06")
        assert (await ledger.balance_sheet(dt.date(2026, 1, 5)))["CASH"] == 100_110
        noon = dt.datetime(2026, 1, 5, 12, tzinfo=dt.UTC)
        assert (await ledger.balance_sheet(noon))["CASH"] == 100_110
        assert (await ledger.balance_sheet(START_US - 1))["CASH"] == 100
        assert (await ledger.balance_sheet(START_US + DAY_US - 1))["CASH"] == 100_110
        assert (await ledger.balance_sheet(START_US + DAY_US))["CASH"] == 100_106
        assert await ledger.nav(TODAY) == 100_110
        assert sum((await ledger.trial_balance(TODAY)).values()) == 0


async def test_a_unit_is_worth_what_was_earned_until_then_whoever_came_and_went() -> None:
    async with book() as (world, ledger):
        await ledger.record_profit(10_000)
        await ledger.deposit(55_000)
        world.clock.advance(86_400)
        await ledger.withdraw(110_000)
        await ledger.record_loss(11_000)
        assert await ledger.nav_per_unit(dt.date(2026, 1, 4)) == 1
        assert await ledger.nav_per_unit(TODAY) == Decimal("1.1")
        assert (
            await ledger.nav_per_unit()
            == await ledger.nav_per_unit("2026-01-06")
            == Decimal("0.88")
        )
        await ledger.deposit(11_000, at=dt.datetime(2026, 1, 5, 12, tzinfo=dt.UTC))
        assert await ledger.nav_per_unit() == Decimal("0.88")
        assert await ledger.nav_per_unit(TODAY) == Decimal("1.08307692")  # 176,000 for 162,500
        units = await ledger.trial_balance(asset="UNITS")
        assert (units["HOLDERS"], units["UNITS"], sum(units.values())) == (
            Decimal(62_500),
            Decimal(-62_500),
            Decimal(0),
        )
        assert await ledger.trial_balance(TODAY, asset="USD") == await ledger.trial_balance(TODAY)
        with open_reader(world.fund.config.path) as reader:
            assert reader.nav_per_unit() == await ledger.nav_per_unit()
            assert reader.nav_per_unit(TODAY) == await ledger.nav_per_unit(TODAY)
        with pytest.raises(ConfigError, match="as_of"):
            await ledger.nav_per_unit("yesterday")


async def test_income_of_a_range_takes_in_both_ends() -> None:
    async with book() as (_, ledger):
        for day in range(1, 6):
            await ledger.record_profit(10**day, at=dt.date(2026, 1, day))

        async def realized(start: Any = None, end: Any = None) -> Decimal:
            return (await ledger.income_statement(start, end))["REALIZED_PNL"]

        assert await realized() == 111_110
        assert await realized("2026-01-02", "2026-01-04") == 11_100
        assert await realized(dt.date(2026, 1, 5)) == 100_000
        assert await realized(end="2026-01-01") == 10
        at_us = START_US - 2 * DAY_US  # the start of the 3rd, when its profit was made
        assert await realized(at_us, at_us) == 1_000
        assert await realized(at_us + 1, at_us + DAY_US - 1) == 0


async def test_a_strategy_has_reports_of_its_own() -> None:
    async with book() as (_, ledger):
        await ledger.record_profit(7, strategy="a")
        await ledger.record_loss(3, strategy="b")
        assert (await ledger.income_statement(strategy="a"))["REALIZED_PNL"] == 7
        assert (await ledger.balance_sheet(strategy="b"))["CASH"] == -3
        assert await ledger.nav(strategy="a") == 7


async def test_cash_flow_says_what_money_was_for_and_adds_up() -> None:
    async with book() as (world, ledger):
        await play_golden(ledger)
        await ledger.pay_fees(300)
        await ledger.income("12.5", instrument="AAPL")
        await ledger.financing(2)
        wrong = await ledger.record_profit(50)
        await ledger.reverse(wrong.seq, reason="not ours")
        await ledger.post((Leg("CASH", 1), Leg("EXTERNAL", -1)))
        flow = await ledger.cash_flow()
        assert flow == {
            "OPENING": 0,
            "DEPOSITS": 100_000,
            "WITHDRAWALS": -1_500,
            "PROFIT_AND_LOSS": 1_500,
            "TRADING": -5_000,
            "FEES_PAID": -300,
            "INCOME": Decimal("12.5"),
            "FINANCING": -2,
            "OTHER": 1,
            "NET": Decimal("94711.5"),
            "CLOSING": Decimal("94711.5"),
        }
        assert flow["CLOSING"] == (await ledger.balance_sheet())["CASH"]
        world.clock.advance(86_400)
        await ledger.deposit(5)
        later = await ledger.cash_flow("2026-01-06")
        assert (later["OPENING"], later["DEPOSITS"], later["CLOSING"]) == (
            flow["CLOSING"],
            Decimal(5),
            flow["CLOSING"] + 5,
        )
        assert (await ledger.cash_flow(end=TODAY)) == flow


async def test_income_and_financing_have_accounts_that_join_once_used() -> None:
    async with book() as (_, ledger):
        assert "INCOME" not in await ledger.balance_sheet()
        await ledger.income(10, strategy="a")
        await ledger.income(-4)
        await ledger.financing("1.5")
        sheet, income = await ledger.balance_sheet(), await ledger.income_statement()
        assert (sheet["INCOME"], sheet["FINANCING"], sheet["CASH"]) == (
            Decimal(-6),
            Decimal("1.5"),
            Decimal("100004.5"),
        )
        assert (income["INCOME"], income["FINANCING"]) == (Decimal(6), Decimal("-1.5"))
        for amount in (0, "0.000000001", True, float("nan")):
            with pytest.raises(AmountError):
                await ledger.income(amount)


# -- periods


async def test_a_closed_period_is_locked_and_its_revenue_retained() -> None:
    async with book() as (world, ledger):
        await play_golden(ledger)
        world.clock.advance(86_400)
        await ledger.record_profit(40)
        before = await ledger.nav()
        closed = await ledger.close_period(TODAY)
        sheet = await ledger.balance_sheet()
        assert (sheet["RETAINED"], sheet["REALIZED_PNL"], sheet["MANAGEMENT_FEES"]) == (
            Decimal(-1_200),
            Decimal(-40),
            Decimal(0),
        )
        assert await ledger.nav() == before
        # Closing entries are left out of the income of every range.
        assert (await ledger.income_statement())["REALIZED_PNL"] == 1_540
        assert (await ledger.income_statement(end=TODAY))["MANAGEMENT_FEES"] == -200
        assert (await ledger.income_statement("2026-01-06"))["REALIZED_PNL"] == 40
        assert sum((await ledger.trial_balance()).values()) == 0
        for late in (dt.date(2026, 1, 5), dt.date(2020, 1, 1), START_US):
            with pytest.raises(PeriodClosed) as refused:
                await ledger.record_profit(1, at=late)
            assert refused.value.closed == TODAY
        with pytest.raises(PeriodClosed):
            await ledger.close_period(TODAY)
        with pytest.raises(EntryRefused, match="reopen the period"):
            await ledger.reverse(closed.seq, reason="no")


async def test_reopening_takes_the_last_close_back_and_says_who_and_why() -> None:
    async with book() as (world, ledger):
        await ledger.record_profit(10, at=dt.date(2026, 1, 2))
        await ledger.record_profit(20, at=dt.date(2026, 1, 3))
        await ledger.close_period("2026-01-02")
        await ledger.close_period(dt.date(2026, 1, 3))
        with pytest.raises(EntryRefused, match="closed up to 2026-01-03"):
            await ledger.reopen_period("2026-01-02", by="ann", reason="wrong one")
        await ledger.reopen_period("2026-01-03", by="ann", reason="late trade")
        await ledger.record_profit(5, at=dt.date(2026, 1, 3))
        with pytest.raises(PeriodClosed):
            await ledger.record_profit(5, at=dt.date(2026, 1, 2))
        sheet = await ledger.balance_sheet()
        assert (sheet["RETAINED"], sheet["REALIZED_PNL"]) == (Decimal(-10), Decimal(-25))
        assert (await ledger.income_statement())["REALIZED_PNL"] == 35
        reopened = (await ledger.entries(kind="period_reopen"))[0]
        assert reopened.memo == "late trade (by ann)"
        # The journal keeps both, so a restarted ledger knows the closed periods.
        world.fund.drill("ledger")
        with pytest.raises(PeriodClosed):
            await ledger.record_profit(5, at=dt.date(2026, 1, 2))
        await ledger.close_period("2026-01-03")
        assert (await ledger.balance_sheet())["RETAINED"] == -35


async def test_a_close_counts_what_is_in_its_own_batch() -> None:
    async with book() as (_, ledger):
        await ledger.post_many([RecordProfit(30), RecordLoss(10, strategy="a")])
        await ledger.post_many([RecordProfit(5), ClosePeriod(TODAY)])
        sheet = await ledger.balance_sheet()
        assert (sheet["RETAINED"], sheet["REALIZED_PNL"]) == (Decimal(-25), Decimal(0))
        assert (await ledger.balance_sheet(strategy="a"))["RETAINED"] == 10


@pytest.mark.parametrize("day", ["2026-01-06", "yesterday", "2026-1-5", "", "2026-02-30"])
async def test_a_day_that_cannot_be_closed_is_refused(day: str) -> None:
    async with book() as (_, ledger):
        with pytest.raises(ConfigError, match="day"):
            await ledger.close_period(day)


async def test_a_quiet_period_may_be_closed() -> None:
    async with book() as (_, ledger):
        await ledger.close_period("2026-01-01")
        with pytest.raises(PeriodClosed):
            await ledger.deposit(1, at=dt.date(2026, 1, 1))


# -- corrections


async def test_a_correction_reverses_and_books_anew_in_one_and_links_them() -> None:
    async with book() as (_, ledger):
        wrong = await ledger.record_profit(200, strategy="a")
        posted = await ledger.correct(
            wrong.seq, RecordProfit(20, strategy="a"), reason="typo", key="fix"
        )
        new, reversal = await ledger.recent_entries(2)
        assert (new.seq, new.key, new.kind, new.corrects) == (
            posted.seq,
            "fix",
            "profit",
            wrong.seq,
        )
        assert (reversal.reverses, reversal.memo, reversal.key) == (
            wrong.seq,
            "typo",
            "fix:reversal",
        )
        assert (await ledger.balance_sheet(strategy="a"))["REALIZED_PNL"] == -20
        again = await ledger.correct(
            wrong.seq, RecordProfit(20, strategy="a"), reason="typo", key="fix"
        )
        assert (again.seq, again.replayed) == (posted.seq, True)
        with pytest.raises(IdempotencyConflict):
            await ledger.correct(
                wrong.seq, RecordProfit(21, strategy="a"), reason="typo", key="fix"
            )
        with pytest.raises(AlreadyReversed):
            await ledger.correct(wrong.seq, RecordProfit(22), reason="again")


async def test_a_correction_mends_the_reports_of_the_time_of_the_mistake_while_that_is_open() -> (
    None
):
    async with book() as (_, ledger):
        early = await ledger.record_profit(500, at=dt.date(2026, 1, 2))
        later = await ledger.record_profit(70, at=dt.date(2026, 1, 3))
        await ledger.correct(
            early.seq, RecordProfit(50, at_us=START_US - 3 * DAY_US), reason="typo"
        )
        assert (await ledger.income_statement(end="2026-01-02"))["REALIZED_PNL"] == 50
        await ledger.close_period("2026-01-03")
        await ledger.correct(later.seq, RecordProfit(7), reason="typo")
        assert (await ledger.income_statement(end="2026-01-04"))["REALIZED_PNL"] == 120
        assert (await ledger.income_statement())["REALIZED_PNL"] == 57


async def test_a_correction_that_cannot_be_booked_reverses_nothing() -> None:
    async with book() as (_, ledger):
        wrong = await ledger.record_profit(200)
        for entry, refusal in (
            (RecordProfit(-1), AmountError),
            (RecordProfit(1, key="k"), ConfigError),
            (OpenPosition("X", 0, 1), AmountError),
        ):
            with pytest.raises(refusal):
                await ledger.correct(wrong.seq, entry, reason="typo")
        assert [one.kind for one in await ledger.recent_entries(5)] == ["profit", "deposit"]


async def test_the_key_of_a_corrections_reversal_is_taken_only_once() -> None:
    async with book() as (_, ledger):
        wrong = await ledger.record_profit(200, key="x:reversal")
        with pytest.raises(IdempotencyConflict, match="x:reversal") as refused:
            await ledger.correct(wrong.seq, RecordProfit(2), reason="typo", key="x")
        assert refused.value.seq == wrong.seq
        correct = Correct(wrong.seq, RecordProfit(20), "typo", key="y")
        with pytest.raises(IdempotencyConflict, match="y:reversal"):
            await ledger.post_many([correct, RecordLoss(1, key="y:reversal")])
        assert len(await ledger.recent_entries()) == 2
        await ledger.post_many([correct])
        with pytest.raises(IdempotencyConflict):
            await ledger.record_loss(1, key="y:reversal")
        assert await ledger.nav() == 100_020


async def test_a_correction_may_have_the_longest_key_there_is() -> None:
    async with book() as (_, ledger):
        wrong = await ledger.record_profit(200)
        for key, amount in (("k" * 128, 20), ("k" * 127 + "é", 30)):
            posted = await ledger.correct(wrong.seq, RecordProfit(amount), reason="typo", key=key)
            assert (
                await ledger.correct(wrong.seq, RecordProfit(amount), reason="typo", key=key)
            ).replayed
            wrong = posted
        with pytest.raises(ConfigError, match="key"):
            await ledger.correct(wrong.seq, RecordProfit(1), reason="typo", key="k" * 129)
        assert await ledger.nav() == 100_030


async def test_what_was_booked_late_is_corrected_on_the_day_it_was_booked() -> None:
    async with book() as (_, ledger):
        await ledger.close_period("2026-01-04")
        market = BookSettlement("M", 5, 8, at_us=START_US - DAY_US)
        late = await ledger.post(market)
        await ledger.correct(late.seq, RecordProfit(4), reason="typo")
        assert [one.day for one in await ledger.recent_entries(3)] == [TODAY] * 3
        again = (await ledger.recent_entries(1))[0].seq
        await ledger.correct(again, RecordProfit(5), reason="typo", memo="see ticket")
        await ledger.correct(
            again + 2, RecordProfit(4, memo="own"), reason="typo", memo="see ticket"
        )
        assert [one.memo for one in await ledger.recent_entries(4)] == [
            "own",
            "typo",
            "see ticket",
            "typo",
        ]
        assert await ledger.nav() == 100_004


# -- the book of a fund that already trades


async def test_opening_balances_start_the_book_of_a_fund_that_already_trades() -> None:
    async with book() as (_, ledger):
        positions = (
            OpeningPosition("AAPL", 10, 1_000, 1_200, "a"),
            OpeningPosition("TSLA", -5, 500, strategy="a"),
            OpeningPosition("AAPL", 1, 90, strategy="b"),
        )
        await ledger.opening_balances(cash=98_000, positions=positions)
        sheet = await ledger.balance_sheet()
        assert (sheet["CASH"], sheet["POSITIONS"]) == (Decimal(98_000), Decimal(790))
        assert await ledger.nav() == 98_790
        assert sheet["RETAINED"] == 1_210  # the loss before the book began
        assert sheet["REALIZED_PNL"] == sheet["UNREALIZED_PNL"] == 0
        await ledger.close_position("AAPL", quantity=10, proceeds=1_300, strategy="a")
        await ledger.close_position("TSLA", quantity=-5, proceeds=400, strategy="a")
        income = await ledger.income_statement()
        assert (income["REALIZED_PNL"], income["UNREALIZED_PNL"]) == (Decimal(400), Decimal(-200))
        with pytest.raises(EntryRefused, match="opening balances come first"):
            await ledger.opening_balances(cash=1)


async def test_opening_balances_refuse_one_position_twice() -> None:
    async with book() as (_, ledger):
        with pytest.raises(PositionMismatch, match="is given twice"):
            await ledger.opening_balances(
                cash=1, positions=[OpeningPosition("A", 1, 1), OpeningPosition("A", 2, 1)]
            )
        assert len(await ledger.recent_entries()) == 1


# -- pages, floors and floats


async def test_entries_come_in_pages_by_account_strategy_and_kind() -> None:
    async with book() as (_, ledger):
        for number in range(10):
            await ledger.record_profit(number + 1, strategy="ab"[number % 2])
        await ledger.charge_management_fee(1)
        seen: list[int] = []
        after: int | None = None
        while page := await ledger.entries(kind="profit", strategy="a", limit=2, after_seq=after):
            seen += [one.seq for one in page]
            after = page[-1].seq
        assert seen == [10, 8, 6, 4, 2]
        assert [one.kind for one in await ledger.entries(account="FEES_RECEIVABLE")] == [
            "management_fee"
        ]
        assert await ledger.entries(limit=0) == ()
        with pytest.raises(ValueError, match="limit"):
            await ledger.entries(limit=-1)


async def test_a_floor_holds_for_what_people_take_out_and_never_for_what_happened() -> None:
    async with book(account_floors={"CASH": 99_000, "POSITIONS": 0}) as (_, ledger):
        with pytest.raises(InsufficientFunds) as refused:
            await ledger.withdraw(1_001)
        assert (refused.value.account, refused.value.available) == ("CASH", Decimal(1_000))
        await ledger.withdraw(1_000)
        await ledger.charge_management_fee(5)
        with pytest.raises(InsufficientFunds):
            await ledger.pay_fees(5)
        with pytest.raises(InsufficientFunds):
            await ledger.post((Leg("CASH", -1), Leg("EXTERNAL", 1)))
        await ledger.record_loss(500)
        await ledger.open_position("X", quantity=1, cost=90_000)
        assert (await ledger.balance_sheet())["CASH"] == 8_500


async def test_floats_may_be_refused() -> None:
    async with book(ledger_floats="refuse") as (_, ledger):
        with pytest.raises(AmountError, match="is a float, which this fund refuses"):
            await ledger.deposit(3.15)
        await ledger.deposit("3.15")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ledger_floats", "maybe"),
        ("account_floors", [("CASH", 1)]),
        ("account_floors", {"GOLD": 1}),
        ("account_floors", {"CASH": "much"}),
    ],
)
def test_ledger_settings_that_make_no_sense_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field):
        FundConfig(total_capital=1, **{field: value})


@pytest.mark.parametrize("moment", [1.5, "soon", object(), dt.datetime(2026, 1, 1), True])  # noqa: DTZ001
async def test_a_time_that_is_none_is_refused_with_its_name(moment: Any) -> None:
    async with book() as (_, ledger):
        with pytest.raises(ConfigError, match="as_of"):
            await ledger.balance_sheet(moment)
        with pytest.raises(ConfigError, match="end"):
            await ledger.cash_flow(end=moment)


async def test_what_happened_and_was_booked_late_is_booked_when_its_period_is_closed() -> None:
    async with book() as (world, ledger):
        await ledger.close_period("2026-01-04")
        fill = Fill(
            "f1", "a", "AAPL", Decimal(1), Decimal(10), Decimal(0), START_US - DAY_US, cursor="1"
        )
        world.controller.fill_list.append(fill)
        await world.tick()
        (entry,) = await ledger.entries(kind="fill")
        assert entry.day == TODAY


@pytest.mark.parametrize("key", ["fill:f1", "settlement:m:0", "settlement:m:1:reversal"])
async def test_the_keys_of_what_the_engine_reports_are_nobody_elses(key: str) -> None:
    async with book() as (_, ledger):
        with pytest.raises(ConfigError, match=r"key: .* which the ledger reserves for reports"):
            await ledger.deposit(1, key=key)
        with pytest.raises(ConfigError, match="key"):
            await ledger.post_many([RecordProfit(1), RecordProfit(1, key=key)])
        assert len(await ledger.recent_entries()) == 1


async def test_many_at_once_have_their_keys_before_they_are_sent() -> None:
    async with book() as (_, ledger):
        with pytest.raises(InsufficientFunds) as refused:
            await ledger.post_many([RecordProfit(1), Withdraw(10**6, key="mine")])
        first, second = refused.value.keys  # type: ignore[attr-defined]
        assert second == "mine"
        assert len(first) > 16
        posted = await ledger.post_many([RecordProfit(1, key=first)])
        assert posted[0].key == first


async def test_the_keys_of_very_many_are_made_beside_the_loop() -> None:
    async with book() as (_, ledger):
        threads: list[str] = []
        make = ledger._make_worker

        def noted(name: str) -> Worker:
            threads.append(name)
            return make(name)

        ledger._make_worker = noted
        for count in (1_024, 1_025):
            posted = await ledger.post_many([RecordProfit(1)] * count)
            assert len({one.key for one in posted}) == count
        assert threads == ["fundops-keys"]


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (lambda book: book.deposit(5, memo=None), "memo"),
        (lambda book: book.record_profit(5, memo=0), "memo"),
        (lambda book: book.record_profit(5, strategy=["a"]), "strategy"),
        (lambda book: book.deposit(5, key=[]), "key"),
        (lambda book: book.deposit(5, key="\ud800"), "key"),
        (lambda book: book.deposit(5, at="noon"), "at"),
        (lambda book: book.open_position(None, quantity=1, cost=5), "instrument"),
        (lambda book: book.income(5, instrument=5), "instrument"),
        (lambda book: book.settle(None, strategy="a", payoff=5), "market"),
        (lambda book: book.reverse("1", reason="x"), "seq"),
        (lambda book: book.reverse(True, reason="x"), "seq"),
        (lambda book: book.reverse(1, reason=None), "reason"),
        (lambda book: book.correct(1, 5, reason="x"), "entry"),
        (lambda book: book.correct(None, Deposit(5), reason="x"), "seq"),
        (lambda book: book.correct(1, Deposit(5), reason="x", key=[]), "key"),
        (lambda book: book.close_period(5), "day"),
        (lambda book: book.opening_balances(cash=5, positions=7), "positions"),
        (lambda book: book.opening_balances(cash=5, positions=[7]), "positions[0]"),
        (
            lambda book: book.opening_balances(
                cash=5, positions=[OpeningPosition(untyped(None), 1, 5)]
            ),
            "instrument",
        ),
        (lambda book: book.post(5), "entry"),
        (lambda book: book.post([Leg("CASH", 5), 5]), "entry[1]"),
        (lambda book: book.post([Leg(untyped([]), 5), Leg("CASH", -5)]), "account"),
        (lambda book: book.post(Post(untyped(5))), "legs"),
        (lambda book: book.post(Post((Leg("CASH", 5), untyped("CASH")))), "legs"),
        (lambda book: book.post_many(5), "entries"),
        (lambda book: book.post_many([RecordProfit(5), "deposit"]), "entries[1]"),
        (
            lambda book: book.post_many([RecordProfit(5), RecordProfit(5, memo=untyped(None))]),
            "memo",
        ),
        (lambda book: book.post(RecordProfit(5), key=""), "key"),
        (lambda book: book.post(RecordProfit(5), strategy=""), "strategy"),
        *[(lambda book, name=name: book.deposit(5, **{name: ODD}), name) for name in TEXTS],
        *[(lambda book, name=name: book.record_profit(5, **{name: ODD}), name) for name in TEXTS],
        *[(lambda book, name=name: book.deposit(5, **{name: VAST}), name) for name in TEXTS],
        *[
            (lambda book, name=name: book.record_profit(5, **{name: Mute()}), name)
            for name in TEXTS
        ],
        (lambda book: book.record_profit(5, at=VAST), "at_us"),
        (lambda book: book.close_period(VAST), "day"),
        (lambda book: book.post([Leg(untyped(VAST), 5), Leg("CASH", -5)]), "account"),
        (lambda book: book.nav(time.time_ns()), "as_of"),
        (lambda book: book.nav(-1), "as_of"),
        (lambda book: book.balance_sheet(VAST), "as_of"),
        (lambda book: book.balance_sheet(strategy=["a"]), "strategy"),
        (lambda book: book.trial_balance(asset=""), "asset"),
        (lambda book: book.income_statement("0000-01-01"), "start"),
        (lambda book: book.income_statement(strategy="\ud800"), "strategy"),
        (lambda book: book.cash_flow(end=True), "end"),
        (lambda book: book.entries(after_seq=2**63), "after_seq"),
        (lambda book: book.entries(account=5), "account"),
        (lambda book: book.entries(kind=[]), "kind"),
        (lambda book: book.verify(anchor=(1, "x")), "anchor"),
        (lambda book: book.verify(anchor=Anchor(1, untyped(None))), "anchor"),
        (lambda book: book.post_many([RecordProfit(5)] * (EVENTS_MAX + 1)), "entries"),
    ],
)
async def test_what_has_the_wrong_type_is_refused_by_name_and_booked_by_nobody(
    ask: Callable[[Any], Awaitable[Any]], field: str
) -> None:
    async with book() as (_, ledger):
        with pytest.raises(ConfigError) as refused:
            await ask(ledger)
        assert refused.value.field == field
        (entry,) = await ledger.recent_entries()
        assert entry.key == "opening"


async def test_what_days_sum_up_to_on_the_way_may_need_more_than_64_bits() -> None:
    """A balance is bounded in the order of booking, and days have another."""
    async with book() as (_, ledger):
        most = Decimal(2**62) / 10**8 - 100_000
        await ledger.record_profit(most, at=START_US - 9 * DAY_US)
        await ledger.record_loss(most, at=START_US - 7 * DAY_US)
        await ledger.record_profit(most, at=START_US - 8 * DAY_US)
        await ledger.record_loss(most)
        assert await ledger.nav(START_US - 8 * DAY_US) == 2 * most
        assert (await ledger.income_statement(end=START_US - 8 * DAY_US))[
            "REALIZED_PNL"
        ] == 2 * most
        assert (await ledger.cash_flow(end=START_US - 8 * DAY_US))["CLOSING"] == 2 * most
        assert await ledger.nav() == 100_000


async def test_the_first_and_the_last_moment_there_are_can_be_asked_about() -> None:
    async with book() as (_, ledger):
        last = dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC)
        assert await ledger.nav(last) == await ledger.nav("9999-12-31") == 100_000
        assert await ledger.nav(0) == await ledger.nav("0001-01-01") == 0
        for start in ("0001-01-01", dt.date.min, 0):
            assert (await ledger.cash_flow(start, last))["DEPOSITS"] == 100_000
            assert (await ledger.income_statement(start))["REALIZED_PNL"] == 0
        assert (
            len(await ledger.entries(limit=2**63))
            == len(await ledger.entries(after_seq=2**63 - 1))
            == 1
        )
        assert not (await ledger.verify(anchor=Anchor(2**63, "ab"))).ok


async def test_an_event_can_be_posted_as_it_is() -> None:
    async with book() as (_, ledger):
        first = await ledger.post(RecordProfit(5, key="mine"), strategy="a")
        assert await ledger.post(
            RecordProfit(5, strategy="a"), key="mine"
        ) == msgspec.structs.replace(first, replayed=True)
        await ledger.post(Correct(first.seq, RecordProfit(6), "a digit"), at=START_US)
        assert [one.kind for one in await ledger.recent_entries(3)] == [
            "profit",
            "reversal",
            "profit",
        ]
        assert await ledger.post_many([]) == ()
        assert await ledger.nav() == 100_006


async def test_whether_an_entry_fits_does_not_depend_on_the_order_of_its_legs() -> None:
    async with book() as (_, ledger):
        most = Decimal(2**62) / 10**8 - 100_000
        await ledger.post((Leg("CASH", most, "b"), Leg("EXTERNAL", -most, "b")))
        for legs in (
            (Leg("CASH", 5, "c"), Leg("CASH", -5, "b")),
            (Leg("CASH", -5, "b"), Leg("CASH", 5, "c")),
        ):
            await ledger.post(legs)
