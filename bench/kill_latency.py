"""How long after the kill switch is pulled is the engine told to stop?

From the call of `engage` to the first line of `stop_all`, in a fund that ticks without a pause, at
moments spread over the tick. The engine is the worst that can be: its feeds and fills hang, and so
does each `stop_all` until the next engagement, so a stop that waited for any of them would never
begin. The switch is released after each measurement.

RAW is the least that can be called telling: a trio task that is started and notes the time. The
figures are over all engagements: the CPU time of the process until `stop_all` began, and the wall
time, which also has the syncs of the marker and the load of the machine. A fund without strategies
shows the share of the tick.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import trio

from fundops.config import FundConfig
from fundops.fund import Fund
from fundops.wire.controller import FeedStatus, Fill, KillAction, StopReport, StrategyStatus

from .harness import Case, Figure, Result, Stopwatch, machine, measure, percentile

__all__ = ["QUESTION", "RAW", "HangingEngine", "run"]

QUESTION = (
    "How long after the kill switch is pulled is the engine told to stop, "
    "against the start of a bare trio task (RAW; ratio above 1 is quicker)?"
)
RAW = "RAW: start of a trio task"

STRATEGIES = 10_000
ENGAGEMENTS = 40
REPETITIONS = 3
SEED = 1


class Moment:
    """An instant of wall time and of this process's CPU time."""

    def __init__(self) -> None:
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()

    def since_ms(self, called: Moment) -> Latency:
        """Both times since then."""
        wall_s, cpu_s = self._wall_s - called._wall_s, self._cpu_s - called._cpu_s
        return Latency(1e3 * cpu_s, 1e3 * wall_s)


class Latency(NamedTuple):
    """From the call to the start of its effect, in milliseconds."""

    cpu_ms: float
    wall_ms: float


class HangingEngine:
    """An engine of many strategies that trade on, and of calls that do not come back."""

    def __init__(self, strategies: int) -> None:
        self.statuses = [
            StrategyStatus(f"strategy-{number}", "running", equity=10.0, allocated=10.0)
            for number in range(strategies)
        ]
        self.told = trio.Event()  # a stop_all has begun
        self.told_at = Moment()
        self.let_go = trio.Event()

    def strategies(self) -> list[StrategyStatus]:
        """The same statuses each time."""
        return self.statuses

    async def feeds(self) -> list[FeedStatus]:
        """Never answers."""
        await trio.sleep_forever()
        raise AssertionError

    async def fills(self, after: str) -> list[Fill]:
        """Never answers."""
        await trio.sleep_forever()
        raise AssertionError

    async def stop_all(
        self, reason: str, action: KillAction, strategies: Sequence[str]
    ) -> StopReport:
        """Note the time, and hang until `let_go`."""
        if not self.told.is_set():
            self.told_at = Moment()
            self.told.set()
        await self.let_go.wait()
        return StopReport(0, 0)


def run(scale: float = 1.0) -> Result:
    """Measure with `scale` times 10,000 strategies, at most as many, and as many engagements.

    Takes about three minutes at a scale of 1.
    """
    strategies = max(1, round(STRATEGIES * min(scale, 1.0)))
    engagements = max(3, round(ENGAGEMENTS * min(scale, 1.0)))
    latencies: dict[str, list[Latency]] = {}
    none, many = "engage, no strategies", f"engage, {strategies:,} strategies"
    cases = [Case(RAW, engagements, partial(_raw, latencies.setdefault(RAW, [])))] + [
        Case(name, engagements, partial(_engage, latencies.setdefault(name, []), count))
        for name, count in ((none, 0), (many, strategies))
    ]
    rows = measure(cases, repetitions=REPETITIONS, baseline=RAW, by="wall")
    figures = tuple(
        Figure(f"{name}, {kind} p{percent}", percentile(values, percent), "ms")
        for name, measured in latencies.items()
        for kind, values in (
            ("CPU", [latency.cpu_ms for latency in measured]),
            ("wall", [latency.wall_ms for latency in measured]),
        )
        for percent in (50, 99)
    )
    return Result(QUESTION, machine(), rows, figures=figures)


def _raw(latencies: list[Latency], tasks: int, watch: Stopwatch) -> int:
    async def main() -> int:
        begun = 0

        async def begin(called: Moment, told: trio.Event) -> None:
            nonlocal begun
            begun += 1
            latencies.append(Moment().since_ms(called))
            told.set()

        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                told = trio.Event()
                with watch:
                    nursery.start_soon(begin, Moment(), told)
                    await told.wait()
        return begun

    return trio.run(main)


def _engage(latencies: list[Latency], strategies: int, engagements: int, watch: Stopwatch) -> int:
    with tempfile.TemporaryDirectory(prefix="fundops-bench-") as folder:
        config = FundConfig(
            total_capital=100_000,
            db_path=Path(folder) / "fund.db",
            tick_interval_s=None,
            control_socket=False,
            ledger_enabled=True,
            self_healing_enabled=True,
        )
        return trio.run(_engagements, config, strategies, engagements, latencies, watch)


async def _engagements(
    config: FundConfig,
    strategies: int,
    engagements: int,
    latencies: list[Latency],
    watch: Stopwatch,
) -> int:
    engine, moments = HangingEngine(strategies), random.Random(SEED)
    told = 0
    async with Fund.open(config, engine) as fund:
        begun_s = time.perf_counter()
        await fund.tick()
        tick_s = time.perf_counter() - begun_s
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_tick_without_pause, fund)
            for _ in range(engagements):
                await trio.sleep(moments.random() * tick_s)
                engine.told, engine.let_go = trio.Event(), trio.Event()
                with watch:
                    called = Moment()
                    nursery.start_soon(_pull, fund)
                    await engine.told.wait()
                latencies.append(engine.told_at.since_ms(called))
                told += 1
                engine.let_go.set()
                await _released(fund)
            nursery.cancel_scope.cancel()
    return told


async def _pull(fund: Fund) -> None:
    await fund.kill_switch.engage(reason="a bench", by="bench")


async def _tick_without_pause(fund: Fund) -> None:
    while True:
        await fund.tick()


async def _released(fund: Fund) -> Any:
    return await fund.kill_switch.release(by="bench", reason="next", accept_open_orders=True)
