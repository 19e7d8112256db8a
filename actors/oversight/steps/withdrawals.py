"""Withdrawals with their fees: the management fee in full and the performance fee of the units that
leave are booked before the money leaves, in one commit of the ledger.

The record notes the bookings before the ledger is asked. When the answer is lost, the
key of the withdrawal tells whether all of it was booked.
"""

from __future__ import annotations

from msgspec.structs import replace

from ....runtime import ActorError, FundopsError, Rejected, in_pieces
from ....wire.errors import AmountError, OutcomeUnknown
from ....wire.ledger import Entries, Posted, PostMany, ReadTotals, Withdraw
from ....wire.money import positive_minor
from .. import closing, schema
from ..fees import charge_of
from ..round import Effects, Round
from ..schema import Leaving
from .step import Ports

__all__ = ["settled", "withdrawn"]


async def withdrawn(
    ports: Ports, tick: Round, event: Withdraw
) -> tuple[Posted | FundopsError, Effects]:
    """The entry of this withdrawal or the reason why it is not booked, and the memory after it.

    Raises: as the ledger does when there are no fees to book.
    """
    leaving = await _leaving(ports, tick, event)
    if leaving is None:
        return await ports.ask("ledger", event), Effects()
    before = replace(tick.memory, leaving=leaving)
    refusal = await ports.append((await in_pieces(schema.remembered(before)),))
    if refusal is not None:
        return refusal, Effects(stored=schema.load(ports.rows))
    kept = Effects(memory=before, stored=before)
    events = (*(charge_of(fee) for fee in leaving.fees), event)
    try:
        posted = (await ports.ask("ledger", PostMany(events)))[-1]
    except (OutcomeUnknown, ActorError) as silence:
        return silence, kept  # the next tick looks it up
    except Rejected as refused:
        return refused, replace(kept, memory=tick.memory)
    return posted, replace(kept, memory=closing.left(before, leaving, posted.seq))


async def _leaving(ports: Ports, tick: Round, event: Withdraw) -> Leaving | None:
    """The withdrawal with its fees; None: there are none, or the ledger will answer without them.

    Fees wait while the wall clock is suspect, and a repeated withdrawal has paid them.
    """
    if event.key is None or tick.memory.leaving is not None or ports.clock_watch.is_suspect():
        return None
    try:
        amount = positive_minor(event.amount).minor
    except AmountError:
        return None
    totals = await ports.ask("ledger", ReadTotals())
    leaving = closing.leaving_with(
        tick.memory, ports.settings, amount, event.key, totals, ports.clock.now_us()
    )
    if leaving is None or await _seq_of(ports, event.key) is not None:
        return None
    return leaving


async def settled(ports: Ports, tick: Round) -> Effects:
    """The memory after a withdrawal whose answer was lost. Raises: `FundopsError`; it stays."""
    leaving = tick.memory.leaving
    if leaving is None:
        return Effects()
    seq = await _seq_of(ports, leaving.key)
    if seq is None:
        return Effects(memory=replace(tick.memory, leaving=None))
    return Effects(memory=closing.left(tick.memory, leaving, seq))


async def _seq_of(ports: Ports, key: str) -> int | None:
    """The number of the entry with this key; None: there is none."""
    found = await ports.ask("ledger", Entries(key=key, limit=1))
    return found[0].seq if found else None
