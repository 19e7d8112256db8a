"""How soon after a crash is the next message served, and what does it cost to spawn an actor?

A unit is a crash in the first two rows, and an actor or a task in the others. The ratio is to the
RAW row above.

A crash here is a message whose handler raises. All messages are queued before the first one is
handled, and each crash is followed by a message that the next life has to serve. The supervisor
restarts without backoff and never gives up. RAW is the least that can be called a restart: in one
nursery a task serves a message, raises, catches the error at its root and tells the task that
started it, which starts the next one. A nursery for each task, needed to let an exception out of
it, would cost three times as much and flatter our figures.

An actor is spawned with its spec and mailbox, serves one message, and is stopped in its turn, in
reverse order of the starts. A bare task is started, runs until it parks, and is cancelled together
with all others. The figures of growth say how much more each costs among ten times as many. Peers
run with the smaller number; pykka with still fewer, because each of its actors is a thread.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import trio

from fundops.runtime import Actor, Backoff, ChildSpec, Request, handles, open_supervisor

from .harness import Case, Figure, Result, Row, Stopwatch, machine, measure

__all__ = ["CRASHED", "QUESTION", "RAW", "run"]

QUESTION = (
    "How soon after a crash is the next message served, "
    "and what do spawning and stopping an actor cost, "
    "against bare trio tasks (RAW; ratio above 1 is cheaper)?"
)
RAW = "RAW: trio task started, crashed, awaited"
CRASHED = "crash to next message"

CRASHES = 5_000
CHILDREN = 1_000
GROWTH = 10
# At smoke size there are still a first, a last and several between.
CHILDREN_MIN = 16
THREADS = 100
REPETITIONS = 7
# Fewer for the larger number of children, where one repetition takes seconds.
REPETITIONS_OF_MANY = 3
NEVER = 10**9


class Crash(Request[None], frozen=True):
    """Crash the actor."""


class Serve(Request[None], frozen=True):
    """Count one message as served."""


CRASH = Crash()
SERVE = Serve()


class Crashed(Exception):
    """The error with which the actors of this bench crash."""


class Record:
    """The count of messages still to serve, and the checksum. It outlives the actors."""

    def __init__(self, expected: int) -> None:
        self.left = expected
        self.complete = trio.Event()
        self.checksum = 0

    def note_served(self) -> None:
        """Count one message; the last one sets `complete`."""
        self.left -= 1
        if not self.left:
            self.complete.set()


class Fragile(Actor):
    """Crashes when told to.

    A life that follows a crash adds 1 to the checksum with the first message that it serves.
    """

    messages = Crash | Serve

    def __init__(self, record: Record) -> None:
        self.record = record
        self.served = 0

    @handles(Crash)
    def crash(self, message: Crash) -> None:
        """Raise an error that is no refusal."""
        raise Crashed

    @handles(Serve)
    def serve(self, message: Serve) -> None:
        """Count the message."""
        self.record.checksum += self.context.epoch > 1 and not self.served
        self.served += 1
        self.record.note_served()


class Child(Actor):
    """Adds the number of messages it has served to the checksum when it is stopped."""

    messages = Serve

    def __init__(self, record: Record) -> None:
        self.record = record
        self.served = 0

    @handles(Serve)
    def serve(self, message: Serve) -> None:
        """Count the message."""
        self.served += 1
        self.record.note_served()

    async def on_stop(self, reason: str) -> None:
        """Add the count to the checksum."""
        self.record.checksum += self.served


def run(scale: float = 1.0) -> Result:
    """Measure all cases with `scale` times the usual number of crashes.

    Takes about fifteen seconds at a scale of 1. Below 1 there are fewer children too. Above 1 there
    are not more, since the question is about 1,000 and 10,000.
    """
    few = max(CHILDREN_MIN, round(CHILDREN * min(scale, 1.0)))
    many = GROWTH * few
    threads = min(THREADS, few)
    raw_few, raw_many = f"RAW: {few:,} trio tasks", f"RAW: {many:,} trio tasks"
    spawned_few, spawned_many = (
        f"spawn and stop, {few:,} children",
        f"spawn and stop, {many:,} children",
    )
    crashes = max(CHILDREN_MIN, round(CRASHES * scale))
    of_crashes = [Case(RAW, crashes, _raw_crashes), Case(CRASHED, crashes, _crashes)]
    of_few = [
        Case(raw_few, few, _raw_tasks),
        Case(spawned_few, few, _spawn_and_stop),
        Case(f"asyncio.TaskGroup, {few:,} tasks", few, _asyncio_tasks),
    ]
    of_many = [Case(raw_many, many, _raw_tasks), Case(spawned_many, many, _spawn_and_stop)]
    skipped = []
    try:
        import pykka
    except ImportError as missing:
        skipped.append(f"pykka start and stop: {missing}")
    else:
        of_few.append(
            Case(f"pykka start and stop, {threads} actors", threads, partial(_pykka_actors, pykka))
        )
    with _own_garbage_only():
        rows = (
            *measure(of_crashes, repetitions=REPETITIONS, baseline=RAW),
            *measure(of_few, repetitions=REPETITIONS, baseline=raw_few),
            *measure(of_many, repetitions=REPETITIONS_OF_MANY, baseline=raw_many),
        )
    by_name = {row.name: row for row in rows}
    figures = (
        Figure(
            "crashes served per second of CPU time", 1e6 / by_name[CRASHED].cpu_us_per_message, "/s"
        ),
        Figure(f"spawn and stop at {few:,}", by_name[spawned_few].cpu_us_per_message, "us/actor"),
        Figure(f"spawn and stop at {many:,}", by_name[spawned_many].cpu_us_per_message, "us/actor"),
        Figure(
            f"growth from {few:,} to {many:,}",
            _growth(by_name[spawned_few], by_name[spawned_many]),
            "x",
        ),
        Figure("growth of a bare trio nursery", _growth(by_name[raw_few], by_name[raw_many]), "x"),
    )
    return Result(QUESTION, machine(), rows, tuple(skipped), figures)


@contextmanager
def _own_garbage_only() -> Iterator[None]:
    """Let the garbage collector look only at objects made inside the block.

    One look at all modules costs as much as hundreds of tasks, and would fall on any one case by
    chance.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _growth(few: Row, many: Row) -> float:
    """The cost of one unit among many, divided by the cost of one among few."""
    return many.cpu_us_per_message / few.cpu_us_per_message


# -- crashes


def _raw_crashes(crashes: int, watch: Stopwatch) -> int:
    async def main() -> int:
        served = 0

        async def live(ended: trio.Event) -> None:
            nonlocal served
            try:
                served += 1
                raise Crashed
            except Crashed:
                ended.set()

        with watch:
            async with trio.open_nursery() as nursery:
                for _ in range(crashes):
                    ended = trio.Event()
                    nursery.start_soon(live, ended)
                    await ended.wait()
        return served

    return trio.run(main)


def _crashes(crashes: int, watch: Stopwatch) -> int:
    async def main() -> int:
        record = Record(crashes)
        spec = ChildSpec("fragile", partial(Fragile, record), capacity=2 * crashes)
        patient = open_supervisor(
            [spec], intensity=NEVER, max_consecutive=NEVER, backoff=Backoff(min_s=0.0, max_s=0.0)
        )
        async with patient as supervisor:
            fragile = supervisor.ref("fragile")
            with watch:
                for _ in range(crashes):
                    fragile.tell_nowait(CRASH)
                    fragile.tell_nowait(SERVE)
                await record.complete.wait()
        return record.checksum

    return trio.run(main)


# -- spawning and stopping


def _raw_tasks(tasks: int, watch: Stopwatch) -> int:
    async def main() -> int:
        parked = trio.Event()
        started = cancelled = 0

        async def live() -> None:
            nonlocal started, cancelled
            started += 1
            if started == tasks:
                # The waiting task resumes in the next tick, and this task parks in this one.
                parked.set()
            try:
                await trio.sleep_forever()
            finally:
                cancelled += 1

        with watch:
            async with trio.open_nursery() as nursery:
                for _ in range(tasks):
                    nursery.start_soon(live)
                await parked.wait()
                nursery.cancel_scope.cancel()
        return cancelled

    return trio.run(main)


def _spawn_and_stop(children: int, watch: Stopwatch) -> int:
    async def main() -> int:
        record = Record(children)
        with watch:
            specs = [
                ChildSpec(f"child {number}", partial(Child, record)) for number in range(children)
            ]
            async with open_supervisor(specs) as supervisor:
                for spec in specs:
                    supervisor.ref(spec.name).tell_nowait(SERVE)
                await record.complete.wait()
        return record.checksum

    return trio.run(main)


# -- peers


def _asyncio_tasks(tasks: int, watch: Stopwatch) -> int:
    async def main() -> int:
        forever, parked = asyncio.Event(), asyncio.Event()
        started = cancelled = 0

        async def live() -> None:
            nonlocal started, cancelled
            started += 1
            if started == tasks:
                parked.set()
            try:
                await forever.wait()
            finally:
                cancelled += 1

        with watch:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(live()) for _ in range(tasks)]
                await parked.wait()
                for task in running:
                    task.cancel()
        return cancelled

    return asyncio.run(main())


def _pykka_actors(pykka: Any, actors: int, watch: Stopwatch) -> int:
    served = 0

    class PykkaChild(pykka.ThreadingActor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.served = 0

        def on_receive(self, message: Serve) -> None:
            self.served += 1

        def on_stop(self) -> None:
            nonlocal served
            served += self.served  # no race: each actor is waited for before the next is stopped

    with watch:
        running = [PykkaChild.start() for _ in range(actors)]
        for actor in running:
            actor.tell(SERVE)
        for actor in reversed(running):
            actor.stop()
    return served
