"""The one schema of a fund's database, and who the database belongs to."""

from __future__ import annotations

import uuid
from pathlib import Path

import apsw

from fundops.actors.alert import schema as alert_schema
from fundops.actors.ledger import schema as ledger_schema
from fundops.actors.oversight import schema as oversight_schema
from fundops.actors.persistence import open_database
from fundops.actors.persistence import schema as persistence_schema
from fundops.actors.promotion import schema as promotion_schema
from fundops.actors.recovery import schema as recovery_schema
from fundops.runtime import ConfigError

__all__ = ["MIGRATIONS", "prepare"]

_META = "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;\n"

# One script per schema version, never changed once released; the next one is appended.
MIGRATIONS: tuple[str, ...] = (
    _META
    + ledger_schema.SCHEMA
    + alert_schema.SCHEMA
    + promotion_schema.SCHEMA
    + recovery_schema.SCHEMA
    + oversight_schema.SCHEMA,
    ledger_schema.SCHEMA_2 + persistence_schema.SCHEMA,
)


def prepare(path: Path, identity: dict[str, str], *, seed: int | None = None) -> str:
    """Create or migrate the file, and compare whose it is; the answer is its uuid. The caller holds the owner's lock.

    With a `seed` the uuid of a new file comes from it, so that a replay makes the same file twice.

    Raises: `DatabaseError`; `ConfigError` naming the setting that differs from the file's.
    """
    connection = open_database(path, MIGRATIONS)
    try:
        stored = {str(key): str(value) for key, value in connection.execute("SELECT key, value FROM meta")}
        for field, value in identity.items():
            if field in stored and stored[field] != value:
                raise ConfigError(field, f"{value!r} is not the {stored[field]!r} that {path} was made with")
        fresh = uuid.uuid5(uuid.NAMESPACE_OID, f"fundops:{seed}") if seed is not None else uuid.uuid4()
        wanted = {**identity, "uuid": stored.get("uuid", str(fresh))}
        _store(connection, {key: value for key, value in wanted.items() if key not in stored})
        return wanted["uuid"]
    finally:
        connection.close()


def _store(connection: apsw.Connection, values: dict[str, str]) -> None:
    if values:
        with connection:
            connection.executemany("INSERT INTO meta VALUES (?, ?)", list(values.items()))
