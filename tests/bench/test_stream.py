"""The stream bench at smoke size: every server delivers everything. No figure of speed."""

from __future__ import annotations

import pytest

from fundops.bench import stream
from fundops.bench.harness import Result, table


@pytest.fixture(scope="module")
def result() -> Result:
    return stream.run(0.005)


def test_every_server_delivers_every_message_to_every_client(result: Result) -> None:
    assert [row.name for row in result.rows] == [
        stream.STOCK,
        "websockets.broadcast",
        "stream, one by one",
        "stream, 8 at a time",
    ]
    assert all(row.checksum == row.messages for row in result.rows)


def test_the_figures_are_there_and_patches_are_smaller(result: Result) -> None:
    assert result.figure("messages of the latency") > 0
    assert result.figure("latency at 500/s, p50") <= result.figure("latency at 500/s, p99")
    whole = result.figure("a tick of 40 strategies, whole records")
    assert result.figure("a tick of 40 strategies, patches") < whole / 3
    ring = result.figure("first connection, the whole ring")
    assert result.figure("first connection, 50 events a topic") < ring / 4
    assert "STOCK" in table(result)
