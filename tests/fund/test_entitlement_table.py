"""The table of entitlements, row by row, and what else decides whether a strategy may trade."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
import trio
import trio.testing

from fundops import FundConfig, PromotionStage, StrategyStatus
from fundops.actors.promotion import PromotionActor
from fundops.runtime import ConfigError
from fundops.testing import FakeController, VirtualFund, virtual_fund
from fundops.wire.errors import StorageDegraded

P = PromotionStage
Prepare = Callable[[VirtualFund], Awaitable[None]]


async def _tick(world: VirtualFund, seconds: float = 1) -> None:
    world.clock.advance(seconds)
    await world.tick()
    await trio.testing.wait_all_tasks_blocked()


def _with(**status: Any) -> Prepare:
    async def prepare(world: VirtualFund) -> None:
        world.controller.set("s", **status)
        await _tick(world)

    return prepare


async def _nothing(world: VirtualFund) -> None:
    """The strategy runs as it is."""


async def _lease_expires(world: VirtualFund) -> None:
    world.clock.advance(31)


async def _host_falls_silent(world: VirtualFund) -> None:
    world.controller.failures["strategies"] = RuntimeError("gone")
    for _ in range(45):
        await _tick(world)


async def _lists_twice(world: VirtualFund) -> None:
    twice = list(world.controller.statuses.values()) * 2
    world.controller.strategies = lambda: twice  # type: ignore[method-assign]
    await _tick(world)


async def _loses_the_day(world: VirtualFund) -> None:
    world.controller.set("s", realized_pnl=-3_000)
    await _tick(world)


async def _demoted(world: VirtualFund) -> None:
    await world.fund.promotion.demote("s", to=P.Shadow, by="ann", reason="r")
    await _tick(world)


async def _demoted_before_this_session(world: VirtualFund) -> None:
    await _demoted(world)
    await world.tick("2026-01-05")
    await _tick(world)


async def _paused_by_a_person(world: VirtualFund) -> None:
    await world.fund.pause("s", by="ann", reason="r")


async def _killed(world: VirtualFund) -> None:
    await world.fund.kill_switch.engage(reason="r", by="ann")
    await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def _fund(stage: PromotionStage | None, **settings: Any) -> AsyncIterator[VirtualFund]:
    """`stage` None: the strategy is not registered."""
    in_force = "live-small" if stage is None else stage.value
    fake = FakeController(
        StrategyStatus("s", "running", equity=1_000, allocated=1_000, stage=in_force)
    )
    defaults = {"promotion_enabled": True, "max_strategy_drawdown_pct": 100}
    async with virtual_fund(fake, **{**defaults, **settings}) as world:
        if stage is not None:
            await world.fund.promotion.adopt("s", stage, by="ann", reason="r")
        await _tick(world)
        await _tick(world)
        yield world


LIVE, REDUCE, NONE = ("live", True, True), ("reduce", False, True), ("none", False, False)
ROWS: dict[str, tuple[PromotionStage | None, Prepare, tuple[str, bool, bool], dict[str, Any]]] = {
    "lease valid, running": (P.Live_Small, _nothing, LIVE, {}),
    "lease valid, pending": (P.Live_Small, _with(state="pending"), LIVE, {}),
    "lease expired, tick stuck": (P.Live_Small, _lease_expires, REDUCE, {}),
    "lease expired, host silent": (P.Live_Small, _host_falls_silent, REDUCE, {}),
    "status set aside": (P.Live_Small, _lists_twice, REDUCE, {}),
    "above its entitlement": (P.Live_Small, _with(allocated=9_000), REDUCE, {}),
    "daily loss reached": (P.Live_Small, _loses_the_day, REDUCE, {"max_daily_loss_pct": 2}),
    "paused by a person": (P.Live_Small, _paused_by_a_person, REDUCE, {}),
    "paused": (P.Live_Small, _with(state="paused"), REDUCE, {}),
    "failed": (P.Live_Small, _with(state="failed"), REDUCE, {}),
    "stopped": (P.Live_Small, _with(state="stopped"), REDUCE, {}),
    "retired at the engine": (P.Live_Small, _with(state="retired"), REDUCE, {}),
    "demoted, this session": (P.Live_Small, _demoted, REDUCE, {}),
    "demoted, afterwards": (
        P.Live_Small,
        _demoted_before_this_session,
        ("shadow", False, True),
        {},
    ),
    "killed, halt": (P.Live_Small, _killed, REDUCE, {}),
    "killed, flatten": (P.Live_Small, _killed, REDUCE, {"kill_action": "flatten"}),
    "killed, freeze": (P.Live_Small, _killed, NONE, {"kill_action": "freeze"}),
    "real and not registered": (None, _nothing, REDUCE, {}),
    "paper": (P.Paper, _nothing, ("paper", False, False), {}),
    "shadow": (P.Shadow, _nothing, ("shadow", False, False), {}),
    "paper under the kill of real money": (P.Paper, _killed, ("paper", False, False), {}),
    "paper under the kill of all": (P.Paper, _killed, NONE, {"kill_scope": "all"}),
}


@pytest.mark.parametrize("row", ROWS)
async def test_a_row_of_the_table_of_entitlements(row: str) -> None:
    stage, prepare, expected, settings = ROWS[row]
    async with _fund(stage, **settings) as world:
        await prepare(world)
        held = world.fund.entitlement("s")
        assert (held.mode, held.may_open, held.may_close) == expected
        assert (world.fund.may_trade("s"), world.fund.may_close("s")) == expected[1:]
        assert bool(held.why) is not held.may_open
        if held.mode in ("reduce", "none"):
            assert held.capital == 0


async def test_after_the_fund_has_stopped_it_may_only_close() -> None:
    async with _fund(P.Live_Small) as world:
        assert world.fund.may_trade("s")
    held = world.fund.entitlement("s")
    assert (held.mode, held.may_open, held.may_close) == REDUCE


async def test_an_unknown_name_may_do_nothing() -> None:
    async with _fund(P.Live_Small) as world:
        held = world.fund.entitlement("other")
        assert (held.mode, held.may_open, held.may_close) == NONE


async def test_the_daily_loss_is_over_with_the_session() -> None:
    async with _fund(P.Live_Small, max_daily_loss_pct=2) as world:
        await _loses_the_day(world)
        (blocker,) = (await world.fund.why("s")).blockers
        assert (blocker.kind, blocker.lift) == ("daily_loss", "the next session lifts it")
        await world.tick("2026-01-05")
        await _tick(world)
        assert world.fund.may_trade("s")


# -- a demotion acts at once


class Watching(FakeController):
    """Notes whether it might trade when it was told its stage."""

    def __init__(self, *statuses: StrategyStatus) -> None:
        super().__init__(*statuses)
        self.world: VirtualFund
        self.seen: list[tuple[str, bool]] = []

    async def set_stage(self, name: str, stage: str, capital_cap: Any) -> None:
        await super().set_stage(name, stage, capital_cap)
        self.seen.append((stage, self.world.fund.may_trade(name)))


async def test_a_persons_demotion_ends_the_lease_before_it_is_committed() -> None:
    fake = Watching(StrategyStatus("s", "running", stage="live-small"))
    async with virtual_fund(fake, promotion_enabled=True) as world:
        fake.world = world
        await world.fund.promotion.adopt("s", P.Live_Small, by="ann", reason="r")
        await _tick(world)
        await _tick(world)
        assert world.fund.may_trade("s")
        await world.fund.promotion.demote("s", to=P.Shadow, by="ann", reason="r")
        assert fake.seen == [("shadow", False)]
        held = world.fund.entitlement("s")
        assert (held.mode, held.may_open, held.may_close) == REDUCE
        assert held.capital == 0
        fake.set("s", state="running")
        await _tick(world)
        assert not world.fund.may_trade("s")


async def test_a_retirement_ends_the_lease_at_once() -> None:
    async with _fund(P.Live_Small) as world:
        await world.fund.promotion.retire("s", by="ann", reason="r")
        assert not world.fund.may_trade("s")
        assert world.fund.may_close("s")


async def test_a_demotion_that_storage_refuses_gives_the_lease_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(self: PromotionActor, statements: Any) -> StorageDegraded:
        seen.append(world.fund.may_trade("s"))
        return StorageDegraded("full")

    seen: list[bool] = []
    async with _fund(P.Live_Small) as world:
        with monkeypatch.context() as full:
            full.setattr(PromotionActor, "append", refuse)
            with pytest.raises(StorageDegraded):
                await world.fund.promotion.demote("s", by="ann", reason="r")
        assert seen == [False], "cut before the commit"
        assert world.fund.may_trade("s"), "the stage stands, and so does the lease"


# -- a person's pause is told


async def test_a_persons_pause_sends_its_alert_and_the_resume_ends_it() -> None:
    async with _fund(P.Live_Small) as world:
        await world.fund.pause("s", by="ann", reason="the prices look wrong")
        await world.fund.resume("s", by="bob", reason="a bad feed")
        await trio.testing.wait_all_tasks_blocked()
        paused, resumed = [a for a in world.sent_alerts() if a.title.startswith("s ")]
        assert (paused.level.value, paused.title) == ("WARNING", "s paused by ann")
        assert paused.message == (
            "the prices look wrong. Stopped: s. Left open: not known yet. Next automatic act: the"
            " engine is told to pause it at each tick while it runs. To undo: fundops strategy"
            " resume s --by NAME --reason TEXT."
        )
        assert (resumed.level.value, resumed.title) == ("INFO", "s resumed by bob")


# -- feeds that are pushed


async def test_a_pushed_feed_is_stale_after_the_configured_time_and_comes_back() -> None:
    async with virtual_fund(
        FakeController(StrategyStatus("s", "running")),
        self_healing_enabled=True,
        recovery_every_ticks=1,
        stale_feed_s=20,
    ) as world:
        await trio.to_thread.run_sync(world.fund.report_feed, "prices")
        world.fund.report_feed("own limit", None, 60)
        world.fund.report_feed("rare events", None, None)
        for _ in range(25):
            await _tick(world)
        titles = [alert.title for alert in world.sent_alerts()]
        assert titles == ["feed prices: stale"]
        world.fund.report_feed("prices")
        await _tick(world)
        assert "feed prices: back" in [alert.title for alert in world.sent_alerts()]
        world.clock.advance(7_200)
        await world.tick()
        stale = [a.title for a in world.sent_alerts() if "rare" in a.title]
        assert stale == []


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (("", None), "name"),
        (("x", -1), "last_data_us"),
        (("x", None, 0), "stale_after_s"),
        (("x", None, "soon"), "stale_after_s"),
        (("x", 10**18), "at_us"),
    ],
)
async def test_a_wrong_word_about_a_feed_is_refused_by_its_field(values: Any, field: str) -> None:
    async with virtual_fund(self_healing_enabled=True) as world:
        with pytest.raises(ConfigError) as refusal:
            world.fund.report_feed(*values)
        assert refusal.value.field == field


# -- settings at their bounds and beyond


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("kill_scope", ("live", "all"), ("paper", "", None)),
        ("mode", ("act", "observe"), ("watch", None)),
        ("max_daily_loss_pct", (None, 0.5, 100), (0, -1, 100.01, float("nan"), "2")),
        ("stale_feed_s", (0.001, 86_400), (0, -1, float("inf"), None)),
        ("kill_action", ("halt", "flatten", "freeze"), ("stop", None)),
        ("flatten_confirm_ticks", (1, 3), (0, -1, 1.5)),
        ("kill_confirm_ticks", (1, 3), (0, 1.5)),
        ("on_blind", ("reduce", "kill"), ("ignore", None)),
        ("lease_s", (2, 86_400), (0, 1.9, 86_401)),
        ("host_silent_s", (0.001, 86_400), (0, 86_401)),
        ("max_blind_s", (0.001, 86_400), (0, 86_401)),
        ("max_fund_drawdown_pct", (1, 100), (0, 0.15, 100.5)),
        ("max_strategy_drawdown_pct", (1, 100), (0, 0.15, 100.5)),
    ],
)
def test_a_setting_is_taken_at_its_bounds_and_refused_beyond_them_by_name(
    field: str, good: tuple[Any, ...], bad: tuple[Any, ...]
) -> None:
    for value in good:
        config = FundConfig(total_capital=1_000, **{field: value})
        assert getattr(config, field) == value
    for value in bad:
        with pytest.raises(ConfigError) as refusal:
            FundConfig(total_capital=1_000, **{field: value})
        assert refusal.value.field == field, value


# -- without promotion


async def test_without_promotion_each_has_the_whole_capital_and_the_host_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake = FakeController(StrategyStatus("a", "running"))
    async with virtual_fund(fake) as world:
        await _tick(world)
        assert "the host must divide" not in caplog.text
        fake.set("b", state="pending")
        await _tick(world)
        await _tick(world)
        for name in ("a", "b"):
            held = world.fund.entitlement(name)
            assert (held.mode, held.stage, held.capital) == ("live", None, Decimal(100_000))
    warned = [record for record in caplog.records if "the host must divide" in record.message]
    assert [record.levelname for record in warned] == ["WARNING"]
