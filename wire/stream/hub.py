"""The hub: fan-out of states and events to all clients, each message encoded and framed once.

There is no queue per client. A client is a `Cursor`: for each topic, the last seq that it was
given. `Hub.pending` returns the messages with higher seqs. So a client that reads nothing for an
hour costs a few integers, and gets the latest values when it reads again. Clients at the same
position share the next messages too, so that the rest of them costs little more than its write.

A *state* topic holds the latest value of each key, ordered by its last change. A client that has
the value before it gets the changed fields, every other one the whole value. A key may have a full
record beside its value, which only the clients get that ask for it by name. An *event* topic is a
ring of the newest events; a client that is behind the ring gets one `Gap` for the events that left
it. Seqs rise strictly within a topic and have no meaning across topics.
Nothing here does I/O or starts a task.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
import trio

from ...runtime import ConfigError
from ..alert import Level
from .frames import frame_of
from .protocol import (
    EVENT_TOPICS,
    PROCESS_TOPICS,
    STATE_TOPICS,
    Delta,
    Event,
    Gap,
    Patch,
    Resumed,
    Snapshot,
    encode,
)

__all__ = ["RING_SIZE", "Cursor", "Hub"]

# Events per topic. Enough for a browser that slept through a busy minute; older events are in the
# database.
RING_SIZE = 1_024
# Removed keys per topic that are remembered, so that clients learn of the removal. A client that is
# behind more removals than that gets a new snapshot.
REMOVED_MAX = 1_024

_RANKS: dict[Level | None, int] = {None: 0} | {level: rank for rank, level in enumerate(Level)}
_UNRANKED = len(_RANKS)  # an event without a level passes every filter

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NULL = msgspec.Raw(b"null")


def _wall_us() -> int:
    return time.time_ns() // 1_000


class Cursor:
    """The position of one client in its topics.

    Made by `Hub.attach`, which keeps it until `Hub.detach`.
    """

    __slots__ = ("_bell", "details", "notices", "on_wake", "rank_min", "seqs", "synced", "turn")

    def __init__(self, min_level: Level | None = None) -> None:
        # Called instead of letting `wait` return; None: `wait` returns.
        self.on_wake: Callable[[], None] | None = None
        # The position. Other cursors may share the two mappings, so a change begins with a copy.
        self.seqs: dict[
            str, int | None
        ] = {}  # by followed topic; None: a state topic without a snapshot yet
        # By state topic: the seq when all of it was given. Between two such moments a client may
        # miss a value below `seqs`, because a newer one of the same key took its place.
        self.synced: dict[str, int] = {}
        self.rank_min = _RANKS[min_level]
        # By topic and name: the seq of the full record that was given; None: none was.
        self.details: dict[str, dict[str, int | None]] = {}
        self.notices: list[bytes] = []  # to send before everything else
        self.turn = 0  # index of the topic that comes first, so that none starves behind another
        self._bell = trio.Event()

    @property
    def is_plain(self) -> bool:
        """Whether its position alone decides what it is given next."""
        return not (self.notices or self.details or self.turn)

    def wake(self) -> None:
        """Let `wait` return, because messages may be pending."""
        if self.on_wake is not None:
            self.on_wake()
        else:
            self._bell.set()

    async def wait(self) -> None:
        """Return once `wake` was called since the last `wait`.

        The caller must then take all pending messages before its next await. A cancelled wait loses
        no wake.
        """
        await self._bell.wait()
        self._bell = trio.Event()


class _Change:
    """The last change of one key, framed when it is first asked for."""

    __slots__ = ("_whole", "before", "key", "patch", "seq", "topic", "value", "wall_us")

    def __init__(
        self,
        topic: str,
        seq: int,
        key: str,
        value: bytes | None,
        before: int,
        patch: bytes | None,
        wall_us: int,
    ) -> None:
        self.topic = topic
        self.seq = seq
        self.key = key
        self.value = value  # encoded; None: the key was removed
        self.before = before  # seq of the value that the patch follows on
        self.patch = patch  # framed; None: there is only the whole value
        self.wall_us = wall_us
        self._whole: bytes | None = None

    def frame_for(self, seq: int) -> bytes:
        """The message for a client that had all values at this seq."""
        return self.patch if self.patch is not None and self.before <= seq else self.whole()

    def whole(self) -> bytes:
        if self._whole is None:
            value = None if self.value is None else msgspec.Raw(self.value)
            self._whole = frame_of(
                encode(Delta(self.topic, self.seq, self.key, value, self.wall_us))
            )
        return self._whole


def _changed_fields(before: bytes, after: bytes) -> dict[str, msgspec.Raw] | None:
    """The fields of one encoded record that differ, null for one that is gone.

    None: the values are no records, or a patch saves nothing because all fields changed.
    """
    if not (before.startswith(b"{") and after.startswith(b"{")):
        return None
    old, new = _fields.decode(before), _fields.decode(after)
    changed = {name: raw for name, raw in new.items() if raw != old.get(name)}
    changed |= {name: _NULL for name in old if name not in new}
    return changed if len(changed) < len(new) else None


class _State:
    """One state topic."""

    def __init__(self, topic: str, removed_max: int, wall_us: Callable[[], int]) -> None:
        self.topic = topic
        self.removed_max = removed_max
        self.wall_us = wall_us
        self.newest_seq = 0  # of the newest change
        self.forgotten_seq = 0  # removals up to this seq are no longer remembered
        self.values: dict[str, bytes] = {}  # encoded, by key
        self.changes: dict[
            str, _Change
        ] = {}  # the last change of each present or remembered key, ordered by seq
        self.removed: dict[str, int] = {}  # seq of the removal, by key, oldest first
        self.details: dict[str, _Change] = {}  # the full records, by key
        self._snapshot: bytes | None = None  # framed; None: not asked for since the last change

    def publish(self, values: Mapping[str, Any], details: Mapping[str, Any] | None = None) -> bool:
        """Replace the values, and the full records when there are any. Returns whether any
        changed.
        """
        # Encode all values before changing any, so that a value that cannot be encoded leaves the
        # topic unchanged.
        fresh = _encoded(values)
        full = None if details is None else _encoded(details)
        before = self.newest_seq
        for key in [key for key in self.values if key not in fresh]:
            del self.values[key]
            self._change(key, None, None)
            self.removed[key] = self.newest_seq
        for key, value in fresh.items():
            old = self.values.get(key)
            if old != value:
                self.values[key] = value
                self.removed.pop(key, None)
                self._change(key, value, old)
        if full is not None:
            self._publish_details(full)
        while len(self.removed) > self.removed_max:
            oldest = next(iter(self.removed))
            self.forgotten_seq = self.removed.pop(oldest)
            del self.changes[oldest]
        return self.newest_seq != before

    def _publish_details(self, full: Mapping[str, bytes]) -> None:
        for key in [key for key in self.details if key not in full]:
            del self.details[key]
        for key, value in full.items():
            known = self.details.get(key)
            if known is None or known.value != value:
                old = None if known is None else known.value
                seq = 0 if known is None else known.seq
                self.details[key] = self._next_change(key, value, old, seq)

    def _change(self, key: str, value: bytes | None, old: bytes | None) -> None:
        # A dict keeps the place of a key that is set again.
        known = self.changes.pop(key, None)
        before = self.newest_seq if known is None else known.seq
        self.changes[key] = self._next_change(key, value, old, before)
        self._snapshot = None

    def _next_change(
        self, key: str, value: bytes | None, old: bytes | None, before: int
    ) -> _Change:
        self.newest_seq += 1
        wall_us, patch = self.wall_us(), None
        if value is not None and old is not None:
            fields = _changed_fields(old, value)
            if fields is not None:
                patch = frame_of(encode(Patch(self.topic, self.newest_seq, key, fields, wall_us)))
        return _Change(self.topic, self.newest_seq, key, value, before, patch, wall_us)

    def snapshot(self) -> bytes:
        if self._snapshot is None:
            state = {key: msgspec.Raw(value) for key, value in self.values.items()}
            self._snapshot = frame_of(encode(Snapshot(self.topic, self.newest_seq, state)))
        return self._snapshot

    def pending(
        self, cursor: Cursor, limit: int | None, room: int | None
    ) -> tuple[list[bytes], bool]:
        """The messages, and whether they are all that there are."""
        seq, asked = cursor.seqs[self.topic], cursor.details.get(self.topic)
        if seq is None or seq < self.forgotten_seq:
            cursor.seqs[self.topic] = cursor.synced[self.topic] = self.newest_seq
            if asked:  # the snapshot has replaced the full records
                cursor.details[self.topic] = dict.fromkeys(asked)
            return [self.snapshot()], not asked
        synced = cursor.synced[self.topic]
        newer: list[_Change] = []
        for change in reversed(self.changes.values()):
            if change.seq <= seq:
                break
            newer.append(change)
        # Oldest changes first, so that a key that changes all the time does not delay the others.
        newer.reverse()
        messages: list[bytes] = []
        for change in newer:
            if len(messages) == limit or (room is not None and room <= 0):
                return messages, False
            cursor.seqs[self.topic] = change.seq
            if asked is not None and change.key in asked and change.key in self.details:
                continue  # the full record says it too
            frame = change.frame_for(synced)
            messages.append(frame)
            if room is not None:
                room -= len(frame)
        cursor.seqs[self.topic] = cursor.synced[self.topic] = self.newest_seq
        if asked:
            messages += self._pending_details(asked)
        return messages, True

    def _pending_details(self, asked: dict[str, int | None]) -> list[bytes]:
        messages = []
        for key, given in asked.items():
            change = self.details.get(key)
            if change is None:
                asked[key] = None
            elif given is None or given < change.seq:
                messages.append(change.whole() if given is None else change.frame_for(given))
                asked[key] = change.seq
        return messages

    def ask(self, cursor: Cursor, names: Iterable[str]) -> None:
        """Give the cursor the full records of these names, instead of those before."""
        before = cursor.details.pop(self.topic, {})
        wanted = {name: before.get(name) for name in names}
        if wanted:
            cursor.details[self.topic] = wanted
        for name in before.keys() - wanted.keys():
            # Its patches were left out while the full record told them.
            change = self.changes.get(name)
            if change is not None and cursor.seqs.get(self.topic) is not None:
                cursor.notices.append(change.whole())


def _encoded(values: Mapping[str, Any]) -> dict[str, bytes]:
    """The values without those that are None, and records without such fields."""
    return {
        key: msgspec.json.encode(_without_nones(value) if isinstance(value, dict) else value)
        for key, value in values.items()
        if value is not None
    }


def _without_nones(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value is not None}


class _Item(NamedTuple):
    seq: int
    encoded: bytes
    rank: int


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
        self.items.append(_Item(seq, frame_of(encode(Event(self.topic, seq, data))), rank))
        self.newest_seq = seq
        if len(self.items) > self.size:
            self.dropped_seq = self.items.popleft().seq

    def begin(self, seq: int) -> None:
        if self.newest_seq:
            raise ConfigError(
                "seq", f"event topic {self.topic!r} has begun already, at {self.newest_seq}"
            )
        self.dropped_seq = self.newest_seq = seq

    def resumes(self, since: int | None) -> bool:
        """Whether a client that has seen `since` goes on from there.

        A `since` beyond the newest seq comes from a database that was restored since then: begin as
        a new client.
        """
        known = since is not None and since <= self.newest_seq
        return known and self.topic not in PROCESS_TOPICS

    def start_of(self, backlog: int | None, rank_min: int) -> int:
        """The seq after which a new client begins, to get its `backlog` newest events.

        None: all that are held.
        """
        if backlog is None:
            return self.dropped_seq
        if not backlog:
            return self.newest_seq
        left = backlog
        for item in reversed(self.items):
            left -= item.rank >= rank_min
            if not left:
                return item.seq - 1
        return self.dropped_seq

    def pending(
        self, cursor: Cursor, limit: int | None, room: int | None
    ) -> tuple[list[bytes], bool]:
        """The messages, and whether they are all that there are."""
        seq = cursor.seqs[self.topic]
        assert seq is not None
        if seq == self.newest_seq:
            return [], True
        messages: list[bytes] = []
        if seq < self.dropped_seq:
            messages.append(frame_of(encode(Gap(self.topic, seq + 1, self.dropped_seq))))
            seq = self.dropped_seq
        # From the newest backwards: a client is near the end, and a deque is slow in its middle.
        newer: list[_Item] = []
        for item in reversed(self.items):
            if item.seq <= seq:
                break
            newer.append(item)
        done = True
        for item in reversed(newer):
            if len(messages) == limit or (room is not None and room <= 0):
                done = False
                break
            seq = item.seq
            if item.rank >= cursor.rank_min:
                messages.append(item.encoded)
                if room is not None:
                    room -= len(item.encoded)
        cursor.seqs[self.topic] = seq
        return messages, done


class _Batch(NamedTuple):
    """The frames that every plain cursor at one position is given, and its position after them."""

    version: int  # of the hub
    rank_min: int
    seqs: dict[str, int | None]
    synced: dict[str, int]
    frames: bytes
    next_seqs: dict[str, int | None]
    next_synced: dict[str, int]

    def is_for(self, cursor: Cursor, version: int) -> bool:
        # Clients that were given the last batch share its mappings, which is quick to see.
        return (
            version == self.version
            and (cursor.seqs is self.seqs or cursor.seqs == self.seqs)
            and (cursor.synced is self.synced or cursor.synced == self.synced)
            and cursor.rank_min == self.rank_min
        )


class Hub:
    """The state topics, the event topics, and the cursors of the clients that follow them.

    `wall_us` gives the real time in microseconds that state changes are stamped with.
    """

    def __init__(
        self,
        *,
        ring_size: int = RING_SIZE,
        removed_max: int = REMOVED_MAX,
        wall_us: Callable[[], int] = _wall_us,
    ) -> None:
        self._states: dict[str, _State] = {
            topic: _State(topic, removed_max, wall_us) for topic in STATE_TOPICS
        }
        self._rings: dict[str, _Ring] = {topic: _Ring(topic, ring_size) for topic in EVENT_TOPICS}
        self._topics: dict[str, _State | _Ring] = {**self._states, **self._rings}
        self._cursors: set[Cursor] = set()
        self._version = 0  # rises whenever something is published
        self._batch: _Batch | None = None  # the last one that was taken
        self.wall_us = wall_us

    # -- publishing

    def publish_state(
        self, topic: str, values: Mapping[str, Any], *, details: Mapping[str, Any] | None = None
    ) -> None:
        """Replace the values of a state topic.

        A key that is missing, or whose value is None, is removed. So is a field of a dict that is
        None; a Struct leaves such fields out with `omit_defaults`. `details` are the full records,
        by key, for the clients that ask for them; None: those of before.

        Each key that changed gets the next seq of the topic.

        Raises: `ConfigError` when `topic` is not a state topic; `TypeError` for a value that cannot
        be encoded, and the topic is then unchanged.
        """
        if self._state(topic).publish(values, details):
            self._news(topic)

    def publish_event(self, topic: str, seq: int, data: Any, *, level: Level | None = None) -> None:
        """Append an event.

        A client with a `min_level` above `level` does not get it; with None every client does.

        Raises: `ConfigError` when `topic` is not an event topic, or `seq` not higher than the last
        one.
        """
        self._ring(topic).publish(seq, data, level)
        self._news(topic)

    def begin_events(self, topic: str, after_seq: int) -> None:
        """Begin a topic after events that exist and are not held: those up to `after_seq`.

        Raises: `ConfigError` when the topic has events already, or is not an event topic.
        """
        self._ring(topic).begin(after_seq)
        self._version += 1

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
        backlog: int | None = None,
    ) -> Cursor:
        """A new cursor that follows these topics; unknown ones are left out.

        `since` holds the last seq seen, by event topic: such a topic is resumed, which the client
        is told first. Every other event topic begins with its `backlog` newest events; None: with
        the oldest event held.
        """
        cursor = Cursor(min_level)
        self._cursors.add(cursor)
        self.follow(cursor, topics, since=since, backlog=backlog)
        return cursor

    def follow(
        self,
        cursor: Cursor,
        topics: Iterable[str],
        *,
        since: Mapping[str, int] | None = None,
        backlog: int | None = None,
    ) -> list[str]:
        """Add topics to a cursor.

        Returns the names that are not topics. `since` and `backlog` as for `attach`.
        """
        unknown = []
        cursor.seqs = dict(cursor.seqs)
        for topic in topics:
            if topic in cursor.seqs:
                continue
            if topic in self._rings:
                ring, seen = self._rings[topic], (since or {}).get(topic)
                if seen is not None and ring.resumes(seen):
                    cursor.seqs[topic] = seen
                    notice = Resumed(topic, seen + 1, ring.newest_seq)
                    cursor.notices.append(frame_of(encode(notice)))
                else:
                    cursor.seqs[topic] = ring.start_of(backlog, cursor.rank_min)
            elif topic in self._states:
                cursor.seqs[topic] = None
            else:
                unknown.append(topic)
        cursor.wake()
        return unknown

    def unfollow(self, cursor: Cursor, topics: Iterable[str]) -> None:
        """Remove topics from a cursor. Topics that it does not follow are ignored."""
        cursor.seqs = dict(cursor.seqs)
        for topic in topics:
            cursor.seqs.pop(topic, None)
            cursor.details.pop(topic, None)

    def ask(self, cursor: Cursor, keys: Mapping[str, Iterable[str]]) -> list[str]:
        """Give a cursor the full records of these names, by topic, instead of those before.

        Returns the topics that are no state topics that it follows.
        """
        unknown = []
        for topic, names in keys.items():
            if topic in self._states and topic in cursor.seqs:
                self._states[topic].ask(cursor, names)
            else:
                unknown.append(topic)
        cursor.wake()
        return unknown

    def detach(self, cursor: Cursor) -> None:
        """Forget the cursor. Idempotent."""
        self._cursors.discard(cursor)

    def pending(
        self, cursor: Cursor, *, limit: int | None = None, bytes_max: int | None = None
    ) -> list[bytes]:
        """The frames of the messages after the cursor, in the order to send them.

        The cursor moves past them.

        With a `limit` there are at most that many per topic, with `bytes_max` no frame begins
        beyond so many bytes; the caller asks again until none is pending.
        """
        messages, cursor.notices = cursor.notices, []
        cursor.seqs, cursor.synced = dict(cursor.seqs), dict(cursor.synced)
        room = bytes_max
        seqs, count = cursor.seqs, len(cursor.seqs)
        # Only those with news, which are few: this runs for each client at each change.
        news = [
            (turn, topic)
            for turn, (name, seq) in enumerate(seqs.items())
            if (topic := self._topics[name]).newest_seq != seq or name in cursor.details
        ]
        if cursor.turn:
            news.sort(key=lambda item: (item[0] - cursor.turn) % count)
        for turn, topic in news:
            if room is not None and room <= 0:
                cursor.turn = turn
                return messages
            found, done = topic.pending(cursor, limit, room)
            messages += found
            if room is not None:
                room -= sum(map(len, found))
                if not done and room <= 0:
                    # The others come before the rest of this one.
                    cursor.turn = (turn + 1) % count
                    return messages
        cursor.turn = 0
        return messages

    def take(self, cursor: Cursor, bytes_max: int) -> bytes:
        """The frames of `pending`, joined. All callers pass the same `bytes_max`."""
        batch = self._batch
        is_plain = cursor.is_plain
        if batch is not None and is_plain and batch.is_for(cursor, self._version):
            cursor.seqs, cursor.synced = batch.next_seqs, batch.next_synced
            return batch.frames
        seqs, synced = cursor.seqs, cursor.synced
        frames = b"".join(self.pending(cursor, bytes_max=bytes_max))
        if is_plain and cursor.is_plain:
            self._batch = _Batch(
                self._version, cursor.rank_min, seqs, synced, frames, cursor.seqs, cursor.synced
            )
        return frames

    def snapshot(self, topic: str) -> bytes:
        """The framed snapshot of a state topic. Raises: `ConfigError`."""
        return self._state(topic).snapshot()

    def _state(self, topic: str) -> _State:
        if topic not in self._states:
            raise ConfigError("topic", f"{topic!r} is not one of {', '.join(self._states)}")
        return self._states[topic]

    def _ring(self, topic: str) -> _Ring:
        if topic not in self._rings:
            raise ConfigError("topic", f"{topic!r} is not one of {', '.join(self._rings)}")
        return self._rings[topic]

    def _news(self, topic: str) -> None:
        self._version += 1
        for cursor in self._cursors:
            if topic in cursor.seqs:
                cursor.wake()
