"""The end of a session, as a change of oversight's memory. Pure.

Each session ends once, in order. Its NAV line, its fees and the cursor that says it has ended are
one commit; promotion's sample and the ledger's marks are taken after that commit, each once
(`Ending`). A session whose end fell into downtime is ended with the last known NAV and the fees up
to its end; any other one with the figures of the tick that ends it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Literal, NamedTuple

import msgspec

from ...wire.guard import PricedFlow
from ...wire.ledger import ExternalFlow, LedgerTotals
from ...wire.persistence import Statement
from ..calendar import Calendar, End
from ..guard.units import after_flow
from ..guard.worth import performance_fee
from . import fees
from .fees import Owed
from .schema import Ending, Leaving, Memory, nav_line
from .settings import OversightSettings

__all__ = [
    "Closing",
    "begin",
    "close",
    "earned_minor",
    "ends",
    "had_tick",
    "leaving_with",
    "left",
    "nav_minor",
    "taken",
    "took_place",
    "with_earned",
    "with_fees",
    "with_flows",
    "with_management",
]

# The end of a session is known this exactly at least; a slower ticker knows it by its interval.
LATE_S = 60.0


def ends(
    memory: Memory,
    calendar: Calendar,
    named: Sequence[str],
    *,
    now_us: int,
    alive_since_us: int,
    interval_s: float | None,
) -> tuple[End, ...]:
    """The sessions to end now, oldest first. `named` are those that the host says have ended."""
    newest_us = memory.ended_us or memory.since_us
    if named or memory.named:
        return tuple(_named(memory.session, newest_us, named, now_us))
    cursor = memory.session or calendar.newest(memory.since_us).session
    late_us = int(1_000_000 * max(LATE_S, 3 * (interval_s or 0)))
    return tuple(
        end._replace(missed=end.at_us < alive_since_us or now_us - end.at_us > late_us)
        for end in calendar.after(cursor, now_us)
    )


def _named(last: str, newest_us: int, named: Sequence[str], now_us: int) -> Iterator[End]:
    for session in named:
        if session > last:
            # Lines are ordered by their instants, also when the clock went back.
            at_us = max(now_us, newest_us + 1)
            yield End(session, newest_us, at_us)
            last, newest_us = session, at_us


def had_tick(memory: Memory, end: End, now_us: int) -> bool:
    """Whether a tick fell into the session; one at the instant of its end counts."""
    return took_place(end, memory.tick_us) or now_us <= end.at_us


def took_place(end: End, at_us: int) -> bool:
    """Whether the instant fell into the session; that of its end belongs to it."""
    return end.began_us < at_us <= end.at_us


def nav_minor(memory: Memory, capital_minor: int) -> int:
    """NAV at the last look of the guard; until it could take one, the capital."""
    guard = memory.guard
    return guard.nav_minor if guard.units or guard.peak_per_unit else capital_minor


class Closing(NamedTuple):
    """The memory after some sessions have ended, and the lines of NAV that say so."""

    memory: Memory
    lines: tuple[Statement, ...]


def begin(
    memory: Memory,
    settings: OversightSettings,
    due: Sequence[End],
    figures: Mapping[str, tuple[msgspec.Raw, ...]],
    *,
    now_us: int,
    capital_minor: int,
) -> Closing:
    """The memory at the begin of a tick: fees accrued up to now, the management fee of each session
    in `due` owed, and the missed ones among them ended with these `figures`, as the record keeps
    them.

    The management fee rests on NAV of the tick before, in the missed sessions too.
    """
    basis, net = memory.guard.nav_minor, _net_minor(memory)
    lines: list[Statement] = []
    for end in due:
        if memory.guard.units:
            fee = fees.accrue(memory.fees, settings.fees, min(end.at_us, now_us), nav_minor=basis)
            amount, fee = fees.post_management(fee)
            net -= amount
            memory = _valued(msgspec.structs.replace(memory, fees=fee), settings, net)
            memory = _owing(memory, settings, Owed("management", amount, end.session))
        if end.missed:
            nav = nav_minor(memory, capital_minor)
            known = figures[end.session]
            memory, more = close(memory, settings, end, known, nav_minor=nav)
            net = _net_minor(memory)
            lines.extend(more)
    if memory.guard.units:
        fee = fees.accrue(memory.fees, settings.fees, now_us, nav_minor=basis)
        memory = _valued(msgspec.structs.replace(memory, fees=fee), settings, net)
    if settings.fees.fee_posting == "tick" and not due:
        memory = with_management(memory, settings, now_us)
    return Closing(memory, tuple(lines))


def close(
    memory: Memory,
    settings: OversightSettings,
    end: End,
    statuses: tuple[msgspec.Raw, ...],
    *,
    nav_minor: int,
) -> Closing:
    """The memory after this session's end; its management fee is owed already.

    `statuses` are the engine's, as the record keeps them: promotion samples them, and the ledger
    marks its positions with them. Without any promotion hears that the session has passed, which
    ages its evidence, and the ledger marks nothing.
    """
    guard, fee = memory.guard, memory.fees
    final = 0
    if fees.due(fee, settings.fees, end.at_us):
        final, fee = fees.crystallise(fee, end.at_us, nav_minor=nav_minor, units=guard.units)
    ending = Ending(
        end.session,
        end.missed,
        sample=settings.promotion_enabled,
        marks=settings.ledger_enabled and bool(statuses),
        statuses=statuses,
        at_us=end.at_us,
    )
    is_taken = ending.sample or ending.marks
    after = msgspec.structs.replace(
        memory,
        fees=fee,
        session=end.session,
        ended_us=end.at_us,
        opening_minor=nav_minor,
        ending=(*memory.ending, ending) if is_taken else memory.ending,
    )
    line = nav_line(end.at_us, end.session, nav_minor, guard.drawdown, missed=end.missed)
    return Closing(_owing(after, settings, Owed("performance", final, end.session)), (line,))


def with_management(memory: Memory, settings: OversightSettings, now_us: int) -> Memory:
    """The memory with the management fee up to now owed, between two ends of sessions."""
    if not memory.guard.units:
        return memory
    fee = fees.accrue(memory.fees, settings.fees, now_us, nav_minor=memory.guard.nav_minor)
    amount, fee = fees.post_management(fee)
    after = msgspec.structs.replace(memory, fees=fee)
    return _owing_between(after, settings, "management", amount, now_us)


def leaving_with(
    memory: Memory,
    settings: OversightSettings,
    amount_minor: int,
    key: str,
    totals: LedgerTotals,
    now_us: int,
) -> Leaving | None:
    """The fees that are booked with a withdrawal: the management fee in full, the performance fee
    of the units that leave. None: there are none, or the guard has not seen all that the ledger
    has; then its next look prices the withdrawal, and the fee is booked after it.
    """
    guard = memory.guard
    unseen = earned_minor(with_earned(memory, totals)) != guard.earned_minor or any(
        flow.seq > (guard.seq or 0) for flow in totals.flows
    )
    if not guard.units or unseen:
        return None
    net = _net_minor(memory)
    fee = fees.accrue(memory.fees, settings.fees, now_us, nav_minor=guard.nav_minor)
    memory = _valued(msgspec.structs.replace(memory, fees=fee), settings, net)
    management, fee = fees.post_management(memory.fees)
    performance, fee = fees.with_flow(
        fee, -amount_minor, nav_minor=memory.guard.nav_minor, units=guard.units
    )
    session, fee = fees.named(fee, now_us)
    owed = (Owed("management", management, session), Owed("performance", performance, session))
    due = tuple(fee for fee in owed if fee.amount_minor)
    return Leaving(key, amount_minor, due, fee) if due else None


def left(memory: Memory, leaving: Leaving, seq: int) -> Memory:
    """The memory once this withdrawal is booked, as entry `seq`."""
    return msgspec.structs.replace(
        memory,
        fees=leaving.after,
        leaving=None,
        redeemed={**memory.redeemed, seq: leaving.amount_minor},
    )


def with_flows(
    memory: Memory,
    settings: OversightSettings,
    flows: Iterable[ExternalFlow],
    *,
    external_minor: int,
    seq: int,
    now_us: int,
) -> tuple[Memory, tuple[PricedFlow, ...]]:
    """The memory with the flows since the guard's last look, and those of them that are known one
    by one, with NAV before each.

    `external_minor` and `seq` are the ledger's now. A flow is priced after the P&L that the ledger
    booked before it; the engine's P&L since that look counts after it. All others come first, as
    one sum. The performance fee of the units that leave is owed, but for withdrawals whose fee is
    booked.
    """
    guard = memory.guard
    new = [flow for flow in flows if guard.seq is not None and flow.seq > guard.seq]
    one_by_one = {flow.seq for flow in new}
    rest = external_minor - guard.external_minor - sum(flow.amount_minor for flow in new)
    paid = {of for of in memory.redeemed if of <= seq and of not in one_by_one}
    steps = [(0, rest, guard.earned_minor, paid)]
    for group in _one_by_one(new):
        amount = sum(flow.amount_minor for flow in group)
        booked = {flow.seq for flow in group if flow.seq in memory.redeemed}
        steps.append((group[-1].seq, amount, group[0].earned_minor, booked))
    priced = list[PricedFlow]()
    for last, amount, earned_minor, booked in steps:
        memory = _earned(memory, settings, earned_minor)
        if last:
            priced.append(PricedFlow(amount, memory.guard.nav_minor, last))
        memory = _with_flow(memory, settings, amount, booked, now_us)
    return memory, tuple(priced)


def _one_by_one(flows: Iterable[ExternalFlow]) -> list[list[ExternalFlow]]:
    """Each flow by itself, but for a correction: it takes a flow back and puts one in its place."""
    found: list[list[ExternalFlow]] = []
    for flow in flows:
        last = found[-1][-1] if found else None
        if last is not None and last.reverses and flow.seq == last.seq + 1:
            found[-1].append(flow)
        else:
            found.append([flow])
    return found


def with_earned(memory: Memory, totals: LedgerTotals) -> Memory:
    """The memory with the P&L that the ledger has booked without a strategy.

    An asset that was bought and has no price yet is worth nothing in the ledger. That is no loss
    that may stop the fund, so the gain of other assets then stands as it was.
    """
    converted = totals.converted_minor
    return msgspec.structs.replace(
        memory,
        earned_minor=totals.earned_minor,
        converted_minor=memory.converted_minor if converted is None else converted,
    )


def with_fees(memory: Memory, totals: LedgerTotals) -> Memory:
    """The memory with the fees that the ledger has booked, and fundops has not asked for."""
    asked = memory.fees.posted_minor - sum(fee.amount_minor for fee in memory.owed)
    return msgspec.structs.replace(memory, by_hand_minor=totals.fees_minor - asked)


def earned_minor(memory: Memory) -> int:
    """The P&L without a strategy, in all assets, as the guard is told it."""
    return memory.earned_minor + memory.converted_minor


def _earned(memory: Memory, settings: OversightSettings, earned_minor: int) -> Memory:
    """The memory at a later moment, at which the ledger has this P&L without a strategy."""
    guard = memory.guard
    if earned_minor == guard.earned_minor:
        return memory
    net = _net_minor(memory) + earned_minor - guard.earned_minor
    later = msgspec.structs.replace(guard, earned_minor=earned_minor)
    return _valued(msgspec.structs.replace(memory, guard=later), settings, net)


def _with_flow(
    memory: Memory, settings: OversightSettings, amount_minor: int, booked: Set[int], now_us: int
) -> Memory:
    """The memory after a flow at its NAV; `booked` are the withdrawals in it whose fee is booked.

    Their units have left the fees already.
    """
    guard, redeemed = memory.guard, _redeemed_minor(memory)
    final, fee = fees.with_flow(
        memory.fees,
        amount_minor + sum(memory.redeemed[seq] for seq in booked),
        nav_minor=guard.nav_minor - redeemed,
        units=_staying_units(memory),
    )
    after = msgspec.structs.replace(
        memory,
        fees=fee,
        redeemed={seq: one for seq, one in memory.redeemed.items() if seq not in booked},
        guard=msgspec.structs.replace(
            guard,
            nav_minor=guard.nav_minor + amount_minor,
            external_minor=guard.external_minor + amount_minor,
            units=after_flow(guard.units, guard.nav_minor, guard.price, amount_minor),
        ),
    )
    return _owing_between(after, settings, "performance", final, now_us)


def taken(memory: Memory, session: str, consumer: Literal["sample", "marks"]) -> Memory:
    """The memory after a consumer has taken what this session left for it."""
    left = []
    for ending in memory.ending:
        if ending.session == session:
            ending = msgspec.structs.replace(ending, **{consumer: False})
        if ending.sample or ending.marks:
            left.append(ending)
    return msgspec.structs.replace(memory, ending=tuple(left))


def _net_minor(memory: Memory) -> int:
    """NAV before the fees that are not final."""
    return memory.guard.nav_minor + memory.fees.accrued_minor


def _staying_units(memory: Memory) -> float:
    """The units without those of withdrawals that the guard has not seen."""
    guard, redeemed = memory.guard, _redeemed_minor(memory)
    return guard.units * (1 - redeemed / guard.nav_minor if guard.nav_minor > 0 else 1.0)


def _redeemed_minor(memory: Memory) -> int:
    return sum(memory.redeemed.values())


def _valued(memory: Memory, settings: OversightSettings, net_minor: int) -> Memory:
    """The memory with NAV after the fees of now, at the last known P&L."""
    net_minor -= memory.fees.management_minor
    rule, units = fees.terms(memory.fees, settings.fees), _staying_units(memory)
    performance = performance_fee(rule, net_minor - _redeemed_minor(memory), units)
    return msgspec.structs.replace(
        memory,
        fees=msgspec.structs.replace(memory.fees, performance_minor=performance),
        guard=msgspec.structs.replace(memory.guard, nav_minor=net_minor - performance),
    )


def _owing_between(
    memory: Memory,
    settings: OversightSettings,
    kind: Literal["management", "performance"],
    amount_minor: int,
    now_us: int,
) -> Memory:
    """The memory that owes a fee between two ends of sessions."""
    if not amount_minor:
        return memory
    session, fee = fees.named(memory.fees, now_us)
    after = msgspec.structs.replace(memory, fees=fee)
    return _owing(after, settings, Owed(kind, amount_minor, session))


def _owing(memory: Memory, settings: OversightSettings, fee: Owed) -> Memory:
    if not fee.amount_minor or not settings.ledger_enabled:
        return memory
    return msgspec.structs.replace(memory, owed=(*memory.owed, fee))
