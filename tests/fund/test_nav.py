"""NAV, drawdown and sessions of a whole fund."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest

from fundops import PromotionStage
from fundops.actors.oversight.steps import guard as guard_step
from fundops.reader import open_reader
from fundops.runtime import ConfigError, VirtualClock
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.controller import CashEvent, Fill, StrategyStatus
from fundops.wire.guard import Watch
from fundops.wire.ledger import Deposit
from fundops.wire.oversight import StrategyPnl

D = Decimal


def us(text: str) -> int:
    """Microseconds of this instant of UTC."""
    return round(dt.datetime.fromisoformat(f"{text}+00:00").timestamp() * 1_000_000)


async def test_a_deposit_is_no_performance_and_a_drawdown_is_of_nav_per_unit() -> None:
    engine = FakeController(StrategyStatus("s", "running", 40_000, 40_000))
    async with virtual_fund(
        engine, total_capital=40_000, ledger_enabled=True, max_strategy_drawdown_pct=100
    ) as world:
        await world.tick()
        found: list[tuple[float, Decimal, str]] = []
        for pnl, deposit in ((10_000, 0), (10_000, 25_000), (-500, 0), (-1_250, 0)):
            if deposit:
                await world.fund.ledger.deposit(deposit)
            world.controller.set("s", realized_pnl=pnl)
            await world.tick()
            status = await world.fund.status()
            found.append((round(status.drawdown_pct, 6), status.nav, status.kill_switch))
        assert found[:2] == [(0, D(50_000), "OFF"), (0, D(75_000), "OFF")]
        assert found[2] == (14.0, D(64_500), "OFF")
        assert found[3][:2] == (15.0, D(63_750))
        assert found[3][2] == "ENGAGED"
        told = [
            (alert.level.value, alert.category.value)
            for alert in world.sent_alerts()
            if alert.category.value in ("DRAWDOWN", "KILL_SWITCH") and alert.level.value != "INFO"
        ]
        assert told == [("WARNING", "DRAWDOWN"), ("CRITICAL", "KILL_SWITCH")]


@pytest.mark.parametrize("stage", ["live-small", "paper", None])
@pytest.mark.parametrize("ticks_before", [0, 2])
async def test_the_pnl_of_an_adopted_strategy_counts_from_its_figures_then(
    stage: str | None, ticks_before: int
) -> None:
    engine = FakeController(
        StrategyStatus("s", "running", 10_000, 10_000, realized_pnl=-20_000, stage=stage)
    )
    async with virtual_fund(engine, promotion_enabled=True) as world:
        for _ in range(ticks_before):
            await world.tick()
        await world.fund.promotion.adopt("s", PromotionStage.Live_Small, by="ann", reason="r")
        for _ in range(2):
            await world.tick()
        status = await world.fund.status()
        assert (status.nav, status.kill_switch) == (D(100_000), "OFF")
        engine.set("s", realized_pnl=-20_100)
        await world.tick()
        assert (await world.fund.status()).nav == 99_900


async def test_the_end_of_a_session_logs_the_anchor_of_the_journal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        with caplog.at_level("INFO", "fundops"):
            await world.tick()
            assert "ledger anchor" not in caplog.text
            await world.tick("2026-01-05")
        [newest] = await world.fund.ledger.recent_entries(1)
        assert f"ledger anchor {newest.seq} {newest.hash}" in caplog.text


async def test_an_asset_without_a_price_is_no_loss_and_others_keep_their_gain() -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        ledger = world.fund.ledger
        await ledger.convert(100, "USD", 1, "EUR")
        await ledger.price("EUR", 300)
        await world.tick()
        assert (await world.fund.status()).nav == 100_200
        await ledger.convert(50_000, "USD", 1, "GBP")
        await ledger.record_profit(50)
        await world.tick()
        status = await world.fund.status()
        assert (status.nav, status.kill_switch) == (D(100_250), "OFF")
        await ledger.price("GBP", 49_000)
        await world.tick()
        assert (await world.fund.status()).nav == 99_250
        found = await world.fund.pnl_attribution()
        assert (found.other, found.total) == (D(-750), D(-750))


async def test_weekday_sessions_end_at_the_close_of_new_york() -> None:
    clock = VirtualClock(us("2026-03-05 12:00"))
    ended: list[tuple[str, int]] = []
    async with virtual_fund(clock=clock, session="weekdays 16:00 America/New_York") as world:
        await world.tick()
        while clock.now_us() < us("2026-03-10 00:00"):
            clock.advance(600)
            report = await world.tick()
            ended += [(session, clock.now_us()) for session in report.sessions]
    assert ended == [
        ("2026-03-05", us("2026-03-05 21:00")),
        ("2026-03-06", us("2026-03-06 21:00")),
        ("2026-03-09", us("2026-03-09 20:00")),
    ]


async def test_nav_of_each_minute_is_kept_for_a_month() -> None:
    engine = FakeController(StrategyStatus("s", "running", 1_000, 1_000))
    async with virtual_fund(engine) as world:
        world.clock.advance(30)
        for number in range(40):
            engine.set("s", realized_pnl=number)
            world.clock.advance(30)
            await world.tick()
        minutes = await world.fund.nav_history(every="minute")
        assert [sample.nav for sample in minutes[:2]] == [100_038, 100_036]
        assert len(minutes) == 20
        assert [b.at_us - a.at_us for a, b in zip(minutes[1:], minutes, strict=False)] == [
            60_000_000
        ] * 19
        assert await world.fund.nav_history(every="minute", limit=3) == minutes[:3]
        assert await world.fund.nav_history() == ()
        with pytest.raises(ConfigError, match="every"):
            await world.fund.nav_history(every="day")  # type: ignore[arg-type]
        with open_reader(world.fund.config.path) as reader:
            assert minutes[4:] == reader.nav_history(every="minute"), "the rest waits for a commit"
        world.clock.advance(32 * 86_400)
        await world.tick()
        await world.fund.kill_switch.engage(reason="r", by="ann")  # a commit
        await world.tick()
        assert len(await world.fund.nav_history(every="minute")) == 1


async def test_the_attribution_adds_up_to_the_change_of_nav() -> None:
    engine = FakeController(
        StrategyStatus("a", "running", 50_000, 50_000), StrategyStatus("b", "running", 1_000, 1_000)
    )
    async with virtual_fund(engine, ledger_enabled=True, performance_fee_pct=10) as world:
        await world.tick()
        engine.set("a", realized_pnl=-400, unrealized_pnl=100)
        engine.set("b", realized_pnl=700)
        fill = Fill("f", "a", "X", D(1), D(10), D("0.5"), at_us=START_US, cursor="1")
        engine.fill_list = [fill]
        await world.fund.ledger.record_profit(50)
        await world.fund.ledger.deposit(1_000)
        await world.tick()
        found = await world.fund.pnl_attribution()
        assert found.strategies == (
            StrategyPnl("a", D(-300), D("0.5"), D(0)),
            StrategyPnl("b", D(700), D(0), D(0)),
        )
        assert (found.other, found.fund_fees, found.total) == (D(50), D(45), D(405))
        status = await world.fund.status()
        assert status.nav == 101_000 + found.total
        await world.fund.ledger.close_period("2026-01-04")
        assert (await world.fund.pnl_attribution()).strategies == found.strategies


async def test_what_was_made_on_paper_is_attributed_as_hypothetical() -> None:
    engine = FakeController(StrategyStatus("s", "running", 1_000, 1_000, stage="paper"))
    async with virtual_fund(engine, promotion_enabled=True) as world:
        await world.fund.promotion.register("s")
        await world.tick()
        engine.set("s", realized_pnl=70)
        await world.tick()
        found = await world.fund.pnl_attribution()
        assert found.strategies == (StrategyPnl("s", D(0), D(0), D(70)),)
        assert found.total == 0


async def test_the_guard_is_told_the_nav_at_which_the_session_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    openings: list[int | None] = []

    def noted(*facts: Any, **named: Any) -> Watch:
        openings.append(named["opening_nav_minor"])
        return Watch(*facts, **named)

    monkeypatch.setattr(guard_step, "Watch", noted)
    engine = FakeController(StrategyStatus("s", "running", 1_000, 1_000))
    async with virtual_fund(engine) as world:
        await world.tick()
        engine.set("s", realized_pnl=50)
        await world.tick()
        await world.tick("2026-01-05")
        engine.set("s", realized_pnl=-20)
        await world.tick()
        world.fund.drill("oversight")
        await world.tick()
    unit = 10**8
    assert openings == [None, 100_000 * unit, 100_000 * unit, 100_050 * unit, 100_050 * unit]


# -- units where there is no price, and figures that are unknown


def _engine(equity: int) -> FakeController:
    return FakeController(StrategyStatus("s", "running", equity, equity))


@pytest.mark.parametrize("withdrawn", [90_000, 95_000])
async def test_any_loss_engages_the_switch_where_all_was_withdrawn(withdrawn: int) -> None:
    engine = _engine(1_000_000)
    async with virtual_fund(engine, ledger_enabled=True) as world:
        await world.tick()
        engine.set("s", equity=990_000, unrealized_pnl=-10_000)
        await world.tick()
        await world.fund.ledger.withdraw(withdrawn)
        await world.tick()
        status = await world.fund.status()
        assert (status.drawdown_pct, status.kill_switch) == (10, "OFF")
        engine.set("s", equity=989_999, unrealized_pnl=-10_001)
        await world.tick()
        status = await world.fund.status()
        assert (status.drawdown_pct, status.kill_switch) == (100, "ENGAGED")


async def _loses(world: VirtualFund, amount: int) -> None:
    await world.fund.ledger.record_loss(amount)


async def _deposits(world: VirtualFund, amount: int) -> None:
    await world.fund.ledger.deposit(amount)


async def _withdraws(world: VirtualFund, amount: int) -> None:
    await world.fund.ledger.withdraw(amount)


@pytest.mark.parametrize("between", [False, True], ids=["one look", "a look after each"])
@pytest.mark.parametrize("fee_pct", [0.0, 20.0])
@pytest.mark.parametrize(
    ("acts", "drawdown", "kill"),
    [
        ([(_loses, 20_000), (_deposits, 100_000)], 20, "ENGAGED"),
        ([(_deposits, 100_000), (_loses, 20_000)], 10, "OFF"),
        ([(_loses, 12_000), (_withdraws, 44_000)], 12, "OFF"),
        ([(_withdraws, 44_000), (_loses, 5_600)], 10, "OFF"),
        (
            [(_loses, 10_000), (_withdraws, 45_000), (_loses, 2_250), (_deposits, 90_000)],
            14.5,
            "OFF",
        ),
    ],
)
async def test_pnl_counts_before_the_flows_that_were_booked_after_it(
    acts: list[tuple[Callable[[VirtualFund, int], Awaitable[None]], int]],
    drawdown: float,
    kill: str,
    fee_pct: float,
    between: bool,
) -> None:
    async with virtual_fund(
        _engine(1_000), ledger_enabled=True, performance_fee_pct=fee_pct
    ) as world:
        await world.tick()
        for act, amount in acts:
            await act(world, amount)
            if between:
                await world.tick()
        await world.tick()
        status = await world.fund.status()
        assert status.drawdown_pct == pytest.approx(drawdown)
        assert status.kill_switch == kill


@pytest.mark.parametrize("between", [False, True], ids=["one look", "a look after each"])
@pytest.mark.parametrize(("fall_first", "drawdown"), [(True, 20), (False, 10)])
async def test_a_price_that_falls_has_its_place_among_the_flows(
    fall_first: bool, drawdown: int, between: bool
) -> None:
    async with virtual_fund(_engine(1_000), ledger_enabled=True) as world:
        ledger = world.fund.ledger
        await ledger.convert(50_000, "USD", 50_000, "EUR")
        await ledger.price("EUR", 1)
        await world.tick()
        for falls in (fall_first, not fall_first):
            await (ledger.price("EUR", D("0.6")) if falls else ledger.deposit(100_000))
            if between:
                await world.tick()
        await world.tick()
        assert (await world.fund.status()).drawdown_pct == pytest.approx(drawdown)


@pytest.mark.parametrize("between", [False, True], ids=["one look", "a look after each"])
async def test_a_profit_before_a_deposit_belongs_to_the_units_of_before_it(between: bool) -> None:
    async with virtual_fund(_engine(1_000), ledger_enabled=True, performance_fee_pct=20.0) as world:
        await world.tick()
        await world.fund.ledger.record_profit(20_000)
        if between:
            await world.tick()
        await world.fund.ledger.deposit(100_000)
        await world.tick()
        status = await world.fund.status()
        assert status.nav == 216_000
        assert status.drawdown_pct == pytest.approx(0, abs=1e-9)
        await world.fund.ledger.record_loss(20_000)
        await world.tick()
        status = await world.fund.status()
        assert status.drawdown_pct == pytest.approx(100 * 16_000 / 216_000, rel=1e-6)


async def test_a_loss_and_a_deposit_of_a_downtime_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "fund.db"
    async with virtual_fund(_engine(1_000), ledger_enabled=True, db_path=path) as world:
        await world.tick()
        await world.fund.ledger.record_loss(20_000)
        await world.fund.ledger.deposit(100_000)  # the fund stops before the guard looks
    async with virtual_fund(_engine(1_000), ledger_enabled=True, db_path=path) as world:
        await world.tick()
        status = await world.fund.status()
        assert status.drawdown_pct == pytest.approx(20)
        assert status.kill_switch == "ENGAGED"


async def test_a_corrected_deposit_is_one_flow_at_one_price() -> None:
    async with virtual_fund(_engine(1_000), ledger_enabled=True) as world:
        await world.tick()
        first = (await world.fund.ledger.entries())[-1]
        await world.fund.ledger.record_loss(10_000)
        await world.fund.ledger.correct(first.seq, Deposit(50_000), reason="it was half of that")
        await world.tick()
        status = await world.fund.status()
        assert status.nav == 40_000
        assert status.drawdown_pct == pytest.approx(10)


@pytest.mark.parametrize("flows", [(-150_000, 100_000), (100_000, -150_000)])
async def test_the_order_of_two_flows_makes_no_drawdown(flows: tuple[int, int]) -> None:
    async with virtual_fund(_engine(1_000), ledger_enabled=True) as world:
        await world.tick()
        for number, flow in enumerate(flows):
            kind: Literal["deposit", "withdrawal"] = "deposit" if flow > 0 else "withdrawal"
            world.controller.cash_event_list = [
                CashEvent(f"{number}", kind, D(flow), START_US, cursor=f"{number + 1}")
            ]
            await world.tick()  # books it; the guard has looked already
            await world.tick()
            status = await world.fund.status()
            assert (status.drawdown_pct, status.kill_switch) == (0, "OFF")
        assert status.nav == 50_000


async def test_a_deposit_into_a_fund_that_lost_everything_is_no_gain() -> None:
    engine = _engine(100_000)
    async with virtual_fund(engine, ledger_enabled=True) as world:
        await world.tick()
        engine.set("s", equity=0, realized_pnl=-100_000)
        await world.tick()
        assert (await world.fund.status()).drawdown_pct == 100
        await world.fund.ledger.deposit(100_000)
        await world.tick()
        assert (await world.fund.status()).drawdown_pct == 50


async def test_an_unknown_equity_forgets_no_peak() -> None:
    engine = _engine(1_000)
    async with virtual_fund(engine) as world:
        await world.tick()
        for equity in (800, 700):
            engine.set("s", equity=None, allocated=0)
            await world.tick()
            engine.set("s", equity=equity, allocated=1_000, realized_pnl=equity - 1_000)
            await world.tick()
        assert ("pause", "s") in {call[:2] for call in engine.calls}


async def test_an_asset_without_a_price_yet_is_no_break_between_the_two_navs() -> None:
    async with virtual_fund(FakeController(), ledger_enabled=True, alert_log=True) as world:
        await world.tick()
        await world.fund.ledger.convert(10_000, "USD", 5, "BTC")
        for _ in range(100):
            world.clock.advance(1)
            await world.tick()
        titles = [alert.title for alert in world.sent_alerts()]
        assert titles == ["Assets without a price"]
        assert (await world.fund.status()).nav_difference is None
        await world.fund.ledger.price("BTC", 2_100)
        for _ in range(10):
            world.clock.advance(1)
            await world.tick()
        assert (await world.fund.status()).nav_difference == 0
