"""The rules of promotion by plain calls: gates, verdicts, demotions, and what is never counted
as good.
"""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundops.actors.promotion import core, policy_of, with_gate
from fundops.actors.promotion.capital import Capital, beyond_bound, excess_minor
from fundops.actors.promotion.core import demoted, frozen, registered, retired
from fundops.actors.promotion.criteria import Criterion, PromotionGate
from fundops.actors.promotion.desk import snapshot as snapshot_of
from fundops.actors.promotion.evaluation import evaluate as judge
from fundops.actors.promotion.evidence import (
    Record,
    check_evidence,
    seen,
    session_ended,
    values_of,
    with_record,
)
from fundops.actors.promotion.limits import Breach, breach
from fundops.actors.promotion.metrics import canonical_metrics
from fundops.actors.promotion.observation import value_of
from fundops.actors.promotion.policy import HardLimits, PromotionPolicy, SoftLimits
from fundops.actors.promotion.strategy import Change, Metric, Strategy
from fundops.actors.promotion.track import Reading, Track
from fundops.runtime import DAY_US, ConfigError
from fundops.wire.errors import (
    CoolingDown,
    GateNotPassed,
    MetricError,
    SkipRefused,
    StaleRevision,
    StrategyFrozen,
    StrategyRetired,
    UnknownStage,
)
from fundops.wire.promotion import CriterionResult, Evaluation, PromotionSnapshot, PromotionStage

Paper, Shadow, Small, Scaled, Live, Retired = (
    PromotionStage.Paper,
    PromotionStage.Shadow,
    PromotionStage.Live_Small,
    PromotionStage.Live_Scaled,
    PromotionStage.Live,
    PromotionStage.Retired,
)
T0 = 1_700_000_000_000_000
HOUR_US = 3_600_000_000
AT_LIMIT: dict[str, Any] = {"sharpe": 1.0, "max_drawdown": 0.20, "n_trades": 50, "win_rate": 0.45}
SOURCE_EXAMPLE: dict[str, Any] = {"sharpe": 1.2, "max_drawdown": 0.08, "n_trades": 150}


def rules(*gates: PromotionGate, policy: Any = "guarded", **settings: Any) -> PromotionPolicy:
    made = policy_of(policy, **settings)
    for gate in gates:
        made = with_gate(made, gate)
    return made


def evaluate(
    subject: Strategy, policy: PromotionPolicy, now_us: int, others_minor: int = 0
) -> Evaluation:
    return judge(subject, policy, now_us, capital=Capital(), others_minor=others_minor)


GUARDED = rules()
LITERAL = rules(policy="literal")
THREE = rules(ladder="three-stage", policy="literal")


def strategy(stage: PromotionStage = Paper, at_us: int = T0, **fields: Any) -> Strategy:
    after = registered("mm", stage, at_us, by="test", adopt=True, reason="a test").after
    return msgspec.structs.replace(after, **fields)


def measured(
    stage: PromotionStage = Paper, days: float = 14, **metrics: float
) -> tuple[Strategy, int]:
    """A strategy `days` into its stage with these metrics recorded now, and now."""
    now_us = T0 + int(days * DAY_US)
    return with_metrics(strategy(stage), metrics or AT_LIMIT, now_us), now_us


def with_metrics(before: Strategy, metrics: dict[str, Any], at_us: int) -> Strategy:
    return with_record(before, Record(canonical_metrics(metrics), at_us), 252, at_us + 365 * DAY_US)


def promoted(
    before: Strategy, policy: PromotionPolicy, now_us: int, *, others_minor: int = 0, **more: Any
) -> Change:
    """As the desk promotes: on the evaluation of now."""
    found = evaluate(before, policy, now_us, others_minor)
    return core.promoted(before, policy, found, now_us, capital=Capital(), **more)


def fallen(before: Strategy, policy: PromotionPolicy, now_us: int, *, hard: bool = True) -> Change:
    """As the rules demote: hard without real money, or softly one stage down."""
    below = policy.below(before.stage)
    assert below is not None
    to = Shadow if hard and before.stage.is_live else below
    return core.demoted_automatically(
        before, policy, now_us, to=to, hard=hard, by="promotion", reason="x"
    )


def snapshot(before: Strategy, policy: PromotionPolicy, now_us: int) -> PromotionSnapshot:
    return snapshot_of(before, evaluate(before, policy, now_us), now_us)


def line(evaluation: Evaluation, name: str) -> CriterionResult:
    return next(one for one in evaluation.criteria if one.name == name)


def reading(equity: float, n_trades: int = 0, n_wins: int = 0, **more: Any) -> Reading:
    return Reading(equity, more.pop("allocated", 100.0), n_trades, n_wins, **more)


def session(
    before: Strategy,
    last: Reading,
    at_us: int = T0,
    policy: PromotionPolicy = GUARDED,
    periods_per_year: float = 252,
) -> Strategy:
    """`before` after one more session, which ends with this status."""
    measured = before.episode.track.is_begun
    months, days = divmod(before.episode.track.sessions, 28)
    name = f"2026-{1 + months:02}-{1 + days:02}"
    return session_ended(
        seen(before, last),
        name,
        at_us,
        policy,
        measured=measured,
        periods_per_year=periods_per_year,
    )


def sessions(before: Strategy, *equities: float) -> Strategy:
    """`before` after sessions that end at these equities, from a base of 100."""
    if not before.episode.track.is_begun:
        before = seen(before, reading(100.0))
    for equity in equities:
        before = session(before, reading(equity), T0 + before.episode.track.sessions * DAY_US)
    return before


# -- gates


def test_all_five_criteria_exactly_at_their_limit_after_14_days_pass() -> None:
    subject, now_us = measured()
    found = evaluate(subject, LITERAL, now_us)
    assert found.verdict == "PASS"
    assert [one.name for one in found.criteria] == [
        "min_days",
        "min_trades",
        "min_sharpe",
        "max_drawdown",
        "min_win_rate",
    ]
    assert all((one.verdict, one.margin, one.reason) == ("PASS", 0, "") for one in found.criteria)
    assert (found.would_do, found.target, found.blocked_by) == ("promote", Shadow, ())


def test_a_second_short_of_14_days_fails_by_one_second() -> None:
    subject, now_us = measured(days=14)
    found = evaluate(subject, LITERAL, now_us - 1_000_000)
    days = line(found, "min_days")
    assert (found.verdict, days.verdict, found.would_do, found.blocked_by) == (
        "FAIL",
        "FAIL",
        "none",
        ("gate",),
    )
    assert days.margin is not None
    assert days.margin * 86_400 == pytest.approx(-1, abs=1e-4)
    assert [one.verdict for one in found.criteria if one is not days] == ["PASS"] * 4


@pytest.mark.parametrize(
    ("metric", "value"),
    [("sharpe", 0.999999), ("max_drawdown", 0.200001), ("n_trades", 49), ("win_rate", 0.449999)],
)
def test_one_criterion_just_missed_fails_the_gate(metric: str, value: float) -> None:
    subject, now_us = measured(**{**AT_LIMIT, metric: value})
    found = evaluate(subject, LITERAL, now_us)
    (missed,) = [one for one in found.criteria if one.verdict != "PASS"]
    assert found.verdict == missed.verdict == "FAIL"
    assert missed.margin is not None
    assert missed.margin < 0
    assert missed.reason


def test_seven_percent_times_a_hundred_is_seven_percent() -> None:
    subject, now_us = measured(**{**AT_LIMIT, "max_drawdown": 0.07 * 100 / 100})
    tight = rules(max_drawdown_pct=7.0)
    assert line(evaluate(subject, tight, now_us), "max_drawdown").verdict == "PASS"


def test_what_was_never_recorded_is_missing_and_not_zero() -> None:
    found = evaluate(strategy(), LITERAL, T0 + 20 * DAY_US)
    assert found.verdict == "INCONCLUSIVE"
    for name in ("min_trades", "min_sharpe", "max_drawdown"):
        one = line(found, name)
        assert (one.verdict, one.reason, one.observed, one.margin) == (
            "INCONCLUSIVE",
            "missing",
            None,
            None,
        )


def test_constant_returns_have_no_sharpe_and_that_is_no_pass() -> None:
    subject = seen(strategy(), reading(100.0))
    for number in range(30):
        last = reading(100.0 * 1.001 ** (number + 1), 100, 100)
        subject = session(subject, last, T0 + number * DAY_US)
    found = evaluate(subject, LITERAL, T0 + 30 * DAY_US)
    assert (line(found, "min_sharpe").verdict, line(found, "min_sharpe").reason) == (
        "INCONCLUSIVE",
        "undefined",
    )
    assert (found.verdict, found.would_do) == ("INCONCLUSIVE", "none")


def test_an_own_undefined_sharpe_takes_the_place_of_a_recorded_one() -> None:
    subject = with_metrics(strategy(), {"sharpe": 3.0}, T0)
    after = sessions(subject, 101.0)
    assert value_of("sharpe", after) is None
    sharpe = line(evaluate(after, LITERAL, T0), "min_sharpe")
    assert (sharpe.reason, sharpe.source, sharpe.recorded) == ("undefined", "measured", 3.0)


def test_fail_dominates_and_both_reasons_are_listed() -> None:
    subject, now_us = measured(max_drawdown=0.1, n_trades=49)
    found = evaluate(subject, LITERAL, now_us)
    assert found.verdict == "FAIL"
    assert line(found, "min_trades").reason == "49 is not >= 50"
    assert line(found, "min_sharpe").reason == "missing"
    with pytest.raises(GateNotPassed) as refusal:
        promoted(subject, LITERAL, now_us, by="me")
    assert refusal.value.evaluation == found
    assert "min_trades (49 is not >= 50)" in str(refusal.value)
    assert "min_sharpe (missing)" in str(refusal.value)


def test_a_gate_without_a_required_criterion_proves_nothing() -> None:
    subject, now_us = measured()
    optional = Criterion("sharpe", "sharpe", ">=", 0.5, required=False)
    for criteria in ((), (optional,)):
        found = evaluate(subject, rules(PromotionGate(Paper, criteria), policy="literal"), now_us)
        assert (found.verdict, found.would_do) == ("INCONCLUSIVE", "none")
        with pytest.raises(GateNotPassed):
            promoted(subject, rules(PromotionGate(Paper, criteria)), now_us, by="me")
    failing = Criterion("sharpe", "sharpe", ">=", 5, required=False)
    assert evaluate(subject, rules(PromotionGate(Paper, (failing,))), now_us).verdict == "FAIL"


def test_a_gate_of_ones_own_replaces_the_default_of_its_stage_alone() -> None:
    gate = PromotionGate(Paper, (Criterion("loss", "daily_loss", "<=", 0.02),))
    subject, now_us = measured(days=0, daily_loss=0.02)
    assert evaluate(subject, rules(gate), now_us).would_do == "promote"
    subject, now_us = measured(Shadow, days=0, daily_loss=0.02)
    assert evaluate(subject, rules(gate), now_us).would_do == "none"


@pytest.mark.parametrize(
    ("criterion", "named"),
    [
        (("sharpe", "sharpe", "=>", 1.0), "=>"),
        (("sharpe", "sharpe", ">=", math.nan), "nan"),
        (("sharpe", "sharpe", ">=", math.inf), "inf"),
    ],
)
def test_a_misspelt_gate_is_an_error_when_it_is_made(
    criterion: tuple[Any, ...], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        Criterion(*criterion)


def test_a_metric_is_stale_once_two_days_have_ended_and_shows_its_age() -> None:
    subject, now_us = measured()
    second_midnight_us = now_us - now_us % DAY_US + 2 * DAY_US
    exactly = evaluate(subject, LITERAL, second_midnight_us - 1)
    assert exactly.verdict == "PASS"
    found = evaluate(subject, LITERAL, second_midnight_us)
    sharpe = line(found, "min_sharpe")
    assert (found.verdict, sharpe.verdict, sharpe.reason, sharpe.observed) == (
        "INCONCLUSIVE",
        "INCONCLUSIVE",
        "stale: 2 sessions ended since",
        1.0,
    )
    assert sharpe.age_s == (second_midnight_us - now_us) / 1_000_000
    with pytest.raises(GateNotPassed):
        promoted(subject, LITERAL, second_midnight_us, by="me")


def test_a_clock_before_the_stage_began_is_inconclusive_and_days_are_never_negative() -> None:
    subject, now_us = measured(days=0)
    found = evaluate(subject, LITERAL, now_us - HOUR_US)
    assert (found.verdict, line(found, "min_days").verdict) == ("INCONCLUSIVE", "INCONCLUSIVE")
    assert line(found, "min_days").reason.startswith("clock")
    assert snapshot(subject, LITERAL, now_us - HOUR_US).days_in_stage == 0


def test_an_evaluation_is_the_same_bytes_each_time_and_its_id_covers_all_of_them() -> None:
    subject, now_us = measured()
    one, other = (msgspec.json.encode(evaluate(subject, LITERAL, now_us)) for _ in range(2))
    assert one == other
    ids = {
        evaluate(subject, LITERAL, now_us).id,
        evaluate(subject, GUARDED, now_us + 1).id,
        evaluate(subject, rules(min_sharpe=0.9), now_us).id,
        evaluate(with_metrics(subject, {"sharpe": 1.1}, now_us), LITERAL, now_us).id,
    }
    assert len(ids) == 4


# -- ladders and policies


def test_the_example_of_the_documentation_is_promoted_in_four_stages_and_not_in_three() -> None:
    subject, now_us = measured(**SOURCE_EXAMPLE)
    found = evaluate(subject, GUARDED, now_us)
    assert (found.verdict, found.would_do) == ("PASS", "promote")
    assert promoted(subject, GUARDED, now_us, by="me").after.stage is Shadow
    found = evaluate(subject, THREE, now_us)
    assert (found.verdict, line(found, "min_win_rate").reason) == ("INCONCLUSIVE", "missing")
    with pytest.raises(GateNotPassed):
        promoted(subject, THREE, now_us, by="me")


def test_a_recorded_win_rate_is_judged_in_four_stages_too() -> None:
    subject, now_us = measured(**SOURCE_EXAMPLE, win_rate=0.44)
    assert evaluate(subject, GUARDED, now_us).verdict == "FAIL"


@pytest.mark.parametrize(
    ("policy", "stage", "move"),
    [
        ("guarded", Paper, "promote"),
        ("guarded", Shadow, "ready"),
        ("guarded", Small, "ready"),
        ("guarded", Scaled, "none"),
        ("literal", Paper, "promote"),
        ("literal", Shadow, "promote"),
        ("literal", Small, "promote"),
        ("literal", Scaled, "none"),
    ],
)
def test_guarded_waits_for_a_person_where_real_money_grows_and_literal_never(
    policy: str, stage: PromotionStage, move: str
) -> None:
    subject, now_us = measured(stage, sharpe=2, max_drawdown=0.05, n_trades=99, win_rate=0.6)
    found = evaluate(subject, rules(policy=policy), now_us)
    assert found.would_do == move
    assert found.blocked_by == {
        "promote": (),
        "ready": ("approval",),
        "none": ("top: no higher stage",),
    }.get(move)


@pytest.mark.parametrize(
    ("name", "stages"),
    [("four-stage", [Paper, Shadow, Small, Scaled]), ("three-stage", [Paper, Shadow, Live])],
)
def test_a_ladder_is_climbed_one_stage_at_a_time(name: Any, stages: list[PromotionStage]) -> None:
    rung_rules = rules(ladder=name)
    subject, now_us = measured(sharpe=2, max_drawdown=0.05, n_trades=99, win_rate=0.6)
    climbed = [subject.stage]
    while rung_rules.above(subject.stage) is not None:
        subject = promoted(subject, rung_rules, now_us, by="me").after
        climbed.append(subject.stage)
        assert (
            subject.episode.recorded,
            subject.episode.track.sessions,
            subject.episode.entered_us,
        ) == ({}, 0, now_us)
        now_us += 14 * DAY_US
        subject = with_metrics(
            subject, {"sharpe": 2, "max_drawdown": 0.05, "n_trades": 99, "win_rate": 0.6}, now_us
        )
    assert climbed == stages
    assert subject.rev == subject.episode.number == len(stages)
    with pytest.raises(SkipRefused, match="top stage"):
        promoted(subject, rung_rules, now_us, by="me")


def test_real_capital_is_nothing_then_a_hundredth_then_all() -> None:
    assert [rung.real_capital_cap for rung in GUARDED.rungs] == [0, 0, 0.01, 1]
    assert [rung.real_capital_cap for rung in THREE.rungs] == [0, 0, 1]


def test_beyond_the_bound_those_that_entered_their_stage_last_have_no_real_capital() -> None:
    def live(name: str, at_us: int, stage: PromotionStage = Scaled) -> Strategy:
        return strategy(stage, at_us, id=name, name=name, budget_minor=400)

    known = [live("a", T0 + 1), live("b", T0), live("c", T0 + 2), live("d", T0 + 1)]
    paper = live("e", T0 + 3, Paper)
    for bound_minor, beyond in (
        (1_600, ""),
        (1_599, "c"),
        (1_200, "c"),
        (1_199, "cd"),
        (1, "abcd"),
    ):
        found = beyond_bound([paper, *known], GUARDED, Capital(bound_minor, 100.0))
        assert found == set(beyond), "of one instant by name"


@pytest.mark.parametrize(
    ("others_minor", "excess"), [(600, 0), (601, 1), (1_000, 400), (1_500, 400)]
)
def test_capital_that_finds_no_room_is_at_most_that_of_the_strategy(
    others_minor: int, excess: int
) -> None:
    subject = strategy(Scaled, budget_minor=400)
    assert excess_minor(subject, GUARDED, Capital(1_000, 100.0), others_minor) == excess


@pytest.mark.parametrize("to", [Small, Scaled, Paper])
def test_no_stage_is_skipped_by_anybody(to: PromotionStage) -> None:
    subject, now_us = measured()
    with pytest.raises(SkipRefused):
        promoted(subject, LITERAL, now_us, to=to, by="the owner himself")


def test_a_stage_of_another_ladder_is_unknown_and_the_known_ones_are_listed() -> None:
    with pytest.raises(UnknownStage) as refusal:
        THREE.stage(Small)
    assert refusal.value.stages == ("paper", "shadow", "live")
    assert isinstance(refusal.value, ValueError)
    for value in ("LIVE", None, Retired, 3):
        with pytest.raises(UnknownStage):
            GUARDED.stage(value)
    assert GUARDED.stage("live-small") is Small


@pytest.mark.parametrize("stage", [Small, Scaled, Live])
def test_nobody_registers_where_real_money_is(stage: PromotionStage) -> None:
    with pytest.raises(SkipRefused):
        registered("mm", stage, T0, by="me", adopt=False)
    assert registered("mm", stage, T0, by="me", adopt=True, reason="live").kind == "adopt"


@pytest.mark.parametrize(("by", "reason"), [("", "it trades"), ("me", "")])
def test_an_adoption_needs_a_person_and_a_reason(by: str, reason: str) -> None:
    with pytest.raises(MetricError):
        registered("mm", Small, T0, by=by, adopt=True, reason=reason)


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb", " a", "a ", None, 5])
def test_a_name_is_a_printable_text(name: Any) -> None:
    with pytest.raises(MetricError):
        registered(name, Paper, T0, by="me", adopt=False)


@pytest.mark.parametrize(
    "settings",
    [
        {"ladder": "five-stage"},
        {"policy": "strict"},
        {"min_sharpe": math.nan},
        {"min_trades": -1},
        {"min_trades": True},
        {"max_drawdown_pct": 101},
        {"min_win_rate": 1.1},
        {"min_paper_days": "14"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        rules(**settings)


# -- evidence


@pytest.mark.parametrize(
    ("stage", "as_of_us", "field"),
    [
        (Shadow, T0, "stage"),
        (Paper, T0 + 300_000_001, "as_of"),
        (Paper, T0 - 300_000_001, "as_of"),
        (Paper, -(2**70), "as_of"),
    ],
)
def test_only_the_current_stage_and_a_plausible_instant_are_evidence(
    stage: PromotionStage, as_of_us: int, field: str
) -> None:
    with pytest.raises(MetricError) as refusal:
        check_evidence(strategy(), stage, as_of_us, T0)
    assert refusal.value.field == field
    for near in (T0 - 300_000_000, T0, T0 + 300_000_000):
        check_evidence(strategy(), Paper, near, T0)


def test_evidence_of_the_former_stage_does_not_count_after_a_promotion() -> None:
    subject, now_us = measured()
    shadow = promoted(subject, LITERAL, now_us, by="me").after
    assert evaluate(shadow, LITERAL, now_us).verdict == "FAIL"  # no days, and nothing else known
    with pytest.raises(MetricError, match="before the strategy entered"):
        check_evidence(shadow, Shadow, now_us - DAY_US, now_us + DAY_US)


def test_the_newest_record_wins_metric_by_metric() -> None:
    subject = with_metrics(strategy(), {"n_trades": 5, "sharpe": 1.0}, T0)
    subject = with_metrics(subject, {"n_trades": 12, "sharpe": None}, T0 + 1)
    assert subject.episode.recorded == {"n_trades": Metric(12, T0 + 1), "sharpe": Metric(1.0, T0)}


# -- revisions, freezing, retiring


def frozen_after(subject: Strategy, at_us: int, *, freeze: bool) -> Strategy:
    change = frozen(subject, at_us, freeze=freeze, by="me", reason="")
    assert change is not None
    return change.after


def test_a_stale_revision_is_refused_with_the_current_one() -> None:
    subject, now_us = measured()
    for move in (promoted, demoted):
        with pytest.raises(StaleRevision) as refusal:
            move(subject, LITERAL, now_us, by="me", reason="", expected_rev=7)
        assert (refusal.value.expected, refusal.value.current) == (7, 1)
    assert promoted(subject, LITERAL, now_us, by="me", expected_rev=1).after.rev == 2


def test_frozen_blocks_promotion_and_not_demotion() -> None:
    subject, now_us = measured(Shadow)
    cold = frozen_after(subject, now_us, freeze=True)
    assert evaluate(cold, LITERAL, now_us).blocked_by == ("frozen",)
    with pytest.raises(StrategyFrozen):
        promoted(cold, LITERAL, now_us, by="me")
    down = demoted(cold, LITERAL, now_us, by="me", reason="enough").after
    assert (down.stage, down.frozen) == (Paper, True)


def test_frozen_time_does_not_count_as_days_in_stage() -> None:
    subject = frozen_after(strategy(), T0 + 5 * DAY_US, freeze=True)
    assert frozen(subject, T0 + 6 * DAY_US, freeze=True, by="me", reason="") is None
    assert subject.active_us(T0 + 30 * DAY_US) == 5 * DAY_US
    warm = frozen_after(subject, T0 + 15 * DAY_US, freeze=False)
    assert warm.active_us(T0 + 20 * DAY_US) == 10 * DAY_US
    assert (warm.rev, warm.frozen, warm.frozen_since_us) == (3, False, None)
    assert frozen(warm, T0 + 16 * DAY_US, freeze=False, by="me", reason="") is None
    assert snapshot(warm, GUARDED, T0 + 20 * DAY_US).days_in_stage == 10
    cold = frozen_after(warm, T0 + 20 * DAY_US, freeze=True)
    warm = frozen_after(cold, T0 + 25 * DAY_US, freeze=False)
    assert warm.active_us(T0 + 30 * DAY_US) == 15 * DAY_US


def test_retired_is_the_end() -> None:
    over = retired(strategy(Small), T0, by="me", reason="done").after
    assert over.stage is Retired
    assert breach(over, GUARDED) is None
    found = evaluate(over, GUARDED, T0)
    assert (found.target, found.verdict, found.would_do) == (None, "INCONCLUSIVE", "none")
    attempts: tuple[Callable[[], object], ...] = (
        lambda: promoted(over, GUARDED, T0, by="me"),
        lambda: demoted(over, GUARDED, T0, by="me", reason=""),
        lambda: frozen(over, T0, freeze=True, by="me", reason=""),
        lambda: retired(over, T0, by="me", reason=""),
        lambda: check_evidence(over, Paper, T0, T0),
    )
    for attempt in attempts:
        with pytest.raises(StrategyRetired):
            attempt()


# -- demotion


def hard(stage: PromotionStage, drawdown: float) -> Breach | None:
    return breach(with_metrics(strategy(stage), {"max_drawdown": drawdown}, T0), GUARDED)


@pytest.mark.parametrize(
    ("stage", "limit"),
    [(Shadow, 0.25), (Small, 0.20), (Scaled, 0.25)],
    ids=lambda value: str(value),
)
def test_a_hard_drawdown_is_inclusive_and_needs_one_observation(
    stage: PromotionStage, limit: float
) -> None:
    assert hard(stage, limit - 1e-6) is None
    assert hard(stage, limit - 1e-10) is not None, "nine decimals are compared"
    found = hard(stage, limit)
    assert found is not None
    assert found.hard
    assert "hard limit" in found.reason


@pytest.mark.parametrize("stage", [Small, Scaled])
@pytest.mark.parametrize("metrics", [{"max_drawdown": 0.25}, {"daily_loss": 0.05}])
def test_a_hard_limit_leads_from_real_money_to_shadow(
    stage: PromotionStage, metrics: dict[str, float]
) -> None:
    found = breach(with_metrics(strategy(stage), metrics, T0), GUARDED)
    assert found is not None
    assert (found.hard, found.to) == (True, Shadow)


def test_paper_has_nowhere_to_fall_whatever_its_limits() -> None:
    assert hard(Paper, 0.99) is None
    limited = msgspec.structs.replace(GUARDED.rungs[0], hard=HardLimits(drawdown=0.1))
    strict = msgspec.structs.replace(GUARDED, rungs=(limited, *GUARDED.rungs[1:]))
    fallen_far = with_metrics(strategy(Paper), {"max_drawdown": 0.99}, T0)
    assert breach(fallen_far, strict) is None
    with pytest.raises(SkipRefused):
        demoted(strategy(), GUARDED, T0, by="me", reason="")


def test_the_lowest_stage_of_a_ladder_has_nowhere_to_fall_though_it_has_a_limit() -> None:
    subject = strategy(Shadow)
    two_stages = PromotionPolicy.from_toml('ladder = ["shadow", "live-small"]\n')
    fallen = with_metrics(subject, {"max_drawdown": 0.99}, T0)
    assert breach(fallen, GUARDED) is not None
    assert breach(fallen, two_stages) is None


def test_the_drawdown_of_this_very_instant_counts_too() -> None:
    subject = sessions(strategy(Shadow), 100.0, 110.0)
    assert breach(seen(subject, reading(82.501)), GUARDED) is None
    fallen = seen(subject, reading(82.5))
    assert breach(fallen, GUARDED) is not None
    assert breach(seen(fallen, reading(110.0)), GUARDED) is not None  # the worst one counts
    assert breach(seen(subject, reading(-1e9)), GUARDED) is not None


def test_a_session_loss_of_five_percent_of_real_money_is_hard() -> None:
    assert breach(sessions(strategy(Small), 95.1), GUARDED) is None
    found = breach(sessions(strategy(Small), 95.0), GUARDED)
    assert found is not None
    assert found.hard
    assert breach(sessions(strategy(Shadow), 90.0), GUARDED) is None
    assert breach(sessions(strategy(Small), 95.1, 95.1), GUARDED) is None


def test_a_soft_breach_needs_three_of_the_last_five_sessions_and_twenty_in_all() -> None:
    def scaled(*tail: float) -> Strategy:
        # From a peak of 100: 79 is a drawdown of 21%, 81 one of 19%; reached in steps below the
        # hard session loss.
        return sessions(strategy(Scaled), *([100.0] * 12), 96, 92.5, 89, 86, 83.5, 81, *tail)

    assert breach(scaled(79, 79), GUARDED) is None
    assert breach(scaled(79, 81, 81, 81, 79), GUARDED) is None
    found = breach(scaled(79, 81, 79, 81, 79), GUARDED)
    assert found == Breach(
        "drawdown above 20% on 3 of the last 5 sessions", False, "keep_drawdown", Small
    )
    assert breach(scaled(79, 79, 79, 81, 81, 81), GUARDED) is None
    young = sessions(strategy(Scaled), 96, 92.5, 89, 86, 83.5, 81, 79, 79, 79)
    assert breach(young, GUARDED) is None


def without_limits(stage: PromotionStage) -> PromotionPolicy:
    rungs = tuple(
        msgspec.structs.replace(rung, hard=HardLimits(), keep=SoftLimits())
        if rung.stage is stage
        else rung
        for rung in GUARDED.rungs
    )
    return msgspec.structs.replace(GUARDED, rungs=rungs)


@pytest.mark.parametrize(
    ("sessions_seen", "breaches", "falls"),
    [(20, 3, True), (19, 3, False), (20, 2, False), (20, 5, True)],
)
def test_the_soft_window_begins_with_its_twentieth_session_and_third_breach(
    sessions_seen: int, breaches: int, falls: bool
) -> None:
    breached = (True,) * breaches + (False,) * (5 - breaches)
    track = Track(begun=True, sessions=sessions_seen, breaches=breached)
    subject = strategy(Scaled)
    episode = msgspec.structs.replace(subject.episode, track=track)
    assert (breach(msgspec.structs.replace(subject, episode=episode), GUARDED) is not None) == falls


def test_a_stage_without_limits_is_left_by_no_fall_even_one_that_breached_the_limits_before() -> (
    None
):
    track = Track(
        begun=True, sessions=30, breaches=(True,) * 5, max_drawdown=0.9, loss=0.9, peak=100.0
    )
    subject = strategy(Scaled)
    fallen_far = msgspec.structs.replace(
        subject, episode=msgspec.structs.replace(subject.episode, track=track)
    )
    assert breach(fallen_far, GUARDED) is not None
    assert breach(fallen_far, without_limits(Scaled)) is None


def test_exactly_the_entry_ceiling_is_no_soft_breach() -> None:
    subject = sessions(strategy(Scaled), *([100.0] * 15), 96, 92.5, 89, 86, 83, *([80.0] * 5))
    assert subject.episode.track.breaches == (False,) * 5


def test_a_soft_demotion_goes_one_stage_down_a_hard_one_to_shadow_and_a_person_further() -> None:
    subject = strategy(Scaled)
    assert demoted(subject, GUARDED, T0, by="x", reason="").after.stage is Small
    assert fallen(subject, GUARDED, T0, hard=True).after.stage is Shadow
    assert fallen(strategy(Shadow), GUARDED, T0, hard=True).after.stage is Paper
    assert demoted(subject, GUARDED, T0, to=Paper, by="x", reason="").after.stage is Paper
    assert fallen(strategy(Live), THREE, T0, hard=True).after.stage is Shadow
    with pytest.raises(SkipRefused):
        demoted(strategy(Shadow), GUARDED, T0, to=Small, by="x", reason="")
    with pytest.raises(SkipRefused):
        demoted(strategy(Shadow), GUARDED, T0, to=Shadow, by="x", reason="")


def test_an_ailing_strategy_is_not_promoted_even_on_a_pass() -> None:
    easy = rules(
        policy="literal", min_paper_days=0, min_trades=0, min_sharpe=0, max_drawdown_pct=25
    )
    subject, now_us = measured(Small, max_drawdown=0.25, sharpe=2, n_trades=9)
    found = evaluate(subject, easy, now_us)
    assert (found.verdict, found.would_do) == ("PASS", "demote")
    with pytest.raises(GateNotPassed, match=r"in live-small: limit: drawdown 25\.00% reached"):
        promoted(subject, easy, now_us, by="me")


def test_a_refusal_by_a_streak_or_by_an_empty_gate_says_so() -> None:
    trades = Criterion("min_trades", "n_trades", ">=", 1)
    subject, now_us = measured()
    long = rules(PromotionGate(Paper, (trades,), streak=3), policy="literal")
    with pytest.raises(GateNotPassed, match=r"paper: streak: 0 of 3 sessions in a row passed$"):
        promoted(subject, long, now_us, by="me")
    empty = rules(PromotionGate(Paper, ()), policy="literal")
    with pytest.raises(GateNotPassed, match=r"paper: config: no criterion is required$"):
        promoted(subject, empty, now_us, by="me")


def test_a_green_strategy_waits_for_the_end_of_its_cooldown() -> None:
    quick = rules(policy="literal", min_paper_days=0)
    down = fallen(strategy(Small), quick, T0, hard=False).after
    until_us = T0 + 7 * DAY_US
    assert down.cooldown_until_us == until_us
    green = with_metrics(down, AT_LIMIT, T0 + 6 * DAY_US)
    found = evaluate(green, quick, until_us - 1)
    assert (found.verdict, found.would_do) == ("PASS", "none")
    assert found.blocked_by == ("cooldown until 2023-11-21 22:14",)
    assert snapshot(green, quick, until_us - 1).cooldown_until == until_us
    with pytest.raises(CoolingDown, match=r"until 2023-11-21 22:13:20 UTC; a void") as refusal:
        promoted(green, quick, until_us - 1, by="me")
    assert refusal.value.until_us == until_us
    assert refusal.value.until_us == until_us
    assert evaluate(green, quick, until_us).would_do == "promote"


@pytest.mark.parametrize(
    ("is_hard", "days"), [(False, [7, 14, 28, 56, 90]), (True, [30, 60, 90, 90])]
)
def test_cooldowns_double_up_to_ninety_days_and_the_third_demotion_freezes(
    is_hard: bool, days: list[int]
) -> None:
    subject, now_us = strategy(Scaled), T0
    for number, expected in enumerate(days, start=1):
        subject = msgspec.structs.replace(subject, stage=Scaled)
        subject = fallen(subject, GUARDED, now_us, hard=is_hard).after
        assert subject.cooldown_until_us == now_us + expected * DAY_US or number > 1
        assert subject.frozen == (number >= 3)
    assert subject.cooldown_until_us == T0 + max(days) * DAY_US


def test_a_demotion_more_than_180_days_ago_is_forgotten() -> None:
    subject = fallen(strategy(Scaled), GUARDED, T0, hard=False).after
    again = msgspec.structs.replace(subject, stage=Scaled)
    subject = fallen(again, GUARDED, T0 + 100 * DAY_US, hard=False).after
    later_us = T0 + 180 * DAY_US
    again = msgspec.structs.replace(subject, stage=Scaled)
    subject = fallen(again, GUARDED, later_us, hard=False).after
    assert not subject.frozen
    assert subject.cooldown_until_us == later_us + 14 * DAY_US


def test_a_soft_demotion_does_not_shorten_the_cooldown_of_a_hard_one() -> None:
    shadow = fallen(strategy(Scaled), GUARDED, T0, hard=True).after
    for paper in (
        fallen(shadow, GUARDED, T0 + DAY_US, hard=False).after,
        demoted(shadow, GUARDED, T0 + DAY_US, by="me", reason="further").after,
    ):
        assert paper.cooldown_until_us == T0 + 30 * DAY_US


def test_a_frozen_strategy_that_the_rules_demote_stays_frozen() -> None:
    cold = frozen_after(strategy(Scaled), T0, freeze=True)
    after = fallen(cold, GUARDED, T0 + DAY_US, hard=False).after
    assert (after.stage, after.frozen, after.frozen_since_us) == (Small, True, T0 + DAY_US)


def test_a_new_episode_counts_trades_from_its_own_beginning() -> None:
    subject = seen(strategy(Small), reading(100.0))
    for number, trades in enumerate((10, 25)):
        subject = session(subject, reading(100.0 + number, trades, trades // 5))
    assert subject.episode.measured["n_trades"].value == 25
    down: Change = demoted(subject, LITERAL, T0, by="x", reason="")
    assert values_of(subject)["n_trades"] == 25
    fresh = seen(down.after, reading(100.0, 25, 5))
    fresh = session_ended(
        seen(fresh, reading(100.0, 27, 7)),
        "2026-02-01",
        T0,
        LITERAL,
        measured=True,
        periods_per_year=252,
    )
    measured = fresh.episode.measured
    assert (measured["n_trades"].value, measured["win_rate"].value) == (2, 1.0)
    assert fresh.episode.track.sessions == 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["promote", "demote", "hard", "freeze", "unfreeze"]), st.integers(0, 20)
        ),
        max_size=25,
    )
)
def test_any_order_of_events_keeps_the_record_sane(history: list[tuple[str, int]]) -> None:
    subject, now_us = strategy(Shadow), T0
    for kind, days in history:
        now_us += days * DAY_US
        before = subject
        subject = with_metrics(subject, AT_LIMIT | {"max_drawdown": 0.01}, now_us)
        try:
            match kind:
                case "promote":
                    subject = promoted(subject, LITERAL, now_us, by="x").after
                    assert not before.frozen
                    assert before.active_us(now_us) >= 14 * DAY_US
                    assert LITERAL.rank(subject.stage) == LITERAL.rank(before.stage) + 1
                case "demote":
                    subject = demoted(subject, LITERAL, now_us, by="x", reason="").after
                    assert LITERAL.rank(subject.stage) < LITERAL.rank(before.stage)
                case "hard" if LITERAL.below(subject.stage) is not None:
                    subject = fallen(subject, LITERAL, now_us).after
                    assert LITERAL.rank(subject.stage) < LITERAL.rank(before.stage)
                case "hard":
                    continue
                case _:
                    change = frozen(subject, now_us, freeze=kind == "freeze", by="x", reason="")
                    if change is None:
                        assert subject.frozen == (kind == "freeze")
                        continue
                    subject = change.after
        except (SkipRefused, GateNotPassed, StrategyFrozen, CoolingDown):
            continue
        assert subject.rev == before.rev + 1
        assert subject.episode.number - before.episode.number == (subject.stage is not before.stage)
        assert subject.active_us(now_us) >= 0
        assert msgspec.json.decode(msgspec.json.encode(subject), type=Strategy) == subject
    assert isinstance(subject.episode.track, Track)


def test_a_demotion_is_hard_by_its_limit_and_not_by_its_words() -> None:
    subject = strategy(Scaled)
    by_hand = demoted(subject, GUARDED, T0, by="ann", reason="before it reaches its hard limit")
    assert not by_hand.hard
    assert fallen(subject, GUARDED, T0, hard=True).hard


# -- two sources of one fact


def recorded(*records: tuple[int, dict[str, float]]) -> Strategy:
    """A strategy with these metrics, in the order of their arrival."""
    subject = strategy()
    for as_of_us, metrics in records:
        subject = with_metrics(subject, metrics, as_of_us)
    return subject


def test_an_older_record_that_arrives_later_does_not_count() -> None:
    now_us = T0 + 14 * DAY_US
    bad = {**SOURCE_EXAMPLE, "sharpe": 0.1, "max_drawdown": 0.30}
    subject = recorded((now_us, bad), (now_us - HOUR_US, SOURCE_EXAMPLE))
    assert evaluate(subject, LITERAL, now_us).verdict == "FAIL"
    subject = recorded((now_us, SOURCE_EXAMPLE), (now_us - 4 * DAY_US, SOURCE_EXAMPLE))
    assert evaluate(subject, LITERAL, now_us).verdict == "PASS"


def test_of_two_records_of_one_instant_the_later_arrival_counts() -> None:
    subject = recorded((T0, {"sharpe": 1.0}), (T0, {"sharpe": 2.0}))
    assert subject.episode.recorded["sharpe"] == Metric(2.0, T0)


@pytest.mark.parametrize("name", ["max_drawdown", "daily_loss"])
def test_a_worst_value_never_falls_within_an_episode(name: str) -> None:
    subject = recorded((T0, {name: 0.5}), (T0 + HOUR_US, {name: 0.01}))
    assert value_of(name, subject) == 0.5
    subject = recorded((T0, {name: 0.01}), (T0 - 1, {name: 0.5}))
    assert value_of(name, subject) == 0.5


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.floats(0, 1)).map(lambda pair: (T0 + pair[0], pair[1])),
        min_size=1,
        max_size=8,
    )
)
def test_records_count_by_instant_whatever_their_order_of_arrival(
    records: list[tuple[int, float]],
) -> None:
    subject = recorded(*[(at, {"sharpe": value, "max_drawdown": value}) for at, value in records])
    newest = max(at for at, _ in records)
    assert subject.episode.recorded["sharpe"] == Metric(
        [value for at, value in records if at == newest][-1], newest
    )
    assert subject.episode.recorded["max_drawdown"].value == max(value for _, value in records)


# -- days, sessions, and years


@pytest.mark.parametrize("short_us", [1, 43, 999_999])
def test_days_are_compared_in_microseconds(short_us: int) -> None:
    subject, now_us = measured()
    assert evaluate(subject, LITERAL, now_us).verdict == "PASS"
    days = line(evaluate(subject, LITERAL, now_us - short_us), "min_days")
    assert (days.verdict, days.reason) == (
        "FAIL",
        f"{short_us / 1_000_000:.6f}".rstrip("0") + " seconds to go",
    )


def test_a_young_strategy_is_told_how_many_days_are_to_go() -> None:
    found = evaluate(strategy(), LITERAL, T0 + 2_000_000)
    assert line(found, "min_days").reason == "13.99998 days to go"


def test_the_sharpe_is_annualised_with_the_sessions_of_its_calendar() -> None:
    found = {}
    for periods in (252, 365):
        subject = seen(strategy(), reading(100.0))
        for number in range(60):
            subject = session(
                subject,
                reading(100.0 * 1.001 ** (number // 2 + number % 2)),
                T0 + number * DAY_US,
                periods_per_year=periods,
            )
        found[periods] = subject.episode.measured["sharpe"].value
    assert found[365] / found[252] == pytest.approx(math.sqrt(365 / 252))


def test_where_sessions_are_counted_age_is_counted_in_them_and_not_in_hours() -> None:
    subject = sessions(strategy(), 101.0, 103.0)
    at_us = subject.closes_us[-1]
    assert line(evaluate(subject, LITERAL, at_us + 65 * HOUR_US), "max_drawdown").verdict == "PASS"
    for number, reason in ((1, ""), (2, "stale: 2 sessions ended since")):
        subject = session_ended(
            subject,
            f"2026-02-0{number}",
            at_us + number,
            GUARDED,
            measured=False,
            periods_per_year=252,
        )
        assert line(evaluate(subject, LITERAL, at_us + HOUR_US), "max_drawdown").reason == reason


def test_evidence_of_another_week_is_stale_though_no_session_was_seen() -> None:
    subject = sessions(strategy(), 101.0, 103.0)
    found = line(evaluate(subject, LITERAL, T0 + 9 * DAY_US), "max_drawdown")
    assert found.reason == "stale: 8.0 days old"


def test_sessions_only_go_forward() -> None:
    subject = sessions(strategy(), 101.0, 103.0)
    for name in ("2026-01-02", "2026-01-01"):
        again = session_ended(
            seen(subject, reading(50.0)),
            name,
            T0,
            GUARDED,
            measured=True,
            periods_per_year=252,
        )
        assert again.episode.measured == subject.episode.measured


# -- gates and ladders that cannot be


@pytest.mark.parametrize("criteria", [("x",), "x", 5, None, (Criterion, 1)])
def test_a_gate_of_anything_but_criteria_is_refused_when_made(criteria: Any) -> None:
    with pytest.raises(ConfigError, match="criteria"):
        PromotionGate(Paper, criteria)


def test_a_gate_given_by_its_stages_value_guards_that_stage() -> None:
    gate = PromotionGate("paper", [Criterion("n", "n_trades", ">=", 1)])  # type: ignore[arg-type]
    assert (gate.transition, len(gate.criteria)) == (Paper, 1)
    with pytest.raises(UnknownStage):
        PromotionGate("live-medium", ())  # type: ignore[arg-type]


def test_a_limit_that_is_a_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="limit"):
        Criterion("x", "sharpe", ">=", "1")  # type: ignore[arg-type]
