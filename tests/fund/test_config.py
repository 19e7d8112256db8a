"""FundConfig: what it takes, what it refuses, and that a refusal names the field."""

from __future__ import annotations

import inspect
import math
import pickle
import pydoc
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest

from fundops import (
    AlertSettings,
    ConfigError,
    Cooldowns,
    Criterion,
    FundConfig,
    FundopsError,
    GateSettings,
    PromotionSettings,
    RecoverySettings,
    StageSettings,
    policy_of,
)
from fundops.config import home
from fundops.runtime import YEAR_S, settings_of

SECRET = "T00000/B00000/XXXXsecretXXXX"
WEBHOOK = f"https://hooks.example.com/services/{SECRET}"

NOT_NUMBERS: tuple[Any, ...] = (True, "7", "", None, [], {}, b"7", object(), 1j)
NOT_FINITE = (math.nan, math.inf, -math.inf)
HUGE = 10**400  # an int that no float holds


def _refused(field: str, value: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        FundConfig(**{"total_capital": 100_000, field: value})
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
    assert len(str(caught.value)) < 300
    return caught.value


def _cases(**values: tuple[Any, ...]) -> list[Any]:
    return [
        pytest.param(field, value, id=f"{field}={value!r}"[:40].split(" at 0x")[0])
        for field, bad in values.items()
        for value in bad
    ]


# -- defaults


def test_all_subsystems_are_off_and_the_defaults_are_the_documented_ones() -> None:
    config = FundConfig(total_capital=100_000)
    shown = {name: getattr(config, name) for name in config.__struct_fields__}
    assert shown == {
        "total_capital": 100_000,
        "alert_webhook_url": None,
        "ledger_enabled": False,
        "promotion_enabled": False,
        "self_healing_enabled": False,
        "name": "fund",
        "currency": "USD",
        "db_path": None,
        "mode": "act",
        "tick_interval_s": 1.0,
        "session": "UTC day",
        "break_tolerance": 0.01,
        "max_correlation": 0.85,
        "max_failed_strategies": "max(3, 5%)",
        "var_budget": None,
        "allow_tight_limits": False,
        "recovery_every_ticks": 10,
        "promotion_every_ticks": 60,
        "max_fund_drawdown_pct": 15.0,
        "max_strategy_drawdown_pct": 25.0,
        "kill_confirm_ticks": 1,
        "kill_action": "halt",
        "kill_scope": "live",
        "flatten_confirm_ticks": 3,
        "lease_s": 30.0,
        "host_silent_s": 10.0,
        "max_blind_s": 60.0,
        "on_blind": "reduce",
        "max_daily_loss_pct": None,
        "stale_feed_s": 300.0,
        "management_fee_bps": 0,
        "performance_fee_pct": 0.0,
        "crystallise_every_days": 30.0,
        "fee_posting": "session",
        "promotion_ladder": "four-stage",
        "promotion_policy": "guarded",
        "max_total_entitlement_pct": 100.0,
        "min_paper_days": 14,
        "min_trades": 50,
        "min_sharpe": 1.0,
        "max_drawdown_pct": 20.0,
        "min_win_rate": 0.45,
        "status_port": None,
        "status_host": "127.0.0.1",
        "status_hosts": (),
        "status_behind_proxy": False,
        "status_token": None,
        "control_socket": True,
        "alert_log": False,
        "ledger_floats": "round",
        "account_floors": {},
        "alerts": AlertSettings(),
        "recovery": RecoverySettings(),
        "promotion": PromotionSettings(),
    }


def test_the_limits_of_the_alert_gate_and_of_recovery_are_the_documented_ones() -> None:
    alerts, recovery = AlertSettings(), RecoverySettings()
    assert (alerts.per_category, alerts.window_s) == (5, 60.0)
    assert (recovery.base_cooldown_s, recovery.factor, recovery.attempts_max) == (60.0, 2.0, 3)


def test_each_subsystem_gets_the_settings_of_its_own_fields() -> None:
    config = FundConfig(
        total_capital="250000.50",
        max_fund_drawdown_pct=9,
        min_trades=7,
        management_fee_bps=150,
        promotion_every_ticks=5,
        ledger_enabled=True,
        status_port=0,
    )
    assert config.capital_minor == 25_000_050_000_000
    assert config.guard_settings().max_fund_drawdown_pct == 9
    gate = config.promotion_rules().rungs[0].gate
    assert gate is not None
    assert [item.limit for item in gate.criteria if item.name == "min_trades"] == [7]
    oversight = config.oversight_settings()
    assert (oversight.promotion_every_ticks, oversight.fees.management_fee_bps) == (5, 150)
    assert (oversight.ledger_enabled, oversight.promotion_enabled) == (True, False)
    assert not oversight.self_healing_enabled


def test_the_config_is_frozen_and_equal_to_itself() -> None:
    config = FundConfig(total_capital=1)
    with pytest.raises(AttributeError):
        config.total_capital = 2  # type: ignore[misc]
    assert config == FundConfig(total_capital=1)


def test_fields_have_names_and_unknown_ones_are_refused() -> None:
    with pytest.raises(TypeError, match="positional"):
        FundConfig(100_000)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="total_kapital"):
        FundConfig(total_capital=1, total_kapital=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="total_capital"):
        FundConfig()  # type: ignore[call-arg]


def test_a_changed_copy_is_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"^min_trades: "):
        msgspec.structs.replace(FundConfig(total_capital=1), min_trades=-1)


def test_a_refusal_is_a_value_error_of_the_packages_own_root() -> None:
    refusal = _refused("name", "")
    assert isinstance(refusal, FundopsError)
    assert isinstance(refusal, ValueError)


# -- capital


@pytest.mark.parametrize("capital", [100_000, "100000", Decimal("100000.00"), 100_000.0])
def test_capital_may_be_written_in_any_exact_way(capital: Any) -> None:
    assert FundConfig(total_capital=capital).capital_minor == 100_000 * 10**8


@pytest.mark.parametrize(
    "capital",
    [
        *(0, -1, 0.0, -0.0, 2**63, HUGE, 1e300, 1e-300, *NOT_FINITE),
        *("", "  ", "0", "-5", "abc", "1e400", "1_0x", "nan", "inf", "0.000000001"),
        *(Decimal("NaN"), Decimal("sNaN"), Decimal("-Infinity")),
        *(True, False, None, [], {}, b"5"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_capital_that_is_not_a_positive_finite_amount_is_refused(capital: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        FundConfig(total_capital=capital)
    assert caught.value.field == "total_capital"
    assert len(str(caught.value)) < 300


# -- numbers


@pytest.mark.parametrize(
    ("field", "refused", "taken", "more"),
    [
        ("lease_s", 19.999, 20, {"tick_interval_s": 10}),
        ("lease_s", None, 0.1, {"tick_interval_s": None}),
        ("max_fund_drawdown_pct", 0.999, 1, {}),
        ("max_strategy_drawdown_pct", 0.999, 1, {}),
        ("max_fund_drawdown_pct", None, 0.15, {"allow_tight_limits": True}),
    ],
)
def test_settings_that_go_together_are_refused_on_one_side_of_a_bound(
    field: str, refused: float | None, taken: float, more: dict[str, Any]
) -> None:
    assert getattr(FundConfig(total_capital=1, **{**more, field: taken}), field) == taken
    if refused is not None:
        with pytest.raises(ConfigError) as refusal:
            FundConfig(total_capital=1, **{**more, field: refused})
        assert refusal.value.field == field


@pytest.mark.parametrize(
    ("field", "value"),
    _cases(
        **dict.fromkeys(
            (
                "max_fund_drawdown_pct",
                "max_strategy_drawdown_pct",
                "lease_s",
                "max_blind_s",
                "crystallise_every_days",
            ),
            (*NOT_NUMBERS, *NOT_FINITE, 0, -1, -0.5, HUGE),
        )
    ),
)
def test_limits_and_durations_must_be_positive_and_finite(field: str, value: Any) -> None:
    _refused(field, value)


@pytest.mark.parametrize("field", ["max_fund_drawdown_pct", "max_strategy_drawdown_pct"])
def test_a_drawdown_limit_above_a_hundred_percent_is_refused(field: str) -> None:
    _refused(field, 100.0001)
    fields: dict[str, Any] = {field: 100}
    assert getattr(FundConfig(total_capital=1, **fields), field) == 100


@pytest.mark.parametrize(
    ("field", "value"),
    _cases(tick_interval_s=(True, False, "1", "", [], object(), *NOT_FINITE, 0, -1, -0.001, HUGE)),
)
def test_the_tick_interval_is_a_positive_number_or_none(field: str, value: Any) -> None:
    _refused(field, value)
    assert FundConfig(total_capital=1, tick_interval_s=None).tick_interval_s is None


@pytest.mark.parametrize(
    ("field", "value"),
    _cases(
        recovery_every_ticks=(*NOT_NUMBERS, *NOT_FINITE, 0, -1, 1.0),
        promotion_every_ticks=(*NOT_NUMBERS, *NOT_FINITE, 0, -1, 1.5),
        kill_confirm_ticks=(*NOT_NUMBERS, *NOT_FINITE, 0, -1, 2.0),
    ),
)
def test_counts_of_ticks_are_whole_numbers_from_one(field: str, value: Any) -> None:
    _refused(field, value)


@pytest.mark.parametrize(
    ("field", "value"),
    _cases(
        management_fee_bps=(*NOT_NUMBERS, *NOT_FINITE, -1, 10_001, 200.0, HUGE),
        performance_fee_pct=(*NOT_NUMBERS, *NOT_FINITE, -1, -0.1, 100.1, HUGE),
    ),
)
def test_fees_are_numbers_within_their_range(field: str, value: Any) -> None:
    _refused(field, value)


def test_fees_may_be_zero() -> None:
    config = FundConfig(total_capital=1, management_fee_bps=0, performance_fee_pct=0)
    assert config.oversight_settings().fees.performance_fee_pct == 0


@pytest.mark.parametrize(
    ("field", "value"),
    _cases(
        min_paper_days=(*NOT_NUMBERS, *NOT_FINITE, -1, HUGE),
        min_trades=(*NOT_NUMBERS, *NOT_FINITE, -1, HUGE),
        min_sharpe=(*NOT_NUMBERS, *NOT_FINITE, HUGE),
        max_drawdown_pct=(*NOT_NUMBERS, *NOT_FINITE, -1, 100.5, HUGE),
        min_win_rate=(*NOT_NUMBERS, *NOT_FINITE, -0.1, 1.01, 45, HUGE),
    ),
)
def test_promotion_criteria_are_finite_numbers_within_their_range(field: str, value: Any) -> None:
    _refused(field, value)


@pytest.mark.parametrize(
    "kind",
    [FundConfig, *FundConfig.parts, AlertSettings, RecoverySettings, Criterion],
    ids=lambda kind: kind.__name__,
)
def test_every_number_of_the_settings_has_two_bounds(kind: type[Any]) -> None:
    # 1e308 s in microseconds is infinite, and the actor that adds it to an instant crashes.
    good: dict[str, Any] = {"total_capital": 1} if kind is FundConfig else {}
    if kind is Criterion:
        good = {"name": "x", "metric": "days", "op": ">=", "limit": 1}
    numbers = [
        setting.name
        for setting in settings_of(kind)
        if "number" in setting.allowed and setting.name not in ("total_capital", "account_floors")
    ]
    assert numbers
    for name in numbers:
        for value in (1e308, -1e308, 10**30, -(10**30)):
            with pytest.raises(ConfigError):
                kind(**{**good, name: value})


def test_numbers_of_another_library_become_our_own() -> None:
    class Int64:  # as numpy.int64
        def __index__(self) -> int:
            return 20

    class Float32:  # as numpy.float32
        def __float__(self) -> float:
            return 20.5

    class Float64(float):  # as numpy.float64
        pass

    config = FundConfig(
        total_capital=Int64(),  # type: ignore[arg-type]
        min_trades=Int64(),  # type: ignore[arg-type]
        max_fund_drawdown_pct=Float32(),  # type: ignore[arg-type]
        max_drawdown_pct=Float64(7),
    )
    fields = ("total_capital", "min_trades", "max_fund_drawdown_pct", "max_drawdown_pct")
    found = [getattr(config, field) for field in fields]
    assert found == [20, 20, 20.5, 7.0]
    assert [type(value) for value in found] == [int, int, float, float]
    assert FundConfig(total_capital=Decimal("1.5")).total_capital == Decimal("1.5")


# -- choices and texts


@pytest.mark.parametrize(
    ("field", "value"),
    _cases(
        ledger_enabled=(1, 0, "yes", "", None, []),
        promotion_enabled=(1, 0, "true", None),
        self_healing_enabled=(1, 0.0, "on", None),
        alert_log=(1, "x", None),
    ),
)
def test_switches_are_booleans_and_nothing_like_them(field: str, value: Any) -> None:
    _refused(field, value)


@pytest.mark.parametrize(
    ("field", "value"),
    _cases(
        mode=("off", "", None, "ACT"),
        kill_action=("stop", "", None, 1, "HALT", []),
        kill_scope=("paper", "", None),
        on_blind=("halt", "", None),
        fee_posting=("month", "", None),
        ledger_floats=("cut", "", None),
        account_floors=({"SLUSH": 1}, None, 5),
        promotion_policy=("reckless", "", None, 1, []),
        promotion_ladder=("two-stage", "", None, 4, []),
    ),
)
def test_a_choice_that_does_not_exist_is_refused(field: str, value: Any) -> None:
    _refused(field, value)


@pytest.mark.parametrize(
    ("field", "value"),
    _cases(
        name=(
            "",
            " ",
            "a b",
            "../up",
            "a/b",
            "a.b",
            "a\x00b",
            "a\n",
            "x" * 65,
            None,
            5,
            b"fund",
            "-",
            "_",
        ),
        currency=("", "US D", "x" * 17, "U\x00", "$", None, 5, b"USD", "UNITS"),
        db_path=(5, b"x", [], True),
        status_token=(5, b"x", [], True),
        alerts=(None, {}, "x", RecoverySettings()),
        recovery=(None, {}, "x", AlertSettings()),
    ),
)
def test_names_paths_and_nested_settings_of_the_wrong_kind_are_refused(
    field: str, value: Any
) -> None:
    _refused(field, value)


@pytest.mark.parametrize(
    ("field", "value"),
    _cases(status_port=(True, False, "8711", "", 8711.0, -1, 65_536, HUGE, *NOT_FINITE, [])),
)
def test_a_port_is_a_whole_number_that_a_port_can_have(field: str, value: Any) -> None:
    _refused(field, value)
    assert FundConfig(total_capital=1, status_port=65_535).status_port == 65_535


@pytest.mark.parametrize("token", ["short", "with space inside", "\x00", "ünïcode", "\ud800"])
def test_a_token_never_shows_when_the_config_is_printed(token: str) -> None:
    config = FundConfig(total_capital=1, status_token=f"{SECRET}{token}")
    assert SECRET not in repr(config)
    assert SECRET not in str(config)


# -- the webhook


@pytest.mark.parametrize(
    "url",
    [
        f"http://hooks.example.com/{SECRET}",
        f"ftp://hooks.example.com/{SECRET}",
        f"https:///{SECRET}",
        f"https://user:{SECRET}@hooks.example.com/",
        f"https://hooks.example.com/#{SECRET}",
        f"https://169.254.169.254/{SECRET}",
        f"https://2852039166/{SECRET}",
        f"https://[::]/{SECRET}",
        f"https://hooks.example.com:99999999/{SECRET}",
        f"https://hooks.exa mple.com/{SECRET}",
        f"https://hooks.example.com/\x00{SECRET}",
        f"javascript:{SECRET}",
        SECRET,
        "",
        " ",
    ],
)
def test_a_bad_webhook_url_is_refused_and_its_secret_stays_out_of_the_refusal(url: str) -> None:
    refusal = _refused("alert_webhook_url", url)
    cause: BaseException | None = refusal
    while cause is not None:
        assert SECRET not in f"{cause} {cause!r} {cause.args!r}"
        cause = cause.__cause__ or cause.__context__


@pytest.mark.parametrize(
    "value", [5, True, b"https://x.example/", [WEBHOOK], {"url": WEBHOOK}, Path("x")]
)
def test_a_webhook_that_is_no_text_is_refused_without_its_content(value: Any) -> None:
    assert SECRET not in str(_refused("alert_webhook_url", value))


def test_the_webhook_url_shows_its_host_and_hides_the_rest_everywhere() -> None:
    config = FundConfig(total_capital=1, alert_webhook_url=WEBHOOK)
    again = msgspec.structs.replace(config, name="other")
    for one in (config, again):
        shown = f"{one} {one!r} {one.alert_webhook_url} {one.alert_webhook_url!r}"
        assert "hooks.example.com" in shown
        assert SECRET not in shown
        assert one.alert_webhook_url.reveal() == WEBHOOK  # type: ignore[union-attr]
        with pytest.raises(TypeError):
            pickle.dumps(one)


def test_a_refused_field_beside_a_good_webhook_does_not_show_it() -> None:
    with pytest.raises(ConfigError) as caught:
        FundConfig(total_capital=1, alert_webhook_url=WEBHOOK, min_trades=-1)
    assert SECRET not in f"{caught.value} {caught.value!r}"


# -- where and whether


def test_alerts_are_on_when_there_is_a_channel_or_any_subsystem() -> None:
    assert not FundConfig(total_capital=1).alerts_enabled
    settings: tuple[dict[str, Any], ...] = (
        {"alert_log": True},
        {"alert_webhook_url": WEBHOOK},
        {"ledger_enabled": True},
        {"promotion_enabled": True},
        {"self_healing_enabled": True},
    )
    assert all(FundConfig(total_capital=1, **one).alerts_enabled for one in settings)


def test_the_database_is_named_after_the_fund_in_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FUNDOPS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert FundConfig(total_capital=1, name="a-b_2").path == tmp_path / ".fundops" / "a-b_2.db"
    monkeypatch.setenv("FUNDOPS_HOME", str(tmp_path / "elsewhere"))
    assert home() == tmp_path / "elsewhere"
    assert FundConfig(total_capital=1).path == tmp_path / "elsewhere" / "fund.db"
    assert FundConfig(total_capital=1, db_path="x.db").path == Path("x.db")


# -- what people read


def test_help_and_signature_show_every_setting() -> None:
    text = pydoc.plain(pydoc.render_doc(FundConfig))
    names = FundConfig.__struct_fields__
    assert tuple(inspect.signature(FundConfig).parameters) == names
    assert [name for name in names if f"    {name} = " not in text] == []
    assert "lease_s = 30.0" in text
    assert "a finite number > 0 and <= 86,400; seconds; how long" in text


def test_a_setting_of_a_part_has_the_default_of_the_part() -> None:
    config = FundConfig(total_capital=1)
    for part in FundConfig.parts:
        for field in msgspec.structs.fields(part):
            if field.name in FundConfig.__struct_fields__:
                assert getattr(config, field.name) == field.default, field.name


# -- the address of the status port


@pytest.mark.parametrize("host", ["localhost", "", "[::1]", "::g", "256.1.1.1", "10.0.0.1:80"])
def test_the_status_port_is_bound_to_an_address(host: str) -> None:
    with pytest.raises(ConfigError, match=r"^status_host: "):
        FundConfig(total_capital=1, status_host=host)


def test_beyond_loopback_the_status_port_needs_a_proxy_and_a_token() -> None:
    with pytest.raises(ConfigError, match="needs status_behind_proxy=True"):
        FundConfig(total_capital=1, status_host="0.0.0.0")
    with pytest.raises(ConfigError, match="needs status_behind_proxy=True"):
        FundConfig(total_capital=1, status_host="::")
    with pytest.raises(ConfigError, match=r"^status_token: may be empty on loopback only"):
        FundConfig(
            total_capital=1, status_host="10.1.2.3", status_behind_proxy=True, status_token=""
        )
    config = FundConfig(
        total_capital=1,
        status_host="10.1.2.3",
        status_behind_proxy=True,
        status_hosts=("fund.example",),
    )
    assert config.status_names == {"fund.example", "10.1.2.3"}
    assert FundConfig(total_capital=1, status_host="127.0.0.2").status_names == frozenset()
    assert FundConfig(total_capital=1, status_host="::1").status_names == frozenset()
    long = FundConfig(total_capital=1, status_host="2001:DB8:0::7", status_behind_proxy=True)
    assert long.status_names == {"[2001:db8::7]"}


@pytest.mark.parametrize("name", ["Fund.example", "", "a b", "fund.example:8711", "-x", "x" * 254])
def test_a_name_of_the_status_port_is_one_of_a_host(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^status_hosts: "):
        FundConfig(total_capital=1, status_hosts=(name,))


# -- promotion


def test_nested_promotion_settings_shape_the_policy() -> None:
    config = FundConfig(
        total_capital=100_000,
        min_sharpe=1.5,
        session="weekdays 16:00 America/New_York",
        promotion=PromotionSettings(
            stages={"live-small": StageSettings(real_capital_cap=0.05)},
            gates={"shadow": GateSettings((Criterion("t", "n_trades", ">=", 99),), "auto")},
            cooldowns=Cooldowns(hard_days=60),
        ),
    )
    policy = config.promotion_rules()
    shadow, small = policy.rungs[1:3]
    assert (small.real_capital_cap, shadow.approval, policy.cooldowns.hard_days) == (
        0.05,
        "auto",
        60,
    )
    assert shadow.gate is not None
    assert [criterion.limit for criterion in shadow.gate.criteria] == [99]
    assert policy.sessions_per_year == 252
    capital = config.promotion_capital()
    assert (capital.fund_minor, capital.max_total_entitlement_pct) == (config.capital_minor, 100.0)


def test_a_whole_policy_takes_the_place_of_all_flat_settings() -> None:
    policy = policy_of("literal", min_trades=7)
    assert FundConfig(total_capital=1, promotion=policy).promotion_rules() is policy
    for flat in ({"min_trades": 8}, {"promotion_ladder": "three-stage"}):
        with pytest.raises(ConfigError, match="beside a whole policy") as refusal:
            FundConfig(total_capital=1, promotion=policy, **flat)
        assert refusal.value.field == next(iter(flat))


@pytest.mark.parametrize(
    ("flat", "criterion"),
    [
        ({"min_paper_days": 20}, Criterion("d", "days", ">=", 20)),
        ({"min_trades": 60}, Criterion("t", "n_trades", ">=", 60)),
        ({"min_sharpe": 1.5}, Criterion("s", "sharpe", ">=", 1.5)),
        ({"max_drawdown_pct": 15}, Criterion("m", "max_drawdown_pct", "<=", 15)),
        ({"min_win_rate": 0.5}, Criterion("w", "win_rate", ">=", 0.5)),
    ],
)
def test_a_flat_criterion_beside_a_nested_gate_for_the_same_is_refused(
    flat: dict[str, Any], criterion: Criterion
) -> None:
    nested = PromotionSettings(gates={"paper": GateSettings((criterion,))})
    with pytest.raises(ConfigError, match=r"promotion\.gates\.paper") as refusal:
        FundConfig(total_capital=1, promotion=nested, **flat)
    assert refusal.value.field == next(iter(flat))
    FundConfig(total_capital=1, promotion=nested)
    FundConfig(total_capital=1, **flat)


def test_a_drawdown_above_a_hard_limit_is_refused_and_equal_is_allowed() -> None:
    with pytest.raises(ConfigError, match="above the hard limit of shadow, 25") as refusal:
        FundConfig(total_capital=1, max_drawdown_pct=25.1)
    assert refusal.value.field == "max_drawdown_pct"
    config = FundConfig(total_capital=1, max_drawdown_pct=25)
    assert [rung.hard.drawdown for rung in config.promotion_rules().rungs[1:]] == [0.25] * 3


def test_a_nested_setting_that_makes_no_sense_is_named_with_its_place() -> None:
    for nested, place in (
        (PromotionSettings(calendar="lunar"), "promotion.calendar"),
        (
            PromotionSettings(gates={"paper": GateSettings((Criterion("x", "sharp", ">=", 1),))}),
            "promotion.gates.paper.criteria[0]",
        ),
    ):
        with pytest.raises(ConfigError) as refusal:
            FundConfig(total_capital=1, promotion=nested)
        assert refusal.value.field == place
    with pytest.raises(ConfigError, match="promotion"):
        FundConfig(total_capital=1, promotion="guarded")  # type: ignore[arg-type]


# -- each declared limit


class Limit(NamedTuple):
    """One end of a number's range, as its field declares it."""

    kind: type[Any]
    field: str
    of: type[Any]  # int or float
    is_upper: bool
    bound: float
    is_in: bool  # whether the bound itself is allowed

    @property
    def beyond(self) -> float:
        """The nearest value outside."""
        if not self.is_in:
            return self.bound
        if self.of is int:
            return self.bound + (1 if self.is_upper else -1)
        return math.nextafter(self.bound, math.inf if self.is_upper else -math.inf)

    @property
    def last(self) -> float:
        """The outermost value inside."""
        if self.is_in:
            return self.bound
        if self.of is int:
            return self.bound - (1 if self.is_upper else -1)
        return math.nextafter(self.bound, -math.inf if self.is_upper else math.inf)

    def __str__(self) -> str:
        return f"{self.kind.__name__}.{self.field}-{'upper' if self.is_upper else 'lower'}"


def _numbers_of(hint: Any, meta: msgspec.Meta | None = None) -> Iterator[tuple[Any, msgspec.Meta]]:
    """The types int and float in a hint, each with its range."""
    if get_origin(hint) is Annotated:
        ranges = [found for found in hint.__metadata__ if isinstance(found, msgspec.Meta)]
        yield from _numbers_of(get_args(hint)[0], next(iter(ranges), meta))
    elif get_origin(hint) in (Union, UnionType):
        for part in get_args(hint):
            yield from _numbers_of(part, meta)
    elif hint in (int, float) and meta is not None:
        yield hint, meta


def _limits() -> list[Limit]:
    found = []
    for kind in (FundConfig, *FundConfig.parts, AlertSettings, RecoverySettings):
        for field, hint in get_type_hints(kind, include_extras=True).items():
            for of, meta in _numbers_of(hint):
                ends = ((False, meta.ge, meta.gt), (True, meta.le, meta.lt))
                for is_upper, within, strict in ends:
                    bound = strict if within is None else within
                    if bound is not None:
                        limit = Limit(kind, field, of, is_upper, bound, within is not None)
                        found.append(limit)
    return found


# Settings that a limit of another one needs beside it.
BESIDE: dict[str, dict[str, Any]] = {
    "base_cooldown_s": {"cooldown_max_s": YEAR_S},
    "cooldown_max_s": {"base_cooldown_s": 0.001},
}


@pytest.mark.parametrize("limit", _limits(), ids=str)
def test_a_number_is_taken_at_its_bound_and_refused_beyond_it(limit: Limit) -> None:
    good = {"total_capital": 1} if limit.kind is FundConfig else BESIDE.get(limit.field, {})
    taken = limit.kind(**{**good, limit.field: limit.last})
    assert getattr(taken, limit.field) == limit.last
    with pytest.raises(ConfigError) as caught:
        limit.kind(**{**good, limit.field: limit.beyond})
    assert caught.value.field == limit.field


@pytest.mark.parametrize(
    "limit", [limit for limit in _limits() if limit.kind in FundConfig.parts], ids=str
)
def test_a_fund_refuses_what_is_beyond_a_bound_of_a_part(limit: Limit) -> None:
    if limit.field in FundConfig.__struct_fields__:
        _refused(limit.field, limit.beyond)


def test_the_declared_limits_are_found() -> None:
    fields = {limit.field for limit in _limits()}
    assert {"lease_s", "max_fund_drawdown_pct", "max_failed_strategies", "status_port"} <= fields
    assert len(_limits()) > 60
