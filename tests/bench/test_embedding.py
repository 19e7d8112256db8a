"""The embedding bench at smoke size: every way in answers. No figure of speed."""

from __future__ import annotations

import pytest

from fundops.bench import embedding
from fundops.bench.harness import Result, table


@pytest.fixture(scope="module")
def result() -> Result:
    return embedding.run(0.02)


def test_every_host_is_measured_against_the_bare_call_and_the_peer(result: Result) -> None:
    assert [row.name for row in result.rows] == [
        embedding.BARE,
        "sync: door",
        "sync: anyio portal",
        *(
            f"{loop}: burst, {way}"
            for loop in ("asyncio", "uvloop")
            for way in ("BARE", "door", "anyio portal")
        ),
    ]
    assert result.skipped == ()
    assert all(row.checksum == row.messages for row in result.rows)


def test_the_figures_say_what_they_are_of(result: Result) -> None:
    figures = {figure.name: figure.value for figure in result.figures}
    for host in ("sync", "asyncio", "uvloop"):
        assert figures[f"{host}: door p50"] <= figures[f"{host}: door p99"]
        assert figures[f"{host}: p50 of the door over BARE"] > 0
        assert figures[f"{host}: to an actor p50"] > 0
    assert figures["late tick while the host's loop is spinning"] >= 0
    assert "pushed report in a burst" in table(result)
