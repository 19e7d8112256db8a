"""The policy that a file stores: compared at every open, kept with the gates that were added."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from fundops import (
    Criterion,
    Fund,
    FundConfig,
    PromotionGate,
    PromotionManager,
    PromotionStage,
    VirtualClock,
    open_reader,
    policy_of,
)
from fundops.control.audit import AuditRow
from fundops.wire.errors import PolicyError

Paper, Small = PromotionStage.Paper, PromotionStage.Live_Small
GATE = PromotionGate(Paper, (Criterion("t", "n_trades", ">=", 10),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "f.db"


def changes(path: Path) -> list[AuditRow]:
    with open_reader(path) as reader:
        return [row for row in reader.audit() if row.command == "promotion.policy"]


def alerts(path: Path) -> list[str]:
    connection = apsw.Connection(str(path))
    rows = connection.execute("SELECT level, title FROM alert_request").fetchall()
    connection.close()
    return [f"{level}: {title}" for level, title in rows]


def test_a_changed_policy_is_one_audit_row_and_one_alert(path: Path) -> None:
    first, second = policy_of(), policy_of(min_trades=99)
    for policy in (first, first, second, second, None):
        PromotionManager(path, policy=policy)
    (row,) = changes(path)
    assert (row.door, row.arguments) == ("manager", {"policy": second.hash})
    assert first.hash in str(row.outcome["done"])
    assert alerts(path) == ["INFO: the policy of promotion changed"]


def test_a_stored_policy_that_contradicts_itself_is_refused_or_replaced(path: Path) -> None:
    PromotionManager(path, policy=policy_of())
    connection = apsw.Connection(str(path))
    connection.execute(
        "UPDATE promotion_policy SET policy = json_set(policy, '$.soft.breaches', 9)"
    )
    connection.close()
    with pytest.raises(PolicyError, match=r"soft\.breaches: 9 of 5 sessions"):
        PromotionManager(path)
    PromotionManager(path, policy=policy_of())
    PromotionManager(path).register("a")


def test_a_manager_without_a_policy_judges_by_the_stored_one(path: Path) -> None:
    PromotionManager(path, policy=policy_of(min_paper_days=0, min_trades=3)).register("a")
    manager = PromotionManager(path)
    metrics = {"sharpe": 1.0, "max_drawdown": 0.1, "n_trades": 3}
    manager.record_metrics("a", Paper, metrics)
    assert manager.should_promote("a")


def test_two_managers_see_the_gate_that_one_of_them_adds(path: Path) -> None:
    one, other = PromotionManager(path), PromotionManager(path)
    one.register("a")
    one.add_gate(GATE)
    assert [criterion.name for criterion in other.evaluate("a").criteria] == ["t"]


def test_an_added_gate_outlives_an_open_with_the_policy_that_it_was_added_to(path: Path) -> None:
    PromotionManager(path, policy=policy_of()).add_gate(GATE)
    manager = PromotionManager(path, policy=policy_of())
    manager.register("a")
    assert [criterion.name for criterion in manager.evaluate("a").criteria] == ["t"]
    assert changes(path) == []
    # Another policy takes its place, and says so.
    PromotionManager(path, policy=policy_of(min_trades=7))
    assert len(manager.evaluate("a").criteria) > 1
    assert len(changes(path)) == 1


def test_a_ladder_that_lacks_a_stage_is_refused_with_nothing_stored(path: Path) -> None:
    PromotionManager(path).adopt("mm", Small, by="ann", reason="it trades")
    with pytest.raises(PolicyError, match=r"mm is in live-small.*three-stage.*guarded"):
        PromotionManager(path, policy=policy_of(ladder="three-stage"))
    assert changes(path) == []
    assert PromotionManager(path).current_stage("mm") is Small


def test_a_retired_strategy_is_on_every_ladder(path: Path) -> None:
    manager = PromotionManager(path)
    manager.adopt("mm", Small, by="ann", reason="it trades")
    manager.retire("mm")
    assert PromotionManager(path, policy=policy_of(ladder="three-stage")).strategies()


async def test_a_fund_and_a_manager_judge_alike(path: Path) -> None:
    config = FundConfig(
        total_capital=5,
        db_path=path,
        promotion_enabled=True,
        tick_interval_s=None,
        min_paper_days=0,
        min_trades=3,
    )
    clock = VirtualClock(1_767_571_200_000_000)
    metrics = {"sharpe": 1.0, "max_drawdown": 0.1, "n_trades": 3}
    async with Fund.open(config, clock=clock) as fund:
        await fund.promotion.register("a")
        await fund.promotion.record_metrics("a", Paper, metrics)
        theirs = await fund.promotion.evaluate("a")
        ours = PromotionManager(path, clock=clock).evaluate("a")
    assert ours == theirs
    assert ours.would_do == "promote"
    with open_reader(path) as reader:
        assert "default criteria" not in str(reader.why("a").notes)


async def test_a_fund_stores_its_policy_once_and_tells_a_change(path: Path) -> None:
    for trades in (3, 3, 4):
        config = FundConfig(
            total_capital=5,
            db_path=path,
            promotion_enabled=True,
            tick_interval_s=None,
            min_trades=trades,
        )
        async with Fund.open(config):
            pass
    (row,) = changes(path)
    assert row.door == "process"


def test_a_stored_policy_that_cannot_be_read_gives_way_to_a_given_one(path: Path) -> None:
    PromotionManager(path)
    connection = apsw.Connection(str(path))
    connection.execute('UPDATE promotion_policy SET policy = \'{"of": "the future"}\'')
    connection.close()
    with pytest.raises(PolicyError):
        PromotionManager(path)
    PromotionManager(path, policy=policy_of()).register("a")
