"""Type-checked, not run: the types a caller gets. A line marked as an error must be one."""

from collections.abc import Awaitable, Callable
from typing import assert_type

import msgspec

from fundops.runtime import (
    Actor,
    ChildSpec,
    Crashed,
    DeadLetter,
    Log,
    Ref,
    Request,
    Supervisor,
    Terminated,
    Timer,
    handles,
    handles_batch,
)


class Add(Request[int], frozen=True):
    amount: int


class Rows(Request[tuple[str, ...]], frozen=True):
    limit: int | None = None


class Quiet(Request[None], frozen=True):
    idempotent = True
    control = True


class Plain(msgspec.Struct, frozen=True):
    """Can be told but not asked, since it does not declare the type of an answer."""


class Counter(Actor):
    messages = Add | Rows

    @handles(Add)
    async def add(self, message: Add) -> int:
        assert_type(self.context.ref("other"), Ref)
        assert_type(self.context.every(1.0, message), Timer)
        return message.amount

    @handles_batch(Rows)
    def rows(self, messages: list[Rows]) -> list[tuple[str, ...]]:
        return [()] * len(messages)


async def use(ref: Ref, supervisor: Supervisor) -> None:
    assert_type(await ref.ask(Add(1)), int)
    assert_type(await ref.ask(Rows(), timeout_s=1), tuple[str, ...])
    assert_type(await supervisor.watch("a"), Terminated)
    assert_type(supervisor.dead_letters, Log[DeadLetter])
    assert_type(supervisor.dead_letters[0].reason, str)
    assert_type(await ref.ask(as_a_wider_request()), float)
    await ref.tell(Plain())
    ref.tell_nowait(Add(1))
    await supervisor.replace("a", Counter)

    wrong: str = await ref.ask(Add(1))  # error: arg-type
    await ref.ask(Plain())  # error: arg-type
    await ref.ask(Add("1"))  # error: arg-type
    narrower: Request[bool] = Add(1)  # error: assignment
    Add(1).amount = 2  # error: misc
    ChildSpec("a", Add)  # error: arg-type
    ChildSpec("a", Counter, overflow="wait")  # error: arg-type
    assert wrong, narrower


def a_marked_handler_keeps_its_type(counter: Counter) -> Callable[[Add], Awaitable[int]]:
    return counter.add


def so_does_a_batch_handler(counter: Counter) -> Callable[[list[Rows]], list[tuple[str, ...]]]:
    return counter.rows


def events_are_a_closed_union(supervisor: Supervisor) -> list[str]:
    return [event.error for event in supervisor.events if isinstance(event, Crashed)]


def as_a_wider_request() -> Request[float]:
    return Add(1)


async def an_answer_serves_where_any_object_does(ref: Ref) -> object:
    return await ref.ask(Add(1))
