"""How much does a message cost through a mailbox, against a bare trio channel?

The mailbox fulfils its full contract. RAW is one producer awaiting `send` and one consumer awaiting
`receive` on a trio memory channel of 128. All cases move the same ready-made message and add up its
amount; an actor does so in its handler. Burst and paced appear side by side because batching
flatters a runtime: paced sends one message per tick, as a quiet system does. Peers run in the same
run.

A Ray actor is a separate process, reached through further processes. Its rows show only the CPU
time of this process, so they have no ratio; two figures compare wall time instead. Ray runs last,
when it is installed, so that its threads do not add to the CPU time of other cases. It leaves a log
in the temporary folder, and a token in ~/.ray.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import trio

from fundops.runtime import Actor, ChildSpec, Ref, Request, handles, open_supervisor

from .harness import Case, Figure, Result, Row, Stopwatch, machine, measure

__all__ = ["QUESTION", "RAW", "run"]

QUESTION = (
    "How much does a message cost through a mailbox, "
    "against a bare trio channel (RAW; ratio above 1 is cheaper)?"
)
RAW = "RAW: trio channel of 128"

# The buffer of the baseline. The same number bounds every other queue that makes its sender wait.
CAPACITY = 128
# As many messages as an actor handles between two schedule points, so sender and actor alternate.
BURST = 64
CALLERS = 64
PRODUCERS = 8
REPETITIONS = 7


class Add(Request[int], frozen=True):
    """Add `amount` to the total."""

    amount: int


class Total(Request[int], frozen=True):
    """Answer the sum so far. Sent last, its answer proves that all earlier messages are done."""


ONE = Add(1)
TOTAL = Total()


class Tally(Actor):
    """An actor that does as little work as can be checked afterwards."""

    messages = Add | Total

    def __init__(self) -> None:
        self.total = 0

    @handles(Add)
    def add(self, message: Add) -> int:
        """Add the amount, and answer it."""
        self.total += message.amount
        return message.amount

    @handles(Total)
    def sum(self, message: Total) -> int:
        """Answer the sum of all amounts so far."""
        return self.total


Drive = Callable[[Ref, int], Awaitable[int]]


def run(scale: float = 1.0) -> Result:
    """Measure all cases with `scale` times the usual number of messages.

    Takes about ten seconds at a scale of 1, and as long again with Ray.
    """

    def count(usual: int) -> int:
        # A multiple of every group size, so that each sender sends the same number.
        return max(BURST, round(usual * scale / BURST) * BURST)

    cases = [
        Case(RAW, count(50_000), _raw),
        Case("tell, burst", count(100_000), partial(_with_actor, _tell_burst)),
        Case("tell, paced", count(50_000), partial(_with_actor, _tell_paced)),
        Case(
            "tell, awaited with backpressure", count(100_000), partial(_with_actor, _tell_awaited)
        ),
        Case(
            "tell, 8 producers with backpressure",
            count(100_000),
            partial(_with_actor, _tell_together),
        ),
        Case("ask, one caller", count(20_000), partial(_with_actor, _ask_alone)),
        Case("ask, 64 callers", count(20_000), partial(_with_actor, _ask_together)),
        Case("asyncio.Queue of 128", count(50_000), _asyncio_queue),
    ]
    skipped = []
    try:
        import pykka
    except ImportError as missing:
        skipped.append(f"pykka tell, pykka ask: {missing}")
    else:
        cases.append(Case("pykka tell", count(20_000), partial(_pykka_tell, pykka)))
        cases.append(Case("pykka ask", count(5_000), partial(_pykka_ask, pykka)))
    rows = measure(cases, repetitions=REPETITIONS, baseline=RAW)
    figures: tuple[Figure, ...] = ()
    try:
        # Not an import statement, for which a type checker would need Ray installed and read all of
        # it.
        ray = import_module("ray")
    except ImportError as missing:
        skipped.append(f"Ray tell, Ray ask: {missing}")
    else:
        of_ray = _ray_rows(ray, tells=count(1_024), asks=count(256))
        figures = tuple(
            Figure(f"{row.name}, wall time over RAW", rows[0].per_s / row.per_s, "x")
            for row in of_ray
        )
        rows += of_ray
    return Result(QUESTION, machine(), rows, tuple(skipped), figures)


# -- the baseline


def _raw(messages: int, watch: Stopwatch) -> int:
    async def main() -> int:
        sender, receiver = trio.open_memory_channel[Add](CAPACITY)
        total = 0

        async def produce() -> None:
            async with sender:
                for _ in range(messages):
                    await sender.send(ONE)

        with watch:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(produce)
                # Without `async for`, which would add a frame to each message.
                try:
                    while True:
                        total += (await receiver.receive()).amount
                except trio.EndOfChannel:
                    receiver.close()
        return total

    return trio.run(main)


# -- actors


def _with_actor(drive: Drive, messages: int, watch: Stopwatch) -> int:
    async def main() -> int:
        async with open_supervisor([ChildSpec("tally", Tally, capacity=CAPACITY)]) as supervisor:
            with watch:
                return await drive(supervisor.ref("tally"), messages)

    return trio.run(main)


async def _tell_burst(tally: Ref, messages: int) -> int:
    for _ in range(messages // BURST):
        for _ in range(BURST):
            tally.tell_nowait(ONE)
        await trio.lowlevel.checkpoint()
    return await tally.ask(TOTAL)


async def _tell_paced(tally: Ref, messages: int) -> int:
    for _ in range(messages):
        tally.tell_nowait(ONE)
        await trio.lowlevel.checkpoint()
    return await tally.ask(TOTAL)


async def _tell_awaited(tally: Ref, messages: int) -> int:
    for _ in range(messages):
        await tally.tell(ONE)
    return await tally.ask(TOTAL)


async def _tell_together(tally: Ref, messages: int) -> int:
    async def produce() -> None:
        for _ in range(messages // PRODUCERS):
            await tally.tell(ONE)

    async with trio.open_nursery() as nursery:
        for _ in range(PRODUCERS):
            nursery.start_soon(produce)
    return await tally.ask(TOTAL)


async def _ask_alone(tally: Ref, messages: int) -> int:
    total = 0
    for _ in range(messages):
        total += await tally.ask(ONE)
    return total


async def _ask_together(tally: Ref, messages: int) -> int:
    total = 0

    async def call() -> None:
        nonlocal total
        for _ in range(messages // CALLERS):
            answer = await tally.ask(ONE)
            total += answer

    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(call)
    return total


# -- peers


def _asyncio_queue(messages: int, watch: Stopwatch) -> int:
    async def main() -> int:
        queue: asyncio.Queue[Add] = asyncio.Queue(CAPACITY)

        async def produce() -> None:
            for _ in range(messages):
                await queue.put(ONE)

        total = 0
        with watch:
            producer = asyncio.create_task(produce())
            for _ in range(messages):
                total += (await queue.get()).amount
            await producer
        return total

    return asyncio.run(main())


def _pykka_tell(pykka: Any, messages: int, watch: Stopwatch) -> int:
    tally = _pykka_tally(pykka)
    try:
        with watch:
            for _ in range(messages):
                tally.tell(ONE)
            return int(tally.ask(TOTAL))
    finally:
        tally.stop()


def _pykka_ask(pykka: Any, messages: int, watch: Stopwatch) -> int:
    tally = _pykka_tally(pykka)
    try:
        with watch:
            return sum(tally.ask(ONE) for _ in range(messages))
    finally:
        tally.stop()


def _pykka_tally(pykka: Any) -> Any:
    """The same actor in pykka, which gives it a thread and an unbounded mailbox."""

    class PykkaTally(pykka.ThreadingActor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.total = 0

        def on_receive(self, message: Add | Total) -> int:
            if isinstance(message, Total):
                return self.total
            self.total += message.amount
            return message.amount

    return PykkaTally.start()


def _ray_rows(ray: Any, *, tells: int, asks: int) -> tuple[Row, ...]:
    with _ray_tally(ray) as tally:
        cases = [
            Case("Ray tell", tells, partial(_ray_tell, ray, tally)),
            Case("Ray ask", asks, partial(_ray_ask, ray, tally)),
        ]
        return measure(cases, repetitions=REPETITIONS)


@contextmanager
def _ray_tally(ray: Any) -> Iterator[Any]:
    """The same actor in Ray, which gives it a process.

    It serves all rounds, because Ray takes seconds to start. Usage reports are off and the address
    is local, so nothing leaves the machine.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
    )
    try:
        yield ray.remote(RayTally).remote()
    finally:
        ray.shutdown()


class RayTally:
    """The actor `Tally` for Ray, with one method for each message. It lives through all rounds."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, message: Add) -> int:
        """Add the amount, and answer it."""
        self.total += message.amount
        return message.amount

    def sum(self, message: Total) -> int:
        """Answer the sum of all amounts so far."""
        return self.total


def _ray_tell(ray: Any, tally: Any, messages: int, watch: Stopwatch) -> int:
    before = ray.get(tally.sum.remote(TOTAL))
    with watch:
        for _ in range(messages):
            tally.add.remote(ONE)
        return int(ray.get(tally.sum.remote(TOTAL)) - before)


def _ray_ask(ray: Any, tally: Any, messages: int, watch: Stopwatch) -> int:
    with watch:
        return sum(ray.get(tally.add.remote(ONE)) for _ in range(messages))
