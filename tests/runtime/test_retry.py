"""Messages that may run twice: back to the head after a crash, and set aside when nothing helps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fundops.runtime import (
    Actor,
    ActorCrashed,
    ActorStopped,
    AskTimeout,
    ChildSpec,
    ConfigError,
    Quarantined,
    Rejected,
    Request,
    StartFailed,
    Supervisor,
    SupervisorSpec,
    handles,
    handles_batch,
)

Supervise = Callable[..., AbstractAsyncContextManager[Supervisor]]


class Book(Request[int], frozen=True):
    """Crashes the first `crashes` lives that try it."""

    idempotent = True

    number: int
    crashes: int = 0
    seconds: float = 0.0
    key: str | None = None


class Once(Request[int], frozen=True):
    number: int
    seconds: float = 0.0
    key: str | None = None


class Crash(Request[None], frozen=True):
    pass


class Refused(Rejected):
    """What is refused."""


class Clerk(Actor):
    def __init__(self, log: list[tuple[int, int]]) -> None:
        self.log = log  # of what, in which life

    @handles(Book)
    async def book(self, message: Book) -> int:
        tried = [number for number, _ in self.log].count(message.number)
        self.log.append((message.number, self.context.epoch))
        await trio.sleep(message.seconds)
        if tried < message.crashes:
            raise ValueError("a bug")
        if message.number < 0:
            raise Refused
        return message.number

    @handles(Once)
    async def once(self, message: Once) -> int:
        self.log.append((message.number, self.context.epoch))
        await trio.sleep(message.seconds)
        return message.number

    @handles(Crash)
    def crash(self, message: Crash) -> None:
        raise ValueError("a bug")


class Batcher(Actor):
    def __init__(self, log: list[tuple[tuple[int, ...], int]]) -> None:
        self.log = log

    @handles_batch(Book)
    async def book(self, messages: list[Book]) -> list[int]:
        numbers = tuple(one.number for one in messages)
        self.log.append((numbers, self.context.epoch))
        if any(one.crashes for one in messages):
            raise ValueError("a bug")
        return list(numbers)


def clerk(log: list[tuple[int, int]], name: str = "a", **settings: Any) -> ChildSpec:
    return ChildSpec(name, lambda: Clerk(log), **settings)


async def test_one_that_crashes_twice_and_then_works_is_handled_before_its_followers(
    supervise: Supervise,
) -> None:
    log: list[tuple[int, int]] = []
    async with supervise([clerk(log)]) as supervisor:
        a = supervisor.ref("a")
        for message in (Book(1), Book(2, crashes=2), Book(3), Once(4)):
            a.tell_nowait(message)
        await wait_all_tasks_blocked()
        assert log == [(1, 1), (2, 1), (2, 2), (2, 3), (3, 3), (4, 3)]
        counters = supervisor.statistics()["a"]
        assert (counters.done, counters.crashed, counters.quarantined, counters.retried) == (
            4,
            0,
            0,
            2,
        )
        assert supervisor.dead_letters.total == 0


async def test_one_that_always_crashes_is_set_aside_and_the_actor_goes_on(
    supervise: Supervise,
) -> None:
    log: list[tuple[int, int]] = []
    async with supervise([clerk(log)]) as supervisor:
        a = supervisor.ref("a")
        a.tell_nowait(Book(1, crashes=99, key="order 7"))
        a.tell_nowait(Once(2))
        await wait_all_tasks_blocked()
        assert log == [(1, 1), (1, 2), (1, 3), (2, 4)]
        counters = supervisor.statistics()["a"]
        assert (counters.done, counters.crashed, counters.quarantined) == (1, 0, 1)
        assert supervisor.dead_letters[-1].reason == "quarantined after 3 attempts: ValueError"
        (event,) = (one for one in supervisor.events if isinstance(one, Quarantined))
        assert (event.name, event.message_type, event.attempts, event.key) == (
            "a",
            "Book",
            3,
            "order 7",
        )


async def test_the_attempts_are_a_setting(supervise: Supervise) -> None:
    log: list[tuple[int, int]] = []
    async with supervise([clerk(log, max_attempts=1)]) as supervisor:
        supervisor.ref("a").tell_nowait(Book(1, crashes=1))
        await wait_all_tasks_blocked()
        assert log == [(1, 1)]
        assert supervisor.statistics()["a"].quarantined == 1


async def test_the_asker_of_a_retried_message_has_failed_all_the_same(supervise: Supervise) -> None:
    log: list[tuple[int, int]] = []
    async with supervise([clerk(log)]) as supervisor:
        with pytest.raises(ActorCrashed) as caught:
            await supervisor.ref("a").ask(Book(1, crashes=1, key="order 7"))
        await wait_all_tasks_blocked()
        assert (caught.value.outcome, caught.value.key) == ("unknown", "order 7")
        assert str(caught.value).endswith(
            "crashed while handling Book; ask again with key 'order 7'"
        )
        assert log == [(1, 1), (1, 2)]
        assert supervisor.statistics()["a"].late_replies == 0


async def test_a_message_that_may_not_run_twice_does_not(supervise: Supervise) -> None:
    log: list[tuple[int, int]] = []
    async with supervise([clerk(log)]) as supervisor:
        supervisor.ref("a").tell_nowait(Crash())
        supervisor.ref("a").tell_nowait(Once(2))
        await wait_all_tasks_blocked()
        assert log == [(2, 2)]
        assert supervisor.statistics()["a"].crashed == 1


async def test_a_retried_message_that_is_then_refused_is_a_dead_letter(
    supervise: Supervise,
) -> None:
    log: list[tuple[int, int]] = []
    async with supervise([clerk(log)]) as supervisor:
        with pytest.raises(ActorCrashed):
            await supervisor.ref("a").ask(Book(-1, crashes=1))
        await wait_all_tasks_blocked()
        assert supervisor.dead_letters[-1].reason.startswith("refused")


async def test_what_goes_back_to_a_full_mailbox_lets_nobody_in_too_early(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[tuple[int, int]] = []
    async with supervise([clerk(log, capacity=1)]) as supervisor:
        a = supervisor.ref("a")
        a.tell_nowait(Book(1, crashes=1, seconds=1))
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for number in (2, 3, 4):
                nursery.start_soon(a.tell, Once(number))
                await wait_all_tasks_blocked()
        await trio.sleep(5)
        assert [number for number, _ in log] == [1, 1, 2, 3, 4]
        assert supervisor.statistics()["a"].depth_max == 2


async def test_the_innocent_of_a_crashed_batch_are_not_set_aside_with_the_culprit(
    supervise: Supervise,
) -> None:
    log: list[tuple[tuple[int, ...], int]] = []
    async with supervise([ChildSpec("a", lambda: Batcher(log))]) as supervisor:
        a = supervisor.ref("a")
        for number in range(5):
            a.tell_nowait(Book(number, crashes=99 if number == 2 else 0))
        await wait_all_tasks_blocked()
        # Together once, and after that each on its own.
        assert log == [
            ((0, 1, 2, 3, 4), 1),
            ((0,), 2),
            ((1,), 2),
            ((2,), 2),
            ((2,), 3),
            ((3,), 4),
            ((4,), 4),
        ]
        counters = supervisor.statistics()["a"]
        assert (counters.done, counters.quarantined) == (4, 1)


async def test_a_bystander_that_overruns_its_grace_gets_its_message_back_without_an_attempt(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[tuple[int, int]] = []
    specs = [clerk([], "a"), clerk(log, "b", grace_s=1, max_attempts=1)]
    async with supervise(specs, strategy="one_for_all") as supervisor:

        async def ask() -> None:
            with pytest.raises(ActorStopped) as caught:
                await supervisor.ref("b").ask(Book(1, seconds=3, key="order 7"))
            assert (caught.value.outcome, caught.value.key) == ("unknown", "order 7")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            supervisor.ref("b").tell_nowait(Book(2))
            supervisor.ref("a").tell_nowait(Crash())
        await trio.sleep(10)
        assert log == [(1, 1), (1, 2), (2, 2)]
        counters = supervisor.statistics()["b"]
        assert (counters.interrupted, counters.done, counters.quarantined) == (0, 2, 0)


async def test_nothing_goes_back_to_an_actor_that_is_stopped_for_good(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise([clerk([], grace_s=1)]) as supervisor:
        supervisor.ref("a").tell_nowait(Book(1, seconds=30))
        await wait_all_tasks_blocked()
        await supervisor.stop_child("a")
        counters = supervisor.statistics()["a"]
        assert (counters.interrupted, counters.retried) == (1, 0)


async def test_an_ask_that_timed_out_in_hand_names_its_key(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise([clerk([])]) as supervisor:
        with pytest.raises(AskTimeout) as caught:
            await supervisor.ref("a").ask(Once(1, seconds=5, key="order 7"), timeout_s=1)
        assert caught.value.key == "order 7"
        assert str(caught.value).endswith(
            "it was in hand, and goes on; ask again with key 'order 7'"
        )


# -- the setting that cannot work


class Ready(Clerk):
    def __init__(self) -> None:
        super().__init__([])


@pytest.mark.parametrize("intensity", [0, 1, 2])
@pytest.mark.parametrize("factory", [Ready, partial(Clerk, []), partial(partial(Clerk), [])])
def test_more_attempts_than_restarts_are_refused_in_the_spec(
    factory: Callable[[], Actor], intensity: int
) -> None:
    with pytest.raises(ConfigError, match=rf"a.max_attempts: 3 .*intensity of {intensity}"):
        SupervisorSpec("g", [ChildSpec("a", factory)], intensity=intensity)


async def test_an_opaque_factory_is_refused_at_the_first_start(supervise: Supervise) -> None:
    with pytest.raises(StartFailed) as caught:
        async with supervise([ChildSpec("a", lambda: Clerk([]))], intensity=2):
            raise AssertionError("never entered")
    assert isinstance(caught.value.__cause__, ConfigError)
    assert caught.value.__cause__.field == "a.max_attempts"


def test_attempts_do_not_matter_without_a_message_that_may_run_twice() -> None:
    class Plain(Actor):
        @handles(Once)
        def once(self, message: Once) -> int:
            return 0

    SupervisorSpec("g", [ChildSpec("a", Plain)], intensity=0)
