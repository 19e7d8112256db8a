"""The book by plain calls: the worked cases, and invariants under any order of inputs."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fundops.actors.recovery.book import Book, Draft
from fundops.actors.recovery.record import Input, Record, attempt_id
from fundops.actors.recovery.rules import NO_PROGRESS
from fundops.actors.recovery.settings import RecoverySettings
from fundops.wire.alert import Category, Level
from fundops.wire.controller import StrategyState, StrategyStatus
from fundops.wire.recovery import AttemptEnded, AttemptLate, RecoveryEvent, RecoveryPhase

SECOND = 1_000_000
LITERAL = RecoverySettings(first_attempt="after_cooldown")
DEFAULT = RecoverySettings()

Restart = Callable[
    [int], str | None
]  # attempt number of this engine -> None: it returned, else its error


class Engine:
    """A book, and one strategy "alpha" whose restarts follow a script. Times are seconds."""

    def __init__(
        self, restart: Restart, settings: RecoverySettings = DEFAULT, book: Book | None = None
    ) -> None:
        self.book = book or Book(settings)
        self.restart = restart
        self.state: StrategyState = "running"
        self.retryable = True
        self.heartbeats = True
        self.heartbeat_us: int | None = None
        self.crash_after_s: float | None = None  # after a good restart
        self.crash_at_s = math.inf
        self.kill = False
        self.attempts: list[float] = []
        self.opened: list[float] = []
        self.drafts: list[Draft] = []

    @property
    def record(self) -> Record:
        return self.book.records["alpha"]

    def phase(self) -> RecoveryPhase:
        """The phase now. A type checker narrows an attribute, and not the answer of a call."""
        return self.record.phase

    def fail(self, *, retryable: bool = True) -> None:
        self.state, self.retryable = "failed", retryable

    def status(self, at_s: float) -> StrategyStatus:
        if self.state == "running" and at_s >= self.crash_at_s:
            self.state, self.crash_at_s = "failed", math.inf
        if self.state == "running" and self.heartbeats:
            self.heartbeat_us = round(at_s * SECOND)
        return StrategyStatus(
            "alpha",
            self.state,
            error="boom",
            retryable=self.retryable,
            heartbeat_us=self.heartbeat_us,
        )

    def check(self, at_s: float) -> Draft:
        draft = self.book.check([self.status(at_s)], self.kill, round(at_s * SECOND))
        self.take(draft, at_s)
        for order in draft.starts:
            self.attempts.append(at_s)
            error = self.restart(len(self.attempts))
            if error is None:
                self.state = "running"
                self.crash_at_s = (
                    at_s + self.crash_after_s if self.crash_after_s is not None else math.inf
                )
            self.hear(AttemptEnded(order.name, order.attempt_id, error, True), at_s)
        return draft

    def hear(self, report: AttemptEnded | AttemptLate, at_s: float) -> Draft:
        return self.take(self.book.hear(report, round(at_s * SECOND)), at_s)

    def take(self, draft: Draft, at_s: float) -> Draft:
        self.book.apply(draft)
        self.drafts.append(draft)
        self.opened += [at_s for event in draft.events if event.action == "opened"]
        return draft

    def poll(self, until_s: int, from_s: int = 0, every_s: int = 1) -> None:
        for at_s in range(from_s, until_s + 1, every_s):
            self.check(at_s)

    def events(self, action: str) -> list[RecoveryEvent]:
        return [event for draft in self.drafts for event in draft.events if event.action == action]

    def alerts(self, level: Level, category: Category = Category.RECOVERY) -> list[str]:
        return [
            alert.title
            for draft in self.drafts
            for alert in draft.alerts
            if (alert.level, alert.category, alert.resolves) == (level, category, False)
        ]

    def resolved(self) -> list[str]:
        return [
            alert.dedup_key
            for draft in self.drafts
            for alert in draft.alerts
            if alert.resolves and alert.dedup_key is not None
        ]

    def figures(self) -> tuple[int, ...]:
        return tuple(self.book.statistics().four().values())


def always_raises(_: int) -> str | None:
    return "RuntimeError: no"


def always_returns(_: int) -> str | None:
    return None


P = RecoveryPhase


# -- the worked cases


@pytest.mark.parametrize(
    ("settings", "attempts", "opened"),
    [(DEFAULT, [0, 60, 180], 180), (LITERAL, [60, 180, 420], 420)],
)
def test_r1_a_restart_that_always_raises_is_given_up_after_three_attempts(
    settings: RecoverySettings, attempts: list[float], opened: float
) -> None:
    engine = Engine(always_raises, settings)
    engine.fail()
    engine.poll(10_000)
    assert engine.attempts == attempts
    assert engine.opened == [opened]
    assert engine.phase() is P.OPEN
    assert engine.figures() == (3, 0, 3, 1)
    assert len(engine.alerts(Level.INFO)) == 3
    assert len(engine.alerts(Level.WARNING)) == 3
    assert len(engine.alerts(Level.CRITICAL)) == 1
    assert len(engine.alerts(Level.WARNING, Category.STRATEGY_FAILURE)) == 1


def test_r2_an_attempt_is_due_at_its_microsecond_and_not_before() -> None:
    engine = Engine(always_raises)
    engine.fail()
    for at_s in (0, 59.999, 59.999999, 60.0):
        engine.check(at_s)
    assert engine.attempts == [0, 60.0]


def test_r3_cooldowns_run_from_the_attempt_and_not_from_the_failure() -> None:
    engine = Engine(always_raises)
    engine.fail()
    engine.poll(1_000, from_s=3, every_s=10)
    assert engine.attempts == [3, 63, 183]
    assert engine.opened == [183]


def test_r4_a_restart_that_holds_is_forgotten_after_probation() -> None:
    engine = Engine(always_returns)
    engine.crash_after_s = 700
    engine.fail()
    engine.poll(599)
    assert engine.phase() is P.PROBATION
    engine.check(600)
    assert (engine.record.phase, engine.record.attempts) == (P.HEALTHY, 0)
    engine.poll(700, from_s=601)
    assert engine.attempts == [0, 700]
    assert [event.attempt for event in engine.events("restart_strategy")] == [1, 1]
    assert len({order.attempt_id for draft in engine.drafts for order in draft.starts}) == 2


def test_r5_a_restart_that_never_holds_is_given_up_too() -> None:
    engine = Engine(always_returns)
    engine.crash_after_s = 5
    engine.fail()
    engine.poll(10_000)
    assert engine.attempts == [0, 65, 190]
    assert engine.opened == [195]
    assert engine.figures() == (3, 3, 0, 1)
    assert engine.book.statistics().relapsed == 3
    assert len(engine.alerts(Level.WARNING, Category.STRATEGY_FAILURE)) == 1


def test_without_probation_success_resets_at_once_and_restarts_never_end() -> None:
    engine = Engine(always_returns, RecoverySettings(probation_s=0, max_starts_per_day=None))
    engine.crash_after_s = 5
    engine.fail()
    engine.poll(1_000)
    assert engine.attempts == list(range(0, 1_001, 5))
    assert not engine.opened
    assert {event.attempt for event in engine.events("restart_strategy")} == {1}


def test_r7_failing_again_during_a_cooldown_changes_nothing() -> None:
    engine = Engine(always_raises)
    engine.fail()
    engine.check(0)
    before = engine.record
    for at_s in (10, 20, 30):
        draft = engine.check(at_s)
        assert not draft.records
    assert engine.record is before
    assert (before.due_us, before.attempts) == (60 * SECOND, 1)


def test_r8_the_tenth_restart_of_a_day_is_the_last() -> None:
    engine = Engine(always_returns)
    engine.crash_after_s = 700
    engine.fail()
    engine.poll(10_000)
    assert engine.attempts == [700 * n for n in range(10)]
    assert engine.opened == [7_000]
    assert engine.record.reason is not None
    assert engine.record.reason.startswith("intensity")


def test_starts_older_than_a_day_do_not_count() -> None:
    engine = Engine(always_raises, RecoverySettings(max_starts_per_day=1))
    engine.fail()
    engine.check(0)
    at_s = 86_400
    engine.check(at_s - 0.000001)
    assert engine.phase() is P.OPEN
    engine.take(engine.book.order("alpha", Input.RESET, "ann", at_s * SECOND)[0], at_s)
    engine.check(at_s)
    assert engine.attempts == [0, at_s]
    day = RecoverySettings(max_starts_per_day=1, base_cooldown_s=86_400, cooldown_max_s=86_400)
    patient = Engine(always_raises, day)
    patient.fail()
    patient.check(0)
    patient.check(86_400)
    assert patient.attempts == [0, 86_400]


def test_a_reset_lets_an_intensity_breaker_try_again() -> None:
    engine = Engine(always_raises, RecoverySettings(max_starts_per_day=1))
    engine.fail()
    engine.poll(100)
    assert engine.phase() is P.OPEN
    engine.take(engine.book.order("alpha", Input.RESET, "ann", 101 * SECOND)[0], 101)
    engine.check(101)
    assert engine.attempts == [0, 101]


def test_r10_running_without_a_heartbeat_is_no_progress() -> None:
    engine = Engine(always_returns)
    engine.heartbeats, engine.heartbeat_us = False, 0
    engine.fail()
    engine.poll(600)
    [relapse] = engine.events("relapse")
    assert (relapse.error, relapse.at_us) == (NO_PROGRESS, 600 * SECOND)
    assert not engine.events("confirmed")
    assert engine.phase() is P.COOLDOWN
    engine.poll(660, from_s=601)
    assert engine.attempts == [0, 660]  # it is restarted although the engine says it runs
    assert engine.phase() is P.PROBATION


def test_a_stalled_strategy_that_beats_again_needs_no_restart() -> None:
    engine = Engine(always_returns)
    engine.heartbeats, engine.heartbeat_us = False, 0
    engine.fail()
    engine.poll(610)
    assert engine.record.stalled
    engine.heartbeats = True
    engine.poll(1_300, from_s=611)
    assert engine.attempts == [0]
    assert engine.phase() is P.HEALTHY


def test_r11_what_is_not_retryable_is_not_tried() -> None:
    engine = Engine(always_raises)
    engine.fail(retryable=False)
    engine.poll(100)
    assert (engine.attempts, engine.opened) == ([], [0])
    assert engine.figures() == (0, 0, 0, 1)
    assert len(engine.alerts(Level.WARNING, Category.STRATEGY_FAILURE)) == 1


def test_a_restart_that_says_not_retryable_opens_at_once() -> None:
    engine = Engine(always_raises)
    engine.fail()
    draft = engine.book.check([engine.status(0)], False, 0)
    engine.take(draft, 0)
    engine.hear(
        AttemptEnded("alpha", draft.starts[0].attempt_id, "NotRetryable: credentials", False), 0
    )
    assert engine.phase() is P.OPEN
    assert engine.figures() == (1, 0, 1, 1)


def test_after_a_reset_even_what_is_not_retryable_is_tried_once() -> None:
    engine = Engine(always_returns)
    engine.fail(retryable=False)
    engine.check(0)
    engine.take(engine.book.order("alpha", Input.RESET, "ann", 10 * SECOND)[0], 10)
    engine.check(10)
    assert engine.attempts == [10]


def test_r18_the_kill_switch_stops_what_a_running_restart_brings_up() -> None:
    engine = Engine(always_returns)
    engine.fail()
    draft = engine.book.check([engine.status(0)], False, 0)
    engine.take(draft, 0)
    engine.kill = True
    engine.check(5)
    returned = engine.hear(AttemptEnded("alpha", draft.starts[0].attempt_id, None, True), 7)
    assert returned.stops == ["alpha"]
    assert (engine.record.phase, engine.record.beneath) == (P.HELD, P.UNMANAGED)
    engine.state = "failed"
    engine.poll(100, from_s=8)
    assert not engine.events("relapse")
    assert engine.phase() is P.HELD
    engine.kill = False
    engine.poll(1_000, from_s=101)
    assert (
        engine.attempts == []
    )  # of the checks after the first: a released kill switch restarts nothing it stopped
    assert engine.phase() is P.UNMANAGED


def test_a_strategy_that_would_not_stop_is_stopped_again_at_every_check() -> None:
    engine = Engine(always_returns)
    engine.fail()
    draft = engine.book.check([engine.status(0)], False, 0)
    engine.take(draft, 0)
    engine.kill = True
    engine.check(1)
    engine.hear(AttemptEnded("alpha", draft.starts[0].attempt_id, None, True), 2)
    engine.state = "running"
    assert [engine.check(at_s).stops for at_s in (3, 4)] == [["alpha"], ["alpha"]]
    engine.state = "stopped"
    assert [engine.check(at_s).stops for at_s in (5, 6)] == [[], []]
    assert not engine.record.stop_owed


def test_a_call_begun_before_the_kill_switch_is_stopped_even_if_it_returns_after_its_release() -> (
    None
):
    engine = Engine(always_returns)
    engine.fail()
    draft = engine.book.check([engine.status(0)], False, 0)
    engine.take(draft, 0)
    for at_s, engine.kill in ((1, True), (2, False)):
        engine.check(at_s)
    assert engine.phase() is P.RESTARTING
    assert engine.hear(AttemptEnded("alpha", draft.starts[0].attempt_id, None, True), 3).stops == [
        "alpha"
    ]
    assert engine.phase() is P.UNMANAGED


def test_a_failure_that_turned_out_not_retryable_under_the_kill_switch_is_not_tried_after_it() -> (
    None
):
    engine = Engine(always_returns)
    engine.check(0)
    engine.kill = True
    engine.fail()
    engine.poll(5, from_s=1)
    engine.retryable, engine.kill = False, False
    engine.poll(200, from_s=6)
    assert engine.phase() is P.OPEN
    assert engine.attempts == []


def test_a_call_keeps_its_slot_under_a_hold() -> None:
    book = Book(DEFAULT)
    both = [StrategyStatus(name, "failed") for name in ("a", "b")]
    first = book.check(both, False, 0)
    book.apply(first)
    book.apply(book.order("a", Input.HOLD, "ann", SECOND)[0])
    assert not book.check(both, False, 5 * SECOND).starts
    book.apply(book.hear(AttemptEnded("a", first.starts[0].attempt_id, "no", True), 6 * SECOND))
    assert [order.name for order in book.check(both, False, 6 * SECOND).starts] == ["b"]


def test_a_kill_switch_that_storage_refused_to_note_still_stops_the_strategy() -> None:
    engine = Engine(always_returns)
    engine.fail()
    draft = engine.book.check([engine.status(0)], False, 0)
    engine.take(draft, 0)
    engine.book.check([engine.status(1)], True, SECOND)  # planned, and never applied
    assert engine.hear(AttemptEnded("alpha", draft.starts[0].attempt_id, None, True), 2).stops == [
        "alpha"
    ]
    assert engine.phase() is P.HELD


def test_a_failure_under_the_kill_switch_is_restarted_one_cooldown_after_its_release() -> None:
    engine = Engine(always_returns)
    engine.check(0)
    engine.kill = True
    engine.check(1)
    engine.fail()
    engine.poll(50, from_s=2)
    engine.kill = False
    engine.poll(200, from_s=51)
    assert engine.attempts == [111]
    assert len(engine.alerts(Level.WARNING, Category.STRATEGY_FAILURE)) == 1


def test_a_strategy_first_seen_under_the_kill_switch_is_held() -> None:
    engine = Engine(always_returns)
    engine.kill = True
    engine.fail()
    engine.poll(10)
    assert engine.phase() is P.HELD
    assert engine.attempts == []


def test_r31_a_late_call_is_a_failure_and_blocks_a_second_attempt_until_it_ends() -> None:
    engine = Engine(always_raises)
    engine.fail()
    draft = engine.book.check([engine.status(0)], False, 0)
    engine.take(draft, 0)
    attempt = draft.starts[0].attempt_id
    engine.hear(AttemptLate("alpha", attempt), 30)
    assert engine.phase() is P.RESTARTING_LATE
    assert engine.figures() == (1, 0, 1, 0)
    engine.poll(5_000, from_s=31, every_s=10)
    assert engine.attempts == []
    engine.hear(AttemptEnded("alpha", attempt, None, True), 5_001)
    assert engine.phase() is P.PROBATION
    assert engine.figures() == (1, 0, 1, 0)


def test_a_late_call_that_raises_after_all_waits_the_cooldown_from_its_end() -> None:
    engine = Engine(always_raises)
    engine.fail()
    draft = engine.book.check([engine.status(0)], False, 0)
    engine.take(draft, 0)
    attempt = draft.starts[0].attempt_id
    engine.hear(AttemptLate("alpha", attempt), 30)
    engine.hear(AttemptEnded("alpha", attempt, "no", True), 45)
    assert (engine.record.phase, engine.record.due_us) == (P.COOLDOWN, 105 * SECOND)
    assert engine.figures() == (1, 0, 1, 0)


def test_a_late_call_gives_its_slot_to_others() -> None:
    book = Book(DEFAULT)
    both = [StrategyStatus(name, "failed") for name in ("a", "b")]
    first = book.check(both, False, 0)
    book.apply(first)
    assert [order.name for order in first.starts] == ["a"]
    assert not book.check(both, False, 5 * SECOND).starts
    book.apply(book.hear(AttemptLate("a", first.starts[0].attempt_id), 30 * SECOND))
    assert [order.name for order in book.check(both, False, 31 * SECOND).starts] == ["b"]


@pytest.mark.parametrize("stale", ["alpha:1:0", "alpha:0:1", "beta:1:1", ""])
def test_a_report_of_another_attempt_changes_nothing(stale: str) -> None:
    engine = Engine(always_returns)
    engine.fail()
    engine.take(engine.book.check([engine.status(0)], False, 0), 0)
    for name in ("alpha", "beta"):
        for report in (AttemptEnded(name, stale, None, True), AttemptLate(name, stale)):
            assert not engine.book.hear(report, SECOND).records


@pytest.mark.parametrize("stamped", [True, False])
def test_a_failure_read_before_the_restart_came_back_is_no_relapse(stamped: bool) -> None:
    engine = Engine(always_returns)
    engine.fail()
    engine.check(0)
    # At the end of probation an old failure of an engine that answers is no sign of life.
    end = P.COOLDOWN if stamped else P.PROBATION
    for at_s, read_s, phase in ((10, 0, P.PROBATION), (700, 0, end), (701, 1, P.COOLDOWN)):
        at_us = read_s * SECOND if stamped else None
        statuses = [StrategyStatus("alpha", "failed", at_us=at_us)]
        draft = engine.book.check(
            statuses, False, at_s * SECOND, read_us=None if stamped else read_s * SECOND
        )
        engine.take(draft, at_s)
        assert engine.record.phase is phase


def test_a_person_who_starts_it_uses_no_attempt() -> None:
    engine = Engine(always_raises)
    engine.fail()
    engine.check(0)
    engine.state = "running"
    engine.check(30)
    assert (engine.record.phase, engine.record.attempts) == (P.PROBATION, 1)
    engine.poll(630, from_s=31)
    assert (engine.record.phase, engine.record.attempts) == (P.HEALTHY, 0)


def test_a_stopped_strategy_does_not_fail_until_it_runs_again() -> None:
    engine = Engine(always_returns)
    states: tuple[StrategyState, ...] = ("running", "paused", "stopped", "retired", "failed")
    for at_s, engine.state in enumerate(states):
        engine.check(at_s)
    assert (engine.record.phase, engine.attempts) == (P.UNMANAGED, [])
    engine.state = "running"
    engine.check(10)
    assert engine.phase() is P.PROBATION
    engine.fail()
    engine.check(11)
    assert engine.attempts == [11]


@pytest.mark.parametrize("probation_s", [0, 600])
def test_every_alert_that_fires_is_resolved_when_the_strategy_is_well(probation_s: int) -> None:
    engine = Engine(lambda n: None if n == 2 else "no", RecoverySettings(probation_s=probation_s))
    engine.fail()
    engine.poll(700)
    assert engine.phase() is P.HEALTHY
    assert engine.resolved() == ["failed:alpha", "recovery:alpha"]


def test_every_alert_that_fires_is_resolved_once_when_a_person_stops_the_strategy() -> None:
    engine = Engine(always_raises)
    engine.fail()
    engine.poll(200)
    engine.state = "stopped"
    engine.poll(210, from_s=201)
    engine.state = "running"
    engine.poll(1_000, from_s=211)
    assert engine.phase() is P.HEALTHY
    assert engine.resolved() == ["failed:alpha", "recovery:alpha"]


def test_a_failure_on_a_probation_that_no_restart_began_is_a_new_episode() -> None:
    engine = Engine(always_raises)
    for at_s in (0, 1_000):
        engine.state = "stopped"
        engine.check(at_s)
        engine.state = "running"
        engine.check(at_s + 1)
        engine.fail()
        engine.poll(at_s + 5, from_s=at_s + 2)
        engine.take(engine.book.order("alpha", Input.HOLD, "ann", (at_s + 6) * SECOND)[0], at_s + 6)
        engine.state = "running"
        engine.check(at_s + 7)
        engine.take(
            engine.book.order("alpha", Input.RELEASE, "ann", (at_s + 8) * SECOND)[0], at_s + 8
        )
        engine.poll(at_s + 700, from_s=at_s + 9)
        assert engine.phase() is P.HEALTHY
    assert engine.attempts == [2, 1_002]
    assert [order.attempt_id for draft in engine.drafts for order in draft.starts] == [
        "alpha:1:1",
        "alpha:2:1",
    ]
    assert len(engine.alerts(Level.WARNING, Category.STRATEGY_FAILURE)) == 2


def test_the_gauges_show_an_open_breaker_under_a_hold_as_both() -> None:
    engine = Engine(always_raises)
    engine.fail(retryable=False)
    engine.check(0)
    engine.kill = True
    engine.check(1)
    statistics = engine.book.statistics()
    assert (statistics.circuit_breakers_open, statistics.held, statistics.in_probation) == (1, 1, 0)


# -- silence has an end


def test_a_restart_that_leaves_it_pending_has_failed_at_the_end_of_probation() -> None:
    engine = Engine(always_returns)
    engine.fail()
    engine.check(0)
    engine.state = "pending"
    for at_s in range(1, 4_000):
        draft = engine.check(at_s)
        if draft.starts:
            engine.state = "pending"
    assert engine.attempts == [0, 660, 1_380]
    assert engine.opened == [1_980]
    assert len(engine.alerts(Level.CRITICAL)) == 1
    assert {event.error for event in engine.events("relapse")} == {NO_PROGRESS}


def test_a_strategy_that_leaves_the_list_on_probation_has_failed_at_its_end() -> None:
    engine = Engine(always_returns)
    engine.fail()
    engine.check(0)
    for at_s in (1, 599, 600):
        engine.take(engine.book.check([], False, at_s * SECOND), at_s)
    assert (engine.record.phase, engine.record.reason) == (P.COOLDOWN, NO_PROGRESS)


def test_a_silent_engine_neither_confirms_nor_fails_a_probation() -> None:
    engine = Engine(always_returns)
    engine.heartbeats = False
    engine.fail()
    engine.check(0)
    for statuses in ([engine.status(599)], []):
        draft = engine.book.check(statuses, False, 900 * SECOND, read_us=599 * SECOND)
        assert not draft.records
    heard = engine.book.check([engine.status(900)], False, 901 * SECOND, read_us=900 * SECOND)
    assert [event.action for event in heard.events] == ["confirmed"]


def test_a_crash_during_the_restart_call_is_a_relapse() -> None:
    engine = Engine(always_returns)
    engine.fail()
    draft = engine.book.check([engine.status(0)], False, 0)
    engine.take(draft, 0)
    engine.hear(AttemptEnded("alpha", draft.starts[0].attempt_id, None, True), 2)
    crashed = [StrategyStatus("alpha", "failed", at_us=SECOND)]
    engine.take(engine.book.check(crashed, False, 3 * SECOND, read_us=3 * SECOND), 3)
    assert (engine.record.phase, engine.record.attempts) == (P.COOLDOWN, 1)


def test_a_start_by_others_that_never_ends_is_answered_by_an_attempt() -> None:
    engine = Engine(always_raises)
    engine.fail()
    engine.check(0)
    engine.state = "pending"
    engine.poll(1_000, from_s=1)
    assert engine.attempts == [0, 660]


def test_a_reset_while_it_makes_no_progress_tries_again() -> None:
    engine = Engine(always_returns, RecoverySettings(attempts_max=1))
    engine.fail()
    engine.check(0)
    engine.state = "pending"
    engine.poll(600, from_s=1)
    assert engine.record.phase is P.OPEN
    engine.take(engine.book.order("alpha", Input.RESET, "ann", 700 * SECOND)[0], 700)
    engine.check(700)
    assert engine.attempts == [0, 700]


def test_an_old_heartbeat_is_no_sign_of_life_after_the_clock_went_back() -> None:
    engine = Engine(always_returns)
    engine.heartbeats, engine.heartbeat_us = False, 9_999 * SECOND
    engine.fail()
    engine.poll(10_100, from_s=10_000)
    engine.book.move(-3_600 * SECOND)
    engine.poll(7_000, from_s=6_501)
    assert not engine.events("confirmed")
    assert [event.error for event in engine.events("relapse")] == [NO_PROGRESS]


@pytest.mark.parametrize("jump_s", [3_600, -3_600])
def test_a_cooldown_keeps_its_length_when_the_wall_clock_jumps(jump_s: int) -> None:
    engine = Engine(always_raises)
    engine.fail()
    engine.check(10_000)
    engine.book.move(jump_s * SECOND)
    engine.poll(10_100 + jump_s, from_s=10_001 + jump_s)
    assert engine.attempts == [10_000, 10_060 + jump_s]


# -- many strategies


def test_restarts_go_one_at_a_time_in_the_order_of_due_and_name() -> None:
    book = Book(DEFAULT)
    begun: list[str] = []
    late = ["c", "a"]
    early = ["d", "b"]
    for second in range(10):
        failed = early if second == 0 else early + late
        statuses = [
            StrategyStatus(name, "failed" if name in failed else "running") for name in "abcd"
        ]
        draft = book.check(statuses, False, second * SECOND)
        book.apply(draft)
        assert len(draft.starts) <= 1
        for order in draft.starts:
            begun.append(order.name)
            book.apply(
                book.hear(AttemptEnded(order.name, order.attempt_id, "no", True), second * SECOND)
            )
    assert begun == ["b", "d", "a", "c"]


def test_two_restarts_begin_at_least_a_second_apart_unless_spacing_is_off() -> None:
    statuses = [StrategyStatus(name, "failed") for name in "abcd"]
    book = Book(RecoverySettings(restart_concurrency=3))
    begun = []
    for tenth in range(12):
        draft = book.check(statuses, False, tenth * SECOND // 10)
        book.apply(draft)
        begun += [(tenth, order.name) for order in draft.starts]
    assert begun == [(0, "a"), (10, "b")]
    free = Book(RecoverySettings(restart_concurrency=3, restart_spacing_s=0))
    assert [order.name for order in free.check(statuses, False, 0).starts] == ["a", "b", "c"]


def test_a_strategy_that_is_not_listed_or_is_being_started_keeps_its_turn() -> None:
    engine = Engine(always_raises)
    engine.fail()
    engine.check(0)
    assert not engine.book.check([], False, 100 * SECOND).starts
    engine.state = "pending"
    assert not engine.check(101).starts
    engine.fail()
    assert engine.check(102).starts


def test_a_check_without_news_plans_nothing_at_all() -> None:
    states: list[StrategyState] = ["running", "failed", "stopped", "pending"]
    statuses = [StrategyStatus(f"s{n}", states[n % 4]) for n in range(40)]
    book = Book(RecoverySettings(restart_concurrency=40, restart_spacing_s=0))
    first = book.check(statuses, False, 0)
    book.apply(first)
    for order in first.starts:
        book.apply(book.hear(AttemptEnded(order.name, order.attempt_id, "no", True), 0))
    book.apply(book.check(statuses, False, SECOND))
    draft = book.check(statuses, False, 2 * SECOND)
    assert not any((draft.records, draft.events, draft.alerts, draft.starts, draft.stops))


def test_what_was_planned_and_not_applied_is_planned_again() -> None:
    book = Book(DEFAULT)
    statuses = [StrategyStatus("alpha", "failed")]
    dropped = book.check(statuses, False, 0)
    again = book.check(statuses, False, SECOND)
    assert [order.attempt_id for order in dropped.starts] == [
        order.attempt_id for order in again.starts
    ]
    assert book.statistics().total_attempts == 0
    book.apply(again)
    for _ in range(2):
        assert book.check(statuses, True, 2 * SECOND).records["alpha"].phase is P.HELD


# -- any order of inputs

NAMES = ("a", "b", "c")


class AnyOrder(RuleBasedStateMachine):
    """Everything that can happen to three strategies, crashes of actor and process included."""

    @initialize(
        attempts_max=st.integers(1, 4),
        concurrency=st.integers(1, 3),
        probation_s=st.sampled_from([0, 30, 600]),
        first_attempt=st.sampled_from(["immediate", "after_cooldown"]),
        starts=st.sampled_from([None, 1, 5]),
    )
    def begin(
        self, attempts_max: int, concurrency: int, probation_s: int, first_attempt: Any, starts: Any
    ) -> None:
        self.settings = RecoverySettings(
            attempts_max=attempts_max,
            restart_concurrency=concurrency,
            probation_s=probation_s,
            first_attempt=first_attempt,
            max_starts_per_day=starts,
        )
        self.book = Book(self.settings)
        self.now_us = 0
        self.kill = False
        self.calls: dict[str, str] = {}  # attempt ids in flight, by strategy
        self.late: set[str] = set()
        self.ids: set[str] = set()
        self.events: list[RecoveryEvent] = []
        self.states: dict[str, StrategyStatus] = {
            name: StrategyStatus(name, "running") for name in NAMES
        }

    def take(self, draft: Draft) -> None:
        self.events += draft.events
        self.book.apply(draft)
        for order in draft.starts:
            assert not self.kill
            assert order.name not in self.calls, "two restarts of one strategy in flight"
            assert order.attempt_id not in self.ids, "an attempt id came twice"
            self.ids.add(order.attempt_id)
            self.calls[order.name] = order.attempt_id

    @rule(
        name=st.sampled_from(NAMES),
        state=st.sampled_from(
            ["pending", "running", "paused", "stopped", "failed", "retired", "unheard of"]
        ),
        retryable=st.booleans(),
        beats=st.sampled_from(["none", "old", "fresh"]),
    )
    def engine_reports(self, name: str, state: Any, retryable: bool, beats: str) -> None:
        heartbeat_us = {"none": None, "old": 0, "fresh": self.now_us}[beats]
        self.states[name] = StrategyStatus(
            name, state, retryable=retryable, heartbeat_us=heartbeat_us
        )

    @rule(
        seconds=st.sampled_from([0, 1, 30, 60, 600, 90_000]),
        kill=st.sampled_from([False, False, False, True]),
    )
    def check(self, seconds: int, kill: bool) -> None:
        self.now_us += seconds * SECOND
        self.kill = kill
        draft = self.book.check(list(self.states.values()), kill, self.now_us)
        self.take(draft)
        released = {event.target for event in draft.events if event.action == "released"}
        for record in self.book.records.values():
            if record.phase is P.PROBATION and record.name not in released:
                assert record.due_us is not None
                assert record.due_us > self.now_us, "a probation has no end"

    @rule(name=st.sampled_from(NAMES))
    def a_strategy_leaves_the_list(self, name: str) -> None:
        self.states.pop(name, None)

    @rule(seconds=st.sampled_from([3_600, -3_600]))
    def the_wall_clock_is_set(self, seconds: int) -> None:
        self.now_us += seconds * SECOND
        self.book.move(seconds * SECOND)

    @rule(kill=st.booleans())
    def storage_refuses(self, kill: bool) -> None:
        self.book.check(list(self.states.values()), kill, self.now_us)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), error=st.sampled_from([None, "no"]), retryable=st.booleans())
    def a_call_ends(self, data: st.DataObject, error: str | None, retryable: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.calls)))
        attempt = self.calls.pop(name)
        self.late.discard(attempt)
        self.take(self.book.hear(AttemptEnded(name, attempt, error, retryable), self.now_us))

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def a_call_is_late(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.calls)))
        self.late.add(self.calls[name])
        self.take(self.book.hear(AttemptLate(name, self.calls[name]), self.now_us))

    @rule(
        name=st.sampled_from(NAMES), what=st.sampled_from([Input.HOLD, Input.RELEASE, Input.RESET])
    )
    def a_person_acts(self, name: str, what: Input) -> None:
        if name in self.book.records:
            self.take(self.book.order(name, what, "ann", self.now_us)[0])

    @rule(process=st.booleans())
    def a_crash(self, process: bool) -> None:
        counts: dict[tuple[str, bool | None], int] = {}
        for event in self.events:
            counts[event.action, event.success] = counts.get((event.action, event.success), 0) + 1
        self.book = Book(self.settings, self.book.records.values(), counts)
        if process:
            for name, attempt in self.calls.items():
                self.take(
                    self.book.hear(AttemptEnded(name, attempt, "interrupted", True), self.now_us)
                )
            self.calls.clear()
            self.late.clear()

    @invariant()
    def attempts_stay_within_their_bound(self) -> None:
        for record in self.book.records.values():
            assert 0 <= record.attempts <= self.settings.attempts_max

    @invariant()
    def every_attempt_has_one_outcome(self) -> None:
        statistics = self.book.statistics()
        assert statistics.total_attempts == statistics.successes + statistics.failures
        assert statistics.total_attempts == len(self.ids) - len(
            set(self.calls.values()) - self.late
        )

    @invariant()
    def running_calls_are_known(self) -> None:
        in_call = (P.RESTARTING, P.RESTARTING_LATE)
        known = {
            record.name: attempt_id(record)
            for record in self.book.records.values()
            if record.inner in in_call
        }
        assert known == self.calls

    @invariant()
    def slots_are_not_exceeded(self) -> None:
        in_time = [attempt for attempt in self.calls.values() if attempt not in self.late]
        assert len(in_time) <= self.settings.restart_concurrency

    @invariant()
    def records_are_whole(self) -> None:
        for record in self.book.records.values():
            assert (record.beneath is not None) == (record.phase is P.HELD)
            assert (record.phase is P.HELD) == (record.kill or record.held_by is not None)
            assert (record.due_us is not None) == (record.inner in (P.COOLDOWN, P.PROBATION))


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = hypothesis_settings(max_examples=150, stateful_step_count=60)
