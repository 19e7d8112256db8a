"""FundManager: the same fund for code that is not async, from any thread."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
import trio.lowlevel

from fundops import (
    ConfigError,
    DatabaseInUse,
    Fund,
    FundConfig,
    FundManager,
    InsufficientFunds,
    RecoveryEvent,
    StrategyStatus,
    SubsystemDisabled,
    VirtualClock,
)
from fundops.bridge import Bridge
from fundops.doors import AlertDoor, KillSwitchDoor, LedgerDoor, PromotionDoor, RecoveryDoor
from fundops.errors import FundClosed, FundNotRunning
from fundops.runtime import SupervisorEscalated
from fundops.testing import START_US, FakeController

DEADLINE_S = 30
DOORS = {
    "ledger": LedgerDoor,
    "promotion": PromotionDoor,
    "alerts": AlertDoor,
    "recovery": RecoveryDoor,
    "kill_switch": KillSwitchDoor,
}
EVERYTHING: dict[str, Any] = {
    "ledger_enabled": True,
    "promotion_enabled": True,
    "self_healing_enabled": True,
}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNDOPS_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def _no_thread_stays_behind() -> Iterator[None]:
    yield
    assert [one.name for one in threading.enumerate() if one.name == "fundops"] == []


def _config(**settings: Any) -> FundConfig:
    return FundConfig(**{"total_capital": 100_000, "tick_interval_s": None, **settings})


# -- as in the documentation


def test_the_examples_of_the_documentation_work_as_they_are_written() -> None:
    fund = FundManager(FundConfig(total_capital=100_000, ledger_enabled=True))
    fund.start()
    fund.ledger.record_profit(2_000)
    fund.ledger.record_loss(500)
    fund.ledger.withdraw(1_500)
    fund.ledger.open_position("X", quantity=50, cost=5_000)
    fund.ledger.charge_management_fee(200)
    fund.ledger.charge_performance_fee(100)
    bs = fund.ledger.balance_sheet()
    assert bs["CASH"] == 95000.0
    assert bs["POSITIONS"] == 5000.0
    assert bs["MANAGEMENT_FEES"] == 200.0
    inc = fund.ledger.income_statement()
    assert inc == {
        "REALIZED_PNL": 1500.0,
        "UNREALIZED_PNL": 0,
        "MANAGEMENT_FEES": -200.0,
        "PERFORMANCE_FEES": -100.0,
    }
    entries = fund.ledger.recent_entries(limit=20)
    assert len(entries) == 7
    fund.stop()


def test_the_recovery_examples_of_the_documentation_work_as_they_are_written() -> None:
    engine = FakeController(StrategyStatus("political_mm", "failed", error="boom"))
    with FundManager(_config(self_healing_enabled=True), engine) as fund:
        fund.tick()
        while not fund.recovery.stats()["successes"]:  # the engine is called in a thread
            fund.recovery.check_strategies()
        (event,) = (
            one for one in fund.recovery.event_history(limit=20) if one.action == "restart_strategy"
        )
        assert isinstance(event, RecoveryEvent)
        assert (event.target, event.success, event.attempt, event.error) == (
            "political_mm",
            True,
            1,
            None,
        )
        stats = fund.recovery.stats()
        assert {"total_attempts", "successes", "failures", "circuit_breakers_open"} <= stats.keys()
        assert stats["total_attempts"] == stats["successes"] + stats["failures"] == 1
        assert fund.recovery.reset("political_mm") is False


def test_the_webhook_example_of_the_documentation_delivers() -> None:
    received = threading.Event()

    async def answer(_: httpx2.Request) -> httpx2.Response:
        received.set()
        return httpx2.Response(204)

    config = FundConfig(
        total_capital=100_000, alert_webhook_url="https://hooks.slack.com/services/T/B/X"
    )
    with FundManager(config, transport=httpx2.MockTransport(answer)) as fund:
        fund.alerts.send(
            "CRITICAL", "KILL_SWITCH", "Kill switch activated", "15.2% exceeded limit 15.0%"
        )
        assert received.wait(DEADLINE_S)


def test_a_fund_is_started_in_the_home_folder_and_ticks_by_itself() -> None:
    ticked = threading.Event()

    class Watched(FakeController):
        def strategies(self) -> list[StrategyStatus]:
            ticked.set()
            return super().strategies()

    with FundManager(FundConfig(total_capital=100_000, tick_interval_s=0.01), Watched()) as fund:
        assert ticked.wait(DEADLINE_S)
        assert fund.config.path.is_file()


# -- starting and stopping


def test_what_may_not_wait_starts_no_fund_and_says_that_none_runs() -> None:
    fund = FundManager(_config(ledger_enabled=True))
    calls: list[Callable[[], Any]] = [
        fund.tree,
        fund.ledger.new_key,
        lambda: fund.entitlement("a"),
        lambda: fund.report(StrategyStatus("a", "running")),
    ]
    for call in calls:
        with pytest.raises(FundNotRunning, match="start"):
            call()
    assert not fund.may_trade("a")
    assert not fund.may_close("a")
    assert not fund.running
    fund.stop()


def test_starting_twice_and_stopping_twice_is_the_same_as_once() -> None:
    fund = FundManager(_config(ledger_enabled=True))
    fund.start()
    fund.start()
    assert fund.running
    assert len(fund.ledger.recent_entries()) == 1
    fund.stop()
    fund.stop()
    assert not fund.running
    with pytest.raises(FundNotRunning):
        fund.status()


def test_a_stopped_fund_can_be_started_again_and_remembers() -> None:
    fund = FundManager(_config(ledger_enabled=True))
    for number in range(3):
        with fund:
            assert fund.ledger.balance_sheet()["CASH"] == 100_000 + number
            fund.ledger.deposit(1)


def test_what_keeps_a_fund_from_starting_is_raised_by_start() -> None:
    with FundManager(_config(name="a")):
        second = FundManager(_config(name="a"))
        with pytest.raises(DatabaseInUse, match="this process"):
            second.start()
        assert not second.running
        second.stop()
    wrong = FundManager(FundConfig(total_capital=5, name="a"))
    with pytest.raises(ConfigError, match="total_capital"):
        wrong.start()
    with FundManager(_config(name="a")):
        pass


def test_a_start_that_failed_can_be_tried_again() -> None:
    second = FundManager(_config(name="a"))
    with FundManager(_config(name="a")), pytest.raises(DatabaseInUse):
        second.start()
    second.start()
    assert second.running
    second.stop()


def test_an_error_in_the_block_comes_out_and_the_fund_is_stopped() -> None:
    fund = FundManager(_config())
    with pytest.raises(ValueError, match="mine"), fund:
        raise ValueError("mine")
    assert not fund.running


def test_a_fund_that_died_and_an_error_in_the_block_do_not_hide_each_other() -> None:
    """The caller sees the error of the block; the death of the fund is chained or noted."""
    with pytest.raises(ValueError, match="mine") as caught, FundManager(_config()) as fund:  # noqa: PT012
        _kill(fund)
        raise ValueError("mine")
    assert any("gave up" in note for note in caught.value.__notes__)


def test_stop_waits_no_longer_than_it_was_told_to() -> None:
    class Slow(FakeController):
        def __init__(self) -> None:
            super().__init__()
            self.entered, self.go_on = threading.Event(), threading.Event()

        def strategies(self) -> list[StrategyStatus]:
            self.entered.set()
            self.go_on.wait(DEADLINE_S)
            return []

    engine = Slow()
    fund = FundManager(_config(tick_interval_s=0.01), engine)
    fund.start()
    assert engine.entered.wait(DEADLINE_S)
    with pytest.raises(TimeoutError, match="did not stop"):
        fund.stop(timeout_s=0.01)
    engine.go_on.set()
    fund.stop()
    assert not fund.running


def test_a_program_that_forgets_to_stop_still_ends(tmp_path: Path) -> None:
    program = (
        "from fundops import FundManager, FundConfig\n"
        "fund = FundManager(FundConfig(total_capital=5, ledger_enabled=True))\n"
        "fund.start()\nprint(fund.ledger.balance_sheet()['CASH'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env={**os.environ, "FUNDOPS_HOME": str(tmp_path)},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Decimal(done.stdout.strip()) == 5
    assert (tmp_path / "fund.db.lock").read_text() == "", "it was closed in order at exit"


def test_ctrl_c_in_the_main_thread_stops_the_fund_in_order(tmp_path: Path) -> None:
    program = (
        "import time\nfrom fundops import FundManager, FundConfig\n"
        "with FundManager(FundConfig(total_capital=5, ledger_enabled=True)):\n"
        "    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    environment = {**os.environ, "FUNDOPS_HOME": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "FundClosed" not in errors
    assert not (tmp_path / "fund.db-wal").exists()


# -- calling


def test_refusals_reach_the_caller_as_they_are() -> None:
    with FundManager(_config(ledger_enabled=True)) as fund:
        with pytest.raises(InsufficientFunds) as caught:
            fund.ledger.withdraw(10**6)
        assert caught.value.available == 100_000
        with pytest.raises(SubsystemDisabled, match="promotion_enabled=True"):
            fund.promotion.register("a")
        with pytest.raises(ValueError, match="amount"):
            fund.ledger.deposit(-1)
        with pytest.raises(TypeError, match="deposit"):
            fund.ledger.deposit()  # type: ignore[call-arg]
        assert fund.ledger.balance_sheet()["CASH"] == 100_000


def test_many_threads_may_call_at_once_and_every_deposit_counts() -> None:
    with FundManager(_config(ledger_enabled=True)) as fund, ThreadPoolExecutor(16) as pool:
        posted = list(pool.map(lambda _: fund.ledger.deposit(1), range(200)))
        assert len({one.seq for one in posted}) == 200
        assert fund.ledger.balance_sheet()["CASH"] == 100_200


def test_threads_that_are_waiting_when_the_fund_stops_are_told() -> None:
    entered = threading.Event()
    outcome: list[str] = []

    async def wait(_: Fund) -> None:
        entered.set()
        await trio.sleep_forever()

    def call() -> None:
        try:
            fund._bridge.call(wait)
        except FundClosed as closed:
            outcome.append(str(closed))

    fund = FundManager(_config())
    fund.start()
    thread = threading.Thread(target=call)
    thread.start()
    assert entered.wait(DEADLINE_S)
    fund.stop()
    thread.join(DEADLINE_S)
    assert outcome == ["the fund stopped during the call"]


def test_a_call_from_the_funds_own_thread_is_refused_and_not_a_deadlock() -> None:
    refused: list[str] = []
    tried = threading.Event()

    def nested(_: httpx2.Request) -> httpx2.Response:
        try:
            fund.status()
        except FundNotRunning as error:
            refused.append(str(error))
        tried.set()
        return httpx2.Response(204)

    config = _config(alert_webhook_url="https://hooks.slack.com/services/T/B/X")
    fund = FundManager(config, transport=httpx2.MockTransport(nested))
    with fund:
        fund.alerts.send("INFO", "GENERAL", "t", "")
        assert tried.wait(DEADLINE_S)
    assert "own thread" in refused[0]


def test_a_part_may_ask_the_fund_while_the_fund_awaits_it() -> None:
    heard: list[int] = []
    asked = threading.Event()

    class Nested(FakeController):
        def strategies(self) -> list[StrategyStatus]:
            heard.append(fund.status().ticks)
            asked.set()
            return []

    fund = FundManager(_config(), Nested())
    with fund:
        fund.tick()
        assert asked.wait(DEADLINE_S)
    assert heard == [1]


def test_reports_and_entitlement_need_no_waiting_and_work_from_any_thread() -> None:
    clock = VirtualClock(START_US)
    with FundManager(_config(), clock=clock) as fund, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: fund.report(StrategyStatus(name, "running")), "abcdefgh"))
        fund.tick()
        assert fund.status().running_strategies == 8
        assert list(pool.map(fund.may_trade, "ah?")) == [True, True, False]
        assert fund.entitlement("a").capital == 100_000
        clock.advance(31)
        assert not fund.may_trade("a")
    assert not fund.may_trade("a")


def test_every_method_of_the_fund_as_a_whole_answers() -> None:
    engine = FakeController(StrategyStatus("a", "running"))
    with FundManager(_config(status_port=0, **EVERYTHING), engine) as fund:
        assert fund.tick("2026-01-05").failed == ()
        assert [one.session for one in fund.nav_history()] == ["2026-01-05"]
        assert fund.tick().number == 2
        assert fund.status_port() > 0
        assert len(fund.status_token) >= 32
        assert fund.flush_alerts(DEADLINE_S)
        assert {one.name for one in fund.tree()} >= {"guard", "persistence", "oversight"}
        assert fund.kill_switch.engage(reason="test", by="ann").state == "ENGAGING"
        fund.tick()
        assert fund.kill_switch.status().by == "ann"
        assert fund.kill_switch.release(by="ann", reason="done").state == "OFF"
        assert fund.resume("a", by="ann", reason="checked") is False
        fund.drill("ledger")
        assert fund.ledger.balance_sheet()["CASH"] == 100_000
        assert fund.promotion.current_stage(fund.promotion.register("a")).value == "paper"


# -- parity


@pytest.mark.parametrize("part", DOORS)
def test_each_sync_door_has_the_names_and_signatures_of_its_async_one(part: str) -> None:
    door = getattr(FundManager(_config()), part)
    expected = {name for name in dir(DOORS[part]) if not name.startswith("_")}
    assert {name for name in dir(door) if not name.startswith("_")} == expected
    for name in expected:
        method, call = getattr(DOORS[part], name), getattr(door, name)
        wanted = list(inspect.signature(method).parameters.values())[1:]
        assert list(inspect.signature(call).parameters.values()) == wanted, name
        assert (
            inspect.signature(call).return_annotation == inspect.signature(method).return_annotation
        )
        assert (call.__name__, call.__doc__) == (name, method.__doc__)
        assert not inspect.iscoroutinefunction(call)


# A block opens and closes Fund, two calls FundManager; a field of Fund is a property here.
ASYNC_ONLY = {"open"}
SYNC_ONLY = {"start", "stop", "running", "status_token", "wait", "now"}


def test_the_sync_fund_offers_what_the_async_one_offers() -> None:
    offered = {name for name in dir(Fund) if not name.startswith("_")} - ASYNC_ONLY
    sync = {name for name in dir(FundManager) if not name.startswith("_")} - SYNC_ONLY
    assert sync == offered
    for name in offered:
        ours, theirs = getattr(Fund, name), getattr(FundManager, name)
        assert list(inspect.signature(theirs).parameters) == list(
            inspect.signature(ours).parameters
        ), name


def test_a_method_that_does_not_exist_is_an_attribute_error() -> None:
    fund = FundManager(_config())
    with pytest.raises(AttributeError, match="balance_shit"):
        fund.ledger.balance_shit  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        fund.ledger._ask  # type: ignore[attr-defined]


# -- from an event loop


def test_a_call_from_a_running_event_loop_warns_once_by_name() -> None:
    fund = FundManager(_config(ledger_enabled=True))

    async def host() -> None:
        with pytest.warns(RuntimeWarning, match=r"FundManager\.ledger\.balance_sheet blocks"):
            fund.ledger.balance_sheet()
        fund.status()  # warnings are errors here: a second one would fail

    asyncio.run(host())
    fund.stop()


def test_what_waits_for_nothing_gives_no_warning_in_an_event_loop() -> None:
    with FundManager(_config()) as fund:

        async def host() -> None:
            fund.report(StrategyStatus("a", "running"))
            assert not fund.may_trade("nosuch")

        asyncio.run(host())


# -- the first use


def test_the_first_call_starts_a_fund_that_was_not_started() -> None:
    fund = FundManager(_config(ledger_enabled=True))
    assert fund.ledger.balance_sheet()["CASH"] == 100_000
    assert fund.running
    fund.stop()
    with pytest.raises(FundNotRunning, match="call start"):
        fund.ledger.balance_sheet()


def test_two_threads_that_use_it_first_start_it_once() -> None:
    fund = FundManager(_config(ledger_enabled=True))
    with ThreadPoolExecutor(8) as threads:
        sheets = list(threads.map(lambda _: fund.ledger.balance_sheet(), range(8)))
    assert {sheet["CASH"] for sheet in sheets} == {100_000}
    fund.stop()


# -- when it breaks


def _kill(fund: FundManager) -> None:
    """Crash the guard until its supervisor gives up."""

    async def crash(opened: Fund) -> None:
        while True:
            opened.drill("guard")
            await trio.lowlevel.checkpoint()

    with pytest.raises(FundClosed):
        fund._bridge.call(crash)
    thread = fund._bridge._thread
    assert thread is not None
    thread.join(DEADLINE_S)


def test_a_fund_that_died_raises_fund_closed_with_the_cause_from_every_call() -> None:
    fund = FundManager(_config(ledger_enabled=True))
    fund.start()
    _kill(fund)
    assert not fund.running
    assert not fund.may_trade("a")
    for call in (
        fund.status,
        fund.ledger.balance_sheet,
        lambda: fund.report(StrategyStatus("a", "running")),
    ):
        with pytest.raises(FundClosed) as caught:
            call()
        assert isinstance(caught.value.__cause__, SupervisorEscalated)
    with pytest.raises(FundClosed) as caught:
        fund.stop()
    assert isinstance(caught.value.__cause__, SupervisorEscalated)
    fund.stop()


def test_a_fund_that_died_can_be_started_again() -> None:
    fund = FundManager(_config(ledger_enabled=True))
    fund.start()
    _kill(fund)
    fund.start()
    assert fund.ledger.balance_sheet()["CASH"] == 100_000
    fund.stop()


@pytest.mark.parametrize("config", [None, {}, FundConfig, "fund.toml"])
def test_a_config_that_is_none_is_refused_at_once(config: Any) -> None:
    with pytest.raises(ConfigError, match="is not a FundConfig") as refused:
        FundManager(config)
    assert refused.value.field == "config"


def test_a_target_of_a_backup_that_is_no_path_is_refused(tmp_path: Path) -> None:
    with FundManager(_config(ledger_enabled=True)) as fund:
        for target in (None, 5, b"x", ["x"]):
            with pytest.raises(ConfigError, match=r"target: .* is not the path of a file"):
                fund.backup(target)  # type: ignore[arg-type]
        told = fund.backup(tmp_path / "copy.db")  # type: ignore[arg-type]
    assert told["target"] == str(tmp_path / "copy.db")


# -- the bridge alone


def test_a_bridge_whose_opening_fails_raises_that_and_leaves_no_thread() -> None:
    def fail() -> Any:
        raise OSError("no")

    bridge: Bridge[object] = Bridge(fail)
    with pytest.raises(OSError, match="no"):
        bridge.start()
    assert not bridge.running
    bridge.stop(DEADLINE_S)
