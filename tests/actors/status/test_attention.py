"""The rows that wait for a person: one for each thing, with the command to copy."""

from typing import Any

import pytest

from fundops.actors.status.attention import ROWS_MAX, Aside, Known, attention
from fundops.wire.stream.records import (
    ActorLine,
    Channel,
    Feed,
    Kill,
    PromotionBrief,
    Recovery,
    Storage,
)

NOW_US, BEFORE_US = 2_000, 1_000
REASON = "3 failed attempts; the last: boom"
FAILED = "3 of 3 restarts failed, the breaker is open"


def rows(**known: Any) -> dict[str, Any]:
    return dict(attention(Known(**known), {}, NOW_US))


STEP = "its gate passes; live-small waits for a person: real capital from 0.00 to 1,000.00"


def brief(would_do: str) -> PromotionBrief:
    return PromotionBrief(
        stage="shadow",
        target="live-small",
        verdict="PASS",
        passed=5,
        segments=(1.0,) * 5,
        nearest="",
        missed=0,
        would_do=would_do,
        why=STEP,
        frozen=False,
        days_in_stage=20.0,
        rev=3,
    )


def strategy(**changed: Any) -> dict[str, Any]:
    return {
        "paused": False,
        "paused_by": "",
        "paused_why": "",
        "counters_restarted": False,
        "real": False,
    } | changed


def test_a_quiet_fund_has_no_rows() -> None:
    assert rows() == {}
    assert (
        rows(
            fund={"kill": Kill("OFF", "", "", None), "storage": Storage("ok"), "stale": False},
            strategies={"a": strategy()},
            promotion={"a": brief("none")},
            recovery={"a": Recovery("COOLDOWN", 1, 3, 5, "x", 1, 4, False)},
            channels={"webhook": Channel("ok", 0, None, 1, 0)},
            feeds={"x": Feed("x", 1, 300.0, False)},
            actors={"ledger": ActorLine("restarting", 1, 1, "boom", None)},
        )
        == {}
    )


def test_the_kill_switch_comes_first_with_its_reason_and_release() -> None:
    found = rows(
        fund={"kill": Kill("UNCONFIRMED", "margin call", "ann", BEFORE_US, "no answer")},
        strategies={"a": strategy(paused=True)},
    )
    assert list(found) == ["kill_switch", "paused:a"]
    row = found["kill_switch"]
    assert (row.level, row.title, row.since_us) == ("CRITICAL", "Trading is stopped", BEFORE_US)
    assert row.why.startswith("by ann: margin call (no answer")
    assert row.command == "fundops kill-switch release --by NAME --reason TEXT"


def test_every_thing_that_waits_has_its_row_and_command() -> None:
    found = rows(
        fund={
            "storage": Storage("degraded", "disk full"),
            "stale": True,
            "data_age_s": 41.0,
            "clock_suspect": True,
        },
        strategies={
            "p": strategy(paused=True, paused_by="ann", paused_why="news"),
            "c": strategy(counters_restarted=True),
        },
        promotion={"r": brief("ready")},
        recovery={"b": Recovery("OPEN", 3, 3, None, REASON, 1, BEFORE_US, True)},
        feeds={"x": Feed("x", 5, 300.0, True)},
        channels={"webhook": Channel("failing", 2, "timeout", 0, 1)},
        actors={"ledger": ActorLine("stuck", 1, 0, None, None)},
        aside=Aside(3, "fill:7", "no such account", BEFORE_US),
    )
    commands = {key: row.command for key, row in found.items()}
    assert commands == {
        "storage": "fundops storage",
        "stale": "",
        "clock": "fundops confirm clock --by NAME --reason TEXT",
        "actor:ledger": "fundops status",
        "channel:webhook": "fundops alerts test",
        "reports_aside": "fundops ledger reports-aside",
        "breaker:b": "fundops recovery reset b",
        "paused:p": "fundops strategy resume p --by NAME --reason TEXT",
        "counters:c": "fundops confirm counters c --by NAME --reason TEXT",
        "ready:r": "fundops strategy approve r",
        "feed:x": "",
    }
    assert found["breaker:b"].why == FAILED
    assert found["paused:p"].why == "by ann: news"
    assert found["ready:r"].why == STEP
    assert found["reports_aside"].title == "3 reports are not booked"


@pytest.mark.parametrize(
    ("attempts", "reason", "why"),
    [
        (3, "3 failed attempts; the last: E: no (a1-b2:1:3)", FAILED),
        (3, None, FAILED),
        (2, "2 failed attempts; the last: E: no (a1-b2:1:2)", "2 failed attempts; the last: E: no"),
        (0, "not retryable: E: one\ntwo", "not retryable: E: one"),
        (0, None, "the breaker is open"),
        (0, "not retryable: E: no key", "not retryable: E: no key"),
        (1, "intensity: 9 restarts within 24 h", "intensity: 9 restarts within 24 h"),
    ],
)
def test_a_breaker_says_why_in_one_short_line(attempts: int, reason: str | None, why: str) -> None:
    open_ = Recovery("OPEN", attempts, 3, None, reason, 1, BEFORE_US, True)
    assert rows(recovery={"b": open_})["breaker:b"].why == why


def test_a_breaker_says_whether_real_money_is_behind_it() -> None:
    recovery = {"b": Recovery("OPEN", 0, 3, None, "x: " + "y" * 900, 1, BEFORE_US, True)}
    for real, words in ((True, "…. It holds real money."), (False, "…. No real money in it.")):
        row = rows(recovery=recovery, strategies={"b": strategy(real=real)})["breaker:b"]
        assert row.why.endswith(words)
        assert len(row.why) < 120


def test_a_replay_has_no_silent_engine() -> None:
    assert "stale" in rows(fund={"stale": True, "clock": "system"})
    assert rows(fund={"stale": True, "clock": "driven"}) == {}


def test_a_hostile_name_cannot_leave_its_quotes() -> None:
    name = "a'; rm -rf /; echo '"
    command = rows(strategies={name: strategy(paused=True)})[f"paused:{name}"].command
    assert """'a'"'"'; rm -rf /; echo '"'"''""" in command


def test_a_row_keeps_the_instant_at_which_it_was_first_seen() -> None:
    known = Known(strategies={"a": strategy(paused=True)})
    assert attention(known, {}, NOW_US)["paused:a"].since_us == NOW_US
    assert attention(known, {"paused:a": BEFORE_US}, NOW_US)["paused:a"].since_us == BEFORE_US


def test_rows_have_a_bound_and_the_urgent_ones_stay() -> None:
    many = {f"s{number}": strategy(paused=True) for number in range(1_000)}
    found = rows(strategies=many, fund={"storage": Storage("failed", "gone")})
    assert len(found) == ROWS_MAX
    assert next(iter(found)) == "storage"
