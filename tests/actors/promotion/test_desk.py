"""The desk by plain calls on a real file: what each request answers, stores and moves."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import apsw
import msgspec
import pytest

from fundops.actors.persistence import Rows, Store, commit_batch
from fundops.actors.promotion import (
    Capital,
    Cooldowns,
    Criterion,
    GateSettings,
    PromotionGate,
    PromotionPolicy,
    PromotionSettings,
    SoftWindow,
    StageSettings,
    policy_of,
    schema,
)
from fundops.actors.promotion.desk import Decided, Desk
from fundops.actors.promotion.look import Look
from fundops.actors.promotion.notes import notes_of
from fundops.actors.promotion.roster import Roster
from fundops.actors.promotion.strategy import Change, Strategy
from fundops.file.database import MIGRATIONS
from fundops.runtime import DAY_US, Request
from fundops.wire.alert import AlertDraft, Level
from fundops.wire.controller import StrategyStatus
from fundops.wire.errors import (
    CapitalExceeded,
    Conflict,
    CoolingDown,
    GateNotPassed,
    MetricError,
    PolicyError,
    SkipRefused,
    StaleRevision,
    StrategyFrozen,
    StrategyRetired,
    UnknownStrategy,
)
from fundops.wire.persistence import Committed
from fundops.wire.promotion import (
    AddGate,
    Adopt,
    Approve,
    Demote,
    DemoteAutomatically,
    DiscardMetrics,
    Evaluate,
    Freeze,
    Observe,
    Promote,
    PromotionHistory,
    PromotionStage,
    ReadSnapshot,
    ReadTerms,
    RecordMetrics,
    Register,
    Retire,
    SetCap,
    StateAsOf,
    Transition,
    Void,
)

T = TypeVar("T")
T0 = 1_700_000_000_000_000
UNIT = 10**8
Paper, Shadow = PromotionStage.Paper, PromotionStage.Shadow
Small, Scaled = PromotionStage.Live_Small, PromotionStage.Live_Scaled
GREEN = {"sharpe": 1.2, "max_drawdown": 0.08, "n_trades": 150}


class Office:
    """A desk with its file, a clock, and all that it would tell the engine."""

    def __init__(self, path: Path, policy: PromotionPolicy, capital: Capital) -> None:
        self.store = Store(path, MIGRATIONS)
        self.rows = Rows(self.store.connection)
        self.desk = Desk(policy, capital)
        self.now_us = T0
        self.moves: list[tuple[str, str | None, str]] = []
        self.notes: list[AlertDraft] = []
        self._looked_us = 0

    def roster(self) -> Roster:
        roster = Roster(self.rows, self.desk.policy, self.desk.capital)
        for strategy in schema.load_all(self.rows):
            roster.apply(strategy)
        return roster

    def ask(self, request: Request[T]) -> T:
        decided = self.desk.handle(request, self.roster(), self.now_us)
        self._commit(decided)
        answer: T = decided.answer
        return answer

    def look(
        self,
        *statuses: StrategyStatus,
        session: str | None = None,
        evaluate: bool = True,
        act: bool = True,
    ) -> tuple[Transition, ...]:
        request = Observe(statuses, session, evaluate, act=act)
        look = Look(self.desk, self.roster(), request, self.now_us, self._looked_us)
        for due, step in (
            (look.to_see, look.see),
            (look.to_demote, look.demote),
            (look.to_judge, look.judge),
            (look.to_keep, look.keep),
        ):
            for strategy in due():
                step(strategy)
        decided, self.notes = look.decided()
        self._commit(decided)
        answer: tuple[Transition, ...] = decided.answer
        return answer

    def _commit(self, decided: Decided) -> None:
        if decided.statements:
            (answer,) = commit_batch(self.store, [decided.statements])
            assert isinstance(answer, Committed), answer
        if decided.policy is not None:
            self.desk = self.desk.with_policy(decided.policy)
        self.moves += [
            (change.kind, change.from_stage and change.from_stage.value, change.after.stage.value)
            for change in decided.changes
        ]

    def strategy(self, name: str = "mm") -> Strategy:
        return self.roster().find(name)

    def days(self, days: float) -> None:
        self.now_us += int(days * DAY_US)

    def green(self, stage: PromotionStage, name: str = "mm", days: float = 14) -> None:
        self.days(days)
        self.ask(RecordMetrics(name, stage, GREEN))

    def adopted(self, stage: PromotionStage, name: str = "mm", **more: Any) -> str:
        return self.ask(Adopt(name, stage, "ann", "it trades", **more))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "f.db"


@pytest.fixture
def office(path: Path) -> Iterator[Office]:
    made = Office(path, policy_of(), Capital(100_000 * UNIT, 100.0))
    yield made
    made.store.close()


def status(equity: float = 100.0, name: str = "mm", **more: Any) -> StrategyStatus:
    return StrategyStatus(name, "running", equity=equity, **{"allocated": 100.0, **more})


def step_of(moved: Transition) -> tuple[int, int]:
    """The real capital before and after, in whole units."""
    assert moved.capital_before is not None
    assert moved.capital_after is not None
    return int(moved.capital_before), int(moved.capital_after)


# -- request ids and revisions


def test_a_request_id_has_one_outcome_and_one_line(office: Office) -> None:
    office.ask(Register("mm"))
    office.green(Paper)
    first = office.ask(Promote("mm", by="ann", request_id="r1"))
    office.days(1)
    assert office.ask(Promote("mm", by="ann", request_id="r1")) == first
    assert [line.kind for line in office.ask(PromotionHistory())] == ["promote", "register"]


def test_a_repeat_may_name_the_strategy_by_its_id(office: Office) -> None:
    strategy_id = office.ask(Register("mm"))
    office.green(Paper)
    first = office.ask(Promote("mm", by="ann", request_id="r1"))
    assert office.ask(Promote(strategy_id, by="ann", request_id="r1")) == first


def test_a_strategy_is_adopted_once(office: Office) -> None:
    strategy_id = office.ask(Register("mm"))
    for name, text in (("mm", "registered already"), (strategy_id, "is the id of mm")):
        with pytest.raises(Conflict, match=text):
            office.adopted(Small, name)
    office.ask(Retire("mm"))
    with pytest.raises(StrategyRetired):
        office.adopted(Small)


def test_a_request_id_with_other_content_is_a_conflict(office: Office) -> None:
    office.ask(Register("mm"))
    office.green(Paper)
    office.ask(Promote("mm", by="ann", request_id="r1"))
    for other in (
        Promote("mm", by="bob", request_id="r1"),
        Promote("mm", by="ann", request_id="r1", reason="now"),
        Promote("mm", by="ann", request_id="r1", cap=0.5),
        Promote("unknown", by="ann", request_id="r1"),
    ):
        with pytest.raises(Conflict, match="r1"):
            office.ask(other)


def test_a_repeat_may_come_through_a_door_that_has_other_types(office: Office) -> None:
    office.ask(Register("mm", Shadow))
    office.green(Shadow)
    foreign: Any = Decimal("0.005")
    asked = Promote("mm", Small, "ann", expected_rev=1, request_id="r1", cap=foreign)
    first = office.ask(asked)
    same: list[dict[str, Any]] = [{"cap": 0.005}, {"cap": Decimal("0.0050")}, {"to": "live-small"}]
    for other in same:
        assert office.ask(msgspec.structs.replace(asked, **other)) == first
    for field in ("strategy_id", "to", "by", "reason", "expected_rev", "cap"):
        with pytest.raises(Conflict):
            office.ask(msgspec.structs.replace(asked, **{field: "\ud800"}))


def test_a_refusal_does_not_use_a_request_id_up(office: Office) -> None:
    office.ask(Register("mm"))
    with pytest.raises(GateNotPassed):
        office.ask(Promote("mm", by="ann", request_id="r1"))
    office.green(Paper)
    assert office.ask(Promote("mm", by="ann", request_id="r1")).to_stage is Shadow


@pytest.mark.parametrize("request_id", ["", " r", "a\nb", "x" * 129])
def test_a_request_id_that_is_none_is_refused(office: Office, request_id: str) -> None:
    office.ask(Register("mm"))
    with pytest.raises(MetricError) as refusal:
        office.ask(Promote("mm", request_id=request_id))
    assert refusal.value.field == "request_id"


def test_a_stale_revision_is_refused_before_any_other_reason(office: Office) -> None:
    office.ask(Register("mm"))
    office.ask(Freeze("mm", True))
    with pytest.raises(StaleRevision) as refusal:
        office.ask(Promote("mm", expected_rev=1))
    assert refusal.value.current == 2


def test_live_is_the_next_stage_with_real_money_and_skips_none(office: Office) -> None:
    office.ask(Register("mm"))
    office.green(Paper)
    with pytest.raises(SkipRefused, match="shadow"):
        office.ask(Promote("mm", to=PromotionStage.Live))
    office.ask(Promote("mm"))
    office.green(Shadow)
    assert office.ask(Promote("mm", to=PromotionStage.Live)).to_stage is Small
    office.green(Small)
    assert office.ask(Promote("mm", to=PromotionStage.Live)).to_stage is Scaled


# -- caps


def test_a_cap_limits_the_capital_of_its_stage_and_ends_with_it(office: Office) -> None:
    office.adopted(Small)
    office.green(Small)
    moved = office.ask(Promote("mm", by="ann", cap=0.25))
    assert step_of(moved) == (1_000, 25_000)
    assert office.ask(ReadTerms("mm")).real_capital_fraction == 0.25
    assert office.ask(ReadSnapshot("mm")).cap == 0.25
    office.ask(Demote("mm"))
    assert office.ask(ReadSnapshot("mm")).cap is None
    assert office.ask(ReadTerms("mm")).real_capital_fraction == 0.01
    lines = office.ask(PromotionHistory("mm"))
    assert [(line.kind, line.cap_before, line.cap_after) for line in lines] == [
        ("demote", 0.25, 0.01),
        ("promote", 0.01, 0.25),
        ("adopt", None, 0.01),
    ]


def test_a_cap_is_lowered_at_any_time_and_raised_up_to_the_rungs(office: Office) -> None:
    office.adopted(Scaled)
    office.ask(SetCap("mm", 0.1, "ann", ""))
    assert office.ask(ReadTerms("mm")).real_capital_fraction == 0.1
    office.ask(SetCap("mm", 0.1, "ann", "again"))
    office.ask(SetCap("mm", 1, "ann", "it does well"))
    kinds = [(line.kind, line.cap_after) for line in office.ask(PromotionHistory("mm"))]
    assert kinds == [("cap", 1.0), ("cap", 0.1), ("adopt", 1.0)]


def test_a_higher_cap_needs_a_reason_and_room(office: Office) -> None:
    office.adopted(Scaled)
    office.ask(SetCap("mm", 0.1, "ann", ""))
    with pytest.raises(MetricError) as refusal:
        office.ask(SetCap("mm", 0.2, "ann", ""))
    assert refusal.value.field == "reason"
    office.adopted(Scaled, "other", budget_minor=85_000 * UNIT)
    with pytest.raises(CapitalExceeded):
        office.ask(SetCap("mm", 0.2, "ann", "more"))
    assert office.ask(ReadTerms("mm")).real_capital_fraction == 0.1


@pytest.mark.parametrize("cap", [0, -0.1, 0.011, 1.5, float("nan"), True, "1%"])
def test_a_cap_beyond_its_stage_is_refused(office: Office, cap: Any) -> None:
    office.adopted(Small)
    with pytest.raises(MetricError) as refusal:
        office.ask(SetCap("mm", cap, "ann", "x"))
    assert refusal.value.field == "cap"


def test_a_stage_without_real_money_takes_no_cap(office: Office) -> None:
    office.ask(Register("mm"))
    office.green(Paper)
    for ask in (SetCap("mm", 0.5, "ann", "x"), Promote("mm", cap=0.5)):
        with pytest.raises(MetricError, match="no real capital"):
            office.ask(ask)


def test_a_cap_lets_a_promotion_through_that_the_whole_budget_would_not(office: Office) -> None:
    office.adopted(Scaled, "other", budget_minor=60_000 * UNIT)
    office.adopted(Small)
    office.green(Small)
    with pytest.raises(CapitalExceeded) as refusal:
        office.ask(Approve("mm", "ann"))
    assert (int(refusal.value.wanted), int(refusal.value.left)) == (100_000, 40_000)
    assert step_of(office.ask(Approve("mm", "ann", 0.4))) == (1_000, 40_000)


# -- approve


def test_an_approval_evaluates_the_gate_again(office: Office) -> None:
    office.adopted(Small)
    office.green(Small)
    assert office.look(status()) == ()
    assert office.strategy().episode.ready
    office.days(8)
    with pytest.raises(GateNotPassed):
        office.ask(Approve("mm", "ann"))
    office.ask(RecordMetrics("mm", Small, GREEN))
    moved = office.ask(Approve("mm", "ann", 0.5))
    assert (moved.to_stage, step_of(moved)) == (Scaled, (1_000, 50_000))
    (line, *_) = office.ask(PromotionHistory("mm"))
    assert (line.by, line.cap_after) == ("ann", 0.5)
    assert line.evaluation_id


def test_ready_is_told_resolved_and_told_again(office: Office) -> None:
    office.ask(Register("mm", Shadow))
    office.green(Shadow)
    told = []
    for sharpe in (1.2, 1.3, 0.5, 0.4, 1.2):
        office.days(0.1)
        office.ask(RecordMetrics("mm", Shadow, {"sharpe": sharpe}))
        office.look(status())
        told.append([(note.dedup_key, note.resolves) for note in office.notes])
    key = "promotion:mm"
    assert told == [[(key, False)], [], [(key, True)], [], [(key, False)]]


def test_ready_ends_when_the_evidence_of_a_silent_strategy_is_stale(office: Office) -> None:
    office.ask(Register("mm", Shadow))
    office.green(Shadow)
    office.look(status())
    office.days(3)
    office.look()
    assert [(note.dedup_key, note.resolves) for note in office.notes] == [("promotion:mm", True)]


def test_in_mode_observe_the_act_of_the_policy_is_told_and_not_done(office: Office) -> None:
    office.ask(Register("mm"))
    office.green(Paper)
    assert office.look(status(), act=False) == ()
    (note,) = office.notes
    assert (note.title, note.level) == ("Mode observe: mm was not promoted", Level.INFO)
    assert "would promote it from paper" in note.message
    assert office.look(status())[0].to_stage is Shadow


def test_in_mode_observe_a_breach_is_told_and_demotes_not(office: Office) -> None:
    office.adopted(Scaled)
    office.look(status(100.0))
    assert office.look(status(70.0), act=False) == ()
    (note,) = office.notes
    assert note.title == "Mode observe: mm was not demoted"
    assert "hard limit" in note.message
    assert office.strategy().stage is Scaled


def test_ready_ends_when_it_is_approved(office: Office) -> None:
    office.ask(Register("mm", Shadow))
    office.green(Shadow)
    office.look(status())
    decided = office.desk.handle(Approve("mm", "ann"), office.roster(), office.now_us)
    assert [(note.title, note.resolves) for note in notes_of(decided.changes, 1)] == [
        ("mm is no longer ready for more real money", True),
        ("mm promoted to live-small", False),
    ]


# -- demotion by a person, and by the rules


def test_the_alert_of_a_demotion_ends_with_what_follows_and_how_to_undo_it(office: Office) -> None:
    office.adopted(Scaled)
    request = DemoteAutomatically("mm", "soft", "recovery", "it fails")
    decided = office.desk.handle(request, office.roster(), office.now_us)
    (note,) = notes_of(decided.changes, 2)
    assert note.level is Level.CRITICAL
    assert note.message == (
        "from live-scaled by recovery: it fails. Stopped: mm. Left open: not known yet. Next"
        " automatic act: none before its cooldown ends at 2023-11-21 22:14. To undo: fundops"
        " strategy void 2 --by NAME --reason TEXT."
    )


def test_the_third_demotion_has_an_alert_that_ends_when_a_person_acts(office: Office) -> None:
    office.adopted(Scaled)
    for number in range(3):
        request = DemoteAutomatically("mm", "soft", "recovery", "it fails")
        decided = office.desk.handle(request, office.roster(), office.now_us)
        notes = [note for note in notes_of(decided.changes, 2) if note.dedup_key]
        assert [note.dedup_key for note in notes] == ["frozen:mm"] * (number == 2)
        office.ask(request)
    for act in (Freeze("mm", frozen=False), Retire("mm")):
        decided = office.desk.handle(act, office.roster(), office.now_us)
        (note,) = notes_of(decided.changes, 5)
        assert (note.dedup_key, note.resolves) == ("frozen:mm", True)


def test_demotions_from_real_money_at_once_are_one_alert_with_each_number(office: Office) -> None:
    changes: list[Change] = []
    for name in ("mm", "xs"):
        office.ask(Adopt(name, Scaled, "ann", "it trades", over_capital=True))
        request = DemoteAutomatically(name, "soft", "recovery", "it fails")
        changes += office.desk.handle(request, office.roster(), office.now_us).changes
    (note,) = notes_of(changes, 7)
    assert (note.level, note.title) == (Level.CRITICAL, "2 strategies demoted from real money")
    assert "Stopped: mm, xs." in note.message
    assert "void SEQ --by NAME --reason TEXT, for each of 7, 8." in note.message


def test_three_demotions_by_a_person_leave_it_promotable(office: Office) -> None:
    office.ask(Register("mm", Shadow))
    for _ in range(3):
        office.ask(Demote("mm", by="ann", reason="a look at it"))
        office.green(Paper)
        assert office.ask(Promote("mm", by="ann")).to_stage is Shadow
    strategy = office.strategy()
    assert (strategy.cooldown_until_us, strategy.demotions_us, strategy.frozen) == (None, (), False)


def test_automatic_demotions_double_the_cooldown_and_the_third_freezes(office: Office) -> None:
    office.adopted(Scaled)
    for number, days in ((1, 7), (2, 14), (3, 28)):
        office.ask(DemoteAutomatically("mm", "soft", "recovery", "it fails"))
        strategy = office.strategy()
        assert strategy.cooldown_until_us == office.now_us + days * DAY_US
        assert strategy.frozen is (number == 3)


def test_a_demotion_that_is_asked_for_under_one_key_is_done_once(office: Office) -> None:
    office.adopted(Scaled)
    asked = DemoteAutomatically("mm", "soft", "recovery", "it fails", "recovery:7")
    first = office.ask(asked)
    again = msgspec.structs.replace(asked, reason="it fails again")
    assert office.ask(again) == first
    assert office.strategy().stage is Small
    office.ask(msgspec.structs.replace(asked, once="recovery:8"))
    assert office.strategy().stage is Shadow


def test_the_id_of_a_persons_request_is_no_key_of_an_automatic_demotion(office: Office) -> None:
    office.ask(Register("mm"))
    office.green(Paper)
    first = office.ask(Promote("mm", by="ann", request_id="recovery:7"))
    asked = DemoteAutomatically("mm", "soft", "recovery", "it fails", "recovery:7")
    demoted = office.ask(asked)
    assert demoted is not None
    assert demoted.kind == "demote"
    assert office.strategy().stage is Paper
    assert office.ask(Promote("mm", by="ann", request_id="recovery:7")) == first
    assert office.ask(asked) == demoted


def test_a_recorded_breach_demotes_a_strategy_that_does_not_report(office: Office) -> None:
    office.adopted(Small)
    office.adopted(Scaled, "quiet", budget_minor=UNIT)
    office.ask(RecordMetrics("mm", Small, {"daily_loss": 0.049}))
    assert office.look(evaluate=False) == ()
    office.ask(RecordMetrics("mm", Small, {"daily_loss": 0.05}))
    (moved,) = office.look(status(name="quiet"), evaluate=False)
    assert (moved.strategy, moved.to_stage, moved.hard) == ("mm", Shadow, True)
    assert office.strategy("quiet").stage is Scaled
    office.ask(Void(moved.seq, "ann", "a slip of the recorder"))
    assert office.strategy().stage is Small
    assert office.look() == ()
    kept = office.rows.rows("SELECT discarded_by, discarded_reason FROM promotion_metrics")
    assert kept == [(None, None), ("ann", "a slip of the recorder")]


def test_a_strategy_moves_once_in_a_look(path: Path) -> None:
    always = GateSettings((Criterion("days", "days", ">=", 0),))
    settings = PromotionSettings(
        gates={"shadow": always}, cooldowns=Cooldowns(soft_days=0, hard_days=0)
    )
    office = Office(path, policy_of("literal", settings=settings), Capital())
    office.adopted(Small)
    office.look(status(100.0, stage="live-small"))
    (fallen,) = office.look(status(70.0, stage="live-small"))
    assert (fallen.kind, fallen.to_stage) == ("demote", Shadow)
    (risen,) = office.look(status(70.0, stage="shadow"))
    assert (risen.kind, risen.to_stage) == ("promote", Small)
    office.store.close()


def test_a_soft_limit_demotes_where_gates_are_judged(path: Path) -> None:
    soft = SoftWindow(sessions=1, breaches=1, min_sessions=1)
    office = Office(path, policy_of(settings=PromotionSettings(soft=soft)), Capital())
    office.adopted(Scaled)
    office.look(status(100.0, stage="live-scaled"))
    for equity in (98.0, 94.0, 90.0, 86.0, 82.0, 79.0):
        office.days(1)
        session = f"2026-01-{100 - int(equity):02}"
        assert office.look(status(equity), session=session, evaluate=False) == ()
    (moved,) = office.look(status(79.0))
    assert (moved.to_stage, moved.hard) == (Small, False)
    office.store.close()


def test_a_promotion_by_a_person_within_a_cooldown_is_refused(office: Office) -> None:
    office.adopted(Small)
    office.ask(DemoteAutomatically("mm", "soft", "recovery", "it fails"))
    office.green(Shadow, days=1)
    with pytest.raises(CoolingDown):
        office.ask(Promote("mm", by="ann"))


def test_books_that_do_not_reconcile_send_it_to_paper_and_freeze_it(office: Office) -> None:
    office.adopted(Scaled)
    moved = office.ask(DemoteAutomatically("mm", "integrity", "oversight", "cash differs"))
    assert moved is not None
    assert (moved.to_stage, moved.hard) == (Paper, True)
    strategy = office.strategy()
    assert strategy.frozen
    assert strategy.cooldown_until_us == T0 + 30 * DAY_US
    assert office.ask(DemoteAutomatically("mm", "soft", "recovery", "it fails")) is None
    office.ask(Freeze("mm", False, "ann"))
    assert office.ask(DemoteAutomatically("mm", "integrity", "oversight", "again")) is None
    assert office.strategy().frozen


def test_an_automatic_demotion_tells_the_evaluation_of_then(office: Office) -> None:
    office.adopted(Small)
    office.ask(RecordMetrics("mm", Small, {"max_drawdown": 0.20, "sharpe": 2.0}))
    (moved,) = office.look(status(), evaluate=False)
    assert (moved.to_stage, moved.hard) == (Shadow, True)
    (line, *_) = office.ask(PromotionHistory("mm", 1))
    assert line.metrics == {"max_drawdown": 0.2, "sharpe": 2.0}
    assert (line.by, bool(line.evaluation_id), line.policy) == (
        "promotion",
        True,
        office.desk.policy.hash,
    )


def test_an_engine_that_is_only_observed_leaves_evidence_and_no_transition(office: Office) -> None:
    office.adopted(Small)
    office.ask(RecordMetrics("mm", Small, {"daily_loss": 0.9}))
    for number, equity in enumerate((100.0, 90.0), start=1):
        assert office.look(status(equity), session=f"2026-01-0{number}", act=False) == ()
    strategy = office.strategy()
    assert (strategy.stage, strategy.episode.track.sessions) == (Small, 1)
    assert [line.kind for line in office.ask(PromotionHistory())] == ["adopt"]


# -- days


def test_days_never_fall_below_what_was_stored_and_a_record_makes_none(office: Office) -> None:
    office.ask(Register("mm"))
    office.days(10)
    office.ask(RecordMetrics("mm", Paper, GREEN))
    office.days(-1)
    assert office.ask(ReadSnapshot("mm")).days_in_stage == 10
    for _ in range(3):
        office.days(0.5)
        office.ask(RecordMetrics("mm", Paper, GREEN))
        office.days(-0.5)
        office.ask(RecordMetrics("mm", Paper, GREEN))
    assert office.ask(ReadSnapshot("mm")).days_in_stage == 10
    office.days(2)
    assert office.ask(ReadSnapshot("mm")).days_in_stage == 11


def test_a_clock_that_swings_while_frozen_makes_no_day(office: Office) -> None:
    office.ask(Register("mm"))
    office.days(1)
    for _ in range(2):
        office.ask(Freeze("mm", True, "ann", "hold"))
        office.days(-12)
        office.ask(Freeze("mm", False, "ann", "go on"))
        office.days(12)
    assert office.ask(ReadSnapshot("mm")).days_in_stage == 1
    office.days(1)
    assert office.ask(ReadSnapshot("mm")).days_in_stage == 2


# -- void


def test_a_voided_demotion_gives_back_stage_evidence_cooldown_and_count(office: Office) -> None:
    office.adopted(Scaled)
    office.look(status(100.0))
    for number in range(3):
        office.days(1)
        office.look(status(101.0 + number, n_trades=10 * number), session=f"2026-01-0{number + 1}")
    before = office.strategy()
    assert before.episode.track.sessions == 3
    office.ask(RecordMetrics("mm", Scaled, {"daily_loss": 0.9}, T0 + 3 * DAY_US, "a typing error"))
    (moved,) = office.look(status(103.0))
    assert moved.to_stage is Shadow
    office.days(2)
    office.look(status(90.0, stage="shadow", n_trades=500, allocated=50.0))
    voided = office.ask(Void(moved.seq, "ann", "9% was meant"))
    after = office.strategy()
    assert (voided.kind, voided.from_stage, voided.to_stage) == ("void", Shadow, Scaled)
    assert (after.stage, after.episode.number) == (Scaled, before.episode.number)
    assert (after.cooldown_until_us, after.demotions_us, after.frozen) == (None, (), False)
    assert after.episode.track.sessions == 3
    assert "daily_loss" not in after.episode.recorded
    assert after.active_us(office.now_us) == before.active_us(T0 + 3 * DAY_US)
    # What the engine did in shadow is no evidence: it goes on from here.
    assert office.look(status(90.0, stage="live-scaled", n_trades=500, allocated=50.0)) == ()
    track = office.strategy().episode.track
    assert (track.trades, track.max_drawdown) == (20, 0.0)
    kinds = [line.kind for line in office.ask(PromotionHistory("mm"))]
    assert kinds == ["void", "demote", "adopt"]


def test_a_bad_status_is_undone_with_the_demotion_that_it_caused(office: Office) -> None:
    office.adopted(Scaled)
    office.look(status(100.0))
    (moved,) = office.look(status(1.0))
    office.ask(Void(moved.seq, "ann", "the feed was wrong"))
    assert office.look(status(100.0, stage="live-scaled")) == ()
    assert office.strategy().stage is Scaled


def test_only_the_newest_transition_is_voided_and_once(office: Office) -> None:
    office.adopted(Scaled)
    first, second = office.ask(Demote("mm")), office.ask(Demote("mm"))
    with pytest.raises(Conflict, match="newest"):
        office.ask(Void(first.seq, "ann", "x"))
    office.ask(Void(second.seq, "ann", "x"))
    for seq in (second.seq, first.seq):
        with pytest.raises(Conflict):
            office.ask(Void(seq, "ann", "x"))
    assert office.strategy().stage is Small


@pytest.mark.parametrize("seq", [0, 1, 99, -1, True, None, "1", 2**70])
def test_a_line_that_is_no_transition_is_not_voided(office: Office, seq: Any) -> None:
    office.ask(Register("mm"))
    with pytest.raises(Conflict):
        office.ask(Void(seq, "ann", "x"))


def test_a_voided_promotion_ends_the_real_capital(office: Office) -> None:
    office.ask(Register("mm", Shadow))
    office.green(Shadow)
    moved = office.ask(Promote("mm", by="ann"))
    office.days(1)
    voided = office.ask(Void(moved.seq, "ann", "too early"))
    assert (voided.to_stage, step_of(voided)) == (Shadow, (1_000, 0))
    assert office.ask(ReadSnapshot("mm")).metrics == GREEN
    # Its days count on from where they were.
    assert office.ask(ReadSnapshot("mm")).days_in_stage == 14


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("before_s", [-86_400, -1, 0, 86_400], ids="before {}".format)
@pytest.mark.parametrize("between_s", [-86_400, -1, 0, 86_400], ids="between {}".format)
def test_a_voided_or_frozen_time_is_left_out_and_no_step_of_the_clock_makes_days(
    office: Office, frozen: bool, before_s: int, between_s: int
) -> None:
    office.adopted(Shadow)
    if frozen:
        office.days(5)
        office.ask(Freeze("mm", True, "ann", "hold"))
    office.now_us += before_s * 1_000_000
    moved = office.ask(Demote("mm"))
    stopped_us = T0 + 5 * DAY_US if frozen else office.now_us
    office.now_us += between_s * 1_000_000
    office.ask(Void(moved.seq, "ann", "x"))
    if frozen:
        office.ask(Freeze("mm", False, "ann", "go on"))
    # The days wait until a clock that was set back has caught up, and count on from there.
    counted_us = max(0, stopped_us - T0)
    assert office.strategy().active_us(office.now_us) == counted_us
    waits_us = max(0, stopped_us - office.now_us)
    office.days(14)
    expected_us = stopped_us - T0 + 14 * DAY_US - waits_us
    assert office.strategy().active_us(office.now_us) == max(counted_us, expected_us)


def test_a_void_needs_a_person_a_reason_and_room_for_the_capital(office: Office) -> None:
    office.adopted(Scaled)
    moved = office.ask(Demote("mm"))
    for by, reason in (("", "x"), ("ann", "")):
        with pytest.raises(MetricError):
            office.ask(Void(moved.seq, by, reason))
    office.adopted(Scaled, "other", budget_minor=50_000 * UNIT)
    with pytest.raises(CapitalExceeded):
        office.ask(Void(moved.seq, "ann", "x"))


def test_a_void_that_lowers_the_capital_needs_no_room(office: Office) -> None:
    office.adopted(Small)
    office.green(Small)
    moved = office.ask(Promote("mm", by="ann"))
    office.adopted(Scaled, "other", over_capital=True)
    assert step_of(office.ask(Void(moved.seq, "ann", "too early"))) == (100_000, 1_000)


def test_a_void_gives_back_the_cap_of_its_stage(office: Office) -> None:
    office.adopted(Small)
    office.ask(SetCap("mm", 0.005, "ann", "careful"))
    moved = office.ask(Demote("mm"))
    office.ask(Void(moved.seq, "ann", "the wrong one"))
    assert office.strategy().cap == 0.005


@pytest.mark.parametrize(("cap", "over"), [(0.9, 50_000), (0.5, 10_000), (0.4, 0), (0.1, 0)])
def test_a_lower_cap_gives_up_what_was_allowed_beyond_the_bound(
    office: Office, cap: float, over: int
) -> None:
    office.adopted(Scaled, "other", budget_minor=60_000 * UNIT)
    office.adopted(Scaled, over_capital=True)
    assert office.strategy().over_minor == 60_000 * UNIT
    office.ask(SetCap("mm", cap, "ann", "careful"))
    assert office.strategy().over_minor == over * UNIT


@pytest.mark.parametrize(("others", "over"), [(True, 1_000), (False, 0)])
def test_a_void_allows_beyond_the_bound_no_more_than_it_needs(
    office: Office, others: bool, over: int
) -> None:
    office.adopted(Scaled, "other")
    office.adopted(Small, over_capital=True)
    office.green(Small)
    office.ask(Demote("other", Shadow))
    moved = office.ask(Promote("mm", by="ann"))
    if others:
        office.adopted(Scaled, "third", over_capital=True)
    office.ask(Void(moved.seq, "ann", "too early"))
    assert office.strategy().over_minor == over * UNIT


def test_a_freeze_since_the_transition_outlives_its_void(office: Office) -> None:
    office.adopted(Small)
    office.days(5)
    moved = office.ask(Demote("mm"))
    office.days(1)
    office.ask(Freeze("mm", True, "risk", "the books differ"))
    office.days(1)
    office.ask(Void(moved.seq, "ann", "the wrong one"))
    office.days(1)
    strategy = office.strategy()
    assert (strategy.stage, strategy.frozen) == (Small, True)
    assert strategy.active_us(office.now_us) == 5 * DAY_US, "frozen and voided time is no day"
    office.ask(Freeze("mm", False, "risk", "they agree"))
    office.days(1)
    assert office.strategy().active_us(office.now_us) == 6 * DAY_US


def test_a_failure_of_integrity_in_the_lowest_stage_outlives_a_void(office: Office) -> None:
    office.adopted(Small)
    moved = office.ask(Demote("mm", Paper))
    office.ask(DemoteAutomatically("mm", "integrity", "reconciliation", "the books differ"))
    office.ask(Void(moved.seq, "ann", "the wrong one"))
    assert (office.strategy().stage, office.strategy().frozen) == (Small, True)


def test_an_unfreeze_since_the_transition_outlives_its_void(office: Office) -> None:
    office.adopted(Small)
    office.days(5)
    office.ask(Freeze("mm", True, "risk", "the books differ"))
    moved = office.ask(Demote("mm"))
    office.ask(Freeze("mm", False, "risk", "they agree"))
    office.days(1)
    office.ask(Void(moved.seq, "ann", "the wrong one"))
    office.days(1)
    strategy = office.strategy()
    assert (strategy.frozen, strategy.frozen_since_us) == (False, None)
    assert strategy.active_us(office.now_us) == 6 * DAY_US


def test_a_voided_third_demotion_was_none_and_froze_nothing(office: Office) -> None:
    office.adopted(Scaled)
    for _ in range(3):
        before, moved = office.strategy(), office.ask(DemoteAutomatically("mm", "soft", "r", "x"))
        office.days(1)
    assert moved is not None
    assert office.strategy().frozen
    office.ask(Void(moved.seq, "ann", "the venue was down"))
    after = office.strategy()
    assert not after.frozen
    assert len(after.demotions_us) == 2
    assert after.cooldown_until_us == before.cooldown_until_us


def test_counts_of_a_voided_stage_belong_to_none(office: Office) -> None:
    office.ask(Register("mm"))
    office.green(Paper)
    moved = office.ask(Promote("mm"))
    office.ask(RecordMetrics("mm", Shadow, {"n_trades": 60}, cumulative_since="registration"))
    office.ask(Void(moved.seq, "ann", "too early"))
    office.ask(RecordMetrics("mm", Paper, {"n_trades": 60}, cumulative_since="registration"))
    office.ask(RecordMetrics("mm", Paper, {"n_trades": 60}))
    office.ask(Promote("mm"))
    office.ask(RecordMetrics("mm", Shadow, {"n_trades": 80}, cumulative_since="registration"))
    assert office.ask(ReadSnapshot("mm")).metrics == {"n_trades": 20}


@pytest.mark.parametrize(("voided", "due"), [([160], 61), ([], 60)])
def test_trades_of_a_voided_stage_count_in_none(
    office: Office, voided: list[int], due: int
) -> None:
    office.ask(Register("mm"))
    office.days(14)
    office.ask(RecordMetrics("mm", Paper, {"n_trades": 60}, cumulative_since="registration"))
    office.ask(RecordMetrics("mm", Paper, {"sharpe": 1.2, "max_drawdown": 0.08}))
    moved = office.ask(Promote("mm"))
    for n_trades in voided:
        totals = {"n_trades": n_trades}
        office.ask(RecordMetrics("mm", Shadow, totals, cumulative_since="registration"))
    office.ask(Void(moved.seq, "ann", "too early"))
    for n_trades, more in ((161, 0), (171, 10)):
        office.days(0.1)
        totals = {"n_trades": n_trades}
        office.ask(RecordMetrics("mm", Paper, totals, cumulative_since="registration"))
        assert office.ask(ReadSnapshot("mm")).metrics["n_trades"] == due + more


def test_a_discard_after_a_void_leaves_each_record_in_its_time(office: Office) -> None:
    office.ask(Register("mm"))
    office.days(14)
    figures = {"n_trades": 60, "returns": [0.25, 0.2]}
    office.ask(RecordMetrics("mm", Paper, figures, cumulative_since="registration"))
    office.ask(RecordMetrics("mm", Paper, GREEN, source="bug"))
    moved = office.ask(Promote("mm"))
    figures = {"n_trades": 160, "returns": [0.25, 0.2, -0.5]}
    office.ask(RecordMetrics("mm", Shadow, figures, cumulative_since="registration"))
    office.ask(Void(moved.seq, "ann", "too early"))
    figures = {"n_trades": 161, "returns": [0.25, 0.2, -0.5, -0.2]}
    office.ask(RecordMetrics("mm", Paper, figures, cumulative_since="registration"))
    office.ask(DiscardMetrics("mm", office.now_us, "bug", "ann", "wrong"))
    metrics = office.ask(ReadSnapshot("mm")).metrics
    assert metrics["n_trades"] == 61
    assert metrics["max_drawdown"] == pytest.approx(0.2)


def test_a_session_that_does_not_pass_ends_the_row(office: Office) -> None:
    fills = (Criterion("fills", "fills", ">=", 10),)
    office.ask(AddGate(PromotionGate(Shadow, fills, streak=3)))
    office.adopted(Shadow)
    seen = []
    for number, count in enumerate((10, 10, 9, 10), 1):
        office.ask(RecordMetrics("mm", Shadow, {"fills": count}))
        office.look(status(100.0, stage="shadow"), session=f"2026-01-0{number}")
        office.days(1)
        seen.append(office.strategy().streak)
    assert seen == [0, 1, 0, 1]


def test_a_session_that_ends_with_the_first_status_opens_the_next_one_there(office: Office) -> None:
    office.adopted(Small)
    office.look(status(100.0), session="2026-01-01")
    office.days(0.1)
    (moved,) = office.look(status(94.0))
    assert "session loss 6.00%" in moved.reason


def test_a_session_that_was_not_measured_ends_the_row(office: Office) -> None:
    days = (Criterion("days", "days", ">=", 0),)
    office.ask(AddGate(PromotionGate(Shadow, days, streak=3)))
    office.adopted(Shadow)
    office.look(status(stage="shadow"))
    seen = []
    for number, statuses in enumerate(([status()], [status()], [], [status()]), 1):
        office.days(1)
        for _ in range(2):  # a session that is told twice counts once
            office.look(*statuses, session=f"2026-01-0{number}")
        seen.append(office.strategy().streak)
    assert seen == [1, 2, 0, 1]


def test_a_row_of_sessions_belongs_to_its_gate(office: Office) -> None:
    days, fills = Criterion("days", "days", ">=", 0), Criterion("fills", "fills", ">=", 0)
    office.adopted(Shadow)
    office.look(status(stage="shadow"))
    seen = []
    for number, gate in enumerate(
        [
            PromotionGate(Shadow, (days,), streak=4),
            PromotionGate(Shadow, (days,), streak=3),
            PromotionGate(Shadow, (days,)),
            PromotionGate(Shadow, (days,), streak=3),
            PromotionGate(Shadow, (fills,), streak=3),
        ],
        1,
    ):
        office.ask(AddGate(gate))
        office.days(1)
        office.ask(RecordMetrics("mm", Shadow, {"fills": 1}))
        office.look(status(), session=f"2026-01-0{number}", evaluate=False)
        seen.append(office.ask(Evaluate("mm")).inputs.streak)
    assert seen == [1, 2, 0, 1, 1]


def test_a_void_gives_back_the_sessions_in_a_row(office: Office) -> None:
    days = (Criterion("days", "days", ">=", 0),)
    office.ask(AddGate(PromotionGate(Shadow, days, streak=3)))
    office.adopted(Shadow)
    for number in range(3):
        office.look(status(100.0), session=f"2026-01-0{number + 1}")
        office.days(1)
    assert office.strategy().streak == 2
    moved = office.ask(Demote("mm"))
    assert office.strategy().streak == 0
    # The stage in between has a row of its own.
    trades = (Criterion("trades", "n_trades", ">=", 0),)
    office.ask(AddGate(PromotionGate(Paper, trades, streak=3)))
    office.look(status(100.0, stage="paper"), session="2026-01-04")
    office.ask(Void(moved.seq, "ann", "x"))
    assert office.ask(Evaluate("mm")).inputs.streak == 2


def test_ready_is_told_again_after_its_promotion_was_voided(office: Office) -> None:
    office.ask(Register("mm", Shadow))
    office.green(Shadow)
    office.look(status(stage="shadow"))
    moved = office.ask(Approve("mm", "ann"))
    office.ask(Void(moved.seq, "ann", "too early"))
    office.look(status(stage="shadow"))
    assert [note.title for note in office.notes] == ["mm is ready for live-small"]


def test_a_version_that_came_since_is_new_to_the_stage_of_a_void(office: Office) -> None:
    office.ask(Register("mm"))
    office.look(status(version="v1"))
    office.green(Paper)
    moved = office.ask(Promote("mm"))
    office.look(status(version="v2", stage="shadow"))
    office.ask(Void(moved.seq, "ann", "too early"))
    # The figures of the stage are those of another version.
    with pytest.raises(GateNotPassed):
        office.ask(Promote("mm"))
    assert office.look(status(version="v2", stage="paper")) == ()
    assert [line.kind for line in office.ask(PromotionHistory("mm"))][:2] == ["version", "void"]
    strategy = office.strategy()
    assert (strategy.stage, strategy.version, strategy.versions) == (Paper, "v2", 2)
    assert (strategy.episode.recorded, strategy.active_us(office.now_us)) == ({}, 0)


def test_a_version_that_came_since_freezes_a_void_to_real_money(office: Office) -> None:
    office.adopted(Scaled)
    office.look(status(version="v1"))
    moved = office.ask(Demote("mm", Shadow))
    office.look(status(version="v2", stage="shadow"))
    voided = office.ask(Void(moved.seq, "ann", "the wrong one"))
    strategy = office.strategy()
    assert (voided.to_stage, strategy.stage, strategy.frozen) == (Scaled, Scaled, True)
    office.look(status(version="v2", stage="live-scaled"))
    assert (office.strategy().rev, office.strategy().versions) == (strategy.rev, 2)


def test_a_version_that_goes_through_shadow_is_not_put_back_to_real_money(path: Path) -> None:
    office = Office(path, policy_of(settings=PromotionSettings(on_new_version="shadow")), Capital())
    office.adopted(Small)
    office.look(status(version="v1"))
    moved = office.ask(Demote("mm"))
    office.look(status(version="v2", stage="shadow"))
    with pytest.raises(Conflict, match="version v2 came since, which goes to shadow"):
        office.ask(Void(moved.seq, "ann", "x"))
    assert office.strategy().stage is Shadow
    office.store.close()


def test_the_first_version_that_is_known_after_a_void_is_no_new_one(office: Office) -> None:
    office.ask(Register("mm"))
    office.green(Paper)
    moved = office.ask(Promote("mm"))
    office.look(status(version="v1", stage="shadow"))
    office.ask(Void(moved.seq, "ann", "too early"))
    strategy = office.strategy()
    assert (strategy.version, strategy.versions) == ("v1", 1)
    assert office.ask(ReadSnapshot("mm")).metrics == GREEN


def test_a_promotion_that_a_new_version_took_back_is_not_voided(path: Path) -> None:
    office = Office(path, policy_of(settings=PromotionSettings(on_new_version="shadow")), Capital())
    office.ask(Register("mm", Shadow))
    office.look(status(version="v1", stage="shadow"))
    office.green(Shadow)
    moved = office.ask(Promote("mm", cap=0.005))
    office.look(status(version="v2", stage="live-small"))
    assert (office.strategy().stage, office.strategy().cap) == (Shadow, None)
    with pytest.raises(Conflict, match="not the newest transition"):
        office.ask(Void(moved.seq, "ann", "x"))
    office.store.close()


def test_a_void_to_a_stage_that_the_ladder_lacks_is_refused(path: Path) -> None:
    office = Office(path, policy_of(), Capital())
    office.adopted(Small)
    moved = office.ask(Demote("mm", Paper))
    office.desk = Desk(policy_of(ladder="three-stage"), Capital())
    with pytest.raises(PolicyError, match="live-small"):
        office.ask(Void(moved.seq, "ann", "x"))
    office.store.close()


def test_a_void_ends_a_cooldown(office: Office) -> None:
    office.adopted(Small)
    moved = office.ask(DemoteAutomatically("mm", "soft", "recovery", "it fails"))
    assert moved is not None
    office.ask(Void(moved.seq, "ann", "the venue was down"))
    office.green(Small)
    assert office.ask(Promote("mm", by="ann")).to_stage is Scaled


def test_an_episode_after_a_void_takes_no_evidence_of_the_voided_one(office: Office) -> None:
    office.ask(Register("mm", Shadow))
    office.green(Shadow)
    moved = office.ask(Promote("mm", by="ann"))
    office.ask(RecordMetrics("mm", Small, {"sharpe": 9.0}, office.now_us, "x"))
    office.ask(Void(moved.seq, "ann", "too early"))
    office.ask(Promote("mm", by="ann"))
    assert office.ask(ReadSnapshot("mm")).metrics == {}
    office.ask(RecordMetrics("mm", Small, {"sharpe": 1.0}, office.now_us, "x"))
    assert office.ask(ReadSnapshot("mm")).metrics == {"sharpe": 1.0}


def test_a_void_discards_no_record_that_caused_nothing(office: Office) -> None:
    office.adopted(Small)
    office.ask(RecordMetrics("mm", Small, {"daily_loss": 0.06}))
    moved = office.ask(DemoteAutomatically("mm", "integrity", "oversight", "cash differs"))
    assert moved is not None
    office.ask(Void(moved.seq, "ann", "the statement was wrong"))
    assert office.ask(ReadSnapshot("mm")).metrics == {"daily_loss": 0.06}


def test_a_retired_strategys_transition_stays(office: Office) -> None:
    office.adopted(Small)
    moved = office.ask(Demote("mm"))
    office.ask(Retire("mm"))
    with pytest.raises(StrategyRetired):
        office.ask(Void(moved.seq, "ann", "x"))


# -- records


def test_a_discarded_record_counts_no_more_and_is_kept(office: Office) -> None:
    office.ask(Register("mm"))
    office.ask(RecordMetrics("mm", Paper, {"sharpe": 1.0, "max_drawdown": 0.1}, T0, "nightly"))
    office.ask(RecordMetrics("mm", Paper, {"sharpe": 3.0, "max_drawdown": 0.9}, T0 + 1, "typed"))
    office.ask(DiscardMetrics("mm", T0 + 1, "typed", "ann", "a slip"))
    assert office.ask(ReadSnapshot("mm")).metrics == {"sharpe": 1.0, "max_drawdown": 0.1}
    kept = office.rows.rows("SELECT source, discarded_by, discarded_reason FROM promotion_metrics")
    assert kept == [("nightly", None, None), ("typed", "ann", "a slip")]
    (line, *_) = office.ask(PromotionHistory("mm"))
    assert (line.kind, line.by, line.reason) == ("discard", "ann", "a slip")
    # The key is free again.
    office.ask(RecordMetrics("mm", Paper, {"sharpe": 1.1}, T0 + 1, "typed"))
    assert office.ask(ReadSnapshot("mm")).metrics["sharpe"] == 1.1


def test_a_record_may_be_five_minutes_ahead_of_the_clock_and_no_more(office: Office) -> None:
    office.ask(Register("mm"))
    ahead_us = office.now_us + 300_000_000
    office.ask(RecordMetrics("mm", Paper, GREEN, ahead_us))
    with pytest.raises(MetricError, match="lies in the future"):
        office.ask(RecordMetrics("mm", Paper, GREEN, ahead_us + 1))


def test_a_record_that_is_not_there_is_not_discarded(office: Office) -> None:
    office.ask(Register("mm"))
    office.ask(RecordMetrics("mm", Paper, {"sharpe": 1.0}, T0, "nightly"))
    for as_of_us, source in ((T0, "other"), (T0 + 1, "nightly")):
        with pytest.raises(MetricError):
            office.ask(DiscardMetrics("mm", as_of_us, source, "ann", "x"))


def test_a_series_is_measured_and_beats_what_was_recorded(office: Office) -> None:
    office.ask(Register("mm"))
    returns = [0.01, -0.02, 0.015, 0.005]
    office.ask(RecordMetrics("mm", Paper, {"returns": returns, "sharpe": 9.0}))
    snapshot = office.ask(ReadSnapshot("mm"))
    assert snapshot.metrics["max_drawdown"] == pytest.approx(0.02)
    sharpe = next(one for one in snapshot.evaluation.criteria if one.name == "min_sharpe")
    assert (sharpe.source, sharpe.recorded) == ("measured", 9.0)
    deviation = statistics.stdev(returns)
    assert sharpe.observed == pytest.approx(365**0.5 * statistics.fmean(returns) / deviation)
    equity = [100.0]
    for change in returns:
        equity.append(equity[-1] * (1 + change))
    office.ask(Register("other"))
    office.ask(RecordMetrics("other", Paper, {"equity": equity}))
    found = office.ask(ReadSnapshot("other")).metrics
    assert found["sharpe"] == pytest.approx(snapshot.metrics["sharpe"])
    assert found["max_drawdown"] == pytest.approx(snapshot.metrics["max_drawdown"])


@pytest.mark.parametrize(
    ("metrics", "field"),
    [
        ({"returns": []}, "returns"),
        ({"returns": 0.1}, "returns"),
        ({"returns": [0.1, float("nan")]}, "returns[1]"),
        ({"returns": [-1.5]}, "returns[0]"),
        ({"returns": [True]}, "returns[0]"),
        ({"equity": [100, 0]}, "equity[1]"),
        ({"equity": [100], "returns": [0.1]}, "equity"),
    ],
)
def test_a_series_that_cannot_be_true_is_refused(
    office: Office, metrics: dict[str, Any], field: str
) -> None:
    office.ask(Register("mm"))
    with pytest.raises(MetricError) as refusal:
        office.ask(RecordMetrics("mm", Paper, metrics))
    assert refusal.value.field == field
    assert office.ask(ReadSnapshot("mm")).metrics == {}


def test_constant_returns_have_no_sharpe_ratio(office: Office) -> None:
    office.ask(Register("mm"))
    office.days(14)
    office.ask(RecordMetrics("mm", Paper, {"returns": [0.01] * 14, "n_trades": 60}))
    sharpe = next(one for one in office.ask(Evaluate("mm")).criteria if one.name == "min_sharpe")
    assert (sharpe.verdict, sharpe.reason) == ("INCONCLUSIVE", "undefined")


def test_counts_since_the_registration_lose_what_came_before_the_stage(office: Office) -> None:
    office.ask(Register("mm"))
    office.days(14)
    first = {"n_trades": 60, "win_rate": 0.5, "returns": [0.01, 0.02, 0.0]}
    office.ask(RecordMetrics("mm", Paper, first, cumulative_since="registration"))
    assert office.ask(ReadSnapshot("mm")).metrics["n_trades"] == 60
    office.ask(RecordMetrics("mm", Paper, {"sharpe": 1.5, "max_drawdown": 0.0}))
    office.ask(Promote("mm"))
    later = {"n_trades": 80, "win_rate": 0.6, "returns": [0.01, 0.02, 0.0, -0.1]}
    office.ask(RecordMetrics("mm", Shadow, later, cumulative_since="registration"))
    metrics = office.ask(ReadSnapshot("mm")).metrics
    assert metrics["n_trades"] == 20
    assert metrics["win_rate"] == pytest.approx((48 - 30) / 20)
    assert metrics["max_drawdown"] == pytest.approx(0.1)


def test_equity_since_the_registration_begins_at_the_last_one_before_the_stage(
    office: Office,
) -> None:
    office.ask(Register("mm"))
    office.days(14)
    office.ask(
        RecordMetrics("mm", Paper, {"equity": [100, 80, 120]}, cumulative_since="registration")
    )
    office.ask(RecordMetrics("mm", Paper, {"n_trades": 60}))
    office.ask(Promote("mm"))
    later = {"equity": [100, 80, 120, 90, 99]}
    office.ask(RecordMetrics("mm", Shadow, later, cumulative_since="registration"))
    # From 120 to 90: the return of the stage's first session has its base in the session before.
    assert office.ask(ReadSnapshot("mm")).metrics["max_drawdown"] == pytest.approx(0.25)


def test_the_first_total_of_a_later_stage_is_its_base_where_none_was_recorded_before(
    office: Office,
) -> None:
    office.ask(Register("mm"))
    office.green(Paper)
    office.ask(Promote("mm"))
    for n_trades, due in ((500, 0), (520, 20)):
        totals = {"n_trades": n_trades, "win_rate": 0.5, "returns": [0.01, -0.5] * (n_trades // 4)}
        office.days(1)
        office.ask(RecordMetrics("mm", Shadow, totals, cumulative_since="registration"))
        assert office.ask(ReadSnapshot("mm")).metrics["n_trades"] == due
        assert ("max_drawdown" in office.strategy().episode.measured) is (due > 0)
    assert office.ask(ReadSnapshot("mm")).metrics["win_rate"] == 0.5


def test_a_total_of_two_stages_ago_is_no_base(office: Office) -> None:
    office.ask(Register("mm"))
    office.ask(RecordMetrics("mm", Paper, {"n_trades": 60}, cumulative_since="registration"))
    for stage in (Paper, Shadow):
        office.green(stage)
        office.ask(Promote("mm", by="ann"))
    office.ask(RecordMetrics("mm", Small, {"n_trades": 500}, cumulative_since="registration"))
    assert office.ask(ReadSnapshot("mm")).metrics == {"n_trades": 0}


def test_a_session_is_the_same_in_returns_and_in_equity(office: Office) -> None:
    office.ask(Register("mm"))
    office.green(Paper)
    returns = [0.25, 0.2, 0.3]
    office.ask(RecordMetrics("mm", Paper, {"returns": returns}, cumulative_since="registration"))
    office.ask(Promote("mm"))
    equity = [100, 125, 150, 195]
    office.ask(RecordMetrics("mm", Shadow, {"equity": equity}, cumulative_since="registration"))
    assert office.ask(ReadSnapshot("mm")).metrics == {}
    equity.append(156)
    office.ask(RecordMetrics("mm", Shadow, {"equity": equity}, cumulative_since="registration"))
    assert office.ask(ReadSnapshot("mm")).metrics == {"max_drawdown": pytest.approx(0.2)}


def test_trades_of_another_stage_are_in_no_win_rate_since_the_registration(office: Office) -> None:
    office.ask(Register("mm"))
    office.green(Paper)
    for totals in ({"n_trades": 60, "win_rate": 0.5}, {"n_trades": 100}):
        office.ask(RecordMetrics("mm", Paper, totals, cumulative_since="registration"))
    office.ask(Promote("mm"))
    for n_trades, due in ((120, {"n_trades": 20}), (160, {"n_trades": 60, "win_rate": 0.5})):
        totals = {"n_trades": n_trades, "win_rate": 0.5}
        office.ask(RecordMetrics("mm", Shadow, totals, cumulative_since="registration"))
        assert office.ask(ReadSnapshot("mm")).metrics == due


def test_a_discarded_total_is_no_base_of_the_next_stage(office: Office) -> None:
    office.ask(Register("mm"))
    office.green(Paper)
    wrong, right = (
        {"n_trades": 6000, "returns": [0.0] * 90},
        {"n_trades": 60, "returns": [0.01, 0.02]},
    )
    for source, totals in (("", right), ("bug", wrong)):
        office.ask(
            RecordMetrics("mm", Paper, totals, office.now_us, source, "registration"),
        )
    office.ask(DiscardMetrics("mm", office.now_us, "bug", "ann", "wrong"))
    office.days(1)
    office.ask(RecordMetrics("mm", Paper, GREEN))
    office.ask(Promote("mm"))
    later = {"n_trades": 70, "returns": [0.01, 0.02, -0.1]}
    office.ask(RecordMetrics("mm", Shadow, later, cumulative_since="registration"))
    metrics = office.ask(ReadSnapshot("mm")).metrics
    assert metrics == {"n_trades": 10, "max_drawdown": pytest.approx(0.1)}


def test_one_equity_is_no_series_and_measures_nothing(office: Office) -> None:
    office.ask(Register("mm"))
    office.ask(RecordMetrics("mm", Paper, {"equity": [100]}))
    assert office.ask(ReadSnapshot("mm")).metrics == {}


def test_the_engines_reports_measure_before_a_recorded_series(office: Office) -> None:
    office.adopted(Paper)
    for number, equity in enumerate((100.0, 101.0, 103.0), 1):
        office.look(status(equity))
        office.days(1)
        office.look(status(equity), session=f"2026-01-0{number}")
    measured = office.ask(ReadSnapshot("mm")).metrics["sharpe"]
    office.ask(RecordMetrics("mm", Paper, {"returns": [0.01, -0.5, 0.02]}))
    snapshot = office.ask(ReadSnapshot("mm"))
    assert snapshot.metrics["sharpe"] == measured
    # A fall that either shows has happened, also after the next session of the engine.
    assert snapshot.metrics["max_drawdown"] == pytest.approx(0.5)
    office.days(1)
    office.look(status(104.0), session="2026-01-04")
    assert office.ask(ReadSnapshot("mm")).metrics["max_drawdown"] == pytest.approx(0.5)


@pytest.mark.parametrize("given", [None, 100.0])
def test_sessions_are_as_many_a_year_as_the_policy_says(path: Path, given: float | None) -> None:
    policy = policy_of(settings=PromotionSettings(periods_per_year=given))
    office = Office(path, policy, Capital())
    office.ask(Register("mm"))
    for number, equity in enumerate((100.0, 101.0, 103.0, 102.0), 1):
        office.look(status(equity), session=f"2026-01-0{number}")
        office.days(1)
    returns = [101 / 100 - 1, 103 / 101 - 1, 102 / 103 - 1]
    ratio = statistics.fmean(returns) / statistics.stdev(returns)
    # A look tells the sessions of its own calendar, 252 unless it says otherwise.
    due = (given or 252) ** 0.5 * ratio
    assert office.ask(ReadSnapshot("mm")).metrics["sharpe"] == pytest.approx(due)
    office.store.close()


def test_an_older_series_does_not_replace_a_newer_one(office: Office) -> None:
    office.ask(Register("mm"))
    office.days(3)
    newer, older = [0.02, -0.01, 0.015], [0.03, 0.01, 0.02]
    office.ask(RecordMetrics("mm", Paper, {"returns": newer}, office.now_us, "a"))
    sharpe = office.ask(ReadSnapshot("mm")).metrics["sharpe"]
    office.ask(RecordMetrics("mm", Paper, {"returns": older}, office.now_us - 1, "b"))
    assert office.ask(ReadSnapshot("mm")).metrics["sharpe"] == sharpe


def test_what_has_no_part_of_this_stage_is_refused(office: Office) -> None:
    office.ask(Register("mm"))
    with pytest.raises(MetricError) as refusal:
        office.ask(RecordMetrics("mm", Paper, {"sharpe": 1.0}, cumulative_since="registration"))
    assert refusal.value.field == "sharpe"
    with pytest.raises(MetricError) as refusal:
        office.ask(RecordMetrics("mm", Paper, {"n_trades": 1}, cumulative_since="yesterday"))
    assert refusal.value.field == "cumulative_since"


@pytest.mark.parametrize(
    ("later", "field"),
    [
        ({"n_trades": 59}, "n_trades"),
        ({"n_trades": 60, "win_rate": 0.25}, "win_rate"),
        ({"returns": [0.01]}, "returns"),
        ({"equity": [100, 101]}, "equity"),
    ],
)
def test_a_total_that_falls_below_the_stages_base_is_refused(
    office: Office, later: dict[str, Any], field: str
) -> None:
    office.ask(Register("mm"))
    office.days(14)
    first = {"n_trades": 60, "win_rate": 0.5, "returns": [0.01, 0.02]}
    office.ask(RecordMetrics("mm", Paper, first, cumulative_since="registration"))
    office.ask(RecordMetrics("mm", Paper, {"sharpe": 1.5, "max_drawdown": 0.0}))
    office.ask(Promote("mm"))
    with pytest.raises(MetricError) as refusal:
        office.ask(RecordMetrics("mm", Shadow, later, cumulative_since="registration"))
    assert refusal.value.field == field


# -- versions and families


def test_a_new_version_begins_a_new_episode_before_real_money(office: Office) -> None:
    office.ask(Register("mm"))
    office.look(status(version="v1"))
    office.green(Paper)
    assert office.strategy().versions == 1
    office.look(status(version="v2"))
    strategy = office.strategy()
    assert (strategy.stage, strategy.episode.number, strategy.versions) == (Paper, 2, 2)
    assert strategy.episode.recorded == {}
    assert strategy.active_us(office.now_us) == 0
    (line, *_) = office.ask(PromotionHistory("mm"))
    assert (line.kind, line.version) == ("version", "v2")
    assert office.ask(Evaluate("mm")).inputs.trials == 2


def test_a_new_version_with_real_money_is_frozen_and_its_episode_goes_on(office: Office) -> None:
    office.adopted(Scaled)
    office.look(status(version="v1"))
    office.look(status(101.0, version="v2"))
    strategy = office.strategy()
    assert (strategy.stage, strategy.frozen, strategy.episode.number) == (Scaled, True, 1)
    assert (strategy.versions, strategy.episode.track.equity) == (2, 101.0)
    request = Observe((status(101.0, version="v3"),))
    look = Look(office.desk, office.roster(), request, office.now_us, 0)
    look.see(strategy)
    (note,) = notes_of(look.decided()[0].changes, 1)
    assert (note.level.value, "new version" in note.title) == ("WARNING", True)


def test_a_version_that_comes_back_is_no_new_trial(office: Office) -> None:
    office.ask(Register("mm"))
    for version in ("v1", "v2", "v1", "v2"):
        office.look(status(version=version))
    assert office.strategy().versions == 2


def test_an_unknown_version_changes_nothing(office: Office) -> None:
    office.ask(Register("mm"))
    office.look(status(version="v1"))
    office.look(status(version=None))
    office.look(status(version="v1"))
    assert (office.strategy().version, office.strategy().versions) == ("v1", 1)


def test_a_family_counts_every_version_of_every_variant_and_never_falls(office: Office) -> None:
    for name in ("a", "b"):
        office.ask(Register(name, family="mm"))
        office.look(status(name=name, version="v1"))
    office.look(status(name="a", version="v2"))
    office.ask(Register("alone"))
    assert office.ask(Evaluate("b")).inputs.trials == 3
    assert office.ask(Evaluate("alone")).inputs.trials == 1
    office.ask(Retire("a"))
    assert office.ask(Evaluate("b")).inputs.trials == 3


def test_the_sharpe_ratios_of_a_family_tell_how_far_its_best_may_be_luck(office: Office) -> None:
    returns = {"a": [0.01, 0.02, -0.01, 0.015], "b": [0.0, 0.01, -0.02, 0.01], "c": [0.01, 0.03]}
    for name, series in returns.items():
        office.ask(Register(name, family="mm"))
        office.ask(RecordMetrics(name, Paper, {"returns": series}))
    found = office.ask(Evaluate("a"))
    sharpes = [statistics.fmean(one) / statistics.stdev(one) for one in returns.values()]
    assert found.inputs.trial_variance == pytest.approx(statistics.variance(sharpes))
    assert found.inputs.trials == 3
    office.ask(Register("alone"))
    assert office.ask(Evaluate("alone")).inputs.trial_variance is None


def test_a_status_from_before_the_engine_has_the_stage_in_force_is_no_evidence_of_it(
    office: Office,
) -> None:
    office.adopted(Small)
    office.look(status(100.0, stage="shadow"))
    office.look(status(60.0, stage="live-small"))
    assert office.strategy().stage is Small
    office.look(status(48.0, stage="live-small"))
    assert office.strategy().stage is Shadow


def test_a_strategy_registered_again_keeps_its_budget(office: Office) -> None:
    known = office.ask(Register("a", budget_minor=1_000))
    assert office.ask(Register("a")) == office.ask(Register("a", budget_minor=1_000)) == known
    with pytest.raises(Conflict, match="is registered already, with another budget"):
        office.ask(Register("a", budget_minor=2_000))


def test_a_strategy_registered_again_stays_in_its_family(office: Office) -> None:
    known = office.ask(Register("a", family="mm"))
    assert office.ask(Register("a")) == office.ask(Register("a", family="mm")) == known
    with pytest.raises(Conflict, match="mm"):
        office.ask(Register("a", family="other"))
    with pytest.raises(MetricError) as refusal:
        office.ask(Register("b", family=" x"))
    assert refusal.value.field == "family"


def test_a_strategy_that_reports_and_is_not_registered_is_told_so(office: Office) -> None:
    roster = office.roster()
    roster.reported = ("ghost",)
    with pytest.raises(UnknownStrategy, match="reports"):
        roster.find("ghost")
    with pytest.raises(UnknownStrategy) as refusal:
        roster.find("nobody")
    assert "reports" not in str(refusal.value)


# -- deadlines


def test_a_stage_that_lasts_too_long_is_told_once(path: Path) -> None:
    policy = policy_of()
    paper = msgspec.structs.replace(policy.rungs[0], max_days=30)
    policy = msgspec.structs.replace(policy, rungs=(paper, *policy.rungs[1:]))
    office = Office(path, policy, Capital())
    office.ask(Register("mm"))
    told = []
    for _ in range(4):
        office.days(10)
        office.look()
        told.append([(note.level.value, note.dedup_key) for note in office.notes])
    assert told == [[], [], [("WARNING", "overdue:mm")], []]
    decided = office.desk.handle(Retire("mm"), office.roster(), office.now_us)
    (note,) = notes_of(decided.changes, 2)
    assert (note.dedup_key, note.resolves) == ("overdue:mm", True)
    office.store.close()


def test_a_stage_that_passes_its_gate_never_lasts_too_long(path: Path) -> None:
    shadow = StageSettings(max_days=14)
    office = Office(
        path, policy_of(settings=PromotionSettings(stages={"shadow": shadow})), Capital()
    )
    office.ask(Register("mm", Shadow))
    office.green(Shadow)
    office.look(status(stage="shadow"))
    assert [note.title for note in office.notes] == ["mm is ready for live-small"]
    office.store.close()


# -- as of an instant


def test_the_state_of_then_is_what_the_history_says(office: Office) -> None:
    office.ask(Register("mm"))
    seen = [(office.now_us, office.ask(ReadSnapshot("mm")))]
    for act in ("promote", "demote", "promote"):
        office.green(office.strategy().stage)
        office.ask(Promote("mm", by="ann") if act == "promote" else Demote("mm"))
        seen.append((office.now_us, office.ask(ReadSnapshot("mm"))))
    for at_us, snapshot in seen:
        (state,) = office.ask(StateAsOf(at_us))
        assert (state.stage, state.rev, state.frozen) == (snapshot.stage, snapshot.rev, False)
    assert office.ask(StateAsOf(T0 - 1)) == ()


def test_a_line_of_history_tells_all_of_its_change(office: Office) -> None:
    office.adopted(Small, family="trend")
    office.look(status(version="v1", stage="live-small"))
    office.green(Small)
    evaluation = office.ask(Evaluate("mm"))
    moved = office.ask(Promote("mm", by="ann", reason="it holds", cap=0.25))
    (line, first) = office.ask(PromotionHistory("mm"))
    assert msgspec.structs.asdict(line) == {
        "seq": moved.seq,
        "strategy": "mm",
        "kind": "promote",
        "from_stage": Small,
        "to_stage": Scaled,
        "effective_us": office.now_us,
        "by": "ann",
        "reason": "it holds",
        "metrics": GREEN,
        "evaluation_id": evaluation.id,
        "rev": 2,
        "recorded_us": office.now_us,
        "cap_before": 0.01,
        "cap_after": 0.25,
        "policy": office.desk.policy.hash,
        "version": "v1",
    }
    assert (first.kind, first.from_stage, first.cap_before, first.metrics) == (
        "adopt",
        None,
        None,
        {},
    )
    assert office.ask(ReadSnapshot("mm")).history == (first, line)


def test_the_state_of_then_has_the_whole_record_of_then(office: Office) -> None:
    office.adopted(Scaled, family="trend")
    office.look(status(version="v1", stage="live-scaled"))
    office.ask(RecordMetrics("mm", Scaled, {"sharpe": 1.5}))
    office.ask(SetCap("mm", 0.5, "ann", "careful"))
    at_us = office.now_us
    office.days(1)
    office.ask(DemoteAutomatically("mm", "integrity", "oversight", "cash differs"))
    (then,), (now,) = office.ask(StateAsOf(at_us)), office.ask(StateAsOf(office.now_us))
    assert (then.stage, then.kind, then.since_us, then.cap) == (Scaled, "cap", at_us, 0.5)
    assert (then.frozen, then.cooldown_until, then.episode) == (False, None, 1)
    assert (then.family, then.version, then.metrics) == ("trend", "v1", {"sharpe": 1.5})
    assert (now.stage, now.frozen, now.episode, now.cap, now.metrics) == (Paper, True, 2, None, {})
    assert now.cooldown_until == office.now_us + 30 * DAY_US


def test_history_is_never_changed_or_deleted(office: Office) -> None:
    office.ask(Register("mm"))
    for sql in ("UPDATE promotion_history SET cap_after = 1", "DELETE FROM promotion_history"):
        with pytest.raises(apsw.ConstraintError, match="never"):
            office.store.connection.execute(sql)


# -- gates


def test_an_added_gate_is_stored_with_the_policy_and_names_it(office: Office) -> None:
    before = office.desk.policy.hash
    office.ask(Register("mm"))
    office.ask(AddGate(PromotionGate(Paper, (Criterion("t", "n_trades", ">=", 10),))))
    stored = schema.stored_policy(office.rows)
    assert stored is not None
    assert (stored.policy, stored.base) == (office.desk.policy, before)
    assert stored.comes_from(policy_of())
    office.ask(RecordMetrics("mm", Paper, {"n_trades": 10}))
    office.ask(Promote("mm"))
    (line, *_) = office.ask(PromotionHistory("mm"))
    assert line.policy == stored.policy.hash != before


def test_a_frozen_strategy_is_demoted_and_not_promoted(office: Office) -> None:
    office.ask(Register("mm", Shadow))
    office.green(Shadow)
    office.ask(Freeze("mm", True, "ann"))
    with pytest.raises(StrategyFrozen):
        office.ask(Promote("mm", by="ann"))
    assert office.ask(Demote("mm")).to_stage is Paper


def test_an_evaluation_writes_nothing_and_is_the_same_twice(office: Office) -> None:
    office.ask(Register("mm"))
    office.green(Paper)
    changes = office.store.connection.total_changes()
    first, second = office.ask(Evaluate("mm")), office.ask(Evaluate("mm"))
    assert first == second
    assert office.store.connection.total_changes() == changes
    office.ask(Promote("mm"))
    (line,) = office.ask(PromotionHistory("mm", 1))
    assert line.evaluation_id == first.id
