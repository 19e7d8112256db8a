"""The caller of a task, full mailboxes of neighbours, and runs without trio."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fundops.runtime import (
    Actor,
    AskCycle,
    AskTimeout,
    ChildSpec,
    MailboxFull,
    NeedsTrio,
    Ref,
    Request,
    handles,
    handles_batch,
    open_supervisor,
)


class Begin(Request[None], frozen=True):
    wait: bool = False


class Name(Request[str], frozen=True):
    pass


class Flood(Request[int], frozen=True):
    pass


class Pour(Request[None], frozen=True):
    pass


class Note(Request[None], frozen=True):
    pass


class Host(Actor):
    """Starts tasks that ask this very actor, as a controller's restart does."""

    ref: Ref
    elsewhere: trio.Nursery
    answers: list[Any]

    @handles(Name)
    def name(self, _: Name) -> str:
        return "host"

    @handles(Begin)
    async def begin(self, message: Begin) -> None:
        self.elsewhere.start_soon(self.later)
        if message.wait:
            # Long enough for the other task to ask while this message is in hand.
            await trio.sleep(1)

    async def later(self) -> None:
        try:
            self.answers.append(await self.ref.ask(Name(), timeout_s=30))
        except Exception as error:  # noqa: BLE001  the test looks at it
            self.answers.append(error)

    @handles(Flood)
    async def flood(self, _: Flood) -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.ask_self)
        return len(self.answers)

    async def ask_self(self) -> None:
        with pytest.raises(AskCycle) as caught:
            await self.ref.ask(Name())
        self.answers.append(caught.value)


@pytest.mark.parametrize("wait", [True, False])
async def test_a_task_in_a_foreign_nursery_has_no_caller(wait: bool) -> None:
    with trio.fail_after(60):
        async with (
            trio.open_nursery() as elsewhere,
            open_supervisor([ChildSpec("host", Host)]) as tree,
        ):
            host = Host.ref = tree.ref("host")
            Host.elsewhere, Host.answers = elsewhere, []
            await host.ask(Begin(wait))
            await wait_all_tasks_blocked()
            assert Host.answers == ["host"]


async def test_a_task_inside_the_handler_keeps_its_caller() -> None:
    async with open_supervisor([ChildSpec("host", Host)]) as tree:
        host = Host.ref = tree.ref("host")
        Host.answers = []
        assert await host.ask(Flood()) == 1


async def test_a_task_that_outlives_inherits_no_deadline(autojump_clock: MockClock) -> None:
    class Slow(Actor):
        @handles(Name)
        async def name(self, _: Name) -> str:
            await trio.sleep(10)
            return "slow"

    answers: list[Any] = []

    class Starter(Actor):
        @handles(Begin)
        async def begin(self, _: Begin) -> None:
            elsewhere.start_soon(self.later)
            await trio.sleep(3)

        async def later(self) -> None:
            answers.append(await slow.ask(Name(), timeout_s=30))

    specs = [ChildSpec("slow", Slow), ChildSpec("starter", Starter)]
    async with open_supervisor(specs) as tree, trio.open_nursery() as elsewhere:
        slow = tree.ref("slow")
        with pytest.raises(AskTimeout):
            await tree.ref("starter").ask(Begin(), timeout_s=2)
    assert answers == ["slow"]


class Slow(Actor):
    gate: trio.Event

    @handles(Note)
    async def note(self, _: Note) -> None:
        await self.gate.wait()


class Sender(Actor):
    slow: Ref
    lives = 0

    async def on_start(self) -> None:
        Sender.lives += 1

    @handles(Flood)
    async def flood(self, _: Flood) -> int:
        async with trio.open_nursery():  # wraps the error in a group
            for _number in range(5):
                self.slow.tell_nowait(Note())
        return 5

    @handles_batch(Pour)
    def pour(self, messages: list[Pour]) -> list[None]:
        for _ in range(5):
            self.slow.tell_nowait(Note())
        return [None] * len(messages)

    @handles(Name)
    def name(self, _: Name) -> str:
        return "sender"


@pytest.mark.parametrize("overflow", ["reject", "backpressure"])
@pytest.mark.parametrize("message", [Flood(), Pour()])
async def test_a_full_neighbour_fails_the_message_alone(message: Any, overflow: Any) -> None:
    Slow.gate = trio.Event()
    Sender.lives = 0
    specs = [
        ChildSpec("slow", Slow, capacity=2, overflow=overflow),
        ChildSpec("sender", Sender),
    ]
    async with open_supervisor(specs, intensity=0) as tree:
        Sender.slow, sender = tree.ref("slow"), tree.ref("sender")
        for _ in range(5):
            with pytest.raises(MailboxFull) as caught:
                await sender.ask(message)
            assert (caught.value.name, caught.value.outcome) == ("slow", "unknown")
            assert "'sender' while handling" in str(caught.value)
        sender.tell_nowait(message)
        assert await sender.ask(Name()) == "sender"
        status = tree.tree()[1]
        assert (Sender.lives, status.restarts, status.restarts_in_window) == (1, 0, 0)
        assert tree.statistics()["sender"].blocked == 6
        assert tree.statistics()["sender"].crashed == 0
        assert tree.dead_letters[-1].reason.startswith("refused: MailboxFull")
        Slow.gate.set()


def test_a_supervisor_outside_trio_says_so() -> None:
    async def main() -> None:
        async with open_supervisor([ChildSpec("slow", Slow)]):
            pass

    with pytest.raises(NeedsTrio, match="needs trio"):
        asyncio.run(main())
