"""The fund's own fees: when they are booked, under which keys, and before which withdrawal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from fundops.actors.oversight.steps import withdrawals
from fundops.runtime import ActorError, VirtualClock
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.controller import CashEvent, StrategyStatus
from fundops.wire.errors import InsufficientFunds
from fundops.wire.ledger import Entry, PostMany

D = Decimal
DAY_S = 86_400
FEES = ("management_fee", "performance_fee")


@asynccontextmanager
async def fund(capital: int, **settings: Any) -> AsyncIterator[VirtualFund]:
    controller = FakeController(StrategyStatus("s", "running", capital, capital))
    async with virtual_fund(
        controller, total_capital=capital, ledger_enabled=True, **settings
    ) as world:
        await world.tick()
        yield world


async def fees(world: VirtualFund) -> list[tuple[str, Decimal, str]]:
    """Kind, amount and key of the fees that are booked, oldest first."""
    found: list[Entry] = list(await world.fund.ledger.entries(limit=1_000))
    return [
        (entry.kind, max(D(leg.amount) for leg in entry.legs), entry.key)
        for entry in reversed(found)
        if entry.kind in FEES
    ]


async def kinds(world: VirtualFund) -> list[str]:
    found = await world.fund.ledger.entries(limit=1_000)
    return [entry.kind for entry in reversed(found)]


async def test_the_performance_fee_is_booked_at_the_end_of_its_period_above_the_mark() -> None:
    settings = {"performance_fee_pct": 10, "crystallise_every_days": 5}
    async with fund(60_000, **settings) as world:
        for day in range(1, 11):
            pnl = 0 if day < 3 else 6_000 if day < 5 else 4_000 if day < 10 else 4_500
            world.controller.set("s", realized_pnl=pnl)
            world.clock.advance(DAY_S)
            await world.tick()
            status = await world.fund.status()
            if day == 3:
                assert status.nav == 65_400
                assert await fees(world) == []
            if day == 5:
                assert status.high_water_mark == 63_600  # 1.06 per unit
        assert await fees(world) == [
            ("performance_fee", D(400), "fee:performance:2026-01-09"),
            ("performance_fee", D(50), "fee:performance:2026-01-14"),
        ]
        assert (await world.fund.status()).total_fees == 450


async def test_the_management_fee_is_on_nav_after_the_fees_that_have_accrued() -> None:
    async with fund(100_000, management_fee_bps=365, performance_fee_pct=50) as world:
        world.controller.set("s", realized_pnl=100_000)
        await world.tick()
        assert (await world.fund.status()).nav == 150_000
        world.controller.set("s", realized_pnl=0.5)  # the NAV of the tick before counts
        world.clock.advance(DAY_S)
        await world.tick()
        assert await fees(world) == [("management_fee", D(15), "fee:management:2026-01-05")]


async def test_the_fee_of_the_units_that_leave_is_booked_before_the_withdrawal() -> None:
    async with fund(50_000, performance_fee_pct=20) as world:
        world.controller.set("s", realized_pnl=10_000)
        await world.tick()
        await world.fund.ledger.withdraw(5_800)
        await world.tick()
        (fee,) = await fees(world)
        assert fee[:2] == ("performance_fee", D(200))
        assert (await kinds(world))[-2:] == ["performance_fee", "withdrawal"]
        status = await world.fund.status()
        assert status.total_fees - 200 == 1_800
        assert status.nav == 52_200
        assert status.drawdown_pct == 0
        await world.tick()
        assert len(await fees(world)) == 1


async def test_a_withdrawal_pays_the_management_fee_up_to_now() -> None:
    async with fund(36_500, management_fee_bps=1_000) as world:
        world.clock.advance(DAY_S / 2)
        await world.tick()
        world.clock.advance(DAY_S / 4)
        await world.fund.ledger.withdraw(100)
        ((kind, amount, key),) = await fees(world)
        assert (kind, amount) == ("management_fee", D("7.49965753"))  # on a NAV that shrinks
        assert key.startswith("fee:management:2026-01-05:")
        await world.tick()
        status = await world.fund.status()
        assert status.total_fees == amount
        assert status.nav == 36_400 - amount


async def test_a_refused_withdrawal_books_no_fee() -> None:
    async with fund(50_000, performance_fee_pct=20, management_fee_bps=100) as world:
        world.controller.set("s", realized_pnl=10_000)
        await world.tick()
        world.clock.advance(60)
        for amount in (60_000, -1, "nonsense"):
            with pytest.raises((InsufficientFunds, ValueError)):
                await world.fund.ledger.withdraw(amount)
        assert await fees(world) == []
        await world.tick()
        status = await world.fund.status()
        assert status.total_fees == pytest.approx(2_000, abs=D("0.01"))
        assert status.nav + status.total_fees == 60_000
        assert await fees(world) == []


async def test_a_repeated_withdrawal_pays_its_fee_once() -> None:
    async with fund(50_000, performance_fee_pct=20) as world:
        world.controller.set("s", realized_pnl=10_000)
        await world.tick()
        for replayed in (False, True, True):
            posted = await world.fund.ledger.withdraw(5_800, key="w")
            assert posted.replayed is replayed
            await world.tick()
        assert [fee[:2] for fee in await fees(world)] == [("performance_fee", D(200))]
        assert (await world.fund.status()).nav == 52_200


async def test_a_deposit_beside_a_withdrawal_buys_units_at_the_nav_of_now() -> None:
    async with fund(50_000, performance_fee_pct=20) as world:
        world.controller.set("s", realized_pnl=10_000)
        await world.tick()
        await world.fund.ledger.withdraw(5_800)
        await world.fund.ledger.deposit(11_600)
        await world.tick()
        status = await world.fund.status()
        assert [fee[1] for fee in await fees(world)] == [D(200)]
        assert status.nav == pytest.approx(52_200 + 11_600, abs=1e-4)
        assert status.drawdown_pct == 0


async def test_a_period_that_closes_has_paid_the_management_fee() -> None:
    async with fund(36_500, management_fee_bps=1_000) as world:
        world.clock.advance(DAY_S * 1.5)
        await world.tick()
        await world.fund.ledger.close_period("2026-01-05")
        assert [fee[1] for fee in await fees(world)] == pytest.approx([D(10), D(5)], abs=D("0.01"))


async def test_an_orderly_stop_books_the_management_fee_and_no_restart_books_it_again(
    tmp_path: Path,
) -> None:
    clock = VirtualClock(START_US)
    settings: dict[str, Any] = {
        "management_fee_bps": 1_000,
        "db_path": tmp_path / "x.db",
        "clock": clock,
    }
    async with fund(36_500, **settings) as world:
        clock.advance(DAY_S / 2)
        await world.tick()
        assert await fees(world) == []
    for _ in range(2):
        async with fund(36_500, **settings) as world:
            assert [fee[1] for fee in await fees(world)] == [D(5)]
            assert (await world.fund.status()).total_fees == 5


async def test_fees_by_the_tick_are_booked_at_each_tick() -> None:
    async with fund(36_500, management_fee_bps=1_000, fee_posting="tick") as world:
        for _ in range(3):
            world.clock.advance(3_600)
            await world.tick()
        hourly = [amount for _, amount, _ in await fees(world)]
        assert len(hourly) == 3
        assert sum(hourly) == pytest.approx(D(10) / 8, abs=D("0.001"))
        assert (await world.fund.status()).total_fees == sum(hourly)


async def test_fees_by_the_tick_are_one_entry_at_the_end_of_a_session_too() -> None:
    async with fund(36_500, management_fee_bps=1_000, fee_posting="tick") as world:
        world.clock.advance(DAY_S + 30)
        await world.tick()
        assert [key for *_, key in await fees(world)] == ["fee:management:2026-01-05"]


async def test_units_that_leave_pay_on_what_the_management_fee_leaves_of_their_gain() -> None:
    async with fund(36_500, management_fee_bps=1_000, performance_fee_pct=20) as world:
        world.controller.set("s", realized_pnl=10)
        await world.tick()
        world.clock.advance(DAY_S / 2)
        await world.fund.ledger.withdraw(1_000)
        [management, performance] = await fees(world)
        # Half a day's fee on 36,508, and a fifth of what is left of 10, for 1,000 of 36,504.
        assert management[1] == pytest.approx(D("5.0011"), abs=D("0.0001"))
        assert performance[1] == pytest.approx(D("0.02739"), abs=D("0.0001"))


@pytest.mark.parametrize("booked", [False, True], ids=["before", "after"])
async def test_a_crash_around_a_withdrawal_pays_its_fee_once_or_never(
    monkeypatch: pytest.MonkeyPatch, booked: bool
) -> None:
    async with fund(50_000, performance_fee_pct=20) as world:
        world.controller.set("s", realized_pnl=10_000)
        await world.tick()

        def lost(events: Any) -> Any:
            world.fund.drill("ledger" if not booked else "oversight")
            return PostMany(events)

        with monkeypatch.context() as patch:
            patch.setattr(withdrawals, "PostMany", lost)
            posted = None
            with suppress(ActorError):
                posted = await world.fund.ledger.withdraw(5_800, key="w")
        for _ in range(3):
            await world.tick()
        left = [entry.kind for entry in await world.fund.ledger.entries(key="w")]
        assert left == (["withdrawal"] if posted is not None else left)
        assert len(await fees(world)) == len(left)
        status = await world.fund.status()
        assert status.nav == 58_000 - 5_800 * len(left)
        await world.fund.ledger.withdraw(5_800, key="w")
        await world.tick()
        assert [fee[:2] for fee in await fees(world)] == [("performance_fee", D(200))]
        assert (await world.fund.status()).nav == 52_200


@pytest.mark.parametrize("between", [False, True], ids=["one look", "a look after each"])
async def test_units_that_leave_pay_for_a_profit_that_the_guard_has_not_seen(between: bool) -> None:
    engine = FakeController(StrategyStatus("s", "running", 1_000, 1_000))
    async with virtual_fund(
        engine, ledger_enabled=True, performance_fee_pct=20, management_fee_bps=200
    ) as world:
        await world.tick()
        world.clock.advance(1)
        await world.fund.ledger.record_profit(20_000)
        world.clock.advance(1)
        if between:
            await world.tick()
        await world.fund.ledger.withdraw(44_000)
        world.clock.advance(1)
        await world.tick()
        status = await world.fund.status()
        # 20% of the gain of all units, those that left with 44,000 of 116,000 too.
        assert float(status.total_fees) == pytest.approx(4_000, abs=0.01)
        assert float(status.nav) == pytest.approx(72_000, abs=0.01)
        assert status.drawdown_pct == pytest.approx(0, abs=1e-6)


# -- several flows between two ticks


async def _after(
    flows: Sequence[int], ticks: Sequence[bool], bank: bool = False
) -> tuple[Decimal, ...]:
    """Booked fees, all fees, NAV and drawdown after these flows, with ticks behind some of them."""
    async with fund(100_000, performance_fee_pct=20) as world:
        world.controller.set("s", realized_pnl=50_000)
        await world.fund.ledger.record_profit(50_000, strategy="s")
        await world.tick()
        for number, (amount, tick) in enumerate(zip(flows, ticks, strict=True)):
            if bank:
                cash = world.controller.cash_event_list
                at_us, place = world.clock.now_us(), f"{number:03}"
                event = CashEvent(place, "other", D(amount), at_us, cursor=place)
                cash.append(replace(event, kind="deposit" if amount > 0 else "withdrawal"))
            else:
                act = world.fund.ledger.deposit if amount > 0 else world.fund.ledger.withdraw
                await act(abs(amount), key=f"flow {number}")
            if tick:
                world.clock.advance(1)
                await world.tick()
        for _ in range(3):
            world.clock.advance(1)
            await world.tick()
        status = await world.fund.status()
        booked = sum((amount for _, amount, _ in await fees(world)), D(0))
        return booked, status.total_fees, status.nav, D(status.drawdown_pct)


SEVERAL = (
    (140_000, -140_000),
    (1_000_000, -500_000),
    (-70_000, -70_000),
    (-70_000, -60_000),
    (-46_000, -46_000, -46_000),
    (-70_000, 70_000),
    (-14_000, -14_000),
)


@pytest.mark.parametrize("bank", [False, True], ids=["by hand", "by the bank"])
@pytest.mark.parametrize("flows", SEVERAL)
async def test_several_flows_in_one_tick_pay_what_they_pay_in_several(
    flows: tuple[int, ...], bank: bool
) -> None:
    together = await _after(flows, [False] * len(flows), bank)
    apart = await _after(flows, [True] * len(flows), bank)
    assert together == pytest.approx(apart, abs=D("0.000001"))
    assert together[1] == pytest.approx(D(10_000), abs=D("0.000001"))
    assert together[3] == 0


@given(st.data())
@settings(max_examples=15)
def test_no_fee_depends_on_where_the_ticks_fall(data: st.DataObject) -> None:
    flows, nav = [], 140_000
    for _ in range(data.draw(st.integers(1, 6), label="flows")):
        flow = data.draw(st.integers(-nav * 9 // 10, 200_000).filter(bool), label="flow")
        flows.append(flow)
        nav += flow
    ticks = [data.draw(st.booleans(), label="tick") for _ in flows]
    found = trio.run(_after, flows, ticks)
    apart = trio.run(_after, flows, [True] * len(flows))
    assert found == pytest.approx(apart, abs=D("0.00001"))


async def test_each_of_two_withdrawals_of_one_instant_pays_its_own_fee() -> None:
    async with fund(100_000, performance_fee_pct=20) as world:
        world.controller.set("s", realized_pnl=50_000)
        await world.fund.ledger.record_profit(50_000, strategy="s")
        await world.tick()
        at_us = world.clock.now_us()
        world.controller.cash_event_list = [
            CashEvent("a", "withdrawal", D(-14_000), at_us, cursor="1"),
            CashEvent("b", "interest", D(100), at_us, cursor="2"),
            CashEvent("c", "withdrawal", D(-14_000), at_us, cursor="3"),
        ]
        for _ in range(3):
            world.clock.advance(1)
            await world.tick()
        amounts = [amount for _, amount, _ in await fees(world)]
        assert amounts == pytest.approx([D(1_000), D("1001.586")], abs=D("0.001"))
        assert len({key for *_, key in await fees(world)}) == 2


@pytest.mark.parametrize("lost", [False, True], ids=["answered", "lost"])
async def test_a_withdrawal_whose_answer_was_lost_is_settled_before_the_session_ends(
    monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    settings = {"performance_fee_pct": 20, "crystallise_every_days": 1}
    async with fund(1_000_000, **settings) as world:
        world.clock.advance(DAY_S)
        await world.tick()
        world.clock.advance(DAY_S - world.clock.now_us() / 1e6 % DAY_S - 10)
        world.controller.set("s", realized_pnl=100_000)
        await world.tick()

        def losing(events: Any) -> Any:
            world.fund.drill("oversight")
            return PostMany(events)

        with monkeypatch.context() as patch, suppress(ActorError):
            if lost:
                patch.setattr(withdrawals, "PostMany", losing)
            await world.fund.ledger.withdraw(1_000, key="w")
        for seconds in (20, 1, DAY_S, 1):
            world.clock.advance(seconds)
            await world.tick()
        booked = sum((amount for _, amount, _ in await fees(world)), D(0))
        status = await world.fund.status()
        assert booked == status.total_fees == pytest.approx(D(20_000), abs=D("0.000001"))
        assert status.drawdown_pct == 0


# -- fees by people


async def test_fees_that_a_person_books_or_takes_back_are_in_every_figure(tmp_path: Path) -> None:
    path, clock = tmp_path / "x.db", VirtualClock(START_US)
    settings: dict[str, Any] = {"management_fee_bps": 365, "db_path": path, "clock": clock}
    async with fund(100_000, **settings) as world:
        world.controller.set("s", realized_pnl=1_000)
        world.clock.advance(DAY_S)
        await world.tick()
        await world.tick()
        await world.fund.ledger.charge_management_fee(200)
        await world.fund.ledger.charge_performance_fee(100)
        await world.tick()
        await _adds_up(world, D(310))
        [own] = await world.fund.ledger.entries(key="fee:management:2026-01-05")
        await world.fund.ledger.reverse(own.seq, reason="waived")
        await world.tick()
        await _adds_up(world, D(300))
    engine = world.controller
    settings |= {"total_capital": 100_000, "ledger_enabled": True}
    async with virtual_fund(engine, **settings) as world:
        await world.tick()
        await _adds_up(world, D(300))


async def _adds_up(world: VirtualFund, charged: Decimal) -> None:
    status, found = await world.fund.status(), await world.fund.pnl_attribution()
    assert status.total_fees == found.fund_fees == pytest.approx(charged, abs=D("0.02"))
    assert status.nav - 100_000 == found.total == 1_000 - status.total_fees
