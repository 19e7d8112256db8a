"""The async front door, as a host would use it, in virtual time."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
import trio.testing

from fundops import (
    DatabaseInUse,
    FeedStatus,
    Fill,
    Fund,
    FundConfig,
    FundopsError,
    InsufficientFunds,
    PromotionStage,
    Settlement,
    StrategyStatus,
    SubsystemDisabled,
    VirtualClock,
    open_reader,
)
from fundops.actors.alert.secret_url import SecretUrl
from fundops.runtime import ActorStopped, InlineWorker, SupervisorEscalated, UnknownChild, Worker
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.errors import (
    BadRequest,
    IdempotencyConflict,
    KillSwitchNotEngaged,
    UnbalancedEntry,
    UnmanagedStrategy,
)
from fundops.wire.ledger import Leg
from fundops.wire.recovery import RecoveryPhase

EVERYTHING: dict[str, Any] = {
    "ledger_enabled": True,
    "promotion_enabled": True,
    "self_healing_enabled": True,
}
ACTORS = ("guard", "persistence", "alert", "ledger", "promotion", "recovery", "oversight")
WEBHOOK = "https://hooks.example.com/services/secret"
DAY_S = 86_400.0


def _decimals(**amounts: float | str) -> dict[str, Decimal]:
    return {name: Decimal(str(amount)) for name, amount in amounts.items()}


def _running(*names: str) -> FakeController:
    return FakeController(
        *(StrategyStatus(name, "running", equity=1_000, allocated=1_000) for name in names)
    )


async def _live(world: VirtualFund, name: str = "a") -> None:
    """The strategy trades real money; promotion knows at this tick, the leases at the next."""
    await world.fund.promotion.adopt(
        name,
        PromotionStage.Live_Scaled,
        by="ann",
        reason="it traded before",
        over_capital=True,
    )
    world.controller.set(name, stage="live-scaled")
    await world.tick()
    await world.tick()


async def _golden_script(fund: Fund) -> None:
    await fund.ledger.record_profit(2_000)
    await fund.ledger.record_loss("500")
    await fund.ledger.withdraw(Decimal("1500.00"))
    await fund.ledger.open_position("POLITICS", quantity=100, cost=5_000.0)
    await fund.ledger.charge_management_fee(200)
    await fund.ledger.charge_performance_fee(100)


# -- the ledger


async def test_the_opening_deposit_is_the_first_line_of_the_journal() -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        (entry,) = await world.fund.ledger.recent_entries()
        assert (entry.seq, entry.key, entry.kind) == (1, "opening", "deposit")
        units = _decimals(HOLDERS=100_000, UNITS=-100_000)
        assert {leg.account: leg.amount for leg in entry.legs} == _decimals(
            CASH=100_000, EXTERNAL=-100_000
        ) | units
        assert entry.recorded_us == START_US


async def test_the_golden_script_gives_both_reports_to_the_digit() -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        fund = world.fund
        await _golden_script(fund)
        sheet = _decimals(
            CASH=95_000,
            POSITIONS=5_000,
            FEES_RECEIVABLE=-300,
            MANAGEMENT_FEES=200,
            PERFORMANCE_FEES=100,
            REALIZED_PNL=-1_500,
            UNREALIZED_PNL=0,
        )
        income = _decimals(
            REALIZED_PNL=1_500, UNREALIZED_PNL=0, MANAGEMENT_FEES=-200, PERFORMANCE_FEES=-100
        )
        assert await fund.ledger.balance_sheet() == sheet
        assert await fund.ledger.income_statement() == income
        trial = await fund.ledger.trial_balance()
        assert trial == {**sheet, "EXTERNAL": Decimal(-98_500)}
        assert sum(trial.values()) == 0
        assert await fund.ledger.nav() == 99_700
        assert [entry.kind for entry in reversed(await fund.ledger.recent_entries())] == [
            "deposit",
            "profit",
            "loss",
            "withdrawal",
            "open_position",
            "management_fee",
            "performance_fee",
        ]


async def test_a_mark_after_the_golden_script_moves_positions_and_unrealized_pnl() -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        await _golden_script(world.fund)
        await world.fund.ledger.mark("POLITICS", value=5_250)
        sheet = await world.fund.ledger.balance_sheet()
        assert (sheet["POSITIONS"], sheet["UNREALIZED_PNL"]) == (Decimal(5_250), Decimal(-250))
        assert (await world.fund.ledger.income_statement())["UNREALIZED_PNL"] == 250
        assert await world.fund.ledger.nav() == 99_950


async def test_the_reports_compare_equal_to_the_floats_of_the_documentation() -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        await _golden_script(world.fund)
        sheet = await world.fund.ledger.balance_sheet()
        assert sheet["CASH"] == 95000.0
        assert sheet["MANAGEMENT_FEES"] == 200.0


async def test_twenty_withdrawals_at_once_never_overdraw() -> None:
    outcomes: list[str] = []
    async with virtual_fund(ledger_enabled=True) as world:

        async def withdraw() -> None:
            try:
                await world.fund.ledger.withdraw(10_000)
            except InsufficientFunds:
                outcomes.append("refused")
            else:
                outcomes.append("paid")

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(withdraw)
        assert (await world.fund.ledger.balance_sheet())["CASH"] == 0
    assert (outcomes.count("paid"), outcomes.count("refused")) == (10, 10)


async def test_a_key_given_twice_books_once_and_other_content_under_it_is_a_conflict() -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        ledger = world.fund.ledger
        key = ledger.new_key()
        first = await ledger.deposit(5, key=key)
        again = await ledger.deposit("5.00", key=key)
        assert (again.seq, again.replayed, first.replayed) == (first.seq, True, False)
        with pytest.raises(IdempotencyConflict):
            await ledger.deposit(6, key=key)
        assert (await ledger.balance_sheet())["CASH"] == 100_005


async def test_every_refused_booking_carries_the_key_to_ask_again_with() -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        with pytest.raises(InsufficientFunds) as caught:
            await world.fund.ledger.withdraw(10**6)
        key = caught.value.key  # type: ignore[attr-defined]
        await world.fund.ledger.deposit(10**6)
        assert (await world.fund.ledger.withdraw(10**6, key=key)).key == key


@pytest.mark.parametrize(
    "amount", [0, -1, math.nan, math.inf, "x", True, None, "0.000000001", 2**63], ids=repr
)
async def test_an_amount_that_is_none_is_refused_and_nothing_is_booked(amount: Any) -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        for book in (
            world.fund.ledger.deposit,
            world.fund.ledger.withdraw,
            world.fund.ledger.record_loss,
        ):
            with pytest.raises(ValueError, match="amount"):
                await book(amount)
        assert len(await world.fund.ledger.recent_entries()) == 1


async def test_unbalanced_legs_are_refused() -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        with pytest.raises(UnbalancedEntry):
            await world.fund.ledger.post([Leg("CASH", 5), Leg("EXTERNAL", -4)])


async def test_a_page_of_none_is_empty_and_a_negative_one_is_refused() -> None:
    async with virtual_fund(**EVERYTHING) as world:
        fund = world.fund
        assert await fund.ledger.recent_entries(limit=0) == ()
        assert await fund.recovery.event_history(limit=0) == []
        assert await fund.nav_history(limit=0) == ()
        assert (await fund.alerts.recent(limit=0)).alerts == ()
        asks: tuple[Callable[[int], Awaitable[Any]], ...] = (
            fund.ledger.recent_entries,
            fund.recovery.event_history,
            fund.nav_history,
            fund.alerts.recent,
            lambda limit: fund.promotion.history(limit=limit),
        )
        for ask in asks:
            with pytest.raises(ValueError, match="limit"):
                await ask(-1)


# -- what is switched off


def _methods(fund: Fund) -> list[tuple[Callable[[], Awaitable[Any]], str]]:
    ledger, promotion, recovery, alerts = fund.ledger, fund.promotion, fund.recovery, fund.alerts
    return [
        (lambda: ledger.deposit(1), "ledger_enabled=True"),
        (lambda: ledger.withdraw(1), "ledger_enabled=True"),
        (lambda: ledger.balance_sheet(), "ledger_enabled=True"),
        (lambda: ledger.recent_entries(), "ledger_enabled=True"),
        (lambda: ledger.post_many([]), "ledger_enabled=True"),
        (lambda: ledger.nav(), "ledger_enabled=True"),
        (lambda: promotion.register("a"), "promotion_enabled=True"),
        (lambda: promotion.snapshot("a"), "promotion_enabled=True"),
        (lambda: promotion.should_promote("a"), "promotion_enabled=True"),
        (lambda: promotion.history(), "promotion_enabled=True"),
        (lambda: recovery.reset("a"), "self_healing_enabled=True"),
        (lambda: recovery.stats(), "self_healing_enabled=True"),
        (lambda: recovery.check_feeds(), "self_healing_enabled=True"),
        (lambda: alerts.send("INFO", "GENERAL", "a", "b"), "alert_webhook_url"),
        (lambda: alerts.recent(), "alert_webhook_url"),
    ]


@pytest.mark.parametrize("number", range(15))
async def test_a_part_that_is_off_refuses_and_names_its_switch(number: int) -> None:
    async with virtual_fund() as world:
        call, switch = _methods(world.fund)[number]
        with pytest.raises(SubsystemDisabled) as caught:
            await call()
        assert switch in caught.value.switch
        assert switch in str(caught.value)


async def test_a_fund_with_everything_off_still_ticks_watches_and_tells() -> None:
    async with virtual_fund(_running("a")) as world:
        assert (await world.fund.tick()).failed == ()
        status = await world.fund.status()
        assert (status.running, status.nav, status.running_strategies) == (
            True,
            Decimal(100_000),
            1,
        )
        assert world.fund.may_trade("a"), (
            "without promotion every strategy trades by the host's own say"
        )


async def test_without_a_status_port_there_is_no_stream_to_ask_for() -> None:
    async with virtual_fund() as world:
        assert world.fund.status_token == ""
        with pytest.raises(UnknownChild):
            await world.fund.status_port()


# -- errors and the end of the block


async def test_an_error_raised_in_the_block_comes_out_as_it_is() -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with virtual_fund(**EVERYTHING):
            raise error
    assert caught.value is error


async def test_a_refusal_in_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(InsufficientFunds):
        async with virtual_fund(ledger_enabled=True) as world:
            await world.fund.ledger.withdraw(10**9)


async def test_a_keyboard_interrupt_in_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(KeyboardInterrupt):
        async with virtual_fund(**EVERYTHING):
            raise KeyboardInterrupt


async def test_several_errors_of_a_hosts_own_nursery_stay_a_group_of_their_own() -> None:
    async def fail(error: Exception) -> None:
        raise error

    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012  the block is what is tested
        async with virtual_fund(ledger_enabled=True), trio.open_nursery() as nursery:
            nursery.start_soon(fail, ValueError("one"))
            nursery.start_soon(fail, KeyError("two"))
    assert {type(one) for one in caught.value.exceptions} == {ValueError, KeyError}


async def test_cancelling_the_host_ends_the_fund_in_order(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with virtual_fund(db_path=tmp_path / "x.db", **EVERYTHING) as world:
            await world.fund.ledger.deposit(5)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert not (tmp_path / "x.db-wal").exists(), "the writer closed the file"
    async with virtual_fund(db_path=tmp_path / "x.db", **EVERYTHING) as world:
        assert (await world.fund.ledger.balance_sheet())["CASH"] == 100_005


async def test_a_deadline_around_a_call_is_the_callers_own() -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        with trio.CancelScope() as scope:
            scope.cancel()
            await world.fund.ledger.deposit(5)
        assert scope.cancelled_caught
        await world.fund.ledger.deposit(1)


async def test_a_door_that_was_kept_after_the_end_says_that_the_fund_stopped() -> None:
    engine = FakeController(StrategyStatus("a", "running"))
    async with virtual_fund(engine, ledger_enabled=True) as world:
        await world.tick()
        assert world.fund.may_trade("a")
    with pytest.raises(ActorStopped):
        await world.fund.ledger.deposit(5)
    assert not world.fund.may_trade("a"), "the lease has ended with the fund"
    assert world.fund.may_close("a")


async def test_an_actor_that_cannot_be_kept_alive_ends_the_block_with_the_reason(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with pytest.raises(SupervisorEscalated, match="gave up"):  # noqa: PT012  the block is what is tested
        async with virtual_fund() as world:
            while True:
                world.fund.drill("guard")
                await trio.sleep(0.1)


async def test_an_interrupt_that_lands_in_an_actor_ends_the_fund_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Interrupted(FakeController):
        """Ctrl-C in the promotion actor, while oversight waits for its answer."""

        async def set_stage(self, name: str, stage: str, capital_cap: Decimal | None) -> None:
            raise KeyboardInterrupt

    begun = trio.current_time()
    engine = Interrupted(
        StrategyStatus("a", "running", equity=1_000, allocated=1_000, stage="live-scaled")
    )
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012  the block is what is tested
        async with virtual_fund(engine, **EVERYTHING) as world:
            await _live(world)
            await world.tick("2026-01-05")
            engine.set("a", equity=100)
            await world.tick()
            pytest.fail("nothing was demoted")
    assert trio.current_time() - begun < 5


async def test_the_fund_ticks_by_itself_when_it_is_given_an_interval(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with virtual_fund(tick_interval_s=2.0) as world:
        await trio.sleep(21)
        assert (await world.fund.status()).ticks in (10, 11)


async def test_ticks_that_were_missed_are_skipped(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    begun, takes_s = list[float](), [0, 0.4, 2.5, 0, 0, 60]

    async def slow_tick(fund: Fund) -> None:
        begun.append(trio.current_time())
        await trio.sleep(takes_s.pop(0))

    monkeypatch.setattr(Fund, "tick", slow_tick)
    async with virtual_fund(tick_interval_s=1.0):
        await trio.sleep(10)
    # The third one is late by a tick and a half, and neither is made up for.
    assert [at - begun[0] for at in begun] == [0, 1, 2, 4.5, 5.5, 6.5]


async def test_a_database_has_one_fund_at_a_time(tmp_path: Path) -> None:
    async with virtual_fund(db_path=tmp_path / "x.db"):
        with pytest.raises(DatabaseInUse, match="this process"):
            async with virtual_fund(db_path=tmp_path / "x.db"):
                pytest.fail("it opened")


async def test_two_funds_in_one_process_share_nothing(tmp_path: Path) -> None:
    async with (
        virtual_fund(ledger_enabled=True, name="a") as one,
        virtual_fund(ledger_enabled=True, name="b") as two,
    ):
        await one.fund.ledger.deposit(5)
        await one.fund.kill_switch.engage(reason="test", by="ann")
        assert (await two.fund.ledger.balance_sheet())["CASH"] == 100_000
        assert (await two.fund.kill_switch.status()).state == "OFF"


async def test_a_host_that_configures_no_logging_reads_nothing_of_ours_on_stderr(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    async with virtual_fund(_running("a")) as world:
        await world.fund.kill_switch.engage(reason="test", by="ann")
        await world.tick()
    assert capfd.readouterr().err == ""


# -- the kill switch and entitlement


async def test_a_strategy_that_nobody_registered_may_do_nothing() -> None:
    async with virtual_fund(_running("a"), **EVERYTHING) as world:
        await world.tick()
        held = world.fund.entitlement("a")
        assert (held.mode, held.capital, world.fund.may_trade("a")) == ("none", Decimal(0), False)
        assert [one.title for one in world.sent_alerts()] == ["a is not registered"]


@pytest.mark.parametrize(
    ("stage", "mode", "capital"),
    [
        (PromotionStage.Paper, "paper", 0),
        (PromotionStage.Shadow, "shadow", 0),
        (PromotionStage.Live_Small, "live", 1_000),
        (PromotionStage.Live_Scaled, "live", 100_000),
    ],
)
async def test_a_stage_entitles_to_its_mode_and_capital(
    stage: PromotionStage, mode: str, capital: int
) -> None:
    async with virtual_fund(_running("a"), **EVERYTHING) as world:
        await world.fund.promotion.adopt("a", stage, by="ann", reason="test")
        await world.tick()
        await world.tick()
        held = world.fund.entitlement("a")
        assert (held.stage, held.mode, held.capital) == (stage.value, mode, Decimal(capital))
        assert world.fund.may_trade("a") is (mode == "live")


async def test_a_demoted_strategy_may_send_no_order_after_the_next_tick() -> None:
    async with virtual_fund(_running("a"), **EVERYTHING) as world:
        await _live(world)
        await world.fund.promotion.demote("a", to=PromotionStage.Shadow, reason="it frightens me")
        await world.tick()
        assert not world.fund.may_trade("a")


async def test_a_lease_runs_out_unless_a_tick_renews_it() -> None:
    async with virtual_fund(_running("a"), lease_s=30, **EVERYTHING) as world:
        await _live(world)
        world.clock.advance(30)
        assert world.fund.may_trade("a")
        world.clock.advance(0.000001)
        assert not world.fund.may_trade("a")
        await world.tick()
        assert world.fund.may_trade("a")


async def test_the_kill_switch_stops_everything_before_it_answers() -> None:
    async with virtual_fund(_running("a"), **EVERYTHING) as world:
        await _live(world)
        answer = await world.fund.kill_switch.engage(reason="I do not like this", by="ann")
        assert (answer.state, answer.by, answer.at_us) == (
            "ENGAGING",
            "ann",
            world.clock.now_us(),
        )
        assert not world.fund.may_trade("a")
        await world.tick()
        assert ("stop_all", "I do not like this", "halt", ("a",)) in world.controller.calls
        assert not world.fund.may_trade("a")
        await world.advance(600)
        assert not world.fund.may_trade("a")
        told = [one for one in world.sent_alerts() if one.category.value == "KILL_SWITCH"]
        assert [(one.level.value, one.title) for one in told] == [
            ("CRITICAL", "Kill switch activated"),
            ("INFO", "Kill switch: stop confirmed"),
        ]
        assert (await world.fund.status()).kill_switch == "ENGAGED"


async def test_engaging_twice_keeps_the_first_reason() -> None:
    async with virtual_fund() as world:
        await world.fund.kill_switch.engage(reason="first", by="ann")
        assert (await world.fund.kill_switch.engage(reason="second", by="bob")).reason == "first"


async def test_a_stop_that_is_not_confirmed_is_asked_for_again_until_it_is() -> None:
    async with virtual_fund(_running("a"), kill_action="flatten", **EVERYTHING) as world:
        await _live(world)
        world.controller.open_orders = 3
        assert (await world.fund.kill_switch.engage(reason="test", by="ann")).state == "ENGAGING"
        await world.tick()
        await trio.testing.wait_all_tasks_blocked()
        assert (await world.fund.kill_switch.status()).state == "UNCONFIRMED"
        world.controller.open_orders = 0
        await world.tick()
        await trio.testing.wait_all_tasks_blocked()
        assert (await world.fund.kill_switch.status()).state == "ENGAGED"
        await world.tick()
        calls = [call[1:3] for call in world.controller.calls if call[0] == "stop_all"]
        assert set(calls) == {("test", "flatten")}
        assert 2 <= len(calls) <= 3


async def test_an_engine_that_raises_when_told_to_stop_leaves_the_switch_unconfirmed() -> None:
    async with virtual_fund(_running("a"), **EVERYTHING) as world:
        world.controller.failures["stop_all"] = OSError("gone")
        assert (await world.fund.kill_switch.engage(reason="test", by="ann")).state == "ENGAGING"
        await world.tick()
        assert (await world.fund.kill_switch.status()).state == "UNCONFIRMED"
        assert not world.fund.may_trade("a")


async def test_a_fund_drawdown_beyond_its_limit_engages_the_switch_with_both_figures() -> None:
    async with virtual_fund(_running("a"), max_strategy_drawdown_pct=99) as world:
        await world.tick()
        world.controller.set("a", realized_pnl=-12_500)
        await world.tick()
        assert (await world.fund.kill_switch.status()).state == "OFF"
        world.controller.set("a", realized_pnl=-15_200)
        await world.tick()
        kill = await world.fund.kill_switch.status()
        assert (kill.state, kill.reason) == (
            "ENGAGED",
            "Fund drawdown 15.2% reached its limit 15.0%",
        )


async def test_a_dead_engine_with_live_strategies_is_a_reason_to_stop_where_asked_for() -> None:
    async with virtual_fund(_running("a"), on_blind="kill", **EVERYTHING) as world:
        await _live(world)
        nav = (await world.fund.status()).nav
        world.controller.failures["strategies"] = ConnectionError("engine is gone")
        await world.advance(59, step_s=1)
        assert (await world.fund.kill_switch.status()).state == "OFF"
        assert (await world.fund.status()).nav == pytest.approx(nav, abs=Decimal(1))
        await world.advance(2, step_s=1)
        assert "silent" in (await world.fund.kill_switch.status()).reason


async def test_a_released_switch_lets_the_next_tick_renew_the_leases() -> None:
    async with virtual_fund(_running("a"), **EVERYTHING) as world:
        await _live(world)
        await world.fund.kill_switch.engage(reason="test", by="ann")
        await world.tick()
        assert (await world.fund.kill_switch.release(by="ann", reason="all is well")).state == "OFF"
        world.controller.set("a", state="running")  # a person starts it
        assert not world.fund.may_trade("a")
        await world.tick()
        assert world.fund.may_trade("a")
        assert (await world.fund.status()).kill_switch == "OFF"


async def test_a_switch_that_is_not_engaged_cannot_be_released() -> None:
    async with virtual_fund() as world:
        with pytest.raises(KillSwitchNotEngaged):
            await world.fund.kill_switch.release(by="ann", reason="why not")


async def test_a_release_needs_a_name_and_a_reason() -> None:
    async with virtual_fund(alert_log=True) as world:
        await world.tick()
        await world.fund.kill_switch.engage(reason="test", by="ann")
        await world.tick()
        with pytest.raises(TypeError, match="by"):
            await world.fund.kill_switch.release()  # type: ignore[call-arg]
        for field, texts in (("by", ("", "well")), ("reason", ("bob", " "))):
            with pytest.raises(BadRequest) as refusal:
                await world.fund.kill_switch.release(by=texts[0], reason=texts[1])
            assert refusal.value.field == field
        assert (await world.fund.kill_switch.status()).state == "ENGAGED"
        await world.fund.kill_switch.release(by="bob", reason="all is well")
        await world.tick()
        titles = [alert.title for alert in world.sent_alerts()]
        assert titles == [
            "Kill switch activated",
            "Kill switch: stop confirmed",
            "Kill switch released by bob",
        ]


async def test_a_strategy_that_reports_no_number_loses_its_lease_and_is_not_paused() -> None:
    async with virtual_fund(_running("a", "b"), **EVERYTHING) as world:
        await _live(world)
        world.controller.set("a", unrealized_pnl=math.nan)
        await world.tick()
        assert not world.fund.may_trade("a")
        assert world.fund.may_close("a")
        assert not any(call[0] == "pause" for call in world.controller.calls)
        assert (await world.fund.status()).nav.is_finite()
        world.controller.set("a", unrealized_pnl=0)
        await world.tick()
        assert world.fund.may_trade("a")


async def test_a_strategy_over_its_limit_is_paused_until_a_person_resumes_it() -> None:
    # Under the loss of one session at which promotion demotes, which would end the pause.
    settings = {**EVERYTHING, "max_strategy_drawdown_pct": 3}
    async with virtual_fund(_running("a"), **settings) as world:
        await _live(world)
        world.controller.set("a", equity=960)
        await world.tick()
        assert not world.fund.may_trade("a")
        reason = "drawdown 4.00% reached its limit 3%"
        assert ("pause", "a", reason) in world.controller.calls
        world.controller.set("a", equity=1_000)
        await world.tick()
        assert not world.fund.may_trade("a")
        assert await world.fund.resume("a", by="ann", reason="checked")
        await world.tick()
        assert world.fund.may_trade("a")
        assert not await world.fund.resume("a", by="ann", reason="checked")
        assert not await world.fund.resume("nobody", by="ann", reason="checked")


# -- the engine reports


async def test_fills_and_settlements_are_booked_once_and_after_the_stored_cursor(
    tmp_path: Path,
) -> None:
    engine = _running("a")
    engine.fill_list = [
        Fill("f1", "a", "X", Decimal(10), Decimal(100), Decimal("1.5"), START_US, "1"),
        Fill("f2", "a", "X", Decimal(-10), Decimal(110), Decimal("1.5"), START_US, "2"),
    ]
    engine.settlement_list = [Settlement("s1", "M", "a", Decimal(40), Decimal(100), cursor="1")]
    for _ in range(2):
        async with virtual_fund(engine, db_path=tmp_path / "x.db", **EVERYTHING) as world:
            for _ in range(3):
                assert (await world.fund.tick()).failed == ()
            sheet = await world.fund.ledger.balance_sheet()
            assert (sheet["CASH"], sheet["REALIZED_PNL"], sheet["TRADING_FEES"]) == (
                Decimal(100_157),
                Decimal(-160),
                Decimal(3),
            )
            assert len(await world.fund.ledger.recent_entries()) == 4


async def test_what_a_host_pushes_is_what_the_next_tick_sees() -> None:
    async with Fund.open(_config(), make_worker=_inline, clock=VirtualClock(START_US)) as fund:
        fund.report(StrategyStatus("a", "running"))
        fund.report(StrategyStatus("a", "failed", error="boom"))
        fund.report(StrategyStatus("b", "running"))
        await fund.tick()
        assert (await fund.status()).running_strategies == 1
        with pytest.raises(FundopsError, match="StrategyStatus"):
            fund.report("a is running")  # type: ignore[arg-type]


def _config(**settings: Any) -> FundConfig:
    return FundConfig(**{"total_capital": 100_000, "tick_interval_s": None, **settings})


def _inline(_: str) -> Worker:
    return InlineWorker()


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNDOPS_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda: None,
        lambda: "a",
        lambda: {"a": StrategyStatus("a", "running")},
        lambda: [StrategyStatus(str(number), "running") for number in range(10_001)],
        lambda: 1 / 0,
    ],
)
async def test_an_engine_that_answers_nonsense_fails_one_step_and_is_named_once(
    nonsense: Callable[[], Any],
) -> None:
    class Broken(FakeController):
        def strategies(self) -> Any:
            return nonsense()

    async with virtual_fund(Broken(), **EVERYTHING) as world:
        for _ in range(3):
            assert (await world.fund.tick()).failed == ("engine",)
        assert [one.title for one in world.sent_alerts()] == ["Oversight step engine fails"]


# -- alerts


async def test_an_alert_is_stored_counted_and_read_back() -> None:
    async with virtual_fund(alert_log=True) as world:
        receipt = await world.fund.alerts.send(
            "WARNING", "DRAWDOWN", "Careful", "80% of the limit", strategy="a"
        )
        page = await world.fund.alerts.recent()
        assert [(one.id, one.title, one.strategy) for one in page.alerts] == [
            (receipt.id, "Careful", "a")
        ]
        assert page.by_category == {"DRAWDOWN": 1}


@pytest.mark.parametrize(
    ("level", "category"), [("LOUD", "GENERAL"), ("INFO", "GOSSIP"), ("", ""), (None, "GENERAL")]
)
async def test_a_level_or_category_that_does_not_exist_is_a_value_error(
    level: Any, category: Any
) -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        with pytest.raises(ValueError, match="is not one of"):
            await world.fund.alerts.send(level, category, "a", "b")


async def test_the_sixth_alert_of_a_category_within_a_minute_is_held_back_and_counted() -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        for number in range(7):
            await world.fund.alerts.send("INFO", "GENERAL", str(number), "")
        await world.fund.alerts.send("INFO", "SETTLEMENT", "other", "")
        assert [one.title for one in world.sent_alerts()] == ["0", "1", "2", "3", "4", "other"]
        assert (await world.fund.alerts.recent()).suppressed_by_category == {"GENERAL": 2}


async def test_five_routine_alerts_hide_no_critical_one() -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        for number in range(9):
            await world.fund.alerts.send("INFO", "GENERAL", str(number), "")
        receipt = await world.fund.alerts.send("CRITICAL", "GENERAL", "fire", "")
        assert receipt.outcome.value != "RATE_SUPPRESSED"


async def test_the_webhook_receives_exactly_the_five_documented_keys(
    autojump_clock: trio.testing.MockClock,
) -> None:
    received: list[httpx2.Request] = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        received.append(request)
        return httpx2.Response(204)

    async with virtual_fund(
        alert_webhook_url=WEBHOOK, transport=httpx2.MockTransport(answer)
    ) as world:
        text = "Fund drawdown 15.2% exceeded limit 15.0%"
        await world.fund.alerts.send("CRITICAL", "KILL_SWITCH", "Kill switch activated", text)
        assert await world.fund.flush_alerts(30)
    (request,) = received
    assert str(request.url) == WEBHOOK
    assert json.loads(request.content) == {
        "level": "CRITICAL",
        "category": "KILL_SWITCH",
        "title": "Kill switch activated",
        "message": text,
        "timestamp": "2026-01-05T00:00:00.000000Z",
    }


async def test_a_webhook_that_hangs_holds_nobody_up_and_its_url_is_in_no_log(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang(_: httpx2.Request) -> httpx2.Response:
        await trio.sleep_forever()
        raise AssertionError

    caplog.set_level(logging.DEBUG)
    async with virtual_fund(
        alert_webhook_url=WEBHOOK, ledger_enabled=True, transport=httpx2.MockTransport(hang)
    ) as world:
        begun = trio.current_time()
        for _ in range(4):
            await world.fund.alerts.send("INFO", "GENERAL", "a", "b")
        await world.fund.ledger.deposit(5)
        assert trio.current_time() - begun < 1
        assert not await world.fund.flush_alerts(1)
    assert "services/secret" not in caplog.text
    assert SecretUrl(WEBHOOK).reveal() == WEBHOOK


# -- recovery


async def _fail_for_good(world: VirtualFund, name: str = "a") -> None:
    world.controller.set(name, state="failed", error="ZeroDivisionError")
    world.controller.failures["restart"] = RuntimeError("still broken")
    await world.advance(3_600)


async def test_a_failed_strategy_is_restarted_three_times_and_then_given_up() -> None:
    async with virtual_fund(_running("a"), recovery_every_ticks=1, **EVERYTHING) as world:
        await _fail_for_good(world)
        stats = await world.fund.recovery.stats()
        assert {
            key: stats[key]
            for key in ("total_attempts", "successes", "failures", "circuit_breakers_open")
        } == {
            "total_attempts": 3,
            "successes": 0,
            "failures": 3,
            "circuit_breakers_open": 1,
        }
        assert sum(call[0] == "restart" for call in world.controller.calls) == 3
        assert (await world.fund.status()).breakers_open == 1


async def test_a_reset_by_a_person_lets_recovery_try_again() -> None:
    async with virtual_fund(_running("a"), recovery_every_ticks=1, **EVERYTHING) as world:
        await _fail_for_good(world)
        del world.controller.failures["restart"]
        assert await world.fund.recovery.reset("a") is True
        assert await world.fund.recovery.reset("a") is False
        await world.advance(1_800)
        assert world.controller.statuses["a"].state == "running"
        (status,) = await world.fund.recovery.statuses()
        assert status.phase is RecoveryPhase.HEALTHY
        newest = (await world.fund.recovery.event_history(limit=20))[0]
        assert (newest.action, newest.target) == ("confirmed", "a")
        events = await world.fund.recovery.event_history(limit=20)
        assert "reset" in {one.action for one in events}


async def test_a_reset_of_a_strategy_that_recovery_never_saw_is_refused_by_name() -> None:
    async with virtual_fund(**EVERYTHING) as world:
        with pytest.raises(UnmanagedStrategy, match="nobody"):
            await world.fund.recovery.reset("nobody")
        with pytest.raises(KeyError):
            await world.fund.recovery.hold("nobody")


async def test_a_held_strategy_is_not_restarted_until_it_is_released() -> None:
    async with virtual_fund(_running("a"), recovery_every_ticks=1, **EVERYTHING) as world:
        await world.tick()
        assert await world.fund.recovery.hold("a", by="ann")
        world.controller.set("a", state="failed")
        await world.advance(600)
        assert not [call for call in world.controller.calls if call[0] == "restart"]
        assert await world.fund.recovery.release("a", by="ann")
        await world.advance(600)
        assert world.controller.statuses["a"].state == "running"


async def test_a_feed_that_went_silent_is_named_and_again_when_it_is_back() -> None:
    async with virtual_fund(_running("a"), recovery_every_ticks=1, **EVERYTHING) as world:
        world.controller.feed_statuses = [FeedStatus("prices", START_US)]
        await world.advance(300)
        assert [one.action for one in await world.fund.recovery.check_feeds()] == []
        await world.advance(60)
        assert [one.action for one in await world.fund.recovery.event_history()] == ["stale_feed"]
        world.controller.feed_statuses = [FeedStatus("prices", world.clock.now_us())]
        await world.advance(60)
        assert [one.action for one in await world.fund.recovery.event_history()] == [
            "feed_back",
            "stale_feed",
        ]


# -- what the fund looks like


async def test_the_status_of_a_fund_is_the_documented_one() -> None:
    async with virtual_fund(_running("a", "b"), **EVERYTHING) as world:
        await _live(world)
        world.controller.set("a", realized_pnl=500)
        await world.tick()
        status = await world.fund.status()
        assert status.as_dict() == {
            "running": True,
            "total_capital": Decimal(100_000),
            "nav": status.nav,
            "drawdown_pct": 0.0,
            "high_water_mark": Decimal(100_000),
            "running_strategies": 2,
            "total_fees": status.total_fees,
            "kill_switch": "OFF",
            "mode": "act",
            "strategies_by_stage": {"live-scaled": 1},
            "alerts_24h": 2,
            "breakers_open": 0,
            "ticks": 3,
            "nav_difference": None,
            "clock_suspect": False,
            "data_age_s": 0.0,
            "stale": False,
            "tick_age_s": 0.0,
            "step_failures": {},
        }
        assert status.nav + status.total_fees == 100_500
        world.clock.advance(7)
        status = await world.fund.status()
        assert (status.tick_age_s, status.data_age_s, status.stale) == (7.0, 7.0, False)


async def test_the_alerts_of_a_day_are_counted_and_older_ones_are_not() -> None:
    async with virtual_fund(alert_log=True) as world:
        await world.tick()
        counts = [(await world.fund.status()).alerts_24h]  # that of the start
        for hours in (12, 12, 13):
            await world.fund.alerts.send("INFO", "GENERAL", "t", "m")
            world.clock.advance(hours * 3_600)
            counts.append((await world.fund.status()).alerts_24h)
        assert counts == [1, 2, 1, 1]


async def test_before_its_first_tick_a_fund_is_worth_its_capital() -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        status = await world.fund.status()
        assert (status.nav, status.drawdown_pct, status.ticks) == (Decimal(100_000), 0, 0)
        assert (status.tick_age_s, status.data_age_s) == (None, None)


async def test_every_day_that_ends_leaves_one_line_of_nav_newest_first() -> None:
    async with virtual_fund(_running("a"), management_fee_bps=200, **EVERYTHING) as world:
        await world.advance(3 * DAY_S + 60, step_s=3_600)
        history = await world.fund.nav_history()
        assert [one.session for one in history] == ["2026-01-07", "2026-01-06", "2026-01-05"]
        assert [one.session for one in await world.fund.nav_history(limit=1)] == ["2026-01-07"]
        assert history[0].nav < history[-1].nav < 100_000, "fees accrue"


async def test_fees_are_booked_once_for_each_day_and_never_move_the_nav() -> None:
    async with virtual_fund(_running("a"), management_fee_bps=200, **EVERYTHING) as world:
        await world.tick()
        await world.advance(2 * DAY_S + 60, step_s=3_600)
        kinds = [entry.kind for entry in await world.fund.ledger.recent_entries()]
        assert kinds == ["management_fee", "management_fee", "deposit"]
        a_day = Decimal(100_000) * 2 / 100 / 365
        fees = (await world.fund.ledger.balance_sheet())["MANAGEMENT_FEES"]
        assert fees == pytest.approx(2 * a_day, rel=Decimal("0.001"))
        assert await world.fund.ledger.nav() == 100_000 - fees


async def test_the_tree_lists_every_actor_of_the_fund() -> None:
    async with virtual_fund(alert_log=True, **EVERYTHING) as world:
        tree = world.fund.tree()
        assert [one.name for one in tree] == ["guard", "persistence", "subsystems", "oversight"]
        inner = [one.name for one in tree[2].children]
        assert inner == ["channel.log", "alert", "ledger", "promotion", "recovery"]
        assert {one.state for one in (*tree, *tree[2].children)} == {"running"}


# -- drills


@pytest.mark.parametrize("actor", ACTORS)
async def test_an_actor_that_crashes_comes_back_and_nothing_is_lost(
    actor: str, autojump_clock: trio.testing.MockClock
) -> None:
    engine = _running("a")
    async with virtual_fund(engine, recovery_every_ticks=1, **EVERYTHING) as world:
        fund = world.fund
        await _live(world)
        await _fail_for_good(world)
        await fund.ledger.deposit(5)
        before = (
            await fund.ledger.trial_balance(),
            await fund.promotion.strategies(),
            await fund.recovery.stats(),
        )
        alerts = world.sent_alerts()
        fund.drill(actor)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(1)
        assert (await fund.tick()).failed == ()
        after = (
            await fund.ledger.trial_balance(),
            await fund.promotion.strategies(),
            await fund.recovery.stats(),
        )
        assert after == before
        told = [alert for alert in world.sent_alerts() if alert not in alerts]
        assert [alert.title for alert in told] == [
            f"Actor {actor} crashed",
            f"Actor {actor} runs again",
        ]
        await fund.ledger.deposit(7)
        await fund.promotion.register("b")
        assert (await fund.alerts.send("INFO", "GENERAL", "still here", "")).id > 0
        assert await fund.recovery.reset("a")
        assert (await fund.ledger.balance_sheet())["CASH"] == 100_012
        assert sum((await fund.ledger.trial_balance()).values()) == 0
        assert (fund.may_trade("a"), fund.may_close("a")) == (False, True), "it failed"
        assert (await fund.tick()).failed == ()
        crashed = {one.name: one for top in fund.tree() for one in (top, *top.children)}[actor]
        assert (crashed.restarts, crashed.state) == (1, "running")
        assert "drill" in (crashed.last_crash or "")


@pytest.mark.parametrize("actor", ACTORS)
async def test_calls_that_are_waiting_while_their_actor_crashes_are_all_answered(
    actor: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with virtual_fund(_running("a"), **EVERYTHING) as world:
        fund = world.fund
        await fund.promotion.register("a")
        answers: list[str] = []

        async def deposit(number: int) -> None:
            key = f"deposit-{number}"
            try:
                await fund.ledger.deposit(1, key=key)
            except FundopsError as error:
                answers.append(type(error).__name__)
                await trio.sleep(1)
                await fund.ledger.deposit(
                    1, key=key
                )  # asking again with the same key is always safe
            else:
                answers.append("booked")

        async with trio.open_nursery() as nursery:
            fund.drill(actor)
            for number in range(20):
                nursery.start_soon(deposit, number)
        assert len(answers) == 20
        await trio.sleep(1)
        assert (await fund.ledger.balance_sheet())["CASH"] == 100_020
        assert (await fund.tick()).failed == ()


@pytest.mark.parametrize("actor", ACTORS)
async def test_a_kill_switch_and_a_pause_outlive_the_crash_of_any_actor(
    actor: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with virtual_fund(_running("a", "b"), **EVERYTHING) as world:
        await _live(world)
        await _live(world, "b")
        world.controller.set("b", equity=700)
        await world.tick()
        world.controller.set("b", equity=1_000)
        await world.tick()
        world.fund.drill(actor)
        await trio.sleep(1)
        await world.tick()
        assert (world.fund.may_trade("a"), world.fund.may_trade("b")) == (True, False)
        await world.fund.kill_switch.engage(reason="test", by="ann")
        world.fund.drill(actor)
        await trio.sleep(1)
        await world.tick()
        assert (await world.fund.kill_switch.status()).state == "ENGAGED"
        assert not world.fund.may_trade("a")


async def test_a_drill_of_nobody_is_refused_with_the_names_there_are() -> None:
    async with virtual_fund() as world:
        with pytest.raises(UnknownChild, match="guard, persistence, oversight"):
            world.fund.drill("nobody")


# -- another day


async def test_a_restart_of_the_whole_fund_keeps_books_stages_breakers_and_the_kill_switch(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {
        **EVERYTHING,
        "db_path": tmp_path / "x.db",
        "recovery_every_ticks": 1,
    }
    engine, clock = _running("a", "b"), VirtualClock(START_US)
    async with virtual_fund(engine, clock=clock, **settings) as world:
        await _golden_script(world.fund)
        await _live(world)
        await world.fund.promotion.register("b", PromotionStage.Shadow)
        await _fail_for_good(world)
        await world.fund.kill_switch.engage(reason="good night", by="ann")
        await world.tick()
        before = (
            await world.fund.ledger.trial_balance(),
            await world.fund.ledger.recent_entries(),
            await world.fund.promotion.strategies(),
            await world.fund.promotion.history(),
            await world.fund.recovery.stats(),
            await world.fund.recovery.event_history(),
            await world.fund.kill_switch.status(),
            (await world.fund.alerts.recent()).alerts,
        )
        nav, statuses = (await world.fund.status()).nav, await world.fund.recovery.statuses()
    async with virtual_fund(engine, clock=clock, **settings) as world:
        after = (
            await world.fund.ledger.trial_balance(),
            await world.fund.ledger.recent_entries(),
            await world.fund.promotion.strategies(),
            await world.fund.promotion.history(),
            await world.fund.recovery.stats(),
            await world.fund.recovery.event_history(),
            await world.fund.kill_switch.status(),
            (await world.fund.alerts.recent()).alerts,
        )
        assert after == before
        assert not world.fund.may_trade("a")
        await world.tick()
        assert not world.fund.may_trade("a")
        assert (await world.fund.status()).kill_switch == "ENGAGED"
        assert (await world.fund.status()).nav == pytest.approx(nav, abs=Decimal("0.01"))
        assert await world.fund.recovery.statuses() == statuses


async def test_the_opening_deposit_is_made_once_in_a_funds_life(tmp_path: Path) -> None:
    clock = VirtualClock(START_US)
    for number in range(3):
        async with virtual_fund(
            ledger_enabled=True, clock=clock, db_path=tmp_path / "x.db"
        ) as world:
            assert len(await world.fund.ledger.recent_entries()) == 1 + number
            clock.advance(DAY_S)
            await world.fund.ledger.deposit(1)


async def test_a_released_kill_switch_stays_released_over_a_restart(tmp_path: Path) -> None:
    clock, engine = VirtualClock(START_US), _running("a")
    async with virtual_fund(engine, clock=clock, db_path=tmp_path / "x.db", **EVERYTHING) as world:
        await _live(world)
        await world.fund.kill_switch.engage(reason="test", by="ann")
        await world.tick()
        await world.fund.kill_switch.release(by="ann", reason="all is well")
    async with virtual_fund(engine, clock=clock, db_path=tmp_path / "x.db", **EVERYTHING) as world:
        assert (await world.fund.kill_switch.status()).state == "OFF"
        world.controller.set("a", state="running")  # a person starts it
        await world.tick()
        assert world.fund.may_trade("a")


async def test_a_kill_switch_whose_marker_cannot_be_read_counts_as_engaged(tmp_path: Path) -> None:
    (tmp_path / "x.db.kill").write_text("{half a")
    async with virtual_fund(_running("a"), db_path=tmp_path / "x.db") as world:
        assert (await world.fund.kill_switch.status()).state != "OFF"
        await world.tick()
        await trio.testing.wait_all_tasks_blocked()  # the report comes beside the tick
        assert (await world.fund.kill_switch.status()).state == "ENGAGED", "by the engine's report"
        assert not world.fund.may_trade("a")


async def test_the_same_inputs_and_seed_make_the_same_database_twice(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        async with virtual_fund(
            _running("s"), db_path=tmp_path / f"{name}.db", **EVERYTHING
        ) as world:
            await world.fund.promotion.register("s")
            await world.fund.ledger.deposit(5, key="k")
            await world.advance(2 * DAY_S, step_s=3_600)
        with open_reader(tmp_path / f"{name}.db") as reader:
            contents.append(
                (
                    reader.meta(),
                    reader.recent_entries(100),
                    reader.promotion_history(),
                    reader.stages(),
                )
            )
    assert contents[0] == contents[1]


# -- the token of the stream


async def test_the_token_is_made_once_kept_for_its_owner_alone_and_used_again(
    tmp_path: Path,
) -> None:
    tokens = set()
    for _ in range(2):
        async with virtual_fund(db_path=tmp_path / "x.db", status_port=0) as world:
            assert await world.fund.status_port() > 0
            tokens.add(world.fund.status_token)
    (token,) = tokens
    file = tmp_path / "x.db.token"
    assert len(token) >= 32
    assert file.read_text() == token
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_token_of_ones_own_is_not_written_to_disk(tmp_path: Path) -> None:
    async with virtual_fund(db_path=tmp_path / "x.db", status_port=0, status_token="mine") as world:
        assert world.fund.status_token == "mine"
    assert not (tmp_path / "x.db.token").exists()


async def test_an_empty_token_file_is_not_taken_for_a_token(tmp_path: Path) -> None:
    """An empty token file, left by a crash before it was filled, must not admit every client."""
    (tmp_path / "x.db.token").touch(mode=0o600)
    async with virtual_fund(db_path=tmp_path / "x.db", status_port=0) as world:
        assert len(world.fund.status_token) >= 32
