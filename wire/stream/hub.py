"""The hub: fan-out of states and events to all clients, each message encoded once.

There is no queue per client. A client is a `Cursor`: for each topic, the last seq that it was
given. `Hub.pending` returns the messages with higher seqs. So a client that reads nothing for an
hour costs a few integers, and gets the latest values when it reads again.

A *state* topic holds the latest value of each key, ordered by its last change. An *event* topic is
a ring of the newest events; a client that is behind the ring gets one `Gap` for the events that
left it. Seqs rise strictly within a topic and have no meaning across topics.
Nothing here does I/O or starts a task.
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

# Events per topic. Enough for a browser that slept through a busy minute; older events are in the
# database.
RING_SIZE = 1_024
# Removed keys per topic that are remembered, so that clients learn of the removal. A client that is
# behind more removals than that gets a new snapshot.
REMOVED_MAX = 1_024

_RANKS: dict[Level | None, int] = {None: 0} | {level: rank for rank, level in enumerate(Level)}
_UNRANKED = len(_RANKS)  # an event without a level passes every filter


class Cursor:
    """The position of one client in its topics.

    Made by `Hub.attach`, which keeps it until `Hub.detach`.
    """

    __slots__ = ("_bell", "rank_min", "seqs")

    def __init__(self, min_level: Level | None = None) -> None:
        self.seqs: dict[
            str, int | None
        ] = {}  # by followed topic; None: a state topic without a snapshot yet
        self.rank_min = _RANKS[min_level]
        self._bell = trio.Event()

    def wake(self) -> None:
        """Let `wait` return, because messages may be pending."""
        self._bell.set()

    async def wait(self) -> None:
        """Return once `wake` was called since the last `wait`.

        The caller must then take all pending messages before its next await. A cancelled wait loses
        no wake.
        """
        await self._bell.wait()
        self._bell = trio.Event()


class _Change(NamedTuple):
    seq: int
    encoded: bytes


class _State:
    """One state topic."""

    def __init__(self, topic: str, removed_max: int) -> None:
        self.topic = topic
        self.removed_max = removed_max
        self.seq = 0  # of the newest change
        self.forgotten_seq = 0  # removals up to this seq are no longer remembered
        self.values: dict[str, bytes] = {}  # encoded, by key
        self.changes: dict[
            str, _Change
        ] = {}  # the last change of each present or remembered key, ordered by seq
        self.removed: dict[str, int] = {}  # seq of the removal, by key, oldest first
        self._snapshot: bytes | None = None  # encoded; None: not asked for since the last change

    def publish(self, values: Mapping[str, Any]) -> bool:
        """Replace the values. Returns whether any changed."""
        # Encode all values before changing any, so that a value that cannot be encoded leaves the
        # topic unchanged.
        fresh = {
            key: msgspec.json.encode(value) for key, value in values.items() if value is not None
        }
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
        self.changes.pop(key, None)  # a dict keeps the place of a key that is set again
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
        # Oldest changes first, so that a key that changes all the time does not delay the others.
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
    """One event topic: a ring of its newest events."""

    def __init__(self, topic: str, size: int) -> None:
        self.topic = topic
        self.size = size
        self.items: deque[_Item] = deque()
        self.dropped_seq = 0  # events up to this seq are not held
        self.newest_seq = 0

    def publish(self, seq: int, data: Any, level: Level | None) -> None:
        if seq <= self.newest_seq:
            raise ConfigError(
                "seq", f"{seq} of an event in {self.topic!r} does not come after {self.newest_seq}"
            )
        rank = _UNRANKED if level is None else _RANKS[level]
        self.items.append(_Item(seq, encode(Event(self.topic, seq, data)), rank))
        self.newest_seq = seq
        if len(self.items) > self.size:
            self.dropped_seq = self.items.popleft().seq

    def begin(self, seq: int) -> None:
        if self.newest_seq:
            raise ConfigError(
                "seq", f"event topic {self.topic!r} has begun already, at {self.newest_seq}"
            )
        self.dropped_seq = self.newest_seq = seq

    def start_for(self, since: int | None) -> int:
        """The seq after which a client begins.

        A `since` beyond the newest seq comes from a database that was restored since then: begin as
        a new client.
        """
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
    """The state topics, the event topics, and the cursors of the clients that follow them."""

    def __init__(self, *, ring_size: int = RING_SIZE, removed_max: int = REMOVED_MAX) -> None:
        self._states: dict[str, _State] = {
            topic: _State(topic, removed_max) for topic in STATE_TOPICS
        }
        self._rings: dict[str, _Ring] = {topic: _Ring(topic, ring_size) for topic in EVENT_TOPICS}
        self._topics: dict[str, _State | _Ring] = {**self._states, **self._rings}
        self._cursors: set[Cursor] = set()

    # -- publishing

    def publish_state(self, topic: str, values: Mapping[str, Any]) -> None:
        """Replace the values of a state topic.

        A key that is missing, or whose value is None, is removed.

        Each key that changed gets the next seq of the topic.

        Raises: `ConfigError` when `topic` is not a state topic; `TypeError` for a value that cannot
        be encoded, and the topic is then unchanged.
        """
        if self._state(topic).publish(values):
            self._wake(topic)

    def publish_event(self, topic: str, seq: int, data: Any, *, level: Level | None = None) -> None:
        """Append an event.

        A client with a `min_level` above `level` does not get it; with None every client does.

        Raises: `ConfigError` when `topic` is not an event topic, or `seq` not higher than the last
        one.
        """
        self._ring(topic).publish(seq, data, level)
        self._wake(topic)

    def begin_events(self, topic: str, after_seq: int) -> None:
        """Begin a topic after events that exist and are not held: those up to `after_seq`.

        Raises: `ConfigError` when the topic has events already, or is not an event topic.
        """
        self._ring(topic).begin(after_seq)

    def newest_seq(self, topic: str) -> int:
        """The seq of the newest event of an event topic; 0 before the first.

        Raises: `ConfigError`.
        """
        return self._ring(topic).newest_seq

    # -- clients

    @property
    def clients(self) -> int:
        """Number of attached cursors."""
        return len(self._cursors)

    def attach(
        self,
        topics: Iterable[str],
        *,
        since: Mapping[str, int] | None = None,
        min_level: Level | None = None,
    ) -> Cursor:
        """A new cursor that follows these topics; unknown ones are left out.

        `since` holds the last seq seen, by event topic. Without one an event topic begins with the
        oldest event held.
        """
        cursor = Cursor(min_level)
        self._cursors.add(cursor)
        self.follow(cursor, topics, since=since)
        return cursor

    def follow(
        self, cursor: Cursor, topics: Iterable[str], *, since: Mapping[str, int] | None = None
    ) -> list[str]:
        """Add topics to a cursor.

        Returns the names that are not topics. `since` as for `attach`.
        """
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
        """Remove topics from a cursor. Topics that it does not follow are ignored."""
        for topic in topics:
            cursor.seqs.pop(topic, None)

    def detach(self, cursor: Cursor) -> None:
        """Forget the cursor. Idempotent."""
        self._cursors.discard(cursor)

    def pending(self, cursor: Cursor, *, limit: int | None = None) -> list[bytes]:
        """The encoded messages after the cursor, in the order to send them.

        The cursor moves past them.

        With a `limit` there are at most that many per topic; the caller asks again until none is
        pending.
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
