"""One channel over the real outbox: what it delivers, in which order, and what becomes of it
when something dies.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from fundops.actors.alert import (
    SCHEMA,
    SCHEMA_4,
    AlertActor,
    AlertSettings,
    ChannelActor,
    Deliver,
    DeliveryFailed,
)
from fundops.actors.alert.delivery import WebhookDelivery
from fundops.actors.alert.secret_url import SecretUrl
from fundops.actors.persistence import PersistenceActor, Reader, commit_batch, meta
from fundops.actors.persistence import schema as persistence_schema
from fundops.runtime import (
    Actor,
    ChildSpec,
    ConfigError,
    InlineWorker,
    Supervisor,
    VirtualClock,
    handles,
    open_supervisor,
)
from fundops.wire.alert import (
    Category,
    DeliverFromMemory,
    Level,
    OutgoingAlert,
    PendingDeliveries,
    SendAlert,
    TryDelivery,
    Wake,
)

INFO, CRITICAL = Level.INFO, Level.CRITICAL
MIGRATIONS = (persistence_schema.SCHEMA, meta.SCHEMA + SCHEMA + SCHEMA_4)
UNLIMITED = AlertSettings(per_category=10_000, queue_max=10_000)


class Inbox:
    """A destination that takes everything, or does what it is told to first."""

    def __init__(self, first: Callable[[OutgoingAlert], Awaitable[None]] | None = None) -> None:
        self.titles: list[str] = []
        self.ids: list[str] = []
        self._first = first

    async def __call__(self, alert: OutgoingAlert) -> None:
        await trio.lowlevel.checkpoint()
        if self._first is not None:
            await self._first(alert)
        self.titles.append(alert.title)
        self.ids.append(alert.id)


class Deaf(Actor):
    """In the place of a channel whose process died between the commit and the delivery."""

    @handles(Wake)
    def wake(self, _: Wake) -> None:
        pass


class FickleWorker(InlineWorker):
    """The writer's connection, which can be made read-only."""

    refuses = False

    async def run(self, call: Callable[[], Any]) -> Any:
        if isinstance(call, partial) and call.func is commit_batch:
            call.args[0].connection.pragma("query_only", self.refuses)
        return await super().run(call)


@asynccontextmanager
async def tree(
    path: Path,
    clock: VirtualClock,
    channels: dict[str, Callable[[], Actor]],
    *,
    worker: Callable[[], InlineWorker] = InlineWorker,
    settings: AlertSettings = UNLIMITED,
    grace_s: float = 5.0,
) -> AsyncIterator[Supervisor]:
    children = [
        ChildSpec("persistence", lambda: PersistenceActor(path, MIGRATIONS, make_worker=worker)),
        ChildSpec("alert", lambda: AlertActor(path, clock, settings, tuple(channels))),
        *(
            ChildSpec(f"channel.{name}", factory, grace_s=grace_s)
            for name, factory in channels.items()
        ),
    ]
    async with open_supervisor(children) as supervisor:
        yield supervisor


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fund.db"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(1_700_000_000_000_000)


def channel(
    path: Path, clock: VirtualClock, deliver: Deliver, **options: Any
) -> dict[str, Callable[[], Actor]]:
    return {"hook": lambda: ChannelActor("hook", path, deliver, clock, **options)}


async def send(supervisor: Supervisor, title: str, level: Level = INFO) -> int:
    return (
        await supervisor.ref("alert").ask(SendAlert(level, Category.GENERAL, title, "message"))
    ).id


async def drained(supervisor: Supervisor, name: str = "hook") -> None:
    for _ in range(10_000):
        if not await supervisor.ref(f"channel.{name}").ask(PendingDeliveries(), timeout_s=30):
            return
    pytest.fail(f"channel {name} still has something to deliver")


def states(path: Path) -> list[tuple[str, int, str | None]]:
    """State, attempts and error of all rows of the outbox, oldest alert first."""
    with Reader(path) as reader:
        return reader.rows("SELECT state, attempts, error FROM outbox ORDER BY alert_id, channel")


async def test_an_alert_is_delivered_once_and_its_row_says_so(
    path: Path, clock: VirtualClock
) -> None:
    inbox = Inbox()
    async with tree(path, clock, channel(path, clock, inbox)) as supervisor:
        assert await send(supervisor, "hello") == 1
        await drained(supervisor)
        assert states(path) == [("DELIVERED", 1, None)]
    assert inbox.titles == ["hello"]
    assert inbox.ids == ["1"]


async def test_critical_overtakes_what_is_queued_and_the_rest_keeps_its_order(
    path: Path, clock: VirtualClock
) -> None:
    first_in_flight, go = trio.Event(), trio.Event()

    async def wait_for_the_signal(_: OutgoingAlert) -> None:
        first_in_flight.set()
        await go.wait()

    inbox = Inbox(wait_for_the_signal)
    async with tree(path, clock, channel(path, clock, inbox)) as supervisor:
        for number in range(50):
            await send(supervisor, f"info {number}")
        await first_in_flight.wait()
        await send(supervisor, "critical", CRITICAL)
        go.set()
        await drained(supervisor)
    assert inbox.titles == ["info 0", "critical", *(f"info {number}" for number in range(1, 50))]


async def test_a_failed_delivery_is_logged_once_and_never_repeated(
    path: Path, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[str] = []

    async def refuse(alert: OutgoingAlert) -> None:
        tried.append(alert.title)
        raise DeliveryFailed("HTTP 500")

    async with tree(path, clock, channel(path, clock, Inbox(refuse))) as supervisor:
        await send(supervisor, "lost")
        await drained(supervisor)
        supervisor.ref("channel.hook").tell_nowait(Wake())
        await drained(supervisor)
    assert tried == ["lost"]
    assert states(path) == [("FAILED", 1, "HTTP 500")]
    (line,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert line.name == "fundops.alert"
    assert line.getMessage() == "alert 1 was not delivered through channel hook: HTTP 500"


async def test_whatever_an_outsider_raises_is_a_failure_known_by_its_class_alone(
    path: Path, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def blow_up(alert: OutgoingAlert) -> None:
        if alert.title == "bad":
            raise ZeroDivisionError("https://host/token")

    inbox = Inbox(blow_up)
    async with tree(path, clock, channel(path, clock, inbox)) as supervisor:
        await send(supervisor, "bad")
        await send(supervisor, "good")
        await drained(supervisor)
        assert supervisor.ref("channel.hook").epoch == 1
    assert states(path) == [("FAILED", 1, "ZeroDivisionError"), ("DELIVERED", 1, None)]
    assert inbox.titles == ["good"]
    assert "token" not in caplog.text


async def test_a_hanging_endpoint_fails_at_ten_seconds_and_delays_nobody_else(
    path: Path, clock: VirtualClock, autojump_clock: trio.testing.MockClock
) -> None:
    async def hang(_: OutgoingAlert) -> None:
        await trio.sleep_forever()

    inbox = Inbox()
    channels = {
        **channel(path, clock, Inbox(hang)),
        "log": lambda: ChannelActor("log", path, inbox, clock),
    }
    async with tree(path, clock, channels) as supervisor:
        began = trio.current_time()
        await send(supervisor, "hello", CRITICAL)
        await drained(supervisor, "log")
        assert trio.current_time() == began
        assert inbox.titles == ["hello"]
        await drained(supervisor, "hook")
        assert trio.current_time() - began == pytest.approx(10)
        assert states(path) == [
            ("FAILED", 1, "TooSlowError: not done within 10 s"),
            ("DELIVERED", 1, None),
        ]


async def serve_http(
    stream: trio.SocketStream, answer: Sequence[bytes], pause_s: float, seen: list[bytes]
) -> None:
    """Note what arrives, then write the answer piece by piece; a client that goes away is no
    error.
    """
    try:
        async with stream:
            seen.append(await stream.receive_some(65_536))
            for piece in answer:
                await stream.send_all(piece)
                await trio.sleep(pause_s)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


@pytest.mark.parametrize(
    ("answer", "pause_s"),
    [
        ([b""], 60.0),  # hangs
        (
            [b"HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n", *[b"x"] * 1_000],
            0.01,
        ),  # drips its body
        (
            [bytes([one]) for one in b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000],
            0.01,
        ),  # drips its head
    ],
)
async def test_one_deadline_cuts_a_real_server_that_hangs_or_drips(
    path: Path, clock: VirtualClock, answer: list[bytes], pause_s: float
) -> None:
    seen: list[bytes] = []
    async with trio.open_nursery() as nursery:
        handler = partial(serve_http, answer=answer, pause_s=pause_s, seen=seen)
        (listener,) = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
        deliver = WebhookDelivery(SecretUrl(url))
        async with tree(path, clock, channel(path, clock, deliver, deadline_s=0.2)) as supervisor:
            began = trio.current_time()
            await send(supervisor, "hello")
            assert states(path) == [("PENDING", 0, None)] or states(path) == [("SENDING", 1, None)]
            await drained(supervisor)
            assert 0.2 <= trio.current_time() - began < 2
        nursery.cancel_scope.cancel()
    assert states(path) == [("FAILED", 1, "TooSlowError: not done within 0.2 s")]
    assert len(seen) == 1


# -- dying and starting again


@pytest.mark.parametrize(
    ("level", "age_s", "state"),
    [
        (INFO, 15 * 60 - 0.000_001, "DELIVERED"),
        (INFO, 15 * 60, "EXPIRED"),
        (CRITICAL, 24 * 3600 - 1, "DELIVERED"),
        (CRITICAL, 24 * 3600, "EXPIRED"),
    ],
)
async def test_what_was_committed_and_not_sent_is_sent_at_the_next_start_unless_it_is_old(
    path: Path, clock: VirtualClock, level: Level, age_s: float, state: str
) -> None:
    async with tree(path, clock, {"hook": Deaf}) as supervisor:
        await send(supervisor, "news", level)
    assert states(path) == [("PENDING", 0, None)]
    clock.advance(age_s)
    inbox = Inbox()
    for _ in range(2):
        async with tree(path, clock, channel(path, clock, inbox)) as supervisor:
            await drained(supervisor)
    assert states(path)[0][0] == state
    assert inbox.titles == ["news"] * (state == "DELIVERED")


async def test_what_was_in_flight_at_the_end_is_unknown_and_not_sent_again(
    path: Path,
    clock: VirtualClock,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    in_flight = trio.Event()

    async def hang(_: OutgoingAlert) -> None:
        in_flight.set()
        await trio.sleep_forever()

    async with tree(path, clock, channel(path, clock, Inbox(hang)), grace_s=5) as supervisor:
        for number in range(20):
            await send(supervisor, f"info {number}")
        await in_flight.wait()
        began = trio.current_time()
    assert trio.current_time() - began <= 5.5
    assert [state for state, _, _ in states(path)] == ["SENDING"] + ["PENDING"] * 19
    inbox = Inbox()
    async with tree(path, clock, channel(path, clock, inbox)) as supervisor:
        await drained(supervisor)
    assert [state for state, _, _ in states(path)] == ["UNKNOWN"] + ["DELIVERED"] * 19
    assert inbox.titles == [f"info {number}" for number in range(1, 20)]
    assert "1 delivery was cut off, its outcome is unknown" in caplog.text


async def test_a_stop_uses_its_grace_to_deliver_what_is_queued_critical_first(
    path: Path, clock: VirtualClock, autojump_clock: trio.testing.MockClock
) -> None:
    async def take_a_second(_: OutgoingAlert) -> None:
        await trio.sleep(1)

    inbox = Inbox(take_a_second)
    async with tree(path, clock, channel(path, clock, inbox), grace_s=3.5) as supervisor:
        for number in range(5):
            await send(supervisor, f"info {number}")
        await send(supervisor, "critical", CRITICAL)
    assert inbox.titles == ["info 0", "critical", "info 1"]
    assert sorted(state for state, _, _ in states(path)) == ["DELIVERED"] * 3 + ["PENDING"] * 2 + [
        "SENDING"
    ]


async def test_a_crashed_channel_goes_on_where_it_was_and_doubles_nothing(
    path: Path, clock: VirtualClock
) -> None:
    inbox = Inbox()
    async with tree(path, clock, channel(path, clock, inbox)) as supervisor:
        for number in range(30):
            await send(supervisor, str(number))
            if number % 10 == 5:
                supervisor.drill("channel.hook")
        await drained(supervisor)
        assert supervisor.ref("channel.hook").epoch == 4
    assert inbox.titles == [str(number) for number in range(30)]
    assert states(path) == [("DELIVERED", 1, None)] * 30


# -- storage


async def test_nothing_leaves_while_its_claim_cannot_be_stored(
    path: Path, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    worker, inbox = FickleWorker(), Inbox()
    async with tree(path, clock, {"hook": Deaf}) as supervisor:
        await send(supervisor, "stored")
    worker.refuses = True
    async with tree(path, clock, channel(path, clock, inbox), worker=lambda: worker) as supervisor:
        assert await supervisor.ref("channel.hook").ask(PendingDeliveries()) == 1
        assert inbox.titles == []
        assert "its outbox cannot be written" in caplog.text
        worker.refuses = False
        supervisor.ref("channel.hook").tell_nowait(Wake())
        await drained(supervisor)
    assert inbox.titles == ["stored"]


async def test_an_outcome_that_could_not_be_stored_is_stored_later_and_the_alert_not_sent_twice(
    path: Path, clock: VirtualClock
) -> None:
    worker = FickleWorker()

    async def break_storage(_: OutgoingAlert) -> None:
        worker.refuses = True

    inbox = Inbox(break_storage)
    async with tree(path, clock, channel(path, clock, inbox), worker=lambda: worker) as supervisor:
        await send(supervisor, "hello")
        assert await supervisor.ref("channel.hook").ask(PendingDeliveries()) == 1
        assert states(path) == [("SENDING", 1, None)]
        worker.refuses = False
        supervisor.ref("channel.hook").tell_nowait(Wake())
        await drained(supervisor)
        assert states(path) == [("DELIVERED", 1, None)]
    assert inbox.titles == ["hello"]


async def test_a_claim_whose_answer_got_lost_is_still_delivered_once(
    path: Path, clock: VirtualClock, autojump_clock: trio.testing.MockClock
) -> None:
    class SlowWorker(InlineWorker):
        """Takes longer over the first claim than anybody who asks waits."""

        claims = 0

        async def run(self, call: Callable[[], Any]) -> Any:
            result = await super().run(call)
            if (
                isinstance(call, partial)
                and call.func is commit_batch
                and "attempts = ?" in str(call.args[1])
            ):
                self.claims += 1
                if self.claims == 1:
                    await trio.sleep(6)
            return result

    inbox = Inbox()
    async with tree(path, clock, {"hook": Deaf}) as supervisor:
        await send(supervisor, "hello")
    async with tree(path, clock, channel(path, clock, inbox), worker=SlowWorker) as supervisor:
        await trio.sleep(5.5)
        assert states(path) == [("SENDING", 1, None)]
        assert inbox.titles == []
        await trio.sleep(1)
        supervisor.ref("channel.hook").tell_nowait(Wake())
        await drained(supervisor)
    assert inbox.titles == ["hello"]
    assert states(path)[0][0] == "DELIVERED"


async def test_a_channel_cut_off_while_claiming_leaves_its_row_for_the_next_start(
    path: Path, clock: VirtualClock, autojump_clock: trio.testing.MockClock
) -> None:
    class SlowWorker(InlineWorker):
        async def run(self, call: Callable[[], Any]) -> Any:
            result = await super().run(call)
            if (
                isinstance(call, partial)
                and call.func is commit_batch
                and "attempts = ?" in str(call.args[1])
            ):
                await trio.sleep(1)
            return result

    inbox = Inbox()
    async with tree(
        path, clock, channel(path, clock, inbox), worker=SlowWorker, grace_s=0.5
    ) as supervisor:
        await send(supervisor, "hello")
    assert states(path) == [("PENDING", 0, None)]
    async with tree(path, clock, channel(path, clock, inbox)) as supervisor:
        await drained(supervisor)
    assert inbox.titles == ["hello"]


async def test_an_alert_from_memory_is_delivered_without_a_row(
    path: Path, clock: VirtualClock
) -> None:
    inbox = Inbox()
    alert = OutgoingAlert("memory-1", 0, CRITICAL, Category.GENERAL, "now", "")
    async with tree(path, clock, channel(path, clock, inbox)) as supervisor:
        supervisor.ref("channel.hook").tell_nowait(DeliverFromMemory(alert))
        await drained(supervisor)
    assert inbox.ids == ["memory-1"]
    assert states(path) == []


async def test_the_next_row_is_found_by_an_index_and_without_sorting(
    path: Path, clock: VirtualClock
) -> None:
    async with tree(path, clock, {}):
        pass
    with Reader(path) as reader:
        plan = reader.rows(
            "EXPLAIN QUERY PLAN SELECT o.alert_id FROM outbox o JOIN alert a ON a.id = o.alert_id"
            " WHERE o.channel = 'hook' AND o.state = 'PENDING'"
            " ORDER BY o.critical DESC, o.alert_id LIMIT 1"
        )
    text = " ".join(row[3] for row in plan)
    assert "outbox_pending" in text
    assert "TEMP B-TREE" not in text
    assert "SCAN" not in text


@pytest.mark.parametrize("deadline_s", [0, -1, float("inf"), float("nan")])
def test_a_deadline_that_is_none_is_refused(
    deadline_s: float, path: Path, clock: VirtualClock
) -> None:
    with pytest.raises(ConfigError):
        ChannelActor("hook", path, Inbox(), clock, deadline_s=deadline_s)


async def test_a_delivery_can_be_tried_without_a_row(path: Path, clock: VirtualClock) -> None:
    async def refuse(alert: OutgoingAlert) -> None:
        if alert.title == "bad":
            raise DeliveryFailed("HTTP 500")

    inbox = Inbox(refuse)
    async with tree(path, clock, channel(path, clock, inbox)) as supervisor:
        answers = [
            await supervisor.ref("channel.hook").ask(
                TryDelivery(OutgoingAlert("t", 0, INFO, Category.GENERAL, title, ""))
            )
            for title in ("good", "bad")
        ]
        assert answers == [None, "HTTP 500"]
        assert states(path) == []
    assert inbox.titles == ["good"]
