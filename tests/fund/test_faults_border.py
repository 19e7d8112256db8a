"""Values from outside as outsiders found them at fault: taken unchecked, or all for one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fundops import (
    ConfigError,
    FeedStatus,
    Fund,
    FundConfig,
    PromotionStage,
    StopReport,
    StrategyStatus,
)
from fundops.runtime import InlineWorker
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.errors import AlertRefused, AmountError

HEAL: dict[str, Any] = {"self_healing_enabled": True}
PROMO: dict[str, Any] = {"promotion_enabled": True}
NO_FEES: dict[str, Any] = {"management_fee_bps": 0, "performance_fee_pct": 0}


class Float64(float):
    """As numpy.float64: a subclass of float."""


class Int64:
    """As numpy.int64: no subclass of int, with `__index__`."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Float32:
    """As numpy.float32: no subclass of float, with `__float__`."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value


def _fake(*names: str) -> FakeController:
    names = names or ("s",)
    return FakeController(
        *(StrategyStatus(name, "running", equity=1000, allocated=1000) for name in names)
    )


async def _ticks(world: VirtualFund, count: int, seconds: float = 1) -> None:
    for _ in range(count):
        world.clock.advance(seconds)
        await world.tick()


def _told(world: VirtualFund, key: str) -> list[tuple[str, str]]:
    return [(a.level.value, a.message) for a in world.sent_alerts() if key in a.title]


# -- pushed

HOUR_AGO_US = START_US - 3_600_000_000


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ("name", StrategyStatus("", "running")),
        ("name", StrategyStatus("x" * 129, "running")),
        ("name", StrategyStatus("a\ud800", "running")),
        ("name", StrategyStatus(5, "running")),  # type: ignore[arg-type]
        ("equity", StrategyStatus("s", "running", equity=float("nan"))),
        ("equity", StrategyStatus("s", "running", equity="10")),  # type: ignore[arg-type]
        ("allocated", StrategyStatus("s", "running", allocated=Decimal("sNaN"))),
        ("allocated", StrategyStatus("s", "running", allocated=True)),
        ("realized_pnl", StrategyStatus("s", "running", realized_pnl=1e300)),
        ("unrealized_pnl", StrategyStatus("s", "running", unrealized_pnl=None)),  # type: ignore[arg-type]
        ("n_trades", StrategyStatus("s", "running", n_trades=-1)),
        ("n_trades", StrategyStatus("s", "running", n_trades=1.5)),  # type: ignore[arg-type]
        ("n_wins", StrategyStatus("s", "running", n_trades=1, n_wins=2)),
        ("at_us", StrategyStatus("s", "running", at_us=-1)),
        ("at_us", StrategyStatus("s", "running", at_us=2**61)),
        ("at_us", StrategyStatus("s", "running", at_us=START_US + 300_000_001)),
        ("at_us", StrategyStatus("s", "running", at_us=HOUR_AGO_US // 1_000)),
        ("heartbeat_us", StrategyStatus("s", "running", heartbeat_us="now")),  # type: ignore[arg-type]
        ("heartbeat_us", StrategyStatus("s", "running", heartbeat_us=HOUR_AGO_US // 1_000_000)),
        ("heartbeat_us", StrategyStatus("s", "running", heartbeat_us=HOUR_AGO_US * 1_000)),
        ("status", "s"),
    ],
)
async def test_a_wrong_field_is_refused_by_name_where_it_is_pushed(field: str, status: Any) -> None:
    async with virtual_fund() as world:
        world.fund.report(StrategyStatus("s", "running"))
        with pytest.raises(ConfigError) as refusal:
            world.fund.report(status)
        assert refusal.value.field == field
        assert (await world.fund.tick()).failed == ()


# -- asked for


@pytest.mark.parametrize(
    "figure", [Float64(1000), Int64(1000), Float32(1000.0), Decimal(1000), 1000, 1000.0]
)
async def test_numpys_scalars_are_numbers_like_others(figure: Any) -> None:
    async with virtual_fund(_fake(), status_port=0, **HEAL) as world:
        world.controller.set(
            "s", equity=figure, allocated=figure, n_trades=Int64(60), n_wins=Int64(30)
        )
        await _ticks(world, 8)
        assert world.fund.may_trade("s")
        assert world.sent_alerts() == []
        (status,) = await world.fund.host.strategies()
        assert (status.equity, status.n_trades, type(status.n_trades)) == (1000, 60, int)
        assert type(status.equity) in (int, float, Decimal)


async def test_a_wrong_figure_is_told_once_and_ends_the_lease_of_that_one() -> None:
    async with virtual_fund(_fake("s", "other"), **HEAL) as world:
        await _ticks(world, 1)
        world.controller.set("s", equity="10", n_trades=-1, n_wins=5)
        await _ticks(world, 3)
        assert (world.fund.may_trade("s"), world.fund.may_close("s")) == (False, True)
        assert world.fund.may_trade("other")
        assert world.fund.entitlement("s").why.startswith("n_trades: -1 is not a whole number")
        assert len(_told(world, "s: its status is wrong")) == 1
        assert not any(call[0] == "pause" for call in world.controller.calls)
        world.controller.set("s", equity=1000, n_trades=0, n_wins=0)
        await _ticks(world, 1)
        assert world.fund.may_trade("s")


@pytest.mark.parametrize("field", ["at_us", "heartbeat_us"])
@pytest.mark.parametrize(
    ("factor", "unit"), [(1e-6, "seconds"), (1e-3, "milliseconds"), (1e3, "nanoseconds")]
)
async def test_an_instant_in_another_unit_is_named_with_it_and_is_no_silence(
    field: str, factor: float, unit: str
) -> None:
    async with virtual_fund(_fake(), **HEAL) as world:
        await _ticks(world, 1)
        world.controller.set("s", **{field: round(world.clock.now_us() * factor)})
        await _ticks(world, 70)
        (told,) = world.sent_alerts()
        assert (told.level.value, told.title) == ("WARNING", "s: its status is wrong")
        assert told.message.startswith(f"{field}: ")
        assert told.message.endswith(f"it looks like {unit}")
        assert not world.fund.may_trade("s")


async def test_a_clock_of_the_host_that_is_a_little_ahead_is_none_of_its_faults() -> None:
    async with virtual_fund(_fake(), **HEAL) as world:
        ahead_us = world.clock.now_us() + 300_000_000
        world.controller.set("s", at_us=ahead_us, heartbeat_us=ahead_us)
        world.fund.report_feed("f", ahead_us)
        await world.tick()
        assert world.fund.may_trade("s")
        assert world.sent_alerts() == []


async def test_the_last_good_figures_of_a_wrong_status_stand() -> None:
    async with virtual_fund(_fake("s", "other"), **NO_FEES) as world:
        world.controller.set("s", realized_pnl=500)
        await _ticks(world, 1)
        world.controller.set("s", realized_pnl=float("inf"))
        world.controller.set("other", realized_pnl=7)
        await _ticks(world, 2)
        assert (await world.fund.status()).nav == 100_507


async def test_a_stage_that_is_no_text_is_named_and_the_other_trades_on() -> None:
    async with virtual_fund(_fake("s", "other"), **HEAL) as world:
        world.controller.set("s", stage=7)
        await _ticks(world, 70)
        assert (await world.fund.kill_switch.status()).state == "OFF"
        assert (world.fund.may_trade("s"), world.fund.may_trade("other")) == (False, True)
        assert _told(world, "s: its status is wrong") == [
            ("WARNING", "reports the unknown stage 7, which counts as real money")
        ]


@pytest.mark.parametrize("item", [None, "s", StrategyStatus("s", "running"), 5])
async def test_one_bad_item_is_set_aside_and_the_others_count(item: Any) -> None:
    class Odd(FakeController):
        def strategies(self) -> list[Any]:
            return [*super().strategies(), item]

    fake = Odd(StrategyStatus("s", "running"), StrategyStatus("other", "running"))
    async with virtual_fund(fake, **HEAL) as world:
        for _ in range(70):
            world.clock.advance(1)
            assert (await world.tick()).failed == ()
        assert world.fund.may_trade("other")
        assert (await world.fund.kill_switch.status()).state == "OFF"
        assert len(_told(world, "its status is wrong")) == 1


async def test_a_plug_in_that_calls_sys_exit_is_a_named_fault() -> None:
    fake = _fake()
    fake.failures["strategies"] = SystemExit(3)  # type: ignore[assignment]
    async with virtual_fund(fake, **HEAL) as world:
        assert (await world.tick()).failed == ("engine",)
        assert _told(world, "step engine fails") == [
            ("WARNING", "controller.strategies: raised SystemExit: 3")
        ]
        del fake.failures["strategies"]
        assert (await world.tick()).failed == ()


async def test_a_wrong_feed_is_named_and_touches_no_other() -> None:
    async with virtual_fund(_fake(), recovery_every_ticks=1, **HEAL) as world:
        world.controller.feed_statuses = [
            FeedStatus("x", "12:00"),  # type: ignore[arg-type]
            FeedStatus("y", world.clock.now_us()),
        ]
        await _ticks(world, 400)
        assert len(_told(world, "feed x: its status is wrong")) == 1
        assert len(_told(world, "feed y: stale")) == 1
        assert world.fund.tree()[0].restarts == 0


# -- unknown words fail closed


@pytest.mark.parametrize("state", ["error", "FAILED", "crashed", "runing", None, 5])
async def test_an_unknown_state_counts_as_failed(state: Any) -> None:
    async with virtual_fund(_fake(), **HEAL) as world:
        await _ticks(world, 1)
        world.controller.set("s", state=state)
        await _ticks(world, 1)
        assert (world.fund.may_trade("s"), world.fund.may_close("s")) == (False, True)
        await _ticks(world, 30, 60)
        assert any(call[0] == "restart" for call in world.controller.calls)
        told = _told(world, "s: its status is wrong")
        assert len(told) == 1
        assert f"the unknown state {state!r}" in told[0][1]


async def test_an_unknown_state_is_taken_where_it_is_pushed() -> None:
    async with virtual_fund() as world:
        world.fund.report(StrategyStatus("s", "runing"))  # type: ignore[arg-type]
        assert (await world.fund.tick()).failed == ()


async def test_an_unknown_stage_is_real_money_whose_figures_count() -> None:
    async with virtual_fund(_fake(), **PROMO, **NO_FEES) as world:
        await world.fund.promotion.adopt("s", PromotionStage.Live_Scaled, by="a", reason="r")
        world.controller.failures["set_stage"] = RuntimeError()
        world.controller.set("s", stage="LIVE-SCALED", equity=100_000, allocated=100_000)
        await _ticks(world, 1)
        world.controller.set("s", equity=50_000, unrealized_pnl=-50_000)
        await _ticks(world, 1)
        assert (await world.fund.status()).nav == 50_000
        assert (await world.fund.kill_switch.status()).state != "OFF"
        assert not world.fund.may_trade("s")


async def test_a_retired_strategy_may_not_trade_with_promotion_off() -> None:
    async with virtual_fund(_fake()) as world:
        world.controller.set("s", state="retired")
        await _ticks(world, 1)
        held = world.fund.entitlement("s")
        assert (held.mode, held.may_open, held.may_close) == ("reduce", False, True)


async def test_without_equity_and_allocation_no_drawdown_is_said() -> None:
    async with virtual_fund(FakeController(), **HEAL) as world:
        world.controller.set("m", realized_pnl=1500)
        await _ticks(world, 1)
        world.controller.set("m", realized_pnl=1100)
        await _ticks(world, 1)
        assert world.sent_alerts() == []
        assert world.fund.may_trade("m")


# -- how a controller is called


async def test_every_part_may_be_plain_or_a_coroutine() -> None:
    class Async(FakeController):
        async def strategies(self) -> Any:  # type: ignore[override]
            return super().strategies()

        async def feeds(self) -> Any:  # type: ignore[override]
            return super().feeds()

        def pause(self, name: str, reason: str) -> None:  # type: ignore[override]
            self._called("pause", name, reason)

        def restart(self, name: str, *, attempt_id: str) -> None:  # type: ignore[override]
            self._called("restart", name, attempt_id)
            self.set(name, state="running", error=None)

    fake = Async(StrategyStatus("s", "running", equity=1000, allocated=1000))
    async with virtual_fund(fake, **HEAL) as world:
        assert (await world.tick()).failed == ()
        assert world.fund.may_trade("s")
        fake.set("s", equity=700)
        assert (await world.tick()).failed == ()
        assert ("pause", "s", "drawdown 30.00% reached its limit 25%") in fake.calls
        fake.set("s", state="failed")
        await _ticks(world, 30, 60)
        assert any(call[0] == "restart" for call in fake.calls)


class NotCallable:
    strategies = ()


@pytest.mark.parametrize("controller", [object(), 5, "controller", NotCallable()])
async def test_an_object_without_any_part_is_refused_at_open(
    controller: Any, tmp_path: Path
) -> None:
    config = FundConfig(total_capital=1000, db_path=tmp_path / "x.db")
    with pytest.raises(ConfigError, match="controller"):
        async with Fund.open(config, controller, make_worker=lambda _: InlineWorker()):
            pass
    assert os.listdir(tmp_path) == [], "no file was made"


# -- classes whose methods raise


class Hostile(str):
    """A subclass of text that raises when it is hashed, compared or measured."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    def __hash__(self) -> int:
        raise RuntimeError("no")

    def __len__(self) -> int:
        raise RuntimeError("no")


class Exiting:
    """A plug-in that calls sys.exit when it is asked for a number."""

    def __float__(self) -> float:
        raise SystemExit(3)


class Unreadable(StrategyStatus, frozen=True):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("no")


HOSTILE = {
    "name": StrategyStatus(Hostile("h"), "running"),
    "state": StrategyStatus("h", Hostile("running")),  # type: ignore[arg-type]
    "stage": StrategyStatus("h", "running", stage=Hostile("paper")),
    "equity": StrategyStatus("h", "running", equity=Exiting()),  # type: ignore[arg-type]
    "all": Unreadable("h", "running"),
}


@pytest.mark.parametrize("field", HOSTILE)
async def test_a_class_whose_methods_raise_ends_no_lease_but_its_own(field: str) -> None:
    async with virtual_fund(_fake()) as world:
        world.controller.statuses["h"] = HOSTILE[field]
        for _ in range(3):
            world.clock.advance(1)
            assert (await world.tick()).failed == ()
            assert world.fund.may_trade("s")


@pytest.mark.parametrize("call", ["fills", "settlements", "cash_events"])
@pytest.mark.parametrize("answer", ["abc", b"abc", {"a": 1}], ids=["text", "bytes", "mapping"])
async def test_a_text_or_a_mapping_is_no_list_of_reports(call: str, answer: Any) -> None:
    async with virtual_fund(_fake(), ledger_enabled=True) as world:
        setattr(world.controller, call, lambda after: answer)
        assert (await world.tick()).failed == ("ledger",)
        assert await world.fund.ledger.reports_aside() == ()


async def test_an_object_made_anew_for_each_answer_is_set_aside_once() -> None:
    async with virtual_fund(_fake(), ledger_enabled=True) as world:
        kept: list[object] = []

        def fills(after: str) -> list[Any]:
            kept.append(object())
            return kept[-1:]

        world.controller.fills = fills  # type: ignore[method-assign]
        await _ticks(world, 3)
        assert len(await world.fund.ledger.reports_aside()) == 1
        assert len(_told(world, "set aside")) == 1


async def test_an_answer_of_stop_all_that_cannot_be_shown_is_no_confirmation() -> None:
    class Odd:
        def __repr__(self) -> str:
            return "\ud800"

    async def stop_all(reason: str, action: str, strategies: Sequence[str]) -> Any:
        return StopReport(Odd(), 0)  # type: ignore[arg-type]

    async with virtual_fund(_fake()) as world:
        world.controller.stop_all = stop_all  # type: ignore[method-assign]
        await world.fund.kill_switch.engage(reason="x", by="ann")
        await _ticks(world, 1)
        assert (await world.fund.kill_switch.status()).state == "UNCONFIRMED"
        assert not any(child.last_crash for child in world.fund.tree())


NAMES = [["s"], {"s": 1}, Hostile("x"), Decimal("sNaN"), 10**5_000, 5]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: type(name).__name__)
async def test_a_name_that_is_no_known_text_crashes_no_actor(name: Any) -> None:
    async with virtual_fund(_fake(), **PROMO, **HEAL) as world:
        if isinstance(name, str):  # a name that no strategy has
            assert not await world.fund.resume(name, by="ann", reason="r")
            assert not await world.fund.confirm_counters(name, by="ann", reason="r")
        else:
            with pytest.raises(ConfigError, match=r"^(name|strategy): "):
                await world.fund.resume(name, by="ann", reason="r")
            with pytest.raises(ConfigError, match=r"^(name|strategy): "):
                await world.fund.confirm_counters(name, by="ann", reason="r")
        for ask in (
            world.fund.promotion.snapshot,
            world.fund.promotion.freeze,
            world.fund.recovery.reset,
        ):
            with pytest.raises(KeyError):
                await ask(name)
        assert not any(child.last_crash for child in world.fund.tree())


@pytest.mark.parametrize("source", [None, 5, "\ud800", "x" * 2_000], ids=range(4))
async def test_the_source_of_a_metric_is_a_text(source: Any) -> None:
    async with virtual_fund(_fake(), **PROMO) as world:
        number = await world.fund.promotion.register("s")
        with pytest.raises(ConfigError, match=r"^source: "):
            await world.fund.promotion.record_metrics(
                number, PromotionStage.Paper, {"sharpe": 1}, source=source
            )


async def test_an_amount_whose_conversion_raises_is_refused_by_name() -> None:
    async with virtual_fund(_fake(), ledger_enabled=True) as world:
        for amount in (Exiting(), Hostile("five")):
            with pytest.raises(AmountError, match=r"^amount: "):
                await world.fund.ledger.deposit(amount)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"^memo: "):
            await world.fund.ledger.deposit(1, memo=Hostile("five"))


async def test_an_alert_with_a_title_too_long_to_show_is_refused() -> None:
    async with virtual_fund(_fake(), **HEAL) as world:
        with pytest.raises(AlertRefused, match=r"^title: some int is not a text"):
            await world.fund.alerts.send("INFO", "GENERAL", 10**5_000, "m")  # type: ignore[arg-type]
