"""Sessions by plain calls: which are due, and the record that each leaves."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

import msgspec
import pytest

from fundops.actors.calendar import End, calendar_of
from fundops.actors.oversight.closing import begin, close, ends, had_tick, nav_minor, taken
from fundops.actors.oversight.fees import FeeSettings, FeeState
from fundops.actors.oversight.schema import Ending, Memory, kept, must_remember, read_back
from fundops.actors.oversight.settings import OversightSettings
from fundops.runtime import ConfigError, at_once
from fundops.wire.controller import StrategyStatus
from fundops.wire.guard import GuardState, StrategyBook
from fundops.wire.oversight import Tick

UNIT = 10**8


def us(text: str) -> int:
    """Microseconds of an ISO instant, UTC."""
    return int(dt.datetime.fromisoformat(f"{text}+00:00").timestamp()) * 1_000_000


@pytest.mark.parametrize(
    "session", ["\ud800", "", "d1", "2026-13-01", "20260302", "2026-W10-1", "2026-03-02 ", 5]
)
def test_a_session_that_is_no_iso_date_is_refused(session: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        Tick(session)
    assert refusal.value.field == "session"


def test_a_setting_of_a_calendar_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="weekends"):
        OversightSettings(session="weekends 16:00 America/New_York")


# -- which sessions are due


def due(
    memory: Memory,
    now: str,
    *named: str,
    alive: str = "2026-03-01 00:00:00",
    interval_s: float | None = 1,
) -> list[End]:
    """The sessions to end now, in UTC days."""
    return list(
        ends(
            memory,
            calendar_of("UTC day"),
            named,
            now_us=us(now),
            alive_since_us=us(alive),
            interval_s=interval_s,
        )
    )


MEMORY = Memory(since_us=us("2026-03-02 10:00:00"))


@pytest.mark.parametrize(
    ("interval_s", "late_s", "missed"),
    [(None, 60, False), (None, 61, True), (20, 61, True), (30, 90, False), (30, 91, True)],
)
def test_a_slow_ticker_may_come_three_intervals_after_the_end(
    interval_s: float | None, late_s: int, missed: bool
) -> None:
    now = f"2026-03-03 00:{late_s // 60:02}:{late_s % 60:02}"
    [end] = due(MEMORY, now, interval_s=interval_s)
    assert end.missed == missed


def test_the_first_session_is_the_one_that_runs_at_the_start() -> None:
    assert due(MEMORY, "2026-03-02 23:59:59") == []
    [end] = due(MEMORY, "2026-03-03 00:00:00")
    assert (end.session, end.missed) == ("2026-03-02", False)


@pytest.mark.parametrize(
    ("now", "alive", "missed"),
    [
        ("2026-03-03 00:01:00", "2026-03-02 10:00:00", False),
        ("2026-03-03 00:01:01", "2026-03-02 10:00:00", True),
        ("2026-03-03 00:00:30", "2026-03-03 00:00:29", True),
        ("2026-03-03 00:00:30", "2026-03-03 00:00:00", False),
    ],
    ids=["a minute late", "later", "down at its end", "up at its end"],
)
def test_a_session_is_missed_when_no_tick_came_near_its_end(
    now: str, alive: str, missed: bool
) -> None:
    [end] = due(MEMORY, now, alive=alive)
    assert end.missed is missed


def test_no_session_ends_twice_and_none_goes_backwards() -> None:
    ended = msgspec.structs.replace(
        MEMORY, session="2026-03-04", ended_us=us("2026-03-05 00:00:00")
    )
    assert due(ended, "2026-03-04 23:59:58") == []
    assert due(ended, "2026-03-05 23:59:59") == []
    assert due(ended, "2026-03-01 00:00:00", "2026-03-04", "2026-03-03") == []
    [end] = due(ended, "2026-03-01 00:00:00", "2026-03-05")
    assert end.at_us == ended.ended_us + 1, "lines stay in order when the clock went back"


def test_named_sessions_switch_the_configured_calendar_off() -> None:
    assert [end.session for end in due(MEMORY, "2026-03-09 00:00:00", "2026-03-02")] == [
        "2026-03-02"
    ]
    named = msgspec.structs.replace(MEMORY, session="2026-03-02", named=True)
    assert due(named, "2026-03-30 00:00:00") == []


def test_the_first_named_session_began_with_the_fund() -> None:
    [end] = due(MEMORY, "2026-03-01 00:00:00", "2026-03-02")
    assert end == End("2026-03-02", MEMORY.since_us, MEMORY.since_us + 1), "the clock went back"


def test_a_tick_at_the_end_counts_and_one_at_the_begin_does_not() -> None:
    [end] = due(MEMORY, "2026-03-03 00:00:00")
    at = {at: msgspec.structs.replace(MEMORY, tick_us=at) for at in (end.began_us, end.at_us)}
    later = end.at_us + 1
    assert not had_tick(at[end.began_us], end, later)
    assert had_tick(at[end.at_us], end, later)
    assert had_tick(MEMORY, end, end.at_us)
    assert not had_tick(MEMORY, end, later)


def test_the_first_tick_of_a_session_is_stored_at_once() -> None:
    ended = msgspec.structs.replace(MEMORY, session="2026-03-02", ended_us=1_000, tick_us=1_000)
    assert not at_once(must_remember(ended, ended))
    assert at_once(must_remember(msgspec.structs.replace(ended, tick_us=1_001), ended))
    inside = msgspec.structs.replace(ended, tick_us=1_001)
    assert not at_once(must_remember(msgspec.structs.replace(ended, tick_us=1_002), inside))


@pytest.mark.parametrize(
    ("change", "soon"),
    [
        ({"paused": True}, True),
        ({"paused_by": "ann"}, True),
        ({"real": True}, True),
        ({"had_real": True}, True),
        ({"left": True}, True),
        ({"restarted": True}, True),
        ({"carried_minor": 1}, True),
        ({"run": "2"}, True),
        ({"closing": "2026-01-05"}, True),
        ({"unwinding": True}, True),
        ({"pnl_minor": 1, "realized_minor": 1, "n_trades": 1}, False),
        ({"worth_minor": 1, "allocated_minor": 1}, False),
    ],
    ids=str,
)
def test_a_fact_that_no_report_brings_back_is_stored_at_once_and_figures_wait(
    change: dict[str, Any], soon: bool
) -> None:
    def memory(book: StrategyBook) -> Memory:
        return Memory(guard=GuardState(strategies={"s": book}))

    before = StrategyBook()
    after = msgspec.structs.replace(before, **change)
    assert at_once(must_remember(memory(after), memory(before))) is soon


@pytest.mark.parametrize(("peak", "must"), [(1.0009, False), (1.0011, True), (0.5, False)])
def test_a_peak_is_stored_when_it_has_risen_by_a_tenth_of_a_percent(
    peak: float, must: bool
) -> None:
    stored = Memory(guard=GuardState(units=1.0, peak_per_unit=1.0))
    guard = msgspec.structs.replace(stored.guard, peak_per_unit=peak)
    assert at_once(must_remember(msgspec.structs.replace(stored, guard=guard), stored)) is must


@pytest.mark.parametrize(
    ("peak_minor", "real", "must"),
    [(10_009, True, False), (10_011, True, True), (20_000, False, False), (0, True, False)],
)
def test_the_peak_of_a_strategy_with_real_money_is_stored_alike(
    peak_minor: int, real: bool, must: bool
) -> None:
    def memory(peak_minor: int) -> Memory:
        book = StrategyBook(real=real, peak_minor=peak_minor)
        return Memory(guard=GuardState(strategies={"s": book}))

    assert at_once(must_remember(memory(peak_minor), memory(10_000))) is must


# -- missed sessions


def test_missed_sessions_pay_on_the_nav_of_the_last_tick() -> None:
    capital, tick_us = 100_000 * UNIT, us("2026-03-02 10:00:00")
    memory = Memory(
        guard=GuardState(units=float(capital), nav_minor=capital, external_minor=capital),
        fees=FeeState(at_us=tick_us, crystallised_us=tick_us),
        since_us=tick_us,
        tick_us=tick_us,
    )
    settings = OversightSettings(
        promotion_enabled=True, ledger_enabled=True, fees=FeeSettings(365, 20.0)
    )
    found = due(memory, "2026-03-05 12:00:00")
    status = StrategyStatus("a", "running", equity=5)
    after, lines = begin(
        memory,
        settings,
        found,
        {"2026-03-02": at_once(kept((status,))), "2026-03-03": (), "2026-03-04": ()},
        now_us=us("2026-03-05 12:00:00"),
        capital_minor=capital,
    )
    assert [line.rows[0][1] for line in lines] == ["2026-03-02", "2026-03-03", "2026-03-04"]
    assert [(fee.session, fee.amount_minor) for fee in after.owed] == [
        ("2026-03-02", 10 * UNIT * 14 // 24),
        ("2026-03-03", 10 * UNIT),
        ("2026-03-04", 10 * UNIT),
    ]
    assert [line.rows[0][2] for line in lines] == [
        capital - 583_333_333,
        capital - 1_583_333_333,
        capital - 2_583_333_333,
    ]
    assert after.fees.management_minor == 5 * UNIT, "today's share goes on"
    assert [read_back(ending.statuses) for ending in after.ending] == [(status,), (), ()]
    assert [ending.marks for ending in after.ending] == [True, False, False]
    assert [ending.at_us for ending in after.ending] == [end.at_us for end in found]


def test_nav_is_the_capital_until_the_first_look_and_nothing_once_all_was_withdrawn() -> None:
    assert nav_minor(Memory(), 100 * UNIT) == 100 * UNIT
    assert nav_minor(Memory(guard=GuardState(peak_per_unit=1.2)), 100 * UNIT) == 0


@pytest.mark.parametrize(
    ("promotion", "ledger", "left"),
    [
        (False, False, []),
        (True, False, [(True, False)]),
        (False, True, [(False, True)]),
        (True, True, [(True, True)]),
    ],
    ids=["neither", "promotion", "ledger", "both"],
)
def test_an_ended_session_waits_for_the_enabled_consumers_alone(
    promotion: bool, ledger: bool, left: list[tuple[bool, bool]]
) -> None:
    settings = OversightSettings(promotion_enabled=promotion, ledger_enabled=ledger)
    [end] = due(MEMORY, "2026-03-03 00:00:00")
    figures = at_once(kept((StrategyStatus("a", "running", equity=5),)))
    after, [line] = close(MEMORY, settings, end, figures, nav_minor=UNIT)
    assert [(ending.sample, ending.marks) for ending in after.ending] == left
    assert line.rows[0][1:3] == ("2026-03-02", UNIT)


@pytest.mark.parametrize(
    ("first", "second"), [("sample", "marks"), ("marks", "sample")], ids=["sample", "marks"]
)
def test_an_ended_session_stays_until_both_consumers_have_taken_it(
    first: Literal["sample", "marks"], second: Literal["sample", "marks"]
) -> None:
    monday, tuesday = (
        Ending(session, missed=False, sample=True, marks=True)
        for session in ("2026-03-02", "2026-03-03")
    )
    half = taken(Memory(ending=(monday, tuesday)), "2026-03-02", first)
    assert half.ending == (msgspec.structs.replace(monday, **{first: False}), tuesday)
    assert taken(half, "2026-03-02", first) == half
    assert taken(half, "2026-03-02", second).ending == (tuesday,)


def test_figures_that_cannot_be_stored_are_left_out_of_the_record() -> None:
    class Odd:
        pass

    good = StrategyStatus("a", "running", equity=1.5)
    odd = StrategyStatus("b", "running", equity=Odd())  # type: ignore[arg-type]
    unknown = StrategyStatus("c", "crashed")  # type: ignore[arg-type]
    assert read_back(at_once(kept((good, odd, unknown)))) == (good,)
