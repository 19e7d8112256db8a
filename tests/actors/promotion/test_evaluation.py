"""The judgement of a policy: verdicts, every reason against a promotion, and its purity."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundops.actors.promotion import (
    Capital,
    Criterion,
    PromotionGate,
    PromotionPolicy,
    policy_of,
    with_gate,
)
from fundops.actors.promotion.evaluation import evaluate
from fundops.actors.promotion.evidence import Record, variance_of, with_record
from fundops.actors.promotion.limits import breach
from fundops.actors.promotion.observation import value_of
from fundops.actors.promotion.statistics import (
    deflated_sharpe_ratio,
    moments,
    p_pass_without_skill,
    probabilistic_sharpe_ratio,
)
from fundops.actors.promotion.strategy import Episode, Metric, Strategy
from fundops.actors.promotion.track import Track
from fundops.runtime import DAY_US
from fundops.wire.promotion import CriterionResult, Evaluation, PromotionStage

Paper, Shadow = PromotionStage.Paper, PromotionStage.Shadow
Small, Scaled = PromotionStage.Live_Small, PromotionStage.Live_Scaled

# Tuesday, 2023-11-14, 22:13:20 UTC.
T0 = 1_700_000_000_000_000
HOUR_US = 3_600_000_000
UNIT = 10**8
GUARDED, LITERAL = policy_of(), policy_of("literal")
GREEN = {"sharpe": 1.2, "max_drawdown": 0.08, "n_trades": 150.0}
AT_LIMIT = {"sharpe": 1.0, "max_drawdown": 0.2, "n_trades": 50.0, "win_rate": 0.45}


def strategy(
    stage: PromotionStage = Paper,
    *,
    now_us: int = T0,
    days: float = 14,
    recorded: dict[str, float] | None = None,
    measured: dict[str, float] | None = None,
    undefined: tuple[str, ...] = (),
    track: Track = Track(),  # noqa: B008  frozen
    **fields: Any,
) -> Strategy:
    """A strategy that entered its stage `days` ago, with these metrics as of now."""
    episode = Episode(
        number=1,
        entered_us=now_us - round(days * DAY_US),
        track=track,
        recorded={name: Metric(value, now_us) for name, value in (recorded or {}).items()},
        measured={
            name: Metric(value, now_us, "engine", track.sessions)
            for name, value in (measured or {}).items()
        },
        undefined=undefined,
    )
    return Strategy("id", "mm", stage, 0, episode, **fields)


def judged(
    subject: Strategy,
    policy: PromotionPolicy = LITERAL,
    now_us: int = T0,
    capital: Capital = Capital(),  # noqa: B008  frozen
    **others: Any,
) -> Evaluation:
    return evaluate(subject, policy, now_us, capital=capital, **others)


def line(evaluation: Evaluation, name: str) -> CriterionResult:
    return next(result for result in evaluation.criteria if result.name == name)


def gated(*criteria: Criterion, stage: PromotionStage = Paper, **how: Any) -> PromotionPolicy:
    return with_gate(LITERAL, PromotionGate(stage, criteria, **how))


# -- verdicts


@pytest.mark.parametrize("sharpe", [1e200, 1e308])
def test_figures_of_a_family_beyond_a_float_leave_its_luck_unknown(sharpe: float) -> None:
    """A file may hold what is refused today."""
    family = [strategy(recorded={"sharpe": value}) for value in (sharpe, -sharpe, 1.0)]
    assert variance_of(family, 252) is None
    track = Track(sessions=20, mean=0.001, m2=0.002, m3=0.0, m4=1e-6)
    for variance in (1e300, 1e-320, None):
        found = judged(
            strategy(track=track, measured={"sharpe": sharpe}), trial_variance=variance, trials=3
        )
        assert found.advisories.n_trials == 3


def test_all_criteria_at_their_limits_pass_and_a_second_less_fails_by_a_second() -> None:
    subject = strategy(recorded=AT_LIMIT)
    passed = judged(subject)
    assert (passed.verdict, passed.reasons, passed.would_do) == ("PASS", (), "promote")
    short = judged(subject, now_us=T0 - 1_000_000)
    days = line(short, "min_days")
    assert (short.verdict, days.verdict, days.reason) == ("FAIL", "FAIL", "1 seconds to go")
    assert days.margin == pytest.approx(-1 / 86_400)


def test_fail_dominates_and_the_gate_lists_each_reason() -> None:
    found = judged(strategy(recorded={"n_trades": 49, "max_drawdown": 0.1}))
    assert found.verdict == "FAIL"
    assert found.reasons == ("min_trades: 49 is not >= 50", "min_sharpe: missing")


@pytest.mark.parametrize("optional", [True, False])
def test_a_gate_that_requires_nothing_is_inconclusive_by_its_configuration(optional: bool) -> None:
    criterion = Criterion("sharpe", "sharpe", ">=", 0.5, required=False)
    found = judged(strategy(recorded=AT_LIMIT), gated(*([criterion] if optional else [])))
    assert (found.verdict, found.would_do) == ("INCONCLUSIVE", "none")
    assert found.reasons == found.blocked_by == ("config: no criterion is required",)


def test_constant_returns_are_inconclusive_although_the_criterion_is_optional() -> None:
    policy = gated(
        Criterion("min_trades", "n_trades", ">=", 1),
        Criterion("min_sharpe", "sharpe", ">=", 1, required=False),
    )
    track = Track(begun=True, sessions=20)
    subject = strategy(measured={"n_trades": 9}, undefined=("sharpe",), track=track)
    found = judged(subject, policy)
    assert (found.verdict, found.reasons) == ("INCONCLUSIVE", ("min_sharpe: undefined",))
    never = judged(strategy(recorded={"n_trades": 9}), policy)
    assert (never.verdict, len(never.criteria)) == ("PASS", 1)


def test_a_measured_value_counts_and_the_recorded_one_is_shown_beside_it() -> None:
    subject = strategy(
        recorded={**AT_LIMIT, "sharpe": 3.0},
        measured={"sharpe": -2.0},
        track=Track(begun=True, sessions=14),
    )
    sharpe = line(judged(subject), "min_sharpe")
    assert (sharpe.observed, sharpe.source, sharpe.recorded) == (-2.0, "measured", 3.0)
    assert (sharpe.verdict, sharpe.n_obs) == ("FAIL", 14)


def test_profits_before_the_episode_prove_nothing() -> None:
    subject = strategy(
        measured={"max_drawdown": 0.0, "n_trades": 0.0},
        undefined=("sharpe", "win_rate"),
        track=Track(begun=True, sessions=14, base_trades=5_000, base_equity=1_500.0),
    )
    found = judged(subject)
    assert found.verdict == "FAIL"
    assert found.reasons == ("min_trades: 0 is not >= 50", "min_sharpe: undefined")


def test_a_declared_metric_is_judged_in_its_own_unit() -> None:
    policy = msgspec.structs.replace(LITERAL, metrics={"capacity": "USD"})
    gate = PromotionGate(Paper, (Criterion("min_capacity", "capacity", ">=", 500),))
    found = judged(strategy(recorded={"capacity": 400.0}), with_gate(policy, gate))
    capacity = line(found, "min_capacity")
    assert (capacity.unit, capacity.margin) == ("USD", -100.0)
    assert found.why == "capacity 400.00 of 500.00"


def test_a_clock_before_the_stage_began_is_inconclusive() -> None:
    found = judged(strategy(recorded=AT_LIMIT, days=0), now_us=T0 - HOUR_US)
    assert line(found, "min_days").reason.startswith("clock")
    assert (found.verdict, found.next_possible_us) == ("INCONCLUSIVE", None)


# -- staleness

WEEKDAYS = msgspec.structs.replace(LITERAL, calendar="weekdays 16:00 America/New_York")
FRIDAY_CLOSE_US = 1_700_254_800_000_000  # 2023-11-17 16:00 in New York


@pytest.mark.parametrize(
    ("days", "ended"),
    [(2.8, 0), (3.99, 1), (4, 2), (7, 5), (11, 7)],
    ids=["Monday morning", "Tuesday before the close", "at it", "Friday", "Tuesday after"],
)
def test_fridays_value_is_stale_once_two_weekday_sessions_ended(days: float, ended: int) -> None:
    value = strategy(recorded=AT_LIMIT, now_us=FRIDAY_CLOSE_US, days=20)
    found = judged(value, WEEKDAYS, FRIDAY_CLOSE_US + round(days * DAY_US))
    sharpe = line(found, "min_sharpe")
    if ended < 2:
        assert sharpe.verdict == "PASS"
    else:
        assert (sharpe.verdict, sharpe.observed) == ("INCONCLUSIVE", 1.0)
        assert sharpe.reason == f"stale: {ended} sessions ended since"


def test_a_stale_optional_value_blocks_too() -> None:
    policy = gated(
        Criterion("min_days", "days", ">=", 1),
        Criterion("min_win_rate", "win_rate", ">=", 0.4, required=False),
    )
    later_us = T0 + 3 * DAY_US
    assert judged(strategy(recorded={"win_rate": 0.5}), policy, later_us).verdict == "INCONCLUSIVE"
    assert judged(strategy(), policy, later_us).verdict == "PASS"


def test_ends_that_the_fund_saw_count_before_the_calendar() -> None:
    seen = strategy(recorded=AT_LIMIT, closes_us=(T0 + HOUR_US,))
    assert judged(seen, now_us=T0 + 5 * DAY_US).verdict == "PASS"
    twice = msgspec.structs.replace(seen, closes_us=(T0 + HOUR_US, T0 + 2 * HOUR_US))
    assert judged(twice, now_us=T0 + 3 * HOUR_US).verdict == "INCONCLUSIVE"


# -- what is done, and what prevents it


def test_frozen_and_cooling_are_both_named_with_the_end() -> None:
    until_us = T0 + 7 * DAY_US
    subject = strategy(recorded=AT_LIMIT, frozen=True, cooldown_until_us=until_us)
    found = judged(subject)
    assert (found.verdict, found.would_do) == ("PASS", "none")
    assert found.blocked_by == ("frozen", "cooldown until 2023-11-21 22:14")
    assert (found.why, found.next_possible_us) == ("frozen; cooldown until 2023-11-21 22:14", None)


def test_a_cooldown_alone_says_when_it_ends() -> None:
    until_us = T0 + 7 * DAY_US
    found = judged(strategy(recorded=AT_LIMIT, cooldown_until_us=until_us))
    assert (found.would_do, found.next_possible_us) == ("none", until_us)
    over = judged(strategy(recorded=AT_LIMIT, cooldown_until_us=T0))
    assert (over.would_do, over.blocked_by, over.next_possible_us) == ("promote", (), T0)


def test_more_real_capital_than_the_others_leave_is_named_with_the_figures() -> None:
    subject = strategy(Small, recorded=GREEN, budget_minor=100 * UNIT)
    capital = Capital(100 * UNIT, 100.0)
    found = judged(subject, capital=capital, others_minor=100 * UNIT)
    assert (found.verdict, found.would_do) == ("PASS", "none")
    assert found.blocked_by == ("capital: 100.00 wanted, the other strategies leave 0.00",)
    assert found.why == "100.00 wanted, the other strategies leave 0.00"
    for unbounded in (Capital(100 * UNIT, None), Capital()):
        free = judged(subject, capital=unbounded, others_minor=100 * UNIT)
        assert (free.would_do, free.blocked_by) == ("promote", ())


def test_a_promotion_that_wants_no_real_capital_is_not_blocked_by_that_of_the_others() -> None:
    beyond = judged(
        strategy(recorded=GREEN), capital=Capital(100 * UNIT, 100.0), others_minor=101 * UNIT
    )
    assert (beyond.would_do, beyond.blocked_by) == ("promote", ())


def test_at_the_top_no_more_capital_is_wanted() -> None:
    found = judged(strategy(Scaled, recorded=GREEN), capital=Capital(100 * UNIT, 100.0))
    assert (found.inputs.wanted_minor, found.inputs.entitled_minor) == (0, 100 * UNIT)
    assert (found.would_do, found.blocked_by) == ("none", ("top: no higher stage",))


def test_every_reason_is_listed_at_once() -> None:
    subject = strategy(
        Small,
        days=1,
        recorded={"max_drawdown": 0.2},
        budget_minor=100 * UNIT,
        frozen=True,
        cooldown_until_us=T0 + DAY_US,
    )
    found = judged(subject, GUARDED, capital=Capital(UNIT, 100.0), others_minor=2 * UNIT)
    assert found.would_do == "demote"
    kinds = [blocker.split(":")[0].split(" ")[0] for blocker in found.blocked_by]
    assert kinds == ["limit", "gate", "frozen", "cooldown", "capital", "approval"]


@pytest.mark.parametrize(
    ("stage", "approval", "move"),
    [(Paper, None, "promote"), (Shadow, None, "ready"), (Shadow, "auto", "promote")],
)
def test_more_real_money_waits_for_a_person_unless_the_gate_says_otherwise(
    stage: PromotionStage, approval: Any, move: str
) -> None:
    policy = GUARDED
    if approval is not None:
        gate = policy.rung(stage).gate
        assert gate is not None
        policy = with_gate(policy, msgspec.structs.replace(gate, approval=approval))
    found = judged(strategy(stage, recorded=AT_LIMIT), policy)
    assert found.would_do == move
    assert found.next_possible_us == T0


@pytest.mark.parametrize(
    ("wanted", "streak", "move"),
    [(3, 0, "none"), (3, 2, "none"), (3, 3, "promote"), (2, 1, "none"), (2, 2, "promote")],
)
def test_a_streak_is_sessions_in_a_row_that_passed(wanted: int, streak: int, move: str) -> None:
    criterion = Criterion("min_trades", "n_trades", ">=", 1)
    policy = gated(criterion, streak=wanted)
    gate = policy.rung(Paper).gate
    assert gate is not None
    found = judged(strategy(recorded=AT_LIMIT, streak=streak, streak_gate=gate.hash), policy)
    assert (found.verdict, found.would_do) == ("PASS", move)
    if move == "none":
        assert found.blocked_by == (f"streak: {streak} of {wanted} sessions in a row passed",)
        assert found.next_possible_us is None
    other = judged(strategy(recorded=AT_LIMIT, streak=streak, streak_gate="another"), policy)
    assert other.blocked_by == (f"streak: 0 of {wanted} sessions in a row passed",)


def test_the_top_and_retired_strategies_have_no_way_up() -> None:
    for stage in (Scaled, PromotionStage.Retired):
        found = judged(strategy(stage, recorded=AT_LIMIT))
        assert (found.target, found.would_do, found.why) == (None, "none", "no higher stage")
        assert found.next_possible_us is None


# -- for a person


def test_the_reason_is_one_line_that_ends_with_the_earliest_day() -> None:
    found = judged(strategy(days=12, recorded={**GREEN, "n_trades": 36}))
    assert found.why == "36 of 50 trades; 2 more days, at the earliest 2023-11-16"
    assert found.next_possible_us is None  # trades are no matter of time


def test_days_alone_say_when_they_are_over() -> None:
    found = judged(strategy(days=13.5, recorded=GREEN))
    assert found.why == "12 more hours, at the earliest 2023-11-15"
    assert found.next_possible_us == T0 + 12 * HOUR_US
    assert judged(strategy(days=13.5, recorded=GREEN), now_us=T0 + 12 * HOUR_US).verdict == "PASS"


def test_the_earliest_day_is_not_before_the_cooldown_ends() -> None:
    until_us = T0 + 9 * 24 * HOUR_US
    found = judged(strategy(days=12, recorded=GREEN, cooldown_until_us=until_us))
    assert found.why == ("cooldown until 2023-11-23 22:14; 2 more days, at the earliest 2023-11-23")
    assert found.next_possible_us == until_us


def test_a_pass_says_what_follows() -> None:
    assert judged(strategy(recorded=GREEN)).why == "its gate to shadow passes"
    ready = judged(strategy(Shadow, recorded=GREEN), GUARDED)
    assert ready.why == "its gate passes; live-small waits for a person"
    step = judged(strategy(Small, recorded=GREEN), GUARDED, capital=Capital(100_000 * UNIT))
    assert step.why == (
        "its gate passes; live-scaled waits for a person: real capital from 1,000.00 to 100,000.00"
    )
    assert (step.inputs.entitled_minor, step.inputs.wanted_minor) == (1_000 * UNIT, 100_000 * UNIT)


def test_both_sides_are_compared_and_shown_in_nine_decimals() -> None:
    ceiling = Criterion("fall", "max_drawdown_pct", "<=", 0.07 * 100)
    assert ceiling.limit == 0.07
    found = line(judged(strategy(recorded={"max_drawdown": 0.07 + 4e-10}), gated(ceiling)), "fall")
    assert (found.verdict, found.observed, found.limit, found.margin) == ("PASS", 0.07, 0.07, 0)
    beyond = strategy(recorded={"max_drawdown": 0.07 + 1e-9})
    found = line(judged(beyond, gated(ceiling)), "fall")
    assert (found.verdict, found.observed, found.margin) == ("FAIL", 0.070000001, -1e-9)


# -- advisories


def test_the_advisories_come_from_the_measured_sessions() -> None:
    track = Track(begun=True, sessions=64, mean=0.001, m2=63e-4, m4=3 * 63e-4**2 / 64)
    subject = strategy(measured={"sharpe": 1.9}, track=track)
    found = judged(subject, trials=1).advisories
    sharpe = 0.001 / 0.01
    assert found.psr == pytest.approx(probabilistic_sharpe_ratio(sharpe, 0, 64), rel=1e-9)
    assert found.dsr == found.psr
    assert found.se_sharpe == pytest.approx(365**0.5 * (1.005 / 63) ** 0.5)
    assert found.min_trl is not None
    assert found.min_trl > 64
    many = judged(subject, trials=20).advisories
    assert many.n_trials == 20
    assert many.dsr is not None
    assert many.psr is not None
    assert many.dsr < many.psr


def test_trials_of_unknown_ratios_differ_by_chance_alone() -> None:
    track = Track(begun=True, sessions=64, mean=0.001, m2=63e-4, m4=3 * 63e-4**2 / 64)
    found = judged(strategy(measured={"sharpe": 1.9}, track=track), trials=20).advisories
    assert found.dsr == pytest.approx(deflated_sharpe_ratio(0.1, 64, 1 / 63, 20), rel=1e-9)


def test_luck_meets_the_highest_floor_of_a_gate() -> None:
    track = Track(begun=True, sessions=14, mean=0.001, m2=13e-4, m4=3 * 13e-4**2 / 14)
    floors = [Criterion(f"s{limit}", "sharpe", ">=", limit) for limit in (0.5, 2.0, 1.0)]
    found = judged(strategy(measured={"sharpe": 1.6}, track=track), gated(*floors)).advisories
    assert found.p_pass_without_skill == pytest.approx(p_pass_without_skill(2 / 365**0.5, 14))


def test_luck_passes_the_default_gate_four_times_in_ten() -> None:
    track = Track(begun=True, sessions=14, mean=0.001, m2=13e-4, m4=3 * 13e-4**2 / 14)
    policy = msgspec.structs.replace(LITERAL, periods_per_year=252.0)
    found = judged(strategy(measured={"sharpe": 1.6}, track=track), policy).advisories
    assert found.p_pass_without_skill == pytest.approx(0.41, abs=0.005)


def test_too_few_sessions_have_no_advisories() -> None:
    for subject in (strategy(recorded=GREEN), strategy(undefined=("sharpe",))):
        found = judged(subject, trials=7).advisories
        assert (found.psr, found.se_sharpe, found.n_trials) == (None, None, 7)


@pytest.mark.parametrize("name", ["returns", "equity"])
def test_a_recorded_series_is_judged_by_its_own_skew_and_kurtosis(name: str) -> None:
    returns = [0.012, 0.011, -0.06, 0.013, 0.012, 0.009, 0.014, -0.002, 0.013, 0.011]
    series, level = [1.0], 1.0
    for change in returns:
        level *= 1 + change
        series.append(level)
    record = Record({name: returns if name == "returns" else series}, T0)
    found = judged(with_record(strategy(), record, LITERAL.sessions_per_year, T0)).advisories
    shape = moments(returns)
    sharpe, skew, kurtosis = shape.sharpe, shape.skew, shape.kurtosis
    assert sharpe is not None
    assert skew is not None
    assert kurtosis is not None
    assert found.psr == pytest.approx(
        probabilistic_sharpe_ratio(sharpe, 0, 10, skew, kurtosis), rel=1e-9
    )
    assert found.psr is not None
    # Rare large losses prove less than the same ratio of normal returns.
    assert found.psr < probabilistic_sharpe_ratio(sharpe, 0, 10) - 0.02
    older = strategy(measured={})
    kept = Metric(sharpe * LITERAL.sessions_per_year**0.5, T0, name, 10)
    episode = msgspec.structs.replace(older.episode, measured={"sharpe": kept})
    told = judged(msgspec.structs.replace(older, episode=episode)).advisories
    assert told.psr == pytest.approx(probabilistic_sharpe_ratio(sharpe, 0, 10))


def test_a_series_that_varies_again_has_a_sharpe_and_its_advisories() -> None:
    subject, ppy = strategy(measured={}), LITERAL.sessions_per_year
    for number, known in enumerate((False, True, False)):
        returns = [0.01, 0.012, -0.004] if known else [0.01, 0.01, 0.01]
        subject = with_record(subject, Record({"returns": returns}, T0 + number), ppy, T0)
        assert (value_of("sharpe", subject) is not None) is known
        assert (judged(subject).advisories.psr is not None) is known


# -- one value


fractions = st.floats(0, 1)


@st.composite
def subjects(draw: st.DrawFn) -> Strategy:
    sessions = draw(st.integers(0, 40))
    track = Track(
        begun=True,
        sessions=sessions,
        mean=draw(st.floats(-0.1, 0.1)),
        m2=draw(st.floats(0, 1)),
        m4=draw(st.floats(0, 1)),
        trades=draw(st.integers(0, 99)),
        max_drawdown=draw(fractions),
        loss=draw(fractions),
    )
    named = st.dictionaries(st.sampled_from(["sharpe", "n_trades", "win_rate"]), fractions)
    return strategy(
        draw(st.sampled_from([Paper, Shadow, Small, Scaled])),
        days=draw(st.floats(-1, 40)),
        recorded=draw(named),
        measured=draw(named),
        track=track,
        frozen=draw(st.booleans()),
        cooldown_until_us=draw(st.none() | st.integers(T0 - DAY_US, T0 + DAY_US)),
        streak=draw(st.integers(0, 3)),
    )


@given(subjects(), st.sampled_from([GUARDED, LITERAL]), st.integers(1, 50))
def test_equal_inputs_give_equal_bytes_and_leave_the_strategy_as_it_was(
    subject: Strategy, policy: PromotionPolicy, trials: int
) -> None:
    before = msgspec.json.encode(subject)
    again = msgspec.json.decode(before, type=Strategy)
    stored = PromotionPolicy.decode(policy.encode())
    first = judged(subject, policy, trials=trials)
    second = judged(again, stored, trials=trials)
    assert msgspec.json.encode(first) == msgspec.json.encode(second)
    assert first.id == second.id
    assert msgspec.json.encode(subject) == before


@given(subjects(), st.sampled_from([GUARDED, LITERAL]))
def test_what_would_be_done_follows_from_the_verdict_and_the_blockers(
    subject: Strategy, policy: PromotionPolicy
) -> None:
    found = judged(subject, policy)
    assert (found.would_do == "demote") == (breach(subject, policy) is not None)
    assert (found.would_do == "promote") == (not found.blocked_by)
    if found.would_do in ("promote", "ready"):
        assert found.verdict == "PASS"
        assert found.next_possible_us == T0
    assert "\n" not in found.why
    assert found.why


@given(subjects(), subjects())
def test_two_evaluations_that_differ_have_different_ids(one: Strategy, other: Strategy) -> None:
    first, second = judged(one), judged(other)
    assert (first == second) == (first.id == second.id)


def test_each_input_is_a_part_of_the_id() -> None:
    subject = strategy(recorded=GREEN)
    changed = [
        judged(subject),
        judged(subject, GUARDED),
        judged(subject, now_us=T0 + 1),
        judged(subject, capital=Capital(UNIT, 100.0)),
        judged(subject, others_minor=1),
        judged(subject, trials=2),
        judged(subject, trial_variance=0.5),
        judged(msgspec.structs.replace(subject, rev=2)),
        judged(msgspec.structs.replace(subject, version="v2")),
    ]
    assert len({found.id for found in changed}) == len(changed)
    assert {found.policy for found in changed} == {LITERAL.hash, GUARDED.hash}
