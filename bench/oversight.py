"""How much does a tick cost with few and with many strategies, and how much a session's end?

The fund is whole: actors, database, ledger. A plain tick reads the engine, in which the figures of
every strategy have changed, has the guard judge them, and books nothing. A tick that ends a session
is measured with 200 strategies, 100 sessions of P&L behind it and a position of each in the book:
it adds the marks, the sample of promotion, correlation and value at risk. All of these are CPU time
of all threads. The replay is that of the demo, with the ledger durable, in wall time.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

from fundops.config import FundConfig
from fundops.fund import Fund
from fundops.replay.demo import Options, run_demo
from fundops.replay.prices import SYMBOLS, bundled
from fundops.runtime import VirtualClock
from fundops.wire.controller import Fill, StrategyStatus

from .harness import Case, Figure, Result, Stopwatch, machine, measure

__all__ = ["QUESTION", "run"]

QUESTION = "What does a tick cost, with few and with many strategies, and what a session's end?"

BEGUN_US = 1_767_571_200_000_000  # 2026-01-05 00:00 UTC
DAY_S = 86_400
FEW, MANY, MOST = 10, 1_000, 10_000
SESSION_OF = 200  # strategies
LOOKBACK = 100  # sessions
REPLAY_SESSIONS = 5_031  # twenty years
SEED = 1
TICKS = 5
REPETITIONS = 5


class _Engine:
    """Strategies whose figures change before each tick."""

    def __init__(self, count: int) -> None:
        self._moves = 0
        self._fills = [
            Fill(
                str(number),
                f"s{number}",
                "X",
                Decimal(1),
                Decimal(10),
                Decimal(0),
                at_us=BEGUN_US,
                cursor=str(number + 1),
            )
            for number in range(count)
        ]
        self._statuses = [
            StrategyStatus(f"s{i}", "running", 10_000.0, 10_000.0) for i in range(count)
        ]

    def strategies(self) -> list[StrategyStatus]:
        """The statuses of now."""
        return self._statuses

    def fills(self, after: str) -> list[Fill]:
        """One position for each strategy."""
        return self._fills[int(after or 0) :]

    def move(self) -> None:
        """Change the P&L of every strategy, each in its own way."""
        self._moves += 1
        self._statuses = [
            msgspec.structs.replace(
                status,
                realized_pnl=(number * 7_919 + self._moves * (31 + number)) % 200 / 1.0,
                unrealized_pnl=(number * 31 + self._moves * 17) % 100 / 8.0,
            )
            for number, status in enumerate(self._statuses)
        ]


@asynccontextmanager
async def _fund(count: int) -> AsyncIterator[tuple[Fund, _Engine, VirtualClock]]:
    engine, clock = _Engine(count), VirtualClock(BEGUN_US)
    with tempfile.TemporaryDirectory() as folder:
        config = FundConfig(
            total_capital=10_000 * count,
            db_path=Path(folder) / "fund.db",
            tick_interval_s=None,
            control_socket=False,
            ledger_enabled=True,
            max_strategy_drawdown_pct=100,
            max_fund_drawdown_pct=100,
        )
        async with Fund.open(config, engine, clock=clock, seed=SEED) as fund:
            await fund.tick()  # books the positions
            yield fund, engine, clock


def _plain(count: int, ticks: int, watch: Stopwatch) -> int:
    """The number of steps that failed in these ticks, none."""

    async def main() -> int:
        failed = 0
        async with _fund(count) as (fund, engine, clock):
            for number in range(ticks + 1):
                engine.move()
                clock.advance(1)
                if not number:  # the first one has new peaks to store
                    await fund.tick()
                    continue
                with watch:
                    failed += len((await fund.tick()).failed)
        return failed

    return trio.run(main)


def _sessions(count: int, lookback: int) -> list[float]:
    """CPU milliseconds of ticks that end a session, after so many sessions."""

    async def main() -> list[float]:
        taken = []
        async with _fund(count) as (fund, engine, clock):
            for number in range(lookback + TICKS):
                engine.move()
                clock.advance(DAY_S)
                watch = Stopwatch()
                with watch:
                    report = await fund.tick()
                assert len(report.sessions) == 1
                assert report.failed == ()
                if number >= lookback:
                    taken.append(watch.cpu_s * 1_000)
        return taken

    return trio.run(main)


def _replay(sessions: int) -> tuple[float, Any]:
    """Seconds of the demo's replay, and its report."""

    async def main() -> tuple[float, Any]:
        with tempfile.TemporaryDirectory() as folder:
            bars = {symbol: bundled(symbol) for symbol in SYMBOLS}
            start = bars[SYMBOLS[0]][0].day
            options = Options(bars, start, sessions, SEED, Path(folder) / "demo.db")
            begun = time.perf_counter()
            report = await run_demo(options)
            return time.perf_counter() - begun, report

    return trio.run(main)


def run(scale: float = 1.0) -> Result:
    """Run the bench; `scale` 1 takes about two minutes, half of them for the replay."""
    sizes = [FEW, max(FEW, round(MANY * scale)), max(FEW, round(MOST * scale))]
    cases = [
        Case(f"tick of {count:,} strategies", TICKS, partial(_plain, count))
        for count in dict.fromkeys(sizes)
    ]
    rows = measure(cases, repetitions=REPETITIONS if scale >= 1 else 1)
    count, lookback = max(FEW, round(SESSION_OF * scale)), max(25, round(LOOKBACK * scale))
    session_ms = statistics.median(_sessions(count, lookback))
    sessions = max(20, round(REPLAY_SESSIONS * scale))
    replay_s, report = _replay(sessions)
    return Result(
        QUESTION,
        machine(),
        rows,
        figures=(
            Figure(f"end of a session, {count:,} strategies", session_ms, "ms of CPU"),
            Figure(f"replay of {report.sessions:,} sessions", replay_s, "s"),
        ),
    )
