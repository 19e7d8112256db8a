"""Each alert of the table of events: its level, its category, its dedup key and its end.

A row is one scene in a whole fund. It names the alert that must have been asked for, and the one
that ends it under the same key.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio.testing

from fundops import FeedStatus, PromotionStage, Settlement, StrategyStatus
from fundops.actors.alert import told_keys
from fundops.actors.oversight.steps.guard import GuardStep
from fundops.actors.persistence import Reader, StorageBoard
from fundops.runtime import VirtualClock
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.controller import Fill
from fundops.wire.ledger import Statement
from fundops.wire.persistence import StorageState, StorageStatus

P = PromotionStage
D = Decimal
HALVED: dict[str, Any] = {"equity": 5_000, "realized_pnl": -5_000}


class SteppedClock(VirtualClock):
    """A wall clock that can be set while monotonic time goes on."""

    stepped_s = 0

    def now_us(self) -> int:
        return super().now_us() + self.stepped_s * 1_000_000


class Told(NamedTuple):
    """One alert of the history. In a row of the table the key may be the beginning of one."""

    level: str
    category: str
    key: str | None


def told(world: VirtualFund) -> list[Told]:
    """The alerts that were let out, oldest first."""
    with Reader(world.fund.config.path) as reader:
        rows = reader.rows(
            "SELECT level, category, dedup_key FROM alert"
            " WHERE outcome IN ('QUEUED', 'NO_CHANNEL') ORDER BY id"
        )
    return [Told(*row) for row in rows]


def asked_again(world: VirtualFund) -> list[str]:
    """The keys of alerts that a gate dropped as told: each would be a commit in every tick."""
    with Reader(world.fund.config.path) as reader:
        rows = reader.rows("SELECT DISTINCT dedup_key FROM alert WHERE outcome = 'DEDUPED'")
    return [key for (key,) in rows]


def is_open(world: VirtualFund, key: str) -> bool:
    """Whether an alert under this key, or one that begins with it, waits for its end."""
    with Reader(world.fund.config.path) as reader:
        return bool(told_keys(reader, key))


def places(found: list[Told], alert: Told) -> list[int]:
    """Where this alert stands in the history."""
    return [
        place
        for place, (level, category, key) in enumerate(found)
        if (level, category) == (alert.level, alert.category)
        and (key is None if alert.key is None else (key or "").startswith(alert.key))
    ]


async def ticks(world: VirtualFund, count: int = 1, seconds: float = 1) -> None:
    for _ in range(count):
        world.clock.advance(seconds)
        await world.tick()
        await trio.testing.wait_all_tasks_blocked()


async def adopted(world: VirtualFund, stage: PromotionStage) -> None:
    await world.fund.promotion.adopt("s", stage, by="a", reason="r")
    await ticks(world, 2)


def engine(**figures: Any) -> FakeController:
    return FakeController(StrategyStatus("s", "running", 10_000, 10_000, **figures))


Scene = Callable[[VirtualFund], Awaitable[None]]


async def kill(world: VirtualFund) -> None:
    await world.fund.kill_switch.engage(reason="x", by="ann")
    await ticks(world, 2)
    await world.fund.kill_switch.release(by="ann", reason="calm")
    await ticks(world, 2)


async def kill_unconfirmed(world: VirtualFund) -> None:
    world.controller.open_orders = 2
    await world.fund.kill_switch.engage(reason="x", by="ann")
    await ticks(world, 2)


async def failed(world: VirtualFund) -> None:
    world.controller.set("s", state="failed", error="boom")
    await ticks(world, 2)
    world.controller.set("s", state="running", error=None)
    await ticks(world, 2)


async def failed_on_paper(world: VirtualFund) -> None:
    await adopted(world, P.Paper)
    await failed(world)


async def paused(world: VirtualFund) -> None:
    world.controller.set("s", **HALVED)
    await ticks(world, 2)
    await world.fund.resume("s", by="ann", reason="r")
    await ticks(world, 2)


async def paused_by_a_person(world: VirtualFund) -> None:
    await world.fund.pause("s", by="ann", reason="r")
    await ticks(world, 2)
    await world.fund.resume("s", by="ann", reason="r")
    await ticks(world, 2)


async def near_its_limit(world: VirtualFund) -> None:
    world.controller.set("s", equity=7_900, realized_pnl=-2_100)
    await ticks(world, 2)
    world.controller.set("s", equity=10_000, realized_pnl=0, n_trades=1)
    await ticks(world, 2)


async def fund_near_its_limit(world: VirtualFund) -> None:
    world.controller.set("s", realized_pnl=-13_000)
    await ticks(world, 2)
    world.controller.set("s", realized_pnl=-1_000)
    await ticks(world, 2)


async def settled(world: VirtualFund) -> None:
    world.controller.settlement_list = [Settlement("m", "M", "s", D(5), D(7), cursor="1")]
    await ticks(world, 2)


async def above_entitlement(world: VirtualFund) -> None:
    await adopted(world, P.Paper)
    world.controller.set("s", stage="live-small")
    world.controller.failures["set_stage"] = RuntimeError("no")
    await ticks(world, 2)
    del world.controller.failures["set_stage"]
    await ticks(world, 3)


async def daily_loss(world: VirtualFund) -> None:
    await world.tick("2026-01-05")
    world.controller.set("s", realized_pnl=-5_000)
    await ticks(world, 2)
    await world.tick("2026-01-06")
    await ticks(world, 2)


async def unregistered(world: VirtualFund) -> None:
    await ticks(world, 2)
    await adopted(world, P.Paper)


async def left_the_list(world: VirtualFund) -> None:
    found = world.controller.statuses.pop("s")
    await ticks(world, 2)
    world.controller.statuses["s"] = found
    await ticks(world, 2)


async def set_aside(world: VirtualFund) -> None:
    world.controller.set("s", n_trades=-1)
    await ticks(world, 2)
    world.controller.set("s", n_trades=0)
    await ticks(world, 2)


async def pushed_too(world: VirtualFund) -> None:
    world.fund.report(StrategyStatus("pushed", "running"))
    await ticks(world, 3)


async def counters_restarted(world: VirtualFund) -> None:
    world.controller.set("s", realized_pnl=500, n_trades=4)
    await ticks(world, 2)
    world.controller.set("s", realized_pnl=0, n_trades=0)
    await ticks(world, 2)
    await world.fund.confirm_counters("s", by="ann", reason="r")
    await ticks(world, 2)


async def crashed(world: VirtualFund) -> None:
    world.fund.drill("ledger")
    await ticks(world, 3)


async def silent(world: VirtualFund) -> None:
    world.controller.failures["strategies"] = RuntimeError("no")
    await ticks(world, 7, 10)
    del world.controller.failures["strategies"]
    await ticks(world, 2)


async def stale_feed(world: VirtualFund) -> None:
    now_us = world.clock.now_us()
    world.controller.feed_statuses = [FeedStatus("ticks", now_us)]
    await ticks(world, 2, 301)
    world.controller.feed_statuses = [FeedStatus("ticks", world.clock.now_us())]
    await ticks(world, 2)


async def breaker(world: VirtualFund) -> None:
    world.controller.set("s", state="failed", retryable=False)
    await ticks(world, 2)
    world.controller.set("s", state="running", retryable=True)
    await world.fund.recovery.reset("s", by="ann")
    await ticks(world, 2)


async def restarted(world: VirtualFund) -> None:
    world.controller.set("s", state="failed")
    await ticks(world, 70, 60)


async def demoted(world: VirtualFund) -> None:
    await adopted(world, P.Live_Small)
    await world.fund.promotion.demote("s", to=P.Paper, by="ann", reason="r")
    await ticks(world, 2)


async def positions_outlast_a_demotion(world: VirtualFund) -> None:
    await adopted(world, P.Live_Small)
    world.controller.set("s", unrealized_pnl=-50)
    await ticks(world, 2)
    await world.fund.promotion.demote("s", to=P.Paper, by="ann", reason="r")
    await ticks(world, 2)
    await ticks(world, 2, 86_400)
    world.controller.set("s", unrealized_pnl=0)
    await ticks(world, 2)


async def demoted_on_paper(world: VirtualFund) -> None:
    await adopted(world, P.Shadow)
    await world.fund.promotion.demote("s", to=P.Paper, by="ann", reason="r")
    await ticks(world, 2)


async def report_aside(world: VirtualFund) -> None:
    wrong = Fill("f", "s", "X", D("NaN"), D(1), D(0), world.clock.now_us(), "1")
    world.controller.fill_list = [wrong]
    await ticks(world, 2)
    [aside] = await world.fund.ledger.reports_aside()
    await world.fund.ledger.skip_report(aside.key, reason="typo", by="ann")
    await ticks(world, 2)


async def many_failed(world: VirtualFund) -> None:
    for number in range(3):
        world.controller.set(f"t{number}")
    await ticks(world, 2)
    for number in range(3):
        world.controller.set(f"t{number}", state="failed")
    await ticks(world, 2)
    for number in range(3):
        world.controller.set(f"t{number}", state="running")
    await ticks(world, 2)


def fill(world: VirtualFund) -> Fill:
    return Fill("f", "s", "X", D(1), D(1), D(0), world.clock.now_us(), "1")


async def repeated_id(world: VirtualFund) -> None:
    world.controller.fill_list = [fill(world), fill(world)]
    await ticks(world, 2)


async def fill_without_entitlement(world: VirtualFund) -> None:
    world.controller.fill_list = [fill(world)]
    await ticks(world, 2)
    await adopted(world, P.Live_Small)


async def broker_differs(world: VirtualFund) -> None:
    for day, cash in (("2026-01-05", D(1)), ("2026-01-06", D(100_000))):
        world.controller.broker_statement = Statement(day, cash, {})
        world.clock.advance(86_400)
        await world.tick(day)
        await ticks(world, 2)


async def sessions(world: VirtualFund, pnls: Iterable[float], *, opposite: bool = False) -> None:
    """A session for each of these, which "s" makes, and "t" too or its opposite."""
    for pnl in pnls:
        for name, made in (("s", pnl), ("t", -pnl if opposite else pnl)):
            status = world.controller.statuses[name]
            world.controller.set(name, realized_pnl=float(status.realized_pnl) + made)
        await ticks(world, seconds=86_400)


async def alike(world: VirtualFund) -> None:
    world.controller.set("t")
    await sessions(world, [-20, 30] * 11)
    await sessions(world, [-20, 30] * 5, opposite=True)


async def at_risk(world: VirtualFund) -> None:
    """The worst of twenty sessions is above the budget, and the second worst of 21 is not."""
    world.controller.set("t")
    await sessions(world, [0, -200, *[10, -10] * 10])


async def green(world: VirtualFund, stage: PromotionStage) -> None:
    world.clock.advance(30 * 86_400)
    metrics = {"sharpe": 1.5, "max_drawdown": 0.05, "n_trades": 150, "win_rate": 0.6}
    await world.fund.promotion.record_metrics("s", stage, metrics)
    await ticks(world, 2)


async def promoted(world: VirtualFund) -> None:
    await world.fund.promotion.register("s")
    await green(world, P.Paper)


async def ready(world: VirtualFund) -> None:
    await world.fund.promotion.register("s", P.Shadow)
    await green(world, P.Shadow)
    await world.fund.promotion.promote("s", by="ann")
    await ticks(world, 2)


async def new_version(world: VirtualFund) -> None:
    await adopted(world, P.Live_Small)
    for version in ("1", "2"):
        world.controller.set("s", version=version)
        await ticks(world, 2)
    await world.fund.promotion.unfreeze("s", by="ann", reason="looked at it")
    await ticks(world, 2)


async def book_break(world: VirtualFund) -> None:
    world.controller.fill_list = [fill(world)]
    await ticks(world, 2)
    world.controller.set("s", realized_pnl=-50)
    await ticks(world, 5, 30)
    world.controller.set("s", realized_pnl=-1)
    await ticks(world, 5, 30)


def storage(state: StorageState, wal_bytes: int = 0) -> Scene:
    """The storage says so, and then that it is well."""

    async def scene(world: VirtualFund) -> None:
        reason = None if state == "ok" else "no room"
        said = StorageStatus(state, reason, 1, 1, wal_bytes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StorageBoard, "read", lambda self: said)
            await ticks(world, 2)
        await ticks(world, 2)

    return scene


async def part_late(world: VirtualFund) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.fund.host, "late", lambda: {"feeds": "has hung for 5 s"})
        await ticks(world, 2)
    await ticks(world, 2)


async def clock_suspect(world: VirtualFund) -> None:
    assert isinstance(world.clock, SteppedClock)
    for stepped_s in (3_600, 0):
        world.clock.stepped_s = stepped_s
        await ticks(world, 2)


async def started(world: VirtualFund) -> None:
    await ticks(world, 2)


PROMO: dict[str, Any] = {"promotion_enabled": True, "promotion_every_ticks": 1}
HEAL: dict[str, Any] = {"self_healing_enabled": True, "recovery_every_ticks": 1}
LEDGER: dict[str, Any] = {"ledger_enabled": True}
WIDE: dict[str, Any] = {"max_fund_drawdown_pct": 100, "max_strategy_drawdown_pct": 100}

# Settings, the engine's figures, the scene, the alert, and whether one under its key ends it.
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any], Scene, Told, bool]] = {
    "kill switch engaged": (LEDGER, {}, kill, Told("CRITICAL", "KILL_SWITCH", "kill"), True),
    "its stop confirmed": (LEDGER, {}, kill, Told("INFO", "KILL_SWITCH", None), False),
    "not confirmed": (
        LEDGER,
        {},
        kill_unconfirmed,
        Told("CRITICAL", "KILL_SWITCH", None),
        False,
    ),
    "a live one failed": (
        LEDGER,
        {},
        failed,
        Told("CRITICAL", "STRATEGY_FAILURE", "failed:s"),
        True,
    ),
    "one on paper failed": (
        PROMO,
        {"stage": "paper"},
        failed_on_paper,
        Told("WARNING", "STRATEGY_FAILURE", "failed:s"),
        True,
    ),
    "a live one failed, healing on": (
        HEAL,
        {},
        failed,
        Told("CRITICAL", "STRATEGY_FAILURE", "failed:s"),
        True,
    ),
    "paused by the guard": (LEDGER, {}, paused, Told("WARNING", "DRAWDOWN", "paused:s"), True),
    "paused by a person": (
        LEDGER,
        {},
        paused_by_a_person,
        Told("WARNING", "GENERAL", "operator:s"),
        True,
    ),
    "strategy near its limit": (
        LEDGER,
        {},
        near_its_limit,
        Told("WARNING", "DRAWDOWN", "drawdown:s"),
        True,
    ),
    "fund near its limit": (
        {**LEDGER, "max_strategy_drawdown_pct": 100},
        {},
        fund_near_its_limit,
        Told("WARNING", "DRAWDOWN", "drawdown:fund"),
        True,
    ),
    "settlement booked": (LEDGER, {}, settled, Told("INFO", "SETTLEMENT", None), False),
    "above its entitlement": (
        PROMO,
        {"stage": "paper"},
        above_entitlement,
        Told("CRITICAL", "RISK_LIMIT", "entitled:s"),
        True,
    ),
    "daily loss": (
        {**LEDGER, **WIDE, "max_daily_loss_pct": 2},
        {},
        daily_loss,
        Told("CRITICAL", "RISK_LIMIT", "daily"),
        True,
    ),
    "unregistered": (
        PROMO,
        {"stage": "paper"},
        unregistered,
        Told("WARNING", "GENERAL", "unregistered:s"),
        True,
    ),
    "left the list": (LEDGER, {}, left_the_list, Told("CRITICAL", "GENERAL", "left:s"), True),
    "status set aside": (LEDGER, {}, set_aside, Told("WARNING", "GENERAL", "status:s"), True),
    "pushed and not heard": (
        LEDGER,
        {},
        pushed_too,
        Told("WARNING", "GENERAL", "unheard:fund.report"),
        False,
    ),
    "counters restarted": (
        LEDGER,
        {},
        counters_restarted,
        Told("CRITICAL", "GENERAL", "counters:s"),
        True,
    ),
    "actor crashed": (LEDGER, {}, crashed, Told("WARNING", "GENERAL", "crashed:ledger"), True),
    "host silent": (LEDGER, {}, silent, Told("WARNING", "GENERAL", "silent"), True),
    "host silent too long": (LEDGER, {}, silent, Told("CRITICAL", "GENERAL", "blind"), True),
    "stale feed": (HEAL, {}, stale_feed, Told("WARNING", "GENERAL", "feed:ticks"), True),
    "breaker open": (HEAL, {}, breaker, Told("CRITICAL", "RECOVERY", "recovery:s"), True),
    "restart attempt": (HEAL, {}, restarted, Told("INFO", "RECOVERY", "recovery:s"), False),
    "demoted from real money": (
        PROMO,
        {"stage": "live-small"},
        demoted,
        Told("CRITICAL", "PROMOTION", None),
        False,
    ),
    "real positions outlast a demotion": (
        PROMO,
        {"stage": "live-small"},
        positions_outlast_a_demotion,
        Told("CRITICAL", "GENERAL", "uncounted:s"),
        True,
    ),
    "demoted": (
        PROMO,
        {"stage": "shadow"},
        demoted_on_paper,
        Told("WARNING", "PROMOTION", None),
        False,
    ),
    "entitlement changed": (
        PROMO,
        {"stage": "live-small"},
        demoted,
        Told("INFO", "REBALANCE", None),
        False,
    ),
    "report set aside": (
        LEDGER,
        {},
        report_aside,
        Told("CRITICAL", "GENERAL", "aside:fill:"),
        True,
    ),
    "many failed": (
        HEAL,
        {},
        many_failed,
        Told("CRITICAL", "STRATEGY_FAILURE", "failed:many"),
        True,
    ),
    "an id repeated": (LEDGER, {}, repeated_id, Told("WARNING", "GENERAL", "repeated:"), False),
    "fill without entitlement": (
        {**PROMO, **LEDGER},
        {"stage": "paper"},
        fill_without_entitlement,
        Told("CRITICAL", "RISK_LIMIT", "unentitled:s"),
        True,
    ),
    "broker differs": (
        LEDGER,
        {},
        broker_differs,
        Told("CRITICAL", "GENERAL", "statement:2026-01-05"),
        True,
    ),
    "book break": (
        {**LEDGER, "recovery_every_ticks": 1},
        {},
        book_break,
        Told("CRITICAL", "GENERAL", "break"),
        True,
    ),
    "a step fails": (LEDGER, {}, silent, Told("WARNING", "GENERAL", "step:engine"), True),
    "worst pair": (LEDGER, {}, alike, Told("WARNING", "CORRELATION", "corr"), True),
    "value at risk": (
        {**LEDGER, "var_budget": 300},
        {},
        at_risk,
        Told("WARNING", "RISK_LIMIT", "var"),
        True,
    ),
    "promoted": (
        PROMO,
        {"stage": "paper"},
        promoted,
        Told("INFO", "PROMOTION", None),
        False,
    ),
    "ready": (
        PROMO,
        {"stage": "shadow"},
        ready,
        Told("INFO", "PROMOTION", "promotion:s"),
        True,
    ),
    "a new version froze": (
        PROMO,
        {"stage": "live-small"},
        new_version,
        Told("WARNING", "PROMOTION", "frozen:s"),
        True,
    ),
    "storage degraded": (
        LEDGER,
        {},
        storage("degraded"),
        Told("CRITICAL", "GENERAL", "storage:degraded"),
        True,
    ),
    "storage failed": (
        LEDGER,
        {},
        storage("failed"),
        Told("CRITICAL", "GENERAL", "storage:failed"),
        True,
    ),
    "log too large": (
        LEDGER,
        {},
        storage("ok", 256 * 2**20 + 1),
        Told("WARNING", "GENERAL", "storage:log"),
        True,
    ),
    "part late": (LEDGER, {}, part_late, Told("WARNING", "GENERAL", "late:feeds"), True),
    "clock suspect": (LEDGER, {}, clock_suspect, Told("WARNING", "GENERAL", "clock_jump"), True),
    "start-up": (LEDGER, {}, started, Told("INFO", "GENERAL", None), False),
}


@pytest.mark.parametrize("row", ROWS)
async def test_an_alert_has_the_level_category_key_and_end_of_its_row(
    row: str, tmp_path: Path
) -> None:
    settings, figures, scene, alert, ends = ROWS[row]
    always: dict[str, Any] = {"clock": SteppedClock(START_US), "db_path": tmp_path / "x.db"}
    async with virtual_fund(engine(**figures), **always, **settings) as world:
        await ticks(world)
        await scene(world)
        found = told(world)
        [first, *_] = places(found, alert)
        assert asked_again(world) == []
        if ends:
            assert alert.key is not None
            over = places(found, Told("INFO", alert.category, alert.key))
            assert over[-1] > first, found
            assert not is_open(world, alert.key)


AFTERMATH = re.compile(
    r".*Stopped: .+\. Left open: .+\. Next automatic act: .+\. To undo: .+\.", re.DOTALL
)


@pytest.mark.parametrize(
    "row",
    [
        "kill switch engaged",
        "its stop confirmed",
        "not confirmed",
        "paused by the guard",
        "paused by a person",
        "breaker open",
        "demoted",
        "demoted from real money",
        "real positions outlast a demotion",
    ],
)
async def test_an_alert_that_stops_something_ends_with_the_four_sentences(
    row: str, tmp_path: Path
) -> None:
    settings, figures, scene, alert, _ = ROWS[row]
    path = tmp_path / "x.db"
    async with virtual_fund(engine(**figures), db_path=path, **settings) as world:
        await ticks(world)
        await scene(world)
        with Reader(path) as reader:
            texts = reader.rows(
                "SELECT message FROM alert WHERE level = ? AND category = ?"
                " AND outcome <> 'RATE_SUPPRESSED' AND dedup_key IS ?",
                alert,
            )
        assert texts
        for (text,) in texts:
            assert AFTERMATH.fullmatch(text)
        if alert.category == "KILL_SWITCH":
            released = [one for one in world.sent_alerts() if "released" in one.title]
            assert len(released) == (row != "not confirmed")
            for one in released:
                assert AFTERMATH.fullmatch(one.message)


async def test_strategies_without_real_money_are_no_pair_any_more() -> None:
    settings = {**PROMO, "promotion_every_ticks": 60}
    async with virtual_fund(engine(stage="live-small"), **settings) as world:
        world.controller.set("t", stage="live-small")
        for name in ("s", "t"):
            await world.fund.promotion.adopt(name, P.Live_Small, by="a", reason="r")
        await sessions(world, [-20, 30] * 11)
        assert is_open(world, "corr")
        for name in ("s", "t"):
            await world.fund.promotion.demote(name, to=P.Paper, by="a", reason="r")
        await sessions(world, [-20, 30])
        assert not is_open(world, "corr")


async def test_a_log_of_256_mib_is_not_told_yet() -> None:
    async with virtual_fund(engine(), ledger_enabled=True) as world:
        await storage("ok", 256 * 2**20)(world)
        assert places(told(world), Told("WARNING", "GENERAL", "storage:log")) == []


async def test_the_guards_step_is_critical_at_once_and_each_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(self: GuardStep, tick: Any) -> None:
        raise ZeroDivisionError

    async with virtual_fund(engine(), ledger_enabled=True) as world:
        await ticks(world)
        with monkeypatch.context() as patch:
            patch.setattr(GuardStep, "run", broken)
            await ticks(world, 13, 10)
        await ticks(world)
        found = [alert for alert in told(world) if alert.level == "CRITICAL"]
        # A repeated one has no key, so that no gate takes it for told.
        assert found == [
            Told("CRITICAL", "GENERAL", "step:guard"),
            Told("CRITICAL", "GENERAL", None),
            Told("CRITICAL", "GENERAL", None),
        ]
        assert Told("INFO", "GENERAL", "step:guard") in told(world)
