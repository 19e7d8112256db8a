"""What does one transition cost, and what do ten thousand strategies cost a fund?

Each strategy has sixty measured sessions and a gate of five criteria that passes. *Look* is the
promotion actor's judgement of all of them within a tick, in pieces between which other tasks run;
its figures are CPU time. *Start* is a fund that opens a file of them in a new process. A
transition is a demotion by the promotion actor with its line of history, durable before the reply;
BARE commits the same rows through apsw, and the two take turns. In the race two processes promote
the same strategies of one file with the same revision; each strategy must end with one line of
history.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import trio

from fundops.actors.host import Host
from fundops.actors.persistence import PersistenceActor, Reader, Store, commit_batch, open_database
from fundops.actors.promotion import PromotionActor, policy_of, schema
from fundops.actors.promotion.capital import Capital
from fundops.actors.promotion.core import demoted, registered
from fundops.actors.promotion.evidence import seen, session_ended
from fundops.actors.promotion.strategy import Change, Strategy
from fundops.actors.promotion.track import Reading
from fundops.config import FundConfig
from fundops.file.database import MIGRATIONS
from fundops.fund import Fund
from fundops.promotion import PromotionManager
from fundops.runtime import DAY_US, ChildSpec, Ref, VirtualClock, open_supervisor
from fundops.testing import FakeController
from fundops.wire.controller import StrategyStatus
from fundops.wire.errors import StaleRevision
from fundops.wire.persistence import Committed, Statement
from fundops.wire.promotion import Demote, Observe, PromotionStage

from .harness import Case, Figure, Result, Stopwatch, machine, measure, percentile

__all__ = [
    "LOOK",
    "QUESTION",
    "open_fund",
    "promote_all",
    "run",
]

QUESTION = "What does one transition cost, and what do ten thousand strategies cost a fund?"
LOOK = "look of the actor: all of them"

STRATEGIES = 10_000
TRANSITIONS = 300
RACED = 1_000
SESSIONS = 60
REPETITIONS = 5
BEGUN_US = 1_700_000_000_000_000
NOW_US = BEGUN_US + SESSIONS * DAY_US
POLICY = policy_of("guarded")
CAPITAL = Capital(10**9 * 10**8, None)
DEADLINE_S = 60


def run(scale: float = 1.0) -> Result:
    """Measure with `scale` times ten thousand strategies.

    Takes about a minute at a scale of 1.
    """
    count = max(20, round(STRATEGIES * scale))
    moves = max(10, round(TRANSITIONS * scale))
    raced = max(10, round(RACED * scale))
    strategies = _strategies(count, PromotionStage.Shadow)
    pieces_ms: list[float] = []
    with tempfile.TemporaryDirectory(prefix="fundops-bench-") as folder:
        path = Path(folder) / "fund.db"
        _seed(path, strategies)
        rows = measure(
            [Case(LOOK, count, partial(_look, path, pieces_ms))],
            repetitions=REPETITIONS,
        )
        start = _in_process("open_fund", str(path))
        bare_s, transition_s = _transitions(Path(folder) / "moves.db", moves)
        race_s = _race(Path(folder) / "race.db", raced)
    return Result(
        QUESTION,
        machine(),
        rows,
        figures=(
            Figure("look, CPU of all", rows[0].cpu_us_per_message * count / 1e6, "s"),
            Figure("piece of a look p99", percentile(pieces_ms, 99), "ms"),
            Figure("piece of a look, longest", max(pieces_ms), "ms"),
            Figure(f"start with {count:,} strategies", start["wall_s"], "s"),
            Figure("start, CPU", start["cpu_s"], "s"),
            Figure("start, memory", start["rss_mib"], "MiB"),
            Figure("bare commit p50", 1e3 * percentile(bare_s, 50), "ms"),
            Figure("transition p50", 1e3 * percentile(transition_s, 50), "ms"),
            Figure("transition p99", 1e3 * percentile(transition_s, 99), "ms"),
            Figure(
                "transition over bare commit, p50",
                percentile(transition_s, 50) / percentile(bare_s, 50),
                "x",
            ),
            Figure(f"race of two for {raced:,} promotions", raced / race_s, "per s"),
        ),
    )


# -- strategies


def _strategies(count: int, stage: PromotionStage) -> list[Strategy]:
    """Strategies that entered the stage sixty sessions ago and pass its gate now."""
    begun = registered("s", stage, BEGUN_US, by="bench", adopt=True, reason="bench").after
    equity = 1_000.0
    for session in range(SESSIONS + 1):
        equity *= 1.004 if session % 2 else 0.999
        at_us = BEGUN_US + session * DAY_US
        reading = Reading(equity, 1_000.0, 2 * session, session, at_us=at_us)
        begun = session_ended(
            seen(begun, reading),
            f"day {session:03}",
            at_us,
            POLICY,
            measured=session > 0,
            named=False,
            periods_per_year=POLICY.sessions_per_year,
        )
    return [
        msgspec.structs.replace(begun, id=f"{number:016x}", name=f"s{number:05}")
        for number in range(count)
    ]


def _added(strategies: Sequence[Strategy]) -> tuple[Statement, Statement]:
    changes = [Change(one, "adopt", None, BEGUN_US, "bench", "bench") for one in strategies]
    return schema.saved(strategies), schema.changed(changes, POLICY, 1, BEGUN_US)


def _seed(path: Path, strategies: Sequence[Strategy]) -> None:
    """A file with these strategies, each with its first line of history."""
    store = Store(path, MIGRATIONS)
    try:
        [answer] = commit_batch(store, [_added(strategies)])
        if not isinstance(answer, Committed):
            raise answer
    finally:
        store.connection.close()


# -- judging


class _Pieces(trio.abc.Instrument):
    """How long the promotion actor keeps the loop, step by step."""

    def __init__(self) -> None:
        self.pieces_ms: list[float] = []
        self._begun_s = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._begun_s = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name.startswith("promotion#"):
            self.pieces_ms.append(1e3 * (time.thread_time() - self._begun_s))


@asynccontextmanager
async def _promotion(path: Path) -> AsyncIterator[Ref]:
    """The promotion actor on this file, with persistence and an engine that takes every stage."""
    clock = VirtualClock(NOW_US)
    async with trio.open_nursery() as nursery:
        acts = Host(FakeController(), nursery).acts
        specs = [
            ChildSpec("persistence", partial(PersistenceActor, path, MIGRATIONS)),
            ChildSpec("promotion", partial(PromotionActor, path, clock, acts, POLICY, CAPITAL)),
        ]
        async with open_supervisor(specs, strategy="rest_for_one") as supervisor:
            yield supervisor.ref("promotion")


def _look(path: Path, pieces_ms: list[float], count: int, watch: Stopwatch) -> int:
    """One look that judges all strategies; none moves, since the way up waits for a person."""
    statuses = [
        StrategyStatus(f"s{number:05}", "running", stage="shadow", equity=1_000, allocated=1_000)
        for number in range(count)
    ]

    async def main() -> int:
        async with _promotion(path) as promotion:
            # The first look sees the figures; the second finds nothing new in them.
            await promotion.ask(Observe(statuses), timeout_s=DEADLINE_S)
            pieces = _Pieces()
            trio.lowlevel.add_instrument(pieces)
            with watch:
                look = Observe(statuses, evaluate=True)
                observed = await promotion.ask(look, timeout_s=DEADLINE_S)
            trio.lowlevel.remove_instrument(pieces)
            pieces_ms.extend(pieces.pieces_ms)
            if observed.transitions:
                raise RuntimeError("a strategy moved, so the next look is another one")
            return len(observed.terms)

    return trio.run(main)


# -- starting


def _in_process(function: str, *arguments: str) -> dict[str, float]:
    """The figures that a function of this file prints in a new process."""
    program = f"import sys; from fundops.bench.transitions import {function} as f; f(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def open_fund(path: str) -> None:
    """The program of the start: open a fund on the file, and print its time and memory."""
    config = FundConfig(
        total_capital=10**9,
        max_total_entitlement_pct=None,
        db_path=Path(path),
        promotion_enabled=True,
        tick_interval_s=None,
        control_socket=False,
    )

    async def main() -> dict[str, float]:
        watch = Stopwatch()
        with watch:
            opening = Fund.open(config, FakeController(), clock=VirtualClock(NOW_US))
            await opening.__aenter__()
        try:
            rss_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return {"wall_s": watch.wall_s, "cpu_s": watch.cpu_s, "rss_mib": rss_kib / 1_024}
        finally:
            await opening.__aexit__(None, None, None)

    sys.stdout.write(json.dumps(trio.run(main)))


# -- one transition


def _transitions(path: Path, moves: int) -> tuple[list[float], list[float]]:
    """Seconds of each bare commit and of each transition, in turns on two files."""
    strategies = _strategies(moves, PromotionStage.Shadow)
    bare_path = path.with_name("bare.db")
    _seed(path, strategies)
    _seed(bare_path, strategies)
    bare_s: list[float] = []
    ours_s: list[float] = []

    async def main() -> None:
        connection = open_database(bare_path, MIGRATIONS)
        async with _promotion(path) as promotion:
            for place, strategy in enumerate(strategies):
                rows = _rows_of(strategy, moves + place + 1)
                begun_s = time.perf_counter()
                connection.execute("BEGIN IMMEDIATE")
                for statement in rows:
                    connection.executemany(statement.sql, statement.rows)
                connection.execute("COMMIT")
                bare_s.append(time.perf_counter() - begun_s)
                begun_s = time.perf_counter()
                await promotion.ask(Demote(strategy.id, by="bench", reason="bench"))
                ours_s.append(time.perf_counter() - begun_s)
        connection.close()

    trio.run(main)
    _check_lines(path, "demote", moves)
    _check_lines(bare_path, "demote", moves)
    return bare_s, ours_s


def _rows_of(strategy: Strategy, seq: int) -> tuple[Statement, Statement]:
    """The rows that a demotion of the strategy writes."""
    change = demoted(strategy, POLICY, NOW_US, by="bench", reason="bench")
    return schema.saved((change.after,)), schema.changed((change,), POLICY, seq, NOW_US)


def _check_lines(path: Path, kind: str, count: int) -> None:
    """Raises: `RuntimeError` unless each strategy has one line of this kind."""
    with Reader(path) as reader:
        lines, strategies = reader.row(
            "SELECT count(*), count(DISTINCT strategy) FROM promotion_history WHERE kind = ?",
            (kind,),
        )
    if (lines, strategies) != (count, count):
        raise RuntimeError(f"{lines} lines of {strategies} strategies, not {count}")


# -- a race


def _race(path: Path, count: int) -> float:
    """Seconds in which two processes promote all strategies, each with the same revision."""
    _seed(path, _strategies(count, PromotionStage.Shadow))
    program = "import sys; from fundops.bench.transitions import promote_all as f; f(*sys.argv[1:])"
    command = [sys.executable, "-c", program, str(path), str(count)]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdout is not None
        racer.stdout.readline()
    begun_s = time.perf_counter()
    told: list[str] = []
    listeners = [
        threading.Thread(target=lambda one=racer: told.append(one.communicate("go\n")[0]))
        for racer in racers
    ]
    for listener in listeners:
        listener.start()
    for listener in listeners:
        listener.join()
    raced_s = time.perf_counter() - begun_s
    if sum(map(int, told)) != count:
        raise RuntimeError(f"{told} promotions went through, not {count} together")
    _check_lines(path, "promote", count)
    return raced_s


def promote_all(path: str, count: str) -> None:
    """The program of a racer: promote all strategies, and print how many were its own."""
    manager = PromotionManager(path, clock=VirtualClock(NOW_US))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    mine = 0
    for number in range(int(count)):
        try:
            manager.promote(f"s{number:05}", by="racer", expected_rev=1)
        except StaleRevision:
            continue
        mine += 1
    sys.stdout.write(str(mine))
