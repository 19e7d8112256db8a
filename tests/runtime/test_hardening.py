"""Misuse by embedders: errors without a text, interrupts in a factory, late asks, odd messages."""

from __future__ import annotations

import functools
import gc
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

import msgspec
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
    Event,
    MailboxStatistics,
    Rejected,
    ReplaceFailed,
    Request,
    Supervisor,
    SupervisorEscalated,
    SupervisorSpec,
    Terminated,
    UnknownChild,
    WrongMessage,
    handles,
    handles_batch,
    open_supervisor,
)

Supervise = Callable[..., AbstractAsyncContextManager[Supervisor]]
T = TypeVar("T")


class Go(Request[int], frozen=True):
    number: int = 0
    seconds: float = 0.0


class Fail(Request[None], frozen=True):
    error: Any = ValueError("a bug")


class Worker(Actor):
    log: list[Any]

    def __init__(self, log: list[Any] | None = None) -> None:
        self.log = [] if log is None else log

    @handles(Go)
    async def go(self, message: Go) -> int:
        await trio.sleep(message.seconds)
        self.log.append(message.number)
        return message.number

    @handles(Fail)
    def fail(self, message: Fail) -> None:
        raise message.error


def slow_in_life(epoch: int, seconds: float) -> type[Worker]:
    class Slow(Worker):
        async def on_start(self) -> None:
            if self.context.epoch == epoch:
                await trio.sleep(seconds)

    return Slow


# -- starts and ends


@pytest.mark.parametrize("life", [1, 2])
def test_an_interrupt_in_a_factory_comes_out(life: int) -> None:
    lives = 0

    def factory() -> Actor:
        nonlocal lives
        lives += 1
        return Worker() if lives < life else sys.exit("no config")

    async def main() -> None:
        with trio.fail_after(50):
            async with open_supervisor(
                [ChildSpec("a", factory), ChildSpec("b", Worker)]
            ) as supervisor:
                supervisor.drill("a")
                await trio.sleep_forever()

    with pytest.raises(SystemExit):
        trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_a_stop_asked_for_late_begins_no_life_that_nobody_would_end(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        specs = [ChildSpec("a", slow_in_life(2, 3)), ChildSpec("b", Worker)]
        async with supervise(specs, strategy="one_for_all") as supervisor:

            async def late() -> None:
                await trio.sleep(0.6)
                await supervisor.stop_child("a")

            nursery.start_soon(late)
            supervisor.drill("a")
            await trio.sleep(0.5)
    assert trio.current_time() < 20


@pytest.mark.parametrize("broken", [False, True])
async def test_a_replacement_in_the_middle_of_a_group_restart_lets_the_group_go_on(
    supervise: Supervise, autojump_clock: MockClock, broken: bool
) -> None:
    class Broken(Worker):
        async def on_start(self) -> None:
            await trio.sleep(1)
            raise OSError("no such port")

    specs = [ChildSpec("a", slow_in_life(2, 3)), ChildSpec("b", Worker)]
    async with supervise(specs, strategy="one_for_all") as supervisor:
        supervisor.drill("a")
        await trio.sleep(1)
        try:
            await supervisor.replace("a", Broken if broken else Worker)
        except ReplaceFailed:
            assert broken
        await trio.sleep(10)
        assert [one.state for one in supervisor.tree()] == ["running", "running"]
        assert await supervisor.ref("b").ask(Go(5)) == 5


class Mute(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


class MuteRefusal(Mute, Rejected):
    pass


async def test_an_error_whose_text_fails_is_an_error_like_any_other(supervise: Supervise) -> None:
    class Untidy(Worker):
        async def on_stop(self, reason: str) -> None:
            raise Mute

    def unwilling() -> Actor:
        raise Mute

    async with supervise([ChildSpec("a", Untidy)]) as supervisor:
        a = supervisor.ref("a")
        with pytest.raises(ActorCrashed):
            await a.ask(Fail(Mute()))
        a.tell_nowait(Fail(MuteRefusal()))
        await wait_all_tasks_blocked()
        assert (
            supervisor.dead_letters[-1].reason == "refused: MuteRefusal (its text cannot be told)"
        )
        with pytest.raises(ReplaceFailed, match="its text cannot be told"):
            await supervisor.replace("a", unwilling)
        assert await a.ask(Go(1)) == 1


async def test_what_a_subscriber_cannot_bear_does_not_keep_the_others_from_being_stopped(
    autojump_clock: MockClock,
) -> None:
    stopped: list[str] = []

    class Noted(Worker):
        async def on_stop(self, reason: str) -> None:
            stopped.append(self.context.name)

    def interrupt(event: Event) -> None:
        if isinstance(event, Terminated) and event.name == "c":
            raise KeyboardInterrupt

    async def scenario() -> None:
        async with open_supervisor([ChildSpec(name, Noted) for name in "abc"]) as supervisor:
            supervisor.events.subscribe(interrupt)

    with pytest.raises(KeyboardInterrupt):
        await scenario()
    assert stopped == ["c", "b", "a"]


async def test_a_stuck_life_keeps_nobody_else_from_being_served(
    supervise: Supervise, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    release = trio.Event()

    class Deaf(Worker):
        @handles(Go)
        async def go(self, message: Go) -> int:
            with trio.CancelScope(shield=True):
                await release.wait()
            return 1

    specs = [
        ChildSpec("a", Worker),
        ChildSpec("b", Deaf, grace_s=1, on_stop_deadline_s=1),
        ChildSpec("c", Worker),
    ]
    async with supervise(specs, stuck_after_s=1) as supervisor:
        answers: list[BaseException] = []

        async def ask() -> None:
            try:
                await supervisor.ref("b").ask(Go(), timeout_s=500)
            except ActorStopped as error:
                answers.append(error)

        async def replace() -> None:
            await supervisor.replace("b", Worker)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            nursery.start_soon(replace)
            await trio.sleep(20)
            # Its asker knows by now, and the others crash, restart and stop as ever.
            assert [error.outcome for error in answers] == ["unknown"]  # type: ignore[attr-defined]
            assert supervisor.tree()[1].state == "stuck"
            supervisor.drill("a")
            await trio.sleep(1)
            assert supervisor.ref("a").epoch == 2
            await supervisor.stop_child("c")
            release.set()
        assert await supervisor.ref("b").ask(Go(7)) == 7
        assert supervisor.ref("b").epoch == 2


async def test_the_tree_does_not_call_running_what_has_crashed(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise(
        [ChildSpec("a", Worker, grace_s=300), ChildSpec("b", Worker)]
    ) as supervisor:
        supervisor.ref("a").tell_nowait(Go(seconds=100))
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.stop_child, "a")
            await wait_all_tasks_blocked()
            supervisor.drill("b")
            await wait_all_tasks_blocked()
            assert supervisor.tree()[1].state == "restarting"
        await wait_all_tasks_blocked()
        assert supervisor.tree()[1].state == "running"


async def test_a_child_is_stopped_while_its_group_restarts_slowly(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    group = SupervisorSpec("g", [ChildSpec("y", Worker), ChildSpec("x", slow_in_life(2, 900))])
    async with supervise(
        [ChildSpec("first", Worker), group], strategy="rest_for_one"
    ) as supervisor:
        supervisor.drill("first")
        await trio.sleep(1)
        with trio.fail_after(10):
            await supervisor.stop_child("y")
            await supervisor.stop_child("x")
        await wait_all_tasks_blocked()
        assert [one.state for one in supervisor.tree()[1].children] == ["stopped", "stopped"]
        assert supervisor.tree()[1].state == "running"


async def test_a_temporary_child_may_crash_while_a_later_one_starts(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    class Brief(Worker):
        async def on_start(self) -> None:
            self.context.after(0.5, Fail())

    specs = [ChildSpec("brief", Brief, restart="temporary"), ChildSpec("slow", slow_in_life(1, 2))]
    async with supervise(specs) as supervisor:
        await wait_all_tasks_blocked()
        assert [one.name for one in supervisor.tree()] == ["slow"]


async def test_time_spent_starting_is_not_healthy_running(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    class NeverUp(Worker):
        async def on_start(self) -> None:
            if self.context.epoch > 1:
                await trio.sleep(61)
                raise OSError("no such port")

    async def scenario() -> None:
        async with supervise([ChildSpec("a", NeverUp)], stable_after_s=60) as supervisor:
            supervisor.drill("a")
            await trio.sleep(50_000)

    with pytest.raises(SupervisorEscalated, match="10 failures in a row"):
        await scenario()


async def test_who_asked_for_a_stop_is_answered_although_the_manager_is_interrupted(
    autojump_clock: MockClock,
) -> None:
    returned: list[str] = []
    async with trio.open_nursery() as nursery:
        try:
            async with open_supervisor(
                [ChildSpec("a", Worker), ChildSpec("b", Worker)]
            ) as supervisor:

                async def stop() -> None:
                    await supervisor.stop_child("b")
                    returned.append("b")

                supervisor.ref("b").tell_nowait(Go(seconds=3))
                await wait_all_tasks_blocked()
                nursery.start_soon(stop)
                await wait_all_tasks_blocked()
                supervisor.ref("a").tell_nowait(Fail(SystemExit()))
                await trio.sleep_forever()
        except SystemExit:
            await trio.sleep(10)
    assert returned == ["b"]


def test_a_supervisor_may_be_looked_at_after_its_run() -> None:
    async def main() -> Supervisor:
        async with open_supervisor([ChildSpec("a", Worker)]) as supervisor:
            supervisor.drill("a")
            await trio.sleep(0.01)
        return supervisor

    supervisor = trio.run(main)
    assert repr(supervisor) == "<Supervisor root: a stopped#2>"
    assert supervisor.tree()[0].state == "stopped"


# -- messages


class Knob(msgspec.Struct, frozen=True):
    """Has fields with the names of the properties that a type may declare."""

    control: str = "left"
    idempotent: bool = False
    key: int = 7


class Keyless(Request[None], frozen=True):
    idempotent = True

    @property
    def key(self) -> str:
        raise IndexError


class HaltAgain(Request[None], frozen=True):
    idempotent = True
    control = True


class Box(msgspec.Struct, Generic[T], frozen=True):
    content: T


async def test_a_field_of_that_name_declares_nothing(supervise: Supervise) -> None:
    runs: list[Knob] = []

    class Turner(Actor):
        @handles(Knob)
        def turn(self, message: Knob) -> None:
            runs.append(message)
            raise ValueError("a bug")

    async with supervise([ChildSpec("a", Turner)]) as supervisor:
        supervisor.ref("a").tell_nowait(Knob())
        await wait_all_tasks_blocked()
        assert len(runs) == 1
        assert supervisor.statistics()["a"].crashed == 1


async def test_a_key_that_raises_costs_nobody_an_answer(supervise: Supervise) -> None:
    class Uploader(Actor):
        @handles(Keyless)
        def upload(self, message: Keyless) -> None:
            raise ValueError("a bug")

    async with supervise([ChildSpec("a", Uploader)]) as supervisor:
        with pytest.raises(ActorCrashed) as caught:
            await supervisor.ref("a").ask(Keyless())
        assert caught.value.key is None


async def test_a_retried_control_message_stays_in_its_lane(supervise: Supervise) -> None:
    log: list[Any] = []

    class Desk(Worker):
        @handles(HaltAgain)
        def halt(self, message: HaltAgain) -> None:
            self.log.append("halt")
            if self.context.epoch == 1:
                raise ValueError("a bug")

    spec = ChildSpec("a", lambda: Desk(log), capacity=2, overflow="drop_oldest")
    async with supervise([spec]) as supervisor:
        a = supervisor.ref("a")
        for number in range(5):
            a.tell_nowait(Go(number))
        a.tell_nowait(HaltAgain())
        await wait_all_tasks_blocked()
        assert log == ["halt", "halt", 3, 4]


async def test_an_ask_whose_time_has_passed_while_others_held_the_loop_never_runs(
    supervise: Supervise,
) -> None:
    ran: list[int] = []

    class Blocking(Actor):
        @handles(Go)
        def go(self, message: Go) -> int:
            ran.append(message.number)
            if message.seconds:
                time.sleep(message.seconds)
            return message.number

        @handles_batch(Fail)
        def many(self, messages: list[Fail]) -> list[None]:
            ran.append(-len(messages))
            return [None] * len(messages)

    async with supervise([ChildSpec("a", Blocking)]) as supervisor:
        a = supervisor.ref("a")
        a.tell_nowait(Go(0, 0.05))
        with pytest.raises(AskTimeout) as alone:
            await a.ask(Go(7), timeout_s=0.01)
        a.tell_nowait(Go(1, 0.05))
        a.tell_nowait(Fail())
        with pytest.raises(AskTimeout) as in_a_batch:
            await a.ask(Fail(), timeout_s=0.01)
        assert not alone.value.started
        assert not in_a_batch.value.started
        await wait_all_tasks_blocked()
        assert ran == [0, 1, -1]


async def test_a_nested_ask_with_no_time_left_is_not_made(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    class Outer(Actor):
        @handles(Go)
        async def go(self, message: Go) -> int:
            await trio.sleep(1)
            with pytest.raises(AskTimeout) as caught:
                await self.context.ref("inner").ask(Go(9))
            assert not caught.value.started
            return 1

    log: list[Any] = []
    async with supervise(
        [ChildSpec("inner", lambda: Worker(log)), ChildSpec("outer", Outer)]
    ) as supervisor:
        with pytest.raises(AskTimeout):
            await supervisor.ref("outer").ask(Go(), timeout_s=0.5)
        await trio.sleep(5)
        assert log == []
        assert supervisor.ref("outer").epoch == 1


async def test_one_impatient_asker_of_a_batch_does_not_hurry_the_others(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    class Batching(Actor):
        @handles_batch(Go)
        async def go(self, messages: list[Go]) -> list[int]:
            answer = await self.context.ref("inner").ask(Go(3, 2.0))
            return [answer] * len(messages)

    answers: list[int] = []
    async with supervise([ChildSpec("inner", Worker), ChildSpec("b", Batching)]) as supervisor:

        async def ask(timeout_s: float) -> None:
            with trio.CancelScope():
                try:
                    answers.append(await supervisor.ref("b").ask(Go(), timeout_s=timeout_s))
                except AskTimeout:
                    answers.append(-1)

        async with trio.open_nursery() as nursery:
            for timeout_s in (20.0, 0.1, 30.0):
                nursery.start_soon(ask, timeout_s)
        assert sorted(answers) == [-1, 3, 3]


async def test_a_decorated_handler_is_awaited_all_the_same(supervise: Supervise) -> None:
    def logged(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    class Decorated(Actor):
        @handles(Go)
        @logged
        async def go(self, message: Go) -> int:
            await trio.lowlevel.checkpoint()
            return message.number

    async with supervise([ChildSpec("a", Decorated)]) as supervisor:
        assert await supervisor.ref("a").ask(Go(4)) == 4


def test_what_could_never_handle_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(ConfigError, match="is a generator"):

        class Yielding(Actor):
            @handles(Go)
            def go(self, message: Go) -> Iterator[int]:
                yield 1

    with pytest.raises(ConfigError, match="single messages and batches"):

        class Both(Actor):
            @handles(Go)
            @handles_batch(Fail)
            def go(self, message: Any) -> None:
                """Neither."""

    with pytest.raises(ConfigError, match="no type and no union"):

        class Pair(Actor):
            messages = (Go, Fail)

    with pytest.raises(ConfigError, match="no type and no union"):

        class Boxed(Actor):
            messages = Box[int]


async def test_marks_add_up(supervise: Supervise) -> None:
    class Twice(Actor):
        @handles(Go)
        @handles(Fail)
        def both(self, message: Any) -> Any:
            return type(message).__name__

    async with supervise([ChildSpec("a", Twice)]) as supervisor:
        assert await supervisor.ref("a").ask(Go()) == "Go"  # type: ignore[comparison-overlap]
        assert await supervisor.ref("a").ask(Fail()) == "Fail"  # type: ignore[func-returns-value]


async def test_answers_that_are_fewer_than_they_say_have_crashed_the_batch(
    supervise: Supervise,
) -> None:
    class Frame(list[int]):
        def __iter__(self) -> Iterator[int]:
            return iter(["only one"])  # type: ignore[list-item]

    class Batching(Actor):
        @handles_batch(Go)
        def go(self, messages: list[Go]) -> list[int]:
            return Frame([1] * len(messages))

    async with supervise([ChildSpec("a", Batching)]) as supervisor:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(ActorCrashed):
                    await supervisor.ref("a").ask(Go())

            nursery.start_soon(ask)
            nursery.start_soon(ask)
        assert supervisor.statistics()["a"].crashed == 2


async def test_a_batch_is_a_turn(supervise: Supervise) -> None:
    class Batching(Actor):
        turns = 0

        @handles_batch(Go, limit=64)
        def go(self, messages: list[Go]) -> list[int]:
            return [0] * len(messages)

    async with supervise([ChildSpec("a", Batching, capacity=10_000)]) as supervisor:
        for _ in range(6_400):
            supervisor.ref("a").tell_nowait(Go())
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        assert supervisor.statistics()["a"].queued > 6_000


async def test_mail_from_a_thread_that_fits_no_more_when_it_arrives_ends_nothing(
    supervise: Supervise,
) -> None:
    class Other(Actor):
        @handles(Fail)
        def fail(self, message: Fail) -> None:
            """Takes nothing else."""

    def unhashable(message: Any) -> Any:
        return [message.number]

    async with supervise(
        [
            ChildSpec("a", Worker),
            ChildSpec("c", Worker, overflow="conflate", conflate_by=unhashable),
        ]
    ) as supervisor:
        # As a thread would send it: accepted there, and the actor is replaced before it arrives.
        supervisor.ref("a").tell_from_thread(Go())
        await supervisor.replace("a", Other)
        await trio.to_thread.run_sync(supervisor.ref("c").tell_from_thread, Go())
        await wait_all_tasks_blocked()
        assert supervisor.statistics()["c"].rejected == 1


async def test_senders_see_the_new_types_only_when_the_new_actor_is_ready(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    class Wider(Worker):
        async def on_start(self) -> None:
            await trio.sleep(5)
            raise OSError("no such port")

        @handles(Knob)
        def turn(self, message: Knob) -> None:
            """Never."""

    async with supervise([ChildSpec("a", Worker)]) as supervisor, trio.open_nursery() as nursery:

        async def replace() -> None:
            with pytest.raises(ReplaceFailed):
                await supervisor.replace("a", Wider)

        nursery.start_soon(replace)
        await trio.sleep(1)
        with pytest.raises(WrongMessage):
            supervisor.ref("a").tell_nowait(Knob())
        supervisor.ref("a").tell_nowait(Go())


# -- numbers


@pytest.mark.parametrize("seconds", [10**400, 1e300])
async def test_a_time_no_clock_can_hold_is_refused(supervise: Supervise, seconds: Any) -> None:
    for field in ("grace_s", "on_stop_deadline_s"):
        with pytest.raises(ConfigError, match=field):
            ChildSpec("a", Worker, **{field: seconds})
    async with supervise([ChildSpec("a", Worker)]) as supervisor:
        with pytest.raises(ConfigError, match="timeout_s"):
            await supervisor.ref("a").ask(Go(), timeout_s=seconds)


async def test_asks_behind_one_that_is_open_for_long_are_forgotten_too(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    specs = [ChildSpec("slow", Worker), ChildSpec("a", Worker)]
    async with supervise(specs) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(
            functools.partial(supervisor.ref("slow").ask, Go(seconds=1_000), timeout_s=3_600)
        )
        await wait_all_tasks_blocked()
        for _ in range(2_000):
            await supervisor.ref("a").ask(Go(), timeout_s=3_600)
        assert len(supervisor.deadlines._lanes[3_600]) < 200
        for number in range(2_000):
            await supervisor.ref("a").ask(Go(), timeout_s=100 + number)
        assert len(supervisor.deadlines._lanes) <= 64


async def test_whoever_is_told_of_a_dead_letter_finds_the_books_in_order(
    supervise: Supervise,
) -> None:
    def unaccounted(one: MailboxStatistics) -> int:
        final = (
            one.done
            + one.crashed
            + one.interrupted
            + one.expired
            + one.quarantined
            + one.undeliverable
        )
        return one.accepted - final - one.queued - one.in_hand

    class Batching(Actor):
        @handles_batch(Go)
        def go(self, messages: list[Go]) -> list[int]:
            raise ValueError("a bug")

    specs = [
        ChildSpec("batch", Batching),
        ChildSpec("newest", Worker, overflow="conflate", conflate_by=lambda _: 1, capacity=1),
        ChildSpec("oldest", Worker, overflow="drop_oldest", capacity=1),
    ]
    found: list[int] = []
    async with supervise(specs) as supervisor:
        supervisor.dead_letters.subscribe(
            lambda _: found.extend(map(unaccounted, supervisor.statistics().values()))
        )
        for spec in specs:
            for number in range(3):
                supervisor.ref(spec.name).tell_nowait(Go(number))
        await wait_all_tasks_blocked()
    assert len(found) > 9
    assert not any(found)


def test_a_subscriber_that_would_never_run_is_refused() -> None:
    from fundops.runtime import Log

    async def listen(_: object) -> None:
        """Would never be awaited."""

    for subscriber in (listen, None):
        with pytest.raises(ConfigError, match="subscriber"):
            Log[int](1).subscribe(subscriber)  # type: ignore[arg-type]


async def test_an_unknown_name_is_refused_by_everything_that_takes_one(
    supervise: Supervise,
) -> None:
    async with supervise([ChildSpec("a", Worker)]) as supervisor:
        for call in (supervisor.ref, supervisor.watch, supervisor.drill):
            with pytest.raises(UnknownChild, match="no actor 'b'; known: a"):
                call("b")
        with pytest.raises(UnknownChild):
            await supervisor.replace("b", Worker)


class Large(set[int]):
    """An answer that can be watched."""


class Many(Request[Any], frozen=True):
    """All of them."""

    of: Any


class Keeper(Actor):
    @handles(Many)
    async def many(self, _: Many) -> Large:
        await trio.lowlevel.checkpoint()
        return Large({1, 2, 3})


async def test_neither_the_last_request_nor_its_answer_is_kept_until_the_next(
    supervise: Supervise,
) -> None:
    async with supervise([ChildSpec("a", Keeper)]) as supervisor:
        asked = Large()
        kept = [weakref.ref(asked), weakref.ref(await supervisor.ref("a").ask(Many(asked)))]
        del asked
        await wait_all_tasks_blocked()
        gc.collect()
        assert [one() for one in kept] == [None, None]
