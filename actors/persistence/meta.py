"""The table `meta`: keys and values that tell one database from another. Nothing else reads it.

`fundops.file.meta` says which keys there are.
"""

from __future__ import annotations

from collections.abc import Mapping

import apsw

from .reader import Rows

__all__ = ["SCHEMA", "read", "write"]

# Part of the first migration, so it is never changed.
SCHEMA = "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;\n"


def read(rows: Rows) -> dict[str, str]:
    """All keys and values of an open database."""
    return {str(key): str(value) for key, value in rows.rows("SELECT key, value FROM meta")}


def write(connection: apsw.Connection, values: Mapping[str, str]) -> None:
    """Store the values in one transaction, replacing older ones of the same keys."""
    if values:
        with connection:
            connection.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items())
            )
