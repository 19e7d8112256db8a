"""The hub: states conflate, events never do, gaps are named, and a slow client costs nothing."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from fundops.runtime import ConfigError
from fundops.wire.alert import Level
from fundops.wire.stream.frames import payload_of
from fundops.wire.stream.hub import Cursor, Hub
from fundops.wire.stream.protocol import (
    Delta,
    Event,
    Gap,
    Patch,
    Resumed,
    ServerMessage,
    Snapshot,
    decode_server,
)
from fundops.wire.stream.records import DeliveryEvent, Recovery


def decoded(messages: Iterable[bytes]) -> list[ServerMessage]:
    found = [decode_server(payload_of(frame)) for frame in messages]
    return [message for message in found if message is not None]


def a_hub(**options: Any) -> Hub:
    return Hub(wall_us=lambda: 0, **options)


BATCH_BYTES = 300


def cut(frames: bytes) -> list[bytes]:
    """The single frames."""
    found = []
    while frames:
        length, head = frames[1], 2
        if length >= 126:
            head = 4 if length == 126 else 10
            length = int.from_bytes(frames[2:head], "big")
        found.append(frames[: head + length])
        frames = frames[head + length :]
    return found


def read(hub: Hub, cursor: Cursor, limit: int | None = None) -> list[ServerMessage]:
    return decoded(hub.pending(cursor, limit=limit))


# -- states


def test_the_first_look_at_a_state_is_a_snapshot() -> None:
    hub = a_hub()
    hub.publish_state("fund", {"nav": Decimal("100.10"), "halted": False})
    cursor = hub.attach(["fund"])
    assert read(hub, cursor) == [Snapshot("fund", 2, {"nav": "100.10", "halted": False})]
    assert read(hub, cursor) == []


def test_a_state_without_values_is_an_empty_snapshot() -> None:
    hub = a_hub()
    assert read(hub, hub.attach(["feeds"])) == [Snapshot("feeds", 0, {})]


def test_only_changed_keys_are_sent_each_with_the_next_seq() -> None:
    hub = a_hub()
    hub.publish_state("fund", {"a": 1, "b": 2, "c": 3})
    cursor = hub.attach(["fund"])
    hub.pending(cursor)
    hub.publish_state("fund", {"a": 1, "b": 20, "c": 30})
    assert read(hub, cursor) == [Delta("fund", 4, "b", 20), Delta("fund", 5, "c", 30)]


def test_a_missing_key_is_sent_as_null_and_so_is_a_none() -> None:
    hub = a_hub()
    hub.publish_state("fund", {"a": 1, "b": 2, "c": 3})
    cursor = hub.attach(["fund"])
    hub.pending(cursor)
    hub.publish_state("fund", {"b": None, "c": 3})
    assert read(hub, cursor) == [Delta("fund", 4, "a", None), Delta("fund", 5, "b", None)]
    assert decode_server(payload_of(hub.snapshot("fund"))) == Snapshot("fund", 5, {"c": 3})


def test_publishing_the_same_again_is_no_news() -> None:
    hub = a_hub()
    hub.publish_state("fund", {"a": [1, {"x": None}]})
    cursor = hub.attach(["fund"])
    hub.pending(cursor)
    hub.publish_state("fund", {"a": [1, {"x": None}]})
    assert hub.pending(cursor) == []


def test_a_slow_client_gets_the_latest_value_of_each_key_once() -> None:
    hub = a_hub()
    cursor = hub.attach(["fund"])
    hub.pending(cursor)
    for number in range(1_000):
        hub.publish_state("fund", {"a": number, "b": -number})
    assert read(hub, cursor) == [Delta("fund", 1_999, "a", 999), Delta("fund", 2_000, "b", -999)]


def test_a_key_that_never_rests_does_not_hold_up_the_others() -> None:
    hub = a_hub()
    cursor = hub.attach(["fund"])
    hub.pending(cursor)
    hub.publish_state("fund", {"busy": 0, "quiet": 0})
    hub.publish_state("fund", {"busy": 1, "quiet": 0})
    assert read(hub, cursor, limit=1) == [Delta("fund", 2, "quiet", 0)]
    hub.publish_state("fund", {"busy": 2, "quiet": 0})
    assert read(hub, cursor, limit=1) == [Delta("fund", 4, "busy", 2)]


def test_a_removed_key_that_comes_back_is_a_value_again() -> None:
    hub = a_hub()
    hub.publish_state("fund", {"a": 1})
    cursor = hub.attach(["fund"])
    hub.pending(cursor)
    hub.publish_state("fund", {})
    hub.publish_state("fund", {"a": 1})
    assert read(hub, cursor) == [Delta("fund", 3, "a", 1)]


def test_removals_too_old_to_be_remembered_make_a_snapshot() -> None:
    hub = a_hub(removed_max=2)
    cursor = hub.attach(["fund"])
    hub.pending(cursor)
    for number in range(3):
        hub.publish_state("fund", {str(number): number})
        hub.publish_state("fund", {})
    assert read(hub, cursor) == [Snapshot("fund", 6, {})]
    hub.publish_state("fund", {"z": 1})
    assert read(hub, cursor) == [Delta("fund", 7, "z", 1)]


def test_a_key_that_came_back_is_not_forgotten_with_its_removal() -> None:
    hub = a_hub(removed_max=1)
    hub.publish_state("fund", {"a": 1, "b": 1})
    cursor = hub.attach(["fund"])
    hub.publish_state("fund", {"b": 1})
    assert read(hub, cursor) == [Snapshot("fund", 3, {"b": 1})]
    hub.publish_state("fund", {"a": 2, "b": 1})
    hub.publish_state("fund", {"a": 2})
    assert read(hub, cursor) == [Delta("fund", 4, "a", 2), Delta("fund", 5, "b", None)]


def test_keys_that_come_and_go_do_not_pile_up() -> None:
    hub = a_hub(removed_max=8)
    cursor = hub.attach(["fund"])
    hub.pending(cursor)
    for number in range(1_000):
        hub.publish_state("fund", {f"order {number}": 1})
    assert sum(map(len, hub.pending(cursor))) < 100
    assert len(hub._states["fund"].changes) <= 9


def test_a_value_that_cannot_be_encoded_changes_nothing() -> None:
    hub = a_hub()
    hub.publish_state("fund", {"a": 1})
    with pytest.raises(TypeError):
        hub.publish_state("fund", {"a": 2, "b": object()})
    assert decode_server(payload_of(hub.snapshot("fund"))) == Snapshot("fund", 1, {"a": 1})


# -- patches


def record(**changed: Any) -> dict[str, dict[str, Any]]:
    return {"a": {"state": "running", "pnl": "1.00", "error": None} | changed}


def test_a_client_that_is_up_to_date_gets_the_changed_fields() -> None:
    hub = a_hub()
    hub.publish_state("strategies", record())
    cursor = hub.attach(["strategies"])
    hub.pending(cursor)
    hub.publish_state("strategies", record(pnl="2.00"))
    assert read(hub, cursor) == [Patch("strategies", 2, "a", {"pnl": "2.00"})]
    hub.publish_state("strategies", record(pnl="2.00", error="broken"))
    assert read(hub, cursor) == [Patch("strategies", 3, "a", {"error": "broken"})]


def test_a_client_that_missed_a_change_gets_the_whole_record() -> None:
    hub = a_hub()
    hub.publish_state("strategies", record())
    cursor = hub.attach(["strategies"])
    hub.pending(cursor)
    hub.publish_state("strategies", record(state="failed"))
    hub.publish_state("strategies", record(state="failed", pnl="2.00"))
    assert read(hub, cursor) == [Delta("strategies", 3, "a", {"state": "failed", "pnl": "2.00"})]


def test_a_field_that_is_gone_is_null_in_the_patch() -> None:
    hub = a_hub()
    hub.publish_state("strategies", {"a": {"w": 0, "x": 1, "y": 2}})
    cursor = hub.attach(["strategies"])
    hub.pending(cursor)
    hub.publish_state("strategies", {"a": {"w": 0, "x": 1}})
    assert read(hub, cursor) == [Patch("strategies", 2, "a", {"y": None})]
    hub.publish_state("strategies", {"a": {"w": 0, "x": 1, "z": 3}})
    assert read(hub, cursor) == [Patch("strategies", 3, "a", {"z": 3})]


def test_a_field_without_a_value_is_not_sent() -> None:
    hub = a_hub()
    hub.publish_state("strategies", record(), details=record())
    cursor = hub.attach(["strategies"])
    sent = {"state": "running", "pnl": "1.00"}
    assert read(hub, cursor) == [Snapshot("strategies", 2, {"a": sent})]
    hub.ask(cursor, {"strategies": ["a"]})
    assert read(hub, cursor) == [Delta("strategies", 2, "a", sent)]
    hub.publish_state("strategies", {"a": {"state": "running", "pnl": "1.00"}})
    assert read(hub, cursor) == []


def test_records_leave_out_the_fields_that_have_their_default() -> None:
    hub = a_hub()
    cursor = hub.attach(["recovery", "deliveries"])
    hub.publish_state("recovery", {"a": Recovery("HEALTHY", 0, 3)})
    hub.publish_event("deliveries", 1, DeliveryEvent(7, "log", "PENDING", 0))
    assert read(hub, cursor) == [
        Snapshot("recovery", 1, {"a": {"phase": "HEALTHY", "attempts": 0, "max": 3}}),
        Event(
            "deliveries",
            1,
            {"alert_id": 7, "channel": "log", "state": "PENDING", "attempts": 0},
        ),
    ]


def test_a_patch_is_framed_once_for_all_clients() -> None:
    hub = a_hub()
    hub.publish_state("strategies", record())
    cursors = [hub.attach(["strategies"]) for _ in range(2)]
    for cursor in cursors:
        hub.pending(cursor)
    hub.publish_state("strategies", record(pnl="2.00"))
    assert hub.pending(cursors[0])[0] is hub.pending(cursors[1])[0]


def test_clients_at_one_position_share_the_next_batch() -> None:
    hub = a_hub()
    hub.publish_state("strategies", record())
    first, second = (hub.attach(["strategies", "alerts"]) for _ in range(2))
    critical = hub.attach(["strategies", "alerts"], min_level=Level.CRITICAL)
    assert hub.take(first, 1_000) is hub.take(second, 1_000)
    hub.take(critical, 1_000)
    hub.publish_event("alerts", 1, {}, level=Level.INFO)
    frames = hub.take(first, 1_000)
    assert decoded(cut(frames)) == [Event("alerts", 1, {})]
    assert hub.take(second, 1_000) is frames
    assert hub.take(critical, 1_000) == hub.take(first, 1_000) == b""
    hub.unfollow(first, ["alerts"])
    hub.publish_event("alerts", 2, {})
    assert hub.take(first, 1_000) == b""
    assert decoded(cut(hub.take(second, 1_000))) == [Event("alerts", 2, {})]


# -- full records


def test_only_the_client_that_asks_by_name_gets_a_full_record() -> None:
    hub = a_hub()
    brief, full = {"a": {"n": 1}, "b": {"n": 1}}, {"a": {"n": 1, "more": [1]}, "b": {"n": 1}}
    hub.publish_state("promotion", brief, details=full)
    asking, other = hub.attach(["promotion"]), hub.attach(["promotion"])
    assert read(hub, asking) == read(hub, other) == [Snapshot("promotion", 4, brief)]
    assert hub.ask(asking, {"promotion": ["a"]}) == []
    assert read(hub, asking) == [Delta("promotion", 3, "a", full["a"])]
    full["a"] = {"n": 1, "more": [2]}
    hub.publish_state("promotion", brief, details=full)
    assert read(hub, asking) == [Patch("promotion", 5, "a", {"more": [2]})]
    assert read(hub, other) == []


def test_a_key_with_a_full_record_is_told_once() -> None:
    hub = a_hub()
    hub.publish_state("promotion", {"a": {"n": 1, "m": 1}}, details={"a": {"n": 1, "m": 1, "x": 1}})
    cursor = hub.attach(["promotion"])
    hub.ask(cursor, {"promotion": ["a"]})
    hub.pending(cursor)
    hub.pending(cursor)
    hub.publish_state("promotion", {"a": {"n": 2, "m": 1}}, details={"a": {"n": 2, "m": 1, "x": 1}})
    assert read(hub, cursor) == [Patch("promotion", 4, "a", {"n": 2})]
    hub.publish_state("promotion", {}, details={})
    assert read(hub, cursor) == [Delta("promotion", 5, "a", None)]


def test_a_key_that_is_no_longer_asked_for_goes_on_as_a_brief_record() -> None:
    hub = a_hub()
    hub.publish_state("promotion", {"a": {"n": 1, "m": 1}}, details={"a": {"n": 1, "m": 1, "x": 1}})
    cursor = hub.attach(["promotion"])
    hub.ask(cursor, {"promotion": ["a"]})
    while hub.pending(cursor):
        pass
    hub.publish_state("promotion", {"a": {"n": 2, "m": 1}}, details={"a": {"n": 2, "m": 1, "x": 1}})
    hub.ask(cursor, {"promotion": []})
    assert read(hub, cursor)[0] == Delta("promotion", 3, "a", {"n": 2, "m": 1})
    hub.publish_state("promotion", {"a": {"n": 2, "m": 2}}, details={})
    assert read(hub, cursor) == [Patch("promotion", 5, "a", {"m": 2})]


def test_full_records_of_topics_that_are_not_followed_are_refused() -> None:
    hub = a_hub()
    cursor = hub.attach(["fund"])
    asked = {"promotion": ["a"], "alerts": ["b"], "weather": ["c"]}
    assert hub.ask(cursor, asked) == ["promotion", "alerts", "weather"]


# -- batches


def test_a_batch_ends_at_its_size_and_no_topic_starves() -> None:
    hub = a_hub()
    cursor = hub.attach(["strategies", "alerts"])
    hub.pending(cursor)
    for number in range(100):
        hub.publish_event("alerts", number + 1, "x" * 80)
    taken: list[ServerMessage] = []
    for round_ in range(200):
        hub.publish_state("strategies", {f"s{key}": f"{round_:080}" for key in range(20)})
        batch = hub.pending(cursor, bytes_max=1_000)
        assert sum(map(len, batch)) < 1_200
        taken += decoded(batch)
    assert sum(isinstance(message, Event) for message in taken) == 100


# -- events


def test_events_come_in_order_to_everybody_in_the_same_bytes() -> None:
    hub = a_hub()
    early = hub.attach(["alerts"])
    for seq in (3, 5, 6):
        hub.publish_event("alerts", seq, {"n": seq})
    late = hub.attach(["alerts"])
    first, second = hub.pending(early), hub.pending(late)
    assert decoded(first) == [Event("alerts", seq, {"n": seq}) for seq in (3, 5, 6)]
    assert all(ours is theirs for ours, theirs in zip(first, second, strict=True))


def test_state_changes_are_shared_by_all_clients_too() -> None:
    hub = a_hub()
    cursors = [hub.attach(["fund"]) for _ in range(2)]
    assert hub.pending(cursors[0])[0] is hub.pending(cursors[1])[0]
    hub.publish_state("fund", {"a": 1})
    assert hub.pending(cursors[0])[0] is hub.pending(cursors[1])[0]


def test_a_client_that_the_ring_has_passed_is_told_of_one_gap() -> None:
    hub = a_hub(ring_size=3)
    hub.publish_event("journal", 1, 1)
    cursor = hub.attach(["journal"])
    hub.pending(cursor)
    for seq in range(2, 8):
        hub.publish_event("journal", seq, seq)
    assert read(hub, cursor) == [
        Gap("journal", 2, 4),
        *(Event("journal", seq, seq) for seq in (5, 6, 7)),
    ]
    assert read(hub, cursor) == []


def test_a_gap_is_told_once_however_little_is_taken_at_a_time() -> None:
    hub = a_hub(ring_size=2)
    cursor = hub.attach(["journal"])
    for seq in range(1, 5):
        hub.publish_event("journal", seq, seq)
    taken = [read(hub, cursor, limit=1) for _ in range(4)]
    assert taken == [[Gap("journal", 1, 2)], [Event("journal", 3, 3)], [Event("journal", 4, 4)], []]


def test_a_hole_in_the_rowids_is_no_gap() -> None:
    hub = a_hub(ring_size=3)
    hub.publish_event("journal", 1, 1)
    cursor = hub.attach(["journal"])
    hub.pending(cursor)
    hub.publish_event("journal", 100, 100)
    assert read(hub, cursor) == [Event("journal", 100, 100)]


def test_a_new_client_gets_what_the_ring_holds_and_no_gap() -> None:
    hub = a_hub(ring_size=2)
    for seq in range(1, 6):
        hub.publish_event("journal", seq, seq)
    assert read(hub, hub.attach(["journal"])) == [Event("journal", 4, 4), Event("journal", 5, 5)]


def test_a_client_resumes_after_the_last_seq_it_saw() -> None:
    hub = a_hub()
    hub.begin_events("journal", 10)
    for seq in (11, 12, 13):
        hub.publish_event("journal", seq, seq)
    assert read(hub, hub.attach(["journal"], since={"journal": 12})) == [
        Resumed("journal", 13, 13),
        Event("journal", 13, 13),
    ]
    assert read(hub, hub.attach(["journal"], since={"journal": 13})) == [Resumed("journal", 14, 13)]
    for seen in (8, 0):
        resumed, gap, *_ = read(hub, hub.attach(["journal"], since={"journal": seen}))
        assert resumed == Resumed("journal", seen + 1, 13)
        assert gap == Gap("journal", seen + 1, 10)


def test_topics_of_one_process_are_never_resumed() -> None:
    hub = a_hub()
    for seq in (1, 2, 3):
        hub.publish_event("nav", seq, seq)
    cursor = hub.attach(["nav"], since={"nav": 2}, backlog=1)
    assert read(hub, cursor) == [Event("nav", 3, 3)]


@pytest.mark.parametrize(
    ("backlog", "seqs"), [(0, []), (2, [4, 5]), (9, [3, 4, 5]), (None, [3, 4, 5])]
)
def test_a_new_client_gets_as_many_of_the_newest_events_as_it_asks_for(
    backlog: int | None, seqs: list[int]
) -> None:
    hub = a_hub(ring_size=3)
    for seq in range(1, 6):
        hub.publish_event("journal", seq, seq)
    cursor = hub.attach(["journal"], backlog=backlog)
    assert read(hub, cursor) == [Event("journal", seq, seq) for seq in seqs]
    hub.publish_event("journal", 6, 6)
    assert read(hub, cursor) == [Event("journal", 6, 6)]


def test_the_backlog_counts_only_alerts_that_the_client_wants() -> None:
    hub = a_hub()
    for seq, level in enumerate([Level.CRITICAL, Level.INFO, Level.CRITICAL, Level.INFO], start=1):
        hub.publish_event("alerts", seq, seq, level=level)
    cursor = hub.attach(["alerts"], min_level=Level.WARNING, backlog=2)
    assert read(hub, cursor) == [Event("alerts", 1, 1), Event("alerts", 3, 3)]


def test_a_seq_from_the_future_starts_afresh() -> None:
    hub = a_hub()
    hub.publish_event("journal", 1, 1)
    assert read(hub, hub.attach(["journal"], since={"journal": 900})) == [Event("journal", 1, 1)]


def test_seqs_of_one_topic_rise_or_are_refused() -> None:
    hub = a_hub()
    hub.publish_event("journal", 5, None)
    hub.publish_event("alerts", 1, None)
    for seq in (5, 4):
        with pytest.raises(ConfigError, match="does not come after 5"):
            hub.publish_event("journal", seq, None)
    with pytest.raises(ConfigError, match="has begun already"):
        hub.begin_events("journal", 9)


def test_alerts_below_the_wanted_level_are_left_out_and_never_a_gap() -> None:
    hub = a_hub()
    cursor = hub.attach(["alerts"], min_level=Level.WARNING)
    levels = [Level.INFO] * 40 + [Level.CRITICAL, Level.INFO, Level.WARNING, None]
    for seq, level in enumerate(levels, start=1):
        hub.publish_event("alerts", seq, None, level=level)
    assert read(hub, cursor, limit=2) == [Event("alerts", 41, None), Event("alerts", 43, None)]
    assert read(hub, cursor, limit=2) == [Event("alerts", 44, None)]


# -- who follows


def test_topics_that_do_not_exist_are_named() -> None:
    hub = a_hub()
    cursor = hub.attach(["fund", "weather"])
    assert list(cursor.seqs) == ["fund"]
    assert hub.follow(cursor, ["alerts", "sports"]) == ["sports"]
    assert list(cursor.seqs) == ["fund", "alerts"]


def test_following_again_changes_nothing_and_unfollowing_starts_over() -> None:
    hub = a_hub()
    cursor = hub.attach(["fund"])
    hub.pending(cursor)
    hub.follow(cursor, ["fund"])
    assert hub.pending(cursor) == []
    hub.unfollow(cursor, ["fund", "alerts"])
    hub.publish_state("fund", {"a": 1})
    assert hub.pending(cursor) == []
    hub.follow(cursor, ["fund"])
    assert read(hub, cursor) == [Snapshot("fund", 1, {"a": 1})]


def test_states_and_events_are_not_confused() -> None:
    hub = a_hub()
    for wrong in (
        lambda: hub.publish_state("alerts", {}),
        lambda: hub.publish_event("fund", 1, None),
        lambda: hub.snapshot("alerts"),
        lambda: hub.newest_seq("fund"),
        lambda: hub.publish_state("weather", {}),
    ):
        with pytest.raises(ConfigError, match="is not one of"):
            wrong()


def test_a_client_that_never_reads_costs_no_memory() -> None:
    hub = a_hub(ring_size=4)
    cursor = hub.attach(["fund", "alerts"])
    hub.pending(cursor)
    for seq in range(1, 1_001):
        hub.publish_state("fund", {"nav": seq})
        hub.publish_event("alerts", seq, "x" * 100)
    assert cursor.seqs == {"fund": 0, "alerts": 0}
    assert len(hub.pending(cursor)) == 1 + 1 + 4


async def test_publishing_wakes_the_followers_of_the_topic(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hub = a_hub()
    woken: list[str] = []

    async def follow(topic: str) -> None:
        cursor = hub.attach([topic])
        await cursor.wait()  # attaching is news itself
        hub.pending(cursor)
        await cursor.wait()
        woken.append(topic)

    nursery.start_soon(follow, "fund")
    nursery.start_soon(follow, "alerts")
    await trio.testing.wait_all_tasks_blocked()
    hub.publish_state("fund", {})  # no change
    await trio.testing.wait_all_tasks_blocked()
    assert woken == []
    hub.publish_state("fund", {"a": 1})
    await trio.testing.wait_all_tasks_blocked()
    assert woken == ["fund"]
    hub.publish_event("alerts", 1, None)
    await trio.testing.wait_all_tasks_blocked()
    assert woken == ["fund", "alerts"]


async def test_news_without_a_waiting_task_is_not_lost() -> None:
    hub = a_hub()
    cursor = hub.attach(["fund"])
    await cursor.wait()
    hub.pending(cursor)
    hub.publish_state("fund", {"a": 1})
    with trio.fail_after(1):
        await cursor.wait()
    assert read(hub, cursor) == [Delta("fund", 1, "a", 1)]


async def test_a_wait_that_is_cancelled_loses_nothing() -> None:
    hub = a_hub()
    cursor = hub.attach([])
    await cursor.wait()
    with trio.CancelScope() as scope:
        scope.cancel()
        await cursor.wait()
    assert scope.cancelled_caught
    cursor.wake()
    with trio.fail_after(1):
        await cursor.wait()


def test_a_detached_client_is_forgotten() -> None:
    hub = a_hub()
    cursor = hub.attach(["fund"])
    assert hub.clients == 1
    hub.detach(cursor)
    hub.detach(cursor)
    assert hub.clients == 0


# -- any interleaving


class Client:
    """A client's copy of the state, with assertions on the messages that it may never get."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.first_seq = {topic: hub.newest_seq(topic) for topic in ("alerts", "journal")}
        self.cursor = hub.attach(["fund", "feeds", "alerts", "journal"], since=self.first_seq)
        self.states: dict[str, dict[str, Any]] = {}
        self.state_seqs: dict[str, int] = {}
        self.events: dict[str, list[int]] = {"alerts": [], "journal": []}
        self.missed: dict[str, list[range]] = {"alerts": [], "journal": []}

    def read(self, limit: int | None) -> int:
        if limit is None:
            messages = decoded(cut(self.hub.take(self.cursor, BATCH_BYTES)))
        else:
            messages = read(self.hub, self.cursor, limit)
        for message in messages:
            self.take(message)
        return len(messages)

    def take(self, message: ServerMessage) -> None:
        match message:
            case Snapshot(topic, seq, state):
                assert seq >= self.state_seqs.get(topic, 0)
                self.states[topic], self.state_seqs[topic] = dict(state), seq
            case Delta(topic, seq, key, value):
                assert seq > self.state_seqs[topic]
                self.state_seqs[topic] = seq
                if value is None:
                    self.states[topic].pop(key, None)
                else:
                    self.states[topic][key] = value
            case Patch(topic, seq, key, fields):
                assert seq > self.state_seqs[topic]
                self.state_seqs[topic] = seq
                merged = {**self.states[topic][key], **fields}
                self.states[topic][key] = {name: x for name, x in merged.items() if x is not None}
            case Resumed(topic, from_seq, _):
                assert from_seq == self.first_seq[topic] + 1
            case Event(topic, seq, data):
                assert data == seq
                assert seq > self.last(topic)
                self.events[topic].append(seq)
            case Gap(topic, from_seq, to_seq):
                assert self.last(topic) < from_seq <= to_seq
                self.missed[topic].append(range(from_seq, to_seq + 1))
            case _:
                pytest.fail(f"the hub sent {message}")

    def last(self, topic: str) -> int:
        gaps = [gap[-1] for gap in self.missed[topic]]
        return max([self.first_seq[topic], *self.events[topic][-1:], *gaps])


keys = st.sampled_from("abcde")
steps = st.one_of(
    st.tuples(
        st.just("state"),
        st.sampled_from(["fund", "feeds"]),
        st.dictionaries(
            keys,
            st.integers(0, 3)
            | st.fixed_dictionaries({"x": st.integers(0, 2), "y": st.none() | st.integers(0, 1)}),
        ),
    ),
    st.tuples(st.just("event"), st.sampled_from(["alerts", "journal"]), st.integers(1, 3)),
    st.tuples(st.just("read"), st.integers(0, 2), st.none() | st.integers(1, 3)),
    st.tuples(st.just("join"), st.none(), st.none()),
)


@settings(max_examples=300)
@given(st.lists(steps, max_size=80))
def test_in_any_order_every_client_ends_with_the_state_of_the_hub(program: list[Any]) -> None:
    hub = a_hub(ring_size=4, removed_max=2)
    clients = [Client(hub)]
    published: dict[str, list[int]] = {"alerts": [], "journal": []}
    for what, where, value in program:
        if what == "state":
            hub.publish_state(where, value)
        elif what == "event":
            seq = hub.newest_seq(where) + value
            published[where].append(seq)
            hub.publish_event(where, seq, seq)
        elif what == "read":
            clients[where % len(clients)].read(value)
        else:
            clients.append(Client(hub))
    for client in clients:
        while client.read(2) or client.read(None):
            pass
        for topic in ("fund", "feeds"):
            assert (
                client.states[topic]
                == msgspec.json.decode(payload_of(hub.snapshot(topic)))["state"]
            )
        for topic, seqs in published.items():
            # Each event since the client came was given, or is inside a named gap; never both.
            for seq in seqs:
                if seq > client.first_seq[topic]:
                    missed = sum(seq in gap for gap in client.missed[topic])
                    assert client.events[topic].count(seq) + missed == 1
