"""The code of the product's description, word by word; only its import line is ours.

Each snippet runs as a program of its reader would: with the names that the snippet before it made,
in a folder of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fundops import FundConfig, FundManager, RecoveryEvent, StrategyStatus, VirtualClock
from fundops.testing import FakeController
from fundops.wire.promotion import HistoryEntry, PromotionStage

IMPORT = "from fundops import FundConfig, FundManager\n"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNDOPS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run() -> Iterator[Any]:
    """Runs snippets one after the other in the same names, and stops their funds."""
    names: dict[str, Any] = {}

    def run(code: str) -> dict[str, Any]:
        exec(compile(code, "<snippet>", "exec"), names)  # our own text, below
        return names

    yield run
    for made in names.values():
        if isinstance(made, FundManager):
            made.stop()


# -- operational infrastructure

WEBHOOK = """
# Webhook channel -- delivers alerts via HTTP POST
fund = FundManager(FundConfig(
    total_capital=100_000,
    alert_webhook_url="https://hooks.slack.com/services/...",
))
"""

LEDGER = """
fund = FundManager(FundConfig(
    total_capital=100_000,
    ledger_enabled=True,  # Enable double-entry ledger
))
"""

REPORTS = """
# Balance sheet
bs = fund.ledger.balance_sheet()
# {"CASH": 95000.0, "POSITIONS": 5000.0, "MANAGEMENT_FEES": 200.0, ...}

# Income statement
inc = fund.ledger.income_statement()
# {"REALIZED_PNL": 1500.0, "MANAGEMENT_FEES": -200.0, "PERFORMANCE_FEES": -100.0}

# Recent entries
entries = fund.ledger.recent_entries(limit=20)
"""

PROMOTION = """
fund = FundManager(FundConfig(
    total_capital=100_000,
    promotion_enabled=True,  # Enable promotion lifecycle
))
"""

RECOVERY = """
fund = FundManager(FundConfig(
    total_capital=100_000,
    self_healing_enabled=True,  # Enable self-healing
))
"""

EVENTS = """
events = fund.recovery.event_history(limit=20)
# [
#     RecoveryEvent(
#         action="restart_strategy",
#         target="political_mm",
#         success=True,
#         attempt=1,
#         error=None,
#     ),
# ]

stats = fund.recovery.stats()
# {"total_attempts": 5, "successes": 3, "failures": 2, "circuit_breakers_open": 1}
"""


def _printed(snippet: str, number: int) -> Any:
    """The value that the snippet prints in a comment, its `...` left out."""
    found = re.findall(r"^# (\{.*\})$", snippet, re.M)[number]
    return eval(found.replace(", ...", ""))  # our own text, above


@pytest.mark.parametrize("snippet", [WEBHOOK, LEDGER, PROMOTION, RECOVERY])
def test_each_configuration_makes_a_fund_that_starts_on_its_first_use(
    run: Any, snippet: str
) -> None:
    fund = run(IMPORT + snippet)["fund"]
    assert not fund.running
    assert fund.status().total_capital == 100_000
    assert fund.running


def test_the_reports_are_the_printed_ones_to_the_last_figure(run: Any) -> None:
    fund = run(IMPORT + LEDGER)["fund"]
    # What leads to the figures that the description prints.
    fund.ledger.open_position("X", quantity=50, cost=5_000)
    fund.ledger.record_profit(1_500)
    fund.ledger.withdraw(1_500)
    fund.ledger.charge_management_fee(200)
    fund.ledger.charge_performance_fee(100)
    made = run(REPORTS)
    sheet, income = _printed(REPORTS, 0), _printed(REPORTS, 1)
    assert {account: made["bs"][account] for account in sheet} == sheet
    assert {account: made["inc"][account] for account in income} == income
    assert len(made["entries"]) == 6


def test_a_breaker_is_reset_by_the_name_of_its_strategy(run: Any) -> None:
    engine = FakeController(StrategyStatus("strategy_name", "failed", retryable=False))
    config = FundConfig(total_capital=100_000, self_healing_enabled=True, tick_interval_s=None)
    with FundManager(config, engine) as fund:
        fund.tick()
        fund.recovery.check_strategies()
        assert fund.recovery.stats()["circuit_breakers_open"] == 1
        assert fund.recovery.reset("strategy_name")
        assert fund.recovery.stats()["circuit_breakers_open"] == 0


def test_the_recovery_events_have_the_printed_shape(run: Any) -> None:
    engine = FakeController(StrategyStatus("political_mm", "failed", error="boom"))
    config = FundConfig(total_capital=100_000, self_healing_enabled=True, tick_interval_s=None)
    with FundManager(config, engine) as fund:
        fund.tick()
        while not fund.recovery.stats()["successes"]:  # the engine is called in a thread
            fund.recovery.check_strategies()
        text = re.sub(r"^# ?", "", EVENTS, flags=re.M)
        [call] = re.findall(r"RecoveryEvent\(.*?\)", text, re.S)
        printed = eval(call, {"RecoveryEvent": RecoveryEvent})  # our own text, above
        made: dict[str, Any] = {"fund": fund}
        exec(EVENTS, made)
        found = next(event for event in made["events"] if event.action == "restart_strategy")
        assert isinstance(printed, RecoveryEvent)
        for field in ("action", "target", "success", "attempt", "error"):
            assert getattr(found, field) == getattr(printed, field)
        assert made["stats"].keys() >= _printed(EVENTS, 0).keys()


# -- the lifecycle of strategies

PIPELINE = """
mgr = PromotionManager(
    db_path="promotions.db",
)

# Register a strategy in paper
strat_id = mgr.register(
    strategy_name="bollinger_mr_w20",
    initial_stage=PromotionStage.Paper,
)

# Record metrics periodically
mgr.record_metrics(
    strategy_id=strat_id,
    stage=PromotionStage.Paper,
    metrics={
        "sharpe": 1.2,
        "max_drawdown": 0.08,
        "n_trades": 150,
    },
)

# Check if promotion gate is met
if mgr.should_promote(strat_id):
    mgr.promote(strat_id)
    print(f"Promoted to {mgr.current_stage(strat_id).value}")

# Check for demotion conditions
if mgr.should_demote(strat_id):
    mgr.demote(strat_id, reason="drawdown breach")

# Get full state
snapshot = mgr.snapshot(strat_id)
print(f"Stage: {snapshot.stage}")
print(f"Days in stage: {snapshot.days_in_stage}")
print(f"Promotion history: {snapshot.history}")
"""

WORKFLOW = """
mgr = PromotionManager()

# 1. Register the strategy
strat_id = mgr.register("my_strategy", initial_stage=PromotionStage.Paper)

# 2. Run paper backtests periodically
for _ in range(30):  # 30 days of paper
    result = hz.run(mode="paper", strategies=[MyStrategy()], days=1)
    mgr.record_metrics(strat_id, PromotionStage.Paper, {
        "sharpe": result.sharpe,
        "max_drawdown": result.max_drawdown,
        "n_trades": result.n_trades,
    })

# 3. Check promotion
if mgr.should_promote(strat_id):
    mgr.promote(strat_id)  # now at shadow
    print("Advanced to shadow")
"""

WIRING = """
if mgr.current_stage(strat_id) == PromotionStage.Live_Scaled:
    budget = 100_000
elif mgr.current_stage(strat_id) == PromotionStage.Live_Small:
    budget = 1_000       # 1% of full cap
elif mgr.current_stage(strat_id) == PromotionStage.Shadow:
    mode = "shadow"
    budget = 100_000
else:
    mode = "paper"
    budget = 100_000

hz.run(mode=mode, venues={"alpaca": Alpaca(budget_usd=budget)}, days=1)
"""


class Engine:
    """The trading engine of the description: it takes what the snippets give it."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []

    def run(self, **how: Any) -> SimpleNamespace:
        self.runs.append(how)
        return SimpleNamespace(sharpe=1.2, max_drawdown=0.08, n_trades=150)


def test_the_pipeline_registers_records_and_shows_the_state(
    run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    made = run("from fundops import PromotionManager, PromotionStage, PromotionGate\n" + PIPELINE)
    told = capsys.readouterr().out
    # The gate wants 14 days in paper, and the strategy has been there for a moment.
    assert told.startswith("Stage: ")
    assert "paper" in told
    assert "Promoted" not in told
    (line,) = made["snapshot"].history
    assert isinstance(line, HistoryEntry)
    assert Path("promotions.db").exists()


def test_the_workflow_and_its_wiring_run_from_paper(run: Any) -> None:
    hz = Engine()
    given = {"hz": hz, "MyStrategy": object, "Alpaca": lambda budget_usd: budget_usd}
    names = run("from fundops import PromotionManager, PromotionStage\n")
    names.update(given)
    made = run(WORKFLOW)
    assert made["mgr"].current_stage(made["strat_id"]) is PromotionStage.Paper
    run(WIRING)
    assert hz.runs[-1] == {"mode": "paper", "venues": {"alpaca": 100_000}, "days": 1}
    assert len(hz.runs) == 31


def test_thirty_days_of_the_workflow_end_in_shadow(
    run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = VirtualClock(1_767_571_200_000_000)
    monkeypatch.setattr("fundops.promotion.SystemClock", lambda: clock)

    class Days(Engine):
        def run(self, **how: Any) -> SimpleNamespace:
            clock.advance(86_400.0)
            return super().run(**how)

    hz = Days()
    names = run("from fundops import PromotionManager, PromotionStage\n")
    names.update({"hz": hz, "MyStrategy": object, "Alpaca": lambda budget_usd: budget_usd})
    run(WORKFLOW + WIRING)
    assert capsys.readouterr().out == "Advanced to shadow\n"
    assert hz.runs[-1]["mode"] == "shadow"
