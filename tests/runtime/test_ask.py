"""The answers and errors of an ask: every row of the contract's table, in virtual time."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fundops.runtime import (
    Actor,
    ActorCrashed,
    ActorStopped,
    AskCycle,
    AskTimeout,
    Backoff,
    ChildSpec,
    ConfigError,
    MailboxFull,
    Ref,
    Request,
    Supervisor,
    SupervisorEscalated,
    handles,
)

Supervise = Callable[..., AbstractAsyncContextManager[Supervisor]]


class Work(Request[int], frozen=True):
    """Take so long, then answer `number`; a negative number is a crash."""

    number: int = 0
    seconds: float = 0.0


class Relay(Request[Any], frozen=True):
    """Ask the first of `path` to relay to the rest; the last answers with the names it passed."""

    path: tuple[str, ...]
    timeout_s: float = 5.0
    pause_s: float = 0.0


class Worker(Actor):
    def __init__(self, log: list[Any]) -> None:
        self.log = log

    @handles(Work)
    async def work(self, message: Work) -> int:
        self.log.append((self.context.epoch, message.number))
        if message.seconds:
            await trio.sleep(message.seconds)
        if message.number < 0:
            raise ValueError("a bug")
        return message.number

    @handles(Relay)
    async def relay(self, message: Relay) -> Any:
        await trio.sleep(message.pause_s)
        if not message.path:
            return (self.context.name,)
        following = Relay(message.path[1:], message.timeout_s, message.pause_s)
        answer = await self.context.ref(message.path[0]).ask(following, timeout_s=message.timeout_s)
        return (self.context.name, *answer)


class Catching(Worker):
    """Ends its answer with the error of a nested ask, so that it lives on."""

    @handles(Relay)
    async def relay(self, message: Relay) -> Any:
        try:
            return await super().relay(message)
        except Exception as error:  # noqa: BLE001
            return (error,)


def workers(
    *names: str, of: type[Worker] = Worker, log: list[Any] | None = None
) -> list[ChildSpec]:
    shared = [] if log is None else log
    return [ChildSpec(name, lambda: of(shared)) for name in names]


# -- deadlines


async def test_an_ask_whose_deadline_passes_in_the_queue_never_runs(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Any] = []
    async with supervise(workers("a", log=log)) as supervisor:
        a = supervisor.ref("a")
        a.tell_nowait(Work(1, seconds=10))
        with pytest.raises(AskTimeout, match="still queued, and will never run") as caught:
            await a.ask(Work(2), timeout_s=3)
        assert trio.current_time() == pytest.approx(3, abs=1e-6)
        assert (caught.value.started, caught.value.outcome, caught.value.timeout_s) == (
            False,
            "not_executed",
            3,
        )
        assert await a.ask(Work(3), timeout_s=30) == 3
        assert log == [(1, 1), (1, 3)]
        assert supervisor.statistics()["a"].expired == 1
        assert supervisor.statistics()["a"].late_replies == 0


async def test_an_ask_whose_deadline_passes_in_hand_is_worked_off_and_its_late_answer_counted(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise(workers("a")) as supervisor:
        a = supervisor.ref("a")
        with pytest.raises(AskTimeout, match="in hand, and goes on") as caught:
            await a.ask(Work(1, seconds=10), timeout_s=3)
        assert (caught.value.started, caught.value.outcome) == (True, "unknown")
        # The next asker gets its own answer, not the late one.
        assert await a.ask(Work(2), timeout_s=30) == 2
        counters = supervisor.statistics()["a"]
        assert (counters.done, counters.late_replies, counters.expired) == (2, 1, 0)
        assert a.epoch == 1


async def test_an_answer_at_the_very_instant_of_the_deadline_is_given_or_counted_as_late(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    in_time = late = told_late = 0
    for _ in range(40):
        async with supervise(workers("a")) as supervisor:
            try:
                in_time += await supervisor.ref("a").ask(Work(1, seconds=4), timeout_s=4)
            except AskTimeout as error:
                told_late += error.started
            await wait_all_tasks_blocked()
            late += supervisor.statistics()["a"].late_replies
    assert in_time + told_late == 40
    assert late == told_late


async def test_an_ask_that_waits_for_room_until_its_deadline_was_never_accepted(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Any] = []
    async with supervise([ChildSpec("a", lambda: Worker(log), capacity=1)]) as supervisor:
        a = supervisor.ref("a")
        a.tell_nowait(Work(1, seconds=10))
        await wait_all_tasks_blocked()
        a.tell_nowait(Work(2))
        with pytest.raises(AskTimeout) as caught:
            await a.ask(Work(3), timeout_s=1)
        assert not caught.value.started
        await trio.sleep(20)
        assert log == [(1, 1), (1, 2)]
        assert supervisor.statistics()["a"].accepted == 2


async def test_a_cancelled_ask_does_not_undo_what_is_in_hand(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Any] = []
    async with supervise(workers("a", log=log)) as supervisor:
        a = supervisor.ref("a")
        with trio.move_on_after(1):
            await a.ask(Work(1, seconds=2), timeout_s=60)
        assert await a.ask(Work(2)) == 2
        assert log == [(1, 1), (1, 2)]
        assert supervisor.statistics()["a"].late_replies == 1


async def test_a_cancelled_ask_that_is_still_queued_never_runs(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Any] = []
    async with supervise(workers("a", log=log)) as supervisor:
        a = supervisor.ref("a")
        a.tell_nowait(Work(1, seconds=2))
        with trio.move_on_after(1):
            await a.ask(Work(2), timeout_s=60)
        assert await a.ask(Work(3)) == 3
        assert log == [(1, 1), (1, 3)]
        assert supervisor.statistics()["a"].expired == 1


@pytest.mark.parametrize("timeout_s", [0, -1, -0.0, math.nan, math.inf, True, False])
async def test_a_timeout_that_is_no_positive_finite_number_is_refused(
    supervise: Supervise, timeout_s: Any
) -> None:
    async with supervise(workers("a")) as supervisor:
        with pytest.raises(ConfigError, match="timeout_s"):
            await supervisor.ref("a").ask(Work(1), timeout_s=timeout_s)
        assert supervisor.statistics()["a"].accepted == 0


async def test_a_nested_ask_waits_no_longer_than_its_caller_is_waited_for(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Any] = []

    class Outer(Worker):
        @handles(Work)
        async def work(self, message: Work) -> int:
            try:
                return await self.context.ref("inner").ask(Work(1, seconds=100), timeout_s=30)
            except AskTimeout:
                log.append(trio.current_time())
                return 0

    async with supervise([*workers("inner"), *workers("outer", of=Outer)]) as supervisor:
        with pytest.raises(AskTimeout, match="'outer'"):
            await supervisor.ref("outer").ask(Work(), timeout_s=2)
        await wait_all_tasks_blocked()
        assert log == [pytest.approx(2, abs=1e-6)]


async def test_a_nested_ask_keeps_its_own_deadline_when_that_is_earlier(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise(workers("a", "b", of=Catching)) as supervisor:
        supervisor.ref("b").tell_nowait(Work(1, seconds=100))
        [answer] = await supervisor.ref("a").ask(Relay(("b",), timeout_s=3), timeout_s=50)
        assert isinstance(answer, AskTimeout)
        assert not answer.started
        assert trio.current_time() == pytest.approx(3, abs=1e-6)


# -- wait cycles


async def test_an_actor_that_asks_itself_is_refused_with_the_path(supervise: Supervise) -> None:
    async with supervise(workers("a", of=Catching)) as supervisor:
        [answer] = await supervisor.ref("a").ask(Relay(("a",)))
        assert isinstance(answer, AskCycle)
        assert answer.path == ("a", "a")
        assert answer.outcome == "not_executed"
        assert await supervisor.ref("a").ask(Work(1)) == 1
        assert supervisor.statistics()["a"].accepted == 2  # the refused one never entered


async def test_an_ask_back_to_a_waiting_actor_is_refused_with_the_path(
    supervise: Supervise,
) -> None:
    async with supervise([*workers("a"), *workers("b", of=Catching)]) as supervisor:
        name, error = await supervisor.ref("a").ask(Relay(("b", "a")))
        assert name == "a"
        assert isinstance(error, AskCycle)
        assert error.path == ("b", "a", "b")
        assert await supervisor.ref("a").ask(Relay(("b",))) == ("a", "b")


async def test_three_concurrent_asks_that_form_a_ring_do_not_hang(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    answers: dict[str, Any] = {}
    async with supervise(workers("a", "b", "c", of=Catching)) as supervisor:

        async def ask(name: str, following: str) -> None:
            # All three are in hand before any of them asks on.
            answers[name] = await supervisor.ref(name).ask(
                Relay((following,), pause_s=1.0, timeout_s=50), timeout_s=60
            )

        async with trio.open_nursery() as nursery:
            for name, following in (("a", "b"), ("b", "c"), ("c", "a")):
                nursery.start_soon(ask, name, following)
        [cycle] = [one[-1] for one in answers.values() if len(one) == 1]
        assert isinstance(cycle, AskCycle)
        assert len(cycle.path) == 4
        assert cycle.path[0] == cycle.path[-1]
        assert set(cycle.path) == {"a", "b", "c"}
        assert trio.current_time() == pytest.approx(3, abs=1e-6)
        for name in "abc":
            assert await supervisor.ref(name).ask(Work(7)) == 7
            assert supervisor.ref(name).epoch == 1
        assert [status.waiting_on for status in supervisor.tree()] == [(), (), ()]


async def test_a_cycle_that_nobody_catches_crashes_the_actor_that_would_have_closed_it(
    supervise: Supervise,
) -> None:
    async with supervise(workers("a", "b")) as supervisor:
        with pytest.raises(ActorCrashed, match="'a'") as caught:
            await supervisor.ref("a").ask(Relay(("b", "a")))
        inner = caught.value.__cause__
        assert isinstance(inner, ActorCrashed)
        assert isinstance(inner.__cause__, AskCycle)
        assert inner.__cause__.path == ("b", "a", "b")
        assert await supervisor.ref("a").ask(Work(1)) == 1
        assert await supervisor.ref("b").ask(Work(2)) == 2


async def test_a_diamond_is_no_cycle(supervise: Supervise, autojump_clock: MockClock) -> None:
    class Top(Worker):
        @handles(Relay)
        async def relay(self, message: Relay) -> Any:
            answers: list[Any] = []

            async def over(name: str) -> None:
                answers.append(await self.context.ref(name).ask(Relay(("bottom",), pause_s=1.0)))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(over, "left")
                nursery.start_soon(over, "right")
            return sorted(answers)

    children = [*workers("bottom", "left", "right"), *workers("top", of=Top)]
    async with supervise(children) as supervisor, trio.open_nursery() as nursery:

        async def look() -> None:
            await trio.sleep(0.5)
            assert supervisor.tree()[-1].waiting_on == ("left", "right")

        nursery.start_soon(look)
        assert await supervisor.ref("top").ask(Relay(())) == [
            ("left", "bottom"),
            ("right", "bottom"),
        ]


async def test_the_wait_of_an_ask_that_timed_out_is_no_part_of_a_cycle(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise(workers("a", "b", of=Catching)) as supervisor:
        supervisor.ref("b").tell_nowait(Work(1, seconds=10))
        [error] = await supervisor.ref("a").ask(Relay(("b",), timeout_s=1))
        assert isinstance(error, AskTimeout)
        assert await supervisor.ref("b").ask(Relay(("a",)), timeout_s=60) == ("b", "a")


async def test_an_actor_that_asks_itself_while_starting_is_refused(supervise: Supervise) -> None:
    caught: list[Exception] = []

    class Early(Worker):
        async def on_start(self) -> None:
            try:
                await self.context.ref("a").ask(Work(1))
            except AskCycle as error:
                caught.append(error)

    async with supervise(workers("a", of=Early)) as supervisor:
        assert len(caught) == 1
        assert await supervisor.ref("a").ask(Work(1)) == 1


# -- crashes


async def test_an_asker_hears_of_a_crash_in_the_same_tick_whatever_the_backoff(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise(workers("a"), backoff=Backoff(min_s=60, max_s=60)) as supervisor:
        with pytest.raises(ActorCrashed) as caught:
            await supervisor.ref("a").ask(Work(-1), timeout_s=600)
        assert trio.current_time() == 0
        error = caught.value
        assert (error.name, error.epoch, error.message_type, error.outcome) == (
            "a",
            1,
            "Work",
            "unknown",
        )
        assert isinstance(error.__cause__, ValueError)
        await wait_all_tasks_blocked()
        [status] = supervisor.tree()
        assert (status.state, status.epoch, status.last_crash) == (
            "restarting",
            1,
            "ValueError: a bug",
        )


async def test_an_ask_behind_a_crash_is_answered_by_the_next_life(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Any] = []
    async with supervise(workers("a", log=log), backoff=Backoff(min_s=60, max_s=60)) as supervisor:
        supervisor.ref("a").tell_nowait(Work(-1))
        assert await supervisor.ref("a").ask(Work(2), timeout_s=100) == 2
        assert trio.current_time() == pytest.approx(60, abs=1e-6)
        assert log == [(1, -1), (2, 2)]


async def test_a_crash_loses_one_message_and_keeps_the_order_of_all_others(
    supervise: Supervise,
) -> None:
    log: list[Any] = []
    async with supervise(workers("a", log=log)) as supervisor:
        for number in range(1, 101):
            supervisor.ref("a").tell_nowait(Work(-number if number == 40 else number))
        assert await supervisor.ref("a").ask(Work(101)) == 101
        assert log == [(1, n) for n in range(1, 40)] + [(1, -40)] + [(2, n) for n in range(41, 102)]
        assert [(one.actor, one.message_type, one.reason) for one in supervisor.dead_letters] == [
            ("a", "Work", "crashed: ValueError")
        ]
        counters = supervisor.statistics()["a"]
        assert (counters.accepted, counters.done, counters.crashed) == (101, 100, 1)


async def test_a_late_crash_is_told_to_nobody_and_counted_as_a_crash(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise(workers("a")) as supervisor:
        with pytest.raises(AskTimeout):
            await supervisor.ref("a").ask(Work(-1, seconds=5), timeout_s=1)
        assert await supervisor.ref("a").ask(Work(2), timeout_s=60) == 2
        counters = supervisor.statistics()["a"]
        assert (counters.crashed, counters.late_replies) == (1, 0)


# -- actors that are gone


async def test_queued_and_later_asks_of_a_stopped_actor_fail_at_once(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    errors: list[ActorStopped] = []
    async with supervise(workers("a")) as supervisor:
        a = supervisor.ref("a")
        a.tell_nowait(Work(1, seconds=2))

        async def queued() -> None:
            with pytest.raises(ActorStopped) as caught:
                await a.ask(Work(2), timeout_s=60)
            errors.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(queued)
            await wait_all_tasks_blocked()
            await supervisor.stop_child("a", "sold")
        assert trio.current_time() == pytest.approx(2, abs=1e-6)  # the message in hand was finished
        for send in (a.ask, a.tell):
            with pytest.raises(ActorStopped) as caught:
                await send(Work(3))
            errors.append(caught.value)
        with pytest.raises(ActorStopped):
            a.tell_nowait(Work(4))
        assert [(one.reason, one.outcome) for one in errors] == [("sold", "not_executed")] * 3
        assert trio.current_time() == pytest.approx(2, abs=1e-6)
        counters = supervisor.statistics()["a"]
        assert (counters.done, counters.undeliverable) == (1, 1)


async def test_the_asker_of_an_interrupted_message_cannot_know_whether_it_ran(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise(workers("a")) as supervisor, trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(ActorStopped) as caught:
                await supervisor.ref("a").ask(Work(1, seconds=100), timeout_s=200)
            assert caught.value.outcome == "unknown"

        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        await supervisor.stop_child("a")
        assert trio.current_time() == pytest.approx(5, abs=1e-6)  # the grace
        assert supervisor.statistics()["a"].interrupted == 1
        assert supervisor.dead_letters[-1].reason == "interrupted: requested"


async def test_askers_of_an_escalated_supervisor_are_told_so(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    refs: list[Ref] = []

    async def scenario() -> None:
        async with supervise(workers("a", "b"), intensity=0) as supervisor:
            b = supervisor.ref("b")
            refs.append(b)
            b.tell_nowait(Work(1, seconds=1))
            await wait_all_tasks_blocked()
            supervisor.drill("a")
            with pytest.raises(ActorStopped) as caught:
                await b.ask(Work(2), timeout_s=60)
            assert caught.value.outcome == "not_executed"
            assert trio.current_time() == pytest.approx(1, abs=1e-6)
            await trio.sleep_forever()

    with pytest.raises(SupervisorEscalated):
        await scenario()
    with pytest.raises(ActorStopped):
        refs[0].tell_nowait(Work(3))


async def test_what_an_ask_of_the_host_hears_of_an_escalation_does_not_hide_it(
    supervise: Supervise,
) -> None:
    async def scenario() -> None:
        async with supervise(workers("a"), intensity=0) as supervisor:
            # The ActorCrashed of this ask leaves the block while the supervisor gives up.
            await supervisor.ref("a").ask(Work(-1))

    with pytest.raises(SupervisorEscalated):
        await scenario()


async def test_the_asker_of_a_dropped_message_is_told_that_the_mailbox_is_full(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Any] = []
    spec = ChildSpec("a", lambda: Worker(log), capacity=1, overflow="drop_oldest")
    async with supervise([spec]) as supervisor, trio.open_nursery() as nursery:
        a = supervisor.ref("a")
        a.tell_nowait(Work(1, seconds=1))
        await wait_all_tasks_blocked()

        async def ask() -> None:
            with pytest.raises(MailboxFull) as caught:
                await a.ask(Work(2))
            assert caught.value.outcome == "not_executed"
            assert trio.current_time() == 0

        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        a.tell_nowait(Work(3))
        await trio.sleep(2)
        assert log == [(1, 1), (1, 3)]
        assert supervisor.statistics()["a"].undeliverable == 1


async def test_an_ask_is_typed_by_its_request(supervise: Supervise) -> None:
    async with supervise(workers("a")) as supervisor:
        total: int = await supervisor.ref("a").ask(Work(3))
        assert total + 1 == 4
