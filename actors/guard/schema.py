"""The kill switch's latch in the database: one row, committed when it is engaged or released."""

from __future__ import annotations

import msgspec

from ...wire.guard import KillStatus
from ...wire.persistence import Statement
from ..persistence import Rows

__all__ = ["SCHEMA_4", "latched", "load_latch"]

SCHEMA_4 = """
CREATE TABLE kill_latch (id INTEGER PRIMARY KEY CHECK (id = 1), record TEXT NOT NULL) STRICT;
"""


def latched(status: KillStatus) -> Statement:
    """The row of this state."""
    return Statement(
        "INSERT OR REPLACE INTO kill_latch VALUES (1, ?)",
        ((msgspec.json.encode(status).decode(),),),
    )


def load_latch(rows: Rows) -> KillStatus | None:
    """The stored state; None: never engaged. A row that cannot be read means engaged."""
    row = rows.row("SELECT record FROM kill_latch")
    if row is None:
        return None
    try:
        return msgspec.json.decode(row[0], type=KillStatus)
    except msgspec.MsgspecError:
        return KillStatus("ENGAGED", "the stored latch cannot be read", "fundops", None)
