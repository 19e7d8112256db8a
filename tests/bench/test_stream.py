"""The stream bench at smoke size: every server delivers everything. No figure of speed."""

from __future__ import annotations

import json

import pytest

from fundops.bench import listeners, stream
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


class Listeners:
    """Answers of the clients' process, one after the other."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)

    def say(self, text: str) -> None:
        assert text == "latency"

    def line(self) -> str:
        return json.dumps(self._answers.pop(0))


async def test_a_gap_at_a_healthy_client_ends_the_bench() -> None:
    assert await stream._ages_us(Listeners([[1, 2], 0], [[3], 0]), 3) == [1, 2, 3]  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="1 gaps"):
        await stream._ages_us(Listeners([[1, 2], 1]), 3)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="were given 4 messages of 3"):
        await stream._ages_us(Listeners([[1, 2, 3, 4], 0]), 3)  # type: ignore[arg-type]


def test_the_clients_count_their_gaps_and_messages_cut_anywhere() -> None:
    whole = b'"ns":12}"t":"gap"}"ns":345}'
    for at in range(len(whole)):
        left, found = b"", []
        for part in (whole[:at], whole[at:]):
            matches, left = listeners.found_in(left + part)
            found += matches
        assert found == [12, None, 345]
