"""The promotion actor on the real database: one transaction for each move, capital cut before it
and raised after.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from fundops.actors.guard import Leases
from fundops.actors.guard.leases import Grant
from fundops.actors.host import Host
from fundops.actors.persistence import PersistenceActor, Reader
from fundops.actors.promotion import (
    Capital,
    PromotionActor,
    PromotionPolicy,
    core,
    policy_of,
)
from fundops.actors.promotion.capital import check_capital, entitled_minor
from fundops.actors.promotion.evaluation import evaluate
from fundops.actors.promotion.evidence import Record, with_record
from fundops.actors.promotion.strategy import Strategy
from fundops.file.database import MIGRATIONS
from fundops.runtime import (
    DAY_US,
    Actor,
    ActorCrashed,
    ChildSpec,
    InlineWorker,
    Rejected,
    Supervisor,
    VirtualClock,
    handles,
    open_supervisor,
)
from fundops.wire.alert import AlertsWaiting
from fundops.wire.controller import StrategyStatus
from fundops.wire.errors import (
    CapitalExceeded,
    Conflict,
    ConstraintFailed,
    CoolingDown,
    GateNotPassed,
    MetricError,
    OutcomeUnknown,
    SkipRefused,
    StaleRevision,
    StorageDegraded,
    StrategyFrozen,
    StrategyRetired,
    UnknownStage,
    UnknownStrategy,
)
from fundops.wire.persistence import Commit
from fundops.wire.promotion import (
    Adopt,
    Demote,
    DemoteAutomatically,
    Evaluate,
    Evaluation,
    Freeze,
    HistoryEntry,
    Observe,
    Observed,
    Promote,
    PromotionHistory,
    PromotionSnapshot,
    PromotionStage,
    ReadSnapshot,
    ReadStrategies,
    RecordMetrics,
    Register,
    Retire,
    Transition,
)

Paper, Shadow, Small, Scaled, Live, Retired = (
    PromotionStage.Paper,
    PromotionStage.Shadow,
    PromotionStage.Live_Small,
    PromotionStage.Live_Scaled,
    PromotionStage.Live,
    PromotionStage.Retired,
)
T0 = 1_700_000_000_000_000
CAPITAL_MINOR = 100_000 * 10**8
GREEN: dict[str, float | list[float]] = {"sharpe": 1.2, "max_drawdown": 0.08, "n_trades": 150}
GUARDED = policy_of()
LITERAL = policy_of("literal")
BOUND = Capital(CAPITAL_MINOR, 100.0)


class Engine:
    """The host's engine: takes stages, and notes what the database said at that moment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[tuple[str, str, Decimal | None, str]] = []  # with the stage then stored
        self.fails = False

    def strategies(self) -> list[StrategyStatus]:
        return []

    async def set_stage(self, name: str, stage: str, capital_cap: Decimal | None) -> None:
        with Reader(self.path) as reader:
            stored = reader.row("SELECT stage FROM promotions WHERE strategy = ?", (name,))[0]
        self.calls.append((name, stage, capital_cap, stored))
        if self.fails:
            raise RuntimeError("the engine does not listen")


class Storage(PersistenceActor):
    """The real one, until it is told to answer something else; it keeps what it was asked to
    commit.
    """

    def __init__(self, path: Path, mood: "Mood") -> None:
        super().__init__(path, MIGRATIONS, make_worker=InlineWorker)
        self._mood = mood

    async def commit(self, requests: list[Commit]) -> list[Any]:
        refusal = self._mood.refusal
        if refusal is None or not any(request.statements for request in requests):
            self._mood.committed += requests
            return list(await super().commit(requests))
        if self._mood.lands:
            await super().commit(requests)
        return [refusal] * len(requests)


class Mood:
    def __init__(self) -> None:
        self.refusal: Rejected | None = None
        self.lands = False
        self.committed: list[Commit] = []


class Bell(Actor):
    """In the alert actor's place: counts how often it is woken."""

    rung = 0

    @handles(AlertsWaiting)
    def ring(self, _: AlertsWaiting) -> None:
        type(self).rung += 1


class Tree:
    """A running promotion actor with its engine and clock."""

    def __init__(
        self, supervisor: Supervisor, engine: Engine, clock: VirtualClock, mood: Mood
    ) -> None:
        self.supervisor, self.engine, self.clock, self.mood = supervisor, engine, clock, mood
        self.promotion = supervisor.ref("promotion")

    async def ask(self, request: Any) -> Any:
        return await self.promotion.ask(request, timeout_s=60)

    async def register(self, name: str = "mm", stage: PromotionStage = Paper) -> str:
        """Registered, or adopted where real money is."""
        if stage.is_live:
            adopt = Adopt(name, stage, "owner", "was live before", over_capital=True)
            return str(await self.ask(adopt))
        return str(await self.ask(Register(name, stage)))

    async def green(self, name: str = "mm", days: float = 14, **metrics: float) -> None:
        """So many days later, with passing metrics."""
        self.clock.advance(days * 86_400)
        stage = (await self.snapshot(name)).stage
        await self.ask(RecordMetrics(name, stage, {**GREEN, **metrics}))

    async def snapshot(self, name: str = "mm") -> PromotionSnapshot:
        found: PromotionSnapshot = await self.ask(ReadSnapshot(name))
        return found

    async def look(
        self,
        *statuses: StrategyStatus,
        session: str | None = None,
        evaluate: bool = True,
    ) -> list[tuple[str, PromotionStage, PromotionStage, bool]]:
        observed: Observed = await self.ask(Observe(statuses or (status(),), session, evaluate))
        return [
            (one.strategy, one.from_stage, one.to_stage, one.hard) for one in observed.transitions
        ]

    async def history(self, name: str | None = None, limit: int = 50) -> list[tuple[str, str]]:
        lines: tuple[HistoryEntry, ...] = await self.ask(PromotionHistory(name, limit))
        return [(line.kind, line.to_stage.value) for line in lines]


def status(name: str = "mm", equity: Any = None, **fields: Any) -> StrategyStatus:
    return StrategyStatus(name, "running", equity=equity, **{"allocated": 100.0, **fields})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fund.db"


@asynccontextmanager
async def opened(
    path: Path,
    policy: PromotionPolicy = GUARDED,
    *,
    alerts: bool = True,
    clock: VirtualClock | None = None,
    leases: Leases | None = None,
) -> AsyncIterator[Tree]:
    mood, clock, engine = Mood(), clock or VirtualClock(T0), Engine(path)
    Bell.rung = 0
    async with trio.open_nursery() as nursery:
        acts = Host(engine, nursery).acts
        children = [
            ChildSpec("persistence", lambda: Storage(path, mood)),
            *([ChildSpec("alert", Bell)] if alerts else []),
            ChildSpec(
                "promotion", lambda: PromotionActor(path, clock, acts, policy, BOUND, leases)
            ),
        ]
        async with open_supervisor(children) as supervisor:
            yield Tree(supervisor, engine, clock, mood)


def rows(path: Path, sql: str) -> list[Any]:
    with Reader(path) as reader:
        return reader.rows(sql)


def alerts(path: Path) -> list[tuple[str, str]]:
    return rows(
        path, "SELECT level, title FROM alert_request WHERE category = 'PROMOTION' ORDER BY id"
    )


# -- registering


async def test_the_same_name_gives_the_same_id_and_one_line_of_history(path: Path) -> None:
    async with opened(path) as tree:
        one, other = await tree.register(), await tree.register()
        assert one == other
        assert await tree.history() == [("register", "paper")]
        with pytest.raises(SkipRefused):
            await tree.ask(Register("bold", Small))
        with pytest.raises(UnknownStage):
            await tree.ask(Register("odd", Live))
        with pytest.raises(Conflict):
            await tree.ask(Adopt("mm", Small, "owner", "again"))
        for request in (
            Evaluate("none"),
            Promote("none"),
            ReadSnapshot("none"),
            PromotionHistory("none"),
        ):
            with pytest.raises(UnknownStrategy):
                await tree.ask(request)


async def test_an_adopted_strategy_says_by_whom_and_why(path: Path) -> None:
    async with opened(path) as tree:
        await tree.ask(Adopt("mm", Scaled, "owner", "live since spring"))
        (line,) = (await tree.snapshot()).history
        assert (line.kind, line.from_stage, line.to_stage, line.by, line.reason) == (
            "adopt",
            None,
            Scaled,
            "owner",
            "live since spring",
        )


# -- metrics


async def test_a_refused_record_stores_nothing(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register()
        await tree.ask(RecordMetrics("mm", Paper, {"n_trades": 5}))
        for stage, metrics, as_of_us in (
            (Paper, {"n_trades": 9, "sharpe": float("nan")}, None),
            (Paper, {"max_drawdown": 8.0}, None),
            (Shadow, {"n_trades": 9}, None),
            (Paper, {"n_trades": 9}, T0 + DAY_US),
            (Paper, {"n_trades": 9}, -(2**70)),
        ):
            with pytest.raises(MetricError):
                await tree.ask(RecordMetrics("mm", stage, metrics, as_of_us))
        assert (await tree.snapshot()).metrics == {"n_trades": 5}
        assert len(rows(path, "SELECT * FROM promotion_metrics")) == 1
        assert tree.promotion.epoch == 1


async def test_metrics_of_one_instant_and_source_are_recorded_once(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register()
        request = RecordMetrics("mm", Paper, {"n_trades": 5}, T0, "backtest")
        for _ in range(2):
            await tree.ask(request)
        with pytest.raises(Conflict):
            await tree.ask(RecordMetrics("mm", Paper, {"n_trades": 6}, T0, "backtest"))
        await tree.ask(RecordMetrics("mm", Paper, {"n_trades": 7}, T0, "desk"))
        assert len(rows(path, "SELECT * FROM promotion_metrics")) == 2
        for _ in range(2):
            await tree.ask(RecordMetrics("mm", Paper, {"n_trades": 7}))
        assert len(rows(path, "SELECT * FROM promotion_metrics")) == 4
    async with opened(path) as tree:
        await tree.ask(request)
        assert len(rows(path, "SELECT * FROM promotion_metrics")) == 4


# -- promoting by hand


async def test_the_example_of_the_documentation_reaches_shadow_after_14_days(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register()
        await tree.green(days=13.9)
        with pytest.raises(GateNotPassed):
            await tree.ask(Promote("mm"))
        await tree.green(days=0.1)
        moved: Transition = await tree.ask(Promote("mm", by="owner", reason="looks good"))
        assert (moved.kind, moved.from_stage, moved.to_stage) == ("promote", Paper, Shadow)
        snapshot = await tree.snapshot()
        assert (snapshot.stage, snapshot.days_in_stage, snapshot.rev, snapshot.metrics) == (
            Shadow,
            0,
            2,
            {},
        )
        line = snapshot.history[-1]
        assert (line.kind, line.by, line.reason, line.metrics, line.rev) == (
            "promote",
            "owner",
            "looks good",
            GREEN,
            2,
        )
        assert line.evaluation_id


async def test_in_three_stages_the_same_example_waits_for_a_win_rate(path: Path) -> None:
    async with opened(path, policy_of(ladder="three-stage")) as tree:
        await tree.register()
        await tree.green()
        with pytest.raises(GateNotPassed, match=r"min_win_rate \(missing\)"):
            await tree.ask(Promote("mm"))
        await tree.green(days=0, win_rate=0.45)
        assert (await tree.ask(Promote("mm"))).to_stage is Shadow


async def test_skips_stale_revisions_and_frozen_strategies_are_refused_and_write_nothing(
    path: Path,
) -> None:
    async with opened(path) as tree:
        await tree.register()
        await tree.green()
        with pytest.raises(SkipRefused):
            await tree.ask(Promote("mm", to=Small, by="the owner himself"))
        with pytest.raises(StaleRevision):
            await tree.ask(Promote("mm", expected_rev=9))
        await tree.ask(Freeze("mm", True, "owner", "wait"))
        with pytest.raises(StrategyFrozen):
            await tree.ask(Promote("mm"))
        assert await tree.history() == [("freeze", "paper"), ("register", "paper")]
        await tree.ask(Freeze("mm", False))
        assert (await tree.ask(Promote("mm"))).to_stage is Shadow
        await tree.ask(Freeze("mm", True))
        assert (await tree.ask(Demote("mm", reason="enough"))).to_stage is Paper


async def test_of_two_who_promote_the_same_revision_one_succeeds(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register()
        await tree.green()
        outcomes: list[Any] = []

        async def promote() -> None:
            try:
                outcomes.append(await tree.ask(Promote("mm", expected_rev=1)))
            except StaleRevision as stale:
                outcomes.append(stale)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(promote)
            nursery.start_soon(promote)
        assert {type(one) for one in outcomes} == {Transition, StaleRevision}
        assert await tree.history() == [("promote", "shadow"), ("register", "paper")]


async def test_retired_ends_capital_metrics_and_transitions(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register(stage=Small)
        await tree.ask(Retire("mm", "owner", "over"))
        assert tree.engine.calls == [("mm", "retired", Decimal(0), "live-small")]
        for request in (
            Promote("mm"),
            Demote("mm"),
            Freeze("mm", True),
            Retire("mm"),
            RecordMetrics("mm", Paper, GREEN),
        ):
            with pytest.raises(StrategyRetired):
                await tree.ask(request)
        assert await tree.look() == []
        terms = (await tree.ask(Observe(()))).terms["mm"]
        assert (terms.stage, terms.mode, terms.real_capital_fraction) == (Retired, "none", 0.0)


# -- capital


async def test_capital_is_raised_after_a_promotion_is_committed(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register(stage=Shadow)
        for stage, cap in ((Small, 1_000), (Scaled, 100_000)):
            await tree.green()
            await tree.ask(Promote("mm"))
            assert tree.engine.calls.pop() == ("mm", stage.value, Decimal(cap), stage.value)
        assert tree.engine.calls == []


async def test_capital_is_cut_before_a_demotion_is_committed(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register(stage=Scaled)
        await tree.ask(Demote("mm"))
        await tree.ask(Demote("mm", to=Paper))
        assert tree.engine.calls == [
            ("mm", "live-small", Decimal(1_000), "live-scaled"),
            ("mm", "paper", Decimal(0), "live-small"),
        ]


async def test_when_storage_refuses_a_demotion_is_cut_already_and_a_promotion_raises_nothing(
    path: Path,
) -> None:
    async with opened(path) as tree:
        await tree.ask(Adopt("down", Scaled, "owner", "live", 90_000 * 10**8))
        await tree.register("up", Shadow)
        await tree.green("up")
        tree.mood.refusal = StorageDegraded("full")
        for request in (Demote("down"), Promote("up")):
            with pytest.raises(StorageDegraded):
                await tree.ask(request)
        assert tree.engine.calls == [("down", "live-small", Decimal(900), "live-scaled")]
        assert (await tree.snapshot("down")).stage is Scaled
        assert (await tree.snapshot("up")).stage is Shadow
        assert alerts(path) == []
        tree.mood.refusal = None
        await tree.ask(Demote("down"))
        await tree.ask(Promote("up"))
        assert len(alerts(path)) == 2


async def test_a_lease_that_a_demotion_cut_comes_back_where_storage_refuses_it(path: Path) -> None:
    clock = VirtualClock(T0)
    leases = Leases(clock)
    leases.replace({"mm": Grant("live-scaled", "live", Decimal(100_000), True)})
    leases.renew(60)
    async with opened(path, clock=clock, leases=leases) as tree:
        await tree.register(stage=Scaled)
        tree.mood.refusal = StorageDegraded("full")
        with pytest.raises(StorageDegraded):
            await tree.ask(Demote("mm", Paper))
        assert leases.entitlement("mm").capital == 100_000
        tree.mood.refusal = None
        await tree.ask(Demote("mm", Paper))
        assert leases.entitlement("mm").mode == "reduce"


async def test_an_engine_that_does_not_listen_does_not_stop_a_transition(path: Path) -> None:
    async with opened(path) as tree:
        tree.engine.fails = True
        await tree.register(stage=Scaled)
        assert (await tree.ask(Demote("mm"))).to_stage is Small
        assert tree.promotion.epoch == 1


# -- the tick


async def test_guarded_takes_the_step_to_shadow_and_announces_the_next_one_once(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register()
        await tree.green()
        assert await tree.look(evaluate=False) == []
        assert await tree.look() == [("mm", Paper, Shadow, False)]
        await tree.green()
        for _ in range(3):
            assert await tree.look() == []
        assert (await tree.snapshot()).evaluation.would_do == "ready"
        assert alerts(path) == [
            ("INFO", "mm promoted to shadow"),
            ("INFO", "mm is ready for live-small"),
        ]
        assert (await tree.ask(Promote("mm", by="owner"))).to_stage is Small
        await tree.green()
        await tree.look()
        assert alerts(path)[-1] == ("INFO", "mm is ready for live-scaled")


async def test_literal_climbs_to_the_top_by_itself(path: Path) -> None:
    async with opened(path, LITERAL) as tree:
        await tree.register()
        climbed = []
        for _ in range(4):
            await tree.green()
            climbed += await tree.look()
        assert [one[2] for one in climbed] == [Shadow, Small, Scaled]


async def test_a_hard_drawdown_demotes_in_that_tick_though_frozen_cooling_and_without_other_metrics(
    path: Path,
) -> None:
    async with opened(path) as tree:
        await tree.register(stage=Scaled)
        await tree.ask(DemoteAutomatically("mm", "soft", "recovery", "it fails to start"))
        await tree.ask(Freeze("mm", True))
        await tree.ask(RecordMetrics("mm", Small, {"max_drawdown": 0.20}))
        assert await tree.look(evaluate=False) == [("mm", Small, Shadow, True)]
        snapshot = await tree.snapshot()
        assert (snapshot.stage, snapshot.frozen) == (Shadow, True)
        assert tree.engine.calls[-1] == ("mm", "shadow", Decimal(0), "live-small")
        assert snapshot.cooldown_until == T0 + 60 * DAY_US
        await trio.testing.wait_all_tasks_blocked()
        assert Bell.rung == 2
        assert alerts(path)[-1] == ("CRITICAL", "mm demoted to shadow")


async def test_a_fall_within_the_session_demotes_at_once(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register(stage=Small)
        assert await tree.look(status(equity=100.0), session="d1") == []
        assert await tree.look(status(equity=95.001), evaluate=False) == []
        assert await tree.look(status(equity=Decimal(95)), evaluate=False) == [
            ("mm", Small, Shadow, True)
        ]
        assert await tree.look(status(equity=50.0), evaluate=False) == []


async def test_three_soft_breaches_of_the_last_five_sessions_demote_by_one_stage(
    path: Path,
) -> None:
    async with opened(path) as tree:
        await tree.register(stage=Scaled)
        path_down = [100.0] * 14 + [96, 92.5, 89, 86, 83.5, 81]
        for number, equity in enumerate([*path_down, 79, 79]):
            tree.clock.advance(86_400)
            assert await tree.look(status(equity=equity), session=f"d{number}") == []
        assert await tree.look(status(equity=81.0), session="d22") == []
        assert await tree.look(status(equity=79.0), session="d23", evaluate=False) == []
        assert await tree.look(status(equity=79.0)) == [("mm", Scaled, Small, False)]
        assert (await tree.snapshot()).cooldown_until == tree.clock.now_us() + 7 * DAY_US


async def test_a_demoted_strategy_that_is_green_next_day_waits_for_its_cooldown(path: Path) -> None:
    async with opened(path, policy_of("literal", min_paper_days=0)) as tree:
        await tree.register(stage=Small)
        await tree.ask(DemoteAutomatically("mm", "soft", "recovery", "it fails to start"))
        await tree.green(days=1)
        assert await tree.look() == []
        snapshot = await tree.snapshot()
        assert (snapshot.evaluation.blocked_by, snapshot.cooldown_until) == (
            ("cooldown until 2023-11-21 22:14",),
            T0 + 7 * DAY_US,
        )
        with pytest.raises(CoolingDown):
            await tree.ask(Promote("mm"))
        await tree.green(days=6)
        assert await tree.look() == [("mm", Shadow, Small, False)]


async def test_own_samples_become_metrics_and_a_session_counts_once(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register()
        await tree.look(status(equity=100.0))  # the base
        for number, equity in enumerate((101.0, 99.0, 102.0)):
            for _ in range(2):  # a tick that failed halfway is repeated as a whole
                one = status(equity=equity, n_trades=number + 1, n_wins=number)
                assert await tree.look(one, session=f"d{number}") == []
        metrics = (await tree.snapshot()).metrics
        assert set(metrics) == {"sharpe", "max_drawdown", "n_trades", "win_rate"}
        assert metrics["n_trades"] == 3
        assert metrics["win_rate"] == pytest.approx(2 / 3)
        assert metrics["max_drawdown"] == pytest.approx(1 - 99 / 101)
        assert len(rows(path, "SELECT * FROM promotion_sample")) == 3
        assert tree.promotion.epoch == 1


async def test_a_session_repeated_after_a_transition_is_no_evidence_of_the_new_stage(
    path: Path,
) -> None:
    async with opened(path) as tree:
        await tree.register(stage=Small)
        assert await tree.look(status(equity=100.0)) == []
        assert await tree.look(status(equity=50.0), session="d1") == [("mm", Small, Shadow, True)]
        await tree.look(status(equity=50.0), session="d1")
        assert (await tree.snapshot()).metrics == {}


@pytest.mark.parametrize(
    "broken",
    [
        {"equity": float("nan")},
        {"equity": float("inf")},
        {"equity": Decimal("sNaN")},
        {"equity": "many"},
        {"equity": None},
        {"equity": 100.0, "allocated": 0},
        {"equity": 100.0, "allocated": float("nan")},
        {"equity": 100.0, "n_trades": 1.5},
        {"equity": 100.0, "n_trades": None},
        {"equity": 100.0, "n_trades": 2**70},
        {"equity": 100.0, "n_trades": 1, "n_wins": 2},
        {"equity": 100.0, "n_trades": -1},
    ],
    ids=str,
)
async def test_a_strategy_with_broken_books_proves_nothing_and_holds_nobody_up(
    path: Path, broken: dict[str, Any]
) -> None:
    async with opened(path) as tree:
        await tree.register("broken", Small)
        await tree.register("sound", Small)
        await tree.look(status("broken", 100.0), status("sound", 100.0))  # the base
        tree.clock.advance(60)
        for number in range(2):
            bad = status("broken", **broken) if number else status("broken", 100.0)
            await tree.look(bad, status("sound", 100.0), session=f"d{number}")
        assert await tree.look(status("broken", **broken), status("sound", 80.0)) == [
            ("sound", Small, Shadow, True)
        ]
        per_strategy = "SELECT count(*) AS n FROM promotion_sample GROUP BY strategy_id ORDER BY n"
        assert rows(path, per_strategy) == [(1,), (2,)]
        assert tree.promotion.epoch == 1


async def test_nobody_is_called_ready_in_the_tick_that_demotes_him(path: Path) -> None:
    async with opened(path, policy_of(min_paper_days=0, min_trades=0, min_sharpe=-99)) as tree:
        await tree.register(stage=Shadow)
        assert await tree.look(status(equity=101.0), session="d1", evaluate=False) == []
        assert await tree.look(status(equity=101.5), session="d2", evaluate=False) == []
        assert await tree.look(status(equity=50.0)) == [("mm", Shadow, Paper, True)]
        assert alerts(path) == [("WARNING", "mm demoted to paper")]


async def test_strategies_nobody_registered_are_looked_past(path: Path) -> None:
    async with opened(path) as tree:
        assert await tree.look(status("stranger", 1.0), session="d1") == []
        assert (await tree.ask(Observe(()))).terms == {}


async def test_terms_say_mode_and_share_of_each_stage(path: Path) -> None:
    async with opened(path) as tree:
        for stage in (Paper, Shadow, Small, Scaled):
            await tree.register(stage.value, stage)
        terms = (await tree.ask(Observe(()))).terms
        assert {name: (one.mode, one.real_capital_fraction) for name, one in terms.items()} == {
            "paper": ("paper", 0),
            "shadow": ("shadow", 0),
            "live-small": ("live", 0.01),
            "live-scaled": ("live", 1),
        }


# -- one transaction


async def test_record_history_and_alert_are_one_transaction(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register(stage=Scaled)
        tree.mood.committed.clear()
        await tree.ask(Demote("mm", reason="enough"))
        (commit,) = tree.mood.committed
        text = " ".join(statement.sql for statement in commit.statements)
        assert all(table in text for table in ("promotions", "promotion_history", "alert_request"))
        assert alerts(path) == [("CRITICAL", "mm demoted to live-small")]


async def test_without_an_alert_actor_no_alert_is_asked_for(path: Path) -> None:
    async with opened(path, alerts=False) as tree:
        await tree.register(stage=Scaled)
        await tree.ask(Demote("mm"))
        assert alerts(path) == []


async def test_all_moves_of_one_look_share_a_transaction_and_are_all_lost_with_it(
    path: Path,
) -> None:
    async with opened(path, LITERAL) as tree:
        await tree.register("up")
        await tree.register("down", Small)
        await tree.green("up")
        await tree.ask(RecordMetrics("down", Small, {"max_drawdown": 0.5}))
        tree.mood.refusal = StorageDegraded("full")
        with pytest.raises(StorageDegraded):
            await tree.look(status("up", 100.0), status("down", 100.0), session="d1")
        assert [(await tree.snapshot(name)).stage for name in ("up", "down")] == [Paper, Small]
        assert rows(path, "SELECT * FROM promotion_sample") == []
        tree.mood.refusal = None
        moves = await tree.look(status("up"), status("down"))
        assert sorted(moves) == sorted(
            [("down", Small, Shadow, True), ("up", Paper, Shadow, False)], key=str
        )


async def test_a_fall_that_was_seen_counts_though_storage_refused_that_look(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register(stage=Small)
        await tree.look(status(equity=100.0))
        tree.mood.refusal = StorageDegraded("full")
        with pytest.raises(StorageDegraded):
            await tree.look(status(equity=70.0), session="2026-01-01")
        tree.mood.refusal = None
        moves = await tree.look(status(equity=99.0), session="2026-01-01", evaluate=False)
        assert moves == [("mm", Small, Shadow, True)]
        line = (await tree.snapshot()).history[-1]
        assert line.metrics["max_drawdown"] == pytest.approx(0.3)


async def test_a_session_that_is_told_late_adds_no_trades(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register()
        await tree.look(status(equity=100.0))
        await tree.look(status(equity=101.0, n_trades=45, n_wins=20))
        await tree.look(status(equity=102.0, n_trades=40, n_wins=18), session="2026-01-01")
        await tree.look(status(equity=101.0, n_trades=46, n_wins=20), session="2026-01-02")
        metrics = (await tree.snapshot()).metrics
        assert (metrics["n_trades"], metrics["win_rate"]) == (46, 20 / 46)


async def test_a_session_that_ends_as_its_episode_begins_is_no_sample(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register()
        for _ in range(2):  # a tick looks at the strategy, and then ends the session
            await tree.look(status(equity=101.0), session=None)
            await tree.look(status(equity=101.0), session="2026-01-01")
        assert (await tree.snapshot()).metrics == {}
        tree.clock.advance(86_400)
        await tree.look(status(equity=101.0), session="2026-01-02")
        assert (await tree.snapshot()).metrics == {"max_drawdown": 0, "n_trades": 0}


async def test_sessions_without_a_report_age_the_evidence(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register()
        await tree.look(status(equity=100.0))
        await tree.look(status(equity=101.0), session="2026-01-01")
        for day in (2, 3):  # ended late, after a downtime
            tree.clock.advance(1)
            await tree.ask(Observe((), f"2026-01-0{day}"))
        evaluation: Evaluation = await tree.ask(Evaluate("mm"))
        reasons = {line.name: line.reason for line in evaluation.criteria}
        assert reasons["max_drawdown"] == "stale: 2 sessions ended since"
        assert len(rows(path, "SELECT * FROM promotion_sample")) == 1


async def test_a_sample_that_is_stored_already_crashes_nothing(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register()
        await tree.look(status(equity=100.0))
        connection = apsw.Connection(str(path))
        connection.execute(
            "INSERT INTO promotion_sample SELECT strategy_id, 1, '2026-01-01', 1, 1, 0, 0"
            " FROM promotions"
        )
        connection.close()
        await tree.look(status(equity=101.0), session="2026-01-01")
        assert tree.promotion.epoch == 1
        assert (await tree.snapshot()).metrics["max_drawdown"] == 0


async def test_a_look_over_many_strategies_lets_others_run_between(path: Path) -> None:
    async with opened(path) as tree:
        names = [f"s{number}" for number in range(60)]
        for name in names:
            await tree.register(name)
        turns, over = 0, trio.Event()

        async def count() -> None:
            nonlocal turns
            while not over.is_set():
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            await tree.look(status("s0"))  # by now nothing is done for the first time
            nursery.start_soon(count)
            await tree.look(status("s0"))
            alone, turns = turns, 0
            await tree.look(*(status(name) for name in names))
            over.set()
        # Four steps over all of them, in slices of six.
        assert turns >= alone + 20


async def test_small_moves_within_a_session_are_not_written(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register()
        await tree.look(status(equity=100.0), evaluate=False)
        tree.mood.committed.clear()
        for equity in (100.05, 99.99, 100.0):
            await tree.look(status(equity=equity), evaluate=False)
        assert tree.mood.committed == []
        await tree.look(status(equity=99.0), evaluate=False)
        assert len(tree.mood.committed) == 1


@given(
    st.lists(
        st.tuples(st.sampled_from(["adopt", "promote", "demote"]), st.integers(0, 3)), max_size=12
    )
)
def test_no_order_of_moves_entitles_beyond_the_capital(moves: list[tuple[str, int]]) -> None:
    policy = policy_of(min_paper_days=0, min_trades=0, min_sharpe=0)

    def entitled(one: Strategy) -> int:
        return entitled_minor(one, policy, BOUND)

    held: dict[int, Strategy] = {}
    for kind, number in moves:
        others = sum(entitled(one) for key, one in held.items() if key != number)
        with suppress(CapitalExceeded, KeyError, SkipRefused, CoolingDown, StrategyFrozen):
            if kind == "adopt" and number not in held:
                after = core.registered(
                    f"s{number}", Small, T0, by="x", adopt=True, reason="x", budget_minor=4 * 10**12
                ).after
                check_capital(None, after, policy, BOUND, others)
            elif kind == "promote":
                green = with_record(held[number], Record(GREEN, T0), 252, T0)
                found = evaluate(green, policy, T0, capital=BOUND, others_minor=others)
                after = core.promoted(
                    green, policy, found, T0, by="x", capital=BOUND, others_minor=others
                ).after
            else:
                after = core.demoted(held[number], policy, T0, by="x", reason="").after
            held[number] = after
        assert sum(map(entitled, held.values())) <= CAPITAL_MINOR


async def test_a_commit_of_unknown_outcome_is_looked_up(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register(stage=Scaled)
        tree.mood.refusal, tree.mood.lands = OutcomeUnknown("fsync"), True
        with pytest.raises(OutcomeUnknown):
            await tree.ask(Demote("mm", expected_rev=1))
        tree.mood.refusal = None
        assert (await tree.snapshot()).stage is Small
        with pytest.raises(StaleRevision):
            await tree.ask(Demote("mm", expected_rev=1))
        assert (await tree.ask(Demote("mm", expected_rev=2))).to_stage is Shadow


async def test_a_record_that_storage_contradicts_is_read_afresh(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register(stage=Scaled)
        tree.mood.refusal = ConstraintFailed("UNIQUE constraint failed")
        with pytest.raises(ActorCrashed):
            await tree.ask(Demote("mm"))
        tree.mood.refusal = None
        assert (await tree.ask(Demote("mm"))).to_stage is Small
        assert tree.promotion.epoch == 2


# -- for ever


async def test_a_crash_by_drill_loses_nothing(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register()
        await tree.green()
        await tree.look(status(equity=101.0), session="d1")
        await tree.ask(Freeze("mm", True))
        await tree.register("other", Scaled)
        await tree.ask(Demote("other"))
        before = (await tree.snapshot(), await tree.ask(ReadStrategies()), await tree.history())
        tree.supervisor.drill("promotion")
        await trio.testing.wait_all_tasks_blocked()
        assert tree.promotion.epoch == 2
        assert before == (
            await tree.snapshot(),
            await tree.ask(ReadStrategies()),
            await tree.history(),
        )


async def test_everything_outlives_the_process(path: Path) -> None:
    clock = VirtualClock(T0)
    async with opened(path, clock=clock) as tree:
        identity = await tree.register(stage=Scaled)
        await tree.ask(RecordMetrics("mm", Scaled, {"max_drawdown": 0.30}))
        await tree.look()
        before = await tree.snapshot()
    async with opened(path, clock=clock) as tree:
        assert await tree.snapshot(identity) == before
        assert await tree.register() == identity


async def test_history_is_newest_first_paged_and_never_changed(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register(stage=Scaled)
        await tree.register("other")
        await tree.ask(Demote("mm"))
        await tree.ask(Demote("mm"))
        assert await tree.history("mm") == [
            ("demote", "shadow"),
            ("demote", "live-small"),
            ("adopt", "live-scaled"),
        ]
        assert await tree.history(limit=1) == [("demote", "shadow")]
        assert await tree.history(limit=0) == []
        with pytest.raises(ValueError, match="limit"):
            await tree.history(limit=-1)
        for number in range(25):
            await tree.ask(Freeze("mm", number % 2 == 0))
        assert len((await tree.snapshot()).history) == 20
    connection = apsw.Connection(str(path))
    for sql in ("UPDATE promotion_history SET reason = 'nicer'", "DELETE FROM promotion_history"):
        with pytest.raises(apsw.ConstraintError, match="never"):
            connection.execute(sql)
    connection.close()


async def test_a_look_without_evaluation_writes_nothing_and_an_evaluation_is_a_dry_run(
    path: Path,
) -> None:
    async with opened(path) as tree:
        await tree.register()
        await tree.green()
        tree.mood.committed.clear()
        first: Evaluation = await tree.ask(Evaluate("mm"))
        assert await tree.ask(Evaluate("mm")) == first
        await tree.look(evaluate=False)
        assert tree.mood.committed == []
        await tree.look()
        assert (await tree.snapshot()).history[-1].evaluation_id == first.id


async def test_a_strategy_that_reports_and_is_not_registered_is_told_so(path: Path) -> None:
    async with opened(path) as tree:
        await tree.register()
        await tree.look(status("ghost"), status())
        with pytest.raises(UnknownStrategy, match="register or adopt"):
            await tree.ask(Promote("ghost"))
