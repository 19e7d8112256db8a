"""Starting, restarting and giving up: order, kinds, strategies, the window, backoff."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fundops.runtime import (
    Actor,
    ActorCrashed,
    ActorStopped,
    Backoff,
    ChildSpec,
    ConfigError,
    Request,
    StartFailed,
    Supervisor,
    SupervisorEscalated,
    SupervisorSpec,
    UnknownChild,
    handles,
)

Supervise = Callable[..., AbstractAsyncContextManager[Supervisor]]
Log = list[str]


class Count(Request[int], frozen=True):
    """How many of these this life has handled, after so many seconds."""

    seconds: float = 0.0


class Crash(Request[None], frozen=True):
    pass


class Exit(Request[None], frozen=True):
    """End normally."""


class Child(Actor):
    """Logs `+name` when it starts and `-name reason` when it stops."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.count = 0

    async def on_start(self) -> None:
        await trio.lowlevel.checkpoint()
        self.log.append(f"+{self.context.name}")

    async def on_stop(self, reason: str) -> None:
        await trio.lowlevel.checkpoint()
        self.log.append(f"-{self.context.name} {reason}")

    @handles(Count)
    async def counted(self, message: Count) -> int:
        await trio.sleep(message.seconds)
        self.count += 1
        return self.count

    @handles(Crash)
    def crash(self, message: Crash) -> None:
        raise ValueError("a bug")

    @handles(Exit)
    def exit(self, message: Exit) -> None:
        self.context.stop()


class BadRestart(Child):
    """Starts once and never again."""

    async def on_start(self) -> None:
        await super().on_start()
        if self.context.epoch > 1:
            raise OSError("no such port")


def child(name: str, log: Log | None = None, of: type[Child] = Child, **settings: Any) -> ChildSpec:
    shared: Log = [] if log is None else log
    return ChildSpec(name, lambda: of(shared), **settings)


def state(supervisor: Supervisor, name: str) -> str:
    return next(one.state for one in supervisor.tree() if one.name == name)


async def crash(supervisor: Supervisor, name: str) -> None:
    """Crash an actor, and return when the supervisor has reacted as far as it does at once."""
    with pytest.raises(ActorCrashed):
        await supervisor.ref(name).ask(Crash())
    await wait_all_tasks_blocked()


# -- order


async def test_children_start_in_the_order_declared_and_stop_in_reverse(
    supervise: Supervise,
) -> None:
    log: Log = []
    async with supervise([child(name, log) for name in ("b", "c", "a")]) as supervisor:
        assert log == ["+b", "+c", "+a"]
        assert [(one.name, one.state, one.epoch) for one in supervisor.tree()] == [
            ("b", "running", 1),
            ("c", "running", 1),
            ("a", "running", 1),
        ]
    assert log[3:] == [f"-{name} supervisor stopped" for name in ("a", "c", "b")]


async def test_each_child_is_ready_before_the_next_begins(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    begun: dict[str, float] = {}

    class Slow(Child):
        async def on_start(self) -> None:
            begun[self.context.name] = trio.current_time()
            await trio.sleep(3)

    async with supervise([child("a", of=Slow), child("b", of=Slow)]):
        assert begun == {"a": 0, "b": pytest.approx(3, abs=1e-6)}
        assert trio.current_time() == pytest.approx(6, abs=1e-6)


async def test_a_first_start_that_fails_undoes_those_before_it_and_is_not_retried(
    supervise: Supervise,
) -> None:
    log: Log = []

    class Bad(Child):
        async def on_start(self) -> None:
            await super().on_start()
            raise OSError("no such port")

    with pytest.raises(StartFailed, match="'c' did not start: OSError: no such port") as caught:
        async with supervise(
            [child("a", log), child("b", log), child("c", log, of=Bad), child("d", log)]
        ):
            raise AssertionError("never entered")
    assert caught.value.name == "c"
    assert isinstance(caught.value.__cause__, OSError)
    assert log == ["+a", "+b", "+c", "-c crashed", "-b supervisor stopped", "-a supervisor stopped"]


async def test_a_factory_that_raises_is_a_start_that_fails(supervise: Supervise) -> None:
    log: Log = []

    def factory() -> Actor:
        raise KeyError("setting")

    with pytest.raises(StartFailed) as caught:
        async with supervise([child("a", log), ChildSpec("b", factory)]):
            raise AssertionError("never entered")
    assert isinstance(caught.value.__cause__, KeyError)
    assert log == ["+a", "-a supervisor stopped"]


async def test_a_child_that_crashes_while_a_later_one_starts_fails_the_start_as_a_whole(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: Log = []

    class Poking(Child):
        async def on_start(self) -> None:
            self.context.ref("a").tell_nowait(Crash())
            await trio.sleep(1)

    with pytest.raises(StartFailed) as caught:
        async with supervise([child("a", log), child("b", log, of=Poking)]):
            raise AssertionError("never entered")
    assert caught.value.name == "a"
    assert isinstance(caught.value.__cause__, ValueError)


async def test_a_child_that_has_done_its_job_may_end_while_a_later_one_starts(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: Log = []

    class OneShot(Child):
        async def on_start(self) -> None:
            await super().on_start()
            self.context.stop()

    class Slow(Child):
        async def on_start(self) -> None:
            await trio.sleep(1)

    async with supervise(
        [child("a", log, of=OneShot, restart="temporary"), child("b", log, of=Slow)]
    ) as supervisor:
        await wait_all_tasks_blocked()
        assert log == ["+a", "-a ended"]
        assert [one.name for one in supervisor.tree()] == ["b"]


async def test_an_error_of_the_host_comes_out_as_it_is_after_the_children_have_stopped(
    supervise: Supervise,
) -> None:
    log: Log = []
    with pytest.raises(LookupError, match="mine"):
        async with supervise([child("a", log)]):
            raise LookupError("mine")
    assert log == ["+a", "-a supervisor stopped"]


async def test_no_children_are_fine(supervise: Supervise) -> None:
    async with supervise([]) as supervisor:
        assert supervisor.tree() == ()
        assert supervisor.statistics() == {}


# -- kinds


@pytest.mark.parametrize(
    ("restart", "way", "expected"),
    [
        ("permanent", "exit", "running"),
        ("permanent", "stop", "stopped"),
        ("permanent", "crash", "running"),
        ("transient", "exit", "stopped"),
        ("transient", "stop", "stopped"),
        ("transient", "crash", "running"),
        ("temporary", "exit", None),
        ("temporary", "stop", None),
        ("temporary", "crash", None),
    ],
)
async def test_what_becomes_of_a_child_depends_on_its_kind_and_on_how_it_ended(
    supervise: Supervise, restart: str, way: str, expected: str | None
) -> None:
    log: Log = []
    async with supervise([child("a", log, restart=restart), child("b", log)]) as supervisor:
        a = supervisor.ref("a")
        assert await a.ask(Count()) == 1
        if way == "exit":
            await a.ask(Exit())
        elif way == "stop":
            await supervisor.stop_child("a")
        else:
            await crash(supervisor, "a")
        await wait_all_tasks_blocked()
        found = {one.name: one for one in supervisor.tree()}
        assert found["b"].epoch == 1
        reason = {"exit": "ended", "stop": "requested", "crash": "crashed"}[way]
        assert log[2] == f"-a {reason}"
        if expected is None:
            assert "a" not in found
        else:
            assert found["a"].state == expected
        if expected == "running":
            assert (found["a"].epoch, found["a"].restarts) == (2, 1)
            assert await a.ask(Count()) == 1
        else:
            assert a.epoch == 1
            with pytest.raises(ActorStopped):
                await a.ask(Count())


async def test_a_normal_exit_ends_after_the_message_in_hand_and_leaves_the_rest_to_the_next_life(
    supervise: Supervise,
) -> None:
    async with supervise([child("a")]) as supervisor:
        a = supervisor.ref("a")
        for message in (Count(), Count(), Exit(), Count()):
            a.tell_nowait(message)
        assert await a.ask(Count()) == 2
        assert a.epoch == 2
        assert supervisor.statistics()["a"].done == 5
        assert supervisor.tree()[0].last_crash is None


# -- strategies


async def test_one_for_one_leaves_the_neighbours_their_state_and_their_work(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: Log = []
    async with (
        supervise([child("a", log), child("b", log)]) as supervisor,
        trio.open_nursery() as nursery,
    ):
        assert await supervisor.ref("b").ask(Count()) == 1

        async def work() -> None:
            assert await supervisor.ref("b").ask(Count(seconds=1)) == 2

        nursery.start_soon(work)
        await wait_all_tasks_blocked()
        await crash(supervisor, "a")
        assert [(one.name, one.epoch) for one in supervisor.tree()] == [("a", 2), ("b", 1)]
        assert log == ["+a", "+b", "-a crashed", "+a"]


async def test_one_for_all_stops_everybody_in_reverse_and_starts_everybody_in_order(
    supervise: Supervise,
) -> None:
    log: Log = []
    async with supervise(
        [child(name, log) for name in "abc"], strategy="one_for_all"
    ) as supervisor:
        await crash(supervisor, "b")
        sibling = "restarting with a sibling"
        assert log[3:] == ["-b crashed", f"-c {sibling}", f"-a {sibling}", "+a", "+b", "+c"]
        assert [(one.epoch, one.restarts, one.state) for one in supervisor.tree()] == [
            (2, 1, "running")
        ] * 3


async def test_rest_for_one_renews_the_child_and_those_declared_after_it(
    supervise: Supervise,
) -> None:
    log: Log = []
    async with supervise(
        [child(name, log) for name in "abc"], strategy="rest_for_one"
    ) as supervisor:
        await crash(supervisor, "b")
        assert log[3:] == ["-b crashed", "-c restarting with a sibling", "+b", "+c"]
        assert [one.epoch for one in supervisor.tree()] == [1, 2, 2]


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
async def test_a_temporary_bystander_is_stopped_and_not_restarted(
    supervise: Supervise, strategy: str
) -> None:
    log: Log = []
    children = [child("a", log), child("b", log, restart="temporary"), child("c", log)]
    async with supervise(children, strategy=strategy) as supervisor:
        await crash(supervisor, "a")
        assert [(one.name, one.epoch, one.state) for one in supervisor.tree()] == [
            ("a", 2, "running"),
            ("c", 2, "running"),
        ]
        assert "+b" not in log[3:]
        with pytest.raises(ActorStopped):
            supervisor.ref("b").tell_nowait(Count())


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
async def test_a_transient_bystander_comes_back(supervise: Supervise, strategy: str) -> None:
    async with supervise(
        [child("a"), child("b", restart="transient")], strategy=strategy
    ) as supervisor:
        await crash(supervisor, "a")
        assert [(one.name, one.epoch, one.state) for one in supervisor.tree()] == [
            ("a", 2, "running"),
            ("b", 2, "running"),
        ]


async def test_a_group_restart_counts_once_however_many_restart_with_it(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    epochs: list[set[int]] = []

    async def scenario() -> None:
        async with supervise(
            [child(name) for name in "abcdef"], strategy="one_for_all"
        ) as supervisor:
            while True:
                epochs.append({one.epoch for one in supervisor.tree()})
                await crash(supervisor, "c")

    with pytest.raises(
        SupervisorEscalated, match="4 failures within period_s=5, more than intensity=3 allows"
    ):
        await scenario()
    assert epochs == [{1}, {2}, {3}, {4}]


async def test_a_bystander_finishes_its_message_in_hand_and_keeps_its_mail(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: Log = []
    answers: list[int] = []
    children = [child("a", log), child("b", log, drain="all")]
    async with (
        supervise(children, strategy="one_for_all") as supervisor,
        trio.open_nursery() as nursery,
    ):

        async def ask(seconds: float) -> None:
            answers.append(await supervisor.ref("b").ask(Count(seconds), timeout_s=60))

        nursery.start_soon(ask, 2)
        await wait_all_tasks_blocked()
        nursery.start_soon(ask, 1)
        await wait_all_tasks_blocked()
        await crash(supervisor, "a")
        await trio.sleep(10)
        # One answer comes from the first life, which finished its message in hand, and one from the
        # second, although the child drains its queue on a stop.
        assert answers == [1, 1]
        assert supervisor.ref("b").epoch == 2


async def test_a_bystander_that_overruns_its_grace_is_interrupted(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise([child("a"), child("b", grace_s=2)], strategy="one_for_all") as supervisor:
        supervisor.ref("b").tell_nowait(Count(seconds=60))
        await wait_all_tasks_blocked()
        await crash(supervisor, "a")
        await trio.sleep(2.1)
        assert [one.epoch for one in supervisor.tree()] == [2, 2]
        assert supervisor.statistics()["b"].interrupted == 1
        assert supervisor.dead_letters[-1].reason == "interrupted: restarting with a sibling"


@pytest.mark.parametrize("through", ["a", "x"])
async def test_a_bystander_that_waits_for_the_crashed_one_is_not_waited_for(
    supervise: Supervise, autojump_clock: MockClock, through: str
) -> None:
    class Waiter(Child):
        @handles(Count)
        async def counted(self, message: Count) -> int:
            return await self.context.ref(through).ask(Count(), timeout_s=60)

    class Relay(Child):
        @handles(Count)
        async def counted(self, message: Count) -> int:
            return await self.context.ref("a").ask(Count(), timeout_s=60)

    children = [child("a"), child("b", of=Waiter), child("c")]
    group = SupervisorSpec("g", children, strategy="rest_for_one")
    async with supervise([group, child("x", of=Relay)]) as supervisor:
        a, b = supervisor.ref("a"), supervisor.ref("b")
        a.tell_nowait(Count(seconds=1))
        a.tell_nowait(Crash())
        await wait_all_tasks_blocked()
        b.tell_nowait(Count())  # behind the crash: answered by the next life at the earliest
        await trio.sleep(1.5)
        assert (a.epoch, b.epoch, supervisor.ref("c").epoch) == (2, 2, 2)
        assert supervisor.statistics()["b"].interrupted == 1


async def test_a_bystander_that_is_still_starting_is_not_waited_for(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    class SlowAgain(Child):
        async def on_start(self) -> None:
            await super().on_start()
            await trio.sleep(60 if self.context.epoch == 2 else 0)

    async with supervise(
        [child("a"), child("b", of=SlowAgain)], strategy="rest_for_one"
    ) as supervisor:
        await crash(supervisor, "b")
        await trio.sleep(1)
        assert state(supervisor, "b") == "starting"
        await crash(supervisor, "a")
        await trio.sleep(1)
        assert [(one.epoch, one.state) for one in supervisor.tree()] == [
            (2, "running"),
            (3, "running"),
        ]


async def test_when_another_member_fails_to_start_one_for_all_starts_all_over(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: Log = []

    class Flaky(Child):
        async def on_start(self) -> None:
            await super().on_start()
            if self.context.epoch == 2:
                raise OSError("no such port")

    children = [child("a", log), child("b", log, of=Flaky), child("c", log)]
    async with supervise(children, strategy="one_for_all") as supervisor:
        await crash(supervisor, "a")
        assert [one.name for one in supervisor.tree() if one.state == "running"] == ["a", "b", "c"]
        assert [one.epoch for one in supervisor.tree()] == [3, 3, 2]
        starts = [one for one in log if one.startswith("+")]
        assert starts == ["+a", "+b", "+c", "+a", "+b", "+a", "+b", "+c"]


async def test_when_another_member_fails_to_start_rest_for_one_goes_on_from_there(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: Log = []

    class Flaky(Child):
        async def on_start(self) -> None:
            await super().on_start()
            if self.context.epoch == 2:
                raise OSError("no such port")

    children = [child("a", log), child("b", log, of=Flaky), child("c", log)]
    async with supervise(children, strategy="rest_for_one") as supervisor:
        await crash(supervisor, "a")
        assert [(one.epoch, one.state) for one in supervisor.tree()] == [
            (2, "running"),
            (3, "running"),
            (2, "running"),
        ]


async def test_two_crashes_at_once_restart_everybody_once(supervise: Supervise) -> None:
    async with supervise(
        [child("a"), child("b"), child("c")], strategy="one_for_all"
    ) as supervisor:
        supervisor.ref("a").tell_nowait(Crash())
        supervisor.ref("c").tell_nowait(Crash())
        await wait_all_tasks_blocked()
        assert [(one.epoch, one.restarts) for one in supervisor.tree()] == [(2, 1)] * 3
        assert [one.last_crash for one in supervisor.tree()] == [
            "ValueError: a bug",
            None,
            "ValueError: a bug",
        ]


# -- the window


@pytest.mark.parametrize(("third", "escalates"), [(5.0, True), (5.001, False)])
async def test_a_failure_exactly_one_period_old_still_counts(
    supervise: Supervise, autojump_clock: MockClock, third: float, escalates: bool
) -> None:
    async def scenario() -> None:
        async with supervise([child("a")], intensity=2, period_s=5.0) as supervisor:
            for at in (0.0, 2.0, third):
                await trio.sleep_until(at)
                await crash(supervisor, "a")
            await trio.sleep(1)
            assert supervisor.ref("a").epoch == 4

    if not escalates:
        await scenario()
        return
    with pytest.raises(SupervisorEscalated) as caught:
        await scenario()
    assert caught.value.name == "root"
    assert [*map(str, caught.value.crashes)] == [
        f"a (epoch {n}): ValueError: a bug" for n in (1, 2, 3)
    ]


async def test_at_intensity_zero_the_first_crash_escalates(supervise: Supervise) -> None:
    log: Log = []

    async def scenario() -> None:
        async with supervise([child(name, log) for name in "abc"], intensity=0) as supervisor:
            supervisor.ref("b").tell_nowait(Crash())
            await trio.sleep_forever()

    with pytest.raises(SupervisorEscalated) as caught:
        await scenario()
    assert len(caught.value.crashes) == 1
    assert log[3:] == ["-b crashed", "-c supervisor escalated", "-a supervisor escalated"]


async def test_crashes_that_are_rare_enough_are_forgiven_for_ever(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise([child("a")], max_consecutive=3, stable_after_s=60) as supervisor:
        for epoch in range(1, 51):
            assert supervisor.ref("a").epoch == epoch
            await trio.sleep(61)
            await crash(supervisor, "a")
        assert supervisor.tree()[0].restarts == 50


async def test_a_slow_crash_loop_that_the_window_never_sees_ends_all_the_same(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async def scenario() -> None:
        async with supervise(
            [child("a")], intensity=3, period_s=5, backoff=Backoff(min_s=30, max_s=30)
        ) as supervisor:
            while True:
                with pytest.raises(ActorCrashed):
                    await supervisor.ref("a").ask(Crash(), timeout_s=100)

    with pytest.raises(
        SupervisorEscalated, match="10 failures in a row of 'a' reached max_consecutive=10"
    ) as caught:
        await scenario()
    assert len(caught.value.crashes) == 10


# -- backoff


async def start_waits(supervise: Supervise, backoff: Backoff, attempts: int) -> list[float]:
    """How long before each new start of a child that crashed once and then cannot start."""
    times: list[float] = []
    enough = trio.Event()

    class Timed(Child):
        async def on_start(self) -> None:
            times.append(trio.current_time())
            if len(times) > attempts:
                enough.set()
            if self.context.epoch > 1:
                raise OSError("no such port")

    async with supervise(
        [child("a", of=Timed)], backoff=backoff, intensity=100, max_consecutive=100
    ) as supervisor:
        supervisor.ref("a").tell_nowait(Crash())
        await enough.wait()
    return [after - before for before, after in pairwise(times)]


async def test_waits_double_from_the_least_to_the_most(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    waits = await start_waits(supervise, Backoff(min_s=1, max_s=20), 7)
    assert waits == [pytest.approx(seconds, abs=1e-6) for seconds in (1, 2, 4, 8, 16, 20, 20)]


async def test_jitter_only_shortens_and_the_same_seed_waits_the_same(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    first = await start_waits(supervise, Backoff(min_s=1, max_s=20, jitter=0.25, seed=7), 8)
    again = await start_waits(supervise, Backoff(min_s=1, max_s=20, jitter=0.25, seed=7), 8)
    other = await start_waits(supervise, Backoff(min_s=1, max_s=20, jitter=0.25, seed=8), 8)
    for wait, full in zip(first, (1, 2, 4, 8, 16, 20, 20, 20), strict=True):
        assert 0.75 * full - 1e-6 <= wait <= full + 1e-6
    assert first == [pytest.approx(wait, abs=1e-6) for wait in again]
    assert first != [pytest.approx(wait, abs=1e-6) for wait in other]


async def test_the_wait_begins_anew_after_a_healthy_time(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise(
        [child("a")], backoff=Backoff(min_s=1, max_s=30), stable_after_s=60
    ) as supervisor:
        waits = []
        for healthy in (1, 1, 1, 61, 1):
            await trio.sleep(healthy)
            with pytest.raises(ActorCrashed):
                await supervisor.ref("a").ask(Crash())
            before = trio.current_time()
            await supervisor.ref("a").ask(Count(), timeout_s=60)
            waits.append(round(trio.current_time() - before, 6))
        assert waits == [1, 2, 4, 1, 2]


async def test_a_child_that_cannot_start_again_is_stopped_on_request_during_the_wait(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: Log = []
    async with supervise(
        [child("a", log, of=BadRestart)], backoff=Backoff(min_s=60, max_s=600)
    ) as supervisor:
        await crash(supervisor, "a")
        await trio.sleep(70)
        assert state(supervisor, "a") == "restarting"
        before = trio.current_time()
        await supervisor.stop_child("a")
        assert trio.current_time() == before
        assert state(supervisor, "a") == "stopped"
        await trio.sleep(1_000)
        assert log == ["+a", "-a crashed", "+a", "-a crashed"]


async def test_a_supervisor_is_shut_down_during_the_wait(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise(
        [child("a", of=BadRestart)], backoff=Backoff(min_s=60, max_s=600)
    ) as supervisor:
        await crash(supervisor, "a")
        await trio.sleep(70)
        supervisor.ref("a").tell_nowait(Count())
        before = trio.current_time()
    assert trio.current_time() == before
    assert supervisor.statistics()["a"].undeliverable == 1


async def test_a_start_that_always_fails_escalates_by_the_window(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async def scenario() -> None:
        async with supervise([child("a", of=BadRestart)]) as supervisor:
            supervisor.ref("a").tell_nowait(Crash())
            await trio.sleep_forever()

    with pytest.raises(SupervisorEscalated) as caught:
        await scenario()
    assert [one.error for one in caught.value.crashes] == ["ValueError: a bug"] + [
        "OSError: no such port"
    ] * 3


async def test_the_others_are_served_while_one_waits_for_its_restart(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise(
        [child("a"), child("b")], backoff=Backoff(min_s=60, max_s=60)
    ) as supervisor:
        await crash(supervisor, "a")
        assert await supervisor.ref("b").ask(Count()) == 1
        await crash(supervisor, "b")
        assert (state(supervisor, "a"), state(supervisor, "b")) == ("restarting", "restarting")
        await trio.sleep(61)
        assert (state(supervisor, "a"), state(supervisor, "b")) == ("running", "running")


# -- drill and stop_child


async def test_a_drill_crashes_the_actor_before_its_next_message_and_loses_none(
    supervise: Supervise,
) -> None:
    log: Log = []
    async with supervise([child("a", log)]) as supervisor:
        a = supervisor.ref("a")
        assert await a.ask(Count()) == 1
        supervisor.drill("a", "quarterly")
        a.tell_nowait(Count())
        assert await a.ask(Count()) == 2
        [status] = supervisor.tree()
        assert (status.epoch, status.last_crash) == (2, "Drill: quarterly")
        assert supervisor.statistics()["a"].crashed == 0
        assert supervisor.dead_letters.total == 0


async def test_a_stopped_child_runs_its_cleanup_once_and_stays_stopped(
    supervise: Supervise,
) -> None:
    log: Log = []
    async with supervise([child("a", log), child("b", log)]) as supervisor:
        await supervisor.stop_child("a", "sold")
        await supervisor.stop_child("a", "again")
        assert state(supervisor, "a") == "stopped"
        await crash(supervisor, "b")
    assert log == ["+a", "+b", "-a sold", "-b crashed", "+b", "-b supervisor stopped"]


async def test_a_stopped_child_stays_stopped_when_its_group_restarts(supervise: Supervise) -> None:
    log: Log = []
    async with supervise(
        [child(name, log) for name in "abc"], strategy="one_for_all"
    ) as supervisor:
        await supervisor.stop_child("b")
        await crash(supervisor, "a")
        assert [(one.name, one.state, one.epoch) for one in supervisor.tree()] == [
            ("a", "running", 2),
            ("b", "stopped", 1),
            ("c", "running", 2),
        ]


async def test_stopping_a_child_after_the_supervisor_has_ended_returns_at_once(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise([child("a")]) as supervisor:
        pass
    with trio.fail_after(1):
        await supervisor.stop_child("a")


async def test_two_requests_to_stop_one_child_both_wait_until_it_has_stopped(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: Log = []
    async with supervise([child("a", log)]) as supervisor:
        supervisor.ref("a").tell_nowait(Count(seconds=2))
        await wait_all_tasks_blocked()

        async def stop() -> None:
            await supervisor.stop_child("a")
            assert log == ["+a", "-a requested"]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            nursery.start_soon(stop)


async def test_an_actor_may_stop_its_neighbour(supervise: Supervise) -> None:
    holder: list[Supervisor] = []

    class Boss(Child):
        @handles(Exit)
        async def exit(self, message: Exit) -> None:  # type: ignore[override]
            await holder[0].stop_child("a")

    async with supervise([child("a"), child("boss", of=Boss)]) as supervisor:
        holder.append(supervisor)
        await supervisor.ref("boss").ask(Exit())
        assert (state(supervisor, "a"), state(supervisor, "boss")) == ("stopped", "running")


# -- names and settings


async def test_an_unknown_name_is_refused_with_the_names_there_are(supervise: Supervise) -> None:
    async with supervise([child("a"), child("b")]) as supervisor:
        for call in (supervisor.ref, supervisor.drill):
            with pytest.raises(UnknownChild, match="no actor 'z'; known: a, b") as caught:
                call("z")
            assert isinstance(caught.value, KeyError)
            assert caught.value.known == ("a", "b")
        with pytest.raises(UnknownChild):
            await supervisor.stop_child("z")


@pytest.mark.parametrize(
    "settings",
    [
        {"name": ""},
        {"name": "x" * 129},
        {"name": 7},
        {"restart": "always"},
        {"drain": "some"},
        {"grace_s": -1},
        {"grace_s": math.nan},
        {"grace_s": math.inf},
    ],
)
def test_a_child_with_a_setting_that_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ChildSpec(**{"name": "a", "factory": Actor, **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {"name": ""},
        {"strategy": "all"},
        {"restart": "always"},
        {"intensity": -1},
        {"intensity": True},
        {"intensity": 1.5},
        {"max_consecutive": 0},
        {"period_s": 0},
        {"period_s": math.nan},
        {"stable_after_s": math.inf},
    ],
)
def test_a_supervisor_with_a_setting_that_makes_no_sense_is_refused(
    settings: dict[str, Any],
) -> None:
    with pytest.raises(ConfigError):
        SupervisorSpec(**{"name": "s", "children": (), **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {"min_s": -1},
        {"min_s": 2, "max_s": 1},
        {"max_s": math.inf},
        {"min_s": math.nan},
        {"jitter": 1.1},
        {"jitter": math.nan},
    ],
)
def test_a_backoff_that_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="backoff"):
        Backoff(**settings)


async def test_what_a_life_sets_in_its_context_ends_with_it(supervise: Supervise) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    seen: list[str] = []

    class Setter(Child):
        @handles(Count)
        async def counted(self, message: Count) -> int:
            seen.append(variable.get())
            variable.set("set")
            return len(seen)

    async with supervise([child("a", of=Setter)]) as supervisor:
        a = supervisor.ref("a")
        for _ in range(2):
            await a.ask(Count())
            await a.ask(Count())
            await crash(supervisor, "a")
    assert seen == ["unset", "set", "unset", "set"]


# -- size


@pytest.mark.parametrize("size", [500, pytest.param(10_000, marks=pytest.mark.soak)])
async def test_many_children_start_answer_and_stop(supervise: Supervise, size: int) -> None:
    log: Log = []
    names = [f"n{number}" for number in range(size)]
    async with supervise([child(name, log) for name in names]) as supervisor:
        refs = [supervisor.ref(name) for name in names[:: size // 10]]
        assert [await ref.ask(Count()) for ref in refs] == [1] * 10
        assert {status.state for status in supervisor.tree()} == {"running"}
    assert log[:size] == [f"+{name}" for name in names]
    assert log[size:] == [f"-{name} supervisor stopped" for name in reversed(names)]
