"""Backup and restore: whole, its owner's alone, on disk when it is said, and never over
something else unasked.
"""

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from fundops.actors.persistence import Reader, backup, copying, open_database, restore
from fundops.wire.errors import DatabaseError

SCHEMA = (
    "CREATE TABLE fact (id INTEGER PRIMARY KEY, value TEXT NOT NULL) STRICT;",
    "CREATE INDEX by_value ON fact (value);",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fund" / "fund.db"


@pytest.fixture
def writer(path: Path) -> Iterator[apsw.Connection]:
    """A running fund: what it has committed is still in the log."""
    connection = open_database(path, SCHEMA)
    connection.executemany(
        "INSERT INTO fact(value) VALUES (?)", [(f"{number:0100}",) for number in range(200)]
    )
    yield connection
    connection.close()


@pytest.fixture
def copy(path: Path, writer: apsw.Connection, tmp_path: Path) -> Path:
    return backup(path, tmp_path / "copy.db").path


def facts(path: Path) -> int:
    with Reader(path) as reader:
        assert reader.row("PRAGMA integrity_check") == ("ok",)
        return int(reader.row("SELECT count(*) FROM fact")[0])


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


# -- backup


def test_a_backup_has_all_that_is_committed_and_nothing_that_is_not(
    path: Path, writer: apsw.Connection, tmp_path: Path
) -> None:
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO fact(value) VALUES ('not yet')")
    copied = backup(path, tmp_path / "copy.db")
    assert facts(copied.path) == 200
    assert (copied.path, copied.schema) == (tmp_path / "copy.db", 2)
    assert copied.size_bytes == copied.path.stat().st_size
    writer.execute("COMMIT")
    assert facts(path) == 201


def test_a_backup_is_its_owners_alone_before_anything_is_in_it(
    path: Path, writer: apsw.Connection, tmp_path: Path
) -> None:
    modes = []

    def look(sql: str, bindings: tuple[str]) -> None:
        target = Path(bindings[0])
        modes.append((stat.S_IMODE(target.stat().st_mode), target.stat().st_size))
        writer.execute(sql, bindings)

    before = os.umask(0)
    try:
        copying.copy_into(look, tmp_path / "copy.db")
    finally:
        os.umask(before)
    assert modes == [(0o600, 0)]
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600


def test_a_backup_and_its_name_are_synced_when_it_is_said_to_be_there(
    path: Path, writer: apsw.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def fsync(descriptor: int) -> None:
        synced.append(
            os.readlink(f"/proc/self/fd/{descriptor}") if os.path.exists("/proc/self/fd") else None
        )

    monkeypatch.setattr(os, "fsync", fsync)
    backup(path, tmp_path / "copy.db")
    assert synced in ([str(tmp_path / "copy.db"), str(tmp_path)], [None, None])


@pytest.mark.parametrize("there", [b"", b"something of somebody's"], ids=["empty", "text"])
def test_a_backup_never_overwrites(
    path: Path, writer: apsw.Connection, tmp_path: Path, there: bytes
) -> None:
    target = tmp_path / "copy.db"
    target.write_bytes(there)
    with pytest.raises(DatabaseError, match="exists already") as refused:
        backup(path, target)
    assert refused.value.path == target
    assert target.read_bytes() == there


def test_a_backup_that_fails_leaves_nothing(
    path: Path, writer: apsw.Connection, tmp_path: Path
) -> None:
    def full(*_: Any) -> None:
        raise apsw.FullError("database or disk is full")

    with pytest.raises(DatabaseError, match="full"):
        copying.copy_into(full, tmp_path / "copy.db")
    with pytest.raises(DatabaseError, match="cannot be made"):
        backup(path, tmp_path / "missing" / "copy.db")
    with pytest.raises(DatabaseError, match="no such database"):
        backup(tmp_path / "nothing.db", tmp_path / "copy.db")
    assert names(tmp_path) == {"fund"}


# -- restore


def test_a_restored_database_is_the_one_that_was_backed_up(copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "fund.db"
    restored = restore(copy, target, SCHEMA)
    assert (restored.path, restored.schema, restored.size_bytes) == (
        target,
        2,
        target.stat().st_size,
    )
    assert facts(target) == 200
    assert names(target.parent) == {"fund.db"}
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert stat.S_IMODE(target.parent.stat().st_mode) == 0o700
    open_database(target, SCHEMA).close()


def test_an_older_backup_keeps_its_version_until_it_is_opened(tmp_path: Path) -> None:
    open_database(tmp_path / "old.db", SCHEMA[:1]).close()
    assert restore(tmp_path / "old.db", tmp_path / "fund.db", SCHEMA).schema == 1
    connection = open_database(tmp_path / "fund.db", SCHEMA)
    assert connection.pragma("user_version") == 2
    connection.close()


@pytest.mark.parametrize("left", ["fund.db", "fund.db-wal", "fund.db-shm"])
def test_a_restore_overwrites_only_when_asked_to(copy: Path, tmp_path: Path, left: str) -> None:
    target = tmp_path / "new" / "fund.db"
    target.parent.mkdir()
    target.with_name(left).write_bytes(b"somebody's")
    with pytest.raises(DatabaseError, match="exists already"):
        restore(copy, target, SCHEMA)
    assert target.with_name(left).read_bytes() == b"somebody's"
    restore(copy, target, SCHEMA, replace=True)
    assert facts(target) == 200
    assert names(target.parent) == {"fund.db"}


def test_the_log_of_the_database_before_is_not_replayed_into_the_restored_one(
    copy: Path, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "fund.db"
    before = open_database(target, SCHEMA)
    before.execute("INSERT INTO fact(value) VALUES ('from before')")
    left = {file: file.read_bytes() for file in target.parent.iterdir()}
    before.close()
    for file, content in left.items():  # as after a kill
        file.write_bytes(content)
    assert target.with_name("fund.db-wal").stat().st_size > 0
    restore(copy, target, SCHEMA, replace=True)
    assert facts(target) == 200
    with Reader(target) as reader:
        assert reader.row("SELECT * FROM fact WHERE value = 'from before'") is None


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for start in range(2 * 4096, len(content), 4096):
        content[start : start + 64] = b"\xff" * 64
    path.write_bytes(content)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: 3 * 4096])


def foreign(path: Path) -> None:
    with apsw.Connection(str(path)) as connection:
        connection.pragma("application_id", 1)
    connection.close()


def newer(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", 3)
    connection.close()


def never_made(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", 0)
    connection.close()


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (damaged, "damaged"),
        (cut_off, "malformed"),
        (foreign, "not a fundops database"),
        (newer, "has schema 3; this fundops knows 1 to 2"),
        (never_made, "has schema 0"),
        (lambda path: path.write_bytes(b""), "not a fundops database"),
        (lambda path: path.write_bytes(b"text" * 1_000), "cannot be read"),
        (Path.unlink, "no such database"),
    ],
    ids=["damaged", "cut off", "foreign", "newer", "never made", "empty", "text", "missing"],
)
@pytest.mark.parametrize("replace", [False, True], ids=["new", "replace"])
def test_a_backup_that_is_not_whole_or_not_ours_is_refused_and_the_target_stays_as_it_was(
    copy: Path, tmp_path: Path, harm: Callable[[Path], object], problem: str, replace: bool
) -> None:
    target = tmp_path / "new" / "fund.db"
    if replace:
        open_database(target, SCHEMA).close()
    before = target.read_bytes() if replace else None
    harm(copy)
    with pytest.raises(DatabaseError, match=problem):
        restore(copy, target, SCHEMA, replace=replace)
    assert (target.read_bytes() if target.exists() else None) == before
    assert names(target.parent) <= {"fund.db"}


def test_what_an_interrupted_restore_left_is_in_nobodys_way(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "fund.db.restoring").write_bytes(b"half")
    restore(copy, tmp_path / "fund.db", SCHEMA)
    assert facts(tmp_path / "fund.db") == 200
    assert not (tmp_path / "fund.db.restoring").exists()


@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
def test_the_journal_of_a_killed_restore_is_not_replayed_into_the_next(
    copy: Path, tmp_path: Path, suffix: str
) -> None:
    target = tmp_path / "new" / "fund.db"
    target.parent.mkdir()
    target.with_name(f"fund.db.restoring{suffix}").write_bytes(b"of another file")
    restore(copy, target, SCHEMA)
    assert facts(target) == 200
    assert names(target.parent) == {"fund.db"}


def test_a_copy_is_prepared_before_it_has_its_name(copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "fund.db"

    def prepare(connection: apsw.Connection) -> None:
        assert not target.exists()
        connection.pragma("journal_mode", "wal")
        connection.execute("INSERT INTO fact(value) VALUES ('more')")

    restore(copy, target, SCHEMA, prepare=prepare)
    assert facts(target) == 201


def test_a_restore_whose_preparation_fails_leaves_nothing(copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "fund.db"

    def prepare(connection: apsw.Connection) -> None:
        connection.execute("DELETE FROM x")

    with pytest.raises(DatabaseError, match=r"cannot be written: .*no such table: x"):
        restore(copy, target, SCHEMA, prepare=prepare)
    assert names(target.parent) == set()


# -- a change that was cut off


CUT_OFF = """
import os, sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.pragma("cache_size", 1)
connection.execute("BEGIN; UPDATE fact SET value = 'x' || value")
os._exit(9)
"""


def test_a_reader_of_a_file_with_a_change_that_was_cut_off_says_what_to_do(copy: Path) -> None:
    subprocess.run([sys.executable, "-c", CUT_OFF, str(copy)], check=False)
    assert copy.with_name("copy.db-journal").exists()
    with pytest.raises(
        DatabaseError, match=r"holds a change that was cut off.*start its fund once"
    ):
        Reader(copy)
    open_database(copy, SCHEMA).close()
    assert facts(copy) == 200


@pytest.mark.parametrize("content", [b"", b"text" * 1_000], ids=["empty", "text"])
def test_a_file_that_is_refused_is_not_kept_open(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.db").write_bytes(content)
    with pytest.raises(DatabaseError) as refused:
        Reader(tmp_path / "x.db")
    assert not [
        one for one in apsw.connections() if one.open_flags and one.filename.endswith("x.db")
    ], refused
