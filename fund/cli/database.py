"""`fundops backup`, `fundops restore` and `fundops migrate`: the database as a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fundops.cli.options import Source
from fundops.cli.show import plain, print_json, print_pairs

__all__ = ["backup", "migrate", "owned", "restore"]

LOCK_WAIT_S = 5.0


def backup(path: Path, /, *, source: Source | None = None) -> int:
    """Copy a fund's database as it is now, whether the fund runs or not.

    Parameters
    ----------
    path
        The file to make.
    """
    from fundops.actors.persistence import backup as copy_database

    where = source or Source()
    copied = copy_database(where.path, path)
    return print_json(copied) if where.json else print_pairs(plain(copied))


def restore(
    path: Path,
    /,
    *,
    replace: Annotated[bool, Parameter(negative="")] = False,
    source: Source | None = None,
) -> int:
    """Put a backup in the place of a fund's database. The fund must not be running.

    Events since the backup are missing in it, so the fund starts with its kill switch engaged.

    Parameters
    ----------
    path
        The backup.
    replace
        Also when there is a database already.
    """
    from fundops.file.restore import restore_fund
    from fundops.runtime import SystemClock

    where = source or Source()
    with owned(where.path):
        copied = restore_fund(path, where.path, SystemClock().now_us(), replace=replace)
    if where.json:
        return print_json(copied)
    print_pairs(plain(copied))
    print("the kill switch is engaged; release it once what has happened since the backup is known")
    return 0


def migrate(
    *, check: Annotated[bool, Parameter(negative="")] = False, source: Source | None = None
) -> int:
    """Bring a fund's database up to this version's schema; a fund does so too when it starts.

    A file of an older schema is copied first, beside itself. The fund must not be running.

    Parameters
    ----------
    check
        Only say what would be done, and whether there is room for the copy; ends with 1 if there is
        not.
    """
    from fundops.file.database import migrate_fund, migration_of

    where = source or Source()
    plan = migration_of(where.path)
    if not check and plan.pending:
        with owned(where.path):
            migrate_fund(where.path)
        plan = migration_of(where.path)
    if where.json:
        print_json(plan)
    else:
        print_pairs(plain(plan))
    return 0 if plan.room else 1


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
