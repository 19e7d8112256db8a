"""The queue: capacity, the overflow policies, order per sender, and messages from other threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fundops.runtime import (
    Actor,
    ActorStopped,
    AskTimeout,
    ChildSpec,
    ConfigError,
    MailboxFull,
    Ref,
    Request,
    Supervisor,
    WrongMessage,
    WrongThread,
    handles,
    open_supervisor,
)

Supervise = Callable[..., AbstractAsyncContextManager[Supervisor]]


class Note(Request[None], frozen=True):
    number: int
    sender: int = 0


class Taker(Actor):
    """Logs each note, and takes `seconds` for it."""

    def __init__(self, log: list[Note], seconds: float = 0.0) -> None:
        self.log = log
        self.seconds = seconds

    @handles(Note)
    async def take(self, message: Note) -> None:
        if self.seconds:
            await trio.sleep(self.seconds)
        self.log.append(message)


def taker(log: list[Note], seconds: float = 1.0, **settings: Any) -> list[ChildSpec]:
    return [ChildSpec("a", lambda: Taker(log, seconds), **settings)]


def numbers(log: list[Note]) -> list[int]:
    return [one.number for one in log]


# -- capacity


@pytest.mark.parametrize("capacity", [0, -1, True, 1.5, "8", None])
def test_a_capacity_that_is_no_positive_whole_number_is_refused(capacity: Any) -> None:
    with pytest.raises(ConfigError, match=r"a\.capacity"):
        ChildSpec("a", lambda: Taker([]), capacity=capacity)


def test_an_unknown_overflow_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="'backpressure' or 'reject' or 'drop_oldest'"):
        ChildSpec("a", lambda: Taker([]), overflow="drop_all")  # type: ignore[arg-type]


async def test_capacity_counts_what_is_queued_and_not_what_is_in_hand(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Note] = []
    async with supervise(taker(log, capacity=2)) as supervisor:
        a = supervisor.ref("a")
        a.tell_nowait(Note(1))
        await wait_all_tasks_blocked()
        a.tell_nowait(Note(2))
        a.tell_nowait(Note(3))
        with pytest.raises(MailboxFull, match="2 messages") as caught:
            a.tell_nowait(Note(4))
        assert (caught.value.capacity, caught.value.outcome) == (2, "not_executed")
        counters = supervisor.statistics()["a"]
        assert (counters.accepted, counters.in_hand, counters.queued, counters.rejected) == (
            3,
            1,
            2,
            1,
        )
        assert counters.depth_max == 2
        await trio.sleep(5)
        assert numbers(log) == [1, 2, 3]


# -- backpressure


async def test_a_sender_waits_for_room_and_for_no_longer(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Note] = []
    async with supervise(taker(log, capacity=2)) as supervisor:
        a = supervisor.ref("a")
        entered = []
        for number in range(5):
            await a.tell(Note(number))
            entered.append(round(trio.current_time(), 6))
        # Two fit at once; the first also leaves the queue at once, each further one a second later.
        assert entered == [0, 0, 0, 1, 2]
        await trio.sleep(10)
        assert numbers(log) == [0, 1, 2, 3, 4]


async def test_messages_of_eight_blocked_senders_stay_in_order_sender_by_sender(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Note] = []
    async with supervise(taker(log, 0.1, capacity=3)) as supervisor:

        async def send(sender: int) -> None:
            for number in range(20):
                await supervisor.ref("a").tell(Note(number, sender))

        async with trio.open_nursery() as nursery:
            for sender in range(8):
                nursery.start_soon(send, sender)
        await trio.sleep(60)
        assert len(log) == 160
        for sender in range(8):
            assert [one.number for one in log if one.sender == sender] == list(range(20))
        # Senders hand over in the order of their waiting, so no sender starves.
        places = {
            sender: [at for at, one in enumerate(log) if one.sender == sender]
            for sender in range(8)
        }
        for own in places.values():
            assert max(after - before for before, after in pairwise(own)) <= 16
        counters = supervisor.statistics()["a"]
        assert (counters.depth_max, counters.rejected) == (3, 0)


async def test_the_message_of_a_cancelled_blocked_sender_never_appears(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Note] = []
    async with supervise(taker(log, capacity=1)) as supervisor:
        a = supervisor.ref("a")
        a.tell_nowait(Note(1))
        await wait_all_tasks_blocked()
        a.tell_nowait(Note(2))

        async def send_later(number: int) -> None:
            await a.tell(Note(number))

        async with trio.open_nursery() as nursery:
            with trio.move_on_after(0.5) as patience:
                nursery.start_soon(send_later, 4)
                await a.tell(Note(3))
            assert patience.cancelled_caught
        await trio.sleep(10)
        assert numbers(log) == [1, 2, 4]
        assert supervisor.statistics()["a"].accepted == 3


async def test_a_tell_in_a_cancelled_scope_does_not_enter_even_when_there_is_room(
    supervise: Supervise,
) -> None:
    log: list[Note] = []
    async with supervise(taker(log)) as supervisor:
        with trio.CancelScope() as scope:
            scope.cancel()
            await supervisor.ref("a").tell(Note(1))
        assert scope.cancelled_caught
        assert supervisor.statistics()["a"].accepted == 0


async def test_a_sender_that_does_not_wait_may_not_overtake_one_that_does(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Note] = []
    async with supervise(taker(log, capacity=1)) as supervisor, trio.open_nursery() as nursery:
        a = supervisor.ref("a")
        a.tell_nowait(Note(1))
        await wait_all_tasks_blocked()
        a.tell_nowait(Note(2))
        nursery.start_soon(a.tell, Note(3))
        nursery.start_soon(a.tell, Note(3))
        await trio.sleep(1.5)
        with pytest.raises(MailboxFull):
            a.tell_nowait(Note(4))
        await trio.sleep(10)
        assert numbers(log) == [1, 2, 3, 3]


async def test_a_blocked_sender_is_told_at_once_when_the_actor_is_stopped(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise(taker([], capacity=1)) as supervisor:
        a = supervisor.ref("a")
        a.tell_nowait(Note(1))
        await wait_all_tasks_blocked()
        a.tell_nowait(Note(2))

        async def send() -> None:
            with pytest.raises(ActorStopped, match="enough"):
                await a.tell(Note(3))
            assert trio.current_time() == 0  # the message in hand goes on for a second

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            await supervisor.stop_child("a", "enough")
        assert supervisor.statistics()["a"].accepted == 2


async def test_a_blocked_sender_waits_through_a_restart(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Note] = []
    async with supervise(taker(log, capacity=1)) as supervisor:
        a = supervisor.ref("a")
        a.tell_nowait(Note(1))
        await wait_all_tasks_blocked()
        a.tell_nowait(Note(2))
        supervisor.drill("a")
        await a.tell(Note(3))
        assert a.epoch == 2
        await trio.sleep(10)
        assert numbers(log) == [1, 2, 3]


# -- the other policies


async def test_a_rejecting_mailbox_raises_for_every_way_of_sending(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Note] = []
    async with supervise(taker(log, capacity=1, overflow="reject")) as supervisor:
        a = supervisor.ref("a")
        a.tell_nowait(Note(1))
        with pytest.raises(MailboxFull):
            a.tell_nowait(Note(2))
        with pytest.raises(MailboxFull):
            await a.tell(Note(3))
        with pytest.raises(MailboxFull):
            await a.ask(Note(4))
        await trio.sleep(5)
        assert numbers(log) == [1]
        counters = supervisor.statistics()["a"]
        assert (counters.accepted, counters.rejected) == (1, 3)


async def test_dropping_the_oldest_keeps_the_newest_and_accounts_for_the_rest(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Note] = []
    async with supervise(taker(log, capacity=3, overflow="drop_oldest")) as supervisor:
        a = supervisor.ref("a")
        for number in range(8):
            a.tell_nowait(Note(number))
        await a.tell(Note(8))
        assert [one.reason for one in supervisor.dead_letters] == ["dropped: mailbox full"] * 6
        await trio.sleep(10)
        assert numbers(log) == [6, 7, 8]
        counters = supervisor.statistics()["a"]
        assert (counters.accepted, counters.done, counters.undeliverable, counters.rejected) == (
            9,
            3,
            6,
            0,
        )


@pytest.mark.parametrize(
    "settings",
    [
        {"overflow": "drop_oldest"},
        {"overflow": "conflate", "conflate_by": lambda note: note.number % 5},
    ],
)
async def test_a_sender_that_never_rests_does_not_keep_the_actor_from_working(
    supervise: Supervise, settings: dict[str, Any]
) -> None:
    log: list[Note] = []
    async with supervise(taker(log, 0.0, capacity=5, **settings)) as supervisor:
        number = 0
        while len(log) < 10:
            number += 1
            await supervisor.ref("a").tell(Note(number))
            assert number < 1_000


async def test_dropping_a_message_nobody_waits_for_any_more_counts_it_as_expired(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise(taker([], seconds=5, capacity=1, overflow="drop_oldest")) as supervisor:
        a = supervisor.ref("a")
        a.tell_nowait(Note(1))
        await wait_all_tasks_blocked()
        with pytest.raises(AskTimeout):
            await a.ask(Note(2), timeout_s=1)
        a.tell_nowait(Note(3))
        counters = supervisor.statistics()["a"]
        assert (counters.expired, counters.undeliverable, counters.queued) == (1, 0, 1)


async def test_dead_letters_are_a_bounded_ring_with_an_exact_count(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise(taker([], capacity=1, overflow="drop_oldest")) as supervisor:
        for number in range(1_000):
            supervisor.ref("a").tell_nowait(Note(number))
        assert supervisor.dead_letters.total == 999
        assert len(supervisor.dead_letters) == 256


# -- fairness


async def test_a_busy_actor_lets_others_run_after_every_64_messages(supervise: Supervise) -> None:
    log: list[Note] = []
    async with supervise(taker(log, seconds=0)) as supervisor:
        for number in range(1_000):
            supervisor.ref("a").tell_nowait(Note(number))
        seen = [0]
        while seen[-1] < 1_000:
            await trio.lowlevel.checkpoint()
            seen.append(len(log))
        # Trio shuffles the tasks of a tick, so the actor may run twice between two looks.
        assert {after - before for before, after in pairwise(seen)} <= {0, 40, 64, 104, 128}


# -- other threads


def in_thread(call: Callable[[], Any]) -> Any:
    """The value or the error of `call`, run in another thread."""
    results: list[Any] = []

    def work() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001
            results.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return results[0]


def step(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its first wait, as a program outside trio would."""
    try:
        return coroutine.send(None)
    finally:
        coroutine.close()


async def test_sending_from_another_thread_is_refused(supervise: Supervise) -> None:
    async with supervise(taker([])) as supervisor:
        a = supervisor.ref("a")
        assert isinstance(in_thread(lambda: a.tell_nowait(Note(1))), WrongThread)
        assert isinstance(in_thread(lambda: step(a.tell(Note(1)))), WrongThread)
        assert isinstance(in_thread(lambda: step(a.ask(Note(1)))), WrongThread)
        assert supervisor.statistics()["a"].accepted == 0


async def test_a_tell_from_a_thread_arrives_in_order(supervise: Supervise) -> None:
    log: list[Note] = []
    async with supervise(taker(log, seconds=0)) as supervisor:
        a = supervisor.ref("a")

        def tell_all() -> None:
            for number in range(10):
                a.tell_from_thread(Note(number))

        in_thread(tell_all)
        while len(log) < 10:
            await trio.lowlevel.checkpoint()
        assert numbers(log) == list(range(10))


async def test_a_tell_from_a_thread_obeys_the_policy_and_is_counted_when_refused(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    kept: list[Note] = []
    dropped: list[Note] = []
    children = [
        ChildSpec("keep", lambda: Taker(kept, 1), capacity=1),
        ChildSpec("drop", lambda: Taker(dropped, 1), capacity=1, overflow="drop_oldest"),
    ]
    async with supervise(children) as supervisor:
        for name in ("keep", "drop"):
            ref: Ref = supervisor.ref(name)
            ref.tell_nowait(Note(0))
            await wait_all_tasks_blocked()
            for number in (1, 2):
                in_thread(partial(ref.tell_from_thread, Note(number)))
        await trio.sleep(10)
        assert numbers(kept) == [0, 1]
        assert numbers(dropped) == [0, 2]
        assert supervisor.statistics()["keep"].rejected == 1
        assert supervisor.statistics()["drop"].undeliverable == 1
        await supervisor.stop_child("keep")
        supervisor.ref("keep").tell_from_thread(Note(3))
        await trio.sleep(1)
        assert supervisor.statistics()["keep"].rejected == 2


async def test_a_tell_from_a_thread_of_a_wrong_type_is_refused_there(supervise: Supervise) -> None:
    async with supervise(taker([])) as supervisor:
        assert isinstance(
            in_thread(lambda: supervisor.ref("a").tell_from_thread("text")), WrongMessage
        )


def test_a_tell_from_a_thread_after_the_run_is_told_that_the_actor_is_gone() -> None:
    async def main() -> Ref:
        async with open_supervisor(taker([])) as supervisor:
            return supervisor.ref("a")

    with pytest.raises(ActorStopped, match="run is over"):
        trio.run(main).tell_from_thread(Note(1))


async def test_a_tell_from_a_thread_before_the_first_life_is_refused(supervise: Supervise) -> None:
    seen: list[Any] = []

    class Early(Actor):
        async def on_start(self) -> None:
            ref = self.context.ref("a")
            seen.append(in_thread(lambda: ref.tell_from_thread(Note(1))))

    async with supervise([ChildSpec("early", Early), *taker([])]):
        assert isinstance(seen[0], ActorStopped)
