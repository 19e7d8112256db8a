"""What every bench shares: a stopwatch, rows with their ratio to a baseline, the machine, and a table of it all.

Units are in the names. Ratios compare CPU time, or wall time where a disk takes part, in one run, round by round: a
machine that is slow for a second is slow for the baseline too. Nothing here prints.
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
    """Wall and CPU time of the `with` block, over all threads of the process; what lies around it is not counted."""

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
    """One way of doing `messages` units of work. `work` times itself and returns a checksum of what it did."""

    name: str
    messages: int
    work: Callable[[int, Stopwatch], int]


class Row(msgspec.Struct, frozen=True):
    """What one case took, over all repetitions."""

    name: str
    messages: int  # per repetition
    repetitions: int
    per_s: float  # messages per second of wall time, median
    cpu_us_per_message: float  # median
    cpu_us_per_message_p99: float  # the worst repetition while there are fewer than 100
    ratio: (
        float | None
    )  # the baseline's time over that of this case, median of the rounds; None without baseline
    checksum: int  # the same in every repetition, or there is no result


class Figure(msgspec.Struct, frozen=True):
    """One more figure that is not a rate: a latency, a stall."""

    name: str
    value: float
    unit: str


class Machine(msgspec.Struct, frozen=True):
    """Where the figures come from."""

    platform: str
    processor: str
    cores: int
    python: str


class Result(msgspec.Struct, frozen=True):
    """The answer to a bench's question."""

    question: str
    machine: Machine
    rows: tuple[Row, ...]
    skipped: tuple[str, ...] = ()  # what could not be compared, and why
    figures: tuple[Figure, ...] = ()

    def row(self, name: str) -> Row:
        """The row of that name. Raises `KeyError`."""
        return {row.name: row for row in self.rows}[name]

    def figure(self, name: str) -> float:
        """The value of the figure of that name. Raises `KeyError`."""
        return {figure.name: figure.value for figure in self.figures}[name]


def machine() -> Machine:
    """This machine. No names of hosts or users."""
    return Machine(
        platform=platform.platform(),
        processor=platform.processor() or platform.machine(),
        cores=os.cpu_count() or 1,
        python=f"{platform.python_implementation()} {platform.python_version()}",
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all values do not exceed (nearest rank): the largest when they are few."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def measure(
    cases: Sequence[Case],
    *,
    repetitions: int,
    baseline: str | None = None,
    by: Literal["cpu", "wall"] = "cpu",
) -> tuple[Row, ...]:
    """Run all cases once a round, `repetitions` rounds after one to warm up, and compare each with `baseline`.

    The ratio is of CPU time, or of wall time when `by` says so.

    Raises: `RuntimeError` when a case gives two different checksums: then it did not do the same work twice.
    """
    watches: dict[str, list[Stopwatch]] = {case.name: [] for case in cases}
    checksums: dict[str, set[int]] = {case.name: set() for case in cases}
    for turn in range(repetitions + 1):
        gc.collect()
        for case in cases:
            gc.collect(
                1
            )  # each case pays for its own garbage, as far as the young generations tell
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
        base = next(one for one in cases if one.name == baseline)
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
    # The clock of CPU time may not have moved in a very short case; a nanosecond keeps the ratio finite.
    return max(watch.cpu_s, 1e-9) / case.messages * 1e6


def _wall_us(watch: Stopwatch, case: Case) -> float:
    return watch.wall_s / case.messages * 1e6


def table(result: Result) -> str:
    """The result as plain text, figures right-aligned, best read in a fixed-width font."""
    heads = ("case", "messages", "per s", "CPU us/msg", "p99", "ratio", "checksum")
    lines = [heads, *(_cells(row) for row in result.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    where = result.machine
    return "\n".join(
        [
            result.question,
            f"{where.python}, {where.platform}, {where.processor}, {where.cores} cores; medians of repetitions",
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
