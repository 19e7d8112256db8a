"""Leases: what a host may do now, by local memory, whatever it asks with."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import Any

import pytest

from fundops import VirtualClock
from fundops.actors.guard import KillLatch, Leases
from fundops.actors.guard.leases import Grant
from fundops.wire.guard import KillStatus
from fundops.wire.why import Reason

T0 = 1_700_000_000_000_000
LIVE = Grant("live-small", "live", Decimal(1_000), had_real=True)
PAPER = Grant("paper", "paper", Decimal(0), False, (Reason("stage", "its stage is paper"),))


def _leases(clock: VirtualClock | None = None, **grants: Grant) -> Leases:
    leases = Leases(clock or VirtualClock(T0), KillLatch())
    leases.replace(grants)
    leases.renew(30)
    return leases


class Raising:
    """Not even its hash can be asked for."""

    def __hash__(self) -> int:
        raise RuntimeError("no hash")


@pytest.mark.parametrize("name", [[], {}, None, 3, b"a", Raising(), object()])
def test_a_name_that_is_none_may_do_nothing(name: Any) -> None:
    leases = _leases(a=LIVE)
    assert leases.may_trade(name) is False
    assert leases.may_close(name) is False
    held = leases.entitlement(name)
    assert (held.mode, held.may_open, held.may_close, held.capital) == (
        "none",
        False,
        False,
        Decimal(0),
    )
    leases.latch.set(KillStatus("ENGAGED", "r", "ann", T0, action="freeze"))
    assert leases.may_trade(name) is leases.may_close(name) is False


def test_a_text_of_another_class_is_a_name() -> None:
    class Text(str):
        __slots__ = ()

    assert _leases(a=LIVE).may_trade(Text("a"))


# -- the kill switch's scope


def test_the_switch_ends_the_leases_in_its_scope_and_no_other() -> None:
    leases = _leases(a=LIVE, c=PAPER)
    leases.latch.spared = frozenset("c")
    leases.latch.set(KillStatus("ENGAGED", "r", "ann", T0, action="halt"))
    leases.end_in_scope()
    assert (leases.entitlement("a").mode, leases.entitlement("c").mode) == ("reduce", "paper")
    assert leases.reasons("c") == PAPER.reasons
    leases.replace({"a": LIVE, "c": PAPER})
    leases.renew(30)
    assert not leases.may_trade("a")


def test_after_a_release_a_lease_waits_for_the_next_tick() -> None:
    leases = _leases(a=LIVE)
    leases.latch.set(KillStatus("ENGAGED", "r", "ann", T0, action="halt"))
    leases.end_in_scope()
    leases.replace({"a": LIVE})
    leases.renew(30)
    leases.latch.set(KillStatus("OFF", "", "", None))
    assert not leases.may_trade("a")
    assert leases.entitlement("a").why == "its lease ran out"
    leases.replace({"a": LIVE})
    leases.renew(30)
    assert leases.may_trade("a")


def test_new_permissions_between_two_looks_prolong_no_lease() -> None:
    clock = VirtualClock(T0)
    leases = _leases(clock, a=LIVE, b=LIVE)
    clock.advance(29)
    leases.replace({"a": LIVE, "b": PAPER})
    assert (leases.may_trade("a"), leases.may_trade("b")) == (True, False)
    clock.advance(2)
    assert not leases.may_trade("a")


def test_a_look_in_hand_renews_no_lease_of_a_fund_that_has_stopped() -> None:
    leases = _leases(a=LIVE)
    leases.end_all()
    leases.replace({"a": LIVE})
    leases.renew(30)
    assert leases.entitlement("a").mode == "reduce"


def test_an_unknown_name_is_in_scope() -> None:
    latch = KillLatch()
    latch.spared = frozenset("c")
    latch.set(KillStatus("ENGAGED", "r", "ann", T0))
    assert latch.stops("anything")
    assert not latch.stops("c")


# -- promotion's limits


def test_a_limit_of_zero_ends_a_lease_at_once_and_outlasts_a_stale_tick() -> None:
    leases = _leases(a=LIVE)
    leases.limit({"a": Decimal(0)})
    for _ in range(2):
        held = leases.entitlement("a")
        assert (held.mode, held.may_open, held.may_close, held.capital) == (
            "reduce",
            False,
            True,
            Decimal(0),
        )
        assert held.why == "it was demoted since the last tick"
        assert not leases.may_trade("a")
        leases.replace({"a": LIVE})  # by terms of before the demotion
        leases.renew(30)
    leases.limit({"a": Decimal(500)})
    assert leases.may_trade("a")
    assert leases.entitlement("a").capital == 500
    leases.limit({"a": Decimal(9_000)})
    assert leases.entitlement("a").capital == 1_000, "the tick gives more, and no one else"


def test_another_thread_sees_the_latch_at_once() -> None:
    leases = _leases(a=LIVE)
    asked, answers = threading.Event(), list[bool]()

    def host() -> None:
        asked.wait(5)
        answers.append(leases.may_trade("a"))

    thread = threading.Thread(target=host)
    thread.start()
    leases.latch.set(KillStatus("ENGAGING", "", "", T0))
    asked.set()
    thread.join(5)
    assert answers == [False]


def test_a_freeze_takes_the_permission_to_close_in_its_scope_alone() -> None:
    demoted = Grant("paper", "paper", Decimal(0), True, PAPER.reasons)
    leases = _leases(a=LIVE, b=demoted)
    leases.latch.spared = frozenset("b")
    leases.latch.set(KillStatus("ENGAGED", "r", "ann", T0, action="freeze"))
    assert (leases.may_close("a"), leases.may_close("b")) == (False, True)
    assert leases.entitlement("b").may_close


# -- before the first tick, and after the last one


def test_an_unknown_name_has_no_lease_that_ends_while_others_have_one() -> None:
    clock = VirtualClock(T0)
    leases = _leases(clock, a=LIVE)
    held = leases.entitlement("a")
    assert (held.capital, held.valid_until_us) == (Decimal(1_000), T0 + 30_000_000)
    assert leases.entitlement("nobody").valid_until_us == 0


def test_nothing_is_granted_before_the_first_tick() -> None:
    leases = Leases(VirtualClock(T0))
    unknown = leases.entitlement("a")
    assert (unknown.mode, unknown.valid_until_us, unknown.capital) == ("none", 0, Decimal(0))
    assert (leases.knows("a"), leases.names()) == (False, ())
    leases.replace({"a": LIVE})
    assert (leases.knows("a"), leases.names()) == (True, ("a",))
    held = leases.entitlement("a")
    assert (held.mode, held.valid_until_us, leases.may_trade("a")) == ("reduce", 0, False)


def test_a_lease_that_ran_out_is_said_once_and_of_a_known_strategy_alone() -> None:
    clock = VirtualClock(T0)
    no_tick = Reason("lease", "no tick has renewed its lease")
    waiting = Grant(None, "reduce", Decimal(0), True, (no_tick,))
    leases = _leases(clock, a=LIVE, b=waiting)
    clock.advance(31)
    assert leases.reasons("a") == (Reason("lease", "its lease ran out"),)
    assert leases.reasons("b") == (no_tick,)
    assert [reason.kind for reason in leases.reasons("nobody")] == ["unknown"]


@pytest.mark.parametrize(
    ("grant", "reasons", "mode", "capital"),
    [
        (LIVE, (), "live", 1_000),
        (LIVE, (Reason("frozen", "x"),), "reduce", 0),
        (Grant("shadow", "shadow", Decimal(500), False), (Reason("stage", "x"),), "shadow", 500),
    ],
)
def test_other_reasons_make_a_live_permission_one_to_reduce(
    grant: Grant, reasons: tuple[Reason, ...], mode: str, capital: int
) -> None:
    found = grant.with_reasons(reasons)
    assert found.mode == mode
    assert found.capital == capital
    assert found.reasons == reasons
    assert (found.stage, found.had_real) == (grant.stage, grant.had_real)
