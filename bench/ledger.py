"""How close does the ledger come to SQLite itself, which writes the identical rows through apsw?

An entry is 1 row, 2 postings, 2 upserts of balances and 2 upserts of a day's deltas. Every commit
is durable (WAL, synchronous FULL), so the disk under the temporary folder matters; TMPDIR chooses
it. Ratios compare wall time. RAW writes rows that were prepared before the clock started, all seven
of every entry. The ledger checks, numbers, hashes and answers each entry, and may merge the upserts
of one balance. Every case compares the hash at the end of the chain, which proves that the rows are
the same.

Naive is the standard library's sqlite3 with a commit for each entry. It runs in another process,
because two SQLite libraries in one process drop each other's locks.
"""

from __future__ import annotations

import gc
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import trio

from fundops.actors.ledger import LedgerActor, schema
from fundops.actors.ledger.book import Book, Draft
from fundops.actors.persistence import PersistenceActor, Reader, open_database
from fundops.actors.persistence.database import APPLICATION_ID
from fundops.file.database import MIGRATIONS
from fundops.runtime import ChildSpec, Ref, VirtualClock, open_supervisor
from fundops.wire.ledger import PostMany, RecordProfit

from .harness import Case, Figure, Result, Stopwatch, machine, measure, percentile

__all__ = [
    "ALONE",
    "BARE",
    "MANY",
    "NAIVE",
    "QUESTION",
    "RAW_64",
    "RAW_1024",
    "TOGETHER",
    "commit_each_naively",
    "run",
]

QUESTION = (
    "How close does the ledger come to SQLite itself, writing the identical rows? "
    "(ratio above 1 is faster)"
)
RAW_1024 = "RAW: apsw executemany, 1,024 a commit"
MANY = "post_many of 1,024"
RAW_64 = "RAW: apsw executemany, 64 a commit"
TOGETHER = "64 callers, ask and reply each"
NAIVE = "naive: sqlite3, a commit each"
BARE = "RAW: apsw, a commit each"
ALONE = "one caller"

BATCH = 1_024
CALLERS = 64
REPETITIONS = 5
# As in a fund: the messages of all callers of a batch fit into the mailboxes.
CAPACITY = 8_192
NOW_US = 1_700_000_000_000_000
# How long the probe sleeps between two measurements of the stall.
STALL_PROBE_S = 0.001

Rows = Sequence[tuple[Any, ...]]
Drive = Callable[[Ref, Sequence[RecordProfit]], Awaitable[int]]


class Journal(NamedTuple):
    """Profits, the rows that book them, and the last hash of the chain.

    `sql` holds the statements; `rows` holds for each entry the rows of each statement.
    """

    events: tuple[RecordProfit, ...]
    sql: tuple[str, ...]
    rows: tuple[tuple[Rows, ...], ...]
    head: bytes

    def batches(self, size: int) -> list[list[Rows]]:
        """The rows in batches of `size` entries; each batch has one list of rows per statement."""
        groups = (self.rows[start : start + size] for start in range(0, len(self.rows), size))
        return [
            [
                [row for rows in of_statement for row in rows]
                for of_statement in zip(*group, strict=True)
            ]
            for group in groups
        ]


def run(scale: float = 1.0) -> Result:
    """Measure all cases with `scale` times the usual number of entries.

    Takes about half a minute at a scale of 1.
    """

    def count(usual: int, multiple: int) -> int:
        return max(multiple, round(usual * scale / multiple) * multiple)

    many, together = count(16_384, BATCH), count(8_192, CALLERS)
    alone, naive = count(512, 16), count(256, 16)
    with _prepared(many, together, alone, naive):
        return _run(many, together, alone, naive)


@contextmanager
def _prepared(*sizes: int) -> Iterator[None]:
    """Keep the journals ready inside the block.

    The garbage collector ignores them there, so the ledger does not pay for objects of the bench.
    """
    for size in sizes:
        _journal(size)
    # Frozen objects are skipped by every later collection.
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        _journal.cache_clear()


def _run(many: int, together: int, alone: int, naive: int) -> Result:
    bare_s: list[list[float]] = []
    alone_s: list[list[float]] = []
    stalls_s: list[float] = []
    rows = (
        *measure(
            [
                Case(RAW_1024, many, partial(_raw, BATCH, [])),
                Case(MANY, many, partial(_with_ledger, _post_many)),
            ],
            repetitions=REPETITIONS,
            baseline=RAW_1024,
            by="wall",
        ),
        *measure(
            [
                Case(RAW_64, together, partial(_raw, CALLERS, [])),
                Case(TOGETHER, together, partial(_with_ledger, _ask_together)),
                Case(NAIVE, naive, _naive),
            ],
            repetitions=REPETITIONS,
            baseline=RAW_64,
            by="wall",
        ),
        *measure(
            [
                Case(BARE, alone, partial(_raw, 1, bare_s)),
                Case(ALONE, alone, partial(_with_ledger, partial(_ask_alone, alone_s))),
            ],
            repetitions=REPETITIONS,
            baseline=BARE,
            by="wall",
        ),
    )
    for _ in range(REPETITIONS):
        # Not within the timed case, which the probe would slow down.
        _with_ledger(partial(_ask_together_probed, stalls_s), together, Stopwatch())
    result = Result(QUESTION, machine(), rows)
    against_naive = result.row(TOGETHER).per_s / result.row(NAIVE).per_s
    # The first round only warmed up.
    figures = (
        Figure("64 callers over naive", against_naive, "x"),
        *_latencies("bare commit", bare_s[1:]),
        *_latencies("one caller", alone_s[1:]),
        Figure("one caller over bare commit, p50", _ratio_p50(alone_s[1:], bare_s[1:]), "x"),
        Figure(
            "event loop's worst stall at 64 callers, median",
            statistics.median(stalls_s) * 1e3,
            "ms",
        ),
        Figure("event loop's worst stall at 64 callers, maximum", max(stalls_s) * 1e3, "ms"),
    )
    return Result(QUESTION, result.machine, rows, figures=figures)


def _latencies(name: str, rounds: Sequence[Sequence[float]]) -> tuple[Figure, Figure]:
    """The median over the rounds of each round's p50, and of its p99."""
    p50_s, p99_s = (
        statistics.median(percentile(asks_s, percent) for asks_s in rounds) for percent in (50, 99)
    )
    return Figure(f"{name}, p50", p50_s * 1e3, "ms"), Figure(f"{name}, p99", p99_s * 1e3, "ms")


def _ratio_p50(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float:
    return statistics.median(
        percentile(mine, 50) / percentile(bare, 50) for mine, bare in zip(ours, theirs, strict=True)
    )


@lru_cache(maxsize=4)
def _journal(entries: int) -> Journal:
    """A journal of this many entries, the same on each call and in each process."""
    events = tuple(
        RecordProfit(100 + number, key=f"{NOW_US:016x}-{number:016x}") for number in range(entries)
    )
    book = Book("USD")
    sql: tuple[str, ...] = ()
    rows = []
    for event in events:
        # One draft per entry, as for a single caller: a larger one would merge balance rows.
        draft = Draft(book, lambda _: None)
        draft.decide(event, str(event.key), NOW_US)
        statements = schema.rows_of(draft)
        sql = tuple(statement.sql for statement in statements)
        rows.append(tuple(statement.rows for statement in statements))
        book.apply(draft)
    return Journal(events, sql, tuple(rows), book.head)


@contextmanager
def _database(entries: int) -> Iterator[Path]:
    """A path for a new database, which must hold exactly these entries at the end of the block.

    Raises: `RuntimeError`.
    """
    with tempfile.TemporaryDirectory(prefix="fundops-bench-") as folder:
        path = Path(folder) / "ledger.db"
        yield path
        _check(path, entries)


def _check(path: Path, acknowledged: int) -> None:
    """Compare the database with the journal of the acknowledged entries.

    Raises: `RuntimeError` when an entry is missing or differs, or the trial balance is not zero.
    """
    with Reader(path) as reader:
        on_disk, head = reader.row(
            "SELECT count(*), (SELECT hash FROM entry ORDER BY seq DESC LIMIT 1) FROM entry"
        )
        if on_disk != acknowledged or head != _journal(acknowledged).head:
            raise RuntimeError(
                f"{on_disk} entries on disk, {acknowledged} acknowledged; or their content differs"
            )
        of_postings, legs = reader.row("SELECT sum(amount_minor), count(*) FROM posting")
        [of_balances] = reader.row("SELECT sum(amount_minor) FROM balance")
        if (of_postings, of_balances, legs) != (0, 0, 2 * acknowledged):
            raise RuntimeError(
                f"postings sum to {of_postings} over {legs} legs, "
                f"balances to {of_balances}; not to zero"
            )


# -- the floor


def _raw(batch: int, latencies_s: list[list[float]], entries: int, watch: Stopwatch) -> int:
    journal = _journal(entries)
    batches = journal.batches(batch)
    commits_s: list[float] = []
    with _database(entries) as path:
        connection = open_database(path, MIGRATIONS)
        try:
            with watch:
                for rows in batches:
                    begun = time.perf_counter()
                    connection.execute("BEGIN IMMEDIATE")
                    for sql, of_statement in zip(journal.sql, rows, strict=True):
                        connection.executemany(sql, of_statement)
                    connection.execute("COMMIT")
                    commits_s.append(time.perf_counter() - begun)
        finally:
            connection.close()
    latencies_s.append(commits_s)
    return sum(len(rows[0]) for rows in batches)


def _naive(entries: int, watch: Stopwatch) -> int:
    with _database(entries) as path:
        program = (
            "import sys; from fundops.bench.ledger import commit_each_naively as f; "
            "f(sys.argv[1], sys.argv[2])"
        )
        command = [sys.executable, "-c", program, str(path), str(entries)]
        told = json.loads(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout
        )
        watch.wall_s, watch.cpu_s = told["wall_s"], told["cpu_s"]
    return int(told["entries"])


def commit_each_naively(path: str, entries: str) -> None:
    """The program of the naive case: book all entries, then print times and number as JSON."""
    journal = _journal(int(entries))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(";\n".join(MIGRATIONS))
    for pragma in (
        f"application_id = {APPLICATION_ID}",
        "journal_mode = wal",
        "synchronous = full",
        "foreign_keys = on",
    ):
        connection.execute(f"PRAGMA {pragma}")
    watch = Stopwatch()
    with watch:
        for rows in journal.rows:
            connection.execute("BEGIN IMMEDIATE")
            for sql, of_statement in zip(journal.sql, rows, strict=True):
                connection.executemany(sql, of_statement)
            connection.execute("COMMIT")
    connection.close()
    told = {"wall_s": watch.wall_s, "cpu_s": watch.cpu_s, "entries": len(journal.rows)}
    sys.stdout.write(json.dumps(told))


# -- the ledger


def _with_ledger(drive: Drive, entries: int, watch: Stopwatch) -> int:
    """Drive the ledger and persistence actors as in a fund.

    The clock stands still, so that the rows are the same every time.
    """
    events = _journal(entries).events

    async def main(path: Path) -> int:
        specs = [
            ChildSpec(
                "persistence", partial(PersistenceActor, path, MIGRATIONS), capacity=CAPACITY
            ),
            ChildSpec(
                "ledger", partial(LedgerActor, path, VirtualClock(NOW_US), "USD"), capacity=CAPACITY
            ),
        ]
        async with open_supervisor(specs, strategy="rest_for_one") as supervisor:
            with watch:
                return await drive(supervisor.ref("ledger"), events)

    with _database(entries) as path:
        return trio.run(main, path)


async def _post_many(ledger: Ref, events: Sequence[RecordProfit]) -> int:
    acknowledged = 0
    for start in range(0, len(events), BATCH):
        posted = await ledger.ask(PostMany(tuple(events[start : start + BATCH])))
        acknowledged += len(posted)
    return acknowledged


async def _ask_alone(
    latencies_s: list[list[float]], ledger: Ref, events: Sequence[RecordProfit]
) -> int:
    asks_s: list[float] = []
    acknowledged = 0
    for event in events:
        begun = time.perf_counter()
        posted = await ledger.ask(event)
        asks_s.append(time.perf_counter() - begun)
        acknowledged += not posted.replayed
    latencies_s.append(asks_s)
    return acknowledged


async def _ask_together(ledger: Ref, events: Sequence[RecordProfit]) -> int:
    acknowledged = 0
    queue = iter(events)

    async def call() -> None:
        nonlocal acknowledged
        for event in queue:
            posted = await ledger.ask(event)
            acknowledged += not posted.replayed

    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(call)
    return acknowledged


async def _ask_together_probed(
    stalls_s: list[float], ledger: Ref, events: Sequence[RecordProfit]
) -> int:
    """As `_ask_together`, and also note the longest delay with which a sleeping task wakes up."""
    worst_s = 0.0

    async def probe() -> None:
        nonlocal worst_s
        while True:
            due = trio.current_time() + STALL_PROBE_S
            await trio.sleep_until(due)
            worst_s = max(worst_s, trio.current_time() - due)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(probe)
        acknowledged = await _ask_together(ledger, events)
        nursery.cancel_scope.cancel()
    stalls_s.append(worst_s)
    return acknowledged
