"""The gates: what is accepted, what is repeated, what is held back, and what is said about it
later.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundops.actors.alert import core
from fundops.actors.alert.core import (
    Alert,
    AlertSettings,
    Decided,
    Gates,
    accepted,
    cleaned,
    repaired,
)
from fundops.runtime import ConfigError, Rejected
from fundops.wire.alert import AlertOutcome, Category, Level, SendAlert
from fundops.wire.errors import AlertRefused

INFO, WARNING, CRITICAL = Level.INFO, Level.WARNING, Level.CRITICAL
QUEUED, RATE_SUPPRESSED, DEDUPED = (
    AlertOutcome.QUEUED,
    AlertOutcome.RATE_SUPPRESSED,
    AlertOutcome.DEDUPED,
)
GENERAL, RECOVERY, KILL_SWITCH = Category.GENERAL, Category.RECOVERY, Category.KILL_SWITCH


def us(seconds: float) -> int:
    return round(seconds * 1_000_000)


def alert(
    at_s: float,
    level: Level = INFO,
    category: Category = GENERAL,
    key: str | None = None,
    resolves: bool = False,
) -> Alert:
    return Alert(us(at_s), level, category, "title", "message", None, key, resolves)


class Decider:
    """Decides and applies alerts one at a time, as an actor without storage would."""

    def __init__(self, **settings: Any) -> None:
        self.gates = Gates(AlertSettings(**settings))
        self.history: list[Decided] = []

    def take(self, *alerts: Alert) -> list[AlertOutcome | None]:
        outcomes: list[AlertOutcome | None] = []
        draft = self.gates.draft(QUEUED)
        for one in alerts:
            draft.pass_time(one.at_us)
            decided = draft.decide(one)
            outcomes.append(None if decided is None else decided.outcome)
        self._apply(draft)
        return outcomes

    def take_one(self, one: Alert) -> Decided:
        self.take(one)
        return self.history[-1]

    def pass_time(self, at_s: float) -> list[Decided]:
        draft = self.gates.draft(QUEUED)
        draft.pass_time(us(at_s))
        self._apply(draft)
        return draft.decided

    def _apply(self, draft: core.Draft) -> None:
        self.gates.apply(draft)
        self.history += draft.decided


# -- settings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("per_category", 0),
        ("per_category", True),
        ("per_category", 2.5),
        ("queue_max", 0),
        ("window_s", 0),
        ("window_s", float("nan")),
        ("window_s", float("inf")),
        ("repeat_s", -1),
        ("repeat_s", "4h"),
        ("critical_lane", "both"),
        ("suppression_summary", "no"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        AlertSettings(**{field: value})
    assert caught.value.field == field


# -- validate


def test_long_texts_are_cut_visibly_and_exact_ones_stay() -> None:
    request = SendAlert(INFO, GENERAL, "t" * 257, "m" * 4_097, strategy="s" * 300)
    taken = accepted(request, 7)
    assert taken.title == "t" * 255 + "…"
    assert taken.message == "m" * 4_095 + "…"
    assert taken.strategy is not None
    assert len(taken.strategy) == 256
    assert taken.at_us == 7
    assert accepted(SendAlert(INFO, GENERAL, "t" * 256, "m" * 4_096), 0).title == "t" * 256


def test_control_characters_and_lone_surrogates_are_replaced() -> None:
    assert cleaned("a\nb\tc\x00d\x1be\x7ff\x9bg\ud800h", 100) == "a b c�d�e�f�g�h"
    assert cleaned("naïve – 数 🚀", 100) == "naïve – 数 🚀"


@given(st.text(st.characters(codec=None), max_size=400), st.integers(1, 300))
def test_a_cleaned_text_is_short_printable_and_encodable(text: str, limit: int) -> None:
    clean = cleaned(text, limit)
    assert len(clean) == min(len(text), limit)
    assert clean.encode().decode() == clean
    assert not any(ord(one) < 32 or 0x7F <= ord(one) < 0xA0 for one in clean)
    assert cleaned(clean, limit) == clean


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("title", {"title": ""}),
        ("title", {"title": " \t\n"}),
        ("title", {"title": None}),
        ("message", {"message": 5}),
        ("level", {"level": "INFO"}),
        ("category", {"category": "GENERAL"}),
        ("strategy", {"strategy": 1}),
        ("dedup_key", {"dedup_key": 1}),
        ("dedup_key", {"resolves": True}),
        ("dedup_key", {"resolves": True, "dedup_key": ""}),
    ],
)
def test_what_cannot_be_repaired_is_refused_naming_the_field(
    field: str, changed: dict[str, Any]
) -> None:
    request = SendAlert(
        **{"level": INFO, "category": GENERAL, "title": "t", "message": "", **changed}
    )
    with pytest.raises(AlertRefused) as caught:
        accepted(request, 0)
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, Rejected)


def test_a_stored_request_is_repaired_since_it_can_no_longer_be_refused() -> None:
    taken = repaired(Alert(0, INFO, RECOVERY, " ", "m\n", None, "", resolves=True))
    assert (taken.title, taken.message, taken.dedup_key, taken.resolves) == (
        "RECOVERY",
        "m ",
        None,
        False,
    )


def test_two_keys_that_differ_only_in_what_is_cut_stay_two() -> None:
    first, second = (repaired(alert(0, key="k" * 300 + end)).dedup_key for end in "ab")
    assert first is not None
    assert second is not None
    assert first != second
    assert len(first) <= core.NAME_MAX
    assert repaired(alert(0, key=first)).dedup_key == first


# -- rate


def test_the_sixth_in_a_minute_is_suppressed() -> None:
    assert Decider().take(*(alert(at) for at in range(6))) == [QUEUED] * 5 + [RATE_SUPPRESSED]


def test_an_admission_stops_counting_exactly_one_window_later() -> None:
    gates = Decider(suppression_summary=False)
    gates.take(*[alert(0)] * 5)
    assert gates.take(alert(59.999)) == [RATE_SUPPRESSED]
    assert gates.take(alert(59.999_999)) == [RATE_SUPPRESSED]
    assert gates.take(alert(60.000)) == [QUEUED]


def test_a_burst_across_the_minute_counts_as_one() -> None:
    times = [59.90, 59.91, 59.92, 59.93, 59.94, 60.10, 60.11, 60.12, 60.13, 60.14]
    assert Decider().take(*map(alert, times)) == [QUEUED] * 5 + [RATE_SUPPRESSED] * 5


def test_one_a_second_for_three_minutes_lets_fifteen_through() -> None:
    gates = Decider(suppression_summary=False)
    outcomes = gates.take(*(alert(at) for at in range(180)))
    assert outcomes.count(QUEUED) == 15
    assert outcomes.count(RATE_SUPPRESSED) == 165


def test_suppressed_alerts_do_not_prolong_the_suppression() -> None:
    gates = Decider(suppression_summary=False)
    gates.take(*[alert(0)] * 5, *[alert(at) for at in range(1, 60)])
    assert gates.take(alert(60)) == [QUEUED]


def test_each_category_has_its_own_budget() -> None:
    outcomes = Decider().take(
        *(alert(0, category=category) for category in Category for _ in range(5))
    )
    assert outcomes == [QUEUED] * 50


def test_critical_alerts_have_a_lane_of_their_own() -> None:
    burst = [alert(0, INFO, RECOVERY)] * 5 + [alert(0, CRITICAL, RECOVERY)] * 6
    assert Decider().take(*burst) == [QUEUED] * 10 + [RATE_SUPPRESSED]
    assert Decider(critical_lane="shared").take(*burst) == [QUEUED] * 5 + [RATE_SUPPRESSED] * 6


def test_the_first_kill_switch_of_an_episode_always_goes_out() -> None:
    gates = Decider(critical_lane="shared", suppression_summary=False)
    gates.take(*[alert(0, WARNING, KILL_SWITCH)] * 5)
    assert gates.take(*[alert(1, CRITICAL, KILL_SWITCH)] * 2) == [QUEUED, RATE_SUPPRESSED]
    gates.take(*[alert(60, WARNING, KILL_SWITCH)] * 5)
    assert gates.take(alert(60.999, CRITICAL, KILL_SWITCH)) == [RATE_SUPPRESSED]
    assert gates.take(alert(61, CRITICAL, KILL_SWITCH)) == [QUEUED]


times_us = st.lists(st.integers(0, us(300)), max_size=60)


def admitted(instants: list[int], limit: int = 5) -> list[int]:
    gates = Decider(suppression_summary=False, per_category=limit)
    return [at for at in instants if gates.take(Alert(at, INFO, GENERAL, "t", "")) == [QUEUED]]


@given(times_us, st.integers(1, 6))
def test_the_window_agrees_with_a_naive_oracle(instants: list[int], limit: int) -> None:
    expected: list[int] = []
    for at in sorted(instants):
        if sum(at - us(60) < earlier <= at for earlier in expected) < limit:
            expected.append(at)
    assert admitted(sorted(instants), limit) == expected


@given(st.lists(st.integers(0, us(110)), max_size=60))
def test_no_half_open_window_ever_holds_more_than_five_whatever_the_order(
    instants: list[int],
) -> None:
    let_out = admitted(instants)
    for start in let_out:
        assert sum(start <= one < start + us(60) for one in let_out) <= 5


@given(times_us)
def test_no_half_open_window_ever_holds_more_than_five(instants: list[int]) -> None:
    let_out = admitted(sorted(instants))
    for start in let_out:
        assert sum(start <= one < start + us(60) for one in let_out) <= 5


def test_a_clock_that_was_set_back_does_not_block_until_the_future_has_passed() -> None:
    gates = Decider(suppression_summary=False)
    gates.take(*[alert(1_000_000)] * 5)
    assert gates.take(alert(0)) == [QUEUED]


# -- the summary


def test_twelve_at_once_give_one_summary_of_seven_a_minute_later() -> None:
    gates = Decider()
    gates.take(*[alert(0)] * 12)
    assert gates.pass_time(59.999_999) == []
    (summary,) = gates.pass_time(60)
    assert summary.alert.at_us == us(60)
    assert "7" in summary.alert.title
    assert summary.outcome is QUEUED
    assert gates.take(*[alert(60)] * 5) == [QUEUED] * 5
    assert gates.pass_time(120) == []


def test_the_summary_counts_what_is_held_back_until_it_is_due() -> None:
    gates = Decider()
    gates.take(*[alert(0)] * 6, *[alert(59.999)] * 3)
    (summary,) = gates.pass_time(1_000)
    assert summary.alert.at_us == us(60)
    assert summary.alert.title.startswith("4 GENERAL")


def test_summaries_come_at_their_own_instants_before_what_comes_later() -> None:
    gates = Decider()
    gates.take(*[alert(0, category=RECOVERY)] * 6, *[alert(5)] * 7, alert(200))
    tail = [(one.alert.at_us, one.alert.category) for one in gates.history[-3:]]
    assert tail == [(us(60), RECOVERY), (us(65), GENERAL), (us(200), GENERAL)]


def test_the_summary_can_be_switched_off() -> None:
    gates = Decider(suppression_summary=False)
    gates.take(*[alert(0)] * 12)
    assert gates.pass_time(1_000) == []


# -- dedup


def test_a_key_is_sent_once_again_when_worse_and_resolved_once() -> None:
    gates = Decider()
    assert gates.take_one(alert(0, key="k")).outcome is QUEUED
    second = gates.take_one(alert(10, key="k"))
    assert (second.outcome, second.count) == (DEDUPED, 2)
    worse = gates.take_one(alert(15, CRITICAL, key="k"))
    assert (worse.outcome, worse.count) == (QUEUED, 3)
    assert gates.take(alert(20, key="k", resolves=True)) == [QUEUED]
    assert gates.take(alert(21, key="k", resolves=True)) == [None]
    again = gates.take_one(alert(22, key="k"))
    assert (again.outcome, again.count) == (QUEUED, 1)


def test_an_open_key_repeats_after_four_hours_and_not_a_microsecond_earlier() -> None:
    gates = Decider()
    gates.take(alert(0, key="k"))
    assert gates.take(alert(14_399.999_999, key="k")) == [DEDUPED]
    assert gates.take(alert(14_400, key="k")) == [QUEUED]
    assert gates.take(alert(14_401, key="k")) == [DEDUPED]


def test_a_lower_level_of_an_open_key_is_no_news() -> None:
    gates = Decider()
    gates.take(alert(0, CRITICAL, key="k"))
    assert gates.take(alert(1, WARNING, key="k"), alert(2, CRITICAL, key="k")) == [DEDUPED, DEDUPED]


def test_a_firing_that_nobody_heard_does_not_silence_the_next_one() -> None:
    gates = Decider(suppression_summary=False)
    gates.take(*[alert(0)] * 5)
    assert gates.take(alert(1, key="k")) == [RATE_SUPPRESSED]
    assert gates.take(alert(2, key="k", resolves=True)) == [None]
    assert gates.take(alert(60, key="k")) == [QUEUED]


def test_a_resolution_that_nobody_heard_still_closes_its_key() -> None:
    gates = Decider(suppression_summary=False)
    gates.take(alert(0, key="k"), *[alert(0)] * 4)
    assert gates.take(alert(1, key="k", resolves=True)) == [RATE_SUPPRESSED]
    assert gates.take(alert(60, key="k")) == [QUEUED]


def test_deduplicated_alerts_use_no_budget() -> None:
    gates = Decider()
    gates.take(alert(0, key="k"), *[alert(1, key="k")] * 20)
    assert gates.take(*[alert(2)] * 5) == [QUEUED] * 4 + [RATE_SUPPRESSED]


def test_keys_are_independent() -> None:
    assert Decider().take(alert(0, key="a"), alert(0, key="b")) == [QUEUED, QUEUED]


def test_the_key_sent_longest_ago_is_forgotten_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(core, "OPEN_KEYS_MAX", 3)
    gates = Decider(per_category=100)
    gates.take(*(alert(0, key=key) for key in "abc"))
    gates.take(alert(1, CRITICAL, key="a"))  # sent again: b is now the oldest
    assert gates.take(alert(2, key="b")) == [DEDUPED]  # which is not sent, and makes it no younger
    gates.take(alert(3, key="d"))
    assert gates.take(*(alert(4, key=key) for key in "acd")) == [DEDUPED] * 3
    assert gates.take(alert(5, key="b")) == [QUEUED]


# -- drafts


def test_a_draft_that_is_dropped_leaves_no_trace() -> None:
    gates = Decider()
    dropped = gates.gates.draft(QUEUED)
    for _ in range(8):
        dropped.decide(alert(0, key="k"))
        dropped.decide(alert(0))
    assert gates.take(alert(0, key="k"), *[alert(0)] * 5) == [QUEUED] * 5 + [RATE_SUPPRESSED]


alerts = st.builds(
    Alert,
    st.integers(0, us(400)),
    st.sampled_from(Level),
    st.sampled_from([GENERAL, KILL_SWITCH]),
    st.just("t"),
    st.just(""),
    st.none(),
    st.sampled_from([None, "a", "b"]),
    st.booleans(),
)


@given(st.lists(st.tuples(alerts, st.booleans()), max_size=40), st.sampled_from(["own", "shared"]))
def test_what_is_decided_does_not_depend_on_how_the_work_is_cut(
    steps: list[tuple[Alert, bool]], lane: str
) -> None:
    ordered = sorted((repaired(one) for one, _ in steps), key=lambda one: one.at_us)
    at_once, in_pieces = Decider(critical_lane=lane), Decider(critical_lane=lane)
    at_once.take(*ordered)
    piece: list[Alert] = []
    for one, (_, cut) in zip(ordered, steps, strict=True):
        piece.append(one)
        if cut:
            in_pieces.take(*piece)
            piece = []
    in_pieces.take(*piece)
    assert in_pieces.history == at_once.history


# -- held back, and heard later


def titled(at_s: float, title: str, level: Level = CRITICAL) -> Alert:
    return Alert(us(at_s), level, RECOVERY, title, "message", title, f"recovery:{title}")


def heard(gates: Decider) -> list[tuple[float, str]]:
    return [
        (one.alert.at_us / 1e6, one.alert.title)
        for one in gates.history
        if one.outcome is QUEUED and one.in_budget
    ]


def test_fifty_failures_at_once_are_all_heard_five_a_minute() -> None:
    gates = Decider()
    names = [f"s{number:02}" for number in range(50)]
    gates.take(*(titled(0, name) for name in names))
    gates.pass_time(3_600)
    assert heard(gates) == [(60 * (place // 5), name) for place, name in enumerate(names)]
    assert not gates.pass_time(86_400)


def test_of_those_that_wait_the_worst_news_goes_first() -> None:
    gates = Decider(critical_lane="shared")
    gates.take(*[alert(0, category=RECOVERY)] * 5)
    gates.take(titled(1, "info", INFO), titled(2, "warning", WARNING), titled(3, "critical"))
    gates.pass_time(60)
    assert [title for _, title in heard(gates)[5:]] == ["critical", "warning", "info"]


def test_an_alert_that_waits_says_how_long_it_was_held_back() -> None:
    gates = Decider()
    gates.take(*[alert(0)] * 5, alert(10, key="k"))
    late = gates.pass_time(60)[-1]
    assert late.alert.message == "message (held back for 50 s by the rate limit)"


def test_what_is_over_before_it_was_heard_is_not_heard() -> None:
    gates = Decider(suppression_summary=False)
    gates.take(*[alert(0)] * 5, alert(1, key="k"))
    assert gates.take(alert(2, key="k", resolves=True)) == [None]
    assert gates.pass_time(3_600) == []


def test_a_resolution_that_was_held_back_is_told_later() -> None:
    gates = Decider(suppression_summary=False)
    gates.take(alert(0, key="k"), *[alert(0)] * 4)
    assert gates.take(alert(1, key="k", resolves=True)) == [RATE_SUPPRESSED]
    [late] = gates.pass_time(60)
    assert (late.alert.resolves, late.outcome) == (True, QUEUED)
    assert gates.take(alert(61, key="k", resolves=True)) == [None]


def test_a_key_that_fires_again_while_its_resolution_waits_is_told_again() -> None:
    gates = Decider(suppression_summary=False)
    gates.take(alert(0, CRITICAL, key="k"), *[alert(0)] * 5)
    gates.take(alert(1, key="k", resolves=True))
    assert gates.take(alert(2, CRITICAL, key="k")) == [QUEUED]
    assert gates.pass_time(3_600) == []  # the resolution is no longer true


@pytest.mark.parametrize("pause_s", [0, 30, 1_800])
def test_a_resolved_key_is_told_again_every_time(pause_s: int) -> None:
    gates = Decider(per_category=100)
    for number in range(10):
        at_s = number * (pause_s + 2)
        assert gates.take(alert(at_s, CRITICAL, key="entitled:s")) == [QUEUED]
        resolution = alert(at_s + 1 + pause_s, key="entitled:s", resolves=True)
        assert gates.take(resolution) == [QUEUED]


def test_a_waiting_alert_is_replaced_by_its_newer_text_and_not_by_a_lower_level() -> None:
    gates = Decider(critical_lane="shared", suppression_summary=False)
    gates.take(*[alert(0, category=RECOVERY)] * 5)
    for text, level in (("first", WARNING), ("second", CRITICAL), ("third", INFO)):
        key = "recovery:s"
        gates.take(Alert(us(1), level, RECOVERY, text, "message", None, key))
    assert [one.alert.title for one in gates.pass_time(60)] == ["second"]


def test_no_more_wait_than_there_is_room_for_and_critical_ones_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(core, "WAITING_MAX", 3)
    gates = Decider(critical_lane="shared", suppression_summary=False)
    gates.take(*[alert(0, category=RECOVERY)] * 5)
    gates.take(*(titled(1, f"i{number}", INFO) for number in range(3)))
    gates.take(*(titled(2, f"c{number}") for number in range(2)))
    assert [one.alert.title for one in gates.pass_time(60)] == ["c0", "c1", "i2"]


def test_a_summary_names_levels_and_the_first_titles() -> None:
    gates = Decider()
    gates.take(*(titled(0, f"s{number}") for number in range(10)))
    [summary] = [one.alert for one in gates.pass_time(60) if not one.in_budget]
    assert summary.title == "5 RECOVERY suppressed"
    assert "5 CRITICAL" in summary.message
    assert "s5; s6; s7." in summary.message
    assert "s8" not in summary.message


def test_a_kill_is_heard_whatever_a_host_sent_in_its_category() -> None:
    gates = Decider()
    gates.take(*[alert(0, CRITICAL, KILL_SWITCH)] * 20)
    assert gates.take(alert(1, CRITICAL, KILL_SWITCH, key="kill")) == [QUEUED]
    assert gates.take(alert(2, CRITICAL, KILL_SWITCH, key="kill")) == [DEDUPED]


def test_six_promotions_do_not_hide_a_demotion_from_real_money() -> None:
    promotion = Category.PROMOTION
    gates = Decider()
    gates.take(*[alert(0, INFO, promotion)] * 6)
    assert gates.take(alert(10, CRITICAL, promotion)) == [QUEUED]


@given(st.lists(alerts, max_size=60))
def test_no_window_holds_more_than_five_of_a_lane_with_those_that_waited(
    given_alerts: list[Alert],
) -> None:
    gates = Decider()
    for one in sorted(map(repaired, given_alerts), key=lambda one: one.at_us):
        gates.take(one)
    gates.pass_time(10_000)
    for category in (GENERAL, KILL_SWITCH):
        for critical in (False, True):
            let_out = [
                one.alert.at_us
                for one in gates.history
                if one.in_budget
                and one.alert.category is category
                and (one.alert.level is CRITICAL) is critical
            ]
            if category is KILL_SWITCH and critical:
                continue  # the first of each episode is beyond the limit
            for start in let_out:
                assert sum(start <= one < start + us(60) for one in let_out) <= 5


@given(st.lists(alerts, max_size=60))
def test_a_state_that_lasts_is_heard_in_the_end(given_alerts: list[Alert]) -> None:
    gates = Decider()
    last: dict[str, Alert] = {}
    for one in sorted(map(repaired, given_alerts), key=lambda one: one.at_us):
        gates.take(one)
        if one.dedup_key is not None:
            last[one.dedup_key] = one
    gates.pass_time(10_000)
    for key, one in last.items():
        told = [
            each.alert for each in gates.history if each.alert.dedup_key == key and each.in_budget
        ]
        if not one.resolves:
            assert told, "a firing was never heard"
        elif told:
            assert told[-1].resolves, "a resolution was never heard"
