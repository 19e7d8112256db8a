"""The alert actor: alone decides what becomes of an alert, and makes it durable before any network
call.

Two ways in: `SendAlert`, and rows of `alert_request` that other subsystems commit together with the
fact they tell of. Both are decided in one order, each request at its own instant, and everything
decided in one go is one commit: history, counts, keys, cursor and outbox. Only then are the
channels woken.

Storage that refuses does not silence a CRITICAL alert: it leaves from memory, at once, and is
written when a later commit succeeds. If the process ends before that, a request that left this way
is sent a second time by the next one: twice rather than never.

An alert that waits for room, a summary that is not due yet and storage that refuses are looked at
again by a timer: a host that drives the ticks may make none for hours.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import trio

from ...runtime import (
    ActorStopped,
    Clock,
    MailboxFull,
    Ref,
    Rejected,
    Timer,
    handles,
    handles_batch,
)
from ...wire.alert import (
    AlertOutcome,
    AlertPage,
    AlertReceipt,
    AlertsWaiting,
    ConsumeAlertRequests,
    DeliverFromMemory,
    Level,
    OutgoingAlert,
    RecentAlerts,
    SendAlert,
    Wake,
)
from ...wire.errors import AlertRefused
from ..persistence import DurableActor, Refusal
from .core import NO_CHANGES, Alert, AlertSettings, Changes, Decided, Draft, Gates, accepted
from .schema import (
    Recorded,
    load_cursor,
    load_gates,
    load_last_id,
    load_origin,
    load_requests,
    recent,
    record,
    world_id,
)

__all__ = ["REQUESTS_MAX", "UNWRITTEN_MAX", "AlertActor"]

# Requests of one commit: a backlog of any size is worked off with bounded memory and bounded
# transactions.
REQUESTS_MAX = 4_096

# Storage that does not answer by then refuses, and a CRITICAL alert leaves from memory.
APPEND_DEADLINE_S = 5.0

# CRITICAL alerts that wait in memory for storage to heal. The gates let at most 50 a minute out;
# the rest of this room is for the suppressed ones.
UNWRITTEN_MAX = 1_000

# From one look to the next without a message: at least, and after storage refused.
LOOK_MIN_S, REFUSED_LOOK_S = 1.0, 5.0

_NOTHING_OPEN = AlertReceipt(0, AlertOutcome.DEDUPED, 0)

_log = logging.getLogger("fundops.alert")

_Answer = AlertReceipt | Rejected


class AlertActor(DurableActor):
    """Needs the actor ``persistence``, and one ``channel.<name>`` for each of `channels`."""

    messages = SendAlert | AlertsWaiting | ConsumeAlertRequests | RecentAlerts
    append_deadline_s = APPEND_DEADLINE_S

    def __init__(
        self, path: Path, clock: Clock, settings: AlertSettings, channels: Sequence[str]
    ) -> None:
        super().__init__(path)
        self._clock = clock
        self._settings = settings
        self._channel_names = tuple(channels)
        self._channels: tuple[Ref, ...] = ()
        self._gates = Gates(settings)
        self._cursor = 0  # id of the last request consumed
        self._next_id = 1
        # Alerts sent from memory and not written yet. Requests are kept by id, since their rows
        # still wait too.
        self._unwritten: deque[Decided] = deque()  # at most UNWRITTEN_MAX
        self._unwritten_requests: dict[int, Decided] = {}
        self._unwritten_changes: Changes = NO_CHANGES
        self._left_from_memory = 0
        self._storage_refuses = False
        self._origin = ""
        self._look: Timer | None = None  # the next one without a message

    def load(self) -> None:
        """Cursor, ids and gates from the rows; what left from memory and is not written stays."""
        self._origin = load_origin(self._reader)
        self._cursor = load_cursor(self._reader)
        self._next_id = load_last_id(self._reader) + 1
        for number in [number for number in self._unwritten_requests if number <= self._cursor]:
            del self._unwritten_requests[number]
        unwritten = [*self._unwritten, *self._unwritten_requests.values()]
        self._gates = load_gates(self._reader, self._settings, unwritten, self._unwritten_changes)

    async def begin(self) -> None:
        """Consume the requests that an earlier life left."""
        self._channels = tuple(self.context.ref(f"channel.{name}") for name in self._channel_names)
        with suppress(MailboxFull):  # then the message that fills it consumes the requests
            self.context.ref(self.context.name).tell_nowait(AlertsWaiting())

    # -- messages

    @handles_batch(SendAlert)
    async def send(self, messages: list[SendAlert]) -> list[_Answer]:
        """Senders that wait at the same time share one commit."""
        now_us = self._clock.now_us()
        checked = [_checked(message, now_us) for message in messages]
        _, answers, _ = await self._work([one for one in checked if isinstance(one, Alert)], now_us)
        following = iter(answers)
        return [one if isinstance(one, AlertRefused) else next(following) for one in checked]

    @handles_batch(AlertsWaiting)
    async def waiting(self, messages: list[AlertsWaiting]) -> list[None]:
        """Consume; storage that refuses has been logged, and the next message tries again."""
        await self._work([], self._clock.now_us())
        return [None] * len(messages)

    @handles(ConsumeAlertRequests)
    async def consume(self, _: ConsumeAlertRequests) -> int:
        """Refused with what storage refused, if it did; the requests then wait for the next
        time.
        """
        consumed, _answers, refusal = await self._work([], self._clock.now_us())
        if refusal is not None:
            raise refusal
        return consumed

    @handles(RecentAlerts)
    def recent(self, message: RecentAlerts) -> AlertPage:
        """The newest alerts, newest first, with counts over the whole history."""
        return recent(self._reader, message.limit)

    # -- decide -> append -> apply

    async def _work(
        self, sends: Sequence[Alert], now_us: int
    ) -> tuple[int, list[_Answer], Refusal | None]:
        """Decide the stored requests, then `sends`: how many requests, an answer for each send,
        what storage said.
        """
        consumed = 0
        while True:
            refusal = await self.load_again()
            requests = load_requests(self._reader, self._cursor, REQUESTS_MAX)
            last = len(requests) < REQUESTS_MAX
            draft = self._gates.draft(
                AlertOutcome.QUEUED if self._channels else AlertOutcome.NO_CHANNEL
            )
            answers = self._decide(draft, requests, sends if last else ())
            if last:
                draft.pass_time(now_us)
            if refusal is None:
                refusal = await self._append(draft, requests[-1][0] if requests else self._cursor)
            if refusal is not None:
                self._look_after(REFUSED_LOOK_S)
                return consumed, self._leave_from_memory(requests, sends, refusal, now_us), refusal
            consumed += len(requests)
            if last:
                self._look_after((draft.next_us - now_us) / 1_000_000)
                return consumed, answers, None

    def _look_after(self, wait_s: float) -> None:
        """Look again without a message, at the latest `wait_s` from now; infinite: never."""
        if math.isinf(wait_s):
            return
        # The instant is the domain's, whose clock may be set back while the timer runs.
        wait_s = min(max(wait_s, LOOK_MIN_S), self._settings.window_s)
        if self._look is not None and self._look.active:
            if self._look.deadline <= trio.current_time() + wait_s:
                return
            self._look.cancel()
        self._look = self.context.after(wait_s, AlertsWaiting())

    def _decide(
        self, draft: Draft, requests: Sequence[tuple[int, Alert]], sends: Sequence[Alert]
    ) -> list[_Answer]:
        draft.decided.extend(self._unwritten)
        for number, alert in requests:
            if (
                number in self._unwritten_requests
            ):  # decided when it left: only its row is still missing
                draft.decided.append(self._unwritten_requests[number])
                continue
            draft.pass_time(alert.at_us)
            draft.decide(alert)
        answers: list[_Answer] = []
        for alert in sends:
            draft.pass_time(alert.at_us)
            decided = draft.decide(alert)
            if decided is None:
                answers.append(_NOTHING_OPEN)
            else:
                alert_id = self._next_id + len(draft.decided) - 1
                answers.append(AlertReceipt(alert_id, decided.outcome, decided.count))
        return answers

    async def _append(self, draft: Draft, cursor: int) -> Refusal | None:
        """Make the draft durable, then true, then wake the channels; or say why it could not be
        stored.
        """
        if not draft.decided and not draft.changes.waiting and cursor == self._cursor:
            return None
        facts = Recorded(
            self._next_id,
            draft.decided,
            self._unwritten_changes.then(draft.changes),
            cursor,
            self._channel_names,
            self._settings.queue_max,
        )
        refusal = await self.append(record(facts))
        if refusal is not None:
            return refusal
        self._gates.apply(draft)
        self._next_id += len(draft.decided)
        self._cursor = cursor
        self._unwritten.clear()
        self._unwritten_requests.clear()
        self._unwritten_changes = NO_CHANGES
        # The channels too may have stopped while storage refused.
        if self._storage_refuses or any(
            one.outcome is AlertOutcome.QUEUED for one in draft.decided
        ):
            self._wake_channels()
        self._note_storage(None)
        return None

    # -- when storage refuses

    def _leave_from_memory(
        self,
        requests: Sequence[tuple[int, Alert]],
        sends: Sequence[Alert],
        refusal: Refusal,
        now_us: int,
    ) -> list[_Answer]:
        """CRITICAL alerts pass the same gates and leave; all others are refused, or stay stored
        requests.
        """
        self._note_storage(refusal)
        draft = self._gates.draft(
            AlertOutcome.UNPERSISTED if self._channels else AlertOutcome.NO_CHANNEL
        )
        for late in draft.let_out(now_us, only=Level.CRITICAL):
            self._keep_unwritten(late)
        for number, alert in requests:
            if alert.level is Level.CRITICAL and number not in self._unwritten_requests:
                decided = draft.decide(alert)
                if decided is not None:
                    self._unwritten_requests[number] = decided
        answers: list[_Answer] = []
        for alert in sends:
            if alert.level is not Level.CRITICAL:
                answers.append(refusal)
                continue
            decided = draft.decide(alert)
            if decided is None:
                answers.append(_NOTHING_OPEN)
                continue
            self._keep_unwritten(decided)
            answers.append(AlertReceipt(0, decided.outcome, decided.count))
        self._gates.apply(draft)
        self._unwritten_changes = self._unwritten_changes.then(draft.changes)
        for decided in draft.decided:
            if decided.outcome is AlertOutcome.UNPERSISTED:
                self._deliver_from_memory(decided.alert)
        return answers

    def _keep_unwritten(self, decided: Decided) -> None:
        if len(self._unwritten) >= UNWRITTEN_MAX:
            lost = self._unwritten.popleft().alert
            _log.error(
                "CRITICAL alert %r will be missing from the history: too many wait for storage",
                lost.title,
            )
        self._unwritten.append(decided)

    def _deliver_from_memory(self, alert: Alert) -> None:
        self._left_from_memory += 1
        # Never the id of a stored alert: receivers would take the later of the two for a
        # repetition.
        number = world_id(
            self._origin, f"memory-{alert.at_us}-{self.context.epoch}-{self._left_from_memory}"
        )
        outgoing = OutgoingAlert(
            number, alert.at_us, alert.level, alert.category, alert.title, alert.message
        )
        for channel in self._channels:
            try:
                channel.tell_nowait(DeliverFromMemory(outgoing))
            except (MailboxFull, ActorStopped) as lost:
                _log.critical(
                    "CRITICAL alert %r could not be stored and cannot be sent: %s",
                    alert.title,
                    lost,
                )

    def _note_storage(self, refusal: Refusal | None) -> None:
        """Log the first refusal and the healing, not every attempt between."""
        if refusal is not None and not self._storage_refuses:
            _log.error("alerts cannot be stored; CRITICAL ones leave from memory: %s", refusal)
        elif refusal is None and self._storage_refuses:
            _log.warning("alerts can be stored again")
        self._storage_refuses = refusal is not None

    def _wake_channels(self) -> None:
        for channel in self._channels:
            # A full mailbox holds a Wake already; a stopped channel finds its rows when it starts
            # again.
            with suppress(MailboxFull, ActorStopped):
                channel.tell_nowait(Wake())


def _checked(message: SendAlert, at_us: int) -> Alert | AlertRefused:
    try:
        return accepted(message, at_us)
    except AlertRefused as refusal:
        return refusal
