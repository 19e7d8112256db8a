"""Why a strategy may not trade real money: each blocker alone, several in order, and pauses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio.testing

from fundops import Fund, FundConfig, PromotionStage, StrategyStatus, VirtualClock
from fundops.actors.persistence import open_database
from fundops.file.database import MIGRATIONS
from fundops.reader import open_reader
from fundops.runtime import ConfigError, InlineWorker, MailboxFull
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.why import close_names, lines_of
from fundops.wire.errors import BadRequest, HostFault, KillSwitchEngaged, UnknownStrategy
from fundops.wire.why import BLOCKER_KINDS, Blocker, Why

PROMO: dict[str, Any] = {"promotion_enabled": True}
HEAL: dict[str, Any] = {"self_healing_enabled": True, "recovery_every_ticks": 1}
GOOD = {"sharpe": 1.2, "n_trades": 60, "max_drawdown": 0.05}
P = PromotionStage
PERSON = "--by NAME --reason TEXT"


def _fake(**more: Any) -> FakeController:
    return FakeController(
        StrategyStatus("s", "running", **{"equity": 1000, "allocated": 1000, **more})
    )


async def _ticks(world: VirtualFund, count: int = 1, seconds: float = 1) -> None:
    for _ in range(count):
        world.clock.advance(seconds)
        await world.tick()


async def _adopt(world: VirtualFund, stage: PromotionStage, name: str = "s") -> None:
    await world.fund.promotion.adopt(name, stage, by="a", reason="r")
    await _ticks(world, 2)


async def _why(world: VirtualFund, name: str = "s") -> Why:
    """The answer, after comparing it with what a host that orders is told."""
    why, held = await world.fund.why(name), world.fund.entitlement(name)
    assert (why.may_open, why.may_close) == (held.may_open, held.may_close)
    assert (why.mode, why.capital) == (held.mode, held.capital)
    assert why.may_open == (why.blockers == ())
    assert why.may_open == (held.why == "")
    places = [BLOCKER_KINDS.index(blocker.kind) for blocker in why.blockers]
    assert places == sorted(places)
    if held.why and why.blockers[-1].kind != "unknown":
        assert any(blocker.text.startswith(held.why) for blocker in why.blockers)
    return why


def _state(fake: FakeController) -> str:
    """The state at the engine now."""
    return fake.statuses["s"].state


def _kinds(why: Why) -> list[str]:
    return [blocker.kind for blocker in why.blockers]


def _only(why: Why) -> Blocker:
    (blocker,) = why.blockers
    return blocker


@asynccontextmanager
async def _live(fake: FakeController | None = None, **settings: Any) -> AsyncIterator[VirtualFund]:
    """A fund without promotion, in which the running strategy s trades real money."""
    async with virtual_fund(fake or _fake(), **settings) as world:
        await _ticks(world)
        assert (await _why(world)).may_open
        yield world


# -- each blocker alone


async def test_a_live_strategy_has_no_blocker() -> None:
    async with _live() as world:
        why = await _why(world)
        assert why == Why("s", True, True, None, "live", world.fund.entitlement("s").capital, ())
        assert lines_of(why) == (
            "s: mode live, capital 100,000.00",
            "real orders: may open, may close",
            "no blocker",
        )


async def test_the_kill_switch_is_a_blocker_with_its_author_and_its_release() -> None:
    async with _live() as world:
        world.controller.open_orders = 2
        await world.fund.kill_switch.engage(reason="a drill", by="ann")
        why = await _why(world)
        assert _only(why).lift == f"fundops kill-switch release {PERSON}"
        assert _only(why).text == (
            "the kill switch is ENGAGING since 2026-01-05 00:00:01 UTC, by ann: a drill"
            " (the engine has not answered yet)"
        )
        await _ticks(world, 2)
        why = await _why(world)
        assert _kinds(why) == ["kill_switch", "engine"], "the switch has stopped it"
        assert why.blockers[1].lift == "a person must start it at the engine"
        told = why.blockers[0].text
        assert "UNCONFIRMED" in told
        assert "2 orders still open; until it is confirmed" in told
        assert told.endswith("a release needs --accept-open-orders)")


async def test_a_pause_by_a_person_is_a_blocker_until_a_person_resumes() -> None:
    async with _live() as world:
        assert await world.fund.pause("s", by="ann", reason="new version")
        why = await _why(world)
        assert (why.mode, why.may_close, why.capital) == ("reduce", True, Decimal(0))
        lift = f"fundops strategy resume s {PERSON}"
        assert _only(why) == Blocker("operator", "paused by ann: new version", lift)
        await _ticks(world, 2)
        assert _only(await _why(world)).kind == "operator", "the engine's own pause follows from it"
        assert await world.fund.resume("s", by="ann", reason="done")
        assert _only(await _why(world)).kind == "lease"
        await _ticks(world)
        assert (await _why(world)).may_open


async def test_a_pause_by_the_guard_is_a_blocker() -> None:
    async with _live(max_strategy_drawdown_pct=3) as world:
        world.controller.set("s", equity=960)
        await _ticks(world, 2)
        lift = f"fundops strategy resume s {PERSON}"
        text = "the guard paused it at its drawdown limit"
        assert _only(await _why(world)) == Blocker("pause", text, lift)


async def test_a_retired_strategy_is_blocked_for_ever() -> None:
    async with virtual_fund(_fake(stage="paper"), **PROMO) as world:
        await world.fund.promotion.register("s")
        await world.fund.promotion.retire("s", by="ann", reason="old")
        await _ticks(world, 2)
        blocker = (await _why(world)).blockers[0]
        assert (blocker.kind, blocker.text) == ("retired", "its stage is retired")
        assert blocker.lift == "nothing: register its successor under another name"


async def test_a_hold_is_a_blocker_when_the_strategy_is_down() -> None:
    async with _live(**HEAL) as world:
        assert await world.fund.recovery.hold("s", by="ann")
        why = await _why(world)
        assert why.blockers == ()
        assert why.notes == (
            "recovery does not restart it: held by ann, but it runs; fundops recovery release s",
        )
        world.controller.set("s", state="failed", error="out of memory")
        await _ticks(world)
        why = await _why(world)
        assert _kinds(why) == ["hold", "engine"]
        assert why.blockers[0].lift == "fundops recovery release s"
        assert why.blockers[1].text == "the engine reports it failed: out of memory"


async def test_an_open_breaker_is_a_blocker_under_a_hold_too() -> None:
    async with _live(**HEAL) as world:
        world.controller.failures["restart"] = RuntimeError("no")
        world.controller.set("s", state="failed", error="boom")
        await _ticks(world)
        why = await _why(world)
        assert _kinds(why) == ["breaker", "engine"]
        assert "1 attempt so far" in why.blockers[0].text
        assert why.blockers[0].lift == ("the next attempt is due in 60 s: 2026-01-05 00:01:02 UTC")
        await _ticks(world, 20, 20)
        breaker = (await _why(world)).blockers[0]
        assert breaker.text.startswith("its circuit breaker is open after 3 attempts")
        assert breaker.lift == "fundops recovery reset s"
        await world.fund.recovery.hold("s", by="ann")
        why = await _why(world)
        assert _kinds(why) == ["hold", "breaker", "engine"]
        assert why.blockers[1].lift == "fundops recovery reset s"


@pytest.mark.parametrize("state", ["stopped", "paused", "failed", "retired"])
async def test_a_strategy_that_the_engine_does_not_run_is_blocked(state: Any) -> None:
    async with _live() as world:
        world.controller.set("s", state=state)
        await _ticks(world)
        blocker = _only(await _why(world))
        assert (blocker.kind, blocker.text) == ("engine", f"the engine reports it {state}")
        assert "a person must start it at the engine" in blocker.lift


async def test_a_pending_strategy_is_noted_and_not_blocked() -> None:
    async with _live() as world:
        world.controller.set("s", state="pending")
        await _ticks(world)
        why = await _why(world)
        assert why.notes == ("the engine has not begun to run it: it is pending",)


async def test_a_strategy_that_left_the_engines_list_is_blocked() -> None:
    async with _live() as world:
        del world.controller.statuses["s"]
        await _ticks(world)
        text = "the engine does not list it"
        lift = "the controller's strategies() must list it"
        assert _only(await _why(world)) == Blocker("engine", text, lift)


async def test_the_gate_tells_each_criterion_with_what_it_lacks() -> None:
    async with virtual_fund(_fake(stage="paper"), **PROMO) as world:
        await world.fund.promotion.register("s")
        await world.fund.promotion.record_metrics(
            "s", P.Paper, {"n_trades": 15, "max_drawdown": 0.25}
        )
        await _ticks(world, 2)
        why = await _why(world)
        assert (why.stage, why.mode) == ("paper", "paper")
        gates = {
            blocker.text.split()[3]: blocker for blocker in why.blockers if blocker.kind == "gate"
        }
        assert list(gates) == ["min_days", "min_trades", "min_sharpe", "max_drawdown"]
        days = gates["min_days"]
        assert days.text == (
            "gate to shadow: min_days is 0.00002 days, needs >= 14 days: 13.99998 days to go"
        )
        assert days.lift == "13.99998 days to go: 2026-01-19 at the earliest"
        assert gates["min_trades"].text == (
            "gate to shadow: min_trades is 15 trades, needs >= 50 trades: 35 trades to go"
        )
        assert gates["min_trades"].lift == "min_trades must be >= 50 trades"
        assert gates["min_sharpe"].text == (
            "gate to shadow: min_sharpe is not known, needs >= 1:"
            " no value of it was measured or recorded"
        )
        assert gates["min_sharpe"].lift.endswith("fundops strategy record s sharpe=VALUE")
        assert gates["max_drawdown"].text.endswith("is 25%, needs <= 20%: 5% too much")
        stage = why.blockers[-1]
        assert stage.kind == "stage"
        assert stage.text == (
            "its stage is paper; from there a further gate leads on to real money"
        )


async def test_frozen_and_cooldown_block_a_strategy_without_real_money() -> None:
    async with virtual_fund(_fake(stage="shadow"), **PROMO) as world:
        await _adopt(world, P.Shadow)
        await world.fund.promotion.record_metrics("s", P.Shadow, {"max_drawdown": 0.25})
        await world.fund.promotion.freeze("s", by="ann", reason="look")
        await _ticks(world)
        why = await _why(world)
        assert _kinds(why)[:2] == ["frozen", "cooldown"]
        assert why.blockers[0].lift == "fundops strategy unfreeze s"
        assert why.blockers[1].lift == "30 days to go: 2026-02-04"
        await world.fund.promotion.unfreeze("s", by="ann", reason="seen")
        assert _kinds(await _why(world))[0] == "cooldown"


async def test_a_frozen_live_strategy_trades_and_is_noted() -> None:
    async with virtual_fund(_fake(stage="live-small", allocated=1000), **PROMO) as world:
        await _adopt(world, P.Live_Small)
        await world.fund.promotion.freeze("s", by="ann", reason="look")
        why = await _why(world)
        assert why.may_open
        assert why.notes == ("it is frozen, so it is not promoted; fundops strategy unfreeze s",)


async def test_a_strategy_that_passes_its_gate_waits_for_a_person_or_for_capital() -> None:
    settings = {**PROMO, "min_paper_days": 0}
    async with virtual_fund(_fake(stage="shadow"), **settings) as world:
        await _adopt(world, P.Shadow)
        await world.fund.promotion.record_metrics("s", P.Shadow, GOOD)
        blocker = _only(await _why(world))
        assert blocker.kind == "stage"
        assert blocker.text == ("its stage is shadow; its gate passes, and it waits for a person")
        assert blocker.lift == "fundops strategy approve s"
        await world.fund.promotion.adopt("rich", P.Live_Scaled, by="a", reason="r")
        capital = (await _why(world)).blockers[0]
        assert capital.kind == "capital"
        assert capital.text == "1,000.00 wanted, the other strategies leave 0.00"
        await world.fund.promotion.retire("rich", by="a", reason="r")
        await world.fund.promotion.promote("s", by="ann")
        blocker = _only(await _why(world))
        assert (blocker.kind, blocker.lift) == ("lease", "the next tick gives it one")
        await _ticks(world, 2)
        assert (await _why(world)).may_open


async def test_a_strategy_that_promotion_will_move_by_itself_is_told_so() -> None:
    settings = {**PROMO, "min_paper_days": 0}
    async with virtual_fund(_fake(stage="paper"), **settings) as world:
        await world.fund.promotion.register("s")
        await _ticks(world)
        await world.fund.promotion.record_metrics("s", P.Paper, GOOD)
        blocker = _only(await _why(world))
        assert blocker.text == (
            "its stage is paper; its gate to shadow passes;"
            " from there a further gate leads on to real money"
        )
        assert blocker.lift == (
            "promotion's next look, which comes every 60 ticks,"
            " or: fundops strategy promote s --to shadow"
        )


async def test_a_strategy_that_nobody_registered_is_told_how() -> None:
    fake = _fake(stage="live-small")
    fake.set("p", stage="paper")
    async with virtual_fund(fake, **PROMO) as world:
        await _ticks(world, 2)
        text = "it is not registered with promotion"
        adopt = f"fundops strategy adopt s STAGE {PERSON}"
        assert _only(await _why(world)) == Blocker("not_registered", text, adopt)
        register = "fundops strategy register p"
        assert _only(await _why(world, "p")) == Blocker("not_registered", text, register)


async def test_more_in_force_than_the_stage_allows_is_a_blocker() -> None:
    fake = _fake(stage="live-small", allocated=50_000, equity=50_000)
    async with virtual_fund(fake, **PROMO) as world:
        await _adopt(world, P.Live_Small)
        blocker = _only(await _why(world))
        assert blocker.kind == "above_entitlement"
        assert blocker.text == "allocation in force 50,000.00, entitled to 1,000.00"


async def test_a_status_that_is_set_aside_is_a_blocker_that_names_its_field() -> None:
    async with _live() as world:
        world.controller.set("s", n_trades=-1)
        await _ticks(world)
        blocker = _only(await _why(world))
        assert blocker.kind == "set_aside"
        assert blocker.text.startswith("n_trades: -1 is not a whole number")
        assert blocker.lift == "its next status must have a right n_trades"


async def test_an_old_heartbeat_ends_the_lease_by_name() -> None:
    async with _live() as world:
        world.controller.set("s", heartbeat_us=START_US)
        world.clock.advance(70)
        await _ticks(world)
        blocker = _only(await _why(world))
        assert (blocker.kind, blocker.text) == ("lease", "its last heartbeat is 72 s old")


async def test_a_lease_runs_out_when_nothing_ticks() -> None:
    async with _live() as world:
        world.clock.advance(5)
        assert (await _why(world)).may_open
        world.clock.advance(26)
        world.controller.set("s")
        why = await world.fund.why("s")
        assert _only(why).text.startswith("its lease ran out: the host is silent")
        await _ticks(world)
        assert (await _why(world)).may_open


@asynccontextmanager
async def _pushing(folder: Path, **more: Any) -> AsyncIterator[tuple[Fund, VirtualClock]]:
    settings: dict[str, Any] = {
        "total_capital": 100_000,
        "tick_interval_s": None,
        "db_path": folder / "x.db",
        "control_socket": False,
    }
    clock, config = VirtualClock(START_US), FundConfig(**{**settings, **more})
    async with Fund.open(config, clock=clock, make_worker=lambda _: InlineWorker()) as fund:
        yield fund, clock


async def test_a_silent_host_ends_the_lease_and_is_told_what_to_call(tmp_path: Path) -> None:
    async with _pushing(tmp_path) as (fund, clock):
        fund.report(StrategyStatus("s", "running", equity=1000, allocated=1000))
        await fund.tick()
        for _ in range(12):
            clock.advance(1)
            await fund.tick()
        why = await fund.why("s")
        assert why.may_open
        assert why.notes == (
            "the host is silent, its last word is 12 s old; its lease is not renewed;"
            " fund.report must be called again",
        )
        for _ in range(30):
            clock.advance(1)
            await fund.tick()
        text = "its lease ran out: the host is silent, its last word is 42 s old"
        lift = "fund.report must be called again"
        assert _only(await fund.why("s")) == Blocker("lease", text, lift)


async def test_an_unknown_name_is_told_with_names_close_to_it() -> None:
    fake = _fake()
    fake.set("momentum-eu")
    async with virtual_fund(fake, **PROMO) as world:
        await world.fund.promotion.register("momentum-us")
        await _ticks(world)
        blocker = _only(await _why(world, "Momentum-e"))
        assert blocker.kind == "unknown"
        assert blocker.text == (
            "there is no strategy 'Momentum-e'; did you mean 'momentum-eu', 'momentum-us'?"
        )
        assert _only(await _why(world, "zzz")).text == "there is no strategy 'zzz'"
        assert _kinds(await _why(world, "momentum-us"))[-1] == "engine"
        for wrong in ("", " s", 5):
            with pytest.raises(ConfigError, match="name"):
                await world.fund.why(wrong)  # type: ignore[arg-type]


async def test_a_strategy_is_found_by_its_id() -> None:
    async with virtual_fund(_fake(stage="shadow"), **PROMO) as world:
        identity = await world.fund.promotion.register("s", P.Shadow)
        await _ticks(world)
        assert (await world.fund.why(identity)) == (await world.fund.why("s"))


# -- several, and parts that are down


async def test_several_blockers_come_in_order() -> None:
    settings = {**PROMO, **HEAL, "max_strategy_drawdown_pct": 100, "kill_scope": "all"}
    async with virtual_fund(_fake(stage="shadow"), **settings) as world:
        await _adopt(world, P.Shadow)
        await world.fund.promotion.record_metrics("s", P.Shadow, {"max_drawdown": 0.25})
        await _ticks(world)
        await world.fund.promotion.freeze("s", by="ann", reason="r")
        await world.fund.recovery.hold("s", by="ann")
        await world.fund.pause("s", by="bob", reason="night")
        world.controller.failures["pause"] = RuntimeError("no")
        world.controller.set("s", state="failed", error="boom", n_trades=-1)
        await _ticks(world)
        world.controller.set("s", n_trades=0)
        await _ticks(world)
        world.controller.set("s", n_trades=-1)
        await _ticks(world)
        await world.fund.kill_switch.engage(reason="enough", by="cat")
        why = await _why(world)
        assert [kind for kind in _kinds(why) if kind != "gate"] == [
            "kill_switch",
            "operator",
            "hold",
            "frozen",
            "cooldown",
            "stage",
            "set_aside",
            "engine",
        ]
        lines = lines_of(why)
        assert lines[0] == "s: stage paper, mode none, capital 0.00"
        assert lines[1] == "real orders: may not open, may not close"
        assert lines[2].startswith("1. kill switch: the kill switch is ENGAG")
        assert lines[3] == f"   lifted by: fundops kill-switch release {PERSON}"
        assert f"   lifted by: fundops strategy resume s {PERSON}" in lines


async def test_a_part_that_does_not_answer_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with virtual_fund(_fake(stage="live-small"), **PROMO, **HEAL) as world:
        await _adopt(world, P.Live_Small)

        async def refuse(*_: Any) -> Any:
            raise MailboxFull("recovery", 1)

        ask = world.fund._ask

        async def some(actor: str, *rest: Any) -> Any:
            return await (refuse if actor in ("recovery", "promotion") else ask)(actor, *rest)

        monkeypatch.setattr(world.fund, "_ask", some)
        why = await world.fund.why("s")
        assert why.may_open
        assert why.blockers == ()
        assert [note.split(":")[0] for note in why.notes] == [
            "promotion does not answer",
            "recovery does not answer",
        ]


async def test_it_waits_for_a_part_that_crashed_and_comes_back() -> None:
    async with virtual_fund(_fake(stage="live-small"), **PROMO, **HEAL) as world:
        await _adopt(world, P.Live_Small)
        world.fund.drill("promotion")
        why = await world.fund.why("s")
        assert (why.may_open, why.stage, why.notes) == (True, "live-small", ())


# -- an operator's pause


@pytest.mark.parametrize("field", ["by", "reason"])
@pytest.mark.parametrize("wrong", ["", "  ", None, 5])
async def test_a_pause_and_a_resume_need_a_name_and_a_reason(field: str, wrong: Any) -> None:
    async with _live() as world:
        words: dict[str, Any] = {"by": "ann", "reason": "r", field: wrong}
        for act in (world.fund.pause, world.fund.resume):
            with pytest.raises(BadRequest) as caught:
                await act("s", **words)
            assert caught.value.field == field
        assert (await _why(world)).may_open


async def test_an_unknown_strategy_is_not_paused() -> None:
    async with virtual_fund(_fake(), **PROMO) as world:
        await _ticks(world)
        with pytest.raises(UnknownStrategy, match="'nobody'"):
            await world.fund.pause("nobody", by="ann", reason="r")
        await world.fund.promotion.register("later")
        assert await world.fund.pause("later", by="ann", reason="not yet")
        assert (await _why(world, "later")).blockers[0].kind == "operator"


async def test_a_strategy_without_real_money_is_paused_too() -> None:
    async with virtual_fund(_fake(stage="paper"), **PROMO) as world:
        await world.fund.promotion.register("s")
        await _ticks(world)
        assert await world.fund.pause("s", by="ann", reason="r")
        await trio.testing.wait_all_tasks_blocked()
        assert world.controller.calls[-1] == ("pause", "s", "r")
        assert (await _why(world)).blockers[0].kind == "operator"
        assert not await world.fund.pause("s", by="bob", reason="other")
        assert (await _why(world)).blockers[0].text == "paused by ann: r"


async def test_a_strategy_reported_since_the_last_tick_is_paused(tmp_path: Path) -> None:
    async with _pushing(tmp_path) as (fund, _):
        fund.report(StrategyStatus("s", "running", equity=1000, allocated=1000))
        assert await fund.pause("s", by="ann", reason="r")
        await fund.tick()
        assert not fund.may_trade("s")
        assert _only(await fund.why("s")).kind == "operator"


async def test_a_pause_waits_for_neither_the_engine_nor_the_database(tmp_path: Path) -> None:
    class Hanging(FakeController):
        async def pause(self, name: str, reason: str) -> None:
            self.calls.append(("pause", name, reason))
            await trio.sleep_forever()

    fake = Hanging(StrategyStatus("s", "running", equity=1000, allocated=1000))
    path = tmp_path / "x.db"
    async with _live(fake, db_path=path) as world:
        other = open_database(path, MIGRATIONS)
        other.execute("BEGIN IMMEDIATE")
        with trio.fail_after(0.5):
            assert await world.fund.pause("s", by="ann", reason="r")
            assert not world.fund.may_trade("s")
        other.execute("ROLLBACK")
        other.close()
        await trio.testing.wait_all_tasks_blocked()
        assert fake.calls == [("pause", "s", "r")]


async def test_the_engine_is_told_again_while_it_does_not_obey() -> None:
    async with _live() as world:
        world.controller.failures["pause"] = RuntimeError("not now")
        await world.fund.pause("s", by="ann", reason="r")
        await _ticks(world, 2)
        assert _state(world.controller) == "running"
        del world.controller.failures["pause"]
        await _ticks(world)
        await trio.testing.wait_all_tasks_blocked()
        assert _state(world.controller) == "paused"
        told = len(world.controller.calls)
        await _ticks(world, 3)
        assert len(world.controller.calls) == told


async def test_a_pause_survives_a_restart_and_a_crash_of_every_part(tmp_path: Path) -> None:
    fake = _fake()
    async with virtual_fund(fake, db_path=tmp_path / "x.db") as world:
        await _ticks(world)
        await world.fund.pause("s", by="ann", reason="r")
        await trio.testing.wait_all_tasks_blocked()
        for part in ("oversight", "persistence", "guard"):
            world.fund.drill(part)
            await trio.sleep(0.3)
            await _ticks(world)
            assert not world.fund.may_trade("s"), part
    fake.set("s", state="running")
    async with virtual_fund(fake, db_path=tmp_path / "x.db") as world:
        assert _kinds(await _why(world)) == ["operator", "lease"]
        await _ticks(world, 2)
        assert not world.fund.may_trade("s")
        assert fake.statuses["s"].state == "paused"
        assert await world.fund.resume("s", by="ann", reason="done")
        await _ticks(world)
        assert world.fund.may_trade("s")


async def test_neither_a_demotion_nor_a_promotion_ends_an_operators_pause() -> None:
    async with virtual_fund(_fake(stage="live-small"), **PROMO) as world:
        await _adopt(world, P.Live_Small)
        await world.fund.pause("s", by="ann", reason="r")
        await world.fund.promotion.demote("s", by="bob", reason="slippage")
        await _ticks(world, 3)
        assert (await _why(world)).blockers[0].kind == "operator"
        await world.fund.promotion.retire("s", by="bob", reason="old")
        await _ticks(world, 2)
        assert _kinds(await _why(world))[:2] == ["operator", "retired"]


async def test_one_resume_ends_both_pauses_and_needs_the_engine() -> None:
    async with _live(max_strategy_drawdown_pct=3) as world:
        await world.fund.pause("s", by="ann", reason="r")
        world.controller.set("s", equity=960)
        await _ticks(world)
        assert _kinds(await _why(world)) == ["operator", "pause"]
        world.controller.failures["resume"] = RuntimeError("not now")
        with pytest.raises(HostFault, match="resume"):
            await world.fund.resume("s", by="ann", reason="r")
        assert _kinds(await _why(world)) == ["operator", "pause"]
        del world.controller.failures["resume"]
        assert await world.fund.resume("s", by="ann", reason="r")
        await _ticks(world)
        assert (await _why(world)).may_open
        assert not await world.fund.resume("s", by="ann", reason="r")


async def test_under_the_kill_switch_nothing_is_resumed() -> None:
    async with _live() as world:
        await world.fund.pause("s", by="ann", reason="r")
        await world.fund.kill_switch.engage(reason="x", by="ann")
        await _ticks(world, 2)
        with pytest.raises(KillSwitchEngaged, match="ENGAGED: release it"):
            await world.fund.resume("s", by="ann", reason="r")
        assert not any(call[0] == "resume" for call in world.controller.calls)
        await world.fund.kill_switch.release(by="ann", reason="r")
        assert await world.fund.resume("s", by="ann", reason="r")
        await _ticks(world)
        assert (await _why(world)).may_open


async def test_a_resume_that_overtakes_a_pause_is_the_last_word_at_the_engine() -> None:
    class Slow(FakeController):
        async def pause(self, name: str, reason: str) -> None:
            await heard.wait()
            await super().pause(name, reason)

    heard = trio.Event()
    fake = Slow(StrategyStatus("s", "running", equity=1000, allocated=1000))
    async with _live(fake) as world:
        await world.fund.pause("s", by="ann", reason="r")
        await trio.testing.wait_all_tasks_blocked()
        assert await world.fund.resume("s", by="ann", reason="r")
        heard.set()
        await trio.testing.wait_all_tasks_blocked()
        assert [call[0] for call in fake.calls] == ["resume", "pause", "resume"]
        await _ticks(world)
        assert (await _why(world)).may_open


async def test_under_freeze_a_pause_touches_nothing_at_the_engine() -> None:
    async with _live(kill_action="freeze") as world:
        await world.fund.kill_switch.engage(reason="x", by="ann")
        await world.fund.pause("s", by="ann", reason="r")
        await _ticks(world, 2)
        assert not any(call[0] == "pause" for call in world.controller.calls)
        await world.fund.kill_switch.release(by="ann", reason="r")
        await _ticks(world)
        await trio.testing.wait_all_tasks_blocked()
        assert ("pause", "s", "r") in world.controller.calls
        assert not world.fund.may_trade("s")


# -- from the file


@pytest.mark.parametrize(("scope", "stopped"), [("live", []), ("all", ["kill_switch"])])
async def test_the_file_tells_what_is_stored_of_a_fund_that_does_not_run(
    tmp_path: Path, scope: str, stopped: list[str]
) -> None:
    path, settings = tmp_path / "x.db", {**PROMO, **HEAL, "kill_scope": scope}
    async with virtual_fund(_fake(stage="live-small"), db_path=path, **settings) as world:
        await _adopt(world, P.Live_Small)
        await world.fund.promotion.register("young")
        await world.fund.promotion.freeze("young", by="ann", reason="r")
        await world.fund.pause("s", by="ann", reason="night")
        await world.fund.recovery.hold("s", by="bob")
        await _ticks(world, 2)
        await world.fund.kill_switch.engage(reason="x", by="cat")
        await _ticks(world)
    with open_reader(path) as reader:
        why = reader.why("s")
        assert _kinds(why) == ["kill_switch", "operator", "hold", "lease"]
        assert (why.mode, why.may_open, why.may_close) == ("reduce", False, True)
        assert (why.stage, why.capital) == ("live-small", Decimal(0))
        assert why.blockers[0].text.startswith("the kill switch is ENGAGED")
        assert why.blockers[3].lift == "the fund's program must run"
        young = reader.why("young")
        assert [kind for kind in _kinds(young) if kind != "gate"] == [
            *stopped,
            "frozen",
            "stage",
            "lease",
            "engine",
        ]
        assert young.notes == (), "its gate is judged by the policy that the file stores"
        unknown = reader.why("yuong")
        assert unknown.blockers[-1].text == "there is no strategy 'yuong'; did you mean 'young'?"
        with pytest.raises(ConfigError, match="name"):
            reader.why("")


async def test_the_file_tells_the_bound_of_all_capital_as_the_running_fund_does(
    tmp_path: Path,
) -> None:
    names = ("old", "new")
    controller = FakeController(
        *(StrategyStatus(name, "running", equity=1, stage="live-small") for name in names)
    )
    clock, settings = VirtualClock(START_US), {"db_path": tmp_path / "x.db", **PROMO}
    async with virtual_fund(controller, clock=clock, **settings) as world:
        for name in names:
            await _adopt(world, P.Live_Small, name)
            clock.advance(1)
    settings["max_total_entitlement_pct"] = 1.5  # of 1% for each
    async with virtual_fund(controller, clock=clock, **settings) as world:
        await _ticks(world, 3)
        told = {name: await world.fund.why(name) for name in names}
    assert [_kinds(told[name]) for name in names] == [[], ["capital"]]
    with open_reader(settings["db_path"]) as reader:
        for name in names:
            lease, *others = reversed(reader.why(name).blockers)
            assert lease.kind == "lease"
            assert tuple(others) == told[name].blockers


# -- the pieces


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("carry", {"carry-1", "carry-2"}),
        ("CARRY-1", {"carry-1", "carry-2"}),
        ("xyz", set()),
    ],
)
def test_close_names_are_similar_whatever_their_case(name: str, close: set[str]) -> None:
    assert set(close_names(name, ["momentum", "carry-1", "carry-2"])) == close


async def test_a_name_with_a_space_is_quoted_for_the_shell() -> None:
    async with virtual_fund(FakeController(StrategyStatus("mean reversion", "running"))) as world:
        await _ticks(world)
        await world.fund.pause("mean reversion", by="ann", reason="line 1\nline 2")
        why = await _why(world, "mean reversion")
        assert _only(why).lift == f"fundops strategy resume 'mean reversion' {PERSON}"
        assert lines_of(why)[2] == "1. operator: paused by ann: line 1 line 2"
