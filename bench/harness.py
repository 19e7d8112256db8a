"""The tools of all benches: a stopwatch, rows with a ratio to a baseline, the machine, a table.

Units are in the names. Ratios compare CPU time, or wall time where a disk takes part. They compare
within one run, round by round, because a machine that is slow for a second is then slow for the
baseline too. Nothing here prints.
"""

from __future__ import annotations

import gc
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Literal

import msgspec

__all__ = [
    "Case",
    "Figure",
    "Machine",
    "Result",
    "Row",
    "Stopwatch",
    "machine",
    "measure",
    "percentile",
    "table",
]


class Stopwatch:
    """Measures the wall and CPU time of its `with` blocks in seconds, for all threads."""

    def __init__(self) -> None:
        self.wall_s = 0.0
        self.cpu_s = 0.0

    def __enter__(self) -> None:
        self.wall_s -= time.perf_counter()
        self.cpu_s -= time.process_time()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cpu_s += time.process_time()
        self.wall_s += time.perf_counter()


class Case(msgspec.Struct, frozen=True):
    """One way of doing `messages` units of work.

    `work` gets that number and a stopwatch, times itself, and returns a checksum of the work it
    did.
    """

    name: str
    messages: int
    work: Callable[[int, Stopwatch], int]


class Row(msgspec.Struct, frozen=True):
    """The time that one case took, over all repetitions."""

    name: str
    messages: int  # per repetition
    repetitions: int
    per_s: float  # messages per second of wall time, median
    cpu_us_per_message: float  # median
    cpu_us_per_message_p99: float  # the worst repetition while there are fewer than 100
    # The time of the baseline divided by that of this case, median of the rounds; None without a
    # baseline.
    ratio: float | None
    checksum: int  # the same in every repetition; a difference raises an error


class Figure(msgspec.Struct, frozen=True):
    """A result that is not a rate, such as a latency or the size of a file."""

    name: str
    value: float
    unit: str


class Machine(msgspec.Struct, frozen=True):
    """The machine on which the figures were measured."""

    platform: str
    processor: str
    cores: int
    python: str


class Result(msgspec.Struct, frozen=True):
    """The answer to a bench's question."""

    question: str
    machine: Machine
    rows: tuple[Row, ...]
    skipped: tuple[str, ...] = ()  # the comparisons that were left out, each with its reason
    figures: tuple[Figure, ...] = ()

    def row(self, name: str) -> Row:
        """The row of that name. Raises: `KeyError`."""
        return {row.name: row for row in self.rows}[name]

    def figure(self, name: str) -> float:
        """The value of the figure of that name. Raises: `KeyError`."""
        return {figure.name: figure.value for figure in self.figures}[name]


def machine() -> Machine:
    """A description of this machine, without the names of hosts or users."""
    return Machine(
        platform=platform.platform(),
        processor=platform.processor() or platform.machine(),
        cores=os.cpu_count() or 1,
        python=f"{platform.python_implementation()} {platform.python_version()}",
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value that `percent` of all values do not exceed.

    With few values a high percentile is the largest of them.
    """
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def measure(
    cases: Sequence[Case],
    *,
    repetitions: int,
    baseline: str | None = None,
    by: Literal["cpu", "wall"] = "cpu",
) -> tuple[Row, ...]:
    """One row for each case, each compared with the case called `baseline`.

    Every round runs all cases once. There are `repetitions` rounds after one that warms up and is
    not counted. The ratio compares the time named in `by`.

    Raises: `RuntimeError` when a case returns two different checksums, so it did not repeat the
        same work.
    """
    watches: dict[str, list[Stopwatch]] = {case.name: [] for case in cases}
    checksums: dict[str, set[int]] = {case.name: set() for case in cases}
    for turn in range(repetitions + 1):
        gc.collect()
        for case in cases:
            # So that each case pays for its own garbage, as far as the young generations hold it.
            gc.collect(1)
            watch = Stopwatch()
            checksums[case.name].add(case.work(case.messages, watch))
            if turn:
                watches[case.name].append(watch)
    return tuple(_row(case, watches, checksums[case.name], cases, baseline, by) for case in cases)


def _row(
    case: Case,
    watches: dict[str, list[Stopwatch]],
    checksums: set[int],
    cases: Sequence[Case],
    baseline: str | None,
    by: Literal["cpu", "wall"],
) -> Row:
    if len(checksums) != 1:
        raise RuntimeError(
            f"{case.name}: checksums differ between repetitions: {sorted(checksums)}"
        )
    cpu_us = [_cpu_us(watch, case) for watch in watches[case.name]]
    ratio = None
    if baseline is not None:
        base = next(other for other in cases if other.name == baseline)
        cost_us = _cpu_us if by == "cpu" else _wall_us
        ratio = statistics.median(
            cost_us(theirs, base) / cost_us(ours, case)
            for theirs, ours in zip(watches[baseline], watches[case.name], strict=True)
        )
    return Row(
        name=case.name,
        messages=case.messages,
        repetitions=len(cpu_us),
        per_s=statistics.median(case.messages / watch.wall_s for watch in watches[case.name]),
        cpu_us_per_message=statistics.median(cpu_us),
        cpu_us_per_message_p99=percentile(cpu_us, 99),
        ratio=ratio,
        checksum=checksums.pop(),
    )


def _cpu_us(watch: Stopwatch, case: Case) -> float:
    # In a very short case the clock of CPU time may not move. A nanosecond keeps the ratio finite.
    return max(watch.cpu_s, 1e-9) / case.messages * 1e6


def _wall_us(watch: Stopwatch, case: Case) -> float:
    return watch.wall_s / case.messages * 1e6


def table(result: Result) -> str:
    """The result as plain text with aligned columns, for a fixed-width font."""
    heads = ("case", "messages", "per s", "CPU us/msg", "p99", "ratio", "checksum")
    lines = [heads, *(_cells(row) for row in result.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    where = result.machine
    return "\n".join(
        [
            result.question,
            f"{where.python}, {where.platform}, {where.processor}, {where.cores} cores; "
            "medians of repetitions",
            "",
            *(
                "  ".join(
                    cell.rjust(width) if column else cell.ljust(width)
                    for column, (cell, width) in enumerate(zip(line, widths, strict=True))
                )
                for line in lines
            ),
            *(f"{figure.name}: {figure.value:.2f} {figure.unit}" for figure in result.figures),
            *(f"skipped: {reason}" for reason in result.skipped),
        ]
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.messages:,} x {row.repetitions}",
        f"{row.per_s:,.0f}",
        f"{row.cpu_us_per_message:.2f}",
        f"{row.cpu_us_per_message_p99:.2f}",
        "" if row.ratio is None else f"{row.ratio:.2f}x",
        str(row.checksum),
    )
