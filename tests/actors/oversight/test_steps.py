"""The steps of a tick: each can fail alone, is counted and told once, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from fundops.actors.host import Heard
from fundops.actors.oversight import schema
from fundops.actors.oversight.round import Effects, Round
from fundops.actors.oversight.schema import Ending, Memory
from fundops.actors.oversight.settings import OversightSettings
from fundops.actors.oversight.steps import STEPS, Step
from fundops.actors.oversight.steps.engine import EngineStep, FeedsStep
from fundops.actors.oversight.steps.guard import GuardStep
from fundops.actors.oversight.steps.promotion import SampleStep
from fundops.actors.oversight.steps.reconcile import ReconcileStep
from fundops.actors.oversight.steps.remember import RememberStep
from fundops.actors.oversight.steps.sessions import CloseStep
from fundops.actors.oversight.steps.storage import StorageStep
from fundops.actors.persistence import DurableActor, Reader, Refusal
from fundops.reader import open_reader
from fundops.runtime import FundopsError, VirtualClock, pieces
from fundops.testing import FakeController, VirtualFund, virtual_fund
from fundops.wire.alert import AlertOutcome, AlertReceipt
from fundops.wire.controller import FeedStatus, StrategyStatus
from fundops.wire.persistence import Statement, StorageStatus
from fundops.wire.promotion import Observed

# Without an answer of the engine, and without an end of a session, there is no sample of risk.
NEEDS = {"engine": {"risk"}, "sessions": {"risk"}}


def _names() -> list[str]:
    """The names of all steps, in their order; a step that runs twice may have one name."""
    return list(dict.fromkeys(step.name for step in STEPS))


def _running(*, stage: str | None = None) -> FakeController:
    return FakeController(StrategyStatus("s", "running", 10_000, 10_000, stage=stage))


def _note_runs(patch: pytest.MonkeyPatch) -> list[str]:
    """The names of the steps that run from now on."""
    ran: list[str] = []

    def noting(run: Callable[[Step, Round], Any]) -> Callable[[Step, Round], Any]:
        async def run_noted(self: Step, tick: Round) -> Effects:
            ran.append(self.name)
            effects: Effects = await run(self, tick)
            return effects

        return run_noted

    for step in {step for step in STEPS if "run" in vars(step)}:
        patch.setattr(step, "run", noting(step.run))
    return ran


def _break(patch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    async def broken(self: Step, tick: Round) -> Effects:
        raise error

    for step in STEPS:
        if step.name == name:
            patch.setattr(step, "run", broken)


def _told(world: VirtualFund, name: str) -> list[tuple[str, str]]:
    """The alerts about this step that were asked for, also those that a gate dropped as told."""
    with open_reader(world.fund.config.path) as reader:
        page = reader.recent_alerts(1_000)
    return [
        (alert.level.value, alert.title)
        for alert in reversed(page.alerts)
        if f"step {name} " in alert.title
    ]


@pytest.mark.parametrize("error", [FundopsError("no"), ZeroDivisionError("a fault of ours")])
@pytest.mark.parametrize("name", _names())
async def test_a_step_that_fails_is_counted_and_told_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    ran = _note_runs(monkeypatch)
    async with virtual_fund(
        _running(stage="paper"),
        ledger_enabled=True,
        promotion_enabled=True,
        self_healing_enabled=name != "failures",
        recovery_every_ticks=1,
    ) as world:
        await world.fund.promotion.register("s")
        assert (await world.tick("2026-01-05")).failed == ()
        others = set(ran) - {name, "minutes"} - NEEDS.get(name, set())
        # Shorter than the time after which the guard's alert is repeated.
        apart_s = 60 if name == "minutes" else 10
        with monkeypatch.context() as patch:
            _break(patch, name, error)
            for session in ("2026-01-06", "2026-01-07", "2026-01-08"):
                ran.clear()
                world.clock.advance(apart_s)
                assert (await world.tick(session)).failed == (name,)
                assert others <= set(ran)
            counts = (await world.fund.status()).step_failures
        assert counts.keys() == {name}
        assert counts[name] >= 3
        assert [child.restarts for child in world.fund.tree() if child.name == "oversight"] == [0]
        for session in ("2026-01-09", "2026-01-12"):
            world.clock.advance(apart_s)
            assert (await world.tick(session)).failed == ()
        level = "CRITICAL" if name == "guard" else "WARNING"
        silent = name == "storage"  # it tells of the storage itself
        assert (
            _told(world, name) == []
            if silent
            else [
                (level, f"Oversight step {name} fails"),
                ("INFO", f"Oversight step {name} works again"),
            ]
        )


async def test_a_step_past_its_deadline_is_cancelled_and_told_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def hang(self: Step, tick: Round) -> Effects:
        await trio.sleep_forever()
        raise AssertionError

    async with virtual_fund(_running(), ledger_enabled=True) as world:
        await world.tick()
        with monkeypatch.context() as patch:
            for step in STEPS:
                if step.name == "totals":
                    patch.setattr(step, "run", hang)
            for _ in range(3):
                world.clock.advance(10)
                begun_s = trio.current_time()
                assert (await world.tick()).failed == ("totals",)
                assert trio.current_time() - begun_s < 30  # the leases last longer
                assert world.fund.may_trade("s")
        assert (await world.tick()).failed == ()
        assert [level for level, _ in _told(world, "totals")] == ["WARNING", "INFO"]


async def test_without_the_guards_step_a_person_is_woken_each_minute_and_the_leases_run_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = GuardStep.run
    async with virtual_fund(_running(), ledger_enabled=True) as world:
        begun_us, now_s = world.clock.now_us(), 0

        async def failing(self: GuardStep, tick: Round) -> Effects:
            if 10 <= now_s <= 139:
                raise FundopsError("no")
            return await run(self, tick)

        monkeypatch.setattr(GuardStep, "run", failing)
        may_trade: dict[int, bool] = {}
        while now_s < 141:
            now_s += 1
            world.clock.advance(1)
            may_trade[now_s] = world.fund.may_trade("s")  # before the tick
            failed = (await world.tick()).failed
            assert failed == (("guard",) if 10 <= now_s <= 139 else ())
            assert world.fund.may_close("s")
        assert (may_trade[39], may_trade[41]) == (True, False)
        told = [
            (alert.level.value, (alert.at_us - begun_us) // 1_000_000)
            for alert in world.sent_alerts()
            if "step guard" in alert.title
        ]
        assert told == [("CRITICAL", 10), ("CRITICAL", 70), ("CRITICAL", 130), ("INFO", 140)]


async def test_a_critical_alert_leaves_once_although_nothing_can_be_committed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "fund.db"
    async with virtual_fund(_running(), db_path=path, alert_log=True) as world:
        await world.tick()
        path.unlink()
        _break(monkeypatch, "guard", FundopsError("no"))
        told: list[int] = []
        for _ in range(9):
            world.clock.advance(10)
            assert {"guard", "remember"} <= set((await world.tick()).failed)
            lines = [text for text in caplog.messages if "GENERAL: Oversight step guard" in text]
            told.append(len(lines))
        assert told == [1] * 6 + [2] * 3, "the one after a minute has no key, and leaves once too"


async def test_a_session_that_the_host_named_ends_once_its_step_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with virtual_fund(_running()) as world:
        await world.tick()
        with monkeypatch.context() as patch:
            _break(patch, "session", FundopsError("no"))
            assert (await world.tick("2026-01-05")).failed == ("session",)
        assert await world.fund.nav_history() == ()
        await world.tick()
        assert [line.session for line in await world.fund.nav_history()] == ["2026-01-05"]


async def test_a_session_whose_end_failed_is_named_by_the_tick_that_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with virtual_fund(_running(), ledger_enabled=True, management_fee_bps=365) as world:
        await world.tick("2026-01-05")
        world.clock.advance(86_400)
        with monkeypatch.context() as patch:
            _break(patch, "session", ZeroDivisionError("a fault of ours"))
            report = await world.tick("2026-01-06")
            assert (report.failed, report.sessions) == (("session",), ())
        world.clock.advance(60)
        report = await world.tick()
        assert (report.failed, report.sessions) == ((), ("2026-01-06",))
        assert [line.session for line in await world.fund.nav_history()] == [
            "2026-01-06",
            "2026-01-05",
        ]
        keys = [entry.key for entry in await world.fund.ledger.recent_entries(100)]
        assert keys.count("fee:management:2026-01-06") == 1
        world.clock.advance(60)
        assert (await world.tick()).failed == ()


@pytest.mark.parametrize("actor", ["oversight", "ledger"])
async def test_a_tick_waits_for_its_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, actor: str
) -> None:
    free, ended = trio.Event(), trio.Event()
    append, slow = DurableActor.append, set[str]()

    async def held(self: DurableActor, statements: Sequence[Statement]) -> Refusal | None:
        if self.context.name in slow:
            await free.wait()
        return await append(self, statements)

    monkeypatch.setattr(DurableActor, "append", held)
    settings: dict[str, Any] = {"ledger_enabled": True, "management_fee_bps": 365}
    async with virtual_fund(_running(), db_path=tmp_path / "x.db", **settings) as world:
        await world.tick()
        world.clock.advance(86_400)
        slow.add(actor)

        async def tick() -> None:
            assert (await world.tick()).sessions == ("2026-01-05",)
            ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            await trio.testing.wait_all_tasks_blocked()
            assert not ended.is_set()
            free.set()
        with Reader(tmp_path / "x.db") as reader:
            [(line,)] = reader.rows("SELECT session FROM nav_history")
            keys = reader.rows("SELECT key FROM entry WHERE key LIKE 'fee:%'")
        assert (line, keys) == ("2026-01-05", [("fee:management:2026-01-05",)])


async def test_other_tasks_run_while_a_step_goes_through_many_strategies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pieces, "PIECE_S", 0.0)
    monkeypatch.setattr(schema, "BOOKS_AT_ONCE", 1)
    count, turns, taken = 30, 0, dict[str, int]()

    def counting(run: Callable[[Any, Round], Any]) -> Callable[[Any, Round], Any]:
        async def counted(self: Step, tick: Round) -> Effects:
            before = turns
            effects: Effects = await run(self, tick)
            taken[self.name] = turns - before
            return effects

        return counted

    for step in (EngineStep, FeedsStep, ReconcileStep, CloseStep, RememberStep):
        monkeypatch.setattr(step, "run", counting(step.run))

    async def spin() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    names = [f"s{number}" for number in range(count)]
    engine = FakeController(*(StrategyStatus(name, "running", stage="paper") for name in names))
    engine.feed_statuses = [FeedStatus(name, None) for name in names]
    async with virtual_fund(engine, promotion_enabled=True) as world:
        for name in names:
            await world.fund.promotion.register(name)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spin)
            for session in (None, "2026-01-06"):
                world.clock.advance(1)
                await world.tick(session)
            nursery.cancel_scope.cancel()
    assert taken.keys() == {"engine", "feeds", "reconcile", "session", "remember"}
    assert min(taken.values()) >= count - 1, taken


# -- steps by plain calls


def _ports(answer: Any, **more: Any) -> tuple[Any, list[Any]]:
    """Ports whose asked actors give this answer, and the requests made of them."""
    asked: list[Any] = []

    async def ask(actor: str, request: Any) -> Any:
        asked.append(request)
        return answer

    return SimpleNamespace(
        ask=ask, settings=OversightSettings(alerts_enabled=True), capital_minor=0, **more
    ), asked


@pytest.mark.parametrize(("missed", "evaluate"), [(False, True), (True, False)])
async def test_no_gate_is_judged_by_the_sample_of_a_missed_session(
    missed: bool, evaluate: bool
) -> None:
    ports, asked = _ports(Observed((), {}))
    memory = Memory(ending=(Ending("2026-01-05", missed, sample=True, marks=False),))
    heard = Heard((), {}, {}, 0.0, silent=False, at_us=None, listed=True, said=1)
    figures = {"2026-01-05": (StrategyStatus("s", "running"),)}
    await SampleStep(ports).run(Round(heard=heard, memory=memory, stored=memory, figures=figures))
    assert [(one.session, one.evaluate) for one in asked] == [("2026-01-05", evaluate)]


async def test_an_alert_about_storage_that_was_held_back_is_sent_again_each_minute() -> None:
    clock = VirtualClock(1_000_000_000)
    status = StorageStatus("degraded", "full", 1, 1, 0)
    ports, asked = _ports(
        AlertReceipt(1, AlertOutcome.RATE_SUPPRESSED, 1),
        clock=clock,
        storage=SimpleNamespace(read=lambda: status),
    )
    heard = Heard((), {}, {}, 0.0, silent=False, at_us=None, listed=True, said=1)
    step, sent = StorageStep(ports), list[int]()
    for advance_s in (0, 59, 1, 59, 1):
        clock.advance(advance_s)
        await step.run(Round(heard=heard))
        sent.append([one.dedup_key for one in asked].count("storage:degraded"))
    assert sent == [1, 1, 2, 2, 3]
