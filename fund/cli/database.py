"""`fundops backup`, `fundops restore` and `fundops migrate`: the database as a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fundops.cli.run import database, existing
from fundops.cli.show import print_json, print_pairs

__all__ = ["backup", "migrate", "owned", "restore"]

LOCK_WAIT_S = 5.0


def backup(path: Path, *, db: Path | None = None, json: bool = False) -> int:
    """Copy a fund's database as it is now, whether the fund runs or not.

    Parameters
    ----------
    path
        the file to make
    """
    from fundops.actors.persistence import backup as copy_database

    return _told("backup", copy_database(existing(database(db)), path), json=json)


def restore(
    path: Path, *, replace: bool = False, db: Path | None = None, json: bool = False
) -> int:
    """Put a backup in the place of a fund's database. The fund must not be running.

    Events since the backup are missing in it, so the fund starts with its kill switch engaged.

    Parameters
    ----------
    path
        the backup
    replace
        also when there is a database already
    """
    from fundops.file.restore import restore_fund
    from fundops.runtime import SystemClock

    where = database(db)
    with owned(where):
        copied = restore_fund(path, where, SystemClock().now_us(), replace=replace)
    _told("restore", copied, json=json)
    if not json:
        print(
            "the kill switch is engaged; release it once what has happened since the backup is"
            " known"
        )
    return 0


def migrate(*, check: bool = False, db: Path | None = None, json: bool = False) -> int:
    """Bring a fund's database up to this version's schema; a fund does so too when it starts.

    A file of an older schema is copied first, beside itself. The fund must not be running.

    Parameters
    ----------
    check
        only say what would be done, and whether there is room for the copy; the exit code is 1
        when there is none
    """
    from fundops.file.database import migrate_fund, migration_of

    where = existing(database(db))
    plan = migration_of(where)
    if not check and plan.pending:
        with owned(where):
            migrate_fund(where)
        plan = migration_of(where)
    _told("migrate", plan, json=json)
    return 0 if plan.room else 1


def _told(words: str, answer: Any, *, json: bool) -> int:
    from fundops.control.arguments import plain

    return print_json(words, answer) if json else print_pairs(plain(answer))


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """Own the database in the block. A fund that is just stopping is waited for."""
    from fundops.file.lock import OwnerLock

    lock = OwnerLock(path)
    lock.acquire(LOCK_WAIT_S)
    try:
        yield
    finally:
        lock.release()
