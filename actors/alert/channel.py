"""A channel: one destination, one delivery in flight, and a queue that is the outbox table itself.

PENDING -> SENDING (durable before the first byte leaves) -> DELIVERED | FAILED. A delivery
that an earlier sender left SENDING is UNKNOWN at the next start, and one that has waited too long
is EXPIRED. A failed delivery is logged and not repeated.

The end of one delivery and the claim of the next are one commit, so a queue of n rows costs n + 1
of them. Each `Wake` delivers one row and then sends itself the next, which lets other messages, and
a stop, in between.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec
import trio

from ...runtime import (
    ActorStopped,
    Clock,
    ConfigError,
    FundopsError,
    MailboxFull,
    handles,
    handles_batch,
)
from ...wire.alert import DeliverFromMemory, OutgoingAlert, PendingDeliveries, TryDelivery, Wake
from ...wire.persistence import Statement
from ..persistence import DurableActor
from .schema import (
    claim,
    expire_pending,
    forget_sending,
    load_next,
    load_origin,
    load_pending_count,
    load_sending_count,
    release,
    settle,
)

__all__ = [
    "CRITICAL_EXPIRES_AFTER_S",
    "DEADLINE_S",
    "EXPIRES_AFTER_S",
    "ChannelActor",
    "Deliver",
    "DeliveryFailed",
]

# Storage that does not answer by then is left for the next `Wake`.
APPEND_DEADLINE_S = 5.0

# One deadline around the whole delivery: a server that drips defeats any deadline per read.
DEADLINE_S = 10.0

EXPIRES_AFTER_S = 15 * 60
CRITICAL_EXPIRES_AFTER_S = 24 * 60 * 60

_log = logging.getLogger("fundops.alert")


class DeliveryFailed(FundopsError):
    """The alert did not arrive. `reason` is fit for a log and a row: it names no URL."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Deliver(Protocol):
    """Brings one alert to its destination."""

    async def __call__(self, alert: OutgoingAlert, /) -> None:
        """Returned means delivered. Must end when cancelled. Raises: `DeliveryFailed`."""


class _Ended(msgspec.Struct, frozen=True):
    """A delivery whose end is not stored yet."""

    alert_id: int
    error: str | None


class ChannelActor(DurableActor):
    """The actor ``channel.<name>``. Needs the actor ``persistence``."""

    messages = Wake | DeliverFromMemory | PendingDeliveries | TryDelivery
    append_deadline_s = APPEND_DEADLINE_S

    def __init__(
        self,
        name: str,
        path: Path,
        deliver: Deliver,
        clock: Clock,
        *,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        if not 0 < deadline_s < float("inf"):
            raise ConfigError(
                "deadline_s", f"{deadline_s!r} is not a positive, finite number of seconds"
            )
        super().__init__(path)
        self._name = name
        self._deliver = deliver
        self._clock = clock
        self._deadline_s = deadline_s
        self._ended: _Ended | None = None
        # A row whose claim may or may not be durable; nothing of it has left.
        self._claimed: int | None = None
        self._recovered = False
        self._origin = ""

    def load(self) -> None:
        """The uuid of the database; the queue itself stays in its table."""
        self._origin = load_origin(self._reader)

    async def begin(self) -> None:
        """Settle the rows of an earlier life, then begin with the queue."""
        self._self = self.context.ref(self.context.name)
        await self._recover()
        self._wake_self()

    async def on_stop(self, reason: str) -> None:
        statements = self._settled()
        if self._claimed is not None:
            # Cut off while claiming: nothing has left, so the next life may send it without fear of
            # a second copy.
            statements += (release(self._claimed, self._name),)
        if statements:
            await self._store(statements)
        await super().on_stop(reason)

    # -- messages

    @handles_batch(Wake)
    async def wake(self, messages: list[Wake]) -> list[None]:
        """Deliver the next row; any number of wakes in a row are one."""
        while await self._deliver_next():
            if self._wake_self():
                break
            # Our mailbox is closed, since we are to stop: go on in hand, for as long as the grace
            # lasts.
        return [None] * len(messages)

    @handles(DeliverFromMemory)
    async def deliver_from_memory(self, message: DeliverFromMemory) -> None:
        """At once, before anything in the outbox, and once."""
        await self._attempt(message.alert)

    @handles(TryDelivery)
    async def try_delivery(self, message: TryDelivery) -> str | None:
        """None when the alert was delivered, or why not."""
        return await self._attempt(message.alert)

    @handles(PendingDeliveries)
    def pending(self, _: PendingDeliveries) -> int:
        """The number of alerts that this channel has neither delivered nor given up."""
        return load_pending_count(self._reader, self._name)

    # -- the queue

    async def _deliver_next(self) -> bool:
        """Store how the last delivery ended and claim the next row, in one commit; then deliver it.

        False when there is no row, or storage refuses: then the next `Wake` tries again.
        """
        if await self.load_again() is not None or not (self._recovered or await self._recover()):
            return False
        row = load_next(self._reader, self._name, self._claimed, self._origin)
        statements = (*self._settled(), *((claim(row, self._name),) if row else ()))
        if not statements:
            return False
        self._claimed = row.alert_id if row else None
        if not await self._store(statements):
            return False
        self._ended = self._claimed = None
        if row is None:
            return False
        self._ended = _Ended(row.alert_id, await self._attempt(row.alert))
        return True

    async def _attempt(self, alert: OutgoingAlert) -> str | None:
        """None when delivered, or why not."""
        error = await self._error_of(alert)
        if error is not None:
            _log.warning(
                "alert %s was not delivered through channel %s: %s", alert.id, self._name, error
            )
        return error

    async def _error_of(self, alert: OutgoingAlert) -> str | None:
        try:
            with trio.fail_after(self._deadline_s):
                await self._deliver(alert)
        except trio.TooSlowError:
            return f"TooSlowError: not done within {self._deadline_s:g} s"
        except DeliveryFailed as failure:
            return failure.reason
        except Exception as error:  # noqa: BLE001  an outsider's code: whatever it raises is a failed delivery
            # Its text may hold the URL, or anything else.
            return type(error).__name__
        return None

    def _settled(self) -> tuple[Statement, ...]:
        if self._ended is None:
            return ()
        return (settle(self._ended.alert_id, self._name, self._ended.error),)

    async def _recover(self) -> bool:
        """Give the rows that an earlier life left behind their state, before any other row is
        touched.
        """
        sending = load_sending_count(self._reader, self._name)
        now_us = self._clock.now_us()
        self._recovered = await self._store(
            (
                forget_sending(self._name),
                expire_pending(
                    self._name,
                    before_us=now_us - EXPIRES_AFTER_S * 1_000_000,
                    critical_before_us=now_us - CRITICAL_EXPIRES_AFTER_S * 1_000_000,
                ),
            )
        )
        if self._recovered and sending:
            _log.warning(
                "channel %s: %d delivery was cut off, its outcome is unknown", self._name, sending
            )
        return self._recovered

    async def _store(self, statements: Sequence[Statement]) -> bool:
        """Whether they are durable; if not, the next `Wake` tries again."""
        refusal = await self.append(statements)
        if refusal is not None:
            _log.warning("channel %s waits, its outbox cannot be written: %s", self._name, refusal)
        return refusal is None

    def _wake_self(self) -> bool:
        """False when no mail is taken any more."""
        try:
            with suppress(MailboxFull):  # something in it will be a Wake, or be followed by one
                self._self.tell_nowait(Wake())
        except ActorStopped:
            return False
        return True
