"""The bench of the kill switch's latency at smoke size: every pull reached the engine. No figure
of speed.
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

from fundops.bench import kill_latency
from fundops.bench.harness import Result, table

NONE, MANY = "engage, no strategies", "engage, 10 strategies"
ROWS = [kill_latency.RAW, NONE, MANY]


@pytest.fixture(scope="module")
def result() -> Result:
    return kill_latency.run(scale=0.001)


def test_every_pull_told_an_engine_whose_other_calls_hang(result: Result) -> None:
    assert [row.name for row in result.rows] == ROWS
    assert {(row.messages, row.checksum) for row in result.rows} == {(3, 3)}


def test_the_figures_are_the_median_and_the_worst_percent_of_each_row(result: Result) -> None:
    names = [figure.name for figure in result.figures]
    kinds = ("CPU p50", "CPU p99", "wall p50", "wall p99")
    assert names == [f"{row}, {kind}" for row in ROWS for kind in kinds]
    assert {figure.unit for figure in result.figures} == {"ms"}
    for row in ROWS:
        for kind in ("CPU", "wall"):
            assert 0 <= result.figure(f"{row}, {kind} p50") <= result.figure(f"{row}, {kind} p99")
    assert "told to stop" in table(result)


async def test_the_engine_notes_only_the_first_call_and_hangs_until_it_is_let_go() -> None:
    engine = kill_latency.HangingEngine(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.stop_all, "a test", "halt", ())
        await engine.told.wait()
        first = engine.told_at
        nursery.start_soon(engine.stop_all, "a test", "halt", ())
        await trio.testing.wait_all_tasks_blocked()
        assert engine.told_at is first
        assert len(nursery.child_tasks) == 2
        engine.let_go.set()
