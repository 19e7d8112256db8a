"""Long work of an actor in short pieces, so that nothing else on the loop waits for all of it.

The work is a generator that yields wherever it may be interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Final, TypeVar

import trio

__all__ = ["PIECE_S", "at_once", "in_pieces"]

PIECE_S: Final = 0.000_5

T = TypeVar("T")


async def in_pieces(work: Generator[None, None, T]) -> T:
    """The result of the work, with a checkpoint between pieces of about `PIECE_S`.

    The actor takes no other message meanwhile, but other tasks run, so shared objects may change.
    """
    until_s = time.perf_counter() + PIECE_S
    while True:
        try:
            next(work)
        except StopIteration as ended:
            result: T = ended.value
            return result
        if time.perf_counter() >= until_s:
            await trio.lowlevel.checkpoint()
            until_s = time.perf_counter() + PIECE_S


def at_once(work: Generator[None, None, T]) -> T:
    """The result of the work without an interruption, for plain callers."""
    while True:
        try:
            next(work)
        except StopIteration as ended:
            result: T = ended.value
            return result
