"""The schema of a fund's database, its migrations, and the check of its identity at every start."""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec

from fundops.actors.alert import schema as alert_schema
from fundops.actors.guard import schema as guard_schema
from fundops.actors.ledger import prices as ledger_prices
from fundops.actors.ledger import schema as ledger_schema
from fundops.actors.ledger.events import Rules
from fundops.actors.oversight import schema as oversight_schema
from fundops.actors.persistence import Reader, Rows, errors_named, open_database
from fundops.actors.persistence import schema as persistence_schema
from fundops.actors.promotion import schema as promotion_schema
from fundops.actors.recovery import schema as recovery_schema
from fundops.file import meta
from fundops.limits import decoded
from fundops.runtime import ConfigError
from fundops.wire.errors import DatabaseError

__all__ = ["MIGRATIONS", "Migration", "exchange_limits", "migrate_fund", "migration_of", "prepare"]

log = logging.getLogger("fundops")

# Its rows are written and read by `fundops.control.audit`.
_AUDIT: Final = """
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at_us INTEGER NOT NULL,
    door TEXT NOT NULL,
    uid INTEGER,
    pid INTEGER,
    actor TEXT NOT NULL,
    command TEXT NOT NULL,
    arguments TEXT NOT NULL,
    outcome TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_is_for_ever BEFORE UPDATE ON audit
BEGIN SELECT raise(ABORT, 'audit rows are never changed'); END;
CREATE TRIGGER audit_is_never_deleted BEFORE DELETE ON audit
BEGIN SELECT raise(ABORT, 'audit rows are never deleted'); END;
"""

_AUDIT_3: Final = 'ALTER TABLE audit RENAME COLUMN actor TO "by";'

# One script per schema version, never changed once released; the next one is appended.
MIGRATIONS: tuple[str, ...] = (
    meta.SCHEMA
    + ledger_schema.SCHEMA
    + alert_schema.SCHEMA
    + promotion_schema.SCHEMA
    + recovery_schema.SCHEMA
    + oversight_schema.SCHEMA,
    ledger_schema.SCHEMA_2 + persistence_schema.SCHEMA + _AUDIT,
    promotion_schema.SCHEMA_3 + recovery_schema.SCHEMA_3 + _AUDIT_3,
    alert_schema.SCHEMA_4
    + guard_schema.SCHEMA_4
    + ledger_schema.SCHEMA_4
    + ledger_prices.SCHEMA_4
    + oversight_schema.SCHEMA_4,
    promotion_schema.SCHEMA_5 + recovery_schema.SCHEMA_5 + oversight_schema.SCHEMA_5,
)


class Migration(msgspec.Struct, frozen=True):
    """The versions and the disk space of bringing one file up to date."""

    schema: int  # the file's version
    newest: int  # this program's version
    needs_bytes: int  # free space for the copy made first; 0: no migration is pending
    free_bytes: int

    @property
    def pending(self) -> bool:
        """Whether the file's schema is older than this program's."""
        return self.schema < self.newest

    @property
    def room(self) -> bool:
        """Whether the copy fits on the disk."""
        return self.free_bytes >= self.needs_bytes


def migration_of(path: Path) -> Migration:
    """The migration that the file needs. The file is only read.

    Raises: `DatabaseError` for a file of another program or of a newer fundops.
    """
    with Reader(path) as reader:
        schema = reader.row("PRAGMA user_version")[0]
        size = reader.row("PRAGMA page_count")[0] * reader.row("PRAGMA page_size")[0]
    newest = len(MIGRATIONS)
    if schema > newest:
        raise DatabaseError(
            path, f"was written by a newer fundops (schema {schema}, this one knows {newest})"
        )
    needs = size if schema < newest else 0
    return Migration(schema, newest, needs, shutil.disk_usage(path.absolute().parent).free)


def migrate_fund(path: Path) -> None:
    """Bring the file up to date, after a copy of it. The caller holds the owner's lock.

    Raises: `DatabaseError`.
    """
    open_database(path, MIGRATIONS).close()


def exchange_limits(path: Path, limits: Mapping[str, Any]) -> Mapping[str, Any]:
    """Store the limits of this run in a file that is prepared; returns those of the last one.

    Raises: `DatabaseError`.
    """
    with errors_named(path), closing(open_database(path, MIGRATIONS)) as connection:
        text = msgspec.json.encode(limits, order="sorted").decode()
        stored = meta.read(Rows(connection)).get("limits")
        if stored != text:
            meta.write(connection, {"limits": text})
        return decoded(stored)


def prepare(
    path: Path, identity: dict[str, str], *, rules: Rules | None = None, seed: int | None = None
) -> str:
    """Create or migrate the file and compare its identity; returns its uuid.

    The caller holds the owner's lock.

    The ledger's `rules` are stored for tools that book while no fund runs. With a `seed` the uuid
    of a new file is derived from it, so that a replay makes the same file twice.

    Raises: `DatabaseError`; `ConfigError` naming the setting that differs from the file's.
    """
    with errors_named(path), closing(open_database(path, MIGRATIONS)) as connection:
        if path.stat().st_nlink > 1:
            log.warning(
                "%s has another name (a hard link): opened by that one, it would lack this one's"
                " log and kill marker",
                path,
            )
        stored = meta.read(Rows(connection))
        for field, value in identity.items():
            if field in stored and stored[field] != value:
                raise ConfigError(
                    field, f"{value!r} is not the {stored[field]!r} that {path} was made with"
                )
        fresh = (
            uuid.uuid5(uuid.NAMESPACE_OID, f"fundops:{seed}") if seed is not None else uuid.uuid4()
        )
        wanted = {**identity, "uuid": stored.get("uuid", str(fresh))}
        meta.write(connection, {key: value for key, value in wanted.items() if key not in stored})
        noted = {} if rules is None else meta.with_rules(rules)
        if not noted.items() <= stored.items():
            meta.write(connection, noted)
        return wanted["uuid"]
