"""The reasons of a permission: all of them, in one order, the first one told to the host."""

from __future__ import annotations

from decimal import Decimal
from itertools import product
from typing import Any

import pytest

from fundops.actors.guard import KillLatch, Leases
from fundops.actors.guard.entitle import above, after_pause, after_resume, grant, stops
from fundops.actors.guard.leases import Grant
from fundops.runtime import VirtualClock
from fundops.wire.controller import StrategyStatus
from fundops.wire.guard import KillStatus, StrategyBook
from fundops.wire.promotion import EntitlementTerms, PromotionStage
from fundops.wire.why import Reason, rank

T0 = 1_700_000_000_000_000
CAPITAL_MINOR = 100_000 * 10**8
TERMS = {
    "live": EntitlementTerms("s", PromotionStage.Live_Small, "live", 0.01),
    "paper": EntitlementTerms("s", PromotionStage.Paper, "paper", 0.0),
    "shadow": EntitlementTerms("s", PromotionStage.Shadow, "shadow", 0.0, None, 0.5),
    "retired": EntitlementTerms("s", PromotionStage.Retired, "none", 0.0),
    "unregistered": None,
    "off": None,
}
BOOKS = {
    "free": StrategyBook(had_real=True),
    "new": StrategyBook(),
    "by a person": StrategyBook(had_real=True, paused_by="ann", paused_why="night"),
    "by the guard": StrategyBook(had_real=True, paused=True),
    "by both": StrategyBook(had_real=True, paused=True, paused_by="ann", paused_why="night"),
    "closing": StrategyBook(had_real=True, closing="2026-01-05"),
}
STATUSES = (
    None,
    StrategyStatus("s", "running"),
    StrategyStatus("s", "paused"),
    StrategyStatus("s", "failed", allocated=5_000, stage="live-scaled"),
)


def _grant(
    terms: str,
    book: str,
    status: StrategyStatus | None,
    doubt: str | None,
    session: str = "2026-01-05",
) -> Grant:
    return grant(
        BOOKS[book],
        status,
        TERMS[terms],
        promotion=terms != "off",
        capital_minor=CAPITAL_MINOR,
        doubt=doubt,
        session=session,
    )


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("book", BOOKS)
def test_a_strategy_is_live_exactly_when_nothing_stands_against_it(terms: str, book: str) -> None:
    for status, doubt in product(STATUSES, (None, "n_trades: -1")):
        found = _grant(terms, book, status, doubt)
        assert (found.mode == "live") == (found.reasons == ())
        ranks = [rank(reason.kind) for reason in found.reasons]
        assert ranks == sorted(set(ranks)), "in order, and each kind once"


@pytest.mark.parametrize(
    ("session", "text"),
    [
        ("2026-01-05", "its stage is shadow: it lost its real stage this session"),
        ("2026-01-06", "its stage is shadow"),
    ],
)
def test_the_session_of_a_demotion_is_told_while_it_runs(session: str, text: str) -> None:
    found = _grant("shadow", "closing", STATUSES[1], None, session)
    assert found.reasons == (Reason("stage", text),)


@pytest.mark.parametrize(
    ("terms", "book", "status", "doubt", "kinds"),
    [
        ("live", "by both", 3, "x", "operator pause set_aside above_entitlement engine"),
        ("live", "by a person", 2, None, "operator"),
        ("live", "free", 2, None, "engine"),
        ("paper", "by a person", 1, None, "operator stage"),
        ("retired", "by a person", 1, None, "operator retired"),
        ("unregistered", "free", None, "x", "set_aside not_registered engine"),
        ("off", "by the guard", 2, None, "pause"),
    ],
)
def test_every_reason_is_kept_in_order(
    terms: str, book: str, status: int | None, doubt: str | None, kinds: str
) -> None:
    found = _grant(terms, book, None if status is None else STATUSES[status], doubt)
    assert [reason.kind for reason in found.reasons] == kinds.split()


@pytest.mark.parametrize(
    ("terms", "book", "status", "session", "due"),
    [
        ("live", "free", 1, "2026-01-05", ("live", 1_000, True)),
        ("off", "new", 1, "2026-01-05", ("live", 100_000, True)),
        ("live", "new", 2, "2026-01-05", ("none", 0, False)),
        ("live", "free", 2, "2026-01-05", ("reduce", 0, True)),
        ("retired", "free", 1, "2026-01-05", ("reduce", 0, True)),
        ("retired", "new", 1, "2026-01-05", ("none", 0, False)),
        ("shadow", "closing", 1, "2026-01-05", ("reduce", 0, True)),
        ("shadow", "closing", 1, "2026-01-06", ("shadow", 0, True)),
        ("shadow", "by a person", 1, "2026-01-05", ("reduce", 0, True)),
        ("shadow", "new", 1, "2026-01-05", ("shadow", 0, False)),
    ],
)
def test_a_stage_gives_its_mode_and_capital(
    terms: str, book: str, status: int, session: str, due: tuple[str, int, bool]
) -> None:
    found = _grant(terms, book, STATUSES[status], None, session)
    assert (found.mode, int(found.capital), found.had_real) == due


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ({"stage": "live-small", "allocated": 1_000}, ""),
        ({"stage": "live-small", "allocated": 1_000.0000005}, ""),
        ({"stage": "live-small", "allocated": 1_000.01}, "allocation in force 1,000.01"),
        ({"stage": "live-small", "capital_cap": 1_000.01}, "cap in force 1,000.01"),
        ({"stage": "live-scaled"}, "in force live-scaled, entitled to live-small"),
        ({"stage": "paper", "allocated": 100_000}, ""),
        # An engine that knows no stages is taken at the database's word.
        ({"allocated": 1_000.01}, "allocation in force 1,000.01"),
    ],
)
def test_more_in_force_than_entitled_is_told(status: dict[str, Any], text: str) -> None:
    terms = EntitlementTerms("s", PromotionStage.Live_Small, "live", 0.01)
    told = above(StrategyStatus("s", "running", **status), terms, CAPITAL_MINOR)
    assert (told[: len(text)], bool(told)) == (text, bool(text))


def test_the_entitlement_tells_the_first_reason() -> None:
    clock = VirtualClock(T0)
    leases = Leases(clock, KillLatch())
    running = STATUSES[1]
    leases.replace({"s": _grant("live", "free", running, None)})
    leases.renew(30)
    assert (leases.entitlement("s").why, leases.reasons("s")) == ("", ())
    clock.advance(31)
    assert leases.entitlement("s").why == "its lease ran out"
    aside = _grant("live", "by a person", running, "n_trades: -1")
    leases.replace({"s": aside})
    assert [kind for kind, _ in leases.reasons("s")] == ["operator", "lease", "set_aside"]
    leases.latch.set(KillStatus("ENGAGED", "r", "ann", T0))
    told: list[Any] = list(leases.reasons("s"))
    assert told[0] == Reason("kill_switch", "the kill switch is ENGAGED")
    assert leases.entitlement("s").why == told[0].text
    assert leases.entitlement("other").why == told[0].text
    assert leases.reasons("other")[1] == Reason("unknown", "no report of it was seen")


def test_a_pause_takes_the_lease_and_a_resume_does_not_give_it_back() -> None:
    live = _grant("live", "free", STATUSES[1], None)
    (stop,) = stops(BOOKS["by a person"])
    paused = after_pause(live, stop)
    assert (paused.mode, paused.capital, paused.had_real) == ("reduce", Decimal(0), True)
    assert paused.reasons == (Reason("operator", "paused by ann: night"),)
    resumed = after_resume(paused)
    assert resumed.mode == "reduce"
    assert [reason.kind for reason in resumed.reasons] == ["lease"]
    paper = after_pause(_grant("paper", "new", STATUSES[1], None), stop)
    assert (paper.mode, [reason.kind for reason in paper.reasons]) == (
        "paper",
        ["operator", "stage"],
    )
    assert [reason.kind for reason in after_resume(paper).reasons] == ["stage"]


@pytest.mark.parametrize(
    ("in_force", "beyond"),
    [
        ({"allocated": 1_000}, ""),
        ({"allocated": 1_000.0000001}, ""),  # a float of the engine's own sums
        ({"allocated": 1_000.01}, "allocation in force 1,000.01, entitled to 1,000.00"),
        ({"capital_cap": 1_000.01}, "cap in force 1,000.01, entitled to 1,000.00"),
        ({"stage": "live-scaled"}, "in force live-scaled, entitled to live-small"),
        ({"stage": "unheard of"}, "in force unheard of, entitled to live-small"),
        ({"stage": "paper", "allocated": 5_000}, ""),  # of money that is none
    ],
    ids=str,
)
def test_stage_cap_and_allocation_in_force_are_compared_with_the_entitlement(
    in_force: dict[str, Any], beyond: str
) -> None:
    live = TERMS["live"]
    assert live is not None
    for allocated in (0, 1_000):
        figures = {"stage": "live-small", "allocated": allocated, **in_force}
        assert above(StrategyStatus("s", "running", **figures), live, CAPITAL_MINOR) == beyond


@pytest.mark.parametrize(
    ("terms", "kinds", "mode"),
    [
        ("off", ["daily_loss"], "reduce"),
        ("live", ["daily_loss"], "reduce"),
        ("shadow", ["stage"], "shadow"),
        ("paper", ["stage"], "paper"),
        ("unregistered", ["not_registered"], "reduce"),
    ],
)
def test_a_daily_loss_stops_real_money_alone(terms: str, kinds: list[str], mode: str) -> None:
    found = grant(
        StrategyBook(had_real=True),
        StrategyStatus("s", "running"),
        TERMS[terms],
        promotion=terms != "off",
        capital_minor=CAPITAL_MINOR,
        doubt=None,
        session="",
        daily_loss=True,
    )
    assert ([reason.kind for reason in found.reasons], found.mode) == (kinds, mode)


def test_a_shadow_strategy_keeps_its_notional_capital_when_a_person_pauses_it() -> None:
    notional = Grant("shadow", "shadow", Decimal(500), False, (Reason("stage", "shadow"),))
    paused = after_pause(notional, Reason("operator", "paused by ann: night"))
    assert (paused.mode, paused.capital) == ("shadow", Decimal(500))
