"""The end: grace, drain, cleanup that fails, cancellation at every step, and interrupts."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fundops.runtime import (
    Actor,
    ActorCrashed,
    ActorError,
    ActorStopped,
    ChildSpec,
    CleanupFailed,
    Crashed,
    Request,
    Restarted,
    Supervisor,
    SupervisorEscalated,
    SupervisorSpec,
    handles,
    open_supervisor,
)

Supervise = Callable[..., AbstractAsyncContextManager[Supervisor]]
Log = list[str]


class Work(Request[int], frozen=True):
    seconds: float = 0.0
    number: int = 0


class Crash(Request[None], frozen=True):
    pass


class Interrupt(Request[None], frozen=True):
    pass


class Child(Actor):
    def __init__(self, log: Log) -> None:
        self.log = log

    async def on_start(self) -> None:
        await trio.lowlevel.checkpoint()
        self.log.append(f"+{self.context.name}")

    async def on_stop(self, reason: str) -> None:
        await trio.lowlevel.checkpoint()
        self.log.append(f"-{self.context.name} {reason}")

    @handles(Work)
    async def work(self, message: Work) -> int:
        await trio.sleep(message.seconds)
        self.log.append(f"{self.context.name} did {message.number}")
        return message.number

    @handles(Crash)
    def crash(self, message: Crash) -> None:
        raise ValueError("a bug")

    @handles(Interrupt)
    def interrupt(self, message: Interrupt) -> None:
        raise KeyboardInterrupt


def child(name: str, log: Log | None = None, of: type[Child] = Child, **settings: Any) -> ChildSpec:
    shared: Log = [] if log is None else log
    return ChildSpec(name, lambda: of(shared), **settings)


# -- grace and drain


@pytest.mark.parametrize(("share", "took_s", "done"), [(0.5, 5.0, 1), (5.0, 10.0, 0)])
async def test_a_message_in_hand_has_its_grace_and_no_more(
    supervise: Supervise, autojump_clock: MockClock, share: float, took_s: float, done: int
) -> None:
    async with supervise([child("a", grace_s=10)]) as supervisor:
        supervisor.ref("a").tell_nowait(Work(seconds=10 * share))
        await wait_all_tasks_blocked()
    assert trio.current_time() == pytest.approx(took_s, abs=1e-6)
    counters = supervisor.statistics()["a"]
    assert (counters.done, counters.interrupted) == (done, 1 - done)


@pytest.mark.parametrize(
    ("drain", "done", "interrupted", "undeliverable", "took_s"),
    [("all", 3, 0, 0, 3.0), ("in_hand", 1, 0, 2, 1.0), ("none", 0, 1, 2, 0.0)],
)
async def test_drain_says_how_much_is_still_done(
    supervise: Supervise,
    autojump_clock: MockClock,
    drain: str,
    done: int,
    interrupted: int,
    undeliverable: int,
    took_s: float,
) -> None:
    async with supervise([child("a", drain=drain)]) as supervisor:
        for number in range(3):
            supervisor.ref("a").tell_nowait(Work(1, number))
        await wait_all_tasks_blocked()
    assert trio.current_time() == pytest.approx(took_s, abs=1e-6)
    counters = supervisor.statistics()["a"]
    assert (counters.done, counters.interrupted, counters.undeliverable) == (
        done,
        interrupted,
        undeliverable,
    )


async def test_draining_everything_is_bounded_by_the_grace(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise([child("a", drain="all", grace_s=2.5)]) as supervisor:
        for number in range(10):
            supervisor.ref("a").tell_nowait(Work(1, number))
        await wait_all_tasks_blocked()
    assert trio.current_time() == pytest.approx(2.5, abs=1e-6)
    counters = supervisor.statistics()["a"]
    assert (counters.done, counters.interrupted, counters.undeliverable) == (2, 1, 7)


async def test_draining_a_queue_of_given_up_asks_does_not_wait_for_the_grace(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise([child("a", drain="all", grace_s=50)]) as supervisor:
        supervisor.ref("a").tell_nowait(Work(2))
        with trio.move_on_after(1):
            await supervisor.ref("a").ask(Work(0))
    assert trio.current_time() == pytest.approx(2, abs=1e-6)
    assert supervisor.statistics()["a"].expired == 1


async def test_the_intake_is_closed_before_the_queue_is_drained(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: Log = []
    async with supervise([child("a", log, drain="all")]) as supervisor:
        a = supervisor.ref("a")
        a.tell_nowait(Work(1, 1))
        a.tell_nowait(Work(1, 2))
        await wait_all_tasks_blocked()

        async def late() -> None:
            await trio.sleep(0.5)
            with pytest.raises(ActorStopped):
                a.tell_nowait(Work(0, 3))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(late)
            await supervisor.stop_child("a")
        assert log == ["+a", "a did 1", "a did 2", "-a requested"]


async def test_a_child_that_is_still_up_hears_at_once_that_a_later_one_is_gone(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    class Asking(Child):
        @handles(Work)
        async def work(self, message: Work) -> int:
            await trio.sleep(message.seconds)
            try:
                return await self.context.ref("b").ask(Work())
            except ActorStopped as error:
                self.log.append(f"heard: {error.reason}")
                return 0

    log: Log = []
    async with supervise([child("a", log, of=Asking), child("b", log)]) as supervisor:
        supervisor.ref("a").tell_nowait(Work(2))
        await wait_all_tasks_blocked()
    assert log[2:] == [
        "-b supervisor stopped",
        "heard: supervisor stopped",
        "-a supervisor stopped",
    ]
    assert trio.current_time() == pytest.approx(2, abs=1e-6)


async def test_a_nested_group_closes_its_children_one_by_one_too(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    class Asking(Child):
        @handles(Work)
        async def work(self, message: Work) -> int:
            await trio.sleep(message.seconds)
            try:
                return await self.context.ref("b").ask(Work())
            except ActorStopped:
                return 0

    log: Log = []
    async with supervise(
        [SupervisorSpec("g", [child("a", log, of=Asking), child("b", log)])]
    ) as supervisor:
        supervisor.ref("a").tell_nowait(Work(2))
        await wait_all_tasks_blocked()
    assert trio.current_time() == pytest.approx(2, abs=1e-6)
    assert supervisor.statistics()["a"].done == 1


async def test_the_whole_end_takes_no_longer_than_the_sum_of_the_graces(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise([child(name, grace_s=3) for name in "abc"]) as supervisor:
        for name in "abc":
            supervisor.ref(name).tell_nowait(Work(1_000))
        await wait_all_tasks_blocked()
    assert trio.current_time() == pytest.approx(9, abs=1e-6)


# -- hooks that fail


class BadStop(Child):
    async def on_stop(self, reason: str) -> None:
        await super().on_stop(reason)
        raise OSError("disk full")


async def test_a_cleanup_that_raises_is_reported_and_stops_nobody_else(
    supervise: Supervise,
) -> None:
    log: Log = []
    async with supervise(
        [child("a", log), child("b", log, of=BadStop), child("c", log)]
    ) as supervisor:
        pass
    assert log[3:] == [f"-{name} supervisor stopped" for name in "cba"]
    assert [one.last_crash for one in supervisor.tree()] == [None, "OSError: disk full", None]


async def test_a_cleanup_that_raises_after_a_crash_does_not_hide_the_crash(
    supervise: Supervise,
) -> None:
    async def scenario() -> None:
        async with supervise([child("a", of=BadStop)], intensity=1) as supervisor:
            with pytest.raises(ActorCrashed):
                await supervisor.ref("a").ask(Crash())
            await wait_all_tasks_blocked()
            assert supervisor.tree()[0].last_crash == "ValueError: a bug"
            cleanup, crash, restart = supervisor.events
            assert isinstance(cleanup, CleanupFailed)
            assert cleanup.error == "OSError: disk full"
            assert isinstance(crash, Crashed)
            assert isinstance(restart, Restarted)
            assert supervisor.ref("a").epoch == 2
            supervisor.ref("a").tell_nowait(Crash())
            await trio.sleep_forever()

    with pytest.raises(SupervisorEscalated) as caught:
        await scenario()
    assert [*map(str, caught.value.crashes)] == [
        "a (epoch 1): ValueError: a bug",
        "a (epoch 2): ValueError: a bug",
    ]


async def test_a_cleanup_that_never_ends_is_cut_off(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    class Endless(Child):
        async def on_stop(self, reason: str) -> None:
            await trio.sleep_forever()

    async with supervise([child("a", of=Endless), child("b", of=Endless)]):
        pass
    assert trio.current_time() == pytest.approx(10, abs=1e-6)


async def test_a_failed_start_is_cleaned_up_after(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    class BadRestart(BadStop):
        async def on_start(self) -> None:
            await super().on_start()
            if self.context.epoch == 2:
                raise LookupError("no settings")

    log: Log = []
    async with supervise([child("a", log, of=BadRestart)]) as supervisor:
        supervisor.drill("a")
        await wait_all_tasks_blocked()
        assert log == ["+a", "-a crashed", "+a", "-a crashed", "+a"]
        assert supervisor.tree()[0].last_crash == "LookupError: no settings"


async def test_an_on_stop_knows_why(supervise: Supervise, autojump_clock: MockClock) -> None:
    log: Log = []
    async with supervise([child("a", log), child("b", log), child("c", log)]) as supervisor:
        supervisor.ref("a").tell_nowait(Work(100))
        await wait_all_tasks_blocked()
        await supervisor.stop_child("a", "overrun")
        await supervisor.stop_child("b", "sold")
    assert log[3:] == ["-a overrun", "-b sold", "-c supervisor stopped"]


# -- cancellation


async def test_a_cancelled_host_ends_its_block_first_and_then_the_children_in_reverse(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: Log = []
    with trio.move_on_after(1) as scope:
        async with supervise([child("a", log), child("b", log)]) as supervisor:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    # The children still serve, so the host can save its state.
                    assert await supervisor.ref("a").ask(Work(1, 7)) == 7
                    log.append("host ended")
    assert scope.cancelled_caught
    assert log == [
        "+a",
        "+b",
        "a did 7",
        "host ended",
        "-b supervisor stopped",
        "-a supervisor stopped",
    ]


async def test_a_host_cancelled_during_the_start_undoes_what_has_started(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: Log = []

    class Slow(Child):
        async def on_start(self) -> None:
            await trio.sleep(100)

    with trio.move_on_after(1) as scope:
        async with supervise([child("a", log), child("b", log, of=Slow, grace_s=3)]):
            raise AssertionError("never entered")
    assert scope.cancelled_caught
    assert log == ["+a", "-b supervisor stopped", "-a supervisor stopped"]
    assert trio.current_time() == pytest.approx(4, abs=1e-6)


class StepCanceller(trio.abc.Instrument):
    """Cancels `scope` after so many steps of any task."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self.scope = scope
        self.left = steps

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


async def eventful(supervise: Supervise, log: Log, heard: list[Any]) -> None:
    """A nested group, asks that succeed, crash and wait, a full mailbox, and a stop request."""
    children = [
        child("a", log),
        SupervisorSpec("g", [child("b", log, capacity=1), child("c", log)], strategy="one_for_all"),
        child("d", log, drain="all"),
    ]
    async with supervise(children) as supervisor:
        try:
            async with trio.open_nursery() as nursery:

                async def ask(name: str, message: Any) -> None:
                    try:
                        heard.append(await supervisor.ref(name).ask(message, timeout_s=2))
                    except (ActorError, trio.Cancelled) as error:
                        heard.append(error)
                        if isinstance(error, trio.Cancelled):
                            raise

                for name, message in (
                    ("a", Work(1, 1)),
                    ("b", Work(0.5, 2)),
                    ("b", Crash()),
                    ("b", Work(0, 3)),
                    ("b", Work(0, 4)),
                    ("c", Work(5, 5)),
                    ("d", Work(0.5, 6)),
                    ("d", Work(0.5, 7)),
                ):
                    nursery.start_soon(ask, name, message)
                await supervisor.stop_child("a")
        finally:
            log.append("host ended")


def test_a_host_may_be_cancelled_at_any_step_whatever(supervise: Supervise) -> None:
    async def attempt(steps: int) -> bool:
        """Whether the scenario lasted that long."""
        log: Log = []
        heard: list[Any] = []
        with trio.CancelScope() as scope:
            canceller = StepCanceller(scope, steps)
            trio.lowlevel.add_instrument(canceller)
            try:
                await eventful(supervise, log, heard)
            finally:
                trio.lowlevel.remove_instrument(canceller)
        stopped = [entry.split()[0][1:] for entry in log if entry.startswith("-")]
        started = [entry[1:] for entry in log if entry.startswith("+")]
        # Every child that started was stopped; `on_stop` also ran after an interrupted start.
        for name in "abcd":
            assert started.count(name) <= stopped.count(name) <= started.count(name) + 1, (
                steps,
                log,
            )
        if "host ended" in log:
            assert len(heard) == 8, (steps, heard)
            # The remaining children are stopped in the reverse order of declaration.
            rest = [
                entry.split()[0][1:]
                for entry in log[log.index("host ended") :]
                if "supervisor stopped" in entry
            ]
            assert rest == sorted(rest, reverse=True), (steps, log)
        return scope.cancel_called

    # Nothing but Cancelled may come out, and the scope swallows that.
    steps = 1
    while trio.run(attempt, steps, clock=MockClock(autojump_threshold=0)):
        steps += 1
    assert 60 < steps < 1_000


async def test_an_escalation_comes_out_bare_although_the_host_is_cancelled_as_well(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async def unhurried() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)

    async def scenario(scope: trio.CancelScope) -> None:
        async with (
            supervise([child("a", [])], intensity=0) as supervisor,
            trio.open_nursery() as nursery,
        ):
            # Two of them in a nursery, so a group of cancellations accompanies the escalation.
            nursery.start_soon(unhurried)
            nursery.start_soon(unhurried)
            await wait_all_tasks_blocked()
            scope.cancel()
            supervisor.ref("a").tell_nowait(Crash())

    with trio.CancelScope() as scope, pytest.raises(SupervisorEscalated):
        await scenario(scope)


# -- interrupts


async def test_an_interrupt_in_a_handler_restarts_nobody_and_comes_out(
    supervise: Supervise,
) -> None:
    log: Log = []

    async def scenario() -> None:
        async with supervise([child(name, log) for name in "abc"]) as supervisor:
            await supervisor.ref("b").ask(Interrupt())

    with pytest.raises(KeyboardInterrupt):
        await scenario()
    assert log[:3] == ["+a", "+b", "+c"]
    assert log[3:] == ["-b crashed", "-c supervisor stopped", "-a supervisor stopped"]


def test_ctrl_c_during_a_handler_lets_it_end_and_is_raised_in_the_main_task() -> None:
    log: Log = []

    class Pressed(Child):
        @handles(Interrupt)
        def interrupt(self, message: Interrupt) -> None:
            signal.raise_signal(signal.SIGINT)
            self.log.append("went on")

    async def main() -> None:
        async with open_supervisor([child("a", log, Pressed)]) as supervisor:
            await supervisor.ref("a").ask(Interrupt())
            log.append("answered")
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert log == ["+a", "went on", "answered", "-a supervisor stopped"]


async def test_an_interrupt_deep_in_the_tree_comes_out_as_itself(supervise: Supervise) -> None:
    log: Log = []

    async def scenario() -> None:
        nested = SupervisorSpec("g", [SupervisorSpec("h", [child("b", log), child("c", log)])])
        async with supervise([child("a", log), nested, child("d", log)]) as supervisor:
            supervisor.ref("b").tell_nowait(Interrupt())
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        await scenario()
    assert sorted(log[4:]) == sorted(
        ["-a supervisor stopped", "-b crashed", "-c supervisor stopped", "-d supervisor stopped"]
    )
    assert log[-2:] == ["-d supervisor stopped", "-a supervisor stopped"]


async def test_an_interrupt_while_another_child_is_being_stopped_still_ends_that_one(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: Log = []

    async def scenario() -> None:
        async with supervise([child("a", log), child("b", log, grace_s=3)]) as supervisor:
            supervisor.ref("b").tell_nowait(Work(1_000))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervisor.stop_child, "b")
                await trio.sleep(1)
                supervisor.ref("a").tell_nowait(Interrupt())

    with pytest.raises(KeyboardInterrupt):
        await scenario()
    assert trio.current_time() <= 4 + 1e-6
    assert log[2:] == ["-a crashed", "-b supervisor stopped"]


async def test_a_crash_during_the_cancellation_of_a_life_is_no_crash_of_the_supervisor(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("while cancelled")

    class Sore(Child):
        @handles(Work)
        async def work(self, message: Work) -> int:
            await fail_when_cancelled()
            return 0

    class SoreNursery(Child):
        @handles(Work)
        async def work(self, message: Work) -> int:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail_when_cancelled)
                await trio.sleep_forever()
            return 0

    async with supervise(
        [child("a"), child("b", of=Sore), child("c", of=SoreNursery)]
    ) as supervisor:
        for name in "bc":
            supervisor.ref(name).tell_nowait(Work(1_000))
            await wait_all_tasks_blocked()
            await supervisor.stop_child(name)
        assert await supervisor.ref("a").ask(Work()) == 0
        counters = supervisor.statistics()
        assert {name: one.crashed + one.interrupted for name, one in counters.items()} == {
            "a": 0,
            "b": 1,
            "c": 1,
        }
