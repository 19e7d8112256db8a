"""Nested supervisors: one tree of names, messages that outlive both levels, one failure a level."""

from __future__ import annotations

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


class Work(Request[int], frozen=True):
    """Answered with the epoch, after so many seconds; a crash when `bad`."""

    seconds: float = 0.0
    bad: bool = False


class Child(Actor):
    def __init__(self, log: Log) -> None:
        self.log = log

    async def on_start(self) -> None:
        self.log.append(f"+{self.context.name}")

    async def on_stop(self, reason: str) -> None:
        self.log.append(f"-{self.context.name}")

    @handles(Work)
    async def work(self, message: Work) -> int:
        if message.bad:
            raise ValueError("a bug")
        await trio.sleep(message.seconds)
        return self.context.epoch


class Exiting(Child):
    @handles(Work)
    async def work(self, message: Work) -> int:
        if message.bad:
            self.context.stop()
        return await super().work(Work(message.seconds))


def child(name: str, log: Log | None = None, of: type[Child] = Child, **settings: Any) -> ChildSpec:
    shared: Log = [] if log is None else log
    return ChildSpec(name, lambda: of(shared), **settings)


def group(name: str, *children: ChildSpec | SupervisorSpec, **settings: Any) -> SupervisorSpec:
    return SupervisorSpec(name, children, **settings)


def states(supervisor: Supervisor) -> dict[str, tuple[str, int]]:
    found: dict[str, tuple[str, int]] = {}
    for one in supervisor.tree():
        found[one.name] = (one.state, one.epoch)
        found.update({below.name: (below.state, below.epoch) for below in one.children})
    return found


async def crash(supervisor: Supervisor, name: str) -> None:
    with pytest.raises(ActorCrashed):
        await supervisor.ref(name).ask(Work(bad=True))
    await wait_all_tasks_blocked()


async def test_a_tree_starts_depth_first_and_stops_in_the_exact_reverse(
    supervise: Supervise,
) -> None:
    log: Log = []
    children = [
        child("a", log),
        group("g", child("b", log), group("h", child("c", log))),
        child("d", log),
    ]
    async with supervise(children) as supervisor:
        assert log == ["+a", "+b", "+c", "+d"]
        assert [one.name for one in supervisor.tree()] == ["a", "g", "d"]
        g = supervisor.tree()[1]
        assert g.mailbox is None
        assert [one.name for one in g.children] == ["b", "h"]
        assert set(supervisor.statistics()) == {"a", "b", "c", "d"}
    assert log[4:] == ["-d", "-c", "-b", "-a"]


async def test_one_ref_finds_an_actor_at_any_depth(supervise: Supervise) -> None:
    class Asking(Child):
        @handles(Work)
        async def work(self, message: Work) -> int:
            return 10 * await self.context.ref("a").ask(message)

    async with supervise([child("a"), group("g", group("h", child("c", of=Asking)))]) as supervisor:
        assert await supervisor.ref("c").ask(Work()) == 10
        with pytest.raises(UnknownChild, match="known: a, c"):
            supervisor.ref("g")  # a supervisor takes no messages


@pytest.mark.parametrize(
    "children",
    [
        [child("a"), child("a")],
        [child("a"), group("g", child("a"))],
        [group("g", child("a")), group("h", child("a"))],
        [child("g"), group("g", child("a"))],
        [group("g", group("g", child("a")))],
    ],
)
async def test_a_name_that_occurs_twice_in_the_tree_is_refused(
    supervise: Supervise, children: list[Any]
) -> None:
    with pytest.raises(ConfigError, match="share a name"):
        async with supervise(children):
            pass


async def test_a_first_start_that_fails_below_undoes_the_whole_tree_and_names_the_actor(
    supervise: Supervise,
) -> None:
    log: Log = []

    class Bad(Child):
        async def on_start(self) -> None:
            raise OSError("no such port")

    with pytest.raises(StartFailed, match="'c' did not start") as caught:
        async with supervise(
            [child("a", log), group("g", child("b", log), child("c", log, of=Bad))]
        ):
            pass
    assert isinstance(caught.value.__cause__, OSError)
    assert log == ["+a", "+b", "-c", "-b", "-a"]


async def test_a_crash_below_is_mended_below(supervise: Supervise) -> None:
    async with supervise([child("a"), group("g", child("b"), child("c"))]) as supervisor:
        await crash(supervisor, "b")
        assert states(supervisor) == {
            "a": ("running", 1),
            "g": ("running", 1),
            "b": ("running", 2),
            "c": ("running", 1),
        }


async def test_an_escalation_below_is_one_failure_above(supervise: Supervise) -> None:
    log: Log = []
    children = [child("a", log), group("g", child("b", log), child("c", log), intensity=0)]
    async with supervise(children, intensity=1) as supervisor:
        await crash(supervisor, "b")
        assert states(supervisor) == {
            "a": ("running", 1),
            "g": ("running", 2),
            "b": ("running", 2),
            "c": ("running", 2),
        }
        assert log == ["+a", "+b", "+c", "-b", "-c", "+b", "+c"]
        last = supervisor.tree()[1].last_crash
        assert last is not None
        assert last.startswith(
            "SupervisorEscalated: supervisor 'g' gave up: 1 failure within period_s=5, "
            "more than intensity=0 allows"
        )


async def test_an_escalation_through_two_levels_comes_out_as_one_leaf(supervise: Supervise) -> None:
    async def scenario() -> None:
        async with supervise([group("g", child("b"), intensity=0)], intensity=0) as supervisor:
            supervisor.ref("b").tell_nowait(Work(bad=True))
            await trio.sleep_forever()

    with pytest.raises(SupervisorEscalated) as caught:
        await scenario()
    assert caught.value.name == "root"
    assert str(caught.value.crashes[0]).startswith(
        "g (epoch 1): SupervisorEscalated: supervisor 'g' gave up"
    )


async def test_mail_survives_the_restart_of_the_supervisor_above(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    children = [group("g", child("b"), child("c"), intensity=0)]
    async with (
        supervise(children, backoff=Backoff(min_s=10, max_s=10)) as supervisor,
        trio.open_nursery() as nursery,
    ):
        answers: list[int] = []

        async def ask(name: str) -> None:
            answers.append(await supervisor.ref(name).ask(Work(), timeout_s=60))

        supervisor.ref("c").tell_nowait(Work(seconds=1))
        supervisor.ref("b").tell_nowait(Work(bad=True))
        nursery.start_soon(ask, "b")
        nursery.start_soon(ask, "c")
        await trio.sleep(5)
        assert states(supervisor)["g"] == ("restarting", 1)
        # The message in hand when the sibling crashed was finished.
        assert supervisor.statistics()["c"].done == 1
        nursery.start_soon(ask, "c")  # sent between two lives
        await trio.sleep(10)
        assert answers == [2, 2, 2]


async def test_a_sibling_above_restarts_the_whole_group_and_keeps_its_mail(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    children = [child("a"), group("g", child("b"))]
    async with (
        supervise(children, strategy="one_for_all") as supervisor,
        trio.open_nursery() as nursery,
    ):
        supervisor.ref("b").tell_nowait(Work(seconds=1))
        await wait_all_tasks_blocked()

        async def ask() -> None:
            assert await supervisor.ref("b").ask(Work()) == 2

        nursery.start_soon(ask)
        await crash(supervisor, "a")
        await trio.sleep(2)
        assert states(supervisor) == {"a": ("running", 2), "g": ("running", 2), "b": ("running", 2)}
        assert supervisor.statistics()["b"].done == 2


async def test_a_group_that_is_told_to_stop_before_it_has_begun_does_so(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: Log = []
    children = [child("a", log), group("g", child("b", log))]
    # The second life of `a` crashes on its first message, in the tick in which the group may start
    # again.
    async with supervise(children, strategy="one_for_all") as supervisor:
        supervisor.ref("a").tell_nowait(Work(bad=True))
        supervisor.ref("a").tell_nowait(Work(bad=True))
        await wait_all_tasks_blocked()
        assert await supervisor.ref("a").ask(Work()) == 3
        assert await supervisor.ref("b").ask(Work()) == supervisor.ref("b").epoch
        assert set(states(supervisor).values()) <= {("running", 2), ("running", 3)}
    assert log.count("+a") == log.count("-a") == 3
    assert log.count("+b") == log.count("-b")


async def test_a_restarted_supervisor_gives_its_children_a_fresh_count_of_failures(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    below = group(
        "g", child("b"), intensity=0, max_consecutive=3, period_s=1, backoff=Backoff(min_s=0)
    )
    patient = group(
        "p", child("q"), intensity=5, period_s=1, max_consecutive=2, backoff=Backoff(min_s=3)
    )
    async with supervise([below, patient], intensity=10) as supervisor:
        await crash(supervisor, "q")
        await trio.sleep(4)
        await crash(supervisor, "q")  # two in a row: p gives up and is restarted
        assert states(supervisor)["p"] == ("running", 2)
        await crash(supervisor, "q")
        await trio.sleep(4)
        assert states(supervisor)["p"] == ("running", 2)
        assert states(supervisor)["q"] == ("running", 4)


async def test_a_child_stopped_for_good_does_not_come_back_with_its_supervisor(
    supervise: Supervise,
) -> None:
    log: Log = []
    async with supervise([group("g", child("b", log), child("c", log), intensity=0)]) as supervisor:
        await supervisor.stop_child("c")
        await crash(supervisor, "b")
        assert states(supervisor) == {"g": ("running", 2), "b": ("running", 2), "c": ("stopped", 1)}
        assert log == ["+b", "+c", "-c", "-b", "+b"]
        with pytest.raises(ActorStopped):
            supervisor.ref("c").tell_nowait(Work())


async def test_a_stopped_group_is_gone_with_all_its_mail_and_its_children_may_be_stopped_again(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with (
        supervise([group("g", child("b"), child("c"))]) as supervisor,
        trio.open_nursery() as nursery,
    ):
        supervisor.ref("b").tell_nowait(Work(seconds=1))
        await wait_all_tasks_blocked()

        async def ask() -> None:
            with pytest.raises(ActorStopped):
                await supervisor.ref("b").ask(Work())

        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        await supervisor.stop_child("g")
        assert states(supervisor) == {"g": ("stopped", 1), "b": ("stopped", 1), "c": ("stopped", 1)}
        with trio.fail_after(1):
            await supervisor.stop_child("b")
            await supervisor.stop_child("g")
        with pytest.raises(ActorStopped):
            supervisor.ref("c").tell_nowait(Work())
        assert supervisor.statistics()["b"].undeliverable == 1


async def test_a_child_below_is_stopped_at_once_while_its_supervisor_waits_to_restart(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    children = [group("g", child("b"), child("c"), intensity=0)]
    async with supervise(children, backoff=Backoff(min_s=60, max_s=60)) as supervisor:
        await crash(supervisor, "b")
        before = trio.current_time()
        await supervisor.stop_child("c")
        assert trio.current_time() == before
        with pytest.raises(ActorStopped):
            supervisor.ref("c").tell_nowait(Work())
        await trio.sleep(61)
        assert states(supervisor) == {"g": ("running", 2), "b": ("running", 2), "c": ("stopped", 1)}


async def test_a_group_is_stopped_at_once_while_it_waits_to_restart(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise(
        [group("g", child("b"), intensity=0)], backoff=Backoff(min_s=60, max_s=60)
    ) as supervisor:
        await crash(supervisor, "b")
        supervisor.ref("b").tell_nowait(Work())
        await supervisor.stop_child("g")
        assert trio.current_time() == 0
        assert supervisor.statistics()["b"].undeliverable == 1
        await trio.sleep(100)
        assert states(supervisor)["b"] == ("stopped", 1)


async def test_a_stop_asked_for_while_the_supervisor_comes_down_is_answered(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    # The drain of `c` holds its group up for a second; the request comes in that second.
    children = [group("g", child("b"), child("c"), intensity=0)]
    async with supervise(children, backoff=Backoff(min_s=60, max_s=60)) as supervisor:
        supervisor.ref("c").tell_nowait(Work(seconds=1))
        await wait_all_tasks_blocked()
        await crash(supervisor, "b")
        await supervisor.stop_child("b")
        assert trio.current_time() == pytest.approx(1, abs=1e-6)
        await trio.sleep(100)
        assert states(supervisor) == {"g": ("running", 2), "b": ("stopped", 1), "c": ("running", 2)}


@pytest.mark.parametrize(("restart", "epoch"), [("transient", 2), ("temporary", 1)])
async def test_a_group_has_a_kind_of_its_own(
    supervise: Supervise, restart: str, epoch: int
) -> None:
    async with supervise([group("g", child("b"), intensity=0, restart=restart)]) as supervisor:
        b = supervisor.ref("b")
        await crash(supervisor, "b")
        if restart == "temporary":
            assert supervisor.tree() == ()
            with pytest.raises(ActorStopped):
                b.tell_nowait(Work())
        else:
            assert await b.ask(Work()) == epoch
        assert b.epoch == epoch


async def test_a_drill_below_shows_the_restart_in_the_tree(supervise: Supervise) -> None:
    async with supervise([group("g", child("b"))]) as supervisor:
        supervisor.drill("b", "friday")
        await wait_all_tasks_blocked()
        [below] = supervisor.tree()[0].children
        assert (below.epoch, below.restarts, below.last_crash) == (2, 1, "Drill: friday")


async def test_a_normal_exit_below_is_served_by_the_group(supervise: Supervise) -> None:
    async with supervise(
        [group("g", child("b", of=Exiting), child("c", of=Exiting, restart="transient"))]
    ) as tree:
        assert await tree.ref("b").ask(Work(bad=True)) == 1
        assert await tree.ref("c").ask(Work(bad=True)) == 1
        await wait_all_tasks_blocked()
        assert states(tree) == {"g": ("running", 1), "b": ("running", 2), "c": ("stopped", 1)}
