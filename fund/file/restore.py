"""A fund's database made from a backup or from an exported journal.

Either one is a new database: it gets its own uuid and remembers which database it was forked from.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from pathlib import Path

import apsw

from fundops.actors.guard.marker import Marker, marker_of
from fundops.actors.ledger.accounts import EXTERNAL
from fundops.actors.ledger.journal import Header, import_journal, peek_header
from fundops.actors.persistence import (
    Copied,
    Rows,
    beside,
    open_database,
    restore,
    sync_folder,
)
from fundops.file import meta
from fundops.file.database import MIGRATIONS
from fundops.wire.guard import KillStatus

__all__ = ["import_book", "restore_fund"]


def restore_fund(source: Path, target: Path, now_us: int, *, replace: bool = False) -> Copied:
    """Make `target` from the backup `source`, with the kill switch engaged.

    The caller holds the owner's lock.

    The fund may have traded since the backup, so the kill switch is engaged before the file has its
    name.

    Raises: `DatabaseError`.
    """
    target = Path(
        os.path.realpath(target)
    )  # a link would be replaced, and the file behind it left as it was
    marker = Marker(marker_of(target))
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    before = marker.read()
    try:
        marker.write(KillStatus("ENGAGED", f"restored from {source.name}", "fundops", now_us))
        copied = restore(
            source, target, MIGRATIONS, replace=replace, prepare=lambda copy: _fork(copy, now_us)
        )
    except BaseException:
        marker.remove() if before is None else marker.write(before)
        raise
    open_database(target, MIGRATIONS).close()  # brings the schema up to date
    return copied


def _fork(connection: apsw.Connection, now_us: int) -> None:
    """Give the copy a new uuid, record its origin, and set WAL mode.

    The first writer would switch the mode otherwise. Killed meanwhile, it leaves a journal that a
    read-only connection cannot undo.
    """
    connection.pragma("journal_mode", "wal")
    rows = Rows(connection)
    head = rows.row("SELECT seq, hex(hash) FROM entry ORDER BY seq DESC LIMIT 1") or (0, "")
    fork = {
        "uuid": str(uuid.uuid4()),
        "forked_from": meta.read(rows).get("uuid", ""),
        "forked_at_us": str(now_us),
        "forked_at_entry": f"{head[0]} {head[1].lower()}",
    }
    meta.write(connection, fork)


def import_book(path: Path, lines: Iterable[str]) -> Header:
    """Make a new database from an exported journal; returns its header.

    The caller holds the owner's lock.

    A new file has its name only once it is whole: an import that was killed before its first entry
    would look like a new fund.

    Raises: `JournalDamaged`; `DatabaseError` when the database has entries already.
    """
    path = Path(os.path.realpath(path))
    if path.exists():
        return _import_into(path, lines)
    part = path.with_name(f"{path.name}.importing")
    try:
        _remove(part)  # left over from an import that was killed
        header = _import_into(part, lines)
        part.rename(path)
        sync_folder(path)
    finally:
        _remove(part)
    return header


def _remove(path: Path) -> None:
    for file in (path, *beside(path)):
        file.unlink(missing_ok=True)


def _import_into(path: Path, lines: Iterable[str]) -> Header:
    first, rest = peek_header(lines)
    header = import_journal(path, rest, currency=first.currency or "USD", migrations=MIGRATIONS)
    connection = open_database(path, MIGRATIONS)
    try:
        rows = Rows(connection)
        capital = (
            "SELECT -amount_minor FROM entry JOIN posting ON entry = seq"
            " WHERE key = 'opening' AND account = ?"
        )
        capital_minor = (rows.row(capital, (EXTERNAL,)) or (0,))[0]
        wanted = {
            **meta.identity(header.name or "fund", header.currency or "USD", capital_minor),
            "uuid": str(uuid.uuid4()),
            "forked_from": header.uuid or "",
            "forked_at_entry": f"{header.seq} {header.hash}",
        }
        stored = meta.read(rows)
        meta.write(connection, {key: value for key, value in wanted.items() if key not in stored})
        # The file is renamed next, and its write-ahead log would stay behind.
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    finally:
        connection.close()
    return header
