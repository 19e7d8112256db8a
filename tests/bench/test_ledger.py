"""The ledger bench at smoke size: all rows exist, all entries are on disk. No figure of speed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fundops.actors.persistence import open_database
from fundops.bench import ledger
from fundops.bench.harness import Case, Result, Stopwatch, measure, table
from fundops.file.database import MIGRATIONS

NAMES = [
    ledger.RAW_1024,
    ledger.MANY,
    ledger.RAW_64,
    ledger.TOGETHER,
    ledger.NAIVE,
    ledger.BARE,
    ledger.ALONE,
]


@pytest.fixture(scope="module")
def result() -> Iterator[Result]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "REPETITIONS", 2)
        yield ledger.run(scale=0.002)


def test_every_case_has_its_row(result: Result) -> None:
    assert [row.name for row in result.rows] == NAMES
    assert not result.skipped


def test_every_entry_of_every_case_was_acknowledged(result: Result) -> None:
    for row in result.rows:
        assert row.checksum == row.messages >= 16, row.name
    assert result.row(ledger.MANY).messages == ledger.BATCH
    assert result.row(ledger.TOGETHER).messages == ledger.CALLERS


def test_each_floor_compares_to_itself_as_one_and_the_ledger_to_its_own_floor(
    result: Result,
) -> None:
    for row in result.rows:
        assert row.per_s > 0
        assert row.cpu_us_per_message > 0
        assert row.repetitions == 2
        assert row.ratio is not None
        assert row.ratio > 0
        assert (row.ratio == 1.0) == row.name.startswith("RAW")


def test_latencies_and_stalls_are_figures_with_units(result: Result) -> None:
    units = {figure.name: figure.unit for figure in result.figures}
    assert units == {
        "64 callers over naive": "x",
        "bare commit, p50": "ms",
        "bare commit, p99": "ms",
        "one caller, p50": "ms",
        "one caller, p99": "ms",
        "one caller over bare commit, p50": "x",
        "event loop's worst stall at 64 callers, median": "ms",
        "event loop's worst stall at 64 callers, maximum": "ms",
    }
    assert all(figure.value > 0 for figure in result.figures)
    assert result.figure("one caller, p99") >= result.figure("one caller, p50")
    stalls = [figure.value for figure in result.figures if "stall" in figure.name]
    assert stalls == sorted(stalls)


def test_the_result_reads_as_a_table_and_survives_json(result: Result) -> None:
    text = table(result)
    assert text.startswith(result.question)
    for name in [*NAMES, *(figure.name for figure in result.figures)]:
        assert name in text
    assert msgspec.json.decode(msgspec.json.encode(result), type=Result) == result


def test_a_ratio_may_compare_wall_time() -> None:
    def case(name: str, wall_s: float) -> Case:
        def work(messages: int, watch: Stopwatch) -> int:
            watch.wall_s, watch.cpu_s = wall_s, 1.0
            return messages

        return Case(name, 10, work)

    cases = [case("base", 2.0), case("slow", 8.0)]
    assert [row.ratio for row in measure(cases, repetitions=1, baseline="base", by="wall")] == [
        1.0,
        0.25,
    ]
    assert [row.ratio for row in measure(cases, repetitions=1, baseline="base")] == [1.0, 1.0]


def test_the_prepared_rows_are_one_entry_two_postings_and_two_balances_twice_each() -> None:
    journal = ledger._journal(5)
    assert [[len(rows) for rows in entry] for entry in journal.rows] == [[1, 2, 2, 2]] * 5
    assert [[len(rows) for rows in batch] for batch in journal.batches(2)] == [
        [2, 4, 4, 4],
        [2, 4, 4, 4],
        [1, 2, 2, 2],
    ]


def test_there_is_no_result_when_an_entry_is_missing_or_the_balances_are_off(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    journal = ledger._journal(3)
    connection = open_database(path, MIGRATIONS)
    for sql, rows in zip(journal.sql, journal.batches(3)[0], strict=True):
        connection.executemany(sql, rows)
    ledger._check(path, 3)
    with pytest.raises(RuntimeError, match="3 entries on disk, 4 acknowledged"):
        ledger._check(path, 4)
    connection.execute("UPDATE balance SET amount_minor = amount_minor + 1 WHERE account = 'CASH'")
    with pytest.raises(RuntimeError, match="balances to 1; not to zero"):
        ledger._check(path, 3)
    connection.close()
