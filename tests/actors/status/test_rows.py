"""Rows as records: the outbox and its changes, the series and its thinning, the flat tree."""

from decimal import Decimal
from typing import Any

import apsw
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundops.actors.ledger.accounts import REVENUE
from fundops.actors.persistence import Rows
from fundops.actors.status.attention import Aside
from fundops.actors.status.rows import (
    Outbox,
    aside,
    channels,
    delivery_events,
    lean_entry,
    outbox,
    recovery,
    series_of,
    thinned,
)
from fundops.actors.status.tree import flat
from fundops.runtime import DAY_US, ChildStatus, MailboxStatistics
from fundops.wire.stream.protocol import Event, Get, Series, encode
from fundops.wire.stream.records import (
    RESULT_ACCOUNTS,
    ActorLine,
    Channel,
    DeliveryEvent,
    JournalEvent,
    Leg,
    Mailbox,
)


def rows(*scripts: str) -> Rows:
    connection = apsw.Connection(":memory:")
    for script in scripts:
        connection.execute(script)
    return Rows(connection)


OUTBOX = """
CREATE TABLE outbox (alert_id INTEGER, channel TEXT, state TEXT, attempts INTEGER, error TEXT,
    PRIMARY KEY (alert_id, channel)) STRICT, WITHOUT ROWID;
"""


def test_a_channel_fails_while_its_last_delivery_did_not_arrive() -> None:
    found = rows(
        OUTBOX,
        "INSERT INTO outbox VALUES (1, 'webhook', 'DELIVERED', 1, NULL),"
        " (2, 'webhook', 'FAILED', 1, 'timeout'), (3, 'webhook', 'PENDING', 0, NULL),"
        " (1, 'log', 'FAILED', 1, 'x'), (2, 'log', 'DELIVERED', 1, NULL)",
    )
    assert channels(outbox(found), ("webhook", "log", "mail")) == {
        "webhook": Channel("failing", 1, "timeout", 1, 1),
        "log": Channel("ok", 0, None, 1, 1),
        "mail": Channel("ok", 0, None, 0, 0),
    }


def test_a_delivery_that_changed_is_one_event() -> None:
    found = rows(OUTBOX, "INSERT INTO outbox VALUES (1, 'log', 'PENDING', 0, NULL)")
    first = outbox(found)
    assert delivery_events(Outbox({}, {}), first) == [
        DeliveryEvent(1, "log", "PENDING", 0, None, None)
    ]
    assert delivery_events(first, outbox(found)) == []
    found.connection.execute("UPDATE outbox SET state = 'FAILED', attempts = 1, error = 'x'")
    assert delivery_events(first, outbox(found)) == [
        DeliveryEvent(1, "log", "FAILED", 1, "x", None)
    ]


def test_the_oldest_report_that_waits_is_named() -> None:
    found = rows(
        "CREATE TABLE report_aside (key TEXT, reason TEXT, since_us INTEGER, skipped_by TEXT)",
    )
    assert aside(found) == Aside()
    found.connection.execute(
        "INSERT INTO report_aside VALUES ('b', 'r2', 5, NULL), ('a', 'r1', 4, NULL),"
        " ('c', 'r0', 1, 'ann')"
    )
    assert aside(found) == Aside(2, "a", "r1", 4)


def test_a_breaker_under_a_hold_is_open_too() -> None:
    found = rows(
        "CREATE TABLE recovery_state (name TEXT, phase TEXT, beneath TEXT, episode INTEGER,"
        " attempts INTEGER, due_us INTEGER, reason TEXT, held_by TEXT, since_us INTEGER)",
        "INSERT INTO recovery_state VALUES ('a', 'HELD', 'OPEN', 2, 3, NULL, 'x', 'ann', 4),"
        " ('b', 'COOLDOWN', NULL, 1, 1, 9, 'y', NULL, 5), ('c', 'HEALTHY', NULL, 1, 0, NULL, NULL,"
        " NULL, 3)",
    )
    shown = recovery(found, 3)
    assert (shown["a"].breaker_open, shown["b"].breaker_open) == (True, False)
    assert (shown["b"].max, shown["b"].due_us, shown["b"].episode) == (3, 9, 1)
    assert [shown[name].since_us for name in "abc"] == [4, 5, None]


NAV = "CREATE TABLE nav_history (at_us INTEGER, nav_minor INTEGER, drawdown_pct REAL)"


def test_a_series_is_columns_of_the_range() -> None:
    found = rows(
        NAV,
        f"INSERT INTO nav_history VALUES ({DAY_US}, 100000000, 0.0),"
        f" ({9 * DAY_US}, 9007199254740993, 1.23456)",
    )
    whole = Series(
        "nav",
        "all",
        (DAY_US, 9 * DAY_US),
        ("1.00000000", "90071992.54740993"),
        (0.0, 1.2346),
    )
    assert series_of(found, Get("nav"), 10 * DAY_US) == whole
    last = series_of(found, Get("nav", "3d"), 10 * DAY_US)
    assert last is not None
    assert last.at_us == (9 * DAY_US,)


@pytest.mark.parametrize(
    "get", [Get("weather"), Get("nav", "3"), Get("nav", "xd"), Get("nav", "²d")]
)
def test_a_series_that_there_is_not_is_none(get: Get) -> None:
    assert series_of(rows(NAV), get, 0) is None


@given(st.lists(st.integers(-100, 100), max_size=300), st.integers(4, 60))
def test_thinning_keeps_the_ends_and_the_extremes(navs: list[int], most: int) -> None:
    points = [(at_us, nav, 0.0) for at_us, nav in enumerate(navs)]
    kept = thinned(points, most)
    assert len(kept) <= max(most, len(points) if len(points) <= most else most)
    assert kept == sorted(kept)
    assert set(kept) <= set(points)
    if points:
        assert (kept[0], kept[-1]) == (points[0], points[-1])
        assert max(kept, key=lambda p: p[1])[1] == max(navs)
        assert min(kept, key=lambda p: p[1])[1] == min(navs)


def child(name: str, **changed: object) -> ChildStatus:
    box = MailboxStatistics(9, 5, 0, 0, 0, 0, 0, 3, 1, 2, 0, 0, 7)
    fields: dict[str, object] = {
        "name": name,
        "state": "running",
        "epoch": 1,
        "restarts": 0,
        "restarts_in_window": 0,
        "capacity": 256,
        "mailbox": box,
        "in_hand": "Post",
        "in_hand_s": 0.2,
        "waiting_on": (),
        "last_crash": None,
    }
    return ChildStatus(**(fields | changed))  # type: ignore[arg-type]


def test_the_tree_is_flat_by_path_with_its_mailboxes_apart() -> None:
    group = child(
        "subsystems",
        mailbox=None,
        capacity=None,
        in_hand=None,
        in_hand_s=None,
        children=(child("ledger", in_hand_s=2.34),),
    )
    actors, mailboxes = flat((child("guard"), group))
    assert actors == {
        "guard": ActorLine("running", 1, 0, None, None),
        "subsystems": ActorLine("running", 1, 0, None, None, "supervisor"),
        "subsystems/ledger": ActorLine("running", 1, 0, None, "Post"),
    }
    assert mailboxes == {
        "guard": Mailbox(3, 7, 256, 0.2, 2),
        "subsystems/ledger": Mailbox(3, 7, 256, 2.3, 2),
    }


# -- entries


def entry(legs: list[list[Any]], **more: object) -> bytes:
    return msgspec.json.encode({"legs": legs, **more})


FILL: list[list[Any]] = [
    ["TRADING_FEES", "a", "USD", 260169103],
    ["CASH", "a", "USD", -10407024284103],
    ["POSITIONS", "a", "USD", 10406764115000],
]


def test_a_leg_has_no_trailing_fields_without_a_value() -> None:
    legs: list[list[Any]] = [
        ["CASH", "a", "USD", 1],
        ["CASH", None, "USD", 2],
        ["CASH", "b", "EUR", 300000000],
    ]
    lean = lean_entry((1, "2026-01-02", "transfer", "a", None, entry([*legs, *FILL])), "USD")
    assert lean.legs[:3] == (
        ("CASH", "0.00000001"),
        ("CASH", "0.00000002"),
        ("CASH", "3.00", "b", "EUR"),
    )
    other = lean_entry((1, "2026-01-02", "transfer", None, None, entry(legs)), "USD")
    assert other.legs[:2] == (("CASH", "0.00000001", "a"), ("CASH", "0.00000002"))


def test_a_client_reads_the_entry_that_was_sent() -> None:
    row = (1, "2026-01-02", "fill", "a", 7, entry([*FILL, ["CASH", "b", "EUR", 1]], memo="m"))
    sent = msgspec.json.encode(lean_entry(row, "USD"))
    read = msgspec.json.decode(sent, type=JournalEvent)
    assert read == JournalEvent(
        1,
        "2026-01-02",
        "fill",
        (
            Leg("TRADING_FEES", "2.60169103"),
            Leg("CASH", "-104070.24284103"),
            Leg("POSITIONS", "104067.64115"),
            Leg("CASH", "0.00000001", "b", "EUR"),
        ),
        "a",
        "m",
        7,
    )
    assert read.cash == Decimal("-104070.24284103")
    assert read.result == Decimal("-2.60169103")


def test_the_result_is_of_the_accounts_that_a_period_close_moves() -> None:
    assert RESULT_ACCOUNTS == REVENUE


def test_a_fill_takes_few_bytes() -> None:
    row = (1360852260000000, "2013-02-14", "fill", "a", None, entry(FILL))
    assert len(encode(Event("journal", 4951, lean_entry(row, "USD")))) <= 230
