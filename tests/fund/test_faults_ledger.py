"""The ledger in a whole fund: what may not be booked is refused, names and numbers are checked."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fundops import Leg, Statement, open_reader
from fundops.control.arguments import plain
from fundops.doors import LedgerDoor
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.controller import CashEvent, StrategyStatus
from fundops.wire.errors import (
    AmountError,
    BadField,
    InsufficientFunds,
    UnknownStrategy,
)
from fundops.wire.ledger import ChargeManagementFee, Correct, Deposit, PayFees, Withdraw

D = Decimal


@asynccontextmanager
async def books(
    controller: FakeController | None = None, **settings: Any
) -> AsyncIterator[tuple[VirtualFund, LedgerDoor]]:
    """A fund of 1,000 with a ledger, whose database is verified at the end."""
    settings = {"total_capital": 1_000, "ledger_enabled": True, **settings}
    async with virtual_fund(controller, **settings) as world:
        yield world, world.fund.ledger
        found = await world.fund.ledger.verify()
        assert found.ok, found.findings


class Whole:
    """An integer of another library, as numpy.int64."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value

    def __float__(self) -> float:
        return float(self.value)


class Real:
    """A float of another library, as numpy.float32."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value


class bool_(Whole):
    """As numpy's, which is no number."""


class Array(Whole):
    """As an array of one element, which is no number."""

    def __len__(self) -> int:
        return 1


# -- what is owed


async def test_fees_are_paid_up_to_what_is_owed() -> None:
    async with books() as (_, ledger):
        with pytest.raises(InsufficientFunds) as refused:
            await ledger.pay_fees(900)
        assert (refused.value.account, refused.value.available) == ("FEES_RECEIVABLE", D(0))
        await ledger.charge_management_fee(100)
        await ledger.charge_performance_fee(50)
        with pytest.raises(InsufficientFunds, match=r"150\.00000000 available, 150\.00000001"):
            await ledger.pay_fees("150.00000001")
        with pytest.raises(InsufficientFunds):
            await ledger.post_many([PayFees(100), PayFees(100)])
        await ledger.post_many([PayFees(100), ChargeManagementFee(5), PayFees(55)])
        sheet = await ledger.balance_sheet()
        assert (sheet["CASH"], sheet["FEES_RECEIVABLE"]) == (D(845), D(0))


async def test_explicit_legs_pay_no_more_fees_than_are_owed() -> None:
    async with books() as (_, ledger):
        pays = (Leg("CASH", -30), Leg("FEES_RECEIVABLE", 30))
        with pytest.raises(InsufficientFunds) as refused:
            await ledger.post(pays)
        assert (refused.value.account, refused.value.available) == ("FEES_RECEIVABLE", D(0))
        charge = await ledger.charge_management_fee(40)
        await ledger.post(pays)
        with pytest.raises(InsufficientFunds):
            await ledger.post(pays)
        # What was charged by mistake and is paid already is owed to the fund.
        await ledger.reverse(charge.seq, reason="charged twice")
        await ledger.post((Leg("CASH", 30), Leg("FEES_RECEIVABLE", -30)))
        assert (await ledger.balance_sheet())["FEES_RECEIVABLE"] == 0


# -- what time it is


async def test_an_event_is_at_most_minutes_ahead() -> None:
    async with books() as (world, ledger):
        now_us = world.clock.now_us()
        for at in (dt.date(2099, 1, 1), now_us + 300_000_001):
            with pytest.raises(BadField, match="more than 5 minutes ahead of the clock"):
                await ledger.deposit(5_000, at=at)
        await ledger.deposit(5_000, at=now_us + 300_000_000)
        with pytest.raises(BadField, match="more than 5 minutes ahead"):
            await ledger.reverse(2, reason="later", at=now_us + 86_400_000_000)
        with pytest.raises(BadField, match="more than 5 minutes ahead"):
            await ledger.correct(2, Deposit(1, at_us=now_us + 86_400_000_000), reason="later")
        assert (await ledger.balance_sheet())["CASH"] == 6_000


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (START_US // 1_000_000, "looks like seconds"),
        (START_US // 1_000, "looks like milliseconds"),
        (START_US * 1_000, "looks like nanoseconds"),
        (0, "before the year 1990"),
        (631_151_999_999_999, "before the year 1990"),
    ],
)
async def test_the_text_says_which_unit_an_instant_seems_to_have(at: int, text: str) -> None:
    async with books() as (_, ledger):
        with pytest.raises(BadField, match=text):
            await ledger.record_profit(1, at=at)
        with pytest.raises(BadField, match=text):
            await ledger.post(Correct(1, Deposit(1), "x", at_us=at))
        await ledger.record_profit(1, at=dt.date(1990, 1, 1))


# -- at one price


async def test_a_corrected_deposit_leaves_the_value_of_others() -> None:
    """Both halves of a correction are priced at today's NAV per unit."""
    async with books() as (_, ledger):
        deposit = await ledger.deposit(100, strategy="bob")
        await ledger.record_profit(1_100)
        assert await ledger.nav_per_unit() == 2
        await ledger.correct(deposit.seq, Deposit(1_000, strategy="bob"), reason="a zero was lost")
        assert await ledger.nav_per_unit() == 2
        holders = await ledger.balance_sheet(strategy="bob", asset="UNITS")
        assert holders["HOLDERS"] == 550


async def test_a_reversed_deposit_leaves_the_value_of_others() -> None:
    async with books() as (_, ledger):
        deposit = await ledger.deposit(100)
        await ledger.record_profit(1_100)
        reversal = await ledger.reverse(deposit.seq, reason="never arrived")
        assert await ledger.nav_per_unit() == 2
        assert (await ledger.trial_balance(asset="UNITS"))["HOLDERS"] == 1_050
        await ledger.reverse(reversal.seq, reason="it did")
        assert await ledger.nav_per_unit() == 2
        assert (await ledger.trial_balance(asset="UNITS"))["HOLDERS"] == 1_100


@pytest.mark.parametrize("pnl", [1_100, -550])
@pytest.mark.parametrize(
    "entry",
    [
        Deposit(1_000, strategy="bob"),
        Deposit(40),
        Withdraw(40, strategy="eve"),
        Withdraw(40, strategy="bob"),
    ],
)
async def test_a_flow_in_the_place_of_another_keeps_the_price(pnl: int, entry: Any) -> None:
    async with books() as (_, ledger):
        deposit = await ledger.deposit(100, strategy="bob")
        await (ledger.record_profit(pnl) if pnl > 0 else ledger.record_loss(-pnl))
        before = await ledger.nav_per_unit()
        corrected = await ledger.correct(deposit.seq, entry, reason="x")
        assert await ledger.nav_per_unit() == before
        again = await ledger.correct(corrected.seq, Deposit(100, strategy="bob"), reason="y")
        assert await ledger.nav_per_unit() == before
        assert (await ledger.trial_balance(asset="UNITS"))["HOLDERS"] == 1_100
        assert (await ledger.balance_sheet(strategy="bob", asset="UNITS"))["HOLDERS"] == 100
        assert (await ledger.entries(limit=1))[0].seq == again.seq


async def test_a_correction_of_the_only_deposit_after_a_loss_keeps_the_price() -> None:
    async with books() as (_, ledger):
        await ledger.record_loss(500)
        await ledger.correct(1, Deposit(1_200), reason="it was more")
        assert await ledger.nav_per_unit() == D("0.5")
        assert (await ledger.trial_balance(asset="UNITS"))["HOLDERS"] == 1_400


# -- numbers of other libraries


async def test_numbers_of_other_libraries_are_taken() -> None:
    async with books() as (world, ledger):
        await ledger.deposit(Whole(5))  # type: ignore[arg-type]
        await ledger.record_profit(Real(2.5), at=Whole(START_US))  # type: ignore[arg-type]
        await ledger.open_position("X", quantity=Whole(-2), cost=Real(3.25))  # type: ignore[arg-type]
        await ledger.split("X", Whole(2))  # type: ignore[arg-type]
        assert (await ledger.balance_sheet())["CASH"] == D("1010.75")
        assert [one.quantity for one in await ledger.positions()] == [-4]
        assert len(await ledger.entries(limit=Whole(2))) == 2  # type: ignore[arg-type]
        await ledger.reverse(Whole(2), reason="x")  # type: ignore[arg-type]
        assert await world.fund.ledger.nav() == D(1_002.5)
        posted = await ledger.deposit(Whole(7), key="k")  # type: ignore[arg-type]
        assert (await ledger.deposit(7, key="k")).seq == posted.seq


@pytest.mark.parametrize("value", [bool_(1), Array(1), object(), [1], None, Real(float("nan"))])
async def test_what_is_no_number_is_refused_by_name(value: Any) -> None:
    async with books() as (_, ledger):
        for book in (ledger.deposit, ledger.withdraw, ledger.record_profit):
            with pytest.raises(AmountError, match="amount"):
                await book(value)


# -- names


async def test_a_strategy_that_does_not_exist_is_refused() -> None:
    async with books(promotion_enabled=True) as (world, ledger):
        for question in (ledger.balance_sheet, ledger.positions, ledger.nav, ledger.cash_flow):
            with pytest.raises(UnknownStrategy, match="there is no strategy 'nobody'"):
                await question(strategy="nobody")
        await world.fund.promotion.register("young")
        assert await ledger.nav(strategy="young") == 0  # registered, though it has no entry yet


# -- marks


async def test_every_position_is_marked_when_a_session_ends() -> None:
    controller = FakeController(StrategyStatus("s", "running", equity=1000, allocated=1000))
    async with books(controller, self_healing_enabled=False) as (world, ledger):
        await ledger.open_position("X", quantity=3, cost=300, strategy="s")
        await ledger.open_position("Y", quantity=-1, cost=100, strategy="s")
        controller.set("s", unrealized_pnl=40)
        world.clock.advance(86_400)
        await world.tick("2026-01-05")
        held = {one.instrument: one.value for one in await ledger.positions()}
        assert held == {"X": 330, "Y": -90}
        assert (await ledger.income_statement(strategy="s"))["UNREALIZED_PNL"] == 40
        await ledger.close_position("Y", quantity=-1, proceeds=90, strategy="s")
        controller.set("s", unrealized_pnl=-330)
        world.clock.advance(86_400)
        await world.tick("2026-01-06")
        assert [one.value for one in await ledger.positions()] == [-30]  # below zero, as futures


# -- the new events and questions at the doors


async def test_corporate_actions_and_other_assets_through_the_door(tmp_path: Path) -> None:
    async with books(db_path=tmp_path / "x.db") as (world, ledger):
        await ledger.open_position("X", quantity=10, cost=100, strategy="a")
        first = await ledger.split("X", "3:2", key="split-1")
        assert (await ledger.split("X", 1.5, key="split-1")).seq == first.seq
        await ledger.transfer("X", 5, from_strategy="a", to_strategy=None)
        await ledger.rename("X", "XX")
        await ledger.convert(200, "USD", 180, "EUR", 1, strategy="fx")
        assert await ledger.prices() == {"EUR": None}
        await ledger.price("EUR", "1.1")
        assert await ledger.prices() == {"EUR": D("1.1")}
        assert await ledger.nav() == 1_000 - 201 + 198
        assert [(lot.strategy, lot.quantity) for lot in await ledger.lots(instrument="XX")] == [
            (None, D(5)),
            ("a", D(10)),
        ]
        assert (await ledger.realized(by="instrument")) == {}
        assert len(await ledger.entries(key="split-1", instrument="X")) == 1
        assert [line.seq for line in await ledger.entries_after(2, 2)] == [3, 4]
        today = dt.datetime.fromtimestamp(world.clock.now_us() / 1e6, dt.UTC).date().isoformat()
        answer = await ledger.reconcile([Statement(today, "699", {"XX": 15})])
        assert answer.ok, str(answer)
        json.dumps(plain(answer))
        with open_reader(tmp_path / "x.db") as reader:
            assert reader.nav() == await ledger.nav()
            assert reader.positions() == await ledger.positions()
            assert reader.lots() == await ledger.lots()
            assert reader.prices() == await ledger.prices()
            assert reader.realized() == await ledger.realized()
            assert reader.entries_after(1, 3) == await ledger.entries_after(1, 3)
            assert reader.reconcile([Statement(today, "699", None)]).ok


async def test_a_withdrawal_of_another_asset_keeps_its_floor() -> None:
    async with books() as (_, ledger):
        await ledger.convert(100, "USD", 90, "EUR")
        with pytest.raises(InsufficientFunds, match="CASH has 90"):
            await ledger.post((Leg("CASH", -91, asset="EUR"), Leg("EXTERNAL", 91, asset="EUR")))


# -- a spreadsheet runs no text of ours


async def test_an_exported_text_is_never_a_formula(tmp_path: Path) -> None:
    from fundops.actors.ledger import journal
    from fundops.actors.persistence import Reader

    async with books(db_path=tmp_path / "x.db") as (_, ledger):
        await ledger.record_profit(1, memo='=HYPERLINK("http://x")', strategy="@SUM(1)", key="-1+1")
        with Reader(tmp_path / "x.db") as rows:
            line = list(journal.csv(rows))[-1]
    assert "'=HYPERLINK" in line
    assert "'@SUM(1)" in line
    assert ",'-1+1," in line
    assert ",-1.00000000," in line  # an amount is a number


class Hostile:
    """An object of a caller that raises whatever is done with it."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __float__(self) -> float:
        raise RuntimeError("no")


@pytest.mark.parametrize("field", ["amount", "strategy", "memo"])
async def test_an_object_that_raises_is_refused_by_name(field: str) -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        given: dict[str, Any] = {"amount": 1, field: Hostile()}
        with pytest.raises((AmountError, BadField), match=f"{field}: some Hostile"):
            await world.fund.ledger.deposit(given.pop("amount"), **given)
        assert all(child.restarts == 0 for child in world.fund.tree())


# -- one NAV


async def _navs(world: VirtualFund) -> tuple[Decimal, Decimal]:
    """The ledger's NAV and the guard's after a tick."""
    world.clock.advance(1)
    assert (await world.tick()).failed == ()
    return await world.fund.ledger.nav(), (await world.fund.status()).nav


async def test_what_the_ledger_books_without_a_strategy_moves_the_guards_nav() -> None:
    async with books() as (world, ledger):
        await world.tick()
        await ledger.record_profit(100)
        assert await _navs(world) == (D(1_100), D(1_100))
        await ledger.record_loss(40)
        await ledger.income(5, instrument="X")
        await ledger.financing(2, instrument="X")
        assert await _navs(world) == (D(1_063), D(1_063))
        await ledger.open_position("X", quantity=1, cost=10, fee=1)
        await ledger.mark("X", value=14)
        assert await _navs(world) == (D(1_066), D(1_066))
        world.controller.cash_event_list = [
            CashEvent("a", "interest", D(7), START_US, cursor="1"),
            CashEvent("b", "other", D(-3), START_US, cursor="2"),
            CashEvent("c", "deposit", D(200), START_US, cursor="3"),
        ]
        await world.tick()  # books them; the guard has looked by then
        assert await _navs(world) == (D(1_270), D(1_270))
        for _ in range(10):
            await world.tick()
        assert (await world.fund.status()).nav_difference == 0


async def test_a_priced_asset_moves_the_ledgers_nav_and_the_guards_alike() -> None:
    async with books() as (world, ledger):
        await world.tick()
        await ledger.convert(200, "USD", 180, "EUR", 1)
        await ledger.price("EUR", "1.1")
        assert await _navs(world) == (D(997), D(997))
        await ledger.price("EUR", "1.2")
        assert await _navs(world) == (D(1_015), D(1_015))
        await ledger.price("EUR", 0)
        assert await _navs(world) == (D(799), D(799))
        status = await world.fund.status()
        assert status.kill_switch == "ENGAGED", "21.3% below the peak"


async def test_a_price_is_not_rounded_before_it_is_multiplied(tmp_path: Path) -> None:
    async with books(db_path=tmp_path / "x.db") as (world, ledger):
        await world.tick()
        await ledger.convert(100, "USD", 8_000_000_000, "SHIB")
        for price in (D("0.0000000123456"), 0.0000000123456, "0.0000000123456"):
            await ledger.price("SHIB", price)
            assert await _navs(world) == (D("998.7648"), D("998.7648"))
            assert await ledger.prices() == {"SHIB": D("0.0000000123456")}
        with open_reader(tmp_path / "x.db") as reader:
            assert reader.nav() == D("998.7648")
        posted = await ledger.price("SHIB", "0.0000000123456", key="p")
        assert (await ledger.price("SHIB", 0.0000000123456, key="p")).seq == posted.seq
        for wrong in (D("-0.1"), D("1e11"), float("nan"), None):
            with pytest.raises(AmountError):
                await ledger.price("SHIB", wrong)  # type: ignore[arg-type]
    async with books(db_path=tmp_path / "x.db") as (world, ledger):
        assert await _navs(world) == (D("998.7648"), D("998.7648"))


async def test_an_asset_without_a_price_is_named_and_is_no_loss_to_the_guard() -> None:
    async with books() as (world, ledger):
        await world.tick()
        await ledger.convert(300, "USD", 270, "EUR")
        assert await _navs(world) == (D(700), D(1_000))
        status = await world.fund.status()
        assert (status.drawdown_pct, status.kill_switch) == (0, "OFF")
        (told,) = world.sent_alerts()
        assert (told.level.value, told.title) == ("WARNING", "Assets without a price")
        assert told.message.startswith("EUR: ")
        await ledger.price("EUR", 1)
        assert await _navs(world) == (D(970), D(970))
        assert [alert.title for alert in world.sent_alerts()][1:] == ["All assets have a price"]


async def test_a_loss_that_no_strategy_made_can_engage_the_kill_switch() -> None:
    async with books() as (world, ledger):
        await world.tick()
        await ledger.record_loss(150)
        assert await _navs(world) == (D(850), D(850))
        status = await world.fund.status()
        assert (status.drawdown_pct, status.kill_switch) == (15, "ENGAGED")


async def test_the_period_close_leaves_the_guards_nav_as_it_is(tmp_path: Path) -> None:
    """The fees and the P&L of a closed period stand in RETAINED, and still count."""
    path = tmp_path / "x.db"
    async with books(db_path=path, management_fee_bps=200) as (world, ledger):
        await world.tick()
        await ledger.charge_management_fee(30)
        await ledger.charge_performance_fee(20)
        await ledger.record_profit(70)
        await ledger.convert(100, "USD", 100, "EUR")
        await ledger.price("EUR", "1.5")
        world.clock.advance(86_400)
        await world.tick()
        before = (await world.fund.status()).nav
        today = dt.datetime.fromtimestamp(world.clock.now_us() / 1e6, dt.UTC).date()
        await ledger.close_period((today - dt.timedelta(1)).isoformat())
        assert (await world.tick()).failed == ()
        after = (await world.fund.status()).nav
        assert after == before
        assert after == await ledger.nav()
        clock = world.clock
    async with books(db_path=path, management_fee_bps=200, clock=clock) as (world, ledger):
        await world.tick()
        assert (await world.fund.status()).nav == before
        await ledger.reopen_period((today - dt.timedelta(1)).isoformat(), by="ann", reason="late")
        await world.tick()
        assert (await world.fund.status()).nav == before
