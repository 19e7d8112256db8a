"""A withdrawal with its fees: the record when the ledger does not book it. By plain calls."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from fundops.actors.host import Heard
from fundops.actors.oversight.closing import leaving_with, with_flows
from fundops.actors.oversight.fees import FeeSettings, FeeState
from fundops.actors.oversight.round import Round
from fundops.actors.oversight.schema import Memory
from fundops.actors.oversight.settings import OversightSettings
from fundops.actors.oversight.steps.withdrawals import withdrawn
from fundops.runtime import ActorCrashed, FundopsError
from fundops.wire.errors import InsufficientFunds, OutcomeUnknown
from fundops.wire.guard import GuardState
from fundops.wire.ledger import ExternalFlow, LedgerTotals, PostMany, ReadTotals, Withdraw

UNIT = 10**8
NOW_US = 1_767_571_200_000_000


def _ports(answer: FundopsError) -> Any:
    """The ledger knows no withdrawal, and answers so when it is asked to book one."""

    async def ask(name: str, request: object) -> Any:
        if isinstance(request, PostMany):
            raise answer
        return LedgerTotals(0, 0, 0, 1, {}, (), {}) if isinstance(request, ReadTotals) else ()

    async def append(statements: object) -> None:
        return None

    return SimpleNamespace(
        ask=ask,
        append=append,
        clock=SimpleNamespace(now_us=lambda: NOW_US),
        clock_watch=SimpleNamespace(is_suspect=lambda: False),
        settings=OversightSettings(ledger_enabled=True, fees=FeeSettings(0, 20.0)),
    )


@pytest.mark.parametrize(
    ("answer", "waits"),
    [
        (OutcomeUnknown("no answer"), True),
        (ActorCrashed("ledger", 1, "PostMany"), True),
        (InsufficientFunds("CASH", Decimal(5_800), Decimal(1)), False),
    ],
    ids=["unknown", "crashed", "refused"],
)
async def test_a_withdrawal_stays_in_the_record_until_its_outcome_is_known(
    answer: FundopsError, waits: bool
) -> None:
    guard = GuardState(external_minor=50_000 * UNIT, units=50_000.0 * UNIT, nav_minor=58_000 * UNIT)
    fees = FeeState(at_us=NOW_US, crystallised_us=NOW_US, performance_minor=2_000 * UNIT)
    tick = Round(
        heard=Heard((), {}, {}, 0.0, False, NOW_US, True, 0),
        memory=Memory(guard=guard, fees=fees),
    )
    said, effects = await withdrawn(_ports(answer), tick, Withdraw(5_800, key="w"))
    assert said is answer
    assert isinstance(effects.stored, Memory)
    assert isinstance(effects.memory, Memory)
    assert effects.stored.leaving is not None
    assert (effects.stored.leaving.key, effects.stored.leaving.amount_minor) == ("w", 5_800 * UNIT)
    # Left out, the fee of the same units would be charged twice, or of the next ones never.
    assert effects.memory.leaving == (effects.stored.leaving if waits else None)
    assert effects.memory.fees == fees


def test_a_withdrawal_that_costs_no_fee_has_nothing_to_note() -> None:
    guard = GuardState(external_minor=50_000 * UNIT, units=50_000.0 * UNIT, nav_minor=58_000 * UNIT)
    memory = Memory(guard=guard, fees=FeeState(at_us=NOW_US, crystallised_us=NOW_US))
    for percent, noted in ((0.0, False), (20.0, True)):
        settings = OversightSettings(ledger_enabled=True, fees=FeeSettings(0, percent))
        totals = LedgerTotals(0, 0, 0, 1, {}, (), {})
        found = leaving_with(memory, settings, 5_800 * UNIT, "w", totals, NOW_US)
        assert (found is not None) is noted


@pytest.mark.parametrize(("seq", "waits"), [(6, True), (7, False)])
def test_a_withdrawal_is_seen_with_the_totals_that_contain_it(seq: int, waits: bool) -> None:
    paid, left = 5_800 * UNIT, 50_000 * UNIT
    guard = GuardState(external_minor=left, units=1.0 * left, nav_minor=left, seq=5)
    memory = Memory(guard=guard, redeemed={7: paid})
    external = left if waits else left - paid

    def seen(memory: Memory) -> Memory:
        after, _ = with_flows(
            memory, OversightSettings(), (), external_minor=external, seq=seq, now_us=NOW_US
        )
        return after

    after = seen(memory)
    assert after.redeemed == ({7: paid} if waits else {})
    assert after.guard.nav_minor == external
    assert seen(after) == after, "the same totals change nothing again"


def test_the_fee_of_units_that_leave_counts_those_that_a_deposit_bought_before_them() -> None:
    guard = GuardState(external_minor=100 * UNIT, units=100.0 * UNIT, nav_minor=100 * UNIT, seq=5)
    settings = OversightSettings(ledger_enabled=True, fees=FeeSettings(0, 20.0))
    flows = (ExternalFlow(6, 100 * UNIT, 0), ExternalFlow(8, -108 * UNIT, 20 * UNIT))
    after, priced = with_flows(
        Memory(guard=guard), settings, flows, external_minor=92 * UNIT, seq=8, now_us=NOW_US
    )
    assert [flow.nav_minor for flow in priced] == [100 * UNIT, 216 * UNIT]
    # Of a gain of 20 the fee is 4, and half of all units leave.
    assert [(fee.kind, fee.amount_minor) for fee in after.owed] == [("performance", 2 * UNIT)]
