"""The table `meta`: its values, read from a connection or a path, and the rules kept in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fundops.actors.ledger.events import Rules
from fundops.actors.persistence import Rows, open_database
from fundops.file import meta
from fundops.file.database import MIGRATIONS, prepare
from fundops.wire.errors import DatabaseError


def test_the_identity_holds_the_capital_as_plain_decimal_text() -> None:
    assert meta.identity("a", "USD", 100_000 * 10**8)["total_capital"] == "100000"
    assert meta.identity("a", "USD", 5 * 10**7)["total_capital"] == "0.5"


def test_values_are_replaced_by_key_and_the_others_stay(tmp_path: Path) -> None:
    connection = open_database(tmp_path / "x.db", MIGRATIONS)
    try:
        meta.write(connection, {"name": "a", "uuid": "u"})
        meta.write(connection, {"name": "b"})
        meta.write(connection, {})
        assert meta.read(Rows(connection)) == {"name": "b", "uuid": "u"}
    finally:
        connection.close()
    assert meta.read_file(tmp_path / "x.db") == {"name": "b", "uuid": "u"}


def test_a_file_that_is_missing_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=r"nosuch\.db"):
        meta.read_file(tmp_path / "nosuch.db")


def test_the_rules_of_the_last_start_are_kept_and_default_to_none_given(tmp_path: Path) -> None:
    path, identity = tmp_path / "x.db", meta.identity("a", "USD", 10**8)
    prepare(path, identity)
    assert meta.rules_of(meta.read_file(path)) == Rules()
    strict = Rules("refuse", {"CASH": 5})
    prepare(path, identity, rules=strict)
    prepare(path, identity)
    assert meta.rules_of(meta.read_file(path)) == strict
