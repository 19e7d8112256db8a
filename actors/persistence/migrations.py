"""Checking that a file is a fundops database, and bringing its schema up to date.

`application_id` says that a file is ours, `user_version` how many of the migrations it has seen.
Each migration is one transaction with its number, so a file is always of one version; a new file
gets all of them in one. Before the first of them an existing file is copied.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import apsw

from ...wire.errors import DatabaseError
from .copying import copy_into

__all__ = ["APPLICATION_ID", "check_ours", "migrate"]

APPLICATION_ID = 0x66756E64  # "fund"


def check_ours(connection: apsw.Connection, path: Path, known: int) -> None:
    """Check that the file is a fundops database of a known version, or empty and unclaimed.

    Raises: `DatabaseError` when it belongs to another program or to a newer fundops.
    """
    application_id = connection.pragma("application_id")
    version = connection.pragma("user_version")
    empty = next(iter(connection.execute("SELECT count(*) FROM sqlite_schema")))[0] == 0
    if application_id != APPLICATION_ID and (application_id or not empty):
        raise DatabaseError(
            path, f"belongs to another program (application_id {application_id:#x})"
        )
    if version > known:
        raise DatabaseError(
            path, f"was written by a newer fundops (schema {version}, this one knows {known})"
        )


def migrate(connection: apsw.Connection, path: Path, migrations: Sequence[str]) -> None:
    """Apply the migrations that the file has not seen, after a copy of it: `<name>.v<its
    version>.bak`.

    Raises: `DatabaseError` when there is no room for the copy.
    """
    version = connection.pragma("user_version")
    if 0 < version < len(migrations):
        _keep_copy(connection, path, version)
    # Within a transaction that of a migration is a savepoint, which reaches the disk with it.
    with nullcontext() if version else connection:
        for number, script in enumerate(migrations[version:], start=version + 1):
            with connection:
                for statement in _statements(script):
                    connection.execute(statement)
                connection.pragma("application_id", APPLICATION_ID)
                connection.pragma("user_version", number)


def _keep_copy(connection: apsw.Connection, path: Path, version: int) -> None:
    need = connection.pragma("page_count") * connection.pragma("page_size")
    free = shutil.disk_usage(path.parent).free
    if free < need:
        raise DatabaseError(
            path, f"is copied before it is migrated, which needs {need} bytes free; {free} are"
        )
    copy = path.with_name(f"{path.name}.v{version}.bak")
    copy.unlink(missing_ok=True)
    copy_into(connection.execute, copy)


def _statements(script: str) -> list[str]:
    """The statements of a script. A trigger's body holds semicolons, so SQLite finds the ends."""
    statements, rest = [], ""
    for piece in script.split(";"):
        rest += piece + ";"
        if rest.strip(" \n;") and apsw.complete(rest):
            statements.append(rest)
            rest = ""
    return statements
