"""Replacement of an actor: its messages and refs stay, and a failed start is rolled back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fundops.runtime import (
    Actor,
    ActorStopped,
    Backoff,
    ChildSpec,
    ConfigError,
    Replaced,
    ReplaceFailed,
    Request,
    Restarted,
    Supervisor,
    SupervisorEscalated,
    SupervisorSpec,
    Terminated,
    UnknownChild,
    WrongMessage,
    handles,
)

Supervise = Callable[..., AbstractAsyncContextManager[Supervisor]]


class Who(Request[str], frozen=True):
    seconds: float = 0.0


class Crash(Request[None], frozen=True):
    pass


class Extra(Request[int], frozen=True):
    pass


class Old(Actor):
    label = "old"

    @handles(Who)
    async def who(self, message: Who) -> str:
        await trio.sleep(message.seconds)
        return f"{self.label} {self.context.epoch}"

    @handles(Crash)
    def crash(self, message: Crash) -> None:
        raise ValueError("a bug")


class New(Old):
    label = "new"

    @handles(Extra)
    def extra(self, message: Extra) -> int:
        return 1


class Broken(New):
    async def on_start(self) -> None:
        await trio.sleep(1)
        raise OSError("no such port")


class Slow(New):
    async def on_start(self) -> None:
        await trio.sleep(3)


async def test_the_new_one_serves_from_the_next_message_on(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise([ChildSpec("a", Old), ChildSpec("b", Old)]) as supervisor:
        a = supervisor.ref("a")
        answers: list[str] = []

        async def ask(seconds: float) -> None:
            answers.append(await a.ask(Who(seconds), timeout_s=50))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 2.0)
            await wait_all_tasks_blocked()
            for _ in range(3):
                nursery.start_soon(ask, 0.0)
            await supervisor.replace("a", New)
        assert answers == ["old 1", "new 2", "new 2", "new 2"]
        assert await a.ask(Extra()) == 1
        assert supervisor.ref("b").epoch == 1
        (status, _) = supervisor.tree()
        assert (status.state, status.restarts, status.restarts_in_window) == ("running", 0, 0)
        assert [type(event) for event in supervisor.events] == [Replaced]


async def test_the_new_one_is_what_restarts(supervise: Supervise) -> None:
    async with supervise([ChildSpec("a", Old)]) as supervisor:
        await supervisor.replace("a", New)
        supervisor.ref("a").tell_nowait(Crash())
        assert await supervisor.ref("a").ask(Who()) == "new 3"
        assert [type(event) for event in supervisor.events][-1] is Restarted


async def test_a_new_one_that_does_not_start_gives_way_to_the_old(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise([ChildSpec("a", Old)], intensity=0) as supervisor:
        a = supervisor.ref("a")
        answers: list[str] = []

        async def ask(seconds: float) -> None:
            answers.append(await a.ask(Who(seconds), timeout_s=50))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 2.0)
            await wait_all_tasks_blocked()
            nursery.start_soon(ask, 0.0)
            with pytest.raises(
                ReplaceFailed, match="'a' was not replaced: OSError: no such port"
            ) as caught:
                await supervisor.replace("a", Broken)
        assert isinstance(caught.value.__cause__, OSError)
        assert answers == ["old 1", "old 3"]
        with pytest.raises(WrongMessage):
            a.tell_nowait(Extra())
        # A failed replacement is not counted as a crash, which at intensity 0 would escalate.
        assert supervisor.tree()[0].restarts == 0


async def test_a_factory_that_raises_is_undone_too(supervise: Supervise) -> None:
    def factory() -> Actor:
        raise RuntimeError("no parts")

    async with supervise([ChildSpec("a", Old)]) as supervisor:
        with pytest.raises(ReplaceFailed, match="RuntimeError: no parts"):
            await supervisor.replace("a", factory)
        assert await supervisor.ref("a").ask(Who()) == "old 3"


async def test_when_the_old_one_does_not_start_any_more_it_is_an_ordinary_crash(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    class OnceOnly(Old):
        lives = 0

        async def on_start(self) -> None:
            OnceOnly.lives += 1
            if OnceOnly.lives == 2:
                raise OSError("port taken")

    async with supervise([ChildSpec("a", OnceOnly)]) as supervisor:
        with pytest.raises(ReplaceFailed, match="no such port"):
            await supervisor.replace("a", Broken)
        assert await supervisor.ref("a").ask(Who()) == "old 4"
        assert supervisor.tree()[0].restarts_in_window == 1


async def test_one_that_waits_for_its_restart_starts_as_the_new_one(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise([ChildSpec("a", Old)], backoff=Backoff(min_s=10)) as supervisor:
        supervisor.ref("a").tell_nowait(Crash())
        await wait_all_tasks_blocked()
        assert supervisor.tree()[0].state == "restarting"
        await supervisor.replace("a", New)
        assert trio.current_time() == pytest.approx(10)
        assert await supervisor.ref("a").ask(Who()) == "new 2"


async def test_a_group_restart_in_the_middle_of_it_changes_nothing(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise(
        [ChildSpec("a", Old), ChildSpec("b", Old)], strategy="one_for_all"
    ) as supervisor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.replace, "a", Slow)
            await trio.sleep(1)
            supervisor.ref("b").tell_nowait(Crash())
        assert await supervisor.ref("a").ask(Who()) == "new 3"
        assert await supervisor.ref("b").ask(Who()) == "old 2"


async def test_a_second_replacement_meanwhile_is_refused(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise([ChildSpec("a", Old)]) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.replace, "a", Slow)
        await trio.sleep(1)
        with pytest.raises(ReplaceFailed, match="another replacement is under way"):
            await supervisor.replace("a", Old)


async def test_a_stop_in_the_middle_of_it_wins(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise([ChildSpec("a", Old, grace_s=1)]) as supervisor:

        async def replace() -> None:
            with pytest.raises(ActorStopped):
                await supervisor.replace("a", Slow)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(replace)
            await trio.sleep(0.5)
            await supervisor.stop_child("a")
        assert (await supervisor.watch("a")).reason == "requested"


async def test_the_end_of_the_supervisor_in_the_middle_of_it_is_told(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    heard: list[BaseException] = []
    async with (
        trio.open_nursery() as nursery,
        supervise([ChildSpec("a", Old, grace_s=0)]) as supervisor,
    ):

        async def replace() -> None:
            with pytest.raises((ActorStopped, ReplaceFailed)) as caught:
                await supervisor.replace("a", Slow)
            heard.append(caught.value)

        nursery.start_soon(replace)
        await trio.sleep(0.5)
    assert len(heard) == 1


async def test_cancelling_the_caller_does_not_stop_the_replacement(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise([ChildSpec("a", Old)]) as supervisor:
        with trio.move_on_after(1):
            await supervisor.replace("a", Slow)
        assert await supervisor.ref("a").ask(Who()) == "new 2"


async def test_a_child_of_a_nested_supervisor_is_replaced_there(supervise: Supervise) -> None:
    async with supervise([SupervisorSpec("g", [ChildSpec("a", Old)])]) as supervisor:
        await supervisor.replace("a", New)
        assert await supervisor.ref("a").ask(Who()) == "new 2"
        with pytest.raises(UnknownChild):
            await supervisor.replace("g", New)


@pytest.mark.parametrize("factory", [None, "New", New.__name__])
async def test_what_cannot_be_called_is_refused(supervise: Supervise, factory: Any) -> None:
    async with supervise([ChildSpec("a", Old)]) as supervisor:
        with pytest.raises(ConfigError, match="factory"):
            await supervisor.replace("a", factory)
        assert supervisor.ref("a").epoch == 1


async def test_a_stopped_actor_is_not_replaced(supervise: Supervise) -> None:
    async with supervise([ChildSpec("a", Old)]) as supervisor:
        await supervisor.stop_child("a")
        with pytest.raises(ActorStopped):
            await supervisor.replace("a", New)
        assert isinstance(supervisor.events[-1], Terminated)


async def test_an_escalation_in_the_middle_of_it_is_told(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    heard: list[BaseException] = []

    async def scenario() -> None:
        async with (
            trio.open_nursery() as nursery,
            supervise([ChildSpec("a", Old), ChildSpec("b", Old)], intensity=0) as supervisor,
        ):

            async def replace() -> None:
                with pytest.raises(ActorStopped) as caught:
                    await supervisor.replace("a", Slow)
                heard.append(caught.value)

            nursery.start_soon(replace)
            await trio.sleep(0.5)
            supervisor.ref("b").tell_nowait(Crash())
            await trio.sleep(50)

    with pytest.raises(ExceptionGroup) as caught:
        await scenario()
    assert isinstance(caught.value.exceptions[0], SupervisorEscalated)
    assert len(heard) == 1
