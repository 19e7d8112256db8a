"""The audit table: every change that a person or a program outside asked for, with its outcome.

One row per change, written before its answer is sent and never changed. `arguments` and `outcome`
are JSON.
"""

from __future__ import annotations

from typing import Any

import msgspec

from fundops.actors.persistence import Rows
from fundops.wire.persistence import Statement

__all__ = ["OUTCOME_MAX", "AuditRow", "Caller", "audited", "recent"]

# Rows are kept without end and the caller decides how long an answer is. The journal holds the
# entries themselves.
OUTCOME_MAX = 4_096

_INSERT = (
    'INSERT INTO audit (at_us, door, uid, pid, "by", command, arguments, outcome)'
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


class Caller(msgspec.Struct, frozen=True):
    """The caller of a command."""

    door: str  # "control": by the socket; "standalone": by a tool, with no fund running
    uid: int | None  # None: the system does not tell
    pid: int | None
    by: str  # the name given by the caller; it is not verified


class AuditRow(msgspec.Struct, frozen=True):
    """One change that was asked for, and its outcome."""

    id: int
    at_us: int
    door: str
    uid: int | None
    pid: int | None
    by: str
    command: str
    arguments: dict[str, Any]
    outcome: dict[str, Any]  # {"done": answer}, or {"refused": {"type", "text"}}


def audited(
    at_us: int, caller: Caller, command: str, arguments: Any, outcome: dict[str, Any]
) -> Statement:
    """The statement that writes one row. A long outcome is replaced by its length."""
    told = msgspec.json.encode(outcome)
    if len(told) > OUTCOME_MAX:
        told = msgspec.json.encode({kind: {"left_out_bytes": len(told)} for kind in outcome})
    asked = msgspec.json.encode(arguments).decode()
    row = (at_us, caller.door, caller.uid, caller.pid, caller.by, command, asked, told.decode())
    return Statement(_INSERT, (row,))


def recent(rows: Rows, limit: int) -> tuple[AuditRow, ...]:
    """The newest rows, newest first."""
    found = rows.rows("SELECT * FROM audit ORDER BY id DESC LIMIT ?", (limit,))
    return tuple(
        AuditRow(
            number,
            at_us,
            door,
            uid,
            pid,
            by,
            command,
            msgspec.json.decode(arguments),
            msgspec.json.decode(outcome),
        )
        for number, at_us, door, uid, pid, by, command, arguments, outcome in found
    )
