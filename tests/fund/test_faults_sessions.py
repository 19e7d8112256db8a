"""Sessions, fees and the clock over a whole fund: downtime, restarts, steps of the clock, a locked
database, and figures that no column holds.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import apsw
import pytest

from fundops import Fund, FundConfig, FundManager, PromotionStage
from fundops.actors.oversight import OversightActor, schema
from fundops.actors.oversight.schema import Memory
from fundops.actors.oversight.steps import promotion
from fundops.actors.persistence import DurableActor, Reader, database, store
from fundops.runtime import ConfigError, InlineWorker, VirtualClock
from fundops.testing import FakeController, VirtualFund, virtual_fund
from fundops.wire.controller import Fill, StrategyStatus
from fundops.wire.errors import BadRequest, StorageDegraded
from fundops.wire.persistence import Statement
from fundops.wire.promotion import Observe

D = Decimal
DAY_S = 86_400
MONDAY_US = 1_767_571_200_000_000  # 2026-01-05 00:00 UTC
CAPITAL = D(100_000)


class SteppedClock(VirtualClock):
    """A virtual clock whose wall time can be set; its monotonic time goes on."""

    def step(self, seconds: float) -> None:
        self._now_us += round(seconds * 1_000_000)
        self._start_us += round(seconds * 1_000_000)


class NoReports:
    """A controller that reports strategies and nothing else."""

    def __init__(self, *statuses: StrategyStatus) -> None:
        self.statuses = list(statuses)

    def strategies(self) -> list[StrategyStatus]:
        return self.statuses


def at_us(text: str) -> int:
    return int(dt.datetime.fromisoformat(f"{text}+00:00").timestamp()) * 1_000_000


def running(name: str = "s", **figures: Any) -> StrategyStatus:
    return StrategyStatus(name, "running", **{"equity": 1_000, "allocated": 1_000, **figures})


def samples(path: Path) -> list[tuple[str, float]]:
    """Session and equity of each sample that promotion took, in order."""
    with Reader(path) as reader:
        return reader.rows("SELECT session, equity FROM promotion_sample ORDER BY session")


def record(path: Path) -> Memory:
    with Reader(path) as reader:
        return schema.load(reader)


async def lines(world: VirtualFund) -> list[tuple[str, Decimal, bool]]:
    """The sessions that ended, oldest first."""
    history = await world.fund.nav_history()
    return [(line.session, line.nav, line.missed) for line in reversed(history)]


def exact(amount: object) -> Decimal:
    assert isinstance(amount, Decimal)
    return amount


async def fee_keys(world: VirtualFund) -> dict[str, Decimal]:
    """The amount of each booked fee by its key."""
    entries = await world.fund.ledger.recent_entries(1_000)
    return {
        entry.key: max(exact(leg.amount) for leg in entry.legs)
        for entry in reversed(entries)
        if entry.key is not None and entry.key.startswith("fee:")
    }


@contextmanager
def locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another program holds the write lock for longer than a commit waits."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 0)
    monkeypatch.setattr(store, "LOCK_ATTEMPTS", 1)
    monkeypatch.setattr(store, "LOCKED_OUT_WAIT_MS", 1)
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close()


# -- downtime


async def test_a_host_that_is_down_every_midnight_misses_no_session(tmp_path: Path) -> None:
    clock, path = VirtualClock(MONDAY_US + 30_000_000), tmp_path / "fund.db"
    engine = FakeController(running())
    for day in range(6):
        async with virtual_fund(
            engine,
            clock=clock,
            db_path=path,
            promotion_enabled=True,
            ledger_enabled=True,
            management_fee_bps=365,
        ) as world:
            if day == 0:
                await world.fund.promotion.register("s")
            await world.tick()
            found, fees = await lines(world), await fee_keys(world)
            engine.set("s", equity=1_000 + day)
            await world.advance(DAY_S - 60, step_s=3_600)
        clock.advance(60)
    sessions = [f"2026-01-{5 + day:02}" for day in range(5)]
    assert [(session, missed) for session, _, missed in found] == [(day, True) for day in sessions]
    # An orderly stop books the fee up to its instant, and the session's end the rest.
    ended = [key for key in fees if key.count(":") == 2]
    assert ended == [f"fee:management:{session}" for session in sessions]
    assert len(fees) == 2 * len(ended)
    assert sum(fees.values()) == pytest.approx(D(50), abs=D("0.02"))
    # The figures are the last ones before the end, not those of the next morning.
    assert samples(path) == [(session, 1_000.0 + day) for day, session in enumerate(sessions)]


async def test_a_session_that_ended_in_a_short_downtime_has_all_its_parts(tmp_path: Path) -> None:
    clock, path = VirtualClock(at_us("2026-01-05 23:00:00")), tmp_path / "fund.db"
    engine = FakeController(running(unrealized_pnl=25))
    engine.fill_list = [Fill("1", "s", "X", D(1), D(100), D(0), MONDAY_US, "1")]
    settings: dict[str, Any] = {
        "db_path": path,
        "clock": clock,
        "ledger_enabled": True,
        "promotion_enabled": True,
    }
    async with virtual_fund(engine, management_fee_bps=365, **settings) as world:
        await world.fund.promotion.register("s")
        await world.advance(3_000)
    clock.advance(1_200)
    engine.set("s", unrealized_pnl=77)
    async with virtual_fund(engine, management_fee_bps=365, **settings) as world:
        assert (await world.tick()).sessions == ("2026-01-05",)
        [(session, _, missed)] = await lines(world)
        assert (session, missed) == ("2026-01-05", True)
        assert (await world.fund.ledger.balance_sheet())["POSITIONS"] == 125
        stopped, ended = await fee_keys(world)
        assert stopped.startswith("fee:management:2026-01-05:")
        assert ended == "fee:management:2026-01-05"
    assert [name for name, _ in samples(path)] == ["2026-01-05"]


@pytest.mark.parametrize("end_of_life", ["none", "stop", "crash"])
async def test_missed_weekday_sessions_end_in_order_with_the_last_known_nav(
    tmp_path: Path, end_of_life: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, path = VirtualClock(at_us("2026-05-14 10:00:00")), tmp_path / "fund.db"
    engine = FakeController(running())
    settings: dict[str, Any] = {
        "clock": clock,
        "db_path": path,
        "ledger_enabled": True,
        "promotion_enabled": True,
        "session": "weekdays 17:30 Europe/London",
        "management_fee_bps": 365,
    }

    async def end(world: VirtualFund) -> None:
        clock.advance_to(at_us("2026-05-19 09:00:00"))
        engine.set("s", equity=1_500)
        await world.tick()
        found = await lines(world)
        assert [(session, missed) for session, _, missed in found] == [
            ("2026-05-14", True),
            ("2026-05-15", True),
            ("2026-05-18", True),
        ]
        fees = await fee_keys(world)
        assert {key[-10:]: fee for key, fee in fees.items()} == {
            "2026-05-14": D("2.70833333"),
            "2026-05-15": D("10.00000000"),
            "2026-05-18": D("30.00000000"),
        }
        assert [nav for _, nav, _ in found] == [
            D("99997.29166667"),
            D("99987.29166667"),
            D("99957.29166667"),
        ]

    async with virtual_fund(engine, **settings) as world:
        await world.fund.promotion.register("s")
        await world.tick()
        if end_of_life == "none":
            await end(world)
        if end_of_life == "crash":
            monkeypatch.setattr(OversightActor, "on_stop", DurableActor.on_stop)
    if end_of_life != "none":
        async with virtual_fund(engine, **settings) as world:
            await end(world)
    # After a crash the last word is lost, and the first one since must do, for that session alone.
    equity = 1_500.0 if end_of_life == "crash" else 1_000.0
    assert samples(path) == [("2026-05-14", equity)]


# -- the clock


async def test_a_clock_that_steps_back_over_midnight_ends_each_session_once(tmp_path: Path) -> None:
    clock, path = SteppedClock(at_us("2026-01-05 23:59:58")), tmp_path / "fund.db"
    engine = FakeController(running(equity=600))
    async with virtual_fund(
        engine, clock=clock, db_path=path, promotion_enabled=True, ledger_enabled=True
    ) as world:
        await world.fund.promotion.register("s")
        await world.tick()
        clock.advance(2.5)
        assert (await world.tick()).sessions == ("2026-01-05",)
        engine.set("s", equity=1_000)
        clock.step(-2)
        for _ in range(5):
            assert (await world.tick()).failed == ()
            clock.advance(1)
        assert [session for session, _, _ in await lines(world)] == ["2026-01-05"]
        await world.advance(DAY_S)
        assert [session for session, _, _ in await lines(world)] == ["2026-01-05", "2026-01-06"]
    assert samples(path) == [("2026-01-05", 600.0), ("2026-01-06", 1_000.0)]


@pytest.mark.parametrize("jump_s", [3_600, -3_600])
async def test_a_jump_of_the_clock_is_one_alert_and_nothing_ends(jump_s: int) -> None:
    clock = SteppedClock(at_us("2026-01-05 23:30:00"))
    async with virtual_fund(
        FakeController(running()), clock=clock, ledger_enabled=True, management_fee_bps=365
    ) as world:
        await world.tick()
        clock.step(jump_s)
        await world.advance(600)
        status = await world.fund.status()
        assert (status.clock_suspect, status.total_fees) == (True, D(0))
        assert await lines(world) == []
        assert len(await world.fund.nav_history(every="minute")) == 1, "a wrong clock names none"
        clock.step(-jump_s)
        await world.advance(60)
        status = await world.fund.status()
        assert not status.clock_suspect
        assert status.total_fees == pytest.approx(D(10 * 660) / DAY_S, abs=D("1e-6"))
        told = [alert for alert in world.sent_alerts() if "clock_jump" in alert.title]
        assert [alert.level.value for alert in told] == ["WARNING", "INFO"]


@pytest.mark.parametrize(
    ("jump_s", "suspect"), [(60, False), (-60, False), (61, True), (-61, True)]
)
async def test_a_clock_is_suspect_beyond_a_minute(jump_s: int, suspect: bool) -> None:
    clock = SteppedClock(MONDAY_US)
    async with virtual_fund(FakeController(running()), clock=clock) as world:
        await world.tick()
        clock.step(jump_s)
        await world.tick()
        assert (await world.fund.status()).clock_suspect is suspect


async def test_a_person_who_confirms_the_clock_lets_sessions_go_on() -> None:
    clock = SteppedClock(at_us("2026-01-05 23:30:00"))
    async with virtual_fund(FakeController(running()), clock=clock, ledger_enabled=True) as world:
        await world.tick()
        assert not await world.fund.confirm_clock(by="ann", reason="looked")
        clock.step(3_600)
        assert (await world.tick()).sessions == ()
        world.fund.drill("oversight")
        assert (await world.tick()).sessions == (), "a restart confirms nothing"
        for by, reason in (("", "looked"), ("ann", " ")):
            with pytest.raises(BadRequest):
                await world.fund.confirm_clock(by=by, reason=reason)
        assert await world.fund.confirm_clock(by="ann", reason="the clock had been wrong")
        assert (await world.tick()).sessions == ("2026-01-05",)


@pytest.mark.parametrize("stepped_s", [0, 7_200])
async def test_no_fee_is_booked_up_to_an_instant_of_a_suspect_clock(
    tmp_path: Path, stepped_s: int
) -> None:
    clock, path = SteppedClock(MONDAY_US), tmp_path / "fund.db"
    settings: dict[str, Any] = {"ledger_enabled": True, "management_fee_bps": 365}
    engine = FakeController(running())
    async with virtual_fund(engine, clock=clock, db_path=path, **settings) as world:
        await world.tick()
        await world.advance(3_600)
        clock.step(stepped_s)
        await world.tick()
        await world.fund.ledger.withdraw(1_000, key="w")
    with Reader(path) as reader:
        booked = reader.rows("SELECT kind FROM entry WHERE kind LIKE '%_fee'")
    # Otherwise one comes before the withdrawal; at the stop no more has accrued.
    assert booked == ([] if stepped_s else [("management_fee",)])


@pytest.mark.parametrize("flow", [58_000, -5_800])
async def test_a_flow_under_a_suspect_clock_changes_no_units_value_and_its_fee_waits(
    flow: int,
) -> None:
    clock, engine = SteppedClock(MONDAY_US), FakeController(running(allocated=50_000, equity=None))
    async with virtual_fund(
        engine, clock=clock, total_capital=50_000, ledger_enabled=True, performance_fee_pct=20.0
    ) as world:
        await world.tick()
        engine.set("s", realized_pnl=10_000)
        await world.tick()
        clock.step(3_600)
        await world.tick()
        ledger = world.fund.ledger
        await (ledger.deposit(flow) if flow > 0 else ledger.withdraw(-flow))
        for _ in range(2):
            await world.tick()
            status = await world.fund.status()
            assert (status.nav, status.drawdown_pct) == (D(58_000 + flow), 0)
            assert status.total_fees == 2_000
            assert await fee_keys(world) == {}
        clock.step(-3_600)
        await world.tick()
        status = await world.fund.status()
        assert (status.nav, status.total_fees) == (D(58_000 + flow), D(2_000))
        assert list((await fee_keys(world)).values()) == ([] if flow > 0 else [D(200)])


async def test_crystallisation_waits_while_the_clock_is_suspect() -> None:
    clock, engine = SteppedClock(MONDAY_US), FakeController(running(allocated=60_000, equity=None))
    async with virtual_fund(
        engine,
        clock=clock,
        total_capital=60_000,
        ledger_enabled=True,
        performance_fee_pct=10.0,
        crystallise_every_days=5,
    ) as world:
        await world.tick()
        engine.set("s", realized_pnl=6_000)
        clock.step(6 * DAY_S)
        for _ in range(3):
            await world.advance(60)
        assert await fee_keys(world) == {}
        assert (await world.fund.status()).total_fees == 600, "accrued all the same"
        assert record(world.fund.config.path).fees.mark_per_unit == 1
        await world.fund.confirm_clock(by="ann", reason="the clock had been wrong")
        await world.tick()
        assert await fee_keys(world) == {"fee:performance:2026-01-09": 600}


async def test_a_session_named_while_the_clock_is_suspect_ends_later() -> None:
    clock = SteppedClock(MONDAY_US)
    async with virtual_fund(FakeController(running()), clock=clock) as world:
        await world.tick()
        clock.step(90)
        assert (await world.tick("2026-01-05")).sessions == ()
        clock.step(-90)
        assert (await world.tick()).sessions == ("2026-01-05",)


async def test_promotions_wait_while_the_clock_is_suspect_and_demotions_do_not() -> None:
    clock, engine = SteppedClock(MONDAY_US), FakeController(running("up"), running("down"))
    async with virtual_fund(
        engine,
        clock=clock,
        promotion_enabled=True,
        promotion_every_ticks=1,
        promotion_policy="literal",
        min_paper_days=2,
        min_trades=0,
        min_sharpe=-99,
        min_win_rate=0,
    ) as world:
        promotion = world.fund.promotion
        clock.advance(600)  # so that two days in the stage are over within a session
        await promotion.register("up")
        await promotion.adopt("down", PromotionStage.Live_Scaled, by="ann", reason="test")
        await world.tick()
        for seconds, equity in ((DAY_S - 600, 1_001), (DAY_S, 1_003)):
            engine.set("up", equity=equity)
            await world.advance(seconds, step_s=seconds / 2)
        clock.step(120)
        clock.advance(1_200)
        await promotion.record_metrics("down", PromotionStage.Live_Scaled, {"max_drawdown": 0.5})
        report = await world.tick()
        assert (report.promotions, report.demotions) == (0, 1)
        clock.step(-120)
        assert (await world.tick()).promotions == 1


# -- calendars


async def test_the_first_named_session_switches_the_configured_calendar_off(tmp_path: Path) -> None:
    clock, path = VirtualClock(MONDAY_US), tmp_path / "fund.db"
    for _ in range(2):
        async with virtual_fund(FakeController(running()), clock=clock, db_path=path) as world:
            await world.tick()
            await world.tick(dt.date(2026, 1, 5))
            await world.advance(2 * DAY_S, step_s=DAY_S)
            await world.tick("2026-01-05")
            assert [session for session, _, _ in await lines(world)] == ["2026-01-05"]


@pytest.mark.parametrize(
    ("settings", "session", "per_year"),
    [
        ({}, None, 365),
        ({"session": "weekdays 16:00 America/New_York"}, None, 252),
        ({}, "2026-01-05", 252),
    ],
    ids=["UTC days", "weekdays", "named"],
)
async def test_promotion_is_told_how_many_sessions_a_year_has(
    settings: dict[str, Any],
    session: str | None,
    per_year: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told, observe = [], Observe

    def noted(*facts: Any, **named: Any) -> Any:
        request = observe(*facts, **named)
        told.append((request.session, request.periods_per_year))
        return request

    monkeypatch.setattr(promotion, "Observe", noted)
    async with virtual_fund(FakeController(running()), promotion_enabled=True, **settings) as world:
        if session is None:
            await world.advance(DAY_S, step_s=3_600)
        await world.tick(session)
    [found] = [each for each in told if each[0] is not None][-1:]
    assert found == ("2026-01-05", per_year)


@pytest.mark.parametrize(
    ("named", "sharpe"), [(False, 6.57), (True, 5.46)], ids=["UTC days", "named"]
)
async def test_sixty_sessions_are_annualised_by_their_calendar(named: bool, sharpe: float) -> None:
    # Returns alternate around 0.34679%, 1% above and below it.
    engine, equity = FakeController(running(stage="paper")), 1_000.0
    async with virtual_fund(engine, promotion_enabled=True) as world:
        await world.fund.promotion.register("s")
        await world.tick()
        for day in range(60):
            equity *= 1 + 0.0034679 + (0.01 if day % 2 else -0.01)
            engine.set("s", equity=equity)
            world.clock.advance(DAY_S)
            date = dt.date(2026, 1, 5) + dt.timedelta(days=day)
            report = await world.tick(date if named else None)
            assert report.sessions == (date.isoformat(),)
        metrics = (await world.fund.promotion.snapshot("s")).metrics
        assert metrics["sharpe"] == pytest.approx(sharpe, abs=0.005)


async def test_fridays_value_is_fresh_on_monday_of_a_weekday_calendar() -> None:
    settings: dict[str, Any] = {
        "session": "weekdays 16:00 America/New_York",
        "clock": VirtualClock(at_us("2026-01-07 12:00:00")),
        "promotion_enabled": True,
        "min_paper_days": 0,
        "min_trades": 0,
        "min_sharpe": -1_000,
    }
    engine = FakeController(running(stage="paper"))
    async with virtual_fund(engine, **settings) as world:
        promotion, clock = world.fund.promotion, world.clock
        await promotion.register("s")
        await promotion.freeze("s")  # or the end of a session would promote it
        for day, equity in (("07", 1_001), ("08", 1_003), ("09", 1_002)):
            await world.tick()
            clock.advance_to(at_us(f"2026-01-{day} 21:00:00"))
            engine.set("s", equity=equity)
            assert (await world.tick()).sessions == (f"2026-01-{day}",)
        engine.failures["strategies"] = ConnectionError()
        clock.advance_to(at_us("2026-01-12 14:00:00"))
        assert (await world.tick()).sessions == ()
        evaluation = await promotion.evaluate("s")
        assert evaluation.verdict == "PASS"
        ages_s = {line.age_s for line in evaluation.criteria if line.age_s is not None}
        assert ages_s == {65 * 3_600}
        for day, verdict in (("12", "PASS"), ("13", "INCONCLUSIVE")):
            clock.advance_to(at_us(f"2026-01-{day} 21:00:00"))
            assert (await world.tick()).sessions == (f"2026-01-{day}",)
            assert (await promotion.evaluate("s")).verdict == verdict


@pytest.mark.parametrize("session", ["\ud800", "monday", "2026-1-5", 5])
async def test_a_name_that_is_no_date_is_refused_and_the_tick_goes_on(session: Any) -> None:
    async with virtual_fund(FakeController(running())) as world:
        with pytest.raises(ConfigError) as refusal:
            await world.tick(session)
        assert refusal.value.field == "session"
        assert (await world.tick()).number == 1
        assert all(child.restarts == 0 for child in world.fund.tree())


def test_the_synchronous_door_ticks_and_confirms_the_clock(tmp_path: Path) -> None:
    config = FundConfig(total_capital=1, db_path=tmp_path / "x.db", tick_interval_s=None)
    with FundManager(config, clock=VirtualClock(MONDAY_US)) as fund:
        assert fund.tick(dt.date(2026, 1, 5)).sessions == ("2026-01-05",)
        assert fund.confirm_clock(by="ann", reason="looked") is False
        with pytest.raises(ConfigError):
            fund.tick("\ud800")


# -- storage


async def test_a_session_waits_until_every_consumer_has_taken_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, path = VirtualClock(MONDAY_US), tmp_path / "fund.db"
    engine = FakeController(running())
    settings: dict[str, Any] = {
        "promotion_enabled": True,
        "ledger_enabled": True,
        "management_fee_bps": 365,
    }
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 0)
    async with virtual_fund(engine, clock=clock, db_path=path, **settings) as world:
        await world.fund.promotion.register("s")
        await world.tick()
        clock.advance(DAY_S)
        await world.tick("2026-01-05")
        clock.advance(DAY_S)
        engine.set("s", equity=700)
        with locked(path, monkeypatch):
            assert "remember" in (await world.tick("2026-01-06")).failed
            engine.set("s", equity=900)
            for _ in range(19):
                clock.advance(1)
                await world.tick()
        assert [name for name, _ in samples(path)] == ["2026-01-05"]
        clock.advance(1)
        assert (await world.tick()).failed == ()
        assert samples(path)[1:] == [("2026-01-06", 700.0)], "the figures of its end"
        assert [session for session, _, _ in await lines(world)] == ["2026-01-05", "2026-01-06"]
        assert await fee_keys(world) == {
            "fee:management:2026-01-05": D("10.00000000"),
            "fee:management:2026-01-06": D("9.99900000"),
        }
        snapshot = await world.fund.promotion.snapshot("s")
        assert snapshot.metrics["max_drawdown"] == pytest.approx(0.3)


async def test_the_words_of_a_host_that_fell_silent_are_no_sample(tmp_path: Path) -> None:
    clock, path = VirtualClock(MONDAY_US), tmp_path / "fund.db"
    config = FundConfig(
        total_capital=1_000, db_path=path, tick_interval_s=None, promotion_enabled=True
    )
    async with Fund.open(config, clock=clock, make_worker=lambda _: InlineWorker()) as fund:
        await fund.promotion.register("s")
        for day in (5, 6, 7):
            if day != 6:
                fund.report(running(equity=1_000 + day))
                await fund.tick()
                clock.advance(1)
            await fund.tick(f"2026-01-0{day}")
            clock.advance(DAY_S)
    assert samples(path) == [("2026-01-05", 1_005.0), ("2026-01-07", 1_007.0)]


async def test_a_consumer_that_is_down_takes_its_session_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, path = VirtualClock(MONDAY_US), tmp_path / "fund.db"
    engine = FakeController(running(equity=D("700.5")))
    append = DurableActor.append

    async def refuse_samples(self: DurableActor, statements: Sequence[Statement]) -> Any:
        if any("promotion_sample" in statement.sql for statement in statements if statement.rows):
            return StorageDegraded("full")
        return await append(self, statements)

    async with virtual_fund(engine, clock=clock, db_path=path, promotion_enabled=True) as world:
        await world.fund.promotion.register("s")
        await world.tick()
        clock.advance(60)
        monkeypatch.setattr(DurableActor, "append", refuse_samples)
        report = await world.tick("2026-01-05")
        assert (report.sessions, report.failed) == (("2026-01-05",), ("sample",))
        assert samples(path) == []
    monkeypatch.undo()
    engine.set("s", equity=999)
    async with virtual_fund(engine, clock=clock, db_path=path, promotion_enabled=True) as world:
        assert (await world.tick()).failed == ()
    assert samples(path) == [("2026-01-05", 700.5)]


async def test_the_figures_of_the_last_tick_are_stored_at_an_orderly_stop(tmp_path: Path) -> None:
    clock, path = VirtualClock(MONDAY_US), tmp_path / "fund.db"
    engine = FakeController(running(realized_pnl=100))
    async with virtual_fund(engine, clock=clock, db_path=path) as world:
        await world.tick()
        await world.advance(60)
        engine.set("s", realized_pnl=150)
        await world.advance(60)
        before = record(path).guard
    after = record(path)
    assert before.nav_minor == 100_100 * 10**8
    assert after.guard.nav_minor == 100_150 * 10**8
    assert after.guard.peak_per_unit > before.peak_per_unit
    assert schema.read_back(after.statuses) == (engine.statuses["s"],)


async def test_a_peak_that_is_not_stored_outlives_the_oversight_actor() -> None:
    engine = FakeController(running(equity=None, allocated=100_000))
    async with virtual_fund(engine) as world:
        await world.advance(120)
        engine.set("s", realized_pnl=99)  # a rise by less than 0.1% is stored at the session's end
        await world.advance(60)
        world.fund.drill("oversight")
        engine.set("s", realized_pnl=-10_000)
        await world.advance(60)
        [oversight] = [child for child in world.fund.tree() if child.name == "oversight"]
        assert oversight.restarts == 1
        status = await world.fund.status()
        assert status.drawdown_pct == pytest.approx(100 * (1 - 90_000 / 100_099), abs=1e-6)


async def test_a_deposit_that_only_the_guard_remembers_pays_no_performance_fee(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, engine = tmp_path / "fund.db", FakeController(running(equity=None, allocated=100_000))
    settings: dict[str, Any] = {"ledger_enabled": True, "performance_fee_pct": 20.0}
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 0)  # at the opening, too
    async with virtual_fund(engine, db_path=path, **settings) as world:
        await world.advance(60)
        engine.set("s", realized_pnl=10_000)
        await world.advance(60)
        await world.fund.ledger.deposit(108_000)
        with locked(path, monkeypatch):
            assert "remember" in (await world.tick()).failed
        world.fund.drill("oversight")
        assert (await world.tick()).failed == ()
        status = await world.fund.status()
        assert status.total_fees == pytest.approx(D(2_000), abs=D("0.01"))


async def test_a_peak_survives_a_crash_to_a_tenth_of_a_percent(tmp_path: Path) -> None:
    engine = FakeController(running())
    path = tmp_path / "fund.db"
    async with virtual_fund(engine, db_path=path) as world:
        await world.tick()
        for pnl in range(0, 20_001, 10):
            engine.set("s", realized_pnl=pnl, equity=1_000 + pnl)
            await world.tick()
            assert record(path).guard.peak_per_unit >= (1 + pnl / 100_000) / 1.001 - 1e-9


# -- figures


@pytest.mark.parametrize("pnl", [310_000, 1_000, 10_000_000])
async def test_a_gain_never_engages_the_kill_switch(pnl: int) -> None:
    engine = FakeController(running(allocated=100_000, equity=None))
    async with virtual_fund(
        engine, ledger_enabled=True, management_fee_bps=200, performance_fee_pct=20.0
    ) as world:
        await world.advance(120)
        engine.set("s", realized_pnl=pnl)
        for _ in range(3):
            await world.advance(60)
            status = await world.fund.status()
            assert status.drawdown_pct == pytest.approx(0, abs=1e-3)
        assert status.kill_switch == "OFF"


async def test_nav_beyond_the_database_is_refused_by_name_and_nothing_is_lost() -> None:
    names = ("a", "b", "c", "d")
    engine = FakeController(*(running(name, realized_pnl=4e10) for name in names))
    async with virtual_fund(engine, total_capital=4e10, self_healing_enabled=True) as world:
        for day in (5, 6):
            report = await world.tick(f"2026-01-0{day}")
            assert report.failed == ("guard",)
            assert (await world.fund.status()).nav == D(4 * 10**10)
        [alert] = [one for one in world.sent_alerts() if "guard" in one.title]
        assert "200,000,000,000.00" in alert.message
        for name in names:
            engine.set(name, realized_pnl=1)  # 0 would be counters that restarted
        await world.tick()
        assert (await world.tick()).failed == ()
        status = await world.fund.status()
        assert (status.nav, status.drawdown_pct, status.kill_switch) == (
            D(4 * 10**10 + 4),
            0,
            "OFF",
        )
        assert [(session, nav) for session, nav, _ in await lines(world)] == [
            ("2026-01-05", D(4 * 10**10)),
            ("2026-01-06", D(4 * 10**10)),
        ]


async def test_the_fee_of_units_that_leave_is_charged_to_them() -> None:
    engine = FakeController(running(allocated=50_000, equity=None))
    async with virtual_fund(
        engine, total_capital=50_000, ledger_enabled=True, performance_fee_pct=20.0
    ) as world:
        await world.tick()
        engine.set("s", realized_pnl=10_000)
        await world.tick()
        assert (await world.fund.status()).nav == 58_000
        await world.fund.ledger.withdraw(5_800)
        await world.tick()
        status = await world.fund.status()
        assert (status.nav, status.total_fees, status.drawdown_pct) == (D(52_200), D(2_000), 0)
        await world.tick()
        [(key, fee)] = (await fee_keys(world)).items()
        assert (key, fee) == (f"fee:performance:2026-01-05:{MONDAY_US}", D(200))
        await world.fund.ledger.deposit(52_200)
        await world.tick()
        status = await world.fund.status()
        assert status.nav == pytest.approx(D(104_400), abs=D("0.0001"))
        assert status.drawdown_pct == pytest.approx(0, abs=1e-6)
        assert status.kill_switch == "OFF"


async def test_the_performance_fee_is_final_every_so_many_days() -> None:
    engine = FakeController(running(allocated=60_000, equity=None))
    async with virtual_fund(
        engine,
        total_capital=60_000,
        ledger_enabled=True,
        performance_fee_pct=10.0,
        crystallise_every_days=5,
    ) as world:
        await world.tick()
        fees = []
        for day in range(1, 11):
            engine.set(
                "s", realized_pnl={3: 6_000, 4: 6_000, 10: 4_500}.get(day, 4_000 * (day > 4))
            )
            await world.advance(DAY_S, step_s=DAY_S / 4)
            fees.append((await fee_keys(world)).copy())
            if day == 3:
                assert (await world.fund.status()).nav == 65_400
        assert [len(found) for found in fees] == [0, 0, 0, 0, 1, 1, 1, 1, 1, 2]
        assert fees[-1] == {"fee:performance:2026-01-09": 400, "fee:performance:2026-01-14": 50}
        assert record(world.fund.config.path).fees.mark_per_unit == pytest.approx(1.0675)
        assert (await world.fund.status()).total_fees == 450


# -- two NAVs


async def test_a_book_without_reports_of_its_own_is_not_compared() -> None:
    engine: Any = NoReports(running(realized_pnl=500))
    async with virtual_fund(engine, ledger_enabled=True) as world:
        await world.advance(2 * DAY_S, step_s=600)
        assert (await world.fund.status()).nav_difference == -500, "shown, not told"
        assert world.sent_alerts() == []


@pytest.mark.parametrize("part", ["fills", "settlements"])
async def test_one_kind_of_reports_is_enough_to_compare_the_books(part: str) -> None:
    class Reports(NoReports):
        """One of the parts alone."""

    setattr(Reports, part, lambda self, after: ())
    engine: Any = Reports(running(realized_pnl=500))
    async with virtual_fund(engine, ledger_enabled=True, recovery_every_ticks=1) as world:
        await world.advance(180, step_s=10)
        assert [alert.level.value for alert in world.sent_alerts()] == ["CRITICAL"]


async def test_a_break_is_told_once_it_stands_and_is_over_when_mended() -> None:
    engine = FakeController(running(unrealized_pnl=40))
    engine.fill_list = [Fill("1", "s", "X", D(1), D(100), D(0), MONDAY_US, "1")]
    async with virtual_fund(engine, ledger_enabled=True, recovery_every_ticks=1) as world:
        await world.advance(600)
        assert world.sent_alerts() == [], "P&L that is not marked yet is no break"
        engine.set("s", realized_pnl=50)
        await world.advance(59, step_s=10)
        assert world.sent_alerts() == []
        await world.advance(60, step_s=10)
        [alert] = world.sent_alerts()
        assert (alert.level.value, alert.title) == ("CRITICAL", "Ledger and engine disagree on NAV")
        assert "difference -50" in alert.message
        engine.set("s", realized_pnl=D("0.001"))  # 0 would be counters that restarted
        await world.advance(120, step_s=60)
        assert [one.level.value for one in world.sent_alerts()] == ["CRITICAL", "INFO"]


# -- settings


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("tick_interval_s", {"tick_interval_s": 1e-9}),
        ("lease_s", {"tick_interval_s": 60, "lease_s": 30}),
        ("lease_s", {"lease_s": 1e308}),
        ("max_fund_drawdown_pct", {"max_fund_drawdown_pct": 0.15}),
        ("max_strategy_drawdown_pct", {"max_strategy_drawdown_pct": 0.25}),
        ("session", {"session": "weekdays 25:00 Europe/London"}),
        ("break_tolerance", {"break_tolerance": -1}),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(field: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refusal:
        FundConfig(total_capital=1, **settings)
    assert refusal.value.field == field


async def test_a_tight_limit_that_is_meant_is_taken_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with virtual_fund(max_fund_drawdown_pct=0.15, allow_tight_limits=True):
        [warning] = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert "max_fund_drawdown_pct is 0.15%" in warning


async def test_a_fund_charges_no_fee_that_nobody_asked_for() -> None:
    engine = FakeController(running(realized_pnl=5_000))
    async with virtual_fund(engine, ledger_enabled=True) as world:
        await world.advance(3 * DAY_S, step_s=3_600)
        status = await world.fund.status()
        assert (status.total_fees, status.nav) == (D(0), D(105_000))
        assert await fee_keys(world) == {}
