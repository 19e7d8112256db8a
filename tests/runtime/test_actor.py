"""Dispatch: which handler serves a message, which answers it may give, and a life's context."""

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
    ChildSpec,
    ConfigError,
    Rejected,
    Request,
    Supervisor,
    WrongMessage,
    handles,
    handles_batch,
)

Supervise = Callable[..., AbstractAsyncContextManager[Supervisor]]


class Add(Request[Any], frozen=True):
    amount: int


class Double(Request[Any], frozen=True):
    amount: int


class AddMore(Add, frozen=True):
    """A subclass of a message is another message."""


class TooMuch(Rejected):
    """The refusal of the actors below."""


class Counter(Actor):
    messages = Add | Double

    def __init__(self) -> None:
        self.total = 0

    @handles(Add)
    def add(self, message: Add) -> int:
        if message.amount > 100:
            raise TooMuch(f"{message.amount} is more than 100")
        if message.amount < 0:
            raise ValueError("a bug")
        self.total += message.amount
        return self.total

    @handles(Double)
    async def double(self, message: Double) -> int:
        await trio.lowlevel.checkpoint()
        return 2 * message.amount


async def test_a_plain_function_and_a_coroutine_function_both_handle(supervise: Supervise) -> None:
    async with supervise([ChildSpec("counter", Counter)]) as supervisor:
        counter = supervisor.ref("counter")
        assert await counter.ask(Add(3)) == 3
        assert await counter.ask(Add(4)) == 7
        assert await counter.ask(Double(5)) == 10
        assert supervisor.statistics()["counter"].done == 3


async def test_a_tell_is_handled_like_an_ask_without_an_asker(supervise: Supervise) -> None:
    async with supervise([ChildSpec("counter", Counter)]) as supervisor:
        counter = supervisor.ref("counter")
        counter.tell_nowait(Add(1))
        await counter.tell(Add(2))
        assert await counter.ask(Add(0)) == 3


async def test_one_handler_may_serve_several_types(supervise: Supervise) -> None:
    class Both(Actor):
        @handles(Add, Double)
        def either(self, message: Add | Double) -> str:
            return type(message).__name__

    async with supervise([ChildSpec("both", Both)]) as supervisor:
        assert await supervisor.ref("both").ask(Add(1)) == "Add"
        assert await supervisor.ref("both").ask(Double(1)) == "Double"


async def test_an_override_serves_what_it_overrides_without_being_marked_again(
    supervise: Supervise,
) -> None:
    class Negative(Counter):
        async def add(self, message: Add) -> int:  # type: ignore[override]
            return -message.amount

    async with supervise([ChildSpec("negative", Negative)]) as supervisor:
        assert await supervisor.ref("negative").ask(Add(3)) == -3
        assert await supervisor.ref("negative").ask(Double(3)) == 6


async def test_a_subclass_adds_handlers_and_leaves_its_base_alone(supervise: Supervise) -> None:
    class Wider(Counter):
        messages = Counter.messages | AddMore

        @handles(AddMore)
        def add_more(self, message: AddMore) -> str:
            return "more"

    async with supervise([ChildSpec("wider", Wider), ChildSpec("counter", Counter)]) as supervisor:
        assert await supervisor.ref("wider").ask(AddMore(1)) == "more"
        assert await supervisor.ref("wider").ask(Add(1)) == 1
        with pytest.raises(WrongMessage):
            await supervisor.ref("counter").ask(AddMore(1))


def test_a_handler_outside_the_declared_union_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(ConfigError, match="handles AddMore but does not declare it"):

        class Wider(Counter):
            @handles(AddMore)
            def add_more(self, message: AddMore) -> str:
                return "more"


def test_two_handlers_of_one_type_in_one_class_are_refused() -> None:
    with pytest.raises(ConfigError, match="both one and two handle Add"):

        class Torn(Actor):
            @handles(Add)
            def one(self, message: Add) -> int:
                return 1

            @handles(Double, Add)
            def two(self, message: Add) -> int:
                return 2


@pytest.mark.parametrize("types", [(), ("Add",), (Add(1),)])
def test_handles_without_types_of_messages_is_refused(types: Any) -> None:
    with pytest.raises(ConfigError, match="handles: needs types of messages"):
        handles(*types)


def test_a_declared_message_without_a_handler_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(ConfigError, match="declares Double but has no handler for it"):

        class Half(Actor):
            messages = Add | Double

            @handles(Add)
            def add(self, message: Add) -> int:
                return 0

    with pytest.raises(ConfigError, match="declares Add but has no handler for it"):

        class Empty(Actor):
            messages = Add


@pytest.mark.parametrize("limit", [0, -1])
def test_a_batch_of_no_messages_is_refused_when_the_class_is_made(limit: int) -> None:
    with pytest.raises(ConfigError, match="limit"):
        handles_batch(Add, limit=limit)


@pytest.mark.parametrize("message", [AddMore(1), "text", None])
async def test_a_message_of_another_type_is_refused_at_its_sender(
    supervise: Supervise, message: Any
) -> None:
    async with supervise([ChildSpec("counter", Counter)]) as supervisor:
        counter = supervisor.ref("counter")
        with pytest.raises(WrongMessage) as caught:
            counter.tell_nowait(message)
        assert isinstance(caught.value, TypeError)
        assert caught.value.outcome == "not_executed"
        with pytest.raises(WrongMessage):
            await counter.tell(message)
        with pytest.raises(WrongMessage):
            await counter.ask(message)
        assert supervisor.statistics()["counter"].accepted == 0
        assert await counter.ask(Add(1)) == 1
        assert counter.epoch == 1


async def test_a_type_that_was_not_known_before_the_first_life_is_refused_on_arrival(
    supervise: Supervise,
) -> None:
    class Early(Actor):
        async def on_start(self) -> None:
            self.context.ref("late").tell_nowait("text")

    class Late(Counter):
        async def on_start(self) -> None:
            await wait_all_tasks_blocked()

    # A lambda does not show the class of the actor it makes.
    async with supervise(
        [ChildSpec("early", Early), ChildSpec("late", lambda: Late())]
    ) as supervisor:
        await wait_all_tasks_blocked()
        assert [(one.message_type, one.reason[:8]) for one in supervisor.dead_letters] == [
            ("str", "refused:")
        ]
        assert await supervisor.ref("late").ask(Add(1)) == 1
        with pytest.raises(WrongMessage):  # by now it is known
            supervisor.ref("late").tell_nowait("text")


async def test_a_refusal_reaches_its_asker_and_the_actor_lives_on(supervise: Supervise) -> None:
    async with supervise([ChildSpec("counter", Counter)]) as supervisor:
        counter = supervisor.ref("counter")
        await counter.ask(Add(1))
        with pytest.raises(TooMuch, match="101") as caught:
            await counter.ask(Add(101))
        assert caught.value.outcome == "done"
        assert await counter.ask(Add(1)) == 2
        assert counter.epoch == 1
        assert supervisor.tree()[0].restarts == 0
        assert supervisor.dead_letters.total == 0


async def test_a_refused_tell_is_counted_and_becomes_a_dead_letter(supervise: Supervise) -> None:
    async with supervise([ChildSpec("counter", Counter)]) as supervisor:
        counter = supervisor.ref("counter")
        counter.tell_nowait(Add(101))
        assert await counter.ask(Add(1)) == 1
        assert counter.epoch == 1
        assert supervisor.statistics()["counter"].done == 2
        [letter] = supervisor.dead_letters
        assert (letter.actor, letter.message_type, letter.reason) == (
            "counter",
            "Add",
            "refused: TooMuch: 101 is more than 100",
        )


async def test_a_new_life_has_fresh_state_and_the_next_epoch(supervise: Supervise) -> None:
    async with supervise([ChildSpec("counter", Counter)]) as supervisor:
        counter = supervisor.ref("counter")
        assert await counter.ask(Add(5)) == 5
        with pytest.raises(ActorCrashed):
            await counter.ask(Add(-1))
        assert await counter.ask(Add(1)) == 1
        assert counter.epoch == 2
        assert repr(counter) == "<Ref counter epoch=2>"


async def test_mail_waits_until_the_actor_has_started(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[str] = []

    class Slow(Actor):
        async def on_start(self) -> None:
            if self.context.epoch > 1:
                await trio.sleep(3)
            log.append(f"start {self.context.name} {self.context.epoch}")

        @handles(Add)
        def add(self, message: Add) -> None:
            log.append(f"add {message.amount}")
            if message.amount < 0:
                raise ValueError("a bug")

    async with supervise([ChildSpec("slow", Slow)]) as supervisor:
        slow = supervisor.ref("slow")
        slow.tell_nowait(Add(-1))
        slow.tell_nowait(Add(2))
        await trio.sleep(2.9)
        assert log == ["start slow 1", "add -1"]
        assert supervisor.tree()[0].state == "starting"
        await trio.sleep(0.2)
        assert log == ["start slow 1", "add -1", "start slow 2", "add 2"]


class Batch(Actor):
    """Answers ten times the amount; refuses more than 100, crashes below 0, miscounts at 13."""

    def __init__(self, log: list[list[int]]) -> None:
        self.log = log

    @handles_batch(Add, limit=5)
    async def add(self, messages: list[Add]) -> list[int | TooMuch]:
        amounts = [one.amount for one in messages]
        self.log.append(amounts)
        await trio.lowlevel.checkpoint()
        if min(amounts) < 0:
            raise ValueError("a bug")
        if 13 in amounts:
            return []
        if 66 in amounts:
            raise TooMuch("all of it")
        return [amount * 10 if amount <= 100 else TooMuch(str(amount)) for amount in amounts]

    @handles(Double)
    async def double(self, message: Double) -> int:
        self.log.append([])
        return 2 * message.amount


async def ask_all(supervisor: Supervisor, *messages: Request[Any]) -> list[Any]:
    """The answers in the order of the messages, which enter the mailbox in that order too."""
    answers: list[Any] = [None] * len(messages)

    async def one(place: int, message: Request[Any]) -> None:
        try:
            answers[place] = await supervisor.ref("batch").ask(message)
        except Exception as error:  # noqa: BLE001
            answers[place] = error

    async with trio.open_nursery() as nursery:
        for place, message in enumerate(messages):
            nursery.start_soon(one, place, message)
            while supervisor.statistics()["batch"].accepted <= place:
                await trio.lowlevel.checkpoint()
    return answers


class Hold(Request[Any], frozen=True):
    pass


class HeldBatch(Batch):
    def __init__(self, log: list[list[int]], gate: trio.Event) -> None:
        super().__init__(log)
        self.gate = gate

    @handles(Hold)
    async def hold(self, message: Hold) -> int:
        await self.gate.wait()
        return 0


async def held_answers(
    supervise: Supervise, log: list[list[int]], *messages: Request[Any]
) -> list[Any]:
    """Ask `messages` of a batch actor while its hand is full, then let it go on."""
    gate = trio.Event()
    answers: list[Any] = []
    async with supervise([ChildSpec("batch", lambda: HeldBatch(log, gate))]) as supervisor:

        async def gather() -> None:
            answers.extend(await ask_all(supervisor, Hold(), *messages))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(gather)
            await wait_all_tasks_blocked()
            assert supervisor.statistics()["batch"].queued == len(messages)
            gate.set()
        assert supervisor.ref("batch").epoch == 1 + any(
            isinstance(one, ActorCrashed) for one in answers
        )
    return answers[1:]


async def test_a_batch_handler_takes_what_has_queued_up_in_one_run(supervise: Supervise) -> None:
    log: list[list[int]] = []
    assert await held_answers(supervise, log, Add(1), Add(2), Add(3)) == [10, 20, 30]
    assert log == [[1, 2, 3]]


async def test_a_batch_is_no_longer_than_its_limit(supervise: Supervise) -> None:
    log: list[list[int]] = []
    assert await held_answers(supervise, log, *(Add(n) for n in range(12))) == [
        n * 10 for n in range(12)
    ]
    assert log == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]


async def test_a_batch_ends_before_a_message_of_another_handler(supervise: Supervise) -> None:
    log: list[list[int]] = []
    assert await held_answers(supervise, log, Add(1), Add(2), Double(4), Add(3)) == [10, 20, 8, 30]
    assert log == [[1, 2], [], [3]]


async def test_each_message_of_a_batch_has_its_own_answer_or_refusal(supervise: Supervise) -> None:
    first, second, third, fourth = await held_answers(
        supervise, [], Add(1), Add(500), Add(2), Add(600)
    )
    assert (first, third) == (10, 20)
    assert isinstance(second, TooMuch)
    assert isinstance(fourth, TooMuch)
    assert (str(second), str(fourth)) == ("500", "600")


async def test_a_batch_handler_may_refuse_the_whole_batch(supervise: Supervise) -> None:
    answers = await held_answers(supervise, [], Add(1), Add(66))
    assert [str(one) for one in answers] == ["all of it"] * 2


async def test_a_crash_in_a_batch_crashes_all_of_it_and_nothing_behind_it(
    supervise: Supervise,
) -> None:
    log: list[list[int]] = []
    answers = await held_answers(supervise, log, Add(1), Add(2), Add(-1), Add(3), Add(4), Add(5))
    assert [type(one) for one in answers[:5]] == [ActorCrashed] * 5
    assert [type(one.__cause__) for one in answers[:5]] == [ValueError] * 5
    assert answers[5] == 50
    assert log == [[1, 2, -1, 3, 4], [5]]


async def test_a_batch_handler_that_answers_too_few_has_crashed(supervise: Supervise) -> None:
    answers = await held_answers(supervise, [], Add(1), Add(13))
    assert [type(one) for one in answers] == [ActorCrashed] * 2
    assert "answered 0 of 2 messages" in str(answers[0].__cause__)


async def test_an_actor_reaches_its_neighbours_by_name(supervise: Supervise) -> None:
    class Front(Actor):
        @handles(Add)
        async def add(self, message: Add) -> Any:
            return await self.context.ref("counter").ask(message) + 1_000

    async with supervise([ChildSpec("counter", Counter), ChildSpec("front", Front)]) as supervisor:
        assert await supervisor.ref("front").ask(Add(2)) == 1_002
