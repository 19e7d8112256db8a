"""The policy as one value: ladders, gates, limits, the canonical encoding, and refusals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundops import FundConfig, PromotionManager
from fundops.actors.promotion import (
    Cooldowns,
    Criterion,
    GateSettings,
    PromotionGate,
    PromotionPolicy,
    PromotionSettings,
    SoftWindow,
    StageSettings,
    policy_of,
    with_gate,
)
from fundops.runtime import ConfigError
from fundops.wire.errors import PolicyError, UnknownStage
from fundops.wire.promotion import PromotionStage

Paper, Shadow = PromotionStage.Paper, PromotionStage.Shadow
Small, Scaled = PromotionStage.Live_Small, PromotionStage.Live_Scaled
Live, Retired = PromotionStage.Live, PromotionStage.Retired

EXAMPLE = Path(__file__).parents[3] / "docs" / "policy.toml"
TRADES = Criterion("min_trades", "n_trades", ">=", 10)


def settled(**settings: Any) -> PromotionPolicy:
    return policy_of(settings=PromotionSettings(**settings))


def own_gate(*criteria: Criterion, stage: PromotionStage = Paper) -> PromotionPolicy:
    return with_gate(policy_of(), PromotionGate(stage, criteria))


# -- ladders


@pytest.mark.parametrize("ladder", ["five-stage", ["paper"], None, 5])
def test_a_ladder_that_is_none_is_refused_with_those_that_are(ladder: Any) -> None:
    with pytest.raises(ConfigError, match="is not one of four-stage, three-stage") as refused:
        policy_of(ladder=ladder)
    assert refused.value.field == "promotion_ladder"


def test_real_capital_grows_from_nothing_to_all() -> None:
    four, three = policy_of(), policy_of(ladder="three-stage")
    assert [(rung.mode, rung.real_capital_cap) for rung in four.rungs] == [
        ("paper", 0),
        ("shadow", 0),
        ("live", 0.01),
        ("live", 1),
    ]
    assert three.names() == ["paper", "shadow", "live"]
    assert three.rungs[-1].real_capital_cap == 1


def test_the_limits_that_demote_follow_the_entry_ceiling() -> None:
    limits = [(rung.keep.drawdown, rung.hard.drawdown) for rung in policy_of().rungs]
    assert limits == [(None, None), (0.2, 0.25), (0.2, 0.2), (0.2, 0.25)]
    stricter = policy_of(max_drawdown_pct=15)
    assert [rung.hard.drawdown for rung in stricter.rungs] == [None, 0.25, 0.15, 0.25]
    assert [rung.hard.session_loss for rung in stricter.rungs] == [None, None, 0.05, 0.05]


def test_only_guarded_waits_for_a_person_and_only_for_real_money() -> None:
    guarded, literal = policy_of(), policy_of("literal")
    assert [rung.approval for rung in guarded.rungs] == ["auto", "manual", "manual", "auto"]
    assert {rung.approval for rung in literal.rungs} == {"auto"}


def test_the_neighbours_of_a_stage_end_at_top_and_bottom() -> None:
    policy = policy_of()
    assert (policy.above(Paper), policy.above(Scaled)) == (Shadow, None)
    assert (policy.below(Small), policy.below(Paper)) == (Shadow, None)
    assert [policy.rank(stage) for stage in (Paper, Shadow, Small, Scaled)] == [0, 1, 2, 3]
    with pytest.raises(PolicyError, match="four-stage"):
        policy.rung(Live)


@pytest.mark.parametrize("value", ["LIVE", None, Retired, 3, Live, []])
def test_another_stage_is_unknown_and_those_of_the_ladder_are_listed(value: Any) -> None:
    with pytest.raises(UnknownStage) as refusal:
        policy_of().stage(value)
    assert refusal.value.stages == ("paper", "shadow", "live-small", "live-scaled")
    assert policy_of().stage("live-small") is Small


def test_stages_are_selected_and_parametrised() -> None:
    policy = settled(
        order=("paper", "live-small", "live-scaled"),
        stages={"live-small": StageSettings(real_capital_cap=0.05, max_days=90)},
        gates={"paper": GateSettings(approval="auto", streak=2)},
    )
    assert (policy.ladder, policy.names()) == ("own", ["paper", "live-small", "live-scaled"])
    paper, small, _ = policy.rungs
    assert (small.real_capital_cap, small.max_days) == (0.05, 90)
    assert paper.approval == "auto"
    assert paper.gate is not None
    assert (paper.gate.streak, len(paper.gate.criteria)) == (2, 5)


def test_sessions_in_a_year_are_the_calendars_unless_given() -> None:
    assert settled().sessions_per_year == 365
    assert settled(calendar="weekdays 16:00 America/New_York").sessions_per_year == 252
    assert settled(periods_per_year=260).sessions_per_year == 260


# -- one value


def test_an_int_and_a_float_and_a_signed_zero_make_the_same_policy() -> None:
    assert policy_of(min_paper_days=14, min_sharpe=0).hash == policy_of(min_sharpe=-0.0).hash
    assert settled(cooldowns=Cooldowns(hard_days=-0.0)).hash == (
        settled(cooldowns=Cooldowns(hard_days=0)).hash
    )


def test_the_order_in_which_metrics_are_declared_makes_no_other_policy() -> None:
    one, other = {"hit_rate": "fraction", "slippage": "bps"}, {"slippage": "bps"}
    assert settled(metrics=one).hash == settled(metrics={**other, **one}).hash


@given(
    st.sampled_from(["guarded", "literal"]),
    st.sampled_from(["four-stage", "three-stage"]),
    st.floats(0, 36_500) | st.integers(0, 100),
    st.integers(0, 10**9),
    st.floats(-1_000, 1_000),
    st.floats(0, 25),
    st.floats(0, 1),
)
def test_a_policy_is_read_back_as_it_was_with_the_same_hash(
    name: Any, ladder: Any, days: float, trades: int, sharpe: float, drawdown: float, wins: float
) -> None:
    policy = policy_of(
        name,
        ladder=ladder,
        min_paper_days=days,
        min_trades=trades,
        min_sharpe=sharpe,
        max_drawdown_pct=drawdown,
        min_win_rate=wins,
    )
    again = PromotionPolicy.decode(policy.encode())
    assert again == policy
    assert (again.encode(), again.hash) == (policy.encode(), policy.hash)


def test_each_part_of_a_policy_is_a_part_of_its_hash() -> None:
    policies = [
        policy_of(),
        policy_of("literal"),
        policy_of(ladder="three-stage"),
        policy_of(min_trades=51),
        own_gate(TRADES),
        settled(soft=SoftWindow(sessions=6)),
        settled(cooldowns=Cooldowns(hard_days=31)),
        settled(calendar="weekdays 16:00 America/New_York"),
        settled(periods_per_year=252),
        settled(metrics={"capacity": "USD"}),
        settled(on_new_version="shadow"),
        settled(stages={"live": StageSettings(max_days=9)}, order=("paper", "live")),
    ]
    assert len({policy.hash for policy in policies}) == len(policies)


@pytest.mark.parametrize("encoded", [b"", b"{}", b"[1]", b"\xff", '{"name": 3}'])
def test_bytes_that_are_no_policy_are_refused(encoded: bytes | str) -> None:
    with pytest.raises(PolicyError, match="policy"):
        PromotionPolicy.decode(encoded)


def test_a_gate_replaces_that_of_its_stage_alone() -> None:
    policy = policy_of()
    changed = with_gate(policy, PromotionGate(Shadow, (TRADES,), approval="auto"))
    assert changed.rungs[0] == policy.rungs[0]
    assert changed.rungs[2:] == policy.rungs[2:]
    shadow = changed.rung(Shadow)
    assert shadow.gate is not None
    assert (shadow.gate.criteria, shadow.approval) == ((TRADES,), "auto")
    kept = with_gate(policy, PromotionGate(Shadow, (TRADES,)))
    assert kept.rung(Shadow).approval == "manual"


@pytest.mark.parametrize(
    ("how", "field"),
    [({"streak": 0}, "streak"), ({"streak": True}, "streak"), ({"approval": "ann"}, "approval")],
)
def test_a_gate_that_makes_no_sense_is_refused(how: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        PromotionGate(Paper, (TRADES,), **how)
    assert refusal.value.field == field


# -- what cannot work


@pytest.mark.parametrize(
    ("criterion", "problem"),
    [
        (Criterion("low", "max_drawdwon", "<=", 0.1), "no metric 'max_drawdwon'"),
        (Criterion("low", "max_drawdown", "<=", 8), "percent goes into max_drawdown_pct"),
        (Criterion("drag", "tracking_drag", ">=", -0.02), "needs real trading"),
        (Criterion("fills", "fills", ">=", 30), "from shadow on"),
        (Criterion("series", "returns", ">=", 0), "is a series"),
    ],
)
def test_a_criterion_that_can_never_be_met_is_refused_with_its_place(
    criterion: Criterion, problem: str
) -> None:
    with pytest.raises(PolicyError, match=problem) as refusal:
        own_gate(TRADES, criterion)
    assert refusal.value.field == "gates.paper.criteria[1]"


def test_where_a_metric_can_be_met_it_is_allowed() -> None:
    own_gate(Criterion("drag", "tracking_drag", ">=", -0.02), stage=Small)
    own_gate(Criterion("fills", "fills", ">=", 30), stage=Shadow)
    ceiling = own_gate(Criterion("low", "max_drawdown_pct", "<=", 8)).rungs[0].gate
    assert ceiling is not None
    assert (ceiling.criteria[0].metric, ceiling.criteria[0].limit) == ("max_drawdown", 0.08)


def test_limits_of_the_next_stage_follow_the_ceiling_of_a_new_gate() -> None:
    tighter = own_gate(Criterion("low", "max_drawdown", "<=", 0.08), stage=Shadow).rung(Small)
    assert (tighter.keep.drawdown, tighter.hard.drawdown) == (0.08, 0.08)
    silent = own_gate(TRADES, stage=Shadow).rung(Small)
    assert (silent.keep.drawdown, silent.hard.drawdown) == (0.2, 0.2)
    built = settled(gates={"shadow": GateSettings((TRADES,))}).rung(Small)
    assert (built.keep.drawdown, built.hard.drawdown) == (0.2, 0.2)


def test_the_top_of_the_ladder_has_no_gate() -> None:
    with pytest.raises(PolicyError, match="no way up"):
        own_gate(TRADES, stage=Scaled)
    with pytest.raises(UnknownStage):
        own_gate(TRADES, stage=Live)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (
            {"order": ("paper", "live-small", "live-scaled"), "on_new_version": "shadow"},
            "on_new_version",
        ),
        ({"order": ("paper",)}, "order"),
        ({"order": ("paper", "paper", "live")}, "order"),
        ({"order": ("live-small", "live-scaled")}, "order"),
        ({"order": ("paper", "live", "live-small")}, "stages.live-small.real_capital_cap"),
        (
            {"stages": {"paper": StageSettings(real_capital_cap=0.1)}},
            "stages.paper.real_capital_cap",
        ),
        (
            {"stages": {"live-small": StageSettings(notional_cap=0.1)}},
            "stages.live-small.notional_cap",
        ),
        ({"stages": {"shadow": StageSettings(keep_drawdown=0.21)}}, "stages.shadow.keep_drawdown"),
        ({"stages": {"live-small": StageSettings(hard_drawdown=0.19)}}, "max_drawdown_pct"),
        ({"soft": SoftWindow(sessions=2, breaches=3)}, "soft.breaches"),
        ({"stages": {"live": StageSettings(hard_drawdown=0.1)}}, "stages.live"),
        ({"gates": {"live": GateSettings(approval="manual")}}, "gates.live"),
        ({"gates": {"live-scaled": GateSettings(streak=2)}}, "gates.live-scaled"),
        ({"calendar": "lunar"}, "calendar"),
        ({"metrics": {"sharpe": "x"}}, "metrics.sharpe"),
        ({"metrics": {"max_drawdown_pct": "x"}}, "metrics.max_drawdown_pct"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_the_place(
    settings: dict[str, Any], field: str
) -> None:
    with pytest.raises(PolicyError) as refusal:
        settled(**settings)
    assert refusal.value.field == field


def test_a_hard_limit_below_the_ceiling_of_ones_own_gate_is_refused_and_equal_is_allowed() -> None:
    ceiling = Criterion("max_drawdown", "max_drawdown", "<=", 0.26)
    with pytest.raises(PolicyError, match="equal is allowed") as refusal:
        own_gate(ceiling)
    assert refusal.value.field == "stages.shadow.hard_drawdown"
    own_gate(msgspec.structs.replace(ceiling, limit=0.25))


@pytest.mark.parametrize("limit", [math.nan, math.inf, "1", None, True])
def test_a_limit_is_a_finite_number(limit: Any) -> None:
    with pytest.raises(ConfigError, match="limit"):
        Criterion("sharpe", "sharpe", ">=", limit)


# -- from a file


def test_the_documented_file_is_the_policy_that_it_describes() -> None:
    policy = PromotionPolicy.from_toml(EXAMPLE)
    assert PromotionPolicy.from_toml(str(EXAMPLE)) == policy
    criteria = (
        Criterion("min_days", "days", ">=", 30),
        Criterion("max_drawdown", "max_drawdown", "<=", 0.15),
        Criterion("min_capacity", "capacity", ">=", 500_000, required=False),
    )
    assert policy == policy_of(
        min_trades=100,
        settings=PromotionSettings(
            calendar="weekdays 16:00 America/New_York",
            periods_per_year=252,
            metrics={"capacity": "USD"},
            stages={
                "shadow": StageSettings(notional_cap=0.5),
                "live-small": StageSettings(
                    real_capital_cap=0.02, keep_drawdown=0.15, hard_drawdown=0.2, max_days=90
                ),
            },
            gates={"live-small": GateSettings(criteria, streak=3)},
        ),
    )


def test_an_empty_file_is_the_default_policy() -> None:
    assert PromotionPolicy.from_toml("") == policy_of()
    assert PromotionPolicy.from_toml('policy = "literal"\nladder = "three-stage"') == policy_of(
        "literal", ladder="three-stage"
    )
    own = PromotionPolicy.from_toml('ladder = ["paper", "live-small", "live-scaled"]')
    assert own == settled(order=("paper", "live-small", "live-scaled"))


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ('\npolicy = "strict"', "policy", 2),
        ('ladder = "five-stage"', "ladder", 1),
        ('\n\nladder = ["paper", "papr"]', "ladder[1]", 3),
        ("a = 1\nb = 2", "a", 1),
        ('[criteria]\nmin_trades = "50"', "criteria.min_trades", 2),
        ("[criteria]\n\nmin_trade = 50", "criteria.min_trade", 3),
        ("[criteria]\nmax_drawdown_pct = 26", "criteria.max_drawdown_pct", 2),
        ("[stages.live-smal]\nmax_days = 1", "stages.live-smal", 1),
        (
            "[soft]\n[stages.live-small]\nreal_capital_cap = 2",
            "stages.live-small.real_capital_cap",
            3,
        ),
        ("stages = 5", "stages", 1),
        ("[cooldowns]\nsoft_days = 1\nhard_days = -1", "cooldowns.hard_days", 3),
        ('calendar = "lunar"', "calendar", 1),
        (
            '[[gates.paper.criteria]]\nname = "a"\nmetric = "n_trades"\nop = ">="\nlimit = 1\n'
            '[[gates.paper.criteria]]\nname = "b"\nmetric = "sharp"\nop = ">="\nlimit = 1\n',
            "gates.paper.criteria[1]",
            6,
        ),
        (
            '[[gates.paper.criteria]]\nname = "a"\nmetric = "sharpe"\nop = "=>"\nlimit = 1\n',
            "gates.paper.criteria[0].op",
            4,
        ),
    ],
)
def test_a_refusal_names_the_key_and_the_line(text: str, key: str, line: int) -> None:
    with pytest.raises(PolicyError) as refusal:
        PromotionPolicy.from_toml(text)
    assert (refusal.value.field, refusal.value.line) == (key, line)
    assert refusal.value.problem.startswith(f"line {line}: ")


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("[criteria]\nmin_trades = fifty\n", "criteria.min_trades", 2),
        ("[stages.live-small]\n\nmax_days = 1.2.3\n", "stages.live-small.max_days", 3),
        ('\npolicy = "guarded', "policy", 2),
        ("min_trades = [1,\n\n", "min_trades", 1),
        ("a = ", "a", 1),
        ("\n[criteria", "toml", 2),
    ],
)
def test_a_file_that_is_no_toml_names_the_key_and_the_line(text: str, key: str, line: int) -> None:
    with pytest.raises(PolicyError, match=f"^{key}: line {line}: ") as refusal:
        PromotionPolicy.from_toml(text)
    assert (refusal.value.field, refusal.value.line) == (key, line)


def test_a_file_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"^toml: none.toml cannot be read") as refusal:
        PromotionPolicy.from_toml("none.toml")
    assert (refusal.value.field, refusal.value.line) == ("toml", None)


# -- a whole policy as a Python value


def _with_rung(rank: int, **changes: Any) -> PromotionPolicy:
    policy = policy_of()
    rungs = list(policy.rungs)
    rungs[rank] = msgspec.structs.replace(rungs[rank], **changes)
    return msgspec.structs.replace(policy, rungs=tuple(rungs))


def _with(**changes: Any) -> PromotionPolicy:
    return msgspec.structs.replace(policy_of(), **changes)


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (_with_rung(0, gate=PromotionGate(Paper, (Criterion("x", "sharp", ">=", 1.0),))), "sharp"),
        (_with_rung(2, real_capital_cap=5.0), "stages.live-small.real_capital_cap: Expected"),
        (_with_rung(2, real_capital_cap=math.nan), "stages.live-small.real_capital_cap: Expected"),
        (_with_rung(0, real_capital_cap=1.0), "paper has no real capital"),
        (_with_rung(0, gate=policy_of().rungs[2].gate), "is the gate of 'live-small'"),
        (_with_rung(1, max_days=math.inf), "stages.shadow.max_days: inf is no value"),
        (_with_rung(1, stage="shade"), r"stages\.'shade'\.stage: Invalid enum"),
        (_with_rung(1, approval="manuall"), "stages.shadow.approval: Invalid"),
        (_with(calendar="nonsense"), "calendar: 'nonsense'"),
        (_with(rungs=list(policy_of().rungs)), "rungs: .* is no value that a file can keep"),
        (
            _with(rungs=policy_of(ladder="three-stage").rungs[::2], on_new_version="shadow"),
            "on_new_version: the ladder has no shadow",
        ),
        (_with(rungs=policy_of().rungs[:1]), "two stages or more"),
        (_with(rungs=policy_of().rungs[2:]), "is the lowest stage, and has real money"),
        (_with(soft=SoftWindow(2, 3)), "soft.breaches: 3 of 2 sessions"),
    ],
    ids=lambda value: value if isinstance(value, str) else "policy",
)
def test_a_whole_policy_is_checked_at_each_door_as_one_from_a_file(
    policy: PromotionPolicy, text: str, tmp_path: Path
) -> None:
    with pytest.raises(PolicyError, match=text):
        PromotionManager(tmp_path / "x.db", policy=policy)
    with pytest.raises(PolicyError, match=text):
        FundConfig(total_capital=1, promotion_enabled=True, promotion=policy)
