"""The kill switch of a fund that does not run: read from its files, and released in them."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

import msgspec

from fundops.actors.alert.requests import requested
from fundops.actors.guard import alerts
from fundops.actors.guard.core import rearmed, released
from fundops.actors.guard.latch import OFF
from fundops.actors.guard.marker import Marker, marker_of
from fundops.actors.guard.schema import latched, load_latch
from fundops.actors.guard.switch import as_found, release_refusal
from fundops.actors.oversight import schema as oversight_schema
from fundops.actors.persistence import Reader, Rows, errors_named, open_database
from fundops.file.database import MIGRATIONS
from fundops.runtime import SystemClock, at_once
from fundops.wire import border
from fundops.wire.guard import GuardState, KillStatus, Released

__all__ = ["release_stored", "stored_status"]

log = logging.getLogger("fundops")


def stored_status(path: Path) -> KillStatus:
    """The state as the marker and the database tell it; either of them alone means engaged."""
    found = Marker(marker_of(path)).read()
    if found is not None:
        return as_found(found)
    if not path.exists():
        return OFF
    with Reader(path) as reader:
        return _of_database(reader)


def _of_database(rows: Rows) -> KillStatus:
    # A file of an older version has no table of the latch.
    has_latch = rows.row("SELECT 1 FROM sqlite_master WHERE name = 'kill_latch'")
    latch = load_latch(rows) if has_latch else None
    if latch is not None and latch.state != "OFF":
        return as_found(latch)
    if oversight_schema.load(rows).guard.kill_state != "OFF":
        return as_found(KillStatus("ENGAGED", "engaged according to the database", "fundops", None))
    return OFF


def release_stored(
    path: Path, *, by: str, reason: str, rearm: str, accept_open_orders: bool
) -> Released:
    """Release it in the files. The caller holds the owner's lock.

    The marker goes last: until then a crash leaves the switch engaged.

    Raises: `BadRequest`, `KillSwitchNotEngaged`, `StopNotConfirmed`, `DatabaseError`.
    """
    by, reason = border.given(by, "by"), border.reason(reason)
    status = stored_status(path)
    if not status.problem:
        status = msgspec.structs.replace(status, problem="no fund runs to confirm the stop")
    refusal = release_refusal(status, accept_open_orders=accept_open_orders)
    if refusal is not None:
        raise refusal
    answer = released(GuardState(), OFF)
    if path.exists():
        with errors_named(path), closing(open_database(path, MIGRATIONS)) as connection:
            memory = oversight_schema.load(Rows(connection))
            guard = rearmed(memory.guard, keep_peak=rearm == "keep_peak")
            record = at_once(
                oversight_schema.remembered(msgspec.structs.replace(memory, guard=guard))
            )
            answer = released(guard, OFF)
            now_us = SystemClock().now_us()
            told = requested(now_us, [alerts.released(answer, status, by, reason)])
            with connection:
                for statement in (latched(OFF), record, *told):
                    connection.executemany(statement.sql, statement.rows)
    Marker(marker_of(path)).remove()
    log.warning("kill switch released by %s: %s", by, reason)
    return answer
