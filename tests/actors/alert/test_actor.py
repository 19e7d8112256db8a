"""The alert actor over the real database: one decision and one commit for each alert, whatever
dies when.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
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
    alert_request,
    recent,
    told_keys,
)
from fundops.actors.alert import actor as alert_actor
from fundops.actors.alert.core import Alert, Decided
from fundops.actors.alert.delivery import WebhookDelivery
from fundops.actors.alert.schema import load_gates
from fundops.actors.alert.secret_url import SecretUrl
from fundops.actors.persistence import PersistenceActor, Reader, commit_batch, meta
from fundops.actors.persistence import schema as persistence_schema
from fundops.runtime import (
    Actor,
    ActorCrashed,
    ChildSpec,
    InlineWorker,
    Rejected,
    Supervisor,
    UnknownChild,
    VirtualClock,
    open_supervisor,
)
from fundops.runtime.errors import StartFailed
from fundops.wire.alert import (
    AlertOutcome,
    AlertPage,
    AlertReceipt,
    AlertsWaiting,
    Category,
    ConsumeAlertRequests,
    Level,
    OutgoingAlert,
    PendingDeliveries,
    RecentAlerts,
    SendAlert,
)
from fundops.wire.errors import AlertRefused, OutcomeUnknown, StorageDegraded
from fundops.wire.persistence import Commit, Statement, StorageStatistics

INFO, WARNING, CRITICAL = Level.INFO, Level.WARNING, Level.CRITICAL
GENERAL, KILL_SWITCH = Category.GENERAL, Category.KILL_SWITCH
QUEUED, RATE_SUPPRESSED, DEDUPED, UNPERSISTED, NO_CHANNEL = (
    AlertOutcome.QUEUED,
    AlertOutcome.RATE_SUPPRESSED,
    AlertOutcome.DEDUPED,
    AlertOutcome.UNPERSISTED,
    AlertOutcome.NO_CHANNEL,
)
START_US = 1_700_000_000_000_000
DEFAULTS = AlertSettings()
MIGRATIONS = (persistence_schema.SCHEMA, meta.SCHEMA + SCHEMA + SCHEMA_4)
UNLIMITED = AlertSettings(per_category=10_000, queue_max=10_000)
TOKEN = "T0K3N-that-nobody-may-see"


class Inbox:
    def __init__(self) -> None:
        self.alerts: list[OutgoingAlert] = []

    @property
    def titles(self) -> list[str]:
        return [alert.title for alert in self.alerts]

    async def __call__(self, alert: OutgoingAlert) -> None:
        await trio.lowlevel.checkpoint()
        self.alerts.append(alert)


class FickleWorker(InlineWorker):
    """The writer's connection, which can be made read-only, slow, or to lose the answer of a
    commit that succeeded.
    """

    refuses = False
    delay_s = 0.0
    loses_answers = False

    async def run(self, call: Callable[[], Any]) -> Any:
        if not (isinstance(call, partial) and call.func is commit_batch):
            return await super().run(call)
        store, batch = call.args
        store.connection.pragma("query_only", self.refuses)
        answers = await super().run(call)
        await trio.sleep(self.delay_s)
        return [OutcomeUnknown("lost") for _ in batch] if self.loses_answers else answers


@asynccontextmanager
async def tree(
    path: Path,
    clock: VirtualClock,
    *delivers: Deliver,
    settings: AlertSettings = DEFAULTS,
    worker: Callable[[], InlineWorker] = InlineWorker,
) -> AsyncIterator[Supervisor]:
    """Persistence, the alert actor, and a channel for each of `delivers`, named by its place."""
    named = {str(number): deliver for number, deliver in enumerate(delivers)}
    children = [
        ChildSpec("persistence", lambda: PersistenceActor(path, MIGRATIONS, make_worker=worker)),
        ChildSpec("alert", lambda: AlertActor(path, clock, settings, tuple(named))),
        *(
            ChildSpec(f"channel.{name}", partial(ChannelActor, name, path, deliver, clock))
            for name, deliver in named.items()
        ),
    ]
    async with open_supervisor(children) as supervisor:
        yield supervisor


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fund.db"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START_US)


async def send(
    supervisor: Supervisor, title: str = "title", level: Level = INFO, **more: Any
) -> AlertReceipt:
    message = SendAlert(
        **{"level": level, "category": GENERAL, "title": title, "message": "message", **more}
    )
    return await supervisor.ref("alert").ask(message)


async def send_many(supervisor: Supervisor, count: int, **more: Any) -> list[AlertOutcome]:
    return [(await send(supervisor, str(number), **more)).outcome for number in range(count)]


async def store(supervisor: Supervisor, *requests: Statement) -> None:
    await supervisor.ref("persistence").ask(Commit(requests))


async def consume(supervisor: Supervisor) -> int:
    return await supervisor.ref("alert").ask(ConsumeAlertRequests())


async def drained(supervisor: Supervisor, name: str = "0") -> None:
    for _ in range(10_000):
        if not await supervisor.ref(f"channel.{name}").ask(PendingDeliveries(), timeout_s=30):
            return
    pytest.fail(f"channel {name} still has something to deliver")


def page(path: Path, limit: int = 1_000) -> AlertPage:
    with Reader(path) as reader:
        return recent(reader, limit)


def history(path: Path) -> list[tuple[str, AlertOutcome]]:
    return [(alert.title, alert.outcome) for alert in reversed(page(path).alerts)]


# -- sending


async def test_an_alert_is_stored_and_queued_before_its_sender_is_answered(
    path: Path, clock: VirtualClock
) -> None:
    async with tree(path, clock, Inbox()) as supervisor:
        assert await send(supervisor, "hello\n", CRITICAL, strategy="mm") == AlertReceipt(
            1, QUEUED, 1
        )
        (alert,) = page(path).alerts
        assert (alert.id, alert.at_us, alert.level, alert.title, alert.strategy, alert.outcome) == (
            1,
            START_US,
            CRITICAL,
            "hello ",
            "mm",
            QUEUED,
        )


async def test_a_sender_does_not_wait_for_the_delivery(
    path: Path, clock: VirtualClock, autojump_clock: trio.testing.MockClock
) -> None:
    async def hang(_: OutgoingAlert) -> None:
        await trio.sleep_forever()

    async with tree(path, clock, hang) as supervisor:
        began = trio.current_time()
        assert await send_many(supervisor, 5) == [QUEUED] * 5
        assert trio.current_time() == began


async def test_six_in_a_minute_make_five_requests_and_six_rows_without_the_token(
    path: Path, clock: VirtualClock
) -> None:
    seen: list[httpx2.Request] = []

    def take(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(500 if len(seen) == 5 else 200)

    url = SecretUrl(f"https://hooks.example.com/{TOKEN}")
    webhook = WebhookDelivery(url, transport=httpx2.MockTransport(take))
    async with tree(path, clock, webhook) as supervisor:
        for number in range(6):
            await send(supervisor, str(number))
            clock.advance(1)
        await drained(supervisor)
        shown = await supervisor.ref("alert").ask(RecentAlerts())
    assert [request.headers["webhook-id"] for request in seen] == ["1", "2", "3", "4", "5"]
    assert history(path) == [(str(number), QUEUED) for number in range(5)] + [
        ("5", RATE_SUPPRESSED)
    ]
    assert shown.by_category == {"GENERAL": 6}
    assert shown.by_outcome == {"QUEUED": 5, "RATE_SUPPRESSED": 1}
    assert shown.suppressed_by_category == {"GENERAL": 1}
    with Reader(path) as reader:
        assert sorted(reader.rows("SELECT state, error FROM outbox")) == [
            ("DELIVERED", None)
        ] * 4 + [("FAILED", "HTTP 500")]
    files = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert TOKEN.encode() not in files
    assert TOKEN not in repr(shown)


async def test_every_category_and_every_channel_gets_its_copies(
    path: Path, clock: VirtualClock
) -> None:
    first, second = Inbox(), Inbox()
    async with tree(path, clock, first, second) as supervisor:
        for category in Category:
            await send_many(supervisor, 5, category=category)
        await drained(supervisor, "0")
        await drained(supervisor, "1")
    assert len(first.alerts) == len(second.alerts) == 50


async def test_senders_that_wait_together_share_a_commit_and_a_bad_one_is_refused_alone(
    path: Path, clock: VirtualClock
) -> None:
    refusals: list[AlertRefused] = []

    async def send_badly(supervisor: Supervisor) -> None:
        try:
            await send(supervisor, " ")
        except AlertRefused as refusal:
            refusals.append(refusal)

    async with tree(path, clock, settings=UNLIMITED) as supervisor:
        before = (await supervisor.ref("persistence").ask(StorageStatistics())).requests
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(send, supervisor, str(number))
            nursery.start_soon(send_badly, supervisor)
        assert (await supervisor.ref("persistence").ask(StorageStatistics())).requests <= before + 2
        assert supervisor.ref("alert").epoch == 1
    assert [refusal.field for refusal in refusals] == ["title"]
    assert len(history(path)) == 20


async def test_without_a_channel_the_history_says_so(path: Path, clock: VirtualClock) -> None:
    async with tree(path, clock) as supervisor:
        assert (await send(supervisor)).outcome is NO_CHANNEL
    assert history(path) == [("title", NO_CHANNEL)]


async def test_a_channel_that_does_not_exist_is_found_at_the_start(
    path: Path, clock: VirtualClock
) -> None:
    children = [
        ChildSpec(
            "persistence", lambda: PersistenceActor(path, MIGRATIONS, make_worker=InlineWorker)
        ),
        ChildSpec("alert", lambda: AlertActor(path, clock, DEFAULTS, ["nowhere"])),
    ]
    with pytest.raises((UnknownChild, StartFailed)):
        async with open_supervisor(children):
            pass


async def test_a_full_queue_gives_up_the_oldest_info_then_warning_and_never_critical(
    path: Path, clock: VirtualClock, autojump_clock: trio.testing.MockClock
) -> None:
    async def hang(_: OutgoingAlert) -> None:
        await trio.sleep_forever()

    settings = AlertSettings(per_category=100, queue_max=3)
    async with tree(path, clock, hang, settings=settings) as supervisor:
        await send(supervisor, "in flight")
        await trio.testing.wait_all_tasks_blocked()
        for title, level in [
            ("w1", WARNING),
            ("i1", INFO),
            ("i2", INFO),
            ("w2", WARNING),
            ("c1", CRITICAL),
        ]:
            await send(supervisor, title, level)
        assert titles_by_state(path) == {
            "SENDING": ["in flight"],
            "SKIPPED": ["i1", "i2"],
            "PENDING": ["c1", "w1", "w2"],
        }
        for number in range(2, 6):
            await send(supervisor, f"c{number}", CRITICAL)
        assert titles_by_state(path)["SKIPPED"] == ["i1", "i2", "w1", "w2"]
        assert titles_by_state(path)["PENDING"] == ["c1", "c2", "c3", "c4", "c5"]


def titles_by_state(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with Reader(path) as reader:
        for state, title in reader.rows(
            "SELECT state, title FROM outbox JOIN alert ON id = alert_id ORDER BY title"
        ):
            found.setdefault(state, []).append(title)
    return found


# -- the gates, over restarts


async def test_the_budget_survives_a_restart(path: Path, clock: VirtualClock) -> None:
    async with tree(path, clock, Inbox()) as supervisor:
        assert await send_many(supervisor, 5) == [QUEUED] * 5
    clock.advance(11)
    async with tree(path, clock, Inbox()) as supervisor:
        assert (await send(supervisor)).outcome is RATE_SUPPRESSED
        assert (await send(supervisor, level=CRITICAL)).outcome is QUEUED
        clock.advance(48.999)
        assert (await send(supervisor)).outcome is RATE_SUPPRESSED
        clock.advance(0.001)
        assert (await send(supervisor)).outcome is QUEUED


@pytest.mark.parametrize("restart", [False, True])
async def test_a_dedup_key_survives_a_restart_and_resolves_once(
    path: Path, clock: VirtualClock, restart: bool
) -> None:
    inbox = Inbox()
    steps: list[tuple[float, dict[str, Any], AlertReceipt]] = [
        (0, {}, AlertReceipt(1, QUEUED, 1)),
        (10, {}, AlertReceipt(2, DEDUPED, 2)),
        (15, {"level": CRITICAL}, AlertReceipt(3, QUEUED, 3)),
        (20, {"resolves": True}, AlertReceipt(4, QUEUED, 3)),
        (21, {"resolves": True}, AlertReceipt(0, DEDUPED, 0)),
        (22, {}, AlertReceipt(5, QUEUED, 1)),
    ]

    async def take(
        supervisor: Supervisor, at_s: float, more: dict[str, Any], expected: AlertReceipt
    ) -> None:
        clock.advance_to(START_US + round(at_s * 1_000_000))
        assert await send(supervisor, str(at_s), dedup_key="k", **more) == expected

    if restart:
        for step in steps:
            async with tree(path, clock, inbox) as supervisor:
                await take(supervisor, *step)
                await drained(supervisor)
    else:
        async with tree(path, clock, inbox) as supervisor:
            for step in steps:
                await take(supervisor, *step)
            await drained(supervisor)
    assert sorted(inbox.titles) == ["0", "15", "20", "22"]


async def test_twelve_at_once_give_one_summary_even_when_the_process_restarts_meanwhile(
    path: Path, clock: VirtualClock
) -> None:
    inbox = Inbox()
    async with tree(path, clock, inbox) as supervisor:
        await send_many(supervisor, 12)
    clock.advance(59.999)
    async with tree(path, clock, inbox) as supervisor:
        assert await consume(supervisor) == 0
        assert len(history(path)) == 12
        clock.advance(0.001)
        await consume(supervisor)
        await drained(supervisor)
        assert inbox.titles[5:] == ["7 GENERAL suppressed"]
    async with tree(path, clock, inbox) as supervisor:
        assert await send_many(supervisor, 5) == [QUEUED] * 5  # the summary is outside the budget
        clock.advance(60)
        await consume(supervisor)
    assert len(history(path)) == 12 + 1 + 5


# -- requests of other subsystems


async def test_stored_requests_are_consumed_once_also_those_from_before_the_start(
    path: Path, clock: VirtualClock
) -> None:
    inbox = Inbox()
    async with tree(path, clock, inbox) as supervisor:
        await store(supervisor, alert_request(START_US, INFO, GENERAL, "first", "m", strategy="mm"))
    async with tree(path, clock, inbox) as supervisor:
        assert await consume(supervisor) == 0  # the start has done it
        await store(
            supervisor,
            *(alert_request(START_US, INFO, GENERAL, title, "m") for title in ("second", "third")),
        )
        assert await consume(supervisor) == 2
        assert await consume(supervisor) == 0
        await store(supervisor, alert_request(START_US, INFO, GENERAL, "fourth", "m"))
        supervisor.ref("alert").tell_nowait(AlertsWaiting())
        await drained(supervisor)
        await supervisor.ref("alert").ask(RecentAlerts())
        await drained(supervisor)
    assert inbox.titles == ["first", "second", "third", "fourth"]
    assert page(path).alerts[-1].strategy == "mm"


async def test_a_request_rolled_back_with_its_fact_is_no_alert(
    path: Path, clock: VirtualClock
) -> None:
    async with tree(path, clock) as supervisor:
        with pytest.raises(Rejected):
            await store(
                supervisor,
                alert_request(START_US, INFO, GENERAL, "never", ""),
                Statement("INSERT INTO alert_cursor VALUES (2, 0)"),
            )
        assert await consume(supervisor) == 0


async def test_a_request_that_no_sender_could_have_sent_is_repaired(
    path: Path, clock: VirtualClock
) -> None:
    async with tree(path, clock) as supervisor:
        await store(
            supervisor, alert_request(START_US, INFO, GENERAL, "", "a\x00b" * 5_000, resolves=True)
        )
        assert await consume(supervisor) == 1
    (alert,) = page(path).alerts
    assert alert.title == "GENERAL"
    assert alert.message.startswith("a\ufffdb")
    assert len(alert.message) == 4_096


async def consumed(path: Path, every: int) -> list[tuple[int, int, str, AlertOutcome]]:
    """The history of 200 requests, one a second, when they are consumed `every` so many seconds."""
    clock = VirtualClock(START_US)
    async with tree(path, clock) as supervisor:
        for start in range(0, 200, every):
            seconds = range(start, min(start + every, 200))
            await store(
                supervisor,
                *(
                    alert_request(
                        START_US + second * 1_000_000,
                        CRITICAL if second % 11 == 0 or second % 13 == 0 else INFO,
                        KILL_SWITCH if second % 3 == 0 else GENERAL,
                        str(second),
                        "",
                        dedup_key="k" if second % 13 == 0 else None,
                        resolves=second % 39 == 0,
                    )
                    for second in seconds
                ),
            )
            clock.advance_to(START_US + seconds[-1] * 1_000_000)
            assert await consume(supervisor) == len(seconds)
    return [(alert.id, alert.at_us, alert.title, alert.outcome) for alert in page(path).alerts]


@pytest.mark.parametrize("chunk", [3, 200, 4_096])
async def test_requests_are_decided_at_their_own_instants_whenever_that_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    one_by_one = await consumed(tmp_path / "1.db", 1)
    assert {NO_CHANNEL, RATE_SUPPRESSED, DEDUPED} <= {outcome for *_, outcome in one_by_one}
    monkeypatch.setattr(alert_actor, "REQUESTS_MAX", chunk)
    for every in (7, 200):
        assert await consumed(tmp_path / f"{every}.db", every) == one_by_one


# -- crashes


async def test_a_crashed_alert_actor_loses_nothing_and_doubles_nothing(
    path: Path, clock: VirtualClock
) -> None:
    inbox = Inbox()
    async with tree(path, clock, inbox, settings=UNLIMITED) as supervisor:
        alert = supervisor.ref("alert")
        for number in range(30):
            await store(
                supervisor, alert_request(clock.now_us(), INFO, GENERAL, f"request {number}", "")
            )
            alert.tell_nowait(SendAlert(INFO, GENERAL, f"sent {number}", ""))
            alert.tell_nowait(AlertsWaiting())
            if number in (5, 15, 25):
                supervisor.drill("alert")
            await trio.lowlevel.checkpoint()
        while alert.epoch < 4:
            await trio.lowlevel.checkpoint()
        await consume(supervisor)
        await drained(supervisor)
        assert alert.epoch == 4
    wanted = sorted(
        [f"request {number}" for number in range(30)] + [f"sent {number}" for number in range(30)]
    )
    assert sorted(title for title, _ in history(path)) == wanted
    assert sorted(inbox.titles) == wanted


async def test_tables_that_are_not_what_the_actor_believes_crash_it_and_the_next_life_is_right(
    path: Path, clock: VirtualClock
) -> None:
    async with tree(path, clock, settings=UNLIMITED) as supervisor:
        await send(supervisor, "first")
        await store(
            supervisor,
            Statement(
                "INSERT INTO alert VALUES"
                " (2, 0, 'INFO', 'GENERAL', 'intruder', '', NULL, NULL, 'QUEUED', 0)"
            ),
        )
        with pytest.raises(ActorCrashed):
            await send(supervisor, "second")
        assert (await send(supervisor, "third")).id == 3
    assert [title for title, _ in history(path)] == ["first", "intruder", "third"]


# -- storage that refuses


async def test_a_critical_leaves_from_memory_when_storage_refuses_and_is_written_when_it_heals(
    path: Path, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    inbox, worker = Inbox(), FickleWorker()
    async with tree(path, clock, inbox, worker=lambda: worker) as supervisor:
        await send(supervisor, "before")
        await drained(supervisor)
        worker.refuses = True
        receipt = await send(supervisor, "now", CRITICAL, dedup_key="k")
        assert receipt == AlertReceipt(0, UNPERSISTED, 1)
        await drained(supervisor)
        assert inbox.titles == ["before", "now"]
        assert inbox.alerts[1].id not in ("", "0", "1", "2")
        with pytest.raises(StorageDegraded):
            await send(supervisor, "refused")
        again = await send(supervisor, "again", CRITICAL, dedup_key="k")
        assert again == AlertReceipt(0, DEDUPED, 2)
        assert history(path) == [("before", QUEUED)]
        worker.refuses = False
        assert (await send(supervisor, "after")).id == 4
        await drained(supervisor)
    assert history(path) == [
        ("before", QUEUED),
        ("now", UNPERSISTED),
        ("again", DEDUPED),
        ("after", QUEUED),
    ]
    assert inbox.titles == ["before", "now", "after"]
    assert page(path).by_outcome == {"QUEUED": 2, "UNPERSISTED": 1, "DEDUPED": 1}
    async with tree(path, clock, inbox) as supervisor:
        assert (await send(supervisor, "open", CRITICAL, dedup_key="k")).outcome is DEDUPED
        await drained(supervisor)
    assert inbox.titles == ["before", "now", "after"]
    lines = [line.getMessage() for line in caplog.records if "alerts can" in line.getMessage()]
    assert len(lines) == 2  # one when it began, one when it was over


async def test_the_gates_hold_in_memory_and_what_left_counts_after_healing_and_restart(
    path: Path, clock: VirtualClock
) -> None:
    worker = FickleWorker()
    async with tree(path, clock, Inbox(), worker=lambda: worker) as supervisor:
        worker.refuses = True
        outcomes = await send_many(supervisor, 7, level=CRITICAL)
        assert outcomes == [UNPERSISTED] * 5 + [RATE_SUPPRESSED] * 2
        worker.refuses = False
        assert (await send(supervisor, level=CRITICAL)).outcome is RATE_SUPPRESSED
    async with tree(path, clock, Inbox()) as supervisor:
        assert (await send(supervisor, level=CRITICAL)).outcome is RATE_SUPPRESSED
        clock.advance(60)
        await consume(supervisor)
    assert page(path, 1).alerts[0].title == "4 GENERAL suppressed"


async def test_a_stored_critical_request_leaves_once_while_the_others_wait(
    path: Path, clock: VirtualClock
) -> None:
    inbox, worker = Inbox(), FickleWorker()
    async with tree(path, clock, inbox, worker=lambda: worker) as supervisor:
        await consume(supervisor)
        requests = [
            alert_request(clock.now_us(), level, KILL_SWITCH, level.value, "")
            for level in (INFO, CRITICAL, WARNING)
        ]
        await store(supervisor, *requests)
        worker.refuses = True
        for _ in range(3):
            with pytest.raises(StorageDegraded):
                await consume(supervisor)
            supervisor.ref("alert").tell_nowait(AlertsWaiting())
        await drained(supervisor)
        assert inbox.titles == ["CRITICAL"]
        worker.refuses = False
        assert await consume(supervisor) in (0, 3)  # the last of the tells may have been first
        await drained(supervisor)
    assert inbox.titles == ["CRITICAL", "INFO", "WARNING"]
    assert history(path) == [("INFO", QUEUED), ("CRITICAL", UNPERSISTED), ("WARNING", QUEUED)]


async def test_a_storage_that_does_not_answer_holds_no_critical_back_and_no_row_is_lost(
    path: Path, clock: VirtualClock, autojump_clock: trio.testing.MockClock
) -> None:
    inbox, worker = Inbox(), FickleWorker()
    async with tree(path, clock, inbox, worker=lambda: worker) as supervisor:
        await send(supervisor, "before")
        await drained(supervisor)
        worker.delay_s = 8
        receipt = await supervisor.ref("alert").ask(
            SendAlert(CRITICAL, GENERAL, "now", ""), timeout_s=30
        )
        assert receipt.outcome is UNPERSISTED
        worker.delay_s = 0
        await trio.sleep(4)  # the commit that nobody waited for has landed meanwhile
        assert history(path) == [("before", QUEUED), ("now", QUEUED)]
        assert (await send(supervisor, "after")).outcome is QUEUED
        await drained(supervisor)
        assert supervisor.ref("alert").epoch == 1
    # Nobody could know that it landed: twice rather than never.
    assert inbox.titles.count("now") == 2
    assert [title for title, _ in history(path)] == ["before", "now", "now", "after"]


async def test_a_commit_of_unknown_outcome_is_looked_up_before_the_next_decision(
    path: Path, clock: VirtualClock
) -> None:
    inbox, worker = Inbox(), FickleWorker()
    async with tree(path, clock, inbox, worker=lambda: worker) as supervisor:
        await store(supervisor, alert_request(clock.now_us(), INFO, GENERAL, "request", ""))
        worker.loses_answers = True
        with pytest.raises(OutcomeUnknown):
            await consume(supervisor)
        assert await consume(supervisor) == 0  # it had landed
        assert (await send(supervisor, "now", CRITICAL)).outcome is UNPERSISTED
        await supervisor.ref("channel.0").ask(
            PendingDeliveries()
        )  # what came before it in the mailbox is done
        assert inbox.titles == ["now"]
    async with tree(path, clock, inbox) as supervisor:  # a person has looked, and started it again
        await drained(supervisor)
    assert [title for title, _ in history(path)] == ["request"]
    assert inbox.titles == ["now", "request"]


async def test_what_left_from_memory_keeps_its_place_in_the_window_when_history_is_read_again(
    path: Path, clock: VirtualClock
) -> None:
    async with tree(path, clock) as supervisor:
        await send(supervisor, level=CRITICAL)
    left = Alert(START_US, CRITICAL, GENERAL, "left", "")
    with Reader(path) as reader:
        gates = load_gates(reader, DEFAULTS, [Decided(left, UNPERSISTED, 1, in_budget=True)] * 4)
    decided = gates.draft(QUEUED).decide(left)
    assert decided is not None
    assert decided.outcome is RATE_SUPPRESSED


async def test_channels_that_stopped_while_storage_refused_are_woken_when_it_heals(
    path: Path, clock: VirtualClock
) -> None:
    worker, inbox = FickleWorker(), Inbox()

    async def break_storage(alert: OutgoingAlert) -> None:
        await inbox(alert)
        worker.refuses = True

    async with tree(path, clock, break_storage, worker=lambda: worker) as supervisor:
        await send(supervisor, "first")
        await supervisor.ref("channel.0").ask(PendingDeliveries())
        assert (await send(supervisor, "second", CRITICAL)).outcome is UNPERSISTED
        await supervisor.ref("channel.0").ask(PendingDeliveries())
        assert titles_by_state(path) == {"SENDING": ["first"]}
        worker.refuses = False
        await consume(supervisor)
        await drained(supervisor)
        assert titles_by_state(path) == {"DELIVERED": ["first"]}
    assert inbox.titles == ["first", "second"]


async def test_a_new_life_waits_for_the_commit_that_its_predecessor_left_behind(
    path: Path, clock: VirtualClock, autojump_clock: trio.testing.MockClock
) -> None:
    class LateWorker(FickleWorker):
        async def run(self, call: Callable[[], Any]) -> Any:
            await trio.sleep(self.delay_s)
            return await super().run(call)

    class Neighbour(Actor):
        pass

    worker = LateWorker()
    children = [
        ChildSpec(
            "persistence", lambda: PersistenceActor(path, MIGRATIONS, make_worker=lambda: worker)
        ),
        ChildSpec("neighbour", Neighbour),
        ChildSpec("alert", lambda: AlertActor(path, clock, UNLIMITED, []), grace_s=0.1),
    ]
    async with open_supervisor(children, strategy="rest_for_one") as supervisor:
        await send(supervisor, "first")
        worker.delay_s = 0.5
        supervisor.ref("alert").tell_nowait(SendAlert(INFO, GENERAL, "second", ""))
        await trio.testing.wait_all_tasks_blocked()
        supervisor.drill("neighbour")
        assert (await send(supervisor, "third")).id == 3
        assert supervisor.ref("alert").epoch == 2
    assert [title for title, _ in history(path)] == ["first", "second", "third"]


async def test_what_waits_in_memory_is_bounded_and_its_loss_is_logged(
    path: Path,
    clock: VirtualClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(alert_actor, "UNWRITTEN_MAX", 3)
    inbox, worker = Inbox(), FickleWorker()
    async with tree(path, clock, inbox, worker=lambda: worker) as supervisor:
        await consume(supervisor)
        worker.refuses = True
        await send_many(supervisor, 5, level=CRITICAL)
        await drained(supervisor)
        worker.refuses = False
        await send(supervisor, "after")
    assert inbox.titles[:5] == ["0", "1", "2", "3", "4"]
    assert [title for title, _ in history(path)] == ["2", "3", "4", "after"]
    assert (
        sum("will be missing from the history" in line.getMessage() for line in caplog.records) == 2
    )
    assert all(
        line.levelno >= logging.WARNING for line in caplog.records if line.name == "fundops.alert"
    )


# -- looking back


async def test_recent_shows_the_newest_first_with_counts_over_all(
    path: Path, clock: VirtualClock
) -> None:
    async with tree(path, clock) as supervisor:
        for number in range(60):
            await send(supervisor, str(number), category=list(Category)[number % 2])
        alert = supervisor.ref("alert")
        shown = await alert.ask(RecentAlerts(limit=50))
        assert [one.title for one in shown.alerts] == [str(number) for number in range(59, 9, -1)]
        assert shown.by_category == {"KILL_SWITCH": 30, "STRATEGY_FAILURE": 30}
        assert shown.by_outcome == {"NO_CHANNEL": 10, "RATE_SUPPRESSED": 50}
        assert page(path, 50) == shown  # also from another process
        none = await alert.ask(RecentAlerts(limit=0))
        assert none.alerts == ()
        assert none.by_category == shown.by_category
        assert len((await alert.ask(RecentAlerts(limit=10**30))).alerts) == 60


@pytest.mark.parametrize("limit", [-1, True, 1.5, "5"])
async def test_a_limit_that_is_no_count_is_refused_and_the_actor_lives_on(
    path: Path, clock: VirtualClock, limit: Any
) -> None:
    async with tree(path, clock) as supervisor:
        with pytest.raises(AlertRefused) as caught:
            await supervisor.ref("alert").ask(RecentAlerts(limit=limit))
        assert isinstance(caught.value, ValueError)
        assert caught.value.field == "limit"
        assert supervisor.ref("alert").epoch == 1


# -- held back, and heard later


async def test_alerts_that_wait_survive_a_restart_and_are_heard(
    path: Path, clock: VirtualClock
) -> None:
    inbox = Inbox()
    for minute in range(3):
        async with tree(path, clock, inbox) as supervisor:
            if not minute:
                for number in range(12):
                    await send(supervisor, f"{number:02}", CRITICAL, dedup_key=f"k{number:02}")
            await consume(supervisor)
            await drained(supervisor)
            with Reader(path) as reader:
                waiting = 12 - 5 * (minute + 1)
                assert len(told_keys(reader, "k")) == 12
                assert reader.row("SELECT count(*) FROM alert_waiting") == (max(0, waiting),)
        clock.advance(60)
    summary = "7 GENERAL suppressed"
    assert [title for title in inbox.titles if title != summary] == [f"{n:02}" for n in range(12)]
    assert inbox.titles.count(summary) == 1


async def test_a_resolution_of_what_only_waits_is_durable(path: Path, clock: VirtualClock) -> None:
    async with tree(path, clock) as supervisor:
        await send_many(supervisor, 5)
        await send(supervisor, dedup_key="k")
        await send(supervisor, dedup_key="k", resolves=True)
    clock.advance(60)
    async with tree(path, clock) as supervisor:
        await consume(supervisor)
    assert [title for title, _ in history(path)][6:] == ["1 GENERAL suppressed"]


async def test_a_waiting_critical_leaves_from_memory_while_storage_refuses(
    path: Path, clock: VirtualClock
) -> None:
    inbox, worker = Inbox(), FickleWorker()
    async with tree(path, clock, inbox, worker=lambda: worker) as supervisor:
        for number in range(7):
            await send(supervisor, str(number), CRITICAL, dedup_key=f"k{number}")
        await drained(supervisor)
        worker.refuses = True
        clock.advance(60)
        for _ in range(2):
            with pytest.raises(StorageDegraded):
                await send(supervisor, "refused")
        await drained(supervisor)
        assert inbox.titles == [str(number) for number in range(7)]
        worker.refuses = False
        await consume(supervisor)
        await drained(supervisor)
    assert inbox.titles == [*(str(number) for number in range(7)), "2 GENERAL suppressed"]
    unpersisted = [title for title, outcome in history(path) if outcome is UNPERSISTED]
    assert unpersisted == ["5", "6"]


# -- without a message


async def test_an_alert_that_waits_goes_out_without_another_message(
    path: Path, clock: VirtualClock, autojump_clock: trio.testing.MockClock
) -> None:
    inbox = Inbox()
    async with tree(path, clock, inbox) as supervisor:
        for number in range(7):
            await send(supervisor, str(number), dedup_key=f"k{number}")
        clock.advance(59)
        await trio.sleep(59)
        assert inbox.titles == [str(number) for number in range(5)]
        clock.advance(1)
        await trio.sleep(2)
        assert inbox.titles[5:] == ["2 GENERAL suppressed", "5", "6"]


async def test_a_summary_goes_out_without_another_message(
    path: Path, clock: VirtualClock, autojump_clock: trio.testing.MockClock
) -> None:
    async with tree(path, clock, Inbox()) as supervisor:
        await send_many(supervisor, 7)
        clock.advance(60)
        await trio.sleep(61)
        assert page(path, 1).alerts[0].title == "2 GENERAL suppressed"


async def test_a_clock_that_is_set_back_keeps_no_alert_waiting(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    class SteppedClock(VirtualClock):
        step_us = 0

        def now_us(self) -> int:
            return super().now_us() + self.step_us

    inbox, clock = Inbox(), SteppedClock(START_US)
    async with tree(path, clock, inbox) as supervisor:
        for number in range(6):
            await send(supervisor, str(number), dedup_key=f"k{number}")
        clock.step_us = -3_600_000_000
        await trio.sleep(61)
        assert inbox.titles[-1] == "4"
        clock.step_us = 60_000_000
        await trio.sleep(61)
        assert inbox.titles[-1] == "5"


async def test_storage_that_heals_is_found_without_another_message(
    path: Path, clock: VirtualClock, autojump_clock: trio.testing.MockClock
) -> None:
    worker = FickleWorker()
    async with tree(path, clock, Inbox(), worker=lambda: worker) as supervisor:
        await store(supervisor, alert_request(START_US, INFO, GENERAL, "stored", "m"))
        worker.refuses = True
        supervisor.ref("alert").tell_nowait(AlertsWaiting())
        assert (await send(supervisor, "from memory", CRITICAL)).outcome is UNPERSISTED
        await trio.sleep(60)
        assert history(path) == []
        worker.refuses = False
        await trio.sleep(5)
        assert history(path) == [("from memory", UNPERSISTED), ("stored", QUEUED)]


# -- ids that leave the process


async def send_from(
    path: Path, uuid: str, clock: VirtualClock, inbox: Inbox, worker: FickleWorker
) -> None:
    """One alert through the outbox and one from memory, of a database with this uuid."""
    async with tree(path, clock) as supervisor:
        await store(supervisor, Statement("INSERT INTO meta VALUES ('uuid', ?)", [(uuid,)]))
    async with tree(path, clock, inbox, worker=lambda: worker) as supervisor:
        await send(supervisor)
        await drained(supervisor)
        worker.refuses = True
        await send(supervisor, level=CRITICAL)
        await drained(supervisor)
        worker.refuses = False


async def test_an_id_is_unique_in_the_world_by_the_uuid_of_its_database(
    tmp_path: Path, clock: VirtualClock
) -> None:
    inbox = Inbox()
    for name in ("a", "b"):
        await send_from(tmp_path / f"{name}.db", f"uuid-of-{name}", clock, inbox, FickleWorker())
    ids = [alert.id for alert in inbox.alerts]
    assert ids[0] == "uuid-of-a-1"
    assert ids[1].startswith("uuid-of-a-memory-")
    assert ids[2] == "uuid-of-b-1"
    assert len(set(ids)) == len(ids)
