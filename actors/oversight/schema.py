"""What oversight itself must remember: its record, and one line of NAV per session."""

from __future__ import annotations

import msgspec

from ...wire.guard import GuardState
from ...wire.money import from_minor
from ...wire.oversight import NavSample
from ...wire.persistence import Statement
from ..persistence import Rows
from .fees import FeeState, Owed

__all__ = ["SCHEMA", "Memory", "load", "nav_history", "nav_line", "remembered"]

SCHEMA = """
CREATE TABLE oversight (id INTEGER PRIMARY KEY CHECK (id = 1), record TEXT NOT NULL) STRICT;
CREATE TABLE nav_history (
    at_us INTEGER PRIMARY KEY,
    session TEXT NOT NULL,
    nav_minor INTEGER NOT NULL,
    drawdown_pct REAL NOT NULL
) STRICT;
"""


class Memory(msgspec.Struct, frozen=True):
    """The record."""

    guard: GuardState = GuardState()
    fees: FeeState = FeeState()
    session: str = ""  # the last one that ended
    owed: tuple[Owed, ...] = ()


def remembered(memory: Memory) -> Statement:
    """The statement that stores the memory in place of the one before."""
    return Statement(
        "INSERT OR REPLACE INTO oversight VALUES (1, ?)", ((msgspec.json.encode(memory).decode(),),)
    )


def nav_line(at_us: int, session: str, nav_minor: int, drawdown_pct: float) -> Statement:
    """The statement that stores NAV and drawdown at the end of a session."""
    return Statement(
        "INSERT OR REPLACE INTO nav_history VALUES (?, ?, ?, ?)",
        ((at_us, session, nav_minor, drawdown_pct),),
    )


def load(rows: Rows) -> Memory:
    """The stored memory; a new one when none was stored."""
    row = rows.row("SELECT record FROM oversight")
    return Memory() if row is None else msgspec.json.decode(row[0], type=Memory)


def nav_history(rows: Rows, limit: int) -> tuple[NavSample, ...]:
    """The newest lines, newest first."""
    found = rows.rows("SELECT * FROM nav_history ORDER BY at_us DESC LIMIT ?", (limit,))
    return tuple(
        NavSample(at_us, session, from_minor(nav), drawdown)
        for at_us, session, nav, drawdown in found
    )
