"""The records of a supervisor: the tree at an instant, dead letters, events, and stuck tasks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fundops.runtime import (
    Actor,
    Backoff,
    ChildSpec,
    ChildStatus,
    CleanupFailed,
    ConfigError,
    Crashed,
    DeadLetter,
    Log,
    Rejected,
    Request,
    Restarted,
    Stuck,
    Supervisor,
    SupervisorEscalated,
    SupervisorSpec,
    Terminated,
    handles,
    handles_batch,
    open_supervisor,
)

Supervise = Callable[..., AbstractAsyncContextManager[Supervisor]]


class Work(Request[int], frozen=True):
    seconds: float = 0.0


class Crash(Request[None], frozen=True):
    pass


class Pair(Request[int], frozen=True):
    seconds: float = 0.0


class Look(Request[ChildStatus], frozen=True):
    pass


class Worker(Actor):
    supervisor: Supervisor

    @handles(Work)
    async def work(self, message: Work) -> int:
        await trio.sleep(message.seconds)
        return 1

    @handles_batch(Pair)
    async def pairs(self, messages: list[Pair]) -> list[int]:
        await trio.sleep(messages[0].seconds)
        return [len(messages)] * len(messages)

    @handles(Crash)
    def crash(self, message: Crash) -> None:
        raise ValueError("a bug")

    @handles(Look)
    def look(self, message: Look) -> ChildStatus:
        return self.supervisor.tree()[0]


# -- the tree


async def test_the_tree_says_what_is_in_hand_and_since_when(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise([ChildSpec("a", Worker, capacity=7)]) as supervisor:
        a = supervisor.ref("a")
        (status,) = supervisor.tree()
        assert (status.in_hand, status.in_hand_s, status.capacity) == (None, None, 7)
        a.tell_nowait(Work(10))
        a.tell_nowait(Work(10))
        await trio.sleep(4)
        (status,) = supervisor.tree()
        assert status.in_hand == "Work"
        assert status.in_hand_s == pytest.approx(4)
        assert status.mailbox is not None
        assert (status.mailbox.queued, status.mailbox.in_hand, status.mailbox.depth_max) == (
            1,
            1,
            2,
        )
        await trio.sleep(8)
        (status,) = supervisor.tree()
        assert status.in_hand_s == pytest.approx(2)
        a.tell_nowait(Pair(5))
        a.tell_nowait(Pair())
        await trio.sleep(9)
        (status,) = supervisor.tree()
        assert status.in_hand == "Pair"
        assert status.in_hand_s == pytest.approx(1)


async def test_a_handler_that_looks_at_the_tree_finds_its_own_message_in_hand(
    supervise: Supervise,
) -> None:
    async with supervise([ChildSpec("a", Worker)]) as supervisor:
        Worker.supervisor = supervisor
        await supervisor.ref("a").ask(Work())
        status = await supervisor.ref("a").ask(Look())
        assert (status.in_hand, status.in_hand_s) == ("Look", 0.0)


async def test_the_tree_counts_the_failures_that_still_matter(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise(
        [ChildSpec("a", Worker), ChildSpec("b", Worker)], period_s=5
    ) as supervisor:
        for _ in range(2):
            supervisor.ref("a").tell_nowait(Crash())
            await trio.sleep(2)
        assert [one.restarts_in_window for one in supervisor.tree()] == [2, 0]
        await trio.sleep(2)
        assert [one.restarts_in_window for one in supervisor.tree()] == [1, 0]
        await trio.sleep(2)
        assert [(one.restarts, one.restarts_in_window) for one in supervisor.tree()] == [
            (2, 0),
            (0, 0),
        ]


async def test_the_tree_of_a_nested_supervisor_is_in_it_and_can_be_sent_anywhere(
    supervise: Supervise,
) -> None:
    async with supervise([SupervisorSpec("g", [ChildSpec("a", Worker)])]) as supervisor:
        encoded = msgspec.json.encode(supervisor.tree())
        (group,) = msgspec.json.decode(encoded, type=tuple[ChildStatus, ...])
        assert (group.name, group.capacity, group.mailbox) == ("g", None, None)
        assert [(one.name, one.state, one.epoch) for one in group.children] == [("a", "running", 1)]
        assert repr(supervisor) == "<Supervisor root: g running#1>"


# -- dead letters and events


class Nosy(Actor):
    """Gets dead letters and refuses them, which makes each refusal another dead letter."""

    class Enough(Rejected):
        pass

    @handles(DeadLetter)
    def hear(self, message: DeadLetter) -> None:
        raise self.Enough(message.reason)


async def test_a_subscriber_hears_of_every_dead_letter_at_once(supervise: Supervise) -> None:
    heard: list[DeadLetter] = []
    async with supervise([ChildSpec("a", Worker)]) as supervisor:
        supervisor.dead_letters.subscribe(heard.append)
        supervisor.ref("a").tell_nowait(Crash())
        await wait_all_tasks_blocked()
        assert heard == list(supervisor.dead_letters)
        assert [(one.actor, one.message_type, one.reason) for one in heard] == [
            ("a", "Crash", "crashed: ValueError")
        ]
        supervisor.dead_letters.unsubscribe()
        supervisor.ref("a").tell_nowait(Crash())
        await wait_all_tasks_blocked()
        assert (len(heard), supervisor.dead_letters.total) == (1, 2)


async def test_dead_letters_about_dead_letters_do_not_go_round_for_ever(
    supervise: Supervise,
) -> None:
    async with supervise(
        [ChildSpec("a", Worker), ChildSpec("nosy", Nosy, capacity=1)]
    ) as supervisor:
        supervisor.dead_letters.subscribe(supervisor.ref("nosy").tell_nowait)
        supervisor.ref("a").tell_nowait(Crash())
        await wait_all_tasks_blocked()
        assert [one.message_type for one in supervisor.dead_letters] == ["Crash", "DeadLetter"]


async def test_a_subscriber_that_raises_harms_nobody(supervise: Supervise) -> None:
    def bad(letter: DeadLetter) -> None:
        supervisor.dead_letters.append(letter)
        raise RuntimeError("cannot cope")

    async with supervise([ChildSpec("a", Worker)]) as supervisor:
        supervisor.dead_letters.subscribe(bad)
        supervisor.ref("a").tell_nowait(Crash())
        await wait_all_tasks_blocked()
        assert supervisor.ref("a").epoch == 2
        assert (supervisor.dead_letters.failures, supervisor.dead_letters.total) == (1, 2)


def test_there_is_room_for_one_subscriber() -> None:
    log: Log[int] = Log(3)
    log.subscribe(print)
    with pytest.raises(ConfigError, match="subscriber: there is one already"):
        log.subscribe(repr)
    log.unsubscribe()
    log.subscribe(repr)


def test_a_log_keeps_the_latest_and_counts_them_all() -> None:
    log: Log[int] = Log(3)
    for number in range(10):
        log.append(number)
    assert (log.total, len(log), list(log), log[-1], log[:2]) == (10, 3, [7, 8, 9], 9, [7, 8])
    assert repr(log) == "<Log of 10, the latest 3: [7, 8, 9]>"


async def test_events_tell_the_story_of_a_tree(supervise: Supervise) -> None:
    class Untidy(Worker):
        async def on_stop(self, reason: str) -> None:
            raise OSError("disk full")

    async with supervise([ChildSpec("a", Untidy)]) as supervisor:
        supervisor.ref("a").tell_nowait(Crash())
        await wait_all_tasks_blocked()
        await supervisor.stop_child("a")
        assert [(type(one), one.name) for one in supervisor.events] == [
            (CleanupFailed, "a"),
            (Crashed, "a"),
            (Restarted, "a"),
            (CleanupFailed, "a"),
            (Terminated, "a"),
        ]


# -- tasks that do not end


class Deaf(Actor):
    """Does not let itself be cancelled until `release` is set."""

    release: trio.Event

    @handles(Work)
    async def work(self, message: Work) -> int:
        with trio.CancelScope(shield=True):
            await self.release.wait()
        return 1


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.CRITICAL, logger="fundops.runtime")
    return caplog


async def test_a_life_that_cannot_be_cancelled_is_reported_with_its_stack_and_left_behind(
    supervise: Supervise, autojump_clock: MockClock, quiet: pytest.LogCaptureFixture
) -> None:
    Deaf.release = trio.Event()
    async with supervise(
        [ChildSpec("a", Deaf, grace_s=1, on_stop_deadline_s=1)], stuck_after_s=3
    ) as supervisor:
        supervisor.ref("a").tell_nowait(Work())
        await wait_all_tasks_blocked()
        await supervisor.stop_child("a")
        assert trio.current_time() == pytest.approx(5)
        (stuck, _) = supervisor.events
        assert isinstance(stuck, Stuck)
        assert (stuck.name, stuck.epoch, stuck.for_s) == ("a", 1, 4)
        assert "self.release.wait()" in stuck.stack
        assert "self.release.wait()" in quiet.text
        assert supervisor.tree()[0].state == "stuck"
        assert (await supervisor.watch("a")).reason == "requested"
        Deaf.release.set()
        await wait_all_tasks_blocked()
        assert supervisor.tree()[0].state == "stopped"


async def test_one_that_does_not_end_does_not_keep_the_others_from_being_stopped(
    supervise: Supervise, autojump_clock: MockClock, quiet: pytest.LogCaptureFixture
) -> None:
    Deaf.release = trio.Event()
    gone: list[tuple[str, float]] = []

    class Idle(Actor):
        async def on_stop(self, reason: str) -> None:
            gone.append((self.context.name, trio.current_time()))

    async def later() -> None:
        await trio.sleep(100)
        Deaf.release.set()

    deaf = SupervisorSpec("g", [ChildSpec("b", Deaf, grace_s=1, on_stop_deadline_s=1)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(later)
        async with supervise(
            [ChildSpec("a", Idle), deaf, ChildSpec("c", Idle)], stuck_after_s=3
        ) as supervisor:
            supervisor.ref("b").tell_nowait(Work())
            await wait_all_tasks_blocked()
    assert [name for name, _ in gone] == ["c", "a"]
    assert [at_s for _, at_s in gone] == pytest.approx([0, 5])
    assert trio.current_time() == pytest.approx(100)  # trio cannot leave a task behind


async def test_two_lives_of_one_actor_are_never_up_together(
    supervise: Supervise, autojump_clock: MockClock, quiet: pytest.LogCaptureFixture
) -> None:
    Deaf.release = trio.Event()
    specs = [ChildSpec("a", Worker), ChildSpec("b", Deaf, grace_s=1, on_stop_deadline_s=1)]
    async with supervise(specs, strategy="one_for_all", stuck_after_s=3) as supervisor:
        supervisor.ref("b").tell_nowait(Work())
        await wait_all_tasks_blocked()
        supervisor.ref("a").tell_nowait(Crash())
        await trio.sleep(50)
        assert supervisor.tree()[1].state == "stuck"
        assert supervisor.ref("b").epoch == 1
        Deaf.release.set()
        await wait_all_tasks_blocked()
        assert [(one.state, one.epoch) for one in supervisor.tree()] == [
            ("running", 2),
            ("running", 2),
        ]


class Hog(Actor):
    """Holds the loop until another thread says so."""

    let_go: threading.Event

    @handles(Work)
    def work(self, message: Work) -> int:
        self.let_go.wait(30)
        return 1


async def test_an_actor_that_holds_the_loop_is_logged_at_once_and_reported_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Hog.let_go = threading.Event()
    logged: list[str] = []

    def critical(text: str, *values: Any) -> None:
        logged.append(text % values)
        Hog.let_go.set()

    monkeypatch.setattr(logging.getLogger("fundops.runtime"), "critical", critical)
    async with open_supervisor(
        [ChildSpec("a", Worker), ChildSpec("hog", Hog)], stuck_after_s=0.02
    ) as supervisor:
        await supervisor.ref("a").ask(Work())
        assert await supervisor.ref("hog").ask(Work(), timeout_s=60) == 1
        while not supervisor.events:
            await trio.lowlevel.checkpoint()
        (stuck,) = supervisor.events
        assert isinstance(stuck, Stuck)
        assert stuck.name == "hog"
        assert "self.let_go.wait(30)" in stuck.stack
    assert logged[0].startswith("actor hog has held the loop for")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
async def test_a_patience_that_makes_no_sense_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="stuck_after_s"):
        async with open_supervisor([], stuck_after_s=seconds):
            raise AssertionError("never entered")


async def test_an_escalation_carries_the_crashes_in_their_order(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async def scenario() -> None:
        backoff = Backoff(min_s=1)
        async with supervise(
            [ChildSpec("a", Worker), ChildSpec("b", Worker)], backoff=backoff
        ) as supervisor:
            for name in "abab":
                supervisor.ref(name).tell_nowait(Crash())
                await trio.sleep(0.1)
            await trio.sleep(50)

    with pytest.raises(SupervisorEscalated) as caught:
        await scenario()
    assert [(one.name, one.epoch, one.error) for one in caught.value.crashes] == [
        ("a", 1, "ValueError: a bug"),
        ("b", 1, "ValueError: a bug"),
        ("a", 2, "ValueError: a bug"),
        ("b", 2, "ValueError: a bug"),
    ]
    assert [one.at_s for one in caught.value.crashes] == sorted(
        one.at_s for one in caught.value.crashes
    )
