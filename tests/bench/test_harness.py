"""The helpers of the benches: medians, ranks, ratios, and checksums that must agree."""

from __future__ import annotations

import itertools

import pytest

from fundops.bench.harness import (
    Case,
    Machine,
    Result,
    Row,
    Stopwatch,
    machine,
    measure,
    percentile,
    table,
)


def scripted(cpu_s: list[float], checksum: int = 7) -> Case:
    """A case that claims to have taken these times, one a turn; the first is the warm-up's."""
    times = itertools.cycle(cpu_s)

    def work(messages: int, watch: Stopwatch) -> int:
        watch.cpu_s = watch.wall_s = next(times)
        return checksum

    return Case(f"case of {cpu_s[-1]}", 10, work)


def test_the_nearest_rank_of_few_values_is_the_largest() -> None:
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0
    assert percentile([float(n) for n in range(1, 201)], 99) == 198.0
    assert percentile([5.0], 50) == 5.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.0


def test_a_row_holds_medians_and_leaves_the_warm_up_out() -> None:
    [row] = measure([scripted([99.0, 1.0, 3.0, 2.0])], repetitions=3)
    assert row.cpu_us_per_message == pytest.approx(200_000)
    assert row.cpu_us_per_message_p99 == pytest.approx(300_000)
    assert row.per_s == pytest.approx(5)
    assert (row.repetitions, row.checksum, row.ratio) == (3, 7, None)


def test_a_ratio_compares_round_by_round_with_the_baseline() -> None:
    base, twice = scripted([9.0, 1.0, 10.0, 4.0]), scripted([9.0, 2.0, 20.0, 8.0])
    rows = measure([base, twice], repetitions=3, baseline=base.name)
    assert [row.ratio for row in rows] == [pytest.approx(1.0), pytest.approx(0.5)]


def test_a_case_that_does_other_work_each_time_has_no_result() -> None:
    numbers = itertools.count()
    with pytest.raises(RuntimeError, match="checksums differ"):
        measure([Case("moody", 1, lambda messages, watch: next(numbers))], repetitions=2)


def test_a_stopwatch_adds_up_its_blocks_and_nothing_between_them() -> None:
    watch = Stopwatch()
    with watch:
        first = sum(range(20_000))
    after_one = (watch.wall_s, watch.cpu_s)
    assert first
    assert watch.wall_s > 0
    assert (watch.wall_s, watch.cpu_s) == after_one
    with watch:
        pass
    assert watch.wall_s > after_one[0]
    assert watch.cpu_s >= after_one[1]


def test_the_machine_says_what_the_figures_need() -> None:
    here = machine()
    assert here.cores >= 1
    assert here.python.split()[1].startswith("3.")
    assert here.platform
    assert here.processor


def test_a_table_lines_up_its_columns() -> None:
    row = Row("short", 10, 3, 12_345.6, 1.5, 2.25, None, 10)
    long = Row("a rather longer name", 1_000_000, 3, 1.0, 100.0, 200.0, 0.123, 1_000_000)
    text = table(
        Result(
            "How long?",
            Machine("Linux", "x86", 2, "CPython 3"),
            (row, long),
            ("peer: not installed",),
        )
    )
    lines = text.splitlines()
    assert lines[0] == "How long?"
    assert len({len(line) for line in lines[3:6]}) == 1
    assert "12,346" in lines[4]
    assert "0.12x" in lines[5]
    assert lines[-1] == "skipped: peer: not installed"
