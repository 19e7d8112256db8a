"""How much does a call into a fund cost a host that does not run on trio?

The fund runs in a thread of its own. BARE is the physical limit of such a call: one function into
the trio thread by its token, one wake back, and no task, no error handling, no cancellation. A door
does all that. anyio's BlockingPortal is the peer. Both do the same nothing there, so the figures
are those of the way in and out; "to an actor" then asks the recovery actor of the fund.

The stall is that of the fund's tick while the host's own loop is blocked for a second, once asleep
and once spinning in Python, which leaves the fund only every other turn of the interpreter.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import trio

from fundops.asyncio_fund import AsyncioFund
from fundops.config import FundConfig
from fundops.fund import Fund
from fundops.manager import FundManager
from fundops.wire.controller import StrategyStatus

from .harness import Case, Figure, Result, Row, Stopwatch, machine, measure, percentile

__all__ = ["BARE", "QUESTION", "run"]

QUESTION = (
    "How much does a call into a fund cost a host that does not run on trio, "
    "against a bare thread and token (BARE; ratio above 1 is cheaper)?"
)
BARE = "sync: BARE token and lock"
REPETITIONS = 7
STALL_S = 1.0
TICK_S = 0.05

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def run(scale: float = 1.0) -> Result:
    """Run the bench; `scale` 1 takes about 20 s."""
    calls, burst = max(20, round(2_000 * scale)), max(20, round(5_000 * scale))
    figures: list[Figure] = []
    skipped: list[str] = []
    with _manager() as manager, _portal(skipped) as portal:
        token = manager._bridge._token
        assert token is not None
        cases = [
            Case(BARE, calls, lambda n, watch: _bare(n, watch, token)),
            Case("sync: door", calls, lambda n, watch: _sync(n, watch, manager)),
        ]
        if portal is not None:
            cases.append(Case("sync: anyio portal", calls, lambda n, w: _by_portal(n, w, portal)))
        rows = list(measure(cases, repetitions=REPETITIONS, baseline=BARE, by="wall"))
        figures += _latencies("sync: BARE", _timed(calls, lambda: _bare_once(token)))
        figures += _latencies("sync: door", _timed(calls, lambda: manager.wait("", _nothing)))
        if portal is not None:
            figures += _latencies("sync: anyio portal", _timed(calls, lambda: portal.call(_noop)))
        figures += _latencies("sync: to an actor", _timed(calls, manager.recovery.stats))
        figures.append(Figure("a pushed report in a burst", _reported_us(manager, burst), "us"))
    for loop_name, on_loop in _loops(skipped):
        found, more = on_loop(_on_asyncio(loop_name, calls, burst))
        rows += found
        figures += more
    trio_us = trio.run(_on_trio, calls)
    figures += _latencies("trio: to an actor", trio_us)
    for name, block in (("asleep", _sleep), ("spinning", _spin)):
        gap_s = asyncio.run(_stall(block, STALL_S * min(1.0, scale)))
        figures.append(Figure(f"late tick while the host's loop is {name}", gap_s * 1e3, "ms"))
    by_name = {figure.name: figure.value for figure in figures}
    for host in ("sync", *(name for name, _ in _loops([]))):
        ratio = by_name[f"{host}: door p50"] / by_name[f"{host}: BARE p50"]
        figures.append(Figure(f"{host}: p50 of the door over BARE", ratio, "times"))
    return Result(QUESTION, machine(), tuple(rows), tuple(skipped), tuple(figures))


async def _nothing(_: Fund) -> int:
    return 1


async def _noop() -> int:
    return 1


def _config(folder: str, **settings: Any) -> FundConfig:
    defaults: dict[str, Any] = {
        "total_capital": 100_000,
        "db_path": Path(folder) / "fund.db",
        "tick_interval_s": None,
        "control_socket": False,
        "self_healing_enabled": True,
    }
    return FundConfig(**{**defaults, **settings})


@contextmanager
def _manager() -> Iterator[FundManager]:
    with tempfile.TemporaryDirectory() as folder, FundManager(_config(folder)) as manager:
        yield manager


@contextmanager
def _portal(skipped: list[str]) -> Iterator[Any]:
    """anyio's portal into a trio thread; None when anyio is not installed."""
    try:
        from_thread = import_module("anyio.from_thread")
    except ImportError:
        skipped.append("anyio portal: anyio is not installed")
        yield None
        return
    with from_thread.start_blocking_portal(backend="trio") as portal:
        yield portal


def _loops(skipped: list[str]) -> list[tuple[str, Run]]:
    """The event loops to measure on, each with what runs a coroutine on it."""
    loops: list[tuple[str, Run]] = [("asyncio", asyncio.run)]
    try:
        uvloop = import_module("uvloop")
    except ImportError:
        skipped.append("uvloop: it is not installed")
    else:
        loops.append(("uvloop", uvloop.run))
    return loops


# -- a synchronous host


def _bare_once(token: trio.lowlevel.TrioToken) -> int:
    answered = threading.Lock()
    answered.acquire()
    token.run_sync_soon(answered.release)
    answered.acquire()
    return 1


def _bare(count: int, watch: Stopwatch, token: trio.lowlevel.TrioToken) -> int:
    with watch:
        return sum(_bare_once(token) for _ in range(count))


def _sync(count: int, watch: Stopwatch, manager: FundManager) -> int:
    with watch:
        return sum(manager.wait("", _nothing) for _ in range(count))


def _by_portal(count: int, watch: Stopwatch, portal: Any) -> int:
    with watch:
        return sum(portal.call(_noop) for _ in range(count))


def _timed(count: int, call: Callable[[], object]) -> list[float]:
    """The time of each call in microseconds."""
    taken_us = []
    for _ in range(count):
        begun = time.perf_counter()
        call()
        taken_us.append((time.perf_counter() - begun) * 1e6)
    return taken_us


def _reported_us(manager: FundManager, burst: int) -> float:
    """The time of one `report`, of `burst` in a row: the push of a host that waits for nothing."""
    status = StrategyStatus("s", "running", equity=1_000.0, allocated=1_000.0)
    begun = time.perf_counter()
    for _ in range(burst):
        manager.report(status)
    return (time.perf_counter() - begun) * 1e6 / burst


def _latencies(name: str, taken_us: Sequence[float]) -> list[Figure]:
    return [
        Figure(f"{name} p50", percentile(taken_us, 50), "us"),
        Figure(f"{name} p99", percentile(taken_us, 99), "us"),
    ]


# -- a host on asyncio


async def _on_asyncio(name: str, calls: int, burst: int) -> tuple[list[Row], list[Figure]]:
    """Round trips and bursts of one host's loop."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncioFund.open(_config(folder)) as fund:
            token = fund._bridge._token
            assert token is not None
            loop = asyncio.get_running_loop()

            async def bare() -> None:
                future = loop.create_future()
                token.run_sync_soon(loop.call_soon_threadsafe, future.set_result, 1)
                await future

            with _portal([]) as portal:
                waits: dict[str, Callable[[], Any]] = {
                    "BARE": bare,
                    "door": lambda: fund.post(_nothing),
                    "to an actor": fund.recovery.stats,
                }
                if portal is not None:
                    waits["anyio portal"] = lambda: asyncio.wrap_future(
                        portal.start_task_soon(_noop)
                    )
                for case, wait in waits.items():
                    taken_us = await _awaited(calls, wait)
                    figures += _latencies(f"{name}: {case}", taken_us)
                del waits["to an actor"]
                rows = await _bursts(name, burst, waits)
    return rows, figures


async def _awaited(count: int, wait: Callable[[], Any]) -> list[float]:
    taken_us = []
    for _ in range(count):
        begun = time.perf_counter()
        await wait()
        taken_us.append((time.perf_counter() - begun) * 1e6)
    return taken_us


async def _bursts(name: str, burst: int, waits: dict[str, Callable[[], Any]]) -> list[Row]:
    """`burst` calls at once, awaited together: CPU time and rate of each way."""
    rows = []
    for case, wait in waits.items():
        watches = []
        for turn in range(REPETITIONS + 1):
            watch = Stopwatch()
            with watch:
                await asyncio.gather(*(wait() for _ in range(burst)))
            if turn:
                watches.append(watch)
        cpu_us = sorted(watch.cpu_s * 1e6 / burst for watch in watches)
        rows.append(
            Row(
                f"{name}: burst, {case}",
                burst,
                REPETITIONS,
                sorted(burst / watch.wall_s for watch in watches)[REPETITIONS // 2],
                cpu_us[REPETITIONS // 2],
                cpu_us[-1],
                None,
                burst,
            )
        )
    return rows


async def _on_trio(calls: int) -> list[float]:
    """Round trips of a host that runs on trio, where no thread is between."""
    taken_us = []
    with tempfile.TemporaryDirectory() as folder:
        async with Fund.open(_config(folder)) as fund:
            for _ in range(calls):
                begun = time.perf_counter()
                await fund.recovery.stats()
                taken_us.append((time.perf_counter() - begun) * 1e6)
    return taken_us


# -- a host that blocks


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


def _spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


async def _stall(block: Callable[[float], None], seconds: float) -> float:
    """How much later than planned the latest tick came while the host's loop was blocked."""
    ticked_s: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncioFund.open(_config(folder, tick_interval_s=TICK_S, lease_s=1)) as fund:

            async def note(trio_fund: Fund) -> None:
                seen = 0
                while True:
                    ticks = (await trio_fund.status()).ticks
                    if ticks != seen:
                        seen = ticks
                        ticked_s.append(time.perf_counter())
                    await trio.sleep(TICK_S / 20)

            noting = asyncio.create_task(fund.post(note))
            await asyncio.sleep(4 * TICK_S)
            begun = time.perf_counter()
            block(seconds)
            ended = time.perf_counter()
            noting.cancel()
            await asyncio.wait([noting])
    during = [
        begun - TICK_S,
        *(at_s for at_s in ticked_s if begun - TICK_S <= at_s <= ended),
        ended,
    ]
    gaps = [later - earlier for earlier, later in pairwise(during)]
    return max(0.0, max(gaps) - TICK_S)
