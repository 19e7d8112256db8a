"""Long work in pieces: other tasks run in between, and plain callers need no loop."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import trio

from fundops.runtime import at_once, in_pieces, pieces


def _count(numbers: int) -> Generator[None, None, int]:
    total = 0
    for number in range(numbers):
        total += number
        yield
    return total


async def _interruptions(numbers: int) -> int:
    """How often another task runs while the work is done."""
    turns, done = 0, False

    async def other() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        assert await in_pieces(_count(numbers)) == sum(range(numbers))
        done = True
    return turns


async def test_other_tasks_run_between_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_S", 0.0)
    assert await _interruptions(100) >= 99


async def test_short_work_is_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_S", 60.0)
    assert await _interruptions(100) <= 1


def test_a_plain_caller_gets_the_same_result() -> None:
    assert at_once(_count(100)) == 4_950


async def test_an_error_of_the_work_reaches_the_caller() -> None:
    def fail() -> Generator[None, None, int]:
        yield
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await in_pieces(fail())
    with pytest.raises(ValueError, match="wrong"):
        at_once(fail())
