"""Does a post cost more in a book of a million entries than in one of ten thousand?

And how fast is such a book verified? It grows by deposits and profits of twelve strategies over 250
days, written a thousand at a time by the rules of the ledger. At both sizes one caller posts the
same number of entries through the actors, each durable before the next; these figures are wall
time. Verifying is level 2: it checks the whole chain and every posting, and rebuilds all derived
tables. RAW reads the same rows and computes the same hashes without comparing anything. The figures
of both are CPU time. The peer is bean-check, on the smaller book in beancount's format.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import trio

from fundops.actors.ledger import LedgerActor, books, schema
from fundops.actors.ledger.book import Draft
from fundops.actors.ledger.entry import GENESIS
from fundops.actors.ledger.verify import verify_file
from fundops.actors.persistence import PersistenceActor, Reader, Store, commit_batch
from fundops.file.database import MIGRATIONS
from fundops.runtime import DAY_US, ChildSpec, SystemClock, open_supervisor
from fundops.wire.ledger import Deposit, Event, RecordProfit

from .harness import Case, Figure, Result, Row, Stopwatch, machine, measure

__all__ = ["QUESTION", "RAW", "run"]

QUESTION = (
    "What does a post cost in a big book, and how fast is it verified? "
    "(ratio above 1 is cheaper than RAW)"
)
RAW = "RAW: read and hash"

# Entries in the smaller and in the larger book.
FEW = 10_000
MANY = 1_000_000
# Entries per commit while the book grows.
BATCH = 1_000
STRATEGIES = 12
DAYS = 250
POSTS = 200
BEGUN_US = 1_700_000_000_000_000
REPETITIONS = 3


def run(scale: float = 1.0) -> Result:
    """Measure in a book of `scale` times a million entries, at most one million.

    Takes about two minutes at a scale of 1, most of them to grow the book.
    """
    few, many = max(BATCH, round(FEW * scale)), max(2 * BATCH, round(MANY * min(scale, 1.0)))
    with tempfile.TemporaryDirectory(prefix="fundops-bench-") as folder:
        path = Path(folder) / "ledger.db"
        _grow(path, few)
        small_s = _post(path)
        beancount_per_s = _bean_check(path)
        _grow(path, many)
        big_s = _post(path)
        rows = _verifying(path)
        megabytes = path.stat().st_size / 2**20
    verified = next(row for row in rows if row.name != RAW)
    figures = (
        Figure(f"a post at {few:,}, p50", small_s * 1e3, "ms"),
        Figure(f"a post at {many:,}, p50", big_s * 1e3, "ms"),
        Figure(f"slowdown of a post from {few:,} to {many:,}", big_s / small_s, "x"),
        Figure("verified per second of CPU time", 1e6 / verified.cpu_us_per_message, "entries/s"),
        Figure("size of the file", megabytes, "MiB"),
    )
    if beancount_per_s is None:
        return Result(
            QUESTION, machine(), rows, figures=figures, skipped=("bean-check: is not installed",)
        )
    peers = (
        Figure("bean-check", beancount_per_s, "entries/s"),
        Figure("verify over bean-check", verified.per_s / beancount_per_s, "x"),
    )
    return Result(QUESTION, machine(), rows, figures=figures + peers)


def _bean_check(path: Path) -> float | None:
    """Entries per second of bean-check, including its start-up; None when it is not installed."""
    tool = shutil.which(
        "bean-check", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    )
    if tool is None:
        return None
    book = path.with_suffix(".beancount")
    with Reader(path) as reader, book.open("w", encoding="utf-8") as file:
        file.writelines(books.beancount(reader))
        entries = reader.row("SELECT count(*) FROM entry")[0]
    begun = time.perf_counter()
    subprocess.run([tool, "--no-cache", str(book)], check=True, capture_output=True)
    return float(entries / (time.perf_counter() - begun))


def _grow(path: Path, entries: int) -> None:
    """Add entries to the book at `path` until it has this many."""
    store = Store(path, MIGRATIONS)
    try:
        with Reader(path) as reader:
            book = schema.load_book(reader, "USD")
        while book.seq < entries:
            draft = Draft(book, lambda _: None)
            for seq in range(book.seq, min(book.seq + BATCH, entries)):
                draft.decide(_event(seq), f"{BEGUN_US:016x}-{seq:016x}", BEGUN_US + seq)
            commit_batch(store, [schema.rows_of(draft)])
            book.apply(draft)
    finally:
        store.close()


def _event(seq: int) -> Event:
    at_us = BEGUN_US + seq * DAYS // MANY * DAY_US
    kind = Deposit if seq % 10 == 0 else RecordProfit
    return kind(1 + seq % 1_000, strategy=f"strategy {seq % STRATEGIES}", at_us=at_us)


def _post(path: Path) -> float:
    """The median wall time of one post, in seconds."""

    async def main() -> float:
        specs = [
            ChildSpec("persistence", partial(PersistenceActor, path, MIGRATIONS)),
            ChildSpec("ledger", partial(LedgerActor, path, SystemClock(), "USD")),
        ]
        asks_s = []
        async with open_supervisor(specs, strategy="rest_for_one") as supervisor:
            ledger = supervisor.ref("ledger")
            for number in range(POSTS):
                begun = time.perf_counter()
                await ledger.ask(_event(number), timeout_s=60)
                asks_s.append(time.perf_counter() - begun)
        return statistics.median(asks_s)

    return trio.run(main)


def _verifying(path: Path) -> tuple[Row, ...]:
    with Reader(path) as reader:
        entries = reader.row("SELECT count(*) FROM entry")[0]
        cases = [
            Case(RAW, entries, partial(_read_and_hash, reader)),
            Case("verify", entries, partial(_verify, path)),
        ]
        return measure(cases, repetitions=REPETITIONS, baseline=RAW)


def _read_and_hash(reader: Reader, entries: int, watch: Stopwatch) -> int:
    head, read = GENESIS, 0
    with watch:
        for after in range(0, entries, BATCH):
            bounds = (after, after + BATCH)
            reader.rows("SELECT * FROM posting WHERE entry > ? AND entry <= ?", bounds)
            for (payload,) in reader.rows(
                "SELECT CAST(payload AS BLOB) FROM entry WHERE seq > ? AND seq <= ? ORDER BY seq",
                bounds,
            ):
                head = hashlib.sha256(head + payload).digest()
                read += 1
    if head != reader.row("SELECT hash FROM entry ORDER BY seq DESC LIMIT 1")[0]:
        raise RuntimeError("the chain does not end where it should")
    return read


def _verify(path: Path, entries: int, watch: Stopwatch) -> int:
    with watch:
        checked = verify_file(path)
    if not checked.ok:
        raise RuntimeError(f"the book is not in order: {checked.findings[0]}")
    return checked.entries
