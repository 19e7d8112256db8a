"""The one schema of a fund's database, and who the database belongs to."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

import apsw
import msgspec

from fundops import audit
from fundops.actors.alert import schema as alert_schema
from fundops.actors.guard.marker import Marker
from fundops.actors.ledger import schema as ledger_schema
from fundops.actors.ledger.accounts import EXTERNAL
from fundops.actors.ledger.events import Rules
from fundops.actors.ledger.journal import Header, import_journal, peek_header
from fundops.actors.oversight import schema as oversight_schema
from fundops.actors.persistence import Copied, DatabaseError, Reader, beside, open_database, restore, sync_folder
from fundops.actors.persistence import schema as persistence_schema
from fundops.actors.promotion import schema as promotion_schema
from fundops.actors.recovery import schema as recovery_schema
from fundops.runtime import ConfigError
from fundops.wire.guard import KillStatus
from fundops.wire.money import from_minor

__all__ = [
    "MIGRATIONS",
    "Migration",
    "import_book",
    "migrate_fund",
    "migration_of",
    "prepare",
    "restore_fund",
    "rules_of",
]

_RULES = "ledger_rules"
_META = "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;\n"

# One script per schema version, never changed once released; the next one is appended.
MIGRATIONS: tuple[str, ...] = (
    _META
    + ledger_schema.SCHEMA
    + alert_schema.SCHEMA
    + promotion_schema.SCHEMA
    + recovery_schema.SCHEMA
    + oversight_schema.SCHEMA,
    ledger_schema.SCHEMA_2 + persistence_schema.SCHEMA + audit.SCHEMA,
)


class Migration(msgspec.Struct, frozen=True):
    """What bringing a file up to date takes."""

    schema: int  # the file's
    newest: int  # ours
    needs_bytes: int  # free, for the copy that is made first; 0: there is nothing to do
    free_bytes: int

    @property
    def pending(self) -> bool:
        return self.schema < self.newest

    @property
    def room(self) -> bool:
        return self.free_bytes >= self.needs_bytes


def migration_of(path: Path) -> Migration:
    """Looks, and changes nothing. Raises: `DatabaseError` for a file of another program or a newer fundops."""
    with Reader(path) as reader:
        schema = reader.row("PRAGMA user_version")[0]
        size = reader.row("PRAGMA page_count")[0] * reader.row("PRAGMA page_size")[0]
    if schema > len(MIGRATIONS):
        raise DatabaseError(path, f"was written by a newer fundops (schema {schema}, this one knows {len(MIGRATIONS)})")
    needs = size if schema < len(MIGRATIONS) else 0
    return Migration(schema, len(MIGRATIONS), needs, shutil.disk_usage(path.absolute().parent).free)


def migrate_fund(path: Path) -> None:
    """Bring the file up to date, after a copy of it. The caller holds the owner's lock. Raises: `DatabaseError`."""
    open_database(path, MIGRATIONS).close()


def prepare(path: Path, identity: dict[str, str], *, rules: Rules | None = None, seed: int | None = None) -> str:
    """Create or migrate the file, and compare whose it is; the answer is its uuid. The caller holds the owner's lock.

    The `rules` of its ledger are noted for whoever books while no fund runs. With a `seed` the uuid of a new file comes
    from it, so that a replay makes the same file twice.

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
        if rules is not None and (noted := msgspec.json.encode(rules._asdict()).decode()) != stored.get(_RULES):
            _store(connection, {_RULES: noted})
        return wanted["uuid"]
    finally:
        connection.close()


def rules_of(meta: Mapping[str, str]) -> Rules:
    """The ledger's rules as the fund that ran last had them."""
    return Rules(**msgspec.json.decode(meta.get(_RULES, "{}")))


def _store(connection: apsw.Connection, values: dict[str, str]) -> None:
    if values:
        with connection:
            connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))


def restore_fund(source: Path, target: Path, now_us: int, *, replace: bool = False) -> Copied:
    """Make `target` of a backup. The caller holds the owner's lock.

    Nobody knows what the fund has done since: the kill switch is engaged before the file has its name, the file gets
    an identity of its own, and remembers whose fork it is.

    Raises: `DatabaseError`.
    """
    marker = Marker(target.with_name(target.name + ".kill"))
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    before = marker.read()
    try:
        marker.write(KillStatus("ENGAGED", f"restored from {source.name}", "fundops", now_us))
        copied = restore(source, target, MIGRATIONS, replace=replace)
    except BaseException:
        marker.remove() if before is None else marker.write(before)
        raise
    connection = open_database(target, MIGRATIONS)
    try:
        stored = {str(key): str(value) for key, value in connection.execute("SELECT key, value FROM meta")}
        head = next(iter(connection.execute("SELECT seq, hex(hash) FROM entry ORDER BY seq DESC LIMIT 1")), (0, ""))
        fork = {
            "uuid": str(uuid.uuid4()),
            "forked_from": stored.get("uuid", ""),
            "forked_at_us": str(now_us),
            "forked_at_entry": f"{head[0]} {head[1].lower()}",
        }
        _store(connection, fork)
    finally:
        connection.close()
    return copied


def import_book(path: Path, lines: Iterable[str]) -> Header:
    """Make a new database of an exported journal. The caller holds the owner's lock.

    A new file has its name only once it is whole: one that was killed before its first entry would pass for a new fund.

    Raises: `JournalDamaged`; `DatabaseError` when there are entries already.
    """
    if path.exists():
        return _import_into(path, lines)
    part = path.with_name(f"{path.name}.importing")
    try:
        _remove(part)  # what one that was killed has left
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
        capital = "SELECT -amount_minor FROM entry JOIN posting ON entry = seq WHERE key = 'opening' AND account = ?"
        minor = next(iter(connection.execute(capital, (EXTERNAL,))), (0,))[0]
        stored = {str(key) for (key,) in connection.execute("SELECT key FROM meta")}
        wanted = {
            "name": header.name or "fund",
            "currency": header.currency or "USD",
            "total_capital": f"{from_minor(minor).normalize():f}",
            "uuid": str(uuid.uuid4()),
            "forked_from": header.uuid or "",
            "forked_at_entry": f"{header.seq} {header.hash}",
        }
        _store(connection, {key: value for key, value in wanted.items() if key not in stored})
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)  # the log would not come along
    finally:
        connection.close()
    return header
