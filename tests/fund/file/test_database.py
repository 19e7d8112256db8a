"""The database of a fund: whose it is, and that it is compared at every opening."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from fundops import ConfigError, Fund, FundConfig, open_reader
from fundops.actors.persistence import open_database
from fundops.file.database import MIGRATIONS, prepare
from fundops.wire.errors import DatabaseError

IDENTITY = {"name": "fund", "currency": "USD", "total_capital": "100000"}


def _meta(path: Path) -> dict[str, str]:
    with open_reader(path) as reader:
        return dict(reader.meta())


def test_a_new_file_is_given_its_identity_and_a_uuid_that_it_keeps(tmp_path: Path) -> None:
    path = tmp_path / "fund.db"
    uuid = prepare(path, IDENTITY)
    assert prepare(path, IDENTITY) == uuid
    assert _meta(path) == {**IDENTITY, "uuid": uuid}


def test_two_new_files_have_two_uuids(tmp_path: Path) -> None:
    assert prepare(tmp_path / "a.db", IDENTITY) != prepare(tmp_path / "b.db", IDENTITY)


def test_the_uuid_of_a_new_file_comes_from_the_seed(tmp_path: Path) -> None:
    first = prepare(tmp_path / "a.db", IDENTITY, seed=7)
    assert prepare(tmp_path / "b.db", IDENTITY, seed=7) == first
    assert prepare(tmp_path / "c.db", IDENTITY, seed=8) != first
    assert prepare(tmp_path / "a.db", IDENTITY, seed=8) == first, "a file keeps the uuid it has"


@pytest.mark.parametrize(
    ("field", "other"),
    [("name", "other"), ("currency", "EUR"), ("total_capital", "100001")],
    ids=str,
)
def test_a_file_of_another_fund_is_refused_with_the_field_and_both_values(
    tmp_path: Path, field: str, other: str
) -> None:
    path = tmp_path / "fund.db"
    prepare(path, IDENTITY)
    before = _meta(path)
    with pytest.raises(ConfigError) as caught:
        prepare(path, {**IDENTITY, field: other})
    assert caught.value.field == field
    assert repr(other) in str(caught.value)
    assert repr(IDENTITY[field]) in str(caught.value)
    assert _meta(path) == before


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "b"}, "name"),
        ({"currency": "EUR"}, "currency"),
        ({"total_capital": 5}, "total_capital"),
    ],
    ids=lambda value: str(value),
)
async def test_a_fund_does_not_start_on_the_database_of_another(
    tmp_path: Path, changes: dict[str, object], field: str
) -> None:
    common: dict[str, object] = {
        "db_path": tmp_path / "x.db",
        "tick_interval_s": None,
        "total_capital": 100_000,
    }
    async with Fund.open(FundConfig(**{**common, "name": "a"})):  # type: ignore[arg-type]
        pass
    with pytest.raises(ConfigError) as caught:
        async with Fund.open(FundConfig(**{**common, "name": "a", **changes})):  # type: ignore[arg-type]
            pytest.fail("it opened")
    assert caught.value.field == field
    async with Fund.open(FundConfig(**{**common, "name": "a"})):  # type: ignore[arg-type]
        pass  # the refusal left no lock behind


async def test_capital_written_in_another_way_is_the_same_capital(tmp_path: Path) -> None:
    for capital in (100_000, "100000.00", 1e5):
        config = FundConfig(total_capital=capital, db_path=tmp_path / "x.db", tick_interval_s=None)
        async with Fund.open(config):
            pass
    assert _meta(tmp_path / "x.db")["total_capital"] == "100000"


@pytest.mark.parametrize(
    "content", [b"hello, this is no database at all" * 40, b"\x00" * 4096], ids=["text", "zeros"]
)
def test_a_file_that_is_no_database_is_refused_by_name_and_left_alone(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "fund.db"
    path.write_bytes(content)
    with pytest.raises(DatabaseError, match=r"fund\.db"):
        prepare(path, IDENTITY)
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fund.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(DatabaseError, match="another program"):
        prepare(path, IDENTITY)


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fund.db"
    prepare(path, IDENTITY)
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", len(MIGRATIONS) + 1)
    connection.close()
    with pytest.raises(DatabaseError, match="newer"):
        prepare(path, IDENTITY)


def test_a_path_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError):
        prepare(tmp_path, IDENTITY)


def test_the_file_is_for_its_owner_alone_and_keeps_every_commit(tmp_path: Path) -> None:
    path = tmp_path / "new" / "fund.db"
    prepare(path, IDENTITY)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    connection = open_database(path, MIGRATIONS)
    try:
        assert connection.pragma("journal_mode") == "wal"
        assert connection.pragma("synchronous") == 2
        assert connection.pragma("integrity_check") == "ok"
    finally:
        connection.close()


def test_the_journal_and_the_promotion_history_can_not_be_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "fund.db"
    prepare(path, IDENTITY)
    connection = open_database(path, MIGRATIONS)
    try:
        tables = {
            str(name)
            for (name,) in connection.execute(
                "SELECT tbl_name FROM sqlite_schema WHERE type='trigger'"
            )
        }
        assert {"entry", "posting"} <= tables
    finally:
        connection.close()
