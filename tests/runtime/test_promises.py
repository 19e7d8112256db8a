"""Random traffic against three promises: one final state, at most one run, order per sender."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, get_args

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from fundops.runtime import (
    Actor,
    ActorCrashed,
    ActorStopped,
    AskTimeout,
    Backoff,
    ChildSpec,
    MailboxFull,
    Rejected,
    Request,
    Supervisor,
    SupervisorEscalated,
    SupervisorSpec,
    handles,
    handles_batch,
)

Supervise = Callable[..., AbstractAsyncContextManager[Supervisor]]
Verb = Literal["tell", "tell_nowait", "ask", "give_up", "drill", "stop", "rest"]

OFTEN: tuple[Verb, ...] = (
    "tell",
    "tell",
    "tell_nowait",
    "tell_nowait",
    "ask",
    "ask",
    "give_up",
    "drill",
    "rest",
)
ACTORS = ("plain", "small", "dropping", "batching")


class Item(Request[tuple[int, int]], frozen=True):
    """Answered with its own identity: who sent it, and as which of its messages."""

    sender: int
    serial: int
    seconds: float = 0.0
    fate: Literal["answer", "refuse", "crash"] = "answer"


class Deed(msgspec.Struct, frozen=True):
    """One thing a sender does."""

    verb: Verb
    actor: str
    seconds: float = 0.0
    fate: Literal["answer", "refuse", "crash"] = "answer"


class Refused(Rejected):
    """The refusal of the actors below."""


class Plain(Actor):
    def __init__(self, log: list[tuple[str, int, int]]) -> None:
        self.log = log

    @handles(Item)
    async def item(self, message: Item) -> tuple[int, int]:
        self.log.append((self.context.name, message.sender, message.serial))
        if message.seconds:
            await trio.sleep(message.seconds)
        if message.fate == "crash":
            raise ValueError("a bug")
        if message.fate == "refuse":
            raise Refused
        return (message.sender, message.serial)


class Batching(Actor):
    def __init__(self, log: list[tuple[str, int, int]]) -> None:
        self.log = log

    @handles_batch(Item, limit=3)
    async def items(self, messages: list[Item]) -> list[tuple[int, int] | Refused]:
        self.log.extend((self.context.name, one.sender, one.serial) for one in messages)
        await trio.sleep(max(one.seconds for one in messages))
        if any(one.fate == "crash" for one in messages):
            raise ValueError("a bug")
        return [Refused() if one.fate == "refuse" else (one.sender, one.serial) for one in messages]


def children(log: list[tuple[str, int, int]]) -> list[ChildSpec | SupervisorSpec]:
    return [
        ChildSpec("plain", lambda: Plain(log)),
        SupervisorSpec(
            "group",
            [
                ChildSpec("small", lambda: Plain(log), capacity=2, drain="all"),
                ChildSpec(
                    "dropping", lambda: Plain(log), capacity=2, overflow="drop_oldest", drain="none"
                ),
            ],
            strategy="rest_for_one",
            intensity=2,
            backoff=Backoff(min_s=0.5, max_s=2, jitter=0.5),
        ),
        ChildSpec("batching", lambda: Batching(log), capacity=4, restart="transient"),
    ]


async def act(supervisor: Supervisor, sender: int, deeds: list[Deed], heard: Counter[str]) -> None:
    """Do `deeds` one after the other, and keep count of what came of them."""
    for serial, deed in enumerate(deeds):
        ref = supervisor.ref(deed.actor)
        message = Item(sender, serial, deed.seconds, deed.fate)
        try:
            match deed.verb:
                case "tell":
                    await ref.tell(message)
                case "tell_nowait":
                    ref.tell_nowait(message)
                case "ask":
                    answer = await ref.ask(message, timeout_s=1.5)
                    assert answer == (sender, serial), "somebody else's answer"
                    assert deed.fate == "answer"
                case "give_up":
                    with trio.move_on_after(deed.seconds / 2):
                        await ref.ask(message)
                case "drill":
                    supervisor.drill(deed.actor)
                case "stop":
                    await supervisor.stop_child(deed.actor)
                case "rest":
                    await trio.sleep(deed.seconds)
        except (ActorCrashed, ActorStopped, AskTimeout, MailboxFull, Refused) as error:
            heard[type(error).__name__] += 1
            heard["refused without reason"] += isinstance(error, Refused) and deed.fate != "refuse"
        heard[deed.verb] += 1


async def run(
    supervise: Supervise, script: list[list[Deed]], host_patience_s: float
) -> list[tuple[str, int, int]]:
    """Play `script`, one list of deeds per sender; `supervise` checks counters at every step."""
    log: list[tuple[str, int, int]] = []
    heard: Counter[str] = Counter()
    statistics: dict[str, Any] = {}
    escalated = False
    with trio.move_on_after(host_patience_s) as patience:
        try:
            async with supervise(
                children(log), intensity=5, backoff=Backoff(min_s=0.1, max_s=1)
            ) as supervisor:
                try:
                    async with trio.open_nursery() as nursery:
                        for sender, deeds in enumerate(script):
                            nursery.start_soon(act, supervisor, sender, deeds, heard)
                finally:
                    statistics["at the end"] = supervisor.statistics
        except SupervisorEscalated:
            escalated = True
    counters = statistics["at the end"]()
    # Each message at most once, and those of one sender to one actor in the order of sending.
    assert len(log) == len(set(log))
    for name in ACTORS:
        for sender in range(len(script)):
            serials = [serial for actor, by, serial in log if (actor, by) == (name, sender)]
            assert serials == sorted(serials), (name, sender, serials)
        taken = [actor for actor, _, _ in log].count(name)
        assert taken == counters[name].done + counters[name].crashed + counters[name].interrupted
    assert not heard["refused without reason"]
    if not escalated and not patience.cancelled_caught:
        # No sender was left waiting: every deed came to its end.
        assert sum(heard[verb] for verb in get_args(Verb)) == sum(len(deeds) for deeds in script)
    return log


def play(
    supervise: Supervise, script: list[list[Deed]], patience_s: float
) -> list[tuple[str, int, int]]:
    return trio.run(run, supervise, script, patience_s, clock=MockClock(autojump_threshold=0))


deeds = st.builds(
    Deed,
    verb=st.sampled_from(OFTEN),
    actor=st.sampled_from(ACTORS),
    seconds=st.sampled_from([0.0, 0.0, 0.5, 1.0, 7.0]),
    fate=st.sampled_from(["answer", "answer", "answer", "refuse", "crash"]),
)


@settings(
    max_examples=150,
    derandomize=True,
    database=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture
    ],  # the fixture is a stateless function
)
@given(
    script=st.lists(st.lists(deeds, max_size=12), min_size=1, max_size=5),
    patience_s=st.sampled_from([0.6, 3.0, 10_000.0]),
)
def test_every_message_has_one_end_and_runs_at_most_once_in_its_senders_order(
    supervise: Supervise, script: list[list[Deed]], patience_s: float
) -> None:
    play(supervise, script, patience_s)


def random_script(seed: int) -> list[list[Deed]]:
    rng = random.Random(seed)
    return [
        [
            Deed(
                # Stopping is final, so it has to be rare for anything else to happen.
                "stop" if rng.random() < 0.01 else rng.choice(OFTEN),
                rng.choice(ACTORS),
                rng.choice([0.0, 0.0, 0.3, 1.0, 6.0]),
                rng.choice(["answer"] * 6 + ["refuse", "crash"]),  # type: ignore[arg-type]
            )
            for _ in range(rng.randrange(40))
        ]
        for _ in range(rng.randrange(1, 8))
    ]


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_the_promises_hold_for_long_random_scripts_with_stops(
    supervise: Supervise, first: int
) -> None:
    taken = sum(
        len(play(supervise, random_script(seed), 10_000.0)) for seed in range(first, first + 50)
    )
    assert taken > 1_000
