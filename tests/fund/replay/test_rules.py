"""The rules decide as their docstrings say, from the last bars only; the line-up uses them."""

import datetime
from collections.abc import Sequence
from fractions import Fraction
from typing import overload

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundops.replay import lineup
from fundops.replay.prices import SYMBOLS, Bar, bundled
from fundops.replay.rules import (
    FAMILIES,
    AllOf,
    BollingerReversion,
    Breakout,
    BuyAndHold,
    Momentum,
    Rule,
    SessionAbove,
    SessionAfterDown,
    SessionAfterUp,
    SessionBelow,
    SmaCross,
    UnknownRule,
    named,
)

# Small windows, so that short histories suffice.
RULES: tuple[Rule, ...] = (
    BollingerReversion(6),
    BollingerReversion(10),
    SmaCross(1, 2),
    SmaCross(5, 20),
    Breakout(2),
    Breakout(10),
    Momentum(1),
    Momentum(10),
    BuyAndHold(),
    SessionAbove(20),
    SessionBelow(5),
    SessionAfterDown(1),
    SessionAfterDown(3),
    SessionAfterUp(2),
    AllOf((SessionAbove(20), SessionBelow(5))),
    AllOf((SessionAbove(10), SessionAfterUp(2), SessionAfterUp(1))),
)

every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


def bar(close: int, high: int | None = None, low: int | None = None) -> Bar:
    """A bar of which only these prices matter."""
    return Bar(datetime.date(2020, 1, 1), close, high or close, low or close, close, 0)


def closes(*values: int) -> list[Bar]:
    """Bars that open, trade and close at one price each."""
    return [bar(value) for value in values]


# No deadline: a busy machine is not a fault of a rule.
few = settings(max_examples=30)
walks = st.lists(st.integers(90, 110), min_size=24, max_size=30).map(lambda values: closes(*values))


class LastOnly(Sequence[Bar]):
    """A history that fails a rule for reading a bar older than the last `count`."""

    def __init__(self, bars: Sequence[Bar], count: int) -> None:
        self._bars = bars
        self._oldest = len(bars) - count

    def __len__(self) -> int:
        return len(self._bars)

    @overload
    def __getitem__(self, index: int) -> Bar: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Bar]: ...
    def __getitem__(self, index: int | slice) -> Bar | Sequence[Bar]:
        read = range(len(self._bars))[index]
        assert (read if isinstance(read, int) else min(read)) >= self._oldest
        return self._bars[index]


@every_rule
@few
@given(bars=walks)
def test_a_target_is_an_exposure(rule: Rule, bars: list[Bar]) -> None:
    assert -1.0 <= rule.target(bars) <= 1.0


@every_rule
@few
@given(bars=walks, other=walks)
def test_a_target_does_not_change_when_later_bars_change(
    rule: Rule, bars: list[Bar], other: list[Bar]
) -> None:
    # Asked at every session of one series and then of another with the same beginning.
    cut = 22
    decided = [rule.target(bars[:count]) for count in range(len(bars) + 1)]
    changed = bars[:cut] + other[cut:]
    assert [rule.target(changed[:count]) for count in range(cut + 1)] == decided[: cut + 1]


@every_rule
@few
@given(bars=walks)
def test_a_target_rests_on_the_last_warmup_bars_alone(rule: Rule, bars: list[Bar]) -> None:
    assert rule.target(LastOnly(bars, rule.warmup)) == rule.target(bars)
    if rule.warmup:
        assert rule.target(bars[-rule.warmup :]) == rule.target(bars)


@pytest.mark.parametrize(
    "rule", [rule for rule in RULES if rule.warmup], ids=lambda rule: rule.name
)
@few
@given(bars=walks)
def test_a_rule_that_is_not_warm_stays_flat(rule: Rule, bars: list[Bar]) -> None:
    assert {rule.target(bars[:count]) for count in range(rule.warmup)} == {0.0}


@pytest.mark.parametrize(
    "rule", [rule for rule in RULES if rule.warmup], ids=lambda rule: rule.name
)
def test_a_rule_is_sometimes_in_and_sometimes_out_of_the_market(rule: Rule) -> None:
    bars = bundled("nasdaq")
    assert {rule.target(bars[count - 100 : count]) for count in range(1000, 1500)} == {0.0, 1.0}


def test_buy_and_hold_is_long_from_the_first_session() -> None:
    assert BuyAndHold().target([]) == 1.0


def test_sma_cross_is_long_only_while_the_quick_mean_is_above_the_slow_one() -> None:
    # Means of the last 2 and 4: 13.5 and 12.5; 11 and 11.25; 10 and 10.
    rule = SmaCross(2, 4)
    assert rule.target(closes(11, 12, 13, 14)) == 1.0
    assert rule.target(closes(11, 12, 12, 10)) == 0.0
    assert rule.target(closes(10, 10, 10, 10)) == 0.0


def test_momentum_compares_with_the_close_a_window_ago() -> None:
    assert Momentum(3).target(closes(1, 10, 5, 5, 11)) == 1.0
    assert Momentum(3).target(closes(99, 10, 11, 12, 10)) == 0.0
    assert Momentum(3).target(closes(1, 10, 11, 12, 9)) == 0.0


def test_bollinger_reversion_enters_below_two_deviations() -> None:
    # Five closes at 100 and one at 90: mean 98.33, deviation 3.73, lower band 90.88.
    assert BollingerReversion(6).target(closes(*[100] * 11, 90)) == 1.0
    # The last six with a close at 88 and one at 90: mean 96.33, deviation 5.22, lower band 85.90.
    assert BollingerReversion(6).target(closes(*[100, 90] * 3, 100, 90, 100, 100, 100, 88)) == 0.0


def test_bollinger_reversion_holds_until_the_middle_band() -> None:
    rule = BollingerReversion(6)
    entered = [*[100] * 11, 90]
    # The mean is 97.17 after 93, then 97.17 after 100: still below the one, back above the other.
    assert rule.target(closes(*entered, 93)) == 1.0
    assert rule.target(closes(*entered, 93, 100)) == 0.0


def test_bollinger_reversion_leaves_at_the_middle_band_itself() -> None:
    # The mean is 973.33 after the second 970, and 968 after 968.
    entered = [*[1000] * 11, 900]
    assert BollingerReversion(6).target(closes(*entered, 970, 970)) == 1.0
    assert BollingerReversion(6).target(closes(*entered, 970, 970, 968)) == 0.0


def test_bollinger_reversion_gives_up_an_entry_older_than_its_window() -> None:
    # After the fall each close is a little lower, always below its mean and never two deviations
    # below.
    rule = BollingerReversion(6)
    fall = [*[1000] * 12, 900, 899, 898, 897, 896, 895]
    assert rule.target(closes(*fall)) == 1.0
    assert rule.target(closes(*fall, 894)) == 0.0


def test_bollinger_reversion_stays_flat_on_a_price_that_never_moves() -> None:
    assert BollingerReversion(20).target(closes(*[100] * 40)) == 0.0


def test_a_breakout_is_a_close_above_the_highest_high_before_it() -> None:
    channel = [bar(10, high=12, low=8)] * 7
    assert Breakout(4).target([*channel, bar(13)]) == 1.0
    # A close at the channel, and a high above it, are no breakout.
    assert Breakout(4).target([*channel, bar(12)]) == 0.0
    assert Breakout(4).target([*channel, bar(12, high=20)]) == 0.0


def test_a_breakout_is_held_until_a_close_below_the_half_channel() -> None:
    entered = [*[bar(10, high=12, low=8)] * 7, bar(13, high=13, low=11)]
    # Lows of the two sessions before: 8 and 11, then 11 and 9.
    assert Breakout(4).target([*entered, bar(9)]) == 1.0
    assert Breakout(4).target([*entered, bar(9), bar(9)]) == 1.0
    assert Breakout(4).target([*entered, bar(9), bar(8)]) == 0.0
    assert Breakout(4).target([*entered, bar(7)]) == 0.0


def test_a_breakout_is_given_up_after_its_window() -> None:
    entered = [*[bar(10, high=12, low=8)] * 7, bar(13, high=13, low=8)]
    assert Breakout(4).target([*entered, *[bar(10, low=8)] * 3]) == 1.0
    assert Breakout(4).target([*entered, *[bar(10, low=8)] * 4]) == 0.0


def test_session_above_and_below_compare_the_close_with_its_mean() -> None:
    # Means of three: 11, 11 and 10.
    assert (
        SessionAbove(3).target(closes(10, 11, 12)),
        SessionBelow(3).target(closes(10, 11, 12)),
    ) == (1.0, 0.0)
    assert (
        SessionAbove(3).target(closes(12, 11, 10)),
        SessionBelow(3).target(closes(12, 11, 10)),
    ) == (0.0, 1.0)
    assert (
        SessionAbove(3).target(closes(10, 10, 10)),
        SessionBelow(3).target(closes(10, 10, 10)),
    ) == (0.0, 0.0)


def test_session_after_down_wants_every_one_of_the_last_closes_to_fall() -> None:
    assert SessionAfterDown(1).target(closes(10, 9)) == 1.0
    assert SessionAfterDown(1).target(closes(10, 10)) == 0.0
    assert SessionAfterDown(2).target(closes(10, 9, 8)) == 1.0
    assert SessionAfterDown(2).target(closes(10, 8, 9)) == 0.0
    assert SessionAfterDown(2).target(closes(8, 9, 8)) == 0.0


def test_session_after_up_wants_every_one_of_the_last_closes_to_rise() -> None:
    assert SessionAfterUp(1).target(closes(9, 10)) == 1.0
    assert SessionAfterUp(1).target(closes(10, 10)) == 0.0
    assert SessionAfterUp(2).target(closes(8, 9, 10)) == 1.0
    assert SessionAfterUp(2).target(closes(9, 8, 10)) == 0.0


def test_all_of_is_long_only_where_every_rule_is() -> None:
    both = AllOf((SessionAbove(4), SessionAfterDown(1)))
    assert both.target(closes(5, 5, 10, 9)) == 1.0
    assert both.target(closes(5, 5, 9, 10)) == 0.0
    assert both.target(closes(20, 5, 10, 9)) == 0.0


@pytest.mark.parametrize("window", [6, 20])
def test_bollinger_reversion_agrees_with_a_forward_replay_in_fractions(window: int) -> None:
    bars = bundled("sp500")[2400:2700]
    rule = BollingerReversion(window)
    assert [rule.target(bars[:count]) for count in range(2 * window, 300)] == [
        replayed_bollinger(bars[count - 2 * window : count], window)
        for count in range(2 * window, 300)
    ]


@pytest.mark.parametrize("window", [3, 20])
def test_breakout_agrees_with_a_forward_replay(window: int) -> None:
    bars = bundled("sp500")[2400:2700]
    rule = Breakout(window)
    assert [rule.target(bars[:count]) for count in range(2 * window, 300)] == [
        replayed_breakout(bars[count - 2 * window : count], window)
        for count in range(2 * window, 300)
    ]


def replayed_bollinger(bars: Sequence[Bar], window: int) -> float:
    """The rule told forwards: flat a window ago, then in and out as the bands say."""
    position = 0.0
    for last in range(window, len(bars)):
        values = [Fraction(each.close_cents) for each in bars[last - window + 1 : last + 1]]
        mean = sum(values) / window
        variance = sum((value - mean) ** 2 for value in values) / window
        if values[-1] >= mean:
            position = 0.0
        elif (mean - values[-1]) ** 2 > 4 * variance:
            position = 1.0
    return position


def replayed_breakout(bars: Sequence[Bar], window: int) -> float:
    """The rule told forwards: flat a window ago, then in and out as the channels say."""
    position = 0.0
    for last in range(window, len(bars)):
        close = bars[last].close_cents
        if close > max(each.high_cents for each in bars[last - window : last]):
            position = 1.0
        elif close < min(each.low_cents for each in bars[last - window // 2 : last]):
            position = 0.0
    return position


@every_rule
def test_a_rule_is_made_again_from_its_name(rule: Rule) -> None:
    assert named(rule.name) == rule


@pytest.mark.parametrize("form", FAMILIES)
def test_every_family_can_be_named(form: str) -> None:
    name = form.replace("#", "10", 1).replace("#", "20")
    assert named(name).name == name


def test_names_carry_the_windows() -> None:
    assert named("bollinger_mr_w20") == BollingerReversion(20)
    assert named("sma_cross_f20_s50") == SmaCross(fast=20, slow=50)
    assert named("session_above_w100_and_below_w5") == AllOf((SessionAbove(100), SessionBelow(5)))


def test_holding_and_session_rules_are_told_apart() -> None:
    assert [rule.flat_at_close for rule in RULES] == [
        rule.name.startswith("session_") for rule in RULES
    ]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "bollinger_mr",
        "bollinger_mr_w",
        "bollinger_mr_w0",
        "bollinger_mr_w5",
        "bollinger_mr_w020",
        "bollinger_mr_w-20",
        "bollinger_mr_w20 ",
        "bollinger_mr_w\u0662\u0660",
        "bollinger_mr_w10000",
        "sma_cross_f50_s20",
        "sma_cross_f50_s50",
        "momentum_w10_and_w20",
        "momentum_w10_and_above_w20",
        "session_above_w50_and_",
        "session_above_w50_and_momentum_w10",
        "session_above_w50_and_session_below_w5",
        "_and_above_w50",
        "buy_and_hold_and_above_w50",
        "buy",
    ],
)
def test_a_name_that_is_not_understood_is_refused(name: str) -> None:
    with pytest.raises(UnknownRule, match="bollinger_mr_w#") as caught:
        named(name)
    assert caught.value.name == name
    assert repr(name) in str(caught.value)


def test_sizes_that_mean_nothing_are_refused() -> None:
    for make in (
        lambda: BollingerReversion(5),
        lambda: SmaCross(0, 5),
        lambda: SmaCross(5, 5),
        lambda: Breakout(1),
        lambda: Momentum(0),
        lambda: SessionAbove(1),
        lambda: SessionBelow(1),
        lambda: SessionAfterDown(0),
        lambda: SessionAfterUp(0),
        lambda: AllOf((SessionAbove(5),)),
    ):
        with pytest.raises(ValueError, match="is below"):
            make()


def test_all_of_refuses_a_rule_that_holds_overnight() -> None:
    with pytest.raises(ValueError, match="momentum_w10 holds overnight"):
        AllOf((SessionAbove(50), Momentum(10)))


def test_a_rule_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Momentum(10).window = 20  # type: ignore[misc]


def test_the_line_up_has_twelve_names_and_both_indices() -> None:
    assert len({strategy.name for strategy in lineup.LINE_UP}) == 12
    assert {strategy.symbol for strategy in lineup.LINE_UP} == set(SYMBOLS)
    assert all(strategy.name == strategy.rule.name for strategy in lineup.LINE_UP)


def test_the_line_up_has_every_family_asked_for() -> None:
    families = {type(strategy.rule) for strategy in lineup.LINE_UP}
    assert families >= {
        BollingerReversion,
        SmaCross,
        Breakout,
        Momentum,
        BuyAndHold,
        SessionAbove,
        SessionAfterUp,
        AllOf,
    }


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_the_default_window_lies_within_the_prices_with_room_to_warm_up(symbol: str) -> None:
    days = [each.day for each in bundled(symbol)]
    first = days.index(lineup.DEFAULT_START)
    assert first >= max(strategy.rule.warmup for strategy in lineup.LINE_UP)
    assert days[first + lineup.DEFAULT_SESSIONS - 1] == datetime.date(2013, 2, 19)
