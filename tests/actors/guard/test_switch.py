"""The kill switch as a pure state machine: each move by plain calls, its rules in every state."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundops.actors.guard.switch import (
    NO_STOP_ALL,
    NOT_NAMED,
    NOT_TOLD,
    Act,
    Asked,
    Commit,
    EndLeases,
    Engage,
    Event,
    Found,
    Looked,
    Marked,
    Passed,
    ReadMarker,
    Released,
    StopAll,
    StopStrategies,
    Switch,
    SwitchRules,
    TellConfirmed,
    TellEngaged,
    TellUnconfirmed,
    Worded,
    WriteMarker,
    decide,
    release_refusal,
)
from fundops.wire.controller import KillAction, StopReport
from fundops.wire.errors import KillSwitchNotEngaged, StopNotConfirmed
from fundops.wire.guard import KillStatus, LatchStored, StopEnded, StopReported

NONE_OPEN = StopReport(0, 0)


class Played:
    """A switch that is moved by hand; every commit and every marker succeeds unless told."""

    def __init__(self, **rules: Any) -> None:
        self.switch = Switch(SwitchRules(**rules))
        self.now_s = 0.0

    def move(self, event: Event) -> tuple[Act, ...]:
        self.switch, acts = decide(self.switch, event, self.now_s)
        return acts

    def engage(self, *names: str, by_itself: bool = False) -> tuple[Act, ...]:
        acts = self.move(Engage(1, by_itself))
        acts += self.move(Worded("r", "ann"))
        self.move(Asked(frozenset(names or ("a",))))
        return acts

    def answer(self, report: StopReport | None, *names: str) -> tuple[Act, ...]:
        status = self.switch.status
        assert status.action is not None
        return self.move(
            StopEnded(
                status.action,
                report,
                "" if report else "it hangs",
                self.switch.engagement,
                names or ("a",),
            )
        )

    def push(self, report: StopReport) -> tuple[Act, ...]:
        return self.move(StopReported(report, self.switch.engagement))

    def look(self, *running: str, **more: Any) -> tuple[Act, ...]:
        return self.move(Looked(more.pop("names", ("a",)), running, **more))

    @property
    def state(self) -> str:
        return self.switch.status.state


# -- engaging


def test_latch_and_leases_come_before_every_word() -> None:
    play = Played()
    assert play.move(Engage(7)) == (EndLeases(),)
    assert play.switch.status == KillStatus("ENGAGING", "", "", 7, action="halt")
    acts = play.move(Worded("loss", "ann"))
    assert acts == (WriteMarker(), StopAll("halt"), Commit(), TellEngaged())
    assert (play.switch.status.reason, play.switch.status.by) == ("loss", "ann")


def test_an_engagement_without_words_gets_some() -> None:
    play = Played()
    play.move(Engage(1))
    play.move(Worded("", ""))
    assert (play.switch.status.reason, play.switch.status.by) == ("no reason given", "unknown")


def test_a_second_engagement_keeps_the_first_words() -> None:
    play = Played()
    play.engage()
    before = play.switch
    assert play.move(Engage(2)) == ()
    assert play.move(Worded("another", "bob")) == ()
    assert play.switch == before


def test_without_stop_all_the_stop_is_unconfirmed_at_once() -> None:
    play = Played(can_stop_all=False)
    assert play.engage() == (
        EndLeases(),
        WriteMarker(),
        Commit(),
        TellEngaged(),
        TellUnconfirmed(),
    )
    assert (play.state, play.switch.status.problem) == ("UNCONFIRMED", NO_STOP_ALL)
    play.push(NONE_OPEN)
    assert play.state == "ENGAGED"


def test_a_fund_that_observes_tells_the_engine_nothing_and_never_confirms() -> None:
    play = Played(observing=True)
    acts = play.engage()
    assert not any(isinstance(act, StopAll) for act in acts)
    assert EndLeases() in acts
    play.look("a")
    acts = play.look("a")
    play.push(NONE_OPEN)
    assert not any(isinstance(act, StopAll | StopStrategies) for act in acts)
    assert (play.state, play.switch.status.problem) == ("UNCONFIRMED", NOT_TOLD)
    assert play.switch.status.open_orders == 0


# -- the engine's answers


# Row O5 of the worked cases: a person engages, and stop_all answers in turn.
ANSWERS = (StopReport(0, 2), StopReport(0, 1), StopReport(0, 0))


@pytest.mark.parametrize(
    ("action", "states"),
    [
        ("halt", ["ENGAGED"] * 3),
        ("flatten", ["UNCONFIRMED", "UNCONFIRMED", "ENGAGED"]),
        ("freeze", ["ENGAGED"] * 3),
    ],
)
def test_each_action_is_confirmed_by_what_it_must_close(
    action: KillAction, states: list[str]
) -> None:
    play = Played(action=action)
    play.engage()
    seen = []
    for report in ANSWERS:
        play.answer(report)
        seen.append(play.state)
    assert seen == states


@pytest.mark.parametrize("action", ["halt", "flatten"])
def test_an_open_order_leaves_the_stop_unconfirmed(action: KillAction) -> None:
    play = Played(action=action)
    play.engage()
    assert TellUnconfirmed() in play.answer(StopReport(2, 0))
    assert (play.state, play.switch.status.problem) == ("UNCONFIRMED", "2 orders still open")


def test_freeze_is_confirmed_by_any_answer() -> None:
    play = Played(action="freeze")
    play.engage()
    play.answer(StopReport(7, 7, 7))
    assert play.state == "ENGAGED"


def test_protective_orders_stay_and_are_kept_in_the_status() -> None:
    play = Played()
    play.engage()
    assert TellConfirmed() in play.answer(StopReport(0, 3, 2))
    assert (play.state, play.switch.status.protective_orders) == ("ENGAGED", 2)


def test_a_call_that_fails_is_asked_again_at_each_look_until_it_is_confirmed() -> None:
    play = Played()
    play.engage()
    play.answer(None)
    assert (play.state, play.switch.status.problem) == ("UNCONFIRMED", "it hangs")
    for _ in range(3):
        assert StopAll("halt") in play.look()
    play.answer(NONE_OPEN)
    assert play.look() == ()


def test_the_answer_of_an_earlier_engagement_confirms_nothing() -> None:
    play = Played()
    play.engage()
    late = StopEnded("halt", NONE_OPEN, "", play.switch.engagement, ("a",))
    play.move(Released())
    play.engage()
    play.move(late)
    assert play.state == "ENGAGING"


def test_a_report_pushed_before_an_engagement_confirms_nothing_of_it() -> None:
    play = Played(can_stop_all=False)
    pushed = StopReported(NONE_OPEN, play.switch.engagement)
    play.engage()
    play.move(pushed)
    assert play.state == "UNCONFIRMED"
    pushed = StopReported(NONE_OPEN, play.switch.engagement)
    play.move(Released())
    play.engage()
    play.move(pushed)
    assert (play.state, play.switch.status.open_orders) == ("UNCONFIRMED", None)


def test_a_late_answer_still_counts() -> None:
    play = Played()
    play.engage()
    play.answer(None)
    play.answer(NONE_OPEN)
    assert play.state == "ENGAGED"


def test_an_answer_for_fewer_strategies_confirms_nothing() -> None:
    play = Played()
    play.engage("a", "b")
    play.answer(NONE_OPEN, "a")
    assert play.state == "ENGAGING"
    play.answer(NONE_OPEN, "a", "b", "c")
    assert play.state == "ENGAGED"


def test_before_the_engines_first_word_a_call_that_names_no_strategy_confirms_nothing() -> None:
    play = Played()
    play.engage()
    play.move(Asked(frozenset(), heard=False))
    play.move(StopEnded("halt", NONE_OPEN, "", play.switch.engagement, ()))
    assert (play.state, play.switch.status.open_orders) == ("ENGAGING", 0)
    assert StopAll("halt") in play.move(Passed(marker_there=True)), "each second, until it speaks"
    play.move(Asked(frozenset({"a"})))
    play.answer(NONE_OPEN)
    assert play.state == "ENGAGED"


def test_a_silent_engine_that_answers_without_a_name_leaves_the_stop_unconfirmed() -> None:
    play = Played()
    play.engage()
    play.move(Asked(frozenset(), heard=False))
    play.look(names=(), silent=True)
    assert play.state == "ENGAGING", "it has not answered yet"
    play.move(StopEnded("halt", NONE_OPEN, "", play.switch.engagement, ()))
    play.look(names=())
    assert play.state == "ENGAGING", "its first word may still come"
    acts = play.look(names=(), silent=True)
    assert {TellUnconfirmed(), StopAll("halt")} <= set(acts)
    assert (play.state, play.switch.status.problem) == ("UNCONFIRMED", NOT_NAMED)
    play.now_s = 60.0
    assert TellUnconfirmed() in play.move(Passed(marker_there=True)), "repeated while it lasts"


def test_a_switch_that_is_found_engaged_is_told_once_when_a_second_has_passed() -> None:
    play = Played()
    found = KillStatus("ENGAGED", "r", "ann", 1, open_orders=0, open_positions=0, action="halt")
    assert play.move(Found(found)) == (EndLeases(),)
    assert TellEngaged() in play.move(Passed(marker_there=True))
    assert TellEngaged() not in play.move(Passed(marker_there=True))
    assert TellEngaged() not in play.look()


def test_an_engine_that_has_no_strategy_confirms_its_stop() -> None:
    play = Played()
    play.engage()
    play.move(Asked(frozenset()))
    play.move(StopEnded("halt", NONE_OPEN, "", play.switch.engagement, ()))
    assert play.state == "ENGAGED"


def test_the_answer_of_a_call_that_this_life_did_not_make_confirms_nothing() -> None:
    play = Played()
    play.move(Found(KillStatus("ENGAGING", "r", "ann", 1, action="halt")))
    play.answer(NONE_OPEN)
    assert play.state == "ENGAGING"
    assert StopAll("halt") in play.move(Passed(marker_there=True))


def test_a_strategy_that_comes_into_scope_is_asked_for() -> None:
    play = Played()
    play.engage("a")
    play.answer(NONE_OPEN)
    assert play.look() == ()
    assert play.look(names=("a", "b")) == (StopAll("halt"),)


def test_a_confirmed_stop_that_opens_again_is_unconfirmed() -> None:
    play = Played()
    play.engage()
    play.answer(NONE_OPEN)
    assert TellUnconfirmed() in play.push(StopReport(1, 0))
    assert play.state == "UNCONFIRMED"


# -- what runs under the switch


def test_a_strategy_that_runs_on_is_told_at_each_look_and_leaves_it_unconfirmed() -> None:
    play = Played()
    play.engage()
    play.answer(NONE_OPEN)
    assert play.look("a") == (StopStrategies(("a",)),)
    assert play.state == "ENGAGED", "the word may be older than the stop"
    acts = play.look("a")
    assert StopStrategies(("a",)) in acts
    assert TellUnconfirmed() in acts
    assert play.switch.status.problem == "a running under the kill switch"
    play.answer(NONE_OPEN)
    assert play.state == "UNCONFIRMED", "a report does not outweigh what is seen"
    play.look()
    play.answer(NONE_OPEN)
    assert play.state == "ENGAGED"


def test_a_silent_host_gives_no_news_of_what_runs() -> None:
    play = Played()
    play.engage()
    play.answer(NONE_OPEN)
    for _ in range(3):
        assert play.look("a", silent=True) == ()


def test_under_freeze_no_strategy_is_told_to_stop() -> None:
    play = Played(action="freeze")
    play.engage()
    play.answer(NONE_OPEN)
    assert play.look("a") == play.look("a") == ()
    assert play.state == "ENGAGED"


# -- flatten


def test_the_guard_halts_and_flattens_only_when_the_breach_stands() -> None:
    play = Played(action="flatten", flatten_confirm_ticks=3)
    play.engage(by_itself=True)
    assert play.switch.status.action == "halt"
    play.answer(StopReport(0, 5))
    assert play.state == "ENGAGED"
    assert play.look(breaches=2) == ()
    assert StopAll("flatten") in play.look(breaches=3)
    assert (play.state, play.switch.status.action) == ("ENGAGING", "flatten")
    play.answer(StopReport(0, 5))
    assert play.state == "UNCONFIRMED"


def test_a_person_who_engages_after_the_guard_flattens_at_once() -> None:
    play = Played(action="flatten")
    play.engage(by_itself=True)
    play.answer(StopReport(0, 5))
    assert StopAll("flatten") in play.move(Engage(2))
    assert (play.state, play.switch.status.reason) == ("ENGAGING", "r")


def test_the_guard_that_engages_again_flattens_nothing() -> None:
    play = Played(action="flatten")
    play.engage(by_itself=True)
    before = play.switch
    assert play.move(Engage(2, by_itself=True)) == ()
    assert play.switch == before


@pytest.mark.parametrize("action", ["halt", "freeze"])
def test_a_breach_that_stands_closes_no_position_unless_that_is_configured(
    action: KillAction,
) -> None:
    play = Played(action=action)
    play.engage(by_itself=True)
    for breaches in (1, 2, 3, 4):
        play.look(breaches=breaches)
    assert play.switch.status.action == action


def test_a_flatten_is_begun_once_and_leaves_no_word_of_the_halt() -> None:
    play = Played(action="flatten")
    play.engage(by_itself=True)
    play.answer(None)
    assert play.switch.status.problem == "it hangs"
    play.look(breaches=3)
    assert (play.state, play.switch.status.problem) == ("ENGAGING", "")
    play.answer(NONE_OPEN)
    play.look(breaches=4)
    assert play.state == "ENGAGED"


def test_without_stop_all_a_report_alone_confirms_and_no_look_takes_that_back() -> None:
    play = Played(can_stop_all=False, action="flatten")
    play.engage(by_itself=True)
    play.push(NONE_OPEN)
    play.look(names=("a", "b"))
    assert play.state == "ENGAGED"
    play.look(breaches=3)
    assert (play.state, play.switch.status.problem) == ("UNCONFIRMED", NO_STOP_ALL)


def test_the_answer_of_the_halt_does_not_confirm_the_flatten() -> None:
    play = Played(action="flatten")
    play.engage(by_itself=True)
    play.look(breaches=3)
    play.move(StopEnded("halt", NONE_OPEN, "", play.switch.engagement, ("a",)))
    assert play.state == "ENGAGING"


# -- the alert that repeats


def test_an_unconfirmed_stop_is_told_every_minute_by_seconds_alone() -> None:
    play = Played()
    play.engage()
    play.answer(None)
    told = []
    for second in range(1, 181):
        play.now_s = second
        if TellUnconfirmed() in play.move(Passed(marker_there=True)):
            told.append(second)
    assert told == [60, 120, 180]


def test_a_strategy_newly_seen_running_is_told_at_once() -> None:
    play = Played()
    play.engage("a", "b")
    play.answer(NONE_OPEN, "a", "b")
    play.look("a", names=("a", "b"))
    assert TellUnconfirmed() in play.look("a", names=("a", "b"))
    assert TellUnconfirmed() not in play.look("a", names=("a", "b"))
    assert TellUnconfirmed() in play.look("a", "b", names=("a", "b"))


# -- marker and database


def test_a_marker_made_by_hand_is_read() -> None:
    assert Played().move(Passed(marker_there=True)) == (ReadMarker(),)
    assert Played().move(Passed(marker_there=False)) == ()


@pytest.mark.parametrize(("there", "written"), [(True, False), (False, True)])
def test_a_marker_is_written_again_while_it_is_missing_or_wrong(there: bool, written: bool) -> None:
    play = Played()
    play.engage()
    play.move(Marked(done=True))
    assert WriteMarker() not in play.move(Passed(marker_there=True))
    play.move(Marked(done=written))
    assert WriteMarker() in play.move(Passed(marker_there=there))


def test_one_commit_is_in_flight_and_the_last_state_follows_it() -> None:
    play = Played()
    play.engage()
    first = play.switch.status
    assert Commit() not in play.answer(NONE_OPEN)
    assert play.move(LatchStored(first, None)) == (Commit(),)
    assert play.move(LatchStored(play.switch.status, None)) == ()
    assert play.switch.stored == play.switch.status


def test_a_refused_commit_is_tried_again_a_second_later() -> None:
    play = Played()
    play.engage()
    assert play.move(LatchStored(play.switch.status, "disk full")) == ()
    assert Commit() in play.move(Passed(marker_there=True))


def test_a_stop_is_told_as_confirmed_once() -> None:
    play = Played()
    play.engage()
    assert TellConfirmed() in play.answer(NONE_OPEN)
    assert play.answer(NONE_OPEN) == ()


def test_a_fund_that_observes_does_not_take_an_earlier_confirmation_over() -> None:
    play = Played(observing=True)
    play.move(Found(KillStatus("ENGAGED", "r", "ann", 1, open_orders=0)))
    play.look()
    assert (play.state, play.switch.status.problem) == ("UNCONFIRMED", NOT_TOLD)


def test_without_stop_all_one_that_a_file_engages_is_unconfirmed_at_the_next_second() -> None:
    play = Played(can_stop_all=False)
    play.move(Found(KillStatus("ENGAGING", "r", "ann", 1)))
    acts = play.move(Passed(marker_there=True))
    assert (play.state, play.switch.status.problem) == ("UNCONFIRMED", NO_STOP_ALL)
    assert TellUnconfirmed() in acts


def test_words_alone_engage_nothing() -> None:
    play = Played()
    assert play.move(Worded("r", "ann")) == ()
    assert play.state == "OFF"


@pytest.mark.parametrize("state", ["OFF", "ENGAGING", "ENGAGED"])
def test_a_file_engages_whatever_state_it_names(state: Any) -> None:
    play = Played()
    play.move(Found(KillStatus(state, "r", "ann", 1, open_orders=0 if state == "OFF" else None)))
    assert play.state == "ENGAGING"


@pytest.mark.parametrize(
    ("found", "state", "action"),
    [
        (KillStatus("ENGAGED", "r", "ann", 1, 0, 2), "ENGAGED", "flatten"),
        # Without the counts of a report no engine has confirmed it.
        (KillStatus("ENGAGED", "r", "ann", 1), "ENGAGING", "flatten"),
        (KillStatus("OFF", "r", "ann", 1), "ENGAGING", "flatten"),
        (KillStatus("ENGAGED", "r", "fundops", 1), "ENGAGING", "halt"),
        (KillStatus("UNCONFIRMED", "r", "ann", 1, action="freeze"), "UNCONFIRMED", "freeze"),
    ],
)
def test_what_is_found_on_disk_means_engaged_and_the_engine_is_told(
    found: KillStatus, state: str, action: KillAction
) -> None:
    play = Played(action="flatten")
    assert play.move(Found(found)) == (EndLeases(),)
    assert (play.state, play.switch.status.action) == (state, action)
    assert StopAll(action) in play.move(Passed(marker_there=False))


# -- releasing


@pytest.mark.parametrize("state", ["ENGAGING", "UNCONFIRMED"])
def test_a_stop_that_is_not_confirmed_is_released_only_by_accepting_it(state: Any) -> None:
    status = KillStatus(state, "r", "ann", 1, problem="1 orders still open")
    refusal = release_refusal(status, accept_open_orders=False)
    assert isinstance(refusal, StopNotConfirmed)
    assert refusal.state == state
    assert release_refusal(status, accept_open_orders=True) is None


def test_only_an_engaged_switch_is_released() -> None:
    off = release_refusal(Switch().status, accept_open_orders=True)
    assert isinstance(off, KillSwitchNotEngaged)
    engaged = KillStatus("ENGAGED", "r", "ann", 1)
    assert release_refusal(engaged, accept_open_orders=False) is None


def test_a_release_is_stored_also_when_a_commit_is_in_flight() -> None:
    play = Played()
    play.engage()
    engaged = play.switch.status
    assert play.move(Released()) == ()
    assert play.move(LatchStored(engaged, None)) == (Commit(),)
    assert play.move(LatchStored(play.switch.status, None)) == ()


# -- the rules in every state

_REPORTS = st.builds(StopReport, st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))
_NAMES = st.lists(st.sampled_from("abc"), unique=True).map(tuple)
_ACTIONS = st.sampled_from(["halt", "flatten", "freeze"])
_EVENTS = st.one_of(
    st.builds(Engage, st.just(1), st.booleans()),
    st.builds(Worded, st.sampled_from(["", "r"]), st.just("ann")),
    st.builds(Looked, _NAMES, _NAMES, st.integers(0, 4), st.booleans()),
    st.builds(Passed, st.booleans()),
    st.builds(Asked, _NAMES.map(frozenset)),
    st.builds(Marked, st.booleans()),
    st.builds(
        StopEnded,
        _ACTIONS,
        st.none() | _REPORTS,
        st.just("it failed"),
        st.integers(0, 2),
        _NAMES,
    ),
    st.builds(StopReported, _REPORTS, st.integers(0, 2)),
    st.builds(LatchStored, st.just(KillStatus("OFF", "", "", None)), st.none() | st.just("no")),
)
_RULES = st.builds(SwitchRules, _ACTIONS, st.integers(1, 3), st.booleans(), st.booleans())


@settings(max_examples=300)
@given(_RULES, st.lists(_EVENTS, max_size=25))
def test_nothing_but_a_release_leads_to_off(rules: SwitchRules, events: list[Event]) -> None:
    switch = Switch(rules)
    for number, event in enumerate(events):
        was_engaged = switch.engaged
        switch, _ = decide(switch, event, number)
        assert switch.engaged or not was_engaged


@settings(max_examples=300)
@given(_RULES, st.lists(_EVENTS, max_size=25))
def test_it_is_confirmed_by_a_report_alone(rules: SwitchRules, events: list[Event]) -> None:
    switch = Switch(rules)
    for number, event in enumerate(events):
        before = switch.status.state
        switch, acts = decide(switch, event, number)
        if switch.status.state == "ENGAGED" != before:
            assert isinstance(event, StopEnded | StopReported)
            assert TellConfirmed() in acts
            assert not rules.observing
        if switch.status.state == "ENGAGED" and switch.status.action != "freeze":
            assert switch.status.open_orders == 0
        if switch.status.state == "UNCONFIRMED":
            assert switch.status.problem


@settings(max_examples=300)
@given(_RULES, st.lists(_EVENTS, max_size=25), _NAMES)
def test_each_look_at_an_unconfirmed_stop_asks_again(
    rules: SwitchRules, events: list[Event], names: tuple[str, ...]
) -> None:
    switch = Switch(rules)
    for number, event in enumerate(events):
        switch, _ = decide(switch, event, number)
    if not switch.engaged:
        return
    switch, acts = decide(switch, Looked(names, ()), 100)
    asks = any(isinstance(act, StopAll) for act in acts)
    if not rules.can_stop_all or rules.observing:
        assert not asks
    elif switch.status.state != "ENGAGED":
        assert asks
