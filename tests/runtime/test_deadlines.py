"""The keeper of deadlines: exact in time, and small however many asks pass through it."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
import trio
from trio.testing import MockClock

from fundops.runtime import Actor, AskTimeout, ChildSpec, Request, Supervisor, handles

Supervise = Callable[..., AbstractAsyncContextManager[Supervisor]]


class Wait(Request[int], frozen=True):
    seconds: float


class Patient(Actor):
    """Answers after as long as it is told to."""

    @handles(Wait)
    async def wait(self, message: Wait) -> int:
        if message.seconds:
            await trio.sleep(message.seconds)
        return 1


async def test_answered_asks_are_forgotten(supervise: Supervise, autojump_clock: MockClock) -> None:
    async with supervise([ChildSpec("patient", Patient)]) as supervisor:
        ref = supervisor.ref("patient")
        for _ in range(500):
            await ref.ask(Wait(0), timeout_s=5)
        lanes = supervisor.deadlines._lanes
        assert list(lanes) == [5]
        assert len(lanes[5]) <= 1


async def test_a_lane_that_is_no_longer_used_goes_away(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise([ChildSpec("patient", Patient)]) as supervisor:
        for number in range(1, 200):
            await supervisor.ref("patient").ask(Wait(0), timeout_s=number / 100)
        await trio.sleep(3)
        assert not supervisor.deadlines._lanes


async def test_each_ask_ends_at_its_own_deadline_whatever_their_order(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    rng = random.Random(7)
    timeouts = [rng.choice((0.5, 1.0, 2.0, rng.uniform(0.1, 3.0))) for _ in range(100)]
    ended: dict[int, float] = {}

    async def ask(number: int, timeout_s: float) -> None:
        await trio.sleep(rng.random())
        begun = trio.current_time()
        with pytest.raises(AskTimeout) as caught:
            await supervisor.ref("patient").ask(Wait(0), timeout_s=timeout_s)
        assert not caught.value.started
        ended[number] = trio.current_time() - begun

    async with (
        supervise([ChildSpec("patient", Patient)]) as supervisor,
        trio.open_nursery() as nursery,
    ):
        supervisor.ref("patient").tell_nowait(Wait(10))
        for number, timeout_s in enumerate(timeouts):
            nursery.start_soon(ask, number, timeout_s)
    assert [ended[number] for number in range(100)] == pytest.approx(timeouts)


async def test_a_late_answer_beats_no_deadline_that_has_not_passed(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise([ChildSpec("patient", Patient)]) as supervisor:
        assert await supervisor.ref("patient").ask(Wait(4.999), timeout_s=5) == 1
        with pytest.raises(AskTimeout) as caught:
            await supervisor.ref("patient").ask(Wait(5.001), timeout_s=5)
        assert caught.value.started
        await trio.sleep(1)
        assert supervisor.statistics()["patient"].late_replies == 1
