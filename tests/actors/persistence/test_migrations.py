"""Migrations: one transaction each, or one for a new file, after a copy for its owner alone, and
nothing of an older file is lost.
"""

import shutil
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import pytest

from fundops import Fund, FundConfig
from fundops.actors.persistence import Reader, Store, commit_batch, open_database
from fundops.actors.promotion import schema as promotion_schema
from fundops.file.database import MIGRATIONS, prepare
from fundops.wire.errors import DatabaseError
from fundops.wire.persistence import Committed
from fundops.wire.promotion import PromotionStage

FIRST = "CREATE TABLE fact (id INTEGER PRIMARY KEY, value TEXT NOT NULL) STRICT;"
SECOND = "CREATE TABLE second (id INTEGER PRIMARY KEY) STRICT; INSERT INTO second VALUES (2);"
BROKEN = (
    "CREATE TABLE third (id INTEGER PRIMARY KEY) STRICT; CREATE TABLE third (id INTEGER) STRICT;"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fund.db"


def made(path: Path) -> None:
    """A file of the first version, with data."""
    connection = open_database(path, (FIRST,))
    connection.executemany("INSERT INTO fact(value) VALUES (?)", [("x" * 1_000,)] * 100)
    connection.close()


def dump(path: Path) -> dict[str, list[Any]]:
    with Reader(path) as reader:
        tables = [
            name for (name,) in reader.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")
        ]
        return {name: reader.rows(f"SELECT * FROM {name}") for name in tables}


def version(path: Path) -> int:
    with Reader(path) as reader:
        return int(reader.row("PRAGMA user_version")[0])


def test_an_existing_file_is_copied_before_it_is_migrated(path: Path) -> None:
    made(path)
    before = dump(path)
    open_database(path, (FIRST, SECOND)).close()
    assert {file.name for file in path.parent.iterdir()} == {"fund.db", "fund.db.v1.bak"}
    assert dump(path) == {**before, "second": [(2,)]}
    copy = path.with_name("fund.db.v1.bak")
    assert (dump(copy), version(copy), version(path)) == (before, 1, 2)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def test_a_new_file_and_one_that_is_up_to_date_are_not_copied(path: Path) -> None:
    for _ in range(2):
        open_database(path, (FIRST, SECOND)).close()
    assert [file.name for file in path.parent.iterdir()] == ["fund.db"]


def test_a_migration_that_breaks_leaves_the_version_before_and_the_copy_is_made_again(
    path: Path,
) -> None:
    made(path)
    before = dump(path)
    for _ in range(2):
        with pytest.raises(DatabaseError, match="already exists"):
            open_database(path, (FIRST, BROKEN))
        assert (dump(path), version(path)) == (before, 1)
        assert dump(path.with_name("fund.db.v1.bak")) == before
    connection = open_database(path, (FIRST,))
    connection.execute("DELETE FROM fact WHERE id > 1")
    connection.close()
    with pytest.raises(DatabaseError, match="already exists"):
        open_database(path, (FIRST, SECOND, BROKEN))
    assert version(path) == 2, "those before the broken one are done"
    assert len(dump(path.with_name("fund.db.v1.bak"))["fact"]) == 1, (
        "the copy is of the file as it was last"
    )


def test_a_new_file_gets_all_of_its_migrations_or_none(path: Path) -> None:
    with pytest.raises(DatabaseError, match="third"):
        open_database(path, (FIRST, SECOND, BROKEN))
    connection = apsw.Connection(str(path))
    assert connection.pragma("user_version") == 0
    assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchall() == [(0,)]
    connection.close()
    open_database(path, (FIRST, SECOND)).close()
    assert dump(path)["second"] == [(2,)]


def test_without_room_for_the_copy_nothing_is_migrated(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(path)
    size = path.stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=size - 1))
    with pytest.raises(DatabaseError, match=f"needs {size} bytes free; {size - 1} are") as refused:
        open_database(path, (FIRST, SECOND))
    assert refused.value.path == path
    assert version(path) == 1
    assert not path.with_name("fund.db.v1.bak").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=size))
    open_database(path, (FIRST, SECOND)).close()
    assert version(path) == 2


def test_a_copy_that_cannot_be_written_leaves_nothing_and_stops_the_migration(path: Path) -> None:
    made(path)
    copy = path.with_name("fund.db.v1.bak")
    copy.mkdir()
    with pytest.raises((DatabaseError, OSError)):
        open_database(path, (FIRST, SECOND))
    assert version(path) == 1
    copy.rmdir()
    open_database(path, (FIRST, SECOND)).close()
    assert version(path) == 2


async def test_a_fund_of_the_first_version_opens_with_all_its_data(path: Path) -> None:
    async with Fund.open(config_of(path.with_name("today.db"))) as fund:
        await fund.ledger.deposit(500, key="ours")
        await fund.promotion.register("momentum")
        await fund.promotion.record_metrics("momentum", PromotionStage.Paper, {"sharpe": 1.2})
        sheet = await fund.ledger.balance_sheet()
    of_the_first_version(path, path.with_name("today.db"))
    before = dump(path)
    assert len(before["entry"]) == 2
    assert version(path) == 1
    prepare(path, {})
    after = dump(path)
    assert {name: as_before(before[name], after[name]) for name in before} == before
    with Reader(path) as reader:
        (strategy,) = promotion_schema.load_all(reader)
        assert (strategy.name, strategy.episode.number) == ("momentum", 1)
        assert strategy.episode.recorded["sharpe"].value == 1.2
    assert dump(path.with_name("fund.db.v1.bak")) == before
    assert version(path) == len(MIGRATIONS)
    async with Fund.open(config_of(path)) as fund:
        assert await fund.ledger.balance_sheet() == sheet
        assert (await fund.ledger.deposit(500, key="ours")).replayed


def config_of(path: Path) -> FundConfig:
    return FundConfig(
        name="fund",
        total_capital=100_000,
        db_path=path,
        ledger_enabled=True,
        promotion_enabled=True,
        tick_interval_s=None,
    )


def of_the_first_version(path: Path, source: Path) -> None:
    """The rows of a fund in the first schema, as far as it has a place for them."""
    open_database(path, MIGRATIONS[:1]).close()
    connection = apsw.Connection(str(path))
    connection.execute("ATTACH ? AS today", (str(source),))
    for name in tables(connection):
        found = connection.execute("SELECT name FROM pragma_table_info(?)", (name,)).fetchall()
        names = [str(column) for (column,) in found]
        columns = ", ".join(names)
        sources = ", ".join('"by"' if column == "actor" else column for column in names)
        connection.execute(
            f"INSERT OR REPLACE INTO {name} ({columns}) SELECT {sources} FROM today.{name}"
        )
    # The evidence was in the strategy itself.
    connection.execute(
        "UPDATE promotions SET record = json_set(json_remove(record, '$.episode', '$.episodes'),"
        " '$.episode', 1, '$.entered_us', json_extract(record, '$.episode.entered_us'),"
        " '$.metrics', json_extract(record, '$.episode.recorded'),"
        " '$.track', json_extract(record, '$.episode.track'))"
    )
    connection.close()


def as_before(before: list[Any], after: list[Any]) -> list[Any]:
    """The rows without their new columns; the record of a strategy is looked at by itself."""
    return [
        (*new[:5], old[5]) if len(new) == 6 and "entered_us" in str(new[5]) else new[: len(old)]
        for old, new in zip(before, after, strict=True)
    ]


def tables(connection: apsw.Connection) -> list[str]:
    names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return [str(name) for (name,) in connection.execute(names).fetchall()]


@pytest.mark.parametrize("known", range(1, len(MIGRATIONS)))
def test_every_earlier_schema_becomes_the_same_as_a_new_one(path: Path, known: int) -> None:
    open_database(path, MIGRATIONS[:known]).close()
    store = Store(path, MIGRATIONS)
    assert commit_batch(store, [()]) == [Committed(1)]
    store.close()
    new = path.with_name("new.db")
    open_database(new, MIGRATIONS).close()
    schemas = []
    for file in (path, new):
        with Reader(file) as reader:
            schemas.append(reader.rows("SELECT type, name, sql FROM sqlite_schema ORDER BY 1, 2"))
    assert schemas[0] == schemas[1]
