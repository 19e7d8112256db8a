"""The hub: what every client of the status stream is to know, encoded once and shared by all of them. No I/O, no tasks.

There is no queue per client. A client is a `Cursor`: the last seq it was given, by topic. `Hub.pending` compares that
with what is held and returns what is newer, so a client that stands still for an hour costs a few integers, and gets
the latest values when it moves again.

A *state* topic holds the latest value of each key, ordered by when it last changed. An *event* topic is a ring; what
has left it is named to the client as one gap. Seqs rise strictly within a topic and mean nothing across topics.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

import msgspec
import trio

from ...runtime import ConfigError
from ..alert import Level
from .protocol import EVENT_TOPICS, STATE_TOPICS, Delta, Event, Gap, Snapshot, encode

__all__ = ["RING_SIZE", "Cursor", "Hub"]

# Enough for a browser that slept over a busy minute; whoever needs more reads the database.
RING_SIZE = 1_024
# Removed keys are remembered so that clients hear of it. Past this many, clients that far behind start afresh.
REMOVED_MAX = 1_024

_RANKS: dict[Level | None, int] = {None: 0} | {level: rank for rank, level in enumerate(Level)}
_UNRANKED = len(_RANKS)  # an event without a level passes every filter


class Cursor:
    """How far one client has come. Made by `Hub.attach`, which keeps it until `Hub.detach`."""

    __slots__ = ("_bell", "rank_min", "seqs")

    def __init__(self, min_level: Level | None = None) -> None:
        self.seqs: dict[str, int | None] = {}  # by followed topic; None: a state topic that needs a snapshot
        self.rank_min = _RANKS[min_level]
        self._bell = trio.Event()

    def wake(self) -> None:
        """Let `wait` return: there may be something new."""
        self._bell.set()

    async def wait(self) -> None:
        """Return when woken since the last `wait`. The caller then asks for all that is pending, with no await first.

        A cancelled wait loses nothing.
        """
        await self._bell.wait()
        self._bell = trio.Event()


class _Change(NamedTuple):
    seq: int
    encoded: bytes


class _State:
    """One state topic. `changes` has each key ever set, ordered by seq, except removed keys long forgotten."""

    def __init__(self, topic: str, removed_max: int) -> None:
        self.topic = topic
        self.removed_max = removed_max
        self.seq = 0
        self.forgotten_seq = 0  # removals up to here are no longer known
        self.values: dict[str, bytes] = {}
        self.changes: dict[str, _Change] = {}
        self.removed: dict[str, int] = {}
        self._snapshot: bytes | None = None

    def publish(self, values: Mapping[str, Any]) -> bool:
        # Everything is encoded before anything changes: a value that cannot be encoded leaves the topic as it was.
        fresh = {key: msgspec.json.encode(value) for key, value in values.items() if value is not None}
        before = self.seq
        for key in [key for key in self.values if key not in fresh]:
            del self.values[key]
            self._change(key, None)
            self.removed[key] = self.seq
        for key, value in fresh.items():
            if self.values.get(key) != value:
                self.values[key] = value
                self.removed.pop(key, None)
                self._change(key, msgspec.Raw(value))
        while len(self.removed) > self.removed_max:
            oldest = next(iter(self.removed))
            self.forgotten_seq = self.removed.pop(oldest)
            del self.changes[oldest]
        return self.seq != before

    def _change(self, key: str, value: msgspec.Raw | None) -> None:
        self.seq += 1
        self.changes.pop(key, None)  # so that the key moves to the end
        self.changes[key] = _Change(self.seq, encode(Delta(self.topic, self.seq, key, value)))
        self._snapshot = None

    def snapshot(self) -> bytes:
        if self._snapshot is None:
            state = {key: msgspec.Raw(value) for key, value in self.values.items()}
            self._snapshot = encode(Snapshot(self.topic, self.seq, state))
        return self._snapshot

    def pending(self, cursor: Cursor, limit: int | None) -> list[bytes]:
        seq = cursor.seqs[self.topic]
        if seq is None or seq < self.forgotten_seq:
            cursor.seqs[self.topic] = self.seq
            return [self.snapshot()]
        newer: list[_Change] = []
        for change in reversed(self.changes.values()):
            if change.seq <= seq:
                break
            newer.append(change)
        # The oldest changes first: a key that changes all the time must not hold up the others.
        newer.reverse()
        batch = newer[:limit]
        if batch:
            cursor.seqs[self.topic] = batch[-1].seq
        return [change.encoded for change in batch]


class _Item(NamedTuple):
    seq: int
    encoded: bytes
    rank: int


def _seq_of(item: _Item) -> int:
    return item.seq


class _Ring:
    """One event topic: its newest events."""

    def __init__(self, topic: str, size: int) -> None:
        self.topic = topic
        self.size = size
        self.items: deque[_Item] = deque()
        self.dropped_seq = 0  # events up to here are not held
        self.newest_seq = 0

    def publish(self, seq: int, data: Any, level: Level | None) -> None:
        if seq <= self.newest_seq:
            raise ConfigError("seq", f"{seq} of an event in {self.topic!r} does not come after {self.newest_seq}")
        rank = _UNRANKED if level is None else _RANKS[level]
        self.items.append(_Item(seq, encode(Event(self.topic, seq, data)), rank))
        self.newest_seq = seq
        if len(self.items) > self.size:
            self.dropped_seq = self.items.popleft().seq

    def begin(self, seq: int) -> None:
        if self.newest_seq:
            raise ConfigError("seq", f"event topic {self.topic!r} has begun already, at {self.newest_seq}")
        self.dropped_seq = self.newest_seq = seq

    def start_for(self, since: int | None) -> int:
        """Where a client begins. A `since` from the future is of a database that was since restored: start afresh."""
        return self.dropped_seq if since is None or since > self.newest_seq else since

    def pending(self, cursor: Cursor, limit: int | None) -> list[bytes]:
        seq = cursor.seqs[self.topic]
        assert seq is not None
        messages: list[bytes] = []
        if seq < self.dropped_seq:
            messages.append(encode(Gap(self.topic, seq + 1, self.dropped_seq)))
            seq = self.dropped_seq
        start = bisect_right(self.items, seq, key=_seq_of)
        for item in islice(self.items, start, None):
            if len(messages) == limit:
                break
            seq = item.seq
            if item.rank >= cursor.rank_min:
                messages.append(item.encoded)
        cursor.seqs[self.topic] = seq
        return messages


class Hub:
    """State topics and event topics, and the cursors of those who follow them."""

    def __init__(self, *, ring_size: int = RING_SIZE, removed_max: int = REMOVED_MAX) -> None:
        self._states: dict[str, _State] = {topic: _State(topic, removed_max) for topic in STATE_TOPICS}
        self._rings: dict[str, _Ring] = {topic: _Ring(topic, ring_size) for topic in EVENT_TOPICS}
        self._topics: dict[str, _State | _Ring] = {**self._states, **self._rings}
        self._cursors: set[Cursor] = set()

    # -- what is new

    def publish_state(self, topic: str, values: Mapping[str, Any]) -> None:
        """The whole of a state topic as it is now; keys that are missing, or None, are gone.

        Each key that changed gets the next seq of the topic. Raises: `ConfigError` for no state topic; `TypeError`
        for a value that cannot be encoded, and then nothing has changed.
        """
        if self._state(topic).publish(values):
            self._wake(topic)

    def publish_event(self, topic: str, seq: int, data: Any, *, level: Level | None = None) -> None:
        """One more event. `level` lets clients with a `min_level` leave it out.

        Raises: `ConfigError` for no event topic, and for a seq that does not come after the last one.
        """
        self._ring(topic).publish(seq, data, level)
        self._wake(topic)

    def begin_events(self, topic: str, after_seq: int) -> None:
        """Before the first event: those up to `after_seq` exist and will never be held."""
        self._ring(topic).begin(after_seq)

    def newest_seq(self, topic: str) -> int:
        """Of an event topic; 0 before the first."""
        return self._ring(topic).newest_seq

    # -- who follows

    @property
    def clients(self) -> int:
        """Cursors that are attached."""
        return len(self._cursors)

    def attach(
        self, topics: Iterable[str], *, since: Mapping[str, int] | None = None, min_level: Level | None = None
    ) -> Cursor:
        """A cursor that follows these topics; unknown ones are left out.

        `since` has the last seq seen, by event topic; an event topic without one begins with all that is held.
        """
        cursor = Cursor(min_level)
        self._cursors.add(cursor)
        self.follow(cursor, topics, since=since)
        return cursor

    def follow(self, cursor: Cursor, topics: Iterable[str], *, since: Mapping[str, int] | None = None) -> list[str]:
        """Add topics to a cursor; the answer is those that do not exist."""
        unknown = []
        for topic in topics:
            if topic in cursor.seqs:
                continue
            if topic in self._rings:
                cursor.seqs[topic] = self._ring(topic).start_for((since or {}).get(topic))
            elif topic in self._states:
                cursor.seqs[topic] = None
            else:
                unknown.append(topic)
        cursor.wake()
        return unknown

    def unfollow(self, cursor: Cursor, topics: Iterable[str]) -> None:
        for topic in topics:
            cursor.seqs.pop(topic, None)

    def detach(self, cursor: Cursor) -> None:
        """Forget the cursor. Idempotent."""
        self._cursors.discard(cursor)

    def pending(self, cursor: Cursor, *, limit: int | None = None) -> list[bytes]:
        """Everything newer than the cursor, which moves past it: encoded messages in the order to send them.

        With a `limit`, at most so many per topic, and the caller asks again until nothing is pending.
        """
        messages: list[bytes] = []
        for topic in cursor.seqs:
            messages += self._topics[topic].pending(cursor, limit)
        return messages

    def snapshot(self, topic: str) -> bytes:
        """The encoded snapshot of a state topic. Raises: `ConfigError`."""
        return self._state(topic).snapshot()

    def _state(self, topic: str) -> _State:
        if topic not in self._states:
            raise ConfigError("topic", f"{topic!r} is not one of {', '.join(self._states)}")
        return self._states[topic]

    def _ring(self, topic: str) -> _Ring:
        if topic not in self._rings:
            raise ConfigError("topic", f"{topic!r} is not one of {', '.join(self._rings)}")
        return self._rings[topic]

    def _wake(self, topic: str) -> None:
        for cursor in self._cursors:
            if topic in cursor.seqs:
                cursor.wake()
