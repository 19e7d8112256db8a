"""Type-checked, not run: the package as its host uses it. A line marked as an error must be one."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, assert_type

from fundops import (
    AlertSettings,
    AsyncioFund,
    Controller,
    Criterion,
    Entitlement,
    Fund,
    FundConfig,
    FundManager,
    FundopsError,
    FundReader,
    InsufficientFunds,
    KillStatus,
    Leg,
    Level,
    Posted,
    PromotionGate,
    PromotionManager,
    PromotionStage,
    RecoveryEvent,
    StrategyStatus,
    VirtualClock,
    open_reader,
)
from fundops.runtime import ChildStatus
from fundops.testing import FakeController, VirtualFund, virtual_fund
from fundops.wire.alert import AlertPage, AlertReceipt, AlertRecord
from fundops.wire.errors import GateNotPassed
from fundops.wire.ledger import Deposit, Entry
from fundops.wire.oversight import FundStatus, NavSample, TickReport
from fundops.wire.promotion import Evaluation, HistoryEntry, PromotionSnapshot, Transition
from fundops.wire.recovery import RecoveryStatus
from fundops.wire.why import Blocker, Why


class Engine:
    """The required part of a controller."""

    def strategies(self) -> Sequence[StrategyStatus]:
        return [StrategyStatus("mm", "running", realized_pnl=1_500)]


class Silent:
    """No controller: it reports no strategies."""


def a_misspelt_name_is_found() -> None:
    from fundops import FundManger  # error: attr-defined

    assert FundManger


def configured() -> FundConfig:
    config = FundConfig(
        total_capital=Decimal(100_000),
        db_path=Path("fund.db"),
        ledger_enabled=True,
        alerts=AlertSettings(per_category=5),
    )
    assert_type(config.name, str)
    assert_type(config.ledger_enabled, bool)
    assert_type(config.path, Path)
    assert_type(config.tick_interval_s, float | None)
    FundConfig()  # error: call-arg
    FundConfig(total_capital=[1])  # error: arg-type
    FundConfig(total_capital=1, total_kapital=2)  # error: call-arg
    FundConfig(total_capital=1, ledger_enabled="yes")  # error: arg-type
    config.name = "other"  # error: misc
    config.ledger_enable  # error: attr-defined
    return config


async def a_fund_is_opened(engine: Controller) -> None:
    async with Fund.open(configured(), engine) as fund:
        assert_type(fund, Fund)
        assert_type(await fund.tick("2026-01-05"), TickReport)
        assert_type(await fund.status(), FundStatus)
        assert_type((await fund.status()).nav, Decimal)
        assert_type(await fund.nav_history(), tuple[NavSample, ...])
        assert_type(fund.tree(), tuple[ChildStatus, ...])
        assert_type(fund.may_trade("mm"), bool)
        assert_type(fund.entitlement("mm"), Entitlement)
        assert_type(
            fund.entitlement("mm").mode, Literal["paper", "shadow", "live", "reduce", "none"]
        )
        fund.report(StrategyStatus("mm", "running"))
        fund.report("mm")  # error: arg-type
        fund.report(StrategyStatus("mm", "sleeping"))  # error: arg-type
        fund.may_trade()  # error: call-arg
        fund.treasury  # error: attr-defined
        assert_type(await fund.why("mm"), Why)
        assert_type(await fund.pause("mm", by="ann", reason="night"), bool)
        await fund.pause("mm", by="ann")  # error: call-arg
        await fund.resume("mm", by="ann")  # error: call-arg
    Fund.open(configured(), Engine(), clock=VirtualClock(0))
    Fund.open(configured(), Silent())  # error: arg-type
    Fund.open(configured(), clock=3.5)  # error: arg-type
    Fund.open()  # error: call-arg


async def the_ledger_is_typed(fund: Fund) -> None:
    assert_type(await fund.ledger.deposit("2500.50", key="k"), Posted)
    assert_type(await fund.ledger.record_profit(Decimal(5), strategy="mm"), Posted)
    assert_type(await fund.ledger.open_position("AAPL", quantity=5, cost=100), Posted)
    assert_type(await fund.ledger.post([Leg("CASH", 5), Leg("EXTERNAL", -5)]), Posted)
    assert_type(await fund.ledger.post_many([Deposit(5)]), tuple[Posted, ...])
    assert_type(await fund.ledger.balance_sheet("2026-01-05"), dict[str, Decimal])
    assert_type(await fund.ledger.nav(), Decimal)
    assert_type(await fund.ledger.recent_entries(), tuple[Entry, ...])
    assert_type(fund.ledger.new_key(), str)
    try:
        await fund.ledger.withdraw(10**9)
    except InsufficientFunds as refused:
        assert_type(refused.available, Decimal)
    await fund.ledger.deposite(5)  # error: attr-defined
    await fund.ledger.deposit()  # error: call-arg
    await fund.ledger.deposit([5])  # error: arg-type
    await fund.ledger.deposit(5, "k")  # error: call-arg
    await fund.ledger.deposit(5, memo=None)  # error: arg-type
    await fund.ledger.reverse(1)  # error: call-arg
    (await fund.ledger.deposit(5)).sequence  # error: attr-defined
    in_floats: dict[str, float] = await fund.ledger.balance_sheet()  # error: assignment
    assert in_floats


async def the_promotion_is_typed(fund: Fund) -> None:
    strategy_id = await fund.promotion.register("mm")
    assert_type(strategy_id, str)
    assert_type(await fund.promotion.evaluate(strategy_id), Evaluation)
    assert_type(await fund.promotion.promote(strategy_id, by="ann"), Transition)
    assert_type(await fund.promotion.current_stage(strategy_id), PromotionStage)
    assert_type(await fund.promotion.snapshot(strategy_id), PromotionSnapshot)
    assert_type(await fund.promotion.history(), tuple[HistoryEntry, ...])
    try:
        await fund.promotion.promote(strategy_id, to=PromotionStage.Shadow)
    except GateNotPassed as refused:
        assert_type(refused.evaluation, Evaluation)
    await fund.promotion.promote("mm", stage=PromotionStage.Shadow)  # error: call-arg
    await fund.promotion.promote(strategy_id, to="shadow")  # error: arg-type
    await fund.promotion.adopt("mm", PromotionStage.Live)  # error: call-arg
    await fund.promotion.promot(strategy_id)  # error: attr-defined


async def the_other_doors_are_typed(fund: Fund) -> None:
    assert_type(await fund.alerts.send("WARNING", "GENERAL", "title", "text"), AlertReceipt)
    assert_type(await fund.alerts.send(Level.CRITICAL, "GENERAL", "title", "text"), AlertReceipt)
    assert_type(await fund.alerts.recent(), AlertPage)
    assert_type(await fund.recovery.reset("mm", by="ann"), bool)
    assert_type(await fund.recovery.statuses(), tuple[RecoveryStatus, ...])
    assert_type(await fund.recovery.event_history(), list[RecoveryEvent])
    assert_type(await fund.recovery.stats(), dict[str, int])
    assert_type(await fund.kill_switch.engage(reason="fire", by="ann"), KillStatus)
    assert_type((await fund.kill_switch.status()).at_us, int | None)
    await fund.alerts.send("WARNING", "GENERAL", "title")  # error: call-arg
    await fund.alerts.send(3, "GENERAL", "title", "text")  # error: arg-type
    await fund.recovery.reset("mm", "ann")  # error: call-arg
    await fund.kill_switch.engage("fire", "ann")  # error: call-arg
    await fund.kill_switch.engaged()  # error: attr-defined


def the_synchronous_fund_is_typed(engine: Controller) -> None:
    with FundManager(configured(), engine) as manager:
        assert_type(manager, FundManager)
        assert_type(manager.tick(), TickReport)
        assert_type(manager.status(), FundStatus)
        assert_type(manager.running, bool)
        assert_type(manager.tree(), tuple[ChildStatus, ...])
        assert_type(manager.entitlement("mm"), Entitlement)
        manager.report(StrategyStatus("mm", "running"))
        manager.report("mm")  # error: arg-type
        assert_type(manager.why("mm").blockers, tuple[Blocker, ...])
        assert_type(manager.pause("mm", by="ann", reason="night"), bool)
        manager.resume("mm", by="ann")  # error: call-arg
        assert_type(manager.ledger.deposit("5", key="k"), Posted)
        assert_type(manager.ledger.balance_sheet(), dict[str, Decimal])
        assert_type(manager.ledger.new_key(), str)
        assert_type(manager.recovery.stats(), dict[str, int])
        assert_type(manager.promotion.promote("mm", by="ann"), Transition)
        assert_type(manager.kill_switch.status(), KillStatus)
        manager.stopp()  # error: attr-defined
        manager.ledger.no_such(1)  # error: attr-defined
        manager.ledger.deposit()  # error: call-arg
        manager.ledger.deposit("5", note="x")  # error: call-arg
        manager.alerts.send(3, "GENERAL", "title", "text")  # error: arg-type
    FundManager(configured(), Silent())  # error: arg-type
    FundManager()  # error: call-arg


async def the_fund_on_asyncio_is_typed(engine: Controller) -> None:
    async with AsyncioFund.open(configured(), engine) as fund:
        assert_type(fund, AsyncioFund)
        assert_type(await fund.tick(), TickReport)
        assert_type(await fund.status(), FundStatus)
        assert_type(fund.may_trade("mm"), bool)
        assert_type(fund.entitlement("mm"), Entitlement)
        assert_type(await fund.ledger.deposit("5", key="k"), Posted)
        assert_type(await fund.ledger.nav(), Decimal)
        assert_type(fund.ledger.new_key(), str)
        assert_type(await fund.kill_switch.engage(reason="fire", by="ann"), KillStatus)
        assert_type((await fund.why("mm")).blockers, tuple[Blocker, ...])
        fund.report(StrategyStatus("mm", "running"))
        fund.report("mm")  # error: arg-type
        await fund.ledger.no_such(1)  # error: attr-defined
        await fund.ledger.deposit("5", note="x")  # error: call-arg
        await fund.recovery.reset("mm", "ann")  # error: call-arg
        await fund.stop()  # error: attr-defined
    AsyncioFund.open(configured(), Silent())  # error: arg-type
    AsyncioFund.open()  # error: call-arg


def the_promotion_alone_is_typed() -> None:
    manager = PromotionManager("promotion.db")
    assert_type(manager.register("mm", PromotionStage.Paper), str)
    assert_type(manager.should_promote("mm"), bool)
    assert_type(manager.promote("mm"), Transition)
    assert_type(manager.snapshot("mm").stage, PromotionStage)
    assert_type(manager.entitlement("mm"), Entitlement)
    manager.add_gate(PromotionGate(PromotionStage.Paper, (Criterion("t", "n_trades", ">=", 1),)))
    Criterion("t", 5, ">=", 1)  # error: arg-type
    Criterion("t", "n_trades", ">=")  # error: call-arg
    manager.register(5)  # error: arg-type
    manager.require("mm")  # error: call-arg
    manager.promoted("mm")  # error: attr-defined


def a_reader_is_typed() -> None:
    with open_reader("fund.db") as reader:
        assert_type(reader, FundReader)
        assert_type(reader.balance_sheet(), dict[str, Decimal])
        assert_type(reader.recent_entries(5), tuple[Entry, ...])
        assert_type(reader.recent_alerts(), AlertPage)
        assert_type(reader.stages(), dict[str, PromotionStage])
        assert_type(reader.verify().ok, bool)
        reader.deposit(5)  # error: attr-defined
        reader.recent_entries("5")  # error: arg-type
    open_reader()  # error: call-arg


async def the_tests_of_a_host_are_typed() -> None:
    controller = FakeController(StrategyStatus("mm", "running"))
    as_a_host_sees_it: Controller = controller
    assert_type(controller.calls, list[tuple[Any, ...]])
    async with virtual_fund(controller, ledger_enabled=True) as world:
        assert_type(world, VirtualFund)
        assert_type(world.fund, Fund)
        assert_type(await world.tick(), TickReport)
        assert_type(world.sent_alerts(), list[AlertRecord])
        await world.advance("an hour")  # error: arg-type
        await world.advance()  # error: call-arg
        world.wait(5)  # error: attr-defined
    virtual_fund(Silent())  # error: arg-type
    assert as_a_host_sees_it


def every_refusal_has_one_root(refusal: InsufficientFunds | GateNotPassed) -> FundopsError:
    return refusal
